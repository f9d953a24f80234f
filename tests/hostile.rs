//! Whatever bytes arrive: the core gives a verdict, its replies keep to their size and can be read, and every packet is counted.

#[path = "support/fixture.rs"]
mod fixture;

use std::sync::{Arc, OnceLock};

use fixture::{Ask, Fixture};
use hickory_proto::{op::Message, serialize::binary::BinDecodable};
use isochrone::{
    answer::{Arrival, OUT_LEN_MIN, Verdict},
    routing::health::TargetHealth,
    server::World,
    telemetry::{
        DropReason, QtypeClass, Totals, TransportKind,
        classes::{RCODES, rcode_label},
    },
    wire::{Edns, Parsed, QName, query::parse},
};
use proptest::{collection::vec, prelude::*, sample};

/// Every kind of route and static record, and the longest identity, so that options take the most room.
fn fixture() -> Fixture {
    static WORLD: OnceLock<Arc<World>> = OnceLock::new();
    let long = format!("identity = \"{}\"", "i".repeat(255));
    let toml = || include_str!("../fuzz/src/core.toml").replace("identity = \"fuzz\"", &long);
    Fixture::of(WORLD.get_or_init(|| Fixture::new(&toml()).world).clone())
}

/// Gives a packet to the core and holds the reply to everything that is true of all replies.
fn check(fixture: &mut Fixture, packet: &[u8], transport: TransportKind) -> Result<(), TestCaseError> {
    let packet = &for_transport(packet, transport);
    let room = if transport == TransportKind::Udp { OUT_LEN_MIN } else { 65_535 };
    let mut out = vec![0xa5; room];
    let arrival = Arrival { client: fixture.resolver, transport, now_s: 1_800_000_000 };
    let verdict = fixture.core.respond(packet, arrival, &fixture.snapshot, &mut out);
    let totals = fixture.registry.totals();
    prop_assert!(totals.is_balanced(), "a packet is missing from the counters");
    prop_assert_eq!(totals.queries_read(), 1);
    let is_query = packet.len() >= 12 && packet[2] & 0x80 == 0;
    let breaks_doq = transport == TransportKind::Doq && edns_of(packet).is_some_and(|edns| edns.keepalive);
    prop_assert!(!breaks_doq || verdict == Verdict::Drop(DropReason::Malformed), "keepalive over QUIC");
    let Verdict::Send(len) = verdict else {
        prop_assert!(!is_query || breaks_doq, "a query without a reply");
        return Ok(());
    };
    prop_assert!(is_query, "a reply to a response or to less than a header");
    let reply = &out[..len];
    let pads = transport.is_encrypted() && edns_of(packet).is_some_and(|edns| edns.padding);
    prop_assert!(!pads || len % 468 == 0 || len == 65_535, "{} bytes are no whole number of blocks", len);
    prop_assert!(len <= allowed(packet, transport), "{} bytes, {} are allowed", len, allowed(packet, transport));
    prop_assert_eq!(&reply[..2], &packet[..2], "the id");
    prop_assert_eq!(reply[2] & 0xf8, packet[2] & 0x78 | 0x80, "QR and the opcode");
    prop_assert_eq!(reply[3] & 0xf0, 0, "RA, Z, AD and CD are clear");
    let rcode = reply[3] & 0x0f;
    match reply[5] {
        0 => prop_assert!(packet[4..6] != [0, 1] || !matches!(rcode, 0 | 3 | 5), "the question is missing"),
        _ => {
            let end = question_end(reply);
            prop_assert_eq!(&reply[4..6], &[0, 1]);
            prop_assert_eq!(&reply[12..end], &packet[12..end], "the question");
        }
    }
    if matches!(rcode, 0 | 3) {
        let message = Message::from_bytes(reply).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert!(!message.metadata.truncation || message.answers.is_empty(), "a part of an answer");
    }
    Ok(())
}

/// The packet as it comes over this transport: over QUIC every id is 0 (RFC 9250 §4.2.1).
fn for_transport(packet: &[u8], transport: TransportKind) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if transport == TransportKind::Doq {
        packet.iter_mut().take(2).for_each(|byte| *byte = 0);
    }
    packet
}

fn edns_of(packet: &[u8]) -> Option<Edns> {
    match parse(packet, &mut QName::default()) {
        Parsed::Query(query) => query.edns,
        Parsed::Refuse(refusal) => refusal.edns,
        Parsed::Ignore(_) => None,
    }
}

/// The longest reply that may be sent (RFC 1035 §4.2.1, RFC 6891 §6.2.3).
fn allowed(packet: &[u8], transport: TransportKind) -> usize {
    match (transport, edns_of(packet)) {
        (TransportKind::Udp, None) => 512,
        (TransportKind::Udp, Some(edns)) => usize::from(edns.payload).clamp(512, 1232),
        _ => 65_535,
    }
}

