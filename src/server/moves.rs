//! What a new configuration, or a failure, would move: every route of two worlds side by side, network by network, in words that
//! people and programs read, by networks and, where there are query logs, by logged queries. Starts nothing and asks nobody: both
//! sides count as healthy but for what is to fail.

mod queries;

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

pub use self::queries::{Counting, LoggedQueries, QueryMoves};
use super::world::World;
use crate::{
    config::model::RegionId,
    geo::{AsnTable, Continent, GeoError, Place, place::CountryCode},
    latency::estimator::{Client, Room},
    routing::{
        Plan,
        force::{Force, Forces},
        health::{HealthView, TargetHealth},
        moves::{self, Flow, Pair, Side, Tally},
        plan::{RankBy, Route},
    },
};

/// What a change would move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moves {
    /// The configuration as it is.
    pub before: String,
    /// The configuration as it would be; the same where a failure is simulated.
    pub after: String,
    /// Regions that fail.
    pub down: Vec<String>,
    /// Those of them whose failure nothing would notice, since they have no check: shown as if an operator took them out.
    pub unchecked: Vec<String>,
    /// Regions that only the new configuration has.
    pub regions_added: Vec<String>,
    /// Regions that only the old configuration has.
    pub regions_removed: Vec<String>,
    /// What was read of query logs; `None`: none was named.
    #[serde(default)]
    pub logged: Option<LoggedQueries>,
    /// Every route of either, those of the new configuration first.
    pub routes: Vec<RouteMoves>,
}

/// What would become of a route's clients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteMoves {
    /// Its zone.
    pub zone: String,
    /// Its owner as written.
    pub route: String,
    /// `same`: no network and no logged query moves; `moves`; `added`; `removed`.
    pub change: String,
    /// Networks of IPv4, counted in /24.
    pub ipv4: NetworkMoves,
    /// Networks of IPv6, counted in /48.
    pub ipv6: NetworkMoves,
    /// Its logged queries; `None`: no log was named.
    #[serde(default)]
    pub queries: Option<QueryMoves>,
}

/// What would become of the networks of a family that have a place.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct NetworkMoves {
    /// How many there are.
    pub networks: f64,
    /// Share of them that gets another region, 0 to 1.
    pub moved: f64,
    /// Share that gets a region before, and none after.
    pub lost: f64,
    /// Mean estimate before, of those that have one on both sides, in milliseconds.
    pub before_ms: Option<f64>,
    /// The same after.
    pub after_ms: Option<f64>,
    /// Shares of the regions.
    pub regions: Vec<RegionShare>,
    /// What moves, the largest share first.
    pub moves: Vec<Move>,
}

/// A region's share of a route's networks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegionShare {
    /// The region.
    pub region: String,
    /// Before, 0 to 1.
    pub before: f64,
    /// After.
    pub after: f64,
}

/// Networks that go from one region to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Move {
    /// From here; `None`: they had no answer.
    pub from: Option<String>,
    /// To there; `None`: they would have no answer.
    pub to: Option<String>,
    /// How many.
    pub networks: f64,
    /// Share of the route's networks.
    pub share: f64,
    /// Mean estimate before in milliseconds.
    pub before_ms: Option<f64>,
    /// Mean estimate after in milliseconds.
    pub after_ms: Option<f64>,
}

/// What taking up `new` instead of `old` would move; `logged` are queries that were counted for these two.
///
/// # Errors
/// What the location data has to report.
pub fn plan(old: &World, new: &World, logged: Option<Counting<'_>>) -> Result<Moves, GeoError> {
    let (before, after) = (health(&old.plan, &[], &[]), health(&new.plan, &[], &[]));
    let names = |world: &World| world.plan.region_names.clone();
    let only = |these: Vec<String>, those: &[String]| these.into_iter().filter(|name| !those.contains(name)).collect();
    compare((old, &before), (new, &after), logged, |logged, routes| Moves {
        before: old.path.display().to_string(),
        after: new.path.display().to_string(),
        down: Vec::new(),
        unchecked: Vec::new(),
        regions_added: only(names(new), &old.plan.region_names),
        regions_removed: only(names(old), &new.plan.region_names),
        logged,
        routes,
    })
}

