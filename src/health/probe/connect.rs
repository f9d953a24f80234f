//! Opening a probe's connection, TLS included, and keeping count of what takes how long. Knows nothing of what is then said.

use std::{
    error::Error as StdError,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::TlsConnector;

use super::{
    Phase, ProbeError, ProbeResult,
    stream::{Counted, Heard},
    tls::{ALPN_HTTP2, noting},
};

/// How far a probe has come, and what each part took.
#[derive(Debug)]
pub struct Progress {
    begun: Instant,
    /// What is under way.
    pub phase: Phase,
    /// HTTP status, when one came.
    pub status: Option<u16>,
    connect: Option<Duration>,
    tls: Option<Duration>,
    heard: Heard,
    asked: Option<Instant>,
    first_byte: Option<Duration>,
    certificate_expires_s: Option<i64>,
}

impl Progress {
    /// A probe begins.
    pub fn begin() -> Self {
        Progress {
            begun: Instant::now(),
            phase: Phase::Connect,
            status: None,
            connect: None,
            tls: None,
            heard: Heard::default(),
            asked: None,
            first_byte: None,
            certificate_expires_s: None,
        }
    }

    /// The request goes out.
    pub fn asking(&mut self) {
        self.asked = Some(Instant::now());
    }

    /// Status and headers have come over a connection on which nothing comes before the answer.
    pub fn answered(&mut self) {
        let heard = self.heard.get().copied();
        self.first_byte =
            self.asked.map(|asked| heard.map_or_else(|| asked.elapsed(), |at| at.saturating_duration_since(asked)));
        self.phase = Phase::Body;
    }

    /// Status and headers have come in a frame, after others that answer nothing.
    pub fn answered_in_frame(&mut self) {
        self.first_byte = self.asked.map(|asked| asked.elapsed());
        self.phase = Phase::Body;
    }

    /// The probe is over.
    pub fn result(self, outcome: Result<(), ProbeError>) -> ProbeResult {
        ProbeResult {
            outcome,
            connect: self.connect,
            tls: self.tls,
            first_byte: self.first_byte,
            total: self.begun.elapsed(),
            status: self.status,
            certificate_expires_s: self.certificate_expires_s,
            lookup_trouble: None,
        }
    }
}

/// Bytes to and fro.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// An open connection.
pub struct Opened {
    /// What it carries.
    pub stream: Box<dyn Stream>,
    /// With TLS: the server picked HTTP/2 (ALPN).
    pub picked_http2: bool,
}

/// Opens a connection to `address`, with TLS where that is asked for.
///
/// # Errors
/// Why it did not open.
pub async fn open(
    address: SocketAddr,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    progress: &mut Progress,
) -> Result<Opened, ProbeError> {
    let begun = Instant::now();
    let stream = TcpStream::connect(address).await.map_err(|error| fault(&error, Phase::Connect))?;
    progress.connect = Some(begun.elapsed());
    let _ = stream.set_nodelay(true); // only speed is lost without it
    let Some((config, name)) = tls else {
        progress.phase = Phase::Answer;
        return Ok(Opened { stream: Box::new(Counted::new(stream, progress.heard.clone())), picked_http2: false });
    };
    progress.phase = Phase::Tls;
    let begun = Instant::now();
    let shaking_hands = Box::pin(noting(TlsConnector::from(config).connect(name, stream))); // large, and most probes need none
    let (stream, expires_s) = shaking_hands.await;
    progress.certificate_expires_s = expires_s;
    let stream = stream.map_err(|error| fault(&error, Phase::Tls))?;
    progress.tls = Some(begun.elapsed());
    progress.phase = Phase::Answer;
    let picked_http2 = stream.get_ref().1.alpn_protocol() == Some(ALPN_HTTP2);
    Ok(Opened { stream: Box::new(Counted::new(stream, progress.heard.clone())), picked_http2 })
}

/// Whom a probe speaks to: the check's `host`, else the endpoint's `name`, else the address.
pub fn host_of(host: Option<&str>, name: Option<&str>, address: IpAddr) -> String {
    let bare = |host: &str| host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    match host.or(name) {
        None => address.to_string(),
        Some(text) => bare(text).map_or_else(|_| text.to_owned(), |address| address.to_string()),
    }
}

/// Host and port as a request names them: without the port where it is the usual one, IPv6 addresses in brackets.
fn authority(host: &str, port: u16, tls: bool) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    if port == if tls { 443 } else { 80 } { host } else { format!("{host}:{port}") }
}

