//! Is it the targets that fail, or the prober? The state machine of self-doubt, and nothing else.
//!
//! Targets in unrelated regions do not all fail at the same moment, but a prober that lost its own network sees exactly that. So
//! when **every** region that had anything up is losing most of it at the same time, the prober takes that for its own trouble and
//! keeps what it last knew. One region that still answers is proof that the prober works: whatever fails beside it is down, at once
//! and without doubt. Only the region that the prober stands in is no proof: it is reached without the way to all others. Hence
//! there are at least two regions that fail, or none of this applies.
//!
//! A region that is asked so rarely that nothing was heard of it since the trouble began proves nothing either way. It is left out,
//! unless there are as many of its kind as of those that fail.
//!
//! Pure: the time comes as an argument. It must never know a clock, a probe or a target's name; regions are numbers.
#![deny(clippy::disallowed_methods)]

use std::time::Duration;

/// How long the prober distrusts itself at most. What was known an hour ago is no knowledge any more: then what fails is down.
pub const LASTS_MAX: Duration = Duration::from_secs(3600);

/// The same where the region that the prober stands in answers: users could be sent there, so that a wrong doubt costs more.
pub const LASTS_MAX_BESIDE_HOME: Duration = Duration::from_secs(300);

/// The failure of one target. Times count from any fixed moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trouble {
    /// When it was last heard before.
    pub after: Duration,
    /// When its first failure was known: it really began somewhere between the two.
    pub since: Duration,
    /// How far apart two troubles may have begun and still be one: a network does not always go at one instant.
    pub spare: Duration,
}

impl Trouble {
    /// Both can have begun together.
    pub fn is_one_with(&self, other: &Trouble) -> bool {
        let spare = self.spare.max(other.spare);
        self.after <= other.since.saturating_add(spare) && other.after <= self.since.saturating_add(spare)
    }
}

/// A region's part: targets that count, and how many of them fail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Part {
    /// Targets that were up before the trouble.
    counted: u32,
    /// Those of them that fail.
    failing: u32,
    /// Targets that were up before as well, and are asked too rarely to have been heard since.
    unheard: u32,
}

impl Part {
    fn is_failing(self) -> bool {
        2 * self.failing > self.counted
    }

    fn answers(self) -> bool {
        self.counted > 0 && !self.is_failing()
    }

    fn is_unheard(self) -> bool {
        self.counted == 0 && self.unheard > 0
    }
}

/// The regions' parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// By the region's number.
    regions: Vec<Part>,
    /// The region that the prober stands in.
    home: Option<u16>,
}

/// What [`Parts`] come to, in the regions that matter: all but a home that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Targets that fail.
    pub failing: u32,
    /// Targets that count.
    pub counted: u32,
    /// Regions in which any counts.
    pub regions: usize,
    /// Targets that were left out.
    pub unheard: u32,
    /// The region that the prober stands in answers.
    pub home_answers: bool,
}

impl Parts {
    /// Counts targets that were up before the trouble: each with its region and whether it fails. `home`: the region that the
    /// prober stands in.
    pub fn of(home: Option<u16>, targets: impl IntoIterator<Item = (u16, bool)>) -> Parts {
        let mut parts = Parts { regions: Vec::new(), home };
        targets.into_iter().for_each(|(region, fails)| parts.add(region, fails));
        parts
    }

    /// Counts one more target that was up before the trouble.
    pub fn add(&mut self, region: u16, fails: bool) {
        let part = self.part(region);
        part.counted += 1;
        part.failing += u32::from(fails);
    }

    /// Notes one that was up before the trouble, and of which nothing is known since.
    pub fn leave_out(&mut self, region: u16) {
        self.part(region).unheard += 1;
    }

    fn part(&mut self, region: u16) -> &mut Part {
        let at = usize::from(region);
        if self.regions.len() <= at {
            self.regions.resize(at + 1, Part::default());
        }
        &mut self.regions[at]
    }

    /// The regions whose answers are proof: all but the one that the prober stands in.
    fn elsewhere(&self) -> impl Iterator<Item = Part> {
        let is_home = |at: usize| self.home.is_some_and(|home| usize::from(home) == at);
        self.regions.iter().enumerate().filter(move |(at, _)| !is_home(*at)).map(|(_, part)| *part)
    }

    /// Every region that had something up is losing most of it, and there are at least two; more than there are of those of which
    /// nothing was heard. The region that the prober stands in may answer.
    pub fn is_common(&self) -> bool {
        let failing = self.regions.iter().filter(|part| part.is_failing()).count();
        let unheard = self.elsewhere().filter(|part| part.is_unheard()).count();
        failing >= 2 && failing > unheard && !self.elsewhere().any(Part::answers)
    }

    fn home_answers(&self) -> bool {
        self.home.and_then(|home| self.regions.get(usize::from(home))).is_some_and(|part| part.answers())
    }

    /// All together.
    pub fn totals(&self) -> Totals {
        let home_answers = self.home_answers();
        let mut totals = Totals { failing: 0, counted: 0, regions: 0, unheard: 0, home_answers };
        let at_home = self.home.and_then(|home| self.regions.get(usize::from(home)).copied()).filter(|_| !home_answers);
        for part in self.elsewhere().chain(at_home) {
            totals.failing += part.failing;
            totals.counted += part.counted;
            totals.regions += usize::from(part.counted > 0);
            totals.unheard += part.unheard;
        }
        totals
    }

    fn turn(&mut self, region: u16, fails: bool) {
        if let Some(part) = self.regions.get_mut(usize::from(region)) {
            part.failing = if fails { part.failing + 1 } else { part.failing.saturating_sub(1) };
        }
    }
}

