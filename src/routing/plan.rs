//! Routes and endpoint pools as queries use them: everything that does not change with health.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use super::{
    build::{MapRule, MapSpec},
    hash::{RouteKey, region_salt},
    map::ClientMap,
    policy::Reason,
};
use crate::{
    config::{
        Config,
        model::{Endpoints, MinHealthy, Policy, RegionId, Route as RouteConfig, WhenAllDown},
    },
    health::{Check, Endpoint},
    telemetry::counters::AnswerLabels,
    wire::Name,
    zone::{Https, ZoneContent},
};

/// Address families of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// A.
    V4,
    /// AAAA.
    V6,
    /// HTTPS: hints of both families, from a region that has either.
    Either,
}

impl Family {
    /// All of them, in the order of their numbers.
    pub const ALL: [Family; 3] = [Family::V4, Family::V6, Family::Either];
}

/// A pool by its position in [`Plan::pools`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolId(pub u32);

/// All routes of a configuration, their endpoints and their maps.
pub struct Plan {
    /// Routes: zone by zone, in file order; numbered as the compiled zones number them.
    pub routes: Vec<Route>,
    /// Distinct sets of endpoints with their check.
    pub pools: Vec<Pool>,
    /// Compiled maps, shared by the routes that have the same regions and rules.
    pub maps: Vec<ClientMap>,
    /// Names of the regions.
    pub region_names: Vec<String>,
    /// What is added to each region's estimates, in milliseconds.
    pub region_bias_ms: Vec<f32>,
    /// What is probed for the pools.
    pub targets: Vec<(Endpoint, Arc<Check>)>,
    /// By target: the pools that have it.
    pub pools_of_target: Vec<Vec<PoolId>>,
}

/// One route.
#[derive(Clone)]
pub struct Route {
    /// Its zone, by position.
    pub zone: usize,
    /// Its owner.
    pub owner: Name,
    /// The owner as written.
    pub label: String,
    /// Allowed regions, in list order.
    pub regions: Vec<RegionId>,
    /// How they are ranked.
    pub ranking: RankBy,
    /// The regions that each rule leaves, in list order.
    pub rules: Vec<Vec<RegionId>>,
    /// The map that knows rules and rankings.
    pub map: usize,
    /// The map without rules, asked for the resolver's place when the client's own is unknown.
    pub resolver_map: Option<usize>,
    /// By region: its pool on this route.
    pools: Vec<Option<PoolId>>,
    /// A and AAAA, or a CNAME.
    pub kind: RouteKind,
    /// TTL of its answers in seconds.
    pub ttl_s: u32,
    /// Most addresses in an answer.
    pub max_answers: usize,
    /// What to do when nothing is usable.
    pub when_all_down: WhenAllDown,
    /// Its HTTPS record.
    pub https: Option<Https>,
    /// Key of its hashes.
    pub key: RouteKey,
    /// Without a rule, then by rule; by family (for names both alike): what the answers depend on.
    dependence: Vec<[Dependence; 3]>,
    /// Its first answer counter; see [`Route::answer_slot`].
    answer_base: usize,
}

/// What a route answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    /// A and AAAA records.
    Addresses,
    /// A CNAME record.
    Names,
}

/// How a route ranks its regions.
#[derive(Debug, Clone, PartialEq)]
pub enum RankBy {
    /// By the map's ranking.
    Latency,
    /// In list order.
    Order,
    /// By weighted draw; salt and weight of each allowed region, in list order.
    Draw(Vec<(u64, u32)>),
}

/// What a route's answers in one family depend on, whatever the health: this decides the scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dependence {
    /// Some allowed region has endpoints of the family.
    pub exists: bool,
    /// More than one has: the client's place matters.
    pub by_region: bool,
    /// Hashes of the client's /24 or /48 matter: the policy draws, or a region has more endpoints than fit.
    pub by_network: bool,
}

/// Endpoints of a region on a route, with their check.
#[derive(Debug, Clone)]
pub struct Pool {
    /// The region.
    pub region: RegionId,
    /// IPv4 endpoints.
    pub v4: Ring<[u8; 4]>,
    /// IPv6 endpoints.
    pub v6: Ring<[u8; 16]>,
    /// The one name, for a CNAME.
    pub name: Option<Name>,
    /// All endpoints in order, with their probe target where they are probed.
    pub members: Vec<Member>,
    /// How many must be up.
    pub min_healthy: MinHealthy,
    /// How long a doubt lasts per open count.
    pub check: Option<Arc<Check>>,
}

