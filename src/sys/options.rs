//! Socket options that neither std nor socket2 offer. Must never know who uses the sockets.

use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd},
};

use libc::{c_int, socklen_t};

/// Flag for opening a file: neither this nor writing it waits for anybody (`O_NONBLOCK`; means something to FIFOs and terminals).
pub const NO_WAIT: c_int = libc::O_NONBLOCK;

/// Makes the kernel tell with every datagram which of the host's addresses it was sent to, and on which interface
/// (`IP_PKTINFO`, `IPV6_RECVPKTINFO`; RFC 3542 §6). For sockets bound to the unspecified address.
///
/// # Errors
/// What `setsockopt` says.
pub fn report_destination(socket: BorrowedFd<'_>, is_ipv6: bool) -> io::Result<()> {
    if is_ipv6 {
        set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
    } else {
        set_int(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
    }
}

/// Takes a UDP socket out of path MTU discovery: no DF bit, and forged "fragmentation needed" messages change nothing
/// (`IP_PMTUDISC_OMIT`; RFC 9715 says why a DNS server wants that).
///
/// # Errors
/// What `setsockopt` says; kernels before 3.15 do not know it.
pub fn ignore_path_mtu(socket: BorrowedFd<'_>, is_ipv6: bool) -> io::Result<()> {
    if is_ipv6 {
        set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_OMIT)
    } else {
        set_int(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT)
    }
}

/// Asks for `bytes` of receive buffer: beyond the system's limit where we may, else up to it.
///
/// # Errors
/// What `setsockopt` says; being given less is none.
pub fn receive_buffer(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let bytes = c_int::try_from(bytes).unwrap_or(c_int::MAX);
    set_int(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes)
        .or_else(|_| set_int(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes))
}

fn set_int(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let length = mem::size_of::<c_int>() as socklen_t;
    // SAFETY: `value` lives across the call, `length` is its size, and the kernel only reads it.
    let status = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
