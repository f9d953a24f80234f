//! One thread's side of learning: draws queries, notes who sends client subnets, and tells of round trips. Nothing here waits for
//! another thread; a query that is not drawn costs a countdown, and one with a client subnet a look at a small table.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use super::{Learning, Report, Terms, random_number};
use crate::{
    geo::Network,
    latency::learn::{Sampler, asks::Claim, network_of},
    server::world::unix_s,
    sys::tcp_info::{RoundTrip, round_trip},
};

/// A network's weight is estimated from one query of so many.
const QUERIES_PER_WEIGHING: f64 = 1000.0;

/// While it learns, at least this share of the queries over UDP is drawn, whether any of them is asked to come by TCP or not: for the
/// weights.
const DRAWN_AT_LEAST: f64 = 1.0 / 256.0;

/// Networks that a thread remembers to have told of as senders of client subnets, a power of two: as many as send most of such queries,
/// in 8 kilobytes.
const TOLD_SUBNETS: usize = 1024;

/// They are told of again after 2 to this power seconds, a quarter of an hour: what keeps them may have forgotten.
const TELL_AGAIN_BITS: u32 = 10;

/// So many of them a thread tells of within a second, so that made-up senders leave room for the round trips.
const SUBNETS_PER_SECOND: u32 = 256;

/// See the module.
pub struct Learner {
    shared: Arc<Learning>,
    terms: Arc<Terms>,
    draws: Draws,
    /// Of the query that was drawn last, until it is answered.
    claim: Option<Claim>,
    subnets: ToldSubnets,
}

/// Which queries over UDP are drawn, and what for.
struct Draws {
    sampler: Sampler,
    /// Of those that are drawn, which may be asked to come by TCP.
    prospects: Sampler,
    /// Drawn queries from one that tells of its network's weight to the next, and how many are left until that.
    per_weighing: u32,
    left: u32,
    /// Queries that such a one stands for.
    queries: f32,
}

/// The networks that were told of as senders of client subnets, each in the one place that it may have.
struct ToldSubnets {
    /// Network and time, mixed (see [`ToldSubnets::mark`]); 0: nothing.
    marks: Box<[u64; TOLD_SUBNETS]>,
    /// The second, and how many were told of in it.
    second: u64,
    told: u32,
}

impl Learner {
    /// For one more thread.
    pub fn new(shared: Arc<Learning>) -> Learner {
        let terms = shared.terms.load_full();
        let draws = Draws::under(&terms);
        Learner { shared, terms, draws, claim: None, subnets: ToldSubnets::default() }
    }

    /// To be called when a new snapshot is taken up: the terms may have changed with it.
    pub fn adopt(&mut self) {
        let latest = self.shared.terms.load();
        if !Arc::ptr_eq(&latest, &self.terms) {
            self.terms = Arc::clone(&latest);
            self.draws = Draws::under(&self.terms);
            self.subnets = ToldSubnets::default(); // what they were told to may have been forgotten
        }
    }

