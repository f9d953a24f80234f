//! What the others say, taken in: who is heard, what follows for the targets, and what is to be asked for.

use std::time::{Duration, Instant};

use super::{
    super::{
        message::{Ask, Message},
        peers::Taken,
        subject::Topic,
    },
    Member, asking, now,
};

/// A server whose decisions still differ from ours after we asked for them is asked again after so long, then twice as long.
const COMPARE_AGAIN_MIN: Duration = Duration::from_secs(1);
const COMPARE_AGAIN_MAX: Duration = Duration::from_secs(60);

/// Digests of decisions that differed when a server was asked for them.
#[derive(Debug)]
pub(super) struct Compared {
    theirs: u64,
    ours: u64,
    at: Instant,
    /// It is not asked again for so long.
    pause: Duration,
}

impl Member<'_> {
    /// Takes in what came.
    pub(super) fn hear(&mut self, from: &str, topic: &Topic, bytes: &[u8]) {
        if from == self.config.node {
            return self.hear_myself(topic, bytes);
        }
        let (at, wall) = now();
        let message = match Message::decode(bytes) {
            Ok(message) => message,
            Err(error) => {
                let mut shared = self.cluster.shared();
                shared.rejected += 1;
                let is_news = shared.peers.iter().all(|(name, peer)| name != from || peer.problem().is_none());
                shared.peers.note_problem(from, error.to_string(), at);
                drop(shared);
                if is_news {
                    tracing::warn!(node = from, %error, "what a server of the cluster said was not taken in");
                }
                return;
            }
        };
        let mut all = Taken::default();
        let mut shared = self.cluster.shared();
        shared.peers.hear(from, at);
        let digest = message.beat.as_ref().map(|beat| beat.decisions);
        let (beat, delta, snapshot) = (message.beat, message.delta, message.snapshot);
        let taken = match topic {
            Topic::Health => [
                delta.map(|delta| shared.peers.delta(from, delta, at, wall)),
                beat.map(|beat| shared.peers.beat(from, beat, at)),
            ],
            Topic::To(_) => [snapshot.map(|part| shared.peers.snapshot(from, part, at, wall)), None],
            Topic::Ask | Topic::Decide | Topic::Latency => [None, None],
        };
        drop(shared);
        if let (Topic::Latency | Topic::To(_), Some(cells)) = (topic, &message.cells) {
            self.cluster.latencies().take(from, cells, at);
        }
        for taken in taken.into_iter().flatten() {
            all.targets.extend(taken.targets);
            all.asks |= taken.asks;
            all.is_new |= taken.is_new;
        }
        if all.is_new {
            tracing::info!(node = from, "server of the cluster is heard; its view counts");
        }
        let lacks_decisions = digest.is_some_and(|digest| self.lacks_decisions(from, digest, at));
        let lacks_cells = all.is_new && self.was_away(at);
        if all.asks || lacks_decisions || lacks_cells {
            let of = Some(from.to_string());
            let ask = Ask { of, views: all.asks, decisions: lacks_decisions, cells: lacks_cells };
            self.say(Topic::Ask, &asking(ask));
        }
        self.touch(&all.targets);
        match (topic, message.ask) {
            (Topic::Ask, Some(ask)) => self.answer(from, &ask, at),
            (Topic::Decide, _) => {
                // A new decision is its own server's to tell; old ones are passed on by all.
                let own = message.decisions.into_iter().filter(|decision| decision.node == from).collect();
                self.decisions.take(from, own);
            }
            (Topic::To(_), _) if !message.decisions.is_empty() => self.decisions.take(from, message.decisions),
            _ => {}
        }
    }

    /// What we said ourselves comes back: how long that takes, and whether somebody else speaks under our name.
    fn hear_myself(&mut self, topic: &Topic, bytes: &[u8]) {
        /// With rises of as many regions as a beat may tell of.
        const BEAT_BYTES_MAX: usize = 64 << 10;
        if *topic != Topic::Health || bytes.len() > BEAT_BYTES_MAX {
            return;
        }
        let Ok(Message { beat: Some(beat), .. }) = Message::decode(bytes) else { return };
        let (at, _) = now();
        let is_ours = self.runs.contains(&beat.run) || beat.run == 0;
        let mut shared = self.cluster.shared();
        if is_ours {
            self.echo_at = at;
            if beat.beat == self.beats {
                shared.round_trip = Some(at.saturating_duration_since(self.beat_at));
            }
        } else if !std::mem::replace(&mut shared.has_double, true) {
            let node = &self.config.node;
            tracing::warn!(node, "another server has the same name; give each a `node` of its own in [cluster]");
        }
    }

    /// True when a server knows other decisions than we do, and should be asked for them.
    fn lacks_decisions(&mut self, from: &str, theirs: u64, at: Instant) -> bool {
        let ours = self.decisions.digest();
        if theirs == ours {
            self.compared.remove(from);
            return false;
        }
        let before = self.compared.get(from).filter(|asked| (asked.theirs, asked.ours) == (theirs, ours));
        let is_asked = |asked: &Compared| at.saturating_duration_since(asked.at) < asked.pause;
        if before.is_some_and(is_asked) {
            return false;
        }
        let pause = before.map_or(COMPARE_AGAIN_MIN, |asked| (asked.pause * 2).min(COMPARE_AGAIN_MAX));
        self.compared.insert(from.to_string(), Compared { theirs, ours, at, pause });
        true
    }
}
