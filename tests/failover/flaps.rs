//! A region that is well and unwell in turns, with every period at once: each has an address of the region and a name of the zone.
//! After that it stays well, and what was held down is to come back.

use std::{
    net::Ipv4Addr,
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    asker::EVERY,
    report::Seen,
    site::{Site, Times},
    steps::{ALLOWANCE, Outcome},
    strange::{Behaviour, Strange},
};

/// With many periods and several other servers, the clients together would keep a core busy: those of the others ask less often.
const RIVAL_EVERY: Duration = Duration::from_millis(100);
/// So many hold-downs in a row are over before the region has been well for long enough to end the scenario.
const HOLDS_OVER: usize = 2;

/// What flaps, and when that is too much.
pub struct Flaps<'f> {
    pub times: &'f Times,
    pub periods_s: &'f [u32],
    /// How long it flaps, and how long it is well after that.
    pub flapping: Duration,
    pub well: Duration,
    /// Keys of the check, and what they say: changes that are ordinary within the window.
    pub keys: &'f str,
    pub changes_max: usize,
    pub window: Duration,
}

fn address(period_s: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, 64, 0, period_s as u8)
}

/// Half of each period the address answers 503, then 200 for the other half.
fn is_unwell(period_s: u32, since: Duration) -> bool {
    (since.as_millis() / (u128::from(period_s) * 500)).is_multiple_of(2)
}

/// Plays it for all periods.
pub fn flapping(flaps: &Flaps, rivals: &[(&str, &str)]) -> Vec<Outcome> {
    let (mut site, begun) = prepare(flaps);
    let names: Vec<String> = flaps.periods_s.iter().map(|period| format!("p{period}")).collect();
    for name in &names {
        site.ask("isochrone", site.dns(), &format!("{name}.geo.example"), EVERY);
    }
    for (label, service) in rivals {
        let resources: Vec<(&str, String, String)> = names
            .iter()
            .zip(flaps.periods_s)
            .map(|(name, period)| (name.as_str(), address(*period).to_string(), site.regions[1].address.to_string()))
            .collect();
        let server = site.launch_rival(service, &resources);
        for name in &names {
            site.ask(label, server, &format!("{name}.geo.example"), RIVAL_EVERY);
        }
    }

    let at = *begun.get_or_init(Instant::now);
    thread::sleep(flaps.flapping);
    let flapped = site.status();
    thread::sleep(flaps.well);
    let ended = site.status();
    let seen = site.seen();
    let mut outcomes: Vec<Outcome> = seen
        .into_iter()
        .zip(flaps.periods_s.iter().cycle())
        .map(|(seen, &period)| judge(seen, flaps, period, at, [&flapped, &ended].map(|status| status.as_ref())))
        .collect();
    if outcomes.iter().all(|outcome| outcome.held != Some(true)) {
        outcomes[0].complaints.push("nothing was held down, whatever its period".into());
    }
    outcomes
}

/// A site on which isochrone runs; the flapping begins with the moment that is to be set.
fn prepare(flaps: &Flaps) -> (Site, Arc<OnceLock<Instant>>) {
    let mut site = Site::new(2);
    site.regions[0].namespace.ip("route add local 10.64.0.0/16 dev lo");
    site.home.ip("route add 10.64.0.0/16 via 10.0.1.2");
    site.regions[0].aliases = flaps.periods_s.iter().map(|&period| address(period).octets().to_vec()).collect();
    let begun: Arc<OnceLock<Instant>> = Arc::default();
    let (clock, length) = (begun.clone(), flaps.flapping);
    site.regions[0].strange = Some(Strange::start(&site.regions[0].namespace, move |to| {
        let [10, 64, 0, period] = to.octets() else { return Behaviour::Well };
        let since = clock.get().map(Instant::elapsed).filter(|since| *since < length);
        let unwell = since.is_some_and(|since| is_unwell(u32::from(period), since));
        if unwell { Behaviour::Status(503) } else { Behaviour::Well }
    }));
    site.serve_strangely(1);

    let check = format!("type = \"http\"\npath = \"/health\"\n{}", flaps.keys);
    let mut config = site.config(&check, flaps.times);
    for period in flaps.periods_s {
        config += &format!(
            "[zones.\"geo.example\".routes.p{period}]\npolicy = \"failover\"\n\
             endpoints = {{ a = [\"{}\"], b = [\"{}\"] }}\n",
            address(*period),
            site.regions[1].address
        );
    }
    site.launch(&config, &[]);
    (site, begun)
}

/// What the server said of an endpoint: its state, and how many hold-downs of it began and ended.
struct Told {
    state: String,
    held: usize,
    released: usize,
}

