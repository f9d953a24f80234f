//! What the admin interface can ask: metrics, status, explanations, put together from all rooms.

mod exposition;
mod sharing;

use std::{
    borrow::Cow,
    net::IpAddr,
    sync::Arc,
    time::{Instant, SystemTime},
};

use axum::http::StatusCode;
use tokio::sync::{mpsc, oneshot};

use super::{
    confine::Confinement,
    endpoints::{self, Row},
    estimates,
    live::{Live, Undecided},
    overrides::{self, Decision, Override, Overrides, Target as Overridden},
    rises,
    world::{World, unix_s},
};
use crate::{
    admin::{
        Heard, Operations, Unheard,
        force::{Command, Forced, OverrideStatus, Reloaded},
        guard::Access,
        http::Refusal,
        latency::Measurements,
        status::{
            EndpointHistory, EndpointStatus, Held, History, LocationData, Queries, RegionStatus, SeenBy, SelfDoubt,
            Status, Traffic, Transition, ZoneStatus,
        },
    },
    answer::explain::{Circumstances, Explanation, Request, SeenEndpoint},
    cluster::{self, Cluster},
    config::model::RegionId,
    health::{
        self, Board, Endpoint, Source, Target, TargetStatus, history,
        measured::{Measured, certificate_warning},
    },
    routing::{Snapshot, plan::Pool},
    telemetry::{TransportKind, metrics, metrics::Families},
    zone::ZoneContent,
};

/// Changes of each endpoint that the status shows; `/api/v1/history` has them all.
const STATUS_HISTORY: usize = 10;

/// The running server as the admin interface sees it.
pub struct Running {
    /// The shared state.
    pub live: Arc<Live>,
    /// What is listened on.
    pub listen: Vec<String>,
    /// The admin interface itself listens on a loopback address.
    pub is_loopback: bool,
    /// To whoever reloads.
    pub reloads: mpsc::Sender<ReloadRequest>,
}

/// Somebody asks for a reload.
#[derive(Debug)]
pub struct ReloadRequest {
    /// Who, for the log.
    pub by: String,
    /// What came of it: what is served now, or everything that is wrong.
    pub done: oneshot::Sender<Result<String, String>>,
}

impl Operations for Running {
    fn is_ready(&self) -> bool {
        self.live.board.is_first_round_done()
    }

    fn metrics(&self) -> String {
        let view = View::of(&self.live, 0);
        let mut families = Families::new();
        exposition::endpoint_metrics(&view, &mut families);
        exposition::self_doubt_metric(&view, &mut families);
        if let Some(cluster) = &view.cluster {
            sharing::metrics(cluster, &mut families);
        }
        exposition::server_metrics(&self.live, &view, &mut families);
        estimates::metrics(&view.world, &mut families);
        rises::metrics(&self.live, &view.world, &mut families);
        self.live.learning.metrics(&mut families);
        metrics::expose(&self.live.registry.totals(), families)
    }

