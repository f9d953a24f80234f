//! When is a target up, when is it down, and when is that in doubt: the state machine over probe results, and nothing else.
//!
//! Pure: results go in, a verdict comes out. It must never know a clock, a socket, or which target it judges.
#![deny(clippy::disallowed_methods)]

use std::time::Duration;

/// How many results it takes to change a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rules {
    /// Failures to go down, from 1 up.
    pub fall: u32,
    /// Successes in a row to come back, and to wipe out the failures of a target that is up; from 1 up.
    pub rise: u32,
}

/// What answers go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Counts as healthy.
    Up,
    /// Counts as failed.
    Down,
}

/// When the next probe starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pace {
    /// At the target's next turn in the interval.
    Regular,
    /// `fast-interval` after the last probe ended: a count is open.
    Fast,
}

/// What is held of a target after the results so far.
///
/// ```text
///             first result: success                     first result: failure
///        ┌──────────────────────────────── Untried ───────────────────────────────┐
///        ▼                                                                        ▼
///    Up, no count ◀──────────────── `rise` successes in a row ────────────── Down, no count
///      │      ▲                                        ▲                     │         ▲
///   failure   │ `rise` successes in a row              │                  success   failure
///      ▼      │                                        │                     ▼         │
///    Up, 1 … fall−1 failures (in doubt)                └──── Down, 1 … rise−1 successes (in doubt)
///      │
///      └───── failure number `fall` ─────▶ Down, no count
/// ```
///
/// A success among the failures of an `Up` only wipes them out once `rise` of them stand in a row; until then they add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// No result yet: in doubt, and the first result decides at once.
    Untried {
        /// What it counts as until then: up, or what was known of the same endpoint under other rules.
        counts_as: State,
    },
    /// Healthy.
    Up {
        /// Failures that count, below `fall`.
        failures: u32,
        /// Successes in a row since the last failure, below `rise`; 0 where there are no failures to wipe out.
        successes: u32,
    },
    /// Failed.
    Down {
        /// Successes in a row, below `rise`.
        successes: u32,
    },
}

impl Default for Verdict {
    fn default() -> Self {
        Verdict::Untried { counts_as: State::Up }
    }
}

impl Verdict {
    /// The verdict after one more result.
    #[must_use]
    pub fn after(self, success: bool, rules: Rules) -> Verdict {
        match (self, success) {
            (Verdict::Untried { .. }, true) => Verdict::UP,
            (Verdict::Untried { .. }, false) => Verdict::DOWN,
            (Verdict::Up { failures: 0, .. }, true) => Verdict::UP,
            (Verdict::Up { failures, successes }, true) => match successes + 1 {
                n if n >= rules.rise => Verdict::UP,
                n => Verdict::Up { failures, successes: n },
            },
            (Verdict::Up { failures, .. }, false) => match failures + 1 {
                n if n >= rules.fall => Verdict::DOWN,
                n => Verdict::Up { failures: n, successes: 0 },
            },
            (Verdict::Down { successes }, true) => match successes + 1 {
                n if n >= rules.rise => Verdict::UP,
                n => Verdict::Down { successes: n },
            },
            (Verdict::Down { .. }, false) => Verdict::DOWN,
        }
    }

    /// What answers go by now.
    pub fn state(self) -> State {
        match self {
            Verdict::Untried { counts_as } => counts_as,
            Verdict::Up { .. } => State::Up,
            Verdict::Down { .. } => State::Down,
        }
    }

    /// True once a result has come in.
    pub fn is_decided(self) -> bool {
        !matches!(self, Verdict::Untried { .. })
    }

    /// True while a count is open, and before the first result.
    pub fn in_doubt(self) -> bool {
        match self {
            Verdict::Untried { .. } => true,
            Verdict::Up { failures, .. } => failures > 0,
            Verdict::Down { successes } => successes > 0,
        }
    }

    /// The fewest further results that can change the state, from 1 up.
    pub fn checks_left(self, rules: Rules) -> u32 {
        match self {
            Verdict::Untried { .. } => 1,
            Verdict::Up { failures, .. } => rules.fall.saturating_sub(failures).max(1),
            Verdict::Down { successes } => rules.rise.saturating_sub(successes).max(1),
        }
    }

    /// While in doubt: the time in which the state may change, the bound on what an answer's TTL may promise.
    pub fn doubt_lasts(self, rules: Rules, fast_interval: Duration) -> Option<Duration> {
        self.in_doubt().then(|| fast_interval.saturating_mul(self.checks_left(rules)))
    }

    /// When to probe next.
    pub fn pace(self) -> Pace {
        if self.in_doubt() { Pace::Fast } else { Pace::Regular }
    }

    const UP: Verdict = Verdict::Up { failures: 0, successes: 0 };
    const DOWN: Verdict = Verdict::Down { successes: 0 };
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 12;

    /// Every sequence of `LEN` results under several rules, once.
    fn each_sequence(mut visit: impl FnMut(Rules, &[bool])) {
        for fall in 1..=4 {
            for rise in 1..=4 {
                for bits in 0u32..1 << LEN {
                    let results: Vec<bool> = (0..LEN).map(|i| bits >> i & 1 == 1).collect();
                    visit(Rules { fall, rise }, &results);
                }
            }
        }
    }

