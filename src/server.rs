//! The one place that wires the rooms together and owns start, reload and stop.

pub mod endpoints;
pub mod estimates;
mod eyes;
mod files;
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
mod shared;
pub mod state;
mod traffic;
pub mod verdicts;
pub mod watch;
pub mod world;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch as channel},
};

pub use self::world::World;
use self::{
    files::Files,
    identity::Keeper,
    live::Answerer,
    live::Live,
    operations::{ReloadRequest, Running},
    parallel::at_leisure,
    query_log::Keeper as LogKeeper,
    rebuild::Rebuilder,
    state::StateDir,
    world::Past,
};
use crate::{
    admin,
    config::{
        AdminToken, Problem, Report,
        cookie_secrets::is_open_to_others,
        model::{Config, Encrypted, Server},
    },
    health::{Board, NetProbe, Prober, install_crypto_provider},
    sys::memory::give_back,
    transport::{self, BindError, Bound, BoundEncrypted, Serving, Worker},
};

/// What to serve.
#[derive(Debug, Clone)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
}

/// Why the server did not start, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration cannot be used; nothing was started.
    #[error("{0}")]
    Config(Report),
    /// An address cannot be listened on; nothing was started.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Bind(Vec<BindError>),
    /// The admin interface's address cannot be listened on.
    #[error(
        "cannot listen on {address} for the admin interface: {reason}; change `listen` in [admin], or end what uses the port"
    )]
    BindAdmin {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        reason: io::Error,
    },
    /// The system refused threads, timers or signals.
    #[error("cannot start: {0}; check the limits on processes and open files (ulimit -u, ulimit -n)")]
    System(#[from] io::Error),
    /// A data-plane thread panicked.
    #[error(transparent)]
    Panicked(#[from] transport::Panicked),
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

/// Serves a configuration file until SIGTERM or SIGINT.
///
/// # Errors
/// Why it did not start.
pub fn serve(options: Options) -> Result<(), ServeError> {
    let begun = Instant::now();
    let world = World::load(&options.config).map_err(ServeError::Config)?;
    run(world, begun, |_| {})
}

/// Serves a configuration that was read from `path`, and calls `on_ready` once it answers.
///
/// # Errors
/// Why it did not start.
pub fn serve_config(config: Config, path: PathBuf, on_ready: impl FnOnce(&Ready)) -> Result<(), ServeError> {
    let begun = Instant::now();
    let world = World::compile(config, &path).map_err(ServeError::Config)?;
    run(world, begun, on_ready)
}

fn run(world: World, begun: Instant, on_ready: impl FnOnce(&Ready)) -> Result<(), ServeError> {
    install_crypto_provider();
    end_on_data_plane_panic();
    let files = Files::of(&world.config.server);
    let state = StateDir::open(world.config.server.state_dir.as_deref())
        .map_err(|error| ServeError::Config(Problem::new(error.to_string()).into()))?;
    let (bound, encrypted) = bind(&world.config.server)?;
    let admin_listener = world.config.admin.listen.map(bind_admin).transpose()?;
    let ready = Ready {
        listen: bound.addresses().to_vec(),
        encrypted: encrypted.addresses(),
        admin: admin_listener.as_ref().and_then(|listener| listener.local_addr().ok()),
    };
    let runtime = control_runtime()?;
    let inside = runtime.enter(); // signals and probes belong to this runtime
    let world = Arc::new(world);
    let limits = world.config.server.limits;
    let board = Arc::new(Board::default());
    verdicts::recall(&state, &board);
    let probe = Arc::new(NetProbe::default());
    let prober = Prober::start(world.targets(), board.clone(), probe, files.probes_max(), runtime.handle());
    let live = Live::new(world.clone(), board, state);
    let keeper = world.config.server.encrypted.as_ref().map(Keeper::new);
    let make_worker = || {
        let counters = live.registry.register();
        Worker { respond: Answerer::new(&live, counters.clone()), counters }
    };
    let mut serving = transport::start(bound, &limits, make_worker)?;
    if let Some(keeper) = &keeper {
        serving.start_encrypted(encrypted, &keeper.current, make_worker)?;
    }
    tell_ready(&world, &ready, begun);
    files.tell_if_short(world.targets());
    tell_of_secrets(&world);
    on_ready(&ready);
    drop(inside);
    let ended = runtime.block_on(control(live, prober, serving, keeper, admin_listener, &ready));
    runtime.shutdown_background(); // a name look-up or a reload under way must not hold up the end
    ended
}

/// Opens every socket that queries come to.
fn bind(server: &Server) -> Result<(Bound, BoundEncrypted), ServeError> {
    let encrypted = server.encrypted.as_ref().map_or(Ok(BoundEncrypted::default()), transport::bind_encrypted);
    match (transport::bind(&server.listen, server.threads), encrypted) {
        (Ok(bound), Ok(encrypted)) => Ok((bound, encrypted)),
        (plain, encrypted) => {
            let mut errors = plain.err().unwrap_or_default();
            errors.extend(encrypted.err().unwrap_or_default());
            Err(ServeError::Bind(errors))
        }
    }
}

fn control_runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(2).thread_name("control").enable_all().build()
}

fn bind_admin(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let listener = TcpListener::bind(address).map_err(|reason| ServeError::BindAdmin { address, reason })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
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

/// The control plane: follows health, signals and files until told to stop.
async fn control(
    live: Arc<Live>,
    prober: Prober,
    serving: Serving,
    mut keeper: Option<Keeper>,
    admin_listener: Option<TcpListener>,
    ready: &Ready,
) -> Result<(), ServeError> {
    free(()); // compiling needed much more than what is left of it
    let (stop, stopping) = channel::channel(false);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hang_up = signal(SignalKind::hangup())?;
    let follower = tokio::spawn(supervise(live.clone(), "publish", |live| async move { live.follow_health().await }));
    let signer = tokio::spawn(supervise(live.clone(), "sign", keep_signed));
    let keeping = tokio::spawn(supervise(live.clone(), "remember", verdicts::keep));
    let learner = tokio::spawn(supervise(live.clone(), "learn", learning::keep));
    let sharing = tokio::spawn(supervise(live.clone(), "cluster", shared::share));
    let announcer = tokio::spawn(announce_first_round(live.clone()));
    let (reloads, mut asked_reloads) = mpsc::channel::<ReloadRequest>(1);
    let admin = admin_listener.map(|listener| {
        let listen = ready.listen.iter().map(ToString::to_string).collect();
        let is_loopback = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
        let running = Arc::new(Running { live: live.clone(), listen, is_loopback, reloads });
        tokio::spawn(admin::http::serve(listener, running, stopping))
    });
    let mut files = live.world().files.clone();
    let mut rebuilder = Rebuilder::default();
    let mut query_log = LogKeeper::new(live.query_log.clone());
    query_log.take_up(&live.world());
    let mut tick = tokio::time::interval(HOUSEKEEPING_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let mut asker = None;
        let due = tokio::select! {
            () = received(&mut terminate) => break,
            () = received(&mut interrupt) => break,
            () = received(&mut hang_up) => {
                query_log.reopen(); // whatever comes of the reload: that is how files are rotated
                Some("SIGHUP".to_string())
            }
            Some(request) = asked_reloads.recv() => {
                asker = Some(request.done);
                Some(format!("asked by {}", request.by))
            }
            _ = tick.tick() => {
                let let_go = live.housekeep();
                if !let_go.is_empty() {
                    free(let_go);
                }
                query_log.look(&live);
                if live.end_overrides(world::unix_s(SystemTime::now())) {
                    let live = live.clone();
                    // An error is logged, and those that have ended are not taken up again in any case.
                    tokio::task::spawn_blocking(move || live.keep_overrides().ok());
                }
                if let Some(keeper) = &mut keeper {
                    keeper.follow(&live);
                }
                let changed = files.settled_change().map(|changed| format!("{} was replaced", changed.display()));
                if changed.is_none() && !files.is_unsettled() {
                    rebuilder.begin_if_due(&live);
                }
                changed
            }
            () = rebuilder.done(&live) => None,
        };
        let Some(why) = due else { continue };
        // A word to stop is heard while a reload is under way, too.
        tokio::select! {
            () = received(&mut terminate) => break,
            () = received(&mut interrupt) => break,
            reloaded = reload(&live, &prober, &serving, &why) => {
                if reloaded.is_ok() {
                    files = live.world().files.clone();
                    query_log.take_up(&live.world());
                    if let Some(keeper) = &mut keeper {
                        keeper.take_up(&live.world().config);
                    }
                }
                if let Some(asker) = asker {
                    let _nobody_waits_any_more = asker.send(reloaded);
                }
            }
        }
    }
    tracing::info!("stopping: answering what is in flight");
    stop.send_replace(true);
    let stopped = tokio::task::spawn_blocking(move || serving.stop()).await;
    follower.abort();
    signer.abort();
    keeping.abort();
    learner.abort();
    sharing.abort();
    announcer.abort();
    prober.stop().await;
    let write = move || {
        query_log.stop();
        verdicts::write(&live);
        learning::write(&live);
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

async fn received(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending::<()>().await; // the runtime is going: never a reason to act
    }
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
    while let Err(error) = tokio::spawn(body(live.clone())).await {
        if !error.is_panic() {
            return;
        }
        live.count_panic(task);
        tracing::error!(task, "a control-plane task panicked; starting it again in {pause:?}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(60));
    }
}

/// Reads the configuration again; says what is served then. An error keeps what is running, and is told in full.
async fn reload(live: &Arc<Live>, prober: &Prober, serving: &Serving, why: &str) -> Result<String, String> {
    tracing::info!("reloading: {why}");
    let before = live.world();
    let running = before.clone();
    let live_then = live.clone();
    let load = move || {
        let config = crate::config::load(&running.path)?;
        let past = Past { before: Some(&running), learnt: eyes::rows(&live_then, &config) };
        let world = World::compile_after(config, &running.path, past)?;
        Ok::<_, Report>(live_then.make_ready(world))
    };
    let loaded = tokio::task::spawn_blocking(|| at_leisure(load)).await;
    match loaded {
        Ok(Ok(ready)) => {
            let world = ready.world();
            tell_what_needs_a_restart(&before.config, &world.config);
            tell_of_secrets(&world);
            serving.set_limits(&world.config.server.limits);
            live.take_up(ready, prober);
            free(before);
            world.log_warnings();
            Files::of(&world.config.server).tell_if_short(world.targets());
            tracing::info!("reloaded: {}", world.summary());
            Ok(world.summary())
        }
        Ok(Err(report)) => {
            tracing::error!("reload refused, the running configuration stays:\n{report}");
            live.reload_failed(report.summary());
            Err(report.to_string())
        }
        Err(error) => {
            live.count_panic("reload");
            let why = format!("the reload panicked: {error}");
            live.reload_failed(why.clone());
            Err(why)
        }
    }
}

/// Frees what may be large where that delays nobody, and gives the memory back to the system.
fn free<T: Send + 'static>(done_with: T) {
    let work = || {
        drop(done_with);
        give_back();
    };
    tokio::task::spawn_blocking(|| at_leisure(work));
}

/// Who knows the cookie secrets can make valid cookies for every address; who knows a signing key can sign anything in its zone; who
/// knows the token can take regions down.
fn tell_of_secrets(world: &World) {
    let config = &world.config;
    let keys = config.zones.iter().flat_map(|zone| &zone.dnssec_keys).map(|key| ("signing key", &key.path));
    let cookies = config.server.cookie_secret_file.iter().map(|file| ("file of cookie secrets", file));
    let cluster = config.cluster.iter().flat_map(|cluster| &cluster.credentials);
    let cluster = cluster.map(|file| ("file of NATS credentials", file));
    let token = config.admin.token_file.iter().map(|file| ("token of the admin interface", file));
    for (what, file) in cookies.chain(token).chain(cluster).chain(keys).filter(|(_, file)| is_open_to_others(file)) {
        let file = file.display();
        tracing::warn!("every user of this host can read or change the {what}; run: chmod o= {file}");
    }
    match (&world.admin_token, config.admin.listen.filter(|address| !address.ip().is_loopback())) {
        (Some(token), Some(_)) if token.is_short() => {
            tracing::warn!(
                "the token of the admin interface is short enough to be guessed; {}",
                AdminToken::HOW_TO_MAKE
            );
        }
        (None, Some(address)) => tracing::warn!(
            "the admin interface on {address} refuses changes (drain, force, reload): set `token-file` in [admin]"
        ),
        _ => {}
    }
}

fn tell_what_needs_a_restart(before: &Config, after: &Config) {
    type List = fn(&Encrypted) -> &Vec<SocketAddr>;
    let addresses =
        |config: &Config, list: List| config.server.encrypted.as_ref().map(list).cloned().unwrap_or_default();
    let changed = |list: List| addresses(before, list) != addresses(after, list);
    let changes = [
        ("server.listen", before.server.listen != after.server.listen),
        ("server.encrypted.dot", changed(|encrypted| &encrypted.dot)),
        ("server.encrypted.doq", changed(|encrypted| &encrypted.doq)),
        ("server.encrypted.doh", changed(|encrypted| &encrypted.doh)),
        ("server.state-dir", before.server.state_dir != after.server.state_dir),
        ("server.threads", before.server.threads != after.server.threads),
        ("admin.listen", before.admin.listen != after.admin.listen),
    ];
    for (key, _) in changes.iter().filter(|(_, changed)| *changed) {
        tracing::warn!("`{key}` has changed; it takes effect at the next start");
    }
}
