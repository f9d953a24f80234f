mod made;

use std::{collections::BTreeMap, net::IpAddr, ops::Range, sync::Arc, time::Duration};

use proptest::prelude::*;

use self::made::*;
use super::*;
use crate::{
    config::model::{
        Admin, Endpoints, Geo, Latency, Learning, Limits, MinHealthy, Policy, Region, RegionId, Route, Server,
        WeightedAddress, WhenAllDown, ZoneText,
    },
    geo::Coordinates,
    zone::rdata::types::{self, Shown},
};

fn shown(content: &ZoneContent) -> Vec<String> {
    let hex = |data: &Vec<u8>| data.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let sets = content.rrsets.iter().map(|set| {
        let data: Vec<String> = set.rdatas.iter().map(hex).collect();
        format!("{} {} {} {}", set.owner, set.ttl_s, Shown(set.rtype), data.join(" "))
    });
    sets.collect()
}

/// `file:line: message | remedy`
fn problems(zones: Vec<Zone>) -> Vec<String> {
    let show =
        |p: Problem| format!("{}: {} | {}", check::place(&p.spot.unwrap()), p.message, p.help.expect("a remedy"));
    match gather(&config(zones)) {
        Ok(contents) => contents.into_iter().flat_map(|c| c.warnings).map(|p| format!("({})", show(p))).collect(),
        Err(report) => report.problems.into_iter().map(show).collect(),
    }
}

/// The messages alone, with their place; warnings in parentheses.
fn told(zones: Vec<Zone>) -> Vec<String> {
    let short = |p: String| match p.split_once(" | ").expect("a remedy").0 {
        warning if p.starts_with('(') => format!("{warning})"),
        problem => problem.to_string(),
    };
    problems(zones).into_iter().map(short).collect()
}

#[test]
fn what_the_texts_lack_is_synthesised() {
    let mut zone = zone("x", "");
    zone.nameservers = vec![name("ns1.x"), name("ns.example.net")];
    zone.addresses =
        BTreeMap::from([(name("ns1.x"), vec!["192.0.2.1".parse::<IpAddr>().unwrap(), "2001:db8::1".parse().unwrap()])]);
    let contents = gather(&config(vec![zone])).unwrap();
    let serial = contents[0].serial;
    let soa = [
        "036e7331017800",
        "0a686f73746d6173746572076578616d706c65036e657400",
        &format!("{serial:08x}"),
        "00003840",
        "00000e10",
        "00127500",
        "0000001e",
    ];
    assert_eq!(
        shown(&contents[0]),
        [
            "x. 3600 NS 026e73076578616d706c65036e657400 036e7331017800",
            &format!("x. 3600 SOA {}", soa.concat()),
            "ns1.x. 3600 A c0000201",
            "ns1.x. 3600 AAAA 20010db8000000000000000000000001",
        ]
    );
}

#[test]
fn soa_and_ns_of_the_texts_win() {
    let zone = zone("x", "@ 5 SOA a b 7 1 1 1 1\n@ NS ns.other.\n");
    let contents = gather(&config(vec![zone])).unwrap();
    assert_eq!(contents[0].serial, 7);
    assert_eq!(
        shown(&contents[0]),
        [
            "x. 5 NS 026e73056f7468657200",
            "x. 5 SOA 01610178000162017800\
         0000000700000001000000010000000100000001",
        ]
    );
}

#[test]
fn records_of_one_owner_and_type_are_one_set() {
    let mut zone = zone("x", "w 300 A 192.0.2.2\nv A 192.0.2.3\nW 30 A 192.0.2.1\nw 600 A 192.0.2.2\n");
    zone.texts.push(ZoneText {
        spot: Spot { span: 0..14, source: Arc::new(Source { name: "i".into(), text: "w 9 AAAA 2::1\n".into() }) },
        folder: None,
    });
    let contents = gather(&config(vec![zone])).unwrap();
    assert_eq!(
        shown(&contents[0])[..3],
        ["v.x. 300 A c0000203", "w.x. 30 A c0000201 c0000202", "w.x. 9 AAAA 00020000000000000000000000000001"]
    );
}

