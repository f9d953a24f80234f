//! Measured round trips, from the file to the answer: the whole program with a location database and files of measurements, asked
//! over UDP with client subnets.

#![allow(clippy::disallowed_methods)] // it tells the time

#[path = "support/fixture.rs"]
mod fixture;
#[path = "support/mmdb.rs"]
mod mmdb;
#[path = "support/program.rs"]
mod program;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, SystemTime},
};

use fixture::{Ask, Fixture};
use hickory_proto::{
    op::Message,
    rr::rdata::opt::{EdnsCode, EdnsOption},
    serialize::binary::BinDecodable,
};
use ipnet::IpNet;
use isochrone::{
    geo::Coordinates,
    latency::{estimator::Room, model},
};
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
fn what_was_measured_grows_older_and_counts_less_though_no_file_is_replaced() {
    let folder = folder("81.2.69.0/24,eu,140,3\n81.2.69.0/24,us,95,3\n");
    let world = fixture(&folder).world;
    let request = isochrone::answer::explain::Request {
        name: "app.geo.example".parse().unwrap(),
        qtype: 1,
        client: Some(isochrone::answer::explain::parse_client("81.2.69.0/24").unwrap()),
    };
    let mut before = (0.0, 0.0);
    for days in [0, 90, 180] {
        let age = Duration::from_secs(days * 86_400);
        let later = world.with_measurements(Vec::new(), &[], SystemTime::now() + age).unwrap();
        let told = later.explain(&request).candidates;
        let eu = told.iter().find(|candidate| candidate.region == "eu").unwrap();
        let age_s = eu.age_s.unwrap();
        assert!((age.as_secs()..age.as_secs() + 3600).contains(&age_s), "{age_s} s after {days} days");
        // Off what was measured, towards what the model says of a network in Germany.
        let (faded_ms, uncertainty_ms) = (140.0 - eu.estimate_ms.unwrap(), eu.uncertainty_ms.unwrap());
        assert!(faded_ms > before.0 && uncertainty_ms > before.1, "{days} days: {eu:?}");
        before = (faded_ms, uncertainty_ms);
    }
    assert_eq!(world.measured_ago_s(world.measured_s + 500), 500);
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
fn measured_neighbours_share_a_ranking_only_where_the_best_region_is_the_same() {
    // Madrid's network by itself: us 96, eu 97; its neighbour: eu first, then us, well within the margin.
    let folder = folder(
        "90.0.1.0/24,us,96\n90.0.1.0/24,eu,97\n90.0.1.0/24,ap,260\n90.0.0.0/24,eu,95\n90.0.0.0/24,us,96\n90.0.0.0/24,ap,250\n",
    );
    let mut fixture = fixture(&folder);
    let mut chosen = |client: &str| fixture.ask(&Ask::new("app.geo.example", "A").from_client(client)).addresses();
    assert_eq!(chosen("90.0.0.0/24"), [EU]);
    assert_eq!(chosen("90.0.1.0/24"), [US]);
}

/// Regions of the made-up world.
const SITES: [(&str, f64, f64); 8] = [
    ("ashburn", 39.0, -77.5),
    ("oregon", 45.8, -119.7),
    ("frankfurt", 50.1, 8.7),
    ("dublin", 53.3, -6.3),
    ("singapore", 1.35, 103.8),
    ("tokyo", 35.6, 139.7),
    ("saopaulo", -23.5, -46.6),
    ("sydney", -33.9, 151.2),
];
/// Countries, each with the place that its cities lie around.
const COUNTRIES: [(&str, &str, f64, f64); 14] = [
    ("DE", "EU", 51.0, 10.0),
    ("ES", "EU", 40.0, -4.0),
    ("TR", "AS", 39.0, 35.0),
    ("EG", "AF", 29.0, 31.0),
    ("NG", "AF", 9.0, 8.0),
    ("ZA", "AF", -28.0, 25.0),
    ("IN", "AS", 22.0, 78.0),
    ("CN", "AS", 33.0, 112.0),
    ("ID", "AS", -5.0, 115.0),
    ("NZ", "OC", -40.0, 175.0),
    ("CO", "SA", 4.0, -73.0),
    ("AR", "SA", -34.0, -62.0),
    ("MX", "NA", 22.0, -101.0),
    ("US", "NA", 38.0, -95.0),
];
const CITIES_EACH: usize = 5;

/// Cities in several countries, each with one /24, all in a row but neighbours nowhere near each other; and what it truly takes from
/// each to each region: what the distance takes, the detour that a country's networks make to a region, and the network's own.
struct MadeUp {
    cities: Vec<(usize, Coordinates)>,
    truth_ms: Vec<Vec<f32>>,
}

impl MadeUp {
    fn new() -> MadeUp {
        let mut random = Random(20);
        let mut share = || (random.next() >> 40) as f32 / (1 << 24) as f32;
        let detours: Vec<Vec<f32>> = COUNTRIES
            .iter()
            .map(|_| SITES.iter().map(|_| if share() < 0.4 { 25.0 + 90.0 * share() } else { 6.0 * share() }).collect())
            .collect();
        let mut cities: Vec<(usize, Coordinates)> = Vec::new();
        for n in 0..COUNTRIES.len() * CITIES_EACH {
            let (.., latitude, longitude) = COUNTRIES[n % COUNTRIES.len()];
            let (north, east) = (6.0 * share() - 3.0, 6.0 * share() - 3.0);
            cities.push((
                n % COUNTRIES.len(),
                Coordinates { latitude: latitude as f32 + north, longitude: longitude as f32 + east },
            ));
        }
        for n in (1..cities.len()).rev() {
            cities.swap(n, (share() * (n + 1) as f32) as usize);
        }
        let mut truth = |(country, at): &(usize, Coordinates)| {
            let ms = |(site, detour): (usize, &f32)| model::rtt_ms(km(*at, site)) + detour + 8.0 * share();
            detours[*country].iter().enumerate().map(ms).collect()
        };
        let truth_ms = cities.iter().map(&mut truth).collect();
        MadeUp { cities, truth_ms }
    }

    fn network(&self, city: usize) -> String {
        format!("20.0.{city}.0/24")
    }

    /// The regions in the order of their distance.
    fn by_distance(&self, city: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..SITES.len()).collect();
        order.sort_by(|a, b| km(self.cities[city].1, *a).total_cmp(&km(self.cities[city].1, *b)));
        order
    }

    fn lowest(&self, city: usize, of: &[usize]) -> usize {
        let ms = |region: &usize| self.truth_ms[city][*region];
        *of.iter().min_by(|a, b| ms(a).total_cmp(&ms(b))).unwrap()
    }

    /// What each city loses on the average with these regions.
    fn regret_ms(&self, chosen: &[usize]) -> f32 {
        let lost = |(city, region): (usize, &usize)| {
            self.truth_ms[city][*region] - self.truth_ms[city].iter().copied().fold(f32::INFINITY, f32::min)
        };
        chosen.iter().enumerate().map(lost).sum::<f32>() / chosen.len() as f32
    }

    /// A server whose database places the networks, and that knows each one's round trips to the first `measured` regions by distance.
    fn serve(&self, measured: usize, switch_margin: &str) -> (Folder, Program) {
        let site = |(n, (name, latitude, longitude)): (usize, &(&str, f64, f64))| {
            format!(
                "[regions.{name}]\nlocation = {{ latitude = {latitude}, longitude = {longitude} }}\nendpoints = [\"192.0.2.{n}\"]\n"
            )
        };
        let (before, after) = (CONFIG.find("[regions.us]").unwrap(), CONFIG.find("[zones").unwrap());
        let sites: String = SITES.iter().enumerate().map(site).collect();
        let config = format!("{}switch-margin = \"{switch_margin}\"\n{sites}{}", &CONFIG[..before], &CONFIG[after..]);
        let folder = Folder::with_config(&config);
        let mut writer = mmdb::Writer::new(6, 28);
        let mut rows = String::from("network,region,rtt_ms\n");
        for (city, (country, at)) in self.cities.iter().enumerate() {
            let (code, continent, ..) = COUNTRIES[*country];
            let record = mmdb::nested(code, continent, at.latitude.into(), at.longitude.into());
            writer.put(&self.network(city), &record);
            for region in &self.by_distance(city)[..measured] {
                rows += &format!("{},{},{:.2}\n", self.network(city), SITES[*region].0, self.truth_ms[city][*region]);
            }
        }
        fs::write(folder.path().join("places.mmdb"), writer.finish()).unwrap();
        folder.write("rtt.csv", &rows);
        let program = folder.start(&["serve", "--config", "isochrone.toml"]);
        (folder, program)
    }

    /// The region that each city's network is answered with. Throughout a scope there is one answer, with that scope, and none reaches beyond the cities.
    fn answers(&self, program: &Program) -> Vec<usize> {
        let told: Vec<(String, u8)> = (0..self.cities.len()).map(|city| ask(program, &self.network(city))).collect();
        for (city, (answer, scope)) in told.iter().enumerate() {
            let width = 1 << 24_u8.saturating_sub(*scope);
            let first = city / width * width;
            assert!(*scope <= 24 && first + width <= told.len(), "{}: /{scope}", self.network(city));
            let is_one = told[first..first + width].iter().all(|within| within == &(answer.clone(), *scope));
            assert!(is_one, "{} and its /{scope}: {:?}", self.network(city), &told[first..first + width]);
        }
        told.iter().map(|(answer, _)| answer.rsplit('.').next().unwrap().parse().unwrap()).collect()
    }
}

