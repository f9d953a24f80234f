//! The compiled map against the direct way: look the address up in the database, estimate, sort.

#[path = "support/fixture.rs"]
mod fixture;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, OnceLock},
};

use fixture::{Ask, Fixture};
use isochrone::{
    config::model::RegionId, geo::special::embedded_v4, latency::estimator::Room, routing::build::rule_matches,
    server::World,
};

const REGIONS: &str = r#"
[latency]
switch-margin = "MARGIN"
[regions.us-east]
location = "aws:us-east-1"
endpoints = ["192.0.2.1"]
[regions.us-west]
location = "aws:us-west-2"
endpoints = ["192.0.2.2"]
bias = "5ms"
[regions.eu]
location = "aws:eu-central-1"
endpoints = ["192.0.2.3"]
[regions.ap]
location = "aws:ap-southeast-1"
endpoints = ["192.0.2.4"]
[regions.sa]
location = "aws:sa-east-1"
endpoints = ["192.0.2.5"]
[regions.af]
location = "JNB"
endpoints = ["192.0.2.6"]
[zones."example.com"]
nameservers = ["ns1.example.net.", "ns2.example.net."]
[zones."example.com".routes."all"]
[zones."example.com".routes."ruled"]
[[zones."example.com".routes."ruled".rules]]
clients = ["80.0.0.0/8", "10.1.2.0/23", "2a00:1450::/32", "81.1.0.0/16"]
regions = ["ap", "eu"]
[[zones."example.com".routes."ruled".rules]]
clients = ["country:FR", "continent:SA"]
regions = ["eu", "sa", "us-east"]
[zones."example.com".routes."failover"]
policy = "failover"
[[zones."example.com".routes."failover".rules]]
clients = ["200.0.0.0/7"]
regions = ["sa"]
"#;

/// How many addresses each comparison takes, of each family.
const ADDRESSES: u64 = 1_000_000;

fn world(margin: &'static str) -> Arc<World> {
    static EXACT: OnceLock<Arc<World>> = OnceLock::new();
    static DEFAULT: OnceLock<Arc<World>> = OnceLock::new();
    let cell = if margin == "0ms" { &EXACT } else { &DEFAULT };
    cell.get_or_init(|| Fixture::new(&REGIONS.replace("MARGIN", margin)).world).clone()
}

/// SplitMix64: a fixed sequence of addresses, the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    fn v4(&mut self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(self.next() as u32))
    }

    /// Mostly in the allocated eighth, densely around its popular sixteenths; sometimes anywhere, sometimes embedded IPv4.
    fn v6(&mut self) -> IpAddr {
        let bits = u128::from(self.next()) << 64 | u128::from(self.next());
        let allocated = |high: u128| high << 112 | bits >> 16;
        IpAddr::V6(Ipv6Addr::from_bits(match self.next() % 8 {
            0 => bits,
            1 => 0xffff << 32 | bits >> 96,
            2 => 0x2002 << 112 | bits >> 16,
            3 | 4 => allocated(0x2000 | bits >> 116 & 0xfff),
            _ => allocated([0x2a00, 0x2600, 0x2400, 0x2800, 0x2c0f, 0x2a02][(bits >> 120) as usize % 6]),
        }))
    }
}

/// What the map must say: the first matching rule and, for a located address, the estimates of the regions it leaves.
fn direct(world: &World, route: usize, address: IpAddr) -> (Option<u16>, Option<Vec<f32>>) {
    let place = world.locations.lookup(address);
    let rules = &world.config.zones[0].routes[route].rules;
    let rule = rules.iter().position(|rule| rule_matches(&rule.clients, address, place.as_ref(), None));
    let mut ms = vec![0.0; world.config.regions.len()];
    let client = world.estimator.client(address, None);
    let is_known = place.is_some_and(|place| world.estimator.fill(&place, client, &mut Room::default(), &mut ms));
    (rule.map(|rule| rule as u16), is_known.then_some(ms))
}

fn compare(world: &World, route: usize, address: IpAddr, margin_ms: f32) {
    let compiled = &world.plan.routes[route];
    let map = &world.plan.maps[compiled.map];
    let located = map.locate(address);
    let (rule, estimates) = direct(world, route, address);
    assert_eq!(located.entry.rule, rule, "{address}");
    let Some(ms) = estimates else {
        assert_eq!(located.entry.ranking, None, "{address} is in no place");
        return;
    };
    let ranking = map.ranking(located.entry.ranking.unwrap_or_else(|| panic!("{address} is located")));
    let mut own: Vec<RegionId> = compiled.allowed(rule).to_vec();
    own.sort_by(|a, b| ms[a.index()].total_cmp(&ms[b.index()]).then(a.cmp(b)));
    if margin_ms == 0.0 {
        assert_eq!(ranking, own, "{address}");
        return;
    }
    let mut regions = ranking.to_vec();
    regions.sort();
    own.sort();
    assert_eq!(regions, own, "{address}");
    for (i, earlier) in ranking.iter().enumerate() {
        for later in &ranking[i..] {
            let loss_ms = ms[earlier.index()] - ms[later.index()];
            assert!(loss_ms < margin_ms, "{address} loses {loss_ms} ms when {later:?} is the best that is up");
        }
    }
}