#[test]
fn a_synthesised_serial_follows_the_content_and_nothing_else() {
    let make = |text: &str, routes: Vec<Route>| {
        let mut zone = zone("x", text);
        zone.routes = routes;
        gather(&config(vec![zone])).unwrap()[0].serial
    };
    let plain = make("w A 192.0.2.1\nv A 192.0.2.2", vec![]);
    // Both figures were worked out from the written definition alone. Servers of all versions must agree on them.
    assert_eq!(plain, 480_824_107);
    assert_eq!(make("v A 192.0.2.2 ; order and comments\n\nw A 192.0.2.1", vec![]), plain);
    assert_ne!(make("w A 192.0.2.1\nv A 192.0.2.3", vec![]), plain);
    assert_ne!(make("w 61 A 192.0.2.1\nv A 192.0.2.2", vec![]), plain);
    let text = "w A 192.0.2.1\nv A 192.0.2.2";
    let (a, b) = (route("a.x", &[0, 1], 5), route("b.x", &[1], 9));
    let routed = make(text, vec![a.clone(), b.clone()]);
    assert_eq!(routed, 1_444_320_435);
    assert_eq!(make(text, vec![b.clone(), a.clone()]), routed);
    for change in [
        Route { ttl_s: 61, ..a.clone() },
        Route { policy: Policy::Failover, ..a.clone() },
        Route { policy: Policy::Weighted(vec![1, 2]), ..a.clone() },
        Route { max_answers: 7, ..a.clone() },
        Route { when_all_down: WhenAllDown::NoData, ..a.clone() },
        Route { regions: vec![RegionId(1), RegionId(0)], ..a.clone() },
        Route { endpoints: BTreeMap::from([(RegionId(0), addresses(&["192.0.2.11"]))]), ..a.clone() },
    ] {
        assert_ne!(make(text, vec![change, b.clone()]), routed);
    }
}

#[test]
fn what_cannot_stand_together_is_told() {
    for (text, expected) in [
        // Fine as it is.
        (
            "w CNAME v\nw RRSIG CNAME 13 2 60 0 0 1 x. AQID\nd NS n.d\nn.d A 192.0.2.1\nd DS 1 8 2 ".to_string()
                + &"ab".repeat(32),
            &[][..],
        ),
        ("*.a CNAME b\n*.a.b A 192.0.2.1\nd DNAME e\nd TXT x\ne.f.g A 192.0.2.1".into(), &[]),
        ("@ DNAME y.".into(), &[]),
        // Owners.
        ("w.y. A 192.0.2.1".into(), &["x.zone:1: `w.y.` lies outside the zone `x.`"]),
        ("notx. A 192.0.2.1".into(), &["x.zone:1: `notx.` lies outside the zone `x.`"]),
        // SOA.
        (
            "@ SOA a b 1 1 1 1 1\n@ SOA a b 2 1 1 1 1".into(),
            &["x.zone:2: `x.` has 2 different SOA records; only one can be"],
        ),
        ("w SOA a b 1 1 1 1 1".into(), &["x.zone:1: a SOA at `w.x.`, which is not the apex `x.`"]),
        // CNAME and DNAME.
        (
            "w CNAME v\nw CNAME u\nw CNAME v".into(),
            &["x.zone:2: `w.x.` has 2 different CNAME records; only one can be"],
        ),
        ("w CNAME v\nw MX 1 u\nw A 192.0.2.1".into(), &["x.zone:1: a CNAME beside A data at `w.x.` (x.zone:3)"]),
        ("@ CNAME v".into(), &["x.zone:1: a CNAME beside NS data at `x.` (isochrone.toml:1)"]),
        ("w CNAME v\nw DNAME u".into(), &["x.zone:1: a CNAME beside DNAME data at `w.x.` (x.zone:2)"]),
        ("w DNAME v\nw DNAME u".into(), &["x.zone:2: `w.x.` has 2 different DNAME records; only one can be"]),
        ("d DNAME e\na.b.d TXT x".into(), &["(x.zone:2: `a.b.d.x.` lies below the DNAME at `d.x.` and is left out)"]),
        ("@ DNAME y.\nw A 192.0.2.1".into(), &["(x.zone:2: `w.x.` lies below the DNAME at `x.` and is left out)"]),
        (
            "d NS ns.y.\ne.d DNAME y.\nn.e.d A 192.0.2.1".into(),
            &["(x.zone:2: DNAME of `e.d.x.` is never answered: `d.x.` is delegated to other servers)"],
        ),
        ("d DNAME e\nf.d NS ns.y.".into(), &["(x.zone:2: `f.d.x.` lies below the DNAME at `d.x.` and is left out)"]),
        // Wildcards.
        ("*.w NS ns.y.".into(), &["(x.zone:1: NS at the wildcard `*.w.x.`)"]),
        ("*.w NS ns.y.\n*.w TXT x".into(), &["(x.zone:1: NS at the wildcard `*.w.x.`)"]),
        ("*.w DNAME y.".into(), &["(x.zone:1: DNAME at the wildcard `*.w.x.`)"]),
        // Delegations.
        (
            "d NS ns.y.\nd MX 1 m\na.d TXT x\nb.d A 192.0.2.1\ne.d NS ns.y.".into(),
            &[
                "(x.zone:2: MX of `d.x.` is never answered: `d.x.` is delegated to other servers)",
                "(x.zone:3: TXT of `a.d.x.` is never answered: `d.x.` is delegated to other servers)",
                "(x.zone:5: NS of `e.d.x.` is never answered: `d.x.` is delegated to other servers)",
            ],
        ),
        ("d NS ns.y.\nd CNAME e".into(), &["x.zone:2: a CNAME beside NS data at `d.x.` (x.zone:1)"]),
        (
            "d NS ns.y.\nd DNAME e".into(),
            &["(x.zone:2: DNAME of `d.x.` is never answered: `d.x.` is delegated to other servers)"],
        ),
    ] {
        assert_eq!(told(vec![zone("x", &text)]), expected, "{text}");
    }
}

