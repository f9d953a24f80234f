//! Real servers on loopback, one for each way to succeed or fail.

mod grpc;
mod hostile;
mod http2;
mod https;
mod names;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::sleep,
};

use super::*;
use crate::health::{
    Check, Endpoint, HttpCheck, Method, StatusSet, Targets, probe_once,
    testing::{http_check, http_part, net_probe, tcp_check},
};

/// Long enough that only a hang reaches it.
const AMPLE: Duration = Duration::from_secs(30);
/// Short enough to wait out.
const SHORT: Duration = Duration::from_millis(300);

/// A server that gives every connection to `serve`, until the test ends.
async fn server<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    at
}

/// Reads up to the end of the request's headers.
async fn request(stream: &mut TcpStream) -> String {
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    while !text.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(n) if n > 0 => text.extend_from_slice(&buffer[..n]),
            _ => break,
        }
    }
    String::from_utf8(text).unwrap()
}

/// A server that answers every request with these pieces, each sent on its own, and then closes.
async fn answering(pieces: &'static [&'static str]) -> SocketAddr {
    server(move |mut stream| async move {
        request(&mut stream).await;
        for piece in pieces {
            let _ = stream.write_all(piece.as_bytes()).await;
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// A server that answers whatever comes first, whether that is a request or not.
async fn answering_anything(answer: &'static str) -> SocketAddr {
    server(move |mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.read(&mut [0; 4096]).await; // closing with something unread would reset
    })
    .await
}

async fn probe_with(net: &NetProbe, endpoint: Endpoint, check: Check) -> ProbeResult {
    let check = Check { interval: AMPLE.max(check.timeout), ..check };
    let targets = Targets::new(vec![(endpoint, Arc::new(check))]);
    probe_once(&targets, Arc::new(net.clone()), usize::MAX).await.remove(0)
}

async fn probe(at: SocketAddr, check: Check) -> ProbeResult {
    probe_with(&net_probe(), Endpoint::Address(at.ip()), check).await
}

fn http_within(at: SocketAddr, timeout: Duration, change: impl FnOnce(&mut HttpCheck)) -> Check {
    let mut check = Check { timeout, ..http_check(at) };
    change(http_part(&mut check));
    check
}

fn timed_out_in(result: &ProbeResult) -> Option<Phase> {
    match result.outcome {
        Err(ProbeError::Timeout { phase, .. }) => Some(phase),
        _ => None,
    }
}

/// A port that nothing listens on.
async fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// A listener whose queue is full, so that a further connection hangs; with what fills it.
async fn black_hole() -> (SocketAddr, Vec<socket2::Socket>) {
    use socket2::{Domain, Socket, Type};
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let at = listener.local_addr().unwrap().as_socket().unwrap();
    let mut held = vec![listener];
    for _ in 0..64 {
        let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        if filler.connect_timeout(&at.into(), Duration::from_millis(100)).is_err() {
            return (at, held);
        }
        held.push(filler);
    }
    panic!("64 connections did not fill a queue of none");
}

/// Thousands of them may hang at a time.
#[tokio::test]
async fn a_probe_that_is_connecting_is_small() {
    let net = net_probe();
    for check in [tcp_check(80), http_check(([127, 0, 0, 1], 80).into())] {
        let probing = probe_address(&check, IpAddr::from([127, 0, 0, 1]), None, &net.tls, Instant::now());
        assert!(size_of_val(&probing) <= 2_560, "{} bytes", size_of_val(&probing));
    }
}

#[tokio::test]
async fn an_open_port_passes_and_its_connect_time_is_told() {
    let at = server(|_| async {}).await;
    let result = probe(at, Check { timeout: AMPLE, ..tcp_check(at.port()) }).await;
    assert_eq!(result.outcome, Ok(()));
    assert!(result.connect.unwrap() <= result.total && result.total < AMPLE);
}

#[tokio::test]
async fn a_closed_port_is_refused_at_once() {
    let at = closed_port().await;
    for check in [Check { timeout: AMPLE, ..tcp_check(at.port()) }, http_within(at, AMPLE, |_| {})] {
        let result = probe(at, check).await;
        assert_eq!(result.outcome, Err(ProbeError::Refused));
        assert_eq!((result.connect, result.status), (None, None));
        assert!(result.total < AMPLE);
    }
}

#[tokio::test]
async fn silence_ends_at_the_timeout_and_the_phase_is_told() {
    let (at, _held) = black_hole().await;
    for check in [Check { timeout: SHORT, ..tcp_check(at.port()) }, http_within(at, SHORT, |_| {})] {
        let result = probe(at, check).await;
        assert_eq!(timed_out_in(&result), Some(Phase::Connect), "{result}");
        assert!(result.total >= SHORT && result.connect.is_none());
    }
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_passes_tcp_and_fails_http() {
    let at = server(|stream| async move {
        sleep(AMPLE).await;
        drop(stream);
    })
    .await;
    assert!(probe(at, Check { timeout: AMPLE, ..tcp_check(at.port()) }).await.is_success());
    let result = probe(at, http_within(at, SHORT, |_| {})).await;
    assert_eq!(timed_out_in(&result), Some(Phase::Answer), "{result}");
    assert!(result.connect.unwrap() < SHORT, "the connection did open");
}

#[tokio::test]
async fn a_slow_answer_counts_up_to_the_timeout_and_not_beyond() {
    let at = server(|mut stream| async move {
        request(&mut stream).await;
        sleep(SHORT).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let result = probe(at, http_within(at, AMPLE, |_| {})).await;
    assert_eq!((&result.outcome, result.status), (&Ok(()), Some(200)));
    assert!(result.total >= SHORT);
    let result = probe(at, http_within(at, SHORT / 3, |_| {})).await;
    assert_eq!(timed_out_in(&result), Some(Phase::Answer), "{result}");
}

#[tokio::test]
async fn a_connection_that_ends_without_an_answer_fails() {
    let at = server(|mut stream| async move {
        request(&mut stream).await;
    })
    .await;
    let result = probe(at, http_within(at, AMPLE, |_| {})).await;
    assert_eq!(result.outcome, Err(ProbeError::Closed(Phase::Answer)));

    let at = server(|mut stream| async move {
        request(&mut stream).await;
        let _ = stream.set_zero_linger(); // closing now resets
    })
    .await;
    let result = probe(at, http_within(at, AMPLE, |_| {})).await;
    assert_eq!(result.outcome, Err(ProbeError::Reset(Phase::Answer)));

    let at = answering(&["SSH-2.0-OpenSSH_9.2\r\n"]).await;
    let result = probe(at, http_within(at, AMPLE, |_| {})).await;
    assert!(matches!(result.outcome, Err(ProbeError::Protocol(_))), "{result}");
}

#[tokio::test]
async fn the_status_decides() {
    for (answer, expect, outcome) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", (200, 299), Ok(())),
        ("HTTP/1.1 204 No Content\r\n\r\n", (200, 299), Ok(())),
        ("HTTP/1.0 200 OK\r\n\r\n", (200, 200), Ok(())),
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", (200, 299), Err(ProbeError::Status(404))),
        ("HTTP/1.1 503 Away\r\ncontent-length: 0\r\n\r\n", (200, 399), Err(ProbeError::Status(503))),
        ("HTTP/1.1 503 Away\r\ncontent-length: 0\r\n\r\n", (503, 503), Ok(())),
        ("HTTP/1.1 599 Odd\r\ncontent-length: 0\r\n\r\n", (500, 599), Ok(())),
    ] {
        let pieces: &'static [&'static str] = vec![answer].leak();
        let at = answering(pieces).await;
        let result = probe(at, http_within(at, AMPLE, |http| http.expect_status = StatusSet(vec![expect]))).await;
        assert_eq!(result.outcome, outcome, "{answer}");
        assert_eq!(result.status, answer[9..12].parse().ok());
    }
}

#[tokio::test]
async fn redirects_are_judged_and_not_followed() {
    let hits = Arc::new(Mutex::new(0));
    let counted = hits.clone();
    let at = server(move |mut stream| {
        let counted = counted.clone();
        async move {
            request(&mut stream).await;
            *counted.lock().unwrap() += 1;
            let _ = stream.write_all(b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n").await;
        }
    })
    .await;
    let result = probe(at, http_within(at, AMPLE, |_| {})).await;
    assert_eq!((&result.outcome, result.status), (&Ok(()), Some(302)));
    let result = probe(at, http_within(at, AMPLE, |http| http.expect_status = StatusSet(vec![(200, 299)]))).await;
    assert_eq!(result.outcome, Err(ProbeError::Status(302)));
    assert_eq!(*hits.lock().unwrap(), 2);
}

#[tokio::test]
async fn the_expected_text_is_searched_in_the_head_of_the_body_alone() {
    fn body(length: usize, at: usize) -> &'static [&'static str] {
        let mut body = "n".repeat(length);
        body.replace_range(at..at + 6, "needle");
        let (one, two) = body.split_at(at + 3);
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        vec![&*head.leak(), &*one.to_owned().leak(), &*two.to_owned().leak()].leak()
    }
    let not_within = |read_bytes| Err(ProbeError::Body { read_bytes });
    for (pieces, outcome) in [
        (body(100, 0), Ok(())),
        (body(5_120, 5_114), Ok(())),
        (body(9_000, 5_114), Ok(())),
        (body(9_000, 5_115), not_within(5_120)),
        (body(9_000, 8_000), not_within(5_120)),
        (
            &["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "3\r\nnee\r\n", "3\r\ndle\r\n", "0\r\n\r\n"],
            Ok(()),
        ),
        (&["HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nnee"], not_within(3)),
        (&["HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"], not_within(0)),
        (&["HTTP/1.1 500 Oops\r\ncontent-length: 6\r\n\r\nneedle"], Err(ProbeError::Status(500))),
    ] {
        let at = answering(pieces).await;
        let result = probe(at, http_within(at, AMPLE, |http| http.expect_body = "needle".into())).await;
        assert_eq!(result.outcome, outcome, "{:.60}", pieces[0]);
    }
}

#[tokio::test]
async fn a_body_cut_short_is_no_success() {
    let at = answering(&["HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nnee"]).await;
    let result = probe(at, http_within(at, AMPLE, |http| http.expect_body = "needle".into())).await;
    assert!(matches!(result.outcome, Err(ProbeError::Protocol(_))), "{result}");
}

#[tokio::test]
async fn the_request_says_who_asks_and_whom() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = heard.clone();
    let at = server(move |mut stream| {
        let hearing = hearing.clone();
        async move {
            let text = request(&mut stream).await;
            hearing.lock().unwrap().push(text);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    })
    .await;
    let port = at.port();
    for (host, expected) in [
        (None, format!("host: 127.0.0.1:{port}")),
        (Some("app.example"), "host: app.example".to_string()),
        (Some("192.0.2.1"), format!("host: 192.0.2.1:{port}")),
    ] {
        let check = http_within(at, AMPLE, |http| {
            (http.host, http.path) = (host.map(str::to_owned), "/up?deep=1".into());
        });
        assert!(probe(at, check).await.is_success());
        let text = heard.lock().unwrap().pop().unwrap().to_ascii_lowercase();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "get /up?deep=1 http/1.1");
        assert_eq!(lines.iter().filter(|line| line.starts_with("host:")).collect::<Vec<_>>(), [&expected]);
        assert!(lines.contains(&concat!("user-agent: isochrone/", env!("CARGO_PKG_VERSION"))), "{text}");
    }
}

#[tokio::test]
async fn method_and_headers_are_those_of_the_check() {
    let heard = Arc::new(Mutex::new(String::new()));
    let hearing = heard.clone();
    let at = server(move |mut stream| {
        let hearing = hearing.clone();
        async move {
            *hearing.lock().unwrap() = request(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n").await;
        }
    })
    .await;
    for method in Method::ALL {
        let check = http_within(at, AMPLE, |http| {
            (http.method, http.headers) = (method, vec![("authorization".into(), "Bearer x".into())]);
        });
        let result = probe(at, check).await;
        assert_eq!((&result.outcome, result.status), (&Ok(()), Some(200)), "{method:?}: {result}");
        let text = heard.lock().unwrap().to_ascii_lowercase();
        assert!(text.starts_with(&format!("{} / http/1.1\r\n", method.as_str().to_ascii_lowercase())), "{text}");
        assert!(text.lines().any(|line| line == "authorization: bearer x"), "{text}");
        assert_eq!(text.lines().any(|line| line == "content-length: 0"), method == Method::Post, "{text}");
    }
}

#[tokio::test]
async fn the_wait_for_the_first_byte_is_told_apart() {
    let at = server(|mut stream| async move {
        request(&mut stream).await;
        sleep(SHORT).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    })
    .await;
    let result = probe(at, http_within(at, AMPLE, |_| {})).await;
    assert!(result.first_byte.unwrap() >= SHORT && result.first_byte.unwrap() <= result.total, "{result:?}");
    let at = server(|mut stream| async move {
        request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        sleep(2 * SHORT).await;
        let _ = stream.write_all(b"content-length: 2\r\n\r\nok").await;
    })
    .await;
    let result = probe(at, http_within(at, AMPLE, |_| {})).await;
    assert!(
        result.total - result.first_byte.unwrap() >= SHORT,
        "the first, and not the last of the headers: {result:?}"
    );
    assert!(probe(at, Check { timeout: AMPLE, ..tcp_check(at.port()) }).await.first_byte.is_none());
}

#[test]
fn lacks_of_this_host_are_not_held_against_the_target() {
    for (errno, inconclusive) in [
        (libc::EMFILE, true),
        (libc::ENFILE, true),
        (libc::ENOBUFS, true),
        (libc::ENOMEM, true),
        (libc::ECONNREFUSED, false),
        (libc::ENETUNREACH, false),
        (libc::EHOSTUNREACH, false),
        (libc::EADDRNOTAVAIL, true),
        (libc::EPERM, true),
        (libc::EACCES, false),
        (libc::ETIMEDOUT, false),
    ] {
        let error = ProbeError::from_io(&io::Error::from_raw_os_error(errno), Phase::Connect);
        assert_eq!(error.is_inconclusive(), inconclusive, "{error}");
    }
}
