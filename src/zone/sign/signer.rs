//! Signatures over RRsets (RFC 4034 §3), for one zone and one moment.

use std::{hash::Hasher, sync::Arc};

use siphasher::sip::SipHasher24;

use super::keys::ZoneKeys;
use crate::{
    wire::{Name, class, rtype},
    zone::fragment::{Fragment, FragmentBuilder},
};

/// How long signatures hold: two weeks, so that a server that nobody looks after for a holiday's length still answers validly,
/// and an answer recorded by somebody cannot be played back for long.
const VALID_S: u64 = 14 * DAY_S;
/// Signatures hold from this long before they are made: validators' clocks may be behind, and ours ahead.
const BACKDATED_S: u64 = DAY_S;
/// Each RRset's signatures hold up to this much longer, so that not all of a zone run out of caches at one instant.
const EXPIRY_JITTER_S: u64 = DAY_S;
/// A zone is signed anew after this time, and
const REFRESH_S: u64 = 5 * DAY_S;
/// up to this much later: zones do not all sign at one instant, nor do servers that last signed in different seconds. A week is
/// left then.
const REFRESH_JITTER_S: u64 = 2 * DAY_S;
/// A clock that stands so much before the moment of signing was set back: what was signed may not be valid yet.
const CLOCK_BACK_S: u64 = 3600;

const DAY_S: u64 = 86_400;

/// A zone's keys at the moment of signing.
#[derive(Debug)]
pub struct Signer {
    apex: Name,
    keys: Arc<ZoneKeys>,
    made_s: u64,
    refresh_s: u64,
}

impl Signer {
    /// To sign the zone of `apex` at `now_s` (Unix time).
    pub fn new(apex: &Name, keys: Arc<ZoneKeys>, now_s: u64) -> Signer {
        let refresh_s = now_s + REFRESH_S + spread(apex, 0, now_s) % REFRESH_JITTER_S;
        Signer { apex: apex.clone(), keys, made_s: now_s, refresh_s }
    }

    /// True when it is time to sign anew: a part of the validity has passed, or the clock was set back so far that the
    /// signatures may lie in the future.
    pub fn is_due(&self, now_s: u64) -> bool {
        now_s >= self.refresh_s || now_s + CLOCK_BACK_S < self.made_s
    }

    /// When the first of the signatures runs out (Unix time).
    pub fn expires_s(&self) -> u64 {
        self.made_s + VALID_S
    }

    /// RRSIG data for an RRset, one for each key. `rdatas` are in canonical form and order (RFC 4034 §6), names in lower case;
    /// an `owner` that begins with `*` is the wildcard itself (§3.1.3: its signature serves every name below it).
    pub fn sign<D: AsRef<[u8]>>(&self, owner: &Name, rtype: u16, ttl_s: u32, rdatas: &[D]) -> Vec<Vec<u8>> {
        let labels = owner.label_count() - usize::from(owner.is_wildcard());
        let expires_s = self.expires_s() + spread(owner, rtype, self.made_s) % EXPIRY_JITTER_S;
        self.keys
            .pairs()
            .iter()
            .map(|pair| {
                let mut rrsig = rtype.to_be_bytes().to_vec();
                rrsig.extend([pair.dnskey()[3], labels as u8]);
                rrsig.extend(ttl_s.to_be_bytes());
                // Times wrap around like serial numbers (§3.1.5).
                rrsig.extend((expires_s as u32).to_be_bytes());
                rrsig.extend((self.made_s.saturating_sub(BACKDATED_S) as u32).to_be_bytes());
                rrsig.extend(pair.tag().to_be_bytes());
                rrsig.extend(self.apex.as_wire());
                let mut signed = rrsig.clone();
                for rdata in rdatas {
                    let rdata = rdata.as_ref();
                    signed.extend(owner.as_wire());
                    signed.extend(rtype.to_be_bytes());
                    signed.extend(class::IN.to_be_bytes());
                    signed.extend(ttl_s.to_be_bytes());
                    signed.extend((rdata.len() as u16).to_be_bytes());
                    signed.extend(rdata);
                }
                rrsig.extend(pair.sign(&signed));
                rrsig
            })
            .collect()
    }

    /// As [`Signer::sign`], ready for replies: the records have the RRset's TTL.
    pub fn fragment<D: AsRef<[u8]>>(&self, owner: &Name, rtype: u16, ttl_s: u32, rdatas: &[D]) -> Fragment {
        let mut builder = FragmentBuilder::new(&self.apex);
        for rrsig in self.sign(owner, rtype, ttl_s, rdatas) {
            builder.push(rtype::RRSIG, ttl_s, &rrsig);
        }
        builder.finish()
    }
}

/// A number that differs by name, type and time, to spread things by.
fn spread(name: &Name, rtype: u16, now_s: u64) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(now_s, u64::from(rtype));
    hasher.write(name.as_wire());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zone::sign::KeyPair;

    const NOW_S: u64 = 1_800_000_000;

    fn signer() -> Signer {
        let apex: Name = "example.com".parse().unwrap();
        let (pair, _) = KeyPair::generate(&apex).unwrap();
        Signer::new(&apex, Arc::new(ZoneKeys::new(vec![pair], true)), NOW_S)
    }

    #[test]
    fn signatures_are_renewed_long_before_they_expire_and_when_the_clock_is_set_back() {
        let signer = signer();
        assert!(!signer.is_due(NOW_S));
        assert!(!signer.is_due(NOW_S + REFRESH_S - 1));
        assert!(signer.is_due(NOW_S + REFRESH_S + REFRESH_JITTER_S));
        assert!(signer.expires_s() - (NOW_S + REFRESH_S + REFRESH_JITTER_S) >= 6 * DAY_S);
        assert!(!signer.is_due(NOW_S - CLOCK_BACK_S));
        assert!(signer.is_due(NOW_S - CLOCK_BACK_S - 1));
    }

    #[test]
    fn a_signature_says_what_it_covers() {
        let signer = signer();
        let owner: Name = "*.app.example.com".parse().unwrap();
        let rrsig = signer.sign(&owner, rtype::A, 60, &[[192, 0, 2, 1]]).remove(0);
        assert_eq!(
            rrsig[..8],
            [0, 1, 13, 3, 0, 0, 0, 60],
            "type, algorithm, three labels without the star, original TTL"
        );
        let number = |at: usize| u64::from(u32::from_be_bytes(rrsig[at..at + 4].try_into().unwrap()));
        assert!((signer.expires_s()..signer.expires_s() + EXPIRY_JITTER_S).contains(&number(8)));
        assert_eq!(number(12), NOW_S - BACKDATED_S);
        assert_eq!(rrsig.len(), 18 + 13 + 64);
    }

    #[test]
    fn owners_expire_at_different_times() {
        let signer = signer();
        let expiry = |owner: &str| {
            let owner = owner.parse::<Name>().unwrap();
            signer.sign(&owner, rtype::A, 60, &[[192, 0, 2, 1]])[0][8..12].to_vec()
        };
        assert_ne!(expiry("a.example.com"), expiry("b.example.com"));
    }
}
