//! Heartbeats: `POST /api/v1/checks/{check}/{endpoint}/heartbeat`.

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
};
use serde::Deserialize;

use super::{
    Heard, Unheard,
    http::{Admin, Refusal},
};

/// What a heartbeat may say. Saying nothing is saying `up`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Heartbeat {
    state: Reported,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Reported {
    #[default]
    Up,
    Down,
}

const USAGE: &str = r#"send no body, or {"state": "up"} or {"state": "down"}"#;

pub(super) async fn take(
    State(admin): State<Admin>,
    Path((check, endpoint)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<Heard>, Refusal> {
    let heartbeat: Heartbeat = match body.is_empty() {
        true => Heartbeat::default(),
        false => serde_json::from_slice(&body)
            .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("{error}; {USAGE}")))?,
    };
    // Done where it arrived: it takes microseconds, and nothing that is slow may make a heartbeat late.
    let heard = admin.operations().heartbeat(&check, &endpoint, heartbeat.state == Reported::Up);
    heard.map(Json).map_err(|why| {
        let error = match why {
            Unheard::NoSuchCheck => format!("no endpoint is under a check `{check}` of type `push`"),
            Unheard::NotPush => format!("the check `{check}` is not of type `push`"),
            Unheard::NoSuchEndpoint => {
                format!("{endpoint} is no endpoint under the check `{check}`; /api/v1/status shows them")
            }
        };
        Refusal::new(StatusCode::NOT_FOUND, error)
    })
}
