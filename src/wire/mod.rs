//! Bytes of the DNS wire format: names, header, question, EDNS, ECS, cookies. Parses and writes; knows nothing of zones,
//! regions or clients' places.
#![deny(clippy::disallowed_methods)]

pub mod name;

pub use name::{Name, NameError};
