//! `[checks.NAME]`.

use super::{
    damping::{self, DampingSpec},
    host::host_name,
};
use crate::{
    config::{
        keys::{CHECK, HTTP_KEYS, LATER_CHECKS},
        section::{At, Entry, Origin, Problems, Section},
        value::{Fault, one_of, quote},
    },
    health::{CheckKind, HttpCheck, StatusSet},
};

/// One check.
#[derive(Debug)]
pub(crate) struct CheckSpec {
    pub name: At<String>,
    /// `None`: wrong, and noted.
    pub kind: Option<CheckKind>,
    pub interval_ms: At<i64>,
    pub fast_interval_ms: At<i64>,
    pub timeout_ms: At<i64>,
    pub fall: u32,
    pub rise: u32,
    pub damping: DampingSpec,
}

pub(super) fn read(entry: &Entry<'_>, problems: &Problems) -> CheckSpec {
    let label = format!("[checks.{}]", entry.name.value);
    let section = Section::open_unchecked(problems, &CHECK, label, entry.table, entry.span.clone());
    let kind = read_kind(&section);
    let interval = section.duration_ms("interval");
    let unless_given = |name, default_ms: i64| {
        let value = section.duration_ms(name);
        if value.origin == Origin::Default { At { value: default_ms, ..value } } else { value }
    };
    CheckSpec {
        name: entry.name.clone(),
        kind,
        fast_interval_ms: unless_given("fast-interval", interval.value.min(1000)),
        timeout_ms: unless_given("timeout", (interval.value / 2).min(4000)),
        interval_ms: interval,
        fall: section.integer("fall").value as u32,
        rise: section.integer("rise").value as u32,
        damping: damping::read(&section),
    }
}

fn read_kind(section: &Section<'_>) -> Option<CheckKind> {
    let word = section.raw("type").and_then(|v| v.get_ref().as_str());
    if let Some(later) = LATER_CHECKS.iter().find(|later| word == Some(**later)) {
        let span = section.raw("type").map_or(section.span.clone(), |v| v.span());
        let message = format!("checks of type {} are not supported by this version", quote(later));
        section.problems.add(&span, message, format!("write {}", one_of(&["http", "https", "tcp"])));
        return None;
    }
    section.note_strangers();
    if !section.has("type") {
        section.note_missing("type", "write type = \"http\", \"https\" or \"tcp\"");
    }
    let port = section.integer("port");
    let kind = section.choice("type");
    let http = read_http(section);
    if !kind.is_given() {
        return None;
    }
    let port_or = |default| if section.has("port") { port.value as u16 } else { default };
    match kind.value {
        0 => Some(CheckKind::Http(HttpCheck { tls: false, port: port_or(80), ..http })),
        1 => Some(CheckKind::Http(HttpCheck { tls: true, port: port_or(443), ..http })),
        _ => {
            for key in HTTP_KEYS.iter().filter(|key| section.has(key)) {
                let message = format!("{} means nothing to a check of type `tcp`", quote(key));
                section.problems.add(&section.key_span(key), message, "remove it, or write type = \"http\"");
            }
            if !section.has("port") {
                section.note_missing("port", "a check of type `tcp` needs a port: write port = 443");
            }
            Some(CheckKind::Tcp { port: port_or(0) })
        }
    }
}

/// What an HTTP check asks and expects; `tls` and `port` are for the caller to fill in.
fn read_http(section: &Section<'_>) -> HttpCheck {
    let path = section.text("path");
    let fits = path.value.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if path.is_given() && !path.value.starts_with('/') {
        let message = format!("`path` {} does not begin with a slash", quote(&path.value));
        section.problems.add(&path.span, message, format!("write path = \"/{}\"", path.value));
    } else if path.is_given() && !fits {
        let message = format!("`path` {} holds a character that no request line can carry", quote(&path.value));
        section.problems.add(&path.span, message, "write it percent-encoded, for example %20 for a space");
    }
    HttpCheck {
        tls: false,
        verify_tls: section.flag("verify-tls").value,
        port: 0,
        path: path.value,
        host: read_host(section),
        expect_status: read_statuses(section),
        expect_body: section.text("expect-body").value,
    }
}

fn read_host(section: &Section<'_>) -> Option<String> {
    let host = section.text("host");
    if host.value.is_empty() || host.value.parse::<std::net::IpAddr>().is_ok() {
        return Some(host.value).filter(|h| !h.is_empty());
    }
    match host_name(&host.value) {
        Ok(_) => Some(host.value.trim_end_matches('.').to_string()),
        Err(fault) => {
            let help = "write a host name without scheme and port, for example \"www.example.com\"";
            section.problems.fault(&host.span, Fault::new(fault.message, help));
            None
        }
    }
}

fn read_statuses(section: &Section<'_>) -> StatusSet {
    let list = section.texts("expect-status");
    if list.is_given() && list.value.is_empty() {
        section.problems.add(&list.span, "`expect-status` is empty", "write for example [\"2xx\", \"3xx\"]");
    }
    let mut set = StatusSet::default();
    for text in &list.value {
        match statuses(&text.value) {
            Some(range) => set.0.push(range),
            None => {
                let message = format!("{} is not a status", quote(&text.value));
                let help = "write \"200\", \"200-299\" or \"2xx\"; statuses are 100 to 599";
                section.problems.add(&text.span, message, help);
            }
        }
    }
    set
}

/// `"204"`, `"2xx"`, `"200-299"` as an inclusive range.
fn statuses(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| -> Option<u16> {
        let fits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|n| fits && (100..=599).contains(n))
    };
    if let Some((low, high)) = text.split_once('-') {
        let (low, high) = (number(low)?, number(high)?);
        return (low <= high).then_some((low, high));
    }
    match text.as_bytes() {
        [class @ b'1'..=b'5', b'x' | b'X', b'x' | b'X'] => {
            let low = u16::from(class - b'0') * 100;
            Some((low, low + 99))
        }
        _ => number(text).map(|n| (n, n)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read() {
        for (text, range) in [
            ("200", Some((200, 200))),
            ("2xx", Some((200, 299))),
            ("5XX", Some((500, 599))),
            ("200-204", Some((200, 204))),
            ("204-200", None),
            ("6xx", None),
            ("099", None),
            ("600", None),
            ("2x", None),
            ("+200", None),
            ("", None),
            ("-", None),
        ] {
            assert_eq!(statuses(text), range, "{text}");
        }
    }
}
