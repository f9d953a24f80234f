use proptest::prelude::*;

use super::*;

const PACE: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_secs(10);

/// A target that is probed every ten seconds, and a region that is looked at once a minute.
#[derive(Default)]
struct Probed {
    levels: Levels,
    steady: Steady,
    now: Duration,
    dice: u64,
}

impl Probed {
    /// For so many minutes connecting takes `ms`, and up to `jitter_ms` more, each its own. What is acted on, minute by minute.
    fn minutes(&mut self, minutes: u64, ms: f64, jitter_ms: f64) -> Vec<f32> {
        self.each_minute(minutes, |_| ms, jitter_ms)
    }

    fn each_minute(&mut self, minutes: u64, ms: impl Fn(u64) -> f64, jitter_ms: f64) -> Vec<f32> {
        let mut acted = Vec::new();
        for minute in 0..minutes {
            for _ in 0..6 {
                self.now += INTERVAL;
                let jitter_ms = jitter_ms * self.die();
                self.levels.record(self.now, Duration::from_secs_f64((ms(minute) + jitter_ms) / 1e3), PACE);
            }
            self.steady.look(self.levels.rise(self.now), 5.0, 250.0);
            acted.push(self.steady.ms());
        }
        acted
    }

    /// 0 to 1; now and then a queue somewhere: far more.
    fn die(&mut self) -> f64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let share = (self.dice >> 11) as f64 / (1u64 << 53) as f64;
        if self.dice.is_multiple_of(20) { 10.0 * share } else { share }
    }
}

const DAY: u64 = 24 * 60;

#[test]
fn steady_noise_is_no_rise_for_days() {
    for (ms, jitter_ms) in [(0.3, 0.2), (20.0, 1.0), (20.0, 30.0), (180.0, 12.0)] {
        let acted = Probed::default().minutes(3 * DAY, ms, jitter_ms);
        assert!(acted.iter().all(|ms| *ms == 0.0), "{ms} +{jitter_ms} ms");
    }
}

#[test]
fn a_step_counts_after_some_minutes_in_full_and_ends_as_soon() {
    let mut probed = Probed::default();
    probed.minutes(6 * 60, 20.0, 2.0);
    let risen = probed.minutes(60, 60.0, 2.0);
    assert_eq!(risen[..2], [0.0, 0.0]);
    assert!(risen[4..].iter().all(|ms| (38.0..43.0).contains(ms)), "{risen:?}");
    let over = probed.minutes(60, 20.0, 2.0);
    assert!(over[..1].iter().all(|ms| *ms > 38.0) && over[4..].iter().all(|ms| *ms == 0.0), "{over:?}");
}

#[test]
fn congestion_every_evening_counts_every_evening_and_a_way_that_stays_longer_becomes_the_usual_one() {
    let mut probed = Probed::default();
    probed.minutes(DAY, 20.0, 2.0);
    for day in 0..5 {
        let evening = probed.minutes(5 * 60, 45.0, 2.0);
        assert!(evening[5..].iter().all(|ms| *ms > 20.0), "day {day}: {evening:?}");
        let night = probed.minutes(19 * 60, 20.0, 2.0);
        assert!(night[5..].iter().all(|ms| *ms == 0.0), "day {day}");
    }
    let moved = probed.minutes(DAY, 45.0, 2.0);
    assert!(moved[12 * 60] > 20.0 && moved[DAY as usize - 1] == 0.0, "{}", moved[12 * 60]);
}

#[test]
fn a_spike_of_a_minute_or_two_changes_nothing() {
    let mut probed = Probed::default();
    probed.minutes(2 * 60, 20.0, 2.0);
    for minutes in [1, 2, 1, 2] {
        assert!(probed.minutes(minutes, 400.0, 2.0).iter().all(|ms| *ms == 0.0));
        assert!(probed.minutes(7, 20.0, 2.0).iter().all(|ms| *ms == 0.0));
    }
}

