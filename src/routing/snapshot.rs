//! What queries read: one immutable value, replaced whole. Its parts are shared with the snapshot before where they did not
//! change.

use std::sync::Arc;

use super::{health::HealthView, plan::Plan, rate_limit::RateLimiter, signed::SignedAnswers};
use crate::{
    telemetry::{counters::AnswerKeys, query_log::Logging},
    wire::cookie::CookieSecrets,
    zone::ZoneTable,
};

/// Everything that an answer depends on.
#[derive(Clone)]
pub struct Snapshot {
    /// Counts up with every publication.
    pub generation: u64,
    /// Names.
    pub zones: Arc<ZoneTable>,
    /// Routes, endpoints and maps.
    pub plan: Arc<Plan>,
    /// What is usable now.
    pub health: Arc<HealthView>,
    /// Signatures of what routes can answer with under this health.
    pub signed: Arc<SignedAnswers>,
    /// What the server says of itself.
    pub settings: Arc<Settings>,
    /// The labels of the answer counters.
    pub answer_keys: Arc<AnswerKeys>,
    /// Where queries are noted; `None`: nowhere.
    pub query_log: Option<Logging>,
}

/// What the server says of itself and how much it sends.
#[derive(Clone)]
pub struct Settings {
    /// NSID and `CH TXT id.server`; empty: not told.
    pub identity: Box<[u8]>,
    /// EDNS payload size offered, and the cap on UDP answers, in bytes.
    pub udp_payload: u16,
    /// Idle time of TCP connections in units of 100 ms, for edns-tcp-keepalive.
    pub tcp_idle_tenths: u16,
    /// Secrets of the server cookies.
    pub cookies: CookieSecrets,
    /// Limits UDP replies by network and owner; `None`: off.
    pub rate_limiter: Option<Arc<RateLimiter>>,
}

impl Snapshot {
    /// With another limiter.
    pub fn with_rate_limiter(mut self, limiter: Option<Arc<RateLimiter>>) -> Self {
        Arc::make_mut(&mut self.settings).rate_limiter = limiter;
        self
    }

    /// With another query log.
    pub fn with_query_log(mut self, query_log: Option<Logging>) -> Self {
        self.query_log = query_log;
        self
    }
}
