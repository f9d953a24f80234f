//! What a network is expected to be like by what is known around it, before its own measurements.

use crate::{
    geo::{Coordinates, Place},
    latency::{
        cells::FieldAt,
        estimator::{Estimator, Room, Shift},
        trend::Trend,
    },
};

/// The surroundings of one place and autonomous system: looked up once for all measurements of a network.
pub struct Surroundings<'e> {
    field: FieldAt<'e>,
    groups: [Option<&'e Shift>; 3], // continent, country, autonomous system
    trend: &'e Trend,
}

impl<'e> Surroundings<'e> {
    /// Of a network at a place, without what its system has by itself in its country.
    pub fn new(
        estimator: &'e Estimator,
        coordinates: Coordinates,
        place: &Place,
        asn: Option<u32>,
        room: &'e mut Room,
    ) -> Self {
        let continent = place.continent.and_then(|continent| estimator.continents.get(&continent));
        let country = place.country.and_then(|country| estimator.countries.get(&country));
        let system = asn.and_then(|asn| estimator.systems.get(&(asn, None)));
        let field = estimator.field_at(coordinates, room);
        Surroundings { field, groups: [continent, country, system], trend: &estimator.trend }
    }

    /// The error of the model to expect towards one region, where it says `model_ms`.
    pub fn expected_error(&self, region: usize, model_ms: f32) -> f32 {
        let groups = self.groups.iter().flatten().map(|shift| shift.belief.mean[region]);
        self.field.mean[region] + groups.sum::<f32>() + self.trend.at(region, model_ms)
    }
}
