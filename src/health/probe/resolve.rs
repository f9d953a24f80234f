//! Host names to addresses through the system's resolver, sparingly: one lookup of a name at a time, few names at a time, and
//! a name's addresses serve for an interval. Where the resolver does not answer, for much longer: dead name servers are no reason to
//! leave endpoints that are alive. Knows nothing of what the addresses are probed for.

use std::{
    collections::{HashMap, HashSet},
    fmt, io,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, watch},
    task,
    time::{Instant, timeout_at},
};

/// Most addresses of one name that are probed; a name with more is served by a network of its own.
const ADDRESSES_MAX: usize = 64;
/// Most lookups at a time. Each holds a thread for as long as the system's resolver likes, tens of seconds where no name server
/// answers; no more threads than these are ever lost.
const LOOKUPS_MAX: usize = 32;
/// Most of them that names may take whose last lookup was slow: dead name servers of some must not keep all others waiting.
const SLOW_LOOKUPS_MAX: usize = 16;
/// A lookup is slow that takes longer: far over what name servers on the other side of the world take.
const SLOW_MIN: Duration = Duration::from_secs(1);
/// A lookup that has been under way for so long is trouble worth telling.
const TROUBLE_MIN: Duration = Duration::from_secs(5);
/// How long a name's addresses are gone by while nobody says what it has now: what was known an hour ago is no knowledge any more.
const KEPT_FOR: Duration = Duration::from_secs(3600);
/// The same as a multiple of the interval, where that is long.
const KEPT_INTERVALS: u32 = 3;
/// Of the time until its deadline, a probe that has addresses waits for newer ones at most this part.
const WAITING_SHARE: u32 = 4;
/// A name's addresses serve for an interval less this part of it: a turn one interval later must find them old, even when the clock
/// of the one or the other ran a little late.
const SLACK_SHARE: u32 = 20;
/// Shortest time between two warnings that names are not answered.
const WARNING_EVERY: Duration = Duration::from_secs(60);

/// Asks the system for the addresses of a name, for as long as that takes. An error of the kind [`io::ErrorKind::NotFound`] is the answer
/// that there is no such name; any other is no answer.
pub type LookUp = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// Addresses to probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Sorted, never empty.
    pub addresses: Arc<[IpAddr]>,
    /// Why they are not as young as they should be.
    pub trouble: Option<Arc<str>>,
}

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Whoever is responsible says that there is no such name, or that it has no address.
    #[error("{0}")]
    NoSuchName(Arc<str>),
    /// The resolver says that it got no answer, and no address was known before.
    #[error("{0}")]
    Unanswered(Arc<str>),
    /// No answer by the deadline, and no address was known before.
    #[error("no answer yet")]
    Pending,
    /// Nobody was asked yet: too many other names wait for their answers.
    #[error("the lookups of {LOOKUPS_MAX} other names take up all places")]
    Queued,
}

/// What a lookup came to: sorted addresses, or why there are none.
type Looked = Result<Arc<[IpAddr]>, NameError>;

/// How far a lookup is.
#[derive(Debug, Clone)]
enum Stage {
    /// For a place.
    Waiting,
    /// The system is at it.
    UnderWay,
    Done(Looked),
}

/// Remembers what names resolve to. Clones share their memory.
#[derive(Clone)]
pub struct Resolver {
    names: Arc<Mutex<Names>>,
    places: Arc<Places>,
    look_up: LookUp,
}

/// Places for lookups.
struct Places {
    all: Arc<Semaphore>,
    slow: Arc<Semaphore>,
}

/// All names, and what was said in the log of those that have trouble.
#[derive(Debug, Default)]
struct Names {
    known: HashMap<String, Known>,
    /// How many of them have trouble.
    troubled: usize,
    /// It was said that some have.
    is_told: bool,
    /// When that was last said.
    warned: Option<Instant>,
}

