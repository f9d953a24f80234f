//! Location databases from end to end: files made byte by byte, opened, walked, looked up, damaged.

#[path = "support/located.rs"]
mod located;
#[path = "support/mmdb.rs"]
mod mmdb;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use isochrone::geo::{AsnTable, Continent, GeoError, Locations, Place, special};
use located::*;
use mmdb::{Value, Writer, flat, nested};
use proptest::prelude::*;

/// The country and the rounded coordinates of an address: `"DE EU 50 9"`.
fn told(locations: &Locations, address: &str) -> String {
    locations.lookup(ip(address)).map_or("nowhere".into(), |place| {
        let country = place.country.map_or("-".into(), |country| country.to_string());
        let continent = place.continent.map_or("-", Continent::code);
        let point = place.coordinates.map_or("- -".into(), |p| format!("{:.0} {:.0}", p.latitude, p.longitude));
        format!("{country} {continent} {point}")
    })
}

#[test]
fn every_layout_of_records_is_read() {
    use Value::{Double, Float, Map, Text, Unsigned};
    let text = |s: &str| Text(s.into());
    let cases: Vec<(Value, &str)> = vec![
        (nested("FR", "EU", 48.9, 2.4), "FR EU 49 2"),
        (flat("JP", 35.7, 139.7), "JP AS 36 140"),
        (
            Map(vec![("country_code", text("jp")), ("latitude", text("35.7")), ("longitude", text("139.7"))]),
            "JP AS 36 140",
        ),
        (Map(vec![("latitude", Double(-33.9)), ("longitude", Unsigned(18))]), "- - -34 18"),
        (Map(vec![("country_code", text("CH")), ("continent_code", text("AF"))]), "CH AF 47 8"),
        (Map(vec![("country", text("CH")), ("continent", text("EU"))]), "CH EU 47 8"),
        (Map(vec![("country", Map(vec![("iso_code", text("CH"))]))]), "CH EU 47 8"),
        (Map(vec![("country_code", text("CH")), ("latitude", text("")), ("longitude", text(""))]), "CH EU 47 8"),
        // 0° N 0° E is how "unknown" is written.
        (Map(vec![("country_code", text("CH")), ("latitude", Float(0.0)), ("longitude", Float(0.0))]), "CH EU 47 8"),
        (Map(vec![("country_code", text("ZZ"))]), "nowhere"),
        (Map(vec![("country_code", text(""))]), "nowhere"),
        (Map(vec![("continent_code", text("EU"))]), "nowhere"),
        (Map(vec![("registered_country", Map(vec![("iso_code", text("CH"))]))]), "nowhere"),
        (Map(vec![]), "nowhere"),
    ];
    let files = Files::new();
    for (record, expected) in cases {
        let path = files.put("a.mmdb", Writer::new(4, 24).put("8.0.0.0/8", &record).finish());
        assert_eq!(told(&open(&[path]), "8.8.8.8"), expected, "{record:?}");
    }
}

#[test]
fn every_record_size_and_tree_is_read() {
    let files = Files::new();
    for bits in [24, 28, 32] {
        for version in [4, 6] {
            let mut writer = Writer::new(version, bits);
            writer
                .put("8.8.0.0/16", &nested("US", "NA", 37.0, -122.0))
                .put("8.8.8.0/24", &nested("DE", "EU", 50.0, 8.0));
            if version == 6 {
                writer.put("2606:4700::/32", &flat("CA", 45.0, -73.0));
                writer.alias("::ffff:0:0/96").alias("2002::/16");
            }
            let locations = open(&[files.put("a.mmdb", writer.finish())]);
            let info = &locations.files()[0];
            assert_eq!((info.v4, info.v6, info.build_epoch_s), (true, version == 6, 1_700_000_000));
            for (address, expected) in [
                ("8.7.255.255", "nowhere"),
                ("8.8.7.255", "US NA 37 -122"),
                ("8.8.8.0", "DE EU 50 8"),
                ("8.8.9.0", "US NA 37 -122"),
                ("8.9.0.0", "nowhere"),
                ("::ffff:8.8.8.8", "DE EU 50 8"),
                ("64:ff9b::8.8.8.8", "DE EU 50 8"),
                ("2002:808:808::1", "DE EU 50 8"),
                ("2001:0:1:2:3:4:f7f7:f7f7", "DE EU 50 8"),
                ("::8.8.8.8", "nowhere"),
                ("2606:4700::1", if version == 6 { "CA NA 45 -73" } else { "nowhere" }),
            ] {
                assert_eq!(told(&locations, address), expected, "{address} in IPv{version}, {bits} bits");
            }
            let ids: Vec<_> = walk_v4(&locations).iter().map(|&(_, last, id, _)| (last as u32, id)).collect();
            assert_eq!(ids, [(0x0808_07ff, 0), (0x0808_08ff, 1), (0x0808_ffff, 0)]);
            assert_eq!(walk_v6(&locations).len(), usize::from(version == 6));
        }
    }
}

