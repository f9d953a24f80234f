//! One TCP connection: length framing across any segmentation, pipelined messages answered in order, several replies in one
//! write (RFC 7766 §6.2.1.1, §7, §8; RFC 9210 §4). Must never hold up another connection: what it keeps is bounded, what it
//! waits for has a deadline, and it gives the thread back after every turn.
//!
//! An idle connection has no buffers of its own. Bytes are read into, and replies made in, buffers that all connections of the
//! thread share; only what is left over (part of a message, replies that the client is slow to take) is kept.

use std::{
    cell::RefCell,
    future::{poll_fn, ready},
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    sync::watch,
    task::{AbortHandle, yield_now},
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    Reply, Respond, TransportKind, Worker,
    limits::{ConnectionId, ConnectionTable},
    stopwatch::Stopwatch,
};
use crate::config::model::Limits;

/// What all connections of the thread share.
pub(super) struct Shared<R> {
    /// What they speak.
    pub transport: TransportKind,
    pub worker: Worker<R>,
    pub table: ConnectionTable<AbortHandle>,
    stopwatch: Stopwatch,
    input: Box<[u8]>,
    output: Output,
}

/// A connection's place among the others of its thread. Leaves the table when it is dropped, however that happens.
pub(super) struct Seat<R> {
    pub client: SocketAddr,
    pub id: ConnectionId,
    pub shared: Rc<RefCell<Shared<R>>>,
    pub limits: watch::Receiver<Limits>,
    pub stop: watch::Receiver<bool>,
}

