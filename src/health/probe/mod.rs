//! One probe of one target: what came of it and how long each part took. Knows nothing of verdicts and schedules.

pub mod connect;
pub mod grpc;
pub mod http;
pub mod http2;
pub mod resolve;
pub mod tcp;
pub mod tls;

use std::{fmt, future::Future, io, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::Instant};

use self::{
    resolve::Resolver,
    tls::{TlsModes, TrustedRoots},
};
use super::{
    check::{Check, CheckKind, Endpoint},
    target::Target,
};

/// How far a probe came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Asking the system's resolver for the addresses of a host name.
    Resolve,
    /// Opening the TCP connection.
    Connect,
    /// The TLS handshake.
    Tls,
    /// Waiting for status and headers.
    Answer,
    /// Reading the body.
    Body,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Resolve => "the name was being resolved",
            Phase::Connect => "the connection was being opened",
            Phase::Tls => "the TLS handshake was under way",
            Phase::Answer => "the answer was awaited",
            Phase::Body => "the body was being read",
        })
    }
}

/// Why a probe did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The host name has no address now.
    #[error("host name not resolved: {0}")]
    Resolve(String),
    /// Nothing listens there.
    #[error("connection refused")]
    Refused,
    /// The other side, or something on the way, ended the connection.
    #[error("connection reset while {0}")]
    Reset(Phase),
    /// No way there from this host.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// Not done within the check's timeout.
    #[error("no success within {} ms: {phase}", after.as_millis())]
    Timeout {
        /// What the probe was waiting for.
        phase: Phase,
        /// The check's timeout.
        after: Duration,
    },
    /// The TLS handshake failed, or the certificate is not valid for the host.
    #[error("TLS: {0}")]
    Tls(String),
    /// `verify-tls` with no CA certificates on this host.
    #[error(
        "TLS: this host has no CA certificates to verify with; install the `ca-certificates` package, point SSL_CERT_FILE at a bundle, or set `verify-tls = false`"
    )]
    NoTrustedRoots,
    /// An answer with a status that `expect-status` does not list.
    #[error("status {0} is not expected")]
    Status(u16),
    /// `expect-body` does not occur.
    #[error("expected text not found in the first {read_bytes} bytes of the body")]
    Body {
        /// How much of the body was searched, at most 5,120 bytes.
        read_bytes: usize,
    },
    /// The connection ended without an answer, or what came is not HTTP.
    #[error("no valid HTTP answer: {0}")]
    Protocol(String),
    /// A gRPC server says of itself, or of the service asked for, that it does not serve.
    #[error("the server says {0}")]
    NotServing(&'static str),
    /// A gRPC call ended with an error.
    #[error("{0}")]
    GrpcStatus(String),
    /// A check of type `push`: nothing was heard for a whole interval.
    #[error("no heartbeat within {} ms", within.as_millis())]
    NoHeartbeat {
        /// The check's interval.
        within: Duration,
    },
    /// A check of type `push`: the heartbeat said so.
    #[error("reported down by a heartbeat")]
    ReportedDown,
    /// A check of type `push` where nobody listens for heartbeats. Says nothing about the target.
    #[error("nothing to probe: a running server waits for heartbeats")]
    NotProbed,
    /// A calculated check with too few parts up.
    #[error("{up} of {of} checks {} up, {needed} must be; down: {down}", if *up == 1 { "is" } else { "are" })]
    TooFew {
        /// Parts that are up.
        up: usize,
        /// All parts.
        of: usize,
        /// How many must be up.
        needed: usize,
        /// The names of the others, and what is wrong with each.
        down: String,
    },
    /// Another failure of the network.
    #[error("{0}")]
    Network(String),
    /// The check's host or path does not make a URL.
    #[error("the check's host and path make no valid request: {0}")]
    Request(String),
    /// This host lacks something (files, memory) to probe at all. Says nothing about the target.
    #[error("this host could not probe: {0}; raise the limit of open files (LimitNOFILE, ulimit -n) or add memory")]
    Local(String),
    /// The probing code panicked. Says nothing about the target.
    #[error("the probe panicked; the log tells where")]
    Panicked,
}

impl ProbeError {
    /// True when the target is not to blame, so that the result must not move its verdict.
    pub fn is_inconclusive(&self) -> bool {
        matches!(self, ProbeError::Local(_) | ProbeError::Panicked | ProbeError::NotProbed)
    }

    /// True when the endpoint itself answered, only not as it should: whatever is wrong, the prober reaches it.
    pub fn is_answer(&self) -> bool {
        matches!(
            self,
            ProbeError::Status(_)
                | ProbeError::Body { .. }
                | ProbeError::NotServing(_)
                | ProbeError::GrpcStatus(_)
                | ProbeError::ReportedDown
        )
    }

    /// What an error of the operating system means in `phase`.
    fn from_io(error: &io::Error, phase: Phase) -> Self {
        use io::ErrorKind as Kind;
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => return Self::Local(error.to_string()),
            Some(libc::ETIMEDOUT) => return Self::Unreachable(error.to_string()), // the kernel gave up before we did
            _ => {}
        }
        match error.kind() {
            Kind::ConnectionRefused => Self::Refused,
            Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => Self::Reset(phase),
            Kind::UnexpectedEof if phase == Phase::Tls => Self::Tls("the connection was closed".into()),
            Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::AddrNotAvailable | Kind::PermissionDenied => {
                Self::Unreachable(error.to_string())
            }
            _ => Self::Network(error.to_string()),
        }
    }
}

