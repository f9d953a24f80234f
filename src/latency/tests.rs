//! The estimator as a whole, on made-up worlds whose truth is known.

use ipnet::IpNet;
use proptest::prelude::*;

use super::{
    Estimator, Prior, RegionSite,
    estimate::{self, Direction, EstimateSource},
    estimator::{Client, Room},
    evaluate::{Method, Trial, evaluate, sample},
    intake::{Atlas, learn},
    measurement::{Network, Row},
    model,
};
use crate::{
    config::model::RegionId,
    geo::{Continent, Coordinates, CountryCode, Place},
};

const REGIONS: [(f32, f32); 8] = [
    (39.0, -77.5),
    (45.8, -119.7),
    (50.1, 8.7),
    (53.3, -6.3),
    (1.35, 103.8),
    (35.6, 139.7),
    (-23.5, -46.6),
    (-33.9, 151.2),
];

fn at((latitude, longitude): (f32, f32)) -> Coordinates {
    Coordinates { latitude, longitude }
}

fn sites() -> Vec<RegionSite> {
    REGIONS.map(|place| RegionSite::new(at(place), 0.0)).into()
}

/// Networks `20.N.0.0/16`, one at each place.
struct Towns {
    places: Vec<Place>,
    asn: Option<u32>,
}

impl Towns {
    fn of(places: &[(f32, f32)]) -> Towns {
        let place = |place: &(f32, f32)| Place { coordinates: Some(at(*place)), ..Place::default() };
        Towns { places: places.iter().map(place).collect(), asn: None }
    }

    fn place(&self, n: usize) -> &Place {
        &self.places[n]
    }
}

impl Atlas for Towns {
    fn whereabouts(&self, network: IpNet) -> (Option<Place>, Option<u32>) {
        let IpNet::V4(net) = network else { return (None, None) };
        (self.places.get(usize::from(net.network().octets()[1])).copied(), self.asn)
    }

    fn places_of_system(&self, _: u32) -> Vec<Place> {
        self.places.clone()
    }
}

fn net(n: usize) -> IpNet {
    format!("20.{n}.7.0/24").parse().unwrap()
}

fn row(network: Network, region: usize, rtt_ms: f32) -> Row {
    Row { network, region: RegionId(region as u8), rtt_ms, samples: 10, age_s: 0, is_alone: false }
}

fn measured(n: usize, region: usize, rtt_ms: f32) -> Row {
    row(Network::Prefix(net(n)), region, rtt_ms)
}

fn taught(rows: &[Row], towns: &Towns) -> Estimator {
    learn(&Prior::FITTED, &sites(), rows, towns)
}

fn ms_of(estimator: &Estimator, place: &Place, client: Client) -> Vec<f32> {
    let mut ms = vec![0.0; REGIONS.len()];
    assert!(estimator.fill(place, client, &mut Room::default(), &mut ms));
    ms
}

fn client_of(estimator: &Estimator, n: usize) -> Client {
    estimator.client(net(n).network(), None)
}

const BERLIN: (f32, f32) = (52.5, 13.4);
const WARSAW: (f32, f32) = (52.2, 21.0);
const LIMA: (f32, f32) = (-12.0, -77.0);

#[test]
fn without_measurements_the_estimates_are_the_models() {
    let towns = Towns::of(&[BERLIN]);
    let mut plain = vec![0.0; REGIONS.len()];
    estimate::fill(at(BERLIN), &sites(), &mut plain);
    let estimator = taught(&[], &towns);
    assert!(estimator.is_unmeasured());
    assert_eq!(ms_of(&estimator, towns.place(0), Client::default()), plain);
}

#[test]
fn a_measured_network_tells_of_its_neighbours_and_hardly_of_the_other_side_of_the_world() {
    let towns = Towns::of(&[BERLIN, WARSAW, LIMA]);
    let estimator = taught(&[measured(0, 2, 70.0), measured(0, 3, 85.0)], &towns);
    let plain = Estimator::unmeasured(&sites());
    let raised = |n: usize, region: usize| {
        let place = towns.place(n);
        let (now, before) = (ms_of(&estimator, place, Client::default()), ms_of(&plain, place, Client::default()));
        (now[region] - before[region]) / Prior::FITTED.spread_ms(before[region])
    };
    assert!(raised(1, 2) > 1.0, "{}", raised(1, 2));
    assert!(raised(2, 0) < 0.5 * raised(1, 2), "{} {}", raised(2, 0), raised(1, 2));
    let told = estimator.estimates(towns.place(0), client_of(&estimator, 0), &mut Room::default()).unwrap();
    let told: Vec<_> = told.into_iter().map(Option::unwrap).collect();
    assert_eq!((told[2].source, told[2].samples), (EstimateSource::Measured, 10));
    assert!((told[2].ms - 70.0).abs() < 2.0, "{told:?}");
    assert_eq!(told[0].source, EstimateSource::Network);
    assert!(told[2].uncertainty_ms < told[0].uncertainty_ms, "{told:?}");
    let told = estimator.estimates(towns.place(1), Client::default(), &mut Room::default()).unwrap();
    assert_eq!(told[2].unwrap().source, EstimateSource::Neighbours);
}

