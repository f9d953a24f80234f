//! What became of a target: its newest changes, each with time and reason. Bounded, and nothing is allocated before the first.
#![deny(clippy::disallowed_methods)]

use std::{collections::VecDeque, fmt, sync::Arc, time::SystemTime};

use serde::{Deserialize, Serialize};

/// Changes kept of each target.
pub const CHANGES_MAX: usize = 50;
/// Longest reason that is kept, in bytes.
const REASON_LEN_MAX: usize = 200;

/// How a target stands, as people are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// No result yet.
    Untried,
    /// Answers use it.
    Up,
    /// It failed.
    Down,
    /// It changed too often and is left out for a while, whatever the probes say.
    Held,
}

impl Standing {
    /// As status, metrics and logs name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Untried => "untried",
            Standing::Up => "up",
            Standing::Down => "down",
            Standing::Held => "held",
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub at: SystemTime,
    /// How the target stood before.
    pub from: Standing,
    /// How it stands since.
    pub to: Standing,
    /// Why, in words.
    pub reason: Arc<str>,
}

/// The newest changes of a target, oldest first, at most [`CHANGES_MAX`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History(VecDeque<Change>);

impl History {
    /// Adds a change; the oldest goes when there are too many. Equal reasons share their memory: a target fails in few ways.
    pub fn push(&mut self, at: SystemTime, from: Standing, to: Standing, reason: &str) {
        let plain = reason.contains(char::is_control).then(|| reason.replace(char::is_control, " "));
        let reason = cut(plain.as_deref().unwrap_or(reason));
        let known = self.0.iter().rev().find(|change| *change.reason == *reason);
        let reason = known.map_or_else(|| reason.into(), |change| change.reason.clone());
        if self.0.len() == CHANGES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Change { at, from, to, reason });
    }

    /// The same for what happens again and again: it takes the place of the last change if that was between the same standings.
    pub fn push_again(&mut self, at: SystemTime, from: Standing, to: Standing, reason: &str) {
        self.0.pop_back_if(|last| (last.from, last.to) == (from, to));
        self.push(at, from, to, reason);
    }

    /// The changes, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Change> + ExactSizeIterator {
        self.0.iter()
    }
}

/// At most as long as is kept, cut between two characters.
fn cut(reason: &str) -> &str {
    let mut len = reason.len().min(REASON_LEN_MAX);
    while !reason.is_char_boundary(len) {
        len -= 1;
    }
    &reason[..len]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_newest_fifty_changes_are_kept_in_order() {
        let mut history = History::default();
        assert_eq!(history.0.capacity(), 0, "nothing is allocated before the first change");
        let at = |n: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(n);
        for n in 0..120 {
            let (from, to) = if n % 2 == 0 { (Standing::Up, Standing::Down) } else { (Standing::Down, Standing::Up) };
            history.push(at(n), from, to, if n % 2 == 0 { "connection refused" } else { "2 successes in a row" });
        }
        let times: Vec<SystemTime> = history.iter().map(|change| change.at).collect();
        assert_eq!(times, (70..120).map(at).collect::<Vec<_>>());
        assert!(history.0.capacity() <= 64, "{}", history.0.capacity());
    }

    #[test]
    fn what_happens_again_and_again_takes_one_place() {
        let mut history = History::default();
        let at = |n: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(n);
        history.push(at(0), Standing::Up, Standing::Held, "5 changes");
        for n in 1..9 {
            history.push_again(at(n), Standing::Held, Standing::Held, &format!("{n} more"));
        }
        let told: Vec<_> = history.iter().map(|change| (change.at, &*change.reason)).collect();
        assert_eq!(told, [(at(0), "5 changes"), (at(8), "8 more")]);
    }

    #[test]
    fn equal_reasons_share_memory_and_long_ones_are_cut() {
        let mut history = History::default();
        for reason in ["refused", "ok", "refused"] {
            history.push(SystemTime::UNIX_EPOCH, Standing::Up, Standing::Down, reason);
        }
        let [first, _, third] = [&history.0[0], &history.0[1], &history.0[2]];
        assert!(Arc::ptr_eq(&first.reason, &third.reason));
        history.push(SystemTime::UNIX_EPOCH, Standing::Down, Standing::Up, &"é".repeat(150));
        assert_eq!(&*history.0[3].reason, "é".repeat(100));
        history.push(SystemTime::UNIX_EPOCH, Standing::Down, Standing::Up, &("x".to_string() + &"é".repeat(150)));
        assert_eq!(history.0[4].reason.len(), 199);
        history.push(SystemTime::UNIX_EPOCH, Standing::Up, Standing::Down, "two\nlines\0");
        assert_eq!(&*history.0[5].reason, "two lines ");
    }
}
