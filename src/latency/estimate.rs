//! Estimates: the milliseconds from a place to each region, and where each figure comes from. Takes places and regions as
//! coordinates; it must never know which client, name or policy asks.

use super::model;
use crate::geo::{Coordinates, place::EARTH_RADIUS_KM};

/// The round trip to expect between a client's network and a region.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Milliseconds, the region's bias and penalty included; regions are ranked by it, lowest first. Below zero only by a negative
    /// bias.
    pub ms: f32,
    /// What the figure rests on.
    pub source: EstimateSource,
    /// Measurements behind it; 0 for what was not measured.
    pub samples: u32,
    /// Standard deviation of the figure, in milliseconds: so far off it is in two cases of three, by the prior's scales.
    pub uncertainty_ms: f32,
    /// Age of the newest measurement behind it in seconds.
    pub age_s: Option<u64>,
    /// Milliseconds that a known detour of the cables put into it, before what the network's own measurements to other regions changed; 0 where
    /// the network itself was measured to the region.
    pub detour_ms: f32,
    /// Great-circle kilometres between the two, where both places are known.
    pub distance_km: Option<f64>,
}

/// What an [`Estimate`] rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EstimateSource {
    /// This network was measured to this region.
    Measured,
    /// This network was measured to other regions, which tells of this one.
    Network,
    /// Networks of the same autonomous system were measured.
    System,
    /// Networks of the same country were measured.
    Country,
    /// A row for the continent.
    Continent,
    /// Networks of the places around were measured.
    Neighbours,
    /// Distance turned into milliseconds by [`model::rtt_ms`].
    Model,
}

impl EstimateSource {
    /// All of them, the best first, in the order of their numbers.
    pub const ALL: [EstimateSource; 7] = [
        EstimateSource::Measured,
        EstimateSource::Network,
        EstimateSource::System,
        EstimateSource::Country,
        EstimateSource::Continent,
        EstimateSource::Neighbours,
        EstimateSource::Model,
    ];

    /// The word for people and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            EstimateSource::Measured => "measured",
            EstimateSource::Network => "network",
            EstimateSource::System => "asn",
            EstimateSource::Country => "country",
            EstimateSource::Continent => "continent",
            EstimateSource::Neighbours => "neighbours",
            EstimateSource::Model => "model",
        }
    }
}

/// A region as the estimates see it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RegionSite {
    direction: Direction,
    bias_ms: f32,
    penalty_ms: f32,
}

impl RegionSite {
    /// A region at `coordinates` whose estimates are `bias_ms` higher than the model says; may be negative.
    pub fn new(coordinates: Coordinates, bias_ms: f32) -> Self {
        RegionSite { direction: Direction::of(coordinates), bias_ms, penalty_ms: 0.0 }
    }

    /// The same, while connecting to it takes `penalty_ms` longer than usual: its estimates are so much higher.
    #[must_use]
    pub fn penalised(self, penalty_ms: f32) -> Self {
        RegionSite { penalty_ms, ..self }
    }

    /// What is added to its estimates because connecting to it takes longer than usual, in milliseconds.
    pub fn penalty_ms(&self) -> f32 {
        self.penalty_ms
    }

    /// Where it is.
    pub(super) fn direction(&self) -> Direction {
        self.direction
    }

    /// What is added to its estimates for all clients, in milliseconds.
    pub(super) fn added_ms(&self) -> f32 {
        self.bias_ms + self.penalty_ms
    }

    fn ms(&self, distance_km: f64) -> f32 {
        model::rtt_ms(distance_km) + self.added_ms()
    }
}

/// The model's milliseconds from a place to each of `regions`, bias and penalty included, written to `out` without allocating: what compiling a
/// map of a hundred thousand places needs. `out` is as long as `regions`.
///
/// # Panics
/// When the two lengths differ.
pub fn fill(coordinates: Coordinates, regions: &[RegionSite], out: &mut [f32]) {
    assert_eq!(regions.len(), out.len(), "one slot for each region");
    let from = Direction::of(coordinates);
    for (region, ms) in regions.iter().zip(out) {
        *ms = region.ms(from.distance_km(region.direction));
    }
}

