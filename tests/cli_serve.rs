//! A running server, asked by the command line, over HTTP and over DNS.

#[path = "support/fixture.rs"]
mod fixture;
#[path = "support/program.rs"]
mod program;

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    thread,
};

use fixture::Ask;
use hickory_proto::{op::Message, serialize::binary::BinDecodable};
use program::{Folder, Program, wait_for};
use serde_json::Value;

/// One region on loopback under a check of `port`, the other one without a check.
fn config(check: &str) -> String {
    format!(
        r#"
[server]
listen = ["127.0.0.1:0"]
identity = "test-1"
[admin]
listen = "127.0.0.1:0"
[checks.up]
{check}
[regions.us]
location = "aws:us-east-1"
endpoints = ["127.0.0.1"]
check = "up"
[regions.eu]
location = "aws:eu-west-1"
endpoints = ["127.0.0.2"]
[zones."geo.example.com"]
nameservers = ["ns1.example.net.", "ns2.example.net."]
[zones."geo.example.com".routes."*.app"]
policy = "failover"
"#
    )
}

fn start(folder: &Folder) -> Program {
    folder.start(&["serve", "--config", "isochrone.toml"])
}

#[test]
fn a_server_is_asked_in_every_way_and_ends_in_peace() {
    let endpoint = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = endpoint.local_addr().unwrap().port();
    let folder = Folder::with_config(&config(&format!("type = \"tcp\"\nport = {port}")));
    let mut server = start(&folder);

    assert_eq!(server.get("/livez"), (200, "ok".into()));
    wait_for("the first round", || (server.get("/readyz") == (200, "ready".into())).then_some(()));

    let reply = server.ask(&Ask::new("www.app.geo.example.com", "A").bytes());
    let message = Message::from_bytes(&reply).unwrap();
    assert_eq!(message.answers.iter().map(|r| r.data.to_string()).collect::<Vec<_>>(), ["127.0.0.1"]);

    let (code, metrics) = server.get("/metrics");
    assert_eq!(code, 200);
    assert!(
        metrics.contains("isochrone_endpoint_up{region=\"us\",endpoint=\"127.0.0.1\",check=\"up\"} 1"),
        "{metrics}"
    );
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");

    let status = server.json("/api/v1/status");
    assert_eq!((&status["ready"], &status["identity"]), (&true.into(), &"test-1".into()));
    assert_eq!(status["queries"]["total"], 1);
    let url = server.admin_url();
    let done = folder.run(&["status", "--admin", &url]);
    assert_eq!(done.code, Some(0), "{done:#?}");
    assert!(done.stdout.contains("\nus      yes     127.0.0.1  up     up "), "{done:#?}");
    assert!(done.stdout.contains("\nqueries   1 ("), "{done:#?}");
    let json: Value = serde_json::from_str(&folder.run(&["status", "--json", "--admin", &url]).stdout).unwrap();
    assert_eq!(json["zones"], status["zones"]);

    explanations_agree(&server, &folder);

    server.signal("TERM");
    assert_eq!(server.ended().code(), Some(0), "{}", server.stderr());
    assert_eq!(folder.run(&["status", "--admin", &url]).code, Some(1));
}

/// The command and the interface tell the same, and both take errors in the same way.
fn explanations_agree(server: &Program, folder: &Folder) {
    let url = server.admin_url();
    let told = server.json("/api/v1/explain?name=www.app.geo.example.com&client=203.0.113.0/24&type=A");
    assert_eq!((&told["chosen"], &told["answer"][0]), (&"us".into(), &"127.0.0.1".into()), "{told}");
    let question = ["explain", "www.app.geo.example.com", "--client", "203.0.113.0/24", "--admin", &url];
    let done = folder.run(&[&question[..], &["--json"]].concat());
    assert_eq!(serde_json::from_str::<Value>(&done.stdout).unwrap(), told, "{done:#?}");
    let done = folder.run(&question);
    assert!(done.stdout.contains("\nchosen    us\nanswer    127.0.0.1\n"), "{done:#?}");

    let (code, body) = server.get("/api/v1/explain?name=a..b");
    assert_eq!(code, 400);
    let error: Value = serde_json::from_str(&body).unwrap();
    assert!(error["error"].as_str().unwrap().contains("empty label"), "{body}");
}

