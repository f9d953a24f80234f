//! Queries and what they are answered with, on a compiled configuration without sockets.

#[path = "support/fixture.rs"]
mod fixture;

use std::sync::{Arc, OnceLock};

use fixture::{Ask, Fixture};
use isochrone::{routing::health::TargetHealth, server::World};

const ZONE: &str = r#"
[regions.us]
location = "aws:us-east-1"
endpoints = ["192.0.2.1"]
check = "web"
[regions.eu]
location = "aws:eu-central-1"
endpoints = ["192.0.2.2", "2001:db8::2"]
check = "web"
[regions.ap]
location = "aws:ap-southeast-1"
endpoints = ["192.0.2.3", "2001:db8::3"]
check = "web"
[regions.many]
location = "SYD"
endpoints = ["192.0.2.101", "192.0.2.102", "192.0.2.103", "192.0.2.104", "192.0.2.105", "192.0.2.106"]
check = "web"
[checks.web]
type = "tcp"
port = 80
[zones."example.com"]
nameservers = ["ns1.example.com.", "ns2.example.net."]
addresses = { "ns1" = ["192.0.2.53", "2001:db8::53"] }
records = '''
@ 300 MX 10 mail
mail 300 A 192.0.2.25
www 300 A 192.0.2.80
alias 300 CNAME www
alias2 300 CNAME alias
alias-geo 300 CNAME geo
ext 300 CNAME www.example.net.
loop1 300 CNAME loop2
loop2 300 CNAME loop1
dangling 300 CNAME nothing
*.wild 300 TXT "wild"
b.*.wild 300 A 192.0.2.81
x.y.ent 300 A 192.0.2.82
sub 300 NS ns.sub
sub 300 NS ns.other.example.
sub 300 DS 1 13 2 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
ns.sub 300 A 192.0.2.90
sib 300 NS mail
moved 300 DNAME www
txts 300 TXT "a" "b"
geo 300 TXT "beside the route"
'''
[zones."example.com".routes."geo"]
regions = ["us", "eu", "ap"]
[zones."example.com".routes."*.app"]
regions = ["us", "eu", "ap"]
ttl = 30
[zones."example.com".routes."only-eu"]
regions = ["eu"]
[zones."example.com".routes."fail"]
regions = ["us", "eu"]
policy = "failover"
when-all-down = "servfail"
[zones."example.com".routes."none"]
regions = ["us"]
when-all-down = "nodata"
[zones."example.com".routes."weights"]
regions = ["us", "eu", "ap"]
policy = "weighted"
weights = { us = 1, eu = 1, ap = 2 }
[zones."example.com".routes."many"]
regions = ["many"]
max-answers = 2
[zones."example.com".routes."ruled"]
regions = ["us", "eu", "ap"]
[[zones."example.com".routes."ruled".rules]]
clients = ["10.0.0.0/8", "2001:db8:1::/48"]
regions = ["ap"]
[[zones."example.com".routes."ruled".rules]]
clients = ["continent:EU"]
regions = ["us", "ap"]
[zones."example.com".routes."names"]
regions = ["us", "eu"]
endpoints = { us = ["us.cdn.example.net"], eu = ["www.example.com"] }
"#;

const SOA: &str = "ns1.example.com. hostmaster.example.com.";
const FRANKFURT: &str = "18.184.0.0/24";
const VIRGINIA: &str = "3.80.0.0/24";
const SINGAPORE: &str = "13.228.0.0/24";

fn zone() -> Fixture {
    static WORLD: OnceLock<Arc<World>> = OnceLock::new();
    Fixture::of(WORLD.get_or_init(|| Fixture::new(ZONE).world).clone())
}

