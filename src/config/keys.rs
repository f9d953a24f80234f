//! The catalogue: every section and key of the configuration file, its type, range and default, one line each. The reader
//! takes ranges and defaults from here, and a test holds `docs/configuration.md` to it.

use super::{
    model::REGIONS_MAX,
    value::{listed, show_ms},
};

/// Most elements of any list in the file.
pub const LIST_MAX: usize = 10_000;
/// Most entries of any table with free names: checks, zones, routes of a zone.
pub const ENTRIES_MAX: usize = 100_000;
/// Greatest weight, of an endpoint or of a region.
pub const WEIGHT_MAX: i64 = 1000;
/// Longest time to live that may be asked for, in seconds: a week.
pub const TTL_S_MAX: i64 = 604_800;

/// One section of the file.
#[derive(Debug)]
pub struct Schema {
    /// As the documentation heads it: `[checks.NAME]`.
    pub title: &'static str,
    /// Its keys, in the order of the documentation.
    pub keys: &'static [Key],
    /// Sections inside it.
    pub sections: &'static [&'static str],
    /// Sections inside it that this version does not know how to serve.
    pub later_sections: &'static [&'static str],
}

/// One key of a section.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What may be written.
    pub form: Form,
    /// What holds when it is absent.
    pub default: Absent,
    /// False: this version has not got what the key asks for, so that nothing but the default may be written.
    pub supported: bool,
}

