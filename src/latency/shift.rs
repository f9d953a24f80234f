//! Telling a jump from a jitter. Paths hold for days and then jump to another length, so values that agree are averaged over all of
//! their time, and a level that has changed is begun anew instead of drawing the average along for a while.

/// Values of one path, in the order of their time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Series {
    /// The present level in milliseconds.
    pub level_ms: f32,
    /// How much it rests on: samples, fewer the older they are.
    pub weight: f32,
    /// Jumps so far.
    pub jumps: u32,
    /// Values off the level that no other has confirmed yet: their mean and their samples.
    off: Option<(f32, f32)>,
}

/// Apart by less than this is jitter, in milliseconds.
const APART_MS: f32 = 5.0;
/// Or by less than this share of the level.
const APART_SHARE: f32 = 0.15;
/// So many samples off the level, agreeing with each other, are a jump; fewer may be a queue that stood somewhere for a moment.
const JUMP_SAMPLES: f32 = 5.0;

impl Series {
    /// Begins with one value of so many samples.
    pub fn new(ms: f32, samples: f32) -> Self {
        Series { level_ms: ms, weight: samples, jumps: 0, off: None }
    }

    /// Takes the next value.
    pub fn push(&mut self, ms: f32, samples: f32) {
        if !are_apart(ms, self.level_ms) {
            self.off = None; // back at the level: what was off was no jump
            self.level_ms = mean((self.level_ms, self.weight), (ms, samples));
            self.weight += samples;
            return;
        }
        let off = match self.off {
            Some(off) if !are_apart(ms, off.0) => (mean(off, (ms, samples)), off.1 + samples),
            _ => (ms, samples),
        };
        // A level that rests on less than what contradicts it gives way at once: it is old, or was a single value itself.
        if off.1 >= JUMP_SAMPLES || off.1 > self.weight {
            *self = Series { level_ms: off.0, weight: off.1, jumps: self.jumps + 1, off: None };
        } else {
            self.off = Some(off);
        }
    }
}

fn are_apart(a_ms: f32, b_ms: f32) -> bool {
    (a_ms - b_ms).abs() > APART_MS.max(APART_SHARE * a_ms.min(b_ms))
}

fn mean((a, a_weight): (f32, f32), (b, b_weight): (f32, f32)) -> f32 {
    let weight = a_weight + b_weight;
    if weight > 0.0 { (a * a_weight + b * b_weight) / weight } else { b }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(values: &[(f32, f32)]) -> Series {
        let mut series = Series::new(values[0].0, values[0].1);
        values[1..].iter().for_each(|(ms, samples)| series.push(*ms, *samples));
        series
    }

    #[test]
    fn values_that_agree_are_averaged() {
        let series = after(&[(20.0, 1.0), (22.0, 1.0), (21.0, 2.0)]);
        assert_eq!((series.level_ms, series.weight, series.jumps), (21.0, 4.0, 0));
    }

    #[test]
    fn a_single_odd_value_changes_nothing() {
        let series = after(&[(20.0, 8.0), (95.0, 1.0), (20.0, 1.0), (95.0, 1.0), (20.0, 1.0)]);
        assert_eq!((series.level_ms, series.weight, series.jumps), (20.0, 10.0, 0));
    }

    #[test]
    fn a_jump_begins_anew_instead_of_averaging() {
        let series = after(&[(20.0, 500.0), (60.0, 2.0), (61.0, 2.0), (59.0, 1.0)]);
        assert_eq!((series.weight, series.jumps), (5.0, 1));
        assert!((series.level_ms - 60.2).abs() < 0.01, "{series:?}");
    }

    #[test]
    fn odd_values_that_do_not_agree_are_no_jump() {
        let series = after(&[(20.0, 50.0), (60.0, 3.0), (140.0, 3.0), (60.0, 3.0), (140.0, 3.0)]);
        assert_eq!((series.level_ms, series.jumps), (20.0, 0));
    }

    #[test]
    fn a_line_of_many_samples_is_a_jump_by_itself() {
        assert_eq!(after(&[(20.0, 10.0), (60.0, 10.0)]).level_ms, 60.0);
    }

    proptest! {
        #[test]
        fn the_level_lies_within_what_was_seen(values in prop::collection::vec((0.1f32..500.0, 1.0f32..20.0), 1..40)) {
            let series = after(&values);
            let low = values.iter().map(|v| v.0).fold(f32::INFINITY, f32::min);
            let high = values.iter().map(|v| v.0).fold(0.0, f32::max);
            prop_assert!((low - 0.01..=high + 0.01).contains(&series.level_ms), "{series:?}");
        }
    }
}
