//! Signed zones: every RRset of every kind of answer is verified with a library's code, and the proofs of what does not exist
//! are compared with what the RFCs ask for. What real validators say is in `validators.rs`.

#[path = "support/fixture.rs"]
mod fixture;

use std::{collections::BTreeSet, path::Path, sync::Arc};

use fixture::{Answer, Ask, Fixture};
use hickory_proto::{
    dnssec::{
        Verifier,
        rdata::{DNSKEY, DNSSECRData, RRSIG},
    },
    rr::{DNSClass, Name, RData, Record, RecordType},
};
use isochrone::{
    routing::health::TargetHealth,
    wire,
    zone::{ZoneTable, sign::KeyPair},
};

const DAY_S: u64 = 86_400;

const ZONE: &str = r#"
[checks.web]
type = "tcp"
port = 80

[regions.us]
location = "aws:us-east-1"
endpoints = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "2001:db8:1::1"]
check = "web"

[regions.eu]
location = "aws:eu-west-1"
endpoints = ["198.51.100.1", "198.51.100.2", "2001:db8:2::1", "2001:db8:2::2"]
check = "web"

[zones."example.com"]
nameservers = ["ns1.example.com."]
addresses = { ns1 = ["192.0.2.53"] }
negative-ttl = 30
dnssec-key = KEYS
records = """
www      300 A 192.0.2.80
www      300 TXT "one" "two"
big      300 TXT "a" "b" "c"
alias    300 CNAME www
toroute  300 CNAME x.app
chain    300 CNAME a.wild
a.b.ent  300 A 192.0.2.81
*.wild   300 CNAME *.deep
*.deep   300 A 192.0.2.82
moved    300 DNAME wild
secure   300 NS ns.secure
secure   300 DS 12345 13 2 0000000000000000000000000000000000000000000000000000000000000000
ns.secure 300 A 192.0.2.83
lame     300 NS ns.lame
lame     300 NS ns1
ns.lame  300 A 192.0.2.84
@        300 MX 10 www
mixed    300 TXT "beside a route"
"""

[zones."example.com".routes."*.app"]
https = "1 . alpn=h2,h3"
[zones."example.com".routes."@"]
[zones."example.com".routes.mixed]
regions = ["us"]
[zones."example.com".routes.few]
max-answers = 2
https = "1 ."
[zones."example.com".routes.share]
policy = "weighted"
max-answers = 1
[zones."example.com".routes.fail]
when-all-down = "servfail"
[zones."example.com".routes.name]
endpoints = { us = "us.example.net.", eu = "www.example.com." }

[zones."child.example.com"]
nameservers = ["ns1.example.com."]
records = "www 300 A 192.0.2.90"
dnssec-key = "child.key"

[zones."plain.example.com"]
nameservers = ["ns1.example.com."]
records = "www 300 A 192.0.2.91"
"#;

/// Keys are made for each run: nothing secret is checked in, and nothing rests on one value.
fn folder_with_keys(keys: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let of_zone = keys.iter().map(|key| (*key, "example.com"));
    for (file, zone) in of_zone.chain([("child.key", "child.example.com")]) {
        let (_, text) = KeyPair::generate(&zone.parse().unwrap()).unwrap();
        std::fs::write(folder.path().join(file), text).unwrap();
    }
    folder
}

fn fixture(keys: &[&str]) -> Fixture {
    Fixture::in_folder(&ZONE.replace("KEYS", &format!("{keys:?}")), folder_with_keys(keys).path())
}

/// All RRsets of the answer and authority sections by owner and type, and the signatures.
fn rrsets(records: &[Record]) -> Vec<(Name, RecordType, Vec<Record>)> {
    let mut sets: Vec<(Name, RecordType, Vec<Record>)> = Vec::new();
    for record in records.iter().filter(|record| record.record_type() != RecordType::RRSIG) {
        let key = (&record.name, record.record_type());
        match sets.iter_mut().find(|(name, rtype, _)| (name, *rtype) == key) {
            Some((_, _, set)) => set.push(record.clone()),
            None => sets.push((record.name.clone(), record.record_type(), vec![record.clone()])),
        }
    }
    sets
}

