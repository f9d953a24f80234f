//! The round trip of one path, out of the handshakes seen on it. A pure state machine: it is told the time and each sample, and must
//! never know whose path it is.
//!
//! What can happen to a packet only ever makes it later, so the lowest of some recent samples is what the path itself takes, and an
//! average is what it takes with its accidents. But paths change: they hold for days and then jump (Rexford et al., "BGP Routing
//! Stability of Popular Destinations", 2002), and the lowest sample of the old path is no sample of the new one. So samples that lie
//! apart, several in a row, end the path and begin another one with themselves:
//!
//! ```text
//!            near the level: joins the window           apart and above: counted, kept aside
//!           ┌──────────┐                               ┌──────────┐
//!           ▼          │                               ▼          │
//!         level ───────┴── `patience` above in a row ──────▶ new level, made of those
//!           │
//!           └── one apart and below ─────────────────────────▶ new level, made of it alone
//! ```
//!
//! A network of hosts near and far jumps for ever between two levels that are both true. So a fall soon after a rise, which takes the
//! rise back, doubles the patience; a level that holds for a day makes it what it was.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Samples of which the lowest counts: enough for one without a queue on its way, few enough to follow a slow change.
pub const WINDOW: usize = 16;

/// A sample lies apart where it differs by more than this and by more than a tenth: the same as it takes a network to change its
/// region.
const APART_US: u32 = 5_000;
const APART_SHARE: u32 = 10;

/// So many samples above in a row are a new path. One or two are a queue or a busy host.
const PATIENCE: u8 = 4;
/// Never more than this, so that a true jump is always seen in the end.
const PATIENCE_MAX: u8 = 64;

/// A level that holds for so long was no accident.
const SETTLED_S: u64 = 24 * 3600;

/// One path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// The newest samples since the last jump in microseconds, at most [`WINDOW`], oldest first; never empty.
    window_us: VecDeque<u32>,
    /// Samples since the last jump.
    samples: u32,
    /// When the newest came, Unix time in seconds.
    newest_s: u64,
    /// Samples above the level since the last one that was not.
    #[serde(skip)]
    above_us: Vec<u32>,
    /// When the path jumped last, and whether upward.
    #[serde(default)]
    jumped: Option<(u64, bool)>,
    #[serde(default = "least_patience")]
    patience: u8,
}

fn least_patience() -> u8 {
    PATIENCE
}

/// What a sample did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It belongs to the path as it was known.
    Joined,
    /// It lies above; more of its kind would be a jump.
    Doubted,
    /// The path is another one now.
    Jumped,
}

impl Path {
    /// A path on which one sample was seen.
    pub fn new(sample_us: u32, now_s: u64) -> Path {
        Path {
            window_us: VecDeque::from([sample_us]),
            samples: 1,
            newest_s: now_s,
            above_us: Vec::new(),
            jumped: None,
            patience: PATIENCE,
        }
    }

    /// Takes in one more sample.
    pub fn take(&mut self, sample_us: u32, now_s: u64) -> Step {
        self.newest_s = self.newest_s.max(now_s);
        let level_us = self.level_us();
        if lies_apart(sample_us, level_us) {
            if sample_us < level_us {
                self.restart(vec![sample_us], now_s, false);
                return Step::Jumped;
            }
            self.above_us.push(sample_us);
            if self.above_us.len() < usize::from(self.patience) {
                return Step::Doubted;
            }
            let above_us = std::mem::take(&mut self.above_us);
            self.restart(above_us, now_s, true);
            return Step::Jumped;
        }
        self.above_us.clear();
        self.samples = self.samples.saturating_add(1);
        self.window_us.push_back(sample_us);
        while self.window_us.len() > WINDOW {
            self.window_us.pop_front();
        }
        Step::Joined
    }

    /// The lowest of the newest samples, in microseconds.
    pub fn level_us(&self) -> u32 {
        self.window_us.iter().copied().min().unwrap_or(u32::MAX)
    }

    /// Samples since the last jump. How far old ones still count is for the estimates to say.
    pub fn samples(&self) -> u32 {
        self.samples
    }

    /// When the newest sample came, Unix time in seconds.
    pub fn newest_s(&self) -> u64 {
        self.newest_s
    }

    /// Samples have come that may be the beginning of a jump.
    pub fn is_in_doubt(&self) -> bool {
        !self.above_us.is_empty()
    }

    /// What was read from a file holds together.
    pub fn is_sound(&self) -> bool {
        let window = 1..=WINDOW;
        window.contains(&self.window_us.len()) && self.samples as usize >= self.window_us.len() && self.patience > 0
    }

    fn restart(&mut self, samples_us: Vec<u32>, now_s: u64, is_rise: bool) {
        let since_s = self.jumped.map(|(at_s, _)| now_s.saturating_sub(at_s));
        let is_undone = !is_rise && matches!(self.jumped, Some((_, true)));
        match since_s {
            Some(since_s) if since_s >= SETTLED_S => self.patience = PATIENCE,
            Some(_) if is_undone => self.patience = self.patience.saturating_mul(2).min(PATIENCE_MAX),
            _ => {}
        }
        self.jumped = Some((now_s, is_rise));
        self.samples = samples_us.len() as u32;
        let unread = samples_us.len().saturating_sub(WINDOW);
        self.window_us = samples_us.into_iter().skip(unread).collect();
        self.above_us = Vec::new();
    }
}

