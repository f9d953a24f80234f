//! When does a target change so often that it is held down, and for how long: the state machine over changes, and nothing else.
//!
//! Pure: the time comes as an argument. It must never know a clock, a probe, or which target it judges; that a hold-down never
//! takes the last usable region is for those to see who know regions.
#![deny(clippy::disallowed_methods)]

use std::{collections::VecDeque, time::Duration};

/// When a target is held down, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rules {
    /// Changes within [`Rules::window`] that are still taken for ordinary, 0 to 50; 0: nothing is ever held down.
    pub changes_max: u32,
    /// The time in which changes are counted. So long without one also takes back one doubling.
    pub window: Duration,
    /// How long a target must have kept still to be released the first time.
    pub hold: Duration,
    /// The most that this grows to; at least [`Rules::hold`].
    pub hold_max: Duration,
}

impl Rules {
    /// Nothing is ever held down.
    pub const OFF: Rules =
        Rules { changes_max: 0, window: Duration::ZERO, hold: Duration::ZERO, hold_max: Duration::ZERO };

    /// How long the hold-down number `level` (from 1 up) lasts.
    fn lasts(&self, level: u32) -> Duration {
        self.hold.saturating_mul(1 << level.saturating_sub(1).min(LEVEL_MAX)).min(self.hold_max)
    }
}

/// The default of `flap-changes`: four outages within ten minutes are ordinary, the fifth is flapping.
pub const CHANGES_MAX: u32 = 8;
/// More doublings than any two durations of the configuration are apart.
const LEVEL_MAX: u32 = 30;

/// A hold-down that is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// When it began.
    pub since: Duration,
    /// When it ends, if the target keeps still until then.
    pub until: Duration,
}

/// What is held of a target's changes. Times count from any fixed moment and never run backwards.
///
/// ```text
///            more than `changes_max` changes within `window`: doubled, up to `hold_max`
///          ┌───────────────────────────────────────────────────────────────┐
///          │                                                               ▼   another such change: the time begins anew
///        free ◀──────────── kept still for the hold-down's length ─────── held ──┐
///          │ ▲                                                              ▲    │
///          └─┘ each `window` without a change takes one doubling back       └────┘
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Damping {
    /// The newest changes, oldest first, at most `changes_max` and one.
    changes: VecDeque<Duration>,
    /// Hold-downs that count: the next one is the hold of the number after this.
    level: u32,
    hold: Option<Hold>,
    /// Changes since the hold-down began.
    further: u32,
    /// Since when nothing happened that counts against it: the last change, or the end of the last hold-down.
    calm_since: Duration,
}

/// What of [`Damping`] outlives the process, in milliseconds before or after the moment of writing.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Remembered {
    /// Ages of the newest changes, oldest first.
    changes_ms: Vec<u64>,
    level: u32,
    /// Age of the hold-down that is on, and what is left of it.
    hold_ms: Option<(u64, u64)>,
    #[serde(default)]
    further: u32,
    calm_ms: u64,
}

impl Damping {
    /// Takes in a change of the target's state at `now`. True when a hold-down began with it.
    pub fn change(&mut self, now: Duration, rules: &Rules) -> bool {
        if rules.changes_max == 0 {
            return false;
        }
        self.release(now);
        self.level = self.level(now, rules);
        if self.hold.is_none() {
            self.calm_since = now;
        }
        self.changes.push_back(now);
        while self.changes.len() > rules.changes_max as usize + 1 {
            self.changes.pop_front();
        }
        if self.count(now, rules) <= rules.changes_max {
            return false;
        }
        let begins = self.hold.is_none();
        self.level += u32::from(begins);
        self.further = if begins { 0 } else { self.further.saturating_add(1) };
        let since = self.hold.map_or(now, |hold| hold.since);
        let until = now + rules.lasts(self.level);
        self.hold = Some(Hold { since, until });
        self.calm_since = until;
        begins
    }

    /// Takes back the last change, which turned out to be none. The hold-down that began with it goes, too.
    pub fn take_back(&mut self) {
        let Some(last) = self.changes.pop_back() else { return };
        if self.hold.is_some_and(|hold| hold.since == last) {
            self.hold = None;
            self.level = self.level.saturating_sub(1);
            self.calm_since = last;
        }
        self.further = self.further.saturating_sub(1);
    }

    /// Ends the hold-down if its time is over. True when it did.
    pub fn release(&mut self, now: Duration) -> bool {
        self.hold.take_if(|hold| now >= hold.until).is_some()
    }

    /// Ends the hold-down whatever its time: other rules hold now.
    pub fn end(&mut self) {
        self.hold = None;
    }

    /// The hold-down that is on. It stays until [`Damping::release`] ends it.
    pub fn hold(&self) -> Option<Hold> {
        self.hold
    }

    /// Changes since the hold-down that is on began.
    pub fn further(&self) -> u32 {
        self.further
    }

    /// When the newest change came.
    pub fn last_change(&self) -> Option<Duration> {
        self.changes.back().copied()
    }

    /// Changes within the window before `now`, as far as they are kept.
    pub fn count(&self, now: Duration, rules: &Rules) -> u32 {
        self.changes.iter().filter(|at| now.saturating_sub(**at) < rules.window).count() as u32
    }

    /// How many hold-downs count at `now`.
    pub fn level(&self, now: Duration, rules: &Rules) -> u32 {
        let calm = now.saturating_sub(self.calm_since).as_millis();
        let windows = calm.checked_div(rules.window.as_millis()).unwrap_or(0);
        self.level.saturating_sub(u32::try_from(windows).unwrap_or(u32::MAX))
    }

    /// What to keep over a restart; `None` where there is nothing.
    pub fn remember(&self, now: Duration) -> Option<Remembered> {
        let age = |at: Duration| ms(now.saturating_sub(at));
        (!self.changes.is_empty()).then(|| Remembered {
            changes_ms: self.changes.iter().map(|at| age(*at)).collect(),
            level: self.level,
            hold_ms: self.hold.map(|hold| (age(hold.since), ms(hold.until.saturating_sub(now)))),
            further: self.further,
            calm_ms: age(self.calm_since),
        })
    }

    /// As it was when it was remembered, `gap` before `now`, under rules that may be others by now. What lies before the moment
    /// that times count from is left out.
    pub fn recalled(remembered: &Remembered, gap: Duration, now: Duration, rules: &Rules) -> Damping {
        if rules.changes_max == 0 {
            return Damping::default();
        }
        let ago = |age_ms: u64| now.checked_sub(gap.saturating_add(Duration::from_millis(age_ms)));
        let kept = remembered.changes_ms.iter().rev().take(CHANGES_KEPT).rev();
        let hold = remembered.hold_ms.and_then(|(age_ms, left_ms)| {
            let left = Duration::from_millis(left_ms).checked_sub(gap).filter(|left| !left.is_zero())?;
            Some(Hold { since: ago(age_ms).unwrap_or_default(), until: now + left.min(rules.hold_max) })
        });
        let calm_since = hold.map(|hold| hold.until).or_else(|| ago(remembered.calm_ms)).unwrap_or_default();
        let level = remembered.level.min(LEVEL_MAX);
        let further = remembered.further;
        Damping { changes: kept.filter_map(|age_ms| ago(*age_ms)).collect(), level, hold, further, calm_since }
    }
}

/// Most changes that are read back, whatever a file says.
const CHANGES_KEPT: usize = 51;

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
