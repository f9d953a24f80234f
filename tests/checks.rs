//! Every type of check in the running program, against real servers: nginx over HTTP/2 and TLS with a private authority, a gRPC
//! health service, heartbeats, and what is calculated from them; certificates that run out. Needs Debian's nginx-light.

#[path = "support/nginx.rs"]
mod nginx;
#[path = "support/program.rs"]
mod program;

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, SystemTime},
};

use hyper::{HeaderMap, Response, body::Bytes};
use nginx::Nginx;
use program::{Folder, PATIENCE, Program, wait_for};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::Value;

const DAY: Duration = Duration::from_secs(86_400);

type Authority = CertifiedIssuer<'static, KeyPair>;

/// An authority in `ca.pem`.
fn authority(folder: &Folder) -> Authority {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "test authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    folder.write("ca.pem", &authority.pem());
    authority
}

/// A certificate in `leaf.pem` and its key in `leaf.key`: for whom, until when, and by whom (`None`: by itself).
fn leaf(folder: &Folder, name: &str, until: SystemTime, by: Option<&Authority>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_string()]).unwrap();
    params.not_before = (SystemTime::now() - 30 * DAY).into();
    params.not_after = until.into();
    let certificate = match by {
        Some(authority) => params.signed_by(&key, authority).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    folder.write("leaf.pem", &certificate.pem());
    folder.write("leaf.key", &key.serialize_pem());
}

/// A gRPC health service on an address, which says what it is told to: 1 is SERVING, 2 NOT_SERVING. It ends with the test.
fn grpc_service(address: &str) -> (u16, Arc<AtomicU8>) {
    let says = Arc::new(AtomicU8::new(1));
    let told = says.clone();
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(grpc_answers(stream, told.clone()));
            }
        });
    });
    (port, says)
}

async fn grpc_answers(stream: tokio::net::TcpStream, says: Arc<AtomicU8>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut sending = respond.send_response(response, false).unwrap();
        let message = vec![0, 0, 0, 0, 2, 0x08, says.load(Ordering::SeqCst)];
        sending.send_data(Bytes::from(message), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        sending.send_trailers(trailers).unwrap();
    }
}

/// Posts to the admin interface: status and JSON.
fn post(server: SocketAddr, path: &str, headers: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
}

/// The status of an endpoint under a check.
fn endpoint(server: &Program, endpoint: &str, check: &str) -> Value {
    let status = server.json("/api/v1/status");
    let regions = status["regions"].as_array().unwrap();
    let found = regions
        .iter()
        .flat_map(|region| region["endpoints"].as_array().unwrap())
        .find(|e| e["endpoint"] == endpoint && e["check"] == check);
    found.unwrap_or_else(|| panic!("no {endpoint} under {check}: {status:#}")).clone()
}

fn wait_for_state(server: &Program, check: &str, state: &str) -> Value {
    wait_for(&format!("{check} to be {state}"), || {
        let endpoint = endpoint(server, "127.0.11.1", check);
        (endpoint["state"] == state && endpoint["decided"] == true).then_some(endpoint)
    })
}

fn free_port(address: &str) -> u16 {
    TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port()
}

fn serve(folder: &Folder) -> Program {
    let authority = folder.path().join("ca.pem");
    folder.start_with(&["serve", "--config", "isochrone.toml"], &[("SSL_CERT_FILE", authority.to_str().unwrap())])
}

/// `checks` and the regions `us` (127.0.11.1, under `check`) and `eu`.
fn config(checks: &str, check: &str) -> String {
    format!(
        r#"
[server]
listen = ["127.0.0.1:0"]
[admin]
listen = "127.0.0.1:0"
{checks}
[regions.us]
location = "aws:us-east-1"
endpoints = ["127.0.11.1"]
check = "{check}"
[regions.eu]
location = "aws:eu-central-1"
endpoints = ["127.0.11.2"]
[zones."geo.example"]
nameservers = ["ns1.example.net."]
[zones."geo.example".routes.app]
policy = "failover"
regions = ["us", "eu"]
"#
    )
}

const TIMES: &str = "interval = \"1s\"\ntimeout = \"900ms\"\n";

