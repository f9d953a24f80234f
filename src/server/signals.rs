//! Signals, from the moment on at which they no longer end the process by themselves.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that mean something to the server.
pub struct Signals {
    /// SIGTERM: end.
    pub terminate: Signal,
    /// SIGINT: end.
    pub interrupt: Signal,
    /// SIGHUP: reload.
    pub hang_up: Signal,
}

impl Signals {
    /// From now on they end the process no more. To be called inside a runtime.
    ///
    /// # Errors
    /// What the system says.
    pub fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

/// Waits until one comes.
pub async fn received(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending::<()>().await; // the runtime is going: never a reason to act
    }
}