/// Whole replies to static questions; the serial of the SOA is left out, and the parser shows DNAME data as base64.
#[test]
fn static_names_are_answered_by_the_book() {
    let mut fixture = zone();
    let negative = format!("example.com. 60 SOA {SOA} SERIAL 14400 3600 1209600 60");
    let cases = [
        ("www.example.com", "A", "0 aa | www.example.com. 300 A 192.0.2.80 |  | ".to_string()),
        ("www.example.com", "AAAA", format!("0 aa |  | {negative} | ")),
        ("nope.example.com", "A", format!("3 aa |  | {negative} | ")),
        ("a.b.nope.example.com", "A", format!("3 aa |  | {negative} | ")),
        ("y.ent.example.com", "A", format!("0 aa |  | {negative} | ")),
        ("ent.example.com", "A", format!("0 aa |  | {negative} | ")),
        ("z.ent.example.com", "A", format!("3 aa |  | {negative} | ")),
        ("foo.wild.example.com", "TXT", "0 aa | foo.wild.example.com. 300 TXT wild |  | ".into()),
        ("foo.bar.wild.example.com", "TXT", "0 aa | foo.bar.wild.example.com. 300 TXT wild |  | ".into()),
        ("foo.wild.example.com", "A", format!("0 aa |  | {negative} | ")),
        ("*.wild.example.com", "TXT", "0 aa | *.wild.example.com. 300 TXT wild |  | ".into()),
        ("x.*.wild.example.com", "TXT", format!("3 aa |  | {negative} | ")),
        (
            "alias2.example.com",
            "A",
            "0 aa | alias2.example.com. 300 CNAME alias.example.com., alias.example.com. 300 CNAME www.example.com., \
             www.example.com. 300 A 192.0.2.80 |  | "
                .into(),
        ),
        ("alias.example.com", "CNAME", "0 aa | alias.example.com. 300 CNAME www.example.com. |  | ".into()),
        ("ext.example.com", "A", "0 aa | ext.example.com. 300 CNAME www.example.net. |  | ".into()),
        (
            "loop1.example.com",
            "A",
            "0 aa | loop1.example.com. 300 CNAME loop2.example.com., loop2.example.com. 300 CNAME loop1.example.com. |  | "
                .into(),
        ),
        (
            "dangling.example.com",
            "A",
            format!("3 aa | dangling.example.com. 300 CNAME nothing.example.com. | {negative} | "),
        ),
        ("alias.example.com", "MX", format!("0 aa | alias.example.com. 300 CNAME www.example.com. | {negative} | ")),
        (
            "x.sub.example.com",
            "A",
            "0 |  | sub.example.com. 300 NS ns.sub.example.com., sub.example.com. 300 NS ns.other.example. | \
             ns.sub.example.com. 300 A 192.0.2.90"
                .into(),
        ),
        (
            "sub.example.com",
            "DS",
            "0 aa | sub.example.com. 300 DS 1 13 2 000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F |  | "
                .into(),
        ),
        (
            "x.sib.example.com",
            "A",
            "0 |  | sib.example.com. 300 NS mail.example.com. | mail.example.com. 300 A 192.0.2.25".into(),
        ),
        (
            "a.moved.example.com",
            "A",
            format!(
                "3 aa | moved.example.com. 300 DNAME A3d3dwdleGFtcGxlA2NvbQA=, a.moved.example.com. 300 CNAME a.www.example.com. | {negative} | "
            ),
        ),
        ("geo.example.com", "TXT", "0 aa | geo.example.com. 300 TXT beside the route |  | ".into()),
        ("geo.example.com", "MX", format!("0 aa |  | {negative} | ")),
        ("www.example.org", "A", "5 |  |  | ".into()),
        ("com", "NS", "5 |  |  | ".into()),
        ("example.com", "AXFR", "5 |  |  | ".into()),
    ];
    let serial = fixture.world.contents[0].serial.to_string();
    for (name, qtype, expected) in cases {
        let text = fixture.ask(&Ask::new(name, qtype)).text().replace(&serial, "SERIAL");
        let text = text.replace("\"", "");
        assert_eq!(text, expected, "{name} {qtype}");
    }
}

