//! Verdicts of calculated checks: so many of their parts must be up. Worked out from a snapshot of the board whenever somebody
//! asks; nothing is kept. Knows no clock.

use std::{borrow::Cow, sync::Arc, time::Duration};

use super::{
    board::{Snapshot, TargetStatus},
    consensus::Sees,
    probe::{ProbeError, ProbeResult},
    target::{Calculated, Source, TargetId},
    verdict::State,
};

/// What answers go by, for a target or for a calculated check.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Opinion {
    /// It counts as up, hold-downs aside.
    pub up: bool,
    /// It is held down: of a calculated check, too many of its parts are.
    pub held: bool,
    /// No result that is still to come first can make it otherwise.
    pub decided: bool,
    /// The fewest further results that can change it, from 1 up.
    pub checks_left: u32,
    /// While it is in doubt: the time in which it may change.
    pub ttl_bound: Option<Duration>,
    /// The lowest connect time of the last hour, of all parts.
    pub baseline: Option<Duration>,
}

impl Opinion {
    fn is_free(&self) -> bool {
        self.up && !self.held
    }

    /// Before anything is known: up.
    pub const UNKNOWN: Opinion =
        Opinion { up: true, held: false, decided: false, checks_left: 1, ttl_bound: None, baseline: None };
}

/// Parts and how many of them must be up, from 1 to all of them.
fn calculate(needed: usize, parts: &[Opinion]) -> Opinion {
    let free = parts.iter().filter(|part| part.is_free()).count();
    let up_count = parts.iter().filter(|part| part.up).count();
    let (up, held) = (up_count >= needed, free < needed && up_count >= needed);
    // So many parts must turn for the whole to turn, and those that are ready first are the first that can.
    let stands = |part: &Opinion| if up && !held { part.is_free() } else { part.up == up };
    let turning = match (up, held) {
        (true, false) => free + 1 - needed,
        (true, true) => up_count + 1 - needed,
        (false, _) => needed - up_count,
    };
    let mut soonest: Vec<(Duration, u32)> = parts
        .iter()
        .filter(|part| stands(part))
        .map(|part| (part.ttl_bound.unwrap_or(Duration::MAX), part.checks_left))
        .collect();
    soonest.sort_unstable();
    let (bound, checks_left) = soonest[turning - 1]; // as many parts as that stand as the whole does
    let decided_as = |state: bool| parts.iter().filter(|part| part.decided && part.up == state).count();
    Opinion {
        up,
        held,
        decided: decided_as(true) >= needed || parts.len() - decided_as(false) < needed,
        checks_left,
        ttl_bound: (bound != Duration::MAX).then_some(bound),
        baseline: parts.iter().filter_map(|part| part.baseline).min(),
    }
}

impl Source {
    /// What answers go by; `of` tells it for targets.
    pub fn opinion(&self, of: &dyn Fn(TargetId) -> Opinion) -> Opinion {
        match self {
            Source::Target(id) => of(*id),
            Source::Calculated(calculated) => {
                let parts: Vec<Opinion> = calculated.parts.iter().map(|(_, part)| part.opinion(of)).collect();
                calculate(calculated.needed, &parts)
            }
        }
    }
}

impl Snapshot {
    /// All that is known; of a calculated check, what follows from its parts.
    pub fn status(&self, of: &Source) -> Cow<'_, TargetStatus> {
        match of {
            Source::Target(id) => Cow::Borrowed(&self[*id]),
            Source::Calculated(of) => Cow::Owned(self.calculated(of)),
        }
    }

    fn calculated(&self, of: &Calculated) -> TargetStatus {
        let parts: Vec<(&str, Cow<'_, TargetStatus>)> =
            of.parts.iter().map(|(name, part)| (name.as_str(), self.status(part))).collect();
        let opinions: Vec<Opinion> = parts.iter().map(|(_, status)| status.opinion()).collect();
        let opinion = calculate(of.needed, &opinions);
        let is_up = opinion.is_free();
        // It has stood so since the part came that was still lacking.
        let lacking = if is_up { of.needed } else { parts.len() + 1 - of.needed };
        let mut since: Vec<_> = parts.iter().filter(|(_, s)| s.is_up() == is_up).map(|(_, s)| s.counts_since).collect();
        since.sort_unstable();
        let newest = parts.iter().filter_map(|(_, status)| status.last_result.as_ref()).map(|(at, _)| *at).max();
        let outcome = if is_up { Ok(()) } else { Err(trouble(of.needed, &parts)) };
        TargetStatus {
            target: of.target.clone(),
            state: if opinion.up { State::Up } else { State::Down },
            counts_as: match opinion {
                Opinion { held: true, .. } => Sees::Held,
                Opinion { up: true, .. } => Sees::Up,
                Opinion { .. } => Sees::Down,
            },
            consensus: None,
            decided: opinion.decided,
            in_doubt: opinion.ttl_bound.is_some(),
            checks_left: opinion.checks_left,
            ttl_bound: opinion.ttl_bound,
            kept: parts.iter().any(|(_, status)| status.kept),
            held: parts
                .iter()
                .filter_map(|(_, status)| status.held)
                .min_by_key(|held| held.until)
                .filter(|_| opinion.held),
            since: since[lacking - 1],
            counts_since: since[lacking - 1],
            last_error: newest.zip(outcome.clone().err()),
            last_result: newest.map(|at| (at, Arc::new(ProbeResult { outcome, ..ProbeResult::default() }))),
            connect: parts.iter().filter_map(|(_, status)| status.connect).min(),
            baseline: opinion.baseline,
            probes_ok: 0,
            probes_failed: 0,
            probes_inconclusive: 0,
        }
    }
}

