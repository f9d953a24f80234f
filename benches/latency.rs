//! What the estimates are worth: regions drawn at random among cities, every other city a client, its country left out of what the
//! estimator learns. `cargo bench --bench latency -- CITIES.csv RTT.csv [--draws N] [--seed N] [--set SCALE=VALUE] [--draw FILE.svg]`
//! prints the mean regret of each way to choose, and draws it; `--set` tries another value of one of the prior's scales, and may stand
//! several times.
//!
//! `cargo bench --bench latency -- --rebuild [CITY.mmdb]` prints what it costs to make the maps anew.
//!
//! CITIES.csv has the columns id, cc, continent, lat, lon among others; RTT.csv has src, dst, avg_ms. Neither is part of this project.

#[path = "../tests/support/mmdb.rs"]
mod mmdb;
#[path = "support/rebuild.rs"]
mod rebuild;

use std::{collections::HashMap, fmt::Write, fs};

use ipnet::IpNet;
use isochrone::{
    config::model::RegionId,
    geo::{Continent, Coordinates, CountryCode, Place},
    latency::{
        Estimator, Prior, RegionSite,
        estimator::{Client, Room},
        intake::{Atlas, learn},
        measurement::{Network, Row},
        model,
    },
};

/// How many regions are drawn.
const REGIONS: [usize; 2] = [8, 20];

/// Ways to choose, in the order of the columns.
const WAYS: [&str; 18] = [
    "nearest by distance",
    "estimates from other countries",
    "their two best measured",
    "their three best measured",
    "two nearest measured, the lower",
    "two nearest measured, estimates",
    "three nearest measured, estimates",
    "only two nearest of every city measured",
    "only three nearest of every city measured",
    "only two best of every city measured",
    "only three best of every city measured",
    "only two lowest of every city measured",
    "only three lowest of every city measured",
    "two lowest measured, estimates",
    "two random measured, estimates",
    "only two random of every city measured",
    "nothing measured, the model",
    "nothing measured, known detours",
];

struct Cities {
    places: Vec<Place>,
    rtt_ms: Vec<Vec<f32>>, // infinite where nothing was measured
}

impl Cities {
    fn read(cities: &str, round_trips: &str) -> Cities {
        let places: Vec<(String, Place)> = table(cities)
            .map(|row| {
                let number = |name: &str| row[name].parse().expect("coordinates");
                let place = Place {
                    country: CountryCode::new(&row["cc"]),
                    continent: Continent::from_code(&row["continent"]),
                    coordinates: Some(Coordinates { latitude: number("lat"), longitude: number("lon") }),
                    within_km: 100,
                };
                (row["id"].clone(), place)
            })
            .collect();
        let index: HashMap<&str, usize> = places.iter().enumerate().map(|(n, (id, _))| (id.as_str(), n)).collect();
        let mut rtt_ms = vec![vec![f32::INFINITY; places.len()]; places.len()];
        for row in table(round_trips) {
            let (from, to) = (index[row["src"].as_str()], index[row["dst"].as_str()]);
            let ms: f32 = row["avg_ms"].parse().expect("milliseconds");
            // Faster than light: one of the two is not where it is said to be.
            if ms >= model::fibre_floor_ms(km(&places[from].1, &places[to].1)) {
                rtt_ms[from][to] = ms;
            }
        }
        Cities { places: places.into_iter().map(|(_, place)| place).collect(), rtt_ms }
    }
}

fn km(a: &Place, b: &Place) -> f64 {
    a.coordinates.expect("a city").distance_km(b.coordinates.expect("a city"))
}

/// The lines of a CSV file without quotes, by the names of its header.
fn table(path: &str) -> impl Iterator<Item = HashMap<String, String>> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut lines = text.lines().map(str::to_owned).collect::<Vec<_>>().into_iter();
    let names: Vec<String> = lines.next().expect("a header").split(',').map(str::to_owned).collect();
    lines.map(move |line| names.iter().cloned().zip(line.split(',').map(str::to_owned)).collect())
}

/// Networks `20.N.0.0/24`, one in each city.
impl Atlas for Cities {
    fn whereabouts(&self, network: IpNet) -> (Option<Place>, Option<u32>) {
        let IpNet::V4(net) = network else { return (None, None) };
        (self.places.get(usize::from(net.network().octets()[1])).copied(), None)
    }

    fn places_of_system(&self, _: u32) -> Vec<Place> {
        Vec::new()
    }
}

