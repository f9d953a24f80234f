//! An HTTP server that does what no good one does: late, silent, wrong, or broken, each of its addresses as told.
#![allow(dead_code)] // each test program uses its part

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::{Builder, Runtime},
    task::AbortHandle,
    time::sleep,
};

use crate::netns::Namespace;

/// What a client gets for its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// 200, `all is well`.
    Well,
    /// This status, the same body.
    Status(u16),
    /// 200 and a body without a word of the right one.
    OtherBody,
    /// The right answer after a while.
    Late(Duration),
    /// The connection stands, and nothing ever comes.
    Mute,
    /// The connection is reset once the request is there.
    Reset,
}

/// Serves port 80 of every address in a namespace; its connections are refused once it is dropped.
pub struct Strange(AbortHandle);

/// What each connection gets: asked for each with the address that it came to.
pub type Whim = dyn Fn(Ipv4Addr) -> Behaviour + Send + Sync;

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap())
}

impl Strange {
    pub fn start(namespace: &Namespace, whim: impl Fn(Ipv4Addr) -> Behaviour + Send + Sync + 'static) -> Strange {
        let listener = namespace.inside(|| {
            let _inside = runtime().enter();
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap(); // what was reset in the last life does not stand in the way
            socket.bind(SocketAddr::from(([0, 0, 0, 0], 80))).unwrap();
            socket.listen(4096).unwrap()
        });
        let whim: Arc<Whim> = Arc::new(whim);
        Strange(runtime().spawn(accept(listener, whim)).abort_handle())
    }
}

impl Drop for Strange {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn accept(listener: TcpListener, whim: Arc<Whim>) {
    loop {
        // Without a file to spare it tries again, as any server would.
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        let whim = whim.clone();
        runtime().spawn(async move { drop(answer(stream, &*whim).await) });
    }
}

async fn answer(mut stream: TcpStream, whim: &Whim) -> std::io::Result<()> {
    let IpAddr::V4(address) = stream.local_addr()?.ip() else { return Ok(()) };
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let (status, body) = match whim(address) {
        Behaviour::Well => (200, "all is well"),
        Behaviour::Status(status) => (status, "all is well"),
        Behaviour::OtherBody => (200, "a page of someone else"),
        Behaviour::Late(time) => {
            sleep(time).await;
            (200, "all is well")
        }
        Behaviour::Mute => {
            while stream.read_buf(&mut request).await? > 0 {} // until the client has enough of it
            return Ok(());
        }
        Behaviour::Reset => return socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)),
    };
    let len = body.len();
    let reply = format!("HTTP/1.1 {status} So\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n{body}");
    stream.write_all(reply.as_bytes()).await?;
    stream.shutdown().await
}
