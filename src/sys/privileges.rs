//! Who the process is, and what it may do beyond that: accounts, capabilities, core dumps. Must never know what for.
//!
//! All of it is for a process of one thread: capabilities belong to threads, and those that run already would keep theirs.

use std::{
    ffi::{CStr, CString},
    io, mem, ptr,
};

use libc::{c_char, c_int, c_ulong, gid_t, passwd, uid_t};

/// May read and write every file, whoever's it is (`CAP_DAC_OVERRIDE` of capabilities(7)).
pub const CAP_DAC_OVERRIDE: u32 = 1;

/// A user of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name; a number where it has none.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Main group.
    pub gid: u32,
    /// All groups, the main one among them.
    pub groups: Vec<u32>,
}

/// Room for one entry of the user database, in bytes; doubled until the entry fits.
const ENTRY_BYTES: usize = 1 << 10;
/// No entry is larger.
const ENTRY_BYTES_MAX: usize = 1 << 20;
/// Groups of one user: room at first, and as many as the kernel takes (`NGROUPS_MAX`).
const GROUPS: usize = 64;
const GROUPS_MAX: usize = 65_536;

/// The account of this name, with the groups that the group database gives it; `None`: there is none.
///
/// # Errors
/// When the user database cannot be read.
pub fn account_named(name: &str) -> io::Result<Option<Account>> {
    let Ok(wanted) = CString::new(name) else { return Ok(None) };
    // SAFETY: the name is a C string that outlives the call; the other arguments are those that `entry` promises.
    entry(|entry, buffer, len, found| unsafe { libc::getpwnam_r(wanted.as_ptr(), entry, buffer, len, found) })
}

/// The account with this id; `None`: there is none.
///
/// # Errors
/// As [`account_named`].
pub fn account_of(uid: u32) -> io::Result<Option<Account>> {
    // SAFETY: the arguments are those that `entry` promises.
    entry(|entry, buffer, len, found| unsafe { libc::getpwuid_r(uid, entry, buffer, len, found) })
}

