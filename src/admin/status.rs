//! What `/api/v1/status` says: the state of the server at one moment, with stable field names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{force::OverrideStatus, latency::LearningStatus};

/// The state of the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// The first round of probes is done.
    pub ready: bool,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Counts up with every published snapshot.
    pub generation: u64,
    /// The configuration file in use.
    pub config: String,
    /// NSID; empty when not told.
    pub identity: String,
    /// Addresses served, UDP and TCP.
    pub listen: Vec<String>,
    /// Where clients' places come from.
    pub location_data: LocationData,
    /// The last reload.
    pub reload: Reload,
    /// What the process has given up.
    #[serde(default)]
    pub confinement: ConfinementStatus,
    /// Present while the prober distrusts itself.
    #[serde(default)]
    pub self_doubt: Option<SelfDoubt>,
    /// Present while clients' round trips are measured.
    #[serde(default)]
    pub learning: Option<LearningStatus>,
    /// The cluster that this server is part of; `None`: it stands alone.
    #[serde(default)]
    pub cluster: Option<ClusterStatus>,
    /// Regions in file order.
    pub regions: Vec<RegionStatus>,
    /// Overrides in force, oldest first; the newest that matches counts.
    #[serde(default)]
    pub overrides: Vec<OverrideStatus>,
    /// Zones in file order.
    pub zones: Vec<ZoneStatus>,
    /// Counters since the start.
    pub queries: Queries,
}

/// Where clients' places come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LocationData {
    /// File names, or the built-in table.
    pub source: String,
    /// When the data was made, Unix time in seconds.
    pub built: u64,
    /// Ranges in the largest compiled map, by family.
    pub networks_v4: u64,
    /// See `networks_v4`.
    pub networks_v6: u64,
}

/// What the process has given up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConfinementStatus {
    /// Who it runs as: a name, or a number; empty where nothing was given up.
    pub user: String,
    /// The version of landlock that keeps files away from it; `None`: the kernel has none, or it is not wanted.
    pub landlock: Option<u32>,
    /// That version knows all that was asked of it.
    pub landlock_whole: bool,
    /// Its system calls are filtered.
    pub seccomp: bool,
}

/// The last reload.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Reload {
    /// When a configuration was last taken up, Unix time in seconds.
    pub last_success: u64,
    /// Reloads that were taken up; the start does not count.
    pub succeeded: u64,
    /// Reloads that were refused.
    pub failed: u64,
    /// Why the newest reload was refused; `None` after a success.
    pub error: Option<String>,
}

/// That the prober distrusts itself: everything fails at once, which looks like its own trouble, so that the last verdicts stay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SelfDoubt {
    /// Since when, Unix time in seconds.
    pub since: u64,
    /// What made it doubt.
    pub reason: String,
}

/// The cluster as this server sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The name of this server among the others.
    pub node: String,
    /// There is a connection to NATS.
    pub connected: bool,
    /// The NATS server that it goes to.
    pub server: Option<String>,
    /// Since when there is a connection, or none; Unix time in seconds.
    pub since: Option<u64>,
    /// Why there is no connection.
    pub error: Option<String>,
    /// What is wrong although there is one.
    pub problem: Option<String>,
    /// How long a message takes to NATS and back.
    pub round_trip_ms: Option<f64>,
    /// More than this share must see a target down.
    pub quorum: f64,
    /// The other servers by name.
    pub nodes: Vec<NodeStatus>,
    /// What servers measured that are not among them: they were not heard for an hour, or not since the start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remembered: Vec<RememberedStatus>,
}

/// What a server measured that is not heard any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RememberedStatus {
    /// Its name.
    pub name: String,
    /// The region that it measured round trips from.
    pub region: String,
    /// Networks whose round trip it measured, as far as they are known here.
    pub networks: u64,
}

/// Another server of the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Version of its program; empty: not known yet.
    pub version: String,
    /// Its view counts: it was confirmed within six seconds.
    pub counts: bool,
    /// Seconds since anything was heard of it.
    pub heard_s: f64,
    /// Targets that it has a view of.
    pub targets: u64,
    /// It distrusts itself, so that it abstains.
    pub self_doubt: bool,
    /// Servers whose views count with it, itself included.
    pub hears: u32,
    /// The region that it measures round trips from; `None`: it has told of none.
    #[serde(default)]
    pub region: Option<String>,
    /// Networks whose round trip it measured, as far as they are known here.
    #[serde(default)]
    pub networks: u64,
    /// What is wrong with what it says.
    pub problem: Option<String>,
}

/// How a server of the cluster sees an endpoint under a check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeenBy {
    /// The server.
    pub node: String,
    /// `up`, `down` or `held`; `untried` before a first result.
    pub state: String,
    /// Since when, Unix time in seconds by the clock of the server that is asked.
    pub since: Option<u64>,
    /// Its connect time.
    pub connect_ms: Option<f64>,
    /// Its view counts: it is fresh, and the server does not abstain.
    pub counts: bool,
}

