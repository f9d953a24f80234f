//! An operator's word against the real program: drain, down, up and auto through the command line and with curl, seen with dig, over
//! restarts and reloads, with and without a token. The endpoints are real TCP listeners. Needs dig and curl.
#![allow(clippy::disallowed_methods)] // it starts threads and reads the clock

#[path = "support/program.rs"]
mod program;

use std::{fs, net::TcpListener, process::Command, thread};

use program::{Folder, Program, wait_for};
use serde_json::Value;

/// Endpoints that take connections, for as long as the test lives; nobody listens on 127.0.21.4.
struct Endpoints {
    port: u16,
}

impl Endpoints {
    fn start() -> Endpoints {
        loop {
            let first = TcpListener::bind("127.0.21.1:0").unwrap();
            let port = first.local_addr().unwrap().port();
            let others = ["127.0.21.2", "127.0.21.3"].map(|address| TcpListener::bind((address, port)));
            let is_free = TcpListener::bind(("127.0.21.4", port)).is_ok();
            let [Ok(second), Ok(third)] = others else { continue };
            if !is_free {
                continue;
            }
            for listener in [first, second, third] {
                thread::spawn(move || listener.incoming().for_each(drop));
            }
            return Endpoints { port };
        }
    }

    fn config(&self, admin: &str) -> String {
        format!(
            r#"
[server]
listen = ["127.0.0.1:0"]
state-dir = "state"
[admin]
{admin}
[checks.port]
type = "tcp"
port = {}
interval = "1s"
[regions.us]
location = "aws:us-east-1"
endpoints = ["127.0.21.1"]
check = "port"
[regions.eu-west]
location = "aws:eu-west-1"
endpoints = ["127.0.21.2", "127.0.21.3"]
check = "port"
[regions.ap]
location = "aws:ap-northeast-1"
endpoints = ["127.0.21.4"]
check = "port"
[zones."geo.example"]
nameservers = ["ns1.example.net."]
ttl = 60
[zones."geo.example".routes."www"]
policy = "failover"
regions = ["eu-west", "us", "ap"]
[zones."geo.example".routes."eu"]
regions = ["eu-west"]
"#,
            self.port
        )
    }
}

const LOOPBACK: &str = "listen = \"127.0.0.1:0\"";

fn start(folder: &Folder) -> Program {
    let server = folder.start(&["serve", "--config", "isochrone.toml"]);
    wait_for("the first round", || (server.get("/readyz").0 == 200).then_some(()));
    server
}

/// The addresses that dig shows, sorted; or the response code.
fn ask(server: &Program, name: &str) -> String {
    let dig = || {
        let output = Command::new("dig")
            .args([&format!("@{}", server.dns.ip()), "-p", &server.dns.port().to_string(), name, "A", "+noall"])
            .args(["+answer", "+comments", "+tries=1", "+time=20"])
            .output()
            .expect("dig");
        String::from_utf8(output.stdout).unwrap()
    };
    // Its own port may be the server's, since both let others of their user share it: then it hears itself.
    let text = wait_for("an answer", || Some(dig()).filter(|text| !text.contains("query response not set")));
    let mut addresses: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with(';') && line.contains("\tA\t"))
        .filter_map(|line| line.split('\t').next_back())
        .map(|address| address.trim_start_matches("127.0.21."))
        .collect();
    addresses.sort();
    match addresses.is_empty() {
        true => {
            let status = text.split("status: ").nth(1).and_then(|rest| rest.split(',').next()).expect("a status");
            let error = if text.contains("EDE: 14 (Not Ready)") { " EDE 14" } else { "" };
            format!("{status}{error}")
        }
        false => addresses.join(" "),
    }
}

/// Runs a command of the command line against the server; panics unless it ends with `code`.
fn run(folder: &Folder, server: &Program, arguments: &str, code: i32) -> program::Done {
    let url = server.admin_url();
    let mut list: Vec<&str> = arguments.split(' ').collect();
    list.extend(["--admin", &url]);
    let done = folder.run(&list);
    assert_eq!(done.code, Some(code), "{arguments}: {done:?}");
    done
}

