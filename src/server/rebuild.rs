//! Takes what was learnt, and regions that are harder to reach than usual, up into the maps, in the background and now and then, and once
//! a day that what was measured has become older: the world stays, its maps follow.

use std::{
    future::pending,
    sync::Arc,
    time::{Instant, SystemTime},
};

use tokio::task::{JoinError, JoinHandle};

use super::{
    eyes,
    live::Live,
    parallel::at_leisure,
    world::{World, unix_s},
};
use crate::config::Report;

/// The maps follow the ages of what was measured so often: samples count half after a month, so a day takes two in a hundred off them.
const FADES_EVERY_S: u64 = 24 * 3600;

/// When maps were last made of what was learnt: never, at first, so that what was known before a restart counts at once.
#[derive(Default)]
pub struct Rebuilder {
    /// The generation of what was learnt here, and of what others told, that the maps are made of.
    seen: (u64, u64),
    /// When the last try ended.
    at: Option<Instant>,
    /// The day for which they were last made since what was measured had become older: where that fails, it is not tried again before
    /// the next.
    day: u64,
    under_way: Option<UnderWay>,
}

/// Maps that are being made.
struct UnderWay {
    before: Arc<World>,
    seen: (u64, u64),
    work: JoinHandle<Result<World, Report>>,
}

impl Rebuilder {
    /// Where the maps were just made of what the process before had.
    pub fn rested() -> Rebuilder {
        Rebuilder { at: Some(Instant::now()), ..Rebuilder::default() }
    }

    /// Begins to make the maps anew if something was learnt since, or a region is reached otherwise than they say, none are being made,
    /// and the last time is long enough ago.
    pub fn begin_if_due(&mut self, live: &Arc<Live>) {
        let before = live.world();
        let latency = &before.config.latency;
        let is_rested = self.at.is_none_or(|at| at.elapsed() >= latency.rebuild_interval);
        let is_learning = latency.learning.is_on || before.config.cluster.is_some();
        let seen = eyes::generation(live);
        let penalties_ms = live.rises.penalties(&before.config);
        let now = SystemTime::now();
        let has_faded = has_faded(&before, unix_s(now)) && day_of(unix_s(now)) != self.day;
        let is_due = is_learning && seen != self.seen || penalties_ms != before.penalties_ms() || has_faded;
        if !is_due || !is_rested || self.under_way.is_some() {
            return;
        }
        self.day = day_of(unix_s(now));
        let (live, world) = (live.clone(), before.clone());
        let work = tokio::task::spawn_blocking(move || {
            let learnt = eyes::rows(&live, &world.config);
            at_leisure(|| world.with_measurements(learnt, &penalties_ms, now))
        });
        self.under_way = Some(UnderWay { before, seen, work });
    }

    /// Waits for maps that are being made, for ever if none are, and publishes them. An error is logged, and the present ones stay. To
    /// be dropped at any time: the work goes on.
    pub async fn done(&mut self, live: &Live) {
        let Some(UnderWay { work, .. }) = &mut self.under_way else { return pending().await };
        let made = work.await;
        if let Some(UnderWay { before, seen, .. }) = self.under_way.take() {
            self.at = Some(Instant::now());
            // After a failure, or a reload that came first, the same is due again.
            if take_up(live, &before, made) {
                self.seen = seen;
            }
        }
    }
}

/// True when what the maps are made of counts less by now than it does in them. By the calendar (UTC), so that all servers of a cluster
/// follow within the same minutes and go on answering alike.
fn has_faded(world: &World, now_s: u64) -> bool {
    world.estimator.counts().rows > 0 && day_of(now_s) > day_of(world.measured_s)
}

fn day_of(at_s: u64) -> u64 {
    at_s / FADES_EVERY_S
}

fn take_up(live: &Live, before: &Arc<World>, made: Result<Result<World, Report>, JoinError>) -> bool {
    match made {
        Ok(Ok(world)) => {
            let ms = world.build_time.as_millis() as u64;
            let (networks_v4, networks_v6) = world.networks();
            let is_current = live.take_up_maps(before, Arc::new(world));
            if is_current {
                tracing::info!(networks_v4, networks_v6, ms, "took up what was learnt");
            }
            is_current
        }
        Ok(Err(report)) => {
            tracing::error!("the maps stay as they are, what was learnt could not be taken up:\n{report}");
            false
        }
        Err(error) => {
            live.count_panic("rebuild");
            tracing::error!(%error, "making the maps anew panicked; they stay as they are");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const CONFIG: &str = "[latency]\nmeasurements = [\"rtt.csv\"]\n[regions.eu]\nlocation = \"FRA\"\nendpoints = [\"192.0.2.1\"]\n\
                          [zones.\"x.example\"]\nnameservers = [\"ns1.example.net.\"]\n";

    #[test]
    fn what_was_measured_has_faded_when_another_day_has_begun_and_nothing_fades_where_nothing_was_measured() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("isochrone.toml");
        std::fs::write(&path, CONFIG).unwrap();
        for (rows, fades) in [("81.2.69.0/24,eu,20\n", true), ("", false)] {
            std::fs::write(folder.path().join("rtt.csv"), rows).unwrap();
            let world = World::load(&path).unwrap_or_else(|report| panic!("{report}"));
            let next_day_s = (world.measured_s / 86_400 + 1) * 86_400;
            let found = [world.measured_s, next_day_s - 1, next_day_s].map(|now_s| has_faded(&world, now_s));
            assert_eq!(found, [false, false, fades]);
            let later = SystemTime::UNIX_EPOCH + Duration::from_secs(next_day_s);
            let anew = world.with_measurements(Vec::new(), &[], later).unwrap_or_else(|report| panic!("{report}"));
            assert!(!has_faded(&anew, next_day_s));
        }
    }
}
