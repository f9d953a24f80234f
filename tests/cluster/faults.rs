//! What is hung, killed, cut off or told the wrong time: no answer is lost, answers are those that the servers that hear each other agree
//! upon, and all is well again by itself.

use std::{process::Command, sync::Arc};

use crate::{
    nats::Nats,
    netns::{self, Namespace, join},
    node::{Client, EU, Node, US, meet, start, wait_for_answers, wait_until},
    program::Folder,
};

fn signal(id: u32, name: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {id}")]).status().unwrap();
    assert!(sent.success(), "kill -{name} {id}");
}

/// Waits until each knows what all see of `eu`: two of them see it down.
fn agree(nodes: &[&Node]) {
    for node in nodes {
        wait_until("all views to be known", || node.endpoint(1)["consensus"] == "2 of 3 servers see it down");
    }
}

#[test]
fn a_nats_that_hangs_is_as_good_as_none() {
    let folder = Folder::new();
    let nats = Nats::start(&folder, "nats", "");
    let nodes = start(&["a", "b", "c"], &nats);
    let [a, b, c] = [&nodes[0], &nodes[1], &nodes[2]];
    meet(&[a, b, c]);
    for node in [a, b, c] {
        node.sees(EU, if node.name == "c" { "up" } else { "down" });
    }
    agree(&[a, b, c]);
    wait_for_answers(&[a, b, c], US);
    let [of_a, of_c] = [a, c].map(Client::of);
    signal(nats.id(), "STOP");
    wait_for_answers(&[c], EU);
    wait_until("a and c to say so", || [a, c].iter().all(|node| node.cluster()["connected"] == false));
    // From what all see to what it sees itself, and nothing else in between.
    assert_eq!(of_a.told(), [US]);
    signal(nats.id(), "CONT");
    agree(&[a, b, c]);
    wait_for_answers(&[a, b, c], US);
    meet(&[a, b, c]);
    assert_eq!(of_c.told(), [US, EU]);
}

#[test]
fn a_server_that_hangs_or_dies_does_not_count_until_it_is_back() {
    let folder = Folder::new();
    let nats = Nats::start(&folder, "nats", "");
    let mut nodes = start(&["a", "b", "c"], &nats);
    meet(&[&nodes[0], &nodes[1], &nodes[2]]);
    for (node, state) in nodes.iter().zip(["down", "up", "down"]) {
        node.sees(EU, state);
    }
    agree(&[&nodes[0], &nodes[1], &nodes[2]]);
    wait_for_answers(&[&nodes[0], &nodes[1], &nodes[2]], US);
    signal(nodes[2].server.id(), "STOP");
    wait_for_answers(&[&nodes[0], &nodes[1]], EU);
    assert_eq!(nodes[0].counting(), 2);
    signal(nodes[2].server.id(), "CONT");
    wait_for_answers(&[&nodes[0], &nodes[1], &nodes[2]], US);
    meet(&[&nodes[0], &nodes[1], &nodes[2]]);

    let c = nodes.pop().unwrap();
    signal(c.server.id(), "KILL");
    wait_for_answers(&[&nodes[0], &nodes[1]], EU);
    let silent = "server of the cluster is silent";
    assert_eq!(nodes[0].log_count(silent), 2, "{}", nodes[0].server.stderr());
}

#[test]
fn everything_may_be_restarted_at_once() {
    let folder = Folder::new();
    let nats = Nats::start(&folder, "nats", "");
    let (address, nodes) = (nats.clients.to_string(), start(&["a", "b", "c"], &nats));
    meet(&[&nodes[0], &nodes[1], &nodes[2]]);
    nodes[0].force("eu", "drain", "power works");
    wait_for_answers(&[&nodes[0], &nodes[1], &nodes[2]], US);
    drop(nats);
    let nodes: Vec<Node> = nodes.into_iter().map(Node::restart).collect();
    let _nats = Nats::start_on(&folder, "nats", &address, "");
    meet(&[&nodes[0], &nodes[1], &nodes[2]]);
    wait_for_answers(&[&nodes[0], &nodes[1], &nodes[2]], US);
    nodes[1].force("eu", "auto", "");
    wait_for_answers(&[&nodes[0], &nodes[1], &nodes[2]], EU);
}

