//! The estimator: the round trip to expect from any network to every region, out of the distance model and all that was measured.
//!
//! An estimate is built up from the wide to the narrow. Each step is believed as far as its measurements carry, and what remains
//! uncertain is passed on (`docs/latency.md` has the formulas):
//!
//! ```text
//! model of distance ─▶ trend and offset of the region ─▶ field around the place ─▶ continent ─▶ country ─▶ AS ─▶ prefix ─▶ …
//! ```

mod place;

use std::net::IpAddr;

use hashbrown::{HashMap, HashSet};

pub(super) use self::place::Start;
use super::{
    belief::{Belief, Kinship, Observed, Workspace},
    candidates::{Choice, passed_over},
    cells::Cells,
    detours::Detours,
    estimate::{Direction, Estimate, EstimateSource, RegionSite},
    field::{Field, FieldRoom},
    intake::Counts,
    model,
    prefixes::{Cell, PrefixTable},
    prior::Prior,
    trend::Trend,
};
use crate::geo::{Continent, Coordinates, CountryCode, Place, special::embedded_v4};

/// All that is known of round trips to one set of regions.
pub struct Estimator {
    pub(super) prior: Prior,
    pub(super) sites: Vec<RegionSite>,
    pub(super) kinship: Kinship,
    pub(super) detours: Detours,
    pub(super) trend: Trend,
    pub(super) field: Field,
    /// What the field says of the cells of the globe in which networks were measured: maps ask for these again and again.
    pub(super) known_cells: Cells,
    pub(super) continents: HashMap<Continent, Shift>,
    pub(super) countries: HashMap<CountryCode, Shift>,
    /// By number, and by number within a country.
    pub(super) systems: HashMap<(u32, Option<CountryCode>), Shift>,
    pub(super) known_systems: HashSet<u32>,
    pub(super) v4: PrefixTable,
    pub(super) v6: PrefixTable,
    /// How what was measured was chosen.
    pub(super) choice: Choice,
    pub(super) counts: Counts,
}

impl Room {
    /// What the field said of the cells that were asked for.
    pub(super) fn into_cells(self) -> Cells {
        self.cells
    }
}

/// What a group of networks has in common beyond what is wider than it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shift {
    pub belief: Belief,
    /// Samples behind it, by region.
    pub samples: Vec<u32>,
    /// Age of the newest in seconds.
    pub age_s: u32,
}

/// Which network: what is known of it besides its place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Client {
    /// Its autonomous system.
    pub asn: Option<u32>,
    /// The narrowest measured prefix that it lies in.
    pub prefix: Option<MeasuredPrefix>,
}

/// A measured prefix by its number in its family's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MeasuredPrefix {
    /// Of IPv4.
    V4(u32),
    /// Of IPv6.
    V6(u32),
}

/// The room that estimates are worked out in. What the field says is kept, since many networks share a cell of the globe.
#[derive(Default)]
pub struct Room {
    near: FieldRoom,
    work: Workspace,
    cells: Cells,
    fresh: Belief, // of the cell that was asked for first just now
    belief: Belief,
    model_ms: Vec<f32>,
    km: Vec<f64>,
    slack_km: f64, // so far off the place may be
    observed: Vec<Observed>,
    chain: Vec<u32>,
    is_own: Vec<bool>, // by region: the network was measured to it
    least_ms: f32,     // no region that the network was not measured to is better than this
}

impl Estimator {
    /// Of the distance model alone.
    pub fn unmeasured(sites: &[RegionSite]) -> Self {
        let prior = Prior::FITTED; // without detours
        let kinship = Kinship::new(sites, prior.regions_common, prior.regions_km, prior.regions_own);
        Estimator {
            detours: Detours::to(sites),
            trend: Trend::unmeasured(&prior, sites.len()),
            field: Field::new(&prior, &kinship, &[]),
            known_cells: Cells::default(),
            prior,
            kinship,
            sites: sites.to_vec(),
            continents: HashMap::new(),
            countries: HashMap::new(),
            systems: HashMap::new(),
            known_systems: HashSet::new(),
            v4: PrefixTable::default(),
            v6: PrefixTable::default(),
            choice: Choice::default(),
            counts: Counts::default(),
        }
    }

    /// The regions, in file order.
    pub fn sites(&self) -> &[RegionSite] {
        &self.sites
    }

    /// True when nothing was measured: then estimates are the model's.
    pub fn is_unmeasured(&self) -> bool {
        self.field.is_empty()
            && self.continents.is_empty()
            && self.countries.is_empty()
            && self.systems.is_empty()
            && self.v4.is_empty()
            && self.v6.is_empty()
    }

    /// What was made of the measurements.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The measured IPv4 prefixes; addresses in the low 32 bits.
    pub fn v4(&self) -> &PrefixTable {
        &self.v4
    }