#[test]
fn routes_stand_beside_no_records_of_their_own_types() {
    let at = |text: &str, routes: Vec<Route>| {
        let mut zone = zone("x", text);
        zone.routes = routes;
        told(vec![zone])
    };
    let (addresses, alias) = (|owner| vec![route(owner, &[0, 1], 9)], |owner| vec![route(owner, &[2], 9)]);
    for (text, routes, expected) in [
        ("@ MX 1 m\n@ TXT x", addresses("x"), &[][..]),
        ("v.w TXT x", alias("w.x"), &[]),
        ("v A 192.0.2.1", alias("*.x"), &[]),
        (
            "w A 192.0.2.1",
            addresses("w.x"),
            &["isochrone.toml:9: the route `w` and a static A record (x.zone:1) have the same owner"],
        ),
        (
            "\nw AAAA ::1",
            addresses("w.x"),
            &["isochrone.toml:9: the route `w` and a static AAAA record (x.zone:2) have the same owner"],
        ),
        (
            "w CNAME v",
            addresses("w.x"),
            &["isochrone.toml:9: the route `w` and a static CNAME record (x.zone:1) have the same owner"],
        ),
        (
            "w TXT v",
            alias("w.x"),
            &["isochrone.toml:9: the route `w` and a static TXT record (x.zone:1) have the same owner"],
        ),
        ("", alias("x"), &["isochrone.toml:9: the route `x` has a host name as endpoint and stands at the apex"]),
        (
            "d NS ns.y.",
            addresses("d.x"),
            &["isochrone.toml:9: the route `d` is never answered: `d.x.` is delegated to other servers"],
        ),
        (
            "d NS ns.y.",
            addresses("*.d.x"),
            &["isochrone.toml:9: the route `*` is never answered: `d.x.` is delegated to other servers"],
        ),
        ("d DNAME y.", addresses("a.d.x"), &["isochrone.toml:9: the route `a` lies below the DNAME at `d.x.`"]),
        ("", addresses("w.y"), &["isochrone.toml:9: `w.y.` lies outside the zone `x.`"]),
        (
            "",
            vec![route("w.x", &[0], 9), route("w.x", &[1], 12)],
            &["isochrone.toml:12: a second route at `w.x.` (the first: isochrone.toml:9)"],
        ),
    ] {
        assert_eq!(at(text, routes), expected, "{text}");
    }
}