#[test]
fn old_measurements_fade_into_what_is_known_without_them() {
    let towns = Towns::of(&[BERLIN]);
    let estimate = |age_days: u64| {
        let rows = [Row { age_s: age_days * 86_400, ..measured(0, 2, 90.0) }];
        let estimator = taught(&rows, &towns);
        ms_of(&estimator, towns.place(0), client_of(&estimator, 0))[2]
    };
    let by_age: Vec<f32> = [0, 60, 240, 400, 1000].map(estimate).to_vec();
    assert!(by_age.windows(2).all(|pair| pair[0] > pair[1]), "{by_age:?}");
    assert!((by_age[0] - 90.0).abs() < 2.0 && by_age[4] < 35.0, "{by_age:?}");
}

#[test]
fn what_beats_light_is_counted_and_left_out_unless_the_place_is_known_roughly() {
    let mut towns = Towns::of(&[BERLIN]);
    let rows = [measured(0, 4, 20.0), measured(0, 2, 1.0)];
    assert_eq!(taught(&rows, &towns).counts().impossible, 2);
    assert!(taught(&rows, &towns).is_unmeasured());
    towns.places[0].within_km = 600;
    let estimator = taught(&rows, &towns);
    assert_eq!(estimator.counts().impossible, 1);
    // And what is not left out is not lifted to where light would be from the place.
    let ms = ms_of(&estimator, towns.place(0), client_of(&estimator, 0))[2];
    assert!(ms < 2.0, "{ms}");
}

#[test]
fn systems_countries_and_continents_speak_for_their_networks() {
    let mut towns = Towns::of(&[BERLIN]);
    towns.places[0].country = CountryCode::new("DE");
    towns.places[0].continent = Some(Continent::Europe);
    let place = *towns.place(0);
    let plain = ms_of(&Estimator::unmeasured(&sites()), &place, Client::default())[2];
    let client = Client { asn: Some(7), prefix: None };
    for (network, source) in [
        (Network::Asn(7), EstimateSource::System),
        (Network::Country(CountryCode(*b"DE")), EstimateSource::Country),
        (Network::Continent(Continent::Europe), EstimateSource::Continent),
    ] {
        let estimator = taught(&[row(network, 2, 150.0)], &towns);
        let told = estimator.estimates(&place, client, &mut Room::default()).unwrap()[2].unwrap();
        assert_eq!((told.source, told.samples), (source, 10));
        assert!(told.ms > plain + 4.0, "{network:?}: {told:?}, {plain}");
        let other = Place { country: None, continent: None, ..place };
        assert_eq!(ms_of(&estimator, &other, Client::default())[2], plain, "{network:?}");
    }
}

#[test]
fn what_was_passed_over_for_a_worse_looking_region_is_not_chosen() {
    // Frankfurt and Dublin are near these, and those who measured took Ashburn and Singapore instead for one of them.
    let towns = Towns::of(&[BERLIN, WARSAW, LIMA, (48.0, 2.0), (40.0, -75.0)]);
    let own = [measured(0, 0, 95.0), measured(0, 3, 110.0)];
    let knowing = [measured(1, 2, 20.0), measured(1, 3, 40.0), measured(2, 0, 90.0), measured(2, 6, 80.0)];
    let others = [measured(3, 2, 15.0), measured(3, 3, 20.0), measured(4, 0, 8.0), measured(4, 3, 80.0)];
    let best = |rows: &[Row]| {
        let estimator = taught(rows, &towns);
        let ms = ms_of(&estimator, towns.place(0), client_of(&estimator, 0));
        (0..ms.len()).min_by(|a, b| ms[*a].total_cmp(&ms[*b])).unwrap()
    };
    let at_random = [measured(1, 4, 180.0), measured(1, 6, 220.0), measured(3, 5, 240.0), measured(3, 7, 290.0)];
    assert_eq!(best(&[&own[..], &knowing, &others].concat()), 0);
    assert_eq!(best(&[&own[..], &at_random].concat()), 2, "chance chose: nobody passed Frankfurt over");
}