fn rrsig(record: &Record) -> Option<&RRSIG> {
    match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(rrsig)) => Some(rrsig),
        _ => None,
    }
}

fn dnskeys(fixture: &mut Fixture, zone: &str) -> Vec<DNSKEY> {
    let answer = fixture.ask(&Ask::new(zone, "DNSKEY").dnssec());
    let key = |record: &Record| match &record.data {
        RData::DNSSEC(DNSSECRData::DNSKEY(key)) => Some(key.clone()),
        _ => None,
    };
    answer.message.answers.iter().filter_map(key).collect()
}

/// Panics unless each RRset that must be signed has one valid signature by each key, with the RRset's TTL.
fn verify(what: &str, answer: &Answer, keys: &[DNSKEY]) {
    for section in [&answer.message.answers, &answer.message.authorities] {
        let has_dname = section.iter().any(|r| r.record_type() == RecordType::DNAME);
        for (name, rtype, set) in rrsets(section) {
            let is_referral = rtype == RecordType::NS && !answer.message.metadata.authoritative;
            let is_made_from_dname = rtype == RecordType::CNAME && has_dname && name.to_string().contains("moved");
            if is_referral || is_made_from_dname {
                continue;
            }
            let covers = |r: &&Record| r.name == name && rrsig(r).is_some_and(|s| s.input().type_covered == rtype);
            let signatures: Vec<&Record> = section.iter().filter(covers).collect();
            assert_eq!(signatures.len(), keys.len(), "{what}: signatures of {name} {rtype}\n{}", answer.text());
            for record in signatures {
                let signature = rrsig(record).unwrap();
                assert_eq!(record.ttl, set[0].ttl, "{what}: TTL of {name} {rtype} and its signature");
                let key = keys.iter().find(|key| key.calculate_key_tag().unwrap() == signature.input().key_tag);
                key.expect("the signing key is published")
                    .verify_rrsig(&name, DNSClass::IN, signature, set.iter())
                    .unwrap_or_else(|error| panic!("{what}: {name} {rtype}: {error}\n{}", answer.text()));
            }
        }
    }
}

/// `rcode; owner types TTL of each NSEC`, sorted.
fn proofs(answer: &Answer) -> String {
    let nsec = |record: &Record| match &record.data {
        RData::DNSSEC(DNSSECRData::NSEC(nsec)) => {
            let types: Vec<String> = nsec.type_bit_maps().map(|rtype| rtype.to_string()).collect();
            Some(format!("{} > {} [{}] {}", record.name, nsec.next_domain_name(), types.join(" "), record.ttl))
        }
        _ => None,
    };
    let all: BTreeSet<String> = answer.message.authorities.iter().filter_map(nsec).collect();
    let count = answer.message.authorities.iter().filter_map(nsec).count();
    assert_eq!(count, all.len(), "no proof is shown twice: {}", answer.text());
    format!("{}; {}", answer.rcode(), all.into_iter().collect::<Vec<_>>().join(", "))
}

const NAMES: [&str; 24] = [
    "example.com",
    "www.example.com",
    "WwW.example.com",
    "big.example.com",
    "alias.example.com",
    "toroute.example.com",
    "chain.example.com",
    "ent.example.com",
    "b.ent.example.com",
    "x.wild.example.com",
    "*.wild.example.com",
    "a.b.deep.example.com",
    "x.moved.example.com",
    "host.secure.example.com",
    "host.lame.example.com",
    "nope.example.com",
    "a.nope.example.com",
    "x.app.example.com",
    "app.example.com",
    "mixed.example.com",
    "few.example.com",
    "share.example.com",
    "fail.example.com",
    "name.example.com",
];

const TYPES: [&str; 15] = [
    "A",
    "AAAA",
    "TXT",
    "MX",
    "NS",
    "SOA",
    "DS",
    "CNAME",
    "DNSKEY",
    "CDS",
    "CDNSKEY",
    "NSEC",
    "ANY",
    "TYPE65400",
    "HTTPS",
];

