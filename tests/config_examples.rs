//! Sound configurations and what they come to; the examples in `config/`; the documentation against the catalogue of keys, and against
//! itself.

#[path = "support/documents.rs"]
mod documents;

use std::{fs, net::IpAddr, path::Path, sync::Arc, time::Duration};

use isochrone::{
    config::{
        self, Config, Source,
        keys::{SECTIONS, Schema},
        model::{ClientMatch, Endpoints, LogTarget, MinHealthy, Policy, QueryLog, RegionId, WhenAllDown},
    },
    health::{Calculation, CheckKind, GrpcCheck, HttpVersion, Method, StatusSet},
};

/// Reads a text as if it stood in `tests/config_files`.
fn parse(text: &str) -> Config {
    let source = Source { name: "isochrone.toml".into(), text: text.into() };
    config::parse(Arc::new(source), Path::new("tests/config_files")).unwrap_or_else(|report| panic!("{report}"))
}

const ZONE: &str = "[zones.\"geo.example.com\"]\nnameservers = [\"ns1.example.com.\"]\n";
const REGIONS: &str = r#"
[regions.us]
location = "aws:us-east-1"
endpoints = ["192.0.2.10"]
[regions.eu]
location = "aws:eu-west-1"
endpoints = ["198.51.100.10", "2001:db8::10"]
"#;

fn with_route(text: &str) -> Config {
    parse(&format!("{REGIONS}{ZONE}[zones.\"geo.example.com\".routes.app]\n{text}"))
}

#[test]
fn every_example_is_sound() {
    let mut names = Vec::new();
    for entry in fs::read_dir("config").unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue; // an example of several files, which needs keys and certificates of its own
        }
        let config = config::load(&path).unwrap_or_else(|report| panic!("{report}"));
        assert!(!config.zones[0].routes.is_empty(), "{} has no route", path.display());
        names.push(path.file_name().unwrap().to_string_lossy().into_owned());
    }
    names.sort();
    let all = ["container", "failover", "isochrone", "latency", "reference", "rules", "smallest", "weighted"];
    assert_eq!(names, all.map(|name| format!("{name}.toml")));
}

#[test]
fn the_smallest_example_is_small() {
    let text = fs::read_to_string("config/smallest.toml").unwrap();
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).count();
    assert!(lines <= 15, "{lines} lines");
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let config = parse(&format!("[checks.web]\ntype = \"http\"\n{REGIONS}{ZONE}routes.www = {{}}\n"));
    let listen: Vec<String> = config.server.listen.iter().map(|l| l.address.to_string()).collect();
    assert_eq!(listen, ["127.0.0.1:5300", "[::1]:5300"]);
    assert!(config.server.listen.iter().all(|l| l.is_default));
    assert_eq!((config.server.threads, config.server.identity.as_str()), (0, ""));
    let limits = config.server.limits;
    assert_eq!((limits.tcp_connections, limits.tcp_per_client, limits.udp_payload), (1000, 20, 1232));
    assert_eq!(limits.tcp_idle, Duration::from_secs(10));
    assert!(config.query_log.is_none() && !config.server.watch);
    assert_eq!(config.admin.listen.unwrap().to_string(), "127.0.0.1:8053");
    assert!(config.geo.databases.is_empty() && config.geo.asn_database.is_none());
    assert_eq!(config.latency.switch_margin_ms, 5.0);
    let check = &config.checks[0];
    let CheckKind::Http(http) = &check.kind else { panic!("{check:?}") };
    assert_eq!((http.tls, http.verify_tls, http.port, http.path.as_str()), (false, true, 80, "/"));
    assert_eq!((&http.host, http.expect_body.as_str()), (&None, ""));
    assert_eq!((http.method, http.version, http.headers.len()), (Method::Get, HttpVersion::Auto, 0));
    assert_eq!(http.expect_status, StatusSet(vec![(200, 299), (300, 399)]));
    assert_eq!((check.interval, check.fast_interval), (Duration::from_secs(10), Duration::from_secs(1)));
    assert_eq!((check.timeout, check.fall, check.rise), (Duration::from_secs(4), 3, 2));
    let damping = check.damping;
    assert_eq!((damping.changes_max, damping.window), (8, Duration::from_secs(600)));
    assert_eq!((damping.hold, damping.hold_max), (Duration::from_secs(60), Duration::from_secs(1800)));
    let region = &config.regions[0];
    assert_eq!((&region.check, region.min_healthy, region.bias_ms), (&None, MinHealthy::Count(1), 0.0));
    let zone = &config.zones[0];
    assert_eq!((zone.ttl_s, zone.negative_ttl_s), (60, 60));
    assert_eq!(zone.contact.to_string(), "hostmaster.geo.example.com.");
    assert!(zone.texts.is_empty() && zone.addresses.is_empty());
    let route = &zone.routes[0];
    assert_eq!(route.regions, [RegionId(0), RegionId(1)]);
    assert_eq!((&route.policy, &route.check, route.ttl_s, route.max_answers), (&Policy::Latency, &None, 60, 8));
    assert_eq!(route.when_all_down, WhenAllDown::AnswerAll);
    assert!(route.endpoints.is_empty() && route.rules.is_empty());
}