fn network(city: usize) -> IpNet {
    format!("20.{city}.0.0/24").parse().expect("at most 256 cities")
}

/// SplitMix64: the same draws in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ x >> 31) as usize
    }
}

/// One draw of regions.
struct Draw<'c> {
    prior: &'c Prior,
    cities: &'c Cities,
    regions: Vec<usize>,
    sites: Vec<RegionSite>,
    clients: Vec<usize>,
}

impl<'c> Draw<'c> {
    fn new(prior: &'c Prior, cities: &'c Cities, count: usize, random: &mut Random) -> Draw<'c> {
        let n = cities.places.len();
        let mut order: Vec<usize> = (0..n).collect();
        for i in 0..count {
            order.swap(i, i + random.next() % (n - i));
        }
        let regions = order[..count].to_vec();
        let site = |city: &usize| RegionSite::new(cities.places[*city].coordinates.expect("a city"), 0.0);
        let clients = (0..n).filter(|city| !regions.contains(city)).collect();
        Draw { prior, cities, sites: regions.iter().map(site).collect(), regions, clients }
    }

    fn truth_ms(&self, city: usize, region: usize) -> f32 {
        self.cities.rtt_ms[city][self.regions[region]]
    }

    /// The regions that a city was measured to, the lowest of `key` first.
    fn order(&self, city: usize, key: impl Fn(usize) -> f32) -> Vec<usize> {
        let known = |region: &usize| self.truth_ms(city, *region).is_finite();
        let mut order: Vec<usize> = (0..self.regions.len()).filter(known).collect();
        order.sort_by(|a, b| key(*a).total_cmp(&key(*b)));
        order
    }

    fn nearest(&self, city: usize) -> Vec<usize> {
        let places = &self.cities.places;
        self.order(city, |region| km(&places[city], &places[self.regions[region]]) as f32)
    }

    fn rows(&self, city: usize, regions: &[usize]) -> Vec<Row> {
        let row = |region: &usize| Row {
            network: Network::Prefix(network(city)),
            region: RegionId(*region as u8),
            rtt_ms: self.truth_ms(city, *region),
            samples: 10,
            age_s: 0,
            is_alone: false,
        };
        regions.iter().map(row).collect()
    }

    fn learn(&self, rows: &[Row]) -> Estimator {
        learn(self.prior, &self.sites, rows, self.cities)
    }

    fn ranked(&self, estimator: &Estimator, city: usize) -> Vec<usize> {
        let client: Client = estimator.client(network(city).network(), None);
        let mut ms = vec![0.0; self.regions.len()];
        estimator.fill(&self.cities.places[city], client, &mut Room::default(), &mut ms);
        self.order(city, |region| ms[region])
    }

    /// After every city was measured to the first `count` regions of an order, and to nothing else.
    fn only(&self, count: usize, order: impl Fn(usize) -> Vec<usize>) -> Estimator {
        let rows: Vec<Row> = self.clients.iter().flat_map(|city| self.rows(*city, &order(*city)[..count])).collect();
        self.learn(&rows)
    }

    /// What each way to choose loses each client, in milliseconds.
    fn regrets(&self) -> Vec<[f32; WAYS.len()]> {
        let country = |city: usize| self.cities.places[city].country;
        let mut learnt: HashMap<Option<CountryCode>, (Vec<Row>, Estimator)> = HashMap::new();
        for &city in &self.clients {
            learnt.entry(country(city)).or_insert_with(|| {
                let abroad = self.clients.iter().filter(|other| country(**other) != country(city));
                let rows: Vec<Row> = abroad.flat_map(|other| self.rows(*other, &self.nearest(*other))).collect();
                let estimator = self.learn(&rows);
                (rows, estimator)
            });
        }
        let best = |city: usize| self.ranked(&learnt[&country(city)].1, city);
        let nearest = |city: usize| self.nearest(city);
        let lowest = |city: usize| self.order(city, |region| self.truth_ms(city, region));
        let random = |city: usize| {
            let mut random = Random(city as u64 * 1000 + self.regions[0] as u64);
            let mut order = self.nearest(city);
            for i in 0..order.len() {
                let left = order.len() - i;
                order.swap(i, i + random.next() % left);
            }
            order
        };
        let only = [
            self.only(2, nearest),
            self.only(3, nearest),
            self.only(2, best),
            self.only(3, best),
            self.only(2, lowest),
            self.only(3, lowest),
            self.only(2, random),
        ];
        let unmeasured = Estimator::unmeasured(&self.sites);
        let going_round = learn(&Prior::with(true), &self.sites, &[], self.cities);
        let regrets = self.clients.iter().map(|&city| {
            let others = &learnt[&country(city)].0;
            let (near, best, lowest) = (nearest(city), best(city), lowest(city));
            let after = |measured: &[usize]| {
                let rows: Vec<Row> = others.iter().copied().chain(self.rows(city, measured)).collect();
                self.ranked(&self.learn(&rows), city)[0]
            };
            let lower = *lowest.iter().find(|region| near[..2].contains(region)).expect("two are near");
            let by_only = only.each_ref().map(|estimator| self.ranked(estimator, city)[0]);
            let chosen = [
                near[0],
                best[0],
                after(&best[..2]),
                after(&best[..3]),
                lower,
                after(&near[..2]),
                after(&near[..3]),
                by_only[0],
                by_only[1],
                by_only[2],
                by_only[3],
                by_only[4],
                by_only[5],
                after(&lowest[..2]),
                after(&random(city)[..2]),
                by_only[6],
                self.ranked(&unmeasured, city)[0],
                self.ranked(&going_round, city)[0],
            ];
            chosen.map(|region| self.truth_ms(city, region) - self.truth_ms(city, lowest[0]))
        });
        regrets.collect()
    }
}

