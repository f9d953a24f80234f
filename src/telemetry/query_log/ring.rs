//! A ring of words between one writer and one reader: entries of a fixed header and a name, whole or not at all.
//!
//! The words are atomics written without order, the two positions make the order: the writer publishes its own after the words,
//! the reader after it has read them. Each side has its position on cache lines of its own, and the writer looks at the reader's
//! only when the ring seems full.

use std::sync::{
    Arc,
    atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use super::{Entry, Terms, entry};

/// Words of an entry before its name.
pub const HEADER_WORDS: usize = 5;

/// Longest name: what the header's eight bits can tell, and a domain name can have.
pub const NAME_BYTES_MAX: usize = 255;

/// An entry but for its name. The lowest eight bits of the first word are the name's length.
pub type Header = [u64; HEADER_WORDS];

/// The ring.
pub struct Ring {
    terms: Arc<Terms>,
    words: Box<[AtomicU64]>,
    writer: Side,
    reader: Side,
    has_ended: AtomicBool,
}

/// What one side writes, on lines that it shares with nobody: processors fetch them in pairs.
#[repr(align(128))]
#[derive(Default)]
struct Side {
    /// Words that it has written, or read, so far.
    at: AtomicU64,
    /// Of the writer: entries that found no room.
    dropped: AtomicU64,
}

/// Where the writer is, and up to where it knows that there is room.
pub struct Place {
    at: u64,
    until: u64,
}

impl Ring {
    /// Of so many words, a power of two.
    pub fn new(terms: Arc<Terms>, words: usize) -> Ring {
        assert!(words.is_power_of_two(), "positions are masked");
        Ring {
            terms,
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            writer: Side::default(),
            reader: Side::default(),
            has_ended: AtomicBool::new(false),
        }
    }

    /// What its entries mean.
    pub fn terms(&self) -> &Arc<Terms> {
        &self.terms
    }

    /// Where the one writer begins.
    pub fn place(&self) -> Place {
        Place { at: 0, until: self.words.len() as u64 }
    }

    /// Writes an entry, or counts that there was no room. For the one writer, with its place.
    #[inline]
    pub fn push(&self, place: &mut Place, header: &Header, name: &[u8]) {
        debug_assert!(name.len() <= NAME_BYTES_MAX && header[0] & 0xff == name.len() as u64);
        let end = place.at + (HEADER_WORDS + name.len().div_ceil(8)) as u64;
        if end > place.until {
            place.until = self.reader.at.load(Acquire) + self.words.len() as u64;
            if end > place.until {
                self.writer.dropped.store(self.writer.dropped.load(Relaxed) + 1, Relaxed);
                return;
            }
        }
        let mut at = place.at;
        let mut put = |word: u64| {
            self.word(at).store(word, Relaxed);
            at += 1;
        };
        header.iter().for_each(|word| put(*word));
        let (whole, rest) = name.as_chunks::<8>();
        whole.iter().for_each(|bytes| put(u64::from_le_bytes(*bytes)));
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            put(u64::from_le_bytes(last));
        }
        place.at = end;
        self.writer.at.store(end, Release);
    }

    /// Reads at most so many entries; returns how many. For the one reader.
    pub fn drain(&self, entries_max: usize, take: &mut dyn FnMut(&Terms, &Entry<'_>)) -> usize {
        let (mut at, end) = (self.reader.at.load(Relaxed), self.writer.at.load(Acquire));
        let mut taken = 0;
        while at < end && taken < entries_max {
            let header: Header = std::array::from_fn(|n| self.word(at + n as u64).load(Relaxed));
            let len = (header[0] & 0xff) as usize;
            let mut name = [0; NAME_BYTES_MAX.next_multiple_of(8)];
            let (chunks, _) = name.as_chunks_mut::<8>();
            let words = len.div_ceil(8);
            for (n, chunk) in chunks[..words].iter_mut().enumerate() {
                *chunk = self.word(at + (HEADER_WORDS + n) as u64).load(Relaxed).to_le_bytes();
            }
            take(&self.terms, &entry(&header, &name[..len]));
            at += (HEADER_WORDS + words) as u64;
            taken += 1;
            self.reader.at.store(at, Release);
        }
        taken
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.reader.at.load(Relaxed) == self.writer.at.load(Acquire)
    }

    /// Entries that found no room.
    pub fn dropped(&self) -> u64 {
        self.writer.dropped.load(Relaxed)
    }

    /// The writer is gone: what waits is all there will be.
    pub fn end(&self) {
        self.has_ended.store(true, Release);
    }

    /// See [`Ring::end`]. To be asked before what waits is looked at.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Acquire)
    }

    #[inline]
    fn word(&self, at: u64) -> &AtomicU64 {
        &self.words[at as usize & (self.words.len() - 1)]
    }
}
