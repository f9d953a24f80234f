//! The compiled location table: made from databases made here, walked, looked up, damaged; and the built-in one.

#[path = "support/located.rs"]
mod located;
#[path = "support/mmdb.rs"]
mod mmdb;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use isochrone::geo::{GeoError, Locations, compile::compile, special};
use located::*;
use mmdb::{Value, Writer};
use proptest::prelude::*;

#[test]
fn the_built_in_table_places_well_known_networks() {
    let builtin = Locations::builtin();
    for (address, country) in [
        ("193.0.6.139", "NL"),
        ("141.1.1.1", "DE"),
        ("133.11.0.1", "JP"),
        ("200.160.2.3", "BR"),
        ("2001:67c:2e8::1", "NL"),
    ] {
        let place = builtin.lookup(ip(address)).unwrap();
        assert_eq!(place.country.unwrap().as_str(), country, "{address}");
        assert!(place.continent.is_some() && place.coordinates.is_some(), "{address}");
    }
    assert_eq!(builtin.lookup(ip("10.1.2.3")), None);
    let coverage = builtin.verify().unwrap();
    assert!(coverage.v4_ranges > 1_000_000 && coverage.v6_ranges > 1_000_000, "{coverage:?}");
    assert!(builtin.build_epoch() > 1_700_000_000);
    assert!(builtin.description().contains("IP Geolocation by DB-IP"));
}

#[test]
fn a_damaged_compiled_table_is_refused() {
    let files = Files::new();
    let source = files.put("city.mmdb", sound_bytes());
    let out = files.0.path().join("a.table");
    compile(&[source], &out).unwrap();
    let sound = fs::read(&out).unwrap();
    verify(&out).unwrap();
    for length in 7..sound.len() {
        assert!(
            matches!(verify(&files.put("b.table", &sound[..length])), Err(GeoError::Corrupt { .. })),
            "cut to {length}"
        );
    }
    let walked = walk_v4(&open(std::slice::from_ref(&out)));
    for at in 0..sound.len() {
        for bit in 0..8 {
            let mut bytes = sound.clone();
            bytes[at] ^= 1 << bit;
            let path = files.put("b.table", bytes);
            match verify(&path) {
                Err(GeoError::Corrupt { .. }) => {}
                // zstd's frame header has a bit that means nothing.
                outcome => assert!(outcome.is_ok() && walk_v4(&open(&[path])) == walked, "bit {bit} of byte {at}"),
            }
        }
    }
}

#[test]
fn a_compilation_that_cannot_be_says_why() {
    let files = Files::new();
    let out = files.0.path().join("a.table");
    let error = |inputs: &[PathBuf], out: &Path| compile(inputs, out).unwrap_err().to_string();
    assert!(error(&[], &out).contains("name at least one city database"));
    let empty = files.put("empty.mmdb", Writer::new(4, 24).put("8.0.0.0/8", &Value::Map(vec![])).finish());
    assert!(error(&[empty], &out).contains("the inputs place no address at all"));
    let sound = files.put("city.mmdb", sound_bytes());
    assert!(error(&[sound], &files.0.path().join("none/a.table")).contains("check that its directory exists"));
    assert!(!out.exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_compiled_table_agrees_with_its_source_unit_by_unit(
        v4 in prefixes(false), v6 in prefixes(true), seeds in proptest::collection::vec(any::<u64>(), 64),
    ) {
        let files = Files::new();
        let mut writer = Writer::new(6, 28);
        for (prefix, place) in v4.iter().chain(&v6) {
            let (_, length) = prefix.split_once('/').unwrap();
            let longest = if prefix.contains(':') { 48 } else { 24 };
            if length.parse::<u32>().unwrap() <= longest {
                writer.put(prefix, &record(*place));
            }
        }
        // So that there is something in every case.
        writer.put("8.8.8.0/24", &record(4));
        let source = files.put("city.mmdb", writer.finish());
        let (out, again) = (files.0.path().join("a.table"), files.0.path().join("b.table"));
        let summary = compile(std::slice::from_ref(&source), &out).unwrap();
        compile(std::slice::from_ref(&source), &again).unwrap();
        prop_assert_eq!(fs::read(&out).unwrap(), fs::read(&again).unwrap());
        prop_assert_eq!(summary.bytes, fs::read(&out).unwrap().len());
        let (full, table) = (open(&[source]), open(&[out]));
        prop_assert_eq!(full.build_epoch(), table.build_epoch());
        let (walked_v4, walked_v6) = (walk_v4(&table), walk_v6(&table));
        let v4 = walk_v4(&full).into_iter().flat_map(|(first, last, ..)| [first as u32, last as u32]);
        for address in v4.chain(seeds.iter().map(|&seed| seed as u32)).filter(|address| address >> 8 != 0x00c0_0000) {
            let ip = IpAddr::V4(Ipv4Addr::from(address));
            let (a, b) = (full.lookup(ip), table.lookup(ip));
            prop_assert_eq!(a.and_then(|place| place.country), b.and_then(|place| place.country), "{}", ip);
            prop_assert_eq!(walked_place(&walked_v4, address.into()), b, "{}", ip);
        }
        let v6 = walk_v6(&full).into_iter().flat_map(|(first, last, ..)| [first, last]);
        for address in v6.chain(seeds.iter().map(|&seed| u128::from(0x2000_0000_0000_0000 | seed >> 3) << 64)) {
            let embedded = special::embedded_v4(Ipv6Addr::from(address)).is_some();
            // In 2001::/23 single reachable addresses stand in unlocated networks.
            if embedded || address >> 105 == 0x2001_0000 >> 9 {
                continue;
            }
            let ip = IpAddr::V6(Ipv6Addr::from(address));
            let (a, b) = (full.lookup(ip), table.lookup(ip));
            prop_assert_eq!(a.and_then(|place| place.country), b.and_then(|place| place.country), "{}", ip);
            prop_assert_eq!(walked_place(&walked_v6, address), b, "{}", ip);
        }
    }
}
