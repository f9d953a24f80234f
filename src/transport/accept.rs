//! Accepting on several listeners in turn, and what is done between failures. Knows nothing of what is accepted.

use std::{future::poll_fn, io, net::SocketAddr, task::Poll, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinError,
    time::{Instant, sleep_until},
};

/// First pause after a failed accept; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(5);

/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The next connection on any listener, taking turns, but not before `not_before`.
pub(super) async fn accept(
    listeners: &[TcpListener],
    next: &mut usize,
    not_before: Option<Instant>,
) -> io::Result<(TcpStream, SocketAddr)> {
    if let Some(instant) = not_before {
        sleep_until(instant).await;
    }
    poll_fn(|context| {
        for _ in 0..listeners.len() {
            let listener = &listeners[*next % listeners.len()];
            *next = next.wrapping_add(1);
            if let Poll::Ready(accepted) = listener.poll_accept(context) {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    })
    .await
}

/// A panic in a task would stop there, and the server live on without the connection, its counters and who knows what else.
pub(super) fn pass_on_panic(ended: Result<(), JoinError>) {
    if let Some(panic) = ended.err().and_then(|error| error.try_into_panic().ok()) {
        std::panic::resume_unwind(panic);
    }
}

/// How long not to accept after failures in a row.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) struct Pause {
    /// Not before this.
    pub until: Option<Instant>,
    length: Duration,
}

impl Pause {
    /// After one more failure.
    pub fn lengthen(&mut self, now: Instant) {
        self.length = (self.length * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        self.until = Some(now + self.length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_second() {
        let now = Instant::now();
        let mut pause = Pause::default();
        let lengths: Vec<_> = (0..12)
            .map(|_| {
                pause.lengthen(now);
                assert_eq!(pause.until, Some(now + pause.length));
                pause.length
            })
            .collect();
        assert_eq!((lengths[0], lengths[1], lengths[11]), (PAUSE_MIN, PAUSE_MIN * 2, PAUSE_MAX));
        assert!(lengths.is_sorted());
    }
}
