//! Memory: what the process keeps though nothing is in it, and pages for what is large. Must never know what is in it.

use std::mem::MaybeUninit;

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

/// Below this a buffer is not worth pages of some megabytes each.
const LARGE_BUFFER_BYTES: usize = 16 << 20;

/// Asks for large pages where a buffer is about to be filled, if it is large: a few hundred times fewer faults, and shorter ways to memory
/// that is read in no order. A wish: the system may have none.
pub fn prefer_large_pages(buffer: &mut [MaybeUninit<u8>]) {
    if buffer.len() < LARGE_BUFFER_BYTES {
        return;
    }
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

    #[test]
    fn a_buffer_of_any_size_and_place_may_ask_for_large_pages() {
        let mut bytes: Vec<u8> = (0..1_000_000).map(|n| n as u8).collect();
        for spare in [5_000, super::LARGE_BUFFER_BYTES, super::LARGE_BUFFER_BYTES + 1_001] {
            bytes.reserve(spare);
            super::prefer_large_pages(bytes.spare_capacity_mut());
            assert!(bytes.iter().enumerate().all(|(n, byte)| *byte == n as u8));
        }
        super::prefer_large_pages(&mut []);
    }
}
