//! What the running server learns of its clients' round trips: the threads that answer queries report, the control plane keeps, and
//! the state directory outlives the process. What a round trip means is `latency::learn`'s to know.

mod learner;

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

pub use self::learner::Learner;
use super::{
    live::{Live, random_secret},
    state::{StateDir, Stored, enveloped},
    world::unix_s,
};
use crate::{
    admin::latency::{LearningStatus, MeasuredNetwork, Measurements},
    config::model::Config,
    geo::Network,
    latency::{
        learn::{Asks, Cell, Measured, Outcome, Remembered, Silence, Store, Taken, asks::SAMPLES_WANTED, network_of},
        measurement::{self, Row},
    },
    telemetry::metrics::Families,
};

/// The file's name in the state directory.
const FILE: &str = "latency.json";

/// How often reports are taken in.
const TAKE_IN_INTERVAL: Duration = Duration::from_millis(250);

/// Reports that may wait to be taken in: the connections of a second on a server that has very many. What comes above is lost, and
/// counted.
const REPORTS_MAX: usize = 8192;

/// Shortest time between two writings; a writing is followed by a pause so many times as long, so that a full table never keeps the
/// disk busy.
const WRITE_EVERY: Duration = Duration::from_secs(10);
const PAUSE_PER_WRITING: u32 = 300;

/// How often what is too old is forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(3600);

/// Networks that the admin interface lists, the heaviest first.
const LISTED_MAX: usize = 1000;

/// What the threads share.
pub struct Learning {
    terms: ArcSwap<Terms>,
    /// Made when prospecting is first switched on.
    asks: OnceLock<Asks>,
    reports: SyncSender<Report>,
    counts: Counts,
    control: Mutex<Control>,
}

/// What the configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Terms {
    is_on: bool,
    /// The share of UDP queries that are drawn.
    prospect: f64,
}

/// What a thread that answers queries has to tell.
#[derive(Debug, Clone, Copy)]
enum Report {
    /// A connection has ended; its lowest round trip in microseconds.
    RoundTrip { network: Network, sample_us: u32 },
    /// A query had a client subnet.
    Subnet { network: Network },
    /// So many queries came, by estimate.
    Weight { network: Network, queries: f32 },
}

#[derive(Debug, Default)]
struct Counts {
    /// Round trips taken in.
    samples: AtomicU64,
    /// Connections with segments sent again.
    retransmitted: AtomicU64,
    /// Connections whose round trip the kernel did not tell, or that cannot be true.
    unmeasured: AtomicU64,
    /// Reports that found no room.
    lost: AtomicU64,
}

/// What only the control plane touches.
struct Control {
    reports: Receiver<Report>,
    store: Store,
    /// The region that the store was measured from, by its name: numbers change with the configuration. `None` before learning was
    /// first switched on; then the file has not been read.
    region: Option<String>,
    /// From the file, until there is a table of those that are asked.
    silence: Option<Silence>,
    /// What is in the file: the store's generation, and how much had been taken in and asked.
    written: (u64, u64),
}

/// What the file holds.
#[derive(Serialize, Deserialize)]
struct Learned {
    /// Where it was measured.
    region: String,
    networks: Vec<Remembered>,
    #[serde(default)]
    silence: Option<Silence>,
}

impl Stored for Learned {
    const SCHEMA: u32 = 1;
}

impl Default for Learning {
    fn default() -> Self {
        let (reports, received) = sync_channel(REPORTS_MAX);
        Learning {
            terms: ArcSwap::default(),
            asks: OnceLock::new(),
            reports,
            counts: Counts::default(),
            control: Mutex::new(Control {
                reports: received,
                store: Store::default(),
                region: None,
                silence: None,
                written: (0, 0),
            }),
        }
    }
}

