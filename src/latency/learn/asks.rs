//! Which networks may be asked to come by TCP ("Old but Gold: Prospecting TCP to Engineer and Live Monitor DNS Anycast", PAM 2022):
//! a table of fixed size for all threads, without locks and allocations. It is told the time; it must never know of messages.
//!
//! A network without fresh data is asked by an answer with TC. What becomes of it is read from the one slot that it has:
//!
//! ```text
//!            claim                    a query by TCP                  a round trip measured
//!   (none) ────────▶ waiting, until ────────────────▶ came, until ────────────────────────▶ measured, until
//!      ▲                │  its time passes               │                                      │
//!      │                ▼                                ▼                                      ▼
//!      └─────────── silent, a week                      (none)                                (none)
//! ```
//!
//! A network that did not come within some seconds is silent: it is not asked again for a week, whatever it does meanwhile. Nobody
//! has to notice that: `waiting` turns into `silent` by the clock alone.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use serde::{Deserialize, Serialize};

use crate::geo::Network;

/// A resolver asks again by TCP as soon as it has the answer with TC: that takes two round trips, and on a slow host seconds.
pub const COMES_WITHIN_S: u64 = 10;

/// How long a network that did not come is left alone.
pub const SILENT_S: u64 = 7 * 24 * 3600;

/// A network that came is not asked again so soon, so that its first samples are not all of one moment.
pub const AGAIN_AFTER_S: u64 = 600;

/// Data stay fresh for so long once there are [`SAMPLES_WANTED`] of them: paths hold for days.
pub const FRESH_S: u64 = 12 * 3600;

/// With so many samples the lowest is one without a queue on its way.
pub const SAMPLES_WANTED: u32 = 5;

/// Most networks that are asked within one second: their connections, open for some seconds each, stay well below what the server
/// takes by default.
pub const ASKS_PER_SECOND: u64 = 50;

/// Slots that one network may be in: as many as share a cache line, so that a look-up costs one miss.
const WAYS: usize = 8;

/// Sets of slots: as many slots as networks that are kept, in half a megabyte.
const SETS: usize = 1 << 13;

/// A slot, from the lowest bit: when its state ends (Unix time in seconds), the state, a part of the network's hash. Zero: free.
const TIME_BITS: u32 = 32;
const STATE_BITS: u32 = 2;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

/// A slot of a silent network is given to another one only after this, so that nobody is asked twice within an hour even where a
/// flood of made-up addresses fills the table.
const SILENT_AT_LEAST_S: u64 = 3600;

/// A time further ahead than any state lasts is left from before the clock was set back.
const AHEAD_S_MAX: u64 = SILENT_S;

/// The table.
pub struct Asks {
    hash_key: u64,
    sets: Box<[Set]>,
    /// The second, and the networks asked in it.
    budget: AtomicU64,
    asked: AtomicU64,
    came: AtomicU64,
    gained: AtomicU64,
}

#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It was asked and has not come; past its time it is silent.
    Waiting = 1,
    /// It was asked and has come.
    Came = 2,
    /// Its data are fresh.
    Measured = 3,
}

/// The right to ask one network, taken and not used yet.
#[derive(Debug)]
#[must_use = "a network that was not asked must be given back"]
pub struct Claim {
    set: usize,
    way: usize,
    before: u64,
    now: u64,
}

/// Who is silent, as it is written to a file and read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// What the hashes in the slots were made with.
    hash_key: u64,
    /// The set, and the slot in it.
    silent: Vec<(usize, u64)>,
}

/// What became of those that were asked, since the table was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Networks asked.
    pub asked: u64,
    /// Of those, that came by TCP in time.
    pub came: u64,
    /// Of those, whose round trip was measured.
    pub gained: u64,
}

impl Asks {
    /// An empty table. `hash_key` must be random and secret, so that nobody can fill the set of a chosen network.
    pub fn new(hash_key: u64) -> Asks {
        let sets = (0..SETS).map(|_| Set(array::from_fn(|_| AtomicU64::new(0)))).collect();
        let [budget, asked, came, gained] = array::from_fn(|_| AtomicU64::new(0));
        Asks { hash_key, sets, budget, asked, came, gained }
    }

