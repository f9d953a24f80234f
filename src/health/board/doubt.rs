//! Self-doubt over the entries of the board: which of them count, which fail, and what becomes of them when it begins and ends.

use std::time::{Duration, Instant, SystemTime};

use super::{
    Board, SelfDoubtStatus,
    entry::{Entry, Evidence, shown},
};
use crate::health::{
    rise::Rise,
    self_doubt::{Ending, Parts, SelfDoubt, Totals, Trouble},
};

/// A target whose interval is longer than that of those that fail by more than this may have had no turn since they began to:
/// until it has one it says nothing. All others will say something in a moment, and are waited for.
const SLOW_FROM: u32 = 2;

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
    /// By the region's number.
    regions: Vec<Region>,
    /// The region that the prober stands in.
    home: Option<u16>,
}

/// How many targets of a region are clear: up, and answered when they were last asked.
#[derive(Debug, Clone, Copy, Default)]
struct Region {
    all: usize,
    clear: usize,
    /// Those of the clear ones that are never left out for being slow.
    quick: usize,
}

impl Region {
    /// Most of it can be failing, as far as these numbers tell.
    fn may_fail(self) -> bool {
        self.all - self.clear > self.quick
    }
}

impl Doubter {
    pub fn is_on(&self) -> bool {
        self.doubt.is_on()
    }

    pub fn status(&self) -> Option<SelfDoubtStatus> {
        self.status.clone()
    }

    /// Counts anew: there is another list of targets.
    pub fn regroup(&mut self, entries: &mut [Entry], home: Option<u16>) {
        self.home = home;
        self.regions.clear();
        let shortest = entries.iter().map(|entry| entry.target.check().interval).min().unwrap_or_default();
        for entry in entries.iter_mut() {
            entry.quick = entry.target.check().interval <= shortest * SLOW_FROM;
            let at = usize::from(entry.region);
            if self.regions.len() <= at {
                self.regions.resize(at + 1, Region::default());
            }
            self.regions[at].all += 1;
            self.note_clear(entry, false);
        }
        let counted = entries.iter().filter(|entry| entry.counted);
        if let Some(ending) = self.doubt.regroup(Parts::of(home, counted.map(|e| (e.region, e.fails)))) {
            self.end(ending);
        }
    }

    /// A target was clear or was not, and may be otherwise now.
    pub fn note_clear(&mut self, entry: &Entry, before: bool) {
        let (Some(region), after) = (self.regions.get_mut(usize::from(entry.region)), entry.is_clear()) else { return };
        region.clear = region.clear + usize::from(after) - usize::from(before);
        if entry.quick {
            region.quick = region.quick + usize::from(after) - usize::from(before);
        }
    }

    /// Takes in that the target at `at` had a result, and whether it fell with it. True when self-doubt began or ended.
    pub fn follow(&mut self, entries: &mut [Entry], at: usize, fell: bool, age: Duration, wall: SystemTime) -> bool {
        if !self.is_on() {
            let trouble = entries[at].trouble().filter(|_| fell && self.is_conceivable());
            return trouble.is_some_and(|trouble| self.begin(entries, &trouble, age, wall));
        }
        let entry = &mut entries[at];
        let fails = entry.fails_silently();
        let ending = match entry.counted {
            true if entry.fails != fails => self.doubt.turned(entry.region, fails),
            false if entry.is_clear() => {
                entry.counted = true;
                self.doubt.came_up(entry.region)
            }
            false if fell && fails => {
                entry.counted = true;
                self.doubt.joined(entry.region);
                None
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

    /// False where a look at all targets would be in vain: too much of a region answers. Without this, thousands of targets of one
    /// region that fall would each look at all others.
    fn is_conceivable(&self) -> bool {
        let (mut failing, mut unheard) = (0, 0);
        for (region, at) in self.regions.iter().zip(0u16..).filter(|(region, _)| region.all > 0) {
            match region.may_fail() {
                true => failing += 1,
                false if self.home == Some(at) => {}
                false if region.quick > 0 => return false,
                false => unheard += 1, // all are clear, and slow
            }
        }
        failing >= 2 && failing > unheard
    }

    /// Looks at all targets, and begins to doubt if their failure is a common one: those that fell in it count as up again.
    fn begin(&mut self, entries: &mut [Entry], trouble: &Trouble, age: Duration, wall: SystemTime) -> bool {
        let failing = entries.iter().filter(|entry| entry.evidence(trouble) == Evidence::Fails);
        let longest = failing.map(|entry| entry.target.check().interval).max().unwrap_or_default();
        let is_slow = |entry: &Entry| entry.target.check().interval > longest * SLOW_FROM;
        let mut parts = Parts::of(self.home, []);
        for entry in entries.iter() {
            match entry.evidence(trouble) {
                Evidence::Nothing => {}
                Evidence::Unheard if is_slow(entry) => parts.leave_out(entry.region),
                evidence => parts.add(entry.region, evidence == Evidence::Fails),
            }
        }
        let totals = parts.totals();
        if !self.doubt.fell(age, parts) {
            return false;
        }
        let reason = reason(&totals);
        tracing::warn!(reason, "the prober distrusts itself; the last verdicts stay");
        for entry in entries.iter_mut() {
            let evidence = entry.evidence(trouble);
            entry.counted = match evidence {
                Evidence::Nothing => false,
                Evidence::Unheard => !is_slow(entry),
                Evidence::Fails | Evidence::Works => true,
            };
            entry.fails = evidence == Evidence::Fails;
            if entry.fails && entry.has_fallen() {
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
            Ending::TooLong(lasted) => format!("everything has failed for {}, which is now believed", shown(lasted)),
        };
        tracing::warn!(reason = why, "the prober trusts itself again; what fails its next probe is down");
    }
}

/// What makes the prober doubt, in words.
fn reason(totals: &Totals) -> String {
    let Totals { failing, counted, regions, unheard, home_answers } = *totals;
    let all = if failing == counted { "all".to_string() } else { format!("{failing} of") };
    let home = if home_answers { " but its own" } else { "" };
    let unheard = match unheard {
        0 => String::new(),
        n => format!(" ({n} that are asked more rarely have had no turn since)"),
    };
    format!(
        "{all} {counted} endpoints that were up, in all of {regions} regions{home}, stopped answering together{unheard}: that looks \
         like this host's own network"
    )
}
