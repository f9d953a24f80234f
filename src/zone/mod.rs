//! Names → records or routes: zone-file text, compiled zones, wildcards, negative answers. Knows nothing of clients and health.
#![deny(clippy::disallowed_methods)]

pub mod content;
pub mod file;
pub mod rdata;

mod lexer;
