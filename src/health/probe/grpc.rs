//! The gRPC probe: `grpc.health.v1.Health/Check`, one call on a connection of its own. Protocol:
//! <https://github.com/grpc/grpc/blob/master/doc/health-checking.md> and PROTOCOL-HTTP2.md beside it.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hyper::{HeaderMap, Request, Response, StatusCode, Uri, body::Bytes, header, http};
use tokio::time::{Instant, timeout_at};

use super::{
    Phase, ProbeError, ProbeResult,
    connect::{Opened, Progress, authority_of, drive, fault, host_of, open, server_name},
    http::USER_AGENT,
    http2,
    tls::TlsModes,
};
use crate::health::check::{GrpcCheck, HttpVersion};

const METHOD: &str = "/grpc.health.v1.Health/Check";
/// Longest answer that is read, in bytes: two are usual.
const MESSAGE_LEN_MAX: usize = 1024;
/// Length of what stands before a message: whether it is compressed, and its length.
const PREFIX_LEN: usize = 5;

/// Names of the status codes, by number.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
const UNIMPLEMENTED: u32 = 12;

/// Probes `address`; names and times as for [`super::http::probe`].
pub async fn probe(
    check: &GrpcCheck,
    address: IpAddr,
    name: Option<&str>,
    tls: &TlsModes,
    timeout: Duration,
    deadline: Instant,
) -> ProbeResult {
    let mut progress = Progress::begin();
    let outcome = timeout_at(deadline, exchange(check, address, name, tls, timeout, &mut progress)).await;
    let outcome = outcome.unwrap_or(Err(ProbeError::Timeout { phase: progress.phase, after: timeout }));
    progress.result(outcome)
}

async fn exchange(
    check: &GrpcCheck,
    address: IpAddr,
    name: Option<&str>,
    tls: &TlsModes,
    timeout: Duration,
    progress: &mut Progress,
) -> Result<(), ProbeError> {
    let host = host_of(check.host.as_deref(), name, address);
    let request = request(check, &host, timeout)?;
    let config = match check.tls {
        true => Some((tls.config(check.verify_tls, HttpVersion::Http2)?, server_name(&host)?)),
        false => None,
    };
    let Opened { stream, picked_http2 } = open(SocketAddr::new(address, check.port), config, progress).await?;
    if check.tls && !picked_http2 {
        return Err(ProbeError::Tls("the server does not offer HTTP/2 (ALPN), which gRPC needs".into()));
    }
    // In a box, so that a probe that is still connecting does not hold the room of what comes after.
    Box::pin(async {
        let (sender, connection) = http2::open(stream).await?;
        let judged = async {
            progress.asking();
            let response = http2::ask(sender, request, Some(message(&check.service))).await?;
            progress.answered_in_frame();
            judge(response).await
        };
        drive(connection, judged).await
    })
    .await
}

fn request(check: &GrpcCheck, host: &str, timeout: Duration) -> Result<Request<()>, ProbeError> {
    let authority = authority_of(check.host.as_deref(), host, check.port, check.tls);
    let wrong = |error: http::Error| ProbeError::Request(format!("{error} ({authority})"));
    let scheme = if check.tls { "https" } else { "http" };
    let uri = Uri::builder().scheme(scheme).authority(authority.as_str()).path_and_query(METHOD).build();
    Request::post(uri.map_err(wrong)?)
        .header(header::TE, "trailers")
        .header(header::CONTENT_TYPE, "application/grpc")
        .header("grpc-timeout", format!("{}m", timeout.as_millis()))
        .header(header::USER_AGENT, USER_AGENT)
        .body(())
        .map_err(wrong)
}

/// `HealthCheckRequest { string service = 1; }`, with its prefix.
fn message(service: &str) -> Bytes {
    let mut fields = Vec::new();
    if !service.is_empty() {
        fields.push(1 << 3 | 2); // field 1, a string
        let mut len = service.len();
        while len > 0x7f {
            fields.push(len as u8 | 0x80);
            len >>= 7;
        }
        fields.push(len as u8);
        fields.extend_from_slice(service.as_bytes());
    }
    let mut message = vec![0]; // not compressed
    message.extend_from_slice(&(fields.len() as u32).to_be_bytes());
    message.extend_from_slice(&fields);
    message.into()
}

