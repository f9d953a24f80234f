//! Overrides in the running server: taken in, published, kept on disk, ended in time.

use std::{sync::PoisonError, time::SystemTime};

use super::{Control, Live};
use crate::{
    config::{Config, suggest},
    routing::{Family, Plan, plan::Route, standing::Standing},
    server::{
        overrides::{self, Decision, Override, Overrides, Target, TooMany, matched},
        state::NotWritten,
        world::unix_s,
    },
};

/// Most routes that a warning names.
const NAMED_MAX: usize = 5;
/// Decisions of others that are taken in without a pause: whoever follows health waits for them.
const AT_ONCE: usize = 16;

/// What a decision did.
#[derive(Debug)]
pub struct Decided {
    /// The regions or endpoints that it is about.
    pub matches: Vec<String>,
    /// Those that it replaced or ended.
    pub replaced: Vec<Override>,
    /// Routes that have nothing left to answer with, in words.
    pub stranded: Option<String>,
    /// Why it will not outlive the process.
    pub unkept: Option<String>,
}

/// Why a decision was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum Undecided {
    /// Nothing is called so.
    #[error("{0}")]
    Unknown(String),
    /// There are too many.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// This process ends.
    #[error("another process is taking over from this one; ask again")]
    Left,
}

impl Live {
    /// The overrides in force.
    pub fn overrides(&self) -> Overrides {
        self.control().overrides.clone()
    }

    /// A number that is the same on servers that know the same decisions.
    pub fn overrides_digest(&self) -> u64 {
        self.control().overrides.digest()
    }

    /// Takes a decision in, publishes what follows from it, and keeps it on disk. Waits for the disk.
    ///
    /// # Errors
    /// It is about nothing, there are too many, or another process is taking over.
    pub fn decide(&self, mut new: Override) -> Result<Decided, Undecided> {
        new.node = self.cluster.node().unwrap_or_default();
        let mut decided = {
            let mut control = self.control();
            if control.has_left {
                return Err(Undecided::Left);
            }
            let matches = matched(&new.target, &control.world.plan);
            // What left the configuration can still be ended.
            let is_known = control.overrides.list().iter().any(|old| new.target.covers(&old.target));
            if matches.is_empty() && !is_known {
                return Err(Undecided::Unknown(unknown(&new.target, &control.world.plan)));
            }
            let replaced = control.overrides.set(new.clone())?;
            self.take_up_overrides(&mut control);
            let stranded = (new.state == Decision::Down).then(|| stranded(&control)).flatten();
            Decided { matches, replaced, stranded, unkept: None }
        };
        self.decided.send_modify(|count| *count += 1);
        decided.unkept = self.keep_overrides().err().map(|error| error.to_string());
        log(&new, &decided);
        Ok(decided)
    }

    /// Takes in decisions that another server knows, publishes what follows from them, and keeps them on disk. Waits for the disk.
    pub fn learn(&self, from: &str, decisions: Vec<Override>) {
        let mut news: Vec<Override> = Vec::new();
        for some in decisions.chunks(AT_ONCE) {
            let mut control = self.control();
            if control.has_left {
                return; // who has taken over hears of them, too
            }
            let before = news.len();
            news.extend(some.iter().filter(|new| control.overrides.merge((*new).clone())).cloned());
            if news.len() > before {
                control.overrides.expire(unix_s(SystemTime::now()));
                self.take_up_overrides(&mut control);
            }
        }
        if news.is_empty() {
            return;
        }
        self.decided.send_modify(|count| *count += 1);
        for o in news.iter().filter(|o| !o.over) {
            let (target, state) = (o.target.to_string(), o.state.as_str());
            let (who, why, node) = (&o.by, &o.reason, &o.node);
            tracing::warn!(what = target, state, until = o.until, who, why, node, from, "override from the cluster");
        }
        let _told_in_the_log = self.keep_overrides();
    }

    /// Counts changes of what operators decided.
    pub fn decided(&self) -> tokio::sync::watch::Receiver<u64> {
        self.decided.subscribe()
    }

