//! What the fuzz targets do with their bytes. One function a target, used by cargo-fuzz to look for trouble and by
//! `tests/fuzz_corpus.rs` to replay what has been found and what is typical.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use hickory_proto::op::Message;
use isochrone::{
    answer::{Arrival, Core, Verdict},
    config::{
        self, Config, Source, Spot,
        model::{KeyText, Secret, ZoneText},
    },
    geo::{AsnTable, Locations},
    routing::{
        Snapshot,
        health::{HealthView, TargetHealth},
    },
    server::World,
    telemetry::{Registry, TransportKind},
    wire::{Ecs, Parsed, QName, cookie::CookieSecrets, query::parse},
    zone::{ZoneTable, content, sign::KeyPair},
};

/// A target's body.
pub type Target = fn(&[u8]);

/// Every target by its name, which is that of its folder of seeds as well.
pub const TARGETS: [(&str, Target); 6] =
    [("query", query), ("ecs", ecs), ("core", core), ("zone_file", zone_file), ("config", config), ("mmdb", mmdb)];

/// A message as it comes from the network: [`parse`] never panics, and what it says of the question is true.
pub fn query(data: &[u8]) {
    let mut name = QName::default();
    let question = match parse(data, &mut name) {
        Parsed::Query(query) => query.question,
        Parsed::Refuse(refusal) => refusal.question,
        Parsed::Ignore(_) => return,
    };
    if let Some(question) = question {
        assert!(12 + question.wire_len() <= data.len(), "the question is longer than the message");
        assert!(question.name.label_count() <= 127);
    }
}

/// The data of a client subnet option: what is accepted, and only that, is written back byte for byte.
pub fn ecs(data: &[u8]) {
    if let Some(ecs) = Ecs::parse(data) {
        let mut out = [0; 64];
        let len = ecs.write(0, &mut out);
        assert_eq!(len, ecs.option_len());
        assert_eq!(&out[4..len], data);
    }
}

/// A message against the answering core. The first byte chooses transport and client; the rest is the message.
pub fn core(data: &[u8]) {
    let Some((&choice, message)) = data.split_first() else { return };
    let transport = match (choice & 1, choice >> 2 & 3) {
        (0, _) => TransportKind::Udp,
        (_, 0) => TransportKind::Tcp,
        (_, 1) => TransportKind::Dot,
        (_, 2) => TransportKind::Doq,
        _ => TransportKind::Doh,
    };
    let client = match choice & 2 {
        0 => IpAddr::V4(Ipv4Addr::new(193, 0, 6, 139)),
        _ => IpAddr::V6(Ipv6Addr::new(0x2001, 0x67c, 0x2e8, 0x22, 0, 0, 0xc100, 0x68b)),
    };
    let registry = Registry::new();
    let mut core = Core::new(registry.register(), &SNAPSHOT);
    let mut out = vec![0; 65_535];
    let arrival = Arrival { client, transport, now_s: 1_800_000_000 };
    if let Verdict::Send(len) = core.respond(message, arrival, &SNAPSHOT, &mut out) {
        check_reply(message, &out[..len], transport);
    }
    assert!(registry.totals().is_balanced(), "a message is missing from the counters");
}

fn check_reply(message: &[u8], reply: &[u8], transport: TransportKind) {
    let hex = || reply.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(reply[..2], message[..2], "another id");
    assert!(reply[2] & 0x80 != 0, "not a response");
    let read = Message::from_vec(reply).unwrap_or_else(|error| panic!("{error}: {}", hex()));
    let limit = match (transport, &read.edns) {
        (TransportKind::Udp, Some(_)) => 1232,
        (TransportKind::Udp, None) => 512,
        _ => 65_535,
    };
    assert!(reply.len() <= limit, "{} bytes, {limit} are allowed", reply.len());
    assert!(!read.metadata.truncation || read.answers.is_empty(), "truncated with answers: {}", hex());
    assert!(!read.metadata.recursion_available);
}

/// Zone-file text: every problem has words, and what has none compiles to a zone in which every name is found.
pub fn zone_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut config = CONFIG.clone();
    let source = Arc::new(Source { name: "zone".into(), text: text.into() });
    config.zones[0].texts = vec![ZoneText { spot: Spot { span: 0..text.len(), source }, folder: None }];
    match content::gather(&config) {
        Err(report) => {
            assert!(!report.is_empty());
            report.render(false);
        }
        Ok(contents) => {
            let table = ZoneTable::compile(&contents, 0);
            for rrset in contents.iter().flat_map(|content| &content.rrsets) {
                let name = QName::from_name(&rrset.owner);
                assert!(table.find(&name, rrset.rtype).is_some(), "{} is in no zone", rrset.owner);
            }
        }
    }
}

/// A configuration file: accepted, or refused with a report that can be drawn.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let source = Arc::new(Source { name: "isochrone.toml".into(), text: text.into() });
    // Files that it names are not there.
    if let Err(report) = config::parse(source, Path::new("/nonexistent")) {
        assert!(!report.is_empty());
        report.render(true);
    }
}

/// The bytes of a location database: opened, described and walked, or refused; both as places and as autonomous systems.
pub fn mmdb(data: &[u8]) {
    let (file, path) = &*DATABASE;
    let written = file.set_len(0).and_then(|()| file.write_all_at(data, 0));
    written.expect("room for a temporary file");
    if let Ok(locations) = Locations::open(std::slice::from_ref(path)) {
        let _ = locations.description();
        for address in ["193.0.6.139", "2001:67c:2e8:22::c100:68b", "2002:c100:68b::1"] {
            let _ = locations.lookup(address.parse().expect("an address"));
        }
        let _ = locations.verify();
    }
    if let Ok(asns) = AsnTable::open(path) {
        let _ = asns.walk_v4(&mut |first, last, _| assert!(first <= last));
        let _ = asns.walk_v6(&mut |first, last, _| assert!(first <= last));
    }
}

/// A file without a name, which goes with the process; in memory where the system has room for that.
static DATABASE: LazyLock<(File, PathBuf)> = LazyLock::new(|| {
    let file = tempfile::tempfile_in("/dev/shm").or_else(|_| tempfile::tempfile()).expect("room for a temporary file");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
    (file, path)
});

/// Every kind of route and of static record that answers can be made of.
const CONFIG_TEXT: &str = include_str!("core.toml");

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let source = Arc::new(Source { name: "core.toml".into(), text: CONFIG_TEXT.into() });
    config::parse(source, Path::new("/nonexistent")).unwrap_or_else(|report| panic!("{report}"))
});

/// With a key for its first zone, made for this run: signatures and proofs are part of what may be asked for.
fn signed(mut config: Config) -> Config {
    let zone = &mut config.zones[0];
    let (_, text) = KeyPair::generate(&zone.origin).expect("a random source");
    zone.dnssec_keys.push(KeyText { path: "fuzz.key".into(), text: Secret(text), spot: zone.spot.clone() });
    config
}

static SNAPSHOT: LazyLock<Snapshot> = LazyLock::new(|| {
    let world =
        World::compile(signed(CONFIG.clone()), Path::new("core.toml")).unwrap_or_else(|report| panic!("{report}"));
    let health = HealthView::new(&world.plan, &vec![TargetHealth::UNKNOWN; world.plan.targets.len()]);
    let keys = Registry::new().answer_keys(world.plan.answer_labels(&world.config));
    world.first_snapshot(health, keys, CookieSecrets { current: [7; 16], previous: [8; 16] })
});