#[test]
fn each_client_gets_its_nearest_region() {
    let mut fixture = zone();
    for (client, address) in [(FRANKFURT, "192.0.2.2"), (VIRGINIA, "192.0.2.1"), (SINGAPORE, "192.0.2.3")] {
        for name in ["geo.example.com", "x.app.example.com", "alias-geo.example.com"] {
            let answer = fixture.ask(&Ask::new(name, "A").from_client(client));
            assert_eq!(answer.addresses(), [address], "{name} for {client}");
            assert!(answer.scope_len.unwrap() > 0);
        }
    }
}

#[test]
fn a_failed_region_gives_its_clients_to_the_next_and_takes_them_back() {
    let mut fixture = zone();
    let ask = Ask::new("x.app.example.com", "A").from_client(FRANKFURT);
    let before = fixture.ask(&ask);
    fixture.set_down(&["192.0.2.2", "2001:db8::2"]);
    let failed_over = fixture.ask(&ask);
    assert_eq!(failed_over.addresses(), ["192.0.2.1"]);
    assert_eq!(failed_over.scope_len, before.scope_len, "health never changes a scope");
    fixture.set_down(&[]);
    assert_eq!(fixture.ask(&ask).addresses(), ["192.0.2.2"]);
}

#[test]
fn families_are_walked_apart() {
    let mut fixture = zone();
    // us has no IPv6 endpoint: its clients get the nearest region that has.
    let v6 = fixture.ask(&Ask::new("geo.example.com", "AAAA").from_client(VIRGINIA));
    assert_eq!(v6.addresses(), ["2001:db8::2"]);
    // One member of two is enough for the region, but only its own family is answered.
    fixture.set_down(&["2001:db8::2"]);
    let ask = Ask::new("geo.example.com", "AAAA").from_client(FRANKFURT);
    assert_eq!(fixture.ask(&ask).addresses(), ["2001:db8::3"]);
    assert_eq!(fixture.ask(&Ask::new("geo.example.com", "A").from_client(FRANKFURT)).addresses(), ["192.0.2.2"]);
    // No region of the route has the family: NODATA for everybody.
    let none = fixture.ask(&Ask::new("none.example.com", "AAAA").from_client(FRANKFURT));
    assert_eq!((none.rcode().as_str(), none.addresses().len(), none.scope_len), ("No Error", 0, Some(0)));
}

#[test]
fn when_all_are_down_the_route_says_what_happens() {
    let mut fixture = zone();
    fixture.set_down(&["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::2", "2001:db8::3"]);
    assert_eq!(fixture.ask(&Ask::new("geo.example.com", "A").from_client(SINGAPORE)).addresses(), ["192.0.2.3"]);
    assert_eq!(fixture.ask(&Ask::new("fail.example.com", "A")).rcode(), "Server Failure");
    let nodata = fixture.ask(&Ask::new("none.example.com", "A").from_client(SINGAPORE));
    assert_eq!((nodata.rcode().as_str(), nodata.message.authorities.len()), ("No Error", 1));
    assert_eq!(nodata.scope_len, Some(0));
}

#[test]
fn failover_follows_the_list_and_depends_on_no_client() {
    let mut fixture = zone();
    let ask = Ask::new("fail.example.com", "A").from_client(FRANKFURT);
    let first = fixture.ask(&ask);
    assert_eq!((first.addresses(), first.scope_len), (vec!["192.0.2.1".to_string()], Some(0)));
    fixture.set_down(&["192.0.2.1"]);
    assert_eq!(fixture.ask(&ask).addresses(), ["192.0.2.2"]);
}

#[test]
fn scope_is_zero_where_no_client_matters() {
    let mut fixture = zone();
    for (name, qtype) in [
        ("www.example.com", "A"),
        ("nope.example.com", "A"),
        ("only-eu.example.com", "A"),
        ("only-eu.example.com", "AAAA"),
        ("geo.example.com", "MX"),
        ("x.sub.example.com", "A"),
    ] {
        let scope_len = fixture.ask(&Ask::new(name, qtype).from_client(FRANKFURT)).scope_len;
        assert_eq!(scope_len, Some(0), "{name} {qtype}");
    }
    let everybody = fixture.ask(&Ask::new("geo.example.com", "A").from_client("0.0.0.0/0"));
    assert_eq!(everybody.scope_len, Some(0), "source length 0");
}

