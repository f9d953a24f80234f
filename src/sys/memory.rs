//! Memory that the process keeps though nothing is in it. Must never know what was in it.

/// Gives the system back what the allocator keeps for later: after something large was made or freed, that is often more than what is
/// in use. Takes some milliseconds, in which other threads that allocate may wait. Does nothing with an allocator other than glibc's.
pub fn give_back() {
    // SAFETY: takes a number alone, and keeps every block that is in use.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    let _nothing_was_there = unsafe { libc::malloc_trim(0) };
}

/// Blocks of this size and more are mapped each by itself.
const LARGE_BLOCK_BYTES: i32 = 256 << 10;

/// Has large blocks mapped each by itself, whatever was freed before: they grow without a copy, what of them is not written takes no memory,
/// and the system has them back at once. glibc's allocator begins so and leaves off with the first large block that is freed. Does
/// nothing with another one.
pub fn map_large_blocks() {
    // SAFETY: takes two numbers, and concerns only blocks that are allocated later.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    let _known_to_glibc = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES) };
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
