//! How much of a processor a thread gets where others want it, too. Must never know what the thread does.

use std::{
    marker::PhantomData,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
};

/// Threads that have only what others leave of a processor.
static AT_LEISURE: AtomicUsize = AtomicUsize::new(0);

/// The calling thread takes what of a processor others leave, for as long as it lives.
pub struct Leisure {
    is_counted: bool,
    _for_the_thread_that_has_it: PhantomData<*const ()>,
}

impl Leisure {
    /// Gives the calling thread, and those that it starts, only what others leave of a processor: whoever wakes beside it goes first, at
    /// once. That cannot be undone; what this returns tells others of it ([`is_anyone_at_leisure`]). Where the system does not allow
    /// it, the thread gets the least share beside others, and where not even that, nothing changes.
    pub fn take() -> Leisure {
        let is_counted = leave_the_rest_to_others();
        if !is_counted {
            take_the_least_share();
        }
        AT_LEISURE.fetch_add(usize::from(is_counted), Relaxed);
        // What it was given as a thread like others it would use up first, some milliseconds.
        thread::yield_now();
        Leisure { is_counted, _for_the_thread_that_has_it: PhantomData }
    }
}

impl Drop for Leisure {
    fn drop(&mut self) {
        AT_LEISURE.fetch_sub(usize::from(self.is_counted), Relaxed);
    }
}

/// Whether a thread has only what others leave. Where others never rest that is next to nothing, so they should now and then.
#[inline]
pub fn is_anyone_at_leisure() -> bool {
    AT_LEISURE.load(Relaxed) > 0
}

/// False where that is refused.
fn leave_the_rest_to_others() -> bool {
    let this_thread: libc::c_long = 0;
    let (policy, priority) = (libc::c_long::from(libc::SCHED_IDLE), 0 as libc::c_int);
    // SAFETY: the call takes numbers and one that it reads. By its number, since not every C library has a function for it.
    unsafe { libc::syscall(libc::SYS_sched_setscheduler, this_thread, policy, &raw const priority) == 0 }
}

fn take_the_least_share() {
    const LOWEST: libc::c_int = 19;
    // SAFETY: the call takes numbers alone; process 0 is the calling thread (Linux keeps a nice value for each thread).
    let _is_only_slower_for_others = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, LOWEST) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nice value and policy as /proc has them: 5 is that of `SCHED_IDLE`.
    fn standing() -> (i32, u32) {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let fields: Vec<_> = fields.split(' ').collect();
        (fields[16].parse().unwrap(), fields[38].parse().unwrap())
    }

    #[test]
    fn only_the_calling_thread_and_those_that_it_starts_wait_for_others() {
        let before = standing();
        let lowered = thread::spawn(|| {
            let leisure = Leisure::take();
            (standing(), thread::spawn(standing).join().unwrap(), leisure.is_counted)
        });
        let (own, started, is_counted) = lowered.join().unwrap();
        assert_eq!(own, if is_counted { (before.0, 5) } else { (19, before.1) });
        assert_eq!((started, standing()), (own, before));
    }

    #[test]
    fn a_thread_that_may_not_leave_everything_takes_the_least_share() {
        let lowered = thread::spawn(|| {
            take_the_least_share();
            standing().0
        });
        assert_eq!(lowered.join().unwrap(), 19);
    }
}
