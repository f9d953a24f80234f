//! Host names to addresses through the system's resolver, sparingly: one lookup of a name at a time, few names at a time, and
//! a name's addresses serve for an interval.

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, ToSocketAddrs},
    sync::{Arc, Mutex, PoisonError},
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
/// answers; so many names whose servers are dead delay the lookups of all others, and no more threads than these are ever lost.
const LOOKUPS_MAX: usize = 32;
/// A name that nobody asked for in so long is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(2 * 3600);

/// The outcome of a lookup: sorted addresses, or the resolver's complaint.
type Looked = Result<Arc<[IpAddr]>, String>;

/// Remembers what names resolve to. Clones share their memory.
#[derive(Clone)]
pub struct Resolver {
    names: Arc<Mutex<HashMap<String, Known>>>,
    /// Places for lookups.
    places: Arc<Semaphore>,
    look_up: LookUp,
}

/// Asks the system, for as long as that takes.
type LookUp = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

impl Default for Resolver {
    fn default() -> Self {
        let ask = |name: &str| Ok((name, 0).to_socket_addrs()?.map(|at| at.ip()).collect());
        Resolver { names: Arc::default(), places: Arc::new(Semaphore::new(LOOKUPS_MAX)), look_up: Arc::new(ask) }
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("names", &self.names).finish_non_exhaustive()
    }
}

/// The newest lookup of one name.
#[derive(Debug)]
struct Known {
    asked: Instant,
    lookup: watch::Receiver<Option<(Instant, Looked)>>,
}

impl Resolver {
    /// The addresses of `name`, sorted, not older than `max_age`; never empty.
    ///
    /// A lookup that outlives its probe goes on, and the next probe waits for it instead of starting another: a dead resolver
    /// ties up one thread a name, not one a probe, and few threads altogether. A failed lookup is not kept, so that one hiccup is
    /// one failure.
    ///
    /// # Errors
    /// `None` at `deadline`, else the resolver's words.
    pub async fn addresses(
        &self,
        name: &str,
        max_age: Duration,
        deadline: Instant,
    ) -> Result<Arc<[IpAddr]>, Option<String>> {
        let mut lookup = self.current(name, max_age);
        let done = timeout_at(deadline, lookup.wait_for(Option::is_some)).await.map_err(|_elapsed| None)?;
        match done.as_deref() {
            Ok(Some((_, looked))) => looked.clone().map_err(Some),
            Ok(None) | Err(_) => Err(Some("the lookup was broken off".into())),
        }
    }

    /// The lookup under way, or one that is young enough, or a new one.
    fn current(&self, name: &str, max_age: Duration) -> watch::Receiver<Option<(Instant, Looked)>> {
        let now = Instant::now();
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get_mut(name) {
            known.asked = now;
            let usable = match &*known.lookup.borrow() {
                None => known.lookup.has_changed().is_ok(), // under way, unless its task is gone
                Some((at, Ok(_))) => now.duration_since(*at) < max_age,
                Some((_, Err(_))) => false,
            };
            if usable {
                return known.lookup.clone();
            }
        } else {
            names.retain(|_, known| now.duration_since(known.asked) < FORGET_AFTER);
        }
        let (done, lookup) = watch::channel(None);
        names.insert(name.to_owned(), Known { asked: now, lookup: lookup.clone() });
        let (name, places, look_up) = (name.to_owned(), self.places.clone(), self.look_up.clone());
        tokio::spawn(async move {
            let place = places.acquire_owned().await.expect("the semaphore is never closed");
            let looking = task::spawn_blocking(move || {
                let found = look_up(&name);
                drop(place); // not when somebody stops waiting: the thread is taken until now
                found
            });
            if let Ok(found) = looking.await {
                done.send_replace(Some((Instant::now(), looked(found))));
            }
        });
        lookup
    }
}

fn looked(found: io::Result<Vec<IpAddr>>) -> Looked {
    let mut addresses = found.map_err(|error| error.to_string())?;
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(ADDRESSES_MAX);
    if addresses.is_empty() { Err("the name has no address".into()) } else { Ok(addresses.into()) }
}

