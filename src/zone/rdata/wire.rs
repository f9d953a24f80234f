//! Checks data that was given as bytes (`\# length hex`, RFC 3597) against the fields of its type.

use super::{
    gateway, loc,
    shape::{Field, Kind},
    svcb,
};
use crate::wire::{Name, NameError, name::LABEL_LEN_MAX};

/// Bytes still to be taken.
#[derive(Debug)]
pub struct Bytes<'b>(pub &'b [u8]);

impl<'b> Bytes<'b> {
    /// The next `n` bytes, which belong to `what`.
    pub fn take(&mut self, n: usize, what: &str) -> Result<&'b [u8], String> {
        let (head, tail) = self.0.split_at_checked(n).ok_or_else(|| format!("it ends within the {what}"))?;
        self.0 = tail;
        Ok(head)
    }

    /// The next byte.
    pub fn byte(&mut self, what: &str) -> Result<u8, String> {
        Ok(self.take(1, what)?[0])
    }

    /// A length byte and so many bytes after it.
    pub fn counted(&mut self, what: &str) -> Result<&'b [u8], String> {
        let n = self.byte(what)?;
        self.take(usize::from(n), what)
    }

    /// An uncompressed name.
    pub fn name(&mut self, what: &str) -> Result<Name, String> {
        let mut end = 0;
        while let Some(&n) = self.0.get(end) {
            if usize::from(n) > LABEL_LEN_MAX {
                return Err(format!("the {what} is {}", NameError::BadWire));
            }
            end += 1 + usize::from(n);
            if n == 0 {
                let wire = self.take(end, what)?;
                return Name::from_wire(wire).map_err(|error| format!("the {what} is {error}"));
            }
        }
        Err(format!("it ends within the {what}"))
    }

    fn rest(&mut self) -> &'b [u8] {
        std::mem::take(&mut self.0)
    }
}

/// The data with its names in lower case; an error says in words what is wrong with it.
pub fn check(fields: &[Field], data: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Bytes(data);
    let mut out = Vec::with_capacity(data.len());
    for field in fields {
        check_field(field, &mut bytes, &mut out)?;
    }
    match bytes.0.len() {
        0 => Ok(out),
        1 => Err("it has one byte too many".into()),
        n => Err(format!("it has {n} bytes too many")),
    }
}

fn check_field(field: &Field, bytes: &mut Bytes<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    let what = field.what;
    let fixed = match field.kind {
        Kind::U8 | Kind::Code8(_) => 1,
        Kind::U16 | Kind::Code16(_) | Kind::Type => 2,
        Kind::U32 | Kind::Seconds | Kind::Time | Kind::Ipv4 => 4,
        Kind::Groups => 8,
        Kind::Ipv6 => 16,
        Kind::Eui(len) => len,
        _ => return check_variable(field, bytes, out),
    };
    out.extend_from_slice(bytes.take(fixed, what)?);
    Ok(())
}

fn check_variable(field: &Field, bytes: &mut Bytes<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    let what = field.what;
    let before = bytes.0;
    match field.kind {
        Kind::Name => {
            out.extend_from_slice(bytes.name(what)?.as_wire());
            return Ok(());
        }
        Kind::Text | Kind::Salt => drop(bytes.counted(what)?),
        Kind::Texts => {
            bytes.counted(what)?;
            while !bytes.0.is_empty() {
                bytes.counted(what)?;
            }
        }
        Kind::Hash if bytes.counted(what)?.is_empty() => return Err(format!("the {what} is empty")),
        Kind::Hash => {}
        Kind::Tag => {
            let tag = bytes.counted(what)?;
            if tag.is_empty() || !tag.iter().all(u8::is_ascii_alphanumeric) {
                return Err(format!("the {what} is not made of letters and digits"));
            }
        }
        Kind::Hex | Kind::Base64 if bytes.rest().is_empty() => return Err(format!("the {what} is missing")),
        Kind::Hex | Kind::Base64 => {}
        Kind::LongText | Kind::Base64OrNothing => drop(bytes.rest()),
        Kind::Bitmap => check_bitmap(bytes, what)?,
        Kind::SvcParams => svcb::check(bytes.rest())?,
        Kind::Loc => loc::check(bytes.take(16, what)?)?,
        Kind::Apl => gateway::check_apl(bytes)?,
        Kind::Ipseckey | Kind::Amtrelay | Kind::Hip => {
            out.extend(gateway::check(field.kind, bytes)?);
            return Ok(());
        }
        _ => unreachable!("fields of fixed length are handled by the caller"),
    }
    out.extend_from_slice(&before[..before.len() - bytes.0.len()]);
    Ok(())
}

fn check_bitmap(bytes: &mut Bytes<'_>, what: &str) -> Result<(), String> {
    let mut last = None;
    while !bytes.0.is_empty() {
        let window = bytes.byte(what)?;
        let bits = bytes.counted(what)?;
        if last.is_some_and(|l| window <= l) || !(1..=32).contains(&bits.len()) || bits.ends_with(&[0]) {
            return Err(format!("the {what} are no list of windows in order"));
        }
        last = Some(window);
    }
    Ok(())
}
