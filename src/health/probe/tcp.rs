//! The TCP probe: does a connection open?

use std::{net::SocketAddr, time::Duration};

use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{Phase, ProbeError, ProbeResult};

/// Opens a connection to `address` and closes it again. `timeout` is what a failure at `deadline` reports.
pub async fn probe(address: SocketAddr, timeout: Duration, deadline: Instant) -> ProbeResult {
    let begun = Instant::now();
    let opened = timeout_at(deadline, TcpStream::connect(address)).await;
    let total = begun.elapsed();
    let (outcome, connect) = match opened {
        Ok(Ok(_connection)) => (Ok(()), Some(total)),
        Ok(Err(error)) => (Err(ProbeError::from_io(&error, Phase::Connect)), None),
        Err(_elapsed) => (Err(ProbeError::Timeout { phase: Phase::Connect, after: timeout }), None),
    };
    ProbeResult { outcome, connect, total, ..ProbeResult::default() }
}
