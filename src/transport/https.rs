//! DNS over HTTPS (RFC 8484): HTTP/1.1 and HTTP/2 over TLS, a message a request. Must never know a DNS rule, nor hold anything
//! for a client that is slow: heads, bodies, connections and idle time are bounded as over TCP.

use std::{
    cell::Cell,
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    os::fd::AsFd,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use data_encoding::BASE64URL_NOPAD;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    task::yield_now,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_rustls::server::TlsStream;

use super::{
    Respond,
    connection::Seat,
    tls::{ALPN_H2, handshake},
};
use crate::wire::freshness::fresh_s;

/// Where questions are taken (RFC 8484 §4.1.1: what most clients are set to).
const PATH: &str = "/dns-query";

/// The type of questions and answers (RFC 8484 §6).
const MESSAGE: &str = "application/dns-message";

/// Longest question.
const MESSAGE_BYTES_MAX: usize = u16::MAX as usize;

/// What is read of a body that is too long before its client is told.
const REFUSED_BYTES_MAX: usize = 1 << 20;

/// A request's head; more is refused. A question in the path may have three quarters of it.
const HEAD_BYTES_MAX: u32 = 16 << 10;

/// Requests at a time on one connection, and what of each is sent ahead of a slow client.
const STREAMS_MAX: u32 = 32;
const SEND_BYTES_MAX: usize = 64 << 10;

type Reply = Response<Full<Bytes>>;

/// What one connection's requests share.
struct Session<R> {
    seat: Seat<R>,
    /// When something was last asked or answered.
    used: Cell<Instant>,
    /// Requests that have come and not been answered.
    open: Cell<usize>,
    /// Something was asked that has a reply.
    has_asked: Cell<bool>,
}

/// Serves one connection from its first byte to its end.
pub(super) async fn serve<R: Respond + 'static>(stream: TcpStream, config: Arc<ServerConfig>, seat: Seat<R>) {
    let Some(stream) = handshake(stream, config, &seat).await else { return };
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(ALPN_H2);
    let session =
        Rc::new(Session { used: Cell::new(Instant::now()), open: Cell::new(0), has_asked: Cell::new(false), seat });
    let stream = Told { stream, session: session.clone() };
    let for_requests = session.clone();
    let service = service_fn(move |request| {
        let session = for_requests.clone();
        async move { Ok::<_, Infallible>(session.reply(request).await) }
    });
    if is_h2 {
        let mut http = http2::Builder::new(OnThisThread);
        http.timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEAD_BYTES_MAX)
            .max_send_buf_size(SEND_BYTES_MAX)
            .initial_stream_window_size(MESSAGE_BYTES_MAX as u32)
            .initial_connection_window_size(2 * MESSAGE_BYTES_MAX as u32);
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            biased;
            _ = &mut connection => return, // an error is the client's: it went away or spoke nonsense
            () = session.idle_or_stopped() => connection.as_mut().graceful_shutdown(),
        }
        let _ = timeout(session.grace(), connection).await; // an error means that the client was too slow; it is cut off
    } else {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(session.grace()).max_buf_size(HEAD_BYTES_MAX as usize);
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            biased;
            _ = &mut connection => return, // as above
            () = session.idle_or_stopped() => connection.as_mut().graceful_shutdown(),
        }
        let _ = timeout(session.grace(), connection).await; // as above
    }
}

impl<R: Respond> Session<R> {
    /// Ends when nothing has been asked for `tcp-idle`, or when the server stops.
    async fn idle_or_stopped(&self) {
        let mut stop = self.seat.stop.clone();
        let idle = async {
            loop {
                let until = self.used.get() + self.grace();
                if self.open.get() == 0 && until <= Instant::now() {
                    return;
                }
                sleep_until(until.max(Instant::now() + Duration::from_millis(10))).await;
            }
        };
        tokio::select! {
            () = idle => {}
            // What the kernel has already is answered still; the event loop must hear of it first.
            _ = stop.wait_for(|&stop| stop) => yield_now().await,
        }
    }

