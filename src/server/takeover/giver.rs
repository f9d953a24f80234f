//! The side of the process that runs: hands its sockets and its state to the one that asks, and tells when it is to end. Must never stop
//! serving before the other has said that it serves, and has been told that this one ends.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, PoisonError, TryLockError},
    time::{Duration, Instant},
};

use tokio::{
    sync::mpsc,
    task::{JoinSet, spawn_blocking},
};

use super::{
    Doors,
    learnt::Learnt,
    line::{Line, Message, Offer, PROTOCOL},
};
use crate::{
    server::{eyes, heard, live::Live, overrides, state::enveloped, verdicts},
    sys::descriptors::own_user,
    transport::Spare,
};

/// Who asks says so at once.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// The new process has compiled everything before it asks; it publishes, signs what differs, and starts its threads.
const SERVING_WITHIN: Duration = Duration::from_secs(120);

/// At most one log line in so long tells of users who may not ask.
const TELL_OF_STRANGERS_EVERY: Duration = Duration::from_secs(60);

/// What this process has to hand over, and who asked for it.
pub struct Giver {
    doors: Arc<Doors>,
    successors: mpsc::Receiver<Successor>,
    accepting: JoinSet<()>,
}

/// The process that serves now.
pub struct Successor {
    /// Its process id.
    pub process: u32,
    line: Line,
}

struct Shared {
    live: Arc<Live>,
    spares: Vec<Spare>,
    doors: Arc<Doors>,
    /// Held while a process is taking over.
    busy: Mutex<()>,
    told_of_a_stranger: Mutex<Option<Instant>>,
    successors: mpsc::Sender<Successor>,
}

impl Giver {
    /// Waits at the doors from now on. To be called inside a runtime.
    pub fn start(doors: Doors, spares: Vec<Spare>, live: &Arc<Live>) -> Giver {
        let doors = Arc::new(doors);
        let (tell, successors) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            live: live.clone(),
            spares,
            doors: doors.clone(),
            busy: Mutex::default(),
            told_of_a_stranger: Mutex::default(),
            successors: tell,
        });
        let mut accepting = JoinSet::new();
        for door in doors.listeners() {
            let listener = door.try_clone().and_then(|door| {
                door.set_nonblocking(true)?;
                tokio::net::UnixListener::from_std(door)
            });
            match listener {
                Ok(listener) => drop(accepting.spawn(wait_at(listener, shared.clone()))),
                Err(error) => tracing::warn!("this process cannot be taken over: {error}"),
            }
        }
        Giver { doors, successors, accepting }
    }

    /// The process that has taken over; waits for it.
    pub async fn successor(&mut self) -> Successor {
        match self.successors.recv().await {
            Some(successor) => successor,
            None => std::future::pending().await, // nobody can ask
        }
    }

    /// This process ends; `successor`: another one goes on with what it had.
    pub async fn close(self, successor: Option<&Successor>) {
        let Giver { doors, mut accepting, .. } = self;
        accepting.shutdown().await;
        if successor.is_none()
            && let Some(doors) = Arc::into_inner(doors)
        {
            doors.close();
        }
    }
}

impl Successor {
    /// This process does nothing any more but to answer who is connected.
    pub fn tell_stopped(&mut self) {
        let _does_not_wait_for_ever = self.line.say(&Message::Stopped);
    }
}

async fn wait_at(door: tokio::net::UnixListener, shared: Arc<Shared>) {
    loop {
        match door.accept().await.and_then(|(stream, _)| stream.into_std()).and_then(Line::new) {
            Ok(line) => {
                let shared = shared.clone();
                spawn_blocking(move || shared.receive(line));
            }
            Err(error) => {
                tracing::warn!("a process that wanted to take over was not heard: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

impl Shared {
    fn receive(&self, mut line: Line) {
        let Ok(peer) = line.peer() else { return };
        if peer.user != own_user() && peer.user != 0 {
            let (process, user) = (peer.pid, peer.user);
            self.tell_of_a_stranger(process, user);
            return refuse(&mut line, format!("only root and user {} may take over", own_user()));
        }
        let hello = match line.hear(HELLO_WITHIN) {
            Ok(Message::Hello { protocol: PROTOCOL, version }) => version,
            Ok(Message::Hello { version, .. }) => {
                let why = format!("version {} hands over in another way than {version}", env!("CARGO_PKG_VERSION"));
                return refuse(&mut line, format!("{why}; stop it and start the new one without --takeover"));
            }
            Ok(_) | Err(_) => return, // looked whether somebody is here
        };
        match self.busy.try_lock() {
            Ok(_held) => self.hand_over(line, peer.pid, &hello),
            Err(TryLockError::Poisoned(poisoned)) => {
                drop(poisoned);
                self.busy.clear_poison(); // whoever was at it is gone
                refuse(&mut line, "a takeover failed just now; ask again".into());
            }
            Err(TryLockError::WouldBlock) => {
                let process = peer.pid;
                tracing::warn!(process, "asked to take over while another process is at it, and was refused");
                refuse(
                    &mut line,
                    "another process is taking over right now; wait until it is done, or has failed".into(),
                );
            }
        }
    }

    /// Once in a while: without a state directory every user of the host can ask as often as it likes.
    fn tell_of_a_stranger(&self, process: u32, user: u32) {
        let mut told = self.told_of_a_stranger.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() >= TELL_OF_STRANGERS_EVERY) {
            *told = Some(Instant::now());
            tracing::warn!(process, user, "a process of another user asked to take over, and was refused");
        }
    }

    fn hand_over(&self, mut line: Line, process: u32, version: &str) {
        tracing::info!(process, version, "a new process takes over: it is given the sockets, and this one serves on");
        let failed = |why: &dyn std::fmt::Display| {
            tracing::warn!(process, "the new process did not take over, this one serves on: {why}");
        };
        if let Err(error) = self.offer(&mut line) {
            return failed(&error);
        }
        match line.hear(SERVING_WITHIN) {
            Ok(Message::Serving) => {}
            Ok(_) => return refuse(&mut line, "it says what makes no sense here".into()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                let why = format!("it did not serve within {} s", SERVING_WITHIN.as_secs());
                failed(&why);
                return refuse(&mut line, why);
            }
            Err(_) => return failed(&"it is gone; its own log says why"),
        }
        heard::write_last(&self.live); // found on the disk by the other: they are too many to be handed over
        let overrides = self.live.leave();
        if let Err(error) = line.say(&Message::Released(overrides)) {
            self.live.come_back();
            return failed(&error);
        }
        let _is_ending_anyway = self.successors.blocking_send(Successor { process, line });
    }

    fn offer(&self, line: &mut Line) -> io::Result<()> {
        let live = &self.live;
        let config = &live.world().config;
        let mut state = crate::server::state::Handed::from([verdicts::hand_over(live)?]);
        state.extend(live.learning.hand_over()?);
        state.insert(overrides::FILE.into(), enveloped(&live.overrides())?);
        let offer = Offer {
            process: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            sockets: self.spares.iter().map(|spare| (spare.role, spare.wanted)).collect(),
            doors: self.doors.listeners().len(),
            state,
            cookies: live.cookies(),
            learnt: Learnt::new(&eyes::rows(live, config), config),
        };
        line.say(&Message::Offer(Box::new(offer)))?;
        let files: Vec<BorrowedFd<'_>> =
            self.spares.iter().map(|spare| spare.socket.as_fd()).chain(self.doors.files()).collect();
        line.give(&files)
    }
}

fn refuse(line: &mut Line, why: String) {
    let _may_be_gone = line.say(&Message::Refused { why });
}