#[test]
fn weighted_answers_hold_for_a_network_and_only_a_failed_share_moves() {
    let mut fixture = zone();
    let ask = |n: u32| Ask::new("weights.example.com", "A").from_client(&format!("20.{}.{}.0/24", n / 256, n % 256));
    let before: Vec<_> = (0..600).map(|n| fixture.ask(&ask(n))).collect();
    let share = before.iter().filter(|answer| answer.addresses() == ["192.0.2.3"]).count();
    assert!((230..370).contains(&share), "ap has half of the weight: {share} of 600");
    assert!(before.iter().all(|answer| answer.scope_len == Some(24)));
    let v6 = fixture.ask(&Ask::new("weights.example.com", "A").from_client("2a00:1450::/32"));
    assert_eq!(v6.scope_len, Some(48));
    fixture.set_down(&["192.0.2.1"]);
    for (n, was) in before.iter().enumerate() {
        let now = fixture.ask(&ask(n as u32)).addresses();
        assert!(now == was.addresses() || was.addresses() == ["192.0.2.1"], "network {n} moved without need");
        assert_ne!(now, ["192.0.2.1"]);
    }
}

#[test]
fn a_large_region_answers_a_window_of_neighbours() {
    let mut fixture = zone();
    let mut seen = std::collections::BTreeSet::new();
    for n in 0..200 {
        let ask = Ask::new("many.example.com", "A").from_client(&format!("20.0.{n}.0/24"));
        let answer = fixture.ask(&ask);
        assert_eq!((answer.addresses().len(), answer.scope_len), (2, Some(24)));
        assert_eq!(answer.addresses(), fixture.ask(&ask).addresses(), "one network, one window");
        seen.extend(answer.addresses());
    }
    assert_eq!(seen.len(), 6, "all endpoints have their turn");
    fixture.set_down(&["192.0.2.101", "192.0.2.102", "192.0.2.103", "192.0.2.104", "192.0.2.105"]);
    assert_eq!(fixture.ask(&Ask::new("many.example.com", "A")).addresses(), ["192.0.2.106"]);
}

#[test]
fn addresses_rotate_from_answer_to_answer() {
    let mut fixture = Fixture::new(&ZONE.replace("max-answers = 2", "max-answers = 8"));
    let mut first_of = || {
        let answer = fixture.ask(&Ask::new("many.example.com", "A"));
        assert_eq!(answer.addresses().len(), 6);
        answer.message.answers[0].data.to_string()
    };
    let firsts: std::collections::BTreeSet<_> = (0..6).map(|_| first_of()).collect();
    assert_eq!(firsts.len(), 6);
}

#[test]
fn rules_fix_the_allowed_regions_and_they_are_never_left() {
    let mut fixture = zone();
    let ask = |client| Ask::new("ruled.example.com", "A").from_client(client);
    assert_eq!(fixture.ask(&ask("10.1.2.0/24")).addresses(), ["192.0.2.3"], "a prefix in no place");
    assert_eq!(fixture.ask(&ask("2001:db8:1:2::/64")).addresses(), ["192.0.2.3"]);
    assert_eq!(fixture.ask(&ask(FRANKFURT)).addresses(), ["192.0.2.1"], "Europe is kept off eu");
    assert_eq!(fixture.ask(&ask(VIRGINIA)).addresses(), ["192.0.2.1"]);
    assert_eq!(fixture.ask(&ask("10.1.2.0/24")).scope_len, Some(8));
    fixture.set_down(&["192.0.2.3", "2001:db8::3"]);
    assert_eq!(fixture.ask(&ask("10.1.2.0/24")).addresses(), ["192.0.2.3"], "fails open within the rule");
}

