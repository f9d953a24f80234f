//! Why a client gets the answer that it gets. The answer itself is made by the core, from a real query; this adds what the core
//! knew on the way: the place, the milliseconds to every region, health, rule.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use hickory_proto::{
    op::Message,
    rr::{
        RData, RecordType,
        rdata::opt::{EdnsCode, EdnsOption},
    },
    serialize::binary::BinDecodable,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    Arrival, Core, Verdict,
    way::{family_asked, find_route},
};
use crate::{
    config::{
        Config,
        model::{ClientMatch, RegionId},
    },
    geo::{AsnTable, Locations, Place},
    latency::{Estimator, estimator::Room},
    routing::{
        Family, Snapshot,
        plan::{Pool, RankBy, Route},
        policy::{self, Client, Decision, Outcome, RankedBy, Reason},
        standing::Standing,
    },
    telemetry::{Registry, TransportKind},
    wire::{Ecs, Name, QName, rtype},
};

/// What is to be explained.
#[derive(Debug, Clone)]
pub struct Request {
    /// Name asked for.
    pub name: Name,
    /// Type asked for.
    pub qtype: u16,
    /// The client's address or network, as it would come in an ECS option; `None`: a query without ECS from this very host.
    pub client: Option<IpNet>,
}

/// What the explanation is made from.
pub struct World<'w> {
    /// What queries read now.
    pub snapshot: &'w Snapshot,
    /// The configuration behind it.
    pub config: &'w Config,
    /// Places of addresses.
    pub locations: &'w Locations,
    /// Autonomous systems.
    pub asns: Option<&'w AsnTable>,
    /// The round trips to expect.
    pub estimator: &'w Estimator,
    /// What no snapshot tells.
    pub circumstances: &'w Circumstances<'w>,
    /// Unix time in seconds.
    pub now_s: u64,
    /// Seconds since the ages in the estimates were taken.
    pub measured_ago_s: u64,
}

/// What people want to know and answers do not need.
pub struct Circumstances<'c> {
    /// What is wrong with a pool's endpoints; `None` when nothing is.
    pub trouble: &'c dyn Fn(&Pool) -> Option<String>,
    /// How the servers of a cluster see a pool's endpoints, one line each; none when this server stands alone.
    pub seen: &'c dyn Fn(&Pool) -> Vec<SeenEndpoint>,
    /// The override of a region, if an operator set one: its state and reason.
    pub forced: &'c dyn Fn(RegionId) -> Option<(&'static str, String)>,
}

impl Circumstances<'static> {
    /// Nothing is known.
    pub const NONE: Circumstances<'static> =
        Circumstances { trouble: &|_| None, seen: &|_| Vec::new(), forced: &|_| None };
}

/// The reason of a candidate that is not ranked, because the rule that matched does not allow it.
pub const LEFT_OUT: &str = "left out by the rule";

/// Why a client gets the answer that it gets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Name asked for, with the final dot.
    pub name: String,
    /// Type asked for.
    #[serde(rename = "type")]
    pub qtype: String,
    /// Who asks and where that is.
    pub client: ClientView,
    /// The zone that answers; `None`: outside all zones.
    pub zone: Option<String>,
    /// The route at the end of the name's way, as written in the configuration.
    pub route: Option<String>,
    /// The conditions of the rule that matched.
    pub rule: Option<String>,
    /// The route's policy.
    pub policy: Option<String>,
    /// The route's regions: the allowed ones as ranked, then those that the rule leaves out.
    pub candidates: Vec<Candidate>,
    /// The region that answers.
    pub chosen: Option<String>,
    /// The region that would answer if that one failed; `None`: no other can.
    #[serde(default)]
    pub next: Option<String>,
    /// The data of the answer section's records.
    pub answer: Vec<String>,
    /// TTL of the answer (of a negative one: its SOA's) in seconds.
    pub ttl: Option<u32>,
    /// ECS scope prefix length of the reply.
    pub scope: Option<u8>,
    /// Response code, e.g. `NOERROR`.
    pub rcode: String,
}

