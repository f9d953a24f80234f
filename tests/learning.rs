//! Latency measured in passing. The core: which replies ask a client to come by TCP. And the real program over links with delays: a
//! server measures its clients out of ordinary queries by TCP and out of those it asked for, nothing else changes for them, and what
//! it knows survives a restart and a damaged file. Needs root and iproute2.
#![allow(clippy::disallowed_methods)] // it keeps time

#[path = "support/fixture.rs"]
mod fixture;
#[path = "support/netns.rs"]
mod netns;
#[path = "support/program.rs"]
mod program;
#[path = "support/relay.rs"]
mod relay;

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use fixture::{Ask, Fixture};
use isochrone::{
    answer::{Arrival, Verdict},
    telemetry::TransportKind,
};
use netns::Namespace;
use program::{Folder, PATIENCE, Program, wait_for};
use relay::{Relay, Way};
use serde_json::Value;

/// Asks a core that wants the sender to come by TCP; whether it asked for that, and the reply.
fn ask_or_answer(fixture: &mut Fixture, query: &[u8]) -> (bool, Vec<u8>) {
    let mut out = vec![0; 65_535];
    let arrival = Arrival { client: fixture.resolver, transport: TransportKind::Udp, now_s: 1_000_000 };
    fixture.core.want_tcp();
    let verdict = fixture.core.respond(query, arrival, &fixture.snapshot, &mut out);
    let was_asked = fixture.core.has_asked();
    let Verdict::Send(len) = verdict else { return (was_asked, Vec::new()) };
    out.truncate(len);
    (was_asked, out)
}

#[test]
fn only_who_is_answered_by_a_route_and_by_its_own_address_is_asked_to_come_by_tcp() {
    let mut fixture = Fixture::new(include_str!("../fuzz/src/core.toml"));
    let ask = |name: &str, qtype: &str| Ask::new(&format!("{name}.example.com"), qtype);
    for (what, query, is_asked) in [
        ("a route", ask("x.app", "A").bytes(), true),
        ("a route of names", ask("named", "A").bytes(), true),
        ("by way of a CNAME", ask("toroute", "AAAA").bytes(), true),
        ("with EDNS and DO", ask("x.app", "A").dnssec().bytes(), true),
        ("client subnet refused", ask("x.app", "A").from_client("0.0.0.0/0").bytes(), true),
        ("client subnet", ask("x.app", "A").from_client("18.184.0.0/24").bytes(), false),
        ("client subnet, IPv6", ask("x.app", "A").from_client("2a00:1450::/32").bytes(), false),
        ("a type that the route has not", ask("x.app", "MX").bytes(), false),
        ("a static record", ask("www", "A").bytes(), false),
        ("no such name", ask("nothing", "A").bytes(), false),
        ("another zone", Ask::new("example.net", "A").bytes(), false),
        ("no question", ask("x.app", "A").bytes()[..12].to_vec(), false),
        ("too short", vec![0; 5], false),
    ] {
        let usual = fixture.ask_bytes(&query, TransportKind::Udp).unwrap_or_default();
        let truncated = fixture.registry.totals().truncated;
        let (was_asked, reply) = ask_or_answer(&mut fixture, &query);
        assert_eq!(was_asked, is_asked, "{what}");
        assert!(fixture.registry.totals().is_balanced(), "{what}");
        if !is_asked {
            // The order of several addresses rotates.
            assert_eq!(reply.len(), usual.len(), "{what}");
            continue;
        }
        assert_eq!(fixture.registry.totals().truncated, truncated + 1, "{what}");
        assert!(reply[2] & 0x02 != 0 && reply[3] & 0x0f == 0, "{what}: TC and NOERROR");
        assert_eq!(reply[4..10], [0, 1, 0, 0, 0, 0], "{what}: the question and no record");
        assert_eq!(reply[10..12], query[10..12], "{what}: an OPT if one came");
        let question = 12..12 + Ask::question_len(&query);
        assert_eq!(reply[question.clone()], query[question], "{what}");
        // The next one is answered as usual.
        assert_eq!(fixture.ask_bytes(&query, TransportKind::Udp).unwrap().len(), usual.len(), "{what}");
    }
}

