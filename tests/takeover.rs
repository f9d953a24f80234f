//! One process takes over from another while clients ask: nothing is lost, nothing is wrong, and whatever goes wrong with the new one
//! leaves the old one serving. Real processes on loopback; needs python3 (as the service manager that opens sockets), openssl and kdig.
#![allow(clippy::disallowed_methods)] // it starts threads and reads the clock

#[path = "support/fixture.rs"]
mod fixture;
#[path = "support/program.rs"]
mod program;

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::net::UnixStream,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use fixture::Ask;
use hickory_proto::{op::Message, serialize::binary::BinDecodable};
use program::{Folder, PATIENCE, Program, http, wait_for};
use serde_json::{Value, json};

const NAME: &str = "www.app.geo.example";

/// Two regions, of which `us` answers first; `server` goes into `[server]`.
fn config(server: &str) -> String {
    format!(
        r#"
[server]
listen = ["127.0.0.1:0"]
{server}
[admin]
listen = "127.0.0.1:0"
[regions.us]
location = "aws:us-east-1"
endpoints = ["192.0.2.1"]
[regions.eu]
location = "aws:eu-west-1"
endpoints = ["192.0.2.2"]
[zones."geo.example"]
nameservers = ["ns1.example.net."]
[zones."geo.example".routes."*.app"]
policy = "failover"
"#
    )
}

fn kept(server: &str) -> String {
    config(&format!("state-dir = \"state\"\n{server}"))
}

const SERVE: [&str; 3] = ["serve", "--config", "isochrone.toml"];
const TAKE_OVER: [&str; 4] = ["serve", "--config", "isochrone.toml", "--takeover"];

fn query(id: u16) -> Vec<u8> {
    let mut query = Ask::new(NAME, "A").bytes();
    query[..2].copy_from_slice(&id.to_be_bytes());
    query
}

/// The addresses in a reply, if it is one to this query.
fn said(reply: &[u8], id: u16) -> Option<Vec<String>> {
    let message = Message::from_bytes(reply).ok()?;
    (message.metadata.id == id).then(|| message.answers.iter().map(|record| record.data.to_string()).collect())
}

fn frame(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn ask_tcp(stream: &mut TcpStream, query: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(&frame(query))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply)?;
    Ok(reply)
}

/// Over UDP and TCP.
fn assert_answers(program: &Program, expected: &str) {
    assert_eq!(said(&program.ask(&query(7)), 7).unwrap(), [expected]);
    let reply = ask_tcp(&mut connect(program.dns).unwrap(), &query(8)).unwrap();
    assert_eq!(said(&reply, 8).unwrap(), [expected]);
}

/// Clients that ask without a pause. None has more than one question open, so that no buffer ever overflows and every answer that does
/// not come was lost by the server.
struct Clients {
    counts: Arc<Counts>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    end: AtomicBool,
    udp: AtomicU64,
    tcp: AtomicU64,
    lost: AtomicU64,
    wrong: AtomicU64,
}

impl Clients {
    fn start(server: SocketAddr) -> Clients {
        let counts: Arc<Counts> = Arc::default();
        let mut threads = Vec::new();
        for number in 0..8 {
            let counts = counts.clone();
            threads.push(thread::spawn(move || {
                while !counts.end.load(Relaxed) {
                    // Another port may lead to another queue.
                    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                    socket.set_read_timeout(Some(PATIENCE / 2)).unwrap();
                    socket.connect(server).unwrap();
                    for id in 0..20 {
                        counts.udp.fetch_add(1, Relaxed);
                        counts.judge(ask_udp(&socket, number * 100 + id), number * 100 + id);
                        thread::sleep(Duration::from_millis(1));
                    }
                }
            }));
        }
        for number in 0..2 {
            let counts = counts.clone();
            threads.push(thread::spawn(move || {
                while !counts.end.load(Relaxed) {
                    counts.tcp.fetch_add(1, Relaxed);
                    counts.judge(connect(server).and_then(|mut stream| ask_tcp(&mut stream, &query(number))), number);
                    thread::sleep(Duration::from_millis(2));
                }
            }));
        }
        Clients { counts, threads }
    }

    fn asked(&self) -> u64 {
        self.counts.udp.load(Relaxed)
    }

