//! What may not stand together in a zone: aliases beside data, routes beside records or under a delegation. Records that no
//! question can reach (under a delegation or a DNAME) are told and left out, as other servers load them, too.

use std::collections::{HashMap, HashSet};

use super::{Set, servers};
use crate::{
    config::{
        Config,
        model::{Endpoints, Route, Zone},
        report::{Problem, Spot},
    },
    wire::{Name, rtype::HTTPS},
    zone::rdata::types::{self, Shown},
};

/// Most bytes that one RRset may take in a message: 65,535 less the header, the longest question, and EDNS with all options;
/// in a signed zone also less its signatures.
const RRSET_WIRE_MAX: usize = 65_535 - 12 - (255 + 4) - 512;
/// One of those: record head, fixed fields, the longest signer's name, and an ECDSA P-256 signature.
const RRSIG_WIRE_MAX: usize = 12 + 18 + 255 + 64;

/// A zone under examination.
pub struct Subject<'a> {
    pub config: &'a Config,
    pub zone: &'a Zone,
    /// The apexes of all zones of the configuration.
    pub origins: &'a HashSet<&'a [u8]>,
    /// Sorted by owner and type.
    pub sets: &'a [Set],
    /// Some of its text could not be read: what seems missing may stand there.
    pub unread: bool,
}

/// What lies at or above a name and takes it away from this zone's own data.
#[derive(Clone, Copy)]
pub enum Cover<'n> {
    /// NS records below the apex.
    Cut(&'n [u8]),
    /// Another zone of the configuration.
    Zone(&'n [u8]),
}

impl<'n> Cover<'n> {
    /// The name of the cut or zone, in wire form.
    pub fn top(&self) -> &'n [u8] {
        let (Cover::Cut(top) | Cover::Zone(top)) = *self;
        top
    }
}

/// The zone's structure.
pub struct Structure<'a> {
    cuts: HashSet<&'a [u8]>,
    dnames: HashSet<&'a [u8]>,
    origins: &'a HashSet<&'a [u8]>,
    apex: &'a [u8],
}

impl<'a> Structure<'a> {
    fn of(subject: &Subject<'a>) -> Self {
        let owners = |rtype| subject.sets.iter().filter(move |s| s.rtype == rtype).map(|s| s.owner.as_wire());
        let apex = subject.zone.origin.as_wire();
        Structure {
            cuts: owners(types::NS).filter(|owner| *owner != apex).collect(),
            dnames: owners(types::DNAME).collect(),
            origins: subject.origins,
            apex,
        }
    }

    /// The highest delegation or zone at or above `name`, which lies in this zone.
    pub fn cover<'n>(&self, name: &'n Name) -> Option<Cover<'n>> {
        if self.cuts.is_empty() && self.origins.len() == 1 {
            return None;
        }
        let below_apex = suffixes(name.as_wire()).take_while(|s| s.len() > self.apex.len());
        below_apex
            .filter_map(|s| {
                let zone = self.origins.contains(s).then_some(Cover::Zone(s));
                zone.or_else(|| self.cuts.contains(s).then_some(Cover::Cut(s)))
            })
            .last()
    }

    /// The highest DNAME above `name`, which lies in this zone, unless a delegation or zone hides that DNAME itself.
    fn dname_above<'n>(&self, name: &'n Name) -> Option<&'n [u8]> {
        if self.dnames.is_empty() {
            return None;
        }
        let above = suffixes(name.as_wire()).skip(1).take_while(|s| s.len() >= self.apex.len());
        let dname = above.filter(|s| self.dnames.contains(s)).last()?;
        self.cover(name).is_none_or(|cover| cover.top().len() > dname.len()).then_some(dname)
    }

    /// True for the apex of another zone of the configuration, or a name below one.
    pub fn is_zone(&self, name: &Name) -> bool {
        matches!(self.cover(name), Some(Cover::Zone(_)))
    }

    /// True when a delegation, another zone or a DNAME takes the set away from this zone's own data, and it is not one that
    /// stands there for the sake of that delegation.
    pub fn hides(&self, set: &Set) -> bool {
        self.dname_above(&set.owner).is_some() || self.cover(&set.owner).is_some_and(|cover| !may_stand(set, cover))
    }
}

