//! What was measured of each resolver's network: bounded in memory, the heaviest kept. Has one owner, who tells it the time.

use std::collections::{
    HashMap,
    hash_map::Entry::{Occupied, Vacant},
};

use serde::{Deserialize, Serialize};

use super::path::{Path, Step};
use crate::geo::Network;

/// Networks that are kept: more than send nine tenths of the queries of any zone, in some ten megabytes.
pub const NETWORKS_MAX: usize = 65_536;

/// So many more are let in before the lightest are put out: a newcomer has time to show its weight, and putting out costs little for
/// each.
const NEWCOMERS_MAX: usize = NETWORKS_MAX / 8;

/// The weight of queries halves in so long.
const WEIGHT_HALF_LIFE_S: u64 = 24 * 3600;

/// What was last measured so long ago is forgotten, in seconds.
pub const KEEP_S: u64 = 30 * 24 * 3600;

/// A network that sent client subnets within this long counts as one that does.
const SUBNETS_LAST_S: u64 = 7 * 24 * 3600;

/// So many networks that are not measured yet are remembered as senders of client subnets, at least, and twice as many at most.
const UNMEASURED_MAX: usize = 8192;

/// The lowest round trips that are believed, in microseconds: none at all, and none that only a stalled host can have.
const BELIEVED_US: std::ops::RangeInclusive<u32> = 1..=5_000_000;

/// The networks.
#[derive(Debug, Default)]
pub struct Store {
    networks: HashMap<Network, Entry>,
    /// When a client subnet came from networks that are not measured yet: a query comes before its connection's end.
    unmeasured_subnets: HashMap<Network, u64>,
    /// Those that were noted before these.
    unmeasured_before: HashMap<Network, u64>,
    generation: u64,
    taken: u64,
    jumps: u64,
}

/// One network.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    path: Path,
    /// Queries at `weighed_s`, older ones counting less.
    weight: f64,
    weighed_s: u64,
    /// When a query of its hosts had a client subnet; 0: never.
    subnet_s: u64,
    /// Milliseconds when it last counted as changed: a level that creeps changes, too, in the end.
    counted_ms: Option<f32>,
}

/// What is known of a network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// The network.
    pub network: Network,
    /// Milliseconds of round trip.
    pub rtt_ms: f32,
    /// Samples behind it, at least 1, however old.
    pub samples: u32,
    /// When the newest of them came, Unix time in seconds.
    pub newest_s: u64,
    /// Its resolvers send client subnets: they speak for themselves and not for the clients around them.
    pub sends_subnets: bool,
    /// Queries of the last days, the newest counting most.
    pub weight: f64,
}

/// What became of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It was taken in: so many stand behind the path now, and whether it is in doubt.
    In {
        /// Samples behind the path.
        samples: u32,
        /// It may be about to jump.
        is_in_doubt: bool,
    },
    /// It cannot be true.
    Refused,
}

/// A network as it is written to a file and read back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Remembered {
    network: String,
    #[serde(flatten)]
    path: Path,
    weight: f64,
    weighed_s: u64,
    #[serde(default)]
    subnet_s: u64,
}

impl Store {
    /// Takes in the round trip of one connection, in microseconds.
    pub fn take(&mut self, network: Network, sample_us: u32, now_s: u64) -> Taken {
        if !BELIEVED_US.contains(&sample_us) {
            return Taken::Refused;
        }
        self.taken += 1;
        let before = self.of(network, now_s);
        let entry = match self.networks.entry(network) {
            Occupied(known) => {
                let entry = known.into_mut();
                self.jumps += u64::from(entry.path.take(sample_us, now_s) == Step::Jumped);
                entry
            }
            Vacant(new) => new.insert(Entry {
                path: Path::new(sample_us, now_s),
                weight: 0.0,
                weighed_s: now_s,
                subnet_s: [&mut self.unmeasured_subnets, &mut self.unmeasured_before]
                    .into_iter()
                    .filter_map(|noted| noted.remove(&network))
                    .max()
                    .unwrap_or(0),
                counted_ms: None,
            }),
        };
        entry.weigh(1.0, now_s);
        let taken = Taken::In { samples: entry.path.samples(), is_in_doubt: entry.path.is_in_doubt() };
        let after = self.of(network, now_s);
        let carries = |known: Option<Measured>| known.map(|known| known.carries());
        if let Some(entry) = self.networks.get_mut(&network) {
            let ms = after.map(|after| after.rtt_ms);
            let has_moved = match (entry.counted_ms, ms) {
                (Some(counted), Some(ms)) => (ms - counted).abs() > 1.0,
                (counted, ms) => counted.is_some() != ms.is_some(),
            };
            if has_moved || carries(before) != carries(after) {
                entry.counted_ms = ms;
                self.generation += 1;
            }
        }
        if self.networks.len() > NETWORKS_MAX + NEWCOMERS_MAX {
            self.put_out_the_lightest(now_s);
        }
        taken
    }

