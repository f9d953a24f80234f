//! The side of connections: one thread accepts on every address of one protocol (plain TCP, TLS, HTTPS) and serves all its
//! connections, so that its counters have one writer and its buffers one user. Who may stay is told by `limits`, what a
//! connection does by `connection`, `tls` and `https`. Must never stop serving for want of file descriptors, nor spin for it.

use std::{cell::RefCell, io, net::SocketAddr, pin::pin, rc::Rc, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::watch,
    task::{JoinSet, LocalSet, yield_now},
    time::{Instant, timeout, timeout_at},
};

use super::{
    Respond, TransportKind, Word, Worker,
    accept::{Pause, accept, pass_on_panic},
    connection::{Connection, Seat, Shared},
    https,
    limits::ClientNetwork,
    tls,
};
use crate::{config::model::Limits, sys::errors::is_exhausted};

/// After the word to stop: how long clients have to take their replies and to finish what they are sending. Leaves the rest of
/// the program a second of the five it has.
pub const STOP_WITHIN: Duration = Duration::from_secs(4);

/// What the connections of one thread speak.
#[derive(Clone)]
pub enum Protocol {
    /// Messages behind their lengths (RFC 7766).
    Tcp,
    /// The same over TLS (RFC 7858).
    Dot(Arc<ServerConfig>),
    /// Messages in HTTP requests over TLS (RFC 8484).
    Doh(Arc<ServerConfig>),
}

/// One thread's sockets and tools, ready to [`run`](Engine::run).
pub struct Engine<R> {
    protocol: Protocol,
    runtime: Runtime,
    listeners: Vec<TcpListener>,
    worker: Worker<R>,
    limits: watch::Receiver<Limits>,
    stop: watch::Receiver<Word>,
}

/// After the word that another process goes on with the sockets: for so long connections are served as before. Those that are left
/// then have the rest of [`STOP_WITHIN`].
const RELEASED_FOR: Duration = Duration::from_secs(3);

/// Failures to accept come in floods; one line in so long says it.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Connections taken after the word to stop: as many as may wait in a full backlog of each of a few addresses.
const LAST_ACCEPTS: usize = 4096;

impl<R: Respond + 'static> Engine<R> {
    /// For these listeners (non-blocking).
    ///
    /// # Errors
    /// When the kernel gives no event queue.
    pub fn new(
        protocol: Protocol,
        listeners: Vec<std::net::TcpListener>,
        worker: Worker<R>,
        limits: watch::Receiver<Limits>,
        stop: watch::Receiver<Word>,
    ) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let entered = runtime.enter();
        let listeners = listeners.into_iter().map(TcpListener::from_std).collect::<io::Result<_>>()?;
        drop(entered);
        Ok(Engine { protocol, runtime, listeners, worker, limits, stop })
    }

    /// Serves until told to end, then lets clients finish for at most [`STOP_WITHIN`].
    ///
    /// # Panics
    /// When a connection's task panicked: the panic goes on here, for whoever joins the thread.
    pub fn run(self) {
        let Engine { protocol, runtime, listeners, worker, limits, stop } = self;
        let shared = Shared::new(protocol.transport(), worker);
        let acceptor = Acceptor {
            protocol,
            listeners,
            next: 0,
            pause: Pause::default(),
            warned: None,
            shared: Rc::new(RefCell::new(shared)),
            limits,
            stop,
            closing: watch::Sender::new(false),
            connections: JoinSet::new(),
        };
        LocalSet::new().block_on(&runtime, acceptor.serve());
    }
}

impl Protocol {
    pub(super) fn transport(&self) -> TransportKind {
        match self {
            Protocol::Tcp => TransportKind::Tcp,
            Protocol::Dot(_) => TransportKind::Dot,
            Protocol::Doh(_) => TransportKind::Doh,
        }
    }
}

/// So often a thread takes up new data though nobody asks: an old map is large, and an idle thread must not hold on to it.
const REFRESH_EVERY: Duration = Duration::from_secs(1);

