//! Who answers under every mixture of health and of what operators decided: tables for endpoints, and for regions the rule that the
//! best standing wins, first in the ranking among equals, so that only the share moves that has to.

#[path = "support/fixture.rs"]
mod fixture;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use fixture::{Ask, Fixture};
use hickory_proto::rr::RecordType;
use isochrone::{
    config::model::RegionId,
    routing::{
        Family,
        force::Force,
        health::TargetHealth,
        policy::{self, Client, Decision, Outcome, Reason},
    },
    zone::sign::keys::KeyPair,
};
use proptest::prelude::*;

const CONFIG: &str = r#"
[checks.web]
type = "tcp"
port = 80
[regions.a]
location = "aws:us-east-1"
endpoints = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"]
check = "web"
min-healthy = MIN
[regions.b]
location = "aws:eu-west-1"
endpoints = ["198.51.100.1", "2001:db8:1::1"]
check = "web"
[regions.c]
location = "aws:ap-northeast-1"
endpoints = ["203.0.113.1"]
check = "web"
[regions.d]
location = "aws:sa-east-1"
endpoints = ["203.0.113.101"]
check = "web"
[zones."example.com"]
nameservers = ["ns1.example.net."]
KEY
[zones."example.com".routes.list]
policy = "failover"
regions = ["a", "b"]
https = "1 ."
[zones."example.com".routes.near]
[zones."example.com".routes.drawn]
policy = "weighted"
weights = { a = 5, b = 3, c = 2, d = 0 }
[[zones."example.com".routes.drawn.rules]]
clients = ["10.0.0.0/8"]
regions = ["b", "c"]
[zones."example.com".routes.only]
regions = ["c"]
[zones."example.com".routes.silent]
regions = ["c"]
when-all-down = "nodata"
"#;

fn fixture(min_healthy: &str) -> Fixture {
    Fixture::new(&CONFIG.replace("MIN", min_healthy).replace("KEY", ""))
}

/// From `a drain, a/192.0.2.1 down`.
fn forces(text: &str) -> BTreeMap<String, Force> {
    let force = |word: &str| Force::ALL.into_iter().find(|force| force.as_str() == word).expect("a state");
    text.split(", ").filter_map(|part| part.split_once(' ')).map(|(t, w)| (t.to_string(), force(w))).collect()
}

fn set(fixture: &mut Fixture, down: &str, forced: &str) {
    let (down, forced): (Vec<&str>, _) = (down.split(' ').collect(), forces(forced));
    fixture.set_state(
        |endpoint| TargetHealth { up: !down.contains(&endpoint), ..TargetHealth::UNKNOWN },
        |target| forced.get(target).copied(),
    );
}

/// What is answered, shortened: `1 2 3` for region a's addresses, `b` for region b's.
fn answer(fixture: &mut Fixture, name: &str, qtype: &str) -> String {
    let answer = fixture.ask(&Ask::new(&format!("{name}.example.com"), qtype).tcp());
    match answer.addresses().as_slice() {
        [] => answer.rcode(),
        list => list
            .iter()
            .map(|address| match address.strip_prefix("192.0.2.").or(address.strip_prefix("2001:db8::")) {
                Some(rest) => rest.to_string(),
                None if address.starts_with("198.51.100.") || address.starts_with("2001:db8:1:") => "b".into(),
                None => "c".into(),
            })
            .collect::<Vec<_>>()
            .join(" "),
    }
}

const ALL_OF_A: &str = "192.0.2.1 192.0.2.2 192.0.2.3 2001:db8::1";
const ALL_OF_B: &str = "198.51.100.1 2001:db8:1::1";

