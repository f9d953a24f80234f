//! Where things are: coordinates and distance, location databases, the built-in table, the gazetteer of cloud regions
//! and airports. Knows nothing of latency.

mod ahead;
pub mod asn;
pub mod compile;
pub mod country;
mod data;
mod error;
mod files;
pub mod gazetteer;
pub mod locations;
mod mmdb;
pub mod network;
pub mod place;
mod ranges;
mod record;
pub mod special;
mod table;
mod tree;

pub use asn::AsnTable;
pub use error::GeoError;
pub use files::{FileInfo, Held};
pub use locations::{Coverage, Locations};
pub use network::Network;
pub use place::{Continent, Coordinates, CountryCode, Place};
