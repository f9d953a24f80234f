//! A zone's signing keys, and the records that tell of them.

use std::sync::Arc;

use super::{check::problem, synthesis};
use crate::{
    config::{
        model::{KeyText, Zone},
        report::Problem,
    },
    wire::rtype,
    zone::{
        file::Record,
        rdata::types::Shown,
        sign::{KeyError, KeyPair, ZoneKeys},
    },
};

/// Types that signing makes: written ones would contradict them.
const MADE: [u16; 7] =
    [rtype::RRSIG, rtype::NSEC, rtype::DNSKEY, rtype::NSEC3, rtype::NSEC3PARAM, rtype::CDS, rtype::CDNSKEY];

/// Reads the zone's keys and adds its DNSKEY, CDS and CDNSKEY records: all keys in the first, the one that the zone above is to
/// know in the others (RFC 7344). `None` for a zone without keys.
pub fn read(zone: &Zone, records: &mut Vec<Record>, problems: &mut Vec<Problem>) -> Option<Arc<ZoneKeys>> {
    if zone.dnssec_keys.is_empty() {
        return None;
    }
    for record in records.iter().filter(|record| MADE.contains(&record.rtype)) {
        let message = format!("{} records cannot be written in a zone that is signed here", Shown(record.rtype));
        problems.push(problem(&record.spot, message, "remove the record: it is made with `dnssec-key`"));
    }
    for record in records.iter().filter(|record| record.rtype == rtype::DS && record.owner == zone.origin) {
        let help = "a DS record stands in the zone above (RFC 4035 §2.4); move it there";
        problems.push(problem(&record.spot, "a DS record at the apex of a zone that is signed here".into(), help));
    }
    for record in records.iter().filter(|record| record.rtype == rtype::NS && record.owner.is_wildcard()) {
        let message = format!("NS records at the wildcard `{}` cannot be in a signed zone", record.owner);
        let help =
            "validating resolvers would take their proofs for those of a delegation (RFC 4592 §4.2); name each owner";
        problems.push(problem(&record.spot, message, help));
    }
    let mut pairs: Vec<KeyPair> = Vec::new();
    for key in &zone.dnssec_keys {
        match KeyPair::read(&key.text.0, &zone.origin) {
            Ok(pair) if pairs.contains(&pair) => {
                problems.push(problem(
                    &key.spot,
                    format!("{} holds a key that stands here already", shown(key)),
                    "remove one of the two",
                ));
            }
            Ok(pair) => pairs.push(pair),
            Err(error) => problems.push(problem(&key.spot, format!("{} {error}", shown(key)), help(&error, zone))),
        }
    }
    let main = pairs.first()?;
    let (cds, cdnskey) = (main.ds(&zone.origin), main.dnskey().to_vec());
    let mut add = |rtype, rdata| records.push(synthesis::record(zone, &zone.origin, rtype, rdata));
    if zone.dnssec_announce {
        add(rtype::CDS, cds);
        add(rtype::CDNSKEY, cdnskey);
    }
    pairs.iter().for_each(|pair| add(rtype::DNSKEY, pair.dnskey().to_vec()));
    Some(Arc::new(ZoneKeys::new(pairs, zone.dnssec_announce)))
}

fn shown(key: &KeyText) -> String {
    key.path.display().to_string()
}

fn help(error: &KeyError, zone: &Zone) -> String {
    let origin = zone.origin.to_string();
    match error {
        KeyError::OtherZone(_) => format!("each zone has a key of its own; make one: isochrone key new {origin}"),
        _ => format!(
            "copy the file from another server of the zone, or for a new zone make one: isochrone key new {origin}"
        ),
    }
}
