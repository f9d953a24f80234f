//! Ten thousand targets on ten thousand loopback addresses, probed by the real program: what that costs it in processor time and
//! memory, how evenly the probes arrive, and that endpoints that hang delay nobody else.
//! `cargo bench --bench ten_thousand [-- SECONDS]` prints the figures; it takes three runs of so many seconds, 60 unless told.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use isochrone::sys::limits::raise_open_files;
use socket2::{Domain, Socket, Type};

const ROUTES: usize = 1_000;
const PER_ROUTE: usize = 10;
const TARGETS: usize = ROUTES * PER_ROUTE;
/// The default of checks.
const INTERVAL: Duration = Duration::from_secs(10);
/// Arrivals are counted in pieces of this.
const BUCKET: Duration = Duration::from_millis(100);
/// Threads that take connections, for each server.
const ACCEPTORS: usize = 4;
/// Ticks a second of the times in /proc/PID/stat, the same on every Linux.
const TICKS_PER_S: f64 = 100.0;
const PATIENCE: Duration = Duration::from_secs(60);

/// When each target was connected to.
type Arrivals = Arc<Mutex<Vec<(Ipv4Addr, Instant)>>>;

fn main() {
    let seconds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(60);
    let window = Duration::from_secs(seconds);
    raise_open_files(); // the servers are in this process
    println!("{TARGETS} targets, half tcp, half http, every {} s, over {seconds} s", INTERVAL.as_secs());
    run("all healthy", window, 0);
    run("1,000 of them hang", window, ROUTES / 10);
    run("9,000 of them hang", window, ROUTES * 9 / 10);
}

/// One run; the targets of the first `hanging` routes take no connections.
fn run(what: &str, window: Duration, hanging: usize) {
    let arrivals = Arrivals::default();
    let tcp = serve(&arrivals, |_| {});
    let http = serve(&arrivals, answer);
    let hole = Hole::dig();
    let program = Program::start(&config(tcp, http, hole.port, hanging));
    program.wait_for("first round of probes done");
    thread::sleep(2 * INTERVAL); // the first round came as fast as it could; now all have their turns, and those that hang are down
    arrivals.lock().expect("no thread panicked").clear();
    let (before, begun) = (program.cpu_s(), Instant::now());
    thread::sleep(window);
    let (cpu_s, took) = (program.cpu_s() - before, begun.elapsed());
    let arrived: Vec<_> = std::mem::take(&mut *arrivals.lock().expect("no thread panicked"));
    println!("\n{what}:");
    println!(
        "  processor {:.1} % of a core ({cpu_s:.2} s in {:.1} s)",
        100.0 * cpu_s / took.as_secs_f64(),
        took.as_secs_f64()
    );
    let (now_mb, most_mb) = program.memory_mb();
    println!("  memory {now_mb:.1} MB resident, {most_mb:.1} MB at most");
    println!(
        "  {:.1} probes a second, {:.0} µs of processor time each",
        arrived.len() as f64 / took.as_secs_f64(),
        1e6 * cpu_s / arrived.len() as f64
    );
    tell_evenness(&arrived, begun, window);
    tell_gaps(&arrived, TARGETS - hanging * PER_ROUTE, window);
}

fn tell_evenness(arrived: &[(Ipv4Addr, Instant)], begun: Instant, window: Duration) {
    let mut buckets = vec![0u32; (window.as_millis() / BUCKET.as_millis()) as usize];
    for (_, at) in arrived {
        let bucket = (at.saturating_duration_since(begun).as_millis() / BUCKET.as_millis()) as usize;
        if let Some(count) = buckets.get_mut(bucket) {
            *count += 1;
        }
    }
    let mean = buckets.iter().sum::<u32>() as f64 / buckets.len() as f64;
    let variance = buckets.iter().map(|&n| (f64::from(n) - mean).powi(2)).sum::<f64>() / buckets.len() as f64;
    let (least, most) = (buckets.iter().min().unwrap_or(&0), buckets.iter().max().unwrap_or(&0));
    println!(
        "  in {} ms: {mean:.1} on average, {least} to {most}, at most {:.2} times the average, standard deviation {:.1}",
        BUCKET.as_millis(),
        f64::from(*most) / mean,
        variance.sqrt()
    );
}

/// From one probe to the next of the same target.
fn tell_gaps(arrived: &[(Ipv4Addr, Instant)], expected: usize, window: Duration) {
    let mut by_target: HashMap<Ipv4Addr, Vec<Instant>> = HashMap::new();
    for (target, at) in arrived {
        by_target.entry(*target).or_default().push(*at);
    }
    let mut gaps_ms: Vec<f64> = by_target
        .values()
        .flat_map(|times| times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e3))
        .collect();
    gaps_ms.sort_by(f64::total_cmp);
    let at = |share: f64| gaps_ms.get(((gaps_ms.len() as f64 - 1.0) * share) as usize).copied().unwrap_or(f64::NAN);
    let rounds = (window.as_secs() / INTERVAL.as_secs()) as usize;
    let missed =
        by_target.values().filter(|times| times.len() < rounds).count() + expected - by_target.len().min(expected);
    println!(
        "  from probe to probe of a target: {:.0} ms at least, {:.0} ms p50, {:.0} ms p99.9, {:.0} ms at most; {missed} of {expected} targets came short",
        at(0.0),
        at(0.5),
        at(0.999),
        at(1.0)
    );
}