#[test]
fn the_reference_example_shows_the_defaults() {
    let text = fs::read_to_string("config/reference.toml").unwrap();
    let reference = parse(&text);
    let default = parse(&format!("[checks.web]\ntype = \"http\"\n{ZONE}"));
    assert_eq!(format!("{:?}", reference.server.limits), format!("{:?}", default.server.limits));
    assert_eq!(format!("{:?}", reference.checks[0]), format!("{:?}", default.checks[0]));
    assert_eq!(format!("{:?}", reference.geo), format!("{:?}", default.geo));
    assert_eq!(reference.latency.switch_margin_ms, default.latency.switch_margin_ms);
    assert_eq!(reference.admin.listen, default.admin.listen);
    for schema in SECTIONS {
        for key in schema.keys.iter().filter(|key| key.supported) {
            let line = text.lines().find(|line| line.contains(&format!("{} = ", key.name)));
            assert!(line.is_some(), "`{}` of {} is not in reference.toml", key.name, schema.title);
        }
    }
}

#[test]
fn timeout_and_fast_interval_follow_a_short_interval() {
    for (interval, timeout_ms, fast_ms) in
        [("1h", 4000, 1000), ("8s", 4000, 1000), ("6s", 3000, 1000), ("1s", 500, 1000), ("500ms", 250, 500)]
    {
        let config = parse(&format!("[checks.a]\ntype = \"tcp\"\nport = 1\ninterval = \"{interval}\"\n{ZONE}"));
        let check = &config.checks[0];
        assert_eq!(check.timeout, Duration::from_millis(timeout_ms), "{interval}");
        assert_eq!(check.fast_interval, Duration::from_millis(fast_ms), "{interval}");
        assert_eq!(check.kind, CheckKind::Tcp { port: 1 });
    }
}

#[test]
fn checks_of_every_type_are_read() {
    let config = parse(&format!(
        r#"
        [checks.whole]
        type = "at-least"
        count = 2
        checks = ["web", "inner", "cron"]
        [checks.web]
        type = "https"
        method = "OPTIONS"
        headers = {{ X-Probe = "a b", authorization = "Bearer x" }}
        http-version = "2"
        [checks.inner]
        type = "all-of"
        checks = ["rpc", "tls"]
        [checks.rpc]
        type = "grpc"
        port = 50051
        service = "shop.Cart"
        interval = "20s"
        [checks.tls]
        type = "grpc"
        tls = true
        host = "rpc.example"
        verify-tls = false
        [checks.cron]
        type = "push"
        interval = "5m"
        {ZONE}"#
    ));
    let [whole, web, inner, rpc, tls, cron] = config.checks.as_slice() else { panic!("{:?}", config.checks) };
    let of = |needed, checks: &[_]| CheckKind::Calculated(Calculation { needed, checks: checks.to_vec() });
    assert_eq!(whole.kind, of(2, &[web.clone(), inner.clone(), cron.clone()]));
    assert_eq!(inner.kind, of(2, &[rpc.clone(), tls.clone()]));
    let CheckKind::Http(http) = &web.kind else { panic!("{web:?}") };
    let headers = [("x-probe", "a b"), ("authorization", "Bearer x")].map(|(n, v)| (n.to_string(), v.to_string()));
    assert_eq!(
        (http.method, http.version, http.headers.as_slice()),
        (Method::Options, HttpVersion::Http2, &headers[..])
    );
    let plain = GrpcCheck { tls: false, verify_tls: true, port: 50051, host: None, service: "shop.Cart".into() };
    assert_eq!((&rpc.kind, rpc.fall), (&CheckKind::Grpc(plain), 3));
    let over_tls =
        GrpcCheck { tls: true, verify_tls: false, port: 443, host: Some("rpc.example".into()), service: String::new() };
    assert_eq!(tls.kind, CheckKind::Grpc(over_tls));
    assert_eq!(cron.kind, CheckKind::Push { name: "cron".into() });
    assert_eq!((cron.interval, cron.fast_interval), (Duration::from_secs(300), Duration::from_secs(300)));
    assert_eq!((cron.fall, cron.rise), (1, 2), "a whole interval of silence is no lost packet");
}

