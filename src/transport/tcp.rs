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
mod tests {
    use std::{
        io::Write,
        net::{Shutdown, TcpStream},
        time::Instant,
    };

    use super::*;
    use crate::{
        telemetry::Registry,
        transport::testing::{PATIENCE, Server, ask, connect, frame, is_closed, limits, message, read_reply, worker},
    };

    fn start(limits: Limits) -> Server {
        Server::with_limits(&["127.0.0.1:0"], 1, limits)
    }

    #[test]
    fn a_connection_is_used_again_and_again_over_both_families() {
        let server = Server::start(&["127.0.0.1:0", "[::1]:0"], 1);
        for &address in &server.addresses {
            let mut stream = TcpStream::connect(address).unwrap();
            for id in 0..20 {
                let query = message(id, b"again");
                assert_eq!(ask(&mut stream, &query).unwrap(), server.reply_to(&query));
            }
        }
        assert_eq!(server.balanced_totals().queries[1].iter().sum::<u64>(), 40);
        server.stop();
    }

    #[test]
    fn pipelined_queries_are_all_answered_in_order_even_when_read_late() {
        let server = start(limits());
        let mut stream = connect(&server);
        let queries: Vec<_> = (0..500).map(|id| message(id, b"pipelined")).collect();
        stream.write_all(&queries.iter().flat_map(|q| frame(q)).collect::<Vec<_>>()).unwrap();
        server.wait_until("all are read", |server| server.registry.totals().queries_read() == 500);
        for query in &queries {
            assert_eq!(read_reply(&mut stream).unwrap(), server.reply_to(query));
        }
        server.stop();
    }

    #[test]
    fn a_query_may_come_byte_by_byte_and_a_reply_may_have_65535_bytes() {
        let server = start(limits());
        let mut stream = connect(&server);
        for byte in frame(&message(1, b"slow")) {
            stream.write_all(&[byte]).unwrap();
        }
        assert_eq!(read_reply(&mut stream).unwrap().len(), 16);
        for _ in 0..20 {
            assert_eq!(ask(&mut stream, &message(2, b"big 65535")).unwrap().len(), 65535);
        }
        assert_eq!(ask(&mut stream, &message(3, &[0; 65523])).unwrap().len(), 65535);
        server.stop();
    }

    #[test]
    fn a_half_closed_client_still_gets_its_answers() {
        let server = start(limits());
        let mut stream = connect(&server);
        for id in 0..100 {
            stream.write_all(&frame(&message(id, b"big 4000"))).unwrap();
        }
        stream.shutdown(Shutdown::Write).unwrap();
        for id in 0..100u16 {
            assert_eq!(read_reply(&mut stream).unwrap()[..2], id.to_be_bytes());
        }
        assert!(is_closed(&mut stream));
        server.stop();
    }

    #[test]
    fn an_empty_message_closes_and_what_the_core_drops_does_not() {
        let server = start(limits());
        let mut stream = connect(&server);
        stream.write_all(&frame(b"short")).unwrap();
        assert_eq!(ask(&mut stream, &message(1, b"")).unwrap().len(), 12);
        stream.write_all(&[0, 0]).unwrap();
        assert!(is_closed(&mut stream));
        assert_eq!(server.balanced_totals().queries_read(), 2);
        server.stop();
    }

    #[test]
    fn idle_connections_are_closed_and_used_ones_are_not() {
        let server = start(Limits { tcp_idle: Duration::from_millis(400), ..limits() });
        let (mut idle, mut used) = (connect(&server), connect(&server));
        let begin = Instant::now();
        let watcher = std::thread::spawn(move || (is_closed(&mut idle), begin.elapsed()));
        while !watcher.is_finished() {
            // Far more often than the limit: only a machine that stands still for so long could fail here.
            if ask(&mut used, &message(1, b"x")).is_err() {
                assert!(begin.elapsed() > Duration::from_millis(400));
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let (is_closed, after) = watcher.join().unwrap();
        assert!(is_closed && after >= Duration::from_millis(400), "{after:?}");
        server.wait_until("none is left", |server| server.registry.totals().tcp_connections == 0);
        server.stop();
    }

    #[test]
    fn a_message_that_dribbles_in_is_cut_off() {
        let server = start(Limits { tcp_idle: Duration::from_millis(300), ..limits() });
        let mut stream = connect(&server);
        let begin = Instant::now();
        // Never idle for long, never whole.
        let cut = frame(&[7; 60000]).into_iter().any(|byte| {
            std::thread::sleep(Duration::from_millis(10));
            assert!(begin.elapsed() < PATIENCE, "still open");
            stream.write_all(&[byte]).is_err()
        });
        assert!(cut);
        server.stop();
    }

    #[test]
    fn a_client_that_never_reads_holds_up_nobody_and_is_cut_off() {
        let server = start(Limits { tcp_idle: Duration::from_secs(2), ..limits() });
        let mut deaf = connect(&server);
        deaf.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        let query = frame(&message(1, b"big 65535"));
        // As much as both sides' buffers take.
        while deaf.write_all(&query.repeat(100)).is_ok() {}
        for id in 0..50 {
            assert_eq!(ask(&mut connect(&server), &message(id, b"me")).unwrap()[..2], id.to_be_bytes());
        }
        server.wait_until("it is cut off", |server| server.registry.totals().tcp_connections == 0);
        server.stop();
    }

    #[test]
    fn a_client_above_its_share_loses_its_connection_idle_longest() {
        let server = start(Limits { tcp_per_client: 20, ..limits() });
        let mut streams: Vec<_> = (0..20).map(|_| connect(&server)).collect();
        for (id, stream) in streams.iter_mut().enumerate().rev() {
            ask(stream, &message(id as u16, b"")).unwrap();
        }
        // The last one was used first: it is the idlest now.
        let mut one_more = connect(&server);
        ask(&mut one_more, &message(99, b"")).unwrap();
        assert!(is_closed(&mut streams[19]));
        for stream in &mut streams[..19] {
            ask(stream, &message(1, b"")).unwrap();
        }
        assert_eq!(server.registry.totals().tcp_connections, 20);
        server.stop();
    }

    #[test]
    fn three_hundred_idle_connections_do_not_keep_new_clients_out() {
        for (connections, per_client, left) in [(1000, 20, 20), (100, 1000, 100)] {
            let server = start(Limits { tcp_connections: connections, tcp_per_client: per_client, ..limits() });
            let idle: Vec<_> = (0..300).map(|_| connect(&server)).collect();
            let begin = Instant::now();
            for id in 0..20 {
                ask(&mut connect(&server), &message(id, b"new")).unwrap();
            }
            assert!(begin.elapsed() < PATIENCE / 2, "{:?}", begin.elapsed());
            assert!(server.registry.totals().tcp_connections <= left);
            drop(idle);
            server.stop();
        }
    }

    #[test]
    fn an_idle_connection_costs_less_than_two_kilobytes() {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let client = listener.local_addr().unwrap();
            let stream = tokio::net::TcpStream::connect(client).await.unwrap();
            let shared = Rc::new(RefCell::new(Shared::new(TransportKind::Tcp, worker(&Registry::new()))));
            let task = tokio::task::spawn(std::future::pending::<()>());
            let id = shared.borrow_mut().table.insert(ClientNetwork::of(client.ip()), |_| task.abort_handle());
            let (limits, stop) = (watch::Sender::new(limits()).subscribe(), watch::Sender::new(false).subscribe());
            let seat = Seat { client, id, shared, limits, stop };
            assert!(size_of_val(&Connection::new(stream, seat).serve()) < 2048);
        });
    }