#[test]
fn a_server_is_not_ready_before_every_target_was_tried() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap(); // takes connections and never answers
    let port = silent.local_addr().unwrap().port();
    let check = format!("type = \"http\"\nport = {port}\ninterval = \"1h\"\ntimeout = \"1m\"");
    let folder = Folder::with_config(&config(&check));
    let server = start(&folder);
    assert_eq!(server.get("/livez"), (200, "ok".into()));
    assert_eq!(server.get("/readyz"), (503, "first probe round under way".into()));
    let done = folder.run(&["status", "--admin", &server.admin_url()]);
    assert_eq!(done.code, Some(1), "{done:#?}");
    assert!(done.stdout.contains("isochrone 0.1.0 (test-1), not ready, up "), "{done:#?}");
    assert!(done.stderr.contains("not ready: the first round of probes is under way"), "{done:#?}");
}

#[test]
fn a_refused_reload_is_told_by_status() {
    let folder = Folder::with_config(&config("type = \"tcp\"\nport = 1"));
    let mut server = start(&folder);
    folder.write("isochrone.toml", "[regions");
    server.signal("HUP");
    server.wait_for_log("the refusal", |line| line["level"] == "ERROR");
    let status = wait_for("the count", || {
        let status = server.json("/api/v1/status");
        (status["reload"]["failed"] == 1).then_some(status)
    });
    assert!(status["reload"]["error"].as_str().unwrap().contains("in isochrone.toml"), "{status}");
    let done = folder.run(&["status", "--admin", &server.admin_url()]);
    assert!(done.stdout.contains("the newest reload was refused: "), "{done:#?}");
}

