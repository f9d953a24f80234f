//! Takes what was learnt up into the maps, in the background and now and then: the world stays, its maps follow.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use super::{
    live::Live,
    world::{World, unix_s},
};
use crate::config::Config;

/// When maps were last made of what was learnt: never, at first, so that what was known before a restart counts at once.
#[derive(Default)]
pub struct Rebuilder {
    /// The generation of what was learnt.
    seen: u64,
    at: Option<Instant>,
}

impl Rebuilder {
    /// True when something was learnt since, and the last time is long enough ago.
    pub fn is_due(&self, live: &Live) -> bool {
        let terms = &live.world().config.latency;
        let is_rested = self.at.is_none_or(|at| at.elapsed() >= terms.rebuild_interval);
        terms.learning.is_on && is_rested && live.learning.generation() != self.seen
    }

    /// Makes the maps anew and publishes them; an error is logged, and the present ones stay.
    pub async fn rebuild(&mut self, live: &Arc<Live>) {
        self.seen = live.learning.generation();
        let (before, learning) = (live.world(), live.learning.clone());
        let world = before.clone();
        let made = tokio::task::spawn_blocking(move || {
            let learnt = |config: &Config| learning.rows(config, unix_s(SystemTime::now()));
            world.with_measurements(&learnt)
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
