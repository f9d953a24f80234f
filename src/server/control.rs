//! The control plane's loop. [`ControlLoop::begin`] starts what runs beside it, [`ControlLoop::serve`] takes one event after the other,
//! [`ControlLoop::end`] stops everything in the order that loses no query and no state.
//!
//! What takes long (compiling, looking names up, writing to the disk) has threads of its own, so that a word to stop is always heard.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{mpsc, watch as channel},
    task::JoinHandle,
    time::{Interval, MissedTickBehavior, interval, timeout},
};

use super::{
    ServeError, heard, identity, learning,
    live::Live,
    operations::{ReloadRequest, Running},
    parallel::free,
    query_log,
    rebuild::Rebuilder,
    reload::reload,
    service::Manager,
    serving::end_serving,
    signals::{Signals, received},
    takeover::{Doors, Giver, Successor},
    tasks::Tasks,
    verdicts,
    watch::Files,
    world::{World, unix_s},
};
use crate::{
    admin,
    health::Prober,
    transport::{Serving, Spare},
};

/// How often files are looked at and old snapshots let go.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);
/// How long the end of the program waits for answers of the admin interface.
const ADMIN_ENDS_WITHIN: Duration = Duration::from_millis(500);

/// What the start has made for the control plane.
pub struct Parts {
    /// What the threads share.
    pub live: Arc<Live>,
    /// Probes the targets.
    pub prober: Prober,
    /// The threads that answer.
    pub serving: Serving,
    /// Follows the certificate of the encrypted transports.
    pub certificate: Option<identity::Keeper>,
    /// DNS over UDP and TCP, as it can be reached.
    pub listen: Vec<SocketAddr>,
    /// The socket of the admin interface.
    pub admin: Option<TcpListener>,
    /// Where another process may ask to take over.
    pub doors: Option<Doors>,
    /// What it is given then.
    pub spares: Vec<Spare>,
    /// Takes what was learnt up into the maps.
    pub rebuilder: Rebuilder,
    /// The service manager.
    pub manager: Manager,
    /// Signals to the process.
    pub signals: Signals,
    /// What runs beside the loop, as far as it runs already.
    pub tasks: Tasks,
    /// It has taken over from another process.
    pub is_successor: bool,
}

/// Follows health, signals and files until told to stop, or until another process serves.
///
/// # Errors
/// A thread that answers queries panicked at the end.
pub async fn run(parts: Parts) -> Result<(), ServeError> {
    free(()); // compiling needed much more than what is left of it
    let mut control = ControlLoop::begin(parts);
    let end = control.serve().await;
    control.end(end).await
}

/// What runs, and what is waited for.
struct ControlLoop {
    live: Arc<Live>,
    prober: Prober,
    serving: Serving,
    tasks: Tasks,
    admin: Admin,
    /// The files that the world was made of.
    files: Files,
    rebuilder: Rebuilder,
    upkeep: Upkeep,
    manager: Manager,
    tick: Interval,
    ends: Ends,
    /// Those of SIGHUP.
    reloads_by_signal: tokio::signal::unix::Signal,
    /// Those of the admin interface.
    reloads_by_request: mpsc::Receiver<ReloadRequest>,
}

/// What the loop waits for.
enum Event {
    /// The server is to end.
    End(End),
    /// SIGHUP.
    HangUp,
    /// The admin interface wants a reload.
    ReloadAsked(ReloadRequest),
    /// Another second has passed.
    Tick,
    /// Maps that were being made are done and published, or have failed.
    MapsMade,
    /// The service manager wants to know whether the server is alive.
    SignOfLife,
}

/// The server is to end.
struct End {
    /// The process that serves now, if one does.
    successor: Option<Successor>,
}

