//! From rows to an estimator: sorts out what cannot be, gathers what tells of one network, then of one place, then of groups of
//! networks, and fits each step on what the wider ones leave.

mod gathered;
mod surroundings;

use std::collections::BTreeMap;

use hashbrown::HashMap;
use ipnet::IpNet;

use self::{gathered::Gathered, surroundings::Surroundings};
use super::{
    belief::{Belief, Kinship, Observed, Workspace},
    candidates::{Choice, passed_over},
    cells::{centre_of_cell, degree_cell},
    estimate::{Direction, RegionSite},
    estimator::{Estimator, Room, Shift, Start},
    field::{Field, Site},
    measurement::{Network, Row},
    model,
    prefixes::{Cell, PrefixTable},
    prior::Prior,
    shift::{Level, Series},
    trend::Trend,
};
use crate::{
    config::model::RegionId,
    geo::{Continent, Coordinates, CountryCode, Place, country, special::embedded_v4},
};

/// What the intake asks about where networks are.
pub trait Atlas {
    /// Place and autonomous system of a network, as far as they are known.
    fn whereabouts(&self, network: IpNet) -> (Option<Place>, Option<u32>);
    /// Some places of an autonomous system.
    fn places_of_system(&self, asn: u32) -> Vec<Place>;
}

/// What became of the rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows that were taken.
    pub rows: usize,
    /// Rows faster than light in fibre, which were left out.
    pub impossible: usize,
    /// Times that a path was seen to jump within the rows.
    pub jumps: usize,
    /// Measured prefixes.
    pub prefixes: usize,
    /// Cells of the globe that measured networks lie in.
    pub cells: usize,
    /// Age of the newest row in seconds; 0 without rows.
    pub newest_s: u64,
}

/// A measurement counts half as much after this time, and half of that after it again: paths last for weeks.
const HALF_LIFE_S: f32 = 30.0 * 86_400.0;
/// Errors beyond so many spreads, below and above, say no more about a place's surroundings than errors of this size.
pub(super) const ERROR_RANGE: (f32, f32) = (-4.0, 6.0);
/// What a row for a whole country, continent or system may be off by itself, as a variance: nobody can measure all of it.
const GROUP_VAR: f32 = 0.02;
/// A row for a place is about the place and all that is there, as sure as a row for a group: it counts as so many networks.
const POINT_NETWORKS: u32 = 25;
/// So many networks tell how what was measured was chosen.
const CHOICE_SAMPLE: usize = 10_000;
/// So far off may a row's own coordinates be, in kilometres: they are those of a city.
const POINT_WITHIN_KM: u16 = 50;

/// Fits an estimator for `sites` to `rows`.
pub fn learn(prior: &Prior, sites: &[RegionSite], rows: &[Row], atlas: &dyn Atlas) -> Estimator {
    let mut estimator = Estimator { prior: *prior, ..Estimator::unmeasured(sites) };
    estimator.kinship = Kinship::new(sites, prior.regions_common, prior.regions_km, prior.regions_own);
    estimator.trend = Trend::unmeasured(prior, sites.len());
    estimator.field = Field::new(prior, &estimator.kinship, &[]);
    let mut intake =
        Intake { prior: *prior, sites, atlas, counts: Counts::default(), told: Vec::new(), cells: Vec::new() };
    estimator.v4 = intake.prefixes(rows, Family::V4);
    estimator.v6 = intake.prefixes(rows, Family::V6);
    intake.points(rows);
    estimator.choice = intake.choice();
    let mut room = Room::default();
    intake.fit_places(&mut estimator, &mut room);
    intake.fit_groups(rows, &mut estimator, &mut room);
    estimator.known_cells = room.into_cells();
    intake.counts.rows = rows.len() - intake.counts.impossible;
    intake.counts.prefixes = estimator.v4.len() + estimator.v6.len();
    intake.counts.newest_s = rows.iter().map(|row| row.age_s).min().unwrap_or(0);
    estimator.counts = intake.counts;
    estimator
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// A network whose place is known, with its measurements.
struct Told {
    place: Place,
    asn: Option<u32>,
    /// In `Intake::cells`, up to here from where the one before ends.
    cells_end: usize,
    /// Of how many networks it tells as much.
    networks: u32,
    is_alone: bool,
    /// What was measured is true of its place: clients of resolvers that send client subnets may be anywhere.
    is_of_place: bool,
}

/// What was measured towards a region, and what the model says of a network there, in milliseconds.
#[derive(Clone, Copy)]
struct Seen {
    cell: Cell,
    model_ms: f32,
}

/// The same in the making.
struct Path {
    region: RegionId,
    model_ms: f32,
    series: Series,
}

struct Intake<'i> {
    prior: Prior,
    sites: &'i [RegionSite],
    atlas: &'i dyn Atlas,
    counts: Counts,
    told: Vec<Told>,
    cells: Vec<Seen>,
}

