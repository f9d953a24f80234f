//! The HTTP and HTTPS probe: one GET on a connection of its own, no redirects, no proxy, at most the head of the body.

use std::{
    error::Error as StdError,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use reqwest::{Client, Url, header, redirect};
use tokio::time::{Instant, timeout_at};
use tower::{Layer, Service};

use super::{
    Phase, ProbeError, ProbeResult,
    tls::{TlsModes, watching_start},
};
use crate::health::check::HttpCheck;

/// How much of a body is read and searched, in bytes.
pub const BODY_LEN_MAX: usize = 5_120;

/// What probes call themselves.
const USER_AGENT: &str = concat!("isochrone/", env!("CARGO_PKG_VERSION"));

/// Probes `address`. The Host header and the server name of TLS are the check's `host`, else the endpoint's `name`, else the
/// address (then TLS sends no server name, and a certificate must be valid for the address). `timeout` is what a failure at
/// `deadline` reports.
///
/// With `host` an address other than the endpoint, the Host header follows it, while a certificate is verified for the
/// endpoint.
pub async fn probe(
    check: &HttpCheck,
    address: IpAddr,
    name: Option<&str>,
    tls: &TlsModes,
    timeout: Duration,
    deadline: Instant,
) -> ProbeResult {
    let progress = Arc::new(Progress::new());
    let exchange = exchange(check, address, name, tls, &progress);
    let outcome = timeout_at(deadline, exchange)
        .await
        .unwrap_or_else(|_elapsed| Err(ProbeError::Timeout { phase: progress.phase(check.tls), after: timeout }));
    progress.result(outcome)
}

/// Sends the request and judges the answer.
async fn exchange(
    check: &HttpCheck,
    address: IpAddr,
    name: Option<&str>,
    tls: &TlsModes,
    progress: &Arc<Progress>,
) -> Result<(), ProbeError> {
    let (url, host) = request_url(check, address, name)?;
    let client = client(check, address, &url, tls, progress)?;
    let mut request = client.get(url).header(header::CONNECTION, "close");
    if let Some(host) = host {
        request = request.header(header::HOST, host);
    }
    let fault = |error: &reqwest::Error| fault(error, progress.phase(check.tls));
    let mut response = request.send().await.map_err(|error| fault(&error))?;
    let status = response.status().as_u16();
    let _ = progress.answered.set(status);
    if !check.expect_status.contains(status) {
        return Err(ProbeError::Status(status));
    }
    if check.expect_body.is_empty() {
        return Ok(());
    }
    let mut head = Head::new(check.expect_body.as_bytes());
    while let Some(chunk) = response.chunk().await.map_err(|error| fault(&error))? {
        match head.push(&chunk) {
            Search::Found => return Ok(()),
            Search::Missing => break,
            Search::Open => {}
        }
    }
    Err(ProbeError::Body { read_bytes: head.bytes.len() })
}

/// The URL whose host is both Host header and server name; and a Host header of its own where the URL cannot carry it.
fn request_url(check: &HttpCheck, address: IpAddr, name: Option<&str>) -> Result<(Url, Option<String>), ProbeError> {
    let scheme = if check.tls { "https" } else { "http" };
    let endpoint = match (name, address) {
        (Some(name), _) => name.to_owned(),
        (None, IpAddr::V4(v4)) => v4.to_string(),
        (None, IpAddr::V6(v6)) => format!("[{v6}]"),
    };
    let url_of = |host: &str| {
        Url::parse(&format!("{scheme}://{host}:{}{}", check.port, check.path))
            .map_err(|error| ProbeError::Request(format!("{error} ({scheme}://{host}{})", check.path)))
    };
    let Some(host) = &check.host else {
        return Ok((url_of(&endpoint)?, None));
    };
    let host = match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(IpAddr::V4(v4)) => v4.to_string(),
        Ok(IpAddr::V6(v6)) => format!("[{v6}]"),
        Err(_) => return Ok((url_of(host)?, None)),
    };
    // An address in a URL is where the connection goes: pinning cannot move it elsewhere.
    let url = url_of(&endpoint)?;
    let header = url.port().map_or(host.clone(), |port| format!("{host}:{port}"));
    Ok((url, Some(header)))
}

