//! Signing keys: one ECDSA P-256 key that signs everything in a zone (a CSK), kept in a file that all servers of the zone share.
//! A key is made by a person's command alone; nothing here ever replaces one.

use std::fmt;

use data_encoding::{BASE64, BASE64_MIME_PERMISSIVE, HEXUPPER};
use hickory_proto::dnssec::{
    Algorithm, DigestType, SigningKey, TBS,
    crypto::{Digest, EcdsaSigningKey},
};
use rustls::pki_types::PrivatePkcs8KeyDer;

use crate::wire::Name;

/// ECDSA P-256 with SHA-256 (RFC 6605).
const ALGORITHM: u8 = 13;
/// Zone key and secure entry point (RFC 4034 §2.1.1, RFC 3757).
const FLAGS: u16 = 257;
/// Always 3 (RFC 4034 §2.1.2).
const PROTOCOL: u8 = 3;
/// SHA-256 (RFC 4509).
const DIGEST: u8 = 2;

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";
/// What stands before the zone's name in a key file.
const ZONE_LINE: &str = "zone:";

/// Why a key file cannot be used. Never says what is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no PEM block.
    #[error("holds no `{BEGIN}` block")]
    NoKey,
    /// The block is not what it says.
    #[error("holds a key that is not ECDSA P-256 in PKCS #8")]
    NotThisKind,
    /// Made for another zone.
    #[error("holds the key of the zone {0}")]
    OtherZone(String),
    /// The system's random source failed.
    #[error("no key can be made: the system's random source failed")]
    NoRandom,
}

/// One signing key.
pub struct KeyPair {
    signing: EcdsaSigningKey,
    dnskey: Vec<u8>,
    tag: u16,
}

/// The keys that sign a zone; all of them sign all of it.
pub struct ZoneKeys {
    pairs: Vec<KeyPair>,
    is_announced: bool,
}

impl KeyPair {
    /// Reads a key file. Text before the PEM block is for people, but for a line `zone: NAME`, which must name `zone`.
    ///
    /// # Errors
    /// When it holds no such key, or that of another zone.
    pub fn read(text: &str, zone: &Name) -> Result<KeyPair, KeyError> {
        let (head, rest) = text.split_once(BEGIN).ok_or(KeyError::NoKey)?;
        let (body, _) = rest.split_once(END).ok_or(KeyError::NoKey)?;
        let named = head.lines().find_map(|line| line.trim().strip_prefix(ZONE_LINE)).map(str::trim);
        if let Some(named) = named
            && named.parse::<Name>().ok().as_ref() != Some(zone)
        {
            return Err(KeyError::OtherZone(named.to_string()));
        }
        let der = BASE64_MIME_PERMISSIVE.decode(body.trim().as_bytes()).map_err(|_| KeyError::NotThisKind)?;
        KeyPair::from_der(der).ok_or(KeyError::NotThisKind)
    }

    /// Makes a new key; returns it with the text of its file.
    ///
    /// # Errors
    /// When the system's random source fails.
    pub fn generate(zone: &Name) -> Result<(KeyPair, String), KeyError> {
        let der = EcdsaSigningKey::generate_pkcs8(Algorithm::ECDSAP256SHA256).map_err(|_| KeyError::NoRandom)?;
        let bytes = der.secret_pkcs8_der().to_vec();
        let mut text = format!(
            "DNSSEC signing key: keep it secret, keep a copy, and give the same file to every server of the zone.\n\
             {ZONE_LINE} {zone}\n{BEGIN}\n"
        );
        let base64 = BASE64.encode(&bytes);
        for line in base64.as_bytes().chunks(64) {
            text.push_str(std::str::from_utf8(line).expect("Base64 is ASCII"));
            text.push('\n');
        }
        text.push_str(END);
        text.push('\n');
        let pair = KeyPair::from_der(bytes).ok_or(KeyError::NoRandom)?;
        Ok((pair, text))
    }

    fn from_der(der: Vec<u8>) -> Option<KeyPair> {
        let signing = EcdsaSigningKey::from_pkcs8(&PrivatePkcs8KeyDer::from(der), Algorithm::ECDSAP256SHA256).ok()?;
        let public = signing.to_public_key().ok()?.into_inner();
        let mut dnskey = FLAGS.to_be_bytes().to_vec();
        dnskey.extend([PROTOCOL, ALGORITHM]);
        dnskey.extend(public);
        let tag = key_tag(&dnskey);
        Some(KeyPair { signing, dnskey, tag })
    }

    /// Key tag (RFC 4034 appendix B): what RRSIG and DS records call the key by.
    pub fn tag(&self) -> u16 {
        self.tag
    }

    /// Data of its DNSKEY record, and of its CDNSKEY record (RFC 7344).
    pub fn dnskey(&self) -> &[u8] {
        &self.dnskey
    }

