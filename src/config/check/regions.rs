//! Regions: places, checks, and how many there may be.

use super::Context;
use crate::{
    config::{
        Locate,
        model::{Endpoints, MinHealthy, REGIONS_MAX, Region, RegionId},
        section::At,
        spec::{LocationSpec, RegionSpec},
        value::{listed, quote, suggest},
    },
    geo::Coordinates,
};

impl Context<'_> {
    pub(super) fn build_regions(&self, locate: Locate<'_>) -> Vec<Region> {
        if let Some(first_over) = self.regions.get(REGIONS_MAX) {
            let message = format!("{} regions", self.regions.len());
            self.problems.add(&first_over.name.span, message, format!("write at most {REGIONS_MAX}"));
        }
        self.regions.iter().take(REGIONS_MAX).map(|spec| self.build_region(spec, locate)).collect()
    }

    fn build_region(&self, spec: &RegionSpec, locate: Locate<'_>) -> Region {
        let (location, coordinates) = self.locate_region(spec, locate);
        let endpoints = spec.endpoints.value.clone().unwrap_or(Endpoints::Addresses(Vec::new()));
        let count = endpoints.targets().len();
        if let MinHealthy::Count(wanted) = spec.min_healthy.value
            && spec.endpoints.is_sound()
            && spec.min_healthy.is_given()
            && wanted as usize > count
        {
            let noun = if count == 1 { "endpoint" } else { "endpoints" };
            let message = format!("`min-healthy` is {wanted}, but the region has {count} {noun}");
            self.problems.add(
                &spec.min_healthy.span,
                message,
                format!("write at most {count}, or a share such as \"50%\""),
            );
        }
        Region {
            name: spec.name.value.clone(),
            location,
            coordinates,
            endpoints,
            check: self.check_named(&spec.check),
            min_healthy: spec.min_healthy.value,
            bias_ms: spec.bias_ms,
        }
    }

    fn locate_region(&self, spec: &RegionSpec, locate: Locate<'_>) -> (String, Coordinates) {
        let nowhere = Coordinates { latitude: 0.0, longitude: 0.0 };
        match &spec.location {
            None => (String::new(), nowhere),
            Some(LocationSpec::Point(point)) => (format!("{}, {}", point.latitude, point.longitude), *point),
            Some(LocationSpec::Named(name)) => {
                let found = locate(&name.value).unwrap_or_else(|near| {
                    let help = if near.is_empty() {
                        "write a cloud region such as \"aws:eu-west-1\", an airport such as \"DUB\", or coordinates: \
                         { latitude = 53.35, longitude = -6.26 }"
                            .to_string()
                    } else {
                        format!("did you mean {}?", listed(&near, "or"))
                    };
                    self.problems.add(&name.span, format!("unknown location {}", quote(&name.value)), help);
                    nowhere
                });
                (name.value.clone(), found)
            }
        }
    }

    /// The region of this name.
    pub(super) fn region_named(&self, name: &At<String>) -> Option<RegionId> {
        let index = self.region_indexes.get(name.value.as_str()).copied();
        if index.is_none() {
            let names: Vec<&str> = self.regions.iter().map(|r| r.name.value.as_str()).collect();
            let help = suggest(&name.value, &names, "add a section such as [regions.us]");
            self.problems.absent(&name.span, format!("unknown region {}", quote(&name.value)), help);
        }
        index.and_then(region_id)
    }

    /// The regions of a list, each once.
    pub(super) fn regions_named(&self, names: &[At<String>]) -> Vec<RegionId> {
        let mut ids = Vec::with_capacity(names.len());
        for name in names {
            match self.region_named(name) {
                Some(id) if ids.contains(&id) => {
                    let message = format!("the region {} stands here twice", quote(&name.value));
                    self.problems.add(&name.span, message, "remove one of the two");
                }
                Some(id) => ids.push(id),
                None => {}
            }
        }
        ids
    }

    /// Every region of the file.
    pub(super) fn all_regions(&self) -> Vec<RegionId> {
        (0..self.regions.len()).filter_map(region_id).collect()
    }

    /// Its name.
    pub(super) fn region_name(&self, id: RegionId) -> &str {
        &self.regions[id.index()].name.value
    }
}

/// Regions beyond the limit have no number.
fn region_id(index: usize) -> Option<RegionId> {
    u8::try_from(index).ok().filter(|_| index < REGIONS_MAX).map(RegionId)
}