    fn status(&self) -> Status {
        let view = View::of(&self.live, STATUS_HISTORY);
        let world = &view.world;
        let (networks_v4, networks_v6) = world.networks();
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            ready: self.is_ready(),
            uptime_s: SystemTime::now().duration_since(self.live.started).map_or(0, |up| up.as_secs()),
            generation: view.snapshot.generation,
            config: world.path.display().to_string(),
            identity: world.config.server.identity.clone(),
            listen: self.listen.clone(),
            location_data: LocationData {
                source: world.locations.description(),
                built: world.locations.build_epoch(),
                networks_v4: networks_v4 as u64,
                networks_v6: networks_v6 as u64,
            },
            reload: self.live.reloads(),
            confinement: self.live.confinement.get().map(Confinement::status).unwrap_or_default(),
            self_doubt: view
                .board
                .self_doubt
                .as_ref()
                .map(|doubt| SelfDoubt { since: unix_s(doubt.since), reason: doubt.reason.to_string() }),
            learning: self.live.learning.status(unix_s(view.at)),
            cluster: view.cluster.as_ref().map(sharing::status),
            regions: (0..world.config.regions.len()).map(|n| view.region(RegionId(n as u8))).collect(),
            overrides: view
                .overrides
                .list()
                .iter()
                .map(|o| override_status(o, overrides::matched(&o.target, &world.plan)))
                .collect(),
            zones: zones(world),
            queries: queries(&self.live),
        }
    }

    fn generation(&self) -> u64 {
        self.live.snapshot.load().generation
    }

    fn traffic(&self) -> Traffic {
        self.live.origins(Instant::now()).traffic()
    }

    fn measurements(&self, client: Option<IpAddr>) -> Measurements {
        self.live.learning.measurements(client, unix_s(SystemTime::now()))
    }

    fn heartbeat(&self, check: &str, endpoint: &str, up: bool) -> Result<Heard, Unheard> {
        let world = self.live.world();
        let wanted = match endpoint.parse() {
            Ok(address) => Endpoint::Address(address),
            Err(_) => Endpoint::Name(endpoint.trim_end_matches('.').to_ascii_lowercase()),
        };
        let known = |name: &str| world.config.checks.iter().any(|check| check.name == name);
        let Some(target) = world.targets().reporting(check, &wanted) else {
            return Err(match world.targets().reports(check) {
                true => Unheard::NoSuchEndpoint,
                false if known(check) => Unheard::NotPush,
                false => Unheard::NoSuchCheck,
            });
        };
        let state = self.live.board.heartbeat(target, up, Instant::now(), SystemTime::now());
        let state = state.ok_or(Unheard::NoSuchEndpoint)?; // a reload is on its way
        Ok(Heard {
            check: check.to_string(),
            endpoint: target.endpoint().to_string(),
            state: if state == health::State::Up { "up" } else { "down" }.into(),
            within_s: target.check().interval.as_secs_f64(),
        })
    }

    fn explain(&self, request: &Request) -> Explanation {
        let view = View::of(&self.live, 0);
        let trouble = |pool: &Pool| view.trouble(pool);
        let forced = |region: RegionId| view.forced(region).map(|o| (o.state.as_str(), o.reason.clone()));
        let seen = |pool: &Pool| view.seen_of_pool(pool);
        let circumstances = Circumstances { trouble: &trouble, seen: &seen, forced: &forced };
        view.world.explain_with(&view.snapshot, &circumstances, request)
    }

    fn access(&self) -> Access {
        Access { is_loopback: self.is_loopback, token: self.live.world().admin_token.clone() }
    }

    fn force(&self, command: &Command) -> Result<Forced, Refusal> {
        let now_s = unix_s(SystemTime::now());
        let target = Overridden::new(&command.region, command.endpoint.as_deref());
        let state = Decision::parse(command.state).expect("a command has one of the known states");
        let new = Override {
            reason: command.reason.clone(),
            until: command.lasts_s.map(|lasts_s| now_s + lasts_s),
            by: command.by.clone(),
            ..Override::new(target, state, now_s)
        };
        let decided = self.live.decide(new.clone()).map_err(|error| match error {
            Undecided::Unknown(what) => Refusal::new(StatusCode::NOT_FOUND, what),
            Undecided::TooMany(what) => Refusal::new(StatusCode::CONFLICT, what.to_string()),
            Undecided::Left => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        })?;
        let unkept = match (&decided.unkept, self.live.state.is_kept()) {
            (Some(why), _) => Some(why.clone()),
            (None, false) => Some("it ends with this process: `state-dir` of [server] is not set".into()),
            (None, true) => None,
        };
        Ok(Forced {
            now: override_status(&new, decided.matches),
            replaced: decided.replaced.iter().map(|o| o.target.to_string()).collect(),
            kept: unkept.is_none(),
            warnings: decided.stranded.into_iter().chain(unkept.filter(|_| new.state != Decision::Auto)).collect(),
        })
    }

    fn reload(&self, by: &str) -> Result<Reloaded, Refusal> {
        let (done, outcome) = oneshot::channel();
        let asked = self.reloads.blocking_send(ReloadRequest { by: by.into(), done });
        match asked.ok().and_then(|()| outcome.blocking_recv().ok()) {
            Some(Ok(summary)) => Ok(Reloaded { summary }),
            Some(Err(report)) => Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, report)),
            None => Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping")),
        }
    }

    fn history(&self, region: &str, endpoint: Option<&str>) -> Option<History> {
        let view = View::of(&self.live, history::CHANGES_MAX);
        let id = view.world.config.regions.iter().position(|known| known.name == region)?;
        let wanted = |status: &EndpointStatus| endpoint.is_none_or(|endpoint| status.endpoint == endpoint);
        let endpoints = view.endpoints(RegionId(id as u8)).into_iter().filter(wanted).map(|status| EndpointHistory {
            region: region.to_string(),
            endpoint: status.endpoint,
            check: status.check,
            state: status.state,
            history: status.history,
        });
        let endpoints: Vec<EndpointHistory> = endpoints.collect();
        (endpoint.is_none() || !endpoints.is_empty()).then_some(History { endpoints })
    }
}

