//! `isochrone check`: the loader of `serve`, and nothing after it.

use std::process::ExitCode;

use super::{CheckArgs, terminal::print};
use crate::server::World;

/// Prints what the configuration holds, or everything that is wrong with it.
pub fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let world = World::load(&args.file.path()?)?;
    print(&format!("ok: {}\n", world.summary()))?;
    Ok(ExitCode::SUCCESS)
}
