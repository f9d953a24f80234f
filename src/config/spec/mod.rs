//! The shapes of the file: what was written, typed and within range, each value with its place. What one value means for
//! another is for `check` to say.

mod checks;
mod cluster;
mod damping;
mod endpoints;
mod host;
mod http_check;
mod learning;
mod regions;
mod server;
mod zones;

use toml::de::DeTable;

use super::{
    keys,
    section::{At, Entry, Problems, Section},
    value::quote,
};

pub(crate) use checks::{CheckSpec, KindSpec, Needed};
pub(crate) use cluster::ClusterSpec;
pub(crate) use damping::DampingSpec;
pub(crate) use host::{host_name, name_fault};
pub(crate) use learning::LearningSpec;
pub(crate) use regions::{LocationSpec, RegionSpec};
pub(crate) use server::{AdminSpec, EncryptedSpec, GeoSpec, LatencySpec, QueryLogSpec, SELF_SIGNED, ServerSpec};
pub(crate) use zones::{PolicyWord, RouteSpec, RuleSpec, ZoneSpec};

/// The whole file.
#[derive(Debug)]
pub(crate) struct Spec {
    pub server: ServerSpec,
    pub query_log: QueryLogSpec,
    pub admin: AdminSpec,
    pub geo: GeoSpec,
    pub latency: LatencySpec,
    /// `None`: this server stands alone.
    pub cluster: Option<ClusterSpec>,
    pub checks: Vec<CheckSpec>,
    pub regions: Vec<RegionSpec>,
    pub zones: Vec<ZoneSpec>,
}

/// Reads the tree of a file; what is wrong goes to `problems`.
pub(crate) fn read(tree: &DeTable<'_>, problems: &Problems) -> Spec {
    let file = Section::open(problems, &keys::FILE, "the file".into(), tree, 0..0);
    let empty = DeTable::new();
    let section = |name, schema| {
        let absent = || Section::open_unchecked(problems, schema, String::new(), &empty, 0..0);
        file.child(name, schema).unwrap_or_else(absent)
    };
    let named = |name, example| -> Vec<Entry<'_>> {
        let entries = file.entries(name, example);
        for entry in entries.iter().filter(|_| name != "zones") {
            note_unfit_name(&entry.name, problems);
        }
        entries
    };
    Spec {
        server: server::read_server(&section("server", &keys::SERVER)),
        query_log: server::read_query_log(&section("query-log", &keys::QUERY_LOG)),
        admin: server::read_admin(&section("admin", &keys::ADMIN)),
        geo: server::read_geo(&section("geo", &keys::GEO)),
        latency: server::read_latency(&section("latency", &keys::LATENCY)),
        cluster: file.child("cluster", &keys::CLUSTER).map(|section| cluster::read(&section)),
        checks: named("checks", "[checks.web]").iter().map(|e| checks::read(e, problems)).collect(),
        regions: named("regions", "[regions.us]").iter().map(|e| regions::read(e, problems)).collect(),
        zones: named("zones", "[zones.\"geo.example.com\"]").iter().map(|e| zones::read(e, problems)).collect(),
    }
}

/// Names of checks and regions: short, printable, and without the slash that parts a region from its endpoint on the command
/// line.
fn note_unfit_name(name: &At<String>, problems: &Problems) {
    const BYTES_MAX: usize = 64;
    let text = &name.value;
    let fits = !text.trim().is_empty() && !text.contains(|c: char| c.is_control() || c == '/');
    if !fits || text.len() > BYTES_MAX {
        let help = "write 1 to 64 printable characters without a slash, for example \"eu-west\"";
        problems.add(&name.span, format!("{} cannot be a name here", quote(text)), help);
    }
}
