//! `[server]`, `[server.limits]`, `[admin]` and `[geo]`.

use std::{net::SocketAddr, time::Duration};

use super::host::listen_address;
use crate::config::{
    keys::LIMITS,
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
    pub limits: Limits,
}

/// `[admin]`
#[derive(Debug)]
pub(crate) struct AdminSpec {
    /// `None`: off.
    pub listen: Option<At<SocketAddr>>,
}

/// `[geo]`
#[derive(Debug)]
pub(crate) struct GeoSpec {
    pub databases: At<Vec<At<String>>>,
    /// Empty: none.
    pub asn_database: At<String>,
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
    ServerSpec {
        listen,
        threads: count(section.integer("threads").value),
        identity,
        cookie_secret_file: section.text("cookie-secret-file"),
        limits,
    }
}

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

pub(super) fn read_admin(section: &Section<'_>) -> AdminSpec {
    let text = section.text("listen");
    if text.value.is_empty() || !text.is_sound() {
        return AdminSpec { listen: None };
    }
    match listen_address(&text.value, 8053) {
        Ok(address) => AdminSpec { listen: Some(At { value: address, span: text.span, origin: text.origin }) },
        Err(fault) => {
            section.problems.fault(&text.span, fault);
            AdminSpec { listen: None }
        }
    }
}

pub(super) fn read_geo(section: &Section<'_>) -> GeoSpec {
    GeoSpec { databases: section.texts("database"), asn_database: section.text("asn-database") }
}
