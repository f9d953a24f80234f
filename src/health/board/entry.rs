//! What is held of one target: its verdict, and what history, damping and self-doubt make of it. Knows no other target.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{Held, TargetStatus};
use crate::health::{
    baseline::Baseline,
    consensus::{Consensus, Sees},
    damping::{self, Damping},
    history::{History, Standing},
    probe::{ProbeError, ProbeResult},
    self_doubt::Trouble,
    target::Target,
    verdict::{State, Verdict},
};

/// A baseline that moves by less than this is not worth a new publication.
const BASELINE_STEP: Duration = Duration::from_millis(1);
/// Failures in a row that look like more than a lost packet, unless fewer make a target fall.
const CONVINCING_FAILURES: u32 = 2;

/// One target on the board. Times are ages of the board.
#[derive(Debug, Clone)]
pub(in crate::health) struct Entry {
    pub target: Arc<Target>,
    /// Where it stands, by number.
    pub region: u16,
    /// What the results so far say.
    pub verdict: Verdict,
    /// It fell in a failure that the prober puts down to itself: it counts as up, at the latest until its first failure after that.
    pub kept: bool,
    /// Its state before the first result is known from before, not assumed.
    pub known: bool,
    /// One of those by which self-doubt is judged, and whether it failed when it was last looked at.
    pub counted: bool,
    pub fails: bool,
    /// It is asked so often that self-doubt never does without it.
    pub quick: bool,
    /// When it was last found up or answered, however badly: the prober reached it. For what is known from before: when that was
    /// taken over.
    pub heard: Option<Duration>,
    /// While it fails without a success in between. Kept while it is down; absent where it was down from the first.
    failing: Option<Failing>,
    pub damping: Damping,
    pub history: History,
    /// What answers went by after the last result.
    state: State,
    /// What people were told last, and since when.
    pub standing: Standing,
    pub since: SystemTime,
    pub held: Option<Held>,
    /// What the servers of a cluster see together.
    consensus: Option<Consensus>,
    /// Since when what answers go by is what it is, while there is a consensus.
    counts_since: SystemTime,
    pub last_result: Option<(SystemTime, Arc<ProbeResult>)>,
    pub last_error: Option<(SystemTime, ProbeError)>,
    pub connect: Option<Duration>,
    pub baseline: Baseline,
    /// The baseline when the last change was told.
    told_baseline: Option<Duration>,
    pub probes_ok: u64,
    pub probes_failed: u64,
    pub probes_inconclusive: u64,
    /// Probes in a row, before the first result, that told nothing.
    pub untold: u32,
}

#[derive(Debug, Clone, Copy)]
struct Failing {
    trouble: Trouble,
    /// One of the failures was an answer of the endpoint's, which proves that the prober reaches it.
    answered: bool,
}

/// What a target says on the question whether a trouble is the prober's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::health) enum Evidence {
    /// It was down before, or nothing is known of it.
    Nothing,
    /// It was up and fails since then, in a way that can be the prober's fault.
    Fails,
    /// The prober has reached it since.
    Works,
    /// It was up, and has not been heard since.
    Unheard,
}

/// What of an entry answers depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Basis {
    state: State,
    is_decided: bool,
    in_doubt: bool,
    /// The fewest further results that can change it.
    checks_left: u32,
    is_held: bool,
}

impl Entry {
    pub fn new(target: Arc<Target>, counts_as: State, now: SystemTime) -> Self {
        Entry {
            target,
            region: 0,
            verdict: Verdict::Untried { counts_as },
            kept: false,
            known: false,
            counted: false,
            fails: false,
            quick: false,
            heard: None,
            failing: None,
            damping: Damping::default(),
            history: History::default(),
            state: counts_as,
            standing: Standing::Untried,
            since: now,
            held: None,
            consensus: None,
            counts_since: now,
            last_result: None,
            last_error: None,
            connect: None,
            baseline: Baseline::default(),
            told_baseline: None,
            probes_ok: 0,
            probes_failed: 0,
            probes_inconclusive: 0,
            untold: 0,
        }
    }

    /// The same, known under other names.
    pub fn of(self, target: Arc<Target>) -> Self {
        Entry { target, ..self }
    }

    /// The same in another region.
    pub fn placed(self, region: u16) -> Self {
        Entry { region, ..self }
    }