/// The name itself, then each of its ancestors up to the root, in wire form.
pub fn suffixes(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(wire), |w| (w[0] != 0).then(|| &w[1 + usize::from(w[0])..]))
}

/// Shows a name in wire form.
pub fn shown(wire: &[u8]) -> String {
    Name::from_wire(wire).map(|name| name.to_string()).unwrap_or_default()
}

/// A problem at `spot`.
pub fn problem(spot: &Spot, message: String, help: impl Into<String>) -> Problem {
    Problem { spot: Some(spot.clone()), message, help: Some(help.into()) }
}

impl Set {
    /// Where its first record stands, in the order of the text.
    pub fn spot(&self) -> &Spot {
        self.records.iter().map(|(_, spot)| spot).min_by_key(|s| s.span.start).expect("a set has a record")
    }

    /// Where its last record stands.
    fn last_spot(&self) -> &Spot {
        self.records.iter().map(|(_, spot)| spot).max_by_key(|s| s.span.start).expect("a set has a record")
    }

    /// Bytes in a message whose question has the same owner.
    fn wire_len(&self) -> usize {
        // Each record: a pointer to the owner, type, class, TTL and length before its data.
        self.records.iter().map(|(rdata, _)| 12 + rdata.len()).sum()
    }
}

impl<'a> Subject<'a> {
    /// The sets at a name.
    pub fn at(&self, name: &Name) -> &'a [Set] {
        let from = self.sets.partition_point(|set| set.owner < *name);
        let count = self.sets[from..].iter().take_while(|set| set.owner == *name).count();
        &self.sets[from..from + count]
    }

    /// True when the route's endpoints are host names.
    pub fn is_alias(&self, route: &Route) -> bool {
        route.regions.iter().any(|region| matches!(route.pool(self.config, *region).0, Endpoints::Name(_)))
    }
}

/// What an examination finds.
#[derive(Default)]
pub struct Findings {
    /// What keeps the zone from being served.
    pub problems: Vec<Problem>,
    /// What is served otherwise than its author may think.
    pub warnings: Vec<Problem>,
    /// For each set: no question can reach it, and it must not be served.
    pub hidden: Vec<bool>,
}

/// Finds everything that is wrong or odd.
pub fn check(subject: &Subject<'_>) -> Findings {
    let structure = Structure::of(subject);
    let mut findings = Findings::default();
    check_apex(subject, &mut findings.problems);
    for owner in subject.sets.chunk_by(|a, b| a.owner == b.owner) {
        if !owner[0].owner.is_within(&subject.zone.origin) {
            outside(subject, owner, &mut findings);
            continue;
        }
        check_owner(owner, &mut findings.problems);
        for set in owner {
            check_set(subject, &structure, set, &mut findings);
        }
    }
    check_routes(subject, &structure, &mut findings.problems);
    servers::check(subject, &structure, &mut findings);
    findings
}

fn outside(subject: &Subject<'_>, sets: &[Set], findings: &mut Findings) {
    let origin = &subject.zone.origin;
    for set in sets {
        let message = format!("`{}` lies outside the zone `{origin}`", set.owner);
        findings.problems.push(problem(set.spot(), message, "only names that end in the zone's own may stand in it"));
        findings.hidden.push(true);
    }
}

/// The apex needs its SOA and NS records.
fn check_apex(subject: &Subject<'_>, problems: &mut Vec<Problem>) {
    let apex = subject.at(&subject.zone.origin);
    for (rtype, example) in [(types::SOA, "ns1 hostmaster 1 14400 3600 1209600 60"), (types::NS, "ns1.example.net.")] {
        if !subject.unread && !apex.iter().any(|set| set.rtype == rtype) {
            let message = format!("the zone `{}` has no {} record", subject.zone.origin, Shown(rtype));
            let help = format!("give its `nameservers`, or write `@ {} {example}` into its records", Shown(rtype));
            problems.push(problem(&subject.zone.spot, message, help));
        }
    }
}

