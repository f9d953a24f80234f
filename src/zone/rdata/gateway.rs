//! Types whose data holds addresses of several kinds: APL (RFC 3123), IPSECKEY (RFC 4025), AMTRELAY (RFC 8777), and HIP
//! (RFC 8005).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    coding,
    shape::{ALGORITHMS, Kind},
    wire::Bytes,
    words::{Fault, Words},
};
use crate::wire::Name;

/// Reads the whole data of one of these types.
pub fn read(kind: Kind, words: &mut Words<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    match kind {
        Kind::Apl => read_apl(words, out),
        Kind::Ipseckey => read_ipseckey(words, out),
        Kind::Amtrelay => read_amtrelay(words, out),
        _ => read_hip(words, out),
    }
}

fn read_apl(words: &mut Words<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    while !words.is_done() {
        let (word, span) = words.word("prefix")?;
        let prefix = apl_item(word).ok_or_else(|| {
            Fault::new(span, format!("`{word}` is not an address prefix"))
                .help("write `1:192.0.2.0/24`, `2:2001:db8::/32`, or `!` before it")
        })?;
        out.extend(prefix);
    }
    Ok(())
}

/// `[!]family:address/length`; trailing zero bytes are left out of the address (RFC 3123 §4).
fn apl_item(word: &str) -> Option<Vec<u8>> {
    let (negation, word) = word.strip_prefix('!').map_or((0, word), |rest| (0x80, rest));
    let (family, prefix) = word.split_once(':')?;
    let (address, len) = prefix.split_once('/')?;
    let (family, mut bytes) = match (family, address.parse().ok()?) {
        ("1", IpAddr::V4(a)) => (1u16, a.octets().to_vec()),
        ("2", IpAddr::V6(a)) => (2u16, a.octets().to_vec()),
        _ => return None,
    };
    let len = u8::try_from(super::words::digits(len)?).ok().filter(|n| usize::from(*n) <= bytes.len() * 8)?;
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    let mut item = family.to_be_bytes().to_vec();
    item.extend([len, negation | bytes.len() as u8]);
    item.extend(bytes);
    Some(item)
}

/// Checks the items of an APL record; families other than 1 and 2 pass as they are.
pub fn check_apl(bytes: &mut Bytes<'_>) -> Result<(), String> {
    while !bytes.0.is_empty() {
        let head = bytes.take(4, "prefixes")?;
        let address = bytes.take(usize::from(head[3] & 0x7f), "prefixes")?;
        let len_max = match (head[0], head[1]) {
            (0, 1) => 4,
            (0, 2) => 16,
            _ => 127,
        };
        if address.len() > len_max || address.ends_with(&[0]) || (len_max < 127 && usize::from(head[2]) > len_max * 8) {
            return Err("a prefix is too long for its family or ends in zero bytes".into());
        }
    }
    Ok(())
}

/// A gateway of the given kind: 0 none (`.`), 1 IPv4, 2 IPv6, 3 a name.
fn read_gateway(words: &mut Words<'_>, what: &str, kind: u8, out: &mut Vec<u8>) -> Result<(), Fault> {
    if kind == 3 {
        out.extend_from_slice(words.name(what)?.as_wire());
        return Ok(());
    }
    let (word, span) = words.word(what)?;
    let (bytes, wanted) = match kind {
        0 => ((word == ".").then(Vec::new), "`.`, as type 0 asks"),
        1 => (word.parse().ok().map(|a: Ipv4Addr| a.octets().to_vec()), "an IPv4 address, as type 1 asks"),
        _ => (word.parse().ok().map(|a: Ipv6Addr| a.octets().to_vec()), "an IPv6 address, as type 2 asks"),
    };
    out.extend(bytes.ok_or_else(|| Fault::new(span, format!("{what}: `{word}` is not {wanted}")))?);
    Ok(())
}

fn read_ipseckey(words: &mut Words<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let precedence = words.number("precedence", 255)?;
    let kind = words.number("gateway type", 3)?;
    let algorithm = words.number("algorithm", 255)?;
    out.extend([precedence as u8, kind as u8, algorithm as u8]);
    read_gateway(words, "gateway", kind as u8, out)?;
    coding::base64(words, "public key", out).map(drop)
}

fn read_amtrelay(words: &mut Words<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let precedence = words.number("precedence", 255)?;
    let discovery = words.number("D bit", 1)?;
    let kind = words.number("relay type", 3)?;
    out.extend([precedence as u8, (discovery << 7 | kind) as u8]);
    read_gateway(words, "relay", kind as u8, out)
}

fn read_hip(words: &mut Words<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let algorithm = words.code("algorithm", ALGORITHMS, 255)?;
    let (tag, tag_span) = words.word("identity tag")?;
    let tag = coding::hex_text(tag).filter(|t| (1..=255).contains(&t.len()));
    let tag = tag.ok_or_else(|| Fault::new(tag_span, "identity tag: not hexadecimal of 1 to 255 bytes"))?;
    let (key, key_span) = words.word("public key")?;
    let key = coding::base64_text(key).filter(|k| (1..=0xffff).contains(&k.len()));
    let key = key.ok_or_else(|| Fault::new(key_span, "public key: not Base64 in one word"))?;
    out.extend([tag.len() as u8, algorithm as u8]);
    out.extend((key.len() as u16).to_be_bytes());
    out.extend(tag);
    out.extend(key);
    while !words.is_done() {
        out.extend_from_slice(words.name("rendezvous server")?.as_wire());
    }
    Ok(())
}

/// Checks the data of IPSECKEY, AMTRELAY or HIP and gives it back with its names in lower case.
pub fn check(kind: Kind, bytes: &mut Bytes<'_>) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    match kind {
        Kind::Hip => {
            let head = bytes.take(4, "lengths")?;
            let (tag, key) = (usize::from(head[0]), usize::from(u16::from_be_bytes([head[2], head[3]])));
            out.extend_from_slice(head);
            out.extend_from_slice(bytes.take(tag, "identity tag")?);
            out.extend_from_slice(bytes.take(key, "public key")?);
            if tag == 0 || key == 0 {
                return Err("the identity tag or the public key is empty".into());
            }
            while !bytes.0.is_empty() {
                out.extend_from_slice(bytes.name("rendezvous server")?.as_wire());
            }
        }
        Kind::Ipseckey => {
            let head = bytes.take(3, "head")?;
            out.extend_from_slice(head);
            out.extend(check_gateway(head[1], "gateway", bytes)?);
            out.extend_from_slice(bytes.take(bytes.0.len(), "public key")?);
        }
        _ => {
            let head = bytes.take(2, "head")?;
            out.extend_from_slice(head);
            out.extend(check_gateway(head[1] & 0x7f, "relay", bytes)?);
        }
    }
    Ok(out)
}

fn check_gateway(kind: u8, what: &str, bytes: &mut Bytes<'_>) -> Result<Vec<u8>, String> {
    match kind {
        0 => Ok(Vec::new()),
        1 => bytes.take(4, what).map(<[u8]>::to_vec),
        2 => bytes.take(16, what).map(<[u8]>::to_vec),
        3 => bytes.name(what).map(|name: Name| name.as_wire().to_vec()),
        _ => Err(format!("the {what} type {kind} is not known")),
    }
}
