//! History and hold-downs on the board, and what outlives a restart, in simulated time.

use super::*;
use crate::health::{
    Check, ProbeError, damping,
    history::{CHANGES_MAX, Standing},
    testing::{address, failure, success, tcp_check},
};

const DAMPING: damping::Rules = damping::Rules {
    changes_max: 4,
    window: Duration::from_secs(600),
    hold: Duration::from_secs(60),
    hold_max: Duration::from_secs(240),
};

/// Targets that are probed as the verdicts ask, by what a function of target and second says.
pub(super) struct Simulation {
    pub board: Board,
    pub targets: Targets,
    begun: Instant,
    /// When each target is due, in milliseconds.
    due_ms: Vec<u64>,
}

impl Simulation {
    /// So many targets in each region.
    pub fn new(regions: &[usize], check: &Check) -> Self {
        let all = (0..).zip(regions).flat_map(|(region, count)| (0..*count).map(move |n| (region, n, check)));
        Simulation::from(None, all)
    }

    /// Targets, each by region, number of its endpoint there, and check; probed from inside region `home`.
    pub fn from<'c>(home: Option<u16>, all: impl Iterator<Item = (u16, usize, &'c Check)>) -> Self {
        let mut places = HashMap::new();
        let pairs = all.map(|(region, n, check)| {
            let endpoint = address(&format!("10.0.{region}.{n}"));
            places.insert(endpoint.clone(), region);
            (endpoint, Arc::new(check.clone()))
        });
        let targets = Targets::new(pairs.collect()).placed(places).seen_from(home);
        let board = Board::default();
        board.adopt(&targets, wall(0));
        let interval_ms = |target: &Arc<Target>| target.check().interval.as_millis() as u64;
        let due_ms = (0..).zip(targets.list()).map(|(n, target)| n * 1_237 % interval_ms(target)).collect();
        Simulation { board, targets, begun: Instant::now(), due_ms }
    }

    /// Runs until `until_s`; `result` says what a probe of the target finds, `look` sees the board after each result.
    pub fn run(
        &mut self,
        until_s: u64,
        result: impl Fn(usize, u64) -> ProbeResult,
        mut look: impl FnMut(&Snapshot, usize, u64),
    ) {
        loop {
            let (at, now_ms) = self.due_ms.iter().copied().enumerate().min_by_key(|due| due.1).unwrap();
            if now_ms >= until_s * 1_000 {
                return;
            }
            let (now, target) = (self.begun + Duration::from_millis(now_ms), self.targets.list()[at].clone());
            self.board.wake(now, wall(now_ms));
            let result = result(at, now_ms / 1_000);
            let took_ms = result.total.as_millis() as u64;
            let (ended_ms, ended) = (now_ms + took_ms, now + result.total);
            let pace = self.board.record(&target, result, ended, wall(ended_ms)).unwrap();
            look(&self.board.snapshot(), at, ended_ms);
            let check = target.check();
            self.due_ms[at] = match pace {
                Pace::Fast => ended_ms + check.fast_interval.as_millis() as u64,
                Pace::Regular => (now_ms + check.interval.as_millis() as u64).max(ended_ms),
            };
        }
    }

    pub fn standing(&self, at: usize) -> Standing {
        self.board.snapshot().statuses[at].standing()
    }

    pub fn history(&self, at: usize) -> Vec<(Standing, Standing, String)> {
        let changes = self.board.history(&self.targets.list()[at], CHANGES_MAX);
        changes.into_iter().map(|change| (change.from, change.to, change.reason.to_string())).collect()
    }
}

pub(super) fn wall(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + Duration::from_millis(ms)
}

pub(super) fn damped() -> Check {
    Check { damping: DAMPING, ..tcp_check(80) }
}

/// Silence until the timeout of the default check.
pub(super) fn timeout() -> ProbeResult {
    let after = Duration::from_secs(4);
    ProbeResult::failed(ProbeError::Timeout { phase: crate::health::probe::Phase::Connect, after }, after)
}

