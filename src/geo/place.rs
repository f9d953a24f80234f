//! Coordinates, countries, continents.

/// A point on the Earth, in degrees. Latitude -90 to 90, longitude -180 to 180.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coordinates {
    /// Degrees north of the equator.
    pub latitude: f32,
    /// Degrees east of Greenwich.
    pub longitude: f32,
}

/// Mean Earth radius in kilometres (IUGG).
pub(crate) const EARTH_RADIUS_KM: f64 = 6371.0088;

impl Coordinates {
    /// Great-circle distance in kilometres (haversine on a sphere; within 0.6 % of the ellipsoid).
    pub fn distance_km(self, other: Coordinates) -> f64 {
        let (lat1, lat2) = (f64::from(self.latitude).to_radians(), f64::from(other.latitude).to_radians());
        let d_lat = lat2 - lat1;
        let d_lon = (f64::from(other.longitude) - f64::from(self.longitude)).to_radians();
        let h = (d_lat / 2.0).sin().powi(2) + lat1.cos() * lat2.cos() * (d_lon / 2.0).sin().powi(2);
        2.0 * EARTH_RADIUS_KM * h.sqrt().min(1.0).asin()
    }
}

/// ISO 3166-1 alpha-2 country code, upper case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CountryCode(pub [u8; 2]);

impl CountryCode {
    /// Two ASCII letters in either case, else `None`.
    pub fn new(text: &str) -> Option<Self> {
        match *text.as_bytes() {
            [a, b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic() => {
                Some(CountryCode([a.to_ascii_uppercase(), b.to_ascii_uppercase()]))
            }
            _ => None,
        }
    }

    /// The two letters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("made of ASCII letters")
    }
}

impl std::fmt::Debug for CountryCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::fmt::Display for CountryCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Continents as location databases name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Continent {
    Africa,
    Antarctica,
    Asia,
    Europe,
    NorthAmerica,
    Oceania,
    SouthAmerica,
}

impl Continent {
    /// All of them, in the order of their codes.
    pub const ALL: [Continent; 7] = [
        Continent::Africa,
        Continent::Antarctica,
        Continent::Asia,
        Continent::Europe,
        Continent::NorthAmerica,
        Continent::Oceania,
        Continent::SouthAmerica,
    ];

    /// `AF AN AS EU NA OC SA`.
    pub fn code(self) -> &'static str {
        match self {
            Continent::Africa => "AF",
            Continent::Antarctica => "AN",
            Continent::Asia => "AS",
            Continent::Europe => "EU",
            Continent::NorthAmerica => "NA",
            Continent::Oceania => "OC",
            Continent::SouthAmerica => "SA",
        }
    }

    /// From its two-letter code, in either case.
    pub fn from_code(text: &str) -> Option<Self> {
        Continent::ALL.into_iter().find(|c| c.code().eq_ignore_ascii_case(text))
    }
}

/// What is known of where an address is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Place {
    /// Country, where the data says.
    pub country: Option<CountryCode>,
    /// Continent: the data's own word, or else the country's.
    pub continent: Option<Continent>,
    /// Where on the map: the data's coordinates, or else the country's population-weighted centre.
    pub coordinates: Option<Coordinates>,
    /// How far from there the address may well be, in kilometres.
    pub within_km: u16,
}
