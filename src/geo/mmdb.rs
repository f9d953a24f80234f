//! MaxMind DB files (`.mmdb`): opened, checked, walked in address order. The file is read whole, never mapped: it may be
//! replaced under a running server. Whatever is wrong with it becomes an error that names it, a panic of the library
//! included.
//!
//! The library reads metadata and finds single addresses. The search tree is walked here (see `tree`): the library's iterator took
//! four to five times as long. Each distinct record is decoded once, and of it the few fields that are needed (see `record`).

use std::{
    mem,
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use hashbrown::HashMap;
use maxminddb::{MaxMindDbError, Reader};

use super::{
    error::GeoError,
    place::Place,
    ranges::{Datum, Family, Interner, Range, Ranges},
    record::{Record, Shared},
    tree::{Located, Networks, Tree},
};

/// An open file.
pub(super) struct Database {
    path: PathBuf,
    /// The whole file; the reader has it too.
    bytes: Bytes,
    reader: Reader<Bytes>,
    places: Mutex<Known<Place>>,
    as_numbers: Mutex<Known<u32>>,
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

    /// What earlier walks of a database have met. Whoever walks takes it and brings it back.
    fn known(database: &Database) -> &Mutex<Known<Self>>;
}

impl InRecord for Place {
    fn of(record: &Record) -> Option<Place> {
        record.place()
    }

    fn known(database: &Database) -> &Mutex<Known<Place>> {
        &database.places
    }
}

/// An AS number.
impl InRecord for u32 {
    fn of(record: &Record) -> Option<u32> {
        record.asn
    }

    fn known(database: &Database) -> &Mutex<Known<u32>> {
        &database.as_numbers
    }
}

/// How many networks of a file are looked at to tell what it holds.
const SAMPLE_NETWORKS: usize = 512;

impl Database {
    /// Checks the layout (marker, metadata, sizes) of `bytes`, the content of `path`. Records are checked as they are
    /// walked.
    pub(super) fn new(path: &Path, bytes: Vec<u8>) -> Result<Self, GeoError> {
        let bytes = Bytes(Arc::new(bytes));
        let opened =
            guarded(|| Reader::from_source(bytes.clone())).and_then(|opened| opened.map_err(|e| e.to_string()));
        let reader = opened.map_err(|reason| GeoError::Corrupt { path: path.to_owned(), reason })?;
        let (places, as_numbers) = (Mutex::default(), Mutex::default());
        Ok(Database { path: path.to_owned(), bytes, reader, places, as_numbers })
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
        self.networks(family).fetch(&mut batch, 1).map_err(|reason| self.corrupt(reason))?;
        Ok(!batch.is_empty())
    }

    /// Records from the beginning of the file.
    pub(super) fn sample(&self) -> Result<Vec<Record>, GeoError> {
        let (mut records, mut batch, mut shared) = (Vec::new(), Vec::new(), Shared::default());
        for family in [Family::V4, Family::V6] {
            self.networks(family).fetch(&mut batch, SAMPLE_NETWORKS).map_err(|reason| self.corrupt(reason))?;
            for located in &batch {
                records.push(self.record(located.offset as usize, &mut shared)?);
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
    pub(super) fn ranges<T: InRecord>(&self, family: Family) -> DatabaseRanges<'_, T> {
        let mut known = mem::take(&mut *T::known(self).lock().unwrap_or_else(PoisonError::into_inner));
        known.numbers.size_for(self.tree().data().len());
        let located = Vec::with_capacity(BATCH_NETWORKS);
        DatabaseRanges { database: self, networks: self.networks(family), located, known }
    }

    fn tree(&self) -> Tree<'_> {
        let metadata = self.reader.metadata();
        Tree::new(&self.bytes.0, metadata.node_count, metadata.record_size, metadata.ip_version == 4)
    }

    fn networks(&self, family: Family) -> Networks<'_> {
        Networks::new(self.tree(), family)
    }

    /// The record at an offset of the data section.
    fn record(&self, offset: usize, shared: &mut Shared) -> Result<Record, GeoError> {
        Record::decode(self.tree().data(), offset, shared).map_err(|reason| self.corrupt(reason))
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

/// In place of a number of a datum: the record has none.
const NOTHING: u32 = u32::MAX;

/// In place of a number of a datum: the record has yet to be decoded.
const UNKNOWN: u32 = u32::MAX - 1;

/// Networks read at a time: so many that the processor can look for many records at once, so few that they stay in its
/// nearest cache.
const BATCH_NETWORKS: usize = 64;

/// The records that were met: the networks of IPv6 have many of those of IPv4.
#[derive(Default)]
pub(super) struct Known<T: Datum> {
    /// The numbers of the data, or [`NOTHING`], by the offsets of the records.
    numbers: Numbers,
    data: Interner<T>,
    shared: Shared,
    seen_map: bool,
    seen_other: bool,
}

impl<T: InRecord> Known<T> {
    /// Decodes a record.
    fn learn(&mut self, database: &Database, offset: u32) -> Result<u32, GeoError> {
        let record = database.record(offset as usize, &mut self.shared)?;
        self.seen_map |= record.is_map;
        self.seen_other |= !record.is_map;
        if self.seen_map && self.seen_other {
            return Err(database.corrupt("its tree points into the middle of records"));
        }
        let number = T::of(&record).map_or(NOTHING, |datum| self.data.intern(datum));
        self.numbers.insert(offset, number);
        Ok(number)
    }
}

/// The located ranges of a database.
pub(super) struct DatabaseRanges<'a, T: InRecord> {
    database: &'a Database,
    networks: Networks<'a>,
    located: Vec<Located>,
    known: Known<T>,
}

impl<T: InRecord> Drop for DatabaseRanges<'_, T> {
    fn drop(&mut self) {
        *T::known(self.database).lock().unwrap_or_else(PoisonError::into_inner) = mem::take(&mut self.known);
    }
}

impl<T: InRecord> Ranges<T> for DatabaseRanges<'_, T> {
    fn fetch(&mut self, batch: &mut Vec<Range>) -> Result<(), GeoError> {
        let DatabaseRanges { database, networks, located, known } = self;
        batch.clear();
        while batch.is_empty() {
            networks.fetch(located, BATCH_NETWORKS).map_err(|reason| database.corrupt(reason))?;
            if located.is_empty() {
                break;
            }
            // Records in random order: waiting for memory is most of the work, so all are looked up in one tight loop that
            // lets the processor wait for many at once.
            let range = |&Located { first, last, offset }| Range { first, last, id: known.numbers.get(offset) };
            batch.extend(located.iter().map(range));
            for (range, located) in batch.iter_mut().zip(&*located).filter(|(range, _)| range.id == UNKNOWN) {
                range.id = match known.numbers.get(located.offset) {
                    UNKNOWN => known.learn(database, located.offset)?,
                    number => number, // by an earlier one of the batch
                };
            }
            batch.retain(|range| range.id != NOTHING);
        }
        Ok(())
    }

    fn data(&self) -> &[T] {
        self.known.data.values()
    }
}