fn question_end(message: &[u8]) -> usize {
    let mut at = 12;
    while message[at] != 0 {
        at += 1 + usize::from(message[at]);
    }
    at + 5
}

const NAMES: [&str; 18] = [
    "example.com",
    "www.example.com",
    "alias2.example.com",
    "loop1.example.com",
    "toroute.example.com",
    "x.app.example.com",
    "few.example.com",
    "failover.example.com",
    "weighted.example.com",
    "ruled.example.com",
    "named.example.com",
    "x.deleg.example.com",
    "b.old.example.com",
    "big.example.com",
    "nope.example.com",
    "sub.example.com",
    "id.server",
    "www.example.org",
];
const QTYPES: [u16; 14] = [1, 28, 5, 2, 6, 16, 15, 33, 43, 255, 252, 41, 250, 65_280];
/// Options of a query, each whole: client subnets (the last two malformed), cookies, NSID, keep-alive, one that nobody knows.
const OPTIONS: [&[u8]; 12] = [
    b"\0\x08\0\x07\0\x01\x18\0\xc1\0\x06",
    b"\0\x08\0\x0a\0\x02\x30\0\x20\x01\x06\x7c\x02\xe8",
    b"\0\x08\0\x14\0\x02\x80\0\0\0\0\0\0\0\0\0\0\0\xff\xff\xc1\0\x06\x8b",
    b"\0\x08\0\x04\0\x01\0\0",
    b"\0\x0a\0\x08clientck",
    b"\0\x0a\0\x18clientckserver-cookie-16",
    b"\0\x03\0\0",
    b"\0\x0b\0\0",
    b"\xfd\xe9\0\x02??",
    b"\0\x08\0\x07\0\x01\x18\x08\xc1\0\x06",
    b"\0\x08\0\x03\0\x01\x18",
    b"\0\x0c\0\x05\0\0\0\0\0",
];

/// The OPT record of a query: payload, version, flags, options.
fn opt(payload: u16, version: u8, flags: u8, options: &[u8]) -> Vec<u8> {
    let mut opt = vec![0, 0, 41];
    opt.extend(payload.to_be_bytes());
    opt.extend([0, version, flags, 0]);
    opt.extend((options.len() as u16).to_be_bytes());
    opt.extend(options);
    opt
}

fn wire(name: &str) -> Vec<u8> {
    name.parse::<isochrone::wire::Name>().unwrap().as_wire().to_vec()
}

/// A name of 255 bytes below `suffix`.
fn long_name(suffix: &str) -> Vec<u8> {
    let suffix = wire(suffix);
    let mut name = Vec::new();
    while name.len() + suffix.len() < 255 {
        let len = (255 - suffix.len() - name.len() - 1).min(63);
        name.push(len as u8);
        name.extend(std::iter::repeat_n(b'L', len));
    }
    [name, suffix].concat()
}

const LONG_SUFFIXES: [&str; 4] = ["example.com", "old.example.com", "x.app.example.com", "example.org"];

/// Names of the zones, and some of 255 bytes.
fn names() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![6 => sample::select(&NAMES[..]).prop_map(wire), 1 => sample::select(&LONG_SUFFIXES[..]).prop_map(long_name)]
}

fn real_query() -> impl Strategy<Value = Vec<u8>> {
    let payloads = sample::select(&[0, 511, 512, 513, 700, 1232, 4096, 65_535][..]);
    let versions = prop_oneof![9 => Just(0u8), 1 => Just(1)];
    let edns = (payloads, versions, sample::select(&[0u8, 0x80][..]), vec(sample::select(&OPTIONS[..]), 0..5));
    let classes = prop_oneof![8 => Just(1u16), 1 => sample::select(&[3u16, 4, 255][..])];
    (any::<u16>(), names(), sample::select(&QTYPES[..]), classes, prop::option::of(edns)).prop_map(
        |(id, name, qtype, class, edns)| {
            let mut query = id.to_be_bytes().to_vec();
            query.extend([1, 0x20, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())]);
            query.extend(name);
            query.extend(qtype.to_be_bytes());
            query.extend(class.to_be_bytes());
            if let Some((payload, version, flags, options)) = edns {
                query.extend(opt(payload, version, flags, &options.concat()));
            }
            query
        },
    )
}

