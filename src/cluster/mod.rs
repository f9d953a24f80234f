//! Servers that share what they see, over NATS: how each sees every target, what each measured, and what operators decided. Soft state only: who says
//! something says it again, and what is not said again stops to count. Nothing here is on the way of a query, and nothing that goes
//! wrong here takes more than the others' views away. Knows nothing of DNS.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::watch;

pub mod exchange;
mod latencies;
mod member;
pub mod message;
mod nats;
mod peers;
pub mod subject;

use self::{
    exchange::{Exchange, Link, LinkState, Traffic},
    latencies::Latencies,
    member::Member,
    message::Decision,
    peers::Peers,
};
pub use self::{
    latencies::{Cell, Kept, Others, Own},
    message::Rises,
    peers::Seen,
};
use crate::{
    config::model,
    health::{Board, TargetId, identity::Identity},
};

/// What operators decided, wherever it is kept.
pub trait Decisions: Send + Sync + 'static {
    /// A number that is the same wherever the same decisions are known.
    fn digest(&self) -> u64;

    /// All that are known.
    fn all(&self) -> Vec<Decision>;

    /// Takes in what another server knows. Does not wait until it is done.
    fn take(&self, from: &str, decisions: Vec<Decision>);

    /// Tells of every change.
    fn changed(&self) -> watch::Receiver<u64>;
}

/// This server's place among the others, and what it knows of them. Always there; idle without `[cluster]`.
#[derive(Debug)]
pub struct Cluster {
    config: watch::Sender<Option<Arc<model::Cluster>>>,
    link: Link,
    shared: Mutex<Shared>,
    latencies: Mutex<Latencies>,
}

/// What the member knows and others look at.
#[derive(Debug, Default)]
struct Shared {
    peers: Peers,
    /// Which list of targets `identities` is of.
    epoch: u64,
    /// By [`TargetId`].
    identities: Vec<Identity>,
    /// From one of our beats to when we heard it ourselves.
    round_trip: Option<Duration>,
    /// There is a connection, and what we say does not come back.
    is_mute: bool,
    /// Another server calls itself as we do.
    has_double: bool,
    /// Messages that could not be read.
    rejected: u64,
    /// What the others are told with each beat.
    rises: Rises,
}

/// The cluster as people are told.
#[derive(Debug, Clone)]
pub struct View {
    /// The configuration in use.
    pub config: Arc<model::Cluster>,
    /// How the connection stands.
    pub link: LinkState,
    /// What went over it.
    pub traffic: Traffic,
    /// How long a message takes to NATS and back.
    pub round_trip: Option<Duration>,
    /// What is wrong although there is a connection.
    pub problem: Option<String>,
    /// Messages that could not be read.
    pub rejected: u64,
    /// Figures of measured round trips that were left out.
    pub left_out: u64,
    /// The other servers by name.
    pub nodes: Vec<NodeView>,
    /// Servers that are none of them any more: the name of each, where it measured from, and how many of its networks are known here.
    pub remembered: Vec<(String, String, usize)>,
}

/// Another server as people are told.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Version of its program; empty: not known yet.
    pub version: String,
    /// Its views count.
    pub counts: bool,
    /// When anything was last heard of it.
    pub heard: Duration,
    /// Targets that it has a view of.
    pub targets: usize,
    /// It distrusts itself.
    pub doubts: bool,
    /// Servers whose views count with it, itself included.
    pub hears: u32,
    /// Where it measures from, and how many of its networks are known here; `None`: nothing was heard of any.
    pub measured: Option<(String, usize)>,
    /// What is wrong with what it says.
    pub problem: Option<String>,
}

/// How another server sees a target.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenBy {
    /// The server.
    pub node: String,
    /// How.
    pub seen: Seen,
    /// Its views count.
    pub counts: bool,
}

impl Default for Cluster {
    fn default() -> Self {
        Cluster {
            config: watch::Sender::new(None),
            link: Link::default(),
            shared: Mutex::default(),
            latencies: Mutex::default(),
        }
    }
}

impl Cluster {
    /// Takes up another configuration, if it is another.
    pub fn configure(&self, config: Option<&model::Cluster>) {
        self.config.send_if_modified(|current| {
            let is_other = current.as_deref() != config;
            if is_other {
                *current = config.cloned().map(Arc::new);
            }
            is_other
        });
    }

    /// The name of this server; `None` when it stands alone.
    pub fn node(&self) -> Option<String> {
        self.config.borrow().as_ref().map(|config| config.node.clone())
    }