/// The arcsine of 0 to 1, to a few units of the last place. A map needs some millions: without branches the processor works out several
/// at a time, in less than half the time of the C library's.
fn arcsine(x: f64) -> f64 {
    // Above a half by that of the other angle's half: asin x = pi/2 - 2 asin sqrt((1-x)/2).
    let is_far = x > 0.5;
    let squared = if is_far { (1.0 - x) / 2.0 } else { x * x };
    let near = if is_far { squared.sqrt() } else { x };
    // Even and odd powers by themselves, so that the two sums are made side by side.
    let (t, c) = (squared * squared, ARCSINE);
    let even = c[0] + t * (c[2] + t * (c[4] + t * (c[6] + t * (c[8] + t * c[10]))));
    let odd = c[1] + t * (c[3] + t * (c[5] + t * (c[7] + t * c[9])));
    let arc = near + near * squared * (even + squared * odd);
    if is_far { std::f64::consts::FRAC_PI_2 - 2.0 * arc } else { arc }
}

/// The polynomial that agrees with `(asin(sqrt z) / sqrt z - 1) / z` for z from 0 to 1/4 to 9e-16 of the arcsine: its Chebyshev series,
/// cut off after the tenth power.
const ARCSINE: [f64; 11] = [
    0.16666666666666968,
    0.074999999997107,
    0.044642857599508805,
    0.03038191641231931,
    0.022373038158633403,
    0.01733677054749461,
    0.014144797983262753,
    0.010267846139339589,
    0.015519534995479074,
    -0.00696259784775532,
    0.027984095241588475,
];

/// A point on the unit sphere. Made once for each place and region, so that a distance costs one arcsine and no other
/// trigonometry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Direction([f64; 3]);

impl Direction {
    pub(super) fn of(coordinates: Coordinates) -> Self {
        let (sin_lat, cos_lat) = f64::from(coordinates.latitude).to_radians().sin_cos();
        let (sin_lon, cos_lon) = f64::from(coordinates.longitude).to_radians().sin_cos();
        Direction([cos_lat * cos_lon, cos_lat * sin_lon, sin_lat])
    }

    /// As [`Coordinates::distance_km`]. By the chord and not by the scalar product, whose arccosine loses its digits where two
    /// points are near.
    pub(super) fn distance_km(self, other: Direction) -> f64 {
        2.0 * EARTH_RADIUS_KM * arcsine((self.chord_squared(other).sqrt() / 2.0).min(1.0))
    }

    /// Length of the straight line between the two in kilometres. Likeness that falls with it is one that points on a globe can have
    /// (a covariance by great-circle distance need not be positive), and it costs no trigonometry.
    pub(super) fn chord_km(self, other: Direction) -> f64 {
        EARTH_RADIUS_KM * self.chord_squared(other).sqrt()
    }

    /// How far it lies along an axis (0 to 2), in Earth radii.
    pub(super) fn along(self, axis: usize) -> f64 {
        self.0[axis]
    }

    /// Squared length of the straight line between the two, in Earth radii: grows with distance, and costs less.
    pub(super) fn chord_squared(self, other: Direction) -> f64 {
        let ([ax, ay, az], [bx, by, bz]) = (self.0, other.0);
        (ax - bx).powi(2) + (ay - by).powi(2) + (az - bz).powi(2)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        geo::Place,
        latency::estimator::{Client, Estimator, Room},
    };

    #[test]
    fn the_arcsine_is_that_of_the_library() {
        for n in 0..=100_000 {
            let x = f64::from(n) / 1e5;
            assert!((arcsine(x) - x.asin()).abs() <= 1e-15, "{x}: {} {}", arcsine(x), x.asin());
        }
        assert_eq!(arcsine(0.0), 0.0);
    }

    const FRANKFURT: Coordinates = Coordinates { latitude: 50.11, longitude: 8.68 };
    const ASHBURN: Coordinates = Coordinates { latitude: 39.04, longitude: -77.49 };
    const SINGAPORE: Coordinates = Coordinates { latitude: 1.35, longitude: 103.82 };

    fn anywhere() -> impl Strategy<Value = Coordinates> {
        (-90.0f32..=90.0, -180.0f32..=180.0).prop_map(|(latitude, longitude)| Coordinates { latitude, longitude })
    }

    fn estimates(coordinates: Coordinates, sites: &[RegionSite]) -> Vec<Estimate> {
        let place = Place { coordinates: Some(coordinates), ..Place::default() };
        let told = Estimator::unmeasured(sites).estimates(&place, Client::default(), &mut Room::default());
        told.expect("the place is known").into_iter().map(|estimate| estimate.expect("so the model knows")).collect()
    }

    fn position_of_least<T: PartialOrd>(values: &[T]) -> usize {
        (0..values.len()).reduce(|best, i| if values[i] < values[best] { i } else { best }).expect("not empty")
    }

