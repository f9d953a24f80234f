//! Measured round trips, from the file to the answer: the whole program with a location database and files of measurements, asked
//! over UDP with client subnets.

#[path = "support/fixture.rs"]
mod fixture;
#[path = "support/mmdb.rs"]
mod mmdb;
#[path = "support/program.rs"]
mod program;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use fixture::{Ask, Fixture};
use hickory_proto::{
    op::Message,
    rr::rdata::opt::{EdnsCode, EdnsOption},
    serialize::binary::BinDecodable,
};
use ipnet::IpNet;
use isochrone::latency::estimator::Room;
use program::{Folder, Program, wait_for};

const CONFIG: &str = r#"
[server]
listen = ["127.0.0.1:0"]
[admin]
listen = "127.0.0.1:0"
[geo]
database = "places.mmdb"
[latency]
measurements = ["rtt.csv"]
[regions.us]
location = { latitude = 39.0, longitude = -77.5 }
endpoints = ["192.0.2.1"]
[regions.eu]
location = { latitude = 50.1, longitude = 8.7 }
endpoints = ["192.0.2.2"]
[regions.ap]
location = { latitude = 1.35, longitude = 103.8 }
endpoints = ["192.0.2.3"]
[zones."geo.example"]
nameservers = ["ns1.example.net.", "ns2.example.net."]
[zones."geo.example".routes."app"]
"#;

const US: &str = "192.0.2.1";
const EU: &str = "192.0.2.2";

/// Germany, Virginia, and a network of two countries.
fn folder(measurements: &str) -> Folder {
    let folder = Folder::with_config(CONFIG);
    let mut writer = mmdb::Writer::new(6, 28);
    writer.put("81.0.0.0/8", &mmdb::nested("DE", "EU", 50.1, 8.7));
    writer.put("2a01::/16", &mmdb::nested("DE", "EU", 50.1, 8.7));
    writer.put("3.0.0.0/8", &mmdb::nested("US", "NA", 39.0, -77.5));
    writer
        .put("90.0.0.0/24", &mmdb::nested("FR", "EU", 48.8, 2.3))
        .put("90.0.1.0/24", &mmdb::nested("ES", "EU", 40.4, -3.7));
    fs::write(folder.path().join("places.mmdb"), writer.finish()).unwrap();
    folder.write("rtt.csv", measurements);
    folder
}

fn serve(measurements: &str) -> (Folder, Program) {
    let folder = folder(measurements);
    let program = folder.start(&["serve", "--config", "isochrone.toml"]);
    (folder, program)
}

/// Address and scope of the answer for a client network.
fn ask(program: &Program, client: &str) -> (String, u8) {
    let reply = program.ask(&Ask::new("app.geo.example", "A").from_client(client).bytes());
    let message = Message::from_bytes(&reply).unwrap();
    let scope = match message.edns.as_ref().unwrap().options().get(EdnsCode::Subnet).unwrap() {
        EdnsOption::Subnet(subnet) => subnet.scope_prefix(),
        _ => panic!("no client subnet in the reply"),
    };
    (message.answers.first().expect("an answer").data.to_string(), scope)
}

