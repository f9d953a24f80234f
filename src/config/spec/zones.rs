//! `[zones."NAME"]`, its routes and their rules.

use std::net::IpAddr;

use ipnet::IpNet;
use toml::de::{DeTable, DeValue};

use super::{
    endpoints::{self, EndpointsSpec},
    host::address,
};
use crate::{
    config::{
        keys::{LIST_MAX, ROUTE, RULE, WEIGHT_MAX, ZONE},
        leaf::{integer_of, texts_of, type_of, wrong_type},
        model::{ClientMatch, WhenAllDown},
        section::{At, Entry, Origin, Problems, Section},
        value::{Fault, nearest, quote},
    },
    geo::{Continent, CountryCode, special::embedded_v4},
};

/// One zone.
#[derive(Debug)]
pub(crate) struct ZoneSpec {
    pub name: At<String>,
    /// The section's header.
    pub span: std::ops::Range<usize>,
    pub nameservers: At<Vec<At<String>>>,
    pub addresses: Vec<(At<String>, Vec<IpAddr>)>,
    pub contact: At<String>,
    pub ttl_s: u32,
    pub negative_ttl_s: u32,
    /// Empty: none.
    pub file: At<String>,
    /// Empty: none.
    pub records: At<String>,
    pub dnssec_keys: Vec<At<String>>,
    pub dnssec_announce: bool,
    pub routes: Vec<RouteSpec>,
    /// A line of this section could not be read: a key that seems absent may have stood there.
    pub is_whole: bool,
}

/// One route.
#[derive(Debug)]
pub(crate) struct RouteSpec {
    pub owner: At<String>,
    /// Absent: every region.
    pub regions: At<Vec<At<String>>>,
    /// `None`: wrong, and noted.
    pub policy: Option<PolicyWord>,
    pub weights: At<Vec<(At<String>, u32)>>,
    pub endpoints: Vec<(At<String>, EndpointsSpec)>,
    /// Empty: the regions' own.
    pub check: At<String>,
    /// `None`: the zone's.
    pub ttl_s: Option<u32>,
    pub max_answers: u16,
    pub when_all_down: At<WhenAllDown>,
    /// Empty: none.
    pub https: At<String>,
    pub rules: Vec<RuleSpec>,
}

/// `policy`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PolicyWord {
    Latency,
    Failover,
    Weighted,
}

/// One rule.
#[derive(Debug)]
pub(crate) struct RuleSpec {
    pub clients: Vec<At<ClientMatch>>,
    pub regions: At<Vec<At<String>>>,
}

pub(super) fn read(entry: &Entry<'_>, problems: &Problems) -> ZoneSpec {
    let label = format!("[zones.\"{}\"]", entry.name.value);
    let section = Section::open(problems, &ZONE, label.clone(), entry.table, entry.span.clone());
    let example = format!("[zones.\"{}\".routes.\"www\"]", entry.name.value);
    let routes = section.entries("routes", &example);
    ZoneSpec {
        name: entry.name.clone(),
        span: entry.span.clone(),
        nameservers: section.texts("nameservers"),
        addresses: read_addresses(&section),
        contact: section.text("contact"),
        ttl_s: section.integer("ttl").value as u32,
        negative_ttl_s: section.integer("negative-ttl").value as u32,
        file: section.text("file"),
        records: section.text("records"),
        dnssec_keys: section.texts("dnssec-key").value.into_iter().filter(|path| !path.value.is_empty()).collect(),
        dnssec_announce: section.flag("dnssec-announce").value,
        routes: routes.iter().map(|route| read_route(route, &entry.name.value, problems)).collect(),
        is_whole: !section.lost_lines() && !section.holds_stray_section(),
    }
}

