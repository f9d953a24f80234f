//! Regions that are harder to reach than usual: what this server's probes see, and in a cluster what the others see of it, becomes
//! what is added to the regions' estimates. What a rise is is `health::rise`'s to know; the maps follow with the next rebuild.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::{live::Live, world::World};
use crate::{
    cluster::Rises as Told,
    config::model::{Config, RegionId},
    health::rise::{Held, Rise, Steady, agreed, without_common},
    telemetry::metrics::Families,
};

/// See the module.
#[derive(Debug, Default)]
pub struct Rises(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    looked: Option<Instant>,
    /// What this server's own probes see, by region.
    own: BTreeMap<String, Own>,
    /// What answers are to go by, by region.
    agreed: BTreeMap<String, Held>,
}

#[derive(Debug, Default)]
struct Own {
    steady: Steady,
    /// The newest look; `None`: this server cannot tell.
    seen: Option<Rise>,
}

impl Rises {
    /// To be called about every second: looks at what the probes measured when it is time, tells the others of the cluster, and takes in
    /// what they say.
    pub fn look(&self, live: &Live) {
        let world = live.world();
        let mut inner = self.inner();
        let now = Instant::now();
        if inner.looked.is_some_and(|looked| now - looked < live.board.connecting.pace()) {
            return;
        }
        inner.looked = Some(now);
        live.board.connecting.set_pace(world.config.latency.rebuild_interval);
        inner.look(&world.config, live.board.rises(world.config.regions.len(), now));
        live.cluster.tell_rises(inner.told());
        let others = live.cluster.node().map(|_| live.cluster.rises(now));
        inner.agree(&world.config, others.as_deref());
    }