impl Intake<'_> {
    /// The measured prefixes of a family; those whose place is known are noted in `told`.
    fn prefixes(&mut self, rows: &[Row], family: Family) -> PrefixTable {
        let prefix_of = |row: &Row| if let Network::Prefix(net) = row.network { Some(canonical(net)) } else { None };
        let mut mine: Vec<(u128, u8, u32)> = Vec::new(); // first address, length in bits, row
        for (index, row) in rows.iter().enumerate() {
            if let Some((net, (first, _), _)) = prefix_of(row).filter(|(_, _, found)| *found == family) {
                mine.push((first, net.prefix_len(), index as u32));
            }
        }
        // The wider first; rows of one prefix stay in file order, which is the order of their time.
        mine.sort_unstable();
        let mut table = PrefixTable::default();
        let mut paths: Vec<Path> = Vec::new();
        for group in mine.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let members = group.iter().map(|(_, _, index)| &rows[*index as usize]);
            let Some((net, (first, last), _)) = members.clone().next().and_then(prefix_of) else { continue };
            let (place, asn) = self.atlas.whereabouts(net);
            self.merge(members.clone(), place.as_ref(), &mut paths);
            if paths.is_empty() {
                continue;
            }
            let start = self.cells.len();
            self.cells.extend(paths.iter().map(seen));
            table.push(first, last, self.cells[start..].iter().map(|seen| seen.cell));
            match place.filter(|place| place.coordinates.is_some()) {
                Some(place) => {
                    let is_alone = members.clone().all(|row| row.is_alone);
                    if !is_alone && members.clone().any(|row| row.is_alone) {
                        // What speaks for the network alone counts for it, in the table, and not for what is around it.
                        let counts = self.counts;
                        self.merge(members.filter(|row| !row.is_alone), Some(&place), &mut paths);
                        self.counts = counts;
                        self.cells.truncate(start);
                        self.cells.extend(paths.iter().map(seen));
                    }
                    let cells_end = self.cells.len();
                    self.told.push(Told { place, asn, cells_end, networks: 1, is_alone, is_of_place: !is_alone });
                }
                None => self.cells.truncate(start),
            }
        }
        table
    }

    /// Rows for places: they tell of their surroundings as many networks there would.
    fn points(&mut self, rows: &[Row]) {
        let mut points: BTreeMap<(u32, u32), Vec<&Row>> = BTreeMap::new();
        for row in rows {
            if let Network::Point(at) = row.network {
                points.entry((at.latitude.to_bits(), at.longitude.to_bits())).or_default().push(row);
            }
        }
        let mut paths = Vec::new();
        for members in points.into_values() {
            let Network::Point(at) = members[0].network else { continue };
            let place = place_of_point(at);
            self.merge(members.into_iter(), Some(&place), &mut paths);
            if !paths.is_empty() {
                self.cells.extend(paths.iter().map(seen));
                self.told.push(Told {
                    place,
                    asn: None,
                    cells_end: self.cells.len(),
                    networks: POINT_NETWORKS,
                    is_alone: true,
                    is_of_place: true,
                });
            }
        }
    }

    /// The rows of one network by region, jumps told from jitter; what beats light is left out.
    fn merge<'r>(&mut self, rows: impl Iterator<Item = &'r Row>, place: Option<&Place>, paths: &mut Vec<Path>) {
        paths.clear();
        let direction = place.and_then(|place| place.coordinates).map(Direction::of);
        let slack_km = place.map_or(0.0, |place| f64::from(place.within_km));
        for row in rows {
            let distance_km = direction.map(|from| from.distance_km(self.sites[row.region.index()].direction()));
            let (model_ms, least_ms) = distance_km
                .map_or((0.0, 0.0), |km| (model::rtt_ms(km), model::fibre_floor_ms((km - slack_km).max(0.0))));
            if row.rtt_ms < least_ms {
                self.counts.impossible += 1;
                continue;
            }
            let age_s = u32::try_from(row.age_s).unwrap_or(u32::MAX);
            let level = Level { ms: row.rtt_ms, weight: weight_of(row), lines: 1, samples: row.samples, age_s };
            match paths.iter_mut().find(|path| path.region == row.region) {
                Some(path) => self.counts.jumps += usize::from(path.series.push(level)),
                None => paths.push(Path { region: row.region, model_ms, series: Series::new(level) }),
            }
        }
    }

    /// How networks' regions were chosen: of a sample, if there are many.
    fn choice(&self) -> Choice {
        let mut seen = vec![false; self.sites.len()];
        self.cells.iter().for_each(|one| seen[one.cell.region.index()] = true);
        let ends = || self.told.iter().map(|told| told.cells_end);
        let most = ends().zip(std::iter::once(0).chain(ends())).map(|(end, start)| end - start).max().unwrap_or(0);
        let mut choice = Choice::among(seen, most);
        let mut far = vec![0.0; self.sites.len()];
        let mut is_measured = vec![false; self.sites.len()];
        for n in (0..self.told.len()).step_by(self.told.len().div_ceil(CHOICE_SAMPLE).max(1)) {
            let (told, start) = (&self.told[n], n.checked_sub(1).map_or(0, |before| self.told[before].cells_end));
            let Some(at) = told.place.coordinates.filter(|_| told.networks == 1).map(Direction::of) else { continue };
            is_measured.fill(false);
            self.cells[start..told.cells_end].iter().for_each(|one| is_measured[one.cell.region.index()] = true);
            far.iter_mut().zip(self.sites).for_each(|(far, site)| *far = at.chord_squared(site.direction()));
            if let Some(share) = passed_over(&far, |region| choice.is_open(region), |region| is_measured[region]) {
                choice.add(share);
            }
        }
        choice
    }

    /// Trend and field, from the networks gathered by cells of the globe.
    fn fit_places(&mut self, estimator: &mut Estimator, room: &mut Room) {
        let mut by_cell: HashMap<u32, Gathered> = HashMap::new();
        let mut start = 0;
        for told in &self.told {
            let cells = &self.cells[start..told.cells_end];
            start = told.cells_end;
            let Some(coordinates) = told.place.coordinates.filter(|_| told.is_of_place) else { continue };
            let number = degree_cell(coordinates);
            let blank = || Gathered::new(Direction::of(coordinates), Start::of_cell(number));
            let cell = by_cell.entry(number).or_insert_with(blank);
            cell.networks += told.networks;
            let local_var = self.prior.local_var / told.networks as f32;
            for seen in cells {
                let detour = estimator.detour(&cell.start, seen.cell.region.index());
                cell.add(&self.prior, local_var, &seen.cell, seen.model_ms, detour);
            }
        }
        self.counts.cells = by_cell.len();
        let prior = &self.prior;
        let mut gathered: Vec<(u32, Gathered)> = by_cell.into_iter().collect();
        gathered.sort_unstable_by_key(|(cell, _)| *cell);
        let points = gathered.iter().flat_map(|(_, gathered)| gathered.points(prior));
        estimator.trend = Trend::fit(prior, self.sites.len(), points);
        let trend = &estimator.trend;
        let places: Vec<Site> = gathered.iter().map(|(_, gathered)| gathered.site(prior, trend)).collect();
        estimator.field = Field::new(prior, &estimator.kinship, &places);
        // Groups and maps ask for each of these. In the order of the cells most of what one needs is at hand from the one before.
        gathered.iter().for_each(|(cell, _)| _ = estimator.field_at(centre_of_cell(*cell), room));
    }

    /// Continents, countries, then systems: each on what the wider ones leave.
    fn fit_groups(&self, rows: &[Row], estimator: &mut Estimator, room: &mut Room) {
        let mut continents: HashMap<Continent, Group> = HashMap::new();
        let mut countries: HashMap<CountryCode, Group> = HashMap::new();
        let mut systems: HashMap<(u32, Option<CountryCode>), Group> = HashMap::new();
        for row in rows {
            if let Network::Continent(continent) = row.network {
                let places: Vec<Place> = countries_of(continent).collect();
                continents.entry(continent).or_default().add_row(self, estimator, row, &places, room);
            }
        }
        estimator.continents = self.shifts(continents, &estimator.kinship, self.prior.country_var);
        for row in rows {
            if let Network::Country(code) = row.network {
                let places: Vec<Place> = place_of_country(code).into_iter().collect();
                countries.entry(code).or_default().add_row(self, estimator, row, &places, room);
            }
        }
        let countries_told = |told: &Told| told.place.country.is_some();
        self.each_residual(estimator, countries_told, room, |told, cell, residual, var| {
            if let Some(country) = told.place.country {
                countries.entry(country).or_default().add(cell.region, residual, var, cell.samples, cell.age_s);
            }
        });
        estimator.countries = self.shifts(countries, &estimator.kinship, self.prior.country_var);
        for row in rows {
            if let Network::Asn(asn) = row.network {
                let places = self.atlas.places_of_system(asn);
                systems.entry((asn, None)).or_default().add_row(self, estimator, row, &places, room);
            }
        }
        // What is said of a whole system is no news from its networks.
        estimator.systems = self.shifts(std::mem::take(&mut systems), &estimator.kinship, self.prior.asn_var);
        let systems_told = |told: &Told| told.asn.is_some();
        self.each_residual(estimator, systems_told, room, |told, cell, residual, var| {
            if let Some(asn) = told.asn {
                let group = systems.entry((asn, told.place.country)).or_default();
                group.add(cell.region, residual, var, cell.samples, cell.age_s);
            }
        });
        estimator.systems.extend(self.shifts(systems, &estimator.kinship, self.prior.asn_var));
        estimator.known_systems = estimator.systems.keys().map(|(asn, _)| *asn).collect();
    }

    /// What each measurement of a network that speaks for others, and is one of those that are wanted, shows beyond what the estimator
    /// knows of its place and country.
    fn each_residual(
        &self,
        estimator: &Estimator,
        is_wanted: impl Fn(&Told) -> bool,
        room: &mut Room,
        mut each: impl FnMut(&Told, &Cell, f32, f32),
    ) {
        let mut start = 0;
        for told in &self.told {
            let cells = &self.cells[start..told.cells_end];
            start = told.cells_end;
            let Some(coordinates) = told.place.coordinates.filter(|_| !told.is_alone && is_wanted(told)) else {
                continue;
            };
            let surroundings = Surroundings::new(estimator, coordinates, &told.place, told.asn, room);
            for Seen { cell, model_ms } in cells {
                let (residual, noise_var) = self.residual(&surroundings, cell.region, cell.rtt_ms, *model_ms);
                each(told, cell, residual, self.prior.local_var + noise_var / cell.weight.max(1e-6));
            }
        }
    }

    /// How far a round trip is off what the estimator expects of the place, and the variance of a single measurement.
    fn residual(&self, surroundings: &Surroundings, region: RegionId, rtt_ms: f32, model_ms: f32) -> (f32, f32) {
        let spread_ms = self.prior.spread_ms(model_ms);
        let error = ((rtt_ms - model_ms) / spread_ms).clamp(ERROR_RANGE.0, ERROR_RANGE.1);
        let noise_var = self.prior.noise_var_ms2(rtt_ms, 1.0) / (spread_ms * spread_ms);
        (error - surroundings.expected_error(region.index(), model_ms), noise_var)
    }

    /// What each group has by itself: what was observed, shrunk by the variance that groups have among each other.
    fn shifts<K: std::hash::Hash + Eq>(
        &self,
        groups: HashMap<K, Group>,
        kinship: &Kinship,
        var: f32,
    ) -> HashMap<K, Shift> {
        let mut work = Workspace::default();
        let fit = |(key, group): (K, Group)| {
            let mut belief = Belief::blank(kinship.regions(), var);
            let mut samples = vec![0; kinship.regions()];
            let mut observed: Vec<Observed> = Vec::with_capacity(group.sums.len());
            for (region, sums) in &group.sums {
                let region = usize::from(*region);
                samples[region] = sums.samples;
                observed.push(Observed { region, error: sums.error / sums.weight, noise_var: 1.0 / sums.weight });
            }
            observed.sort_by(|a, b| a.noise_var.total_cmp(&b.noise_var));
            belief.loosen(&observed, self.prior.freedom);
            belief.take_in(kinship, &observed, &mut work);
            let age_s = group.age_s.unwrap_or(0);
            (key, Shift { belief, samples, age_s })
        };
        groups.into_iter().map(fit).collect()
    }
}