#[test]
fn values_are_read_as_written() {
    let config = parse(&format!(
        r#"
        [server]
        listen = ["0.0.0.0:53", "[::]:0", "[::]:0"]
        threads = 2
        identity = "ns1"
        state-dir = ""
        cookie-secret-file = "cookies.two"
        [server.limits]
        tcp-idle = "500ms"
        udp-payload = 4096
        responses-per-second = 200
        [query-log]
        file = "queries.log"
        sample = 0.25
        max-queue = 500
        [admin]
        listen = ""
        [geo]
        database = "city.mmdb"
        asn-database = "city.mmdb"
        [latency]
        switch-margin = "0ms"
        hysteresis = "5ms"
        [checks.secure]
        type = "https"
        host = "App.example.com."
        expect-status = ["200", "300-302"]
        verify-tls = false
        {REGIONS}
        bias = "-5ms"
        min-healthy = "50%"
        check = "secure"
        {ZONE}
        contact = "first.last@mail.example.com"
        "#
    ));
    assert_eq!(config.server.listen.len(), 3);
    assert!(config.server.listen.iter().all(|l| !l.is_default));
    assert_eq!((config.server.threads, config.server.identity.as_str()), (2, "ns1"));
    assert_eq!(config.server.limits.tcp_idle, Duration::from_millis(500));
    assert_eq!(config.server.limits.udp_payload, 4096);
    assert_eq!(config.server.limits.responses_per_second, 200);
    assert_eq!(config.server.cookie_secret_file.as_deref(), Some(Path::new("tests/config_files/cookies.two")));
    let target = LogTarget::File("tests/config_files/queries.log".into());
    assert_eq!(config.query_log, Some(QueryLog { target, sample: 0.25, queue_max: 500 }));
    assert_eq!(parse(&format!("[query-log]\nfile = \"-\"\n{ZONE}")).query_log.unwrap().target, LogTarget::Stdout);
    assert_eq!(config.admin.listen, None);
    assert_eq!(config.geo.databases, [Path::new("tests/config_files/city.mmdb")]);
    assert_eq!(config.geo.asn_database.as_deref(), Some(Path::new("tests/config_files/city.mmdb")));
    assert_eq!(config.latency.switch_margin_ms, 0.0);
    let CheckKind::Http(http) = &config.checks[0].kind else { panic!() };
    assert_eq!((http.tls, http.port, http.verify_tls), (true, 443, false));
    assert_eq!(http.host.as_deref(), Some("App.example.com"));
    assert_eq!(http.expect_status, StatusSet(vec![(200, 200), (300, 302)]));
    let eu = &config.regions[1];
    assert_eq!((eu.bias_ms, eu.min_healthy), (-5.0, MinHealthy::Percent(50)));
    assert!(Arc::ptr_eq(eu.check.as_ref().unwrap(), &config.checks[0]));
    assert_eq!(config.zones[0].contact.to_string(), "first\\.last.mail.example.com.");
}

#[test]
fn endpoints_take_every_form() {
    let addresses = |text: &str| {
        let config = parse(&format!("[regions.a]\nlocation = \"FRA\"\nendpoints = {text}\n{ZONE}"));
        config.regions[0].endpoints.clone()
    };
    let weights = |endpoints: Endpoints| -> Vec<(IpAddr, u32)> {
        let Endpoints::Addresses(list) = endpoints else { panic!() };
        list.iter().map(|e| (e.address, e.weight)).collect()
    };
    let one: IpAddr = "192.0.2.1".parse().unwrap();
    let two: IpAddr = "2001:db8::1".parse().unwrap();
    assert_eq!(weights(addresses("[\"192.0.2.1\", \"2001:db8::1\"]")), [(one, 1), (two, 1)]);
    assert_eq!(weights(addresses("\"192.0.2.1\"")), [(one, 1)]);
    assert_eq!(weights(addresses("{ address = \"192.0.2.1\", weight = 3 }")), [(one, 3)]);
    let mixed = "[\"192.0.2.1\", { address = \"2001:db8::1\", weight = 0 }]";
    assert_eq!(weights(addresses(mixed)), [(one, 1), (two, 0)]);
    for text in ["\"www.Example.net\"", "[\"www.example.net.\"]", "{ address = \"www.example.net\" }"] {
        assert_eq!(addresses(text), Endpoints::Name("www.example.net".parse().unwrap()), "{text}");
    }
}

