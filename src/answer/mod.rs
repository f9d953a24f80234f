//! The answering core: query bytes in, reply bytes out. No clock, socket, lock, log line or allocation.
#![deny(clippy::disallowed_methods)]