/// What carries a connection's bytes.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// The socket below.
    fn socket(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

/// One connection on which messages stand behind their lengths.
pub(super) struct Connection<S: Stream, R: Respond> {
    stream: S,
    seat: Seat<R>,
    kept: Kept,
    /// A message came.
    has_asked: bool,
}

/// What is left over between two turns.
#[derive(Default)]
struct Kept {
    /// Received but not answered: part of a message, or whole ones when `has_more`. At most a message and a read.
    input: Vec<u8>,
    /// Replies that the client has not taken yet; while there are any, nothing is read.
    output: Vec<u8>,
    /// `input` may begin with whole messages.
    has_more: bool,
}

/// Replies of one turn, each behind its length.
struct Output {
    buffer: Box<[u8]>,
    len: usize,
}

/// What one turn did.
#[derive(Debug, Default, PartialEq)]
struct Turn {
    /// Messages taken from the input.
    messages: usize,
    /// The client will send nothing more.
    is_end: bool,
    /// The client sent what no client should: close.
    is_broken: bool,
}

/// Most bytes of one read: some hundred queries.
const READ_BYTES: usize = 16 << 10;

/// A message or reply with its length in front.
const FRAME_BYTES_MAX: usize = 2 + u16::MAX as usize;

/// Once so many bytes of replies are made, they are written before the next one.
const WRITE_AT: usize = 16 << 10;

/// Most messages of one turn, so that one client's pipeline does not make the others wait for more than some 100 µs.
const MESSAGES_PER_TURN: usize = 128;

impl<R> Shared<R> {
    pub(super) fn new(transport: TransportKind, worker: Worker<R>) -> Self {
        let output = Output { buffer: vec![0; WRITE_AT + FRAME_BYTES_MAX].into(), len: 0 };
        let (table, input) = (ConnectionTable::default(), vec![0; READ_BYTES].into());
        Shared { transport, worker, table, stopwatch: Stopwatch::default(), input, output }
    }

    pub(super) fn count_connections(&self) {
        self.worker.counters.set_tcp_connections(self.table.len());
    }
}

impl<R: Respond> Shared<R> {
    /// Lets go of what is old, though nobody asks, and shows that the thread is alive.
    pub(super) fn refresh(&mut self) {
        self.worker.counters.round();
        self.worker.respond.begin_batch();
    }

    /// The reply to one message that stands alone, without a length.
    pub(super) fn answer(&mut self, message: &[u8], client: SocketAddr) -> Option<&[u8]> {
        let lap = self.stopwatch.begin();
        self.worker.respond.begin_batch();
        let room = &mut self.output.buffer[..usize::from(u16::MAX)];
        let reply = self.worker.respond.respond(message, client, self.transport, room);
        if let Some(took) = lap.end() {
            self.worker.counters.answer_times().record(self.transport, took, 1);
        }
        match reply {
            Reply::Send(length) => Some(&room[..length]),
            Reply::Drop => None,
        }
    }
}

impl<R> Seat<R> {
    /// `tcp-idle` from now.
    pub(super) fn new_deadline(&self) -> Instant {
        Instant::now() + self.limits.borrow().tcp_idle
    }

    /// The client asked something: it is the freshest.
    pub(super) fn touch(&self) {
        self.shared.borrow_mut().table.touch(self.id);
    }
}

impl<R: Respond> Seat<R> {
    /// A connection on which something was asked is about to be closed.
    pub(super) fn connection_ends(&self, socket: BorrowedFd<'_>) {
        self.shared.borrow_mut().worker.respond.connection_ends(self.client, socket);
    }
}

impl<R> Drop for Seat<R> {
    fn drop(&mut self) {
        let mut shared = self.shared.borrow_mut();
        shared.table.remove(self.id);
        shared.count_connections();
    }
}

/// However it ends, its socket is still open here.
impl<S: Stream, R: Respond> Drop for Connection<S, R> {
    fn drop(&mut self) {
        if self.has_asked {
            self.seat.connection_ends(self.stream.socket().as_fd());
        }
    }
}

impl<S: Stream, R: Respond> Connection<S, R> {
    /// A connection on which nothing was asked yet.
    pub(super) fn new(stream: S, seat: Seat<R>) -> Self {
        Connection { stream, seat, kept: Kept::default(), has_asked: false }
    }

    /// Serves until the client has had its answers and closes, breaks the rules, or lets a deadline pass. Each message must
    /// arrive whole, and each lot of replies be taken, within `tcp-idle`; so must the next message begin.
    pub(super) async fn serve(mut self) {
        // A failed read or write means that the client is gone: nothing is left to do.
        let _ = self.serve_until_end().await;
    }

    async fn serve_until_end(&mut self) -> io::Result<()> {
        let mut stop = self.seat.stop.clone();
        let mut is_stopping = false;
        let mut deadline = self.seat.new_deadline();
        loop {
            let was_empty = self.kept.input.is_empty();
            let turn = tokio::select! {
                biased;
                turn = poll_fn(|context| self.poll_turn(context)) => turn?,
                () = ready(()), if is_stopping && was_empty => return Ok(()),
                _ = stop.wait_for(|&stop| stop), if !is_stopping => {
                    is_stopping = true;
                    // Queries that the kernel has already are answered still; the event loop must hear of them first.
                    yield_now().await;
                    continue;
                }
                () = sleep_until(deadline) => return Ok(()),
            };
            self.has_asked |= turn.messages > 0;
            if !self.kept.output.is_empty() {
                let output = std::mem::take(&mut self.kept.output);
                timeout_at(self.seat.new_deadline(), self.stream.write_all(&output)).await??;
            }
            // Over TLS a write may end in a buffer: a client that does not read is as slow here as above.
            timeout_at(self.seat.new_deadline(), self.stream.flush()).await??;
            if turn.messages > 0 {
                self.seat.touch();
            }
            if turn.is_end || turn.is_broken {
                return timeout_at(self.seat.new_deadline(), self.stream.shutdown()).await?;
            }
            if turn.messages > 0 || was_empty {
                deadline = self.seat.new_deadline();
            }
            yield_now().await;
        }
    }

    /// Reads what is there, unless whole messages are waiting; answers, and writes as much as the client takes. All in one poll:
    /// the shared buffers are never held over a wait.
    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Turn>> {
        let Shared { transport, worker, stopwatch, input, output, .. } = &mut *self.seat.shared.borrow_mut();
        let mut received: &[u8] = &[];
        if !self.kept.has_more {
            let mut buffer = ReadBuf::new(input);
            std::task::ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            let length = buffer.filled().len();
            if length == 0 {
                return Poll::Ready(Ok(Turn { is_end: true, ..Turn::default() }));
            }
            received = &input[..length];
        }
        let lap = stopwatch.begin();
        output.len = 0;
        worker.respond.begin_batch();
        let turn = self.kept.answer(
            received,
            |message, output| worker.respond.respond(message, self.seat.client, *transport, output),
            output,
        );
        let mut written = 0;
        while written < output.len {
            match Pin::new(&mut self.stream).poll_write(context, &output.buffer[written..output.len]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(length)) => written += length,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
        }
        if let Some(took) = lap.end().filter(|_| turn.messages > 0) {
            worker.counters.answer_times().record(*transport, took, turn.messages as u64);
        }
        self.kept.output.extend_from_slice(&output.buffer[written..output.len]);
        Poll::Ready(Ok(turn))
    }
}

impl Kept {
    /// Answers the whole messages in what was kept and `received`, as far as the output and the turn go, and keeps the rest.
    fn answer(
        &mut self,
        received: &[u8],
        mut respond: impl FnMut(&[u8], &mut [u8]) -> Reply,
        output: &mut Output,
    ) -> Turn {
        let mut kept = std::mem::take(&mut self.input);
        let input = if kept.is_empty() {
            received
        } else {
            kept.extend_from_slice(received);
            &kept
        };
        let mut turn = Turn::default();
        let mut rest = input;
        self.has_more = false;
        while let Some((message, behind)) = split_message(rest) {
            if message.is_empty() {
                turn.is_broken = true;
                return turn;
            }
            if turn.messages == MESSAGES_PER_TURN || output.len >= WRITE_AT {
                self.has_more = true;
                break;
            }
            output.push(|room| respond(message, room));
            turn.messages += 1;
            rest = behind;
        }
        // A partial message that goes on growing stays where it is.
        self.input = if rest.len() == kept.len() { kept } else { rest.to_vec() };
        turn
    }
}

impl Output {
    fn push(&mut self, reply: impl FnOnce(&mut [u8]) -> Reply) {
        let frame = &mut self.buffer[self.len..][..FRAME_BYTES_MAX];
        let (length, room) = frame.split_first_chunk_mut::<2>().expect("a frame begins with its length");
        if let Reply::Send(bytes) = reply(room) {
            *length = u16::try_from(bytes).expect("a reply is at most as long as its room").to_be_bytes();
            self.len += 2 + bytes;
        }
    }
}

/// The first whole message, without its length, and what is behind it.
fn split_message(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = input.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(messages: &[Vec<u8>]) -> Vec<u8> {
        messages.iter().flat_map(|m| [&(m.len() as u16).to_be_bytes()[..], m].concat()).collect()
    }

    fn output() -> Output {
        Output { buffer: vec![0; WRITE_AT + FRAME_BYTES_MAX].into(), len: 0 }
    }

    fn echo(message: &[u8], room: &mut [u8]) -> Reply {
        room[..message.len()].copy_from_slice(message);
        Reply::Send(message.len())
    }

    /// Takes turns on `received` until nothing whole is left; returns the replies and whether the rules were broken.
    fn feed(kept: &mut Kept, received: &[u8], replies: &mut Vec<u8>) -> bool {
        let mut received = received;
        loop {
            let mut output = output();
            let turn = kept.answer(std::mem::take(&mut received), echo, &mut output);
            replies.extend_from_slice(&output.buffer[..output.len]);
            assert!(turn.messages <= MESSAGES_PER_TURN && output.len < WRITE_AT + FRAME_BYTES_MAX);
            if turn.is_broken || !kept.has_more {
                return turn.is_broken;
            }
        }
    }

    proptest! {
        #[test]
        fn any_segmentation_gives_the_same_replies(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..200),
            cuts in proptest::collection::vec(1usize..2000, 1..50),
        ) {
            let stream = frames(&messages);
            let (mut kept, mut replies, mut rest) = (Kept::default(), Vec::new(), &stream[..]);
            let mut cuts = cuts.into_iter().cycle();
            while !rest.is_empty() {
                let (segment, behind) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                prop_assert!(!feed(&mut kept, segment, &mut replies));
                rest = behind;
            }
            prop_assert_eq!(replies, stream);
            prop_assert!(kept.input.is_empty());
        }
    }

    #[test]
    fn the_largest_message_passes_byte_by_byte() {
        let stream = frames(&[vec![7; 65535], vec![8; 65535]]);
        let (mut kept, mut replies) = (Kept::default(), Vec::new());
        for byte in &stream {
            assert!(!feed(&mut kept, std::slice::from_ref(byte), &mut replies));
        }
        assert_eq!(replies, stream);
    }

    #[test]
    fn an_empty_message_breaks_the_rules_after_what_came_before_is_answered() {
        let mut stream = frames(&[vec![1], vec![2]]);
        stream.extend([0, 0, 0, 1, 9]);
        let (mut kept, mut replies) = (Kept::default(), Vec::new());
        assert!(feed(&mut kept, &stream, &mut replies));
        assert_eq!(replies, frames(&[vec![1], vec![2]]));
    }

    #[test]
    fn a_dropped_message_leaves_no_frame() {
        let mut output = output();
        let drop_odd =
            |message: &[u8], room: &mut [u8]| if message[0] % 2 == 1 { Reply::Drop } else { echo(message, room) };
        let turn = Kept::default().answer(&frames(&[vec![1], vec![2], vec![3], vec![4]]), drop_odd, &mut output);
        assert_eq!(turn.messages, 4);
        assert_eq!(output.buffer[..output.len], frames(&[vec![2], vec![4]]));
    }

    #[test]
    fn nothing_is_kept_of_what_was_answered() {
        let mut kept = Kept::default();
        let mut stream = frames(&vec![vec![5; 100]; 50]);
        stream.extend([0, 9, 1]);
        feed(&mut kept, &stream, &mut Vec::new());
        assert_eq!((kept.input.as_slice(), kept.input.capacity()), (&[0, 9, 1][..], 3));
    }
}
