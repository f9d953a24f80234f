//! The serial of a synthesised SOA: a function of the zone's content alone, so that servers with the same zone have the same
//! serial without speaking to each other. It changes with the content but does not count upwards.
//!
//! It is the upper half XOR the lower half of SipHash-2-4 with an all-zero key over these bytes, numbers in network byte order,
//! strings and lists after their length in four bytes:
//!
//! 1. Each RRset, sorted by owner (wire form, lower case) and type: owner, type (2), TTL (4), list of data; the SOA's serial
//!    is 0.
//! 2. Each route, sorted by owner: owner, TTL (4), policy (1: 0 latency, 1 failover, 2 weighted; then the list of weights, 4
//!    each), most answers (2), when all are down (1: 0 answer all, 1 SERVFAIL, 2 no data), list of regions, list of rules.
//! 3. A region: its name, then 0 (1) and the list of addresses (16 bytes, IPv4 mapped; weight 4), or 1 (1) and the host name.
//! 4. A rule: list of conditions as text (`country:CH`), list of its regions' names.
//! 5. Each route with an HTTPS record, sorted by owner: owner, text of the record.

use std::{hash::Hasher, net::IpAddr};

use siphasher::sip::SipHasher24;

use super::RrSet;
use crate::config::{
    Config,
    model::{ClientMatch, Endpoints, Policy, RegionId, Route, WhenAllDown, Zone},
};

/// The serial of `zone` with these RRsets, whose SOA has serial 0.
pub fn derive(config: &Config, zone: &Zone, rrsets: &[RrSet]) -> u32 {
    let mut sum = Sum(SipHasher24::new_with_keys(0, 0));
    sum.length(rrsets.len());
    for set in rrsets {
        sum.string(set.owner.as_wire());
        sum.bytes(&set.rtype.to_be_bytes());
        sum.bytes(&set.ttl_s.to_be_bytes());
        sum.length(set.rdatas.len());
        set.rdatas.iter().for_each(|rdata| sum.string(rdata));
    }
    let mut routes: Vec<&Route> = zone.routes.iter().collect();
    routes.sort_by(|a, b| a.owner.cmp(&b.owner));
    sum.length(routes.len());
    routes.iter().for_each(|route| add_route(&mut sum, config, route));
    for (route, (text, _)) in routes.iter().filter_map(|route| Some((route, route.https.as_ref()?))) {
        sum.string(route.owner.as_wire());
        sum.string(text.as_bytes());
    }
    let hash = sum.0.finish();
    (hash >> 32) as u32 ^ hash as u32
}

/// The hash and how values enter it.
struct Sum(SipHasher24);

impl Sum {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    fn length(&mut self, length: usize) {
        self.bytes(&(length as u32).to_be_bytes());
    }

    fn string(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.bytes(bytes);
    }
}

fn add_route(sum: &mut Sum, config: &Config, route: &Route) {
    sum.string(route.owner.as_wire());
    sum.bytes(&route.ttl_s.to_be_bytes());
    let (policy, weights): (u8, &[u32]) = match &route.policy {
        Policy::Latency => (0, &[]),
        Policy::Failover => (1, &[]),
        Policy::Weighted(weights) => (2, weights),
    };
    sum.bytes(&[policy]);
    sum.length(weights.len());
    weights.iter().for_each(|weight| sum.bytes(&weight.to_be_bytes()));
    sum.bytes(&route.max_answers.to_be_bytes());
    sum.bytes(&[match route.when_all_down {
        WhenAllDown::AnswerAll => 0,
        WhenAllDown::ServFail => 1,
        WhenAllDown::NoData => 2,
    }]);
    sum.length(route.regions.len());
    for region in &route.regions {
        add_region(sum, config, route, *region);
    }
    sum.length(route.rules.len());
    for rule in &route.rules {
        sum.length(rule.clients.len());
        rule.clients.iter().for_each(|client| sum.string(condition(client).as_bytes()));
        sum.length(rule.regions.len());
        rule.regions.iter().for_each(|region| sum.string(config.regions[region.index()].name.as_bytes()));
    }
}

fn add_region(sum: &mut Sum, config: &Config, route: &Route, region: RegionId) {
    sum.string(config.regions[region.index()].name.as_bytes());
    match route.pool(config, region).0 {
        Endpoints::Addresses(list) => {
            sum.bytes(&[0]);
            sum.length(list.len());
            for endpoint in list {
                let address = match endpoint.address {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                    IpAddr::V6(v6) => v6,
                };
                sum.bytes(&address.octets());
                sum.bytes(&endpoint.weight.to_be_bytes());
            }
        }
        Endpoints::Name(name) => {
            sum.bytes(&[1]);
            sum.string(name.as_wire());
        }
    }
}

fn condition(client: &ClientMatch) -> String {
    match client {
        ClientMatch::Continent(continent) => format!("continent:{}", continent.code()),
        ClientMatch::Country(country) => format!("country:{country}"),
        ClientMatch::Asn(asn) => format!("asn:{asn}"),
        ClientMatch::Prefix(prefix) => prefix.to_string(),
    }
}
