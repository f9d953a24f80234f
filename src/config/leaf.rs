//! Leaf values of the TOML tree: their types in words, numbers and lists of strings out of them. Knows nothing of sections.

use toml::{Spanned, de::DeValue};

use super::{
    keys::{Absent, Key},
    section::{At, Origin, Problems},
    value::{Fault, duration_ms, quote},
};

/// The type of a value, in words.
pub(crate) fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// `x` takes this and not that.
pub(crate) fn wrong_type(name: &str, expected: &str, found: &DeValue<'_>, help: impl Into<String>) -> Fault {
    Fault::new(format!("{} takes {expected}, not {}", quote(name), type_of(found)), help)
}

/// A whole number from `low` to `high`.
pub(crate) fn integer_of(name: &str, value: &DeValue<'_>, low: i64, high: i64) -> Result<i64, Fault> {
    let help = format!("write a whole number from {low} to {high}");
    let number = match value {
        DeValue::Integer(n) => n,
        DeValue::String(text) if text.parse::<i64>().is_ok_and(|n| (low..=high).contains(&n)) => {
            return Err(wrong_type(name, "a whole number", value, format!("write {name} = {text}, without quotes")));
        }
        other => return Err(wrong_type(name, "a whole number", other, help)),
    };
    match i64::from_str_radix(number.as_str(), number.radix()) {
        Ok(n) if (low..=high).contains(&n) => Ok(n),
        _ => Err(Fault::new(format!("{} is {number}; it must be {low} to {high}", quote(name)), help)),
    }
}

/// A list of strings, or one string; elements of another type are noted and left out.
pub(crate) fn texts_of(
    problems: &Problems,
    name: &str,
    what: &str,
    value: &Spanned<DeValue<'_>>,
    max: usize,
) -> At<Vec<At<String>>> {
    let bad = |fault| {
        problems.fault(&value.span(), fault);
        At { value: Vec::new(), span: value.span(), origin: Origin::Bad }
    };
    let items = match value.get_ref() {
        DeValue::String(text) => {
            let one = At::file(text.to_string(), value.span());
            return At::file(vec![one], value.span());
        }
        DeValue::Array(items) => items,
        other => return bad(wrong_type(name, "a list of strings", other, format!("write {name} = [\"{what}\"]"))),
    };
    if items.len() > max {
        let message = format!("{} has {} elements", quote(name), items.len());
        return bad(Fault::new(message, format!("write at most {max}")));
    }
    let mut list = At::file(Vec::with_capacity(items.len()), value.span());
    for item in items.iter() {
        match item.get_ref() {
            DeValue::String(text) => list.value.push(At::file(text.to_string(), item.span())),
            other => {
                let help = match other {
                    DeValue::Integer(n) => format!("write \"{}\"", n.as_str()),
                    _ => "write a string in quotes".to_string(),
                };
                let message = format!("{} takes strings, not {}", quote(name), type_of(other));
                problems.add(&item.span(), message, help);
                list.origin = Origin::Bad;
            }
        }
    }
    list
}

/// True when the value is the key's default written out, which asks for nothing.
pub(crate) fn is_default(key: &Key, value: &DeValue<'_>) -> bool {
    match (&key.default, value) {
        (Absent::Text(default), DeValue::String(text)) => text == default,
        (Absent::Duration(ms), DeValue::String(text)) => duration_ms(text) == Ok(*ms),
        (Absent::Integer(default), DeValue::Integer(n)) => n.as_str().parse() == Ok(*default),
        (Absent::Number(default), DeValue::Float(n)) => n.as_str().parse() == Ok(*default),
        (Absent::Number(default), DeValue::Integer(n)) => n.as_str().parse() == Ok(*default),
        (Absent::Flag(default), DeValue::Boolean(flag)) => flag == default,
        (Absent::Texts([]), DeValue::Array(items)) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::{LATENCY, LIMITS, SERVER};

    #[test]
    fn a_default_written_out_asks_for_nothing() {
        for (schema, text, asks_for_nothing) in [
            (&SERVER, "state-dir = \"\"", true),
            (&SERVER, "state-dir = \"/var/lib/isochrone\"", false),
            (&LIMITS, "responses-per-second = 0", true),
            (&LIMITS, "responses-per-second = 5", false),
            (&LATENCY, "learn = false", true),
            (&LATENCY, "learn = true", false),
            (&LATENCY, "prospect = 0.0", true),
            (&LATENCY, "prospect = 0", true),
            (&LATENCY, "prospect = 0.1", false),
            (&LATENCY, "measurements = []", true),
            (&LATENCY, "measurements = [\"a\"]", false),
            (&LATENCY, "hysteresis = \"5ms\"", true),
            (&LATENCY, "hysteresis = \"6ms\"", false),
            (&LATENCY, "hysteresis = 5", false),
        ] {
            let table = toml::de::DeTable::parse(text).unwrap();
            let (name, value) = table.get_ref().iter().next().unwrap();
            let key = schema.key(name.get_ref()).unwrap();
            assert_eq!(is_default(key, value.get_ref()), asks_for_nothing, "{text}");
        }
    }
}