/// A failure that is known at once and that no endpoint can be blamed for.
pub(super) fn no_way() -> ProbeResult {
    ProbeResult::failed(ProbeError::Unreachable("no route to host".into()), Duration::from_millis(1))
}

pub(super) fn fine() -> ProbeResult {
    success(5)
}

#[test]
fn what_became_of_a_target_is_told_with_reasons() {
    let mut simulation = Simulation::new(&[1], &tcp_check(80));
    simulation.run(100, |_, s| if (20..60).contains(&s) { failure() } else { fine() }, |_, _, _| {});
    let changes = simulation.history(0);
    let told: Vec<_> = changes.iter().map(|(from, to, reason)| (from.as_str(), to.as_str(), reason.as_str())).collect();
    assert_eq!(
        told,
        [
            ("untried", "up", "first probe: ok, connected in 5.0 ms"),
            ("up", "down", "connection refused"),
            ("down", "up", "2 successes in a row"),
        ]
    );
    assert_eq!(simulation.board.history(&simulation.targets.list()[0], 1).len(), 1);
    let stranger = Targets::new(vec![(address("192.0.2.1"), Arc::new(tcp_check(80)))]);
    assert!(simulation.board.history(&stranger.list()[0], 9).is_empty());
}

#[test]
fn two_outages_in_a_row_are_ordinary_and_the_third_within_the_window_is_held_down_until_it_keeps_still() {
    let mut simulation = Simulation::new(&[1], &damped());
    let outage = |s: u64| [100, 200, 300].iter().any(|begin| (*begin..begin + 30).contains(&s));
    simulation.run(
        299,
        |_, s| if outage(s) { failure() } else { fine() },
        |now, _, _| {
            assert!(now.statuses[0].held.is_none());
        },
    );
    assert_eq!(simulation.standing(0), Standing::Up);
    let mut held_from = None;
    simulation.run(
        600,
        |_, s| if outage(s) { failure() } else { fine() },
        |now, _, ms| {
            if let Some(held) = now.statuses[0].held {
                held_from.get_or_insert(ms);
                assert!(!now.statuses[0].is_up());
                assert!(held.until <= wall(ms) + DAMPING.hold && held.since <= wall(ms));
            }
        },
    );
    assert!((302_000..=313_000).contains(&held_from.unwrap()), "{held_from:?}");
    let changes = simulation.history(0);
    let [.., held, still, released] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(*held, (Standing::Up, Standing::Held, "connection refused; 5 changes within 10 min".into()));
    let more = "2 successes in a row; 1 more changes while held".into();
    assert_eq!(*still, (Standing::Held, Standing::Held, more));
    assert_eq!(*released, (Standing::Held, Standing::Up, "no change for 60 s".replace("60 s", "1 min")));
}

#[test]
fn a_target_that_flaps_without_end_is_used_once_more_and_then_no_longer() {
    for period_s in [20, 30, 60] {
        let mut simulation = Simulation::new(&[1], &damped());
        let mut uses = 0;
        let mut was_up = false;
        let outage = |s: u64| s % period_s >= period_s / 2;
        simulation.run(
            3_600,
            |_, s| if outage(s) { failure() } else { fine() },
            |now, _, _| {
                uses += u32::from(now.statuses[0].is_up() && !was_up);
                was_up = now.statuses[0].is_up();
            },
        );
        assert!(uses <= 3, "period {period_s} s: used anew {uses} times in an hour");
        let changes = simulation.history(0);
        let (_, to, reason) = changes.last().unwrap();
        let told = simulation.board.snapshot().statuses[0].held_because().unwrap();
        assert!(changes.len() < 10 && *to == Standing::Held, "what it does while held takes one place: {changes:?}");
        assert!(reason.contains(" more changes while held"), "{reason}");
        assert!(told.starts_with("held down until it keeps still: 5 changes within 10 min, "), "{told}");
        assert!(told.ends_with(" more while held"), "{told}");
    }
}

