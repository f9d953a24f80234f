//! The admin interface over HTTP: paths to [`Operations`], errors as JSON, and who may ask. Knows nothing of how connections
//! are held.

use std::{
    net::{IpAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Query, Request, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header, uri::Authority},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Semaphore, watch},
    task,
    time::timeout,
};

use super::{
    Operations, changes,
    connections::{self, Limits},
    events,
    guard::{Guard, Peer},
    latency, page,
};
use crate::{
    answer::explain::{self, parse_client, parse_qtype},
    telemetry::metrics,
    wire::Name,
};

/// Largest request body; what is larger than any change could be is refused.
pub(super) const BODY_BYTES_MAX: u64 = 16 << 10;
/// A request that is not answered after so long gets an error instead.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// The same for a reload, which compiles everything anew. A connection lives hardly longer.
const RELOAD_WITHIN: Duration = Duration::from_secs(55);
/// Explanations at a time: each may read location files, and as many copies of them as this are held.
const EXPLAINING_MAX: usize = 2;
/// Other requests that work at a time.
const READING_MAX: usize = 4;
/// Changes at a time.
const CHANGING_MAX: usize = 4;

/// Serves the admin interface on a non-blocking listener until `stop` holds true or its sender is gone.
pub async fn serve(listener: TcpListener, operations: Arc<dyn Operations>, mut stop: watch::Receiver<bool>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the admin interface could not start"),
    };
    let stopped = async {
        let _sender_gone_means_the_same = stop.wait_for(|stop| *stop).await;
    };
    connections::serve(listener, router(operations), Limits::default(), stopped).await;
}

/// All paths of the interface.
pub fn router(operations: Arc<dyn Operations>) -> Router {
    let admin = Admin {
        operations,
        explaining: Arc::new(Semaphore::new(EXPLAINING_MAX)),
        reading: Arc::new(Semaphore::new(READING_MAX)),
        changing: Arc::new(Semaphore::new(CHANGING_MAX)),
        followers: Arc::new(Semaphore::new(events::FOLLOWERS_MAX)),
        guard: Arc::default(),
    };
    Router::new()
        .merge(page::router())
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(status))
        .route("/api/v1/explain", get(explanation))
        .route("/api/v1/history", get(history))
        .route("/api/v1/traffic", get(traffic))
        .route("/api/v1/events", get(events::follow))
        .route("/api/v1/latency", get(latency::measurements))
        .merge(changes::router(admin.clone()))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(screen))
        .with_state(admin)
}

/// An error as every path tells it: a status and `{"error": "..."}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// 4xx, or 503.
    pub status: StatusCode,
    /// What is wrong and what to do next.
    pub error: String,
    /// Seconds after which to try again.
    pub retry_after_s: Option<u64>,
}

impl Refusal {
    /// A refusal with this status.
    pub fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Refusal { status, error: error.into(), retry_after_s: None }
    }
}

/// What a refusal's body holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What is wrong and what to do next.
    pub error: String,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(ErrorBody { error: self.error })).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// What every request passes: a foreign page may change nothing, no body is large, no answer takes for ever, and no answer is
/// kept, framed or taken for another type.
pub async fn screen(request: Request, next: Next) -> Response {
    let within = if request.uri().path() == changes::RELOAD_PATH { RELOAD_WITHIN } else { REQUEST_WITHIN };
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
    let mut response = match refuse(request.headers(), peer) {
        Some(refusal) => refusal.into_response(),
        None => match timeout(within, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("not answered within {} s; the server is busy, ask again", within.as_secs()),
            )
            .into_response(),
        },
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CONTENT_SECURITY_POLICY, page::CONTENT_POLICY),
    ] {
        headers.insert(name, value);
    }
    response
}

fn refuse(headers: &HeaderMap, peer: Option<IpAddr>) -> Option<Refusal> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length > BODY_BYTES_MAX) {
        let error = format!("the body is too large; at most {BODY_BYTES_MAX} bytes are read");
        return Some(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, error));
    }
    // A page whose own name was made to point here (DNS rebinding) asks as its own origin, and without that header.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    if peer.is_some_and(|peer| peer.to_canonical().is_loopback()) && host.is_some_and(|host| !is_own_name(&host)) {
        let error = "from this host the server is asked as localhost or by its address, not under another name";
        return Some(Refusal::new(StatusCode::FORBIDDEN, error));
    }
    if is_foreign(headers) {
        let error = "requests of foreign web pages are refused; send this one without an Origin header";
        return Some(Refusal::new(StatusCode::FORBIDDEN, error));
    }
    None
}

/// A web page of another host sent this. A page whose own name was made to point here (DNS rebinding) names itself in both
/// headers, so that a host which is neither an address nor `localhost` is not believed, unless the request shows a token: that, no
/// other page has.
fn is_foreign(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let authority = |uri: &HeaderValue| uri.to_str().ok()?.parse::<Uri>().ok()?.authority().cloned();
    let (Some(origin), Some(host)) = (authority(origin), headers.get(header::HOST).and_then(authority)) else {
        return true;
    };
    origin != host || !is_own_name(&host) && !headers.contains_key(header::AUTHORIZATION)
}

