//! From open sockets to threads that answer, and back; another process may have had the sockets before, and another may go on with
//! them. Knows nothing of signals and of the control plane's tasks.

use super::{
    ServeError,
    answerer::Answerer,
    identity,
    live::Live,
    sockets::Sockets,
    takeover::{
        Successor, Taken, TakeoverError,
        taker::{self, Predecessor},
    },
};
use crate::transport::{self, BoundEncrypted, Serving, Worker};

/// Answers from now on; relieves the process that had the sockets before.
///
/// # Errors
/// The system gives no threads, or the process before serves on.
pub fn start_serving(
    mut sockets: Sockets,
    live: &Live,
    certificate: Option<&identity::Keeper>,
    taken: Option<Taken>,
) -> Result<Serving, ServeError> {
    let make_worker = || {
        let counters = live.registry.register();
        Worker { respond: Answerer::new(live, counters.clone()), counters }
    };
    if let Some(taken) = &taken {
        taker::take_up(live, taken);
    }
    // Its connections are known to the process before alone: this one reads what comes for it only when that has closed them.
    let quic = BoundEncrypted { doq: std::mem::take(&mut sockets.encrypted.doq), ..BoundEncrypted::default() };
    let mut serving = transport::start(sockets.bound, &live.world().config.server.limits, make_worker)?;
    let encrypted = certificate.map_or(Ok(()), |certificate| {
        serving.start_encrypted(sockets.encrypted, &certificate.current, make_worker).map_err(ServeError::from)
    });
    let is_successor = taken.is_some();
    let relieved = encrypted.and_then(|()| match taken {
        Some(taken) => relieve(live, taken.predecessor).map_err(ServeError::from),
        None => Ok(()),
    });
    if let Err(error) = relieved {
        let _answered_what_it_took = serving.release(|| {});
        return Err(error);
    }
    let quic =
        certificate.map_or(Ok(()), |certificate| serving.start_encrypted(quic, &certificate.current, make_worker));
    match quic {
        // The process before is ending: whatever this one cannot do, it is the only one left.
        Err(error) if is_successor => {
            tracing::error!(%error, "no DNS over QUIC: the system gives no thread for it; start anew when it can");
        }
        started => started?,
    }
    Ok(serving)
}

/// The process before is told that this one serves, and stops.
fn relieve(live: &Live, mut predecessor: Predecessor) -> Result<(), TakeoverError> {
    match predecessor.relieve()? {
        Some(overrides) => live.succeed(overrides),
        None => live.succeed_without_a_word(),
    }
    let process = predecessor.process;
    predecessor.wait_until_stopped();
    tracing::info!(process, "took over; the process before ends when its clients are done");
    Ok(())
}

/// Answers what is in flight, or who is connected while another process takes what is new. Waits.
///
/// # Errors
/// A thread panicked.
pub fn end_serving(serving: Serving, successor: Option<Successor>) -> Result<(), transport::Panicked> {
    match successor {
        None => {
            tracing::info!("stopping: answering what is in flight");
            serving.stop()
        }
        Some(mut successor) => {
            let process = successor.process;
            tracing::info!(process, "a new process serves: answering who is connected to this one, then ending");
            serving.release(|| successor.tell_stopped())
        }
    }
}
