//! Response rate limiting: how many replies a client network has had for one owner within this second. One table of fixed size
//! for all workers, without locks and allocations; it is told the time and what was matched. Must never know of messages.
//!
//! A datagram's sender can be forged, so that a server can be made to send its replies to a victim. What limits that is to answer
//! a network only so often for one owner. The owner is the one that *answered*, not the name asked for: random labels under a
//! wildcard, below a zone cut or in a zone without them all count together.

use std::{
    array,
    hash::Hasher,
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use siphasher::sip::SipHasher13;

use crate::geo::Network;

/// Slots that one key may be in: as many as share a cache line, so that a look-up costs one miss.
const WAYS: usize = 8;

/// Sets of slots: 2^17 × 8 are a million slots in 8 MiB, the size of NSD's table (Knot's has 786,433). It holds half a
/// million pairs of network and owner within the same second, hardly any of them forgotten; older ones are given up at no loss.
const SETS: usize = 1 << 17;

/// A slot, from the lowest bit: replies in that second, the second, a part of the key's hash.
const COUNT_BITS: u32 = 24;
const SECOND_BITS: u32 = 16;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const SECOND_MASK: u64 = (1 << SECOND_BITS) - 1;

/// Counts stop here, with room for all workers that add to one slot at once: sixteen million replies a second to one network.
const COUNT_MAX: u64 = COUNT_MASK - 0xffff;

/// Every how many limited replies one is sent, shortened: NSD's and BIND's default. With 1 every forged query would still bring a
/// packet to the victim; with more a real client would wait for several time-outs before it is told to come by TCP.
const SLIP: u64 = 2;

/// How far a slot may be ahead of a worker, in seconds. Workers read the clock at the start of a batch, so one may be a moment
/// behind another; a slot further ahead is left from before the clock was set back.
const AHEAD_S_MAX: u64 = 2;

/// How often a race for a slot is run again. A lost race means that another worker has just counted a reply there.
const TRIES: usize = 4;

/// What a reply was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// This node (see [`Node::key`](crate::zone::Node)): a name, a wildcard, a zone cut, a DNAME.
    Node(u64),
    /// Nothing in the zone with this apex: NXDOMAIN. Apart from the apex itself, so that a flood of names that do not exist leaves
    /// the zone's own records alone.
    Missing(u64),
    /// No zone: errors, REFUSED and what the server says of itself.
    None,
}

/// What is to become of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send it.
    Pass,
    /// Send it shortened, with TC, so that a real client asks again by TCP.
    Slip,
    /// Do not send it.
    Drop,
}

/// The table.
///
/// A client is a network of its sender's address, as in Knot, never of a client subnet option, which anybody can make up: a forger
/// can use every address of the victim's /24 or /56, and wider, strangers would share a limit.
///
/// In the worst case, more than eight busy keys share a set within one second: the one with the fewest replies is forgotten and
/// begins again at nothing, so that it may get more than the limit. The hash is keyed, so nobody can choose such keys, and a busy
/// flow is not crowded out by noise. Two keys of a set are mistaken for each other, and then share the limit, with a probability of
/// 2^-24.
pub struct RateLimiter {
    responses_per_second: u64,
    hash_key: [u8; 16],
    sets: Box<[Set]>,
    latest: AtomicU64,
}

#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

impl RateLimiter {
    /// Allows each client network so many replies a second for each owner, at least 1. `hash_key` must be random and secret.
    pub fn new(responses_per_second: u32, hash_key: [u8; 16]) -> RateLimiter {
        let sets = (0..SETS).map(|_| Set(array::from_fn(|_| AtomicU64::new(0)))).collect();
        let responses_per_second = u64::from(responses_per_second).clamp(1, COUNT_MAX);
        RateLimiter { responses_per_second, hash_key, sets, latest: AtomicU64::new(0) }
    }

    /// The limit.
    pub fn responses_per_second(&self) -> u32 {
        self.responses_per_second as u32
    }

    /// Counts a reply that is about to be sent over UDP at `now_s` (Unix time) and says what is to become of it. The limit begins
    /// anew with every second of the clock, so that within any one second at most twice as many pass.
    pub fn count(&self, client: IpAddr, owner: Owner, now_s: u64) -> Action {
        let network = Network::of(client);
        let before = self.count_before(self.hash(network, owner), now_s);
        if before == self.responses_per_second {
            self.latest.store(network.key(), Relaxed); // once a second for each key, so that workers do not fight for it
        }
        match before.checked_sub(self.responses_per_second) {
            None => Action::Pass,
            Some(excess) if excess % SLIP == 0 && before < COUNT_MAX => Action::Slip,
            Some(_) => Action::Drop,
        }
    }

