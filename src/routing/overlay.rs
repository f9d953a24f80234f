//! Prefixes and autonomous systems laid over the located ranges: which rule an address matches by itself, wherever it is.

use std::collections::BTreeSet;

use super::ranges::Bits;

/// What the overlay says of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// Nothing.
    None,
    /// It matches this rule (the first one).
    Rule(u16),
    /// It has this entry of the map, whatever else there is.
    Fixed(u32),
}

/// Segments that cover every address, read in ascending order.
#[derive(Debug)]
pub struct Overlay<A> {
    starts: Vec<(A, Segment)>, // ascending, the first at 0
    at: usize,
}

impl<A: Bits> Overlay<A> {
    /// Of ranges in any order that may overlap: where several rules match, the first one counts.
    pub fn of_rules(ranges: Vec<(A, A, u16)>) -> Self {
        // Each range is one event at its start and one after its end; between events the lowest open rule holds.
        let mut events: Vec<(A, bool, usize)> = Vec::with_capacity(2 * ranges.len());
        for (index, (first, last, _)) in ranges.iter().enumerate() {
            events.push((*first, true, index));
            if *last < A::MAX {
                events.push((last.next(), false, index));
            }
        }
        events.sort_unstable();
        let mut starts = vec![(A::ZERO, Segment::None)];
        let mut open = BTreeSet::new();
        for (address, begins, index) in events {
            match begins {
                true => open.insert((ranges[index].2, index)),
                false => open.remove(&(ranges[index].2, index)),
            };
            let segment = open.first().map_or(Segment::None, |(rule, _)| Segment::Rule(*rule));
            push_start(&mut starts, address, segment);
        }
        Overlay { starts, at: 0 }
    }

    /// The same with `fixed` ranges (ascending, disjoint: first, last, entry) laid over all.
    pub fn with_fixed(self, fixed: &[(A, A, u32)]) -> Self {
        let mut starts = vec![(A::ZERO, Segment::None)];
        let mut below = self;
        let mut next = Some(A::ZERO);
        for (first, last, entry) in fixed {
            if let Some(from) = next.filter(|from| from < first) {
                below.copy(from, first.previous(), &mut starts);
            }
            push_start(&mut starts, *first, Segment::Fixed(*entry));
            next = (*last < A::MAX).then(|| last.next());
        }
        if let Some(from) = next {
            below.copy(from, A::MAX, &mut starts);
        }
        Overlay { starts, at: 0 }
    }

    fn copy(&mut self, first: A, last: A, starts: &mut Vec<(A, Segment)>) {
        let mut at = first;
        loop {
            let (segment, segment_last) = self.at(at);
            push_start(starts, at, segment);
            if segment_last >= last {
                return;
            }
            at = segment_last.next();
        }
    }

    /// The segment of an address and the segment's last address. Addresses are asked in ascending order.
    pub fn at(&mut self, address: A) -> (Segment, A) {
        while self.starts.get(self.at + 1).is_some_and(|(start, _)| *start <= address) {
            self.at += 1;
        }
        let last = self.starts.get(self.at + 1).map_or(A::MAX, |(start, _)| start.previous());
        (self.starts[self.at].1, last)
    }
}

/// Appends a segment, replacing one that begins at the same address and merging equal neighbours.
fn push_start<A: Bits>(starts: &mut Vec<(A, Segment)>, address: A, segment: Segment) {
    if starts.last().is_some_and(|(start, _)| *start == address) {
        starts.pop();
    }
    if starts.last().is_none_or(|(_, last)| *last != segment) {
        starts.push((address, segment));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn walk(mut overlay: Overlay<u32>) -> Vec<(u32, Segment)> {
        let mut out = Vec::new();
        let mut at = 0;
        loop {
            let (segment, last) = overlay.at(at);
            out.push((at, segment));
            match last.checked_add(1) {
                Some(next) => at = next,
                None => return out,
            }
        }
    }

    #[test]
    fn the_first_rule_wins_where_ranges_overlap() {
        let overlay = Overlay::of_rules(vec![(10, 29, 1), (20, 39, 0), (25, 26, 2), (50, u32::MAX, 3)]);
        use Segment::{None, Rule};
        assert_eq!(walk(overlay), [(0, None), (10, Rule(1)), (20, Rule(0)), (40, None), (50, Rule(3))]);
    }

    #[test]
    fn fixed_ranges_lie_over_rules() {
        let overlay = Overlay::of_rules(vec![(10, 29, 1)]).with_fixed(&[(0, 4, 7), (20, 24, 8)]);
        use Segment::{Fixed, None, Rule};
        assert_eq!(walk(overlay), [(0, Fixed(7)), (5, None), (10, Rule(1)), (20, Fixed(8)), (25, Rule(1)), (30, None)]);
    }

    proptest! {
        #[test]
        fn every_address_has_its_lowest_rule(
            ranges in prop::collection::vec((0u32..60, 0u32..20, 0u16..5), 0..12),
        ) {
            let ranges: Vec<_> = ranges.into_iter().map(|(first, len, rule)| (first, first + len, rule)).collect();
            let mut overlay = Overlay::of_rules(ranges.clone());
            for address in 0..90u32 {
                let lowest = ranges.iter().filter(|(f, l, _)| (*f..=*l).contains(&address)).map(|r| r.2).min();
                prop_assert_eq!(overlay.at(address).0, lowest.map_or(Segment::None, Segment::Rule));
            }
        }
    }
}
