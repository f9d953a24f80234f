//! How much longer than the great circle the way along cables is. Data from Tel Aviv to Mumbai goes by way of Marseille, and from Bogotá to
//! Santiago by way of Miami: what distance alone cannot know, and what a map of cables can. The map is coarse (see
//! [`exchanges`]), so that only long detours count, and how far to believe it is learnt from measurements ([`super::trend`]).

mod exchanges;

use std::sync::LazyLock;

use self::exchanges::{EXCHANGES, SELDOM_USED};
use super::{
    estimate::{Direction, RegionSite},
    model,
};
use crate::geo::Coordinates;

/// A link is longer than the great circle between its ends by this factor, and by so many kilometres.
const LINK: (f32, f32) = (1.05, 30.0);
/// The way from a network to its exchange is longer than the great circle by this factor.
const ACCESS: f32 = 1.2;
/// A detour of up to this many milliseconds is within what the model of distance is off by anyway.
const TOLERATED_MS: f32 = 20.0;

/// The ways to some regions.
#[derive(Debug, Clone, Default)]
pub struct Detours {
    doors: Vec<Door>, // by region
}

/// Where a place meets other networks: its nearest exchange.
#[derive(Debug, Clone, Copy)]
pub struct Door {
    exchange: usize,
    km: f32,
}

impl Door {
    /// That of a place.
    pub fn of(place: Direction) -> Door {
        let far = |exchange: &usize| place.chord_squared(PLACES[*exchange]);
        let exchange = (0..EXCHANGES.len()).min_by(|a, b| far(a).total_cmp(&far(b))).unwrap_or_default();
        Door { exchange, km: ACCESS * place.distance_km(PLACES[exchange]) as f32 }
    }
}

impl Detours {
    /// To `sites`.
    pub fn to(sites: &[RegionSite]) -> Detours {
        Detours { doors: sites.iter().map(|site| Door::of(site.direction())).collect() }
    }

    /// By how many milliseconds the way from a place to a region at `distance_km` is longer than what the model says of that distance, and
    /// than what is tolerated; 0 for all that is near.
    pub fn ms(&self, door: Door, region: usize, distance_km: f64) -> f32 {
        let far = self.doors[region];
        // Who is nearer to each other than to their exchanges meets without these.
        if distance_km <= f64::from(door.km + far.km) / f64::from(ACCESS) || door.exchange == far.exchange {
            return 0.0;
        }
        let km = door.km + WAYS_KM[door.exchange * EXCHANGES.len() + far.exchange] + far.km;
        (model::rtt_ms(f64::from(km)) - model::rtt_ms(distance_km) - TOLERATED_MS).max(0.0)
    }
}

/// Where the exchanges are.
static PLACES: LazyLock<Vec<Direction>> = LazyLock::new(|| {
    let place = |latitude, longitude| Direction::of(Coordinates { latitude, longitude });
    EXCHANGES.iter().map(|(_, latitude, longitude, _)| place(*latitude, *longitude)).collect()
});

/// The shortest ways between all of them in kilometres, row by row. Who knows of no detour need not wait for it.
static WAYS_KM: LazyLock<Vec<f32>> = LazyLock::new(shortest_ways_km);

/// By Floyd's algorithm ("Algorithm 97: Shortest Path", Communications of the ACM 1962): two million additions.
fn shortest_ways_km() -> Vec<f32> {
    let n = EXCHANGES.len();
    let mut km = vec![f32::INFINITY; n * n];
    for (from, (name, _, _, links)) in EXCHANGES.iter().enumerate() {
        km[from * n + from] = 0.0;
        for to in links.iter().filter_map(|link| position(link)) {
            let far = PLACES[from].distance_km(PLACES[to]) as f32;
            let length = LINK.0 * far + LINK.1 + seldom_used_km(name, EXCHANGES[to].0);
            km[from * n + to] = length;
            km[to * n + from] = length;
        }
    }
    for by in 0..n {
        for from in 0..n {
            for to in 0..n {
                km[from * n + to] = km[from * n + to].min(km[from * n + by] + km[by * n + to]);
            }
        }
    }
    km
}

fn position(name: &str) -> Option<usize> {
    EXCHANGES.iter().position(|(other, ..)| *other == name)
}

