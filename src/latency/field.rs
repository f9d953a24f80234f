//! The smooth field of errors: what the networks of one part of the world have in common towards each region, read off the places
//! around that have been measured (kriging). Knows places as points on the globe; values are in units of the prior's spread.

use std::ops::Range;

use super::{
    belief::{Belief, Kinship, Observed, Workspace},
    estimate::Direction,
    prior::Prior,
};

/// A place whose networks were measured.
#[derive(Debug, Clone)]
pub struct Site {
    /// Where.
    pub direction: Direction,
    /// How many networks.
    pub networks: u32,
    /// The mean error of its networks towards the regions that were measured.
    pub observed: Vec<Observed>,
}

/// The measured places as the field sees them.
#[derive(Debug, Clone)]
pub struct Field {
    prior: Prior,
    regions: usize,
    directions: Vec<Direction>,   // as a tree: see `arrange`
    error: Vec<[f32; LANES]>,     // region by region, some at a time, site after site
    noise_var: Vec<[f32; LANES]>, // likewise; [`SILENT_VAR`] where the site says nothing
}

/// So many regions are worked out at a time. Their equations differ in the noise alone, so the processor takes several numbers at once:
/// a map needs some ten thousand places towards each region.
const LANES: usize = 4;
type Lanes = [f64; LANES];
/// The noise of a site that says nothing: so large that it changes nothing.
const SILENT_VAR: f32 = 1e12;
/// A pivot that rounding made 0 or less is lifted to this: two sites say the same.
const PIVOT_MIN: f64 = 1e-12;

/// So many measured places around tell of a place.
const NEIGHBOURS: usize = 12;
/// Farther than so many times the prior's distance nothing is alike any more.
const REACH: f64 = 5.0;

impl Field {
    /// Each site's measurements speak for the regions that it was not measured to as far as regions are alike; what a site says of
    /// a region so is one uncertain observation of the field.
    pub fn new(prior: &Prior, kinship: &Kinship, sites: &[Site]) -> Self {
        let regions = kinship.regions();
        let mut field = Field {
            prior: *prior,
            regions,
            directions: Vec::with_capacity(sites.len()),
            error: Vec::with_capacity(sites.len() * regions.div_ceil(LANES)),
            noise_var: Vec::with_capacity(sites.len() * regions.div_ceil(LANES)),
        };
        let mut room = Workspace::default();
        let mut order: Vec<&Site> = sites.iter().collect();
        arrange(&mut order, 0);
        for site in order {
            let local_var = prior.local_var / site.networks.max(1) as f32;
            let before_var = prior.field_var + local_var;
            let mut belief = Belief::blank(regions, before_var);
            belief.take_in(kinship, &site.observed, &mut room);
            field.directions.push(site.direction);
            for first in (0..regions).step_by(LANES) {
                let (mut error, mut noise_var) = ([0.0; LANES], [SILENT_VAR; LANES]);
                for (lane, region) in (first..regions.min(first + LANES)).enumerate() {
                    let (mean, var) = (belief.mean[region], belief.var[region].max(1e-6));
                    // What an independent observation would have said to lead from the prior to this.
                    let precision = 1.0 / var - 1.0 / before_var;
                    if precision >= PRECISION_MIN {
                        error[lane] = mean / var / precision;
                        noise_var[lane] = local_var + 1.0 / precision;
                    }
                }
                field.error.push(error);
                field.noise_var.push(noise_var);
            }
        }
        field
    }

    /// True when nothing was measured: the field is 0 everywhere.
    pub fn is_empty(&self) -> bool {
        self.directions.is_empty()
    }

    /// Mean and variance of the field at a place, towards each region.
    pub fn at(&self, direction: Direction, room: &mut FieldRoom, out: &mut Belief) {
        out.mean.clear();
        out.mean.resize(self.regions, 0.0);
        out.var.clear();
        out.var.resize(self.regions, self.prior.field_var);
        self.find_neighbours(direction, room);
        let n = room.near.len();
        if n == 0 {
            return;
        }
        let field_var = f64::from(self.prior.field_var);
        let likeness = |km: f64| field_var * (-km / self.prior.field_km).exp();
        room.between.clear();
        room.towards.clear();
        for (i, (km, a)) in room.near.iter().enumerate() {
            room.towards.push(likeness(*km));
            for (_, b) in &room.near[..i] {
                room.between.push(likeness(self.directions[*a].chord_km(self.directions[*b])));
            }
            room.between.push(field_var);
        }
        for first in (0..self.regions).step_by(LANES) {
            let (mean, var) = self.krige(first / LANES, room);
            let count = LANES.min(self.regions - first);
            for lane in 0..count {
                out.mean[first + lane] = mean[lane] as f32;
                out.var[first + lane] = var[lane] as f32;
            }
        }
    }

