//! The files that a configuration names, read together, so that all that is wrong with them is told at once and where they are named.

use std::{path::Path, time::SystemTime};

use crate::{
    config::{AdminToken, Config, Problem, Report, Spot, cookie_secrets, model::ZoneText},
    geo::{AsnTable, GeoError, Locations},
    server::measured::{self, Measured},
    wire::cookie::CookieSecrets,
    zone::{ZoneContent, content},
};

/// What a configuration names, read.
pub struct Parts {
    /// Records of the zones.
    pub contents: Vec<ZoneContent>,
    /// Places of addresses.
    pub locations: Locations,
    /// Autonomous systems.
    pub asns: Option<AsnTable>,
    /// Secrets of the server cookies.
    pub cookie_secrets: Option<CookieSecrets>,
    /// What changes through the admin interface need.
    pub admin_token: Option<AdminToken>,
    /// Measurements.
    pub measured: Measured,
}

impl Parts {
    /// Reads it all.
    ///
    /// # Errors
    /// All that is wrong with any of it.
    pub fn read(config: &Config, now: SystemTime) -> Result<Parts, Report> {
        let mut problems = Vec::new();
        let contents = content::gather(config).unwrap_or_else(|report| {
            problems.extend(report.problems);
            Vec::new()
        });
        let measured = measured::read(config, now).unwrap_or_else(|wrong| {
            problems.extend(wrong);
            Measured::default()
        });
        let mut keep = |error| problems.push(about(config, &error));
        let locations = Locations::open(&config.geo.databases).map_err(&mut keep).ok();
        let asns = config.geo.asn_database.as_deref().map(AsnTable::open).transpose().map_err(&mut keep).ok();
        let cookie_secrets = config.server.cookie_secret_file.as_deref().map(cookie_secrets::read).transpose();
        let cookie_secrets = cookie_secrets.map_err(|problem| problems.push(problem)).ok().flatten();
        let admin_token = config.admin.token_file.as_deref().map(AdminToken::read).transpose();
        let admin_token = admin_token.map_err(|problem| problems.push(problem)).ok().flatten();
        match (locations, asns, problems.is_empty()) {
            (Some(locations), Some(asns), true) => {
                Ok(Parts { contents, locations, asns, cookie_secrets, admin_token, measured })
            }
            _ => Err(Report::new(problems)),
        }
    }
}

/// What else is wrong in the files that a configuration names which has errors of its own: only what does not follow from those.
pub fn faults_beside(config: &Config) -> Vec<Problem> {
    let mut problems = content::gather(config).err().unwrap_or_default().problems;
    // What is said of a zone as a whole, or of a route, may only follow from what was written wrong.
    problems.retain(|problem| problem.spot.as_ref().is_none_or(|spot| is_of_records(config, spot)));
    let locations = Locations::open(&config.geo.databases).err();
    let asns = config.geo.asn_database.as_deref().map(AsnTable::open).and_then(Result::err);
    // That a file cannot be read has been told with the rest.
    let unfit = locations.into_iter().chain(asns).filter(|error| !matches!(error, GeoError::Unreadable { .. }));
    problems.extend(unfit.map(|error| about(config, &error)));
    problems
}

/// A place in the records of a zone, and not in the rest of the configuration file.
fn is_of_records(config: &Config, spot: &Spot) -> bool {
    let is_same_file = |other: &Spot| other.source.name == spot.source.name;
    let holds = |text: &ZoneText| {
        let held = text.spot.span.start <= spot.span.start && spot.span.end <= text.spot.span.end;
        held && is_same_file(&text.spot)
    };
    config.zones.iter().all(|zone| !is_same_file(&zone.spot))
        || config.zones.iter().any(|zone| zone.texts.iter().any(holds))
}

/// A database's error, where the configuration names the database.
pub fn about(config: &Config, error: &GeoError) -> Problem {
    let named_at =
        |path: &Path| config.geo.named_at.iter().find(|(named, _)| named == path).map(|(_, spot)| spot.clone());
    match error.path().and_then(named_at) {
        Some(spot) => Problem::at(spot, error.to_string()),
        None => Problem::new(error.to_string()),
    }
}
