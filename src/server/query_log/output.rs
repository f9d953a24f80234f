//! Where the lines of the query log go: a file that may be moved away, fill its disk, or not be there at all, a FIFO, or the standard
//! output. Lines that it does not take wait here, whole, and are written when it does.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, ErrorKind, Write},
    os::{
        fd::AsFd,
        unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    },
    path::Path,
};

use crate::{config::model::LogTarget, sys::options::NO_WAIT, telemetry::query_log::QueryLog};

/// Bytes that wait here before no more are taken from the rings.
const BUFFER_BYTES: usize = 256 << 10;

/// Who may read a new file: it tells who asks for what.
const MODE: u32 = 0o640;

/// An output with what it has not taken yet.
pub struct Output {
    target: LogTarget,
    /// `None`: it could not be opened.
    sink: Option<Sink>,
    buffer: Vec<u8>,
    /// The sink has taken the beginning of a line, whose rest is the first that the buffer holds.
    is_torn: bool,
    /// It was said that it cannot be written.
    is_troubled: bool,
}

struct Sink {
    file: File,
    /// Of a file at a path.
    id: Option<Id>,
    /// It ends with the beginning of a line that has no rest any more: a newline goes before the next one.
    is_cut: bool,
}

/// What tells files apart: device and inode.
type Id = (u64, u64);

impl Output {
    /// Opened at once: who set it up sees whether that works.
    pub fn new(target: LogTarget) -> Output {
        let mut output = Output { target, sink: None, buffer: Vec::new(), is_torn: false, is_troubled: false };
        output.open();
        output
    }

    /// Where it goes.
    pub fn target(&self) -> &LogTarget {
        &self.target
    }

    /// To be filled with whole lines.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// False while so much waits that it must be written first.
    pub fn has_room(&self) -> bool {
        self.buffer.len() < BUFFER_BYTES
    }

    /// Writes what waits. False when not all of it was taken: what was not stays, for the next time.
    pub fn flush(&mut self, log: &QueryLog) -> bool {
        let (mut written, mut has_left) = (0, false);
        while written < self.buffer.len() {
            if self.sink.is_none() {
                self.open();
            }
            let Some(sink) = &mut self.sink else { break };
            let next: &[u8] = if sink.is_cut { b"\n" } else { &self.buffer[written..] };
            match sink.file.write(next) {
                Ok(0) => break,
                Ok(_) if sink.is_cut => sink.is_cut = false,
                Ok(bytes) => {
                    let lines = newlines(&self.buffer[written..written + bytes]);
                    written += bytes;
                    self.is_torn = self.buffer[written - 1] != b'\n';
                    log.count_written(lines);
                    self.recovered();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A FIFO or a terminal that is not read: slow, and nothing worse.
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.troubled(&error);
                    has_left = error.kind() == ErrorKind::BrokenPipe;
                    break;
                }
            }
        }
        self.buffer.drain(..written);
        if has_left {
            self.drop_torn(log); // whoever reads next has not had its beginning
        }
        self.buffer.is_empty()
    }

    /// Has what waits written, and goes by what is at its path now. A file that is still the one there stays open, and has the rest
    /// of a line that it has taken half of.
    pub fn reopen(&mut self, log: &QueryLog) {
        self.flush(log);
        self.follow(log);
    }

    /// Opens the file anew if another one, or none, is at its path, after the present one has had what belongs to it. Tries again
    /// what could not be opened.
    pub fn follow(&mut self, log: &QueryLog) {
        match (&self.target, &self.sink) {
            (_, None) => self.open(),
            (LogTarget::File(path), Some(Sink { id: Some(id), .. }))
                if fs::metadata(path).ok().as_ref().map(id_of) != Some(*id) =>
            {
                self.flush(log);
                self.leave(log);
                self.open();
            }
            _ => {}
        }
    }

    /// Writes what it can, and counts the rest as lost.
    pub fn close(mut self, log: &QueryLog) {
        self.flush(log);
        self.leave(log);
        log.count_lost(newlines(&self.buffer));
    }

    /// Leaves the sink, with a line that it has taken half of ended there if it takes that much.
    fn leave(&mut self, log: &QueryLog) {
        self.drop_torn(log);
        if let Some(mut sink) = self.sink.take().filter(|sink| sink.is_cut) {
            let _who_opens_it_next_does_it = sink.file.write(b"\n");
        }
    }

