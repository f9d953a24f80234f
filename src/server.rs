//! The one place that wires the rooms together and owns start, reload and stop.

mod answerer;
pub mod confine;
pub mod endpoints;
mod error;
pub mod estimates;
mod eyes;
mod files;
mod heard;
pub mod identity;
pub mod learning;
pub mod live;
pub mod measured;
pub mod moves;
pub mod operations;
pub mod overrides;
mod parallel;
pub mod query_log;
mod rebuild;
mod reload;
mod rises;
pub mod service;
mod serving;
mod shared;
mod signals;
mod sockets;
pub mod state;
pub mod takeover;
mod traffic;
pub mod verdicts;
pub mod watch;
pub mod world;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    runtime::{Builder, Runtime},
    sync::{mpsc, watch as channel},
    task::{JoinHandle, JoinSet},
};

use self::{
    confine::{confine, make_state_dir},
    files::Files,
    identity::Keeper,
    live::Live,
    operations::{ReloadRequest, Running},
    parallel::{at_leisure, free},
    query_log::Keeper as LogKeeper,
    rebuild::Rebuilder,
    reload::{reload, tell_of_secrets},
    service::Manager,
    serving::{end_serving, start_serving, successor_of},
    signals::{Signals, received},
    state::StateDir,
    takeover::{Doors, Giver},
};
pub use self::{error::ServeError, world::World};
use crate::{
    admin,
    config::{Problem, model::Config},
    health::{Board, NetProbe, Prober, install_crypto_provider, probe::tls::TrustedRoots},
    sys::{descriptors::given_at_start, names::addresses_of},
    transport::{self, Serving, Spare},
};

/// What to serve.
#[derive(Debug, Clone)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// Take over from the server that runs.
    pub takeover: bool,
}

/// What a start begins with.
#[derive(Default)]
struct Start {
    takeover: bool,
    /// Sockets that the service manager has opened.
    given: Vec<OwnedFd>,
    /// It gives up what it does not need once its sockets are open, while no other thread runs yet, and another process may take over
    /// later.
    is_service: bool,
}

/// Where the server can be reached.
#[derive(Debug, Clone)]
pub struct Ready {
    /// DNS, UDP and TCP.
    pub listen: Vec<SocketAddr>,
    /// DNS over TLS, QUIC and HTTPS.
    pub encrypted: [Vec<SocketAddr>; 3],
    /// The admin interface.
    pub admin: Option<SocketAddr>,
}

/// How often files are looked at and old snapshots let go.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);

/// Serves a configuration file until SIGTERM or SIGINT, or until another process takes over. To be called before other threads are
/// started.
///
/// # Errors
/// Why it did not start.
pub fn serve(options: Options) -> Result<(), ServeError> {
    let begun = Instant::now();
    let start = Start { takeover: options.takeover, given: given_at_start()?, is_service: true };
    let world = World::load(&options.config).map_err(ServeError::Config)?;
    run(world, begun, start, |_| {})
}

/// Serves a configuration that was read from `path`, and calls `on_ready` once it answers.
///
/// # Errors
/// Why it did not start.
pub fn serve_config(config: Config, path: PathBuf, on_ready: impl FnOnce(&Ready)) -> Result<(), ServeError> {
    let begun = Instant::now();
    let world = World::compile(config, &path).map_err(ServeError::Config)?;
    run(world, begun, Start::default(), on_ready)
}