#[test]
fn name_servers_in_the_zone_need_an_address() {
    let missing = |line: usize, server: &str| {
        vec![format!("(x.zone:{line}: the name server `{server}` has no address in this zone)")]
    };
    let alias = |line: usize, server: &str| vec![format!("(x.zone:{line}: the name server `{server}` is an alias)")];
    for (text, routes, expected) in [
        ("@ NS ns\nns A 192.0.2.1", vec![], vec![]),
        ("@ NS ns\nns AAAA ::1", vec![], vec![]),
        ("@ NS ns", vec![route("ns.x", &[0], 9)], vec![]),
        ("@ NS a.w\n*.w A 192.0.2.1", vec![], vec![]),
        ("@ NS a.b.w", vec![route("*.w.x", &[0], 9)], vec![]),
        ("@ NS ns.d\nd NS ns.y.", vec![], vec![]),
        ("d NS ns.d\nns.d A 192.0.2.1", vec![], vec![]),
        ("d NS d\nd AAAA ::1", vec![], vec![]),
        ("d NS ns.e\ne NS ns.y.", vec![], vec![]),
        ("@ NS ns", vec![], missing(1, "ns.x.")),
        ("@ NS ns\nns TXT x", vec![], missing(1, "ns.x.")),
        ("\nd NS ns.d", vec![], missing(2, "ns.d.x.")),
        ("d NS ns.d\n*.d A 192.0.2.1", vec![], missing(1, "ns.d.x.")),
        ("@ NS a.w\n*.w A 192.0.2.1\nb.a.w TXT x", vec![], missing(1, "a.w.x.")),
        ("@ NS c.a.w\n*.w A 192.0.2.1\na.w TXT x", vec![], missing(1, "c.a.w.x.")),
        ("@ NS ns\nns CNAME y.", vec![], alias(1, "ns.x.")),
        ("@ NS a.w\n*.w CNAME y.", vec![], alias(1, "a.w.x.")),
        ("@ NS ns", vec![route("ns.x", &[2], 9)], alias(1, "ns.x.")),
    ] {
        let mut zone = zone("x", text);
        zone.routes = routes;
        assert_eq!(told(vec![zone]), expected, "{text}");
    }
    assert_eq!(
        problems(vec![zone("x", "@ NS ns")]),
        [
            "(x.zone:1: the name server `ns.x.` has no address in this zone | add `addresses = { \"ns\" = [\"203.0.113.1\"] }` to the \
         zone, or `ns.x. A 203.0.113.1` to its records)",
        ]
    );
    // What the configuration itself names is an error.
    let mut configured = zone("x", "");
    configured.nameservers = vec![name("ns.x")];
    assert_eq!(told(vec![configured]), ["isochrone.toml:1: the name server `ns.x.` has no address in this zone"]);
}

#[test]
fn a_zone_needs_soa_and_name_servers() {
    let mut bare = zone("x", "@ TXT y");
    bare.nameservers.clear();
    assert_eq!(
        told(vec![bare.clone()]),
        ["isochrone.toml:1: the zone `x.` has no SOA record", "isochrone.toml:1: the zone `x.` has no NS record",]
    );
    // Where a record could not be read, it may be the missing one.
    let mut unread = zone("x", "@ SOA a b 1 1 1 1\n@ NS ns\nns A 1\n");
    unread.nameservers.clear();
    assert_eq!(
        told(vec![unread, bare]),
        [
            "x.zone:1: SOA data ends early: `minimum` is missing",
            "x.zone:3: address: `1` is not an IPv4 address",
            "isochrone.toml:1: the zone `x.` has no SOA record",
            "isochrone.toml:1: the zone `x.` has no NS record",
        ]
    );
}

#[test]
fn a_zone_within_a_zone_keeps_its_names_to_itself() {
    let child = || zone("c.x", "w A 192.0.2.1");
    assert_eq!(told(vec![zone("x", "w.d A 192.0.2.1"), child()]), [""; 0]);
    assert_eq!(told(vec![zone("x", "c NS ns.c\nns.c A 192.0.2.1\nc NS ns2.c"), child()]), [""; 0]);
    let mut parent = zone("x", "w.c TXT y\nc CNAME d\na.b.c A 192.0.2.1");
    assert_eq!(
        problems(vec![child(), parent.clone()]),
        [
            "(x.zone:1: TXT of `w.c.x.` is never answered: `c.x.` is a zone of its own in this configuration | move it to that zone's section, `[zones.\"c.x\"]`)",
            "(x.zone:2: CNAME of `c.x.` is never answered: `c.x.` is a zone of its own in this configuration | move it to that zone's section, `[zones.\"c.x\"]`)",
        ]
    );
    parent.routes.push(route("r.c.x", &[0], 9));
    assert_eq!(
        problems(vec![child(), parent]),
        [
            "isochrone.toml:9: the route `r` is never answered: `c.x.` is a zone of its own in this configuration | move it to that zone's section, `[zones.\"c.x\"]`",
        ]
    );
}

