//! Latency by many eyes: what this server measured goes to the others of its cluster, and what they measured joins it in the maps. The
//! same figures make the same rows on every server: rounded, aged by whole hours, in one order.

use std::{
    cmp::Ordering,
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::time::MissedTickBehavior;

use super::{live::Live, parallel::blocking, world::unix_s};
use crate::{
    cluster::{Cell, Others, Own},
    config::model::{Config, RegionId},
    geo::Network,
    latency::{
        learn::{self, Measured},
        measurement::{self, Row},
    },
};

/// How often it is looked whether something new was measured.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Networks are forgotten though nothing is measured: so often it is looked for them, in seconds.
const COUNT_ANEW_S: u64 = 600;
/// Ages of measurements go by steps of so many seconds.
const AGE_STEP_S: u64 = 3600;

/// Counts up, in one of its parts, whenever [`rows`] have changed so much that estimates may.
pub fn generation(live: &Live) -> (u64, u64) {
    (live.learning.generation(), live.cluster.measured_generation())
}

/// What was measured here, and in a cluster what the others told of theirs, for the estimates under `config`.
pub fn rows(live: &Live, config: &Config) -> Vec<Row> {
    let now_s = unix_s(SystemTime::now());
    if config.cluster.is_none() {
        return live.learning.rows(config, now_s);
    }
    let regions: HashMap<&str, RegionId> =
        config.regions.iter().zip(0..).map(|(region, n)| (region.name.as_str(), RegionId(n))).collect();
    let own = live.learning.cells(config, now_s);
    let own = own.iter().map(|known| Figure { region: known.region, cell: own_cell(known, now_s), is_current: true });
    let mut all: Vec<Figure> = own.collect();
    for Others { region, is_current, cells } in live.cluster.measured(Instant::now()) {
        if let Some(&region) = regions.get(region.as_str()) {
            all.extend(cells.into_iter().map(|cell| Figure { region, cell, is_current }));
        }
    }
    combine(all)
}

/// What one server measured.
#[derive(Debug, Clone)]
struct Figure {
    region: RegionId,
    cell: Cell,
    /// Its server still tells.
    is_current: bool,
}

impl Figure {
    /// What it is a figure of.
    fn place(&self) -> (Network, usize) {
        (self.cell.network, self.region.index())
    }

    /// The one that speaks for its place comes first.
    fn order(&self, other: &Figure) -> Ordering {
        let (x, y) = (&self.cell, &other.cell);
        let by_place = self.place().cmp(&other.place()).then(other.is_current.cmp(&self.is_current));
        by_place.then(y.samples.cmp(&x.samples)).then(x.age_s.cmp(&y.age_s)).then(x.rtt_ms.total_cmp(&y.rtt_ms))
    }
}

/// One row for each network and region. Where several servers stand, or stood, in one region, those that still tell come before those
/// that are silent; among them the one with most samples behind its figure speaks for it, then the one with the newest.
fn combine(mut all: Vec<Figure>) -> Vec<Row> {
    for Figure { cell, .. } in &mut all {
        cell.age_s -= cell.age_s % AGE_STEP_S;
    }
    all.sort_unstable_by(Figure::order);
    let row = |group: &[Figure]| {
        let Figure { region, cell: Cell { network, rtt_ms, samples, age_s, .. }, .. } = group[0];
        let is_alone = group.iter().any(|figure| figure.cell.sends_subnets);
        let network = measurement::Network::Prefix(network.prefix());
        Row { network, region, rtt_ms, samples, age_s, is_alone }
    };
    all.chunk_by(|a, b| a.place() == b.place()).map(row).collect()
}

fn own_cell(known: &learn::Cell, now_s: u64) -> Cell {
    let cell = Cell {
        network: Network::of(known.network.addr()),
        rtt_ms: known.rtt_ms,
        samples: known.samples,
        age_s: now_s.saturating_sub(known.newest_s),
        sends_subnets: known.sends_subnets,
    };
    cell.rounded()
}

fn told(known: &Measured, now_s: u64) -> Cell {
    let Measured { network, rtt_ms, samples, newest_s, sends_subnets, weight: _ } = *known;
    Cell { network, rtt_ms, samples, age_s: now_s.saturating_sub(newest_s), sends_subnets }.rounded()
}

/// Keeps the cluster up to date with what is measured here, for ever.
pub async fn tell(live: Arc<Live>) {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = None;
    loop {
        tick.tick().await;
        let now_s = unix_s(SystemTime::now());
        let state =
            live.cluster.node().map(|_| (live.learning.region(), live.learning.generation(), now_s / COUNT_ANEW_S));
        if state.is_none() || state == seen {
            seen = state;
            continue;
        }
        seen = state;
        let measuring = live.clone();
        blocking(move || {
            let at = Instant::now();
            let own = measuring.learning.heaviest(now_s).map(|(region, all)| {
                let cells = all.iter().map(|known| told(known, now_s)).collect();
                Own { region, cells, at }
            });
            measuring.cluster.measure(own);
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(network: &str, rtt_ms: f32, samples: u32, age_s: u64) -> Cell {
        Cell { network: network.parse().unwrap(), rtt_ms, samples, age_s, sends_subnets: false }
    }

    #[test]
    fn the_same_figures_in_any_order_make_the_same_rows() {
        let (eu, us) = (RegionId(0), RegionId(1));
        let figure = |region, cell| Figure { region, cell, is_current: true };
        let mut all = vec![
            figure(us, cell("192.0.2.0/24", 80.0, 4, 3700)),
            figure(eu, cell("192.0.2.0/24", 12.0, 4, 100)),
            figure(eu, cell("192.0.2.0/24", 10.0, 8, 9000)),
            figure(eu, Cell { sends_subnets: true, ..cell("192.0.2.0/24", 9.0, 8, 9100) }),
            Figure { is_current: false, ..figure(eu, cell("192.0.2.0/24", 99.0, 1000, 0)) },
            figure(eu, cell("2001:db8::/56", 30.0, 1, 0)),
        ];
        let rows = combine(all.clone());
        let told: Vec<_> =
            rows.iter().map(|row| (row.region, row.rtt_ms, row.samples, row.age_s, row.is_alone)).collect();
        let v6 = (eu, 30.0, 1, 0, false);
        let expected = [(eu, 9.0, 8, 7200, true), (us, 80.0, 4, 3600, false)];
        assert_eq!(told.iter().filter(|told| **told != v6).copied().collect::<Vec<_>>(), expected);
        assert!(told.contains(&v6));
        for _ in 0..all.len() {
            all.rotate_left(1);
            assert_eq!(combine(all.clone()), rows);
        }
    }
}
