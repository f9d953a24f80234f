//! Service parameters of SVCB and HTTPS records (RFC 9460 §2), as text and as bytes.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    coding,
    wire::Bytes,
    words::{Fault, Pair, Words, digits},
};

const MANDATORY: u16 = 0;
const ALPN: u16 = 1;
const NO_DEFAULT_ALPN: u16 = 2;
const PORT: u16 = 3;
const IPV4HINT: u16 = 4;
const ECH: u16 = 5;
const IPV6HINT: u16 = 6;
const DOHPATH: u16 = 7;
const OHTTP: u16 = 8;
const GROUPS: u16 = 9;
/// Reserved for ever as an invalid key (RFC 9460 §14.3.2).
const INVALID: u16 = 65535;

const KEYS: &[&str] = &[
    "mandatory",
    "alpn",
    "no-default-alpn",
    "port",
    "ipv4hint",
    "ech",
    "ipv6hint",
    "dohpath",
    "ohttp",
    "tls-supported-groups",
];

fn key_number(key: &str) -> Option<u16> {
    if let Some(n) = KEYS.iter().position(|k| *k == key) {
        return Some(n as u16);
    }
    let n = key.strip_prefix("key").filter(|d| *d == "0" || !d.starts_with('0')).and_then(digits)?;
    u16::try_from(n).ok().filter(|n| *n != INVALID)
}

fn key_name(key: u16) -> String {
    KEYS.get(usize::from(key)).map_or_else(|| format!("key{key}"), |name| name.to_string())
}

/// Reads the parameters up to the end and appends them in key order.
pub fn read(words: &mut Words<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut parameters: Vec<(u16, Vec<u8>)> = Vec::new();
    let whole = words.span();
    while !words.is_done() {
        let pair = words.pair("parameter")?;
        let span = pair.span.clone();
        let key = key_number(pair.key).ok_or_else(|| {
            Fault::new(span.clone(), format!("`{}` is not a service parameter", pair.key))
                .help(format!("the known ones are {}, and `keyNNNNN` for any other", KEYS.join(", ")))
        })?;
        if parameters.iter().any(|(k, _)| *k == key) {
            return Err(Fault::new(span, format!("the parameter {} is given twice", key_name(key))));
        }
        let value = read_value(key, &pair)?;
        check_value(key, &value).map_err(|message| Fault::new(span, message))?;
        parameters.push((key, value));
    }
    parameters.sort_unstable();
    let start = out.len();
    for (key, value) in parameters {
        let len = u16::try_from(value.len())
            .map_err(|_| Fault::new(whole.clone(), "a parameter is over 65535 bytes long"))?;
        out.extend(key.to_be_bytes());
        out.extend(len.to_be_bytes());
        out.extend(value);
    }
    check(&out[start..]).map_err(|message| Fault::new(whole, message))
}

/// A value in wire form. `keyNNNNN` takes the bytes as they are, even for a known key (RFC 9460 §2.1).
fn read_value(key: u16, pair: &Pair<'_>) -> Result<Vec<u8>, Fault> {
    let text = pair.value.as_deref().unwrap_or_default();
    if pair.key.starts_with("key") {
        return Ok(text.to_vec());
    }
    let wrong = |what: &str, example: &str| {
        Fault::new(pair.span.clone(), format!("the value of {} is not {what}", pair.key))
            .help(format!("write `{example}`"))
    };
    let utf8 = || std::str::from_utf8(text).ok();
    let mut out = Vec::new();
    match key {
        MANDATORY => {
            let mut keys =
                list(utf8(), key_number).ok_or_else(|| wrong("a list of parameters", "mandatory=alpn,port"))?;
            keys.sort_unstable();
            out.extend(keys.into_iter().flat_map(u16::to_be_bytes));
        }
        ALPN => {
            for id in split_list(text) {
                out.push(
                    u8::try_from(id.len())
                        .ok()
                        .filter(|n| *n > 0)
                        .ok_or_else(|| wrong("a list of protocols", "alpn=h2,h3"))?,
                );
                out.extend(id);
            }
        }
        PORT => {
            let port = utf8().and_then(digits).and_then(|n| u16::try_from(n).ok());
            out.extend(port.ok_or_else(|| wrong("a port", "port=8443"))?.to_be_bytes());
        }
        IPV4HINT => {
            let hints: Option<Vec<Ipv4Addr>> = list(utf8(), |a| a.parse().ok());
            let hints = hints.ok_or_else(|| wrong("a list of IPv4 addresses", "ipv4hint=192.0.2.1,192.0.2.2"))?;
            out.extend(hints.into_iter().flat_map(|a| a.octets()));
        }
        IPV6HINT => {
            let hints: Option<Vec<Ipv6Addr>> = list(utf8(), |a| a.parse().ok());
            let hints = hints.ok_or_else(|| wrong("a list of IPv6 addresses", "ipv6hint=2001:db8::1"))?;
            out.extend(hints.into_iter().flat_map(|a| a.octets()));
        }
        ECH => {
            let bytes = utf8().and_then(coding::base64_text).ok_or_else(|| wrong("Base64", "ech=AEn+DQBF..."))?;
            out.extend(bytes);
        }
        GROUPS => {
            let groups = list(utf8(), |g| u16::try_from(digits(g)?).ok());
            let groups = groups.ok_or_else(|| wrong("a list of numbers", "tls-supported-groups=29,23"))?;
            out.extend(groups.into_iter().flat_map(u16::to_be_bytes));
        }
        _ => out.extend_from_slice(text),
    }
    Ok(out)
}

