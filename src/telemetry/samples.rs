//! A few of the clients that were answered, for pictures of where queries come from. One writer, any reader, no lock: a reader that
//! is overtaken sees a newer client instead, which is as good.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

/// Clients that are held for each worker: at a look every second and one in [`EVERY`] noted, nothing is missed up to 16,000 answers
/// a second and worker; above, what is missed is as random as what is not.
const HELD: usize = 256;

/// One answer in so many is noted; a prime, so that no rhythm of the queries keeps step with it.
pub const EVERY: u32 = 61;

/// The clients that one worker noted last.
pub struct Samples {
    held: [AtomicU64; HELD],
    noted: AtomicU64,
}

/// A client network that got an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// First address of its /24 or /48: no more of it is held.
    pub network: IpAddr,
}

impl Default for Samples {
    fn default() -> Self {
        Samples { held: [const { AtomicU64::new(0) }; HELD], noted: AtomicU64::new(0) }
    }
}

impl Samples {
    /// Notes a client. For the one worker that this belongs to.
    #[cold]
    pub fn note(&self, client: IpAddr) {
        let noted = self.noted.load(Relaxed);
        self.held[noted as usize % HELD].store(packed(client), Relaxed);
        self.noted.store(noted + 1, Release);
    }

    /// What was noted since the last call with the same `seen`, as far as it is still held.
    pub fn since(&self, seen: &mut u64) -> impl Iterator<Item = Sample> {
        let noted = self.noted.load(Acquire);
        let first = noted.saturating_sub(HELD as u64).max(*seen);
        *seen = noted;
        (first..noted).map(|at| unpacked(self.held[at as usize % HELD].load(Relaxed)))
    }
}

const IS_V6: u64 = 1 << 63;

fn packed(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(v4) => u64::from(v4.to_bits() >> 8),
        IpAddr::V6(v6) => IS_V6 | (v6.to_bits() >> 80) as u64,
    }
}

fn unpacked(packed: u64) -> Sample {
    let network = match packed & IS_V6 {
        0 => IpAddr::V4(Ipv4Addr::from_bits((packed as u32) << 8)),
        _ => IpAddr::V6(Ipv6Addr::from_bits(u128::from(packed & !IS_V6) << 80)),
    };
    Sample { network }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_gets_each_client_once_and_of_too_many_the_newest() {
        let samples = Samples::default();
        let mut seen = 0;
        samples.note("203.0.113.77".parse().unwrap());
        samples.note("2001:db8:1:2::3".parse().unwrap());
        let networks =
            |samples: &Samples, seen: &mut u64| samples.since(seen).map(|s| s.network.to_string()).collect::<Vec<_>>();
        assert_eq!(networks(&samples, &mut seen), ["203.0.113.0", "2001:db8:1::"]);
        assert!(networks(&samples, &mut seen).is_empty());
        (0..1000u32).for_each(|n| samples.note(IpAddr::V4(Ipv4Addr::from_bits(n << 8))));
        let newest = networks(&samples, &mut seen);
        assert_eq!((newest.len(), newest[0].as_str(), newest[255].as_str()), (256, "0.2.232.0", "0.3.231.0"));
    }
}