/// Who asks and where that is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientView {
    /// The address that is located.
    pub address: String,
    /// The network that it stands for.
    pub prefix: String,
    /// ISO 3166-1 country code.
    pub country: Option<String>,
    /// Autonomous system.
    pub asn: Option<u32>,
    /// Degrees north.
    pub latitude: Option<f32>,
    /// Degrees east.
    pub longitude: Option<f32>,
    /// What the place is known from; `none` when it is unknown.
    pub source: String,
}

/// A region of the route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its name.
    pub region: String,
    /// Estimated round trip in milliseconds, bias and penalty included; `None`: the client's place is unknown.
    pub estimate_ms: Option<f32>,
    /// What the estimate comes from.
    pub source: Option<String>,
    /// Samples behind it.
    pub samples: u32,
    /// Age of the newest of them in seconds.
    pub age_s: Option<u64>,
    /// Standard deviation of the estimate in milliseconds.
    pub uncertainty_ms: Option<f32>,
    /// By how much it is above the lowest estimate of the candidates that are ranked, in milliseconds; `None` where they are not
    /// ranked by estimates.
    pub margin_ms: Option<f32>,
    /// What is in the estimate because connecting to the region takes longer than usual, in milliseconds.
    #[serde(default)]
    pub penalty_ms: f32,
    /// What is in the estimate because the cables lead there by a longer way than the distance tells, in milliseconds.
    #[serde(default)]
    pub detour_ms: f32,
    /// Great-circle distance.
    pub distance_km: Option<f64>,
    /// It is usable for this question.
    pub healthy: bool,
    /// Its override, if an operator set one.
    pub forced: Option<String>,
    /// Why it was chosen or not.
    pub reason: String,
    /// How the servers of a cluster see its endpoints; none when the server that is asked stands alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<SeenEndpoint>,
}

/// How the servers of a cluster see an endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeenEndpoint {
    /// Address or name.
    pub endpoint: String,
    /// What they see together, in words; `None`: the server goes by its own view.
    pub consensus: Option<String>,
    /// By server: `up`, `down`, `held` or `untried`, with `, does not count` where the view is old or the server abstains.
    pub by: BTreeMap<String, String>,
}

/// Explains one answer.
pub fn explain(world: &World, request: &Request) -> Explanation {
    let mut explanation = answer(world, request);
    let (address, _) = client_address(request);
    explanation.client = client_view(world, request);
    let (zones, plan) = (&world.snapshot.zones, &world.snapshot.plan);
    if let Some((index, route)) = find_route(zones, plan, &request.name, request.qtype) {
        let family = family_asked(route, request.qtype);
        let client = Client { address, resolver: RESOLVER };
        let decision = policy::decide(&world.snapshot.plan, &world.snapshot.health, route, family, client);
        explanation.route = Some(route.label.clone());
        explanation.policy = Some(policy_name(&route.ranking).to_string());
        explanation.rule = rule_text(world.config, index, route, &decision);
        if let Outcome::Region { region, .. } = decision.outcome {
            explanation.chosen = Some(world.config.regions[region.index()].name.clone());
            explanation.next = next(world, route, family, &decision, region);
        }
        explanation.candidates = candidates(world, route, family, &decision, address);
    }
    explanation
}

/// Stands for a resolver of unknown place.
const RESOLVER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn client_address(request: &Request) -> (IpAddr, Option<Ecs>) {
    match request.client {
        Some(net) => {
            let ecs = Ecs { address: net.network(), source_len: net.prefix_len() };
            (if net.prefix_len() > 0 { net.network() } else { RESOLVER }, Some(ecs))
        }
        None => (RESOLVER, None),
    }
}

