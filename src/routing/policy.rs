//! Ranking × health × rules → region. The one decision that the query path and `explain` share.

use std::net::IpAddr;

use super::{
    hash::{WINDOWS, draw, window},
    health::HealthView,
    map::Located,
    plan::{Family, Plan, Pool, PoolId, RankBy, Ring, Route},
    standing::Standing,
};
use crate::{
    config::model::{RegionId, WhenAllDown},
    geo::special::embedded_v4,
};

/// Who asks, as far as routing is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The address that is located: the ECS network's first address, or the resolver's own.
    pub address: IpAddr,
    /// The address that the query came from.
    pub resolver: IpAddr,
}

/// What a route answers this client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The rule that matched.
    pub rule: Option<u16>,
    /// What the ranking is made from.
    pub ranked_by: RankedBy,
    /// The answer.
    pub outcome: Outcome,
    /// TTL in seconds: the route's, lowered while a target that was consulted is in doubt.
    pub ttl_s: u32,
    /// Most that a negative answer's TTL may be in seconds: the time in which a target in doubt may change it.
    pub negative_ttl_s: u32,
    /// Scope prefix length for the reply's ECS option.
    pub scope_len: u8,
    /// Hash of the client's network under this route; 0 where nothing depends on it.
    pub network_hash: u64,
}

/// What a ranking is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RankedBy {
    /// Estimates for the client's place; the number of the ranking in the route's map.
    Place(u32),
    /// Estimates for the resolver's place, since the client's is unknown; the number of the ranking in the resolver's map.
    ResolverPlace(u32),
    /// The server's own connect times, or file order: nothing is known of client and resolver.
    Fallback,
    /// List order.
    Order,
    /// Weighted draw.
    Draw,
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A region's endpoints.
    Region {
        /// The region.
        region: RegionId,
        /// Its pool.
        pool: PoolId,
        /// Why this one.
        reason: Reason,
    },
    /// SERVFAIL: nothing is usable and the route says so.
    ServFail,
    /// NOERROR without data: nothing is usable and the route says so, or no region has the family.
    NoData,
}

/// Why a region was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The first of the ranking.
    Best,
    /// A better one is not usable.
    Failover,
    /// It is drained, but none is usable that is not.
    Drained,
    /// None is usable but for those that are held down: the first of them.
    LastResort,
    /// None is usable: the first of the ranking, with all its endpoints.
    AllDown,
}

impl Reason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Reason; 5] = [Reason::Best, Reason::Failover, Reason::Drained, Reason::LastResort, Reason::AllDown];

    /// As metrics and logs name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Best => "best",
            Reason::Failover => "failover",
            Reason::Drained => "drained",
            Reason::LastResort => "last-resort",
            Reason::AllDown => "all-down",
        }
    }
}

/// Counters are found by a reason's number and named by its place in the list.
const _: () = {
    let mut n = 0;
    while n < Reason::ALL.len() {
        assert!(Reason::ALL[n] as usize == n);
        n += 1;
    }
};

/// Shortest prefixes whose hash decides (behaviour of weighted answers and windows): /24 and /48.
const NETWORK_LEN_V4: u8 = 24;
const NETWORK_LEN_V6: u8 = 48;
/// Lowered TTLs do not go below this, in seconds.
const TTL_FLOOR_S: u32 = 5;

