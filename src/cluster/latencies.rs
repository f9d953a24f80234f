//! Round trips that the servers measured, each from its own region: what this server tells of its own, and what it keeps of the others'.
//! Every figure stands for itself, so that any that is lost is made up for when it is told again. A figure that its server tells no more is
//! forgotten; those of a server that tells nothing at all stay and grow old, since paths last for weeks. Takes times as arguments;
//! bounded whatever the others say.

mod kept;
mod teller;

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    time::{Duration, Instant},
};

pub use self::{
    kept::Kept,
    teller::{Own, Teller},
};
use super::{message, peers::PEERS_MAX};
use crate::{
    geo::Network,
    latency::{learn::KEEP_S, measurement::RTT_MS_MAX},
};

/// Networks of other servers that are kept, in all. Each server has an equal share.
const NETWORKS_MAX: usize = 200_000;
/// What its server has not told again for so long, though it tells others, is forgotten. A server that has told nothing for so long is
/// silent.
const FORGET_AFTER: Duration = Duration::from_secs(3600);
/// How often it is looked whether there is something to forget.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// A newest sample that is newer by so much is told, in seconds.
const AGE_STEP_S: u64 = 3600;
/// Most samples of a network, greatest age of a measurement (a year, in seconds) and longest name of a region (in bytes) that are believed.
const SAMPLES_MAX: u32 = 1_000_000_000;
const AGE_S_MAX: u64 = 366 * 86_400;
const REGION_BYTES_MAX: usize = 255;

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
        let message::Cell { ref network, rtt_ms, samples, age_s, sends_subnets } = *said;
        Cell { network: network.parse().ok()?, rtt_ms, samples, age_s, sends_subnets }.sound()
    }

    /// The same as all reckon with it, if it can be.
    fn sound(self) -> Option<Cell> {
        let Cell { rtt_ms, samples, age_s, .. } = self;
        let is_sound =
            rtt_ms > 0.0 && rtt_ms <= RTT_MS_MAX && (1..=SAMPLES_MAX).contains(&samples) && age_s <= AGE_S_MAX;
        is_sound.then(|| self.rounded())
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

impl Told {
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
    /// When it last told of any; `None`: not since this process began.
    told: Option<Instant>,
    /// When it began to tell, or began again after it was silent: what it told before may still be told again.
    since: Option<Instant>,
    /// It was not silent when that was last looked at.
    is_current: bool,
}

/// What another server measured, for who makes estimates of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Others {
    /// Where it stands, by name.
    pub region: String,
    /// It still tells; what a silent one measured is the second best.
    pub is_current: bool,
    /// Its networks, in no order.
    pub cells: Vec<Cell>,
}

