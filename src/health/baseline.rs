//! The lowest connect time of the last hour: a figure that jitter does not move. Takes the time as an argument.

use std::time::Duration;

/// How long a connect time counts.
const WINDOW_MINUTES: u64 = 60;

/// The lowest value of each of the last sixty minutes.
#[derive(Debug, Clone)]
pub struct Baseline {
    /// Microseconds, by minute modulo the window; [`NONE`] where nothing was measured.
    lowest_us: [u32; WINDOW_MINUTES as usize],
    /// The minute that was last written.
    minute: u64,
}

const NONE: u32 = u32::MAX;

impl Default for Baseline {
    fn default() -> Self {
        Baseline { lowest_us: [NONE; WINDOW_MINUTES as usize], minute: 0 }
    }
}

impl Baseline {
    /// Takes in a connect time measured `now` after some fixed moment; `now` never runs backwards.
    pub fn record(&mut self, now: Duration, connect: Duration) {
        let minute = now.as_secs() / 60;
        let fresh = minute.saturating_sub(self.minute).min(WINDOW_MINUTES);
        for back in 0..fresh {
            self.lowest_us[slot(minute - back)] = NONE;
        }
        self.minute = self.minute.max(minute);
        let value = u32::try_from(connect.as_micros()).unwrap_or(NONE - 1);
        let lowest = &mut self.lowest_us[slot(self.minute)];
        *lowest = (*lowest).min(value);
    }

    /// The lowest connect time of the hour before `now`.
    pub fn lowest(&self, now: Duration) -> Option<Duration> {
        let oldest = (now.as_secs() / 60).saturating_sub(WINDOW_MINUTES - 1);
        let from = oldest.max(self.minute.saturating_sub(WINDOW_MINUTES - 1));
        let lowest = (from..=self.minute).map(|minute| self.lowest_us[slot(minute)]).min()?;
        (lowest != NONE).then(|| Duration::from_micros(lowest.into()))
    }

    /// The lowest connect time of the hour before `now`, and how long ago it was measured, to the minute.
    pub fn lowest_and_age(&self, now: Duration) -> Option<(Duration, Duration)> {
        let lowest = self.lowest(now)?;
        let lowest_us = u32::try_from(lowest.as_micros()).ok()?;
        let newest_first = (self.minute.saturating_sub(WINDOW_MINUTES - 1)..=self.minute).rev();
        let minute = newest_first.into_iter().find(|minute| self.lowest_us[slot(*minute)] == lowest_us)?;
        Some((lowest, now.saturating_sub(Duration::from_secs(60 * minute))))
    }
}

fn slot(minute: u64) -> usize {
    (minute % WINDOW_MINUTES) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_of_the_last_hour_counts_and_no_older_one() {
        let minutes = |m: u64| Duration::from_secs(60 * m);
        let ms = Duration::from_millis;
        let mut baseline = Baseline::default();
        assert_eq!(baseline.lowest(minutes(0)), None);
        baseline.record(minutes(1), ms(10));
        baseline.record(minutes(1), ms(30));
        baseline.record(minutes(30), ms(20));
        assert_eq!(baseline.lowest(minutes(31)), Some(ms(10)));
        assert_eq!(baseline.lowest(minutes(60)), Some(ms(10)));
        assert_eq!(baseline.lowest(minutes(61)), Some(ms(20)), "the first is an hour old");
        baseline.record(minutes(62), ms(40));
        assert_eq!(baseline.lowest(minutes(62)), Some(ms(20)));
        baseline.record(minutes(200), ms(50));
        assert_eq!(baseline.lowest(minutes(200)), Some(ms(50)));
        assert_eq!(baseline.lowest(minutes(400)), None);
    }

    #[test]
    fn it_agrees_with_keeping_every_value() {
        let mut baseline = Baseline::default();
        let mut all: Vec<(u64, u64)> = Vec::new();
        let mut random = 7u64;
        let mut minute = 0;
        for _ in 0..2_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            minute += random >> 60;
            let us = 1 + (random >> 40) % 1_000;
            baseline.record(Duration::from_secs(minute * 60), Duration::from_micros(us));
            all.push((minute, us));
            let expected = all.iter().filter(|(m, _)| m + 60 > minute).map(|&(_, us)| us).min();
            assert_eq!(
                baseline.lowest(Duration::from_secs(minute * 60)).map(|d| d.as_micros() as u64),
                expected,
                "minute {minute}"
            );
        }
    }
}
