//! The compiled location table: every /24 and /48 with a cell (a country, or a part of a large one), packed small. The
//! built-in table is one; `isochrone geo compile` makes them.
//!
//! The file, numbers little-endian:
//!
//! ```text
//! magic "ISOGEO\x1a", format version (u8) · unpacked length (u32) · zstd frame with checksum, holding:
//!   build time in seconds since 1970 (u64) · length of the source line (u16), source line
//!   cells (u16), for each: country (2 letters, or 2 zero bytes) · latitude, longitude (i16, hundredths of a degree)
//!   for IPv4 in units of /24, then for IPv6 in units of /48:
//!     runs (u32) · bytes of the lengths (u32) · length of each run in units (LEB128), in address order from address 0
//!     · cell of each run, low bytes first, then all high bytes; 0 is a gap, n is the n-th cell
//! ```
//!
//! Columns (all lengths, then all cells) pack better than rows. What follows the last run is a gap.

use std::{
    net::IpAddr,
    path::Path,
    sync::{LazyLock, OnceLock},
};

use super::{
    country,
    error::GeoError,
    place::{Coordinates, CountryCode, Place},
    ranges::{Family, Interner, Range, Ranges},
    record, special,
};

/// First bytes of a table; the last is the format's version.
pub(super) const MAGIC: [u8; 8] = *b"ISOGEO\x1a\x01";

/// A table is refused above this size, so that a damaged length cannot take all memory.
const UNPACKED_BYTES_MAX: usize = 256 << 20;

/// The table in the binary.
pub(super) static BUILTIN: LazyLock<Table> = LazyLock::new(|| {
    Table::parse(Path::new("the built-in table"), include_bytes!("builtin.bin"))
        .expect("the table in the source tree is whole: a test opens it")
});

/// What a table is made of.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Content {
    pub(super) build_epoch_s: u64,
    pub(super) source: String,
    /// Cell `n` of a run is `cells[n - 1]`.
    pub(super) cells: Vec<Cell>,
    pub(super) v4: Vec<Run>,
    pub(super) v6: Vec<Run>,
}

/// A country, or a part of it, and the mean place of its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) country: Option<CountryCode>,
    /// Hundredths of a degree.
    pub(super) latitude: i16,
    /// Hundredths of a degree.
    pub(super) longitude: i16,
}

/// So many units (/24 or /48) in a row with one cell; 0: a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) units: u64,
    pub(super) cell: u16,
}

/// Bits of an address below the unit, and the units in the address space.
pub(super) const fn unit(family: Family) -> (u32, u64) {
    match family {
        Family::V4 => (8, 1 << 24),
        Family::V6 => (80, 1 << 48),
    }
}

impl Content {
    /// The packed file. The same content gives the same bytes.
    pub(super) fn pack(&self) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        out.extend(self.build_epoch_s.to_le_bytes());
        let source_bytes = u16::try_from(self.source.len()).map_err(|_| "a source line of more than 65,535 bytes")?;
        out.extend(source_bytes.to_le_bytes());
        out.extend(self.source.as_bytes());
        let cells = u16::try_from(self.cells.len()).map_err(|_| "more than 65,535 cells")?;
        out.extend(cells.to_le_bytes());
        for cell in &self.cells {
            out.extend(cell.country.map_or([0, 0], |country| country.0));
            out.extend(cell.latitude.to_le_bytes());
            out.extend(cell.longitude.to_le_bytes());
        }
        for runs in [&self.v4, &self.v6] {
            let mut lengths = Vec::new();
            runs.iter().for_each(|run| put_leb128(&mut lengths, run.units));
            let count = |n: usize| u32::try_from(n).map_err(|_| "more than 2^32 bytes of runs");
            out.extend(count(runs.len())?.to_le_bytes());
            out.extend(count(lengths.len())?.to_le_bytes());
            out.extend(lengths);
            out.extend(runs.iter().map(|run| run.cell as u8));
            out.extend(runs.iter().map(|run| (run.cell >> 8) as u8));
        }
        let length = u32::try_from(out.len()).map_err(|_| "more than 2^32 bytes")?;
        let packed = squeeze(&out).map_err(|e| e.to_string())?;
        Ok([&MAGIC[..], &length.to_le_bytes(), &packed].concat())
    }
}

fn squeeze(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut packer = zstd::bulk::Compressor::new(22)?; // the highest level: it is packed once and read by everyone
    packer.include_checksum(true)?;
    packer.compress(bytes)
}