#[test]
fn two_regions_in_one_city_are_told_apart() {
    let sites = [at(REGIONS[2]), at(REGIONS[2]), at(REGIONS[0])].map(|place| RegionSite::new(place, 0.0));
    let towns = Towns::of(&[BERLIN]);
    let rows = [measured(0, 0, 40.0), measured(0, 1, 12.0)];
    let estimator = learn(&Prior::FITTED, &sites, &rows, &towns);
    let mut ms = [0.0; 3];
    estimator.fill(towns.place(0), client_of(&estimator, 0), &mut Room::default(), &mut ms);
    assert!((ms[0] - 40.0).abs() < 4.0 && (ms[1] - 12.0).abs() < 2.0, "{ms:?}");
}

#[test]
fn a_row_for_a_place_moves_who_stands_there() {
    let towns = Towns::of(&[BERLIN, WARSAW]);
    let plain = ms_of(&Estimator::unmeasured(&sites()), towns.place(0), Client::default())[2];
    let moved = |row: Row, n: usize| {
        let estimator = taught(&[row], &towns);
        (ms_of(&estimator, towns.place(n), Client::default())[2] - plain) / (80.0 - plain)
    };
    let point = row(Network::Point(at(BERLIN)), 2, 80.0);
    assert!(moved(point, 0) > 0.85, "{}", moved(point, 0));
    assert!(moved(measured(0, 2, 80.0), 0) < 0.75);
}

#[test]
fn a_row_for_a_system_is_not_counted_once_more_by_its_networks() {
    let mut towns = Towns::of(&[BERLIN, WARSAW]);
    towns.asn = Some(7);
    let member = Client { asn: Some(7), prefix: None };
    let ms = |rows: &[Row]| ms_of(&taught(rows, &towns), towns.place(1), member)[2];
    let model = ms_of(&Estimator::unmeasured(&sites()), towns.place(1), member)[2];
    let system = row(Network::Asn(7), 2, model + 30.0);
    let (by_row, by_both) = (ms(&[system]), ms(&[system, measured(1, 2, model + 30.0)]));
    assert!(by_both < model + 33.0, "{model} {by_row} {by_both}");
}

#[test]
fn networks_of_a_system_speak_for_it_unless_they_speak_for_themselves_alone() {
    let mut towns = Towns::of(&[BERLIN, BERLIN, BERLIN, WARSAW]);
    towns.asn = Some(7);
    let member = Client { asn: Some(7), prefix: None };
    let source = |is_alone: bool| {
        let rows: Vec<Row> = (0..3).map(|n| Row { is_alone, ..measured(n, 2, 80.0) }).collect();
        let told = taught(&rows, &towns).estimates(towns.place(3), member, &mut Room::default()).unwrap();
        told[2].unwrap().source
    };
    assert_eq!(source(false), EstimateSource::System);
    assert_eq!(source(true), EstimateSource::Model);
}

#[test]
fn a_row_of_the_same_prefix_does_not_let_others_speak_for_what_is_around_it() {
    let place = Place { country: Some(CountryCode(*b"XX")), ..Towns::of(&[(35.0, 51.0)]).places[0] };
    let towns = Towns { places: vec![place; 3], asn: Some(64_500) };
    let alone = |n: usize| Row { is_alone: true, ..measured(n, 2, 200.0) };
    let beside = |n: usize| measured(n, 4, 110.0);
    let with = taught(&[alone(0), beside(0), alone(1), beside(1)], &towns);
    let without = taught(&[beside(0), beside(1)], &towns);
    let elsewhere = Client { asn: Some(64_500), prefix: None };
    assert_eq!(ms_of(&with, &place, elsewhere), ms_of(&without, &place, elsewhere));
    assert!(ms_of(&with, &place, client_of(&with, 0))[2] > 150.0, "for the network itself it counts");
}