/// Numbers by the offsets of records: a slot for each so many bytes of the data section, which few records are shorter than.
#[derive(Default)]
struct Numbers {
    /// The place within these bytes in the low bits, above them the number and two more; 0: free.
    slots: Vec<u32>,
    /// Of records that begin within the same slot as an earlier one, and numbers too large for a slot.
    others: HashMap<u32, u32>,
}

/// Those of a city database have 50 bytes.
const SLOT_BYTES: u32 = 32;

impl Numbers {
    /// Makes room for the records of a data section of that size; nothing happens the second time.
    fn size_for(&mut self, data_bytes: usize) {
        if self.slots.is_empty() {
            self.slots = vec![0; data_bytes / SLOT_BYTES as usize + 1];
        }
    }

    /// [`UNKNOWN`] where none was inserted.
    #[inline]
    fn get(&self, offset: u32) -> u32 {
        match self.slots.get((offset / SLOT_BYTES) as usize) {
            Some(&slot) if slot != 0 && slot % SLOT_BYTES == offset % SLOT_BYTES => (slot / SLOT_BYTES).wrapping_sub(2),
            _ => self.others.get(&offset).copied().unwrap_or(UNKNOWN),
        }
    }

    fn insert(&mut self, offset: u32, number: u32) {
        let kept = number.wrapping_add(2);
        match self.slots.get_mut((offset / SLOT_BYTES) as usize) {
            Some(slot) if *slot == 0 && kept < u32::MAX / SLOT_BYTES => *slot = kept * SLOT_BYTES + offset % SLOT_BYTES,
            _ => {
                self.others.insert(offset, number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_whatever_shares_their_slot() {
        let mut numbers = Numbers::default();
        numbers.size_for(100);
        let known =
            [(0, NOTHING), (31, 0), (32, 1), (40, 2), (64, u32::MAX / SLOT_BYTES), (70, 3), (99, 4), (5_000, 5)];
        known.iter().for_each(|&(offset, number)| numbers.insert(offset, number));
        for (offset, number) in known {
            assert_eq!(numbers.get(offset), number, "{offset}");
        }
        for offset in [1, 33, 65, 98, 101, 5_001, u32::MAX] {
            assert_eq!(numbers.get(offset), UNKNOWN, "{offset}");
        }
    }
}
