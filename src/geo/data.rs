//! The data section of an `.mmdb` file, value by value (MaxMind DB format 2.0, "Output Data Section"). A city database has hundreds of
//! thousands of records, of each of which a few fields are wanted: stepping over the others without building anything is what
//! makes a start quick. Knows nothing of what the values mean.

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// UTF-8 text; its size is in bytes.
    Text,
    /// A number; its size is in bytes.
    Number(Numeric),
    /// Its size is the number of pairs of key and value.
    Map,
    /// Its size is the number of values.
    Array,
    /// Raw bytes.
    Bytes,
    /// A truth value, which its size tells; nothing follows.
    Flag,
}

/// How a number is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numeric {
    /// IEEE 754, 4 or 8 bytes.
    Float,
    /// Big-endian, leading zero bytes left out; 16 bytes at most.
    Unsigned,
    /// As unsigned; of four bytes the first bit is the sign.
    Signed,
}

/// A place in the data section.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'d> {
    data: &'d [u8],
    at: usize,
}

/// Nothing in a sound file is nested so deep that this many values wait.
const WAITING_MAX: usize = 1 << 24;

impl<'d> Cursor<'d> {
    /// At `at` of the data section `data`.
    pub(super) fn new(data: &'d [u8], at: usize) -> Self {
        Cursor { data, at }
    }

