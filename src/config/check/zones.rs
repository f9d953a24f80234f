//! Zones: names, name servers and their glue.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use super::Context;
use crate::{
    config::{
        model::Zone,
        section::At,
        spec::{ZoneSpec, host_name, name_fault},
        value::{Fault, nearest, quote},
    },
    wire::Name,
};

impl Context<'_> {
    pub(super) fn build_zones(&self, specs: &[ZoneSpec]) -> Vec<Zone> {
        if specs.is_empty() {
            let help = "add a section such as [zones.\"geo.example.com\"] with nameservers and a route";
            self.problems.absent(&(0..0), "no zone: there is nothing to serve", help);
        }
        let mut origins: HashMap<Name, &At<String>> = HashMap::new();
        for spec in specs {
            match zone_name(&spec.name.value) {
                Ok(origin) => {
                    let first = *origins.entry(origin).or_insert(&spec.name);
                    if first.span != spec.name.span {
                        let message = format!("the zone {} is there already", quote(&spec.name.value));
                        let help = format!("remove one of the two; the first is written {}", quote(&first.value));
                        self.problems.add(&spec.name.span, message, help);
                    }
                }
                Err(fault) => self.problems.fault(&spec.name.span, fault),
            }
        }
        specs.iter().map(|spec| self.build_zone(spec, &origins)).collect()
    }

    fn build_zone(&self, spec: &ZoneSpec, origins: &HashMap<Name, &At<String>>) -> Zone {
        let read = zone_name(&spec.name.value);
        let is_sound = read.is_ok();
        let origin = read.unwrap_or(Name::root());
        let has_text = !spec.file.value.is_empty() || !spec.records.value.is_empty() || !spec.records.is_sound();
        if spec.nameservers.value.is_empty() && spec.nameservers.is_sound() && !has_text && spec.is_whole {
            let message = format!("[zones.\"{}\"] lacks `nameservers`", spec.name.value);
            let help =
                "write nameservers = [\"ns1.example.com.\", \"ns2.example.com.\"], or give SOA and NS in `records`";
            self.problems.add(&spec.span, message, help);
        }
        let nameservers = self.nameservers(spec, &origin);
        let addresses = self.glue(spec, &origin, &nameservers);
        for (at, name) in nameservers.iter().filter(|(_, name)| name.is_within(&origin)) {
            if is_sound && !has_text && spec.is_whole && !addresses.contains_key(name) {
                let message = format!("the name server {} lies in the zone and has no address", quote(&at.value));
                let owner = relative(name, &origin);
                self.problems.add(&at.span, message, format!("write addresses = {{ \"{owner}\" = [\"192.0.2.53\"] }}"));
            }
        }
        Zone {
            nameservers: nameservers.into_iter().map(|(_, name)| name).collect(),
            addresses,
            contact: self.contact(spec, &origin),
            ttl_s: spec.ttl_s,
            negative_ttl_s: spec.negative_ttl_s,
            texts: self.build_texts(spec),
            dnssec_keys: self.build_keys(spec),
            dnssec_announce: spec.dnssec_announce,
            routes: self.build_routes(spec, &origin, origins),
            spot: self.problems.spot(spec.span.clone()),
            origin,
        }
    }

    /// Absolute names, with or without the final dot.
    fn nameservers<'s>(&self, spec: &'s ZoneSpec, origin: &Name) -> Vec<(&'s At<String>, Name)> {
        let mut list: Vec<(&At<String>, Name)> = Vec::new();
        for at in &spec.nameservers.value {
            let name = match host_name(&at.value) {
                Ok(name) => name,
                Err(fault) => {
                    self.problems.fault(&at.span, fault);
                    continue;
                }
            };
            if name.label_count() == 1 && !at.value.ends_with('.') {
                let message = format!("the name server {} is not an absolute name", quote(&at.value));
                self.problems.add(&at.span, message, format!("write \"{}.{origin}\"", at.value));
            } else if list.iter().any(|(_, other)| *other == name) {
                let message = format!("the name server {} stands here twice", quote(&at.value));
                self.problems.add(&at.span, message, "remove one of the two");
            } else {
                list.push((at, name));
            }
        }
        list
    }

    /// Addresses of the name servers inside the zone; a name without a final dot is relative to the zone.
    fn glue(&self, spec: &ZoneSpec, origin: &Name, nameservers: &[(&At<String>, Name)]) -> BTreeMap<Name, Vec<IpAddr>> {
        let mut glue: BTreeMap<Name, Vec<IpAddr>> = BTreeMap::new();
        for (at, addresses) in &spec.addresses {
            let name = match in_zone(&at.value, origin) {
                Ok(name) => name,
                Err(fault) => {
                    self.problems.fault(&at.span, fault);
                    continue;
                }
            };
            if !nameservers.is_empty() && !nameservers.iter().any(|(_, ns)| *ns == name) {
                let inside = nameservers.iter().filter(|(_, ns)| ns.is_within(origin));
                let known: Vec<String> = inside.map(|(_, ns)| relative(ns, origin)).collect();
                let help = match nearest(&at.value, known.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean {}?", quote(near)),
                    None => {
                        "`addresses` is for name servers inside the zone; write other addresses in `records`".into()
                    }
                };
                self.problems.add(
                    &at.span,
                    format!("{} is not one of the zone's name servers", quote(&at.value)),
                    help,
                );
            } else if glue.insert(name, addresses.clone()).is_some() {
                self.problems.add(
                    &at.span,
                    format!("{} stands here twice", quote(&at.value)),
                    "write all addresses in one list",
                );
            }
        }
        glue
    }

    /// SOA RNAME: the mail address with its local part as the first label (RFC 1035 §8).
    fn contact(&self, spec: &ZoneSpec, origin: &Name) -> Name {
        let text = &spec.contact.value;
        let read = match text.split_once('@') {
            _ if text.is_empty() => Name::parse("hostmaster", origin).map_err(|_| String::new()),
            Some((local, domain)) if !local.is_empty() && host_name(domain).is_ok() => {
                let escaped: String =
                    local.chars().flat_map(|c| if matches!(c, '.' | '\\') { vec!['\\', c] } else { vec![c] }).collect();
                let fits = local.is_ascii() && !local.contains(|c: char| c.is_ascii_whitespace() || c.is_control());
                let dotted = format!("{escaped}.{}.", domain.trim_end_matches('.'));
                dotted.parse().ok().filter(|_| fits).ok_or_else(|| text.clone())
            }
            Some(_) => Err(text.clone()),
            None => host_name(text).ok().filter(|name| name.label_count() > 1).ok_or_else(|| text.clone()),
        };
        read.unwrap_or_else(|_| {
            if spec.contact.is_given() && !text.is_empty() {
                let message = format!("`contact` {} is not a mail address", quote(text));
                let zone = spec.name.value.trim_end_matches('.');
                self.problems.add(&spec.contact.span, message, format!("write \"hostmaster@{zone}\""));
            }
            origin.clone()
        })
    }
}