fn is_in_metrics(server: &Program, beginning: &str) -> bool {
    server.get("/metrics").1.lines().any(|line| line.starts_with(beginning))
}

#[test]
fn https_grpc_heartbeats_and_what_is_calculated_from_them() {
    let folder = Folder::new();
    let authority = authority(&folder);
    leaf(&folder, "app.example", SystemTime::now() + 3 * DAY + DAY / 2, Some(&authority));
    let port = free_port("127.0.11.1");
    let _nginx = Nginx::start_with(&folder, "web", &[format!("127.0.11.1:{port}")], "ssl http2");
    let (grpc_port, says) = grpc_service("127.0.11.1");
    let checks = format!(
        r#"
[checks.web]
type = "https"
port = {port}
host = "app.example"
path = "/health"
expect-body = "all is well"
headers = {{ x-probe = "from here" }}
{TIMES}
[checks.old]
type = "https"
port = {port}
host = "app.example"
path = "/health"
method = "HEAD"
http-version = "1.1"
{TIMES}
[checks.rpc]
type = "grpc"
port = {grpc_port}
{TIMES}
[checks.cron]
type = "push"
interval = "1h"
[checks.sides]
type = "at-least"
count = 2
checks = ["old", "rpc", "cron"]
[checks.whole]
type = "all-of"
checks = ["web", "sides"]
"#
    );
    folder.write("isochrone.toml", &config(&checks, "whole"));
    let mut server = serve(&folder);

    for check in ["web", "old", "rpc", "sides", "whole"] {
        wait_for_state(&server, check, "up");
    }
    assert_eq!(server.get("/readyz").0, 200, "a heartbeat that is still to come holds up nothing");
    assert_eq!(endpoint(&server, "127.0.11.1", "cron")["decided"], false);
    assert_eq!(endpoint(&server, "127.0.11.1", "whole")["checks"], serde_json::json!(["web", "sides"]));
    let asked = wait_for("both versions", || {
        let log = fs::read_to_string(folder.path().join("web.access")).unwrap();
        (log.contains("GET HTTP/2.0 from here") && log.contains("HEAD HTTP/1.1 -")).then_some(log)
    });
    assert!(!asked.contains("GET HTTP/1.1"), "{asked}");

    // The certificate runs out in three days.
    let web = endpoint(&server, "127.0.11.1", "web");
    assert_eq!(web["warnings"], serde_json::json!(["the certificate expires in 3 days"]));
    assert!(web["certificate_expires"].as_i64().is_some());
    server.wait_for_log("the warning", |line| line["message"] == "the certificate expires in 3 days");
    let shown = folder.run(&["status", "--admin", &server.admin_url()]);
    assert!(shown.stdout.contains("warning: the certificate expires in 3 days"), "{}", shown.stdout);
    let labels = r#"{region="us",endpoint="127.0.11.1",check="web""#;
    assert!(is_in_metrics(&server, &format!("isochrone_endpoint_certificate_expiry_timestamp_seconds{labels}}}")));
    for phase in ["connect", "tls", "first-byte"] {
        let count = format!("isochrone_endpoint_probe_seconds_count{labels},phase=\"{phase}\"}}");
        assert!(is_in_metrics(&server, &count), "{count}");
    }
    assert!(!is_in_metrics(&server, r#"isochrone_probes_total{check="whole""#), "nothing probes what is calculated");
    assert!(is_in_metrics(&server, r#"isochrone_endpoint_up{region="us",endpoint="127.0.11.1",check="whole"} 1"#));

    // One of the three sides may be down, not two.
    says.store(2, Ordering::SeqCst);
    let rpc = wait_for_state(&server, "rpc", "down");
    assert_eq!(rpc["last_error"], "the server says NOT_SERVING");
    assert_eq!(endpoint(&server, "127.0.11.1", "whole")["state"], "up");
    let path = "/api/v1/checks/cron/127.0.11.1/heartbeat";
    let (status, heard) = post(server.admin, path, "", r#"{"state":"down"}"#);
    assert_eq!((status, &heard["state"], &heard["within_s"]), (200, &"down".into(), &3600.0.into()), "{heard}");
    let whole = wait_for_state(&server, "whole", "down");
    let why = whole["last_error"].as_str().unwrap();
    assert!(
        why.contains("down: sides (1 of 3 checks is up, 2 must be; down: rpc (the server says NOT_SERVING), cron"),
        "{why}"
    );
    let why = folder.run(&["explain", "app.geo.example", "--admin", &server.admin_url()]);
    assert!(why.stdout.contains("chosen    eu") && why.stdout.contains("NOT_SERVING"), "{}", why.stdout);
    for _ in 0..2 {
        assert_eq!(post(server.admin, path, "", "").0, 200);
    }
    wait_for_state(&server, "whole", "up");

    assert_eq!(post(server.admin, path, "origin: https://evil.example\r\n", "").0, 403);
    assert_eq!(post(server.admin, "/api/v1/checks/web/127.0.11.1/heartbeat", "", "").0, 404);

    let probed = folder.run(&["probe", "--config", "isochrone.toml"]);
    assert_eq!(probed.code, Some(1), "no CA bundle of its own here, and the service still says no: {}", probed.stdout);
    assert!(
        probed.stdout.contains("the server says NOT_SERVING") && probed.stdout.contains(" push "),
        "{}",
        probed.stdout
    );
}

#[test]
fn an_interval_without_a_heartbeat_takes_an_endpoint_down() {
    let folder = Folder::new();
    folder.write("isochrone.toml", &config("[checks.cron]\ntype = \"push\"\ninterval = \"1s\"\n", "cron"));
    let server = folder.start(&["serve", "--config", "isochrone.toml"]);
    let down = wait_for_state(&server, "cron", "down");
    assert_eq!(down["last_error"], "no heartbeat within 1000 ms");
    wait_for("two heartbeats in a row", || {
        let (status, heard) = post(server.admin, "/api/v1/checks/cron/127.0.11.1/heartbeat", "", "");
        assert_eq!(status, 200, "{heard}");
        (heard["state"] == "up").then_some(())
    });
}

#[test]
fn certificates_of_every_kind() {
    let now = SystemTime::now();
    for (what, name, until, by_authority, verify, error, warning) in [
        ("sound", "app.example", now + 60 * DAY, true, true, None, None),
        (
            "about to expire",
            "app.example",
            now + DAY + DAY / 2,
            true,
            true,
            None,
            Some("the certificate expires in 1 day"),
        ),
        (
            "expired",
            "app.example",
            now - 3 * DAY - DAY / 2,
            true,
            true,
            Some("TLS: "),
            Some("the certificate expired 3 days ago"),
        ),
        (
            "expired, unverified",
            "app.example",
            now - 3 * DAY - DAY / 2,
            true,
            false,
            None,
            Some("the certificate expired 3 days ago"),
        ),
        ("wrong name", "other.example", now + 60 * DAY, true, true, Some("TLS: "), None),
        ("self-signed", "app.example", now + 60 * DAY, false, true, Some("TLS: "), None),
        ("self-signed, unverified", "app.example", now + 60 * DAY, false, false, None, None),
    ] {
        let folder = Folder::new();
        let authority = authority(&folder);
        leaf(&folder, name, until, by_authority.then_some(&authority));
        let port = free_port("127.0.11.1");
        let _nginx = Nginx::start(&folder, "web", &[format!("127.0.11.1:{port}")], true);
        let check = format!(
            "[checks.web]\ntype = \"https\"\nport = {port}\nhost = \"app.example\"\npath = \"/health\"\nverify-tls = {verify}\n{TIMES}"
        );
        folder.write("isochrone.toml", &config(&check, "web"));
        let server = serve(&folder);
        let wanted = if error.is_none() { "up" } else { "down" };
        wait_for_state(&server, "web", wanted);
        if let Some(error) = error {
            let told = wait_for("the server to be reached", || {
                let told = endpoint(&server, "127.0.11.1", "web")["last_error"].as_str().unwrap().to_string();
                (told != "connection refused").then_some(told)
            });
            assert!(told.starts_with(error), "{what}: {told}");
        }
        let warnings = &endpoint(&server, "127.0.11.1", "web")["warnings"];
        assert_eq!(*warnings, serde_json::json!(warning.into_iter().collect::<Vec<_>>()), "{what}");
    }
}
