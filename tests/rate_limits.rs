//! Response rate limiting in the core: whose replies count together, who is exempt, what a limited reply looks like and how it is
//! counted. No sockets: the time is an argument.

#[path = "support/fixture.rs"]
mod fixture;

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use fixture::{Ask, Fixture};
use isochrone::{
    answer::{Arrival, OUT_LEN_MIN, Verdict},
    routing::RateLimiter,
    server::World,
    telemetry::{DropReason, TransportKind},
};
use proptest::prelude::*;

const NOW_S: u64 = 1_800_000_000;
const VICTIM: &str = "192.0.2.1";

/// What came of a message.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// A reply as if there were no limit: its response code.
    Whole(u8),
    /// TC, and no records.
    Shortened,
    Dropped,
}

use Outcome::{Dropped, Shortened, Whole};

fn limited(responses_per_second: u32) -> Fixture {
    static WORLD: OnceLock<Arc<World>> = OnceLock::new();
    let world = WORLD.get_or_init(|| Fixture::new(include_str!("../fuzz/src/core.toml")).world);
    let mut fixture = Fixture::of(world.clone());
    let limiter = RateLimiter::new(responses_per_second, [3; 16]);
    fixture.snapshot = fixture.snapshot.with_rate_limiter(Some(Arc::new(limiter)));
    fixture
}

fn send(fixture: &mut Fixture, query: &[u8], client: &str, transport: TransportKind, now_s: u64) -> (Outcome, Vec<u8>) {
    let mut out = vec![0; 65_535];
    let arrival = Arrival { client: client.parse().unwrap(), transport, now_s };
    let verdict = fixture.core.respond(query, arrival, &fixture.snapshot, &mut out);
    assert!(fixture.registry.totals().is_balanced(), "every query is a response or a drop");
    let Verdict::Send(len) = verdict else {
        assert_eq!(verdict, Verdict::Drop(DropReason::RateLimited));
        return (Dropped, Vec::new());
    };
    out.truncate(len);
    let is_shortened = out[2] & 0x02 != 0 && out[3] & 0x0f == 0 && out[6..10] == [0; 4];
    (if is_shortened { Shortened } else { Whole(out[3] & 0x0f) }, out)
}

fn udp(fixture: &mut Fixture, query: &[u8]) -> Outcome {
    send(fixture, query, VICTIM, TransportKind::Udp, NOW_S).0
}

/// A question in `example.com`, or absolute with a final dot.
fn query(question: &str) -> Vec<u8> {
    let (name, qtype) = question.split_once(' ').unwrap();
    let name = match name {
        "@" => "example.com".to_string(),
        name if name.ends_with('.') => name.to_string(),
        name => format!("{name}.example.com"),
    };
    Ask::new(&name, qtype).bytes()
}

/// `query` with an OPT record of these options.
fn with_options(question: &str, options: &[u8]) -> Vec<u8> {
    let (name, qtype) = question.split_once(' ').unwrap();
    let mut bytes = Ask::new(&format!("{name}.example.com"), qtype).edns(1232).bytes();
    let end = bytes.len();
    bytes[end - 2..].copy_from_slice(&(options.len() as u16).to_be_bytes());
    bytes.extend(options);
    bytes
}

fn cookie(client: [u8; 8], server: &[u8]) -> Vec<u8> {
    [&[0, 10, 0, 8 + server.len() as u8][..], &client, server].concat()
}

