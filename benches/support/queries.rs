//! Queries in great numbers, the same in every run: what the benches ask.
#![allow(dead_code)] // each bench uses a part

use std::net::Ipv4Addr;

/// Type A.
pub const A: u16 = 1;
/// Type ANY.
pub const ANY: u16 = 255;
/// OPT options without effect, to make a query long: unassigned code of the range for local use (RFC 6891 §9).
const LOCAL_OPTION: u16 = 65_001;

/// Pseudo-random numbers from a fixed seed (SplitMix64).
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// A label of eleven letters and digits.
    pub fn label(&mut self) -> String {
        format!("h{:010x}", self.next() >> 24)
    }

    /// A /24 of the unicast space.
    pub fn network(&mut self) -> Ipv4Addr {
        Ipv4Addr::from_bits((0x01_0000 + self.below(0xdf_0000) as u32) << 8)
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// A query under construction.
#[derive(Clone)]
pub struct Query {
    name: String,
    qtype: u16,
    options: Option<Vec<u8>>,
    dnssec_ok: bool,
}

impl Query {
    /// For type A of `name`, without OPT.
    pub fn new(name: impl Into<String>) -> Query {
        Query { name: name.into(), qtype: A, options: None, dnssec_ok: false }
    }

    pub fn qtype(mut self, qtype: u16) -> Query {
        self.qtype = qtype;
        self
    }

    /// With an OPT.
    pub fn edns(mut self) -> Query {
        self.options.get_or_insert_default();
        self
    }

    /// With a client subnet of 24 bits.
    pub fn client(mut self, network: Ipv4Addr) -> Query {
        let options = self.options.get_or_insert_default();
        options.extend([0, 8, 0, 7, 0, 1, 24, 0]);
        options.extend(&network.octets()[..3]);
        self
    }

    /// Asks for signatures.
    pub fn dnssec(mut self) -> Query {
        self.dnssec_ok = true;
        self.edns()
    }

    /// Made `len` bytes long by an option without meaning.
    pub fn padded_to(mut self, len: usize) -> Query {
        self = self.edns();
        let padding = len - self.bytes(0).len() - 4;
        let options = self.options.get_or_insert_default();
        options.extend(LOCAL_OPTION.to_be_bytes());
        options.extend((padding as u16).to_be_bytes());
        options.resize(options.len() + padding, 0);
        self
    }

    /// With so many empty options.
    pub fn options(mut self, count: usize) -> Query {
        let options = self.options.get_or_insert_default();
        let [high, low] = LOCAL_OPTION.to_be_bytes();
        options.extend([high, low, 0, 0].repeat(count));
        self
    }

    /// The message.
    pub fn bytes(&self, id: u16) -> Vec<u8> {
        let [high, low] = id.to_be_bytes();
        let mut message = vec![high, low, 0, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(self.options.is_some())];
        for label in self.name.split('.').filter(|label| !label.is_empty()) {
            message.push(label.len() as u8);
            message.extend(label.as_bytes());
        }
        message.push(0);
        message.extend(self.qtype.to_be_bytes());
        message.extend([0, 1]);
        if let Some(options) = &self.options {
            message.extend([0, 0, 41, 0x04, 0xd0, 0, 0, if self.dnssec_ok { 0x80 } else { 0 }, 0]);
            message.extend((options.len() as u16).to_be_bytes());
            message.extend(options);
        }
        message
    }
}
