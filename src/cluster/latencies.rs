//! Round trips that the servers measured, each from its own region: what this server tells of its own, and what it keeps of the others'.
//! Every figure stands for itself, so that any that is lost is made up for when it is told again; what is not told again for an hour is
//! forgotten. Takes times as arguments; bounded whatever the others say.

use std::{
    collections::{BTreeMap, HashMap, HashSet, hash_map::Entry},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    message::{self, NETWORKS_AT_ONCE},
    peers::PEERS_MAX,
};
use crate::{geo::Network, latency::measurement::RTT_MS_MAX};

/// Networks of other servers that are kept, in all. Each server has an equal share.
const NETWORKS_MAX: usize = 200_000;
/// What has not changed is told again after so long.
const AGAIN_AFTER: Duration = Duration::from_secs(600);
/// What its server has not told again for so long is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(3600);
/// How often it is looked whether there is something to forget.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// A newest sample that is newer by so much is told, in seconds.
const AGE_STEP_S: u64 = 3600;
/// Most samples of a network, greatest age of a measurement (a year, in seconds) and longest name of a region (in bytes) that are believed.
const SAMPLES_MAX: u32 = 1_000_000_000;
const AGE_S_MAX: u64 = 366 * 86_400;
const REGION_BYTES_MAX: usize = 255;
/// Networks that may have been told and are no longer known, before they are looked for.
const STALE_MAX: usize = 8_192;

/// A network's round trip to the region of the server that measured it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
    /// The network.
    pub network: Network,
    /// Milliseconds, above 0.
    pub rtt_ms: f32,
    /// Samples behind it, at least 1.
    pub samples: u32,
    /// Seconds since the newest of them.
    pub age_s: u64,
    /// Its resolvers send client subnets.
    pub sends_subnets: bool,
}

impl Cell {
    /// As all servers reckon with it, so that they come to the same estimates: milliseconds by steps of a hundredth or less, samples by
    /// steps of a third or less. What changes by less is not worth a message either.
    pub fn rounded(self) -> Cell {
        let step_ms = match self.rtt_ms {
            ..20.0 => 0.1,
            ..100.0 => 0.5,
            _ => 1.0,
        };
        let rtt_ms = ((f64::from(self.rtt_ms) / step_ms).round().max(1.0) * step_ms * 10.0).round() / 10.0;
        let shift = (u32::BITS - self.samples.leading_zeros()).saturating_sub(2);
        Cell { rtt_ms: rtt_ms as f32, samples: self.samples >> shift << shift, ..self }
    }

    fn figures(&self) -> (f32, u32, bool) {
        (self.rtt_ms, self.samples, self.sends_subnets)
    }

    fn older(self, by: Duration) -> Cell {
        Cell { age_s: self.age_s.saturating_add(by.as_secs()), ..self }
    }

    fn written(&self) -> message::Cell {
        let Cell { network, rtt_ms, samples, age_s, sends_subnets } = *self;
        message::Cell { network: network.to_string(), rtt_ms, samples, age_s, sends_subnets }
    }

    /// `None` for what no server of ours has measured.
    fn read(said: &message::Cell) -> Option<Cell> {
        let message::Cell { network: ref text, rtt_ms, samples, age_s, sends_subnets } = *said;
        let is_sound =
            rtt_ms > 0.0 && rtt_ms <= RTT_MS_MAX && (1..=SAMPLES_MAX).contains(&samples) && age_s <= AGE_S_MAX;
        let network = text.parse().ok().filter(|_| is_sound)?;
        Some(Cell { network, rtt_ms, samples, age_s, sends_subnets }.rounded())
    }
}

/// A figure and when it was told.
#[derive(Debug, Clone, Copy)]
struct Told {
    cell: Cell,
    at: Instant,
    /// Milliseconds when it last counted as changed: what creeps changes, too, in the end.
    counted_ms: f32,
}

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

    fn differs_from(&self, cell: &Cell, now: Instant) -> bool {
        let known = self.as_of(now);
        known.figures() != cell.figures() || known.age_s >= cell.age_s.saturating_add(AGE_STEP_S)
    }

    /// So much that estimates may differ, too.
    fn moves_estimates(&self, cell: &Cell, now: Instant) -> bool {
        let nearly = Cell { rtt_ms: self.cell.rtt_ms, ..*cell };
        (self.counted_ms - cell.rtt_ms).abs() > 1.0 || self.differs_from(&nearly, now)
    }

    fn as_of(&self, now: Instant) -> Cell {
        self.cell.older(now.saturating_duration_since(self.at))
    }
}

