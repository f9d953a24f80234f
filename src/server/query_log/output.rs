//! Where the lines of the query log go: a file that may be moved away, fill its disk, or not be there at all, a FIFO, or the standard
//! output. Lines that it does not take wait here, whole, and are written when it does.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, ErrorKind, Write},
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
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
        let mut written = 0;
        while written < self.buffer.len() {
            if self.sink.is_none() {
                self.open();
            }
            let Some(sink) = &mut self.sink else { break };
            match sink.file.write(&self.buffer[written..]) {
                Ok(0) => break,
                Ok(bytes) => {
                    let lines = newlines(&self.buffer[written..written + bytes]);
                    written += bytes;
                    log.count_written(lines);
                    self.recovered();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A FIFO or a terminal that is not read: slow, and nothing worse.
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.troubled(&error);
                    break;
                }
            }
        }
        if let Some(last) = written.checked_sub(1) {
            self.is_torn = self.buffer[last] != b'\n';
        }
        self.buffer.drain(..written);
        self.buffer.is_empty()
    }

    /// Opens the file at its path anew, after the present one has had what belongs to it.
    pub fn reopen(&mut self, log: &QueryLog) {
        self.flush(log);
        self.drop_torn(log);
        self.sink = None;
        self.open();
    }

    /// Opens the file anew if another one, or none, is at its path, and tries again what could not be opened.
    pub fn follow(&mut self, log: &QueryLog) {
        match (&self.target, &self.sink) {
            (_, None) => self.open(),
            (LogTarget::File(path), Some(Sink { id: Some(id), .. }))
                if fs::metadata(path).ok().as_ref().map(id_of) != Some(*id) =>
            {
                self.reopen(log);
            }
            _ => {}
        }
    }

    /// Writes what it can, and counts the rest as lost.
    pub fn close(mut self, log: &QueryLog) {
        self.flush(log);
        log.count_lost(newlines(&self.buffer));
    }

    /// The rest of a line whose beginning stands in another file is no line.
    fn drop_torn(&mut self, log: &QueryLog) {
        if std::mem::take(&mut self.is_torn) {
            let end = self.buffer.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            self.buffer.drain(..end);
            log.count_lost(1);
        }
    }

    fn open(&mut self) {
        let opened = match &self.target {
            LogTarget::Stdout => io::stdout().as_fd().try_clone_to_owned().map(|fd| Sink { file: fd.into(), id: None }),
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
    let id = id_of(&file.metadata()?);
    Ok(Sink { file, id: Some(id) })
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