/// What curl gets for a POST: status and body.
fn post(server: &Program, path: &str, body: &str, headers: &[&str]) -> (u16, String) {
    let mut curl = Command::new("curl");
    curl.args(["-s", "-g", "-m", "60", "-X", "POST", "-w", "\n%{http_code}", "-d", body]);
    for header in headers {
        curl.args(["-H", header]);
    }
    let output = curl.arg(format!("http://127.0.0.1:{}{path}", server.admin.port())).output().expect("curl");
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').expect("a status");
    (status.parse().unwrap(), body.to_string())
}

const JSON: &str = "content-type: application/json";

#[test]
fn an_operators_word_is_followed_at_once() {
    let endpoints = Endpoints::start();
    let folder = Folder::with_config(&endpoints.config(LOOPBACK));
    let server = start(&folder);
    assert_eq!(ask(&server, "www.geo.example"), "2 3");
    for (command, www, eu) in [
        ("drain eu-west", "1", "2 3"),
        ("drain us", "2 3", "2 3"),
        ("force us auto", "1", "2 3"),
        ("force eu-west down", "1", "SERVFAIL EDE 14"),
        ("force us down", "4", "SERVFAIL EDE 14"),
        ("force ap down", "SERVFAIL EDE 14", "SERVFAIL EDE 14"),
        ("force * auto", "2 3", "2 3"),
        ("drain eu-*", "1", "2 3"),
        ("force ap up", "1", "2 3"),
        ("force us down", "4", "2 3"),
        ("force ap auto", "2 3", "2 3"),
        ("force eu-west up", "2 3", "2 3"),
        ("force * auto", "2 3", "2 3"),
        ("drain eu-west/127.0.21.2", "3", "3"),
        ("force eu-west/127.0.21.3 down", "1", "2"),
        ("force */127.0.21.* down", "SERVFAIL EDE 14", "SERVFAIL EDE 14"),
        ("force */127.0.21.* auto", "2 3", "2 3"),
    ] {
        run(&folder, &server, command, 0);
        assert_eq!((&*ask(&server, "www.geo.example"), &*ask(&server, "eu.geo.example")), (www, eu), "{command}");
    }
    let status = server.json("/api/v1/status");
    assert_eq!(status["overrides"], Value::Array(Vec::new()));
}

