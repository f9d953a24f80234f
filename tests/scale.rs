//! The real program with hundreds of targets: few open files, and a process that stood still. Needs `prlimit` of Debian's
//! util-linux.

#[path = "support/program.rs"]
mod program;

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use program::{Folder, PATIENCE, Program, wait_for};
use socket2::{Domain, Socket, Type};

const SERVE: [&str; 3] = ["serve", "--config", "isochrone.toml"];

/// One region with so many endpoints, from `first` on.
fn config(first: Ipv4Addr, count: u32, limits: &str, check: &str) -> String {
    let endpoints: Vec<String> = (0..count).map(|n| Ipv4Addr::from_bits(first.to_bits() + n).to_string()).collect();
    format!(
        r#"
[server]
listen = ["127.0.0.1:0"]
[server.limits]
{limits}
[admin]
listen = "127.0.0.1:0"
[checks.web]
type = "tcp"
{check}
[regions.us]
location = "aws:us-east-1"
endpoints = {endpoints:?}
check = "web"
[zones."geo.example"]
nameservers = ["ns1.example.net."]
[zones."geo.example".routes.app]
"#
    )
}

/// A listener on every address of this host whose queue is full: connections hang. With what fills it.
fn black_hole() -> (u16, Vec<Socket>) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([0, 0, 0, 0], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let port = listener.local_addr().unwrap().as_socket().unwrap().port();
    let mut held = vec![listener];
    loop {
        let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        if filler.connect_timeout(&at.into(), Duration::from_millis(100)).is_err() {
            return (port, held);
        }
        held.push(filler);
    }
}

fn open_files(server: &Program) -> usize {
    fs::read_dir(format!("/proc/{}/fd", server.id())).unwrap().count()
}

/// One question over a new TCP connection; the reply's length.
fn ask_tcp(server: SocketAddr) -> usize {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut query = vec![0, 41, 0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend(b"\x03app\x03geo\x07example\x00\x00\x01\x00\x01");
    query[1] = (query.len() - 2) as u8;
    stream.write_all(&query).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("an answer");
    usize::from(u16::from_be_bytes(length))
}

#[test]
fn endpoints_that_hang_never_take_the_last_open_files() {
    const FILES: u64 = 300;
    let (port, _held) = black_hole();
    let check = format!("port = {port}\ninterval = \"1s\"\ntimeout = \"500ms\"");
    let folder = Folder::with_config(&config(Ipv4Addr::new(127, 65, 0, 1), 600, "tcp-connections = 50", &check));
    let mut prlimit = Command::new("prlimit");
    prlimit.arg(format!("--nofile={FILES}:{FILES}"));
    let mut server = folder.start_under(prlimit, &SERVE, &[]);
    let told = server.wait_for_log("a word on the limit", |line| line["limit"] == FILES);
    assert_eq!((&told["targets"], &told["connections"]), (&600.into(), &50.into()), "{told}");
    assert!(told["message"].as_str().unwrap().contains("LimitNOFILE=1024"), "{told}");
    let probes_max = told["probes_at_a_time"].as_u64().unwrap();
    assert!((75..FILES - 50).contains(&probes_max), "{told}");

    let mut most = 0;
    wait_for("all targets to be probed, a few at a time", || {
        most = most.max(open_files(&server));
        assert!(ask_tcp(server.dns) > 12, "clients come in all the while");
        server.stderr().contains("first round of probes done").then_some(())
    });
    assert!(most as u64 <= FILES - 50, "{most} files were open, and clients may have 50 more");
    let log = server.stderr();
    assert!(!log.contains("this host could not probe") && !log.contains("Too many open files"), "{log}");
    wait_for("the answers to follow the last of the verdicts: all of them hang", || {
        (server.json("/api/v1/status")["regions"][0]["usable"] == false).then_some(())
    });
}

#[test]
fn no_storm_of_probes_follows_when_the_process_was_stopped() {
    const TARGETS: usize = 400;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([0, 0, 0, 0], 0)).into()).unwrap();
    socket.listen(4096).unwrap();
    let listener = TcpListener::from(socket);
    let port = listener.local_addr().unwrap().port();
    let (arrived, arrivals) = mpsc::channel();
    thread::spawn(move || {
        while let Ok((_, _)) = listener.accept() {
            let _ = arrived.send(Instant::now()); // an error means that the test has ended
        }
    });
    let check = format!("port = {port}\ninterval = \"4s\"\ntimeout = \"2s\"");
    let folder = Folder::with_config(&config(Ipv4Addr::new(127, 66, 0, 1), TARGETS as u32, "", &check));
    let mut server = folder.start(&SERVE);
    server.wait_for_log("the first round", |line| line["message"] == "first round of probes done");
    let round = |what: &str| {
        let times: Vec<Instant> = (0..TARGETS).map(|_| arrivals.recv_timeout(PATIENCE).expect(what)).collect();
        times[TARGETS - 1] - times[0]
    };
    round("the first round");
    round("a second round, in turns");
    server.signal("STOP");
    let stopped = Instant::now();
    wait_for("longer than an interval", || (stopped.elapsed() > Duration::from_secs(6)).then_some(()));
    while arrivals.try_recv().is_ok() {}
    server.signal("CONT");
    let spread = round("a round after the stop");
    // In turns it takes about four seconds; a storm is over within a tenth of one.
    assert!(spread > Duration::from_secs(1), "{TARGETS} probes came within {spread:?}");
    assert_eq!(server.json("/api/v1/status")["regions"][0]["usable"], true);
    let log = server.stderr();
    assert!(!log.contains("endpoint is down"), "the stop is no fault of the endpoints: {log}");
}
