//! Queries on their way to the query log: each worker thread puts what it answered into a ring of its own, one reader takes it out
//! again. Putting in takes no lock, allocates nothing and waits for nobody: what finds no room is counted and forgotten. Knows
//! neither files nor what a region is beyond its number.

mod ring;

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use self::ring::{HEADER_WORDS, Header, NAME_BYTES_MAX, Ring};
use super::classes::{DropReason, TransportKind};

/// What one query in the log takes at most in a ring, in words of eight bytes.
const ENTRY_WORDS_MAX: usize = HEADER_WORDS + NAME_BYTES_MAX.div_ceil(8);

/// Room for each query that may wait, in words: 128 bytes, which a name of up to 88 bytes fits into.
const ENTRY_WORDS: usize = 16;

/// How queries are logged while a configuration is in use, and what the numbers in its entries mean.
#[derive(Debug, PartialEq)]
pub struct Terms {
    /// The share of queries that is logged, 0 to 1.
    pub share: f64,
    /// Queries that may wait in one thread's ring.
    pub queue_max: usize,
    /// Zone and label of each route.
    pub routes: Vec<(String, String)>,
    /// Names of the regions.
    pub regions: Vec<String>,
    /// Names of the reasons.
    pub reasons: Vec<&'static str>,
}

/// One query and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'n> {
    /// When it came, in milliseconds since 1970.
    pub at_ms: u64,
    /// Where its client is: the address of its client subnet, or else its sender's.
    pub client: IpAddr,
    /// Prefix length of its client subnet; `None`: it has none, or an empty one.
    pub subnet_len: Option<u8>,
    /// How it came.
    pub transport: TransportKind,
    /// The name asked for, in wire form and lower case, and the type; `None`: no question that could be read.
    pub question: Option<(&'n [u8], u16)>,
    /// The route that answered, its region and the reason, by their numbers.
    pub answered: Option<(u32, u8, u8)>,
    /// Scope prefix length of the reply's client subnet; `None`: it has none.
    pub scope_len: Option<u8>,
    /// The response code, or why there was no response.
    pub outcome: Result<u16, DropReason>,
    /// The reply has TC set.
    pub is_truncated: bool,
}

/// All workers' rings, and what became of their entries.
#[derive(Default)]
pub struct QueryLog {
    rings: Mutex<Rings>,
    written: AtomicU64,
    /// Joined so far, to tell their dice apart.
    joined: AtomicU64,
}

#[derive(Default)]
struct Rings {
    /// In the order in which they were joined.
    list: Vec<Arc<Ring>>,
    /// The most at a time that were written to: so many threads take part.
    threads: usize,
    /// Lost in rings that are gone, or on the way from a ring to the file.
    lost: u64,
}

impl Rings {
    /// Forgets the rings that nothing comes into and nothing is in, but not what they lost.
    fn remove_ended(&mut self) {
        let Rings { list, lost, .. } = self;
        list.retain(|ring| {
            let is_over = ring.has_ended() && ring.is_empty();
            *lost += if is_over { ring.dropped() } else { 0 };
            !is_over
        });
    }
}

/// What a worker needs to know to take part.
#[derive(Clone)]
pub struct Logging {
    /// Where to.
    pub log: Arc<QueryLog>,
    /// How. Two with the same terms, the very same, are the same.
    pub terms: Arc<Terms>,
}

/// One worker's way into the log.
pub struct Noting {
    ring: Arc<Ring>,
    place: ring::Place,
    seed: u64,
}

impl QueryLog {
    /// A ring for one more worker, which notes queries under these terms. Allocates and locks: for when the terms change.
    pub fn join(&self, terms: &Arc<Terms>) -> Noting {
        let words = (terms.queue_max * ENTRY_WORDS).max(ENTRY_WORDS_MAX).next_power_of_two();
        let ring = Arc::new(Ring::new(terms.clone(), words));
        let mut rings = self.rings();
        rings.list.push(ring.clone());
        rings.threads = rings.threads.max(rings.list.iter().filter(|ring| !ring.has_ended()).count());
        drop(rings);
        let seed = self.joined.fetch_add(1, Relaxed) ^ (Arc::as_ptr(&ring) as u64);
        Noting { place: ring.place(), ring, seed }
    }