/// What all servers measured.
#[derive(Debug, Default)]
pub struct Latencies {
    own: Option<Own>,
    by_node: BTreeMap<String, Heard>,
    generation: u64,
    changes: u64,
    left_out: u64,
    swept: Option<Instant>,
    /// What was written of the others was read since all was forgotten.
    is_recalled: bool,
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
        let is_sound = is_region(&said.region) && !said.networks.is_empty();
        if !is_sound || !self.make_room(from, said) {
            self.left_out += said.networks.len() as u64;
            return;
        }
        let share = self.share();
        let heard = self.by_node.entry(from.to_string()).or_default();
        if heard.region != said.region {
            *heard = Heard { region: said.region.clone(), is_current: true, ..Heard::default() };
        }
        if heard.told.is_none_or(|told| now.saturating_duration_since(told) >= FORGET_AFTER) {
            heard.since = Some(now);
        }
        heard.told = Some(now);
        let mut has_moved = false;
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
                    has_moved |= is_moved;
                    self.changes += u64::from(known.get().differs_from(&cell, now));
                    known.insert(Told { cell, at: now, counted_ms });
                }
                Entry::Vacant(_) if is_full => self.left_out += 1,
                Entry::Vacant(place) => {
                    place.insert(Told { cell, at: now, counted_ms: cell.rtt_ms });
                    has_moved = true;
                    self.changes += 1;
                }
            }
        }
        self.generation += u64::from(has_moved);
    }

    /// Makes room for what a server is about to tell: the shares of all that are not silent become smaller when it is one more, and
    /// what silent ones measured goes first. False when there are too many servers.
    fn make_room(&mut self, from: &str, said: &message::Cells) -> bool {
        let is_known = self.by_node.contains_key(from);
        let networks = match self.networks() + said.networks.len() > NETWORKS_MAX {
            true => self.new_networks(from, said),
            false => said.networks.len(),
        };
        while (!is_known && self.by_node.len() >= PEERS_MAX) || self.networks() + networks > NETWORKS_MAX {
            let silent = self.by_node.iter().filter(|(name, heard)| !heard.is_current && *name != from);
            let Some(longest) = silent.min_by_key(|(_, heard)| heard.told).map(|(name, _)| name.clone()) else { break };
            self.by_node.remove(&longest);
            self.note_change();
        }
        if !is_known && self.by_node.len() >= PEERS_MAX {
            return false;
        }
        let heard = self.by_node.entry(from.to_string()).or_default();
        if !std::mem::replace(&mut heard.is_current, true) {
            self.note_change(); // its figures count more from now on, if it has any
            let share = self.share();
            self.by_node.values_mut().for_each(|heard| heard.trim(share));
        }
        true
    }

    /// How many of the networks that a server tells of it has not told of before.
    fn new_networks(&self, from: &str, said: &message::Cells) -> usize {
        let known = self.by_node.get(from).filter(|heard| heard.region == said.region);
        let is_new = |cell: &Cell| known.is_none_or(|known| !known.networks.contains_key(&cell.network));
        said.networks.iter().filter_map(Cell::read).filter(is_new).count()
    }

    /// Networks that one server may have.
    fn share(&self) -> usize {
        NETWORKS_MAX / self.by_node.values().filter(|heard| heard.is_current).count().max(1)
    }

    fn note_change(&mut self) {
        self.generation += 1;
        self.changes += 1;
    }

    /// Forgets what is too old or is told no more, and notes who has fallen silent; to be called often.
    pub fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now.saturating_duration_since(swept) < SWEEP_EVERY) {
            return;
        }
        self.swept = Some(now);
        let mut has_changed = false;
        for heard in self.by_node.values_mut() {
            let (before, told, since) = (heard.networks.len(), heard.told, heard.since);
            let is_told_no_more = |at: Instant| {
                let at = since.map_or(at, |since| since.max(at));
                told.is_some_and(|told| told.saturating_duration_since(at) >= FORGET_AFTER)
            };
            heard.networks.retain(|_, known| !is_told_no_more(known.at) && known.as_of(now).age_s < KEEP_S);
            let is_current = told.is_some_and(|told| now.saturating_duration_since(told) < FORGET_AFTER);
            has_changed |= heard.networks.len() != before || heard.is_current != is_current;
            heard.is_current = is_current;
        }
        self.by_node.retain(|_, heard| !heard.networks.is_empty());
        if has_changed {
            self.note_change();
        }
    }

    /// Forgets what the others measured.
    pub fn forget(&mut self) {
        self.by_node.clear();
        self.is_recalled = false;
        self.note_change();
    }

    /// True when what was written of the others was taken in, and was not forgotten since.
    pub fn is_recalled(&self) -> bool {
        self.is_recalled
    }

    /// What the others measured.
    pub fn heard(&self, now: Instant) -> Vec<Others> {
        let all = self.by_node.values().map(|heard| Others {
            region: heard.region.clone(),
            is_current: heard.is_current,
            cells: heard.networks.values().map(|told| told.as_of(now)).collect(),
        });
        all.collect()
    }

    /// The other servers by name, where each stands, and how many networks it measured.
    pub fn networks_by_node(&self) -> impl Iterator<Item = (&str, &str, usize)> {
        self.by_node.iter().map(|(node, heard)| (node.as_str(), heard.region.as_str(), heard.networks.len()))
    }

    /// Of another server: its region, and how many networks it measured; `None`: nothing is known.
    pub fn of(&self, node: &str) -> Option<(&str, usize)> {
        self.by_node.get(node).map(|heard| (heard.region.as_str(), heard.networks.len()))
    }

    /// Counts up whenever what the others measured changes so much that estimates may: networks that come and go, levels that move by
    /// more than a millisecond, samples that are a third more or less, servers that fall silent.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Counts up whenever what the others measured is another than before, but for its age.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Figures that were left out, since they cannot be or there was no room.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    fn networks(&self) -> usize {
        self.by_node.values().map(|heard| heard.networks.len()).sum()
    }
}

