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
pub mod limits;
pub mod quic;
mod stopwatch;
pub mod tcp;
mod tls;
pub mod udp;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::BorrowedFd,
    sync::Arc,
    thread,
};

use tokio::sync::watch;

use self::tcp::Protocol;
pub use self::{
    bind::{BindError, Bound, BoundEncrypted, bind, bind_encrypted},
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

/// The running threads. Dropping it ends them without waiting.
pub struct Serving {
    stop: watch::Sender<bool>,
    limits: watch::Sender<Limits>,
    threads: Vec<thread::JoinHandle<()>>,
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
        Serving { stop: watch::Sender::new(false), limits: watch::Sender::new(*limits), threads: Vec::new() };
    for (number, socket) in bound.udp.into_iter().flatten().enumerate() {
        let engine = udp::Engine::new(socket, make_worker(), serving.stop.subscribe())?;
        serving.spawn(format!("udp-{number}"), move || engine.run())?;
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
            let engine = quic::Engine::new(bound.doq, &config, idle, make_worker(), stop)?;
            self.spawn("doq".to_string(), move || engine.run())?;
        }
        Ok(())
    }

    /// Limits of connections from now on; of those over QUIC at the next start.
    pub fn set_limits(&self, limits: &Limits) {
        self.limits.send_replace(*limits);
    }

    /// False once a thread has ended although nobody stopped it: it panicked.
    pub fn is_whole(&self) -> bool {
        self.threads.iter().all(|thread| !thread.is_finished())
    }

    /// Answers what has arrived and ends every thread, within [`tcp::STOP_WITHIN`]. Blocks until then.
    ///
    /// # Errors
    /// When a thread panicked.
    pub fn stop(mut self) -> Result<(), Panicked> {
        self.stop.send_replace(true);
        let mut result = Ok(());
        for handle in self.threads.drain(..) {
            let thread = handle.thread().name().unwrap_or("unnamed").to_string();
            if handle.join().is_err() {
                result = Err(Panicked { thread });
            }
        }
        result
    }

    fn start_connections<R: Respond + Send + 'static>(
        &mut self,
        protocol: Protocol,
        listeners: Vec<TcpListener>,
        worker: Worker<R>,
    ) -> io::Result<()> {
        let name = protocol.transport().label().to_string();
        let engine = tcp::Engine::new(protocol, listeners, worker, self.limits.subscribe(), self.stop.subscribe())?;
        self.spawn(name, move || engine.run())
    }

    fn spawn(&mut self, name: String, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(thread::Builder::new().name(name).spawn(body)?);
        Ok(())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_on_any_transport_ends_the_process_and_one_elsewhere_does_not() {
        for transport in TransportKind::ALL.iter().filter(|transport| **transport != TransportKind::Udp) {
            assert!(is_data_plane(transport.label()));
        }
        assert!(is_data_plane("udp-0") && is_data_plane("udp-17"));
        assert!(!is_data_plane("control") && !is_data_plane("main"));
    }
}

#[cfg(test)]
pub(crate) mod testing;
