//! A region that is well and unwell in turns, with every period at once: each has an address of the region and a name of the zone.

use std::{
    net::Ipv4Addr,
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};

use crate::{
    asker::EVERY,
    report::Seen,
    site::{Site, Times},
    steps::{ALLOWANCE, Outcome},
    strange::{Behaviour, Strange},
};

/// With many periods and other servers beside, the clients together would keep a core busy: each asks less often.
const MANY_EVERY: Duration = Duration::from_millis(100);

fn address(period_s: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, 64, 0, period_s as u8)
}

/// Half of each period the address answers 503, then 200 for the other half.
fn is_unwell(period_s: u32, since: Duration) -> bool {
    (since.as_millis() / (u128::from(period_s) * 500)).is_multiple_of(2)
}

/// All `periods_s` for so long.
pub fn flapping(times: &Times, periods_s: &[u32], length: Duration, rivals: &[(&str, &str)]) -> Vec<Outcome> {
    let mut site = Site::new(2);
    site.regions[0].namespace.ip("route add local 10.64.0.0/16 dev lo");
    site.home.ip("route add 10.64.0.0/16 via 10.0.1.2");
    site.regions[0].aliases = periods_s.iter().map(|&period| address(period).octets().to_vec()).collect();
    let begun: Arc<OnceLock<Instant>> = Arc::default();
    let clock = begun.clone();
    site.regions[0].strange = Some(Strange::start(&site.regions[0].namespace, move |to| {
        let [10, 64, 0, period] = to.octets() else { return Behaviour::Well };
        let unwell = clock.get().is_some_and(|begun| is_unwell(u32::from(period), begun.elapsed()));
        if unwell { Behaviour::Status(503) } else { Behaviour::Well }
    }));
    site.serve_strangely(1);

    let mut config = site.config("type = \"http\"\npath = \"/health\"", times);
    for period in periods_s {
        config += &format!(
            "[zones.\"geo.example\".routes.p{period}]\npolicy = \"failover\"\n\
             endpoints = {{ a = [\"{}\"], b = [\"{}\"] }}\n",
            address(*period),
            site.regions[1].address
        );
    }
    site.launch(&config, &[]);
    let every = if rivals.is_empty() { EVERY } else { MANY_EVERY };
    let names: Vec<String> = periods_s.iter().map(|period| format!("p{period}")).collect();
    for name in &names {
        site.ask("isochrone", site.dns(), &format!("{name}.geo.example"), every);
    }
    for (label, service) in rivals {
        let resources: Vec<(&str, String, String)> = names
            .iter()
            .zip(periods_s)
            .map(|(name, period)| (name.as_str(), address(*period).to_string(), site.regions[1].address.to_string()))
            .collect();
        let server = site.launch_rival(service, &resources);
        for name in &names {
            site.ask(label, server, &format!("{name}.geo.example"), every);
        }
    }

    let at = *begun.get_or_init(Instant::now);
    thread::sleep(length);
    let seen = site.seen();
    seen.into_iter().zip(periods_s.iter().cycle()).map(|(seen, &period)| judge(seen, times, period, at)).collect()
}

/// No answer may point to an address that has been unwell for longer than the contract gives. How soon it may come back is a matter
/// of holding down what flaps, so that staying away from an address that is well is no error here; it is counted.
fn judge(seen: Seen, times: &Times, period_s: u32, begun: Instant) -> Outcome {
    let (from, half) = (seen.at(begun), Duration::from_millis(u64::from(period_s) * 500));
    let end = seen.segments.last().map_or(from, |last| last.to);
    let (mut wrong, mut complaints) = (0, vec![]);
    let mut unwell = from;
    while unwell < end {
        let latest = unwell + times.refused_max + ALLOWANCE;
        let latest = latest + 2 * seen.stalled(unwell, latest);
        if latest < unwell + half {
            wrong += seen.answered_with(latest, unwell + half, 0);
        }
        unwell += 2 * half;
    }
    if seen.lost > 0 {
        complaints.push(format!("{} of {} questions got no answer", seen.lost, seen.asked));
    }
    if wrong > 0 {
        complaints.push(format!("{wrong} answers pointed to an address that had long failed"));
    }
    if seen.server != "isochrone" {
        complaints.clear();
    }
    let steps = vec![(from, "flapping")];
    let (moves, followed) = (vec![], vec![]);
    let scenario = format!("flapping, period {period_s} s");
    Outcome { scenario, times: times.label, seen, steps, moves, followed, wrong, complaints }
}
