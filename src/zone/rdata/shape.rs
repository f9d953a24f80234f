//! What the data of each record type consists of, field by field. Text and wire form are both read by this one table.

use super::types;

/// One field.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// What people call it.
    pub what: &'static str,
    /// How it is written and encoded.
    pub kind: Kind,
}

/// Names for numbers of one byte.
pub type Codes = &'static [(&'static str, u16)];

/// How a field is written and encoded. Integers are in network byte order.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// One byte, decimal.
    U8,
    /// Two bytes, decimal.
    U16,
    /// Four bytes, decimal.
    U32,
    /// Four bytes: seconds, units allowed (`1h30m`).
    Seconds,
    /// Four bytes: `YYYYMMDDHHMMSS` in UTC, or seconds since 1970 (RFC 4034 §3.2).
    Time,
    /// One byte, decimal or by name.
    Code8(Codes),
    /// Two bytes, decimal or by name.
    Code16(Codes),
    /// Two bytes: a record type.
    Type,
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// A domain name, uncompressed.
    Name,
    /// A character-string of at most 255 bytes (RFC 1035 §3.3).
    Text,
    /// At least one character-string.
    Texts,
    /// A character-string without length byte that fills the rest.
    LongText,
    /// A CAA property tag (RFC 8659 §4.1).
    Tag,
    /// Hexadecimal up to the end, at least one byte.
    Hex,
    /// Base64 up to the end, at least one byte.
    Base64,
    /// Base64 up to the end, or nothing.
    Base64OrNothing,
    /// `-` or hexadecimal with a length byte (RFC 5155 §3.3).
    Salt,
    /// Base32 with the extended hex alphabet and a length byte (RFC 5155 §3.3).
    Hash,
    /// A list of record types (RFC 4034 §4.1.2).
    Bitmap,
    /// So many bytes as `00-00-5e`.
    Eui(usize),
    /// Eight bytes as `0014:4fff:ff20:ee64` (RFC 6742).
    Groups,
    /// All of a LOC record (RFC 1876).
    Loc,
    /// Service parameters (RFC 9460 §2.1).
    SvcParams,
    /// Address prefixes (RFC 3123).
    Apl,
    /// All of an IPSECKEY record (RFC 4025).
    Ipseckey,
    /// All of an AMTRELAY record (RFC 8777).
    Amtrelay,
    /// All of a HIP record (RFC 8005).
    Hip,
}

const fn f(what: &'static str, kind: Kind) -> Field {
    Field { what, kind }
}

/// DNSSEC algorithm mnemonics (RFC 4034 appendix A.1 and its registry).
pub const ALGORITHMS: Codes = &[
    ("RSAMD5", 1),
    ("DH", 2),
    ("DSA", 3),
    ("RSASHA1", 5),
    ("DSA-NSEC3-SHA1", 6),
    ("RSASHA1-NSEC3-SHA1", 7),
    ("RSASHA256", 8),
    ("RSASHA512", 10),
    ("ECC-GOST", 12),
    ("ECDSAP256SHA256", 13),
    ("ECDSAP384SHA384", 14),
    ("ED25519", 15),
    ("ED448", 16),
    ("INDIRECT", 252),
    ("PRIVATEDNS", 253),
    ("PRIVATEOID", 254),
];

/// Certificate types (RFC 4398 §2.1).
const CERTIFICATES: Codes = &[
    ("PKIX", 1),
    ("SPKI", 2),
    ("PGP", 3),
    ("IPKIX", 4),
    ("ISPKI", 5),
    ("IPGP", 6),
    ("ACPKIX", 7),
    ("IACPKIX", 8),
    ("URI", 253),
    ("OID", 254),
];

/// TLSA acronyms (RFC 7218).
const USAGES: Codes = &[("PKIX-TA", 0), ("PKIX-EE", 1), ("DANE-TA", 2), ("DANE-EE", 3), ("PrivCert", 255)];
const SELECTORS: Codes = &[("Cert", 0), ("SPKI", 1), ("PrivSel", 255)];
const MATCHINGS: Codes = &[("Full", 0), ("SHA2-256", 1), ("SHA2-512", 2), ("PrivMatch", 255)];

