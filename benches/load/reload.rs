//! What clients notice of a reload of 10,000 routes while the worker is at half of its rate: answers lost, and how long they take.
//! Queries are sent at a fixed rate whatever comes back; with the reload and without it in turn. Program and asker have a processor each,
//! so that what the reload takes is taken from the worker and nobody else.

use std::{
    fmt::Write,
    io,
    net::UdpSocket,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use crate::{
    lowest, median,
    program::Folder,
    queries::{Chance, Query},
    served::{Served, connect, pin},
};

const ROUTES: usize = 10_000;
const ROUNDS: usize = 5;
/// Of a run.
const RUN: Duration = Duration::from_secs(3);
/// When the reload is told to begin.
const RELOAD_AT: Duration = Duration::from_millis(300);
/// Between two small bursts: often enough that the burst itself hardly makes a queue.
const PERIOD: Duration = Duration::from_micros(200);

/// What a run saw.
struct Seen {
    sent: usize,
    lost: usize,
    /// Between a query and its reply in microseconds, of those sent while the reload went on (or would have), ascending.
    latency_us: Vec<f64>,
    reload: Duration,
}

impl Seen {
    fn percentile(&self, percent: usize) -> f64 {
        self.latency_us[(self.latency_us.len() - 1) * percent / 100]
    }
}

fn config(ttl_s: usize) -> String {
    let mut text = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nthreads = 1\n[admin]\nlisten = \"\"\n\
         [regions.us]\nlocation = \"aws:us-east-1\"\nendpoints = [\"192.0.2.1\"]\n\
         [regions.eu]\nlocation = \"aws:eu-central-1\"\nendpoints = [\"192.0.2.2\"]\n\
         [regions.ap]\nlocation = \"aws:ap-southeast-1\"\nendpoints = [\"192.0.2.3\"]\n\
         [zones.\"example.com\"]\nnameservers = [\"ns1.example.net.\"]\nttl = {ttl_s}\n"
    );
    (0..ROUTES).for_each(|n| writeln!(text, "[zones.\"example.com\".routes.\"*.app{n}\"]").expect("text"));
    text
}

/// Measures and prints a table.
pub fn run() {
    let folder = Folder::with_config(&config(60));
    let mut served = Served::start(&folder, "h.app0.example.com");
    pin(served.program.id(), 1);
    pin(std::process::id(), 0);
    let mut chance = Chance::new(4);
    let messages: Vec<Vec<u8>> = (0..100_000)
        .map(|n| {
            let name = format!("{}.app{}.example.com", chance.label(), chance.below(ROUTES));
            Query::new(name).client(chance.network()).bytes(n as u16)
        })
        .collect();
    let costs: Vec<f64> = messages
        .chunks(10_000)
        .map(|part| served.ask(part))
        .map(|cost| cost.cpu_ns as f64 / cost.queries as f64)
        .collect();
    let rate = 0.5e9 / lowest(&costs);
    println!("\nreload: {ROUTES} routes, one worker, open loop at {rate:.0} queries a second: half of its rate");
    println!(
        "{:<8} {:>8} {:>6} {:>8} {:>8} {:>8} {:>10}",
        "RUN", "SENT", "LOST", "P50 US", "P99 US", "P99.9 US", "RELOAD MS"
    );
    let (mut ratios, mut lost) = (Vec::new(), [0, 0]);
    let mut window = Duration::from_millis(500);
    for round in 0..ROUNDS {
        let with = ask(&mut served, &messages, rate, Some((&folder, config(61 + round))), window);
        window = with.reload;
        let without = ask(&mut served, &messages, rate, None, window);
        ratios.push(with.percentile(99) / without.percentile(99));
        for (name, seen) in [("reload", &with), ("none", &without)] {
            let permille = seen.latency_us[(seen.latency_us.len() - 1) * 999 / 1000];
            println!(
                "{name:<8} {:>8} {:>6} {:>8.0} {:>8.0} {permille:>8.0} {:>10}",
                seen.sent,
                seen.lost,
                seen.percentile(50),
                seen.percentile(99),
                seen.reload.as_millis(),
            );
        }
        lost[0] += with.lost;
        lost[1] += without.lost;
    }
    println!(
        "lost {} with reloads, {} without; p99 while it reloads x{:.2} (median of the rounds)",
        lost[0],
        lost[1],
        median(ratios)
    );
}