impl Learning {
    /// Does from now on what a configuration says, and reads what was known before the restart when it first says so. To be called
    /// before the configuration is published. Waits for the disk.
    pub fn adopt(&self, config: &Config, state: &StateDir) {
        let now_s = unix_s(SystemTime::now());
        let terms = config.latency.learning;
        if let Some(region) = region_name(config) {
            let mut control = self.control();
            match &control.region {
                None => recall(&mut control, region, state, now_s),
                Some(before) if before != region => {
                    tracing::info!("this server stands in {region} now: what it measured from {before} is forgotten");
                    control.store.clear();
                    self.asks.get().into_iter().for_each(Asks::forget_measured);
                }
                Some(_) => {}
            }
            control.region = Some(region.to_string());
            if terms.prospect > 0.0 && self.asks.get().is_none() {
                let asks = control.silence.as_ref().map_or_else(|| Asks::new(random_number()), Asks::with);
                for known in control.store.measured(now_s).filter(|known| known.samples >= SAMPLES_WANTED) {
                    asks.fresh(known.network, known.newest_s, now_s);
                }
                let _first_time = self.asks.set(asks);
            }
        }
        self.terms.store(Arc::new(Terms { is_on: terms.is_on, prospect: terms.prospect }));
    }

    /// What was measured, for the estimates under `config`: nothing where it does not learn, or where its server stands in another
    /// region.
    pub fn cells(&self, config: &Config, now_s: u64) -> Vec<Cell> {
        let control = self.control();
        let region = config.server.region.filter(|_| control.region.as_deref() == region_name(config));
        match (region, config.latency.learning.is_on) {
            (Some(region), true) => control.store.measured(now_s).map(|known| Cell::new(&known, region)).collect(),
            _ => Vec::new(),
        }
    }

    /// The same as rows among those of files.
    pub fn rows(&self, config: &Config, now_s: u64) -> Vec<Row> {
        let row = |cell: Cell| Row {
            network: measurement::Network::Prefix(cell.network),
            region: cell.region,
            rtt_ms: cell.rtt_ms,
            samples: cell.samples,
            age_s: now_s.saturating_sub(cell.newest_s),
            is_alone: cell.sends_subnets,
        };
        self.cells(config, now_s).into_iter().map(row).collect()
    }

    /// The region that round trips are measured from, by name; `None`: nothing is learned.
    pub fn region(&self) -> Option<String> {
        self.control().region.clone().filter(|_| self.terms.load().is_on)
    }

    /// What was measured and from where, the heaviest networks first; `None`: nothing is learned.
    pub fn heaviest(&self, now_s: u64) -> Option<(String, Vec<Measured>)> {
        let control = self.control();
        let region = control.region.clone().filter(|_| self.terms.load().is_on)?;
        let mut known: Vec<Measured> = control.store.measured(now_s).collect();
        drop(control);
        sort_by_weight(&mut known);
        Some((region, known))
    }

    /// Counts up whenever [`Learning::cells`] have changed so much that estimates may.
    pub fn generation(&self) -> u64 {
        self.control().store.generation()
    }

    /// Takes in what threads have reported.
    pub fn take_in(&self, now_s: u64) {
        let control = &mut *self.control();
        for report in control.reports.try_iter().take(REPORTS_MAX) {
            match report {
                Report::RoundTrip { network, sample_us } => {
                    self.take_sample(&mut control.store, network, sample_us, now_s)
                }
                Report::Subnet { network } => control.store.note_subnet(network, now_s),
                Report::Weight { network, queries } => control.store.weigh(network, queries.into(), now_s),
            }
        }
    }

    fn take_sample(&self, store: &mut Store, network: Network, sample_us: u32, now_s: u64) {
        let count = match store.take(network, sample_us, now_s) {
            Taken::Refused => &self.counts.unmeasured,
            Taken::In { samples, is_in_doubt } => {
                let asks = self.asks.get().filter(|_| samples >= SAMPLES_WANTED && !is_in_doubt);
                asks.into_iter().for_each(|asks| asks.fresh(network, now_s, now_s));
                &self.counts.samples
            }
        };
        count.fetch_add(1, Relaxed);
    }

    /// What the status shows; `None`: it does not learn.
    pub fn status(&self, now_s: u64) -> Option<LearningStatus> {
        let terms = **self.terms.load();
        let control = self.control();
        let region = control.region.clone().filter(|_| terms.is_on)?;
        let Outcome { asked, came, gained } = self.outcome();
        Some(LearningStatus {
            region,
            networks: control.store.measured(now_s).count() as u64,
            samples: self.counts.samples.load(Relaxed),
            jumps: control.store.jumps(),
            prospect: terms.prospect,
            asked,
            came,
            gained,
        })
    }

