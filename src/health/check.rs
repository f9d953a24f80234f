//! What is probed, and how.

use std::{fmt, net::IpAddr, time::Duration};

use super::damping;

/// How to tell whether an endpoint is up. Durations are validated: `timeout` ≤ `interval`, all above zero.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Check {
    /// Its name in the configuration, `[checks.NAME]`.
    pub name: String,
    /// What a probe does.
    pub kind: CheckKind,
    /// From the start of one probe to the start of the next while nothing is in doubt.
    pub interval: Duration,
    /// From the end of one probe to the start of the next while the state is in doubt.
    pub fast_interval: Duration,
    /// A probe that has not succeeded after this long has failed.
    pub timeout: Duration,
    /// Failures to go down, 1 to 100.
    pub fall: u32,
    /// Successes in a row to come back, 1 to 100.
    pub rise: u32,
    /// When a target that changes too often is held down.
    pub damping: damping::Rules,
}

/// What a probe does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CheckKind {
    /// The connection opens.
    Tcp {
        /// Port to connect to.
        port: u16,
    },
    /// An HTTP or HTTPS request is answered as expected.
    Http(HttpCheck),
}

/// An HTTP or HTTPS request and what its answer must look like. Redirects are not followed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpCheck {
    /// HTTPS instead of HTTP.
    pub tls: bool,
    /// With `tls`: the certificate must be valid for the host.
    pub verify_tls: bool,
    /// Port to connect to.
    pub port: u16,
    /// Path and query, beginning with `/`.
    pub path: String,
    /// Host header and server name; `None`: the endpoint itself.
    pub host: Option<String>,
    /// Statuses that count as success.
    pub expect_status: StatusSet,
    /// Must occur in the first 5,120 bytes of the body; empty: anything goes.
    pub expect_body: String,
}

/// A set of HTTP statuses, 100 to 599, as written: `"2xx"`, `"204"`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct StatusSet(pub Vec<(u16, u16)>);

impl StatusSet {
    /// True when `status` is in one of the inclusive ranges.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|&(low, high)| (low..=high).contains(&status))
    }
}

/// Where a probe goes and what an answer points to: an address, or a host name (a CNAME target).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    /// An IPv4 or IPv6 address.
    Address(IpAddr),
    /// An absolute host name in lower case, without the final dot.
    Name(String),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Address(address) => address.fmt(f),
            Endpoint::Name(name) => f.write_str(name),
        }
    }
}
