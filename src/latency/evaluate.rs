//! How good the estimates are: networks are held out in turn, regions chosen for them by what the others tell, and the choices
//! judged by what was measured. Beside it what distance alone, and a map of continents, would have chosen.

use std::collections::{BTreeMap, HashSet};

use ipnet::IpNet;

use super::{
    Estimator,
    estimate::{Direction, RegionSite},
    estimator::{Client, Room},
    intake::{Atlas, learn, place_of_point},
    measurement::{Network, Row},
    model,
    prior::Prior,
};
use crate::geo::{Continent, Coordinates, CountryCode, Place, country};

/// What chooses a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The estimator, which has not seen the network itself.
    Estimates,
    /// The estimator, after the two regions that it ranked first were measured for the network.
    TwoMeasured,
    /// The same with three.
    ThreeMeasured,
    /// The least great-circle distance.
    Distance,
    /// The first region of the file on the client's continent, or else the first of all.
    ContinentMap,
}

impl Method {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Method; 5] =
        [Method::Estimates, Method::TwoMeasured, Method::ThreeMeasured, Method::Distance, Method::ContinentMap];

    /// The word for JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Estimates => "estimates",
            Method::TwoMeasured => "two-measured",
            Method::ThreeMeasured => "three-measured",
            Method::Distance => "distance",
            Method::ContinentMap => "continent-map",
        }
    }
}

/// How good the choices of one method are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// The method.
    pub method: Method,
    /// Networks that it chose for.
    pub networks: usize,
    /// Share of networks for which the truly lowest region was chosen.
    pub right: f64,
    /// Share for which the chosen one is at most 5 ms or a tenth above the lowest.
    pub near: f64,
    /// Mean of the milliseconds by which the chosen one is above the lowest.
    pub regret_mean_ms: f64,
    /// 95th percentile of the same.
    pub regret_p95_ms: f64,
    /// Share of networks that lose more than 20 ms.
    pub over_20_ms: f64,
}

/// What was held out, judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Networks with measurements towards two regions or more, whose place is known.
    pub networks: usize,
    /// Networks that could not be judged: of unknown place, or measured to one region alone.
    pub left_out: usize,
    /// Into how many parts the networks were dealt; each was judged by what the others tell.
    pub folds: usize,
    /// By method; those that chose for no network are missing.
    pub scores: Vec<Score>,
    /// Every held-out round trip: what the estimator expected, and what was measured, in milliseconds.
    pub points: Vec<(f32, f32)>,
}

impl Evaluation {
    /// Mean absolute error of the held-out estimates in milliseconds.
    pub fn error_mean_ms(&self) -> f64 {
        let sum: f64 = self.points.iter().map(|(expected, measured)| f64::from((expected - measured).abs())).sum();
        sum / self.points.len().max(1) as f64
    }

    /// Median absolute error of the held-out estimates in milliseconds.
    pub fn error_median_ms(&self) -> f64 {
        let mut errors: Vec<f32> = self.points.iter().map(|(expected, measured)| (expected - measured).abs()).collect();
        errors.sort_by(f32::total_cmp);
        errors.get(errors.len() / 2).copied().map_or(0.0, f64::from)
    }

    /// The score of one method.
    pub fn score(&self, method: Method) -> Option<&Score> {
        self.scores.iter().find(|score| score.method == method)
    }
}

/// What is judged.
pub struct Trial<'t> {
    /// The scales of the estimator.
    pub prior: &'t Prior,
    /// The regions, in file order.
    pub sites: &'t [RegionSite],
    /// Where the regions are.
    pub coordinates: &'t [Coordinates],
    /// Where networks are.
    pub atlas: &'t dyn Atlas,
    /// What is known besides. Rows of networks that are judged are left out.
    pub known: &'t [Row],
    /// The measurements to judge by.
    pub rows: &'t [Row],
}