/// A region and its endpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegionStatus {
    /// Its name.
    pub name: String,
    /// `location` as written.
    pub location: String,
    /// Degrees north.
    pub latitude: f32,
    /// Degrees east.
    pub longitude: f32,
    /// Enough endpoints are up for it to answer.
    pub usable: bool,
    /// Its override, if an operator set one: `drain`, `down` or `up`.
    pub forced: Option<String>,
    /// Why, in the operator's words.
    #[serde(default)]
    pub forced_reason: Option<String>,
    /// When that ends by itself, Unix time in seconds.
    #[serde(default)]
    pub forced_until: Option<u64>,
    /// What its estimates are raised by because connecting to it takes longer than usual, in milliseconds.
    #[serde(default)]
    pub penalty_ms: f32,
    /// Its endpoints on all routes.
    pub endpoints: Vec<EndpointStatus>,
}

/// An endpoint under a check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// Address or name.
    pub endpoint: String,
    /// The check; `None`: not probed, counts as up.
    pub check: Option<String>,
    /// The checks that it follows from, where it is calculated; each of them is an element of its own, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<String>,
    /// `up`, `down`, or `held`: held down, since it changed too often. By the checks, whatever an operator decided.
    pub state: String,
    /// Its own override, if an operator set one: `drain`, `down` or `up`.
    #[serde(default)]
    pub forced: Option<String>,
    /// A result has come in; until then it counts as up.
    pub decided: bool,
    /// The state may change soon.
    pub in_doubt: bool,
    /// It fails, and counts as up only because the prober distrusts itself.
    #[serde(default)]
    pub kept: bool,
    /// The hold-down that is on.
    #[serde(default)]
    pub held: Option<Held>,
    /// How each server of the cluster sees it, this one first; empty when this server stands alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<SeenBy>,
    /// What the servers see together, in words; `None` when this server goes by its own view.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consensus: Option<String>,
    /// Since when the state is what it is, Unix time in seconds.
    pub since: Option<u64>,
    /// Connect time of the newest probe that connected.
    pub connect_ms: Option<f64>,
    /// The lowest connect time of the last hour.
    pub baseline_ms: Option<f64>,
    /// The newest result in words.
    pub last_result: Option<String>,
    /// The newest failure in words.
    pub last_error: Option<String>,
    /// Probes that succeeded.
    pub probes_ok: u64,
    /// Probes that failed.
    pub probes_failed: u64,
    /// Its newest changes, oldest first: ten of them here, fifty in `/api/v1/history`.
    #[serde(default)]
    pub history: Vec<Transition>,
    /// When the certificate that it shows runs out, of several the first, Unix time in seconds.
    #[serde(default)]
    pub certificate_expires: Option<i64>,
    /// What is not wrong yet and will be, in words.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// A hold-down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// When it began, Unix time in seconds.
    pub since: u64,
    /// When it ends if the endpoint does not change again, Unix time in seconds.
    pub until: u64,
    /// Why, in words.
    pub reason: String,
}

/// A change of an endpoint's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transition {
    /// When, Unix time in seconds.
    pub at: u64,
    /// The state before: `untried`, `up`, `down` or `held`.
    pub from: String,
    /// The state since.
    pub to: String,
    /// Why, in words.
    pub reason: String,
}

/// What `/api/v1/history` says: the newest changes of some endpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// The endpoints in the order of the status.
    pub endpoints: Vec<EndpointHistory>,
}

/// The newest changes of an endpoint under a check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndpointHistory {
    /// The region.
    pub region: String,
    /// Address or name.
    pub endpoint: String,
    /// The check.
    pub check: Option<String>,
    /// As in the status.
    pub state: String,
    /// Oldest first, at most fifty.
    pub history: Vec<Transition>,
}

/// What `/api/v1/traffic` says: where the queries of the last minutes came from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// Clients of route answers that were sampled since the start.
    pub sampled: u64,
    /// Countries, or cells of large ones, by the built-in table; the largest share first, at most 200.
    pub sources: Vec<Source>,
}

/// A place that queries come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// ISO 3166-1 country code; `None`: unknown.
    pub country: Option<String>,
    /// Degrees north.
    pub latitude: Option<f32>,
    /// Degrees east.
    pub longitude: Option<f32>,
    /// Share of the sampled queries, 0 to 1; older ones weigh less.
    pub share: f64,
}

/// A zone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ZoneStatus {
    /// Its name.
    pub name: String,
    /// SOA serial.
    pub serial: u32,
    /// Owners of its routes as written.
    pub routes: Vec<String>,
}

/// Counters since the start.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Queries {
    /// Messages read.
    pub total: u64,
    /// Messages by transport.
    pub by_transport: BTreeMap<String, u64>,
    /// Responses by code.
    pub responses: BTreeMap<String, u64>,
    /// Messages without a response.
    pub dropped: u64,
    /// Queries with a client subnet.
    pub ecs: u64,
    /// Responses with TC set.
    pub truncated: u64,
    /// TCP connections open now.
    pub tcp_connections: u64,
    /// Answers out of routes, by region.
    pub answers_by_region: BTreeMap<String, u64>,
}