    /// Lost and wrong, of how many over UDP and TCP.
    fn end(self) -> [u64; 4] {
        self.counts.end.store(true, Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        let Counts { lost, wrong, udp, tcp, .. } = &*self.counts;
        [lost, wrong, udp, tcp].map(|count| count.load(Relaxed))
    }
}

impl Counts {
    fn judge(&self, reply: io::Result<Vec<u8>>, id: u16) {
        match reply {
            Err(_) => self.lost.fetch_add(1, Relaxed),
            Ok(reply) if said(&reply, id).is_some_and(|said| said == ["192.0.2.1"]) => 0,
            Ok(_) => self.wrong.fetch_add(1, Relaxed),
        };
    }
}

fn ask_udp(socket: &UdpSocket, id: u16) -> io::Result<Vec<u8>> {
    socket.send(&query(id))?;
    let mut reply = vec![0; 4096];
    let length = socket.recv(&mut reply)?;
    reply.truncate(length);
    Ok(reply)
}

#[test]
fn ten_upgrades_in_a_row_lose_no_query_whatever_the_number_of_threads() {
    let folder = Folder::with_config(&kept("threads = 2"));
    let mut running = folder.start(&SERVE);
    let (dns, admin) = (running.dns, running.admin);
    let clients = Clients::start(dns);
    wait_for("some questions", || (clients.asked() > 1000).then_some(()));
    let [lost_without, wrong_without, ..] = clients.end();
    assert_eq!(wrong_without, 0);

    let clients = Clients::start(dns);
    for threads in [2, 1, 3, 4, 1, 2, 5, 3, 2, 2] {
        folder.write("isochrone.toml", &kept(&format!("threads = {threads}")));
        let asked = clients.asked();
        let next = folder.start(&TAKE_OVER);
        assert_eq!((next.dns, next.admin), (dns, admin));
        let mut before = std::mem::replace(&mut running, next);
        assert_eq!(before.ended().code(), Some(0), "{}", before.stderr());
        wait_for("more questions", || (clients.asked() > asked + 200).then_some(()));
    }
    let [lost, wrong, udp, tcp] = clients.end();
    assert!(lost <= lost_without && wrong == 0, "of {udp} over UDP and {tcp} over TCP {lost} lost, {wrong} wrong");
    assert!(udp > 1000 && tcp > 100, "{udp} {tcp}");
    running.signal("TERM");
    assert_eq!(running.ended().code(), Some(0));
    assert!(!folder.path().join("state/handover.sock").exists());
}

#[test]
fn what_was_decided_before_and_after_holds_and_the_old_one_ends_after_its_clients() {
    let folder = Folder::with_config(&kept("identity = \"first\""));
    let first = folder.start(&SERVE);
    let url = first.admin_url();
    let drain = |region: &str, url: &str| folder.run(&["drain", region, "--reason", "upgrade", "--admin", url]);
    assert_eq!(drain("us", &url).code, Some(0));
    assert_answers(&first, "192.0.2.2");
    let mut client = connect(first.dns).unwrap();
    assert_eq!(identity(&mut client).unwrap(), "first");

    folder.write("isochrone.toml", &kept("identity = \"second\""));
    let second = folder.start(&TAKE_OVER);
    let relieved = Instant::now();
    assert_eq!(second.admin_url(), url);
    assert_answers(&second, "192.0.2.2");
    assert_eq!(identity(&mut connect(second.dns).unwrap()).unwrap(), "second");
    // Who was connected is served by the old one; only a machine that stood still for seconds could have made it hang up.
    match identity(&mut client) {
        Ok(name) => assert_eq!(name, "first"),
        Err(error) => assert!(relieved.elapsed() > Duration::from_secs(2), "{error}"),
    }
    // A decision on the new one while the old one is still there, which must not write its own over it.
    assert_eq!(folder.run(&["force", "us", "auto", "--admin", &url]).code, Some(0));
    drop(client);
    let mut first = first;
    assert_eq!(first.ended().code(), Some(0), "{}", first.stderr());
    assert_answers(&second, "192.0.2.1");
    let state: Value =
        serde_json::from_str(&fs::read_to_string(folder.path().join("state/overrides.json")).unwrap()).unwrap();
    assert_eq!(state["data"]["list"], json!([]), "{state}");
    assert!(folder.path().join("state/verdicts.json").exists());
}

/// What `id.server` is over an open connection.
fn identity(stream: &mut TcpStream) -> io::Result<String> {
    let mut question = Ask::new("id.server", "TXT").bytes();
    let at = 12 + "id.server".len() + 2 + 2;
    question[at..at + 2].copy_from_slice(&[0, 3]); // class CH
    let reply = ask_tcp(stream, &question)?;
    let message = Message::from_bytes(&reply).map_err(io::Error::other)?;
    let told = message.answers.first().map(|record| record.data.to_string()).unwrap_or_default();
    Ok(told.trim_matches('"').to_string())
}

#[test]
fn whatever_goes_wrong_with_the_new_one_leaves_the_old_one_serving() {
    let folder = Folder::with_config(&kept(""));
    let none = folder.run(&TAKE_OVER);
    assert_eq!(none.code, Some(1), "{none:?}");
    assert!(none.stderr.contains("--takeover found no running server at "), "{none:?}");

    let mut old = folder.start(&SERVE);
    let fails = |toml: &str, code: i32, why: &str| {
        folder.write("isochrone.toml", toml);
        let done = folder.run(&TAKE_OVER);
        assert!(done.code == Some(code) && done.stderr.contains(why), "{done:?}");
        assert_answers(&old, "192.0.2.1");
        assert_eq!(old.get("/livez").0, 200);
    };
    fails("[server", 2, "isochrone.toml");
    fails(&kept("threads = \"many\""), 2, "threads");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let blocked = kept("").replace("listen = [", &format!("listen = [\"{}\", ", taken.local_addr().unwrap()));
    fails(&blocked, 1, "address in use");
    fails(&config(""), 1, "set `state-dir`");
    folder.write("isochrone.toml", &kept(""));

    // One that goes away at each step, with the sockets in its hands.
    let door = folder.path().join("state/handover.sock");
    drop(UnixStream::connect(&door).unwrap());
    let mut speaker = UnixStream::connect(&door).unwrap();
    say(&mut speaker, &json!({"hello": {"protocol": 99, "version": "x"}}));
    assert!(hear(&mut speaker)["refused"]["why"].as_str().unwrap().contains("without --takeover"));
    let mut speaker = UnixStream::connect(&door).unwrap();
    say(&mut speaker, &json!({"hello": {"protocol": 1, "version": "x"}}));
    let offer = hear(&mut speaker);
    assert!(offer["offer"]["sockets"].as_array().unwrap().len() >= 3, "{offer}");
    assert_answers(&old, "192.0.2.1");

    // A second one is turned away while the first is at it.
    let second = folder.run(&TAKE_OVER);
    assert!(second.code == Some(1) && second.stderr.contains("another process is taking over"), "{second:?}");
    drop(speaker);
    old.wait_for_log("the end of the try", |line| {
        line["message"].as_str().is_some_and(|text| text.starts_with("the new process did not take over"))
    });
    assert_answers(&old, "192.0.2.1");
    let forced = folder.run(&["drain", "us", "--admin", &old.admin_url()]);
    assert_eq!(forced.code, Some(0), "{forced:?}");

    let next = folder.start(&TAKE_OVER);
    assert_eq!(old.ended().code(), Some(0));
    assert_answers(&next, "192.0.2.2");
}

fn say(stream: &mut UnixStream, message: &Value) {
    let body = message.to_string();
    stream.write_all(&(body.len() as u32).to_be_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
}

fn hear(stream: &mut UnixStream) -> Value {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut body).unwrap();
    serde_json::from_slice(&body).unwrap()
}

#[test]
fn addresses_come_and_go_with_a_takeover_and_encrypted_ones_stay() {
    let folder = Folder::new();
    make_certificate(&folder);
    let encrypted = "[server.encrypted]\ndot = [\"127.0.0.1:0\"]\ndoq = [\"127.0.0.1:0\"]\ndoh = [\"127.0.0.1:0\"]\n\
                     certificate = \"cert.pem\"\nkey = \"key.pem\"";
    folder.write("isochrone.toml", &kept(encrypted));
    let mut old = folder.start(&SERVE);
    let ready = old.wait_for_log("ready", |line| line["message"] == "ready");
    let more = kept(encrypted)
        .replace("listen = [\"127.0.0.1:0\"]\nstate", "listen = [\"127.0.0.1:0\", \"127.0.0.2:0\"]\nstate");
    folder.write("isochrone.toml", &more);
    let mut next = folder.start(&TAKE_OVER);
    assert_eq!(old.ended().code(), Some(0), "{}", old.stderr());
    let now = next.wait_for_log("ready", |line| line["message"] == "ready");
    for key in ["dot", "doq", "doh", "admin"] {
        assert_eq!(now[key], ready[key], "{key}");
    }
    for (key, how) in [("dot", "+tls"), ("doq", "+quic"), ("doh", "+https")] {
        let server: SocketAddr = now[key].as_str().unwrap().parse().unwrap();
        assert_eq!(kdig(server, how), "192.0.2.1", "{how}");
    }
    let listen: Vec<SocketAddr> =
        now["listen"].as_str().unwrap().split(' ').map(|address| address.parse().unwrap()).collect();
    assert_eq!((listen.len(), listen[0]), (2, old.dns));
    assert!(connect(listen[1]).is_ok());

    folder.write("isochrone.toml", &kept(""));
    let mut last = folder.start(&TAKE_OVER);
    assert_eq!(next.ended().code(), Some(0), "{}", next.stderr());
    assert_answers(&last, "192.0.2.1");
    assert!(TcpStream::connect(listen[1]).is_err());
    last.wait_for_log("what is closed", |line| {
        let text = line["message"].as_str().unwrap_or_default();
        text.contains("no longer in the configuration") && text.contains(&format!("TCP {}", listen[1]))
    });
}

fn make_certificate(folder: &Folder) {
    let arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 7 -subj /CN=ns1.example \
                     -addext subjectAltName=DNS:ns1.example -keyout key.pem -out cert.pem";
    let mut openssl = Command::new("openssl");
    openssl.args(arguments.split_whitespace()).current_dir(folder.path());
    assert!(openssl.output().expect("openssl").status.success());
}

fn kdig(server: SocketAddr, how: &str) -> String {
    let port = server.port().to_string();
    let mut kdig = Command::new("kdig");
    kdig.args([&format!("@{}", server.ip()), "-p", &port, how, "+short", "+timeout=60", "+retry=0", NAME, "A"]);
    String::from_utf8(kdig.output().expect("kdig").stdout).unwrap().trim().to_string()
}

#[test]
fn without_a_state_directory_the_process_is_found_by_its_address() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let toml = config("").replacen("127.0.0.1:0", &format!("127.0.0.1:{port}"), 1);
    let folder = Folder::with_config(&toml);
    let mut old = folder.start(&SERVE);
    let drained = folder.run(&["drain", "us", "--admin", &old.admin_url()]);
    assert_eq!(drained.code, Some(0), "{drained:?}");
    let next = folder.start(&TAKE_OVER);
    assert_eq!(old.ended().code(), Some(0), "{}", old.stderr());
    assert_eq!(next.dns.port(), port);
    assert_answers(&next, "192.0.2.2");
    let again = folder.start(&TAKE_OVER);
    assert_eq!((again.dns, http(again.admin, "GET", "/livez").0), (next.dns, 200));
}

