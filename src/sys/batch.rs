//! Many datagrams in one system call: `recvmmsg` into buffers allocated once, `sendmmsg` of the replies that are wanted.
//!
//! A reply goes out with the request's own message header, so its destination is the request's source, and on a socket
//! bound to the unspecified address its source is the address asked, at no further cost. Must never know what is in the bytes.

use std::{
    io, mem,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    ptr::{self, NonNull},
};

use libc::{c_int, c_uint, cmsghdr, in_pktinfo, in6_pktinfo, iovec, mmsghdr, sockaddr_in, sockaddr_in6, socklen_t};

/// Datagrams of one call. A system call costs about 0.6 µs; shared by 16 that is 0.04 µs a query, and larger batches gain
/// nothing more: measured, 64 did no better than 8 or 16, while the first query of a batch waits for the last one's answer
/// and the buffers push each other out of the first-level cache.
pub const SLOTS: usize = 16;

/// Room for a received datagram, in bytes. Queries with large options stay well below; what does not fit is cut off by the
/// kernel and marked [`Datagram::is_truncated`].
pub const QUERY_BYTES: usize = 4096;

/// Room for a reply, in bytes: the largest UDP payload that the configuration allows.
pub const REPLY_BYTES: usize = 4096;

/// Buffers and message headers for [`SLOTS`] datagrams, allocated once. One user at a time; may move between threads.
pub struct UdpBatch {
    inner: NonNull<Inner>,
    /// Slots that the last receive filled.
    received: usize,
    /// Replies queued for the next send.
    queued: usize,
}

/// One received datagram and the room for its reply.
pub struct Datagram<'b> {
    /// Its bytes; only their beginning if `is_truncated`.
    pub query: &'b [u8],
    /// Who sent it.
    pub client: SocketAddr,
    /// It was longer than [`QUERY_BYTES`].
    pub is_truncated: bool,
    /// Where the reply goes, [`REPLY_BYTES`] long. Holds whatever was there before.
    pub reply: &'b mut [u8],
}

/// The headers point into the slots, so none of this ever moves: it is reached through a raw pointer alone.
struct Inner {
    received: [mmsghdr; SLOTS],
    received_iov: [iovec; SLOTS],
    outgoing: [mmsghdr; SLOTS],
    outgoing_iov: [iovec; SLOTS],
    slots: [Slot; SLOTS],
}

/// Its size is four cache lines above a multiple of 4 kB: with slots exactly 8 kB apart the busy first lines of all of them
/// would fall into one set of the first-level cache and evict each other.
#[repr(C, align(256))]
struct Slot {
    query: [u8; QUERY_BYTES],
    reply: [u8; REPLY_BYTES],
    name: Name,
    control: Control,
}

#[repr(C)]
union Name {
    v4: sockaddr_in,
    v6: sockaddr_in6,
}

/// One control message with the destination address, laid out as `CMSG_DATA` has it (held by a test).
#[repr(C, align(8))]
struct Control {
    header: cmsghdr,
    info: Info,
}

#[repr(C, align(8))]
union Info {
    v4: in_pktinfo,
    v6: in6_pktinfo,
}

const NAME_BYTES: socklen_t = mem::size_of::<Name>() as socklen_t;
const CONTROL_BYTES: usize = mem::size_of::<Control>();

// SAFETY: the pointer owns its allocation and nothing else points into it, so the whole may go to another thread.
unsafe impl Send for UdpBatch {}

impl Default for UdpBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl UdpBatch {
    /// Allocates the buffers, about 136 kB.
    pub fn new() -> Self {
        // SAFETY: every field of `Inner` is plain data for which all-zero bytes are a valid value (null pointers included).
        let inner = unsafe { Box::<Inner>::new_zeroed().assume_init() };
        let inner = NonNull::from(Box::leak(inner));
        let base = inner.as_ptr();
        for slot in 0..SLOTS {
            // SAFETY: `base` is the live allocation made above, used by nobody else, and `slot` is within its arrays; the
            // places are only named and written, no reference to them is kept.
            unsafe {
                (*base).received_iov[slot] =
                    iovec { iov_base: (&raw mut (*base).slots[slot].query).cast(), iov_len: QUERY_BYTES };
                let header = &raw mut (*base).received[slot].msg_hdr;
                (*header).msg_name = (&raw mut (*base).slots[slot].name).cast();
                (*header).msg_namelen = NAME_BYTES;
                (*header).msg_iov = &raw mut (*base).received_iov[slot];
                (*header).msg_iovlen = 1;
                (*header).msg_control = (&raw mut (*base).slots[slot].control).cast();
                (*header).msg_controllen = CONTROL_BYTES as _;
            }
        }
        UdpBatch { inner, received: 0, queued: 0 }
    }

