//! The HTTP and HTTPS probe: one request on a connection of its own, by HTTP/1.1 or HTTP/2; no redirects, no proxy, at most the
//! head of the body. All of a probe runs in the one task that asked for it.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, StatusCode, Uri,
    body::{Bytes, Incoming},
    client::conn::http1,
    header, http,
};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};

use super::{
    Phase, ProbeError, ProbeResult,
    connect::{Opened, Progress, Stream, authority_of, drive, fault, host_of, open, server_name},
    http2,
    tls::TlsModes,
};
use crate::health::check::{HttpCheck, HttpVersion, Method};

/// How much of a body is read and searched, in bytes.
pub const BODY_LEN_MAX: usize = 5_120;
/// Most bytes of an answer by HTTP/1.1 that are held at a time, status line and headers among them.
const BUFFER_LEN_MAX: usize = 64 * 1024;
/// What probes call themselves.
pub const USER_AGENT: &str = concat!("isochrone/", env!("CARGO_PKG_VERSION"));

/// Probes `address`. The Host header and the server name of TLS are the check's `host`, else the endpoint's `name`, else the
/// address (then TLS sends no server name, and a certificate must be valid for the address). `timeout` is what a failure at
/// `deadline` reports.
pub async fn probe(
    check: &HttpCheck,
    address: IpAddr,
    name: Option<&str>,
    tls: &TlsModes,
    timeout: Duration,
    deadline: Instant,
) -> ProbeResult {
    let mut progress = Progress::begin();
    let exchanging = exchange(check, address, name, tls, &mut progress);
    let outcome = timeout_at(deadline, exchanging).await;
    let outcome = outcome.unwrap_or(Err(ProbeError::Timeout { phase: progress.phase, after: timeout }));
    progress.result(outcome)
}

/// Opens the connection and has the request answered over it.
async fn exchange(
    check: &HttpCheck,
    address: IpAddr,
    name: Option<&str>,
    tls: &TlsModes,
    progress: &mut Progress,
) -> Result<(), ProbeError> {
    let host = host_of(check.host.as_deref(), name, address);
    let config = match check.tls {
        true => Some((tls.config(check.verify_tls, check.version)?, server_name(&host)?)),
        false => None,
    };
    let Opened { stream, picked_http2 } = open(SocketAddr::new(address, check.port), config, progress).await?;
    if check.tls && check.version == HttpVersion::Http2 && !picked_http2 {
        return Err(ProbeError::Tls("the server does not offer HTTP/2 (ALPN)".into()));
    }
    // In boxes, so that a probe that is still connecting does not hold the room of what comes after.
    match picked_http2 || check.version == HttpVersion::Http2 {
        true => Box::pin(over_http2(check, &host, stream, progress)).await,
        false => Box::pin(over_http1(check, &host, stream, progress)).await,
    }
}

async fn over_http1(
    check: &HttpCheck,
    host: &str,
    stream: Box<dyn Stream>,
    progress: &mut Progress,
) -> Result<(), ProbeError> {
    let request = request(check, host, false)?;
    let handshake = http1::Builder::new().max_buf_size(BUFFER_LEN_MAX).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|error| fault(&error, Phase::Answer))?;
    let judged = async {
        progress.asking();
        let response = sender.send_request(request).await.map_err(|error| fault(&error, Phase::Answer))?;
        let (head, body) = response.into_parts();
        judge(check, head.status, Body::Http1(body), progress).await
    };
    drive(connection, judged).await
}

async fn over_http2(
    check: &HttpCheck,
    host: &str,
    stream: Box<dyn Stream>,
    progress: &mut Progress,
) -> Result<(), ProbeError> {
    let request = request(check, host, true)?.map(|_| ());
    let (sender, connection) = http2::open(stream).await?;
    let judged = async {
        progress.asking();
        let response = http2::ask(sender, request, None).await?;
        let (head, body) = response.into_parts();
        judge(check, head.status, Body::Http2(body), progress).await
    };
    drive(connection, judged).await
}

/// The request: by HTTP/1.1 with a Host header, by HTTP/2 with the authority in its URI.
fn request(check: &HttpCheck, host: &str, is_http2: bool) -> Result<Request<Empty<Bytes>>, ProbeError> {
    let authority = authority_of(check.host.as_deref(), host, check.port, check.tls);
    let wrong = |error: http::Error| ProbeError::Request(format!("{error} ({authority}{})", check.path));
    let path = encoded(&check.path);
    let uri = match is_http2 {
        true => {
            let scheme = if check.tls { "https" } else { "http" };
            Uri::builder().scheme(scheme).authority(authority.as_str()).path_and_query(path).build()
        }
        false => Uri::builder().path_and_query(path).build(),
    };
    let mut request = Request::builder().method(check.method.as_str()).uri(uri.map_err(wrong)?);
    let is_set = |name: header::HeaderName| check.headers.iter().any(|(other, _)| name == other.as_str());
    if !is_http2 {
        request = request.header(header::HOST, authority.as_str()).header(header::CONNECTION, "close");
        if check.method == Method::Post {
            request = request.header(header::CONTENT_LENGTH, "0");
        }
    }
    for (name, default) in [(header::USER_AGENT, USER_AGENT), (header::ACCEPT, "*/*")] {
        if !is_set(name.clone()) {
            request = request.header(name, default);
        }
    }
    for (name, value) in &check.headers {
        // It may be a credential: no log of a library shows it, and no HPACK table keeps it.
        let value = header::HeaderValue::try_from(value).map(|mut value| {
            value.set_sensitive(true);
            value
        });
        request = request.header(name, value.map_err(|error| wrong(error.into()))?);
    }
    request.body(Empty::new()).map_err(wrong)
}