fn put_leb128(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A table, unpacked and checked.
pub(super) struct Table {
    build_epoch_s: u64,
    source: String,
    places: Vec<Option<Place>>,
    v4: Column,
    v6: Column,
    /// For lookups alone, made when the first comes.
    index: OnceLock<[Index; 2]>,
}

/// The runs of a family, as they are in the file.
struct Column {
    lengths: Vec<u8>,
    cells_low: Vec<u8>,
    cells_high: Vec<u8>,
}

/// Every so many runs there is a mark to begin a look-up from: the runs between are read as they are packed, which takes a fraction of
/// a microsecond, where an index of all of them would take three times the table's own memory.
const MARK_EVERY: usize = 64;

/// Where the look-up of a family's units begins, in ascending order.
struct Index(Vec<Mark>);

/// A run, where its length is, and its first unit.
struct Mark {
    start: u64,
    run: u32,
    length_at: u32,
}

impl Table {
    /// Unpacks and checks everything: what comes later cannot fail.
    pub(super) fn parse(path: &Path, file: &[u8]) -> Result<Self, GeoError> {
        Table::read(file).map_err(|reason| GeoError::Corrupt { path: path.to_owned(), reason })
    }

    fn read(file: &[u8]) -> Result<Self, String> {
        let mut head = Reader(file);
        let magic = head.take(MAGIC.len())?;
        if magic != MAGIC {
            return Err(match magic.strip_prefix(&MAGIC[..7]) {
                Some(version) => format!("a table of format version {}, not {}", version[0], MAGIC[7]),
                None => "no compiled location table".into(),
            });
        }
        let length = u32::from_le_bytes(head.array()?) as usize;
        if length > UNPACKED_BYTES_MAX {
            return Err(format!("{length} bytes unpacked, more than a table has"));
        }
        let bytes = zstd::bulk::decompress(head.0, length).map_err(|e| format!("its packing: {e}"))?;
        if bytes.len() != length {
            return Err("shorter than it says".into());
        }
        let mut body = Reader(&bytes);
        let build_epoch_s = u64::from_le_bytes(body.array()?);
        let source_bytes = u16::from_le_bytes(body.array()?).into();
        let source = std::str::from_utf8(body.take(source_bytes)?).map_err(|_| "a source line that is no text")?;
        let places = read_cells(&mut body)?;
        let v4 = read_column(&mut body, Family::V4, places.len())?;
        let v6 = read_column(&mut body, Family::V6, places.len())?;
        if !body.0.is_empty() {
            return Err("longer than it says".into());
        }
        Ok(Table { build_epoch_s, source: source.to_owned(), places, v4, v6, index: OnceLock::new() })
    }

    /// When its oldest source was made, in seconds since 1970.
    pub(super) fn build_epoch_s(&self) -> u64 {
        self.build_epoch_s
    }

    /// What it was made from.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// True when it has runs of that family.
    pub(super) fn has(&self, family: Family) -> bool {
        !self.column(family).lengths.is_empty()
    }

    /// The place of an address, special or not.
    pub(super) fn lookup(&self, address: IpAddr) -> Option<Place> {
        let indexes = self.index.get_or_init(|| [self.v4.index(), self.v6.index()]);
        let (column, Index(marks), unit) = match address {
            IpAddr::V4(v4) => (&self.v4, &indexes[0], u64::from(u32::from(v4) >> unit(Family::V4).0)),
            IpAddr::V6(v6) => (&self.v6, &indexes[1], (u128::from(v6) >> unit(Family::V6).0) as u64),
        };
        let after = marks.partition_point(|mark| mark.start <= unit);
        let (_, _, cell) = column.runs_from(marks.get(after.checked_sub(1)?)?).find(|(_, last, _)| unit <= *last)?;
        self.places[usize::from(cell)]
    }

    /// Its ranges of that family, for [`super::ranges::merge`].
    pub(super) fn ranges(&self, family: Family) -> TableRanges<'_> {
        TableRanges {
            table: self,
            shift: unit(family).0,
            runs: self.column(family).runs(),
            run: None,
            pieces: family.pieces(),
            ids: vec![None; self.places.len()],
            data: Interner::default(),
        }
    }

    fn column(&self, family: Family) -> &Column {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

/// So far may a client be from the mean place of its cell, if that is a square of four degrees, in kilometres.
const CELL_WITHIN_KM: u16 = 600;

/// The places of the cells; number 0 is the gap.
fn read_cells(body: &mut Reader<'_>) -> Result<Vec<Option<Place>>, String> {
    let cells = u16::from_le_bytes(body.array()?);
    let mut places = vec![None];
    for _ in 0..cells {
        let country = match body.array::<2>()? {
            [0, 0] => None,
            letters => {
                let text = std::str::from_utf8(&letters).ok();
                Some(text.and_then(CountryCode::new).ok_or("a country code that is not two letters")?)
            }
        };
        let latitude = f32::from(i16::from_le_bytes(body.array()?)) / 100.0;
        let longitude = f32::from(i16::from_le_bytes(body.array()?)) / 100.0;
        if latitude.abs() > 90.0 || longitude.abs() > 180.0 {
            return Err(format!("coordinates {latitude}, {longitude} that are not on the globe"));
        }
        // A large country's cell is a square of a few degrees, any other's the whole country.
        let within_km = || country.filter(|code| !country::is_large(*code)).map_or(CELL_WITHIN_KM, country::within_km);
        places.push(record::place(country, None, Some(Coordinates { latitude, longitude }), within_km));
    }
    Ok(places)
}

fn read_column(body: &mut Reader<'_>, family: Family, cells: usize) -> Result<Column, String> {
    let runs = u32::from_le_bytes(body.array()?) as usize;
    let lengths_bytes = u32::from_le_bytes(body.array()?) as usize;
    let column = Column {
        lengths: body.take(lengths_bytes)?.to_vec(),
        cells_low: body.take(runs)?.to_vec(),
        cells_high: body.take(runs)?.to_vec(),
    };
    let (mut units, mut seen, mut lengths) = (0_u64, 0, &column.lengths[..]);
    while !lengths.is_empty() {
        let length = take_leb128(&mut lengths).filter(|&length| length > 0).ok_or("a run without a length")?;
        units = units.checked_add(length).filter(|&u| u <= unit(family).1).ok_or("runs beyond the last address")?;
        seen += 1;
    }
    if seen != runs {
        return Err(format!("{runs} runs but {seen} lengths"));
    }
    let cells_used =
        column.cells_low.iter().zip(&column.cells_high).map(|(&low, &high)| u16::from_le_bytes([low, high]));
    if cells_used.max().is_some_and(|highest| usize::from(highest) >= cells) {
        return Err("a run with a cell that is not in the table".into());
    }
    Ok(column)
}

/// `None` when it is cut off or over 63 bits.
fn take_leb128(bytes: &mut &[u8]) -> Option<u64> {
    let (mut number, mut shift) = (0, 0);
    loop {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return Some(number);
        }
        if shift == 63 {
            return None;
        }
    }
}

impl Column {
    /// First unit, last unit, cell of each run; gaps too.
    fn runs(&self) -> Runs<'_> {
        Runs { column: self, lengths: &self.lengths, next: 0, start: 0 }
    }

    /// The same from a mark on.
    fn runs_from(&self, mark: &Mark) -> Runs<'_> {
        Runs {
            column: self,
            lengths: &self.lengths[mark.length_at as usize..],
            next: mark.run as usize,
            start: mark.start,
        }
    }

    fn index(&self) -> Index {
        let mut marks = Vec::with_capacity(self.cells_low.len() / MARK_EVERY + 1);
        let mut runs = self.runs();
        loop {
            if runs.next.is_multiple_of(MARK_EVERY) {
                let length_at = (self.lengths.len() - runs.lengths.len()) as u32;
                marks.push(Mark { start: runs.start, run: runs.next as u32, length_at });
            }
            if runs.next().is_none() {
                return Index(marks);
            }
        }
    }
}

