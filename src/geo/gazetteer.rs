//! The gazetteer: where a cloud region (`aws:eu-west-1`) or an IATA code (`IAD`) is, and the nearest spellings of what it
//! does not know. Two tables compiled into the binary, read once on first use. Knows nothing of configuration files.

use std::sync::LazyLock;

use super::Coordinates;

/// A named place.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// The canonical spelling: `aws:eu-west-1`, `IAD`.
    pub name: String,
    /// Where it is: the region's metropolitan area, or the airport.
    pub coordinates: Coordinates,
}

/// A name that the gazetteer does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown location `{text}`; {}", advice(.suggestions))]
pub struct UnknownSite {
    /// What was asked for.
    pub text: String,
    /// Up to [`SUGGESTIONS_MAX`] names that [`find`] accepts, the nearest spelling first. Empty when nothing is near.
    pub suggestions: Vec<String>,
}

/// Most suggestions for an unknown name: few enough to read at a glance.
pub const SUGGESTIONS_MAX: usize = 3;

/// The site called `text`: `provider:region`, or the IATA code of an airport or a city, in either case.
///
/// # Errors
/// [`UnknownSite`] with the nearest spellings when no such region or code is listed.
pub fn find(text: &str) -> Result<Site, UnknownSite> {
    let wanted = text.trim();
    let site = match wanted.split_once(':') {
        Some((provider, region)) => region_named(provider, region).map(Region::site),
        None => airport(wanted).map(Airport::site),
    };
    site.ok_or_else(|| UnknownSite { text: text.to_string(), suggestions: suggestions(wanted) })
}

/// The providers whose regions are listed, in the table's order.
pub fn providers() -> impl Iterator<Item = &'static str> {
    REGIONS.chunk_by(|a, b| a.provider == b.provider).map(|regions| regions[0].provider)
}

/// A line of `cloud_regions.csv`.
#[derive(Debug)]
struct Region {
    provider: &'static str,
    name: &'static str,
    coordinates: Coordinates,
    place: &'static str,
}

/// A line of `airports.csv`.
#[derive(Debug)]
struct Airport {
    code: &'static str,
    coordinates: Coordinates,
}

static REGIONS: LazyLock<Vec<Region>> = LazyLock::new(|| {
    table(include_str!("cloud_regions.csv"))
        .map(|[provider, name, latitude, longitude, place]| Region {
            provider,
            name,
            coordinates: coordinates(latitude, longitude),
            place,
        })
        .collect()
});

/// Sorted by code.
static AIRPORTS: LazyLock<Vec<Airport>> = LazyLock::new(|| {
    table(include_str!("airports.csv"))
        .map(|[code, latitude, longitude]| Airport { code, coordinates: coordinates(latitude, longitude) })
        .collect()
});

/// The cells of a built-in table of `N` columns. The tests read every line of both, so a malformed one never ships.
fn table<const N: usize>(text: &'static str) -> impl Iterator<Item = [&'static str; N]> {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let cells: Vec<_> = line.split(',').collect();
        cells.try_into().expect("every line of a built-in table has all its columns")
    })
}

fn coordinates(latitude: &str, longitude: &str) -> Coordinates {
    let degrees = |text: &str| text.parse().expect("coordinates in a built-in table are numbers");
    Coordinates { latitude: degrees(latitude), longitude: degrees(longitude) }
}

impl Region {
    fn full_name(&self) -> String {
        format!("{}:{}", self.provider, self.name)
    }

    fn site(&self) -> Site {
        Site { name: self.full_name(), coordinates: self.coordinates }
    }
}

impl Airport {
    fn site(&self) -> Site {
        Site { name: self.code.to_string(), coordinates: self.coordinates }
    }

    /// Kilometres to the nearest cloud region.
    fn off_the_cloud_km(&self) -> f64 {
        REGIONS.iter().map(|region| region.coordinates.distance_km(self.coordinates)).fold(f64::INFINITY, f64::min)
    }
}

fn region_named(provider: &str, name: &str) -> Option<&'static Region> {
    REGIONS.iter().find(|r| r.provider.eq_ignore_ascii_case(provider) && r.name.eq_ignore_ascii_case(name))
}

fn airport(code: &str) -> Option<&'static Airport> {
    let code = code.to_ascii_uppercase();
    AIRPORTS.binary_search_by(|airport| airport.code.cmp(&code)).ok().map(|i| &AIRPORTS[i])
}

/// Names under which people also know a provider. They only lead to the canonical name: there is one way to write a site.
const ALSO_KNOWN_AS: &[(&str, &str)] = &[
    ("akamai", "linode"),
    ("alicloud", "alibaba"),
    ("aliyun", "alibaba"),
    ("amazon", "aws"),
    ("digitalocean", "do"),
    ("flyio", "fly"),
    ("google", "gcp"),
    ("microsoft", "azure"),
    ("oracle", "oci"),
    ("ovhcloud", "ovh"),
];

