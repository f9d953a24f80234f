//! A compiled configuration and one core to ask, without sockets: what most tests of answers need.
#![allow(dead_code)] // each test file uses a part

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::Arc,
};

use hickory_proto::{
    op::Message,
    rr::{
        Record, RecordType,
        rdata::opt::{EdnsCode, EdnsOption},
    },
    serialize::binary::BinDecodable,
};
use isochrone::{
    answer::{Arrival, Core, Verdict},
    config::{self, Source},
    routing::{
        Snapshot,
        force::{Force, Forces},
        health::{HealthView, TargetHealth},
        signed::SignedAnswers,
    },
    server::World,
    telemetry::{Registry, TransportKind},
    wire::{Ecs, cookie::CookieSecrets},
};

/// A compiled configuration and one core.
pub struct Fixture {
    pub world: Arc<World>,
    pub snapshot: Snapshot,
    pub registry: Registry,
    pub core: Core,
    pub resolver: IpAddr,
}

/// A query under construction.
#[derive(Clone)]
pub struct Ask {
    pub name: String,
    pub qtype: u16,
    pub ecs: Option<(IpAddr, u8)>,
    pub payload: Option<u16>,
    pub dnssec_ok: bool,
    pub transport: TransportKind,
}

/// A reply, parsed by a library that is not ours.
pub struct Answer {
    pub message: Message,
    pub bytes: Vec<u8>,
    pub scope_len: Option<u8>,
}

impl Fixture {
    /// Compiles `toml`; all endpoints count as up.
    pub fn new(toml: &str) -> Fixture {
        Fixture::in_folder(toml, Path::new(""))
    }

    pub fn in_folder(toml: &str, folder: &Path) -> Fixture {
        let source = Arc::new(Source { name: "test.toml".into(), text: toml.into() });
        let config = config::parse(source, folder).unwrap_or_else(|report| panic!("{report}"));
        let world = World::compile(config, Path::new("test.toml")).unwrap_or_else(|report| panic!("{report}"));
        Fixture::of(Arc::new(world))
    }

    /// Another core over a world that was compiled before: compiling takes its time.
    pub fn of(world: Arc<World>) -> Fixture {
        let registry = Registry::new();
        let keys = registry.answer_keys(world.plan.answer_labels(&world.config));
        let health = HealthView::new(&world.plan, &vec![TargetHealth::UNKNOWN; world.plan.targets.len()]);
        let snapshot = world.first_snapshot(health, keys, CookieSecrets { current: [1; 16], previous: [2; 16] });
        let core = Core::new(registry.register(), &snapshot);
        Fixture { world, snapshot, registry, core, resolver: Ipv4Addr::LOCALHOST.into() }
    }

    /// Sets the health of every target by its endpoint; all that are not named are up.
    pub fn set_health(&mut self, of: impl Fn(&str) -> TargetHealth) {
        self.set_state(of, |_| None);
    }

    /// The same, and what operators decided on each `region` and `region/endpoint`.
    pub fn set_state(&mut self, of: impl Fn(&str) -> TargetHealth, forced: impl Fn(&str) -> Option<Force>) {
        let targets: Vec<_> = self.world.plan.targets.iter().map(|(endpoint, _)| of(&endpoint.to_string())).collect();
        let forces = Forces::new(&self.world.plan, &forced, |region, endpoint| forced(&format!("{region}/{endpoint}")));
        let health = HealthView::forced(&self.world.plan, &targets, &forces);
        let (plan, zones) = (&self.world.plan, &self.snapshot.zones);
        self.snapshot.signed = Arc::new(SignedAnswers::new(plan, &health, zones, &self.snapshot.signed));
        self.snapshot.health = Arc::new(health);
    }

    /// Takes these endpoints down, all others up.
    pub fn set_down(&mut self, down: &[&str]) {
        self.set_health(|endpoint| TargetHealth { up: !down.contains(&endpoint), ..TargetHealth::UNKNOWN });
    }

    /// Asks; panics when nothing is answered.
    pub fn ask(&mut self, ask: &Ask) -> Answer {
        let bytes = self.ask_bytes(&ask.bytes(), ask.transport).expect("an answer");
        let message = Message::from_bytes(&bytes).unwrap_or_else(|error| panic!("{error}: {bytes:02x?}"));
        let scope_len = ecs_scope(&message);
        Answer { message, bytes, scope_len }
    }