#[test]
fn a_region_is_left_only_for_one_that_is_clearly_better() {
    let towns = Towns::of(&[BERLIN]);
    let estimator = taught(&[measured(0, 2, 90.0), measured(0, 3, 60.0)], &towns);
    let client = client_of(&estimator, 0);
    for (to_ms, hysteresis_ms, expected) in
        [(60.0, 5.0, true), (86.0, 5.0, false), (82.0, 5.0, false), (82.0, 0.0, false), (60.0, 40.0, false)]
    {
        let is_better = estimator.is_clearly_better(client, (2, 90.0), (3, to_ms), hysteresis_ms);
        assert_eq!(is_better, expected, "{to_ms} {hysteresis_ms}");
    }
    assert!(
        estimator.is_clearly_better(client, (0, 90.0), (3, 89.0), 5.0),
        "the one before was not measured, this one is"
    );
    for (before, ms, expected) in [(2, 86.0, false), (2, 60.0, true), (1, 86.0, false), (1, 60.0, true)] {
        let is_better = estimator.is_clearly_better(client, (before, 90.0), (0, ms), 5.0);
        assert_eq!(is_better, expected, "to one that was not measured: {before} {ms}");
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn share(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ x >> 31) >> 40) as f32 / (1 << 24) as f32
    }
}

/// Where cables have detours: networks of Israel are nearer to Dubai than to Frankfurt, and go there by way of Europe.
const TEL_AVIV: (f32, f32) = (32.1, 34.8);
const HAIFA: (f32, f32) = (33.8, 35.5);
const LAHORE: (f32, f32) = (31.5, 74.3);
const EAST_AND_WEST: [(f32, f32); 3] = [(25.2, 55.3), (50.1, 8.7), (19.1, 72.9)]; // Dubai, Frankfurt, Mumbai

fn best_of(prior: &Prior, rows: &[Row], towns: &Towns, n: usize) -> usize {
    let sites = EAST_AND_WEST.map(|place| RegionSite::new(at(place), 0.0));
    let estimator = learn(prior, &sites, rows, towns);
    let mut ms = [0.0; EAST_AND_WEST.len()];
    estimator.fill(towns.place(n), client_of(&estimator, n), &mut Room::default(), &mut ms);
    (0..ms.len()).min_by(|a, b| ms[*a].total_cmp(&ms[*b])).unwrap()
}

#[test]
fn known_detours_count_before_anything_is_measured_only_by_choice() {
    let towns = Towns::of(&[TEL_AVIV, BERLIN]);
    let best = |detours, n| best_of(&Prior::with(detours), &[], &towns, n);
    assert_eq!((best(false, 0), best(false, 1)), (0, 1), "the nearest");
    assert_eq!((best(true, 0), best(true, 1)), (1, 1), "by way of Europe");
}

#[test]
fn detours_count_as_far_as_measurements_show_that_they_do() {
    let around = [(35.1, 33.4), LAHORE, (30.0, 31.2), (33.9, 35.6), (31.9, 35.9), (24.9, 67.0), BERLIN, HAIFA];
    let nearby = around.iter().flat_map(|(lat, lon)| [0.0, 1.1, 2.2].map(|off| (lat + off, lon + off)));
    let towns = Towns::of(&std::iter::once(TEL_AVIV).chain(nearby).collect::<Vec<_>>());
    let far_ms = |n: usize, region: usize| {
        let km = towns.place(n).coordinates.unwrap().distance_km(at(EAST_AND_WEST[region]));
        model::rtt_ms(km)
    };
    let rows = |factor: f32| -> Vec<Row> {
        let sites = EAST_AND_WEST.map(|place| RegionSite::new(at(place), 0.0));
        let ways = super::detours::Detours::to(&sites);
        let ms = |n: usize, region: usize| {
            let place = towns.place(n).coordinates.unwrap();
            let door = super::detours::Door::of(Direction::of(place));
            far_ms(n, region) + factor * ways.ms(door, region, place.distance_km(at(EAST_AND_WEST[region])))
        };
        (1..25)
            .flat_map(|n| (0..3).map(move |region| (n, region)))
            .map(|(n, region)| measured(n, region, ms(n, region)))
            .collect()
    };
    // Tel Aviv itself is never measured.
    assert_eq!(best_of(&Prior::with(false), &rows(1.0), &towns, 0), 1, "others go round");
    assert_eq!(best_of(&Prior::with(false), &rows(0.0), &towns, 0), 0, "nobody goes round");
    assert_eq!(
        best_of(&Prior::with(true), &rows(0.0), &towns, 0),
        0,
        "nobody goes round, though that was to be expected"
    );
}

