//! One UDP worker: waits for readiness through tokio, then takes, answers and sends datagrams a batch at a time. Must never
//! allocate, lock or format anything where a query passes, and never touch what another worker writes.

use std::{
    io,
    net::UdpSocket,
    os::fd::AsFd,
    pin::pin,
    task::{Context, Poll},
};

use tokio::{
    io::unix::AsyncFd,
    runtime::{Builder, Runtime},
    sync::watch,
};

use super::{Reply, Respond, TransportKind, Worker};
use crate::{
    sys::{UdpBatch, batch::SLOTS, readiness::watch_for_datagrams},
    telemetry::{DropReason, QtypeClass},
};

/// One worker with its sockets, ready to [`run`](Engine::run) in a thread of its own.
pub struct Engine<R> {
    runtime: Runtime,
    sockets: Vec<AsyncFd<UdpSocket>>,
    batch: UdpBatch,
    worker: Worker<R>,
    stop: watch::Receiver<bool>,
}

/// Batches taken from each socket after the word to stop. More than a full receive buffer holds, so everything that had arrived
/// is answered, and a flood cannot hold the end up for more than a moment.
const LAST_BATCHES: usize = 1024;

impl<R: Respond> Engine<R> {
    /// A worker for these sockets (non-blocking, of the same worker in [`Bound`](super::Bound)).
    ///
    /// # Errors
    /// When the kernel gives no event queue.
    pub fn new(sockets: Vec<UdpSocket>, worker: Worker<R>, stop: watch::Receiver<bool>) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let entered = runtime.enter();
        let sockets = sockets.into_iter().map(watch_for_datagrams).collect::<io::Result<_>>()?;
        drop(entered);
        Ok(Engine { runtime, sockets, batch: UdpBatch::new(), worker, stop })
    }

    /// Serves until told to stop, then answers what has arrived.
    pub fn run(self) {
        let Engine { runtime, sockets, mut batch, mut worker, mut stop } = self;
        runtime.block_on(async {
            // An error means that the other end is gone: stop as well.
            let mut stopped = pin!(async move { drop(stop.wait_for(|&stop| stop).await) });
            std::future::poll_fn(|context| {
                if stopped.as_mut().poll(context).is_ready() {
                    return Poll::Ready(());
                }
                serve_ready(&sockets, &mut batch, &mut worker, context)
            })
            .await;
            for socket in &sockets {
                for _ in 0..LAST_BATCHES {
                    if exchange(socket.get_ref(), &mut batch, &mut worker).is_err() {
                        break;
                    }
                }
            }
        });
    }
}

/// Serves all sockets in turn until none is ready, or tokio's budget is used up: then it lets the runtime look for new events
/// and for the word to stop.
fn serve_ready<R: Respond>(
    sockets: &[AsyncFd<UdpSocket>],
    batch: &mut UdpBatch,
    worker: &mut Worker<R>,
    context: &mut Context<'_>,
) -> Poll<()> {
    loop {
        let mut is_busy = false;
        for socket in sockets {
            let mut ready = match socket.poll_read_ready(context) {
                Poll::Pending => continue,
                Poll::Ready(Ok(ready)) => ready,
                // The runtime is going away.
                Poll::Ready(Err(_)) => return Poll::Ready(()),
            };
            is_busy = true;
            match exchange(socket.get_ref(), batch, worker) {
                // Fewer than there was room for: the socket is empty. Asking once more to be told so would cost a call a
                // batch. What comes from here on raises a new event, as readiness is edge-triggered.
                Ok(received) if received < SLOTS => ready.clear_ready(),
                Ok(_) => {}
                // With any other error too: asked again at once, a broken socket would spin.
                Err(_) => ready.clear_ready(),
            }
        }
        if !is_busy {
            return Poll::Pending;
        }
    }
}

/// One batch: receive, answer, send. Returns how many were received, at least 1.
fn exchange<R: Respond>(socket: &UdpSocket, batch: &mut UdpBatch, worker: &mut Worker<R>) -> io::Result<usize> {
    let received = batch.receive(socket.as_fd())?;
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
    Ok(received)
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