    #[test]
    fn whoever_asked_something_is_told_of_with_the_socket_when_its_connection_ends() {
        let server = start(Limits { tcp_per_client: 2, ..limits() });
        let ended = || server.ended.lock().unwrap().clone();
        drop(connect(&server)); // asks nothing
        let mut closed = connect(&server);
        ask(&mut closed, &message(1, b"")).unwrap();
        let closed_address = closed.local_addr().unwrap();
        drop(closed);
        server.wait_until("the first has ended", |_| ended() == [closed_address]);
        // One that is closed to make room, and one that a stop closes.
        let [mut evicted, mut kept] = [connect(&server), connect(&server)];
        for stream in [&mut evicted, &mut kept] {
            ask(stream, &message(2, b"")).unwrap();
        }
        let mut last = connect(&server);
        ask(&mut last, &message(3, b"")).unwrap();
        assert!(is_closed(&mut evicted));
        let evicted_address = evicted.local_addr().unwrap();
        server.wait_until("the second has ended", |_| ended() == [closed_address, evicted_address]);
        let all = server.ended.clone();
        server.stop();
        assert_eq!(all.lock().unwrap().len(), 4);
    }

    #[test]
    fn limits_can_be_changed_while_serving() {
        let server = start(limits());
        let mut streams: Vec<_> = (0..10).map(|_| connect(&server)).collect();
        for stream in &mut streams {
            ask(stream, &message(1, b"")).unwrap();
        }
        server.serving.set_limits(&Limits { tcp_per_client: 3, ..limits() });
        ask(&mut connect(&server), &message(2, b"")).unwrap();
        for stream in &mut streams[..8] {
            assert!(is_closed(stream));
        }
        ask(&mut streams[9], &message(3, b"")).unwrap();
        server.stop();
    }

    #[test]
    fn a_stop_answers_what_has_arrived_and_does_not_wait_for_the_idle() {
        let server = start(limits());
        let mut streams: Vec<_> = (0..50).map(|_| connect(&server)).collect();
        let _idle = connect(&server);
        for stream in &mut streams {
            for id in 0..20 {
                stream.write_all(&frame(&message(id, b"last"))).unwrap();
            }
        }
        let begin = Instant::now();
        server.stop();
        assert!(begin.elapsed() < STOP_WITHIN, "{:?}", begin.elapsed());
        for stream in &mut streams {
            for id in 0..20u16 {
                assert_eq!(read_reply(stream).unwrap()[..2], id.to_be_bytes());
            }
            assert!(is_closed(stream));
        }
    }

    #[test]
    fn a_stop_waits_for_the_rest_of_a_message_but_not_for_ever() {
        let server = start(limits());
        let (mut slow, mut never) = (connect(&server), connect(&server));
        let query = frame(&message(5, b"second half follows"));
        for stream in [&mut slow, &mut never] {
            ask(stream, &message(1, b"")).unwrap();
            stream.write_all(&query[..9]).unwrap();
        }
        let begin = Instant::now();
        let stopping = std::thread::spawn(move || server.stop());
        slow.write_all(&query[9..]).unwrap();
        assert_eq!(read_reply(&mut slow).unwrap()[..2], [0, 5]);
        stopping.join().unwrap();
        assert!(begin.elapsed() < PATIENCE);
        assert!(is_closed(&mut never));
    }

    #[test]
    fn a_panic_in_a_connection_is_seen_from_outside() {
        let server = start(limits());
        connect(&server).write_all(&frame(&message(0, b"panic"))).unwrap();
        server.wait_until("the thread ends", |server| !server.serving.is_whole());
        assert_eq!(server.serving.stop().unwrap_err().thread, "tcp");
    }
}
