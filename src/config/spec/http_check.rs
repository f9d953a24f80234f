//! What a check by HTTP asks, and what it expects.

use hyper::header::HeaderName;

use super::{host::host_name, zones::free_table};
use crate::{
    config::{
        leaf::wrong_type,
        section::{At, Section},
        value::{Fault, quote},
    },
    health::{HttpCheck, HttpVersion, Method, StatusSet},
};

/// Most headers of one request.
const HEADERS_MAX: usize = 50;
/// Longest value of a header, in bytes.
const HEADER_VALUE_MAX: usize = 4096;
/// Headers that follow from the connection and from the request itself.
const OWN_HEADERS: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// What an HTTP check asks and expects; `tls` and `port` are for the caller to fill in.
pub(super) fn read(section: &Section<'_>) -> HttpCheck {
    let path = section.text("path");
    let fits = path.value.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if path.is_given() && !path.value.starts_with('/') {
        let message = format!("`path` {} does not begin with a slash", quote(&path.value));
        section.problems.add(&path.span, message, format!("write path = \"/{}\"", path.value));
    } else if path.is_given() && !fits {
        let message = format!("`path` {} holds a character that no request line can carry", quote(&path.value));
        section.problems.add(&path.span, message, "write it percent-encoded, for example %20 for a space");
    }
    let method = Method::ALL[section.choice("method").value];
    let expect_body = section.text("expect-body");
    if method == Method::Head && !expect_body.value.is_empty() {
        let message = "`expect-body` with method = \"HEAD\": such an answer has no body";
        section.problems.add(&expect_body.span, message, "remove it, or write method = \"GET\"");
    }
    HttpCheck {
        tls: false,
        verify_tls: section.flag("verify-tls").value,
        port: 0,
        path: path.value,
        host: read_host(section),
        method,
        headers: read_headers(section),
        version: [HttpVersion::Auto, HttpVersion::Http1, HttpVersion::Http2][section.choice("http-version").value],
        expect_status: read_statuses(section),
        expect_body: expect_body.value,
    }
}

fn read_headers(section: &Section<'_>) -> Vec<(String, String)> {
    let example = "write { \"x-probe\" = \"isochrone\" }";
    let entries = free_table(section, "headers", example);
    if let Some((over, _)) = entries.get(HEADERS_MAX) {
        section.problems.add(&over.span, format!("{} headers", entries.len()), format!("write at most {HEADERS_MAX}"));
    }
    let mut headers: Vec<(String, String)> = Vec::new();
    for (name, value) in entries {
        let text = match value.get_ref().as_str() {
            Some(text) => text,
            None => {
                section.problems.fault(&value.span(), wrong_type(&name.value, "a string", value.get_ref(), example));
                continue;
            }
        };
        match header(&name, text) {
            Ok(name_read) if headers.iter().any(|(other, _)| *other == name_read) => {
                let message = format!("the header {} stands here twice", quote(&name.value));
                section.problems.add(&name.span, message, "remove one of the two: case does not tell headers apart");
            }
            Ok(name_read) => headers.push((name_read, text.to_string())),
            Err((true, fault)) => section.problems.fault(&name.span, fault),
            Err((false, fault)) => section.problems.fault(&value.span(), fault),
        }
    }
    headers
}

/// The header's name in lower case; an error says whether it is the name's.
fn header(name: &At<String>, value: &str) -> Result<String, (bool, Fault)> {
    let quoted = quote(&name.value);
    let read = HeaderName::from_bytes(name.value.as_bytes()).map_err(|_| {
        let help = "write letters, digits and hyphens, for example \"x-probe\"";
        (true, Fault::new(format!("{quoted} is no name of a header"), help))
    })?;
    if read == "host" {
        let help = "write host = \"www.example.com\" as a key of the check: it is the server name of TLS, too";
        return Err((true, Fault::new("`headers` cannot set Host", help)));
    }
    if OWN_HEADERS.contains(&read.as_str()) {
        let message = format!("`headers` cannot set {quoted}, which follows from the connection");
        return Err((true, Fault::new(message, "remove it")));
    }
    let is_padded = value.trim() != value;
    let is_printable = value.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    if value.len() > HEADER_VALUE_MAX || is_padded || !is_printable {
        let message = format!("the header {quoted} has a value that cannot be sent");
        let help =
            format!("write at most {HEADER_VALUE_MAX} printable ASCII characters, without a space at either end");
        return Err((false, Fault::new(message, help)));
    }
    Ok(read.as_str().to_string())
}

pub(super) fn read_host(section: &Section<'_>) -> Option<String> {
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
