//! Disjoint ranges that cover all addresses of a family, and the look-up that every query makes.
//!
//! A look-up is paid in cache misses: the data is larger than the first caches, and every pass through the kernel pushes it out of
//! them. So the way to a range is short and each step reads one cache line: the leading 16 bits lead to a cell, which says
//! the answer itself if no range begins inside its block (so it is for most blocks), or names the few ranges that do, or leads to
//! a table of 16 more cells for the next 4 bits, a line again. Only who uses the map knows what the values are.

use std::fmt::Debug;

/// Addresses of one family as unsigned integers.
pub trait Bits: Copy + Ord + std::hash::Hash + Debug {
    /// Length of an address in bits.
    const LEN: u8;
    /// The highest address.
    const MAX: Self;
    /// Address 0.
    const ZERO: Self;
    /// The next address; never called on the highest.
    fn next(self) -> Self;
    /// The address before; never called on 0.
    fn previous(self) -> Self;
    /// `count` bits of the address, the first `skip` left out; at most 16 and within the address.
    fn bits(self, skip: u8, count: u8) -> usize;
    /// The address with all bits set that come after the first `len`.
    fn last_of_prefix(self, len: u8) -> Self;
    /// Bits that two different addresses have in common from the left.
    fn common_len(self, other: Self) -> u8;
}

macro_rules! bits {
    ($type:ty) => {
        impl Bits for $type {
            const LEN: u8 = <$type>::BITS as u8;
            const MAX: Self = <$type>::MAX;
            const ZERO: Self = 0;
            fn next(self) -> Self {
                self + 1
            }
            fn previous(self) -> Self {
                self - 1
            }
            fn bits(self, skip: u8, count: u8) -> usize {
                (self << skip >> (Self::LEN - count)) as usize
            }
            fn last_of_prefix(self, len: u8) -> Self {
                self | Self::MAX.checked_shr(u32::from(len)).unwrap_or(0)
            }
            fn common_len(self, other: Self) -> u8 {
                (self ^ other).leading_zeros() as u8
            }
        }
    };
}
bits!(u32);
bits!(u128);

/// Disjoint ranges that cover every address of a family, each with a value; neighbours differ.
#[derive(Debug, Clone)]
pub struct RangeMap<A: Copy> {
    ranges: Vec<Range<A>>,
    /// 2^16 cells for the leading bits, then tables of 2^4.
    cells: Vec<Cell>,
}

/// A range by its first address; it ends where the next one begins. Start and value share a cache line, without padding.
#[derive(Debug, Clone, Copy)]
#[repr(C, packed(4))]
pub(super) struct Range<A: Copy> {
    pub start: A,
    pub value: u32,
}

/// What is known of a block of addresses, in 32 bits: its kind in the highest two, then
/// * whole: 8 bits of scope, 22 of the value: no range begins or ends inside the block;
/// * ranges: 3 bits of count, less one, 27 of the first one's index: the block lies in so many ranges;
/// * table: 30 bits: number of the table that parts the block.
#[derive(Debug, Clone, Copy)]
struct Cell(u32);

const WHOLE: u32 = 0;
const RANGES: u32 = 1;
const TABLE: u32 = 2;
const VALUE_BITS: u32 = 22;
const INDEX_BITS: u32 = 27;

/// Bits that the first cells stand for.
const ROOT_LEN: u8 = 16;
/// Bits that a table parts a block by: a table is one line of the cache. The family's bits beyond the first cells' are a multiple of
/// it, so that a block of one address, which lies in one range, ends every way.
const STRIDE: u8 = 4;
/// Ranges of a block that are searched one by one: two lines of the cache. A block with more gets a table.
const RANGES_MAX: usize = 8;

