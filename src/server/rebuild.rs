//! Takes what was learnt, and regions that are harder to reach than usual, up into the maps, in the background and now and then: the
//! world stays, its maps follow.

use std::{future::pending, sync::Arc, time::Instant};

use tokio::task::{JoinError, JoinHandle};

use super::{eyes, live::Live, parallel::at_leisure, world::World};
use crate::config::Report;

/// When maps were last made of what was learnt: never, at first, so that what was known before a restart counts at once.
#[derive(Default)]
pub struct Rebuilder {
    /// The generation of what was learnt here, and of what others told, that the maps are made of.
    seen: (u64, u64),
    /// When the last try ended.
    at: Option<Instant>,
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
        let is_due = is_learning && seen != self.seen || penalties_ms != before.penalties_ms();
        if !is_due || !is_rested || self.under_way.is_some() {
            return;
        }
        let (live, world) = (live.clone(), before.clone());
        let work = tokio::task::spawn_blocking(move || {
            let learnt = eyes::rows(&live, &world.config);
            at_leisure(|| world.with_measurements(learnt, &penalties_ms))
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
