//! One thread's side of learning: draws queries, and tells of round trips. Nothing here waits for another thread, and a query that is
//! not drawn costs a countdown.

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

/// See the module.
pub struct Learner {
    shared: Arc<Learning>,
    terms: Arc<Terms>,
    sampler: Sampler,
    /// Of the query that was drawn last, until it is answered.
    claim: Option<Claim>,
    /// Drawn queries until the next that tells of its network's weight.
    draws_left: u32,
    /// The network whose client subnets were told of last, and when.
    subnet_told: Option<(Network, u64)>,
}

impl Learner {
    /// For one more thread.
    pub fn new(shared: Arc<Learning>) -> Learner {
        let terms = shared.terms.load_full();
        let (sampler, draws_left) = (sampler(&terms), draws_per_weighing(&terms));
        Learner { shared, terms, sampler, claim: None, draws_left, subnet_told: None }
    }

    /// To be called when a new snapshot is taken up: the terms may have changed with it.
    pub fn adopt(&mut self) {
        let latest = self.shared.terms.load();
        if !Arc::ptr_eq(&latest, &self.terms) {
            self.terms = Arc::clone(&latest);
            self.sampler = sampler(&self.terms);
            self.draws_left = draws_per_weighing(&self.terms);
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
        self.sampler.is_drawn()
    }

    /// A query was drawn: whether its sender is to be asked to come by TCP, if the reply is one that can do that. Then
    /// [`Learner::drawn`] must be told what became of it.
    pub fn claim(&mut self, client: IpAddr, now_s: u64) -> bool {
        let asks = network_of(client).zip(self.shared.asks.get());
        self.claim = asks.and_then(|(network, asks)| asks.claim(network, now_s));
        self.claim.is_some()
    }

    /// What became of a drawn query: whether its sender was asked, and whether it was located by a client subnet.
    pub fn drawn(&mut self, client: IpAddr, now_s: u64, was_asked: bool, by_subnet: bool) {
        if let (Some(claim), Some(asks)) = (self.claim.take(), self.shared.asks.get()) {
            match was_asked {
                true => asks.asked(claim, now_s),
                false => asks.give_back(claim),
            }
        }
        self.draws_left -= 1;
        if self.draws_left == 0 {
            self.draws_left = draws_per_weighing(&self.terms);
            if let Some(network) = network_of(client) {
                let queries = f64::from(self.draws_left) / self.terms.prospect;
                self.tell(Report::Weight { network, queries: queries as f32 });
                if by_subnet {
                    self.tell(Report::Subnet { network });
                }
            }
        }
    }

    /// A query came by TCP.
    pub fn came_by_tcp(&mut self, client: IpAddr, now_s: u64, by_subnet: bool) {
        let Some(network) = network_of(client) else { return };
        if let Some(asks) = self.shared.asks.get() {
            asks.came(network, now_s);
        }
        // Once a second for the network whose turn it is, whatever its queries come to.
        if by_subnet && self.subnet_told != Some((network, now_s)) {
            self.subnet_told = Some((network, now_s));
            self.tell(Report::Subnet { network });
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

    fn tell(&self, report: Report) {
        if self.shared.reports.try_send(report).is_err() {
            self.shared.counts.lost.fetch_add(1, Relaxed);
        }
    }
}

fn draws_per_weighing(terms: &Terms) -> u32 {
    (terms.prospect * QUERIES_PER_WEIGHING).round().max(1.0) as u32
}

fn sampler(terms: &Terms) -> Sampler {
    Sampler::new(terms.prospect, random_number())
}