    /// What was measured of the network of `client`, or of the heaviest ones.
    pub fn measurements(&self, client: Option<IpAddr>, now_s: u64) -> Measurements {
        let control = self.control();
        let region = control.region.clone().filter(|_| self.terms.load().is_on);
        let mut known: Vec<Measured> = match (&region, client) {
            (None, _) => Vec::new(),
            (_, Some(client)) => network_of(client.to_canonical())
                .and_then(|network| control.store.of(network, now_s))
                .into_iter()
                .collect(),
            (_, None) => control.store.measured(now_s).collect(),
        };
        drop(control);
        sort_by_weight(&mut known);
        known.truncate(LISTED_MAX);
        let networks = known.iter().map(|known| MeasuredNetwork {
            network: known.network.to_string(),
            rtt_ms: (f64::from(known.rtt_ms) * 1e3).round() / 1e3,
            samples: known.samples,
            newest: known.newest_s,
            sends_client_subnets: known.sends_subnets,
        });
        Measurements { region, networks: networks.collect() }
    }

    /// What there is to measure of it.
    pub fn metrics(&self, families: &mut Families) {
        let counts = &self.counts;
        let value = |count: &AtomicU64| count.load(Relaxed) as f64;
        let control = self.control();
        let help = "Round trips of clients by TCP that were taken in.";
        families.counter("latency_samples", help).value(value(&counts.samples));
        families
            .counter("latency_samples_discarded", "Connections of clients by TCP that told no round trip.")
            .sample([("reason", "retransmitted")], value(&counts.retransmitted))
            .sample([("reason", "unmeasured")], value(&counts.unmeasured))
            .sample([("reason", "overflow")], value(&counts.lost));
        families.gauge("latency_networks", "Networks whose round trip is known.").value(control.store.len() as f64);
        let help = "Paths whose round trip became another one.";
        families.counter("latency_jumps", help).value(control.store.jumps() as f64);
        let Outcome { asked, came, gained } = self.outcome();
        families.counter("prospects_asked", "Networks asked by TC to come by TCP.").value(asked as f64);
        families.counter("prospects_came", "Networks that came by TCP when asked.").value(came as f64);
        families.counter("prospects_gained", "Networks measured since they came when asked.").value(gained as f64);
    }

    fn outcome(&self) -> Outcome {
        self.asks.get().map(Asks::outcome).unwrap_or_default()
    }

    /// Writes what is known, now. Waits for the disk.
    fn write(&self, state: &StateDir) {
        let Some((learned, written)) = self.known() else { return };
        self.control().written = written;
        if let Err(error) = state.write(FILE, &learned) {
            tracing::error!(%error, "measured round trips may not outlive the process");
        }
    }

    /// What is known, for the process that takes over: the file's name, and what it would hold.
    pub fn hand_over(&self) -> io::Result<Option<(String, String)>> {
        let known = self.known().map(|(learned, _)| enveloped(&learned)).transpose()?;
        Ok(known.map(|text| (FILE.into(), text)))
    }

    /// What the file is to hold, and how much that is; `None`: it was never switched on.
    fn known(&self) -> Option<(Learned, (u64, u64))> {
        let now_s = unix_s(SystemTime::now());
        self.take_in(now_s);
        let control = self.control();
        let region = control.region.clone()?;
        let networks = control.store.remember(now_s);
        let silence = self.asks.get().map(|asks| asks.silence(now_s)).or_else(|| control.silence.clone());
        Some((Learned { region, networks, silence }, self.present(&control)))
    }

    fn is_write_due(&self) -> bool {
        let control = self.control();
        control.region.is_some() && control.written != self.present(&control)
    }

