//! The one place that wires the rooms together and owns start, reload and stop.

mod answerer;
pub mod confine;
mod control;
pub mod endpoints;
mod error;
pub mod estimates;
mod eyes;
mod heard;
pub mod identity;
pub mod learning;
pub mod live;
pub mod measured;
pub mod moves;
mod open_files;
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
mod tasks;
mod traffic;
pub mod verdicts;
pub mod watch;
pub mod world;

use std::{io, net::SocketAddr, os::fd::OwnedFd, path::PathBuf, sync::Arc, time::Instant};

use tokio::runtime::{Builder, Runtime};

use self::{
    confine::{confine, make_state_dir},
    control::Parts,
    live::Live,
    open_files::OpenFiles,
    rebuild::Rebuilder,
    reload::tell_of_secrets,
    service::Manager,
    serving::start_serving,
    signals::Signals,
    state::StateDir,
    takeover::Doors,
    tasks::Tasks,
};
pub use self::{error::ServeError, world::World};
use crate::{
    config::{Problem, model::Config},
    health::{Board, NetProbe, Prober, install_crypto_provider, probe::tls::TrustedRoots},
    sys::{descriptors::given_at_start, memory::map_large_blocks, names::addresses_of, priority::allow_calling_back},
    transport,
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

/// Serves a configuration file until SIGTERM or SIGINT, or until another process takes over. To be called before other threads are
/// started.
///
/// # Errors
/// Why it did not start.
pub fn serve(options: Options) -> Result<(), ServeError> {
    let begun = Instant::now();
    map_large_blocks();
    allow_calling_back();
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
    let open_files = OpenFiles::of(server);
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
    let prober = Prober::start(world.targets(), board.clone(), probe, open_files.probes_max(), runtime.handle());
    let live = Live::new(world.clone(), board, state);
    live.confinement.get_or_init(|| confined.unwrap_or_default());
    let certificate = world.config.server.encrypted.as_ref().map(identity::Keeper::new);
    let is_successor = taken.is_some();
    // Before another process is relieved: from then on this one must not end by a signal that means a reload, nor go by old health.
    let signals = Signals::new()?;
    let tasks = Tasks::publishing(&live);
    let (admin, spares) = (sockets.admin.take(), std::mem::take(&mut sockets.spares));
    let serving = start_serving(sockets, &live, certificate.as_ref(), taken)?;
    tell_ready(&world, &ready, begun);
    open_files.tell_if_short(world.targets());
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
        certificate,
        listen: ready.listen,
        admin,
        doors,
        spares,
        rebuilder,
        manager,
        signals,
        tasks,
        is_successor,
    };
    let ended = runtime.block_on(control::run(parts));
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