    /// Ends overrides whose time has come; true when the list on disk is to be written anew.
    pub fn end_overrides(&self, now_s: u64) -> bool {
        let mut control = self.control();
        let over = control.overrides.expire(now_s);
        if over.is_empty() {
            return false;
        }
        self.take_up_overrides(&mut control);
        for o in &over {
            let (target, state) = (o.target.to_string(), o.state.as_str());
            tracing::info!(what = target, state, who = o.by, why = o.reason, "override ended: its time is over");
        }
        true
    }

    /// Writes the overrides to the state directory. Waits for the disk.
    ///
    /// # Errors
    /// It cannot be written to.
    pub fn keep_overrides(&self) -> Result<(), NotWritten> {
        // One at a time, each with what holds when its turn comes: the last one writes the last word.
        let _turn = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let overrides = self.overrides();
        self.state
            .write(overrides::FILE, &overrides)
            .inspect_err(|error| tracing::error!("overrides hold, but will not outlive this process: {error}"))
    }

    pub(super) fn take_up_overrides(&self, control: &mut Control) {
        let world = control.world.clone();
        control.health.view.force(&world.plan, control.overrides.forces(&world.plan));
        self.publish(control, false, None);
    }
}

/// What was kept by the process before, without what ended meanwhile; `node`: this server's name in a cluster.
pub(super) fn recall(state: &crate::server::state::StateDir, node: Option<&str>) -> Overrides {
    let mut overrides: Overrides = state.read(overrides::FILE).unwrap_or_default();
    overrides.adopt(node.unwrap_or_default());
    overrides.expire(unix_s(SystemTime::now()));
    for o in overrides.list() {
        let (target, state) = (o.target.to_string(), o.state.as_str());
        tracing::info!(what = target, state, until = o.until, who = o.by, why = o.reason, "override holds from before");
    }
    overrides
}

/// The one line for each decision.
fn log(new: &Override, decided: &Decided) {
    let (target, state, matches) = (new.target.to_string(), new.state.as_str(), decided.matches.join(" "));
    tracing::warn!(
        what = target,
        state,
        until = new.until,
        who = new.by,
        why = new.reason,
        matches,
        "override by an operator"
    );
    if let Some(stranded) = &decided.stranded {
        tracing::warn!("{stranded}");
    }
}

/// That nothing is called so, and what is.
fn unknown(target: &Target, plan: &Plan) -> String {
    let regions: Vec<&str> = plan.region_names.iter().map(String::as_str).collect();
    let region_target = Target::new(target.region(), None);
    let is_region = regions.iter().any(|name| region_target.is_region(name));
    let Some(endpoint) = target.endpoint().filter(|_| is_region) else {
        return format!("no region is called `{}`; {}", target.region(), suggest(target.region(), &regions, ""));
    };
    let of_region = matched(&Target::new(target.region(), Some("*")), plan);
    let endpoints: Vec<&str> = of_region.iter().filter_map(|name| Some(name.split_once('/')?.1)).collect();
    format!("region `{}` has no endpoint `{endpoint}`; {}", target.region(), suggest(endpoint, &endpoints, ""))
}

/// Routes whose every region, or every region that some rule leaves, is forced down.
fn stranded(control: &Control) -> Option<String> {
    let (plan, config) = (&control.world.plan, &control.world.config);
    let view = control.health.view.view();
    let is_out = |route: &Route, family: Family| {
        let sets = std::iter::once(&route.regions).chain(&route.rules);
        sets.into_iter().any(|allowed| {
            let pools = allowed.iter().filter_map(|region| route.pool(*region));
            let mut standings =
                pools.filter(|id| plan.pools[id.0 as usize].size(family) > 0).map(|id| view.pool(id).standing(family));
            let first = standings.next();
            first == Some(Standing::Out) && standings.all(|standing| standing == Standing::Out)
        })
    };
    let is_stranded = |route: &&Route| is_out(route, Family::V4) || is_out(route, Family::V6);
    let names: Vec<String> = plan.routes.iter().filter(is_stranded).map(|route| name(route, config)).collect();
    let (named, more) = names.split_at(names.len().min(NAMED_MAX));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    (!named.is_empty()).then(|| {
        format!("nothing is left to answer with, for all or some clients, on {}{more}: every region they may use is forced down", named.join(", "))
    })
}

fn name(route: &Route, config: &Config) -> String {
    format!("{} in {}", route.label, config.zones[route.zone].origin.to_string().trim_end_matches('.'))
}