#[test]
fn endpoints_and_regions_answer_as_health_and_operators_say() {
    let everything = format!("{ALL_OF_A} {ALL_OF_B}");
    for (min, down, forced, v4, v6) in [
        ("1", "", "", "1 2 3", "1"),
        // A drained region answers after all others that are usable, and before blind answers.
        ("1", "", "a drain", "b", "b"),
        ("1", "", "a drain, b drain", "1 2 3", "1"),
        ("1", ALL_OF_B, "a drain", "1 2 3", "1"),
        ("1", ALL_OF_A, "a drain, b drain", "b", "b"),
        ("1", &everything, "a drain", "b", "b"),
        ("1", &everything, "a drain, b drain", "1 2 3", "1"),
        // A region that is down never answers.
        ("1", "", "a down", "b", "b"),
        ("1", ALL_OF_B, "a down", "b", "b"),
        ("1", "", "a down, b down", "Server Failure", "Server Failure"),
        ("1", "", "a down, a/192.0.2.1 up", "b", "b"),
        // One that is up answers whatever its checks say, with all endpoints but those that are decided on.
        ("1", ALL_OF_A, "a up", "1 2 3", "1"),
        ("4", ALL_OF_A, "a up", "1 2 3", "1"),
        ("1", ALL_OF_A, "a up, a/192.0.2.2 down", "1 3", "1"),
        ("1", ALL_OF_A, "a up, a/192.0.2.2 drain", "1 3", "1"),
        ("4", ALL_OF_A, "a up, a/192.0.2.2 down", "b", "b"),
        // A drained endpoint answers only where no other of its region and no other region can.
        ("1", "", "a/192.0.2.1 drain", "2 3", "1"),
        ("1", "192.0.2.2 192.0.2.3", "a/192.0.2.1 drain", "b", "1"),
        ("1", &format!("192.0.2.2 192.0.2.3 {ALL_OF_B}"), "a/192.0.2.1 drain", "1", "1"),
        ("1", "", "a/2001:db8::1 drain", "1 2 3", "b"),
        ("1", ALL_OF_B, "a/2001:db8::1 drain", "1 2 3", "1"),
        ("1", &everything, "a/192.0.2.1 drain", "2 3", "1"),
        ("1", ALL_OF_B, "a drain, a/192.0.2.1 drain", "2 3", "1"),
        // One that is down never answers, not even blindly.
        ("1", "", "a/192.0.2.1 down", "2 3", "1"),
        ("1", &everything, "a/192.0.2.1 down", "2 3", "1"),
        ("1", "", "a/192.0.2.1 down, a/192.0.2.2 down, a/192.0.2.3 down", "b", "1"),
        ("1", &everything, "a/2001:db8::1 down", "1 2 3", "b"),
        // One that is up counts as healthy.
        ("1", &everything, "a/192.0.2.3 up", "3", "1"),
        ("2", ALL_OF_A, "a/192.0.2.3 up", "b", "b"),
        // Drained endpoints take no part in what `min-healthy` counts, until nothing else is left.
        ("3", "", "a/192.0.2.1 drain", "2 3", "1"),
        ("4", "", "a/192.0.2.1 drain", "b", "b"),
        ("4", ALL_OF_B, "a/192.0.2.1 drain", "1 2 3", "1"),
        ("\"75%\"", "192.0.2.2", "a/192.0.2.1 drain", "b", "b"),
        ("\"50%\"", "192.0.2.2", "a/192.0.2.1 drain", "3", "1"),
        // Without overrides: counts and percentages.
        ("2", "192.0.2.1 192.0.2.2", "", "3", "1"),
        ("2", "192.0.2.1 192.0.2.2 192.0.2.3", "", "b", "b"),
        ("\"75%\"", "192.0.2.1", "", "2 3", "1"),
        ("\"76%\"", "192.0.2.1", "", "b", "b"),
        ("\"1%\"", "192.0.2.1 192.0.2.2 192.0.2.3", "", "b", "1"),
    ] {
        let mut fixture = fixture(min);
        set(&mut fixture, down, forced);
        let got = (answer(&mut fixture, "list", "A"), answer(&mut fixture, "list", "AAAA"));
        assert_eq!((&*got.0, &*got.1), (v4, v6), "min-healthy {min}; down: {down}; forced: {forced}");
    }
}

