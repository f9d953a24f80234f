//! Latency by many eyes: what each server measured from its own region decides the answers of all.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::{
    nats::Nats,
    node::{Node, wait_until},
    program::Folder,
};

/// A network in Germany: near `b`, by all that is known without measurements.
const CLIENT: [u8; 3] = [80, 130, 5];
const A: [u8; 4] = [192, 0, 2, 1];
const B: [u8; 4] = [192, 0, 2, 2];

/// A server that stands in a region and learns, or does neither.
fn config(nats: &Nats, name: &str, region: Option<&str>) -> String {
    let stands = region.map(|region| format!("region = \"{region}\"")).unwrap_or_default();
    format!(
        r#"
[server]
listen = ["127.0.0.1:0"]
state-dir = "state"
threads = 1
{stands}
[admin]
listen = "127.0.0.1:0"
[cluster]
node = "{name}"
nats = ["{}"]
[latency]
learn = {}
rebuild-interval = "1s"
[regions.a]
location = "LHR"
endpoints = ["192.0.2.1"]
[regions.b]
location = "FRA"
endpoints = ["192.0.2.2"]
[zones."geo.example"]
nameservers = ["ns1.example.net."]
[zones."geo.example".routes."www"]
"#,
        nats.url(),
        region.is_some()
    )
}

/// A server that stands in a region, and has measured from there what it takes to the client.
fn start_in(nats: &Nats, region: &str, rtt_ms: u32) -> Node {
    let now_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let network = json!({
        "network": format!("{}.{}.{}.0/24", CLIENT[0], CLIENT[1], CLIENT[2]),
        "window_us": vec![rtt_ms * 1000; 8], "samples": 8, "newest_s": now_s, "weight": 10.0, "weighed_s": now_s,
    });
    let known = json!({"schema": 1, "written": now_s, "data": {"region": region, "networks": [network]}});
    Node::start_knowing(region, &config(nats, region, Some(region)), "latency.json", &known.to_string())
}

/// Whether a server answers the client with this address.
fn answers(node: &Node, address: [u8; 4]) -> bool {
    let mut query = b"\0\x01\0\0\0\x01\0\0\0\0\0\x01\x03www\x03geo\x07example\0\0\x01\0\x01".to_vec();
    query.extend(b"\0\0\x29\x04\xd0\0\0\0\0\0\x0b\0\x08\0\x07\0\x01\x18\0");
    query.extend(CLIENT);
    let reply = node.server.ask(&query);
    let has = |address: [u8; 4]| reply.windows(4).any(|window| window == address);
    assert!(has(A) != has(B), "{reply:02x?}");
    has(address)
}

/// By region, what a server reckons with for the client.
fn estimates(node: &Node) -> Value {
    let client = format!("{}.{}.{}.7", CLIENT[0], CLIENT[1], CLIENT[2]);
    let told: Value =
        serde_json::from_str(&node.get(&format!("/api/v1/explain?name=www.geo.example&client={client}"))).unwrap();
    let candidates = told["candidates"].as_array().unwrap();
    candidates.iter().map(|c| json!([c["region"], c["estimate_ms"], c["samples"]])).collect()
}

fn heard_of(node: &Node, peer: &str) -> Value {
    let nodes = node.cluster()["nodes"].clone();
    nodes.as_array().unwrap().iter().find(|node| node["name"] == peer).cloned().unwrap_or_default()
}

#[test]
fn what_each_server_measured_from_its_region_decides_the_answers_of_all() {
    let folder = Folder::new();
    let nats = Nats::start(&folder, "nats", "");
    let watcher = Node::start_with("watcher", &config(&nats, "watcher", None));
    assert!(answers(&watcher, B), "nothing is measured yet");
    let (a, b) = (start_in(&nats, "a", 10), start_in(&nats, "b", 80));
    for node in [&watcher, &a, &b] {
        wait_until(&format!("{} to answer the region that is nearest as measured", node.name), || answers(node, A));
    }
    wait_until("all to reckon with the same", || {
        let told = estimates(&watcher);
        told[0][2] == 8 && told[1][2] == 8 && told == estimates(&a) && told == estimates(&b)
    });
    let of_a = heard_of(&watcher, "a");
    assert_eq!((&of_a["region"], &of_a["networks"]), (&"a".into(), &1.into()));
    assert!(watcher.get("/metrics").contains("isochrone_cluster_node_networks{node=\"b\"} 1\n"));
    let shown = watcher.folder.run(&["status", "--admin", &watcher.server.admin_url()]).stdout;
    assert!(shown.contains("a counts, measured 1 networks from a"), "{shown}");

    // One that joins has it within moments, and one that comes back does; what one has measured stays when it is gone.
    let late = Node::start_with("late", &config(&nats, "late", None));
    let b = b.restart();
    drop(a);
    for node in [&late, &b, &watcher] {
        wait_until(&format!("{} to know what all measured", node.name), || answers(node, A));
    }
    wait_until("all to reckon with the same again", || {
        let told = estimates(&watcher);
        told[0][2] == 8 && told[1][2] == 8 && told == estimates(&late)
    });

    // Nor does a restart forget it where nobody is left who could tell it again.
    let told = estimates(&late);
    drop((nats, b, watcher));
    let late = late.restart();
    wait_until("it to be remembered", || answers(&late, A) && estimates(&late) == told);
    let cluster = late.cluster();
    assert_eq!(cluster["connected"], false);
    assert_eq!(cluster["remembered"][0], json!({"name": "a", "region": "a", "networks": 1}));
    let shown = late.folder.run(&["status", "--admin", &late.server.admin_url()]).stdout;
    assert!(shown.contains("b is silent, measured 1 networks from b"), "{shown}");
}
