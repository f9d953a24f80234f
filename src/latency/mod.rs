//! Milliseconds between a client's network and a region. Knows nothing of DNS.
#![deny(clippy::disallowed_methods)]