    /// Hands what waits to `take`, at most so many entries of each ring; for the one reader. Returns how many there were.
    pub fn drain(&self, entries_max: usize, take: &mut dyn FnMut(&Terms, &Entry<'_>)) -> usize {
        let list = self.rings().list.clone(); // workers may join meanwhile
        let (mut taken, mut has_ended) = (0, false);
        for ring in &list {
            let is_last = ring.has_ended();
            taken += ring.drain(entries_max, take);
            has_ended |= is_last && ring.is_empty();
        }
        if has_ended {
            self.rings().remove_ended();
        }
        taken
    }

    /// Bounds what waits in rings whose writers are gone, while nothing can be drained; for the one reader. Of more than one for each
    /// thread the oldest are emptied, and what was in them is counted as lost: each change of terms would leave others.
    pub fn reap(&self) {
        let (mut ended, threads) = {
            let mut rings = self.rings();
            rings.remove_ended();
            (rings.list.iter().filter(|ring| ring.has_ended()).cloned().collect::<Vec<_>>(), rings.threads)
        };
        ended.truncate(ended.len().saturating_sub(threads));
        if !ended.is_empty() {
            let lost: usize = ended.iter().map(|ring| ring.drain(usize::MAX, &mut |_, _| ())).sum();
            self.count_lost(lost as u64);
            self.rings().remove_ended();
        }
    }

    /// True when nobody notes anything and nothing waits.
    pub fn is_empty(&self) -> bool {
        self.rings().list.is_empty()
    }

    /// So many entries were written.
    pub fn count_written(&self, lines: u64) {
        self.written.fetch_add(lines, Relaxed);
    }

    /// So many were taken out and could not be written.
    pub fn count_lost(&self, lines: u64) {
        self.rings().lost += lines;
    }

    /// Entries written.
    pub fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Entries that found no room, or could not be written.
    pub fn dropped(&self) -> u64 {
        let rings = self.rings();
        rings.lost + rings.list.iter().map(|ring| ring.dropped()).sum::<u64>()
    }

    /// Whole whatever panics beside it.
    fn rings(&self) -> MutexGuard<'_, Rings> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Noting {
    /// The terms that it notes under.
    pub fn terms(&self) -> &Arc<Terms> {
        self.ring.terms()
    }

    /// A number that no other has.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Puts an entry in, or counts that there was no room.
    #[inline]
    pub fn note(&mut self, entry: &Entry<'_>) {
        let name = entry.question.map_or(&[][..], |(name, _)| name);
        self.ring.push(&mut self.place, &header(entry), name);
    }
}

impl Drop for Noting {
    fn drop(&mut self) {
        self.ring.end();
    }
}

/// Flags of an entry, above its response code and its scope.
const HAS_SCOPE: u64 = 1;
const HAS_SUBNET: u64 = 2;
const IS_TRUNCATED: u64 = 4;
const IS_ANSWERED: u64 = 8;
const IS_DROPPED: u64 = 16;
const IS_V4: u64 = 32;

#[inline]
fn header(entry: &Entry<'_>) -> Header {
    let (name_len, qtype) = entry.question.map_or((0, 0), |(name, qtype)| (name.len(), qtype));
    let flag = |flag: u64, is_set: bool| if is_set { flag } else { 0 };
    let (code, dropped) = match entry.outcome {
        Ok(rcode) => (rcode, 0),
        Err(reason) => (reason as u16, IS_DROPPED),
    };
    let (address, v4) = match entry.client {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), IS_V4),
        IpAddr::V6(v6) => (v6.to_bits(), 0),
    };
    let flags = flag(HAS_SCOPE, entry.scope_len.is_some())
        | flag(HAS_SUBNET, entry.subnet_len.is_some())
        | flag(IS_TRUNCATED, entry.is_truncated)
        | flag(IS_ANSWERED, entry.answered.is_some())
        | dropped
        | v4;
    let (route, region, reason) = entry.answered.unwrap_or_default();
    [
        entry.at_ms << 8 | name_len as u64 & 0xff,
        u64::from(qtype)
            | u64::from(code) << 16
            | u64::from(entry.scope_len.unwrap_or(0)) << 32
            | u64::from(entry.subnet_len.unwrap_or(0)) << 40
            | (entry.transport as u64) << 48
            | flags << 56,
        u64::from(route) | u64::from(region) << 32 | u64::from(reason) << 40,
        (address >> 64) as u64,
        address as u64,
    ]
}

