//! HTTP for operators: metrics, status, explain, overrides. Knows nothing of the wire format, and of the server only [`Operations`].

pub mod changes;
pub mod connections;
mod events;
pub mod force;
pub mod guard;
mod heartbeat;
pub mod http;
pub mod latency;
mod page;
pub mod status;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use self::{
    force::{Command, Forced, Reloaded},
    guard::Access,
    http::Refusal,
};
use crate::answer::explain::{Explanation, Request};

/// A heartbeat that was taken in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heard {
    /// The check.
    pub check: String,
    /// Address or name.
    pub endpoint: String,
    /// `up` or `down`: what the endpoint counts as after it.
    pub state: String,
    /// The next one must come within so many seconds.
    pub within_s: f64,
}

/// Why a heartbeat was not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unheard {
    /// No check has the name, or none that an endpoint is under.
    NoSuchCheck,
    /// The check makes its own probes.
    NotPush,
    /// The endpoint is not under the check.
    NoSuchEndpoint,
}

/// What the admin interface can ask of the server.
pub trait Operations: Send + Sync + 'static {
    /// The first round of probes is done.
    fn is_ready(&self) -> bool;

    /// All metrics as text.
    fn metrics(&self) -> String;

    /// The state at this moment.
    fn status(&self) -> status::Status;

    /// Counts up with everything that is published.
    fn generation(&self) -> u64;

    /// Where queries come from.
    fn traffic(&self) -> status::Traffic;

    /// The newest changes of a region's endpoints, or of one of them; `None` when there is no such region or endpoint.
    fn history(&self, region: &str, endpoint: Option<&str>) -> Option<status::History>;

    /// What was measured of the network of `client`, or of the heaviest networks.
    fn measurements(&self, client: Option<IpAddr>) -> latency::Measurements;

    /// Takes in the heartbeat of an endpoint under a check of type `push`, and whether it says that it is up.
    ///
    /// # Errors
    /// Nobody waits for it.
    fn heartbeat(&self, check: &str, endpoint: &str, up: bool) -> Result<Heard, Unheard>;

    /// Why a client gets its answer. May read location files: not for an async task's own thread.
    fn explain(&self, request: &Request) -> Explanation;

    /// What changes need.
    fn access(&self) -> Access;

    /// Takes an override in. Waits for the disk.
    ///
    /// # Errors
    /// 404 for a region or endpoint that there is not.
    fn force(&self, command: &Command) -> Result<Forced, Refusal>;

    /// Reads the configuration again, and waits until it is taken up.
    ///
    /// # Errors
    /// 422, and everything that is wrong with it; the running configuration stays.
    fn reload(&self, by: &str) -> Result<Reloaded, Refusal>;
}
