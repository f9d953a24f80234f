//! Configurations and zones to test with.

use super::*;

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A spot on the given line of the configuration.
pub fn spot(line: usize) -> Spot {
    let source = Source { name: "isochrone.toml".into(), text: "(line)\n".repeat(100) };
    let span: Range<usize> = (line - 1) * 7..(line - 1) * 7 + 6;
    Spot { source: Arc::new(source), span }
}

pub fn addresses(list: &[&str]) -> Endpoints {
    let one = |a: &&str| WeightedAddress { address: a.parse().unwrap(), weight: 1 };
    Endpoints::Addresses(list.iter().map(one).collect())
}

pub fn config(zones: Vec<Zone>) -> Config {
    let limits = Limits {
        tcp_connections: 1,
        tcp_per_client: 1,
        tcp_idle: Duration::from_secs(10),
        udp_payload: 1232,
        responses_per_second: 0,
    };
    let region = |name: &str, endpoints| Region {
        name: name.into(),
        location: name.into(),
        coordinates: Coordinates { latitude: 0.0, longitude: 0.0 },
        endpoints,
        check: None,
        min_healthy: MinHealthy::Count(1),
        bias_ms: 0.0,
    };
    Config {
        server: Server {
            listen: Vec::new(),
            threads: 0,
            identity: String::new(),
            cookie_secret_file: None,
            state_dir: None,
            user: None,
            sandbox: true,
            region: None,
            watch: false,
            limits,
            encrypted: None,
        },
        query_log: None,
        admin: Admin { listen: None, token_file: None },
        geo: Geo { databases: Vec::new(), asn_database: None, named_at: Vec::new() },
        latency: Latency {
            switch_margin_ms: 5.0,
            measurements: Vec::new(),
            skip_bad_measurements: false,
            hysteresis_ms: 5.0,
            rebuild_interval: Duration::from_secs(300),
            rise_max_ms: 250.0,
            detours: false,
            learning: Learning::default(),
        },
        cluster: None,
        checks: Vec::new(),
        regions: vec![
            region("us", addresses(&["192.0.2.10"])),
            region("eu", addresses(&["198.51.100.10", "2001:db8::10"])),
            region("cdn", Endpoints::Name(name("cdn.example.net"))),
        ],
        zones,
    }
}

/// A zone with the name servers `ns.example.net` and the text as its records.
pub fn zone(origin: &str, text: &str) -> Zone {
    let source = Arc::new(Source { name: format!("{origin}.zone"), text: text.into() });
    Zone {
        origin: name(origin),
        nameservers: vec![name("ns.example.net")],
        addresses: BTreeMap::new(),
        contact: name("hostmaster.example.net"),
        ttl_s: 60,
        negative_ttl_s: 30,
        dnssec_keys: Vec::new(),
        dnssec_announce: true,
        texts: vec![ZoneText { spot: Spot { span: 0..text.len(), source }, folder: None }],
        routes: Vec::new(),
        spot: spot(1),
    }
}

pub fn route(owner: &str, regions: &[u8], line: usize) -> Route {
    Route {
        owner: name(owner),
        label: owner.split('.').next().unwrap().into(),
        regions: regions.iter().map(|r| RegionId(*r)).collect(),
        policy: Policy::Latency,
        endpoints: BTreeMap::new(),
        check: None,
        ttl_s: 60,
        max_answers: 8,
        when_all_down: WhenAllDown::AnswerAll,
        https: None,
        rules: Vec::new(),
        spot: spot(line),
    }
}
