//! One query as one line of JSON. A client is a network here, never an address: at most a /24, or a /56 of IPv6.

use std::{fmt::Write as _, io::Write as _, net::IpAddr};

use hickory_proto::rr::RecordType;
use ipnet::IpNet;
use serde::{Serialize, Serializer};

use crate::{
    geo::special::embedded_v4,
    telemetry::{
        classes::rcode_label,
        query_log::{Entry, Terms},
    },
    wire::Name,
};

/// Longest prefixes that are told of a client.
const LEN_MAX_V4: u8 = 24;
const LEN_MAX_V6: u8 = 56;

/// Makes lines. Keeps what many lines have alike.
#[derive(Default)]
pub struct Formatter {
    second: Option<u64>,
    /// The second as text: `2026-11-26T07:24:23`.
    second_text: String,
    name: String,
}

/// The line, in the order of its fields.
#[derive(Serialize)]
struct Line<'l> {
    time: &'l str,
    #[serde(serialize_with = "as_text")]
    client: IpNet,
    ecs: bool,
    transport: &'static str,
    name: Option<&'l str>,
    #[serde(rename = "type")]
    qtype: Option<&'l str>,
    zone: Option<&'l str>,
    route: Option<&'l str>,
    region: Option<&'l str>,
    reason: Option<&'static str>,
    scope: Option<u8>,
    rcode: Option<&'l str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<&'static str>,
}

impl Formatter {
    /// Appends the line of a query.
    pub fn write(&mut self, terms: &Terms, entry: &Entry<'_>, into: &mut Vec<u8>) {
        let mut time = [0; 24];
        let time = self.time(entry.at_ms, &mut time);
        self.name.clear();
        let name = entry.question.and_then(|(wire, _)| Name::from_wire(wire).ok());
        if let Some(name) = &name {
            write!(self.name, "{name}").expect("writing into a string does not fail");
        }
        let qtype = entry.question.map(|(_, qtype)| type_name(qtype));
        let rcode = entry.outcome.ok().map(|rcode| rcode_label(usize::from(rcode)));
        let route = entry.answered.and_then(|(route, ..)| terms.routes.get(route as usize));
        let line = Line {
            time,
            client: network(entry.client, entry.subnet_len),
            ecs: entry.subnet_len.is_some(),
            transport: entry.transport.label(),
            name: name.is_some().then_some(&self.name),
            qtype: qtype.as_deref(),
            zone: route.map(|(zone, _)| zone.as_str()),
            route: route.map(|(_, label)| label.as_str()),
            region: entry
                .answered
                .and_then(|(_, region, _)| terms.regions.get(usize::from(region)))
                .map(String::as_str),
            reason: entry.answered.and_then(|(.., reason)| terms.reasons.get(usize::from(reason))).copied(),
            scope: entry.scope_len,
            rcode: rcode.as_deref(),
            truncated: entry.is_truncated,
            dropped: entry.outcome.err().map(|reason| reason.label()),
        };
        serde_json::to_writer(&mut *into, &line).expect("numbers and strings are always JSON");
        into.push(b'\n');
    }

    /// RFC 3339, in UTC, with milliseconds.
    fn time<'t>(&mut self, at_ms: u64, text: &'t mut [u8; 24]) -> &'t str {
        let second = at_ms / 1000;
        if self.second != Some(second) {
            self.second = Some(second);
            self.second_text.clear();
            let (year, month, day) = date(second / 86_400);
            let (hour, minute, second) = (second / 3600 % 24, second / 60 % 60, second % 60);
            write!(self.second_text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
                .expect("writing into a string does not fail");
        }
        let written = write!(&mut text[..], "{}.{:03}Z", self.second_text, at_ms % 1000);
        // A clock beyond the year 9999 has no room, and no reader.
        if written.is_ok() { std::str::from_utf8(text).unwrap_or_default() } else { "" }
    }
}

fn as_text<S: Serializer>(network: &IpNet, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(network)
}

