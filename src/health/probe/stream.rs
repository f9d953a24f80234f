//! A probe's connection as the protocol above sees it: notes when its first byte came, and ends where too many have come. Whatever an
//! endpoint sends (headers without end, floods of frames), a probe of it costs this host little.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// Most bytes that are read over one connection: headers may have 64 kB and so may what is read ahead of a body, and HTTP/2 has its
/// frames around both.
pub const READ_LEN_MAX: usize = 256 * 1024;

/// When the first byte came.
pub type Heard = Arc<OnceLock<Instant>>;

/// An endpoint that sent more than it may.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("more than {} kB came, and no complete answer", READ_LEN_MAX / 1024)]
struct TooMuch;

/// A stream that counts what is read.
#[derive(Debug)]
pub struct Counted<S> {
    stream: S,
    heard: Heard,
    read_len: usize,
}

impl<S> Counted<S> {
    /// Counts what is read of `stream` from now on.
    pub fn new(stream: S, heard: Heard) -> Self {
        Counted { stream, heard, read_len: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read_len > READ_LEN_MAX {
            return Poll::Ready(Err(io::Error::other(TooMuch)));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let len = buffer.filled().len() - before;
        if self.read_len == 0 && len > 0 {
            let _first = self.heard.set(Instant::now());
        }
        self.read_len += len;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