fn km(at: Coordinates, site: usize) -> f64 {
    let (_, latitude, longitude) = SITES[site];
    at.distance_km(Coordinates { latitude: latitude as f32, longitude: longitude as f32 })
}

#[test]
fn networks_that_nobody_measured_get_their_nearest_region_whatever_the_margin() {
    let world = MadeUp::new();
    let nearest: Vec<usize> = (0..world.cities.len()).map(|city| world.by_distance(city)[0]).collect();
    for margin in ["0ms", "5ms", "200ms"] {
        assert_eq!(world.answers(&world.serve(0, margin).1), nearest, "{margin}");
    }
}

#[test]
fn two_or_three_measured_regions_take_away_most_of_what_distance_loses() {
    let world = MadeUp::new();
    let everybody = || 0..world.cities.len();
    let by_distance = world.regret_ms(&everybody().map(|city| world.by_distance(city)[0]).collect::<Vec<_>>());
    assert!(by_distance > 5.0, "there must be something to win: {by_distance}");
    for (measured, share) in [(2, 0.5), (3, 0.25)] {
        let answers = world.answers(&world.serve(measured, "5ms").1);
        let mut clear = 0;
        for (city, answer) in answers.iter().enumerate() {
            let order = world.by_distance(city);
            let (known, unknown) = order.split_at(measured);
            let lowest = world.lowest(city, known);
            let ms = world.truth_ms[city][lowest];
            let others = known.iter().filter(|region| **region != lowest).map(|region| world.truth_ms[city][*region]);
            let unknown = unknown.iter().map(|region| model::rtt_ms(km(world.cities[city].1, *region)));
            if others.chain(unknown).all(|other| other > ms + 5.0) {
                clear += 1;
                assert_eq!(*answer, lowest, "{} of {measured} measured", world.network(city));
            }
        }
        assert!(clear > world.cities.len() / 3, "{clear}");
        let lowest_known: Vec<usize> =
            everybody().map(|city| world.lowest(city, &world.by_distance(city)[..measured])).collect();
        let (regret, without) = (world.regret_ms(&answers), world.regret_ms(&lowest_known));
        println!("{measured} measured: {regret} ms lost, {without} by the lower of them, {by_distance} by distance");
        assert!(regret <= without && regret < share * by_distance, "{regret} {without}");
    }
}

