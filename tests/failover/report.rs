//! What a scenario has shown: from the questions and answers of a client to a few figures and a timeline.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::asker::Record;

/// A time in which all answers named the same region (`None`: no address, or none of a region).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Segment {
    pub from: Duration,
    pub to: Duration,
    pub region: Option<usize>,
}

/// The answers of one server to one client, judged by nothing yet.
#[derive(Debug, Clone)]
pub struct Seen {
    pub server: String,
    pub asked: usize,
    /// Questions without an answer.
    pub lost: usize,
    /// In the order in which questions were asked.
    pub segments: Vec<Segment>,
    /// Times in which the machine stood still; as long as nobody knows better, those in which no answer came for much longer than the
    /// client's pace.
    pub stalls: Vec<(Duration, Duration)>,
    /// The longest time to an answer.
    pub slowest: Duration,
    pub record: Record,
    /// For each of [`Record::data`].
    regions: Vec<Option<usize>>,
}

/// So much longer than its pace a client does not wait for the next answer, when nothing is in its way.
const STALL_MIN: Duration = Duration::from_millis(40);

impl Seen {
    /// `region_of` tells which region an answer stands for.
    pub fn new(server: String, record: Record, region_of: impl Fn(&[u8]) -> Option<usize>) -> Seen {
        let regions: Vec<Option<usize>> = record.data.iter().map(|data| region_of(data)).collect();
        let mut segments: Vec<Segment> = Vec::new();
        for asked in record.asked.iter().filter(|asked| asked.answered.is_some()) {
            let region = asked.said.and_then(|said| regions[usize::from(said)]);
            match segments.last_mut().filter(|last| last.region == region) {
                Some(last) => last.to = asked.sent + record.every,
                None => segments.push(Segment { from: asked.sent, to: asked.sent + record.every, region }),
            }
        }
        let mut arrivals: Vec<Duration> = record.asked.iter().filter_map(|asked| asked.answered).collect();
        arrivals.sort_unstable();
        let stall_min = record.every + STALL_MIN;
        let stalls = arrivals.windows(2).filter(|pair| pair[1] - pair[0] > stall_min).map(|pair| (pair[0], pair[1]));
        let times = record.asked.iter().filter_map(|asked| Some(asked.answered? - asked.sent));
        Seen {
            server,
            asked: record.asked.len(),
            lost: record.asked.iter().filter(|asked| asked.answered.is_none()).count(),
            segments,
            stalls: stalls.collect(),
            slowest: times.max().unwrap_or_default(),
            regions,
            record,
        }
    }

    /// A moment on this record's clock.
    pub fn at(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.record.begun)
    }

    /// A moment as logs write it (`2026-11-25T22:54:22.746636Z`) on this record's clock; `None` before its beginning.
    pub fn at_wall(&self, timestamp: &str) -> Option<Duration> {
        const DAY: f64 = 86_400.0;
        let mut parts = timestamp.split_once('T')?.1.trim_end_matches('Z').split(':');
        let mut next = || parts.next()?.parse::<f64>().ok();
        let of_day = next()? * 3600.0 + next()? * 60.0 + next()?;
        let begun = self.record.begun_wall.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs_f64() % DAY;
        // Tests last hours at most: what lies more than half a day ahead was before.
        let since = (of_day - begun).rem_euclid(DAY);
        (since < DAY / 2.0).then(|| Duration::from_secs_f64(since))
    }

    /// How long the machine stood still between two moments.
    pub fn stalled(&self, from: Duration, to: Duration) -> Duration {
        self.stalls.iter().map(|&(begun, ended)| ended.min(to).saturating_sub(begun.max(from))).sum()
    }

    /// From `from` on, how long until a question is answered with that region.
    pub fn until(&self, from: Duration, region: usize) -> Option<Duration> {
        let found = self.segments.iter().find(|segment| segment.to > from && segment.region == Some(region))?;
        Some(found.from.saturating_sub(from))
    }

    /// Questions asked within these times that were answered with anything but that region.
    pub fn answered_otherwise(&self, from: Duration, to: Duration, region: usize) -> usize {
        self.answers(from, to).filter(|answer| *answer != Some(region)).count()
    }

    /// Questions asked within these times that were answered with that region.
    pub fn answered_with(&self, from: Duration, to: Duration, region: usize) -> usize {
        self.answers(from, to).filter(|answer| *answer == Some(region)).count()
    }

    fn answers(&self, from: Duration, to: Duration) -> impl Iterator<Item = Option<usize>> {
        let within = self.record.asked.iter().filter(move |asked| asked.sent >= from && asked.sent < to);
        let answered = within.filter(|asked| asked.answered.is_some());
        answered.map(|asked| asked.said.and_then(|said| self.regions[usize::from(said)]))
    }

    /// How often the answer changed.
    pub fn changes(&self) -> usize {
        self.segments.len().saturating_sub(1)
    }

    pub fn json(&self) -> Value {
        let seconds = |time: Duration| (time.as_secs_f64() * 1e3).round() / 1e3;
        let segments: Vec<Value> = self
            .segments
            .iter()
            .map(|segment| json!([seconds(segment.from), seconds(segment.to), segment.region]))
            .collect();
        json!({
            "server": self.server,
            "asked": self.asked,
            "lost": self.lost,
            "changes": self.changes(),
            "slowest_ms": self.slowest.as_secs_f64() * 1e3,
            "stalled_s": seconds(self.stalled(Duration::ZERO, Duration::MAX)),
            "segments": segments,
        })
    }
}
