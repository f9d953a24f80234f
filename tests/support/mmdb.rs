//! Makes MaxMind DB files for tests: real bytes, with records of 24, 28 or 32 bits, an IPv4 or IPv6 tree, any maps as
//! records. Format: <https://maxmind.github.io/MaxMind-DB/>, version 2.0.

#![allow(dead_code, missing_docs)] // each test program uses its part

use std::{collections::HashMap, net::IpAddr};

/// A value of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Map(Vec<(&'static str, Value)>),
    Array(Vec<Value>),
    Text(String),
    Double(f64),
    Float(f32),
    Short(u16),
    Unsigned(u32),
    Long(u64),
    Bool(bool),
}

/// `country.iso_code`, `continent.code`, `location.latitude` and `longitude`, as MaxMind lays them out.
pub fn nested(country: &str, continent: &str, latitude: f64, longitude: f64) -> Value {
    use Value::{Double, Map, Text};
    Map(vec![
        (
            "continent",
            Map(vec![("code", Text(continent.into())), ("names", Map(vec![("en", Text("Somewhere".into()))]))]),
        ),
        ("country", Map(vec![("iso_code", Text(country.into()))])),
        ("location", Map(vec![("latitude", Double(latitude)), ("longitude", Double(longitude))])),
        ("subdivisions", Value::Array(vec![Map(vec![("iso_code", Text("XY".into()))])])),
    ])
}

/// `country_code`, `latitude`, `longitude`, as several publishers lay them out.
pub fn flat(country: &str, latitude: f32, longitude: f32) -> Value {
    Value::Map(vec![
        ("city", Value::Text("Some City".into())),
        ("country_code", Value::Text(country.into())),
        ("latitude", Value::Float(latitude)),
        ("longitude", Value::Float(longitude)),
    ])
}

/// `autonomous_system_number`.
pub fn asn(number: u32) -> Value {
    Value::Map(vec![("autonomous_system_number", Value::Unsigned(number))])
}

#[derive(Clone, Copy, PartialEq)]
enum Child {
    Empty,
    Node(usize),
    /// Offset in the data section.
    Data(usize),
}

/// A database in the making.
pub struct Writer {
    record_bits: u16,
    ip_version: u16,
    database_type: String,
    build_epoch: u32,
    nodes: Vec<[Child; 2]>,
    data: Vec<u8>,
    offsets: HashMap<Vec<u8>, usize>,
}

impl Writer {
    /// `ip_version` 4 or 6, `record_bits` 24, 28 or 32.
    pub fn new(ip_version: u16, record_bits: u16) -> Self {
        Writer {
            record_bits,
            ip_version,
            database_type: "Test-City".into(),
            build_epoch: 1_700_000_000,
            nodes: vec![[Child::Empty; 2]],
            data: Vec::new(),
            offsets: HashMap::new(),
        }
    }

    pub fn database_type(mut self, name: &str) -> Self {
        self.database_type = name.into();
        self
    }

    pub fn build_epoch(mut self, seconds: u32) -> Self {
        self.build_epoch = seconds;
        self
    }

    /// Puts a record at a prefix like `"192.0.2.0/24"`; a later record wins over an earlier one where they overlap. IPv4
    /// goes to `::/96` of an IPv6 tree.
    pub fn put(&mut self, prefix: &str, record: &Value) -> &mut Self {
        let mut bytes = Vec::new();
        encode(record, &mut bytes);
        let data = &mut self.data;
        let offset = *self.offsets.entry(bytes).or_insert_with_key(|bytes| {
            data.extend(bytes);
            data.len() - bytes.len()
        });
        let (bits, length) = self.path(prefix);
        self.set(bits, length, Child::Data(offset));
        self
    }

    /// Makes an IPv6 prefix another way into the IPv4 branch. After all the records.
    pub fn alias(&mut self, prefix: &str) -> &mut Self {
        let mut node = 0;
        for _ in 0..96 {
            let Child::Node(next) = self.nodes[node][0] else { panic!("no IPv4 branch to point to") };
            node = next;
        }
        let (bits, length) = self.path(prefix);
        self.set(bits, length, Child::Node(node));
        self
    }

