//! Endpoints that send what they should not, or without end.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[tokio::test]
async fn what_answers_is_told_from_what_only_breaks_off() {
    let closing = server(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
    })
    .await;
    let no_http = answering(&["SSH-2.0-OpenSSH_9.2\r\n"]).await;
    let no_tls = answering_anything("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    for (at, is_tls, answered) in
        [(closing, false, false), (closing, true, false), (no_http, false, true), (no_tls, true, true)]
    {
        let result = probe(at, http_within(at, AMPLE, |http| (http.tls, http.verify_tls) = (is_tls, false))).await;
        let error = result.outcome.clone().unwrap_err();
        assert_eq!(error.is_answer(), answered, "{result}");
        assert_eq!(matches!(error, ProbeError::Closed(_)), !answered, "{result}");
    }
}

#[tokio::test]
async fn an_endpoint_that_sends_without_end_is_left_after_a_quarter_of_a_megabyte() {
    for (piece, complaint) in [
        ("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n", "more than 256 kB came, and no complete answer"),
        ("x: y\r\n", "head"),
        ("x", "head"),
    ] {
        let sent = Arc::new(AtomicUsize::new(0));
        let counted = sent.clone();
        let at = server(move |mut stream| {
            let counted = counted.clone();
            async move {
                request(&mut stream).await;
                let status = if piece.starts_with("HTTP") { "" } else { "HTTP/1.1 200 OK\r\n" };
                let _ = stream.write_all(status.as_bytes()).await;
                let pieces = piece.repeat(1_000);
                while let Ok(len) = stream.write(pieces.as_bytes()).await {
                    counted.fetch_add(len, Ordering::SeqCst);
                }
            }
        })
        .await;
        let result = probe(at, http_within(at, AMPLE, |_| {})).await;
        let told = result.to_string();
        assert!(
            matches!(result.outcome, Err(ProbeError::Protocol(_))) && told.contains(complaint),
            "{piece:?}: {told}"
        );
        assert!(result.total < AMPLE);
        let sent = sent.load(Ordering::SeqCst);
        assert!(sent < 16_000_000, "what the kernel's buffers take, and no more: {sent}");
    }
}

#[tokio::test]
async fn early_hints_before_an_answer_are_passed_over() {
    let at = answering(&[
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
    ])
    .await;
    let result = probe(at, http_within(at, AMPLE, |_| {})).await;
    assert_eq!((&result.outcome, result.status), (&Ok(()), Some(204)), "{result}");
}

#[tokio::test]
async fn an_endless_body_is_not_read_on() {
    let (sent, mut seen) = tokio::sync::watch::channel(None);
    let sent = Arc::new(sent);
    let at = server(move |mut stream| {
        let sent = sent.clone();
        async move {
            request(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            let mut bytes = 0usize;
            while stream.write_all(&[b'.'; 1024]).await.is_ok() {
                bytes += 1024;
            }
            sent.send_replace(Some(bytes));
        }
    })
    .await;
    let result = probe(at, http_within(at, AMPLE, |http| http.expect_body = "needle".into())).await;
    assert_eq!(result.outcome, Err(ProbeError::Body { read_bytes: 5_120 }));
    let closed = tokio::time::timeout(AMPLE, seen.wait_for(Option::is_some)).await;
    assert!(closed.is_ok(), "the connection is closed rather than drained");
}

#[tokio::test]
async fn headers_and_bodies_that_trickle_do_not_stretch_the_timeout() {
    let at = server(|mut stream| async move {
        request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while stream.write_all(b"x: y\r\n").await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(timed_out_in(&probe(at, http_within(at, SHORT, |_| {})).await), Some(Phase::Answer));
    let at = server(|mut stream| async move {
        request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(b"z").await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let result = probe(at, http_within(at, SHORT, |http| http.expect_body = "ok".into())).await;
    assert_eq!((timed_out_in(&result), result.status), (Some(Phase::Body), Some(200)));
}
