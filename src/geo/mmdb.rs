//! MaxMind DB files (`.mmdb`): opened, checked, walked in address order. The file is read whole, never mapped: it may be
//! replaced under a running server. Whatever is wrong with it becomes an error that names it, a panic of the library
//! included.
//!
//! The library reads metadata and finds single addresses. The search tree is walked here, piece by piece of the address space
//! that is not special-purpose: the library's iterator took four to five times as long (0.33 s against 0.07 s for the IPv4 tree of a
//! city database). Each distinct record is decoded once, and of it the few fields that are needed (see `record`): through the
//! library that was two fifths of all the work of a start.

use std::{
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    slice,
    sync::Arc,
};

use hashbrown::HashMap;
use maxminddb::{MaxMindDbError, Reader};

use super::{
    error::GeoError,
    place::Place,
    ranges::{Datum, Family, Interner, Range, Ranges},
    record::{Record, Shared},
    special,
};

/// An open file.
pub(super) struct Database {
    path: PathBuf,
    /// The whole file; the reader has it too.
    bytes: Bytes,
    reader: Reader<Bytes>,
}

/// A file's content with two owners.
#[derive(Clone)]
struct Bytes(Arc<Vec<u8>>);

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A datum that a record may hold.
pub(super) trait InRecord: Datum {
    /// The datum, `None` where the record lacks it.
    fn of(record: &Record) -> Option<Self>;
}

impl InRecord for Place {
    fn of(record: &Record) -> Option<Place> {
        record.place()
    }
}

/// An AS number.
impl InRecord for u32 {
    fn of(record: &Record) -> Option<u32> {
        record.asn
    }
}

/// How many batches of networks of a file are looked at to tell what it holds.
const SAMPLE_BATCHES: usize = 8;

impl Database {
    /// Checks the layout (marker, metadata, sizes) of `bytes`, the content of `path`. Records are checked as they are
    /// walked.
    pub(super) fn new(path: &Path, bytes: Vec<u8>) -> Result<Self, GeoError> {
        let bytes = Bytes(Arc::new(bytes));
        let opened =
            guarded(|| Reader::from_source(bytes.clone())).and_then(|opened| opened.map_err(|e| e.to_string()));
        let reader = opened.map_err(|reason| GeoError::Corrupt { path: path.to_owned(), reason })?;
        Ok(Database { path: path.to_owned(), bytes, reader })
    }

    /// What the publisher calls it, `GeoLite2-City` for example; control characters taken out.
    pub(super) fn database_type(&self) -> String {
        self.reader.metadata().database_type.chars().filter(|c| !c.is_control()).take(80).collect()
    }

    /// When it was made, in seconds since 1970.
    pub(super) fn build_epoch_s(&self) -> u64 {
        self.reader.metadata().build_epoch
    }

    /// True when it has a network of that family.
    pub(super) fn has(&self, family: Family) -> Result<bool, GeoError> {
        let mut batch = Vec::new();
        Networks::new(self, family).fetch(&mut batch)?;
        Ok(!batch.is_empty())
    }

    /// Records from the beginning of the file.
    pub(super) fn sample(&self) -> Result<Vec<Record>, GeoError> {
        let (mut records, mut batch, mut shared) = (Vec::new(), Vec::new(), Shared::default());
        for family in [Family::V4, Family::V6] {
            let mut networks = Networks::new(self, family);
            for _ in 0..SAMPLE_BATCHES {
                networks.fetch(&mut batch)?;
                batch.dedup_by_key(|located| located.offset);
                for located in &batch {
                    records.push(self.record(located.offset as usize, &mut shared)?);
                }
            }
        }
        Ok(records)
    }

    /// The record of an address, special or not.
    pub(super) fn lookup(&self, address: IpAddr) -> Result<Option<Record>, GeoError> {
        if address.is_ipv6() && self.reader.metadata().ip_version == 4 {
            return Ok(None);
        }
        let offset = self.sound(guarded(|| self.reader.lookup(address).map(|found| found.offset())))?;
        offset.map(|offset| self.record(offset, &mut Shared::default())).transpose()
    }

