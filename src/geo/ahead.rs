//! Ranges fetched ahead: one thread reads a file while another works with what was read of it. With two processors a start waits for the
//! longer of the two, and not for both.

use std::{
    mem,
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    thread::{self, Scope},
};

use super::{
    error::GeoError,
    ranges::{Datum, NOT_YET, Range, Ranges},
};

/// Ranges handed over at a time: so many that a hand-over costs nothing beside them.
const CHUNK_RANGES: usize = 1024;

/// Chunks that may wait. Both sides are a little faster now and then.
const CHUNKS_WAITING: usize = 4;

/// Ranges, and the data that they are the first to have. Data are numbered as they appear.
struct Chunk<T> {
    ranges: Vec<Range>,
    data: Vec<T>,
    is_last: bool,
}

/// The ranges of a stream that a thread of its own reads.
struct Ahead<T> {
    chunks: Receiver<Result<Chunk<T>, GeoError>>,
    /// Room for ranges, given back: it need not be found anew.
    used: Sender<Vec<Range>>,
    data: Vec<T>,
    is_over: bool,
}

/// Begins to read the stream that `open` opens. The thread ends with the stream, or soon after the result is dropped. Where there is no
/// thread to be had, the stream is what it is.
pub(super) fn ahead<'scope, T: Datum + Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    open: impl Fn() -> Box<dyn Ranges<T> + Send + 'scope>,
) -> Box<dyn Ranges<T> + 'scope> {
    let stream = open();
    let (sender, chunks) = sync_channel(CHUNKS_WAITING);
    let (used, room) = channel();
    let reader = thread::Builder::new().name("locations".into());
    match reader.spawn_scoped(scope, move || read(stream, &sender, &room)) {
        Ok(_) => Box::new(Ahead { chunks, used, data: Vec::new(), is_over: false }),
        Err(_) => open(),
    }
}

/// Sends all of a stream. What was known to it before and does not appear again is not sent.
fn read<T: Datum>(
    mut stream: Box<dyn Ranges<T> + Send + '_>,
    chunks: &SyncSender<Result<Chunk<T>, GeoError>>,
    room: &Receiver<Vec<Range>>,
) {
    let (mut batch, mut ranges, mut data) = (Vec::new(), Vec::new(), Vec::new());
    let (mut numbers, mut numbered) = (Vec::new(), 0); // by the stream's own
    loop {
        if let Err(error) = stream.fetch(&mut batch) {
            let _nobody_wants_it = chunks.send(Err(error));
            return;
        }
        let is_end = batch.is_empty();
        numbers.resize(stream.data().len(), NOT_YET);
        for range in &mut batch {
            let number = &mut numbers[range.id as usize];
            if *number == NOT_YET {
                data.push(stream.data()[range.id as usize]);
                *number = numbered;
                numbered += 1;
            }
            range.id = *number;
        }
        ranges.append(&mut batch);
        if is_end || ranges.len() >= CHUNK_RANGES {
            let room = room.try_recv().unwrap_or_default();
            let chunk = Chunk { ranges: mem::replace(&mut ranges, room), data: mem::take(&mut data), is_last: is_end };
            if chunks.send(Ok(chunk)).is_err() || is_end {
                return; // the other side has enough, or everything
            }
        }
    }
}

impl<T: Datum> Ranges<T> for Ahead<T> {
    fn fetch(&mut self, batch: &mut Vec<Range>) -> Result<(), GeoError> {
        batch.clear();
        if !self.is_over {
            // An error is the last that comes; nothing at all comes only of a panic, which comes out of the thread's scope, too.
            let chunk = self.chunks.recv().expect("the reader tells of its end");
            self.is_over = chunk.as_ref().map_or(true, |chunk| chunk.is_last);
            let Chunk { ranges, data, .. } = chunk?;
            self.data.extend(data);
            let _reader_has_ended = self.used.send(mem::replace(batch, ranges));
        }
        Ok(())
    }

    fn data(&self) -> &[T] {
        &self.data
    }
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, thread};

    use super::{super::ranges::Interner, *};

    /// So many ranges of two addresses and a gap, whose data are the squares of their numbers modulo 1009; then perhaps an error.
    struct Made {
        next: u128,
        count: u128,
        is_damaged: bool,
        data: Interner<u32>,
    }

    impl Ranges<u32> for Made {
        fn fetch(&mut self, batch: &mut Vec<Range>) -> Result<(), GeoError> {
            batch.clear();
            if self.next == self.count && self.is_damaged {
                return Err(GeoError::Corrupt { path: PathBuf::from("made"), reason: "at its end".into() });
            }
            for number in self.next..self.count.min(self.next + 100) {
                let id = self.data.intern((number * number % 1009) as u32);
                batch.push(Range { first: 3 * number, last: 3 * number + 1, id });
            }
            self.next += batch.len() as u128;
            Ok(())
        }

        fn data(&self) -> &[u32] {
            self.data.values()
        }
    }

    fn made(count: u128, is_damaged: bool) -> Box<dyn Ranges<u32> + Send> {
        let mut data = Interner::default();
        data.intern(7);
        Box::new(Made { next: 0, count, is_damaged, data })
    }

    /// First addresses and data, and whether it ended well.
    fn all(stream: &mut dyn Ranges<u32>) -> (Vec<(u128, u32)>, bool) {
        let (mut found, mut batch) = (Vec::new(), Vec::new());
        loop {
            match stream.fetch(&mut batch) {
                Ok(()) if batch.is_empty() => return (found, true),
                Ok(()) => found.extend(batch.iter().map(|range| (range.first, stream.data()[range.id as usize]))),
                Err(_) => return (found, false),
            }
        }
    }

    #[test]
    fn what_is_fetched_ahead_is_what_would_be_fetched() {
        for count in [0, 1, 100, 4096, 4100, 20_000] {
            let expected = all(&mut *made(count, false));
            let found = thread::scope(|scope| all(&mut *ahead(scope, || made(count, false))));
            assert_eq!(found, expected, "{count} ranges");
        }
    }

    #[test]
    fn an_error_arrives_and_whoever_has_enough_may_go() {
        thread::scope(|scope| assert!(!all(&mut *ahead(scope, || made(9_000, true))).1));
        thread::scope(|scope| {
            let mut stream = ahead(scope, || made(1_000_000, false));
            stream.fetch(&mut Vec::new()).unwrap();
            assert_eq!(stream.data()[..3], [0, 1, 4], "what was known before has not appeared");
        });
    }
}
