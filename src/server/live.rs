//! What the running server shares between its threads: the published snapshot, the world behind it, health and counters.

mod overrides;
mod succession;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

pub use self::overrides::{Decided, Undecided};

use super::{
    confine::Confinement,
    heard,
    learning::Learning,
    overrides::Overrides,
    parallel::for_each,
    query_log,
    rises::Rises,
    state::StateDir,
    traffic::Origins,
    world::{Published, World, target_health, unix_s},
};
use crate::{
    admin::status::Reload,
    cluster::Cluster,
    geo::Network,
    health::{self, Board, Opinion, Prober},
    routing::{RateLimiter, Snapshot, health::Followed, signed::SignedAnswers},
    telemetry::{
        AnswerKeys, DropReason, Registry,
        query_log::{Logging, QueryLog},
    },
    wire::cookie::CookieSecrets,
    zone::ZoneTable,
};

/// How often a new cookie secret is made. The one before stays valid, and cookies live an hour, so none is ever refused early.
const COOKIE_SECRET_LASTS: Duration = Duration::from_secs(12 * 3600);

/// Shortest time from one publication of health to the next: a change that stands alone is published at once, and a thousand
/// that come within a second make some dozens of publications. Well below the 100 ms in which answers follow a verdict.
const PUBLISH_PAUSE: Duration = Duration::from_millis(25);

/// At most one log line in so long tells that responses are limited.
const LIMITING_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// What was said of limited responses.
#[derive(Default)]
struct Limiting {
    /// Limited since it was last said.
    latest: Option<Network>,
    told: Option<Instant>,
    dropped_before: u64,
}

/// The shared state.
pub struct Live {
    /// What queries read.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// What is known of the targets.
    pub board: Arc<Board>,
    /// The counters of all threads.
    pub registry: Registry,
    /// When the server started.
    pub started: SystemTime,
    /// What the process has given up; empty: nothing.
    pub confinement: OnceLock<Confinement>,
    /// Where state is kept across restarts.
    pub state: StateDir,
    /// What is learned of clients' round trips.
    pub learning: Arc<Learning>,
    /// This server's place among others.
    pub cluster: Arc<Cluster>,
    /// Regions that are harder to reach than usual.
    pub rises: Rises,
    /// Queries on their way to the query log.
    pub query_log: Arc<QueryLog>,
    /// Counts changes of what operators decided.
    decided: watch::Sender<u64>,
    /// Held while overrides are written.
    keeping: Mutex<()>,
    origins: Mutex<Origins>,
    control: Mutex<Control>,
}

/// What only the control plane touches.
struct Control {
    world: Arc<World>,
    zones: Arc<ZoneTable>, // of the world, with their present signatures
    epoch: u64,
    answer_keys: Arc<AnswerKeys>, // of the world's plan
    health: Health,
    overrides: Overrides,
    /// Another process has taken over: what is decided here would be lost.
    has_left: bool,
    /// For a configuration without a file of secrets.
    cookies: CookieSecrets,
    cookies_made: Instant,
    rate_limiter: Option<Arc<RateLimiter>>,
    logging: Option<Logging>,
    limiting: Limiting,
    reload: Reload,
    panics: BTreeMap<&'static str, u64>,
    retired: Vec<Arc<Snapshot>>,
}

/// A world with all that can be worked out before it is taken up.
pub struct ReadyWorld {
    world: Arc<World>,
    answer_keys: Arc<AnswerKeys>,
    health: Health,
    logging: Option<Logging>,
}

/// Zones that were signed anew, and what their routes answer.
pub struct SignedAnew {
    before: Arc<ZoneTable>,
    zones: Arc<ZoneTable>,
    answers: SignedAnswers,
}

/// The board as the world's plan sees it, change by change.
struct Health {
    view: Followed,
    /// By target, for what is calculated from several of them.
    opinions: Vec<Opinion>,
    /// The board's generation up to which changes were taken in.
    seen: u64,
}

impl ReadyWorld {
    /// The world.
    pub fn world(&self) -> Arc<World> {
        self.world.clone()
    }
}

impl Health {
    /// Nothing is known yet but what operators decided: the first changes are all that the board has.
    fn new(world: &World, overrides: &Overrides) -> Health {
        let opinions = vec![Opinion::UNKNOWN; world.targets().list().len()];
        Health { view: Followed::new(&world.plan, overrides.forces(&world.plan)), opinions, seen: 0 }
    }

