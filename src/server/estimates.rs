//! What the metrics tell of the estimates: what they rest on, and how good they are by the measurements themselves.

use std::time::SystemTime;

use super::world::{World, unix_s};
use crate::{
    config::Config,
    geo::Coordinates,
    latency::{
        Prior, RegionSite,
        evaluate::{Evaluation, Trial, evaluate, sample},
        intake::Atlas,
        measurement::Row,
    },
    telemetry::metrics::Families,
};

/// So many rows are held out and judged each time that measurements are read.
const ROWS_JUDGED_MAX: usize = 3000;
/// In so many parts.
const FOLDS: usize = 2;

/// Judges the estimates by some of the measurements; `None` where there is nothing to judge by.
pub fn judge(config: &Config, rows: &[Row], atlas: &dyn Atlas) -> Option<Evaluation> {
    let rows = sample(rows, ROWS_JUDGED_MAX);
    let coordinates: Vec<Coordinates> = config.regions.iter().map(|region| region.coordinates).collect();
    let sites: Vec<RegionSite> = coordinates.iter().map(|at| RegionSite::new(*at, 0.0)).collect();
    let prior = Prior::with(config.latency.detours);
    let trial = Trial { prior: &prior, sites: &sites, coordinates: &coordinates, atlas, known: &[], rows: &rows };
    Some(evaluate(&trial, FOLDS)).filter(|found| found.networks > 0)
}

/// Adds the metrics of the estimates.
pub fn metrics(world: &World, families: &mut Families) {
    let counts = world.estimator.counts();
    families
        .gauge("latency_measurements", "Measured round trips in use (lines of files, and cells learnt).")
        .value(counts.rows as f64);
    families
        .gauge("latency_measurements_rejected", "Measured round trips left out when they were last read, by reason.")
        .sample([("reason", "faster-than-light")], counts.impossible as f64)
        .sample([("reason", "wrong-line")], world.measurements_skipped as f64);
    families
        .gauge("latency_measured_prefixes", "Prefixes with measurements of their own.")
        .value(counts.prefixes as f64);
    families
        .gauge("latency_path_jumps", "Jumps of a path seen within the measurements in use.")
        .value(counts.jumps as f64);
    if counts.rows > 0 {
        families
            .gauge("latency_newest_measurement_age_seconds", "Age of the newest measurement.")
            .value((counts.newest_s + world.measured_ago_s(unix_s(SystemTime::now()))) as f64);
    }
    let help = "IPv4 addresses by what the estimate towards their best region rests on.";
    let family = families.gauge("latency_coverage_addresses", help);
    for (source, addresses) in world.coverage.iter() {
        family.sample([("source", source.as_str())], addresses as f64);
    }
    let Some(quality) = &world.quality else { return };
    let help = "Mean absolute error of estimates for networks that were held out.";
    families.gauge("latency_prediction_error_seconds", help).value(quality.error_mean_ms() / 1e3);
    let help = "Mean time lost against the truly lowest region by networks that were held out, by what chooses.";
    let family = families.gauge("latency_regret_seconds", help);
    for score in &quality.scores {
        family.sample([("choice", score.method.as_str())], score.regret_mean_ms / 1e3);
    }
    let help = "Share of networks that were held out for which the truly lowest region was chosen, by what chooses.";
    let family = families.gauge("latency_right_ratio", help);
    for score in &quality.scores {
        family.sample([("choice", score.method.as_str())], score.right);
    }
}
