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
    /// Of `sites`: far apart they share `common`, and the rest falls by 1/e over every `km` kilometres. But `own` of it is what each
    /// has by itself: two regions in one city are reached over other providers, and one that was measured is not the other.
    pub fn new(sites: &[RegionSite], common: f64, km: f64, own: f64) -> Self {
        let regions = sites.len();
        let mut likeness = vec![1.0; regions * regions];
        for (a, site) in sites.iter().enumerate() {
            for (b, other) in sites.iter().enumerate().filter(|(b, _)| *b != a) {
                let distance_km = site.direction().distance_km(other.direction());
                likeness[a * regions + b] = (1.0 - own) * (common + (1.0 - common) * (-distance_km / km).exp());
            }
        }
        Kinship { regions, likeness }
    }

    /// The likeness of two regions, 0 to 1.
    pub fn of(&self, a: usize, b: usize) -> f64 {
        self.likeness[a * self.regions + b]
    }

    /// The likeness of a region to each, in their order.
    pub fn row(&self, region: usize) -> &[f64] {
        &self.likeness[region * self.regions..][..self.regions]
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
    cross: Vec<f64>, // measurement by measurement, each with all regions
    sds: Vec<f64>,
    own_sds: Vec<f64>, // by region, and so are those below
    shift: Vec<f64>,
    gained: Vec<f64>,
}

impl Belief {
    /// Nothing known: mean 0 and variance `var` towards each region.
    pub fn blank(regions: usize, var: f32) -> Self {
        Belief { mean: vec![0.0; regions], var: vec![var; regions] }
    }

    /// Widens the belief where the measurements lie farther off than it allows for: some networks are far from all others, and theirs
    /// are not to be drawn towards the rest. As a Student distribution with `freedom` degrees would (the fewer, the sooner).
    pub fn loosen(&mut self, observed: &[Observed], freedom: f32) {
        let far = |one: &Observed| {
            let off = one.error - self.mean[one.region];
            off * off / (self.var[one.region] + one.noise_var)
        };
        let n = observed.len() as f32;
        let factor = (freedom + observed.iter().map(far).sum::<f32>()) / (freedom + n);
        if factor > 1.0 {
            self.var.iter_mut().for_each(|var| *var *= factor);
        }
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
        room.sds.clear();
        room.sds.extend(joint.iter().map(|one| sd(self, one.region)));
        room.factor.clear();
        room.factor.resize(n * n, 0.0);
        for (i, a) in joint.iter().enumerate() {
            for (j, b) in joint[..=i].iter().enumerate() {
                let noise = if i == j { f64::from(a.noise_var) } else { 0.0 };
                room.factor[j * n + i] = room.sds[i] * room.sds[j] * kinship.of(a.region, b.region) + noise;
            }
        }
        factorize(&mut room.factor, n);
        room.weights.clear();
        room.weights.extend(joint.iter().map(|one| f64::from(one.error - self.mean[one.region])));
        solve_transposed(&room.factor, n, &mut room.weights);
        let regions = self.mean.len();
        room.own_sds.clear();
        room.own_sds.extend((0..regions).map(|region| sd(self, region)));
        room.cross.clear();
        for (one, sd) in joint.iter().zip(&room.sds) {
            let alike = kinship.row(one.region);
            room.cross.extend(room.own_sds.iter().zip(alike).map(|(own, alike)| own * sd * alike));
        }
        room.carry_over(n, regions);
        for region in 0..regions {
            let own = room.own_sds[region];
            self.mean[region] += room.shift[region] as f32;
            self.var[region] = (own * own - room.gained[region]).max(0.0) as f32;
        }
    }
}