#[test]
fn a_slow_drift_is_no_rise_and_a_fall_is_none_either() {
    let mut probed = Probed::default();
    let drifted = probed.each_minute(10 * DAY, |minute| 20.0 + 2.0 * minute as f64 / DAY as f64, 2.0);
    assert!(drifted.iter().all(|ms| *ms == 0.0));
    assert!(probed.minutes(DAY, 8.0, 2.0).iter().all(|ms| *ms == 0.0));
    assert!(*probed.minutes(10, 40.0, 2.0).last().unwrap() > 25.0, "the new way is the usual one");
}

#[test]
fn what_is_acted_on_follows_large_changes_and_no_small_ones_up_to_its_limit() {
    let mut probed = Probed::default();
    probed.minutes(2 * 60, 20.0, 0.0);
    for (ms, expected) in
        [(50.0, 30.0), (53.0, 30.0), (46.0, 30.0), (90.0, 70.0), (75.0, 70.0), (60.0, 40.0), (900.0, 250.0)]
    {
        let acted = probed.minutes(6, ms, 0.0);
        assert_eq!(acted.last(), Some(&expected), "{ms}: {acted:?}");
    }
}

#[test]
fn after_a_restart_nothing_is_usual_until_ten_levels_are_known() {
    let mut probed = Probed::default();
    assert!(probed.minutes(9, 60.0, 2.0).iter().all(|ms| *ms == 0.0));
    assert_eq!(probed.levels.rise(probed.now), None);
    assert!(probed.minutes(60, 60.0, 2.0).iter().all(|ms| *ms == 0.0), "it was so from the first");
    // It began in congestion: what is usual follows downward, and the next congestion is seen.
    probed.minutes(60, 20.0, 2.0);
    assert!(*probed.minutes(10, 60.0, 2.0).last().unwrap() > 35.0);
}

#[test]
fn a_target_that_is_not_reached_any_more_has_no_rise() {
    let mut probed = Probed::default();
    probed.minutes(2 * 60, 20.0, 0.0);
    assert!(*probed.minutes(5, 60.0, 0.0).last().unwrap() > 0.0);
    assert!(probed.levels.rise(probed.now + 2 * PACE).is_some());
    assert_eq!(probed.levels.rise(probed.now + 4 * PACE), None);
    (0..3).for_each(|_| probed.steady.look(None, 5.0, 250.0));
    assert_eq!(probed.steady.ms(), 0.0);
}

#[test]
fn a_check_that_is_slow_takes_longer_for_a_level_and_a_fast_one_no_more_memory() {
    for (interval_s, pace_s, most) in [(60.0, 60.0, 5), (0.1, 60.0, 33), (0.1, 1.0, 12)] {
        let (mut levels, mut most_gathered) = (Levels::default(), 0);
        for n in 1..10_000 {
            let now = Duration::from_secs_f64(interval_s * f64::from(n));
            levels.record(now, Duration::from_millis(10), Duration::from_secs_f64(pace_s));
            most_gathered = most_gathered.max(levels.gathered.len());
        }
        assert!(levels.rise(Duration::from_secs_f64(interval_s * 1e4)).is_some());
        assert!(most_gathered <= most, "{interval_s} s: {most_gathered}");
        assert!(levels.blocks.len() <= BLOCKS_MAX && levels.open.len() < LEVELS_PER_BLOCK);
    }
}

fn rise(ms: f32, at_s: u64) -> Rise {
    let at = Duration::from_secs(at_s);
    Rise { ms, margin_ms: 2.0, usual_ms: 20.0, at, newest: at }
}

#[test]
fn looking_again_at_the_same_levels_is_no_other_look() {
    let mut steady = Steady::default();
    for at_s in [1, 1, 1, 2, 2] {
        steady.look(Some(rise(40.0, at_s)), 5.0, 250.0);
        assert_eq!(steady.ms(), 0.0);
    }
    // Of four targets three must have new levels.
    let of = |at_s: [u64; 4]| of_region(at_s.map(|at_s| rise(40.0, at_s)).to_vec());
    steady.look(of([2, 2, 3, 3]), 5.0, 250.0);
    assert_eq!(steady.ms(), 0.0);
    steady.look(of([2, 4, 3, 3]), 5.0, 250.0);
    assert_eq!(steady.ms(), 40.0);
}

