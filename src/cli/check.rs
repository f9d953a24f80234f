//! `isochrone check`: the loader of `serve`, and nothing after it.

use std::process::ExitCode;

use super::{
    CheckArgs,
    terminal::{Palette, Tone, print},
};
use crate::{
    health::probe::tls::{TlsModes, TrustedRoots},
    server::World,
};

/// Prints what the configuration holds, with warnings on stderr, or everything that is wrong with it.
pub fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let world = World::load(&args.file.path()?)?;
    for warning in world.warnings.iter().chain(&of_this_host(&world)) {
        eprintln!("{} {warning}", Palette::of_stderr().paint(Tone::Warn, "warning:"));
    }
    print(&format!("ok: {}\n", world.summary()))?;
    Ok(ExitCode::SUCCESS)
}

/// What the host lacks to do as the configuration says.
fn of_this_host(world: &World) -> Option<String> {
    let is_needed = world.targets().list().iter().any(|target| target.check().kind.verifies_tls());
    let lacking = is_needed.then(|| TlsModes::new(TrustedRoots::Host).verified().err())??;
    Some(format!("checks with `verify-tls` tell nothing here, and their endpoints count as up: {lacking}"))
}