fn run(world: World, begun: Instant, start: Start, on_ready: impl FnOnce(&Ready)) -> Result<(), ServeError> {
    install_crypto_provider();
    end_on_data_plane_panic();
    let server = &world.config.server;
    let files = Files::of(server);
    make_state_dir(server).map_err(ServeError::Config)?;
    let manager = Manager::from_environment();
    let is_service = start.is_service;
    let (mut sockets, mut taken) = sockets::open_or_take(start, &world.config)?;
    let ready = sockets.ready();
    let handed_doors = taken.as_mut().map(|taken| std::mem::take(&mut taken.doors)).unwrap_or_default();
    let places = takeover::doors::places(server, ready.listen.iter().copied());
    let doors = is_service.then(|| Doors::open(&places, handed_doors));
    let confined = is_service.then(|| confine(&world)).transpose()?;
    let state = StateDir::open(server.state_dir.as_deref())
        .map_err(|error| ServeError::Config(Problem::new(error.to_string()).into()))?;
    let runtime = control_runtime()?;
    let inside = runtime.enter(); // signals and probes belong to this runtime
    let world = Arc::new(world);
    let board = Arc::new(Board::default());
    let state = state.with_handed(taken.as_mut().map(|taken| std::mem::take(&mut taken.state)).unwrap_or_default());
    verdicts::recall(&state, &board);
    let probe = Arc::new(NetProbe::new(TrustedRoots::Host, Arc::new(addresses_of)));
    let prober = Prober::start(world.targets(), board.clone(), probe, files.probes_max(), runtime.handle());
    let live = Live::new(world.clone(), board, state);
    live.confinement.get_or_init(|| confined.unwrap_or_default());
    let keeper = world.config.server.encrypted.as_ref().map(Keeper::new);
    let is_successor = taken.is_some();
    // Before another process is relieved: from then on this one must not end by a signal that means a reload, nor go by old health.
    let signals = Signals::new()?;
    let follower = runtime.spawn(supervise(live.clone(), "publish", |live| async move { live.follow_health().await }));
    let (admin, spares) = (sockets.admin.take(), std::mem::take(&mut sockets.spares));
    let serving = start_serving(sockets, &live, keeper.as_ref(), taken)?;
    tell_ready(&world, &ready, begun);
    files.tell_if_short(world.targets());
    tell_of_secrets(&world);
    on_ready(&ready);
    drop(inside);
    // Other maps than those of the world: made of what the process before had learnt.
    let has_learnt = !Arc::ptr_eq(&live.world(), &world);
    let rebuilder = if has_learnt { Rebuilder::rested() } else { Rebuilder::default() };
    let parts = Parts {
        live,
        prober,
        serving,
        keeper,
        admin,
        doors,
        spares,
        rebuilder,
        manager,
        signals,
        follower,
        is_successor,
    };
    let ended = runtime.block_on(control(parts, &ready));
    runtime.shutdown_background(); // a name look-up or a reload under way must not hold up the end
    ended
}

fn control_runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(2).thread_name("control").enable_all().build()
}

fn tell_ready(world: &World, ready: &Ready, begun: Instant) {
    world.log_warnings();
    let shown = |list: &[SocketAddr]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    // Those that are not served are left out of the line.
    let [dot, doq, doh] = ready.encrypted.each_ref().map(|list| Some(shown(list)).filter(|text| !text.is_empty()));
    let admin = ready.admin.map_or_else(|| "off".to_string(), |address| address.to_string());
    let (v4, v6) = world.networks();
    tracing::info!(
        listen = shown(&ready.listen),
        dot,
        doq,
        doh,
        admin,
        zones = world.config.zones.len(),
        regions = world.config.regions.len(),
        routes = world.plan.routes.len(),
        networks_v4 = v4,
        networks_v6 = v6,
        measurements = world.estimator.counts().rows,
        ms = begun.elapsed().as_millis() as u64,
        "ready"
    );
}

/// A panic on a thread that answers queries must not leave the server half alive: its message is printed, and the process ends.
fn end_on_data_plane_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        print(info);
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        tracing::error!(thread = name, "panicked: {info}");
        if transport::is_data_plane(name) {
            std::process::exit(101);
        }
    }));
}

/// What the control plane has.
struct Parts {
    live: Arc<Live>,
    prober: Prober,
    serving: Serving,
    keeper: Option<Keeper>,
    admin: Option<TcpListener>,
    doors: Option<Doors>,
    spares: Vec<Spare>,
    rebuilder: Rebuilder,
    manager: Manager,
    signals: Signals,
    /// Publishes what changes in health.
    follower: JoinHandle<()>,
    /// It has taken over from another process.
    is_successor: bool,
}