/// DSYNC schemes (RFC 9859).
const SCHEMES: Codes = &[("NOTIFY", 1)];

const ADDRESS: &[Field] = &[f("address", Kind::Ipv4)];
const ADDRESS6: &[Field] = &[f("address", Kind::Ipv6)];
const TARGET: &[Field] = &[f("name", Kind::Name)];
const TEXTS: &[Field] = &[f("text", Kind::Texts)];
const PREFERRED_NAME: &[Field] = &[f("preference", Kind::U16), f("name", Kind::Name)];
const TWO_NAMES: &[Field] = &[f("first name", Kind::Name), f("second name", Kind::Name)];
const LOCATOR64: &[Field] = &[f("preference", Kind::U16), f("64-bit value", Kind::Groups)];
const SOA: &[Field] = &[
    f("primary server", Kind::Name),
    f("contact", Kind::Name),
    f("serial", Kind::U32),
    f("refresh", Kind::Seconds),
    f("retry", Kind::Seconds),
    f("expire", Kind::Seconds),
    f("minimum", Kind::Seconds),
];
const SRV: &[Field] =
    &[f("priority", Kind::U16), f("weight", Kind::U16), f("port", Kind::U16), f("target", Kind::Name)];
const NAPTR: &[Field] = &[
    f("order", Kind::U16),
    f("preference", Kind::U16),
    f("flags", Kind::Text),
    f("services", Kind::Text),
    f("regular expression", Kind::Text),
    f("replacement", Kind::Name),
];
const SIGNATURE: &[Field] = &[
    f("type covered", Kind::Type),
    f("algorithm", Kind::Code8(ALGORITHMS)),
    f("labels", Kind::U8),
    f("original TTL", Kind::Seconds),
    f("expiration", Kind::Time),
    f("inception", Kind::Time),
    f("key tag", Kind::U16),
    f("signer", Kind::Name),
    f("signature", Kind::Base64),
];
const DS: &[Field] = &[
    f("key tag", Kind::U16),
    f("algorithm", Kind::Code8(ALGORITHMS)),
    f("digest type", Kind::U8),
    f("digest", Kind::Hex),
];
const DNSKEY: &[Field] = &[
    f("flags", Kind::U16),
    f("protocol", Kind::U8),
    f("algorithm", Kind::Code8(ALGORITHMS)),
    f("public key", Kind::Base64),
];
const KEY: &[Field] = &[
    f("flags", Kind::U16),
    f("protocol", Kind::U8),
    f("algorithm", Kind::Code8(ALGORITHMS)),
    f("public key", Kind::Base64OrNothing),
];
const CERT: &[Field] = &[
    f("certificate type", Kind::Code16(CERTIFICATES)),
    f("key tag", Kind::U16),
    f("algorithm", Kind::Code8(ALGORITHMS)),
    f("certificate", Kind::Base64),
];
const SSHFP: &[Field] = &[f("algorithm", Kind::U8), f("fingerprint type", Kind::U8), f("fingerprint", Kind::Hex)];
const TLSA: &[Field] = &[
    f("usage", Kind::Code8(USAGES)),
    f("selector", Kind::Code8(SELECTORS)),
    f("matching type", Kind::Code8(MATCHINGS)),
    f("association data", Kind::Hex),
];
const NSEC3: &[Field] = &[
    f("hash algorithm", Kind::U8),
    f("flags", Kind::U8),
    f("iterations", Kind::U16),
    f("salt", Kind::Salt),
    f("next hash", Kind::Hash),
    f("types", Kind::Bitmap),
];
const NSEC3PARAM: &[Field] =
    &[f("hash algorithm", Kind::U8), f("flags", Kind::U8), f("iterations", Kind::U16), f("salt", Kind::Salt)];
