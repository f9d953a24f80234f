//! Zones below zones: where a configuration has both, the upper one delegates to the lower one, so that what is at and above
//! the cut (NS, DS, and the proof that there is no DS) agrees with what is below it.

use std::collections::HashMap;

use super::{RrSet, ZoneContent};
use crate::wire::{Name, rtype};

/// Adds to each zone the NS and DS records of the zones next below it, unless they are written there.
pub fn add_missing(contents: &mut [ZoneContent]) {
    let zones: HashMap<Name, usize> =
        contents.iter().enumerate().map(|(n, content)| (content.origin.clone(), n)).collect();
    let mut additions: Vec<Vec<RrSet>> = vec![Vec::new(); contents.len()];
    for content in contents.iter() {
        let above = std::iter::successors(content.origin.parent(), Name::parent);
        if let Some(upper) = above.into_iter().find_map(|name| zones.get(&name).copied()) {
            additions[upper].extend(records(content));
        }
    }
    for (content, additions) in contents.iter_mut().zip(additions) {
        if !additions.is_empty() {
            content.rrsets.extend(additions);
            // Stable: of two RRsets the written one comes first.
            content.rrsets.sort_by(|a, b| (&a.owner, a.rtype).cmp(&(&b.owner, b.rtype)));
            content.rrsets.dedup_by(|b, a| (&a.owner, a.rtype) == (&b.owner, b.rtype));
        }
    }
}

/// What the zone above says of a zone.
fn records(zone: &ZoneContent) -> Vec<RrSet> {
    let ns = zone.rrsets.iter().find(|rrset| rrset.rtype == rtype::NS && rrset.owner == zone.origin).cloned();
    let ds = zone.keys.as_ref().zip(ns.as_ref()).map(|(keys, ns)| RrSet {
        owner: zone.origin.clone(),
        rtype: rtype::DS,
        ttl_s: ns.ttl_s,
        rdatas: vec![keys.main().ds(&zone.origin)],
    });
    ns.into_iter().chain(ds).collect()
}
