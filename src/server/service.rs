//! What the service manager is told (sd_notify(3)): that the server answers, reloads, stops, and that it is alive. Without one nothing
//! is told to anybody.
//!
//! Alive means that the loop of the control plane runs, which tells it, and that every thread that answers queries has gone round
//! its own loop lately. The server does not ask itself over the network: a firewall would look like a thread that hangs, and starting
//! anew would mend nothing.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use sd_notify::NotifyState;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::transport::Serving;

/// The manager reads at once; one that does not holds nothing up for longer.
const SEND_WITHIN: Duration = Duration::from_millis(200);

/// Shortest time from one sign of life to the next.
const BEAT_MIN: Duration = Duration::from_millis(100);

/// A thread that answers queries goes round its loop every second or faster. One that has not for so long hangs, or the machine is
/// so overloaded that it might as well.
const HANGS_AFTER: Duration = Duration::from_secs(5);

/// The way to the service manager.
#[derive(Default)]
pub struct Manager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
    beat: Option<Interval>,
    pulse: Pulse,
    status: String,
}

impl Manager {
    /// As the environment says (`NOTIFY_SOCKET`, `WATCHDOG_USEC`). The way is opened here, before the process gives up what it
    /// might need for that.
    pub fn from_environment() -> Manager {
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Manager::default();
        };
        match connect(name.as_bytes()) {
            Ok(socket) => {
                let watchdog = sd_notify::watchdog_enabled().filter(|within| !within.is_zero());
                Manager { socket: Some(socket), watchdog, ..Manager::default() }
            }
            Err(error) => {
                let name = name.to_string_lossy();
                tracing::warn!("the service manager cannot be told anything (NOTIFY_SOCKET is {name}): {error}");
                Manager::default()
            }
        }
    }

    /// The server answers.
    pub fn ready(&mut self, status: &str) {
        self.status = status.to_string();
        self.send(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// A reload begins; [`Manager::ready`] ends it.
    pub fn reloading(&self) {
        // systemd from 253 on wants the time in the same message.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send(&[NotifyState::Reloading, now]),
            Err(_) => self.send(&[NotifyState::Reloading]),
        }
    }

    /// One line for `systemctl status`; told when it has changed.
    pub fn status(&mut self, status: &str) {
        if self.status != status {
            self.status = status.to_string();
            self.send(&[NotifyState::Status(status)]);
        }
    }

    /// The server ends.
    pub fn stopping(&self) {
        self.send(&[NotifyState::Stopping]);
    }

    /// Another process is the server from now on.
    pub fn main_process(&self, pid: u32) {
        self.send(&[NotifyState::MainPid(pid)]);
    }

    /// Returns when it is time to say that the server is alive: twice within the time that the manager waits. Never, if it does not.
    pub async fn is_due(&mut self) {
        let Some(within) = self.watchdog else { return std::future::pending().await };
        let beat = self.beat.get_or_insert_with(|| {
            let mut beat = interval((within / 2).max(BEAT_MIN));
            beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
            beat
        });
        beat.tick().await;
    }

    /// Says that the server is alive, if it is.
    pub fn tell_alive(&mut self, serving: &Serving) {
        match self.pulse.hanging(serving.rounds(), Instant::now()) {
            None => self.send(&[NotifyState::Watchdog]),
            Some(thread) => {
                tracing::error!(thread, "the thread hangs; the service manager is not told that the server is alive");
            }
        }
    }

    /// Never returns: says so again and again while something else takes its time.
    pub async fn goes_on(&mut self, serving: &Serving) {
        loop {
            self.is_due().await;
            self.tell_alive(serving);
        }
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        let Some(socket) = &self.socket else { return };
        let message: String = states.iter().map(|state| format!("{}\n", printable(&state.to_string()))).collect();
        if let Err(error) = socket.send(message.as_bytes()) {
            tracing::debug!(%error, "the service manager was not told {:?}", message.trim_end());
        }
    }
}

/// Each state is a line.
fn printable(state: &str) -> String {
    state.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A path, or behind `@` a name without one.
fn connect(name: &[u8]) -> io::Result<UnixDatagram> {
    let address = match name {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(std::path::Path::new(std::ffi::OsStr::from_bytes(path)))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_WITHIN))?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// Which threads go round their loops.
#[derive(Debug, Default)]
struct Pulse {
    /// By thread: how often it had gone round, and when that was first seen.
    seen: Vec<(u64, Instant)>,
}

impl Pulse {
    /// The name of a thread that has not gone round for too long. `rounds`: each thread with its count, in the same order
    /// every time.
    fn hanging<'t>(&mut self, rounds: impl Iterator<Item = (&'t str, u64)>, now: Instant) -> Option<&'t str> {
        let mut hanging = None;
        for (number, (thread, rounds)) in rounds.enumerate() {
            match self.seen.get_mut(number) {
                None => self.seen.push((rounds, now)),
                Some((seen, _)) if *seen == rounds => {}
                Some(seen) => *seen = (rounds, now),
            }
            if now.duration_since(self.seen[number].1) >= HANGS_AFTER {
                hanging = Some(thread);
            }
        }
        hanging
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 1024];
        let len = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..len].to_vec()).unwrap()
    }

    #[test]
    fn a_socket_is_reached_by_its_path_and_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let abstract_name = format!("isochrone-test-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        let by_name = UnixDatagram::bind_addr(&address).unwrap();
        for (name, socket) in [(path.to_str().unwrap().to_string(), by_path), (format!("@{abstract_name}"), by_name)] {
            let mut manager = Manager { socket: Some(connect(name.as_bytes()).unwrap()), ..Manager::default() };
            manager.ready("2 regions\nX=1");
            assert_eq!(receive(&socket), "READY=1\nSTATUS=2 regions X=1\n");
            manager.status("2 regions\nX=1");
            manager.status("3 regions");
            assert_eq!(receive(&socket), "STATUS=3 regions\n", "only what is new");
            manager.reloading();
            let told = receive(&socket);
            let (state, at) = told.split_once('\n').unwrap();
            let at: u64 = at.trim_end().strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
            assert!(state == "RELOADING=1" && at > 0, "{told}");
            manager.main_process(42);
            assert_eq!(receive(&socket), "MAINPID=42\n");
            manager.stopping();
            assert_eq!(receive(&socket), "STOPPING=1\n");
        }
        assert!(connect(folder.path().join("nobody").as_os_str().as_bytes()).is_err());
    }

    #[test]
    fn a_thread_that_stands_still_is_named_after_five_seconds_until_it_goes_on() {
        let (mut pulse, begun) = (Pulse::default(), Instant::now());
        for (s, udp, tcp, hanging) in [
            (0, 1, 1, None),
            (3, 2, 1, None),
            (4, 3, 1, None),
            (5, 4, 1, Some("tcp")),
            (10, 4, 2, Some("udp-0")),
            (11, 5, 3, None),
        ] {
            let now = begun + Duration::from_secs(s);
            let rounds = [("udp-0", udp), ("tcp", tcp)].into_iter();
            assert_eq!(pulse.hanging(rounds, now), hanging, "after {s} s");
        }
    }
}
