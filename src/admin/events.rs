//! What the dashboard follows: the status and where queries come from, as server-sent events (WHATWG HTML §9.2).

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{Extension, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use http_body_util::channel::{Channel, Sender};
use serde::Serialize;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep},
};

use super::{
    connections::Until,
    http::{Admin, Refusal},
};

/// Followers at a time.
pub(super) const FOLLOWERS_MAX: usize = 16;
/// How often it is looked whether anything changed.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// What is told at the latest after so long, since times and counters go on.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// Of a follower's time, at most this part is spent on making what it is told: with ten thousand endpoints it hears more rarely.
const WORK_SHARE: u32 = 20;
/// Longest life of a stream, which also ends with its connection's time. Browsers come back by themselves.
const LASTS: Duration = Duration::from_secs(60);
/// Events that may wait for a slow follower.
const WAITING_MAX: usize = 2;

/// `GET /api/v1/events`.
pub(super) async fn follow(State(admin): State<Admin>, until: Option<Extension<Until>>) -> Result<Response, Refusal> {
    let Ok(place) = admin.followers.clone().try_acquire_owned() else {
        let error = format!(
            "{FOLLOWERS_MAX} followers are there already; close a dashboard, or ask /api/v1/status now and then"
        );
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error));
    };
    let (sender, body) = Channel::<Bytes>::new(WAITING_MAX);
    let until = until.map_or_else(|| Instant::now() + LASTS, |Extension(Until(until))| until);
    tokio::spawn(tell(admin, sender, until, place));
    Ok(([(header::CONTENT_TYPE, "text/event-stream")], Body::new(body)).into_response())
}

/// Tells a follower until it is gone or its time is up.
async fn tell(admin: Admin, mut follower: Sender<Bytes>, until: Instant, _place: OwnedSemaphorePermit) {
    let (mut told_generation, mut next, mut first) = (0, Instant::now(), true);
    while Instant::now() < until {
        let generation = admin.operations().generation();
        if generation == told_generation && Instant::now() < next {
            sleep(LOOK_EVERY).await;
            continue;
        }
        let begun = Instant::now();
        let made =
            admin.work(&Arc::clone(&admin.reading), |operations| (operations.status(), operations.traffic())).await;
        let Ok((status, traffic)) = made else { return };
        let mut text = if first { "retry: 1000\n\n".to_string() } else { String::new() };
        event(&mut text, "status", &status);
        event(&mut text, "traffic", &traffic);
        if follower.send_data(Bytes::from(text)).await.is_err() {
            return;
        }
        (told_generation, first) = (generation, false);
        let pause = begun.elapsed() * WORK_SHARE;
        next = Instant::now() + TELL_EVERY.max(pause);
        sleep(LOOK_EVERY.max(pause)).await;
    }
}

/// One event; JSON has no line breaks of its own.
fn event(text: &mut String, name: &str, data: &impl Serialize) {
    if let Ok(json) = serde_json::to_string(data) {
        text.push_str(&format!("event: {name}\ndata: {json}\n\n"));
    }
}
