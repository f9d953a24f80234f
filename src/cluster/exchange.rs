//! The way of messages between servers, seen from inside: said to all or to one, and heard. Never waits: what cannot be sent is dropped,
//! and who misses it asks. Knows nothing of what carries it, nor of what is said.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use tokio::sync::mpsc;

use super::{message::Message, subject::Topic};

/// Messages that wait on their way out, or in.
const QUEUE: usize = 1024;
/// Complaints that are remembered, so that none is logged twice.
const COMPLAINTS_MAX: usize = 16;

/// On its way out.
#[derive(Debug)]
pub struct Outgoing {
    /// What it is about, and to whom it goes.
    pub topic: Topic,
    /// As [`Message::encode`] wrote it.
    pub bytes: Vec<u8>,
}

/// What happens.
#[derive(Debug)]
pub enum Event {
    /// There is a connection: others may have said something meanwhile.
    Connected,
    /// Somebody said something.
    Said {
        /// Who.
        from: String,
        /// About what, and to whom.
        topic: Topic,
        /// To be read by [`Message::decode`].
        bytes: Vec<u8>,
    },
}

/// Both ends of the way, for who speaks and listens.
#[derive(Debug)]
pub struct Exchange {
    outgoing: mpsc::Sender<Outgoing>,
    incoming: mpsc::Receiver<Event>,
}

/// The other ends, for what carries messages.
#[derive(Debug)]
pub struct Carrier {
    /// To be sent.
    pub outgoing: mpsc::Receiver<Outgoing>,
    /// What came.
    pub incoming: mpsc::Sender<Event>,
}

impl Exchange {
    /// A way without anything that carries yet.
    pub fn new() -> (Exchange, Carrier) {
        let (outgoing, to_send) = mpsc::channel(QUEUE);
        let (came, incoming) = mpsc::channel(QUEUE);
        (Exchange { outgoing, incoming }, Carrier { outgoing: to_send, incoming: came })
    }

    /// Says something; false when it was dropped.
    pub fn publish(&self, topic: Topic, message: &Message) -> bool {
        self.outgoing.try_send(Outgoing { topic, bytes: message.encode() }).is_ok()
    }

    /// What happens next; `None` when the carrier is gone.
    pub async fn next(&mut self) -> Option<Event> {
        self.incoming.recv().await
    }
}

/// A number that nobody else has, of 53 bits: readers of JSON may keep no more.
pub fn random() -> u64 {
    RandomState::new().build_hasher().finish() >> 11
}

/// How the connection stands. The one place that logs its changes, each with one line.
#[derive(Debug, Default)]
pub struct Link {
    state: Mutex<LinkState>,
    /// Messages and bytes sent.
    sent: [AtomicU64; 2],
    /// Messages and bytes received.
    received: [AtomicU64; 2],
    /// Messages that were dropped on this side, since they came faster than they could be sent or read.
    dropped: AtomicU64,
}

/// How the connection stands.
#[derive(Debug, Clone, Default)]
pub struct LinkState {
    /// The server that we are connected to.
    pub server: Option<String>,
    /// Since when it is so.
    pub since: Option<SystemTime>,
    /// Why there is no connection.
    pub error: Option<String>,
    /// What NATS refuses, although there is a connection.
    pub refused: Option<String>,
    /// Connections made.
    pub connects: u64,
    /// What was logged since the last connection.
    told: Vec<String>,
}

/// Counts of [`Link`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages and bytes sent.
    pub sent: [u64; 2],
    /// Messages and bytes received.
    pub received: [u64; 2],
    /// Messages dropped on this side.
    pub dropped: u64,
}

impl Link {
    /// There is a connection.
    pub fn is_connected(&self) -> bool {
        self.lock().server.is_some()
    }

    /// How it stands.
    pub fn state(&self) -> LinkState {
        self.lock().clone()
    }

    /// What went over it.
    pub fn traffic(&self) -> Traffic {
        let of = |pair: &[AtomicU64; 2]| [pair[0].load(Ordering::Relaxed), pair[1].load(Ordering::Relaxed)];
        Traffic { sent: of(&self.sent), received: of(&self.received), dropped: self.dropped.load(Ordering::Relaxed) }
    }

    /// There is a connection.
    pub fn connected(&self, server: String) {
        let mut state = self.lock();
        tracing::info!(server, "connected to NATS");
        let connects = state.connects + 1;
        *state = LinkState { server: Some(server), since: Some(SystemTime::now()), connects, ..LinkState::default() };
    }

    /// There is none, or no more.
    pub fn failed(&self, why: String) {
        let mut state = self.lock();
        match state.server.take() {
            Some(server) => {
                tracing::warn!(
                    server,
                    why,
                    "connection to NATS lost; until it is back this server goes by its own view"
                );
                state.since = Some(SystemTime::now());
            }
            None if !state.told.contains(&why) && state.told.len() < COMPLAINTS_MAX => {
                tracing::warn!(why, "no connection to NATS; until there is one this server goes by its own view");
            }
            None => {}
        }
        state.told.push(why.clone());
        state.told.dedup();
        state.told.truncate(COMPLAINTS_MAX);
        state.since.get_or_insert_with(SystemTime::now);
        state.refused = None;
        state.error = Some(why);
    }

    /// NATS refuses something.
    pub fn refused(&self, what: String) {
        let mut state = self.lock();
        if !state.told.contains(&what) && state.told.len() < COMPLAINTS_MAX {
            tracing::warn!(what, "NATS refuses what this server needs; see the permissions of its user");
            state.told.push(what.clone());
        }
        state.refused = Some(what);
    }

    /// Counts a message that was sent.
    pub fn count_sent(&self, bytes: usize) {
        count(&self.sent, bytes);
    }

    /// Counts a message that came.
    pub fn count_received(&self, bytes: usize) {
        count(&self.received, bytes);
    }

    /// Counts messages that were dropped.
    pub fn count_dropped(&self, messages: u64) {
        self.dropped.fetch_add(messages, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(pair: &[AtomicU64; 2], bytes: usize) {
    pair[0].fetch_add(1, Ordering::Relaxed);
    pair[1].fetch_add(bytes as u64, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_carries_is_dropped_and_holds_nobody_up() {
        let (exchange, carrier) = Exchange::new();
        let said = (0..QUEUE + 5).filter(|_| exchange.publish(Topic::Health, &Message::default())).count();
        assert_eq!(said, QUEUE);
        drop(carrier);
        assert!(!exchange.publish(Topic::Health, &Message::default()));
    }

    #[test]
    fn a_link_remembers_why_it_is_down_until_it_is_up() {
        let link = Link::default();
        link.failed("connection refused".into());
        link.failed("authorization violation".into());
        let state = link.state();
        assert_eq!((state.server, state.error.as_deref()), (None, Some("authorization violation")));
        assert_eq!(state.told, ["connection refused", "authorization violation"]);
        link.connected("nats://a:4222".into());
        link.refused("publish to x".into());
        let state = link.state();
        assert_eq!((state.server.as_deref(), state.error, state.connects), (Some("nats://a:4222"), None, 1));
        assert_eq!(state.refused.as_deref(), Some("publish to x"));
        link.failed("closed".into());
        assert_eq!((link.state().server, link.state().refused), (None, None));
    }
}
