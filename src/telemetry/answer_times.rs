//! How long answers take, counted by size: histograms with one writer, summed by the reader. Which answers are timed is for whoever
//! times them.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::classes::TransportKind;

/// Upper bounds of the buckets, in microseconds; one more bucket has none. From a single datagram on a fast machine to a thread that
/// stood still, in steps of two to two and a half.
const BOUNDS_US: [u64; 12] = [5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 10_000, 100_000, 1_000_000];

const BUCKETS: usize = BOUNDS_US.len() + 1;

/// What one worker timed, by transport.
#[derive(Default)]
pub struct AnswerTimes([Row; TransportKind::ALL.len()]);

#[derive(Default)]
struct Row {
    sum_ns: AtomicU64,
    counts: [AtomicU64; BUCKETS],
}

/// Sums over all workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    sum_ns: u64,
    counts: [u64; BUCKETS],
}

impl AnswerTimes {
    /// So many answers took so long each. For the one worker that this belongs to.
    pub fn record(&self, transport: TransportKind, took: Duration, answers: u64) {
        let row = &self.0[transport as usize];
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.iter().position(|bound| ns <= bound * 1000).unwrap_or(BUCKETS - 1);
        add(&row.counts[bucket], answers);
        add(&row.sum_ns, ns.saturating_mul(answers));
    }

    pub(super) fn add_to(&self, sums: &mut [Times; TransportKind::ALL.len()]) {
        for (sum, row) in sums.iter_mut().zip(&self.0) {
            sum.sum_ns = sum.sum_ns.wrapping_add(row.sum_ns.load(Relaxed));
            sum.counts.iter_mut().zip(&row.counts).for_each(|(sum, count)| *sum += count.load(Relaxed));
        }
    }
}

impl Times {
    /// The sum of all times, in seconds.
    pub fn sum_s(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }

    /// How many were timed.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Upper bounds in seconds, the last one infinite, and how many answers took longer than the bound before and not longer than
    /// this one.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
        bounds.zip(self.counts)
    }
}

/// One writer: a load and a store do.
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(count), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_the_first_bucket_that_they_fit() {
        let (times, mut sums) = (AnswerTimes::default(), Default::default());
        times.record(TransportKind::Tcp, Duration::from_micros(5), 3);
        times.record(TransportKind::Tcp, Duration::from_nanos(5_001), 1);
        times.record(TransportKind::Tcp, Duration::from_secs(2), 1);
        times.add_to(&mut sums);
        times.add_to(&mut sums);
        let tcp = sums[TransportKind::Tcp as usize];
        let told: Vec<_> = tcp.buckets().filter(|(_, count)| *count > 0).collect();
        assert_eq!(told, [(5e-6, 6), (1e-5, 2), (f64::INFINITY, 2)]);
        assert_eq!((tcp.count(), tcp.sum_s()), (10, 4.000_040_002));
        assert_eq!(sums[TransportKind::Udp as usize], Times::default());
    }
}