/// What another server measured.
#[derive(Debug, Default)]
struct Heard {
    /// Where it stands, by name.
    region: String,
    networks: HashMap<Network, Told>,
}

/// What all servers measured.
#[derive(Debug, Default)]
pub struct Latencies {
    own: Option<Own>,
    by_node: BTreeMap<String, Heard>,
    generation: u64,
    left_out: u64,
    swept: Option<Instant>,
}

impl Latencies {
    /// What this server measured; `None`: it does not learn.
    pub fn own(&self) -> Option<&Own> {
        self.own.as_ref()
    }

    /// Takes up what this server measured.
    pub fn measure(&mut self, own: Option<Own>) {
        self.own = own;
    }

    /// Takes in what another server measured. What cannot be, and what is beyond its share, is left out.
    pub fn take(&mut self, from: &str, said: &message::Cells, now: Instant) {
        let region = &said.region;
        let is_region = (1..=REGION_BYTES_MAX).contains(&region.len()) && !region.contains(char::is_control);
        let is_new = !self.by_node.contains_key(from);
        if !is_region || said.networks.is_empty() || is_new && self.by_node.len() >= PEERS_MAX {
            self.left_out += said.networks.len() as u64;
            return;
        }
        let share = NETWORKS_MAX / (self.by_node.len() + usize::from(is_new));
        if is_new {
            self.by_node.values_mut().for_each(|heard| heard.trim(share));
        }
        let heard = self.by_node.entry(from.to_string()).or_default();
        if heard.region != *region {
            *heard = Heard { region: region.clone(), networks: HashMap::new() };
        }
        let mut has_changed = false;
        for said in &said.networks {
            let is_full = heard.networks.len() >= share;
            let Some(cell) = Cell::read(said) else {
                self.left_out += 1;
                continue;
            };
            match heard.networks.entry(cell.network) {
                Entry::Occupied(mut known) => {
                    let is_moved = known.get().moves_estimates(&cell, now);
                    let counted_ms = if is_moved { cell.rtt_ms } else { known.get().counted_ms };
                    has_changed |= is_moved;
                    known.insert(Told { cell, at: now, counted_ms });
                }
                Entry::Vacant(_) if is_full => self.left_out += 1,
                Entry::Vacant(place) => {
                    place.insert(Told { cell, at: now, counted_ms: cell.rtt_ms });
                    has_changed = true;
                }
            }
        }
        self.generation += u64::from(has_changed);
    }

    /// Forgets what was not told again for too long; to be called often.
    pub fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now.saturating_duration_since(swept) < SWEEP_EVERY) {
            return;
        }
        self.swept = Some(now);
        let before = self.networks();
        for heard in self.by_node.values_mut() {
            heard.networks.retain(|_, told| now.saturating_duration_since(told.at) < FORGET_AFTER);
        }
        self.by_node.retain(|_, heard| !heard.networks.is_empty());
        self.generation += u64::from(self.networks() != before);
    }

    /// Forgets what the others measured.
    pub fn forget(&mut self) {
        self.by_node.clear();
        self.generation += 1;
    }

    /// What the others measured: the region of each, and its networks in no order.
    pub fn heard(&self, now: Instant) -> Vec<(String, Vec<Cell>)> {
        let cells = |heard: &Heard| heard.networks.values().map(|told| told.as_of(now)).collect();
        self.by_node.values().map(|heard| (heard.region.clone(), cells(heard))).collect()
    }

    /// Of another server: its region, and how many networks it measured; `None`: nothing was heard.
    pub fn of(&self, node: &str) -> Option<(&str, usize)> {
        self.by_node.get(node).map(|heard| (heard.region.as_str(), heard.networks.len()))
    }

    /// Counts up whenever what the others measured changes so much that estimates may: networks that come and go, levels that move by
    /// more than a millisecond, samples that are a third more or less.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Figures that were left out, since they cannot be or there was no room.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    fn networks(&self) -> usize {
        self.by_node.values().map(|heard| heard.networks.len()).sum()
    }
}

