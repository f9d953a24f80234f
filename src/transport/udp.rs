//! One UDP thread: takes, answers and sends datagrams a batch at a time. Must never allocate, lock or format anything where a
//! query passes, and never touch what another thread writes.
//!
//! It waits in the receiving call itself. Beside an event queue the kernel calls every socket's watchers for each datagram that
//! comes and each reply that leaves, and the thread makes a third system call a batch: measured, together a fifth of what a query
//! costs in the kernel.

use std::{
    io,
    net::UdpSocket,
    os::fd::AsFd,
    thread,
    time::{Duration, UNIX_EPOCH},
};

use tokio::sync::watch;

use super::{Reply, Respond, TransportKind, Word, Worker, stopwatch::Stopwatch};
use crate::{
    sys::{UdpBatch, batch::SLOTS, priority::is_anyone_at_leisure},
    telemetry::{DropReason, QtypeClass},
};

/// One thread with its socket, ready to [`run`](Engine::run).
pub struct Engine<R> {
    socket: UdpSocket,
    batch: UdpBatch,
    worker: Worker<R>,
    stop: watch::Receiver<Word>,
}

/// How long an idle thread waits before it looks whether it is to stop, and lets old data go. Four looks a second cost nothing that
/// can be measured, and a stop waits no longer than that.
const LOOK_FOR_STOP_EVERY: Duration = Duration::from_millis(250);

/// Rest after an error of the socket other than that nothing waits: asked again at once, a broken one would spin.
const REST_AFTER_ERROR: Duration = Duration::from_millis(10);

/// So many full batches in a row, some three milliseconds of work, mean that queries come as fast as they are answered.
const FULL_BATCHES: u32 = 64;

/// What threads that never rest leave to work that has leisure, a reload for example, which would take minutes in a flood otherwise: a
/// twelfth of their time, the same moments for all of them, since one would take what another leaves. What comes meanwhile waits in
/// the socket.
const PAUSE: Duration = Duration::from_micros(250);
const PAUSE_EVERY: Duration = Duration::from_millis(3);

/// Batches taken after the word to end. More than a full receive buffer holds, so everything that had arrived is answered, and a
/// flood cannot hold the end up for more than a moment.
const LAST_BATCHES: usize = 1024;

impl<R: Respond> Engine<R> {
    /// A thread for this socket.
    ///
    /// # Errors
    /// When the socket takes no time limit.
    pub fn new(socket: UdpSocket, worker: Worker<R>, stop: watch::Receiver<Word>) -> io::Result<Self> {
        socket.set_read_timeout(Some(LOOK_FOR_STOP_EVERY))?;
        socket.set_nonblocking(false)?;
        Ok(Engine { socket, batch: UdpBatch::new(), worker, stop })
    }

    /// Serves until told to end, then answers what has arrived. Where another process goes on with the socket, nothing is changed about
    /// it, and who of the two takes a datagram is all the same.
    pub fn run(self) {
        let Engine { socket, mut batch, mut worker, stop } = self;
        let mut stopwatch = Stopwatch::default();
        let mut courtesy = Courtesy::default();
        // One atomic load a batch. An error means that the other end is gone: stop as well.
        while matches!(stop.has_changed(), Ok(false)) {
            worker.counters.round();
            match batch.receive(socket.as_fd()) {
                Ok(received) => {
                    answer(received, &socket, &mut batch, &mut worker, &mut stopwatch);
                    if courtesy.is_due(received) && is_anyone_at_leisure() {
                        UNIX_EPOCH.elapsed().ok().and_then(pause_left).inspect(|left| thread::sleep(*left));
                    }
                }
                // Nobody asks: an idle thread must not hold on to an old map until somebody does.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => worker.respond.begin_batch(),
                Err(_) => thread::sleep(REST_AFTER_ERROR),
            }
        }
        for _ in 0..LAST_BATCHES {
            let Ok(received) = batch.receive_at_once(socket.as_fd()) else { break };
            answer(received, &socket, &mut batch, &mut worker, &mut stopwatch);
        }
    }
}

