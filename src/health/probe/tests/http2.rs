//! HTTP/2, by ALPN and by prior knowledge, against servers made of the h2 library and of nothing.

use hyper::{Request, Response, body::Bytes};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tokio_rustls::TlsAcceptor;

use super::{
    https::{ca, certificate, https, trusting},
    *,
};
use crate::health::HttpVersion;

/// Answers every request over HTTP/2 with `body` and passes the request on.
pub(super) async fn speak_http2(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    body: &'static str,
    asked: UnboundedSender<Request<()>>,
) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let _ = asked.send(request.map(|_| ()));
        let Ok(mut sending) = respond.send_response(Response::new(()), body.is_empty()) else { return };
        if !body.is_empty() {
            let _ = sending.send_data(Bytes::from_static(body.as_bytes()), true);
        }
    }
}

async fn plain_http2(body: &'static str) -> (SocketAddr, UnboundedReceiver<Request<()>>) {
    let (asked, asks) = unbounded_channel();
    (server(move |stream| speak_http2(stream, body, asked.clone())).await, asks)
}

/// Speaks over TLS what it agrees on with the client.
async fn picking(mut config: ServerConfig, protocols: &[&str]) -> (SocketAddr, UnboundedReceiver<Request<()>>) {
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let (acceptor, (asked, asks)) = (TlsAcceptor::from(Arc::new(config)), unbounded_channel());
    let at = server(move |stream| {
        let (acceptor, asked) = (acceptor.clone(), asked.clone());
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                return speak_http2(stream, "all is well", asked).await;
            }
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nall is well").await;
            let _ = stream.shutdown().await;
        }
    })
    .await;
    (at, asks)
}

#[tokio::test]
async fn https_speaks_what_the_server_picks_unless_told_otherwise() {
    let trusted = ca("trusted");
    let net = trusting(&trusted);
    let no_common = |result: &ProbeResult| matches!(&result.outcome, Err(ProbeError::Tls(_)));
    for (offered, version, by_http2) in [
        (&["h2", "http/1.1"][..], HttpVersion::Auto, Some(true)),
        (&["http/1.1"], HttpVersion::Auto, Some(false)),
        (&[], HttpVersion::Auto, Some(false)),
        (&["h2", "http/1.1"], HttpVersion::Http1, Some(false)),
        (&["h2", "http/1.1"], HttpVersion::Http2, Some(true)),
        (&["h2"], HttpVersion::Http1, None),
        (&["http/1.1"], HttpVersion::Http2, None),
        (&[], HttpVersion::Http2, None),
    ] {
        let (at, mut asks) = picking(certificate("web.example", Some(&trusted), 2100), offered).await;
        let mut check = https(at, Some("web.example"), true);
        (http_part(&mut check).version, http_part(&mut check).expect_body) = (version, "is well".into());
        let result = probe_with(&net, Endpoint::Address(at.ip()), check).await;
        let Some(by_http2) = by_http2 else {
            assert!(no_common(&result), "{offered:?} {version:?}: {result}");
            continue;
        };
        assert_eq!((&result.outcome, result.status), (&Ok(()), Some(200)), "{offered:?} {version:?}: {result}");
        let asked = asks.try_recv().ok();
        assert_eq!(asked.is_some(), by_http2, "{offered:?} {version:?}");
        if let Some(asked) = asked {
            assert_eq!(asked.uri().to_string(), "https://web.example/");
        }
    }
}

