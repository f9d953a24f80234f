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
pub(super) trait Datum: Copy + Default {
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

impl<T: Datum> Default for Interner<T> {
    fn default() -> Self {
        Interner { numbers: HashTable::new(), hasher: DefaultHashBuilder::default(), values: Vec::new() }
    }
}

impl<T: Datum> Interner<T> {
    /// The data, by their numbers.
    pub(super) fn values(&self) -> &[T] {
        &self.values
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
    fn fetch(&mut self, batch: &mut Vec<Range>) -> Result<(), GeoError>;

    /// The data of the ranges so far, by their numbers; distinct.
    fn data(&self) -> &[T];
}

/// Ranges that are taken one by one, with numbers that hold for several streams.
struct Stream<'a, T> {
    ranges: Box<dyn Ranges<T> + 'a>,
    batch: Vec<Range>,
    at: usize,
    /// From the stream's number of a datum to that number, [`NOT_YET`].
    numbers: Vec<u32>,
}

/// No number yet.
pub(super) const NOT_YET: u32 = u32::MAX;

impl<T: Datum> Stream<'_, T> {
    fn next(&mut self, data: &mut Interner<T>) -> Result<Option<Range>, GeoError> {
        if self.at == self.batch.len() {
            self.ranges.fetch(&mut self.batch)?;
            self.at = 0;
        }
        let Some(mut next) = self.batch.get(self.at).copied() else { return Ok(None) };
        self.at += 1;
        let own = self.ranges.data();
        self.numbers.resize(own.len(), NOT_YET);
        let number = &mut self.numbers[next.id as usize];
        if *number == NOT_YET {
            *number = data.intern(own[next.id as usize]);
        }
        next.id = *number;
        Ok(Some(next))
    }
}

/// Receives the merged ranges: first address, last address, number of the datum, the datum.
pub(super) type Each<'a, T> = dyn FnMut(u128, u128, u32, &T) + 'a;

/// Merges the streams, the earlier one winning, and hands on the ranges: ascending, disjoint, neighbours with equal data
/// joined; data numbered densely from 0 in the order of their appearance.
pub(super) fn merge<T: Datum>(streams: Vec<Box<dyn Ranges<T> + '_>>, each: &mut Each<'_, T>) -> Result<(), GeoError> {
    match <[_; 1]>::try_from(streams) {
        Ok([mut only]) => {
            // Where nothing was known before, data are numbered as they appear.
            let numbers = (!only.data().is_empty()).then(Vec::new);
            let mut out = Joiner { pending: None, numbers, numbered: 0 };
            let mut batch = Vec::new();
            loop {
                only.fetch(&mut batch)?;
                let data = only.data();
                if batch.is_empty() {
                    out.flush(data, each);
                    return Ok(());
                }
                batch.iter().for_each(|range| out.push(*range, data, each));
            }
        }
        Err(streams) => layer(streams, each),
    }
}

/// A stream and the range that it has come to.
type Head<'a, T> = (Range, Stream<'a, T>);

/// At every address the first of the streams that has it.
fn layer<T: Datum>(streams: Vec<Box<dyn Ranges<T> + '_>>, each: &mut Each<'_, T>) -> Result<(), GeoError> {
    let mut out = Joiner { pending: None, numbers: Some(Vec::new()), numbered: 0 };
    let mut data = Interner::default();
    let mut heads: Vec<Head<'_, T>> = Vec::with_capacity(streams.len());
    for ranges in streams {
        let mut stream = Stream { ranges, batch: Vec::new(), at: 0, numbers: Vec::new() };
        if let Some(head) = stream.next(&mut data)? {
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
            } else if let Some(next) = stream.next(&mut data)? {
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
    out.flush(&data.values, each);
    Ok(())
}

/// Joins neighbours and numbers the data as they appear: a datum may be met and never seen, or be known from another walk.
struct Joiner {
    pending: Option<Range>,
    /// From the number of a datum so far to the one handed out, [`NOT_YET`]; `None`: they are the same.
    numbers: Option<Vec<u32>>,
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
        if let Some(numbers) = &mut self.numbers {
            if numbers.len() < values.len() {
                numbers.resize(values.len(), NOT_YET);
            }
            let known = &mut numbers[range.id as usize];
            if *known == NOT_YET {
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

    struct Fixed(Vec<(u128, u128, u32)>, Interner<u32>);

    impl Ranges<u32> for Fixed {
        fn fetch(&mut self, batch: &mut Vec<Range>) -> Result<(), GeoError> {
            let Fixed(ranges, data) = self;
            batch.clear();
            batch.extend(ranges.pop().map(|(first, last, value)| Range { first, last, id: data.intern(value) }));
            Ok(())
        }

        fn data(&self) -> &[u32] {
            self.1.values()
        }
    }

    fn merged(streams: &[&[(u128, u128, u32)]]) -> Vec<(u128, u128, u32, u32)> {
        let mut out = Vec::new();
        let streams = streams
            .iter()
            .map(|s| Box::new(Fixed(s.iter().rev().copied().collect(), Interner::default())) as Box<dyn Ranges<u32>>)
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
    fn data_of_an_earlier_walk_are_numbered_anew() {
        let mut known = Interner::default();
        for value in [7, 8, 9] {
            known.intern(value);
        }
        let stream = Box::new(Fixed(vec![(6, 9, 8), (0, 5, 9)], known));
        let mut out = Vec::new();
        merge(vec![stream], &mut |first, last, id, value: &u32| out.push((first, last, id, *value))).unwrap();
        assert_eq!(out, [(0, 5, 0, 9), (6, 9, 1, 8)]);
    }

    #[test]
    fn data_that_never_appear_take_no_number() {
        assert_eq!(merged(&[&[(0, 9, 1)], &[(5, 6, 2), (20, 21, 3)]]), [(0, 9, 0, 1), (20, 21, 1, 3)]);
    }
}
