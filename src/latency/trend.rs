//! How far the distance model is off on the whole: one line over its milliseconds, one offset for each region, and detours as far as
//! they count. Values are in units of the prior's spread.

use super::{
    belief::{factorize, solve, solve_transposed},
    prior::Prior,
};

/// The model's error on the whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Trend {
    intercept: f32,
    slope: f32, // per 100 ms of the model
    detour: f32,
    offsets: Vec<f32>,
}

/// One observed error.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    /// The region, by its position.
    pub region: usize,
    /// What the model says, in milliseconds.
    pub model_ms: f32,
    /// By how much the way there is longer than the model has it ([`super::detours`]).
    pub detour: f32,
    /// How far off it is.
    pub error: f32,
    /// Variance of the error about the trend.
    pub var: f32,
}

impl Trend {
    /// What is believed before anything is measured.
    pub fn unmeasured(prior: &Prior, regions: usize) -> Self {
        Trend { intercept: 0.0, slope: 0.0, detour: prior.detour_mean, offsets: vec![0.0; regions] }
    }

    /// Ridge regression: the posterior mean of line, detours' share and offsets under the prior's variances.
    pub fn fit(prior: &Prior, regions: usize, points: impl Iterator<Item = Point>) -> Self {
        let n = regions + 3;
        let (mut normal, mut right) = (vec![0.0f64; n * n], vec![0.0f64; n]);
        let mut is_empty = true;
        for point in points {
            is_empty = false;
            let weight = 1.0 / f64::from(point.var);
            let terms = [
                (0, 1.0),
                (1, f64::from(point.model_ms) / 100.0),
                (DETOUR, point.detour.into()),
                (3 + point.region, 1.0),
            ];
            for (i, a) in terms {
                right[i] += weight * a * f64::from(point.error);
                for (j, b) in terms {
                    normal[i * n + j] += weight * a * b;
                }
            }
        }
        if is_empty {
            return Trend::unmeasured(prior, regions);
        }
        for i in 0..n {
            let (mean, var) = match i {
                0 => (0.0, prior.intercept_var),
                1 => (0.0, prior.slope_var),
                DETOUR => (prior.detour_mean, prior.detour_var),
                _ => (0.0, prior.offset_var),
            };
            normal[i * n + i] += 1.0 / f64::from(var);
            right[i] += f64::from(mean) / f64::from(var);
        }
        let mut found = solved(normal.clone(), right.clone());
        let detour = found[DETOUR].clamp(0.0, 1.0);
        if detour != found[DETOUR] {
            hold(&mut normal, &mut right, DETOUR, detour);
            found = solved(normal, right);
        }
        let offsets = found[3..].iter().map(|offset| *offset as f32).collect();
        Trend { intercept: found[0] as f32, slope: found[1] as f32, detour: detour as f32, offsets }
    }

    /// By how much detours count, 0 to 1.
    pub fn detour(&self) -> f32 {
        self.detour
    }

    /// The error to expect towards a region where the model says `model_ms` and there is no detour.
    pub fn at(&self, region: usize, model_ms: f32) -> f32 {
        self.intercept + self.slope * model_ms / 100.0 + self.offsets[region]
    }
}

/// The place of detours among the terms.
const DETOUR: usize = 2;

/// The solution of a system of equations whose matrix is positive, row by row.
fn solved(mut matrix: Vec<f64>, mut right: Vec<f64>) -> Vec<f64> {
    let n = right.len();
    factorize(&mut matrix, n);
    solve_transposed(&matrix, n, &mut right);
    solve(&matrix, n, &mut right);
    right
}

/// Takes one of the unknowns for known, so that the others are fitted beside it.
fn hold(matrix: &mut [f64], right: &mut [f64], unknown: usize, value: f64) {
    let n = right.len();
    for i in 0..n {
        right[i] -= matrix[i * n + unknown] * value;
        matrix[i * n + unknown] = 0.0;
        matrix[unknown * n + i] = 0.0;
    }
    matrix[unknown * n + unknown] = 1.0;
    right[unknown] = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(error: impl Fn(usize, f32) -> f32, n: usize) -> Vec<Point> {
        let point = |k: usize| {
            let (region, model_ms) = (k % 4, 5.0 + (k * 37 % 200) as f32);
            Point { region, model_ms, detour: 0.0, error: error(region, model_ms), var: 1.0 }
        };
        (0..n).map(point).collect()
    }

    #[test]
    fn a_line_and_the_offsets_of_regions_are_found_again() {
        let truth = |region: usize, ms: f32| 0.3 + 0.2 * ms / 100.0 + [0.0, 0.5, -0.5, 0.0][region];
        let trend = Trend::fit(&Prior::FITTED, 4, points(truth, 4000).into_iter());
        for (region, ms) in [(0, 20.0), (1, 150.0), (2, 80.0)] {
            assert!((trend.at(region, ms) - truth(region, ms)).abs() < 0.03, "{region} {ms}: {}", trend.at(region, ms));
        }
    }

    #[test]
    fn detours_count_from_not_at_all_to_in_full_and_the_rest_is_fitted_beside() {
        let detour = |region: usize| if region == 1 { 2.0 } else { 0.0 };
        for (factor, counts, left) in [(0.5, 0.5, 0.0), (-0.4, 0.0, -0.8), (1.5, 1.0, 1.0)] {
            let mut points = points(|region, _| factor * detour(region), 4000);
            points.iter_mut().for_each(|point| point.detour = detour(point.region));
            let prior = Prior { detour_var: 100.0, ..Prior::FITTED };
            let trend = Trend::fit(&prior, 4, points.into_iter());
            assert!((trend.detour() - counts).abs() < 0.1, "{factor}: {trend:?}");
            let rest = trend.at(1, 50.0) + trend.detour() * 2.0 - factor * 2.0;
            assert!(rest.abs() < 0.1 && (trend.at(1, 50.0) - left).abs() < 0.3, "{factor}: {trend:?}");
        }
    }

    #[test]
    fn one_network_does_not_make_detours_count_for_all() {
        let point = Point { region: 0, model_ms: 52.0, detour: 3.5, error: 4.0, var: 0.9 };
        let one = Trend::fit(&Prior::FITTED, 4, std::iter::once(point)).detour();
        let some_go_round = |k: usize| match k / 4 % 2 {
            0 => Point { region: k % 4, ..point },
            _ => Point { region: k % 4, detour: 0.0, error: 0.0, ..point },
        };
        let many = Trend::fit(&Prior::FITTED, 4, (0..200).map(some_go_round)).detour();
        assert!(one < 0.3 && many > 0.7, "{one} {many}");
    }

    #[test]
    fn a_few_points_say_little() {
        let trend = Trend::fit(&Prior::FITTED, 4, points(|_, _| 1.0, 1).into_iter());
        assert!(trend.at(3, 50.0) > 0.0 && trend.at(3, 50.0) < 0.5, "{trend:?}");
        assert_eq!(Trend::fit(&Prior::FITTED, 4, std::iter::empty()), Trend::unmeasured(&Prior::FITTED, 4));
    }
}