#[cfg(test)]
impl Resolver {
    /// Lets `name` resolve to `addresses`.
    pub(super) fn preset(&self, name: &str, addresses: &[IpAddr]) {
        let looked: Looked = Ok(addresses.into());
        let (_, lookup) = watch::channel(Some((Instant::now(), looked)));
        self.names.lock().unwrap().insert(name.into(), Known { asked: Instant::now(), lookup });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[tokio::test]
    async fn a_name_is_looked_up_once_an_interval() {
        let resolver = Resolver::default();
        let hour = Duration::from_secs(3600);
        let first = resolver.addresses("localhost", hour, soon()).await.unwrap();
        assert!(first.iter().all(|address| address.is_loopback()), "{first:?}");
        let again = resolver.addresses("localhost", hour, soon()).await.unwrap();
        assert!(Arc::ptr_eq(&first, &again), "still young");
        let anew = resolver.addresses("localhost", Duration::ZERO, soon()).await.unwrap();
        assert!(!Arc::ptr_eq(&first, &anew), "too old");
    }

    #[tokio::test]
    async fn changed_addresses_are_followed() {
        let resolver = Resolver::default();
        let (done, lookup) = watch::channel(None);
        let stale: Arc<[IpAddr]> = Arc::new(["192.0.2.1".parse().unwrap()]);
        done.send_replace(Some((Instant::now(), Ok(stale.clone()))));
        let known = Known { asked: Instant::now(), lookup };
        resolver.names.lock().unwrap().insert("localhost".into(), known);
        assert_eq!(resolver.addresses("localhost", Duration::from_secs(3600), soon()).await.unwrap(), stale);
        assert_ne!(resolver.addresses("localhost", Duration::ZERO, soon()).await.unwrap(), stale);
    }

    #[tokio::test]
    async fn a_hanging_lookup_ends_at_the_deadline_and_is_not_started_twice() {
        let resolver = Resolver::default();
        let (done, lookup) = watch::channel(None);
        let known = Known { asked: Instant::now(), lookup };
        resolver.names.lock().unwrap().insert("localhost".into(), known);
        let deadline = Instant::now() + Duration::from_millis(20);
        assert_eq!(resolver.addresses("localhost", Duration::ZERO, deadline).await, Err(None));
        let late: Arc<[IpAddr]> = Arc::new(["192.0.2.9".parse().unwrap()]);
        done.send_replace(Some((Instant::now() + Duration::from_secs(60), Ok(late.clone()))));
        let found = resolver.addresses("localhost", Duration::from_secs(60), soon()).await;
        assert_eq!(found, Ok(late), "the late result serves the next probe");
    }

    #[tokio::test]
    async fn a_failed_lookup_is_tried_again() {
        let resolver = Resolver::default();
        let (done, lookup) = watch::channel(None);
        done.send_replace(Some((Instant::now(), Err("hiccup".into()))));
        let known = Known { asked: Instant::now(), lookup };
        resolver.names.lock().unwrap().insert("localhost".into(), known);
        assert!(resolver.addresses("localhost", Duration::from_secs(3600), soon()).await.is_ok());
    }

    #[tokio::test]
    async fn few_lookups_are_under_way_at_a_time_and_those_that_wait_end_at_their_deadline() {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let held = Mutex::new(held);
        let hangs = move |_: &str| {
            let _ = begun.send(());
            let _ = held.lock().unwrap().recv();
            Ok(vec![IpAddr::from([192, 0, 2, 1])])
        };
        let resolver =
            Resolver { places: Arc::new(Semaphore::new(3)), look_up: Arc::new(hangs), ..Resolver::default() };
        let mut asking = task::JoinSet::new();
        let deadline = Instant::now() + Duration::from_millis(300);
        for n in 0..20 {
            let resolver = resolver.clone();
            asking.spawn(async move { resolver.addresses(&format!("n{n}.example"), Duration::ZERO, deadline).await });
        }
        assert!(asking.join_all().await.iter().all(|answer| *answer == Err(None)));
        for _ in 0..3 {
            begins.recv().await.unwrap();
        }
        assert!(begins.try_recv().is_err(), "no more than there are places for");
        drop(release); // from now on the resolver answers
        for n in 0..20 {
            let hour = Duration::from_secs(3600);
            assert!(resolver.addresses(&format!("n{n}.example"), hour, soon()).await.is_ok(), "{n}");
        }
        let mut further = 0;
        while begins.try_recv().is_ok() {
            further += 1;
        }
        assert_eq!(further, 17, "each name was looked up once");
    }
}
