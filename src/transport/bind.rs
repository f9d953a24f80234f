//! Opens all sockets, before any is served: either everything that the configuration lists is there, or the reasons are told.
//! Must never know what is answered on them.

use std::{
    collections::VecDeque,
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    num::NonZero,
    os::fd::AsFd,
    thread,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    config::model::{Encrypted, Listen},
    sys::{errors::is_address_lacking, options},
};

/// Open sockets, non-blocking, TCP listening already.
#[derive(Debug)]
pub struct Bound {
    /// For each worker one socket an address, in the order of [`Bound::addresses`].
    pub udp: Vec<Vec<UdpSocket>>,
    /// One socket an address.
    pub tcp: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
}

/// An address that cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {protocol} {address}: {}; {}", why(.reason), advice(.reason, *.address, .key))]
pub struct BindError {
    /// The address as configured.
    pub address: SocketAddr,
    /// `UDP` or `TCP`.
    pub protocol: &'static str,
    /// Where the address stands: `[server] listen`.
    pub key: &'static str,
    /// Why.
    pub reason: io::Error,
}

/// Open sockets of the encrypted transports, non-blocking.
#[derive(Debug, Default)]
pub struct BoundEncrypted {
    /// For DNS over TLS, listening already.
    pub dot: Vec<TcpListener>,
    /// For DNS over QUIC.
    pub doq: Vec<UdpSocket>,
    /// For DNS over HTTPS, listening already.
    pub doh: Vec<TcpListener>,
}

const LISTEN: &str = "[server] listen";

/// Receive buffer of a UDP socket, in bytes: at 150,000 queries a second it holds what comes in 30 ms, so that a worker that was
/// not scheduled for some ticks loses nothing. As much of it as the system grants.
const UDP_RECEIVE_BUFFER: usize = 4 << 20;

/// Send buffer of a UDP socket, in bytes: some hundred full-sized replies while the device is busy.
const UDP_SEND_BUFFER: usize = 1 << 20;

/// Buffers of a TCP connection, in bytes (the kernel doubles them): a whole message fits, and the kernel does not grow them to
/// megabytes for those who never read. Accepted sockets inherit them.
const TCP_BUFFER: usize = 64 << 10;

/// Connections that wait to be accepted; the system may hold fewer.
const TCP_BACKLOG: i32 = 1024;

/// Port 0: how often another free TCP port is tried when the UDP port of the same number is taken.
const PORT_TRIES: usize = 32;

/// Opens UDP sockets for `threads` workers (0: one a core) and a TCP listener on every address. Default addresses that this host
/// does not have are left out with a log line. Port 0 takes a port that is free for both.
///
/// # Errors
/// Every address that cannot be served, each with the reason. Nothing stays open then.
pub fn bind(listen: &[Listen], threads: usize) -> Result<Bound, Vec<BindError>> {
    let workers = if threads == 0 { thread::available_parallelism().map_or(1, NonZero::get) } else { threads };
    let mut bound = Bound { udp: (0..workers).map(|_| Vec::new()).collect(), tcp: Vec::new(), addresses: Vec::new() };
    let (mut errors, mut skipped) = (Vec::new(), Vec::new());
    for &Listen { address, is_default } in listen {
        match bind_address(address, workers) {
            Ok((address, tcp, udp)) => {
                bound.udp.iter_mut().zip(udp).for_each(|(worker, socket)| worker.push(socket));
                bound.tcp.push(tcp);
                bound.addresses.push(address);
            }
            Err(error) if is_default && is_address_lacking(&error.reason) => {
                tracing::info!("not listening on {address}: this host does not have it");
                skipped.push(error);
            }
            Err(error) => errors.push(error),
        }
    }
    if bound.addresses.is_empty() {
        errors.append(&mut skipped);
    }
    if errors.is_empty() { Ok(bound) } else { Err(errors) }
}

