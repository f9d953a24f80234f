//! How much of a processor a thread gets where others want it, too. Must never know what the thread does.

/// Gives the calling thread, and those that it starts, the least share of a processor that others want, too; that cannot be undone. Where
/// the system does not allow even that, nothing changes.
pub fn lower_this_thread() {
    const LOWEST: libc::c_int = 19;
    // SAFETY: the call takes numbers alone; process 0 is the calling thread (Linux keeps a nice value for each thread).
    let _is_only_slower_for_others = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, LOWEST) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nice() -> i64 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        fields.split(' ').nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn only_the_calling_thread_and_those_that_it_starts_wait_for_others() {
        let before = nice();
        let lowered = std::thread::spawn(|| {
            lower_this_thread();
            (nice(), std::thread::spawn(nice).join().unwrap())
        });
        assert_eq!((lowered.join().unwrap(), nice()), ((19, 19), before));
    }
}
