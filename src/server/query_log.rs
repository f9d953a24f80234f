//! The query log: one thread that takes what the workers noted, makes lines of it and writes them. Whatever its file does (slow, full,
//! missing, not ours to write), no query waits for it: lines wait in the workers' rings, and what finds no room there is counted.

mod line;
mod output;
pub mod read;

use std::{
    io,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use self::{line::Formatter, output::Output};
use super::{live::Live, world::World};
use crate::{
    config::{Config, model::LogTarget},
    routing::policy::Reason,
    sys::sandbox::is_out_of_reach,
    telemetry::query_log::{Logging, QueryLog, Terms},
};

/// Entries of each ring that are taken out at a time.
const BATCH: usize = 256;
/// Turns of taking and writing before the thread listens again.
const TURNS_MAX: usize = 64;
/// From one look at the rings to the next, after one that found something, one that found nothing, and one that could not write
/// what it had. The last is longer: there is nothing to gain.
const PAUSE_BUSY: Duration = Duration::from_millis(5);
const PAUSE_IDLE: Duration = Duration::from_millis(20);
const PAUSE_BLOCKED: Duration = Duration::from_millis(100);
/// How often it is looked whether the file is still the one at its path.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);
/// After the log was turned off: for so long workers may still note what they answer with the configuration before.
const CLOSE_AFTER: Duration = Duration::from_secs(2);
/// How long the end of the program waits for the last lines.
const LAST_LINES_WITHIN: Duration = Duration::from_millis(500);
/// So long without a loss, the log is said to keep up again. Also the least time from one word on losses to the next.
const CALM: Duration = Duration::from_secs(60);

/// How a world's queries are logged. `before` is kept where nothing changes, and with it the workers' rings.
pub fn logging(log: &Arc<QueryLog>, world: &World, before: Option<Logging>) -> Option<Logging> {
    let config = world.config.query_log.as_ref().filter(|config| config.sample > 0.0)?;
    let zone = |route: &crate::routing::plan::Route| world.config.zones[route.zone].origin.to_string();
    let terms = Terms {
        share: config.sample,
        queue_max: config.queue_max,
        routes: world.plan.routes.iter().map(|route| (zone(route), route.label.clone())).collect(),
        regions: world.plan.region_names.clone(),
        reasons: Reason::ALL.map(Reason::as_str).to_vec(),
    };
    let kept = before.filter(|before| *before.terms == terms);
    Some(kept.unwrap_or_else(|| Logging { log: log.clone(), terms: Arc::new(terms) }))
}

/// What stands in the way of a log already now. It is no error: it may be mended, or happen, at any time.
pub fn doubt(config: &Config) -> Option<String> {
    let Some(LogTarget::File(path)) = config.query_log.as_ref().map(|config| &config.target) else { return None };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty())?;
    if is_out_of_reach(path) {
        return Some(format!(
            "the query log {} is outside of the folders that the server left itself at its start: it is written after a restart",
            path.display()
        ));
    }
    (!folder.is_dir()).then(|| {
        let (path, folder) = (path.display(), folder.display());
        format!("the query log {path} has no folder; run: mkdir -p {folder}, and let the server's user write there")
    })
}

/// The thread as the control plane has it. It is begun when there is something to log for the first time.
pub struct Keeper {
    log: Arc<QueryLog>,
    thread: Option<Thread>,
    target: Option<LogTarget>,
    /// It was said that there can be no thread.
    is_without: bool,
    losses: Losses,
}

struct Thread {
    words: Sender<Word>,
    handle: JoinHandle<()>,
}

/// What the thread is told.
enum Word {
    Use(Option<LogTarget>),
    Reopen,
    Stop(Sender<()>),
}

/// What was said of lines that were lost.
#[derive(Default)]
struct Losses {
    seen: u64,
    /// Lost when it was last said.
    said: u64,
    /// When the last loss was noticed; `None`: all is calm.
    noticed: Option<Instant>,
}

impl Keeper {
    /// Writes nowhere yet.
    pub fn new(log: Arc<QueryLog>) -> Keeper {
        Keeper { log, thread: None, target: None, is_without: false, losses: Losses::default() }
    }

    /// Writes where a configuration says, from now on.
    pub fn take_up(&mut self, world: &World) {
        self.target = world.config.query_log.as_ref().map(|config| config.target.clone());
        self.begin();
    }

    /// Opens the file anew: what had its name was moved away, and keeps what was noted before.
    pub fn reopen(&self) {
        self.tell(Word::Reopen);
    }

    /// To be called now and then: begins anew after a panic, tries again to begin where that failed, and says when lines begin to be
    /// lost and when that is over.
    pub fn look(&mut self, live: &Live) {
        if self.thread.as_ref().is_some_and(|thread| thread.handle.is_finished()) {
            live.count_panic("query-log");
            tracing::error!("the thread of the query log panicked; starting it again");
            self.thread = None;
        }
        self.begin_if_without();
        self.losses.look(self.log.dropped(), Instant::now());
    }

    /// Has the last lines written, when nobody notes anything any more. Blocks for half a second at most.
    pub fn stop(self) {
        let (done, is_done) = mpsc::channel();
        self.tell(Word::Stop(done));
        if self.thread.is_some_and(|thread| !thread.handle.is_finished())
            && is_done.recv_timeout(LAST_LINES_WITHIN) == Err(RecvTimeoutError::Timeout)
        {
            tracing::warn!("the last lines of the query log are not written: its file takes too long");
        }
    }

    fn begin_if_without(&mut self) {
        if self.thread.is_none() {
            self.begin();
        }
    }

    fn begin(&mut self) {
        if self.thread.is_none() && self.target.is_some() {
            self.thread = start(self.log.clone()).inspect_err(|error| self.say_without(error)).ok();
            self.is_without = self.thread.is_none();
        }
        self.tell(Word::Use(self.target.clone()));
    }