    /// The same endpoint under a check that probes it alike and judges it otherwise: what is known of it stays, until its first
    /// result. A hold-down under other rules ends.
    pub fn under(&self, target: Arc<Target>, now: SystemTime) -> Self {
        let mut entry = Entry {
            known: self.verdict.is_decided() || self.known,
            heard: self.heard,
            damping: self.damping.clone(),
            history: self.history.clone(),
            connect: self.connect,
            baseline: self.baseline.clone(),
            consensus: self.consensus,
            counts_since: self.counts_since,
            ..Entry::new(target, self.state(), now)
        };
        entry.since = self.since;
        if entry.target.check().damping == self.target.check().damping {
            entry.held = self.held;
        } else {
            entry.damping.end();
        }
        entry.standing = entry.standing_now();
        if self.standing == Standing::Held && entry.standing != Standing::Held {
            entry.history.push(now, Standing::Held, entry.standing, "other rules for hold-downs");
            entry.since = now;
        }
        entry
    }

    /// Takes up how it stood before a restart, at the age `age` of the board.
    pub fn resume(&mut self, since: SystemTime, age: Duration) {
        (self.known, self.since, self.heard) = (true, since, Some(age));
        self.standing = self.standing_now();
    }

    /// Its first result is still to come, and will, as that of a probe does. A heartbeat may take as long as it likes, and where
    /// `fall` probes told nothing this host cannot probe it, which keeps nothing waiting.
    pub fn is_awaited(&self) -> bool {
        let is_tried = self.verdict.is_decided() || self.untold >= self.target.rules().fall;
        !is_tried && self.target.check().kind.is_probed()
    }

    /// What answers go by, hold-downs aside.
    pub fn state(&self) -> State {
        if self.kept { State::Up } else { self.verdict.state() }
    }

    fn standing_now(&self) -> Standing {
        match (self.damping.hold(), self.verdict.is_decided() || self.known, self.state()) {
            (Some(_), _, _) => Standing::Held,
            (None, false, _) => Standing::Untried,
            (None, true, State::Up) => Standing::Up,
            (None, true, State::Down) => Standing::Down,
        }
    }

    /// Takes in a result; [`Entry::settle`] must follow. True when the target fell with it: it was known to be up, and the verdict
    /// is down. What was kept in spite of its verdict is so until it succeeds, or fails while the prober trusts itself.
    pub fn take(&mut self, result: ProbeResult, is_doubting: bool, age: Duration, wall: SystemTime) -> bool {
        let before = self.verdict;
        self.verdict = before.after(result.is_success(), self.target.rules());
        let fell = !self.kept && self.verdict.state() == State::Down;
        self.kept &= self.verdict.state() == State::Down && (is_doubting || result.is_success());
        let was_up = before.state() == State::Up && (before.is_decided() || self.known);
        match (&result.outcome, self.verdict) {
            (Ok(()), Verdict::Down { .. }) => {}
            (Ok(()), _) => self.failing = None,
            (Err(error), _) => {
                let answered = error.is_answer();
                match &mut self.failing {
                    Some(failing) => failing.answered |= answered,
                    None if was_up => {
                        let check = self.target.check();
                        let spare = check.timeout + check.fast_interval;
                        let trouble = Trouble { after: self.heard.unwrap_or_default(), since: age, spare };
                        self.failing = Some(Failing { trouble, answered });
                    }
                    None => {}
                }
            }
        }
        if result.outcome.as_ref().map_or_else(ProbeError::is_answer, |()| true) {
            self.heard = Some(age);
        }
        match &result.outcome {
            Ok(()) => self.probes_ok += 1,
            Err(error) => {
                self.probes_failed += 1;
                self.last_error = Some((wall, error.clone()));
            }
        }
        if let Some(connect) = result.connect {
            self.connect = Some(connect);
            self.baseline.record(age, connect);
        }
        self.last_result = Some((wall, Arc::new(result)));
        was_up && fell
    }

    /// Makes a change of state out of what [`Entry::take`] left: history, damping, a line in the log. True when there was one that
    /// people are told.
    pub fn settle(&mut self, age: Duration, wall: SystemTime) -> bool {
        let (from, was_tried) = (self.standing, self.standing != Standing::Untried || self.known);
        let has_changed = self.state() != self.state;
        self.state = self.state();
        let rules = self.target.check().damping;
        if has_changed && was_tried {
            self.damping.change(age, &rules);
            self.note_hold(age, wall);
        }
        let to = self.standing_now();
        let is_still_held = has_changed && from == Standing::Held && to == from;
        if to == from && !is_still_held {
            return false;
        }
        let mut reason = self.reason();
        if is_still_held {
            reason = format!("{reason}; {} more changes while held", self.damping.further());
            self.history.push_again(wall, from, to, &reason);
            return true;
        }
        if has_changed || to == Standing::Held {
            self.since = wall;
        }
        self.standing = to;
        if to == Standing::Held {
            let (count, window) = (self.damping.count(age, &rules), shown(rules.window));
            reason = format!("{reason}; {count} changes within {window}");
        }
        self.history.push(wall, from, to, &reason);
        self.log(from, to, has_changed, &reason);
        true
    }