const CLIENTS: [&str; 4] = ["18.184.0.0/24", "3.80.0.0/24", "18.184.77.0/24", "2a05:d018::/48"];

#[test]
fn every_answer_is_validly_signed_wherever_the_client_is_and_whatever_is_down() {
    let mut fixture = fixture(&["one.key"]);
    let keys = dnskeys(&mut fixture, "example.com");
    assert_eq!(keys.len(), 1);
    let healths: [&[&str]; 6] = [
        &[],
        &["192.0.2.1"],
        &["198.51.100.1", "198.51.100.2", "2001:db8:2::1", "2001:db8:2::2"],
        &["192.0.2.2", "192.0.2.3", "2001:db8:1::1"],
        &[
            "192.0.2.1",
            "192.0.2.2",
            "192.0.2.3",
            "192.0.2.4",
            "2001:db8:1::1",
            "198.51.100.1",
            "198.51.100.2",
            "2001:db8:2::1",
            "2001:db8:2::2",
        ],
        &[],
    ];
    // Down, and then held down though they are up.
    for (down, is_held) in healths.iter().flat_map(|down| [(down, false), (down, true)]) {
        fixture.set_health(|endpoint| TargetHealth {
            up: is_held || !down.contains(&endpoint),
            held: is_held && down.contains(&endpoint),
            ..TargetHealth::UNKNOWN
        });
        for (name, qtype) in NAMES.iter().flat_map(|name| TYPES.iter().map(move |qtype| (*name, *qtype))) {
            for client in CLIENTS {
                let answer = fixture.ask(&Ask::new(name, qtype).from_client(client).dnssec());
                verify(&format!("{name} {qtype} from {client}, down {down:?}, held {is_held}"), &answer, &keys);
            }
        }
    }
}

#[test]
fn every_window_of_a_region_with_many_endpoints_is_signed() {
    let mut fixture = fixture(&["one.key"]);
    let keys = dnskeys(&mut fixture, "example.com");
    for (down, sets) in [(&[][..], 4), (&["192.0.2.2"], 3), (&["192.0.2.1", "192.0.2.3"], 1)] {
        fixture.set_down(down);
        let mut seen = BTreeSet::new();
        for n in 0..256 {
            let ask = |qtype| Ask::new("few.example.com", qtype).from_client(&format!("3.80.{n}.0/24")).dnssec();
            let answer = fixture.ask(&ask("A"));
            verify("a window", &answer, &keys);
            seen.insert(answer.addresses());
            verify("hints of a window", &fixture.ask(&ask("HTTPS")), &keys);
        }
        assert_eq!(seen.len(), sets, "{seen:?}");
    }
}

#[test]
fn a_lowered_ttl_lowers_the_signatures_ttl_and_the_original_stays() {
    let mut fixture = fixture(&["one.key"]);
    let keys = dnskeys(&mut fixture, "example.com");
    fixture.set_health(|_| TargetHealth { doubt_s: Some(7), ..TargetHealth::UNKNOWN });
    for qtype in ["A", "AAAA"] {
        let answer = fixture.ask(&Ask::new("x.app.example.com", qtype).dnssec());
        assert_eq!(answer.ttl(), 7);
        verify("in doubt", &answer, &keys);
        let originals: BTreeSet<u32> =
            answer.message.answers.iter().filter_map(rrsig).map(|s| s.input().original_ttl).collect();
        assert_eq!(originals, BTreeSet::from([60]));
    }
}