    /// How long a client has for each part of an exchange.
    fn grace(&self) -> Duration {
        self.seat.limits.borrow().tcp_idle
    }

    async fn reply(&self, request: Request<Incoming>) -> Reply {
        let _open = Open::new(self);
        match self.question(request).await {
            Ok(question) => self.answer(&question, self.seat.client),
            Err(refusal) => refusal.into(),
        }
    }

    /// The message that a request carries (RFC 8484 §4.1).
    async fn question(&self, request: Request<Incoming>) -> Result<Bytes, Refusal> {
        let (head, body) = request.into_parts();
        // Whatever comes of it: a client that is answered while it sends takes that for a broken stream.
        let body = match timeout_at(self.seat.new_deadline(), whole(body)).await {
            Ok(body) => body,
            Err(_) => Err(Refusal::TooSlow),
        };
        if head.uri.path() != PATH {
            return Err(Refusal::NotHere);
        }
        match head.method {
            Method::GET => question_in(head.uri.query().unwrap_or_default()).map(Bytes::from),
            Method::POST if !is_message(head.headers.get(CONTENT_TYPE)) => Err(Refusal::WrongType),
            Method::POST => body,
            _ => Err(Refusal::WrongMethod),
        }
    }

    /// Whatever the DNS says is a success of HTTP (RFC 8484 §4.2.1); what gets no reply was no query.
    fn answer(&self, question: &[u8], client: SocketAddr) -> Reply {
        let mut shared = self.seat.shared.borrow_mut();
        let Some(reply) = shared.answer(question, client) else { return Refusal::Unreadable.into() };
        self.has_asked.set(true);
        // An answer may be for this client's network alone, which caches that others share do not know.
        let freshness = match fresh_s(reply) {
            Some(seconds) => format!("private, max-age={seconds}"),
            None => "no-store".to_string(),
        };
        let mut reply = Response::new(Full::new(Bytes::copy_from_slice(reply)));
        reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MESSAGE));
        let freshness = HeaderValue::from_str(&freshness).expect("words, digits and an equals sign");
        reply.headers_mut().insert(CACHE_CONTROL, freshness);
        reply
    }
}

/// A connection whose end is told, however it ends, while its socket is still open.
struct Told<R: Respond> {
    stream: TlsStream<TcpStream>,
    session: Rc<Session<R>>,
}

impl<R: Respond> Drop for Told<R> {
    fn drop(&mut self) {
        if self.session.has_asked.get() {
            self.session.seat.connection_ends(self.stream.get_ref().0.as_fd());
        }
    }
}

impl<R: Respond> AsyncRead for Told<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<R: Respond> AsyncWrite for Told<R> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A request that has come; its client may take it back at any time, which drops it.
struct Open<'s, R>(&'s Session<R>);

impl<'s, R> Open<'s, R> {
    fn new(session: &'s Session<R>) -> Self {
        session.open.set(session.open.get() + 1);
        session.seat.touch();
        Open(session)
    }
}

impl<R> Drop for Open<'_, R> {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.used.set(Instant::now());
    }
}

/// Why a request carries no question that could be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// Another path.
    NotHere,
    /// Neither GET nor POST.
    WrongMethod,
    /// A body of another type.
    WrongType,
    /// Longer than a message can be.
    TooLong,
    /// The body did not come in time.
    TooSlow,
    /// No message, or none that is a query.
    Unreadable,
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Reply {
        let (status, why) = match refusal {
            Refusal::NotHere => (StatusCode::NOT_FOUND, "DNS questions are taken at /dns-query\n"),
            Refusal::WrongMethod => (StatusCode::METHOD_NOT_ALLOWED, "ask with GET or POST\n"),
            Refusal::WrongType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "send application/dns-message\n"),
            Refusal::TooLong => (StatusCode::PAYLOAD_TOO_LARGE, "a DNS message has at most 65535 bytes\n"),
            Refusal::TooSlow => (StatusCode::REQUEST_TIMEOUT, "the body took too long\n"),
            Refusal::Unreadable => {
                (StatusCode::BAD_REQUEST, "send a DNS query: as the body, or as ?dns= in base64url\n")
            }
        };
        let mut reply = Response::new(Full::new(Bytes::from_static(why.as_bytes())));
        *reply.status_mut() = status;
        reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        if refusal == Refusal::WrongMethod {
            reply.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
        }
        reply
    }
}