    fn present(&self, control: &Control) -> (u64, u64) {
        (control.store.generation(), control.store.taken() + self.outcome().asked)
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The region that a configuration's server stands in, where it learns.
fn region_name(config: &Config) -> Option<&str> {
    let region = config.server.region.filter(|_| config.latency.learning.is_on)?;
    Some(&config.regions[region.index()].name)
}

fn recall(control: &mut Control, region: &str, state: &StateDir, now_s: u64) {
    let Some(Learned { region: before, networks, silence }) = state.read(FILE) else { return };
    control.silence = silence;
    if before != region {
        tracing::info!("this server stands in {region} now: what it measured from {before} is forgotten");
        return;
    }
    let left_out = control.store.recall(networks, now_s);
    control.written = (control.store.generation(), 0);
    tracing::info!(networks = control.store.len(), left_out, "round trips measured before the restart were read");
}

fn sort_by_weight(known: &mut [Measured]) {
    known.sort_by(|a, b| b.weight.total_cmp(&a.weight).then(a.network.cmp(&b.network)));
}

fn random_number() -> u64 {
    u64::from_ne_bytes(*random_secret().first_chunk().expect("sixteen bytes hold eight"))
}

/// Writes what is known, now. Waits for the disk.
pub fn write(live: &Live) {
    live.learning.write(&live.state);
}

/// Takes in reports and writes what is known, until the end.
pub async fn keep(live: Arc<Live>) {
    let mut tick = tokio::time::interval(TAKE_IN_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut write_at, mut forgot) = (Instant::now() + WRITE_EVERY, Instant::now());
    loop {
        tick.tick().await;
        live.learning.take_in(unix_s(SystemTime::now()));
        if forgot.elapsed() >= FORGET_EVERY {
            forgot = Instant::now();
            live.learning.control().store.forget_old(unix_s(SystemTime::now()));
        }
        if !live.state.is_kept() || Instant::now() < write_at || !live.learning.is_write_due() {
            continue;
        }
        let begun = Instant::now();
        let writing = live.clone();
        let written = tokio::task::spawn_blocking(move || write(&writing)).await;
        match written.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(()) | Err(Err(_)) => {} // written, or the program is ending
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
        }
        write_at = Instant::now() + WRITE_EVERY.max(PAUSE_PER_WRITING * begun.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        os::fd::AsFd,
        path::Path,
    };

    use super::*;
    use crate::config::{self, Source, model::RegionId};

    /// A server that stands in `region`, of regions in this order; it learns if there is any.
    fn config(regions: [&str; 2], region: &str, prospect: f64) -> Config {
        let region_toml =
            |(n, name): (usize, &str)| format!("[regions.{name}]\nlocation = \"FRA\"\nendpoints = [\"192.0.2.{n}\"]\n");
        let regions: String = regions.into_iter().enumerate().map(region_toml).collect();
        let learn = !region.is_empty();
        let text = format!(
            "[server]\nregion = \"{region}\"\n[latency]\nlearn = {learn}\nprospect = {prospect}\n{regions}\
             [zones.\"x.example\"]\nnameservers = [\"ns1.example.net.\"]\n"
        );
        let source = Source { name: "isochrone.toml".into(), text };
        config::parse(Arc::new(source), Path::new("")).unwrap_or_else(|report| panic!("{report}"))
    }

    fn now_s() -> u64 {
        unix_s(SystemTime::now())
    }

    /// A server that has measured 192.0.2.0/24 five times.
    fn learned(config: &Config, state: &StateDir) -> Learning {
        let learning = Learning::default();
        learning.adopt(config, state);
        for sample_us in [21_000, 20_000, 22_000, 21_000, 21_000] {
            let network = "192.0.2.0/24".parse().unwrap();
            learning.reports.try_send(Report::RoundTrip { network, sample_us }).unwrap();
        }
        learning.take_in(now_s());
        learning
    }

    fn known(learning: &Learning, config: &Config) -> Vec<(String, RegionId, f32, u32)> {
        let cells = learning.cells(config, now_s());
        cells.iter().map(|cell| (cell.network.to_string(), cell.region, cell.rtt_ms, cell.samples)).collect()
    }

    #[test]
    fn cells_are_of_the_region_whatever_its_number_and_of_no_other() {
        let eu = config(["us", "eu"], "eu", 0.0);
        let learning = learned(&eu, &StateDir::default());
        let cell = |region| [("192.0.2.0/24".to_string(), RegionId(region), 20.0, 5)];
        assert_eq!(known(&learning, &eu), cell(1));
        assert_eq!(known(&learning, &config(["eu", "us"], "eu", 0.0)), cell(0));
        assert_eq!(known(&learning, &config(["us", "eu"], "us", 0.0)), []);
        assert_eq!(known(&learning, &config(["us", "eu"], "", 0.0)), []);
    }

    #[test]
    fn what_was_learned_is_read_by_the_next_process_unless_it_stands_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(Some(folder.path())).unwrap();
        let eu = config(["us", "eu"], "eu", 0.0);
        let before = learned(&eu, &state);
        assert!(before.is_write_due());
        before.write(&state);
        assert!(!before.is_write_due());
        let after = Learning::default();
        after.adopt(&eu, &state);
        assert_eq!(known(&after, &eu), known(&before, &eu));
        assert!(!after.is_write_due());
        let elsewhere = Learning::default();
        let us = config(["us", "eu"], "us", 0.0);
        elsewhere.adopt(&us, &state);
        assert_eq!(known(&elsewhere, &us), []);
    }

    #[test]
    fn a_server_that_does_not_learn_neither_reads_nor_writes() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(Some(folder.path())).unwrap();
        std::fs::write(folder.path().join(FILE), "damaged").unwrap();
        let learning = Learning::default();
        learning.adopt(&config(["us", "eu"], "", 0.0), &state);
        learning.write(&state);
        assert_eq!(std::fs::read_to_string(folder.path().join(FILE)).unwrap(), "damaged");
        assert_eq!(learning.status(now_s()), None);
        assert_eq!(learning.measurements(None, now_s()).region, None);
    }