#[test]
fn what_does_not_exist_is_proven_as_rfc_4035_asks() {
    let mut fixture = fixture(&["one.key"]);
    let keys = dnskeys(&mut fixture, "example.com");
    let apex = "example.com. > alias.example.com. [A NS SOA MX AAAA RRSIG NSEC DNSKEY CDS CDNSKEY] 30";
    let www = "www.example.com. > example.com. [A TXT RRSIG NSEC] 30";
    let wild = "*.wild.example.com. > www.example.com. [CNAME RRSIG NSEC] 30";
    let deep = "*.deep.example.com. > a.b.ent.example.com. [A RRSIG NSEC] 30";
    let big = "big.example.com. > chain.example.com. [TXT RRSIG NSEC] 30";
    let cases = [
        // NXDOMAIN: the name and the wildcard that could have stood for it (3.1.3.2).
        ("nope.example.com", "A", format!("Non-Existent Domain; {apex}, name.example.com. > ns1.example.com. [CNAME RRSIG NSEC] 30")),
        ("zzz.example.com", "A", format!("Non-Existent Domain; {apex}, {www}")),
        ("a.big.example.com", "A", format!("Non-Existent Domain; {big}")),
        // NODATA: the name's own types (3.1.3.1).
        ("www.example.com", "AAAA", format!("No Error; {www}")),
        ("example.com", "TXT", format!("No Error; {apex}")),
        ("mixed.example.com", "MX", "No Error; mixed.example.com. > moved.example.com. [A TXT AAAA RRSIG NSEC] 30".into()),
        // An empty non-terminal: nothing matches it, and what follows lies below it.
        ("b.ent.example.com", "A", format!("No Error; {deep}")),
        ("app.example.com", "A", "No Error; alias.example.com. > *.app.example.com. [CNAME RRSIG NSEC] 30".into()),
        // A wildcard stands for the name: the name itself is proven absent (3.1.3.3), and its missing type (3.1.3.4).
        ("a.b.deep.example.com", "A", format!("No Error; {deep}")),
        ("x.app.example.com", "A", "No Error; *.app.example.com. > big.example.com. [A AAAA RRSIG NSEC HTTPS] 30".into()),
        ("a.b.deep.example.com", "TXT", format!("No Error; {deep}")),
        // Through two wildcards.
        ("chain.example.com", "A", format!("No Error; {wild}")),
        // Referrals: no DS (3.1.4); one with DS needs no proof.
        ("a.lame.example.com", "A", "No Error; lame.example.com. > mixed.example.com. [NS RRSIG NSEC] 30".into()),
        ("a.secure.example.com", "A", "No Error; ".into()),
        // At the cut the zone above answers for DS, and for zones served here, too.
        ("lame.example.com", "DS", "No Error; lame.example.com. > mixed.example.com. [NS RRSIG NSEC] 30".into()),
        ("plain.example.com", "DS", "No Error; plain.example.com. > secure.example.com. [NS RRSIG NSEC] 30".into()),
        // Below a DNAME.
        ("x.y.moved.example.com", "TXT", "No Error; *.deep.example.com. > a.b.ent.example.com. [A RRSIG NSEC] 30, *.wild.example.com. > www.example.com. [CNAME RRSIG NSEC] 30".into()),
    ];
    for (name, qtype, expected) in cases {
        let answer = fixture.ask(&Ask::new(name, qtype).dnssec());
        assert_eq!(proofs(&answer), expected, "{name} {qtype}");
        verify(name, &answer, &keys);
    }
}

#[test]
fn nothing_of_dnssec_is_sent_to_those_who_do_not_ask() {
    let mut fixture = fixture(&["one.key"]);
    for (name, qtype) in NAMES.iter().flat_map(|name| ["A", "AAAA", "TXT", "ANY"].map(|qtype| (*name, qtype))) {
        for ask in [Ask::new(name, qtype), Ask::new(name, qtype).edns(1232)] {
            let message = fixture.ask(&ask).message;
            let all = message.answers.iter().chain(&message.authorities).chain(&message.additionals);
            for record in all {
                assert!(!record.record_type().is_dnssec(), "{name} {qtype}: {record}");
            }
        }
    }
}