struct Acceptor<R> {
    protocol: Protocol,
    listeners: Vec<TcpListener>,
    /// The listener asked first the next time.
    next: usize,
    pause: Pause,
    /// When a failure to accept was last logged.
    warned: Option<Instant>,
    shared: Rc<RefCell<Shared<R>>>,
    limits: watch::Receiver<Limits>,
    stop: watch::Receiver<Word>,
    /// Told to the connections when they are to come to an end.
    closing: watch::Sender<bool>,
    connections: JoinSet<()>,
}

impl<R: Respond + 'static> Acceptor<R> {
    async fn serve(mut self) {
        let mut stop = self.stop.clone();
        let mut stopped = pin!(stop.wait_for(|word| *word != Word::Serve));
        let mut idle = tokio::time::interval(REFRESH_EVERY);
        idle.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                Some(ended) = self.connections.join_next() => pass_on_panic(ended),
                _ = idle.tick() => self.shared.borrow_mut().refresh(),
                accepted = accept(&self.listeners, &mut self.next, self.pause.until) => self.handle(accepted),
            }
        }
        self.finish().await;
    }

    fn handle(&mut self, accepted: io::Result<(TcpStream, SocketAddr)>) {
        match accepted {
            Ok((stream, client)) => {
                self.pause = Pause::default();
                self.admit(stream, client);
            }
            // The client gave up while it waited.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                let now = Instant::now();
                if self.warned.is_none_or(|warned| now - warned >= WARNING_INTERVAL) {
                    self.warned = Some(now);
                    let what = self.protocol.transport().label();
                    tracing::warn!(
                        "cannot accept connections ({what}): {error}; trying again until it works (too few open files? raise \
                         `ulimit -n` or LimitNOFILE above [server.limits] tcp-connections)"
                    );
                }
                if is_exhausted(&error)
                    && let Some(idlest) = self.shared.borrow_mut().table.take_idlest()
                {
                    idlest.abort();
                }
                self.pause.lengthen(now);
            }
        }
    }

    fn admit(&mut self, stream: TcpStream, client: SocketAddr) {
        // Replies leave at once, whatever is unacknowledged; without it they only leave later.
        let _ = stream.set_nodelay(true);
        let limits = *self.limits.borrow();
        let network = ClientNetwork::of(client.ip());
        let mut shared = self.shared.borrow_mut();
        while let Some(idlest) = shared.table.make_room(network, &limits) {
            idlest.abort();
        }
        shared.table.insert(network, |id| {
            let (shared, limits, stop) = (self.shared.clone(), self.limits.clone(), self.closing.subscribe());
            let seat = Seat { client, id, shared, limits, stop };
            // A task each, so that a plain connection is no larger for what the others need.
            match &self.protocol {
                Protocol::Tcp => self.connections.spawn_local(Connection::new(stream, seat).serve()),
                Protocol::Dot(config) => self.connections.spawn_local(tls::serve(stream, config.clone(), seat)),
                Protocol::Doh(config) => self.connections.spawn_local(https::serve(stream, config.clone(), seat)),
            }
        });
        shared.count_connections();
    }

    /// Connections that were made before the word to end are still taken, then no more; all end by themselves or in time. Where another
    /// process goes on accepting, those that are open are served for a while as if nothing were.
    async fn finish(mut self) {
        let is_released = *self.stop.borrow() == Word::Release;
        if !is_released {
            self.closing.send_replace(true);
        }
        // The event loop must hear of them first.
        yield_now().await;
        for _ in 0..LAST_ACCEPTS {
            let accepted = tokio::select! {
                biased;
                accepted = accept(&self.listeners, &mut self.next, None) => accepted,
                () = std::future::ready(()) => break,
            };
            match accepted {
                Ok((stream, client)) => self.admit(stream, client),
                Err(_) => break,
            }
        }
        self.listeners.clear();
        let until = Instant::now() + STOP_WITHIN;
        if is_released {
            let _all_ended_or_not = timeout(RELEASED_FOR, self.all_ended()).await;
            self.closing.send_replace(true);
        }
        if timeout_at(until, self.all_ended()).await.is_err() {
            let (open, what) = (self.connections.len(), self.protocol.transport().label());
            tracing::info!("closing {open} connections ({what}) that did not finish in time");
        }
    }

    async fn all_ended(&mut self) {
        while let Some(ended) = self.connections.join_next().await {
            pass_on_panic(ended);
        }
    }
}

#[cfg(test)]
mod tests;
