//! Zones below zones: where a configuration has both, the upper one delegates to the lower one, so that what is at and above
//! the cut (NS, DS, and the proof that there is no DS) agrees with what is below it.

use std::collections::HashMap;

use super::{RrSet, ZoneContent};
use crate::{
    config::report::Problem,
    wire::{Name, rtype},
};

/// Adds to each zone the NS and DS records of the zones next below it, unless they are written there. A written DS that fits none of
/// the lower zone's keys gives way with a warning: with it, validating resolvers would refuse that whole zone.
pub fn add_missing(contents: &mut [ZoneContent]) {
    let zones: HashMap<Name, usize> =
        contents.iter().enumerate().map(|(n, content)| (content.origin.clone(), n)).collect();
    let mut lower_zones: Vec<Vec<Lower>> = contents.iter().map(|_| Vec::new()).collect();
    for content in contents.iter() {
        let above = std::iter::successors(content.origin.parent(), Name::parent);
        if let Some(upper) = above.into_iter().find_map(|name| zones.get(&name).copied()) {
            lower_zones[upper].extend(Lower::of(content));
        }
    }
    for (content, lower_zones) in contents.iter_mut().zip(lower_zones) {
        if !lower_zones.is_empty() {
            delegate(content, lower_zones);
        }
    }
}

/// What a zone above must say of a zone.
struct Lower {
    ns: RrSet,
    /// DS data for each of its keys, that of the announced one first; none: it is not signed, or not yet to be known as signed.
    ds: Vec<Vec<u8>>,
}

impl Lower {
    fn of(zone: &ZoneContent) -> Option<Lower> {
        let ns = zone.rrsets.iter().find(|rrset| rrset.rtype == rtype::NS && rrset.owner == zone.origin)?.clone();
        let keys = zone.keys.as_ref().filter(|keys| keys.is_announced());
        let pairs = keys.map_or(&[][..], |keys| keys.pairs());
        Some(Lower { ns, ds: pairs.iter().map(|pair| pair.ds(&zone.origin)).collect() })
    }

    fn fits(&self, written: &RrSet) -> bool {
        written.rdatas.iter().any(|rdata| self.ds.contains(rdata))
    }
}

fn delegate(content: &mut ZoneContent, lower_zones: Vec<Lower>) {
    let by_owner: HashMap<&Name, &Lower> = lower_zones.iter().map(|lower| (&lower.ns.owner, lower)).collect();
    let warnings = &mut content.warnings;
    content.rrsets.retain(|rrset| {
        let contradicted =
            rrset.rtype == rtype::DS && by_owner.get(&rrset.owner).is_some_and(|lower| !lower.fits(rrset));
        if contradicted {
            let message =
                format!("the DS records written for {} fit none of its keys here and were left out", rrset.owner);
            warnings.push(Problem::new(message).with_help("remove them: they are made from the zone's own key"));
        }
        !contradicted
    });
    for Lower { ns, mut ds } in lower_zones {
        ds.truncate(1);
        let (owner, ttl_s) = (ns.owner.clone(), ns.ttl_s);
        content.rrsets.push(ns);
        content.rrsets.extend((!ds.is_empty()).then_some(RrSet { owner, rtype: rtype::DS, ttl_s, rdatas: ds }));
    }
    // Stable: of two RRsets the written one comes first.
    content.rrsets.sort_by(|a, b| (&a.owner, a.rtype).cmp(&(&b.owner, b.rtype)));
    content.rrsets.dedup_by(|b, a| (&a.owner, a.rtype) == (&b.owner, b.rtype));
}