    /// The measured IPv6 prefixes.
    pub fn v6(&self) -> &PrefixTable {
        &self.v6
    }

    /// True when some system has a shift of its own, so that it matters which one an address belongs to.
    pub fn knows_systems(&self) -> bool {
        !self.systems.is_empty()
    }

    /// True when this system has a shift of its own, in any country.
    pub fn knows_system(&self, asn: u32) -> bool {
        self.known_systems.contains(&asn)
    }

    /// The milliseconds that regions are ranked by, the lowest first: estimate, bias and penalty, and what counts against a region that a
    /// measured network was not measured to. Infinite towards regions of which nothing is known. `out` is as long as the regions.
    /// False when nothing is known at all: no place, and no measurement.
    pub fn fill(&self, place: &Place, client: Client, room: &mut Room, out: &mut [f32]) -> bool {
        assert_eq!(self.sites.len(), out.len(), "one slot for each region");
        let Some(coordinates) = place.coordinates else { return self.fill_unplaced(client, room, out) };
        if self.is_unmeasured() && self.trend.detour() == 0.0 {
            super::estimate::fill(coordinates, &self.sites, out);
            return true;
        }
        let is_measured = self.believe(coordinates, place, client, room);
        for (region, ms) in out.iter_mut().enumerate() {
            *ms = self.rank_ms(region, is_measured, room).0;
        }
        true
    }

    /// The milliseconds by which regions are ranked and their standard deviation, from what `believe` left in the room.
    fn rank_ms(&self, region: usize, is_measured: bool, room: &Room) -> (f32, f32) {
        let model_ms = room.model_ms[region];
        let floor_ms = model::fibre_floor_ms((room.km[region] - room.slack_km).max(0.0));
        let spread_ms = self.prior.spread_ms(model_ms);
        let error = room.belief.mean[region] + self.trend.at(region, model_ms);
        let sd_ms = spread_ms * room.belief.var[region].max(0.0).sqrt();
        let own = is_measured && room.is_own[region];
        // Where light would have to be exceeded the order is still that of distance.
        let least_ms = if own { floor_ms } else { floor_ms + LEAST_ABOVE_LIGHT * (model_ms - floor_ms) };
        let caution_ms = if is_measured && !own { self.prior.caution * sd_ms } else { 0.0 };
        let least_ms =
            if is_measured && !own && self.choice.is_open(region) { least_ms.max(room.least_ms) } else { least_ms };
        ((model_ms + spread_ms * error).max(least_ms) + caution_ms + self.sites[region].added_ms(), sd_ms)
    }

    /// Of a network whose place is unknown only what was measured is known.
    fn fill_unplaced(&self, client: Client, room: &mut Room, out: &mut [f32]) -> bool {
        out.fill(f32::INFINITY);
        let Some(prefix) = client.prefix else { return false };
        self.find_chain(prefix, room);
        for prefix in &room.chain {
            for cell in self.table(client).cells(*prefix) {
                out[cell.region.index()] = cell.rtt_ms + self.sites[cell.region.index()].added_ms();
            }
        }
        out.iter().any(|ms| ms.is_finite())
    }

    /// Everything there is to say of the estimates for a client; `None` where nothing is known.
    pub fn estimates(&self, place: &Place, client: Client, room: &mut Room) -> Option<Vec<Option<Estimate>>> {
        let Some(coordinates) = place.coordinates else {
            let mut ms = vec![0.0; self.sites.len()];
            return self.fill_unplaced(client, room, &mut ms).then(|| {
                let told = |(region, ms): (usize, f32)| {
                    let cell = self.own_cell(client, region)?;
                    let sd_ms = self.prior.noise_var_ms2(cell.rtt_ms, cell.weight).sqrt();
                    Some(told_of_cell(ms, sd_ms, &cell, None))
                };
                ms.into_iter().enumerate().map(told).collect()
            });
        };
        let is_measured = self.believe(coordinates, place, client, room);
        let tell = |region: usize| {
            let (ms, sd_ms) = self.rank_ms(region, is_measured, room);
            let distance_km = Some(room.km[region]);
            if is_measured && let Some(cell) = self.own_cell(client, region) {
                return Some(told_of_cell(ms, sd_ms, &cell, distance_km));
            }
            let (source, samples, age_s) = self.best_source(place, client, region, is_measured, room);
            let detour_ms = self.detour_ms(coordinates, region, room.model_ms[region]);
            Some(Estimate { ms, source, samples, distance_km, uncertainty_ms: sd_ms, age_s, detour_ms })
        };
        Some((0..self.sites.len()).map(tell).collect())
    }

