//! Isochrone: an authoritative DNS server that answers each client with the region that is nearest in milliseconds
//! and healthy right now.
//!
//! The rooms, from the ground up (imports run downward only; `tests/architecture.rs` holds that):
//!
//! ```text
//! main · cli · server
//! transport · admin · cluster
//! answer
//! routing
//! zone
//! latency · config
//! geo · wire · health · telemetry · sys
//! ```
//!
//! A query's way: [`transport`] → [`answer`] (bytes in, bytes out, reading one immutable [`routing::snapshot`]) →
//! [`transport`]. A change's way: configuration, location data, measurements and probes are compiled into a new snapshot
//! that is published with one pointer swap.

#![deny(unsafe_code)] // `sys` is the one room that allows it
#![warn(missing_docs)]

pub mod admin;
pub mod answer;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod geo;
pub mod health;
pub mod latency;
pub mod routing;
pub mod server;
pub mod sys;
pub mod telemetry;
pub mod transport;
pub mod wire;
pub mod zone;
