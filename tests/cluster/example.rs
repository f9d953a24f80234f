//! The example in `config/cluster/`, with keys, certificates and addresses of the test.

use std::fs;

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
    // One NATS server less is none too few.
    drop(first);
    wait_until("all to be connected to the other two", || {
        nodes.iter().all(|node| node.cluster()["connected"] == true && node.cluster()["server"] != "nats-us")
    });
    meet(&[us, eu, ap]);
}