/// What came of one probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeResult {
    /// Success, or why not.
    pub outcome: Result<(), ProbeError>,
    /// From the first packet to the open TCP connection: one round trip. Absent when it never opened.
    pub connect: Option<Duration>,
    /// The TLS handshake after that.
    pub tls: Option<Duration>,
    /// From the request to the first byte of the answer.
    pub first_byte: Option<Duration>,
    /// The whole probe, name resolution included.
    pub total: Duration,
    /// HTTP status, when one came.
    pub status: Option<u16>,
    /// When the certificate that the endpoint showed runs out, Unix time in seconds.
    pub certificate_expires_s: Option<i64>,
}

impl Default for ProbeResult {
    /// A success without figures.
    fn default() -> Self {
        ProbeResult {
            outcome: Ok(()),
            connect: None,
            tls: None,
            first_byte: None,
            total: Duration::ZERO,
            status: None,
            certificate_expires_s: None,
        }
    }
}

impl ProbeResult {
    /// True when the probe found what the check expects.
    pub fn is_success(&self) -> bool {
        self.outcome.is_ok()
    }

    /// A failure before anything was measured.
    pub fn failed(error: ProbeError, total: Duration) -> Self {
        ProbeResult { outcome: Err(error), total, ..ProbeResult::default() }
    }
}

impl fmt::Display for ProbeResult {
    /// One line for people: `ok, status 200, connected in 12.3 ms`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Ok(()) => f.write_str("ok")?,
            Err(error) => error.fmt(f)?,
        }
        match (self.status, &self.outcome) {
            (None, _) | (_, Err(ProbeError::Status(_))) => {}
            (Some(status), _) => write!(f, ", status {status}")?,
        }
        match self.connect {
            Some(connect) => write!(f, ", connected in {:.1} ms", connect.as_secs_f64() * 1e3),
            None => Ok(()),
        }
    }
}

/// A probe under way.
pub type Probing = Pin<Box<dyn Future<Output = ProbeResult> + Send>>;

/// Something that can probe a target. The schedule knows no more of probes than this.
pub trait Probe: Send + Sync + 'static {
    /// Starts one probe, which must end within the check's timeout.
    fn probe(&self, target: &Target) -> Probing;
}

/// Probes over the network: what the program uses.
#[derive(Debug, Clone)]
pub struct NetProbe {
    tls: TlsModes,
    resolver: Resolver,
}

impl NetProbe {
    /// A prober that trusts the host's CA bundle, or the given roots instead.
    pub fn new(roots: TrustedRoots) -> Self {
        NetProbe { tls: TlsModes::new(roots), resolver: Resolver::default() }
    }
}

impl Default for NetProbe {
    fn default() -> Self {
        NetProbe::new(TrustedRoots::Host)
    }
}

impl Probe for NetProbe {
    fn probe(&self, target: &Target) -> Probing {
        let (endpoint, check, this) = (target.endpoint().clone(), target.key.check.clone(), self.clone());
        Box::pin(async move {
            let deadline = Instant::now() + check.timeout;
            match endpoint {
                Endpoint::Address(address) => probe_address(&check, address, None, &this.tls, deadline).await,
                Endpoint::Name(name) => probe_name(check, name, this, deadline).await,
            }
        })
    }
}

/// Probes one address; `name` is the endpoint's name where it has one. `deadline` bounds the whole of it.
async fn probe_address(
    check: &Check,
    address: IpAddr,
    name: Option<&str>,
    tls: &TlsModes,
    deadline: Instant,
) -> ProbeResult {
    match &check.kind {
        CheckKind::Tcp { port } => tcp::probe((address, *port).into(), check.timeout, deadline).await,
        CheckKind::Http(http) => http::probe(http, address, name, tls, check.timeout, deadline).await,
        CheckKind::Grpc(grpc) => grpc::probe(grpc, address, name, tls, check.timeout, deadline).await,
        CheckKind::Push { .. } | CheckKind::Calculated(_) => ProbeResult::failed(ProbeError::NotProbed, Duration::ZERO),
    }
}

/// Probes every address that a host name has now, all at once. The first success decides: waiting for an address that
/// hangs would tell nothing more and delay the verdict. Connect is the lowest of those that succeeded by then.
async fn probe_name(check: Arc<Check>, name: String, net: NetProbe, deadline: Instant) -> ProbeResult {
    let begun = Instant::now();
    let resolved = net.resolver.addresses(&name, check.interval, deadline).await;
    let addresses = match resolved {
        Ok(addresses) => addresses,
        Err(None) => {
            let error = ProbeError::Timeout { phase: Phase::Resolve, after: check.timeout };
            return ProbeResult::failed(error, begun.elapsed());
        }
        Err(Some(error)) => return ProbeResult::failed(ProbeError::Resolve(error), begun.elapsed()),
    };
    let mut probes = JoinSet::new(); // dropped with this future, which ends them
    for &address in addresses.iter() {
        let (check, name, tls) = (check.clone(), name.clone(), net.tls.clone());
        probes.spawn(async move { probe_address(&check, address, Some(&name), &tls, deadline).await });
    }
    let mut first_failure = None;
    while let Some(joined) = probes.join_next().await {
        let mut result = joined.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic), // the schedule logs, counts and restarts
            Err(_) => ProbeResult::failed(ProbeError::Panicked, begun.elapsed()), // the runtime is going down
        });
        result.total = begun.elapsed();
        if result.is_success() {
            while let Some(Ok(also)) = probes.try_join_next() {
                result.connect = if also.is_success() { result.connect.min(also.connect) } else { result.connect };
                result.certificate_expires_s = earlier(result.certificate_expires_s, also.certificate_expires_s);
            }
            return result;
        }
        first_failure.get_or_insert(result);
    }
    first_failure
        .unwrap_or_else(|| ProbeResult::failed(ProbeError::Resolve("the name has no address".into()), begun.elapsed()))
}

/// The earlier of those that are known.
fn earlier(one: Option<i64>, other: Option<i64>) -> Option<i64> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests;
