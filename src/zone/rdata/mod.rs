//! The data of a record: text → uncompressed wire form (RFC 1035, RFC 3597 and each type's own RFC). Names in it are absolute
//! and in lower case (RFC 4034 §6.2, RFC 4343); texts keep their case. Knows nothing of owners, zones and files.

pub mod types;

mod coding;
mod gateway;
mod loc;
mod sense;
mod shape;
mod svcb;
mod wire;
mod words;

#[cfg(test)]
mod broken_tests;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, Ipv6Addr};

pub use words::{Fault, Words, read_name, seconds, unescape};

use shape::{Field, Kind};

/// Longest data of one record, in bytes.
const RDATA_LEN_MAX: usize = 65_535;

/// Reads all of `words` as the data of a record of their type: in the type's own syntax, or as `\# length hex`, which must
/// be valid data of the type just the same. Types of questions and control are refused.
pub fn read(mut words: Words<'_>) -> Result<Vec<u8>, Fault> {
    read_all(&mut words).map_err(|fault| match fault.help {
        Some(_) => fault,
        None => fault.help(words.usage()),
    })
}

fn read_all(words: &mut Words<'_>) -> Result<Vec<u8>, Fault> {
    let rtype = words.rtype;
    let whole = words.span();
    if types::is_meta(rtype) {
        let message = format!("{} is not a type of records that a zone can hold", types::Shown(rtype));
        return Err(Fault::new(whole, message).help("remove this record"));
    }
    let data = if words.peek() == Some("\\#") { read_generic(words)? } else { read_fields(words)? };
    words.end()?;
    if data.len() > RDATA_LEN_MAX {
        let message = format!("the data is {} bytes long; at most {RDATA_LEN_MAX} fit into a record", data.len());
        return Err(Fault::new(whole, message).help("split it over several records"));
    }
    sense::check(rtype, &data).map_err(|message| Fault::new(whole, message))?;
    Ok(data)
}

/// `\# length hex` (RFC 3597 §5).
fn read_generic(words: &mut Words<'_>) -> Result<Vec<u8>, Fault> {
    words.word("`\\#`")?;
    let len = words.number("length", RDATA_LEN_MAX as u32)? as usize;
    let span = words.span();
    let mut data = Vec::with_capacity(len);
    coding::hex(words, "data", &mut data)?;
    if data.len() != len {
        let message = format!("the data is {} bytes long where its length says {len}", data.len());
        return Err(Fault::new(span, message).help(format!("write `\\# {}` and the same bytes", data.len())));
    }
    match shape::fields(words.rtype) {
        None => Ok(data),
        Some(fields) => wire::check(fields, &data).map_err(|reason| {
            let message = format!("these bytes are not {} data: {reason}", types::Shown(words.rtype));
            Fault::new(span, message)
        }),
    }
}

fn read_fields(words: &mut Words<'_>) -> Result<Vec<u8>, Fault> {
    let Some(fields) = shape::fields(words.rtype) else {
        let message = format!("the data of {} has no text form here", types::Shown(words.rtype));
        return Err(Fault::new(words.span(), message).help(words.usage()));
    };
    let mut out = Vec::with_capacity(32);
    for field in fields {
        read_field(field, words, &mut out)?;
    }
    Ok(out)
}

fn read_field(field: &Field, words: &mut Words<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let what = field.what;
    match field.kind {
        Kind::U8 => out.push(words.number(what, 255)? as u8),
        Kind::U16 => out.extend((words.number(what, 65_535)? as u16).to_be_bytes()),
        Kind::U32 => out.extend(words.number(what, u32::MAX)?.to_be_bytes()),
        Kind::Seconds => out.extend(read_seconds(words, what)?.to_be_bytes()),
        Kind::Time => out.extend(coding::time(words, what)?.to_be_bytes()),
        Kind::Code8(codes) => out.push(words.code(what, codes, 255)? as u8),
        Kind::Code16(codes) => out.extend(words.code(what, codes, 65_535)?.to_be_bytes()),
        Kind::Type => out.extend(words.record_type(what)?.to_be_bytes()),
        Kind::Ipv4 => out.extend(read_address::<Ipv4Addr>(words, what, "an IPv4 address")?.octets()),
        Kind::Ipv6 => out.extend(read_address::<Ipv6Addr>(words, what, "an IPv6 address")?.octets()),
        Kind::Name => out.extend_from_slice(words.name(what)?.as_wire()),
        Kind::Text => read_text(words, what, out)?,
        Kind::Texts => {
            read_text(words, what, out)?;
            while !words.is_done() {
                read_text(words, what, out)?;
            }
        }
        Kind::LongText => out.extend(words.string(what)?.0),
        Kind::Tag => read_tag(words, what, out)?,
        Kind::Hex => required(words, what, out, coding::hex)?,
        Kind::Base64 => required(words, what, out, coding::base64)?,
        Kind::Base64OrNothing => drop(coding::base64(words, what, out)?),
        Kind::Salt => coding::salt(words, what, out)?,
        Kind::Hash => coding::hash(words, what, out)?,
        Kind::Bitmap => coding::bitmap(words, what, out)?,
        Kind::Eui(len) => coding::eui(words, what, len, out)?,
        Kind::Groups => coding::groups(words, what, out)?,
        Kind::Loc => loc::read(words, out)?,
        Kind::SvcParams => svcb::read(words, out)?,
        Kind::Apl | Kind::Ipseckey | Kind::Amtrelay | Kind::Hip => gateway::read(field.kind, words, out)?,
    }
    Ok(())
}

/// A field up to the end that may not be empty.
fn required(
    words: &mut Words<'_>,
    what: &str,
    out: &mut Vec<u8>,
    read: fn(&mut Words<'_>, &str, &mut Vec<u8>) -> Result<usize, Fault>,
) -> Result<(), Fault> {
    if words.is_done() || read(words, what, out)? == 0 {
        words.token(what)?;
    }
    Ok(())
}

fn read_seconds(words: &mut Words<'_>, what: &str) -> Result<u32, Fault> {
    let (word, span) = words.word(what)?;
    seconds(word).ok_or_else(|| {
        Fault::new(span, format!("{what}: `{word}` is not a number of seconds up to 4294967295"))
            .help("write seconds, or units like `1h30m`")
    })
}

fn read_address<T: std::str::FromStr>(words: &mut Words<'_>, what: &str, kind: &str) -> Result<T, Fault> {
    let (word, span) = words.word(what)?;
    word.parse().map_err(|_| Fault::new(span, format!("{what}: `{word}` is not {kind}")))
}

/// One character-string with its length byte.
fn read_text(words: &mut Words<'_>, what: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
    let (text, span) = words.string(what)?;
    let Ok(len) = u8::try_from(text.len()) else {
        let message = format!("{what}: {} bytes long; at most 255 fit into one string", text.len());
        return Err(Fault::new(span, message).help("split it into several quoted strings, one after the other"));
    };
    out.push(len);
    out.extend(text);
    Ok(())
}

fn read_tag(words: &mut Words<'_>, what: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
    let (tag, span) = words.string(what)?;
    match u8::try_from(tag.len()) {
        Ok(len @ 1..) if tag.iter().all(u8::is_ascii_alphanumeric) => {
            out.push(len);
            out.extend(tag);
            Ok(())
        }
        _ => Err(Fault::new(span, format!("{what}: not made of letters and digits"))
            .help("write `issue`, `issuewild` or `iodef`")),
    }
}