fn rises(ms: &[Option<f32>]) -> Vec<Option<Rise>> {
    ms.iter().map(|ms| ms.map(|ms| rise(ms, 0))).collect()
}

#[test]
fn what_all_regions_share_is_the_probers_own_access() {
    let none: Option<f32> = None;
    for (what, seen, own, expected) in [
        ("one of three", vec![Some(40.0), Some(0.0), Some(1.0)], None, vec![Some(39.0), Some(-1.0), Some(0.0)]),
        ("all at once", vec![Some(40.0), Some(38.0), Some(43.0)], None, vec![Some(0.0), Some(-2.0), Some(3.0)]),
        (
            "all, and one more than the rest",
            vec![Some(40.0), Some(90.0), Some(40.0)],
            None,
            vec![Some(0.0), Some(50.0), Some(0.0)],
        ),
        ("one of two", vec![Some(40.0), Some(-3.0)], None, vec![Some(40.0), Some(-3.0)]),
        ("all faster", vec![Some(-4.0), Some(-3.0)], None, vec![Some(-4.0), Some(-3.0)]),
        ("the only one", vec![Some(40.0), None], None, vec![none, None]),
        ("one beside its own", vec![Some(40.0), Some(0.0)], Some(1), vec![none, None]),
        ("two beside its own", vec![Some(40.0), Some(0.0), Some(0.0)], Some(2), vec![Some(40.0), Some(0.0), None]),
        ("all beside its own", vec![Some(40.0), Some(41.0), Some(0.0)], Some(2), vec![Some(0.0), Some(1.0), None]),
        ("none", vec![], None, vec![]),
    ] {
        let mut regions = rises(&seen);
        without_common(&mut regions, own);
        assert_eq!(regions.iter().map(|rise| rise.map(|rise| rise.ms)).collect::<Vec<_>>(), expected, "{what}");
    }
}

#[test]
fn a_host_that_is_slow_by_itself_is_no_rise_of_its_region() {
    let of = |ms: &[f32]| {
        of_region(rises(&ms.iter().map(|ms| Some(*ms)).collect::<Vec<_>>()).into_iter().flatten().collect())
    };
    assert_eq!(of(&[80.0, 1.0]).map(|rise| rise.ms), Some(1.0));
    assert_eq!(of(&[80.0, 1.0, 75.0]).map(|rise| rise.ms), Some(75.0));
    assert_eq!(of(&[]), None);
}

#[test]
fn servers_agree_on_what_more_than_half_of_them_see() {
    for (seen, expected) in [
        (vec![], 0),
        (vec![40], 40),
        (vec![40, 0], 0),
        (vec![40, 30], 30),
        (vec![40, 0, 30], 30),
        (vec![0, 0, 90], 0),
        (vec![40, 40, 0, 0], 0),
    ] {
        assert_eq!(agreed(seen.iter().copied()), expected, "{seen:?}");
    }
}

proptest! {
    #[test]
    fn what_is_acted_on_is_never_more_than_three_looks_in_a_row_saw_or_its_limit_allows(
        seen in prop::collection::vec(0.0f32..400.0, 0..60),
    ) {
        let mut steady = Steady::default();
        let mut highest: f32 = 0.0;
        for three in seen.windows(3) {
            highest = highest.max(three.iter().copied().fold(f32::INFINITY, f32::min));
        }
        for (at_s, ms) in (1..).zip(&seen) {
            steady.look(Some(rise(*ms, at_s)), 5.0, 250.0);
            prop_assert!(steady.ms() >= 0.0 && steady.ms() <= highest.min(250.0));
        }
    }
}