#[test]
fn known_detours_move_networks_that_nobody_measured_only_by_choice() {
    let folder = folder("network,region,rtt_ms\n");
    let mut writer = mmdb::Writer::new(6, 28);
    // Nearer to Dubai than to Frankfurt, with the cables leading to Europe.
    writer.put("110.0.0.0/16", &mmdb::nested("IL", "AS", 32.1, 34.8));
    writer.put("81.0.0.0/8", &mmdb::nested("DE", "EU", 50.1, 8.7));
    fs::write(folder.path().join("places.mmdb"), writer.finish()).unwrap();
    let (near, far) = ("latitude = 1.35, longitude = 103.8", "latitude = 25.2, longitude = 55.3");
    let config = CONFIG.replace(near, far);
    folder.write("isochrone.toml", &config);
    let program = folder.start(&["serve", "--config", "isochrone.toml"]);
    assert_eq!(ask(&program, "110.0.1.0/24").0, "192.0.2.3");
    folder.write("isochrone.toml", &config.replace("[latency]", "[latency]\ndetours = true"));
    program.signal("HUP");
    wait_for("the detour to count", || (ask(&program, "110.0.1.0/24").0 == EU).then_some(()));
    assert_eq!(ask(&program, "81.2.69.0/24").0, EU);
}

#[test]
fn scopes_end_where_a_measured_part_of_a_network_begins() {
    let (_folder, program) =
        serve("81.2.69.64/26,eu,140\n81.2.69.64/26,us,95\n2a01:4f8:0:4000::/50,eu,150\n2a01:4f8:0:4000::/50,us,90\n");
    for (client, answer, scope) in [
        ("81.2.69.64/26", US, 26),
        ("81.2.69.100/32", US, 26),
        ("81.2.69.0/26", EU, 26),
        ("81.2.69.0/24", EU, 26),
        ("81.2.69.128/25", EU, 25),
        ("81.2.69.200/32", EU, 25),
        ("81.2.68.0/24", EU, 24),
        ("81.2.70.0/23", EU, 23),
        ("81.2.0.0/24", EU, 18),
        ("2a01:4f8:0:4000::/56", US, 50),
        ("2a01:4f8:0:7fff::/64", US, 50),
        ("2a01:4f8::/56", EU, 50),
        ("2a01:4f8:0:8000::/56", EU, 49),
        ("2a01:4f8:1::/48", EU, 48),
    ] {
        assert_eq!(ask(&program, client), (answer.into(), scope), "{client}");
    }
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
