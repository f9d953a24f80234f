//! What the tests of location data share: files in a directory of their own, walks written down, random databases.

#![allow(dead_code, missing_docs)] // each test program uses its part

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use isochrone::geo::{GeoError, Locations, Place};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::mmdb::{Value, Writer, flat, nested};

/// A directory with the files of a test.
pub struct Files(pub TempDir);

impl Files {
    pub fn new() -> Self {
        Files(tempfile::tempdir().unwrap())
    }

    pub fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

pub fn open(paths: &[PathBuf]) -> Locations {
    Locations::open(paths).unwrap()
}

/// Opens and walks: where a damaged file must be refused at the latest.
pub fn verify(path: &Path) -> Result<(), GeoError> {
    Locations::open(&[path.to_owned()])?.verify().map(drop)
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub type Walked = Vec<(u128, u128, u32, Place)>;

pub fn walk_v4(locations: &Locations) -> Walked {
    let mut out = Vec::new();
    locations.walk_v4(&mut |first, last, id, place| out.push((first.into(), last.into(), id, *place))).unwrap();
    out
}

pub fn walk_v6(locations: &Locations) -> Walked {
    let mut out = Vec::new();
    locations.walk_v6(&mut |first, last, id, place| out.push((first, last, id, *place))).unwrap();
    out
}

pub fn sound_bytes() -> Vec<u8> {
    let mut writer = Writer::new(6, 28);
    for i in 0..60_u8 {
        let (lat, lon) = (f64::from(i), f64::from(i) * 2.0);
        writer.put(&format!("{}.{i}.0.0/16", i + 20), &nested("DE", "EU", lat + 0.5, lon));
        writer.put(&format!("2a{i:02x}::/24"), &flat("FR", lat as f32, lon as f32 + 0.5));
    }
    writer.finish()
}

/// A prefix that lies mostly in located space, and which of the places it has.
pub fn prefixes(v6: bool) -> impl Strategy<Value = Vec<(String, usize)>> {
    let one = (any::<u64>(), 4..=30_u32, 0..6_usize).prop_map(move |(bits, length, place)| {
        let prefix = if v6 {
            let top = 0x2000_0000_0000_0000 | bits >> 3;
            let length = length * 2;
            let bits = u128::from(top) << 64 & !(u128::MAX >> length);
            format!("{}/{length}", Ipv6Addr::from(bits))
        } else {
            let bits = (bits as u32) & !(u32::MAX >> length);
            format!("{}/{length}", Ipv4Addr::from(bits))
        };
        (prefix, place)
    });
    proptest::collection::vec(one, 1..40)
}

pub fn record(place: usize) -> Value {
    match place {
        0 => Value::Map(vec![("country_code", Value::Text("".into()))]),
        1 => nested("US", "NA", 37.4, -122.1),
        2 => nested("RU", "EU", 55.8, 37.6),
        3 => flat("RU", 43.1, 131.9),
        4 => flat("DE", 50.1, 8.7),
        _ => Value::Map(vec![("country_code", Value::Text("CH".into()))]),
    }
}

/// The place that a walk gives to an address.
pub fn walked_place(walked: &Walked, address: u128) -> Option<Place> {
    let after = walked.partition_point(|&(first, ..)| first <= address);
    let &(_, last, _, place) = walked.get(after.checked_sub(1)?)?;
    (last >= address).then_some(place)
}

/// Addresses worth asking: the borders of the ranges, their neighbours, and others.
pub fn probes(walked: &Walked, seeds: &[u128], mask: u128) -> Vec<u128> {
    let borders =
        walked.iter().flat_map(|&(first, last, ..)| [first.wrapping_sub(1), first, last, last.wrapping_add(1)]);
    borders.chain(seeds.iter().copied()).map(|address| address & mask).collect()
}
