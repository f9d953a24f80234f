//! The configuration file: text → `spec` (shapes with spans) → `check` (every error at once) → [`model`] (plain validated
//! types). Knows nothing of sockets.

pub mod model;
pub mod report;

pub use model::Config;
pub use report::{Problem, Report, Source, Spot};