/// What the failure of `down`, regions of the world, would move; `logged` are queries that were counted for it, before and after.
///
/// # Errors
/// What the location data has to report.
pub fn failure(world: &World, down: &[String], logged: Option<Counting<'_>>) -> Result<Moves, GeoError> {
    let is_unchecked = |name: &&String| {
        let mut pools = world.plan.pools.iter().filter(|pool| world.plan.region_names[pool.region.index()] == **name);
        pools.any(|pool| pool.members.iter().any(|member| member.target.is_none()))
    };
    let unchecked: Vec<String> = down.iter().filter(is_unchecked).cloned().collect();
    let (before, after) = (health(&world.plan, &[], &[]), health(&world.plan, down, &unchecked));
    let path = world.path.display().to_string();
    compare((world, &before), (world, &after), logged, |logged, routes| Moves {
        before: path.clone(),
        after: path,
        down: down.to_vec(),
        unchecked,
        regions_added: Vec::new(),
        regions_removed: Vec::new(),
        logged,
        routes,
    })
}

/// Everything is up, but for the endpoints of `down` regions and the `out` regions that an operator took out.
fn health(plan: &Plan, down: &[String], out: &[String]) -> HealthView {
    let is_in = |list: &[String], name: &str| list.iter().any(|one| one == name);
    let mut targets = vec![TargetHealth::UNKNOWN; plan.targets.len()];
    for pool in plan.pools.iter().filter(|pool| is_in(down, &plan.region_names[pool.region.index()])) {
        pool.members.iter().filter_map(|member| member.target).for_each(|target| targets[target].up = false);
    }
    let forces = Forces::new(plan, |name| is_in(out, name).then_some(Force::Down), |_, _| None);
    HealthView::forced(plan, &targets, &forces)
}

fn compare(
    (old, before): (&World, &HealthView),
    (new, after): (&World, &HealthView),
    logged: Option<Counting<'_>>,
    told: impl FnOnce(Option<LoggedQueries>, Vec<RouteMoves>) -> Moves,
) -> Result<Moves, GeoError> {
    let named = paired(old, new);
    // Routes of one shape move alike: each shape is followed once.
    let mut shapes: HashMap<String, usize> = HashMap::new();
    let (mut pairs, mut pair_of) = (Vec::new(), Vec::new());
    for (_, pair) in &named {
        let shape = format!("{} -> {}", shape(pair.before), shape(pair.after));
        pair_of.push(*shapes.entry(shape).or_insert_with(|| {
            pairs.push(*pair);
            pairs.len() - 1
        }));
    }
    let estimates = Estimates { worlds: [old, new], known: RefCell::default(), rooms: Default::default() };
    let hold = |world: &World| world.asns.as_deref().map(AsnTable::hold).transpose();
    let _held = (new.locations.hold()?, hold(old)?, hold(new)?);
    let sides = [Side { plan: &old.plan, health: before }, Side { plan: &new.plan, health: after }];
    let tallies = moves::compare(sides[0], sides[1], &pairs, &new.locations, &|address, place, region, is_after| {
        estimates.ms(address, place, region, is_after)
    })?;
    let by_queries = logged.as_ref().map(|logged| {
        let of_client = |address: IpAddr, region, is_after| {
            let place = new.locations.lookup(address)?;
            estimates.ms(address, &place, region, is_after)
        };
        logged.weigh(sides, &of_client, &name_of)
    });
    let routes = named.into_iter().zip(pair_of).map(|((name, pair), at)| {
        let [ipv4, ipv6] = [0, 1].map(|family| networks(&tallies[at][family], &old.plan, &new.plan));
        let queries = by_queries.as_ref().map(|tallies| match tallies.get(&name) {
            Some(tally) => QueryMoves::from(networks(tally, &old.plan, &new.plan)),
            None => QueryMoves::default(),
        });
        let is_still = ipv4.moves.is_empty()
            && ipv6.moves.is_empty()
            && queries.as_ref().is_none_or(|queries| queries.moves.is_empty());
        let change = match (pair.before, pair.after) {
            (None, _) => "added",
            (_, None) => "removed",
            _ if is_still => "same",
            _ => "moves",
        };
        RouteMoves { zone: name.0, route: name.1, change: change.into(), ipv4, ipv6, queries }
    });
    let routes = routes.collect();
    let logged = logged.map(|logged| {
        let mut total = Tally::default();
        by_queries.iter().flatten().for_each(|(_, tally)| total.merge(tally));
        logged.told(networks(&total, &old.plan, &new.plan).into())
    });
    Ok(told(logged, routes))
}

