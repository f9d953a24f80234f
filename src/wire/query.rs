//! Reading a query: header, question, OPT. Everything a client may send ends in one of three verdicts, never in a panic.

use super::{
    codes::{Rcode, option, rtype},
    ecs::Ecs,
    qname::QName,
};

/// Length of the DNS header.
pub const HEADER_LEN: usize = 12;

/// The question section of a query.
#[derive(Clone, Copy)]
pub struct Question<'n> {
    /// The name asked for.
    pub name: &'n QName,
    /// Type asked for.
    pub qtype: u16,
    /// Class asked for.
    pub qclass: u16,
}

impl Question<'_> {
    /// Length of the question section: name, type and class.
    pub fn wire_len(&self) -> usize {
        self.name.len() + 4
    }
}

/// What a query's OPT record says (RFC 6891).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Edns {
    /// Largest UDP message the client takes, in bytes, as sent; below 512 counts as 512.
    pub payload: u16,
    /// EDNS version; anything but 0 is answered BADVERS.
    pub version: u8,
    /// DNSSEC OK.
    pub dnssec_ok: bool,
    /// Client subnet.
    pub ecs: Option<Ecs>,
    /// The first COOKIE option: client cookie and what came after it.
    pub cookie: Option<Cookie>,
    /// NSID asked for.
    pub nsid: bool,
    /// edns-tcp-keepalive asked for.
    pub keepalive: bool,
    /// A PADDING option came, of whatever length (RFC 7830 §3).
    pub padding: bool,
}

/// A COOKIE option of the right length (RFC 7873 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cookie {
    /// Client cookie.
    pub client: [u8; 8],
    /// Server cookie of 16 bytes (RFC 9018 §4), if one of that length came.
    pub server: Option<[u8; 16]>,
}

/// A message that can be answered from the zones, or for its cookie alone.
pub struct Query<'n> {
    /// `None`: QDCOUNT 0 with a COOKIE option (RFC 7873 §5.4).
    pub question: Option<Question<'n>>,
    /// `None`: no OPT record.
    pub edns: Option<Edns>,
}

/// A message that gets an error and nothing else.
pub struct Refusal<'n> {
    /// The error.
    pub rcode: Rcode,
    /// The question, where one could be read.
    pub question: Option<Question<'n>>,
    /// The OPT record, where one was seen.
    pub edns: Option<Edns>,
}

/// Why a packet is not answered at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// Under 12 bytes.
    Short,
    /// A response (QR set): answering would make a loop.
    Response,
}

/// What a packet turned out to be.
pub enum Parsed<'n> {
    /// Answer it.
    Query(Query<'n>),
    /// Refuse it.
    Refuse(Refusal<'n>),
    /// Drop it.
    Ignore(Ignored),
}

/// Reads one message. The name that it asks for is put into `name`, whatever stood there before.
#[inline]
pub fn parse<'n>(packet: &[u8], name: &'n mut QName) -> Parsed<'n> {
    if packet.len() < HEADER_LEN {
        return Parsed::Ignore(Ignored::Short);
    }
    if packet[2] & 0x80 != 0 {
        return Parsed::Ignore(Ignored::Response);
    }
    let [questions, answers, authorities, additionals] =
        [4, 6, 8, 10].map(|at| u16::from_be_bytes([packet[at], packet[at + 1]]));
    if opcode(packet) != 0 || questions > 1 {
        let rcode = if opcode(packet) != 0 { Rcode::NotImp } else { Rcode::FormErr };
        let before_additional = u32::from(answers) + u32::from(authorities);
        return refuse(rcode, None, find_opt(packet, questions, before_additional, additionals));
    }
    let mut question = None;
    let mut at = HEADER_LEN;
    if questions == 1 {
        let Some(read) = parse_question(&packet[HEADER_LEN..], name) else {
            return refuse(Rcode::FormErr, None, None);
        };
        at += read.wire_len();
        question = Some(read);
    }
    let mut edns = None;
    let outcome = parse_records(packet, at, u32::from(answers) + u32::from(authorities), additionals, &mut edns);
    match (outcome, &question, &edns) {
        (Err(rcode), ..) => refuse(rcode, question, edns),
        (Ok(()), None, Some(Edns { cookie: Some(_), .. })) => Parsed::Query(Query { question, edns }),
        (Ok(()), None, _) => refuse(Rcode::FormErr, None, edns),
        (Ok(()), Some(_), _) => Parsed::Query(Query { question, edns }),
    }
}

/// The opcode of a message of at least 12 bytes.
pub fn opcode(packet: &[u8]) -> u8 {
    packet[2] >> 3 & 0x0f
}

