//! Making a compiled location table from city databases: countries as they are, large ones split into cells of a few
//! degrees, each with the mean place of its addresses; every /24 and /48 with the cell that most of it lies in. The same
//! inputs give the same bytes.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use hashbrown::HashMap;

use super::{
    country,
    error::GeoError,
    locations::Locations,
    place::{Coordinates, CountryCode, Place},
    ranges::Family,
    table::{self, Cell, Content, Run},
};

/// Side of the cells that large countries are split into, in degrees.
const CELL_DEGREES: f32 = 4.0;

/// What came out of a compilation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileSummary {
    /// Countries and parts of large ones.
    pub cells: usize,
    /// Runs of /24 networks, gaps included.
    pub v4_runs: usize,
    /// Runs of /48 networks, gaps included.
    pub v6_runs: usize,
    /// Size of the file.
    pub bytes: usize,
    /// When the oldest input was made, in seconds since 1970.
    pub build_epoch: u64,
}

/// Reads the databases (the first with a place for an address wins) and writes the table to `output`, which appears
/// whole or not at all.
pub fn compile(inputs: &[PathBuf], output: &Path) -> Result<CompileSummary, GeoError> {
    if inputs.is_empty() {
        return Err(GeoError::Unusable("no input file; name at least one city database (.mmdb)".into()));
    }
    let locations = Locations::open(inputs)?;
    let content = content(&locations)?;
    let bytes = content.pack().map_err(GeoError::Unusable)?;
    write_whole(output, &bytes).map_err(|source| GeoError::Unwritable { path: output.to_owned(), source })?;
    Ok(CompileSummary {
        cells: content.cells.len(),
        v4_runs: content.v4.len(),
        v6_runs: content.v6.len(),
        bytes: bytes.len(),
        build_epoch: content.build_epoch_s,
    })
}

fn write_whole(output: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let directory = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().permissions(readable_by_all()).tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(output)?;
    Ok(())
}

/// The table is public data; a temporary file would be its owner's alone.
fn readable_by_all() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o644)
}

fn content(locations: &Locations) -> Result<Content, GeoError> {
    let mut cells = Cells::default();
    let v4 = units(locations, Family::V4, &mut cells)?;
    let v6 = units(locations, Family::V6, &mut cells)?;
    if cells.sums.is_empty() {
        return Err(GeoError::Unusable("the inputs place no address at all; name city or country databases".into()));
    }
    let kinds: Vec<_> = locations.files().iter().map(|file| file.kind.as_str()).collect();
    Ok(Content {
        build_epoch_s: locations.build_epoch(),
        source: kinds.join(", "),
        cells: cells.sums.iter().map(Sum::cell).collect(),
        v4,
        v6,
    })
}

/// Which part of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum CellKey {
    Country(CountryCode),
    /// A square of a large country, or of nowhere in particular, by its row and column.
    Square(Option<CountryCode>, i16, i16),
}

impl CellKey {
    fn of(place: &Place) -> Option<CellKey> {
        let square = |point: Coordinates| {
            let step = |degrees: f32| (degrees / CELL_DEGREES).round() as i16;
            CellKey::Square(place.country, step(point.latitude), step(point.longitude))
        };
        match (place.country, place.coordinates) {
            (Some(country), Some(point)) if country::is_large(country) => Some(square(point)),
            (Some(country), Some(_)) => Some(CellKey::Country(country)),
            (None, Some(point)) => Some(square(point)),
            (_, None) => None, // a code without a country: it cannot be put on the map
        }
    }

    fn country(self) -> Option<CountryCode> {
        match self {
            CellKey::Country(country) => Some(country),
            CellKey::Square(country, _, _) => country,
        }
    }
}

/// The cells met so far, numbered from 1.
#[derive(Default)]
struct Cells {
    numbers: HashMap<CellKey, u16>,
    sums: Vec<Sum>,
}