fn read_addresses(section: &Section<'_>) -> Vec<(At<String>, Vec<IpAddr>)> {
    let example = "write { \"ns1\" = [\"192.0.2.53\"] }";
    let mut glue = Vec::new();
    for (name, value) in free_table(section, "addresses", example) {
        let texts = texts_of(section.problems, &name.value, "address", value, LIST_MAX);
        if texts.is_given() && texts.value.is_empty() {
            let message = format!("{} has no address", quote(&name.value));
            section.problems.add(&value.span(), message, example);
        }
        let mut list: Vec<IpAddr> = Vec::new();
        for text in &texts.value {
            match address(&text.value) {
                Ok(address) if list.contains(&address) => {
                    let message = format!("{} stands here twice", quote(&text.value));
                    section.problems.add(&text.span, message, "remove one of the two");
                }
                Ok(address) => list.push(address),
                Err(fault) => section.problems.fault(&text.span, fault),
            }
        }
        glue.push((name, list));
    }
    glue
}

/// The entries of an inline table with free names.
pub(super) fn free_table<'a>(
    section: &Section<'a>,
    name: &str,
    example: &str,
) -> Vec<(At<String>, &'a toml::Spanned<DeValue<'a>>)> {
    let Some(value) = section.raw(name) else { return Vec::new() };
    let DeValue::Table(table) = value.get_ref() else {
        section.problems.fault(&value.span(), wrong_type(name, "a table", value.get_ref(), example));
        return Vec::new();
    };
    table.iter().map(|(key, value)| (At::file(key.get_ref().to_string(), key.span()), value)).collect()
}

fn read_route(entry: &Entry<'_>, zone: &str, problems: &Problems) -> RouteSpec {
    let label = format!("[zones.\"{zone}\".routes.\"{}\"]", entry.name.value);
    let section = Section::open(problems, &ROUTE, label.clone(), entry.table, entry.span.clone());
    let policy = section.choice("policy");
    let words = [PolicyWord::Latency, PolicyWord::Failover, PolicyWord::Weighted];
    let when_all_down = section.choice("when-all-down");
    let ttl = section.integer("ttl");
    RouteSpec {
        owner: entry.name.clone(),
        regions: section.texts("regions"),
        policy: words.get(policy.value).copied().filter(|_| policy.is_sound()),
        weights: read_weights(&section),
        endpoints: free_table(&section, "endpoints", "write { us = [\"192.0.2.20\"] }")
            .into_iter()
            .map(|(region, value)| (region, endpoints::read(problems, "endpoints", value)))
            .collect(),
        check: section.text("check"),
        ttl_s: ttl.is_given().then_some(ttl.value as u32),
        max_answers: section.integer("max-answers").value as u16,
        when_all_down: At {
            value: match when_all_down.value {
                0 => WhenAllDown::AnswerAll,
                1 => WhenAllDown::ServFail,
                _ => WhenAllDown::NoData,
            },
            span: when_all_down.span,
            origin: when_all_down.origin,
        },
        https: section.text("https"),
        rules: read_rules(&section, &label, problems),
    }
}

fn read_weights(section: &Section<'_>) -> At<Vec<(At<String>, u32)>> {
    let example = "write { us = 3, eu = 1 }";
    let mut weights = At {
        value: Vec::new(),
        span: section.raw("weights").map_or(section.span.clone(), |v| v.span()),
        origin: if section.has("weights") { Origin::File } else { Origin::Default },
    };
    for (region, value) in free_table(section, "weights", example) {
        match integer_of(&region.value, value.get_ref(), 0, WEIGHT_MAX) {
            Ok(weight) => weights.value.push((region, weight as u32)),
            Err(fault) => {
                section.problems.fault(&value.span(), fault);
                weights.origin = Origin::Bad;
            }
        }
    }
    if section.raw("weights").is_some_and(|v| !matches!(v.get_ref(), DeValue::Table(_))) {
        weights.origin = Origin::Bad;
    }
    weights
}