/// An endpoint of a pool.
#[derive(Debug, Clone)]
pub struct Member {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Its position in [`Plan::targets`]; `None` without a check.
    pub target: Option<usize>,
}

/// Addresses of one family in order, with the running sum of their weights: a ring on which windows begin.
#[derive(Debug, Clone, Default)]
pub struct Ring<A> {
    /// Address, position in [`Pool::members`], and the weights up to and including this one.
    pub slots: Vec<Slot<A>>,
}

/// A place on a ring.
#[derive(Debug, Clone, Copy)]
pub struct Slot<A> {
    /// The address in network order.
    pub address: A,
    /// Position in [`Pool::members`].
    pub member: usize,
    /// Sum of the weights up to and including this one.
    pub weight_sum: u64,
}

impl<A> Ring<A> {
    fn push(&mut self, address: A, member: usize, weight: u32) {
        let before = self.slots.last().map_or(0, |slot| slot.weight_sum);
        self.slots.push(Slot { address, member, weight_sum: before + u64::from(weight) });
    }

    /// Where the window `n` of `windows` begins: windows are spread evenly over the weights, so an endpoint begins as many of
    /// them as its weight is worth.
    pub fn window_start(&self, n: u32, windows: u32) -> usize {
        let total = self.slots.last().map_or(0, |slot| slot.weight_sum);
        if total == 0 {
            return (n as usize * self.slots.len()) / windows as usize;
        }
        let point = (2 * u64::from(n) + 1) * total / (2 * u64::from(windows));
        self.slots.partition_point(|slot| slot.weight_sum <= point).min(self.slots.len() - 1)
    }
}

impl Route {
    /// The pool of a region on this route.
    pub fn pool(&self, region: RegionId) -> Option<PoolId> {
        self.pools.get(region.index()).copied().flatten()
    }

    /// The answer counter of a region (one of the route's) and a reason.
    pub fn answer_slot(&self, region: RegionId, reason: Reason) -> usize {
        let position = self.regions.iter().position(|r| *r == region).unwrap_or(0);
        self.answer_base + position * Reason::ALL.len() + reason as usize
    }

    /// What the answers depend on for clients that match a rule (or none).
    pub fn dependence(&self, rule: Option<u16>, family: Family) -> Dependence {
        self.dependence[rule.map_or(0, |rule| usize::from(rule) + 1)][family as usize]
    }

    /// The regions that a rule leaves, or all of the route's.
    pub fn allowed(&self, rule: Option<u16>) -> &[RegionId] {
        rule.map_or(&self.regions, |rule| &self.rules[usize::from(rule)])
    }
}

impl Plan {
    /// The same routes and pools with other maps, in the same order.
    pub fn with_maps(&self, maps: Vec<ClientMap>) -> Plan {
        Plan {
            routes: self.routes.clone(),
            pools: self.pools.clone(),
            maps,
            region_names: self.region_names.clone(),
            region_bias_ms: self.region_bias_ms.clone(),
            targets: self.targets.clone(),
            pools_of_target: self.pools_of_target.clone(),
        }
    }

    /// The labels of the answer counters, in the order of [`Route::answer_slot`]. With very many routes they are not told apart.
    pub fn answer_labels(&self, config: &Config) -> Vec<AnswerLabels> {
        let zones: Vec<Arc<str>> =
            config.zones.iter().map(|zone| zone.origin.to_string().trim_end_matches('.').into()).collect();
        let regions: Vec<Arc<str>> = self.region_names.iter().map(|name| name.as_str().into()).collect();
        let mut labels = Vec::new();
        for route in &self.routes {
            let label: Option<Arc<str>> = (self.routes.len() <= ROUTE_LABELS_MAX).then(|| route.label.as_str().into());
            for region in &route.regions {
                labels.extend(Reason::ALL.map(|reason| AnswerLabels {
                    zone: zones[route.zone].clone(),
                    route: label.clone(),
                    region: regions[region.index()].clone(),
                    reason: reason.as_str(),
                }));
            }
        }
        labels
    }
}

