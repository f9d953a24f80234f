//! The validated configuration: what the rest of the program uses. Every value here is within its range and every reference
//! resolved; nothing in it needs checking again.

use std::{collections::BTreeMap, net::IpAddr, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;

use super::{
    identity::{IdentityFiles, TlsIdentity},
    report::Spot,
};
use crate::{
    geo::{Continent, Coordinates, CountryCode},
    health::{Check, Endpoint},
    sys::privileges::Account,
    wire::Name,
};

/// Most regions a configuration may have: rankings keep a region in one byte.
pub const REGIONS_MAX: usize = 250;

/// A region by its position in the file; file order is the tie-break everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegionId(pub u8);

impl RegionId {
    /// As an index into [`Config::regions`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[server]` and its limits.
    pub server: Server,
    /// `[query-log]`; `None`: there is none.
    pub query_log: Option<QueryLog>,
    /// `[admin]`.
    pub admin: Admin,
    /// `[geo]`.
    pub geo: Geo,
    /// `[latency]`.
    pub latency: Latency,
    /// `[cluster]`; `None`: this server stands alone.
    pub cluster: Option<Cluster>,
    /// `[checks.*]` in file order.
    pub checks: Vec<Arc<Check>>,
    /// `[regions.*]` in file order, at most [`REGIONS_MAX`].
    pub regions: Vec<Region>,
    /// `[zones.*]` in file order.
    pub zones: Vec<Zone>,
}

/// `[server]`.
#[derive(Debug, Clone)]
pub struct Server {
    /// Addresses to serve UDP and TCP on.
    pub listen: Vec<Listen>,
    /// UDP workers; 0: one a core.
    pub threads: usize,
    /// NSID and `CH TXT id.server`; empty: not told.
    pub identity: String,
    /// Where the secrets of the server cookies are; `None`: they are made at start.
    pub cookie_secret_file: Option<PathBuf>,
    /// Where state is kept across restarts; `None`: in memory only. It can be written to, or made.
    pub state_dir: Option<PathBuf>,
    /// Who the process becomes once its sockets are open; `None`: it stays who it is. Never root.
    pub user: Option<Account>,
    /// The process restricts itself: files, system calls, core dumps.
    pub sandbox: bool,
    /// The region that this server stands in.
    pub region: Option<RegionId>,
    /// Changes of the configuration file, and of zone files and keys that it names, are taken up by themselves.
    pub watch: bool,
    /// `[server.limits]`.
    pub limits: Limits,
    /// `[server.encrypted]`; `None`: plain DNS only.
    pub encrypted: Option<Encrypted>,
}

/// `[server.encrypted]`.
#[derive(Debug, Clone)]
pub struct Encrypted {
    /// Addresses for DNS over TLS.
    pub dot: Vec<SocketAddr>,
    /// Addresses for DNS over QUIC.
    pub doq: Vec<SocketAddr>,
    /// Addresses for DNS over HTTPS.
    pub doh: Vec<SocketAddr>,
    /// Where the certificate and its key were read from.
    pub files: IdentityFiles,
    /// What they held.
    pub identity: TlsIdentity,
}

/// One address to serve on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// The address; an unspecified one answers from the address asked.
    pub address: SocketAddr,
    /// From the built-in default and not from the file: skipped with a log line where the host lacks it.
    pub is_default: bool,
}

/// `[server.limits]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// TCP connections of the whole server.
    pub tcp_connections: usize,
    /// TCP connections of one client (a /32 or /56).
    pub tcp_per_client: usize,
    /// Idle time after which a TCP connection is closed, and the time in which one message must arrive whole.
    pub tcp_idle: Duration,
    /// EDNS payload offered and cap on UDP answers, in bytes, 512 to 4096.
    pub udp_payload: u16,
    /// Responses over UDP to one client network for one owner, per second; 0: without limit.
    pub responses_per_second: u32,
}

/// `[query-log]`.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryLog {
    /// Where the lines go.
    pub target: LogTarget,
    /// The share of queries that is logged, 0 to 1.
    pub sample: f64,
    /// Queries that may wait to be written, for each thread that answers.
    pub queue_max: usize,
}

/// Where the lines of the query log go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// To the standard output.
    Stdout,
    /// To the end of a file.
    File(PathBuf),
}

/// `[admin]`.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Where the admin interface listens; `None`: off.
    pub listen: Option<SocketAddr>,
    /// Where the token is that changes need; `None`: there is none.
    pub token_file: Option<PathBuf>,
}

