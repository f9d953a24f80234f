//! One request over HTTP/2 (RFC 9113), on a connection of its own.

use hyper::{Request, Response, body::Bytes};

use super::{
    Phase, ProbeError,
    connect::{Stream, fault},
};

/// Most bytes of headers that an answer may have.
const HEADERS_LEN_MAX: u32 = 64 * 1024;

/// What asks, and what does the reading and writing.
pub type Connection = (h2::client::SendRequest<Bytes>, h2::client::Connection<Box<dyn Stream>, Bytes>);

/// Begins to speak HTTP/2.
///
/// # Errors
/// Why that failed.
pub async fn open(stream: Box<dyn Stream>) -> Result<Connection, ProbeError> {
    let mut builder = h2::client::Builder::new();
    builder.enable_push(false).max_header_list_size(HEADERS_LEN_MAX);
    builder.handshake(stream).await.map_err(|error| fault(&error, Phase::Answer))
}

/// Sends a request and waits for status and headers.
///
/// # Errors
/// Why no answer came.
pub async fn ask(
    sender: h2::client::SendRequest<Bytes>,
    request: Request<()>,
    body: Option<Bytes>,
) -> Result<Response<h2::RecvStream>, ProbeError> {
    let fault = |error: h2::Error| fault(&error, Phase::Answer);
    let mut sender = sender.ready().await.map_err(fault)?;
    let (response, mut stream) = sender.send_request(request, body.is_none()).map_err(fault)?;
    if let Some(body) = body {
        stream.send_data(body, true).map_err(fault)?;
    }
    response.await.map_err(fault)
}
