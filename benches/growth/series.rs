//! What grows, in which steps, and what is asked at each.

use std::{fmt::Write, rc::Rc};

use isochrone::zone::sign::KeyPair;

use crate::{
    mmdb::{Writer, nested},
    queries::{Chance, Query},
};

/// Queries of one measurement.
pub const QUERIES: usize = 100_000;

/// Networks of the made-up city database: about the ranges that a real one leaves for three regions, with nothing to merge.
const CITY_NETWORKS: usize = 300_000;

/// One thing that grows.
pub struct Series {
    pub name: &'static str,
    pub sizes: Vec<Size>,
}

/// One size of it.
pub struct Size {
    pub label: String,
    pub config: String,
    /// Beside the configuration: name and content.
    pub files: Vec<(&'static str, Rc<Vec<u8>>)>,
    /// A name that is answered.
    pub known: String,
    pub messages: Rc<Vec<Vec<u8>>>,
}

/// All series.
pub fn all() -> Vec<Series> {
    vec![routes(), zones(), regions(), database(), answers(), signatures()]
}

const SERVER: &str = "[server]\nlisten = [\"127.0.0.1:0\"]\nthreads = 1\n[admin]\nlisten = \"\"\n";
const ZONE: &str = "nameservers = [\"ns1.example.net.\"]\n";

/// Three regions on three continents.
fn three_regions() -> String {
    let sites = ["aws:us-east-1", "aws:eu-central-1", "aws:ap-southeast-1"];
    sites.iter().enumerate().fold(SERVER.to_string(), |mut text, (n, site)| {
        writeln!(text, "[regions.r{n}]\nlocation = \"{site}\"\nendpoints = [\"192.0.2.{n}\"]").expect("text");
        text
    })
}

/// `QUERIES` with a client subnet each; names from `name`.
fn messages(name: impl Fn(&mut Chance) -> String) -> Rc<Vec<Vec<u8>>> {
    let mut chance = Chance::new(5);
    let one = |n| {
        let name = name(&mut chance);
        Query::new(name).client(chance.network()).bytes(n as u16)
    };
    Rc::new((0..QUERIES).map(one).collect())
}

fn size(label: impl ToString, config: String, known: &str, messages: Rc<Vec<Vec<u8>>>) -> Size {
    Size { label: label.to_string(), config, files: Vec::new(), known: known.into(), messages }
}

fn routes() -> Series {
    let of = |count: usize| {
        let mut config = three_regions() + "[zones.\"example.com\"]\n" + ZONE;
        (0..count).for_each(|n| writeln!(config, "[zones.\"example.com\".routes.\"*.app{n:05}\"]").expect("text"));
        let name = |chance: &mut Chance| format!("{}.app{:05}.example.com", chance.label(), chance.below(count));
        size(count, config, "h.app00000.example.com", messages(name))
    };
    Series { name: "routes", sizes: [1, 10, 100, 1000, 10_000, 100_000].map(of).into() }
}

fn zones() -> Series {
    let of = |count: usize| {
        let mut config = three_regions();
        (0..count).for_each(|n| {
            writeln!(config, "[zones.\"z{n:04}.example\"]\n{ZONE}[zones.\"z{n:04}.example\".routes.\"*.app\"]")
                .expect("text");
        });
        let name = |chance: &mut Chance| format!("{}.app.z{:04}.example", chance.label(), chance.below(count));
        size(count, config, "h.app.z0000.example", messages(name))
    };
    Series { name: "zones", sizes: [1, 10, 100, 1000, 10_000].map(of).into() }
}

fn app_messages() -> Rc<Vec<Vec<u8>>> {
    messages(|chance| format!("{}.app.example.com", chance.label()))
}

fn app_zone(keys: &str) -> String {
    format!("[zones.\"example.com\"]\n{ZONE}{keys}[zones.\"example.com\".routes.\"*.app\"]\n")
}

const APP: &str = "h.app.example.com";

fn regions() -> Series {
    let messages = app_messages();
    let of = |count: usize| {
        let mut config = SERVER.to_string();
        for n in 0..count {
            // Evenly over the globe: a spiral of golden angles.
            let latitude = (1.0 - (2.0 * n as f64 + 1.0) / count as f64).asin().to_degrees();
            let longitude = (n as f64 * 137.507_764).rem_euclid(360.0) - 180.0;
            let (third, fourth) = (n / 250, n % 250);
            writeln!(
                config,
                "[regions.r{n}]\nlocation = {{ latitude = {latitude:.4}, longitude = {longitude:.4} }}\n\
                 endpoints = [\"198.18.{third}.{fourth}\"]"
            )
            .expect("text");
        }
        size(count, config + &app_zone(""), APP, messages.clone())
    };
    Series { name: "regions", sizes: [3, 10, 30, 100, 200].map(of).into() }
}

fn database() -> Series {
    let (real, messages) = (std::env::var("BENCH_MMDB").ok(), app_messages());
    let config = three_regions() + &app_zone("");
    let label = if real.is_some() { "city (BENCH_MMDB)" } else { "city (made up)" };
    let bytes =
        real.map_or_else(city_database, |path| std::fs::read(path).expect("the database that BENCH_MMDB names"));
    let with_city = config.clone() + "[geo]\ndatabase = \"city.mmdb\"\n";
    let city = size(label, with_city, APP, messages.clone());
    let city = Size { files: vec![("city.mmdb", Rc::new(bytes))], ..city };
    Series { name: "database", sizes: vec![size("built-in table", config, APP, messages), city] }
}

/// Networks of all lengths that city databases have, each at one of 20,000 places.
fn city_database() -> Vec<u8> {
    let mut chance = Chance::new(6);
    let mut writer = Writer::new(6, 28);
    let places: Vec<(f64, f64)> = (0..20_000)
        .map(|_| (chance.below(130_000) as f64 / 1000.0 - 55.0, chance.below(360_000) as f64 / 1000.0 - 180.0))
        .collect();
    let place = |chance: &mut Chance| {
        let (latitude, longitude) = places[chance.below(places.len())];
        nested("DE", "EU", latitude, longitude)
    };
    for _ in 0..CITY_NETWORKS {
        let len = 18 + chance.below(7);
        let net = ipnet::Ipv4Net::new(chance.network(), len as u8).expect("a length").trunc();
        writer.put(&net.to_string(), &place(&mut chance));
    }
    writer.finish()
}

fn answers() -> Series {
    let messages = app_messages();
    let of = |count: usize| {
        let list = |region: usize| {
            let address = |n| format!("\"198.18.{region}.{n}\"");
            (0..count).map(address).collect::<Vec<_>>().join(", ")
        };
        let config = (0..3)
            .fold(three_regions(), |config, region| config.replace(&format!("\"192.0.2.{region}\""), &list(region)));
        size(count, config + &app_zone(""), APP, messages.clone())
    };
    Series { name: "answers", sizes: [1, 2, 4, 8].map(of).into() }
}

fn signatures() -> Series {
    let mut chance = Chance::new(7);
    let one = |n| {
        let name = format!("{}.app.example.com", chance.label());
        Query::new(name).client(chance.network()).dnssec().bytes(n as u16)
    };
    let messages = Rc::new((0..QUERIES).map(one).collect::<Vec<_>>());
    let zone = "example.com".parse().expect("a name");
    let (_, key) = KeyPair::generate(&zone).expect("a random source");
    let unsigned = size("unsigned", three_regions() + &app_zone(""), APP, messages.clone());
    let signed = size("signed", three_regions() + &app_zone("dnssec-key = \"zone.key\"\n"), APP, messages);
    let signed = Size { files: vec![("zone.key", Rc::new(key.into_bytes()))], ..signed };
    Series { name: "signatures", sizes: vec![unsigned, signed] }
}
