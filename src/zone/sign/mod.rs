//! DNSSEC signing (RFC 4033 to 4035, 6605, 9077): keys, signatures, and the NSEC chain. All of it happens before a query comes;
//! answering only copies. Knows nothing of clients, health and clocks: the time is passed in.

pub mod chain;
pub mod keys;
pub mod signer;

pub use chain::{Chain, SortKey};
pub use keys::{KeyError, KeyPair, ZoneKeys};
pub use signer::Signer;
