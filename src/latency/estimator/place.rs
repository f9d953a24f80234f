//! What is believed of a place before its networks' own measurements: the field, detours, and what continent, country and autonomous
//! system add.

use super::{Estimator, Room};
use crate::{
    geo::{Coordinates, Place},
    latency::{
        belief::Belief,
        cells::{FieldAt, centre_of_cell, degree_cell},
        detours::Door,
        estimate::Direction,
        intake::ERROR_RANGE,
        model,
    },
};

/// Where ways from a cell of the globe begin.
pub struct Start {
    centre: Direction,
    door: Door,
}

impl Start {
    /// In this cell.
    pub fn of_cell(cell: u32) -> Start {
        let centre = Direction::of(centre_of_cell(cell));
        Start { centre, door: Door::of(centre) }
    }
}

impl Estimator {
    /// The field at the place, to a degree.
    pub(super) fn believe_place(&self, coordinates: Coordinates, room: &mut Room) {
        let mut belief = std::mem::take(&mut room.belief);
        let known = self.field_at(coordinates, room);
        belief.mean.clear();
        belief.mean.extend_from_slice(known.mean);
        belief.var.clear();
        belief.var.extend_from_slice(known.var);
        room.belief = belief;
    }

    /// The same by itself.
    pub(in crate::latency) fn field_at<'r>(&'r self, coordinates: Coordinates, room: &'r mut Room) -> FieldAt<'r> {
        let cell = degree_cell(coordinates);
        if let Some(known) = self.known_cells.get(cell) {
            return known;
        }
        let Room { cells, near, fresh, .. } = room;
        if cells.get(cell).is_none() {
            self.field.at(Direction::of(centre_of_cell(cell)), near, fresh);
            self.go_round(cell, fresh);
            cells.put(cell, fresh);
        }
        cells.get(cell).expect("it was put there if it was not")
    }

    /// What detours add to the errors to expect in a cell of the globe, as far as they count.
    fn go_round(&self, cell: u32, belief: &mut Belief) {
        if self.trend.detour() == 0.0 {
            return;
        }
        let from = Start::of_cell(cell);
        for (region, mean) in belief.mean.iter_mut().enumerate() {
            *mean += self.trend.detour() * self.detour(&from, region);
        }
    }

    /// The detour from a cell to a region in units of the spread, no larger than errors are taken for.
    pub(in crate::latency) fn detour(&self, from: &Start, region: usize) -> f32 {
        let km = from.centre.distance_km(self.sites[region].direction());
        let spread_ms = self.prior.spread_ms(model::rtt_ms(km));
        (self.detours.ms(from.door, region, km) / spread_ms).min(ERROR_RANGE.1)
    }

    /// What is in the estimate from a place to a region because of a detour, in milliseconds.
    pub(super) fn detour_ms(&self, coordinates: Coordinates, region: usize, model_ms: f32) -> f32 {
        let from = Start::of_cell(degree_cell(coordinates));
        self.trend.detour() * self.detour(&from, region) * self.prior.spread_ms(model_ms)
    }

    /// What continent, country and autonomous system add.
    pub(super) fn believe_groups(&self, place: &Place, asn: Option<u32>, belief: &mut Belief) {
        let continent = place.continent.and_then(|continent| self.continents.get(&continent));
        let country = place.country.and_then(|country| self.countries.get(&country));
        let systems =
            asn.into_iter().flat_map(|asn| [self.systems.get(&(asn, None)), self.systems.get(&(asn, place.country))]);
        for shift in continent.into_iter().chain(country).chain(systems.flatten()) {
            for region in 0..belief.mean.len() {
                belief.mean[region] += shift.belief.mean[region];
                belief.var[region] += shift.belief.var[region];
            }
        }
    }
}
