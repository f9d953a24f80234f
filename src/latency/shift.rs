//! Telling a jump from a jitter. Paths hold for days and then jump to another length, so values that agree are averaged over all of
//! their time, and a level that has changed is begun anew instead of drawing the average along for a while.

/// What some values that agree come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// Their mean in milliseconds.
    pub ms: f32,
    /// How much it rests on: samples, fewer the older they are.
    pub weight: f32,
    /// How many values they are.
    pub lines: u32,
    /// How many samples.
    pub samples: u32,
    /// Age of the newest in seconds.
    pub age_s: u32,
}

/// Values of one path, in the order of their time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Series {
    /// The present level.
    pub level: Level,
    /// Values off the level that are not enough for a jump yet.
    off: Option<Level>,
}

/// Apart by less than this is jitter, in milliseconds.
const APART_MS: f32 = 5.0;
/// Or by less than this share of the level.
const APART_SHARE: f32 = 0.15;
/// So many samples off the level, agreeing with each other, are a jump; fewer may be a queue that stood somewhere for a moment.
const JUMP_SAMPLES: f32 = 5.0;

impl Level {
    fn with(self, other: Level) -> Level {
        let weight = self.weight + other.weight;
        let ms = if weight > 0.0 { (self.ms * self.weight + other.ms * other.weight) / weight } else { other.ms };
        Level {
            ms,
            weight,
            lines: self.lines + other.lines,
            samples: self.samples.saturating_add(other.samples),
            age_s: self.age_s.min(other.age_s),
        }
    }
}

impl Series {
    /// Begins with one value.
    pub fn new(value: Level) -> Self {
        Series { level: value, off: None }
    }

    /// Takes the next value. True when the level has jumped.
    pub fn push(&mut self, value: Level) -> bool {
        if !are_apart(value.ms, self.level.ms) {
            self.off = None; // back at the level: what was off was no jump
            self.level = self.level.with(value);
            return false;
        }
        let off = self.off.filter(|off| !are_apart(value.ms, off.ms)).map_or(value, |off| off.with(value));
        // One value may stand for many samples by default, and does not stand against several that agree.
        let is_confirmed = off.weight >= JUMP_SAMPLES && (off.lines > 1 || self.level.lines == 1);
        // A level that rests on less than what contradicts it gives way at once: it is old, or was a single value itself.
        let has_jumped = is_confirmed || off.weight > self.level.weight;
        *self = if has_jumped { Series::new(off) } else { Series { off: Some(off), ..*self } };
        has_jumped
    }
}

fn are_apart(a_ms: f32, b_ms: f32) -> bool {
    (a_ms - b_ms).abs() > APART_MS.max(APART_SHARE * a_ms.min(b_ms))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The series after values of so many samples each, and its jumps.
    fn after(values: &[(f32, f32)]) -> (Series, usize) {
        let value = |(ms, samples): &(f32, f32)| Level {
            ms: *ms,
            weight: *samples,
            lines: 1,
            samples: *samples as u32,
            age_s: *ms as u32,
        };
        let mut series = Series::new(value(&values[0]));
        let jumps = values[1..].iter().filter(|one| series.push(value(one))).count();
        (series, jumps)
    }

    fn told(values: &[(f32, f32)]) -> (f32, f32, usize) {
        let (series, jumps) = after(values);
        (series.level.ms, series.level.weight, jumps)
    }

    #[test]
    fn values_that_agree_are_averaged() {
        assert_eq!(told(&[(20.0, 1.0), (22.0, 1.0), (21.0, 2.0)]), (21.0, 4.0, 0));
    }

    #[test]
    fn a_single_odd_value_changes_nothing() {
        let values = [(20.0, 8.0), (95.0, 1.0), (20.0, 1.0), (95.0, 1.0), (20.0, 1.0)];
        assert_eq!(told(&values), (20.0, 10.0, 0));
    }

    #[test]
    fn a_jump_begins_anew_instead_of_averaging() {
        let (ms, weight, jumps) = told(&[(20.0, 500.0), (60.0, 2.0), (61.0, 2.0), (59.0, 1.0)]);
        assert_eq!((weight, jumps), (5.0, 1));
        assert!((ms - 60.2).abs() < 0.01, "{ms}");
    }

    #[test]
    fn odd_values_that_do_not_agree_are_no_jump() {
        let (ms, _, jumps) = told(&[(20.0, 50.0), (60.0, 3.0), (140.0, 3.0), (60.0, 3.0), (140.0, 3.0)]);
        assert_eq!((ms, jumps), (20.0, 0));
    }

    #[test]
    fn a_line_of_many_samples_is_a_jump_by_itself() {
        assert_eq!(told(&[(20.0, 10.0), (60.0, 10.0)]).0, 60.0);
        assert_eq!(told(&[(20.0, 10.0), (21.0, 10.0), (60.0, 30.0)]).0, 60.0);
    }

    #[test]
    fn one_line_does_not_stand_against_several_that_agree_and_two_do() {
        let mut values = vec![(20.0, 10.0); 5];
        values.push((180.0, 10.0));
        assert_eq!(told(&values), (20.0, 50.0, 0));
        values.push((182.0, 10.0));
        assert_eq!(told(&values), (181.0, 20.0, 1));
    }

    #[test]
    fn samples_and_age_are_those_of_the_level() {
        let of = |values: &[(f32, f32)]| (after(values).0.level.samples, after(values).0.level.age_s);
        assert_eq!(of(&[(90.0, 9.0), (20.0, 1.0), (91.0, 2.0)]), (11, 90));
        assert_eq!(of(&[(90.0, 9.0), (20.0, 3.0), (21.0, 2.0)]), (5, 20));
    }

    proptest! {
        #[test]
        fn the_level_lies_within_what_was_seen(values in prop::collection::vec((0.1f32..500.0, 1.0f32..20.0), 1..40)) {
            let level = after(&values).0.level;
            let low = values.iter().map(|v| v.0).fold(f32::INFINITY, f32::min);
            let high = values.iter().map(|v| v.0).fold(0.0, f32::max);
            prop_assert!((low - 0.01..=high + 0.01).contains(&level.ms), "{level:?}");
        }
    }
}