fn override_status(o: &Override, matches: Vec<String>) -> OverrideStatus {
    OverrideStatus {
        target: o.target.to_string(),
        state: o.state.as_str().into(),
        reason: o.reason.clone(),
        since: o.since,
        until: o.until,
        by: o.by.clone(),
        node: (!o.node.is_empty()).then(|| o.node.clone()),
        conflicts: o.conflicts.clone(),
        matches,
    }
}

/// World, snapshot and board at one moment.
struct View {
    world: Arc<World>,
    snapshot: Arc<Snapshot>,
    board: health::Snapshot,
    past: Arc<Board>,
    /// Changes of each endpoint to look up.
    history_max: usize,
    overrides: Overrides,
    cluster: Option<cluster::View>,
    live_cluster: Arc<Cluster>,
    at: SystemTime,
}

impl View {
    fn of(live: &Live, history_max: usize) -> View {
        let (world, snapshot, board) = live.at_one_moment();
        let (past, overrides) = (live.board.clone(), live.overrides());
        let (cluster, live_cluster) = (live.cluster.view(Instant::now()), live.cluster.clone());
        View { world, snapshot, board, past, history_max, overrides, cluster, live_cluster, at: SystemTime::now() }
    }

    fn forced(&self, region: RegionId) -> Option<&Override> {
        self.overrides.of_region(&self.world.config.regions[region.index()].name)
    }

    fn forced_endpoint(&self, region: RegionId, endpoint: &str) -> Option<&Override> {
        self.overrides.of_endpoint(&self.world.config.regions[region.index()].name, endpoint)
    }

    fn pools(&self, region: RegionId) -> impl Iterator<Item = (usize, &Pool)> {
        self.world.plan.pools.iter().enumerate().filter(move |(_, pool)| pool.region == region)
    }

