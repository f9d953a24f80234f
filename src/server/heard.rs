//! What other servers of the cluster measured, across restarts: in `cluster-latency.json` of the state directory. It grows old as if the
//! process had run on.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::{
    live::Live,
    state::{StateDir, Stored},
    world::unix_s,
};
use crate::cluster::{Cluster, Kept};

/// The file's name in the state directory.
const FILE: &str = "cluster-latency.json";

/// Shortest time between two writings; a writing is followed by a pause so many times as long, so that hundreds of thousands of
/// networks never keep the disk busy.
const WRITE_EVERY: Duration = Duration::from_secs(10);
const PAUSE_PER_WRITING: u32 = 300;

/// What the file holds.
#[derive(Serialize, Deserialize)]
struct Heard {
    servers: Vec<Kept>,
}

impl Stored for Heard {
    const SCHEMA: u32 = 1;
}

/// Gives the cluster what was known before the restart. Waits for the disk.
pub fn recall(state: &StateDir, cluster: &Cluster) {
    let Some(Heard { servers }) = state.read(FILE) else { return };
    let (networks, left_out) = cluster.recall_measured(servers, Instant::now(), unix_s(SystemTime::now()));
    tracing::info!(networks, left_out, "round trips that other servers measured were read");
}

/// Writes what is known, now. Waits for the disk.
fn write(live: &Live) {
    let servers = live.cluster.remember_measured(Instant::now(), unix_s(SystemTime::now()));
    if let Err(error) = live.state.write(FILE, &Heard { servers }) {
        tracing::error!(%error, "round trips that other servers measured may not outlive the process");
    }
}

/// Writes what is known at the end, if there is anything to write.
pub fn write_last(live: &Live) {
    if live.cluster.measured_changes() > 0 {
        write(live);
    }
}

/// Writes what is known some seconds after each change, until the end. A `[cluster]` that comes with a reload finds what was written
/// before.
pub async fn keep(live: Arc<Live>) {
    if !live.state.is_kept() {
        return std::future::pending().await;
    }
    let (mut is_read, mut written) = (live.cluster.node().is_some(), 0);
    let mut pause = WRITE_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        let reads = !is_read && live.cluster.node().is_some();
        let changes = live.cluster.measured_changes();
        if !reads && changes == written {
            continue;
        }
        let begun = Instant::now();
        let working = live.clone();
        let worked = tokio::task::spawn_blocking(move || match reads {
            true => recall(&working.state, &working.cluster),
            false => write(&working),
        });
        match worked.await.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(()) | Err(Err(_)) => {} // done, or the program is ending
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
        }
        match reads {
            true => is_read = true,
            false => written = changes,
        }
        pause = WRITE_EVERY.max(PAUSE_PER_WRITING * begun.elapsed());
    }
}