impl<A: Bits> RangeMap<A> {
    /// Takes ranges by their first addresses: ascending, the first at address 0. Equal neighbours are merged.
    ///
    /// # Panics
    /// With 2^27 ranges or more: a gigabyte of them.
    pub(super) fn new(mut ranges: Vec<Range<A>>) -> Self {
        debug_assert!(ranges.first().is_some_and(|first| { first.start } == A::ZERO));
        debug_assert!(ranges.is_sorted_by(|a, b| { a.start } < { b.start }));
        ranges.dedup_by(|later, range| later.value == range.value);
        ranges.shrink_to_fit();
        assert!(ranges.len() < 1 << INDEX_BITS, "a map holds fewer than 2^27 ranges");
        let mut map = RangeMap { ranges, cells: Vec::new() };
        map.part(A::ZERO, 0, ROOT_LEN, 0);
        map.cells.shrink_to_fit();
        map
    }

    /// The value at an address, and the length of the shortest prefix around the address that lies inside its range.
    #[inline]
    pub fn find(&self, address: A) -> (u32, u8) {
        let mut cell = self.cells[address.bits(0, ROOT_LEN)];
        let mut len = ROOT_LEN;
        while cell.kind() == TABLE {
            cell = self.cells[cell.table_at() + address.bits(len, STRIDE)];
            len += STRIDE;
        }
        if cell.kind() == WHOLE {
            return cell.whole();
        }
        let (first, last) = cell.ranges();
        let later = self.ranges[first + 1..=last].iter().take_while(|range| { range.start } <= address).count();
        self.at(first + later, address)
    }

    /// The last address of the range that an address lies in.
    pub fn end_of(&self, address: A) -> A {
        let after = self.ranges.partition_point(|range| { range.start } <= address);
        self.ranges.get(after).map_or(A::MAX, |next| { next.start }.previous())
    }

    /// Value and scope at an address of a range.
    fn at(&self, index: usize, address: A) -> (u32, u8) {
        let Range { start, value } = self.ranges[index];
        let below = if start == A::ZERO { 0 } else { address.common_len(start.previous()) + 1 };
        let above = self.ranges.get(index + 1).map_or(0, |next| address.common_len(next.start) + 1);
        (value, below.max(above))
    }

    /// Adds the 2^`stride` cells that part the block of `len` bits at `start`, whose first address lies in the range `first`.
    fn part(&mut self, start: A, len: u8, stride: u8, mut first: usize) {
        let (base, cell_len) = (self.cells.len(), len + stride);
        self.cells.resize(base + (1 << stride), Cell(0));
        let mut at = start;
        for number in 0..1 << stride {
            let end = at.last_of_prefix(cell_len);
            let inside = self.ranges[first + 1..].iter().take_while(|range| { range.start } <= end).count();
            self.cells[base + number] = self.cell(at, cell_len, first, first + inside);
            first += inside;
            if end == A::MAX {
                break;
            }
            at = end.next();
            // The next block may begin with a range of its own.
            first += usize::from(self.ranges.get(first + 1).is_some_and(|range| { range.start } == at));
        }
    }

    /// The cell of the block of `len` bits at `start`, which lies in the ranges `first` to `last`.
    fn cell(&mut self, start: A, len: u8, first: usize, last: usize) -> Cell {
        let (value, scope_len) = self.at(first, start);
        if first == last && value < 1 << VALUE_BITS {
            return Cell(WHOLE << 30 | u32::from(scope_len) << VALUE_BITS | value);
        }
        let count = last - first + 1;
        if count <= RANGES_MAX {
            return Cell(RANGES << 30 | (count as u32 - 1) << INDEX_BITS | first as u32);
        }
        let table = (self.cells.len() - (1 << ROOT_LEN)) >> STRIDE;
        self.part(start, len, STRIDE, first);
        Cell(TABLE << 30 | table as u32)
    }

    /// The number of ranges, at least 1.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.ranges.len()
    }
}

impl Cell {
    fn kind(self) -> u32 {
        self.0 >> 30
    }

    fn whole(self) -> (u32, u8) {
        (self.0 & ((1 << VALUE_BITS) - 1), (self.0 >> VALUE_BITS & 0xff) as u8)
    }

    fn ranges(self) -> (usize, usize) {
        let first = (self.0 & ((1 << INDEX_BITS) - 1)) as usize;
        (first, first + (self.0 >> INDEX_BITS & 0x7) as usize)
    }

