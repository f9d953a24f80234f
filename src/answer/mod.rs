//! The answering core: query bytes in, reply bytes out. No clock, socket, lock, log line or allocation.
//!
//! ```text
//! parse ─┬─ ignored ───────────────────────────────────────▶ Drop
//!        ├─ refused (FORMERR, NOTIMP, BADVERS) ─┐           ▲
//!        └─ query ─ zone ─ node, cut, DNAME ────┴─ reply ─ limit ─ OPT ─▶ Send
//!                            └─ route ─ routing::policy
//! ```
//!
//! Asked to ([`Core::want_tcp`]), it gives an empty reply with TC where a route answers by the sender's address.

#![deny(clippy::disallowed_methods)]

mod chaos;
pub mod explain;
mod notes;
mod resolve;
pub mod way;

use std::{net::IpAddr, sync::Arc};

use self::notes::Notes;
use crate::{
    routing::{
        Snapshot,
        policy::{Client, Reason},
        rate_limit::{Action, Owner},
        snapshot::Settings,
    },
    telemetry::{AnswerSlots, DropReason, QtypeClass, TransportKind, WorkerCounters, samples},
    wire::{
        Edns, ExtendedError, HEADER_LEN, Ignored, Name, Parsed, QName, Question, Rcode, Refusal, Writer, class,
        query::{Cookie, Query, opcode},
        rtype,
        writer::OptReply,
    },
};

/// UDP replies to queries without OPT (RFC 1035 §4.2.1), and the least that an OPT can ask for (RFC 6891 §6.2.3).
const UDP_PLAIN_MAX: usize = 512;
/// A reply over any other transport: its length stands in two bytes, over HTTPS as well (RFC 8484 §6).
const STREAM_MAX: usize = 65_535;
/// An extended error in an OPT record: option code, length, and the error (RFC 8914 §2).
const EXTENDED_ERROR_LEN: usize = 6;
/// Buffers that replies are written to have at least this size.
pub const OUT_LEN_MIN: usize = 4096;

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send so many bytes of the buffer.
    Send(usize),
    /// Send nothing.
    Drop(DropReason),
}

/// Where a message came from and when.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// The sender's address.
    pub client: IpAddr,
    /// How it came.
    pub transport: TransportKind,
    /// Unix time in seconds.
    pub now_s: u64,
}

/// One worker's side of the core: its counters and the turn of its rotating answers.
pub struct Core {
    tally: Tally,
    /// The name asked for last: its room is used again for every query.
    name: QName,
    /// For the query log, where there is one.
    notes: Option<Notes>,
}

/// What a core counts.
struct Tally {
    counters: Arc<WorkerCounters>,
    slots: Arc<AnswerSlots>,
    turn: u32,
    asking: Asking,
    has_located_by_subnet: bool,
}

/// Whether a client is to come by TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    No,
    /// If this reply is one by which it may be asked.
    Wanted,
    /// It was asked.
    Done,
}

impl Core {
    /// A core that counts in `counters`.
    pub fn new(counters: Arc<WorkerCounters>, snapshot: &Snapshot) -> Self {
        let slots = counters.use_keys(&snapshot.answer_keys);
        let tally = Tally { counters, slots, turn: 0, asking: Asking::No, has_located_by_subnet: false };
        Core { tally, name: QName::default(), notes: Notes::under(snapshot.query_log.as_ref(), None) }
    }

    /// A core whose queries are nobody's: none of them is logged.
    fn off_the_record(counters: Arc<WorkerCounters>, snapshot: &Snapshot) -> Self {
        Core::new(counters, &snapshot.clone().with_query_log(None))
    }

    /// To be called when another snapshot than the last one is going to be used: takes up its answer counters and query log.
    pub fn adopt(&mut self, snapshot: &Snapshot) {
        self.notes = Notes::under(snapshot.query_log.as_ref(), self.notes.take());
        let Tally { counters, slots, .. } = &mut self.tally;
        if !Arc::ptr_eq(slots.keys(), &snapshot.answer_keys) {
            *slots = counters.use_keys(&snapshot.answer_keys);
        }
    }

    /// When the queries from now on came, in milliseconds since 1970, for the query log. Without it the log has whole seconds.
    pub fn set_time(&mut self, now_ms: u64) {
        if let Some(notes) = &mut self.notes {
            notes.set_time(now_ms);
        }
    }

    /// Whether a query since this was last asked was located by its client subnet, and not by its sender's address.
    #[inline]
    pub fn has_located_by_subnet(&mut self) -> bool {
        let has = self.tally.has_located_by_subnet;
        if has {
            self.tally.has_located_by_subnet = false;
        }
        has
    }

