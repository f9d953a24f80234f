//! `endpoints`: addresses, weighted addresses, or one host name.

use std::net::IpAddr;

use toml::{Spanned, de::DeValue};

use super::host::{answerable, host_name, misread_address};
use crate::{
    config::{
        keys::{ENDPOINT, WEIGHT_MAX},
        leaf::wrong_type,
        model::{Endpoints, WeightedAddress},
        section::{At, Origin, Problems, Section},
        value::{Fault, quote},
    },
    wire::Name,
};

/// Most addresses of one list.
const ADDRESSES_MAX: usize = 1000;

/// A list of endpoints and its place; `None`: wrong, and noted.
pub(crate) type EndpointsSpec = At<Option<Endpoints>>;

/// One element of the list.
enum One {
    Address(IpAddr),
    Name(Name),
}

/// Reads the value of `endpoints`.
pub(super) fn read(problems: &Problems, key: &str, value: &Spanned<DeValue<'_>>) -> EndpointsSpec {
    let bad = At { value: None, span: value.span(), origin: Origin::Bad };
    let mut items: Vec<Option<(At<One>, At<i64>)>> = Vec::new();
    match value.get_ref() {
        DeValue::Array(array) if array.is_empty() => {
            let message = format!("{} is empty", quote(key));
            problems.add(&value.span(), message, "write at least one address, or one host name");
            return bad;
        }
        DeValue::Array(array) if array.len() > ADDRESSES_MAX => {
            let message = format!("{} has {} elements", quote(key), array.len());
            problems.add(&value.span(), message, format!("write at most {ADDRESSES_MAX}"));
            return bad;
        }
        DeValue::Array(array) => items.extend(array.iter().map(|item| read_one(problems, key, item))),
        _ => items.push(read_one(problems, key, value)),
    }
    let all_sound = items.iter().all(Option::is_some);
    let list: Vec<(At<One>, At<i64>)> = items.into_iter().flatten().collect();
    match assemble(problems, &list, value) {
        Some(endpoints) if all_sound => At::file(Some(endpoints), value.span()),
        _ => bad,
    }
}

/// All addresses or exactly one name; `None` when wrong, and noted.
fn assemble(problems: &Problems, list: &[(At<One>, At<i64>)], value: &Spanned<DeValue<'_>>) -> Option<Endpoints> {
    let names = list.iter().filter(|(one, _)| matches!(one.value, One::Name(_))).count();
    if names > 0 && names < list.len() {
        let help = "write addresses only, or exactly one host name";
        problems.add(&value.span(), "host names and addresses in one list", help);
        return None;
    }
    if let [_, (second, _), ..] = list
        && names > 1
    {
        problems.add(&second.span, "a second host name", "write exactly one: a route to a name is one CNAME record");
        return None;
    }
    if let [(One::Name(name), weight)] = list.iter().map(|(o, w)| (&o.value, w)).collect::<Vec<_>>().as_slice() {
        if weight.is_given() {
            problems.add(
                &weight.span,
                "a host name takes no weight",
                "remove it: there is nothing to weigh it against",
            );
            return None;
        }
        return Some(Endpoints::Name((*name).clone()));
    }
    weighted(problems, list, value).map(Endpoints::Addresses)
}

fn weighted(
    problems: &Problems,
    list: &[(At<One>, At<i64>)],
    value: &Spanned<DeValue<'_>>,
) -> Option<Vec<WeightedAddress>> {
    let mut seen = std::collections::HashSet::new();
    let mut addresses = Vec::with_capacity(list.len());
    let mut sound = true;
    for (one, weight) in list {
        let One::Address(address) = one.value else { continue };
        if !seen.insert(address) {
            problems.add(
                &one.span,
                format!("{} stands here twice", quote(&address.to_string())),
                "remove one of the two",
            );
            sound = false;
        }
        let weight = u32::try_from(weight.value).unwrap_or(1);
        addresses.push(WeightedAddress { address, weight });
    }
    if !addresses.is_empty() && addresses.iter().all(|a| a.weight == 0) {
        let help = format!("give at least one endpoint a weight from 1 to {WEIGHT_MAX}");
        problems.add(&value.span(), "every endpoint has weight 0", help);
        sound = false;
    }
    sound.then_some(addresses)
}

/// One element: a string, or a table of address and weight.
fn read_one(problems: &Problems, key: &str, item: &Spanned<DeValue<'_>>) -> Option<(At<One>, At<i64>)> {
    let (text, weight) = match item.get_ref() {
        DeValue::String(text) => {
            let weight = At { value: 1, span: item.span(), origin: Origin::Default };
            (At::file(text.to_string(), item.span()), weight)
        }
        DeValue::Table(table) => {
            let section = Section::open(problems, &ENDPOINT, "an endpoint".into(), table, item.span());
            let weight = section.integer("weight");
            if !section.has("address") {
                section.note_missing("address", "write { address = \"192.0.2.1\", weight = 1 }");
                return None;
            }
            (section.text("address"), weight)
        }
        other => {
            let help = format!("write {key} = [\"192.0.2.1\"]");
            problems.fault(&item.span(), wrong_type(key, "addresses or a host name", other, help));
            return None;
        }
    };
    if !text.is_sound() || !weight.is_sound() {
        return None;
    }
    match one(&text.value) {
        Ok(one) => Some((At::file(one, text.span), weight)),
        Err(fault) => {
            problems.fault(&text.span, fault);
            None
        }
    }
}

fn one(text: &str) -> Result<One, Fault> {
    if let Ok(address) = text.parse() {
        return answerable(address).map(One::Address);
    }
    if text.is_empty() {
        return Err(Fault::new("an empty endpoint", "write an address or a host name"));
    }
    match misread_address(text) {
        Some(fault) => Err(fault),
        None => host_name(text).map(One::Name),
    }
}
