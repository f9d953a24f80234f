//! Sockets that tokio only watches, while we make the system calls. Must never read or write one.

use std::{io, net::UdpSocket};

use tokio::io::{Interest, unix::AsyncFd};

/// Has the current tokio runtime tell when `socket` (non-blocking) has something to receive.
///
/// # Errors
/// When the kernel watches no more descriptors.
///
/// # Panics
/// Outside a tokio runtime with I/O.
pub fn watch_for_datagrams(socket: UdpSocket) -> io::Result<AsyncFd<UdpSocket>> {
    // SAFETY: a `UdpSocket` owns its descriptor and names the same open one for as long as it lives; no shared reference can
    // replace it, and we take none that is exclusive.
    let watched = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    Ok(watched?)
}
