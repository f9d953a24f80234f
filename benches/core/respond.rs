//! The whole core: query bytes in, reply bytes out.

use std::{hint::black_box, sync::Arc};

use criterion::Criterion;
use isochrone::{
    answer::Arrival,
    telemetry::{
        TransportKind,
        query_log::{Logging, QueryLog, Terms},
    },
    zone::sign::KeyPair,
};

use crate::fixture::{Ask, Fixture};

pub fn bench(criterion: &mut Criterion) {
    let cases = [
        ("route, IPv4 client subnet", Ask::new("x1y2z3.app.example.com", "A").from_client("18.184.0.0/24")),
        ("route, IPv6 client subnet", Ask::new("x1y2z3.app.example.com", "A").from_client("2a05:d014::/48")),
        ("route, no client subnet", Ask::new("x1y2z3.app.example.com", "A")),
        ("weighted route", Ask::new("x1y2z3.weighted.example.com", "A").from_client("18.184.0.0/24")),
        ("static record", Ask::new("www.example.com", "A")),
        ("no such name", Ask::new("nope.example.com", "A")),
    ];
    ask(criterion, "respond", &mut Fixture::new(super::CONFIG), &cases);
    logged(criterion, &cases[0].1);

    let folder = tempfile::tempdir().expect("room for a key");
    let zone = "example.com".parse().expect("a name");
    let (_, key) = KeyPair::generate(&zone).expect("a random source");
    std::fs::write(folder.path().join("zone.key"), key).expect("room for a key");
    let config = super::CONFIG.replace("records =", "dnssec-key = \"zone.key\"\nrecords =");
    let cases = [
        ("route", Ask::new("x1y2z3.app.example.com", "A").from_client("18.184.0.0/24").dnssec()),
        ("static record", Ask::new("www.example.com", "A").dnssec()),
        ("no such name", Ask::new("nope.example.com", "A").dnssec()),
    ];
    ask(criterion, "respond signed", &mut Fixture::in_folder(&config, folder.path()), &cases);
}

/// With the query log on, and its reader keeping up (of whose work nothing is counted).
fn logged(criterion: &mut Criterion, ask: &Ask) {
    let mut fixture = Fixture::new(super::CONFIG);
    let log = Arc::new(QueryLog::default());
    let terms = Terms { share: 1.0, queue_max: 10_000, routes: Vec::new(), regions: Vec::new(), reasons: Vec::new() };
    fixture.snapshot = fixture.snapshot.with_query_log(Some(Logging { log: log.clone(), terms: Arc::new(terms) }));
    fixture.core.adopt(&fixture.snapshot);
    let mut out = vec![0; 4096];
    let arrival = Arrival { client: fixture.resolver, transport: TransportKind::Udp, now_s: 1_000_000 };
    let bytes = ask.bytes();
    criterion.bench_function("respond/route, IPv4 client subnet, logged", |bencher| {
        bencher.iter_custom(|times| {
            let mut took = std::time::Duration::ZERO;
            for burst in 0..times.div_ceil(5_000) {
                let begun = std::time::Instant::now();
                for _ in 0..(times - burst * 5_000).min(5_000) {
                    black_box(fixture.core.respond(black_box(&bytes), arrival, &fixture.snapshot, &mut out));
                }
                took += begun.elapsed();
                log.drain(usize::MAX, &mut |_, _| ());
            }
            took
        });
    });
    assert_eq!(log.dropped(), 0);
}

fn ask(criterion: &mut Criterion, group: &str, fixture: &mut Fixture, cases: &[(&str, Ask)]) {
    let mut out = vec![0; 4096];
    let arrival = Arrival { client: fixture.resolver, transport: TransportKind::Udp, now_s: 1_000_000 };
    for (name, ask) in cases {
        let bytes = ask.bytes();
        criterion.bench_function(&format!("{group}/{name}"), |bencher| {
            bencher.iter(|| fixture.core.respond(black_box(&bytes), arrival, &fixture.snapshot, &mut out));
        });
    }
}
