//! Sockets in, sockets out: UDP, TCP and the encrypted transports around the answering core. Must never know a DNS rule: a
//! message is bytes, and whether it is answered is the core's word.
//!
//! [`bind()`] and [`bind_encrypted`] open every socket before anything is served, [`start`] gives them to threads: for UDP
//! one a core and address, each with its own `SO_REUSEPORT` socket, one for all TCP, and one each for TLS, QUIC and HTTPS where they
//! are asked for. No thread shares anything writable with another.

mod accept;
pub mod bind;
mod connection;
mod https;
pub mod inherit;
pub mod limits;
pub mod quic;
mod stopwatch;
pub mod tcp;
mod tls;
pub mod udp;

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::BorrowedFd,
    sync::Arc,
    thread,
};

use tokio::sync::watch;

use self::tcp::Protocol;
pub use self::{
    bind::{BindError, Bound, BoundEncrypted, bind, bind_admin, bind_encrypted},
    inherit::{Inheritance, Role, Spare},
    tls::CurrentIdentity,
};
pub use crate::telemetry::TransportKind;
use crate::{config::model::Limits, telemetry::WorkerCounters};

/// One thread's way to the answering core.
pub trait Respond {
    /// Called once a batch before its queries: refreshes the snapshot, notes the time.
    fn begin_batch(&mut self);

    /// Answers one message into `out` (for UDP at least 4096 bytes, else 65535). Counts it. Never panics on input.
    fn respond(&mut self, query: &[u8], client: SocketAddr, transport: TransportKind, out: &mut [u8]) -> Reply;

    /// A connection over TCP (plain or TLS) on which `client` has asked something is about to be closed; `socket` is the one below
    /// it. Whatever takes time is not for this thread.
    fn connection_ends(&mut self, client: SocketAddr, socket: BorrowedFd<'_>) {
        let _of_no_interest = (client, socket);
    }
}

/// What to do about a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// Send so many bytes of the buffer.
    Send(usize),
    /// Nothing.
    Drop,
}

/// What one thread needs: its way to the core, and its counters (the same that the core counts in).
pub struct Worker<R> {
    /// Answers the messages.
    pub respond: R,
    /// Takes what the core never sees: datagrams cut off, replies not sent, open connections.
    pub counters: Arc<WorkerCounters>,
}

/// What the threads are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Go on.
    Serve,
    /// Another process goes on with the same sockets: take nothing new, and let clients finish.
    Release,
    /// End.
    Stop,
}

/// The running threads. Dropping it ends them without waiting.
pub struct Serving {
    stop: watch::Sender<Word>,
    limits: watch::Sender<Limits>,
    threads: Vec<Thread>,
}

/// One running thread, and where it counts.
struct Thread {
    handle: thread::JoinHandle<()>,
    counters: Arc<WorkerCounters>,
}

/// A thread of the data plane panicked; its message went to the panic hook. The server is half alive and should end.
#[derive(Debug, thiserror::Error)]
#[error("the {thread} thread panicked; restart the server and report the message above")]
pub struct Panicked {
    /// Name of the thread.
    pub thread: String,
}

/// Serves on all of `bound` from now on. `make_worker` is called once for each thread, here.
///
/// # Errors
/// When the kernel gives no more threads or event queues (limits of processes or open files).
pub fn start<R>(bound: Bound, limits: &Limits, mut make_worker: impl FnMut() -> Worker<R>) -> io::Result<Serving>
where
    R: Respond + Send + 'static,
{
    let mut serving =
        Serving { stop: watch::Sender::new(Word::Serve), limits: watch::Sender::new(*limits), threads: Vec::new() };
    let mut sockets = Vec::new();
    for own in bound.udp {
        // Threads beyond the queues share one each: the kernel gives each datagram to one of them.
        let beyond = bound.threads.saturating_sub(own.len());
        let shared = own.iter().cycle().take(beyond).map(UdpSocket::try_clone).collect::<io::Result<Vec<_>>>()?;
        sockets.extend(own.into_iter().chain(shared));
    }
    for (number, socket) in sockets.into_iter().enumerate() {
        let worker = make_worker();
        let counters = worker.counters.clone();
        let engine = udp::Engine::new(socket, worker, serving.stop.subscribe())?;
        serving.spawn(format!("udp-{number}"), counters, move || engine.run())?;
    }
    serving.start_connections(Protocol::Tcp, bound.tcp, make_worker())?;
    Ok(serving)
}