fn lies_apart(sample_us: u32, level_us: u32) -> bool {
    let difference_us = sample_us.abs_diff(level_us);
    difference_us > APART_US && difference_us > sample_us.min(level_us) / APART_SHARE
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW_S: u64 = 1_800_000_000;
    const DAY_S: u64 = 24 * 3600;

    /// A path on which these were seen, a second after each other, in milliseconds; and what the last of them did.
    fn path(samples_ms: &[u32]) -> (Path, Step) {
        let mut path = Path::new(samples_ms[0] * 1000, NOW_S);
        let mut step = Step::Joined;
        for (n, ms) in samples_ms.iter().enumerate().skip(1) {
            step = path.take(ms * 1000, NOW_S + n as u64);
        }
        (path, step)
    }

    #[test]
    fn the_lowest_of_the_newest_samples_counts() {
        for (samples_ms, level_ms, samples) in [
            (&[40][..], 40, 1),
            (&[40, 42, 39, 41, 43], 39, 5),
            // Queues and busy hosts on the way.
            (&[40, 90, 41, 300, 300, 300, 40], 40, 3),
            // The path became longer, and shorter.
            (&[40, 41, 40, 80, 81, 79, 82], 79, 4),
            (&[40, 41, 40, 40, 20], 20, 1),
            // A little longer is no jump, and is followed when the old samples have left.
            (&[40, 44, 44, 44, 44, 44, 44], 40, 7),
            (&[40, 44, 44, 44, 44, 44, 44, 44, 44, 44, 44, 44, 44, 44, 44, 44, 44], 44, 17),
            // A tenth of a long path is more than 5 ms.
            (&[200, 215, 215, 215, 215], 200, 5),
        ] {
            let (path, _) = path(samples_ms);
            assert_eq!((path.level_us(), path.samples()), (level_ms * 1000, samples), "{samples_ms:?}");
        }
    }

    #[test]
    fn four_in_a_row_above_are_a_jump_and_three_are_doubt() {
        let (doubted, step) = path(&[40, 40, 80, 80, 80]);
        assert_eq!((step, doubted.is_in_doubt(), doubted.level_us()), (Step::Doubted, true, 40_000));
        let (jumped, step) = path(&[40, 40, 80, 80, 80, 80]);
        assert_eq!((step, jumped.is_in_doubt(), jumped.level_us()), (Step::Jumped, false, 80_000));
    }

    #[test]
    fn a_network_of_near_and_far_hosts_settles_on_the_near_ones() {
        let mut path = Path::new(10_000, NOW_S);
        let mut jumps = 0;
        for n in 0..2000 {
            // Nine connections of the far host after each of the near one.
            let sample_us = if n % 10 == 0 { 10_000 } else { 40_000 };
            jumps += usize::from(path.take(sample_us, NOW_S + n) == Step::Jumped);
        }
        assert_eq!(path.level_us(), 10_000);
        assert!(jumps <= 6, "{jumps} jumps");
        // The near host is gone for good.
        for n in 0..u64::from(PATIENCE_MAX) {
            path.take(40_000, NOW_S + 2000 + n);
        }
        assert_eq!(path.level_us(), 40_000);
    }

    #[test]
    fn a_level_that_held_for_a_day_makes_it_quick_again() {
        let (mut path, _) = path(&[10, 40, 40, 40, 40, 10]);
        assert_eq!(path.patience, 2 * PATIENCE);
        for n in 0..8 {
            path.take(40_000, NOW_S + 2 * DAY_S + n);
        }
        assert_eq!((path.level_us(), path.patience), (40_000, PATIENCE));
    }

    #[test]
    fn a_clock_set_back_does_no_harm() {
        let (mut path, _) = path(&[40, 40, 40, 40, 40, 40, 40, 40]);
        let newest_s = path.newest_s();
        path.take(40_000, NOW_S - DAY_S);
        assert_eq!(path.newest_s(), newest_s);
    }

    #[test]
    fn it_is_the_same_after_a_restart_but_for_doubts() {
        let (path, _) = path(&[40, 41, 80, 80]);
        let again: Path = serde_json::from_str(&serde_json::to_string(&path).unwrap()).unwrap();
        assert!(again.is_sound() && !again.is_in_doubt());
        assert_eq!((again.level_us(), again.samples()), (path.level_us(), path.samples()));
        for text in [
            r#"{"window_us":[],"samples":0,"newest_s":1}"#,
            r#"{"window_us":[1,2],"samples":1,"newest_s":1}"#,
            r#"{"window_us":[1],"samples":1,"newest_s":1,"patience":0}"#,
        ] {
            assert!(!serde_json::from_str::<Path>(text).unwrap().is_sound(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_level_is_always_a_sample_and_memory_stays_bounded(
            samples in proptest::collection::vec((1u32..1_000_000, 0u64..10_000), 1..400),
        ) {
            let mut now_s = NOW_S;
            let mut path = Path::new(samples[0].0, now_s);
            for (n, (sample_us, later_s)) in samples.iter().enumerate().skip(1) {
                now_s += later_s;
                path.take(*sample_us, now_s);
                prop_assert!(path.is_sound());
                prop_assert!(samples[..=n].iter().any(|(us, _)| *us == path.level_us()));
                prop_assert!(path.above_us.len() < usize::from(PATIENCE_MAX));
            }
        }
    }
}