fn seldom_used_km(from: &str, to: &str) -> f32 {
    SELDOM_USED.iter().find(|(a, b, _)| (*a, *b) == (from, to)).map_or(0.0, |(_, _, km)| *km)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(latitude: f32, longitude: f32) -> Coordinates {
        Coordinates { latitude, longitude }
    }

    fn detour_ms(from: Coordinates, to: Coordinates) -> f32 {
        let detours = Detours::to(&[RegionSite::new(to, 0.0)]);
        detours.ms(Door::of(Direction::of(from)), 0, from.distance_km(to))
    }

    const TEL_AVIV: Coordinates = Coordinates { latitude: 32.1, longitude: 34.8 };
    const MUMBAI: Coordinates = Coordinates { latitude: 19.1, longitude: 72.9 };
    const FRANKFURT: Coordinates = Coordinates { latitude: 50.1, longitude: 8.7 };

    #[test]
    fn every_link_leads_somewhere_and_every_exchange_can_be_reached() {
        for (name, latitude, longitude, links) in EXCHANGES {
            assert!(latitude.abs() <= 90.0 && longitude.abs() <= 180.0, "{name}");
            for link in links {
                assert!(position(link).is_some() && *link != name, "{name}: {link}");
                let back = EXCHANGES[position(link).expect("it is there")].3;
                assert!(!back.contains(&name), "{name} and {link}: the link stands at both ends");
            }
        }
        assert!(WAYS_KM.iter().all(|km| km.is_finite()), "some are not linked to the others");
        let mut names: Vec<&str> = EXCHANGES.iter().map(|exchange| exchange.0).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "a name stands twice");
        for (from, to, _) in SELDOM_USED {
            let links = EXCHANGES[position(from).expect(from)].3;
            assert!(links.contains(&to), "{from} to {to} is no link");
        }
    }

    #[test]
    fn who_has_to_go_a_long_way_round_has_a_detour_and_neighbours_have_none() {
        assert!(detour_ms(TEL_AVIV, MUMBAI) > 50.0, "{}", detour_ms(TEL_AVIV, MUMBAI));
        assert!(detour_ms(at(4.7, -74.1), at(-33.4, -70.6)) > 50.0, "Bogotá to Santiago");
        assert!(detour_ms(at(-26.2, 28.0), at(-23.5, -46.6)) > 100.0, "Johannesburg to São Paulo");
        for (from, to) in [
            (FRANKFURT, at(51.5, -0.1)),
            (FRANKFURT, at(40.7, -74.0)),
            (MUMBAI, at(1.35, 103.8)),
            (FRANKFURT, FRANKFURT),
        ] {
            assert_eq!(detour_ms(from, to), 0.0, "{from:?} {to:?}");
        }
    }

    #[test]
    fn nobody_goes_round_to_the_own_city() {
        for latitude in -60..75 {
            for longitude in -180..180 {
                let here = at(latitude as f32 + 0.5, longitude as f32 + 0.5);
                assert_eq!(detour_ms(here, here), 0.0, "{here:?}");
            }
        }
        let (winnipeg, des_moines) = (at(49.9, -97.1), at(41.6, -93.6));
        assert_eq!((detour_ms(winnipeg, des_moines), detour_ms(des_moines, winnipeg)), (0.0, 0.0));
        assert_eq!(detour_ms(at(26.2, 50.6), at(25.3, 51.5)), 0.0, "Manama to Doha");
        assert_eq!(detour_ms(at(31.3, 75.6), at(28.6, 77.2)), 0.0, "Jalandhar to Delhi");
        assert_eq!(detour_ms(at(22.3, 70.8), MUMBAI), 0.0, "Rajkot to Mumbai");
    }

    #[test]
    fn ways_are_as_long_in_both_directions() {
        let n = EXCHANGES.len();
        for from in 0..n {
            for to in 0..n {
                assert!((WAYS_KM[from * n + to] - WAYS_KM[to * n + from]).abs() < 0.1);
            }
        }
        let there = detour_ms(TEL_AVIV, MUMBAI);
        assert!((there - detour_ms(MUMBAI, TEL_AVIV)).abs() < 0.1);
    }
}
