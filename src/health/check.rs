//! What is probed, and how.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

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
    /// A gRPC server says of itself that it serves.
    Grpc(GrpcCheck),
    /// Nothing is probed: the endpoint reports by itself, and must do so once in an interval.
    Push {
        /// The check's name again: heartbeats of two checks are two signals, however alike the checks are.
        name: String,
    },
    /// Nothing is probed: the verdict follows from those of other checks of the same endpoint.
    Calculated(Calculation),
}

impl CheckKind {
    /// True when probes are made for it.
    pub fn is_probed(&self) -> bool {
        !matches!(self, CheckKind::Push { .. } | CheckKind::Calculated(_))
    }

    /// True when a probe sees a certificate.
    pub fn has_tls(&self) -> bool {
        self.tls().is_some()
    }

    /// True when that certificate must be valid for the host.
    pub fn verifies_tls(&self) -> bool {
        self.tls() == Some(true)
    }

    fn tls(&self) -> Option<bool> {
        match self {
            CheckKind::Http(HttpCheck { tls: true, verify_tls, .. })
            | CheckKind::Grpc(GrpcCheck { tls: true, verify_tls, .. }) => Some(*verify_tls),
            _ => None,
        }
    }
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
    /// What is asked for with the path.
    pub method: Method,
    /// Further headers of the request: names in lower case, values as they are sent.
    pub headers: Vec<(String, String)>,
    /// Which versions of HTTP may be spoken.
    pub version: HttpVersion,
    /// Statuses that count as success.
    pub expect_status: StatusSet,
    /// Must occur in the first 5,120 bytes of the body; empty: anything goes.
    pub expect_body: String,
}

/// The method of a request. None of them sends a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Method {
    /// GET.
    #[default]
    Get,
    /// HEAD: the answer has no body.
    Head,
    /// POST.
    Post,
    /// OPTIONS.
    Options,
}

impl Method {
    /// All of them.
    pub const ALL: [Method; 4] = [Method::Get, Method::Head, Method::Post, Method::Options];

    /// As it stands in the request.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Options => "OPTIONS",
        }
    }
}

/// Which versions of HTTP a probe may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum HttpVersion {
    /// With TLS what the server picks of HTTP/2 and HTTP/1.1 (ALPN); without TLS HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1 alone.
    Http1,
    /// HTTP/2 alone: with TLS the server must pick it, without TLS it is spoken at once (RFC 9113 §3.3).
    Http2,
}

/// A call of `grpc.health.v1.Health/Check`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GrpcCheck {
    /// HTTP/2 over TLS; otherwise HTTP/2 is spoken at once.
    pub tls: bool,
    /// With `tls`: the certificate must be valid for the host.
    pub verify_tls: bool,
    /// Port to connect to.
    pub port: u16,
    /// Authority and server name; `None`: the endpoint itself.
    pub host: Option<String>,
    /// The service to ask for; empty: the server as a whole.
    pub service: String,
}

/// A verdict calculated from those of other checks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Calculation {
    /// How many of `checks` must be up, 1 up to all of them.
    pub needed: usize,
    /// The checks; never empty, and none of them contains the calculation itself.
    pub checks: Vec<Arc<Check>>,
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
