//! `isochrone serve`: the server in the foreground.

use std::process::ExitCode;

use super::ServeArgs;
use crate::{
    server::{self, Options},
    telemetry::logs::{self, LogFormat},
};

/// Serves until SIGTERM or SIGINT, or until another process takes over.
pub fn run(args: &ServeArgs, format: LogFormat) -> anyhow::Result<ExitCode> {
    logs::init(format)?;
    server::serve(Options { config: args.file.path()?, takeover: args.takeover })?;
    Ok(ExitCode::SUCCESS)
}