#[test]
fn whoever_is_asked_gets_its_cookie_and_its_subnet_back() {
    let mut fixture = Fixture::new(include_str!("../fuzz/src/core.toml"));
    let mut query = Ask::new("x.app.example.com", "A").from_client("0.0.0.0/0").bytes();
    let options_at = query.len() - 8;
    query[options_at - 2..options_at].copy_from_slice(&[0, 8 + 12]);
    query.extend([0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
    let (was_asked, reply) = ask_or_answer(&mut fixture, &query);
    assert!(was_asked);
    let holds = |part: &[u8]| reply.windows(part.len()).any(|window| window == part);
    assert!(holds(&[0, 8, 0, 4, 0, 1, 0, 0]), "the subnet with scope 0: {reply:02x?}");
    assert!(holds(&[0, 10, 0, 24, 1, 2, 3, 4, 5, 6, 7, 8]), "a server cookie: {reply:02x?}");
}

const ADDRESS: [u8; 4] = [192, 0, 2, 10];

/// A resolver in a namespace of its own, at some distance from the server.
struct Resolver {
    relay: Relay,
    namespace: Namespace,
    number: u8,
    one_way: Duration,
}

impl Resolver {
    fn new(home: &Namespace, number: u8, one_way_ms: u64) -> Resolver {
        let (namespace, one_way) = (Namespace::new(), Duration::from_millis(one_way_ms));
        let way = Way { delay: one_way, ..Way::default() };
        let relay = Relay::join(home, &namespace, number, way, way);
        Resolver { relay, namespace, number, one_way }
    }

    fn server(&self) -> SocketAddr {
        SocketAddr::from(([10, 0, self.number, 1], 53))
    }

    fn client(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, self.number, 2)
    }

    fn by_udp(&self, query: &[u8]) -> Vec<u8> {
        let socket = self.namespace.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(query, self.server()).unwrap();
        let mut reply = vec![0; 4096];
        let len = socket.recv(&mut reply).expect("an answer");
        reply.truncate(len);
        reply
    }

    /// By kdig: `+tls` or `+https`.
    fn encrypted(&self, how: &str) {
        let server = format!("@{}", self.server().ip());
        let mut kdig = self.namespace.command("kdig");
        let asked =
            kdig.args([&server, how, "+short", "+retry=0", "+timeout=60", "app.geo.example", "A"]).output().unwrap();
        let told = String::from_utf8_lossy(&asked.stdout);
        assert!(told.contains("192.0.2.10"), "{how}: {told}{}", String::from_utf8_lossy(&asked.stderr));
    }

    /// On a connection of its own.
    fn by_tcp(&self, query: &[u8]) -> Vec<u8> {
        let mut stream = self.namespace.inside(|| TcpStream::connect(self.server()).unwrap());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&[&(query.len() as u16).to_be_bytes(), query].concat()).unwrap();
        let mut len = [0; 2];
        stream.read_exact(&mut len).unwrap();
        let mut reply = vec![0; usize::from(u16::from_be_bytes(len))];
        stream.read_exact(&mut reply).unwrap();
        reply
    }
}

/// A server with its clients.
struct Site {
    // In the order in which they end.
    program: Option<Program>,
    resolvers: Vec<Resolver>,
    home: Namespace,
    folder: Folder,
}

impl Site {
    fn new(one_way_ms: &[u64]) -> Site {
        Site::that_asks(one_way_ms, "1.0")
    }

    /// `prospect`: the share of queries whose senders it asks to come.
    fn that_asks(one_way_ms: &[u64], prospect: &str) -> Site {
        netns::prepare(&["ip"]);
        let home = Namespace::new();
        let resolvers = (1u8..).zip(one_way_ms).map(|(number, ms)| Resolver::new(&home, number, *ms)).collect();
        let config = r#"
[server]
listen = ["0.0.0.0:53"]
state-dir = "state"
region = "here"
[server.encrypted]
dot = ["0.0.0.0:853"]
doh = ["0.0.0.0:443"]
certificate = "cert.pem"
key = "key.pem"
[admin]
listen = "127.0.0.1:0"
[latency]
learn = true
prospect = 1.0
rebuild-interval = "1s"
[regions.here]
location = "FRA"
endpoints = ["192.0.2.10"]
[regions.there]
location = "IAD"
endpoints = ["192.0.2.20"]
[zones."geo.example"]
nameservers = ["ns1.example.net."]
records = "static 60 A 192.0.2.80"
[zones."geo.example".routes.app]
"#;
        let folder = Folder::with_config(&config.replace("prospect = 1.0", &format!("prospect = {prospect}")));
        let made = rcgen::generate_simple_self_signed(["ns1.example.net".into()]).unwrap();
        folder.write("cert.pem", &made.cert.pem());
        folder.write("key.pem", &made.signing_key.serialize_pem());
        let mut site = Site { program: None, resolvers, home, folder };
        site.start();
        site
    }