#[test]
fn what_no_question_reaches_is_not_served() {
    let text = "d NS n.d\nn.d A 192.0.2.1\nd MX 1 m\nd DS 1 8 2 00\na.d TXT x\nr DNAME y.\na.r A 192.0.2.1\n\
                e.d NS n.y.\nd NSEC e.x. NS\ne.d DNAME y.\n";
    let text = text.replace("8 2 00", &format!("8 2 {}", "00".repeat(32)));
    let contents = gather(&config(vec![zone("x", &text)])).unwrap();
    let sets = contents[0].rrsets.iter().filter(|set| set.owner != contents[0].origin);
    let sets: Vec<String> = sets.map(|set| format!("{} {}", set.owner, Shown(set.rtype))).collect();
    assert_eq!(sets, ["d.x. NS", "d.x. DS", "d.x. NSEC", "n.d.x. A", "r.x. DNAME"]);
}

#[test]
fn warnings_are_bounded() {
    let text: String = (0..50).map(|i| format!("w{i}.d TXT x\n")).collect();
    let contents = gather(&config(vec![zone("x", &format!("d NS n.y.\n{text}"))])).unwrap();
    let warnings = &contents[0].warnings;
    assert_eq!(warnings.len(), WARNINGS_MAX);
    assert!(warnings[0].message.contains("`w0.d.x.`"), "{warnings:?}");
    assert!(warnings[WARNINGS_MAX - 1].message.ends_with("(and 30 more of this zone)"), "{warnings:?}");
}

#[test]
fn an_rrset_fits_into_one_message() {
    let set = |count: usize| (0..count).map(|i| format!("w TXT {}{i:04}\n", "a".repeat(251))).collect::<String>();
    // 12 bytes before each record's 256.
    assert_eq!(told(vec![zone("x", &set(241))]), [""; 0]);
    assert_eq!(told(vec![zone("x", &set(242))]), ["x.zone:1: the TXT records of `w.x.` take 64856 bytes"]);
}

/// The zone of the black-box conformance checks, where those stand beside this source tree.
#[test]
fn the_conformance_zone_loads() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/conformance/zones/example.com.zone");
    let Ok(text) = std::fs::read_to_string(path) else { return };
    let mut zone = zone("example.com", &text);
    zone.nameservers.clear();
    let content = gather(&config(vec![zone])).unwrap().remove(0);
    assert_eq!((content.serial, content.rrsets.len()), (2_026_112_201, 41));
    assert_eq!(content.rrsets.iter().map(|set| set.rdatas.len()).sum::<usize>(), 64);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Whatever is accepted keeps the promises of [`ZoneContent`].
    #[test]
    fn what_is_accepted_fits_together(
        lines in prop::collection::vec(
            "(@|a|b\\.a|\\*\\.a|ns\\.b\\.a|y\\.) (A 192\\.0\\.2\\.[1-3]|NS (ns\\.b\\.a|y\\.)|CNAME (a|y\\.)|DNAME y\\.|MX 1 a|SOA a b 1 1 1 1 1)",
            0..6,
        ),
        owners in prop::collection::vec("(a\\.|b\\.a\\.|\\*\\.|c\\.)?x", 0..3),
        region in 0u8..3,
    ) {
        let mut zone = zone("x", &lines.join("\n"));
        zone.routes = owners.iter().map(|owner| route(owner, &[region], 9)).collect();
        let Ok(contents) = gather(&config(vec![zone])) else { return Ok(()) };
        let content = &contents[0];
        let types_at = |owner: &Name| content.rrsets.iter().filter(|s| s.owner == *owner).map(|s| s.rtype).collect::<Vec<_>>();
        prop_assert_eq!(content.rrsets.iter().filter(|s| s.rtype == types::SOA && s.rdatas.len() == 1).count(), 1);
        prop_assert!(types_at(&content.origin).contains(&types::NS));
        for set in &content.rrsets {
            prop_assert!(set.owner.is_within(&content.origin) && set.rdatas.is_sorted_by(|a, b| a < b));
            prop_assert!(set.rtype != types::CNAME || types_at(&set.owner) == [types::CNAME]);
        }
        for at in &content.routes {
            let types = types_at(&at.owner);
            prop_assert!(!types.iter().any(|t| [types::A, types::AAAA, types::CNAME].contains(t)));
            prop_assert!(region != 2 || types.is_empty());
        }
    }
}