/// When a thread that never rests should.
#[derive(Default)]
struct Courtesy {
    full_batches: u32,
}

impl Courtesy {
    /// Takes the size of a batch; true where the thread has not rested for long.
    #[inline]
    fn is_due(&mut self, received: usize) -> bool {
        self.full_batches = if received == SLOTS { self.full_batches.saturating_add(1) } else { 0 };
        self.full_batches >= FULL_BATCHES
    }
}

/// What is left of a pause at this time on the clock, if it is one.
fn pause_left(since_1970: Duration) -> Option<Duration> {
    let at = since_1970.subsec_nanos() % PAUSE_EVERY.subsec_nanos();
    PAUSE.checked_sub(Duration::from_nanos(at.into())).filter(|left| !left.is_zero())
}

/// One batch: answer what was received, and send the replies.
fn answer<R: Respond>(
    received: usize,
    socket: &UdpSocket,
    batch: &mut UdpBatch,
    worker: &mut Worker<R>,
    stopwatch: &mut Stopwatch,
) {
    let lap = stopwatch.begin();
    let Worker { respond, counters } = worker;
    respond.begin_batch();
    for slot in 0..received {
        let datagram = batch.datagram(slot);
        if datagram.is_truncated {
            counters.query(TransportKind::Udp, QtypeClass::None);
            counters.dropped(DropReason::Truncated);
            continue;
        }
        match respond.respond(datagram.query, datagram.client, TransportKind::Udp, datagram.reply) {
            Reply::Send(length) => batch.queue(slot, length),
            Reply::Drop => {}
        }
    }
    counters.unsent(batch.send(socket.as_fd()));
    if let Some(took) = lap.end() {
        // All came together and leave together.
        counters.answer_times().record(TransportKind::Udp, took, received as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{SocketAddr, UdpSocket},
        time::Duration,
    };

    use super::*;
    use crate::transport::testing::{Server, message};

    fn client(bind: &str) -> UdpSocket {
        let socket = UdpSocket::bind(bind).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    }

    fn ask(socket: &UdpSocket, server: SocketAddr, query: &[u8]) -> (Vec<u8>, SocketAddr) {
        socket.send_to(query, server).unwrap();
        let mut reply = [0; 5000];
        let (length, from) = socket.recv_from(&mut reply).unwrap();
        (reply[..length].to_vec(), from)
    }

    #[test]
    fn a_thread_that_never_rests_is_told_to_and_no_other() {
        let mut courtesy = Courtesy::default();
        let due = (0..4 * FULL_BATCHES).filter(|_| courtesy.is_due(SLOTS)).count() as u32;
        assert_eq!(due, 3 * FULL_BATCHES + 1);
        assert!((0..4 * FULL_BATCHES).all(|n| !courtesy.is_due(if n % 50 == 0 { SLOTS - 1 } else { SLOTS })));
    }

    #[test]
    fn pauses_are_the_same_moments_for_all_and_a_twelfth_of_the_time() {
        let left_us = |at_us| pause_left(Duration::from_micros(at_us)).map(|left| left.as_micros());
        let from = 1_700_000_000_000_000; // whole seconds
        assert_eq!(
            [0, 100, 249, 250, 2_999, 3_000].map(|at| left_us(from + at)),
            [Some(250), Some(150), Some(1), None, None, Some(250)]
        );
    }

    #[test]
    fn queries_are_answered_over_ipv4_and_ipv6() {
        let server = Server::start(&["127.0.0.1:0", "[::1]:0"], 2);
        for (&address, bind) in server.addresses.iter().zip(["127.0.0.1:0", "[::1]:0"]) {
            for id in 0..50 {
                let (reply, from) = ask(&client(bind), address, &message(id, b"question"));
                assert_eq!((reply, from), (server.reply_to(&message(id, b"question")), address));
            }
        }
        server.stop();
    }

    #[test]
    fn the_reply_comes_from_the_address_asked() {
        let server = Server::start(&["0.0.0.0:0"], 1);
        let port = server.addresses[0].port();
        let client = client("127.0.0.1:0");
        for asked in ["127.0.0.2", "127.0.0.1", "127.9.9.9"] {
            let asked = format!("{asked}:{port}").parse().unwrap();
            assert_eq!(ask(&client, asked, &message(1, b"")).1, asked);
        }
        server.stop();
        let server = Server::start(&["[::]:0"], 1);
        let asked = format!("[::1]:{}", server.addresses[0].port()).parse().unwrap();
        assert_eq!(ask(&self::client("[::1]:0"), asked, &message(1, b"")).1, asked);
        server.stop();
    }

    #[test]
    fn a_datagram_too_long_is_dropped_and_counted_and_4096_bytes_are_not() {
        let server = Server::start(&["127.0.0.1:0"], 1);
        let client = client("127.0.0.1:0");
        client.send_to(&message(1, &[0; 5000]), server.addresses[0]).unwrap();
        let (reply, _) = ask(&client, server.addresses[0], &message(2, &[0; 4084]));
        assert_eq!((&reply[..2], reply.len()), (&[0, 2][..], 4096));
        let totals = server.balanced_totals();
        assert_eq!((totals.dropped[DropReason::Truncated as usize], totals.queries_read()), (1, 2));
        server.wait_until("the first batch is timed", |server| server.registry.totals().answer_times[0].count() > 0);
        server.stop();
    }

    #[test]
    fn what_the_core_drops_gets_no_reply_and_disturbs_nobody() {
        let server = Server::start(&["127.0.0.1:0"], 1);
        let client = client("127.0.0.1:0");
        client.send_to(&[], server.addresses[0]).unwrap();
        client.send_to(b"short", server.addresses[0]).unwrap();
        let (reply, _) = ask(&client, server.addresses[0], &message(7, b"x"));
        assert_eq!(reply[..2], [0, 7]);
        assert_eq!(server.balanced_totals().dropped[DropReason::Short as usize], 2);
        server.stop();
    }

    #[test]
    fn many_queries_at_once_are_all_answered() {
        let server = Server::start(&["127.0.0.1:0"], 2);
        let clients: Vec<_> = (0..20).map(|_| client("127.0.0.1:0")).collect();
        for (n, client) in clients.iter().enumerate() {
            for id in 0..50 {
                client.send_to(&message(id, &[n as u8]), server.addresses[0]).unwrap();
            }
        }
        for (n, client) in clients.iter().enumerate() {
            let mut ids: Vec<_> = (0..50)
                .map(|_| {
                    let mut reply = [0; 64];
                    let length = client.recv(&mut reply).unwrap();
                    assert_eq!(reply[12..length], [n as u8]);
                    u16::from_be_bytes([reply[0], reply[1]])
                })
                .collect();
            ids.sort_unstable();
            assert!(ids.iter().copied().eq(0..50));
        }
        assert_eq!(server.balanced_totals().queries_read(), 1000);
        server.stop();
    }

    #[test]
    fn what_has_arrived_before_the_stop_is_answered() {
        let server = Server::start(&["127.0.0.1:0"], 1);
        let client = client("127.0.0.1:0");
        for id in 0..200 {
            client.send_to(&message(id, b"last"), server.addresses[0]).unwrap();
        }
        server.stop();
        for _ in 0..200 {
            client.recv(&mut [0; 64]).unwrap();
        }
    }

    #[test]
    fn a_panic_in_a_worker_is_seen_from_outside() {
        let server = Server::start(&["127.0.0.1:0"], 1);
        assert!(server.serving.is_whole());
        client("127.0.0.1:0").send_to(&message(0, b"panic"), server.addresses[0]).unwrap();
        server.wait_until("the worker ends", |server| !server.serving.is_whole());
        assert_eq!(server.serving.stop().unwrap_err().thread, "udp-0");
    }
}
