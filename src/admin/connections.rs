//! HTTP connections within limits: how many, how long for a request's head, how long in all. Knows nothing of what is served.
//!
//! A client that is slow in any way (sending, reading, or just sitting there) holds nothing but its own connection, and that
//! not for long: at the cap the connection that has been open longest makes room for the newcomer.

use std::{collections::BTreeMap, future::Future, pin::pin, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, timeout},
};
use tower::ServiceExt;

use super::guard::Peer;

/// When the connection that a request came on takes no further one; noted on each request, for answers that go on and on.
#[derive(Debug, Clone, Copy)]
pub struct Until(pub Instant);

/// What clients may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time.
    pub connections_max: usize,
    /// For a request's head to arrive whole; also how long a connection may idle between requests.
    pub head_within: Duration,
    /// After so long a connection takes no further request.
    pub lifetime: Duration,
    /// How long a request under way may take to end after that, or after the shutdown.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: 64,
            head_within: Duration::from_secs(10),
            lifetime: Duration::from_secs(60),
            grace: Duration::from_secs(3),
        }
    }
}

/// A request's head, and what is read ahead of a slow handler; more is refused.
const BUFFER_BYTES_MAX: usize = 16 << 10;
/// Pause after a failed accept: what makes it fail (no files left) does not pass by asking again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` completes, then lets requests under way end within the grace. Dropping the future closes the
/// listener and every connection at once.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, shutdown: impl Future<Output = ()>) {
    let (stop, stopped) = watch::channel(false);
    let mut shutdown = pin!(shutdown);
    let mut connections = Connections::default();
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = connections.tasks.join_next() => {
                if let Ok(number) = ended {
                    connections.open.remove(&number);
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => connections.add((stream, Peer(peer)), router.clone(), limits, stopped.clone()),
                Err(error) => {
                    tracing::debug!(%error, "an HTTP connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let _ = stop.send(true); // an error means that no connection is open
    let all_ended = async { while connections.tasks.join_next().await.is_some() {} };
    let _ = timeout(limits.grace, all_ended).await; // what is left ends with the drop
}

/// The open connections by age.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<u64>,
    open: BTreeMap<u64, AbortHandle>,
    next: u64,
}

impl Connections {
    fn add(&mut self, stream: (TcpStream, Peer), router: Router, limits: Limits, stopped: watch::Receiver<bool>) {
        if self.open.len() >= limits.connections_max
            && let Some((_, oldest)) = self.open.pop_first()
        {
            oldest.abort();
        }
        let number = self.next;
        self.next += 1;
        let task = self.tasks.spawn(async move {
            connection(stream, router, limits, stopped).await;
            number
        });
        self.open.insert(number, task);
    }
}

async fn connection(
    (stream, peer): (TcpStream, Peer),
    router: Router,
    limits: Limits,
    mut stopped: watch::Receiver<bool>,
) {
    let until = Until(Instant::now() + limits.lifetime);
    let router = router.map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(until);
        request
    });
    let _ = stream.set_nodelay(true); // only speed is lost without it
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head_within)
            .max_buf_size(BUFFER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    let stop = async {
        let _ = stopped.wait_for(|stop| *stop).await; // an error means the same: the server is gone
    };
    tokio::select! {
        _ = &mut connection => return, // an error is the client's: it went away or spoke nonsense
        () = stop => {}
        () = sleep(limits.lifetime) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(limits.grace, connection).await; // an error means that the client was too slow; it is cut off
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::oneshot,
        task::JoinHandle,
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);
    const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    async fn start(limits: Limits) -> (std::net::SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let router = Router::new().route("/", get(|| async { "hello" }));
        let server = tokio::spawn(serve(listener, router, limits, async {
            let _ = stopped.await;
        }));
        (address, stop, server)
    }

    /// Reads until the server closes the connection.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the server closes the connection");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    async fn answer(stream: &mut TcpStream) -> String {
        let mut bytes = vec![0; 4096];
        let len = timeout(PATIENCE, stream.read(&mut bytes)).await.expect("an answer comes").unwrap();
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    }

    #[tokio::test]
    async fn a_client_that_never_ends_its_request_is_cut_off() {
        let (address, _stop, _) = start(Limits { head_within: Duration::from_millis(50), ..Limits::default() }).await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nhos").await.unwrap();
        assert!(!rest(&mut slow).await.contains("hello"));
    }

    #[tokio::test]
    async fn a_connection_without_requests_is_closed() {
        let (address, _stop, _) = start(Limits { head_within: Duration::from_millis(50), ..Limits::default() }).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(GET).await.unwrap();
        assert!(rest(&mut idle).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn a_connection_that_lives_on_requests_ends_too() {
        let (address, _stop, _) = start(Limits { lifetime: Duration::from_millis(50), ..Limits::default() }).await;
        let mut busy = TcpStream::connect(address).await.unwrap();
        busy.write_all(GET).await.unwrap();
        assert!(rest(&mut busy).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn at_the_cap_the_oldest_connection_makes_room() {
        let (address, _stop, _) = start(Limits { connections_max: 2, ..Limits::default() }).await;
        let mut oldest = TcpStream::connect(address).await.unwrap();
        oldest.write_all(GET).await.unwrap();
        assert!(answer(&mut oldest).await.ends_with("hello"));
        let mut older = TcpStream::connect(address).await.unwrap();
        let mut newcomer = TcpStream::connect(address).await.unwrap();
        newcomer.write_all(GET).await.unwrap();
        assert!(answer(&mut newcomer).await.ends_with("hello"));
        assert_eq!(rest(&mut oldest).await, "");
        older.write_all(GET).await.unwrap();
        assert!(answer(&mut older).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn a_head_over_the_limit_is_refused() {
        let (address, _stop, _) = start(Limits::default()).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        let head = format!("GET / HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "y".repeat(2 * BUFFER_BYTES_MAX));
        let _ = client.write_all(head.as_bytes()).await; // may be cut off half way
        assert!(!rest(&mut client).await.contains("hello"));
    }

    #[tokio::test]
    async fn the_end_waits_for_no_idle_client() {
        let (address, stop, server) = start(Limits { grace: PATIENCE, ..Limits::default() }).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(GET).await.unwrap();
        assert!(answer(&mut idle).await.ends_with("hello"));
        stop.send(()).unwrap();
        assert_eq!(rest(&mut idle).await, "");
        timeout(PATIENCE, server).await.expect("the server ends").unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