impl Cells {
    fn number(&mut self, place: &Place) -> Result<u16, GeoError> {
        let Some(key) = CellKey::of(place) else { return Ok(0) };
        if let Some(&number) = self.numbers.get(&key) {
            return Ok(number);
        }
        let too_many = |_| GeoError::Unusable("more than 65,535 cells".into());
        let number = u16::try_from(self.sums.len() + 1).map_err(too_many)?;
        self.sums.push(Sum { country: key.country(), vector: [0.0; 3] });
        self.numbers.insert(key, number);
        Ok(number)
    }
}

/// Where the addresses of a cell are, as a sum of unit vectors: a mean that knows nothing of the date line.
struct Sum {
    country: Option<CountryCode>,
    vector: [f64; 3],
}

impl Sum {
    fn add(&mut self, point: Coordinates, weight: f64) {
        let (lat, lon) = (f64::from(point.latitude).to_radians(), f64::from(point.longitude).to_radians());
        let unit = [lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()];
        self.vector.iter_mut().zip(unit).for_each(|(sum, part)| *sum += part * weight);
    }

    fn cell(&self) -> Cell {
        let [x, y, z] = self.vector;
        let hundredths = |radians: f64| (radians.to_degrees() * 100.0).round() as i16;
        Cell { country: self.country, latitude: hundredths(z.atan2(x.hypot(y))), longitude: hundredths(y.atan2(x)) }
    }
}

/// The runs of a family; adds its addresses to the cells.
fn units(locations: &Locations, family: Family, cells: &mut Cells) -> Result<Vec<Run>, GeoError> {
    let mut rounder = Rounder::new(family);
    let mut numbers: Vec<u16> = Vec::new(); // by the number of the place
    let mut failure = None;
    let mut each = |first: u128, last: u128, id: u32, place: &Place| {
        if id as usize == numbers.len() {
            numbers.push(cells.number(place).unwrap_or_else(|error| {
                failure = Some(error);
                0
            }));
        }
        let number = numbers[id as usize];
        if let (Some(index), Some(point)) = (usize::from(number).checked_sub(1), place.coordinates) {
            cells.sums[index].add(point, weight(family, last - first));
        }
        rounder.add(first, last, number);
    };
    match family {
        Family::V4 => locations.walk_v4(&mut |first, last, id, place| each(first.into(), last.into(), id, place))?,
        Family::V6 => locations.walk_v6(&mut each)?,
    }
    failure.map_or_else(|| Ok(rounder.finish()), Err)
}

/// How much a range counts. IPv6 ranges say little of how many people there are: they decide only where there is no
/// IPv4.
fn weight(family: Family, last_less_first: u128) -> f64 {
    let addresses = last_less_first as f64 + 1.0;
    match family {
        Family::V4 => addresses,
        Family::V6 => addresses * 2_f64.powi(-120),
    }
}

/// Rounds ascending ranges to whole units.
struct Rounder {
    shift: u32,
    runs: Vec<Run>,
    /// Units in `runs`.
    done: u64,
    /// The unit that is being shared out, and how many of its addresses each cell has.
    unit: u64,
    shares: Vec<(u16, u128)>,
}

impl Rounder {
    fn new(family: Family) -> Self {
        Rounder { shift: table::unit(family).0, runs: Vec::new(), done: 0, unit: 0, shares: Vec::new() }
    }

    fn add(&mut self, first: u128, last: u128, cell: u16) {
        let (first_unit, last_unit) = ((first >> self.shift) as u64, (last >> self.shift) as u64);
        let inside = (1 << self.shift) - 1;
        let whole_from = first_unit + u64::from(first & inside != 0);
        let whole_to = last_unit + u64::from(last & inside == inside); // not included
        if whole_from > first_unit {
            let end = if last_unit == first_unit { last & inside } else { inside };
            self.share(first_unit, cell, end - (first & inside) + 1);
        }
        if whole_from < whole_to {
            self.settle();
            self.push(whole_from, whole_to, cell);
        }
        if whole_to == last_unit && whole_from <= last_unit {
            self.share(last_unit, cell, (last & inside) + 1);
        }
    }

    fn share(&mut self, unit: u64, cell: u16, addresses: u128) {
        if unit != self.unit {
            self.settle();
            self.unit = unit;
        }
        match self.shares.iter_mut().find(|(other, _)| *other == cell) {
            Some((_, share)) => *share += addresses,
            None => self.shares.push((cell, addresses)),
        }
    }

