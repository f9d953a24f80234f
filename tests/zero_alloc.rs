//! The query path asks nothing of the heap: once a core is warm, no answer of any kind allocates or frees. A binary of its own,
//! since its allocator counts.

#[path = "support/fixture.rs"]
mod fixture;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::Arc,
};

use fixture::{Ask, Fixture};
use isochrone::{
    answer::{Arrival, Verdict},
    geo::Network,
    latency::learn::{Asks, Sampler},
    routing::{RateLimiter, health::TargetHealth},
    telemetry::{
        TransportKind,
        query_log::{Logging, QueryLog, Terms},
    },
};

thread_local! {
    // By thread: the test harness has threads of its own.
    static ALLOCATED: Cell<u64> = const { Cell::new(0) };
    static FREED: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get() + 1);
        // SAFETY: the caller keeps to the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get() + 1);
        // SAFETY: the caller keeps to the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get() + 1);
        FREED.set(FREED.get() + 1);
        // SAFETY: the caller keeps to the contract of `realloc`.
        unsafe { System.realloc(place, layout, new_size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        FREED.set(FREED.get() + 1);
        // SAFETY: the caller keeps to the contract of `dealloc`.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn counts() -> (u64, u64) {
    (ALLOCATED.get(), FREED.get())
}

/// `Ask` with an OPT record of these options.
fn with_options(name: &str, qtype: &str, version: u8, options: &[u8]) -> Vec<u8> {
    let mut query = Ask::new(name, qtype).edns(1232).bytes();
    let end = query.len();
    query[end - 5] = version;
    query[end - 2..].copy_from_slice(&(options.len() as u16).to_be_bytes());
    query.extend(options);
    query
}

/// Every kind of question, with a word on what it is.
fn queries() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let routes = ["x.app", "few", "failover", "weighted", "ruled", "named", "toroute"];
    let clients = [
        "18.184.0.0/24",
        "2a00:1450::/32",
        "::ffff:18.184.0.0/120",
        "64:ff9b::12b8:0/120",
        "2002:12b8::/40",
        "0.0.0.0/0",
    ];
    for route in routes {
        for qtype in ["A", "AAAA", "ANY", "MX"] {
            let ask = Ask::new(&format!("{route}.example.com"), qtype);
            all.push((format!("{route} {qtype}"), ask.bytes()));
            for client in clients {
                all.push((format!("{route} {qtype} from {client}"), ask.clone().from_client(client).dnssec().bytes()));
            }
        }
    }
    let names = [
        ("www", "A"),
        ("alias2", "A"),
        ("loop1", "A"),
        ("out", "A"),
        ("a.wild", "TXT"),
        ("a.wild", "A"),
        ("nope", "A"),
        ("b.ent", "A"),
        ("x.deleg", "A"),
        ("x.other", "A"),
        ("deleg", "DS"),
        ("b.old", "A"),
        ("unk", "TYPE65280"),
        ("big", "TXT"),
        ("www", "ANY"),
        ("www", "AXFR"),
        ("www", "TSIG"),
        ("new.sub", "A"),
    ];
    for (name, qtype) in names {
        let ask = Ask::new(&format!("{name}.example.com"), qtype);
        all.push((format!("{name} {qtype}"), ask.bytes()));
        all.push((format!("{name} {qtype}, DNSSEC"), ask.from_client("18.184.0.0/24").dnssec().bytes()));
    }
    let options =
        b"\0\x0a\0\x18clientckserver-cookie-16\0\x03\0\0\0\x0b\0\0\xfd\xe9\0\x02??\0\x08\0\x07\0\x01\x18\0\x12\xb8\0\0\x0c\0\x02\0\0";
    all.push(("all options".into(), with_options("x.app.example.com", "A", 0, options)));
    all.push(("BADVERS".into(), with_options("x.app.example.com", "A", 1, options)));
    all.push(("a bad client subnet".into(), with_options("x.app.example.com", "A", 0, b"\0\x08\0\x03\0\x01\x18")));
    all.push(("outside".into(), Ask::new("www.example.org", "A").edns(1232).bytes()));
    let mut identity = Ask::new("id.server", "TXT").bytes();
    *identity.last_mut().unwrap() = 3;
    all.push(("CHAOS".into(), identity));
    let www = Ask::new("www.example.com", "A").bytes();
    let mut over_quic = with_options("x.app.example.com", "A", 0, &[&options[..], b"\0\x0c\0\0"].concat());
    over_quic[..2].fill(0);
    all.push(("an id of 0".into(), over_quic));
    for (what, at, byte) in [
        ("a response", 2, 0x80),
        ("NOTIFY", 2, 0x20),
        ("two questions", 5, 2),
        ("no question", 5, 0),
        ("a pointer", 12, 0xc0),
    ] {
        let mut query = www.clone();
        query[at] = byte;
        all.push((what.into(), query));
    }
    all.extend((0..www.len()).map(|len| (format!("{len} bytes"), www[..len].to_vec())));
    all
}