    /// Takes up to [`SLOTS`] datagrams that wait on `socket`; if none does, waits for the first as the socket is set to (not at all
    /// if it is non-blocking). Forgets the last ones. Returns how many: slots `0..n` now hold them.
    ///
    /// # Errors
    /// `WouldBlock` when none waits, or none came in the socket's time limit; else what `recvmmsg` says twice in a row.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.receive_with(socket, libc::MSG_WAITFORONE)
    }

    /// As [`UdpBatch::receive`], but never waits. The socket's own setting stays: another process that has the same socket would go
    /// by it, too.
    ///
    /// # Errors
    /// As [`UdpBatch::receive`].
    pub fn receive_at_once(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.receive_with(socket, libc::MSG_DONTWAIT)
    }

    fn receive_with(&mut self, socket: BorrowedFd<'_>, flags: c_int) -> io::Result<usize> {
        let base = self.inner.as_ptr();
        for slot in 0..self.received {
            // SAFETY: the allocation is live and ours (`&mut self`), `slot` is below `SLOTS`.
            let header = unsafe { &mut (*base).received[slot].msg_hdr };
            header.msg_namelen = NAME_BYTES;
            header.msg_controllen = CONTROL_BYTES as _;
            header.msg_flags = 0;
        }
        self.received = 0;
        self.queued = 0;
        // An error that belongs to an earlier datagram is told once and over; what waits behind it must not wait longer.
        let mut may_be_stale = true;
        loop {
            // SAFETY: the headers were filled in by `new` with pointers into the same live allocation and the lengths of what
            // they point to (restored above); nobody else reads or writes it during the call.
            let count = unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    (&raw mut (*base).received).cast(),
                    SLOTS as c_uint,
                    flags as _,
                    ptr::null_mut(),
                )
            };
            if let Ok(count) = usize::try_from(count) {
                self.received = count;
                return Ok(count);
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => return Err(error),
                _ if may_be_stale => may_be_stale = false,
                _ => return Err(error),
            }
        }
    }

    /// The datagram in `slot`.
    ///
    /// # Panics
    /// When the last receive did not fill `slot`.
    pub fn datagram(&mut self, slot: usize) -> Datagram<'_> {
        assert!(slot < self.received, "slot {slot} holds no datagram");
        // SAFETY: the allocation is live and ours (`&mut self`) for as long as the references live; the two are of different
        // fields; all bytes of it are initialised (zeroed at first).
        let (header, data) = unsafe {
            let base = self.inner.as_ptr();
            (&(*base).received[slot], &mut (*base).slots[slot])
        };
        Datagram {
            query: &data.query[..(header.msg_len as usize).min(QUERY_BYTES)],
            client: data.name.address(),
            is_truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            reply: &mut data.reply,
        }
    }

    /// Queues the first `length` bytes of the reply room of `slot` for the sender of its datagram; at most once a slot.
    ///
    /// # Panics
    /// When the last receive did not fill `slot`, `length` is over [`REPLY_BYTES`], or all slots are queued already.
    pub fn queue(&mut self, slot: usize, length: usize) {
        assert!(slot < self.received && length <= REPLY_BYTES && self.queued < SLOTS, "a reply to no datagram");
        let base = self.inner.as_ptr();
        let place = self.queued;
        // SAFETY: the allocation is live and ours (`&mut self`); `slot` and `place` are below `SLOTS`; the header copied from
        // the request points to the same slot's name and control bytes, which stay until the next receive.
        unsafe {
            (*base).slots[slot].control.make_sendable();
            (*base).outgoing_iov[place] =
                iovec { iov_base: (&raw mut (*base).slots[slot].reply).cast(), iov_len: length };
            (*base).outgoing[place].msg_hdr = (*base).received[slot].msg_hdr;
            (*base).outgoing[place].msg_hdr.msg_iov = &raw mut (*base).outgoing_iov[place];
        }
        self.queued += 1;
    }

    /// Sends the queued replies, without blocking, and empties the queue. Returns how many could not be sent: a reply that the
    /// kernel refuses costs only itself; when its send buffer is full the rest is dropped, since the client asks again and a
    /// late answer is worth less than the next query's.
    pub fn send(&mut self, socket: BorrowedFd<'_>) -> usize {
        let queued = mem::take(&mut self.queued);
        let (mut next, mut unsent) = (0, 0);
        while next < queued {
            match self.send_from(socket.as_raw_fd(), next, queued - next) {
                Ok(sent) => next += sent,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return unsent + queued - next,
                Err(_) => {
                    unsent += 1;
                    next += 1;
                }
            }
        }
        unsent
    }

    /// At least 1 on success.
    fn send_from(&mut self, socket: RawFd, first: usize, count: usize) -> io::Result<usize> {
        // SAFETY: `first + count` is at most the number of queued replies, whose headers `queue` filled in with pointers into
        // the same live allocation; the kernel writes only their `msg_len`.
        let sent = unsafe {
            let headers: *mut mmsghdr = (&raw mut (*self.inner.as_ptr()).outgoing).cast();
            libc::sendmmsg(socket, headers.add(first), count as c_uint, libc::MSG_DONTWAIT as _)
        };
        match usize::try_from(sent) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => Ok(sent),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for UdpBatch {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `Box::leak` in `new` and is given back once.
        drop(unsafe { Box::from_raw(self.inner.as_ptr()) });
    }
}

