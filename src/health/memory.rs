//! What is known of targets across a restart, as it is written to a file and read back.

use std::{
    hash::{BuildHasher, BuildHasherDefault},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use siphasher::sip::SipHasher13;

use super::{
    board::entry::Entry,
    damping,
    history::{Change, Standing},
    target::Target,
    verdict::State,
};

/// A state that was known so long ago says nothing of now: an outage rarely lasts longer, and the first probe decides within
/// seconds anyway. History and hold-downs stay, which carry their own times.
pub const STATE_LASTS: Duration = Duration::from_secs(3600);

/// What makes a target the same as one of before the restart: where it is probed, and what a probe does. Intervals and counts may
/// have changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The endpoint.
    pub endpoint: String,
    /// A hash of all that a probe does. Only a hash, since that can hold what must not lie about in files.
    pub probe: String,
}

/// What is known of one target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Which target.
    #[serde(flatten)]
    pub key: Key,
    /// Names of its check, for people.
    #[serde(default)]
    check: Vec<String>,
    /// When this was written, Unix time in milliseconds.
    at_ms: u64,
    /// Whether it counted as up; absent: it never had a result.
    #[serde(default)]
    up: Option<bool>,
    /// Since when it stood as it did, Unix time in milliseconds.
    since_ms: u64,
    /// The lowest connect time of the hour before, and how long before: both in microseconds.
    #[serde(default)]
    lowest_connect_us: Option<(u64, u64)>,
    /// Changes that count, and a hold-down.
    #[serde(default)]
    damping: Option<damping::Remembered>,
    /// The newest changes: Unix time in milliseconds, from, to, reason.
    #[serde(default)]
    history: Vec<(u64, Standing, Standing, Reason)>,
}

/// A reason, shared with the board: there can be half a million of them.
#[derive(Debug, Clone, PartialEq)]
struct Reason(Arc<str>);

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Reason(text.into()))
    }
}

impl Key {
    /// The key of a target.
    pub fn of(target: &Target) -> Key {
        // The debug form has every field, those of later kinds of check, too. That it may change from version to version only costs
        // what was known.
        let kind = format!("{:?}", target.check().kind);
        let hash = BuildHasherDefault::<SipHasher13>::default().hash_one(kind);
        Key { endpoint: target.endpoint().to_string(), probe: format!("{hash:016x}") }
    }
}

impl Memory {
    /// What is known of `entry` at the age `age` of its board.
    pub(super) fn of(entry: &Entry, age: Duration, wall: SystemTime) -> Memory {
        let change = |change: &Change| (unix_ms(change.at), change.from, change.to, Reason(change.reason.clone()));
        Memory {
            key: Key::of(&entry.target),
            check: entry.target.check_names.clone(),
            at_ms: unix_ms(wall),
            up: (entry.verdict.is_decided() || entry.known).then(|| entry.state() == State::Up),
            since_ms: unix_ms(entry.since),
            lowest_connect_us: entry.baseline.lowest_and_age(age).map(|(lowest, ago)| (us(lowest), us(ago))),
            damping: entry.damping.remember(age),
            history: entry.history.iter().map(change).collect(),
        }
    }

    /// Keeps the newest `max` changes and drops the others.
    pub fn trim(&mut self, max: usize) {
        self.history.drain(..self.history.len().saturating_sub(max));
    }

    /// The target as it was known, on a board of the age `age`. A state that is too old, or from the future, is left out.
    pub(super) fn entry(&self, target: Arc<Target>, age: Duration, wall: SystemTime) -> Entry {
        let written = time(self.at_ms);
        let gap = wall.duration_since(written).ok();
        let known = self.up.filter(|_| gap.is_some_and(|gap| gap <= STATE_LASTS));
        let counts_as = if known == Some(false) { State::Down } else { State::Up };
        let mut entry = Entry::new(target, counts_as, wall);
        for (at_ms, from, to, reason) in &self.history {
            entry.history.push(time(*at_ms), *from, *to, &reason.0);
        }
        let Some(gap) = gap else { return entry };
        if known.is_some() {
            entry.resume(time(self.since_ms).min(wall), age);
        }
        if let Some((lowest_us, ago_us)) = self.lowest_connect_us
            && let Some(at) = age.checked_sub(gap.saturating_add(Duration::from_micros(ago_us)))
        {
            entry.baseline.record(at, Duration::from_micros(lowest_us));
        }
        if let Some(damping) = &self.damping {
            entry.resume_damping(damping, gap, age, wall);
        }
        entry
    }
}

fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A time out of a file; one that no clock can hold is the beginning of time.
fn time(unix_ms: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms)).unwrap_or(UNIX_EPOCH)
}

fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