impl Told {
    fn of(status: &Value, period_s: u32) -> Option<Told> {
        let regions = status["regions"].as_array()?.iter();
        let mut endpoints = regions.flat_map(|region| region["endpoints"].as_array().into_iter().flatten());
        let endpoint = endpoints.find(|endpoint| endpoint["endpoint"] == address(period_s).to_string())?;
        let history = endpoint["history"].as_array()?;
        let is_held = |change: &Value, side: &str| change[side] == "held";
        Some(Told {
            state: endpoint["state"].as_str()?.to_owned(),
            held: history.iter().filter(|change| is_held(change, "to") && !is_held(change, "from")).count(),
            released: history.iter().filter(|change| is_held(change, "from") && !is_held(change, "to")).count(),
        })
    }
}

/// No answer may point to an address that has been unwell for longer than the contract gives. Answers may change no more often
/// than the check allows; what changes more often is held down, and comes back once it has kept still.
fn judge(seen: Seen, flaps: &Flaps, period_s: u32, begun: Instant, told: [Option<&Value>; 2]) -> Outcome {
    let (from, half) = (seen.at(begun), Duration::from_millis(u64::from(period_s) * 500));
    let flapped = from + flaps.flapping;
    let mut wrong = 0;
    // Time in which the address was well, and answers did without it.
    let mut away = Duration::ZERO;
    let mut unwell = from;
    while unwell < flapped {
        let latest = unwell + flaps.times.refused_max + ALLOWANCE;
        let latest = latest + 2 * seen.stalled(unwell, latest);
        if latest < unwell + half {
            wrong += seen.answered_with(latest, (unwell + half).min(flapped), 0);
        }
        away += seen.away_from(0, unwell + half, (unwell + 2 * half).min(flapped));
        unwell += 2 * half;
    }
    let mut complaints = seen.complaints_of_waiting();
    if wrong > 0 {
        complaints.push(format!("{wrong} answers pointed to an address that had long failed"));
    }
    let [at_end_of_flapping, at_end] = told.map(|status| status.and_then(|status| Told::of(status, period_s)));
    let mut held = None;
    match (seen.server.as_str(), at_end_of_flapping, at_end) {
        ("isochrone", Some(flapping), Some(end)) => {
            held = Some(flapping.held > 0);
            complaints.extend(complaints_of_damping(&seen, flaps, flapped, &flapping, &end));
        }
        ("isochrone", ..) => complaints.push("the server did not say how the endpoint stood".into()),
        _ => complaints.clear(),
    }
    let steps = vec![(from, "flapping"), (flapped, "well")];
    let scenario = format!("flapping, period {period_s} s");
    let times = flaps.times.label;
    Outcome { steps, wrong, complaints, held, away: Some(away), ..Outcome::new(scenario, times, seen) }
}

fn complaints_of_damping(seen: &Seen, flaps: &Flaps, flapped: Duration, flapping: &Told, end: &Told) -> Vec<String> {
    let mut complaints = vec![];
    let changes: Vec<Duration> = seen.segments.iter().skip(1).map(|segment| segment.from).collect();
    let within =
        |window: Duration, from: Duration| changes.iter().filter(|at| **at >= from && **at < from + window).count();
    let most = changes.iter().map(|from| within(flaps.window, *from)).max().unwrap_or(0);
    // Each hold-down that ends lets the address back in, and perhaps out again.
    let allowed = flaps.changes_max + 1 + 2 * end.released;
    if most > allowed {
        complaints.push(format!("answers changed {most} times within {:?}, more than {allowed}", flaps.window));
    }
    let early: Vec<Duration> = changes.iter().copied().filter(|at| *at < flapped).collect();
    let of_window = |from: &Duration| early.iter().filter(|at| *at >= from && **at < *from + flaps.window).count();
    let most_flapping = early.iter().map(of_window).max().unwrap_or(0);
    if most_flapping > flaps.changes_max && flapping.held == 0 {
        complaints.push(format!("it changed {most_flapping} times within {:?} and was not held down", flaps.window));
    }
    if flapping.state == "held" && flapping.held == 0 {
        complaints.push("it is held down, and its history does not say so".into());
    }
    let last = seen.segments.last().and_then(|segment| segment.region);
    if end.held <= HOLDS_OVER && (end.state != "up" || last != Some(0)) {
        complaints.push(format!("it was well for {:?} and did not come back: it is {}", flaps.well, end.state));
    }
    complaints
}

impl Seen {
    /// How long between two moments answers were without that region.
    fn away_from(&self, region: usize, from: Duration, to: Duration) -> Duration {
        let away = self.segments.iter().filter(|segment| segment.region != Some(region));
        away.map(|segment| segment.to.min(to).saturating_sub(segment.from.max(from))).sum()
    }
}
