//! The dashboard: files embedded in the binary, which ask nothing of anybody else.

use axum::{
    Router,
    http::header::{self, HeaderValue},
    response::{IntoResponse, Response},
    routing::get,
};

/// What the page may load and where it may send: its own server alone, and nothing written inline.
pub(super) const CONTENT_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'",
);

/// The paths of the page and its files.
pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let page = include_str!("page/index.html").replace("@LAND@", include_str!("page/land.path").trim_end());
    let file = |kind: &'static str, text: &'static str| get(move || async move { served(kind, text) });
    Router::new()
        .route("/", get(move || async move { served("text/html; charset=utf-8", page) }))
        .route("/page/style.css", file("text/css; charset=utf-8", include_str!("page/style.css")))
        .route("/page/script.js", file("text/javascript; charset=utf-8", include_str!("page/script.js")))
        .route("/page/icon.svg", file("image/svg+xml", include_str!("page/icon.svg")))
}

fn served(kind: &'static str, text: impl IntoResponse) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], text).into_response()
}
