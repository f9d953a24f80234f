//! `isochrone plan` and `isochrone simulate`: what a new configuration, or a failure, would move. Nothing is started or changed.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::Args;

use super::{
    ConfigFile,
    table::{Align, Cell, Table},
    terminal::{Palette, Tone, print},
};
use crate::server::{
    World,
    moves::{self, Counting, LoggedQueries, Moves, NetworkMoves, QueryMoves},
    world::Past,
};

/// Tell what a new configuration would move, before it is taken up
#[derive(Debug, Args)]
#[command(after_help = "Example:
  isochrone plan new.toml --config /etc/isochrone/isochrone.toml
  isochrone plan new.toml --queries /var/log/isochrone/queries.log

Every network that has a place is followed through both configurations, with all
endpoints counted as up. Networks are counted in /24 (IPv6: /48); with --queries
also by the queries that they sent, as the query log has them.")]
pub struct PlanArgs {
    /// The new configuration
    #[arg(value_name = "NEW.toml")]
    new: PathBuf,
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    logs: Logs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Tell what the failure of a region would move
#[derive(Debug, Args)]
#[command(after_help = "Example:
  isochrone simulate --down eu
  zcat queries.log.2.gz | isochrone simulate --down eu --queries -

Everything else is counted as up. Name --down more than once for a failure of
several regions.")]
pub struct SimulateArgs {
    /// Region that fails
    #[arg(long, value_name = "REGION", required = true)]
    down: Vec<String>,
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    logs: Logs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Query logs to weigh by.
#[derive(Debug, Args)]
struct Logs {
    /// Query log to weigh by as well (more than once: all of them; `-`: standard input)
    #[arg(long = "queries", value_name = "LOG")]
    list: Vec<PathBuf>,
}

/// Compares two configurations.
pub fn plan(args: &PlanArgs) -> anyhow::Result<ExitCode> {
    let old = World::load(&args.file.path()?)?;
    let new = World::load_after(&args.new, Past { before: Some(&old), ..Past::default() })?;
    let logged = args.logs.count(&old, &new)?;
    tell(&moves::plan(&old, &new, logged)?, args.json)
}

/// Compares a configuration with itself after a failure.
pub fn simulate(args: &SimulateArgs) -> anyhow::Result<ExitCode> {
    let world = World::load(&args.file.path()?)?;
    let known = &world.plan.region_names;
    if let Some(unknown) = args.down.iter().find(|name| !known.contains(name)) {
        bail!("there is no region `{unknown}` in {}; it has {}", world.path.display(), known.join(", "));
    }
    let logged = args.logs.count(&world, &world)?;
    tell(&moves::failure(&world, &args.down, logged)?, args.json)
}

impl Logs {
    /// Reads them all; `None`: none is named.
    fn count<'w>(&self, before: &'w World, after: &'w World) -> anyhow::Result<Option<Counting<'w>>> {
        if self.list.is_empty() {
            return Ok(None);
        }
        let mut counting = Counting::new(before, after);
        for path in &self.list {
            let (name, log): (String, Box<dyn BufRead>) = match path == Path::new("-") {
                true => ("the standard input".into(), Box::new(io::stdin().lock())),
                false => {
                    let name = path.display().to_string();
                    let file = File::open(path).with_context(|| format!("cannot read the query log {name}"))?;
                    (name, Box::new(BufReader::new(file)))
                }
            };
            take(&mut counting, &name, log).with_context(|| format!("cannot read the query log {name}"))?;
        }
        Ok(Some(counting))
    }
}

fn take(counting: &mut Counting<'_>, name: &str, mut log: Box<dyn BufRead>) -> anyhow::Result<()> {
    const GZIP: &[u8] = &[0x1f, 0x8b];
    if log.fill_buf()?.starts_with(GZIP) {
        bail!("it is compressed; write: zcat {name} | isochrone ... --queries -");
    }
    Ok(counting.take_log(name, log)?)
}

fn tell(moves: &Moves, json: bool) -> anyhow::Result<ExitCode> {
    match json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(moves)?))?,
        false => print(&shown(moves, Palette::of_stdout()))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(moves: &Moves, palette: Palette) -> String {
    let mut text = match moves.down.is_empty() {
        true => format!("{} instead of {}\n", moves.after, moves.before),
        false => format!("{} without {}\n", moves.before, moves.down.join(", ")),
    };
    for name in &moves.unchecked {
        text.push_str(&format!(
            "{name} has no check: nothing would notice its failure; this is as if it were forced down\n"
        ));
    }
    for (what, names) in [("new regions", &moves.regions_added), ("regions gone", &moves.regions_removed)] {
        if !names.is_empty() {
            text.push_str(&format!("{what}: {}\n", names.join(", ")));
        }
    }
    if let Some(logged) = &moves.logged {
        text.push_str(&of_logs(logged));
    }
    let quiet = moves.routes.iter().filter(|route| route.change == "same").count();
    for route in moves.routes.iter().filter(|route| route.change != "same") {
        text.push_str(&format!("\n{} in {} ({})\n", route.route, route.zone, route.change));
        for (family, networks) in [("IPv4 /24", &route.ipv4), ("IPv6 /48", &route.ipv6)] {
            if networks.networks > 0.0 {
                text.push_str(&of_family(family, networks, palette));
            }
        }
        if let Some(queries) = route.queries.as_ref().filter(|queries| queries.queries > 0) {
            text.push_str(&of_queries(queries, palette));
        }
    }
    match (quiet, moves.routes.len()) {
        (0, _) => {}
        (quiet, all) if quiet == all => text.push_str("\nno network moves\n"),
        (quiet, _) => text.push_str(&format!("\n{quiet} more routes: no network moves\n")),
    }
    text
}

fn of_logs(logged: &LoggedQueries) -> String {
    let total = &logged.total;
    let mut text = format!("logged queries: {}", moved("queries", total.queries as f64, total));
    if logged.elsewhere > 0 {
        text.push_str(&format!("; {} more that no route answers", logged.elsewhere));
    }
    text.push('\n');
    if let Some(first) = &logged.first_broken {
        let (broken, lines) = (logged.broken, logged.lines);
        text.push_str(&format!("{broken} of {lines} lines of the logs are left out: {first}\n"));
    }
    text
}

/// How much of it moves, and by how much.
fn moved(what: &str, all: f64, moves: &QueryMoves) -> String {
    let mut text = format!("{} of {all:.0} {what} move", percent(moves.moved));
    if moves.lost > 0.0 {
        text.push_str(&format!(", {} get no answer", percent(moves.lost)));
    }
    if let (Some(before), Some(after)) = (moves.before_ms, moves.after_ms) {
        text.push_str(&format!("; mean estimate {before:.1} ms, then {after:.1} ms"));
    }
    text
}

fn of_family(family: &str, networks: &NetworkMoves, palette: Palette) -> String {
    let same = QueryMoves::from(networks.clone());
    format!("  {family}: {}\n{}", moved("networks", networks.networks, &same), tables(&same, palette))
}

fn of_queries(queries: &QueryMoves, palette: Palette) -> String {
    format!("  logged: {}\n{}", moved("queries", queries.queries as f64, queries), tables(queries, palette))
}

fn tables(moves: &QueryMoves, palette: Palette) -> String {
    let mut table = Table::new(&[
        ("  FROM", Align::Left),
        ("TO", Align::Left),
        ("SHARE", Align::Right),
        ("MS BEFORE", Align::Right),
        ("MS AFTER", Align::Right),
    ]);
    for one in &moves.moves {
        let to = match &one.to {
            Some(to) => Cell::from(to.as_str()),
            None => Cell::new("no answer", Tone::Bad),
        };
        table.row([
            Cell::from(format!("  {}", one.from.as_deref().unwrap_or("no answer"))),
            to,
            Cell::from(percent(one.share)),
            Cell::ms(one.before_ms),
            Cell::ms(one.after_ms),
        ]);
    }
    let mut shares = Table::new(&[("  REGION", Align::Left), ("BEFORE", Align::Right), ("AFTER", Align::Right)]);
    for region in &moves.regions {
        let name = Cell::from(format!("  {}", region.region));
        shares.row([name, Cell::from(percent(region.before)), Cell::from(percent(region.after))]);
    }
    format!("{}{}", table.render(palette), shares.render(palette))
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}
