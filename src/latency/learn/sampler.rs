//! Which queries are drawn: a share of all, at random, for the price of counting down. One for each thread.

/// Draws a share of whatever passes by. The gaps between draws are geometric (each query is drawn with the same probability,
/// whatever was drawn before), so that no pattern of queries can miss the draws or be hit by each of them.
#[derive(Debug, Clone)]
pub struct Sampler {
    /// Queries until the next draw, that one included.
    left: u64,
    share: f64,
    dice: u64,
}

impl Sampler {
    /// Draws `share` of all, 0 to 1; `seed` should be another one for each thread.
    pub fn new(share: f64, seed: u64) -> Sampler {
        let mut sampler = Sampler { left: 0, share, dice: seed };
        sampler.left = sampler.gap();
        sampler
    }

    /// One more passes by: is it drawn?
    #[inline]
    pub fn is_drawn(&mut self) -> bool {
        self.left -= 1;
        if self.left != 0 {
            return false;
        }
        self.left = self.gap();
        true
    }

    /// Queries to the next draw: with probability `(1 - share)^(n - 1) × share` it is `n`.
    #[cold]
    fn gap(&mut self) -> u64 {
        if self.share <= 0.0 {
            return u64::MAX; // more than ever pass by
        }
        if self.share >= 1.0 {
            return 1;
        }
        // From 2^-53 to 1, so that its logarithm is finite.
        let uniform = ((self.random() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        let gap = uniform.ln() / (-self.share).ln_1p();
        (gap as u64).saturating_add(1)
    }

    /// SplitMix64 (Steele et al. 2014).
    fn random(&mut self) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.dice;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(share: f64, seed: u64, queries: usize) -> usize {
        let mut sampler = Sampler::new(share, seed);
        (0..queries).filter(|_| sampler.is_drawn()).count()
    }

    #[test]
    fn the_share_is_drawn_and_none_or_all_are_exact() {
        assert_eq!(drawn(0.0, 1, 100_000), 0);
        assert_eq!(drawn(1.0, 1, 100_000), 100_000);
        for share in [0.5, 0.1, 0.01, 0.001] {
            let queries = 1_000_000;
            let expected = share * queries as f64;
            let drawn = drawn(share, 7, queries) as f64;
            // Six standard deviations; the seed is fixed.
            assert!((drawn - expected).abs() < 6.0 * expected.sqrt(), "{share}: {drawn}");
        }
    }

    #[test]
    fn no_two_threads_draw_alike_and_no_rhythm_is_spared() {
        assert_ne!(drawn(0.1, 1, 10_000), drawn(0.1, 2, 10_000));
        let mut sampler = Sampler::new(0.1, 3);
        // A resolver that asks for A and AAAA in turn.
        let draws: Vec<bool> = (0..20_000).map(|_| sampler.is_drawn()).collect();
        let of = |offset: usize| draws.iter().skip(offset).step_by(2).filter(|drawn| **drawn).count();
        assert!(of(0) > 800 && of(1) > 800, "{} and {}", of(0), of(1));
    }

    #[test]
    fn the_smallest_share_does_not_overflow() {
        let mut sampler = Sampler::new(f64::MIN_POSITIVE, 1);
        assert!(!sampler.is_drawn());
    }
}