    /// The nearest sites, nearest first.
    fn find_neighbours(&self, direction: Direction, room: &mut FieldRoom) {
        let near = &mut room.near;
        near.clear();
        self.search(0..self.directions.len(), 0, direction, near);
        for (nearness, index) in near.iter_mut() {
            *nearness = direction.chord_km(self.directions[*index]);
        }
        let reach_km = REACH * self.prior.field_km;
        near.retain(|(km, _)| *km <= reach_km);
    }

    /// Looks through a part of the tree that is split along this axis: on the side of the place first, and on the other only if
    /// something there can be nearer than what is known.
    fn search(&self, part: Range<usize>, axis: usize, direction: Direction, near: &mut Vec<(f64, usize)>) {
        if part.len() <= LEAF {
            part.for_each(|site| self.consider(site, direction, near));
            return;
        }
        let middle = part.start + part.len() / 2;
        let gap = direction.along(axis) - self.directions[middle].along(axis);
        let (below, above) = (part.start..middle, middle + 1..part.end);
        let (first, second) = if gap < 0.0 { (below, above) } else { (above, below) };
        self.search(first, (axis + 1) % 3, direction, near);
        self.consider(middle, direction, near);
        if gap * gap < reach(near) {
            self.search(second, (axis + 1) % 3, direction, near);
        }
    }

    fn consider(&self, site: usize, direction: Direction, near: &mut Vec<(f64, usize)>) {
        let nearness = direction.chord_squared(self.directions[site]);
        if nearness < reach(near) {
            near.truncate(NEIGHBOURS - 1);
            near.insert(near.partition_point(|(other, _)| *other <= nearness), (nearness, site));
        }
    }

    /// Mean and variance towards some regions at once: `k' (K + N)^-1 z` and what is left of the prior's, by the Cholesky factor of
    /// `K + N`, row by row; `z` and `k` are solved as two rows more. Every number is finished before it is written, and what it is made of
    /// lies side by side.
    fn krige(&self, group: usize, room: &mut FieldRoom) -> (Lanes, Lanes) {
        let n = room.near.len();
        let groups = self.regions.div_ceil(LANES);
        let FieldRoom { near, between, towards, factor, values, cross, .. } = room;
        factor.clear();
        values.clear();
        cross.clear();
        let mut inverses = [[0.0; LANES]; NEIGHBOURS];
        let (mut mean, mut var) = ([0.0; LANES], [f64::from(self.prior.field_var); LANES]);
        for i in 0..n {
            let slot = near[i].1 * groups + group;
            let start = row_start(i);
            for j in 0..i {
                let done = factor[start..].iter().zip(&factor[row_start(j)..]);
                let value = done.fold([between[start + j]; LANES], |value, (a, b)| less(value, times(*a, *b)));
                factor.push(times(value, inverses[j]));
            }
            let row = &factor[start..];
            let noisy = self.noise_var[slot].map(|noise_var| between[start + i] + f64::from(noise_var));
            let pivot = row.iter().fold(noisy, |value, a| less(value, times(*a, *a)));
            let inverse = pivot.map(|pivot| 1.0 / pivot.max(PIVOT_MIN).sqrt());
            let solved = |right: Lanes, done: &[Lanes]| {
                times(row.iter().zip(done).fold(right, |value, (a, b)| less(value, times(*a, *b))), inverse)
            };
            let (error, likeness) =
                (solved(self.error[slot].map(f64::from), values), solved([towards[i]; LANES], cross));
            mean = less(mean, times(error, likeness.map(|value| -value)));
            var = less(var, times(likeness, likeness));
            inverses[i] = inverse;
            values.push(error);
            cross.push(likeness);
            factor.push(pivot); // keeps the rows apart: nothing reads the diagonal
        }
        (mean, var.map(|var| var.max(0.0)))
    }
}

/// Where a row of a lower half begins that is kept row by row.
fn row_start(row: usize) -> usize {
    row * (row + 1) / 2
}

#[inline(always)]
fn times(a: Lanes, b: Lanes) -> Lanes {
    std::array::from_fn(|lane| a[lane] * b[lane])
}

#[inline(always)]
fn less(a: Lanes, b: Lanes) -> Lanes {
    std::array::from_fn(|lane| a[lane] - b[lane])
}

/// A part of the tree of so many sites is not split any more.
const LEAF: usize = 8;

/// Orders sites as a tree: the one in the middle splits the others along an axis, and so do those in the middle of either half along the
/// next one (Bentley, "Multidimensional Binary Search Trees Used for Associative Searching", Communications of the ACM 1975).
fn arrange(sites: &mut [&Site], axis: usize) {
    if sites.len() <= LEAF {
        return;
    }
    let along = |site: &&Site| site.direction.along(axis);
    let (below, _, above) = sites.select_nth_unstable_by(sites.len() / 2, |a, b| along(a).total_cmp(&along(b)));
    arrange(below, (axis + 1) % 3);
    arrange(above, (axis + 1) % 3);
}