const CSYNC: &[Field] = &[f("SOA serial", Kind::U32), f("flags", Kind::U16), f("types", Kind::Bitmap)];
const ZONEMD: &[Field] =
    &[f("serial", Kind::U32), f("scheme", Kind::U8), f("hash algorithm", Kind::U8), f("digest", Kind::Hex)];
const SVCB: &[Field] = &[f("priority", Kind::U16), f("target", Kind::Name), f("parameters", Kind::SvcParams)];
const DSYNC: &[Field] =
    &[f("type", Kind::Type), f("scheme", Kind::Code8(SCHEMES)), f("port", Kind::U16), f("target", Kind::Name)];
const URI: &[Field] = &[f("priority", Kind::U16), f("weight", Kind::U16), f("target", Kind::LongText)];
const CAA: &[Field] = &[f("flags", Kind::U8), f("tag", Kind::Tag), f("value", Kind::LongText)];

/// The fields of a type's data; `None` for types whose data is opaque here and written as `\# length hex`.
pub fn fields(rtype: u16) -> Option<&'static [Field]> {
    Some(match rtype {
        types::A => ADDRESS,
        types::AAAA => ADDRESS6,
        // NS, MD, MF, CNAME, MB, MG, MR, PTR, NSAP-PTR, DNAME
        2..=5 | 7..=9 | 12 | 23 | 39 => TARGET,
        types::SOA => SOA,
        13 => const { &[f("processor", Kind::Text), f("system", Kind::Text)] },
        // MINFO, RP, TALINK
        14 | 17 | 58 => TWO_NAMES,
        // MX, AFSDB, RT, KX, LP
        15 | 18 | 21 | 36 | 107 => PREFERRED_NAME,
        // TXT, ISDN, NINFO, SPF, AVC, RESINFO, WALLET
        16 | 20 | 56 | 99 | 258 | 261 | 262 => TEXTS,
        19 => const { &[f("address", Kind::Text)] },
        24 | types::RRSIG => SIGNATURE,
        types::KEY => KEY,
        26 => const { &[f("preference", Kind::U16), f("first name", Kind::Name), f("second name", Kind::Name)] },
        27 => const { &[f("longitude", Kind::Text), f("latitude", Kind::Text), f("altitude", Kind::Text)] },
        29 => const { &[f("latitude, longitude and altitude", Kind::Loc)] },
        33 => SRV,
        35 => NAPTR,
        37 => CERT,
        42 => const { &[f("prefixes", Kind::Apl)] },
        // DS, CDS, TA, DLV
        43 | 59 | 32768 | 32769 => DS,
        44 => SSHFP,
        45 => const { &[f("precedence, gateway type, algorithm, gateway and key", Kind::Ipseckey)] },
        types::NSEC => const { &[f("next name", Kind::Name), f("types", Kind::Bitmap)] },
        // DNSKEY, RKEY, CDNSKEY
        48 | 57 | 60 => DNSKEY,
        49 | 61 => const { &[f("data", Kind::Base64)] }, // DHCID, OPENPGPKEY
        50 => NSEC3,
        51 => NSEC3PARAM,
        52 | 53 => TLSA, // TLSA, SMIMEA
        55 => const { &[f("algorithm, identity tag, key and servers", Kind::Hip)] },
        62 => CSYNC,
        63 => ZONEMD,
        64 | 65 => SVCB, // SVCB, HTTPS
        66 => DSYNC,
        104 | 106 => LOCATOR64, // NID, L64
        105 => const { &[f("preference", Kind::U16), f("32-bit locator", Kind::Ipv4)] },
        108 => const { &[f("address", Kind::Eui(6))] },
        109 => const { &[f("address", Kind::Eui(8))] },
        256 => URI,
        257 => CAA,
        260 => const { &[f("precedence, D bit, relay type and relay", Kind::Amtrelay)] },
        _ => return None,
    })
}

/// How a type's data is written, in words: `preference, name`.
pub fn usage(rtype: u16) -> Option<String> {
    fields(rtype).map(|fields| fields.iter().map(|field| field.what).collect::<Vec<_>>().join(", "))
}