    /// Its ranges of that family, for [`super::ranges::merge`].
    pub(super) fn ranges(&self, family: Family) -> DatabaseRanges<'_> {
        DatabaseRanges {
            database: self,
            networks: Networks::new(self, family),
            batch: Vec::with_capacity(BATCH_NETWORKS),
            ids: Vec::with_capacity(BATCH_NETWORKS),
            at: 0,
            known: HashMap::new(),
            shared: Shared::default(),
            seen_map: false,
            seen_other: false,
        }
    }

    /// The record at an offset of the data section.
    fn record(&self, offset: usize, shared: &mut Shared) -> Result<Record, GeoError> {
        let metadata = self.reader.metadata();
        let tree_bytes = metadata.node_count as usize * (usize::from(metadata.record_size) / 4);
        let data = self.bytes.0.get(tree_bytes + SEPARATOR_BYTES as usize..).unwrap_or_default();
        Record::decode(data, offset, shared).map_err(|reason| self.corrupt(reason))
    }

    /// Turns what the library says, or its panic, into this file's error.
    fn sound<T>(&self, outcome: Result<Result<T, MaxMindDbError>, String>) -> Result<T, GeoError> {
        outcome.and_then(|inner| inner.map_err(|e| e.to_string())).map_err(|reason| self.corrupt(reason))
    }

    fn corrupt(&self, reason: impl Into<String>) -> GeoError {
        GeoError::Corrupt { path: self.path.clone(), reason: reason.into() }
    }
}

/// Runs library code on bytes of unknown origin: a panic in it becomes an error.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| "the reader gave up on it".to_owned())
}

/// A network that has a record.
#[derive(Clone, Copy)]
struct Located {
    first: u128,
    last: u128,
    /// Of the record in the data section.
    offset: u32,
}

/// In place of a number of a datum: the record has none.
const NOTHING: u32 = u32::MAX;

/// In place of a number of a datum: the record has yet to be decoded.
const UNKNOWN: u32 = u32::MAX - 1;

/// Networks read at a time: so many that the processor can look for many records at once, so few that they stay in its
/// nearest cache.
const BATCH_NETWORKS: usize = 64;

/// Zero bytes between the tree and the data section, counted as part of the data in the tree's numbers.
const SEPARATOR_BYTES: u32 = 16;

/// The networks that have a record, in the address space that is not special-purpose.
struct Networks<'a> {
    database: &'a Database,
    node_count: u32,
    node_bytes: usize,
    pieces: slice::Iter<'static, special::Block>,
    /// What is left of the current piece: node or leaf, its first address, and the mask of its host bits.
    stack: Vec<(u32, u128, u128)>,
    /// A sound tree is entered once at each node. One that shares branches among a few prefixes is entered a few times as
    /// often; one that is knotted up to 2^128 times.
    visits_left: u64,
}

impl<'a> Networks<'a> {
    fn new(database: &'a Database, family: Family) -> Self {
        let metadata = database.reader.metadata();
        let skip = family == Family::V6 && metadata.ip_version == 4;
        Networks {
            database,
            node_count: metadata.node_count,
            node_bytes: usize::from(metadata.record_size) / 4,
            pieces: if skip { &[] } else { family.pieces() }.iter(),
            stack: Vec::new(),
            visits_left: 8 * u64::from(metadata.node_count),
        }
    }

    /// Replaces the content of `batch` by the next networks; at the end of the tree by none.
    fn fetch(&mut self, batch: &mut Vec<Located>) -> Result<(), GeoError> {
        batch.clear();
        while batch.len() < BATCH_NETWORKS {
            let Some((mut node, first, mut hosts)) = self.stack.pop() else {
                let Some(&(first, last)) = self.pieces.next() else { break };
                let entry = self.entry(first, last)?;
                self.stack.push((entry, first, last - first));
                continue;
            };
            // Down the left branches; the right ones wait.
            while node < self.node_count {
                let visits_left = self.visits_left.checked_sub(1).filter(|_| hosts != 0);
                self.visits_left =
                    visits_left.ok_or_else(|| self.database.corrupt("its search tree runs in circles"))?;
                let (left, right) = self.children(node)?;
                hosts >>= 1;
                self.stack.push((right, first + hosts + 1, hosts));
                node = left;
            }
            if node > self.node_count {
                let offset = (node - self.node_count).checked_sub(SEPARATOR_BYTES);
                let offset =
                    offset.ok_or_else(|| self.database.corrupt("its search tree points between tree and data"))?;
                batch.push(Located { first, last: first + hosts, offset });
            }
        }
        Ok(())
    }

