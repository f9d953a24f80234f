//! Record type numbers and their mnemonics (the registry of RFC 6895).

use std::fmt;

/// A record's IPv4 address.
pub const A: u16 = 1;
/// Delegation and apex name servers.
pub const NS: u16 = 2;
/// Canonical name.
pub const CNAME: u16 = 5;
/// Start of authority.
pub const SOA: u16 = 6;
/// A key of old (RFC 2535), allowed beside a CNAME by RFC 2181 §10.1.
pub const KEY: u16 = 25;
/// IPv6 address.
pub const AAAA: u16 = 28;
/// Renaming of a whole subtree.
pub const DNAME: u16 = 39;
/// Delegation signer.
pub const DS: u16 = 43;
/// Signature.
pub const RRSIG: u16 = 46;
/// Next secure name.
pub const NSEC: u16 = 47;

/// Every mnemonic, by number. Those that [`is_meta`] are here so that their names are understood before they are refused.
const MNEMONICS: &[(u16, &str)] = &[
    (1, "A"),
    (2, "NS"),
    (3, "MD"),
    (4, "MF"),
    (5, "CNAME"),
    (6, "SOA"),
    (7, "MB"),
    (8, "MG"),
    (9, "MR"),
    (10, "NULL"),
    (11, "WKS"),
    (12, "PTR"),
    (13, "HINFO"),
    (14, "MINFO"),
    (15, "MX"),
    (16, "TXT"),
    (17, "RP"),
    (18, "AFSDB"),
    (19, "X25"),
    (20, "ISDN"),
    (21, "RT"),
    (22, "NSAP"),
    (23, "NSAP-PTR"),
    (24, "SIG"),
    (25, "KEY"),
    (26, "PX"),
    (27, "GPOS"),
    (28, "AAAA"),
    (29, "LOC"),
    (30, "NXT"),
    (31, "EID"),
    (32, "NIMLOC"),
    (33, "SRV"),
    (34, "ATMA"),
    (35, "NAPTR"),
    (36, "KX"),
    (37, "CERT"),
    (38, "A6"),
    (39, "DNAME"),
    (40, "SINK"),
    (41, "OPT"),
    (42, "APL"),
    (43, "DS"),
    (44, "SSHFP"),
    (45, "IPSECKEY"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (48, "DNSKEY"),
    (49, "DHCID"),
    (50, "NSEC3"),
    (51, "NSEC3PARAM"),
    (52, "TLSA"),
    (53, "SMIMEA"),
    (55, "HIP"),
    (56, "NINFO"),
    (57, "RKEY"),
    (58, "TALINK"),
    (59, "CDS"),
    (60, "CDNSKEY"),
    (61, "OPENPGPKEY"),
    (62, "CSYNC"),
    (63, "ZONEMD"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (66, "DSYNC"),
    (99, "SPF"),
    (104, "NID"),
    (105, "L32"),
    (106, "L64"),
    (107, "LP"),
    (108, "EUI48"),
    (109, "EUI64"),
    (128, "NXNAME"),
    (249, "TKEY"),
    (250, "TSIG"),
    (251, "IXFR"),
    (252, "AXFR"),
    (253, "MAILB"),
    (254, "MAILA"),
    (255, "ANY"),
    (256, "URI"),
    (257, "CAA"),
    (258, "AVC"),
    (259, "DOA"),
    (260, "AMTRELAY"),
    (261, "RESINFO"),
    (262, "WALLET"),
    (32768, "TA"),
    (32769, "DLV"),
];

/// The number of a mnemonic or of `TYPEnnn` (RFC 3597 §5), in any case.
pub fn number(text: &str) -> Option<u16> {
    let known = MNEMONICS.iter().find(|(_, name)| name.eq_ignore_ascii_case(text)).map(|&(n, _)| n);
    known.or_else(|| {
        let digits = text.get(..4).filter(|p| p.eq_ignore_ascii_case("TYPE")).map(|_| &text[4..])?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
    })
}

/// All mnemonics, for suggestions.
pub fn mnemonics() -> impl Iterator<Item = &'static str> {
    MNEMONICS.iter().map(|&(_, name)| name)
}

/// True for types that ask or control and can never stand in a zone: 0, OPT, 65535 and the range 128 to 255 (RFC 6895 §3.1).
pub fn is_meta(rtype: u16) -> bool {
    matches!(rtype, 0 | 41 | 128..=255 | 65535)
}

/// Shows a type number as its mnemonic, else as `TYPEnnn`.
pub struct Shown(pub u16);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match MNEMONICS.binary_search_by_key(&self.0, |&(n, _)| n) {
            Ok(i) => f.write_str(MNEMONICS[i].1),
            Err(_) => write!(f, "TYPE{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mnemonics_are_in_order_and_read_back() {
        assert!(MNEMONICS.windows(2).all(|w| w[0].0 < w[1].0));
        for &(n, name) in MNEMONICS {
            assert_eq!(number(name), Some(n));
            assert_eq!(number(&name.to_lowercase()), Some(n));
            assert_eq!(Shown(n).to_string(), name);
        }
    }

    #[test]
    fn unknown_types_have_numbers() {
        for (text, expected) in [
            ("TYPE65280", Some(65280)),
            ("type1", Some(1)),
            ("TYPE65536", None),
            ("TYPE", None),
            ("TYPE+1", None),
            ("TYPE1x", None),
            ("ANAME", None),
            ("é", None),
            ("TYPé", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
        assert_eq!(Shown(65280).to_string(), "TYPE65280");
    }
}