/// How many samples a row is worth: fewer the older it is.
pub fn weight_of(row: &Row) -> f32 {
    row.samples as f32 * (-(row.age_s as f32) / HALF_LIFE_S).exp2()
}

fn seen(path: &Path) -> Seen {
    let Level { ms, weight, samples, age_s, .. } = path.series.level;
    let cell = Cell { region: path.region, rtt_ms: ms, weight, samples, age_s };
    Seen { cell, model_ms: path.model_ms }
}

/// A prefix as its clients are located: IPv4 that is embedded in IPv6 counts as IPv4.
fn canonical(net: IpNet) -> (IpNet, (u128, u128), Family) {
    let as_v4 = |net: ipnet::Ipv4Net| {
        let bounds = (u128::from(net.network().to_bits()), u128::from(net.broadcast().to_bits()));
        (IpNet::V4(net), bounds, Family::V4)
    };
    match net {
        IpNet::V4(net) => as_v4(net),
        IpNet::V6(v6) => {
            let embedded = embedded_v4(v6.network()).and_then(|embedded| {
                // A prefix that embeds all of IPv4 says nothing of any network there.
                let len = v6.prefix_len().checked_sub(embedded.offset_bits).filter(|len| *len > 0)?;
                ipnet::Ipv4Net::new(embedded.v4, len.min(32)).ok()
            });
            let bounds = (v6.network().to_bits(), v6.broadcast().to_bits());
            embedded.map_or((net, bounds, Family::V6), |net| as_v4(net.trunc()))
        }
    }
}