/// Puts the question to the core, with counters of its own.
fn answer(world: &World, request: &Request) -> Explanation {
    let query = query_bytes(request);
    let counters = Registry::new().register();
    let mut out = vec![0; 65_535];
    let arrival = Arrival { client: RESOLVER, transport: TransportKind::Tcp, now_s: world.now_s };
    let verdict = Core::off_the_record(counters, world.snapshot).respond(&query, arrival, world.snapshot, &mut out);
    let zone = world.snapshot.zones.find(&QName::from_name(&request.name), request.qtype);
    let mut explanation = Explanation {
        name: request.name.to_string(),
        qtype: RecordType::from(request.qtype).to_string(),
        client: client_view(world, request),
        zone: zone.map(|zone| zone.origin.to_string()),
        route: None,
        rule: None,
        policy: None,
        candidates: Vec::new(),
        chosen: None,
        next: None,
        answer: Vec::new(),
        ttl: None,
        scope: None,
        rcode: String::new(),
    };
    let Verdict::Send(len) = verdict else { return explanation };
    if let Ok(message) = Message::from_bytes(&out[..len]) {
        explanation.scope = scope_of(&message);
        explanation.rcode = rcode_name(message.metadata.response_code);
        explanation.answer = message.answers.iter().map(|record| shown(&record.data)).collect();
        let ttls = message.answers.iter().map(|record| record.ttl).min();
        explanation.ttl = ttls.or_else(|| message.authorities.iter().map(|record| record.ttl).min());
    }
    explanation
}

fn rcode_name(code: hickory_proto::op::ResponseCode) -> String {
    match u16::from(code) {
        0 => "NOERROR".into(),
        1 => "FORMERR".into(),
        2 => "SERVFAIL".into(),
        3 => "NXDOMAIN".into(),
        4 => "NOTIMP".into(),
        5 => "REFUSED".into(),
        6 => "YXDOMAIN".into(),
        n => format!("RCODE{n}"),
    }
}

/// A record's data as text: DNAME, which the library does not know, by ourselves, other unknown types by RFC 3597 §5.
fn shown(data: &RData) -> String {
    let RData::Unknown { code, rdata } = data else { return data.to_string() };
    let bytes = &rdata.anything;
    match Name::from_wire(bytes) {
        Ok(target) if u16::from(*code) == rtype::DNAME => target.to_string(),
        _ => format!("\\# {} {}", bytes.len(), bytes.iter().map(|b| format!("{b:02x}")).collect::<String>()),
    }
}

/// The scope of the reply's ECS option.
fn scope_of(message: &Message) -> Option<u8> {
    match message.edns.as_ref()?.options().get(EdnsCode::Subnet)? {
        EdnsOption::Subnet(subnet) => Some(subnet.scope_prefix()),
        _ => None,
    }
}

fn query_bytes(request: &Request) -> Vec<u8> {
    let (_, ecs) = client_address(request);
    let mut query = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(ecs.is_some())];
    query.extend(request.name.as_wire());
    query.extend(request.qtype.to_be_bytes());
    query.extend([0, 1]);
    if let Some(ecs) = ecs {
        let mut option = [0; 24];
        let len = ecs.write(0, &mut option);
        query.extend([0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, len as u8]);
        query.extend(&option[..len]);
    }
    query
}

fn client_view(world: &World, request: &Request) -> ClientView {
    let (address, _) = client_address(request);
    let place = world.locations.lookup(address);
    let coordinates = place.and_then(|place| place.coordinates);
    let prefix = request.client.unwrap_or_else(|| IpNet::from(address));
    ClientView {
        address: address.to_string(),
        prefix: prefix.trunc().to_string(),
        country: place.and_then(|place| place.country).map(|country| country.to_string()),
        asn: world.asns.and_then(|asns| asns.lookup(address)),
        latitude: coordinates.map(|c| c.latitude),
        longitude: coordinates.map(|c| c.longitude),
        source: match place {
            None => "none".into(),
            Some(_) if world.config.geo.databases.is_empty() => "built-in".into(),
            Some(_) => "database".into(),
        },
    }
}