fn read_rules(section: &Section<'_>, label: &str, problems: &Problems) -> Vec<RuleSpec> {
    let label = format!("[{}.rules]]", label.trim_end_matches(']'));
    let help = format!("write {label} above each rule");
    let Some(value) = section.raw("rules") else { return Vec::new() };
    let DeValue::Array(items) = value.get_ref() else {
        let message = format!("`rules` is a list of sections, not {}", type_of(value.get_ref()));
        problems.add(&value.span(), message, help);
        return Vec::new();
    };
    if items.len() > LIST_MAX {
        problems.add(&value.span(), format!("{} rules", items.len()), format!("write at most {LIST_MAX}"));
    }
    let mut rules = Vec::new();
    for item in items.iter() {
        match item.get_ref() {
            DeValue::Table(table) => rules.push(read_rule(table, item.span(), &label, problems)),
            other => {
                let message = format!("a rule is a section, not {}", type_of(other));
                problems.add(&item.span(), message, help.clone());
            }
        }
    }
    rules
}

fn read_rule(table: &DeTable<'_>, span: std::ops::Range<usize>, label: &str, problems: &Problems) -> RuleSpec {
    let section = Section::open(problems, &RULE, label.to_string(), table, span);
    let forms = "write clients = [\"continent:EU\", \"country:CH\", \"asn:64500\", \"192.0.2.0/24\"]";
    let texts = section.texts("clients");
    if !section.has("clients") {
        section.note_missing("clients", forms);
    } else if texts.is_given() && texts.value.is_empty() {
        problems.add(&texts.span, "`clients` is empty", forms);
    }
    let mut clients: Vec<At<ClientMatch>> = Vec::new();
    for text in texts.value {
        match client_match(&text.value) {
            Ok(client) if clients.iter().any(|c| c.value == client) => {
                problems.add(&text.span, format!("{} stands here twice", quote(&text.value)), "remove one of the two");
            }
            Ok(client) => clients.push(At::file(client, text.span)),
            Err(fault) => problems.fault(&text.span, fault),
        }
    }
    let regions = section.texts("regions");
    if !section.has("regions") {
        section.note_missing("regions", "write regions = [\"eu\"], the regions that these clients are steered to");
    }
    RuleSpec { clients, regions }
}

/// `continent:EU`, `country:CH`, `asn:64500` or a prefix.
fn client_match(text: &str) -> Result<ClientMatch, Fault> {
    let quoted = quote(text);
    match text.split_once(':') {
        Some(("continent", code)) => Continent::from_code(code).map(ClientMatch::Continent).ok_or_else(|| {
            Fault::new(format!("{quoted} is not a continent"), "write one of AF, AN, AS, EU, NA, OC and SA")
        }),
        Some(("country", code)) => country(code, &quoted),
        Some(("asn", number)) => number.parse().map(ClientMatch::Asn).map_err(|_| {
            let digits = number.trim_start_matches(|c: char| !c.is_ascii_digit());
            let help = match digits.parse::<u32>() {
                Ok(asn) => format!("write \"asn:{asn}\""),
                Err(_) => "write a number from 0 to 4294967295, for example \"asn:64500\"".to_string(),
            };
            Fault::new(format!("{quoted} is not an autonomous system"), help)
        }),
        Some((kind, rest)) if !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_alphabetic()) && !is_hex(kind) => {
            let help = match nearest(kind, ["continent", "country", "asn"]) {
                Some(near) => format!("did you mean \"{near}:{rest}\"?"),
                None => "write continent:, country:, asn: or a prefix such as \"192.0.2.0/24\"".to_string(),
            };
            Err(Fault::new(format!("{quoted} names no kind of client"), help))
        }
        _ => prefix(text, &quoted),
    }
}