    /// Takes the right to ask `network`, unless it has been asked, or measured, or is silent, or too many are being asked. Whoever
    /// has it either asks and calls [`Asks::asked`], or gives it back.
    #[inline]
    pub fn claim(&self, network: Network, now_s: u64) -> Option<Claim> {
        let (set, tag) = self.place(network);
        let slots = self.slots(set);
        let own = slots.iter().position(|slot| *slot != 0 && tag_of(*slot) == tag);
        if own.is_some_and(|way| !is_over(slots[way], now_s)) {
            return None;
        }
        let way = own.or_else(|| spare_way(&slots, now_s))?;
        let now = slot(tag, State::Waiting, now_s + COMES_WITHIN_S);
        let is_ours = self.is_within_budget(now_s)
            && self.sets[set].0[way].compare_exchange(slots[way], now, Relaxed, Relaxed).is_ok();
        is_ours.then_some(Claim { set, way, before: slots[way], now })
    }

    /// The network of the claim was asked.
    pub fn asked(&self, _used: Claim, now_s: u64) {
        self.asked.fetch_add(1, Relaxed);
        let second = (now_s & TIME_MASK) << TIME_BITS;
        let count = |budget: u64| Some(if budget & !TIME_MASK == second { budget + 1 } else { second | 1 });
        let _always_counted = self.budget.fetch_update(Relaxed, Relaxed, count);
    }

    /// The network of the claim was not asked.
    pub fn give_back(&self, unused: Claim) {
        let Claim { set, way, before, now } = unused;
        // Lost only to a thread that knows better: the network came, or its slot was taken.
        let _ = self.sets[set].0[way].compare_exchange(now, before, Relaxed, Relaxed);
    }

    /// A query by TCP came from `network`.
    pub fn came(&self, network: Network, now_s: u64) {
        let Some((set, way, seen)) = self.find(network) else { return };
        let is_in_time = state_of(seen) == Some(State::Waiting) && now_s <= until_s(seen);
        if is_in_time {
            let came = slot(tag_of(seen), State::Came, now_s + AGAIN_AFTER_S);
            if self.sets[set].0[way].compare_exchange(seen, came, Relaxed, Relaxed).is_ok() {
                self.came.fetch_add(1, Relaxed);
            }
        }
    }

    /// The round trip of a connection from `network` was measured: it need not be asked for a while.
    pub fn measured(&self, network: Network, now_s: u64) {
        let is_gain = self.settle(network, now_s + AGAIN_AFTER_S, now_s);
        self.gained.fetch_add(u64::from(is_gain), Relaxed);
    }

    /// What is known of `network` is fresh, or was when it was last measured at `newest_s`: it need not be asked before that is old.
    pub fn fresh(&self, network: Network, newest_s: u64, now_s: u64) {
        self.settle(network, newest_s + FRESH_S, now_s);
    }

    /// What became of those that were asked.
    pub fn outcome(&self) -> Outcome {
        let [asked, came, gained] = [&self.asked, &self.came, &self.gained].map(|count| count.load(Relaxed));
        Outcome { asked, came, gained }
    }

    /// What was measured says nothing any more; who was silent stays so.
    pub fn forget_measured(&self) {
        for slot in self.sets.iter().flat_map(|set| &set.0) {
            let seen = slot.load(Relaxed);
            if matches!(state_of(seen), Some(State::Measured | State::Came)) {
                let _ = slot.compare_exchange(seen, 0, Relaxed, Relaxed); // lost to a thread that knows better
            }
        }
    }

    /// Who is silent, for a file.
    pub fn silence(&self, now_s: u64) -> Silence {
        let numbered = self.sets.iter().enumerate().flat_map(|(n, set)| set.0.iter().map(move |slot| (n, slot)));
        let all = numbered.map(|(set, slot)| (set, slot.load(Relaxed)));
        let silent = all.filter(|(_, slot)| state_of(*slot) == Some(State::Waiting) && !is_over(*slot, now_s));
        Silence { hash_key: self.hash_key, silent: silent.collect() }
    }

