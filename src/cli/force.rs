//! `isochrone drain`, `force` and `reload`: an operator's word to a running server.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{anyhow, bail};
use clap::{Args, ValueEnum};

use super::{
    BAD_CONFIGURATION,
    remote::{AdminUrl, AskError, DEFAULT_ADMIN, Remote},
    terminal::{Palette, Tone, print, span},
};
use crate::{
    admin::{
        changes::RELOAD_PATH,
        force::{ForceBody, Forced, Reloaded},
    },
    config::AdminToken,
};

/// Variable of the environment that holds the token.
const TOKEN_VARIABLE: &str = "ISOCHRONE_TOKEN";

/// Take a region or endpoint out softly: it answers only when nothing else can
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  isochrone drain eu --reason \"new switch\" --for 2h\n  isochrone drain eu/192.0.2.10\n  \
                        isochrone drain '*/192.0.2.*'\n  isochrone force eu auto        # ends it"
)]
pub struct DrainArgs {
    /// A region or `region/endpoint`; stars stand for any letters
    target: String,
    #[command(flatten)]
    how: How,
}

/// Override what the checks say of a region or endpoint, or end such an override
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  isochrone force eu down --reason \"wrong data\"\n  isochrone force us up --for 30m\n  \
                        isochrone force eu auto"
)]
pub struct ForceArgs {
    /// A region or `region/endpoint`; stars stand for any letters
    target: String,
    /// What it is to be from now on
    state: State,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum State {
    /// As if every check passed
    Up,
    /// Never answers, not even when everything is down
    Down,
    /// Answers only when nothing else can
    Drain,
    /// The checks decide: ends an override
    Auto,
}

#[derive(Debug, Args)]
struct How {
    /// Why, for whoever looks next
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// How long it holds, such as 30m or 2h; without this until it is ended
    #[arg(long = "for", value_name = "TIME")]
    lasts: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
struct ServerArgs {
    /// The server's admin interface
    #[arg(long, value_name = "URL", default_value = DEFAULT_ADMIN)]
    admin: AdminUrl,
    /// File with the token that a server asks for unless it listens on loopback [or ISOCHRONE_TOKEN: the token itself]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Have a running server read its configuration again; exit status 2 and every error if it refuses
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  isochrone check --config /etc/isochrone/isochrone.toml && isochrone reload")]
pub struct ReloadArgs {
    #[command(flatten)]
    server: ServerArgs,
}

/// Drains a target.
pub fn drain(args: &DrainArgs) -> anyhow::Result<ExitCode> {
    put(&args.target, State::Drain, &args.how)
}

/// Forces a target, or ends that.
pub fn force(args: &ForceArgs) -> anyhow::Result<ExitCode> {
    put(&args.target, args.state, &args.how)
}

/// Reloads.
pub fn reload(args: &ReloadArgs) -> anyhow::Result<ExitCode> {
    let ServerArgs { admin, json, .. } = &args.server;
    let remote = Remote::new(admin.clone())?.with_token(args.server.token()?);
    let path: Vec<&str> = RELOAD_PATH.split('/').skip(1).collect();
    match remote.change::<Reloaded>(&path, &serde_json::json!({})) {
        Ok(reloaded) if *json => print(&format!("{}\n", serde_json::to_string_pretty(&reloaded)?))?,
        Ok(reloaded) => print(&format!("reloaded: {}\n", reloaded.summary))?,
        Err(AskError::Refused { status: 422, error, .. }) => {
            match json {
                true => print(&format!("{}\n", serde_json::to_string_pretty(&serde_json::json!({ "error": error }))?))?,
                false => eprintln!("{error}\n\nthe running configuration stays"),
            }
            return Ok(ExitCode::from(BAD_CONFIGURATION));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(ExitCode::SUCCESS)
}

fn put(target: &str, state: State, how: &How) -> anyhow::Result<ExitCode> {
    let (region, endpoint) = target.split_once('/').map_or((target, None), |(r, e)| (r, Some(e)));
    if region.is_empty() || endpoint == Some("") {
        bail!("`{target}` is no target; write a region such as eu, an endpoint such as eu/192.0.2.10, or 'eu-*'");
    }
    let mut path = vec!["api", "v1", "regions", region];
    if let Some(endpoint) = endpoint {
        path.extend(["endpoints", endpoint]);
    }
    path.push("force");
    let state = state.to_possible_value().expect("no state is skipped").get_name().to_string();
    let body = ForceBody { state, reason: how.reason.clone(), lasts: how.lasts.clone() };
    let remote = Remote::new(how.server.admin.clone())?.with_token(how.server.token()?);
    let forced: Forced = remote.change(&path, &body)?;
    if how.server.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&forced)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    print(&format!("{}\n", shown(&forced, now_s)))?;
    for warning in &forced.warnings {
        eprintln!("{} {warning}", Palette::of_stderr().paint(Tone::Warn, "warning:"));
    }
    Ok(ExitCode::SUCCESS)
}

impl ServerArgs {
    fn token(&self) -> anyhow::Result<Option<String>> {
        if let Some(path) = &self.token_file {
            let token = AdminToken::read(path).map_err(|problem| anyhow!("{}", problem.message))?;
            return Ok(Some(token.reveal().to_string()));
        }
        Ok(std::env::var(TOKEN_VARIABLE).ok().map(|token| token.trim().to_string()).filter(|token| !token.is_empty()))
    }
}

/// `eu: drain, ends in 2 h` and what it is about.
fn shown(forced: &Forced, now_s: u64) -> String {
    let now = &forced.now;
    let end = match (&*now.state, now.until) {
        ("auto", _) => String::new(),
        (_, Some(until)) => format!(", ends in {}", span(until.saturating_sub(now_s))),
        (_, None) => ", until it is ended with `auto`".into(),
    };
    let others =
        |list: &[String]| list.iter().filter(|name| **name != now.target).cloned().collect::<Vec<_>>().join(" ");
    let mut text = format!("{}: {}{end}", now.target, now.state);
    for (what, list) in [("matches", &now.matches), ("replaces", &forced.replaced)] {
        let others = others(list);
        if !others.is_empty() {
            text += &format!("\n  {what} {others}");
        }
    }
    if now.matches.is_empty() {
        text += "\n  matches nothing";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::force::OverrideStatus;

    #[test]
    fn what_holds_is_told_in_a_line_and_what_it_is_about_below() {
        let forced = |target: &str, state: &str, until, matches: &[&str], replaced: &[&str]| Forced {
            now: OverrideStatus {
                target: target.into(),
                state: state.into(),
                reason: "x".into(),
                since: 1_000,
                until,
                by: String::new(),
                node: None,
                conflicts: Vec::new(),
                matches: matches.iter().map(ToString::to_string).collect(),
            },
            replaced: replaced.iter().map(ToString::to_string).collect(),
            kept: true,
            warnings: Vec::new(),
        };
        for (forced, expected) in [
            (forced("eu", "drain", Some(8_200), &["eu"], &["eu"]), "eu: drain, ends in 2 h"),
            (forced("eu", "down", None, &["eu"], &[]), "eu: down, until it is ended with `auto`"),
            (forced("eu", "auto", None, &["eu"], &["eu"]), "eu: auto"),
            (
                forced("eu-*", "up", None, &["eu-a", "eu-b"], &["eu-a"]),
                "eu-*: up, until it is ended with `auto`\n  matches eu-a eu-b\n  replaces eu-a",
            ),
            (forced("gone", "auto", None, &[], &["gone"]), "gone: auto\n  matches nothing"),
        ] {
            assert_eq!(shown(&forced, 1_000), expected);
        }
    }
}
