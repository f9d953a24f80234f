//! What probes measured of each target: how long each part took, as histograms, and when the certificate runs out. Verdicts
//! do not depend on it, so that it stays out of the board's snapshots.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    probe::ProbeResult,
    target::{Target, TargetKey, Targets},
};

/// Upper bounds of the histograms' buckets, in milliseconds; one more bucket has none. From a host in the same rack to a probe
/// about to time out, in steps of two to two and a half.
pub const BOUNDS_MS: [f64; 12] = [1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0];
/// A certificate that runs out within this is a warning.
pub const CERTIFICATE_WARNING_S: i64 = 7 * 86_400;

/// A part of a probe whose duration is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// Opening the TCP connection.
    Connect,
    /// The TLS handshake.
    Tls,
    /// From the request to the first byte of the answer.
    FirstByte,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 3] = [Part::Connect, Part::Tls, Part::FirstByte];

    /// As metrics name it.
    pub fn label(self) -> &'static str {
        match self {
            Part::Connect => "connect",
            Part::Tls => "tls",
            Part::FirstByte => "first-byte",
        }
    }

    fn of(self, result: &ProbeResult) -> Option<Duration> {
        match self {
            Part::Connect => result.connect,
            Part::Tls => result.tls,
            Part::FirstByte => result.first_byte,
        }
    }
}

/// Durations, counted by size. 64 bytes: there are up to three a target, and ten thousand targets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Histogram {
    sum_us: u64,
    counts: [u32; BOUNDS_MS.len() + 1],
}

impl Histogram {
    /// Counts a duration.
    pub fn record(&mut self, duration: Duration) {
        let ms = duration.as_secs_f64() * 1e3;
        let bucket = BOUNDS_MS.iter().position(|bound| ms <= *bound).unwrap_or(BOUNDS_MS.len());
        self.counts[bucket] = self.counts[bucket].saturating_add(1);
        self.sum_us = self.sum_us.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    /// Counts what another has counted.
    pub fn add(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count = count.saturating_add(more);
        }
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }

    /// The sum of all durations, in seconds.
    pub fn sum_s(&self) -> f64 {
        self.sum_us as f64 / 1e6
    }

    /// Upper bounds in seconds, the last one infinite, and how many durations were above the bound before and not above this one.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = BOUNDS_MS.iter().map(|ms| ms / 1e3).chain([f64::INFINITY]);
        bounds.zip(self.counts.iter().map(|count| u64::from(*count)))
    }
}

/// What was measured of one target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Measured {
    connect: Histogram,
    /// TLS and first byte; a check by TCP has neither.
    further: Option<Box<[Histogram; 2]>>,
    certificates: Certificates,
    is_warned: bool,
    /// Why the endpoint, a host name, is probed at addresses that it had some time ago.
    lookup_trouble: Option<Arc<str>>,
}

/// Handshakes that [`Certificates`] remembers, at least; at most twice as many.
const HANDSHAKES: u8 = 8;

/// When certificates run out that were shown lately. Behind one address there may be many servers, each with its own: the first to run
/// out counts until it was not seen for some handshakes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Certificates {
    /// Of the [`HANDSHAKES`] before these.
    before_s: Option<i64>,
    these_s: Option<i64>,
    count: u8,
}

impl Certificates {
    fn take(&mut self, expires_s: i64) {
        if self.count == HANDSHAKES {
            *self = Certificates { before_s: self.these_s, ..Certificates::default() };
        }
        self.count += 1;
        self.these_s = Some(self.these_s.map_or(expires_s, |other| other.min(expires_s)));
    }
}

impl Measured {
    /// The durations of a part; `None`: nothing was measured.
    pub fn part(&self, part: Part) -> Option<&Histogram> {
        let histogram = match (part, self.further.as_deref()) {
            (Part::Connect, _) => &self.connect,
            (Part::Tls, Some([tls, _])) => tls,
            (Part::FirstByte, Some([_, first_byte])) => first_byte,
            (_, None) => return None,
        };
        (*histogram != Histogram::default()).then_some(histogram)
    }

    /// When the certificate runs out, Unix time in seconds; of several that were shown lately the first to run out.
    pub fn certificate_expires_s(&self) -> Option<i64> {
        self.certificates.before_s.into_iter().chain(self.certificates.these_s).min()
    }

    /// What to say of a host name that is probed at old addresses.
    pub fn lookup_warning(&self) -> Option<String> {
        let trouble = self.lookup_trouble.as_ref()?;
        Some(format!(
            "the name is not answered by this host's resolver ({trouble}); probed at the addresses that it had"
        ))
    }

    fn take(&mut self, result: &ProbeResult) {
        for part in Part::ALL {
            let Some(duration) = part.of(result) else { continue };
            let histogram = match part {
                Part::Connect => &mut self.connect,
                Part::Tls => &mut self.further.get_or_insert_default()[0],
                Part::FirstByte => &mut self.further.get_or_insert_default()[1],
            };
            histogram.record(duration);
        }
        result.certificate_expires_s.into_iter().for_each(|expires_s| self.certificates.take(expires_s));
        self.lookup_trouble.clone_from(&result.lookup_trouble);
    }
}

/// What was measured of all targets.
#[derive(Debug, Default)]
pub struct Measurements(Mutex<HashMap<TargetKey, Measured>>);

