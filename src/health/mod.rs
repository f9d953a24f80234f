//! Is it up? Probes, verdicts, and the board of what is usable now. Knows nothing of DNS.

pub mod baseline;
pub mod board;
pub mod calculated;
pub mod check;
pub mod consensus;
pub mod damping;
pub mod history;
pub mod identity;
pub mod measured;
pub mod memory;
pub mod probe;
pub mod push;
pub mod rise;
pub mod schedule;
pub mod self_doubt;
pub mod target;
pub mod verdict;

pub use board::{Board, Changes, Held, SelfDoubtStatus, Snapshot, TargetStatus};
pub use calculated::Opinion;
pub use check::{Calculation, Check, CheckKind, Endpoint, GrpcCheck, HttpCheck, HttpVersion, Method, StatusSet};
pub use history::{Change, Standing};
pub use memory::Memory;
pub use probe::{NetProbe, Probe, ProbeError, ProbeResult, tls::install_crypto_provider};
pub use schedule::{Prober, probe_once};
pub use target::{Source, Target, TargetId, TargetKey, Targets};
pub use verdict::{State, Verdict};

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
