//! Name servers inside the zone: each needs an address that this zone can give.

use std::collections::HashSet;

use super::{
    Set,
    check::{Findings, Structure, Subject, problem, suffixes},
};
use crate::{wire::Name, zone::rdata::types};

/// What a query for a name server's address would find.
enum Found {
    Address,
    Alias,
    Nothing,
}

/// Tells of every NS record whose server lies in the zone and has no address there, or is an alias (RFC 2181 §10.3): a problem
/// where the configuration names that server, a warning where a record does, since other servers load such zones.
pub fn check(subject: &Subject<'_>, structure: &Structure<'_>, findings: &mut Findings) {
    let mut names = Names { subject, existing: None };
    let apex = &subject.zone.origin;
    for set in subject.sets.iter().filter(|set| set.rtype == types::NS && set.owner.is_within(apex)) {
        // Nobody ever sees a hidden delegation, nor one to another zone of the configuration.
        if structure.hides(set) || structure.is_zone(&set.owner) {
            continue;
        }
        for (rdata, spot) in &set.records {
            let target = Name::from_wire(rdata).expect("NS data is one name");
            if !target.is_within(apex) {
                continue;
            }
            let (message, help) = match find(&mut names, structure, set, &target) {
                Found::Address => continue,
                Found::Nothing if subject.unread => continue,
                Found::Alias => (
                    format!("the name server `{target}` is an alias"),
                    "a name server's own name must have the addresses; name the alias's target here".to_string(),
                ),
                Found::Nothing => {
                    (format!("the name server `{target}` has no address in this zone"), remedy(subject, &target))
                }
            };
            let list = match *spot == subject.zone.spot {
                true => &mut findings.problems,
                false => &mut findings.warnings,
            };
            list.push(problem(spot, message, help));
        }
    }
}

fn remedy(subject: &Subject<'_>, target: &Name) -> String {
    let (full, apex) = (target.to_string(), subject.zone.origin.to_string());
    let relative = full.strip_suffix(&format!(".{apex}")).unwrap_or(&full);
    format!(
        "add `addresses = {{ \"{relative}\" = [\"203.0.113.1\"] }}` to the zone, or `{full} A 203.0.113.1` to its records"
    )
}

fn find(names: &mut Names<'_, '_>, structure: &Structure<'_>, ns: &Set, target: &Name) -> Found {
    match structure.cover(target).map(|cover| cover.top()) {
        // Whoever serves that zone has the address.
        Some(top) if top != ns.owner.as_wire() => Found::Address,
        // Below its own delegation it can only be found through glue.
        Some(_) => match names.subject.at(target).iter().any(|s| matches!(s.rtype, types::A | types::AAAA)) {
            true => Found::Address,
            false => Found::Nothing,
        },
        None => names.answer(target),
    }
}

/// The names of the zone, as far as wildcards need them.
struct Names<'s, 'a> {
    subject: &'s Subject<'a>,
    /// All owners and empty non-terminals; made when first needed.
    existing: Option<HashSet<&'a [u8]>>,
}

impl<'a> Names<'_, 'a> {
    /// What stands at `name`, or at the wildcard that covers it (RFC 4592).
    fn answer(&mut self, name: &Name) -> Found {
        if self.exists(name) {
            return self.stands_at(name);
        }
        let mut encloser = name.parent();
        while let Some(at) = encloser {
            if self.exists(&at) {
                return Name::parse("*", &at).map_or(Found::Nothing, |wildcard| self.stands_at(&wildcard));
            }
            encloser = at.parent();
        }
        Found::Nothing
    }

    fn stands_at(&self, name: &Name) -> Found {
        let sets = self.subject.at(name);
        let route = self.subject.zone.routes.iter().find(|route| route.owner == *name);
        let alias = sets.iter().any(|s| s.rtype == types::CNAME) || route.is_some_and(|r| self.subject.is_alias(r));
        let address = route.is_some() || sets.iter().any(|s| matches!(s.rtype, types::A | types::AAAA));
        match (alias, address) {
            (true, _) => Found::Alias,
            (_, true) => Found::Address,
            _ => Found::Nothing,
        }
    }

    fn exists(&mut self, name: &Name) -> bool {
        if !self.subject.at(name).is_empty() {
            return true;
        }
        let subject: &Subject<'a> = self.subject;
        let existing = self.existing.get_or_insert_with(|| {
            let apex = subject.zone.origin.as_wire();
            let owners = subject.sets.iter().map(|s| &s.owner).chain(subject.zone.routes.iter().map(|r| &r.owner));
            owners.flat_map(|owner| suffixes(owner.as_wire()).take_while(|s| s.len() >= apex.len())).collect()
        });
        existing.contains(name.as_wire())
    }
}