/// Decides what `route` answers to `client` in a family.
pub fn decide(plan: &Plan, health: &HealthView, route: &Route, family: Family, client: Client) -> Decision {
    let located = plan.maps[route.map].locate(client.address);
    let rule = located.entry.rule;
    let dependence = route.dependence(rule, family);
    let network_hash = if dependence.by_network { route.key.network_hash(client.address) } else { 0 };
    let ranked_by = ranked_by(plan, route, &located, client);
    if !dependence.exists {
        let outcome = Outcome::NoData;
        let (ttl_s, negative_ttl_s) = (route.ttl_s, u32::MAX);
        return Decision { rule, ranked_by, outcome, ttl_s, negative_ttl_s, scope_len: 0, network_hash };
    }
    let mut doubt_s: Option<u32> = None;
    let mut reason = Reason::Best;
    let mut chosen: Option<(Standing, RegionId, PoolId)> = None;
    for region in ranking(plan, health, route, rule, ranked_by, network_hash) {
        let Some(pool) = route.pool(region) else { continue };
        if plan.pools[pool.0 as usize].size(family) == 0 {
            continue;
        }
        let state = health.pool(pool);
        doubt_s = doubt_s.into_iter().chain(state.doubt_s(family)).min();
        let standing = state.standing(family);
        if chosen.is_none_or(|(best, ..)| standing < best) {
            chosen = Some((standing, region, pool));
        }
        if standing == Standing::Usable {
            break;
        }
        reason = Reason::Failover;
    }
    let outcome = match (chosen, route.when_all_down) {
        (Some((Standing::Usable, region, pool)), _) => Outcome::Region { region, pool, reason },
        (Some((Standing::Drained, region, pool)), _) => Outcome::Region { region, pool, reason: Reason::Drained },
        (Some((Standing::LastResort | Standing::DrainedLastResort, region, pool)), _) => {
            Outcome::Region { region, pool, reason: Reason::LastResort }
        }
        (Some((Standing::Failed | Standing::DrainedFailed, region, pool)), WhenAllDown::AnswerAll) => {
            Outcome::Region { region, pool, reason: Reason::AllDown }
        }
        (_, WhenAllDown::NoData) => Outcome::NoData,
        // With everything forced down there is nothing that `answer-all` could answer, and in a signed zone NODATA would be a lie.
        (_, WhenAllDown::ServFail | WhenAllDown::AnswerAll) => Outcome::ServFail,
    };
    if !matches!(outcome, Outcome::Region { reason: Reason::Best | Reason::Failover, .. }) {
        let ranked = ranking(plan, health, route, rule, ranked_by, network_hash);
        let pools =
            ranked.filter_map(|region| route.pool(region)).filter(|id| plan.pools[id.0 as usize].size(family) > 0);
        doubt_s = pools.filter_map(|id| health.pool(id).widest_doubt_s(family)).min();
    }
    let negative_ttl_s = doubt_s.map_or(u32::MAX, |bound_s| bound_s.max(TTL_FLOOR_S));
    let ttl_s = negative_ttl_s.min(route.ttl_s);
    let scope_len = match outcome {
        // Negative answers are global to resolvers (RFC 7871 §7.4).
        Outcome::NoData | Outcome::ServFail => 0,
        Outcome::Region { .. } => scope_len(route, family, &located, client.address),
    };
    Decision { rule, ranked_by, outcome, ttl_s, negative_ttl_s, scope_len, network_hash }
}

fn scope_len(route: &Route, family: Family, located: &Located, address: IpAddr) -> u8 {
    let dependence = route.dependence(located.entry.rule, family);
    let by_region = if dependence.by_region { located.scope_len } else { 0 };
    if !dependence.by_network {
        return by_region;
    }
    let by_network = match address {
        IpAddr::V4(_) => NETWORK_LEN_V4,
        IpAddr::V6(v6) => embedded_v4(v6).map_or(NETWORK_LEN_V6, |embedded| NETWORK_LEN_V4 + embedded.offset_bits),
    };
    by_region.max(by_network)
}

fn ranked_by(plan: &Plan, route: &Route, located: &Located, client: Client) -> RankedBy {
    match (&route.ranking, located.entry.ranking) {
        (RankBy::Order, _) => RankedBy::Order,
        (RankBy::Draw(_), _) => RankedBy::Draw,
        (RankBy::Latency, Some(ranking)) => RankedBy::Place(ranking),
        (RankBy::Latency, None) => {
            let resolver_map = &plan.maps[route.resolver_map.unwrap_or(route.map)];
            let by_resolver = resolver_map.locate(client.resolver).entry.ranking;
            by_resolver.map_or(RankedBy::Fallback, RankedBy::ResolverPlace)
        }
    }
}

