//! Measured round trips as one process hands them to the next, so that the new one's first map is no worse: its own are in the state,
//! those of the other servers of a cluster come only some seconds later.

use serde::{Deserialize, Serialize};

use crate::{
    config::model::{Config, RegionId},
    latency::measurement::{Network, Row},
};

/// Measured networks, by the names of regions: numbers change with the configuration.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Learnt {
    rows: Vec<Told>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Told {
    network: String,
    region: String,
    rtt_ms: f32,
    samples: u32,
    age_s: u64,
    alone: bool,
}

impl Learnt {
    /// These rows, under this configuration.
    pub fn new(rows: &[Row], config: &Config) -> Learnt {
        let told = |row: &Row| {
            let Network::Prefix(network) = row.network else { return None };
            let region = config.regions.get(row.region.index())?.name.clone();
            let Row { rtt_ms, samples, age_s, is_alone: alone, .. } = *row;
            Some(Told { network: network.to_string(), region, rtt_ms, samples, age_s, alone })
        };
        Learnt { rows: rows.iter().filter_map(told).collect() }
    }

    /// The rows that mean something under this configuration.
    pub fn rows(&self, config: &Config) -> Vec<Row> {
        let row = |told: &Told| {
            let region = config.regions.iter().position(|region| region.name == told.region)?;
            let network = Network::Prefix(told.network.parse().ok()?);
            let &Told { rtt_ms, samples, age_s, alone: is_alone, .. } = told;
            let is_sound = rtt_ms.is_finite() && rtt_ms > 0.0 && samples > 0;
            is_sound.then_some(Row { network, region: RegionId(region as u8), rtt_ms, samples, age_s, is_alone })
        };
        self.rows.iter().filter_map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use super::*;
    use crate::config::{self, Source};

    fn config(regions: &[&str]) -> Config {
        let region = |name: &&str| format!("[regions.{name}]\nlocation = \"FRA\"\nendpoints = [\"192.0.2.1\"]\n");
        let regions: String = regions.iter().map(region).collect();
        let text = format!("{regions}[zones.\"x.example\"]\nnameservers = [\"ns1.example.net.\"]\n");
        let source = Source { name: "isochrone.toml".into(), text };
        config::parse(Arc::new(source), Path::new("")).unwrap_or_else(|report| panic!("{report}"))
    }

    #[test]
    fn rows_follow_their_regions_and_go_where_the_region_is_gone() {
        let row = |network: &str, region| Row {
            network: Network::Prefix(network.parse().unwrap()),
            region: RegionId(region),
            rtt_ms: 12.5,
            samples: 7,
            age_s: 60,
            is_alone: true,
        };
        let rows = [row("192.0.2.0/24", 0), row("2001:db8::/56", 1)];
        let text = serde_json::to_string(&Learnt::new(&rows, &config(&["us", "eu"]))).unwrap();
        let told: Learnt = serde_json::from_str(&text).unwrap();
        assert_eq!(told.rows(&config(&["eu", "us"])), [row("192.0.2.0/24", 1), row("2001:db8::/56", 0)]);
        assert_eq!(told.rows(&config(&["us"])), rows[..1]);
    }
}
