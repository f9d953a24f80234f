//! What is believed of round trips before any is measured: how far they scatter about the distance model, over which distance they
//! scatter alike, and how far a measurement is to be trusted. Numbers alone; `docs/latency.md` tells how they were fitted.

/// The scales of the estimator. Scatter is counted in units of [`Prior::spread_ms`], so that a near and a far region weigh alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prior {
    /// Spread about the model at 0 ms, in milliseconds.
    pub spread_base_ms: f32,
    /// Growth of the spread with the model's milliseconds.
    pub spread_slope: f32,
    /// Variance of the error that all networks and regions share, at 0 ms.
    pub intercept_var: f32,
    /// Variance of its growth per 100 ms of the model.
    pub slope_var: f32,
    /// Variance of what one region has in common for all networks.
    pub offset_var: f32,
    /// By how much detours count where nothing was measured: 0 not at all, 1 in full.
    pub detour_mean: f32,
    /// Variance of that.
    pub detour_var: f32,
    /// Variance of the smooth field: what networks of one part of the world share towards one region.
    pub field_var: f32,
    /// Distance over which the field loses all but 1/e of its likeness, in kilometres.
    pub field_km: f64,
    /// Variance of what a single network (a city's provider) has by itself.
    pub local_var: f32,
    /// Variance of what the networks of a country share beyond the field.
    pub country_var: f32,
    /// Variance of what the networks of an autonomous system share beyond their country.
    pub asn_var: f32,
    /// Likeness of a network's errors towards two regions that are far apart: what it has in common for all.
    pub regions_common: f64,
    /// Distance over which two regions lose the rest of their likeness, in kilometres.
    pub regions_km: f64,
    /// Share of the likeness that two regions never have, be they in one city.
    pub regions_own: f64,
    /// Standard deviation of a single measurement at 0 ms, in milliseconds.
    pub noise_base_ms: f32,
    /// Its growth with the measured value.
    pub noise_slope: f32,
    /// Degrees of freedom of the distribution of networks: how soon one is taken to be unlike all others.
    pub freedom: f32,
    /// Standard deviations that count against an unmeasured region of a network that has measurements.
    pub caution: f32,
}

impl Prior {
    /// The values in use.
    pub const FITTED: Prior = Prior {
        spread_base_ms: 14.0,
        spread_slope: 0.3,
        intercept_var: 0.25,
        slope_var: 0.02,
        offset_var: 0.17,
        detour_mean: 0.0,
        detour_var: 0.03,
        field_var: 0.42,
        field_km: 3000.0,
        local_var: 0.5,
        country_var: 0.1,
        asn_var: 0.2,
        regions_common: 0.1,
        regions_km: 1500.0,
        regions_own: 0.1,
        noise_base_ms: 1.5,
        noise_slope: 0.05,
        freedom: 12.0,
        caution: 0.05,
    };

    /// The values in use, where detours count before anything is measured, or only as far as measurements show that they do.
    pub fn with(detours: bool) -> Prior {
        Prior { detour_mean: if detours { DETOUR_MEAN } else { 0.0 }, ..Prior::FITTED }
    }

    /// One unit of scatter where the model says `model_ms`, in milliseconds.
    pub fn spread_ms(&self, model_ms: f32) -> f32 {
        self.spread_base_ms + self.spread_slope * model_ms
    }

    /// Variance of the mean of `samples` measurements of `rtt_ms`, in square milliseconds. `samples` may be a fraction: old ones
    /// count less.
    pub fn noise_var_ms2(&self, rtt_ms: f32, samples: f32) -> f32 {
        let sd_ms = self.noise_base_ms + self.noise_slope * rtt_ms;
        sd_ms * sd_ms / samples.max(SAMPLES_MIN)
    }
}

/// Of a detour so much is to be expected: the map of cables is coarse, and some have a shorter way.
const DETOUR_MEAN: f32 = 0.8;
/// Fewer than so many say nothing.
const SAMPLES_MIN: f32 = 1e-6;
