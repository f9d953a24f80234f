//! Where things are: coordinates and distance, location databases, the built-in table, the gazetteer of cloud regions
//! and airports. Knows nothing of latency.

pub mod gazetteer;
pub mod place;

pub use place::{Continent, Coordinates, CountryCode, Place};
