//! What is known of every target now. Results come in, verdicts and connect times are kept, and whoever publishes answers is
//! told when something that answers depend on has changed. Knows nothing of how probes are made or when.

use std::{
    collections::HashMap,
    ops::Index,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::watch;

mod journal;

use self::journal::{Journal, Touched};
use super::{
    baseline::Baseline,
    probe::{ProbeError, ProbeResult},
    target::{Target, TargetId, TargetKey, Targets},
    verdict::{Pace, State, Verdict},
};

/// A baseline that moves by less than this is not worth a new publication.
const BASELINE_STEP: Duration = Duration::from_millis(1);
/// So many changes are remembered at least, one by one, for those who follow the board; else as many as there are targets.
const REMEMBERED_MIN: usize = 64;

/// What is known of one target. Cloning shares everything but a few words.
#[derive(Debug, Clone)]
pub struct TargetStatus {
    /// Endpoint, check, and the names of the check.
    pub target: Arc<Target>,
    /// What answers go by.
    pub state: State,
    /// A result has come in; until then `state` is an assumption.
    pub decided: bool,
    /// The state may change soon.
    pub in_doubt: bool,
    /// The fewest further probes that can change the state, from 1 up.
    pub checks_left: u32,
    /// While in doubt: `checks_left` × `fast-interval`, the most that a TTL should promise.
    pub ttl_bound: Option<Duration>,
    /// Since when the state is what it is.
    pub since: SystemTime,
    /// The newest result and when it came.
    pub last_result: Option<(SystemTime, Arc<ProbeResult>)>,
    /// The newest failure and when it came, kept over later successes.
    pub last_error: Option<(SystemTime, ProbeError)>,
    /// Connect time of the newest probe that connected.
    pub connect: Option<Duration>,
    /// The lowest connect time of the last hour.
    pub baseline: Option<Duration>,
    /// Probes that succeeded.
    pub probes_ok: u64,
    /// Probes that failed.
    pub probes_failed: u64,
    /// Probes that told nothing about the target: this host could not make them, or had no time for them.
    pub probes_inconclusive: u64,
}

impl TargetStatus {
    /// True when answers may use the target.
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// [`TargetStatus::connect`] in milliseconds.
    pub fn connect_ms(&self) -> Option<f64> {
        self.connect.map(|connect| connect.as_secs_f64() * 1e3)
    }

    /// [`TargetStatus::baseline`] in milliseconds.
    pub fn baseline_ms(&self) -> Option<f64> {
        self.baseline.map(|baseline| baseline.as_secs_f64() * 1e3)
    }
}

/// Everything known at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Which list of targets the ids belong to: the number that [`Board::adopt`] gave for it.
    pub epoch: u64,
    /// Rises with every change that answers depend on.
    pub generation: u64,
    /// By [`TargetId`].
    pub statuses: Arc<[TargetStatus]>,
}

impl Index<TargetId> for Snapshot {
    type Output = TargetStatus;

    fn index(&self, id: TargetId) -> &TargetStatus {
        &self.statuses[id.index()]
    }
}

/// What changed on the board since somebody last looked.
#[derive(Debug, Clone)]
pub struct Changes {
    /// As in [`Snapshot::epoch`].
    pub epoch: u64,
    /// To be given to [`Board::changes_since`] the next time.
    pub generation: u64,
    /// How the targets stand now that answers may have to follow: those that changed, or all of them.
    pub statuses: Vec<(TargetId, TargetStatus)>,
}

/// What is known of every target now.
#[derive(Debug)]
pub struct Board {
    inner: Mutex<Inner>,
    generation: watch::Sender<u64>,
    first_round: watch::Sender<bool>,
    panics: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    epoch: u64,
    entries: Vec<Entry>,
    by_key: HashMap<TargetKey, usize>,
    undecided: usize,
    journal: Journal,
    /// Baselines count minutes from here.
    born: Instant,
}

#[derive(Debug, Clone)]
struct Entry {
    target: Arc<Target>,
    verdict: Verdict,
    since: SystemTime,
    last_result: Option<(SystemTime, Arc<ProbeResult>)>,
    last_error: Option<(SystemTime, ProbeError)>,
    connect: Option<Duration>,
    baseline: Baseline,
    /// The baseline when the last change was told.
    told_baseline: Option<Duration>,
    probes_ok: u64,
    probes_failed: u64,
    probes_inconclusive: u64,
}

