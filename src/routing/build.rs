//! Compiling [`ClientMap`]s: walk the location data once, rank each place's regions, intern what is equal, merge neighbours.
//!
//! One walk feeds the maps of all routes. A place's estimates are worked out once and shared by them.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash},
    net::IpAddr,
};

use hashbrown::{DefaultHashBuilder, HashTable, hash_table};
use ipnet::IpNet;

pub use super::feed::Coverage;
use super::{
    feed::{Feed, Measured, Sites},
    map::{ClientMap, Entry, Rankings},
    overlay::{Overlay, Segment},
    ranges::{Bits, Range, RangeMap},
};
use crate::{
    config::model::{ClientMatch, RegionId, Rule},
    geo::{GeoError, Locations, Place, asn::AsnTable, special::embedded_v4},
    latency::Estimator,
};

/// One map to compile: what its rankings are made of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MapSpec {
    /// The regions to rank by latency where no rule matches; `None`: the policy ranks by itself and only rules matter.
    pub ranked: Option<Vec<RegionId>>,
    /// The rules, first match first.
    pub rules: Vec<MapRule>,
}

/// A rule as the map sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MapRule {
    /// Any of these makes it match.
    pub clients: Vec<ClientMatch>,
    /// The regions to rank where it matches.
    pub regions: Vec<RegionId>,
}

impl From<&Rule> for MapRule {
    fn from(rule: &Rule) -> Self {
        MapRule { clients: rule.clients.clone(), regions: rule.regions.clone() }
    }
}

impl MapSpec {
    fn has_place_rules(&self) -> bool {
        let by_place = |c: &ClientMatch| matches!(c, ClientMatch::Country(_) | ClientMatch::Continent(_));
        self.rules.iter().flat_map(|rule| &rule.clients).any(by_place)
    }

    fn needs_walk(&self) -> bool {
        self.ranked.is_some() || self.has_place_rules()
    }

    /// The first rule that a place matches by its country or continent.
    fn rule_of_place(&self, place: &Place) -> Option<u16> {
        let matches = |client: &ClientMatch| match client {
            ClientMatch::Country(country) => place.country == Some(*country),
            ClientMatch::Continent(continent) => place.continent == Some(*continent),
            ClientMatch::Asn(_) | ClientMatch::Prefix(_) => false,
        };
        self.rules.iter().position(|rule| rule.clients.iter().any(matches)).map(|index| index as u16)
    }

    fn regions_under(&self, rule: Option<u16>) -> &[RegionId] {
        match (&self.ranked, rule) {
            (None, _) => &[],
            (Some(_), Some(rule)) => &self.rules[usize::from(rule)].regions,
            (Some(all), None) => all,
        }
    }
}

/// Where the data comes from.
pub struct Sources<'s> {
    /// Places of addresses.
    pub locations: &'s Locations,
    /// Autonomous systems; needed by rules that name one.
    pub asns: Option<&'s AsnTable>,
    /// The round trips to expect.
    pub estimator: &'s Estimator,
    /// A range may take its neighbour's ranking where that costs it less than this, in milliseconds.
    pub switch_margin_ms: f32,
    /// A measured network keeps the region that it had unless another is better by more than this, in milliseconds.
    pub hysteresis_ms: f32,
    /// The region that a network had before, by the position of the map's specification, where it was measured to it.
    pub before: &'s Before<'s>,
}

/// See [`Sources::before`].
pub type Before<'s> = dyn Fn(usize, IpAddr) -> Option<RegionId> + 's;

/// What was compiled.
pub struct Built {
    /// The maps, in the order of their specifications.
    pub maps: Vec<ClientMap>,
    /// What the estimates rest on.
    pub coverage: Coverage,
}

