//! When each target is probed: spread over its interval, at once in doubt, never all together, never more than a bound of
//! them starting at a time. Runs on the monotonic clock; a clock that is set changes nothing. Knows nothing of what a probe does.

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use siphasher::sip::SipHasher13;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
    task::{self, AbortHandle, JoinError, JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

use super::{
    board::Board,
    probe::{Phase, Probe, ProbeError, ProbeResult},
    push,
    target::{Target, TargetKey, Targets},
    verdict::Pace,
};

/// Most probes that are starting at a time. A start costs processor time (a TLS handshake about a millisecond) and a socket, so
/// the first round of thousands of targets must not come as one burst that starves everything else, the probes' own clocks
/// included; 512 are enough for 10,000 targets at a 300 ms round trip to have their first result within six seconds.
pub const STARTING_MAX: usize = 512;
/// After so long a probe no longer counts as starting: its first packet is sent, and it only waits, which costs a socket and nothing
/// else. Without this, thousands of black holes would hold every place for their timeouts, and delay the probes of all that is alive.
const STARTING_LASTS_MAX: Duration = Duration::from_millis(50);
/// The same for a probe by TLS whose target is not known to be silent: most of its work is in the handshake, one round trip later.
const STARTING_TLS_LASTS_MAX: Duration = Duration::from_millis(500);
/// A probe that begins, or fails, later than this after its time shows that the process stood still: stopped, suspended, or starved.
/// Its failure then says nothing about the target: whoever is kept waiting may well hang up.
const STALL_MIN: Duration = Duration::from_secs(1);
/// Shortest time between two warnings that probes tell nothing: what causes it strikes all targets at once.
const WARNING_EVERY: Duration = Duration::from_secs(10);
/// How often hold-downs that are over are looked for.
const WAKE_EVERY: Duration = Duration::from_secs(1);
/// First pause before a task that panicked is started again; doubled from panic to panic.
const BACK_OFF_MIN: Duration = Duration::from_secs(1);
/// Longest such pause.
const BACK_OFF_MAX: Duration = Duration::from_secs(60);

/// Probes all targets for as long as it lives. Dropping it ends the probing; [`Prober::stop`] also waits for the end.
#[derive(Debug)]
pub struct Prober {
    board: Arc<Board>,
    /// `None` once stopping.
    lists: Option<watch::Sender<Targets>>,
    supervisor: JoinHandle<()>,
}

impl Prober {
    /// Puts `targets` on the board and begins to probe them on `runtime`, all at once as far as the bounds allow: at most
    /// [`STARTING_MAX`] begin at a time, and at most `open_max` (from 1 up) are under way, which is what files there are for.
    pub fn start(
        targets: &Targets,
        board: Arc<Board>,
        probe: Arc<dyn Probe>,
        open_max: usize,
        runtime: &Handle,
    ) -> Prober {
        let (lists, incoming) = watch::channel(Targets::default());
        let shared = Arc::new(Shared {
            board: board.clone(),
            probe,
            places: Places::new(open_max),
            begun: Instant::now(),
            warned: Mutex::new(None),
        });
        let (of_board, until) = (board.clone(), incoming.clone());
        let body = move || supervise(shared.clone(), incoming.clone());
        let supervisor = runtime.spawn(start_again(of_board, until, body));
        let prober = Prober { board, lists: Some(lists), supervisor };
        prober.replace(targets);
        prober
    }

    /// Replaces the list of targets and returns its epoch on the board, which follows at once. Targets that stay keep verdict
    /// and schedule.
    pub fn replace(&self, targets: &Targets) -> u64 {
        let epoch = self.board.adopt(targets, SystemTime::now());
        if let Some(lists) = &self.lists {
            let _ = lists.send(targets.clone()); // an error means that the runtime is gone, and the probing with it
        }
        epoch
    }

    /// Ends all probes, those under way too, and returns when nothing runs any more. The board keeps what it knows.
    pub async fn stop(mut self) {
        self.lists = None;
        let _ = (&mut self.supervisor).await; // an error means that it has ended already
    }
}

/// Probes every target once, as many at a time as the bounds allow (see [`Prober::start`]); results by [`super::TargetId`].
/// Targets that report by themselves are [`ProbeError::NotProbed`].
pub async fn probe_once(targets: &Targets, probe: Arc<dyn Probe>, open_max: usize) -> Vec<ProbeResult> {
    let places = Arc::new(Places::new(open_max));
    let probes: Vec<_> = targets
        .list()
        .iter()
        .map(|target| {
            let (target, probe, places) = (target.clone(), probe.clone(), places.clone());
            tokio::spawn(async move {
                match target.check().kind.is_probed() {
                    true => run_probe(&target, &*probe, &places, false).await.1,
                    false => ProbeResult::failed(ProbeError::NotProbed, Duration::ZERO),
                }
            })
        })
        .collect();
    let mut results = Vec::with_capacity(probes.len());
    for probe in probes {
        results.push(probe.await.unwrap_or_else(|_| ProbeResult::failed(ProbeError::Panicked, Duration::ZERO)));
    }
    results
}

/// What all probe tasks share.
struct Shared {
    board: Arc<Board>,
    probe: Arc<dyn Probe>,
    places: Places,
    /// Turns in the interval count from here.
    begun: Instant,
    /// When it was last logged that a probe told nothing.
    warned: Mutex<Option<Instant>>,
}

/// What bounds the probes of all tasks; whoever waited longest comes first.
struct Places {
    /// For those that are starting.
    starting: Semaphore,
    /// For those that are under way, starting or waiting: each holds a socket. Probes of names take more of them as they find them.
    open: Arc<Semaphore>,
}

impl Places {
    fn new(open_max: usize) -> Self {
        let open = Semaphore::new(open_max.clamp(1, Semaphore::MAX_PERMITS));
        Places { starting: Semaphore::new(STARTING_MAX), open: Arc::new(open) }
    }
}

impl Shared {
    /// Says that a probe told nothing, now and then.
    fn warn_untold(&self, target: &Target, result: &ProbeResult, overdue: bool) {
        if result.outcome == Err(ProbeError::NoTrustedRoots) {
            return; // told once by whoever looked for them
        }
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| at.elapsed() >= WARNING_EVERY) {
            *warned = Some(Instant::now());
            tracing::warn!(
                endpoint = %target.endpoint(), %result, overdue,
                "a probe told nothing of its endpoint, perhaps one of many; the last verdict stays"
            );
        }
    }
}

