//! The smooth field of errors: what the networks of one part of the world have in common towards each region, read off the places
//! around that have been measured (kriging). Knows places as points on the globe; values are in units of the prior's spread.

use super::{
    belief::{Belief, Kinship, Observed, Workspace, factorize, solve_transposed},
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
    directions: Vec<Direction>, // from south to north
    error: Vec<f32>,            // region by region, site after site
    noise_var: Vec<f32>,        // likewise; infinite where the site says nothing
}

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
            error: Vec::with_capacity(sites.len() * regions),
            noise_var: Vec::with_capacity(sites.len() * regions),
        };
        let mut room = Workspace::default();
        let mut order: Vec<&Site> = sites.iter().collect();
        order.sort_by(|a, b| a.direction.height().total_cmp(&b.direction.height()));
        for site in order {
            let local_var = prior.local_var / site.networks.max(1) as f32;
            let before_var = prior.field_var + local_var;
            let mut belief = Belief::blank(regions, before_var);
            belief.take_in(kinship, &site.observed, &mut room);
            field.directions.push(site.direction);
            for (mean, var) in belief.mean.iter().zip(&belief.var) {
                // What an independent observation would have said to lead from the prior to this.
                let precision = 1.0 / var.max(1e-6) - 1.0 / before_var;
                if precision < PRECISION_MIN {
                    field.error.push(0.0);
                    field.noise_var.push(f32::INFINITY);
                } else {
                    field.error.push(mean / var.max(1e-6) / precision);
                    field.noise_var.push(local_var + 1.0 / precision);
                }
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
        for region in 0..self.regions {
            self.krige(region, room, out);
        }
    }

    /// The nearest sites, nearest first. Looks north and south of the place alternately, and no farther than the last of the near
    /// ones: a site is at least as far as its latitude.
    fn find_neighbours(&self, direction: Direction, room: &mut FieldRoom) {
        let height = direction.height();
        let near = &mut room.near;
        near.clear();
        let middle = self.directions.partition_point(|other| other.height() < height);
        let (mut north, mut south) = (middle, middle);
        loop {
            let gap = |site: Option<usize>| {
                site.and_then(|site| self.directions.get(site))
                    .map_or(f64::INFINITY, |other| (other.height() - height).powi(2))
            };
            let (to_north, to_south) = (gap(Some(north)), gap(south.checked_sub(1)));
            let reach = if near.len() == NEIGHBOURS { near[NEIGHBOURS - 1].0 } else { f64::INFINITY };
            if to_north.min(to_south) >= reach {
                break;
            }
            let index = if to_north <= to_south { north } else { south - 1 };
            if to_north <= to_south {
                north += 1;
            } else {
                south -= 1;
            }
            let nearness = direction.chord_squared(self.directions[index]);
            if nearness < reach {
                near.truncate(NEIGHBOURS - 1);
                near.insert(near.partition_point(|(other, _)| *other <= nearness), (nearness, index));
            }
        }
        for (nearness, index) in near.iter_mut() {
            *nearness = direction.chord_km(self.directions[*index]);
        }
        let reach_km = REACH * self.prior.field_km;
        near.retain(|(km, _)| *km <= reach_km);
    }

    fn krige(&self, region: usize, room: &mut FieldRoom, out: &mut Belief) {
        room.used.clear();
        let tells = |near: usize| self.noise_var[room.near[near].1 * self.regions + region].is_finite();
        room.used.extend((0..room.near.len()).filter(|near| tells(*near)));
        let n = room.used.len();
        if n == 0 {
            return;
        }
        room.factor.clear();
        room.factor.resize(n * n, 0.0);
        room.values.clear();
        room.cross.clear();
        for (i, a) in room.used.iter().enumerate() {
            for (j, b) in room.used[..=i].iter().enumerate() {
                room.factor[j * n + i] = room.between[a * (a + 1) / 2 + b];
            }
            let slot = room.near[*a].1 * self.regions + region;
            room.factor[i * n + i] += f64::from(self.noise_var[slot]);
            room.values.push(f64::from(self.error[slot]));
            room.cross.push(room.towards[*a]);
        }
        factorize(&mut room.factor, n);
        solve_transposed(&room.factor, n, &mut room.values);
        solve_transposed(&room.factor, n, &mut room.cross);
        let mean: f64 = room.values.iter().zip(&room.cross).map(|(a, b)| a * b).sum();
        let gained: f64 = room.cross.iter().map(|a| a * a).sum();
        out.mean[region] = mean as f32;
        out.var[region] = (f64::from(self.prior.field_var) - gained).max(0.0) as f32;
    }
}

/// Below this an observation says nothing worth its time.
const PRECISION_MIN: f32 = 1e-3;

/// The room that [`Field::at`] works in.
#[derive(Debug, Default)]
pub struct FieldRoom {
    near: Vec<(f64, usize)>, // nearest first: distance in km, site
    between: Vec<f64>,       // covariances of the near ones, lower half row by row
    towards: Vec<f64>,
    used: Vec<usize>,
    factor: Vec<f64>,
    values: Vec<f64>,
    cross: Vec<f64>,
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
        Kinship::new(&sites, PRIOR.regions_common, PRIOR.regions_km)
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
