//! Every socket that somebody outside can come to, opened before anything is served, or kept where somebody else has opened it.

use std::{
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
};

use super::{
    Ready, ServeError, Start,
    takeover::{Taken, taker},
};
use crate::{
    config::model::Config,
    transport::{self, Bound, BoundEncrypted, Inheritance, Spare},
};

/// All of them, non-blocking.
pub struct Sockets {
    /// Plain DNS.
    pub bound: Bound,
    /// DNS over TLS, QUIC and HTTPS.
    pub encrypted: BoundEncrypted,
    /// The admin interface.
    pub admin: Option<TcpListener>,
    /// For whoever takes over.
    pub spares: Vec<Spare>,
}

impl Sockets {
    /// Opens what the configuration lists and is not inherited. What is inherited and not listed stays there.
    ///
    /// # Errors
    /// Every address that cannot be listened on.
    pub fn open(config: &Config, inherited: &mut Inheritance) -> Result<Sockets, ServeError> {
        let server = &config.server;
        let encrypted = match &server.encrypted {
            Some(encrypted) => transport::bind_encrypted(encrypted, inherited),
            None => Ok(BoundEncrypted::default()),
        };
        let (mut bound, mut encrypted) = match (transport::bind(&server.listen, server.threads, inherited), encrypted) {
            (Ok(bound), Ok(encrypted)) => (bound, encrypted),
            (plain, encrypted) => {
                let mut errors = plain.err().unwrap_or_default();
                errors.extend(encrypted.err().unwrap_or_default());
                return Err(ServeError::Bind(errors));
            }
        };
        let mut spares = std::mem::take(&mut bound.spares);
        spares.append(&mut encrypted.spares);
        let admin = match config.admin.listen {
            Some(address) => {
                let (listener, spare) = transport::bind_admin(address, inherited)
                    .map_err(|reason| ServeError::BindAdmin { address, reason })?;
                spares.push(spare);
                Some(listener)
            }
            None => None,
        };
        Ok(Sockets { bound, encrypted, admin, spares })
    }

    /// Where the server can be reached.
    pub fn ready(&self) -> Ready {
        let of = |listener: &TcpListener| -> Option<SocketAddr> { listener.local_addr().ok() };
        Ready {
            listen: self.bound.addresses().to_vec(),
            encrypted: self.encrypted.addresses(),
            admin: self.admin.as_ref().and_then(of),
        }
    }
}

/// Opens everything; takes over what the running server has, or keeps what the service manager has opened.
///
/// # Errors
/// Every address that cannot be listened on; why the running server serves on; sockets of the service manager that nothing would be
/// answered on.
pub fn open_or_take(start: Start, config: &Config) -> Result<(Sockets, Option<Taken>), ServeError> {
    let count = start.given.len();
    let mut given = given(start.given)?;
    if !start.takeover {
        if count > 0 {
            tracing::info!("sockets that the service manager has opened: {count}");
        }
        let sockets = Sockets::open(config, &mut given)?;
        let left = given.left();
        return if left.is_empty() { Ok((sockets, None)) } else { Err(ServeError::NotListed(left)) };
    }
    if !given.left().is_empty() {
        tracing::warn!(
            "with --takeover the sockets are the running server's; those of the service manager are left alone"
        );
    }
    let mut taken = taker::ask(&config.server)?;
    let sockets = Sockets::open(config, &mut taken.inherited)?;
    let left = taken.inherited.left();
    if !left.is_empty() {
        tracing::info!("no longer in the configuration, closed when the process before has ended: {}", left.join(", "));
    }
    taken.inherited = Inheritance::default();
    Ok((sockets, Some(taken)))
}

/// What a service manager has opened for this process.
fn given(sockets: Vec<OwnedFd>) -> Result<Inheritance, ServeError> {
    let mut given = Inheritance::default();
    for (number, socket) in sockets.into_iter().enumerate() {
        given.add(socket, None).map_err(|reason| ServeError::Given { number: number + 1, reason })?;
    }
    Ok(given)
}