impl ControlLoop {
    /// Starts all that runs beside the loop, and says that the server is ready.
    fn begin(parts: Parts) -> ControlLoop {
        let Parts { live, mut tasks, is_successor, .. } = parts;
        tasks.begin(&live);
        let (ask, reloads_by_request) = mpsc::channel(1);
        let admin = Admin::begin(parts.admin, &live, &parts.listen, ask);
        let files = live.world().files.clone();
        let giver = parts.doors.map(|mut doors| {
            doors.clear_superseded();
            Giver::start(doors, parts.spares, &live)
        });
        if is_successor {
            let live = live.clone();
            tokio::task::spawn_blocking(move || {
                write_state(&live);
                live.keep_overrides().ok() // an error is logged
            });
        }
        let upkeep = Upkeep::begin(&live, parts.certificate);
        let mut tick = interval(HOUSEKEEPING_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut manager = parts.manager;
        manager.ready(&live.summary());
        let Signals { terminate, interrupt, hang_up } = parts.signals;
        ControlLoop {
            live,
            prober: parts.prober,
            serving: parts.serving,
            tasks,
            admin,
            files,
            rebuilder: parts.rebuilder,
            upkeep,
            manager,
            tick,
            ends: Ends { terminate, interrupt, giver },
            reloads_by_signal: hang_up,
            reloads_by_request,
        }
    }

    /// Takes one event after the other, until one says that the server is to end.
    async fn serve(&mut self) -> End {
        loop {
            let event = self.next_event().await;
            if let ControlFlow::Break(end) = self.take(event).await {
                return end;
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        tokio::select! {
            end = self.ends.next() => Event::End(end),
            () = received(&mut self.reloads_by_signal) => Event::HangUp,
            Some(request) = self.reloads_by_request.recv() => Event::ReloadAsked(request),
            _ = self.tick.tick() => Event::Tick,
            () = self.rebuilder.done(&self.live) => Event::MapsMade,
            () = self.manager.is_due() => Event::SignOfLife,
        }
    }

    async fn take(&mut self, event: Event) -> ControlFlow<End> {
        match event {
            Event::End(end) => return ControlFlow::Break(end),
            Event::HangUp => {
                self.upkeep.query_log.reopen(); // whatever comes of the reload: that is how files are rotated
                self.reload("SIGHUP").await?.ok(); // an error is logged
            }
            Event::ReloadAsked(ReloadRequest { by, done }) => {
                let reloaded = self.reload(&format!("asked by {by}")).await?;
                let _nobody_waits_any_more = done.send(reloaded);
            }
            Event::Tick => {
                self.upkeep.turn(&self.live, &mut self.manager);
                self.follow_files().await?;
            }
            Event::MapsMade => {}
            Event::SignOfLife => self.manager.tell_alive(&self.serving),
        }
        ControlFlow::Continue(())
    }

    /// Reloads when a file was replaced; takes up what was learnt when all files stand still.
    async fn follow_files(&mut self) -> ControlFlow<End> {
        if let Some(file) = self.files.settled_change() {
            self.reload(&format!("{} was replaced", file.display())).await?.ok(); // an error is logged
        } else if !self.files.is_unsettled() {
            self.rebuilder.begin_if_due(&self.live);
        }
        ControlFlow::Continue(())
    }

    /// Reads the configuration again and goes by it from then on; one that is refused changes nothing. Says what is served now, or all
    /// that is wrong.
    async fn reload(&mut self, why: &str) -> ControlFlow<End, Result<String, String>> {
        self.manager.reloading();
        let reloaded = self.reload_unless_ended(why).await?;
        if reloaded.is_ok() {
            let world = self.live.world();
            self.files = world.files.clone();
            self.upkeep.take_up(&world);
        }
        self.manager.ready(&self.live.summary());
        ControlFlow::Continue(reloaded)
    }

    /// A reload may take long on a busy machine: a word to stop is heard meanwhile, and what is due every second is done.
    async fn reload_unless_ended(&mut self, why: &str) -> ControlFlow<End, Result<String, String>> {
        let reloading = reload(&self.live, &self.prober, &self.serving, why);
        tokio::pin!(reloading);
        loop {
            tokio::select! {
                end = self.ends.next() => return ControlFlow::Break(end),
                _ = self.tick.tick() => self.upkeep.turn(&self.live, &mut self.manager),
                () = self.manager.goes_on(&self.serving) => {}
                reloaded = &mut reloading => return ControlFlow::Continue(reloaded),
            }
        }
    }

    /// First others hear that this server goes, then what has come is answered, then the rest stops; last, unless another process goes on
    /// with what this one knows, all is written down that is not yet.
    async fn end(self, End { successor }: End) -> Result<(), ServeError> {
        let ControlLoop { live, prober, serving, mut tasks, admin, upkeep, manager, ends, .. } = self;
        match &successor {
            Some(successor) => manager.main_process(successor.process),
            None => manager.stopping(),
        }
        admin.stop.send_replace(true);
        tasks.leave_cluster().await;
        if let Some(giver) = ends.giver {
            giver.close(successor.as_ref()).await;
        }
        let is_relieved = successor.is_some();
        let ended = tokio::task::spawn_blocking(move || end_serving(serving, successor)).await;
        tasks.end();
        prober.stop().await;
        let write = move || {
            upkeep.query_log.stop();
            if !is_relieved {
                write_state(&live);
            }
        };
        let _written_or_said = tokio::task::spawn_blocking(write).await;
        admin.ended().await;
        ended.map_err(|panic| ServeError::System(io::Error::other(panic)))?.map_err(ServeError::from)
    }
}

/// All that is not written at once, now. Waits for the disk.
fn write_state(live: &Live) {
    verdicts::write(live);
    learning::write(live);
    heard::write_last(live);
}

/// What ends the server.
struct Ends {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    /// Waits for another process that takes over; `None`: none can.
    giver: Option<Giver>,
}

impl Ends {
    /// Waits for one of them. To be dropped at any time.
    async fn next(&mut self) -> End {
        let taken_over = async {
            match &mut self.giver {
                Some(giver) => giver.successor().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = received(&mut self.terminate) => End { successor: None },
            () = received(&mut self.interrupt) => End { successor: None },
            successor = taken_over => End { successor: Some(successor) },
        }
    }
}

/// The admin interface, where there is one.
struct Admin {
    stop: channel::Sender<bool>,
    serving: Option<JoinHandle<()>>,
}

impl Admin {
    fn begin(
        listener: Option<TcpListener>,
        live: &Arc<Live>,
        listen: &[SocketAddr],
        reloads: mpsc::Sender<ReloadRequest>,
    ) -> Admin {
        let (stop, stopping) = channel::channel(false);
        let serving = listener.map(|listener| {
            let listen = listen.iter().map(ToString::to_string).collect();
            let is_loopback = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
            let running = Arc::new(Running { live: live.clone(), listen, is_loopback, reloads });
            tokio::spawn(admin::http::serve(listener, running, stopping))
        });
        Admin { stop, serving }
    }

    /// Waits, not for long, until who asked before it was told to stop has an answer.
    async fn ended(self) {
        if let Some(serving) = self.serving {
            let _ended_or_cut = timeout(ADMIN_ENDS_WITHIN, serving).await;
        }
    }
}

/// What is looked after every second.
struct Upkeep {
    query_log: query_log::Keeper,
    certificate: Option<identity::Keeper>,
}

impl Upkeep {
    /// Begins to write the query log, where one is wanted.
    fn begin(live: &Live, certificate: Option<identity::Keeper>) -> Upkeep {
        let mut query_log = query_log::Keeper::new(live.query_log.clone());
        query_log.take_up(&live.world());
        Upkeep { query_log, certificate }
    }

    /// Goes by a new configuration.
    fn take_up(&mut self, world: &World) {
        self.query_log.take_up(world);
        if let Some(certificate) = &mut self.certificate {
            certificate.take_up(&world.config);
        }
    }

    /// What is due every second.
    fn turn(&mut self, live: &Arc<Live>, manager: &mut Manager) {
        let let_go = live.housekeep();
        if !let_go.is_empty() {
            free(let_go);
        }
        manager.status(&live.summary());
        self.query_log.look(live);
        if live.end_overrides(unix_s(SystemTime::now())) {
            let live = live.clone();
            // An error is logged, and those that have ended are not taken up again in any case.
            tokio::task::spawn_blocking(move || live.keep_overrides().ok());
        }
        if let Some(certificate) = &mut self.certificate {
            certificate.follow(live);
        }
        live.rises.look(live);
    }
}
