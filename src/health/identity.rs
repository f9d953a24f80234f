//! A name for each target that servers with the same configuration agree on, whatever their versions: a number made from the endpoint
//! and from what a probe does. Knows nothing of what it is used for.
//!
//! Only what differs from the default is part of it, field by field, so that a later version with more kinds of checks, and more fields
//! in them, gives the targets of today the same numbers.

use std::{collections::HashMap, hash::Hasher, sync::Arc};

use siphasher::sip::SipHasher13;

use super::{
    check::{Calculation, Check, CheckKind, GrpcCheck, HttpCheck, HttpVersion, Method},
    target::Target,
};

/// The number of a target.
pub type Identity = u64;

/// The numbers of all targets of a configuration, in their order. Two that probe alike and differ in times and counts alone have
/// those in their numbers, too.
pub fn identities(targets: &[Arc<Target>]) -> Vec<Identity> {
    let plain: Vec<Identity> = targets.iter().map(|target| hashed(target, &described(target.check()))).collect();
    let mut count: HashMap<Identity, u32> = HashMap::with_capacity(plain.len());
    plain.iter().for_each(|identity| *count.entry(*identity).or_default() += 1);
    let of = |(target, identity): (&Arc<Target>, Identity)| match count[&identity] {
        1 => identity,
        _ => hashed(target, &[described(target.check()), timed(target.check())].concat()),
    };
    targets.iter().zip(plain).map(of).collect()
}

