//! What is known of every target now. Results come in, verdicts and connect times are kept, and whoever publishes answers is
//! told when something that answers depend on has changed. Knows nothing of how probes are made or when.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::watch;

mod doubt;
pub(super) mod entry;
mod journal;
mod status;

pub use self::status::{Changes, Held, SelfDoubtStatus, Snapshot, TargetStatus};
use self::{
    doubt::Doubter,
    entry::Entry,
    journal::{Journal, Touched},
};
use super::{
    consensus::Consensus,
    history::Change,
    measured::Measurements,
    memory::{self, Memory},
    probe::ProbeResult,
    push::{self, Heartbeats},
    rise::Watch,
    target::{Target, TargetId, TargetKey, Targets},
    verdict::{Pace, State},
};

/// So many changes are remembered at least, one by one, for those who follow the board; else as many as there are targets.
const REMEMBERED_MIN: usize = 64;
/// The board is born so long after the moment that its times count from: what is read back from before it lies in this.
pub(super) const PAST: Duration = Duration::from_secs(3 * 86_400);

/// Targets that are looked at under one lock when all is written down.
const REMEMBERED_AT_ONCE: usize = 256;

/// What is known of every target now.
#[derive(Debug)]
pub struct Board {
    inner: Mutex<Inner>,
    generation: watch::Sender<u64>,
    first_round: watch::Sender<bool>,
    panics: AtomicU64,
    /// Of the targets that report by themselves.
    pub(super) heartbeats: Heartbeats,
    /// What no verdict depends on.
    pub measurements: Measurements,
    /// How long it takes to connect to some targets of each region, which no verdict depends on either.
    pub connecting: Watch,
}

#[derive(Debug)]
struct Inner {
    epoch: u64,
    entries: Vec<Entry>,
    by_key: HashMap<TargetKey, usize>,
    undecided: usize,
    journal: Journal,
    doubter: Doubter,
    /// The earliest moment at which a hold-down may end.
    next_release: Option<Duration>,
    /// Counts changes that people are told.
    told: u64,
    /// What was known before a restart, for the first list of targets.
    recalled: HashMap<memory::Key, Memory>,
    /// Times are ages: they count from [`PAST`] before this.
    born: Instant,
}

impl Default for Board {
    fn default() -> Self {
        let inner = Inner {
            epoch: 0,
            entries: Vec::new(),
            by_key: HashMap::new(),
            undecided: 0,
            journal: Journal::default(),
            doubter: Doubter::default(),
            next_release: None,
            told: 0,
            recalled: HashMap::new(),
            born: tokio::time::Instant::now().into_std(),
        };
        Board {
            inner: Mutex::new(inner),
            generation: watch::Sender::new(0),
            first_round: watch::Sender::new(false),
            panics: AtomicU64::new(0),
            heartbeats: Heartbeats::default(),
            measurements: Measurements::default(),
            connecting: Watch::default(),
        }
    }
}

impl Board {
    /// Takes over a new list of targets and returns its epoch. Targets that stay keep everything. A new target whose endpoint
    /// is already probed in the same way, only with other times or counts, keeps that state until its own first result; so does
    /// one that was known before a restart.
    pub fn adopt(&self, targets: &Targets, now: SystemTime) -> u64 {
        let mut inner = self.lock();
        let age = inner.age(tokio::time::Instant::now().into_std());
        let old = std::mem::take(&mut inner.entries);
        let recalled = std::mem::take(&mut inner.recalled);
        let alike: HashMap<_, _> = old.iter().map(|e| ((e.target.endpoint(), &e.target.check().kind), e)).collect();
        let adopted = |target: &Arc<Target>| {
            if let Some(&at) = inner.by_key.get(&target.key) {
                return old[at].clone().of(target.clone());
            }
            if let Some(entry) = alike.get(&(target.endpoint(), &target.check().kind)) {
                return entry.under(target.clone(), now);
            }
            match recalled.get(&memory::Key::of(target)) {
                Some(memory) => memory.entry(target.clone(), age, now),
                None => Entry::new(target.clone(), State::Up, now),
            }
        };
        let placed = |target| adopted(target).placed(targets.region(target.endpoint()));
        let entries: Vec<Entry> = targets.list().iter().map(placed).collect();
        inner.by_key = entries.iter().enumerate().map(|(at, e)| (e.target.key.clone(), at)).collect();
        inner.undecided = entries.iter().filter(|e| e.is_awaited()).count();
        inner.next_release = entries.iter().filter_map(|e| e.damping.hold()).map(|hold| hold.until).min();
        inner.entries = entries;
        self.heartbeats.keep(targets);
        self.measurements.keep(targets);
        self.connecting.keep(targets);
        inner.epoch += 1;
        let epoch = inner.epoch;
        let Inner { doubter, entries, .. } = &mut *inner;
        doubter.regroup(entries, targets.home());
        self.after_change(&mut inner, Touched::All);
        epoch
    }