    /// The handshake of the next query's sender is wanted, which came over UDP: where a route would answer it by the sender's address,
    /// the reply is empty and has TC, so that the client asks again by TCP. Every other reply is the usual one.
    pub fn want_tcp(&mut self) {
        self.tally.asking = Asking::Wanted;
    }

    /// Whether the reply since [`Core::want_tcp`] asked for that; nothing is wanted any more.
    pub fn has_asked(&mut self) -> bool {
        std::mem::replace(&mut self.tally.asking, Asking::No) == Asking::Done
    }

    /// Answers one message into `out`, which has at least [`OUT_LEN_MIN`] bytes.
    pub fn respond(&mut self, query: &[u8], arrival: Arrival, snapshot: &Snapshot, out: &mut [u8]) -> Verdict {
        let Core { tally, name, notes } = self;
        let parsed = crate::wire::query::parse(query, name);
        let (question, edns, outcome) = match &parsed {
            Parsed::Ignore(Ignored::Short) => return tally.drop_message(arrival, DropReason::Short),
            Parsed::Ignore(Ignored::Response) => return tally.drop_message(arrival, DropReason::Response),
            parsed if arrival.transport == TransportKind::Doq && breaks_doq(query, parsed) => {
                return tally.drop_message(arrival, DropReason::Malformed);
            }
            Parsed::Refuse(refusal) => {
                (&refusal.question, &refusal.edns, tally.refuse(query, arrival, snapshot, out, refusal))
            }
            Parsed::Query(parsed) => {
                (&parsed.question, &parsed.edns, tally.answer(query, arrival, snapshot, out, parsed))
            }
        };
        tally.counters.query(arrival.transport, class_of(question));
        if let Some(notes) = notes {
            notes.note(arrival, question.as_ref(), edns.as_ref(), outcome.as_ref());
        }
        match outcome {
            Some(sent) => {
                tally.counters.response(sent.rcode as u16);
                Verdict::Send(sent.len)
            }
            None => {
                tally.counters.dropped(DropReason::RateLimited);
                Verdict::Drop(DropReason::RateLimited)
            }
        }
    }
}

impl Tally {
    fn drop_message(&self, arrival: Arrival, reason: DropReason) -> Verdict {
        self.counters.query(arrival.transport, QtypeClass::None);
        self.counters.dropped(reason);
        Verdict::Drop(reason)
    }

    /// `None`: over the limit of its network.
    fn answer(
        &mut self,
        query: &[u8],
        arrival: Arrival,
        snapshot: &Snapshot,
        out: &mut [u8],
        parsed: &Query,
    ) -> Option<Sent> {
        let settings = &*snapshot.settings;
        let edns = parsed.edns.as_ref();
        let ecs = edns.and_then(|edns| edns.ecs);
        if let Some(ecs) = ecs {
            self.counters.ecs();
            self.has_located_by_subnet |= ecs.source_len > 0;
        }
        let limit = reply_limit(arrival.transport, edns, settings);
        let question_len = parsed.question.as_ref().map_or(0, |question| question.wire_len());
        let mut opt = opt_reply(edns, arrival, settings, limit - HEADER_LEN - question_len);
        let Some(question) = &parsed.question else {
            let writer = Writer::reply(out, query, 0, limit);
            return self.send(&mut Outgoing::plain(writer, Rcode::NoError, edns, opt), arrival, snapshot);
        };
        let mut writer = Writer::reply(out, query, question_len, limit);
        if edns.is_some() {
            writer.reserve(opt.wire_len());
        }
        if let Err((rcode, error)) = is_answerable(question) {
            if question.qclass == class::CH && chaos::answer(question, settings, &mut writer) {
                return self.send(&mut Outgoing::plain(writer, Rcode::NoError, edns, opt), arrival, snapshot);
            }
            opt.extended_error = error;
            return self.send(&mut Outgoing::plain(writer, rcode, edns, opt), arrival, snapshot);
        }
        let Some(zone) = snapshot.zones.find(question.name, question.qtype) else {
            opt.extended_error = Some(ExtendedError::NotAuthoritative);
            return self.send(&mut Outgoing::plain(writer, Rcode::Refused, edns, opt), arrival, snapshot);
        };
        let client = Client {
            address: ecs.filter(|ecs| ecs.source_len > 0).map_or(arrival.client, |ecs| ecs.address),
            resolver: arrival.client,
        };
        let dnssec_ok = edns.is_some_and(|edns| edns.dnssec_ok);
        let mut reply = resolve::Reply {
            writer,
            snapshot,
            zone,
            client,
            turn: self.turn,
            apex_at: 12 + question.name.offset_of_suffix(zone.apex_labels),
            dnssec_ok,
            signed: zone.signed.as_ref().filter(|_| dnssec_ok),
            scope_len: 0,
            answered: None,
            proofs: resolve::Proofs::default(),
            matched: Owner::None,
        };
        let (rcode, is_truncated) = match reply.resolve(question) {
            Ok(rcode) => (rcode, false),
            Err(resolve::Full) => {
                reply.writer.truncate();
                reply.answered = None;
                (Rcode::NoError, true)
            }
        };
        if let Some((ecs, scope_len)) = &mut opt.ecs {
            *scope_len = if ecs.source_len == 0 { 0 } else { reply.scope_len };
        }
        if rcode == Rcode::ServFail {
            opt.extended_error = Some(ExtendedError::NotReady);
        }
        let (owner, answered) = (reply.matched, reply.answered);
        let mut outgoing = Outgoing { writer: reply.writer, rcode, edns, opt, owner, is_truncated, answered };
        self.send(&mut outgoing, arrival, snapshot)
    }