/// A body to its end, as far as it can be a message. One that is longer is read on for a while, so that its client hears why it
/// is refused.
async fn whole(mut body: Incoming) -> Result<Bytes, Refusal> {
    let (mut message, mut bytes) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::Unreadable)?;
        let Some(data) = frame.data_ref() else { continue };
        bytes += data.len();
        if bytes <= MESSAGE_BYTES_MAX {
            message.extend_from_slice(data);
        } else if bytes > REFUSED_BYTES_MAX {
            break;
        }
    }
    if bytes > MESSAGE_BYTES_MAX { Err(Refusal::TooLong) } else { Ok(message.into()) }
}

fn is_message(content_type: Option<&HeaderValue>) -> bool {
    let essence = content_type.and_then(|value| value.to_str().ok()).and_then(|text| text.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case(MESSAGE))
}

/// The message in a query string: `dns=`, base64url without padding (RFC 8484 §6).
fn question_in(query: &str) -> Result<Vec<u8>, Refusal> {
    let encoded = query.split('&').find_map(|pair| pair.strip_prefix("dns=")).ok_or(Refusal::Unreadable)?;
    let message = BASE64URL_NOPAD.decode(encoded.as_bytes()).map_err(|_| Refusal::Unreadable)?;
    if message.len() > MESSAGE_BYTES_MAX { Err(Refusal::TooLong) } else { Ok(message) }
}

/// HTTP/2 gives each request a task; all stay on the thread that their connection is on.
#[derive(Clone, Copy)]
struct OnThisThread;

impl<F: Future + 'static> Executor<F> for OnThisThread {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move { drop(task.await) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64url_without_padding_is_read_and_nothing_else() {
        for (text, bytes) in [
            ("", Some(&b""[..])),
            ("Zg", Some(b"f")),
            ("Zm8", Some(b"fo")),
            ("Zm9v", Some(b"foo")),
            ("__-_", Some(b"\xff\xff\xbf")),
            ("Zg==", None),
            ("Zh", None),
            ("Z", None),
            ("Zm9vZ", None),
            ("//+/", None),
            ("Zm 9v", None),
        ] {
            let read = question_in(&format!("dns={text}"));
            assert_eq!(read, bytes.map(<[u8]>::to_vec).ok_or(Refusal::Unreadable), "{text}");
        }
    }

    #[test]
    fn a_question_stands_in_its_parameter() {
        assert_eq!(question_in("ct=x&dns=Zm9v&y"), Ok(b"foo".to_vec()));
        for query in ["", "dns", "xdns=Zm9v", "DNS=Zm9v", "dns=!!!"] {
            assert_eq!(question_in(query), Err(Refusal::Unreadable), "{query}");
        }
        assert_eq!(question_in(&format!("dns={}", "A".repeat(87_384))), Err(Refusal::TooLong));
    }

    #[test]
    fn the_type_of_a_body_may_have_parameters_and_any_letter_case() {
        for (text, good) in [
            ("application/dns-message", true),
            ("Application/DNS-Message; charset=x", true),
            ("text/plain", false),
            ("application/dns-message2", false),
        ] {
            assert_eq!(is_message(Some(&HeaderValue::from_static(text))), good, "{text}");
        }
        assert!(!is_message(None));
    }
}
