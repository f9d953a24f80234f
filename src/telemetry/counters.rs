//! Counters of the data plane. Each worker thread writes its own, with plain loads and stores and no shared cache line; whoever
//! reads sums over all workers. Must never take a lock or allocate where a query passes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::{
    answer_times::{AnswerTimes, Times},
    classes::{DropReason, QtypeClass, RCODES, TransportKind},
    samples::{Sample, Samples},
};

/// Counters of one worker thread. The methods that count are for that thread alone: two writers lose counts (nothing worse).
/// Aligned to two cache lines, since processors fetch lines in pairs.
#[repr(align(128))]
pub struct WorkerCounters {
    queries: [[Counter; QtypeClass::ALL.len()]; TransportKind::ALL.len()],
    responses: [Counter; RCODES],
    dropped: [Counter; DropReason::ALL.len()],
    ecs: Counter,
    truncated: Counter,
    unsent: Counter,
    tcp_connections: Counter,
    rounds: Counter,
    answer_times: AnswerTimes,
    samples: Samples,
    answers: Mutex<Answers>,
    /// Sums of slots that were given up, for readers.
    folded: Mutex<BTreeMap<AnswerLabels, u64>>,
}

/// The labels of one answer counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AnswerLabels {
    /// Zone name.
    pub zone: Arc<str>,
    /// Route's label; `None` where there are too many routes to tell them apart.
    pub route: Option<Arc<str>>,
    /// Region's name.
    pub region: Arc<str>,
    /// Why this region answered, one word.
    pub reason: &'static str,
}

/// Which answer counters there are: the list of their labels, made together with a snapshot. A counter is its position here;
/// the same labels may stand at several positions.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct AnswerKeys(Vec<AnswerLabels>);

/// One worker's answer counters for one [`AnswerKeys`].
#[derive(Debug)]
pub struct AnswerSlots {
    keys: Arc<AnswerKeys>,
    counts: Box<[Counter]>,
}

/// All workers' counters.
#[derive(Default)]
pub struct Registry {
    workers: Mutex<Vec<Arc<WorkerCounters>>>,
    latest_keys: Mutex<Arc<AnswerKeys>>,
}

/// Sums over all workers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Messages read, by transport and by what they asked for.
    pub queries: [[u64; QtypeClass::ALL.len()]; TransportKind::ALL.len()],
    /// Responses, by response code.
    pub responses: [u64; RCODES],
    /// Messages read that got no response.
    pub dropped: [u64; DropReason::ALL.len()],
    /// Queries with a client subnet option.
    pub ecs: u64,
    /// Responses with TC set.
    pub truncated: u64,
    /// Responses that the kernel would not take.
    pub unsent: u64,
    /// TCP connections open now.
    pub tcp_connections: u64,
    /// How long some of the answers took, by transport.
    pub answer_times: [Times; TransportKind::ALL.len()],
    /// Answers out of routes.
    pub answers: BTreeMap<AnswerLabels, u64>,
}

/// Written by one thread, read by any.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

/// Slots in use and slots given up: the worker only moves them, adding them up is left to the readers.
#[derive(Default)]
struct Answers {
    current: Option<Arc<AnswerSlots>>,
    retired: Vec<Arc<AnswerSlots>>,
}

impl WorkerCounters {
    /// A message was read.
    #[inline]
    pub fn query(&self, transport: TransportKind, class: QtypeClass) {
        self.queries[transport as usize][class as usize].add(1);
    }

    /// It was answered with this response code (with EDNS: all 12 bits); codes that do not exist count as the last one.
    #[inline]
    pub fn response(&self, rcode: u16) {
        self.responses[usize::from(rcode).min(RCODES - 1)].add(1);
    }

    /// It was not answered.
    #[inline]
    pub fn dropped(&self, reason: DropReason) {
        self.dropped[reason as usize].add(1);
    }

    /// It had a client subnet option.
    #[inline]
    pub fn ecs(&self) {
        self.ecs.add(1);
    }

    /// Its response has TC set.
    #[inline]
    pub fn truncated(&self) {
        self.truncated.add(1);
    }

    /// So many responses, counted as such already, could not be sent.
    #[inline]
    pub fn unsent(&self, count: usize) {
        if count > 0 {
            self.unsent.add(count as u64);
        }
    }

    /// So many TCP connections are open now.
    pub fn set_tcp_connections(&self, count: usize) {
        self.tcp_connections.0.store(count as u64, Relaxed);
    }

    /// The thread has gone round its loop once more.
    #[inline]
    pub fn round(&self) {
        self.rounds.add(1);
    }

    /// How often it has gone round, while it lives: whoever finds the same number again and again looks at a thread that hangs.
    pub fn rounds(&self) -> u64 {
        self.rounds.get()
    }

