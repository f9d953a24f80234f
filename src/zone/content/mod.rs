//! What each zone holds: its static records, what is synthesised beside them, and its routes, checked as a whole. Plain data
//! that a compiler of zones can trust. Knows nothing of wire fragments, lookups and health.

mod check;
mod delegation;
mod keys;
mod serial;
mod servers;
mod synthesis;
#[cfg(test)]
mod tests;

use std::{collections::HashSet, sync::Arc};

use crate::{
    config::{
        Config,
        model::{Endpoints, Route, Zone},
        report::{Problem, Report, Source, Spot},
    },
    wire::{Name, rtype},
    zone::{
        Https,
        file::{self, Record},
        rdata::Fault,
        sign::ZoneKeys,
    },
};

/// A zone whose parts fit together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneContent {
    /// The apex.
    pub origin: Name,
    /// All static RRsets that a question can reach and the addresses below delegations, sorted by owner (bytes of the wire form) and type; among them one SOA and one NS RRset at the apex.
    pub rrsets: Vec<RrSet>,
    /// Where the zone's routes stand, in file order.
    pub routes: Vec<ContentRoute>,
    /// The SOA's serial: a written SOA's own, else derived from the content and so equal on all servers.
    pub serial: u32,
    /// What it is signed with; `None`: it is not signed.
    pub keys: Option<Arc<ZoneKeys>>,
    /// What is served otherwise than its author may think, in the order of the text; at most [`WARNINGS_MAX`], the last
    /// of which says how many more there are.
    pub warnings: Vec<Problem>,
    /// Files that its zone files include, as far as records stand in them.
    pub included: Vec<Arc<Source>>,
}

/// Most warnings that are kept of one zone.
pub const WARNINGS_MAX: usize = 20;

/// The records of one owner and type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RrSet {
    /// Absolute name, in the zone.
    pub owner: Name,
    /// Type number; never a meta type.
    pub rtype: u16,
    /// Seconds, 0 to 2^31-1: the lowest of its records' (RFC 2181 §5.2 wants one for all).
    pub ttl_s: u32,
    /// Uncompressed wire form with names in lower case, sorted as RFC 4034 §6.3 wants, none twice, never empty; together with
    /// any owner they fit into one message.
    pub rdatas: Vec<Vec<u8>>,
}

/// A route's place in the zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentRoute {
    /// Absolute name, in the zone. No A, AAAA or CNAME RRset stands there; with a name endpoint no other data at all.
    pub owner: Name,
    /// Index into the zone's routes in the configuration.
    pub route: usize,
    /// Types of the records that it can answer with.
    pub types: Vec<u16>,
    /// Its HTTPS record.
    pub https: Option<Https>,
}

/// Reads and checks the content of every zone, in the order of the configuration. An error holds everything that is wrong
/// with any of them.
pub fn gather(config: &Config) -> Result<Vec<ZoneContent>, Report> {
    let origins = config.zones.iter().map(|zone| zone.origin.as_wire()).collect();
    let mut problems = Vec::new();
    let mut contents = Vec::with_capacity(config.zones.len());
    let mut has_own_soa = Vec::with_capacity(config.zones.len());
    for zone in &config.zones {
        if let Some((content, is_written)) = gather_zone(config, zone, &origins, &mut problems) {
            contents.push(content);
            has_own_soa.push(is_written);
        }
    }
    if !problems.is_empty() {
        return Err(Report { problems });
    }
    delegation::add_missing(&mut contents);
    for ((content, zone), is_written) in contents.iter_mut().zip(&config.zones).zip(has_own_soa) {
        let derive = |rrsets: &[RrSet]| serial::derive(config, zone, rrsets);
        content.serial = synthesis::settle_serial(&mut content.rrsets, is_written, derive);
    }
    Ok(contents)
}