    pub fn ask_bytes(&mut self, query: &[u8], transport: TransportKind) -> Option<Vec<u8>> {
        let mut out = vec![0; 65_535];
        let arrival = Arrival { client: self.resolver, transport, now_s: 1_000_000 };
        let verdict = self.core.respond(query, arrival, &self.snapshot, &mut out);
        assert!(self.registry.totals().is_balanced(), "every query is a response or a drop");
        match verdict {
            Verdict::Send(len) => Some(out[..len].to_vec()),
            Verdict::Drop(_) => None,
        }
    }
}

impl Ask {
    pub fn new(name: &str, qtype: &str) -> Ask {
        let qtype = isochrone::answer::explain::parse_qtype(qtype).unwrap();
        let (ecs, payload, dnssec_ok) = (None, None, false);
        Ask { name: name.into(), qtype, ecs, payload, dnssec_ok, transport: TransportKind::Udp }
    }

    /// As `192.0.2.0/24`.
    #[allow(clippy::wrong_self_convention)] // so that a query reads as a sentence
    pub fn from_client(mut self, network: &str) -> Ask {
        let net = isochrone::answer::explain::parse_client(network).unwrap();
        self.ecs = Some((net.network(), net.prefix_len()));
        self
    }

    pub fn edns(mut self, payload: u16) -> Ask {
        self.payload = Some(payload);
        self
    }

    pub fn dnssec(mut self) -> Ask {
        self.dnssec_ok = true;
        self.edns(4096)
    }

    pub fn tcp(mut self) -> Ask {
        self.transport = TransportKind::Tcp;
        self
    }

    /// Length of the question in a message that has one, uncompressed.
    pub fn question_len(message: &[u8]) -> usize {
        let mut at = 12;
        while message[at] != 0 {
            at += 1 + usize::from(message[at]);
        }
        at + 5 - 12
    }

    pub fn bytes(&self) -> Vec<u8> {
        let has_opt = self.ecs.is_some() || self.payload.is_some();
        let mut query = vec![0xab, 0xcd, 0, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(has_opt)];
        let name: isochrone::wire::Name = self.name.parse().unwrap();
        query.extend(name.as_wire());
        query.extend(self.qtype.to_be_bytes());
        query.extend([0, 1]);
        if has_opt {
            let mut option = [0; 24];
            let len = self.ecs.map_or(0, |(address, source_len)| Ecs { address, source_len }.write(0, &mut option));
            query.extend([0, 0, 41]);
            query.extend(self.payload.unwrap_or(1232).to_be_bytes());
            query.extend([0, 0, if self.dnssec_ok { 0x80 } else { 0 }, 0, 0, len as u8]);
            query.extend(&option[..len]);
        }
        query
    }
}

impl Answer {
    /// Data of the answer section's records of one type, sorted.
    pub fn data(&self, rtype: RecordType) -> Vec<String> {
        let of_type = |record: &&Record| record.record_type() == rtype;
        let mut data: Vec<String> =
            self.message.answers.iter().filter(of_type).map(|record| record.data.to_string()).collect();
        data.sort();
        data
    }

    pub fn addresses(&self) -> Vec<String> {
        let mut all = self.data(RecordType::A);
        all.extend(self.data(RecordType::AAAA));
        all
    }

    pub fn rcode(&self) -> String {
        self.message.metadata.response_code.to_string()
    }

    pub fn ttl(&self) -> u32 {
        self.message.answers.first().expect("an answer").ttl
    }

    /// `rcode aa|- tc|-; answer; authority; additional` with records as `owner ttl type data`, for whole-reply comparisons.
    pub fn text(&self) -> String {
        let section = |records: &[Record]| {
            let show = |r: &Record| format!("{} {} {} {}", r.name, r.ttl, r.record_type(), r.data);
            records.iter().map(show).collect::<Vec<_>>().join(", ")
        };
        let meta = &self.message.metadata;
        format!(
            "{}{}{} | {} | {} | {}",
            u16::from(meta.response_code),
            if meta.authoritative { " aa" } else { "" },
            if meta.truncation { " tc" } else { "" },
            section(&self.message.answers),
            section(&self.message.authorities),
            section(&self.message.additionals)
        )
    }
}

/// The scope of the reply's ECS option.
fn ecs_scope(message: &Message) -> Option<u8> {
    match message.edns.as_ref()?.options().get(EdnsCode::Subnet)? {
        EdnsOption::Subnet(subnet) => Some(subnet.scope_prefix()),
        _ => None,
    }
}
