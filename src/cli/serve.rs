//! `isochrone serve`: the server in the foreground.

use std::process::ExitCode;

use super::ConfigArgs;
use crate::{
    server::{self, Options},
    telemetry::logs::{self, LogFormat},
};

/// Serves until SIGTERM or SIGINT.
pub fn run(args: &ConfigArgs, format: LogFormat) -> anyhow::Result<ExitCode> {
    logs::init(format)?;
    server::serve(Options { config: args.file.path()? })?;
    Ok(ExitCode::SUCCESS)
}
