//! Log lines on stderr. Knows nothing of what is logged.

use std::{
    env,
    io::{self, IsTerminal},
};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// Shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("logging is set up twice in one process; call it once, first thing")]
pub struct AlreadyInitialised;

/// What is logged when RUST_LOG says nothing. The library behind DNS over QUIC would write two lines for every query, and warn of
/// each client that goes away; that of NATS would say of every attempt what is said once here.
const DEFAULT_FILTER: &str = "info,hickory_server=error,hickory_net=error,async_nats=off";

/// Sends log lines to stderr from now on: those that `RUST_LOG` lets through (default: info and above), coloured on a terminal
/// unless `NO_COLOR` is set to anything (no-color.org). A `RUST_LOG` that cannot be read is reported and the default used.
///
/// # Errors
/// When logging has been set up before.
pub fn init(format: LogFormat) -> Result<(), AlreadyInitialised> {
    let (filter, complaint) = filter(env::var("RUST_LOG").ok().as_deref());
    let colours = use_colours(io::stderr().is_terminal(), env::var("NO_COLOR").ok().as_deref());
    let subscriber = tracing_subscriber::registry().with(filter);
    let done = match format {
        LogFormat::Text => {
            subscriber.with(fmt::layer().with_writer(io::stderr).with_ansi(colours).with_target(false)).try_init()
        }
        LogFormat::Json => subscriber.with(fmt::layer().json().flatten_event(true).with_writer(io::stderr)).try_init(),
    };
    done.map_err(|_| AlreadyInitialised)?;
    if let Some(complaint) = complaint {
        tracing::warn!("RUST_LOG is not understood ({complaint}); logging info and above instead");
    }
    Ok(())
}

fn filter(rust_log: Option<&str>) -> (EnvFilter, Option<String>) {
    let default = || EnvFilter::new(DEFAULT_FILTER);
    match rust_log.filter(|text| !text.trim().is_empty()) {
        None => (default(), None),
        Some(text) => match EnvFilter::try_new(text) {
            Ok(filter) => (filter, None),
            Err(error) => (default(), Some(error.to_string())),
        },
    }
}

fn use_colours(is_terminal: bool, no_color: Option<&str>) -> bool {
    is_terminal && no_color.is_none_or(str::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_log_is_respected_and_nonsense_is_reported() {
        for (given, stands_for, is_complaint) in [
            (None, DEFAULT_FILTER, false),
            (Some(""), DEFAULT_FILTER, false),
            (Some("isochrone=debug"), "isochrone=debug", false),
            (Some("=====loud"), DEFAULT_FILTER, true),
        ] {
            let (filter, complaint) = filter(given);
            let expected = EnvFilter::new(stands_for).to_string();
            assert_eq!((filter.to_string(), complaint.is_some()), (expected, is_complaint), "{given:?}");
        }
    }

    #[test]
    fn colours_are_for_terminals_without_no_color() {
        for (is_terminal, no_color, colours) in
            [(true, None, true), (true, Some(""), true), (true, Some("1"), false), (false, None, false)]
        {
            assert_eq!(use_colours(is_terminal, no_color), colours);
        }
    }
}