/// Means over all clients of all draws.
struct Found {
    regions: usize,
    mean_ms: [f64; WAYS.len()],
    p95_ms: [f64; WAYS.len()],
    over_20_ms: [f64; WAYS.len()],
    /// Draws in which the estimates from other countries lose more than distance by over 0.5 ms, and by how much in the worst of all.
    worse: usize,
    worst_ms: f32,
    /// Draws in which the model alone loses more than distance at all.
    worse_unmeasured: usize,
    /// Draws in which known detours alone lose more than distance by over 0.5 ms.
    worse_going_round: usize,
}

fn run(prior: &Prior, cities: &Cities, regions: usize, draws: usize, seed: u64) -> Found {
    let mut random = Random(seed);
    let (mut all, mut worse, mut worst_ms) = (Vec::new(), 0, f32::NEG_INFINITY);
    let (mut worse_unmeasured, mut worse_going_round) = (0, 0);
    for _ in 0..draws {
        let regrets = Draw::new(prior, cities, regions, &mut random).regrets();
        let mean = |way: usize| regrets.iter().map(|r| r[way]).sum::<f32>() / regrets.len() as f32;
        worse += usize::from(mean(1) > mean(0) + 0.5);
        worst_ms = worst_ms.max(mean(1) - mean(0));
        worse_unmeasured += usize::from(mean(WAYS.len() - 2) > mean(0));
        worse_going_round += usize::from(mean(WAYS.len() - 1) > mean(0) + 0.5);
        all.extend(regrets);
    }
    let of_way = |way: usize| {
        let mut list: Vec<f32> = all.iter().map(|regrets| regrets[way]).collect();
        list.sort_by(f32::total_cmp);
        list
    };
    let each = |f: &dyn Fn(&[f32]) -> f64| std::array::from_fn(|way| f(&of_way(way)));
    Found {
        regions,
        mean_ms: each(&|list| list.iter().map(|ms| f64::from(*ms)).sum::<f64>() / list.len() as f64),
        p95_ms: each(&|list| f64::from(list[list.len() * 95 / 100])),
        over_20_ms: each(&|list| list.iter().filter(|ms| **ms > 20.0).count() as f64 / list.len() as f64),
        worse,
        worst_ms,
        worse_unmeasured,
        worse_going_round,
    }
}

