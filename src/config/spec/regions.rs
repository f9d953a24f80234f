//! `[regions.NAME]`.

use toml::de::DeValue;

use super::endpoints::{self, EndpointsSpec};
use crate::{
    config::{
        keys::{COORDINATES, REGION},
        leaf::{integer_of, type_of, wrong_type},
        model::MinHealthy,
        section::{At, Entry, Origin, Problems, Section},
        value::{Fault, quote},
    },
    geo::Coordinates,
};

/// One region.
#[derive(Debug)]
pub(crate) struct RegionSpec {
    pub name: At<String>,
    /// `None`: missing or wrong, and noted.
    pub location: Option<LocationSpec>,
    pub endpoints: EndpointsSpec,
    /// Empty: none.
    pub check: At<String>,
    pub min_healthy: At<MinHealthy>,
    pub bias_ms: f32,
}

/// Where a region is.
#[derive(Debug)]
pub(crate) enum LocationSpec {
    /// `"aws:eu-west-1"`
    Named(At<String>),
    /// `{ latitude = …, longitude = … }`
    Point(Coordinates),
}

pub(super) fn read(entry: &Entry<'_>, problems: &Problems) -> RegionSpec {
    let label = format!("[regions.{}]", entry.name.value);
    let section = Section::open(problems, &REGION, label, entry.table, entry.span.clone());
    let endpoints = match section.raw("endpoints") {
        Some(value) => endpoints::read(problems, "endpoints", value),
        None => {
            section.note_missing("endpoints", "write endpoints = [\"192.0.2.10\"]");
            At { value: None, span: section.span.clone(), origin: Origin::Bad }
        }
    };
    RegionSpec {
        name: entry.name.clone(),
        location: read_location(&section),
        endpoints,
        check: section.text("check"),
        min_healthy: read_min_healthy(&section),
        bias_ms: section.duration_ms("bias").value as f32,
    }
}

fn read_location(section: &Section<'_>) -> Option<LocationSpec> {
    let help =
        "write a cloud region (\"aws:eu-west-1\"), an airport (\"DUB\") or { latitude = 53.35, longitude = -6.26 }";
    let Some(value) = section.raw("location") else {
        section.note_missing("location", help);
        return None;
    };
    match value.get_ref() {
        DeValue::String(text) if text.trim().is_empty() => {
            section.problems.add(&value.span(), "`location` is empty", help);
            None
        }
        DeValue::String(text) => Some(LocationSpec::Named(At::file(text.to_string(), value.span()))),
        DeValue::Table(table) => {
            let point = Section::open(section.problems, &COORDINATES, "`location`".into(), table, value.span());
            for key in ["latitude", "longitude"].into_iter().filter(|key| !point.has(key)) {
                point.note_missing(key, "write { latitude = 53.35, longitude = -6.26 }");
            }
            let (latitude, longitude) = (point.number("latitude"), point.number("longitude"));
            let point = Coordinates { latitude: latitude.value as f32, longitude: longitude.value as f32 };
            (latitude.is_given() && longitude.is_given()).then_some(LocationSpec::Point(point))
        }
        other => {
            let message = format!("`location` takes a place or coordinates, not {}", type_of(other));
            section.problems.add(&value.span(), message, help);
            None
        }
    }
}

fn read_min_healthy(section: &Section<'_>) -> At<MinHealthy> {
    let name = "min-healthy";
    let help = "write a whole number from 1 to 1000, or a share from \"1%\" to \"100%\"";
    let default = MinHealthy::Count(1);
    let Some(value) = section.raw(name) else {
        return At { value: default, span: section.span.clone(), origin: Origin::Default };
    };
    let read = match value.get_ref() {
        DeValue::Integer(_) => integer_of(name, value.get_ref(), 1, 1000)
            .map(|n| MinHealthy::Count(n as u32))
            .map_err(|fault| Fault::new(fault.message, help)),
        DeValue::String(text) => text
            .strip_suffix('%')
            .and_then(|digits| digits.parse().ok())
            .filter(|percent| (1..=100).contains(percent))
            .map(MinHealthy::Percent)
            .ok_or_else(|| Fault::new(format!("`{name}` is {}; it must be 1% to 100%", quote(text)), help)),
        other => Err(wrong_type(name, "a whole number or a share", other, help)),
    };
    match read {
        Ok(min) => At::file(min, value.span()),
        Err(fault) => {
            section.problems.fault(&value.span(), fault);
            At { value: default, span: value.span(), origin: Origin::Bad }
        }
    }
}