/// Calls `ask` with a place for an entry, a buffer with its length, and a place for the pointer that says whether there is one.
fn entry(ask: impl Fn(*mut passwd, *mut c_char, usize, *mut *mut passwd) -> c_int) -> io::Result<Option<Account>> {
    let mut len = ENTRY_BYTES;
    loop {
        // SAFETY: all-zero bytes are a valid `passwd`: numbers, and pointers that are null.
        let mut entry: passwd = unsafe { mem::zeroed() };
        let mut buffer: Vec<c_char> = vec![0; len];
        let mut found: *mut passwd = ptr::null_mut();
        match ask(&mut entry, buffer.as_mut_ptr(), len, &mut found) {
            libc::ERANGE if len < ENTRY_BYTES_MAX => len *= 2,
            0 if found.is_null() => return Ok(None),
            0 => {
                // SAFETY: the call succeeded, so that the name is a C string within `buffer`, which is still there.
                let name = unsafe { CStr::from_ptr(entry.pw_name) };
                let groups = groups_of(name, entry.pw_gid);
                let name = name.to_string_lossy().into_owned();
                return Ok(Some(Account { name, uid: entry.pw_uid, gid: entry.pw_gid, groups }));
            }
            // What C libraries say where there is no such entry, or no database at all (getpwnam(3)).
            libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => return Ok(None),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// The groups of a user, the main one among them.
fn groups_of(name: &CStr, gid: gid_t) -> Vec<u32> {
    let mut room = GROUPS;
    loop {
        let mut groups: Vec<gid_t> = vec![0; room];
        let mut count = room as c_int;
        // SAFETY: `name` is a C string; `groups` has room for `count` ids, which is what the call is told.
        let fitted = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &mut count) };
        if fitted >= 0 || room >= GROUPS_MAX {
            groups.truncate(usize::try_from(count).unwrap_or(0));
            return groups;
        }
        room *= 4;
    }
}

/// User and group id that the process acts under.
pub fn current() -> (u32, u32) {
    // SAFETY: both calls take nothing and cannot fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

/// Becomes another user, for good: groups, group and user, the real, effective and saved ids alike. Needs to be root, or to hold
/// `CAP_SETUID` and `CAP_SETGID`.
///
/// # Errors
/// What the kernel says; also when the way back turns out to be open.
pub fn become_account(account: &Account) -> io::Result<()> {
    let (uid, gid): (uid_t, gid_t) = (account.uid, account.gid);
    // SAFETY: the list is as long as is said and only read; the other calls take numbers alone.
    unsafe {
        checked(libc::setgroups(account.groups.len() as _, account.groups.as_ptr()))?;
        checked(libc::setresgid(gid, gid, gid))?;
        checked(libc::setresuid(uid, uid, uid))?;
    }
    // SAFETY: the call takes numbers alone.
    if uid != 0 && unsafe { libc::setresuid(0, 0, 0) } == 0 {
        return Err(io::Error::other("the kernel let the process become root again"));
    }
    Ok(())
}

/// Takes every capability but `keep` out of the set that this process, and what it might execute, can ever have again. Where that is
/// not allowed (it takes `CAP_SETPCAP`) nothing changes.
pub fn bound_capabilities(keep: Option<u32>) {
    for capability in 0..u64::BITS {
        // SAFETY: the call takes numbers alone.
        let known = unsafe { libc::prctl(libc::PR_CAPBSET_READ, c_ulong::from(capability), 0, 0, 0) };
        if known < 0 {
            break; // the kernel has no more of them
        }
        if Some(capability) != keep {
            // SAFETY: the call takes numbers alone.
            let _stays_where_it_is_not_ours_to_drop =
                unsafe { libc::prctl(libc::PR_CAPBSET_DROP, c_ulong::from(capability), 0, 0, 0) };
        }
    }
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: two words of each set.
const CAP_VERSION: u32 = 0x2008_0522;

/// The capabilities in effect, one bit each.
///
/// # Errors
/// What the kernel says.
pub fn capabilities() -> io::Result<u64> {
    let [low, high] = capability_words()?;
    Ok(u64::from(high.effective) << 32 | u64::from(low.effective))
}

fn capability_words() -> io::Result<[CapData; 2]> {
    let mut header = CapHeader { version: CAP_VERSION, pid: 0 };
    let mut words = [CapData::default(); 2];
    // SAFETY: header and words have the shape of version 3 (capget(2)) and outlive the call, which writes into both.
    checked(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) } as c_int)?;
    Ok(words)
}

/// Gives up every capability but `keep`, which is kept only if it is there.
///
/// # Errors
/// What the kernel says.
pub fn drop_capabilities(keep: Option<u32>) -> io::Result<()> {
    // SAFETY: the call takes numbers alone. Kernels before 4.3 have no such set.
    let _nothing_to_clear = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    let mut words = capability_words()?;
    for (word, data) in words.iter_mut().enumerate() {
        let kept = keep.filter(|keep| *keep as usize / 32 == word).map_or(0, |keep| 1 << (keep % 32));
        data.permitted &= kept;
        *data = CapData { effective: data.permitted, permitted: data.permitted, inheritable: 0 };
    }
    let mut header = CapHeader { version: CAP_VERSION, pid: 0 };
    // SAFETY: as in `capability_words`; the words are only read.
    checked(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, words.as_ptr()) } as c_int)
}

/// From now on no program that is executed gains anything by its owner or its file capabilities.
///
/// # Errors
/// What the kernel says.
pub fn forbid_new_privileges() -> io::Result<()> {
    // SAFETY: the call takes numbers alone.
    checked(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })
}

/// No core dump is written, not even to a program that collects them, and no other process of the same user may look into this one.
///
/// # Errors
/// What the kernel says.
pub fn forbid_core_dumps() -> io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `none` is a valid rlimit that is only read; the other call takes numbers alone.
    unsafe {
        checked(libc::setrlimit(libc::RLIMIT_CORE, &none))?;
        checked(libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0))
    }
}

fn checked(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_name_and_by_number_with_their_groups() {
        let root = account_named("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert!(root.groups.contains(&0));
        assert_eq!(account_of(0).unwrap(), Some(root));
        for absent in ["no-such-user", "", "with\0zero"] {
            assert_eq!(account_named(absent).unwrap(), None, "{absent:?}");
        }
        assert_eq!(account_of(4_000_000_001).unwrap(), None);
    }

    #[test]
    fn a_thread_that_drops_its_capabilities_has_none_but_what_it_kept() {
        // Capabilities belong to threads: the other tests keep theirs.
        let (before, between, after) = std::thread::spawn(|| {
            let before = capabilities().unwrap();
            drop_capabilities(Some(CAP_DAC_OVERRIDE)).unwrap();
            let between = capabilities().unwrap();
            drop_capabilities(None).unwrap();
            (before, between, capabilities().unwrap())
        })
        .join()
        .unwrap();
        assert_eq!((between, after), (before & 1 << CAP_DAC_OVERRIDE, 0));
    }
}
