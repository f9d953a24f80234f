//! Verdicts and history across restarts: what the board knows, in `verdicts.json` of the state directory.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::{
    live::Live,
    parallel::blocking,
    state::{StateDir, Stored, enveloped},
};
use crate::health::{Board, Memory};

/// The file's name in the state directory.
const FILE: &str = "verdicts.json";
/// Shortest time between two writings: what changes while a region fails is written once, not a hundred times.
const WRITE_EVERY: Duration = Duration::from_secs(5);
/// A writing is followed by a pause so many times as long, so that thousands of targets never keep the disk busy.
const PAUSE_PER_WRITING: u32 = 50;
/// Connect times are written at least so often, though no verdict changes.
const WRITE_ANYWAY: Duration = Duration::from_secs(600);

/// Changes that are written of all targets together, the newest of each: with the longest reasons that there are this is half of the
/// largest file that is read again. Up to 10,000 targets nothing is left out.
const CHANGES_MAX: usize = 500_000;

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
struct Verdicts {
    targets: Vec<Memory>,
}

impl Stored for Verdicts {
    const SCHEMA: u32 = 1;
}

/// Gives the board what was known before the restart. To be called before it has targets.
pub fn recall(state: &StateDir, board: &Board) {
    if let Some(Verdicts { targets }) = state.read(FILE) {
        tracing::info!(targets = targets.len(), "verdicts and history of before the restart were read");
        board.recall(targets);
    }
}

/// What is known, for the process that takes over: the file's name, and what it would hold.
pub fn hand_over(live: &Live) -> io::Result<(String, String)> {
    Ok((FILE.into(), enveloped(&known(live))?))
}

fn known(live: &Live) -> Verdicts {
    Verdicts::of(live.board.remember(Instant::now(), SystemTime::now()))
}

impl Verdicts {
    fn of(mut targets: Vec<Memory>) -> Verdicts {
        let of_each = CHANGES_MAX / targets.len().max(1);
        targets.iter_mut().for_each(|target| target.trim(of_each));
        Verdicts { targets }
    }
}

/// Writes what is known, now. Waits for the disk.
pub fn write(live: &Live) {
    if let Err(error) = live.state.write(FILE, &known(live)) {
        tracing::error!(%error, "verdicts and history may not outlive the process");
    }
}

/// Writes what is known some seconds after each change, until the end.
pub async fn keep(live: Arc<Live>) {
    if !live.state.is_kept() {
        return std::future::pending().await;
    }
    let (mut told, mut written) = (0, Instant::now());
    let mut pause = WRITE_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        let now_told = live.board.told();
        if now_told == told && written.elapsed() < WRITE_ANYWAY {
            continue;
        }
        told = now_told;
        let begun = Instant::now();
        let writing = live.clone();
        blocking(move || write(&writing)).await;
        written = Instant::now();
        pause = WRITE_EVERY.max(PAUSE_PER_WRITING * (written - begun));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::history::{CHANGES_MAX as CHANGES_OF_EACH, Standing};

    /// So many targets with full histories and such a reason, as they lie in the file.
    fn flapping(targets: usize, reason: &str) -> Vec<Memory> {
        let change = |n: usize| (1_800_000_000_000 + n, [Standing::Up, Standing::Down][n % 2], Standing::Held, reason);
        let history: Vec<_> = (0..CHANGES_OF_EACH).map(change).collect();
        let target = |n: usize| {
            serde_json::json!({
                "endpoint": format!("2001:db8:ffff:ffff:ffff:ffff:ffff:{n:x}"), "probe": "0123456789abcdef", "check": ["web"],
                "at_ms": 1_800_000_000_000u64, "up": true, "since_ms": 1_800_000_000_000u64, "history": history,
            })
        };
        (0..targets).map(|n| serde_json::from_value(target(n)).unwrap()).collect()
    }

    #[test]
    fn ten_thousand_targets_with_full_histories_are_read_again_and_of_more_the_newest_changes() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(Some(folder.path())).unwrap();
        for (targets, of_each) in [(10_000, CHANGES_OF_EACH), (20_000, 25)] {
            let known = Verdicts::of(flapping(targets, "connection refused; 9 changes within 10 min"));
            state.write(FILE, &known).unwrap();
            let read = state.read::<Verdicts>(FILE).expect("it is used").targets;
            assert_eq!((read.len(), &read), (targets, &known.targets));
            let told = serde_json::to_value(&read[targets - 1]).unwrap();
            let changes = told["history"].as_array().unwrap();
            assert_eq!((changes.len(), &changes[of_each - 1][0]), (of_each, &(1_800_000_000_049u64.into())));
        }
    }

    #[test]
    fn the_longest_reasons_of_all_make_no_file_that_is_too_large_to_be_read() {
        let one = serde_json::to_string(&flapping(1, &"\"".repeat(200))).unwrap();
        assert!(one.len() * (CHANGES_MAX / CHANGES_OF_EACH) < 300 << 20, "{}", one.len());
    }
}