#[test]
fn names_are_absolute_or_relative_by_their_place() {
    let config = parse(&format!(
        r#"{REGIONS}
        [zones."Geo.Example.com."]
        nameservers = ["ns1.geo.example.com", "ns2.geo.example.com.", "ns.example.net"]
        addresses = {{ ns1 = "192.0.2.53", "ns2.geo.example.com." = ["192.0.2.54", "2001:db8::54"] }}
        contact = "dns.example.com"
        [zones."Geo.Example.com.".routes]
        "@" = {{}}
        "*" = {{}}
        "*.App" = {{}}
        "www.geo.example.com." = {{}}
        "_x.y" = {{}}
        "#
    ));
    let zone = &config.zones[0];
    assert_eq!(zone.origin.to_string(), "geo.example.com.");
    let names: Vec<String> = zone.nameservers.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["ns1.geo.example.com.", "ns2.geo.example.com.", "ns.example.net."]);
    assert_eq!(zone.addresses[&"ns2.geo.example.com".parse().unwrap()].len(), 2);
    assert_eq!(zone.contact.to_string(), "dns.example.com.");
    let owners: Vec<(String, &str)> = zone.routes.iter().map(|r| (r.owner.to_string(), r.label.as_str())).collect();
    let expected = [
        ("geo.example.com.", "@"),
        ("*.geo.example.com.", "*"),
        ("*.app.geo.example.com.", "*.App"),
        ("www.geo.example.com.", "www.geo.example.com."),
        ("_x.y.geo.example.com.", "_x.y"),
    ];
    assert_eq!(owners, expected.map(|(owner, label)| (owner.to_string(), label)));
}

#[test]
fn file_order_is_kept() {
    let mut text = String::new();
    for n in (0..40).rev() {
        text += &format!("[regions.r{n}]\nlocation = \"FRA\"\nendpoints = [\"192.0.2.{n}\"]\n");
    }
    let config = parse(&format!("{text}{ZONE}"));
    let order: Vec<&str> = config.regions.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(order, (0..40).rev().map(|n| format!("r{n}")).collect::<Vec<_>>());
}

#[test]
fn routes_are_read_as_written() {
    let config = with_route(
        r#"
        regions = ["eu", "us"]
        policy = "weighted"
        weights = { us = 0, eu = 3 }
        endpoints = { eu = ["198.51.100.20", "2001:db8::20"] }
        ttl = 0
        max-answers = 1
        when-all-down = "nodata"
        [[zones."geo.example.com".routes.app.rules]]
        clients = ["country:ch", "10.0.0.0/8"]
        regions = ["eu"]
        "#,
    );
    let route = &config.zones[0].routes[0];
    assert_eq!(route.regions, [RegionId(1), RegionId(0)]);
    assert_eq!(route.policy, Policy::Weighted(vec![3, 0]));
    assert_eq!((route.ttl_s, route.max_answers, route.when_all_down), (0, 1, WhenAllDown::NoData));
    assert_eq!(route.pool(&config, RegionId(1)).0.targets()[0].to_string(), "198.51.100.20");
    assert_eq!(route.pool(&config, RegionId(0)).0.targets()[0].to_string(), "192.0.2.10");
    let rule = &route.rules[0];
    assert_eq!(rule.regions, [RegionId(1)]);
    assert_eq!(rule.clients[1], ClientMatch::Prefix("10.0.0.0/8".parse().unwrap()));
    assert_eq!(&route.spot.source.text[route.spot.span.clone()], "app");
}

#[test]
fn weighted_without_weights_is_equal() {
    assert_eq!(with_route("policy = \"weighted\"\n").zones[0].routes[0].policy, Policy::Weighted(vec![1, 1]));
    assert_eq!(with_route("policy = \"failover\"\n").zones[0].routes[0].policy, Policy::Failover);
}

