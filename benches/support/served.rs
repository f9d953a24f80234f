//! The program while it serves, and an asker that measures what a query costs it.
//!
//! The program is stopped while a burst of queries is sent, and goes on when all of them wait for it. So its batches are always
//! full, as they are at the limit of its rate, however slow the asker is; and its time on a processor, which the kernel counts in
//! nanoseconds, is read while it stands still.

use std::{
    fs, io,
    net::{SocketAddr, UdpSocket},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    program::{Folder, PATIENCE, Program},
    queries::Query,
};

/// What is asked for of a receive buffer, in bytes; the program does the same.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Queries of a burst; fewer where buffers are small or queries long.
const BURST_MAX: usize = 2000;

/// Of this size are the buffers of most replies in the kernel, in bytes.
const REPLY_ROOM: usize = 1280;

/// A running program with one worker, and sockets to it.
pub struct Served {
    pub program: Program,
    socket: UdpSocket,
    /// Asks one more query at the end of a burst: its reply says that all before it are dealt with.
    last: UdpSocket,
    last_query: Vec<u8>,
    tasks: Vec<String>,
}

/// What a burst cost and brought.
#[derive(Default, Clone, Copy)]
pub struct Cost {
    pub queries: usize,
    pub replies: usize,
    pub cpu_ns: u64,
}

impl Served {
    /// Starts the program in `folder`; `known` is a name that it answers.
    pub fn start(folder: &Folder, known: &str) -> Served {
        let program = folder.start(&["serve", "--config", "isochrone.toml"]);
        let (socket, last) = (connect(program.dns), connect(program.dns));
        last.set_nonblocking(false).expect("a socket");
        last.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let tasks = fs::read_dir(format!("/proc/{}/task", program.id())).expect("a running program");
        let tasks = tasks.map(|task| task.expect("a task").path().display().to_string()).collect();
        Served { program, socket, last, last_query: Query::new(known).bytes(0), tasks }
    }

    /// Sends all of `messages`, burst by burst, and adds up what they cost.
    pub fn ask(&self, messages: &[Vec<u8>]) -> Cost {
        let longest = messages.iter().map(Vec::len).max().unwrap_or_default();
        let mut cost = Cost::default();
        self.stop();
        let mut before_ns = self.cpu_ns();
        for burst in messages.chunks(burst_len(longest)) {
            for message in burst {
                self.socket.send(message).expect("room to send");
            }
            self.last.send(&self.last_query).expect("room to send");
            self.program.signal("CONT");
            self.last.recv(&mut [0; 512]).expect("a reply to the last query of a burst");
            cost.replies += self.drain();
            self.stop();
            let after_ns = self.cpu_ns();
            cost.cpu_ns += after_ns - before_ns;
            cost.queries += burst.len() + 1;
            before_ns = after_ns;
        }
        self.program.signal("CONT");
        cost
    }

    /// Stops the program and waits until none of its threads runs.
    fn stop(&self) {
        self.program.signal("STOP");
        let begun = Instant::now();
        while self.tasks.iter().any(|task| state(task) != Some('T')) {
            assert!(begun.elapsed() < PATIENCE, "the program does not stand still");
            thread::yield_now();
        }
    }

    fn cpu_ns(&self) -> u64 {
        self.tasks.iter().map(|task| task_cpu_ns(task)).sum()
    }

    /// Takes the replies that are there.
    fn drain(&self) -> usize {
        let mut count = 0;
        let mut reply = [0; 4096];
        loop {
            match self.socket.recv(&mut reply) {
                Ok(_) => count += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return count,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Time that this thread has had on a processor, in nanoseconds: what others take from it meanwhile does not count.
pub fn own_cpu_ns() -> u64 {
    // The kernel brings the figure up to date when it looks for who runs next.
    thread::yield_now();
    task_cpu_ns("/proc/thread-self")
}

fn task_cpu_ns(task: &str) -> u64 {
    let text = fs::read_to_string(format!("{task}/schedstat")).unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or_default()
}

/// As /proc has it; `None`: the thread has ended.
fn state(task: &str) -> Option<char> {
    let Ok(stat) = fs::read_to_string(format!("{task}/stat")) else { return Some('T') };
    stat.rsplit(") ").next()?.chars().next()
}

/// How many queries of this length the receive buffers hold, theirs and ours.
fn burst_len(query_len: usize) -> usize {
    let allowed = fs::read_to_string("/proc/sys/net/core/rmem_max").ok();
    let allowed: usize = allowed.and_then(|text| text.trim().parse().ok()).unwrap_or(200_000);
    // The kernel doubles what is asked for, and counts its own headers and what is lost to rounding.
    let room = (query_len + 384).next_power_of_two() + 256;
    (allowed.min(RECEIVE_BUFFER) * 3 / 2 / room.max(REPLY_ROOM)).clamp(1, BURST_MAX)
}

/// A socket to `server`, which does not block.
pub fn connect(server: SocketAddr) -> UdpSocket {
    let socket = Socket::new(Domain::for_address(server), Type::DGRAM, Some(Protocol::UDP)).expect("a socket");
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER); // less only makes bursts smaller
    socket.connect(&server.into()).expect("a local address");
    socket.set_nonblocking(true).expect("a socket");
    socket.into()
}

/// Puts a process, this one or the server, on one processor where there are two, so that they do not wander.
pub fn pin(pid: u32, processor: usize) {
    // Not those that are available to this process: it may have been put on one of them before.
    if fs::exists(format!("/sys/devices/system/cpu/cpu{processor}")).unwrap_or(false) {
        let _ = Command::new("taskset").args(["-a", "-p", "-c", &processor.to_string(), &pid.to_string()]).output();
    }
    thread::sleep(Duration::from_millis(1)); // the kernel moves it when it next runs
}