    /// The head of a value that is no pointer; its content comes next.
    #[inline]
    pub(super) fn head(&mut self) -> Result<(Kind, usize), &'static str> {
        match self.raw_head()? {
            Head::Value(kind, size) => Ok((kind, size)),
            Head::Pointer(_) => Err("a pointer where a value should be"),
        }
    }

    /// The head of the next value. Where it is a pointer, the third is where the content comes next, and this cursor has passed
    /// the value already.
    #[inline]
    pub(super) fn value(&mut self) -> Result<(Kind, usize, Option<Cursor<'d>>), &'static str> {
        match self.raw_head()? {
            Head::Value(kind, size) => Ok((kind, size, None)),
            Head::Pointer(at) => {
                let mut there = Cursor { data: self.data, at };
                let (kind, size) = there.head()?;
                Ok((kind, size, Some(there)))
            }
        }
    }

    /// Where the next value's content is if it is a pointer, one place for all that share it, and this cursor after the pointer.
    #[inline]
    pub(super) fn shared(&self) -> Option<(usize, Cursor<'d>)> {
        let control = self.data.get(self.at).filter(|control| **control >> 5 == 1)?;
        let mut after = Cursor { data: self.data, at: self.at + 1 };
        match after.pointer(*control) {
            Ok(Head::Pointer(at)) => Some((at, after)),
            _ => None,
        }
    }

    /// The key of a map's next pair.
    #[inline]
    pub(super) fn key(&mut self) -> Result<&'d [u8], &'static str> {
        let (kind, size, mut there) = self.value()?;
        match kind {
            Kind::Text => there.as_mut().unwrap_or(self).take(size),
            _ => Err("a map's key that is no text"),
        }
    }

    /// The content of a text.
    pub(super) fn text(&mut self, size: usize) -> Result<&'d str, &'static str> {
        std::str::from_utf8(self.take(size)?).map_err(|_| "a text that is not UTF-8")
    }

    /// The content of a number.
    pub(super) fn number(&mut self, numeric: Numeric, size: usize) -> Result<f64, &'static str> {
        let bytes = self.take(size)?;
        match (numeric, bytes) {
            (Numeric::Float, &[a, b, c, d]) => Ok(f32::from_be_bytes([a, b, c, d]).into()),
            (Numeric::Float, &[a, b, c, d, e, f, g, h]) => Ok(f64::from_be_bytes([a, b, c, d, e, f, g, h])),
            (Numeric::Signed, &[a, b, c, d]) => Ok(i32::from_be_bytes([a, b, c, d]).into()),
            (Numeric::Unsigned, bytes) if bytes.len() <= 8 => {
                Ok(bytes.iter().fold(0u64, |number, &byte| number << 8 | u64::from(byte)) as f64)
            }
            (Numeric::Unsigned | Numeric::Signed, bytes) if bytes.len() <= 16 => {
                Ok(bytes.iter().fold(0u128, |number, &byte| number << 8 | u128::from(byte)) as f64)
            }
            _ => Err("a number of a length that none has"),
        }
    }

    /// Steps over the next value.
    #[inline]
    pub(super) fn skip(&mut self) -> Result<(), &'static str> {
        match self.shared() {
            Some((_, after)) => *self = after,
            None => self.skip_values(1)?,
        }
        Ok(())
    }

    /// Steps over the content of a value whose head has been read.
    pub(super) fn skip_content(&mut self, kind: Kind, size: usize) -> Result<(), &'static str> {
        match kind {
            Kind::Map => self.skip_values(size.saturating_mul(2)),
            Kind::Array => self.skip_values(size),
            Kind::Flag => Ok(()),
            Kind::Text | Kind::Bytes | Kind::Number(_) => self.take(size).map(drop),
        }
    }

    /// Without recursion: however deep the values are nested, only their number counts.
    fn skip_values(&mut self, values: usize) -> Result<(), &'static str> {
        let mut waiting = values;
        while waiting > 0 {
            if waiting > WAITING_MAX {
                return Err("a map or list that is larger than its file");
            }
            waiting -= 1;
            // Most of what is stepped over are names of places in many languages: short texts, and pointers to them.
            match self.data.get(self.at) {
                Some(&control @ 0x40..=0x5c) => {
                    self.at += 1 + usize::from(control & 0x1f);
                    continue;
                }
                Some(&control @ 0x20..=0x3f) => {
                    self.at += 1 + pointer_bytes(control);
                    continue;
                }
                _ => {}
            }
            match self.raw_head()? {
                Head::Pointer(_) => {}
                Head::Value(Kind::Map, size) => waiting += 2 * size,
                Head::Value(Kind::Array, size) => waiting += size,
                Head::Value(Kind::Flag, _) => {}
                Head::Value(_, size) => self.at = self.at.saturating_add(size),
            }
        }
        // What was stepped over must be there; the bytes of heads were.
        if self.at <= self.data.len() { Ok(()) } else { Err(cut_short()) }
    }

    #[inline(always)] // a few million calls at a start
    fn raw_head(&mut self) -> Result<Head, &'static str> {
        let control = self.byte()?;
        let mut kind = control >> 5;
        if kind == 1 {
            return self.pointer(control);
        }
        if kind == 0 {
            kind = self.byte()?.saturating_add(7);
        }
        let size = match control & 0x1f {
            29 => 29 + usize::from(self.byte()?),
            30 => 285 + self.big_endian(2)?,
            31 => 65_821 + self.big_endian(3)?,
            size => usize::from(size),
        };
        let kind = match kind {
            2 => Kind::Text,
            3 | 15 => Kind::Number(Numeric::Float),
            4 => Kind::Bytes,
            5 | 6 | 9 | 10 => Kind::Number(Numeric::Unsigned),
            7 => Kind::Map,
            8 => Kind::Number(Numeric::Signed),
            11 => Kind::Array,
            14 => Kind::Flag,
            _ => return Err("a value of an unknown kind"),
        };
        Ok(Head::Value(kind, size))
    }

    #[inline(always)]
    fn pointer(&mut self, control: u8) -> Result<Head, &'static str> {
        let bytes = pointer_bytes(control);
        let low = match self.data.get(self.at..).and_then(|rest| rest.first_chunk::<4>()) {
            Some(chunk) => u32::from_be_bytes(*chunk) as usize >> (8 * (4 - bytes)),
            None => Cursor { ..*self }.big_endian(bytes)?,
        };
        self.at += bytes;
        // Without a branch: which of the four it is cannot be foreseen.
        let high = usize::from(control & 7) << (8 * bytes);
        Ok(Head::Pointer(POINTER_BASE[bytes - 1] + (high & POINTER_HIGH[bytes - 1] | low)))
    }

    #[inline]
    fn big_endian(&mut self, size: usize) -> Result<usize, &'static str> {
        Ok(self.take(size)?.iter().fold(0, |number, &byte| number << 8 | usize::from(byte)))
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, &'static str> {
        let byte = *self.data.get(self.at).ok_or_else(cut_short)?;
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    fn take(&mut self, size: usize) -> Result<&'d [u8], &'static str> {
        let taken = self.data.get(self.at..).and_then(|rest| rest.get(..size)).ok_or_else(cut_short)?;
        self.at += size;
        Ok(taken)
    }
}