/// `None` when it has problems; else the content without a serial, and whether the texts brought a SOA.
fn gather_zone(
    config: &Config,
    zone: &Zone,
    origins: &HashSet<&[u8]>,
    problems: &mut Vec<Problem>,
) -> Option<(ZoneContent, bool)> {
    let mut found = Vec::new();
    let (mut records, mut included) = (Vec::new(), Vec::<Arc<Source>>::new());
    for text in &zone.texts {
        let mut read = file::read(zone, text, &mut found);
        for source in read.iter().map(|record| &record.spot.source) {
            if !included.iter().chain([&text.spot.source]).any(|known| Arc::ptr_eq(known, source)) {
                included.push(source.clone());
            }
        }
        records.append(&mut read);
    }
    let unread = !found.is_empty();
    let has_own_soa = synthesis::add_missing(zone, &mut records);
    let keys = keys::read(zone, &mut records, &mut found);
    let routes = zone.routes.iter().enumerate().map(|(n, route)| content_route(config, n, route, &mut found)).collect();
    let sets = group(records);
    let findings = check::check(&check::Subject { config, zone, origins, sets: &sets, unread });
    found.extend(findings.problems);
    if !found.is_empty() {
        sort_by_place(&mut found);
        found.truncate(file::PROBLEMS_MAX + 1);
        problems.append(&mut found);
        return None;
    }
    let visible = sets.into_iter().zip(findings.hidden).filter(|(_, hidden)| !hidden);
    let rrsets = visible.map(|(set, _)| set.into_rrset()).collect();
    let warnings = bounded(findings.warnings);
    let origin = zone.origin.clone();
    Some((ZoneContent { origin, rrsets, routes, serial: 0, keys, warnings, included }, has_own_soa))
}

fn content_route(config: &Config, number: usize, route: &Route, problems: &mut Vec<Problem>) -> ContentRoute {
    let https = route.https.as_ref().and_then(|(text, spot)| {
        let tell = |fault: Fault| {
            let problem = Problem::at(spot.clone(), format!("in `https`: {}", fault.message));
            problems.push(match fault.help {
                Some(help) => problem.with_help(help),
                None => problem,
            });
        };
        Https::read(text).map_err(tell).ok()
    });
    let mut types = route_types(config, route);
    types.extend(https.as_ref().map(|_| rtype::HTTPS));
    ContentRoute { owner: route.owner.clone(), route: number, types, https }
}

/// The types of address that a route has, or CNAME, whatever the health of its regions.
fn route_types(config: &Config, route: &Route) -> Vec<u16> {
    let mut types = Vec::new();
    for region in &route.regions {
        match route.pool(config, *region).0 {
            Endpoints::Name(_) => types.push(rtype::CNAME),
            Endpoints::Addresses(list) => {
                types.extend(list.iter().map(|entry| if entry.address.is_ipv4() { rtype::A } else { rtype::AAAA }));
            }
        }
    }
    types.sort_unstable();
    types.dedup();
    types
}

/// The first warnings in the order of the text, and a word on the rest.
fn bounded(mut warnings: Vec<Problem>) -> Vec<Problem> {
    sort_by_place(&mut warnings);
    let more = warnings.len().saturating_sub(WARNINGS_MAX);
    warnings.truncate(WARNINGS_MAX);
    if let Some(last) = warnings.last_mut().filter(|_| more > 0) {
        last.message += &format!(" (and {more} more of this zone)");
    }
    warnings
}

/// An RRset whose records still know where they stand.
struct Set {
    owner: Name,
    rtype: u16,
    ttl_s: u32,
    /// Sorted by data, none twice.
    records: Vec<(Vec<u8>, Spot)>,
}

impl Set {
    fn into_rrset(self) -> RrSet {
        let rdatas = self.records.into_iter().map(|(rdata, _)| rdata).collect();
        RrSet { owner: self.owner, rtype: self.rtype, ttl_s: self.ttl_s, rdatas }
    }
}

/// Sorted by owner (bytes of the wire form) and type.
fn group(mut records: Vec<Record>) -> Vec<Set> {
    // Stable: of equal records the first one's place is kept.
    records.sort_by(|a, b| (&a.owner, a.rtype, &a.rdata).cmp(&(&b.owner, b.rtype, &b.rdata)));
    let mut sets: Vec<Set> = Vec::new();
    for record in records {
        match sets.last_mut() {
            Some(set) if set.owner == record.owner && set.rtype == record.rtype => {
                set.ttl_s = set.ttl_s.min(record.ttl_s);
                if set.records.last().is_none_or(|(rdata, _)| *rdata != record.rdata) {
                    set.records.push((record.rdata, record.spot));
                }
            }
            _ => sets.push(Set {
                owner: record.owner,
                rtype: record.rtype,
                ttl_s: record.ttl_s,
                records: vec![(record.rdata, record.spot)],
            }),
        }
    }
    sets
}

/// Files in the order in which they first occur, problems without a place last.
fn sort_by_place(problems: &mut [Problem]) {
    let mut sources: Vec<*const Source> = Vec::new();
    let mut rank = |problem: &Problem| {
        let Some(spot) = &problem.spot else { return (usize::MAX, 0) };
        let source = std::sync::Arc::as_ptr(&spot.source);
        let at = sources.iter().position(|s| *s == source).unwrap_or_else(|| {
            sources.push(source);
            sources.len() - 1
        });
        (at, spot.span.start)
    };
    problems.sort_by_cached_key(|problem| rank(problem));
}
