//! One of the other servers: what it said, and whether that still counts. Pure: messages and times go in.
#![deny(clippy::disallowed_methods)]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use hashbrown::HashMap;

use super::{
    super::message::{Beat, Delta, Observation, Snapshot},
    Taken,
};
use crate::health::{consensus::View, identity::Identity};

/// A view counts for so long after it was last confirmed. Where nobody is heard any more, all that counted until then cease to
/// count at one moment, so long after the last message: it is this server that is cut off, and those whose beat was due first
/// are no more silent than the others.
pub const FRESH_FOR: Duration = Duration::from_secs(6);
/// Nobody is heard any more when so long nothing came: beats come every two seconds.
const SILENCE: Duration = Duration::from_millis(2500);
/// Most views of one server.
const VIEWS_MAX: usize = 200_000;
/// We ask a server again after so long at the soonest.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// How another server sees a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// What it sees.
    pub view: View,
    /// Since when, by our clock.
    pub since: SystemTime,
    /// Its connect time, if it ever connected.
    pub connect: Option<Duration>,
}

/// Another server.
#[derive(Debug)]
pub struct Peer {
    /// Its newest beat.
    pub beat: Beat,
    /// When its views were last confirmed.
    pub(super) confirmed: Option<Instant>,
    /// When anything was heard of it.
    pub heard: Instant,
    /// Its views counted when we last looked.
    pub counts: bool,
    /// What is wrong with what it says, and when that was.
    pub(super) problem: Option<(String, Instant)>,
    pub(super) run: u64,
    pub(super) seq: u64,
    pub(super) views: HashMap<Identity, Seen>,
    /// Deltas that came before the one that they follow, by number.
    pub(super) waiting: BTreeMap<u64, Delta>,
    /// Parts of a snapshot that is on its way.
    pub(super) gathering: Vec<Option<Snapshot>>,
    asked: Option<Instant>,
    /// The run before, to tell two servers of one name.
    run_before: u64,
}

impl Peer {
    pub(super) fn new(now: Instant) -> Peer {
        Peer {
            beat: Beat::default(),
            confirmed: None,
            heard: now,
            counts: false,
            problem: None,
            run: 0,
            seq: 0,
            views: HashMap::new(),
            waiting: BTreeMap::new(),
            gathering: Vec::new(),
            asked: None,
            run_before: 0,
        }
    }

    /// Views that it has told us.
    pub fn views_count(&self) -> usize {
        self.views.len()
    }

    /// `heard`: when anything was heard of anybody.
    pub(super) fn is_fresh(&self, heard: Option<Instant>, now: Instant) -> bool {
        let Some(confirmed) = self.confirmed else { return false };
        let last = heard.map_or(confirmed, |heard| heard.max(confirmed));
        let silent_for = now.saturating_duration_since(last);
        match silent_for < SILENCE {
            true => now.saturating_duration_since(confirmed) < FRESH_FOR,
            false => silent_for < FRESH_FOR && last - confirmed < FRESH_FOR - SILENCE,
        }
    }

    pub(super) fn is_at(&self, run: u64, seq: u64) -> bool {
        self.run == run && self.seq == seq
    }

    /// What was wrong with what it said lately.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_ref().map(|(problem, _)| problem.as_str())
    }

    pub(super) fn see(&mut self, observations: &[Observation], wall: SystemTime, targets: &mut Vec<Identity>) {
        for seen in observations {
            let connect = (seen.connect_us > 0).then(|| Duration::from_micros(seen.connect_us));
            let since = wall.checked_sub(Duration::from_secs(seen.age_s)).unwrap_or(SystemTime::UNIX_EPOCH);
            match seen.view() {
                Some(view) if self.views.len() < VIEWS_MAX || self.views.contains_key(&seen.target) => {
                    self.views.insert(seen.target, Seen { view, since, connect });
                }
                Some(_) => {
                    self.problem = Some((format!("it has views of more than {VIEWS_MAX} targets"), self.heard));
                }
                None => drop(self.views.remove(&seen.target)),
            }
            targets.push(seen.target);
        }
    }

    /// Forgets all views where a new run has just begun, which begins with none.
    pub(super) fn begin(&mut self, run: u64, seq: u64, targets: &mut Vec<Identity>) {
        if run != self.run && seq <= 1 {
            targets.extend(self.views.drain().map(|(target, _)| target));
            (self.run, self.seq) = (run, 0);
        }
    }

    /// Takes in the deltas that follow the newest, as far as they are there.
    pub(super) fn catch_up(&mut self, wall: SystemTime, targets: &mut Vec<Identity>) {
        let run = self.run;
        self.waiting.retain(|_, delta| delta.run == run);
        while let Some(next) = self.waiting.remove(&(self.seq + 1)) {
            self.see(&next.views, wall, targets);
            self.seq += 1;
        }
        let seq = self.seq;
        self.waiting.retain(|number, _| *number > seq);
    }

    /// True when we should ask, and have not done so just now.
    pub(super) fn asks(&mut self, now: Instant) -> bool {
        let is_due = self.asked.is_none_or(|asked| now.saturating_duration_since(asked) >= ASK_AGAIN);
        if is_due {
            self.asked = Some(now);
        }
        is_due
    }

    /// Notes a new run; two that take turns are two servers of one name.
    pub(super) fn note_run(&mut self, run: u64) {
        if run == self.beat.run {
            return;
        }
        if run == self.run_before && run != 0 {
            let problem = "two servers have this name; give each a `node` of its own in [cluster]";
            self.problem = Some((problem.into(), self.heard));
        }
        self.run_before = self.beat.run;
    }

    /// All views of the sender are what it says now. Those that did not count until now begin to.
    pub(super) fn confirm(&mut self, now: Instant, mut targets: Vec<Identity>) -> Taken {
        self.confirmed = Some(now);
        let is_new = !std::mem::replace(&mut self.counts, true);
        if is_new {
            targets.extend(self.views.keys());
            targets.sort_unstable();
            targets.dedup();
        }
        Taken { targets, asks: false, is_new }
    }
}