    /// FORMERR, NOTIMP and BADVERS: the question where it could be read, an OPT where one came (RFC 6891 §7), and nothing else.
    fn refuse(
        &mut self,
        query: &[u8],
        arrival: Arrival,
        snapshot: &Snapshot,
        out: &mut [u8],
        refusal: &Refusal,
    ) -> Option<Sent> {
        let edns = refusal.edns.as_ref();
        let question_len = refusal.question.as_ref().map_or(0, |question| question.wire_len());
        let limit = reply_limit(arrival.transport, edns, &snapshot.settings);
        let writer = Writer::reply(out, query, question_len, limit);
        let mut opt = opt_reply(edns, arrival, &snapshot.settings, limit - HEADER_LEN - question_len);
        if refusal.rcode == Rcode::FormErr {
            // What was malformed may be the very option that would be echoed.
            opt.ecs = None;
        }
        debug_assert!(refusal.rcode != Rcode::NotImp || opcode(query) != 0);
        self.send(&mut Outgoing::plain(writer, refusal.rcode, edns, opt), arrival, snapshot)
    }

    /// Finishes and counts a reply, as far as the limit of responses lets it go; `None`: not at all.
    #[inline]
    fn send(&mut self, reply: &mut Outgoing, arrival: Arrival, snapshot: &Snapshot) -> Option<Sent> {
        match action(reply, arrival, &snapshot.settings) {
            Action::Pass => {}
            // An error is no longer than the query but for its options, and would be the same by TCP.
            Action::Slip if reply.rcode.is_failure() => reply.opt.nsid = None,
            Action::Slip => reply.shorten(),
            Action::Drop => return None,
        }
        if self.asking == Asking::Wanted && reply.is_answered_by_sender() {
            reply.shorten();
            self.asking = Asking::Done;
        }
        if reply.is_truncated {
            self.counters.truncated();
        }
        if let Some((route, region, reason)) = reply.answered {
            self.turn = self.turn.wrapping_add(1);
            self.slots.answered(snapshot.plan.routes[route].answer_slot(region, reason));
            if self.turn.is_multiple_of(samples::EVERY) {
                let subnet = reply.opt.ecs.map(|(ecs, _)| ecs).filter(|ecs| ecs.source_len > 0);
                self.counters.samples().note(subnet.map_or(arrival.client, |ecs| ecs.address));
            }
        }
        let len = match reply.edns {
            Some(_) => reply.writer.finish_with_opt(reply.rcode, &reply.opt),
            None => reply.writer.finish(reply.rcode),
        };
        let scope_len = reply.opt.ecs.map(|(_, scope_len)| scope_len);
        let Outgoing { rcode, is_truncated, answered, .. } = *reply;
        Some(Sent { len, rcode, is_truncated, answered, scope_len })
    }
}

/// A reply that is ready but for its OPT.
struct Outgoing<'r> {
    writer: Writer<'r>,
    rcode: Rcode,
    edns: Option<&'r Edns>,
    opt: OptReply<'r>,
    /// What it was made from.
    owner: Owner,
    is_truncated: bool,
    /// To be counted.
    answered: Option<Answered>,
}

impl<'r> Outgoing<'r> {
    /// A reply that no zone gives.
    fn plain(writer: Writer<'r>, rcode: Rcode, edns: Option<&'r Edns>, opt: OptReply<'r>) -> Self {
        Outgoing { writer, rcode, edns, opt, owner: Owner::None, is_truncated: false, answered: None }
    }

    /// Takes everything out but what tells the client to come by TCP.
    fn shorten(&mut self) {
        self.writer.truncate();
        (self.rcode, self.is_truncated, self.answered) = (Rcode::NoError, true, None);
        self.opt.nsid = None;
    }

    /// A route answers, and nothing but the sender's address tells where the client is.
    fn is_answered_by_sender(&self) -> bool {
        self.answered.is_some() && self.edns.and_then(|edns| edns.ecs).is_none_or(|ecs| ecs.source_len == 0)
    }
}