    /// Takes in what changed.
    fn take_in(&mut self, world: &World, changes: &health::Changes) {
        self.seen = changes.generation;
        let targets = world.targets();
        let mut pairs = Vec::new();
        for (id, status) in &changes.statuses {
            self.opinions[id.index()] = status.opinion();
            pairs.extend_from_slice(targets.pairs(*id));
        }
        pairs.sort_unstable(); // several parts of one calculated check may have changed
        pairs.dedup();
        let opinion = |pair: usize| targets.sources()[pair].opinion(&|id| self.opinions[id.index()]);
        self.view.update(&world.plan, pairs.into_iter().map(|pair| (pair, target_health(&opinion(pair)))));
    }
}

impl Live {
    /// Publishes the first snapshot of `world`, whose targets are on the board.
    pub fn new(world: Arc<World>, board: Arc<Board>, state: StateDir) -> Arc<Live> {
        let registry = Registry::new();
        let keys = registry.answer_keys(world.plan.answer_labels(&world.config));
        let cookies = CookieSecrets { current: random_secret(), previous: random_secret() };
        let changes = board.changes_since(0);
        let cluster = Arc::new(Cluster::default());
        cluster.configure(world.config.cluster.as_ref());
        if cluster.node().is_some() {
            heard::recall(&state, &cluster);
        }
        let overrides = overrides::recall(&state, cluster.node().as_deref());
        let mut health = Health::new(&world, &overrides);
        health.take_in(&world, &changes);
        let zones = world.zones.clone();
        let rate_limiter = rate_limiter(world.config.server.limits.responses_per_second, None);
        let secrets = world.cookie_secrets.unwrap_or(cookies);
        let query_log = Arc::new(QueryLog::default());
        let logging = query_log::logging(&query_log, &world, None);
        let snapshot = world
            .first_snapshot(health.view.view().clone(), keys.clone(), secrets)
            .with_rate_limiter(rate_limiter.clone())
            .with_query_log(logging.clone());
        let now = SystemTime::now();
        let learning = Learning::default();
        learning.adopt(&world.config, &state);
        Arc::new(Live {
            snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
            board,
            registry,
            started: now,
            confinement: OnceLock::new(),
            state,
            learning: Arc::new(learning),
            cluster,
            rises: Rises::default(),
            query_log,
            decided: watch::Sender::new(0),
            keeping: Mutex::new(()),
            origins: Mutex::default(),
            control: Mutex::new(Control {
                world,
                zones,
                epoch: changes.epoch,
                answer_keys: keys,
                health,
                overrides,
                has_left: false,
                cookies,
                cookies_made: Instant::now(),
                rate_limiter,
                logging,
                limiting: Limiting::default(),
                reload: Reload { last_success: unix_s(now), ..Reload::default() },
                panics: BTreeMap::new(),
                retired: Vec::new(),
            }),
        })
    }

    /// The configuration in use and what was compiled from it.
    pub fn world(&self) -> Arc<World> {
        self.control().world.clone()
    }

    /// World, snapshot and board as they belong together: no reload comes in between.
    pub fn at_one_moment(&self) -> (Arc<World>, Arc<Snapshot>, health::Snapshot) {
        let control = self.control();
        (control.world.clone(), self.snapshot.load_full(), self.board.snapshot())
    }

    /// How many reloads there were, when, and what became of them.
    pub fn reloads(&self) -> Reload {
        self.control().reload.clone()
    }

    /// What is served, in one line.
    pub fn summary(&self) -> String {
        let control = self.control();
        let refused = if control.reload.error.is_some() { "; the newest reload was refused" } else { "" };
        format!("answering: {}{refused}", control.world.summary())
    }

