//! What the kernel refuses the process from now on: files outside of a few folders (landlock), and system calls that a server has no
//! use for (seccomp). Must never know what the folders hold.
//!
//! Both hold for the calling thread and for those that it starts, for good: they belong before the first thread.
//!
//! The system calls are a list of what is refused, not of what is allowed. A list of everything that the program, its libraries and
//! the C library may ever call is wrong the day one of them is updated, and then the server fails in the night, on a path that no test
//! took. What an intruder needs beyond what a server does (programs, other processes, namespaces, modules, the large and often
//! broken corners of the kernel) changes slowly, and each of it is refused with an error, not with the end of the process.

use std::{
    collections::BTreeMap,
    env::consts::ARCH,
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope, path_beneath_rules,
};
use libc::c_int;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Is, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

/// Files and folders that stay within reach; a folder stands for all below it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Grants {
    /// To be read.
    pub read: Vec<PathBuf>,
    /// To be read, written, made and removed.
    pub write: Vec<PathBuf>,
}

/// How far the kernel could restrict files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilesRestricted {
    /// The version of landlock in use.
    pub abi: u32,
    /// False: an older kernel, which does not know all that was asked of it.
    pub is_whole: bool,
}

/// The newest version of landlock whose file rights are asked for: what later ones add is not refused.
const FILE_RIGHTS: ABI = ABI::V5;
/// The same for what reaches other processes: their abstract sockets, and signals to them.
const SCOPES: ABI = ABI::V6;

/// What was granted, once it has been: real paths.
static GRANTED: OnceLock<Vec<PathBuf>> = OnceLock::new();

/// From now on only `grants` are within reach; no program can be executed, and no TCP port be bound. Paths that are not there are
/// left out. `None`: this kernel has no landlock, and nothing has changed.
///
/// # Errors
/// What the kernel says.
pub fn restrict_files(grants: &Grants) -> Result<Option<FilesRestricted>, RulesetError> {
    let all = AccessFs::from_all(FILE_RIGHTS);
    let reading: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let writing = all & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
    let status = Ruleset::default()
        .handle_access(all)?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(SCOPES))?
        .create()?
        .add_rules(path_beneath_rules(&grants.read, reading))?
        .add_rules(path_beneath_rules(&grants.write, writing))?
        .restrict_self()?;
    let LandlockStatus::Available { effective_abi, .. } = status.landlock else { return Ok(None) };
    if status.ruleset == RulesetStatus::NotEnforced {
        return Ok(None);
    }
    let real = grants.read.iter().chain(&grants.write).filter_map(|path| fs::canonicalize(path).ok());
    let _set_before_by_nobody = GRANTED.set(real.collect());
    Ok(Some(FilesRestricted { abi: effective_abi as u32, is_whole: status.ruleset == RulesetStatus::FullyEnforced }))
}

/// True when the process has put this path out of its own reach.
pub fn is_out_of_reach(path: &Path) -> bool {
    GRANTED.get().is_some_and(|granted| !is_within(granted, &real(path)))
}

fn is_within(granted: &[PathBuf], path: &Path) -> bool {
    granted.iter().any(|folder| path.starts_with(folder))
}

/// The path without links, as far as it exists.
fn real(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let found = whole.ancestors().find_map(|part| Some((part, fs::canonicalize(part).ok()?)));
    match found {
        Some((part, real)) => real.join(whole.strip_prefix(part).unwrap_or(Path::new(""))),
        None => whole,
    }
}

/// From now on what a server has no use for is refused: see `refused`.
///
/// # Errors
/// In words, when this kernel or this processor has no such filter; then nothing has changed.
pub fn restrict_calls() -> Result<(), String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let arch = TargetArch::try_from(ARCH).map_err(|error| told(&error))?;
    // Its flags are in memory, where no filter can see them. C libraries take `clone` instead where it is not implemented.
    let unseen = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    for (rules, errno) in [(unseen, libc::ENOSYS), (refused().map_err(|error| told(&error))?, libc::EPERM)] {
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno.unsigned_abs()), arch);
        let program: BpfProgram =
            filter.and_then(TryInto::try_into).map_err(|error: seccompiler::BackendError| told(&error))?;
        apply_filter(&program).map_err(|error| told(&error))?;
    }
    Ok(())
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Calls that are refused whatever their arguments.
const ALWAYS: &[i64] = &[
    // Other programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    // Namespaces and mounts.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_mknodat,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    // The kernel itself, and its corners where most holes are found.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_personality,
    // The clock, the host, the terminal.
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    // Being somebody else.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
];