/// Does the server say that it serves?
async fn judge(response: Response<h2::RecvStream>) -> Result<(), ProbeError> {
    let (head, mut body) = response.into_parts();
    if head.status != StatusCode::OK {
        return Err(ProbeError::Status(head.status.as_u16()));
    }
    if let Some(ended) = ended(&head.headers) {
        ended?; // an answer of headers alone; without an error it still lacks its message
    }
    let kind = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("application/grpc") {
        return Err(ProbeError::Protocol(format!(
            "content type `{}` instead of application/grpc",
            kind.escape_debug()
        )));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = body.data().await {
        bytes.extend_from_slice(&chunk.map_err(|error| fault(&error, Phase::Body))?);
        if bytes.len() > MESSAGE_LEN_MAX {
            return Err(ProbeError::Protocol("the answer is too long for a health check".into()));
        }
    }
    let trailers = body.trailers().await.map_err(|error| fault(&error, Phase::Body))?;
    match trailers.as_ref().and_then(ended) {
        Some(ended) => ended?,
        None => return Err(ProbeError::Protocol("the call ended without grpc-status".into())),
    }
    match serving_status(&bytes) {
        Some(1) => Ok(()),
        Some(0) => Err(ProbeError::NotServing("UNKNOWN: it does not know yet whether it serves")),
        Some(2) => Err(ProbeError::NotServing("NOT_SERVING")),
        Some(3) => Err(ProbeError::NotServing("SERVICE_UNKNOWN: it has no such service")),
        Some(other) => Err(ProbeError::Protocol(format!("serving status {other}, which is none"))),
        None => Err(ProbeError::Protocol("the answer is no HealthCheckResponse".into())),
    }
}

/// How the call ended, if these are the headers that say so.
fn ended(headers: &HeaderMap) -> Option<Result<(), ProbeError>> {
    let text = headers.get("grpc-status")?.to_str().unwrap_or_default();
    let Ok(code) = text.parse::<u32>() else {
        return Some(Err(ProbeError::Protocol(format!("grpc-status `{}`", text.escape_debug()))));
    };
    if code == 0 {
        return Some(Ok(()));
    }
    let name = CODES.get(code as usize).copied().unwrap_or("which is none");
    let said = headers.get("grpc-message").and_then(|text| text.to_str().ok()).map(decoded).unwrap_or_default();
    let said = match code {
        UNIMPLEMENTED => "the server has no grpc.health.v1.Health".to_string(),
        _ => said,
    };
    let colon = if said.is_empty() { "" } else { ": " };
    Some(Err(ProbeError::GrpcStatus(format!("gRPC status {code} {name}{colon}{said}"))))
}

/// A percent-encoded message as text for a log: short, without control characters.
fn decoded(text: &str) -> String {
    const CHARS_MAX: usize = 120;
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| bytes[at] == b'%') {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    let text = String::from_utf8_lossy(&out);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(CHARS_MAX).collect()
}

/// `HealthCheckResponse { ServingStatus status = 1; }`, with its prefix; `None`: it is none.
fn serving_status(bytes: &[u8]) -> Option<u64> {
    let (prefix, mut fields) = bytes.split_at_checked(PREFIX_LEN)?;
    let len = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    if prefix[0] != 0 || len as usize != fields.len() {
        return None;
    }
    let mut status = 0; // what is left out has the value 0
    while !fields.is_empty() {
        let tag = varint(&mut fields)?;
        let skipped = match (tag >> 3, tag & 7) {
            (1, 0) => {
                status = varint(&mut fields)?;
                0
            }
            (_, 0) => varint(&mut fields).map(|_| 0)?,
            (_, 1) => 8,
            (_, 2) => usize::try_from(varint(&mut fields)?).ok()?,
            (_, 5) => 4,
            _ => return None,
        };
        fields = fields.get(skipped..)?;
    }
    Some(status)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_the_message_that_protobuf_makes() {
        assert_eq!(&message("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&message("web")[..], [0, 0, 0, 0, 5, 0x0a, 3, b'w', b'e', b'b']);
        let long = message(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
        assert_eq!(long.len(), 8 + 300);
    }

    #[test]
    fn the_answer_is_read_whatever_else_it_holds_and_nothing_else_is_taken_for_one() {
        for (fields, expected) in [
            (&[][..], Some(0)),
            (&[0x08, 1], Some(1)),
            (&[0x08, 2], Some(2)),
            (&[0x08, 0x83, 0x00], Some(3)),
            (&[0x12, 2, 8, 9, 0x08, 1], Some(1)), // an unknown string before it
            (&[0x08, 1, 0x18, 7, 0x21, 1, 2, 3, 4, 5, 6, 7, 8, 0x2d, 1, 2, 3, 4], Some(1)),
            (&[0x08], None),
            (&[0x08, 0x80], None),
            (&[0x12, 200, 1], None),
            (&[0x0b], None),
            (&[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1], None),
        ] {
            let mut bytes = vec![0, 0, 0, 0, fields.len() as u8];
            bytes.extend_from_slice(fields);
            assert_eq!(serving_status(&bytes), expected, "{fields:?}");
            bytes.push(0);
            assert_eq!(serving_status(&bytes), None, "longer than it says");
        }
        assert_eq!(serving_status(&[1, 0, 0, 0, 0]), None, "compressed");
        assert_eq!(serving_status(&[0, 0, 0]), None);
    }

    #[test]
    fn a_status_that_is_an_error_is_told_in_words() {
        let told = |code: &str, message: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", code.parse().unwrap());
            if let Some(message) = message {
                headers.insert("grpc-message", message.parse().unwrap());
            }
            ended(&headers).unwrap().map_err(|error| error.to_string())
        };
        assert_eq!(told("0", None), Ok(()));
        for (code, message, words) in [
            ("5", Some("unknown service%20%E2%82%AC 100%"), "gRPC status 5 NOT_FOUND: unknown service € 100%"),
            ("14", None, "gRPC status 14 UNAVAILABLE"),
            ("12", Some("x"), "gRPC status 12 UNIMPLEMENTED: the server has no grpc.health.v1.Health"),
            ("99", None, "gRPC status 99 which is none"),
            ("x", None, "no valid HTTP answer: grpc-status `x`"),
            ("7", Some("a%0Ab"), "gRPC status 7 PERMISSION_DENIED: a b"),
        ] {
            assert_eq!(told(code, message), Err(words.to_string()));
        }
        assert!(ended(&HeaderMap::new()).is_none());
    }
}
