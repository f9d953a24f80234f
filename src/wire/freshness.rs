//! How long a reply of ours may be kept by a cache that does not read DNS, such as one for HTTP (RFC 8484 §5.1).

use super::{
    codes::rtype,
    qname::QName,
    query::{HEADER_LEN, parse_question, skip_record},
};

/// For how many seconds `reply` holds: the smallest TTL of its answer and authority sections, and of a negative answer at most
/// the SOA's minimum (RFC 2308 §5). `None`: it has no such records, or cannot be read, and should not be kept at all.
pub fn fresh_s(reply: &[u8]) -> Option<u32> {
    let [questions, answers, authorities] =
        [4, 6, 8].map(|at| Some(u16::from_be_bytes([*reply.get(at)?, *reply.get(at + 1)?])));
    let (answers, authorities) = (u32::from(answers?), u32::from(authorities?));
    let (mut at, mut name) = (HEADER_LEN, QName::default());
    for _ in 0..questions? {
        at += parse_question(reply.get(at..)?, &mut name)?.wire_len();
    }
    let mut fresh_s: Option<u32> = None;
    for _ in 0..answers + authorities {
        let record = skip_record(reply, at)?;
        let mut ttl_s = u32_at(reply, record.fixed_at + 4)?;
        if record.rtype == rtype::SOA && answers == 0 && record.end - record.rdata_at >= 4 {
            ttl_s = ttl_s.min(u32_at(reply, record.end - 4)?);
        }
        fresh_s = Some(fresh_s.map_or(ttl_s, |least| least.min(ttl_s)));
        at = record.end;
    }
    fresh_s
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: &[u8] = b"\x01x\0\0\x01\0\x01";

    /// A reply with so many records in its sections and these bytes behind its question.
    fn reply(answers: u8, authorities: u8, additionals: u8, records: &[&[u8]]) -> Vec<u8> {
        let header = [0, 0, 0x80, 0, 0, 1, 0, answers, 0, authorities, 0, additionals];
        [&header, QUESTION, &records.concat()].concat()
    }

    fn record(rtype: u16, ttl_s: u32, rdata: &[u8]) -> Vec<u8> {
        let [t1, t2] = rtype.to_be_bytes();
        let fixed = [&[0xc0, 12, t1, t2, 0, 1][..], &ttl_s.to_be_bytes(), &(rdata.len() as u16).to_be_bytes()].concat();
        [&fixed, rdata].concat()
    }

    #[test]
    fn a_reply_holds_as_long_as_its_shortest_record() {
        let a = |ttl_s| record(1, ttl_s, &[192, 0, 2, 1]);
        let soa = |ttl_s, minimum: u32| record(6, ttl_s, &[&[0; 18][..], &minimum.to_be_bytes()].concat());
        let opt = b"\0\0\x29\x04\xd0\0\0\0\0\0\0".to_vec();
        for (what, expected, bytes) in [
            ("two answers", Some(60), reply(2, 0, 0, &[&a(300), &a(60)])),
            ("the OPT record has no TTL", Some(300), reply(1, 0, 1, &[&a(300), &opt])),
            ("NXDOMAIN, bounded by the minimum", Some(30), reply(0, 1, 0, &[&soa(60, 30)])),
            ("NXDOMAIN, bounded by the SOA's TTL", Some(20), reply(0, 1, 0, &[&soa(20, 30)])),
            ("an SOA that was asked for", Some(3600), reply(1, 0, 0, &[&soa(3600, 30)])),
            ("a referral", Some(120), reply(0, 1, 1, &[&record(2, 120, b"\xc0\x0c"), &a(5)])),
            ("refused", None, reply(0, 0, 0, &[])),
            ("cut off", None, reply(1, 0, 0, &[&a(300)[..9]])),
        ] {
            assert_eq!(fresh_s(&bytes), expected, "{what}");
        }
        let whole = reply(1, 1, 0, &[&a(300), &soa(60, 30)]);
        for len in 0..whole.len() {
            assert_eq!(fresh_s(&whole[..len]), None, "{len} bytes");
        }
    }
}
