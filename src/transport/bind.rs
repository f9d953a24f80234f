//! Opens all sockets, before any is served: either everything that the configuration lists is there, or the reasons are told. What
//! somebody else has opened is kept and not opened again: a socket that is closed takes what waits in it along. Must never know what
//! is answered on them.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    num::NonZero,
    os::fd::AsFd,
    thread,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::inherit::{Inheritance, Role, Spare};
use crate::{
    config::model::{Encrypted, Listen},
    sys::{errors::is_address_lacking, options},
};

/// Open sockets, non-blocking, TCP listening already.
#[derive(Debug)]
pub struct Bound {
    /// For each address, in the order of [`Bound::addresses`], its sockets: each has a queue of its own.
    pub udp: Vec<Vec<UdpSocket>>,
    /// For each address one, or several that were inherited.
    pub tcp: Vec<TcpListener>,
    /// UDP threads for each address; with more sockets than that there are as many threads as sockets.
    pub threads: usize,
    /// For whoever takes over.
    pub spares: Vec<Spare>,
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
    /// For whoever takes over.
    pub spares: Vec<Spare>,
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

/// Opens UDP sockets for `threads` workers (0: one a core) and a TCP listener on every address, but for what is inherited. Default
/// addresses that this host does not have are left out with a log line. Port 0 takes a port that is free for both.
///
/// # Errors
/// Every address that cannot be served, each with the reason. Nothing stays open then.
pub fn bind(listen: &[Listen], threads: usize, inherited: &mut Inheritance) -> Result<Bound, Vec<BindError>> {
    let threads = if threads == 0 { thread::available_parallelism().map_or(1, NonZero::get) } else { threads };
    let (udp, tcp, spares, addresses) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut bound = Bound { udp, tcp, threads, spares, addresses };
    let (mut errors, mut skipped) = (Vec::new(), Vec::new());
    for &Listen { address, is_default } in listen {
        match bind_address(address, threads, inherited) {
            Ok((chosen, tcp, udp)) => {
                if let Err(reason) = bound.add(address, chosen, tcp, udp) {
                    errors.push(BindError { address, protocol: "TCP", key: LISTEN, reason });
                }
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

/// Opens the sockets of the encrypted transports, but for what is inherited.
///
/// # Errors
/// As [`bind`].
pub fn bind_encrypted(encrypted: &Encrypted, inherited: &mut Inheritance) -> Result<BoundEncrypted, Vec<BindError>> {
    let (mut bound, mut errors) = (BoundEncrypted::default(), Vec::new());
    for (list, role, key) in [
        (&encrypted.dot, Role::Dot, "[server.encrypted] dot"),
        (&encrypted.doh, Role::Doh, "[server.encrypted] doh"),
        (&encrypted.doq, Role::Doq, "[server.encrypted] doq"),
    ] {
        for &address in list {
            if let Err(reason) = bound.open(role, address, inherited) {
                let protocol = if role == Role::Doq { "UDP" } else { "TCP" };
                errors.push(BindError { address, protocol, key, reason });
            }
        }
    }
    if errors.is_empty() { Ok(bound) } else { Err(errors) }
}

/// Opens a listener for the admin interface, unless one is inherited; with a spare.
///
/// # Errors
/// What the system says.
pub fn bind_admin(address: SocketAddr, inherited: &mut Inheritance) -> io::Result<(TcpListener, Spare)> {
    let listener = match inherited.take(Role::Admin, address).into_iter().next() {
        Some(listener) => TcpListener::from(listener),
        None => TcpListener::bind(address)?,
    };
    listener.set_nonblocking(true)?;
    let spare = Spare::of(Role::Admin, address, &listener)?;
    Ok((listener, spare))
}

impl BoundEncrypted {
    fn open(&mut self, role: Role, address: SocketAddr, inherited: &mut Inheritance) -> io::Result<()> {
        let kept = inherited.take(role, address);
        if role == Role::Doq {
            let sockets = if kept.is_empty() { vec![quic_socket(address)?] } else { kept_quic(kept)? };
            for socket in sockets {
                self.spares.push(Spare::of(role, address, &socket)?);
                self.doq.push(socket);
            }
            return Ok(());
        }
        let listeners = if kept.is_empty() { vec![tcp_listener(address)?] } else { kept_listeners(kept)? };
        for listener in listeners {
            self.spares.push(Spare::of(role, address, &listener)?);
            if role == Role::Dot { &mut self.dot } else { &mut self.doh }.push(listener);
        }
        Ok(())
    }

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

    fn add(
        &mut self,
        wanted: SocketAddr,
        chosen: SocketAddr,
        tcp: Vec<TcpListener>,
        udp: Vec<UdpSocket>,
    ) -> io::Result<()> {
        for listener in &tcp {
            self.spares.push(Spare::of(Role::Tcp, wanted, listener)?);
        }
        for socket in &udp {
            self.spares.push(Spare::of(Role::Udp, wanted, socket)?);
        }
        self.tcp.extend(tcp);
        self.udp.push(udp);
        self.addresses.push(chosen);
        Ok(())
    }
}

/// What is open for one address: where, TCP, UDP.
type Opened = (SocketAddr, Vec<TcpListener>, Vec<UdpSocket>);

fn bind_address(address: SocketAddr, threads: usize, inherited: &mut Inheritance) -> Result<Opened, BindError> {
    let (tcp, udp) = (inherited.take(Role::Tcp, address), inherited.take(Role::Udp, address));
    if tcp.is_empty() && udp.is_empty() {
        return open_address(address, threads);
    }
    let failed = |protocol| move |reason| BindError { address, protocol, key: LISTEN, reason };
    let known = tcp.iter().chain(&udp).find_map(|socket| socket.local_addr().ok()?.as_socket());
    let chosen = known.unwrap_or(address);
    let tcp = match tcp.is_empty() {
        true => tcp_listener(chosen).map(|listener| vec![listener]),
        false => kept_listeners(tcp),
    };
    let udp = match udp.is_empty() {
        true => (0..threads).map(|_| udp_socket(chosen)).collect(),
        false => kept_udp(udp, chosen, threads),
    };
    Ok((chosen, tcp.map_err(failed("TCP"))?, udp.map_err(failed("UDP"))?))
}

/// TCP first: its port cannot be shared, so a second server on the same address is noticed; UDP sockets with `SO_REUSEPORT`
/// would silently take half of its queries.
fn open_address(address: SocketAddr, threads: usize) -> Result<Opened, BindError> {
    let mut tries_left = if address.port() == 0 { PORT_TRIES } else { 1 };
    let failed = |protocol| move |reason| BindError { address, protocol, key: LISTEN, reason };
    loop {
        tries_left -= 1;
        let tcp = tcp_listener(address).map_err(failed("TCP"))?;
        let chosen = tcp.local_addr().map_err(failed("TCP"))?;
        match (0..threads).map(|_| udp_socket(chosen)).collect() {
            Ok(udp) => return Ok((chosen, vec![tcp], udp)),
            Err(reason) if reason.kind() == io::ErrorKind::AddrInUse && tries_left > 0 => {}
            Err(reason) => return Err(failed("UDP")(reason)),
        }
    }
}

/// Every queue is read, however many there are: one that nobody read would swallow its share of the queries.
fn kept_udp(kept: Vec<Socket>, address: SocketAddr, threads: usize) -> io::Result<Vec<UdpSocket>> {
    let queues = kept.len();
    if queues != threads {
        let as_many = queues.max(threads);
        tracing::info!(
            "{address}: {queues} UDP sockets were handed over and `threads` asks for {threads}: {as_many} threads serve them"
        );
    }
    let each = kept.into_iter().map(|socket| set_up_udp(&socket, address).map(|()| UdpSocket::from(socket)));
    each.collect()
}

/// A listener's backlog may be set again while it listens.
fn kept_listeners(kept: Vec<Socket>) -> io::Result<Vec<TcpListener>> {
    let set_up = |socket: Socket| {
        set_up_listener(&socket);
        socket.set_nonblocking(true)?;
        socket.listen(TCP_BACKLOG)?;
        Ok(TcpListener::from(socket))
    };
    kept.into_iter().map(set_up).collect()
}

fn kept_quic(kept: Vec<Socket>) -> io::Result<Vec<UdpSocket>> {
    let set_up = |socket: Socket| {
        set_buffers(&socket);
        socket.set_nonblocking(true)?;
        Ok(UdpSocket::from(socket))
    };
    kept.into_iter().map(set_up).collect()
}

/// One socket for all of QUIC, which tells its connections apart by itself. Its port is not shared, so that plain DNS on the
/// same one, or a second server, is noticed.
fn quic_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    set_buffers(&socket);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn udp_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(true)?;
    set_up_udp(&socket, address)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn set_up_udp(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.ip().is_unspecified() {
        options::report_destination(socket.as_fd(), address.is_ipv6())?;
    }
    if let Err(error) = options::ignore_path_mtu(socket.as_fd(), address.is_ipv6()) {
        tracing::warn!("{address}: this kernel does not let UDP ignore path MTU messages: {error}");
    }
    set_buffers(socket);
    Ok(())
}

/// Less than asked for is no reason not to serve.
fn set_buffers(socket: &Socket) {
    let _ = options::receive_buffer(socket.as_fd(), UDP_RECEIVE_BUFFER);
    let _ = socket.set_send_buffer_size(UDP_SEND_BUFFER);
}

fn tcp_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    set_up_listener(&socket);
    socket.bind(&address.into())?;
    socket.listen(TCP_BACKLOG)?;
    Ok(socket.into())
}

/// Before `listen`: the window scale of a connection is fixed by then.
fn set_up_listener(socket: &Socket) {
    let _ = socket.set_recv_buffer_size(TCP_BUFFER);
    let _ = socket.set_send_buffer_size(TCP_BUFFER);
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

    fn open(listen: &[Listen], threads: usize) -> Result<Bound, Vec<BindError>> {
        bind(listen, threads, &mut Inheritance::default())
    }

    #[test]
    fn port_0_is_the_same_port_for_udp_and_tcp_and_for_all_workers() {
        let bound = open(&[listen("127.0.0.1:0", false), listen("[::1]:0", false)], 3).unwrap();
        assert_eq!((bound.udp.len(), bound.tcp.len(), bound.addresses().len()), (2, 2, 2));
        for (n, &address) in bound.addresses().iter().enumerate() {
            assert_ne!(address.port(), 0);
            assert_eq!(bound.tcp[n].local_addr().unwrap(), address);
            assert_eq!(bound.udp[n].len(), 3);
            assert!(bound.udp[n].iter().all(|socket| socket.local_addr().unwrap() == address));
        }
    }

    #[test]
    fn no_thread_count_means_one_worker_a_core() {
        let bound = open(&[listen("127.0.0.1:0", false)], 0).unwrap();
        assert_eq!(bound.udp[0].len(), thread::available_parallelism().unwrap().get());
    }

    #[test]
    fn a_default_address_that_the_host_lacks_is_left_out() {
        // 240.0.0.0/4 is reserved (RFC 1112 §4): no host has it.
        let bound = open(&[listen("127.0.0.1:0", true), listen("240.0.0.1:0", true)], 1).unwrap();
        assert_eq!(bound.addresses().len(), 1);
        let errors = open(&[listen("240.0.0.1:0", true)], 1).unwrap_err();
        assert_eq!(errors.len(), 1, "a server without any address is an error");
    }

    #[test]
    fn every_listed_address_that_fails_is_told() {
        let errors = open(&[listen("240.0.0.1:5300", false), listen("240.0.0.2:5300", false)], 1).unwrap_err();
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
        let first = open(&[listen("127.0.0.1:0", false)], 1).unwrap();
        let address = first.addresses()[0];
        let errors = open(&[Listen { address, is_default: true }], 1).unwrap_err();
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
        let errors = open(&[Listen { address: taken.local_addr().unwrap(), is_default: false }], 1).unwrap_err();
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
        let mut ports = (0..PORT_TRIES).map(|_| open(&[listen("0.0.0.0:0", false)], 1).unwrap());
        assert!(ports.any(|first| {
            let port = first.addresses()[0].port();
            open(&[listen(&format!("[::]:{port}"), false)], 1).is_ok()
        }));
    }

    #[test]
    fn what_is_inherited_is_kept_with_all_its_queues_and_the_rest_is_opened() {
        let listens = [listen("127.0.0.1:0", false), listen("127.0.0.2:0", false)];
        let first = open(&listens[..1], 3).unwrap();
        for threads in [1, 3, 5] {
            let mut inherited = Inheritance::default();
            for Spare { role, wanted, socket } in &first.spares {
                inherited.add(socket.try_clone().unwrap(), Some((*role, *wanted))).unwrap();
            }
            let next = bind(&listens, threads, &mut inherited).unwrap();
            assert_eq!((next.addresses()[0], next.addresses().len()), (first.addresses()[0], 2));
            assert_eq!((next.udp[0].len(), next.udp[1].len(), next.tcp.len()), (3, threads, 2));
            assert_eq!((next.spares.len(), inherited.left()), (3 + 1 + threads + 1, vec![]));
        }
    }

    #[test]
    fn where_one_protocol_is_given_the_other_is_opened_on_the_same_port() {
        let given = open(&[listen("127.0.0.1:0", false)], 1).unwrap();
        let address = given.addresses()[0];
        let mut inherited = Inheritance::default();
        inherited.add(given.udp[0][0].try_clone().unwrap().into(), None).unwrap();
        drop(given.tcp);
        drop(given.spares);
        let bound = bind(&[Listen { address, is_default: false }], 1, &mut inherited).unwrap();
        assert_eq!((bound.addresses(), bound.tcp[0].local_addr().unwrap()), (&[address][..], address));
    }
}