#[test]
fn embedded_ipv4_clients_count_as_their_ipv4() {
    let mut fixture = zone();
    let ask = |client: &str| Ask::new("geo.example.com", "A").from_client(client);
    let plain = fixture.ask(&ask(FRANKFURT));
    let plain_scope = plain.scope_len.unwrap();
    for (client, offset) in [
        ("::ffff:18.184.0.0/120", 96),
        ("64:ff9b::18.184.0.0/120", 96),
        ("2002:12b8:0000::/40", 16),
        ("2001:0:4136:e378:8000:63bf:ed47:ff00/120", 96), // Teredo carries the inverted address
    ] {
        let answer = fixture.ask(&ask(client));
        assert_eq!(answer.addresses(), plain.addresses(), "{client}");
        assert_eq!(answer.scope_len, Some(plain_scope + offset), "{client}");
    }
    let cut = fixture.ask(&ask("64:ff9b::/64"));
    assert_eq!(cut.addresses(), ["192.0.2.1"], "an unknown place: first in the file");
}

#[test]
fn an_unknown_client_counts_as_its_resolver() {
    let mut fixture = zone();
    fixture.resolver = "13.228.0.1".parse().unwrap();
    let ask = Ask::new("geo.example.com", "A").from_client("10.0.0.0/24");
    assert_eq!(fixture.ask(&ask).addresses(), ["192.0.2.3"]);
    assert_eq!(fixture.ask(&Ask::new("geo.example.com", "A")).addresses(), ["192.0.2.3"], "no ECS at all");
    fixture.resolver = "127.0.0.1".parse().unwrap();
    assert_eq!(fixture.ask(&ask).addresses(), ["192.0.2.1"], "file order");
    let near_ap = |endpoint: &str| TargetHealth {
        baseline_ms: Some(if endpoint == "192.0.2.3" { 3.0 } else { 80.0 }),
        ..TargetHealth::UNKNOWN
    };
    fixture.set_health(near_ap);
    assert_eq!(fixture.ask(&ask).addresses(), ["192.0.2.3"], "nearest to this server");
}

#[test]
fn the_ttl_falls_while_a_consulted_target_is_in_doubt() {
    let mut fixture = zone();
    let ask = Ask::new("x.app.example.com", "A").from_client(FRANKFURT);
    assert_eq!(fixture.ask(&ask).ttl(), 30);
    for (doubt_s, ttl) in [(1, 5), (7, 7), (300, 30)] {
        let in_doubt = |endpoint: &str| TargetHealth {
            doubt_s: (endpoint == "192.0.2.2").then_some(doubt_s),
            ..TargetHealth::UNKNOWN
        };
        fixture.set_health(in_doubt);
        assert_eq!(fixture.ask(&ask).ttl(), ttl);
        let elsewhere = fixture.ask(&Ask::new("x.app.example.com", "A").from_client(VIRGINIA));
        assert_eq!(elsewhere.ttl(), 30, "a target that nobody asked about");
    }
}

/// Endpoints that are held down, and endpoints that are down; region and reason of the answer to Frankfurt, family by family.
#[test]
fn what_is_held_down_answers_only_where_nothing_else_can() {
    const EU: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
    for (name, qtype, held, down, expected) in [
        ("geo", "A", &EU[..], &[][..], ("192.0.2.1", "failover")),
        ("geo", "A", &["192.0.2.2"], &[], ("192.0.2.1", "failover")),
        ("geo", "AAAA", &["192.0.2.2"], &[], ("2001:db8::2", "best")),
        ("geo", "AAAA", &EU, &[], ("2001:db8::3", "failover")),
        ("geo", "AAAA", &EU, &["2001:db8::3"], ("2001:db8::2", "last-resort")),
        ("geo", "A", &["192.0.2.1", "192.0.2.2", "192.0.2.3"], &[], ("192.0.2.2", "last-resort")),
        ("geo", "A", &["192.0.2.2"], &["192.0.2.1", "192.0.2.3"], ("192.0.2.2", "last-resort")),
        ("geo", "A", &["192.0.2.1"], &["192.0.2.2", "192.0.2.3"], ("192.0.2.1", "last-resort")),
        ("geo", "A", &["192.0.2.2"], &["192.0.2.1", "192.0.2.2", "192.0.2.3"], ("192.0.2.2", "all-down")),
        ("only-eu", "A", &EU, &[], ("192.0.2.2", "last-resort")),
        ("fail", "A", &["192.0.2.1"], &["192.0.2.2"], ("192.0.2.1", "last-resort")),
        ("none", "A", &["192.0.2.1"], &[], ("192.0.2.1", "last-resort")),
        ("ruled", "A", &["192.0.2.1", "192.0.2.3"], &[], ("192.0.2.1", "last-resort")),
    ] {
        let mut fixture = zone();
        fixture.set_health(|endpoint| TargetHealth {
            up: !down.contains(&endpoint),
            held: held.contains(&endpoint),
            ..TargetHealth::UNKNOWN
        });
        let answer = fixture.ask(&Ask::new(&format!("{name}.example.com"), qtype).from_client(FRANKFURT));
        let totals = fixture.registry.totals();
        let reason = totals.answers.keys().next().map(|labels| labels.reason);
        let told = (answer.addresses(), reason);
        assert_eq!(
            told,
            (vec![expected.0.to_string()], Some(expected.1)),
            "{name} {qtype} held {held:?} down {down:?}"
        );
    }
}