    /// The file.
    pub fn finish(&self) -> Vec<u8> {
        let count = self.nodes.len();
        let number = |child: Child| match child {
            Child::Empty => count as u32,
            Child::Node(node) => node as u32,
            Child::Data(offset) => (count + 16 + offset) as u32,
        };
        let mut file = Vec::new();
        for node in &self.nodes {
            let [left, right] = node.map(|child| number(child).to_be_bytes());
            match self.record_bits {
                24 => file.extend([&left[1..], &right[1..]].concat()),
                28 => file.extend([&left[1..], &[left[0] << 4 | right[0]], &right[1..]].concat()),
                _ => file.extend([left, right].concat()),
            }
        }
        file.extend([0; 16]);
        file.extend(&self.data);
        file.extend(b"\xab\xcd\xefMaxMind.com");
        let metadata = Value::Map(vec![
            ("binary_format_major_version", Value::Short(2)),
            ("binary_format_minor_version", Value::Short(0)),
            ("build_epoch", Value::Long(self.build_epoch.into())),
            ("database_type", Value::Text(self.database_type.clone())),
            ("description", Value::Map(vec![("en", Value::Text("made by a test".into()))])),
            ("ip_version", Value::Short(self.ip_version)),
            ("languages", Value::Array(vec![])),
            ("node_count", Value::Unsigned(count as u32)),
            ("record_size", Value::Short(self.record_bits)),
        ]);
        encode(&metadata, &mut file);
        file
    }

    /// The bits of a prefix from the top of a 128-bit word, and how many.
    fn path(&self, prefix: &str) -> (u128, u32) {
        let (address, length) = prefix.split_once('/').expect("a prefix has a slash");
        let length: u32 = length.parse().unwrap();
        match (address.parse().unwrap(), self.ip_version) {
            (IpAddr::V4(v4), 4) => (u128::from(u32::from(v4)) << 96, length),
            (IpAddr::V4(v4), _) => (u32::from(v4).into(), length + 96),
            (IpAddr::V6(v6), 6) => (v6.into(), length),
            (IpAddr::V6(_), _) => panic!("IPv6 in an IPv4 tree"),
        }
    }

    fn set(&mut self, bits: u128, length: u32, child: Child) {
        let mut node = 0;
        for depth in 0..length {
            let side = (bits >> (127 - depth) & 1) as usize;
            if depth + 1 == length {
                self.nodes[node][side] = child;
                return;
            }
            node = match self.nodes[node][side] {
                Child::Node(next) => next,
                leaf => {
                    self.nodes.push([leaf; 2]); // what was said of the whole holds for both halves
                    let next = self.nodes.len() - 1;
                    self.nodes[node][side] = Child::Node(next);
                    next
                }
            };
        }
        self.nodes[0] = [child; 2]; // a prefix of length 0
    }
}

fn encode(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Map(entries) => {
            control(7, entries.len(), out);
            for (key, value) in entries {
                encode(&Value::Text((*key).into()), out);
                encode(value, out);
            }
        }
        Value::Array(values) => {
            control(11, values.len(), out);
            values.iter().for_each(|value| encode(value, out));
        }
        Value::Text(text) => {
            control(2, text.len(), out);
            out.extend(text.as_bytes());
        }
        Value::Double(number) => {
            control(3, 8, out);
            out.extend(number.to_be_bytes());
        }
        Value::Float(number) => {
            control(15, 4, out);
            out.extend(number.to_be_bytes());
        }
        Value::Short(number) => {
            control(5, 2, out);
            out.extend(number.to_be_bytes());
        }
        Value::Long(number) => {
            control(9, 8, out);
            out.extend(number.to_be_bytes());
        }
        Value::Unsigned(number) => {
            control(6, 4, out);
            out.extend(number.to_be_bytes());
        }
        Value::Bool(truth) => control(14, (*truth).into(), out),
    }
}

fn control(kind: u8, size: usize, out: &mut Vec<u8>) {
    assert!(size < 285, "test values are small");
    let inline = size.min(29) as u8;
    out.extend(if kind < 8 { vec![kind << 5 | inline] } else { vec![inline, kind - 7] });
    if size >= 29 {
        out.push((size - 29) as u8);
    }
}