#[test]
fn a_delegation_between_zones_served_here_is_signed() {
    let mut fixture = fixture(&["one.key"]);
    let keys = dnskeys(&mut fixture, "example.com");
    let ds = fixture.ask(&Ask::new("child.example.com", "DS").dnssec());
    verify("DS", &ds, &keys);
    let child_keys = dnskeys(&mut fixture, "child.example.com");
    let tag = child_keys[0].calculate_key_tag().unwrap();
    assert!(ds.data(RecordType::DS)[0].starts_with(&tag.to_string()), "{}", ds.text());
    let answer = fixture.ask(&Ask::new("www.child.example.com", "A").dnssec());
    verify("below", &answer, &child_keys);
    assert_eq!(answer.addresses(), ["192.0.2.90"]);
}

#[test]
fn with_two_keys_both_sign_everything_and_the_first_is_announced() {
    let mut fixture = fixture(&["new.key", "old.key"]);
    let keys = dnskeys(&mut fixture, "example.com");
    assert_eq!(keys.len(), 2);
    for (name, qtype) in NAMES.iter().flat_map(|name| TYPES.iter().map(move |qtype| (*name, *qtype))) {
        verify(name, &fixture.ask(&Ask::new(name, qtype).dnssec()), &keys);
    }
    let main = fixture.world.contents[0].keys.as_ref().unwrap().main().tag();
    let cds = fixture.ask(&Ask::new("example.com", "CDS").dnssec()).data(RecordType::CDS);
    assert_eq!(cds.len(), 1);
    assert!(cds[0].starts_with(&main.to_string()), "{cds:?}");
}

/// The signatures of four keys of a zone with a long name make a chain longer than a compression pointer reaches.
#[test]
fn a_chain_ends_where_no_pointer_reaches() {
    let folder = tempfile::tempdir().unwrap();
    let apex = format!("{0}.{0}.{0}.example.com", "l".repeat(60));
    let keys = ["1.key", "2.key", "3.key", "4.key"];
    for key in keys {
        let (_, text) = KeyPair::generate(&apex.parse().unwrap()).unwrap();
        std::fs::write(folder.path().join(key), text).unwrap();
    }
    let links: String = (0..16).map(|n| format!("c{n} 300 CNAME c{}\n", n + 1)).collect();
    let toml = format!(
        "[zones.\"{apex}\"]\nnameservers = [\"ns1.example.net.\"]\ndnssec-key = {keys:?}\n\
         records = \"\"\"\n{links}c16 300 A 192.0.2.1\n\"\"\"\n"
    );
    let mut fixture = Fixture::in_folder(&toml, folder.path());
    let answer = fixture.ask(&Ask::new(&format!("c0.{apex}"), "A").dnssec().tcp());
    let signatures = answer.message.answers.iter().filter(|record| rrsig(record).is_some()).count();
    assert_eq!(answer.rcode(), "No Error");
    assert_eq!((signatures, answer.message.answers.len() - signatures), (4 * 15, 15), "{}", answer.text());
    for record in &answer.message.answers {
        assert!(record.name.to_string().ends_with(&format!("{apex}.")), "{record}");
    }
}

#[test]
fn a_zone_is_signed_anew_in_time_and_the_others_are_left_alone() {
    let fixture = fixture(&["one.key"]);
    let now_s = fixture.snapshot.zones.zones()[0].signed.as_ref().unwrap().signer.expires_s() - 14 * DAY_S;
    let contents = &fixture.world.contents;
    let zones = ZoneTable::compile(contents, now_s);
    assert!(zones.signed_anew(contents, now_s + DAY_S).is_none());
    for later_s in [now_s + 8 * DAY_S, now_s - DAY_S] {
        let anew = zones.signed_anew(contents, later_s).expect("it is time");
        let expires_s = |zones: &ZoneTable, n: usize| zones.zones()[n].signed.as_ref().map(|s| s.signer.expires_s());
        assert_eq!(expires_s(&anew, 0), Some(later_s + 14 * DAY_S));
        assert!(Arc::ptr_eq(&anew.zones()[2], &zones.zones()[2]), "an unsigned zone is shared");
    }
}