    /// What was known before a restart, to be asked for when the first list of targets is adopted.
    pub fn recall(&self, memories: Vec<Memory>) {
        self.lock().recalled = memories.into_iter().map(|memory| (memory.key.clone(), memory)).collect();
    }

    /// Everything that is worth to outlive the process. Never holds results up for long, however many targets there are.
    pub fn remember(&self, now: Instant, wall: SystemTime) -> Vec<Memory> {
        let (mut memories, mut epoch) = (Vec::new(), 0);
        loop {
            let inner = self.lock();
            if inner.epoch != epoch {
                (memories, epoch) = (Vec::with_capacity(inner.entries.len()), inner.epoch);
            }
            let (age, begun) = (inner.age(now), memories.len());
            memories.extend(inner.entries[begun..].iter().take(REMEMBERED_AT_ONCE).map(|e| Memory::of(e, age, wall)));
            if memories.len() == inner.entries.len() {
                return memories;
            }
        }
    }

    /// Takes in a result and says when to probe next; `None` for a target that is no longer on the board. `now` drives what
    /// depends on time, `wall` is what people are told.
    pub fn record(&self, target: &Target, result: ProbeResult, now: Instant, wall: SystemTime) -> Option<Pace> {
        let mut inner = self.lock();
        let at = *inner.by_key.get(&target.key)?;
        self.measurements.take(&inner.entries[at].target, &result, wall);
        let age = inner.age(now);
        if let Some(connect) = result.connect {
            self.connecting.take(target, age, connect);
        }
        let Inner { entries, doubter, .. } = &mut *inner;
        let entry = &mut entries[at];
        let (before, was_awaited, was_clear) = (entry.basis(), entry.is_awaited(), entry.is_clear());
        let is_released = entry.release(age, wall);
        let fell = entry.take(result, doubter.is_on(), age, wall);
        doubter.note_clear(entry, was_clear);
        let is_turn = doubter.follow(entries, at, fell, age, wall);
        let entry = &mut entries[at];
        let is_news = entry.settle(age, wall) | is_released;
        let is_changed = (before != entry.basis()) | entry.baseline_moved(age);
        let pace = entry.verdict.pace();
        let release = entry.damping.hold().map(|hold| hold.until);
        inner.next_release = inner.next_release.into_iter().chain(release).min();
        inner.undecided -= usize::from(was_awaited);
        inner.told += u64::from(is_news || is_turn);
        let touched = match (is_turn, is_changed) {
            (true, _) => Touched::All,
            (false, true) => Touched::One(at),
            (false, false) => Touched::Nothing,
        };
        self.after_change(&mut inner, touched);
        Some(pace)
    }

    /// Takes in the heartbeat of a target that reports by itself, and whether it says that it is up. What it counts as after that;
    /// `None` for a target that is not on the board.
    pub fn heartbeat(&self, target: &Target, up: bool, now: Instant, wall: SystemTime) -> Option<State> {
        self.heartbeats.note(&target.key, now);
        self.record(target, push::heartbeat(up), now, wall)?;
        let inner = self.lock();
        inner.by_key.get(&target.key).map(|&at| inner.entries[at].state())
    }

