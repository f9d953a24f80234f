//! From a client's address to its rule, its ranking and the scope of both.
//!
//! The map is compiled: sorted ranges that cover the whole address space, found through a directory over the leading 16 bits. The
//! scope of an answer is the shortest prefix around the address that lies inside its range, since throughout the range rule and
//! ranking are the same.

use std::net::IpAddr;

use crate::{
    config::model::RegionId,
    geo::special::{Embedded, embedded_v4},
};

/// What the map knows of a range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The first rule that matches, by its position in the route.
    pub rule: Option<u16>,
    /// The ranking of the allowed regions; `None`: the range has no known place (or the policy needs none).
    pub ranking: Option<u32>,
}

/// A look-up's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Located {
    /// Rule and ranking.
    pub entry: Entry,
    /// Length in bits of the shortest prefix around the address throughout which they are the same, counted in the address's own
    /// family (for embedded IPv4: of the IPv6 address).
    pub scope_len: u8,
}

/// Rules and rankings for every address.
#[derive(Debug, Clone)]
pub struct ClientMap {
    pub(super) v4: RangeMap<u32>,
    pub(super) v6: RangeMap<u128>,
    pub(super) entries: Vec<Entry>,
    pub(super) rankings: Rankings,
}

impl ClientMap {
    /// Looks an address up.
    pub fn locate(&self, address: IpAddr) -> Located {
        match address {
            IpAddr::V4(v4) => self.located(self.v4.find(v4.to_bits())),
            IpAddr::V6(v6) => match embedded_v4(v6) {
                None => self.located(self.v6.find(v6.to_bits())),
                Some(Embedded { v4, offset_bits }) => match self.v4.find(v4.to_bits()) {
                    // All of IPv4 is alike, and so the embedding ranges in the IPv6 map are what they embed.
                    (_, 0) => self.located(self.v6.find(v6.to_bits())),
                    (entry, scope_len) => self.located((entry, scope_len + offset_bits)),
                },
            },
        }
    }

    fn located(&self, (entry, scope_len): (u32, u8)) -> Located {
        Located { entry: self.entries[entry as usize], scope_len }
    }

    /// The regions of a ranking, best first.
    pub fn ranking(&self, ranking: u32) -> &[RegionId] {
        self.rankings.get(ranking)
    }

    /// Ranges in the IPv4 and in the IPv6 part.
    pub fn range_counts(&self) -> (usize, usize) {
        (self.v4.starts.len(), self.v6.starts.len())
    }
}

/// Distinct orders of regions, each kept once.
#[derive(Debug, Clone, Default)]
pub struct Rankings {
    regions: Vec<RegionId>,
    ends: Vec<u32>,
}

impl Rankings {
    /// Adds an order and returns its number.
    pub(super) fn push(&mut self, order: &[RegionId]) -> u32 {
        self.regions.extend_from_slice(order);
        self.ends.push(self.regions.len() as u32);
        self.ends.len() as u32 - 1
    }

    /// The regions of an order.
    pub fn get(&self, ranking: u32) -> &[RegionId] {
        let index = ranking as usize;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.regions[start as usize..self.ends[index] as usize]
    }
}

/// Addresses of one family as unsigned integers.
pub trait Bits: Copy + Ord + std::hash::Hash + std::fmt::Debug {
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
    /// The leading 16 bits.
    fn leading16(self) -> usize;
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
            fn leading16(self) -> usize {
                (self >> (<$type>::BITS - 16)) as usize
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
pub struct RangeMap<A> {
    starts: Vec<A>,
    values: Vec<u32>,
    directory: Vec<u32>, // for each leading 16 bits: the range that its first address lies in; one more at the end
}

impl<A: Bits> RangeMap<A> {
    /// Takes ranges by their first addresses: ascending, the first at address 0. Equal neighbours are merged.
    pub fn new(ranges: impl IntoIterator<Item = (A, u32)>) -> Self {
        let (mut starts, mut values): (Vec<A>, Vec<u32>) = (Vec::new(), Vec::new());
        for (start, value) in ranges {
            debug_assert!(starts.last().map_or(start == A::ZERO, |last| *last < start));
            if values.last() != Some(&value) {
                starts.push(start);
                values.push(value);
            }
        }
        starts.shrink_to_fit();
        values.shrink_to_fit();
        let mut directory = Vec::with_capacity((1 << 16) + 1);
        let mut range = 0;
        for block in 0..1usize << 16 {
            // The last range that begins in an earlier block, or at this one's first address.
            while range + 1 < starts.len() && is_at_or_before_block(starts[range + 1], block) {
                range += 1;
            }
            directory.push(range as u32);
        }
        directory.push(starts.len() as u32 - 1);
        RangeMap { starts, values, directory }
    }

    /// The value at an address, and the length of the shortest prefix around the address that lies inside its range.
    pub fn find(&self, address: A) -> (u32, u8) {
        let block = address.leading16();
        let (low, high) = (self.directory[block] as usize, self.directory[block + 1] as usize);
        let index = low + self.starts[low..=high].partition_point(|start| *start <= address) - 1;
        let start = self.starts[index];
        let below = if start == A::ZERO { 0 } else { address.common_len(start.previous()) + 1 };
        let above = self.starts.get(index + 1).map_or(0, |next| address.common_len(*next) + 1);
        (self.values[index], below.max(above))
    }

    /// The ranges: first address, last address, value.
    pub fn iter(&self) -> impl Iterator<Item = (A, A, u32)> {
        (0..self.starts.len()).map(|i| {
            let last = self.starts.get(i + 1).map_or(A::MAX, |next| next.previous());
            (self.starts[i], last, self.values[i])
        })
    }
}

/// True when `start` lies in a block before `block` or is its very first address.
fn is_at_or_before_block<A: Bits>(start: A, block: usize) -> bool {
    let leading = start.leading16();
    leading < block || leading == block && (start == A::ZERO || start.previous().leading16() < block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_scope_is_the_shortest_prefix_inside_the_range() {
        let at = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().to_bits();
        let map = RangeMap::new([(0, 0), (at("10.0.0.0"), 1), (at("10.0.3.0"), 2), (at("11.0.0.0"), 0)]);
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
        assert_eq!(RangeMap::<u32>::new([(0, 9)]).find(77), (9, 0));
    }

    proptest! {
        #[test]
        fn find_agrees_with_a_linear_search_and_the_scope_is_minimal(
            cuts in prop::collection::btree_map(any::<u32>(), 0u32..3, 0..40),
            near in any::<prop::sample::Index>(), offset in -2i64..3, anywhere in any::<u32>(), use_near in any::<bool>(),
        ) {
            let mut ranges = vec![(0u32, 0u32)];
            ranges.extend(cuts.iter().filter(|(start, _)| **start > 0).map(|(start, value)| (*start, *value)));
            let map = RangeMap::new(ranges.clone());
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
