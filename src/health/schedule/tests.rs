//! Simulated time: the clock stands still but for what the probes and the schedule wait for, so every moment is exact.

mod push;

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::health::{
    Check, Endpoint, State, TargetId,
    probe::{Phase, Probing},
    testing::{address, failure, http_check, http_part, success, tcp_check},
};

/// A probe made of a function; notes who was probed when, and how many were under way at most.
struct Fake<F> {
    act: F,
    starts: Arc<Mutex<Vec<(Endpoint, Instant)>>>,
    /// What it was told to keep.
    kept: Arc<Mutex<Vec<Endpoint>>>,
    under_way: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl<F: Fn(&Target) -> Probing + Send + Sync + 'static> Fake<F> {
    fn new(act: F) -> Arc<Self> {
        Arc::new(Fake {
            act,
            starts: Arc::default(),
            kept: Arc::default(),
            under_way: Arc::default(),
            most: Arc::default(),
        })
    }

    fn starts_of(&self, endpoint: &Endpoint) -> Vec<Instant> {
        self.starts.lock().unwrap().iter().filter(|(of, _)| of == endpoint).map(|&(_, at)| at).collect()
    }
}

/// Counts down when a probe ends, in whichever way.
struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<F: Fn(&Target) -> Probing + Send + Sync + 'static> Probe for Fake<F> {
    fn probe(&self, target: &Target, _: &Arc<Semaphore>) -> Probing {
        self.starts.lock().unwrap().push((target.endpoint().clone(), Instant::now()));
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let guard = UnderWay(self.under_way.clone());
        let acting = (self.act)(target);
        Box::pin(async move {
            let _guard = guard;
            acting.await
        })
    }

    fn keep(&self, targets: &Targets) {
        *self.kept.lock().unwrap() = targets.list().iter().map(|target| target.endpoint().clone()).collect();
    }
}

/// Ends with `result` after `lasts`.
fn after(lasts: Duration, result: ProbeResult) -> Probing {
    Box::pin(async move {
        sleep(lasts).await;
        result
    })
}

fn timed_out(check: &Check) -> Probing {
    let error = ProbeError::Timeout { phase: Phase::Connect, after: check.timeout };
    after(check.timeout, ProbeResult::failed(error, check.timeout))
}