    /// Takes in what the servers of a cluster see together of some targets, on the list of this epoch; `None`: this server goes by
    /// its own view.
    pub fn judge(&self, epoch: u64, verdicts: &[(TargetId, Option<Consensus>)], wall: SystemTime) {
        let mut inner = self.lock();
        if inner.epoch != epoch {
            return; // another list of targets is on the board, and will be judged anew
        }
        let room = inner.entries.len().max(REMEMBERED_MIN);
        let mut is_changed = false;
        for (id, consensus) in verdicts {
            if inner.entries[id.index()].judge(*consensus, wall) {
                is_changed |= inner.journal.note(Touched::One(id.index()), room);
            }
        }
        if is_changed {
            self.generation.send_replace(inner.journal.generation());
        }
    }

    /// To be called about every second: ends hold-downs, and self-doubt that has lasted too long.
    pub fn wake(&self, now: Instant, wall: SystemTime) {
        let mut inner = self.lock();
        let age = inner.age(now);
        let mut is_changed = inner.doubter.wake(age);
        if inner.next_release.is_some_and(|next| next <= age) {
            for entry in &mut inner.entries {
                is_changed |= entry.release(age, wall);
            }
            inner.next_release = inner.entries.iter().filter_map(|e| e.damping.hold()).map(|hold| hold.until).min();
        }
        inner.told += u64::from(is_changed);
        self.after_change(&mut inner, if is_changed { Touched::All } else { Touched::Nothing });
    }

    /// The newest changes of a target, oldest first, at most `max`; none for a target that is not on the board.
    pub fn history(&self, target: &Target, max: usize) -> Vec<Change> {
        let inner = self.lock();
        let Some(&at) = inner.by_key.get(&target.key) else { return Vec::new() };
        let history = &inner.entries[at].history;
        history.iter().skip(history.iter().len().saturating_sub(max)).cloned().collect()
    }

    /// A number that rises with every change that people are told.
    pub fn told(&self) -> u64 {
        self.lock().told
    }

    /// Counts a probe that told nothing about the target and says when to probe next; `None` as in [`Board::record`].
    pub fn record_inconclusive(&self, target: &Target, result: ProbeResult, wall: SystemTime) -> Option<Pace> {
        let mut inner = self.lock();
        let at = *inner.by_key.get(&target.key)?;
        let entry = &mut inner.entries[at];
        let was_awaited = entry.is_awaited();
        entry.probes_inconclusive += 1;
        entry.untold = entry.untold.saturating_add(1);
        if let Err(error) = &result.outcome {
            entry.last_error = Some((wall, error.clone()));
        }
        entry.last_result = Some((wall, Arc::new(result)));
        let (pace, is_awaited) = (entry.verdict.pace(), entry.is_awaited());
        if was_awaited && !is_awaited {
            inner.undecided -= 1;
            self.after_change(&mut inner, Touched::Nothing);
        }
        Some(pace)
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
        let age = inner.age(now);
        let statuses = inner.entries.iter().map(|entry| entry.status(age)).collect();
        let self_doubt = inner.doubter.status();
        Snapshot { epoch: inner.epoch, generation: inner.journal.generation(), statuses, self_doubt }
    }

    /// What changed after the generation `seen`, at the cost of that alone; everything, when `seen` is 0, of another list of
    /// targets, or long ago.
    pub fn changes_since(&self, seen: u64) -> Changes {
        let now = tokio::time::Instant::now().into_std();
        let inner = self.lock();
        let age = inner.age(now);
        let places = inner.journal.since(seen).unwrap_or_else(|| (0..inner.entries.len()).collect());
        let statuses = places.into_iter().map(|at| (TargetId(at as u32), inner.entries[at].status(age))).collect();
        let (generation, is_doubting) = (inner.journal.generation(), inner.doubter.is_on());
        Changes { epoch: inner.epoch, generation, is_doubting, statuses }
    }

    /// A number that rises whenever something that answers depend on changes: a state, a doubt, a baseline by a millisecond
    /// or more, the list of targets. Changes that come faster than they are read count as one.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// True once every target of some list that is probed has had a result; it stays true.
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

impl Inner {
    fn age(&self, now: Instant) -> Duration {
        PAST + now.saturating_duration_since(self.born)
    }
}

#[cfg(test)]
mod doubt_tests;
#[cfg(test)]
mod steadiness_tests;
#[cfg(test)]
mod tests;
