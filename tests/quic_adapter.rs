//! What is sent over QUIC is what the core has answered: hickory's request handler in front of one core, and the same questions
//! put to another one directly.

#[path = "support/fixture.rs"]
mod fixture;

use std::{
    cell::Cell,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock},
};

use async_trait::async_trait;
use fixture::{Ask, Fixture};
use hickory_proto::{
    op::{Edns, Message},
    rr::{Record, rdata::opt::EdnsCode},
    serialize::binary::BinEncoder,
};
use hickory_server::{
    net::{NetError, runtime::TokioTime, xfer::Protocol},
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponse,
};
use isochrone::{
    answer::{Arrival, Verdict},
    server::World,
    telemetry::TransportKind,
    transport::{Reply, Respond, Worker, quic::Adapter},
};
use proptest::{collection::vec, prelude::*, sample};

const CLIENT: &str = "127.0.0.1:5";

fn fixture() -> Fixture {
    static WORLD: OnceLock<Arc<World>> = OnceLock::new();
    Fixture::of(WORLD.get_or_init(|| Fixture::new(include_str!("../fuzz/src/core.toml")).world).clone())
}

struct Core(Fixture);

impl Respond for Core {
    fn begin_batch(&mut self) {}

    fn respond(&mut self, query: &[u8], client: SocketAddr, transport: TransportKind, out: &mut [u8]) -> Reply {
        let arrival = Arrival { client: client.ip(), transport, now_s: 1_000_000 };
        match self.0.core.respond(query, arrival, &self.0.snapshot, out) {
            Verdict::Send(len) => Reply::Send(len),
            Verdict::Drop(_) => Reply::Drop,
        }
    }
}

/// Keeps the bytes that would be sent.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<Option<Vec<u8>>>>);

#[async_trait]
impl ResponseHandler for Wire {
    async fn send_response<'a>(
        &mut self,
        response: MessageResponse<
            '_,
            'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
        >,
    ) -> Result<ResponseInfo, NetError> {
        let mut bytes = Vec::new();
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(u16::MAX);
        let info = response.destructive_emit(&mut encoder)?;
        *self.0.lock().unwrap() = Some(bytes);
        Ok(info)
    }
}

fn adapter() -> Adapter<Core> {
    let fixture = fixture();
    let counters = fixture.registry.register();
    Adapter::new(Worker { respond: Core(fixture), counters })
}

/// What goes out for a request; outer `None`: hickory does not let it through to the adapter.
fn sent(adapter: &Adapter<Core>, query: &[u8]) -> Option<Option<Vec<u8>>> {
    let request = Request::from_bytes(query.to_vec(), CLIENT.parse().unwrap(), Protocol::Quic).ok()?;
    let wire = Wire::default();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(adapter.handle_request::<_, TokioTime>(&request, wire.clone()));
    let bytes = wire.0.lock().unwrap().take();
    Some(bytes)
}

fn without_padding(edns: Option<Edns>) -> Option<Edns> {
    edns.map(|mut edns| {
        edns.options_mut().remove(EdnsCode::Padding);
        edns
    })
}

/// Puts one question to both. True when it got as far as the core.
fn agree(adapter: &Adapter<Core>, direct: &mut Fixture, query: &[u8]) -> Result<bool, TestCaseError> {
    let Some(sent) = sent(adapter, query) else { return Ok(false) };
    let answered = direct.ask_bytes(query, TransportKind::Doq);
    let (sent, answered) = match (sent, answered) {
        (Some(sent), Some(answered)) => (sent, answered),
        (sent, answered) => {
            prop_assert_eq!(sent.is_some(), answered.is_some(), "one of them is silent");
            return Ok(true);
        }
    };
    let question_len = if answered[5] == 1 { Ask::question_len(&answered) } else { 0 };
    prop_assert_eq!(&sent[..6], &answered[..6], "id, flags, rcode and number of questions");
    prop_assert_eq!(&sent[12..12 + question_len], &answered[12..12 + question_len], "the question, letter for letter");
    let read = |bytes: &[u8]| Message::from_vec(bytes).map_err(|error| TestCaseError::fail(error.to_string()));
    let (ours, theirs) = (read(&answered)?, read(&sent)?);
    prop_assert_eq!(ours.metadata, theirs.metadata);
    prop_assert_eq!(&ours.answers, &theirs.answers);
    prop_assert_eq!(&ours.authorities, &theirs.authorities);
    prop_assert_eq!(&ours.additionals, &theirs.additionals);
    let is_padded =
        |message: &Message| message.edns.as_ref().is_some_and(|edns| edns.options().get(EdnsCode::Padding).is_some());
    prop_assert_eq!(is_padded(&ours), is_padded(&theirs));
    prop_assert!(!is_padded(&theirs) || sent.len() % 468 == 0, "{} bytes", sent.len());
    prop_assert_eq!(without_padding(ours.edns), without_padding(theirs.edns));
    Ok(true)
}