/// The same, of one processor.
#[cfg(target_arch = "x86_64")]
const ALWAYS_HERE: &[i64] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_mknod,
    libc::SYS_kexec_file_load,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_nfsservctl,
    libc::SYS__sysctl,
    // As the x32 ABI numbers what it does in its own way: execve, ptrace, kexec_load, process_vm_readv and _writev, execveat.
    X32 | 520,
    X32 | 521,
    X32 | 528,
    X32 | 539,
    X32 | 540,
    X32 | 545,
    X32 | libc::SYS_clone,
    X32 | libc::SYS_clone3,
    X32 | libc::SYS_fork,
    X32 | libc::SYS_vfork,
];
#[cfg(not(target_arch = "x86_64"))]
const ALWAYS_HERE: &[i64] = &[];

/// The mark of calls by the x32 ABI, which passes for the same architecture and could go round the list.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;

/// What is refused, some of it only with some arguments.
fn refused() -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = ALWAYS.iter().chain(ALWAYS_HERE).map(|&call| (call, Vec::new())).collect();
    #[cfg(target_arch = "x86_64")]
    rules.extend(ALWAYS.iter().map(|&call| (X32 | call, Vec::new())));
    let rule = |conditions: &[(u8, Is, c_int)]| {
        let conditions = conditions.iter().map(|(argument, is, value)| {
            SeccompCondition::new(*argument, Width::Dword, is.clone(), u64::from(value.cast_unsigned()))
        });
        SeccompRule::new(conditions.collect::<Result<_, _>>()?)
    };
    let masked = |mask: c_int| Is::MaskedEq(u64::from(mask.cast_unsigned()));
    let (write_exec, exec) = (libc::PROT_WRITE | libc::PROT_EXEC, libc::PROT_EXEC);
    rules.extend([
        // A process: what is no thread.
        (libc::SYS_clone, vec![rule(&[(0, masked(libc::CLONE_THREAD), 0)])?]),
        // Memory that was written and is executed.
        (libc::SYS_mmap, vec![rule(&[(2, masked(write_exec), write_exec)])?]),
        (libc::SYS_mprotect, vec![rule(&[(2, masked(exec), exec)])?]),
        (libc::SYS_pkey_mprotect, vec![rule(&[(2, masked(exec), exec)])?]),
        // Sockets of other families: packets past the network stack, the kernel's cryptography, virtual machines, old protocols.
        (
            libc::SYS_socket,
            vec![rule(
                &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK].map(|family| (0, Is::Ne, family)),
            )?],
        ),
        // Typing into the terminal that started the server.
        (libc::SYS_ioctl, vec![rule(&[(1, Is::Eq, TIOCSTI)])?, rule(&[(1, Is::Eq, TIOCLINUX)])?]),
    ]);
    Ok(rules)
}

/// `libc` has them as `unsigned long`.
const TIOCSTI: c_int = 0x5412;
const TIOCLINUX: c_int = 0x541C;