/// Two regions without checks, the nearer one answers.
fn logged(section: &str) -> String {
    format!(
        r#"
[server]
listen = ["127.0.0.1:0"]
threads = 1
[admin]
listen = "127.0.0.1:0"
[query-log]
{section}
[regions.us]
location = "aws:us-east-1"
endpoints = ["192.0.2.1"]
[regions.eu]
location = "aws:eu-west-1"
endpoints = ["192.0.2.2", "2001:db8::2"]
[zones."geo.example.com"]
nameservers = ["ns1.example.net.", "ns2.example.net."]
records = "www A 192.0.2.80"
[zones."geo.example.com".routes."*.app"]
"#
    )
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or(0, |end| end + 1); // the file may be looked at while it is written
    text[..whole]
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// A counter without labels.
fn counter(server: &Program, name: &str) -> u64 {
    let (_, text) = server.get("/metrics");
    let value = text.lines().find_map(|line| line.strip_prefix(&format!("isochrone_{name} "))).expect(name);
    value.parse().unwrap()
}

fn ask_by_tcp(server: &Program, query: &[u8]) {
    let mut stream = TcpStream::connect(server.dns).unwrap();
    stream.write_all(&[&(query.len() as u16).to_be_bytes(), query].concat()).unwrap();
    let mut len = [0; 2];
    stream.read_exact(&mut len).unwrap();
    stream.read_exact(&mut vec![0; usize::from(u16::from_be_bytes(len))]).unwrap();
}

#[test]
fn every_query_has_its_line_which_says_what_explain_says() {
    let folder = Folder::with_config(&logged("file = \"queries.log\""));
    let server = start(&folder);
    let mut asked = Vec::new();
    for client in ["18.184.0.0/24", "3.80.0.0/16", "2a00:1450::/32", "10.0.0.0/24"] {
        for (name, qtype) in
            [("a.app", "A"), ("b.app", "AAAA"), ("c.app", "MX"), ("www", "A"), ("nope", "A"), ("app", "ANY")]
        {
            let name = format!("{name}.geo.example.com");
            server.ask(&Ask::new(&name, qtype).from_client(client).bytes());
            asked.push((format!("{name}."), client, qtype));
        }
    }
    let path = folder.path().join("queries.log");
    let found = wait_for("the lines", || Some(lines(&path)).filter(|lines| lines.len() == asked.len()));
    let mut regions = BTreeMap::<_, u32>::new();
    for (line, (name, client, qtype)) in found.iter().zip(&asked) {
        assert_eq!([&line["name"], &line["client"], &line["type"]], [name, *client, *qtype], "{line}");
        let told = server.json(&format!("/api/v1/explain?name={name}&client={client}&type={qtype}"));
        for (field, explained) in [("region", "chosen"), ("route", "route"), ("scope", "scope"), ("rcode", "rcode")] {
            let is_negative = field == "route" && line["region"].is_null();
            assert!(is_negative || line[field] == told[explained], "{field}: {line} {told}");
        }
        assert_eq!((&line["transport"], &line["ecs"]), (&"udp".into(), &true.into()), "{line}");
        assert_eq!(line["reason"].is_null(), line["region"].is_null(), "{line}");
        *regions.entry(line["region"].as_str().unwrap_or("none").to_string()).or_default() += 1;
    }
    assert!(regions.len() == 3, "us, eu and none: {regions:?}");
    ask_by_tcp(&server, &Ask::new("a.app.geo.example.com", "A").bytes());
    server.ask(&[0; 12]);
    let all = wait_for("two more", || Some(lines(&path)).filter(|lines| lines.len() == asked.len() + 2));
    // Each thread has its own ring: between two of them lines have no order.
    let (of_tcp, of_udp): (Vec<_>, Vec<_>) = all[asked.len()..].iter().partition(|line| line["transport"] == "tcp");
    let ([tcp], [formerr]) = (&of_tcp[..], &of_udp[..]) else { panic!("{all:?}") };
    assert_eq!(tcp["client"], "127.0.0.0/24", "the network of the sender");
    assert_eq!((&tcp["ecs"], &tcp["scope"], &tcp["region"]), (&false.into(), &Value::Null, &"us".into()));
    assert_eq!((&formerr["name"], &formerr["rcode"]), (&Value::Null, &"FORMERR".into()));
    assert_eq!((counter(&server, "query_log_lines_total"), counter(&server, "query_log_dropped_total")), (26, 0));
    let timed = "isochrone_answer_seconds_count{transport=\"udp\"} ";
    let (_, metrics) = server.get("/metrics");
    assert!(metrics.lines().any(|line| line.strip_prefix(timed).is_some_and(|n| n != "0")), "{metrics}");
}

#[test]
fn a_reload_turns_the_query_log_off_and_elsewhere() {
    let folder = Folder::with_config(&logged("file = \"one.log\""));
    let server = start(&folder);
    let [one, two] = ["one.log", "two.log"].map(|name| folder.path().join(name));
    let reload = |section: &str| {
        folder.write("isochrone.toml", &logged(section));
        assert_eq!(folder.run(&["reload", "--admin", &server.admin_url()]).code, Some(0));
    };
    let ask = |name: &str| drop(server.ask(&Ask::new(&format!("{name}.app.geo.example.com"), "A").bytes()));
    let names = |path: &Path| -> Vec<String> {
        lines(path).iter().map(|line| line["name"].as_str().unwrap().split('.').next().unwrap().to_string()).collect()
    };
    ask("a");
    wait_for("the first line", || (names(&one) == ["a"]).then_some(()));
    reload("file = \"\"");
    // A worker takes up a new configuration with its next batch: what it answers after a first question is by that.
    ask("b");
    ask("c");
    reload("file = \"two.log\"");
    ask("d");
    ask("e");
    wait_for("a line in the other file", || (names(&two).last()? == "e").then_some(()));
    let all = [names(&one), names(&two)].concat();
    assert!(all.iter().all(|name| name != "c"), "it was off: {all:?}");
    reload("file = \"two.log\"\nsample = 0.5");
    (0..400).for_each(|_| ask("half"));
    reload("file = \"two.log\"\nsample = 1.0");
    ask("f");
    ask("end");
    wait_for("the end", || (names(&two).last()? == "end").then_some(()));
    let half = names(&two).iter().filter(|name| *name == "half").count();
    assert!((100..300).contains(&half), "half of 400, and ten standard deviations: {half}");
}

#[test]
fn files_are_rotated_without_losing_a_line() {
    const QUERIES: usize = 3_000;
    let folder = Folder::with_config(&logged("file = \"queries.log\""));
    let server = start(&folder);
    let path = folder.path().join("queries.log");
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            for n in 0..QUERIES {
                server.ask(&Ask::new(&format!("q{n}.app.geo.example.com"), "A").bytes());
            }
        });
        for n in 0.. {
            let rotated = folder.path().join(format!("queries.log.{n}"));
            wait_for("lines to move away", || fs::metadata(&path).is_ok_and(|file| file.len() > 0).then_some(()));
            fs::rename(&path, &rotated).unwrap();
            server.signal("HUP");
            // Whatever comes of the reload: a file with an error is rotated for as well.
            folder.write("isochrone.toml", if n % 2 == 0 { "broken" } else { "[" });
            wait_for("the new file", || path.exists().then_some(()));
            if asking.is_finished() {
                break;
            }
            server.ask(&Ask::new("more.app.geo.example.com", "A").bytes()); // the next one is never empty
        }
    });
    let written = || -> Vec<String> {
        let files = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let logs = files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("queries.log"));
        logs.flat_map(|path| lines(&path)).map(|line| line["name"].as_str().unwrap().to_string()).collect()
    };
    wait_for("all lines", || (written().iter().filter(|name| name.starts_with('q')).count() >= QUERIES).then_some(()));
    let mut names: Vec<String> = written().into_iter().filter(|name| name.starts_with('q')).collect();
    assert_eq!(names.len(), QUERIES);
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), QUERIES, "each once");
    assert_eq!(counter(&server, "query_log_dropped_total"), 0);
}

