//! Servers that share what they see, with a real NATS: health by many eyes, decisions of operators, and what happens when NATS is slow, gone,
//! refuses them or brings garbage. What each server sees is told to it by heartbeats. Needs Debian's nats-server, faketime and unbound; and
//! root for the network namespaces of those that are cut off or far apart.
//!
//! ```text
//! cargo test --test cluster                              what CI runs
//! cargo test --test cluster -- --ignored --nocapture     the same at full length: tests/long/cluster.sh
//! ```
#![allow(clippy::disallowed_methods)] // it polls

#[path = "../support/asker.rs"]
mod asker;
mod chaos;
mod example;
mod faults;
mod latency;
#[path = "../support/nats.rs"]
mod nats;
#[path = "../support/netns.rs"]
mod netns;
mod node;
#[path = "../support/program.rs"]
mod program;
#[path = "../support/relay.rs"]
mod relay;
#[allow(dead_code)] // a part of it is used here
#[path = "../failover/report.rs"]
mod report;
mod swaps;
mod world;

use nats::{Nats, publish};
use node::{EU, Node, US, config, meet, start, wait_for_answers, wait_until};
use program::Folder;
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_region_is_down_when_more_than_half_of_the_servers_see_it_down() {
    let folder = Folder::new();
    let nats = Nats::start(&folder, "nats", "");
    let nodes = start(&["a", "b", "c"], &nats);
    let [a, b, c] = [&nodes[0], &nodes[1], &nodes[2]];
    meet(&[a, b, c]);
    for node in [a, b, c] {
        node.sees(US, "up");
        node.sees(EU, "up");
    }
    let seen = |node: &Node, n: usize| node.endpoint(1)["seen"].as_array().is_some_and(|seen| seen.len() == n);
    wait_until("c to see what all see", || seen(c, 3));

    a.sees(EU, "down");
    let by_a = |node: &Node| {
        let seen = node.endpoint(1)["seen"].clone();
        seen.as_array().unwrap().iter().find(|by| by["node"] == "a").map(|by| by["state"].clone())
    };
    for node in [b, c] {
        wait_until("a's view to be known", || by_a(node) == Some("down".into()));
    }
    for node in [a, b, c] {
        wait_until("each to know so", || node.endpoint(1)["consensus"] == "1 of 3 servers sees it down");
    }
    wait_for_answers(&[a, b, c], EU);
    let endpoint = a.endpoint(1);
    assert_eq!((&endpoint["state"], &endpoint["consensus"]), (&"up".into(), &"1 of 3 servers sees it down".into()));

    b.sees(EU, "down");
    wait_for_answers(&[a, b, c], US);
    let endpoint = c.endpoint(1);
    assert_eq!((&endpoint["state"], &endpoint["consensus"]), (&"down".into(), &"2 of 3 servers see it down".into()));
    assert_eq!((&endpoint["seen"][0]["node"], &endpoint["seen"][0]["state"]), (&"c".into(), &"up".into()));
    let explained = json(&c.get("/api/v1/explain?name=www.geo.example"));
    let candidate = &explained["candidates"][0];
    assert_eq!(candidate["reason"], "down: 192.0.2.2: 2 of 3 servers see it down, not this one");
    assert_eq!(candidate["seen"][0]["by"], serde_json::json!({"a": "down", "b": "down", "c": "up"}));
    let metrics = c.get("/metrics");
    for line in [
        "isochrone_endpoint_up{region=\"eu\",endpoint=\"192.0.2.2\",check=\"app\"} 0",
        "isochrone_cluster_connected 1",
        "isochrone_cluster_nodes 3",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }

    // One that joins knows within moments what the others see, though it has seen nothing itself.
    let d = Node::start("d", &format!("nats = [\"{}\"]", nats.url()));
    wait_for_answers(&[&d], US);
    let shown = d.folder.run(&["status", "--admin", &d.server.admin_url()]).stdout;
    assert!(shown.contains("d, 4 of 4 servers count, connected to nats"), "{shown}");

    b.sees(EU, "up");
    wait_for_answers(&[a, b, c, &d], EU);
}

#[test]
fn two_servers_that_each_see_the_others_region_down_take_neither_down() {
    let folder = Folder::new();
    let nats = Nats::start(&folder, "nats", "");
    let nodes = start(&["us", "eu"], &nats);
    let [us, eu] = [&nodes[0], &nodes[1]];
    meet(&[us, eu]);
    for (node, own, other) in [(us, US, EU), (eu, EU, US)] {
        node.sees(own, "up");
        node.sees(other, "down");
    }
    for node in [us, eu] {
        for region in [0, 1] {
            let expected = "1 of 2 servers sees it down";
            wait_until("both views to be known", || node.endpoint(region)["consensus"] == expected);
            assert_eq!(node.endpoint(region)["state"], "up");
        }
        assert_eq!(node.answer(), EU);
    }
}

#[test]
fn without_nats_each_goes_by_its_own_view_and_they_find_each_other_again() {
    let folder = Folder::new();
    let nats = Nats::start(&folder, "nats", "");
    let (address, nodes) = (nats.clients, start(&["a", "b", "c"], &nats));
    let [a, b, c] = [&nodes[0], &nodes[1], &nodes[2]];
    meet(&[a, b, c]);
    for node in [a, b, c] {
        node.sees(US, "up");
        node.sees(EU, if node.name == "c" { "up" } else { "down" });
    }
    wait_for_answers(&[a, b, c], US);
    drop(nats);
    wait_for_answers(&[c], EU);
    wait_for_answers(&[a, b], US);
    let cluster = c.cluster();
    assert_eq!((&cluster["connected"], c.counting()), (&false.into(), 1));
    assert!(cluster["error"].as_str().is_some_and(|error| error.contains("refused")), "{cluster}");
    assert_eq!(c.log_count("connection to NATS lost"), 1);

    let _nats = Nats::start_on(&folder, "nats", &address.to_string(), "");
    wait_for_answers(&[a, b, c], US);
    meet(&[a, b, c]);
    assert_eq!((c.log_count("connection to NATS lost"), c.log_count("connected to NATS")), (1, 2));
}