#[test]
fn inline_records_point_into_the_configuration_where_they_stand_there() {
    let own = "isochrone.toml: zones.\"geo.example.com\".records";
    for (written, text, name) in [
        ("'''\n@ MX 10 m.\n'''", "@ MX 10 m.\n", "isochrone.toml"),
        ("\"\"\"\r\n@ MX 10 m.\r\n\"\"\"", "@ MX 10 m.\r\n", "isochrone.toml"),
        ("\"\"\"@ MX 10 m.\"\"\"", "@ MX 10 m.", "isochrone.toml"),
        ("'@ MX 10 m.'", "@ MX 10 m.", "isochrone.toml"),
        ("\"@ MX 10 m.\"", "@ MX 10 m.", "isochrone.toml"),
        ("\"a A 192.0.2.1\\nb A 192.0.2.2\"", "a A 192.0.2.1\nb A 192.0.2.2", own),
        ("\"\"\"\n@ TXT \\\"x\\\"\n\"\"\"", "@ TXT \"x\"\n", own),
    ] {
        let config = parse(&format!("{ZONE}records = {written}\n"));
        let records = &config.zones[0].texts[0];
        assert_eq!((records.text(), records.spot.source.name.as_str()), (text, name), "{written}");
        assert_eq!(records.folder, None);
    }
}

#[test]
fn a_zone_file_is_read_before_inline_records() {
    let config = parse(&format!("{ZONE}file = \"static.zone\"\nrecords = 'b A 192.0.2.2'\n"));
    let texts = &config.zones[0].texts;
    assert_eq!(texts[0].text(), "www A 192.0.2.1\n");
    assert_eq!(texts[0].spot.source.name, "tests/config_files/static.zone");
    assert_eq!(texts[0].folder.as_deref(), Some(Path::new("tests/config_files")));
    assert_eq!(texts[1].text(), "b A 192.0.2.2");
    let static_only = parse("[zones.\"x.example\"]\nrecords = '@ NS ns.example.'\n");
    assert!(static_only.zones[0].nameservers.is_empty());
}

#[test]
fn a_file_that_cannot_be_read_is_told_by_its_name() {
    for (path, message) in [
        ("no/such.toml", "the configuration file `no/such.toml` does not exist"),
        ("config", "the configuration file `config` is a folder, not a file"),
        (
            "tests/config_files/latin1.zone",
            "the configuration file `tests/config_files/latin1.zone` is not UTF-8 text (line 1)",
        ),
    ] {
        let report = config::load(Path::new(path)).unwrap_err();
        assert_eq!(report.problems[0].message, message);
    }
}

/// The rows of the table under each heading that ends in a section's title.
fn documented() -> Vec<(String, Vec<Vec<String>>)> {
    let text = fs::read_to_string("docs/configuration.md").unwrap();
    let mut sections: Vec<(String, Vec<Vec<String>>)> = Vec::new();
    for line in text.lines() {
        if let Some((_, title)) = line.strip_prefix('#').and_then(|l| l.split_once(": `")) {
            sections.push((title.trim_end_matches('`').to_string(), Vec::new()));
        } else if line.starts_with("| `") {
            let cells = line.trim_matches('|').split(" | ").map(|cell| cell.trim().replace("\\|", "|"));
            sections.last_mut().expect("a table stands under a heading").1.push(cells.collect());
        }
    }
    sections
}

fn rows(schema: &Schema) -> Vec<Vec<String>> {
    let keys = schema.keys.iter().filter(|key| key.supported);
    let row = |key: &config::keys::Key| {
        vec![format!("`{}`", key.name), key.form.type_name().into(), key.default.documented(), key.form.range()]
    };
    keys.map(row).collect()
}

#[test]
fn the_documentation_has_every_key_with_its_type_default_and_range() {
    let documented = documented();
    let titles: Vec<&str> = documented.iter().map(|(title, _)| title.as_str()).collect();
    assert_eq!(titles, SECTIONS.map(|schema| schema.title));
    for (schema, (title, table)) in SECTIONS.iter().zip(&documented) {
        for (row, expected) in table.iter().zip(rows(schema)) {
            assert_eq!(row[..4], expected, "{title}");
            assert!(row[4].len() > 10, "{title} does not say what {} does", row[0]);
        }
        assert_eq!(table.len(), rows(schema).len(), "{title}");
    }
}

#[test]
fn the_documentation_names_what_is_not_there_yet() {
    let text = fs::read_to_string("docs/configuration.md").unwrap();
    let (_, later) = text.split_once("## Not in this version").unwrap();
    for schema in SECTIONS {
        for key in schema.keys.iter().filter(|key| !key.supported) {
            assert!(later.contains(&format!("`{}`", key.name)), "{}", key.name);
        }
    }
}
