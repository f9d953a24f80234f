//! Why a server does not start.

use std::{io, net::SocketAddr};

use super::takeover;
use crate::{
    config::Report,
    transport::{self, BindError},
};

/// Why the server did not start, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration cannot be used; nothing was started.
    #[error("{0}")]
    Config(Report),
    /// An address cannot be listened on; nothing was started.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Bind(Vec<BindError>),
    /// The admin interface's address cannot be listened on.
    #[error(
        "cannot listen on {address} for the admin interface: {reason}; change `listen` in [admin], or end what uses the port"
    )]
    BindAdmin {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        reason: io::Error,
    },
    /// The running server goes on.
    #[error(transparent)]
    Takeover(#[from] takeover::TakeoverError),
    /// What the service manager has opened is no socket that queries can come to.
    #[error(
        "socket {number} of those that the service manager has opened (LISTEN_FDS) cannot be used: {reason}; look at the .socket unit"
    )]
    Given {
        /// Which, from 1 up.
        number: usize,
        /// Why.
        reason: io::Error,
    },
    /// Nobody would answer there.
    #[error(
        "the service manager has opened sockets that no list of the configuration has: {}; add them to `listen` of [server], or to the \
         list where they belong, or take them out of the .socket unit", .0.join(", ")
    )]
    NotListed(Vec<String>),
    /// The system refused threads, timers or signals.
    #[error("cannot start: {0}; check the limits on processes and open files (ulimit -u, ulimit -n)")]
    System(#[from] io::Error),
    /// The process could not give up what it does not need, and so does not serve.
    #[error("{0}")]
    Confine(String),
    /// A data-plane thread panicked.
    #[error(transparent)]
    Panicked(#[from] transport::Panicked),
}