/// A world of 200 towns in 12 parts of the world. Each part buys its transit in another town somewhere, so that packets go there
/// first; each town has some delay of its own. Towns with the round trips to all regions.
fn detours() -> (Towns, Vec<Row>) {
    let mut random = Random(7);
    let mut anywhere = |low: f32, high: f32| low + (high - low) * random.share();
    let parts: Vec<[f32; 4]> = (0..12)
        .map(|_| [anywhere(-40.0, 60.0), anywhere(-170.0, 170.0), anywhere(-20.0, 55.0), anywhere(-120.0, 140.0)])
        .collect();
    let towns: Vec<(f32, f32)> =
        (0..200).map(|n| (parts[n % 12][0] + anywhere(-6.0, 6.0), parts[n % 12][1] + anywhere(-8.0, 8.0))).collect();
    let mut rows = Vec::new();
    for (n, town) in towns.iter().enumerate() {
        let hub = Direction::of(at((parts[n % 12][2], parts[n % 12][3])));
        let own_ms = anywhere(1.0, 12.0);
        for (region, place) in REGIONS.iter().enumerate() {
            let (from, to) = (Direction::of(at(*town)), Direction::of(at(*place)));
            let by_hub_ms = model::rtt_ms(from.distance_km(hub)) + model::rtt_ms(hub.distance_km(to));
            let direct_ms = model::rtt_ms(from.distance_km(to));
            let ms = own_ms + direct_ms + 0.5 * (by_hub_ms - direct_ms).max(0.0) + anywhere(0.0, 10.0);
            rows.push(measured(n, region, ms));
        }
    }
    (Towns::of(&towns), rows)
}

#[test]
fn what_others_measured_beats_distance_and_own_measurements_beat_that() {
    let (towns, rows) = detours();
    let coordinates = REGIONS.map(at);
    let (prior, sites) = (Prior::FITTED, sites());
    let trial =
        Trial { prior: &prior, sites: &sites, coordinates: &coordinates, atlas: &towns, known: &[], rows: &rows };
    let found = evaluate(&trial, 5);
    assert_eq!((found.networks, found.left_out, found.points.len()), (200, 0, 1600));
    let regret_ms = |method: Method| found.score(method).unwrap().regret_mean_ms;
    let [learnt, two, three, distance, continents] = Method::ALL.map(regret_ms);
    assert!(distance > 3.0, "a world in which distance is good enough shows nothing: {distance}");
    assert!(learnt < 0.5 * distance, "{learnt} {distance}");
    assert!(two < 0.7 * learnt && three <= two, "{learnt} {two} {three}");
    assert!(continents > distance, "{continents} {distance}");
    assert!(found.error_mean_ms() < 25.0, "{}", found.error_mean_ms());
}

#[test]
fn a_sample_takes_networks_whole() {
    let (_, rows) = detours();
    let few = sample(&rows, 400);
    assert!(few.len() > 100 && few.len() < 900 && few.len().is_multiple_of(REGIONS.len()), "{}", few.len());
    assert_eq!(sample(&rows, 10_000).len(), rows.len());
}

proptest! {
    #[test]
    fn estimates_are_finite_never_beat_light_and_follow_own_measurements(
        seen in prop::collection::vec((0usize..6, 0usize..8, 1.0f32..4.0, 1u32..50), 0..30),
        latitude in -60.0f32..70.0, longitude in -180.0f32..180.0,
    ) {
        let towns = Towns::of(&[BERLIN, WARSAW, LIMA, (35.0, 139.0), (latitude, longitude), (-30.0, 150.0)]);
        let km = |n: usize, region: usize| {
            Direction::of(towns.place(n).coordinates.unwrap()).distance_km(Direction::of(at(REGIONS[region])))
        };
        let mut rows: Vec<Row> = Vec::new();
        for (n, region, factor, samples) in seen {
            let fresh = !rows.iter().any(|row| row.network == Network::Prefix(net(n)) && row.region.index() == region);
            if fresh {
                rows.push(Row { samples, ..measured(n, region, 2.0 + model::fibre_floor_ms(km(n, region)) * factor) });
            }
        }
        let estimator = taught(&rows, &towns);
        prop_assert_eq!(estimator.counts().impossible, 0);
        for n in 0..6 {
            let client = client_of(&estimator, n);
            let ms = ms_of(&estimator, towns.place(n), client);
            for (region, ms) in ms.iter().enumerate() {
                prop_assert!(ms.is_finite() && *ms >= model::fibre_floor_ms(km(n, region)), "{n} {region}: {ms}");
                if let Some(cell) = estimator.own_cell(client, region) {
                    let sd_ms = (1.5 + 0.05 * cell.rtt_ms) / (cell.samples as f32).sqrt();
                    prop_assert!((ms - cell.rtt_ms).abs() < 3.0 * sd_ms + 1.0, "{n} {region}: {ms} {cell:?}");
                }
            }
        }
    }
}