/// Least likeness (see [`likeness`]) of a suggestion that nothing but its spelling speaks for: below it, a suggestion reads
/// as noise.
const LIKENESS_MIN: f64 = 0.5;

/// Ranks of a suggestion that more than likeness (at most 1) speaks for.
const SAME_NAME: f64 = 3.0;
const SAME_PLACE: f64 = 2.0;

fn suggestions(wanted: &str) -> Vec<String> {
    let wanted = wanted.to_ascii_lowercase();
    match wanted.split_once(':') {
        Some((provider, region)) => with_provider(provider.trim(), region.trim()),
        None => bare(&wanted),
    }
}

/// `provider:region` with a provider that is known, known under another name, misspelt, or unheard of.
fn with_provider(provider: &str, region: &str) -> Vec<String> {
    let canonical =
        ALSO_KNOWN_AS.iter().find(|(other, _)| *other == provider).map_or(provider, |(_, canonical)| canonical);
    if providers().any(|p| p == canonical) {
        return best(REGIONS.iter().filter(|r| r.provider == canonical).map(|r| (rank(r, region), r.full_name())));
    }
    // Of each provider spelt about like that, the region most like the one wanted.
    let near = REGIONS.chunk_by(|a, b| a.provider == b.provider).filter_map(|regions| {
        let spelling = likeness(regions[0].provider, provider);
        let region = regions.iter().rev().max_by(|a, b| rank(a, region).total_cmp(&rank(b, region)))?;
        (spelling >= LIKENESS_MIN).then(|| (spelling, region.full_name()))
    });
    let named = best(near);
    if named.is_empty() { bare(region) } else { named }
}

/// A word without a provider: a region of some provider, a place, a full name with the wrong separator, or a misspelt code.
fn bare(wanted: &str) -> Vec<String> {
    if providers().any(|provider| provider == wanted) {
        return best(REGIONS.iter().filter(|r| r.provider == wanted).map(|r| (0.0, r.full_name())));
    }
    let regions = REGIONS.iter().map(|region| {
        let full_name = region.full_name();
        (rank(region, wanted).max(likeness(&full_name, wanted)), full_name)
    });
    let found = best(regions.filter(|(rank, _)| *rank >= LIKENESS_MIN));
    let is_exact = |name: &String| {
        name.split_once(':')
            .and_then(|(provider, name)| region_named(provider, name))
            .is_some_and(|r| rank(r, wanted) > 1.0)
    };
    if found.iter().any(is_exact) || !(2..=4).contains(&wanted.len()) {
        return found;
    }
    // Every three-letter word has dozens of codes one letter away: those with a cloud region near are the likelier ones.
    let mut near: Vec<_> = AIRPORTS
        .iter()
        .filter(|airport| strsim::osa_distance(&airport.code.to_ascii_lowercase(), wanted) == 1)
        .collect();
    near.sort_by(|a, b| a.off_the_cloud_km().total_cmp(&b.off_the_cloud_km()));
    near.iter().take(SUGGESTIONS_MAX).map(|airport| airport.code.to_string()).collect()
}

/// How well `region` answers to `wanted`: its very name, its place, or else a likeness of the name.
fn rank(region: &Region, wanted: &str) -> f64 {
    let letters =
        |text: &str| text.chars().filter(char::is_ascii_alphabetic).map(|c| c.to_ascii_lowercase()).collect::<String>();
    if region.name == wanted {
        SAME_NAME
    } else if !wanted.is_empty() && letters(region.place) == letters(wanted) {
        SAME_PLACE
    } else {
        likeness(region.name, wanted)
    }
}

/// 0 (nothing in common) to 1 (equal): the mean of an edit distance, which forgives typing errors, and of shared letter
/// pairs, which forgive parts in another order (`uswest2` for `westus2`).
fn likeness(a: &str, b: &str) -> f64 {
    (strsim::normalized_damerau_levenshtein(a, b) + strsim::sorensen_dice(a, b)) / 2.0
}

/// The names of highest rank; ties stay in order. Where one is exactly what was meant, the merely similar are left out.
fn best(candidates: impl Iterator<Item = (f64, String)>) -> Vec<String> {
    let mut candidates: Vec<_> = candidates.collect();
    candidates.sort_by(|a, b| b.0.total_cmp(&a.0));
    let best = candidates.first().map_or(0.0, |c| c.0);
    candidates.retain(|c| best < SAME_PLACE || c.0 == best);
    candidates.into_iter().take(SUGGESTIONS_MAX).map(|(_, name)| name).collect()
}

