//! Work that the tasks of the control plane have others do: what waits for the disk, what takes long, and what is worth more than one
//! core (signatures by the thousand). Threads live as long as the work, but for those of the runtime.

use std::{
    num::NonZero,
    panic::resume_unwind,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};

use tokio::task::{JoinError, spawn_blocking};

use crate::sys::{
    memory::give_back,
    priority::{Leisure, call_back},
};

/// So long does work at leisure have nothing but what others leave. A reload of ten thousand routes at half load takes half a second.
const LEISURE: Duration = Duration::from_secs(2);

/// Does what may take its time on a thread of its own that gets what others leave of a processor: who wakes beside it goes on within
/// microseconds (docs/performance.md). What takes long all the same, since they leave little, gets the least share beside them. Waits for
/// it; a panic in it comes out here.
pub fn at_leisure<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let (working, is_done) = channel::<()>();
    let lowered = move || {
        let _until_its_end = working;
        let _leisure = Leisure::take();
        work()
    };
    thread::scope(|scope| {
        let worker = scope.spawn(lowered);
        while is_done.recv_timeout(LEISURE) == Err(RecvTimeoutError::Timeout) {
            call_back();
        }
        worker.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Does what waits, for the disk or for a lock, on a thread of the runtime that may. A panic in it comes out here; `None`: the program is
/// ending, and it was not begun.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    match spawn_blocking(work).await.map_err(JoinError::try_into_panic) {
        Ok(done) => Some(done),
        Err(Ok(panic)) => resume_unwind(panic),
        Err(Err(_cancelled)) => None,
    }
}

/// Frees what may be large where that delays nobody, and gives the memory back to the system. To be called inside a runtime.
pub fn free<T: Send + 'static>(done_with: T) {
    let work = || {
        drop(done_with);
        give_back();
    };
    spawn_blocking(|| at_leisure(work));
}

/// Most threads for one piece of work: what it shares with answering queries is the machine.
const THREADS_MAX: usize = 8;
/// Fewer pieces than this each are not worth a thread.
const PIECES_PER_THREAD_MIN: usize = 16;

/// Does `work` for each number below `n`, on several threads where that is worth it, and returns when all of it is done.
pub fn for_each(n: usize, work: &(dyn Fn(usize) + Sync)) {
    let worth = (n / PIECES_PER_THREAD_MIN).min(THREADS_MAX);
    let threads = if worth < 2 { 1 } else { thread::available_parallelism().map_or(1, NonZero::get).min(worth) };
    let next = AtomicUsize::new(0);
    let work_off = || {
        loop {
            let piece = next.fetch_add(1, Ordering::Relaxed);
            if piece >= n {
                break;
            }
            work(piece);
        }
    };
    // A panic in one of them comes out of the scope.
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work_off);
        }
        work_off();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_done_once() {
        for n in [0, 1, 15, 40, 1_000] {
            let done: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
            for_each(n, &|piece| {
                done[piece].fetch_add(1, Ordering::Relaxed);
            });
            assert!(done.iter().all(|times| times.load(Ordering::Relaxed) == 1), "{n}");
        }
    }

    #[tokio::test]
    #[should_panic(expected = "here it comes out")]
    async fn a_panic_of_what_was_done_elsewhere_comes_out_where_it_is_waited_for() {
        assert_eq!(blocking(|| 7).await, Some(7));
        let _: Option<()> = blocking(|| panic!("here it comes out")).await;
    }
}
