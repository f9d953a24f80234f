//! Where queries come from: sampled clients, placed by the built-in table, forgotten within minutes. Done when somebody looks: until
//! then the table need not even be unpacked.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::{
    admin::status::{Source, Traffic},
    geo::{Locations, place::CountryCode},
    telemetry::Registry,
};

/// After so long a sample weighs half.
const HALF_LIFE: Duration = Duration::from_secs(120);

/// Places told at most, those with the most queries first.
const PLACES_MAX: usize = 200;

/// What is left of a place is forgotten below this weight, in samples.
const WEIGHT_MIN: f64 = 0.05;

/// Weights of places, as of the last look.
pub struct Origins {
    table: Locations,
    /// By worker: how many of its samples were taken in.
    seen: Vec<u64>,
    places: HashMap<Option<Spot>, f64>,
    weighed: Instant,
    sampled: u64,
}

/// A country, or a cell of a large one, as the built-in table has them. Coordinates as bits, to be told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Spot {
    country: CountryCode,
    at: [u32; 2],
}

impl Default for Origins {
    fn default() -> Self {
        Origins {
            table: Locations::builtin(),
            seen: Vec::new(),
            places: HashMap::new(),
            weighed: Instant::now(),
            sampled: 0,
        }
    }
}

impl Origins {
    /// Takes in what was sampled since the last time, and lets the rest fade.
    pub fn update(&mut self, registry: &Registry, now: Instant) {
        let faded = 0.5f64.powf(now.duration_since(self.weighed).as_secs_f64() / HALF_LIFE.as_secs_f64());
        self.weighed = now;
        self.places.retain(|_, weight| {
            *weight *= faded;
            *weight > WEIGHT_MIN
        });
        for sample in registry.samples_since(&mut self.seen) {
            self.sampled += 1;
            *self.places.entry(self.spot(sample.network)).or_default() += 1.0;
        }
    }

    fn spot(&self, network: IpAddr) -> Option<Spot> {
        let place = self.table.lookup(network)?;
        let (country, at) = (place.country?, place.coordinates?);
        Some(Spot { country, at: [at.latitude.to_bits(), at.longitude.to_bits()] })
    }

    /// The places with their shares, the largest first.
    pub fn traffic(&self) -> Traffic {
        let sum: f64 = self.places.values().sum();
        let mut sources: Vec<Source> = self
            .places
            .iter()
            .map(|(spot, weight)| Source {
                country: spot.map(|spot| spot.country.as_str().to_string()),
                latitude: spot.map(|spot| f32::from_bits(spot.at[0])),
                longitude: spot.map(|spot| f32::from_bits(spot.at[1])),
                share: weight / sum,
            })
            .collect();
        sources.sort_by(|a, b| b.share.total_cmp(&a.share).then_with(|| a.country.cmp(&b.country)));
        sources.truncate(PLACES_MAX);
        Traffic { sampled: self.sampled, sources }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_placed_and_forgotten() {
        let registry = Registry::new();
        let worker = registry.register();
        let mut origins = Origins::default();
        for client in ["81.2.69.1", "81.2.69.200", "81.2.69.3", "10.0.0.1"] {
            worker.samples().note(client.parse().unwrap());
        }
        let start = origins.weighed;
        origins.update(&registry, start);
        let traffic = origins.traffic();
        let told: Vec<_> = traffic.sources.iter().map(|s| (s.country.as_deref(), s.share)).collect();
        assert_eq!((told, traffic.sampled), (vec![(Some("GB"), 0.75), (None, 0.25)], 4));
        origins.update(&registry, start + 2 * HALF_LIFE);
        assert_eq!(origins.traffic().sources, traffic.sources, "shares stay while nothing new comes");
        origins.update(&registry, start + 20 * HALF_LIFE);
        assert!(origins.traffic().sources.is_empty());
    }
}