/// One run at `rate`; latencies are kept of what is sent within the reload, or within `window` if there is none.
fn ask(
    served: &mut Served,
    messages: &[Vec<u8>],
    rate: f64,
    reload: Option<(&Folder, String)>,
    window: Duration,
) -> Seen {
    let socket = connect(served.program.dns);
    socket.set_nonblocking(false).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a socket");
    // By message id: when it was sent, in nanoseconds since the beginning; 0: not outstanding.
    let sent_ns: Vec<AtomicU64> = (0..=u16::MAX).map(|_| AtomicU64::new(0)).collect();
    let done = AtomicBool::new(false);
    let reloads_before = reloads(served);
    let begun = Instant::now();
    let ((sent, lost), replies, reload_took) = thread::scope(|scope| {
        let sender = scope.spawn(|| send(&socket, messages, rate, begun, &sent_ns));
        let receiver = scope.spawn(|| receive(&socket, begun, &sent_ns, &done));
        thread::sleep(RELOAD_AT);
        let told = Instant::now();
        let reload_took = reload.map(|(folder, text)| {
            folder.write("isochrone.toml", &text);
            served.program.signal("HUP");
            while reloads(served) == reloads_before && told.elapsed() < RUN {
                thread::sleep(Duration::from_millis(5));
            }
            told.elapsed()
        });
        let sent = sender.join().expect("a sender");
        done.store(true, Relaxed);
        (sent, receiver.join().expect("a receiver"), reload_took)
    });
    let (first_ns, took) = (RELOAD_AT.as_nanos() as u64, reload_took.unwrap_or(window));
    let within = first_ns..first_ns + took.as_nanos() as u64;
    let mut latency_us: Vec<f64> =
        replies.iter().filter(|(at, _)| within.contains(at)).map(|(_, latency_ns)| *latency_ns as f64 / 1e3).collect();
    latency_us.sort_by(f64::total_cmp);
    let unanswered = sent_ns.iter().filter(|at| at.load(Relaxed) != 0).count();
    Seen { sent, lost: lost + unanswered, latency_us, reload: took }
}

/// Reloads that the program has told of.
fn reloads(served: &Served) -> usize {
    served.program.stderr().matches("\"reloaded").count()
}

/// Returns how many were sent, and how many of them had no reply when their id was used again.
fn send(socket: &UdpSocket, messages: &[Vec<u8>], rate: f64, begun: Instant, sent_ns: &[AtomicU64]) -> (usize, usize) {
    let (mut sent, mut lost) = (0, 0);
    while begun.elapsed() < RUN {
        let due = (begun.elapsed().as_secs_f64() * rate) as usize;
        while sent < due {
            let message = &messages[sent % messages.len()];
            let id = usize::from(u16::from_be_bytes([message[0], message[1]]));
            lost += usize::from(sent_ns[id].swap(begun.elapsed().as_nanos() as u64, Relaxed) != 0);
            socket.send(message).expect("room to send");
            sent += 1;
        }
        thread::sleep(PERIOD);
    }
    (sent, lost)
}

/// Takes replies until the sender is done and none has come for a while: when each was asked for, and how long it took.
fn receive(socket: &UdpSocket, begun: Instant, sent_ns: &[AtomicU64], done: &AtomicBool) -> Vec<(u64, u64)> {
    let mut replies = Vec::with_capacity(1 << 20);
    let mut reply = [0; 4096];
    loop {
        match socket.recv(&mut reply) {
            Ok(_) => {
                let id = usize::from(u16::from_be_bytes([reply[0], reply[1]]));
                let at = sent_ns[id].swap(0, Relaxed);
                if at != 0 {
                    replies.push((at, begun.elapsed().as_nanos() as u64 - at));
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if done.load(Relaxed) {
                    return replies;
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
}
