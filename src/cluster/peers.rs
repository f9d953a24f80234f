//! What the other servers said, and whether it still counts. Pure: messages and times go in. Knows nothing of how messages come, and of
//! no clock but the receiver's own.
//!
//! A server's views are a numbered row of deltas upon a snapshot. Its beats say at which number it is; as long as that is where we are,
//! all of its views are confirmed anew. Where a number is missing its views are no longer confirmed, and we ask for all of them. A run
//! begins at number 0 with no views.
#![deny(clippy::disallowed_methods)]

mod peer;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

pub use self::peer::{FRESH_FOR, Peer, Seen};
use super::message::{Beat, Delta, Rises, Snapshot};
use crate::health::{consensus::View, identity::Identity};

/// A server that was not heard for so long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);
/// What is wrong with a server is shown for so long.
const PROBLEM_SHOWN_FOR: Duration = Duration::from_secs(60);
/// Most other servers.
pub const PEERS_MAX: usize = 200;
/// Most parts of a snapshot, and deltas that wait for one.
const PARTS_MAX: usize = 64;

/// All other servers.
#[derive(Debug, Default)]
pub struct Peers {
    by_name: BTreeMap<String, Peer>,
    /// When anything was heard of anybody.
    heard: Option<Instant>,
}

/// What followed from a message.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Targets that are seen otherwise.
    pub targets: Vec<Identity>,
    /// We lack views of the sender, and should ask for them.
    pub asks: bool,
    /// The sender's views count from now on.
    pub is_new: bool,
}

