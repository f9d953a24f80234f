//! Is it up? Probes, verdicts, and the board of what is usable now. Knows nothing of DNS.

pub mod check;

pub use check::{Check, CheckKind, Endpoint, HttpCheck, StatusSet};
