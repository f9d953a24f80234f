//! Which region for which client: the compiled map from addresses to rankings, the policies, and the snapshot that queries
//! read. Knows nothing of sockets and of the wire format.
#![deny(clippy::disallowed_methods)]

pub mod build;
mod feed;
pub mod force;
pub mod hash;
pub mod health;
pub mod map;
pub mod moves;
mod overlay;
pub mod plan;
pub mod policy;
mod ranges;
pub mod rate_limit;
pub mod signed;
pub mod snapshot;
pub mod standing;

pub use map::ClientMap;
pub use plan::{Family, Plan};
pub use rate_limit::RateLimiter;
pub use snapshot::Snapshot;