fn refuse(rcode: Rcode, question: Option<Question<'_>>, edns: Option<Edns>) -> Parsed<'_> {
    Parsed::Refuse(Refusal { rcode, question, edns })
}

/// The OPT record of a message that is refused whatever else it says: an OPT is answered by an OPT (RFC 6891 §6.1.1), so it is
/// looked for as far as the message can be read.
fn find_opt(packet: &[u8], questions: u16, before_additional: u32, additionals: u16) -> Option<Edns> {
    let mut at = HEADER_LEN;
    let mut name = QName::default();
    for _ in 0..questions {
        at += parse_question(packet.get(at..)?, &mut name)?.wire_len();
    }
    let mut edns = None;
    let _refused_anyway = parse_records(packet, at, before_additional, additionals, &mut edns);
    edns
}

pub(super) fn parse_question<'n>(bytes: &[u8], name: &'n mut QName) -> Option<Question<'n>> {
    if !name.read(bytes) {
        return None;
    }
    let &[t1, t2, c1, c2] = bytes.get(name.len()..name.len() + 4)? else { return None };
    Some(Question { name, qtype: u16::from_be_bytes([t1, t2]), qclass: u16::from_be_bytes([c1, c2]) })
}

/// Walks the records after the question; `edns` is filled even when an error follows, so that the error can carry an OPT.
fn parse_records(
    packet: &[u8],
    mut at: usize,
    before_additional: u32,
    additionals: u16,
    edns: &mut Option<Edns>,
) -> Result<(), Rcode> {
    for _ in 0..before_additional {
        at = skip_record(packet, at).ok_or(Rcode::FormErr)?.end;
    }
    for _ in 0..additionals {
        let record = skip_record(packet, at).ok_or(Rcode::FormErr)?;
        if record.rtype == rtype::OPT {
            if edns.is_some() || packet[at] != 0 {
                return Err(Rcode::FormErr);
            }
            let fixed = &packet[record.fixed_at..record.rdata_at];
            let read = edns.insert(Edns {
                payload: u16::from_be_bytes([fixed[2], fixed[3]]),
                version: fixed[5],
                dnssec_ok: fixed[6] & 0x80 != 0,
                ..Edns::default()
            });
            if read.version != 0 {
                return Err(Rcode::BadVers);
            }
            parse_options(&packet[record.rdata_at..record.end], read).ok_or(Rcode::FormErr)?;
        }
        at = record.end;
    }
    if at == packet.len() { Ok(()) } else { Err(Rcode::FormErr) }
}

pub(super) struct RecordAt {
    pub(super) rtype: u16,
    pub(super) fixed_at: usize,
    pub(super) rdata_at: usize,
    pub(super) end: usize,
}

/// Where a record's parts lie. Its owner may be compressed; it is stepped over, not followed.
pub(super) fn skip_record(packet: &[u8], start: usize) -> Option<RecordAt> {
    let mut at = start;
    loop {
        match *packet.get(at)? {
            0 => {
                at += 1;
                break;
            }
            0xc0.. => {
                at += 2;
                break;
            }
            n @ 1..=63 => at += 1 + usize::from(n),
            _ => return None,
        }
    }
    let fixed: &[u8; 10] = packet.get(at..)?.first_chunk()?;
    let rdata_at = at + 10;
    let end = rdata_at + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
    (end <= packet.len()).then(|| RecordAt {
        rtype: u16::from_be_bytes([fixed[0], fixed[1]]),
        fixed_at: at,
        rdata_at,
        end,
    })
}

/// More options than there are kinds of them. A packet full of empty ones would cost half as much again as a plain query to walk through;
/// what comes after these is not looked at, as if it were unknown.
const OPTIONS_MAX: usize = 64;

/// Reads the options we know; `None` when one is malformed. Unknown ones are stepped over (RFC 6891 §6.1.2).
fn parse_options(mut data: &[u8], edns: &mut Edns) -> Option<()> {
    for _ in 0..OPTIONS_MAX {
        if data.is_empty() {
            break;
        }
        let &[c1, c2, l1, l2, ref rest @ ..] = data else { return None };
        let len = usize::from(u16::from_be_bytes([l1, l2]));
        let (value, rest) = rest.split_at_checked(len)?;
        data = rest;
        match u16::from_be_bytes([c1, c2]) {
            option::CLIENT_SUBNET if edns.ecs.is_some() => return None,
            option::CLIENT_SUBNET => edns.ecs = Some(Ecs::parse(value)?),
            // Of several cookies only the first is considered (RFC 7873 §5.2).
            option::COOKIE if edns.cookie.is_none() => edns.cookie = Some(parse_cookie(value)?),
            option::NSID => edns.nsid = true,
            option::TCP_KEEPALIVE => edns.keepalive = true,
            option::PADDING => edns.padding = true,
            _ => {}
        }
    }
    Some(())
}

