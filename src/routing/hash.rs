//! The hashes behind weighted answers. Fixed for ever: every server and every version must send a client network to the same
//! region, and a changed hash would move all of them.
//!
//! * `H` = SipHash-2-4 with the key of the route over one byte for the family (4 or 6) and the network's bytes: the first three of an
//!   IPv4 address, the first six of an IPv6 address. The key of a route is SipHash-2-4-128 with a zero key over its owner in wire
//!   form, lower case (the wildcard's owner, not the name asked for).
//! * A region's draw is `mix(H ^ S)` where `S` is SipHash-2-4 with a zero key over the region's name and `mix` the finaliser of
//!   SplitMix64. Weighted rendezvous hashing: the region with the least `-log2(draw / 2^64) / weight` comes first, and so on. A
//!   region that fails moves its own clients alone.
//! * The window of a ring is the top six bits of `mix(H ^ 0x77696e646f770000)`.
//!
//! The logarithm is worked out in integers, since floating-point libraries differ in the last bit.

use std::{hash::Hasher, net::IpAddr};

use siphasher::{sip::SipHasher24, sip128};

use crate::geo::special::embedded_v4;

/// Windows of a ring of endpoints.
pub const WINDOWS: u32 = 64;

/// The key of a route: its owner hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteKey([u8; 16]);

impl RouteKey {
    /// From the owner's lower-case wire form.
    pub fn of_owner(wire: &[u8]) -> Self {
        let mut hasher = sip128::SipHasher24::new_with_key(&[0; 16]);
        hasher.write(wire);
        RouteKey(sip128::Hasher128::finish128(&hasher).as_bytes())
    }

    /// The hash of a client's network under this route.
    pub fn network_hash(&self, address: IpAddr) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        let v4 = match address {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(v6) => embedded_v4(v6).map(|embedded| embedded.v4),
        };
        match (v4, address) {
            (Some(v4), _) => {
                let [a, b, c, _] = v4.octets();
                hasher.write(&[4, a, b, c]);
            }
            (None, IpAddr::V6(v6)) => {
                let [a, b, c, d, e, f, ..] = v6.octets();
                hasher.write(&[6, a, b, c, d, e, f]);
            }
            (None, IpAddr::V4(_)) => {}
        }
        hasher.finish()
    }
}

/// A region's own part of the hash, from its name.
pub fn region_salt(name: &str) -> u64 {
    let mut hasher = SipHasher24::new_with_key(&[0; 16]);
    hasher.write(name.as_bytes());
    hasher.finish()
}

/// A region's draw for a network: the lower, the nearer to the front. `None` for weight 0, which takes part only when all
/// others are gone.
pub fn draw(network_hash: u64, region_salt: u64, weight: u32) -> Option<Draw> {
    (weight > 0).then(|| Draw { neg_log2: neg_log2(mix(network_hash ^ region_salt)), weight })
}

/// The window of a ring for a network.
pub fn window(network_hash: u64) -> u32 {
    (mix(network_hash ^ 0x7769_6e64_6f77_0000) >> 58) as u32
}

/// `-log2(u) / weight` as a fraction that is compared exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    neg_log2: u64, // 2^-56 units
    weight: u32,
}

impl Ord for Draw {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let left = u128::from(self.neg_log2) * u128::from(other.weight);
        left.cmp(&(u128::from(other.neg_log2) * u128::from(self.weight)))
    }
}

impl PartialOrd for Draw {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
fn mix(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// `-log2((x + 1) / 2^64)` in units of 2^-56: the integer part from the leading zeros, 32 bits of the fraction by repeated
/// squaring.
fn neg_log2(x: u64) -> u64 {
    let x = u128::from(x) + 1; // 1 to 2^64
    let whole = 127 - x.leading_zeros(); // floor(log2 x), 0 to 64
    let mut mantissa = if whole >= 63 { (x >> (whole - 63)) as u64 } else { (x as u64) << (63 - whole) }; // [1, 2) as 1.63
    let mut log2 = u64::from(whole) << 32;
    for bit in (0..32).rev() {
        let square = u128::from(mantissa) * u128::from(mantissa); // [1, 4) as 2.126
        if square >> 127 != 0 {
            log2 |= 1 << bit;
            mantissa = (square >> 64) as u64;
        } else {
            mantissa = (square >> 63) as u64;
        }
    }
    ((64u64 << 32) - log2) << 24
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_right_to_nine_digits() {
        for x in [0, 1, 2, 3, 1000, u64::MAX / 3, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
            let exact = -((x as f64 + 1.0) / 2f64.powi(64)).log2();
            let ours = neg_log2(x) as f64 / 2f64.powi(56);
            assert!((exact - ours).abs() < 1e-9, "{x}: {exact} {ours}");
        }
    }

    #[test]
    fn hashes_stay_as_they_are_in_every_version() {
        let key = RouteKey::of_owner(b"\x01*\x03app\x07example\x03com\x00");
        let hash = key.network_hash("192.0.2.77".parse().unwrap());
        assert_eq!(hash, key.network_hash("192.0.2.1".parse().unwrap()), "one /24, one hash");
        assert_eq!(hash, key.network_hash("::ffff:192.0.2.1".parse().unwrap()), "embedded IPv4 counts as IPv4");
        assert_ne!(hash, key.network_hash("192.0.3.1".parse().unwrap()));
        insta::assert_snapshot!(
            format!("{hash:016x} {:016x} {:?} {}", region_salt("eu"), draw(hash, region_salt("eu"), 3), window(hash)),
            @"a243e0677c32646e d7093ab59a6e6ed3 Some(Draw { neg_log2: 30717472520798208, weight: 3 }) 55"
        );
    }

    #[test]
    fn shares_follow_the_weights_and_only_a_failed_regions_share_moves() {
        let key = RouteKey::of_owner(b"\x03app\x00");
        let regions = [("a", 1u32), ("b", 3), ("c", 6)].map(|(name, weight)| (region_salt(name), weight));
        let mut first = [0; 3];
        for n in 0..20_000u32 {
            let hash = key.network_hash(IpAddr::V4((n << 8).into()));
            let draws = regions.map(|(salt, weight)| draw(hash, salt, weight));
            let winner = (0..3).min_by_key(|i| draws[*i]).unwrap();
            first[winner] += 1;
            let without_b = [0, 2].into_iter().min_by_key(|i| draws[*i]).unwrap();
            assert!(winner == 1 || winner == without_b);
        }
        for (count, expected) in first.into_iter().zip([2000, 6000, 12_000]) {
            assert!(i32::abs(count - expected) < 350, "{first:?}");
        }
    }
}