#[test]
fn replies_count_by_the_owner_that_answered() {
    let together = [
        ("random labels under a wildcard", "a1.wild TXT", "b2.wild TXT"),
        ("and under a route's wildcard, of any depth", "a1.app A", "b2.c3.app AAAA"),
        ("a wildcard with and without data", "a1.wild TXT", "b2.wild A"),
        ("names that do not exist", "a1 A", "b2.c3 TXT"),
        ("below a name that exists", "a1.www A", "b2.mail A"),
        ("below a zone cut", "a1.deleg A", "b2.c3.deleg MX"),
        ("at a zone cut and below", "deleg DS", "b2.deleg A"),
        ("below a DNAME", "a1.old A", "b.old A"),
        ("types of one name", "www A", "www AAAA"),
        ("with data and without", "www A", "www MX"),
        ("cases of letters", "www A", "WwW A"),
    ];
    for (what, first, second) in together {
        let mut fixture = limited(1);
        assert!(matches!(udp(&mut fixture, &query(first)), Whole(_)), "{what}");
        assert_eq!(udp(&mut fixture, &query(second)), Shortened, "{what}");
        assert_eq!(udp(&mut fixture, &query(first)), Dropped, "{what}");
    }
    let apart = [
        ("two names", "www A", "mail A"),
        ("a wildcard and what stands beside it", "a1.app A", "few A"),
        ("a CNAME and its target", "alias A", "www A"),
        ("names that do not exist and the apex", "a1 A", "@ SOA"),
        ("names that do not exist in two zones", "a1 A", "a1.b2.sub A"),
        ("two zones", "@ SOA", "sub SOA"),
        ("two cuts", "a1.deleg A", "a1.other A"),
        ("an error and an answer", "www.example.org. A", "www A"),
    ];
    for (what, first, second) in apart {
        let mut fixture = limited(1);
        for question in [first, second] {
            assert!(matches!(udp(&mut fixture, &query(question)), Whole(_)), "{what}");
        }
    }
}

#[test]
fn all_errors_count_together_and_are_never_shortened() {
    let refused = query("www.example.org. A");
    let transfer = query("@ AXFR");
    let mut trailing = query("www A");
    trailing.push(0);
    let mut notify = query("@ SOA");
    notify[2] = 0x20;
    let mut fixture = limited(1);
    assert_eq!(udp(&mut fixture, &refused), Whole(5));
    assert_eq!(udp(&mut fixture, &trailing), Whole(1));
    assert_eq!(udp(&mut fixture, &notify), Dropped);
    assert_eq!(udp(&mut fixture, &transfer), Whole(5));
    assert_eq!(udp(&mut fixture, &refused), Dropped);
    assert_eq!(udp(&mut fixture, &query("www A")), Whole(0));
}

#[test]
fn the_senders_network_counts_and_a_client_subnet_does_not() {
    let from = |network: &str| Ask::new("x.app.example.com", "A").from_client(network).bytes();
    let mut fixture = limited(1);
    let mut outcome = |network, sender| send(&mut fixture, &from(network), sender, TransportKind::Udp, NOW_S).0;
    assert_eq!(outcome("198.51.100.0/24", "192.0.2.1"), Whole(0));
    assert_eq!(outcome("203.0.113.0/24", "192.0.2.200"), Shortened);
    assert_eq!(outcome("198.51.100.0/24", "192.0.3.1"), Whole(0));
    assert_eq!(outcome("198.51.100.0/24", "2001:db8:1:2::1"), Whole(0));
    assert_eq!(outcome("203.0.113.0/24", "2001:db8:1:ff::2"), Shortened);
    assert_eq!(outcome("203.0.113.0/24", "2001:db8:2::2"), Whole(0));
}

#[test]
fn tcp_is_not_limited_and_does_not_count() {
    let mut fixture = limited(1);
    for _ in 0..10 {
        assert_eq!(send(&mut fixture, &query("www A"), VICTIM, TransportKind::Tcp, NOW_S).0, Whole(0));
    }
    assert_eq!(udp(&mut fixture, &query("www A")), Whole(0));
}

#[test]
fn a_valid_server_cookie_is_exempt_and_no_other() {
    let mut fixture = limited(1);
    let secrets = fixture.snapshot.settings.cookies;
    let client: IpAddr = VICTIM.parse().unwrap();
    let made = |by: [u8; 8], address: IpAddr, at_s: u64| cookie(by, &secrets.make(by, address, at_s));
    let valid = with_options("www A", &made([7; 8], client, NOW_S - 3000));
    let wrong = [
        cookie([7; 8], &[]),
        cookie([7; 8], &[1; 16]),
        cookie([7; 8], &[1; 8]),
        made([7; 8], client, NOW_S - 4000),
        made([7; 8], client, NOW_S + 400),
        made([7; 8], "192.0.2.2".parse().unwrap(), NOW_S),
        cookie([8; 8], &secrets.make([7; 8], client, NOW_S)),
    ];
    assert_eq!(udp(&mut fixture, &query("www A")), Whole(0));
    for (n, wrong) in wrong.iter().enumerate() {
        let expected = if n % 2 == 0 { Shortened } else { Dropped };
        assert_eq!(udp(&mut fixture, &with_options("www A", wrong)), expected, "cookie {n}");
        for _ in 0..3 {
            assert_eq!(udp(&mut fixture, &valid), Whole(0));
        }
    }
}