impl Measurements {
    /// Takes in a result; says in the log when a certificate begins to run out.
    pub(super) fn take(&self, target: &Target, result: &ProbeResult, wall: SystemTime) {
        if !target.check().kind.is_probed() {
            return;
        }
        let mut all = self.lock();
        let measured = match all.get_mut(&target.key) {
            Some(measured) => measured,
            None => all.entry(target.key.clone()).or_default(),
        };
        measured.take(result);
        let warning = measured.certificate_expires_s().and_then(|expires_s| certificate_warning(expires_s, wall));
        if let Some(warning) = &warning
            && !measured.is_warned
        {
            let (endpoint, check) = (target.endpoint(), target.check_names.join(","));
            tracing::warn!(%endpoint, %check, "{warning}");
        }
        measured.is_warned = warning.is_some();
    }

    /// Forgets those that are not on the list.
    pub(super) fn keep(&self, targets: &Targets) {
        let mut all = self.lock();
        let mut old = std::mem::take(&mut *all);
        *all = targets.list().iter().filter_map(|target| old.remove_entry(&target.key)).collect();
    }

    /// What was measured of one target.
    pub fn of(&self, target: &Target) -> Option<Measured> {
        self.lock().get(&target.key).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TargetKey, Measured>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What to say at `now` of a certificate that runs out soon, or has.
pub fn certificate_warning(expires_s: i64, now: SystemTime) -> Option<String> {
    let now_s = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    let left_s = expires_s.saturating_sub(now_s);
    let span = |s: i64| match (s / 86_400, s / 3_600, s / 60) {
        (0, 0, minutes) => count(minutes, "minute"),
        (0, hours, _) => count(hours, "hour"),
        (days, _, _) => count(days, "day"),
    };
    match left_s {
        left if left > CERTIFICATE_WARNING_S => None,
        left if left > 0 => Some(format!("the certificate expires in {}", span(left))),
        past => Some(format!("the certificate expired {} ago", span(past.saturating_neg()))),
    }
}

fn count(n: i64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::testing::{address, success, tcp_check};

    #[test]
    fn durations_are_counted_by_size_and_summed() {
        let mut histogram = Histogram::default();
        for ms in [0, 1, 2, 3, 40, 50, 51, 4_000, 60_000] {
            histogram.record(Duration::from_millis(ms));
        }
        let counted: Vec<(f64, u64)> = histogram.buckets().filter(|(_, count)| *count > 0).collect();
        let expected = [(0.001, 2), (0.0025, 1), (0.005, 1), (0.05, 2), (0.1, 1), (5.0, 1), (f64::INFINITY, 1)];
        assert_eq!(counted, expected);
        assert_eq!(histogram.sum_s(), 64.147);
        let mut twice = histogram.clone();
        twice.add(&histogram);
        assert_eq!((twice.sum_s(), twice.buckets().map(|(_, count)| count).sum::<u64>()), (128.294, 18));
        assert!(size_of::<Histogram>() <= 64);
    }

    #[test]
    fn only_parts_that_were_measured_are_told_and_only_they_take_memory() {
        let mut measured = Measured::default();
        assert_eq!(Part::ALL.map(|part| measured.part(part).is_some()), [false; 3]);
        measured.take(&success(5));
        assert_eq!(Part::ALL.map(|part| measured.part(part).is_some()), [true, false, false]);
        assert!(measured.further.is_none());
        measured.take(&ProbeResult { first_byte: Some(Duration::from_millis(7)), ..success(5) });
        assert_eq!(Part::ALL.map(|part| measured.part(part).is_some()), [true, false, true]);
    }

    #[test]
    fn figures_stay_over_a_reload_and_leave_with_their_target() {
        let pair = |text| (address(text), Arc::new(tcp_check(80)));
        let targets = Targets::new(vec![pair("192.0.2.1"), pair("192.0.2.2")]);
        let measurements = Measurements::default();
        for target in targets.list() {
            measurements.take(target, &success(5), SystemTime::now());
        }
        let [gone, stays] = [&targets.list()[0], &targets.list()[1]];
        measurements.keep(&Targets::new(vec![pair("192.0.2.2"), pair("192.0.2.3")]));
        assert_eq!((measurements.of(gone), measurements.of(stays).is_some()), (None, true));
    }

    #[test]
    fn of_certificates_that_take_turns_the_first_to_run_out_counts_until_it_was_not_seen_for_a_while() {
        let mut measured = Measured::default();
        let mut shown = |expires_s| {
            measured.take(&ProbeResult { certificate_expires_s: Some(expires_s), ..success(5) });
            measured.certificate_expires_s()
        };
        assert_eq!([900, 100, 900, 100].map(&mut shown), [900, 100, 100, 100].map(Some));
        assert!((0..30).all(|n| shown(if n % 7 == 0 { 100 } else { 900 }) == Some(100)), "the metric keeps still");
        let renewed = (0..=2 * HANDSHAKES).map(|_| shown(900)).position(|told| told == Some(900));
        assert!(renewed.is_some_and(|after| after >= usize::from(HANDSHAKES) - 1), "{renewed:?}");
        measured.take(&success(5));
        assert_eq!(measured.certificate_expires_s(), Some(900), "a probe without a handshake changes nothing");
    }

    #[test]
    fn a_certificate_is_worth_a_warning_in_its_last_seven_days_and_ever_after() {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        for (left_s, words) in [
            (7 * 86_400 + 1, None),
            (7 * 86_400, Some("expires in 7 days")),
            (86_400 + 5, Some("expires in 1 day")),
            (7_300, Some("expires in 2 hours")),
            (59, Some("expires in 0 minutes")),
            (0, Some("expired 0 minutes ago")),
            (-3 * 86_400, Some("expired 3 days ago")),
        ] {
            let expected = words.map(|words| format!("the certificate {words}"));
            assert_eq!(certificate_warning(1_800_000_000 + left_s, now), expected, "{left_s}");
        }
        assert!(certificate_warning(i64::MIN, now).is_some());
        assert_eq!(certificate_warning(i64::MAX, now), None);
    }
}