    /// Why it stands otherwise after a result.
    fn reason(&self) -> String {
        let result = || self.last_result.as_ref().map(|(_, result)| result.to_string()).unwrap_or_default();
        match self.state {
            _ if self.probes_ok + self.probes_failed == 1 => format!("first probe: {}", result()),
            State::Down => result(),
            State::Up => match self.target.rules().rise {
                1 => "1 success".into(),
                rise => format!("{rise} successes in a row"),
            },
        }
    }

    fn note_hold(&mut self, age: Duration, wall: SystemTime) {
        let since = if self.standing == Standing::Held { self.held.map(|held| held.since) } else { None };
        self.held = self.damping.hold().map(|hold| Held {
            since: since.unwrap_or(wall),
            until: wall + hold.until.saturating_sub(age),
            changes: self.damping.count(age, &self.target.check().damping),
            further: self.damping.further(),
        });
    }

    /// Ends its hold-down if its time is over. True when it did.
    pub fn release(&mut self, age: Duration, wall: SystemTime) -> bool {
        let Some(hold) = self.damping.hold() else { return false };
        if !self.damping.release(age) {
            return false;
        }
        let still = hold.until.saturating_sub(self.damping.last_change().unwrap_or(hold.since));
        self.held = None;
        let to = self.standing_now();
        let reason = format!("no change for {}", shown(still));
        self.history.push(wall, Standing::Held, to, &reason);
        (self.standing, self.since) = (to, wall);
        let (endpoint, check) = (self.target.endpoint(), self.target.check_names.join(","));
        tracing::info!(%endpoint, %check, state = %to, reason, "endpoint is no longer held down");
        true
    }

    /// Takes up what is known of its changes from before a restart, `gap` ago.
    pub fn resume_damping(&mut self, remembered: &damping::Remembered, gap: Duration, age: Duration, wall: SystemTime) {
        self.damping = Damping::recalled(remembered, gap, age, &self.target.check().damping);
        if let Some(hold) = self.damping.hold() {
            self.note_hold(age, wall);
            self.held = self.held.map(|held| Held { since: wall - age.saturating_sub(hold.since), ..held });
            self.standing = Standing::Held;
        } else if self.history.iter().next_back().is_some_and(|change| change.to == Standing::Held) {
            let to = self.standing_now();
            self.history.push(wall, Standing::Held, to, "its time ended while the server did not run");
        }
    }

    /// Takes in what the servers of a cluster see together. True when answers depend on the difference.
    pub fn judge(&mut self, consensus: Option<Consensus>, wall: SystemTime) -> bool {
        if self.consensus.is_none() {
            self.counts_since = self.since;
        }
        let (before, was_bound) = (self.counts_as(), self.consensus.map(|consensus| consensus.may_turn));
        self.consensus = consensus;
        let now = self.counts_as();
        let (endpoint, check) = (self.target.endpoint(), self.target.check_names.join(","));
        let seen = consensus.map_or_else(|| "by this server alone".to_string(), |consensus| consensus.summary());
        if now != before {
            self.counts_since = wall;
        }
        match now {
            _ if now == before => {}
            Sees::Up => tracing::info!(%endpoint, %check, seen, "endpoint counts as up"),
            Sees::Held | Sees::Down => {
                tracing::warn!(%endpoint, %check, seen, "endpoint counts as {}", now.as_str());
            }
        }
        now != before || consensus.map(|consensus| consensus.may_turn) != was_bound
    }

    /// What answers go by.
    fn counts_as(&self) -> Sees {
        match (self.consensus, self.damping.hold(), self.state()) {
            (Some(consensus), _, _) => consensus.sees,
            (None, Some(_), _) => Sees::Held,
            (None, None, State::Up) => Sees::Up,
            (None, None, State::Down) => Sees::Down,
        }
    }

    /// Its verdict is down, whatever it counts as.
    pub fn has_fallen(&self) -> bool {
        self.verdict.state() == State::Down
    }

    /// The failure in which it fell is put down to the prober: it counts as up, and the change is as if it had never been.
    pub fn keep(&mut self, wall: SystemTime, reason: &str) {
        self.kept = true;
        if self.state == State::Up {
            return; // it falls at this moment, and nobody was told yet
        }
        self.state = State::Up;
        self.damping.take_back();
        if self.damping.hold().is_none() {
            self.held = None;
        }
        let (from, to) = (self.standing, self.standing_now());
        if from != to {
            self.history.push(wall, from, to, reason);
            (self.standing, self.since) = (to, wall);
        }
    }