fn compare_many(margin: &'static str, margin_ms: f32, addresses: impl Fn(&mut Random) -> IpAddr) {
    let world = world(margin);
    let mut random = Random(7);
    for n in 0..ADDRESSES {
        compare(&world, (n % 2) as usize, addresses(&mut random), margin_ms);
    }
}

#[test]
fn without_a_margin_the_map_is_the_direct_lookup_for_ipv4() {
    compare_many("0ms", 0.0, Random::v4);
}

#[test]
fn without_a_margin_the_map_is_the_direct_lookup_for_ipv6() {
    compare_many("0ms", 0.0, Random::v6);
}

#[test]
fn with_the_default_margin_no_ipv4_address_loses_more() {
    compare_many("5ms", 5.0, Random::v4);
}

#[test]
fn with_the_default_margin_no_ipv6_address_loses_more() {
    compare_many("5ms", 5.0, Random::v6);
}

/// Rule and ranking by value: two numbers of rankings may stand for the same order.
fn treatment(world: &World, route: usize, address: IpAddr) -> (Option<u16>, Option<Vec<RegionId>>) {
    let map = &world.plan.maps[world.plan.routes[route].map];
    let entry = map.locate(address).entry;
    (entry.rule, entry.ranking.map(|ranking| map.ranking(ranking).to_vec()))
}

/// The addresses of the prefix of `len` bits around `address`, as the least and the number of free bits.
fn prefix(address: IpAddr, len: u8) -> (u128, u32) {
    let (bits, width) = match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let free = width - u32::from(len);
    let mask = if free == 128 { u128::MAX } else { (1u128 << free) - 1 };
    (bits & !mask, free)
}

fn within(address: IpAddr, first: u128, free: u32, random: &mut Random) -> IpAddr {
    let any = u128::from(random.next()) << 64 | u128::from(random.next());
    let mask = if free == 128 { u128::MAX } else { (1u128 << free) - 1 };
    match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from((first | any & mask) as u32)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(first | any & mask)),
    }
}

/// Published scopes, read from real replies: throughout the prefix everything is the same, and one bit wider it is not. That
/// the wider prefix differs is looked for at the edges of the ranges it touches, so that a difference is never missed by chance.
#[test]
fn a_published_scope_is_right_and_minimal() {
    for margin in ["0ms", "5ms"] {
        let world = world(margin);
        let mut fixture = Fixture::of(world.clone());
        let mut random = Random(11);
        for n in 0..20_000u32 {
            let route = (n % 3) as usize;
            let name = ["all", "ruled", "failover"][route];
            let address = if n % 2 == 0 { random.v4() } else { random.v6() };
            let len = if address.is_ipv4() { 24 } else { 56 };
            let ask = Ask::new(&format!("{name}.example.com"), "A").from_client(&format!("{address}/{len}"));
            let scope_len = fixture.ask(&ask).scope_len.expect("a scope");
            let asked: IpAddr = ask.ecs.unwrap().0;
            let (first, free) = prefix(asked, scope_len);
            let here = treatment(&world, route, asked);
            for _ in 0..8 {
                let other = within(asked, first, free, &mut random);
                assert_eq!(treatment(&world, route, other), here, "{other} in {asked}/{scope_len} of {name}");
            }
            if scope_len > 0 && !is_embedded(asked) {
                let (first, free) = prefix(asked, scope_len - 1);
                assert!(differs_somewhere(&world, route, asked, first, free, &here), "{asked}/{scope_len} of {name}");
            }
        }
    }
}

fn is_embedded(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if embedded_v4(v6).is_some())
}

/// True when the prefix holds an address that is treated otherwise; steps from scope to scope, which covers all of it.
fn differs_somewhere(
    world: &World,
    route: usize,
    address: IpAddr,
    first: u128,
    free: u32,
    here: &(Option<u16>, Option<Vec<RegionId>>),
) -> bool {
    let map = &world.plan.maps[world.plan.routes[route].map];
    let mut at = first;
    let last = first | if free == 128 { u128::MAX } else { (1u128 << free) - 1 };
    loop {
        let probe = match address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(at as u32)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(at)),
        };
        // An address with an embedded one is treated as that: other than its neighbours in any case.
        if is_embedded(probe) || treatment(world, route, probe) != *here {
            return true;
        }
        let (start, free) = prefix(probe, map.locate(probe).scope_len);
        match (start | if free == 128 { u128::MAX } else { (1u128 << free) - 1 }).checked_add(1) {
            Some(next) if next <= last => at = next,
            _ => return false,
        }
    }
}