    /// Without its beginning, or with it in another file, the rest of a line is no line.
    fn drop_torn(&mut self, log: &QueryLog) {
        if std::mem::take(&mut self.is_torn) {
            let end = self.buffer.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            self.buffer.drain(..end);
            log.count_lost(1);
            self.sink.iter_mut().for_each(|sink| sink.is_cut = true);
        }
    }

    fn open(&mut self) {
        let opened = match &self.target {
            LogTarget::Stdout => {
                io::stdout().as_fd().try_clone_to_owned().map(|fd| Sink { file: fd.into(), id: None, is_cut: false })
            }
            LogTarget::File(path) => open_file(path),
        };
        match opened {
            Ok(sink) => self.sink = Some(sink),
            Err(error) => self.troubled(&error),
        }
    }

    fn troubled(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.is_troubled, true) {
            let (target, help) = (shown(&self.target), help(error));
            tracing::error!(
                "cannot write the query log {target}: {error}; {help}. Queries are answered all the same; their lines wait, and \
                 those that find no room are dropped and counted"
            );
        }
    }

    /// Only a write shows that it works: a full disk lets files be opened.
    fn recovered(&mut self) {
        if std::mem::take(&mut self.is_troubled) {
            tracing::info!("the query log {} is written again", shown(&self.target));
        }
    }
}

/// Without waiting for anybody: a FIFO that nobody reads is an error, and one that is full is told.
fn open_file(path: &Path) -> io::Result<Sink> {
    let file = OpenOptions::new().append(true).create(true).mode(MODE).custom_flags(NO_WAIT).open(path)?;
    let metadata = file.metadata()?;
    let is_cut = metadata.is_file() && ends_in_a_line(path, metadata.len());
    Ok(Sink { file, id: Some(id_of(&metadata)), is_cut })
}

/// The last of so many bytes is in the middle of a line: a disk was full, or a machine without power. A file that may only be
/// written is taken for whole.
fn ends_in_a_line(path: &Path, bytes: u64) -> bool {
    let mut last = [b'\n'];
    let mut read = |at| OpenOptions::new().read(true).custom_flags(NO_WAIT).open(path)?.read_exact_at(&mut last, at);
    let is_read = bytes.checked_sub(1).is_some_and(|at| read(at).is_ok());
    is_read && last != [b'\n']
}

