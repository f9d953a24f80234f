//! Checks that nothing is probed for: heartbeats, and what is calculated. In simulated time, too.

use super::*;
use crate::health::{Calculation, CheckKind, calculated::result_of};

fn push_check(interval_ms: u64, fall: u32) -> Arc<Check> {
    let interval = ms(interval_ms);
    let kind = CheckKind::Push { name: "cron".into() };
    Arc::new(Check { kind, interval, fast_interval: interval, fall, ..tcp_check(0) })
}

#[tokio::test(start_paused = true)]
async fn an_interval_without_a_heartbeat_is_a_failure_and_a_heartbeat_begins_a_new_one() {
    let probe = Fake::new(|_| panic!("nothing is probed"));
    let targets = Targets::new(vec![(address("192.0.2.1"), push_check(10_000, 2))]);
    let (prober, board) = start(&targets, &probe);
    let target = &targets.list()[0];
    let now = || {
        let status = &board.snapshot()[TargetId(0)];
        (status.state, status.decided, status.probes_failed)
    };
    let beat = |up| board.heartbeat(target, up, Instant::now().into_std(), SystemTime::now());
    assert!(board.is_first_round_done(), "a server does not wait for heartbeats to be ready");
    sleep(ms(9_000)).await;
    assert_eq!(now(), (State::Up, false, 0), "not yet");
    assert_eq!(beat(true), Some(State::Up));
    sleep(ms(9_900)).await;
    assert_eq!(now(), (State::Up, true, 0), "each heartbeat begins an interval");
    sleep(ms(200)).await;
    assert_eq!(now(), (State::Up, true, 1), "one is missing");
    assert_eq!(board.snapshot()[TargetId(0)].ttl_bound, Some(ms(10_000)), "and may be for as long again");
    sleep(ms(10_000)).await;
    assert_eq!(now(), (State::Down, true, 2), "`fall` of them");
    let (_, error) = board.snapshot()[TargetId(0)].last_error.clone().unwrap();
    assert_eq!(error.to_string(), "no heartbeat within 10000 ms");
    assert_eq!(beat(true), Some(State::Down));
    assert_eq!(beat(true), Some(State::Up), "`rise` of them");
    prober.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_may_say_that_its_endpoint_is_down() {
    let probe = Fake::new(|_| panic!("nothing is probed"));
    let targets = Targets::new(vec![(address("192.0.2.1"), push_check(10_000, 1))]);
    let (prober, board) = start(&targets, &probe);
    let target = &targets.list()[0];
    let beat = |up| board.heartbeat(target, up, Instant::now().into_std(), SystemTime::now());
    assert_eq!((beat(true), beat(false)), (Some(State::Up), Some(State::Down)));
    let (_, error) = board.snapshot()[TargetId(0)].last_error.clone().unwrap();
    assert_eq!(error, ProbeError::ReportedDown);
    prober.replace(&Targets::default());
    assert_eq!(beat(true), None, "it is no longer on the board");
    prober.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_stood_still_heard_nothing_and_blames_nobody() {
    let probe = Fake::new(|_| panic!("nothing is probed"));
    let targets = Targets::new(vec![(address("192.0.2.1"), push_check(10_000, 1))]);
    let (prober, board) = start(&targets, &probe);
    board.heartbeat(&targets.list()[0], true, Instant::now().into_std(), SystemTime::now());
    tokio::time::advance(Duration::from_secs(3_600)).await;
    sleep(ms(9_000)).await;
    assert_eq!(board.snapshot()[TargetId(0)].probes_failed, 0, "a whole interval to report after that");
    sleep(ms(2_000)).await;
    assert_eq!(board.snapshot()[TargetId(0)].probes_failed, 1);
    prober.stop().await;
}

#[tokio::test(start_paused = true)]
async fn once_through_a_calculated_check_follows_from_its_parts_and_a_push_check_is_left_out() {
    let probe = Fake::new(|target| match target.check().kind {
        CheckKind::Tcp { port: 1 } => after(ms(1), failure()),
        CheckKind::Tcp { port: 2 } => after(ms(1), ProbeResult::failed(ProbeError::Local("files".into()), ms(1))),
        _ => after(ms(1), success(3)),
    });
    let named = |name: &str, port| Arc::new(Check { name: name.into(), ..tcp_check(port) });
    let (ok, bad, ill) = (named("ok", 80), named("bad", 1), named("ill", 2));
    let of = |needed, checks: &[&Arc<Check>]| {
        let checks = checks.iter().map(|check| Arc::clone(check)).collect();
        Arc::new(Check { kind: CheckKind::Calculated(Calculation { needed, checks }), ..tcp_check(0) })
    };
    let push = push_check(1_000, 1);
    let wholes = [
        of(1, &[&ok, &bad]),
        of(2, &[&ok, &bad]),
        of(2, &[&ok, &push]),
        of(2, &[&ok, &ill]),
        of(2, &[&bad, &ill]),
        of(1, &[&of(2, &[&ok, &bad]), &ok]),
    ];
    let targets = Targets::new(wholes.map(|whole| (address("192.0.2.1"), whole)).into());
    let results = probe_once(&targets, probe.clone(), usize::MAX).await;
    assert_eq!(probe.starts.lock().unwrap().len(), 3, "each part once");
    let told: Vec<String> = targets
        .sources()
        .iter()
        .map(|source| match result_of(source, &results).outcome {
            Ok(()) => "ok".to_string(),
            Err(error) => error.to_string().chars().take(40).collect(),
        })
        .collect();
    assert_eq!(
        told,
        [
            "ok",
            "1 of 2 checks is up, 2 must be; down: ba",
            "nothing to probe: a running server waits",
            "this host could not probe: files",
            "0 of 2 checks are up, 2 must be; down: b",
            "ok",
        ]
    );
}
