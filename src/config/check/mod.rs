//! What the values of a file mean for each other: references, order, families, names and zones. Notes everything that is wrong
//! and builds the [`Config`]; where something is wrong the built parts are stand-ins that nobody sees.

mod checks;
mod cluster;
mod damping;
mod encrypted;
mod learning;
mod regions;
mod routes;
mod statics;
mod user;
mod zones;

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Locate, cookie_secrets,
    cookie_secrets::Unusable,
    files,
    model::{Admin, Config, Geo, Latency, Listen, LogTarget, QueryLog, Server},
    section::{At, Problems},
    spec::{AdminSpec, GeoSpec, LatencySpec, QueryLogSpec, RegionSpec, ServerSpec, Spec},
    token::AdminToken,
    value::{quote, suggest},
};
use crate::health::Check;

/// What every part of the check may ask.
struct Context<'c> {
    problems: &'c Problems,
    /// Where the files are that the configuration names.
    folder: &'c Path,
    checks: HashMap<&'c str, Arc<Check>>,
    check_names: Vec<&'c str>,
    regions: &'c [RegionSpec],
    region_indexes: HashMap<&'c str, usize>,
    has_asn_database: bool,
}

/// Checks a whole file.
pub(super) fn run(spec: Spec, problems: &Problems, folder: &Path, locate: Locate<'_>) -> Config {
    let checks = checks::build(&spec.checks, problems);
    let context = Context {
        problems,
        folder,
        checks: checks.iter().zip(&spec.checks).map(|(c, s)| (s.name.value.as_str(), c.clone())).collect(),
        check_names: spec.checks.iter().map(|c| c.name.value.as_str()).collect(),
        regions: &spec.regions,
        region_indexes: spec.regions.iter().enumerate().map(|(i, r)| (r.name.value.as_str(), i)).collect(),
        has_asn_database: !spec.geo.asn_database.value.is_empty() || !spec.geo.asn_database.is_sound(),
    };
    note_admin_among_listeners(&spec.server, &spec.admin, problems);
    Config {
        server: context.build_server(&spec.server, &spec.admin),
        query_log: context.build_query_log(&spec.query_log),
        admin: context.build_admin(&spec.admin),
        geo: context.build_geo(&spec.geo),
        latency: context.build_latency(&spec.latency, &spec.server.region),
        cluster: spec.cluster.as_ref().map(|cluster| context.build_cluster(cluster)),
        regions: context.build_regions(locate),
        zones: context.build_zones(&spec.zones),
        checks,
    }
}

fn build_listen(spec: &ServerSpec, problems: &Problems) -> Vec<Listen> {
    if spec.listen.is_given() && spec.listen.value.is_empty() && spec.listen.span.len() <= 2 {
        problems.add(&spec.listen.span, "`listen` is empty", "write at least one address, for example \"0.0.0.0:53\"");
    }
    let mut listen: Vec<Listen> = Vec::new();
    for at in &spec.listen.value {
        if at.value.port() != 0 && listen.iter().any(|l| l.address == at.value) {
            let message = format!("{} stands here twice", quote(&at.value.to_string()));
            problems.add(&at.span, message, "remove one of the two");
        } else if let Some(whole) = listen.iter().find(|l| overlap(l.address, at.value)) {
            let all = if whole.address.ip().is_unspecified() { whole.address } else { at.value };
            let message = format!("{} holds the other address on the same port, too", quote(&all.to_string()));
            problems.add(&at.span, message, "remove one of the two");
        }
        listen.push(Listen { address: at.value, is_default: !spec.listen.is_given() });
    }
    listen
}

/// One of the two is every address of the other's family, on the same port.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let is_whole = one.ip().is_unspecified() || other.ip().is_unspecified();
    is_whole && one != other && one.is_ipv4() == other.is_ipv4() && one.port() == other.port() && one.port() != 0
}

/// Both serve TCP, so that one port cannot have both.
fn note_admin_among_listeners(server: &ServerSpec, admin: &AdminSpec, problems: &Problems) {
    let Some(admin) = &admin.listen else { return };
    let Some(dns) = server.listen.value.iter().find(|dns| dns.value == admin.value && dns.value.port() != 0) else {
        return;
    };
    let place = if admin.is_given() { &admin.span } else { &dns.span };
    let message = format!("{} is meant for DNS and for the admin interface", quote(&admin.value.to_string()));
    problems.add(place, message, "give one of them another port");
}

