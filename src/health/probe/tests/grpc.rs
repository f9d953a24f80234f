//! gRPC health checks against a real HTTP/2 server: what it says, what it does not say, and how it fails.

use hyper::{HeaderMap, Response, StatusCode, body::Bytes};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::{
    http2::speak_http2,
    https::{ca, certificate, trusting},
    *,
};
use crate::health::{CheckKind, GrpcCheck};

/// What a server answers.
#[derive(Clone, Copy)]
struct Script {
    status: StatusCode,
    content_type: &'static str,
    /// Pieces of the message, each in a frame of its own.
    message: &'static [&'static [u8]],
    /// In headers without a body, in trailers, or not at all.
    grpc_status: Option<(&'static str, &'static str)>,
    headers_alone: bool,
}

const SERVING: Script = Script {
    status: StatusCode::OK,
    content_type: "application/grpc",
    message: &[&[0, 0, 0, 0, 2, 0x08, 1]],
    grpc_status: Some(("0", "")),
    headers_alone: false,
};

/// A health service that knows `web`, and everything as a whole, under the script.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, script: Script) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (head, mut body) = request.into_parts();
        let asked = async {
            let mut bytes = Vec::new();
            while let Some(Ok(chunk)) = body.data().await {
                bytes.extend_from_slice(&chunk);
            }
            bytes
        };
        // The connection must be driven for the body to come.
        let bytes = tokio::select! { bytes = asked => bytes, _ = connection.accept() => return };
        assert_eq!((head.uri.path(), head.method.as_str()), ("/grpc.health.v1.Health/Check", "POST"));
        assert_eq!(head.headers["content-type"], "application/grpc");
        assert_eq!(head.headers["te"], "trailers");
        assert!(head.headers["grpc-timeout"].to_str().unwrap().ends_with('m'));
        let is_known = bytes == [0, 0, 0, 0, 0] || bytes == [0, 0, 0, 0, 5, 0x0a, 3, b'w', b'e', b'b'];
        let script = match is_known {
            true => script,
            false => Script { grpc_status: Some(("5", "unknown%20service")), headers_alone: true, ..SERVING },
        };
        answer(&mut respond, script);
    }
}

fn answer(respond: &mut h2::server::SendResponse<Bytes>, script: Script) {
    let mut trailers = HeaderMap::new();
    if let Some((code, message)) = script.grpc_status {
        trailers.insert("grpc-status", code.parse().unwrap());
        trailers.insert("grpc-message", message.parse().unwrap());
    }
    let mut response = Response::builder().status(script.status).header("content-type", script.content_type);
    if script.headers_alone {
        response.headers_mut().unwrap().extend(trailers);
        respond.send_response(response.body(()).unwrap(), true).unwrap();
        return;
    }
    let mut sending = respond.send_response(response.body(()).unwrap(), false).unwrap();
    for piece in script.message {
        sending.send_data(Bytes::from_static(piece), false).unwrap();
    }
    match script.grpc_status {
        Some(_) => sending.send_trailers(trailers).unwrap(),
        None => sending.send_data(Bytes::new(), true).unwrap(),
    }
}

async fn grpc_server(script: Script) -> SocketAddr {
    server(move |stream| serve(stream, script)).await
}

fn grpc(at: SocketAddr, timeout: Duration, change: impl FnOnce(&mut GrpcCheck)) -> Check {
    let mut grpc = GrpcCheck { tls: false, verify_tls: true, port: at.port(), host: None, service: String::new() };
    change(&mut grpc);
    Check { kind: CheckKind::Grpc(grpc), timeout, ..tcp_check(0) }
}

