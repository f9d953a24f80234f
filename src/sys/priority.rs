//! How much of a processor a thread gets where others want it, too. Must never know what the thread does.

use std::{
    fs,
    marker::PhantomData,
    mem,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use libc::{c_int, c_long};

/// Threads that have leisure now.
static AT_LEISURE: AtomicUsize = AtomicUsize::new(0);

/// Of `RLIMIT_NICE`: the least with which a thread may leave `SCHED_IDLE` again, for the least share of the usual policy.
const NICE_LIMIT: libc::rlim_t = 1;

/// The calling thread lets others go first, for as long as it lives.
pub struct Leisure {
    _for_the_thread_that_has_it: PhantomData<*const ()>,
}

impl Leisure {
    /// Gives the calling thread, and those that it starts, only what others leave of a processor: whoever wakes beside it goes first, at
    /// once. It cannot undo that itself; others may call it back to the least share beside them ([`call_back`]). Where nobody
    /// could, the least share is what it gets, and where not even that is allowed, nothing changes.
    pub fn take() -> Leisure {
        AT_LEISURE.fetch_add(1, Relaxed);
        take_the_least_share();
        if may_be_called_back() {
            set_policy(0, libc::SCHED_IDLE);
        }
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

/// Lets threads that have leisure be called back. To be called before privileges are given up; without any it depends on the limits that
/// the process was started with (`RLIMIT_NICE`).
pub fn allow_calling_back() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit that outlives both calls, which only read or write it.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NICE, &mut limit) == 0 && limit.rlim_cur < NICE_LIMIT {
            let enough = libc::rlimit { rlim_cur: NICE_LIMIT, rlim_max: limit.rlim_max.max(NICE_LIMIT) };
            let _stays_as_it_is_otherwise = libc::setrlimit(libc::RLIMIT_NICE, &enough);
        }
    }
}

/// Gives all threads of this process that have only what others leave the least share beside others instead: for when others leave nothing.
pub fn call_back() {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return };
    let ids = threads.filter_map(|thread| thread.ok()?.file_name().to_str()?.parse().ok());
    ids.filter(|id| policy(*id) == c_long::from(libc::SCHED_IDLE)).for_each(|id| set_policy(id, libc::SCHED_OTHER));
}

/// Whether a thread of this process may be: tried once, on a thread that does nothing else.
fn may_be_called_back() -> bool {
    static MAY: OnceLock<bool> = OnceLock::new();
    let there_and_back = || {
        set_policy(0, libc::SCHED_IDLE);
        set_policy(0, libc::SCHED_OTHER);
        policy(0) == c_long::from(libc::SCHED_OTHER)
    };
    *MAY.get_or_init(|| thread::spawn(there_and_back).join().unwrap_or(false))
}

fn take_the_least_share() {
    const LOWEST: c_int = 19;
    let share = libc::sched_attr {
        size: mem::size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: LOWEST,
        sched_priority: 0,
        // Whoever wakes beside a thread with a longer slice, which this is the longest of, goes on before that has ended (Linux 6.12).
        sched_runtime: 100_000_000,
        sched_deadline: 0,
        sched_period: 0,
    };
    let (this_thread, no_flags): (c_long, c_long) = (0, 0);
    // SAFETY: the call takes numbers and a structure of the size that it tells, which it only reads.
    if unsafe { libc::syscall(libc::SYS_sched_setattr, this_thread, &raw const share, no_flags) } != 0 {
        // SAFETY: the call takes numbers alone; process 0 is the calling thread (Linux keeps a nice value for each thread).
        let _is_only_slower_for_others = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, LOWEST) };
    }
}

/// Of a thread; 0 is the calling one.
fn policy(id: c_long) -> c_long {
    // SAFETY: the call takes a number alone. By its number, since not every C library has a function for it.
    unsafe { libc::syscall(libc::SYS_sched_getscheduler, id) }
}

fn set_policy(id: c_long, policy: c_int) {
    let priority: c_int = 0;
    // SAFETY: the call takes numbers and one that it reads. By its number, as above.
    let _stays_as_it_is_otherwise =
        unsafe { libc::syscall(libc::SYS_sched_setscheduler, id, c_long::from(policy), &raw const priority) };
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    /// Nice value and policy as /proc has them: 5 is that of `SCHED_IDLE`.
    fn standing() -> (i32, u32) {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let fields: Vec<_> = fields.split(' ').collect();
        (fields[16].parse().unwrap(), fields[38].parse().unwrap())
    }

    /// How a thread stands that has leisure, how one that it starts, and how it stands after it was called back.
    fn taken_and_called_back() -> [(i32, u32); 3] {
        let (told, called) = (Barrier::new(2), Barrier::new(2));
        thread::scope(|scope| {
            let lowered = scope.spawn(|| {
                let _leisure = Leisure::take();
                assert!(is_anyone_at_leisure());
                let (own, started) = (standing(), thread::spawn(standing).join().unwrap());
                told.wait();
                called.wait();
                [own, started, standing()]
            });
            told.wait();
            call_back();
            called.wait();
            lowered.join().unwrap()
        })
    }

    #[test]
    fn only_the_calling_thread_and_those_that_it_starts_wait_for_others_until_they_are_called_back() {
        allow_calling_back();
        let idle = if may_be_called_back() { 5 } else { 0 };
        let before = standing();
        // Others in this process may call all of them back at any moment: once nobody does.
        let is_as_it_should_be = |_| {
            let seen = taken_and_called_back();
            assert!(seen.iter().all(|(nice, _)| *nice == 19) && seen[2].1 == 0, "{seen:?}");
            seen == [(19, idle), (19, idle), (19, 0)]
        };
        assert!((0..100).any(is_as_it_should_be));
        assert_eq!(standing(), before);
    }
}