    /// What is to be added to the estimates of the regions of `config`, in milliseconds.
    pub fn penalties(&self, config: &Config) -> Vec<f32> {
        let inner = self.inner();
        let of = |name: &str| (inner.agreed_ms(name) as f32).min(config.latency.rise_max_ms);
        config.regions.iter().map(|region| of(&region.name)).collect()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Takes in what the probes see now.
    fn look(&mut self, config: &Config, mut seen: Vec<Option<Rise>>) {
        without_common(&mut seen, config.server.region.map(RegionId::index));
        self.own.retain(|name, _| config.regions.iter().any(|region| region.name == *name));
        for (region, seen) in config.regions.iter().zip(seen) {
            let own = self.own.entry(region.name.clone()).or_default();
            own.seen = seen;
            own.steady.look(seen, config.latency.hysteresis_ms, config.latency.rise_max_ms);
        }
    }

    /// What the others are told: of the regions that this server can tell of.
    fn told(&self) -> Told {
        let known = self.own.iter().filter(|(_, own)| own.seen.is_some() || own.steady.ms() > 0.0);
        Told { ms: known.map(|(name, own)| (name.clone(), own.steady.ms().round() as u32)).collect() }
    }

    fn agreed_ms(&self, region: &str) -> u32 {
        self.agreed.get(region).map_or(0, Held::ms)
    }

    /// Merges what this server sees with what others do, and logs what changes. `None`: there are no others.
    fn agree(&mut self, config: &Config, others: Option<&[Told]>) {
        let own = self.told();
        let mut all = BTreeMap::new();
        for region in &config.regions {
            let name = &region.name;
            let votes =
                std::iter::once(&own).chain(others.unwrap_or_default()).filter_map(|told| told.ms.get(name).copied());
            let ms = agreed(votes).min(config.latency.rise_max_ms as u32);
            let mut held = self.agreed.get(name).cloned().unwrap_or_default();
            let before_ms = held.ms();
            match others {
                Some(_) => held.look(ms),
                None => held.set(ms),
            }
            if held.ms() != before_ms {
                self.log(name, before_ms, held.ms());
            }
            all.insert(name.clone(), held);
        }
        self.agreed = all;
    }

    fn log(&self, region: &str, before_ms: u32, ms: u32) {
        let usual_ms = self.own.get(region).and_then(|own| own.seen).map(|seen| f64::from(seen.usual_ms.round()));
        match (before_ms, ms) {
            (0, _) => tracing::warn!(
                region,
                rise_ms = ms,
                usual_ms,
                "connecting to this region takes longer than usual: with the next maps clients near the margin go to others"
            ),
            (_, 0) => tracing::info!(
                region,
                "connecting to this region takes no longer than usual any more: the next maps rank it as ever"
            ),
            _ => tracing::info!(
                region,
                rise_ms = ms,
                before_ms,
                usual_ms,
                "connecting to this region takes another time"
            ),
        }
    }
}

/// Adds what is seen, and what the maps in use are made of.
pub fn metrics(live: &Live, world: &World, families: &mut Families) {
    let inner = live.rises.inner();
    let regions = || world.config.regions.iter();
    let help = "By how much longer than usual connecting to the region takes, where that is enough to count.";
    let family = families.gauge("region_rise_seconds", help);
    for region in regions() {
        let ms = inner.agreed_ms(&region.name);
        family.sample([("region", region.name.clone())], f64::from(ms) / 1e3);
    }
    let help = "What the maps in use add to the region's estimates because of that.";
    let family = families.gauge("region_penalty_seconds", help);
    for (region, site) in regions().zip(world.estimator.sites()) {
        family.sample([("region", region.name.clone())], f64::from(site.penalty_ms()) / 1e3);
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc, time::Duration};

    use super::*;
    use crate::config::{self, Source};

    fn config(rise_max: &str) -> Config {
        let region = |name| format!("[regions.{name}]\nlocation = \"FRA\"\nendpoints = [\"192.0.2.1\"]\n");
        let text = format!(
            "[latency]\nrise-max = \"{rise_max}\"\n{}{}{}[zones.\"x.example\"]\nnameservers = [\"ns1.example.net.\"]\n",
            region("ap"),
            region("eu"),
            region("us")
        );
        let source = Source { name: "isochrone.toml".into(), text };
        config::parse(Arc::new(source), Path::new("")).unwrap_or_else(|report| panic!("{report}"))
    }

    fn rise(ms: f32) -> Option<Rise> {
        Some(Rise { ms, margin_ms: 2.0, usual_ms: 20.0, at: Duration::ZERO, newest: Duration::ZERO })
    }

    fn told(ms: &[(&str, u32)]) -> Told {
        Told { ms: ms.iter().map(|(name, ms)| (name.to_string(), *ms)).collect() }
    }

    /// A server that saw this three times.
    fn server(config: &Config, seen: [Option<Rise>; 3]) -> Rises {
        let rises = Rises::default();
        for n in 1..=3 {
            let at = Duration::from_secs(n);
            let new = seen.map(|rise| rise.map(|rise| Rise { at, newest: at, ..rise }));
            rises.inner().look(config, new.to_vec());
        }
        rises
    }

    #[test]
    fn what_one_server_sees_alone_is_what_it_goes_by_and_a_reload_without_rises_forgets_it() {
        let config = config("100ms");
        let rises = server(&config, [rise(0.0), rise(40.4), rise(0.0)]);
        rises.inner().agree(&config, None);
        assert_eq!(rises.penalties(&config), [0.0, 40.0, 0.0]);
        let off = self::config("0ms");
        assert_eq!(rises.penalties(&off), [0.0; 3]);
        rises.inner().look(&off, vec![rise(0.0), rise(40.4), rise(0.0)]);
        rises.inner().agree(&off, None);
        assert_eq!(rises.penalties(&config), [0.0; 3]);
    }

    #[test]
    fn in_a_cluster_the_majority_of_those_that_can_tell_decides() {
        let config = config("100ms");
        let rises = server(&config, [rise(0.0), rise(40.0), None]);
        assert_eq!(rises.inner().told(), told(&[("ap", 0), ("eu", 40)]));
        for (others, expected) in [
            (vec![told(&[("ap", 0), ("eu", 0), ("us", 0)])], [0.0, 0.0, 0.0]),
            (vec![told(&[("ap", 30), ("eu", 35), ("us", 70)])], [0.0, 35.0, 70.0]),
            (vec![told(&[("eu", 0)]), told(&[("eu", 60)])], [0.0, 40.0, 0.0]),
            (vec![told(&[]), told(&[("us", 4_000_000_000), ("mars", 9)])], [0.0, 40.0, 100.0]),
        ] {
            (0..3).for_each(|_| rises.inner().agree(&config, Some(&others)));
            assert_eq!(rises.penalties(&config), expected, "{others:?}");
        }
    }

    #[test]
    fn a_server_that_is_not_heard_for_a_moment_changes_nothing() {
        let config = config("100ms");
        let rises = server(&config, [rise(0.0), rise(40.0), rise(0.0)]);
        let others = [told(&[("eu", 0)])];
        for heard in [&others[..], &others, &others, &[], &[], &others, &[]] {
            rises.inner().agree(&config, Some(heard));
            assert_eq!(rises.penalties(&config), [0.0; 3]);
        }
        (0..2).for_each(|_| rises.inner().agree(&config, Some(&[])));
        assert_eq!(rises.penalties(&config), [0.0, 40.0, 0.0]);
    }

    #[test]
    fn the_probers_own_trouble_is_no_regions() {
        let config = config("100ms");
        let rises = server(&config, [rise(60.0), rise(58.0), rise(63.0)]);
        rises.inner().agree(&config, None);
        assert_eq!(rises.penalties(&config), [0.0; 3]);
    }
}