/// Stands in for the service manager: opens sockets, puts a question into the queue of the UDP socket before anybody reads it, writes the
/// configuration and turns into the program.
const MANAGER: &str = r#"
import os, socket, sys
tcp = socket.socket(); tcp.bind(("127.0.0.1", 0)); tcp.listen()
port = tcp.getsockname()[1]
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("127.0.0.1", port))
sockets = [udp, tcp]
for _ in range(int(sys.argv[1])):
    other = socket.socket(); other.bind(("127.0.0.1", 0)); other.listen(); sockets.append(other)
asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asker.sendto(bytes.fromhex(sys.argv[2]), ("127.0.0.1", port))
text = open("template.toml").read().replace("127.0.0.1:0", "127.0.0.1:%d" % port, 1)
open("isochrone.toml", "w").write(text)
for n, fd in enumerate([os.dup2(s.fileno(), 50 + n, False) for n, s in enumerate(sockets)]):
    os.dup2(fd, 3 + n)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(sockets)))
os.execv(sys.argv[3], sys.argv[3:])
"#;

#[test]
fn sockets_of_a_service_manager_are_used_and_those_that_nothing_lists_are_an_error() {
    let folder = Folder::new();
    folder.write("template.toml", &kept("threads = 2"));
    let manager = |others: &str| {
        let hex: String = query(9).iter().map(|byte| format!("{byte:02x}")).collect();
        let mut python = Command::new("python3");
        python.args(["-c", MANAGER, others, &hex]);
        python
    };
    let program = folder.start_under(manager("0"), &SERVE, &[]);
    wait_for("the question that waited", || (program.json("/api/v1/status")["queries"]["total"] == 1).then_some(()));
    assert_answers(&program, "192.0.2.1");
    let text = fs::read_to_string(folder.path().join("isochrone.toml")).unwrap();
    assert!(text.contains(&format!("listen = [\"{}\"]", program.dns)), "{text}");
    // Both threads read the one queue: whoever asks is answered.
    let clients = Clients::start(program.dns);
    wait_for("some questions", || (clients.asked() > 200).then_some(()));
    assert_eq!(clients.end()[..2], [0, 0]);
    let next = folder.start(&TAKE_OVER);
    assert_eq!(next.dns, program.dns);
    assert_answers(&next, "192.0.2.1");
    drop((program, next));

    let mut python = manager("1");
    python.arg(env!("CARGO_BIN_EXE_isochrone")).args(SERVE).current_dir(folder.path());
    let done = python.output().unwrap();
    let told = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1), "{told}");
    assert!(told.contains("opened sockets that no list of the configuration has: TCP 127.0.0.1:"), "{told}");
}
