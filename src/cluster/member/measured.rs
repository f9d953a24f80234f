//! This server's measured round trips, as it tells the others of them: what changed every other second, all of it to who asks.

use std::time::{Duration, Instant};

use super::{super::message::Message, Member, Topic, now};

/// Who is heard for the first time so long after we asked everybody was not there then.
const AWAY_AFTER: Duration = Duration::from_secs(3);

impl Member<'_> {
    /// Tells what changed, and a little of what did not; forgets what the others no longer tell.
    pub(super) fn tell_measured(&mut self) {
        let (at, _) = now();
        let mut latencies = self.cluster.latencies();
        latencies.sweep(at);
        let own = latencies.own().cloned();
        drop(latencies);
        // What nobody would hear is told when there is a connection.
        if let Some(own) = own.filter(|_| self.cluster.link.is_connected())
            && let Some(cells) = self.teller.round(&own, at)
        {
            self.say(Topic::Latency, &Message { cells: Some(cells), ..Message::default() });
        }
    }

    /// Tells one server everything.
    pub(super) fn tell_all_measured(&self, to: &Topic, at: Instant) {
        let own = self.cluster.latencies().own().cloned();
        for cells in own.iter().flat_map(|own| own.blocks(at)) {
            self.say(to.clone(), &Message { cells: Some(cells), ..Message::default() });
        }
    }

    /// True when a server that is heard for the first time has not heard us ask everybody: what it knows is to be asked for.
    pub(super) fn was_away(&self, at: Instant) -> bool {
        at.saturating_duration_since(self.settled_at) >= AWAY_AFTER
    }
}