/// What is added to a pointer, by the number of its bytes after the first, less one.
const POINTER_BASE: [usize; 4] = [0, 2048, 526_336, 0];
/// Which bits of it the first byte may have.
const POINTER_HIGH: [usize; 4] = [usize::MAX, usize::MAX, usize::MAX, 0];

/// Bytes after a pointer's first.
fn pointer_bytes(control: u8) -> usize {
    usize::from(control >> 3 & 3) + 1
}

enum Head {
    Value(Kind, usize),
    /// To this place in the data section.
    Pointer(usize),
}

#[cold]
fn cut_short() -> &'static str {
    "a record that is cut short"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kind of value, with its size as the format writes it.
    fn values() -> Vec<Vec<u8>> {
        let text = |n: usize| [&[0x5d, (n - 29) as u8][..], &vec![b'x'; n]].concat();
        vec![
            b"\x42de".to_vec(),
            text(40),
            [&[0x5e, 0, 15][..], &[b'y'; 300]].concat(),
            [&[0x5f, 0, 0, 1][..], &[b'z'; 65_822]].concat(),
            b"\x68\x3f\xf0\0\0\0\0\0\0".to_vec(),                // double
            b"\x83abc".to_vec(),                                 // bytes
            b"\xa2\x12\x34".to_vec(),                            // 16 bits
            b"\xc0".to_vec(),                                    // 32 bits: 0
            b"\x04\x01\xff\xff\xff\xfe".to_vec(),                // signed
            b"\x02\x02\x12\x34".to_vec(),                        // 64 bits
            b"\x01\x03\x07".to_vec(),                            // 128 bits
            b"\x02\x04\xc1\x05\x42ab".to_vec(),                  // list of two
            b"\x01\x07".to_vec(),                                // true
            b"\x04\x08\x3f\x80\0\0".to_vec(),                    // float
            b"\xe2\x41a\xe1\x41b\x01\x07\x41c\x20\x00".to_vec(), // map with a map and a pointer
            b"\x2f\xff\xff".to_vec(),                            // pointers of all lengths
            b"\x37\xff\xff\xff".to_vec(),
            b"\x38\xff\xff\xff\xff".to_vec(),
        ]
    }

    #[test]
    fn every_kind_of_value_is_stepped_over_exactly() {
        for value in values() {
            let mut data = value.clone();
            data.extend(b"\x43end");
            let mut at = Cursor::new(&data, 0);
            at.skip().unwrap_or_else(|error| panic!("{error}: {value:02x?}"));
            assert_eq!(at.key(), Ok(&b"end"[..]), "{value:02x?}");
        }
    }

    #[test]
    fn a_value_cut_anywhere_is_an_error() {
        for value in values() {
            for len in (0..value.len()).take(400) {
                assert!(Cursor::new(&value[..len], 0).skip().is_err(), "{len} bytes of {value:02x?}");
            }
        }
    }

    #[test]
    fn numbers_of_every_kind_are_read() {
        for (value, expected) in [
            (&b"\x68\x3f\xf0\0\0\0\0\0\0"[..], 1.0),
            (b"\x04\x08\xbf\x80\0\0", -1.0),
            (b"\xa2\x12\x34", 4660.0),
            (b"\xc0", 0.0),
            (b"\x04\x01\xff\xff\xff\xfe", -2.0),
            (b"\x01\x03\x07", 7.0),
        ] {
            let mut at = Cursor::new(value, 0);
            let (Kind::Number(numeric), size) = at.head().unwrap() else { panic!("{value:02x?}") };
            assert_eq!(at.number(numeric, size), Ok(expected));
        }
    }

    #[test]
    fn pointers_lead_to_values_and_never_to_pointers() {
        let data = b"\x42ab\x20\x00\x20\x03\x20\xff";
        let mut at = Cursor::new(data, 3);
        assert_eq!(at.key(), Ok(&b"ab"[..]));
        assert_eq!(at.key(), Err("a pointer where a value should be"));
        assert_eq!(at.key(), Err("a record that is cut short"));
    }
}
