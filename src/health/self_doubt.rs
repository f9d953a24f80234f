//! Is it the targets that fail, or the prober? The state machine of self-doubt, and nothing else.
//!
//! Targets in unrelated regions do not all fail within the same few seconds, but a prober that lost its own network sees exactly
//! that. So when **every** region that had anything up is losing most of it at the same time, the prober takes that for its own
//! trouble and keeps what it last knew. One region that still answers is proof that the prober works: whatever fails beside it
//! is down, at once and without doubt. Hence there are at least two regions, or none of this applies.
//!
//! Pure: the time comes as an argument. It must never know a clock, a probe or a target's name; regions are numbers.
#![deny(clippy::disallowed_methods)]

use std::time::Duration;

/// How long the prober distrusts itself at most. What was known an hour ago is no knowledge any more: then what fails is down.
pub const LASTS_MAX: Duration = Duration::from_secs(3600);

/// A region's part: targets that count, and how many of them fail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Part {
    /// Targets that were up before the trouble.
    counted: u32,
    /// Those of them that fail.
    failing: u32,
}

impl Part {
    fn is_failing(self) -> bool {
        2 * self.failing > self.counted
    }
}

/// The regions' parts, by the region's number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts(Vec<Part>);

impl Parts {
    /// Counts targets that were up before the trouble: each with its region and whether it fails.
    pub fn of(targets: impl IntoIterator<Item = (u16, bool)>) -> Parts {
        let mut parts = Parts::default();
        targets.into_iter().for_each(|(region, fails)| parts.add(region, fails));
        parts
    }

    fn add(&mut self, region: u16, fails: bool) {
        let at = usize::from(region);
        if self.0.len() <= at {
            self.0.resize(at + 1, Part::default());
        }
        self.0[at].counted += 1;
        self.0[at].failing += u32::from(fails);
    }

    /// Every region that had something up is losing most of it, and there are at least two.
    pub fn is_common(&self) -> bool {
        let regions = || self.0.iter().filter(|part| part.counted > 0);
        regions().count() >= 2 && regions().all(|part| part.is_failing())
    }

    /// Targets that fail, targets that count, and their regions.
    pub fn totals(&self) -> (u32, u32, usize) {
        let sum = |of: fn(&Part) -> u32| self.0.iter().map(of).sum();
        (sum(|part| part.failing), sum(|part| part.counted), self.0.iter().filter(|part| part.counted > 0).count())
    }

    fn turn(&mut self, region: u16, fails: bool) {
        if let Some(part) = self.0.get_mut(usize::from(region)) {
            part.failing = if fails { part.failing + 1 } else { part.failing.saturating_sub(1) };
        }
    }
}

/// Why self-doubt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A region answers again, or there is none left to compare with.
    NotCommon,
    /// It lasted [`LASTS_MAX`].
    TooLong,
}

/// Whether the prober trusts itself.
///
/// ```text
///                   a target falls while every region loses most of what was up (two or more regions)
///       Trusting ───────────────────────────────────────────────────────────────────────────────────▶ Doubting
///           ▲                                                                                            │
///           └──── a region has half of its targets back │ too few regions left │ an hour has passed ─────┘
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SelfDoubt {
    /// What fails is down.
    #[default]
    Trusting,
    /// What was up when it began counts as up.
    Doubting {
        /// When it began.
        since: Duration,
        /// The targets that were up before the trouble.
        parts: Parts,
    },
}

impl SelfDoubt {
    /// True while the prober distrusts itself.
    pub fn is_on(&self) -> bool {
        matches!(self, SelfDoubt::Doubting { .. })
    }

    /// A target is about to fall: begins to doubt if `parts` show a common failure. True when it did.
    pub fn fell(&mut self, now: Duration, parts: Parts) -> bool {
        let begins = !self.is_on() && parts.is_common();
        if begins {
            *self = SelfDoubt::Doubting { since: now, parts };
        }
        begins
    }

    /// A target that counts began to fail or to succeed, in `region`.
    pub fn turned(&mut self, region: u16, fails: bool) -> Option<Ending> {
        let SelfDoubt::Doubting { parts, .. } = self else { return None };
        parts.turn(region, fails);
        (!parts.is_common()).then(|| self.end(Ending::NotCommon))
    }

    /// A target that did not count, since it was down before the trouble or is new, has come up in `region`.
    pub fn came_up(&mut self, region: u16) -> Option<Ending> {
        let SelfDoubt::Doubting { parts, .. } = self else { return None };
        parts.add(region, false);
        (!parts.is_common()).then(|| self.end(Ending::NotCommon))
    }

    /// The list of targets has changed; `parts` has those that still count.
    pub fn regroup(&mut self, now_counted: Parts) -> Option<Ending> {
        let SelfDoubt::Doubting { parts, .. } = self else { return None };
        *parts = now_counted;
        (!parts.is_common()).then(|| self.end(Ending::NotCommon))
    }

    /// Time has passed.
    pub fn wake(&mut self, now: Duration) -> Option<Ending> {
        let SelfDoubt::Doubting { since, .. } = self else { return None };
        (now.saturating_sub(*since) >= LASTS_MAX).then(|| self.end(Ending::TooLong))
    }

    fn end(&mut self, ending: Ending) -> Ending {
        *self = SelfDoubt::Trusting;
        ending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100_000);