#[test]
fn the_doubt_on_what_is_held_down_counts_only_where_it_answers() {
    let mut fixture = zone();
    for (held, ttl) in [(&["192.0.2.2"][..], 60), (&["192.0.2.1", "192.0.2.2", "192.0.2.3"], 7)] {
        fixture.set_health(|endpoint| TargetHealth {
            held: held.contains(&endpoint),
            doubt_s: (endpoint == "192.0.2.2").then_some(7),
            ..TargetHealth::UNKNOWN
        });
        assert_eq!(fixture.ask(&Ask::new("geo.example.com", "A").from_client(FRANKFURT)).ttl(), ttl, "{held:?}");
    }
}

#[test]
fn name_endpoints_are_cnames_that_are_followed_inside_the_zone() {
    let mut fixture = zone();
    let us = fixture.ask(&Ask::new("names.example.com", "A").from_client(VIRGINIA));
    assert!(us.text().starts_with("0 aa | names.example.com. 60 CNAME us.cdn.example.net. |"), "{}", us.text());
    let eu = fixture.ask(&Ask::new("names.example.com", "A").from_client(FRANKFURT));
    let expected = "0 aa | names.example.com. 60 CNAME www.example.com., www.example.com. 300 A 192.0.2.80 |";
    assert!(eu.text().starts_with(expected), "{}", eu.text());
    assert_eq!(eu.scope_len, us.scope_len.max(eu.scope_len));
    assert!(eu.scope_len.unwrap() > 0);
}

#[test]
fn replies_keep_to_their_size() {
    let big: String = (0..20).map(|n| format!("big 60 TXT \"{n:02}-{}\"\n", "x".repeat(190))).collect();
    let mut fixture = Fixture::new(&ZONE.replace("txts 300", &format!("{big}txts 300")));
    let whole = fixture.ask(&Ask::new("big.example.com", "TXT").tcp());
    assert_eq!(whole.message.answers.len(), 20);
    for payload in [None, Some(0), Some(512), Some(1232), Some(65_535)] {
        let mut ask = Ask::new("big.example.com", "TXT");
        ask.payload = payload;
        let answer = fixture.ask(&ask);
        let limit = usize::from(payload.unwrap_or(512)).clamp(512, 1232);
        assert!(answer.bytes.len() <= limit, "{payload:?}");
        assert!(answer.message.metadata.truncation);
        assert!(answer.message.answers.is_empty(), "never a part of an RRset");
    }
    assert_eq!(fixture.registry.totals().truncated, 5);
}

#[test]
fn answers_are_counted_by_region_and_reason() {
    let mut fixture = zone();
    let ask = Ask::new("geo.example.com", "A").from_client(FRANKFURT);
    fixture.ask(&ask);
    fixture.set_down(&["192.0.2.2", "2001:db8::2"]);
    fixture.ask(&ask);
    fixture.ask(&ask);
    let totals = fixture.registry.totals();
    let counted: Vec<_> =
        totals.answers.iter().map(|(l, n)| (l.route.as_deref().unwrap(), &*l.region, l.reason, *n)).collect();
    assert_eq!(counted, [("geo", "eu", "best", 1), ("geo", "us", "failover", 2)]);
    assert_eq!((totals.ecs, totals.queries_read()), (3, 3));
}

