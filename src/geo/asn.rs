//! The AS number of an address, from an `.mmdb` with `autonomous_system_number` (MaxMind) or `asn`, as a number or as
//! text ("AS64500").

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
};

use super::{
    error::GeoError,
    files::{FileInfo, Files, Held, Source},
    ranges::{self, Family, Ranges},
    special,
};

/// A source of AS numbers. The content of the file is held in memory until [`AsnTable::release`].
pub struct AsnTable {
    files: Files,
}

impl AsnTable {
    /// Reads the file and checks its layout and some records.
    pub fn open(path: &Path) -> Result<Self, GeoError> {
        Ok(AsnTable { files: Files::open(&[PathBuf::from(path)], holds_as_numbers)? })
    }

    /// The AS number of an address; an IPv6 address that embeds an IPv4 address has that one's, special-purpose addresses
    /// have none. After [`AsnTable::release`] each call reads the file again.
    pub fn lookup(&self, address: IpAddr) -> Option<u32> {
        let address = match address {
            IpAddr::V6(v6) => special::embedded_v4(v6).map_or(address, |embedded| IpAddr::V4(embedded.v4)),
            IpAddr::V4(_) => address,
        };
        if special::is_special(address) {
            return None;
        }
        self.files.sources().ok()?.iter().find_map(|source| match source {
            Source::Database(database) => database.lookup(address).ok().flatten()?.asn,
            Source::Table(_) => None,
        })
    }

    /// Every IPv4 range with an AS number: first address, last address (inclusive), AS number. Ranges ascend and are
    /// disjoint, neighbours with the same number are joined.
    pub fn walk_v4(&self, each: &mut dyn FnMut(u32, u32, u32)) -> Result<(), GeoError> {
        self.walk(Family::V4, &mut |first, last, _, &asn| each(first as u32, last as u32, asn))
    }

    /// As [`AsnTable::walk_v4`], for IPv6.
    pub fn walk_v6(&self, each: &mut dyn FnMut(u128, u128, u32)) -> Result<(), GeoError> {
        self.walk(Family::V6, &mut |first, last, _, &asn| each(first, last, asn))
    }

    fn walk(&self, family: Family, each: &mut ranges::Each<'_, u32>) -> Result<(), GeoError> {
        let sources = self.files.sources()?;
        let streams = sources.iter().filter_map(|source| match source {
            Source::Database(database) => Some(Box::new(database.ranges(family)) as Box<dyn Ranges<u32>>),
            Source::Table(_) => None,
        });
        ranges::merge(streams.collect(), each)
    }

    /// Walks everything once and fails where a walk would.
    pub fn verify(&self) -> Result<(), GeoError> {
        self.walk_v4(&mut |_, _, _| ())?;
        self.walk_v6(&mut |_, _, _| ())
    }

    /// As [`super::Locations::hold`].
    ///
    /// # Errors
    /// When the file cannot be read any more.
    pub fn hold(&self) -> Result<Held, GeoError> {
        Ok(Held::new(Some(self.files.sources()?)))
    }

    /// Lets the content of the file go, for when all has been walked.
    pub fn release(&self) {
        self.files.release();
    }

    /// For people: what the numbers come from.
    pub fn description(&self) -> String {
        self.files.description()
    }

    /// The file.
    pub fn files(&self) -> &[FileInfo] {
        self.files.infos()
    }
}

impl fmt::Debug for AsnTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsnTable({})", self.description())
    }
}

/// Refuses a database of places and a compiled table: they belong elsewhere in the configuration.
fn holds_as_numbers(path: &Path, source: &Source) -> Result<(), GeoError> {
    let (asn, place) = match source {
        Source::Database(database) => {
            let records = database.sample()?;
            (records.iter().any(|r| r.asn.is_some()), records.iter().any(|r| r.place().is_some()))
        }
        Source::Table(_) => (false, true),
    };
    if place && !asn {
        return Err(GeoError::WrongKind { path: path.to_owned(), found: "countries or cities", wanted: "AS numbers" });
    }
    Ok(())
}
