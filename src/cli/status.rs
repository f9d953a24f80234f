//! `isochrone status`: the state of a running server, for people and for health checks of containers.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::Args;

use super::{
    FAILED,
    remote::{AdminUrl, DEFAULT_ADMIN, Remote},
    table::{Align, Cell, Table},
    terminal::{Lines, Palette, Tone, print, span},
};
use crate::admin::{
    force::OverrideStatus,
    latency::LearningStatus,
    status::{ClusterStatus, EndpointStatus, History, RegionStatus, RememberedStatus, Status},
};

/// Show regions, endpoints, verdicts and queries of a running server; exit status 1 unless it is there and ready
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  isochrone status --admin http://127.0.0.1:8053\n  isochrone status --history eu/198.51.100.10"
)]
pub struct StatusArgs {
    /// The server's admin interface
    #[arg(long, value_name = "URL", default_value = DEFAULT_ADMIN)]
    admin: AdminUrl,
    /// Show instead what became of a region's endpoints, or of one of them: the last 50 changes of each
    #[arg(long, value_name = "REGION[/ENDPOINT]")]
    history: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Shows the state of a server.
pub fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if let Some(target) = &args.history {
        return show_history(args, target, now_s);
    }
    let status: Status = Remote::new(args.admin.clone())?.ask("/api/v1/status", &[])?;
    match args.json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(&status)?))?,
        false => print(&shown(&status, now_s, Palette::of_stdout()))?,
    }
    if !status.ready {
        eprintln!("not ready: the first round of probes is under way");
        return Ok(ExitCode::from(FAILED));
    }
    Ok(ExitCode::SUCCESS)
}

fn show_history(args: &StatusArgs, target: &str, now_s: u64) -> anyhow::Result<ExitCode> {
    let (region, endpoint) = target.split_once('/').map_or((target, None), |(region, rest)| (region, Some(rest)));
    let question: Vec<(&str, &str)> =
        std::iter::once(("region", region)).chain(endpoint.map(|endpoint| ("endpoint", endpoint))).collect();
    let history: History = Remote::new(args.admin.clone())?.ask("/api/v1/history", &question)?;
    match args.json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(&history)?))?,
        false => print(&changes(&history, now_s, Palette::of_stdout()))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Newest first: what happened last is what people look for.
fn changes(history: &History, now_s: u64, palette: Palette) -> String {
    let columns = ["ENDPOINT", "CHECK", "AGO", "FROM", "TO", "REASON"];
    let mut table = Table::new(&columns.map(|name| (name, if name == "AGO" { Align::Right } else { Align::Left })));
    for endpoint in &history.endpoints {
        let head = || [endpoint.endpoint.as_str().into(), Cell::optional(endpoint.check.as_ref())];
        if endpoint.history.is_empty() {
            let [name, check] = head();
            table.row([name, check, "-".into(), "".into(), endpoint.state.as_str().into(), "no change yet".into()]);
        }
        for (n, change) in endpoint.history.iter().rev().enumerate() {
            let [name, check] = if n == 0 { head() } else { ["".into(), "".into()] };
            table.row([
                name,
                check,
                span(now_s.saturating_sub(change.at)).as_str().into(),
                change.from.as_str().into(),
                Cell::new(&change.to, tone(&change.to)),
                change.reason.as_str().into(),
            ]);
        }
    }
    table.render(palette)
}

fn tone(state: &str) -> Tone {
    match state {
        "up" => Tone::Good,
        "held" | "untried" => Tone::Warn,
        _ => Tone::Bad,
    }
}