#[test]
fn a_log_that_is_not_read_costs_lines_and_no_answer() {
    const QUERIES: u64 = 4_000;
    let folder = Folder::with_config(&logged("file = \"fifo\"\nmax-queue = 100"));
    let path = folder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let mut server = start(&folder);
    let mut fifo = fs::File::open(&path).unwrap(); // waits until the server has it open
    for n in 0..QUERIES {
        let reply = server.ask(&Ask::new(&format!("{n}.app.geo.example.com"), "A").bytes());
        assert_eq!(Message::from_bytes(&reply).unwrap().answers.len(), 1, "{n}");
    }
    // The pipe, the writer's buffer and the ring hold some 2,000 lines.
    let dropped = wait_for("losses", || Some(counter(&server, "query_log_dropped_total")).filter(|n| *n > 500));
    assert!(dropped < QUERIES);
    server.wait_for_log("a word on it", |line| {
        line["message"].as_str().is_some_and(|text| text.starts_with("lines of the query log are being dropped"))
    });
    let reader = thread::spawn(move || {
        let mut text = String::new();
        fifo.read_to_string(&mut text).unwrap();
        text
    });
    wait_for("what waited to be written", || {
        let written = counter(&server, "query_log_lines_total");
        (written + counter(&server, "query_log_dropped_total") == QUERIES).then_some(())
    });
    server.ask(&Ask::new("last.app.geo.example.com", "A").bytes());
    server.signal("TERM");
    assert_eq!(server.ended().code(), Some(0));
    let text = reader.join().unwrap();
    assert!(text.ends_with("\"rcode\":\"NOERROR\"}\n") && text.lines().count() as u64 >= QUERIES - dropped);
    assert!(text.lines().last().unwrap().contains("\"last.app.geo.example.com.\""), "the end writes what waits");
    let said = server.stderr().lines().filter(|line| line.contains("are being dropped")).count();
    assert_eq!(said, 1, "{}", server.stderr());
}