    fn start(&mut self) {
        let outer = self.home.command("env"); // which turns into the program, given no variable
        self.program = Some(self.folder.start_under(outer, &["serve", "--config", "isochrone.toml"], &[]));
    }

    fn stop(&mut self) {
        let mut program = self.program.take().expect("it runs");
        program.signal("TERM");
        assert!(program.ended().success(), "{}", program.stderr());
    }

    fn program(&self) -> &Program {
        self.program.as_ref().expect("it runs")
    }

    fn json(&self, path: &str) -> Value {
        self.home.inside(|| self.program().json(path))
    }

    fn metric(&self, name: &str) -> f64 {
        let (_, page) = self.home.inside(|| self.program().get("/metrics"));
        let line = page.lines().find_map(|line| line.strip_prefix(&format!("isochrone_{name} ")));
        line.unwrap_or_else(|| panic!("{name} is missing: {page}")).parse().unwrap()
    }

    /// What is known of a resolver's network, if anything.
    fn known(&self, resolver: &Resolver) -> Option<Value> {
        let found = self.json(&format!("/api/v1/latency?client={}", resolver.client()));
        assert_eq!(found["region"], "here");
        found["networks"].as_array().unwrap().first().cloned()
    }

    /// Waits until every connection that was made since the start has been taken in, or discarded since something was sent again: on
    /// a machine with too much to do that happens without any loss.
    fn wait_until_taken_in(&self) {
        let handshakes: usize = self.resolvers.iter().map(|resolver| resolver.relay.handshakes().len()).sum();
        wait_for("connections to be taken in", || {
            let told = self.metric("latency_samples_total") + self.metric(RETRANSMITTED);
            (told == handshakes as f64).then_some(())
        });
    }

    /// The lowest of five round trips that the server knows is within a millisecond of the lowest that the relay saw. A machine with
    /// too much to do delays either; then more connections are made, of which the lowest counts.
    fn compare_with_relay(&self, resolver: &Resolver, query: &[u8]) {
        for _ in 0..10 {
            self.wait_until_taken_in();
            let known = self.known(resolver).unwrap_or_default();
            let (samples, known_ms) = (known["samples"].as_u64().unwrap_or(0), known["rtt_ms"].as_f64().unwrap_or(0.0));
            let handshakes = resolver.relay.handshakes();
            let relayed_ms = handshakes.iter().min().expect("it has connected").as_secs_f64() * 1e3;
            assert!(samples == 0 || known_ms >= 2e3 * resolver.one_way.as_secs_f64(), "{known}: links take longer");
            if samples >= 5 && (known_ms - relayed_ms).abs() < 1.0 {
                println!("{samples} handshakes: {known_ms} ms measured, {relayed_ms:.3} ms by the relay");
                return;
            }
            resolver.by_tcp(query);
        }
        panic!("what is measured is not what the relay sees: {:?}", self.known(resolver));
    }
}

const RETRANSMITTED: &str = "latency_samples_discarded_total{reason=\"retransmitted\"}";

fn is_ask(reply: &[u8]) -> bool {
    reply[2] & 0x02 != 0 && reply[6..10] == [0; 4]
}

fn is_answer(reply: &[u8]) -> bool {
    reply[2] & 0x02 == 0 && reply[6..8] == [0, 1] && reply.windows(4).any(|window| window == ADDRESS)
}