#[cfg(test)]
mod tests {
    use std::{
        env, io,
        net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket},
        os::unix::process::CommandExt,
        process::Command,
        thread,
    };

    use super::*;

    const APART: &str = "ISOCHRONE_TEST_APART";

    /// Runs a test of this module in a process of its own: what it gives up, the others keep.
    fn apart(test: &str, body: impl FnOnce()) {
        if env::var_os(APART).is_some() {
            return body();
        }
        let name = format!("sys::sandbox::tests::{test}");
        let folder = tempfile::tempdir().unwrap(); // its own folders, which it cannot always remove itself
        let mut command = Command::new(env::current_exe().unwrap());
        command.args([&*name, "--exact", "--nocapture"]).env(APART, "1").env("TMPDIR", folder.path());
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && told.contains("1 passed"),
            "{told}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    #[test]
    fn what_a_server_has_no_use_for_is_refused_and_the_rest_goes_on() {
        apart("what_a_server_has_no_use_for_is_refused_and_the_rest_goes_on", || {
            restrict_calls().unwrap();
            let refused = |error: io::Error| assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
            // One that got through would end the test, and with it the word that it passed.
            refused(Command::new("/bin/true").exec());
            refused(Command::new("/bin/true").spawn().map(drop).unwrap_err());
            let call = |number: i64, arguments: [i64; 3]| {
                let [a, b, c] = arguments;
                // SAFETY: each of them is refused before the kernel looks at its arguments, and none of these writes to memory.
                match unsafe { libc::syscall(number, a, b, c) } {
                    -1 => io::Error::last_os_error(),
                    other => panic!("call {number} got through: {other}"),
                }
            };
            let (newuser, any) = (i64::from(libc::CLONE_NEWUSER), 0);
            for (number, arguments) in [
                (libc::SYS_unshare, [newuser, any, any]),
                (libc::SYS_clone, [newuser | i64::from(libc::SIGCHLD), any, any]),
                (libc::SYS_bpf, [any; 3]),
                (libc::SYS_io_uring_setup, [1, any, any]),
                (libc::SYS_ptrace, [any; 3]),
                (libc::SYS_setresuid, [any; 3]),
                (libc::SYS_socket, [i64::from(libc::AF_PACKET), i64::from(libc::SOCK_RAW), any]),
                (libc::SYS_socket, [i64::from(libc::AF_ALG), i64::from(libc::SOCK_SEQPACKET), any]),
                (libc::SYS_ioctl, [any, i64::from(TIOCSTI), any]),
                (libc::SYS_mprotect, [any, any, i64::from(libc::PROT_READ | libc::PROT_EXEC)]),
            ] {
                refused(call(number, arguments));
            }
            assert_eq!(call(libc::SYS_clone3, [any; 3]).raw_os_error(), Some(libc::ENOSYS), "C libraries fall back");
            assert_eq!(thread::spawn(|| 7).join().unwrap(), 7);
            assert!(("localhost", 0).to_socket_addrs().unwrap().next().is_some());
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            UdpSocket::bind("127.0.0.1:0").unwrap();
            tempfile::tempfile().unwrap();
        });
    }

    #[test]
    fn only_what_was_granted_is_within_reach() {
        apart("only_what_was_granted_is_within_reach", || {
            let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let (read, state) = (inside.path().join("read"), inside.path().join("state"));
            for folder in [&read, &state] {
                fs::create_dir(folder).unwrap();
            }
            let files = [read.join("x"), outside.path().join("x")];
            files.iter().for_each(|file| fs::write(file, "x").unwrap());
            let absent = PathBuf::from("/no/such/folder");
            let grants = Grants { read: vec![read.clone(), absent], write: vec![state.clone()] };
            assert!(!is_out_of_reach(&files[1]), "nothing was given up yet");
            let Some(restricted) = restrict_files(&grants).unwrap() else {
                return eprintln!("this kernel has no landlock: not tried");
            };
            assert!(restricted.abi >= 1);
            let denied = |error: io::Error| assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
            assert_eq!(fs::read_to_string(&files[0]).unwrap(), "x");
            assert!(!is_out_of_reach(&files[0]) && !is_out_of_reach(&read.join("not/made/yet")));
            denied(fs::write(&files[0], "y").unwrap_err());
            denied(fs::read(&files[1]).unwrap_err());
            assert!(is_out_of_reach(&files[1]) && is_out_of_reach(Path::new("/root/x")));
            // Replaced as programs replace files.
            fs::write(state.join("new"), "1").unwrap();
            fs::rename(state.join("new"), state.join("kept")).unwrap();
            fs::remove_file(state.join("kept")).unwrap();
            tempfile::tempfile_in(&state).unwrap();
            denied(Command::new("/bin/true").exec());
            if restricted.is_whole {
                denied(TcpListener::bind("127.0.0.1:0").map(drop).unwrap_err());
            }
            thread::scope(|scope| scope.spawn(|| denied(fs::read(&files[1]).unwrap_err())).join().unwrap());
        });
    }
}
