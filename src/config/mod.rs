//! The configuration file: text → `spec` (shapes with spans) → `check` (every error at once) → [`model`] (plain validated
//! types). Knows nothing of sockets.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::geo::{Coordinates, gazetteer};

mod check;
pub mod cookie_secrets;
mod files;
pub mod identity;
pub mod keys;
mod leaf;
pub mod model;
pub mod nats;
pub mod report;
mod section;
mod spec;
mod syntax;
mod token;
mod value;

pub use identity::TlsIdentity;
pub use model::Config;
pub use report::{Problem, Report, Source, Spot};
pub use token::AdminToken;

pub(crate) use files::read_text;

use section::Problems;
pub(crate) use value::{duration_ms, quote, suggest};

/// Where the configuration is looked for when none is named, in this order.
pub const DEFAULT_PATHS: [&str; 2] = ["config/isochrone.toml", "/etc/isochrone/isochrone.toml"];

/// Largest configuration file, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The first of [`DEFAULT_PATHS`] that exists.
///
/// # Errors
/// None exists; the report names them all.
pub fn default_path() -> Result<PathBuf, Report> {
    first_existing(&DEFAULT_PATHS)
}

fn first_existing(paths: &[&str]) -> Result<PathBuf, Report> {
    paths.iter().map(PathBuf::from).find(|path| path.exists()).ok_or_else(|| {
        let message = format!("no configuration file: found neither {}", value::listed(paths, "nor"));
        Report::from(Problem::new(message).with_help("name one with --config FILE"))
    })
}

/// Reads and checks the configuration file at `path`; the files that it names are looked for beside it.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(path: &Path) -> Result<Config, Report> {
    match read(path) {
        (Some(config), report) if report.is_empty() => Ok(config),
        (_, report) => Err(report),
    }
}

/// As [`load`], but gives what is sound in a file with errors, too: for looking at the files that it names.
pub fn read(path: &Path) -> (Option<Config>, Report) {
    let text = match files::read_text(path, FILE_BYTES_MAX) {
        Ok(text) => text,
        Err(why) => {
            let message = format!("the configuration file {} {why}", quote(&path.display().to_string()));
            return (None, Report::from(Problem::new(message).with_help("name another with --config FILE")));
        }
    };
    let source = Arc::new(Source { name: path.display().to_string(), text });
    parse_all(source, path.parent().unwrap_or(Path::new("")), &in_gazetteer)
}

/// Finds a place in the built-in gazetteer.
fn in_gazetteer(text: &str) -> Result<Coordinates, Vec<String>> {
    match gazetteer::find(text) {
        Ok(site) => Ok(site.coordinates),
        Err(unknown) => Err(unknown.suggestions.iter().map(ToString::to_string).collect()),
    }
}

/// Checks a configuration that has been read. Touches no file but those that the configuration names, looked for in `folder`.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn parse(source: Arc<Source>, folder: &Path) -> Result<Config, Report> {
    parse_with(source, folder, &in_gazetteer)
}

/// Coordinates of a place by its name in the gazetteer, or else the nearest spellings that it knows.
type Locate<'l> = &'l dyn Fn(&str) -> Result<Coordinates, Vec<String>>;

fn parse_with(source: Arc<Source>, folder: &Path, locate: Locate<'_>) -> Result<Config, Report> {
    match parse_all(source, folder, locate) {
        (Some(config), report) if report.is_empty() => Ok(config),
        (_, report) => Err(report),
    }
}

/// Everything that is wrong, and what is not.
fn parse_all(source: Arc<Source>, folder: &Path, locate: Locate<'_>) -> (Option<Config>, Report) {
    let mut cleaned = syntax::clean(&source.text);
    let problems = Problems::new(source, &mut cleaned);
    if cleaned.gave_up {
        return (None, problems.report());
    }
    let (tree, _) = toml::de::DeTable::parse_recoverable(&cleaned.text);
    let spec = spec::read(tree.get_ref(), &problems);
    let config = check::run(spec, &problems, folder, locate);
    (Some(config), problems.report())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_at_the_default_places_names_them_all() {
        let report = first_existing(&["no/a.toml", "no/b.toml"]).unwrap_err();
        let problem = &report.problems[0];
        assert_eq!(problem.message, "no configuration file: found neither `no/a.toml` nor `no/b.toml`");
        assert_eq!(problem.help.as_deref(), Some("name one with --config FILE"));
    }

    fn report(text: &str, near: &[&str]) -> String {
        let source = Arc::new(Source { name: "a.toml".into(), text: text.into() });
        let locate = |_: &str| Err(near.iter().map(ToString::to_string).collect());
        parse_with(source, Path::new(""), &locate).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_location_names_the_nearest_spellings() {
        let text = "[zones.\"x.example\"]\nnameservers = [\"ns.example.\"]\n[regions.us]\nendpoints = [\"192.0.2.1\"]\n\
                    location = \"aws:us-esat-1\"\n";
        let shown = report(text, &["aws:us-east-1", "aws:us-east-2"]);
        assert!(shown.contains("unknown location `aws:us-esat-1`"), "{shown}");
        assert!(shown.contains("help: did you mean `aws:us-east-1` or `aws:us-east-2`?"), "{shown}");
        let shown = report(text, &[]);
        assert!(shown.contains("help: write a cloud region such as \"aws:eu-west-1\", an airport"), "{shown}");
        assert!(shown.ends_with("\n1 error in a.toml"), "{shown}");
    }

    #[test]
    fn regions_are_few_enough_for_a_byte() {
        let mut text = String::from("[zones.\"x.example\"]\nnameservers = [\"ns.example.\"]\nroutes.www = {}\n");
        for n in 0..300 {
            text +=
                &format!("[regions.r{n}]\nlocation = {{ latitude = 1, longitude = 2 }}\nendpoints = [\"192.0.2.1\"]\n");
        }
        let shown = report(&text, &[]);
        assert!(shown.contains("error: 300 regions\n   --> a.toml:754:10"), "{shown}");
        assert!(shown.contains("help: write at most 250"), "{shown}");
        assert!(shown.ends_with("\n1 error in a.toml"), "{shown}");
    }
}
