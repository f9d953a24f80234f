//! `[server]`, `[server.limits]`, `[query-log]`, `[admin]`, `[geo]` and `[latency]`.

use std::{net::SocketAddr, ops::Range, time::Duration};

use super::{
    host::{listen_address, listen_address_or_port},
    learning::{self, LearningSpec},
};
use crate::config::{
    keys::{ENCRYPTED, LIMITS},
    model::Limits,
    section::{At, Section},
};

/// `[server]`
#[derive(Debug)]
pub(crate) struct ServerSpec {
    pub listen: At<Vec<At<SocketAddr>>>,
    pub threads: usize,
    pub identity: At<String>,
    /// Empty: none.
    pub cookie_secret_file: At<String>,
    /// Empty: none.
    pub state_dir: At<String>,
    /// Empty: none.
    pub user: At<String>,
    pub sandbox: bool,
    /// Empty: none.
    pub region: At<String>,
    pub watch: bool,
    pub limits: Limits,
    pub encrypted: Option<EncryptedSpec>,
}

/// `[server.encrypted]`
#[derive(Debug)]
pub(crate) struct EncryptedSpec {
    /// The section's header.
    pub span: Range<usize>,
    pub dot: Vec<At<SocketAddr>>,
    pub doq: Vec<At<SocketAddr>>,
    pub doh: Vec<At<SocketAddr>>,
    /// It does not say where to listen, not even that it is nowhere.
    pub lists_nothing: bool,
    /// `None`: missing, which has been noted.
    pub certificate: Option<At<String>>,
    /// As the certificate.
    pub key: Option<At<String>>,
}

/// `[query-log]`
#[derive(Debug)]
pub(crate) struct QueryLogSpec {
    /// Empty: none.
    pub file: At<String>,
    pub sample: f64,
    pub queue_max: usize,
}

/// `[admin]`
#[derive(Debug)]
pub(crate) struct AdminSpec {
    /// `None`: off.
    pub listen: Option<At<SocketAddr>>,
    /// Empty: none.
    pub token_file: At<String>,
}

/// `[geo]`
#[derive(Debug)]
pub(crate) struct GeoSpec {
    pub databases: At<Vec<At<String>>>,
    /// Empty: none.
    pub asn_database: At<String>,
}

/// `[latency]`
#[derive(Debug)]
pub(crate) struct LatencySpec {
    pub switch_margin_ms: f32,
    pub measurements: At<Vec<At<String>>>,
    pub skip_bad_measurements: bool,
    pub hysteresis_ms: f32,
    pub rebuild_interval: Duration,
    pub rise_max_ms: f32,
    pub detours: bool,
    pub learning: LearningSpec,
}

pub(super) fn read_server(section: &Section<'_>) -> ServerSpec {
    let texts = section.texts("listen");
    let mut listen = At { value: Vec::new(), span: texts.span.clone(), origin: texts.origin };
    for text in texts.value {
        match listen_address(&text.value, 53) {
            Ok(address) => listen.value.push(At { value: address, span: text.span, origin: text.origin }),
            Err(fault) => section.problems.fault(&text.span, fault),
        }
    }
    let identity = section.text("identity");
    if identity.value.contains(char::is_control) {
        section.problems.add(&identity.span, "`identity` holds a control character", "write printable characters");
    }
    let limits = match section.child("limits", &LIMITS) {
        Some(limits) => read_limits(&limits),
        None => Limits {
            tcp_connections: 1000,
            tcp_per_client: 20,
            tcp_idle: Duration::from_secs(10),
            udp_payload: 1232,
            responses_per_second: 0,
        },
    };
    let encrypted = section.child("encrypted", &ENCRYPTED).map(|encrypted| read_encrypted(&encrypted));
    ServerSpec {
        listen,
        threads: count(section.integer("threads").value),
        identity,
        cookie_secret_file: section.text("cookie-secret-file"),
        state_dir: section.text("state-dir"),
        user: section.text("user"),
        sandbox: section.flag("sandbox").value,
        region: section.text("region"),
        watch: section.flag("watch").value,
        limits,
        encrypted,
    }
}