/// Compiles the maps.
///
/// # Errors
/// What the location data or the table of autonomous systems has to report.
pub fn build(sources: &Sources, specs: &[MapSpec]) -> Result<Built, GeoError> {
    let mut tables: Vec<Tables> = specs.iter().map(|_| Tables::default()).collect();
    let needs_walk = specs.iter().any(MapSpec::needs_walk);
    let mut coverage = Coverage::default();

    let mut v4_builders = Vec::with_capacity(specs.len());
    for (index, spec) in specs.iter().enumerate() {
        v4_builders.push(RangeBuilder::<u32>::new(sources, index, spec, v4_overlay(spec, sources.asns)?));
    }
    if needs_walk {
        let mut feed = Feed::v4(sources.estimator, sources.asns)?;
        let mut each = |first: u128, last: u128, id: u32, sites: &Sites<'_>| {
            for (builder, tables) in v4_builders.iter_mut().zip(&mut tables) {
                builder.push(first as u32, last.min(u128::from(u32::MAX)) as u32, id, sites, tables);
            }
        };
        sources.locations.walk_v4(&mut |first, last, id, place| {
            feed.push(first.into(), last.into(), id, place, &mut each);
        })?;
        feed.finish(&mut each);
        coverage = feed.coverage();
    }
    let v4: Vec<RangeMap<u32>> = v4_builders.into_iter().zip(&mut tables).map(|(b, t)| b.finish(t)).collect();

    let mut v6_builders = Vec::with_capacity(specs.len());
    for (index, ((spec, tables), v4)) in specs.iter().zip(&mut tables).zip(&v4).enumerate() {
        let uniform = (v4.len() == 1).then(|| v4.find(0).0);
        let embedding = uniform.unwrap_or_else(|| tables.entry(EMBEDDING));
        let overlay = v6_overlay(spec, sources.asns, embedding)?;
        v6_builders.push(RangeBuilder::<u128>::new(sources, index, spec, overlay));
    }
    if needs_walk {
        let mut feed = Feed::v6(sources.estimator, sources.asns)?;
        let mut each = |first: u128, last: u128, id: u32, sites: &Sites<'_>| {
            for (builder, tables) in v6_builders.iter_mut().zip(&mut tables) {
                builder.push(first, last, id, sites, tables);
            }
        };
        sources.locations.walk_v6(&mut |first, last, id, place| feed.push(first, last, id, place, &mut each))?;
        feed.finish(&mut each);
    }
    let v6: Vec<RangeMap<u128>> = v6_builders.into_iter().zip(&mut tables).map(|(b, t)| b.finish(t)).collect();

    let parts = v4.into_iter().zip(v6).zip(tables);
    let map = |((v4, v6), t): ((_, _), Tables)| ClientMap { v4, v6, entries: t.entries, rankings: t.rankings };
    Ok(Built { maps: parts.map(map).collect(), coverage })
}

/// Stands for the IPv6 ranges that embed IPv4 addresses. Those are looked up in the IPv4 part; here they only must not be taken
/// for their neighbours.
const EMBEDDING: Entry = Entry { rule: Some(u16::MAX), ranking: Some(u32::MAX) };

/// The IPv6 ranges that embed IPv4: v4-mapped, NAT64, Teredo, 6to4 (see `geo::special`).
const EMBEDDING_RANGES: [(u128, u32); 4] =
    [(0xffff << 32, 96), (0x0064_ff9b << 96, 96), (0x2001_0000 << 96, 32), (0x2002 << 112, 16)];

fn v4_overlay(spec: &MapSpec, asns: Option<&AsnTable>) -> Result<Overlay<u32>, GeoError> {
    let mut ranges = Vec::new();
    for_each_prefix(spec, |rule, prefix| {
        if let IpNet::V4(net) = prefix {
            ranges.push((net.network().to_bits(), net.broadcast().to_bits(), rule));
        }
    });
    if let Some((asns, rule_of)) = asns.zip(asn_rules(spec)) {
        asns.walk_v4(&mut |first, last, asn| {
            if let Some(rule) = rule_of.get(&asn) {
                ranges.push((first, last, *rule));
            }
        })?;
    }
    Ok(Overlay::of_rules(ranges))
}