#[test]
fn a_parent_zone_knows_the_names_of_a_child_zone_beside_it() {
    let mut fixture = Fixture::new(
        r#"
[regions.us]
location = "IAD"
endpoints = ["192.0.2.1"]
[zones."example.com"]
nameservers = ["ns1.example.net.", "ns2.example.net."]
records = """
* A 192.0.2.7
d1 DNAME d2
d2 DNAME d1
to-child CNAME child.between
s.e DNAME e
x.e A 192.0.2.8
"""
[zones."child.between.example.com"]
nameservers = ["ns1.example.net.", "ns2.example.net."]
[zones."child.between.example.com".routes."www"]
"#,
    );
    let child = "child.between.example.com";
    let ds = fixture.ask(&Ask::new(child, "DS"));
    assert!(ds.text().starts_with("0 aa |  | example.com. "), "the parent says that there is none: {}", ds.text());
    let ds = fixture.ask(&Ask::new("to-child.example.com", "DS"));
    assert_eq!((ds.message.answers.len(), ds.message.authorities.len()), (1, 1), "and so it does behind an alias");
    let between = fixture.ask(&Ask::new("between.example.com", "A"));
    assert!(between.text().starts_with("0 aa |  | example.com. "), "an empty non-terminal: {}", between.text());
    assert_eq!(fixture.ask(&Ask::new("other.example.com", "A")).addresses(), ["192.0.2.7"]);
    assert_eq!(fixture.ask(&Ask::new(&format!("www.{child}"), "A")).addresses(), ["192.0.2.1"]);
    let missing = fixture.ask(&Ask::new(&format!("nope.{child}"), "A"));
    assert!(missing.text().starts_with("3 aa |  | child.between.example.com. "), "{}", missing.text());
    // Two DNAMEs that point at each other are given once each.
    assert_eq!(fixture.ask(&Ask::new("x.d1.example.com", "A")).message.answers.len(), 4);
    // One that makes names shorter comes to an end: x.s.s.e, x.s.e, x.e.
    let shorter = fixture.ask(&Ask::new("x.s.s.e.example.com", "A"));
    assert_eq!((shorter.message.answers.len(), shorter.addresses()), (4, vec!["192.0.2.8".to_string()]));
    // A question for CNAME gets the one that the DNAME stands for, and is not taken further.
    assert_eq!(fixture.ask(&Ask::new("x.s.s.e.example.com", "CNAME")).message.answers.len(), 2);
}

#[test]
fn a_rule_that_leaves_small_regions_has_the_scope_of_its_range() {
    let mut fixture = Fixture::new(
        r#"
[regions.us]
location = "aws:us-east-1"
endpoints = ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
[regions.eu]
location = "aws:eu-central-1"
endpoints = ["198.51.100.1"]
[zones."example.com"]
nameservers = ["ns1.example.net.", "ns2.example.net."]
[zones."example.com".routes."www"]
max-answers = 1
[[zones."example.com".routes."www".rules]]
clients = ["18.0.0.0/8"]
regions = ["eu"]
"#,
    );
    let ruled = fixture.ask(&Ask::new("www.example.com", "A").from_client(FRANKFURT));
    assert_eq!((ruled.addresses(), ruled.scope_len), (vec!["198.51.100.1".to_string()], Some(8)));
    let windowed = fixture.ask(&Ask::new("www.example.com", "A").from_client(VIRGINIA));
    assert_eq!(windowed.scope_len, Some(24));
}