fn id_of(metadata: &Metadata) -> Id {
    (metadata.dev(), metadata.ino())
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

fn shown(target: &LogTarget) -> String {
    match target {
        LogTarget::Stdout => "on the standard output".into(),
        LogTarget::File(path) => path.display().to_string(),
    }
}

fn help(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "make its folder",
        ErrorKind::PermissionDenied => "let the server's user write there (file and folder)",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room on the disk",
        ErrorKind::IsADirectory => "name a file in `file` of [query-log]",
        ErrorKind::ReadOnlyFilesystem => "name a file on a disk that can be written",
        ErrorKind::BrokenPipe => "nobody reads it any more",
        _ => "is it a FIFO that nobody reads? If not, see to the disk",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> u64 {
        newlines(text.as_bytes())
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew_with_nothing_lost() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("log"), folder.path().join("log.1"));
        let (log, mut output) = (QueryLog::default(), Output::new(LogTarget::File(path.clone())));
        output.buffer().extend_from_slice(b"one\n");
        assert!(output.flush(&log));
        output.follow(&log);
        fs::rename(&path, &moved).unwrap();
        output.buffer().extend_from_slice(b"two\n");
        output.follow(&log);
        output.buffer().extend_from_slice(b"three\n");
        assert!(output.flush(&log));
        assert_eq!(fs::read_to_string(&moved).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        assert_eq!((log.written(), log.dropped()), (3, 0));
    }

    #[test]
    fn lines_wait_until_there_is_a_place_for_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing").join("log");
        let (log, mut output) = (QueryLog::default(), Output::new(LogTarget::File(path.clone())));
        output.buffer().extend_from_slice(b"one\n");
        assert!(!output.flush(&log) && output.is_troubled);
        fs::create_dir(path.parent().unwrap()).unwrap();
        assert!(output.flush(&log) && !output.is_troubled);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\n");
    }

    #[test]
    fn a_full_disk_keeps_the_lines_waiting_and_what_is_given_up_is_counted() {
        let (log, mut output) = (QueryLog::default(), Output::new(LogTarget::File("/dev/full".into())));
        output.buffer().extend_from_slice(b"one\ntwo\n");
        assert!(!output.flush(&log) && output.is_troubled);
        assert_eq!((output.buffer.as_slice(), log.written()), (&b"one\ntwo\n"[..], 0));
        output.close(&log);
        assert_eq!(log.dropped(), 2);
    }

    #[test]
    fn a_line_that_the_file_has_half_of_has_its_rest_there_however_often_it_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (log, mut output) = (QueryLog::default(), Output::new(LogTarget::File(path.clone())));
        fs::write(&path, "one\nha").unwrap();
        (output.buffer, output.is_torn) = (b"lf\n".to_vec(), true);
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let file = std::mem::replace(&mut output.sink.as_mut().unwrap().file, full);
        output.reopen(&log);
        assert!(output.is_torn && output.is_troubled);
        output.sink.as_mut().unwrap().file = file;
        output.reopen(&log);
        output.buffer().extend_from_slice(b"two\n");
        assert!(output.flush(&log));
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\nhalf\ntwo\n");
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn half_a_line_that_was_left_in_a_file_is_ended_before_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        for (before, expected) in [("", "two\n"), ("one\n", "one\ntwo\n"), ("one\nha", "one\nha\ntwo\n")] {
            fs::write(&path, before).unwrap();
            let (log, mut output) = (QueryLog::default(), Output::new(LogTarget::File(path.clone())));
            output.buffer().extend_from_slice(b"two\n");
            assert!(output.flush(&log));
            output.close(&log);
            assert_eq!(fs::read_to_string(&path).unwrap(), expected);
            assert_eq!((log.written(), log.dropped()), (1, 0));
        }
        let (log, mut output) = (QueryLog::default(), Output::new(LogTarget::File(path.clone())));
        output.is_torn = true;
        output.leave(&log);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\nha\ntwo\n\n", "where its beginning ends");
        assert_eq!(log.dropped(), 1);
    }

    #[test]
    fn a_reader_that_leaves_within_a_line_does_not_leave_the_rest_to_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let reader = || OpenOptions::new().read(true).custom_flags(NO_WAIT).open(&path).unwrap();
        let first = reader();
        let (log, mut output) = (QueryLog::default(), Output::new(LogTarget::File(path.clone())));
        let line = [&[b'x'; 9_999][..], b"\n"].concat();
        (0..50).for_each(|_| output.buffer().extend_from_slice(&line));
        assert!(!output.flush(&log) && output.is_torn);
        let in_pipe = log.written();
        drop(first);
        assert!(!output.flush(&log) && output.is_troubled && !output.is_torn);
        assert_eq!((output.buffer.len() as u64, log.dropped()), ((49 - in_pipe) * 10_000, 1));
        let (mut next, mut text, mut part) = (reader(), Vec::new(), [0; 1 << 16]);
        let mut is_done = false;
        while !is_done {
            is_done = output.flush(&log);
            while let Ok(bytes @ 1..) = io::Read::read(&mut next, &mut part) {
                text.extend_from_slice(&part[..bytes]);
            }
        }
        let lengths: Vec<usize> = text.split(|byte| *byte == b'\n').map(<[u8]>::len).filter(|len| *len > 0).collect();
        assert!(lengths.iter().all(|len| *len <= 9_999), "glued: {lengths:?}");
        assert!(lengths.iter().filter(|len| **len < 9_999).count() <= 1, "{lengths:?}");
        assert_eq!((log.written(), log.dropped()), (49, 1));
    }

    #[test]
    fn a_line_that_the_file_has_half_of_is_ended_there_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let log = QueryLog::default();
        let mut output = Output::new(LogTarget::File(path.clone()));
        assert!(output.is_troubled, "nobody reads it");
        let reader = OpenOptions::new().read(true).custom_flags(NO_WAIT).open(&path).unwrap();
        let line = [&[b'x'; 9_999][..], b"\n"].concat();
        let sent = 50;
        (0..sent).for_each(|_| output.buffer().extend_from_slice(&line));
        assert!(!output.flush(&log), "a pipe holds 64 KiB");
        assert!(output.is_torn && !output.is_troubled);
        let in_pipe = log.written();
        drop(reader);
        fs::remove_file(&path).unwrap();
        output.follow(&log);
        assert!(output.flush(&log));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.lines().all(|line| line.len() == 9_999));
        assert_eq!((lines(&text) + in_pipe, log.dropped()), (sent - 1, 1));
    }
}