    /// What people are told; `None` when this server stands alone.
    pub fn view(&self, now: Instant) -> Option<View> {
        let config = self.config.borrow().clone()?;
        let (shared, latencies) = (self.shared(), self.latencies());
        let nodes = shared.peers.iter().map(|(name, peer)| NodeView {
            name: name.to_string(),
            version: peer.beat.version.clone(),
            counts: peer.counts,
            heard: now.saturating_duration_since(peer.heard),
            targets: peer.views_count(),
            doubts: peer.beat.doubts,
            hears: peer.beat.hears,
            measured: latencies.of(name).map(|(region, networks)| (region.to_string(), networks)),
            problem: peer.problem().map(str::to_string),
        });
        let is_peer = |node: &str| shared.peers.iter().any(|(name, _)| name == node);
        let remembered = latencies.networks_by_node().filter(|(node, ..)| !is_peer(node));
        let remembered = remembered.map(|(node, region, networks)| (node.to_string(), region.to_string(), networks));
        let link = self.link.state();
        let mute = format!(
            "what this server says does not come back; may its user publish `{0}.{1}.>` and subscribe to `{0}.>`?",
            config.prefix, config.node
        );
        let double = format!("another server calls itself {}, too; give each a `node` of its own", config.node);
        let problems = [link.refused.clone(), shared.is_mute.then_some(mute), shared.has_double.then_some(double)];
        Some(View {
            traffic: self.link.traffic(),
            round_trip: shared.round_trip.filter(|_| link.server.is_some()),
            problem: problems.into_iter().flatten().reduce(|all, next| format!("{all}; {next}")),
            rejected: shared.rejected,
            left_out: latencies.left_out(),
            nodes: nodes.collect(),
            remembered: remembered.collect(),
            config,
            link,
        })
    }

    /// How the others see a target on the list of this epoch.
    pub fn seen(&self, epoch: u64, target: TargetId, now: Instant) -> Vec<SeenBy> {
        let shared = self.shared();
        match shared.identities.get(target.index()) {
            Some(identity) if shared.epoch == epoch => {
                let all = shared.peers.seen(*identity, now);
                all.map(|(node, seen, counts)| SeenBy { node: node.to_string(), seen, counts }).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Takes up by how much it takes this server longer than usual to connect to the regions, to tell the others of it.
    pub fn tell_rises(&self, own: Rises) {
        self.shared().rises = own;
    }

    /// The same of the others whose views count and who trust themselves.
    pub fn rises(&self, now: Instant) -> Vec<Rises> {
        self.shared().peers.rises(now).cloned().collect()
    }

    /// Takes up what this server measured, to tell the others of it; `None`: it does not learn.
    pub fn measure(&self, own: Option<Own>) {
        self.latencies().measure(own);
    }

    /// What the others measured.
    pub fn measured(&self, now: Instant) -> Vec<Others> {
        self.latencies().heard(now)
    }

    /// The same for a file that is written at `now_s` (Unix time), which is `now`.
    pub fn remember_measured(&self, now: Instant, now_s: u64) -> Vec<Kept> {
        self.latencies().remember(now, now_s)
    }

    /// Takes in what such a file held: so many networks, and so many that were left out.
    pub fn recall_measured(&self, kept: Vec<Kept>, now: Instant, now_s: u64) -> (usize, usize) {
        self.latencies().recall(kept, now, now_s)
    }

    /// Counts up whenever [`Cluster::measured`] is another than before, but for its age.
    pub fn measured_changes(&self) -> u64 {
        self.latencies().changes()
    }

    /// Counts up whenever [`Cluster::measured`] changes so much that estimates may.
    pub fn measured_generation(&self) -> u64 {
        self.latencies().generation()
    }

    /// True when what a file held of the others was taken in, and was not forgotten since.
    pub fn is_measured_recalled(&self) -> bool {
        self.latencies().is_recalled()
    }

    /// Forgets the others' views and how it went with them. What this server sees of the regions stays: it is told only now and then.
    fn begin_anew(&self) {
        let mut shared = self.shared();
        let rises = std::mem::take(&mut shared.rises);
        *shared = Shared { rises, ..Shared::default() };
    }

    fn latencies(&self) -> MutexGuard<'_, Latencies> {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes part for as long as there is something to take part in, and follows changes of the configuration.
pub async fn run(cluster: Arc<Cluster>, board: Arc<Board>, decisions: Arc<dyn Decisions>) {
    let mut configured = cluster.config.subscribe();
    loop {
        let config = configured.borrow_and_update().clone();
        let changed = match config {
            None => configured.changed().await,
            Some(config) => {
                if cluster.link.is_connected() {
                    cluster.link.failed("this part of the server began anew".into());
                }
                let (exchange, carrier) = Exchange::new();
                let member = Member::new(&config, &cluster, &board, &*decisions, exchange);
                let changed = tokio::select! {
                    changed = configured.changed() => changed,
                    () = member.take_part() => Ok(()),
                    () = nats::carry(&config, &cluster.link, carrier) => Ok(()),
                };
                cluster.link.failed("the configuration has changed".into());
                changed
            }
        };
        if changed.is_err() {
            return; // never: the sender lives as long as the cluster
        }
        if configured.borrow().is_none() {
            cluster.begin_anew();
            cluster.latencies().forget();
            let all = board.snapshot();
            let alone: Vec<_> = (0..all.statuses.len() as u32).map(|id| (TargetId(id), None)).collect();
            board.judge(all.epoch, &alone, now().1);
        }
    }
}

/// Wall and monotonic clock at one moment.
fn now() -> (Instant, SystemTime) {
    (tokio::time::Instant::now().into_std(), SystemTime::now())
}

#[cfg(test)]
mod tests;
