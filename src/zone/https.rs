//! The HTTPS record of a route (RFC 9460): what the configuration says of it, and the places of the address hints, which follow the
//! region that answers.

use crate::{
    wire::{Name, rtype},
    zone::{
        lexer::Lexer,
        rdata::{self, Fault, Words},
    },
};

/// Service parameter keys of the hints (RFC 9460 §14.3.2).
const IPV4HINT: u16 = 4;
const IPV6HINT: u16 = 6;
/// Priority and the target `.`.
const HEAD_LEN: usize = 3;

/// An HTTPS record whose hints are yet to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Https {
    before: Box<[u8]>, // priority, target, and the parameters that sort before ipv4hint
    between: Box<[u8]>,
    after: Box<[u8]>,
}

/// A piece of the record's data.
pub enum Piece<'h, A> {
    /// These bytes.
    Bytes(&'h [u8]),
    /// Key and length of a hint.
    Head([u8; 4]),
    /// An address of a hint.
    Address(A),
}

impl Https {
    /// Reads the data as zone files write it, without hints: `1 . alpn=h2,h3`.
    ///
    /// # Errors
    /// What is wrong; spans count in `text`.
    pub fn read(text: &str) -> Result<Https, Fault> {
        let whole = 0..text.len();
        let mut tokens = Vec::new();
        let mut lexer = Lexer::new(text, whole.clone());
        lexer.next_entry(&mut tokens).map_err(|error| Fault::new(whole.clone(), error.to_string()))?;
        if !matches!(lexer.next_entry(&mut Vec::new()), Ok(None)) {
            return Err(Fault::new(whole, "more than one record").help("a route has one HTTPS record: leave one line"));
        }
        let usage = "write priority, target and parameters: \"1 . alpn=h2,h3\"";
        let first = *tokens.first().ok_or_else(|| Fault::new(whole.clone(), "`https` says nothing").help(usage))?;
        let rdata = rdata::read(Words::new(text, first, &tokens, rtype::HTTPS, &Name::root()))?;
        if rdata[..2] == [0, 0] {
            let help = "write a priority from 1 up; an alias belongs into `records`";
            return Err(Fault::new(whole, "priority 0 makes an alias, which has no hints").help(help));
        }
        if rdata[2] != 0 {
            let help = "write `.` for the target; a record that points elsewhere belongs into `records`";
            return Err(Fault::new(whole, "the hints are addresses of this name, not of another target").help(help));
        }
        let (ipv4_at, ipv6_at) = (start_of(&rdata, IPV4HINT), start_of(&rdata, IPV6HINT));
        if ipv4_at != start_of(&rdata, IPV4HINT + 1) || ipv6_at != start_of(&rdata, IPV6HINT + 1) {
            let help = "leave them out: they are made from the endpoints of the region that answers";
            return Err(Fault::new(whole, "ipv4hint and ipv6hint cannot be written here").help(help));
        }
        let part = |range: std::ops::Range<usize>| rdata[range].into();
        Ok(Https { before: part(0..ipv4_at), between: part(ipv4_at..ipv6_at), after: part(ipv6_at..rdata.len()) })
    }

    /// Length of the data with so many hints, in bytes.
    pub fn len_with(&self, v4: usize, v6: usize) -> usize {
        let hint = |count: usize, len: usize| if count > 0 { 4 + count * len } else { 0 };
        self.before.len() + self.between.len() + self.after.len() + hint(v4, 4) + hint(v6, 16)
    }

    /// The data with these hints, each in order; a hint without addresses is left out.
    pub fn pieces<'h, A: AsRef<[u8]> + 'h, B: AsRef<[u8]> + 'h>(
        &'h self,
        v4: impl Iterator<Item = &'h A> + Clone + 'h,
        v6: impl Iterator<Item = &'h B> + Clone + 'h,
    ) -> impl Iterator<Item = Piece<'h, &'h [u8]>> {
        let head = |key: u16, count: usize, len: usize| {
            let ([k1, k2], [l1, l2]) = (key.to_be_bytes(), ((count * len) as u16).to_be_bytes());
            (count > 0).then_some(Piece::Head([k1, k2, l1, l2]))
        };
        let (head4, head6) = (head(IPV4HINT, v4.clone().count(), 4), head(IPV6HINT, v6.clone().count(), 16));
        std::iter::once(Piece::Bytes(&self.before))
            .chain(head4)
            .chain(v4.map(|address| Piece::Address(address.as_ref())))
            .chain([Piece::Bytes(&self.between)])
            .chain(head6)
            .chain(v6.map(|address| Piece::Address(address.as_ref())))
            .chain([Piece::Bytes(&self.after)])
    }
}

impl<'h> Piece<'h, &'h [u8]> {
    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Piece::Bytes(bytes) | Piece::Address(bytes) => bytes,
            Piece::Head(head) => head,
        }
    }
}

/// Where the first parameter with `key` or a greater one begins.
fn start_of(rdata: &[u8], key: u16) -> usize {
    let mut at = HEAD_LEN;
    while let Some([k1, k2, l1, l2]) = rdata.get(at..at + 4) {
        if u16::from_be_bytes([*k1, *k2]) >= key {
            break;
        }
        at += 4 + usize::from(u16::from_be_bytes([*l1, *l2]));
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rdata(https: &Https, v4: &[[u8; 4]], v6: &[[u8; 16]]) -> Vec<u8> {
        let bytes: Vec<u8> = https.pieces(v4.iter(), v6.iter()).flat_map(|piece| piece.as_bytes().to_vec()).collect();
        assert_eq!(bytes.len(), https.len_with(v4.len(), v6.len()));
        bytes
    }

    #[test]
    fn hints_stand_where_their_keys_belong() {
        let https = Https::read("1 . alpn=h2 port=8443 ech=AAAA dohpath=/q{?dns}").unwrap();
        let with = rdata(&https, &[[192, 0, 2, 1], [192, 0, 2, 2]], &[[9; 16]]);
        let mut expected = b"\0\x01\0\0\x01\0\x03\x02h2\0\x03\0\x02\x20\xfb".to_vec();
        expected.extend(b"\0\x04\0\x08\xc0\0\x02\x01\xc0\0\x02\x02\0\x05\0\x03\0\0\0\0\x06\0\x10");
        expected.extend([9; 16]);
        expected.extend(b"\0\x07\0\x08/q{?dns}");
        assert_eq!(with, expected);
        let bare = Https::read("1 .").unwrap();
        assert_eq!(rdata(&bare, &[], &[]), b"\0\x01\0");
    }

    #[test]
    fn what_cannot_follow_a_region_is_refused() {
        for (text, message) in [
            ("", "`https` says nothing"),
            ("0 .", "priority 0 makes an alias, which has no hints"),
            ("1 www.example.com.", "the hints are addresses of this name, not of another target"),
            ("1 . ipv4hint=192.0.2.1", "ipv4hint and ipv6hint cannot be written here"),
            ("1 . alpn=h2 ipv6hint=2001:db8::1", "ipv4hint and ipv6hint cannot be written here"),
        ] {
            assert_eq!(Https::read(text).unwrap_err().message, message, "{text}");
        }
        assert!(Https::read("x .").is_err());
        assert!(Https::read("1 . alpn=\"h2").is_err());
        assert_eq!(Https::read("1 . alpn=h2\n2 . alpn=h3").unwrap_err().message, "more than one record");
    }
}
