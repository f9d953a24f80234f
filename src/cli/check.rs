//! `isochrone check`: the loader of `serve`, and nothing after it.

use std::process::ExitCode;

use super::{
    CheckArgs,
    terminal::{Palette, Tone, print},
};
use crate::server::World;

/// Prints what the configuration holds, with warnings on stderr, or everything that is wrong with it.
pub fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let world = World::load(&args.file.path()?)?;
    for warning in &world.warnings {
        eprintln!("{} {warning}", Palette::of_stderr().paint(Tone::Warn, "warning:"));
    }
    print(&format!("ok: {}\n", world.summary()))?;
    Ok(ExitCode::SUCCESS)
}