    /// A table that knows who was silent.
    pub fn with(silence: &Silence) -> Asks {
        let asks = Asks::new(silence.hash_key);
        for (set, slot) in silence.silent.iter().filter(|(_, slot)| state_of(*slot) == Some(State::Waiting)) {
            if let Some(free) = asks.sets[set % SETS].0.iter().find(|way| way.load(Relaxed) == 0) {
                free.store(*slot, Relaxed);
            }
        }
        asks
    }

    /// The network need not be asked until `until_s`, unless it is silent. True when it had been asked and came, for the first time
    /// since.
    fn settle(&self, network: Network, until_s: u64, now_s: u64) -> bool {
        if until_s <= now_s {
            return false;
        }
        let (set, tag) = self.place(network);
        let slots = self.slots(set);
        let own = slots.iter().position(|slot| *slot != 0 && tag_of(*slot) == tag);
        let Some(way) = own.or_else(|| spare_way(&slots, now_s)) else { return false };
        let before = own.map(|way| slots[way]).and_then(state_of);
        if before == Some(State::Waiting) && !is_over(slots[way], now_s) {
            return false;
        }
        let now = slot(tag, State::Measured, until_s);
        let is_ours = self.sets[set].0[way].compare_exchange(slots[way], now, Relaxed, Relaxed).is_ok();
        is_ours && before == Some(State::Came)
    }

    fn find(&self, network: Network) -> Option<(usize, usize, u64)> {
        let (set, tag) = self.place(network);
        let slots = self.slots(set);
        let way = slots.iter().position(|slot| *slot != 0 && tag_of(*slot) == tag)?;
        Some((set, way, slots[way]))
    }

    #[inline]
    fn slots(&self, set: usize) -> [u64; WAYS] {
        array::from_fn(|way| self.sets[set].0[way].load(Relaxed))
    }

    /// Set and tag of a network. Two networks of a set are mistaken for each other with a probability of 2^-30.
    #[inline]
    fn place(&self, network: Network) -> (usize, u64) {
        // The finalizer of MurmurHash3, keyed: every bit of the network reaches every bit of the hash.
        let mut hash = network.key() ^ self.hash_key;
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ (hash >> 33) ^ self.hash_key.rotate_left(32)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^= hash >> 33;
        (hash as usize % SETS, hash >> (TIME_BITS + STATE_BITS))
    }

    /// Fewer networks than may be were asked in this second. Threads that look at the same moment may go a little beyond.
    fn is_within_budget(&self, now_s: u64) -> bool {
        let budget = self.budget.load(Relaxed);
        budget >> TIME_BITS != now_s & TIME_MASK || budget & TIME_MASK < ASKS_PER_SECOND
    }
}

fn slot(tag: u64, state: State, until_s: u64) -> u64 {
    tag << (TIME_BITS + STATE_BITS) | (state as u64) << TIME_BITS | until_s & TIME_MASK
}

#[inline]
fn tag_of(slot: u64) -> u64 {
    slot >> (TIME_BITS + STATE_BITS)
}

#[inline]
fn until_s(slot: u64) -> u64 {
    slot & TIME_MASK
}

#[inline]
fn state_of(slot: u64) -> Option<State> {
    [None, Some(State::Waiting), Some(State::Came), Some(State::Measured)]
        [(slot >> TIME_BITS) as usize & ((1 << STATE_BITS) - 1)]
}

/// The slot says nothing about its network any more.
#[inline]
fn is_over(slot: u64, now_s: u64) -> bool {
    let until_s = until_s(slot);
    let end_s = match state_of(slot) {
        None => return true,
        Some(State::Waiting) => until_s + SILENT_S,
        Some(State::Came | State::Measured) => until_s,
    };
    now_s > end_s || until_s > now_s + AHEAD_S_MAX
}