    /// The node or leaf of a piece. A leaf may stand for more than the piece.
    fn entry(&self, first: u128, last: u128) -> Result<u32, GeoError> {
        let length = (last - first).leading_zeros();
        // IPv4 is the branch ::/96 of an IPv6 tree, and the low 32 bits here: the same 128 bits lead to it.
        let skipped = if self.database.reader.metadata().ip_version == 4 { 96 } else { 0 };
        let mut node = 0;
        for depth in skipped..length {
            if node >= self.node_count {
                break;
            }
            let (left, right) = self.children(node)?;
            node = if first >> (127 - depth) & 1 == 0 { left } else { right };
        }
        Ok(node)
    }

    fn children(&self, node: u32) -> Result<(u32, u32), GeoError> {
        let start = node as usize * self.node_bytes;
        let cut_short = || self.database.corrupt("its search tree is cut short");
        let bytes = self.database.bytes.0.get(start..start + self.node_bytes).ok_or_else(cut_short)?;
        Ok(match *bytes {
            [a, b, c, d, e, f] => (u32::from_be_bytes([0, a, b, c]), u32::from_be_bytes([0, d, e, f])),
            [a, b, c, both, d, e, f] => {
                (u32::from_be_bytes([both >> 4, a, b, c]), u32::from_be_bytes([both & 0xf, d, e, f]))
            }
            [a, b, c, d, e, f, g, h] => (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])),
            _ => return Err(self.database.corrupt("a record size other than 24, 28 and 32 bits")),
        })
    }
}

/// The located ranges of a database.
pub(super) struct DatabaseRanges<'a> {
    database: &'a Database,
    networks: Networks<'a>,
    batch: Vec<Located>,
    /// For each network of the batch the number of its datum, or [`NOTHING`].
    ids: Vec<u32>,
    /// The next of the batch.
    at: usize,
    /// The same by record offset, for all records met.
    known: HashMap<u32, u32>,
    shared: Shared,
    seen_map: bool,
    seen_other: bool,
}

impl DatabaseRanges<'_> {
    /// Fetches the next batch and numbers its data; false at the end.
    fn advance<T: InRecord>(&mut self, data: &mut Interner<T>) -> Result<bool, GeoError> {
        self.networks.fetch(&mut self.batch)?;
        // Half a million records in random order: waiting for memory is most of the work, so all are looked up in one
        // tight loop that lets the processor wait for many at once.
        self.ids.clear();
        self.ids.extend(self.batch.iter().map(|located| self.known.get(&located.offset).copied().unwrap_or(UNKNOWN)));
        for index in 0..self.batch.len() {
            if self.ids[index] == UNKNOWN {
                self.ids[index] = self.learn(index, data)?;
            }
        }
        self.at = 0;
        Ok(!self.batch.is_empty())
    }

    /// Decodes a record that was not met before this batch.
    fn learn<T: InRecord>(&mut self, index: usize, data: &mut Interner<T>) -> Result<u32, GeoError> {
        let located = &self.batch[index];
        if let Some(&id) = self.known.get(&located.offset) {
            return Ok(id);
        }
        let record = self.database.record(located.offset as usize, &mut self.shared)?;
        self.seen_map |= record.is_map;
        self.seen_other |= !record.is_map;
        if self.seen_map && self.seen_other {
            return Err(self.database.corrupt("its tree points into the middle of records"));
        }
        let id = T::of(&record).map_or(NOTHING, |datum| data.intern(datum));
        self.known.insert(located.offset, id);
        Ok(id)
    }
}

impl<T: InRecord> Ranges<T> for DatabaseRanges<'_> {
    fn next(&mut self, data: &mut Interner<T>) -> Result<Option<Range>, GeoError> {
        loop {
            if self.at == self.batch.len() && !self.advance(data)? {
                return Ok(None);
            }
            let Located { first, last, .. } = self.batch[self.at];
            let id = self.ids[self.at];
            self.at += 1;
            if id != NOTHING {
                return Ok(Some(Range { first, last, id }));
            }
        }
    }
}
