//! A server for tests: real sockets around a core that echoes.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::BorrowedFd,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::{Inheritance, Reply, Respond, Serving, TransportKind, Worker, bind, start};
use crate::{
    config::model::{Limits, Listen},
    sys::tcp_info::round_trip,
    telemetry::{DropReason, QtypeClass, Registry, Totals, WorkerCounters},
};

/// Long enough for anything that happens at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running server and its counters.
pub(crate) struct Server {
    pub serving: Serving,
    pub addresses: Vec<SocketAddr>,
    pub registry: Arc<Registry>,
    /// Clients whose connections have ended, in that order.
    pub ended: Arc<Mutex<Vec<SocketAddr>>>,
}

/// Sets QR and sends the message back; one whose body is `big NUMBER` gets that many bytes, `panic` a panic, `hang` nothing ever.
pub(crate) struct Echo {
    counters: Arc<WorkerCounters>,
    ended: Arc<Mutex<Vec<SocketAddr>>>,
}

pub(crate) fn limits() -> Limits {
    Limits {
        tcp_connections: 1000,
        tcp_per_client: 1000,
        tcp_idle: PATIENCE,
        udp_payload: 1232,
        responses_per_second: 0,
    }
}

pub(crate) fn worker(registry: &Registry) -> Worker<Echo> {
    worker_that_tells(registry, Arc::default())
}

fn worker_that_tells(registry: &Registry, ended: Arc<Mutex<Vec<SocketAddr>>>) -> Worker<Echo> {
    let counters = registry.register();
    Worker { respond: Echo { counters: counters.clone(), ended }, counters }
}

/// A message of 12 header bytes, the ID first, and a body.
pub(crate) fn message(id: u16, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 12];
    message[..2].copy_from_slice(&id.to_be_bytes());
    message.extend_from_slice(body);
    message
}

pub(crate) fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.addresses[0]).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub(crate) fn frame(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

pub(crate) fn read_reply(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply)?;
    Ok(reply)
}

pub(crate) fn ask(stream: &mut TcpStream, query: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(&frame(query))?;
    read_reply(stream)
}

/// True once the server has closed its side; waits for it.
pub(crate) fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 100]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

impl Server {
    pub fn start(addresses: &[&str], threads: usize) -> Self {
        Self::with_limits(addresses, threads, limits())
    }

    pub fn with_limits(addresses: &[&str], threads: usize, limits: Limits) -> Self {
        let listen: Vec<_> =
            addresses.iter().map(|a| Listen { address: a.parse().unwrap(), is_default: false }).collect();
        let bound = bind(&listen, threads, &mut Inheritance::default()).unwrap();
        let addresses = bound.addresses().to_vec();
        let registry = Arc::new(Registry::new());
        let ended: Arc<Mutex<Vec<SocketAddr>>> = Arc::default();
        let serving = start(bound, &limits, || worker_that_tells(&registry, ended.clone()));
        Server { serving: serving.unwrap(), addresses, registry, ended }
    }

    pub fn reply_to(&self, query: &[u8]) -> Vec<u8> {
        let mut reply = query.to_vec();
        reply[2] |= 0x80;
        reply
    }

    pub fn wait_until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "waited in vain until {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// A reply is counted before it is sent, but the counters of a batch may lag behind the reply to one of it.
    pub fn balanced_totals(&self) -> Totals {
        self.wait_until("the counters add up", |server| server.registry.totals().is_balanced());
        self.registry.totals()
    }

    pub fn stop(self) {
        self.serving.stop().unwrap();
    }
}

impl Respond for Echo {
    fn begin_batch(&mut self) {}

    fn respond(&mut self, query: &[u8], _client: SocketAddr, transport: TransportKind, out: &mut [u8]) -> Reply {
        self.counters.query(transport, QtypeClass::None);
        if query.len() < 12 {
            self.counters.dropped(DropReason::Short);
            return Reply::Drop;
        }
        let body = &query[12..];
        assert_ne!(body, b"panic", "asked to");
        if body == b"hang" {
            loop {
                std::thread::park();
            }
        }
        self.counters.response(0);
        let big = body.strip_prefix(b"big ").and_then(|n| std::str::from_utf8(n).ok()?.parse().ok());
        let length = big.unwrap_or(query.len()).min(out.len());
        let copied = length.min(query.len());
        out[..copied].copy_from_slice(&query[..copied]);
        out[copied..length].fill(0xff);
        out[2] |= 0x80;
        Reply::Send(length)
    }

    fn connection_ends(&mut self, client: SocketAddr, socket: BorrowedFd<'_>) {
        round_trip(socket).expect("the socket is open");
        self.ended.lock().unwrap().push(client);
    }
}
