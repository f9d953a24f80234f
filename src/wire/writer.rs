//! Writing a reply into the caller's buffer.
//!
//! The reply begins with a header and the question copied from the query. Records follow as ready-made bytes; what does not fit
//! leaves the message as it was before, so that a caller can truncate at an RRset's edge (RFC 2181 §9).

use super::{
    codes::{ExtendedError, Rcode, option},
    ecs::Ecs,
    query::HEADER_LEN,
};

/// Offset of the question's name: what the pointer 0xC00C stands for.
pub const QNAME_AT: usize = HEADER_LEN;
/// Offsets from here on do not fit into a compression pointer (RFC 1035 §4.1.4).
pub const POINTER_END: usize = 0x4000;

/// Padded replies have a length that is a multiple of this, in bytes (RFC 8467 §4.1).
pub const PADDING_BLOCK: usize = 468;

/// The sections that records are written to, by their counter's place in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Answer.
    Answer = 6,
    /// Authority.
    Authority = 8,
    /// Additional.
    Additional = 10,
}

/// What the OPT record of a reply says.
#[derive(Debug, Clone, Copy, Default)]
pub struct OptReply<'a> {
    /// Payload size that we take, in bytes.
    pub payload: u16,
    /// DO, as the query had it.
    pub dnssec_ok: bool,
    /// Client subnet with our scope.
    pub ecs: Option<(Ecs, u8)>,
    /// Client and server cookie.
    pub cookie: Option<([u8; 8], [u8; 16])>,
    /// This server's identity.
    pub nsid: Option<&'a [u8]>,
    /// Idle time of TCP connections in units of 100 ms.
    pub keepalive: Option<u16>,
    /// Why the answer is what it is.
    pub extended_error: Option<ExtendedError>,
    /// Pad the whole message to a multiple of [`PADDING_BLOCK`] bytes; for encrypted transports alone.
    pub padding: bool,
}

impl OptReply<'_> {
    /// Length of the whole OPT record; of padding the option alone, without what it pads with.
    pub fn wire_len(&self) -> usize {
        11 + self.ecs.map_or(0, |(ecs, _)| ecs.option_len())
            + self.cookie.map_or(0, |_| 28)
            + self.nsid.map_or(0, |id| 4 + id.len())
            + self.keepalive.map_or(0, |_| 6)
            + self.extended_error.map_or(0, |_| 6)
            + if self.padding { 4 } else { 0 }
    }
}

/// A reply under construction. Nothing is ever written past `limit`.
pub struct Writer<'b> {
    buf: &'b mut [u8],
    at: usize,
    limit: usize,
    /// Bytes beyond `limit` that are kept for the OPT record.
    reserved: usize,
    question_end: usize,
}

impl<'b> Writer<'b> {
    /// Starts a reply to `query` (at least a header long): its id, opcode, RD (for standard queries) and the `question_len`
    /// bytes of its question, letter case and all. The reply will not exceed `limit` bytes nor the buffer.
    #[inline]
    pub fn reply(buf: &'b mut [u8], query: &[u8], question_len: usize, limit: usize) -> Self {
        let end = HEADER_LEN + question_len;
        let limit = limit.min(buf.len());
        debug_assert!(end <= limit);
        buf[..end].copy_from_slice(&query[..end]);
        let opcode = query[2] & 0x78;
        let recursion_desired = if opcode == 0 { query[2] & 0x01 } else { 0 };
        buf[2] = 0x80 | opcode | recursion_desired;
        buf[3] = 0;
        buf[4..HEADER_LEN].fill(0);
        buf[5] = u8::from(question_len > 0);
        Writer { buf, at: end, limit, reserved: 0, question_end: end }
    }

    /// Bytes written so far.
    pub fn position(&self) -> usize {
        self.at
    }

    /// True when `bytes` were written at offset `at`.
    pub fn holds(&self, at: usize, bytes: &[u8]) -> bool {
        self.buf[..self.at].get(at..).is_some_and(|rest| rest.starts_with(bytes))
    }

    /// Keeps `len` bytes free for the OPT record, where there are so many.
    #[inline]
    pub fn reserve(&mut self, len: usize) {
        self.reserved = len.min(self.limit);
        self.limit -= self.reserved;
    }

    /// Sets or clears AA.
    #[inline]
    pub fn set_authoritative(&mut self, on: bool) {
        self.buf[2] = self.buf[2] & !0x04 | u8::from(on) << 2;
    }

    /// Sets the four bits of the response code that the header has room for.
    #[inline]
    pub fn set_rcode(&mut self, rcode: Rcode) {
        self.buf[3] = self.buf[3] & 0xf0 | (rcode as u16 & 0x0f) as u8;
    }

    /// Drops all records.
    pub fn clear(&mut self) {
        self.at = self.question_end;
        self.buf[6..HEADER_LEN].fill(0);
    }

    /// Drops all records and sets TC (RFC 2181 §9: never a partial RRset).
    pub fn truncate(&mut self) {
        self.clear();
        self.buf[2] |= 0x02;
    }