/// The routes of both worlds by zone and label, those of the new one first.
fn paired<'w>(old: &'w World, new: &'w World) -> Vec<((String, String), Pair<'w>)> {
    let mut olds: BTreeMap<(String, String), &Route> =
        old.plan.routes.iter().map(|route| (name_of(old, route), route)).collect();
    let mut named: Vec<((String, String), Pair)> = Vec::new();
    for route in &new.plan.routes {
        let name = name_of(new, route);
        let before = olds.remove(&name);
        named.push((name, Pair { before, after: Some(route) }));
    }
    named.extend(olds.into_iter().map(|(name, route)| (name, Pair { before: Some(route), after: None })));
    named
}

/// Many networks are in one place: its estimates are made once, before and after, and those of a measured network once more.
struct Estimates<'w> {
    worlds: [&'w World; 2],
    known: RefCell<Known>,
    rooms: [RefCell<Room>; 2],
}

impl Estimates<'_> {
    fn ms(&self, address: IpAddr, place: &Place, region: RegionId, is_after: bool) -> Option<f32> {
        let side = usize::from(is_after);
        let World { estimator, asns, .. } = self.worlds[side];
        let asn = asns.as_ref().and_then(|asns| asns.lookup(address));
        let (at, client) = (place.coordinates?, estimator.client(address, asn));
        let mut known = self.known.borrow_mut();
        let ms = known
            .entry((at.latitude.to_bits(), at.longitude.to_bits(), place.country, place.continent, client, is_after))
            .or_insert_with(|| {
                let mut ms = vec![f32::INFINITY; estimator.sites().len()];
                estimator.fill(place, client, &mut self.rooms[side].borrow_mut(), &mut ms);
                ms
            });
        ms.get(region.index()).copied().filter(|ms| ms.is_finite())
    }
}

/// Estimates by place, what is known of the network besides, and side.
type Known = HashMap<(u32, u32, Option<CountryCode>, Option<Continent>, Client, bool), Vec<f32>>;

fn name_of(world: &World, route: &Route) -> (String, String) {
    (world.config.zones[route.zone].origin.to_string(), route.label.clone())
}

/// What a route's answers follow from, but for the hash that sets apart routes with draws.
fn shape(route: Option<&Route>) -> String {
    let Some(route) = route else { return "none".into() };
    let pools: Vec<_> = route.regions.iter().map(|region| (region, route.pool(*region))).collect();
    let weights: Vec<u32> = match &route.ranking {
        RankBy::Draw(draws) => draws.iter().map(|(_, weight)| *weight).collect(),
        RankBy::Latency | RankBy::Order => Vec::new(),
    };
    let ranking = std::mem::discriminant(&route.ranking);
    format!("{} {ranking:?} {weights:?} {pools:?} {:?} {:?}", route.map, route.rules, route.when_all_down)
}

fn networks(tally: &Tally, old: &Plan, new: &Plan) -> NetworkMoves {
    let before_name = |region: &Option<RegionId>| region.map(|region| old.region_names[region.index()].clone());
    let after_name = |region: &Option<RegionId>| region.map(|region| new.region_names[region.index()].clone());
    let total: f64 = tally.flows.values().map(|flow| flow.weight).sum();
    let share = |networks: f64| if total > 0.0 { networks / total } else { 0.0 };
    let mut all = Flow::default();
    let mut regions: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    let (mut list, mut lost) = (Vec::new(), 0.0);
    for ((from, to), flow) in &tally.flows {
        let (from, to) = (before_name(from), after_name(to));
        if let Some(name) = &from {
            regions.entry(name.clone()).or_default().0 += share(flow.weight);
        }
        if let Some(name) = &to {
            regions.entry(name.clone()).or_default().1 += share(flow.weight);
        }
        all.estimated += flow.estimated;
        all.before_ms += flow.before_ms;
        all.after_ms += flow.after_ms;
        if from == to {
            continue;
        }
        if from.is_some() && to.is_none() {
            lost += share(flow.weight);
        }
        let means = flow.means_ms();
        list.push(Move {
            from,
            to,
            networks: flow.weight,
            share: share(flow.weight),
            before_ms: means.map(|(before, _)| before),
            after_ms: means.map(|(_, after)| after),
        });
    }
    list.sort_by(|a, b| b.share.total_cmp(&a.share));
    let means = all.means_ms();
    NetworkMoves {
        networks: total,
        moved: list.iter().filter(|one| one.from.is_some() && one.to.is_some()).map(|one| one.share).sum(),
        lost,
        before_ms: means.map(|(before, _)| before),
        after_ms: means.map(|(_, after)| after),
        regions: regions.into_iter().map(|(region, (before, after))| RegionShare { region, before, after }).collect(),
        moves: list,
    }
}
