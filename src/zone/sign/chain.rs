//! The NSEC chain (RFC 4034 §4): every name that has records of this zone's own, in canonical order, each with its types and the
//! name after it. What lies between two of them does not exist.

use super::signer::Signer;
use crate::{
    wire::{Name, QName, rtype},
    zone::fragment::{FragmentBuilder, OwnedFragment},
};

/// A name below the apex as bytes that sort as RFC 4034 §6.1 orders names: labels from the right, each with its zero and one
/// bytes escaped and a zero after it. The key of a name begins with the key of each of its ancestors.
#[derive(Clone)]
pub struct SortKey {
    bytes: [u8; KEY_LEN_MAX],
    len: usize,
}

/// Each byte of a name at most doubled.
const KEY_LEN_MAX: usize = 512;

impl SortKey {
    /// Of the rightmost `labels` labels of `name`, without the apex's.
    pub fn new(name: &QName, labels: usize, apex_labels: usize) -> SortKey {
        let mut key = SortKey { bytes: [0; KEY_LEN_MAX], len: 0 };
        for n in apex_labels..labels {
            key.push(name.label_from_right(n));
        }
        key
    }

    /// The key of the child with this label.
    pub fn push(&mut self, label: &[u8]) {
        for &byte in label {
            if byte <= 1 {
                self.put(1);
            }
            self.put(if byte <= 1 { byte + 1 } else { byte });
        }
        self.put(0);
    }

    fn put(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// A zone's chain.
pub struct Chain {
    keys: Box<[u8]>,
    ends: Box<[u32]>,
    records: Box<[OwnedFragment]>,
}

/// A name of the chain and the types there, NSEC and RRSIG not among them.
pub type Entry = (Name, Vec<u16>);

/// A name of the chain with the data of its NSEC record.
pub type Nsec = (Name, Vec<u8>);

/// NSEC data for each of `entries`, the apex among them, in canonical order.
pub fn nsecs(apex: &Name, mut entries: Vec<Entry>) -> Vec<Nsec> {
    let apex_labels = apex.label_count();
    entries.sort_by_cached_key(|(name, _)| key_of(name, apex_labels).as_bytes().to_vec());
    let next: Vec<Name> = entries.iter().map(|(name, _)| name.clone()).skip(1).chain([apex.clone()]).collect();
    let data = |(next, (name, types)): (Name, Entry)| {
        let rdata = [next.as_wire(), &bitmap(types.into_iter().chain([rtype::RRSIG, rtype::NSEC]).collect())].concat();
        (name, rdata)
    };
    next.into_iter().zip(entries).map(data).collect()
}

fn key_of(name: &Name, apex_labels: usize) -> SortKey {
    let name = QName::from_name(name);
    SortKey::new(&name, name.label_count(), apex_labels)
}

/// The type bitmap of RFC 4034 §4.1.2.
fn bitmap(mut types: Vec<u16>) -> Vec<u8> {
    types.sort_unstable();
    let mut out = Vec::new();
    for window in types.chunk_by(|a, b| a >> 8 == b >> 8) {
        let mut bits = [0u8; 32];
        for rtype in window {
            bits[usize::from(rtype & 0xff) / 8] |= 0x80 >> (rtype & 7);
        }
        let len = 1 + usize::from(window[window.len() - 1] & 0xff) / 8;
        out.extend([(window[0] >> 8) as u8, len as u8]);
        out.extend(&bits[..len]);
    }
    out
}

impl Chain {
    /// Signs and encodes `nsecs` (from [`nsecs()`]), whose records have this TTL (RFC 9077).
    pub fn new(apex: &Name, nsecs: &[Nsec], ttl_s: u32, signer: &Signer) -> Chain {
        let apex_labels = apex.label_count();
        let (mut keys, mut ends, mut records) = (Vec::new(), Vec::new(), Vec::new());
        for (owner, rdata) in nsecs {
            keys.extend(key_of(owner, apex_labels).as_bytes());
            ends.push(keys.len() as u32);
            let mut builder = FragmentBuilder::new(apex);
            builder.push_owned(owner, rtype::NSEC, ttl_s, rdata);
            let rrsigs = signer.sign(owner, rtype::NSEC, ttl_s, &[rdata]);
            for rrsig in &rrsigs {
                builder.push_owned(owner, rtype::RRSIG, ttl_s, rrsig);
            }
            records.push(OwnedFragment::new(builder, 1 + rrsigs.len() as u16));
        }
        Chain { keys: keys.into(), ends: ends.into(), records: records.into() }
    }

    /// The NSEC record that matches a name, or else the one that covers it (the last that does not come after it), with its
    /// signatures.
    pub fn find(&self, key: &SortKey) -> &OwnedFragment {
        let (mut low, mut high) = (0, self.ends.len());
        while low < high {
            let middle = (low + high) / 2;
            if self.key(middle) <= key.as_bytes() { low = middle + 1 } else { high = middle }
        }
        &self.records[low.saturating_sub(1)] // the apex, whose key is empty, comes first
    }

    fn key(&self, n: usize) -> &[u8] {
        let start = n.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.keys[start..self.ends[n] as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_rfc_4034_orders_them() {
        // Section 6.1, in order.
        let names = [
            "example",
            "a.example",
            "yljkjljk.a.example",
            "Z.a.example",
            "zABC.a.EXAMPLE",
            "z.example",
            "\\001.z.example",
            "*.z.example",
            "\\200.z.example",
        ];
        let keys: Vec<Vec<u8>> =
            names.iter().map(|name| key_of(&name.parse().unwrap(), 1).as_bytes().to_vec()).collect();
        assert!(keys.is_sorted(), "{keys:?}");
        let label = |bytes: &str| key_of(&format!("{bytes}.example").parse().unwrap(), 1).as_bytes().to_vec();
        assert!(label("\\000") < label("\\000\\000"));
        assert!(label("\\000\\000") < label("\\001"));
        assert!(label("\\001") < label("\\001\\000"));
        assert!(label("\\001\\255") < label("\\002"));
        let longest = format!("{0}.{0}.{0}.{1}", "\\000".repeat(63), "\\001".repeat(61));
        assert!(key_of(&longest.parse().unwrap(), 0).len < KEY_LEN_MAX);
    }

    #[test]
    fn a_bitmap_has_the_windows_that_it_needs() {
        // Section 4.3: A, MX, RRSIG, NSEC and TYPE1234.
        let mut expected = vec![0, 6, 0x40, 0x01, 0, 0, 0, 0x03, 4, 27];
        expected.extend([0; 26]);
        expected.push(0x20);
        assert_eq!(bitmap(vec![1234, 47, 46, 15, 1]), expected);
    }

    #[test]
    fn the_chain_closes_at_the_apex() {
        let apex: Name = "example".parse().unwrap();
        let entry = |name: &str| (name.parse::<Name>().unwrap(), vec![1]);
        let chain = nsecs(&apex, vec![entry("b.example"), entry("example"), entry("x.a.example")]);
        let links: Vec<(String, String)> = chain
            .iter()
            .map(|(owner, rdata)| (owner.to_string(), Name::from_wire(&rdata[..rdata.len() - 8]).unwrap().to_string()))
            .collect();
        let expected = [("example.", "x.a.example."), ("x.a.example.", "b.example."), ("b.example.", "example.")];
        assert_eq!(links, expected.map(|(a, b)| (a.to_string(), b.to_string())));
    }
}
