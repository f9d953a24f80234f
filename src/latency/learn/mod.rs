//! Latency that is measured in passing: the round trip of each client that comes by TCP, kept by its network, and which networks are
//! asked to come. Takes times and samples as arguments; it must never know of sockets, messages or files. `docs/latency-learning.md`
//! tells what it measures and what that is worth.
//!
//! ```text
//! TCP connection ends ─▶ round trip ─▶ store (by network: path) ─▶ cells ─▶ the estimates
//! UDP query ─▶ sampler ─▶ asks ─▶ an answer with TC ─▶ the client comes by TCP
//! ```

pub mod asks;
mod path;
mod sampler;
pub mod store;

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

pub use self::{
    asks::{Asks, Outcome, Silence},
    sampler::Sampler,
    store::{KEEP_S, Measured, Remembered, Store, Taken},
};
use crate::{
    config::model::RegionId,
    geo::{Network, special::embedded_v4},
};

/// One measured figure for the estimates: a network's round trip to the region that this server stands in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
    /// The network: an IPv4 /24 or an IPv6 /56.
    pub network: IpNet,
    /// The region that it was measured from.
    pub region: RegionId,
    /// Milliseconds of round trip, without the region's bias.
    pub rtt_ms: f32,
    /// Samples behind it, at least 1, however old: the estimates count old ones less.
    pub samples: u32,
    /// When the newest sample came, Unix time in seconds.
    pub newest_s: u64,
    /// Its resolvers send client subnets. Such a figure speaks for addresses of the network alone: it must not feed what is
    /// estimated for its country or autonomous system, since the clients behind these resolvers may be anywhere.
    pub sends_subnets: bool,
}

impl Cell {
    /// What was measured of a network from `region`.
    pub fn new(measured: &Measured, region: RegionId) -> Cell {
        let Measured { network, rtt_ms, samples, newest_s, sends_subnets, weight: _ } = *measured;
        Cell { network: network.prefix(), region, rtt_ms, samples, newest_s, sends_subnets }
    }
}

/// The network that a client's round trip speaks for; `address` is in its canonical form (v4-mapped is IPv4). `None` where it speaks
/// for no network: on this host, on this link, or by way of a relay between the families, whose detour is part of it. Private
/// networks do have a way to go, and are for whoever runs resolvers there.
pub fn network_of(address: IpAddr) -> Option<Network> {
    let is_here = match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_unspecified() || v4.is_link_local() || v4.is_multicast(),
        IpAddr::V6(v6) => is_here(v6) || v6.is_multicast() || embedded_v4(v6).is_some(),
    };
    (!is_here).then(|| Network::of(address))
}

fn is_here(v6: Ipv6Addr) -> bool {
    v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_comes_over_a_network_of_its_own_is_measured() {
        for (address, network) in [
            ("192.0.2.7", Some("192.0.2.0/24")),
            ("10.0.1.2", Some("10.0.1.0/24")),
            ("198.18.3.4", Some("198.18.3.0/24")),
            ("2001:db8:0:1ff::1", Some("2001:db8:0:100::/56")),
            ("fd00::1", Some("fd00::/56")),
            ("127.0.0.1", None),
            ("::1", None),
            ("0.0.0.0", None),
            ("::", None),
            ("169.254.1.1", None),
            ("fe80::1", None),
            ("224.0.0.1", None),
            ("ff02::1", None),
            ("64:ff9b::192.0.2.1", None),
            ("2002:c000:221::1", None),
        ] {
            let found = network_of(address.parse().unwrap()).map(|network| network.to_string());
            assert_eq!(found.as_deref(), network, "{address}");
        }
    }

    #[test]
    fn a_cell_says_what_was_measured_and_from_where() {
        let mut store = Store::default();
        let network = "2001:db8::/56".parse().unwrap();
        store.take(network, 12_500, 1_800_000_000);
        let cell = Cell::new(&store.of(network, 1_800_000_000).unwrap(), RegionId(3));
        let expected = Cell {
            network: "2001:db8::/56".parse().unwrap(),
            region: RegionId(3),
            rtt_ms: 12.5,
            samples: 1,
            newest_s: 1_800_000_000,
            sends_subnets: false,
        };
        assert_eq!(cell, expected);
    }
}
