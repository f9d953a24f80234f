//! What this server tells of its own round trips, and when: what changed at once, the rest now and then.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    super::message::{self, NETWORKS_AT_ONCE},
    Cell, Told,
};
use crate::geo::Network;

/// What has not changed is told again after so long.
const AGAIN_AFTER: Duration = Duration::from_secs(600);
/// Networks that may have been told and are no longer known, before they are looked for.
const STALE_MAX: usize = 8_192;

/// What this server measured, at one moment.
#[derive(Debug, Clone)]
pub struct Own {
    /// Where it stands, by name.
    pub region: String,
    /// The heaviest networks first; rounded.
    pub cells: Arc<[Cell]>,
    /// When they were as old as they say.
    pub at: Instant,
}

impl Own {
    /// All of it, as it is told now.
    pub fn blocks(&self, now: Instant) -> impl Iterator<Item = message::Cells> {
        let gone = now.saturating_duration_since(self.at);
        self.cells.chunks(NETWORKS_AT_ONCE).map(move |cells| message::Cells {
            region: self.region.clone(),
            networks: cells.iter().map(|cell| cell.older(gone).written()).collect(),
        })
    }
}

/// Remembers what the others were told.
#[derive(Debug, Default)]
pub struct Teller {
    region: String,
    told: HashMap<Network, Told>,
}

impl Teller {
    /// What is to be told now: what changed, and what was last told too long ago; the heaviest first, and no more than goes into one
    /// message. `None`: nothing.
    pub fn round(&mut self, own: &Own, now: Instant) -> Option<message::Cells> {
        if self.region != own.region {
            *self = Teller { region: own.region.clone(), told: HashMap::new() };
        }
        if self.told.len() > own.cells.len() + STALE_MAX {
            let known: HashSet<Network> = own.cells.iter().map(|cell| cell.network).collect();
            self.told.retain(|network, _| known.contains(network));
        }
        let gone = now.saturating_duration_since(own.at);
        let mut networks = Vec::new();
        for cell in own.cells.iter().map(|cell| cell.older(gone)) {
            if self.told.get(&cell.network).is_none_or(|told| told.is_outdated_by(&cell, now)) {
                self.told.insert(cell.network, Told { cell, at: now, counted_ms: cell.rtt_ms });
                networks.push(cell.written());
                if networks.len() == NETWORKS_AT_ONCE {
                    break;
                }
            }
        }
        (!networks.is_empty()).then(|| message::Cells { region: own.region.clone(), networks })
    }
}

impl Told {
    fn is_outdated_by(&self, cell: &Cell, now: Instant) -> bool {
        now.saturating_duration_since(self.at) >= AGAIN_AFTER || self.differs_from(cell, now)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{MINUTE, cell},
        *,
    };

    fn own(cells: Vec<Cell>, at: Instant) -> Own {
        Own { region: "eu".into(), cells: cells.into(), at }
    }

    #[test]
    fn what_changed_is_told_at_once_and_all_of_it_now_and_then() {
        let begun = Instant::now();
        let mut teller = Teller::default();
        let mut told = |cells: &[Cell], at: Instant| {
            let block = teller.round(&own(cells.to_vec(), at), at);
            block.map_or(0, |block| block.networks.len())
        };
        assert_eq!(told(&[cell(1, 10.0), cell(2, 20.0)], begun), 2);
        assert_eq!(told(&[cell(1, 10.0), cell(2, 20.0)], begun + MINUTE), 0);
        assert_eq!(told(&[cell(1, 10.0), cell(2, 21.0), cell(3, 5.0)], begun + 2 * MINUTE), 2);
        assert_eq!(told(&[cell(1, 10.0), cell(2, 21.0), cell(3, 5.0)], begun + 10 * MINUTE), 1);
        assert_eq!(told(&[cell(1, 10.0), cell(2, 21.0), cell(3, 5.0)], begun + 12 * MINUTE), 2);
    }

    #[test]
    fn the_heaviest_are_told_first_and_never_too_many_at_once() {
        let now = Instant::now();
        // As unlike each other as networks are: 24 bits of a prefix, and figures that have nothing to do with it.
        let unlike = |n: u32| {
            let bits = n.wrapping_mul(0x9e37_79b1);
            let (rtt_ms, samples) = ((bits >> 3 & 0x3ff) as f32 / 4.0 + 1.0, 1 + (bits >> 13 & 31));
            Cell { samples, age_s: (bits % 86_400).into(), ..cell(bits >> 8, rtt_ms) }.rounded()
        };
        let all: Vec<Cell> = (0..NETWORKS_AT_ONCE as u32 * 2 + 5).map(unlike).collect();
        let (mut teller, own) = (Teller::default(), own(all, now));
        let mut rounds = Vec::new();
        while let Some(block) = teller.round(&own, now) {
            rounds.push(block.networks.len());
            let bytes = message::Message { cells: Some(block), ..message::Message::default() }.encode();
            assert!(bytes.len() < 30_000, "{} bytes", bytes.len());
        }
        assert_eq!(rounds, [NETWORKS_AT_ONCE, NETWORKS_AT_ONCE, 5]);
        assert_eq!(own.blocks(now).next().unwrap().networks[0].network, "0.0.0.0/24");
    }
}