#[test]
fn what_is_no_message_or_too_new_is_told_and_harms_nobody() {
    let folder = Folder::new();
    let nats = Nats::start(&folder, "nats", "");
    let nodes = start(&["a", "b"], &nats);
    let [a, b] = [&nodes[0], &nodes[1]];
    meet(&[a, b]);
    for (node, payload) in [
        ("evil", &b"\x28\xb5\x2f\xfd\xff\xff"[..]),
        ("late", br#"{"v":99,"needs":98,"say":{}}"#),
        ("next", br#"{"v":4,"needs":1,"say":{"beat":{"run":5,"seq":0,"beat":1,"mood":"good"},"song":true}}"#),
    ] {
        publish(nats.clients, &format!("isochrone.{node}.health"), payload);
    }
    for topic in ["sing", "to.a", "ask", "decide", "health.more"] {
        publish(nats.clients, &format!("isochrone.evil.{topic}"), &[b'{'; 100_000]);
    }
    let told = |name: &str, key: &str| {
        let cluster = a.cluster();
        cluster["nodes"].as_array().unwrap().iter().find(|node| node["name"] == name).map(|node| node[key].clone())
    };
    let has_problem = |name: &str, part: &str| {
        wait_until(part, || told(name, "problem").is_some_and(|problem| problem.to_string().contains(part)));
    };
    has_problem("evil", "it is no message");
    has_problem("late", "it needs schema 98, and this version reads up to 3");
    wait_until("one of the next version", || told("next", "counts") == Some(true.into()));
    assert_eq!(a.log_count("what a server of the cluster said was not taken in"), 2);
    assert!(a.counting() >= 2 && a.answer() == EU);
}

#[test]
fn one_operator_is_heard_by_all_servers_whatever_is_restarted() {
    let folder = Folder::new();
    let nats = Nats::start(&folder, "nats", "");
    let address = nats.clients;
    let mut nodes = start(&["a", "b", "c"], &nats);
    meet(&[&nodes[0], &nodes[1], &nodes[2]]);
    nodes[0].force("eu", "drain", "new switch");
    wait_for_answers(&[&nodes[0], &nodes[1], &nodes[2]], US);
    let told = nodes[2].status()["overrides"][0].clone();
    assert_eq!((&told["node"], &told["reason"], &told["state"]), (&"a".into(), &"new switch".into(), &"drain".into()));

    // Without NATS it holds, and over a restart it does.
    drop(nats);
    let c = nodes.pop().unwrap().restart();
    assert_eq!(c.answer(), US);

    // Meanwhile two operators decide otherwise, each without the other's knowing.
    nodes[0].force("eu", "up", "switch is in");
    nodes[1].force("eu", "down", "fibre is out");
    let _nats = Nats::start_on(&folder, "nats", &address.to_string(), "");
    let [a, b] = [&nodes[0], &nodes[1]];
    for node in [a, b, &c] {
        wait_until("the same everywhere, and the conflict", || {
            let told = node.status()["overrides"].clone();
            told.as_array().is_some_and(|all| all.len() == 1)
                && told[0]["state"] == "down"
                && told[0]["conflicts"][0].as_str().is_some_and(|text| text.starts_with("eu up on a by "))
        });
        assert_eq!(node.answer(), US);
    }
    // Whoever ends it ends it everywhere, and nobody brings it back.
    c.force("eu", "auto", "");
    wait_for_answers(&[a, b, &c], EU);
    let c = c.restart();
    meet(&[a, b, &c]);
    for node in [a, b, &c] {
        assert_eq!((node.answer(), &node.status()["overrides"]), (EU.to_string(), &serde_json::json!([])));
    }
}

#[test]
fn a_cluster_section_comes_and_goes_with_a_reload() {
    let folder = Folder::new();
    let nats = Nats::start(&folder, "nats", "");
    let nodes = start(&["a", "b", "c"], &nats);
    let [a, b, c] = [&nodes[0], &nodes[1], &nodes[2]];
    meet(&[a, b, c]);
    for node in [a, b, c] {
        node.sees(EU, if node.name == "c" { "up" } else { "down" });
    }
    wait_for_answers(&[c], US);
    let text = config("c", "").replace("[cluster]\nnode = \"c\"\n", "");
    c.folder.write("isochrone.toml", &text);
    assert_eq!(c.post("/api/v1/reload", "{}").0, 200);
    wait_for_answers(&[c], EU);
    assert_eq!(c.cluster(), Value::Null);
    assert!(!c.get("/metrics").contains("isochrone_cluster"));
    c.folder.write("isochrone.toml", &config("c", &format!("nats = [\"{}\"]\nquorum = 0.9", nats.url())));
    assert_eq!(c.post("/api/v1/reload", "{}").0, 200);
    meet(&[a, b, c]);
    wait_until("two of three are not more than nine of ten", || {
        c.endpoint(1)["consensus"] == "2 of 3 servers see it down" && c.answer() == EU
    });
}