    /// What the estimate towards the best region rests on, after [`Estimator::fill`] wrote `ms` for this very client.
    pub fn source_of_best(&self, place: &Place, client: Client, ms: &[f32], room: &Room) -> Option<EstimateSource> {
        let best = (0..ms.len()).min_by(|a, b| ms[*a].total_cmp(&ms[*b])).filter(|best| ms[*best].is_finite())?;
        if self.own_cell(client, best).is_some() {
            return Some(EstimateSource::Measured);
        }
        if self.is_unmeasured() {
            return Some(EstimateSource::Model);
        }
        Some(self.best_source(place, client, best, client.prefix.is_some(), room).0)
    }

    /// What is known of an address besides its place.
    pub fn client(&self, address: IpAddr, asn: Option<u32>) -> Client {
        let find = |address: IpAddr| match address {
            IpAddr::V4(v4) => self.v4.find(v4.to_bits().into()).map(MeasuredPrefix::V4),
            IpAddr::V6(v6) => self.v6.find(v6.to_bits()).map(MeasuredPrefix::V6),
        };
        let embedded = match address {
            IpAddr::V6(v6) => embedded_v4(v6).map(|embedded| IpAddr::V4(embedded.v4)),
            IpAddr::V4(_) => None,
        };
        Client { asn, prefix: find(embedded.unwrap_or(address)) }
    }

    /// Where the narrowest knowledge of a region comes from that the network was not measured to itself.
    fn best_source(
        &self,
        place: &Place,
        client: Client,
        region: usize,
        is_measured: bool,
        room: &Room,
    ) -> (EstimateSource, u32, Option<u64>) {
        if is_measured {
            return (EstimateSource::Network, 0, None);
        }
        let systems = client.asn.into_iter().flat_map(|asn| [(asn, place.country), (asn, None)]);
        let system = systems.filter_map(|key| self.systems.get(&key)).map(|shift| (EstimateSource::System, shift));
        let country = place.country.and_then(|country| self.countries.get(&country));
        let continent = place.continent.and_then(|continent| self.continents.get(&continent));
        let wider = country.map(|shift| (EstimateSource::Country, shift)).into_iter();
        let widest = continent.map(|shift| (EstimateSource::Continent, shift));
        let mut steps = system.chain(wider).chain(widest);
        if let Some((source, shift)) = steps.find(|(_, shift)| shift.samples[region] > 0) {
            return (source, shift.samples[region], Some(u64::from(shift.age_s)));
        }
        let blank_var = self.prior.field_var + self.prior.local_var;
        match room.belief.var[region] < blank_var * TELLING_SHARE {
            true => (EstimateSource::Neighbours, 0, None),
            false => (EstimateSource::Model, 0, None),
        }
    }

    /// Leaves in the room what is believed of the errors towards each region. True when the network itself was measured.
    fn believe(&self, coordinates: Coordinates, place: &Place, client: Client, room: &mut Room) -> bool {
        let direction = Direction::of(coordinates);
        room.km.clear();
        room.km.extend(self.sites.iter().map(|site| direction.distance_km(site.direction())));
        room.model_ms.clear();
        room.model_ms.extend(room.km.iter().map(|km| model::rtt_ms(*km)));
        room.slack_km = f64::from(place.within_km);
        self.believe_place(coordinates, room);
        self.believe_groups(place, client.asn, &mut room.belief);
        let Some(prefix) = client.prefix else {
            self.widen(self.prior.local_var, &mut room.belief);
            return false;
        };
        self.find_chain(prefix, room);
        room.is_own.clear();
        room.is_own.resize(self.sites.len(), false);
        let chain = std::mem::take(&mut room.chain);
        for (depth, prefix) in chain.iter().enumerate() {
            let share = if depth == 0 { 1.0 } else { NESTED_SHARE };
            self.widen(self.prior.local_var * share, &mut room.belief);
            let cells = self.table(client).cells(*prefix);
            cells.iter().for_each(|cell| room.is_own[cell.region.index()] = true);
            self.observe(cells, room);
            room.belief.loosen(&room.observed, self.prior.freedom);
            room.belief.take_in(&self.kinship, &room.observed, &mut room.work);
        }
        room.chain = chain;
        room.least_ms = self.least_of_passed_over(room);
        true
    }

    /// Regions that were passed over when somebody chose what a network is measured to are no better than the best of those that were
    /// measured: that one's estimate in milliseconds. 0 where nobody chose.
    fn least_of_passed_over(&self, room: &Room) -> f32 {
        let share = passed_over(&room.km, |region| self.choice.is_open(region), |region| room.is_own[region]);
        if !share.is_some_and(|share| self.choice.is_knowing(share)) {
            return 0.0;
        }
        let ms = |region: usize| {
            let model_ms = room.model_ms[region];
            model_ms + self.prior.spread_ms(model_ms) * (room.belief.mean[region] + self.trend.at(region, model_ms))
        };
        let own = (0..self.sites.len()).filter(|region| room.is_own[*region]).map(ms);
        own.fold(f32::INFINITY, f32::min)
    }