fn advice(suggestions: &[String]) -> String {
    match suggestions {
        [] => format!(
            "write provider:region (providers: {}), an IATA code such as \"IAD\", or {{ latitude = 38.95, longitude = -77.45 }}",
            providers().collect::<Vec<_>>().join(", ")
        ),
        [only] => format!("did you mean `{only}`?"),
        [others @ .., last] => format!("did you mean `{}` or `{last}`?", others.join("`, `")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn at(latitude: f32, longitude: f32) -> Coordinates {
        Coordinates { latitude, longitude }
    }

    fn suggested(text: &str) -> Vec<String> {
        find(text).expect_err("this name is not listed").suggestions
    }

    #[test]
    fn known_names_lead_to_their_cities_in_either_case() {
        let (dublin, frankfurt, amsterdam, singapore) =
            (at(53.35, -6.26), at(50.11, 8.68), at(52.37, 4.90), at(1.35, 103.82));
        let (washington, paris, new_york, tokyo) =
            (at(38.9, -77.04), at(48.86, 2.35), at(40.71, -74.0), at(35.68, 139.69));
        let cases = [
            ("aws:eu-west-1", "aws:eu-west-1", dublin),
            ("AWS:EU-West-1", "aws:eu-west-1", dublin),
            (" aws:us-east-1 ", "aws:us-east-1", washington),
            ("aws:us-gov-east-1", "aws:us-gov-east-1", at(39.96, -83.0)),
            ("aws:cn-north-1", "aws:cn-north-1", at(39.9, 116.4)),
            ("gcp:europe-west3", "gcp:europe-west3", frankfurt),
            ("gcp:us-central1", "gcp:us-central1", at(41.26, -95.94)),
            ("azure:westeurope", "azure:westeurope", amsterdam),
            ("azure:eastus", "azure:eastus", washington),
            ("oci:eu-paris-1", "oci:eu-paris-1", paris),
            ("alibaba:ap-southeast-1", "alibaba:ap-southeast-1", singapore),
            ("ibm:jp-tok", "ibm:jp-tok", tokyo),
            ("hetzner:fsn1", "hetzner:fsn1", at(50.48, 12.37)),
            ("fly:ams", "fly:ams", amsterdam),
            ("do:fra1", "do:fra1", frankfurt),
            ("do:nyc3", "do:nyc3", new_york),
            ("ovh:gra", "ovh:gra", at(50.99, 2.13)),
            ("linode:us-east", "linode:us-east", new_york),
            ("vultr:nrt", "vultr:nrt", tokyo),
            ("scaleway:fr-par-2", "scaleway:fr-par-2", paris),
            ("equinix:dc", "equinix:dc", washington),
            ("upcloud:fi-hel1", "upcloud:fi-hel1", at(60.17, 24.94)),
            ("exoscale:ch-gva-2", "exoscale:ch-gva-2", at(46.2, 6.15)),
            ("IAD", "IAD", washington),
            ("iad", "IAD", washington),
            ("FRA", "FRA", frankfurt),
            ("SYD", "SYD", at(-33.87, 151.21)),
            ("GRU", "GRU", at(-23.55, -46.63)),
            ("JNB", "JNB", at(-26.2, 28.05)),
            ("NYC", "NYC", new_york),
            ("TYO", "TYO", tokyo),
        ];
        for (text, name, city) in cases {
            let site = find(text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(site.name, name);
            let off_km = site.coordinates.distance_km(city);
            assert!(off_km < 60.0, "{name} lies {off_km:.0} km from its city");
        }
    }

    #[test]
    fn an_unknown_name_brings_the_nearest_spellings() {
        let cases: &[(&str, &[&str])] = &[
            // A known provider: the regions of it that are spelt alike, lie there, or come first.
            ("aws:eu-west-4", &["aws:eu-west-1", "aws:eu-west-2", "aws:eu-west-3"]),
            ("aws:us-esat-1", &["aws:us-east-1", "aws:us-west-1", "aws:us-east-2"]),
            ("aws:frankfurt", &["aws:eu-central-1"]),
            ("azure:West Europe", &["azure:westeurope", "azure:northeurope", "azure:westus"]),
            ("aws:", &["aws:us-east-1", "aws:us-east-2", "aws:us-west-1"]),
            // A provider under another name, or misspelt, or unheard of.
            ("amazon:us-east-1", &["aws:us-east-1"]),
            ("digitalocean:fra1", &["do:fra1"]),
            ("awz:eu-west-1", &["aws:eu-west-1"]),
            ("hetzer:fsn1", &["hetzner:fsn1"]),
            ("nimbus:eu-west-1", &["aws:eu-west-1", "alibaba:eu-west-1"]),
            // No provider at all.
            ("eu-west-1", &["aws:eu-west-1", "alibaba:eu-west-1"]),
            ("europe-west3", &["gcp:europe-west3"]),
            ("fsn1", &["hetzner:fsn1"]),
            ("aws-eu-west-1", &["aws:eu-west-1", "aws:eu-west-2", "aws:eu-west-3"]),
            ("Falkenstein", &["hetzner:fsn1"]),
            ("scaleway", &["scaleway:fr-par", "scaleway:fr-par-1", "scaleway:fr-par-2"]),
            // Nothing near.
            ("qqqqqqqqqqqq", &[]),
            ("", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(suggested(text), *expected, "suggestions for {text:?}");
        }
    }

    #[test]
    fn a_misspelt_airport_brings_codes_near_cloud_regions() {
        let found = suggested("FRQ");
        assert!(found.contains(&"FRA".to_string()), "{found:?}");
        assert_eq!(suggested("EDDFX"), Vec::<String>::new());
        assert!(suggested("KIAD").contains(&"IAD".to_string()));
    }

    #[test]
    fn every_suggestion_is_a_name_that_is_found() {
        let texts = [
            "aws:eu-west-4",
            "amazn:us-east-1",
            "eu-west-1",
            "berlin",
            "FRQ",
            "gcp:berlin",
            "ovh-gra",
            "nyc9",
            "x",
            "do",
        ];
        for text in texts {
            let found = suggested(text);
            assert!(found.len() <= SUGGESTIONS_MAX);
            for name in found {
                assert_eq!(find(&name).expect("a suggestion can be written").name, name);
            }
        }
    }

    #[test]
    fn the_message_says_what_to_write() {
        let message = |text: &str| find(text).expect_err("unknown").to_string();
        assert_eq!(message("hetzer:fsn1"), "unknown location `hetzer:fsn1`; did you mean `hetzner:fsn1`?");
        assert_eq!(
            message("eu-west-1"),
            "unknown location `eu-west-1`; did you mean `aws:eu-west-1` or `alibaba:eu-west-1`?"
        );
        assert_eq!(
            message("qqqqqqqqqqqq"),
            "unknown location `qqqqqqqqqqqq`; write provider:region (providers: aws, gcp, azure, oci, alibaba, ibm, hetzner, \
             fly, do, ovh, linode, vultr, scaleway, equinix, upcloud, exoscale), an IATA code such as \"IAD\", or \
             { latitude = 38.95, longitude = -77.45 }"
        );
    }

    #[test]
    fn every_region_is_listed_once_in_canonical_form_near_an_airport() {
        // Parsing is part of the test: forcing the tables reads every line.
        let mut seen = HashSet::new();
        for region in REGIONS.iter() {
            let name = region.full_name();
            assert!(seen.insert(name.clone()), "{name} is listed twice");
            assert_eq!(name, name.to_ascii_lowercase());
            assert!(!region.place.is_empty(), "{name} has no place");
            assert_in_range(&name, region.coordinates);
            let km =
                AIRPORTS.iter().map(|a| a.coordinates.distance_km(region.coordinates)).fold(f64::INFINITY, f64::min);
            assert!(km < 150.0, "{name} lies {km:.0} km from any airport");
        }
        assert!(seen.len() > 500);
        assert_eq!(providers().collect::<HashSet<_>>().len(), providers().count(), "a provider's lines stand together");
    }

    #[test]
    fn a_place_has_the_same_coordinates_for_every_provider() {
        for region in REGIONS.iter() {
            let first = REGIONS.iter().find(|r| r.place == region.place).expect("at least itself");
            assert_eq!(first.coordinates, region.coordinates, "{}", region.place);
        }
    }

    #[test]
    fn every_airport_code_is_listed_once_in_order() {
        assert!(AIRPORTS.is_sorted_by(|a, b| a.code < b.code));
        assert!(AIRPORTS.len() > 7000);
        for airport in AIRPORTS.iter() {
            assert!(airport.code.len() == 3 && airport.code.bytes().all(|b| b.is_ascii_uppercase()), "{airport:?}");
            assert_in_range(airport.code, airport.coordinates);
        }
    }

    fn assert_in_range(name: &str, c: Coordinates) {
        assert!((-90.0..=90.0).contains(&c.latitude) && (-180.0..=180.0).contains(&c.longitude), "{name}: {c:?}");
    }

    #[test]
    fn every_also_known_name_leads_to_a_listed_provider() {
        for (other, canonical) in ALSO_KNOWN_AS {
            assert!(providers().any(|p| p == *canonical), "{canonical}");
            assert!(providers().all(|p| p != *other), "{other} is itself a provider");
        }
    }
}
