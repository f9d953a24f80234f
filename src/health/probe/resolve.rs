//! Host names to addresses through the system's resolver, sparingly: one lookup of a name at a time, and its addresses
//! serve for an interval.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    net::lookup_host,
    sync::watch,
    time::{Instant, timeout_at},
};

/// Most addresses of one name that are probed; a name with more is served by a network of its own.
const ADDRESSES_MAX: usize = 64;
/// A name that nobody asked for in so long is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(2 * 3600);

/// The outcome of a lookup: sorted addresses, or the resolver's complaint.
type Looked = Result<Arc<[IpAddr]>, String>;

/// Remembers what names resolve to. Clones share their memory.
#[derive(Debug, Clone, Default)]
pub struct Resolver {
    names: Arc<Mutex<HashMap<String, Known>>>,
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
    /// ties up one thread a name, not one a probe. A failed lookup is not kept, so that one hiccup is one failure.
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
        let name = name.to_owned();
        tokio::spawn(async move {
            let looked = look_up(&name).await;
            done.send_replace(Some((Instant::now(), looked)));
        });
        lookup
    }
}

async fn look_up(name: &str) -> Looked {
    let found: io::Result<Vec<IpAddr>> = match lookup_host((name, 0)).await {
        Ok(found) => Ok(found.map(|at| at.ip()).collect()),
        Err(error) => Err(error),
    };
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
}
