//! HTTP for operators: metrics, status, explain. Knows nothing of the wire format, and of the server only [`Operations`].

pub mod connections;
pub mod http;
pub mod status;

use crate::answer::explain::{Explanation, Request};

/// What the admin interface can ask of the server.
pub trait Operations: Send + Sync + 'static {
    /// The first round of probes is done.
    fn is_ready(&self) -> bool;

    /// All metrics as text.
    fn metrics(&self) -> String;

    /// The state at this moment.
    fn status(&self) -> status::Status;

    /// The newest changes of a region's endpoints, or of one of them; `None` when there is no such region or endpoint.
    fn history(&self, region: &str, endpoint: Option<&str>) -> Option<status::History>;

    /// Why a client gets its answer. May read location files: not for an async task's own thread.
    fn explain(&self, request: &Request) -> Explanation;
}