impl Default for Board {
    fn default() -> Self {
        let inner = Inner {
            epoch: 0,
            entries: Vec::new(),
            by_key: HashMap::new(),
            undecided: 0,
            journal: Journal::default(),
            born: tokio::time::Instant::now().into_std(),
        };
        Board {
            inner: Mutex::new(inner),
            generation: watch::Sender::new(0),
            first_round: watch::Sender::new(false),
            panics: AtomicU64::new(0),
        }
    }
}

impl Board {
    /// Takes over a new list of targets and returns its epoch. Targets that stay keep everything. A new target whose endpoint
    /// is already probed in the same way, only with other times or counts, keeps that state until its own first result.
    pub fn adopt(&self, targets: &Targets, now: SystemTime) -> u64 {
        let mut inner = self.lock();
        let old = std::mem::take(&mut inner.entries);
        let states: HashMap<_, _> =
            old.iter().map(|e| ((e.target.endpoint(), &e.target.check().kind), e.verdict.state())).collect();
        let entries: Vec<Entry> = targets
            .list()
            .iter()
            .map(|target| match inner.by_key.get(&target.key) {
                Some(&at) => Entry { target: target.clone(), ..old[at].clone() },
                None => {
                    let known = states.get(&(target.endpoint(), &target.check().kind));
                    Entry::new(target.clone(), known.copied().unwrap_or(State::Up), now)
                }
            })
            .collect();
        inner.by_key = entries.iter().enumerate().map(|(at, e)| (e.target.key.clone(), at)).collect();
        inner.entries = entries;
        inner.undecided = inner.entries.iter().filter(|e| !e.verdict.is_decided()).count();
        inner.epoch += 1;
        let epoch = inner.epoch;
        self.after_change(&mut inner, Touched::All);
        epoch
    }

    /// Takes in a result and says when to probe next; `None` for a target that is no longer on the board. `now` drives the
    /// baseline, `wall` is what people are told.
    pub fn record(&self, target: &Target, result: ProbeResult, now: Instant, wall: SystemTime) -> Option<Pace> {
        let mut inner = self.lock();
        let at = *inner.by_key.get(&target.key)?;
        let age = now.saturating_duration_since(inner.born);
        let entry = &mut inner.entries[at];
        let (before, rules) = (entry.verdict, entry.target.rules());
        entry.verdict = before.after(result.is_success(), rules);
        match &result.outcome {
            Ok(()) => entry.probes_ok += 1,
            Err(error) => {
                entry.probes_failed += 1;
                entry.last_error = Some((wall, error.clone()));
            }
        }
        if let Some(connect) = result.connect {
            entry.connect = Some(connect);
            entry.baseline.record(age, connect);
        }
        entry.last_result = Some((wall, Arc::new(result)));
        let after = entry.verdict;
        if before.state() != after.state() {
            entry.since = wall;
        }
        log_verdict(entry, before);
        let baseline = entry.baseline.lowest(age);
        let baseline_moved = differs(entry.told_baseline, baseline);
        if baseline_moved {
            entry.told_baseline = baseline;
        }
        inner.undecided -= usize::from(!before.is_decided());
        let told =
            |verdict: Verdict| (verdict.state(), verdict.is_decided(), verdict.in_doubt(), verdict.checks_left(rules));
        let is_changed = told(before) != told(after) || baseline_moved;
        self.after_change(&mut inner, if is_changed { Touched::One(at) } else { Touched::Nothing });
        Some(after.pace())
    }

    /// Counts a probe that told nothing about the target and says when to probe next; `None` as in [`Board::record`].
    pub fn record_inconclusive(&self, target: &Target, result: ProbeResult, wall: SystemTime) -> Option<Pace> {
        let mut inner = self.lock();
        let at = *inner.by_key.get(&target.key)?;
        let entry = &mut inner.entries[at];
        entry.probes_inconclusive += 1;
        if let Err(error) = &result.outcome {
            entry.last_error = Some((wall, error.clone()));
        }
        entry.last_result = Some((wall, Arc::new(result)));
        Some(entry.verdict.pace())
    }

    /// When to probe `target` next by what is known; `None` when it is not on the board.
    pub fn pace(&self, target: &Target) -> Option<Pace> {
        let inner = self.lock();
        inner.by_key.get(&target.key).map(|&at| inner.entries[at].verdict.pace())
    }

