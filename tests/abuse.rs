//! The real program under abuse: floods of datagrams and of idle connections, no file descriptors left; and cookie secrets shared by
//! two servers. Needs `prlimit` of Debian's util-linux.

#[path = "support/fixture.rs"]
mod fixture;
#[path = "support/program.rs"]
mod program;

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use fixture::Ask;
use program::{Folder, PATIENCE, Program, wait_for};
use socket2::{Domain, Socket, Type};

fn config(server: &str, limits: &str) -> String {
    format!(
        r#"
[server]
listen = ["127.0.0.1:0"]
{server}
[server.limits]
{limits}
[admin]
listen = "127.0.0.1:0"
[regions.us]
location = "aws:us-east-1"
endpoints = ["192.0.2.1"]
[zones."geo.example"]
nameservers = ["ns1.example.net."]
[zones."geo.example".routes."*.app"]
"#
    )
}

fn start(folder: &Folder) -> Program {
    folder.start(&["serve", "--config", "isochrone.toml"])
}

fn query(label: &str) -> Vec<u8> {
    Ask::new(&format!("{label}.app.geo.example"), "A").bytes()
}

/// One question over a new TCP connection from an address.
fn ask_tcp(from: Ipv4Addr, server: SocketAddr) -> Vec<u8> {
    let mut stream = connect(from, server);
    let query = query("tcp");
    stream.write_all(&[&(query.len() as u16).to_be_bytes()[..], &query].concat()).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("an answer");
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply).unwrap();
    reply
}

fn connect(from: Ipv4Addr, server: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect_timeout(&server.into(), PATIENCE).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn has_answer(reply: &[u8]) -> bool {
    reply[2] & 0x02 == 0 && reply[7] == 1
}

fn metric(server: &Program, name: &str) -> u64 {
    let (_, page) = server.get("/metrics");
    let of = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<u64>().ok()).unwrap_or(0);
    page.lines().filter(|line| line.starts_with(name)).map(of).sum()
}

#[test]
fn a_flood_of_random_names_is_limited_through_a_reload() {
    let folder = Folder::with_config(&config("", "responses-per-second = 10"));
    let mut server = start(&folder);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let reader = thread::spawn({
        let socket = socket.try_clone().unwrap();
        move || {
            let (mut whole, mut shortened, mut reply) = (0, 0, [0; 4096]);
            while let Ok(len) = socket.recv(&mut reply) {
                if has_answer(&reply[..len]) {
                    whole += 1;
                } else {
                    assert_eq!((reply[2] & 0x02, &reply[6..12]), (0x02, &[0; 6][..]), "TC and nothing else");
                    shortened += 1;
                }
            }
            (whole, shortened)
        }
    });
    let begun = Instant::now();
    for n in 0..1500 {
        socket.send_to(&query(&format!("random{n}")), server.dns).unwrap();
        if n == 700 {
            server.signal("HUP");
        }
    }
    let (whole, shortened): (u64, u64) = reader.join().unwrap();
    let seconds = begun.elapsed().as_secs() + 2;
    assert!(whole >= 10 && whole <= 10 * seconds, "{whole} whole answers in {seconds} s");
    assert!(shortened > 100, "{shortened}");
    // Whoever is told to come by TCP is served there.
    assert!(has_answer(&ask_tcp(Ipv4Addr::LOCALHOST, server.dns)));
    let queries = wait_for("the counters to add up", || {
        let queries = metric(&server, "isochrone_queries_total{");
        let sum = metric(&server, "isochrone_responses_total{") + metric(&server, "isochrone_dropped_total{");
        (queries == sum).then_some(queries)
    });
    let dropped = metric(&server, "isochrone_dropped_total{reason=\"rate-limited\"}");
    // This side's buffer may have lost some.
    assert!(dropped > 100 && whole + shortened + dropped < queries, "{whole} + {shortened} + {dropped} of {queries}");
    let told = server.wait_for_log("a word on the limit", |line| line["network"] == "127.0.0.0/24");
    assert!(told["message"].as_str().unwrap().contains("responses-per-second"), "{told}");
    server.signal("TERM");
    assert_eq!(server.ended().code(), Some(0));
}

#[test]
fn three_hundred_idle_connections_of_many_clients_leave_a_new_one_served() {
    let folder = Folder::with_config(&config("", "tcp-connections = 100\ntcp-idle = \"1h\""));
    let server = start(&folder);
    let address = |n: u32| Ipv4Addr::from_bits(0x7f01_0000 + n);
    let idle: Vec<TcpStream> = (1..=300).map(|n| connect(address(n), server.dns)).collect();
    for n in 400..420 {
        assert!(has_answer(&ask_tcp(address(n), server.dns)));
    }
    assert!(metric(&server, "isochrone_tcp_connections ") <= 100);
    drop(idle);
}

/// Sets the limit on open files of a running process.
fn limit_open_files(process: u32, files: u32) {
    let limit = format!("--nofile={files}:");
    let status = Command::new("prlimit").args(["--pid", &process.to_string(), &limit]).status();
    assert!(status.expect("prlimit is installed").success());
}