    fn table_at(self) -> usize {
        (1 << ROOT_LEN) + (((self.0 & 0x3fff_ffff) as usize) << STRIDE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map_of<A: Bits>(ranges: impl IntoIterator<Item = (A, u32)>) -> RangeMap<A> {
        RangeMap::new(ranges.into_iter().map(|(start, value)| Range { start, value }).collect())
    }

    #[test]
    fn the_scope_is_the_shortest_prefix_inside_the_range() {
        let at = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().to_bits();
        let map = map_of([(0, 0), (at("10.0.0.0"), 1), (at("10.0.3.0"), 2), (at("11.0.0.0"), 0)]);
        for (address, value, scope_len) in [
            ("10.0.0.7", 1, 23),
            ("10.0.2.7", 1, 24),
            ("10.0.3.0", 2, 24),
            ("10.200.0.0", 2, 9),
            ("9.1.1.1", 0, 7),
            ("200.0.0.1", 0, 1),
            ("0.0.0.0", 0, 5),
        ] {
            assert_eq!(map.find(at(address)), (value, scope_len), "{address}");
        }
        assert_eq!(map_of::<u32>([(0, 9)]).find(77), (9, 0));
    }

    /// Starts all over, and so close together that tables lie within tables.
    fn start() -> impl Strategy<Value = u32> {
        prop_oneof![any::<u32>(), 0x0a00_0000u32..0x0a01_0000, 0x0a00_0000u32..0x0a00_0040, (u32::MAX - 40)..]
    }

    #[test]
    fn every_address_of_a_densely_cut_block_is_found_in_both_families() {
        let value = |n: u32| n * 7 % 1000;
        let base = 0x2001_0db8u128 << 96;
        let v6 = map_of([(0, 5000)].into_iter().chain((0..4000).map(|n| (base + u128::from(n), value(n)))));
        let v4 = map_of([(0, 5000)].into_iter().chain((0..4000).map(|n| (0x0a00_0000 + n, value(n)))));
        for n in 0..3999 {
            assert_eq!(v6.find(base + u128::from(n)), (value(n), 128), "{n}");
            assert_eq!(v4.find(0x0a00_0000 + n), (value(n), 32), "{n}");
        }
        assert_eq!((v4.find(0x0b00_0000).0, v6.find(base - 1), v6.find(0)), (value(3999), (5000, 29), (5000, 3)));
        assert_eq!(v4.len(), 4001);
    }

    #[test]
    fn values_too_large_for_a_cell_are_found_as_well() {
        let map = map_of([(0u32, u32::MAX), (0x8000_0000, 7), (0xc000_0000, 1 << 22)]);
        assert_eq!((map.find(1), map.find(0x8000_0001), map.find(u32::MAX)), ((u32::MAX, 1), (7, 2), (1 << 22, 2)));
    }

    proptest! {
        #[test]
        fn find_agrees_with_a_linear_search_and_the_scope_is_minimal(
            cuts in prop::collection::btree_map(start(), 0u32..3, 0..400),
            near in any::<prop::sample::Index>(), offset in -2i64..3, anywhere in any::<u32>(), use_near in any::<bool>(),
        ) {
            let mut ranges = vec![(0u32, 0u32)];
            ranges.extend(cuts.iter().filter(|(start, _)| **start > 0).map(|(start, value)| (*start, *value)));
            let map = map_of(ranges.clone());
            let address = match use_near {
                true => (i64::from(ranges[near.index(ranges.len())].0) + offset).rem_euclid(1 << 32) as u32,
                false => anywhere,
            };
            let value_at = |a: u32| ranges.iter().rev().find(|(start, _)| *start <= a).unwrap().1;
            let (value, scope_len) = map.find(address);
            prop_assert_eq!(value, value_at(address));
            let prefix = |len: u8| {
                let mask = if len == 0 { 0 } else { u32::MAX << (32 - len) };
                (address & mask, address & mask | !mask)
            };
            let all_alike = |(first, last): (u32, u32)| {
                value_at(first) == value && ranges.iter().all(|(s, v)| !(first < *s && *s <= last) || *v == value)
            };
            prop_assert!(all_alike(prefix(scope_len)));
            prop_assert!(scope_len == 0 || !all_alike(prefix(scope_len - 1)));
        }
    }
}
