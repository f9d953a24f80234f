//! What is believed of one network towards all regions at once: a joint normal distribution, and how a measurement towards some
//! of the regions changes it for all. Knows nothing of places and addresses; values are in units of the prior's spread.

use super::estimate::RegionSite;

/// How alike the errors towards two regions are: 1 towards one and the same, less the farther apart they are.
#[derive(Debug, Clone)]
pub struct Kinship {
    regions: usize,
    likeness: Vec<f64>, // row by row
}

impl Kinship {
    /// Of `sites`: far apart they share `common`, and the rest falls by 1/e over every `km` kilometres.
    pub fn new(sites: &[RegionSite], common: f64, km: f64) -> Self {
        let regions = sites.len();
        let mut likeness = vec![1.0; regions * regions];
        for (a, site) in sites.iter().enumerate() {
            for (b, other) in sites.iter().enumerate().filter(|(b, _)| *b != a) {
                let distance_km = site.direction().distance_km(other.direction());
                likeness[a * regions + b] = common + (1.0 - common) * (-distance_km / km).exp();
            }
        }
        Kinship { regions, likeness }
    }

    /// The likeness of two regions, 0 to 1.
    pub fn of(&self, a: usize, b: usize) -> f64 {
        self.likeness[a * self.regions + b]
    }

    /// How many regions there are.
    pub fn regions(&self) -> usize {
        self.regions
    }
}

/// Mean and variance of the error towards each region.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Belief {
    /// The mean, by region.
    pub mean: Vec<f32>,
    /// The variance, by region.
    pub var: Vec<f32>,
}

/// A measurement towards one region.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observed {
    /// Which, by its position.
    pub region: usize,
    /// The error of the model that it shows.
    pub error: f32,
    /// How uncertain that is by itself.
    pub noise_var: f32,
}

/// Most measurements of one network that are taken together. Of more, the lowest decide: those beyond change their own regions
/// alone, so that a network that was measured to 250 regions costs no more than others.
const JOINT_MAX: usize = 32;

/// The room that conditioning works in, kept from one network to the next.
#[derive(Debug, Default)]
pub struct Workspace {
    factor: Vec<f64>,
    weights: Vec<f64>,
    cross: Vec<f64>,
}

impl Belief {
    /// Nothing known: mean 0 and variance `var` towards each region.
    pub fn blank(regions: usize, var: f32) -> Self {
        Belief { mean: vec![0.0; regions], var: vec![var; regions] }
    }

    /// Takes in what was measured, by the rules for normal distributions (Rasmussen and Williams, "Gaussian Processes for Machine
    /// Learning", 2006, equations 2.22 to 2.24). Regions stand in the order of their value: the lowest first in `observed`, if it
    /// is long.
    pub fn take_in(&mut self, kinship: &Kinship, observed: &[Observed], room: &mut Workspace) {
        let (joint, alone) = observed.split_at(observed.len().min(JOINT_MAX));
        for one in alone {
            let gain = self.var[one.region] / (self.var[one.region] + one.noise_var);
            self.mean[one.region] += gain * (one.error - self.mean[one.region]);
            self.var[one.region] *= 1.0 - gain;
        }
        if joint.is_empty() {
            return;
        }
        let n = joint.len();
        let sd = |belief: &Belief, region: usize| f64::from(belief.var[region].max(0.0)).sqrt();
        room.factor.clear();
        room.factor.resize(n * n, 0.0);
        for (i, a) in joint.iter().enumerate() {
            for (j, b) in joint[..=i].iter().enumerate() {
                let noise = if i == j { f64::from(a.noise_var) } else { 0.0 };
                room.factor[i * n + j] =
                    sd(self, a.region) * sd(self, b.region) * kinship.of(a.region, b.region) + noise;
            }
        }
        factorize(&mut room.factor, n);
        room.weights.clear();
        room.weights.extend(joint.iter().map(|one| f64::from(one.error - self.mean[one.region])));
        solve_lower(&room.factor, n, &mut room.weights);
        let sds: Vec<f64> = joint.iter().map(|one| sd(self, one.region)).collect();
        for region in 0..self.mean.len() {
            let own = sd(self, region);
            room.cross.clear();
            room.cross.extend(joint.iter().zip(&sds).map(|(one, sd)| own * sd * kinship.of(region, one.region)));
            solve_lower(&room.factor, n, &mut room.cross);
            let shift: f64 = room.cross.iter().zip(&room.weights).map(|(a, b)| a * b).sum();
            let gained: f64 = room.cross.iter().map(|a| a * a).sum();
            self.mean[region] += shift as f32;
            self.var[region] = (own * own - gained).max(0.0) as f32;
        }
    }
}

/// The lower Cholesky factor in place of a positive matrix's lower half (row by row, `n` by `n`).
pub(super) fn factorize(matrix: &mut [f64], n: usize) {
    for i in 0..n {
        for j in 0..=i {
            let (row_i, row_j) = (i * n, j * n);
            let mut sum = matrix[row_i + j];
            for k in 0..j {
                sum -= matrix[row_i + k] * matrix[row_j + k];
            }
            matrix[row_i + j] = if i == j { sum.max(PIVOT_MIN).sqrt() } else { sum / matrix[row_j + j] };
        }
    }
}

/// A pivot that rounding made 0 or less is lifted to this: the two measurements say the same.
const PIVOT_MIN: f64 = 1e-12;

/// Solves `factor · x = values` in place of the values.
pub(super) fn solve_lower(factor: &[f64], n: usize, values: &mut [f64]) {
    for i in 0..n {
        let mut sum = values[i];
        for k in 0..i {
            sum -= factor[i * n + k] * values[k];
        }
        values[i] = sum / factor[i * n + i];
    }
}

/// Solves `factorᵀ · x = values` in place of the values.
pub(super) fn solve_upper(factor: &[f64], n: usize, values: &mut [f64]) {
    for i in (0..n).rev() {
        let mut sum = values[i];
        for k in i + 1..n {
            sum -= factor[k * n + i] * values[k];
        }
        values[i] = sum / factor[i * n + i];
    }
}