fn shown(status: &Status, now_s: u64, palette: Palette) -> String {
    let ready = if status.ready { "ready" } else { "not ready" };
    let mut head = Lines::new(palette);
    let identity = if status.identity.is_empty() { String::new() } else { format!(" ({})", status.identity) };
    head.add("isochrone", &format!("{}{identity}, {ready}, up {}", status.version, span(status.uptime_s)));
    head.add("config", &status.config);
    if let Some(error) = &status.reload.error {
        head.add("", &format!("the newest reload was refused: {error}"));
    }
    if let Some(doubt) = &status.self_doubt {
        let since = span(now_s.saturating_sub(doubt.since));
        head.add("doubt", &format!("the prober has distrusted itself for {since}; the last verdicts stay"));
        head.add("", &doubt.reason);
    }
    cluster(&mut head, status.cluster.as_ref(), now_s);
    head.add("listens", &status.listen.join(" "));
    let data = &status.location_data;
    head.add("places", &data.source);
    head.add("", &format!("{} IPv4 and {} IPv6 ranges", data.networks_v4, data.networks_v6));
    if let Some(learning) = &status.learning {
        let noun = if learning.networks == 1 { "network" } else { "networks" };
        let (networks, samples) = (learning.networks, learning.samples);
        head.add("learns", &format!("{networks} {noun} measured from {}, {samples} handshakes", learning.region));
        if learning.prospect > 0.0 {
            let LearningStatus { asked, came, gained, .. } = learning;
            head.add("", &format!("{asked} asked to come by TCP, {came} came, {gained} were measured"));
        }
    }
    for (n, zone) in status.zones.iter().enumerate() {
        let routes = if zone.routes.len() == 1 { "route" } else { "routes" };
        let text = format!("{} (serial {}, {} {routes})", zone.name, zone.serial, zone.routes.len());
        head.add(if n == 0 { "zones" } else { "" }, &text);
    }
    let queries = &status.queries;
    let mut tail = Lines::new(palette);
    for (n, o) in status.overrides.iter().enumerate() {
        tail.add(if n == 0 { "overrides" } else { "" }, &override_text(o, now_s));
    }
    let by_transport = counts(&queries.by_transport);
    tail.add("queries", &format!("{} ({by_transport}), {} with client subnet", queries.total, queries.ecs));
    let responses = counts(&queries.responses);
    tail.add("responses", &format!("{responses}, {} truncated, {} dropped", queries.truncated, queries.dropped));
    tail.add("answers", &counts(&queries.answers_by_region));
    format!("{}\n{}\n{}", head.text, regions(&status.regions, now_s, palette), tail.text)
}

/// The connection, and what of the other servers is worth a line.
fn cluster(head: &mut Lines, cluster: Option<&ClusterStatus>, now_s: u64) {
    let Some(cluster) = cluster else { return };
    let counting = 1 + cluster.nodes.iter().filter(|node| node.counts).count();
    let all = 1 + cluster.nodes.len();
    let since = cluster.since.map(|since| format!(" for {}", span(now_s.saturating_sub(since)))).unwrap_or_default();
    let link = match (&cluster.server, &cluster.error) {
        (Some(server), _) => format!("connected to {server}{since}"),
        (None, Some(error)) => format!("not connected{since}: {error}"),
        (None, None) => "not connected yet".into(),
    };
    head.add("cluster", &format!("{}, {counting} of {all} servers count, {link}", cluster.node));
    if let Some(problem) = &cluster.problem {
        head.add("", problem);
    }
    for node in &cluster.nodes {
        let state = match (node.counts, node.self_doubt) {
            (true, false) => "counts".to_string(),
            (true, true) => "distrusts itself and abstains".to_string(),
            (false, _) => format!("not heard for {}", span(node.heard_s as u64)),
        };
        let hears = if node.counts && node.hears as usize != counting {
            format!(", hears {}", node.hears)
        } else {
            String::new()
        };
        let region = node.region.iter();
        let measured: String =
            region.map(|region| format!(", measured {} networks from {region}", node.networks)).collect();
        let problem = node.problem.as_ref().map(|problem| format!(": {problem}")).unwrap_or_default();
        head.add("", &format!("{} {state}{hears}{measured}{problem}", node.name));
    }
    for RememberedStatus { name, region, networks } in &cluster.remembered {
        head.add("", &format!("{name} is silent, measured {networks} networks from {region}"));
    }
}

