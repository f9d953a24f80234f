//! What it tells that some regions were measured and others were not. Who measures a network to its best candidates passes over the rest,
//! and knows why: of those that were passed over there is little to hope for. Knows distances alone.

/// How a network's regions were chosen: the share of pairs of a measured and an unmeasured region of which the unmeasured one is the
/// nearer. 0: the nearest were measured. A half: chance. `None`: there is nothing to choose among, or only one was measured.
///
/// `far` grows with the distance to each region; `is_open` tells which regions there were to choose among.
pub fn passed_over(far: &[f64], is_open: impl Fn(usize) -> bool, is_measured: impl Fn(usize) -> bool) -> Option<f32> {
    let (mut measured, mut open, mut nearer) = (0, 0, 0);
    for region in (0..far.len()).filter(|region| is_open(*region)) {
        open += 1;
        if is_measured(region) {
            let is_passed = |other: &usize| far[*other] < far[region] && is_open(*other) && !is_measured(*other);
            measured += 1;
            nearer += (0..far.len()).filter(is_passed).count();
        }
    }
    let pairs = measured * (open - measured);
    (measured >= MEASURED_MIN && pairs > 0).then(|| nearer as f32 / pairs as f32)
}

/// What was measured to fewer regions was not chosen: a server knows its own way to a network, and no other.
const MEASURED_MIN: usize = 2;

/// How the regions of all networks were chosen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Choice {
    open: Vec<bool>, // by region: it may be passed over
    sum: f32,
    networks: u32,
}

impl Choice {
    /// Among the regions that were `seen` measured, and the others, too, unless these are hardly more than the `most` that a
    /// single network was measured to: then servers measure from where they stand, and from nowhere else.
    pub fn among(mut seen: Vec<bool>, most: usize) -> Self {
        let are_chosen = seen.iter().filter(|seen| **seen).count() > MOST_TIMES * most;
        seen.iter_mut().for_each(|open| *open |= are_chosen);
        Choice { open: seen, ..Choice::default() }
    }

    /// True for a region that may be passed over.
    pub fn is_open(&self, region: usize) -> bool {
        self.open.get(region).is_some_and(|is_open| *is_open)
    }

    /// Takes the next network's share, as [`passed_over`] has it.
    pub fn add(&mut self, share: f32) {
        self.sum += share;
        self.networks += 1;
    }

    /// True when a network with this share was measured to the best candidates that somebody knew: unlike the nearest alone, and unlike
    /// what chance would have chosen, for networks on the whole and for this one.
    pub fn is_knowing(&self, share: f32) -> bool {
        let networks = self.networks as f32;
        let cautious_mean = (self.sum + DOUBT * CHANCE) / (networks + DOUBT);
        self.sum >= MEAN_MIN * networks && cautious_mean < MEAN_MAX && share < SHARE_MAX
    }
}

/// Regions measured by anybody are so many times those that one network was measured to, where somebody chose.
const MOST_TIMES: usize = 2;
/// Below this mean share the nearest were measured, which tells nothing of the others.
const MEAN_MIN: f32 = 0.02;
/// And above this chance may have chosen.
const MEAN_MAX: f32 = 0.35;
/// The mean share where chance chooses,
const CHANCE: f32 = 0.5;
/// and how many networks count as chosen so before any is seen.
const DOUBT: f32 = 1.0;
/// A single network whose share is above this was measured to far regions for other reasons.
const SHARE_MAX: f32 = 0.8;

#[cfg(test)]
mod tests {
    use super::*;

    fn share(far: &[f64], measured: &[usize]) -> Option<f32> {
        passed_over(far, |_| true, |region| measured.contains(&region))
    }

    fn choice(shares: &[f32]) -> Choice {
        let mut choice = Choice::default();
        shares.iter().for_each(|share| choice.add(*share));
        choice
    }

    #[test]
    fn the_share_is_that_of_nearer_regions_passed_over() {
        let far = [10.0, 40.0, 20.0, 30.0];
        assert_eq!(share(&far, &[0, 2]), Some(0.0));
        assert_eq!(share(&far, &[1, 3]), Some(1.0));
        assert_eq!(share(&far, &[0, 3]), Some(0.25));
        assert_eq!(passed_over(&far, |region| region != 0, |region| region == 1 || region == 2), Some(0.5));
        assert_eq!([&[][..], &[0], &[0, 1, 2, 3]].map(|measured| share(&far, measured)), [None; 3]);
    }

    #[test]
    fn regions_without_a_server_to_measure_from_are_not_passed_over() {
        let open =
            |seen: [bool; 6], most| (0..6).filter(|region| Choice::among(seen.into(), most).is_open(*region)).count();
        assert_eq!(open([true, true, true, false, false, false], 3), 3);
        assert_eq!(open([true, true, true, true, true, false], 2), 6);
    }

    #[test]
    fn candidates_are_told_from_the_nearest_and_from_chance() {
        let knowing = choice(&[0.0, 0.25, 0.0, 0.1, 0.3]);
        assert!(knowing.is_knowing(0.0) && knowing.is_knowing(0.3) && !knowing.is_knowing(0.9));
        assert!(!choice(&[0.0; 9]).is_knowing(0.0), "the nearest of all");
        assert!(!choice(&[0.5, 0.3, 0.7, 0.6, 0.4]).is_knowing(0.3), "chance");
        assert!(!choice(&[0.25]).is_knowing(0.25), "one network alone may be chance");
        assert!(!Choice::default().is_knowing(0.0));
    }
}