    /// So many queries came from a network, whether it is known or not.
    pub fn weigh(&mut self, network: Network, queries: f64, now_s: u64) {
        if let Some(entry) = self.networks.get_mut(&network) {
            entry.weigh(queries, now_s);
        }
    }

    /// A query with a client subnet came from a network, whether it is known or not.
    pub fn note_subnet(&mut self, network: Network, now_s: u64) {
        let Some(entry) = self.networks.get_mut(&network) else {
            if self.unmeasured_subnets.len() >= UNMEASURED_MAX {
                self.unmeasured_before = std::mem::take(&mut self.unmeasured_subnets);
            }
            self.unmeasured_subnets.insert(network, now_s);
            return;
        };
        if !entry.sends_subnets(now_s) {
            self.generation += 1;
        }
        entry.subnet_s = entry.subnet_s.max(now_s);
    }

    /// What is known, in no order; what is to be forgotten is left out.
    pub fn measured(&self, now_s: u64) -> impl Iterator<Item = Measured> {
        self.networks.iter().filter_map(move |(network, entry)| entry.measured(*network, now_s))
    }

    /// What is known of one network.
    pub fn of(&self, network: Network, now_s: u64) -> Option<Measured> {
        self.networks.get(&network)?.measured(network, now_s)
    }

    /// Networks held.
    pub fn len(&self) -> usize {
        self.networks.len()
    }

    /// True when nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    /// Round trips taken in.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Counts up whenever what is known changes so much that estimates may: networks that come and go, levels that move by more than
    /// a millisecond, each of the first samples, and later twice as many.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Paths that became others since the start.
    pub fn jumps(&self) -> u64 {
        self.jumps
    }

    /// Forgets what is too old; to be called now and then.
    pub fn forget_old(&mut self, now_s: u64) {
        let before = self.networks.len();
        self.networks.retain(|_, entry| !entry.is_forgotten(now_s));
        self.generation += u64::from(self.networks.len() != before);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.networks = HashMap::new();
        self.generation += 1;
    }

    /// All of it, for a file: the heaviest first, at most [`NETWORKS_MAX`].
    pub fn remember(&self, now_s: u64) -> Vec<Remembered> {
        let mut all: Vec<(&Network, &Entry)> = self.networks.iter().collect();
        all.sort_by(|(a, x), (b, y)| y.weight_at(now_s).total_cmp(&x.weight_at(now_s)).then(a.cmp(b)));
        let remembered = |(network, entry): &(&Network, &Entry)| Remembered {
            network: network.to_string(),
            path: entry.path.clone(),
            weight: entry.weight,
            weighed_s: entry.weighed_s,
            subnet_s: entry.subnet_s,
        };
        all.iter().take(NETWORKS_MAX).map(remembered).collect()
    }

    /// Takes in what was remembered, in place of what there was. What does not hold together, or lies in the future, is left out:
    /// how many of them.
    pub fn recall(&mut self, remembered: Vec<Remembered>, now_s: u64) -> usize {
        let count = remembered.len();
        let sound = remembered.into_iter().filter(|known| known.is_sound(now_s)).filter_map(|known| {
            let Remembered { network, path, weight, weighed_s, subnet_s } = known;
            let counted_ms = Some(path.level_us() as f32 / 1e3); // the maps that follow are made of it
            Some((network.parse().ok()?, Entry { path, weight, weighed_s, subnet_s, counted_ms }))
        });
        self.networks = sound.take(NETWORKS_MAX).collect();
        self.forget_old(now_s);
        self.generation += 1;
        count - self.networks.len()
    }

    fn put_out_the_lightest(&mut self, now_s: u64) {
        let mut weights: Vec<f64> = self.networks.values().map(|entry| entry.weight_at(now_s)).collect();
        let surplus = weights.len() - NETWORKS_MAX;
        let (lighter, limit, _) = weights.select_nth_unstable_by(surplus - 1, f64::total_cmp);
        let limit = *limit;
        // Whoever is lighter than the last one that must go, and of those as light as that only so many as must.
        let mut as_light = surplus - lighter.iter().filter(|weight| **weight < limit).count();
        self.networks.retain(|_, entry| {
            let weight = entry.weight_at(now_s);
            let goes = weight < limit || weight == limit && as_light > 0;
            as_light -= usize::from(goes && weight == limit);
            !goes
        });
    }
}

impl Measured {
    /// What its samples are worth, in steps.
    fn carries(&self) -> u32 {
        /// From here on one more sample says little.
        const MANY: u32 = 8;
        self.samples.min(MANY) + self.samples.max(MANY).ilog2()
    }
}

