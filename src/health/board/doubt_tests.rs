//! Self-doubt on the board, in simulated time.

use super::{
    steadiness_tests::{Simulation, damped, fine, no_way, timeout, wall},
    *,
};
use crate::health::{
    Check, CheckKind, Endpoint, ProbeError, damping,
    history::Standing,
    testing::{failure, tcp_check},
};

#[test]
fn all_regions_that_refuse_at_once_are_down_at_once() {
    let mut simulation = Simulation::new(&[2, 2, 2], &damped());
    let result = |_, s: u64| if s >= 100 { failure() } else { fine() };
    let mut doubted = false;
    simulation.run(130, result, |now, _, _| doubted |= now.self_doubt.is_some());
    assert!(!doubted);
    assert!((0..6).all(|at| simulation.standing(at) == Standing::Down));
}

#[test]
fn all_regions_at_once_is_taken_for_the_probers_own_failure() {
    for (way, regions) in [
        (no_way as fn() -> ProbeResult, &[1, 1][..]),
        (timeout, &[1, 1]),
        (no_way, &[3, 2, 4]),
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
            let result = |at: usize, s: u64| if region_of[at] == dead && s >= 100 { no_way() } else { fine() };
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
    let result = |at: usize, s: u64| if s >= [100, 400][at] { no_way() } else { fine() };
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
    let result = |at: usize, s: u64| if s >= 100 && (at >= 2 || s < 300) { no_way() } else { fine() };
    simulation.run(299, result, |_, _, _| {});
    assert!(simulation.board.snapshot().self_doubt.is_some());
    simulation.run(330, result, |_, _, _| {});
    assert!(simulation.board.snapshot().self_doubt.is_none());
    let up: Vec<bool> = simulation.board.snapshot().statuses.iter().map(TargetStatus::is_up).collect();
    assert_eq!(up, [true, true, false, false]);
    assert_eq!(simulation.history(2).last().unwrap().2, "unreachable: no route to host");
}

#[test]
fn a_region_that_comes_up_from_before_the_trouble_proves_that_the_prober_works() {
    let mut simulation = Simulation::new(&[1, 1, 1], &damped());
    let result = |at: usize, s: u64| match at {
        0 if s < 300 => no_way(),
        1 | 2 if s >= 200 => no_way(),
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
    let result = |_, s: u64| if s >= 100 { no_way() } else { fine() };
    simulation.run(3_600, result, |_, _, _| {});
    assert!(simulation.board.snapshot().self_doubt.is_some());
    simulation.run(3_740, result, |_, _, _| {});
    assert!(simulation.board.snapshot().self_doubt.is_none());
    assert!((0..2).all(|at| simulation.standing(at) == Standing::Down));
}

#[test]
fn a_reload_while_the_prober_distrusts_itself_changes_nothing_but_what_it_removes() {
    let mut simulation = Simulation::new(&[1, 1, 1], &damped());
    simulation.run(140, |_, s| if s >= 100 { no_way() } else { fine() }, |_, _, _| {});
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
            |at, s| if is_out(at, s) { no_way() } else { fine() },
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

fn every(interval_s: u64) -> Check {
    Check { interval: Duration::from_secs(interval_s), damping: damping::Rules::OFF, ..tcp_check(80) }
}

/// A job that reports.
fn cron(interval_s: u64) -> Check {
    Check { kind: CheckKind::Push { name: "cron".into() }, fall: 1, rise: 1, ..every(interval_s) }
}

/// Regions of one endpoint each, under these checks.
fn regions(home: Option<u16>, checks: &[&[Check]]) -> Simulation {
    let all = (0..).zip(checks).flat_map(|(region, checks)| checks.iter().map(move |check| (region, 0, check)));
    Simulation::from(home, all)
}

fn up(now: &Snapshot) -> Vec<bool> {
    now.statuses.iter().map(TargetStatus::is_up).collect()
}

#[test]
fn a_prober_that_is_cut_off_keeps_its_verdicts_though_regions_are_asked_at_different_intervals() {
    let (quick, slow) = (every(10), every(60));
    for (checks, kept_from_s) in [
        (&[[quick.clone()], [slow.clone()]][..], 80),
        (&[[quick.clone()], [quick.clone()], [slow.clone()]], 26),
        (&[[quick.clone()], [quick.clone()], [quick.clone()], [slow.clone()], [every(300)]], 26),
        (&[[quick.clone()], [quick.clone()], [every(15)]], 40),
        (&[[quick.clone()], [slow.clone()], [every(300)]], 80),
        (&[[quick.clone()], [slow.clone()], [slow.clone()], [slow.clone()]], 80),
    ] {
        let checks: Vec<&[Check]> = checks.iter().map(|check| &check[..]).collect();
        let mut simulation = regions(None, &checks);
        let result = |_, s: u64| if (1_000..2_000).contains(&s) { timeout() } else { fine() };
        simulation.run(2_000, result, |now, _, ms| {
            let is_cut_off = (1_000_000 + kept_from_s * 1_000..2_000_000).contains(&ms);
            assert_eq!(now.self_doubt.is_some(), is_cut_off || ms >= 1_000_000 && now.self_doubt.is_some());
            assert!(!is_cut_off || up(now).iter().all(|up| *up), "{checks:?} at {ms}: {:?}", up(now));
        });
        assert!(simulation.board.snapshot().statuses.iter().all(|status| status.kept), "{checks:?}");
        simulation.run(2_400, result, |now, _, _| assert!(up(now).iter().all(|up| *up), "{checks:?}"));
        assert!(simulation.board.snapshot().self_doubt.is_none(), "{checks:?}");
    }
}

#[test]
fn what_reports_by_itself_says_nothing_until_it_is_overdue() {
    let both = [every(10), cron(300)];
    for checks in [&[&both[..]; 2][..], &[&both[..]; 5], &[&both[..], &both[..], &both[1..]]] {
        let mut simulation = regions(None, checks);
        let silent = |at: usize| match simulation.targets.list()[at].check().kind.is_probed() {
            true => timeout(),
            false => push::silence(Duration::from_secs(300)),
        };
        let fails: Vec<ProbeResult> = (0..simulation.targets.list().len()).map(silent).collect();
        let result = |at: usize, s: u64| if (1_000..2_000).contains(&s) { fails[at].clone() } else { fine() };
        simulation.run(2_000, result, |now, _, ms| {
            assert!(
                ms < 1_026_000 || now.self_doubt.is_some() && up(now).iter().all(|up| *up),
                "{} at {ms}",
                checks.len()
            );
        });
        assert!(simulation.board.snapshot().statuses.iter().all(|status| status.kept), "the jobs, too");
        simulation.run(2_700, result, |now, _, _| assert!(up(now).iter().all(|up| *up)));
        assert!(simulation.board.snapshot().self_doubt.is_none());
    }
}

#[test]
fn a_slow_region_that_answers_at_its_turn_ends_the_doubt_and_the_others_are_down() {
    let mut simulation = regions(None, &[&[every(10)], &[every(10)], &[every(60)]]);
    let result = |at: usize, s: u64| if at < 2 && s >= 1_000 { timeout() } else { fine() };
    simulation.run(1_500, result, |now, _, ms| {
        assert!(now.statuses[2].is_up());
        // One interval of the slow one, and one of the others.
        assert!(ms < 1_080_000 || up(now)[..2] == [false; 2] && now.self_doubt.is_none(), "at {ms}");
    });
}

#[test]
fn several_regions_that_die_at_once_beside_one_that_is_asked_as_often_are_never_doubted_and_never_late() {
    for fault_s in 100..110 {
        for dead in [&[0usize, 1][..], &[0, 2], &[1, 2], &[0, 1, 2], &[1, 2, 3], &[0, 2, 3]] {
            let mut simulation = regions(None, &[&[every(10)], &[every(10)], &[every(10)], &[every(10)]]);
            let result = |at: usize, s: u64| if dead.contains(&at) && s >= fault_s { no_way() } else { fine() };
            simulation.run(fault_s + 40, result, |now, _, ms| {
                assert!(now.self_doubt.is_none());
                let is_late = ms >= (fault_s + 13) * 1_000 && dead.iter().any(|at| now.statuses[*at].is_up());
                assert!(!is_late, "{dead:?} since {fault_s} at {ms}");
            });
        }
    }
}

#[test]
fn the_region_that_the_prober_stands_in_proves_nothing_for_five_minutes() {
    let checks: &[&[Check]] = &[&[every(10)], &[every(10)], &[every(10)]];
    for (home, doubts) in [(None, false), (Some(0), true), (Some(1), false)] {
        let mut simulation = regions(home, checks);
        let result = |at: usize, s: u64| if at > 0 && s >= 1_000 { timeout() } else { fine() };
        simulation.run(1_300, result, |now, _, ms| {
            assert_eq!(now.self_doubt.is_some(), doubts && now.self_doubt.is_some());
            assert!(ms < 1_026_000 || up(now) == [true, doubts, doubts], "{home:?} at {ms}: {:?}", up(now));
        });
        let reason = simulation.board.snapshot().self_doubt.map(|doubt| doubt.reason.to_string());
        let words = "all 2 endpoints that were up, in all of 2 regions but its own, stopped answering together";
        assert_eq!(reason.is_some_and(|reason| reason.starts_with(words)), doubts);
        simulation.run(1_400, result, |_, _, _| {});
        assert_eq!(up(&simulation.board.snapshot()), [true, false, false], "five minutes are enough");
        assert!(simulation.board.snapshot().self_doubt.is_none());
    }
}

#[test]
fn the_only_region_beside_the_probers_own_is_never_doubted_and_all_of_them_are() {
    let mut simulation = regions(Some(0), &[&[every(10)], &[every(10)]]);
    let result = |at: usize, s: u64| if at == 1 && s >= 1_000 || s >= 2_000 { timeout() } else { fine() };
    simulation.run(1_900, result, |now, _, _| assert!(now.self_doubt.is_none()));
    assert_eq!(up(&simulation.board.snapshot()), [true, false]);
    let mut both = regions(Some(0), &[&[every(10)], &[every(10)]]);
    both.run(1_500, |_, s| if s >= 1_000 { timeout() } else { fine() }, |_, _, _| {});
    let now = both.board.snapshot();
    assert!(now.self_doubt.is_some() && up(&now) == [true, true]);
}

#[test]
fn what_fell_long_before_is_not_put_back_by_a_later_failure_of_the_rest() {
    let mut simulation = regions(None, &[&[every(10)], &[every(10), cron(300)]]);
    let result = |at: usize, s: u64| if s >= [1_000, 1_060, 9_999][at] { no_way() } else { fine() };
    simulation.run(1_500, result, |now, _, _| assert!(now.self_doubt.is_none()));
    assert_eq!(up(&simulation.board.snapshot()), [false, false, true]);
}