type Fields = Vec<(&'static str, String)>;

fn hashed(target: &Target, fields: &Fields) -> Identity {
    let mut hasher = SipHasher13::new();
    let mut text = |text: &str| {
        hasher.write(&(text.len() as u64).to_le_bytes());
        hasher.write(text.as_bytes());
    };
    text(&target.endpoint().to_string());
    for (name, value) in fields {
        text(name);
        text(value);
    }
    hasher.finish()
}

/// Keeps the fields that are not the default.
fn set(fields: impl IntoIterator<Item = (&'static str, Option<String>)>) -> Fields {
    fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn flag(on: bool) -> Option<String> {
    on.then(String::new)
}

fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_string())
}

fn described(check: &Check) -> Fields {
    match &check.kind {
        CheckKind::Tcp { port } => set([("type", Some("tcp".into())), ("port", Some(port.to_string()))]),
        CheckKind::Http(http) => http_fields(http),
        CheckKind::Grpc(GrpcCheck { tls, verify_tls, port, host, service }) => set([
            ("type", Some("grpc".into())),
            ("port", Some(port.to_string())),
            ("tls", flag(*tls)),
            ("unverified", flag(!verify_tls)),
            ("host", host.clone()),
            ("service", filled(service)),
        ]),
        CheckKind::Push { name } => set([("type", Some("push".into())), ("name", Some(name.clone()))]),
        CheckKind::Calculated(Calculation { needed, checks }) => {
            let mut fields = set([("type", Some("calculated".into())), ("needed", Some(needed.to_string()))]);
            checks.iter().for_each(|part| fields.extend(described(part)));
            fields
        }
    }
}

fn http_fields(http: &HttpCheck) -> Fields {
    let HttpCheck { tls, verify_tls, port, path, host, method, headers, version, expect_status, expect_body } = http;
    let version = match version {
        HttpVersion::Auto => None,
        HttpVersion::Http1 => Some("1.1".to_string()),
        HttpVersion::Http2 => Some("2".to_string()),
    };
    let statuses: Vec<String> = expect_status.0.iter().map(|(low, high)| format!("{low}-{high}")).collect();
    let mut fields = set([
        ("type", Some("http".into())),
        ("port", Some(port.to_string())),
        ("path", Some(path.clone())),
        ("tls", flag(*tls)),
        ("unverified", flag(!verify_tls)),
        ("host", host.clone()),
        ("method", (*method != Method::Get).then(|| method.as_str().to_string())),
        ("version", version),
        ("status", Some(statuses.join(","))),
        ("body", filled(expect_body)),
    ]);
    fields.extend(headers.iter().map(|(name, value)| ("header", format!("{name}: {value}"))));
    fields
}

/// What two targets that probe alike can differ in.
fn timed(check: &Check) -> Fields {
    let times = [check.interval, check.fast_interval, check.timeout].map(|time| time.as_millis().to_string());
    let damping = &check.damping;
    let held = [damping.window, damping.hold, damping.hold_max].map(|time| time.as_millis().to_string());
    let text = format!("{} {} {} {} {}", times.join(" "), check.fall, check.rise, damping.changes_max, held.join(" "));
    vec![("times", text)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{
        Endpoint, StatusSet, Targets,
        testing::{address, http_check, http_part, tcp_check},
    };

    fn of(pairs: Vec<(Endpoint, Check)>) -> Vec<Identity> {
        let pairs = pairs.into_iter().map(|(endpoint, check)| (endpoint, Arc::new(check))).collect();
        identities(Targets::new(pairs).list())
    }

    fn web() -> Check {
        http_check("192.0.2.1:80".parse().unwrap())
    }

    /// Servers of different versions talk of the same targets by these numbers: a change here parts them.
    #[test]
    fn the_numbers_stay_what_they_are_from_version_to_version() {
        let mut full = web();
        let http = http_part(&mut full);
        (http.tls, http.verify_tls, http.host, http.method) = (true, false, Some("app.example".into()), Method::Head);
        (http.version, http.expect_status) = (HttpVersion::Http2, StatusSet(vec![(200, 200), (204, 204)]));
        (http.expect_body, http.headers) = ("ok".into(), vec![("x-probe".into(), "1".into())]);
        let push = Check { kind: CheckKind::Push { name: "cron".into() }, ..tcp_check(0) };
        let grpc = GrpcCheck { tls: false, verify_tls: true, port: 50051, host: None, service: "shop.Cart".into() };
        let grpc = Check { kind: CheckKind::Grpc(grpc), ..tcp_check(0) };
        let name = Endpoint::Name("app.example.net".into());
        let numbers = of(vec![
            (address("192.0.2.1"), tcp_check(80)),
            (address("2001:db8::1"), web()),
            (name, full),
            (address("192.0.2.1"), push),
            (address("192.0.2.1"), grpc),
        ]);
        let shown: Vec<String> = numbers.iter().map(|number| format!("{number:016x}")).collect();
        let expected =
            ["a7ec9eb30c76b77c", "b23cb40af726b92e", "d8b192108d46adbd", "35e639e98fc1fc13", "aaaf20aa6f7ee3c8"];
        assert_eq!(shown, expected);
    }

    #[test]
    fn times_and_names_of_checks_make_no_difference_unless_nothing_else_does() {
        let slower = || Check { fall: 9, name: "slower".into(), ..web() };
        let here = || address("192.0.2.1");
        let (plain, other) = (of(vec![(here(), web())])[0], of(vec![(here(), slower())])[0]);
        assert_eq!(plain, other);
        let both = of(vec![(here(), web()), (here(), slower()), (address("192.0.2.2"), web())]);
        assert!(both[0] != both[1] && both[0] != plain && both[1] != plain);
        let turned = of(vec![(address("192.0.2.2"), web()), (here(), slower()), (here(), web())]);
        assert_eq!(both, [turned[2], turned[1], turned[0]], "whatever their order in the file");
    }

    #[test]
    fn whatever_a_probe_does_otherwise_makes_another_number() {
        type Change = fn(&mut HttpCheck);
        let changes: [Change; 9] = [
            |http| http.tls = true,
            |http| http.verify_tls = false,
            |http| http.port += 1,
            |http| http.path = "/health".into(),
            |http| http.host = Some("a".into()),
            |http| http.method = Method::Post,
            |http| http.headers = vec![("a".into(), "b".into())],
            |http| http.version = HttpVersion::Http1,
            |http| http.expect_body = "ok".into(),
        ];
        let changed = |change: &Change| {
            let mut check = web();
            change(http_part(&mut check));
            (address("192.0.2.1"), check)
        };
        let mut all: Vec<Identity> = of(changes.iter().map(changed).chain([(address("192.0.2.1"), web())]).collect());
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 10);
    }
}