/// Why self-doubt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A region answers again, or there is none left to compare with.
    NotCommon,
    /// It lasted so long: [`LASTS_MAX`] or [`LASTS_MAX_BESIDE_HOME`].
    TooLong(Duration),
}

/// Whether the prober trusts itself.
///
/// ```text
///                   a target falls while every region loses most of what was up (two or more regions)
///       Trusting ───────────────────────────────────────────────────────────────────────────────────▶ Doubting
///           ▲                                                                                            │
///           └─── a region has half of its targets back │ too few regions left │ it has lasted too long ──┘
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

    /// A target that did not count, since nothing was heard of it, has fallen as well in `region`.
    pub fn joined(&mut self, region: u16) {
        if let SelfDoubt::Doubting { parts, .. } = self {
            parts.add(region, true);
        }
    }

    /// The list of targets has changed; `parts` has those that still count.
    pub fn regroup(&mut self, now_counted: Parts) -> Option<Ending> {
        let SelfDoubt::Doubting { parts, .. } = self else { return None };
        *parts = now_counted;
        (!parts.is_common()).then(|| self.end(Ending::NotCommon))
    }

    /// Time has passed.
    pub fn wake(&mut self, now: Duration) -> Option<Ending> {
        let SelfDoubt::Doubting { since, parts } = self else { return None };
        let lasts = if parts.home_answers() { LASTS_MAX_BESIDE_HOME } else { LASTS_MAX };
        (now.saturating_sub(*since) >= lasts).then(|| self.end(Ending::TooLong(lasts)))
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
        parts_from(None, regions)
    }

    fn parts_from(home: Option<u16>, regions: &[(u32, u32)]) -> Parts {
        let targets = (0..).zip(regions).flat_map(|(region, &(up, failing))| {
            (0..up).map(move |_| (region, false)).chain((0..failing).map(move |_| (region, true)))
        });
        Parts::of(home, targets)
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
            let Totals { failing, counted, .. } = parts.totals();
            assert!(!parts.is_common() || 2 * failing > counted, "{regions:?}");
        });
    }

    #[test]
    fn the_region_that_the_prober_stands_in_is_no_proof_and_beside_it_two_must_fail() {
        each_state(|regions| {
            let common = parts_from(Some(0), regions).is_common();
            let others: Vec<_> = regions[1..].iter().filter(|(up, failing)| up + failing > 0).collect();
            let all_others_lose = others.iter().all(|(up, failing)| failing > up);
            let failing = regions.iter().filter(|(up, failing)| failing > up).count();
            assert_eq!(common, all_others_lose && failing >= 2, "{regions:?}");
            assert!(common || !parts(regions).is_common(), "where all fail it makes no difference: {regions:?}");
        });
        let beside = parts_from(Some(0), &[(3, 0), (0, 2), (0, 1)]);
        let totals = Totals { failing: 3, counted: 3, regions: 2, unheard: 0, home_answers: true };
        assert_eq!(beside.totals(), totals);
        let mut doubt = SelfDoubt::default();
        assert!(doubt.fell(NOW, beside));
        assert_eq!(doubt.wake(NOW + LASTS_MAX_BESIDE_HOME - Duration::from_millis(1)), None);
        assert_eq!(doubt.wake(NOW + LASTS_MAX_BESIDE_HOME), Some(Ending::TooLong(LASTS_MAX_BESIDE_HOME)));
    }

    #[test]
    fn regions_of_which_nothing_was_heard_are_left_out_while_more_fail() {
        let with_unheard = |unheard: u16| {
            let mut parts = parts(&[(0, 1), (0, 1)]);
            (2..2 + unheard).for_each(|region| parts.leave_out(region));
            parts
        };
        assert_eq!([0, 1, 2, 3].map(|unheard| with_unheard(unheard).is_common()), [true, true, false, false]);
        let mut half_heard = parts(&[(0, 1), (0, 1)]);
        half_heard.leave_out(0);
        assert!(half_heard.is_common(), "a region is judged by what was heard of it");
        let mut doubt = SelfDoubt::default();
        assert!(doubt.fell(NOW, with_unheard(1)));
        doubt.joined(2);
        assert!(doubt.is_on());
        assert_eq!(doubt.turned(2, false), Some(Ending::NotCommon));
    }

    #[test]
    fn two_failures_are_one_trouble_when_both_can_have_begun_together() {
        let s = Duration::from_secs;
        let trouble = |after, since| Trouble { after: s(after), since: s(since), spare: s(15) };
        for (one, other, is_one) in [
            ((100, 110), (105, 115), true),
            ((100, 110), (60, 170), true),
            ((100, 110), (125, 135), true),
            ((100, 110), (126, 136), false),
            ((100, 110), (70, 85), true),
            ((100, 110), (70, 84), false),
        ] {
            let (one, other) = (trouble(one.0, one.1), trouble(other.0, other.1));
            assert_eq!((one.is_one_with(&other), other.is_one_with(&one)), (is_one, is_one), "{one:?} {other:?}");
        }
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
        assert_eq!(doubt.wake(NOW + LASTS_MAX), Some(Ending::TooLong(LASTS_MAX)));
        assert!(!doubt.is_on());
    }

    /// Whatever happens, the parts stay what a count of the targets gives, and the doubt is on exactly as long as that is common.
    #[test]
    fn every_way_of_coming_back_ends_it_at_the_first_moment_that_is_not_common() {
        let regions = [3usize, 2, 1];
        for order in 0u32..1 << 12 {
            let mut fails: Vec<Vec<bool>> = regions.iter().map(|n| vec![true; *n]).collect();
            let count = |fails: &[Vec<bool>]| {
                let regions = (0..).zip(fails);
                Parts::of(None, regions.flat_map(|(region, list)| list.iter().map(move |fails| (region, *fails))))
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