#[test]
fn the_serial_and_the_announced_key_are_the_same_wherever_the_key_is() {
    let folder = folder_with_keys(&["one.key"]);
    let zone: wire::Name = "example.com".parse().unwrap();
    let toml = ZONE.replace("KEYS", "\"one.key\"");
    let of = |folder: &Path| {
        let fixture = Fixture::in_folder(&toml, folder);
        let content = &fixture.world.contents[0];
        (content.serial, content.keys.as_ref().unwrap().main().ds_text(&zone))
    };
    let copy = tempfile::tempdir().unwrap();
    for file in ["one.key", "child.key"] {
        std::fs::copy(folder.path().join(file), copy.path().join(file)).unwrap();
    }
    assert_eq!(of(folder.path()), of(copy.path()));
}

#[test]
fn a_written_ds_that_fits_no_key_of_a_zone_served_here_gives_way() {
    let stale = "child 300 DS 12345 13 2 0000000000000000000000000000000000000000000000000000000000000000\n\
                 plain 300 DS 12345 13 2 0000000000000000000000000000000000000000000000000000000000000000\n@        300 MX 10 www";
    let folder = folder_with_keys(&["one.key"]);
    let toml = ZONE.replace("KEYS", "\"one.key\"").replace("@        300 MX 10 www", stale);
    let mut fixture = Fixture::in_folder(&toml, folder.path());
    let ds = fixture.ask(&Ask::new("child.example.com", "DS").dnssec()).data(RecordType::DS);
    assert_eq!(ds.len(), 1);
    let tag = fixture.world.contents[1].keys.as_ref().unwrap().main().tag().to_string();
    assert!(ds[0].starts_with(&tag), "{ds:?}");
    let answer = fixture.ask(&Ask::new("plain.example.com", "DS").dnssec());
    assert_eq!(proofs(&answer), "No Error; plain.example.com. > secure.example.com. [NS RRSIG NSEC] 30");
    assert_eq!(fixture.world.warnings.len(), 2, "{:?}", fixture.world.warnings);
}

#[test]
fn a_key_that_is_not_announced_signs_and_the_zone_above_does_not_know_of_it() {
    let folder = folder_with_keys(&["one.key"]);
    let toml = ZONE.replace("KEYS", "\"one.key\"");
    let toml = toml.replace("dnssec-key = \"child.key\"", "dnssec-key = \"child.key\"\ndnssec-announce = false");
    let mut fixture = Fixture::in_folder(&toml, folder.path());
    let ds = fixture.ask(&Ask::new("child.example.com", "DS").dnssec());
    assert_eq!(proofs(&ds), "No Error; child.example.com. > *.deep.example.com. [NS RRSIG NSEC] 30");
    let keys = dnskeys(&mut fixture, "child.example.com");
    verify("unannounced", &fixture.ask(&Ask::new("www.child.example.com", "A").dnssec()), &keys);
    for qtype in ["CDS", "CDNSKEY"] {
        assert!(fixture.ask(&Ask::new("child.example.com", qtype).dnssec()).message.answers.is_empty());
    }
}

#[test]
fn name_servers_of_a_wildcard_cannot_be_signed() {
    let folder = tempfile::tempdir().unwrap();
    let (_, text) = KeyPair::generate(&"example.com".parse().unwrap()).unwrap();
    std::fs::write(folder.path().join("one.key"), text).unwrap();
    let toml =
        "[zones.\"example.com\"]\nnameservers = [\"ns1.example.net.\"]\nrecords = \"*.w 300 NS ns.example.net.\"";
    let refused = |toml: &str| {
        let source = Arc::new(isochrone::config::Source { name: "test.toml".into(), text: toml.into() });
        let config = isochrone::config::parse(source, folder.path()).unwrap();
        isochrone::zone::content::gather(&config).err().map(|report| report.to_string()).unwrap_or_default()
    };
    assert_eq!(refused(toml), "");
    let report = refused(&format!("{toml}\ndnssec-key = \"one.key\""));
    assert!(report.contains("NS records at the wildcard `*.w.example.com.` cannot be in a signed zone"), "{report}");
}
