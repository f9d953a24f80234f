//! One record of an `.mmdb` file: the few fields that tell a place or an AS number, in MaxMind's nested layout
//! (`country.iso_code`, `continent.code`, `location.latitude`, `autonomous_system_number`) or flat (`country_code`,
//! `continent_code`, `latitude`, `asn`), numbers also as text. All else is skipped undecoded.
//!
//! `registered_country` is left aside: it says where the holder of the addresses is registered, and where it is all
//! that a record has, another database agreed with it in under a third of the addresses. Unknown is better than wrong.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{
    country,
    place::{Continent, Coordinates, CountryCode, Place},
};

/// What a record says. Fields of an unusable kind (a country named in words, say) count as absent.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Record {
    pub(super) country: Option<CountryCode>,
    pub(super) continent: Option<Continent>,
    pub(super) coordinates: Option<Coordinates>,
    pub(super) asn: Option<u32>,
    /// Records of location databases are maps.
    pub(super) is_map: bool,
}

impl Record {
    /// The place, completed from the country table; `None` where nothing is known.
    pub(super) fn place(&self) -> Option<Place> {
        place(self.country, self.continent, self.coordinates)
    }
}

/// A place from what is known: the continent and the coordinates default to the country's. `None` without country and
/// coordinates.
pub(super) fn place(
    country: Option<CountryCode>,
    continent: Option<Continent>,
    coordinates: Option<Coordinates>,
) -> Option<Place> {
    let country = country.filter(|code| !matches!(&code.0, b"ZZ" | b"XX")); // "unknown" in ISO 3166 and in some data
    let known = country.and_then(country::find);
    (country.is_some() || coordinates.is_some()).then(|| Place {
        country,
        continent: continent.or(known.map(|country| country.continent)),
        coordinates: coordinates.or(known.map(|country| country.centre)),
    })
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Country,
    CountryCode,
    Continent,
    ContinentCode,
    Location,
    Latitude,
    Longitude,
    AutonomousSystemNumber,
    Asn,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RecordVisitor)
    }
}

struct RecordVisitor;

impl<'de> Visitor<'de> for RecordVisitor {
    type Value = Record;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Record, A::Error> {
        let mut record = Record { is_map: true, ..Record::default() };
        let (mut latitude, mut longitude) = (Number::Absent, Number::Absent);
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::Country | Key::CountryCode => {
                    let field: Field = map.next_value()?;
                    record.country = field.code.map(CountryCode).or(record.country);
                }
                Key::Continent | Key::ContinentCode => {
                    let field: Field = map.next_value()?;
                    record.continent = field.continent().or(record.continent);
                }
                Key::Location => {
                    let field: Field = map.next_value()?;
                    (latitude, longitude) = (field.latitude, field.longitude);
                }
                Key::Latitude => latitude = map.next_value::<Field>()?.number,
                Key::Longitude => longitude = map.next_value::<Field>()?.number,
                Key::AutonomousSystemNumber | Key::Asn => {
                    let field: Field = map.next_value()?;
                    record.asn = field.asn().map_err(A::Error::custom)?.or(record.asn);
                }
                Key::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        record.coordinates = coordinates(latitude, longitude).map_err(A::Error::custom)?;
        Ok(record)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Record, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Record::default())
    }

    // A record that is no map tells nothing; whether a file may hold such is the file reader's question.

    fn visit_bool<E>(self, _: bool) -> Result<Record, E> {
        Ok(Record::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Record, E> {
        Ok(Record::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Record, E> {
        Ok(Record::default())
    }

    fn visit_u128<E>(self, _: u128) -> Result<Record, E> {
        Ok(Record::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Record, E> {
        Ok(Record::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<Record, E> {
        Ok(Record::default())
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Record, E> {
        Ok(Record::default())
    }
}

/// A point, `None` when half of it is missing, or at 0° N 0° E, which data sets write for "unknown" (it is open sea).
fn coordinates(latitude: Number, longitude: Number) -> Result<Option<Coordinates>, String> {
    let (latitude, longitude) = match (latitude, longitude) {
        (Number::Absent, _) | (_, Number::Absent) => return Ok(None),
        (Number::Value(latitude), Number::Value(longitude)) => (latitude, longitude),
        _ => return Err("coordinates that are no numbers".into()),
    };
    if !(-90.0..=90.0).contains(&latitude) || !(-180.0..=180.0).contains(&longitude) {
        return Err(format!("coordinates {latitude}, {longitude} that are not on the globe"));
    }
    let nowhere = latitude == 0.0 && longitude == 0.0;
    Ok((!nowhere).then_some(Coordinates { latitude: latitude as f32, longitude: longitude as f32 }))
}

/// The value of a field as what it may be read as.
#[derive(Clone, Copy, Default)]
struct Field {
    /// Two letters, upper case: of a text, or of `iso_code` or `code` in a map.
    code: Option<[u8; 2]>,
    /// A number, or a text read as one ("AS64500" is 64500).
    number: Number,
    /// Of a map.
    latitude: Number,
    /// Of a map.
    longitude: Number,
}

#[derive(Clone, Copy, Default)]
enum Number {
    #[default]
    Absent,
    Value(f64),
    /// There is something, but no number.
    Garbled,
}

impl Field {
    fn garbled() -> Field {
        Field { number: Number::Garbled, ..Field::default() }
    }

    fn of_number(number: f64) -> Field {
        Field { number: Number::Value(number), ..Field::default() }
    }

    fn of_text(text: &str) -> Field {
        if let Some(code) = CountryCode::new(text) {
            return Field { code: Some(code.0), ..Field::garbled() };
        }
        let text = text.trim();
        let digits = text.strip_prefix("AS").unwrap_or(text);
        let number = match digits.parse() {
            _ if text.is_empty() => Number::Absent,
            Ok(number) => Number::Value(number),
            Err(_) => Number::Garbled,
        };
        Field { number, ..Field::default() }
    }

    fn continent(&self) -> Option<Continent> {
        Continent::from_code(CountryCode(self.code?).as_str())
    }

    /// The AS number; 0 is reserved (RFC 7607) and means none.
    fn asn(&self) -> Result<Option<u32>, String> {
        match self.number {
            Number::Absent => Ok(None),
            Number::Value(number) if number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number) => {
                Ok(Some(number as u32).filter(|&asn| asn != 0))
            }
            Number::Value(number) => Err(format!("AS number {number}")),
            Number::Garbled => Err("an AS number that is no number".into()),
        }
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum InnerKey {
    IsoCode,
    Code,
    Latitude,
    Longitude,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a code, a number or a map of them")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field, A::Error> {
        let mut field = Field::default();
        while let Some(key) = map.next_key::<InnerKey>()? {
            match key {
                InnerKey::IsoCode | InnerKey::Code => field.code = map.next_value::<Field>()?.code,
                InnerKey::Latitude => field.latitude = map.next_value::<Field>()?.number,
                InnerKey::Longitude => field.longitude = map.next_value::<Field>()?.number,
                InnerKey::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(field)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Field, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::garbled())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Field, E> {
        Ok(Field::garbled())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Field, E> {
        Ok(Field::of_number(number as f64))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Field, E> {
        Ok(Field::of_number(number as f64))
    }

    fn visit_u128<E>(self, number: u128) -> Result<Field, E> {
        Ok(Field::of_number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Field, E> {
        Ok(Field::of_number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Field, E> {
        Ok(Field::of_text(text))
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Field, E> {
        Ok(Field::garbled())
    }
}