impl Workspace {
    /// What `n` measurements, solved in `weights`, change for each of the regions, and how much surer they make it: `cross` is solved by the
    /// factor for all regions at once, row by row, so that the processor takes several at a time.
    fn carry_over(&mut self, n: usize, regions: usize) {
        for sums in [&mut self.shift, &mut self.gained] {
            sums.clear();
            sums.resize(regions, 0.0);
        }
        for i in 0..n {
            let row = &self.factor[i * n + i..(i + 1) * n];
            let (done, below) = self.cross.split_at_mut((i + 1) * regions);
            let solved = &mut done[i * regions..];
            solved.iter_mut().for_each(|value| *value /= row[0]);
            for (lower, factor) in below.chunks_exact_mut(regions).zip(&row[1..]) {
                for (value, solved) in lower.iter_mut().zip(&*solved) {
                    *value -= solved * factor;
                }
            }
            let weight = self.weights[i];
            for ((shift, gained), solved) in self.shift.iter_mut().zip(&mut self.gained).zip(&*solved) {
                *shift += solved * weight;
                *gained += solved * solved;
            }
        }
    }
}

/// The upper Cholesky factor in place of a positive matrix's upper half (row by row, `n` by `n`). All loops run along rows, so that the
/// processor takes several numbers at a time: a map needs some hundred thousand of these.
pub(super) fn factorize(matrix: &mut [f64], n: usize) {
    for k in 0..n {
        let (done, below) = matrix.split_at_mut((k + 1) * n);
        let row = &mut done[k * n + k..];
        let pivot = row[0].max(PIVOT_MIN).sqrt();
        row.iter_mut().for_each(|value| *value /= pivot);
        row[0] = pivot;
        for (i, lower) in below.chunks_exact_mut(n).enumerate() {
            let factor = row[i + 1];
            for (value, above) in lower[k + 1 + i..].iter_mut().zip(&row[i + 1..]) {
                *value -= factor * above;
            }
        }
    }
}

/// A pivot that rounding made 0 or less is lifted to this: the two measurements say the same.
const PIVOT_MIN: f64 = 1e-12;

/// Solves `factorᵀ · x = values` in place of the values.
pub(super) fn solve_transposed(factor: &[f64], n: usize, values: &mut [f64]) {
    for i in 0..n {
        let row = &factor[i * n + i..(i + 1) * n];
        let solved = values[i] / row[0];
        values[i] = solved;
        for (value, above) in values[i + 1..].iter_mut().zip(&row[1..]) {
            *value -= solved * above;
        }
    }
}