fn list<T>(text: Option<&str>, item: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    text?.split(',').map(item).collect()
}

/// Items between commas; `\,` and `\\` inside an item (RFC 9460 appendix A.1).
fn split_list(text: &[u8]) -> Vec<Vec<u8>> {
    let mut items = vec![Vec::new()];
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b',' => items.push(Vec::new()),
            b'\\' => items.last_mut().expect("begins with one item").extend(bytes.next()),
            _ => items.last_mut().expect("begins with one item").push(byte),
        }
    }
    items
}

/// Checks parameters in wire form: key order, every known value, and what one key demands of the others.
pub fn check(data: &[u8]) -> Result<(), String> {
    let mut bytes = Bytes(data);
    let mut keys: Vec<u16> = Vec::new();
    let mut mandatory: &[u8] = &[];
    while !bytes.0.is_empty() {
        let head = bytes.take(4, "parameters")?;
        let key = u16::from_be_bytes([head[0], head[1]]);
        let value = bytes.take(usize::from(u16::from_be_bytes([head[2], head[3]])), "parameters")?;
        if keys.last().is_some_and(|last| key <= *last) || key == INVALID {
            return Err("the parameters are not in rising order of their keys".into());
        }
        check_value(key, value)?;
        if key == MANDATORY {
            mandatory = value;
        }
        keys.push(key);
    }
    for pair in mandatory.chunks_exact(2) {
        let key = u16::from_be_bytes([pair[0], pair[1]]);
        if !keys.contains(&key) {
            return Err(format!("{} is mandatory but not given", key_name(key)));
        }
    }
    if keys.contains(&NO_DEFAULT_ALPN) && !keys.contains(&ALPN) {
        return Err("no-default-alpn needs alpn beside it".into());
    }
    Ok(())
}

fn check_value(key: u16, value: &[u8]) -> Result<(), String> {
    let numbers = || value.chunks_exact(2).map(|p| u16::from_be_bytes([p[0], p[1]]));
    let even = !value.is_empty() && value.len().is_multiple_of(2);
    let valid = match key {
        MANDATORY => even && numbers().is_sorted_by(|a, b| a < b) && !numbers().any(|k| k == MANDATORY),
        ALPN => {
            let mut bytes = Bytes(value);
            let mut valid = !value.is_empty();
            while valid && !bytes.0.is_empty() {
                valid = bytes.counted("protocol").is_ok_and(|id| !id.is_empty());
            }
            valid
        }
        NO_DEFAULT_ALPN | OHTTP => value.is_empty(),
        PORT => value.len() == 2,
        IPV4HINT => !value.is_empty() && value.len().is_multiple_of(4),
        IPV6HINT => !value.is_empty() && value.len().is_multiple_of(16),
        // RFC 9461 §5: a relative URI template with the variable `dns`.
        DOHPATH => std::str::from_utf8(value).is_ok_and(|t| t.starts_with('/') && t.contains("dns")),
        GROUPS => {
            let mut sorted: Vec<u16> = numbers().collect();
            sorted.sort_unstable();
            even && !sorted.windows(2).any(|w| w[0] == w[1])
        }
        ECH => !value.is_empty(),
        _ => true,
    };
    valid.then_some(()).ok_or_else(|| format!("the value of {} is {}", key_name(key), reason(key)))
}

/// What a wrong value of a known key lacks.
fn reason(key: u16) -> &'static str {
    match key {
        MANDATORY => "not a list of other parameters, each once",
        ALPN => "not a list of protocols of 1 to 255 bytes each",
        NO_DEFAULT_ALPN | OHTTP => "not empty",
        PORT => "not two bytes",
        IPV4HINT | IPV6HINT => "not a list of addresses",
        DOHPATH => "not a path with the variable `dns`, like `/dns-query{?dns}`",
        GROUPS => "not a list of numbers, each once",
        _ => "empty",
    }
}
