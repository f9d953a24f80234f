//! Bytes of the DNS wire format: names, header, question, EDNS, ECS, cookies. Parses and writes; knows nothing of zones,
//! regions or clients' places.
#![deny(clippy::disallowed_methods)]

pub mod codes;
pub mod cookie;
pub mod ecs;
pub mod freshness;
pub mod name;
pub mod qname;
pub mod query;
pub mod writer;

pub use codes::{ExtendedError, Rcode, class, rtype};
pub use ecs::Ecs;
pub use name::{Name, NameError};
pub use qname::QName;
pub use query::{Edns, HEADER_LEN, Ignored, Parsed, Query, Question, Refusal};
pub use writer::Writer;
