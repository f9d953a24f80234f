//! What a query costs inside the core, and what compiling a map costs: `cargo bench`. Compare runs of one machine in one session
//! only; the figures of a shared machine drift.

#[path = "../tests/support/fixture.rs"]
mod fixture;

use criterion::{Criterion, criterion_group, criterion_main};
use fixture::{Ask, Fixture};
use isochrone::{answer::Arrival, telemetry::TransportKind, wire::query, zone::sign::KeyPair};
use std::hint::black_box;

const CONFIG: &str = r#"
[regions.us]
location = "aws:us-east-1"
endpoints = ["192.0.2.1"]
[regions.eu]
location = "aws:eu-central-1"
endpoints = ["192.0.2.2"]
[regions.ap]
location = "aws:ap-southeast-1"
endpoints = ["192.0.2.3"]
[zones."example.com"]
nameservers = ["ns1.example.net."]
records = "www 60 A 192.0.2.80"
[zones."example.com".routes."*.app"]
[zones."example.com".routes."*.weighted"]
policy = "weighted"
"#;

fn respond(criterion: &mut Criterion) {
    let mut fixture = Fixture::new(CONFIG);
    let cases = [
        ("route, IPv4 client subnet", Ask::new("x1y2z3.app.example.com", "A").from_client("18.184.0.0/24")),
        ("route, IPv6 client subnet", Ask::new("x1y2z3.app.example.com", "A").from_client("2a05:d014::/48")),
        ("route, no client subnet", Ask::new("x1y2z3.app.example.com", "A")),
        ("weighted route", Ask::new("x1y2z3.weighted.example.com", "A").from_client("18.184.0.0/24")),
        ("static record", Ask::new("www.example.com", "A")),
        ("no such name", Ask::new("nope.example.com", "A")),
    ];
    let mut out = vec![0; 4096];
    let arrival = Arrival { client: fixture.resolver, transport: TransportKind::Udp, now_s: 1_000_000 };
    for (name, ask) in cases {
        let bytes = ask.bytes();
        criterion.bench_function(&format!("respond/{name}"), |bencher| {
            bencher.iter(|| fixture.core.respond(black_box(&bytes), arrival, &fixture.snapshot, &mut out));
        });
    }
    let bytes = Ask::new("x1y2z3.app.example.com", "A").from_client("18.184.0.0/24").bytes();
    criterion.bench_function("parse", |bencher| bencher.iter(|| query::parse(black_box(&bytes))));
    let map = &fixture.snapshot.plan.maps[fixture.snapshot.plan.routes[0].map];
    let addresses: Vec<std::net::IpAddr> =
        (0..4096u32).map(|n| std::net::Ipv4Addr::from(n.wrapping_mul(0x9e37_79b9)).into()).collect();
    let mut turn = 0;
    criterion.bench_function("map/locate", |bencher| {
        bencher.iter(|| {
            turn = (turn + 1) % addresses.len();
            map.locate(black_box(addresses[turn]))
        });
    });
}

/// The same zone signed, for clients that ask for signatures.
fn signed(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("room for a key");
    let zone = "example.com".parse().expect("a name");
    let (_, key) = KeyPair::generate(&zone).expect("a random source");
    std::fs::write(folder.path().join("zone.key"), key).expect("room for a key");
    let config = CONFIG.replace("records =", "dnssec-key = \"zone.key\"\nrecords =");
    let mut fixture = Fixture::in_folder(&config, folder.path());
    let cases = [
        ("route", Ask::new("x1y2z3.app.example.com", "A").from_client("18.184.0.0/24").dnssec()),
        ("static record", Ask::new("www.example.com", "A").dnssec()),
        ("no such name", Ask::new("nope.example.com", "A").dnssec()),
    ];
    let mut out = vec![0; 4096];
    let arrival = Arrival { client: fixture.resolver, transport: TransportKind::Udp, now_s: 1_000_000 };
    for (name, ask) in cases {
        let bytes = ask.bytes();
        criterion.bench_function(&format!("respond/signed {name}"), |bencher| {
            bencher.iter(|| fixture.core.respond(black_box(&bytes), arrival, &fixture.snapshot, &mut out));
        });
    }
}

fn build(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("build");
    group.sample_size(10);
    group.bench_function("built-in table, 3 regions", |bencher| bencher.iter(|| Fixture::new(CONFIG)));
    group.finish();
}

criterion_group!(benches, respond, signed, build);
criterion_main!(benches);