    /// The network that was limited last since this was last asked.
    pub fn take_latest(&self) -> Option<Network> {
        Network::from_key(self.latest.swap(0, Relaxed))
    }

    /// The replies of this second that this key has had before this one, which is counted.
    fn count_before(&self, hash: u64, now_s: u64) -> u64 {
        let set = &self.sets[hash as usize % SETS].0;
        let tag = hash >> (COUNT_BITS + SECOND_BITS);
        for _ in 0..TRIES {
            let slots: [u64; WAYS] = array::from_fn(|way| set[way].load(Relaxed));
            if let Some(way) = slots.iter().position(|slot| tag_of(*slot) == tag && is_current(*slot, now_s)) {
                if slots[way] & COUNT_MASK >= COUNT_MAX {
                    return COUNT_MAX;
                }
                let before = set[way].fetch_add(1, Relaxed);
                // Otherwise it was given to another key in between, which counts one reply too many.
                if tag_of(before) == tag {
                    return before & COUNT_MASK;
                }
                continue;
            }
            let is_own = |slot: &u64| tag_of(*slot) == tag;
            let loss = |slot: &u64| if is_current(*slot, now_s) { 1 + (slot & COUNT_MASK) } else { 0 };
            // Its own slot of an earlier second first, so that no key ever has two.
            let way = slots
                .iter()
                .position(is_own)
                .unwrap_or_else(|| (0..WAYS).min_by_key(|way| loss(&slots[*way])).expect("a set has slots"));
            let fresh = tag << (COUNT_BITS + SECOND_BITS) | (now_s & SECOND_MASK) << COUNT_BITS | 1;
            if set[way].compare_exchange(slots[way], fresh, Relaxed, Relaxed).is_ok() {
                return 0;
            }
        }
        0
    }

    fn hash(&self, network: Network, owner: Owner) -> u64 {
        let (kind, key) = match owner {
            Owner::Node(key) => (0, key),
            Owner::Missing(key) => (1, key),
            Owner::None => (2, 0),
        };
        let mut hash = SipHasher13::new_with_key(&self.hash_key);
        hash.write_u64(network.key());
        hash.write_u64(key);
        hash.write_u8(kind);
        hash.finish()
    }
}

fn tag_of(slot: u64) -> u64 {
    slot >> (COUNT_BITS + SECOND_BITS)
}