struct Runs<'a> {
    column: &'a Column,
    lengths: &'a [u8],
    next: usize,
    start: u64,
}

impl Iterator for Runs<'_> {
    type Item = (u64, u64, u16);

    fn next(&mut self) -> Option<Self::Item> {
        let units = take_leb128(&mut self.lengths)?;
        let cell =
            u16::from_le_bytes([*self.column.cells_low.get(self.next)?, *self.column.cells_high.get(self.next)?]);
        let first = self.start;
        self.next += 1;
        self.start += units;
        Some((first, self.start - 1, cell))
    }
}

/// The located ranges of a table, clipped to the address space that is not special-purpose.
pub(super) struct TableRanges<'a> {
    table: &'a Table,
    shift: u32,
    runs: Runs<'a>,
    /// What is left of the current run, in addresses.
    run: Option<(u128, u128, u16)>,
    /// What is left of the pieces.
    pieces: &'static [special::Block],
    ids: Vec<Option<u32>>,
    data: Interner<Place>,
}

/// Ranges handed on at a time.
const BATCH_RANGES: usize = 64;

impl Ranges<Place> for TableRanges<'_> {
    fn fetch(&mut self, batch: &mut Vec<Range>) -> Result<(), GeoError> {
        batch.clear();
        batch.extend(std::iter::from_fn(|| self.next()).take(BATCH_RANGES));
        Ok(())
    }

    fn data(&self) -> &[Place] {
        self.data.values()
    }
}

impl TableRanges<'_> {
    fn next(&mut self) -> Option<Range> {
        loop {
            let Some((first, last, cell)) = self.run.take() else {
                let (first, last, cell) = self.runs.next()?;
                if cell != 0 {
                    let last = ((u128::from(last) + 1) << self.shift).wrapping_sub(1);
                    self.run = Some((u128::from(first) << self.shift, last, cell));
                }
                continue;
            };
            while let [(_, end), rest @ ..] = self.pieces
                && *end < first
            {
                self.pieces = rest;
            }
            let &(piece_first, piece_last) = self.pieces.first()?;
            if piece_first > last {
                continue;
            }
            if piece_last < last {
                self.run = Some((piece_last + 1, last, cell));
            }
            let table = self.table;
            let Some(place) = table.places[usize::from(cell)] else { continue };
            let id = *self.ids[usize::from(cell)].get_or_insert_with(|| self.data.intern(place));
            return Some(Range { first: first.max(piece_first), last: last.min(piece_last), id });
        }
    }
}

/// Takes bytes off the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or("cut short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let taken = self.take(N)?;
        Ok(std::array::from_fn(|i| taken[i]))
    }
}