#[test]
fn a_server_measures_its_clients_and_remembers_what_it_measured() {
    let mut site = Site::new(&[10, 40, 25, 5, 15]);
    let query = Ask::new("app.geo.example", "A").bytes();
    let [ordinary, asked, deaf, subnets, private] = &site.resolvers[..] else { panic!("five resolvers") };

    // One that comes by TCP of its own accord: its answers are the usual ones, and it is not asked.
    let usual = ordinary.by_tcp(&query);
    assert!(is_answer(&usual), "{usual:02x?}");
    for _ in 0..4 {
        assert_eq!(ordinary.by_tcp(&query), usual);
    }
    site.compare_with_relay(ordinary, &query);
    assert_eq!(ordinary.by_udp(&query), usual);

    // One that is asked to come, once: static records never ask.
    assert!(!is_ask(&asked.by_udp(&Ask::new("static.geo.example", "A").bytes())));
    assert!(is_ask(&asked.by_udp(&query)));
    assert_eq!(asked.by_tcp(&query), usual);
    site.wait_until_taken_in();
    for _ in 0..20 {
        assert_eq!(asked.by_udp(&query), usual);
    }
    for _ in 0..4 {
        asked.by_tcp(&query);
    }
    site.compare_with_relay(asked, &query);

    // One that does not come: it is never asked again.
    assert!(is_ask(&deaf.by_udp(&query)));
    for _ in 0..20 {
        assert_eq!(deaf.by_udp(&query), usual);
    }
    assert_eq!(site.known(deaf), None);

    // One that sends client subnets: with one it is not asked, and what it is measured as is marked.
    let with_subnet = Ask::new("app.geo.example", "A").from_client("192.0.2.0/24").bytes();
    let without = Ask::new("app.geo.example", "A").from_client("0.0.0.0/0").bytes();
    assert!(is_answer(&subnets.by_udp(&with_subnet)));
    assert!(is_ask(&subnets.by_udp(&without)));
    let known = wait_for("it to be measured", || {
        assert!(is_answer(&subnets.by_tcp(&with_subnet)));
        site.wait_until_taken_in();
        site.known(subnets)
    });
    assert_eq!(known["sends_client_subnets"], true);
    assert_eq!(site.known(ordinary).unwrap()["sends_client_subnets"], false);

    // One that comes by TLS and by HTTPS.
    for how in ["+tls", "+https"] {
        let before = site.known(private).map_or(0, |known| known["samples"].as_u64().unwrap());
        wait_for("it to be measured", || {
            private.encrypted(how);
            site.wait_until_taken_in();
            let samples = site.known(private)?["samples"].as_u64().unwrap();
            (samples > before).then_some(())
        });
    }

    // The estimates follow what was learnt, in the background.
    let known = site.known(ordinary).unwrap();
    let here = wait_for("what was learnt to be taken up", || {
        let told = site.json(&format!("/api/v1/explain?name=app.geo.example&client={}", ordinary.client()));
        let here = told["candidates"].as_array().unwrap().iter().find(|c| c["region"] == "here").unwrap().clone();
        (here["samples"].as_u64().unwrap() >= 5).then_some(here)
    });
    let off_ms = here["estimate_ms"].as_f64().unwrap() - known["rtt_ms"].as_f64().unwrap();
    assert!(off_ms.abs() < 2.0, "{here} {known}");

    let learning = site.json("/api/v1/status")["learning"].clone();
    for (name, count) in [("asked", 3), ("came", 2), ("gained", 2), ("networks", 4)] {
        assert_eq!(learning[name], count, "{name}: {learning}");
    }
    assert_eq!(site.metric("prospects_asked_total"), 3.0);
    assert_eq!(site.metric("latency_networks"), 4.0);
    assert_eq!(site.metric("latency_samples_total"), learning["samples"].as_f64().unwrap());
    assert_eq!(site.metric("truncated_total"), 3.0);

    let (status, told) = site.home.inside(|| site.program().get("/api/v1/latency?client=10.0.1.0/24"));
    assert!(status == 400 && told.contains("ask like this: /api/v1/latency"), "{status} {told}");
    let known = site.json("/api/v1/latency");
    site.stop();
    site.start();
    assert_eq!(site.json("/api/v1/latency"), known, "a restart changes nothing");
    let [_, asked, deaf, ..] = &site.resolvers[..] else { panic!("five resolvers") };
    for resolver in [asked, deaf] {
        assert_eq!(resolver.by_udp(&query), usual, "whom it asked is remembered, too");
    }

    site.stop();
    let state = site.folder.path().join("state");
    fs::write(state.join("latency.json"), "{\"schema\": 1, \"written\"").unwrap();
    site.start();
    let log = site.program().stderr();
    assert!(log.contains("latency.json is not used, and what it held is forgotten"), "{log}");
    let names = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.starts_with("latency.json.corrupt-")).count(), 1);
    assert_eq!(site.json("/api/v1/latency")["networks"], Value::Array(Vec::new()));
    let ordinary = &site.resolvers[0];
    wait_for("it to be measured anew", || {
        assert_eq!(ordinary.by_tcp(&query), usual);
        site.known(ordinary)
    });
    site.stop();
}