impl Heard {
    /// Keeps so many: those with most samples behind them.
    fn trim(&mut self, share: usize) {
        if self.networks.len() <= share {
            return;
        }
        let mut all: Vec<(u32, Network)> =
            self.networks.values().map(|told| (told.cell.samples, told.cell.network)).collect();
        all.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        for (_, network) in &all[share..] {
            self.networks.remove(network);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(n: u32, rtt_ms: f32) -> Cell {
        let network = Network::of(std::net::Ipv4Addr::from_bits(n << 8).into());
        Cell { network, rtt_ms, samples: 4, age_s: 10, sends_subnets: false }
    }

    fn own(cells: Vec<Cell>, at: Instant) -> Own {
        Own { region: "eu".into(), cells: cells.into(), at }
    }

    fn said(cells: &[Cell]) -> message::Cells {
        message::Cells { region: "eu".into(), networks: cells.iter().map(Cell::written).collect() }
    }

    const MINUTE: Duration = Duration::from_secs(60);

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

    #[test]
    fn what_is_heard_grows_old_by_the_clock_here_and_is_forgotten_when_nobody_tells_it_again() {
        let begun = Instant::now();
        let mut latencies = Latencies::default();
        latencies.take("a", &said(&[cell(1, 10.0)]), begun);
        assert_eq!(latencies.generation(), 1);
        latencies.take("a", &said(&[cell(1, 10.02)]), begun + MINUTE);
        assert_eq!(latencies.generation(), 1, "nothing new");
        assert_eq!(latencies.heard(begun + 3 * MINUTE)[0].1, [Cell { age_s: 130, ..cell(1, 10.0) }]);
        latencies.sweep(begun + 59 * MINUTE);
        assert_eq!(latencies.of("a"), Some(("eu", 1)));
        latencies.sweep(begun + 61 * MINUTE);
        assert_eq!((latencies.of("a"), latencies.generation()), (None, 2));
    }

    #[test]
    fn what_cannot_be_is_left_out() {
        let now = Instant::now();
        let mut latencies = Latencies::default();
        let good = cell(1, 10.0).written();
        let networks = vec![
            message::Cell { network: "192.0.2.0/25".into(), ..good.clone() },
            message::Cell { rtt_ms: -1.0, ..good.clone() },
            message::Cell { rtt_ms: f32::INFINITY, ..good.clone() },
            message::Cell { samples: 0, ..good.clone() },
            message::Cell { age_s: u64::MAX, ..good.clone() },
            good.clone(),
        ];
        latencies.take("a", &message::Cells { region: "eu".into(), networks }, now);
        assert_eq!((latencies.of("a"), latencies.left_out()), (Some(("eu", 1)), 5));
        latencies.take("b", &message::Cells { region: "e\nu".into(), networks: vec![good.clone()] }, now);
        assert_eq!((latencies.of("b"), latencies.left_out()), (None, 6));
        latencies.take("a", &message::Cells { region: "us".into(), networks: vec![good] }, now);
        assert_eq!(latencies.of("a"), Some(("us", 1)), "it stands elsewhere now");
    }

    #[test]
    fn servers_share_the_room_there_is() {
        let now = Instant::now();
        let mut latencies = Latencies::default();
        let all: Vec<Cell> =
            (0..NETWORKS_MAX as u32 + 5).map(|n| Cell { samples: 1 + n % 2, ..cell(n, 10.0) }).collect();
        latencies.take("a", &said(&all), now);
        assert_eq!((latencies.of("a"), latencies.left_out()), (Some(("eu", NETWORKS_MAX)), 5));
        latencies.take("b", &said(&all), now);
        assert_eq!(latencies.networks(), NETWORKS_MAX);
        assert!(latencies.heard(now)[0].1.iter().all(|cell| cell.samples == 2), "those with most samples stay");
    }

    #[test]
    fn rounding_keeps_a_figure_close_and_changes_nothing_twice() {
        for (ms, samples, expected) in
            [(0.01, 1, (0.1, 1)), (12.34, 7, (12.3, 6)), (47.8, 13, (48.0, 12)), (123.4, u32::MAX, (123.0, 3 << 30))]
        {
            let rounded = Cell { samples, ..cell(1, ms) }.rounded();
            assert_eq!((rounded.rtt_ms, rounded.samples), expected);
            assert_eq!(rounded.rounded(), rounded);
        }
    }
}