/// One change of a packet.
#[derive(Debug, Clone)]
enum Change {
    Set(sample::Index, u8),
    Flip(sample::Index, u8),
    Insert(sample::Index, Vec<u8>),
    Remove(sample::Index, usize),
    Cut(sample::Index),
    Append(Vec<u8>),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (any::<sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        3 => (any::<sample::Index>(), 0..8u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        1 => (any::<sample::Index>(), vec(any::<u8>(), 1..20)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        1 => (any::<sample::Index>(), 1..20usize).prop_map(|(at, len)| Change::Remove(at, len)),
        1 => any::<sample::Index>().prop_map(Change::Cut),
        1 => real_query().prop_map(Change::Append),
    ]
}

fn mutated() -> impl Strategy<Value = Vec<u8>> {
    (real_query(), vec(change(), 1..5)).prop_map(|(mut packet, changes)| {
        for change in changes {
            let at = |at: sample::Index, packet: &[u8]| at.index(packet.len() + 1).min(packet.len().saturating_sub(1));
            match change {
                Change::Append(bytes) => packet.extend(bytes),
                _ if packet.is_empty() => {}
                Change::Set(index, byte) => {
                    let at = at(index, &packet);
                    packet[at] = byte;
                }
                Change::Flip(index, bit) => {
                    let at = at(index, &packet);
                    packet[at] ^= 1 << bit;
                }
                Change::Insert(index, bytes) => {
                    let at = at(index, &packet);
                    packet.splice(at..at, bytes);
                }
                Change::Remove(index, len) => {
                    let at = at(index, &packet);
                    packet.drain(at..(at + len).min(packet.len()));
                }
                Change::Cut(index) => packet.truncate(at(index, &packet)),
            }
        }
        packet
    })
}

fn transport() -> impl Strategy<Value = TransportKind> {
    sample::select(&TransportKind::ALL[..])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_answered_or_dropped(packet in vec(any::<u8>(), 0..600), transport in transport()) {
        check(&mut fixture(), &packet, transport)?;
    }

    #[test]
    fn a_header_before_random_bytes_is_answered(
        tail in vec(prop_oneof![Just(0u8), 0..4u8, any::<u8>()], 0..300),
        transport in transport(),
    ) {
        let packet = [b"\xab\xcd\x01\0\0\x01\0\0\0\0\0\x01".to_vec(), tail].concat();
        check(&mut fixture(), &packet, transport)?;
    }

    #[test]
    fn real_queries_are_answered(packet in real_query(), transport in transport()) {
        check(&mut fixture(), &packet, transport)?;
    }

    #[test]
    fn mutated_queries_are_answered_or_dropped(packet in mutated(), transport in transport()) {
        check(&mut fixture(), &packet, transport)?;
    }
}

/// The most that a question and its options can ask for: no reply outgrows what the client takes.
#[test]
fn the_longest_question_with_all_options_is_answered_within_512_bytes() {
    let options = [OPTIONS[2], OPTIONS[4], OPTIONS[6], OPTIONS[7]].concat();
    for suffix in LONG_SUFFIXES {
        for (version, class) in [(0, 1), (0, 4), (1, 1)] {
            let mut query = b"\xab\xcd\x01\0\0\x01\0\0\0\0\0\x01".to_vec();
            query.extend(long_name(suffix));
            query.extend([0, 1, 0, class]);
            query.extend(opt(512, version, 0, &options));
            check(&mut fixture(), &query, TransportKind::Udp).unwrap();
        }
    }
}

#[test]
fn every_cut_of_a_full_query_is_answered_or_dropped() {
    let options = OPTIONS[..9].concat();
    let mut query = Ask::new("x.app.example.com", "A").bytes();
    query[11] = 1;
    query.extend(opt(1232, 0, 0x80, &options));
    for len in 0..=query.len() {
        for transport in TransportKind::ALL {
            check(&mut fixture(), &query[..len], transport).unwrap_or_else(|error| panic!("{len} bytes: {error}"));
        }
    }
}

/// What a packet changed in the counters.
fn changes(totals: &Totals) -> String {
    let mut text = Vec::new();
    for (transport, classes) in TransportKind::ALL.iter().zip(&totals.queries) {
        for (class, count) in QtypeClass::ALL.iter().zip(classes) {
            text.extend((0..*count).map(|_| format!("{} {}", transport.label(), class.label())));
        }
    }
    for rcode in 0..RCODES {
        text.extend((0..totals.responses[rcode]).map(|_| rcode_label(rcode)));
    }
    for (reason, count) in DropReason::ALL.iter().zip(&totals.dropped) {
        text.extend((0..*count).map(|_| format!("dropped {}", reason.label())));
    }
    text.extend((0..totals.ecs).map(|_| "ecs".to_string()));
    text.extend((0..totals.truncated).map(|_| "truncated".to_string()));
    for (labels, count) in &totals.answers {
        text.extend((0..*count).map(|_| format!("{} of {}", labels.region, labels.route.as_deref().unwrap_or("-"))));
    }
    text.join(", ")
}

#[test]
fn every_kind_of_packet_is_counted_as_what_it_is() {
    let plain = |name: &str, qtype: &str| Ask::new(name, qtype).bytes();
    let with_opt = |name: &str, version: u8, options: &[u8]| {
        let mut query = plain(name, "A");
        query[11] = 1;
        query.extend(opt(1232, version, 0, options));
        query
    };
    let with = |mut packet: Vec<u8>, at: usize, byte: u8| {
        packet[at] = byte;
        packet
    };
    let www = || plain("www.example.com", "A");
    let class_at = www().len() - 1;
    let cookie_alone = [&b"\xab\xcd\0\0\0\0\0\0\0\0\0\x01"[..], &opt(1232, 0, 0, OPTIONS[4])].concat();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (www(), "udp a, NOERROR"),
        (plain("www.example.com", "AAAA"), "udp aaaa, NOERROR"),
        (plain("alias.example.com", "CNAME"), "udp cname, NOERROR"),
        (plain("x.deleg.example.com", "NS"), "udp ns, NOERROR"),
        (plain("example.com", "SOA"), "udp soa, NOERROR"),
        (plain("a.wild.example.com", "TXT"), "udp txt, NOERROR"),
        (plain("example.com", "MX"), "udp mx, NOERROR"),
        (plain("https.example.com", "HTTPS"), "udp https, NOERROR"),
        (plain("_sip._tcp.example.com", "SRV"), "udp srv, NOERROR"),
        (plain("deleg.example.com", "DS"), "udp dnssec, NOERROR"),
        (plain("example.com", "DNSKEY"), "udp dnssec, NOERROR"),
        (plain("example.com", "ANY"), "udp any, NOERROR"),
        (plain("unk.example.com", "TYPE65280"), "udp other, NOERROR"),
        (plain("nope.example.com", "A"), "udp a, NXDOMAIN"),
        (plain("www.example.org", "A"), "udp a, REFUSED"),
        (plain("example.com", "AXFR"), "udp other, REFUSED"),
        (plain("example.com", "TSIG"), "udp other, NOTIMP"),
        (plain("big.example.com", "TXT"), "udp txt, NOERROR, truncated"),
        (plain("failover.example.com", "A"), "udp a, NOERROR, us of failover"),
        (with_opt("failover.example.com", 0, OPTIONS[0]), "udp a, NOERROR, ecs, us of failover"),
        (with_opt("www.example.com", 0, OPTIONS[1]), "udp a, NOERROR, ecs"),
        (with_opt("www.example.com", 0, OPTIONS[9]), "udp a, FORMERR"),
        (with_opt("www.example.com", 1, b""), "udp a, BADVERS"),
        (cookie_alone, "udp none, NOERROR"),
        (with(www(), class_at, 4), "udp a, REFUSED"),
        (with(plain("id.server", "TXT"), class_at - 6, 3), "udp txt, NOERROR"),
        (with(www(), 2, 0x20), "udp none, NOTIMP"),
        (with(www(), 2, 0x80), "udp none, dropped response"),
        (with(www(), 5, 2), "udp none, FORMERR"),
        (with(www(), 5, 0), "udp none, FORMERR"),
        (with(www(), 12, 0xc0), "udp none, FORMERR"),
        (with(www(), 11, 1), "udp a, FORMERR"),
        ([www(), vec![0]].concat(), "udp a, FORMERR"),
        (www()[..11].to_vec(), "udp none, dropped short"),
        (Vec::new(), "udp none, dropped short"),
    ];
    for (packet, expected) in cases {
        for transport in TransportKind::ALL {
            let mut fixture = fixture();
            fixture.ask_bytes(&for_transport(&packet, transport), transport);
            let expected = match transport {
                TransportKind::Udp => expected.to_string(),
                other => expected.replace("udp", other.label()).replace(", truncated", ""),
            };
            assert_eq!(changes(&fixture.registry.totals()), expected, "{packet:02x?}");
        }
    }
}

#[test]
fn a_route_with_nothing_up_is_counted_as_a_failure() {
    let servfail = "policy = \"failover\"\nwhen-all-down = \"servfail\"";
    let mut fixture = Fixture::new(&include_str!("../fuzz/src/core.toml").replace("policy = \"failover\"", servfail));
    fixture.set_health(|_| TargetHealth { up: false, ..TargetHealth::UNKNOWN });
    fixture.ask(&Ask::new("failover.example.com", "A"));
    assert_eq!(changes(&fixture.registry.totals()), "udp a, SERVFAIL");
}