    #[test]
    fn a_reload_to_another_region_forgets_and_one_without_learning_only_hides() {
        let [eu, us, off] = ["eu", "us", ""].map(|region| config(["us", "eu"], region, 0.0));
        let learning = learned(&eu, &StateDir::default());
        learning.adopt(&off, &StateDir::default());
        assert_eq!((known(&learning, &off), learning.status(now_s())), (vec![], None));
        learning.adopt(&eu, &StateDir::default());
        assert_eq!(known(&learning, &eu).len(), 1);
        learning.adopt(&us, &StateDir::default());
        assert_eq!((known(&learning, &us), learning.status(now_s()).unwrap().networks), (vec![], 0));
    }

    #[test]
    fn a_thread_asks_each_network_once_and_reports_what_it_measures() {
        let eu = config(["us", "eu"], "eu", 1.0);
        let learning = Arc::new(learned(&eu, &StateDir::default()));
        let mut learner = Learner::new(learning.clone());
        let [measured, new, here] = ["192.0.2.9", "198.51.100.9", "127.0.0.1"].map(|text| text.parse().unwrap());
        for client in [measured, new, here] {
            assert!(learner.is_on() && learner.is_drawn());
            assert_eq!(learner.claim(client, now_s()), client == new, "{client}");
            learner.drawn(client, now_s(), client == new, false);
        }
        assert!(!learner.claim(new, now_s()));
        learner.came_by_tcp(new, now_s(), true);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        learner.connection_ends((new, 4711).into(), server.as_fd());
        learning.take_in(now_s());
        let of_new = learning.measurements(Some(new), now_s()).networks;
        assert_eq!((of_new.len(), of_new[0].samples, of_new[0].sends_client_subnets), (1, 1, true));
        let status = learning.status(now_s()).unwrap();
        assert_eq!((status.asked, status.came, status.gained, status.networks), (1, 1, 1, 2));
    }

    #[test]
    fn a_thread_takes_up_what_a_reload_says() {
        let learning = Arc::new(Learning::default());
        let mut learner = Learner::new(learning.clone());
        assert!(!learner.is_on() && !learner.is_drawn());
        learning.adopt(&config(["us", "eu"], "eu", 1.0), &StateDir::default());
        learner.adopt();
        assert!(learner.is_on() && learner.is_drawn());
    }
}