impl Entry {
    fn weigh(&mut self, queries: f64, now_s: u64) {
        self.weight = self.weight_at(now_s) + queries;
        self.weighed_s = self.weighed_s.max(now_s);
    }

    fn weight_at(&self, now_s: u64) -> f64 {
        let age_s = now_s.saturating_sub(self.weighed_s);
        self.weight * 0.5f64.powf(age_s as f64 / WEIGHT_HALF_LIFE_S as f64)
    }

    fn is_forgotten(&self, now_s: u64) -> bool {
        now_s.saturating_sub(self.path.newest_s()) >= KEEP_S
    }

    fn sends_subnets(&self, now_s: u64) -> bool {
        self.subnet_s > 0 && now_s.saturating_sub(self.subnet_s) < SUBNETS_LAST_S
    }

    fn measured(&self, network: Network, now_s: u64) -> Option<Measured> {
        (!self.is_forgotten(now_s)).then(|| Measured {
            network,
            rtt_ms: self.path.level_us() as f32 / 1e3,
            samples: self.path.samples(),
            newest_s: self.path.newest_s(),
            sends_subnets: self.sends_subnets(now_s),
            weight: self.weight_at(now_s),
        })
    }
}

impl Remembered {
    fn is_sound(&self, now_s: u64) -> bool {
        /// A clock may have been set back a little.
        const AHEAD_S_MAX: u64 = 24 * 3600;
        let latest_s = self.path.newest_s().max(self.weighed_s).max(self.subnet_s);
        self.path.is_sound() && self.weight.is_finite() && self.weight >= 0.0 && latest_s <= now_s + AHEAD_S_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 1_800_000_000;
    const DAY_S: u64 = 24 * 3600;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    fn numbered(n: usize) -> Network {
        Network::of(std::net::Ipv4Addr::from_bits((n as u32) << 8).into())
    }

    #[test]
    fn the_lowest_of_five_handshakes_is_what_is_known() {
        let mut store = Store::default();
        let eu = network("192.0.2.0/24");
        for (n, us) in [21_900, 21_400, 22_000, 23_700, 21_500].into_iter().enumerate() {
            assert_ne!(store.take(eu, us, NOW_S + n as u64), Taken::Refused);
        }
        let known = store.of(eu, NOW_S + 10).unwrap();
        assert_eq!((known.rtt_ms, known.samples, known.newest_s), (21.4, 5, NOW_S + 4));
        assert_eq!(store.of(network("192.0.3.0/24"), NOW_S), None);
        assert_eq!((store.len(), store.jumps()), (1, 0));
    }

    #[test]
    fn impossible_round_trips_are_refused() {
        let mut store = Store::default();
        for us in [0, 5_000_001, u32::MAX] {
            assert_eq!(store.take(network("192.0.2.0/24"), us, NOW_S), Taken::Refused);
        }
        assert!(store.is_empty());
        assert_eq!(store.generation(), 0);
    }

    #[test]
    fn every_change_shows_in_the_generation_and_nothing_else_does() {
        let mut store = Store::default();
        let (eu, other) = (network("192.0.2.0/24"), network("2001:db8::/56"));
        let mut generation = 0;
        let mut changed = |store: &Store| std::mem::replace(&mut generation, store.generation()) != store.generation();
        store.take(eu, 20_000, NOW_S);
        assert!(changed(&store));
        store.take(eu, 20_000, NOW_S);
        assert!(changed(&store), "twice as many");
        for _ in 0..7 {
            store.take(eu, 20_000, NOW_S);
        }
        assert!(changed(&store), "many");
        store.take(eu, 20_100, NOW_S);
        assert!(!changed(&store), "one more than many");
        store.note_subnet(eu, NOW_S);
        assert!(changed(&store));
        store.note_subnet(eu, NOW_S + 1);
        store.note_subnet(other, NOW_S);
        store.weigh(eu, 1000.0, NOW_S);
        store.weigh(other, 1000.0, NOW_S);
        store.forget_old(NOW_S + DAY_S);
        assert!(!changed(&store));
        store.forget_old(NOW_S + KEEP_S);
        assert!(changed(&store) && store.is_empty());
    }

    #[test]
    fn samples_stay_as_many_as_they_were_until_the_network_is_forgotten() {
        let mut store = Store::default();
        let eu = network("192.0.2.0/24");
        for _ in 0..8 {
            store.take(eu, 20_000, NOW_S);
        }
        // Estimates count old ones less: doing so here, too, would do it twice.
        let known = |later_s| store.of(eu, NOW_S + later_s).map(|known| known.samples);
        assert_eq!([0, 7 * DAY_S, KEEP_S - 1, KEEP_S].map(known), [Some(8), Some(8), Some(8), None]);
    }

    #[test]
    fn a_network_sends_subnets_as_long_as_the_last_one_is_not_a_week_old() {
        let mut store = Store::default();
        let eu = network("192.0.2.0/24");
        store.take(eu, 20_000, NOW_S);
        let sends = |store: &Store, now_s| store.of(eu, now_s).unwrap().sends_subnets;
        assert!(!sends(&store, NOW_S));
        store.note_subnet(eu, NOW_S);
        assert!(sends(&store, NOW_S) && sends(&store, NOW_S + SUBNETS_LAST_S - 1));
        store.take(eu, 20_000, NOW_S + SUBNETS_LAST_S);
        assert!(!sends(&store, NOW_S + SUBNETS_LAST_S));
    }

    #[test]
    fn subnets_that_come_before_the_first_measurement_count() {
        let mut store = Store::default();
        for n in 0..3 * UNMEASURED_MAX {
            store.note_subnet(numbered(n), NOW_S);
        }
        assert!(store.unmeasured_subnets.len() + store.unmeasured_before.len() <= 2 * UNMEASURED_MAX);
        for noted in [2 * UNMEASURED_MAX, 3 * UNMEASURED_MAX - 1].map(numbered) {
            store.take(noted, 20_000, NOW_S + 1);
            assert!(store.of(noted, NOW_S + 1).unwrap().sends_subnets);
        }
        store.take(numbered(1 << 20), 20_000, NOW_S + 1);
        assert!(!store.of(numbered(1 << 20), NOW_S + 1).unwrap().sends_subnets);
    }

    #[test]
    fn the_heavy_stay_and_the_light_go() {
        let mut store = Store::default();
        // Heavy ones first, so that being new does not help.
        for n in 0..1000 {
            store.take(numbered(n), 20_000, NOW_S);
            store.weigh(numbered(n), 100.0, NOW_S);
        }
        for n in 1000..3 * NETWORKS_MAX {
            store.take(numbered(n), 20_000, NOW_S + DAY_S);
            assert!(store.len() <= NETWORKS_MAX + NEWCOMERS_MAX);
        }
        assert!(store.len() >= NETWORKS_MAX);
        assert!((0..1000).all(|n| store.of(numbered(n), NOW_S + DAY_S).is_some()));
        // What was heavy a month ago is light.
        for n in 0..NETWORKS_MAX + NEWCOMERS_MAX {
            store.take(numbered(n + 4 * NETWORKS_MAX), 20_000, NOW_S + 20 * DAY_S);
        }
        assert!((0..1000).all(|n| store.of(numbered(n), NOW_S).is_none()));
    }

    #[test]
    fn what_is_remembered_is_recalled_heaviest_first() {
        let mut store = Store::default();
        let networks = ["192.0.2.0/24", "2001:db8:0:100::/56", "198.51.100.0/24"].map(network);
        for (n, network) in networks.into_iter().enumerate() {
            store.take(network, 20_000 + n as u32, NOW_S);
            store.weigh(network, n as f64, NOW_S);
        }
        store.note_subnet(networks[0], NOW_S);
        let text = serde_json::to_string(&store.remember(NOW_S)).unwrap();
        assert!(text.starts_with(r#"[{"network":"198.51.100.0/24","#), "{text}");
        let mut again = Store::default();
        assert_eq!(again.recall(serde_json::from_str(&text).unwrap(), NOW_S + 5), 0);
        for network in networks {
            assert_eq!(again.of(network, NOW_S + 9), store.of(network, NOW_S + 9));
        }
        assert_eq!(again.len(), 3);
    }

    #[test]
    fn a_sample_after_a_restart_that_says_nothing_new_changes_nothing() {
        let (mut store, mut again, eu) = (Store::default(), Store::default(), network("192.0.2.0/24"));
        (0..8).for_each(|_| _ = store.take(eu, 20_000, NOW_S));
        again.recall(store.remember(NOW_S), NOW_S + 5);
        let generation = again.generation();
        again.take(eu, 20_100, NOW_S + 6);
        assert_eq!(again.generation(), generation);
    }

    #[test]
    fn what_does_not_hold_together_is_left_out() {
        let good = r#"{"network":"192.0.2.0/24","window_us":[20000],"samples":1,"newest_s":1800000000,"weight":1.0,"weighed_s":1800000000}"#;
        for (from, to, left_out) in [
            ("x", "x", 0),
            ("192.0.2.0/24", "192.0.2.0/25", 1),
            ("[20000]", "[]", 1),
            ("\"weight\":1.0", "\"weight\":-1.0", 1),
            ("\"newest_s\":1800000000", "\"newest_s\":1900000000", 1),
            ("\"newest_s\":1800000000", "\"newest_s\":1700000000", 1),
        ] {
            let text = format!("[{}]", good.replace(from, to));
            let mut store = Store::default();
            assert_eq!(store.recall(serde_json::from_str(&text).unwrap(), NOW_S), left_out, "{text}");
            assert_eq!(store.len(), 1 - left_out);
        }
    }
}