fn is_hex(text: &str) -> bool {
    text.len() <= 4 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn country(code: &str, quoted: &str) -> Result<ClientMatch, Fault> {
    let message = format!("{quoted} is not a country");
    match code.to_ascii_uppercase().as_str() {
        "UK" => Err(Fault::new(message, "write \"country:GB\"")),
        "EU" => Err(Fault::new(message, "write \"continent:EU\"")),
        _ => CountryCode::new(code)
            .map(ClientMatch::Country)
            .ok_or_else(|| Fault::new(message, "write the two letters of ISO 3166-1, for example \"country:CH\"")),
    }
}

fn prefix(text: &str, quoted: &str) -> Result<ClientMatch, Fault> {
    let example = "write an address and a length, for example \"192.0.2.0/24\" or \"2001:db8::/32\"";
    if let Ok(address) = text.parse::<IpAddr>() {
        let help = format!("write \"{}\"", IpNet::from(address));
        return Err(Fault::new(format!("{quoted} has no prefix length"), help));
    }
    let net: IpNet = text
        .parse()
        .map_err(|_| Fault::new(format!("{quoted} is neither a prefix nor a continent, country or asn"), example))?;
    if net != net.trunc() {
        let message = format!("{quoted} has bits set beyond its length");
        return Err(Fault::new(message, format!("write \"{}\"", net.trunc())));
    }
    if let IpNet::V6(v6) = net
        && let Some(v4) = v6.addr().to_ipv4_mapped()
        && v6.prefix_len() >= 96
    {
        let message = format!("{quoted} is an IPv4 prefix in IPv6 form");
        return Err(Fault::new(message, format!("write \"{v4}/{}\"", v6.prefix_len() - 96)));
    }
    if let IpNet::V6(v6) = net
        && embedded_v4(v6.addr()).is_some()
    {
        let message = format!("{quoted} lies among the addresses that stand for IPv4 clients (NAT64, 6to4, Teredo)");
        return Err(Fault::new(message, "write the IPv4 prefix: such clients count as their IPv4 address".to_string()));
    }
    Ok(ClientMatch::Prefix(net))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_read() {
        for (text, client) in [
            ("continent:eu", ClientMatch::Continent(Continent::Europe)),
            ("country:CH", ClientMatch::Country(CountryCode(*b"CH"))),
            ("asn:64500", ClientMatch::Asn(64500)),
            ("10.0.0.0/8", ClientMatch::Prefix("10.0.0.0/8".parse().unwrap())),
            ("2001:db8::/32", ClientMatch::Prefix("2001:db8::/32".parse().unwrap())),
            ("fe80::/10", ClientMatch::Prefix("fe80::/10".parse().unwrap())),
            ("0.0.0.0/0", ClientMatch::Prefix("0.0.0.0/0".parse().unwrap())),
        ] {
            assert_eq!(client_match(text), Ok(client), "{text}");
        }
    }

    #[test]
    fn a_wrong_client_is_told_the_right_form() {
        for (text, help) in [
            ("continent:XX", "write one of AF, AN, AS, EU, NA, OC and SA"),
            ("country:UK", "write \"country:GB\""),
            ("country:EU", "write \"continent:EU\""),
            ("country:CHE", "write the two letters of ISO 3166-1, for example \"country:CH\""),
            ("asn:AS64500", "write \"asn:64500\""),
            ("asn:99999999999", "write a number from 0 to 4294967295, for example \"asn:64500\""),
            ("contry:CH", "did you mean \"country:CH\"?"),
            ("city:Bern", "write continent:, country:, asn: or a prefix such as \"192.0.2.0/24\""),
            ("10.0.0.1", "write \"10.0.0.1/32\""),
            ("10.0.0.1/8", "write \"10.0.0.0/8\""),
            ("10.0.0.0/33", "write an address and a length, for example \"192.0.2.0/24\" or \"2001:db8::/32\""),
            ("::ffff:10.0.0.0/104", "write \"10.0.0.0/8\""),
            ("", "write an address and a length, for example \"192.0.2.0/24\" or \"2001:db8::/32\""),
        ] {
            assert_eq!(client_match(text).unwrap_err().help.as_deref(), Some(help), "{text}");
        }
    }
}
