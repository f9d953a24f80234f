//! A server of a cluster, and what there is to say to it.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;

use crate::{
    nats::Nats,
    netns::Namespace,
    program::{Folder, PATIENCE, Program, http, wait_for},
};

/// The endpoint of region `us`, which comes second in answers.
pub const US: &str = "192.0.2.1";
/// The endpoint of region `eu`, which comes first.
pub const EU: &str = "192.0.2.2";

const SERVE: [&str; 3] = ["serve", "--config", "isochrone.toml"];

/// A server of a cluster, and its folder.
pub struct Node {
    pub name: String,
    pub folder: Folder,
    pub server: Program,
    /// Where it runs, if not here.
    home: Option<Arc<Namespace>>,
    clock: Clock,
}

/// A server that was stopped, with what it kept.
pub struct Stopped {
    name: String,
    folder: Folder,
    home: Option<Arc<Namespace>>,
    clock: Clock,
}

impl Stopped {
    pub fn start_again(self) -> Node {
        let Stopped { name, folder, home, clock } = self;
        let server = match &home {
            Some(home) => start_under(&folder, home, &clock),
            None => folder.start_with(&SERVE, &borrowed(&clock.variables())),
        };
        Node { name, folder, server, home, clock }
    }
}

/// The clock on the wall that a server goes by; its monotonic clock is always right.
#[derive(Debug, Clone)]
pub enum Clock {
    Right,
    /// So far off: `+1h`.
    Off(String),
    /// As far off as this file says at any moment.
    OfFile(PathBuf),
}

impl Clock {
    /// The library is loaded without Debian's wrapper, which would stay between.
    fn variables(&self) -> Vec<(&'static str, String)> {
        let found = fs::read_dir("/usr/lib").unwrap().flatten();
        let library = found.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
        let told = match self {
            Clock::Right => return Vec::new(),
            Clock::Off(off) => vec![("FAKETIME", off.clone())],
            Clock::OfFile(path) => {
                let path = path.to_str().unwrap().to_string();
                vec![("FAKETIME_TIMESTAMP_FILE", path), ("FAKETIME_NO_CACHE", "1".into())]
            }
        };
        let library = library.expect("libfaketime is installed: apt-get install faketime");
        let preload = ("LD_PRELOAD", library.to_str().unwrap().to_string());
        let monotonic = ["FAKETIME_DONT_FAKE_MONOTONIC", "DONT_FAKE_MONOTONIC"].map(|name| (name, "1".to_string()));
        told.into_iter().chain([preload]).chain(monotonic).collect()
    }
}