    /// The shared unit goes to the cell with most of it, the gap being one too; on a tie to the first.
    fn settle(&mut self) {
        let located: u128 = self.shares.iter().map(|&(_, share)| share).sum();
        let mut best = (0, 0);
        for (cell, share) in self.shares.drain(..) {
            if share > best.1 {
                best = (cell, share);
            }
        }
        if best.1 >= (1 << self.shift) - located {
            self.push(self.unit, self.unit + 1, best.0);
        }
    }

    fn push(&mut self, from: u64, to: u64, cell: u16) {
        self.extend(from - self.done, 0);
        self.extend(to - from, cell);
    }

    fn extend(&mut self, units: u64, cell: u16) {
        match self.runs.last_mut() {
            _ if units == 0 => {}
            Some(run) if run.cell == cell => run.units += units,
            _ => self.runs.push(Run { units, cell }),
        }
        self.done += units;
    }

    fn finish(mut self) -> Vec<Run> {
        self.settle();
        if self.runs.last().is_some_and(|run| run.cell == 0) {
            self.runs.pop();
        }
        self.runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounded(family: Family, ranges: &[(u128, u128, u16)]) -> Vec<(u64, u16)> {
        let mut rounder = Rounder::new(family);
        ranges.iter().for_each(|&(first, last, cell)| rounder.add(first, last, cell));
        rounder.finish().iter().map(|run| (run.units, run.cell)).collect()
    }

    #[test]
    fn a_shared_unit_goes_to_whoever_has_most_of_it() {
        type Case = (&'static [(u128, u128, u16)], &'static [(u64, u16)]);
        let cases: &[Case] = &[
            (&[(0x000, 0x0ff, 1), (0x100, 0x3ff, 2)], &[(1, 1), (3, 2)]),
            (&[(0x100, 0x1ff, 1)], &[(1, 0), (1, 1)]),
            // Three quarters of the second unit.
            (&[(0x000, 0x13f, 1), (0x140, 0x2ff, 2)], &[(1, 1), (2, 2)]),
            // Three in one unit, none with a half.
            (&[(0x00, 0x5f, 1), (0x60, 0xdf, 2), (0xe0, 0xff, 3)], &[(1, 2)]),
            // A cell that has it in two parts.
            (&[(0x00, 0x5f, 1), (0x60, 0x9f, 2), (0xa0, 0xff, 1)], &[(1, 1)]),
            // A gap is a candidate; on a tie with it the place wins, between places the first.
            (&[(0x00, 0x7e, 1), (0x200, 0x2ff, 2)], &[(2, 0), (1, 2)]),
            (&[(0x00, 0x7f, 1)], &[(1, 1)]),
            (&[(0x00, 0x7f, 1), (0x80, 0xff, 2)], &[(1, 1)]),
            // Places that cannot be put on the map are a gap.
            (&[(0x00, 0xff, 0), (0x100, 0x1ff, 1), (0x200, 0x2ff, 0)], &[(1, 0), (1, 1)]),
            (&[(0xffff_ff00, 0xffff_ffff, 1)], &[(0xff_ffff, 0), (1, 1)]),
            (&[], &[]),
        ];
        for (ranges, expected) in cases {
            assert_eq!(rounded(Family::V4, ranges), *expected, "{ranges:x?}");
        }
        assert_eq!(rounded(Family::V6, &[(u128::MAX >> 1, u128::MAX, 1)]), [((1 << 47), 0), (1 << 47, 1)]);
    }

    #[test]
    fn a_mean_place_does_not_break_at_the_date_line() {
        let mut sum = Sum { country: None, vector: [0.0; 3] };
        sum.add(Coordinates { latitude: 60.0, longitude: 179.0 }, 1.0);
        sum.add(Coordinates { latitude: 60.0, longitude: -179.0 }, 1.0);
        let cell = sum.cell();
        assert!(cell.longitude.abs() == 18_000 && (cell.latitude - 6_000).abs() < 2, "{cell:?}");
    }
}
