//! Milliseconds between a client's network and a region. Knows nothing of DNS.
#![deny(clippy::disallowed_methods)]

pub mod belief;
mod candidates;
mod cells;
mod detours;
pub mod estimate;
pub mod estimator;
pub mod evaluate;
mod field;
pub mod intake;
pub mod learn;
pub mod measurement;
pub mod model;
pub mod prefixes;
pub mod prior;
mod shift;
#[cfg(test)]
mod tests;
mod trend;

pub use estimate::{Estimate, EstimateSource, RegionSite};
pub use estimator::{Estimator, MeasuredPrefix};
pub use prior::Prior;
