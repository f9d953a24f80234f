//! `isochrone plan` and `isochrone simulate`: what a new configuration, or a failure, would move. Nothing is started or changed.

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;
use clap::Args;

use super::{
    ConfigFile,
    table::{Align, Cell, Table},
    terminal::{Palette, Tone, print},
};
use crate::server::{
    World,
    moves::{self, Moves, NetworkMoves},
    world::Past,
};

/// Tell what a new configuration would move, before it is taken up
#[derive(Debug, Args)]
#[command(after_help = "Example:
  isochrone plan new.toml --config /etc/isochrone/isochrone.toml

Every network that has a place is followed through both configurations, with all
endpoints counted as up. Networks are counted in /24 (IPv6: /48), not by the
queries that they send.")]
pub struct PlanArgs {
    /// The new configuration
    #[arg(value_name = "NEW.toml")]
    new: PathBuf,
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Tell what the failure of a region would move
#[derive(Debug, Args)]
#[command(after_help = "Example:
  isochrone simulate --down eu

Everything else is counted as up. Name --down more than once for a failure of
several regions.")]
pub struct SimulateArgs {
    /// Region that fails
    #[arg(long, value_name = "REGION", required = true)]
    down: Vec<String>,
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Compares two configurations.
pub fn plan(args: &PlanArgs) -> anyhow::Result<ExitCode> {
    let old = World::load(&args.file.path()?)?;
    let new = World::load_after(&args.new, Past { before: Some(&old), ..Past::default() })?;
    tell(&moves::plan(&old, &new)?, args.json)
}

/// Compares a configuration with itself after a failure.
pub fn simulate(args: &SimulateArgs) -> anyhow::Result<ExitCode> {
    let world = World::load(&args.file.path()?)?;
    let known = &world.plan.region_names;
    if let Some(unknown) = args.down.iter().find(|name| !known.contains(name)) {
        bail!("there is no region `{unknown}` in {}; it has {}", world.path.display(), known.join(", "));
    }
    tell(&moves::failure(&world, &args.down)?, args.json)
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
    let quiet = moves.routes.iter().filter(|route| route.change == "same").count();
    for route in moves.routes.iter().filter(|route| route.change != "same") {
        text.push_str(&format!("\n{} in {} ({})\n", route.route, route.zone, route.change));
        for (family, networks) in [("IPv4 /24", &route.ipv4), ("IPv6 /48", &route.ipv6)] {
            if networks.networks > 0.0 {
                text.push_str(&of_family(family, networks, palette));
            }
        }
    }
    match (quiet, moves.routes.len()) {
        (0, _) => {}
        (quiet, all) if quiet == all => text.push_str("\nno network moves\n"),
        (quiet, _) => text.push_str(&format!("\n{quiet} more routes: no network moves\n")),
    }
    text
}

fn of_family(family: &str, networks: &NetworkMoves, palette: Palette) -> String {
    let mut text = format!("  {family}: {} of {:.0} networks move", percent(networks.moved), networks.networks);
    if networks.lost > 0.0 {
        text.push_str(&format!(", {} get no answer", percent(networks.lost)));
    }
    if let (Some(before), Some(after)) = (networks.before_ms, networks.after_ms) {
        text.push_str(&format!("; mean estimate {before:.1} ms, then {after:.1} ms"));
    }
    text.push('\n');
    let mut table = Table::new(&[
        ("  FROM", Align::Left),
        ("TO", Align::Left),
        ("SHARE", Align::Right),
        ("MS BEFORE", Align::Right),
        ("MS AFTER", Align::Right),
    ]);
    for one in &networks.moves {
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
    text.push_str(&table.render(palette));
    let mut shares = Table::new(&[("  REGION", Align::Left), ("BEFORE", Align::Right), ("AFTER", Align::Right)]);
    for region in &networks.regions {
        let name = Cell::from(format!("  {}", region.region));
        shares.row([name, Cell::from(percent(region.before)), Cell::from(percent(region.after))]);
    }
    text.push_str(&shares.render(palette));
    text
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}