#[test]
fn one_client_subnet_over_udp_marks_a_network_though_nobody_is_asked_to_come() {
    let mut site = Site::that_asks(&[10, 10], "0.0");
    let with_subnet = Ask::new("app.geo.example", "A").from_client("192.0.2.0/24").bytes();
    let of_its_own = Ask::new("geo.example", "NS").bytes();
    let [sends, later] = &site.resolvers[..] else { panic!("two resolvers") };
    let measured = |resolver: &Resolver| {
        wait_for("it to be measured", || {
            resolver.by_tcp(&of_its_own);
            site.wait_until_taken_in();
            site.known(resolver)
        })
    };
    assert!(is_answer(&sends.by_udp(&with_subnet)));
    assert_eq!(measured(sends)["sends_client_subnets"], true);
    assert_eq!(measured(later)["sends_client_subnets"], false);
    assert!(is_answer(&later.by_udp(&with_subnet)));
    wait_for("the mark", || (site.known(later)?["sends_client_subnets"] == true).then_some(()));
    assert_eq!(site.metric("prospects_asked_total"), 0.0);
    site.stop();
}

#[test]
fn a_path_that_becomes_another_one_is_followed_and_lossy_ones_are_not_believed() {
    let mut site = Site::new(&[10]);
    let query = Ask::new("app.geo.example", "A").bytes();
    let resolver = &site.resolvers[0];
    wait_for("it to be measured", || {
        resolver.by_tcp(&query);
        site.wait_until_taken_in();
        site.known(resolver).filter(|known| known["samples"].as_u64() >= Some(5))
    });
    // On a machine with too much to do the first samples may come late, and those after them be a jump.
    let jumps = site.metric("latency_jumps_total");
    let way = Way { delay: Duration::from_millis(60), ..Way::default() };
    resolver.relay.set(way, way);
    let known = wait_for("the jump", || {
        resolver.by_tcp(&query);
        site.wait_until_taken_in();
        site.known(resolver).filter(|known| known["rtt_ms"].as_f64().unwrap() >= 120.0)
    });
    assert_eq!(known["samples"], 4, "those before the jump do not count: {known}");
    assert_eq!(site.metric("latency_jumps_total"), jumps + 1.0);

    let lossy = Way { loss_percent: 50, ..way };
    resolver.relay.set(lossy, way);
    let discarded = site.metric(RETRANSMITTED);
    wait_for("a connection with segments sent again", || {
        resolver.by_tcp(&query);
        (site.metric(RETRANSMITTED) > discarded).then_some(())
    });
    site.stop();
}

/// A region's web server behind a link of its own.
struct Region {
    relay: Relay,
    _namespace: Namespace,
}

impl Region {
    fn new(home: &Namespace, number: u8) -> Region {
        let namespace = Namespace::new();
        let relay = Relay::join(home, &namespace, number, Region::way(NORMAL), Region::way(NORMAL));
        let listener = namespace.inside(|| TcpListener::bind((Ipv4Addr::new(10, 0, number, 2), 80)).unwrap());
        // Ends with the test: nobody connects any more.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || answer_http(stream));
            }
        });
        Region { relay, _namespace: namespace }
    }

    fn way(delay: Duration) -> Way {
        Way { delay, ..Way::default() }
    }

    fn takes(&self, delay: Duration) {
        self.relay.set(Region::way(delay), Region::way(delay));
    }
}

fn answer_http(mut stream: TcpStream) {
    let mut request = [0; 2048];
    if stream.read(&mut request).is_ok() {
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    }
}

/// Each way.
const NORMAL: Duration = Duration::from_millis(5);
const CONGESTED: Duration = Duration::from_millis(30);