#[test]
fn a_doubt_lowers_only_the_ttls_that_it_can_change() {
    let mut fixture = zone();
    let v6_in_doubt =
        |endpoint: &str| TargetHealth { doubt_s: (endpoint == "2001:db8::2").then_some(1), ..TargetHealth::UNKNOWN };
    fixture.set_health(v6_in_doubt);
    assert_eq!(fixture.ask(&Ask::new("x.app.example.com", "A").from_client(FRANKFURT)).ttl(), 30);
    assert_eq!(fixture.ask(&Ask::new("x.app.example.com", "AAAA").from_client(FRANKFURT)).ttl(), 5);
    // A negative answer that may soon turn positive is not kept for long, either.
    let down_in_doubt = |endpoint: &str| TargetHealth {
        up: endpoint != "192.0.2.1",
        doubt_s: (endpoint == "192.0.2.1").then_some(7),
        ..TargetHealth::UNKNOWN
    };
    fixture.set_health(down_in_doubt);
    let none = fixture.ask(&Ask::new("none.example.com", "A"));
    assert_eq!((none.message.answers.len(), none.message.authorities[0].ttl), (0, 7));
}

#[test]
fn an_explanation_agrees_with_the_answer() {
    use isochrone::answer::explain::{Request, parse_client, parse_qtype};
    let fixture = zone();
    for (client, chosen) in [("18.184.0.41", "eu"), ("1.0.0.41", "ap"), ("3.80.0.1", "us")] {
        let request = Request {
            name: "geo.example.com".parse().unwrap(),
            qtype: parse_qtype("A").unwrap(),
            client: Some(parse_client(client).unwrap()),
        };
        let explanation = fixture.world.explain(&request);
        assert_eq!(explanation.chosen.as_deref(), Some(chosen), "{client}");
        assert!(explanation.scope.is_some_and(|scope| scope > 0), "{client}: {:?}", explanation.scope);
        assert_eq!(explanation.candidates.len(), 3);
    }
}

#[test]
fn the_hints_of_an_https_record_follow_the_region_that_answers() {
    let mut fixture = Fixture::new(
        r#"
[checks.web]
type = "tcp"
port = 80
[regions.us]
location = "aws:us-east-1"
endpoints = ["192.0.2.1", "192.0.2.2", "2001:db8:1::1"]
check = "web"
[regions.eu]
location = "aws:eu-west-1"
endpoints = ["198.51.100.1"]
check = "web"
[zones."example.com"]
nameservers = ["ns1.example.net."]
[zones."example.com".routes."*.app"]
https = "1 . alpn=h2,h3 port=8443"
[zones."example.com".routes.without]
"#,
    );
    let ask = |fixture: &mut Fixture, client: &str| {
        let answer = fixture.ask(&Ask::new("www.app.example.com", "HTTPS").from_client(client));
        (answer.data(hickory_proto::rr::RecordType::HTTPS).join(" "), answer.ttl(), answer.scope_len.unwrap() > 0)
    };
    let us = "1 . alpn=h2 h3 port=8443 ipv4hint=192.0.2.1 192.0.2.2 ipv6hint=2001:db8:1::1";
    let eu = "1 . alpn=h2 h3 port=8443 ipv4hint=198.51.100.1";
    let plain = |(text, ttl_s, has_scope): (String, u32, bool)| {
        (text.replace(',', " ").split_whitespace().collect::<Vec<_>>().join(" "), ttl_s, has_scope)
    };
    assert_eq!(plain(ask(&mut fixture, "3.80.0.0/24")), (us.into(), 60, true));
    assert_eq!(plain(ask(&mut fixture, "18.200.0.0/24")), (eu.into(), 60, true));
    fixture.set_down(&["192.0.2.1", "2001:db8:1::1"]);
    let one_up = "1 . alpn=h2 h3 port=8443 ipv4hint=192.0.2.2";
    assert_eq!(plain(ask(&mut fixture, "3.80.0.0/24")), (one_up.into(), 60, true));
    fixture.set_down(&["192.0.2.1", "192.0.2.2", "2001:db8:1::1"]);
    assert_eq!(plain(ask(&mut fixture, "3.80.0.0/24")), (eu.into(), 60, true));
    let nothing = fixture.ask(&Ask::new("without.example.com", "HTTPS"));
    assert!(nothing.message.answers.is_empty() && nothing.rcode() == "No Error", "{}", nothing.text());
}
