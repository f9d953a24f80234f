//! History, hold-downs and self-doubt on the board, in simulated time.

use super::*;
use crate::health::{
    Check, Endpoint, damping,
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
struct Simulation {
    board: Board,
    targets: Targets,
    begun: Instant,
    /// When each target is due, in milliseconds.
    due_ms: Vec<u64>,
}

impl Simulation {
    /// So many targets in each region.
    fn new(regions: &[usize], check: &Check) -> Self {
        let mut pairs = Vec::new();
        let mut places = HashMap::new();
        for (region, count) in regions.iter().enumerate() {
            for n in 0..*count {
                let endpoint = address(&format!("10.0.{region}.{n}"));
                places.insert(endpoint.clone(), region as u16);
                pairs.push((endpoint, Arc::new(check.clone())));
            }
        }
        let targets = Targets::new(pairs).placed(places);
        let board = Board::default();
        board.adopt(&targets, wall(0));
        let interval_ms = check.interval.as_millis() as u64;
        let due_ms = (0..targets.list().len() as u64).map(|n| n * 1_237 % interval_ms).collect();
        Simulation { board, targets, begun: Instant::now(), due_ms }
    }

    /// Runs until `until_s`; `result` says what a probe of the target finds, `look` sees the board after each result.
    fn run(
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

    fn standing(&self, at: usize) -> Standing {
        self.board.snapshot().statuses[at].standing()
    }

    fn history(&self, at: usize) -> Vec<(Standing, Standing, String)> {
        let changes = self.board.history(&self.targets.list()[at], CHANGES_MAX);
        changes.into_iter().map(|change| (change.from, change.to, change.reason.to_string())).collect()
    }
}

fn wall(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + Duration::from_millis(ms)
}

fn damped() -> Check {
    Check { damping: DAMPING, ..tcp_check(80) }
}

/// Silence until the timeout of the default check.
fn timeout() -> ProbeResult {
    let after = Duration::from_secs(4);
    ProbeResult::failed(ProbeError::Timeout { phase: crate::health::probe::Phase::Connect, after }, after)
}

fn fine() -> ProbeResult {
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
    let [.., held, released] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(*held, (Standing::Up, Standing::Held, "connection refused; 5 changes within 10 min".into()));
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
fn all_regions_at_once_is_taken_for_the_probers_own_failure() {
    for (way, regions) in [
        (failure as fn() -> ProbeResult, &[1, 1][..]),
        (timeout, &[1, 1]),
        (failure, &[3, 2, 4]),
        (timeout, &[5, 5, 5, 5]),
        (timeout, &[20, 1]),
    ] {
        let mut simulation = Simulation::new(regions, &damped());
        let all: usize = regions.iter().sum();
        let result = |_, s: u64| if (100..400).contains(&s) { way() } else { fine() };
        simulation.run(130, result, |_, _, _| {});
        let mut answers_change = 0;
        simulation.run(400, result, |now, _, ms| {
            assert!(now.self_doubt.is_some(), "{regions:?} at {ms}");
            answers_change += now.statuses.iter().filter(|status| !status.is_up()).count();
        });
        assert_eq!(answers_change, 0, "{regions:?}");
        let doubted = simulation.board.snapshot();
        assert!(doubted.statuses.iter().all(|status| status.kept && status.in_doubt), "{regions:?}");
        assert!(doubted.statuses.iter().all(|status| status.ttl_bound == Some(Duration::from_secs(10))));
        let reason = doubted.self_doubt.unwrap().reason;
        assert!(
            reason.contains(&format!("{all} endpoints that were up, in all of {} regions", regions.len())),
            "{reason}"
        );
        simulation.run(460, result, |now, _, _| {
            assert!(now.statuses.iter().all(TargetStatus::is_up), "{regions:?}");
        });
        let healed = simulation.board.snapshot();
        assert!(healed.self_doubt.is_none() && healed.statuses.iter().all(|status| !status.kept), "{regions:?}");
        for at in 0..all {
            assert!(simulation.history(at).iter().all(|(_, to, _)| *to != Standing::Held), "{regions:?}");
        }
    }
}

#[test]
fn a_region_that_was_down_before_stays_down_while_the_prober_distrusts_itself() {
    let mut simulation = Simulation::new(&[2, 2, 2], &damped());
    let result = |at: usize, s: u64| if at >= 4 || (200..300).contains(&s) { timeout() } else { fine() };
    simulation.run(240, result, |_, _, _| {});
    simulation.run(300, result, |now, _, _| {
        assert!(now.self_doubt.is_some());
        let up: Vec<bool> = now.statuses.iter().map(TargetStatus::is_up).collect();
        assert_eq!(up, [true, true, true, true, false, false]);
    });
}

#[test]
fn the_failure_of_one_region_is_never_doubted_and_never_late() {
    for (regions, promised_s) in [(&[1, 1][..], 13), (&[20, 1], 13), (&[1, 20], 13), (&[2, 2, 2], 13)] {
        for dead in 0..regions.len() {
            let mut simulation = Simulation::new(regions, &damped());
            let region_of: Vec<usize> = (0..).zip(regions).flat_map(|(r, n)| vec![r; *n]).collect();
            let result = |at: usize, s: u64| if region_of[at] == dead && s >= 100 { failure() } else { fine() };
            simulation.run(400, result, |now, _, ms| {
                assert!(now.self_doubt.is_none());
                for (status, region) in
                    now.statuses.iter().zip(&region_of).filter(|_| ms >= 100_000 + promised_s * 1_000)
                {
                    assert_eq!(status.is_up(), *region != dead, "{regions:?} {dead} at {ms}");
                }
            });
        }
    }
}

#[test]
fn a_configuration_of_one_region_and_the_last_region_that_is_up_go_down_like_any_other() {
    let mut single = Simulation::new(&[3], &damped());
    single.run(200, |_, s| if s >= 100 { timeout() } else { fine() }, |now, _, _| assert!(now.self_doubt.is_none()));
    assert!((0..3).all(|at| single.standing(at) == Standing::Down));
    let mut last = Simulation::new(&[1, 1], &damped());
    let result = |at: usize, s: u64| if s >= [100, 400][at] { failure() } else { fine() };
    last.run(500, result, |now, _, _| assert!(now.self_doubt.is_none()));
    assert!((0..2).all(|at| last.standing(at) == Standing::Down));
}

#[test]
fn answers_with_the_wrong_status_prove_that_the_prober_works() {
    let mut simulation = Simulation::new(&[2, 2], &damped());
    let wrong = || ProbeResult { status: Some(500), ..ProbeResult::failed(ProbeError::Status(500), Duration::ZERO) };
    simulation.run(200, |_, s| if s >= 100 { wrong() } else { fine() }, |now, _, _| assert!(now.self_doubt.is_none()));
    assert!((0..4).all(|at| simulation.standing(at) == Standing::Down));
}

#[test]
fn the_first_region_that_answers_again_ends_it_and_what_still_fails_is_down_at_its_next_probe() {
    let mut simulation = Simulation::new(&[2, 2], &damped());
    let result = |at: usize, s: u64| if s >= 100 && (at >= 2 || s < 300) { failure() } else { fine() };
    simulation.run(299, result, |_, _, _| {});
    assert!(simulation.board.snapshot().self_doubt.is_some());
    simulation.run(330, result, |_, _, _| {});
    assert!(simulation.board.snapshot().self_doubt.is_none());
    let up: Vec<bool> = simulation.board.snapshot().statuses.iter().map(TargetStatus::is_up).collect();
    assert_eq!(up, [true, true, false, false]);
    assert_eq!(simulation.history(2).last().unwrap().2, "connection refused");
}

#[test]
fn a_region_that_comes_up_from_before_the_trouble_proves_that_the_prober_works() {
    let mut simulation = Simulation::new(&[1, 1, 1], &damped());
    let result = |at: usize, s: u64| match at {
        0 if s < 300 => failure(),
        1 | 2 if s >= 200 => failure(),
        _ => fine(),
    };
    simulation.run(299, result, |_, _, _| {});
    assert!(simulation.board.snapshot().self_doubt.is_some());
    simulation.run(330, result, |_, _, _| {});
    assert!(simulation.board.snapshot().self_doubt.is_none());
    let up: Vec<bool> = simulation.board.snapshot().statuses.iter().map(TargetStatus::is_up).collect();
    assert_eq!(up, [true, false, false]);
}

#[test]
fn what_fails_for_an_hour_is_believed() {
    let mut simulation = Simulation::new(&[1, 1], &damped());
    let result = |_, s: u64| if s >= 100 { failure() } else { fine() };
    simulation.run(3_600, result, |_, _, _| {});
    assert!(simulation.board.snapshot().self_doubt.is_some());
    simulation.run(3_740, result, |_, _, _| {});
    assert!(simulation.board.snapshot().self_doubt.is_none());
    assert!((0..2).all(|at| simulation.standing(at) == Standing::Down));
}

#[test]
fn a_reload_while_the_prober_distrusts_itself_changes_nothing_but_what_it_removes() {
    let mut simulation = Simulation::new(&[1, 1, 1], &damped());
    simulation.run(140, |_, s| if s >= 100 { failure() } else { fine() }, |_, _, _| {});
    let places: HashMap<Endpoint, u16> =
        (0..).zip(simulation.targets.list()).map(|(n, t)| (t.endpoint().clone(), n)).collect();
    let pairs: Vec<_> = simulation.targets.list().iter().map(|t| (t.endpoint().clone(), Arc::new(damped()))).collect();
    for (keep, is_doubting) in [(3, true), (2, true), (1, false)] {
        let targets = Targets::new(pairs[..keep].to_vec()).placed(places.clone());
        simulation.board.adopt(&targets, wall(150_000));
        let now = simulation.board.snapshot();
        assert_eq!(now.self_doubt.is_some(), is_doubting, "{keep} regions");
        assert!(now.statuses.iter().all(TargetStatus::is_up));
    }
}

/// Random outages of targets, regions and the prober: whatever happens, these hold after every result.
#[test]
fn whatever_happens_doubt_is_never_without_reason_and_a_failure_never_hidden_without_doubt() {
    let check = Check { damping: damping::Rules::OFF, ..tcp_check(80) };
    let (fall, rise) = (check.fall as usize, check.rise as usize);
    let mut random = 1u64;
    let mut next = move |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let mut doubted = 0;
    for _ in 0..150 {
        let regions: Vec<usize> = (0..1 + next(4)).map(|_| 1 + next(4) as usize).collect();
        let region_of: Vec<u64> = (0..).zip(&regions).flat_map(|(r, n)| vec![r; *n]).collect();
        // Each outage: of all, of a region, or of a target; from, to.
        let outages: Vec<(u64, u64, u64, u64)> = (0..6)
            .map(|_| {
                let begin = 50 + next(800);
                (next(3), next(16), begin, begin + 1 + next(90))
            })
            .collect();
        let is_out = |at: usize, s: u64| {
            outages.iter().any(|&(kind, whom, from, to)| {
                let hit = match kind {
                    0 => true,
                    1 => whom % regions.len() as u64 == region_of[at],
                    _ => whom as usize % region_of.len() == at,
                };
                hit && (from..to).contains(&s)
            })
        };
        let mut simulation = Simulation::new(&regions, &check);
        let mut results: Vec<Vec<bool>> = vec![Vec::new(); region_of.len()];
        let mut failed_since_end = vec![false; region_of.len()];
        simulation.run(
            1_000,
            |at, s| if is_out(at, s) { failure() } else { fine() },
            |now, at, ms| {
                let status = &now.statuses[at];
                let is_ok = status.last_result.as_ref().unwrap().1.is_success();
                results[at].push(is_ok);
                let is_doubting = now.self_doubt.is_some();
                doubted += u32::from(is_doubting);
                let recent =
                    |n: usize| results[at].len() >= n && results[at][results[at].len() - n..].iter().all(|ok| !ok);
                // Enough failures in a row are a fall, unless the prober distrusts itself.
                assert!(!recent(fall) || is_doubting || status.state == State::Down, "{regions:?} {outages:?} {ms}");
                // Enough successes in a row are a rise, doubt or not.
                let rose = results[at].len() >= rise && results[at][results[at].len() - rise..].iter().all(|ok| *ok);
                assert!(!rose || (status.state == State::Up && !status.kept), "{regions:?} {outages:?} {ms}");
                // Doubt needs two regions, and in each of them most of what counts must fail.
                assert!(!is_doubting || regions.len() >= 2, "{regions:?}");
                if is_doubting {
                    for region in 0..regions.len() as u64 {
                        let of = |at: &usize| region_of[*at] == region;
                        let fine = (0..region_of.len()).filter(of).filter(|at| {
                            let n = results[*at].len();
                            n >= rise && results[*at][n - rise..].iter().all(|ok| *ok)
                        });
                        assert!(2 * fine.count() <= regions[region as usize], "{regions:?} {outages:?} {ms}");
                    }
                }
                // What is kept is kept by doubt, or has not failed since.
                failed_since_end[at] = !is_doubting && !is_ok;
                assert!(!status.kept || is_doubting || !failed_since_end[at], "{regions:?} {outages:?} {ms}");
            },
        );
    }
    assert!(doubted > 1_000, "{doubted}: the case is met");
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
            assert_eq!(
                after.history(&before.targets.list()[at], CHANGES_MAX),
                before.board.history(&before.targets.list()[at], CHANGES_MAX)
            );
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
        after.board.record(target, failure(), Instant::now(), wall(56_000));
        assert_eq!(after.board.snapshot().self_doubt.is_some(), is_doubting);
    }
    assert!(after.board.snapshot().statuses.iter().all(TargetStatus::is_up));
}
