//! A link between two namespaces that delays, reorders and loses packets and is as narrow as told, each way for itself: a TUN device at either end, and a
//! thread between them that holds every packet until it is due. It writes down how long the handshakes of TCP connections take that
//! pass it.
#![allow(dead_code)] // each test program uses its part
#![allow(clippy::disallowed_methods)] // it keeps time

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::fd::{AsFd, AsRawFd},
    os::unix::fs::OpenOptionsExt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::netns::{Namespace, address_ends, wait_readable};

/// What happens to packets that go one way.
#[derive(Debug, Clone, Copy, Default)]
pub struct Way {
    /// Every packet takes so long.
    pub delay: Duration,
    /// And up to so much more, each its own: above the distance between packets, they overtake each other.
    pub jitter: Duration,
    /// So many of a hundred never arrive.
    pub loss_percent: u64,
    /// No more than this goes through; 0: as much as comes. What would wait for more than a second is lost.
    pub bytes_per_second: u64,
}

/// The link; gone when dropped, with its devices.
pub struct Relay {
    ways: Arc<Mutex<[Way; 2]>>,
    handshakes: Arc<Mutex<Vec<Duration>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A packet under way: when it is due, its number (packets due together keep their order), where to, the packet.
type Held = Reverse<(Instant, u64, usize, Vec<u8>)>;

/// How long the thread may wait without looking whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// As long as packets wait at a narrow link before they are lost.
const WAITS_MAX: Duration = Duration::from_secs(1);

impl Relay {
    /// Joins two namespaces with the devices and addresses that [`crate::netns::join`] gives.
    pub fn join(near: &Namespace, far: &Namespace, number: u8, forth: Way, back: Way) -> Relay {
        let devices = [open_tun(near, &format!("r{number}")), open_tun(far, "home")];
        address_ends(near, far, number);
        let ways = Arc::new(Mutex::new([forth, back]));
        let (ended, handshakes) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (for_thread, until) = (ways.clone(), ended.clone());
        let watch = Handshakes { begun: HashMap::new(), done: Arc::clone(&handshakes) };
        let thread = thread::spawn(move || carry(devices, &for_thread, &until, watch, u64::from(number)));
        Relay { ways, handshakes, ended, thread: Some(thread) }
    }

    /// How long handshakes took so far, in their order, as a server at the near end sees them: from its SYN-ACK to the ACK.
    pub fn handshakes(&self) -> Vec<Duration> {
        self.handshakes.lock().unwrap().clone()
    }

    /// Changes what happens from now on: from the near end to the far one, and back.
    pub fn set(&self, forth: Way, back: Way) {
        *self.ways.lock().unwrap() = [forth, back];
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A TUN device of this name in the namespace: what is read from the file was sent into the device.
fn open_tun(namespace: &Namespace, name: &str) -> File {
    namespace.inside(|| {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .expect("/dev/net/tun opens");
        // SAFETY: an all-zero ifreq is a valid one, made of integers and byte arrays.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is, and keeps no pointer to it.
        let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) };
        assert_eq!(made, 0, "TUNSETIFF: {}", std::io::Error::last_os_error());
        file
    })
}

/// Handshakes with servers at the near end, IPv4 only.
struct Handshakes {
    /// By the client's port: when the SYN-ACK left.
    begun: HashMap<u16, Instant>,
    done: Arc<Mutex<Vec<Duration>>>,
}

impl Handshakes {
    /// A packet has left the near end, or is about to reach it.
    fn see(&mut self, packet: &[u8], leaves: bool) {
        const SYN: u8 = 0x02;
        const ACK: u8 = 0x10;
        let Some(&[first, .., 6]) = packet.first_chunk::<10>() else { return }; // TCP
        let Some(header) = packet.get(usize::from(first & 0x0f) * 4..).and_then(|tcp| tcp.first_chunk::<14>()) else {
            return;
        };
        let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        match (leaves, header[13] & (SYN | ACK)) {
            (true, flags) if flags == SYN | ACK => drop(self.begun.insert(port(2), Instant::now())),
            (false, ACK) => {
                let begun = self.begun.remove(&port(0));
                self.done.lock().unwrap().extend(begun.map(|begun| begun.elapsed()));
            }
            _ => {}
        }
    }
}

fn carry(mut devices: [File; 2], ways: &Mutex<[Way; 2]>, ended: &AtomicBool, mut handshakes: Handshakes, seed: u64) {
    let mut dice = Dice(seed);
    let mut held: BinaryHeap<Held> = BinaryHeap::new();
    let mut packet = vec![0; 65_536];
    let mut number = 0;
    // When each way has let through what is waiting.
    let mut clear = [Instant::now(); 2];
    while !ended.load(Ordering::Relaxed) {
        let now = Instant::now();
        while held.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            let Reverse((_, _, to, packet)) = held.pop().expect("it was there a line ago");
            if to == 0 {
                handshakes.see(&packet, false);
            }
            let _ = devices[to].write(&packet); // a device that is down loses it, as a cable would
        }
        let wake = held.peek().map_or(now + LOOK_EVERY, |Reverse((due, ..))| (*due).min(now + LOOK_EVERY));
        let readable = wait_readable(&[devices[0].as_fd(), devices[1].as_fd()], wake);
        for from in (0..2).filter(|&from| readable[from]) {
            while let Ok(len) = devices[from].read(&mut packet) {
                if from == 0 {
                    handshakes.see(&packet[..len], true);
                }
                let way = ways.lock().unwrap()[from];
                if dice.below(100) < way.loss_percent {
                    continue;
                }
                let now = Instant::now();
                let takes =
                    Duration::from_secs(len as u64).checked_div(way.bytes_per_second as u32).unwrap_or_default();
                let passes = clear[from].max(now) + takes;
                if passes > now + WAITS_MAX {
                    continue;
                }
                clear[from] = passes;
                let jitter = Duration::from_nanos(dice.below(way.jitter.as_nanos() as u64 + 1));
                held.push(Reverse((passes + way.delay + jitter, number, 1 - from, packet[..len].to_vec())));
                number += 1;
            }
        }
    }
}

/// Numbers that look random and are the same in every run (SplitMix64, Steele et al. 2014).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(mixed ^ (mixed >> 31)) * u128::from(limit)) >> 64) as u64
    }
}