/// `[geo]`. Paths are resolved against the configuration file's folder.
#[derive(Debug, Clone)]
pub struct Geo {
    /// Location databases; empty: the built-in table.
    pub databases: Vec<PathBuf>,
    /// Database of autonomous systems.
    pub asn_database: Option<PathBuf>,
    /// Where they are named.
    pub named_at: Vec<(PathBuf, Spot)>,
}

/// `[latency]`.
#[derive(Debug, Clone)]
pub struct Latency {
    /// A range may take its neighbour's ranking where that costs it less than this, in milliseconds.
    pub switch_margin_ms: f32,
    /// Files of measured round trips, resolved against the configuration file's folder.
    pub measurements: Vec<PathBuf>,
    /// Wrong lines of those files are left out instead of being an error.
    pub skip_bad_measurements: bool,
    /// A measured network changes region only where another is better by more than this, in milliseconds.
    pub hysteresis_ms: f32,
    /// Shortest time from one taking up of what was learnt to the next.
    pub rebuild_interval: Duration,
    /// Most that is added to a region's estimates while connecting to it takes longer than usual, in milliseconds; 0: nothing is.
    pub rise_max_ms: f32,
    /// Known detours of the cables count where nothing was measured, too.
    pub detours: bool,
    /// What is measured in passing.
    pub learning: Learning,
}

/// What is measured in passing: the keys `learn` and `prospect` of `[latency]`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Learning {
    /// The round trips of clients that come by TCP are measured. Then [`Server::region`] is known.
    pub is_on: bool,
    /// The share of queries over UDP, from networks without fresh data, that ask the client to come by TCP: 0 to 1.
    pub prospect: f64,
}

/// `[cluster]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// NATS servers, `nats://host:port` or `tls://host:port`; never empty.
    pub nats: Vec<String>,
    /// Who we are to NATS: a .creds file, or a file with the seed of an nkey.
    pub credentials: Option<PathBuf>,
    /// Who signs the certificates of the NATS servers; `None`: the host's authorities.
    pub ca: Option<PathBuf>,
    /// The name of this server among the others: letters, digits, `-` and `_`.
    pub node: String,
    /// How subjects begin.
    pub prefix: String,
    /// More than this share of the servers must see a target down, 0 to 0.99.
    pub quorum: f64,
}

/// `[regions.NAME]`.
#[derive(Debug, Clone)]
pub struct Region {
    /// NAME.
    pub name: String,
    /// `location` as written, e.g. `aws:eu-west-1`, or the coordinates.
    pub location: String,
    /// Where that is.
    pub coordinates: Coordinates,
    /// Its endpoints; never empty.
    pub endpoints: Endpoints,
    /// Its check; without one the region always counts as healthy.
    pub check: Option<Arc<Check>>,
    /// How many endpoints must be up for the region to count.
    pub min_healthy: MinHealthy,
    /// Added to this region's estimates, in milliseconds; may be negative.
    pub bias_ms: f32,
}

/// The endpoints of a region: all addresses, or exactly one name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoints {
    /// Answered as A and AAAA. No address occurs twice.
    Addresses(Vec<WeightedAddress>),
    /// Answered as a CNAME.
    Name(Name),
}

/// An address and its share where not all of a region's endpoints fit into one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WeightedAddress {
    /// The address.
    pub address: IpAddr,
    /// Relative weight, 0 to 1000; not all of a list's are 0.
    pub weight: u32,
}

impl Endpoints {
    /// What the probes of this set go to, in order.
    pub fn targets(&self) -> Vec<Endpoint> {
        match self {
            Endpoints::Addresses(list) => list.iter().map(|e| Endpoint::Address(e.address)).collect(),
            Endpoints::Name(name) => vec![Endpoint::Name(name.to_string().trim_end_matches('.').to_string())],
        }
    }
}

/// `min-healthy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MinHealthy {
    /// At least so many endpoints, from 1 up.
    Count(u32),
    /// At least this share of them, 1 to 100, rounded up.
    Percent(u8),
}

impl MinHealthy {
    /// How many of `total` endpoints must be up: at least 1, at most `total`.
    pub fn of(self, total: usize) -> usize {
        let wanted = match self {
            MinHealthy::Count(n) => n as usize,
            MinHealthy::Percent(p) => (total * usize::from(p)).div_ceil(100),
        };
        wanted.clamp(1, total.max(1))
    }
}

