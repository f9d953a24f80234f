//! What the measured networks of one cell of the globe have in common, summed up.

use super::ERROR_RANGE;
use crate::{
    config::model::RegionId,
    latency::{
        belief::Observed,
        estimate::Direction,
        estimator::Start,
        field::Site,
        prefixes::Cell,
        prior::Prior,
        trend::{Point, Trend},
    },
};

/// The networks of one cell of the globe.
pub struct Gathered {
    direction: Direction,
    /// Where its ways to other networks begin.
    pub start: Start,
    /// How many they are.
    pub networks: u32,
    sums: Vec<(RegionId, Sums)>, // in the order of the regions
}

/// Weighted sums over the networks that were measured to one region.
#[derive(Default)]
struct Sums {
    weight: f32,
    error: f32,
    model_ms: f32,
    detour: f32,
}

impl Gathered {
    /// None yet; `direction` and `start` are the cell's.
    pub fn new(direction: Direction, start: Start) -> Self {
        Gathered { direction, start, networks: 0, sums: Vec::new() }
    }

    /// Takes in what was measured for one of them, whose own errors have the variance `local_var`; `detour` is the cell's towards the
    /// region, in units of the spread.
    pub fn add(&mut self, prior: &Prior, local_var: f32, measured: &Cell, model_ms: f32, detour: f32) {
        let spread_ms = prior.spread_ms(model_ms);
        let noise_var = prior.noise_var_ms2(measured.rtt_ms, measured.weight) / (spread_ms * spread_ms);
        let weight = 1.0 / (local_var + noise_var);
        let error = ((measured.rtt_ms - model_ms) / spread_ms).clamp(ERROR_RANGE.0, ERROR_RANGE.1);
        let at = self.sums.binary_search_by_key(&measured.region, |(region, _)| *region).unwrap_or_else(|at| {
            self.sums.insert(at, (measured.region, Sums::default()));
            at
        });
        let sums = &mut self.sums[at].1;
        sums.weight += weight;
        sums.error += weight * error;
        sums.model_ms += weight * model_ms;
        sums.detour += weight * detour;
    }

    /// What the trend is fitted to.
    pub fn points(&self, prior: &Prior) -> impl Iterator<Item = Point> {
        self.sums.iter().map(|(region, sum)| Point {
            region: region.index(),
            model_ms: sum.model_ms / sum.weight,
            detour: sum.detour / sum.weight,
            error: sum.error / sum.weight,
            var: prior.field_var + 1.0 / sum.weight,
        })
    }

    /// What the field is fitted to, beside the trend.
    pub fn site(&self, prior: &Prior, trend: &Trend) -> Site {
        let local_var = prior.local_var / self.networks as f32;
        let observed = self.sums.iter().map(|(region, sums)| {
            let region = region.index();
            Observed {
                region,
                error: (sums.error - trend.detour() * sums.detour) / sums.weight
                    - trend.at(region, sums.model_ms / sums.weight),
                noise_var: (1.0 / sums.weight - local_var).max(NOISE_VAR_MIN),
            }
        });
        Site { direction: self.direction, networks: self.networks, observed: observed.collect() }
    }
}

/// No mean of measurements is surer than this.
const NOISE_VAR_MIN: f32 = 1e-4;