/// Who would answer if `chosen` failed: of the others the first with the best standing, if any of them can.
fn next(world: &World, route: &Route, family: Family, decision: &Decision, chosen: RegionId) -> Option<String> {
    let (plan, health) = (&world.snapshot.plan, &world.snapshot.health);
    let ranked = policy::ranking(plan, health, route, decision.rule, decision.ranked_by, decision.network_hash);
    let others = ranked.filter(|region| *region != chosen).filter_map(|region| {
        let id = route.pool(region).filter(|id| policy::pool(plan, *id).size(family) > 0)?;
        let standing = health.pool(id).standing(family);
        (standing < Standing::Failed).then_some((standing, region))
    });
    // Of equal ones the first stays.
    let (_, region) = others.min_by_key(|(standing, _)| *standing)?;
    Some(world.config.regions[region.index()].name.clone())
}

fn policy_name(ranking: &RankBy) -> &'static str {
    match ranking {
        RankBy::Latency => "latency",
        RankBy::Order => "failover",
        RankBy::Draw(_) => "weighted",
    }
}

fn rule_text(config: &Config, index: usize, route: &Route, decision: &Decision) -> Option<String> {
    let rule = usize::from(decision.rule?);
    let before: usize = config.zones[..route.zone].iter().map(|zone| zone.routes.len()).sum();
    let clients = &config.zones[route.zone].routes[index - before].rules[rule].clients;
    Some(clients.iter().map(client_text).collect::<Vec<_>>().join(", "))
}

fn client_text(client: &ClientMatch) -> String {
    match client {
        ClientMatch::Continent(continent) => format!("continent:{}", continent.code()),
        ClientMatch::Country(country) => format!("country:{country}"),
        ClientMatch::Asn(asn) => format!("asn:{asn}"),
        ClientMatch::Prefix(prefix) => prefix.to_string(),
    }
}

fn candidates(world: &World, route: &Route, family: Family, decision: &Decision, address: IpAddr) -> Vec<Candidate> {
    let (plan, health) = (&world.snapshot.plan, &world.snapshot.health);
    let place: Option<Place> = world.locations.lookup(address);
    let asn = world.asns.and_then(|asns| asns.lookup(address));
    let client = world.estimator.client(address, asn);
    let estimates = world.estimator.estimates(&place.unwrap_or_default(), client, &mut Room::default());
    let estimate_of = |region: &RegionId| estimates.as_ref().and_then(|estimates| estimates[region.index()]);
    let ranked: Vec<RegionId> =
        policy::ranking(plan, health, route, decision.rule, decision.ranked_by, decision.network_hash).collect();
    let lowest_ms = ranked.iter().filter_map(|region| Some(estimate_of(region)?.ms)).reduce(f32::min);
    let left_out = route.regions.iter().filter(|region| !ranked.contains(region));
    let mut is_after_chosen = false;
    ranked
        .iter()
        .chain(left_out)
        .map(|region| {
            let pool = route.pool(*region);
            let standing = pool.map_or(Standing::Out, |pool| health.pool(pool).standing(family));
            let usable = standing <= Standing::Drained;
            let estimate = estimate_of(region);
            let is_first = ranked.first() == Some(region);
            let margin_ms = estimate
                .zip(lowest_ms)
                .filter(|_| ranked.contains(region) && matches!(decision.ranked_by, RankedBy::Place(_)))
                .map(|(estimate, lowest_ms)| estimate.ms - lowest_ms);
            let trouble = pool.and_then(|pool| (world.circumstances.trouble)(policy::pool(plan, pool)));
            let forced = (world.circumstances.forced)(*region);
            let has_family = pool.is_some_and(|pool| policy::pool(plan, pool).size(family) > 0);
            let is_chosen = matches!(decision.outcome, Outcome::Region { region: chosen, .. } if chosen == *region);
            let reason = match decision.outcome {
                _ if !ranked.contains(region) => LEFT_OUT.to_string(),
                _ if !has_family => format!("no {} endpoint", if family == Family::V4 { "IPv4" } else { "IPv6" }),
                Outcome::Region { reason: Reason::Best, .. } if is_chosen && is_first && margin_ms > Some(0.0) => {
                    NEAR_ENOUGH.to_string()
                }
                Outcome::Region { reason, .. } if is_chosen => chosen_because(reason, decision.ranked_by).to_string(),
                _ if standing == Standing::Out => "never answers".to_string(),
                _ if standing == Standing::Drained => "answers only when no other region is usable".to_string(),
                _ if !usable => format!("down: {}", trouble.unwrap_or_else(|| "too few endpoints are up".into())),
                _ if is_after_chosen => "ranked after the chosen one".to_string(),
                _ => "usable".to_string(),
            };
            let reason = match &forced {
                Some((state, why)) if why.is_empty() => format!("{reason} (forced {state})"),
                Some((state, why)) => format!("{reason} (forced {state}: {why})"),
                None => reason,
            };
            is_after_chosen |= is_chosen;
            Candidate {
                region: world.config.regions[region.index()].name.clone(),
                estimate_ms: estimate.map(|e| e.ms),
                source: estimate.map(|e| e.source.as_str().to_string()),
                samples: estimate.map_or(0, |e| e.samples),
                age_s: estimate.and_then(|e| e.age_s).map(|age_s| age_s + world.measured_ago_s),
                uncertainty_ms: estimate.map(|e| e.uncertainty_ms),
                margin_ms,
                detour_ms: estimate.map_or(0.0, |e| e.detour_ms),
                penalty_ms: world.estimator.sites()[region.index()].penalty_ms(),
                distance_km: estimate.and_then(|e| e.distance_km),
                healthy: usable,
                forced: forced.map(|(state, _)| state.into()),
                reason,
                seen: pool.map(|pool| (world.circumstances.seen)(policy::pool(plan, pool))).unwrap_or_default(),
            }
        })
        .collect()
}