/// `[zones."NAME"]`.
#[derive(Debug, Clone)]
pub struct Zone {
    /// The apex.
    pub origin: Name,
    /// Name servers; the first is the SOA's primary. Empty only when the static records bring SOA and NS.
    pub nameservers: Vec<Name>,
    /// Glue for name servers inside the zone.
    pub addresses: BTreeMap<Name, Vec<IpAddr>>,
    /// SOA RNAME.
    pub contact: Name,
    /// TTL of static records without their own, in seconds.
    pub ttl_s: u32,
    /// SOA minimum, in seconds.
    pub negative_ttl_s: u32,
    /// Static records: the zone file's and the inline ones.
    pub texts: Vec<ZoneText>,
    /// Signing keys; none: the zone is not signed. All of them sign, the first is the one that the zone above is to know.
    pub dnssec_keys: Vec<KeyText>,
    /// The zone above may know that this one is signed: CDS, CDNSKEY, and DS in a zone above that is served here.
    pub dnssec_announce: bool,
    /// Routes in file order.
    pub routes: Vec<Route>,
    /// Where the zone's header stands.
    pub spot: Spot,
}

/// Zone-file text: a whole file, or the inline records of the configuration.
#[derive(Debug, Clone)]
pub struct ZoneText {
    /// Where the text stands: a file of its own, or a stretch of the configuration file when the inline string stands there
    /// letter for letter (then line and column of a problem are those of the configuration file).
    pub spot: Spot,
    /// The folder that `$INCLUDE` may read from; `None`: inline text, nothing may be included.
    pub folder: Option<PathBuf>,
}

/// A file that holds a signing key, read but not understood yet.
#[derive(Debug, Clone)]
pub struct KeyText {
    /// The file.
    pub path: PathBuf,
    /// What it holds.
    pub text: Secret,
    /// Where the configuration names it.
    pub spot: Spot,
}

/// A text that no log and no error message may show.
#[derive(Clone)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl ZoneText {
    /// The text itself.
    pub fn text(&self) -> &str {
        &self.spot.source.text[self.spot.span.clone()]
    }
}

/// `[zones."NAME".routes."OWNER"]`.
#[derive(Debug, Clone)]
pub struct Route {
    /// Absolute owner name, inside the zone; may begin with `*`.
    pub owner: Name,
    /// OWNER as written, for people and metrics.
    pub label: String,
    /// Allowed regions in list order; never empty, none twice.
    pub regions: Vec<RegionId>,
    /// How they are ranked.
    pub policy: Policy,
    /// Endpoints that stand in for a region's own on this route.
    pub endpoints: BTreeMap<RegionId, Endpoints>,
    /// Check that stands in for the regions' own on this route.
    pub check: Option<Arc<Check>>,
    /// TTL of its answers in seconds.
    pub ttl_s: u32,
    /// Most addresses in one answer, from 1 up.
    pub max_answers: u16,
    /// What to answer when no allowed region is usable.
    pub when_all_down: WhenAllDown,
    /// Data of its HTTPS record as zone files write it, without hints, and where it stands.
    pub https: Option<(String, Spot)>,
    /// Which clients are steered to which regions; the first match wins.
    pub rules: Vec<Rule>,
    /// Where the owner stands in the file.
    pub spot: Spot,
}

/// How a route ranks its regions.
#[derive(Debug, Clone, PartialEq)]
pub enum Policy {
    /// Lowest estimated milliseconds first.
    Latency,
    /// In list order.
    Failover,
    /// In proportion to the weights, by hash of the client's network. One weight per allowed region, in the order of
    /// [`Route::regions`]; not all 0.
    Weighted(Vec<u32>),
}

/// What a route answers when no allowed region is usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenAllDown {
    /// The ranking's first allowed region with all its endpoints.
    AnswerAll,
    /// SERVFAIL.
    ServFail,
    /// NOERROR without data.
    NoData,
}

/// `[[….rules]]`.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Any of these makes the rule match; never empty.
    pub clients: Vec<ClientMatch>,
    /// The only regions such clients are steered to; a subset of the route's regions, in list order, never empty.
    pub regions: Vec<RegionId>,
}

/// One condition on a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientMatch {
    /// `continent:EU`
    Continent(Continent),
    /// `country:CH`
    Country(CountryCode),
    /// `asn:64500`
    Asn(u32),
    /// `10.0.0.0/8`
    Prefix(IpNet),
}

impl Route {
    /// The endpoints and the check that `region` has on this route.
    pub fn pool<'c>(&'c self, config: &'c Config, region: RegionId) -> (&'c Endpoints, Option<&'c Arc<Check>>) {
        let home = &config.regions[region.index()];
        (self.endpoints.get(&region).unwrap_or(&home.endpoints), self.check.as_ref().or(home.check.as_ref()))
    }
}
