//! Everything compiled from one configuration: the loader that `serve`, a reload and `check` share.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

mod named;

use self::named::{Parts, about, faults_beside};
use super::{
    estimates,
    measured::{self, GeoAtlas},
    parallel::for_each,
    query_log,
    watch::Files,
};
use crate::{
    answer::explain::{self, Circumstances, Explanation},
    config::{
        self, AdminToken, Config, Problem, Report,
        model::{Region, RegionId},
    },
    geo::{AsnTable, Locations},
    health::{self, Endpoint, Targets},
    latency::{
        Estimator, Prior, RegionSite,
        evaluate::Evaluation,
        intake,
        measurement::{Network, Row},
    },
    routing::{
        Plan, Snapshot,
        build::{self, Coverage, MapSpec, Sources},
        health::{HealthView, TargetHealth},
        plan::Draft,
        signed::SignedAnswers,
        snapshot::Settings,
    },
    telemetry::AnswerKeys,
    wire::cookie::CookieSecrets,
    zone::{ZoneContent, ZoneTable},
};

/// A configuration with all that was compiled from it.
pub struct World {
    /// The configuration.
    pub config: Config,
    /// The file that it was read from.
    pub path: PathBuf,
    /// Places of addresses.
    pub locations: Arc<Locations>,
    /// Autonomous systems.
    pub asns: Option<Arc<AsnTable>>,
    /// The round trips to expect.
    pub estimator: Estimator,
    /// Wrong lines of measurement files that were left out by choice.
    pub measurements_skipped: usize,
    /// How good the estimates are by the measurements; `None`: there is nothing to judge by.
    pub quality: Option<Arc<Evaluation>>,
    /// When that was found out, Unix time in seconds.
    judged_s: u64,
    /// What the estimates of the map rest on.
    pub coverage: Coverage,
    /// Compiled zones, with the signatures that they had at first.
    pub zones: Arc<ZoneTable>,
    /// What they were compiled from, in file order; the RRsets of the signed ones alone, which are signed again.
    pub contents: Vec<ZoneContent>,
    /// What the zones say that is served otherwise than their authors may think, one line each.
    pub warnings: Vec<String>,
    /// Routes, pools and maps.
    pub plan: Arc<Plan>,
    /// Signatures of what routes answer while everything is up; other states of health sign what differs.
    pub signed: SignedAnswers,
    /// Secrets of the server cookies, where they come from a file.
    pub cookie_secrets: Option<CookieSecrets>,
    /// What changes through the admin interface need.
    pub admin_token: Option<AdminToken>,
    /// The databases as they were when they were read.
    pub files: Files,
    /// How long it took to compile.
    pub build_time: Duration,
    /// When the ages of what was measured were taken, Unix time in seconds: what is old counts less.
    pub measured_s: u64,
    targets: Targets,
    /// What the maps of the plan were compiled from.
    specs: Vec<MapSpec>,
}

/// While only what is learnt changes, the estimates are judged so often, in seconds.
const JUDGE_EVERY_S: u64 = 3600;

/// What a world is compiled from besides its configuration.
#[derive(Default)]
pub struct Past<'p> {
    /// The world before, whose choices for measured networks count.
    pub before: Option<&'p World>,
    /// What this server has measured itself, and in a cluster the others.
    pub learnt: Vec<Row>,
    /// What connecting to the regions takes longer than usual, in milliseconds and in their order; empty: nothing.
    pub penalties_ms: Vec<f32>,
}

impl World {
    /// Reads a configuration file and everything that it names.
    ///
    /// # Errors
    /// All that is wrong with any of it.
    pub fn load(path: &Path) -> Result<World, Report> {
        World::load_after(path, Past::default())
    }

    /// As [`World::load`], for a server that runs already.
    ///
    /// # Errors
    /// As [`World::load`].
    pub fn load_after(path: &Path, past: Past) -> Result<World, Report> {
        match config::read(path) {
            (Some(config), report) if report.is_empty() => World::compile_after(config, path, past),
            (Some(config), report) => Err(report.and(faults_beside(&config))),
            (None, report) => Err(report),
        }
    }

    /// Compiles a configuration that was read from `path`.
    ///
    /// # Errors
    /// All that is wrong with the zones' records, the databases and the measurements.
    pub fn compile(config: Config, path: &Path) -> Result<World, Report> {
        World::compile_after(config, path, Past::default())
    }

