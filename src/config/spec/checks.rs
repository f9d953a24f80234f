//! `[checks.NAME]`: of which type it is, and what that type takes.

use super::{
    damping::{self, DampingSpec},
    http_check::{self, read_host},
};
use crate::{
    config::{
        keys::{CHECK, CHECK_KEYS, CHECK_TYPES},
        section::{At, Entry, Origin, Problems, Section},
        value::{one_of, quote},
    },
    health::{CheckKind, GrpcCheck, HttpCheck},
};

/// One check.
#[derive(Debug)]
pub(crate) struct CheckSpec {
    pub name: At<String>,
    /// `None`: wrong, and noted.
    pub kind: Option<KindSpec>,
    pub interval_ms: At<i64>,
    pub fast_interval_ms: At<i64>,
    pub timeout_ms: At<i64>,
    pub fall: u32,
    pub rise: u32,
    pub damping: DampingSpec,
}

/// What a check does.
#[derive(Debug)]
pub(crate) enum KindSpec {
    /// It stands alone.
    Alone(CheckKind),
    /// It follows from others.
    Calculated {
        needed: Needed,
        /// The others' names.
        checks: At<Vec<At<String>>>,
    },
}

/// How many of the others must be up.
#[derive(Debug)]
pub(crate) enum Needed {
    All,
    Any,
    AtLeast(At<i64>),
}

/// A heartbeat that did not come within a whole interval is no noise on the way, as a lost packet is: one is enough.
const PUSH_FALL: u32 = 1;
const FALL: u32 = 3;

pub(super) fn read(entry: &Entry<'_>, problems: &Problems) -> CheckSpec {
    let label = format!("[checks.{}]", entry.name.value);
    let section = Section::open(problems, &CHECK, label, entry.table, entry.span.clone());
    let word = read_type(&section);
    let kind = read_kind(&section, word, &entry.name.value);
    if let Some(word) = word {
        note_keys_of_others(&section, word);
    }
    let interval = section.duration_ms("interval");
    let unless_given = |name, default_ms: i64| {
        let value = section.duration_ms(name);
        if value.origin == Origin::Default { At { value: default_ms, ..value } } else { value }
    };
    let fall = section.integer("fall");
    let is_push = word == Some("push");
    CheckSpec {
        name: entry.name.clone(),
        kind,
        // What is to come within the interval is no sooner known to be missing.
        fast_interval_ms: unless_given(
            "fast-interval",
            if is_push { interval.value } else { interval.value.min(1000) },
        ),
        timeout_ms: unless_given("timeout", (interval.value / 2).min(4000)),
        interval_ms: interval,
        fall: match fall.origin {
            Origin::Default if is_push => PUSH_FALL,
            Origin::Default => FALL,
            _ => fall.value as u32,
        },
        rise: section.integer("rise").value as u32,
        damping: damping::read(&section),
    }
}

/// The type; `None`: missing or wrong, and noted.
fn read_type(section: &Section<'_>) -> Option<&'static str> {
    if !section.has("type") {
        section.note_missing("type", format!("write type = \"http\", or another of {}", one_of(&CHECK_TYPES[1..])));
    }
    let word = section.choice("type");
    word.is_given().then(|| CHECK_TYPES[word.value])
}

/// Reads every key, of whatever type, so that a wrong value is told even where the key does not belong.
fn read_kind(section: &Section<'_>, word: Option<&'static str>, name: &str) -> Option<KindSpec> {
    let port = section.integer("port");
    let http = http_check::read(section);
    let tls = section.flag("tls");
    let service = section.text("service");
    let checks = section.texts("checks");
    let count = section.integer("count");
    let port_or = |default| if section.has("port") { port.value as u16 } else { default };
    let kind = match word? {
        "http" => CheckKind::Http(HttpCheck { tls: false, port: port_or(80), ..http }),
        "https" => CheckKind::Http(HttpCheck { tls: true, port: port_or(443), ..http }),
        "tcp" => {
            if !section.has("port") {
                section.note_missing("port", "a check of type `tcp` needs a port: write port = 443");
            }
            CheckKind::Tcp { port: port_or(0) }
        }
        "grpc" => {
            if !section.has("port") && !tls.value && tls.is_sound() {
                let help = "a check of type `grpc` without TLS needs a port: write port = 50051, or tls = true";
                section.note_missing("port", help);
            }
            CheckKind::Grpc(GrpcCheck {
                tls: tls.value,
                verify_tls: http.verify_tls,
                port: port_or(443),
                host: read_host(section),
                service: service.value,
            })
        }
        "push" => CheckKind::Push { name: name.to_string() },
        calculated => return Some(read_calculated(section, calculated, checks, count)),
    };
    Some(KindSpec::Alone(kind))
}

fn read_calculated(section: &Section<'_>, word: &str, checks: At<Vec<At<String>>>, count: At<i64>) -> KindSpec {
    let example = "write checks = [\"web\", \"db\"], the names of other checks";
    if !section.has("checks") {
        section.note_missing("checks", example);
    } else if checks.is_given() && checks.value.is_empty() {
        section.problems.add(&checks.span, "`checks` is empty", example);
    }
    let needed = match word {
        "all-of" => Needed::All,
        "any-of" => Needed::Any,
        _ => {
            if !section.has("count") {
                section.note_missing("count", "write how many of `checks` must be up, for example count = 2");
            }
            Needed::AtLeast(count)
        }
    };
    KindSpec::Calculated { needed, checks }
}

/// Notes every key that another type of check has and this one does not.
fn note_keys_of_others(section: &Section<'_>, word: &'static str) {
    for (key, types) in CHECK_KEYS.iter().filter(|(key, types)| section.has(key) && !types.contains(&word)) {
        let message = format!("{} means nothing to a check of type {}", quote(key), quote(word));
        let help = match (*key, word) {
            ("tls", "http") => "write type = \"https\" instead".to_string(),
            ("tls", "https") => "remove it: a check of type `https` always uses TLS".to_string(),
            _ => format!("remove it: it is for checks of type {}", one_of(types)),
        };
        section.problems.add(&section.key_span(key), message, help);
    }
}
