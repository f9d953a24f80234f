//! Countries: continent, population-weighted centre, and whether the country is so large that one point cannot stand
//! for it. For databases that tell the country but not the coordinates or the continent.
//!
//! Continents and centres are derived from GeoNames (<https://www.geonames.org>), licensed under CC BY 4.0. The six
//! territories that have no cities there (AQ, BV, HM, IO, TK, UM) stand at their station, main island or middle.

use super::place::{Continent, Coordinates, CountryCode};
use Continent::{Africa, Antarctica, Asia, Europe, NorthAmerica, Oceania, SouthAmerica};

/// What the table says of a country.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Country {
    /// ISO 3166-1 alpha-2 code.
    pub code: CountryCode,
    /// The continent that GeoNames puts it on.
    pub continent: Continent,
    /// The mean of its cities, weighted by population.
    pub centre: Coordinates,
}

/// The country of that code, `None` for a code that stands for no country (`ZZ`, `EU`, ...).
pub fn find(code: CountryCode) -> Option<Country> {
    let &row = ROWS.get(slot(code.0))?;
    let &(_, continent, latitude, longitude) = COUNTRIES.get(usize::from(row))?;
    Some(Country { code, continent, centre: Coordinates { latitude, longitude } })
}

/// True for countries of more than 1,000,000 km² (UN Demographic Yearbook, total area): there one point for all
/// would lie thousands of kilometres off.
pub fn is_large(code: CountryCode) -> bool {
    LARGE.contains(&code.as_str())
}

/// How far from a country's centre its addresses are, in kilometres: all but those of far islands.
pub fn within_km(code: CountryCode) -> u16 {
    match &code.0 {
        b"RU" | b"US" => 6_000,
        _ if is_large(code) => 3_000,
        _ => 1_500,
    }
}

const LARGE: [&str; 31] = [
    "AO", "AQ", "AR", "AU", "BO", "BR", "CA", "CD", "CN", "CO", "DZ", "EG", "ET", "GL", "ID", "IN", "IR", "KZ", "LY",
    "ML", "MN", "MR", "MX", "NE", "PE", "RU", "SA", "SD", "TD", "US", "ZA",
];

/// The row of each pair of letters, 255 where there is none: a walk asks this of every record.
const ROWS: [u8; 26 * 26] = {
    let mut rows = [u8::MAX; 26 * 26];
    let mut row = 0;
    while row < COUNTRIES.len() {
        let letters = COUNTRIES[row].0.as_bytes();
        rows[slot([letters[0], letters[1]])] = row as u8;
        row += 1;
    }
    rows
};

const fn slot(letters: [u8; 2]) -> usize {
    letters[0].wrapping_sub(b'A') as usize * 26 + letters[1].wrapping_sub(b'A') as usize
}