/// Solves `factor · x = values` in place of the values.
pub(super) fn solve(factor: &[f64], n: usize, values: &mut [f64]) {
    for i in (0..n).rev() {
        let row = &factor[i * n + i..(i + 1) * n];
        let known: f64 = row[1..].iter().zip(&values[i + 1..]).map(|(a, b)| a * b).sum();
        values[i] = (values[i] - known) / row[0];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::geo::Coordinates;

    /// Regions along the equator, ten degrees apart.
    fn kinship(regions: usize) -> Kinship {
        let site = |n: usize| RegionSite::new(Coordinates { latitude: 0.0, longitude: 10.0 * n as f32 % 180.0 }, 0.0);
        Kinship::new(&(0..regions).map(site).collect::<Vec<_>>(), 0.3, 1500.0, 0.0)
    }

    fn observed(region: usize, error: f32, noise_var: f32) -> Observed {
        Observed { region, error, noise_var }
    }

    #[test]
    fn a_sure_measurement_is_believed_and_speaks_for_regions_near_it() {
        let mut belief = Belief::blank(4, 1.0);
        belief.take_in(&kinship(4), &[observed(1, 2.0, 1e-6)], &mut Workspace::default());
        assert!((belief.mean[1] - 2.0).abs() < 1e-3 && belief.var[1] < 1e-3, "{belief:?}");
        assert!(belief.mean[0] > 0.6 && belief.mean[0] < 2.0, "{belief:?}");
        assert!((belief.mean[0] - belief.mean[2]).abs() < 1e-3, "{belief:?}");
        assert!(belief.mean[3] < belief.mean[2] && belief.mean[3] > 0.5, "{belief:?}");
        assert!(belief.var[3] > belief.var[2] && belief.var[3] < 1.0, "{belief:?}");
    }

    #[test]
    fn two_measurements_are_weighed_against_each_other() {
        // By hand, for two regions of likeness c, variance 1 and noise v: the inverse of [[1+v, c], [c, 1+v]] is known.
        let (kinship, v) = (kinship(3), 0.5f64);
        let (c, far) = (kinship.of(0, 1), [kinship.of(2, 0), kinship.of(2, 1)]);
        let determinant = (1.0 + v) * (1.0 + v) - c * c;
        let weights = [((1.0 + v) * 2.0 + c) / determinant, (-(1.0 + v) - c * 2.0) / determinant];
        let expected =
            [weights[0] + c * weights[1], c * weights[0] + weights[1], far[0] * weights[0] + far[1] * weights[1]];
        for order in [[(0, 2.0), (1, -1.0)], [(1, -1.0), (0, 2.0)]] {
            let mut belief = Belief::blank(3, 1.0);
            belief.take_in(
                &kinship,
                &order.map(|(region, error)| observed(region, error, v as f32)),
                &mut Workspace::default(),
            );
            for (got, wanted) in belief.mean.iter().zip(expected) {
                assert!((f64::from(*got) - wanted).abs() < 1e-5, "{belief:?} {expected:?}");
            }
        }
    }

    #[test]
    fn a_vague_measurement_changes_little() {
        let mut belief = Belief::blank(2, 1.0);
        belief.take_in(&kinship(2), &[observed(0, 2.0, 99.0)], &mut Workspace::default());
        assert!((belief.mean[0] - 0.02).abs() < 1e-4, "{belief:?}");
    }

    #[test]
    fn a_network_far_from_all_others_is_not_drawn_towards_them() {
        let (near, far) = ([observed(0, 1.0, 0.1)], [observed(0, 12.0, 0.1)]);
        for (seen, least_share) in [(near, 0.9), (far, 0.99)] {
            let mut belief = Belief::blank(2, 1.0);
            belief.loosen(&seen, 4.0);
            belief.take_in(&kinship(2), &seen, &mut Workspace::default());
            assert!(belief.mean[0] / seen[0].error > least_share, "{belief:?}");
        }
    }

    #[test]
    fn nothing_measured_changes_nothing() {
        let mut belief = Belief::blank(3, 0.5);
        belief.take_in(&kinship(3), &[], &mut Workspace::default());
        assert_eq!(belief, Belief::blank(3, 0.5));
    }

    proptest! {
        #[test]
        fn measurements_never_make_anything_less_sure_and_numbers_stay_sound(
            errors in prop::collection::vec((0usize..40, -5.0f32..5.0, 0.0f32..10.0), 0..60),
        ) {
            let mut seen = Vec::new();
            for (region, error, noise_var) in errors {
                if !seen.iter().any(|one: &Observed| one.region == region) {
                    seen.push(observed(region, error, noise_var));
                }
            }
            let mut belief = Belief::blank(40, 1.0);
            belief.take_in(&kinship(40), &seen, &mut Workspace::default());
            for (mean, var) in belief.mean.iter().zip(&belief.var) {
                prop_assert!(mean.is_finite() && mean.abs() < 60.0, "{mean}");
                prop_assert!((0.0..=1.0001).contains(var), "{var}");
            }
        }

        #[test]
        fn factor_and_solutions_agree_with_the_matrix(values in prop::collection::vec(-3.0f64..3.0, 9), right in prop::collection::vec(-3.0f64..3.0, 3)) {
            // A positive matrix: M · Mᵀ + 1.
            let entry = |i: usize, j: usize| (0..3).map(|k| values[i * 3 + k] * values[j * 3 + k]).sum::<f64>() + f64::from(u8::from(i == j));
            let mut factor: Vec<f64> = (0..9).map(|n| entry(n / 3, n % 3)).collect();
            factorize(&mut factor, 3);
            let mut x = right.clone();
            solve_transposed(&factor, 3, &mut x);
            solve(&factor, 3, &mut x);
            for (i, wanted) in right.iter().enumerate() {
                let got: f64 = (0..3).map(|j| entry(i, j) * x[j]).sum();
                prop_assert!((got - wanted).abs() < 1e-6, "{got} {wanted}");
            }
        }
    }
}
