//! One record of an `.mmdb` file: the few fields that tell a place or an AS number, in MaxMind's nested layout
//! (`country.iso_code`, `continent.code`, `location.latitude`, `autonomous_system_number`) or flat (`country_code`,
//! `continent_code`, `latitude`, `asn`), numbers also as text. All else is skipped undecoded.
//!
//! `registered_country` is left aside: it says where the holder of the addresses is registered, and where it is all
//! that a record has, another database agreed with it in under a third of the addresses. Unknown is better than wrong.

use hashbrown::HashMap;

use super::{
    country,
    data::{Cursor, Kind},
    place::{Continent, Coordinates, CountryCode, Place},
};

/// What a record says. Fields of an unusable kind (a country named in words, say) count as absent.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Record {
    pub(super) country: Option<CountryCode>,
    pub(super) continent: Option<Continent>,
    pub(super) coordinates: Option<Coordinates>,
    /// How far off these may be, in kilometres, where the data says.
    pub(super) radius_km: Option<u16>,
    pub(super) asn: Option<u32>,
    /// Records of location databases are maps.
    pub(super) is_map: bool,
}

impl Record {
    /// The place, completed from the country table; `None` where nothing is known.
    pub(super) fn place(&self) -> Option<Place> {
        place(self.country, self.continent, self.coordinates, || self.within_km())
    }

    /// In few steps, so that places do not become many that differ in this alone.
    fn within_km(&self) -> u16 {
        match self.radius_km {
            None | Some(..=100) => CITY_WITHIN_KM,
            Some(..=200) => 200,
            Some(..=500) => 500,
            // The most that data say: a point somewhere in the country.
            Some(_) => self.country.map_or(COUNTRY_WITHIN_KM, country::within_km),
        }
    }
}

/// Coordinates of which nothing else is said are those of a city, and not always of the right one.
const CITY_WITHIN_KM: u16 = 100;
/// A point somewhere in a country that is not known.
const COUNTRY_WITHIN_KM: u16 = 1_500;

/// A place from what is known: the continent and the coordinates default to the country's. `within_km` tells how far off the
/// coordinates may be. `None` without country and coordinates.
pub(super) fn place(
    country: Option<CountryCode>,
    continent: Option<Continent>,
    coordinates: Option<Coordinates>,
    within_km: impl FnOnce() -> u16,
) -> Option<Place> {
    let country = country.filter(|code| !matches!(&code.0, b"ZZ" | b"XX")); // "unknown" in ISO 3166 and in some data
    let known = country.and_then(country::find);
    (country.is_some() || coordinates.is_some()).then(|| Place {
        country,
        continent: continent.or(known.map(|country| country.continent)),
        coordinates: coordinates.or(known.map(|country| country.centre)),
        within_km: match (coordinates, known) {
            (Some(_), _) => within_km(),
            (None, Some(country)) => country::within_km(country.code),
            (None, None) => 0,
        },
    })
}

impl Record {
    /// The record at `offset` of the data section `data`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn decode(data: &[u8], offset: usize, shared: &mut Shared) -> Result<Record, String> {
        let mut at = Cursor::new(data, offset);
        let (kind, size) = at.head()?;
        if kind != Kind::Map {
            return Ok(Record::default());
        }
        let mut record = Record { is_map: true, ..Record::default() };
        let (mut latitude, mut longitude, mut radius) = (Number::Absent, Number::Absent, Number::Absent);
        for _ in 0..size {
            match shared.keys.next(&mut at)? {
                Key::Country => record.country = shared.code(&mut at)?.map(CountryCode).or(record.country),
                Key::Continent => {
                    let code = shared.code(&mut at)?.map(CountryCode);
                    record.continent = code.and_then(|code| Continent::from_code(code.as_str())).or(record.continent);
                }
                Key::Location => {
                    let field = Field::decode(&mut at, &mut shared.keys, 0)?;
                    (latitude, longitude, radius) = (field.latitude, field.longitude, field.radius);
                }
                Key::Latitude => latitude = Number::decode(&mut at, &mut shared.keys, 0)?,
                Key::Longitude => longitude = Number::decode(&mut at, &mut shared.keys, 0)?,
                Key::Radius => radius = Number::decode(&mut at, &mut shared.keys, 0)?,
                Key::Asn => record.asn = Number::decode(&mut at, &mut shared.keys, 0)?.asn()?.or(record.asn),
                Key::Code | Key::Other => at.skip()?,
            }
        }
        record.coordinates = coordinates(latitude, longitude)?;
        record.radius_km = if let Number::Value(km) = radius { Some(km.clamp(0.0, 65_535.0) as u16) } else { None };
        Ok(record)
    }
}

