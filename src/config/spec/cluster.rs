//! `[cluster]`.

use std::ops::Range;

use crate::config::{
    nats::{NAME_BYTES_MAX, is_name_byte},
    section::{At, Section},
    value::{Fault, quote},
};

/// `[cluster]`
#[derive(Debug)]
pub(crate) struct ClusterSpec {
    /// Its header.
    pub span: Range<usize>,
    pub nats: Vec<At<String>>,
    /// Empty: none.
    pub credentials: At<String>,
    /// Empty: the host's authorities.
    pub ca: At<String>,
    /// Empty: the host name.
    pub node: At<String>,
    pub prefix: At<String>,
    pub quorum: f64,
}

const EXAMPLE: &str = "write nats = [\"nats://nats.example.net:4222\"], or tls:// where it has a certificate";

pub(super) fn read(section: &Section<'_>) -> ClusterSpec {
    let texts = section.texts("nats");
    if !section.has("nats") {
        section.note_missing("nats", EXAMPLE);
    } else if texts.is_given() && texts.value.is_empty() {
        section.problems.add(&texts.span, "`nats` is empty", EXAMPLE);
    }
    let mut nats = Vec::new();
    for text in texts.value {
        match nats_url(&text.value) {
            Ok(url) => nats.push(At { value: url, span: text.span, origin: text.origin }),
            Err(fault) => section.problems.fault(&text.span, fault),
        }
    }
    let node = name(section, "node", false);
    ClusterSpec {
        span: section.span.clone(),
        nats,
        credentials: section.text("credentials"),
        ca: section.text("ca"),
        node,
        prefix: name(section, "prefix", true),
        quorum: section.number("quorum").value,
    }
}

/// A name that can stand in a NATS subject.
fn name(section: &Section<'_>, key: &str, may_have_dots: bool) -> At<String> {
    let at = section.text(key);
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(is_name_byte);
    let fits = match may_have_dots {
        true => at.value.split('.').all(is_part),
        false => is_part(&at.value),
    };
    if at.is_given() && (!fits || at.value.len() > NAME_BYTES_MAX) && !(at.value.is_empty() && key == "node") {
        let dots = if may_have_dots { ", and dots between them" } else { "" };
        let help =
            format!("write 1 to {NAME_BYTES_MAX} letters, digits, `-` or `_`{dots}: it becomes part of NATS subjects");
        section.problems.add(&at.span, format!("{} cannot be the {key}", quote(&at.value)), help);
    }
    at
}

/// `nats://host:port` or `tls://host:port`, the port written out.
fn nats_url(text: &str) -> Result<String, Fault> {
    let fault = |what: &str| Fault::new(format!("{} {what}", quote(text)), EXAMPLE);
    let (scheme, rest) = text.split_once("://").unwrap_or(("nats", text));
    if !matches!(scheme, "nats" | "tls") {
        return Err(fault("begins with neither nats:// nor tls://"));
    }
    if rest.contains('@') {
        let help = "name a file with them in `credentials`; passwords do not belong in this file";
        return Err(Fault::new("the address of a NATS server with a user or password", help));
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match (rest.rsplit_once(':'), rest.ends_with(']')) {
        (Some((host, port)), false) if !host.contains(':') || host.starts_with('[') => (host, Some(port)),
        _ => (rest, None),
    };
    let port: u16 = match port.map_or(Ok(4222), str::parse) {
        Ok(port @ 1..) => port,
        _ => return Err(fault("has no port from 1 to 65535")),
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_name = |host: &str| !host.is_empty() && host.bytes().all(|byte| is_name_byte(byte) || byte == b'.');
    match bare.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V6(address)) => Ok(format!("{scheme}://[{address}]:{port}")),
        Ok(address) => Ok(format!("{scheme}://{address}:{port}")),
        Err(_) if is_name(host) => Ok(format!("{scheme}://{host}:{port}")),
        Err(_) => Err(fault("names no host")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_nats_servers_are_read() {
        for (text, expected) in [
            ("nats://nats.example.net", Some("nats://nats.example.net:4222")),
            ("nats.example.net:4333", Some("nats://nats.example.net:4333")),
            ("tls://192.0.2.1:4222/", Some("tls://192.0.2.1:4222")),
            ("nats://[2001:db8::1]:4222", Some("nats://[2001:db8::1]:4222")),
            ("tls://[2001:DB8::1]", Some("tls://[2001:db8::1]:4222")),
            ("http://nats.example.net", None),
            ("nats://", None),
            ("nats://host:0", None),
            ("nats://host:70000", None),
            ("nats://a b", None),
            ("nats://user:password@host", None),
            ("nats://host/path", None),
        ] {
            assert_eq!(nats_url(text).ok().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_password_is_not_repeated_in_the_error() {
        let fault = nats_url("nats://user:hunter2@host").unwrap_err();
        assert!(!format!("{fault:?}").contains("hunter2"), "{fault:?}");
    }
}
