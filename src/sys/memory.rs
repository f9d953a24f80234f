//! Memory: what the process keeps though nothing is in it, and pages for what is large. Must never know what is in it.

use std::mem::MaybeUninit;

/// Gives the system back what the allocator keeps for later: after something large was made or freed, that is often more than what is
/// in use. Takes some milliseconds, in which other threads that allocate may wait. Does nothing with an allocator other than glibc's.
pub fn give_back() {
    // SAFETY: takes a number alone, and keeps every block that is in use.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    let _nothing_was_there = unsafe { libc::malloc_trim(0) };
}

/// Asks for large pages where a buffer of many megabytes is about to be filled: a few hundred times fewer faults, and shorter ways to
/// memory that is read in no order. A wish: the system may have none.
pub fn prefer_large_pages(buffer: &mut [MaybeUninit<u8>]) {
    // SAFETY: asks for no memory and changes the content of none; a range that is not its own the system refuses.
    #[cfg(target_os = "linux")]
    let _a_wish = unsafe {
        let page = libc::sysconf(libc::_SC_PAGESIZE).max(1) as usize;
        let start = (buffer.as_mut_ptr() as usize).next_multiple_of(page);
        let end = buffer.as_mut_ptr_range().end as usize / page * page;
        libc::madvise(start as *mut libc::c_void, end.saturating_sub(start), libc::MADV_HUGEPAGE)
    };
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