    /// As [`World::compile`], for a server that runs already.
    ///
    /// # Errors
    /// As [`World::compile`].
    pub fn compile_after(config: Config, path: &Path, past: Past) -> Result<World, Report> {
        let (begun, now) = (Instant::now(), SystemTime::now());
        let mut files = Files::of(&config, path);
        let Parts { contents, locations, asns, cookie_secrets, admin_token, mut measured } = Parts::read(&config, now)?;
        files.add_included(&config, &contents);
        measured.rows.extend(past.learnt);
        let Draft { mut plan, specs } = Draft::new(&config, &contents);
        let told = |error| Report::from(about(&config, &error));
        let sites = sites(&config, &past.penalties_ms);
        let atlas = GeoAtlas::new(&locations, asns.as_ref(), &measured.rows).map_err(told)?;
        let estimator = intake::learn(&Prior::with(config.latency.detours), &sites, &measured.rows, &atlas);
        let quality = estimates::judge(&config, &measured.rows, &atlas).map(Arc::new);
        let before = Before::new(past.before, &config, &specs);
        let sources = Sources {
            locations: &locations,
            asns: asns.as_ref(),
            estimator: &estimator,
            switch_margin_ms: config.latency.switch_margin_ms,
            hysteresis_ms: config.latency.hysteresis_ms,
            before: &|spec, address| before.region(spec, address),
        };
        let built = build::build(&sources, &specs).map_err(told)?;
        plan.maps = built.maps;
        locations.release();
        if let Some(asns) = &asns {
            asns.release();
        }
        let zones = ZoneTable::compile(&contents, unix_s(SystemTime::now()));
        let all_up = HealthView::new(&plan, &vec![TargetHealth::UNKNOWN; plan.targets.len()]);
        measured.warnings.extend(doubts(&estimator, asns.is_some(), &measured.rows));
        measured.warnings.extend(query_log::doubt(&config));
        let of_zones = contents.iter().flat_map(|content| &content.warnings).map(Problem::brief);
        Ok(World {
            path: path.to_owned(),
            signed: SignedAnswers::with(&plan, &all_up, &zones, &SignedAnswers::default(), &for_each),
            zones: Arc::new(zones),
            warnings: of_zones.chain(measured.warnings).collect(),
            contents: keep_signed(contents),
            targets: Targets::new(plan.targets.clone())
                .placed(regions_of_endpoints(&plan))
                .seen_from(config.server.region.map(|region| u16::from(region.0))),
            plan: Arc::new(plan),
            locations: Arc::new(locations),
            asns: asns.map(Arc::new),
            estimator,
            measurements_skipped: measured.skipped,
            quality,
            judged_s: unix_s(now),
            coverage: built.coverage,
            config,
            cookie_secrets,
            admin_token,
            files,
            build_time: begun.elapsed(),
            measured_s: unix_s(now),
            specs,
        })
    }

    /// The same world with maps that follow what is measured `now`, and how old that is by then: files of measurements are read again,
    /// and what was learnt is taken in, penalties of the regions among it. Nothing else is read that could have changed meanwhile
    /// but the location data.
    ///
    /// # Errors
    /// All that is wrong with the measurements and the databases.
    pub fn with_measurements(&self, learnt: Vec<Row>, penalties_ms: &[f32], now: SystemTime) -> Result<World, Report> {
        let begun = Instant::now();
        let config = self.config.clone();
        let mut measured = measured::read(&config, now).map_err(Report::new)?;
        measured.rows.extend(learnt);
        let told = |error| Report::from(about(&config, &error));
        let asns = self.asns.as_deref();
        let _held = (self.locations.hold().map_err(told)?, asns.map(AsnTable::hold).transpose().map_err(told)?);
        let sites = sites(&config, penalties_ms);
        let atlas = GeoAtlas::new(&self.locations, asns, &measured.rows).map_err(told)?;
        let estimator = intake::learn(&Prior::with(config.latency.detours), &sites, &measured.rows, &atlas);
        // How good the estimates are changes slowly.
        let judge = || estimates::judge(&config, &measured.rows, &atlas).map(Arc::new);
        let (quality, judged_s) = match &self.quality {
            Some(quality) if unix_s(now) < self.judged_s + JUDGE_EVERY_S => (Some(quality.clone()), self.judged_s),
            _ => (judge(), unix_s(now)),
        };
        let before = Before::new(Some(self), &config, &self.specs);
        let sources = Sources {
            locations: &self.locations,
            asns,
            estimator: &estimator,
            switch_margin_ms: config.latency.switch_margin_ms,
            hysteresis_ms: config.latency.hysteresis_ms,
            before: &|spec, address| before.region(spec, address),
        };
        let built = build::build(&sources, &self.specs).map_err(told)?;
        let plan = self.plan.with_maps(built.maps);
        let all_up = HealthView::new(&plan, &vec![TargetHealth::UNKNOWN; plan.targets.len()]);
        Ok(World {
            path: self.path.clone(),
            signed: SignedAnswers::with(&plan, &all_up, &self.zones, &self.signed, &for_each),
            zones: self.zones.clone(),
            warnings: self.warnings.clone(),
            contents: self.contents.clone(),
            targets: self.targets.clone(),
            plan: Arc::new(plan),
            locations: self.locations.clone(),
            asns: self.asns.clone(),
            estimator,
            measurements_skipped: measured.skipped,
            quality,
            judged_s,
            coverage: built.coverage,
            config,
            cookie_secrets: self.cookie_secrets,
            admin_token: self.admin_token.clone(),
            files: self.files.clone(),
            build_time: begun.elapsed(),
            measured_s: unix_s(now),
            specs: self.specs.clone(),
        })
    }