/// The place that a row names by itself.
pub(super) fn place_of_point(at: Coordinates) -> Place {
    Place { coordinates: Some(at), within_km: POINT_WITHIN_KM, ..Place::default() }
}

fn place_of_country(code: CountryCode) -> Option<Place> {
    let found = country::find(code)?;
    let within_km = country::within_km(code);
    Some(Place { country: Some(code), continent: Some(found.continent), coordinates: Some(found.centre), within_km })
}

fn countries_of(continent: Continent) -> impl Iterator<Item = Place> {
    let letters = || b'A'..=b'Z';
    let codes = letters().flat_map(move |a| letters().map(move |b| CountryCode([a, b])));
    codes.filter_map(place_of_country).filter(move |place| place.continent == Some(continent))
}

/// What is known of a group of networks towards each region.
#[derive(Default)]
struct Group {
    sums: BTreeMap<u8, GroupSums>,
    age_s: Option<u32>,
}

#[derive(Default)]
struct GroupSums {
    weight: f32,
    error: f32,
    samples: u32,
}

impl Group {
    fn add(&mut self, region: RegionId, residual: f32, var: f32, samples: u32, age_s: u32) {
        let sums = self.sums.entry(region.0).or_default();
        sums.weight += 1.0 / var;
        sums.error += residual / var;
        sums.samples = sums.samples.saturating_add(samples);
        self.age_s = Some(self.age_s.map_or(age_s, |known| known.min(age_s)));
    }

    /// A row for the whole group, against what is expected for its places on the average.
    fn add_row(&mut self, intake: &Intake, estimator: &Estimator, row: &Row, places: &[Place], room: &mut Room) {
        let residuals = places.iter().filter_map(|place| {
            let coordinates = place.coordinates?;
            let site = intake.sites[row.region.index()];
            let model_ms = model::rtt_ms(Direction::of(coordinates).distance_km(site.direction()));
            let surroundings = Surroundings::new(estimator, coordinates, place, None, room);
            Some(intake.residual(&surroundings, row.region, row.rtt_ms, model_ms))
        });
        let (sum, noise, n) =
            residuals.fold((0.0, 0.0, 0.0), |(sum, noise, n), (r, v)| (sum + r, noise + v, n + 1.0f32));
        if n > 0.0 {
            let var = GROUP_VAR + noise / n / weight_of(row).max(1e-6);
            self.add(row.region, sum / n, var, row.samples, u32::try_from(row.age_s).unwrap_or(u32::MAX));
        }
    }
}