fn v6_overlay(spec: &MapSpec, asns: Option<&AsnTable>, embedding: u32) -> Result<Overlay<u128>, GeoError> {
    let mut ranges = Vec::new();
    for_each_prefix(spec, |rule, prefix| {
        if let IpNet::V6(net) = prefix {
            ranges.push((net.network().to_bits(), net.broadcast().to_bits(), rule));
        }
    });
    if let Some((asns, rule_of)) = asns.zip(asn_rules(spec)) {
        asns.walk_v6(&mut |first, last, asn| {
            if let Some(rule) = rule_of.get(&asn) {
                ranges.push((first, last, *rule));
            }
        })?;
    }
    let fixed = EMBEDDING_RANGES.map(|(first, len)| (first, first | u128::MAX >> len, embedding));
    Ok(Overlay::of_rules(ranges).with_fixed(&fixed))
}

fn for_each_prefix(spec: &MapSpec, mut each: impl FnMut(u16, IpNet)) {
    for (index, rule) in spec.rules.iter().enumerate() {
        for client in &rule.clients {
            if let ClientMatch::Prefix(prefix) = client {
                each(index as u16, *prefix);
            }
        }
    }
}

/// Which rule each named autonomous system matches first; `None` when no rule names one.
fn asn_rules(spec: &MapSpec) -> Option<HashMap<u32, u16>> {
    let mut rule_of = HashMap::new();
    for (index, rule) in spec.rules.iter().enumerate() {
        for client in &rule.clients {
            if let ClientMatch::Asn(asn) = client {
                rule_of.entry(*asn).or_insert(index as u16);
            }
        }
    }
    (!rule_of.is_empty()).then_some(rule_of)
}

/// Entries and rankings of one map, each kept once.
#[derive(Default)]
struct Tables {
    entries: Vec<Entry>,
    entry_ids: HashMap<Entry, u32>, // of all but those with a ranking and no rule
    plain_ids: Vec<u32>,            // of those, by ranking; `UNKNOWN` until there is one
    rankings: Rankings,
    best: Vec<RegionId>, // of each ranking: side by side they stay in the processor's caches
    ranking_ids: HashTable<(u64, u32)>, // with the hash of the order
    hasher: DefaultHashBuilder,
}

impl Tables {
    fn entry(&mut self, entry: Entry) -> u32 {
        let entries = &mut self.entries;
        let mut add = || {
            entries.push(entry);
            entries.len() as u32 - 1
        };
        // Most of a few million are of this kind: they are found without a hash.
        let Entry { rule: None, ranking: Some(ranking) } = entry else {
            return *self.entry_ids.entry(entry).or_insert_with(add);
        };
        let index = ranking as usize;
        if index >= self.plain_ids.len() {
            self.plain_ids.resize(index + 1, UNKNOWN);
        }
        if self.plain_ids[index] == UNKNOWN {
            self.plain_ids[index] = add();
        }
        self.plain_ids[index]
    }

    fn ranking(&mut self, order: &[RegionId]) -> u32 {
        let Tables { rankings, best, ranking_ids, hasher, .. } = self;
        let hash = hasher.hash_one(order);
        let is_same = |(known, id): &(u64, u32)| *known == hash && rankings.get(*id) == order;
        match ranking_ids.entry(hash, is_same, |(hash, _)| *hash) {
            hash_table::Entry::Occupied(known) => known.get().1,
            hash_table::Entry::Vacant(free) => {
                best.push(order[0]);
                free.insert((hash, rankings.push(order))).get().1
            }
        }
    }
}

/// Compiles the ranges of one family for one map from located ranges that come in ascending order.
struct RangeBuilder<'s, A: Bits> {
    sources: &'s Sources<'s>,
    spec_index: usize,
    spec: &'s MapSpec,
    overlay: Overlay<A>,
    next: Option<A>, // the first address not covered yet; `None`: all are
    ranges: Vec<Range<A>>,
    run: Option<Entry>,              // what the last range got
    rule_of_place: Vec<Option<u16>>, // by the number of a place that may come again
    own_ranking: Vec<Vec<u32>>,      // by rule (none first), then likewise; `UNKNOWN` until worked out
    order: Vec<RegionId>,
}

impl<'s, A: Bits> RangeBuilder<'s, A> {
    fn new(sources: &'s Sources<'s>, spec_index: usize, spec: &'s MapSpec, overlay: Overlay<A>) -> Self {
        RangeBuilder {
            sources,
            spec_index,
            spec,
            overlay,
            next: Some(A::ZERO),
            ranges: Vec::new(),
            run: None,
            rule_of_place: Vec::new(),
            own_ranking: vec![Vec::new(); spec.rules.len() + 1],
            order: Vec::new(),
        }
    }

