//! Verdicts and history across restarts: what the board knows, in `verdicts.json` of the state directory.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::{
    live::Live,
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

/// What the file holds.
#[derive(Serialize, Deserialize)]
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
    Verdicts { targets: live.board.remember(Instant::now(), SystemTime::now()) }
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
        match tokio::task::spawn_blocking(move || write(&writing)).await.map_err(tokio::task::JoinError::try_into_panic)
        {
            Ok(()) | Err(Err(_)) => {} // written, or the program is ending
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
        }
        written = Instant::now();
        pause = WRITE_EVERY.max(PAUSE_PER_WRITING * (written - begun));
    }
}
