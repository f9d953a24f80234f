//! Memory that the process keeps though nothing is in it. Must never know what was in it.

/// Gives the system back what the allocator keeps for later: after something large was made or freed, that is often more than what is
/// in use. Takes some milliseconds, in which other threads that allocate may wait. Does nothing with an allocator other than glibc's.
pub fn give_back() {
    // SAFETY: takes a number alone, and keeps every block that is in use.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    let _nothing_was_there = unsafe { libc::malloc_trim(0) };
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_in_use_stays() {
        let (kept, freed): (Vec<_>, Vec<_>) =
            (0..2_000_usize).map(|n| vec![n as u8; 4_096]).enumerate().partition(|(n, _)| n % 2 == 0);
        drop(freed);
        super::give_back();
        assert!(kept.iter().all(|(n, block)| block.iter().all(|byte| *byte == *n as u8)));
    }
}