/// Usual ports: RFC 7858 §3.1, RFC 9250 §4.1.1, RFC 8484 §8.
fn read_encrypted(section: &Section<'_>) -> EncryptedSpec {
    let mut lists_nothing = !section.lost_lines();
    let mut addresses = |name: &str, usual_port: u16| {
        let texts = section.texts(name);
        lists_nothing &= !section.has(name);
        let mut list = Vec::new();
        for text in texts.value {
            match listen_address_or_port(&text.value, usual_port) {
                Ok(address) => list.push(At { value: address, span: text.span, origin: text.origin }),
                Err(fault) => section.problems.fault(&text.span, fault),
            }
        }
        list
    };
    let (dot, doq, doh) = (addresses("dot", 853), addresses("doq", 853), addresses("doh", 443));
    let file = |name: &str, help: String| {
        let path = section.text(name);
        if !section.has(name) {
            section.note_missing(name, help);
        } else if path.is_given() && path.value.is_empty() {
            section.problems.add(&path.span, format!("`{name}` is empty"), help);
            return None;
        }
        Some(path).filter(At::is_given)
    };
    let certificate = file("certificate", format!("write certificate = \"cert.pem\"; {SELF_SIGNED}"));
    let key = file("key", "write key = \"key.pem\": the file that was made together with the certificate".into());
    EncryptedSpec { span: section.span.clone(), dot, doq, doh, lists_nothing, certificate, key }
}

/// How to come by a certificate to try with.
pub(crate) const SELF_SIGNED: &str = "a self-signed pair to try with: openssl req -x509 -newkey ec -pkeyopt \
    ec_paramgen_curve:prime256v1 -nodes -days 365 -subj /CN=ns1.example.com -addext subjectAltName=DNS:ns1.example.com \
    -keyout key.pem -out cert.pem";

fn read_limits(section: &Section<'_>) -> Limits {
    Limits {
        tcp_connections: count(section.integer("tcp-connections").value),
        tcp_per_client: count(section.integer("tcp-per-client").value),
        tcp_idle: Duration::from_millis(section.duration_ms("tcp-idle").value.unsigned_abs()),
        udp_payload: section.integer("udp-payload").value as u16,
        responses_per_second: section.integer("responses-per-second").value as u32,
    }
}

/// A number that the catalogue keeps at or above 0.
fn count(n: i64) -> usize {
    usize::try_from(n).unwrap_or(0)
}

pub(super) fn read_query_log(section: &Section<'_>) -> QueryLogSpec {
    QueryLogSpec {
        file: section.text("file"),
        sample: section.number("sample").value,
        queue_max: count(section.integer("max-queue").value),
    }
}

pub(super) fn read_admin(section: &Section<'_>) -> AdminSpec {
    let (text, token_file) = (section.text("listen"), section.text("token-file"));
    if text.value.is_empty() || !text.is_sound() {
        return AdminSpec { listen: None, token_file };
    }
    match listen_address(&text.value, 8053) {
        Ok(address) => {
            AdminSpec { listen: Some(At { value: address, span: text.span, origin: text.origin }), token_file }
        }
        Err(fault) => {
            section.problems.fault(&text.span, fault);
            AdminSpec { listen: None, token_file }
        }
    }
}

pub(super) fn read_geo(section: &Section<'_>) -> GeoSpec {
    GeoSpec { databases: section.texts("database"), asn_database: section.text("asn-database") }
}

pub(super) fn read_latency(section: &Section<'_>) -> LatencySpec {
    LatencySpec {
        switch_margin_ms: section.duration_ms("switch-margin").value as f32,
        measurements: section.texts("measurements"),
        skip_bad_measurements: section.flag("skip-bad-measurements").value,
        hysteresis_ms: section.duration_ms("hysteresis").value as f32,
        rebuild_interval: Duration::from_millis(section.duration_ms("rebuild-interval").value.unsigned_abs()),
        rise_max_ms: section.duration_ms("rise-max").value as f32,
        detours: section.flag("detours").value,
        learning: learning::read(section),
    }
}