#[test]
fn with_everything_forced_down_each_route_answers_as_it_says_for_all_down() {
    let mut fixture = fixture("1");
    set(&mut fixture, "203.0.113.1", "");
    assert_eq!((&*answer(&mut fixture, "only", "A"), &*answer(&mut fixture, "silent", "A")), ("c", "No Error"));
    set(&mut fixture, "", "c down");
    assert_eq!(
        (&*answer(&mut fixture, "only", "A"), &*answer(&mut fixture, "silent", "A")),
        ("Server Failure", "No Error")
    );
    set(&mut fixture, "", "c/203.0.113.1 down");
    assert_eq!(
        (&*answer(&mut fixture, "only", "A"), &*answer(&mut fixture, "silent", "A")),
        ("Server Failure", "No Error")
    );
}

#[test]
fn doubt_about_what_is_forced_lowers_no_ttl() {
    let mut fixture = fixture("1");
    for (in_doubt, forced, ttl) in [
        ("192.0.2.1", "", 7),
        ("192.0.2.1", "a up", 60),
        ("192.0.2.1", "a/192.0.2.1 up", 60),
        ("192.0.2.1", "a/192.0.2.1 down", 60),
        ("192.0.2.1", "a down", 60),
        ("192.0.2.1", "a/192.0.2.1 drain", 60),
        ("192.0.2.1", "a drain", 60),
        ("192.0.2.1", "a drain, b down", 7),
        ("192.0.2.1", "a/192.0.2.1 drain, a/192.0.2.2 down, a/192.0.2.3 down, b down", 7),
        ("198.51.100.1", "", 60),
        ("198.51.100.1", "a drain", 7),
        ("198.51.100.1", "a drain, b up", 60),
    ] {
        let forced_list = forces(forced);
        fixture.set_state(
            |endpoint| TargetHealth { doubt_s: (endpoint == in_doubt).then_some(7), ..TargetHealth::UNKNOWN },
            |target| forced_list.get(target).copied(),
        );
        let answer = fixture.ask(&Ask::new("list.example.com", "A"));
        assert_eq!(answer.ttl(), ttl, "{in_doubt} in doubt, {forced}");
    }
}

/// A region's state in a property: healthy or not, and decided on or not.
type State = (bool, Option<Force>);

fn state() -> impl Strategy<Value = State> {
    let force = prop_oneof![
        3 => Just(None),
        1 => prop_oneof![Just(Force::Up), Just(Force::Drain), Just(Force::Down)].prop_map(Some)
    ];
    (any::<bool>(), force)
}

/// Best first; 4 never answers.
fn class((up, force): State) -> u8 {
    match (up, force) {
        (_, Some(Force::Down)) => 4,
        (_, Some(Force::Up)) | (true, None) => 0,
        (true, Some(Force::Drain)) => 1,
        (false, None) => 2,
        (false, Some(Force::Drain)) => 3,
    }
}

const REGIONS: [&str; 4] = ["a", "b", "c", "d"];

fn set_regions(fixture: &mut Fixture, states: &[State; 4]) {
    let region_of = |endpoint: &str| match endpoint {
        e if e.starts_with("192.0.2.") || e == "2001:db8::1" => 0,
        e if e.starts_with("198.51.100.") || e == "2001:db8:1::1" => 1,
        "203.0.113.1" => 2,
        _ => 3,
    };
    fixture.set_state(
        |endpoint| TargetHealth { up: states[region_of(endpoint)].0, ..TargetHealth::UNKNOWN },
        |target| REGIONS.iter().position(|region| *region == target).and_then(|at| states[at].1),
    );
}

fn decide(fixture: &Fixture, label: &str, address: Ipv4Addr) -> Decision {
    let (plan, health) = (&fixture.snapshot.plan, &fixture.snapshot.health);
    let route = plan.routes.iter().find(|route| route.label == label).unwrap();
    let client = Client { address: address.into(), resolver: IpAddr::V4(Ipv4Addr::LOCALHOST) };
    policy::decide(plan, health, route, Family::V4, client)
}

fn region(decision: &Decision) -> Option<RegionId> {
    match decision.outcome {
        Outcome::Region { region, .. } => Some(region),
        _ => None,
    }
}

