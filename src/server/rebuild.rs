//! Takes what was learnt up into the maps, in the background and now and then: the world stays, its maps follow.

use std::{sync::Arc, time::Instant};

use super::{eyes, live::Live, parallel::at_leisure, world::World};
use crate::config::Config;

/// When maps were last made of what was learnt: never, at first, so that what was known before a restart counts at once.
#[derive(Default)]
pub struct Rebuilder {
    /// The generation of what was learnt here, and of what others told.
    seen: (u64, u64),
    at: Option<Instant>,
}

impl Rebuilder {
    /// True when something was learnt since, and the last time is long enough ago.
    pub fn is_due(&self, live: &Live) -> bool {
        let config = &live.world().config;
        let is_rested = self.at.is_none_or(|at| at.elapsed() >= config.latency.rebuild_interval);
        let is_learning = config.latency.learning.is_on || config.cluster.is_some();
        is_learning && is_rested && eyes::generation(live) != self.seen
    }

    /// Makes the maps anew and publishes them; an error is logged, and the present ones stay.
    pub async fn rebuild(&mut self, live: &Arc<Live>) {
        self.seen = eyes::generation(live);
        let (before, live_then) = (live.world(), live.clone());
        let world = before.clone();
        let made = tokio::task::spawn_blocking(move || {
            let learnt = |config: &Config| eyes::rows(&live_then, config);
            at_leisure(|| world.with_measurements(&learnt))
        });
        match made.await {
            Ok(Ok(world)) => self.publish(live, &before, world),
            Ok(Err(report)) => {
                tracing::error!("the maps stay as they are, what was learnt could not be taken up:\n{report}")
            }
            Err(error) => {
                live.count_panic("rebuild");
                tracing::error!(%error, "making the maps anew panicked; they stay as they are");
            }
        }
        self.at = Some(Instant::now());
    }

    fn publish(&self, live: &Live, before: &Arc<World>, world: World) {
        let took_ms = world.build_time.as_millis() as u64;
        let (networks_v4, networks_v6) = world.networks();
        live.take_up_maps(before, Arc::new(world));
        tracing::info!(networks_v4, networks_v6, ms = took_ms, "took up what was learnt");
    }
}