/// The control plane: follows health, signals and files until told to stop, or until another process serves.
async fn control(parts: Parts, ready: &Ready) -> Result<(), ServeError> {
    let Parts {
        live,
        prober,
        serving,
        mut keeper,
        admin,
        doors,
        spares,
        mut rebuilder,
        mut manager,
        signals,
        follower,
        is_successor,
    } = parts;
    free(()); // compiling needed much more than what is left of it
    let (stop, stopping) = channel::channel(false);
    let Signals { mut terminate, mut interrupt, mut hang_up } = signals;
    let signer = tokio::spawn(supervise(live.clone(), "sign", keep_signed));
    let keeping = tokio::spawn(supervise(live.clone(), "remember", verdicts::keep));
    let learner = tokio::spawn(supervise(live.clone(), "learn", learning::keep));
    let sharing = tokio::spawn(supervise(live.clone(), "cluster", shared::share));
    let heard_keeper = tokio::spawn(supervise(live.clone(), "heard", heard::keep));
    let announcer = tokio::spawn(announce_first_round(live.clone()));
    let (reloads, mut asked_reloads) = mpsc::channel::<ReloadRequest>(1);
    let admin = admin.map(|listener| {
        let listen = ready.listen.iter().map(ToString::to_string).collect();
        let is_loopback = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
        let running = Arc::new(Running { live: live.clone(), listen, is_loopback, reloads });
        tokio::spawn(admin::http::serve(listener, running, stopping))
    });
    let mut files = live.world().files.clone();
    let mut giver = doors.map(|mut doors| {
        doors.clear_superseded();
        Giver::start(doors, spares, &live)
    });
    let mut successor = None;
    if is_successor {
        let live = live.clone();
        tokio::task::spawn_blocking(move || {
            write_state(&live);
            live.keep_overrides().ok() // an error is logged
        });
    }
    let mut query_log = LogKeeper::new(live.query_log.clone());
    query_log.take_up(&live.world());
    let mut tick = tokio::time::interval(HOUSEKEEPING_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    manager.ready(&live.summary());
    'serving: loop {
        let mut asker = None;
        let due = tokio::select! {
            () = received(&mut terminate) => break,
            () = received(&mut interrupt) => break,
            next = successor_of(&mut giver) => {
                successor = Some(next);
                break;
            }
            () = received(&mut hang_up) => {
                query_log.reopen(); // whatever comes of the reload: that is how files are rotated
                Some("SIGHUP".to_string())
            }
            Some(request) = asked_reloads.recv() => {
                asker = Some(request.done);
                Some(format!("asked by {}", request.by))
            }
            _ = tick.tick() => {
                keep_house(&live, &mut manager, &mut query_log, &mut keeper);
                let changed = files.settled_change().map(|changed| format!("{} was replaced", changed.display()));
                if changed.is_none() && !files.is_unsettled() {
                    rebuilder.begin_if_due(&live);
                }
                changed
            }
            () = rebuilder.done(&live) => None,
            () = manager.is_due() => {
                manager.tell_alive(&serving);
                None
            }
        };
        let Some(why) = due else { continue };
        manager.reloading();
        // It may take long on a busy machine: a word to stop is heard meanwhile, and what is due every second is done.
        let reloaded = {
            let reloading = reload(&live, &prober, &serving, &why);
            tokio::pin!(reloading);
            loop {
                tokio::select! {
                    () = received(&mut terminate) => break 'serving,
                    () = received(&mut interrupt) => break 'serving,
                    next = successor_of(&mut giver) => {
                        successor = Some(next);
                        break 'serving;
                    }
                    _ = tick.tick() => keep_house(&live, &mut manager, &mut query_log, &mut keeper),
                    () = manager.goes_on(&serving) => {}
                    reloaded = &mut reloading => break reloaded,
                }
            }
        };
        if reloaded.is_ok() {
            files = live.world().files.clone();
            query_log.take_up(&live.world());
            if let Some(keeper) = &mut keeper {
                keeper.take_up(&live.world().config);
            }
        }
        manager.ready(&live.summary());
        if let Some(asker) = asker {
            let _nobody_waits_any_more = asker.send(reloaded);
        }
    }
    match &successor {
        Some(successor) => manager.main_process(successor.process),
        None => manager.stopping(),
    }
    stop.send_replace(true);
    heard_keeper.abort();
    sharing.abort();
    let _ended = sharing.await; // who serves now may have this server's name in the cluster
    if let Some(giver) = giver {
        giver.close(successor.as_ref()).await;
    }
    let is_relieved = successor.is_some();
    let stopped = tokio::task::spawn_blocking(move || end_serving(serving, successor)).await;
    follower.abort();
    signer.abort();
    keeping.abort();
    learner.abort();
    announcer.abort();
    prober.stop().await;
    let write = move || {
        query_log.stop();
        if !is_relieved {
            write_state(&live);
        }
    };
    let _written_or_said = tokio::task::spawn_blocking(write).await;
    if let Some(admin) = admin {
        let _ended_or_cut = tokio::time::timeout(Duration::from_millis(500), admin).await;
    }
    match stopped {
        Ok(result) => Ok(result?),
        Err(error) => Err(ServeError::System(io::Error::other(error))),
    }
}