/// What came of probing once; `results` by target. A part that told nothing (a push check, or a lack of this host) leaves the
/// whole untold where it matters.
pub fn result_of(of: &Source, results: &[ProbeResult]) -> ProbeResult {
    let of = match of {
        Source::Target(id) => return results[id.index()].clone(),
        Source::Calculated(of) => of,
    };
    let parts: Vec<(&str, ProbeResult)> =
        of.parts.iter().map(|(name, part)| (name.as_str(), result_of(part, results))).collect();
    let passed = parts.iter().filter(|(_, result)| result.is_success()).count();
    let untold: Vec<&ProbeError> = parts
        .iter()
        .filter_map(|(_, result)| result.outcome.as_ref().err())
        .filter(|error| error.is_inconclusive())
        .collect();
    let failed = parts.iter().filter_map(|(name, result)| Some((*name, result.outcome.as_ref().err()?.to_string())));
    let outcome = match untold.first() {
        _ if passed >= of.needed => Ok(()),
        Some(error) if passed + untold.len() >= of.needed => Err(ProbeError::clone(error)),
        _ => Err(too_few(of.needed, parts.len(), failed)),
    };
    ProbeResult {
        outcome,
        connect: parts.iter().filter_map(|(_, result)| result.connect).min(),
        total: parts.iter().map(|(_, result)| result.total).max().unwrap_or_default(),
        ..ProbeResult::default()
    }
}

/// What keeps it down.
fn trouble(needed: usize, parts: &[(&str, Cow<'_, TargetStatus>)]) -> ProbeError {
    let down = parts.iter().filter(|(_, status)| !status.is_up()).map(|(name, status)| (*name, status.trouble()));
    too_few(needed, parts.len(), down)
}

/// That too few parts are up, and why each of the others is not.
fn too_few<'n>(needed: usize, of: usize, down: impl IntoIterator<Item = (&'n str, String)>) -> ProbeError {
    let down: Vec<String> = down.into_iter().map(|(name, why)| format!("{name} ({why})")).collect();
    ProbeError::TooFew { up: of - down.len(), of, needed, down: down.join(", ") }
}

