//! The command line: one file a command. Knows nothing of the DNS wire format.

mod check;
mod completions;
mod delegation;
mod demo;
mod explain;
mod force;
mod geo;
mod key;
mod latency;
mod man;
mod moves;
mod probe;
mod remote;
mod scatter;
mod serve;
mod status;
mod table;
mod terminal;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    config::{self, Report},
    health::install_crypto_provider,
    server::ServeError,
    telemetry::logs::LogFormat,
};

/// Exit status of a configuration that cannot be used (clap's own of wrong usage).
const BAD_CONFIGURATION: u8 = 2;
/// Exit status of everything else that went wrong, and of a check that failed.
const FAILED: u8 = 1;

/// Runs the program on its arguments.
pub fn main() -> ExitCode {
    install_crypto_provider();
    let cli = Cli::parse();
    let done = match &cli.command {
        Command::Serve(args) => serve::run(args, cli.log_format.into()),
        Command::Demo(args) => demo::run(args, cli.log_format.into()),
        Command::Check(args) => check::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Probe(args) => probe::run(args),
        Command::Status(args) => status::run(args),
        Command::Drain(args) => force::drain(args),
        Command::Force(args) => force::force(args),
        Command::Reload(args) => force::reload(args),
        Command::Plan(args) => moves::plan(args),
        Command::Simulate(args) => moves::simulate(args),
        Command::Delegation(args) => delegation::run(args),
        Command::Key(args) => key::run(args),
        Command::Geo(args) => geo::run(args),
        Command::Latency(args) => latency::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
    };
    done.unwrap_or_else(|error| tell(&error))
}

/// DNS server that answers each client with the region nearest in milliseconds and healthy now
#[derive(Debug, Parser)]
#[command(
    name = "isochrone",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "Try it:  isochrone demo\nRun it:  isochrone check && isochrone serve"
)]
struct Cli {
    /// Shape of the log lines of serve and demo, on stderr (RUST_LOG=debug tells more)
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    log_format: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(ServeArgs),
    Demo(demo::DemoArgs),
    Check(CheckArgs),
    Explain(explain::ExplainArgs),
    Probe(probe::ProbeArgs),
    Status(status::StatusArgs),
    Drain(force::DrainArgs),
    Force(force::ForceArgs),
    Reload(force::ReloadArgs),
    Plan(moves::PlanArgs),
    Simulate(moves::SimulateArgs),
    Delegation(delegation::DelegationArgs),
    Key(key::KeyArgs),
    Geo(geo::GeoArgs),
    Latency(latency::LatencyArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
}

impl From<Format> for LogFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Text => LogFormat::Text,
            Format::Json => LogFormat::Json,
        }
    }
}

/// Run the server until SIGTERM; SIGHUP reloads
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  isochrone serve --config /etc/isochrone/isochrone.toml")]
struct ServeArgs {
    #[command(flatten)]
    file: ConfigFile,
    /// Take the sockets of the running server over without losing a query; that one ends once this one serves
    #[arg(long)]
    takeover: bool,
}

/// Tell every error in a configuration and in the files that it names; start nothing
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  isochrone check --config new.toml && mv new.toml isochrone.toml")]
struct CheckArgs {
    #[command(flatten)]
    file: ConfigFile,
}

/// Which configuration.
#[derive(Debug, Args)]
struct ConfigFile {
    /// Configuration file [default: config/isochrone.toml, else /etc/isochrone/isochrone.toml]
    #[arg(long = "config", value_name = "FILE")]
    path: Option<PathBuf>,
}

impl ConfigFile {
    /// The file that is named, or the first of the default ones that exists.
    fn path(&self) -> Result<PathBuf, Report> {
        self.path.clone().map_or_else(config::default_path, Ok)
    }
}

/// Prints what went wrong and says with which status to end.
fn tell(error: &anyhow::Error) -> ExitCode {
    let report = match error.downcast_ref::<ServeError>() {
        Some(ServeError::Config(report)) => Some(report),
        _ => error.downcast_ref::<Report>(),
    };
    match report {
        Some(report) => {
            eprintln!("{}", report.render(terminal::Palette::of_stderr().is_on()));
            ExitCode::from(BAD_CONFIGURATION)
        }
        None => {
            eprintln!("{} {error:#}", terminal::Palette::of_stderr().paint(terminal::Tone::Bad, "error:"));
            ExitCode::from(FAILED)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_sound_and_each_command_has_an_example() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands() {
            for command in std::iter::once(command).chain(command.get_subcommands()) {
                let help = command.clone().render_help().to_string();
                let is_group = command.get_subcommands().next().is_some();
                assert!(is_group || help.contains("Example:\n  isochrone "), "{help}");
            }
        }
    }

    #[test]
    fn the_log_format_stands_before_or_after_the_command() {
        for arguments in
            [["isochrone", "--log-format", "json", "serve"], ["isochrone", "serve", "--log-format", "json"]]
        {
            let cli = Cli::try_parse_from(arguments).unwrap();
            assert!(matches!(cli.log_format, Format::Json), "{arguments:?}");
        }
    }
}