    /// What the maps add to the estimates of the regions, since they are harder to reach than usual, in milliseconds.
    pub fn penalties_ms(&self) -> Vec<f32> {
        self.estimator.sites().iter().map(RegionSite::penalty_ms).collect()
    }

    /// How long ago the ages of what was measured were taken, in seconds.
    pub fn measured_ago_s(&self, now_s: u64) -> u64 {
        now_s.saturating_sub(self.measured_s)
    }

    /// `2 regions, 1 zone, 1 route`.
    pub fn summary(&self) -> String {
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        [
            count(self.config.regions.len(), "region"),
            count(self.config.zones.len(), "zone"),
            count(self.plan.routes.len(), "route"),
        ]
        .join(", ")
    }

    /// Logs the warnings, the first 100 of them.
    pub fn log_warnings(&self) {
        let (told, untold) = self.warnings.split_at(self.warnings.len().min(100));
        told.iter().for_each(|warning| tracing::warn!("{warning}"));
        if !untold.is_empty() {
            tracing::warn!("{} more warnings; `isochrone check` shows them all", untold.len());
        }
    }

    /// What is probed.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// Ranges in the largest map: IPv4, IPv6.
    pub fn networks(&self) -> (usize, usize) {
        let counts = self.plan.maps.iter().map(|map| map.range_counts());
        counts.fold((0, 0), |(a4, a6), (b4, b6)| (a4.max(b4), a6.max(b6)))
    }

    /// Explains an answer without a running server: nothing has been probed, so every endpoint counts as up.
    pub fn explain(&self, request: &explain::Request) -> Explanation {
        let health = HealthView::new(&self.plan, &vec![TargetHealth::UNKNOWN; self.plan.targets.len()]);
        let answer_keys = Arc::new(AnswerKeys::new(self.plan.answer_labels(&self.config)));
        let snapshot = self.first_snapshot(health, answer_keys, CookieSecrets::default());
        self.explain_with(&snapshot, &Circumstances::NONE, request)
    }

    /// Explains an answer out of `snapshot`, which was made from this world.
    pub fn explain_with(
        &self,
        snapshot: &Snapshot,
        circumstances: &Circumstances<'_>,
        request: &explain::Request,
    ) -> Explanation {
        let now_s = unix_s(SystemTime::now());
        let world = explain::World {
            snapshot,
            config: &self.config,
            locations: &self.locations,
            asns: self.asns.as_deref(),
            estimator: &self.estimator,
            circumstances,
            now_s,
            measured_ago_s: self.measured_ago_s(now_s),
        };
        explain::explain(&world, request)
    }

    /// What queries read at first: the zones as they were compiled, and all that routes can answer with signed.
    pub fn first_snapshot(
        &self,
        health: impl Into<Arc<HealthView>>,
        answer_keys: Arc<AnswerKeys>,
        cookies: CookieSecrets,
    ) -> Snapshot {
        let (zones, health) = (self.zones.clone(), health.into());
        let signed = Arc::new(SignedAnswers::with(&self.plan, &health, &zones, &self.signed, &for_each));
        self.snapshot(1, Published { zones, health, signed, answer_keys, cookies })
    }