#[test]
fn an_answer_neither_allocates_nor_frees() {
    let mut fixture = Fixture::new(include_str!("../fuzz/src/core.toml"));
    let queries = queries();
    let mut out = vec![0; 65_535];
    let mut sent = 0;
    type HealthOf = fn(&str) -> TargetHealth;
    let states: [(&str, HealthOf); 3] = [
        ("all up", |_| TargetHealth::UNKNOWN),
        ("one down", |endpoint| TargetHealth { up: endpoint != "192.0.2.1", ..TargetHealth::UNKNOWN }),
        ("all down", |_| TargetHealth { up: false, ..TargetHealth::UNKNOWN }),
    ];
    let limiter = Arc::new(RateLimiter::new(1, [9; 16]));
    for ((state, health), limiter) in
        states.into_iter().flat_map(|state| [(state, None), (state, Some(limiter.clone()))])
    {
        fixture.set_health(health);
        fixture.snapshot = fixture.snapshot.with_rate_limiter(limiter);
        for is_warm in [false, true] {
            for (what, query) in &queries {
                for transport in TransportKind::ALL {
                    let arrival = Arrival { client: fixture.resolver, transport, now_s: 1_800_000_000 };
                    let before = counts();
                    let verdict = fixture.core.respond(query, arrival, &fixture.snapshot, &mut out);
                    if transport == TransportKind::Udp {
                        fixture.core.want_tcp();
                        fixture.core.respond(query, arrival, &fixture.snapshot, &mut out);
                        fixture.core.has_asked();
                    }
                    let after = counts();
                    if is_warm {
                        assert_eq!(after, before, "(allocated, freed) by {what}, {state}, {transport:?}");
                        sent += u32::from(matches!(verdict, Verdict::Send(_)));
                    }
                }
            }
        }
    }
    assert!(sent > 1_000, "{sent}");
    assert!(fixture.registry.totals().is_balanced());
}

#[test]
fn logging_a_query_neither_allocates_nor_frees_even_where_the_log_is_full() {
    let mut fixture = Fixture::new(include_str!("../fuzz/src/core.toml"));
    let log = Arc::new(QueryLog::default());
    let mut out = vec![0; 65_535];
    for (_, query) in &queries() {
        let arrival = Arrival { client: fixture.resolver, transport: TransportKind::Udp, now_s: 1_800_000_000 };
        fixture.core.respond(query, arrival, &fixture.snapshot, &mut out); // warm
    }
    for share in [1.0, 0.3] {
        let terms = Terms { share, queue_max: 2_000, routes: Vec::new(), regions: Vec::new(), reasons: Vec::new() };
        let logging = Logging { log: log.clone(), terms: Arc::new(terms) };
        fixture.snapshot = fixture.snapshot.with_query_log(Some(logging));
        fixture.core.adopt(&fixture.snapshot);
        let mut logged = 0;
        for round in 0..20 {
            for (what, query) in &queries() {
                let arrival = Arrival { client: fixture.resolver, transport: TransportKind::Udp, now_s: 1_800_000_000 };
                let before = counts();
                fixture.core.set_time(1_800_000_000_123);
                fixture.core.respond(query, arrival, &fixture.snapshot, &mut out);
                assert_eq!(counts(), before, "(allocated, freed) by {what}, logged");
            }
            if round % 2 == 0 {
                logged += log.drain(usize::MAX, &mut |_, entry| assert_eq!(entry.at_ms, 1_800_000_000_123));
            }
        }
        assert!(logged > 1_000, "{logged}");
    }
    let before = log.dropped();
    for _ in 0..30_000 {
        let query = Ask::new("x.app.example.com", "A").bytes();
        let arrival = Arrival { client: fixture.resolver, transport: TransportKind::Udp, now_s: 1_800_000_000 };
        let heap = counts();
        fixture.core.respond(&query, arrival, &fixture.snapshot, &mut [0; 4096]);
        assert_eq!(counts(), heap);
    }
    assert!(log.dropped() > before, "the ring was full");
}

#[test]
fn drawing_queries_and_asking_for_tcp_neither_allocates_nor_frees() {
    let asks = Asks::new(7);
    let mut sampler = Sampler::new(0.5, 7);
    let mut drawn = 0;
    for n in 0..10_000u32 {
        let network = Network::of(std::net::Ipv4Addr::from_bits(n << 6).into());
        let before = counts();
        if sampler.is_drawn() {
            drawn += 1;
            match asks.claim(network, 1_800_000_000 + u64::from(n)) {
                Some(claim) if n % 3 == 0 => asks.give_back(claim),
                Some(claim) => asks.asked(claim, 1_800_000_000),
                None => {}
            }
        }
        asks.came(network, 1_800_000_000);
        asks.measured(network, 1_800_000_000);
        assert_eq!(counts(), before);
    }
    assert!(drawn > 4_000, "{drawn}");
}

#[test]
fn the_allocator_counts() {
    let before = counts();
    drop(std::hint::black_box(vec![1_u8, 2, 3]));
    assert_eq!(counts(), (before.0 + 1, before.1 + 1));
}
