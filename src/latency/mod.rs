//! Milliseconds between a client's network and a region. Knows nothing of DNS.
#![deny(clippy::disallowed_methods)]

pub mod estimate;
pub mod learn;
pub mod model;

pub use estimate::{Estimate, EstimateSource, RegionSite, estimates, fill};
