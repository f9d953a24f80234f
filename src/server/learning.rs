//! What the running server learns of its clients' round trips: the threads that answer queries report, the control plane keeps, and
//! the state directory outlives the process. What a round trip means is `latency::learn`'s to know.

mod learner;
mod told;

use std::{
    io,
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
    parallel::blocking,
    state::{StateDir, Stored, enveloped},
    world::unix_s,
};
use crate::{
    config::model::Config,
    geo::Network,
    latency::{
        learn::{Asks, Cell, Measured, Outcome, Remembered, Silence, Store, Taken, asks::SAMPLES_WANTED},
        measurement::{self, Row},
    },
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
        blocking(move || write(&writing)).await;
        write_at = Instant::now() + WRITE_EVERY.max(PAUSE_PER_WRITING * begun.elapsed());
    }
}

#[cfg(test)]
mod tests;