/// Opens the sockets of the encrypted transports.
///
/// # Errors
/// As [`bind`].
pub fn bind_encrypted(encrypted: &Encrypted) -> Result<BoundEncrypted, Vec<BindError>> {
    let mut errors = Vec::new();
    let mut over_tcp = |addresses: &[SocketAddr], key| {
        let one = |&address| match tcp_listener(address) {
            Ok((listener, _)) => Some(listener),
            Err(reason) => {
                errors.push(BindError { address, protocol: "TCP", key, reason });
                None
            }
        };
        addresses.iter().filter_map(one).collect()
    };
    let mut bound = BoundEncrypted {
        dot: over_tcp(&encrypted.dot, "[server.encrypted] dot"),
        doh: over_tcp(&encrypted.doh, "[server.encrypted] doh"),
        doq: Vec::new(),
    };
    for &address in &encrypted.doq {
        match quic_socket(address) {
            Ok(socket) => bound.doq.push(socket),
            Err(reason) => {
                errors.push(BindError { address, protocol: "UDP", key: "[server.encrypted] doq", reason });
            }
        }
    }
    if errors.is_empty() { Ok(bound) } else { Err(errors) }
}

impl BoundEncrypted {
    /// What is listened on, with the ports that the kernel chose: over TLS, QUIC and HTTPS.
    pub fn addresses(&self) -> [Vec<SocketAddr>; 3] {
        let of_tcp = |list: &[TcpListener]| list.iter().filter_map(|socket| socket.local_addr().ok()).collect();
        [of_tcp(&self.dot), self.doq.iter().filter_map(|socket| socket.local_addr().ok()).collect(), of_tcp(&self.doh)]
    }
}

impl Bound {
    /// What is listened on, with the ports that the kernel chose.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// TCP first: its port cannot be shared, so a second server on the same address is noticed; UDP sockets with `SO_REUSEPORT`
/// would silently take half of its queries.
fn bind_address(
    address: SocketAddr,
    workers: usize,
) -> Result<(SocketAddr, TcpListener, VecDeque<UdpSocket>), BindError> {
    let mut tries_left = if address.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        tries_left -= 1;
        let (tcp, chosen) =
            tcp_listener(address).map_err(|reason| BindError { address, protocol: "TCP", key: LISTEN, reason })?;
        match (0..workers).map(|_| udp_socket(chosen)).collect() {
            Ok(udp) => return Ok((chosen, tcp, udp)),
            Err(reason) if reason.kind() == io::ErrorKind::AddrInUse && tries_left > 0 => {}
            Err(reason) => return Err(BindError { address, protocol: "UDP", key: LISTEN, reason }),
        }
    }
}

/// One socket for all of QUIC, which tells its connections apart by itself. Its port is not shared, so that plain DNS on the
/// same one, or a second server, is noticed.
fn quic_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Less than asked for is no reason not to serve.
    let _ = options::receive_buffer(socket.as_fd(), UDP_RECEIVE_BUFFER);
    let _ = socket.set_send_buffer_size(UDP_SEND_BUFFER);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn udp_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(true)?;
    if address.ip().is_unspecified() {
        options::report_destination(socket.as_fd(), address.is_ipv6())?;
    }
    if let Err(error) = options::ignore_path_mtu(socket.as_fd(), address.is_ipv6()) {
        tracing::warn!("{address}: this kernel does not let UDP ignore path MTU messages: {error}");
    }
    // Less than asked for is no reason not to serve.
    let _ = options::receive_buffer(socket.as_fd(), UDP_RECEIVE_BUFFER);
    let _ = socket.set_send_buffer_size(UDP_SEND_BUFFER);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn tcp_listener(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    // Before `listen`: the window scale of a connection is fixed by then.
    let _ = socket.set_recv_buffer_size(TCP_BUFFER);
    let _ = socket.set_send_buffer_size(TCP_BUFFER);
    socket.bind(&address.into())?;
    socket.listen(TCP_BACKLOG)?;
    let listener = TcpListener::from(socket);
    let chosen = listener.local_addr()?;
    Ok((listener, chosen))
}

fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "permission denied".to_string(),
        io::ErrorKind::AddrInUse => "address in use".to_string(),
        _ if is_address_lacking(error) => "this host does not have that address".to_string(),
        _ => error.to_string(),
    }
}