    fn status(&self, target: usize) -> Cow<'_, TargetStatus> {
        self.board.status(&self.world.targets().sources()[target])
    }

    /// A region counts as usable when every set of endpoints that stands for it on some route is healthy.
    fn is_usable(&self, region: RegionId) -> bool {
        let state = |id: usize| self.snapshot.health.pool(crate::routing::plan::PoolId(id as u32));
        self.pools(region).all(|(id, _)| state(id).is_healthy)
    }

    fn trouble(&self, pool: &Pool) -> Option<String> {
        let down = pool.members.iter().filter_map(|member| {
            let name = member.endpoint.to_string();
            if let Some(o) = self.forced_endpoint(pool.region, &name) {
                let reason = if o.reason.is_empty() { String::new() } else { format!(" ({})", o.reason) };
                return (o.state != Decision::Up).then(|| format!("{name}: forced {}{reason}", o.state.as_str()));
            }
            let status = self.status(member.target?);
            (!status.is_up()).then(|| format!("{}: {}", member.endpoint, status.trouble()))
        });
        let all: Vec<String> = down.collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    fn endpoints(&self, region: RegionId) -> Vec<EndpointStatus> {
        endpoints::rows(&self.world, region).iter().map(|row| self.endpoint(region, row)).collect()
    }

    fn endpoint(&self, region: RegionId, row: &Row) -> EndpointStatus {
        let status = row.source.as_ref().map(|source| self.board.status(source));
        let status = status.as_deref();
        let measured = self.target(row).and_then(|target| self.past.measurements.of(target));
        let certificate_expires = measured.as_ref().and_then(Measured::certificate_expires_s);
        let certificate = certificate_expires.and_then(|expires_s| certificate_warning(expires_s, self.at));
        let lookup = measured.as_ref().and_then(Measured::lookup_warning);
        let name = row.endpoint.to_string();
        EndpointStatus {
            forced: self.forced_endpoint(region, &name).map(|o| o.state.as_str().to_string()),
            endpoint: name,
            check: row.check.clone(),
            checks: match &row.source {
                Some(Source::Calculated(of)) => of.parts.iter().map(|(name, _)| name.clone()).collect(),
                _ => Vec::new(),
            },
            state: status.map_or("up", |s| s.standing().as_str()).into(),
            kept: status.is_some_and(|s| s.kept),
            held: status.and_then(held),
            decided: status.is_some_and(|s| s.decided || s.consensus.is_some()),
            in_doubt: status.is_some_and(|s| s.in_doubt),
            seen: row.source.as_ref().map(|source| self.seen(source)).unwrap_or_default(),
            consensus: status.and_then(|s| s.consensus).map(|consensus| consensus.summary()),
            since: status.map(|s| unix_s(s.counts_since)),
            connect_ms: status.and_then(TargetStatus::connect_ms),
            baseline_ms: status.and_then(TargetStatus::baseline_ms),
            last_result: status.and_then(|s| s.last_result.as_ref()).map(|(_, result)| result.to_string()),
            last_error: status.and_then(|s| s.last_error.as_ref()).map(|(_, error)| error.to_string()),
            probes_ok: status.map_or(0, |s| s.probes_ok),
            probes_failed: status.map_or(0, |s| s.probes_failed),
            history: status.map(|status| self.history(status)).unwrap_or_default(),
            certificate_expires,
            warnings: certificate.into_iter().chain(lookup).collect(),
        }
    }

    /// How the servers of the cluster see the endpoints of a pool.
    fn seen_of_pool(&self, pool: &Pool) -> Vec<SeenEndpoint> {
        let mut all = Vec::new();
        for member in &pool.members {
            let Some(source) = member.target.map(|target| &self.world.targets().sources()[target]) else { continue };
            source.each_target(&mut |id| {
                let seen = self.seen(&Source::Target(id));
                if !seen.is_empty() {
                    all.push(sharing::seen_endpoint(&self.board[id], pool.check.as_deref(), &seen));
                }
            });
        }
        all
    }

    /// How each server of the cluster sees a target.
    fn seen(&self, source: &Source) -> Vec<SeenBy> {
        match (&self.cluster, source) {
            (Some(cluster), Source::Target(id)) => {
                let others = self.live_cluster.seen(self.board.epoch, *id, Instant::now());
                sharing::seen(&cluster.config.node, &self.board[*id], self.board.self_doubt.is_some(), others)
            }
            _ => Vec::new(),
        }
    }

    /// The target behind a row, where there is one of its own.
    fn target(&self, row: &Row) -> Option<&Target> {
        match row.source {
            Some(Source::Target(id)) => Some(&self.world.targets().list()[id.index()]),
            _ => None,
        }
    }

    fn history(&self, status: &TargetStatus) -> Vec<Transition> {
        let of = |change: history::Change| Transition {
            at: unix_s(change.at),
            from: change.from.to_string(),
            to: change.to.to_string(),
            reason: change.reason.to_string(),
        };
        match self.history_max {
            0 => Vec::new(),
            max => self.past.history(&status.target, max).into_iter().map(of).collect(),
        }
    }

    fn region(&self, id: RegionId) -> RegionStatus {
        let region = &self.world.config.regions[id.index()];
        let forced = self.forced(id);
        RegionStatus {
            name: region.name.clone(),
            location: region.location.clone(),
            latitude: region.coordinates.latitude,
            longitude: region.coordinates.longitude,
            usable: self.is_usable(id),
            forced: forced.map(|o| o.state.as_str().into()),
            forced_reason: forced.map(|o| o.reason.clone()),
            forced_until: forced.and_then(|o| o.until),
            penalty_ms: self.world.estimator.sites()[id.index()].penalty_ms(),
            endpoints: self.endpoints(id),
        }
    }
}

fn held(status: &TargetStatus) -> Option<Held> {
    let (hold, reason) = (status.held?, status.held_because()?);
    Some(Held { since: unix_s(hold.since), until: unix_s(hold.until), reason })
}

fn zones(world: &World) -> Vec<ZoneStatus> {
    let of = |(content, zone): (&ZoneContent, &crate::config::model::Zone)| ZoneStatus {
        name: content.origin.to_string(),
        serial: content.serial,
        routes: zone.routes.iter().map(|route| route.label.clone()).collect(),
    };
    world.contents.iter().zip(&world.config.zones).map(of).collect()
}

fn queries(live: &Live) -> Queries {
    let totals = live.registry.totals();
    let mut queries = Queries {
        total: totals.queries_read(),
        dropped: totals.dropped.iter().sum(),
        ecs: totals.ecs,
        truncated: totals.truncated,
        tcp_connections: totals.tcp_connections,
        ..Queries::default()
    };
    for (transport, counts) in TransportKind::ALL.iter().zip(&totals.queries) {
        queries.by_transport.insert(transport.label().into(), counts.iter().sum());
    }
    for (code, count) in totals.responses.iter().enumerate().filter(|(_, count)| **count > 0) {
        queries.responses.insert(crate::telemetry::classes::rcode_label(code), *count);
    }
    for (labels, count) in &totals.answers {
        *queries.answers_by_region.entry(labels.region.to_string()).or_default() += count;
    }
    queries
}