    /// What queries read, for what changes while the world stays.
    pub fn snapshot(&self, generation: u64, published: Published) -> Snapshot {
        let Published { zones, health, signed, answer_keys, cookies } = published;
        let server = &self.config.server;
        let tenths = server.limits.tcp_idle.as_millis() / 100;
        Snapshot {
            generation,
            zones,
            plan: self.plan.clone(),
            health,
            signed,
            settings: Arc::new(Settings {
                identity: server.identity.as_bytes().into(),
                udp_payload: server.limits.udp_payload,
                tcp_idle_tenths: u16::try_from(tenths).unwrap_or(u16::MAX),
                cookies,
                rate_limiter: None,
            }),
            answer_keys,
            query_log: None,
        }
    }
}

/// The regions of a configuration as the estimates see them.
fn sites(config: &Config, penalties_ms: &[f32]) -> Vec<RegionSite> {
    let penalties_ms = penalties_ms.iter().copied().chain(std::iter::repeat(0.0));
    let site = |(region, ms): (&Region, f32)| RegionSite::new(region.coordinates, region.bias_ms).penalised(ms);
    config.regions.iter().zip(penalties_ms).map(site).collect()
}

/// What was measured and has less effect than its author may think.
fn doubts(estimator: &Estimator, has_asns: bool, rows: &[Row]) -> Vec<String> {
    let mut told = Vec::new();
    let impossible = estimator.counts().impossible;
    if impossible > 0 {
        told.push(format!(
            "{impossible} measured round trips are faster than light in fibre between the network's place and the region: they are \
             left out, since one of the two is elsewhere"
        ));
    }
    if !has_asns && rows.iter().any(|row| matches!(row.network, Network::Asn(_))) {
        told.push("measurements of autonomous systems have no effect: set `asn-database` in [geo]".into());
    }
    told
}

/// What the world before chose.
struct Before<'b> {
    world: Option<&'b World>,
    /// By the position of the new map's specification: its map, if it had the same.
    maps: Vec<Option<usize>>,
}

impl<'b> Before<'b> {
    fn new(world: Option<&'b World>, config: &Config, specs: &[MapSpec]) -> Self {
        // Regions are told by their position: with others in the file the choices mean nothing.
        let names = |config: &Config| config.regions.iter().map(|region| region.name.clone()).collect::<Vec<_>>();
        let world = world.filter(|world| names(&world.config) == names(config));
        let map_of = |spec: &MapSpec| world.and_then(|world| world.specs.iter().position(|known| known == spec));
        Before { world, maps: specs.iter().map(map_of).collect() }
    }

    /// The region that a network had, if it was measured at all.
    fn region(&self, spec: usize, address: IpAddr) -> Option<RegionId> {
        let map = &self.world?.plan.maps[self.maps[spec]?];
        let region = *map.ranking(map.locate(address).entry.ranking?).first()?;
        self.world?.estimator.client(address, None).prefix.map(|_| region)
    }
}

/// A target's state as routing sees it.
pub fn target_health(opinion: &health::Opinion) -> TargetHealth {
    TargetHealth {
        up: opinion.up,
        held: opinion.held,
        doubt_s: opinion.ttl_bound.map(|bound| bound.as_millis().div_ceil(1000) as u32),
        baseline_ms: opinion.baseline.map(|baseline| (baseline.as_secs_f64() * 1e3) as f32),
    }
}

/// Where each endpoint stands: in the first region that names it.
fn regions_of_endpoints(plan: &Plan) -> HashMap<Endpoint, u16> {
    let mut regions = HashMap::new();
    for pool in &plan.pools {
        for member in &pool.members {
            regions.entry(member.endpoint.clone()).or_insert(u16::from(pool.region.0));
        }
    }
    regions
}

fn keep_signed(mut contents: Vec<ZoneContent>) -> Vec<ZoneContent> {
    for content in &mut contents {
        content.included = Vec::new();
        if content.keys.is_none() {
            content.rrsets = Vec::new();
        }
    }
    contents
}

/// The parts of a snapshot that change while the configuration stays.
pub struct Published {
    /// The zones with their present signatures.
    pub zones: Arc<ZoneTable>,
    /// What is usable.
    pub health: Arc<HealthView>,
    /// Signatures for that.
    pub signed: Arc<SignedAnswers>,
    /// Labels of the answer counters.
    pub answer_keys: Arc<AnswerKeys>,
    /// Secrets of the server cookies.
    pub cookies: CookieSecrets,
}

/// Milliseconds since 1970.
pub fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Seconds since 1970.
pub fn unix_s(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