    /// Round trips are measured.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.terms.is_on
    }

    /// One more query came over UDP: is it drawn?
    #[inline]
    pub fn is_drawn(&mut self) -> bool {
        self.draws.sampler.is_drawn()
    }

    /// A query was drawn: whether its sender is to be asked to come by TCP, if the reply is one that can do that. Then
    /// [`Learner::drawn`] must be told what became of it.
    pub fn claim(&mut self, client: IpAddr, now_s: u64) -> bool {
        if !self.draws.prospects.is_drawn() {
            return false;
        }
        let asks = network_of(client).zip(self.shared.asks.get());
        self.claim = asks.and_then(|(network, asks)| asks.claim(network, now_s));
        self.claim.is_some()
    }

    /// What became of a drawn query: whether its sender was asked.
    pub fn drawn(&mut self, client: IpAddr, now_s: u64, was_asked: bool) {
        if let (Some(claim), Some(asks)) = (self.claim.take(), self.shared.asks.get()) {
            match was_asked {
                true => asks.asked(claim, now_s),
                false => asks.give_back(claim),
            }
        }
        self.draws.left -= 1;
        if self.draws.left == 0 {
            self.draws.left = self.draws.per_weighing;
            if let Some(network) = network_of(client) {
                self.tell(Report::Weight { network, queries: self.draws.queries });
            }
        }
    }

    /// A query, over whatever it came, was located by a client subnet. Where nothing is measured it is as well not called.
    #[inline(never)] // inlined, it costs every query that has none
    pub fn sent_subnet(&mut self, client: IpAddr, now_s: u64) {
        if !self.subnets.holds(Network::of(client), now_s) {
            self.tell_subnet(client, now_s);
        }
    }

    #[cold]
    fn tell_subnet(&mut self, client: IpAddr, now_s: u64) {
        if self.is_on()
            && let Some(network) = network_of(client)
            && self.subnets.may_tell(now_s)
            && self.tell(Report::Subnet { network })
        {
            self.subnets.note(network, now_s);
        }
    }

    /// A query came by TCP.
    pub fn came_by_tcp(&mut self, client: IpAddr, now_s: u64) {
        if let (Some(network), Some(asks)) = (network_of(client), self.shared.asks.get()) {
            asks.came(network, now_s);
        }
    }

    /// A connection on which something was asked is about to be closed.
    pub fn connection_ends(&mut self, client: SocketAddr, socket: BorrowedFd<'_>) {
        let Some(network) = network_of(client.ip().to_canonical()).filter(|_| self.is_on()) else { return };
        match self.sample_us(socket) {
            Ok(sample_us) => {
                if let Some(asks) = self.shared.asks.get() {
                    asks.measured(network, unix_s(SystemTime::now()));
                }
                self.tell(Report::RoundTrip { network, sample_us });
            }
            Err(count) => {
                count.fetch_add(1, Relaxed);
            }
        }
    }

    /// A connection's round trip in microseconds, or where to count that it has none.
    fn sample_us(&self, socket: BorrowedFd<'_>) -> Result<u32, &AtomicU64> {
        let counts = &self.shared.counts;
        match round_trip(socket) {
            Ok(trip) if trip.retransmits > 0 => Err(&counts.retransmitted),
            Ok(RoundTrip { lowest_us: Some(lowest_us), .. }) => Ok(lowest_us),
            Ok(RoundTrip { lowest_us: None, .. }) | Err(_) => Err(&counts.unmeasured),
        }
    }

    /// False: there was no room, and it is lost.
    fn tell(&self, report: Report) -> bool {
        let is_told = self.shared.reports.try_send(report).is_ok();
        if !is_told {
            self.shared.counts.lost.fetch_add(1, Relaxed);
        }
        is_told
    }
}

impl Draws {
    fn under(terms: &Terms) -> Draws {
        let share = if terms.is_on { terms.prospect.max(DRAWN_AT_LEAST) } else { 0.0 };
        let per_weighing = (share * QUERIES_PER_WEIGHING).round().max(1.0);
        Draws {
            sampler: Sampler::new(share, random_number()),
            prospects: Sampler::new(if share > 0.0 { terms.prospect / share } else { 0.0 }, random_number()),
            per_weighing: per_weighing as u32,
            left: per_weighing as u32,
            queries: (per_weighing / share.max(DRAWN_AT_LEAST)) as f32,
        }
    }
}

impl Default for ToldSubnets {
    fn default() -> ToldSubnets {
        ToldSubnets { marks: Box::new([0; TOLD_SUBNETS]), second: 0, told: 0 }
    }
}

impl ToldSubnets {
    /// The network was told of not long ago.
    #[inline]
    fn holds(&self, network: Network, now_s: u64) -> bool {
        self.marks[Self::place(network)] == Self::mark(network, now_s)
    }

    /// Whether one more network may be told of now.
    fn may_tell(&mut self, now_s: u64) -> bool {
        if self.second != now_s {
            (self.second, self.told) = (now_s, 0);
        }
        self.told < SUBNETS_PER_SECOND
    }

    /// It has been told.
    fn note(&mut self, network: Network, now_s: u64) {
        self.told += 1;
        self.marks[Self::place(network)] = Self::mark(network, now_s);
    }

    #[inline]
    fn place(network: Network) -> usize {
        (network.key().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - TOLD_SUBNETS.ilog2())) as usize
    }

    /// Another one for each network and quarter of an hour: a network's number leaves six bits free, below its highest two.
    #[inline]
    fn mark(network: Network, now_s: u64) -> u64 {
        network.key() ^ (now_s >> TELL_AGAIN_BITS & 0x3f) << 56
    }
}