#[test]
fn a_log_that_cannot_be_written_is_said_once_and_taken_up_when_it_can() {
    // In the sandbox a folder that is made later stays out of reach; so the server makes it at the start.
    let config = logged("file = \"logs/queries.log\"");
    let folder = Folder::with_config(&config);
    let server = start(&folder);
    assert!(folder.path().join("logs").is_dir());
    drop(server);
    let folder = Folder::with_config(&config.replace("threads = 1", "threads = 1\nsandbox = false"));
    let mut server = start(&folder);
    let ask = |server: &Program, name: &str| {
        let reply = server.ask(&Ask::new(&format!("{name}.app.geo.example.com"), "A").bytes());
        assert_eq!(Message::from_bytes(&reply).unwrap().answers.len(), 1, "{name}");
    };
    let says = |server: &mut Program, text: &str| {
        server.wait_for_log(text, |line| line["message"].as_str().is_some_and(|message| message.contains(text)));
    };
    ask(&server, "missing");
    says(&mut server, "make its folder");
    let path = folder.path().join("logs/queries.log");
    fs::create_dir(path.parent().unwrap()).unwrap();
    wait_for("the line", || (lines(&path).len() == 1).then_some(()));
    says(&mut server, "is written again");

    // A disk without room in its place.
    let full = folder.path().join("full");
    std::os::unix::fs::symlink("/dev/full", &full).unwrap();
    fs::rename(&full, &path).unwrap();
    server.signal("HUP");
    server.wait_for_log("the reload", |line| line["message"].as_str().is_some_and(|m| m.starts_with("reloaded")));
    ask(&server, "full");
    says(&mut server, "make room on the disk");
    ask(&server, "waiting");
    assert_eq!(counter(&server, "query_log_lines_total"), 1);
    fs::remove_file(&path).unwrap();
    wait_for("the lines that waited", || (lines(&path).len() == 2).then_some(()));
    assert_eq!((counter(&server, "query_log_lines_total"), counter(&server, "query_log_dropped_total")), (3, 0));
    let said = server.stderr().lines().filter(|line| line.contains("cannot write the query log")).count();
    assert_eq!(said, 2, "once each: {}", server.stderr());
}

#[test]
fn a_log_on_the_standard_output_is_there_alone() {
    let folder = Folder::with_config(&logged("file = \"-\""));
    let server = start(&folder);
    server.ask(&Ask::new("a.app.geo.example.com", "A").bytes());
    let line = wait_for("the line", || Some(server.stdout()).filter(|text| text.ends_with('\n')));
    let line: Value = serde_json::from_str(&line).expect("nothing but the line");
    assert_eq!(line["name"], "a.app.geo.example.com.");
}

#[test]
fn changed_files_are_taken_up_by_themselves_where_that_is_asked_for() {
    let zone = "@ 60 TXT \"one\"\n$INCLUDE more.zone\n";
    let watching = |ttl: &str| {
        logged("file = \"\"")
            .replace("listen = [", "watch = true\nlisten = [")
            .replace("records = \"www A 192.0.2.80\"", "file = \"static.zone\"")
            .replace(
                "[zones.\"geo.example.com\".routes.\"*.app\"]",
                &format!("[zones.\"geo.example.com\".routes.\"*.app\"]\nttl = {ttl}"),
            )
    };
    let folder = Folder::with_config(&watching("7"));
    folder.write("static.zone", zone);
    folder.write("more.zone", "www 60 A 192.0.2.80\n");
    let server = start(&folder);
    let told = |name: &str, qtype: &str| {
        let reply = server.ask(&Ask::new(&format!("{name}geo.example.com"), qtype).bytes());
        let message = Message::from_bytes(&reply).unwrap();
        message.answers.first().map(|record| (record.ttl, record.data.to_string()))
    };
    assert_eq!(told("x.app.", "A").unwrap().0, 7);
    folder.write("isochrone.toml", &watching("8"));
    wait_for("the configuration", || (told("x.app.", "A")?.0 == 8).then_some(()));
    folder.write("static.zone", &zone.replace("\"one\"", "\"two, and longer\""));
    wait_for("the zone file", || told("", "TXT")?.1.contains("two").then_some(()));
    folder.write("more.zone", "www 60 A 192.0.2.181\n");
    wait_for("the included file", || told("www.", "A")?.1.ends_with("181").then_some(()));
    folder.write("isochrone.toml", &watching("\"soon\""));
    wait_for("the refusal", || (server.json("/api/v1/status")["reload"]["failed"] == 1).then_some(()));
    assert_eq!(told("x.app.", "A").unwrap().0, 8, "what ran goes on");
    folder.write("isochrone.toml", &watching("9").replace("watch = true", "watch = false"));
    wait_for("the mended file", || (told("x.app.", "A")?.0 == 9).then_some(()));
    // Nobody looks any more: it is the signal that changes it.
    folder.write("isochrone.toml", &watching("10"));
    server.signal("HUP");
    wait_for("the file", || (told("x.app.", "A")?.0 == 10).then_some(()));
    let asked = server.stderr().lines().filter(|line| line.contains("was replaced")).count();
    assert_eq!(asked, 5, "{}", server.stderr());
}
