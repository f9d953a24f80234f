//! How long answers take, measured now and then: a look at the clock costs as much as a tenth of a query.

use std::time::{Duration, Instant};

/// One batch in so many is timed; a prime, so that no rhythm of the queries keeps step with it.
const EVERY: u32 = 17;

/// Times one batch in [`EVERY`], the first one among them.
#[derive(Debug, Default)]
pub(super) struct Stopwatch {
    /// Batches until the next that is timed.
    left: u32,
}

/// A batch under way.
#[derive(Debug)]
pub(super) struct Lap(Option<Instant>);

impl Stopwatch {
    /// A batch begins.
    #[inline]
    pub(super) fn begin(&mut self) -> Lap {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Lap(None)
            }
            None => {
                self.left = EVERY - 1;
                Lap(Some(Instant::now()))
            }
        }
    }
}

impl Lap {
    /// It has ended: how long it took, if it was timed.
    #[inline]
    pub(super) fn end(self) -> Option<Duration> {
        self.0.map(|begun| begun.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_batch_is_timed_and_one_in_seventeen() {
        let mut stopwatch = Stopwatch::default();
        let timed: Vec<usize> = (0..40).filter(|_| stopwatch.begin().end().is_some()).collect();
        assert_eq!(timed, [0, 17, 34]);
    }
}