/// The regions that the rule leaves, best first.
pub fn ranking<'s>(
    plan: &'s Plan,
    health: &'s HealthView,
    route: &'s Route,
    rule: Option<u16>,
    ranked_by: RankedBy,
    network_hash: u64,
) -> Ranking<'s> {
    let allowed = route.allowed(rule);
    match (ranked_by, &route.ranking) {
        (RankedBy::Place(ranking), _) => {
            Ranking::Listed { regions: plan.maps[route.map].ranking(ranking), allowed: None }
        }
        (RankedBy::ResolverPlace(ranking), _) => {
            let map = &plan.maps[route.resolver_map.unwrap_or(route.map)];
            Ranking::Listed { regions: map.ranking(ranking), allowed: Some(allowed) }
        }
        (RankedBy::Draw, RankBy::Draw(weights)) => Ranking::Drawn { route, weights, allowed, network_hash, last: None },
        (RankedBy::Fallback, _) => Ranking::Listed { regions: health.fallback_order(), allowed: Some(allowed) },
        _ => Ranking::Listed { regions: allowed, allowed: None },
    }
}

/// Regions in ranked order, worked out as far as they are asked for.
pub enum Ranking<'s> {
    /// A ready list, of which only some may be allowed.
    Listed {
        /// The list.
        regions: &'s [RegionId],
        /// What is allowed; `None`: all.
        allowed: Option<&'s [RegionId]>,
    },
    /// By draw: each step finds the next higher draw, since mostly only the first is needed.
    Drawn {
        /// The route.
        route: &'s Route,
        /// Salt and weight of each of the route's regions.
        weights: &'s [(u64, u32)],
        /// What is allowed.
        allowed: &'s [RegionId],
        /// Hash of the client's network.
        network_hash: u64,
        /// The draw given last: weight 0 last, then by draw, then by list order.
        last: Option<DrawKey>,
    },
}

/// Order of draws: weight 0 last, then by draw, then by list order.
type DrawKey = (bool, Option<super::hash::Draw>, usize);

impl Iterator for Ranking<'_> {
    type Item = RegionId;

    fn next(&mut self) -> Option<RegionId> {
        match self {
            Ranking::Listed { regions, allowed } => loop {
                let (region, rest) = regions.split_first()?;
                *regions = rest;
                if allowed.is_none_or(|allowed| allowed.contains(region)) {
                    return Some(*region);
                }
            },
            Ranking::Drawn { route, weights, allowed, network_hash, last } => {
                let keys = route.regions.iter().zip(weights.iter()).enumerate();
                let next = keys
                    .filter(|(_, (region, _))| allowed.contains(region))
                    .map(|(index, (_, (salt, weight)))| {
                        let draw = draw(*network_hash, *salt, *weight);
                        (draw.is_none(), draw, index)
                    })
                    .filter(|key| last.is_none_or(|last| *key > last))
                    .min()?;
                *last = Some(next);
                Some(route.regions[next.2])
            }
        }
    }
}

/// The addresses of one family that a pool answers with, in the order of the pool: at most `max_answers` neighbours on the ring,
/// beginning where the client's window begins when there are more.
pub fn answers<'p, A>(
    ring: &'p Ring<A>,
    up: Option<&'p [bool]>,
    max_answers: usize,
    network_hash: u64,
) -> impl Iterator<Item = &'p A> + Clone {
    answers_of_window(ring, up, max_answers, window(network_hash))
}

/// As [`answers`], for a window by its number.
pub fn answers_of_window<'p, A>(
    ring: &'p Ring<A>,
    up: Option<&'p [bool]>,
    max_answers: usize,
    n: u32,
) -> impl Iterator<Item = &'p A> + Clone {
    let len = ring.slots.len();
    let start = match len > max_answers {
        true => ring.window_start(n, WINDOWS),
        false => 0,
    };
    let (tail, head) = (&ring.slots[start..], &ring.slots[..start]);
    let is_up = move |member: usize| up.is_none_or(|up| up[member]);
    tail.iter().chain(head).filter(move |slot| is_up(slot.member)).take(max_answers).map(|slot| &slot.address)
}

/// Which members of a pool answer under an outcome; `None`: all of them.
pub fn members_up(health: &HealthView, pool: PoolId, reason: Reason) -> Option<&[bool]> {
    health.pool(pool).members(reason)
}

/// The pool behind an id.
pub fn pool(plan: &Plan, id: PoolId) -> &Pool {
    &plan.pools[id.0 as usize]
}
