//! What the server measures of endpoints, regions and itself, as Prometheus has it.

use std::collections::{BTreeMap, BTreeSet};

use super::View;
use crate::{
    admin::status::RegionStatus,
    config::model::RegionId,
    health::measured::{Histogram, Part},
    routing::force::Force,
    server::{
        confine::Confinement,
        endpoints::{self, Row},
        live::Live,
    },
    telemetry::metrics::Families,
};

pub(super) fn endpoint_metrics(view: &View, families: &mut Families) {
    let mut up = Vec::new();
    let mut held = Vec::new();
    let mut connect = Vec::new();
    let mut certificates = Vec::new();
    let mut probes: BTreeMap<(String, &str), u64> = BTreeMap::new();
    let regions: Vec<RegionStatus> =
        (0..view.world.config.regions.len()).map(|n| view.region(RegionId(n as u8))).collect();
    for region in &regions {
        for endpoint in &region.endpoints {
            let check = endpoint.check.clone().unwrap_or_default();
            let labels =
                [("region", region.name.clone()), ("endpoint", endpoint.endpoint.clone()), ("check", check.clone())];
            up.push((labels.clone(), f64::from(u8::from(endpoint.state == "up"))));
            held.push((labels.clone(), f64::from(u8::from(endpoint.held.is_some()))));
            connect.extend(endpoint.connect_ms.map(|ms| (labels.clone(), ms / 1e3)));
            certificates.extend(endpoint.certificate_expires.map(|at| (labels, at as f64)));
            if endpoint.check.is_some() && endpoint.checks.is_empty() {
                *probes.entry((check.clone(), "success")).or_default() += endpoint.probes_ok;
                *probes.entry((check, "failure")).or_default() += endpoint.probes_failed;
            }
        }
    }
    let family = families.gauge("endpoint_up", "1 while the endpoint counts as up.");
    for (labels, value) in up {
        family.sample(labels, value);
    }
    let family = families.gauge("endpoint_held", "1 while the endpoint is held down, since it changed too often.");
    for (labels, value) in held {
        family.sample(labels, value);
    }
    let family = families.gauge("endpoint_connect_seconds", "Connect time of the newest probe that connected.");
    for (labels, value) in connect {
        family.sample(labels, value);
    }
    let help = "When the certificate that the endpoint shows runs out, of several the first.";
    let family = families.gauge("endpoint_certificate_expiry_timestamp_seconds", help);
    for (labels, value) in certificates {
        family.sample(labels, value);
    }
    part_metrics(view, families);
    let family = families.counter("probes", "Probes made, by check and result.");
    for ((check, result), count) in probes {
        family.sample([("check", check), ("result", result.to_string())], count as f64);
    }
    let family = families.gauge("region_usable", "1 while enough of the region's endpoints are up.");
    for region in &regions {
        family.sample([("region", region.name.clone())], f64::from(u8::from(region.usable)));
    }
    let family = families.gauge("region_forced", "1 while an operator holds the region in this state.");
    for region in &regions {
        for state in Force::ALL.map(Force::as_str) {
            let holds = region.forced.as_deref() == Some(state);
            family.sample([("region", region.name.clone()), ("state", state.into())], f64::from(u8::from(holds)));
        }
    }
    // An endpoint under several checks is one endpoint; those that nobody forces are left out.
    let forced: BTreeSet<(&str, &str, &str)> = regions
        .iter()
        .flat_map(|region| region.endpoints.iter().map(move |endpoint| (region, endpoint)))
        .filter_map(|(region, endpoint)| Some((&*region.name, &*endpoint.endpoint, endpoint.forced.as_deref()?)))
        .collect();
    let family = families.gauge("endpoint_forced", "1 while an operator holds the endpoint in this state.");
    for (region, endpoint, state) in forced {
        let labels = [("region", region), ("endpoint", endpoint), ("state", state)];
        family.sample(labels.map(|(label, value)| (label, value.to_string())), 1.0);
    }
}

/// Above so many rows of endpoints under checks their histograms are summed by region and check: each has 15 lines.
const HISTOGRAM_ROWS_MAX: usize = 1000;

