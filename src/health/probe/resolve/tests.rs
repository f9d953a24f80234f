//! A resolver made of a function, in simulated time but for the threads that it is called on.

use std::sync::{
    atomic::{AtomicUsize, Ordering},
    mpsc,
};

use super::*;

const INTERVAL: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(4);

fn ip(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn no_answer() -> io::Error {
    io::Error::other("Temporary failure in name resolution")
}

fn no_such_name() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "Name or service not known")
}

/// Addresses, or what makes an error: one itself cannot be cloned.
type Answer = Result<Vec<IpAddr>, fn() -> io::Error>;

/// What a lookup comes to, and how often one was asked for.
struct Script {
    answer: Mutex<Answer>,
    asked: AtomicUsize,
}

impl Script {
    fn new() -> (Arc<Self>, Resolver) {
        let script = Arc::new(Script { answer: Mutex::new(Ok(vec![ip(1)])), asked: AtomicUsize::new(0) });
        let of = script.clone();
        let resolver = Resolver::new(Arc::new(move |_| {
            of.asked.fetch_add(1, Ordering::SeqCst);
            of.answer.lock().unwrap().clone().map_err(|error| error())
        }));
        (script, resolver)
    }

    fn now(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn ask(resolver: &Resolver, name: &str) -> Result<Found, NameError> {
    resolver.addresses(name, INTERVAL, Instant::now() + TIMEOUT).await
}

async fn addresses(resolver: &Resolver) -> Vec<IpAddr> {
    ask(resolver, "web.example").await.unwrap().addresses.to_vec()
}

async fn pass(time: Duration) {
    tokio::time::advance(time).await;
}

#[tokio::test(start_paused = true)]
async fn a_name_is_looked_up_once_an_interval_and_a_change_is_followed_by_the_next_turn() {
    let (script, resolver) = Script::new();
    assert_eq!(addresses(&resolver).await, [ip(1)]);
    script.now(Ok(vec![ip(3), ip(2), ip(3)]));
    for _ in 0..9 {
        pass(Duration::from_secs(1)).await;
        assert_eq!(addresses(&resolver).await, [ip(1)], "still young");
    }
    pass(Duration::from_millis(995)).await; // a turn comes some milliseconds early as well as late
    assert_eq!(addresses(&resolver).await, [ip(2), ip(3)], "sorted, each once");
    assert_eq!(script.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn addresses_that_were_known_serve_for_an_hour_while_nobody_answers() {
    let (script, resolver) = Script::new();
    assert_eq!(ask(&resolver, "web.example").await.unwrap().trouble, None);
    script.now(Err(no_answer));
    let begun = Instant::now();
    pass(INTERVAL).await;
    while begun.elapsed() < KEPT_FOR {
        let found = ask(&resolver, "web.example").await.unwrap();
        assert_eq!((&*found.addresses, found.trouble.as_deref()), (&[ip(1)][..], Some(&*no_answer().to_string())));
        pass(INTERVAL / 5).await;
    }
    assert!(script.asked() <= 361, "at most once an interval: {}", script.asked());
    pass(INTERVAL).await;
    assert_eq!(ask(&resolver, "web.example").await, Err(NameError::Unanswered(no_answer().to_string().into())));
    script.now(Ok(vec![ip(2)]));
    assert_eq!(ask(&resolver, "web.example").await, Ok(Found { addresses: [ip(2)].into(), trouble: None }), "at once");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_does_not_exist_fails_at_once_is_asked_for_by_every_probe_and_loses_its_addresses() {
    let (script, resolver) = Script::new();
    assert_eq!(addresses(&resolver).await, [ip(1)]);
    script.now(Err(no_such_name));
    pass(INTERVAL).await;
    let gone = Err(NameError::NoSuchName(no_such_name().to_string().into()));
    assert_eq!([ask(&resolver, "web.example").await, ask(&resolver, "web.example").await], [gone.clone(), gone]);
    assert_eq!(script.asked(), 3, "one wrong answer is one failure");
    script.now(Err(no_answer));
    assert!(matches!(ask(&resolver, "web.example").await, Err(NameError::Unanswered(_))), "the addresses are gone");
    script.now(Ok(Vec::new()));
    assert!(matches!(ask(&resolver, "web.example").await, Err(NameError::NoSuchName(_))));
}

#[tokio::test(start_paused = true)]
async fn trouble_is_told_once_even_if_other_names_had_it_that_nobody_probes_any_more() {
    let (script, resolver) = Script::new();
    let told = || resolver.lock().is_told;
    script.now(Err(no_answer));
    for name in ["old.example", "older.example"] {
        assert!(ask(&resolver, name).await.is_err());
    }
    assert_eq!((told(), resolver.lock().troubled), (true, 2));
    resolver.keep(&HashSet::from(["old.example", "web.example"]));
    assert_eq!((told(), resolver.lock().troubled), (true, 1), "the other one still is in trouble");
    resolver.keep(&HashSet::from(["web.example"]));
    assert_eq!((told(), resolver.lock().known.len()), (false, 0));
    let begun = resolver.lock().warned;
    for _ in 0..5 {
        assert!(ask(&resolver, "web.example").await.is_err());
        assert!(!told(), "a word a minute is enough");
        pass(INTERVAL).await;
    }
    pass(INTERVAL).await;
    script.now(Ok(vec![ip(1)]));
    assert!(ask(&resolver, "other.example").await.is_ok());
    assert!(!told(), "not by a name that has none");
    script.now(Err(no_answer));
    assert!(ask(&resolver, "web.example").await.is_err());
    assert!(told() && resolver.lock().warned != begun);
    script.now(Ok(vec![ip(1)]));
    assert_eq!(addresses(&resolver).await, [ip(1)]);
    assert_eq!((told(), resolver.lock().troubled), (false, 0));
}

/// A resolver whose name servers for everything below `dead.` hang until the sender is dropped.
fn with_dead_servers() -> (mpsc::Sender<()>, Arc<AtomicUsize>, Resolver) {
    let (release, held) = mpsc::channel::<()>();
    let (held, begun) = (Mutex::new(held), Arc::new(AtomicUsize::new(0)));
    let count = begun.clone();
    let resolver = Resolver::new(Arc::new(move |name| {
        count.fetch_add(1, Ordering::SeqCst);
        if name.ends_with(".dead") {
            let _ = held.lock().unwrap().recv();
            return Err(no_answer());
        }
        Ok(vec![ip(1)])
    }));
    (release, begun, resolver)
}

/// Waits in real time: the lookups are on threads.
async fn until(what: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !what() {
        assert!(begun.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_hanging_lookup_takes_one_place_and_a_known_name_does_not_wait_for_it() {
    let (release, begun, resolver) = with_dead_servers();
    resolver.preset("web.dead", &[ip(7)]);
    let soon = || Instant::now() + Duration::from_millis(200);
    let asking = std::time::Instant::now();
    for _ in 0..20 {
        let found = resolver.addresses("web.dead", Duration::ZERO, soon()).await.unwrap();
        assert_eq!((&*found.addresses, found.trouble), (&[ip(7)][..], None), "not yet worth telling");
    }
    assert!(asking.elapsed() < Duration::from_secs(2), "only the probe that asks waits, and not for long");
    assert_eq!(begun.load(Ordering::SeqCst), 1);
    assert_eq!(resolver.addresses("new.dead", Duration::ZERO, soon()).await, Err(NameError::Pending));
    drop(release);
    until(|| resolver.lock().known["web.dead"].trouble.is_some()).await;
    let found = resolver.addresses("web.dead", Duration::from_secs(3600), soon()).await.unwrap();
    assert_eq!(found.trouble.as_deref(), Some(&*no_answer().to_string()));
}

#[tokio::test]
async fn names_whose_servers_are_dead_hold_half_of_the_places_at_most_once_they_are_known_as_such() {
    let (release, begun, resolver) = with_dead_servers();
    let soon = || Instant::now() + Duration::from_millis(300);
    let names: Vec<String> = (0..80).map(|n| format!("n{n}.dead")).collect();
    let ask_all = || async {
        let asking = names.iter().map(|name| resolver.addresses(name, Duration::ZERO, soon()));
        futures_util::future::join_all(asking).await
    };
    let answers = ask_all().await;
    assert_eq!(answers.iter().filter(|answer| **answer == Err(NameError::Pending)).count(), LOOKUPS_MAX);
    assert_eq!(answers.iter().filter(|answer| **answer == Err(NameError::Queued)).count(), 80 - LOOKUPS_MAX);
    let late = resolver.addresses("web.example", Duration::ZERO, soon()).await;
    assert_eq!(late, Err(NameError::Queued), "nobody knew yet");
    drop(release);
    until(|| resolver.lock().known.values().all(|known| matches!(*known.lookup.borrow(), Stage::Done(_)))).await;
    assert_eq!(begun.load(Ordering::SeqCst), 81, "each once");

    let (release, begun, held) = with_dead_servers();
    let resolver = Resolver { look_up: held.look_up, ..resolver };
    for name in &names {
        resolver.lock().known.get_mut(name).unwrap().is_slow = true; // as after tens of seconds
    }
    let asking = names.iter().map(|name| resolver.addresses(name, Duration::ZERO, soon()));
    futures_util::future::join_all(asking).await;
    assert_eq!(begun.load(Ordering::SeqCst), SLOW_LOOKUPS_MAX);
    for n in 0..50 {
        let deadline = Instant::now() + Duration::from_secs(30);
        let found = resolver.addresses(&format!("n{n}.example"), Duration::ZERO, deadline).await;
        assert_eq!(found.unwrap().addresses[..], [ip(1)]);
    }
    drop(release);
}