/// One target's task as the supervisor knows it.
struct Running {
    task: AbortHandle,
    panics_in_row: u32,
    started: Instant,
}

/// Runs `body` and starts it again when it panics, with growing pauses, until it ends by itself or the lists do.
async fn start_again<F>(board: Arc<Board>, mut lists: watch::Receiver<Targets>, body: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (mut pause, mut running) = (BACK_OFF_MIN, JoinSet::new()); // whoever ends this task ends the one inside it
    loop {
        let started = Instant::now();
        running.spawn(body());
        let Some(Err(error)) = running.join_next().await else { return };
        if !error.is_panic() {
            return;
        }
        board.count_panic();
        if started.elapsed() > 10 * BACK_OFF_MAX {
            pause = BACK_OFF_MIN;
        }
        tracing::error!(%error, again_in_s = pause.as_secs(), "what starts the probes panicked; the last verdicts stay");
        let stopping = async { while lists.changed().await.is_ok() {} };
        tokio::select! {
            () = sleep(pause) => {}
            () = stopping => return,
        }
        pause = (pause * 2).min(BACK_OFF_MAX);
    }
}

/// Starts a task for each target, ends those of targets that left, restarts those that panicked.
async fn supervise(shared: Arc<Shared>, mut lists: watch::Receiver<Targets>) {
    let mut tasks: JoinSet<()> = JoinSet::new();
    let mut running: HashMap<TargetKey, Running> = HashMap::new();
    let mut targets: HashMap<task::Id, Arc<Target>> = HashMap::new();
    let mut tick = interval(WAKE_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    lists.mark_changed(); // the list that is there is the first
    loop {
        tokio::select! {
            _ = tick.tick() => shared.board.wake(Instant::now().into_std(), SystemTime::now()),
            changed = lists.changed() => {
                if changed.is_err() {
                    break;
                }
                let list = lists.borrow_and_update().clone();
                let mut old = std::mem::take(&mut running);
                for target in list.list() {
                    let kept = old.remove(&target.key).unwrap_or_else(|| {
                        let running = spawn(&mut tasks, &shared, target, Duration::ZERO, 0);
                        targets.insert(running.task.id(), target.clone());
                        running
                    });
                    running.insert(target.key.clone(), kept);
                }
                old.values().for_each(|gone| gone.task.abort());
                shared.probe.keep(&list);
            }
            Some(ended) = tasks.join_next_with_id() => {
                let (id, error) = match ended {
                    Ok((id, ())) => (id, None), // its target left the board
                    Err(error) => (error.id(), Some(error)),
                };
                let target = targets.remove(&id).expect("every task is listed with its target from spawn to end");
                let Some(at) = running.get_mut(&target.key).filter(|at| at.task.id() == id) else { continue };
                let Some(error) = error.filter(JoinError::is_panic) else {
                    running.remove(&target.key);
                    continue;
                };
                shared.board.count_panic();
                let again = restart(&mut tasks, &shared, &target, at, &error);
                targets.insert(again.task.id(), target);
                *at = again;
            }
        }
    }
    tasks.shutdown().await;
}

fn restart(
    tasks: &mut JoinSet<()>,
    shared: &Arc<Shared>,
    target: &Arc<Target>,
    ended: &Running,
    error: &JoinError,
) -> Running {
    let long_ago = ended.started.elapsed() > 10 * BACK_OFF_MAX;
    let panics_in_row = if long_ago { 1 } else { ended.panics_in_row + 1 };
    let pause = BACK_OFF_MIN.saturating_mul(1 << (panics_in_row - 1).min(16)).min(BACK_OFF_MAX);
    tracing::error!(
        endpoint = %target.endpoint(), check = target.check_names.join(","), %error, again_in_s = pause.as_secs(),
        "a probe task panicked; its last verdict stays"
    );
    spawn(tasks, shared, target, pause, panics_in_row)
}

fn spawn(
    tasks: &mut JoinSet<()>,
    shared: &Arc<Shared>,
    target: &Arc<Target>,
    pause: Duration,
    panics_in_row: u32,
) -> Running {
    let (shared, target) = (shared.clone(), target.clone());
    let task = tasks.spawn(async move {
        sleep(pause).await;
        match target.check().kind.is_probed() {
            true => probe_for_ever(target, shared).await,
            false => listen_for_ever(target, shared).await,
        }
    });
    Running { task, panics_in_row, started: Instant::now() + pause }
}

/// Probes one target, first at once, then whenever its verdict asks; ends when the target has left the board.
async fn probe_for_ever(target: Arc<Target>, shared: Arc<Shared>) {
    let check = target.check();
    let turns = Turns::new(shared.begun, check.interval, &target.key);
    let (mut due, mut pace, mut skipped, mut is_silent) = (Instant::now(), Pace::Fast, false, false);
    loop {
        sleep_until(due).await;
        if pace == Pace::Regular && !skipped && due.elapsed() > STALL_MIN {
            // Everyone was held up alike and would go at once now: back to the turns. But not twice in a row, or a host that
            // is always late would never probe.
            (due, skipped) = (turns.after(Instant::now()), true);
            continue;
        }
        skipped = false;
        let (started, result) = run_probe(&target, &*shared.probe, &shared.places, is_silent).await;
        let ended = Instant::now();
        let overdue = ended.duration_since(started) > check.timeout + STALL_MIN;
        let untold = result.outcome.as_ref().is_err_and(|error| overdue || error.is_inconclusive());
        is_silent = matches!(result.outcome, Err(ProbeError::Timeout { phase: Phase::Connect, .. }));
        let next = if untold {
            shared.warn_untold(&target, &result, overdue);
            shared.board.record_inconclusive(&target, result, SystemTime::now())
        } else {
            shared.board.record(&target, result, ended.into_std(), SystemTime::now())
        };
        let Some(next) = next else { return };
        pace = next;
        due = match pace {
            Pace::Fast => ended + check.fast_interval,
            Pace::Regular => turns.next(started, ended),
        };
    }
}

/// Waits for the heartbeats of one target, each of which the board takes in by itself: an interval without one is a failure.
/// Ends when the target has left the board.
async fn listen_for_ever(target: Arc<Target>, shared: Arc<Shared>) {
    let interval = target.check().interval;
    let mut due = Instant::now() + interval;
    loop {
        sleep_until(due).await;
        if shared.board.pace(&target).is_none() {
            return;
        }
        let now = Instant::now();
        let heard = shared.board.heartbeats.heard(&target.key).map(Instant::from_std);
        due = match heard.map(|heard| heard + interval).filter(|next| *next > now) {
            Some(next) => next,
            None => {
                // Whoever stood still cannot have heard anything.
                if now - due <= STALL_MIN {
                    shared.board.record(&target, push::silence(interval), now.into_std(), SystemTime::now());
                }
                now + interval
            }
        };
    }
}

/// One probe, begun when there is a place for it; also tells when it began. `is_silent`: the last one met silence.
async fn run_probe(target: &Target, probe: &dyn Probe, places: &Places, is_silent: bool) -> (Instant, ProbeResult) {
    let _open = places.open.acquire().await.expect("the semaphore is never closed");
    let place = places.starting.acquire().await.expect("the semaphore is never closed");
    let started = Instant::now();
    let mut probing = pin!(probe.probe(target, &places.open));
    let lasts_max = match target.check().kind.has_tls() && !is_silent {
        true => STARTING_TLS_LASTS_MAX,
        false => STARTING_LASTS_MAX,
    };
    tokio::select! {
        biased;
        result = &mut probing => return (started, result),
        () = sleep(lasts_max) => drop(place),
    }
    (started, probing.await)
}

/// A target's turns: one in each interval, at a place that its hash gives, so that many targets spread evenly and a target
/// keeps its place over reloads.
struct Turns {
    first: Instant,
    interval: Duration,
}

impl Turns {
    fn new(begun: Instant, interval: Duration, key: &TargetKey) -> Self {
        let hash = BuildHasherDefault::<SipHasher13>::default().hash_one(key);
        let share = (hash >> 11) as f64 / (1u64 << 53) as f64; // 0 to 1, from the top 53 bits
        Turns { first: begun + interval.mul_f64(share), interval }
    }

    /// The first turn later than `at`.
    fn after(&self, at: Instant) -> Instant {
        if at < self.first {
            return self.first; // at most an interval away: it lies in the first one
        }
        let into = (at - self.first).as_nanos() % self.interval.as_nanos();
        let left = self.interval.as_nanos() - into;
        at + Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX)) // 584 years
    }

    /// The turn after a probe that ran from `started` to `ended`. A turn just missed is taken at once, so that a timeout as long as
    /// the interval does not double it; one missed by a stall is left out.
    fn next(&self, started: Instant, ended: Instant) -> Instant {
        let turn = self.after(started);
        if turn >= ended {
            turn
        } else if ended - turn < STALL_MIN {
            ended
        } else {
            self.after(ended)
        }
    }
}

#[cfg(test)]
mod tests;