/// A slot for another network: one that says nothing any more, else the one that is measured and ends first, else the one that has
/// been silent longest, if for long enough.
fn spare_way(slots: &[u64; WAYS], now_s: u64) -> Option<usize> {
    let ways = || 0..WAYS;
    let is_silent = |way: &usize| state_of(slots[*way]) == Some(State::Waiting);
    ways()
        .find(|way| is_over(slots[*way], now_s))
        .or_else(|| ways().filter(|way| !is_silent(way)).min_by_key(|way| until_s(slots[*way])))
        .or_else(|| {
            let longest = ways().min_by_key(|way| until_s(slots[*way]));
            longest.filter(|way| until_s(slots[*way]) + SILENT_AT_LEAST_S < now_s)
        })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const NOW_S: u64 = 1_800_000_000;

    fn asks() -> Asks {
        Asks::new(0x0123_4567_89ab_cdef)
    }

    fn network(n: u32) -> Network {
        Network::of(Ipv4Addr::from_bits(n << 8).into())
    }

    fn ask(asks: &Asks, network: Network, now_s: u64) -> bool {
        let claim = asks.claim(network, now_s);
        claim.map(|claim| asks.asked(claim, now_s)).is_some()
    }

    fn outcome(asked: u64, came: u64, gained: u64) -> Outcome {
        Outcome { asked, came, gained }
    }

    #[test]
    fn a_network_that_comes_is_not_asked_again_before_its_data_are_old() {
        let (asks, eu) = (asks(), network(1));
        assert!(ask(&asks, eu, NOW_S));
        assert!(!ask(&asks, eu, NOW_S), "it is being asked");
        asks.came(eu, NOW_S + 1);
        asks.came(eu, NOW_S + 2);
        assert_eq!(asks.outcome(), outcome(1, 1, 0));
        asks.measured(eu, NOW_S + 11);
        asks.measured(eu, NOW_S + 12);
        assert_eq!(asks.outcome(), outcome(1, 1, 1));
        assert!(!ask(&asks, eu, NOW_S + 12 + AGAIN_AFTER_S));
        assert!(ask(&asks, eu, NOW_S + 13 + AGAIN_AFTER_S), "few samples are soon followed by more");
        asks.came(eu, NOW_S + 620);
        asks.fresh(eu, NOW_S + 700, NOW_S + 700);
        assert!(!ask(&asks, eu, NOW_S + 700 + FRESH_S));
        assert!(ask(&asks, eu, NOW_S + 701 + FRESH_S));
    }

    #[test]
    fn one_miss_stops_it_for_a_week_whatever_comes_meanwhile() {
        let (asks, deaf) = (asks(), network(1));
        assert!(ask(&asks, deaf, NOW_S));
        let late_s = NOW_S + COMES_WITHIN_S + 1;
        asks.came(deaf, late_s);
        asks.measured(deaf, late_s);
        asks.fresh(deaf, late_s, late_s);
        assert_eq!(asks.outcome(), outcome(1, 0, 0));
        assert!(!ask(&asks, deaf, NOW_S + COMES_WITHIN_S + SILENT_S));
        assert!(ask(&asks, deaf, NOW_S + COMES_WITHIN_S + SILENT_S + 1));
    }

    #[test]
    fn a_network_that_was_measured_anyway_is_not_asked() {
        let asks = asks();
        asks.measured(network(1), NOW_S);
        asks.fresh(network(2), NOW_S - 3600, NOW_S);
        asks.fresh(network(3), NOW_S - FRESH_S, NOW_S);
        asks.came(network(4), NOW_S);
        let is_asked = |n| ask(&asks, network(n), NOW_S);
        assert_eq!([1, 2, 3, 4].map(is_asked), [false, false, true, true]);
        assert_eq!(asks.outcome(), outcome(2, 0, 0), "none of them had been asked when it came");
    }

    #[test]
    fn a_claim_given_back_leaves_no_trace() {
        let (asks, eu) = (asks(), network(1));
        for _ in 0..2 * ASKS_PER_SECOND {
            asks.give_back(asks.claim(eu, NOW_S).unwrap());
        }
        assert_eq!((asks.outcome(), asks.silence(NOW_S).silent.len()), (Outcome::default(), 0));
        assert!(ask(&asks, eu, NOW_S));
    }

    #[test]
    fn only_so_many_are_asked_in_a_second() {
        let asks = asks();
        let asked = |second: u32| {
            let is_asked = |n: &u32| ask(&asks, network(second * 1000 + n), NOW_S + u64::from(second));
            (0..1000).filter(is_asked).count() as u64
        };
        assert_eq!([0, 1, 5].map(asked), [ASKS_PER_SECOND; 3]);
    }

    #[test]
    fn the_silent_are_remembered_over_a_restart_and_nothing_else_is() {
        let asks = asks();
        for n in 0..40 {
            assert!(ask(&asks, network(n), NOW_S));
        }
        (0..10).for_each(|n| asks.came(network(n), NOW_S));
        asks.measured(network(100), NOW_S);
        let silence = serde_json::to_string(&asks.silence(NOW_S)).unwrap();
        let again = Asks::with(&serde_json::from_str(&silence).unwrap());
        let later_s = NOW_S + 3600;
        let is_asked = |n: &u32| again.claim(network(*n), later_s).is_some();
        assert_eq!((0..10).filter(is_asked).count(), 10);
        assert_eq!((10..40).filter(is_asked).count(), 0);
        assert!(is_asked(&100));
    }

    #[test]
    fn a_damaged_memory_of_the_silent_does_no_harm() {
        let silent = vec![(usize::MAX, u64::MAX), (7, 0), (7, slot(5, State::Measured, NOW_S))];
        let asks = Asks::with(&Silence { hash_key: 1, silent });
        assert_eq!(asks.silence(NOW_S).silent.len(), 0);
    }

    #[test]
    fn with_every_slot_taken_the_measured_make_room_first_and_the_newly_silent_never() {
        let full = |of: &dyn Fn(usize) -> u64| -> [u64; WAYS] { array::from_fn(of) };
        let silent = |way: usize| slot(way as u64, State::Waiting, NOW_S - 10 * way as u64);
        assert_eq!(spare_way(&full(&silent), NOW_S), None);
        assert_eq!(spare_way(&full(&silent), NOW_S + SILENT_AT_LEAST_S), Some(WAYS - 1));
        let mixed = |way: usize| match way {
            2 => slot(2, State::Measured, NOW_S + 100),
            5 => slot(5, State::Came, NOW_S + 50),
            _ => silent(way),
        };
        assert_eq!(spare_way(&full(&mixed), NOW_S), Some(5));
        assert_eq!(spare_way(&full(&mixed), NOW_S + 60), Some(5), "it is over");
        assert_eq!(spare_way(&full(&|way| if way == 6 { 0 } else { mixed(way) }), NOW_S), Some(6));
    }

    #[test]
    fn a_flood_of_made_up_networks_leaves_the_table_as_large_as_it_is() {
        let asks = asks();
        let mut asked = 0;
        for n in 0..200_000 {
            asked += u64::from(ask(&asks, network(n), NOW_S + u64::from(n) / 40));
        }
        assert_eq!(asks.outcome().asked, asked);
        assert!(asked <= (SETS * WAYS) as u64 * 3, "{asked}");
    }

    #[test]
    fn a_clock_set_back_makes_nobody_wait_for_longer_than_a_week() {
        let (asks, eu) = (asks(), network(1));
        asks.fresh(eu, NOW_S, NOW_S);
        assert!(ask(&asks, eu, NOW_S - 2 * SILENT_S));
    }

    #[test]
    fn another_region_forgets_what_was_measured_and_not_who_is_silent() {
        let asks = asks();
        assert!(ask(&asks, network(1), NOW_S));
        asks.measured(network(2), NOW_S);
        asks.forget_measured();
        assert!(!ask(&asks, network(1), NOW_S) && ask(&asks, network(2), NOW_S));
    }

    #[test]
    fn of_threads_that_claim_the_same_network_one_has_it() {
        for round in 0..200 {
            let asks = asks();
            let claims: usize = std::thread::scope(|scope| {
                let claim = || usize::from(asks.claim(network(round), NOW_S).is_some());
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(claim)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(claims, 1);
        }
    }
}