#[test]
fn a_record_that_covers_all_of_ipv4_does_not_hide_the_same_record_elsewhere() {
    let files = Files::new();
    let here = flat("NL", 52.0, 5.0);
    let path = files.put("a.mmdb", Writer::new(6, 28).put("::/64", &here).put("2a00::/16", &here).finish());
    let locations = open(&[path]);
    assert_eq!(told(&locations, "8.8.8.8"), "NL EU 52 5");
    assert_eq!(told(&locations, "2a00::1"), "NL EU 52 5");
    assert!(walk_v4(&locations).iter().any(|&(first, last, ..)| first <= 0x0808_0808 && 0x0808_0808 <= last));
    assert!(walk_v6(&locations).iter().any(|&(first, ..)| first >> 112 == 0x2a00));
}

#[test]
fn the_first_file_with_a_place_wins() {
    let files = Files::new();
    let nowhere = Value::Map(vec![("country_code", Value::Text("".into()))]);
    let mut first = Writer::new(4, 24);
    first.put("8.0.0.0/8", &flat("US", 37.0, -122.0)).put("8.8.0.0/16", &nowhere);
    let mut second = Writer::new(6, 32);
    second.put("8.0.0.0/7", &flat("DE", 50.0, 8.0)).put("2a00::/16", &flat("FR", 49.0, 2.0));
    let paths = [
        files.put("1.mmdb", first.build_epoch(2_000).finish()),
        files.put("2.mmdb", second.build_epoch(1_000).finish()),
    ];
    let locations = open(&paths);
    for (address, expected) in [
        ("8.7.0.0", "US NA 37 -122"),
        ("8.8.0.0", "DE EU 50 8"),
        ("8.9.0.0", "US NA 37 -122"),
        ("9.0.0.0", "DE EU 50 8"),
        ("2a00::", "FR EU 49 2"),
    ] {
        assert_eq!(told(&locations, address), expected, "{address}");
    }
    let ids: Vec<_> = walk_v4(&locations).iter().map(|&(first, _, id, _)| (first as u32, id)).collect();
    assert_eq!(ids, [(0x0800_0000, 0), (0x0808_0000, 1), (0x0809_0000, 0), (0x0900_0000, 1)]);
    assert_eq!(locations.build_epoch(), 1_000);
    let before = walk_v6(&locations);
    locations.release();
    assert_eq!(told(&locations, "8.8.0.0"), "DE EU 50 8");
    assert_eq!(walk_v6(&locations), before);

    // What was opened stays what it is whatever has its name.
    let held = locations.hold().unwrap();
    paths.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    assert_eq!(told(&locations, "8.8.0.0"), "DE EU 50 8");
    assert_eq!(walk_v6(&locations), before);
    drop(held);
    assert_eq!(told(&locations, "8.8.0.0"), "DE EU 50 8");
    assert_eq!(walk_v6(&locations), before);
}

#[test]
fn special_purpose_ranges_are_never_located() {
    let files = Files::new();
    let everywhere = flat("US", 37.0, -122.0);
    let path = files.put("a.mmdb", Writer::new(6, 28).put("::/0", &everywhere).finish());
    let locations = open(&[path]);
    for (walked, length) in [(walk_v4(&locations), 32), (walk_v6(&locations), 128)] {
        assert!(walked.len() > 5);
        let mut end = None;
        for &(first, last, id, _) in &walked {
            assert_eq!(id, 0);
            for (at, inside) in
                [(first.wrapping_sub(1), false), (first, true), (last, true), (last.wrapping_add(1), false)]
            {
                let address = if length == 32 {
                    let Ok(at) = u32::try_from(at) else { continue };
                    IpAddr::V4(Ipv4Addr::from(at))
                } else {
                    IpAddr::V6(Ipv6Addr::from(at))
                };
                let embedded = matches!(address, IpAddr::V6(v6) if special::embedded_v4(v6).is_some());
                assert_eq!(!special::is_special(address) && !embedded, inside, "{address}");
                assert!(embedded || locations.lookup(address).is_some() == inside, "{address}");
            }
            assert!(end.is_none_or(|end| first > end));
            end = Some(last);
        }
    }
}

