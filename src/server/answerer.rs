//! One thread's way to the core: the snapshot that it reads, and what it lets others know of its queries.

use std::{net::SocketAddr, os::fd::BorrowedFd, sync::Arc, time::SystemTime};

use arc_swap::{ArcSwap, Cache};

use super::{
    learning::Learner,
    live::Live,
    world::{unix_ms, unix_s},
};
use crate::{
    answer::{Arrival, Core, Verdict},
    routing::Snapshot,
    telemetry::{TransportKind, WorkerCounters},
    transport::{Reply, Respond},
};

/// One thread's way to the core.
pub struct Answerer {
    cache: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
    current: Arc<Snapshot>,
    core: Core,
    learner: Learner,
    now_s: u64,
}

impl Answerer {
    /// For one more thread, which counts in `counters`.
    pub fn new(live: &Live, counters: Arc<WorkerCounters>) -> Self {
        let current = live.snapshot.load_full();
        Answerer {
            cache: Cache::new(live.snapshot.clone()),
            core: Core::new(counters, &current),
            current,
            learner: Learner::new(live.learning.clone()),
            now_s: unix_s(SystemTime::now()),
        }
    }

    /// Before a query that was drawn, or came by TCP, is answered.
    #[cold]
    fn begin_watched(&mut self, arrival: Arrival) {
        if arrival.transport == TransportKind::Udp && self.learner.claim(arrival.client, arrival.now_s) {
            self.core.want_tcp();
        }
    }

    /// After it was answered.
    #[cold]
    fn end_watched(&mut self, arrival: Arrival) {
        let Arrival { client, transport, now_s } = arrival;
        match transport {
            TransportKind::Udp => self.learner.drawn(client, now_s, self.core.has_asked()),
            _ => self.learner.came_by_tcp(client, now_s),
        }
    }
}

impl Respond for Answerer {
    fn begin_batch(&mut self) {
        let latest = self.cache.load();
        if !Arc::ptr_eq(latest, &self.current) {
            self.current = latest.clone();
            self.core.adopt(&self.current);
            self.learner.adopt();
        }
        let now_ms = unix_ms(SystemTime::now());
        self.now_s = now_ms / 1000;
        self.core.set_time(now_ms);
    }

    // Left to the compiler, it is a call of its own: fifty instructions a query, most of them moving the address about.
    #[inline(always)]
    fn respond(&mut self, query: &[u8], client: SocketAddr, transport: TransportKind, out: &mut [u8]) -> Reply {
        let arrival = Arrival { client: client.ip().to_canonical(), transport, now_s: self.now_s };
        let is_watched = match transport {
            TransportKind::Udp => self.learner.is_drawn(),
            TransportKind::Tcp | TransportKind::Dot | TransportKind::Doh => self.learner.is_on(),
            _ => false,
        };
        if is_watched {
            self.begin_watched(arrival);
        }
        let verdict = self.core.respond(query, arrival, &self.current, out);
        if is_watched {
            self.end_watched(arrival);
        }
        // Of every query, not only of those that are drawn: one is enough to tell what a handshake of its network speaks for.
        if self.core.has_located_by_subnet() && self.learner.is_on() {
            self.learner.sent_subnet(arrival.client, arrival.now_s);
        }
        match verdict {
            Verdict::Send(len) => Reply::Send(len),
            Verdict::Drop(_) => Reply::Drop,
        }
    }

    fn connection_ends(&mut self, client: SocketAddr, socket: BorrowedFd<'_>) {
        self.learner.connection_ends(client, socket);
    }
}
