use std::cell::RefCell;
use std::sync::Once;

use super::*;
use crate::health::testing::{address, failure, success, tcp_check};
use crate::health::{Check, Endpoint, ProbeError};

fn board(pairs: Vec<(Endpoint, Arc<Check>)>) -> (Board, Targets) {
    let (board, targets) = (Board::default(), Targets::new(pairs));
    board.adopt(&targets, SystemTime::UNIX_EPOCH);
    (board, targets)
}

fn three(check: &Arc<Check>) -> Vec<(Endpoint, Arc<Check>)> {
    ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|text| (address(text), check.clone())).into()
}

fn tell(board: &Board, target: &Target, result: ProbeResult) -> Option<Pace> {
    board.record(target, result, Instant::now(), SystemTime::now())
}

/// Whether `act` made the board tell of a change.
fn told(board: &Board, act: impl FnOnce()) -> bool {
    let mut changes = board.changes();
    changes.mark_unchanged();
    act();
    changes.has_changed().unwrap()
}

#[test]
fn the_first_round_is_done_when_every_target_has_a_result_and_stays_done() {
    let check = Arc::new(tcp_check(80));
    let (board, targets) = board(three(&check));
    for (target, last) in targets.list().iter().zip([false, false, true]) {
        assert!(!board.is_first_round_done());
        tell(&board, target, failure());
        tell(&board, target, success(5));
        assert_eq!(board.is_first_round_done(), last);
    }
    let mut more = three(&check);
    more.push((address("192.0.2.4"), check));
    board.adopt(&Targets::new(more), SystemTime::now());
    assert!(board.is_first_round_done(), "a reload does not make a running server unready");
}

#[test]
fn without_targets_the_first_round_is_done_once_that_is_known() {
    let board = Board::default();
    assert!(!board.is_first_round_done());
    board.adopt(&Targets::default(), SystemTime::now());
    assert!(board.is_first_round_done());
}

#[test]
fn changes_are_told_when_answers_depend_on_them_and_only_then() {
    let (board, targets) = board(three(&Arc::new(tcp_check(80))));
    let target = &targets.list()[0];
    for (result, expected, why) in [
        (success(10), true, "first result"),
        (success(10), false, "nothing new"),
        (success(12), false, "slower than the baseline"),
        (success(8), true, "a lower baseline"),
        (success(8), false, "nothing new"),
        (failure(), true, "in doubt"),
        (failure(), true, "one check closer"),
        (success(8), false, "the count stays open"),
        (failure(), true, "down"),
        (failure(), false, "still down"),
        (success(8), true, "perhaps coming back"),
        (failure(), true, "it does not"),
        (success(8), true, "perhaps"),
        (success(8), true, "up"),
    ] {
        assert_eq!(told(&board, || _ = tell(&board, target, result)), expected, "{why}");
    }
}

#[test]
fn the_bound_on_ttls_is_the_time_in_which_the_state_may_change() {
    let (board, targets) = board(three(&Arc::new(tcp_check(80))));
    let target = &targets.list()[1];
    let status = || board.snapshot()[TargetId(1)].clone();
    let seconds = |s| Some(Duration::from_secs(s));
    assert_eq!((status().decided, status().in_doubt, status().ttl_bound), (false, true, seconds(1)));
    for (result, state, bound) in [
        (success(1), State::Up, None),
        (failure(), State::Up, seconds(2)),
        (failure(), State::Up, seconds(1)),
        (failure(), State::Down, None),
        (success(1), State::Down, seconds(1)),
        (success(1), State::Up, None),
    ] {
        tell(&board, target, result);
        assert_eq!((status().state, status().ttl_bound, status().decided), (state, bound, true));
    }
}

#[test]
fn results_are_counted_and_the_last_error_outlives_later_successes() {
    let (board, targets) = board(three(&Arc::new(tcp_check(80))));
    let target = &targets.list()[2];
    tell(&board, target, failure());
    tell(&board, target, success(7));
    let starved = ProbeResult::failed(ProbeError::Local("out of files".into()), Duration::ZERO);
    board.record_inconclusive(target, starved, SystemTime::now());
    tell(&board, target, success(9));
    let status = &board.snapshot()[TargetId(2)];
    assert_eq!((status.probes_ok, status.probes_failed, status.probes_inconclusive), (2, 1, 1));
    assert_eq!((status.connect_ms(), status.baseline_ms()), (Some(9.0), Some(7.0)));
    assert_eq!(
        status.last_error.as_ref().map(|(_, error)| error.to_string()).as_deref(),
        Some("this host could not probe: out of files")
    );
    assert_eq!(status.last_result.as_ref().unwrap().1.to_string(), "ok, connected in 9.0 ms");
}