/// What records say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Country,
    Continent,
    Location,
    Latitude,
    Longitude,
    Radius,
    Asn,
    /// Of a country or continent.
    Code,
    Other,
}

impl Key {
    fn of(name: &[u8]) -> Key {
        match name {
            b"country" | b"country_code" => Key::Country,
            b"continent" | b"continent_code" => Key::Continent,
            b"location" => Key::Location,
            b"latitude" => Key::Latitude,
            b"longitude" => Key::Longitude,
            b"accuracy_radius" => Key::Radius,
            b"autonomous_system_number" | b"asn" => Key::Asn,
            b"iso_code" | b"code" => Key::Code,
            _ => Key::Other,
        }
    }
}

/// What stands once in a file, where many records point to it: read once, too.
#[derive(Default)]
pub(super) struct Shared {
    keys: Keys,
    /// The codes of countries and continents, which have their names in many languages beside them.
    codes: HashMap<usize, Option<[u8; 2]>>,
}

/// More than there are countries and continents. A file that has more gets the others read again each time.
const SHARED_MAX: usize = 1024;

impl Shared {
    /// The code that the next value is or has.
    fn code(&mut self, at: &mut Cursor) -> Result<Option<[u8; 2]>, String> {
        let Some((place, after)) = at.shared() else { return Ok(Field::decode(at, &mut self.keys, 0)?.code) };
        if let Some(known) = self.codes.get(&place) {
            *at = after;
            return Ok(*known);
        }
        let code = Field::decode(at, &mut self.keys, 0)?.code;
        if self.codes.len() < SHARED_MAX {
            self.codes.insert(place, code);
        }
        Ok(code)
    }
}

/// Keys that were read, by where they stand.
struct Keys(Box<[(usize, Key); KEYS]>);

/// So many times as records have that hardly any two want the same slot.
const KEYS: usize = 512;

impl Default for Keys {
    fn default() -> Self {
        Keys(Box::new([(usize::MAX, Key::Other); KEYS]))
    }
}

impl Keys {
    /// The key of a map's next pair.
    #[inline]
    fn next(&mut self, at: &mut Cursor) -> Result<Key, &'static str> {
        let Some((place, after)) = at.shared() else { return at.key().map(Key::of) };
        let known = &mut self.0[place % KEYS];
        if known.0 == place {
            *at = after;
        } else {
            *known = (place, Key::of(at.key()?));
        }
        Ok(known.1)
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
    /// Of a map.
    radius: Number,
}

/// A country is a map with a code in it. Pointers can make rings, so that some bound must be.
const FIELD_DEPTH_MAX: usize = 2;

impl Field {
    /// `depth`: in so many maps of a field already.
    fn decode(at: &mut Cursor, keys: &mut Keys, depth: usize) -> Result<Field, String> {
        if depth > FIELD_DEPTH_MAX {
            return Err("a field in a field in a field".into());
        }
        let (kind, size, mut there) = at.value()?;
        let inside = there.as_mut().unwrap_or(at);
        Ok(match kind {
            Kind::Map => {
                let mut field = Field::default();
                for _ in 0..size {
                    match keys.next(inside)? {
                        Key::Code => field.code = Field::decode(inside, keys, depth + 1)?.code,
                        Key::Latitude => field.latitude = Number::decode(inside, keys, depth + 1)?,
                        Key::Longitude => field.longitude = Number::decode(inside, keys, depth + 1)?,
                        Key::Radius => field.radius = Number::decode(inside, keys, depth + 1)?,
                        _ => inside.skip()?,
                    }
                }
                field
            }
            Kind::Text => Field::of_text(inside.text(size)?),
            Kind::Number(number) => Field { number: Number::Value(inside.number(number, size)?), ..Field::default() },
            Kind::Array | Kind::Bytes | Kind::Flag => {
                inside.skip_content(kind, size)?;
                Field::garbled()
            }
        })
    }

