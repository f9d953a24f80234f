//! The paths of the admin interface that change something: overrides, reloads and heartbeats. Who may use them is for [`super::guard`] to say.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Extension, Path, Request, State},
    http::{HeaderMap, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::post,
};

use super::{
    force,
    guard::{Peer, require_json},
    heartbeat,
    http::{Admin, BODY_BYTES_MAX, Refusal},
};

/// Where reloads are asked for.
pub const RELOAD_PATH: &str = "/api/v1/reload";

/// Longest name of a program that is written down.
const AGENT_CHARS_MAX: usize = 60;

/// The paths, behind the guard.
pub(super) fn router(admin: Admin) -> Router<Admin> {
    Router::new()
        .route("/api/v1/regions/{region}/force", post(force_region))
        .route("/api/v1/regions/{region}/endpoints/{endpoint}/force", post(force_endpoint))
        .route("/api/v1/checks/{check}/{endpoint}/heartbeat", post(heartbeat::take))
        .route(RELOAD_PATH, post(reload))
        .route_layer(middleware::from_fn_with_state(admin, admit))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX as usize))
}

/// Lets a request through to what it would change, if it may. For every path that changes something.
pub(super) async fn admit(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let access = match admin.work(&admin.reading, |operations| operations.access()).await {
        Ok(access) => access,
        Err(refusal) => return refusal.into_response(),
    };
    let peer = address(request.extensions().get::<Peer>());
    match admin.guard.admit(&access, peer.ip(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            tracing::warn!(%peer, path = request.uri().path(), status = refusal.status.as_u16(), "a change was refused");
            refusal.into_response()
        }
    }
}

/// Who it was, for the log: address and program.
pub fn who(peer: Option<&Peer>, headers: &HeaderMap) -> String {
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let agent: String = agent.chars().take(AGENT_CHARS_MAX).collect();
    let address = address(peer).ip();
    if agent.is_empty() { address.to_string() } else { format!("{address} {agent}") }
}

fn address(peer: Option<&Peer>) -> SocketAddr {
    peer.map_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0), |peer| peer.0)
}

async fn force_region(
    state: State<Admin>,
    Path(region): Path<String>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    force(state, region, None, peer, headers, body).await
}

async fn force_endpoint(
    state: State<Admin>,
    Path((region, endpoint)): Path<(String, String)>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    force(state, region, Some(endpoint), peer, headers, body).await
}

async fn force(
    State(admin): State<Admin>,
    region: String,
    endpoint: Option<String>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    require_json(&headers)?;
    let by = who(peer.as_ref().map(|Extension(peer)| peer), &headers);
    let command = force::command(region, endpoint, &body, by)?;
    let forced = admin.work(&admin.changing, move |operations| operations.force(&command)).await??;
    Ok(Json(forced).into_response())
}

async fn reload(
    State(admin): State<Admin>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    require_json(&headers)?;
    let by = who(peer.as_ref().map(|Extension(peer)| peer), &headers);
    let reloaded = admin.work(&admin.changing, move |operations| operations.reload(&by)).await??;
    Ok(Json(reloaded).into_response())
}
