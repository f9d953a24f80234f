//! How decisions are taken in: one of an operator here, or one that another server of the cluster knows. What is in force follows from
//! the set of decisions alone, so that servers that know the same decisions do the same.

use std::{collections::BTreeMap, hash::Hasher};

use siphasher::sip::SipHasher13;

use super::{Decision, OVERRIDES_MAX, Override, Overrides, Stamp, TooMany};

/// Most decisions that are remembered after they ended; the oldest are forgotten first.
const ENDED_MAX: usize = 4 * OVERRIDES_MAX;
/// Most decisions in force that others may bring.
const FOREIGN_MAX: usize = 2 * OVERRIDES_MAX;
/// Most servers that one is known to know of.
pub const KNOWS_MAX: usize = 256;
/// Most conflicts that are told of one decision.
pub const CONFLICTS_MAX: usize = 8;
/// A counter is one more than the highest that was known where it was given: one that is so far beyond all that is known here was made
/// up, and would leave no room for others.
const COUNTERS_MISSED_MAX: u64 = 1 << 20;

impl Override {
    /// Its place among all decisions.
    pub fn stamp(&self) -> Stamp {
        (self.counter, self.node.clone())
    }

    /// The same without a copy.
    fn place(&self) -> (u64, &str) {
        (self.counter, &self.node)
    }

    /// It was made by somebody who knew of `other`, or on the same server.
    fn knew(&self, other: &Override) -> bool {
        self.node == other.node
            || self.knows.iter().any(|(counter, node)| *node == other.node && *counter >= other.counter)
    }

    /// Notes that it overrode a decision that its server did not know of. True when that is news.
    fn note_conflict(&mut self, other: &Override) -> bool {
        if self.knew(other) || other.over || self.state == other.state {
            return false;
        }
        let reason = if other.reason.is_empty() { String::new() } else { format!(": {}", other.reason) };
        let text = format!("{} {} on {} by {}{reason}", other.target, other.state.as_str(), other.node, other.by);
        self.take_conflicts([text])
    }

    /// Takes in conflicts that another server noticed. True when one of them is news.
    fn take_conflicts(&mut self, conflicts: impl IntoIterator<Item = String>) -> bool {
        let before = self.conflicts.len();
        for text in conflicts {
            if self.conflicts.len() < CONFLICTS_MAX && !self.conflicts.contains(&text) {
                self.conflicts.push(text);
            }
        }
        self.conflicts.sort();
        self.conflicts.len() > before
    }
}

impl Overrides {
    /// Takes a decision in that was made here; returns those that it replaces, since they are about nothing that it is not about.
    ///
    /// # Errors
    /// When there are too many; nothing is changed then.
    pub fn set(&mut self, mut new: Override) -> Result<Vec<Override>, TooMany> {
        let is_replaced = |old: &&Override| new.target.covers(&old.target);
        let replaced: Vec<Override> = self.list.iter().filter(is_replaced).cloned().collect();
        if self.list.len() - replaced.len() >= OVERRIDES_MAX {
            return Err(TooMany);
        }
        new.knows = self.heard_of().into_iter().filter(|(_, node)| *node != new.node).take(KNOWS_MAX).collect();
        new.counter = self.highest() + 1;
        self.admit(new);
        Ok(replaced)
    }

    /// Takes in what another server knows. True when it was news.
    pub fn merge(&mut self, new: Override) -> bool {
        if new.counter > self.highest() + COUNTERS_MISSED_MAX {
            return false;
        }
        if self.list.len() >= FOREIGN_MAX && new.state != Decision::Auto {
            return false;
        }
        self.admit(new)
    }

