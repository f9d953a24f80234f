//! Where addresses are: location databases or the built-in table behind one interface. Two ways to ask, which agree:
//! [`Locations::lookup`] for one address, [`Locations::walk_v4`] and [`Locations::walk_v6`] for all of them in order.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    thread,
};

use super::{
    ahead::ahead,
    error::GeoError,
    files::{FileInfo, Files, Held, Source},
    place::Place,
    ranges::{self, Family, Ranges},
    special,
    table::BUILTIN,
};

/// A source of locations. The content of files is held in memory until [`Locations::release`].
pub struct Locations {
    /// `None`: the built-in table.
    files: Option<Files>,
}

/// What [`Locations::verify`] counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Coverage {
    /// Located IPv4 ranges.
    pub v4_ranges: u64,
    /// Located IPv6 ranges.
    pub v6_ranges: u64,
}

impl Locations {
    /// The table in the binary: countries, large ones in cells.
    pub fn builtin() -> Self {
        Locations { files: None }
    }

    /// Reads the files and checks their layout and some records. The first file with a place for an address wins (typically
    /// one has IPv4, another IPv6). A file is an `.mmdb` or a table made by [`super::compile`]. No file: the built-in
    /// table.
    ///
    /// Damage further inside is found by the walks, or by [`Locations::verify`].
    pub fn open(paths: &[PathBuf]) -> Result<Self, GeoError> {
        let files = if paths.is_empty() { None } else { Some(Files::open(paths, holds_places)?) };
        Ok(Locations { files })
    }

    /// Walks everything once and fails where a walk would. A city database takes about a quarter of a second.
    pub fn verify(&self) -> Result<Coverage, GeoError> {
        let mut coverage = Coverage::default();
        self.walk_v4(&mut |_, _, _, _| coverage.v4_ranges += 1)?;
        self.walk_v6(&mut |_, _, _, _| coverage.v6_ranges += 1)?;
        Ok(coverage)
    }

    /// The place of an address. An IPv6 address that embeds an IPv4 address is where that one is; special-purpose
    /// addresses are nowhere. After [`Locations::release`] each call reads the files again.
    pub fn lookup(&self, address: IpAddr) -> Option<Place> {
        let address = match address {
            IpAddr::V6(v6) => special::embedded_v4(v6).map_or(address, |embedded| IpAddr::V4(embedded.v4)),
            IpAddr::V4(_) => address,
        };
        if special::is_special(address) {
            return None;
        }
        let Some(files) = &self.files else { return BUILTIN.lookup(address) };
        files.sources().ok()?.iter().find_map(|source| match source {
            Source::Database(database) => database.lookup(address).ok().flatten()?.place(),
            Source::Table(table) => table.lookup(address),
        })
    }

    /// Every located IPv4 range: first address, last address (inclusive), number of the place, the place. Ranges ascend
    /// and are disjoint; gaps and special-purpose ranges are left out; neighbours of the same place are joined. Places are
    /// numbered densely from 0 as they appear, so that a caller can keep what it works out for each.
    ///
    /// On an error the ranges handed on so far are worth nothing: the file is damaged.
    pub fn walk_v4(&self, each: &mut dyn FnMut(u32, u32, u32, &Place)) -> Result<(), GeoError> {
        self.walk(Family::V4, &mut |first, last, id, place| each(first as u32, last as u32, id, place))
    }

    /// As [`Locations::walk_v4`], for IPv6. Ranges that embed IPv4 are left out: their places are those of IPv4.
    pub fn walk_v6(&self, each: &mut dyn FnMut(u128, u128, u32, &Place)) -> Result<(), GeoError> {
        self.walk(Family::V6, each)
    }

    fn walk(&self, family: Family, each: &mut ranges::Each<'_, Place>) -> Result<(), GeoError> {
        let Some(files) = &self.files else { return ranges::merge(vec![Box::new(BUILTIN.ranges(family))], each) };
        let sources = files.sources()?;
        if thread::available_parallelism().is_ok_and(|processors| processors.get() > 1) {
            return thread::scope(|scope| {
                let streams = sources.iter().map(|source| ahead(scope, move || source.ranges(family)));
                ranges::merge(streams.collect(), each)
            });
        }
        ranges::merge(sources.iter().map(|source| source.ranges(family) as Box<dyn Ranges<Place>>).collect(), each)
    }

    /// Holds the content of the files for as long as the result lives: for who walks it, or looks up more than a few addresses, after
    /// [`Locations::release`].
    ///
    /// # Errors
    /// When a file cannot be read any more.
    pub fn hold(&self) -> Result<Held, GeoError> {
        Ok(Held::new(self.files.as_ref().map(Files::sources).transpose()?))
    }

    /// Lets the content of the files go, for when all has been walked. The built-in table stays.
    pub fn release(&self) {
        if let Some(files) = &self.files {
            files.release();
        }
    }

    /// For people: what the locations come from.
    pub fn description(&self) -> String {
        match &self.files {
            None => "built-in table (IP Geolocation by DB-IP, https://db-ip.com, CC BY 4.0)".into(),
            Some(files) => files.description(),
        }
    }

    /// When the data was made, in seconds since 1970; of several files the oldest.
    pub fn build_epoch(&self) -> u64 {
        self.files.as_ref().map_or_else(|| BUILTIN.build_epoch_s(), Files::build_epoch_s)
    }

    /// The files, in order of precedence; none: the built-in table.
    pub fn files(&self) -> &[FileInfo] {
        self.files.as_ref().map_or(&[], Files::infos)
    }
}

impl fmt::Debug for Locations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Locations({})", self.description())
    }
}

/// Refuses a database that tells AS numbers and no places: it belongs elsewhere in the configuration.
fn holds_places(path: &Path, source: &Source) -> Result<(), GeoError> {
    let Source::Database(database) = source else { return Ok(()) };
    let records = database.sample()?;
    if records.iter().all(|record| record.place().is_none()) && records.iter().any(|record| record.asn.is_some()) {
        return Err(GeoError::WrongKind { path: path.to_owned(), found: "AS numbers", wanted: "countries or cities" });
    }
    Ok(())
}
