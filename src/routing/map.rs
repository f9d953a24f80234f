//! From a client's address to its rule, its ranking and the scope of both.
//!
//! The map is compiled: ranges that cover the whole address space. The scope of an answer is the shortest prefix
//! around the address that lies inside its range, since throughout the range rule and ranking are the same.

use std::net::IpAddr;

use super::ranges::RangeMap;
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
        (self.v4.len(), self.v6.len())
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
