//! Which region for which client: the compiled map from addresses to rankings, the policies, and the snapshot that queries
//! read. Knows nothing of sockets and of the wire format.
#![deny(clippy::disallowed_methods)]
