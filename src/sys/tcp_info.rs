//! What the kernel knows of a TCP connection's path (`TCP_INFO`). Must never know whose connection it is.

use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd},
};

use libc::socklen_t;

/// A connection's round trip, as the kernel has seen it so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundTrip {
    /// The lowest round trip in microseconds, from the handshake on (`tcpi_min_rtt`); `None`: none was measured, as happens where
    /// the handshake was answered with a SYN cookie and nothing was acknowledged since.
    pub lowest_us: Option<u32>,
    /// Segments sent again, SYN-ACK included (`tcpi_total_retrans`). With any, an acknowledgement may be one of either copy (Karn's
    /// algorithm; RFC 6298 §3).
    pub retransmits: u32,
}

/// What the kernel says where it has no lowest round trip.
const NO_ROUND_TRIP_US: u32 = u32::MAX;

/// Asks for a connection's round trip. Best asked when the connection is about to be closed: at its beginning the lowest round trip
/// is that of the handshake alone.
///
/// # Errors
/// What `getsockopt` says; `Unsupported` from kernels before 4.9, which do not tell the lowest round trip.
pub fn round_trip(socket: BorrowedFd<'_>) -> io::Result<RoundTrip> {
    // SAFETY: a `tcp_info` is made of integers, for which zero is a valid value.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut length = mem::size_of::<libc::tcp_info>() as socklen_t;
    let into = (&raw mut info).cast();
    // SAFETY: `info` and `length` live across the call, `length` is the size of `info`, and the kernel writes no more than that.
    let status = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, into, &mut length) };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    let needed = mem::offset_of!(libc::tcp_info, tcpi_min_rtt) + mem::size_of::<u32>();
    if (length as usize) < needed {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let lowest_us = Some(info.tcpi_min_rtt).filter(|us| *us != NO_ROUND_TRIP_US);
    Ok(RoundTrip { lowest_us, retransmits: info.tcpi_total_retrans })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream, UdpSocket},
        os::fd::AsFd,
    };

    use super::*;

    #[test]
    fn a_connection_over_loopback_has_a_round_trip_of_its_own_even_after_the_other_end_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"question").unwrap();
        drop(client);
        let mut bytes = Vec::new();
        server.read_to_end(&mut bytes).unwrap();
        let trip = round_trip(server.as_fd()).unwrap();
        assert_eq!(trip.retransmits, 0);
        // Only what stands still for whole seconds could make it so long.
        assert!(trip.lowest_us.is_some_and(|us| us < 5_000_000), "{trip:?}");
    }

    #[test]
    fn another_kind_of_socket_is_an_error() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(round_trip(socket.as_fd()).is_err());
    }
}
