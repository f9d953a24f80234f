//! Which clients a change would move from one region to another: the decisions of two plans, or of one in two states of health, side
//! by side for every network that has a place. Knows nothing of why there are two.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    health::HealthView,
    plan::{Family, Plan, RankBy, Route},
    policy::{Client, Outcome, decide},
    ranges::Bits,
};
use crate::{
    config::model::RegionId,
    geo::{GeoError, Locations, Place},
};

/// Networks of a range that draws of a `weighted` policy are worked out for: the draws are even, so a few stand for all.
const DRAWS: u32 = 8;

/// A plan in a state of health.
#[derive(Clone, Copy)]
pub struct Side<'p> {
    /// The plan.
    pub plan: &'p Plan,
    /// What is usable.
    pub health: &'p HealthView,
}

/// A route as it is before and after; `None`: it is not there.
#[derive(Clone, Copy)]
pub struct Pair<'p> {
    /// Before the change.
    pub before: Option<&'p Route>,
    /// After it.
    pub after: Option<&'p Route>,
}

/// What the networks of one family, or some queries, get from a route.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
    /// By what was answered before and what is after: a region, or nothing.
    pub flows: BTreeMap<(Option<RegionId>, Option<RegionId>), Flow>,
}

/// Networks, or queries, that go the same way.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Flow {
    /// How many: /24 of IPv4, /48 of IPv6; or queries.
    pub weight: f64,
    /// Of those with both estimates: how many, and the sums of their milliseconds before and after.
    pub estimated: f64,
    /// See `estimated`.
    pub before_ms: f64,
    /// See `estimated`.
    pub after_ms: f64,
}

impl Flow {
    /// Mean estimates before and after, in milliseconds.
    pub fn means_ms(&self) -> Option<(f64, f64)> {
        (self.estimated > 0.0).then(|| (self.before_ms / self.estimated, self.after_ms / self.estimated))
    }
}

/// The milliseconds from an address at a place to a region of the side before (`false`) or after (`true`).
pub type Estimate<'e> = &'e dyn Fn(IpAddr, &Place, RegionId, bool) -> Option<f32>;

/// Follows each pair through all located networks of both families: IPv4, IPv6. `locations` are those of the change's outcome.
///
/// # Errors
/// What the location data has to report.
pub fn compare(
    before: Side,
    after: Side,
    pairs: &[Pair],
    locations: &Locations,
    estimate: Estimate,
) -> Result<Vec<[Tally; 2]>, GeoError> {
    let mut tallies = vec![<[Tally; 2]>::default(); pairs.len()];
    locations.walk_v4(&mut |first, last, _, place| {
        for (pair, tally) in pairs.iter().zip(&mut tallies) {
            follow(before, after, pair, (first, last), &mut tally[0], &|address, region, side| {
                estimate(address, place, region, side)
            });
        }
    })?;
    locations.walk_v6(&mut |first, last, _, place| {
        for (pair, tally) in pairs.iter().zip(&mut tallies) {
            follow(before, after, pair, (first, last), &mut tally[1], &|address, region, side| {
                estimate(address, place, region, side)
            });
        }
    })?;
    Ok(tallies)
}

/// Adds to a tally what so many queries of one client get, which ask each side's route for a family.
pub fn weigh(
    sides: [Side; 2],
    asked: [Option<(&Route, Family)>; 2],
    address: IpAddr,
    queries: f64,
    tally: &mut Tally,
    estimate: &dyn Fn(RegionId, bool) -> Option<f32>,
) {
    let [from, to] = [0, 1].map(|n| asked[n].and_then(|(route, family)| region(sides[n], route, family, address)));
    tally.add(from, to, queries, estimate);
}