    fn admit(&mut self, mut new: Override) -> bool {
        let mut known = self.list.iter_mut().chain(&mut self.ended);
        if let Some(known) = known.find(|old| old.place() == new.place() && old.target == new.target) {
            return known.take_conflicts(std::mem::take(&mut new.conflicts));
        }
        let mut all: Vec<Override> = std::mem::take(&mut self.list);
        all.append(&mut self.ended);
        let is_news = match all.iter_mut().find(|old| old.place() > new.place() && old.target.covers(&new.target)) {
            Some(newer) => newer.note_conflict(&new),
            None => {
                let is_covered = |old: &Override| old.place() < new.place() && new.target.covers(&old.target);
                let (covered, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(is_covered);
                all = kept;
                for old in &covered {
                    new.note_conflict(old);
                }
                all.push(new);
                true
            }
        };
        self.sort_out(all);
        is_news
    }

    /// Ends those whose time has come, and returns them.
    pub fn expire(&mut self, now_s: u64) -> Vec<Override> {
        let is_over = |o: &Override| o.until.is_some_and(|until| until <= now_s);
        let over: Vec<Override> = self.list.iter().filter(|o| is_over(o)).cloned().collect();
        if !over.is_empty() {
            let mut all = std::mem::take(&mut self.list);
            all.iter_mut().for_each(|o| o.over |= is_over(o));
            all.append(&mut self.ended);
            self.sort_out(all);
        }
        over
    }

    /// Puts everything in its place: what is in force, and what has ended. An exception that there is nothing older to except from is
    /// not in force.
    fn sort_out(&mut self, mut all: Vec<Override>) {
        all.sort_by(|a, b| a.place().cmp(&b.place()));
        let mut has_older = [false; 2]; // of regions, of endpoints
        for o in all {
            let older = &mut has_older[usize::from(o.target.is_of_endpoints())];
            *older |= o.state != Decision::Auto && !o.over;
            match *older && !o.over {
                true => self.list.push(o),
                false => self.ended.push(o),
            }
        }
        self.ended.retain(|o| !o.node.is_empty()); // alone, nobody could bring them back
        let too_many = self.ended.len().saturating_sub(ENDED_MAX);
        self.ended.drain(..too_many);
    }

    /// Numbers those that are not numbered, and signs those that are not signed with the name of this server.
    pub fn adopt(&mut self, node: &str) {
        let mut counter = self.highest();
        for o in self.list.iter_mut().chain(&mut self.ended) {
            if o.counter == 0 {
                counter += 1;
                o.counter = counter;
            }
            if o.node.is_empty() {
                node.clone_into(&mut o.node);
            }
        }
    }

    /// Everything that is known, in force or not.
    pub fn known(&self) -> impl Iterator<Item = &Override> {
        self.list.iter().chain(&self.ended)
    }

    /// A number that is the same on servers that know the same decisions.
    pub fn digest(&self) -> u64 {
        let each = self.known().map(|o| {
            let mut hasher = SipHasher13::new();
            hasher.write(&o.counter.to_le_bytes());
            hasher.write(format!("{}/{}", o.node, o.target).as_bytes());
            hasher.finish()
        });
        each.fold(0, u64::wrapping_add) >> 11 // 53 bits, which every reader of JSON keeps
    }

    /// Of each server the highest counter that is known, or was.
    fn heard_of(&self) -> Vec<Stamp> {
        let mut highest: BTreeMap<&str, u64> = BTreeMap::new();
        let all = self.known().flat_map(|o| o.knows.iter().map(|(n, node)| (*n, node)).chain([(o.counter, &o.node)]));
        for (counter, node) in all.filter(|(_, node)| !node.is_empty()) {
            let known = highest.entry(node).or_default();
            *known = counter.max(*known);
        }
        highest.into_iter().map(|(node, counter)| (counter, node.to_string())).collect()
    }

    fn highest(&self) -> u64 {
        self.known().map(|o| o.counter).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;
    use crate::server::overrides::Target;

    fn made(node: &str, counter: u64, target: &str, state: Decision) -> Override {
        let target = Target::from(target.to_string());
        Override { by: "me".into(), counter, node: node.into(), ..Override::new(target, state, 1) }
    }

    fn in_force(overrides: &Overrides) -> Vec<String> {
        overrides.list().iter().map(|o| format!("{} {}", o.target, o.state.as_str())).collect()
    }

    fn exchange(a: &mut Overrides, b: &mut Overrides) {
        let (from_a, from_b): (Vec<_>, Vec<_>) = (a.known().cloned().collect(), b.known().cloned().collect());
        for o in from_a {
            b.merge(o);
        }
        for o in from_b {
            a.merge(o);
        }
    }

    use Decision::{Auto, Down, Drain, Up};

    #[test]
    fn what_ended_is_not_brought_back_by_who_was_away() {
        let (mut here, mut away) = (Overrides::default(), Overrides::default());
        here.set(made("a", 0, "eu", Drain)).unwrap();
        exchange(&mut here, &mut away);
        here.set(made("a", 0, "eu", Auto)).unwrap();
        assert!(in_force(&here).is_empty());
        assert_eq!(in_force(&away), ["eu drain"]);
        exchange(&mut away, &mut here);
        assert!(in_force(&here).is_empty() && in_force(&away).is_empty());
        assert_eq!(here.digest(), away.digest());
    }

    #[test]
    fn a_counter_is_one_more_than_the_highest_known() {
        let mut here = Overrides::default();
        here.merge(made("b", 41, "us", Down));
        here.set(made("a", 0, "eu", Drain)).unwrap();
        assert_eq!(here.list()[1].stamp(), (42, "a".into()));
    }

    #[test]
    fn of_two_made_at_one_time_the_later_in_order_counts_and_the_conflict_is_told_on_both() {
        let (mut a, mut b) = (Overrides::default(), Overrides::default());
        a.set(Override { reason: "new switch".into(), ..made("a", 0, "eu", Drain) }).unwrap();
        b.set(made("b", 0, "eu", Up)).unwrap();
        exchange(&mut a, &mut b);
        for overrides in [&a, &b] {
            assert_eq!(in_force(overrides), ["eu up"]);
            assert_eq!(overrides.list()[0].conflicts, ["eu drain on a by me: new switch"]);
        }
        assert_eq!(a, b);
        b.set(made("b", 0, "eu", Down)).unwrap();
        exchange(&mut a, &mut b);
        assert!(a.list()[0].conflicts.is_empty(), "who knows what he replaces is in no conflict");
        assert_eq!(a, b);
    }

    #[test]
    fn what_two_cut_off_servers_decided_comes_together() {
        let (mut a, mut b) = (Overrides::default(), Overrides::default());
        for (target, state) in [("us", Down), ("ap", Drain), ("eu", Drain)] {
            a.set(made("a", 0, target, state)).unwrap();
        }
        b.set(made("b", 0, "eu", Up)).unwrap();
        exchange(&mut a, &mut b);
        assert_eq!(in_force(&a), ["us down", "ap drain", "eu drain"]);
        assert_eq!(a.list()[2].conflicts, ["eu up on b by me"]);
        assert_eq!(a, b);
    }

    #[test]
    fn an_exception_whose_rule_comes_later_is_in_force_then() {
        let mut here = Overrides::default();
        here.merge(made("a", 2, "eu-west", Auto));
        assert!(in_force(&here).is_empty());
        here.merge(made("b", 1, "eu-*", Drain));
        assert_eq!(in_force(&here), ["eu-* drain", "eu-west auto"]);
    }

    #[test]
    fn decisions_of_before_are_numbered_and_signed() {
        let mut here = Overrides { list: vec![made("", 0, "eu", Drain), made("", 0, "us", Down)], ended: Vec::new() };
        here.adopt("a");
        let stamps: Vec<Stamp> = here.list().iter().map(Override::stamp).collect();
        assert_eq!(stamps, [(1, "a".to_string()), (2, "a".to_string())]);
    }

    #[test]
    fn alone_nothing_that_ended_is_remembered() {
        let mut here = Overrides::default();
        here.set(made("", 0, "eu", Drain)).unwrap();
        here.set(made("", 0, "eu", Auto)).unwrap();
        assert_eq!(here, Overrides::default());
    }

    #[test]
    fn there_is_an_end_to_what_is_remembered() {
        let mut here = Overrides::default();
        for n in 0..ENDED_MAX as u64 + 10 {
            here.ended.push(made("a", n + 1, &format!("r{n}"), Auto));
        }
        here.merge(made("b", 1_000_000, "x", Down));
        assert_eq!((here.ended.len(), in_force(&here)), (ENDED_MAX, vec!["x down".to_string()]));
    }

    fn decision() -> impl Strategy<Value = Override> {
        let target = select(vec!["*", "eu-*", "eu-west", "us", "eu-*/*", "eu-west/192.0.2.1"]);
        let (node, state) = (select(vec!["a", "b", "c"]), select(vec![Up, Drain, Down, Auto]));
        (node, 1u64..6, target, state).prop_map(|(node, counter, target, state)| made(node, counter, target, state))
    }

    proptest! {
        /// Whoever knows the same decisions does the same, in whatever order they came, and however often.
        #[test]
        fn the_order_in_which_decisions_come_does_not_matter(all in vec(decision(), 0..12), seed in 0usize..1000) {
            let mut all = all;
            all.sort_by(|a, b| a.place().cmp(&b.place()));
            all.dedup_by_key(|o| o.stamp()); // a server numbers each of its decisions once
            let mut turned = all.clone();
            turned.rotate_left(seed % all.len().max(1));
            turned.extend(all.iter().take(seed % 3).cloned());
            let of = |list: &[Override]| {
                let mut overrides = Overrides::default();
                for o in list {
                    overrides.merge(o.clone());
                }
                overrides
            };
            let (one, other) = (of(&all), of(&turned));
            prop_assert_eq!(in_force(&one), in_force(&other));
            prop_assert_eq!(one.digest(), other.digest());
        }
    }
}
