//! Domain names in wire form, always absolute, matched without regard to ASCII case (RFC 4343).

use std::{fmt, str::FromStr};

/// Longest name in wire form, root label included (RFC 1035 §2.3.4).
pub const NAME_LEN_MAX: usize = 255;
/// Longest label (RFC 1035 §2.3.4).
pub const LABEL_LEN_MAX: usize = 63;

/// An absolute domain name: uncompressed wire form, lower-cased, at most 255 bytes with the root label.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

/// Why a text or a run of bytes is not a domain name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Two dots in a row, or a leading dot.
    #[error("empty label; write single dots between labels")]
    EmptyLabel,
    /// A label over 63 bytes.
    #[error("label `{0}` is {1} bytes long; at most 63 are allowed")]
    LabelTooLong(String, usize),
    /// A name over 255 bytes in wire form.
    #[error("name is {0} bytes long in wire form; at most 255 are allowed")]
    NameTooLong(usize),
    /// A backslash that begins no escape.
    #[error("bad escape `{0}`; write `\\` and three digits up to 255, or `\\` and one other character")]
    BadEscape(String),
    /// Bytes that end within a label, or hold a compression pointer.
    #[error("not an uncompressed domain name")]
    BadWire,
}

impl Name {
    /// The root, `.`.
    pub fn root() -> Self {
        Name(Box::new([0]))
    }

    /// The wire form, ending in the root label.
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    /// Length of the wire form in bytes, 1 to 255.
    #[allow(clippy::len_without_is_empty)] // a name is never empty: the root has one byte
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes an uncompressed wire name that fills `wire` exactly; letters are lower-cased.
    pub fn from_wire(wire: &[u8]) -> Result<Self, NameError> {
        let mut at = 0;
        loop {
            match wire.get(at) {
                Some(0) if at + 1 == wire.len() => break,
                Some(&n) if n != 0 && n as usize <= LABEL_LEN_MAX => at += 1 + n as usize,
                _ => return Err(NameError::BadWire),
            }
        }
        if wire.len() > NAME_LEN_MAX {
            return Err(NameError::NameTooLong(wire.len()));
        }
        Ok(Name(wire.to_ascii_lowercase().into()))
    }

    /// Reads presentation form (RFC 1035 §5.1 escapes). A name without a final dot is completed with `origin`; `@` alone is
    /// `origin`.
    pub fn parse(text: &str, origin: &Name) -> Result<Self, NameError> {
        if text == "@" {
            return Ok(origin.clone());
        }
        if text == "." {
            return Ok(Name::root());
        }
        let mut wire = Vec::with_capacity(text.len() + 1 + origin.len());
        let absolute = push_labels(text, &mut wire)?;
        if absolute {
            wire.push(0);
        } else {
            wire.extend_from_slice(origin.as_wire());
        }
        if wire.len() > NAME_LEN_MAX {
            return Err(NameError::NameTooLong(wire.len()));
        }
        Ok(Name(wire.to_ascii_lowercase().into()))
    }

    /// Labels from the leftmost to the one below the root, without their length bytes.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        let mut at = 0;
        let mut labels: Vec<&[u8]> = Vec::with_capacity(8);
        while self.0[at] != 0 {
            let n = self.0[at] as usize;
            labels.push(&self.0[at + 1..at + 1 + n]);
            at += 1 + n;
        }
        labels.into_iter()
    }

    /// Number of labels, the root not counted.
    pub fn label_count(&self) -> usize {
        self.labels().count()
    }

    /// The name without its leftmost label; `None` for the root.
    pub fn parent(&self) -> Option<Name> {
        let n = self.0[0] as usize;
        (n != 0).then(|| Name(self.0[1 + n..].into()))
    }

    /// True when this name is `zone` or lies below it.
    pub fn is_within(&self, zone: &Name) -> bool {
        let mut at = 0;
        loop {
            if self.0[at..] == *zone.0 {
                return true;
            }
            match self.0[at] {
                0 => return false,
                n => at += 1 + n as usize,
            }
        }
    }

    /// True when the leftmost label is `*` (RFC 4592 §2.1.1).
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with(b"\x01*")
    }
}