/// Bars: mean regret of each way, for both numbers of regions.
fn drawn(found: &[Found]) -> String {
    let (width, left, bar, top) = (760.0, 270.0, 13.0, 26.0);
    let height = top + WAYS.len() as f64 * (2.0 * bar + 14.0) + 8.0;
    let most = found.iter().flat_map(|f| f.mean_ms).fold(1.0, f64::max);
    let x = |ms: f64| ms / most * (width - left - 60.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"system-ui, sans-serif\" font-size=\"12\" \
         role=\"img\">\n<title>Milliseconds lost against the truly lowest region</title>\n<style>.bg{{fill:#fff}}.t{{fill:#333}}.a{{fill:#2563eb}}\
         .b{{fill:#93c5fd}}@media(prefers-color-scheme:dark){{.bg{{fill:#0d1117}}.t{{fill:#ccc}}.a{{fill:#60a5fa}}.b{{fill:#1d4ed8}}}}</style>\n\
         <rect class=\"bg\" width=\"{width}\" height=\"{height}\"/>\n<text class=\"t\" x=\"{left}\" y=\"16\">milliseconds lost on the average: 8 \
         regions (dark), 20 regions (light)</text>\n"
    );
    for (way, name) in WAYS.iter().enumerate() {
        let y = top + way as f64 * (2.0 * bar + 14.0);
        writeln!(
            out,
            "<text class=\"t\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>",
            left - 8.0,
            y + bar + 4.0
        )
        .expect("a string");
        for (n, (one, class)) in found.iter().zip(["a", "b"]).enumerate() {
            let (ms, y) = (one.mean_ms[way], y + n as f64 * bar);
            writeln!(
                out,
                "<rect class=\"{class}\" x=\"{left}\" y=\"{y}\" width=\"{:.1}\" height=\"{}\"/><text class=\"t\" x=\"{:.1}\" y=\"{}\" \
                 font-size=\"11\">{ms:.1}</text>",
                x(ms),
                bar - 1.0,
                left + x(ms) + 4.0,
                y + bar - 3.0
            )
            .expect("a string");
        }
    }
    out + "</svg>\n"
}

/// Sets one of the scales: `caution=0.1`.
fn set(prior: &mut Prior, setting: &str) {
    let (name, value) = setting.split_once('=').expect("SCALE=VALUE");
    let value: f32 = value.parse().expect("a number");
    match name {
        "spread_base_ms" => prior.spread_base_ms = value,
        "spread_slope" => prior.spread_slope = value,
        "intercept_var" => prior.intercept_var = value,
        "slope_var" => prior.slope_var = value,
        "offset_var" => prior.offset_var = value,
        "detour_mean" => prior.detour_mean = value,
        "detour_var" => prior.detour_var = value,
        "field_var" => prior.field_var = value,
        "field_km" => prior.field_km = value.into(),
        "local_var" => prior.local_var = value,
        "country_var" => prior.country_var = value,
        "asn_var" => prior.asn_var = value,
        "regions_common" => prior.regions_common = value.into(),
        "regions_km" => prior.regions_km = value.into(),
        "regions_own" => prior.regions_own = value.into(),
        "noise_base_ms" => prior.noise_base_ms = value,
        "noise_slope" => prior.noise_slope = value,
        "freedom" => prior.freedom = value,
        "caution" => prior.caution = value,
        _ => panic!("`{name}` is no scale of the prior"),
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let after = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    if arguments.first().is_some_and(|first| first == "--rebuild") {
        return rebuild::run(arguments.get(1).cloned());
    }
    let [cities, round_trips] =
        arguments.get(..2).and_then(|list| <&[String; 2]>::try_from(list).ok()).unwrap_or_else(|| {
            println!("nothing to do: cargo bench --bench latency -- CITIES.csv RTT.csv [--draws N] [--seed N] [--set SCALE=VALUE] [--draw FILE.svg], or -- --rebuild [CITY.mmdb]");
            std::process::exit(0);
        });
    let draws = after("--draws").map_or(100, |n| n.parse().expect("a number of draws"));
    let cities = Cities::read(cities, round_trips);
    let seed = after("--seed").map_or(1, |n| n.parse().expect("a number"));
    let mut prior = Prior::FITTED;
    for pair in arguments.windows(2).filter(|pair| pair[0] == "--set") {
        set(&mut prior, &pair[1]);
    }
    let found = REGIONS.map(|regions| run(&prior, &cities, regions, draws, seed));
    for one in &found {
        println!(
            "\n{} regions, {draws} draws; estimates from other countries are worse than distance by over 0.5 ms in {} of them, by {:.1} ms in \
             the worst; the model alone in {}, known detours alone in {}\n",
            one.regions, one.worse, one.worst_ms, one.worse_unmeasured, one.worse_going_round
        );
        println!("| chosen by | mean ms lost | 95th percentile | over 20 ms |\n|---|---|---|---|");
        for (way, name) in WAYS.iter().enumerate() {
            println!(
                "| {name} | {:.1} | {:.0} | {:.0} % |",
                one.mean_ms[way],
                one.p95_ms[way],
                100.0 * one.over_20_ms[way]
            );
        }
    }
    if let Some(path) = after("--draw") {
        fs::write(&path, drawn(&found)).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}