/// Client networks all over, some inside the rule of `drawn`.
fn networks(count: u32) -> impl Iterator<Item = Ipv4Addr> {
    (0..count).map(|n| match n % 4 {
        0 => Ipv4Addr::from(0x0a00_0000 + (n << 8)),
        _ => Ipv4Addr::from((n.wrapping_mul(2_654_435_761) & 0x7fff_ff00) | 0x0100_0000),
    })
}

fn label() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("drawn"), Just("near")]
}

thread_local! {
    static FIXTURE: std::cell::RefCell<Fixture> = std::cell::RefCell::new(fixture("1"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_best_standing_wins_first_in_the_ranking_and_inside_the_rule(
        label in label(),
        states in prop::array::uniform4(state()),
    ) {
        FIXTURE.with_borrow_mut(|fixture| {
            set_regions(fixture, &states);
            for address in networks(64) {
                let decision = decide(fixture, label, address);
                let (plan, health) = (&fixture.snapshot.plan, &fixture.snapshot.health);
                let route = plan.routes.iter().find(|route| route.label == label).unwrap();
                let ranked: Vec<RegionId> =
                    policy::ranking(plan, health, route, decision.rule, decision.ranked_by, decision.network_hash).collect();
                let best = ranked.iter().min_by_key(|region| class(states[region.index()])).copied();
                let expected = best.filter(|region| class(states[region.index()]) < 4);
                prop_assert_eq!(region(&decision), expected);
                if label == "drawn" && address.octets()[0] == 10 {
                    prop_assert!(region(&decision).is_none_or(|region| [1, 2].contains(&region.index())));
                }
                if let Outcome::Region { region, reason, .. } = decision.outcome {
                    let expected = match class(states[region.index()]) {
                        0 if ranked[0] == region => Reason::Best,
                        0 => Reason::Failover,
                        1 => Reason::Drained,
                        _ => Reason::AllDown,
                    };
                    prop_assert_eq!(reason, expected);
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn only_the_share_of_the_region_that_worsens_moves_and_all_of_it_comes_back(
        label in label(),
        states in prop::array::uniform4(state()),
        which in 0..4usize,
        after in state(),
    ) {
        FIXTURE.with_borrow_mut(|fixture| {
            let mut changed = states;
            changed[which] = after;
            let (better, worse) =
                if class(states[which]) <= class(after) { (states, changed) } else { (changed, states) };
            let mut at = |states: &[State; 4]| -> Vec<Decision> {
                set_regions(fixture, states);
                networks(256).map(|address| decide(fixture, label, address)).collect()
            };
            let (before, during, again) = (at(&better), at(&worse), at(&better));
            for (before, during) in before.iter().zip(&during) {
                if region(before).is_none_or(|region| region.index() != which) {
                    prop_assert_eq!(region(before), region(during), "a network of another region moved");
                }
                if region(during).is_some() && region(before).is_some() {
                    prop_assert_eq!(before.scope_len, during.scope_len);
                }
            }
            prop_assert_eq!(before, again);
            Ok(())
        })?;
    }
}

#[test]
fn weighted_shares_are_in_proportion_among_those_that_are_left() {
    let weights = [5.0, 3.0, 2.0, 0.0];
    let mut fixture = fixture("1");
    for out in 0..15usize {
        for by_force in [None, Some(Force::Drain), Some(Force::Down)] {
            let is_out = |at: usize| out >> at & 1 == 1;
            let states = std::array::from_fn(|at| match (is_out(at), by_force) {
                (false, _) => (true, None),
                (true, None) => (false, None),
                (true, force) => (true, force),
            });
            set_regions(&mut fixture, &states);
            let mut counts = [0.0; 4];
            let clients: Vec<Ipv4Addr> = networks(16_000).filter(|address| address.octets()[0] != 10).collect();
            for address in &clients {
                counts[region(&decide(&fixture, "drawn", *address)).expect("one is left").index()] += 1.0;
            }
            let total: f64 = (0..4).filter(|at| !is_out(*at)).map(|at| weights[at]).sum();
            for at in 0..4 {
                // With nothing but weight 0 left, that answers.
                let share = if total == 0.0 { f64::from(u8::from(at == 3)) } else { weights[at] / total };
                let expected = if is_out(at) { 0.0 } else { share * clients.len() as f64 };
                let spread = 4.0 * (expected * (1.0 - share)).max(0.0).sqrt(); // four standard deviations
                assert!(
                    (counts[at] - expected).abs() <= spread,
                    "out {out:b} {by_force:?}: {counts:?}, {at}: {expected}"
                );
            }
        }
    }
}

#[test]
fn every_answer_that_overrides_make_possible_is_signed() {
    let folder = tempfile::tempdir().unwrap();
    let (_, text) = KeyPair::generate(&"example.com.".parse().unwrap()).unwrap();
    std::fs::write(folder.path().join("zone.key"), text).unwrap();
    let config = CONFIG.replace("MIN", "1").replace("KEY", "dnssec-key = \"zone.key\"");
    let config = config.replace("when-all-down = \"nodata\"\n", "");
    let mut fixture = Fixture::in_folder(&config, folder.path());
    let (mut answered, mut refused) = (0, 0);
    let forces = [None, Some(Force::Up), Some(Force::Drain), Some(Force::Down)];
    let targets = ["a", "a/192.0.2.1", "a/2001:db8::1", "b"];
    for n in 0..4usize.pow(4) {
        for down in ["", "192.0.2.1 192.0.2.2", ALL_OF_A] {
            let of = |at: usize| forces[n / 4usize.pow(at as u32) % 4];
            fixture.set_state(
                |endpoint| TargetHealth { up: !down.split(' ').any(|d| d == endpoint), ..TargetHealth::UNKNOWN },
                |target| targets.iter().position(|t| *t == target).and_then(of),
            );
            for (qtype, rtype) in [("A", RecordType::A), ("AAAA", RecordType::AAAA), ("HTTPS", RecordType::HTTPS)] {
                let answer = fixture.ask(&Ask::new("list.example.com", qtype).dnssec().tcp());
                let of_type = |rtype| answer.message.answers.iter().filter(|r| r.record_type() == rtype).count();
                assert!(!answer.message.metadata.truncation, "{n} {down} {qtype}: no signature was ready");
                match of_type(rtype) {
                    0 => {
                        assert_eq!(answer.rcode(), "Server Failure", "{n} {down} {qtype}");
                        refused += 1;
                    }
                    _ => {
                        assert_eq!(of_type(RecordType::RRSIG), 1, "{n} {down} {qtype}");
                        answered += 1;
                    }
                }
            }
        }
    }
    assert!(answered > 1_000 && refused > 10, "{answered} {refused}");
}

#[test]
fn what_is_held_down_answers_after_what_is_drained_and_before_blind_answers() {
    let mut fixture = fixture("1");
    for (held, down, forced, expected) in [
        (ALL_OF_A, "", "", "b"),
        (ALL_OF_A, "", "b drain", "b"),
        (ALL_OF_A, ALL_OF_B, "b drain", "1 2 3"),
        (ALL_OF_A, "", "b down", "1 2 3"),
        (ALL_OF_A, "", "b down, a/192.0.2.1 drain", "2 3"),
        (ALL_OF_A, "", "a up", "1 2 3"),
        (ALL_OF_A, "", "a down, b down", "Server Failure"),
        ("192.0.2.1", "", "a/192.0.2.1 up", "1 2 3"),
        ("192.0.2.1", "", "a/192.0.2.2 drain, b down", "3"),
    ] {
        let (held, down, forced_list) =
            (held.split(' ').collect::<Vec<_>>(), down.split(' ').collect::<Vec<_>>(), forces(forced));
        fixture.set_state(
            |endpoint| TargetHealth {
                up: !down.contains(&endpoint),
                held: held.contains(&endpoint),
                ..TargetHealth::UNKNOWN
            },
            |target| forced_list.get(target).copied(),
        );
        assert_eq!(answer(&mut fixture, "list", "A"), expected, "{held:?} held, {down:?} down, {forced}");
    }
}