/// Year, month and day of a day since 1970 (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since the first of March of the year 0
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The network that is told of a client: its subnet as it came, or what its address is in, and no more of either than may be told. An
/// address of IPv6 that stands for one of IPv4 counts as that one, as it does where it is located.
fn network(address: IpAddr, subnet_len: Option<u8>) -> IpNet {
    let (mut address, mut len) = (address, subnet_len.unwrap_or(u8::MAX));
    if let IpAddr::V6(v6) = address
        && let Some(embedded) = embedded_v4(v6).filter(|embedded| len > embedded.offset_bits)
    {
        (address, len) = (embedded.v4.into(), len - embedded.offset_bits);
    }
    let len_max = if address.is_ipv4() { LEN_MAX_V4 } else { LEN_MAX_V6 };
    IpNet::new_assert(address, len.min(len_max)).trunc()
}

/// As people write it; types without a name as in RFC 3597 §5.
fn type_name(qtype: u16) -> std::borrow::Cow<'static, str> {
    match RecordType::from(qtype) {
        RecordType::Unknown(number) => format!("TYPE{number}").into(),
        known => <&'static str>::from(known).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{DropReason, TransportKind};

    fn line(entry: &Entry<'_>) -> String {
        let terms = Terms {
            share: 1.0,
            queue_max: 1,
            routes: vec![("a.example.".into(), "x".into()), ("geo.example.com.".into(), "*.app".into())],
            regions: vec!["us".into(), "eu \"west\"".into()],
            reasons: vec!["best", "failover"],
        };
        let mut bytes = Vec::new();
        Formatter::default().write(&terms, entry, &mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    const PLAIN: Entry<'static> = Entry {
        at_ms: 1_795_677_863_007,
        client: IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 77)),
        subnet_len: None,
        transport: TransportKind::Udp,
        question: Some((b"\x03w\"w\x03app\x03geo\x07example\x03com\0", 1)),
        answered: Some((1, 1, 0)),
        scope_len: None,
        outcome: Ok(0),
        is_truncated: false,
    };

    #[test]
    fn a_line_has_its_fields_in_order() {
        assert_eq!(
            line(&PLAIN),
            concat!(
                r#"{"time":"2026-11-26T07:24:23.007Z","client":"203.0.113.0/24","ecs":false,"transport":"udp","#,
                r#""name":"w\\\"w.app.geo.example.com.","type":"A","zone":"geo.example.com.","route":"*.app","#,
                r#""region":"eu \"west\"","reason":"best","scope":null,"rcode":"NOERROR"}"#,
                "\n"
            )
        );
        let dropped = Entry {
            question: None,
            answered: None,
            outcome: Err(DropReason::RateLimited),
            is_truncated: true,
            ..PLAIN
        };
        assert!(line(&dropped).ends_with(
            "\"name\":null,\"type\":null,\"zone\":null,\"route\":null,\"region\":null,\"reason\":null,\"scope\":null,\
             \"rcode\":null,\"truncated\":true,\"dropped\":\"rate-limited\"}\n"
        ));
        let odd = Entry { question: Some((b"\x02a.\0", 65_280)), scope_len: Some(0), ..PLAIN };
        assert!(line(&odd).contains(r#""name":"a\\..","type":"TYPE65280""#), "{}", line(&odd));
    }

    #[test]
    fn a_client_is_never_told_more_closely_than_its_network() {
        for (address, subnet_len, told) in [
            ("203.0.113.77", None, "203.0.113.0/24"),
            ("203.0.113.77", Some(32), "203.0.113.0/24"),
            ("203.0.0.0", Some(16), "203.0.0.0/16"),
            ("2001:db8:1:2:3::4", None, "2001:db8:1::/56"),
            ("2001:db8:1:2ff::", Some(64), "2001:db8:1:200::/56"),
            ("2001:db8::", Some(32), "2001:db8::/32"),
            ("::ffff:18.184.1.2", Some(128), "18.184.1.0/24"),
            ("64:ff9b::12b8:0", Some(112), "18.184.0.0/16"),
            ("64:ff9b::", Some(96), "64:ff9b::/56"),
            ("2002:12b8:102::1", None, "18.184.1.0/24"),
        ] {
            assert_eq!(network(address.parse().unwrap(), subnet_len).to_string(), told, "{address} {subnet_len:?}");
        }
    }

    #[test]
    fn days_become_dates() {
        for (days, told) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (19_782, (2024, 2, 29)),
            (20_783, (2026, 11, 26)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), told, "{days}");
        }
    }
}
