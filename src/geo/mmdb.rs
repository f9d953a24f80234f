//! MaxMind DB files (`.mmdb`): opened, checked, walked in address order. The file is read whole, never mapped: it may be
//! replaced under a running server. Whatever is wrong with it becomes an error that names it, a panic of the library
//! included.
//!
//! The tree is walked by the library's own iterator, piece by piece of the address space that is not special-purpose
//! (its bare walk of a city database takes 0.15 to 0.3 s, as long as a walk written for the purpose). Each distinct
//! record is decoded once, and of it the few fields that are needed.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    slice,
};

use hashbrown::HashMap;
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use maxminddb::{LookupResult, Reader, Within, WithinOptions};

use super::{
    error::GeoError,
    place::Place,
    ranges::{Datum, Family, Interner, Range, Ranges},
    record::Record,
    special,
};

/// An open file.
pub(super) struct Database {
    path: PathBuf,
    reader: Reader<Vec<u8>>,
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
        let opened = guarded(|| Reader::from_source(bytes)).and_then(|opened| opened.map_err(|e| e.to_string()));
        let reader = opened.map_err(|reason| GeoError::Corrupt { path: path.to_owned(), reason })?;
        Ok(Database { path: path.to_owned(), reader })
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
        let mut records = Vec::new();
        let mut batch = Vec::new();
        for family in [Family::V4, Family::V6] {
            let mut networks = Networks::new(self, family);
            for _ in 0..SAMPLE_BATCHES {
                networks.fetch(&mut batch)?;
                batch.dedup_by_key(|&mut (_, offset, _)| offset);
                for (_, _, found) in &batch {
                    records.push(self.decode(found)?);
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
        let found = self.sound(guarded(|| self.reader.lookup(address)))?;
        if found.has_data() { self.decode(&found).map(Some) } else { Ok(None) }
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
            seen_map: false,
            seen_other: false,
        }
    }

    fn decode(&self, found: &LookupResult<'_, Vec<u8>>) -> Result<Record, GeoError> {
        let record = self.sound(guarded(|| found.decode::<Record>()))?;
        record.ok_or_else(|| self.corrupt("a network without its record"))
    }

    /// Turns what the library says, or its panic, into this file's error.
    fn sound<T, E: ToString>(&self, outcome: Result<Result<T, E>, String>) -> Result<T, GeoError> {
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

type Found<'a> = LookupResult<'a, Vec<u8>>;

/// A network that has a record: its addresses, the record's offset, the record.
type Located<'a> = (special::Block, u32, Found<'a>);

/// In place of a number of a datum: the record has none.
const NOTHING: u32 = u32::MAX;

/// In place of a number of a datum: the record has yet to be decoded.
const UNKNOWN: u32 = u32::MAX - 1;

/// Networks fetched from the library at a time: so many share the cost of guarding against its panics.
const BATCH_NETWORKS: usize = 256;

/// The networks that have a record, clipped to the address space that is not special-purpose.
struct Networks<'a> {
    database: &'a Database,
    family: Family,
    pieces: slice::Iter<'static, special::Block>,
    current: Option<(special::Block, Within<'a, Vec<u8>>)>,
    /// A tree of n nodes has n + 1 leaves. One that shares branches among a few prefixes has a few times as many; one
    /// that is knotted has up to 2^128.
    leaves_left: u64,
}

impl<'a> Networks<'a> {
    fn new(database: &'a Database, family: Family) -> Self {
        let skip = family == Family::V6 && database.reader.metadata().ip_version == 4;
        let pieces = if skip { &[] } else { family.pieces() };
        let leaves_left = 8 * u64::from(database.reader.metadata().node_count) + 2 * pieces.len() as u64;
        Networks { database, family, pieces: pieces.iter(), current: None, leaves_left }
    }

    /// Replaces the content of `batch` by the next networks; at the end of the tree by none.
    fn fetch(&mut self, batch: &mut Vec<Located<'a>>) -> Result<(), GeoError> {
        let database = self.database;
        batch.clear();
        database.sound(guarded(|| self.fill(batch)))
    }

    fn fill(&mut self, batch: &mut Vec<Located<'a>>) -> Result<(), String> {
        while batch.len() < BATCH_NETWORKS {
            let Some((piece, within)) = &mut self.current else {
                let Some(&piece) = self.pieces.next() else { break };
                // Networks without data are asked for so that they count as leaves. Aliases (the IPv4 branch again, at
                // other prefixes) need no skipping: those prefixes are in no piece.
                let options = WithinOptions::default().include_aliased_networks().include_networks_without_data();
                let within = self.database.reader.within(network(self.family, piece), options);
                self.current = Some((piece, within.map_err(|e| e.to_string())?));
                continue;
            };
            let Some(found) = within.next() else {
                self.current = None;
                continue;
            };
            let found = found.map_err(|e| e.to_string())?;
            self.leaves_left = self.leaves_left.checked_sub(1).ok_or("its search tree runs in knots")?;
            if let Some(offset) = found.offset() {
                let offset = u32::try_from(offset).map_err(|_| "a record beyond 4 GiB")?;
                let network = found.network().map_err(|e| e.to_string())?;
                let (first, last) = addresses(self.family, network).unwrap_or(*piece);
                batch.push(((first.max(piece.0), last.min(piece.1)), offset, found));
            }
        }
        Ok(())
    }
}

/// The piece as the library's prefix type.
fn network(family: Family, (first, last): special::Block) -> IpNetwork {
    let host_bits = (last - first).count_ones() as u8; // a CIDR block: as many ones as host bits
    let aligned = "pieces are CIDR blocks of their family";
    match family {
        Family::V4 => Ipv4Network::new(Ipv4Addr::from(first as u32), 32 - host_bits).map(IpNetwork::V4).expect(aligned),
        Family::V6 => Ipv6Network::new(Ipv6Addr::from(first), 128 - host_bits).map(IpNetwork::V6).expect(aligned),
    }
}

/// First and last address; `None` for an IPv6 network that stands where all of IPv4 is asked for (a tree that ends above
/// its IPv4 branch).
fn addresses(family: Family, network: IpNetwork) -> Option<special::Block> {
    match (family, network) {
        (Family::V4, IpNetwork::V4(net)) => Some((u32::from(net.network()).into(), u32::from(net.broadcast()).into())),
        (Family::V6, IpNetwork::V6(net)) => Some((net.network().into(), net.broadcast().into())),
        _ => None,
    }
}

/// The located ranges of a database.
pub(super) struct DatabaseRanges<'a> {
    database: &'a Database,
    networks: Networks<'a>,
    batch: Vec<Located<'a>>,
    /// For each network of the batch the number of its datum, or [`NOTHING`].
    ids: Vec<u32>,
    /// The next of the batch.
    at: usize,
    /// The same by record offset, for all records met.
    known: HashMap<u32, u32>,
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
        self.ids.extend(self.batch.iter().map(|(_, offset, _)| self.known.get(offset).copied().unwrap_or(UNKNOWN)));
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
        let (_, offset, found) = &self.batch[index];
        if let Some(&id) = self.known.get(offset) {
            return Ok(id);
        }
        let record = self.database.decode(found)?;
        self.seen_map |= record.is_map;
        self.seen_other |= !record.is_map;
        if self.seen_map && self.seen_other {
            return Err(self.database.corrupt("its tree points into the middle of records"));
        }
        let id = T::of(&record).map_or(NOTHING, |datum| data.intern(datum));
        self.known.insert(*offset, id);
        Ok(id)
    }
}

impl<T: InRecord> Ranges<T> for DatabaseRanges<'_> {
    fn next(&mut self, data: &mut Interner<T>) -> Result<Option<Range>, GeoError> {
        loop {
            if self.at == self.batch.len() && !self.advance(data)? {
                return Ok(None);
            }
            let ((first, last), _, _) = self.batch[self.at];
            let id = self.ids[self.at];
            self.at += 1;
            if id != NOTHING {
                return Ok(Some(Range { first, last, id }));
            }
        }
    }
}