/// The targets: 127.64.0.0 and on, one after the other.
fn address(n: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 64, 0, 0)) + n as u32)
}

fn config(tcp: u16, http: u16, hole: u16, hanging: usize) -> String {
    let first = address(0);
    let mut toml = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"\"\n\
         [checks.tcp]\ntype = \"tcp\"\nport = {tcp}\n[checks.http]\ntype = \"http\"\nport = {http}\npath = \"/health\"\n\
         expect-body = \"ok\"\n[checks.hole]\ntype = \"tcp\"\nport = {hole}\n"
    );
    for (name, location) in [("us", "aws:us-east-1"), ("eu", "aws:eu-west-1"), ("ap", "aws:ap-northeast-1")] {
        let _ = writeln!(toml, "[regions.{name}]\nlocation = \"{location}\"\nendpoints = [\"{first}\"]");
    }
    toml.push_str("[zones.\"example.com\"]\nnameservers = [\"ns1.example.net.\"]\n");
    for route in 0..ROUTES {
        let check = match (route < hanging, route % 2) {
            (true, _) => "hole",
            (false, 0) => "tcp",
            (false, _) => "http",
        };
        let list = |from: usize, to: usize| {
            (from..to).map(|n| format!("\"{}\"", address(route * PER_ROUTE + n))).collect::<Vec<_>>().join(",")
        };
        let (us, eu, ap) = (list(0, 4), list(4, 7), list(7, 10));
        let _ = writeln!(toml, "[zones.\"example.com\".routes.r{route}]\ncheck = \"{check}\"");
        let _ = writeln!(toml, "endpoints = {{ us = [{us}], eu = [{eu}], ap = [{ap}] }}");
    }
    toml
}

/// A server on every address of this host, which notes where and when connections come; the port.
fn serve(arrivals: &Arrivals, act: fn(&mut std::net::TcpStream)) -> u16 {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([0, 0, 0, 0], 0)).into()).expect("a free port");
    socket.listen(4_096).expect("a listener");
    let listener = TcpListener::from(socket);
    let port = listener.local_addr().expect("bound").port();
    for _ in 0..ACCEPTORS {
        let (listener, arrivals) = (listener.try_clone().expect("a file"), arrivals.clone());
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let at = Instant::now();
                if let Ok(SocketAddr::V4(local)) = stream.local_addr() {
                    arrivals.lock().expect("no thread panicked").push((*local.ip(), at));
                }
                act(&mut stream);
            }
        });
    }
    port
}

/// Reads a request and answers it.
fn answer(stream: &mut std::net::TcpStream) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let (mut text, mut buffer) = (Vec::new(), [0; 1_024]);
    while !text.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(n) if n > 0 => text.extend_from_slice(&buffer[..n]),
            _ => return,
        }
    }
    let _ = stream
        .write_all(b"HTTP/1.1 200 OK\r\nserver: bench\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok");
}

/// A listener on every address of this host whose queue is full: connections hang.
struct Hole {
    port: u16,
    _held: Vec<Socket>,
}

impl Hole {
    fn dig() -> Hole {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        listener.bind(&SocketAddr::from(([0, 0, 0, 0], 0)).into()).expect("a free port");
        listener.listen(0).expect("a listener");
        let port = listener.local_addr().ok().and_then(|at| at.as_socket()).expect("bound").port();
        let mut held = vec![listener];
        loop {
            let filler = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            let at = SocketAddr::from(([127, 0, 0, 1], port));
            if filler.connect_timeout(&at.into(), Duration::from_millis(100)).is_err() {
                return Hole { port, _held: held };
            }
            held.push(filler);
        }
    }
}

/// The program under test.
struct Program {
    child: Child,
    log: mpsc::Receiver<String>,
    _folder: tempfile::TempDir,
}

impl Program {
    fn start(toml: &str) -> Program {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("isochrone.toml"), toml).expect("the folder is ours");
        let mut command = Command::new(env!("CARGO_BIN_EXE_isochrone"));
        command.args(["serve", "--config", "isochrone.toml"]).current_dir(folder.path()).env_remove("RUST_LOG");
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (lines, log) = mpsc::channel();
        thread::spawn(move || stderr.lines().map_while(Result::ok).for_each(|line| drop(lines.send(line))));
        Program { child, log, _folder: folder }
    }

    /// Waits for a line of the log.
    fn wait_for(&self, message: &str) {
        let begun = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            let line = self.log.recv_timeout(left).unwrap_or_else(|_| panic!("the program does not say `{message}`"));
            if line.contains("few open files") {
                println!("{line}");
            }
            if line.contains(message) {
                return;
            }
        }
    }

    /// Processor time that it has used, in seconds.
    fn cpu_s(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        let after_name = stat.rsplit(") ").next().expect("a name in brackets");
        let ticks =
            |n: usize| after_name.split(' ').nth(n).and_then(|text| text.parse::<f64>().ok()).expect("a number");
        (ticks(11) + ticks(12)) / TICKS_PER_S
    }

    /// Resident memory now, and at most so far.
    fn memory_mb(&self) -> (f64, f64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let of = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).expect("such a line");
            line.split_whitespace().nth(1).and_then(|text| text.parse::<f64>().ok()).expect("a number") / 1024.0
        };
        (of("VmRSS:"), of("VmHWM:"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