    /// Fresh answer counters for `keys`, to be used by this worker from now on instead of the last ones, whose counts are kept.
    /// Locks and allocates: call it when a new snapshot brings other keys, not for every query.
    pub fn use_keys(&self, keys: &Arc<AnswerKeys>) -> Arc<AnswerSlots> {
        let counts = keys.0.iter().map(|_| Counter::default()).collect();
        let slots = Arc::new(AnswerSlots { keys: keys.clone(), counts });
        let mut answers = lock(&self.answers);
        if let Some(last) = answers.current.replace(slots.clone()) {
            answers.retired.push(last);
        }
        slots
    }

    /// How long some of this worker's answers took.
    pub fn answer_times(&self) -> &AnswerTimes {
        &self.answer_times
    }

    /// Some of the clients that this worker answered.
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    fn new() -> Self {
        WorkerCounters {
            queries: Default::default(),
            responses: Default::default(),
            dropped: Default::default(),
            ecs: Counter::default(),
            truncated: Counter::default(),
            unsent: Counter::default(),
            tcp_connections: Counter::default(),
            rounds: Counter::default(),
            answer_times: AnswerTimes::default(),
            samples: Samples::default(),
            answers: Mutex::default(),
            folded: Mutex::default(),
        }
    }

    /// Adds up the slots that were given up, and returns those in use. A worker that gave them up no longer writes to them: it did so
    /// itself. It waits for no reader: what takes time is done when its lock is free again.
    fn fold(&self, folded: &mut BTreeMap<AnswerLabels, u64>) -> Option<Arc<AnswerSlots>> {
        let (retired, current) = {
            let mut answers = lock(&self.answers);
            (std::mem::take(&mut answers.retired), answers.current.clone())
        };
        retired.iter().for_each(|slots| slots.add_to(folded));
        current
    }

    fn add_to(&self, totals: &mut Totals) {
        let add = |into: &mut [u64], from: &[Counter]| into.iter_mut().zip(from).for_each(|(i, f)| *i += f.get());
        for (into, from) in totals.queries.iter_mut().zip(&self.queries) {
            add(into, from);
        }
        add(&mut totals.responses, &self.responses);
        add(&mut totals.dropped, &self.dropped);
        totals.ecs += self.ecs.get();
        totals.truncated += self.truncated.get();
        totals.unsent += self.unsent.get();
        totals.tcp_connections += self.tcp_connections.get();
        self.answer_times.add_to(&mut totals.answer_times);
        let mut folded = lock(&self.folded);
        let current = self.fold(&mut folded);
        for (labels, count) in folded.iter() {
            *totals.answers.entry(labels.clone()).or_default() += count;
        }
        if let Some(slots) = current {
            slots.add_to(&mut totals.answers);
        }
    }
}

impl AnswerKeys {
    /// From the list of labels.
    pub fn new(labels: Vec<AnswerLabels>) -> Self {
        AnswerKeys(labels)
    }

    /// How many counters there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl AnswerSlots {
    /// The keys that these are for.
    pub fn keys(&self) -> &Arc<AnswerKeys> {
        &self.keys
    }

    /// An answer was given for the labels at `position` of the keys. For the one worker that these slots belong to.
    #[inline]
    pub fn answered(&self, position: usize) {
        debug_assert!(position < self.counts.len(), "position {position} of other keys");
        if let Some(counter) = self.counts.get(position) {
            counter.add(1);
        }
    }

    fn add_to(&self, sums: &mut BTreeMap<AnswerLabels, u64>) {
        for (labels, counter) in self.keys.0.iter().zip(&self.counts) {
            let count = counter.get();
            if count > 0 {
                // Looked up before it is inserted: the labels are cloned the first time alone.
                match sums.get_mut(labels) {
                    Some(sum) => *sum += count,
                    None => drop(sums.insert(labels.clone(), count)),
                }
            }
        }
    }
}

impl Registry {
    /// No worker yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counters for one more worker thread. They stay in the sums when it has ended.
    pub fn register(&self) -> Arc<WorkerCounters> {
        let counters = Arc::new(WorkerCounters::new());
        lock(&self.workers).push(counters.clone());
        counters
    }

    /// The keys for a new snapshot: the last ones again if the labels are the same, so that workers keep their slots.
    pub fn answer_keys(&self, labels: Vec<AnswerLabels>) -> Arc<AnswerKeys> {
        // A server that nobody scrapes must not gather retired slots for ever.
        for worker in lock(&self.workers).iter() {
            worker.fold(&mut lock(&worker.folded));
        }
        let mut latest = lock(&self.latest_keys);
        if latest.0 != labels {
            *latest = Arc::new(AnswerKeys(labels));
        }
        latest.clone()
    }

