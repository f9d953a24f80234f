//! Listening sockets that somebody else has opened: the process that ran before this one, or a service manager. They are kept as they
//! are, with everything that waits in them, and matched by address to what the configuration lists. Must never know how they came.

use std::{
    fmt, io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
};

use serde::{Deserialize, Serialize};
use socket2::{Socket, Type};

/// What a listening socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// DNS over UDP.
    Udp,
    /// DNS over TCP.
    Tcp,
    /// DNS over TLS.
    Dot,
    /// DNS over QUIC.
    Doq,
    /// DNS over HTTPS.
    Doh,
    /// The admin interface.
    Admin,
}

/// A second handle on an open socket, for whoever takes over.
#[derive(Debug)]
pub struct Spare {
    /// What the socket is for.
    pub role: Role,
    /// The address as configured; its port may be 0.
    pub wanted: SocketAddr,
    /// The handle.
    pub socket: OwnedFd,
}

/// Open sockets that wait to be matched.
#[derive(Debug, Default)]
pub struct Inheritance {
    list: Vec<Inherited>,
}

#[derive(Debug)]
struct Inherited {
    /// What it was for, and the address as it was configured there; `None`: nobody has said.
    was: Option<(Role, SocketAddr)>,
    address: SocketAddr,
    is_stream: bool,
    socket: Socket,
}

impl Role {
    fn is_stream(self) -> bool {
        !matches!(self, Role::Udp | Role::Doq)
    }
}

impl Spare {
    /// Of this socket.
    ///
    /// # Errors
    /// No more files may be open.
    pub fn of(role: Role, wanted: SocketAddr, socket: impl AsFd) -> io::Result<Spare> {
        Ok(Spare { role, wanted, socket: socket.as_fd().try_clone_to_owned()? })
    }
}

impl Inheritance {
    /// Adds a socket; `was`: what it has been for, and its address as it was configured.
    ///
    /// # Errors
    /// It is no socket that queries can come to, or one that takes IPv4 beside IPv6.
    pub fn add(&mut self, socket: OwnedFd, was: Option<(Role, SocketAddr)>) -> io::Result<()> {
        let socket = Socket::from(socket);
        let is_stream = match socket.r#type()? {
            Type::STREAM if socket.is_listener()? => true,
            Type::STREAM => return Err(io::Error::other("it is a connection, not a listening socket")),
            Type::DGRAM => false,
            _ => return Err(io::Error::other("it is neither a TCP nor a UDP socket")),
        };
        let address = socket.local_addr()?.as_socket();
        let address = address.ok_or_else(|| io::Error::other("it is bound to no address and port"))?;
        if address.is_ipv6() && address.ip().is_unspecified() && !socket.only_v6()? {
            let told = format!("{address} takes IPv4 as well; a systemd .socket unit needs BindIPv6Only=ipv6-only");
            return Err(io::Error::other(told));
        }
        self.list.push(Inherited { was, address, is_stream, socket });
        Ok(())
    }

    /// Takes out all sockets for an address as it is configured. Port 0 is whatever it was for the one who had the same in its
    /// configuration.
    pub fn take(&mut self, role: Role, wanted: SocketAddr) -> Vec<Socket> {
        let is_fit = |socket: &Inherited| {
            socket.is_stream == role.is_stream()
                && match socket.was {
                    Some((its_role, its_wanted)) => {
                        its_role == role && (its_wanted == wanted || socket.address == wanted)
                    }
                    None => socket.address == wanted,
                }
        };
        let Some(address) = self.list.iter().find(|socket| is_fit(socket)).map(|socket| socket.address) else {
            return Vec::new();
        };
        let of_address = |socket: &mut Inherited| is_fit(socket) && socket.address == address;
        self.list.extract_if(.., of_address).map(|inherited| inherited.socket).collect()
    }

    /// Those that nothing was taken out for, each address once: `UDP 192.0.2.1:53`.
    pub fn left(&self) -> Vec<String> {
        let mut all: Vec<String> = self.list.iter().map(ToString::to_string).collect();
        all.dedup();
        all
    }
}

impl fmt::Display for Inherited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if self.is_stream { "TCP" } else { "UDP" }, self.address)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    const ANY: &str = "127.0.0.1:0";

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn sockets_are_found_by_address_and_kind_and_by_port_0_only_where_it_was_port_0() {
        let (udp, tcp) = (UdpSocket::bind(ANY).unwrap(), TcpListener::bind(ANY).unwrap());
        let (at_udp, at_tcp) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
        for (was, wanted, found) in [
            (None, at_udp, true),
            (None, address(ANY), false),
            (Some((Role::Udp, address(ANY))), address(ANY), true),
            (Some((Role::Udp, address(ANY))), at_udp, true),
            (Some((Role::Udp, at_udp)), address(ANY), false),
            (Some((Role::Doq, at_udp)), at_udp, false),
        ] {
            let mut inherited = Inheritance::default();
            inherited.add(udp.try_clone().unwrap().into(), was).unwrap();
            inherited.add(tcp.try_clone().unwrap().into(), None).unwrap();
            assert_eq!(inherited.take(Role::Udp, wanted).len(), usize::from(found), "{was:?} {wanted}");
            assert_eq!(inherited.take(Role::Udp, at_tcp).len(), 0);
            assert_eq!(inherited.take(Role::Dot, at_tcp).len(), 1);
            let left = if found { vec![] } else { vec![format!("UDP {at_udp}")] };
            assert_eq!(inherited.left(), left);
        }
    }

    #[test]
    fn all_queues_of_an_address_are_taken_at_once_and_those_of_another_are_not() {
        let mut inherited = Inheritance::default();
        let sockets = [UdpSocket::bind(ANY).unwrap(), UdpSocket::bind(ANY).unwrap()];
        for socket in [&sockets[0], &sockets[1], &sockets[0]] {
            inherited.add(socket.try_clone().unwrap().into(), Some((Role::Udp, address(ANY)))).unwrap();
        }
        for (socket, queues) in sockets.iter().zip([2, 1]) {
            let taken = inherited.take(Role::Udp, address(ANY));
            let at = |socket: &Socket| socket.local_addr().unwrap().as_socket().unwrap();
            assert!(taken.len() == queues && taken.iter().all(|taken| at(taken) == socket.local_addr().unwrap()));
        }
    }

    #[test]
    fn what_no_query_can_come_to_is_refused() {
        let listener = TcpListener::bind(ANY).unwrap();
        let connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (unix, _) = std::os::unix::net::UnixStream::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        for socket in [OwnedFd::from(connection), unix.into(), file.into()] {
            assert!(Inheritance::default().add(socket, None).is_err());
        }
    }
}