/// How a request names its host: the check's own `host` as it is written, since virtual hosts go by the name that users ask for,
/// whatever the port that is probed; an address, and what stands in where there is none, with the port.
pub fn authority_of(written: Option<&str>, host: &str, port: u16, tls: bool) -> String {
    let name = written.filter(|written| written.trim_matches(['[', ']']).parse::<IpAddr>().is_err());
    name.map_or_else(|| authority(host, port, tls), str::to_owned)
}

/// The name that a certificate must be valid for. An address is not sent in the handshake (RFC 6066 §3).
pub fn server_name(host: &str) -> Result<ServerName<'static>, ProbeError> {
    ServerName::try_from(host.to_owned()).map_err(|error| ProbeError::Request(format!("{error} ({host})")))
}

/// Lets a connection do the reading and writing until the exchange over it is over.
pub async fn drive<T, C>(
    connection: impl Future<Output = C>,
    exchange: impl Future<Output = Result<T, ProbeError>>,
) -> Result<T, ProbeError> {
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        biased;
        outcome = &mut exchange => outcome,
        _ = connection => exchange.await, // what was read before the end still waits to be judged, and so does the error
    }
}

/// What an error of the connection or of HTTP comes down to: the operating system's or TLS's word where there is one.
pub fn fault(error: &(dyn StdError + 'static), phase: Phase) -> ProbeError {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(at) = cause {
        if let Some(tls) = at.downcast_ref::<rustls::Error>() {
            return ProbeError::Tls(tls.to_string());
        }
        if at.downcast_ref::<hyper::Error>().is_some_and(|http| ended(http, phase)) {
            return ProbeError::Closed(phase);
        }
        if let Some(io) = at.downcast_ref::<h2::Error>().and_then(h2::Error::get_io) {
            cause = Some(io);
            continue;
        }
        cause = match at.downcast_ref::<io::Error>() {
            Some(io) if io.kind() == io::ErrorKind::UnexpectedEof && phase != Phase::Body => {
                return ProbeError::Closed(phase);
            }
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
        Phase::Resolve | Phase::Connect => ProbeError::Network(error.to_string()),
    }
}

/// The connection ended before an answer was there. What ends in the middle of a body is an answer, cut short.
fn ended(http: &hyper::Error, phase: Phase) -> bool {
    phase != Phase::Body && (http.is_incomplete_message() || http.is_canceled() || http.is_closed())
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
    fn whom_a_probe_speaks_to_follows_the_check_then_the_endpoint() {
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        for (host, name, port, tls, expected, name_expected) in [
            (None, None, 8080, false, "[2001:db8::1]:8080", "2001:db8::1"),
            (None, None, 443, true, "[2001:db8::1]", "2001:db8::1"),
            (None, None, 443, false, "[2001:db8::1]:443", "2001:db8::1"),
            (None, Some("web.example"), 443, true, "web.example", "web.example"),
            (Some("app.example"), Some("web.example"), 443, true, "app.example", "app.example"),
            (Some("app.example"), None, 80, false, "app.example", "app.example"),
            (Some("192.0.2.7"), None, 80, false, "192.0.2.7", "192.0.2.7"),
            (Some("2001:db8::7"), Some("web.example"), 81, true, "[2001:db8::7]:81", "2001:db8::7"),
            (Some("[2001:db8::7]"), None, 443, true, "[2001:db8::7]", "2001:db8::7"),
        ] {
            let host = host_of(host, name, v6);
            assert_eq!(authority(&host, port, tls), expected);
            assert_eq!(server_name(&host).unwrap().to_str(), name_expected);
        }
        assert!(matches!(server_name("not a host"), Err(ProbeError::Request(_))));
    }
}