    fn walk(results: &[bool], rules: Rules) -> Vec<Verdict> {
        results
            .iter()
            .scan(Verdict::default(), |verdict, &ok| {
                *verdict = verdict.after(ok, rules);
                Some(*verdict)
            })
            .collect()
    }

    /// The sentences, read off the text of what happened since the state last changed: `S` and `F`.
    fn by_the_sentences(results: &[bool], rules: Rules) -> Vec<(State, bool, u32)> {
        let wiping = "S".repeat(rules.rise as usize);
        let mut state = if results[0] { State::Up } else { State::Down };
        let mut since_change = String::new();
        let mut told = vec![(state, false, if results[0] { rules.fall } else { rules.rise })];
        for &ok in &results[1..] {
            since_change.push(if ok { 'S' } else { 'F' });
            let (count, needed) = match state {
                State::Up => {
                    let counted = since_change.rfind(&wiping).map_or(0, |at| at + wiping.len());
                    (since_change[counted..].matches('F').count() as u32, rules.fall)
                }
                State::Down => ((since_change.len() - since_change.trim_end_matches('S').len()) as u32, rules.rise),
            };
            if count >= needed {
                state = if state == State::Up { State::Down } else { State::Up };
                since_change.clear();
                told.push((state, false, if state == State::Up { rules.fall } else { rules.rise }));
            } else {
                told.push((state, count > 0, needed - count));
            }
        }
        told
    }

    #[test]
    fn every_sequence_agrees_with_the_sentences() {
        each_sequence(|rules, results| {
            let walked: Vec<_> = walk(results, rules)
                .into_iter()
                .map(|verdict| (verdict.state(), verdict.in_doubt(), verdict.checks_left(rules)))
                .collect();
            assert_eq!(walked, by_the_sentences(results, rules), "{rules:?} {results:?}");
        });
    }

    #[test]
    fn the_state_changes_only_on_the_result_that_speaks_against_it_and_leaves_no_doubt() {
        each_sequence(|rules, results| {
            let verdicts = walk(results, rules);
            for (i, pair) in verdicts.windows(2).enumerate() {
                if pair[0].state() != pair[1].state() {
                    assert_eq!(pair[1].state() == State::Up, results[i + 1]);
                    assert_eq!(pair[0].checks_left(rules), 1, "a change came sooner than was said");
                    assert!(!pair[1].in_doubt());
                }
            }
        });
    }

    #[test]
    fn as_many_failures_in_a_row_as_fall_end_down_and_as_many_successes_as_rise_end_up() {
        each_sequence(|rules, results| {
            let last = walk(results, rules)[LEN - 1];
            if results[LEN - rules.fall as usize..].iter().all(|ok| !ok) {
                assert_eq!(last.state(), State::Down);
            }
            if results[LEN - rules.rise as usize..].iter().all(|ok| *ok) {
                assert_eq!((last.state(), last.in_doubt()), (State::Up, false));
            }
        });
    }

    #[test]
    fn doubt_means_fast_probes_and_a_bound_and_its_absence_means_neither() {
        let fast = Duration::from_secs(1);
        each_sequence(|rules, results| {
            for verdict in walk(results, rules) {
                let bound = verdict.doubt_lasts(rules, fast);
                assert_eq!(verdict.in_doubt(), verdict.pace() == Pace::Fast);
                assert_eq!(bound, verdict.in_doubt().then(|| fast * verdict.checks_left(rules)));
            }
        });
    }

    #[test]
    fn before_the_first_result_a_target_is_up_in_doubt_and_one_check_from_a_verdict() {
        let (rules, fast) = (Rules { fall: 3, rise: 2 }, Duration::from_secs(1));
        let untried = Verdict::default();
        assert_eq!((untried.state(), untried.is_decided(), untried.in_doubt()), (State::Up, false, true));
        assert_eq!((untried.checks_left(rules), untried.doubt_lasts(rules, fast)), (1, Some(fast)));
        assert_eq!(untried.after(false, rules).state(), State::Down);
        assert_eq!(untried.after(true, rules).state(), State::Up);
    }

    #[test]
    fn a_state_known_from_before_stands_until_the_first_result() {
        let rules = Rules { fall: 3, rise: 2 };
        let known = Verdict::Untried { counts_as: State::Down };
        assert_eq!((known.state(), known.is_decided(), known.in_doubt()), (State::Down, false, true));
        assert_eq!(known.after(true, rules).state(), State::Up);
    }

    #[test]
    fn a_single_success_does_not_wipe_out_failures_when_rise_is_two() {
        let rules = Rules { fall: 3, rise: 2 };
        let results = [true, false, true, false, true, false];
        assert_eq!(walk(&results, rules)[5].state(), State::Down);
        let results = [true, false, true, true, false, false];
        assert_eq!(walk(&results, rules)[5], Verdict::Up { failures: 2, successes: 0 });
    }
}
