//! What people are told of what is learned: status, list of networks, metrics.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{Learning, sort_by_weight};
use crate::{
    admin::latency::{LearningStatus, MeasuredNetwork, Measurements},
    latency::learn::{Measured, Outcome, network_of},
    telemetry::metrics::Families,
};

/// Networks that the admin interface lists, the heaviest first.
const LISTED_MAX: usize = 1000;

impl Learning {
    /// What the status shows; `None`: it does not learn.
    pub fn status(&self, now_s: u64) -> Option<LearningStatus> {
        let terms = **self.terms.load();
        let control = self.control();
        let region = control.region.clone().filter(|_| terms.is_on)?;
        let Outcome { asked, came, gained } = self.outcome();
        Some(LearningStatus {
            region,
            networks: control.store.measured(now_s).count() as u64,
            samples: self.counts.samples.load(Relaxed),
            jumps: control.store.jumps(),
            prospect: terms.prospect,
            asked,
            came,
            gained,
        })
    }

    /// What was measured of the network of `client`, or of the heaviest ones.
    pub fn measurements(&self, client: Option<IpAddr>, now_s: u64) -> Measurements {
        let control = self.control();
        let region = control.region.clone().filter(|_| self.terms.load().is_on);
        let mut known: Vec<Measured> = match (&region, client) {
            (None, _) => Vec::new(),
            (_, Some(client)) => network_of(client.to_canonical())
                .and_then(|network| control.store.of(network, now_s))
                .into_iter()
                .collect(),
            (_, None) => control.store.measured(now_s).collect(),
        };
        drop(control);
        sort_by_weight(&mut known);
        known.truncate(LISTED_MAX);
        let networks = known.iter().map(|known| MeasuredNetwork {
            network: known.network.to_string(),
            rtt_ms: (f64::from(known.rtt_ms) * 1e3).round() / 1e3,
            samples: known.samples,
            newest: known.newest_s,
            sends_client_subnets: known.sends_subnets,
        });
        Measurements { region, networks: networks.collect() }
    }

    /// What there is to measure of it.
    pub fn metrics(&self, families: &mut Families) {
        let counts = &self.counts;
        let value = |count: &AtomicU64| count.load(Relaxed) as f64;
        let control = self.control();
        let help = "Round trips of clients by TCP that were taken in.";
        families.counter("latency_samples", help).value(value(&counts.samples));
        families
            .counter("latency_samples_discarded", "Connections of clients by TCP that told no round trip.")
            .sample([("reason", "retransmitted")], value(&counts.retransmitted))
            .sample([("reason", "unmeasured")], value(&counts.unmeasured))
            .sample([("reason", "overflow")], value(&counts.lost));
        families.gauge("latency_networks", "Networks whose round trip is known.").value(control.store.len() as f64);
        let help = "Paths whose round trip became another one.";
        families.counter("latency_jumps", help).value(control.store.jumps() as f64);
        let Outcome { asked, came, gained } = self.outcome();
        families.counter("prospects_asked", "Networks asked by TC to come by TCP.").value(asked as f64);
        families.counter("prospects_came", "Networks that came by TCP when asked.").value(came as f64);
        families.counter("prospects_gained", "Networks measured since they came when asked.").value(gained as f64);
    }
}