#[tokio::test]
async fn only_a_server_that_says_that_it_serves_passes() {
    let status = |n: u8| -> &'static [&'static [u8]] {
        let message: &'static [u8] = vec![0, 0, 0, 0, 2, 0x08, n].leak();
        vec![message].leak()
    };
    for (script, words) in [
        (SERVING, None),
        (Script { message: &[&[0, 0, 0], &[0, 2], &[0x08], &[1]], ..SERVING }, None),
        (Script { content_type: "application/grpc+proto", ..SERVING }, None),
        (Script { message: status(2), ..SERVING }, Some("the server says NOT_SERVING")),
        (Script { message: status(0), ..SERVING }, Some("the server says UNKNOWN: it does not know yet")),
        (Script { message: &[&[0, 0, 0, 0, 0]], ..SERVING }, Some("the server says UNKNOWN")),
        (Script { message: status(3), ..SERVING }, Some("the server says SERVICE_UNKNOWN")),
        (Script { message: status(9), ..SERVING }, Some("serving status 9, which is none")),
        (Script { message: &[&[0, 0, 0, 0, 9, 8]], ..SERVING }, Some("no HealthCheckResponse")),
        (Script { message: &[&[7; 4096]], ..SERVING }, Some("too long for a health check")),
        (Script { grpc_status: Some(("14", "away")), ..SERVING }, Some("gRPC status 14 UNAVAILABLE: away")),
        (
            Script { grpc_status: Some(("12", "")), headers_alone: true, ..SERVING },
            Some("gRPC status 12 UNIMPLEMENTED: the server has no grpc.health.v1.Health"),
        ),
        (Script { headers_alone: true, ..SERVING }, Some("the call ended without grpc-status")),
        (Script { grpc_status: None, ..SERVING }, Some("the call ended without grpc-status")),
        (Script { content_type: "text/html", ..SERVING }, Some("content type `text/html`")),
        (Script { status: StatusCode::NOT_FOUND, ..SERVING }, Some("status 404 is not expected")),
    ] {
        let at = grpc_server(script).await;
        let result = probe(at, grpc(at, AMPLE, |_| {})).await;
        match (&result.outcome, words) {
            (Ok(()), None) => assert!(result.connect.is_some() && result.first_byte.is_some() && result.tls.is_none()),
            (Err(error), Some(words)) => assert!(error.to_string().contains(words), "{words}: {error}"),
            _ => panic!("{words:?}: {result}"),
        }
    }
}

#[tokio::test]
async fn the_service_is_asked_for_by_name() {
    let at = grpc_server(SERVING).await;
    assert!(probe(at, grpc(at, AMPLE, |grpc| grpc.service = "web".into())).await.is_success());
    let result = probe(at, grpc(at, AMPLE, |grpc| grpc.service = "wub".into())).await;
    let expected = "gRPC status 5 NOT_FOUND: unknown service".to_string();
    assert_eq!(result.outcome, Err(ProbeError::GrpcStatus(expected)));
}

#[tokio::test]
async fn over_tls_the_server_must_pick_http2_and_show_a_valid_certificate() {
    let trusted = ca("trusted");
    let net = trusting(&trusted);
    let over_tls = |mut config: ServerConfig, protocols: &[&str]| {
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        server(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(stream, SERVING).await;
                }
            }
        })
    };
    let check = |at: SocketAddr, host: &str, verify| {
        grpc(at, AMPLE, |grpc| (grpc.tls, grpc.verify_tls, grpc.host) = (true, verify, Some(host.into())))
    };
    let own = || certificate("web.example", Some(&trusted), 2100);
    for (what, protocols, host, verify, passes) in [
        ("right", &["h2"][..], "web.example", true, true),
        ("wrong name", &["h2"], "app.example", true, false),
        ("wrong name, unverified", &["h2"], "app.example", false, true),
        ("no ALPN", &[], "web.example", true, false),
        ("HTTP/1.1 alone", &["http/1.1"], "web.example", true, false),
    ] {
        let at = over_tls(own(), protocols).await;
        let result = probe_with(&net, Endpoint::Address(at.ip()), check(at, host, verify)).await;
        match passes {
            true => {
                assert_eq!(result.outcome, Ok(()), "{what}");
                assert!(result.certificate_expires_s.is_some() && result.tls.is_some(), "{what}");
            }
            false => assert!(matches!(result.outcome, Err(ProbeError::Tls(_))), "{what}: {result}"),
        }
    }
}

#[tokio::test]
async fn what_is_no_grpc_fails_in_words() {
    let (asked, _asks) = tokio::sync::mpsc::unbounded_channel();
    let web = server(move |stream| speak_http2(stream, "hello", asked.clone())).await;
    let result = probe(web, grpc(web, AMPLE, |_| {})).await;
    assert!(matches!(&result.outcome, Err(ProbeError::Protocol(text)) if text.contains("content type")), "{result}");
    let old = answering_anything("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    let result = probe(old, grpc(old, AMPLE, |_| {})).await;
    assert!(matches!(result.outcome, Err(ProbeError::Protocol(_) | ProbeError::Reset(_))), "{result}");
    let silent = server(|stream| async move {
        sleep(AMPLE).await;
        drop(stream);
    })
    .await;
    assert_eq!(timed_out_in(&probe(silent, grpc(silent, SHORT, |_| {})).await), Some(Phase::Answer));
    let closed = closed_port().await;
    assert_eq!(probe(closed, grpc(closed, AMPLE, |_| {})).await.outcome, Err(ProbeError::Refused));
}
