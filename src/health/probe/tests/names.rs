//! Endpoints that are host names: whichever of their addresses answers, hangs, or finds no place.

use super::*;

#[tokio::test]
async fn a_host_name_is_healthy_if_one_of_its_addresses_is() {
    let at = server(|_| async {}).await; // on 127.0.0.1 alone, whatever else `localhost` means here
    let localhost = || Endpoint::Name("localhost".into());
    let net = net_probe();
    let result = probe_with(&net, localhost(), Check { timeout: AMPLE, ..tcp_check(at.port()) }).await;
    assert_eq!(result.outcome, Ok(()));
    assert!(result.connect.is_some());
    let closed = closed_port().await;
    let result = probe_with(&net, localhost(), Check { timeout: AMPLE, ..tcp_check(closed.port()) }).await;
    assert!(!result.is_success());
}

#[tokio::test]
async fn all_addresses_of_a_name_are_probed_and_a_black_hole_among_them_delays_nothing() {
    let (hole, _held) = black_hole().await;
    let elsewhere = SocketAddr::from(([127, 0, 0, 2], hole.port()));
    let listener = TcpListener::bind(elsewhere).await.unwrap(); // all of 127/8 is loopback
    let net = net_probe();
    net.resolver.preset("two.example", &[hole.ip(), elsewhere.ip()]);
    let check = Check { timeout: AMPLE, ..tcp_check(hole.port()) };
    let result = probe_with(&net, Endpoint::Name("two.example".into()), check.clone()).await;
    assert_eq!(result.outcome, Ok(()));
    assert!(result.total < AMPLE);
    drop(listener);
    let check = Check { timeout: SHORT, ..check };
    let result = probe_with(&net, Endpoint::Name("two.example".into()), check).await;
    assert_eq!(result.outcome, Err(ProbeError::Refused), "the first to fail is told");
}

/// A name that resolves to `addresses`.
pub(super) fn named(addresses: &[IpAddr]) -> (NetProbe, Endpoint) {
    let net = net_probe();
    net.resolver.preset("many.example", addresses);
    (net, Endpoint::Name("many.example".into()))
}

#[tokio::test]
async fn addresses_for_which_there_are_no_files_have_their_turn_one_after_the_other() {
    let closed = closed_port().await;
    let live = TcpListener::bind(SocketAddr::from(([127, 0, 0, 40], closed.port()))).await.unwrap();
    let addresses: Vec<IpAddr> = (1..=40).map(|last| IpAddr::from([127, 0, 0, last])).collect();
    let check = Check { timeout: AMPLE, ..tcp_check(closed.port()) };
    for open_max in [1, 3, 1_000] {
        let (net, endpoint) = named(&addresses);
        let targets = Targets::new(vec![(endpoint.clone(), Arc::new(Check { interval: AMPLE, ..check.clone() }))]);
        let result = probe_once(&targets, Arc::new(net), open_max).await.remove(0);
        assert_eq!(result.outcome, Ok(()), "the last of them is alive, with {open_max} places");
    }
    drop(live);
    let (net, endpoint) = named(&addresses);
    assert_eq!(probe_with(&net, endpoint, check).await.outcome, Err(ProbeError::Refused), "all of them failed");

    let (hole, _held) = black_hole().await;
    let (net, endpoint) = named(&[hole.ip(), IpAddr::from([127, 0, 0, 2])]);
    let check = Arc::new(Check { interval: AMPLE, timeout: SHORT, ..tcp_check(hole.port()) });
    let result = probe_once(&Targets::new(vec![(endpoint, check)]), Arc::new(net), 1).await.remove(0);
    assert!(matches!(result.outcome, Err(ProbeError::Local(_))), "one had no turn, and may be alive: {result}");
}

#[tokio::test]
async fn addresses_that_are_known_too_late_end_the_probe() {
    let (net, endpoint) = named(&[IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2])]);
    let check = Arc::new(Check { timeout: Duration::from_nanos(1), ..tcp_check(80) });
    let result = probe_once(&Targets::new(vec![(endpoint, check)]), Arc::new(net), 1_000).await.remove(0);
    assert!(!result.is_success(), "{result}");
}

#[tokio::test]
async fn a_name_without_address_fails_within_the_timeout() {
    let check = Check { timeout: SHORT, ..tcp_check(80) };
    let result = probe_with(&net_probe(), Endpoint::Name("nowhere.invalid".into()), check).await;
    let unresolved = matches!(result.outcome, Err(ProbeError::Resolve(_)));
    assert!(unresolved || timed_out_in(&result) == Some(Phase::Resolve), "{result}");
}
