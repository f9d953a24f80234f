//! Located address ranges, in order: one stream for each data file, merged into one so that the first file with data for
//! an address wins. Knows nothing of file formats.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable, hash_table::Entry};

use super::{error::GeoError, place::Place, special};

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// The space without special-purpose ranges: CIDR blocks, ascending and disjoint.
    pub(super) fn pieces(self) -> &'static [special::Block] {
        match self {
            Family::V4 => special::v4_pieces(),
            Family::V6 => special::v6_pieces(),
        }
    }
}

/// What a range stands for: a place, an AS number.
pub(super) trait Datum: Copy {
    /// A number that is equal for equal data, and for those alone.
    fn key(&self) -> u128;
}

impl Datum for Place {
    fn key(&self) -> u128 {
        let country = self.country.map_or(0, |country| u16::from_be_bytes(country.0));
        let continent = self.continent.map_or(0, |continent| continent as u8 + 1);
        let point = self.coordinates.map_or(0, |point| {
            1 << 64 | u128::from(point.latitude.to_bits()) << 32 | u128::from(point.longitude.to_bits())
        });
        u128::from(self.within_km) << 112 | u128::from(country) << 96 | u128::from(continent) << 80 | point
    }
}

impl Datum for u32 {
    fn key(&self) -> u128 {
        u128::from(*self)
    }
}

/// Addresses `first` to `last` (inclusive; IPv4 in the low 32 bits) with the datum of this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u128,
    pub(super) last: u128,
    pub(super) id: u32,
}

/// Distinct data, numbered in the order of their arrival.
pub(super) struct Interner<T: Datum> {
    /// Numbers by the hash of their datum's key.
    numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
    values: Vec<T>,
}

impl<T: Datum> Interner<T> {
    pub(super) fn new() -> Self {
        Interner { numbers: HashTable::new(), hasher: DefaultHashBuilder::default(), values: Vec::new() }
    }

    /// The number of that datum.
    pub(super) fn intern(&mut self, value: T) -> u32 {
        let Interner { numbers, hasher, values } = self;
        let key = value.key();
        let entry = numbers.entry(
            hasher.hash_one(key),
            |&number| values[number as usize].key() == key,
            |&number| hasher.hash_one(values[number as usize].key()),
        );
        match entry {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(free) => {
                let number = u32::try_from(values.len()).expect("no file has room for 2^32 records");
                free.insert(number);
                values.push(value);
                number
            }
        }
    }
}

/// The located ranges of one file, ascending and disjoint; gaps and special-purpose ranges are left out.
pub(super) trait Ranges<T: Datum> {
    /// Replaces the content of `batch` by the next ranges, by none at the end; an error condemns the file.
    fn fetch(&mut self, data: &mut Interner<T>, batch: &mut Vec<Range>) -> Result<(), GeoError>;
}

/// Ranges that are taken one by one.
struct Stream<'a, T> {
    ranges: Box<dyn Ranges<T> + 'a>,
    batch: Vec<Range>,
    at: usize,
}

impl<T: Datum> Stream<'_, T> {
    fn next(&mut self, data: &mut Interner<T>) -> Result<Option<Range>, GeoError> {
        if self.at == self.batch.len() {
            self.ranges.fetch(data, &mut self.batch)?;
            self.at = 0;
        }
        let next = self.batch.get(self.at).copied();
        self.at += 1;
        Ok(next)
    }
}

/// Receives the merged ranges: first address, last address, number of the datum, the datum.
pub(super) type Each<'a, T> = dyn FnMut(u128, u128, u32, &T) + 'a;

/// Merges the streams, the earlier one winning, and hands on the ranges: ascending, disjoint, neighbours with equal data
/// joined; data numbered densely from 0 in the order of their appearance.
pub(super) fn merge<T: Datum>(streams: Vec<Box<dyn Ranges<T> + '_>>, each: &mut Each<'_, T>) -> Result<(), GeoError> {
    let mut data = Interner::new();
    // Data of a single stream are interned as they appear. With several a datum may be met and never seen.
    let renumber = (streams.len() > 1).then(Vec::new);
    let mut out = Joiner { pending: None, renumber, numbered: 0 };
    match <[_; 1]>::try_from(streams) {
        Ok([mut only]) => {
            let mut batch = Vec::new();
            loop {
                only.fetch(&mut data, &mut batch)?;
                if batch.is_empty() {
                    break;
                }
                batch.iter().for_each(|range| out.push(*range, &data.values, each));
            }
        }
        Err(streams) => layer(streams, &mut data, &mut out, each)?,
    }
    out.flush(&data.values, each);
    Ok(())
}

/// A stream and the range that it has come to.
type Head<'a, T> = (Range, Stream<'a, T>);