/// True for what can be the name of a region.
fn is_region(text: &str) -> bool {
    (1..=REGION_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control)
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

    pub(super) fn cell(n: u32, rtt_ms: f32) -> Cell {
        let network = Network::of(std::net::Ipv4Addr::from_bits(n << 8).into());
        Cell { network, rtt_ms, samples: 4, age_s: 10, sends_subnets: false }
    }

    pub(super) fn said(cells: &[Cell]) -> message::Cells {
        message::Cells { region: "eu".into(), networks: cells.iter().map(Cell::written).collect() }
    }

    pub(super) const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_heard_grows_old_by_the_clock_here_and_is_forgotten_when_its_server_tells_it_no_more() {
        let begun = Instant::now();
        let mut latencies = Latencies::default();
        latencies.take("a", &said(&[cell(1, 10.0), cell(2, 20.0)]), begun);
        let (generation, changes) = (latencies.generation(), latencies.changes());
        latencies.take("a", &said(&[cell(1, 10.02)]), begun + MINUTE);
        assert_eq!((latencies.generation(), latencies.changes()), (generation, changes), "nothing new");
        let heard = latencies.heard(begun + 3 * MINUTE).remove(0).cells;
        assert!(heard.contains(&Cell { age_s: 130, ..cell(1, 10.0) }), "{heard:?}");
        latencies.take("a", &said(&[cell(1, 10.0)]), begun + 59 * MINUTE);
        latencies.sweep(begun + 59 * MINUTE);
        assert_eq!(latencies.of("a"), Some(("eu", 2)));
        latencies.take("a", &said(&[cell(1, 10.0)]), begun + 60 * MINUTE);
        latencies.sweep(begun + 61 * MINUTE);
        assert_eq!((latencies.of("a"), latencies.generation()), (Some(("eu", 1)), generation + 1));
    }

    #[test]
    fn what_a_silent_server_measured_is_the_second_best_and_stays_until_it_is_old() {
        const DAY: Duration = Duration::from_secs(86_400);
        let begun = Instant::now();
        let mut latencies = Latencies::default();
        latencies.take("a", &said(&[cell(1, 10.0)]), begun);
        let (is_current, generation) = (|all: &Latencies| all.heard(begun)[0].is_current, latencies.generation());
        latencies.sweep(begun + 59 * MINUTE);
        assert!(is_current(&latencies) && latencies.generation() == generation);
        latencies.sweep(begun + 60 * MINUTE);
        assert!(!is_current(&latencies) && latencies.generation() == generation + 1);
        latencies.sweep(begun + 20 * DAY);
        assert_eq!(latencies.heard(begun + 20 * DAY)[0].cells, [Cell { age_s: 20 * 86_400 + 10, ..cell(1, 10.0) }]);
        latencies.take("a", &said(&[cell(1, 10.0)]), begun + 20 * DAY);
        assert!(is_current(&latencies) && latencies.generation() > generation + 1);
        latencies.sweep(begun + 50 * DAY);
        assert_eq!(latencies.of("a"), None);
    }

    #[test]
    fn a_server_that_comes_back_has_an_hour_to_tell_the_rest_again() {
        let begun = Instant::now();
        let mut latencies = Latencies::default();
        latencies.take("a", &said(&[cell(1, 10.0), cell(2, 20.0)]), begun);
        latencies.take("a", &said(&[cell(1, 10.0)]), begun + 120 * MINUTE);
        latencies.sweep(begun + 121 * MINUTE);
        assert_eq!(latencies.of("a"), Some(("eu", 2)));
        latencies.take("a", &said(&[cell(1, 10.0)]), begun + 160 * MINUTE);
        latencies.take("a", &said(&[cell(1, 10.0)]), begun + 180 * MINUTE);
        latencies.sweep(begun + 180 * MINUTE);
        assert_eq!(latencies.of("a"), Some(("eu", 1)));
    }

    #[test]
    fn what_is_told_again_needs_no_room() {
        let begun = Instant::now();
        let mut latencies = Latencies::default();
        let all: Vec<Cell> = (0..NETWORKS_MAX as u32 / 2).map(|n| cell(n, 10.0)).collect();
        latencies.take("gone", &said(&all), begun);
        latencies.take("a", &said(&all), begun + 30 * MINUTE);
        latencies.sweep(begun + 60 * MINUTE);
        latencies.take("a", &said(&all), begun + 61 * MINUTE);
        assert_eq!(latencies.of("gone"), Some(("eu", NETWORKS_MAX / 2)));
    }

    #[test]
    fn what_silent_servers_measured_makes_room_first() {
        let begun = Instant::now();
        let mut latencies = Latencies::default();
        let all: Vec<Cell> = (0..NETWORKS_MAX as u32 / 2).map(|n| cell(n, 10.0)).collect();
        latencies.take("gone", &said(&all), begun);
        latencies.take("a", &said(&all), begun + 30 * MINUTE);
        latencies.sweep(begun + 60 * MINUTE);
        latencies.take("b", &said(&all), begun + 61 * MINUTE);
        assert_eq!([latencies.of("gone"), latencies.of("b")], [None, Some(("eu", NETWORKS_MAX / 2))]);
        assert_eq!((latencies.networks(), latencies.left_out()), (NETWORKS_MAX, 0));
        for n in 0..PEERS_MAX + 5 {
            latencies.take(&format!("n{n}"), &said(&[cell(1, 10.0)]), begun + 62 * MINUTE);
        }
        assert_eq!(latencies.by_node.len(), PEERS_MAX);
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
        assert_eq!(latencies.of("a").map(|(_, networks)| networks), Some(latencies.networks()));
        latencies.take("b", &said(&all), now);
        assert_eq!(latencies.networks(), NETWORKS_MAX);
        assert!(latencies.heard(now)[0].cells.iter().all(|cell| cell.samples == 2), "those with most samples stay");
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