#[test]
fn a_hold_down_ends_on_time_without_a_probe_and_that_is_told() {
    let mut simulation =
        Simulation::new(&[1], &Check { damping: damping::Rules { changes_max: 1, ..DAMPING }, ..damped() });
    simulation.run(70, |_, s| if (20..30).contains(&s) { failure() } else { fine() }, |_, _, _| {});
    let held = simulation.board.snapshot().statuses[0].held.expect("it is held down");
    let until = held.until.duration_since(wall(0)).unwrap();
    let mut changes = simulation.board.changes();
    changes.mark_unchanged();
    simulation.board.wake(simulation.begun + until - Duration::from_millis(1), wall(0));
    assert!(!changes.has_changed().unwrap());
    simulation.board.wake(simulation.begun + until, held.until);
    assert!(changes.has_changed().unwrap());
    assert_eq!(simulation.standing(0), Standing::Up);
}

#[test]
fn what_is_known_outlives_a_restart() {
    let check = Check { damping: damping::Rules { changes_max: 1, ..DAMPING }, ..damped() };
    let mut before = Simulation::new(&[1, 1, 1], &check);
    let result = |at: usize, s: u64| match at {
        0 => fine(),
        1 if s >= 50 => failure(),
        2 if (30..60).contains(&s) => failure(),
        _ => fine(),
    };
    before.run(100, result, |_, _, _| {});
    assert_eq!([0, 1, 2].map(|at| before.standing(at)), [Standing::Up, Standing::Down, Standing::Held]);
    let memories = before.board.remember(before.begun + Duration::from_secs(100), wall(100_000));
    let file = serde_json::to_string(&memories).unwrap();
    assert!(!file.contains("Tcp"), "what a probe does is not told");

    for (gap_s, states) in [
        (5, [State::Up, State::Down, State::Up]),
        (3_600, [State::Up, State::Down, State::Up]),
        (3_601, [State::Up, State::Up, State::Up]),
    ] {
        let after = Board::default();
        after.recall(serde_json::from_str(&file).unwrap());
        let now = wall(100_000 + gap_s * 1_000);
        after.adopt(&before.targets, now);
        let snapshot = after.snapshot();
        for (at, status) in snapshot.statuses.iter().enumerate() {
            assert_eq!((status.state, status.decided), (states[at], false), "{at} after {gap_s} s");
            let [before, mut after] =
                [&before.board, &after].map(|board| board.history(&before.targets.list()[at], CHANGES_MAX));
            if at == 2 && gap_s >= 60 {
                let released = after.pop().unwrap();
                assert_eq!(&*released.reason, "its time ended while the server did not run");
            }
            assert_eq!(before, after);
        }
        assert_eq!(snapshot.statuses[2].held.is_some(), gap_s < 60, "its hold-down lasts as long as it would have");
        assert_eq!(snapshot.statuses[0].baseline_ms(), (gap_s < 3_500).then_some(5.0), "after {gap_s} s");
        let known = gap_s <= 3_600;
        let since = before.board.snapshot().statuses[1].since;
        assert_eq!(snapshot.statuses[1].since, if known { since } else { now });
        after.record(&before.targets.list()[1], failure(), Instant::now(), now);
        assert_eq!(after.snapshot().statuses[1].state, State::Down);
        assert_eq!(after.snapshot().statuses[1].since, if known { since } else { now }, "it did not change");
    }
    let elsewhere = Targets::new(vec![(address("10.0.1.0"), Arc::new(tcp_check(81)))]);
    let other = Board::default();
    other.recall(serde_json::from_str(&file).unwrap());
    other.adopt(&elsewhere, wall(101_000));
    assert_eq!(other.snapshot().statuses[0].state, State::Up, "another port says nothing about this one");
}