/// At every address the first of the streams that has it.
fn layer<T: Datum>(
    streams: Vec<Box<dyn Ranges<T> + '_>>,
    data: &mut Interner<T>,
    out: &mut Joiner,
    each: &mut Each<'_, T>,
) -> Result<(), GeoError> {
    let mut heads: Vec<Head<'_, T>> = Vec::with_capacity(streams.len());
    for ranges in streams {
        let mut stream = Stream { ranges, batch: Vec::new(), at: 0 };
        if let Some(head) = stream.next(data)? {
            heads.push((head, stream));
        }
    }
    let mut at = 0;
    while !heads.is_empty() {
        let mut index = 0;
        while index < heads.len() {
            let (head, stream) = &mut heads[index];
            if head.last >= at {
                index += 1;
            } else if let Some(next) = stream.next(data)? {
                *head = next;
            } else {
                heads.remove(index); // the order is the priority
            }
        }
        let Some(winner) = heads.iter().position(|(head, _)| head.first <= at) else {
            let Some(next) = heads.iter().map(|(head, _)| head.first).min() else { break };
            at = next;
            continue;
        };
        let head = heads[winner].0;
        let last = heads[..winner].iter().fold(head.last, |last, (earlier, _)| last.min(earlier.first - 1));
        out.push(Range { first: at, last, id: head.id }, &data.values, each);
        let Some(next) = last.checked_add(1) else { break };
        at = next;
    }
    Ok(())
}

/// Joins neighbours and numbers the data as they appear.
struct Joiner {
    pending: Option<Range>,
    /// From the interner's number to the one handed out, `u32::MAX`: not yet; `None`: they are the same.
    renumber: Option<Vec<u32>>,
    numbered: u32,
}

impl Joiner {
    fn push<T: Datum>(&mut self, range: Range, values: &[T], each: &mut Each<'_, T>) {
        match &mut self.pending {
            // `first` is above `last` of the range before it, so it is not 0.
            Some(pending) if pending.id == range.id && pending.last == range.first - 1 => pending.last = range.last,
            _ => {
                self.flush(values, each);
                self.pending = Some(range);
            }
        }
    }

    fn flush<T: Datum>(&mut self, values: &[T], each: &mut Each<'_, T>) {
        let Some(range) = self.pending.take() else { return };
        let mut number = range.id;
        if let Some(numbers) = &mut self.renumber {
            if numbers.len() < values.len() {
                numbers.resize(values.len(), u32::MAX);
            }
            let known = &mut numbers[range.id as usize];
            if *known == u32::MAX {
                *known = self.numbered;
                self.numbered += 1;
            }
            number = *known;
        }
        each(range.first, range.last, number, &values[range.id as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Vec<(u128, u128, u32)>);

    impl Ranges<u32> for Fixed {
        fn fetch(&mut self, data: &mut Interner<u32>, batch: &mut Vec<Range>) -> Result<(), GeoError> {
            batch.clear();
            batch.extend(self.0.pop().map(|(first, last, value)| Range { first, last, id: data.intern(value) }));
            Ok(())
        }
    }

    fn merged(streams: &[&[(u128, u128, u32)]]) -> Vec<(u128, u128, u32, u32)> {
        let mut out = Vec::new();
        let streams = streams
            .iter()
            .map(|s| Box::new(Fixed(s.iter().rev().copied().collect())) as Box<dyn Ranges<u32>>)
            .collect();
        merge(streams, &mut |first, last, id, value: &u32| out.push((first, last, id, *value))).unwrap();
        out
    }

    #[test]
    fn neighbours_with_equal_data_are_joined_and_gaps_stay() {
        assert_eq!(
            merged(&[&[(0, 4, 7), (5, 9, 7), (11, 12, 7), (13, 13, 8)]]),
            [(0, 9, 0, 7), (11, 12, 0, 7), (13, 13, 1, 8)]
        );
    }

    #[test]
    fn the_earlier_file_wins_and_the_later_fills_its_gaps() {
        assert_eq!(
            merged(&[&[(10, 19, 1), (30, 39, 2)], &[(0, 50, 9)]]),
            [(0, 9, 0, 9), (10, 19, 1, 1), (20, 29, 0, 9), (30, 39, 2, 2), (40, 50, 0, 9)]
        );
        assert_eq!(merged(&[&[], &[(3, 5, 4)]]), [(3, 5, 0, 4)]);
        assert_eq!(merged(&[&[(u128::MAX - 1, u128::MAX, 4)], &[(0, u128::MAX, 4)]]), [(0, u128::MAX, 0, 4)]);
    }

    #[test]
    fn data_that_never_appear_take_no_number() {
        assert_eq!(merged(&[&[(0, 9, 1)], &[(5, 6, 2), (20, 21, 3)]]), [(0, 9, 0, 1), (20, 21, 1, 3)]);
    }
}
