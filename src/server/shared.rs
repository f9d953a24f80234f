//! What the cluster asks of this server: the decisions of its operators, as they go over the wire and as they come.

use std::{sync::Arc, time::SystemTime};

use tokio::sync::{Semaphore, watch};

use super::{
    eyes,
    live::Live,
    overrides::{CONFLICTS_MAX, Decision, KNOWS_MAX, Override, Target},
    world::unix_s,
};
use crate::{
    cluster::{self, Decisions, message},
    config::nats::is_name,
};

/// Longest target, reason and name of a person in a decision of another server, in bytes.
const TEXT_BYTES_MAX: usize = 600;
/// Messages with decisions that are taken in at a time.
const TAKING_MAX: usize = 8;
/// Greatest counter, which nobody counts up to.
const COUNTER_MAX: u64 = 1 << 53;

/// Takes part in the cluster, for ever.
pub async fn share(live: Arc<Live>) {
    let decisions = Arc::new(Shared { live: live.clone(), taking: Arc::new(Semaphore::new(TAKING_MAX)) });
    let taking_part = cluster::run(live.cluster.clone(), live.board.clone(), decisions);
    tokio::join!(taking_part, eyes::tell(live.clone()));
}

struct Shared {
    live: Arc<Live>,
    /// Places for messages with decisions that are being taken in.
    taking: Arc<Semaphore>,
}

impl Decisions for Shared {
    fn digest(&self) -> u64 {
        self.live.overrides_digest()
    }

    fn all(&self) -> Vec<message::Decision> {
        let now_s = unix_s(SystemTime::now());
        self.live.overrides().known().map(|o| written(o, now_s)).collect()
    }

    fn take(&self, from: &str, decisions: Vec<message::Decision>) {
        let now_s = unix_s(SystemTime::now());
        let (read, unfit): (Vec<_>, Vec<_>) =
            decisions.iter().map(|decision| read(decision, now_s)).partition(Option::is_some);
        if !unfit.is_empty() {
            tracing::warn!(
                node = from,
                unfit = unfit.len(),
                "decisions of another server were not taken in: they are broken"
            );
        }
        // Where there is none, whoever has more to tell is asked for it again: the digests still differ.
        let Ok(place) = self.taking.clone().try_acquire_owned() else { return };
        let (live, from) = (self.live.clone(), from.to_string());
        tokio::task::spawn_blocking(move || {
            live.learn(&from, read.into_iter().flatten().collect());
            drop(place);
        });
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.live.decided()
    }
}

fn written(o: &Override, now_s: u64) -> message::Decision {
    message::Decision {
        counter: o.counter,
        node: o.node.clone(),
        target: o.target.to_string(),
        state: o.state.as_str().into(),
        reason: o.reason.clone(),
        by: o.by.clone(),
        since: o.since,
        left_s: o.until.map(|until| until.saturating_sub(now_s)),
        over: o.over,
        knows: o.knows.clone(),
        conflicts: o.conflicts.clone(),
    }
}

/// `None` for what no server of ours has written.
fn read(decision: &message::Decision, now_s: u64) -> Option<Override> {
    let is_line = |text: &str| text.len() <= TEXT_BYTES_MAX && !text.contains(char::is_control);
    let texts = [&decision.target, &decision.reason, &decision.by].into_iter().chain(&decision.conflicts);
    let counters = std::iter::once(decision.counter).chain(decision.knows.iter().map(|(counter, _)| *counter));
    let names = std::iter::once(&decision.node).chain(decision.knows.iter().map(|(_, node)| node));
    let fits = texts.into_iter().all(|text| is_line(text))
        && counters.into_iter().all(|counter| (1..COUNTER_MAX).contains(&counter))
        && names.into_iter().all(|name| is_name(name))
        && decision.knows.len() <= KNOWS_MAX
        && decision.knows.iter().all(|(counter, _)| *counter < decision.counter)
        && decision.conflicts.len() <= CONFLICTS_MAX
        && !decision.target.is_empty();
    let state = Decision::parse(&decision.state)?;
    fits.then(|| Override {
        target: Target::from(decision.target.clone()),
        state,
        reason: decision.reason.clone(),
        since: decision.since,
        until: decision.left_s.map(|left_s| now_s.saturating_add(left_s)),
        by: decision.by.clone(),
        counter: decision.counter,
        node: decision.node.clone(),
        knows: decision.knows.clone(),
        conflicts: decision.conflicts.clone(),
        over: decision.over,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision() -> message::Decision {
        message::Decision {
            counter: 3,
            node: "eu-1".into(),
            target: "eu/2001:db8::1".into(),
            state: "drain".into(),
            reason: "new switch".into(),
            by: "127.0.0.1 curl".into(),
            since: 1000,
            left_s: Some(60),
            over: false,
            knows: vec![(2, "us-1".into())],
            conflicts: vec!["eu up on us-1 by me".into()],
        }
    }

    #[test]
    fn a_decision_is_read_as_it_was_written_however_the_clocks_differ() {
        let here = read(&decision(), 1_800_000_000).unwrap();
        assert_eq!(here.until, Some(1_800_000_060));
        let again = written(&here, 1_800_000_020);
        assert_eq!(again, message::Decision { left_s: Some(40), ..decision() });
        assert_eq!(read(&again, 1_900_003_600).unwrap().until, Some(1_900_003_640));
    }

    #[test]
    fn broken_decisions_are_not_taken_in() {
        type Break = fn(&mut message::Decision);
        let breaks: [Break; 9] = [
            |d| d.counter = 0,
            |d| d.counter = u64::MAX,
            |d| d.node = "a.b".into(),
            |d| d.state = "sideways".into(),
            |d| d.target = String::new(),
            |d| d.reason = "two\nlines".into(),
            |d| d.by = "x".repeat(601),
            |d| d.knows = vec![(u64::MAX, "a".into())],
            |d| d.conflicts = vec!["\u{1b}[2J".into()],
        ];
        for (at, spoil) in breaks.iter().enumerate() {
            let mut broken = decision();
            spoil(&mut broken);
            assert_eq!(read(&broken, 0), None, "{at}");
        }
    }
}