/// What is known of one name.
#[derive(Debug)]
struct Known {
    /// When the newest lookup was asked for, then when it began.
    begun: Instant,
    lookup: watch::Receiver<Stage>,
    /// What it had when the resolver last told.
    good: Option<(Instant, Arc<[IpAddr]>)>,
    /// Why the newest lookup that ended told nothing.
    trouble: Option<Arc<str>>,
    is_slow: bool,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Resolver {
    /// Knows nothing yet.
    pub fn new(look_up: LookUp) -> Self {
        let of = |max| Arc::new(Semaphore::new(max));
        let places = Places { all: of(LOOKUPS_MAX), slow: of(SLOW_LOOKUPS_MAX) };
        Resolver { names: Arc::default(), places: Arc::new(places), look_up }
    }

    /// The addresses of `name`, looked up anew when the last lookup began about an `interval` ago. While that takes, and where nobody
    /// answers, the last ones that were known, for an hour or three intervals.
    ///
    /// A lookup that outlives its probe goes on, and the next probe waits for it instead of starting another: a dead resolver
    /// ties up one thread a name, not one a probe, and few threads altogether. That a name does not exist is not kept, so that one
    /// wrong answer is one failure.
    ///
    /// # Errors
    /// Why there are none by `deadline`.
    pub async fn addresses(&self, name: &str, interval: Duration, deadline: Instant) -> Result<Found, NameError> {
        let now = Instant::now();
        let (mut lookup, is_new, good) = self.current(name, interval, now);
        let until = match (&good, is_new) {
            (None, _) => deadline,
            (Some(_), true) => now + deadline.saturating_duration_since(now) / WAITING_SHARE,
            (Some(_), false) => now, // whoever asked waited for it
        };
        let _ = timeout_at(until, lookup.wait_for(|stage| matches!(stage, Stage::Done(_)))).await; // what there is then will do
        let stage = lookup.borrow().clone();
        let trouble = match stage {
            Stage::Done(Ok(addresses)) => return Ok(Found { addresses, trouble: None }),
            Stage::Done(Err(error @ NameError::NoSuchName(_))) => return Err(error),
            Stage::Done(Err(error)) => error,
            Stage::UnderWay => NameError::Pending,
            Stage::Waiting => NameError::Queued,
        };
        match good {
            None => Err(trouble),
            Some(addresses) => Ok(Found { addresses, trouble: self.told_of(name) }),
        }
    }

    /// Forgets all names but these: what does not concern any probe any more must not hold back a word on what does.
    pub fn keep(&self, kept: &HashSet<&str>) {
        let mut names = self.lock();
        names.known.retain(|name, _| kept.contains(name.as_str()));
        names.troubled = names.known.values().filter(|known| known.trouble.is_some()).count();
        if names.is_relieved() {
            tracing::info!("the names that the host's resolver does not answer for are not probed any more");
        }
    }

    /// What is worth telling of a name whose newest addresses are not there.
    fn told_of(&self, name: &str) -> Option<Arc<str>> {
        let names = self.lock();
        let known = names.known.get(name)?;
        let is_late = known.begun.elapsed() >= TROUBLE_MIN;
        known
            .trouble
            .clone()
            .or_else(|| is_late.then(|| format!("no answer within {} s", TROUBLE_MIN.as_secs()).into()))
    }

    /// The lookup under way, or one that is young enough, or a new one, and if it is; and the addresses to go by meanwhile.
    fn current(
        &self,
        name: &str,
        interval: Duration,
        now: Instant,
    ) -> (watch::Receiver<Stage>, bool, Option<Arc<[IpAddr]>>) {
        let mut names = self.lock();
        let mut good = None;
        let mut is_slow = false;
        if let Some(known) = names.known.get_mut(name) {
            let kept_for = KEPT_FOR.max(interval * KEPT_INTERVALS);
            known.good.take_if(|(at, _)| now.duration_since(*at) > kept_for);
            good = known.good.as_ref().map(|(_, addresses)| addresses.clone());
            let is_young = now.duration_since(known.begun) < interval - interval / SLACK_SHARE;
            let usable = match &*known.lookup.borrow() {
                Stage::Waiting | Stage::UnderWay => known.lookup.has_changed().is_ok(), // unless its task is gone
                Stage::Done(Ok(_)) => is_young,
                Stage::Done(Err(NameError::NoSuchName(_))) => false,
                Stage::Done(Err(_)) => is_young && good.is_some(),
            };
            if usable {
                return (known.lookup.clone(), false, good);
            }
            is_slow = known.is_slow;
        }
        let (stage, lookup) = watch::channel(Stage::Waiting);
        let known = names.known.entry(name.to_owned()).or_insert_with(|| Known::new(now, lookup.clone()));
        (known.begun, known.lookup) = (now, lookup.clone());
        tokio::spawn(self.clone().look(name.to_owned(), stage, is_slow));
        (lookup, true, good)
    }

    /// Looks a name up when there is a place, and notes what comes of it.
    async fn look(self, name: String, stage: watch::Sender<Stage>, is_slow: bool) {
        let place_in = |places: &Arc<Semaphore>| {
            let places = places.clone();
            async move { places.acquire_owned().await.expect("the semaphore is never closed") }
        };
        let slow_place = if is_slow { Some(place_in(&self.places.slow).await) } else { None };
        let place = place_in(&self.places.all).await;
        let begun = Instant::now();
        if let Some(known) = self.lock().known.get_mut(&name) {
            known.begun = begun;
        }
        stage.send_replace(Stage::UnderWay);
        let (look_up, asked) = (self.look_up.clone(), name.clone());
        let looking = task::spawn_blocking(move || {
            let found = look_up(&asked);
            drop((place, slow_place)); // not when somebody stops waiting: the thread is taken until now
            found
        });
        if let Ok(found) = looking.await {
            let looked = looked(found);
            self.note(&name, begun, &looked);
            stage.send_replace(Stage::Done(looked));
        }
    }

    /// Takes in what a lookup came to. One line in the log when the first name is not answered, and one when all are again.
    fn note(&self, name: &str, begun: Instant, looked: &Looked) {
        let mut names = self.lock();
        let now = Instant::now();
        let Some(known) = names.known.get_mut(name) else { return }; // nobody wants to know any more
        known.is_slow = now.duration_since(begun) > SLOW_MIN;
        let had_trouble = known.trouble.take().is_some();
        match looked {
            Ok(addresses) => known.good = Some((now, addresses.clone())),
            Err(NameError::NoSuchName(_)) => known.good = None,
            Err(error) => known.trouble = Some(error.to_string().into()),
        }
        let error = known.trouble.clone();
        names.troubled = names.troubled - usize::from(had_trouble) + usize::from(error.is_some());
        if names.is_relieved() {
            tracing::info!("the host's resolver answers for all names again");
        }
        if let Some(error) = error.filter(|_| names.is_to_be_told(now)) {
            (names.is_told, names.warned) = (true, Some(now));
            tracing::warn!(
                name,
                %error,
                "the host's resolver does not answer for a name, perhaps one of many; names are probed at the addresses that they had, \
                 for an hour. `isochrone status` tells which"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Names {
    /// True, once, when there is no more trouble and it was said that there is some.
    fn is_relieved(&mut self) -> bool {
        self.troubled == 0 && std::mem::take(&mut self.is_told)
    }

    /// True when nothing was said of the trouble that there is. What comes again soon after the last word on it is told when it lasts.
    fn is_to_be_told(&self, now: Instant) -> bool {
        !self.is_told && self.warned.is_none_or(|at| now.duration_since(at) >= WARNING_EVERY)
    }
}

impl Known {
    fn new(now: Instant, lookup: watch::Receiver<Stage>) -> Self {
        Known { begun: now, lookup, good: None, trouble: None, is_slow: false }
    }
}

fn looked(found: io::Result<Vec<IpAddr>>) -> Looked {
    let mut addresses = found.map_err(|error| {
        let words = error.to_string().into();
        match error.kind() {
            io::ErrorKind::NotFound => NameError::NoSuchName(words),
            _ => NameError::Unanswered(words),
        }
    })?;
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(ADDRESSES_MAX);
    if addresses.is_empty() {
        Err(NameError::NoSuchName("the name has no address".into()))
    } else {
        Ok(addresses.into())
    }
}

#[cfg(test)]
impl Resolver {
    /// Lets `name` resolve to `addresses`.
    pub(super) fn preset(&self, name: &str, addresses: &[IpAddr]) {
        let now = Instant::now();
        let (_, lookup) = watch::channel(Stage::Done(Ok(addresses.into())));
        let known = Known { good: Some((now, addresses.into())), ..Known::new(now, lookup) };
        self.lock().known.insert(name.into(), known);
    }
}

#[cfg(test)]
mod tests;