/// What the types at one owner say to each other.
fn check_owner(sets: &[Set], problems: &mut Vec<Problem>) {
    let owner = &sets[0].owner;
    let singles = [(types::CNAME, "CNAME"), (types::DNAME, "DNAME"), (types::SOA, "SOA")];
    for set in sets {
        if let Some((_, name)) = singles.iter().find(|(rtype, _)| *rtype == set.rtype && set.records.len() > 1) {
            let message = format!("`{owner}` has {} different {name} records; only one can be", set.records.len());
            problems.push(problem(set.last_spot(), message, "remove all but one"));
        }
    }
    let Some(alias) = sets.iter().find(|set| set.rtype == types::CNAME) else { return };
    let beside_alias = |rtype| matches!(rtype, types::CNAME | types::RRSIG | types::NSEC | types::KEY);
    if let Some(other) = sets.iter().find(|set| !beside_alias(set.rtype)) {
        let message = format!("a CNAME beside {} data at `{owner}` ({})", Shown(other.rtype), place(other.spot()));
        let help = match sets.iter().any(|set| set.rtype == types::SOA) {
            true => "the apex cannot be an alias; a route with address endpoints can stand there",
            false => "an alias stands alone at its name; remove it or the other data",
        };
        problems.push(problem(alias.spot(), message, help));
    }
}

/// One RRset's place in the zone's structure.
fn check_set(subject: &Subject<'_>, structure: &Structure<'_>, set: &Set, findings: &mut Findings) {
    let (owner, rtype) = (&set.owner, set.rtype);
    let Findings { problems, warnings, hidden } = findings;
    if rtype == types::SOA && *owner != subject.zone.origin {
        let message = format!("a SOA at `{owner}`, which is not the apex `{}`", subject.zone.origin);
        problems.push(problem(
            set.spot(),
            message,
            "a zone has one SOA, at its apex; give the child zone a section of its own",
        ));
    }
    if owner.is_wildcard() && matches!(rtype, types::NS | types::DNAME) {
        let message = format!("{} at the wildcard `{owner}`", Shown(rtype));
        let help = "what a wildcard means there is not defined (RFC 4592 §4.2 and §4.4); name each owner";
        warnings.push(problem(set.spot(), message, help));
    }
    let wire_max = RRSET_WIRE_MAX - subject.zone.dnssec_keys.len() * RRSIG_WIRE_MAX;
    if set.wire_len() > wire_max {
        let message = format!("the {} records of `{owner}` take {} bytes", Shown(rtype), set.wire_len());
        problems.push(problem(set.spot(), message, format!("at most {wire_max} fit into one answer; remove some")));
    }
    hidden.push(structure.hides(set));
    if let Some(dname) = structure.dname_above(owner) {
        let message = format!("`{owner}` lies below the DNAME at `{}` and is left out", shown(dname));
        warnings.push(problem(set.spot(), message, "that DNAME renames all names below it; remove it or this record"));
    } else if let Some(cover) = structure.cover(owner).filter(|cover| !may_stand(set, *cover)) {
        warnings.push(covered(set.spot(), cover, &format!("{} of `{owner}`", Shown(rtype))));
    }
}

/// True for what belongs to a delegation: its own records, and addresses, which may be glue.
fn may_stand(set: &Set, cover: Cover<'_>) -> bool {
    match set.rtype {
        // What stands at a wildcard answers for the names that it covers, with NS records there or without.
        _ if set.owner.is_wildcard() && matches!(cover, Cover::Cut(top) if top == set.owner.as_wire()) => true,
        types::A | types::AAAA => true,
        types::NS | types::DS | types::NSEC | types::RRSIG => cover.top() == set.owner.as_wire(),
        // Beside a delegation it is reported as an alias beside data.
        types::CNAME => matches!(cover, Cover::Cut(top) if top == set.owner.as_wire()),
        _ => false,
    }
}

