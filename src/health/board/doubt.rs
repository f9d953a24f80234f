//! Self-doubt over the entries of the board: which of them count, which fail, and what becomes of them when it begins and ends.

use std::time::{Duration, Instant, SystemTime};

use super::{
    Board, SelfDoubtStatus,
    entry::{Entry, shown},
};
use crate::health::{
    rise::Rise,
    self_doubt::{Ending, LASTS_MAX, Parts, SelfDoubt},
};

impl Board {
    /// By how much it takes longer than usual to connect to each region, by its number below `regions`; `None`: not known, as of all
    /// while the prober distrusts itself.
    pub fn rises(&self, regions: usize, now: Instant) -> Vec<Option<Rise>> {
        let (age, is_doubting) = {
            let inner = self.lock();
            (inner.age(now), inner.doubter.is_on())
        };
        if is_doubting { vec![None; regions] } else { self.connecting.rises(regions, age) }
    }
}

/// Self-doubt, and what makes it cheap to ask for.
#[derive(Debug, Default)]
pub(super) struct Doubter {
    doubt: SelfDoubt,
    status: Option<SelfDoubtStatus>,
    /// By region: targets, and how many of them are up and answered when they were last asked.
    clear: Vec<(usize, usize)>,
}

impl Doubter {
    pub fn is_on(&self) -> bool {
        self.doubt.is_on()
    }

    pub fn status(&self) -> Option<SelfDoubtStatus> {
        self.status.clone()
    }

    /// Counts anew: there is another list of targets.
    pub fn regroup(&mut self, entries: &mut [Entry]) {
        self.clear.clear();
        for entry in &*entries {
            let at = usize::from(entry.region);
            if self.clear.len() <= at {
                self.clear.resize(at + 1, (0, 0));
            }
            self.clear[at].0 += 1;
            self.clear[at].1 += usize::from(entry.is_clear());
        }
        let counted = entries.iter().filter(|entry| entry.counted);
        if let Some(ending) = self.doubt.regroup(Parts::of(counted.map(|e| (e.region, e.fails)))) {
            self.end(ending);
        }
    }

    pub fn note_clear(&mut self, region: u16, before: bool, after: bool) {
        if let Some((_, clear)) = self.clear.get_mut(usize::from(region)) {
            *clear = *clear + usize::from(after) - usize::from(before);
        }
    }

    /// Takes in that the target at `at` had a result, and whether it fell with it. True when self-doubt began or ended.
    pub fn follow(&mut self, entries: &mut [Entry], at: usize, fell: bool, age: Duration, wall: SystemTime) -> bool {
        if !self.is_on() {
            return fell && self.is_conceivable() && self.begin(entries, age, wall);
        }
        let entry = &mut entries[at];
        let fails = entry.fails_silently();
        let ending = match entry.counted {
            true if entry.fails != fails => self.doubt.turned(entry.region, fails),
            false if entry.is_clear() => {
                entry.counted = true;
                self.doubt.came_up(entry.region)
            }
            _ => None,
        };
        entry.fails = fails;
        match ending {
            None if fell && fails => {
                let reason = self.status.as_ref().map(|status| status.reason.clone()).unwrap_or_default();
                entry.keep(wall, &reason);
            }
            None => {}
            Some(ending) => self.end(ending),
        }
        ending.is_some()
    }

    /// Time has passed. True when self-doubt ended by it.
    pub fn wake(&mut self, age: Duration) -> bool {
        let ending = self.doubt.wake(age);
        ending.into_iter().for_each(|ending| self.end(ending));
        ending.is_some()
    }

    /// False where a look at all targets would be in vain: a region in which half of them all answer is not failing. Without this,
    /// thousands of targets of one region that fall would each look at all others.
    fn is_conceivable(&self) -> bool {
        let regions = || self.clear.iter().filter(|(all, _)| *all > 0);
        regions().count() >= 2 && regions().all(|(all, clear)| 2 * clear < *all)
    }

    /// Looks at all targets, and begins to doubt if their failure is a common one: those that fell in it count as up again.
    fn begin(&mut self, entries: &mut [Entry], age: Duration, wall: SystemTime) -> bool {
        let lately = entries.iter().filter(|entry| entry.was_up_lately(age));
        let parts = Parts::of(lately.map(|entry| (entry.region, entry.fails_silently_lately(age))));
        let (failing, counted, regions) = parts.totals();
        if !self.doubt.fell(age, parts) {
            return false;
        }
        let all = if failing == counted { "all".to_string() } else { format!("{failing} of") };
        let reason = format!(
            "{all} {counted} endpoints that were up, in all of {regions} regions, stopped answering together: that looks like \
             this host's own network"
        );
        tracing::warn!(reason, "the prober distrusts itself; the last verdicts stay");
        for entry in entries.iter_mut() {
            entry.counted = entry.was_up_lately(age);
            entry.fails = entry.fails_silently();
            if entry.counted && entry.fails_silently_lately(age) && entry.has_fallen() {
                entry.keep(wall, &reason);
            }
        }
        self.status = Some(SelfDoubtStatus { since: wall, reason: reason.into() });
        true
    }

    fn end(&mut self, ending: Ending) {
        self.status = None;
        let why = match ending {
            Ending::NotCommon => "not all regions fail any more".to_string(),
            Ending::TooLong => format!("everything has failed for {}, which is now believed", shown(LASTS_MAX)),
        };
        tracing::warn!(reason = why, "the prober trusts itself again; what fails its next probe is down");
    }
}
