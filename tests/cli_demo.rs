//! The newcomer's first minute, as the demo itself prints it: three regions, one fails, its clients move, it comes back.

#[path = "support/fixture.rs"]
mod fixture;
#[path = "support/program.rs"]
mod program;

use std::net::{SocketAddr, TcpStream};

use fixture::Ask;
use hickory_proto::{op::Message, serialize::binary::BinDecodable};
use program::{Folder, Program, http, wait_for};

/// Where the printed `dig` lines lead: network and answer of each city.
fn cities(tour: &str) -> Vec<(String, String)> {
    let lines: Vec<&str> = tour.lines().collect();
    let pairs = lines.windows(2).filter(|pair| pair[1].contains("+subnet="));
    let city = |pair: &[&str]| {
        let network = pair[1].split("+subnet=").nth(1)?.split(' ').next()?;
        let address = pair[0].trim().strip_prefix("# ")?.split(' ').nth(1)?;
        Some((network.to_string(), address.to_string()))
    };
    pairs.map(|pair| city(pair).unwrap_or_else(|| panic!("{pair:?}"))).collect()
}

fn answer(demo: &Program, network: &str) -> String {
    let reply = demo.ask(&Ask::new("app.geo.example", "A").from_client(network).bytes());
    let message = Message::from_bytes(&reply).unwrap();
    assert_eq!(message.answers.len(), 1, "{message:?}");
    message.answers[0].data.to_string()
}

/// Does what a printed `curl -X POST` line says.
fn post(line: &str) -> String {
    let (server, path) = line.trim().strip_prefix("curl -X POST http://").unwrap().split_once('/').unwrap();
    let (status, body) = http(server.parse().unwrap(), "POST", &format!("/{path}"));
    assert_eq!(status, 200, "{line}: {body}");
    body
}

#[test]
fn the_tour_is_true() {
    let mut demo = Folder::new().start(&["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let tour = wait_for("the tour", || Some(demo.stdout()).filter(|text| text.contains("Ctrl-C ends it.")));
    let cities = cities(&tour);
    let curl: Vec<&str> = tour.lines().filter(|line| line.contains("curl -X POST")).collect();
    assert_eq!((cities.len(), curl.len()), (3, 2), "{tour}");
    assert!(tour.contains(&format!("dig @127.0.0.1 -p {} app.geo.example A", demo.dns.port())), "{tour}");
    wait_for("the first round", || (demo.get("/readyz").0 == 200).then_some(()));
    for (network, address) in &cities {
        assert_eq!(&answer(&demo, network), address, "{network}");
    }

    let ([us, eu, _], [stop, start]) = (&cities[..], &curl[..]) else { panic!("{tour}") };
    let stand_in: SocketAddr = tour
        .lines()
        .find_map(|line| line.trim().strip_prefix("eu  http://")?.split('/').next())
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(http(stand_in, "GET", "/").1, "hello from eu\n");
    assert_eq!(http(stand_in, "GET", "/health").0, 200);

    assert_eq!(post(stop), "eu is stopped: connections to it are refused\n");
    assert!(TcpStream::connect(stand_in).is_err(), "its socket is closed");
    wait_for("the failover", || (answer(&demo, &eu.0) == us.1).then_some(()));
    demo.wait_for_log("the failover's line", |line| {
        let told = line["message"].as_str().unwrap_or_default();
        told.starts_with("clients in Frankfurt: eu -> us (eu is down: ") && told.ends_with(": connection refused)")
    });
    assert_eq!(answer(&demo, &us.0), us.1);
    assert_eq!(post(stop), "eu is stopped already\n");

    assert_eq!(post(start), "eu runs again\n");
    wait_for("the return", || (answer(&demo, &eu.0) == eu.1).then_some(()));
    assert_eq!(post(start), "eu runs already\n");

    demo.signal("INT");
    assert_eq!(demo.ended().code(), Some(0), "{}", demo.stderr());
}

#[test]
fn what_print_config_prints_is_a_sound_configuration() {
    let folder = Folder::new();
    let done = folder.run(&["demo", "--print-config", "--listen", "127.0.0.1:5353"]);
    assert_eq!(done.code, Some(0), "{done:#?}");
    assert!(done.stdout.contains("listen = [\"127.0.0.1:5353\"]"), "{done:#?}");
    folder.write("isochrone.toml", &done.stdout);
    let done = folder.run(&["check", "--config", "isochrone.toml"]);
    assert_eq!(done.stdout, "ok: 3 regions, 1 zone, 2 routes\n", "{done:#?}");
}

#[test]
fn an_address_that_is_taken_is_told_with_the_flag_that_helps() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    for (flag, other) in [("--listen", "--admin"), ("--admin", "--listen")] {
        let done = Folder::new().run(&["demo", flag, &taken, other, "127.0.0.1:0"]);
        assert_eq!(done.code, Some(1), "{done:#?}");
        assert!(done.stderr.contains(&format!(" {taken}")), "{done:#?}");
        assert!(done.stderr.contains(&format!("choose another address, such as `{flag} 127.0.0.1:")), "{done:#?}");
    }
}