/// What [`header`] made; `name` is what stood behind it.
fn entry<'n>(header: &Header, name: &'n [u8]) -> Entry<'n> {
    let [when, what, answer, high, low] = *header;
    let flags = what >> 56;
    let has = |flag: u64| flags & flag != 0;
    let byte = |word: u64, shift: u32| (word >> shift) as u8;
    let address = u128::from(high) << 64 | u128::from(low);
    let of = |at: usize, len: usize| at.min(len - 1); // what is in a ring was put there by `header`
    let code = (what >> 16) as u16;
    Entry {
        at_ms: when >> 8,
        client: match has(IS_V4) {
            true => IpAddr::V4((low as u32).into()),
            false => IpAddr::V6(address.into()),
        },
        subnet_len: has(HAS_SUBNET).then_some(byte(what, 40)),
        transport: TransportKind::ALL[of(usize::from(byte(what, 48)), TransportKind::ALL.len())],
        question: (!name.is_empty()).then_some((name, what as u16)),
        answered: has(IS_ANSWERED).then_some((answer as u32, byte(answer, 32), byte(answer, 40))),
        scope_len: has(HAS_SCOPE).then_some(byte(what, 32)),
        outcome: match has(IS_DROPPED) {
            true => Err(DropReason::ALL[of(usize::from(code), DropReason::ALL.len())]),
            false => Ok(code),
        },
        is_truncated: has(IS_TRUNCATED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(queue_max: usize) -> Arc<Terms> {
        Arc::new(Terms { share: 1.0, queue_max, routes: vec![], regions: vec![], reasons: vec![] })
    }

    fn plain(at_ms: u64, name: &[u8]) -> Entry<'_> {
        Entry {
            at_ms,
            client: "192.0.2.7".parse().unwrap(),
            subnet_len: None,
            transport: TransportKind::Udp,
            question: Some((name, 1)),
            answered: None,
            scope_len: None,
            outcome: Ok(0),
            is_truncated: false,
        }
    }

    #[test]
    fn an_entry_comes_out_as_it_went_in() {
        let name = [b"\x3fa".as_slice(), &[b'x'; 200], b"\0"].concat();
        let longest = [7; NAME_BYTES_MAX];
        let full = Entry {
            at_ms: 1_800_000_000_123,
            client: "2001:db8:1:2:3:4:5:6".parse().unwrap(),
            subnet_len: Some(56),
            transport: TransportKind::Doh,
            question: Some((&name, 65_280)),
            answered: Some((u32::MAX, 249, 4)),
            scope_len: Some(128),
            outcome: Ok(0xfff),
            is_truncated: true,
        };
        let entries = [
            full,
            plain(0, b"\0"),
            Entry { question: Some((&longest, 28)), subnet_len: Some(0), scope_len: Some(0), ..full },
            Entry { question: None, outcome: Err(DropReason::RateLimited), answered: Some((0, 0, 0)), ..full },
        ];
        let log = QueryLog::default();
        let mut noting = log.join(&terms(64));
        entries.iter().for_each(|entry| noting.note(entry));
        let mut at = 0;
        let taken = log.drain(100, &mut |_, entry| {
            assert_eq!(*entry, entries[at]);
            at += 1;
        });
        assert_eq!((taken, at, log.dropped()), (4, 4, 0));
    }

    #[test]
    fn what_finds_no_room_is_counted_and_the_rest_stays_in_order() {
        let log = QueryLog::default();
        let mut noting = log.join(&terms(100));
        (0..1_000).for_each(|n| noting.note(&plain(n, b"\x03www\x07example\0")));
        let mut seen = Vec::new();
        log.drain(usize::MAX, &mut |_, entry| seen.push(entry.at_ms));
        assert!(seen.len() >= 100 && seen.iter().copied().eq(0..seen.len() as u64), "{}", seen.len());
        assert_eq!(log.dropped(), 1_000 - seen.len() as u64);
        noting.note(&plain(7, b"\0"));
        assert_eq!(log.drain(10, &mut |_, entry| assert_eq!(entry.at_ms, 7)), 1, "there is room again");
    }

    #[test]
    fn a_ring_is_emptied_before_it_goes_and_its_losses_stay_counted() {
        let log = QueryLog::default();
        let mut noting = log.join(&terms(1));
        (0..50).for_each(|n| noting.note(&plain(n, b"\0")));
        let dropped = log.dropped();
        assert!(dropped > 0);
        drop(noting);
        assert!(!log.is_empty(), "something waits");
        assert_eq!(log.drain(1, &mut |_, _| ()), 1);
        while log.drain(1, &mut |_, _| ()) > 0 {}
        assert!(log.is_empty());
        assert_eq!(log.dropped(), dropped);
    }

    #[test]
    fn while_nothing_is_taken_out_ended_rings_are_no_more_than_threads_and_what_they_held_is_counted() {
        const THREADS: u64 = 2;
        let log = QueryLog::default();
        let mut noting: Vec<_> = (0..THREADS).map(|_| Some(log.join(&terms(64)))).collect();
        log.reap();
        assert_eq!(log.rings().list.len(), 2, "those in use stay");
        for change in 0..10 {
            for of_thread in &mut noting {
                let mut before = of_thread.take().unwrap();
                (0..3).for_each(|_| before.note(&plain(change, b"\0")));
                drop(before);
                *of_thread = Some(log.join(&terms(64)));
            }
            log.reap();
            let ended = log.rings().list.iter().filter(|ring| ring.has_ended()).count() as u64;
            assert_eq!((ended, log.dropped()), (THREADS, change * THREADS * 3));
        }
        let mut seen = Vec::new();
        log.drain(usize::MAX, &mut |_, entry| seen.push(entry.at_ms));
        assert_eq!(seen, [9; 6], "the newest stay");
        noting.clear();
        log.reap();
        assert!(log.is_empty(), "the empty ones go at once");
    }

    #[test]
    fn two_threads_lose_nothing_but_what_is_counted() {
        const ENTRIES: u64 = 200_000;
        let log = QueryLog::default();
        let mut noting = log.join(&terms(64));
        let (mut next, mut taken) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for n in 0..ENTRIES {
                    let name = [n as u8; NAME_BYTES_MAX];
                    noting.note(&plain(n, &name[..1 + (n % 255) as usize]));
                }
            });
            while !log.is_empty() {
                taken += log.drain(16, &mut |_, entry| {
                    let n = entry.at_ms;
                    let (name, _) = entry.question.unwrap();
                    assert!(n >= next && name.len() == 1 + (n % 255) as usize, "{n}");
                    assert!(name.iter().all(|byte| *byte == n as u8), "{n}: {name:?}");
                    next = n + 1;
                }) as u64;
            }
        });
        assert_eq!(taken + log.dropped(), ENTRIES);
    }
}
