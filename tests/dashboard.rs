//! The dashboard's files and its stream of events, as any HTTP client sees them. What a browser makes of them: `tests/long/browser`.

#[path = "support/fixture.rs"]
mod fixture;
#[path = "support/program.rs"]
mod program;

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
};

use fixture::Ask;
use program::{Folder, PATIENCE, Program, wait_for};
use serde_json::Value;

const CONFIG: &str = r#"
[server]
listen = ["127.0.0.1:0"]
[admin]
listen = "127.0.0.1:0"
[regions.us]
location = "aws:us-east-1"
endpoints = ["192.0.2.1"]
[regions.eu]
location = "aws:eu-central-1"
endpoints = ["192.0.2.2"]
[zones."geo.example"]
nameservers = ["ns1.example.net."]
[zones."geo.example".routes."*.app"]
"#;

fn start(folder: &Folder) -> Program {
    folder.start(&["serve", "--config", "isochrone.toml"])
}

/// The events of a stream, name and data.
fn follow(server: &Program) -> impl Iterator<Item = (String, Value)> + use<> {
    let mut stream = TcpStream::connect(server.admin).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET /api/v1/events HTTP/1.1\r\nhost: {}\r\n\r\n", server.admin).unwrap();
    let mut lines = BufReader::new(stream).lines().map(|line| line.expect("the stream goes on"));
    let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    assert!(head[0].contains(" 200 ") && head.contains(&"content-type: text/event-stream".to_string()), "{head:?}");
    let mut name = String::new();
    lines.filter_map(move |line| {
        if let Some(event) = line.strip_prefix("event: ") {
            name = event.to_string();
        }
        line.strip_prefix("data: ").map(|data| (name.clone(), serde_json::from_str(data).unwrap()))
    })
}

#[test]
fn the_page_asks_nothing_of_anybody_else() {
    let folder = Folder::with_config(CONFIG);
    let server = start(&folder);
    for (path, part) in [
        ("/", "IP Geolocation by DB-IP"),
        ("/page/script.js", "EventSource"),
        ("/page/style.css", "prefers-color-scheme"),
        ("/page/icon.svg", "<svg"),
    ] {
        let (status, text) = server.get(path);
        assert_eq!(status, 200, "{path}");
        assert!(text.contains(part), "{path}");
        let foreign = text
            .match_indices("http")
            .map(|(at, _)| &text[at..])
            .filter(|rest| rest.starts_with("http://") || rest.starts_with("https://"));
        // The name of a vocabulary is never fetched, nor is a link that nobody follows.
        let foreign: Vec<_> = foreign
            .filter(|rest| !rest.starts_with("http://www.w3.org/") && !rest.starts_with("https://db-ip.com\""))
            .collect();
        assert!(foreign.is_empty(), "{path}: {}", &foreign[0][..40]);
    }
    assert!(!server.get("/").1.contains("@LAND@"), "the map is in the page");
}

#[test]
fn the_stream_tells_the_status_where_queries_come_from_and_every_change() {
    let folder = Folder::with_config(CONFIG);
    let server = start(&folder);
    for n in 0..1500 {
        let client = ["81.2.69.0/24", "8.8.8.0/24", "202.12.29.0/24"][n % 3];
        server.ask(&Ask::new("www.app.geo.example", "A").from_client(client).bytes());
    }
    let countries = wait_for("samples", || {
        let traffic = server.json("/api/v1/traffic");
        let sources = traffic["sources"].as_array().unwrap();
        let countries: Vec<_> = sources.iter().map(|source| source["country"].as_str().unwrap().to_string()).collect();
        let shares: f64 = sources.iter().map(|source| source["share"].as_f64().unwrap()).sum();
        assert!(sources.is_empty() || (shares - 1.0).abs() < 1e-6, "{traffic}");
        (traffic["sampled"].as_u64().unwrap() >= 9).then_some(countries)
    });
    assert!(["AU", "GB", "US"].iter().all(|country| countries.contains(&country.to_string())), "{countries:?}");

    let mut events = follow(&server);
    let (name, status) = events.next().unwrap();
    assert_eq!((name.as_str(), status["regions"][1]["name"].as_str()), ("status", Some("eu")));
    assert_eq!(status["queries"]["total"].as_u64(), Some(1500));
    let (name, traffic) = events.next().unwrap();
    assert_eq!((name.as_str(), traffic["sources"].as_array().unwrap().len()), ("traffic", countries.len()));
    let done = folder.run(&["drain", "eu", "--reason", "new switch", "--admin", &server.admin_url()]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let drained = events.find(|(name, status)| name == "status" && status["regions"][1]["forced"] == "drain");
    assert_eq!(drained.unwrap().1["regions"][1]["forced_reason"].as_str(), Some("new switch"));
}

#[test]
fn too_many_followers_are_told_so_and_those_that_leave_make_room() {
    let folder = Folder::with_config(CONFIG);
    let server = start(&folder);
    let mut followers: Vec<_> = (0..16).map(|_| follow(&server)).collect();
    followers.iter_mut().for_each(|follower| assert!(follower.next().is_some()));
    let (status, body) = server.get("/api/v1/events");
    assert_eq!(status, 503);
    assert!(body.contains("16 followers are there already"), "{body}");
    followers.clear();
    wait_for("room", || {
        let mut stream = TcpStream::connect(server.admin).unwrap();
        write!(stream, "GET /api/v1/events HTTP/1.1\r\nhost: {}\r\n\r\n", server.admin).unwrap();
        let mut first = String::new();
        BufReader::new(stream).read_line(&mut first).unwrap();
        first.contains(" 200 ").then_some(())
    });
}