/// Above so many routes the answer counters carry no route label: every label is a time series.
const ROUTE_LABELS_MAX: usize = 1000;

/// A plan whose maps are yet to be compiled: `maps` of the plan is empty, and the specifications say what belongs there.
pub struct Draft {
    /// The plan without maps.
    pub plan: Plan,
    /// What to compile, in the order that the routes count on.
    pub specs: Vec<MapSpec>,
}

impl Draft {
    /// Works out routes, pools, targets and the maps that they need.
    ///
    /// `contents` are those of the configuration's zones, in its order.
    pub fn new(config: &Config, contents: &[ZoneContent]) -> Draft {
        let mut drafting = Drafting {
            config,
            pools: Vec::new(),
            pool_ids: HashMap::new(),
            targets: Vec::new(),
            target_ids: HashMap::new(),
            specs: Vec::new(),
            spec_ids: HashMap::new(),
        };
        let mut routes = Vec::new();
        let mut answer_base = 0;
        for (zone, (zone_config, content)) in config.zones.iter().zip(contents).enumerate() {
            for (route, content) in zone_config.routes.iter().zip(&content.routes) {
                routes.push(drafting.route(zone, route, content.https.clone(), answer_base));
                answer_base += route.regions.len() * Reason::ALL.len();
            }
        }
        // Regions that no route uses as they stand are probed all the same: their state is shown, and a reload may use them.
        for (index, region) in config.regions.iter().enumerate() {
            drafting.pool(RegionId(index as u8), &region.endpoints, region.check.as_ref());
        }
        let Drafting { pools, targets, specs, .. } = drafting;
        let region_bias_ms = config.regions.iter().map(|region| region.bias_ms).collect();
        let region_names = config.regions.iter().map(|region| region.name.clone()).collect();
        let mut pools_of_target = vec![Vec::new(); targets.len()];
        for (id, pool) in pools.iter().enumerate() {
            for target in pool.members.iter().filter_map(|member| member.target) {
                pools_of_target[target].push(PoolId(id as u32));
            }
        }
        let maps = Vec::new();
        Draft { plan: Plan { routes, pools, maps, region_names, region_bias_ms, targets, pools_of_target }, specs }
    }
}

struct Drafting<'c> {
    config: &'c Config,
    pools: Vec<Pool>,
    pool_ids: HashMap<(RegionId, Endpoints, Option<Arc<Check>>), PoolId>,
    targets: Vec<(Endpoint, Arc<Check>)>,
    target_ids: HashMap<(Endpoint, Arc<Check>), usize>,
    specs: Vec<MapSpec>,
    spec_ids: HashMap<MapSpec, usize>,
}

