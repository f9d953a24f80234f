//! One probe of one target: what came of it and how long each part took. Knows nothing of verdicts and schedules.

pub mod connect;
pub mod grpc;
pub mod http;
pub mod http2;
mod names;
pub mod resolve;
pub mod stream;
pub mod tcp;
pub mod tls;

use std::{fmt, future::Future, io, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use tokio::{sync::Semaphore, time::Instant};

use self::{
    names::Late,
    resolve::{LookUp, Resolver},
    tls::{TlsModes, TrustedRoots},
};
use super::{
    check::{Check, CheckKind, Endpoint},
    target::{Target, Targets},
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
    /// The other side closed the connection, properly, and too soon.
    #[error("connection closed while {0}")]
    Closed(Phase),
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
    /// What the other side showed or said in the TLS handshake will not do: the certificate, an alert, no TLS at all.
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
    /// What came is not HTTP, or breaks its rules.
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
    /// This host lacks something (files, memory, ports) to probe at all. Says nothing about the target.
    #[error("this host could not probe: {0}")]
    Local(String),
    /// This host has no address to probe from. Says nothing about the target.
    #[error("this host could not probe: {0}")]
    NoAddress(String),
    /// The probing code panicked. Says nothing about the target.
    #[error("the probe panicked; the log tells where")]
    Panicked,
}

impl ProbeError {
    /// True when the target is not to blame, so that the result must not move its verdict.
    pub fn is_inconclusive(&self) -> bool {
        use ProbeError::{Local, NoAddress, NoTrustedRoots, NotProbed, Panicked};
        matches!(self, Local(_) | NoAddress(_) | NoTrustedRoots | Panicked | NotProbed)
    }

    /// True when the endpoint itself answered, only not as it should: whatever is wrong, the prober reaches it. A refusal or a reset
    /// comes from there, too. A connection that opens and is closed is no answer: things on the way do that.
    pub fn is_answer(&self) -> bool {
        matches!(
            self,
            ProbeError::Refused
                | ProbeError::Reset(_)
                | ProbeError::Status(_)
                | ProbeError::Tls(_)
                | ProbeError::Protocol(_)
                | ProbeError::Body { .. }
                | ProbeError::NotServing(_)
                | ProbeError::GrpcStatus(_)
                | ProbeError::ReportedDown
        )
    }

    /// What an error of the operating system means in `phase`.
    fn from_io(error: &io::Error, phase: Phase) -> Self {
        use io::ErrorKind as Kind;
        let lacks = |what: &str| Self::Local(format!("{error}; {what}"));
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => {
                return lacks("raise the limit of open files (LimitNOFILE, ulimit -n)");
            }
            Some(libc::ENOBUFS | libc::ENOMEM) => return lacks("add memory"),
            Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT) => {
                let lack = "it has no address of this family, or no free port (net.ipv4.ip_local_port_range)";
                return Self::NoAddress(format!("{error}; {lack}"));
            }
            Some(libc::EPERM) => return lacks("its own firewall forbids it"),
            Some(libc::ETIMEDOUT) => return Self::Unreachable(error.to_string()), // the kernel gave up before we did
            _ => {}
        }
        match error.kind() {
            Kind::ConnectionRefused => Self::Refused,
            Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => Self::Reset(phase),
            Kind::UnexpectedEof => Self::Closed(phase),
            Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::PermissionDenied => {
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
    /// When the certificate that the endpoint showed runs out, Unix time in seconds; of several the first to run out.
    pub certificate_expires_s: Option<i64>,
    /// Why a host name was probed at addresses that it had some time ago.
    pub lookup_trouble: Option<Arc<str>>,
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
            lookup_trouble: None,
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
    /// Starts one probe, which must end within the check's timeout. It holds one connection at a time, and one more for each place
    /// that it takes of `spare`.
    fn probe(&self, target: &Target, spare: &Arc<Semaphore>) -> Probing;

    /// From now on these are probed and no others: what is remembered of others may be forgotten.
    fn keep(&self, targets: &Targets);
}

/// Probes over the network: what the program uses.
#[derive(Debug, Clone)]
pub struct NetProbe {
    tls: TlsModes,
    resolver: Resolver,
    late: Late,
}

impl NetProbe {
    /// A prober that trusts `roots`, and asks `look_up` for the addresses of names.
    pub fn new(roots: TrustedRoots, look_up: LookUp) -> Self {
        NetProbe { tls: TlsModes::new(roots), resolver: Resolver::new(look_up), late: Late::default() }
    }
}

impl Probe for NetProbe {
    fn probe(&self, target: &Target, spare: &Arc<Semaphore>) -> Probing {
        let (endpoint, check, this) = (target.endpoint().clone(), target.key.check.clone(), self.clone());
        let deadline = Instant::now() + check.timeout;
        match endpoint {
            Endpoint::Address(address) => {
                Box::pin(async move { probe_address(&check, address, None, &this.tls, deadline).await })
            }
            Endpoint::Name(name) => Box::pin(names::probe(check, name, this, spare.clone(), deadline)),
        }
    }

    fn keep(&self, targets: &Targets) {
        let probed = targets.list().iter().filter(|target| target.check().kind.is_probed());
        let names = probed.filter_map(|target| match target.endpoint() {
            Endpoint::Name(name) => Some(name.as_str()),
            Endpoint::Address(_) => None,
        });
        self.resolver.keep(&names.collect());
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
    if check.kind.verifies_tls() {
        tls.freshen(deadline).await;
    }
    match &check.kind {
        CheckKind::Tcp { port } => tcp::probe((address, *port).into(), check.timeout, deadline).await,
        CheckKind::Http(http) => http::probe(http, address, name, tls, check.timeout, deadline).await,
        CheckKind::Grpc(grpc) => grpc::probe(grpc, address, name, tls, check.timeout, deadline).await,
        CheckKind::Push { .. } | CheckKind::Calculated(_) => ProbeResult::failed(ProbeError::NotProbed, Duration::ZERO),
    }
}

#[cfg(test)]
mod tests;