const NAMES: [&str; 26] = [
    "example.com",
    "www.example.com",
    "alias2.example.com",
    "loop1.example.com",
    "toroute.example.com",
    "out.example.com",
    "x.wild.example.com",
    "nope.example.com",
    "b.ent.example.com",
    "a.b.old.example.com",
    "x.deleg.example.com",
    "deleg.example.com",
    "x.other.example.com",
    "_sip._tcp.example.com",
    "https.example.com",
    "unk.example.com",
    "big.example.com",
    "x.app.example.com",
    "few.example.com",
    "failover.example.com",
    "weighted.example.com",
    "ruled.example.com",
    "named.example.com",
    "www.example.org",
    "id.server",
    "mail.example.com",
];

const QTYPES: [u16; 18] = [1, 2, 5, 6, 12, 15, 16, 28, 33, 39, 43, 48, 65, 251, 252, 255, 257, 65280];

const OPTIONS: [&[u8]; 9] = [
    b"\0\x08\0\x07\0\x01\x18\0\xc1\0\x06",
    b"\0\x08\0\x0a\0\x02\x30\0\x20\x01\x06\x7c\x02\xe8",
    b"\0\x08\0\x04\0\x01\0\0",
    b"\0\x0a\0\x08clientck",
    b"\0\x0a\0\x18clientckserver-cookie-16",
    b"\0\x03\0\0",
    b"\0\x0b\0\0",
    b"\0\x0c\0\x04\0\0\0\0",
    b"\xfd\xe9\0\x02??",
];

/// Queries as clients send them, and not quite so.
fn queries() -> impl Strategy<Value = Vec<u8>> {
    let edns = (0u8..8, any::<bool>(), vec(sample::select(&OPTIONS[..]), 0..5));
    let header = (0u8..16, sample::select(&[1u8, 1, 1, 1, 1, 1, 1, 3, 4, 255][..]), 0u8..30, any::<u64>());
    let question = (sample::select(&NAMES[..]), sample::select(&QTYPES[..]));
    (question, header, prop::option::of(edns)).prop_map(|((name, qtype), (id, class, flags, cases), edns)| {
        let mut query = Ask::new(name, "A").bytes();
        let at = query.len() - 4;
        for (bit, byte) in query[12..at].iter_mut().enumerate().filter(|(_, byte)| byte.is_ascii_alphabetic()) {
            *byte ^= if cases >> (bit % 64) & 1 == 1 { 0x20 } else { 0 };
        }
        query[at..at + 2].copy_from_slice(&qtype.to_be_bytes());
        query[at + 3] = class;
        query[..2].copy_from_slice(&[0, u8::from(id == 0)]);
        query[2] = if flags == 0 { 0x20 } else { flags & 1 };
        if let Some((version, dnssec_ok, options)) = edns {
            let options = options.concat();
            query[11] = 1;
            query.extend([0, 0, 41, 4, 0xd0, 0, u8::from(version == 0), if dnssec_ok { 0x80 } else { 0 }, 0]);
            query.extend((options.len() as u16).to_be_bytes());
            query.extend(options);
        }
        query
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn adapter_and_core_agree(queries in vec(queries(), 20)) {
        let (adapter, mut direct) = (adapter(), fixture());
        let reached = Cell::new(0);
        for query in &queries {
            if agree(&adapter, &mut direct, query)? {
                reached.set(reached.get() + 1);
            }
        }
        prop_assert!(reached.get() >= 5, "only {} of {} reached the core", reached.get(), queries.len());
    }
}

#[test]
fn every_kind_of_record_is_carried() {
    let (adapter, mut direct) = (adapter(), fixture());
    for name in NAMES {
        for qtype in QTYPES {
            for padding in [&b""[..], OPTIONS[7]] {
                let mut query = Ask::new(name, "A").edns(1232).bytes();
                let at = query.len() - 15;
                query[..2].fill(0);
                query[at..at + 2].copy_from_slice(&qtype.to_be_bytes());
                *query.last_mut().unwrap() = padding.len() as u8;
                query.extend(padding);
                assert!(agree(&adapter, &mut direct, &query).unwrap(), "{name} {qtype}");
            }
        }
    }
}

#[test]
fn what_breaks_the_protocol_gets_no_answer() {
    let adapter = adapter();
    let mut keepalive = Ask::new("www.example.com", "A").edns(1232).bytes();
    *keepalive.last_mut().unwrap() = 4;
    keepalive.extend(OPTIONS[6]);
    keepalive[..2].fill(0);
    assert_eq!(sent(&adapter, &keepalive), Some(None), "the keepalive option of TCP");
    assert_eq!(sent(&adapter, &Ask::new("www.example.com", "A").bytes()), Some(None), "an id other than 0");
}