/// Names of the threads whose panic must end the process.
pub fn is_data_plane(thread: &str) -> bool {
    thread.starts_with("udp-") || ["tcp", "dot", "doq", "doh"].contains(&thread)
}

impl Serving {
    /// Serves the encrypted transports as well, with the identity that is current at each handshake. `make_worker` is called once
    /// for each thread, here.
    ///
    /// # Errors
    /// As [`start`].
    pub fn start_encrypted<R>(
        &mut self,
        bound: BoundEncrypted,
        identity: &Arc<CurrentIdentity>,
        mut make_worker: impl FnMut() -> Worker<R>,
    ) -> io::Result<()>
    where
        R: Respond + Send + 'static,
    {
        if !bound.dot.is_empty() {
            let config = tls::over_tcp(identity.clone(), &[tls::ALPN_DOT]).map_err(io::Error::other)?;
            self.start_connections(Protocol::Dot(config), bound.dot, make_worker())?;
        }
        if !bound.doh.is_empty() {
            let config =
                tls::over_tcp(identity.clone(), &[tls::ALPN_H2, tls::ALPN_HTTP_1]).map_err(io::Error::other)?;
            self.start_connections(Protocol::Doh(config), bound.doh, make_worker())?;
        }
        if !bound.doq.is_empty() {
            let config = tls::over_quic(identity.clone()).map_err(io::Error::other)?;
            let (idle, stop) = (self.limits.borrow().tcp_idle, self.stop.subscribe());
            let worker = make_worker();
            let counters = worker.counters.clone();
            let engine = quic::Engine::new(bound.doq, &config, idle, worker, stop)?;
            self.spawn("doq".to_string(), counters, move || engine.run())?;
        }
        Ok(())
    }

    /// Limits of connections from now on; of those over QUIC at the next start.
    pub fn set_limits(&self, limits: &Limits) {
        self.limits.send_replace(*limits);
    }

    /// False once a thread has ended although nobody stopped it: it panicked.
    pub fn is_whole(&self) -> bool {
        self.threads.iter().all(|thread| !thread.handle.is_finished())
    }

    /// Each thread, and how often it has gone round its loop: every second or faster, whether anybody asks or not.
    pub fn rounds(&self) -> impl Iterator<Item = (&str, u64)> {
        self.threads.iter().map(|thread| (thread.handle.thread().name().unwrap_or("unnamed"), thread.counters.rounds()))
    }

    /// Answers what has arrived and ends every thread, within [`tcp::STOP_WITHIN`]. Blocks until then.
    ///
    /// # Errors
    /// When a thread panicked.
    pub fn stop(self) -> Result<(), Panicked> {
        self.end(Word::Stop, || {})
    }

    /// The same where another process goes on with the sockets: clients that are connected may ask on for most of that time. QUIC ends
    /// first, since a connection over it is known to one process only, and what comes for it must not reach the other; `quic_ended` is
    /// called then.
    ///
    /// # Errors
    /// As [`Serving::stop`].
    pub fn release(self, quic_ended: impl FnOnce()) -> Result<(), Panicked> {
        self.end(Word::Release, quic_ended)
    }

    fn end(mut self, word: Word, quic_ended: impl FnOnce()) -> Result<(), Panicked> {
        self.stop.send_replace(word);
        let is_quic = |thread: &mut Thread| thread.handle.thread().name() == Some("doq");
        let quic: Vec<_> = self.threads.extract_if(.., is_quic).collect();
        let ended_first = quic.into_iter().map(join).fold(Ok(()), Result::and);
        quic_ended();
        self.threads.drain(..).map(join).fold(ended_first, Result::and)
    }