/// The name of a zone: absolute, not the root, no wildcard.
fn zone_name(text: &str) -> Result<Name, Fault> {
    let bad = |why: &str| {
        let message = format!("{} cannot be the name of a zone: {why}", quote(text));
        Err(Fault::new(message, "write a domain that is delegated to you, for example \"geo.example.com\""))
    };
    let name: Name = text.parse().map_err(|error| name_fault(text, &error))?;
    match () {
        () if name == Name::root() => bad("it is the root"),
        () if text.contains('*') => bad("it holds a `*`"),
        () if !text.bytes().all(|b| b.is_ascii_graphic()) => bad("it holds characters outside printable ASCII"),
        () => Ok(name),
    }
}

/// A name that must lie in the zone: `@`, relative, or absolute with a final dot.
pub(super) fn in_zone(text: &str, origin: &Name) -> Result<Name, Fault> {
    let quoted = quote(text);
    if text.is_empty() {
        return Err(Fault::new("an empty name", "write \"@\" for the zone itself"));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Fault::new(
            format!("{quoted} holds characters outside printable ASCII"),
            "write letters, digits and hyphens",
        ));
    }
    let absolute = |name: &Name| format!("write \"{}\", relative to the zone, or \"{name}\"", relative(name, origin));
    if !text.ends_with('.')
        && let Ok(name) = text.parse::<Name>()
        && name.is_within(origin)
        && *origin != Name::root()
    {
        let message = format!("{quoted} repeats the name of its zone");
        return Err(Fault::new(message, absolute(&name)));
    }
    let name = Name::parse(text, origin).map_err(|error| name_fault(text, &error))?;
    if !name.is_within(origin) {
        let message = format!("{quoted} lies outside the zone {}", quote(&origin.to_string()));
        return Err(Fault::new(message, "write a name relative to the zone, without the final dot"));
    }
    Ok(name)
}

/// `name` without the zone's labels; `@` for the apex.
pub(super) fn relative(name: &Name, origin: &Name) -> String {
    let whole = name.to_string();
    let tail = origin.to_string();
    match whole.strip_suffix(&tail).map(|head| head.trim_end_matches('.')) {
        Some("") => "@".into(),
        Some(head) => head.to_string(),
        None => whole,
    }
}