impl Peers {
    /// The others by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Peer)> {
        self.by_name.iter().map(|(name, peer)| (name.as_str(), peer))
    }

    /// How many views count.
    pub fn fresh_count(&self, now: Instant) -> usize {
        self.by_name.values().filter(|peer| peer.is_fresh(self.heard, now)).count()
    }

    /// What they say of regions that are harder to reach than usual: those whose views count and who trust themselves.
    pub fn rises(&self, now: Instant) -> impl Iterator<Item = &Rises> {
        let fresh = self.by_name.values().filter(move |peer| peer.is_fresh(self.heard, now) && !peer.beat.doubts);
        fresh.map(|peer| &peer.beat.rises)
    }

    /// How the others see a target, those whose views count.
    pub fn views(&self, target: Identity, now: Instant) -> impl Iterator<Item = View> {
        let fresh = self.by_name.values().filter(move |peer| peer.is_fresh(self.heard, now));
        fresh.filter_map(move |peer| peer.views.get(&target)).map(|seen| seen.view)
    }

    /// The same with their names, and those whose views no longer count.
    pub fn seen(&self, target: Identity, now: Instant) -> impl Iterator<Item = (&str, Seen, bool)> {
        self.by_name.iter().filter_map(move |(name, peer)| {
            let seen = *peer.views.get(&target)?;
            Some((name.as_str(), seen, peer.is_fresh(self.heard, now)))
        })
    }

    /// The peer of this name; `None` when there are too many.
    fn peer(&mut self, from: &str, now: Instant) -> Option<&mut Peer> {
        if !self.by_name.contains_key(from) && self.by_name.len() >= PEERS_MAX {
            return None;
        }
        self.heard = Some(now);
        let peer = self.by_name.entry(from.to_string()).or_insert_with(|| Peer::new(now));
        peer.heard = now;
        Some(peer)
    }

    /// Notes that what a server said could not be read.
    pub fn note_problem(&mut self, from: &str, problem: String, now: Instant) {
        if let Some(peer) = self.peer(from, now) {
            peer.problem = Some((problem, now));
        }
    }

    /// A beat: the sender stands by what it said.
    pub fn beat(&mut self, from: &str, beat: Beat, now: Instant) -> Taken {
        let Some(peer) = self.peer(from, now) else { return Taken::default() };
        peer.note_run(beat.run);
        let mut targets = Vec::new();
        if beat.seq == 0 {
            peer.begin(beat.run, 0, &mut targets);
        }
        let is_at = peer.is_at(beat.run, beat.seq);
        peer.beat = beat;
        if is_at {
            return peer.confirm(now, targets);
        }
        Taken { asks: peer.asks(now), ..Taken::default() }
    }

    /// Views that changed.
    pub fn delta(&mut self, from: &str, delta: Delta, now: Instant, wall: SystemTime) -> Taken {
        let Some(peer) = self.peer(from, now) else { return Taken::default() };
        if delta.run == peer.run && delta.seq <= peer.seq {
            return Taken::default();
        }
        let (run, seq) = (delta.run, delta.seq);
        peer.waiting.retain(|_, waiting| waiting.run == run);
        let is_next = run == peer.run && seq == peer.seq + 1;
        if is_next || peer.waiting.len() < PARTS_MAX {
            peer.waiting.insert(seq, delta);
        }
        let mut targets = Vec::new();
        peer.begin(run, seq, &mut targets);
        if seq > 0 && peer.is_at(run, seq - 1) {
            peer.catch_up(wall, &mut targets);
            return peer.confirm(now, targets);
        }
        Taken { asks: peer.asks(now), ..Taken::default() }
    }

    /// A part of all views.
    pub fn snapshot(&mut self, from: &str, part: Snapshot, now: Instant, wall: SystemTime) -> Taken {
        let Some(peer) = self.peer(from, now) else { return Taken::default() };
        let (parts, at) = (part.parts as usize, part.part as usize);
        let is_old = part.run == peer.run && part.seq < peer.seq;
        if is_old || parts > PARTS_MAX || at >= parts {
            return Taken::default();
        }
        let is_same = |other: &Snapshot| (other.run, other.seq, other.parts) == (part.run, part.seq, part.parts);
        if !peer.gathering.iter().flatten().all(is_same) || peer.gathering.len() != parts {
            peer.gathering = vec![None; parts];
        }
        let (run, seq) = (part.run, part.seq);
        peer.gathering[at] = Some(part);
        if peer.gathering.iter().any(Option::is_none) {
            return Taken::default();
        }
        let mut targets: Vec<Identity> = peer.views.drain().map(|(target, _)| target).collect();
        for part in std::mem::take(&mut peer.gathering).into_iter().flatten() {
            peer.see(&part.views, wall, &mut targets);
        }
        (peer.run, peer.seq) = (run, seq);
        peer.catch_up(wall, &mut targets);
        targets.sort_unstable();
        targets.dedup();
        peer.confirm(now, targets)
    }

    /// Everything else that is said: the sender is there.
    pub fn hear(&mut self, from: &str, now: Instant) {
        self.peer(from, now);
    }

    /// Time has passed: the names of those whose views no longer count, and the targets that they saw.
    pub fn expire(&mut self, now: Instant) -> (Vec<String>, Vec<Identity>) {
        let (mut names, mut targets) = (Vec::new(), Vec::new());
        for (name, peer) in &mut self.by_name {
            if peer.counts && !peer.is_fresh(self.heard, now) {
                peer.counts = false;
                names.push(name.clone());
                targets.extend(peer.views.keys());
            }
        }
        for peer in self.by_name.values_mut() {
            let is_over = |at: Instant| now.saturating_duration_since(at) >= PROBLEM_SHOWN_FOR;
            peer.problem.take_if(|(_, at)| is_over(*at));
        }
        self.by_name.retain(|_, peer| now.saturating_duration_since(peer.heard) < FORGOTTEN_AFTER);
        targets.sort_unstable();
        targets.dedup();
        (names, targets)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // a moment to begin with
mod tests {
    use super::*;
    use crate::{
        cluster::message::{self, Observation},
        health::consensus::Sees,
    };

    const WALL: SystemTime = SystemTime::UNIX_EPOCH;

    struct Told {
        peers: Peers,
        now: Instant,
    }

    fn seen(target: Identity, seen: message::Seen) -> Observation {
        Observation { seen, ..Observation::nothing(target) }
    }

    fn up(target: Identity) -> Observation {
        seen(target, message::Seen::Up)
    }

    fn down(target: Identity) -> Observation {
        seen(target, message::Seen::Down)
    }

    impl Told {
        fn new() -> Told {
            Told { peers: Peers::default(), now: tokio::time::Instant::now().into_std() }
        }

        fn beat(&mut self, run: u64, seq: u64) -> Taken {
            self.peers.beat("a", Beat { run, seq, ..Beat::default() }, self.now)
        }

        fn delta(&mut self, run: u64, seq: u64, views: &[Observation]) -> Taken {
            self.peers.delta("a", Delta { run, seq, views: views.to_vec() }, self.now, WALL)
        }

        fn snapshot(&mut self, run: u64, seq: u64, part: u32, parts: u32, views: &[Observation]) -> Taken {
            self.peers.snapshot("a", Snapshot { run, seq, part, parts, views: views.to_vec() }, self.now, WALL)
        }

        /// What counts of targets 1, 2 and 3.
        fn counts(&self) -> [Option<Sees>; 3] {
            [1, 2, 3].map(|target| self.peers.views(target, self.now).next().map(|view| view.sees))
        }

        fn pass(&mut self, ms: u64) {
            self.now += Duration::from_millis(ms);
        }
    }

    const UP: Option<Sees> = Some(Sees::Up);
    const DOWN: Option<Sees> = Some(Sees::Down);

    #[test]
    fn a_snapshot_and_the_deltas_that_follow_it_are_views() {
        let mut told = Told::new();
        assert_eq!(told.beat(7, 4), Taken { asks: true, ..Taken::default() });
        assert_eq!(told.counts(), [None; 3]);
        let taken = told.snapshot(7, 4, 0, 1, &[up(1), down(2)]);
        assert_eq!(taken, Taken { targets: vec![1, 2], asks: false, is_new: true });
        assert_eq!(told.counts(), [UP, DOWN, None]);
        let taken = told.delta(7, 5, &[up(2), Observation::nothing(1)]);
        assert_eq!(taken, Taken { targets: vec![2, 1], ..Taken::default() });
        assert_eq!((told.counts(), told.beat(7, 5)), ([None, UP, None], Taken::default()));
    }

    #[test]
    fn a_run_begins_without_views() {
        let mut told = Told::new();
        assert_eq!(told.delta(7, 1, &[up(1), down(2)]).targets, [1, 2]);
        assert_eq!(told.beat(8, 0).targets.len(), 2);
        assert_eq!(told.counts(), [None; 3]);
        told.delta(8, 1, &[up(3)]);
        assert_eq!(told.counts(), [None, None, UP]);
        assert_eq!(told.delta(9, 1, &[up(1)]).targets, [3, 1]);
        assert!(told.delta(10, 2, &[up(2)]).asks, "the beginning was missed");
    }

    #[test]
    fn a_missing_delta_is_noticed_and_made_up_for() {
        let mut told = Told::new();
        told.snapshot(7, 0, 0, 1, &[up(1), up(2)]);
        assert!(told.delta(7, 2, &[down(2)]).asks);
        assert!(!told.delta(7, 3, &[down(3)]).asks, "it was asked for just now");
        assert_eq!(told.counts(), [UP, UP, None]);
        told.snapshot(7, 1, 0, 1, &[down(1), up(2)]);
        assert_eq!(told.counts(), [DOWN, DOWN, DOWN], "what came early is taken in when its turn has come");
        assert_eq!(told.beat(7, 3), Taken::default());
    }

    #[test]
    fn what_comes_twice_or_late_changes_nothing() {
        let mut told = Told::new();
        told.snapshot(7, 2, 0, 1, &[up(1)]);
        assert_eq!(told.delta(7, 2, &[down(1)]), Taken::default());
        assert_eq!(told.snapshot(7, 1, 0, 1, &[down(1)]), Taken::default());
        assert_eq!(told.counts(), [UP, None, None]);
    }

    #[test]
    fn a_snapshot_counts_when_all_its_parts_are_there() {
        let mut told = Told::new();
        assert_eq!(told.snapshot(7, 4, 1, 2, &[down(2)]), Taken::default());
        assert_eq!(told.snapshot(7, 5, 0, 2, &[down(1)]), Taken::default(), "of another moment");
        assert_eq!(told.counts(), [None; 3]);
        told.snapshot(7, 5, 1, 2, &[up(2)]);
        assert_eq!(told.counts(), [DOWN, UP, None]);
        for (part, parts) in [(0, 0), (2, 2), (0, 65), (u32::MAX, u32::MAX)] {
            assert_eq!(told.snapshot(7, 6, part, parts, &[up(1)]), Taken::default(), "{part} of {parts}");
        }
    }

    #[test]
    fn views_count_for_six_seconds_after_they_were_confirmed() {
        let mut told = Told::new();
        told.snapshot(7, 0, 0, 1, &[down(1)]);
        for _ in 0..3 {
            told.pass(5999);
            assert_eq!((told.counts(), told.peers.expire(told.now)), ([DOWN, None, None], (vec![], vec![])));
            told.beat(7, 0);
        }
        told.pass(6000);
        assert_eq!(told.counts(), [None; 3]);
        assert_eq!(told.peers.expire(told.now), (vec!["a".into()], vec![1]));
        assert_eq!(told.peers.expire(told.now), (vec![], vec![]), "told once");
        assert_eq!(told.beat(7, 0), Taken { targets: vec![1], asks: false, is_new: true }, "it was only silent");
        assert_eq!(told.counts(), [DOWN, None, None]);
    }

    #[test]
    fn where_nobody_is_heard_any_more_all_cease_to_count_at_one_moment() {
        let mut told = Told::new();
        told.snapshot(7, 0, 0, 1, &[down(1)]);
        told.pass(1900);
        told.peers.delta("b", Delta { run: 1, seq: 1, views: vec![up(1)] }, told.now, WALL);
        let count = |told: &Told| told.peers.fresh_count(told.now);
        told.pass(5999);
        assert_eq!(count(&told), 2, "the last message came 5.999 s ago, that of the other one 7.899 s ago");
        told.pass(1);
        assert_eq!((count(&told), told.peers.expire(told.now).0.len()), (0, 2));
        // As long as others are heard, each is silent for itself.
        told.beat(7, 0);
        told.pass(5000);
        told.peers.hear("c", told.now);
        told.pass(1000);
        assert_eq!(count(&told), 0);
    }

    #[test]
    fn a_beat_of_another_number_or_run_confirms_nothing() {
        let mut told = Told::new();
        told.snapshot(7, 3, 0, 1, &[down(1)]);
        told.pass(5000);
        assert!(told.beat(7, 4).asks);
        told.pass(999);
        assert!(told.beat(8, 3).asks);
        assert_eq!(told.counts(), [DOWN, None, None]);
        told.pass(1);
        assert_eq!(told.counts(), [None; 3]);
        told.snapshot(8, 3, 0, 1, &[up(2)]);
        assert_eq!(told.counts(), [None, UP, None], "after a restart it begins anew");
    }

    #[test]
    fn two_servers_of_one_name_are_noticed() {
        let mut told = Told::new();
        let problem = |told: &Told| told.peers.iter().next().unwrap().1.problem().map(str::to_string);
        for run in [7, 7, 8, 8] {
            told.beat(run, 0);
            assert_eq!(problem(&told), None);
        }
        told.beat(7, 0);
        assert!(problem(&told).unwrap().contains("two servers have this name"));
    }

    #[test]
    fn there_is_an_end_to_how_many_there_may_be() {
        let mut told = Told::new();
        for n in 0..PEERS_MAX + 5 {
            told.peers.beat(&format!("n{n}"), Beat::default(), told.now);
        }
        assert_eq!(told.peers.iter().count(), PEERS_MAX);
        for seq in 2..200 {
            told.peers.delta("n1", Delta { run: 1, seq, views: vec![up(1)] }, told.now, WALL);
        }
        assert_eq!(told.peers.by_name["n1"].waiting.len(), PARTS_MAX);
        told.pass(3_600_000);
        told.peers.expire(told.now);
        assert_eq!(told.peers.iter().count(), 0, "and who is not heard for an hour is forgotten");
    }
}