/// Code, continent, centre (degrees north, degrees east), in the order of the codes.
#[rustfmt::skip]
const COUNTRIES: [(&str, Continent, f32, f32); 250] = [
    ("AD", Europe, 42.51, 1.53),
    ("AE", Asia, 24.99, 55.24),
    ("AF", Asia, 34.65, 67.99),
    ("AG", NorthAmerica, 17.12, -61.84),
    ("AI", NorthAmerica, 18.22, -63.06),
    ("AL", Europe, 41.14, 19.81),
    ("AM", Asia, 40.23, 44.53),
    ("AO", Africa, -9.84, 14.24),
    ("AQ", Antarctica, -77.85, 166.67),
    ("AR", SouthAmerica, -33.0, -61.27),
    ("AS", Oceania, -14.28, -170.7),
    ("AT", Europe, 47.95, 15.51),
    ("AU", Oceania, -33.96, 145.06),
    ("AW", NorthAmerica, 12.54, -70.02),
    ("AX", Europe, 60.1, 19.93),
    ("AZ", Asia, 40.38, 49.02),
    ("BA", Europe, 44.18, 17.97),
    ("BB", NorthAmerica, 13.11, -59.62),
    ("BD", Asia, 23.65, 90.42),
    ("BE", Europe, 50.89, 4.38),
    ("BF", Africa, 12.15, -2.09),
    ("BG", Europe, 42.72, 24.91),
    ("BH", Asia, 26.18, 50.57),
    ("BI", Africa, -3.34, 29.49),
    ("BJ", Africa, 7.65, 2.33),
    ("BL", NorthAmerica, 17.9, -62.85),
    ("BM", NorthAmerica, 32.29, -64.78),
    ("BN", Asia, 4.82, 114.74),
    ("BO", SouthAmerica, -17.4, -65.79),
    ("BQ", NorthAmerica, 12.15, -68.27),
    ("BR", SouthAmerica, -17.6, -45.81),
    ("BS", NorthAmerica, 25.4, -77.65),
    ("BT", Asia, 27.32, 89.69),
    ("BV", Antarctica, -54.43, 3.38),
    ("BW", Africa, -23.43, 25.99),
    ("BY", Europe, 53.59, 27.8),
    ("BZ", NorthAmerica, 17.54, -88.41),
    ("CA", NorthAmerica, 48.12, -87.55),
    ("CC", Asia, -12.16, 96.82),
    ("CD", Africa, -4.74, 20.22),
    ("CF", Africa, 4.95, 18.32),
    ("CG", Africa, -4.04, 14.18),
    ("CH", Europe, 47.07, 7.95),
    ("CI", Africa, 6.16, -4.89),
    ("CK", Oceania, -21.21, -159.78),
    ("CL", SouthAmerica, -33.73, -71.18),
    ("CM", Africa, 5.41, 11.18),
    ("CN", Asia, 32.19, 114.36),
    ("CO", SouthAmerica, 5.93, -74.85),
    ("CR", NorthAmerica, 9.99, -84.14),
    ("CU", NorthAmerica, 22.23, -80.23),
    ("CV", Africa, 15.66, -23.87),
    ("CW", NorthAmerica, 12.12, -68.88),
    ("CX", Oceania, -10.42, 105.68),
    ("CY", Europe, 35.0, 33.31),
    ("CZ", Europe, 49.9, 15.44),
    ("DE", Europe, 51.26, 9.64),
    ("DJ", Africa, 11.56, 43.09),
    ("DK", Europe, 55.8, 11.42),
    ("DM", NorthAmerica, 15.3, -61.39),
    ("DO", NorthAmerica, 18.75, -70.08),
    ("DZ", Africa, 35.65, 3.54),
    ("EC", SouthAmerica, -1.4, -79.29),
    ("EE", Europe, 59.29, 25.17),
    ("EG", Africa, 29.83, 31.22),
    ("EH", Africa, 26.05, -14.16),
    ("ER", Africa, 15.25, 38.84),
    ("ES", Europe, 39.76, -3.01),
    ("ET", Africa, 9.26, 39.02),
    ("FI", Europe, 61.27, 24.86),
    ("FJ", Oceania, -17.85, 178.2),
    ("FK", SouthAmerica, -51.69, -57.86),
    ("FM", Oceania, 6.92, 158.16),
    ("FO", Europe, 62.01, -6.77),
    ("FR", Europe, 47.3, 2.91),
    ("GA", Africa, -0.06, 10.22),
    ("GB", Europe, 52.5, -1.34),
    ("GD", NorthAmerica, 12.05, -61.75),
    ("GE", Asia, 41.85, 43.93),
    ("GF", SouthAmerica, 5.04, -52.64),
    ("GG", Europe, 49.46, -2.54),
    ("GH", Africa, 6.4, -0.98),
    ("GI", Europe, 36.14, -5.35),
    ("GL", NorthAmerica, 64.18, -51.72),
    ("GM", Africa, 13.41, -16.59),
    ("GN", Africa, 9.76, -12.8),
    ("GP", NorthAmerica, 16.23, -61.53),
    ("GQ", Africa, 2.71, 9.45),
    ("GR", Europe, 38.65, 23.44),
    ("GS", Antarctica, -54.28, -36.51),
    ("GT", NorthAmerica, 14.74, -90.71),
    ("GU", Oceania, 13.5, 144.82),
    ("GW", Africa, 11.9, -15.48),
    ("GY", SouthAmerica, 6.63, -58.11),
    ("HK", Asia, 22.33, 114.15),
    ("HM", Antarctica, -53.1, 73.51),
    ("HN", NorthAmerica, 14.94, -87.41),
    ("HR", Europe, 45.31, 16.21),
    ("HT", NorthAmerica, 18.77, -72.5),
    ("HU", Europe, 47.39, 19.21),
    ("ID", Asia, -4.8, 109.54),
    ("IE", Europe, 53.13, -6.88),
    ("IL", Asia, 32.07, 34.97),
    ("IM", Europe, 54.15, -4.48),
    ("IN", Asia, 21.05, 78.34),
    ("IO", Asia, -7.31, 72.41),
    ("IQ", Asia, 33.66, 44.81),
    ("IR", Asia, 34.45, 51.64),
    ("IS", Europe, 64.23, -21.72),
    ("IT", Europe, 42.76, 12.09),
    ("JE", Europe, 49.19, -2.1),
    ("JM", NorthAmerica, 18.03, -76.91),
    ("JO", Asia, 32.03, 35.96),
    ("JP", Asia, 35.57, 137.2),
    ("KE", Africa, -0.97, 36.8),
    ("KG", Asia, 41.95, 73.94),
    ("KH", Asia, 11.75, 104.7),
    ("KI", Oceania, 1.33, 172.98),
    ("KM", Africa, -11.89, 43.58),
    ("KN", NorthAmerica, 17.3, -62.72),
    ("KP", Asia, 39.52, 126.52),
    ("KR", Asia, 36.58, 127.52),
    ("KW", Asia, 29.2, 48.06),
    ("KY", NorthAmerica, 19.32, -81.38),
    ("KZ", Asia, 47.52, 70.27),
    ("LA", Asia, 18.02, 103.16),
    ("LB", Asia, 33.87, 35.53),
    ("LC", NorthAmerica, 14.04, -60.97),
    ("LI", Europe, 47.14, 9.52),
    ("LK", Asia, 7.25, 80.25),
    ("LR", Africa, 6.36, -10.39),
    ("LS", Africa, -29.38, 27.67),
    ("LT", Europe, 55.05, 24.19),
    ("LU", Europe, 49.56, 6.08),
    ("LV", Europe, 56.85, 24.13),
    ("LY", Africa, 32.04, 15.48),
    ("MA", Africa, 33.45, -6.67),
    ("MC", Europe, 43.74, 7.42),
    ("MD", Europe, 47.09, 28.82),
    ("ME", Europe, 42.53, 19.16),
    ("MF", NorthAmerica, 18.07, -63.08),
    ("MG", Africa, -18.9, 47.47),
    ("MH", Oceania, 7.09, 171.38),
    ("MK", Europe, 41.8, 21.47),
    ("ML", Africa, 12.96, -7.15),
    ("MM", Asia, 18.74, 96.18),
    ("MN", Asia, 48.03, 105.35),
    ("MO", Asia, 22.19, 113.55),
    ("MP", Oceania, 15.21, 145.75),
    ("MQ", NorthAmerica, 14.64, -61.01),
    ("MR", Africa, 18.03, -14.57),
    ("MS", NorthAmerica, 16.79, -62.21),
    ("MT", Europe, 35.91, 14.46),
    ("MU", Africa, -20.23, 57.51),
    ("MV", Asia, 4.18, 73.51),
    ("MW", Africa, -14.24, 34.34),
    ("MX", NorthAmerica, 21.67, -100.52),
    ("MY", Asia, 3.46, 103.34),
    ("MZ", Africa, -19.92, 35.38),
    ("NA", Africa, -21.35, 17.2),
    ("NC", Oceania, -22.26, 166.47),
    ("NE", Africa, 14.06, 5.05),
    ("NF", Oceania, -29.05, 167.97),
    ("NG", Africa, 7.87, 5.9),
    ("NI", NorthAmerica, 12.33, -86.17),
    ("NL", Europe, 52.09, 5.21),
    ("NO", Europe, 60.48, 9.51),
    ("NP", Asia, 27.65, 84.71),
    ("NR", Oceania, -0.55, 166.93),
    ("NU", Oceania, -19.05, -169.92),
    ("NZ", Oceania, -38.9, 174.57),
    ("OM", Asia, 23.28, 57.68),
    ("PA", NorthAmerica, 8.98, -79.83),
    ("PE", SouthAmerica, -11.19, -76.42),
    ("PF", Oceania, -17.57, -149.59),
    ("PG", Oceania, -7.72, 147.4),
    ("PH", Asia, 12.4, 122.27),
    ("PK", Asia, 30.27, 71.4),
    ("PL", Europe, 51.81, 19.27),
    ("PM", NorthAmerica, 46.78, -56.18),
    ("PN", Oceania, -25.07, -130.1),
    ("PR", NorthAmerica, 18.35, -66.24),
    ("PS", Asia, 31.66, 34.84),
    ("PT", Europe, 39.43, -9.11),
    ("PW", Oceania, 7.5, 134.62),
    ("PY", SouthAmerica, -25.27, -57.17),
    ("QA", Asia, 25.32, 51.49),
    ("RE", Africa, -21.08, 55.45),
    ("RO", Europe, 45.39, 25.48),
    ("RS", Europe, 44.51, 20.63),
    ("RU", Europe, 56.86, 50.8),
    ("RW", Africa, -1.98, 29.78),
    ("SA", Asia, 23.82, 42.98),
    ("SB", Oceania, -9.44, 159.97),
    ("SC", Africa, -4.62, 55.46),
    ("SD", Africa, 14.7, 31.65),
    ("SE", Europe, 58.89, 15.93),
    ("SG", Asia, 1.33, 103.85),
    ("SH", Africa, -15.92, -5.72),
    ("SI", Europe, 46.16, 14.82),
    ("SJ", Europe, 78.22, 15.65),
    ("SK", Europe, 48.56, 18.68),
    ("SL", Africa, 8.36, -12.4),
    ("SM", Europe, 43.94, 12.45),
    ("SN", Africa, 14.66, -16.73),
    ("SO", Africa, 4.91, 44.96),
    ("SR", SouthAmerica, 5.84, -55.18),
    ("SS", Africa, 6.62, 29.92),
    ("ST", Africa, 0.34, 6.73),
    ("SV", NorthAmerica, 13.7, -89.08),
    ("SX", NorthAmerica, 18.03, -63.05),
    ("SY", Asia, 35.13, 37.17),
    ("SZ", Africa, -26.43, 31.28),
    ("TC", NorthAmerica, 21.74, -72.1),
    ("TD", Africa, 11.54, 16.56),
    ("TF", Antarctica, -49.35, 70.22),
    ("TG", Africa, 6.8, 1.16),
    ("TH", Asia, 13.72, 100.7),
    ("TJ", Asia, 39.08, 69.39),
    ("TK", Oceania, -9.38, -171.22),
    ("TL", Oceania, -8.67, 125.65),
    ("TM", Asia, 38.77, 59.4),
    ("TN", Africa, 35.87, 10.23),
    ("TO", Oceania, -21.14, -175.2),
    ("TR", Asia, 39.58, 32.15),
    ("TT", NorthAmerica, 10.5, -61.4),
    ("TV", Oceania, -8.52, 179.19),
    ("TW", Asia, 24.37, 121.05),
    ("TZ", Africa, -5.89, 36.1),
    ("UA", Europe, 49.07, 32.85),
    ("UG", Africa, 0.59, 32.23),
    ("UM", Oceania, 19.28, 166.65),
    ("US", NorthAmerica, 38.79, -93.52),
    ("UY", SouthAmerica, -34.11, -56.28),
    ("UZ", Asia, 40.75, 68.48),
    ("VA", Europe, 41.9, 12.45),
    ("VC", NorthAmerica, 13.14, -61.21),
    ("VE", SouthAmerica, 9.85, -67.82),
    ("VG", NorthAmerica, 18.43, -64.62),
    ("VI", NorthAmerica, 17.9, -64.8),
    ("VN", Asia, 15.16, 106.5),
    ("VU", Oceania, -17.74, 168.31),
    ("WF", Oceania, -13.28, -176.17),
    ("WS", Oceania, -13.83, -171.77),
    ("XK", Europe, 42.56, 20.93),
    ("YE", Asia, 14.37, 44.62),
    ("YT", Africa, -12.77, 45.23),
    ("ZA", Africa, -28.38, 27.05),
    ("ZM", Africa, -13.87, 28.41),
    ("ZW", Africa, -18.56, 30.49),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_on_the_globe() {
        assert!(COUNTRIES.is_sorted_by(|a, b| a.0 < b.0) && COUNTRIES.len() < 255);
        for (code, _, latitude, longitude) in COUNTRIES {
            assert_eq!(find(CountryCode::new(code).unwrap()).unwrap().centre.latitude, latitude, "{code}");
            assert!(latitude.abs() <= 90.0 && longitude.abs() <= 180.0, "{code}");
        }
    }

    #[test]
    fn a_country_is_found_by_its_code_and_a_made_up_code_is_not() {
        let germany = find(CountryCode(*b"DE")).unwrap();
        assert_eq!(germany.continent, Europe);
        assert!(germany.centre.distance_km(Coordinates { latitude: 51.0, longitude: 10.0 }) < 150.0);
        assert_eq!(find(CountryCode(*b"ZZ")), None);
    }

    #[test]
    fn every_large_country_is_in_the_table() {
        for code in LARGE {
            assert!(find(CountryCode::new(code).unwrap()).is_some(), "{code}");
        }
    }
}