/// The problem of data that a delegation or another zone hides.
fn covered(spot: &Spot, cover: Cover<'_>, what: &str) -> Problem {
    let top = shown(cover.top());
    match cover {
        Cover::Cut(_) => {
            let message = format!("{what} is never answered: `{top}` is delegated to other servers");
            problem(
                spot,
                message,
                "beside NS and DS only the A and AAAA of name servers may stand there; move this to the delegated zone, or remove its NS records",
            )
        }
        Cover::Zone(_) => {
            let message = format!("{what} is never answered: `{top}` is a zone of its own in this configuration");
            problem(
                spot,
                message,
                format!("move it to that zone's section, `[zones.\"{}\"]`", top.trim_end_matches('.')),
            )
        }
    }
}

/// Each route against the records, the structure, and the other routes.
fn check_routes(subject: &Subject<'_>, structure: &Structure<'_>, problems: &mut Vec<Problem>) {
    let mut seen: HashMap<&Name, &Route> = HashMap::new();
    for route in &subject.zone.routes {
        let owner = &route.owner;
        if !owner.is_within(&subject.zone.origin) {
            let message = format!("`{owner}` lies outside the zone `{}`", subject.zone.origin);
            problems.push(problem(
                &route.spot,
                message,
                "write the owner relative to the zone, or with the zone's name at its end",
            ));
            continue;
        }
        if let Some(first) = seen.insert(owner, route) {
            let message = format!("a second route at `{owner}` (the first: {})", place(&first.spot));
            problems.push(problem(&route.spot, message, "give each owner one route"));
        }
        if let Some(cover) = structure.cover(owner) {
            problems.push(covered(&route.spot, cover, &format!("the route `{}`", route.label)));
        }
        if let Some(dname) = structure.dname_above(owner) {
            let message = format!("the route `{}` lies below the DNAME at `{}`", route.label, shown(dname));
            problems.push(problem(
                &route.spot,
                message,
                "that DNAME renames all names below it; remove it or the route",
            ));
        }
        check_beside(subject, route, problems);
    }
}

/// A route against the records at its owner.
fn check_beside(subject: &Subject<'_>, route: &Route, problems: &mut Vec<Problem>) {
    let owner = &route.owner;
    let is_alias = subject.is_alias(route);
    if is_alias && *owner == subject.zone.origin {
        let message = format!("the route `{}` has a host name as endpoint and stands at the apex", route.label);
        problems.push(problem(
            &route.spot,
            message,
            "a CNAME cannot stand beside SOA and NS; give it addresses as endpoints, or move it below the apex",
        ));
        return;
    }
    let clashes = |rtype| match is_alias {
        true => !matches!(rtype, types::RRSIG | types::NSEC | types::KEY),
        false => matches!(rtype, types::A | types::AAAA | types::CNAME) || rtype == HTTPS && route.https.is_some(),
    };
    if let Some((_, spot)) = route.https.as_ref().filter(|_| is_alias) {
        let message = format!("the route `{}` has a host name as endpoint and an `https` record", route.label);
        let help = "nothing can stand beside a CNAME: write the HTTPS record at that host name";
        problems.push(problem(spot, message, help));
    }
    let Some(set) = subject.at(owner).iter().find(|set| clashes(set.rtype)) else { return };
    let message = format!(
        "the route `{}` and a static {} record ({}) have the same owner",
        route.label,
        Shown(set.rtype),
        place(set.spot())
    );
    let help = match is_alias {
        true => "a route with a host name as endpoint is a CNAME and stands alone; remove the record or the route",
        false if set.rtype == HTTPS => "the route answers HTTPS itself; remove the record, or the route's `https`",
        false => "a route answers A and AAAA itself; remove the record or the route",
    };
    problems.push(problem(&route.spot, message, help));
}

/// `file:line` of a spot.
pub fn place(spot: &Spot) -> String {
    let before = &spot.source.text.as_bytes()[..spot.span.start];
    format!("{}:{}", spot.source.name, before.iter().filter(|b| **b == b'\n').count() + 1)
}