/// The path with those characters percent-encoded that people write and RFC 3986 does not allow.
fn encoded(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        match c {
            '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}' => out.push_str(&format!("%{:02X}", u32::from(c))),
            _ => out.push(c),
        }
    }
    out
}

/// The rest of an answer.
enum Body {
    Http1(Incoming),
    Http2(h2::RecvStream),
}

impl Body {
    /// The next piece; `None` at the end.
    async fn chunk(&mut self) -> Result<Option<Bytes>, ProbeError> {
        match self {
            Body::Http1(body) => loop {
                match body.frame().await {
                    None => return Ok(None),
                    Some(Err(error)) => return Err(fault(&error, Phase::Body)),
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            return Ok(Some(data));
                        }
                    }
                }
            },
            Body::Http2(body) => body.data().await.transpose().map_err(|error| fault(&error, Phase::Body)),
        }
    }
}

/// Is it the answer that the check expects?
async fn judge(
    check: &HttpCheck,
    status: StatusCode,
    mut body: Body,
    progress: &mut Progress,
) -> Result<(), ProbeError> {
    match &body {
        Body::Http1(_) => progress.answered(),
        Body::Http2(_) => progress.answered_in_frame(),
    }
    progress.status = Some(status.as_u16());
    if !check.expect_status.contains(status.as_u16()) {
        return Err(ProbeError::Status(status.as_u16()));
    }
    if check.expect_body.is_empty() {
        return Ok(());
    }
    let mut head = Head::new(check.expect_body.as_bytes());
    while let Some(chunk) = body.chunk().await? {
        match head.push(&chunk) {
            Search::Found => return Ok(()),
            Search::Missing => break,
            Search::Open => {}
        }
    }
    Err(ProbeError::Body { read_bytes: head.bytes.len() })
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

    fn check(path: &str, host: Option<&str>) -> HttpCheck {
        HttpCheck {
            tls: false,
            verify_tls: true,
            port: 8080,
            path: path.into(),
            host: host.map(str::to_owned),
            method: Method::Get,
            headers: Vec::new(),
            version: HttpVersion::Auto,
            expect_status: Default::default(),
            expect_body: String::new(),
        }
    }

    #[test]
    fn the_request_names_its_host_in_the_way_of_its_version() {
        let check = HttpCheck { tls: true, ..check("/up?x=1", None) };
        let one = request(&check, "app.example", false).unwrap();
        assert_eq!(one.uri(), "/up?x=1");
        assert_eq!(one.headers()["host"], "app.example:8080");
        let two = request(&check, "app.example", true).unwrap();
        assert_eq!(two.uri(), "https://app.example:8080/up?x=1");
        assert!(!two.headers().contains_key("host") && !two.headers().contains_key("connection"));
    }

    #[test]
    fn a_host_of_the_check_is_sent_as_written() {
        let check = check("/", Some("www.example"));
        assert_eq!(request(&check, "www.example", false).unwrap().headers()["host"], "www.example");
        assert_eq!(request(&check, "www.example", true).unwrap().uri(), "http://www.example/");
    }

    #[test]
    fn headers_of_the_check_stand_in_for_those_of_the_probe() {
        let headers = [("user-agent", "me"), ("x-probe", "a, b")];
        let check = HttpCheck {
            method: Method::Post,
            headers: headers.map(|(name, value)| (name.into(), value.into())).into(),
            ..check("/", None)
        };
        let request = request(&check, "app.example", false).unwrap();
        assert_eq!(request.method(), "POST");
        for (name, value) in [("user-agent", "me"), ("x-probe", "a, b"), ("accept", "*/*"), ("content-length", "0")] {
            let values: Vec<_> = request.headers().get_all(name).iter().collect();
            assert_eq!(values, [value], "{name}");
        }
    }

    #[test]
    fn a_path_is_sent_as_written_but_for_what_no_uri_may_hold() {
        let check = check("/a/../b?q={\"x\":1}&r=a|b", None);
        let uri = request(&check, "app.example", false).unwrap().uri().to_string();
        assert_eq!(uri, "/a/../b?q=%7B%22x%22:1%7D&r=a%7Cb");
    }

    #[test]
    fn a_host_that_makes_no_request_is_told() {
        for is_http2 in [false, true] {
            let request = request(&check("/", None), "not a\nhost", is_http2);
            assert!(matches!(request, Err(ProbeError::Request(_))), "{request:?}");
        }
    }
}