    /// Everything known now.
    pub fn snapshot(&self) -> Snapshot {
        let now = tokio::time::Instant::now().into_std();
        let inner = self.lock();
        let age = now.saturating_duration_since(inner.born);
        let statuses = inner.entries.iter().map(|entry| entry.status(age)).collect();
        Snapshot { epoch: inner.epoch, generation: inner.journal.generation(), statuses }
    }

    /// What changed after the generation `seen`, at the cost of that alone; everything, when `seen` is 0, of another list of
    /// targets, or long ago.
    pub fn changes_since(&self, seen: u64) -> Changes {
        let now = tokio::time::Instant::now().into_std();
        let inner = self.lock();
        let age = now.saturating_duration_since(inner.born);
        let places = inner.journal.since(seen).unwrap_or_else(|| (0..inner.entries.len()).collect());
        let statuses = places.into_iter().map(|at| (TargetId(at as u32), inner.entries[at].status(age))).collect();
        Changes { epoch: inner.epoch, generation: inner.journal.generation(), statuses }
    }

    /// A number that rises whenever something that answers depend on changes: a state, a doubt, a baseline by a millisecond
    /// or more, the list of targets. Changes that come faster than they are read count as one.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// True once every target of some list has had a result; it stays true.
    pub fn is_first_round_done(&self) -> bool {
        *self.first_round.borrow()
    }

    /// Waits for [`Board::is_first_round_done`].
    pub async fn first_round(&self) {
        let mut done = self.first_round.subscribe();
        let _ = done.wait_for(|done| *done).await; // the sender lives as long as `self`
    }

    /// Probe tasks that panicked and were restarted.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Counts a probe task that panicked.
    pub(super) fn count_panic(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// To be called with every change, under the lock: whatever moves [`TargetStatus`] for more than one target at a time
    /// is [`Touched::All`].
    fn after_change(&self, inner: &mut Inner, touched: Touched) {
        if inner.undecided == 0 && inner.epoch > 0 {
            self.first_round.send_if_modified(|done| !std::mem::replace(done, true));
        }
        if inner.journal.note(touched, inner.entries.len().max(REMEMBERED_MIN)) {
            self.generation.send_replace(inner.journal.generation());
        }
    }

    /// A panic while the lock was held leaves whole entries behind: each field is written on its own.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn new(target: Arc<Target>, counts_as: State, now: SystemTime) -> Self {
        Entry {
            target,
            verdict: Verdict::Untried { counts_as },
            since: now,
            last_result: None,
            last_error: None,
            connect: None,
            baseline: Baseline::default(),
            told_baseline: None,
            probes_ok: 0,
            probes_failed: 0,
            probes_inconclusive: 0,
        }
    }

    fn status(&self, age: Duration) -> TargetStatus {
        let rules = self.target.rules();
        TargetStatus {
            target: self.target.clone(),
            state: self.verdict.state(),
            decided: self.verdict.is_decided(),
            in_doubt: self.verdict.in_doubt(),
            checks_left: self.verdict.checks_left(rules),
            ttl_bound: self.verdict.doubt_lasts(rules, self.target.check().fast_interval),
            since: self.since,
            last_result: self.last_result.clone(),
            last_error: self.last_error.clone(),
            connect: self.connect,
            baseline: self.baseline.lowest(age),
            probes_ok: self.probes_ok,
            probes_failed: self.probes_failed,
            probes_inconclusive: self.probes_inconclusive,
        }
    }
}

fn differs(told: Option<Duration>, now: Option<Duration>) -> bool {
    match (told, now) {
        (Some(told), Some(now)) => told.abs_diff(now) >= BASELINE_STEP,
        (told, now) => told != now,
    }
}

/// One line for every change of state, and for a first result.
fn log_verdict(entry: &Entry, before: Verdict) {
    let after = entry.verdict;
    let reason = || entry.last_result.as_ref().map(|(_, result)| result.to_string()).unwrap_or_default();
    let (endpoint, check) = (entry.target.endpoint(), entry.target.check_names.join(","));
    match (before.state() != after.state(), after.state()) {
        (true, State::Down) => tracing::warn!(%endpoint, %check, reason = reason(), "endpoint is down"),
        (true, State::Up) => tracing::info!(%endpoint, %check, reason = reason(), "endpoint is up again"),
        (false, state) if !before.is_decided() => {
            tracing::debug!(%endpoint, %check, ?state, reason = reason(), "first probe");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