impl Tally {
    /// `estimate` gives the milliseconds to a region of the side before (`false`) or after (`true`).
    fn add(
        &mut self,
        from: Option<RegionId>,
        to: Option<RegionId>,
        weight: f64,
        estimate: &dyn Fn(RegionId, bool) -> Option<f32>,
    ) {
        let flow = self.flows.entry((from, to)).or_default();
        flow.weight += weight;
        let ms = |region: Option<RegionId>, side| region.and_then(|region| estimate(region, side));
        if let (Some(before_ms), Some(after_ms)) = (ms(from, false), ms(to, true)) {
            flow.estimated += weight;
            flow.before_ms += weight * f64::from(before_ms);
            flow.after_ms += weight * f64::from(after_ms);
        }
    }

    /// Takes in what another has of the same plans.
    pub fn merge(&mut self, other: &Tally) {
        for (way, more) in &other.flows {
            let flow = self.flows.entry(*way).or_default();
            flow.weight += more.weight;
            flow.estimated += more.estimated;
            flow.before_ms += more.before_ms;
            flow.after_ms += more.after_ms;
        }
    }
}

/// What differs between the families.
trait Asked: Bits {
    /// The address.
    fn address(self) -> IpAddr;
    /// Where the range of a route's map ends that this address lies in.
    fn end_of_range(self, plan: &Plan, route: &Route) -> Self;
    /// So many addresses from the first to the last one, in networks.
    fn networks(first: Self, last: Self) -> f64;
    /// The address `part` steps of `DRAWS` on the way from the first to the last one.
    fn between(first: Self, last: Self, part: u32) -> Self;
}

macro_rules! asked {
    ($type:ty, $address:ty, $map:ident, $below:expr) => {
        impl Asked for $type {
            fn address(self) -> IpAddr {
                IpAddr::from(<$address>::from_bits(self))
            }
            fn end_of_range(self, plan: &Plan, route: &Route) -> Self {
                plan.maps[route.map].$map.end_of(self)
            }
            fn networks(first: Self, last: Self) -> f64 {
                ((last - first) as f64 + 1.0) / (1u128 << $below) as f64
            }
            fn between(first: Self, last: Self, part: u32) -> Self {
                first + (last - first) / <$type>::from(DRAWS) * <$type>::from(part)
            }
        }
    };
}
asked!(u32, std::net::Ipv4Addr, v4, 8);
asked!(u128, std::net::Ipv6Addr, v6, 80);

/// Follows a pair through one located range.
fn follow<A: Asked>(
    before: Side,
    after: Side,
    pair: &Pair,
    (first, last): (A, A),
    tally: &mut Tally,
    estimate: &dyn Fn(IpAddr, RegionId, bool) -> Option<f32>,
) {
    let draws = [pair.before, pair.after].into_iter().flatten().any(depends_on_network);
    let mut at = first;
    loop {
        let ends = [(before, pair.before), (after, pair.after)]
            .into_iter()
            .filter_map(|(side, route)| Some(at.end_of_range(side.plan, route?)));
        let end = ends.chain([last]).min().unwrap_or(last);
        let parts = if draws && A::networks(at, end) > f64::from(DRAWS) { DRAWS } else { 1 };
        let networks = A::networks(at, end) / f64::from(parts);
        for part in 0..parts {
            let address = A::between(at, end, part).address();
            let from = pair.before.and_then(|route| answered(before, route, address));
            let to = pair.after.and_then(|route| answered(after, route, address));
            tally.add(from, to, networks, &|region, side| estimate(address, region, side));
        }
        if end >= last {
            return;
        }
        at = end.next();
    }
}

fn depends_on_network(route: &Route) -> bool {
    matches!(route.ranking, RankBy::Draw(_))
}

/// The region that a client gets.
fn answered(side: Side, route: &Route, address: IpAddr) -> Option<RegionId> {
    let family = Family::ALL.into_iter().find(|family| route.dependence(None, *family).exists)?;
    region(side, route, family, address)
}

fn region(side: Side, route: &Route, family: Family, address: IpAddr) -> Option<RegionId> {
    match decide(side.plan, side.health, route, family, Client { address, resolver: address }).outcome {
        Outcome::Region { region, .. } => Some(region),
        Outcome::ServFail | Outcome::NoData => None,
    }
}