/// A client for one probe: its connection goes to `address` and nowhere else.
fn client(
    check: &HttpCheck,
    address: IpAddr,
    url: &Url,
    tls: &TlsModes,
    progress: &Arc<Progress>,
) -> Result<Client, ProbeError> {
    let config = if check.tls && check.verify_tls { tls.verified()? } else { tls.unverified() };
    let opened = progress.clone();
    let config = watching_start(config, move || {
        let _ = opened.opened.set(Instant::now()); // asked several times in a handshake; the first is its start
    });
    Client::builder()
        .tls_backend_preconfigured(config)
        .http1_only()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .referer(false)
        .pool_max_idle_per_host(0)
        .user_agent(USER_AGENT)
        .resolve(url.host_str().unwrap_or_default(), SocketAddr::new(address, check.port))
        .connector_layer(TimeConnection(progress.clone()))
        .build()
        .map_err(|error| ProbeError::Request(chain(&error)))
}

/// When each part of a probe was done.
#[derive(Debug)]
struct Progress {
    begun: Instant,
    connecting: OnceLock<Instant>,
    opened: OnceLock<Instant>,
    /// The connection is ready for the request: open, and over TLS where that is asked for.
    ready: OnceLock<Instant>,
    answered: OnceLock<u16>,
}

impl Progress {
    fn new() -> Self {
        Progress {
            begun: Instant::now(),
            connecting: OnceLock::new(),
            opened: OnceLock::new(),
            ready: OnceLock::new(),
            answered: OnceLock::new(),
        }
    }

    /// What is under way now.
    fn phase(&self, tls: bool) -> Phase {
        if self.answered.get().is_some() {
            Phase::Body
        } else if self.ready.get().is_some() {
            Phase::Answer
        } else if tls && self.opened.get().is_some() {
            Phase::Tls
        } else {
            Phase::Connect
        }
    }

    fn result(&self, outcome: Result<(), ProbeError>) -> ProbeResult {
        let between = |from: Option<&Instant>, to: Option<&Instant>| Some(to?.duration_since(*from?));
        let (opened, ready) = (self.opened.get(), self.ready.get());
        ProbeResult {
            outcome,
            connect: between(self.connecting.get(), opened.or(ready)),
            tls: between(opened, ready),
            total: self.begun.elapsed(),
            status: self.answered.get().copied(),
        }
    }
}

/// The layer around reqwest's connector that notes when it starts and when the connection is ready.
#[derive(Debug, Clone)]
struct TimeConnection(Arc<Progress>);

impl<S> Layer<S> for TimeConnection {
    type Service = TimedConnector<S>;

    fn layer(&self, inner: S) -> TimedConnector<S> {
        TimedConnector { inner, progress: self.0.clone() }
    }
}

#[derive(Debug, Clone)]
struct TimedConnector<S> {
    inner: S,
    progress: Arc<Progress>,
}

impl<S, R> Service<R> for TimedConnector<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let progress = self.progress.clone();
        let _ = progress.connecting.set(Instant::now());
        let connecting = self.inner.call(request);
        Box::pin(async move {
            let connection = connecting.await?;
            let _ = progress.ready.set(Instant::now());
            Ok(connection)
        })
    }
}

/// The head of a body and the search in it.
struct Head<'n> {
    needle: &'n [u8],
    bytes: Vec<u8>,
}

/// How a search stands.
#[derive(Debug, PartialEq, Eq)]
enum Search {
    Found,
    /// Not in what may be read.
    Missing,
    /// Not yet.
    Open,
}

impl<'n> Head<'n> {
    fn new(needle: &'n [u8]) -> Self {
        Head { needle, bytes: Vec::new() }
    }

    /// Takes in the next chunk, up to the limit, and looks where a match could newly lie.
    fn push(&mut self, chunk: &[u8]) -> Search {
        let from = self.bytes.len().saturating_sub(self.needle.len() - 1);
        let room = BODY_LEN_MAX - self.bytes.len();
        self.bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        match self.bytes[from..].windows(self.needle.len()).any(|window| window == self.needle) {
            true => Search::Found,
            false if self.bytes.len() == BODY_LEN_MAX => Search::Missing,
            false => Search::Open,
        }
    }
}