/// CPU time of a process so far, in clock ticks.
fn cpu_ticks(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn without_file_descriptors_the_idlest_goes_and_nothing_spins() {
    let folder = Folder::with_config(&config("", "tcp-idle = \"1h\""));
    let mut server = start(&folder);
    let address = |n: u32| Ipv4Addr::from_bits(0x7f02_0000 + n);
    let open = fs::read_dir(format!("/proc/{}/fd", server.id())).unwrap().count() as u32;
    limit_open_files(server.id(), open + 20);
    let idle: Vec<TcpStream> = (1..=300).map(|n| connect(address(n), server.dns)).collect();
    assert!(has_answer(&ask_tcp(address(400), server.dns)), "a new client takes the place of the idlest");
    assert!(has_answer(&server.ask(&query("udp"))), "UDP goes on");
    drop(idle);

    // Not even one connection: it waits, and the server does so without looking all the time.
    limit_open_files(server.id(), 3);
    let waiting = thread::spawn({
        let server = server.dns;
        move || ask_tcp(Ipv4Addr::new(127, 3, 0, 1), server)
    });
    let refused = |line: &serde_json::Value| {
        line["message"].as_str().is_some_and(|message| message.contains("cannot accept connections (tcp)"))
    };
    server.wait_for_log("the failure to accept", refused);
    let (begun, before) = (Instant::now(), cpu_ticks(server.id()));
    wait_for("two seconds", || (begun.elapsed() > Duration::from_secs(2)).then_some(()));
    // A hundred ticks a second; spinning takes them all, on a busy machine still a good part.
    let used = cpu_ticks(server.id()) - before;
    assert!(used < 40, "{used} ticks in two seconds");
    assert!(has_answer(&server.ask(&query("udp"))), "UDP goes on");
    limit_open_files(server.id(), 1024);
    assert!(has_answer(&waiting.join().unwrap()), "and then it is served");
    let log = server.stderr();
    assert_eq!(log.matches("cannot accept connections (tcp)").count(), 1, "one line for the whole flood: {log}");
}

const OLD: &str = "e5e973e5a6b2a43f48e7dc849e37bfcf";
const NEW: &str = "445536bcd2513298075a5d379663c962";

/// A question with a COOKIE option of this client, and the server cookie if there is one.
fn with_cookie(label: &str, server_cookie: &[u8]) -> Vec<u8> {
    let option = [&[0, 10, 0, 8 + server_cookie.len() as u8][..], b"isochron", server_cookie].concat();
    let mut query = Ask::new(&format!("{label}.app.geo.example"), "A").edns(1232).bytes();
    let end = query.len();
    query[end - 2..].copy_from_slice(&(option.len() as u16).to_be_bytes());
    [query, option].concat()
}

fn fresh_cookie(server: &Program) -> Vec<u8> {
    // While it is limited, every second question is answered, and each reply brings a cookie.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    wait_for("a cookie", || {
        socket.send_to(&with_cookie("fresh", &[]), server.dns).unwrap();
        let mut reply = [0; 4096];
        let len = socket.recv(&mut reply).ok()?;
        Some(reply[len - 16..len].to_vec())
    })
}

/// With one response a second allowed, only who shows a valid cookie gets ten whole ones at once.
fn accepts(server: &Program, cookie: &[u8]) -> bool {
    (0..10).all(|_| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket.send_to(&with_cookie("again", cookie), server.dns).unwrap();
        let mut reply = [0; 4096];
        socket.recv(&mut reply).is_ok_and(|len| has_answer(&reply[..len]))
    })
}

/// Replaces the file of secrets, as a deployment does, and waits until the server has taken it up.
fn give_secrets(folder: &Folder, server: &Program, secrets: &[&str]) {
    let reloads = || server.json("/api/v1/status")["reload"]["succeeded"].as_u64().unwrap();
    let before = reloads();
    let aside = folder.write("cookies.new", &(secrets.join("\n") + "\n"));
    fs::rename(aside, folder.path().join("cookies")).unwrap();
    wait_for("the new secrets", || (reloads() > before).then_some(()));
}

#[test]
fn servers_with_one_file_of_secrets_know_each_others_cookies_through_a_rotation() {
    let toml = config("cookie-secret-file = \"cookies\"", "responses-per-second = 1");
    let sites = [(); 2].map(|()| {
        let folder = Folder::with_config(&toml);
        folder.write("cookies", &format!("# shared\n{OLD}\n"));
        let server = start(&folder);
        (folder, server)
    });
    let stranger_folder = Folder::with_config(&toml.replace("cookie-secret-file = \"cookies\"", ""));
    let stranger = start(&stranger_folder);

    let mut cookies: Vec<Vec<u8>> = Vec::new();
    let mut check = |what: &str| {
        // What was made one step ago is still in the hands of clients.
        cookies.drain(..cookies.len().saturating_sub(2));
        cookies.extend(sites.iter().map(|(_, server)| fresh_cookie(server)));
        for (n, (_, server)) in sites.iter().enumerate() {
            assert!(cookies.iter().all(|cookie| accepts(server, cookie)), "server {n}, {what}");
        }
    };
    check("one secret");
    for (step, secrets) in [("known", &[OLD, NEW][..]), ("in use", &[NEW, OLD]), ("alone", &[NEW])] {
        for (n, (folder, server)) in sites.iter().enumerate() {
            give_secrets(folder, server, secrets);
            // In the last step cookies of the old secret are an hour old, and nobody has them any more.
            check(&format!("the new secret is {step} on server {n}"));
        }
    }
    let of_stranger = fresh_cookie(&stranger);
    assert!(accepts(&stranger, &of_stranger));
    assert!(!accepts(&sites[0].1, &of_stranger), "a cookie made with another secret");

    // A file that is broken changes nothing, and no log shows what is in it.
    let (folder, server) = &sites[0];
    folder.write("cookies", &NEW[..31]);
    wait_for("the refusal", || (server.json("/api/v1/status")["reload"]["failed"] == 1).then_some(()));
    let cookie = fresh_cookie(&sites[1].1);
    assert!(accepts(server, &cookie));
    let log = server.stderr();
    assert!(log.contains("32 hexadecimal digits") && log.contains("cookies:1:1"), "{log}");
    assert!(log.contains("every user of this host can read"), "{log}");
    assert!(!log.contains(&NEW[..8]) && !log.contains(&OLD[..8]), "{log}");
}