/// Whatever is farther than this is none of the nearest sites.
fn reach(near: &[(f64, usize)]) -> f64 {
    if near.len() == NEIGHBOURS { near[NEIGHBOURS - 1].0 } else { f64::INFINITY }
}

/// Below this an observation says nothing worth its time.
const PRECISION_MIN: f32 = 1e-3;

/// The room that [`Field::at`] works in.
#[derive(Debug, Default)]
pub struct FieldRoom {
    near: Vec<(f64, usize)>, // nearest first: distance in km, site
    between: Vec<f64>,       // covariances of the near ones, lower half row by row
    towards: Vec<f64>,
    factor: Vec<Lanes>, // likewise
    values: Vec<Lanes>,
    cross: Vec<Lanes>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::estimate::RegionSite, *};
    use crate::geo::Coordinates;

    const PRIOR: Prior = Prior::FITTED;

    fn at(latitude: f32, longitude: f32) -> Coordinates {
        Coordinates { latitude, longitude }
    }

    fn kinship() -> Kinship {
        let sites = [at(39.0, -77.0), at(50.0, 8.0), at(1.0, 103.0)].map(|place| RegionSite::new(place, 0.0));
        Kinship::new(&sites, PRIOR.regions_common, PRIOR.regions_km, PRIOR.regions_own)
    }

    fn site(place: Coordinates, networks: u32, errors: &[(usize, f32)]) -> Site {
        let noise_var = 0.01 / networks as f32;
        let observed = errors.iter().map(|(region, error)| Observed { region: *region, error: *error, noise_var });
        Site { direction: Direction::of(place), networks, observed: observed.collect() }
    }

    fn told(sites: &[Site], place: Coordinates) -> Belief {
        let mut out = Belief::default();
        Field::new(&PRIOR, &kinship(), sites).at(Direction::of(place), &mut FieldRoom::default(), &mut out);
        out
    }

    #[test]
    fn near_a_measured_place_its_errors_are_expected_and_far_away_none() {
        let sites = [site(at(52.0, 13.0), 50, &[(0, 2.0), (1, -1.0)])];
        let (near, far) = (told(&sites, at(52.0, 14.0)), told(&sites, at(-35.0, 150.0)));
        assert!(near.mean[0] > 1.4 && near.mean[1] < -0.4, "{near:?}");
        assert!(near.var[0] < far.var[0], "{near:?}");
        assert!(far.mean[0].abs() < 0.1 && far.var[0] > 0.99 * PRIOR.field_var, "{far:?}");
    }

    #[test]
    fn many_networks_of_a_place_say_more_than_one() {
        let one = told(&[site(at(52.0, 13.0), 1, &[(0, 2.0)])], at(52.0, 13.0));
        let many = told(&[site(at(52.0, 13.0), 100, &[(0, 2.0)])], at(52.0, 13.0));
        assert!(one.mean[0] < many.mean[0] && one.var[0] > many.var[0], "{one:?} {many:?}");
    }

    #[test]
    fn without_measured_places_there_is_no_field() {
        let field = Field::new(&PRIOR, &kinship(), &[]);
        assert!(field.is_empty());
        assert_eq!(told(&[], at(0.0, 0.0)), Belief::blank(3, PRIOR.field_var));
    }

    proptest! {
        #[test]
        fn the_nearest_sites_are_found_wherever_they_are(
            places in prop::collection::vec((-90.0f32..90.0, -180.0f32..180.0), 0..300),
            latitude in -90.0f32..90.0, longitude in -180.0f32..180.0,
        ) {
            let sites: Vec<Site> = places.iter().map(|(lat, lon)| site(at(*lat, *lon), 1, &[])).collect();
            let (here, mut room) = (Direction::of(at(latitude, longitude)), FieldRoom::default());
            Field::new(&PRIOR, &kinship(), &sites).find_neighbours(here, &mut room);
            let mut all: Vec<f64> = sites.iter().map(|site| here.chord_km(site.direction)).collect();
            all.sort_by(f64::total_cmp);
            let expected: Vec<f64> = all.into_iter().take(NEIGHBOURS).filter(|km| *km <= REACH * PRIOR.field_km).collect();
            prop_assert_eq!(room.near.iter().map(|(km, _)| *km).collect::<Vec<_>>(), expected);
        }

        #[test]
        fn the_field_stays_within_what_was_observed(
            places in prop::collection::vec((-60.0f32..60.0, -170.0f32..170.0, -3.0f32..3.0), 1..40),
            latitude in -80.0f32..80.0, longitude in -180.0f32..180.0,
        ) {
            let sites: Vec<Site> = places.iter().map(|(lat, lon, error)| site(at(*lat, *lon), 3, &[(0, *error)])).collect();
            let found = told(&sites, at(latitude, longitude));
            for (mean, var) in found.mean.iter().zip(&found.var) {
                prop_assert!(mean.abs() <= 4.5, "{found:?}");
                prop_assert!(*var >= 0.0 && *var <= PRIOR.field_var * 1.0001, "{found:?}");
            }
        }
    }
}