    fn start_connections<R: Respond + Send + 'static>(
        &mut self,
        protocol: Protocol,
        listeners: Vec<TcpListener>,
        worker: Worker<R>,
    ) -> io::Result<()> {
        let name = protocol.transport().label().to_string();
        let counters = worker.counters.clone();
        let engine = tcp::Engine::new(protocol, listeners, worker, self.limits.subscribe(), self.stop.subscribe())?;
        self.spawn(name, counters, move || engine.run())
    }

    fn spawn(
        &mut self,
        name: String,
        counters: Arc<WorkerCounters>,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let handle = thread::Builder::new().name(name).spawn(body)?;
        self.threads.push(Thread { handle, counters });
        Ok(())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.send_replace(Word::Stop);
    }
}

fn join(Thread { handle, .. }: Thread) -> Result<(), Panicked> {
    let thread = handle.thread().name().unwrap_or("unnamed").to_string();
    handle.join().map_err(|_| Panicked { thread })
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        time::{Duration, Instant},
    };

    use super::{
        testing::{Server, ask, limits, message, worker},
        *,
    };
    use crate::{config::model::Listen, telemetry::Registry};

    #[test]
    fn a_released_server_answers_who_is_connected_and_leaves_what_comes_to_whoever_has_the_sockets() {
        let listen = Listen { address: "127.0.0.1:0".parse().unwrap(), is_default: false };
        let mut bound = bind(&[listen], 1, &mut Inheritance::default()).unwrap();
        let (address, spares) = (bound.addresses()[0], std::mem::take(&mut bound.spares));
        let registry = Registry::new();
        let serving = start(bound, &limits(), || worker(&registry)).unwrap();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        ask(&mut stream, &message(1, b"before")).unwrap();

        let released = Instant::now();
        let releasing = thread::spawn(move || serving.release(|| {}));
        while released.elapsed() < Duration::from_millis(600) {
            match ask(&mut stream, &message(2, b"after")) {
                Ok(reply) => assert_eq!(reply[..2], [0, 2]),
                // Only a machine that stood still could have been so late.
                Err(error) => assert!(released.elapsed() > Duration::from_secs(2), "{error}"),
            }
        }
        drop(stream);
        releasing.join().unwrap().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(&message(3, b"for the next"), address).unwrap();
        let kept = spares.iter().find(|spare| spare.role == Role::Udp).unwrap();
        let kept = UdpSocket::from(kept.socket.try_clone().unwrap());
        let mut received = [0; 64];
        let length = kept.recv(&mut received).unwrap();
        assert_eq!(received[..length], message(3, b"for the next"));
        assert!(std::net::TcpStream::connect(address).is_ok());
    }

    #[test]
    fn a_panic_on_any_transport_ends_the_process_and_one_elsewhere_does_not() {
        for transport in TransportKind::ALL.iter().filter(|transport| **transport != TransportKind::Udp) {
            assert!(is_data_plane(transport.label()));
        }
        assert!(is_data_plane("udp-0") && is_data_plane("udp-17"));
        assert!(!is_data_plane("control") && !is_data_plane("main"));
    }

    /// What each thread has counted, by its name.
    fn rounds(server: &Server) -> BTreeMap<String, u64> {
        server.serving.rounds().map(|(name, rounds)| (name.to_string(), rounds)).collect()
    }

    #[test]
    fn every_thread_goes_round_though_nobody_asks_but_for_one_that_hangs() {
        let server = Server::start(&["127.0.0.1:0"], 2);
        let begun = rounds(&server);
        assert_eq!(begun.keys().map(String::as_str).collect::<Vec<_>>(), ["tcp", "udp-0", "udp-1"]);
        server.wait_until("every thread has gone round", |server| {
            rounds(server).iter().all(|(name, rounds)| *rounds > begun[name] + 1)
        });
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(&message(1, b"hang"), server.addresses[0]).unwrap();
        server.wait_until("the worker hangs", |server| server.registry.totals().queries_read() == 1);
        // Both others go on, one of the UDP workers does not.
        let stuck = rounds(&server);
        server.wait_until("the others have gone round", |server| {
            rounds(server).iter().filter(|(name, rounds)| **rounds > stuck[*name] + 4).count() == 2
        });
        let now = rounds(&server);
        let hanging: Vec<&String> =
            now.iter().filter(|(name, rounds)| **rounds == stuck[*name]).map(|(n, _)| n).collect();
        assert!(hanging.len() == 1 && hanging[0].starts_with("udp-"), "{stuck:?} {now:?}");
    }
}

#[cfg(test)]
pub(crate) mod testing;
