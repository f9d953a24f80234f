//! What hostile queries cost beside plain ones: processor time of the whole program, and time in the core alone.

use std::{fmt::Write, hint::black_box};

use isochrone::{answer::Arrival, telemetry::TransportKind, zone::sign::KeyPair};

use crate::{
    fixture::Fixture,
    lowest, median,
    program::Folder,
    queries::{ANY, Chance, Query},
    served::{Served, own_cpu_ns, pin},
};

/// Queries of each kind in a round.
const QUERIES: usize = 10_000;
const ROUNDS: usize = 9;

const CONFIG: &str = r#"
[server]
listen = ["127.0.0.1:0"]
threads = 1
[admin]
listen = ""
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
records = '''RECORDS'''
[zones."example.com".routes."*.app"]
[zones."signed.example.com"]
nameservers = ["ns1.example.net."]
dnssec-key = "zone.key"
[zones."signed.example.com".routes."*.app"]
"#;

/// A kind of query, and the kind that it is compared with.
struct Kind {
    what: &'static str,
    beside: usize,
    messages: Vec<Vec<u8>>,
    cpu_us: Vec<f64>,
    core_ns: Vec<f64>,
    replies: usize,
}

fn kinds() -> Vec<Kind> {
    let mut chance = Chance::new(3);
    let mut all = Vec::new();
    let mut add = |what, beside, make: &dyn Fn(&mut Chance) -> Vec<u8>| {
        let messages = (0..QUERIES).map(|_| make(&mut chance)).collect();
        all.push(Kind { what, beside, messages, cpu_us: Vec::new(), core_ns: Vec::new(), replies: 0 });
    };
    let app = |chance: &mut Chance| Query::new(format!("{}.app.example.com", chance.label()));
    let signed = |chance: &mut Chance| Query::new(format!("{}.app.signed.example.com", chance.label())).dnssec();
    let id = |chance: &mut Chance| chance.next() as u16;
    add("plain", 0, &|c| app(c).bytes(id(c)));
    add("random labels, six", 0, &|c| {
        let labels: String = (0..6).map(|_| format!("{:x}.", c.next() >> 40)).collect();
        Query::new(format!("{labels}app.example.com")).bytes(id(c))
    });
    add("random labels, 118 of one byte", 0, &|c| {
        let labels: String = (0..118).map(|_| format!("{}.", char::from(b'a' + c.below(26) as u8))).collect();
        Query::new(format!("{labels}app.example.com")).bytes(id(c))
    });
    add("NXDOMAIN", 0, &|c| Query::new(format!("{}.example.com", c.label())).bytes(id(c)));
    add("foreign zone", 0, &|c| Query::new(format!("{}.example.org", c.label())).bytes(id(c)));
    add("ANY", 0, &|c| app(c).qtype(ANY).bytes(id(c)));
    add("chain of 16 CNAMEs", 0, &|c| Query::new("c0.example.com").bytes(id(c)));
    add("junk, up to 600 bytes", 0, &|c| {
        let len = c.below(600);
        c.bytes(len)
    });
    add("padded to 64 bytes", 0, &|c| app(c).padded_to(64).bytes(id(c)));
    add("padded to 512 bytes", 0, &|c| app(c).padded_to(512).bytes(id(c)));
    add("padded to 1232 bytes", 0, &|c| app(c).padded_to(1232).bytes(id(c)));
    add("padded to 4000 bytes", 0, &|c| app(c).padded_to(4000).bytes(id(c)));
    add("900 options", 0, &|c| app(c).options(900).bytes(id(c)));
    add("signed", 13, &|c| signed(c).bytes(id(c)));
    add("signed NXDOMAIN", 13, &|c| Query::new(format!("{}.signed.example.com", c.label())).dnssec().bytes(id(c)));
    all
}

/// Measures all kinds and prints a table.
pub fn run() {
    let mut records = "www 60 A 192.0.2.80\nc16 60 A 192.0.2.81\n".to_string();
    (0..16).for_each(|n| writeln!(records, "c{n} 60 CNAME c{}", n + 1).expect("text"));
    let config = CONFIG.replace("RECORDS", &records);
    let folder = Folder::with_config(&config);
    let (_, key) = KeyPair::generate(&"signed.example.com".parse().expect("a name")).expect("a random source");
    folder.write("zone.key", &String::from_utf8(key.into()).expect("text"));
    let served = Served::start(&folder, "www.example.com");
    let mut fixture = Fixture::in_folder(&config, folder.path());
    pin(served.program.id(), 0);
    pin(std::process::id(), 1);
    let mut kinds = kinds();
    served.ask(&kinds[0].messages);
    for _ in 0..ROUNDS {
        for kind in &mut kinds {
            let cost = served.ask(&kind.messages);
            kind.cpu_us.push(cost.cpu_ns as f64 / cost.queries as f64 / 1e3);
            kind.replies = cost.replies;
            kind.core_ns.push(in_core(&mut fixture, &kind.messages));
        }
    }
    println!(
        "\nattacks: {QUERIES} queries of each kind in each of {ROUNDS} rounds, one worker; ratios are medians over the rounds"
    );
    println!(
        "{:<32} {:>6} {:>8} {:>8} {:>10} {:>8} {:>8}",
        "KIND", "BYTES", "REPLIES", "CPU US", "A SECOND", "X PLAIN", "CORE NS"
    );
    for kind in &kinds {
        let beside = &kinds[kind.beside];
        let ratios = kind.cpu_us.iter().zip(&beside.cpu_us).map(|(own, other)| own / other).collect();
        let bytes = kind.messages.iter().map(Vec::len).sum::<usize>() / QUERIES;
        let cpu_us = lowest(&kind.cpu_us);
        println!(
            "{:<32} {bytes:>6} {:>7}% {cpu_us:>8.2} {:>10.0} {:>8.2} {:>8.0}",
            kind.what,
            100 * kind.replies / QUERIES,
            1e6 / cpu_us,
            median(ratios),
            lowest(&kind.core_ns),
        );
    }
}

/// Nanoseconds a query in the core alone.
fn in_core(fixture: &mut Fixture, messages: &[Vec<u8>]) -> f64 {
    let mut out = vec![0; 4096];
    let arrival = Arrival { client: fixture.resolver, transport: TransportKind::Udp, now_s: 1_000_000 };
    let before_ns = own_cpu_ns();
    for message in messages {
        black_box(fixture.core.respond(black_box(message), arrival, &fixture.snapshot, &mut out));
    }
    (own_cpu_ns() - before_ns) as f64 / messages.len() as f64
}