/// A network that is judged.
struct Judged<'t> {
    place: Place,
    asn: Option<u32>,
    prefix: Option<IpNet>,
    fold: usize,
    /// The milliseconds that were measured, by region; infinite where nothing was.
    truth_ms: Vec<f32>,
    rows: Vec<&'t Row>,
}

/// Judges in `folds` parts, at least 2.
pub fn evaluate(trial: &Trial, folds: usize) -> Evaluation {
    let (judged, others, left_out) = sort_out(trial, folds);
    let continents: Vec<Option<Continent>> = trial.coordinates.iter().map(|at| continent_near(*at)).collect();
    let mut losses: Vec<(Method, Vec<Loss>)> = Method::ALL.map(|method| (method, Vec::new())).into();
    let mut points = Vec::new();
    for fold in 0..folds {
        let (held, kept): (Vec<&Judged>, Vec<&Judged>) = judged.iter().partition(|network| network.fold == fold);
        if held.is_empty() {
            continue;
        }
        let mut rows: Vec<Row> = others.clone();
        rows.extend(kept.iter().flat_map(|network| network.rows.iter().map(|row| **row)));
        let learnt = learn(trial.prior, trial.sites, &rows, trial.atlas);
        let mut room = Room::default();
        let orders: Vec<Vec<usize>> = held
            .iter()
            .map(|network| {
                let ms = estimates(&learnt, network, None, &mut room);
                points.extend(network.measured().map(|region| (ms[region], network.truth_ms[region])));
                network.ranked(&ms)
            })
            .collect();
        let by_measuring = |count: usize| chosen_after_measuring(trial, &rows, &held, &orders, count);
        let (two, three) = (by_measuring(2), by_measuring(3));
        for (n, network) in held.iter().enumerate() {
            for (method, losses) in &mut losses {
                let chosen = match method {
                    Method::Estimates => Some(orders[n][0]),
                    Method::TwoMeasured => two[n],
                    Method::ThreeMeasured => three[n],
                    Method::Distance => Some(network.nearest(trial.sites)),
                    Method::ContinentMap => Some(network.on_continent(&continents)),
                };
                losses.extend(chosen.map(|region| network.loss(region)));
            }
        }
    }
    let chosen_for = losses.into_iter().filter(|(_, losses)| !losses.is_empty());
    let scores = chosen_for.map(|(method, losses)| score(method, &losses)).collect();
    Evaluation { networks: judged.len(), left_out, folds, scores, points }
}

/// By how much a choice is above the lowest round trip, and that one.
#[derive(Debug, Clone, Copy)]
struct Loss {
    regret_ms: f32,
    lowest_ms: f32,
}

/// The networks to judge, the rows of all others, and how many networks could not be judged.
fn sort_out<'t>(trial: &Trial<'t>, folds: usize) -> (Vec<Judged<'t>>, Vec<Row>, usize) {
    let mut networks: BTreeMap<Key, Vec<&Row>> = BTreeMap::new();
    let mut others = Vec::new();
    for row in trial.rows {
        match key(&row.network) {
            Some(key) => networks.entry(key).or_default().push(row),
            None => others.push(*row),
        }
    }
    let told: HashSet<Key> = networks.keys().copied().collect();
    others.extend(trial.known.iter().filter(|row| key(&row.network).is_none_or(|key| !told.contains(&key))));
    let (mut judged, mut left_out) = (Vec::new(), 0);
    for (key, rows) in networks {
        match judge_by(trial, &rows, fold_of(key, folds)) {
            Some(network) => judged.push(network),
            None => {
                left_out += 1;
                others.extend(rows.into_iter().copied());
            }
        }
    }
    (judged, others, left_out)
}

/// The rows of some networks, of each network all or none: about `rows_max` of them, always the same. Rows for groups stay.
pub fn sample(rows: &[Row], rows_max: usize) -> Vec<Row> {
    let every = rows.len().div_ceil(rows_max.max(1)).max(1);
    // By other bits than those that deal the folds, or all would be dealt into one.
    let is_taken = |key: Key| (mixed(key) >> 32).is_multiple_of(every as u64);
    rows.iter().filter(|row| key(&row.network).is_none_or(is_taken)).copied().collect()
}

