//! What a change of health costs: from the verdict on the board to the published snapshot that shows it, in this process, with the
//! server's own follower at work. `cargo bench --bench failover` prints a table.

use std::{
    fmt::Write as _,
    net::Ipv4Addr,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use isochrone::{
    config::{self, Source},
    health::{self, Board, ProbeError, ProbeResult, Targets},
    server::{World, live::Live, state::StateDir},
    zone::sign::KeyPair,
};

const ROUTES: usize = 1_000;
const CHECK: &str = "[checks.web]\ntype = \"tcp\"\nport = 80\nfall = 1\nrise = 1\nflap-changes = 0\n";
/// Longer than the pause that the server keeps between two publications: each change then stands alone.
const APART: Duration = Duration::from_millis(40);
/// The least that a thread can sleep is some fifty microseconds more.
const LOOK_EVERY: Duration = Duration::from_micros(10);
const PATIENCE: Duration = Duration::from_secs(20);

fn main() {
    println!("from verdict to published snapshot, milliseconds");
    println!("{:<58} {:>5} {:>8} {:>8} {:>8} {:>13}", "", "runs", "p50", "p99", "max", "publications");
    ten_thousand_endpoints();
    signed_owners();
}

/// Each route has ten endpoints of its own.
fn ten_thousand_endpoints() {
    let mut toml = config(&["us", "eu", "ap"].map(|_| vec!["192.0.2.1".to_string()]), "");
    for route in 0..ROUTES {
        let v4 = |n: usize| format!("\"{}\"", Ipv4Addr::from(0x0a00_0000 + (route * 10 + n) as u32));
        let v6 = |n: usize| format!("\"2001:db8::{:x}\"", route * 10 + n);
        let us = [v4(0), v4(1), v6(2), v6(3)].join(",");
        let (eu, ap) = ([v4(4), v4(5), v6(6)].join(","), [v4(7), v4(8), v6(9)].join(","));
        let _ = writeln!(toml, "[zones.\"example.com\".routes.r{route}]");
        let _ = writeln!(toml, "endpoints = {{ us = [{us}], eu = [{eu}], ap = [{ap}] }}");
    }
    let server = Running::start(&toml);
    let of_us: Vec<usize> = (0..ROUTES).flat_map(|route| (0..4).map(move |n| route * 10 + n)).collect();
    server.report("one of 10,000 endpoints, 1,000 routes", 300, |n| vec![(n * 7_919) % 10_000]);
    server.report("1,000 endpoints at once", 20, |n| (0..1_000).map(|i| (i * 10 + n) % 10_000).collect());
    server.report("a region's 4,000 endpoints at once", 20, |_| of_us.clone());
}

/// All routes share the regions' endpoints, so that one verdict changes the answers of every owner.
fn signed_owners() {
    let folder = tempfile::tempdir().expect("a folder for the key");
    let (_, key) = KeyPair::generate(&"example.com".parse().expect("a name")).expect("a random source");
    let path = folder.path().join("key.pem");
    std::fs::write(&path, key).expect("the folder is ours");
    let of =
        |n: u8| [format!("192.0.2.{n}"), format!("192.0.2.1{n}"), format!("2001:db8::{n}"), format!("2001:db8::1{n}")];
    let mut toml = config(&[1, 2, 3].map(|n| of(n).to_vec()), &format!("dnssec-key = {path:?}\n"));
    for route in 0..ROUTES {
        let _ = writeln!(toml, "[zones.\"example.com\".routes.r{route}]\nhttps = \"1 . alpn=h2\"");
    }
    let server = Running::start(&toml);
    server.report("signed, 1,000 owners: an IPv4 endpoint (A, HTTPS)", 30, |n| vec![n % 3 * 4]);
    server.report("signed, 1,000 owners: IPv4 and IPv6 (A, AAAA, HTTPS)", 30, |n| vec![n % 3 * 4, n % 3 * 4 + 2]);
    server.report("signed, 1,000 owners: a whole region", 30, |n| (n % 3 * 4..n % 3 * 4 + 4).collect());
}

fn config(endpoints: &[Vec<String>; 3], zone: &str) -> String {
    let mut toml = CHECK.to_string();
    for ((name, location), endpoints) in
        [("us", "aws:us-east-1"), ("eu", "aws:eu-west-1"), ("ap", "aws:ap-northeast-1")].iter().zip(endpoints)
    {
        let _ = writeln!(toml, "[regions.{name}]\nlocation = {location:?}\nendpoints = {endpoints:?}\ncheck = \"web\"");
    }
    let _ = writeln!(toml, "[zones.\"example.com\"]\nnameservers = [\"ns1.example.net.\"]\n{zone}");
    toml
}

/// The control plane of a server without sockets and probes.
struct Running {
    world: Arc<World>,
    live: Arc<Live>,
    board: Arc<Board>,
    targets: Targets,
    runtime: tokio::runtime::Runtime,
}

impl Running {
    fn start(toml: &str) -> Running {
        let source = Arc::new(Source { name: "bench.toml".into(), text: toml.into() });
        let config = config::parse(source, Path::new("")).unwrap_or_else(|report| panic!("{report}"));
        let world = World::compile(config, Path::new("bench.toml")).unwrap_or_else(|report| panic!("{report}"));
        let (world, board) = (Arc::new(world), Arc::new(Board::default()));
        let targets = world.targets().clone();
        board.adopt(&targets, SystemTime::now());
        let live = Live::new(world.clone(), board.clone(), StateDir::default());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("threads and timers");
        let following = live.clone();
        runtime.spawn(async move { following.follow_health().await });
        let server = Running { world, live, board, targets, runtime };
        let all: Vec<usize> = (0..server.targets.list().len()).collect();
        server.tell(&all, true); // first results
        server.wait_for(all[all.len() - 1], true);
        server
    }

    /// One result for each of these pairs of the plan; each is a verdict.
    fn tell(&self, pairs: &[usize], up: bool) {
        for pair in pairs {
            let health::Source::Target(id) = &self.targets.sources()[*pair] else { continue }; // nothing here is calculated
            let target = &self.targets.list()[id.index()];
            let error = ProbeError::Refused;
            let mut result = ProbeResult::failed(error, Duration::from_millis(1));
            if up {
                result.outcome = Ok(());
            }
            self.board.record(target, result, Instant::now(), SystemTime::now());
        }
    }

    /// Looks again and again until the published snapshot has this pair of the plan up or down. Sleeps in between, which makes the
    /// figures up to a tenth of a millisecond too high: spinning would take a core away from what is measured.
    fn wait_for(&self, pair: usize, up: bool) {
        let pool = self.world.plan.pools_of_target[pair][0];
        let members = &self.world.plan.pools[pool.0 as usize].members;
        let member = members.iter().position(|member| member.target == Some(pair)).expect("the pool has the target");
        let begun = Instant::now();
        while self.live.snapshot.load().health.pool(pool).up[member] != up {
            assert!(begun.elapsed() < PATIENCE, "the change is never published");
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Takes the pairs that `which` gives for each run down and up again.
    fn report(&self, what: &str, runs: usize, which: impl Fn(usize) -> Vec<usize>) {
        for (way, up) in [("down", false), ("up", true)] {
            let mut took_ms = Vec::with_capacity(runs);
            let mut publications = 0;
            for run in 0..runs {
                let pairs = which(run);
                // Into the other state first, where it is not measured.
                self.tell(&pairs, !up);
                self.wait_for(pairs[pairs.len() - 1], !up);
                thread::sleep(APART);
                let before = self.live.snapshot.load().generation;
                self.tell(&pairs, up);
                let decided = Instant::now();
                self.wait_for(pairs[pairs.len() - 1], up);
                took_ms.push(decided.elapsed().as_secs_f64() * 1e3);
                publications += self.live.snapshot.load().generation - before;
                thread::sleep(APART);
                self.tell(&pairs, true);
                self.wait_for(pairs[pairs.len() - 1], true);
                thread::sleep(APART);
            }
            took_ms.sort_by(f64::total_cmp);
            let at = |share: f64| took_ms[((runs - 1) as f64 * share).ceil() as usize];
            println!(
                "{:<58} {runs:>5} {:>8.3} {:>8.3} {:>8.3} {:>13.1}",
                format!("{what}: {way}"),
                at(0.5),
                at(0.99),
                at(1.0),
                publications as f64 / runs as f64
            );
        }
        let _ = &self.runtime;
    }
}