/// A metric's value by the beginning of its line.
fn metric(program: &Program, name: &str) -> f64 {
    let (_, page) = program.get("/metrics");
    let line = page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {page}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn fixture(folder: &Folder) -> Fixture {
    let toml = fs::read_to_string(folder.path().join("isochrone.toml")).unwrap();
    Fixture::in_folder(&toml, folder.path())
}

#[test]
fn a_measured_network_gets_its_lowest_region_and_a_scope_of_its_own() {
    let (_folder, program) = serve(
        "network,region,rtt_ms,samples\n81.2.69.0/24,eu,140,12\n81.2.69.0/24,us,95,12\n2a01:4f8::/48,eu,150\n2a01:4f8::/48,us,90\n",
    );
    assert_eq!(ask(&program, "81.2.69.0/24"), (US.into(), 24));
    assert_eq!(ask(&program, "2a01:4f8::/48"), (US.into(), 48));
    assert_eq!(ask(&program, "81.2.68.0/24"), (EU.into(), 24));
    assert_eq!(ask(&program, "81.2.70.0/24").0, EU);
    assert_eq!(ask(&program, "3.80.0.0/24").0, US);
    assert_eq!(metric(&program, "isochrone_latency_measurements "), 4.0);
    assert_eq!(metric(&program, "isochrone_latency_measured_prefixes "), 2.0);
    assert_eq!(metric(&program, "isochrone_latency_coverage_addresses{source=\"measured\"}"), 256.0);
    let told = program.json("/api/v1/explain?name=app.geo.example&client=81.2.69.0/24");
    let candidates = told["candidates"].as_array().unwrap();
    assert_eq!((&candidates[0]["region"], &candidates[0]["source"]), (&"us".into(), &"measured".into()));
    assert_eq!(candidates[0]["samples"], 12);
    assert_eq!(candidates[0]["margin_ms"], 0.0);
    assert!((candidates[0]["estimate_ms"].as_f64().unwrap() - 95.0).abs() < 3.0, "{told}");
    assert!(
        candidates[0]["age_s"].as_u64().is_some() && candidates[0]["uncertainty_ms"].as_f64().unwrap() < 5.0,
        "{told}"
    );
    assert_eq!((&candidates[2]["region"], &candidates[2]["source"]), (&"ap".into(), &"network".into()));
}

#[test]
fn a_replaced_file_is_taken_up_and_a_wrong_one_is_not() {
    let (folder, program) = serve("81.2.69.0/24,eu,140\n81.2.69.0/24,us,95\n");
    assert_eq!(ask(&program, "81.2.69.0/24").0, US);
    folder.write("rtt.csv", "81.2.69.0/24,eu,20\n81.2.69.0/24,us,95\n");
    wait_for("the new measurements", || (ask(&program, "81.2.69.0/24").0 == EU).then_some(()));
    folder.write("rtt.csv", "81.2.69.0/24,eu,140\n81.2.69.0/24,us,95\n81.2.69.0/24,mars,95\n");
    wait_for("the refusal", || (metric(&program, "isochrone_reloads_total{result=\"failure\"}") > 0.0).then_some(()));
    assert_eq!(ask(&program, "81.2.69.0/24").0, EU);
}

#[test]
fn a_wrong_line_stops_the_start_unless_it_is_left_out_by_choice() {
    let text = "network,region,rtt_ms\n81.2.69.0/24,us,95\n81.2.69.0/24,europe,140\n81.2.69.0/99,eu,140\n81.2.69.0/24,eu,130\n";
    let folder = folder(text);
    for command in ["check", "serve"] {
        let done = folder.run(&[command, "--config", "isochrone.toml"]);
        assert_eq!(done.code, Some(2), "{}", done.stderr);
        assert!(done.stderr.contains("rtt.csv:3:14"), "{}", done.stderr);
        assert!(done.stderr.contains("rtt.csv:4:1"), "{}", done.stderr);
        assert!(done.stderr.contains("unknown region `europe`"), "{}", done.stderr);
        assert!(done.stderr.contains("skip-bad-measurements = true"), "{}", done.stderr);
    }
    folder.write("isochrone.toml", &CONFIG.replace("[latency]", "[latency]\nskip-bad-measurements = true"));
    let done = folder.run(&["check", "--config", "isochrone.toml"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("rtt.csv:3:14: unknown region `europe`"), "{}", done.stderr);
    let program = folder.start(&["serve", "--config", "isochrone.toml"]);
    assert_eq!(ask(&program, "81.2.69.0/24").0, US);
    assert_eq!(metric(&program, "isochrone_latency_measurements_rejected{reason=\"wrong-line\"}"), 2.0);
}

#[test]
fn what_is_faster_than_light_in_fibre_is_left_out_and_counted() {
    let (_folder, program) = serve("81.2.69.0/24,eu,30\n81.2.69.0/24,us,20\n");
    assert_eq!(ask(&program, "81.2.69.0/24").0, EU);
    assert_eq!(metric(&program, "isochrone_latency_measurements_rejected{reason=\"faster-than-light\"}"), 1.0);
    assert_eq!(metric(&program, "isochrone_latency_measurements "), 1.0);
}

#[test]
fn a_measured_network_keeps_its_region_until_another_is_clearly_better() {
    let (folder, program) = serve("81.2.69.0/24,eu,90\n81.2.69.0/24,us,100\n");
    let reloads = |program: &Program| metric(program, "isochrone_reloads_total{result=\"success\"}");
    assert_eq!(ask(&program, "81.2.69.0/24").0, EU);
    for (us_ms, chosen) in [(86, EU), (82, EU), (75, US), (87, US), (100, EU)] {
        let before = reloads(&program);
        folder.write("rtt.csv", &format!("81.2.69.0/24,eu,90\n81.2.69.0/24,us,{us_ms}\n"));
        wait_for("the reload", || (reloads(&program) > before).then_some(()));
        assert_eq!(ask(&program, "81.2.69.0/24").0, chosen, "{us_ms} ms");
    }
}

#[test]
fn a_narrow_prefix_goes_its_own_way_inside_a_wide_one() {
    let folder = folder("81.2.0.0/16,eu,140\n81.2.0.0/16,us,95\n81.2.7.0/24,eu,18\n");
    let mut fixture = fixture(&folder);
    let mut chosen = |client: &str| fixture.ask(&Ask::new("app.geo.example", "A").from_client(client)).addresses();
    assert_eq!(chosen("81.2.6.0/24"), [US]);
    assert_eq!(chosen("81.2.7.0/24"), [EU]);
    assert_eq!(chosen("81.2.8.0/24"), [US]);
    assert_eq!(chosen("81.3.0.0/24"), [EU]);
}

#[test]
fn a_measured_network_without_a_place_is_served_by_its_measurements() {
    let folder = folder("100.200.3.0/24,ap,30\n100.200.3.0/24,us,60\n10.1.2.0/24,eu,3\n10.1.2.0/24,us,90\n");
    let mut fixture = fixture(&folder);
    let mut chosen = |client: &str| fixture.ask(&Ask::new("app.geo.example", "A").from_client(client)).addresses();
    assert_eq!(chosen("100.200.3.0/24"), ["192.0.2.3"]);
    assert_eq!(chosen("10.1.2.0/24"), [EU]);
}

#[test]
fn rows_for_a_country_speak_for_all_its_networks() {
    let folder = folder("country:ES,eu,160,50\ncountry:ES,us,75,50\n");
    let fixture = fixture(&folder);
    let request = |client: &str| isochrone::answer::explain::Request {
        name: "app.geo.example".parse().unwrap(),
        qtype: 1,
        client: Some(isochrone::answer::explain::parse_client(client).unwrap()),
    };
    let spain = fixture.world.explain(&request("90.0.1.0/24"));
    let eu = spain.candidates.iter().find(|candidate| candidate.region == "eu").unwrap();
    assert_eq!(eu.source.as_deref(), Some("country"));
    assert_eq!(eu.samples, 50);
    let france = fixture.world.explain(&request("90.0.0.0/24"));
    let eu_of_france = france.candidates.iter().find(|candidate| candidate.region == "eu").unwrap();
    assert!(eu.estimate_ms.unwrap() > eu_of_france.estimate_ms.unwrap() + 15.0, "{spain:?} {france:?}");
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    fn v4(&mut self) -> IpNet {
        IpNet::new(Ipv4Addr::from(self.next() as u32).into(), 10 + (self.next() % 20) as u8).unwrap().trunc()
    }

    fn v6(&mut self) -> IpNet {
        let bits = 0x2a00 << 112 | (u128::from(self.next()) << 64 | u128::from(self.next())) >> 12;
        IpNet::new(Ipv6Addr::from(bits).into(), 20 + (self.next() % 40) as u8).unwrap().trunc()
    }

    fn inside(&mut self, net: IpNet) -> IpAddr {
        let bits = u128::from(self.next()) << 64 | u128::from(self.next());
        match net {
            IpNet::V4(net) => Ipv4Addr::from(net.network().to_bits() | bits as u32 & net.hostmask().to_bits()).into(),
            IpNet::V6(net) => Ipv6Addr::from(net.network().to_bits() | bits & net.hostmask().to_bits()).into(),
        }
    }
}

#[test]
fn the_compiled_map_is_the_direct_estimate_for_measured_addresses_too() {
    let mut random = Random(3);
    let mut nets = Vec::new();
    let mut rows = String::new();
    for n in 0..3000_usize {
        let net = if n % 3 == 0 { random.v6() } else { random.v4() };
        nets.push(net);
        for (_, region) in ["us", "eu", "ap"].iter().enumerate().filter(|(k, _)| !(n + k).is_multiple_of(5)) {
            rows += &format!("{net},{region},{}\n", 1 + random.next() % 400);
        }
    }
    let folder = folder(&rows);
    let toml =
        CONFIG.replace("database = \"places.mmdb\"", "").replace("[latency]", "[latency]\nswitch-margin = \"0ms\"");
    let world = Fixture::in_folder(&toml, folder.path()).world;
    assert!(world.estimator.counts().prefixes > 2000 && world.estimator.counts().impossible > 100);
    let map = &world.plan.maps[world.plan.routes[0].map];
    let (mut room, mut ms, mut unknown) = (Room::default(), vec![0.0; 3], 0);
    for n in 0..100_000 {
        let address = match n % 4 {
            0 => Ipv4Addr::from(random.next() as u32).into(),
            _ => random.inside(nets[random.0 as usize % nets.len()]),
        };
        let place = world.locations.lookup(address).unwrap_or_default();
        let client = world.estimator.client(address, None);
        let ranking = map.locate(address).entry.ranking;
        if !world.estimator.fill(&place, client, &mut room, &mut ms) {
            assert_eq!(ranking, None, "{address}");
            unknown += 1;
            continue;
        }
        let mut order: Vec<usize> = (0..3).collect();
        order.sort_by(|a, b| ms[*a].total_cmp(&ms[*b]));
        let ranked: Vec<usize> = map.ranking(ranking.expect("it is known")).iter().map(|r| r.index()).collect();
        assert_eq!(ranked, order, "{address} {ms:?} {client:?}");
    }
    assert!(unknown < 50_000, "{unknown}");
}

#[test]
fn neighbours_share_a_ranking_within_the_margin_only_where_the_best_region_is_the_same() {
    // Madrid's network by itself: us 96, eu 97; its neighbour: eu first, then us, well within the margin.
    let folder = folder(
        "90.0.1.0/24,us,96\n90.0.1.0/24,eu,97\n90.0.1.0/24,ap,260\n90.0.0.0/24,eu,95\n90.0.0.0/24,us,96\n90.0.0.0/24,ap,250\n",
    );
    let mut fixture = fixture(&folder);
    let mut chosen = |client: &str| fixture.ask(&Ask::new("app.geo.example", "A").from_client(client)).addresses();
    assert_eq!(chosen("90.0.0.0/24"), [EU]);
    assert_eq!(chosen("90.0.1.0/24"), [US]);
}

#[test]
fn evaluate_judges_the_estimates_by_networks_that_were_held_out() {
    let mut rows = String::from("network,region,rtt_ms\n");
    for n in 0..60 {
        // German networks reach Virginia by a detour, which some of them have in common.
        rows += &format!("81.{n}.0.0/24,eu,{}\n81.{n}.0.0/24,us,{}\n", 15 + n % 5, 150 + n % 7);
    }
    let folder = folder(&rows);
    let arguments = ["latency", "evaluate", "--measurements", "rtt.csv", "--config", "isochrone.toml"];
    let done = folder.run(&[&arguments[..], &["--json", "--svg", "rtt.svg"]].concat());
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let told: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((told["networks"].as_u64(), told["round_trips"].as_u64()), (Some(60), Some(120)));
    let score = |name: &str| told["scores"].as_array().unwrap().iter().find(|s| s["method"] == name).unwrap().clone();
    for name in ["estimates", "two-measured", "three-measured", "distance", "continent-map"] {
        assert_eq!(score(name)["share_right"].as_f64(), Some(1.0), "{name}: {told}");
    }
    assert!(told["error_mean_ms"].as_f64().unwrap() < 10.0, "{told}");
    let drawn = fs::read_to_string(folder.path().join("rtt.svg")).unwrap();
    assert_eq!(drawn.matches("<circle").count(), 120);
    let shown = folder.run(&arguments);
    assert!(shown.stdout.contains("60 judged, 0 left out"), "{}", shown.stdout);
    assert!(shown.stdout.contains("continent map"), "{}", shown.stdout);
}

#[test]
fn evaluate_says_when_there_is_nothing_to_judge() {
    let folder = folder("81.2.69.0/24,eu,20\n100.200.3.0/24,eu,9\n100.200.3.0/24,us,90\n");
    let done = folder.run(&["latency", "evaluate", "--measurements", "rtt.csv", "--config", "isochrone.toml"]);
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.contains("2 were left out"), "{}", done.stderr);
}