#[test]
fn an_override_is_shown_wherever_somebody_may_look() {
    let endpoints = Endpoints::start();
    let folder = Folder::with_config(&endpoints.config(LOOPBACK));
    let mut server = start(&folder);
    let url = server.admin_url();
    let done = folder.run(&["drain", "eu-west", "--reason", "new switch", "--for", "2h", "--admin", &url]);
    assert!(done.stdout.starts_with("eu-west: drain, ends in "), "{done:?}");
    run(&folder, &server, "force us/127.0.21.1 down", 0);

    let status = server.json("/api/v1/status");
    let region = status["regions"].as_array().unwrap().iter().find(|region| region["name"] == "eu-west").unwrap();
    assert_eq!(
        (&region["forced"], &region["forced_reason"], &region["usable"]),
        (&"drain".into(), &"new switch".into(), &true.into())
    );
    assert_eq!(status["overrides"][0]["target"], "eu-west");
    assert!(status["overrides"][0]["by"].as_str().unwrap().contains("isochrone/"), "{status}");
    let until = status["overrides"][0]["until"].as_u64().unwrap() - status["overrides"][0]["since"].as_u64().unwrap();
    assert_eq!(until, 7200);
    let table = run(&folder, &server, "status", 0).stdout;
    assert!(table.contains("yes (forced drain)") && table.contains("up (forced down)"), "{table}");
    assert!(table.contains("overrides eu-west drain, ends in") && table.contains(": new switch ("), "{table}");

    let explained = server.json("/api/v1/explain?name=www.geo.example");
    let candidate = |name: &str| {
        let list = explained["candidates"].as_array().unwrap();
        list.iter().find(|candidate| candidate["region"] == name).unwrap().clone()
    };
    assert_eq!(candidate("eu-west")["forced"], "drain");
    assert_eq!(explained["chosen"], "eu-west", "no other is usable: {explained}");
    let reason = candidate("eu-west")["reason"].as_str().unwrap().to_string();
    assert_eq!(reason, "chosen although it is drained: no other region is usable (forced drain: new switch)");
    assert_eq!(candidate("us")["healthy"], false);

    let metrics = server.get("/metrics").1;
    for line in [
        "isochrone_region_forced{region=\"eu-west\",state=\"drain\"} 1",
        "isochrone_region_forced{region=\"eu-west\",state=\"down\"} 0",
        "isochrone_region_forced{region=\"us\",state=\"drain\"} 0",
        "isochrone_endpoint_forced{region=\"us\",endpoint=\"127.0.21.1\",state=\"down\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    let audit = server.wait_for_log("the audit line", |line| line["message"] == "override by an operator");
    assert_eq!(
        (&audit["what"], &audit["state"], &audit["why"]),
        (&"eu-west".into(), &"drain".into(), &"new switch".into())
    );
    assert!(audit["who"].as_str().unwrap().starts_with("127.0.0.1 isochrone/") && audit["until"].is_u64(), "{audit}");
}

#[test]
fn overrides_outlive_restarts_reloads_and_their_regions() {
    let endpoints = Endpoints::start();
    let config = endpoints.config(LOOPBACK);
    let folder = Folder::with_config(&config);
    let server = start(&folder);
    run(&folder, &server, "force eu-west down --reason rack", 0);
    run(&folder, &server, "drain us/127.0.21.1", 0);
    assert_eq!(ask(&server, "www.geo.example"), "1");
    drop(server); // killed: nothing is written at the end

    let server = start(&folder);
    // The first round is done before the last of its verdicts is in the answers.
    wait_for("the verdicts", || (ask(&server, "www.geo.example") == "1").then_some(()));
    assert_eq!(server.json("/api/v1/status")["overrides"][0]["reason"], "rack");

    let without = config.replace("[regions.eu-west]", "[regions.europe]").replace("[\"eu-west\"", "[\"europe\"");
    folder.write("isochrone.toml", &without);
    let done = run(&folder, &server, "reload", 0);
    assert_eq!(done.stdout, "reloaded: 3 regions, 1 zone, 2 routes\n");
    assert_eq!(server.json("/api/v1/status")["overrides"][0]["matches"], Value::Array(Vec::new()));
    wait_for("the new region", || (ask(&server, "www.geo.example") == "2 3").then_some(()));

    folder.write("isochrone.toml", &config);
    run(&folder, &server, "reload", 0);
    assert_eq!(ask(&server, "www.geo.example"), "1");

    folder.write("isochrone.toml", &without);
    run(&folder, &server, "reload", 0);
    run(&folder, &server, "force eu-west auto", 0);
    folder.write("isochrone.toml", &config);
    run(&folder, &server, "reload", 0);
    wait_for("the region", || (ask(&server, "www.geo.example") == "2 3").then_some(()));

    folder.write("isochrone.toml", &config.replace("tcp", "tpc"));
    let done = run(&folder, &server, "reload", 2);
    assert!(done.stderr.contains("unknown type `tpc`") && done.stderr.contains("the running configuration stays"));
    assert_eq!(ask(&server, "www.geo.example"), "2 3");
}

#[test]
fn an_override_ends_in_time_whether_the_server_runs_or_not() {
    let endpoints = Endpoints::start();
    let folder = Folder::with_config(&endpoints.config(LOOPBACK));
    let mut server = start(&folder);
    let kept = || fs::read_to_string(folder.path().join("state/overrides.json")).unwrap();
    run(&folder, &server, "drain eu-west --for 2s", 0);
    assert!(kept().contains("eu-west"));
    wait_for("the end", || (ask(&server, "www.geo.example") == "2 3").then_some(()));
    server.wait_for_log("a line", |line| line["message"] == "override ended: its time is over");
    wait_for("the file", || (!kept().contains("eu-west")).then_some(()));

    run(&folder, &server, "drain eu-west --for 1h", 0);
    drop(server);
    let early = kept();
    let until = early.split("\"until\":").nth(1).and_then(|rest| rest.split([',', '}']).next()).unwrap();
    fs::write(folder.path().join("state/overrides.json"), early.replace(until, "1000")).unwrap();
    let server = start(&folder);
    assert_eq!(ask(&server, "www.geo.example"), "2 3");
}

#[test]
fn a_corrupt_state_file_is_set_aside_and_the_server_starts() {
    let endpoints = Endpoints::start();
    let folder = Folder::with_config(&endpoints.config(LOOPBACK));
    fs::create_dir(folder.path().join("state")).unwrap();
    folder.write("state/overrides.json", "{\"schema\": 1, \"written\": 5, \"data\": {\"list\": [{\"tar");
    let mut server = start(&folder);
    let line = server.wait_for_log("a line", |line| line["message"].as_str().unwrap_or("").contains("it is corrupt"));
    assert!(line["message"].as_str().unwrap().contains("overrides.json.corrupt-"), "{line}");
    let names: Vec<String> = fs::read_dir(folder.path().join("state"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("overrides"))
        .collect();
    assert!(names.len() == 1 && names[0].starts_with("overrides.json.corrupt-"), "{names:?}");
    assert_eq!(ask(&server, "www.geo.example"), "2 3");
    run(&folder, &server, "drain eu-west", 0);
    assert_eq!(ask(&server, "www.geo.example"), "1");
}

#[test]
fn what_cannot_be_done_is_told_with_what_to_do_instead() {
    let endpoints = Endpoints::start();
    let folder = Folder::with_config(&endpoints.config(LOOPBACK));
    let server = start(&folder);
    let down = r#"{"state":"down"}"#;
    let force = "/api/v1/regions/eu-west/force";
    for (path, body, headers, status, part) in [
        ("/api/v1/regions/eu-wset/force", down, vec![JSON], 404, "did you mean `eu-west`?"),
        ("/api/v1/regions/e%2A/force", r#"{"state":"drain"}"#, vec![JSON], 200, "\"matches\":[\"eu-west\"]"),
        ("/api/v1/regions/x%2A/force", down, vec![JSON], 404, "no region is called `x*`"),
        ("/api/v1/regions/eu-west/endpoints/127.0.21.9/force", down, vec![JSON], 404, "has no endpoint `127.0.21.9`"),
        (force, r#"{"state":"off"}"#, vec![JSON], 400, "unknown state `off`"),
        (force, "down", vec![JSON], 400, "send a body like"),
        (force, down, vec![], 415, "Content-Type: application/json"),
        (force, down, vec![JSON, "Origin: https://evil.example"], 403, "foreign web pages"),
        (force, down, vec![JSON, "Host: evil.example"], 403, "not under another name"),
        (force, r#"{"state":"auto"}"#, vec![JSON], 200, "\"state\":\"auto\""),
    ] {
        let (code, text) = post(&server, path, body, &headers);
        assert_eq!(code, status, "{path} {body} {headers:?}: {text}");
        assert!(text.contains(part), "{path} {body}: {text}");
    }
    assert_eq!(ask(&server, "www.geo.example"), "2 3");
    let done = run(&folder, &server, "drain eu-wst", 1);
    assert!(done.stderr.contains("no region is called `eu-wst`; did you mean `eu-west`?"), "{done:?}");
    let done = run(&folder, &server, "force eu-west down --for 1", 1);
    assert!(done.stderr.contains("write \"1s\""), "{done:?}");
    assert_eq!(run(&folder, &server, "force eu-west sideways", 2).stdout, "");
    let done = run(&folder, &server, "force eu-west down", 0);
    assert!(
        done.stderr.contains("nothing is left to answer with, for all or some clients, on eu in geo.example"),
        "{done:?}"
    );
}

#[test]
fn beyond_loopback_changes_need_the_token() {
    let endpoints = Endpoints::start();
    let folder = Folder::with_config(&endpoints.config("listen = \"0.0.0.0:0\""));
    let mut server = start(&folder);
    let (force, drain) = ("/api/v1/regions/eu-west/force", r#"{"state":"drain"}"#);
    server.wait_for_log("a warning", |line| line["message"].as_str().unwrap_or("").contains("refuses changes"));
    let (status, body) = post(&server, force, drain, &[JSON, "Authorization: Bearer x"]);
    assert!(status == 403 && body.contains("set `token-file` in [admin]"), "{status} {body}");
    assert_eq!(server.get("/api/v1/status").0, 200);
    drop(server);

    folder.write("token", "one-s3cret-one-s3cret\n");
    folder.write("isochrone.toml", &endpoints.config("listen = \"0.0.0.0:0\"\ntoken-file = \"token\""));
    let mut server = start(&folder);
    let url = format!("http://127.0.0.1:{}", server.admin.port());
    for (arguments, variables, code, part) in [
        (vec!["drain", "eu-west"], vec![], 1, "changes need the token"),
        (vec!["drain", "eu-west", "--token-file", "wrong"], vec![], 1, "this is not the token"),
        (vec!["drain", "eu-west", "--token-file", "none"], vec![], 1, "does not exist"),
        (vec!["drain", "eu-west", "--token-file", "token"], vec![], 0, "eu-west: drain"),
        (vec!["force", "eu-west", "auto"], vec![("ISOCHRONE_TOKEN", "one-s3cret-one-s3cret")], 0, "eu-west: auto"),
        (vec!["reload"], vec![("ISOCHRONE_TOKEN", "one-s3cret-one-s3cret")], 0, "reloaded"),
    ] {
        folder.write("wrong", "another-s3cret");
        let output = Command::new(env!("CARGO_BIN_EXE_isochrone"))
            .args(&arguments)
            .args(["--admin", &url])
            .envs(variables)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
        assert!(told.contains(part), "{arguments:?}: {told}");
    }
    assert!(!server.stderr().contains("s3cret"), "a token in the log: {}", server.stderr());

    // A new token is taken up, and the old one is no good any more.
    folder.write("token.new", "two-s3cret-two-s3cret\n");
    fs::rename(folder.path().join("token.new"), folder.path().join("token")).unwrap();
    let (new, old) = ("Authorization: Bearer two-s3cret-two-s3cret", "Authorization: Bearer one-s3cret-one-s3cret");
    server.wait_for_log("a reload", |line| line["message"].as_str().unwrap_or("").ends_with("token was replaced"));
    wait_for("the new token", || {
        let done = server.stderr().matches("reloaded: ").count() == 2; // one was asked for above
        done.then(|| assert_eq!(post(&server, force, drain, &[JSON, new]).0, 200))
    });
    assert_eq!(post(&server, force, drain, &[JSON, old]).0, 401);

    // Guessing ends, for the right token, too.
    let mut statuses: Vec<u16> = Vec::new();
    for n in 0..20 {
        let guess = format!("Authorization: Bearer guess-{n}");
        statuses.push(post(&server, force, drain, &[JSON, &guess]).0);
    }
    assert!(statuses.contains(&401) && statuses.last() == Some(&429), "{statuses:?}");
    assert_eq!(post(&server, force, drain, &[JSON, new]).0, 429);
    assert_eq!(server.get("/api/v1/status").0, 200);
}