#[test]
fn targets_that_stay_keep_what_is_known_of_them() {
    let check = Arc::new(tcp_check(80));
    let (board, targets) = board(three(&check));
    tell(&board, &targets.list()[2], failure());
    tell(&board, &targets.list()[0], success(5));
    tell(&board, &targets.list()[0], failure());
    let epoch = board.snapshot().epoch;

    let mut turned = three(&check);
    turned.reverse();
    turned.push((address("192.0.2.9"), check));
    let renewed = Targets::new(turned);
    assert_eq!(board.adopt(&renewed, SystemTime::now()), epoch + 1);
    let snapshot = board.snapshot();
    assert_eq!(snapshot[TargetId(0)].target.endpoint(), &address("192.0.2.3"));
    assert_eq!((snapshot[TargetId(0)].state, snapshot[TargetId(0)].decided), (State::Down, true));
    assert_eq!((snapshot[TargetId(2)].state, snapshot[TargetId(2)].checks_left), (State::Up, 2));
    assert_eq!((snapshot[TargetId(3)].state, snapshot[TargetId(3)].decided), (State::Up, false));

    board.adopt(&Targets::default(), SystemTime::now());
    assert_eq!(tell(&board, &renewed.list()[0], success(1)), None, "it is no longer on the board");
}

#[test]
fn other_times_for_the_same_probe_keep_the_state_until_its_first_result() {
    let (board, targets) = board(three(&Arc::new(tcp_check(80))));
    tell(&board, &targets.list()[0], failure());
    let gentler = Arc::new(Check { fall: 5, interval: Duration::from_secs(30), ..tcp_check(80) });
    let elsewhere = Arc::new(tcp_check(81));
    let renewed = Targets::new(vec![(address("192.0.2.1"), gentler), (address("192.0.2.1"), elsewhere)]);
    board.adopt(&renewed, SystemTime::now());
    let snapshot = board.snapshot();
    assert_eq!((snapshot[TargetId(0)].state, snapshot[TargetId(0)].decided), (State::Down, false));
    assert_eq!(snapshot[TargetId(1)].state, State::Up, "another port says nothing about this one");
    tell(&board, &renewed.list()[0], success(1));
    assert_eq!(board.snapshot()[TargetId(0)].state, State::Up);
}

/// What the calling thread has logged while `act` ran.
///
/// One subscriber serves all threads, because a call site that another thread reaches first is switched off for good where
/// only this one had a subscriber.
fn logged(act: impl FnOnce()) -> String {
    thread_local!(static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
    struct Log;
    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            LOG.with_borrow_mut(|log| log.extend_from_slice(bytes));
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    static SUBSCRIBER: Once = Once::new();
    SUBSCRIBER.call_once(|| {
        tracing_subscriber::fmt().with_ansi(false).with_writer(|| Log).init();
        tracing::callsite::rebuild_interest_cache();
    });
    LOG.take();
    act();
    String::from_utf8(LOG.take()).unwrap()
}

#[test]
fn every_transition_is_logged_with_its_reason() {
    let text = logged(|| {
        let (board, targets) = board(three(&Arc::new(tcp_check(80))));
        for result in [success(3), failure(), failure(), failure(), failure(), success(3), success(3), success(3)] {
            tell(&board, &targets.list()[0], result);
        }
    });
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].contains("WARN") && lines[0].contains("endpoint is down endpoint=192.0.2.1 check=web"), "{text}");
    assert!(lines[0].contains("connection refused"), "{text}");
    assert!(lines[1].contains("INFO") && lines[1].contains("endpoint is up again"), "{text}");
}

#[test]
fn who_follows_the_board_is_told_what_changed_alone_and_all_of_another_list() {
    let check = Arc::new(tcp_check(80));
    let (board, targets) = board(three(&check));
    let ids = |changes: &Changes| changes.statuses.iter().map(|(id, _)| id.0).collect::<Vec<_>>();
    let all = board.changes_since(0);
    assert_eq!((ids(&all), all.epoch), (vec![0, 1, 2], 1));
    assert_eq!(ids(&board.changes_since(all.generation)), [0u32; 0]);
    for result in [success(5), failure(), failure(), failure()] {
        tell(&board, &targets.list()[1], result);
    }
    tell(&board, &targets.list()[0], success(5));
    let some = board.changes_since(all.generation);
    assert_eq!(ids(&some), [0, 1]);
    assert_eq!((some.statuses[0].1.state, some.statuses[1].1.state), (State::Up, State::Down));
    assert_eq!(some.generation, board.snapshot().generation);
    board.adopt(&Targets::new(vec![(address("192.0.2.9"), check)]), SystemTime::now());
    let other = board.changes_since(some.generation);
    assert_eq!((ids(&other), other.epoch), (vec![0], 2));
}