impl Drafting<'_> {
    fn route(&mut self, zone: usize, route: &RouteConfig, https: Option<Https>, answer_base: usize) -> Route {
        let mut pools = vec![None; self.config.regions.len()];
        for region in &route.regions {
            let (endpoints, check) = route.pool(self.config, *region);
            pools[region.index()] = Some(self.pool(*region, endpoints, check));
        }
        let rules: Vec<MapRule> = route.rules.iter().map(MapRule::from).collect();
        let ranked = (route.policy == Policy::Latency).then(|| route.regions.clone());
        let resolver_map = (ranked.is_some() && !rules.is_empty())
            .then(|| self.spec(MapSpec { ranked: ranked.clone(), rules: Vec::new() }));
        // Rules of the other policies fix the allowed regions by themselves: the map only says which rule it is.
        let map = self.spec(MapSpec { ranked, rules });
        let names =
            route.regions.iter().any(|r| self.pools[pools[r.index()].expect("set above").0 as usize].name.is_some());
        let allowed = std::iter::once(&route.regions).chain(route.rules.iter().map(|rule| &rule.regions));
        let dependence = allowed
            .enumerate()
            .map(|(n, allowed)| {
                let all_alike = n == 0 && route.rules.is_empty();
                Family::ALL.map(|family| self.dependence(route, &pools, allowed, all_alike, family))
            })
            .collect();
        Route {
            zone,
            owner: route.owner.clone(),
            label: route.label.clone(),
            regions: route.regions.clone(),
            ranking: self.rank_by(route),
            rules: route.rules.iter().map(|rule| rule.regions.clone()).collect(),
            map,
            resolver_map,
            pools,
            kind: if names { RouteKind::Names } else { RouteKind::Addresses },
            ttl_s: route.ttl_s,
            max_answers: usize::from(route.max_answers),
            when_all_down: route.when_all_down,
            https,
            key: RouteKey::of_owner(route.owner.as_wire()),
            dependence,
            answer_base,
        }
    }

    fn rank_by(&self, route: &RouteConfig) -> RankBy {
        match &route.policy {
            Policy::Latency => RankBy::Latency,
            Policy::Failover => RankBy::Order,
            Policy::Weighted(weights) => {
                let salt = |region: &RegionId| region_salt(&self.config.regions[region.index()].name);
                RankBy::Draw(route.regions.iter().map(salt).zip(weights.iter().copied()).collect())
            }
        }
    }

    /// For the clients that are left `allowed`. Where other clients are left other regions, the rule alone makes the client
    /// matter, unless the whole route has one region of the family.
    fn dependence(
        &self,
        route: &RouteConfig,
        pools: &[Option<PoolId>],
        allowed: &[RegionId],
        all_alike: bool,
        family: Family,
    ) -> Dependence {
        let has_family =
            |region: &&RegionId| pools[region.index()].is_some_and(|pool| self.pools[pool.0 as usize].size(family) > 0);
        let in_route = route.regions.iter().filter(has_family).count();
        let sizes: Vec<usize> = allowed
            .iter()
            .filter_map(|region| pools[region.index()])
            .map(|pool| self.pools[pool.0 as usize].size(family))
            .filter(|size| *size > 0)
            .collect();
        let windowed = sizes.iter().any(|size| *size > usize::from(route.max_answers));
        let drawn = matches!(route.policy, Policy::Weighted(_)) && sizes.len() > 1;
        Dependence {
            exists: !sizes.is_empty(),
            by_region: if all_alike { sizes.len() > 1 } else { in_route > 1 },
            by_network: windowed || drawn,
        }
    }

    fn spec(&mut self, spec: MapSpec) -> usize {
        *self.spec_ids.entry(spec).or_insert_with_key(|spec| {
            self.specs.push(spec.clone());
            self.specs.len() - 1
        })
    }

    fn pool(&mut self, region: RegionId, endpoints: &Endpoints, check: Option<&Arc<Check>>) -> PoolId {
        let key = (region, endpoints.clone(), check.cloned());
        if let Some(id) = self.pool_ids.get(&key) {
            return *id;
        }
        let mut pool = Pool {
            region,
            v4: Ring::default(),
            v6: Ring::default(),
            name: None,
            members: Vec::new(),
            min_healthy: self.config.regions[region.index()].min_healthy,
            check: check.cloned(),
        };
        match endpoints {
            Endpoints::Name(name) => pool.name = Some(name.clone()),
            Endpoints::Addresses(list) => {
                for (member, entry) in list.iter().enumerate() {
                    match entry.address {
                        IpAddr::V4(v4) => pool.v4.push(v4.octets(), member, entry.weight),
                        IpAddr::V6(v6) => pool.v6.push(v6.octets(), member, entry.weight),
                    }
                }
            }
        }
        for endpoint in endpoints.targets() {
            let target = check.map(|check| self.target(endpoint.clone(), check));
            pool.members.push(Member { endpoint, target });
        }
        let id = PoolId(self.pools.len() as u32);
        self.pools.push(pool);
        self.pool_ids.insert(key, id);
        id
    }

    fn target(&mut self, endpoint: Endpoint, check: &Arc<Check>) -> usize {
        *self.target_ids.entry((endpoint, check.clone())).or_insert_with_key(|(endpoint, check)| {
            self.targets.push((endpoint.clone(), check.clone()));
            self.targets.len() - 1
        })
    }
}

impl Pool {
    /// Endpoints that can answer in a family (of either: those of the family that has more); a name answers in all.
    pub fn size(&self, family: Family) -> usize {
        match (family, &self.name) {
            (_, Some(_)) => 1,
            (Family::V4, None) => self.v4.slots.len(),
            (Family::V6, None) => self.v6.slots.len(),
            (Family::Either, None) => self.v4.slots.len().max(self.v6.slots.len()),
        }
    }
}