fn part_metrics(view: &View, families: &mut Families) {
    let regions = &view.world.config.regions;
    let rows: Vec<(&str, Row)> = (0..regions.len())
        .flat_map(|n| endpoints::rows(&view.world, RegionId(n as u8)).into_iter().map(move |row| (n, row)))
        .map(|(n, row)| (regions[n].name.as_str(), row))
        .collect();
    let are_apart = rows.len() <= HISTOGRAM_ROWS_MAX;
    let mut sums: BTreeMap<(&str, Option<String>, &str, Part), Histogram> = BTreeMap::new();
    for (region, row) in &rows {
        let Some(measured) = view.target(row).and_then(|target| view.past.measurements.of(target)) else { continue };
        let endpoint = are_apart.then(|| row.endpoint.to_string());
        for (part, histogram) in Part::ALL.iter().filter_map(|part| Some((*part, measured.part(*part)?))) {
            let check = row.check.as_deref().unwrap_or_default();
            sums.entry((region, endpoint.clone(), check, part)).or_default().add(histogram);
        }
    }
    let help = "How long the parts of probes took: connect, tls, and from the request to the first-byte of the answer.";
    let family = families.histogram("endpoint_probe_seconds", help);
    for ((region, endpoint, check, part), histogram) in sums {
        let endpoint = endpoint.map(|endpoint| ("endpoint", endpoint));
        let labels = std::iter::once(("region", region.to_string()))
            .chain(endpoint)
            .chain([("check", check.to_string()), ("phase", part.label().to_string())]);
        family.buckets(labels, histogram.sum_s(), histogram.buckets().collect());
    }
}

pub(super) fn self_doubt_metric(view: &View, families: &mut Families) {
    families
        .gauge("prober_distrusts_itself", "1 while everything fails at once, so that the last verdicts stay.")
        .value(f64::from(u8::from(view.board.self_doubt.is_some())));
}

pub(super) fn server_metrics(live: &Live, view: &View, families: &mut Families) {
    let world = &view.world;
    let reload = live.reloads();
    families
        .gauge("snapshot_generation", "Counts up with every published snapshot.")
        .value(view.snapshot.generation as f64);
    families
        .gauge("snapshot_build_seconds", "Time that the configuration in use took to compile.")
        .value(world.build_time.as_secs_f64());
    let (v4, v6) = world.networks();
    families
        .gauge("map_networks", "Ranges in the largest compiled map.")
        .sample([("family", "ipv4")], v4 as f64)
        .sample([("family", "ipv6")], v6 as f64);
    families
        .counter("reloads", "Reloads of the configuration, by result.")
        .sample([("result", "success")], reload.succeeded as f64)
        .sample([("result", "failure")], reload.failed as f64);
    families
        .gauge("last_reload_success_timestamp_seconds", "When a configuration was last taken up.")
        .value(reload.last_success as f64);
    families
        .counter("query_log_lines", "Lines of the query log that were written.")
        .value(live.query_log.written() as f64);
    families
        .counter(
            "query_log_dropped",
            "Lines that it should have and has not, since its file was too slow or could not be written.",
        )
        .value(live.query_log.dropped() as f64);
    families
        .gauge("geo_database_build_timestamp_seconds", "When the location data was made.")
        .value(world.locations.build_epoch() as f64);
    let family =
        families.gauge("rrsig_expiry_timestamp_seconds", "When the first signature of a signed zone runs out.");
    for zone in view.snapshot.zones.zones() {
        if let Some(signed) = &zone.signed {
            let name = zone.origin.to_string().trim_end_matches('.').to_string();
            family.sample([("zone", name)], signed.signer.expires_s() as f64);
        }
    }
    let confined = live.confinement.get().map(Confinement::status).unwrap_or_default();
    families
        .gauge("confined", "1 where the process has given up what this part of its confinement keeps from it.")
        .sample([("part", "landlock")], f64::from(u8::from(confined.landlock.is_some())))
        .sample([("part", "seccomp")], f64::from(u8::from(confined.seccomp)));
    let mut panics = live.panics();
    panics.insert("probe", live.board.panics());
    let family = families.counter("task_panics", "Panics of control-plane tasks, which were restarted.");
    for (task, count) in panics {
        family.sample([("task", task)], count as f64);
    }
}
