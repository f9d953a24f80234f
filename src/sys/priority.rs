//! How much of a processor a thread gets where others want it, too. Must never know what the thread does.

use std::{
    marker::PhantomData,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
};

/// Threads that have leisure now.
static AT_LEISURE: AtomicUsize = AtomicUsize::new(0);

/// The calling thread takes what of a processor others leave, for as long as it lives.
pub struct Leisure {
    _for_the_thread_that_has_it: PhantomData<*const ()>,
}

impl Leisure {
    /// Gives the calling thread, and those that it starts, only what others leave of a processor: whoever wakes beside it goes first, at
    /// once. That cannot be undone; what this returns tells others of it ([`is_anyone_at_leisure`]). Where the system does not
    /// allow even that, nothing changes.
    pub fn take() -> Leisure {
        AT_LEISURE.fetch_add(1, Relaxed);
        let no_priority = libc::sched_param { sched_priority: 0 };
        // SAFETY: the call takes numbers and one that it reads; thread 0 is the calling one. By its number, since not every C library
        // has a function for it.
        let _is_only_slower_for_others =
            unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_IDLE, &raw const no_priority) };
        // What it was given as a thread like others it would use up first, some milliseconds.
        thread::yield_now();
        Leisure { _for_the_thread_that_has_it: PhantomData }
    }
}

impl Drop for Leisure {
    fn drop(&mut self) {
        AT_LEISURE.fetch_sub(1, Relaxed);
    }
}

/// Whether a thread has leisure. Where others never rest it gets next to nothing, so they should now and then.
#[inline]
pub fn is_anyone_at_leisure() -> bool {
    AT_LEISURE.load(Relaxed) > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As /proc has it: 0 is the usual one, 5 that of `SCHED_IDLE`.
    fn policy() -> u32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        fields.split(' ').nth(38).unwrap().parse().unwrap()
    }

    #[test]
    fn only_the_calling_thread_and_those_that_it_starts_wait_for_others() {
        let before = policy();
        let lowered = thread::spawn(|| {
            let _leisure = Leisure::take();
            (policy(), thread::spawn(policy).join().unwrap(), is_anyone_at_leisure())
        });
        assert_eq!((lowered.join().unwrap(), policy()), ((5, 5, true), before));
    }
}