impl TargetStatus {
    /// What answers go by.
    pub fn opinion(&self) -> Opinion {
        let own = Opinion {
            up: self.state == State::Up,
            held: self.held.is_some(),
            decided: self.decided,
            checks_left: self.checks_left,
            ttl_bound: self.ttl_bound,
            baseline: self.baseline,
        };
        match self.consensus {
            None => own,
            Some(consensus) => Opinion {
                up: consensus.sees != Sees::Down,
                held: consensus.sees == Sees::Held,
                decided: true,
                ttl_bound: consensus.may_turn,
                ..own
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime};

    use super::*;
    use crate::health::{
        Board, Calculation, Check, CheckKind, Targets,
        testing::{address, failure, success, tcp_check},
    };

    const S: Duration = Duration::from_secs(1);

    fn part(up: bool, doubt: Option<u32>) -> Opinion {
        Opinion {
            up,
            held: false,
            decided: true,
            checks_left: doubt.unwrap_or(3),
            ttl_bound: doubt.map(|left| left * S),
            baseline: None,
        }
    }

    #[test]
    fn so_many_must_be_up_and_doubt_follows_from_those_that_can_turn_it() {
        let (up, down) = (part(true, None), part(false, None));
        let (falling, nearly) = (part(true, Some(2)), part(true, Some(1)));
        let rising = part(false, Some(1));
        for (what, needed, parts, is_up, bound) in [
            ("all of, all well", 2, vec![up, up], true, None),
            ("all of, one falling", 2, vec![up, falling], true, Some(2)),
            ("all of, two falling: the first takes it down", 2, vec![nearly, falling], true, Some(1)),
            ("all of, one down: the other's doubt changes nothing", 2, vec![down, falling], false, None),
            ("all of, one down and rising", 2, vec![rising, up], false, Some(1)),
            ("all of, one down for good", 2, vec![rising, down], false, None),
            ("any of, one down", 1, vec![up, down], true, None),
            ("any of, one falling while another holds it", 1, vec![up, nearly], true, None),
            ("any of, the last one falling", 1, vec![falling, down], true, Some(2)),
            ("any of, both falling: the later one takes it down", 1, vec![falling, nearly], true, Some(2)),
            ("any of, all down, one rising", 1, vec![rising, down], false, Some(1)),
            ("two of three, one spare", 2, vec![up, up, nearly], true, None),
            ("two of three, none spare", 2, vec![up, nearly, down], true, Some(1)),
            ("two of three, one missing", 2, vec![up, rising, down], false, Some(1)),
            ("two of three, two missing", 2, vec![down, rising, down], false, None),
            ("two of three, all falling", 2, vec![nearly, falling, part(true, Some(3))], true, Some(2)),
        ] {
            let whole = calculate(needed, &parts);
            assert_eq!((whole.up, whole.ttl_bound), (is_up, bound.map(|left| left * S)), "{what}");
        }
    }

    #[test]
    fn it_is_held_down_when_only_hold_downs_keep_it_from_being_up() {
        let (up, down) = (part(true, None), part(false, None));
        let held = Opinion { held: true, ..up };
        for (what, needed, parts, expected) in [
            ("all of, one held", 2, vec![up, held], (true, true)),
            ("all of, one held and one down", 2, vec![down, held], (false, false)),
            ("any of, one held", 1, vec![up, held], (true, false)),
            ("any of, one held and one down", 1, vec![down, held], (true, true)),
            ("two of three, two held", 2, vec![up, held, held], (true, true)),
        ] {
            let whole = calculate(needed, &parts);
            assert_eq!((whole.up, whole.held), expected, "{what}");
        }
    }

    #[test]
    fn it_is_decided_when_no_first_result_can_make_it_otherwise() {
        let untried = Opinion { decided: false, ..part(true, Some(1)) };
        let (up, down) = (part(true, None), part(false, None));
        for (what, needed, parts, decided) in [
            ("all of, one untried", 2, vec![up, untried], false),
            ("all of, one down already", 2, vec![down, untried], true),
            ("any of, one up already", 1, vec![up, untried], true),
            ("any of, one down", 1, vec![down, untried], false),
        ] {
            assert_eq!(calculate(needed, &parts).decided, decided, "{what}");
        }
    }

    /// Every state of four parts, every number needed: turning the parts that are said to turn first does turn the whole.
    #[test]
    fn the_bound_is_the_soonest_moment_at_which_enough_parts_may_have_turned() {
        let states =
            [part(true, None), part(true, Some(1)), part(true, Some(2)), part(false, None), part(false, Some(1))];
        for code in 0..states.len().pow(4) {
            let parts: Vec<Opinion> = (0..4).map(|n| states[code / states.len().pow(n) % states.len()]).collect();
            for needed in 1..=4 {
                let whole = calculate(needed, &parts);
                let at = |moment: Duration| {
                    let turned =
                        |p: &&Opinion| (p.ttl_bound.is_some_and(|bound| bound <= moment) && p.up == whole.up) != p.up;
                    (parts.iter().filter(turned).count() >= needed) != whole.up
                };
                let soonest = (0..=3).map(|s| s * S).find(|moment| at(*moment));
                assert_eq!(whole.ttl_bound, soonest, "{needed} of {parts:?}");
            }
        }
    }

    #[test]
    fn the_status_of_a_calculated_check_says_which_part_keeps_it_down() {
        let named = |name: &str, port| Arc::new(Check { name: name.into(), fall: 1, ..tcp_check(port) });
        let kind = CheckKind::Calculated(Calculation { needed: 2, checks: vec![named("web", 80), named("db", 5432)] });
        let both = Arc::new(Check { name: "both".into(), kind, ..tcp_check(0) });
        let targets = Targets::new(vec![(address("192.0.2.1"), both)]);
        let board = Board::default();
        board.adopt(&targets, SystemTime::UNIX_EPOCH);
        let whole = || board.snapshot().status(&targets.sources()[0]).into_owned();
        assert_eq!((whole().is_up(), whole().decided, whole().in_doubt), (true, false, true));
        let tell = |at: usize, result, second| {
            let wall = SystemTime::UNIX_EPOCH + second * S;
            board.record(&targets.list()[at], result, Instant::now(), wall);
        };
        tell(0, success(7), 1);
        tell(1, success(5), 2);
        assert_eq!((whole().is_up(), whole().decided, whole().in_doubt), (true, true, false));
        assert_eq!((whole().connect_ms(), whole().baseline_ms()), (Some(5.0), Some(5.0)));
        tell(1, failure(), 3);
        let status = whole();
        assert_eq!((status.is_up(), status.since), (false, SystemTime::UNIX_EPOCH + 3 * S));
        let (_, error) = status.last_error.unwrap();
        assert_eq!(error.to_string(), "1 of 2 checks is up, 2 must be; down: db (connection refused)");
        assert_eq!(status.target.check_names, ["both"]);
    }
}
