//! What the board tells: how one target stands, all of them at a moment, and what changed.

use std::{
    ops::Index,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::entry::shown;
use crate::health::{
    check::CheckKind,
    consensus::{Consensus, Sees},
    history::Standing,
    probe::{ProbeError, ProbeResult},
    target::{Target, TargetId},
    verdict::State,
};

/// What is known of one target. Cloning shares everything but a few words.
#[derive(Debug, Clone)]
pub struct TargetStatus {
    /// Endpoint, check, and the names of the check.
    pub target: Arc<Target>,
    /// What this server's own results say, hold-downs aside.
    pub state: State,
    /// What answers go by: the servers of a cluster together, or this one alone.
    pub counts_as: Sees,
    /// What the servers of a cluster see together; `None` where this one goes by its own view.
    pub consensus: Option<Consensus>,
    /// A result has come in; until then `state` is an assumption.
    pub decided: bool,
    /// The state may change soon.
    pub in_doubt: bool,
    /// The fewest further probes that can change the state, from 1 up.
    pub checks_left: u32,
    /// While in doubt: `checks_left` × `fast-interval`, the most that a TTL should promise.
    pub ttl_bound: Option<Duration>,
    /// It fails, but the prober distrusts itself, so that it still counts as up.
    pub kept: bool,
    /// It changed too often and is held down, whatever `state` says.
    pub held: Option<Held>,
    /// Since when this server sees it as it does.
    pub since: SystemTime,
    /// Since when answers go by what they do.
    pub counts_since: SystemTime,
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
    /// True when answers use the target: it is up, and not held down.
    pub fn is_up(&self) -> bool {
        self.counts_as == Sees::Up
    }

    /// How it stands, as people are told.
    pub fn standing(&self) -> Standing {
        match self.counts_as {
            Sees::Held => Standing::Held,
            Sees::Up => Standing::Up,
            Sees::Down => Standing::Down,
        }
    }

    /// How this server sees it by itself.
    pub fn own_view(&self) -> Sees {
        match (self.state, self.held) {
            (State::Down, _) => Sees::Down,
            (State::Up, Some(_)) => Sees::Held,
            (State::Up, None) => Sees::Up,
        }
    }

    /// It reports by itself, and has not done so to this server in time: others may know more.
    pub fn lacks_heartbeat(&self) -> bool {
        let is_push = matches!(self.target.check().kind, CheckKind::Push { .. });
        let newest = self.last_result.as_ref().map(|(_, result)| &result.outcome);
        is_push && matches!(newest, Some(Err(ProbeError::NoHeartbeat { .. })))
    }

    /// Why answers do not use it, for people: who sees it down, why it is held down, or its newest failure.
    pub fn trouble(&self) -> String {
        let failed = || self.last_error.as_ref().map_or_else(|| "down".to_string(), |(_, error)| error.to_string());
        let own = || self.held_because().unwrap_or_else(failed);
        match &self.consensus {
            None => own(),
            Some(consensus) if self.own_view() == Sees::Up => format!("{}, not this one", consensus.summary()),
            Some(consensus) => format!("{}; from here: {}", consensus.summary(), own()),
        }
    }

    /// Why it is held down, for people; `None` when it is not.
    pub fn held_because(&self) -> Option<String> {
        let (held, window) = (self.held?, shown(self.target.check().damping.window));
        let further = if held.further > 0 { format!(", {} more while held", held.further) } else { String::new() };
        Some(format!("held down until it keeps still: {} changes within {window}{further}", held.changes))
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

/// A hold-down that is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// When it began.
    pub since: SystemTime,
    /// When it ends, if the target keeps still until then.
    pub until: SystemTime,
    /// Changes within the check's window when it was last prolonged, at most one more than the check allows.
    pub changes: u32,
    /// Changes since it began.
    pub further: u32,
}

/// That the prober distrusts itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelfDoubtStatus {
    /// Since when.
    pub since: SystemTime,
    /// What made it doubt, in words.
    pub reason: Arc<str>,
}

/// Everything known at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Which list of targets the ids belong to: the number that [`Board::adopt`](super::Board::adopt) gave for it.
    pub epoch: u64,
    /// Rises with every change that answers depend on.
    pub generation: u64,
    /// By [`TargetId`].
    pub statuses: Arc<[TargetStatus]>,
    /// Present while the prober distrusts itself.
    pub self_doubt: Option<SelfDoubtStatus>,
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
    /// To be given to [`Board::changes_since`](super::Board::changes_since) the next time.
    pub generation: u64,
    /// The prober distrusts itself.
    pub is_doubting: bool,
    /// How the targets stand now that answers may have to follow: those that changed, or all of them.
    pub statuses: Vec<(TargetId, TargetStatus)>,
}