    /// `(up, failing)` of each region.
    fn parts(regions: &[(u32, u32)]) -> Parts {
        let targets = (0..).zip(regions).flat_map(|(region, &(up, failing))| {
            (0..up).map(move |_| (region, false)).chain((0..failing).map(move |_| (region, true)))
        });
        Parts::of(targets)
    }

    /// Every way in which up to three regions can have up to four targets that answer and four that fail.
    fn each_state(mut visit: impl FnMut(&[(u32, u32)])) {
        let region = || (0..5).flat_map(|up| (0..5).map(move |failing| (up, failing)));
        for a in region() {
            visit(&[a]);
            for b in region() {
                visit(&[a, b]);
                region().for_each(|c| visit(&[a, b, c]));
            }
        }
    }

    #[test]
    fn one_region_that_answers_is_proof_enough_that_the_prober_works() {
        each_state(|regions| {
            let answers = regions.iter().any(|(up, failing)| *up > 0 && up >= failing);
            assert!(!(answers && parts(regions).is_common()), "{regions:?}");
        });
    }

    #[test]
    fn fewer_than_two_regions_with_anything_up_are_never_doubted() {
        each_state(|regions| {
            let known = regions.iter().filter(|(up, failing)| up + failing > 0).count();
            assert!(!(known < 2 && parts(regions).is_common()), "{regions:?}");
        });
    }

    #[test]
    fn two_or_more_regions_that_all_lose_most_of_what_was_up_are_doubted() {
        each_state(|regions| {
            let known: Vec<_> = regions.iter().filter(|(up, failing)| up + failing > 0).collect();
            let all_lose = known.iter().all(|(up, failing)| failing > up);
            assert_eq!(parts(regions).is_common(), known.len() >= 2 && all_lose, "{regions:?}");
        });
    }

    #[test]
    fn it_always_means_that_more_than_half_of_all_targets_fail() {
        each_state(|regions| {
            let parts = parts(regions);
            let (failing, counted, _) = parts.totals();
            assert!(!parts.is_common() || 2 * failing > counted, "{regions:?}");
        });
    }

    #[test]
    fn it_begins_with_a_fall_and_ends_when_a_region_has_half_of_its_targets_back() {
        let mut doubt = SelfDoubt::default();
        assert!(!doubt.fell(NOW, parts(&[(0, 4), (3, 1)])) && !doubt.is_on());
        assert!(doubt.fell(NOW, parts(&[(0, 4), (1, 3)])) && doubt.is_on());
        assert!(!doubt.fell(NOW, parts(&[(0, 4), (0, 4)])), "it is on already");
        assert_eq!(doubt.turned(1, true), None, "the last one fails, too");
        assert_eq!(doubt.turned(0, false), None, "one of four");
        assert_eq!(doubt.turned(1, false), None, "one of four");
        assert_eq!(doubt.turned(1, false), Some(Ending::NotCommon));
        assert!(!doubt.is_on());
        assert_eq!(doubt.turned(1, false), None);
    }

    #[test]
    fn it_ends_when_fewer_than_two_regions_are_left_to_compare() {
        let mut doubt = SelfDoubt::default();
        doubt.fell(NOW, parts(&[(0, 1), (0, 1), (0, 1)]));
        assert_eq!(doubt.regroup(parts(&[(0, 1), (0, 0), (0, 1)])), None);
        assert_eq!(doubt.regroup(parts(&[(0, 1)])), Some(Ending::NotCommon));
    }

    #[test]
    fn it_ends_when_a_region_that_was_down_before_comes_up() {
        let mut doubt = SelfDoubt::default();
        doubt.fell(NOW, parts(&[(0, 3), (0, 1)]));
        assert_eq!(doubt.came_up(0), None, "one beside three that fail");
        assert_eq!(doubt.came_up(2), Some(Ending::NotCommon));
    }

    #[test]
    fn it_lasts_an_hour_at_most() {
        let mut doubt = SelfDoubt::default();
        doubt.fell(NOW, parts(&[(0, 1), (0, 1)]));
        assert_eq!(doubt.wake(NOW + LASTS_MAX - Duration::from_millis(1)), None);
        assert_eq!(doubt.wake(NOW + LASTS_MAX), Some(Ending::TooLong));
        assert!(!doubt.is_on());
    }

    /// Whatever happens, the parts stay what a count of the targets gives, and the doubt is on exactly as long as that is common.
    #[test]
    fn every_way_of_coming_back_ends_it_at_the_first_moment_that_is_not_common() {
        let regions = [3usize, 2, 1];
        for order in 0u32..1 << 12 {
            let mut fails: Vec<Vec<bool>> = regions.iter().map(|n| vec![true; *n]).collect();
            let count = |fails: &[Vec<bool>]| {
                Parts::of((0..).zip(fails).flat_map(|(region, list)| list.iter().map(move |fails| (region, *fails))))
            };
            let mut doubt = SelfDoubt::default();
            doubt.fell(NOW, count(&fails));
            for step in 0..4 {
                let pick = (order >> (3 * step) & 7) as usize % 6;
                let (region, at) = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0)][pick];
                fails[region][at] = !fails[region][at];
                let ended = doubt.turned(region as u16, fails[region][at]);
                assert_eq!(ended.is_none(), count(&fails).is_common(), "{order:o} {step}");
                if ended.is_some() {
                    break;
                }
                assert_eq!(doubt, SelfDoubt::Doubting { since: NOW, parts: count(&fails) });
            }
        }
    }
}