#[test]
fn a_clock_that_is_an_hour_off_makes_no_difference() {
    let folder = Folder::new();
    let nats = Nats::start(&folder, "nats", "");
    let cluster = format!("nats = [\"{}\"]", nats.url());
    let right = Node::start("right", &cluster);
    let (fast, slow) = (Node::start_at("+1h", "fast", &cluster), Node::start_at("-1h", "slow", &cluster));
    let uptime = |node: &Node| node.status()["reload"]["last_success"].as_u64().unwrap();
    assert!(uptime(&fast) > uptime(&right) + 3000 && uptime(&slow) + 3000 < uptime(&right), "their clocks are off");
    meet(&[&right, &fast, &slow]);
    for node in [&fast, &slow] {
        node.sees(EU, "down");
    }
    right.sees(EU, "up");
    wait_for_answers(&[&right, &fast, &slow], US);
    right.sees(EU, "down");
    for node in [&fast, &slow] {
        node.sees(EU, "up");
    }
    wait_for_answers(&[&right, &fast, &slow], EU);

    // Whoever decides last is followed, and half an hour is half an hour everywhere.
    for (node, state, answer) in [(&fast, "drain", US), (&slow, "up", EU), (&right, "down", US)] {
        let body = format!(r#"{{"state":"{state}","for":"30m"}}"#);
        assert_eq!(node.post("/api/v1/regions/eu/force", &body).0, 200);
        for node in [&right, &fast, &slow] {
            wait_until("the newest decision to hold", || node.status()["overrides"][0]["state"] == state);
            assert_eq!(node.answer(), answer, "{} after {state}", node.name);
        }
    }
    let left_s = |node: &Node| {
        let now = uptime(node); // the moment of its start, by its own clock
        node.status()["overrides"][0]["until"].as_u64().unwrap().saturating_sub(now)
    };
    for node in [&right, &fast, &slow] {
        assert!((1800..2400).contains(&left_s(node)), "{}: {} s", node.name, left_s(node));
    }
}

/// A NATS cluster of three in a namespace, and where clients in other namespaces find it at this address.
fn nats_of_three(hub: &Namespace, folder: &Folder) -> Vec<Nats> {
    let start = |n: u16| {
        let routes =
            "\"nats-route://127.0.0.1:6220\", \"nats-route://127.0.0.1:6221\", \"nats-route://127.0.0.1:6222\"";
        let config = format!(
            "server_name: nats{n}\nlisten: \"0.0.0.0:{}\"\ncluster {{\n name: test\n listen: \"127.0.0.1:{}\"\n routes: [{routes}]\n}}",
            4220 + n,
            6220 + n
        );
        Nats::start_under(hub.command("nats-server"), folder, &format!("nats{n}"), &config)
    };
    (0..3).map(start).collect()
}

#[test]
fn who_is_cut_off_both_ways_or_one_way_goes_by_what_it_hears() {
    netns::prepare(&["ip", "nft"]);
    let folder = Folder::new();
    let hub = Namespace::new();
    let homes: Vec<Arc<Namespace>> = (0..5).map(|_| Arc::new(Namespace::new())).collect();
    for (number, home) in (1..).zip(&homes) {
        join(&hub, home, number);
    }
    let mut nats = nats_of_three(&hub, &folder);
    let node = |(number, home): (u8, &Arc<Namespace>)| {
        let urls: Vec<String> = (4220..4223).map(|port| format!("\"nats://10.0.{number}.1:{port}\"")).collect();
        Node::start_in(home.clone(), &format!("n{number}"), &format!("nats = [{}]", urls.join(", ")))
    };
    let nodes: Vec<Node> = (1..).zip(&homes).map(node).collect();
    let all: Vec<&Node> = nodes.iter().collect();
    let (others, last) = (&all[..4], all[4]);
    meet(&all);
    for (node, state) in all.iter().zip(["down", "down", "up", "up", "down"]) {
        node.sees(EU, state);
    }
    let agree = || {
        for node in &all {
            wait_until("views", || node.endpoint(1)["consensus"] == "3 of 5 servers see it down");
        }
        wait_for_answers(&all, US);
    };
    agree();
    // One NATS server less is none too few.
    nats.remove(0);
    wait_until("all to be at the other two", || {
        all.iter().all(|node| node.cluster()["connected"] == true && node.cluster()["server"] != "nats0")
    });
    meet(&all);
    agree();
    for (what, incoming, outgoing) in
        [("both ways", "drop", "drop"), ("is not heard", "", "drop"), ("hears nothing", "drop", "")]
    {
        homes[4].filter(incoming, outgoing);
        // Without the last one two of four see it down, which is not more than half.
        wait_for_answers(others, EU);
        assert_eq!(others[0].counting(), 4, "{what}");
        wait_until("the last one to be alone", || last.counting() == 1 && last.cluster()["connected"] == false);
        assert_eq!(last.answer(), US, "{what}: it goes by its own view");
        homes[4].pass_all();
        meet(&all);
        agree();
    }
}