    /// Takes the located range `first..=last`; all before it that was not given is a gap.
    fn push(&mut self, first: A, last: A, id: u32, sites: &Sites<'_>, tables: &mut Tables) {
        for new in self.rule_of_place.len()..sites.len() {
            self.rule_of_place.push(self.spec.rule_of_place(sites.place(new as u32)));
        }
        if let Some(gap_start) = self.next.filter(|next| *next < first) {
            self.cover(gap_start, first.previous(), None, tables);
        }
        if !self.continues_run(first, last, id) {
            self.cover(first, last, Some((id, sites)), tables);
        }
        self.next = (last < A::MAX).then(|| last.next());
    }

    /// True when the range is known to get what the run has: so it is with most of a few million.
    #[inline]
    fn continues_run(&mut self, first: A, last: A, id: u32) -> bool {
        let Some(Entry { rule, ranking: Some(ranking) }) = self.run else { return false };
        let known = &self.own_ranking[rule.map_or(0, |rule| usize::from(rule) + 1)];
        known.get(id as usize) == Some(&ranking) && self.rule_of_place.get(id as usize) == Some(&rule) && {
            let (segment, segment_last) = self.overlay.at(first);
            segment == Segment::None && last <= segment_last
        }
    }

    fn finish(mut self, tables: &mut Tables) -> RangeMap<A> {
        if let Some(gap_start) = self.next {
            self.cover(gap_start, A::MAX, None, tables);
        }
        RangeMap::new(self.ranges)
    }