/// True when the slot counts replies of this second, or of one that another worker has begun a moment before us. The second is
/// kept in 16 bits: one that was last used exactly 18.2 hours ago passes for current, which costs that key one second's replies.
fn is_current(slot: u64, now_s: u64) -> bool {
    (slot >> COUNT_BITS).wrapping_sub(now_s) & SECOND_MASK <= AHEAD_S_MAX
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const NOW_S: u64 = 1_800_000_000;

    fn limiter(responses_per_second: u32) -> RateLimiter {
        RateLimiter::new(responses_per_second, [7; 16])
    }

    fn actions(limiter: &RateLimiter, client: &str, owner: Owner, now_s: u64, count: usize) -> String {
        let letter = |action| match action {
            Action::Pass => 'p',
            Action::Slip => 's',
            Action::Drop => 'd',
        };
        let client = client.parse().unwrap();
        (0..count).map(|_| letter(limiter.count(client, owner, now_s))).collect()
    }

    #[test]
    fn above_the_limit_every_second_reply_is_shortened_and_the_others_are_dropped() {
        let limiter = limiter(3);
        for second in [0, 1, 2, 70_000] {
            assert_eq!(actions(&limiter, "192.0.2.1", Owner::Node(1), NOW_S + second, 8), "pppsdsds");
        }
    }

    #[test]
    fn a_network_and_an_owner_are_limited_together_and_others_are_not() {
        let cases = [
            ("192.0.2.1", "192.0.2.255", true),
            ("192.0.2.1", "192.0.3.1", false),
            ("2001:db8:0:ff00::1", "2001:db8:0:ffff:1::", true),
            ("2001:db8:0:ff00::1", "2001:db8:0:fe00::1", false),
            ("0.0.0.0", "::", false),
        ];
        for (one, other, together) in cases {
            let limiter = limiter(1);
            assert_eq!(actions(&limiter, one, Owner::Node(1), NOW_S, 1), "p");
            let expected = if together { "s" } else { "p" };
            assert_eq!(actions(&limiter, other, Owner::Node(1), NOW_S, 1), expected, "{one} and {other}");
        }
        let limiter = limiter(1);
        for owner in [Owner::Node(1), Owner::Node(2), Owner::Missing(1), Owner::Missing(2), Owner::None] {
            assert_eq!(actions(&limiter, "192.0.2.1", owner, NOW_S, 2), "ps", "{owner:?}");
        }
    }

    #[test]
    fn a_worker_that_is_a_second_behind_does_not_start_anew_and_a_clock_set_back_does() {
        let limiter = limiter(2);
        assert_eq!(actions(&limiter, "192.0.2.1", Owner::None, NOW_S, 2), "pp");
        assert_eq!(actions(&limiter, "192.0.2.1", Owner::None, NOW_S - 1, 1), "s");
        assert_eq!(actions(&limiter, "192.0.2.1", Owner::None, NOW_S, 1), "d");
        assert_eq!(actions(&limiter, "192.0.2.1", Owner::None, NOW_S - 3600, 3), "pps");
    }

    #[test]
    fn noise_does_not_make_a_flood_forgotten() {
        let limiter = limiter(10);
        assert_eq!(actions(&limiter, "192.0.2.1", Owner::None, NOW_S, 12), "ppppppppppsd");
        // Ten times as many keys as there are slots.
        for n in 0..10 * (SETS * WAYS) as u64 {
            limiter.count(Ipv4Addr::from_bits((n as u32) << 8).into(), Owner::Node(n >> 20), NOW_S);
        }
        assert_eq!(actions(&limiter, "192.0.2.1", Owner::None, NOW_S, 2), "sd");
    }

    #[test]
    fn half_a_million_pairs_fit() {
        let limiter = limiter(1);
        let keys = |n: u64| (Ipv4Addr::from_bits((n as u32) << 8).into(), Owner::Node(n & 3));
        for n in 0..500_000 {
            let (client, owner) = keys(n);
            limiter.count(client, owner, NOW_S);
        }
        let again = (0..500_000).filter(|n| limiter.count(keys(*n).0, keys(*n).1, NOW_S) == Action::Pass).count();
        assert!(again < 30_000, "{again} of 500,000 were forgotten with the table half full");
    }

    #[test]
    fn threads_together_let_exactly_the_limit_pass() {
        for round in 0..20 {
            let limiter = limiter(1000);
            let mut sums = [0; 3];
            std::thread::scope(|scope| {
                let work = || {
                    let mut counts = [0; 3];
                    for _ in 0..5000 {
                        counts[limiter.count([192, 0, 2, 1].into(), Owner::Node(round), NOW_S) as usize] += 1;
                    }
                    counts
                };
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
                for thread in threads {
                    sums.iter_mut().zip(thread.join().unwrap()).for_each(|(sum, count)| *sum += count);
                }
            });
            assert_eq!(sums, [1000, 9500, 9500]);
        }
    }

    #[test]
    fn a_count_at_its_end_drops_and_stays_within_its_bits() {
        let limiter = limiter(1);
        let (network, owner) = (Network::of([192, 0, 2, 1].into()), Owner::None);
        assert_eq!(limiter.count([192, 0, 2, 1].into(), owner, NOW_S), Action::Pass);
        let hash = limiter.hash(network, owner);
        let set = &limiter.sets[hash as usize % SETS].0;
        let slot = set.iter().find(|slot| tag_of(slot.load(Relaxed)) == tag_of(hash)).unwrap();
        slot.fetch_add(COUNT_MAX - 1, Relaxed);
        for _ in 0..100 {
            assert_eq!(limiter.count([192, 0, 2, 1].into(), owner, NOW_S), Action::Drop);
        }
        assert_eq!(slot.load(Relaxed) & COUNT_MASK, COUNT_MAX);
    }

    #[test]
    fn the_network_limited_last_is_told_once() {
        let limiter = limiter(1);
        assert_eq!(limiter.take_latest(), None);
        actions(&limiter, "192.0.2.77", Owner::None, NOW_S, 3);
        assert_eq!(limiter.take_latest().unwrap().to_string(), "192.0.2.0/24");
        actions(&limiter, "2001:db8:1:2::3", Owner::None, NOW_S, 3);
        assert_eq!(limiter.take_latest().unwrap().to_string(), "2001:db8:1::/56");
        assert_eq!(limiter.take_latest(), None);
    }
}