fn many(count: u32, check: &Arc<Check>) -> Vec<(Endpoint, Arc<Check>)> {
    (0..count).map(|i| (Endpoint::Address(std::net::Ipv4Addr::from(0x0a00_0000 + i).into()), check.clone())).collect()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn start(targets: &Targets, probe: &Arc<impl Probe>) -> (Prober, Arc<Board>) {
    let board = Arc::new(Board::default());
    (Prober::start(targets, board.clone(), probe.clone(), usize::MAX, &Handle::current()), board)
}

#[tokio::test(start_paused = true)]
async fn the_first_round_begins_at_once_and_never_more_than_the_bound_start_together() {
    let probe = Fake::new(|_| after(ms(40), success(1)));
    let begun = Instant::now();
    let (prober, board) = start(&Targets::new(many(2_000, &Arc::new(tcp_check(80)))), &probe);
    board.first_round().await;
    assert_eq!(begun.elapsed().as_millis() / 40, 4, "2,000 in rounds of 512");
    assert_eq!(probe.most.load(Ordering::SeqCst), STARTING_MAX);
    prober.stop().await;
}

#[tokio::test(start_paused = true)]
async fn probes_are_spread_evenly_and_each_target_keeps_its_turn() {
    let probe = Fake::new(|_| after(ms(20), success(1)));
    let begun = Instant::now();
    let targets = Targets::new(many(1_000, &Arc::new(tcp_check(80))));
    let (prober, _board) = start(&targets, &probe);
    sleep(ms(50_000)).await;
    prober.stop().await;
    let mut by_second = [0; 10];
    for target in targets.list() {
        let starts = probe.starts_of(target.endpoint());
        let regular: Vec<_> = starts.iter().filter(|at| **at > begun + ms(10_000)).collect();
        assert_eq!(regular.len(), 4);
        assert!(regular.windows(2).all(|pair| (*pair[1] - *pair[0]).abs_diff(ms(10_000)) <= ms(2)), "one an interval");
        by_second[(regular[0].duration_since(begun).as_millis() / 1_000 % 10) as usize] += 1;
    }
    assert!(by_second.iter().all(|n| (60..=140).contains(n)), "{by_second:?}");
}

/// How long after `dies_at` a target that then fails in `way` leaves, for the worst of many moments of dying.
async fn slowest_to_leave(check: Check, way: fn(&Check) -> Probing) -> Duration {
    let mut slowest = Duration::ZERO;
    let check = Arc::new(check);
    for step in 0..40 {
        let dies_at = Instant::now() + 3 * check.interval + check.interval * step / 40;
        let of_probe = check.clone();
        let probe = Fake::new(move |_| match Instant::now() >= dies_at {
            true => way(&of_probe),
            false => after(ms(30), success(30)),
        });
        let (prober, board) = start(&Targets::new(many(1, &check)), &probe);
        sleep_until(dies_at).await;
        assert_eq!(board.snapshot()[TargetId(0)].state, State::Up);
        let mut changes = board.changes();
        while board.snapshot()[TargetId(0)].state == State::Up {
            changes.changed().await.unwrap();
        }
        slowest = slowest.max(dies_at.elapsed());
        prober.stop().await;
    }
    slowest
}

#[tokio::test(start_paused = true)]
async fn a_failed_endpoint_leaves_within_the_times_that_are_promised() {
    let refused = |_: &Check| after(ms(5), failure());
    let quick = || Check { interval: ms(1_000), timeout: ms(500), ..tcp_check(80) };
    for (check, way, promised) in [
        (tcp_check(80), refused as fn(&Check) -> Probing, 13),
        (tcp_check(80), timed_out as fn(&Check) -> Probing, 25),
        (quick(), refused, 4),
        (quick(), timed_out, 5),
    ] {
        let took = slowest_to_leave(check, way).await;
        assert!(took < Duration::from_secs(promised), "{took:?} of {promised} s");
        assert!(took + ms(1_500) > Duration::from_secs(promised), "{took:?}: the worst case was not met");
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_comes_back_after_two_successes_a_second_apart() {
    let back_at = Instant::now() + ms(60_000);
    let probe = Fake::new(move |_| after(ms(5), if Instant::now() < back_at { failure() } else { success(5) }));
    let (prober, board) = start(&Targets::new(many(1, &Arc::new(tcp_check(80)))), &probe);
    sleep_until(back_at).await;
    assert_eq!(board.snapshot()[TargetId(0)].state, State::Down);
    let mut changes = board.changes();
    while board.snapshot()[TargetId(0)].state == State::Down {
        changes.changed().await.unwrap();
    }
    assert!(back_at.elapsed() < ms(10_000 + 1_000 + 20), "{:?}", back_at.elapsed());
    let starts = probe.starts_of(&address("10.0.0.0"));
    let [.., first, second] = starts[..] else { panic!("two successes") };
    assert!((second - first).abs_diff(ms(1_005)) <= ms(2), "fast interval from end to start");
    prober.stop().await;
}

#[tokio::test(start_paused = true)]
async fn stuck_probes_delay_nobody_else() {
    let live = address("192.0.2.1");
    let is_live = live.clone();
    let probe = Fake::new(move |target| match target.endpoint() == &is_live {
        true => after(ms(10), success(10)),
        false => Box::pin(std::future::pending()),
    });
    let check = Arc::new(tcp_check(80));
    let mut pairs = many(3 * STARTING_MAX as u32, &check);
    pairs.push((live.clone(), check));
    let (prober, _board) = start(&Targets::new(pairs), &probe);
    sleep(ms(100_000)).await;
    let starts = probe.starts_of(&live);
    assert!(starts.len() >= 10, "{}", starts.len());
    assert!(starts[1..].windows(2).all(|pair| (pair[1] - pair[0]).abs_diff(ms(10_000)) <= ms(2)), "{starts:?}");
    prober.stop().await;
}

/// When 9,000 of 10,000 fall silent: how late the worst turn of a live one is after that.
async fn latest_turn_beside_black_holes(check: Check) -> Duration {
    let silent_at = Instant::now() + ms(30_000);
    let is_live = |endpoint: &Endpoint| matches!(endpoint, Endpoint::Address(at) if at.to_string().ends_with('7'));
    let probe = Fake::new(move |target| match is_live(target.endpoint()) || Instant::now() < silent_at {
        true => after(ms(30), success(30)),
        false => timed_out(target.check()),
    });
    let targets = Targets::new(many(10_000, &Arc::new(check)));
    let (prober, _board) = start(&targets, &probe);
    sleep(ms(90_000)).await;
    prober.stop().await;
    let mut turns: HashMap<Endpoint, Vec<Instant>> = HashMap::new();
    for (endpoint, at) in probe.starts.lock().unwrap().iter().filter(|(endpoint, _)| is_live(endpoint)) {
        turns.entry(endpoint.clone()).or_default().push(*at);
    }
    assert!((900..1_200).contains(&turns.len()), "{}", turns.len());
    let gaps = turns.values().flat_map(|at| at[1..].windows(2).map(|pair| pair[1] - pair[0]));
    gaps.max().unwrap().saturating_sub(ms(10_000))
}

#[tokio::test(start_paused = true)]
async fn nine_thousand_black_holes_in_doubt_leave_the_live_ones_their_turns() {
    let over_tls = |check: &mut Check| http_part(check).tls = true;
    let mut https = Check { interval: ms(10_000), ..http_check(([192, 0, 2, 1], 443).into()) };
    over_tls(&mut https);
    for check in [tcp_check(80), https] {
        let late = latest_turn_beside_black_holes(check).await;
        assert!(late <= ms(100), "{late:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_starts_the_probes_is_started_again_when_it_panics_and_ends_with_the_lists() {
    let board = Arc::new(Board::default());
    let (lists, incoming) = watch::channel(Targets::default());
    let begun = Arc::new(Mutex::new(Vec::new()));
    let body = {
        let (begun, incoming) = (begun.clone(), incoming.clone());
        move || {
            let (begun, mut lists) = (begun.clone(), incoming.clone());
            async move {
                begun.lock().unwrap().push(Instant::now());
                let count = begun.lock().unwrap().len();
                assert!(count > 3, "made to panic by the test");
                while lists.changed().await.is_ok() {}
            }
        }
    };
    let running = tokio::spawn(start_again(board.clone(), incoming, body));
    sleep(ms(60_000)).await;
    let pauses: Vec<u64> = begun.lock().unwrap().windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert_eq!((pauses, board.panics()), (vec![1, 2, 4], 3));
    assert!(!running.is_finished());
    drop(lists);
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn where_probes_tell_nothing_the_first_round_is_over_after_a_few() {
    let probe = Fake::new(|_| after(ms(10), ProbeResult::failed(ProbeError::NoTrustedRoots, ms(10))));
    let (prober, board) = start(&Targets::new(many(3, &Arc::new(tcp_check(80)))), &probe);
    sleep(ms(1_500)).await;
    assert!(!board.is_first_round_done(), "it may be over soon");
    sleep(ms(1_000)).await;
    assert!(board.is_first_round_done(), "`fall` of them");
    let status = &board.snapshot()[TargetId(0)];
    assert_eq!((status.state, status.decided, status.probes_failed), (State::Up, false, 0));
    prober.stop().await;
}

#[tokio::test(start_paused = true)]
async fn no_more_probes_are_under_way_than_there_are_files_for_and_all_have_their_turn() {
    let check = Arc::new(tcp_check(80));
    let probe = Fake::new(|target| timed_out(target.check()));
    let targets = Targets::new(many(300, &check));
    let board = Arc::new(Board::default());
    let prober = Prober::start(&targets, board, probe.clone(), 100, &Handle::current());
    sleep(check.timeout * 4).await; // three batches, and then some
    assert_eq!(probe.most.load(Ordering::SeqCst), 100);
    let probed: std::collections::HashSet<Endpoint> =
        probe.starts.lock().unwrap().iter().map(|(of, _)| of.clone()).collect();
    assert_eq!(probed.len(), 300, "who waited longest comes first");
    prober.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_list_keeps_verdict_and_turn_of_what_stays_ends_what_left_and_begins_what_is_new() {
    let dead = address("10.0.0.0");
    let probe = Fake::new({
        let dead = dead.clone();
        move |target| after(ms(10), if target.endpoint() == &dead { failure() } else { success(10) })
    });
    let check = Arc::new(tcp_check(80));
    let (prober, board) = start(&Targets::new(many(3, &check)), &probe);
    sleep(ms(35_000)).await;
    let now = Instant::now();
    let new = address("192.0.2.1");
    let renamed = Arc::new(Check { name: "renamed".into(), ..tcp_check(80) });
    let list = [new.clone(), address("10.0.0.1"), dead.clone()];
    let epoch = prober.replace(&Targets::new(list.clone().map(|endpoint| (endpoint, renamed.clone())).into()));
    let snapshot = board.snapshot();
    assert_eq!(snapshot.epoch, epoch);
    assert_eq!((snapshot[TargetId(2)].state, snapshot[TargetId(2)].decided), (State::Down, true));
    assert_eq!(snapshot[TargetId(2)].target.check_names, ["renamed"]);
    assert_eq!((snapshot[TargetId(0)].state, snapshot[TargetId(0)].decided), (State::Up, false));
    sleep(ms(40_000)).await;
    assert_eq!(probe.starts_of(&new)[0], now, "new ones at once");
    assert_eq!(probe.kept.lock().unwrap()[..], list, "what is remembered of who left may be forgotten");
    assert!(probe.starts_of(&address("10.0.0.2")).iter().all(|at| *at <= now), "who left is left alone");
    let starts = probe.starts_of(&address("10.0.0.1"));
    assert!(starts[1..].windows(2).all(|pair| (pair[1] - pair[0]).abs_diff(ms(10_000)) <= ms(2)), "{starts:?}");
    prober.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_same_target_named_twice_is_probed_once() {
    let probe = Fake::new(|_| after(ms(10), success(10)));
    let other_name = Arc::new(Check { name: "other".into(), ..tcp_check(80) });
    let pairs = vec![(address("192.0.2.1"), Arc::new(tcp_check(80))), (address("192.0.2.1"), other_name)];
    let (prober, board) = start(&Targets::new(pairs), &probe);
    board.first_round().await;
    assert_eq!(probe.starts.lock().unwrap().len(), 1);
    prober.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_panicking_probe_is_counted_and_tried_again_ever_later_while_its_verdict_stays() {
    let begun = Instant::now();
    let ill = address("10.0.0.0");
    let probe = Fake::new({
        let ill = ill.clone();
        move |target| match target.endpoint() == &ill && begun.elapsed() > ms(60_000) {
            true => Box::pin(async { panic!("made to panic by the test") }),
            false => after(ms(10), if target.endpoint() == &ill { failure() } else { success(1) }),
        }
    });
    let (prober, board) = start(&Targets::new(many(2, &Arc::new(tcp_check(80)))), &probe);
    sleep(ms(60_000)).await;
    let before = probe.starts_of(&ill).len();
    sleep(ms(300_000)).await;
    let starts = probe.starts_of(&ill);
    let pauses: Vec<u64> = starts[before..].windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert_eq!(pauses[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(board.panics(), starts.len() as u64 - before as u64);
    let snapshot = board.snapshot();
    assert_eq!((snapshot[TargetId(0)].state, snapshot[TargetId(1)].state), (State::Down, State::Up));
    assert!(snapshot[TargetId(1)].probes_ok > 30, "the others go on");
    prober.stop().await;
}

#[tokio::test(start_paused = true)]
async fn no_storm_follows_when_the_process_stood_still() {
    let probe = Fake::new(|_| after(ms(10), success(10)));
    let (prober, _board) = start(&Targets::new(many(1_000, &Arc::new(tcp_check(80)))), &probe);
    sleep(ms(25_000)).await;
    tokio::time::advance(Duration::from_secs(3_600)).await;
    let woken = Instant::now();
    sleep(ms(11_000)).await;
    prober.stop().await;
    let starts = probe.starts.lock().unwrap();
    let since: Vec<u128> = starts.iter().filter(|s| s.1 >= woken).map(|s| (s.1 - woken).as_millis()).collect();
    assert!(since.len() >= 1_000, "{}: everyone had a turn within an interval", since.len());
    let most_in_a_second = (0..11).map(|second| since.iter().filter(|at| **at / 1_000 == second).count()).max();
    assert!(most_in_a_second < Some(200), "{most_in_a_second:?}");
}

#[tokio::test(start_paused = true)]
async fn failures_seen_late_and_lacks_of_this_host_move_no_verdict() {
    let begun = Instant::now();
    let probe = Fake::new({
        move |target| {
            let timeout = target.check().timeout;
            let error = match target.endpoint().to_string().as_str() {
                "10.0.0.0" => ProbeError::Timeout { phase: Phase::Connect, after: timeout },
                "10.0.0.1" => ProbeError::Reset(Phase::Answer),
                _ => ProbeError::Local("out of files".into()),
            };
            match begun.elapsed() < ms(30_000) {
                true => after(ms(10), success(10)),
                false => after(timeout + 2 * STALL_MIN, ProbeResult::failed(error, timeout)),
            }
        }
    });
    let (prober, board) = start(&Targets::new(many(3, &Arc::new(tcp_check(80)))), &probe);
    sleep(ms(200_000)).await;
    for status in board.snapshot().statuses.iter() {
        assert_eq!((status.state, status.in_doubt, status.probes_failed), (State::Up, false, 0));
        assert!(status.probes_inconclusive > 10);
    }
    prober.stop().await;
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_the_probes_under_way_and_starts_no_more() {
    let probe = Fake::new(|_| Box::pin(std::future::pending()) as Probing);
    let (prober, _board) = start(&Targets::new(many(10, &Arc::new(tcp_check(80)))), &probe);
    sleep(ms(100)).await;
    assert_eq!(probe.under_way.load(Ordering::SeqCst), 10);
    prober.stop().await;
    assert_eq!(probe.under_way.load(Ordering::SeqCst), 0);
    sleep(ms(60_000)).await;
    assert_eq!(probe.starts.lock().unwrap().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn one_round_gives_every_target_its_result_in_order() {
    let probe = Fake::new(|target| match target.endpoint().to_string().as_str() {
        "10.0.0.1" => Box::pin(async { panic!("made to panic by the test") }),
        "10.0.0.2" => after(ms(45), failure()),
        _ => after(ms(30), success(1)),
    });
    let results = probe_once(&Targets::new(many(1_500, &Arc::new(tcp_check(80)))), probe.clone(), usize::MAX).await;
    assert_eq!(results.len(), 1_500);
    assert_eq!(results[1].outcome, Err(ProbeError::Panicked));
    assert_eq!(results[2].outcome, Err(ProbeError::Refused));
    assert!(results.iter().enumerate().all(|(i, result)| result.is_success() != (1..=2).contains(&i)));
    assert!(probe.most.load(Ordering::SeqCst) <= STARTING_MAX);
}

#[test]
fn a_turn_just_missed_is_taken_and_one_missed_by_a_stall_is_not() {
    let begun = Instant::now();
    let turns = Turns { first: begun + ms(3_000), interval: ms(10_000) };
    let at = |ms_after| begun + ms(ms_after);
    for (started, ended, expected) in [
        (0, 10, 3_000),
        (3_000, 3_020, 13_000),
        (4_000, 4_010, 13_000),
        (12_999, 12_999, 13_000),
        (13_000, 23_000, 23_000),
        (13_000, 23_005, 23_005),
        (13_000, 24_500, 33_000),
        (13_000, 3_613_500, 3_623_000),
    ] {
        assert_eq!(turns.next(at(started), at(ended)) - begun, ms(expected), "{started} to {ended}");
    }
}