    /// Splits a range where the overlay changes.
    fn cover(&mut self, first: A, last: A, located: Option<(u32, &Sites<'_>)>, tables: &mut Tables) {
        let mut at = first;
        loop {
            let (segment, segment_last) = self.overlay.at(at);
            self.emit(at, segment, located, tables);
            if segment_last >= last {
                break;
            }
            at = segment_last.next();
        }
    }

    fn emit(&mut self, first: A, segment: Segment, located: Option<(u32, &Sites<'_>)>, tables: &mut Tables) {
        let by_overlay = match segment {
            Segment::Fixed(entry) => {
                self.run = None;
                self.ranges.push(Range { start: first, value: entry });
                return;
            }
            Segment::Rule(rule) => Some(rule),
            Segment::None => None,
        };
        let rule_of = |(id, sites): (u32, &Sites<'_>)| {
            let known = self.rule_of_place.get(id as usize);
            known.map_or_else(|| self.spec.rule_of_place(sites.place(id)), |rule| *rule)
        };
        let by_place = located.and_then(rule_of);
        let rule = by_overlay.into_iter().chain(by_place).min();
        let entry = Entry { rule, ranking: self.ranking(rule, located, tables) };
        // Most ranges are like the one before: they cost no look-up, and memory stays flat while millions stream through.
        if self.run != Some(entry) {
            self.run = Some(entry);
            self.ranges.push(Range { start: first, value: tables.entry(entry) });
        }
    }

    /// The range's own ranking, or the run's where that costs the range less than the margin. The run's ranking is always the
    /// own one of the range that began the run, so adoptions never chain. The first region must be the same: scopes get wider by what
    /// happens when regions fail, and nobody is sent elsewhere for it while all are up.
    fn ranking(&mut self, rule: Option<u16>, located: Option<(u32, &Sites<'_>)>, tables: &mut Tables) -> Option<u32> {
        let (id, sites) = located?;
        let estimates_ms = sites.estimates_ms(id).filter(|_| !self.spec.regions_under(rule).is_empty())?;
        let own = self.own_ranking(rule, id, sites, estimates_ms, tables);
        let adopted = match self.run {
            Some(Entry { rule: run_rule, ranking: Some(run) }) if run_rule == rule && run != own => {
                let may = tables.best[run as usize] == tables.best[own as usize];
                let limit_ms = self.sources.switch_margin_ms;
                (may && costs_less_than(limit_ms, tables.rankings.get(run), estimates_ms)).then_some(run)
            }
            _ => None,
        };
        Some(adopted.unwrap_or(own))
    }

    /// The regions that the rule leaves in the order of the range's own estimates.
    fn own_ranking(
        &mut self,
        rule: Option<u16>,
        id: u32,
        sites: &Sites<'_>,
        estimates_ms: &[f32],
        tables: &mut Tables,
    ) -> u32 {
        let slot = rule.map_or(0, |rule| usize::from(rule) + 1);
        if let Some(known) = self.own_ranking[slot].get(id as usize).filter(|known| **known != UNKNOWN) {
            return *known;
        }
        self.order.clear();
        self.order.extend_from_slice(self.spec.regions_under(rule));
        sort_by_estimate(&mut self.order, estimates_ms);
        let Some(measured) = sites.measured(id) else {
            let own = tables.ranking(&self.order);
            let known = &mut self.own_ranking[slot];
            known.resize(known.len().max(id as usize + 1), UNKNOWN);
            known[id as usize] = own;
            return own;
        };
        if let Some(kept) = self.kept(measured, sites, estimates_ms) {
            self.order[..=kept].rotate_right(1);
        }
        tables.ranking(&self.order)
    }

    /// The position in `order` of the region that a measured network had before and keeps, since the first is not clearly better.
    fn kept(&self, measured: Measured, sites: &Sites<'_>, estimates_ms: &[f32]) -> Option<usize> {
        let before = (self.sources.before)(self.spec_index, measured.first)?;
        let position = self.order.iter().position(|region| *region == before).filter(|position| *position > 0)?;
        let (from, to) = (before.index(), self.order[0].index());
        let is_better = sites.estimator.is_clearly_better(
            measured.client,
            (from, estimates_ms[from]),
            (to, estimates_ms[to]),
            self.sources.hysteresis_ms,
        );
        (!is_better).then_some(position)
    }
}

/// No ranking worked out yet.
const UNKNOWN: u32 = u32::MAX;

/// Lowest estimate first, ties in file order.
pub(super) fn sort_by_estimate(regions: &mut [RegionId], estimates_ms: &[f32]) {
    // Estimate and region in one number: what is sorted needs no look-up. The bits of a float stand in its order once those of the
    // negative ones are turned round.
    let ordered = |bits: u32| if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    let mut keys = [0u64; 1 << u8::BITS];
    let keys = &mut keys[..regions.len()];
    for (key, region) in keys.iter_mut().zip(&*regions) {
        *key = u64::from(ordered(estimates_ms[region.index()].to_bits())) << u8::BITS | u64::from(region.0);
    }
    keys.sort_unstable();
    regions.iter_mut().zip(keys).for_each(|(region, key)| *region = RegionId(*key as u8));
}

/// True when following `order` costs a place less than that, whichever regions are healthy: by so much at most an earlier region is
/// farther than a later one.
fn costs_less_than(limit_ms: f32, order: &[RegionId], estimates_ms: &[f32]) -> bool {
    let mut best_later_ms = f32::INFINITY;
    let is_less = |region: &RegionId| {
        let ms = estimates_ms[region.index()];
        let cost_ms = (ms - best_later_ms).max(0.0);
        best_later_ms = best_later_ms.min(ms);
        cost_ms < limit_ms
    };
    order.iter().rev().all(is_less)
}

/// True when a rule's conditions match a client; the direct form of what the map compiles, for `explain` and the tests.
pub fn rule_matches(clients: &[ClientMatch], address: IpAddr, place: Option<&Place>, asn: Option<u32>) -> bool {
    let address = match address {
        IpAddr::V6(v6) => embedded_v4(v6).map_or(address, |embedded| IpAddr::V4(embedded.v4)),
        IpAddr::V4(_) => address,
    };
    clients.iter().any(|client| match client {
        ClientMatch::Country(country) => place.is_some_and(|p| p.country == Some(*country)),
        ClientMatch::Continent(continent) => place.is_some_and(|p| p.continent == Some(*continent)),
        ClientMatch::Asn(wanted) => asn == Some(*wanted),
        ClientMatch::Prefix(prefix) => prefix.contains(&address),
    })
}
