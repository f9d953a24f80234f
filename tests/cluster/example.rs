//! The example in `config/cluster/`, with keys, certificates and addresses of the test.

use std::{fs, net::SocketAddr};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::Value;

use crate::{
    nats::Nats,
    node::{Node, meet, wait_until},
    program::Folder,
};

/// An authority, and a certificate that it signed for 127.0.0.1, as files of the folder.
fn make_certificates(folder: &Folder) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "test authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(["127.0.0.1".to_string()]).unwrap().signed_by(&key, &authority).unwrap();
    folder.write("ca.pem", &authority.pem());
    folder.write("nats.pem", &leaf.pem());
    folder.write("nats-key.pem", &key.serialize_pem());
}

/// The example's configuration of one NATS server, with keys and addresses of this test.
fn example_nats(folder: &Folder, name: &str, keys: &[(&str, String)], route: Option<String>) -> Nats {
    let mut text = fs::read_to_string("config/cluster/nats.conf").unwrap();
    for (old, new) in [
        ("0.0.0.0:4222", "127.0.0.1:-1"),
        ("0.0.0.0:6222", "127.0.0.1:-1"),
        ("server_name: nats-us", &format!("server_name: {name}")),
    ] {
        assert!(text.contains(old), "{old}");
        text = text.replace(old, new);
    }
    // The key of each user is the last one before its permissions.
    for (node, key) in keys {
        let permissions = text.find(&format!("isochrone.{node}.>")).expect("a user for each server");
        let at = text[..permissions].rfind("nkey: \"").expect("an nkey") + 7;
        let end = at + text[at..].find('"').unwrap();
        text.replace_range(at..end, key);
    }
    let (at, end) = (text.find("routes: [").unwrap() + 9, text.find("nats-ap.example.net:6222\"").unwrap() + 25);
    text.replace_range(at..end, &route.map(|route| format!("\"nats-route://{route}\"")).unwrap_or_default());
    Nats::start_with(folder, name, &text)
}

/// The example's configuration of one name server, with addresses of this test.
fn example_node(folder: &Folder, name: &str, key: &str, urls: &str) -> Node {
    let mut text = fs::read_to_string("config/cluster/isochrone.toml").unwrap();
    let folder = folder.path().display();
    for (old, new) in [
        ("\"0.0.0.0:53\", \"[::]:53\"", "\"127.0.0.1:0\""),
        ("/var/lib/isochrone", "state"),
        (
            "\"tls://nats-us.example.net:4222\", \"tls://nats-eu.example.net:4222\", \"tls://nats-ap.example.net:4222\"",
            urls,
        ),
        ("\"nats.key\"", &format!("\"{folder}/{key}.key\"")),
        ("\"ca.pem\"", &format!("\"{folder}/ca.pem\"")),
        ("\"us-1\"", &format!("\"{name}\"")),
        ("[checks.web]", "[admin]\nlisten = \"127.0.0.1:0\"\n[checks.web]"),
    ] {
        assert!(text.contains(old), "{old}");
        text = text.replacen(old, new, 1);
    }
    Node::start_with(name, &text)
}

/// What somebody can do who took the key of `ap-1`: says under the names of others that a region is down, and then under its own what is
/// no message.
fn speak_as_ap(folder: &Folder, nats: SocketAddr) {
    isochrone::health::install_crypto_provider();
    let seed = fs::read_to_string(folder.path().join("ap-1.key")).unwrap();
    let seed = seed.lines().find(|line| line.starts_with("SU")).expect("a seed").to_string();
    let decision =
        r#"{"v":1,"needs":1,"say":{"decisions":[{"counter":9,"node":"eu-1","target":"ap","state":"down"}]}}"#;
    let speak = async {
        let options = async_nats::ConnectOptions::with_nkey(seed).add_root_certificates(folder.path().join("ca.pem"));
        let client = options.connect(format!("tls://{nats}")).await.expect("the key is good");
        for topic in ["health", "latency", "ask", "decide", "to.us-1", "to.eu-1"] {
            for payload in ["garbage", decision] {
                client.publish(format!("isochrone.eu-1.{topic}"), payload.into()).await.unwrap();
            }
        }
        client.publish("isochrone.ap-1.health", "garbage".into()).await.unwrap();
        client.flush().await.unwrap();
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(speak);
}

#[test]
fn the_example_works_and_holds_each_server_to_its_own_name() {
    let folder = Folder::new();
    make_certificates(&folder);
    let make_key = |name: &'static str| {
        let done = folder.run(&["key", "node", "--out", &format!("{name}.key")]);
        assert_eq!(done.code, Some(0), "{done:?}");
        (name, done.stdout.trim().to_string())
    };
    let keys = ["us-1", "eu-1", "ap-1"].map(make_key);
    let first = example_nats(&folder, "nats-us", &keys, None);
    let route = first.routes.expect("a port for routes").to_string();
    let others = ["nats-eu", "nats-ap"].map(|name| example_nats(&folder, name, &keys, Some(route.clone())));
    let urls = [&first, &others[0], &others[1]].map(|nats| format!("\"tls://{}\"", nats.clients)).join(", ");
    let nodes = ["us-1", "eu-1", "ap-1"].map(|name| example_node(&folder, name, name, &urls));
    let [us, eu, ap] = &nodes;
    meet(&[us, eu, ap]);
    us.force("eu", "drain", "");
    wait_until("what was decided on one to hold on all", || ap.status()["regions"][1]["forced"] == "drain");

    // Somebody with the key of another server is not heard under this one's name.
    let false_eu = example_node(&folder, "eu-1", "ap-1", &urls);
    wait_until("NATS to refuse it", || {
        false_eu.cluster()["problem"].as_str().is_some_and(|text| text.to_lowercase().contains("permissions violation"))
    });
    // Nor is anybody without a key that NATS knows.
    make_key("stranger");
    let stranger = example_node(&folder, "us-1", "stranger", &urls);
    wait_until("NATS to refuse it", || {
        stranger.cluster()["error"].as_str().is_some_and(|text| text.contains("refuses the credentials"))
    });
    assert!(stranger.log_count("refuses the credentials") <= 1);
    for node in [us, eu, ap] {
        assert_eq!((node.counting(), &node.cluster()["problem"]), (3, &Value::Null), "{}", node.name);
        assert!(node.cluster()["nodes"].as_array().unwrap().iter().all(|node| node["problem"].is_null()));
    }
    speak_as_ap(&folder, others[1].clients);
    let problem = |of: &str| {
        let nodes = us.cluster()["nodes"].clone();
        nodes.as_array().unwrap().iter().find(|node| node["name"] == of).map(|node| node["problem"].clone())
    };
    // All that was said before has come by then, or never will.
    wait_until("garbage to be told from messages", || {
        problem("ap-1").is_some_and(|problem| problem.to_string().contains("it is no message"))
    });
    assert_eq!((problem("eu-1"), us.counting(), eu.counting()), (Some(Value::Null), 3, 3));
    assert!(us.get("/metrics").contains("isochrone_cluster_rejected_messages_total 1\n"), "{}", us.get("/metrics"));
    assert_eq!(us.status()["regions"][2]["forced"], Value::Null, "nobody decides under another's name");

    // One NATS server less is none too few.
    drop(first);
    wait_until("all to be connected to the other two", || {
        nodes.iter().all(|node| node.cluster()["connected"] == true && node.cluster()["server"] != "nats-us")
    });
    meet(&[us, eu, ap]);
}
