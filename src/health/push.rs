//! Targets that report by themselves: who was heard when, and when silence is a failure. Knows nothing of how reports come in.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    probe::{ProbeError, ProbeResult},
    target::{TargetKey, Targets},
};

/// When each target was last heard.
#[derive(Debug, Default)]
pub struct Heartbeats(Mutex<HashMap<TargetKey, Instant>>);

impl Heartbeats {
    /// A target was heard, whatever it had to say.
    pub(super) fn note(&self, key: &TargetKey, now: Instant) {
        self.lock().insert(key.clone(), now);
    }

    /// When it was heard.
    pub(super) fn heard(&self, key: &TargetKey) -> Option<Instant> {
        self.lock().get(key).copied()
    }

    /// Forgets those that are not on the list.
    pub(super) fn keep(&self, targets: &Targets) {
        let mut heard = self.lock();
        if !heard.is_empty() {
            let old = std::mem::take(&mut *heard);
            let kept = targets.list().iter().filter_map(|target| old.get_key_value(&target.key));
            *heard = kept.map(|(key, at)| (key.clone(), *at)).collect();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TargetKey, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a heartbeat counts as.
pub fn heartbeat(up: bool) -> ProbeResult {
    ProbeResult { outcome: if up { Ok(()) } else { Err(ProbeError::ReportedDown) }, ..ProbeResult::default() }
}

/// What an interval without a heartbeat counts as.
pub fn silence(interval: Duration) -> ProbeResult {
    ProbeResult::failed(ProbeError::NoHeartbeat { within: interval }, Duration::ZERO)
}