/// All that is not written at once, now. Waits for the disk.
fn write_state(live: &Live) {
    verdicts::write(live);
    learning::write(live);
    heard::write_last(live);
}

/// What is due every second.
fn keep_house(live: &Arc<Live>, manager: &mut Manager, query_log: &mut LogKeeper, keeper: &mut Option<Keeper>) {
    let let_go = live.housekeep();
    if !let_go.is_empty() {
        free(let_go);
    }
    manager.status(&live.summary());
    query_log.look(live);
    if live.end_overrides(world::unix_s(SystemTime::now())) {
        let live = live.clone();
        // An error is logged, and those that have ended are not taken up again in any case.
        tokio::task::spawn_blocking(move || live.keep_overrides().ok());
    }
    if let Some(keeper) = keeper {
        keeper.follow(live);
    }
    live.rises.look(live);
}

async fn announce_first_round(live: Arc<Live>) {
    live.board.first_round().await;
    let statuses = live.board.snapshot().statuses;
    let up = statuses.iter().filter(|status| status.is_up()).count();
    tracing::info!(targets = statuses.len(), up, "first round of probes done");
}

/// Signs zones anew in good time, and when the clock was set. Looks every second: a look compares a few numbers.
async fn keep_signed(live: Arc<Live>) {
    let mut tick = tokio::time::interval(HOUSEKEEPING_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let now_s = world::unix_s(SystemTime::now());
        if live.is_signing_due(now_s) {
            let signing = live.clone();
            let signed = tokio::task::spawn_blocking(move || at_leisure(|| signing.sign_anew(now_s))).await;
            match signed.map_err(tokio::task::JoinError::try_into_panic) {
                Ok(Some(signed)) => {
                    if live.take_up_signatures(signed) {
                        tracing::info!("signed zones anew");
                    }
                }
                Err(Ok(panic)) => std::panic::resume_unwind(panic),
                Ok(None) | Err(Err(_)) => {} // done by a reload, tried again soon, or the program is ending
            }
        }
    }
}

/// Runs a control-plane task and starts it again when it panics, with growing pauses; what is published stays.
async fn supervise<F>(live: Arc<Live>, task: &'static str, body: impl Fn(Arc<Live>) -> F + Send)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut pause = Duration::from_millis(100);
    let mut running = JoinSet::new(); // whoever ends this task ends the one inside it
    loop {
        running.spawn(body(live.clone()));
        if !matches!(running.join_next().await, Some(Err(error)) if error.is_panic()) {
            return;
        }
        live.count_panic(task);
        tracing::error!(task, "a control-plane task panicked; starting it again in {pause:?}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(60));
    }
}