/// A network that can be told from others by more than a group's name.
type Key = (u8, u128, u8);

fn key(network: &Network) -> Option<Key> {
    match network {
        Network::Prefix(IpNet::V4(net)) => Some((4, u128::from(net.network().to_bits()), net.prefix_len())),
        Network::Prefix(IpNet::V6(net)) => Some((6, net.network().to_bits(), net.prefix_len())),
        Network::Point(at) => {
            Some((0, u128::from(at.latitude.to_bits()) << 32 | u128::from(at.longitude.to_bits()), 0))
        }
        Network::Asn(_) | Network::Country(_) | Network::Continent(_) => None,
    }
}

/// Deals networks into parts, always in the same way.
fn fold_of(key: Key, folds: usize) -> usize {
    (mixed(key) % folds.max(1) as u64) as usize
}

/// SplitMix64's last steps.
fn mixed((kind, bits, len): Key) -> u64 {
    let mut x = (bits >> 64) as u64 ^ bits as u64 ^ u64::from(kind) << 56 ^ u64::from(len) << 48;
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

fn judge_by<'t>(trial: &Trial<'t>, rows: &[&'t Row], fold: usize) -> Option<Judged<'t>> {
    let (place, asn, prefix) = match rows[0].network {
        Network::Prefix(net) => {
            let (place, asn) = trial.atlas.whereabouts(net);
            (place?, asn, Some(net))
        }
        Network::Point(at) => (place_of_point(at), None, None),
        _ => return None,
    };
    let from = Direction::of(place.coordinates?);
    let mut sums = vec![(0.0, 0.0); trial.sites.len()];
    for row in rows {
        let km = from.distance_km(trial.sites[row.region.index()].direction());
        if row.rtt_ms >= model::fibre_floor_ms((km - f64::from(place.within_km)).max(0.0)) {
            let (sum, samples) = &mut sums[row.region.index()];
            *sum += row.rtt_ms * row.samples as f32;
            *samples += row.samples as f32;
        }
    }
    let truth_ms: Vec<f32> =
        sums.iter().map(|(sum, samples)| if *samples > 0.0 { sum / samples } else { f32::INFINITY }).collect();
    let is_telling = truth_ms.iter().filter(|ms| ms.is_finite()).count() >= 2;
    is_telling.then(|| Judged { place, asn, prefix, fold, truth_ms, rows: rows.to_vec() })
}

impl Judged<'_> {
    fn measured(&self) -> impl Iterator<Item = usize> {
        (0..self.truth_ms.len()).filter(|region| self.truth_ms[*region].is_finite())
    }

    fn lowest_ms(&self) -> f32 {
        self.truth_ms.iter().copied().fold(f32::INFINITY, f32::min)
    }

    fn loss(&self, region: usize) -> Loss {
        Loss { regret_ms: self.truth_ms[region] - self.lowest_ms(), lowest_ms: self.lowest_ms() }
    }

    /// The regions that were measured, the lowest of `ms` first.
    fn ranked(&self, ms: &[f32]) -> Vec<usize> {
        let mut order: Vec<usize> = self.measured().collect();
        order.sort_by(|a, b| ms[*a].total_cmp(&ms[*b]).then(a.cmp(b)));
        order
    }

    fn nearest(&self, sites: &[RegionSite]) -> usize {
        let km: Vec<f32> = self.place.coordinates.map_or_else(Vec::new, |at| {
            sites.iter().map(|site| Direction::of(at).distance_km(site.direction()) as f32).collect()
        });
        self.ranked(&km)[0]
    }

    fn on_continent(&self, continents: &[Option<Continent>]) -> usize {
        let own = self.place.continent.or_else(|| self.place.coordinates.and_then(continent_near));
        let is_on = |region: &usize| own.is_some() && continents[*region] == own;
        self.measured().find(is_on).or_else(|| self.measured().next()).unwrap_or(0)
    }
}

fn estimates(estimator: &Estimator, network: &Judged, prefix: Option<IpNet>, room: &mut Room) -> Vec<f32> {
    let found = prefix.and_then(|net| estimator.client(net.network(), network.asn).prefix);
    let mut ms = vec![0.0; network.truth_ms.len()];
    estimator.fill(&network.place, Client { asn: network.asn, prefix: found }, room, &mut ms);
    ms
}

/// What is chosen for each network once the first `count` regions of its order have been measured.
fn chosen_after_measuring(
    trial: &Trial,
    rows: &[Row],
    held: &[&Judged],
    orders: &[Vec<usize>],
    count: usize,
) -> Vec<Option<usize>> {
    let mut rows = rows.to_vec();
    for (network, order) in held.iter().zip(orders) {
        let first = &order[..count.min(order.len())];
        let is_first = |row: &&&Row| first.contains(&row.region.index());
        rows.extend(network.rows.iter().filter(is_first).map(|row| **row));
    }
    let learnt = learn(trial.prior, trial.sites, &rows, trial.atlas);
    let mut room = Room::default();
    let choose = |network: &&Judged| {
        let prefix = network.prefix?;
        Some(network.ranked(&estimates(&learnt, network, Some(prefix), &mut room))[0])
    };
    held.iter().map(choose).collect()
}

fn score(method: Method, losses: &[Loss]) -> Score {
    let n = losses.len() as f64;
    let share = |is_so: &dyn Fn(&Loss) -> bool| losses.iter().filter(|loss| is_so(loss)).count() as f64 / n;
    let mut regrets: Vec<f32> = losses.iter().map(|loss| loss.regret_ms).collect();
    regrets.sort_by(f32::total_cmp);
    let p95 = ((0.95 * n).ceil() as usize).clamp(1, regrets.len()) - 1;
    Score {
        method,
        networks: losses.len(),
        right: share(&|loss| loss.regret_ms <= 0.0),
        near: share(&|loss| loss.regret_ms <= f32::max(NEAR_MS, NEAR_SHARE * loss.lowest_ms)),
        regret_mean_ms: regrets.iter().map(|ms| f64::from(*ms)).sum::<f64>() / n,
        regret_p95_ms: f64::from(regrets[p95]),
        over_20_ms: share(&|loss| loss.regret_ms > 20.0),
    }
}

/// A choice is near enough by so many milliseconds,
const NEAR_MS: f32 = 5.0;
/// or by this share of the lowest round trip.
const NEAR_SHARE: f32 = 0.1;

/// The continent of the country whose centre is nearest.
fn continent_near(at: Coordinates) -> Option<Continent> {
    let letters = || b'A'..=b'Z';
    let codes = letters().flat_map(|a| letters().map(move |b| CountryCode([a, b])));
    let countries = codes.filter_map(country::find);
    let nearest = countries.min_by(|a, b| at.distance_km(a.centre).total_cmp(&at.distance_km(b.centre)))?;
    Some(nearest.continent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::RegionId;

    #[test]
    fn what_a_sample_takes_is_dealt_into_every_fold() {
        let row = |n: u32| Row {
            network: Network::Prefix(IpNet::V4(ipnet::Ipv4Net::new((n << 8).into(), 24).unwrap())),
            region: RegionId(0),
            rtt_ms: 20.0,
            samples: 1,
            age_s: 0,
            is_alone: false,
        };
        let rows: Vec<Row> = (0..4000).map(row).collect();
        for every in [1, 2, 3, 4, 8] {
            let few = sample(&rows, rows.len() / every);
            for folds in [2, 5] {
                let mut sizes = vec![0; folds];
                few.iter().filter_map(|row| key(&row.network)).for_each(|key| sizes[fold_of(key, folds)] += 1);
                let fair = few.len() / folds;
                assert!(few.len() > 300 && sizes.iter().all(|size| *size > fair / 2), "{every}: {sizes:?}");
            }
        }
    }
}
