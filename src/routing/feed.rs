//! What the maps are compiled from: located ranges cut up by measured prefixes and by autonomous systems, each piece with the
//! milliseconds to every region. Numbers the pieces' kinds densely, so that what is worked out for one is kept by its number. A piece of a
//! measured network comes once, and nothing of it is kept: it has the number after the last.

use std::{collections::HashMap, net::IpAddr};

use crate::{
    geo::{GeoError, Place, asn::AsnTable},
    latency::{
        EstimateSource, Estimator, MeasuredPrefix,
        estimator::{Client, Room},
    },
};

/// IPv4 addresses by what the estimate towards their best region rests on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Coverage {
    addresses: [u64; EstimateSource::ALL.len()],
}

impl Coverage {
    /// The sources, the best first, each with its addresses. Addresses of which nothing is known are left out.
    pub fn iter(&self) -> impl Iterator<Item = (EstimateSource, u64)> {
        EstimateSource::ALL.into_iter().zip(self.addresses)
    }
}

/// What is known of the ranges of one walk, by their number.
pub(super) struct Sites<'e> {
    pub estimator: &'e Estimator,
    known: Vec<Place>,
    estimates_ms: Vec<f32>, // region by region, one number after the other; infinite where nothing is known
    is_known: Vec<bool>,
    sources: Vec<Option<EstimateSource>>,
    /// The last of them is this measured network's, and goes when it was handed on.
    measured: Option<Measured>,
    room: Room,
}

/// A measured range: whose, and where it begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    pub client: Client,
    pub first: IpAddr,
}

impl<'e> Sites<'e> {
    fn new(estimator: &'e Estimator) -> Self {
        Sites {
            estimator,
            known: Vec::new(),
            estimates_ms: Vec::new(),
            is_known: Vec::new(),
            sources: Vec::new(),
            measured: None,
            room: Room::default(),
        }
    }

    fn add(&mut self, place: &Place, client: Client) -> u32 {
        let start = self.estimates_ms.len();
        self.estimates_ms.resize(start + self.estimator.sites().len(), f32::INFINITY);
        let out = &mut self.estimates_ms[start..];
        self.is_known.push(self.estimator.fill(place, client, &mut self.room, out));
        self.sources.push(self.estimator.source_of_best(place, client, out, &self.room));
        self.known.push(*place);
        self.known.len() as u32 - 1
    }

    /// Lets go of the measured network that was handed on.
    fn forget_measured(&mut self) {
        if self.measured.take().is_some() {
            self.known.pop();
            self.sources.pop();
            self.is_known.pop();
            self.estimates_ms.truncate(self.known.len() * self.estimator.sites().len());
        }
    }

    /// How many there are that may come again.
    pub fn len(&self) -> usize {
        self.known.len() - usize::from(self.measured.is_some())
    }

    /// The place of a range; without anything in it where it has none.
    pub fn place(&self, id: u32) -> &Place {
        &self.known[id as usize]
    }

    /// The milliseconds by which its regions are ranked; `None` where nothing is known.
    pub fn estimates_ms(&self, id: u32) -> Option<&[f32]> {
        let n = self.estimator.sites().len();
        self.is_known[id as usize].then(|| &self.estimates_ms[id as usize * n..][..n])
    }

    /// The measured network that a range belongs to.
    pub fn measured(&self, id: u32) -> Option<Measured> {
        self.measured.filter(|_| id as usize == self.len())
    }
}

/// Takes the pieces: first address, last address, number, what is known by number.
pub(super) type Each<'e> = dyn FnMut(u128, u128, u32, &Sites<'_>) + 'e;

/// Cuts located ranges of one family into pieces. Addresses are numbers, of IPv4 in the low 32 bits.
pub(super) struct Feed<'e> {
    sites: Sites<'e>,
    is_v6: bool,
    prefixes: Stream,
    systems: Stream,
    /// From the walk's number of a place to the number of its unmeasured pieces; `u32::MAX`: none yet.
    plain: Vec<u32>,
    /// The same for places within a system that is known to be different.
    by_system: HashMap<(u32, u32), u32>,
    /// The first address that was not looked at yet; `None`: all were.
    next: Option<u128>,
    coverage: Coverage,
}

impl<'e> Feed<'e> {
    /// Of IPv4.
    pub fn v4(estimator: &'e Estimator, asns: Option<&AsnTable>) -> Result<Self, GeoError> {
        let mut systems = Vec::new();
        if let Some(asns) = asns.filter(|_| estimator.knows_systems()) {
            asns.walk_v4(&mut |first, last, asn| note_system(estimator, &mut systems, first.into(), last.into(), asn))?;
        }
        Ok(Feed::new(estimator, false, estimator.v4().segments(), systems))
    }

    /// Of IPv6.
    pub fn v6(estimator: &'e Estimator, asns: Option<&AsnTable>) -> Result<Self, GeoError> {
        let mut systems = Vec::new();
        if let Some(asns) = asns.filter(|_| estimator.knows_systems()) {
            asns.walk_v6(&mut |first, last, asn| note_system(estimator, &mut systems, first, last, asn))?;
        }
        Ok(Feed::new(estimator, true, estimator.v6().segments(), systems))
    }

    fn new(estimator: &'e Estimator, is_v6: bool, prefixes: Vec<Segment>, systems: Vec<Segment>) -> Self {
        Feed {
            sites: Sites::new(estimator),
            is_v6,
            prefixes: Stream { segments: prefixes, at: 0 },
            systems: Stream { segments: systems, at: 0 },
            plain: Vec::new(),
            by_system: HashMap::new(),
            next: Some(0),
            coverage: Coverage::default(),
        }
    }

