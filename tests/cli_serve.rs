//! A running server, asked by the command line, over HTTP and over DNS.

#[path = "support/fixture.rs"]
mod fixture;
#[path = "support/program.rs"]
mod program;

use std::net::TcpListener;

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
