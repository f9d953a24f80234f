//! What was measured of clients' round trips: a part of the status, and `/api/v1/latency`.

use std::net::IpAddr;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use super::http::{Admin, Refusal};

/// How much is learned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LearningStatus {
    /// The region that round trips are measured from.
    pub region: String,
    /// Networks whose round trip is known.
    pub networks: u64,
    /// Round trips taken in since the start.
    pub samples: u64,
    /// Paths whose round trip became another one since the start.
    pub jumps: u64,
    /// The share of UDP queries that may be answered with TC; 0: none.
    pub prospect: f64,
    /// Networks asked by TC to come by TCP since the start.
    pub asked: u64,
    /// Of those, that came.
    pub came: u64,
    /// Of those, that were measured.
    pub gained: u64,
}

/// What `/api/v1/latency` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurements {
    /// The region that they were measured from; `None`: nothing is learned.
    pub region: Option<String>,
    /// The network asked for, or the thousand that send most queries, those first.
    pub networks: Vec<MeasuredNetwork>,
}

/// A network's round trip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasuredNetwork {
    /// An IPv4 /24 or an IPv6 /56.
    pub network: String,
    /// The lowest of the newest round trips, in milliseconds.
    pub rtt_ms: f64,
    /// Round trips behind it since its path last changed, old ones fading.
    pub samples: u32,
    /// When the newest was measured, Unix time in seconds.
    pub newest: u64,
    /// Its resolvers send client subnets.
    pub sends_client_subnets: bool,
}

/// The question part of `/api/v1/latency`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LatencyQuery {
    client: Option<IpAddr>,
}

const USAGE: &str = "ask like this: /api/v1/latency, or with ?client=203.0.113.7";

pub(super) async fn measurements(
    State(admin): State<Admin>,
    query: Result<Query<LatencyQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(LatencyQuery { client }) = query
        .map_err(|rejection| Refusal::new(StatusCode::BAD_REQUEST, format!("{}; {USAGE}", rejection.body_text())))?;
    Ok(Json(admin.work(&admin.reading, move |operations| operations.measurements(client)).await?).into_response())
}