/// What may be written as a value.
#[derive(Debug)]
pub enum Form {
    /// A whole number in an inclusive range.
    Integer(i64, i64),
    /// A decimal number in an inclusive range.
    Number(f64, f64),
    /// A duration in an inclusive range, in milliseconds.
    Duration(i64, i64),
    /// A string of at most so many bytes.
    Text(usize),
    /// A string with a meaning of its own: what it is.
    Word(&'static str),
    /// A list of strings, at most so many: what they are. One string alone stands for a list of one.
    Texts(usize, &'static str),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
    /// A table: what it maps.
    Table(&'static str),
    /// Something else: its type and its range.
    Other(&'static str, &'static str),
}

/// What holds when a key is absent.
#[derive(Debug)]
pub enum Absent {
    /// An error.
    Required,
    /// A whole number.
    Integer(i64),
    /// A decimal number.
    Number(f64),
    /// A duration in milliseconds.
    Duration(i64),
    /// A string.
    Text(&'static str),
    /// A list of strings.
    Texts(&'static [&'static str]),
    /// `true` or `false`.
    Flag(bool),
    /// The empty table.
    Table,
    /// Something that depends on other keys, in words.
    Said(&'static str),
}

const fn key(name: &'static str, form: Form, default: Absent) -> Key {
    Key { name, form, default, supported: true }
}

use Absent as D;
use Form as F;

/// The file itself.
pub static FILE: Schema = Schema {
    title: "the file",
    keys: &[],
    sections: &["server", "query-log", "admin", "geo", "latency", "cluster", "checks", "regions", "zones"],
    later_sections: &[],
};

/// `[server]`
pub static SERVER: Schema = Schema {
    title: "[server]",
    keys: &[
        key("listen", F::Texts(64, "address:port"), D::Texts(&["127.0.0.1:5300", "[::1]:5300"])),
        key("threads", F::Integer(0, 1024), D::Integer(0)),
        key("identity", F::Text(255), D::Text("")),
        key("state-dir", F::Word("path"), D::Text("")),
        key("region", F::Word("name of a region"), D::Text("")),
        key("user", F::Word("name, uid or uid:gid"), D::Text("")),
        key("sandbox", F::Flag, D::Flag(true)),
        key("cookie-secret-file", F::Word("path"), D::Text("")),
        key("watch", F::Flag, D::Flag(false)),
    ],
    sections: &["limits", "encrypted"],
    later_sections: &[],
};

/// `[server.limits]`
pub static LIMITS: Schema = Schema {
    title: "[server.limits]",
    keys: &[
        key("tcp-connections", F::Integer(1, 1_000_000), D::Integer(1000)),
        key("tcp-per-client", F::Integer(1, 1_000_000), D::Integer(20)),
        key("tcp-idle", F::Duration(100, 3_600_000), D::Duration(10_000)),
        key("udp-payload", F::Integer(512, 4096), D::Integer(1232)),
        key("responses-per-second", F::Integer(0, 1_000_000), D::Integer(0)),
    ],
    sections: &[],
    later_sections: &[],
};

/// `[server.encrypted]`
pub static ENCRYPTED: Schema = Schema {
    title: "[server.encrypted]",
    keys: &[
        key("dot", F::Texts(64, "address or address:port"), D::Texts(&[])),
        key("doq", F::Texts(64, "address or address:port"), D::Texts(&[])),
        key("doh", F::Texts(64, "address or address:port"), D::Texts(&[])),
        key("certificate", F::Word("path"), D::Required),
        key("key", F::Word("path"), D::Required),
    ],
    sections: &[],
    later_sections: &[],
};

/// `[query-log]`
pub static QUERY_LOG: Schema = Schema {
    title: "[query-log]",
    keys: &[
        key("file", F::Word("path, or \"-\" for standard output"), D::Text("")),
        key("sample", F::Number(0.0, 1.0), D::Number(1.0)),
        key("max-queue", F::Integer(100, 1_000_000), D::Integer(10_000)),
    ],
    sections: &[],
    later_sections: &[],
};

/// `[admin]`
pub static ADMIN: Schema = Schema {
    title: "[admin]",
    keys: &[
        key("listen", F::Word("address:port"), D::Text("127.0.0.1:8053")),
        key("token-file", F::Word("path"), D::Text("")),
    ],
    sections: &[],
    later_sections: &[],
};

/// `[geo]`
pub static GEO: Schema = Schema {
    title: "[geo]",
    keys: &[key("database", F::Texts(16, "path"), D::Texts(&[])), key("asn-database", F::Word("path"), D::Text(""))],
    sections: &[],
    later_sections: &[],
};

/// `[latency]`
pub static LATENCY: Schema = Schema {
    title: "[latency]",
    keys: &[
        key("switch-margin", F::Duration(0, 1000), D::Duration(5)),
        key("measurements", F::Texts(64, "path"), D::Texts(&[])),
        key("skip-bad-measurements", F::Flag, D::Flag(false)),
        key("hysteresis", F::Duration(0, 1000), D::Duration(5)),
        key("rebuild-interval", F::Duration(1000, 86_400_000), D::Duration(300_000)),
        key("rise-max", F::Duration(0, 1000), D::Duration(250)),
        key("detours", F::Flag, D::Flag(false)),
        key("learn", F::Flag, D::Flag(false)),
        key("prospect", F::Number(0.0, 1.0), D::Number(0.0)),
    ],
    sections: &[],
    later_sections: &[],
};

/// `[cluster]`
pub static CLUSTER: Schema = Schema {
    title: "[cluster]",
    keys: &[
        key("nats", F::Texts(16, "nats://host:port or tls://host:port"), D::Required),
        key("credentials", F::Word("path"), D::Text("")),
        key("ca", F::Word("path"), D::Text("")),
        key("node", F::Word("name of this server"), D::Said("the host name, with `-` for each dot")),
        key("prefix", F::Word("name"), D::Text("isochrone")),
        key("quorum", F::Number(0.0, 0.99), D::Number(0.5)),
    ],
    sections: &[],
    later_sections: &[],
};

/// `[checks.NAME]`
pub static CHECK: Schema = Schema {
    title: "[checks.NAME]",
    keys: &[
        key("type", F::Choice(&CHECK_TYPES), D::Required),
        key("port", F::Integer(1, 65_535), D::Said("80 for http, 443 for https and for grpc with tls; else required")),
        key("path", F::Text(2048), D::Text("/")),
        key("host", F::Word("host name or address"), D::Said("the endpoint")),
        key("method", F::Choice(&["GET", "HEAD", "POST", "OPTIONS"]), D::Text("GET")),
        key("headers", F::Table("name = value"), D::Table),
        key("http-version", F::Choice(&["auto", "1.1", "2"]), D::Text("auto")),
        key("expect-status", F::Texts(100, "status"), D::Texts(&["2xx", "3xx"])),
        key("expect-body", F::Text(5120), D::Text("")),
        key("tls", F::Flag, D::Flag(false)),
        key("verify-tls", F::Flag, D::Flag(true)),
        key("service", F::Text(1024), D::Text("")),
        key("checks", F::Texts(100, "name of a check"), D::Said("required for all-of, any-of and at-least")),
        key("count", F::Integer(1, 100), D::Said("required for at-least")),
        key("interval", F::Duration(100, 86_400_000), D::Duration(10_000)),
        key("fast-interval", F::Duration(50, 86_400_000), D::Said("1s, or the interval if that is less")),
        key("timeout", F::Duration(10, 60_000), D::Said("4s, or half the interval if that is less")),
        key("fall", F::Integer(1, 100), D::Said("3; 1 for push")),
        key("rise", F::Integer(1, 100), D::Integer(2)),
        key("flap-changes", F::Integer(0, 50), D::Integer(8)),
        key("flap-window", F::Duration(1_000, 86_400_000), D::Duration(600_000)),
        key("hold-down", F::Duration(1_000, 86_400_000), D::Duration(60_000)),
        key("hold-down-max", F::Duration(1_000, 86_400_000), D::Said("30m, or the hold-down if that is more")),
    ],
    sections: &[],
    later_sections: &[],
};

/// What `type` of a check may be.
pub const CHECK_TYPES: [&str; 8] = ["http", "https", "tcp", "grpc", "push", "all-of", "any-of", "at-least"];

const HTTP: &[&str] = &["http", "https"];
const ASKING: &[&str] = &["http", "https", "grpc"];
const PROBED: &[&str] = &["http", "https", "tcp", "grpc"];
const REPORTED: &[&str] = &["http", "https", "tcp", "grpc", "push"];

/// Every key of a check but `type`, and the types that it means something to.
pub const CHECK_KEYS: [(&str, &[&str]); 22] = [
    ("port", PROBED),
    ("path", HTTP),
    ("host", ASKING),
    ("method", HTTP),
    ("headers", HTTP),
    ("http-version", HTTP),
    ("expect-status", HTTP),
    ("expect-body", HTTP),
    ("tls", &["grpc"]),
    ("verify-tls", ASKING),
    ("service", &["grpc"]),
    ("checks", &["all-of", "any-of", "at-least"]),
    ("count", &["at-least"]),
    ("interval", REPORTED),
    ("fast-interval", PROBED),
    ("timeout", PROBED),
    ("fall", REPORTED),
    ("rise", REPORTED),
    ("flap-changes", REPORTED),
    ("flap-window", REPORTED),
    ("hold-down", REPORTED),
    ("hold-down-max", REPORTED),
];

/// `[regions.NAME]`
pub static REGION: Schema = Schema {
    title: "[regions.NAME]",
    keys: &[
        key("location", F::Other("string or table", "a known place or coordinates"), D::Required),
        key("endpoints", F::Other("list of strings or tables", "1 to 1000 addresses, or one host name"), D::Required),
        key("check", F::Word("name of a check"), D::Text("")),
        key("min-healthy", F::Other("whole number or string", "1 to 1000, or \"1%\" to \"100%\""), D::Integer(1)),
        key("bias", F::Duration(-10_000, 10_000), D::Duration(0)),
    ],
    sections: &[],
    later_sections: &[],
};

/// `location = { … }`
pub static COORDINATES: Schema = Schema {
    title: "location",
    keys: &[
        key("latitude", F::Number(-90.0, 90.0), D::Required),
        key("longitude", F::Number(-180.0, 180.0), D::Required),
    ],
    sections: &[],
    later_sections: &[],
};

/// `endpoints = [{ … }]`
pub static ENDPOINT: Schema = Schema {
    title: "endpoints",
    keys: &[key("address", F::Word("address"), D::Required), key("weight", F::Integer(0, WEIGHT_MAX), D::Integer(1))],
    sections: &[],
    later_sections: &[],
};

/// `[zones."NAME"]`
pub static ZONE: Schema = Schema {
    title: "[zones.\"NAME\"]",
    keys: &[
        key("nameservers", F::Texts(20, "absolute name"), D::Said("required unless file or records give SOA and NS")),
        key("addresses", F::Table("name server = list of addresses"), D::Table),
        key("contact", F::Word("mail address"), D::Said("hostmaster@ the zone")),
        key("ttl", F::Integer(0, TTL_S_MAX), D::Integer(60)),
        key("negative-ttl", F::Integer(0, 86_400), D::Integer(60)),
        key("file", F::Word("path"), D::Text("")),
        key("records", F::Word("zone-file text"), D::Text("")),
        key("dnssec-key", F::Texts(4, "path"), D::Texts(&[])),
        key("dnssec-announce", F::Flag, D::Flag(true)),
    ],
    sections: &["routes"],
    later_sections: &[],
};

/// `[zones."NAME".routes."OWNER"]`
pub static ROUTE: Schema = Schema {
    title: "[zones.\"NAME\".routes.\"OWNER\"]",
    keys: &[
        key("regions", F::Texts(REGIONS_MAX, "name of a region"), D::Said("every region")),
        key("policy", F::Choice(&["latency", "failover", "weighted"]), D::Text("latency")),
        key("weights", F::Table("region = 0 to 1000"), D::Said("1 for each region")),
        key("endpoints", F::Table("region = endpoints"), D::Table),
        key("check", F::Word("name of a check"), D::Text("")),
        key("ttl", F::Integer(0, TTL_S_MAX), D::Said("the zone's ttl")),
        key("max-answers", F::Integer(1, 1000), D::Integer(8)),
        key("when-all-down", F::Choice(&["answer-all", "servfail", "nodata"]), D::Text("answer-all")),
        key("https", F::Word("data of an HTTPS record"), D::Text("")),
    ],
    sections: &["rules"],
    later_sections: &[],
};

/// `[[zones."NAME".routes."OWNER".rules]]`
pub static RULE: Schema = Schema {
    title: "[[zones.\"NAME\".routes.\"OWNER\".rules]]",
    keys: &[
        key("clients", F::Texts(LIST_MAX, "continent:XX, country:XX, asn:N or prefix"), D::Required),
        key("regions", F::Texts(REGIONS_MAX, "name of one of the route's regions"), D::Required),
    ],
    sections: &[],
    later_sections: &[],
};

/// Every section that has keys, in the order of the documentation.
pub static SECTIONS: [&Schema; 15] = [
    &SERVER,
    &LIMITS,
    &ENCRYPTED,
    &QUERY_LOG,
    &ADMIN,
    &GEO,
    &LATENCY,
    &CLUSTER,
    &CHECK,
    &REGION,
    &COORDINATES,
    &ENDPOINT,
    &ZONE,
    &ROUTE,
    &RULE,
];

impl Schema {
    /// The key called `name`.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// True when the section stands under a name of the user's.
    pub fn is_named(&self) -> bool {
        self.title.ends_with("NAME]") || self.title.ends_with("\"]")
    }

    /// Names that may be written here.
    pub fn names(&self) -> Vec<&'static str> {
        self.keys.iter().filter(|k| k.supported).map(|k| k.name).chain(self.sections.iter().copied()).collect()
    }
}

impl Form {
    /// The type, as the documentation calls it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Form::Integer(..) => "whole number",
            Form::Number(..) => "number",
            Form::Duration(..) => "duration",
            Form::Text(_) | Form::Word(_) | Form::Choice(_) => "string",
            Form::Texts(..) => "list of strings",
            Form::Flag => "true or false",
            Form::Table(_) => "table",
            Form::Other(name, _) => name,
        }
    }

    /// What is allowed, as the documentation says it.
    pub fn range(&self) -> String {
        match self {
            Form::Integer(low, high) => format!("{low} to {high}"),
            Form::Number(low, high) => format!("{low} to {high}"),
            Form::Duration(low, high) => format!("{} to {}", show_ms(*low), show_ms(*high)),
            Form::Text(max) => format!("at most {max} bytes"),
            Form::Word(what) | Form::Table(what) | Form::Other(_, what) => (*what).to_string(),
            Form::Texts(max, what) => format!("{what}; at most {max}"),
            Form::Choice(words) => listed(words, "or"),
            Form::Flag => String::new(),
        }
    }
}

impl Absent {
    /// As it would be written in the file, or in words; `required` where there is none.
    pub fn shown(&self) -> String {
        match self {
            Absent::Required => "required".into(),
            Absent::Integer(n) => n.to_string(),
            Absent::Number(n) => format!("{n:?}"),
            Absent::Duration(ms) => format!("\"{}\"", show_ms(*ms)),
            Absent::Text(text) => format!("{text:?}"),
            Absent::Texts(list) => format!("{list:?}"),
            Absent::Flag(flag) => flag.to_string(),
            Absent::Table => "{}".into(),
            Absent::Said(words) => (*words).into(),
        }
    }

    /// As the documentation shows it: what can be written in backticks, what is said in words without.
    pub fn documented(&self) -> String {
        match self {
            Absent::Required | Absent::Said(_) => self.shown(),
            _ => format!("`{}`", self.shown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_once_and_in_kebab_case() {
        for schema in SECTIONS {
            for (at, key) in schema.keys.iter().enumerate() {
                assert!(key.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", key.name);
                assert!(schema.keys[..at].iter().all(|other| other.name != key.name), "{}", key.name);
            }
        }
    }

    #[test]
    fn every_key_of_a_check_says_for_which_types_it_is() {
        let said: Vec<&str> = std::iter::once("type").chain(CHECK_KEYS.iter().map(|(key, _)| *key)).collect();
        assert_eq!(said, CHECK.keys.iter().map(|key| key.name).collect::<Vec<_>>());
        for (key, types) in CHECK_KEYS {
            assert!(types.iter().all(|kind| CHECK_TYPES.contains(kind)), "{key}");
        }
    }
}