    /// Copies ready-made bytes; `None`, with nothing written, when they do not fit. Returns what was written, for patching.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) -> Option<&mut [u8]> {
        let end = self.at + bytes.len();
        if end > self.limit {
            return None;
        }
        let place = &mut self.buf[self.at..end];
        place.copy_from_slice(bytes);
        self.at = end;
        Some(place)
    }

    /// Adds `records` to a section's counter.
    #[inline]
    pub fn count(&mut self, section: Section, records: u16) {
        let at = section as usize;
        let sum = u16::from_be_bytes([self.buf[at], self.buf[at + 1]]) + records;
        self.buf[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }

    /// Writes the OPT record, for which room was kept, and returns the reply's length.
    ///
    /// # Panics
    /// When the OPT record does not fit: what was reserved is less than its [`OptReply::wire_len`].
    #[inline]
    pub fn finish_with_opt(&mut self, rcode: Rcode, opt: &OptReply) -> usize {
        self.set_rcode(rcode);
        let out = &mut self.buf[self.at..self.limit + self.reserved];
        let flags = if opt.dnssec_ok { 0x80 } else { 0 };
        let [p1, p2] = opt.payload.to_be_bytes();
        out[..11].copy_from_slice(&[0, 0, 41, p1, p2, (rcode as u16 >> 4) as u8, 0, flags, 0, 0, 0]);
        let mut at = 11;
        if let Some((ecs, scope_len)) = opt.ecs {
            at += ecs.write(scope_len, &mut out[at..]);
        }
        if let Some((client, server)) = opt.cookie {
            at += put_option(&mut out[at..], option::COOKIE, &client, &server);
        }
        if let Some(id) = opt.nsid {
            at += put_option(&mut out[at..], option::NSID, id, &[]);
        }
        if let Some(tenths) = opt.keepalive {
            at += put_option(&mut out[at..], option::TCP_KEEPALIVE, &tenths.to_be_bytes(), &[]);
        }
        if let Some(error) = opt.extended_error {
            at += put_option(&mut out[at..], option::EXTENDED_ERROR, &(error as u16).to_be_bytes(), &[]);
        }
        if opt.padding {
            // A message that cannot be longer is padded as far as it goes (RFC 7830 §4 asks for no more).
            let padded = (self.at + at + 4).next_multiple_of(PADDING_BLOCK) - self.at;
            let end = padded.min(out.len());
            let (head, zeros) = out[at..end].split_at_mut(4);
            let [l1, l2] = (zeros.len() as u16).to_be_bytes();
            head.copy_from_slice(&[0, option::PADDING as u8, l1, l2]);
            zeros.fill(0);
            at = end;
        }
        out[9..11].copy_from_slice(&((at - 11) as u16).to_be_bytes());
        self.at += at;
        self.count(Section::Additional, 1);
        self.at
    }

    /// Sets the response code and returns the reply's length; for queries without OPT, which no code above 15 can go to.
    pub fn finish(&mut self, rcode: Rcode) -> usize {
        self.set_rcode(rcode);
        self.at
    }
}

fn put_option(out: &mut [u8], code: u16, first: &[u8], second: &[u8]) -> usize {
    let len = first.len() + second.len();
    out[..2].copy_from_slice(&code.to_be_bytes());
    out[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    out[4..4 + first.len()].copy_from_slice(first);
    out[4 + first.len()..4 + len].copy_from_slice(second);
    4 + len
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &[u8] = b"\xab\xcd\x01\x30\0\x01\0\0\0\0\0\x01\x01X\0\0\x01\0\x01";

    #[test]
    fn a_reply_copies_id_rd_and_question_and_clears_the_rest() {
        let mut buf = [0xff; 512];
        let mut writer = Writer::reply(&mut buf, QUERY, 7, 512);
        let n = writer.finish(Rcode::Refused);
        assert_eq!(&buf[..n], b"\xab\xcd\x81\x05\0\x01\0\0\0\0\0\0\x01X\0\0\x01\0\x01");
    }

    #[test]
    fn a_padded_reply_is_a_whole_number_of_blocks_of_zeros_or_as_long_as_it_may_be() {
        for (records, limit, expected) in
            [(0, 65_535, 468), (434, 65_535, 468), (435, 65_535, 936), (0, 300, 300), (65_490, 65_535, 65_535)]
        {
            let mut buf = vec![0xff; limit];
            let opt = OptReply { padding: true, ..OptReply::default() };
            let mut writer = Writer::reply(&mut buf, QUERY, 7, limit);
            writer.reserve(opt.wire_len());
            writer.put(&vec![7; records]).unwrap();
            let n = writer.finish_with_opt(Rcode::NoError, &opt);
            assert_eq!(n, expected, "{records} bytes of records, at most {limit}");
            let opt_at = 19 + records;
            let padding = n - opt_at - 15;
            assert_eq!(buf[opt_at + 9..opt_at + 11], ((padding + 4) as u16).to_be_bytes());
            assert_eq!(buf[opt_at + 11..opt_at + 13], [0, 12]);
            assert_eq!(buf[opt_at + 13..opt_at + 15], (padding as u16).to_be_bytes());
            assert!(buf[opt_at + 15..n].iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn what_does_not_fit_is_not_written_and_truncation_leaves_question_and_opt() {
        let mut buf = [0; 512];
        let opt = OptReply { payload: 1232, dnssec_ok: true, keepalive: Some(100), ..OptReply::default() };
        let mut writer = Writer::reply(&mut buf, QUERY, 7, 19 + opt.wire_len() + 4);
        writer.reserve(opt.wire_len());
        assert!(writer.put(b"1234").is_some());
        writer.count(Section::Answer, 1);
        assert!(writer.put(b"5").is_none());
        writer.truncate();
        let n = writer.finish_with_opt(Rcode::BadVers, &opt);
        assert_eq!(&buf[2..12], b"\x83\x00\0\x01\0\0\0\0\0\x01");
        assert_eq!(&buf[19..n], b"\0\0\x29\x04\xd0\x01\0\x80\0\0\x06\0\x0b\0\x02\0\x64");
    }
}