    /// Panics of control-plane tasks, by task.
    pub fn panics(&self) -> BTreeMap<&'static str, u64> {
        self.control().panics.clone()
    }

    /// Counts a panic of a control-plane task.
    pub fn count_panic(&self, task: &'static str) {
        *self.control().panics.entry(task).or_default() += 1;
    }

    /// Counts a refused reload.
    pub fn reload_failed(&self, why: String) {
        let mut control = self.control();
        control.reload.failed += 1;
        control.reload.error = Some(why);
    }

    /// Counts a reload of something that is no configuration; `mended` is the failure that it makes up for.
    pub fn reload_succeeded(&self, mended: Option<String>) {
        let mut control = self.control();
        control.reload.succeeded += 1;
        if control.reload.error == mended {
            control.reload.error = None;
        }
    }

    /// Works out what [`Live::take_up`] needs of a new world, which takes its time with many routes; nothing waits for it.
    pub fn make_ready(&self, world: World) -> ReadyWorld {
        let answer_keys = self.registry.answer_keys(world.plan.answer_labels(&world.config));
        let health = Health::new(&world, &self.overrides());
        let before = self.control().logging.clone();
        let logging = query_log::logging(&self.query_log, &world, before);
        ReadyWorld { world: Arc::new(world), answer_keys, health, logging }
    }

    /// Takes up a new world: its targets go to the prober (those that stay keep their verdicts), its answers are published.
    pub fn take_up(&self, ready: ReadyWorld, prober: &Prober) {
        let ReadyWorld { world, answer_keys, health, logging } = ready;
        self.learning.adopt(&world.config, &self.state);
        let mut control = self.control();
        control.epoch = prober.replace(world.targets());
        control.zones = world.zones.clone();
        control.answer_keys = answer_keys;
        control.health = health;
        // Something may have been decided since it was made ready.
        let forces = control.overrides.forces(&world.plan);
        control.health.view.force(&world.plan, forces);
        control.rate_limiter =
            rate_limiter(world.config.server.limits.responses_per_second, control.rate_limiter.take());
        control.logging = logging;
        self.cluster.configure(world.config.cluster.as_ref());
        if let Some(node) = self.cluster.node() {
            control.overrides.adopt(&node);
        }
        control.world = world;
        control.reload.succeeded += 1;
        control.reload.last_success = unix_s(SystemTime::now());
        control.reload.error = None;
        let world = control.world.clone();
        self.publish(&mut control, true, Some(&world.signed));
    }

    /// Takes up a world that differs from the present one in its maps alone. False when a reload has come in between.
    pub fn take_up_maps(&self, before: &Arc<World>, world: Arc<World>) -> bool {
        let mut control = self.control();
        let is_current = Arc::ptr_eq(&control.world, before);
        if is_current {
            control.world = world;
            self.publish(&mut control, true, None);
        }
        is_current
    }

    /// Follows the board for ever: publishes at once when an answer can have changed, and then not again within
    /// `PUBLISH_PAUSE`, so that many changes at one time are a few publications.
    pub async fn follow_health(&self) {
        let mut changes = self.board.changes();
        {
            let mut control = self.control();
            control.health = Health::new(&control.world, &control.overrides); // a panic may have left it half changed
        }
        loop {
            if self.publish(&mut self.control(), false, None) {
                tokio::time::sleep(PUBLISH_PAUSE).await;
            }
            if changes.changed().await.is_err() {
                return; // never: the board lives as long as `self`
            }
        }
    }

    /// To be called now and then: makes new cookie secrets when it is time, tells of limited responses, and gives out the snapshots that
    /// no worker reads any more. They are held until then so that no worker spends its time on freeing a whole map, and given out so
    /// that whoever calls frees them where that delays nobody.
    #[must_use]
    pub fn housekeep(&self) -> Vec<Arc<Snapshot>> {
        let mut control = self.control();
        let let_go = control.retired.extract_if(.., |snapshot| Arc::strong_count(snapshot) == 1).collect();
        if control.cookies_made.elapsed() >= COOKIE_SECRET_LASTS {
            control.cookies = CookieSecrets { current: random_secret(), previous: control.cookies.current };
            control.cookies_made = Instant::now();
            self.publish(&mut control, true, None);
        }
        self.tell_of_limiting(&mut control);
        let_go
    }

    /// Where queries come from, brought up to `now`.
    pub fn origins(&self, now: Instant) -> MutexGuard<'_, Origins> {
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        origins.update(&self.registry, now);
        origins
    }

    /// True when it published. `prepared`: signatures made for the world and zones of `control`, if those before are of others.
    fn publish(&self, control: &mut Control, even_if_equal: bool, prepared: Option<&SignedAnswers>) -> bool {
        let changes = self.board.changes_since(control.health.seen);
        if changes.epoch != control.epoch {
            return false; // the board is ahead: whoever replaced its targets publishes next
        }
        let world = control.world.clone();
        control.health.take_in(&world, &changes);
        let health = control.health.view.view().clone();
        let before = self.snapshot.load_full();
        if !even_if_equal && Arc::ptr_eq(&before.health, &health) {
            return false;
        }
        // A snapshot before with another plan is never without prepared ones, but where only the maps differ: routes and pools are
        // the same, and so are their numbers.
        let signed_before = prepared.unwrap_or(&before.signed);
        let signed = Arc::new(SignedAnswers::with(&world.plan, &health, &control.zones, signed_before, &for_each));
        let cookies = world.cookie_secrets.unwrap_or(control.cookies);
        let (zones, answer_keys) = (control.zones.clone(), control.answer_keys.clone());
        let published = Published { zones, health, signed, answer_keys, cookies };
        let snapshot = world
            .snapshot(before.generation + 1, published)
            .with_rate_limiter(control.rate_limiter.clone())
            .with_query_log(control.logging.clone());
        self.snapshot.store(Arc::new(snapshot));
        control.retired.push(before);
        true
    }

    /// Signs those zones anew whose time has come, which takes a while with many names; health is followed meanwhile. What comes
    /// of it is for [`Live::take_up_signatures`].
    pub fn sign_anew(&self, now_s: u64) -> Option<SignedAnew> {
        let (world, zones) = {
            let control = self.control();
            (control.world.clone(), control.zones.clone())
        };
        let signed = zones.signed_anew(&world.contents, now_s)?;
        let before = self.snapshot.load_full();
        // Else other maps or a reload are on their way: the next try finds them in place.
        let is_in_place = Arc::ptr_eq(&before.plan, &world.plan);
        is_in_place.then(|| {
            let answers = SignedAnswers::with(&world.plan, &before.health, &signed, &before.signed, &for_each);
            SignedAnew { before: zones, zones: Arc::new(signed), answers }
        })
    }

    /// Publishes zones that were signed anew. False when a reload has come in between, which has signed everything by itself.
    pub fn take_up_signatures(&self, signed: SignedAnew) -> bool {
        let mut control = self.control();
        // Maps that were made anew meanwhile have the same zones.
        let is_current = Arc::ptr_eq(&control.zones, &signed.before);
        if is_current {
            control.zones = signed.zones;
            self.publish(&mut control, true, Some(&signed.answers));
        }
        is_current
    }

    /// True when it is time for [`Live::sign_anew`].
    pub fn is_signing_due(&self, now_s: u64) -> bool {
        self.control().zones.is_due(now_s)
    }

    fn tell_of_limiting(&self, control: &mut Control) {
        let Some(limiter) = &control.rate_limiter else { return };
        let limiting = &mut control.limiting;
        limiting.latest = limiter.take_latest().or(limiting.latest);
        let Some(network) = limiting.latest else { return };
        if limiting.told.is_some_and(|told| told.elapsed() < LIMITING_LOG_INTERVAL) {
            return;
        }
        let dropped = self.registry.totals().dropped[DropReason::RateLimited as usize];
        tracing::warn!(
            network = network.to_string(),
            dropped = dropped - limiting.dropped_before,
            "responses are being limited ([server.limits] responses-per-second): one of the networks, and the replies dropped \
             since this was last said; about as many were shortened"
        );
        *limiting = Limiting { latest: None, told: Some(Instant::now()), dropped_before: dropped };
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The limiter for a configuration: the one before if the limit is the same, so that a reload is no way around it.
fn rate_limiter(limit: u32, before: Option<Arc<RateLimiter>>) -> Option<Arc<RateLimiter>> {
    match limit {
        0 => None,
        _ => before
            .filter(|before| before.responses_per_second() == limit)
            .or_else(|| Some(Arc::new(RateLimiter::new(limit, random_secret())))),
    }
}

/// Sixteen bytes from the system's random source.
pub(super) fn random_secret() -> [u8; 16] {
    let mut secret = [0; 16];
    let filled = rustls::crypto::ring::default_provider().secure_random.fill(&mut secret);
    filled.expect("the system's random source works: TLS of the probes rests on it, too");
    secret
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_keeps_the_table_of_limits_unless_it_changes_the_limit() {
        let first = rate_limiter(10, None).unwrap();
        let same = rate_limiter(10, Some(first.clone())).unwrap();
        assert!(Arc::ptr_eq(&first, &same));
        let other = rate_limiter(11, Some(first.clone())).unwrap();
        assert!(!Arc::ptr_eq(&first, &other) && other.responses_per_second() == 11);
        assert!(rate_limiter(0, Some(first)).is_none());
    }
}
