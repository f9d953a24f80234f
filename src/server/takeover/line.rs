//! What two processes say to each other while one takes over: JSON behind its length on a Unix stream socket, the sockets behind the
//! offer. Knows nothing of what follows from it.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::learnt::Learnt;
use crate::{
    server::{overrides::Overrides, state::Handed},
    sys::descriptors::{self, Peer},
    transport::Role,
};

/// The version of all this. One that differs cannot take over.
pub const PROTOCOL: u32 = 1;

/// Largest message, in bytes. State files may have a quarter of it each.
const MESSAGE_BYTES_MAX: u32 = 256 << 20;

/// A message has so long to go, or to come once it has begun.
const MESSAGE_WITHIN: Duration = Duration::from_secs(30);

/// Whatever is said.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Message {
    /// The new process is here.
    Hello {
        /// [`PROTOCOL`].
        protocol: u32,
        /// Of its program.
        version: String,
    },
    /// What the old one has; its sockets follow.
    Offer(Box<Offer>),
    /// The new one answers queries.
    Serving,
    /// The old one will end. All decisions of operators that it knows.
    Released(Overrides),
    /// The old one does nothing any more but to answer who is connected.
    Stopped,
    /// The old one serves on.
    Refused {
        /// In words.
        why: String,
    },
}

/// What is handed over.
#[derive(Debug, Serialize, Deserialize)]
pub struct Offer {
    /// The process that offers.
    pub process: u32,
    /// Of its program.
    pub version: String,
    /// The sockets that queries come to, in the order in which they follow: what for, and the address as configured.
    pub sockets: Vec<(Role, SocketAddr)>,
    /// How many sockets for a next takeover follow behind those.
    pub doors: usize,
    /// What would be in the state files.
    pub state: Handed,
    /// Secrets of the server cookies that it made for itself.
    pub cookies: Cookies,
    /// What the maps are made of besides the files.
    pub learnt: Learnt,
}

/// Secrets of the server cookies.
#[derive(Serialize, Deserialize)]
pub struct Cookies {
    /// Makes new ones.
    pub current: [u8; 16],
    /// Still accepted.
    pub previous: [u8; 16],
    /// Since the current one was made, in seconds.
    pub age_s: u64,
}

/// Shows nothing, so that no log can.
impl std::fmt::Debug for Cookies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cookies").finish_non_exhaustive()
    }
}

/// One end.
#[derive(Debug)]
pub struct Line {
    stream: UnixStream,
}

impl Line {
    /// On a connected socket.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(stream: UnixStream) -> io::Result<Line> {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(MESSAGE_WITHIN))?;
        Ok(Line { stream })
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// What the system says.
    pub fn peer(&self) -> io::Result<Peer> {
        descriptors::peer(&self.stream)
    }

    /// Says something.
    ///
    /// # Errors
    /// The other end is gone, or does not listen in time.
    pub fn say(&mut self, message: &Message) -> io::Result<()> {
        let body = serde_json::to_vec(message).map_err(io::Error::other)?;
        let length = u32::try_from(body.len()).ok().filter(|length| *length <= MESSAGE_BYTES_MAX);
        let length = length.ok_or_else(|| io::Error::other("there is too much to hand over"))?;
        self.stream.write_all(&length.to_be_bytes())?;
        self.stream.write_all(&body)
    }

    /// What the other end says within this time.
    ///
    /// # Errors
    /// `UnexpectedEof` and `ConnectionReset` when it is gone, `TimedOut` when it has said nothing.
    pub fn hear(&mut self, within: Duration) -> io::Result<Message> {
        self.stream.set_read_timeout(Some(within))?;
        let mut first = [0];
        self.stream.read_exact(&mut first).map_err(in_time)?;
        self.stream.set_read_timeout(Some(MESSAGE_WITHIN))?;
        let mut rest = [0; 3];
        self.stream.read_exact(&mut rest).map_err(in_time)?;
        let length = u32::from_be_bytes([first[0], rest[0], rest[1], rest[2]]);
        if length > MESSAGE_BYTES_MAX {
            return Err(io::Error::other("what it says makes no sense"));
        }
        let mut body = Vec::new();
        let read = (&self.stream).take(length.into()).read_to_end(&mut body).map_err(in_time)?;
        if read < length as usize {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        serde_json::from_slice(&body).map_err(|error| io::Error::other(format!("what it says makes no sense: {error}")))
    }

    /// Gives the other end open files.
    ///
    /// # Errors
    /// As [`Line::say`].
    pub fn give(&self, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        descriptors::send(&self.stream, files)
    }

    /// Takes so many open files that the other end gives.
    ///
    /// # Errors
    /// As [`Line::hear`]; this process may not have so many open.
    pub fn take(&self, count: usize) -> io::Result<Vec<OwnedFd>> {
        self.stream.set_read_timeout(Some(MESSAGE_WITHIN))?;
        descriptors::receive(&self.stream, count).map_err(in_time)
    }
}

/// The system calls it "would block" when the time is over.
fn in_time(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> (Line, Line) {
        let (here, there) = UnixStream::pair().unwrap();
        (Line::new(here).unwrap(), Line::new(there).unwrap())
    }

    const SOON: Duration = Duration::from_millis(20);

    #[test]
    fn what_one_says_the_other_hears_with_open_files_in_between() {
        let (mut here, mut there) = lines();
        here.say(&Message::Hello { protocol: 1, version: "x".into() }).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        here.give(&[std::os::fd::AsFd::as_fd(&file)]).unwrap();
        here.say(&Message::Serving).unwrap();
        assert!(matches!(there.hear(SOON).unwrap(), Message::Hello { protocol: 1, .. }));
        assert_eq!(there.take(1).unwrap().len(), 1);
        assert!(matches!(there.hear(SOON).unwrap(), Message::Serving));
    }

    #[test]
    fn silence_an_end_and_nonsense_are_told_apart() {
        let (mut here, mut there) = lines();
        assert_eq!(there.hear(SOON).unwrap_err().kind(), io::ErrorKind::TimedOut);
        here.stream.write_all(&[0, 0, 0, 3, b'"', b'x', b'"']).unwrap();
        assert_eq!(there.hear(SOON).unwrap_err().kind(), io::ErrorKind::Other);
        here.stream.write_all(&[255, 0, 0, 0]).unwrap();
        assert_eq!(there.hear(SOON).unwrap_err().kind(), io::ErrorKind::Other);
        here.stream.write_all(&[0, 0, 0, 9, b'{']).unwrap();
        drop(here);
        assert_eq!(there.hear(SOON).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
