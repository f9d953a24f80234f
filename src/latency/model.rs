//! The distance model: what round trip to expect over a great-circle distance when nothing has been measured. A pure
//! function of kilometres; it must never know who asks, or which region it is about. `docs/latency.md` tells how it was
//! fitted and how far it is off.

/// Speed of light in vacuum, in kilometres per millisecond (exact by the definition of the metre).
const LIGHT_KM_PER_MS: f64 = 299.792_458;

/// How much slower light is in fibre: the group index of standard single-mode fibre at 1550 nm (1.4682 in the data sheets of
/// G.652 fibre). Nothing that travels through a cable beats this, so no estimate may either.
const FIBRE_GROUP_INDEX: f64 = 1.468;

/// Milliseconds of round trip that light in fibre needs for a kilometre of distance: there and back.
const FLOOR_MS_PER_KM: f64 = 2.0 * FIBRE_GROUP_INDEX / LIGHT_KM_PER_MS;

/// The model's corners: kilometres and the round trip there, in milliseconds; straight lines between them.
///
/// The values are the median regression (least absolute error, concave, never flatter than light in fibre) on 5,109 pings
/// between 73 cities in 40 countries and 2,350 round trips between 50 cloud regions, half the weight each, rounded to whole
/// milliseconds. Pings between ordinary hosts are the slow half of what a client sees, the private backbone of a cloud the
/// fast half: a model fitted to either alone is 46 to 53 ms off for the other in the median, this one 16 to 25.
///
/// The corners stand where the shape bends: within a country (to 500 km) access and detours outweigh distance; to 1,500 km
/// and 4,000 km networks of one continent; to 10,000 km one ocean; beyond it long direct cables. Five lines: more do not
/// lower the error on countries left out of the fit, and one alone would put 11 ms on a client next door.
///
/// The first corner, 2 ms, is what two hosts in one city have between them: access networks and forwarding. The fit says 2.6
/// from hardly any pairs that near, fibre access in one city is faster; it is the same for every region of a client, so the
/// order does not depend on it.
const CORNERS: [(f64, f64); 6] =
    [(0.0, 2.0), (500.0, 17.0), (1_500.0, 39.0), (4_000.0, 92.0), (10_000.0, 193.0), (20_015.0, 325.0)];

/// The line through each pair of neighbouring corners: milliseconds at 0 km, milliseconds per kilometre.
const LINES: [(f64, f64); CORNERS.len() - 1] = lines();

const fn lines() -> [(f64, f64); CORNERS.len() - 1] {
    let mut lines = [(0.0, 0.0); CORNERS.len() - 1];
    let mut i = 0;
    while i < lines.len() {
        let ((from_km, from_ms), (to_km, to_ms)) = (CORNERS[i], CORNERS[i + 1]);
        let slope = (to_ms - from_ms) / (to_km - from_km);
        lines[i] = (from_ms - slope * from_km, slope);
        i += 1;
    }
    lines
}

/// Round trip to expect over `distance_km` (0 to 20,016, half the Earth's girth), in milliseconds: at least 2, strictly
/// growing with distance, never below [`fibre_floor_ms`].
///
/// Where it grows by less than an `f32` can tell (some metres at the far end) two distances share a value.
pub fn rtt_ms(distance_km: f64) -> f32 {
    // The corners are concave, so the line that holds at a distance is the lowest one there: no search, no branch.
    let ms =
        LINES.iter().map(|(at_zero_ms, ms_per_km)| at_zero_ms + ms_per_km * distance_km).fold(f64::INFINITY, f64::min);
    ms as f32
}

/// Round trip of light in a straight fibre over `distance_km`, in milliseconds: what no packet can beat.
pub fn fibre_floor_ms(distance_km: f64) -> f32 {
    (FLOOR_MS_PER_KM * distance_km) as f32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FARTHEST_KM: f64 = 20_016.0;

    proptest! {
        #[test]
        fn farther_is_never_faster(a in 0.0..FARTHEST_KM, b in 0.0..FARTHEST_KM) {
            let (near, far) = (a.min(b), a.max(b));
            prop_assert!(rtt_ms(near) <= rtt_ms(far));
            if far - near > 0.01 {
                prop_assert!(rtt_ms(near) < rtt_ms(far), "10 m more must show: {near} {far}");
            }
        }

        #[test]
        fn no_estimate_beats_light_in_fibre(distance_km in 0.0..FARTHEST_KM) {
            let ms = rtt_ms(distance_km);
            prop_assert!(ms.is_finite() && ms >= 2.0);
            prop_assert!(ms > fibre_floor_ms(distance_km));
        }
    }

    #[test]
    fn the_lines_meet_in_the_corners() {
        for (km, ms) in CORNERS {
            assert!((f64::from(rtt_ms(km)) - ms).abs() < 1e-4, "{km} km: {}", rtt_ms(km));
        }
        assert!(LINES.windows(2).all(|pair| pair[0].1 > pair[1].1), "the corners are concave");
    }

    #[test]
    fn light_in_fibre_needs_a_hundred_kilometres_a_millisecond_and_a_bit_more_than_that_to_return() {
        assert!((fibre_floor_ms(10_000.0) - 97.934).abs() < 0.001);
        assert_eq!(fibre_floor_ms(0.0), 0.0);
    }

    #[test]
    fn well_known_distances_take_believable_times() {
        // (km, lowest ms, highest ms): Frankfurt-Amsterdam, Dublin-Ashburn, Frankfurt-Singapore, London-Sydney.
        for (km, low, high) in
            [(365.0, 6.0, 16.0), (5_470.0, 70.0, 140.0), (10_260.0, 150.0, 250.0), (16_990.0, 230.0, 330.0)]
        {
            let ms = rtt_ms(km);
            assert!((low..high).contains(&ms), "{km} km: {ms} ms");
        }
    }
}