    /// Data of its DS record in the zone above `zone` (RFC 4034 §5.1.4), and of its CDS record.
    pub fn ds(&self, zone: &Name) -> Vec<u8> {
        let signed = [zone.as_wire(), &self.dnskey].concat();
        let digest = Digest::new(&signed, DigestType::SHA256).expect("SHA-256 is built in");
        let mut ds = self.tag.to_be_bytes().to_vec();
        ds.extend([ALGORITHM, DIGEST]);
        ds.extend(digest.as_ref());
        ds
    }

    /// Its DS data as zone files write it.
    pub fn ds_text(&self, zone: &Name) -> String {
        format!("{} {ALGORITHM} {DIGEST} {}", self.tag, HEXUPPER.encode(&self.ds(zone)[4..]))
    }

    /// Its DNSKEY data as zone files write it.
    pub fn dnskey_text(&self) -> String {
        format!("{FLAGS} {PROTOCOL} {ALGORITHM} {}", BASE64.encode(&self.dnskey[4..]))
    }

    /// The signature of `data`: 64 bytes (RFC 6605 §4).
    pub(super) fn sign(&self, data: &[u8]) -> Vec<u8> {
        self.signing
            .sign(&TBS::from(data))
            .expect("signing fails only without a random source, and then nothing starts")
    }
}

impl ZoneKeys {
    /// The keys of one zone, that which the zone above is to know first; at least one. `is_announced`: the zone above may know it.
    pub fn new(pairs: Vec<KeyPair>, is_announced: bool) -> ZoneKeys {
        ZoneKeys { pairs, is_announced }
    }

    /// False while the zone above must not know of them, because not all servers sign yet, or soon none will.
    pub fn is_announced(&self) -> bool {
        self.is_announced
    }

    /// All of them.
    pub fn pairs(&self) -> &[KeyPair] {
        &self.pairs
    }

    /// The key that the zone above is to know.
    pub fn main(&self) -> &KeyPair {
        &self.pairs[0]
    }
}

impl PartialEq for KeyPair {
    fn eq(&self, other: &Self) -> bool {
        self.dnskey == other.dnskey
    }
}

impl Eq for KeyPair {}

impl PartialEq for ZoneKeys {
    fn eq(&self, other: &Self) -> bool {
        self.pairs == other.pairs && self.is_announced == other.is_announced
    }
}

impl Eq for ZoneKeys {}

impl fmt::Debug for ZoneKeys {
    /// Tags alone: what is secret shows nowhere.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pairs.iter().map(KeyPair::tag)).finish()
    }
}

/// RFC 4034 appendix B.
fn key_tag(dnskey: &[u8]) -> u16 {
    let words = dnskey.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let sum: u32 = words.sum();
    (sum + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Name {
        "geo.example.com".parse().unwrap()
    }

    #[test]
    fn a_key_is_read_back_from_its_file() {
        let (made, text) = KeyPair::generate(&zone()).unwrap();
        let read = KeyPair::read(&text, &zone()).unwrap();
        assert!(read == made);
        assert_eq!((read.tag(), read.dnskey_text()), (made.tag(), made.dnskey_text()));
        assert_eq!(read.dnskey().len(), 4 + 64);
        let bare = &text[text.find(BEGIN).unwrap()..];
        assert!(KeyPair::read(bare, &zone()).unwrap() == made, "other programs' PEM files have no zone line");
        assert!(KeyPair::read(&text.replace('\n', "\r\n"), &zone()).unwrap() == made);
    }

    #[test]
    fn what_is_no_key_of_the_zone_is_refused() {
        let (_, text) = KeyPair::generate(&zone()).unwrap();
        let other: Name = "example.net".parse().unwrap();
        let cases = [
            (KeyPair::read(&text, &other), KeyError::OtherZone("geo.example.com.".into())),
            (KeyPair::read("", &zone()), KeyError::NoKey),
            (KeyPair::read(&text.replace(END, ""), &zone()), KeyError::NoKey),
            (KeyPair::read(&format!("{BEGIN}\nAAAA\n{END}"), &zone()), KeyError::NotThisKind),
            (KeyPair::read(&format!("{BEGIN}\n%%%%\n{END}"), &zone()), KeyError::NotThisKind),
        ];
        for (got, expected) in cases {
            assert_eq!(got.err(), Some(expected));
        }
    }

    #[test]
    fn tag_and_ds_are_those_of_rfc_6605() {
        // Section 6.1: the P-256 example.
        let public = BASE64
            .decode(b"GojIhhXUN/u4v54ZQqGSnyhWJwaubCvTmeexv7bR6edbkrSqQpF64cYbcB7wNcP+e+MAnLr+Wi9xMWyQLc8NAA==")
            .unwrap();
        let mut dnskey = vec![1, 1, 3, 13];
        dnskey.extend(public);
        assert_eq!(key_tag(&dnskey), 55648);
        let (pair, _) = KeyPair::generate(&zone()).unwrap();
        let pair = KeyPair { tag: key_tag(&dnskey), dnskey, ..pair };
        assert_eq!(
            pair.ds_text(&"example.net".parse().unwrap()),
            "55648 13 2 B4C8C1FE2E7477127B27115656AD6256F424625BF5C1E2770CE6D6E37DF61D17"
        );
    }
}