/// `eu drain, ends in 2 h: new switch (127.0.0.1 isochrone/0.1.0, 5 min ago)`
fn override_text(o: &OverrideStatus, now_s: u64) -> String {
    let end = o.until.map(|until| format!(", ends in {}", span(until.saturating_sub(now_s)))).unwrap_or_default();
    let nothing = if o.matches.is_empty() { ", matches nothing" } else { "" };
    let reason = if o.reason.is_empty() { String::new() } else { format!(": {}", o.reason) };
    let age = span(now_s.saturating_sub(o.since));
    let node = o.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
    let over = if o.conflicts.is_empty() { String::new() } else { format!("; overrode {}", o.conflicts.join("; ")) };
    format!("{} {}{end}{nothing}{reason} ({}{node}, {age} ago){over}", o.target, o.state, o.by)
}

fn counts(by_label: &BTreeMap<String, u64>) -> String {
    if by_label.is_empty() {
        return "none".into();
    }
    by_label.iter().map(|(label, count)| format!("{label} {count}")).collect::<Vec<_>>().join(", ")
}

fn regions(regions: &[RegionStatus], now_s: u64, palette: Palette) -> String {
    let mut table = Table::new(&[
        ("REGION", Align::Left),
        ("USABLE", Align::Left),
        ("ENDPOINT", Align::Left),
        ("CHECK", Align::Left),
        ("STATE", Align::Left),
        ("FOR", Align::Right),
        ("CONNECT MS", Align::Right),
        ("ERROR", Align::Left),
    ]);
    for region in regions {
        let blank = || Cell::from("");
        let head = || [region.name.as_str().into(), usable(region)];
        if region.endpoints.is_empty() {
            let [name, usable] = head();
            table.row([name, usable, "no route uses it".into(), blank(), blank(), blank(), blank(), blank()]);
        }
        for (n, endpoint) in region.endpoints.iter().enumerate() {
            let [name, usable] = if n == 0 { head() } else { [blank(), blank()] };
            table.row([
                name,
                usable,
                endpoint.endpoint.as_str().into(),
                Cell::optional(endpoint.check.as_ref()),
                state(endpoint, now_s),
                Cell::optional(endpoint.since.map(|since| span(now_s.saturating_sub(since)))),
                Cell::ms(endpoint.connect_ms),
                trouble(endpoint).as_str().into(),
            ]);
        }
    }
    table.render(palette)
}

fn usable(region: &RegionStatus) -> Cell {
    let (word, tone) = if region.usable { ("yes", Tone::Good) } else { ("no", Tone::Bad) };
    match &region.forced {
        None if region.penalty_ms > 0.0 => {
            Cell::new(&format!("{word} ({:.0} ms slower)", region.penalty_ms), Tone::Warn)
        }
        None => Cell::new(word, tone),
        Some(forced) => Cell::new(&format!("{word} (forced {forced})"), Tone::Warn),
    }
}

/// Who sees it down, why it is held down, or the newest failure, as long as it still counts; and what is not wrong yet.
fn trouble(endpoint: &EndpointStatus) -> String {
    let counts = endpoint.in_doubt || endpoint.state != "up";
    let failure = endpoint.last_error.clone().filter(|_| counts);
    let error = endpoint.held.as_ref().map(|held| held.reason.clone()).or(failure);
    let warnings = endpoint.warnings.iter().map(|warning| format!("warning: {warning}"));
    let seen = endpoint.consensus.clone().filter(|_| endpoint.state != "up");
    seen.into_iter().chain(error).chain(warnings).collect::<Vec<_>>().join("; ")
}

fn state(endpoint: &EndpointStatus, now_s: u64) -> Cell {
    let tone = tone(&endpoint.state);
    if let Some(forced) = &endpoint.forced {
        return Cell::new(&format!("{} (forced {forced})", endpoint.state), Tone::Warn);
    }
    if let Some(held) = &endpoint.held {
        let left = span(held.until.saturating_sub(now_s));
        return Cell::new(&format!("held ({left} more)"), tone);
    }
    match (&endpoint.check, endpoint.decided, endpoint.in_doubt) {
        (None, _, _) => Cell::new("unchecked", Tone::Dim),
        _ if endpoint.kept => Cell::new(&format!("{} (kept)", endpoint.state), Tone::Warn),
        (_, false, _) => Cell::new("untried", Tone::Warn),
        (_, _, true) => Cell::new(&format!("{} (in doubt)", endpoint.state), Tone::Warn),
        _ => Cell::new(&endpoint.state, tone),
    }
}

#[cfg(test)]
mod tests;