/// The reason of a region that is ranked first and has not the lowest estimate.
const NEAR_ENOUGH: &str = "chosen: near enough to the lowest estimate (hysteresis)";

fn chosen_because(reason: Reason, ranked_by: RankedBy) -> &'static str {
    match (reason, ranked_by) {
        (Reason::Best, RankedBy::Place(_)) => "chosen: lowest estimate",
        (Reason::Best, RankedBy::ResolverPlace(_)) => {
            "chosen: lowest estimate for the resolver, the client's place is unknown"
        }
        (Reason::Best, RankedBy::Fallback) => {
            "chosen: the client's place is unknown, nearest to this server or first in the file"
        }
        (Reason::Best, RankedBy::Order) => "chosen: first in the list",
        (Reason::Best, RankedBy::Draw) => "chosen: by weight",
        (Reason::Failover, _) => "chosen: those ranked before it are not usable",
        (Reason::LastResort, _) => "chosen although it is held down: no other region is usable",
        (Reason::Drained, _) => "chosen although it is drained: no other region is usable",
        (Reason::AllDown, _) => {
            "chosen: no region is usable, so the first of the ranking answers with all its endpoints"
        }
    }
}

/// A network from text: an address, or an address with a prefix length. The address's bits beyond the length are cleared.
///
/// # Errors
/// What is wrong with the text, for people.
pub fn parse_client(text: &str) -> Result<IpNet, String> {
    let hint = "write an address like 203.0.113.7, or with a prefix length: 203.0.113.0/24";
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(IpNet::from(address)),
        Err(_) => {
            text.parse::<IpNet>().map(|net| net.trunc()).map_err(|_| format!("`{text}` is no client address; {hint}"))
        }
    }
}

/// A record type from its name (`A`, `aaaa`, `TYPE65`).
///
/// # Errors
/// When there is no such type.
pub fn parse_qtype(text: &str) -> Result<u16, String> {
    let upper = text.to_ascii_uppercase();
    if let Some(number) = upper.strip_prefix("TYPE").and_then(|n| n.parse().ok()) {
        return Ok(number);
    }
    upper
        .parse::<RecordType>()
        .map(u16::from)
        .map_err(|_| format!("`{text}` is no record type; write A, AAAA, CNAME or TYPEnnn"))
}
