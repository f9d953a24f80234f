//! What the running server shares between its threads: the published snapshot, the world behind it, health and counters.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use arc_swap::{ArcSwap, Cache};

use super::world::{World, unix_s};
use crate::{
    admin::status::Reload,
    answer::{Arrival, Core, Verdict},
    health::{self, Board, Prober},
    routing::{Snapshot, health::HealthView},
    telemetry::{Registry, TransportKind, WorkerCounters},
    transport::{Reply, Respond},
    wire::cookie::CookieSecrets,
};

/// How often a new cookie secret is made. The one before stays valid, and cookies live an hour, so none is ever refused early.
const COOKIE_SECRET_LASTS: Duration = Duration::from_secs(12 * 3600);

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
    control: Mutex<Control>,
}

/// What only the control plane touches.
struct Control {
    world: Arc<World>,
    epoch: u64,
    cookies: CookieSecrets,
    cookies_made: Instant,
    reload: Reload,
    panics: BTreeMap<&'static str, u64>,
    retired: Vec<Arc<Snapshot>>,
}

impl Live {
    /// Publishes the first snapshot of `world`, whose targets are on the board.
    pub fn new(world: Arc<World>, board: Arc<Board>) -> Arc<Live> {
        let registry = Registry::new();
        let keys = registry.answer_keys(world.plan.answer_labels(&world.config));
        let cookies = CookieSecrets { current: random_secret(), previous: random_secret() };
        let statuses = board.snapshot();
        let health = HealthView::new(&world.plan, &world.target_health(&statuses));
        let snapshot = world.snapshot(1, Arc::new(health), keys, cookies);
        let now = SystemTime::now();
        Arc::new(Live {
            snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
            board,
            registry,
            started: now,
            control: Mutex::new(Control {
                world,
                epoch: statuses.epoch,
                cookies,
                cookies_made: Instant::now(),
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

    /// Counts, and times, of reloads.
    pub fn reload(&self) -> Reload {
        self.control().reload.clone()
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

    /// Takes up a new world: its targets go to the prober (those that stay keep their verdicts), its answers are published.
    pub fn take_up(&self, world: Arc<World>, prober: &Prober) {
        let mut control = self.control();
        control.epoch = prober.replace(world.targets());
        control.world = world;
        control.reload.succeeded += 1;
        control.reload.last_success = unix_s(SystemTime::now());
        control.reload.error = None;
        self.publish(&mut control, true);
    }

    /// Follows the board: publishes if an answer can have changed.
    pub fn follow_health(&self) {
        self.publish(&mut self.control(), false);
    }

    /// To be called now and then: makes new cookie secrets when it is time and lets old snapshots go. Those are held here until
    /// no worker reads them any more, so that none of them spends its time on freeing a whole map.
    pub fn housekeep(&self) {
        let mut control = self.control();
        control.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
        if control.cookies_made.elapsed() >= COOKIE_SECRET_LASTS {
            control.cookies = CookieSecrets { current: random_secret(), previous: control.cookies.current };
            control.cookies_made = Instant::now();
            self.publish(&mut control, true);
        }
    }

    fn publish(&self, control: &mut Control, even_if_equal: bool) {
        let statuses = self.board.snapshot();
        if statuses.epoch != control.epoch {
            return; // the board is ahead: whoever replaced its targets publishes next
        }
        let world = control.world.clone();
        let health = HealthView::new(&world.plan, &world.target_health(&statuses));
        let before = self.snapshot.load_full();
        if !even_if_equal && *before.health == health {
            return;
        }
        let keys = match Arc::ptr_eq(&before.plan, &world.plan) {
            true => before.answer_keys.clone(),
            false => self.registry.answer_keys(world.plan.answer_labels(&world.config)),
        };
        let generation = before.generation + 1;
        self.snapshot.store(Arc::new(world.snapshot(generation, Arc::new(health), keys, control.cookies)));
        control.retired.push(before);
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sixteen bytes from the system's random source.
fn random_secret() -> [u8; 16] {
    let mut secret = [0; 16];
    let filled = rustls::crypto::ring::default_provider().secure_random.fill(&mut secret);
    filled.expect("the system's random source works: TLS of the probes rests on it, too");
    secret
}

/// One thread's way to the core.
pub struct Answerer {
    cache: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
    current: Arc<Snapshot>,
    core: Core,
    now_s: u64,
}

impl Answerer {
    /// For one more thread, which counts in `counters`.
    pub fn new(live: &Live, counters: Arc<WorkerCounters>) -> Self {
        let current = live.snapshot.load_full();
        Answerer {
            cache: Cache::new(live.snapshot.clone()),
            core: Core::new(counters, &current),
            current,
            now_s: unix_s(SystemTime::now()),
        }
    }
}

impl Respond for Answerer {
    fn begin_batch(&mut self) {
        let latest = self.cache.load();
        if !Arc::ptr_eq(latest, &self.current) {
            self.current = latest.clone();
            self.core.adopt(&self.current);
        }
        self.now_s = unix_s(SystemTime::now());
    }

    fn respond(
        &mut self,
        query: &[u8],
        client: std::net::SocketAddr,
        transport: TransportKind,
        out: &mut [u8],
    ) -> Reply {
        let client = client.ip().to_canonical();
        match self.core.respond(query, Arrival { client, transport, now_s: self.now_s }, &self.current, out) {
            Verdict::Send(len) => Reply::Send(len),
            Verdict::Drop(_) => Reply::Drop,
        }
    }
}