    /// What has been handed on so far.
    pub fn coverage(&self) -> Coverage {
        self.coverage.clone()
    }

    #[inline]
    fn hand_on(&mut self, first: u128, last: u128, id: u32, each: &mut Each<'_>) {
        if let Some(source) = self.sites.sources[id as usize] {
            let addresses = ((last - first) as u64).saturating_add(1);
            let sum = &mut self.coverage.addresses[source as usize];
            *sum = sum.saturating_add(addresses);
        }
        each(first, last, id, &self.sites);
    }

    /// Takes the next located range. `id` is the walk's number of its place.
    #[inline]
    pub fn push(&mut self, first: u128, last: u128, id: u32, place: &Place, each: &mut Each<'_>) {
        // So it is with most: nothing that was measured lies in it, or in the gap before it.
        if self.prefixes.begin_after(last) && self.systems.begin_after(last) {
            let id = self.plain(id, place);
            self.hand_on(first, last, id, each);
            self.next = last.checked_add(1);
            return;
        }
        if let Some(gap) = self.next.filter(|next| *next < first) {
            self.cut(gap, first - 1, None, each);
        }
        self.cut(first, last, Some((id, place)), each);
        self.next = last.checked_add(1);
    }

    /// After the last located range.
    pub fn finish(&mut self, each: &mut Each<'_>) {
        if let Some(gap) = self.next.filter(|_| !self.prefixes.is_behind()) {
            self.cut(gap, u128::MAX, None, each);
        }
    }

    /// Hands on what is located or measured of a range.
    fn cut(&mut self, first: u128, last: u128, located: Option<(u32, &Place)>, each: &mut Each<'_>) {
        let mut at = first;
        loop {
            let (prefix, prefix_last) = self.prefixes.at(at);
            let (asn, asn_last) = self.systems.at(at);
            let piece_last = last.min(prefix_last).min(asn_last);
            let id = match (prefix, located) {
                (Some(prefix), located) => Some(self.measured(at, prefix, asn, located.map(|(_, place)| place))),
                (None, Some((id, place))) => Some(match asn {
                    Some(asn) => self.of_system(id, asn, place),
                    None => self.plain(id, place),
                }),
                (None, None) => None,
            };
            if let Some(id) = id {
                self.hand_on(at, piece_last, id, each);
                self.sites.forget_measured();
            }
            if piece_last >= last {
                return;
            }
            at = piece_last + 1;
        }
    }

    /// The number of an unmeasured place.
    #[inline]
    fn plain(&mut self, id: u32, place: &Place) -> u32 {
        let index = id as usize;
        if index >= self.plain.len() {
            self.plain.resize(index + 1, u32::MAX);
        }
        if self.plain[index] == u32::MAX {
            self.plain[index] = self.sites.add(place, Client::default());
        }
        self.plain[index]
    }

    fn of_system(&mut self, id: u32, asn: u32, place: &Place) -> u32 {
        let sites = &mut self.sites;
        let client = Client { asn: Some(asn), prefix: None };
        *self.by_system.entry((id, asn)).or_insert_with(|| sites.add(place, client))
    }

    fn measured(&mut self, first: u128, prefix: u32, asn: Option<u32>, place: Option<&Place>) -> u32 {
        let (prefix, first) = match self.is_v6 {
            true => (MeasuredPrefix::V6(prefix), IpAddr::V6(first.into())),
            false => (MeasuredPrefix::V4(prefix), IpAddr::V4((first as u32).into())),
        };
        let client = Client { asn, prefix: Some(prefix) };
        self.sites.measured = Some(Measured { client, first });
        self.sites.add(place.unwrap_or(&Place::default()), client)
    }
}

fn note_system(estimator: &Estimator, systems: &mut Vec<Segment>, first: u128, last: u128, asn: u32) {
    if estimator.knows_system(asn) {
        systems.push((first, last, asn));
    }
}

/// First address, last address, number.
type Segment = (u128, u128, u32);

/// Ascending disjoint segments, read along.
struct Stream {
    segments: Vec<Segment>,
    at: usize,
}

impl Stream {
    /// True when all have been passed.
    fn is_behind(&self) -> bool {
        self.at >= self.segments.len()
    }

    /// True when all that have not been passed begin after an address.
    fn begin_after(&self, address: u128) -> bool {
        self.segments.get(self.at).is_none_or(|(first, ..)| *first > address)
    }

    /// The segment's number at an address, and up to which address that holds. Addresses are asked in ascending order.
    fn at(&mut self, address: u128) -> (Option<u32>, u128) {
        while self.segments.get(self.at).is_some_and(|segment| segment.1 < address) {
            self.at += 1;
        }
        match self.segments.get(self.at) {
            Some((first, last, number)) if *first <= address => (Some(*number), *last),
            Some((first, ..)) => (None, first - 1),
            None => (None, u128::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_tells_what_holds_and_how_far() {
        let mut stream = Stream { segments: vec![(5, 9, 1), (10, 10, 2), (20, u128::MAX, 3)], at: 0 };
        let told: Vec<_> = [0, 5, 9, 10, 11, 25].map(|address| stream.at(address)).to_vec();
        let expected = [(None, 4), (Some(1), 9), (Some(1), 9), (Some(2), 10), (None, 19), (Some(3), u128::MAX)];
        assert_eq!(told, expected);
    }
}
