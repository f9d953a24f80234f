//! A name being looked up: lower-cased wire form with the position of every label, kept on the stack.

use super::name::{LABEL_LEN_MAX, NAME_LEN_MAX, Name};

/// Most labels a name of 255 bytes can have, the root not counted.
const LABELS_MAX: usize = 127;

/// Letters are lowered so many at a time: whole blocks become a few vector instructions, a loop over single bytes does not.
const BLOCK: usize = 16;

/// A lower-cased name and where its labels begin. Taken from a query or from a stored name; allocates nothing.
#[derive(Clone)]
pub struct QName {
    wire: [u8; (NAME_LEN_MAX + 1).next_multiple_of(BLOCK)], // what follows the name is of no meaning
    label_at: [u8; LABELS_MAX],
    len: u8,
    labels: u8,
}

/// The root.
impl Default for QName {
    fn default() -> Self {
        QName { wire: [0; _], label_at: [0; _], len: 1, labels: 0 }
    }
}

impl QName {
    /// Reads an uncompressed name from the start of `bytes`. `None` when it is cut off, longer than 255 bytes, or has a label
    /// of another kind than plain (compression pointers have nothing to point to in a question).
    pub fn parse(bytes: &[u8]) -> Option<QName> {
        let mut name = QName::default();
        name.read(bytes).then_some(name)
    }

    /// As [`QName::parse`], in the place of an older name: some 400 bytes that need not be cleared and moved for each query.
    /// False, with the name left as the root, when there is no name to read.
    pub fn read(&mut self, bytes: &[u8]) -> bool {
        (self.len, self.labels, self.wire[0]) = (1, 0, 0);
        let mut labels = 0usize;
        let mut at = 0usize;
        loop {
            let Some(&n) = bytes.get(at) else { return false };
            if n == 0 {
                break;
            }
            let next = at + 1 + usize::from(n);
            if usize::from(n) > LABEL_LEN_MAX || next >= NAME_LEN_MAX || labels == LABELS_MAX {
                return false;
            }
            self.label_at[labels] = at as u8;
            labels += 1;
            at = next;
        }
        // A label that is cut off has no byte after it.
        self.wire[..=at].copy_from_slice(&bytes[..=at]);
        // Length bytes are at most 63, below the letters.
        self.wire[..(at + 1).next_multiple_of(BLOCK)].as_chunks_mut::<BLOCK>().0.iter_mut().for_each(lower);
        (self.len, self.labels) = (at as u8 + 1, labels as u8);
        true
    }

    /// The lookup form of a stored name.
    pub fn from_name(name: &Name) -> QName {
        QName::parse(name.as_wire()).expect("a stored name is a valid name")
    }

    /// The name with its leading labels replaced: this name's labels before `suffix_labels`, then `tail` (RFC 6672 §2.2).
    /// `None` when the result would be longer than 255 bytes.
    pub fn substitute(&self, suffix_labels: usize, tail: &Name) -> Option<QName> {
        let kept = self.offset_of_suffix(suffix_labels);
        let mut wire = [0; 2 * NAME_LEN_MAX];
        wire[..kept].copy_from_slice(&self.wire[..kept]);
        wire[kept..kept + tail.len()].copy_from_slice(tail.as_wire());
        (kept + tail.len() <= NAME_LEN_MAX).then(|| QName::parse(&wire[..kept + tail.len()])).flatten()
    }

    /// Wire form, lower case.
    pub fn as_wire(&self) -> &[u8] {
        &self.wire[..usize::from(self.len)]
    }

    /// Length of the wire form in bytes, 1 to 255.
    #[allow(clippy::len_without_is_empty)] // a name is never empty: the root has one byte
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Number of labels, the root not counted.
    pub fn label_count(&self) -> usize {
        usize::from(self.labels)
    }

    /// The label with `n` labels to its right (0: the one next to the root).
    pub fn label_from_right(&self, n: usize) -> &[u8] {
        let at = usize::from(self.label_at[self.label_count() - 1 - n]);
        let len = usize::from(self.wire[at]);
        &self.wire[at + 1..at + 1 + len]
    }

    /// The wire form of the last `labels` labels, which it has.
    pub fn suffix(&self, labels: usize) -> &[u8] {
        &self.as_wire()[self.offset_of_suffix(labels)..]
    }

    /// Where in the wire form the suffix of `labels` labels begins.
    pub fn offset_of_suffix(&self, labels: usize) -> usize {
        match labels {
            0 => self.len() - 1,
            n => usize::from(self.label_at[self.label_count() - n]),
        }
    }
}

fn lower(block: &mut [u8; BLOCK]) {
    for byte in block {
        *byte |= u8::from(byte.is_ascii_uppercase()) << 5;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_counted_from_the_right() {
        let name = QName::parse(b"\x01A\x02bc\x03com\x00rest").unwrap();
        assert_eq!(name.as_wire(), b"\x01a\x02bc\x03com\x00");
        assert_eq!(name.label_count(), 3);
        assert_eq!(name.label_from_right(0), b"com");
        assert_eq!(name.label_from_right(2), b"a");
        assert_eq!(name.offset_of_suffix(2), 2);
        assert_eq!(name.offset_of_suffix(0), 9);
    }

    #[test]
    fn only_plain_names_up_to_255_bytes_are_read() {
        for bad in [&b""[..], b"\x01", b"\x01a", b"\xc0\x0c", b"\x40", b"\x03ab\x00"] {
            assert!(QName::parse(bad).is_none(), "{bad:?}");
        }
        let mut longest = [&[63u8][..], &[b'a'; 63]].concat().repeat(3);
        longest.extend([61]);
        longest.extend([b'b'; 61]);
        longest.push(0);
        assert_eq!(QName::parse(&longest).unwrap().len(), 255);
        let mut over = [&[63u8][..], &[b'a'; 63]].concat().repeat(3);
        over.extend([62]);
        over.extend([b'b'; 62]);
        over.push(0);
        assert!(QName::parse(&over).is_none());
        let most_labels = [b"\x01a".repeat(127), vec![0]].concat();
        assert_eq!(QName::parse(&most_labels).unwrap().label_count(), 127);
        assert!(QName::parse(&[b"\x01a".repeat(128), vec![0]].concat()).is_none());
    }

    #[test]
    fn a_suffix_is_replaced_or_the_name_is_too_long() {
        let name = QName::parse(b"\x01x\x01y\x03old\x00").unwrap();
        let target: Name = "new.example".parse().unwrap();
        assert_eq!(name.substitute(1, &target).unwrap().as_wire(), b"\x01x\x01y\x03new\x07example\x00");
        let long = "a.".repeat(126).parse::<Name>().unwrap();
        assert!(name.substitute(1, &long).is_none());
    }
}