    fn garbled() -> Field {
        Field { number: Number::Garbled, ..Field::default() }
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
}

#[derive(Clone, Copy, Default)]
enum Number {
    #[default]
    Absent,
    Value(f64),
    /// There is something, but no number.
    Garbled,
}

impl Number {
    /// What the next value is if it is read as a number. `depth` as in [`Field::decode`].
    #[inline]
    fn decode(at: &mut Cursor, keys: &mut Keys, depth: usize) -> Result<Number, String> {
        let before = *at;
        let (kind, size, mut there) = at.value()?;
        if let Kind::Number(numeric) = kind
            && depth <= FIELD_DEPTH_MAX
        {
            return Ok(Number::Value(there.as_mut().unwrap_or(at).number(numeric, size)?));
        }
        *at = before;
        Ok(Field::decode(at, keys, depth)?.number)
    }

    /// The AS number; 0 is reserved (RFC 7607) and means none.
    fn asn(self) -> Result<Option<u32>, String> {
        match self {
            Number::Absent => Ok(None),
            Number::Value(number) if number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number) => {
                Ok(Some(number as u32).filter(|&asn| asn != 0))
            }
            Number::Value(number) => Err(format!("AS number {number}")),
            Number::Garbled => Err("an AS number that is no number".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_point_at_themselves_are_an_error() {
        // {"country": {"code": <pointer to the inner map>}}
        let data = b"\xe1\x47country\xe1\x44code\x20\x09";
        assert_eq!(Record::decode(data, 0, &mut Shared::default()), Err("a field in a field in a field".into()));
    }

    #[test]
    fn both_layouts_say_the_same() {
        let nested =
            b"\xe2\x47country\xe1\x48iso_code\x42DE\x48location\xe2\x48latitude\x68\x40\x49\0\0\0\0\0\0\x49longitude\
            \x68\x40\x20\0\0\0\0\0\0";
        let flat = b"\xe3\x4ccountry_code\x42DE\x48latitude\x4250\x49longitude\x418";
        let record = Record::decode(nested, 0, &mut Shared::default()).unwrap();
        assert_eq!(record.country.unwrap().as_str(), "DE");
        assert_eq!(record.coordinates, Some(Coordinates { latitude: 50.0, longitude: 8.0 }));
        assert_eq!(Record::decode(flat, 0, &mut Shared::default()), Ok(record));
    }

    #[test]
    fn how_far_off_a_place_may_be_is_the_datas_word_or_the_countrys() {
        let within_km =
            |data: &[u8]| Record::decode(data, 0, &mut Shared::default()).unwrap().place().unwrap().within_km;
        let of_radius = |radius: &[u8]| {
            let nested = b"\xe2\x47country\xe1\x48iso_code\x42DE\x48location\xe3\x48latitude\x68\x40\x49\0\0\0\0\0\0\x49longitude\
                \x68\x40\x20\0\0\0\0\0\0\x4faccuracy_radius";
            within_km(&[&nested[..], radius].concat())
        };
        assert_eq!(within_km(b"\xe3\x4ccountry_code\x42DE\x48latitude\x4250\x49longitude\x418"), 100);
        assert_eq!(
            [&b"\xa1\x05"[..], b"\xa1\xc8", b"\xa2\x01\xf4", b"\xa2\x03\xe8"].map(of_radius),
            [100, 200, 500, 1_500]
        );
        assert_eq!([&b"\xe1\x4ccountry_code\x42DE"[..], b"\xe1\x4ccountry_code\x42US"].map(within_km), [1_500, 6_000]);
    }
}