#[test]
fn a_shortened_reply_brings_the_cookie_that_ends_the_limit() {
    let mut fixture = limited(1);
    let nsid_and_cookie = [&[0, 3, 0, 0][..], &cookie([7; 8], &[])].concat();
    assert_eq!(udp(&mut fixture, &query("www A")), Whole(0));
    let asked = with_options("www A", &nsid_and_cookie);
    let (outcome, reply) = send(&mut fixture, &asked, VICTIM, TransportKind::Udp, NOW_S);
    assert_eq!(outcome, Shortened);
    // Longer than the query by the server cookie alone: the identity has to wait.
    assert_eq!(reply.len(), asked.len() + 16 - 4);
    let fresh = with_options("www A", &reply[reply.len() - 28..]);
    for _ in 0..10 {
        assert_eq!(udp(&mut fixture, &fresh), Whole(0));
    }
}

#[test]
fn each_second_begins_anew() {
    let mut fixture = limited(2);
    let mut at = |now_s| send(&mut fixture, &query("a.wild TXT"), VICTIM, TransportKind::Udp, now_s).0;
    for second in 0..5 {
        let outcomes: Vec<Outcome> = (0..6).map(|_| at(NOW_S + second)).collect();
        assert_eq!(outcomes, [Whole(0), Whole(0), Shortened, Dropped, Shortened, Dropped]);
    }
}

#[test]
fn limited_replies_are_counted_as_what_they_are() {
    let mut fixture = limited(3);
    for _ in 0..13 {
        udp(&mut fixture, &query("x.app A"));
    }
    let totals = fixture.registry.totals();
    assert_eq!(totals.queries_read(), 13);
    assert_eq!((totals.responses[0], totals.truncated), (8, 5));
    assert_eq!(totals.dropped[DropReason::RateLimited as usize], 5);
    assert_eq!(totals.answers.values().sum::<u64>(), 3, "a region that was not told is not counted");
}

#[test]
fn without_a_limit_nothing_is_limited() {
    let mut fixture = limited(1);
    fixture.snapshot = fixture.snapshot.with_rate_limiter(None);
    for _ in 0..1000 {
        assert_eq!(udp(&mut fixture, &query("www A")), Whole(0));
    }
}

proptest! {
    /// Whatever is asked, and however broken it is: what leaves under the limit is hardly longer than what came.
    #[test]
    fn a_limited_reply_amplifies_nothing(
        name in "([a-z0-9]{1,9}\\.){0,3}(wild|app|deleg|old|big|www|nope|named)",
        qtype in prop::sample::select(vec!["A", "AAAA", "ANY", "TXT", "NS", "DNSKEY", "AXFR"]),
        options in prop::collection::vec(prop::sample::select(vec![
            &b"\0\x03\0\0"[..], b"\0\x0a\0\x0812345678", b"\0\x08\0\x07\0\x01\x18\0\x12\xb8\0", b"\xfd\xe9\0\x02??", b"\0\x08\0\x01x",
        ]), 0..4),
        cut in 0usize..8,
    ) {
        let mut fixture = limited(1);
        let mut packet = with_options(&format!("{name} {qtype}"), &options.concat());
        packet.truncate(packet.len() - cut.saturating_sub(4));
        let mut out = vec![0; OUT_LEN_MIN];
        for turn in 0..20 {
            let arrival = Arrival { client: VICTIM.parse().unwrap(), transport: TransportKind::Udp, now_s: NOW_S };
            match fixture.core.respond(&packet, arrival, &fixture.snapshot, &mut out) {
                Verdict::Send(_) if turn == 0 => {}
                // A server cookie has 16 bytes, an extended error 6.
                Verdict::Send(len) => prop_assert!(turn % 2 == 1 && len <= packet.len() + 22, "{} for {}", len, packet.len()),
                Verdict::Drop(reason) => prop_assert!(turn % 2 == 0 && reason == DropReason::RateLimited),
            }
        }
        prop_assert!(fixture.registry.totals().is_balanced());
    }
}