#[test]
fn restarts_and_changed_checks_add_nothing_to_the_history_of_what_stays_as_it_was() {
    let result = |at: usize, s: u64| if at == 1 && s >= 50 { failure() } else { fine() };
    let mut simulation = Simulation::new(&[1, 1], &damped());
    simulation.run(100, result, |_, _, _| {});
    let told = [0, 1].map(|at| simulation.history(at));
    assert_eq!(told.each_ref().map(Vec::len), [1, 2]);
    let until = |n: u64| 100 + n * 100;
    for n in 0..50 {
        let now_ms = until(n) * 1_000;
        let check =
            Check { fall: 2 + n as u32 % 2, damping: [DAMPING, damping::Rules::OFF][n as usize / 2 % 2], ..damped() };
        let mut next = Simulation::new(&[1, 1], &check);
        next.begun = simulation.begun;
        if n % 2 == 0 {
            let memories = simulation.board.remember(simulation.begun + Duration::from_millis(now_ms), wall(now_ms));
            next.board = Board::default();
            next.board.recall(memories);
        } else {
            next.board = simulation.board;
        }
        next.board.adopt(&next.targets, wall(now_ms));
        next.due_ms.fill(now_ms);
        simulation = next;
        assert_eq!([0, 1].map(|at| simulation.standing(at)), [Standing::Up, Standing::Down]);
        simulation.run(until(n + 1), result, |_, _, _| {});
    }
    assert_eq!([0, 1].map(|at| simulation.history(at)), told);
    let mut again = Simulation::new(&[1, 1], &damped());
    again.board = Board::default();
    again
        .board
        .recall(simulation.board.remember(simulation.begun + Duration::from_secs(until(50)), wall(until(50) * 1_000)));
    again.board.adopt(&again.targets, wall(until(50) * 1_000 + 1));
    for (at, result) in [failure(), fine()].into_iter().enumerate() {
        again.board.record(&again.targets.list()[at], result, Instant::now(), wall(until(50) * 1_000 + 2));
        let history = again.history(at);
        assert_eq!(history.len(), told[at].len() + 1, "what is otherwise is told: {history:?}");
        assert!(history.last().unwrap().2.starts_with("first probe: "), "{history:?}");
    }
}

#[test]
fn a_hold_down_that_ends_with_its_rules_is_told() {
    let check = Check { damping: damping::Rules { changes_max: 1, ..DAMPING }, ..damped() };
    let mut simulation = Simulation::new(&[1], &check);
    simulation.run(70, |_, s| if (20..30).contains(&s) { failure() } else { fine() }, |_, _, _| {});
    assert_eq!(simulation.standing(0), Standing::Held);
    simulation.targets = Simulation::new(&[1], &damped()).targets;
    simulation.board.adopt(&simulation.targets, wall(70_000));
    assert_eq!(simulation.standing(0), Standing::Up);
    let last = simulation.history(0).pop().unwrap();
    assert_eq!(last, (Standing::Held, Standing::Up, "other rules for hold-downs".into()));
}

#[test]
fn a_clock_that_went_back_makes_no_old_state_new() {
    let mut before = Simulation::new(&[1], &tcp_check(80));
    before.run(50, |_, _| failure(), |_, _, _| {});
    let memories = before.board.remember(before.begun + Duration::from_secs(50), wall(50_000));
    let after = Board::default();
    after.recall(memories);
    after.adopt(&before.targets, wall(0));
    assert_eq!(after.snapshot().statuses[0].state, State::Up);
}

#[test]
fn targets_known_from_before_that_all_fail_their_first_probe_are_kept() {
    let mut before = Simulation::new(&[1, 1], &tcp_check(80));
    before.run(50, |_, _| fine(), |_, _, _| {});
    let memories = before.board.remember(before.begun + Duration::from_secs(50), wall(50_000));
    let mut after = Simulation::new(&[1, 1], &tcp_check(80));
    after.board = Board::default();
    after.board.recall(memories);
    after.board.adopt(&after.targets, wall(55_000));
    for (target, is_doubting) in after.targets.list().iter().zip([false, true]) {
        after.board.record(target, no_way(), Instant::now(), wall(56_000));
        assert_eq!(after.board.snapshot().self_doubt.is_some(), is_doubting);
    }
    assert!(after.board.snapshot().statuses.iter().all(TargetStatus::is_up));
}
