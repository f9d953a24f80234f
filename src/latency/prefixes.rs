//! Measured prefixes of one address family, in order, each with its round trips. Knows addresses as numbers, and nothing of what the
//! round trips mean.

use crate::config::model::RegionId;

/// The round trip from a network to a region.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
    /// Which region.
    pub region: RegionId,
    /// Milliseconds.
    pub rtt_ms: f32,
    /// How many samples it is worth: old ones count less than 1.
    pub weight: f32,
    /// How many samples there were.
    pub samples: u32,
    /// Age of the newest of them in seconds.
    pub age_s: u32,
}

/// A prefix by its first and last address (IPv4 in the low 32 bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    first: u128,
    last: u128,
    parent: u32, // the narrowest prefix around this one; `NONE`: there is none
    cells_end: u32,
}

const NONE: u32 = u32::MAX;

/// The prefixes: those that enclose others stand before them.
#[derive(Debug, Clone, Default)]
pub struct PrefixTable {
    entries: Vec<Entry>,
    cells: Vec<Cell>,
    open: Vec<u32>, // while it is built: the prefixes around the last one, widest first
}

impl PrefixTable {
    /// Adds a prefix with its cells. Prefixes come in the order of their first address, of equal ones the wider first; none
    /// comes twice.
    pub fn push(&mut self, first: u128, last: u128, cells: impl IntoIterator<Item = Cell>) {
        while self.open.last().is_some_and(|open| self.entries[*open as usize].last < first) {
            self.open.pop();
        }
        let parent = self.open.last().copied().unwrap_or(NONE);
        self.cells.extend(cells);
        self.open.push(self.entries.len() as u32);
        self.entries.push(Entry { first, last, parent, cells_end: self.cells.len() as u32 });
    }

    /// True when there is no prefix.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many prefixes there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The cells of a prefix, by region.
    pub fn cells(&self, prefix: u32) -> &[Cell] {
        let index = prefix as usize;
        let start = index.checked_sub(1).map_or(0, |before| self.entries[before].cells_end);
        &self.cells[start as usize..self.entries[index].cells_end as usize]
    }

    /// The narrowest prefix that an address lies in.
    pub fn find(&self, address: u128) -> Option<u32> {
        let after = self.entries.partition_point(|entry| entry.first <= address);
        let mut at = u32::try_from(after.checked_sub(1)?).expect("numbers of prefixes fit");
        // All prefixes around the address are around this one, or it is around the address itself.
        while self.entries[at as usize].last < address {
            at = self.entries[at as usize].parent;
            if at == NONE {
                return None;
            }
        }
        Some(at)
    }

    /// The narrowest prefix around another one.
    pub fn parent(&self, prefix: u32) -> Option<u32> {
        Some(self.entries[prefix as usize].parent).filter(|parent| *parent != NONE)
    }

    /// The addresses that are covered, cut up by the narrowest prefix that they lie in: first address, last address, prefix.
    /// Ascending and disjoint.
    pub fn segments(&self) -> Vec<(u128, u128, u32)> {
        let mut out = Vec::with_capacity(self.entries.len());
        let mut open: Vec<u32> = Vec::new();
        let mut at = 0;
        let close = |at: &mut u128, prefix: u32, out: &mut Vec<_>| {
            let last = self.entries[prefix as usize].last;
            if *at <= last {
                out.push((*at, last, prefix));
            }
            match last.checked_add(1) {
                Some(next) => *at = next.max(*at),
                None => *at = u128::MAX,
            }
        };
        for (index, entry) in self.entries.iter().enumerate() {
            while let Some(top) = open.pop_if(|top| self.entries[*top as usize].last < entry.first) {
                close(&mut at, top, &mut out);
            }
            if let Some(top) = open.last().filter(|_| at < entry.first) {
                out.push((at, entry.first - 1, *top));
            }
            at = entry.first;
            open.push(index as u32);
        }
        let mut reached = None;
        while let Some(top) = open.pop() {
            let last = self.entries[top as usize].last;
            // Prefixes that end with the same address are covered by the narrowest of them.
            if reached.is_none_or(|reached| reached < last) {
                close(&mut at, top, &mut out);
                reached = Some(last);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(mut prefixes: Vec<(u128, u32)>) -> (PrefixTable, Vec<(u128, u128)>) {
        // Prefixes of a space of 256 addresses, by address and length.
        let bounds = |(address, len): (u128, u32)| {
            let host = 0xff >> len;
            (address & !host, address | host)
        };
        prefixes.sort_by_key(|prefix| (bounds(*prefix).0, prefix.1));
        prefixes.dedup_by_key(|prefix| (bounds(*prefix).0, prefix.1));
        let all: Vec<_> = prefixes.into_iter().map(bounds).collect();
        let mut table = PrefixTable::default();
        for (n, (first, last)) in all.iter().enumerate() {
            let cell = Cell { region: RegionId(0), rtt_ms: n as f32, weight: 1.0, samples: 1, age_s: 0 };
            table.push(*first, *last, vec![cell; n % 3]);
        }
        (table, all)
    }

    proptest! {
        #[test]
        fn the_narrowest_prefix_is_found_and_segments_agree(
            prefixes in prop::collection::vec((0u128..256, 0u32..=8), 0..30),
        ) {
            let (table, all) = table(prefixes);
            let segments = table.segments();
            prop_assert!(segments.windows(2).all(|pair| pair[0].1 < pair[1].0));
            for address in 0..256u128 {
                let around = |(first, last): &(u128, u128)| (*first..=*last).contains(&address);
                let narrowest = (0..all.len()).filter(|n| around(&all[*n])).max_by_key(|n| (all[*n].0, u128::MAX - all[*n].1));
                prop_assert_eq!(table.find(address), narrowest.map(|n| n as u32));
                let segment = segments.iter().find(|(first, last, _)| (*first..=*last).contains(&address));
                prop_assert_eq!(segment.map(|s| s.2), narrowest.map(|n| n as u32), "{}", address);
            }
            for (n, (first, last)) in all.iter().enumerate() {
                let n = n as u32;
                prop_assert_eq!(table.cells(n).len(), n as usize % 3);
                if let Some(parent) = table.parent(n) {
                    prop_assert!(all[parent as usize].0 <= *first && *last <= all[parent as usize].1);
                }
            }
        }
    }

    #[test]
    fn the_whole_space_can_be_one_prefix() {
        let mut table = PrefixTable::default();
        table.push(0, u128::MAX, []);
        table.push(8, u128::MAX, []);
        assert_eq!(table.segments(), [(0, 7, 0), (8, u128::MAX, 1)]);
        assert_eq!(table.find(u128::MAX), Some(1));
        assert_eq!(table.find(7), Some(0));
    }
}
