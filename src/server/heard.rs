//! What other servers of the cluster measured, across restarts: in `cluster-latency.json` of the state directory. It grows old as if the
//! process had run on.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::{
    live::Live,
    parallel::blocking,
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
    let known = state.read(FILE);
    let is_there = known.is_some();
    let servers = known.map_or_else(Vec::new, |Heard { servers }| servers);
    let (networks, left_out) = cluster.recall_measured(servers, Instant::now(), unix_s(SystemTime::now()));
    if is_there {
        tracing::info!(networks, left_out, "round trips that other servers measured were read");
    }
}

/// Writes what is known, now; not without `[cluster]`, nor before what was written is read: either would put nothing in its place.
/// Waits for the disk.
fn write(state: &StateDir, cluster: &Cluster) {
    let servers = cluster.remember_measured(Instant::now(), unix_s(SystemTime::now()));
    if cluster.node().is_none() || !cluster.is_measured_recalled() {
        return; // asked after the above: all may have been forgotten meanwhile
    }
    if let Err(error) = state.write(FILE, &Heard { servers }) {
        tracing::error!(%error, "round trips that other servers measured may not outlive the process");
    }
}

/// Writes what is known at the end, if there is anything to write.
pub fn write_last(live: &Live) {
    if live.cluster.measured_changes() == 0 || live.cluster.node().is_none() {
        return;
    }
    if !live.cluster.is_measured_recalled() {
        recall(&live.state, &live.cluster);
    }
    write(&live.state, &live.cluster);
}

/// Writes what is known some seconds after each change, until the end. A `[cluster]` that comes with a reload, or comes back with one,
/// finds what was written before.
pub async fn keep(live: Arc<Live>) {
    if !live.state.is_kept() {
        return std::future::pending().await;
    }
    let mut written = 0;
    let mut pause = WRITE_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        let reads = !live.cluster.is_measured_recalled();
        let changes = live.cluster.measured_changes();
        if live.cluster.node().is_none() || !reads && changes == written {
            continue;
        }
        let begun = Instant::now();
        let working = live.clone();
        blocking(move || match reads {
            true => recall(&working.state, &working.cluster),
            false => write(&working.state, &working.cluster),
        })
        .await;
        if !reads {
            written = changes;
        }
        pause = WRITE_EVERY.max(PAUSE_PER_WRITING * begun.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_without_a_cluster_or_before_what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(Some(folder.path())).unwrap();
        let line = format!("192.0.2.0/24 12.5 4 {}", unix_s(SystemTime::now()));
        let text = format!(r#"[{{"node":"a","region":"eu","networks":["{line}"]}}]"#);
        state.write(FILE, &Heard { servers: serde_json::from_str(&text).unwrap() }).unwrap();
        let kept = || state.read::<Heard>(FILE).map(|heard| heard.servers.len());
        let cluster = Cluster::default();
        write(&state, &cluster);
        assert_eq!(kept(), Some(1), "it stands alone");
        let member = crate::config::model::Cluster {
            nats: Vec::new(),
            credentials: None,
            ca: None,
            node: "b".into(),
            prefix: "p".into(),
            quorum: 0.5,
        };
        cluster.configure(Some(&member));
        write(&state, &cluster);
        assert_eq!(kept(), Some(1), "nothing was read yet");
        recall(&state, &cluster);
        assert_eq!(cluster.measured(Instant::now()).len(), 1);
        write(&state, &cluster);
        assert_eq!(kept(), Some(1));
    }
}