    /// Says once that there is no thread; it is tried again at each look.
    fn say_without(&self, error: &io::Error) {
        if !self.is_without {
            tracing::error!("no thread for the query log: {error}; raise `ulimit -u`. It is tried again");
        }
    }

    fn tell(&self, word: Word) {
        if let Some(thread) = &self.thread {
            let _it_panicked_and_is_started_again_soon = thread.words.send(word);
        }
    }
}

impl Losses {
    fn look(&mut self, dropped: u64, now: Instant) {
        if dropped > self.seen {
            if self.noticed.is_none() {
                tracing::warn!(
                    dropped = dropped - self.said,
                    "lines of the query log are being dropped, since its file does not take them fast enough; queries are answered \
                     all the same. Use a faster disk, or a lower `sample` in [query-log]"
                );
                self.said = dropped;
            }
            (self.seen, self.noticed) = (dropped, Some(now));
        } else if self.noticed.is_some_and(|noticed| now - noticed >= CALM) {
            tracing::info!(dropped = dropped - self.said, "no line of the query log was dropped for a minute");
            (self.said, self.noticed) = (dropped, None);
        }
    }
}

fn start(log: Arc<QueryLog>) -> io::Result<Thread> {
    let (words, heard) = mpsc::channel();
    let mut scribe = Scribe { log, output: None, formatter: Formatter::default(), close_at: None };
    let handle = thread::Builder::new().name("query-log".into()).spawn(move || scribe.run(&heard))?;
    Ok(Thread { words, handle })
}

/// What the thread has.
struct Scribe {
    log: Arc<QueryLog>,
    output: Option<Output>,
    formatter: Formatter,
    /// When the output is to be closed, once the log was turned off.
    close_at: Option<Instant>,
}

impl Scribe {
    fn run(&mut self, words: &Receiver<Word>) {
        let mut pause = PAUSE_IDLE;
        let mut followed = Instant::now();
        loop {
            match words.recv_timeout(pause) {
                Ok(Word::Use(target)) => self.turn_to(target),
                Ok(Word::Reopen) => {
                    self.pass();
                    if let Some(output) = &mut self.output {
                        output.reopen(&self.log);
                    }
                }
                Ok(Word::Stop(done)) => {
                    self.end();
                    let _nobody_waits_any_more = done.send(());
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if followed.elapsed() >= FOLLOW_EVERY
                && let Some(output) = &mut self.output
            {
                followed = Instant::now();
                output.follow(&self.log);
            }
            pause = self.pass();
            if self.close_at.is_some_and(|at| at <= Instant::now()) {
                self.close();
            }
        }
    }

    fn turn_to(&mut self, target: Option<LogTarget>) {
        match target {
            None => self.close_at = self.output.is_some().then(|| Instant::now() + CLOSE_AFTER),
            Some(target) => {
                self.close_at = None;
                if self.output.as_ref().is_none_or(|output| *output.target() != target) {
                    self.pass();
                    self.close();
                    self.output = Some(Output::new(target));
                }
            }
        }
    }

    fn close(&mut self) {
        self.close_at = None;
        if let Some(output) = self.output.take() {
            output.close(&self.log);
        }
    }

    /// Writes the last lines, and says how many could not be written.
    fn end(&mut self) {
        while self.pass() == Duration::ZERO {}
        let before = self.log.dropped();
        self.close();
        self.pass(); // counts what has no output
        let lost = self.log.dropped() - before;
        if lost > 0 {
            tracing::warn!(lost, "lines of the query log could not be written before the end");
        }
    }

    /// Writes what waits, as far as the output takes it. Returns how long to rest.
    fn pass(&mut self) -> Duration {
        let pause = self.write();
        if pause == PAUSE_BLOCKED {
            self.log.reap();
        }
        pause
    }

    fn write(&mut self) -> Duration {
        let Scribe { log, output, formatter, .. } = self;
        let Some(output) = output else {
            let lost = log.drain(usize::MAX, &mut |_, _| ());
            log.count_lost(lost as u64);
            return if log.is_empty() { FOLLOW_EVERY } else { PAUSE_IDLE };
        };
        let mut pause = PAUSE_IDLE;
        for _ in 0..TURNS_MAX {
            if !output.has_room() && !output.flush(log) {
                return PAUSE_BLOCKED;
            }
            let taken = log.drain(BATCH, &mut |terms, entry| formatter.write(terms, entry, output.buffer()));
            if taken == 0 {
                return if output.flush(log) { pause } else { PAUSE_BLOCKED };
            }
            pause = PAUSE_BUSY;
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_could_not_be_begun_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = Keeper::new(Arc::default());
        keeper.begin_if_without();
        assert!(keeper.thread.is_none(), "nothing is logged");
        (keeper.target, keeper.is_without) = (Some(LogTarget::File(folder.path().join("log"))), true);
        keeper.begin_if_without();
        assert!(keeper.thread.is_some() && !keeper.is_without);
        keeper.stop();
        assert!(folder.path().join("log").exists(), "it was told where to write");
    }

    #[test]
    fn losses_are_said_when_they_begin_and_when_they_are_over() {
        let (mut losses, start) = (Losses::default(), Instant::now());
        let mut look = |dropped, after_s| {
            losses.look(dropped, start + Duration::from_secs(after_s));
            (losses.said, losses.noticed.is_some())
        };
        assert_eq!(look(0, 0), (0, false));
        assert_eq!(look(5, 1), (5, true));
        assert_eq!(look(900, 2), (5, true), "once");
        assert_eq!(look(900, 61), (5, true));
        assert_eq!(look(900, 62), (900, false));
        assert_eq!(look(901, 63), (901, true));
    }
}