#[tokio::test]
async fn plain_http_speaks_http2_only_when_told_to() {
    let (at, mut asks) = plain_http2("all is well").await;
    let with = |version| {
        http_within(at, AMPLE, |http| {
            (http.version, http.expect_body) = (version, "is well".into());
            (http.host, http.headers) = (Some("app.example".into()), vec![("x-probe".into(), "1".into())]);
        })
    };
    let result = probe(at, with(HttpVersion::Http2)).await;
    assert_eq!((&result.outcome, result.status), (&Ok(()), Some(200)), "{result}");
    assert!(result.connect.is_some() && result.first_byte.is_some() && result.tls.is_none());
    let asked = asks.recv().await.unwrap();
    assert_eq!(asked.uri().to_string(), "http://app.example/");
    assert_eq!(asked.headers()["x-probe"], "1");
    let result = probe(at, with(HttpVersion::Auto)).await;
    assert!(matches!(result.outcome, Err(ProbeError::Protocol(_))), "{result}");

    let at = answering_anything("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let result = probe(at, http_within(at, AMPLE, |http| http.version = HttpVersion::Http2)).await;
    assert!(matches!(result.outcome, Err(ProbeError::Protocol(_))), "{result}");
}

#[tokio::test]
async fn head_needs_no_body_and_a_missing_text_is_told_over_http2_too() {
    let (at, _asks) = plain_http2("").await;
    let head = http_within(at, AMPLE, |http| (http.version, http.method) = (HttpVersion::Http2, Method::Head));
    assert!(probe(at, head).await.is_success());
    let (at, _asks) = plain_http2("other").await;
    let check = http_within(at, AMPLE, |http| {
        (http.version, http.expect_body) = (HttpVersion::Http2, "needle".into());
    });
    assert_eq!(probe(at, check).await.outcome, Err(ProbeError::Body { read_bytes: 5 }));
}

#[tokio::test]
async fn a_server_that_takes_the_connection_and_never_answers_times_out_over_http2() {
    let at = server(|stream| async move {
        sleep(AMPLE).await;
        drop(stream);
    })
    .await;
    let result = probe(at, http_within(at, SHORT, |http| http.version = HttpVersion::Http2)).await;
    assert_eq!(timed_out_in(&result), Some(Phase::Answer), "{result}");
}

/// A frame (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

/// A server that greets, sends `first` once a request has come, and then `again` for ever.
async fn sending_frames(first: Vec<u8>, again: Vec<u8>) -> SocketAddr {
    server(move |stream| {
        let (first, again) = (first.clone(), again.repeat(200));
        async move {
            let (mut reading, mut writing) = stream.into_split();
            let _ = writing.write_all(&frame(SETTINGS, 0, 0, &[])).await;
            let mut len = 0;
            while len < 80 {
                // preface, settings and headers
                match reading.read(&mut [0; 4096]).await {
                    Ok(n) if n > 0 => len += n,
                    _ => return,
                }
            }
            let answered =
                tokio::spawn(async move { while reading.read(&mut [0; 4096]).await.is_ok_and(|n| n > 0) {} });
            let _ = writing.write_all(&first).await;
            while !again.is_empty() && writing.write_all(&again).await.is_ok() {}
            let _ended = answered.await;
        }
    })
    .await
}

#[tokio::test]
async fn floods_and_refusals_over_http2_end_the_probe_soon_and_count_as_answers() {
    let nothing = Vec::new;
    for (what, first, again) in [
        ("pings", nothing(), frame(PING, 0, 0, &[0; 8])),
        ("settings", nothing(), frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255])),
        ("continuations", frame(HEADERS, 0, 1, &[]), frame(CONTINUATION, 0, 1, b"\x00\x01x\x01y")),
        ("empty continuations", frame(HEADERS, 0, 1, &[]), frame(CONTINUATION, 0, 1, &[])),
        ("unknown frames", nothing(), frame(0xbb, 0, 0, &[0; 64])),
        ("a reset", frame(RST_STREAM, 0, 1, &[0, 0, 0, 7]), nothing()),
        ("going away", frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 11]), nothing()),
        ("a frame too long", [0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1].to_vec(), vec![0; 1_000]),
    ] {
        let at = sending_frames(first, again).await;
        let result = probe(at, http_within(at, AMPLE, |http| http.version = HttpVersion::Http2)).await;
        assert!(matches!(result.outcome, Err(ProbeError::Protocol(_))), "{what}: {result}");
        assert!(result.total < AMPLE, "{what}: {result}");
    }
}