#[test]
fn a_file_cut_short_anywhere_is_refused() {
    let files = Files::new();
    let sound = sound_bytes();
    verify(&files.put("a.mmdb", &sound)).unwrap();
    for length in (0..sound.len()).filter(|length| length % 13 == 0 || length + 300 > sound.len()) {
        let path = files.put("a.mmdb", &sound[..length]);
        let error = verify(&path).expect_err(&format!("cut to {length} of {} bytes", sound.len()));
        assert!(matches!(error, GeoError::Corrupt { .. }), "{error}");
    }
}

/// Both halves of each of the first nodes (28-bit records) go to the next, those of the last one to `end`: few nodes, but
/// 2^`depth` ways through them.
fn knotted(sound: &[u8], depth: usize, end: u32) -> Vec<u8> {
    let mut file = sound.to_vec();
    for node in 0..depth {
        let [_, a, b, c] = if node + 1 == depth { end } else { node as u32 + 1 }.to_be_bytes();
        file[node * 7..node * 7 + 7].copy_from_slice(&[a, b, c, 0, a, b, c]);
    }
    file
}

#[test]
fn damage_that_shows_is_refused() {
    let sound = sound_bytes();
    let nodes = sound.windows(16).position(|w| w == [0; 16]).unwrap() / 7;
    let damaged = |at: usize, bytes: &[u8]| {
        let mut file = sound.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let metadata = |key: &str, value: &[u8]| {
        let at = sound.windows(key.len()).position(|w| w == key.as_bytes()).unwrap() + key.len();
        damaged(at + 1, value) // after the control byte
    };
    let first_double = sound.windows(9).position(|w| w == b"\x48latitude").unwrap() + 9;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("text", b"network,country\n192.0.2.0/24,DE\n".to_vec()),
        ("more nodes than the file has", metadata("node_count", &[0, 255, 255, 255])),
        ("no nodes", metadata("node_count", &[0, 0, 0, 0])),
        ("a record size that is none", metadata("record_size", &[0, 20])),
        ("an IP version that is none", metadata("ip_version", &[0, 5])),
        ("a format version to come", metadata("binary_format_major_version", &[0, 3])),
        ("a tree in a circle", damaged(0, &[0; 7])),
        ("a tree that points beyond the data", damaged((nodes - 1) * 7, &[0xff; 7])),
        ("a tree that is too deep", knotted(&sound, nodes - 1, nodes as u32 - 1)),
        ("a tree of knots", knotted(&sound, 100, nodes as u32)),
        ("a number of no known size", damaged(first_double, &[0x65])),
        ("a latitude that is not on the globe", damaged(first_double + 1, &900.0_f64.to_be_bytes())),
        ("a latitude that is no number", damaged(first_double + 1, &f64::NAN.to_be_bytes())),
        ("a pointer to nowhere", damaged(first_double, &[0x38, 0xff, 0xff, 0xff, 0xff])),
    ];
    let files = Files::new();
    verify(&files.put("sound.mmdb", &sound)).unwrap();
    for (what, bytes) in cases {
        let path = files.put("city.mmdb", bytes);
        let error = verify(&path).expect_err(what);
        assert!(matches!(error, GeoError::Corrupt { .. }), "{what}: {error}");
        let text = error.to_string();
        assert!(text.contains("city.mmdb is damaged") && text.contains("fetch it again"), "{what}: {text}");
    }
}

#[test]
fn a_missing_file_and_a_file_of_the_wrong_kind_say_what_to_do() {
    let files = Files::new();
    let missing = files.0.path().join("none.mmdb");
    let error = Locations::open(&[missing]).unwrap_err().to_string();
    assert!(error.starts_with("cannot read ") && error.contains("check that the path is right"), "{error}");

    let asn = files.put("asn.mmdb", Writer::new(4, 24).put("8.0.0.0/8", &mmdb::asn(15169)).finish());
    let error = Locations::open(std::slice::from_ref(&asn)).unwrap_err().to_string();
    assert!(
        error.ends_with(
            "asn.mmdb holds AS numbers, not countries or cities; name a database with countries or cities here"
        ),
        "{error}"
    );

    let city = files.put("city.mmdb", Writer::new(4, 24).put("8.0.0.0/8", &flat("US", 37.0, -122.0)).finish());
    let error = AsnTable::open(&city).unwrap_err().to_string();
    assert!(
        error.ends_with("city.mmdb holds countries or cities, not AS numbers; name a database with AS numbers here"),
        "{error}"
    );
}

