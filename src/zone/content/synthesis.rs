//! The records that a zone's configuration stands for: SOA, NS, and the addresses of its name servers.

use std::net::IpAddr;

use super::RrSet;
use crate::{
    config::model::Zone,
    wire::Name,
    zone::{file::Record, rdata::types},
};

/// TTL of everything synthesised, in seconds.
const TTL_S: u32 = 3_600;
/// SOA timers, in seconds. Nothing is transferred, so nobody waits for them.
const REFRESH_S: u32 = 7_200;
const RETRY_S: u32 = 3_600;
const EXPIRE_S: u32 = 1_209_600;
/// How far from the end of SOA data the serial stands: five numbers of four bytes.
const SERIAL_FROM_END: usize = 20;

/// Adds what the texts lack: a SOA and NS records unless they bring their own, and always the `addresses`. True when the texts
/// brought a SOA.
pub fn add_missing(zone: &Zone, records: &mut Vec<Record>) -> bool {
    let has = |rtype| records.iter().any(|r| r.rtype == rtype && r.owner == zone.origin);
    let (has_soa, has_ns) = (has(types::SOA), has(types::NS));
    let mut add = |owner: &Name, rtype: u16, rdata: Vec<u8>| records.push(record(zone, owner, rtype, rdata));
    if let Some(primary) = zone.nameservers.first().filter(|_| !has_soa) {
        add(&zone.origin, types::SOA, soa(zone, primary));
    }
    if !has_ns {
        for server in &zone.nameservers {
            add(&zone.origin, types::NS, server.as_wire().to_vec());
        }
    }
    for (owner, addresses) in &zone.addresses {
        for address in addresses {
            match address {
                IpAddr::V4(v4) => add(owner, types::A, v4.octets().to_vec()),
                IpAddr::V6(v6) => add(owner, types::AAAA, v6.octets().to_vec()),
            }
        }
    }
    has_soa
}

/// A synthesised record.
pub fn record(zone: &Zone, owner: &Name, rtype: u16, rdata: Vec<u8>) -> Record {
    Record { owner: owner.clone(), rtype, ttl_s: TTL_S, rdata, spot: zone.spot.clone() }
}

/// SOA data with serial 0.
fn soa(zone: &Zone, primary: &Name) -> Vec<u8> {
    let mut rdata = [primary.as_wire(), zone.contact.as_wire()].concat();
    for number in [0, REFRESH_S, RETRY_S, EXPIRE_S, zone.negative_ttl_s] {
        rdata.extend(number.to_be_bytes());
    }
    rdata
}

/// The serial of the one SOA in `rrsets`; where that was synthesised, `derive` makes it first.
pub fn settle_serial(rrsets: &mut [RrSet], is_written: bool, derive: impl FnOnce(&[RrSet]) -> u32) -> u32 {
    let derived = (!is_written).then(|| derive(rrsets));
    let soa = rrsets.iter_mut().find(|set| set.rtype == types::SOA).expect("a checked zone has one SOA");
    let rdata = &mut soa.rdatas[0];
    let at = rdata.len() - SERIAL_FROM_END;
    if let Some(serial) = derived {
        rdata[at..at + 4].copy_from_slice(&serial.to_be_bytes());
    }
    u32::from_be_bytes(rdata[at..at + 4].try_into().expect("four bytes were taken"))
}