/// Appends the labels of `text`; true when it ended in a dot.
fn push_labels(text: &str, wire: &mut Vec<u8>) -> Result<bool, NameError> {
    let mut rest = text.as_bytes();
    loop {
        let start = wire.len();
        wire.push(0);
        let ended_by_dot = loop {
            match rest {
                [] => break false,
                [b'.', tail @ ..] => {
                    rest = tail;
                    break true;
                }
                [b'\\', tail @ ..] => {
                    let (byte, tail) = unescape(tail)?;
                    wire.push(byte);
                    rest = tail;
                }
                [byte, tail @ ..] => {
                    wire.push(*byte);
                    rest = tail;
                }
            }
        };
        let len = wire.len() - start - 1;
        if len == 0 {
            return Err(NameError::EmptyLabel);
        }
        if len > LABEL_LEN_MAX {
            return Err(NameError::LabelTooLong(String::from_utf8_lossy(&wire[start + 1..]).into_owned(), len));
        }
        wire[start] = len as u8;
        if rest.is_empty() {
            return Ok(ended_by_dot);
        }
    }
}

/// The byte that `\DDD` or `\X` stands for, and what follows it.
fn unescape(tail: &[u8]) -> Result<(u8, &[u8]), NameError> {
    let bad = || NameError::BadEscape(format!("\\{}", String::from_utf8_lossy(&tail[..tail.len().min(3)])));
    match tail {
        [a, b, c, rest @ ..] if a.is_ascii_digit() && b.is_ascii_digit() && c.is_ascii_digit() => {
            let value = (a - b'0') as u16 * 100 + (b - b'0') as u16 * 10 + (c - b'0') as u16;
            Ok((u8::try_from(value).map_err(|_| bad())?, rest))
        }
        [a, rest @ ..] if !a.is_ascii_digit() => Ok((*a, rest)),
        _ => Err(bad()),
    }
}

impl FromStr for Name {
    type Err = NameError;

    /// Reads an absolute name; the final dot may be left out.
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == "@" {
            return Err(NameError::EmptyLabel);
        }
        Name::parse(text, &Name::root())
    }
}

impl fmt::Display for Name {
    /// Presentation form with the final dot; bytes outside printable ASCII as `\DDD`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() == 1 {
            return f.write_str(".");
        }
        for label in self.labels() {
            for &byte in label {
                match byte {
                    b'.' | b'\\' | b'"' | b';' | b'(' | b')' | b'@' | b'$' => write!(f, "\\{}", byte as char)?,
                    0x21..=0x7e => write!(f, "{}", byte as char)?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presentation_form_is_read_and_written_back() {
        for (text, shown) in [
            (".", "."),
            ("Example.COM", "example.com."),
            ("a\\.b.example.", "a\\.b.example."),
            ("\\000\\255.x", "\\000\\255.x."),
            ("*.app.example", "*.app.example."),
        ] {
            let name: Name = text.parse().unwrap();
            assert_eq!(name.to_string(), shown);
            assert_eq!(shown.parse::<Name>().unwrap(), name);
        }
    }

    #[test]
    fn limits_are_63_and_255() {
        assert!("a".repeat(63).parse::<Name>().is_ok());
        assert!(matches!("a".repeat(64).parse::<Name>(), Err(NameError::LabelTooLong(_, 64))));
        let longest = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
        assert_eq!(longest.parse::<Name>().unwrap().len(), 255);
        assert_eq!(format!("{longest}d").parse::<Name>(), Err(NameError::NameTooLong(256)));
    }

    #[test]
    fn broken_texts_are_refused() {
        for (text, error) in [
            ("a..b", NameError::EmptyLabel),
            (".a", NameError::EmptyLabel),
            ("", NameError::EmptyLabel),
            ("a\\25", NameError::BadEscape("\\25".into())),
            ("a\\256", NameError::BadEscape("\\256".into())),
            ("a\\", NameError::BadEscape("\\".into())),
        ] {
            assert_eq!(text.parse::<Name>(), Err(error), "{text}");
        }
    }

    #[test]
    fn relative_names_take_the_origin() {
        let origin: Name = "example.com".parse().unwrap();
        assert_eq!(Name::parse("www", &origin).unwrap().to_string(), "www.example.com.");
        assert_eq!(Name::parse("@", &origin).unwrap(), origin);
        assert_eq!(Name::parse("www.", &origin).unwrap().to_string(), "www.");
        assert!(Name::parse("www", &origin).unwrap().is_within(&origin));
        assert!(!"notexample.com".parse::<Name>().unwrap().is_within(&origin));
    }
}