/// An address, or `localhost`: no name that somebody else could have made to point here.
pub(super) fn is_own_name(host: &Authority) -> bool {
    let name = host.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// What all paths share.
#[derive(Clone)]
pub(super) struct Admin {
    operations: Arc<dyn Operations>,
    explaining: Arc<Semaphore>,
    pub(super) reading: Arc<Semaphore>,
    pub(super) changing: Arc<Semaphore>,
    pub(super) followers: Arc<Semaphore>,
    pub(super) guard: Arc<Guard>,
}

impl Admin {
    /// For what is done at once.
    pub(super) fn operations(&self) -> &dyn Operations {
        &*self.operations
    }

    /// Works on a thread that may block. The place among `places` is kept until the work ends, even where nobody waits for
    /// it any more.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        places: &Arc<Semaphore>,
        work: impl FnOnce(&dyn Operations) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let operations = self.operations.clone();
        let working = task::spawn_blocking(move || {
            let done = work(&*operations);
            drop(place);
            done
        });
        working.await.map_err(|_| {
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the server could not work this out; its log tells why")
        })
    }
}

async fn readyz(State(admin): State<Admin>) -> Response {
    if admin.operations.is_ready() {
        return "ready".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "first probe round under way").into_response()
}

async fn metrics(State(admin): State<Admin>) -> Result<Response, Refusal> {
    let text = admin.work(&admin.reading, |operations| operations.metrics()).await?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

async fn status(State(admin): State<Admin>) -> Result<Response, Refusal> {
    Ok(Json(admin.work(&admin.reading, |operations| operations.status()).await?).into_response())
}

async fn traffic(State(admin): State<Admin>) -> Result<Response, Refusal> {
    Ok(Json(admin.work(&admin.reading, |operations| operations.traffic()).await?).into_response())
}

/// The question part of `/api/v1/history`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HistoryQuery {
    region: String,
    endpoint: Option<String>,
}

const HISTORY_USAGE: &str = "ask like this: /api/v1/history?region=eu, or with &endpoint=192.0.2.10";

async fn history(
    State(admin): State<Admin>,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let bad = |error: String| Refusal::new(StatusCode::BAD_REQUEST, error);
    let Query(HistoryQuery { region, endpoint }) =
        query.map_err(|rejection| bad(format!("{}; {HISTORY_USAGE}", rejection.body_text())))?;
    if region.is_empty() {
        return Err(bad(format!("`region` is missing; {HISTORY_USAGE}")));
    }
    let what = endpoint.as_ref().map_or_else(|| format!("region `{region}`"), |e| format!("endpoint `{region}/{e}`"));
    let found = admin.work(&admin.reading, move |operations| operations.history(&region, endpoint.as_deref())).await?;
    match found {
        Some(found) => Ok(Json(found).into_response()),
        None => Err(Refusal::new(StatusCode::NOT_FOUND, format!("there is no {what}; /api/v1/status lists them"))),
    }
}

/// The question part of `/api/v1/explain`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ExplainQuery {
    name: String,
    client: String,
    #[serde(rename = "type")]
    qtype: String,
}

async fn explanation(
    State(admin): State<Admin>,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let bad = |error: String| Refusal::new(StatusCode::BAD_REQUEST, error);
    let Query(query) = query.map_err(|rejection| bad(format!("{}; {EXPLAIN_USAGE}", rejection.body_text())))?;
    let request = explain_request(&query).map_err(bad)?;
    Ok(Json(admin.work(&admin.explaining, move |operations| operations.explain(&request)).await?).into_response())
}

const EXPLAIN_USAGE: &str = "ask like this: /api/v1/explain?name=www.example.com&client=203.0.113.0/24&type=A";

/// What an empty or missing `client` and `type` mean: nobody in particular, and A.
fn explain_request(query: &ExplainQuery) -> Result<explain::Request, String> {
    if query.name.is_empty() {
        return Err(format!("`name` is missing; {EXPLAIN_USAGE}"));
    }
    let name = Name::parse(&query.name, &Name::root())
        .map_err(|error| format!("`{}` is no domain name: {error}", query.name))?;
    let client = (!query.client.is_empty()).then(|| parse_client(&query.client)).transpose()?;
    let qtype = parse_qtype(if query.qtype.is_empty() { "A" } else { &query.qtype })?;
    Ok(explain::Request { name, qtype, client })
}

async fn unknown_path(uri: Uri) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("nothing is at {}; see / for what there is", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    let right = if matches!(method, Method::GET | Method::HEAD) { Method::POST } else { Method::GET };
    let error = format!("{} takes {right}, not {method}", uri.path());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, error)
}

#[cfg(test)]
mod tests;