const RISES: &str = r#"
[server]
listen = ["127.0.0.1:53"]
[admin]
listen = "127.0.0.1:0"
[latency]
rebuild-interval = "1s"
[checks.web]
type = "http"
interval = "200ms"
timeout = "200ms"
fall = 50
[regions.near]
location = "FRA"
endpoints = ["10.0.1.2"]
check = "web"
[regions.far]
location = "AMS"
endpoints = ["10.0.2.2"]
check = "web"
[regions.overseas]
location = "IAD"
endpoints = ["10.0.3.2"]
check = "web"
[zones."geo.example"]
nameservers = ["ns1.example.net."]
[zones."geo.example".routes.app]
"#;

/// The server whose regions become harder to reach, and what it says of the first.
struct Rises {
    program: Program,
    home: Namespace,
    _folder: Folder,
}

impl Rises {
    fn json(&self, path: &str) -> Value {
        self.home.inside(|| self.program.json(path))
    }

    /// The last byte but one of the address that a German network is answered with, and what its estimate for the first region has in it.
    fn answer(&self) -> (u8, f64) {
        let query = Ask::new("app.geo.example", "A").from_client("5.9.0.0/16").bytes();
        let reply = self.home.inside(|| self.program.ask(&query));
        let region = (1..=3).find(|n| reply.windows(4).any(|window| window == [10, 0, *n, 2]));
        let told = self.json("/api/v1/explain?name=app.geo.example&client=5.9.0.0/16");
        let near = told["candidates"].as_array().unwrap().iter().find(|c| c["region"] == "near").unwrap().clone();
        (region.unwrap_or_else(|| panic!("{reply:02x?}")), near["penalty_ms"].as_f64().unwrap())
    }

    /// Waits for so many more probes of each region.
    fn probes(&self, count: u64) {
        let made = || {
            let status = self.json("/api/v1/status");
            let regions = status["regions"].as_array().unwrap().clone();
            let of = |region: &Value| region["endpoints"][0]["probes_ok"].as_u64().unwrap();
            regions.iter().map(of).min().unwrap()
        };
        let before = made();
        wait_for("probes", || (made() >= before + count).then_some(()));
    }
}

#[test]
fn a_region_that_takes_longer_to_connect_to_than_usual_loses_the_clients_near_the_margin_until_it_does_not() {
    netns::prepare(&["ip"]);
    let home = Namespace::new();
    let regions = [1, 2, 3].map(|number| Region::new(&home, number));
    let folder = Folder::with_config(RISES);
    let outer = home.command("env"); // which turns into the program, given no variable
    let program = folder.start_under(outer, &["serve", "--config", "isochrone.toml"], &[]);
    let site = Rises { program, home, _folder: folder };
    // A level takes a second here, and ten of them tell what is usual.
    site.probes(70);
    assert_eq!(site.answer(), (1, 0.0));

    regions[0].takes(CONGESTED);
    let added_ms = wait_for("the rise to count", || {
        let (region, added_ms) = site.answer();
        (region == 2).then_some(added_ms)
    });
    assert!((40.0..90.0).contains(&added_ms), "{added_ms}");
    let status = site.json("/api/v1/status");
    assert_eq!(status["regions"][0]["penalty_ms"].as_f64(), Some(added_ms), "{status}");
    let (_, page) = site.home.inside(|| site.program.get("/metrics"));
    for name in ["rise", "penalty"] {
        let line =
            page.lines().find(|line| line.starts_with(&format!("isochrone_region_{name}_seconds{{region=\"near\"}}")));
        let value: f64 = line.unwrap_or_else(|| panic!("{page}")).rsplit(' ').next().unwrap().parse().unwrap();
        assert!((0.04..0.09).contains(&value), "{name}: {value}");
    }

    regions[0].takes(NORMAL);
    wait_for("the rise to end", || (site.answer() == (1, 0.0)).then_some(()));
    let log = site.program.stderr();
    for words in ["takes longer than usual", "takes no longer than usual any more"] {
        assert_eq!(log.matches(words).count(), 1, "{log}");
    }

    // All at once: that is this server's own way out.
    regions.iter().for_each(|region| region.takes(CONGESTED));
    site.probes(40);
    assert_eq!(site.answer(), (1, 0.0));
    assert_eq!(site.program.stderr().matches("takes longer than usual").count(), 1);
}