    /// When it began to fail, as far as is known; `None`: it does not, or has from the first.
    pub fn trouble(&self) -> Option<Trouble> {
        self.failing.map(|failing| failing.trouble)
    }

    /// What it says of a trouble in which some target fell.
    pub fn evidence(&self, trouble: &Trouble) -> Evidence {
        let is_in_it = self.failing.is_some_and(|failing| failing.trouble.is_one_with(trouble));
        let was_up = match self.verdict {
            Verdict::Untried { counts_as } => self.known && counts_as == State::Up,
            Verdict::Up { .. } => true,
            Verdict::Down { .. } => is_in_it,
        };
        match self.heard {
            _ if !was_up => Evidence::Nothing,
            _ if is_in_it && self.fails_silently() => Evidence::Fails,
            Some(heard) if heard >= trouble.since => Evidence::Works,
            _ => Evidence::Unheard,
        }
    }

    /// It fails in a way that can be the prober's own fault, and not by a lost packet.
    pub fn fails_silently(&self) -> bool {
        self.failing.is_some_and(|failing| !failing.answered)
            && match self.verdict {
                Verdict::Untried { .. } => false,
                Verdict::Up { failures, .. } => failures >= CONVINCING_FAILURES.min(self.target.rules().fall),
                Verdict::Down { .. } => true,
            }
    }

    /// It answered when it was last asked, and is up.
    pub fn is_clear(&self) -> bool {
        matches!(self.verdict, Verdict::Up { .. }) && self.failing.is_none()
    }

    pub(super) fn basis(&self) -> Basis {
        Basis {
            state: self.state(),
            is_decided: self.verdict.is_decided(),
            in_doubt: self.verdict.in_doubt() || self.kept,
            checks_left: if self.kept { 1 } else { self.verdict.checks_left(self.target.rules()) },
            is_held: self.damping.hold().is_some(),
        }
    }

    /// True when the baseline is another than when this was last asked.
    pub fn baseline_moved(&mut self, age: Duration) -> bool {
        let baseline = self.baseline.lowest(age);
        let moved = match (self.told_baseline, baseline) {
            (Some(told), Some(now)) => told.abs_diff(now) >= BASELINE_STEP,
            (told, now) => told != now,
        };
        if moved {
            self.told_baseline = baseline;
        }
        moved
    }

    pub fn status(&self, age: Duration) -> TargetStatus {
        let Basis { state, is_decided, in_doubt, checks_left, is_held: _ } = self.basis();
        let check = self.target.check();
        let doubt = self.verdict.doubt_lasts(self.target.rules(), check.fast_interval);
        TargetStatus {
            target: self.target.clone(),
            state,
            counts_as: self.counts_as(),
            consensus: self.consensus,
            decided: is_decided,
            in_doubt,
            checks_left,
            ttl_bound: if self.kept { Some(check.interval) } else { doubt },
            kept: self.kept,
            held: self.held,
            since: self.since,
            counts_since: if self.consensus.is_some() { self.counts_since } else { self.since },
            last_result: self.last_result.clone(),
            last_error: self.last_error.clone(),
            connect: self.connect,
            baseline: self.baseline.lowest(age),
            probes_ok: self.probes_ok,
            probes_failed: self.probes_failed,
            probes_inconclusive: self.probes_inconclusive,
        }
    }

    /// One line for every change that people are told, and for a first result.
    fn log(&self, from: Standing, to: Standing, has_changed: bool, reason: &str) {
        let (endpoint, check) = (self.target.endpoint(), self.target.check_names.join(","));
        match (from, to) {
            (_, Standing::Down) if has_changed => tracing::warn!(%endpoint, %check, reason, "endpoint is down"),
            (Standing::Untried, _) => tracing::debug!(%endpoint, %check, state = %to, reason, "first probe"),
            (_, Standing::Held) => {
                let for_s = self.held.and_then(|held| held.until.duration_since(held.since).ok()).map(|d| d.as_secs());
                tracing::warn!(%endpoint, %check, reason, for_s, "endpoint changes too often and is held down");
            }
            _ => tracing::info!(%endpoint, %check, reason, "endpoint is up again"),
        }
    }
}

/// A duration of the configuration as people read it.
pub(super) fn shown(duration: Duration) -> String {
    match (duration.as_secs(), duration.subsec_millis()) {
        (s, 0) if s > 0 && s % 60 == 0 => format!("{} min", s / 60),
        (s, 0) => format!("{s} s"),
        _ => format!("{} ms", duration.as_millis()),
    }
}