fn borrowed<'v>(variables: &'v [(&'static str, String)]) -> Vec<(&'static str, &'v str)> {
    variables.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// By `env`, which turns into the program.
fn start_under(folder: &Folder, home: &Namespace, clock: &Clock) -> Program {
    let variables = clock.variables();
    let mut outer = home.command("env");
    outer.args(variables.iter().map(|(name, value)| format!("{name}={value}")));
    folder.start_under(outer, &SERVE, &[])
}

/// Two regions under heartbeats, and a route that goes to `eu` while that is up.
pub fn config(name: &str, cluster: &str) -> String {
    format!(
        r#"
[server]
listen = ["127.0.0.1:0"]
state-dir = "state"
threads = 1
[admin]
listen = "127.0.0.1:0"
[cluster]
node = "{name}"
{cluster}
[checks.app]
type = "push"
interval = "1h"
flap-changes = 0
[regions.us]
location = "aws:us-east-1"
endpoints = ["{US}"]
check = "app"
[regions.eu]
location = "aws:eu-west-1"
endpoints = ["{EU}"]
check = "app"
[zones."geo.example"]
nameservers = ["ns1.example.net."]
[zones."geo.example".routes."www"]
policy = "failover"
regions = ["eu", "us"]
"#
    )
}

impl Node {
    pub fn start(name: &str, cluster: &str) -> Node {
        Node::start_with(name, &config(name, cluster))
    }

    pub fn start_with(name: &str, config: &str) -> Node {
        let folder = Folder::with_config(config);
        let server = folder.start(&SERVE);
        Node { name: name.into(), folder, server, home: None, clock: Clock::Right }
    }

    /// With a file in its state directory that an earlier process left there.
    pub fn start_knowing(name: &str, config: &str, file: &str, text: &str) -> Node {
        let folder = Folder::with_config(config);
        fs::create_dir(folder.path().join("state")).unwrap();
        folder.write(&format!("state/{file}"), text);
        let server = folder.start(&SERVE);
        Node { name: name.into(), folder, server, home: None, clock: Clock::Right }
    }

    /// In a network namespace.
    pub fn start_in(home: Arc<Namespace>, name: &str, cluster: &str) -> Node {
        Node::start_in_with(home, name, &config(name, cluster), Clock::Right)
    }

    /// The same with a configuration and a clock of its own.
    pub fn start_in_with(home: Arc<Namespace>, name: &str, config: &str, clock: Clock) -> Node {
        let folder = Folder::with_config(config);
        let server = start_under(&folder, &home, &clock);
        Node { name: name.into(), folder, server, home: Some(home), clock }
    }

    /// By a clock on the wall that is so far off: `+1h`.
    pub fn start_at(off: &str, name: &str, cluster: &str) -> Node {
        let folder = Folder::with_config(&config(name, cluster));
        let clock = Clock::Off(off.into());
        let server = folder.start_with(&SERVE, &borrowed(&clock.variables()));
        Node { name: name.into(), folder, server, home: None, clock }
    }

    /// Ends it and starts it again, with what it kept.
    pub fn restart(self) -> Node {
        self.stopped("TERM").start_again()
    }

    /// Ends it by a signal.
    pub fn stopped(self, signal: &str) -> Stopped {
        let Node { name, folder, mut server, home, clock } = self;
        server.signal(signal);
        server.ended();
        Stopped { name, folder, home, clock }
    }

    /// Does something where it runs.
    pub fn there<T: Send>(&self, work: impl FnOnce(&Program) -> T + Send) -> T {
        match &self.home {
            Some(home) => home.inside(|| work(&self.server)),
            None => work(&self.server),
        }
    }

    /// Lets it see an endpoint up or down: two heartbeats bring one back.
    pub fn sees(&self, endpoint: &str, state: &str) {
        for _ in 0..2 {
            let path = format!("/api/v1/checks/app/{endpoint}/heartbeat");
            let (status, body) = self.post(&path, &format!(r#"{{"state":"{state}"}}"#));
            assert_eq!(status, 200, "{body}");
        }
    }

    pub fn force(&self, region: &str, state: &str, reason: &str) {
        let path = format!("/api/v1/regions/{region}/force");
        let (status, body) = self.post(&path, &format!(r#"{{"state":"{state}","reason":"{reason}"}}"#));
        assert_eq!(status, 200, "{body}");
    }

    pub fn post(&self, path: &str, body: &str) -> (u16, String) {
        self.there(|server| post(server.admin, path, body))
    }

    /// The address in its answer.
    pub fn answer(&self) -> String {
        self.there(|server| address_in(&server.ask(&question())))
    }

    pub fn get(&self, path: &str) -> String {
        let (status, body) = self.there(|server| http(server.admin, "GET", path));
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub fn status(&self) -> Value {
        serde_json::from_str(&self.get("/api/v1/status")).unwrap()
    }

    pub fn cluster(&self) -> Value {
        self.status()["cluster"].clone()
    }

    /// How many servers' views count with it.
    pub fn counting(&self) -> usize {
        1 + self.cluster()["nodes"].as_array().unwrap().iter().filter(|node| node["counts"] == true).count()
    }

    /// The endpoint of a region in the status.
    pub fn endpoint(&self, region: usize) -> Value {
        self.status()["regions"][region]["endpoints"][0].clone()
    }

    pub fn log_count(&self, part: &str) -> usize {
        self.server.stderr().lines().filter(|line| line.contains(part)).count()
    }
}

pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    wait_for(what, || is_so().then_some(()));
}

/// Waits until every server counts all.
pub fn meet(nodes: &[&Node]) {
    for node in nodes {
        wait_until("the servers to hear each other", || node.counting() == nodes.len());
    }
}

pub fn wait_for_answers(nodes: &[&Node], address: &str) {
    for node in nodes {
        wait_until(&format!("{} to answer {address}", node.name), || node.answer() == address);
    }
}

/// Starts servers that go to this NATS.
pub fn start(names: &[&str], nats: &Nats) -> Vec<Node> {
    names.iter().map(|name| Node::start(name, &format!("nats = [\"{}\"]", nats.url()))).collect()
}

fn post(admin: SocketAddr, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (head, len) = ("connection: close\r\ncontent-type: application/json", body.len());
    write!(stream, "POST {path} HTTP/1.1\r\nhost: {admin}\r\n{head}\r\ncontent-length: {len}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_string())
}

fn question() -> Vec<u8> {
    let mut query = vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["www", "geo", "example"] {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

fn address_in(reply: &[u8]) -> String {
    let address = &reply[reply.len() - 4..];
    format!("{}.{}.{}.{}", address[0], address[1], address[2], address[3])
}

/// A client that asks a server fifty times a second, and loses no answer.
pub struct Client {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<BTreeSet<String>>,
}

impl Client {
    pub fn of(node: &Node) -> Client {
        let server = node.server.dns;
        let ended = Arc::new(AtomicBool::new(false));
        let until = ended.clone();
        let thread = thread::spawn(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let (mut told, mut reply) = (BTreeSet::new(), [0; 1500]);
            while !until.load(Ordering::Relaxed) {
                socket.send_to(&question(), server).unwrap();
                let len = socket.recv(&mut reply).expect("no answer is lost");
                told.insert(address_in(&reply[..len]));
                thread::sleep(Duration::from_millis(20));
            }
            told
        });
        Client { ended, thread }
    }

    /// All addresses that it was told.
    pub fn told(self) -> Vec<String> {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().expect("no answer is lost").into_iter().collect()
    }
}