    proptest! {
        #[test]
        fn distances_agree_with_the_haversine_within_a_metre(a in anywhere(), b in anywhere()) {
            let km = Direction::of(a).distance_km(Direction::of(b));
            prop_assert!((km - a.distance_km(b)).abs() < 0.001, "{km} {}", a.distance_km(b));
        }

        #[test]
        fn distances_agree_for_neighbours_too(a in anywhere(), north in -0.01f32..0.01, east in -0.01f32..0.01) {
            let b = Coordinates { latitude: (a.latitude + north).clamp(-90.0, 90.0), longitude: a.longitude + east };
            let km = Direction::of(a).distance_km(Direction::of(b));
            prop_assert!((km - a.distance_km(b)).abs() < 1e-6, "{km} {}", a.distance_km(b));
        }

        #[test]
        fn distances_agree_for_antipodes(a in anywhere(), north in -0.01f32..0.01, east in -0.01f32..0.01) {
            let (latitude, longitude) = (-a.latitude + north, a.longitude + east);
            let b = Coordinates {
                latitude: latitude.clamp(-90.0, 90.0),
                longitude: if longitude > 0.0 { longitude - 180.0 } else { longitude + 180.0 },
            };
            let km = Direction::of(a).distance_km(Direction::of(b));
            prop_assert!((km - a.distance_km(b)).abs() < 0.001, "{km} {}", a.distance_km(b));
        }

        #[test]
        fn without_bias_the_lowest_estimate_is_the_nearest_region(
            client in anywhere(),
            regions in prop::collection::vec(anywhere(), 1..20),
        ) {
            let sites: Vec<_> = regions.iter().map(|c| RegionSite::new(*c, 0.0)).collect();
            let mut ms = vec![0.0; sites.len()];
            fill(client, &sites, &mut ms);
            let km: Vec<_> = regions.iter().map(|c| client.distance_km(*c)).collect();
            let (chosen, nearest) = (position_of_least(&ms), position_of_least(&km));
            prop_assert!(km[chosen] - km[nearest] < 0.01, "{} km chosen over {} km", km[chosen], km[nearest]);
        }

        #[test]
        fn filling_gives_the_milliseconds_of_the_estimates(client in anywhere(), region in anywhere(), bias_ms in -50.0f32..50.0) {
            let sites = [RegionSite::new(region, bias_ms), RegionSite::new(client, 0.0)];
            let mut ms = [0.0; 2];
            fill(client, &sites, &mut ms);
            let full = estimates(client, &sites);
            prop_assert_eq!(ms.to_vec(), full.iter().map(|e| e.ms).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_estimate_says_what_it_rests_on() {
        let sites = [RegionSite::new(ASHBURN, 0.0), RegionSite::new(FRANKFURT, 0.0), RegionSite::new(SINGAPORE, 0.0)];
        let found = estimates(FRANKFURT, &sites);
        assert_eq!(found.len(), 3);
        for estimate in &found {
            assert_eq!(
                (estimate.source, estimate.source.as_str(), estimate.samples),
                (EstimateSource::Model, "model", 0)
            );
            let km = estimate.distance_km.expect("both places are known");
            assert_eq!(estimate.ms, model::rtt_ms(km));
        }
        assert_eq!(found[1].distance_km, Some(0.0));
        assert!(found[1].ms < found[0].ms && found[0].ms < found[2].ms);
    }

    #[test]
    fn a_bias_is_added_to_the_region_alone() {
        let plain = estimates(FRANKFURT, &[RegionSite::new(ASHBURN, 0.0)])[0];
        let shed = estimates(FRANKFURT, &[RegionSite::new(ASHBURN, 30.0)])[0];
        assert_eq!(shed.ms, plain.ms + 30.0);
        assert_eq!(shed.distance_km, plain.distance_km);
    }

    #[test]
    fn a_penalty_is_added_to_the_region_alone_and_is_told() {
        let site = RegionSite::new(ASHBURN, 2.0).penalised(30.0);
        assert_eq!(site.penalty_ms(), 30.0);
        let [plain, risen] = [RegionSite::new(ASHBURN, 2.0), site].map(|site| estimates(FRANKFURT, &[site])[0]);
        assert_eq!((risen.ms, risen.source), (plain.ms + 30.0, EstimateSource::Model));
    }

    #[test]
    fn a_place_without_coordinates_has_no_estimates() {
        let estimator = Estimator::unmeasured(&[RegionSite::new(FRANKFURT, 0.0)]);
        assert_eq!(estimator.estimates(&Place::default(), Client::default(), &mut Room::default()), None);
    }

    #[test]
    fn no_regions_no_estimates() {
        assert_eq!(estimates(FRANKFURT, &[]), vec![]);
    }
}
