//! The real program beside real servers that die together, alone, or again and again: self-doubt, hold-downs, history, and what
//! outlives a restart.

#[path = "support/program.rs"]
mod program;

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use program::{Folder, Program, wait_for};
use serde_json::Value;

/// Where the regions' servers listen.
const US: &str = "127.0.20.1";
const EU: &str = "127.0.20.2";
const AP: &str = "127.0.20.3";

/// A port that is free on all three.
fn free_port() -> u16 {
    loop {
        let first = TcpListener::bind((US, 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        if [EU, AP].iter().all(|address| TcpListener::bind((*address, port)).is_ok()) {
            return port;
        }
    }
}

/// Accepts by itself: the kernel completes connections. Dropping it refuses them.
fn server(address: &str, port: u16) -> TcpListener {
    wait_for("the port", || TcpListener::bind((address, port)).ok())
}

/// Answers every connection, until it is told to be silent. It refuses once dropped.
struct Talking {
    is_silent: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Talking {
    fn start(address: &str, port: u16) -> Talking {
        let listener = server(address, port);
        listener.set_nonblocking(true).unwrap();
        let (is_silent, is_over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (silent, over) = (is_silent.clone(), is_over.clone());
        let thread = thread::spawn(move || {
            let mut unanswered = Vec::new();
            while !over.load(Relaxed) {
                let Ok((mut stream, _)) = listener.accept() else {
                    thread::sleep(Duration::from_millis(5));
                    continue;
                };
                if silent.load(Relaxed) {
                    unanswered.push(stream);
                    continue;
                }
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            }
        });
        Talking { is_silent, is_over, thread: Some(thread) }
    }

    fn be_silent(&self, is_silent: bool) {
        self.is_silent.store(is_silent, Relaxed);
    }
}

impl Drop for Talking {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

fn config(port: u16, check: &str, server: &str) -> String {
    format!(
        r#"
[server]
listen = ["127.0.0.1:0"]
{server}
[admin]
listen = "127.0.0.1:0"
[checks.web]
type = "tcp"
port = {port}
interval = "1s"
timeout = "500ms"
{check}
[regions.us]
location = "aws:us-east-1"
endpoints = ["{US}"]
check = "web"
[regions.eu]
location = "aws:eu-central-1"
endpoints = ["{EU}"]
check = "web"
[regions.ap]
location = "aws:ap-southeast-1"
endpoints = ["{AP}"]
check = "web"
[zones."geo.example"]
nameservers = ["ns1.example.net."]
[zones."geo.example".routes.app]
policy = "failover"
regions = ["ap", "us", "eu"]
ttl = 5
"#
    )
}

fn answer(server: &Program) -> String {
    let output = Command::new("dig")
        .args(["@127.0.0.1", "-p", &server.dns.port().to_string(), "app.geo.example", "A", "+short"])
        .output()
        .unwrap_or_else(|error| panic!("dig: {error}"));
    String::from_utf8(output.stdout).unwrap().trim().to_string()
}

fn wait_for_answer(server: &Program, expected: &str) {
    wait_for(expected, || (answer(server) == expected).then_some(()));
}

/// The endpoint of a region as the status has it.
fn endpoint(server: &Program, region: &str) -> Value {
    let status = server.json("/api/v1/status");
    let regions = status["regions"].as_array().unwrap();
    regions.iter().find(|r| r["name"] == region).unwrap()["endpoints"][0].clone()
}

fn wait_for_state(server: &Program, region: &str, state: &str) -> Value {
    wait_for(&format!("{region} {state}"), || {
        let endpoint = endpoint(server, region);
        (endpoint["state"] == state && endpoint["decided"] == true).then_some(endpoint)
    })
}

fn has_metric(server: &Program, line: &str) -> bool {
    server.get("/metrics").1.lines().any(|l| l == line)
}

fn log_lines(server: &Program, message: &str) -> usize {
    server.stderr().lines().filter(|line| line.contains(message)).count()
}

#[test]
fn all_servers_that_fall_silent_at_once_change_no_answer_and_a_region_that_does_alone_does() {
    let port = free_port();
    let folder = Folder::with_config(&config(port, "", "").replace("\"tcp\"", "\"http\""));
    let (us, eu) = (Talking::start(US, port), Talking::start(EU, port));
    let mut program = folder.start(&["serve", "--config", "isochrone.toml"]);
    // The nearest region is down from the first, which the other two must not bring back when they die.
    wait_for_state(&program, "ap", "down");
    wait_for_state(&program, "us", "up");
    wait_for_state(&program, "eu", "up");
    wait_for_answer(&program, US);
    assert!(has_metric(&program, "isochrone_prober_distrusts_itself 0"));

    us.be_silent(true);
    wait_for_state(&program, "us", "down");
    wait_for_answer(&program, EU);
    assert_eq!(program.json("/api/v1/status")["self_doubt"], Value::Null);
    us.be_silent(false);
    wait_for_state(&program, "us", "up");
    wait_for_answer(&program, US);

    us.be_silent(true);
    eu.be_silent(true);
    let doubt = wait_for("self-doubt", || {
        let doubt = program.json("/api/v1/status")["self_doubt"].clone();
        (!doubt.is_null()).then_some(doubt)
    });
    assert!(doubt["reason"].as_str().unwrap().contains("all 2 endpoints that were up, in all of 2 regions"), "{doubt}");
    wait_for_answer(&program, US);
    for region in ["us", "eu"] {
        wait_for(&format!("{region} to be kept"), || (endpoint(&program, region)["kept"] == true).then_some(()));
        assert_eq!(endpoint(&program, region)["state"], "up");
    }
    assert_eq!(endpoint(&program, "ap")["state"], "down");
    assert!(has_metric(&program, "isochrone_prober_distrusts_itself 1"));
    let told = folder.run(&["status", "--admin", &program.admin_url()]);
    assert!(told.stdout.contains("the prober has distrusted itself for"), "{}", told.stdout);

    us.be_silent(false);
    eu.be_silent(false);
    wait_for("trust", || (program.json("/api/v1/status")["self_doubt"].is_null()).then_some(()));
    for region in ["us", "eu"] {
        wait_for(&format!("{region} to be up"), || {
            let endpoint = endpoint(&program, region);
            (endpoint["state"] == "up" && endpoint["kept"] == false).then_some(())
        });
    }
    wait_for_answer(&program, US);
    assert_eq!(log_lines(&program, "the prober distrusts itself"), 1, "{}", program.stderr());
    assert_eq!(log_lines(&program, "the prober trusts itself again"), 1, "{}", program.stderr());

    // What refuses is reached: there is nothing to doubt.
    drop((us, eu));
    wait_for_state(&program, "us", "down");
    wait_for_state(&program, "eu", "down");
    wait_for_answer(&program, AP); // the first of the ranking, as nothing is usable
    assert_eq!(log_lines(&program, "the prober distrusts itself"), 1, "{}", program.stderr());
    program.signal("TERM");
    assert_eq!(program.ended().code(), Some(0));
}

#[test]
fn a_flapping_endpoint_is_held_down_visibly_until_it_keeps_still() {
    let port = free_port();
    let check = "flap-changes = 2\nflap-window = \"10m\"\nhold-down = \"15s\"\n";
    let folder = Folder::with_config(&config(port, check, ""));
    let (_us, _eu) = (server(US, port), server(EU, port));
    let mut ap = Some(server(AP, port));
    let program = folder.start(&["serve", "--config", "isochrone.toml"]);
    wait_for_state(&program, "ap", "up");
    for state in ["down", "up"] {
        ap = if state == "down" { None } else { Some(server(AP, port)) };
        wait_for_state(&program, "ap", state);
    }
    wait_for_answer(&program, AP);
    drop(ap);
    let held = wait_for_state(&program, "ap", "held");
    assert_eq!(held["held"]["reason"], "held down until it keeps still: 3 changes within 10 min");
    wait_for_answer(&program, US);
    let labels = format!("{{region=\"ap\",endpoint=\"{AP}\",check=\"web\"}}");
    assert!(has_metric(&program, &format!("isochrone_endpoint_held{labels} 1")));
    assert!(has_metric(&program, &format!("isochrone_endpoint_up{labels} 0")));
    let why = folder.run(&["explain", "app.geo.example", "--admin", &program.admin_url()]);
    assert!(why.stdout.contains("held down until it keeps still"), "{}", why.stdout);

    let _ap = server(AP, port);
    wait_for_state(&program, "ap", "up");
    wait_for_answer(&program, AP);
    let (status, body) = program.get(&format!("/api/v1/history?region=ap&endpoint={AP}"));
    assert_eq!(status, 200, "{body}");
    let history: Value = serde_json::from_str(&body).unwrap();
    let changes = history["endpoints"][0]["history"].as_array().unwrap();
    let steps: Vec<(&str, &str)> =
        changes.iter().map(|c| (c["from"].as_str().unwrap(), c["to"].as_str().unwrap())).collect();
    assert_eq!(steps[..4], [("untried", "up"), ("up", "down"), ("down", "up"), ("up", "held")], "{body}");
    assert_eq!(steps.last(), Some(&("held", "up")), "{body}");
    assert_eq!(changes[3]["reason"], "connection refused; 3 changes within 10 min");
    let table = folder.run(&["status", "--history", "ap", "--admin", &program.admin_url()]);
    assert!(table.stdout.contains("connection refused; 3 changes within 10 min"), "{}", table.stdout);
    let nowhere = folder.run(&["status", "--history", "nowhere", "--admin", &program.admin_url()]);
    assert!(nowhere.stderr.contains("there is no region `nowhere`"), "{}", nowhere.stderr);
}

#[test]
fn verdicts_and_history_outlive_a_restart_and_a_corrupt_file_is_set_aside() {
    let port = free_port();
    let folder = Folder::with_config(&config(port, "", "state-dir = \"state\""));
    let (_us, _eu) = (server(US, port), server(EU, port));
    let ap = server(AP, port);
    let mut first = folder.start(&["serve", "--config", "isochrone.toml"]);
    wait_for_state(&first, "ap", "up");
    drop(ap);
    let down = wait_for_state(&first, "ap", "down");
    first.signal("TERM");
    assert_eq!(first.ended().code(), Some(0));
    let file = folder.path().join("state/verdicts.json");
    assert!(fs::read_to_string(&file).unwrap().contains("connection refused"));

    let mut second = folder.start(&["serve", "--config", "isochrone.toml"]);
    // Whether its first probe is done or not: it was down before, and never counts as up.
    let ap = endpoint(&second, "ap");
    assert_eq!((&ap["state"], &ap["since"]), (&down["state"], &down["since"]));
    assert_ne!(answer(&second), AP);
    let history = ap["history"].as_array().unwrap();
    assert!(history.len() >= 2 && history[1]["reason"] == "connection refused", "{ap}");

    // Killed: what was written last is read again.
    let told = history.len();
    let found = wait_for_state(&second, "ap", "down");
    assert_eq!(found["history"].as_array().unwrap().len(), told, "it was found as it was known: {found}");
    let _ap = server(AP, port);
    wait_for_state(&second, "ap", "up");
    wait_for("the file", || fs::read_to_string(&file).unwrap().contains("2 successes in a row").then_some(()));
    second.signal("KILL");
    second.ended();
    let mut third = folder.start(&["serve", "--config", "isochrone.toml"]);
    assert!(endpoint(&third, "ap")["history"].as_array().unwrap().len() > told);
    third.signal("TERM");
    third.ended();

    fs::write(&file, "{ \"schema\": 1, \"wri").unwrap();
    let mut fourth = folder.start(&["serve", "--config", "isochrone.toml"]);
    fourth.wait_for_log("a line on the file", |line| {
        line["message"].as_str().is_some_and(|text| text.contains("verdicts.json is not used"))
    });
    wait_for_state(&fourth, "ap", "up");
    let names = fs::read_dir(folder.path().join("state")).unwrap();
    let is_aside = |name: &str| name.starts_with("verdicts.json.corrupt-");
    assert!(names.into_iter().any(|entry| is_aside(entry.unwrap().file_name().to_str().unwrap())));
}