impl Context<'_> {
    /// The check of this name; empty: none.
    fn check_named(&self, name: &At<String>) -> Option<Arc<Check>> {
        if name.value.is_empty() {
            return None;
        }
        let found = self.checks.get(name.value.as_str()).cloned();
        if found.is_none() {
            let help = suggest(&name.value, &self.check_names, "add a section such as [checks.web]");
            self.problems.absent(&name.span, format!("unknown check {}", quote(&name.value)), help);
        }
        found
    }

    fn build_server(&self, spec: &ServerSpec, admin: &AdminSpec) -> Server {
        let file = &spec.cookie_secret_file;
        if !file.value.is_empty() {
            self.note_unusable_secrets(file);
        }
        Server {
            listen: build_listen(spec, self.problems),
            threads: spec.threads,
            identity: spec.identity.value.clone(),
            encrypted: spec.encrypted.as_ref().and_then(|encrypted| self.build_encrypted(encrypted, spec, admin)),
            cookie_secret_file: (!file.value.is_empty()).then(|| self.folder.join(&file.value)),
            state_dir: self.build_state_dir(&spec.state_dir),
            user: self.build_user(&spec.user),
            sandbox: spec.sandbox,
            region: (!spec.region.value.is_empty()).then(|| self.region_named(&spec.region)).flatten(),
            watch: spec.watch,
            limits: spec.limits,
        }
    }

    /// That it cannot be written is no error: it may be so at any time, and queries are answered all the same.
    fn build_query_log(&self, spec: &QueryLogSpec) -> Option<QueryLog> {
        let target = match spec.file.value.as_str() {
            "" => return None,
            "-" => LogTarget::Stdout,
            path => LogTarget::File(self.folder.join(path)),
        };
        Some(QueryLog { target, sample: spec.sample, queue_max: spec.queue_max })
    }

    /// Read here for its errors alone, so that they are told together with all others; what counts is read again when the file
    /// has begun to be watched.
    fn note_unusable_secrets(&self, at: &At<String>) {
        match cookie_secrets::load(&self.folder.join(&at.value)) {
            Ok(_) => {}
            Err(Unusable::Broken(problem)) => self.problems.push(problem),
            Err(Unusable::Unreadable(why)) => {
                let message = format!("the cookie secret file {} {why}", quote(&at.value));
                let help = format!("{}; {}", cookie_secrets::HOW_TO_MAKE, self.looked_for(&at.value));
                self.problems.add(&at.span, message, help);
            }
        }
    }

    /// The token is read here for its errors alone, as the secrets are.
    fn build_admin(&self, spec: &AdminSpec) -> Admin {
        let file = &spec.token_file;
        let token_file = (!file.value.is_empty()).then(|| self.folder.join(&file.value));
        if let Some(why) = token_file.as_deref().and_then(|path| AdminToken::load(path).err()) {
            let message = format!("the token file {} {why}", quote(&file.value));
            self.problems.add(
                &file.span,
                message,
                format!("{}; {}", AdminToken::HOW_TO_MAKE, self.looked_for(&file.value)),
            );
        }
        Admin { listen: spec.listen.as_ref().map(|at| at.value), token_file }
    }

    fn build_state_dir(&self, at: &At<String>) -> Option<PathBuf> {
        let path = (!at.value.is_empty()).then(|| self.folder.join(&at.value))?;
        if let Err(why) = files::note_unwritable_folder(&path) {
            let message = format!("the state directory {} {why}", quote(&at.value));
            let help = format!("name a directory that the server's user may write to; {}", self.looked_for(&at.value));
            self.problems.add(&at.span, message, help);
        }
        Some(path)
    }

    fn build_geo(&self, spec: &GeoSpec) -> Geo {
        let databases = self.paths(&spec.databases.value, "location database", "an .mmdb file");
        let asn = &spec.asn_database;
        if !asn.value.is_empty() {
            self.note_unreadable(asn, "ASN database", "an .mmdb file");
        }
        let asn_database = (!asn.value.is_empty()).then(|| self.folder.join(&asn.value));
        let named = spec.databases.value.iter().chain([asn]).filter(|at| !at.value.is_empty());
        let named_at = named.map(|at| (self.folder.join(&at.value), self.problems.spot(at.span.clone()))).collect();
        Geo { databases, asn_database, named_at }
    }

    fn build_latency(&self, spec: &LatencySpec, region: &At<String>) -> Latency {
        Latency {
            switch_margin_ms: spec.switch_margin_ms,
            measurements: self.paths(&spec.measurements.value, "file of measurements", "a CSV file"),
            skip_bad_measurements: spec.skip_bad_measurements,
            hysteresis_ms: spec.hysteresis_ms,
            rebuild_interval: spec.rebuild_interval,
            rise_max_ms: spec.rise_max_ms,
            detours: spec.detours,
            learning: self.build_learning(&spec.learning, region),
        }
    }

    /// The files of a list, each once and readable.
    fn paths(&self, list: &[At<String>], what: &str, kind: &str) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = Vec::new();
        for at in list {
            let path = self.folder.join(&at.value);
            if paths.contains(&path) && !at.value.is_empty() {
                self.problems.add(&at.span, format!("{} stands here twice", quote(&at.value)), "remove one of the two");
            } else {
                self.note_unreadable(at, what, kind);
                paths.push(path);
            }
        }
        paths
    }

    /// That it holds what it should is for its reader to say.
    fn note_unreadable(&self, at: &At<String>, what: &str, kind: &str) {
        if at.value.is_empty() {
            self.problems.add(&at.span, format!("an empty path of a {what}"), format!("write the path of {kind}"));
        } else if let Err(why) = files::open(&self.folder.join(&at.value)) {
            let message = format!("the {what} {} {why}", quote(&at.value));
            self.problems.add(&at.span, message, self.looked_for(&at.value));
        }
    }

    /// Where a file was looked for, so that the person sees what a relative path means.
    fn looked_for(&self, path: &str) -> String {
        let full = self.folder.join(path);
        format!("looked for {}; paths are relative to the configuration file", quote(&full.display().to_string()))
    }
}