fn advice(error: &io::Error, address: SocketAddr, key: &str) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need root or CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities; docker: --cap-add; or \
             `setcap cap_net_bind_service=+ep` on the binary)"
                .to_string()
        }
        io::ErrorKind::AddrInUse => {
            let port = address.port();
            format!("stop the program that uses it (`ss -lunpt 'sport = :{port}'` names it) or choose another port")
        }
        _ if is_address_lacking(error) => format!("change {key} to addresses that `ip address` shows"),
        _ => format!("check {key}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(address: &str, is_default: bool) -> Listen {
        Listen { address: address.parse().unwrap(), is_default }
    }

    #[test]
    fn port_0_is_the_same_port_for_udp_and_tcp_and_for_all_workers() {
        let bound = bind(&[listen("127.0.0.1:0", false), listen("[::1]:0", false)], 3).unwrap();
        assert_eq!((bound.udp.len(), bound.tcp.len(), bound.addresses().len()), (3, 2, 2));
        for (n, &address) in bound.addresses().iter().enumerate() {
            assert_ne!(address.port(), 0);
            assert_eq!(bound.tcp[n].local_addr().unwrap(), address);
            for worker in &bound.udp {
                assert_eq!(worker[n].local_addr().unwrap(), address);
            }
        }
    }

    #[test]
    fn no_thread_count_means_one_worker_a_core() {
        let bound = bind(&[listen("127.0.0.1:0", false)], 0).unwrap();
        assert_eq!(bound.udp.len(), thread::available_parallelism().unwrap().get());
    }

    #[test]
    fn a_default_address_that_the_host_lacks_is_left_out() {
        // 240.0.0.0/4 is reserved (RFC 1112 §4): no host has it.
        let bound = bind(&[listen("127.0.0.1:0", true), listen("240.0.0.1:0", true)], 1).unwrap();
        assert_eq!(bound.addresses().len(), 1);
        let errors = bind(&[listen("240.0.0.1:0", true)], 1).unwrap_err();
        assert_eq!(errors.len(), 1, "a server without any address is an error");
    }

    #[test]
    fn every_listed_address_that_fails_is_told() {
        let errors = bind(&[listen("240.0.0.1:5300", false), listen("240.0.0.2:5300", false)], 1).unwrap_err();
        let told: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            ["240.0.0.1", "240.0.0.2"].map(|address| format!(
                "cannot listen on TCP {address}:5300: this host does not have that address; change [server] listen to \
                 addresses that `ip address` shows"
            ))
        );
    }

    #[test]
    fn a_second_server_on_the_same_address_is_an_error() {
        let first = bind(&[listen("127.0.0.1:0", false)], 1).unwrap();
        let address = first.addresses()[0];
        let errors = bind(&[Listen { address, is_default: true }], 1).unwrap_err();
        let told = errors[0].to_string();
        assert!(
            told.starts_with(&format!("cannot listen on TCP {address}: address in use; stop the program")),
            "{told}"
        );
    }

    #[test]
    fn a_udp_port_that_another_program_has_is_an_error() {
        // Some other test may have the port for TCP.
        let is_free = |taken: &UdpSocket| std::net::TcpListener::bind(taken.local_addr().unwrap()).is_ok();
        let taken = std::iter::repeat_with(|| UdpSocket::bind("127.0.0.1:0").unwrap()).find(is_free).unwrap();
        let errors = bind(&[Listen { address: taken.local_addr().unwrap(), is_default: false }], 1).unwrap_err();
        assert_eq!(errors[0].protocol, "UDP");
    }

    #[test]
    fn ports_below_1024_say_what_they_need() {
        let error = BindError {
            address: "127.0.0.1:53".parse().unwrap(),
            protocol: "UDP",
            key: LISTEN,
            reason: io::ErrorKind::PermissionDenied.into(),
        };
        let told = error.to_string();
        assert!(told.contains("permission denied") && told.contains("CAP_NET_BIND_SERVICE"), "{told}");
    }

    #[test]
    fn ipv4_and_ipv6_wildcards_stand_side_by_side() {
        // Another program may hold a port for IPv6 alone; not all of them.
        let mut ports = (0..PORT_TRIES).map(|_| bind(&[listen("0.0.0.0:0", false)], 1).unwrap());
        assert!(ports.any(|first| {
            let port = first.addresses()[0].port();
            bind(&[listen(&format!("[::]:{port}"), false)], 1).is_ok()
        }));
    }
}