#[test]
fn as_numbers_are_read_as_numbers_and_as_text() {
    let text = |s: &str| Value::Map(vec![("asn", Value::Text(s.into()))]);
    let mut writer = Writer::new(6, 24);
    writer.put("8.8.0.0/16", &mmdb::asn(15169)).put("9.0.0.0/8", &text("AS64500")).put("10.0.0.0/8", &text("1"));
    writer.put("11.0.0.0/8", &text("")).put("12.0.0.0/8", &mmdb::asn(0)).put("2a00::/16", &text("4200000000"));
    let files = Files::new();
    let table = AsnTable::open(&files.put("asn.mmdb", writer.finish())).unwrap();
    for (address, expected) in [
        ("8.8.8.8", Some(15169)),
        ("::ffff:8.8.8.8", Some(15169)),
        ("9.9.9.9", Some(64500)),
        ("10.0.0.1", None), // special
        ("11.0.0.1", None),
        ("12.0.0.1", None),
        ("2a00::1", Some(4_200_000_000)),
        ("2a01::1", None),
    ] {
        assert_eq!(table.lookup(ip(address)), expected, "{address}");
    }
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    table.walk_v4(&mut |first, last, asn| v4.push((first, last, asn))).unwrap();
    table.walk_v6(&mut |first, _, asn| v6.push((first >> 112, asn))).unwrap();
    assert_eq!(v4, [(0x0808_0000, 0x0808_ffff, 15169), (0x0900_0000, 0x09ff_ffff, 64500)]);
    assert_eq!(v6, [(0x2a00, 4_200_000_000)]);
}

#[test]
fn published_test_databases_open_and_the_broken_ones_are_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/mmdb-test");
    let Ok(entries) = fs::read_dir(folder) else { return }; // only where somebody put them
    for path in entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "mmdb"))
    {
        let name = path.file_name().unwrap().to_string_lossy().to_lowercase();
        let broken = name.contains("broken") || name.contains("invalid");
        assert_eq!(verify(&path).is_err(), broken, "{}", path.display());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_walk_agrees_with_lookups(
        first in prefixes(false), second in prefixes(false), v6 in prefixes(true),
        version in prop_oneof![Just(4_u16), Just(6)], bits in prop_oneof![Just(24_u16), Just(28), Just(32)],
        seeds in proptest::collection::vec(any::<u128>(), 64),
    ) {
        let files = Files::new();
        let (mut one, mut two) = (Writer::new(version, bits), Writer::new(6, bits));
        first.iter().for_each(|(prefix, place)| { one.put(prefix, &record(*place)); });
        second.iter().chain(&v6).for_each(|(prefix, place)| { two.put(prefix, &record(*place)); });
        let locations = open(&[files.put("1.mmdb", one.finish()), files.put("2.mmdb", two.finish())]);
        let walked = walk_v4(&locations);
        for address in probes(&walked, &seeds, u32::MAX.into()) {
            let ip = IpAddr::V4(Ipv4Addr::from(address as u32));
            prop_assert_eq!(walked_place(&walked, address), locations.lookup(ip), "{}", ip);
        }
        let walked = walk_v6(&locations);
        for address in probes(&walked, &seeds, u128::MAX) {
            if special::embedded_v4(Ipv6Addr::from(address)).is_none() {
                let ip = IpAddr::V6(Ipv6Addr::from(address));
                prop_assert_eq!(walked_place(&walked, address), locations.lookup(ip), "{}", ip);
            }
        }
        for walked in [walk_v4(&locations), walk_v6(&locations)] {
            let mut places: Vec<Place> = Vec::new();
            for (first, last, id, place) in walked {
                prop_assert!(first <= last && id as usize <= places.len());
                if id as usize == places.len() {
                    places.push(place);
                }
                prop_assert_eq!(places[id as usize], place);
            }
        }
    }

    #[test]
    fn flipped_bits_never_bring_a_reader_down(flips in proptest::collection::vec((any::<u32>(), 0..8_u8), 1..4)) {
        let mut bytes = sound_bytes();
        for (at, bit) in flips {
            let at = at as usize % bytes.len();
            bytes[at] ^= 1 << bit;
        }
        let files = Files::new();
        let path = files.put("a.mmdb", bytes);
        match verify(&path) {
            Ok(()) | Err(GeoError::Corrupt { .. }) => {} // a flip in a name or a number is no damage that shows
            Err(other) => prop_assert!(false, "{}", other),
        }
        if let Ok(locations) = Locations::open(&[path]) {
            let _ = locations.lookup(ip("21.1.0.1"));
        }
    }
}
