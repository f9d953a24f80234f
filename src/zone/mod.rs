//! Names → records or routes: zone-file text, compiled zones, wildcards, negative answers. Knows nothing of clients and health.
#![deny(clippy::disallowed_methods)]

pub mod compile;
pub mod content;
pub mod file;
pub mod fragment;
pub mod https;
pub mod rdata;
pub mod sign;
pub mod tree;

mod lexer;

pub use compile::{Cut, Found, Node, RrSet, Signed, Zone, ZoneTable};
pub use content::ZoneContent;
pub use fragment::{Fragment, OwnedFragment};
pub use https::Https;