/// What the limit of responses says of a reply. Only UDP can be sent under a forged address, and who shows a server cookie that was
/// made for its address has proved that it gets our replies there (RFC 7873 §5.2.4).
#[inline]
fn action(reply: &Outgoing, arrival: Arrival, settings: &Settings) -> Action {
    let Some(limiter) = settings.rate_limiter.as_ref().filter(|_| arrival.transport == TransportKind::Udp) else {
        return Action::Pass;
    };
    if let Some(Cookie { client, server: Some(server) }) = reply.edns.and_then(|edns| edns.cookie)
        && settings.cookies.is_valid(client, server, arrival.client, arrival.now_s)
    {
        return Action::Pass;
    }
    let owner = if reply.rcode.is_failure() { Owner::None } else { reply.owner };
    limiter.count(arrival.client, owner, arrival.now_s)
}

/// A finished reply. All but the length is told of it.
struct Sent {
    len: usize,
    rcode: Rcode,
    is_truncated: bool,
    answered: Option<Answered>,
    /// Of its client subnet, if it has one.
    scope_len: Option<u8>,
}

fn class_of(question: &Option<Question>) -> QtypeClass {
    question.as_ref().map_or(QtypeClass::None, |question| QtypeClass::of(question.qtype))
}

/// What RFC 9250 §4.3.3 calls a protocol error: a message id other than 0 (§4.2.1), or the keepalive option of TCP (§5.5.2). The
/// client must not send it and gets no answer.
fn breaks_doq(query: &[u8], parsed: &Parsed) -> bool {
    let edns = match parsed {
        Parsed::Query(query) => query.edns.as_ref(),
        Parsed::Refuse(refusal) => refusal.edns.as_ref(),
        Parsed::Ignore(_) => None,
    };
    query[..2] != [0, 0] || edns.is_some_and(|edns| edns.keepalive)
}

fn reply_limit(transport: TransportKind, edns: Option<&Edns>, settings: &Settings) -> usize {
    match (transport, edns) {
        (TransportKind::Udp, None) => UDP_PLAIN_MAX,
        (TransportKind::Udp, Some(edns)) => {
            usize::from(edns.payload).clamp(UDP_PLAIN_MAX, usize::from(settings.udp_payload).max(UDP_PLAIN_MAX))
        }
        _ => STREAM_MAX,
    }
}

/// The reply's OPT as far as it is known before the answer; header and question leave it `room` bytes.
#[inline]
fn opt_reply<'s>(edns: Option<&Edns>, arrival: Arrival, settings: &'s Settings, room: usize) -> OptReply<'s> {
    let Some(edns) = edns else { return OptReply::default() };
    let fresh = |cookie: Cookie| (cookie.client, settings.cookies.make(cookie.client, arrival.client, arrival.now_s));
    let mut opt = OptReply {
        payload: settings.udp_payload,
        dnssec_ok: edns.dnssec_ok,
        ecs: edns.ecs.map(|ecs| (ecs, 0)),
        cookie: edns.cookie.map(fresh),
        nsid: (edns.nsid && !settings.identity.is_empty()).then_some(&*settings.identity),
        keepalive: (edns.keepalive && arrival.transport.has_keepalive()).then_some(settings.tcp_idle_tenths),
        extended_error: None,
        // Only who pads is padded for, and only where it hides something (RFC 7830 §4 and §6).
        padding: edns.padding && arrival.transport.is_encrypted(),
    };
    // All but the identity fits beside the longest question even in 512 bytes, and a server may leave it out (RFC 5001 §2.2).
    if opt.nsid.is_some() && opt.wire_len() + EXTENDED_ERROR_LEN > room {
        opt.nsid = None;
    }
    opt
}

/// Classes and types that no zone answers.
fn is_answerable(question: &Question) -> Result<(), (Rcode, Option<ExtendedError>)> {
    let unsupported = Some(ExtendedError::NotSupported);
    match (question.qclass, question.qtype) {
        (class::IN | class::ANY, rtype::AXFR | rtype::IXFR) => Err((Rcode::Refused, unsupported)),
        (class::IN | class::ANY, rtype::OPT | rtype::TKEY | rtype::TSIG | rtype::MAILA | rtype::MAILB) => {
            Err((Rcode::NotImp, unsupported))
        }
        (class::IN | class::ANY, _) => Ok(()),
        _ => Err((Rcode::Refused, Some(ExtendedError::NotAuthoritative))),
    }
}

/// Which route answered, with which region, and why.
type Answered = (usize, crate::config::model::RegionId, Reason);

/// Most links of a chain of CNAME and DNAME records that are followed; a longer one is given as far as it was followed.
const CHAIN_MAX: usize = 16;

/// The targets of a chain so far, to notice a loop.
type Chain<'z> = [Option<&'z Name>; CHAIN_MAX];