    fn widen(&self, var: f32, belief: &mut Belief) {
        belief.var.iter_mut().for_each(|known| *known += var);
    }

    /// Turns cells into errors of the model, for the place whose model is in the room.
    fn observe(&self, cells: &[Cell], room: &mut Room) {
        room.observed.clear();
        room.observed.extend(cells.iter().map(|cell| {
            let region = cell.region.index();
            let model_ms = room.model_ms[region];
            let spread_ms = self.prior.spread_ms(model_ms);
            Observed {
                region,
                error: (cell.rtt_ms - model_ms) / spread_ms - self.trend.at(region, model_ms),
                noise_var: self.prior.noise_var_ms2(cell.rtt_ms, cell.weight) / (spread_ms * spread_ms),
            }
        }));
        let ms =
            |one: &Observed| room.model_ms[one.region] + one.error * self.prior.spread_ms(room.model_ms[one.region]);
        room.observed.sort_by(|a, b| ms(a).total_cmp(&ms(b)));
    }

    fn find_chain(&self, prefix: MeasuredPrefix, room: &mut Room) {
        let (table, first) = match prefix {
            MeasuredPrefix::V4(prefix) => (&self.v4, prefix),
            MeasuredPrefix::V6(prefix) => (&self.v6, prefix),
        };
        room.chain.clear();
        let mut next = Some(first);
        while let Some(prefix) = next {
            room.chain.push(prefix);
            next = table.parent(prefix);
        }
        room.chain.reverse();
    }

    fn table(&self, client: Client) -> &PrefixTable {
        match client.prefix {
            Some(MeasuredPrefix::V6(_)) => &self.v6,
            _ => &self.v4,
        }
    }

    /// True when a measured network should leave its region for another: that must be better by more than `hysteresis_ms` and a tenth,
    /// and by more than the noise of what was measured. From a region that was not measured to one that was it may go at once: once
    /// there it has a reason to stay. How uncertain an estimate is counts for nothing here, since it is as far off at the next
    /// look. Regions by position, with their milliseconds.
    pub fn is_clearly_better(&self, client: Client, from: (usize, f32), to: (usize, f32), hysteresis_ms: f32) -> bool {
        let (old, new) = (self.own_cell(client, from.0), self.own_cell(client, to.0));
        if old.is_none() && new.is_some() {
            return true;
        }
        let noise_var =
            |cell: &Option<Cell>| cell.map_or(0.0, |cell| self.prior.noise_var_ms2(cell.rtt_ms, cell.weight));
        let confident_ms = CONFIDENT_SDS * (noise_var(&old) + noise_var(&new)).sqrt();
        let gain_ms = from.1 - to.1;
        gain_ms > hysteresis_ms && gain_ms > CHANGE_SHARE * from.1 && gain_ms > confident_ms
    }

    /// The narrowest measurement towards a region that the client's network has.
    pub fn own_cell(&self, client: Client, region: usize) -> Option<Cell> {
        let (table, first) = match client.prefix? {
            MeasuredPrefix::V4(prefix) => (&self.v4, prefix),
            MeasuredPrefix::V6(prefix) => (&self.v6, prefix),
        };
        let mut next = Some(first);
        while let Some(prefix) = next {
            if let Some(cell) = table.cells(prefix).iter().find(|cell| cell.region.index() == region) {
                return Some(*cell);
            }
            next = table.parent(prefix);
        }
        None
    }
}

/// An estimate that may not go below light in fibre stays above it by this share of what the model adds to light.
const LEAST_ABOVE_LIGHT: f32 = 0.1;
/// A prefix within a measured one differs from it by this share of what networks differ from their surroundings.
const NESTED_SHARE: f32 = 0.3;
/// A change of region must gain this share of the round trip.
const CHANGE_SHARE: f32 = 0.1;
/// And so many standard deviations of the two measurements' noise: 19 in 20 such gains are real.
const CONFIDENT_SDS: f32 = 1.64;
/// The neighbours have something to tell where they take a tenth off the uncertainty.
const TELLING_SHARE: f32 = 0.9;

fn told_of_cell(ms: f32, uncertainty_ms: f32, cell: &Cell, distance_km: Option<f64>) -> Estimate {
    Estimate {
        ms,
        source: EstimateSource::Measured,
        samples: cell.samples,
        distance_km,
        uncertainty_ms,
        age_s: Some(u64::from(cell.age_s)),
        detour_ms: 0.0,
    }
}
