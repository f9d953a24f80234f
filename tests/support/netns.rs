//! Network namespaces of a test, made with `ip netns` and deleted when dropped, also after a panic; the links between them, and
//! what nft does to packets inside. Needs root, and Debian's iproute2 and nftables; fails loudly without them.
#![allow(dead_code)] // each test program uses its part
#![allow(clippy::disallowed_methods)] // it waits and starts threads

use std::{
    fs::{self, File},
    io::Write,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

/// A network namespace, its loopback interface up.
pub struct Namespace {
    name: String,
    file: File,
    wrote_etc: bool,
}

static MADE: AtomicUsize = AtomicUsize::new(0);
/// `ip netns add` makes its folder a mount point first, which two at once get wrong.
static MAKING: Mutex<()> = Mutex::new(());

/// Ends the test program where the tests cannot be made, for want of root or of one of these tools, and removes what a killed run
/// has left behind.
pub fn prepare(tools: &[&str]) {
    let ids = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let is_root = ids.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"));
    assert!(is_root, "these tests make network namespaces: run them as root");
    for tool in tools {
        let found = Command::new(tool).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(found.is_ok(), "these tests need `{tool}`: apt-get install iproute2 nftables");
    }
    assert!(Path::new("/dev/net/tun").exists(), "these tests need /dev/net/tun");
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix("iso").and_then(|rest| rest.split_once('-')?.0.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let inside = Command::new("ip").args(["netns", "pids", &name]).output().map(|output| output.stdout);
            let inside = String::from_utf8(inside.unwrap_or_default()).unwrap_or_default();
            for id in inside.lines() {
                let _ = Command::new("kill").arg(id).status();
            }
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
            let _ = fs::remove_dir_all(etc(&name));
        }
    }
}

fn etc(name: &str) -> PathBuf {
    Path::new("/etc/netns").join(name)
}

/// Runs a tool that must succeed.
fn run(command: &mut Command, input: &str) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?} {input}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Namespace {
    /// A new one, with a name that no other test process uses.
    pub fn new() -> Namespace {
        let name = format!("iso{}-{}", process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        run(Command::new("ip").args(["netns", "add", &name]), "");
        let file = File::open(format!("/run/netns/{name}")).unwrap();
        let namespace = Namespace { name, file, wrote_etc: false };
        namespace.ip("link set lo up");
        namespace
    }

    /// As `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Commands of `ip` without the leading word, one a line.
    pub fn ip(&self, commands: &str) {
        run(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), &format!("{commands}\n"));
    }

    /// Replaces what nft does to packets here. `incoming` and `outgoing` are statements for what does not pass loopback; empty: none.
    pub fn filter(&self, incoming: &str, outgoing: &str) {
        let rules = format!(
            "flush ruleset
             table inet fault {{
               chain incoming {{ type filter hook input priority 0; iifname \"lo\" accept; {incoming}; }}
               chain outgoing {{ type filter hook output priority 0; oifname \"lo\" accept; {outgoing}; }}
             }}"
        );
        run(self.command("nft").args(["-f", "-"]), &rules);
    }

    /// Ends what [`Namespace::filter`] began.
    pub fn pass_all(&self) {
        run(self.command("nft").args(["flush", "ruleset"]), "");
    }

    /// A program that is to run in here, with the files of [`Namespace::write_etc`] over those of `/etc`.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Puts a file over the one of `/etc`, for programs started from then on; a later call changes what they see.
    pub fn write_etc(&mut self, file: &str, text: &str) {
        let path = etc(&self.name).join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        self.wrote_etc = true;
        fs::write(path, text).unwrap(); // in place: what is mounted over /etc is this very file
    }

    /// Moves the calling thread in here: sockets that it opens from now on belong here, and stay here.
    pub fn enter(&self) {
        // SAFETY: the descriptor is open for as long as `self` lives, and setns keeps no pointer.
        let entered = unsafe { libc::setns(self.file.as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(entered, 0, "setns: {}", std::io::Error::last_os_error());
    }

    /// Does something in here, on a thread of its own.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let done = thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                work()
            });
            inside.join()
        });
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).stderr(Stdio::null()).status();
        if self.wrote_etc {
            let _ = fs::remove_dir_all(etc(&self.name));
        }
    }
}

/// Joins two namespaces by a cable: `10.0.N.1` at the near end (device `rN`), `10.0.N.2` at the far one (device `home`).
pub fn join(near: &Namespace, far: &Namespace, number: u8) {
    near.ip(&format!("link add r{number} type veth peer name home netns {}", far.name));
    address_ends(near, far, number);
}

/// Gives both ends their addresses and switches them on.
pub fn address_ends(near: &Namespace, far: &Namespace, number: u8) {
    near.ip(&format!("addr add 10.0.{number}.1/24 dev r{number}\nlink set r{number} up"));
    far.ip(&format!("addr add 10.0.{number}.2/24 dev home\nlink set home up"));
}

/// Waits until one of the descriptors can be read, or until then.
pub fn wait_readable(files: &[BorrowedFd], until: Instant) -> Vec<bool> {
    let mut polled: Vec<libc::pollfd> = files
        .iter()
        .map(|file| {
            let fd: RawFd = file.as_raw_fd();
            libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
        })
        .collect();
    let left = until.saturating_duration_since(Instant::now());
    let left = libc::timespec { tv_sec: left.as_secs() as libc::time_t, tv_nsec: left.subsec_nanos().into() };
    // SAFETY: `polled` is a slice of that many entries, the descriptors are borrowed and so open, `left` outlives the call.
    unsafe { libc::ppoll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, &left, std::ptr::null()) };
    polled.iter().map(|polled| polled.revents != 0).collect()
}