impl Name {
    fn address(&self) -> SocketAddr {
        // SAFETY: both variants are plain data of initialised bytes and begin with the family.
        let family = c_int::from(unsafe { self.v4.sin_family });
        if family == libc::AF_INET6 {
            // SAFETY: as above.
            let name = unsafe { self.v6 };
            let address = Ipv6Addr::from(name.sin6_addr.s6_addr);
            SocketAddr::V6(SocketAddrV6::new(
                address,
                u16::from_be(name.sin6_port),
                name.sin6_flowinfo,
                name.sin6_scope_id,
            ))
        } else {
            // SAFETY: as above.
            let name = unsafe { self.v4 };
            let address = Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
            SocketAddr::V4(SocketAddrV4::new(address, u16::from_be(name.sin_port)))
        }
    }
}

impl Control {
    /// Turns what the kernel said of a request into what it takes for the reply. The source is right already (`ipi_spec_dst`
    /// is the address asked, or the host's own where that was a broadcast), but the interface is taken out: named, it would
    /// overrule the routing table, and with asymmetric routes the reply would leave by the wrong door. Only a link-local
    /// source means nothing without its interface.
    fn make_sendable(&mut self) {
        match (self.header.cmsg_level, self.header.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => self.info.v4.ipi_ifindex = 0,
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: plain data of initialised bytes.
                let asked = Ipv6Addr::from(unsafe { self.info.v6.ipi6_addr.s6_addr });
                if !asked.is_unicast_link_local() {
                    self.info.v6.ipi6_ifindex = 0;
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::UdpSocket,
        os::fd::AsFd,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::sys::options;

    fn server(address: &str) -> UdpSocket {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    fn client(address: &str) -> UdpSocket {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    }

    /// Receives until something comes; loopback delivers at once, but not before the sender has returned.
    fn receive(batch: &mut UdpBatch, socket: &UdpSocket) -> usize {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match batch.receive(socket.as_fd()) {
                Ok(count) => return count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                    std::thread::yield_now();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn echo(batch: &mut UdpBatch, slot: usize) {
        let datagram = batch.datagram(slot);
        let length = datagram.query.len();
        datagram.reply[..length].copy_from_slice(datagram.query);
        batch.queue(slot, length);
    }

    #[test]
    fn the_control_message_lies_where_the_kernel_puts_it() {
        // SAFETY: pure arithmetic.
        let (align, v4, v6) = unsafe {
            (
                libc::CMSG_LEN(0) as usize,
                libc::CMSG_SPACE(mem::size_of::<in_pktinfo>() as c_uint) as usize,
                libc::CMSG_SPACE(mem::size_of::<in6_pktinfo>() as c_uint) as usize,
            )
        };
        assert_eq!(mem::offset_of!(Control, info), align);
        assert!(CONTROL_BYTES >= v4.max(v6), "{CONTROL_BYTES} < {v4} or {v6}");
        assert_ne!(mem::size_of::<Slot>() % 4096, 0);
    }

    #[test]
    fn a_reply_names_an_interface_only_for_a_link_local_source() {
        for (asked, kept) in [("fe80::1", 7), ("2001:db8::1", 0), ("::1", 0)] {
            let ipi6_addr = libc::in6_addr { s6_addr: asked.parse::<Ipv6Addr>().unwrap().octets() };
            let mut control = Control {
                header: cmsghdr { cmsg_len: 36, cmsg_level: libc::IPPROTO_IPV6, cmsg_type: libc::IPV6_PKTINFO },
                info: Info { v6: in6_pktinfo { ipi6_addr, ipi6_ifindex: 7 } },
            };
            control.make_sendable();
            // SAFETY: the variant that was written.
            let info = unsafe { control.info.v6 };
            assert_eq!((info.ipi6_addr.s6_addr, info.ipi6_ifindex), (ipi6_addr.s6_addr, kept), "{asked}");
        }
    }

    #[test]
    fn an_empty_socket_would_block() {
        let socket = server("127.0.0.1:0");
        let error = UdpBatch::new().receive(socket.as_fd()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn every_reply_goes_to_the_one_who_asked() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let socket = server(address);
            let clients: Vec<_> = (0..40u8).map(|_| client(address)).collect();
            for (n, client) in clients.iter().enumerate() {
                client.send_to(&[n as u8; 3], socket.local_addr().unwrap()).unwrap();
            }
            let mut batch = UdpBatch::new();
            let mut left = clients.len();
            while left > 0 {
                let count = receive(&mut batch, &socket);
                assert!(count <= SLOTS);
                for slot in 0..count {
                    let from = batch.datagram(slot).client;
                    assert!(clients.iter().any(|c| c.local_addr().unwrap() == from), "{from}");
                    echo(&mut batch, slot);
                }
                assert_eq!(batch.send(socket.as_fd()), 0);
                left -= count;
            }
            for (n, client) in clients.iter().enumerate() {
                let mut reply = [0; 16];
                let (length, from) = client.recv_from(&mut reply).unwrap();
                assert_eq!((&reply[..length], from), (&[n as u8; 3][..], socket.local_addr().unwrap()));
            }
        }
    }

    #[test]
    fn only_queued_replies_are_sent() {
        let socket = server("127.0.0.1:0");
        let client = client("127.0.0.1:0");
        for n in 0..3u8 {
            client.send_to(&[n], socket.local_addr().unwrap()).unwrap();
        }
        let (mut batch, mut seen) = (UdpBatch::new(), 0);
        while seen < 3 {
            let count = receive(&mut batch, &socket);
            for slot in 0..count {
                if batch.datagram(slot).query != [1] {
                    echo(&mut batch, slot);
                }
            }
            assert_eq!(batch.send(socket.as_fd()), 0);
            seen += count;
        }
        let mut reply = [0; 4];
        for expected in [0u8, 2] {
            assert_eq!(client.recv(&mut reply).unwrap(), 1);
            assert_eq!(reply[0], expected);
        }
    }

    #[test]
    fn a_4096_byte_datagram_arrives_whole_and_a_longer_one_is_marked() {
        let socket = server("127.0.0.1:0");
        let client = client("127.0.0.1:0");
        let mut batch = UdpBatch::new();
        for (sent, truncated) in [(QUERY_BYTES, false), (QUERY_BYTES + 1, true), (0, false), (17, false)] {
            client.send_to(&vec![7; sent], socket.local_addr().unwrap()).unwrap();
            assert_eq!(receive(&mut batch, &socket), 1);
            let datagram = batch.datagram(0);
            assert_eq!((datagram.query.len(), datagram.is_truncated), (sent.min(QUERY_BYTES), truncated));
        }
    }

    #[test]
    fn a_wildcard_socket_replies_from_the_address_asked() {
        let socket = server("0.0.0.0:0");
        options::report_destination(socket.as_fd(), false).unwrap();
        let port = socket.local_addr().unwrap().port();
        let client = client("127.0.0.1:0");
        let mut batch = UdpBatch::new();
        for asked in ["127.0.0.2", "127.0.0.1", "127.3.4.5"] {
            client.send_to(b"x", (asked, port)).unwrap();
            assert_eq!(receive(&mut batch, &socket), 1);
            echo(&mut batch, 0);
            assert_eq!(batch.send(socket.as_fd()), 0);
            let (_, from) = client.recv_from(&mut [0; 4]).unwrap();
            assert_eq!(from, format!("{asked}:{port}").parse().unwrap());
        }
    }

    #[test]
    fn a_reply_that_cannot_be_sent_costs_only_itself() {
        let socket = server("127.0.0.1:0");
        let client = client("127.0.0.1:0");
        for n in 0..3u8 {
            client.send_to(&[n], socket.local_addr().unwrap()).unwrap();
        }
        let (mut batch, mut got, mut unsent) = (UdpBatch::new(), 0, 0);
        while got < 3 {
            let count = receive(&mut batch, &socket);
            for slot in 0..count {
                if batch.datagram(slot).query == [1] {
                    // SAFETY: plain data, only this thread uses the batch. A reply to port 0 is refused by the kernel.
                    unsafe { (*batch.inner.as_ptr()).slots[slot].name.v4.sin_port = 0 };
                }
                echo(&mut batch, slot);
            }
            unsent += batch.send(socket.as_fd());
            got += count;
        }
        assert_eq!(unsent, 1);
        let mut reply = [0; 4];
        for expected in [0u8, 2] {
            client.recv(&mut reply).unwrap();
            assert_eq!(reply[0], expected);
        }
    }
}
