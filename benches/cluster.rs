//! What sharing costs: twenty servers with five thousand targets and ten thousand measured networks each, in this process, with a real NATS
//! between them. From one server's verdict until all go by it, traffic, processor time, and how long one that joins takes to know
//! everything. `cargo bench --bench cluster` prints a table. Needs Debian's nats-server.

use std::{
    fs,
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use isochrone::{
    cluster::{self, Cell, Cluster, Decisions, Own, message::Decision},
    config::model,
    geo::Network,
    health::{
        Board, Check, CheckKind, Endpoint, ProbeError, ProbeResult, Targets, consensus::Sees, damping,
        install_crypto_provider,
    },
};
use tokio::sync::watch;

const SERVERS: usize = 20;
const TARGETS: usize = 5_000;
/// Networks that each server has measured: 200,000 in all.
const NETWORKS: usize = 10_000;
/// Of them, that have another round trip every other second while it is not quiet.
const MOVING: usize = 100;
const CHANGES: usize = 300;
/// From one telling to the next.
const BEAT: Duration = Duration::from_secs(2);
/// How long it is quiet while traffic and processor time are counted.
const QUIET: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(60);
/// Units of processor time in /proc, a second (`getconf CLK_TCK`).
const TICKS: f64 = 100.0;

struct Nobody(watch::Sender<u64>);

impl Decisions for Nobody {
    fn digest(&self) -> u64 {
        0
    }

    fn all(&self) -> Vec<Decision> {
        Vec::new()
    }

    fn take(&self, _: &str, _: Vec<Decision>) {}

    fn changed(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

struct Server {
    number: usize,
    cluster: Arc<Cluster>,
    board: Arc<Board>,
    /// Changes of the board that were looked at, and what answers go by after them.
    seen: Mutex<(u64, Vec<Sees>)>,
}

/// nats-server on a port of its own choice; killed when dropped.
struct Nats {
    child: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Nats {
    fn start() -> Nats {
        let folder = tempfile::tempdir().expect("a folder");
        let arguments = ["-a", "127.0.0.1", "-p", "-1", "--ports_file_dir"];
        let child = Command::new("nats-server").args(arguments).arg(folder.path()).stderr(Stdio::null()).spawn();
        let child = child.expect("nats-server is installed: apt-get install nats-server");
        let url = wait("NATS", || {
            let file = fs::read_dir(folder.path()).ok()?.flatten().next()?.path();
            let told: serde_json::Value = serde_json::from_str(&fs::read_to_string(file).ok()?).ok()?;
            Some(told["nats"][0].as_str()?.to_string())
        });
        Nats { child, url, _folder: folder }
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn targets() -> Targets {
    let kind = CheckKind::Tcp { port: 80 };
    let (interval, timeout, fast_interval) = (Duration::from_secs(10), Duration::from_secs(4), Duration::from_secs(1));
    let damping = damping::Rules::OFF;
    let check = Check { name: "web".into(), kind, interval, fast_interval, timeout, fall: 1, rise: 1, damping };
    let check = Arc::new(check);
    let endpoint = |n: usize| Endpoint::Address(Ipv4Addr::from(0x0a00_0000 + n as u32).into());
    Targets::new((0..TARGETS).map(|n| (endpoint(n), check.clone())).collect())
}

impl Server {
    fn start(n: usize, url: &str, targets: &Targets) -> Server {
        let (cluster, board) = (Arc::new(Cluster::default()), Arc::new(Board::default()));
        // Whatever one server says is believed, so that its verdict is everybody's.
        let config = model::Cluster {
            nats: vec![url.to_string()],
            credentials: None,
            ca: None,
            node: format!("n{n}"),
            prefix: "bench".into(),
            quorum: 0.0,
        };
        cluster.configure(Some(&config));
        board.adopt(targets, SystemTime::now());
        tokio::spawn(cluster::run(cluster.clone(), board.clone(), Arc::new(Nobody(watch::Sender::new(0)))));
        let server = Server { number: n, cluster, board, seen: Mutex::new((0, vec![Sees::Up; TARGETS])) };
        server.measures(0);
        server
    }

    /// Takes up what it has measured; in each round some round trips are others than in the round before.
    fn measures(&self, round: usize) {
        let cell = |n: usize| {
            // As unlike each other as networks are.
            let bits = ((self.number * NETWORKS + n) as u32).wrapping_mul(0x9e37_79b1);
            let moved = (round * MOVING).saturating_sub(n).div_ceil(NETWORKS) as f32;
            let rtt_ms = (bits >> 3 & 0x3ff) as f32 / 4.0 + 1.0 + 10.0 * (moved % 2.0);
            let network = Network::of(Ipv4Addr::from_bits(bits & !0xff).into());
            let (samples, age_s) = (1 + (bits >> 13 & 31), (bits % 86_400).into());
            Cell { network, rtt_ms, samples, age_s, sends_subnets: false }.rounded()
        };
        let cells = (0..NETWORKS).map(cell).collect();
        self.cluster.measure(Some(Own { region: format!("r{}", self.number), cells, at: Instant::now() }));
    }

    fn sees(&self, targets: &Targets, at: usize, up: bool) {
        let outcome = if up { Ok(()) } else { Err(ProbeError::Refused) };
        let result = ProbeResult { outcome, connect: Some(Duration::from_millis(20)), ..ProbeResult::default() };
        self.board.record(&targets.list()[at], result, Instant::now(), SystemTime::now());
    }

    /// What answers go by.
    fn goes_by(&self, at: usize) -> Sees {
        let mut seen = self.seen.lock().expect("nobody panics");
        let changes = self.board.changes_since(seen.0);
        seen.0 = changes.generation;
        for (id, status) in changes.statuses {
            seen.1[id.index()] = status.counts_as;
        }
        seen.1[at]
    }

    /// Views of others that count for the last target.
    fn knows(&self) -> usize {
        let view = self.cluster.view(Instant::now()).expect("it is configured");
        let complete = view.nodes.iter().filter(|node| node.counts && node.targets == TARGETS).count();
        if complete + 1 < SERVERS {
            return complete;
        }
        std::thread::sleep(Duration::from_millis(5)); // a look at the whole board is work for it, too
        let consensus = self.board.snapshot().statuses[TARGETS - 1].consensus;
        consensus.map_or(0, |c| usize::from(c.up + c.down))
    }

    /// Networks that others measured and it knows.
    fn networks(&self) -> usize {
        let view = self.cluster.view(Instant::now()).expect("it is configured");
        view.nodes.iter().filter_map(|node| node.measured.as_ref()).map(|(_, networks)| networks).sum()
    }

    fn bytes(&self) -> [u64; 2] {
        let traffic = self.cluster.view(Instant::now()).expect("it is configured").traffic;
        [traffic.sent[1], traffic.received[1]]
    }
}

/// Processor time of a process so far, in seconds.
fn cpu_s(id: &str) -> f64 {
    let text = fs::read_to_string(Path::new("/proc").join(id).join("stat")).unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / TICKS
}

fn main() {
    install_crypto_provider();
    let nats = Nats::start();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let inside = runtime.enter();
    let targets = targets();
    let mut servers: Vec<Server> = (0..SERVERS).map(|n| Server::start(n, &nats.url, &targets)).collect();
    for server in &servers {
        (0..TARGETS).for_each(|at| server.sees(&targets, at, true));
    }
    let begun = Instant::now();
    wait("all to know all", || servers.iter().all(|server| server.knows() == SERVERS).then_some(()));
    println!("{SERVERS} servers, {TARGETS} targets and {NETWORKS} measured networks each, one NATS");
    println!("all at once, until all know all views       {:>8.0} ms", begun.elapsed().as_secs_f64() * 1e3);
    let others = |servers: usize| (servers - 1) * NETWORKS;
    wait("all to know all networks", || {
        servers.iter().all(|server| server.networks() == others(SERVERS)).then_some(())
    });
    println!("             until all know all networks    {:>8.0} ms", begun.elapsed().as_secs_f64() * 1e3);
    println!("             each has received              {:>8.0} kB", servers[0].bytes()[1] as f64 / 1e3);
    println!("             memory of all servers          {:>8.0} MB", resident_mb());

    report_traffic("quiet", &servers, &nats, &|_| {});
    let busy = format!("{MOVING} networks of each move every 2 s");
    report_traffic(&busy, &servers, &nats, &|round| servers.iter().for_each(|server| server.measures(round)));
    report_changes(&servers, &targets);

    let begun = Instant::now();
    let late = Server::start(SERVERS, &nats.url, &targets);
    wait("the late one to know all", || (late.knows() == SERVERS).then_some(()));
    println!("one that joins, until it knows all views    {:>8.0} ms", begun.elapsed().as_secs_f64() * 1e3);
    wait("the late one to know all networks", || (late.networks() == others(SERVERS + 1)).then_some(()));
    println!("                until it knows all networks {:>8.0} ms", begun.elapsed().as_secs_f64() * 1e3);
    println!("                it received                 {:>8.0} kB", late.bytes()[1] as f64 / 1e3);
    servers.push(late);
    drop(inside);
    runtime.shutdown_background();
}

/// Megabytes that this process has in memory.
fn resident_mb() -> f64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0.0) / 1e3
}

/// Counts bytes and processor time for a while in which `act` is called every two seconds.
fn report_traffic(what: &str, servers: &[Server], nats: &Nats, act: &dyn Fn(usize)) {
    let id = nats.child.id().to_string();
    let (cpu, nats_cpu) = (cpu_s("self"), cpu_s(&id));
    let before: Vec<[u64; 2]> = servers.iter().map(Server::bytes).collect();
    let begun = Instant::now();
    for round in 1.. {
        act(round);
        std::thread::sleep((begun + BEAT * round as u32).saturating_duration_since(Instant::now()));
        if begun.elapsed() >= QUIET {
            break;
        }
    }
    let after: Vec<[u64; 2]> = servers.iter().map(Server::bytes).collect();
    let (cpu, nats_cpu) = (cpu_s("self") - cpu, cpu_s(&id) - nats_cpu);
    let seconds = begun.elapsed().as_secs_f64();
    let mean = |way: usize| {
        let all: u64 = before.iter().zip(&after).map(|(before, after)| after[way] - before[way]).sum();
        all as f64 / servers.len() as f64 / seconds
    };
    println!("{what}:");
    println!("       each server sends                    {:>8.0} bytes/s", mean(0));
    println!("       each server receives                 {:>8.0} bytes/s", mean(1));
    println!(
        "       processor, each server               {:>8.3} % of a core",
        100.0 * cpu / seconds / servers.len() as f64
    );
    println!("       processor, NATS                      {:>8.3} % of a core", 100.0 * nats_cpu / seconds);
}

/// One target after another, seen down by one server after another, until every server goes by it.
fn report_changes(servers: &[Server], targets: &Targets) {
    let mut took: Vec<f64> = (0..CHANGES)
        .map(|n| {
            let (from, at) = (n % servers.len(), n * 13 % TARGETS);
            let begun = Instant::now();
            servers[from].sees(targets, at, false);
            for server in servers {
                wait("a verdict everywhere", || (server.goes_by(at) == Sees::Down).then_some(()));
            }
            let ms = begun.elapsed().as_secs_f64() * 1e3;
            servers[from].sees(targets, at, true);
            std::thread::sleep(Duration::from_millis(50));
            ms
        })
        .collect();
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    println!("one verdict, until all go by it: p50        {:>8.1} ms", at(0.5));
    println!("                                 p99        {:>8.1} ms", at(0.99));
    println!("                                 most       {:>8.1} ms", at(1.0));
    let begun = Instant::now();
    (0..TARGETS).for_each(|at| servers[0].sees(targets, at, false));
    let all_down = |server: &Server| (0..TARGETS).rev().all(|at| server.goes_by(at) == Sees::Down);
    wait("all verdicts everywhere", || servers.iter().all(all_down).then_some(()));
    println!("{TARGETS} verdicts at once, until all go by them  {:>8.0} ms", begun.elapsed().as_secs_f64() * 1e3);
    (0..TARGETS).for_each(|at| servers[0].sees(targets, at, true));
    std::thread::sleep(Duration::from_secs(2));
}