/// What an error of the HTTP client comes down to: the operating system's or TLS's word where there is one.
fn fault(error: &reqwest::Error, phase: Phase) -> ProbeError {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(at) = cause {
        if let Some(tls) = at.downcast_ref::<rustls::Error>() {
            return ProbeError::Tls(tls.to_string());
        }
        cause = match at.downcast_ref::<io::Error>() {
            // `source` of a wrapping io::Error skips the error that it wraps.
            Some(io) => match io.get_ref() {
                Some(inner) => Some(inner),
                None => return ProbeError::from_io(io, phase),
            },
            None => at.source(),
        };
    }
    match phase {
        Phase::Answer | Phase::Body => ProbeError::Protocol(innermost(error)),
        Phase::Tls => ProbeError::Tls(innermost(error)),
        Phase::Resolve | Phase::Connect => ProbeError::Network(chain(error)),
    }
}

/// The messages of an error and its causes in a row.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(at) = cause {
        text = format!("{text}: {at}");
        cause = at.source();
    }
    text
}

/// The message of the cause at the bottom.
fn innermost(error: &dyn StdError) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_match_is_found_within_the_first_5120_bytes_wherever_the_chunks_break() {
        let needle = b"needle";
        for (at, expected) in
            [(0, true), (3_000, true), (BODY_LEN_MAX - 6, true), (BODY_LEN_MAX - 5, false), (6_000, false)]
        {
            let mut body = vec![b'n'; 10_000];
            body[at..at + needle.len()].copy_from_slice(needle);
            for size in [1, 2, 5, 7, 64, 5_119, 5_120, 10_000] {
                let mut head = Head::new(needle);
                let found = body.chunks(size).map(|chunk| head.push(chunk)).find(|search| *search != Search::Open);
                assert_eq!(found, Some(if expected { Search::Found } else { Search::Missing }), "at {at}, by {size}");
                assert!(head.bytes.len() <= BODY_LEN_MAX);
            }
        }
    }

    #[test]
    fn host_header_and_server_name_follow_the_check_then_the_endpoint() {
        let mut check = HttpCheck {
            tls: false,
            verify_tls: true,
            port: 8080,
            path: "/up?x=1".into(),
            host: None,
            expect_status: Default::default(),
            expect_body: String::new(),
        };
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        let mut url = |host: Option<&str>, tls: bool, port: u16, name: Option<&str>| {
            (check.host, check.tls, check.port) = (host.map(str::to_owned), tls, port);
            let (url, header) = request_url(&check, v6, name).unwrap();
            (url.to_string(), header)
        };
        for (host, tls, port, name, expected, header) in [
            (None, false, 8080, None, "http://[2001:db8::1]:8080/up?x=1", None),
            (None, true, 443, None, "https://[2001:db8::1]/up?x=1", None),
            (None, true, 443, Some("web.example"), "https://web.example/up?x=1", None),
            (Some("app.example"), true, 443, Some("web.example"), "https://app.example/up?x=1", None),
            (Some("app.example"), false, 80, None, "http://app.example/up?x=1", None),
            (Some("192.0.2.7"), false, 80, None, "http://[2001:db8::1]/up?x=1", Some("192.0.2.7")),
            (Some("2001:db8::7"), false, 81, None, "http://[2001:db8::1]:81/up?x=1", Some("[2001:db8::7]:81")),
        ] {
            assert_eq!(url(host, tls, port, name), (expected.to_owned(), header.map(str::to_owned)));
        }
    }

    #[test]
    fn a_host_that_makes_no_url_is_told() {
        let check = HttpCheck {
            tls: false,
            verify_tls: true,
            port: 80,
            path: "/".into(),
            host: Some("not a host".into()),
            expect_status: Default::default(),
            expect_body: String::new(),
        };
        assert!(matches!(request_url(&check, "192.0.2.1".parse().unwrap(), None), Err(ProbeError::Request(_))));
    }
}