fn parse_cookie(value: &[u8]) -> Option<Cookie> {
    let (client, server) = value.split_first_chunk::<8>()?;
    matches!(server.len(), 0 | 8..=32).then(|| Cookie { client: *client, server: server.try_into().ok() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WWW: &[u8] = b"\x03www\x07example\x03com\x00\x00\x01\x00\x01";

    fn packet(flags: [u8; 2], counts: [u8; 4], parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34, flags[0], flags[1]];
        for n in counts {
            bytes.extend([0, n]);
        }
        bytes.extend(parts.concat());
        bytes
    }

    fn opt(options: &[u8]) -> Vec<u8> {
        [&b"\0\0\x29\x04\xd0\0\0\0\0"[..], &(options.len() as u16).to_be_bytes(), options].concat()
    }

    fn verdict(packet: &[u8]) -> String {
        match parse(packet, &mut QName::default()) {
            Parsed::Query(q) => format!("query{}", if q.edns.is_some() { "+opt" } else { "" }),
            Parsed::Refuse(r) => format!("{:?}{}", r.rcode, if r.edns.is_some() { "+opt" } else { "" }),
            Parsed::Ignore(i) => format!("{i:?}"),
        }
    }

    #[test]
    fn every_kind_of_packet_gets_its_verdict() {
        let two_opts = [opt(b""), opt(b"")].concat();
        let cases: Vec<(&str, Vec<u8>, &str)> = vec![
            ("plain", packet([1, 0], [1, 0, 0, 0], &[WWW]), "query"),
            ("edns", packet([1, 0], [1, 0, 0, 1], &[WWW, &opt(b"")]), "query+opt"),
            ("short", vec![0; 11], "Short"),
            ("response", packet([0x80, 0], [1, 0, 0, 0], &[WWW]), "Response"),
            ("notify", packet([0x20, 0], [1, 0, 0, 0], &[WWW]), "NotImp"),
            ("status with opt", packet([0x10, 0], [1, 0, 0, 1], &[WWW, &opt(b"")]), "NotImp+opt"),
            ("two questions with opt", packet([0, 0], [2, 0, 0, 1], &[WWW, WWW, &opt(b"")]), "FormErr+opt"),
            ("two questions", packet([0, 0], [2, 0, 0, 0], &[WWW, WWW]), "FormErr"),
            ("no question", packet([0, 0], [0, 0, 0, 0], &[]), "FormErr"),
            ("no question, opt", packet([0, 0], [0, 0, 0, 1], &[&opt(b"")]), "FormErr+opt"),
            ("cookie alone", packet([0, 0], [0, 0, 0, 1], &[&opt(b"\0\x0a\0\x0812345678")]), "query+opt"),
            ("trailing", packet([0, 0], [1, 0, 0, 0], &[WWW, b"x"]), "FormErr"),
            ("missing additional", packet([0, 0], [1, 0, 0, 1], &[WWW]), "FormErr"),
            ("two opts", packet([0, 0], [1, 0, 0, 2], &[WWW, &two_opts]), "FormErr+opt"),
            ("version 1", packet([0, 0], [1, 0, 0, 1], &[WWW, b"\0\0\x29\x04\xd0\0\x01\0\0\0\0"]), "BadVers+opt"),
            ("opt owner", packet([0, 0], [1, 0, 0, 1], &[WWW, b"\x01x", &opt(b"")]), "FormErr"),
            ("bad ecs", packet([0, 0], [1, 0, 0, 1], &[WWW, &opt(b"\0\x08\0\x03\0\x01\x18")]), "FormErr+opt"),
            ("bad cookie", packet([0, 0], [1, 0, 0, 1], &[WWW, &opt(b"\0\x0a\0\x01x")]), "FormErr+opt"),
            ("option overrun", packet([0, 0], [1, 0, 0, 1], &[WWW, &opt(b"\xfd\xe9\0\x32abc")]), "FormErr+opt"),
            ("pointer", packet([0, 0], [1, 0, 0, 0], &[b"\xc0\x0c\0\x01\0\x01"]), "FormErr"),
            (
                "an additional before the opt",
                packet([0, 0], [1, 0, 0, 2], &[WWW, b"\0\0\x01\0\x01\0\0\0\0\0\x04\x7f\0\0\x01", &opt(b"")]),
                "query+opt",
            ),
        ];
        for (name, bytes, expected) in cases {
            assert_eq!(verdict(&bytes), expected, "{name}");
        }
    }

    #[test]
    fn a_packet_full_of_options_is_read_no_further_than_any_client_needs() {
        let nsid_after = |unknown: usize| {
            let options = [b"\xfd\xe9\0\0".repeat(unknown), b"\0\x03\0\0".to_vec()].concat();
            match parse(&packet([1, 0], [1, 0, 0, 1], &[WWW, &opt(&options)]), &mut QName::default()) {
                Parsed::Query(query) => query.edns.unwrap().nsid,
                _ => panic!("{unknown} options"),
            }
        };
        assert_eq!([0, OPTIONS_MAX - 1, OPTIONS_MAX, 900].map(nsid_after), [true, true, false, false]);
    }

    #[test]
    fn every_cut_of_a_full_query_has_a_verdict() {
        let options = b"\0\x08\0\x07\0\x01\x18\0\xc0\0\x02\0\x0a\0\x0812345678\0\x03\0\0";
        let whole = packet([1, 0], [1, 0, 0, 1], &[WWW, &opt(options)]);
        assert_eq!(verdict(&whole), "query+opt");
        for n in 0..whole.len() {
            let got = verdict(&whole[..n]);
            assert!(got.starts_with("FormErr") || got == "Short", "{n}: {got}");
        }
    }
}
