//! The side of the new process: finds the one that runs, takes its sockets and its state, and relieves it. Until that has agreed to end,
//! every failure here leaves it serving.

use std::{
    io,
    os::unix::net::UnixListener,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{
    doors::{Place, places_to_look},
    learnt::Learnt,
    line::{Cookies, Line, Message, Offer, PROTOCOL},
};
use crate::{
    config::model::Server,
    server::{live::Live, overrides::Overrides, state::Handed},
    sys::descriptors::own_user,
    transport::Inheritance,
};

/// The old process has its state at hand, but may have much of it, and little time.
const OFFER_WITHIN: Duration = Duration::from_secs(60);
/// So often a line in the log tells that the old process does not answer.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// What the old process has to do before it says that it has stopped: end its part in the cluster, and its QUIC connections.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);

/// What was taken over.
pub struct Taken {
    /// The sockets that queries come to.
    pub inherited: Inheritance,
    /// The sockets at which the next takeover is asked for.
    pub doors: Vec<UnixListener>,
    /// State files.
    pub state: Handed,
    /// Secrets of the server cookies.
    pub cookies: Cookies,
    /// What the old process' maps were made of besides the files.
    pub learnt: Learnt,
    /// The process that had all this, and serves on.
    pub predecessor: Predecessor,
}

/// The process that is taken over.
pub struct Predecessor {
    /// Its process id.
    pub process: u32,
    line: Line,
}

/// Why nothing was taken over: whoever serves goes on.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// There is nothing to look by.
    #[error(
        "--takeover finds the running server by `state-dir` of [server], or by the addresses in `listen`, and there is neither: set \
         `state-dir`"
    )]
    NoPlace,
    /// Nobody is there.
    #[error(
        "--takeover found no running server at {}; start without --takeover, or check that `state-dir` and `listen` of [server] are \
         those of the running one", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    NobodyThere(Vec<Place>),
    /// The system does not let this user.
    #[error("--takeover cannot ask at {place}: {reason}; run it as the user that the running server was started as")]
    Unreachable {
        /// Where.
        place: Place,
        /// What the system said.
        reason: io::Error,
    },
    /// It is not ours.
    #[error("--takeover found a process of user {user} at {place}, and takes nothing from it; run it as that user")]
    Foreign {
        /// Where.
        place: Place,
        /// Its user.
        user: u32,
    },
    /// It said no.
    #[error("the running server was not taken over and serves on: {0}")]
    Refused(String),
    /// It said nothing, or what was not understood.
    #[error("the running server was not taken over: {0}; its log may say more")]
    Failed(io::Error),
}

/// Asks the running server for everything it has.
///
/// # Errors
/// There is none, or it did not give it.
pub fn ask(server: &Server) -> Result<Taken, TakeoverError> {
    let (mut line, place) = find(server)?;
    let hello = Message::Hello { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").into() };
    // One that refuses may have hung up before; what it said is there to be heard.
    let said = line.say(&hello);
    let offer = match line.hear(OFFER_WITHIN) {
        Ok(Message::Offer(offer)) => *offer,
        Ok(Message::Refused { why }) => return Err(TakeoverError::Refused(why)),
        Ok(_) => return Err(TakeoverError::Failed(io::Error::other("it says what makes no sense here"))),
        Err(error) => return Err(TakeoverError::Failed(said.err().unwrap_or(error))),
    };
    let Offer { process, version, sockets, doors, state, cookies, learnt } = offer;
    tracing::info!(process, version, sockets = sockets.len(), "taking over from the process found at {place}");
    let mut files = line.take(sockets.len() + doors).map_err(TakeoverError::Failed)?;
    let doors = files.split_off(sockets.len()).into_iter().map(UnixListener::from).collect();
    let mut inherited = Inheritance::default();
    for (file, was) in files.into_iter().zip(sockets) {
        inherited.add(file, Some(was)).map_err(TakeoverError::Failed)?;
    }
    Ok(Taken { inherited, doors, state, cookies, learnt, predecessor: Predecessor { process, line } })
}

/// Goes on with what the old process knew. To be called before anything is answered.
pub fn take_up(live: &Live, taken: &Taken) {
    live.take_up_cookies(&taken.cookies);
    let world = live.world();
    let learnt = taken.learnt.rows(&world.config);
    let latency = &world.config.latency;
    if learnt.is_empty() || !(latency.learning.is_on || world.config.cluster.is_some()) {
        return;
    }
    match world.with_measurements(learnt, &world.penalties_ms(), SystemTime::now()) {
        Ok(with_maps) => {
            live.take_up_maps(&world, Arc::new(with_maps));
        }
        Err(report) => tracing::warn!("what the process before had learnt is taken up later:\n{report}"),
    }
}

fn find(server: &Server) -> Result<(Line, Place), TakeoverError> {
    let places = places_to_look(server);
    if places.is_empty() {
        return Err(TakeoverError::NoPlace);
    }
    for place in &places {
        let place = place.clone();
        let stream = match place.connect() {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                continue;
            }
            Err(reason) => return Err(TakeoverError::Unreachable { place, reason }),
        };
        let line = Line::new(stream).map_err(TakeoverError::Failed)?;
        let user = line.peer().map_err(TakeoverError::Failed)?.user;
        // Anyone can open an abstract socket of any name.
        if user != own_user() && user != 0 {
            return Err(TakeoverError::Foreign { place, user });
        }
        return Ok((line, place));
    }
    Err(TakeoverError::NobodyThere(places))
}

impl Predecessor {
    /// Tells it that this process serves. Waits until it has agreed to end, and for its last decisions; `None`: it is gone without a
    /// word.
    ///
    /// # Errors
    /// It serves on.
    pub fn relieve(&mut self) -> Result<Option<Overrides>, TakeoverError> {
        let process = self.process;
        let _if_it_is_gone_that_is_heard = self.line.say(&Message::Serving);
        let begun = Instant::now();
        loop {
            match self.line.hear(TELL_EVERY) {
                Ok(Message::Released(overrides)) => return Ok(Some(overrides)),
                Ok(Message::Refused { why }) => return Err(TakeoverError::Refused(why)),
                Ok(_) => return Err(TakeoverError::Failed(io::Error::other("it says what makes no sense here"))),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    let waited_s = begun.elapsed().as_secs();
                    tracing::warn!(
                        process,
                        waited_s,
                        "the process before this one does not say that it ends; both answer. If it hangs, kill it"
                    );
                }
                Err(error) => {
                    tracing::warn!(process, "the process before this one has ended without a word: {error}");
                    return Ok(None);
                }
            }
        }
    }

    /// Waits until it does nothing any more but to answer who is connected.
    pub fn wait_until_stopped(mut self) {
        let process = self.process;
        match self.line.hear(STOPPED_WITHIN) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                tracing::warn!(
                    process,
                    "the process before this one takes long to stop; going on without waiting for it"
                );
            }
            Ok(_) | Err(_) => {} // it has stopped, or is gone
        }
    }
}