    /// What all workers sampled since the last call with the same `seen`, which has a place for each worker.
    pub fn samples_since(&self, seen: &mut Vec<u64>) -> Vec<Sample> {
        let workers = lock(&self.workers);
        seen.resize(workers.len(), 0);
        workers.iter().zip(seen).flat_map(|(worker, seen)| worker.samples.since(seen)).collect()
    }

    /// Sums over all workers, past and present. Counters never go backwards from one call to the next.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for worker in lock(&self.workers).iter() {
            worker.add_to(&mut totals);
        }
        totals
    }
}

impl Totals {
    /// Messages read over all transports.
    pub fn queries_read(&self) -> u64 {
        self.queries.iter().flatten().sum()
    }

    /// Σ responses + Σ dropped = Σ queries. Holds whenever no query is on its way.
    pub fn is_balanced(&self) -> bool {
        self.responses.iter().sum::<u64>() + self.dropped.iter().sum::<u64>() == self.queries_read()
    }
}

impl Counter {
    /// A load and a store instead of one atomic addition: there is one writer, and a locked instruction costs twenty times more.
    #[inline]
    fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What is behind these locks stays whole whatever panics beside it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(route: &str, region: &str) -> AnswerLabels {
        AnswerLabels { zone: "example.com".into(), route: Some(route.into()), region: region.into(), reason: "nearest" }
    }

    #[test]
    fn sums_run_over_all_workers_even_ended_ones() {
        let registry = Registry::new();
        let workers = [registry.register(), registry.register()];
        std::thread::scope(|scope| {
            for worker in &workers {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        worker.query(TransportKind::Udp, QtypeClass::A);
                        worker.response(0);
                    }
                    worker.query(TransportKind::Tcp, QtypeClass::None);
                    worker.dropped(DropReason::Short);
                });
            }
        });
        drop(workers);
        let totals = registry.totals();
        assert_eq!(totals.queries[TransportKind::Udp as usize][QtypeClass::A as usize], 2000);
        assert_eq!(totals.dropped[DropReason::Short as usize], 2);
        assert_eq!((totals.queries_read(), totals.is_balanced()), (2002, true));
    }

    #[test]
    fn a_query_without_an_end_unbalances_the_books() {
        let registry = Registry::new();
        registry.register().query(TransportKind::Udp, QtypeClass::A);
        assert!(!registry.totals().is_balanced());
    }

    #[test]
    fn response_codes_beyond_the_last_count_as_the_last() {
        let registry = Registry::new();
        let worker = registry.register();
        worker.response(u16::MAX);
        assert_eq!(registry.totals().responses[RCODES - 1], 1);
    }

    #[test]
    fn answers_survive_a_change_of_keys() {
        let registry = Registry::new();
        let (one, two) = (registry.register(), registry.register());
        let before = registry.answer_keys(vec![labels("app", "us"), labels("app", "eu")]);
        let (slots_one, slots_two) = (one.use_keys(&before), two.use_keys(&before));
        slots_one.answered(0);
        slots_one.answered(1);
        slots_two.answered(1);
        let after = registry.answer_keys(vec![labels("app", "eu"), labels("new", "eu")]);
        let slots_one = one.use_keys(&after);
        slots_one.answered(0);
        slots_one.answered(1);
        slots_two.answered(0); // this worker has not seen the new keys yet
        let expected = BTreeMap::from([(labels("app", "us"), 2), (labels("app", "eu"), 3), (labels("new", "eu"), 1)]);
        assert_eq!(registry.totals().answers, expected);
        assert_eq!(registry.totals().answers, expected, "reading changes nothing");
    }

    #[test]
    fn the_same_labels_give_the_same_keys() {
        let registry = Registry::new();
        let keys = registry.answer_keys(vec![labels("app", "us")]);
        assert!(Arc::ptr_eq(&keys, &registry.answer_keys(vec![labels("app", "us")])));
        assert!(!Arc::ptr_eq(&keys, &registry.answer_keys(vec![labels("app", "eu")])));
    }

    #[test]
    fn retired_slots_do_not_pile_up_without_a_reader() {
        let registry = Registry::new();
        let worker = registry.register();
        for n in 0..100 {
            let keys = registry.answer_keys(vec![labels("app", &n.to_string())]);
            worker.use_keys(&keys).answered(0);
        }
        assert!(lock(&worker.answers).retired.len() <= 1);
        assert_eq!(registry.totals().answers.values().sum::<u64>(), 100);
    }

    #[test]
    fn workers_share_no_cache_line() {
        assert_eq!(align_of::<WorkerCounters>(), 128);
        assert_eq!(size_of::<WorkerCounters>() % 128, 0);
    }
}
