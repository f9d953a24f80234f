//! Probing an endpoint that is a host name: all of its addresses at once, as far as there are places, and one verdict out of what came
//! of each.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinError, JoinSet},
    time::Instant,
};

use super::{NetProbe, Phase, ProbeError, ProbeResult, probe_address, resolve::NameError};
use crate::health::check::Check;

/// What ended after the verdict and was not taken up within so long belongs to a target that is gone.
const LATE_LASTS: Duration = Duration::from_secs(2 * 86_400);

/// When certificates run out that were seen only after a success had decided, by name and check: for the next result.
#[derive(Debug, Clone, Default)]
pub struct Late(Arc<Mutex<Seen>>);

/// When it was seen, and when it runs out.
type Seen = HashMap<(String, Arc<Check>), (Instant, i64)>;

impl Late {
    fn note(&self, name: String, check: Arc<Check>, expires_s: i64) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, (at, _)| at.elapsed() < LATE_LASTS);
        let entry = seen.entry((name, check)).or_insert((Instant::now(), expires_s));
        entry.1 = entry.1.min(expires_s);
    }

    fn take(&self, name: &str, check: &Arc<Check>) -> Option<i64> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.is_empty() {
            return None;
        }
        seen.remove(&(name.to_owned(), check.clone())).map(|(_, expires_s)| expires_s)
    }
}

/// A probe of one address that ended, and the place that it had beside the target's own.
type Ended = (ProbeResult, Option<OwnedSemaphorePermit>);

/// What the probes of all addresses share.
struct Addresses {
    check: Arc<Check>,
    name: String,
    net: NetProbe,
    deadline: Instant,
    waiting: VecDeque<IpAddr>,
    under_way: JoinSet<Ended>,
}

impl Addresses {
    /// Begins with the next address. False when there is none left, or no time.
    fn begin(&mut self, place: Option<OwnedSemaphorePermit>) -> bool {
        if Instant::now() >= self.deadline {
            return false;
        }
        let Some(address) = self.waiting.pop_front() else { return false };
        let (check, name, tls, deadline) = (self.check.clone(), self.name.clone(), self.net.tls.clone(), self.deadline);
        self.under_way.spawn(async move { (probe_address(&check, address, Some(&name), &tls, deadline).await, place) });
        true
    }

    /// Lets those that are under way end, for the sake of what certificates they see. `place` is held for one of them.
    fn end_in_background(self, place: Option<OwnedSemaphorePermit>) {
        let Addresses { check, name, net, mut under_way, .. } = self;
        if under_way.is_empty() || !check.kind.has_tls() {
            return; // dropping them ends them
        }
        tokio::spawn(async move {
            let mut first = None;
            while let Some(ended) = under_way.join_next().await {
                first = ended.ok().and_then(|(result, _)| earlier(first, result.certificate_expires_s)).or(first);
            }
            if let Some(expires_s) = first {
                net.late.note(name, check, expires_s);
            }
            drop(place);
        });
    }
}

/// Probes every address that a host name has now, all at once. The first success decides: waiting for an address that hangs would
/// tell nothing more and delay the verdict. Connect is the lowest of those that succeeded by then. It is a failure only if each of
/// them failed: one that this host could not probe might be alive. Addresses of a family that this host does not have count only where
/// there are no others.
///
/// One address is probed in the target's own place, each further one in one of `spare`; where there are too few, one after the other.
pub async fn probe(
    check: Arc<Check>,
    name: String,
    net: NetProbe,
    spare: Arc<Semaphore>,
    deadline: Instant,
) -> ProbeResult {
    let begun = Instant::now();
    let found = match net.resolver.addresses(&name, check.interval, deadline).await {
        Ok(found) => found,
        Err(error) => return ProbeResult::failed(unresolved(error, &check), begun.elapsed()),
    };
    let seen_late = net.late.take(&name, &check);
    let waiting = found.addresses.iter().copied().collect();
    let mut probes = Addresses { check, name, net, deadline, waiting, under_way: JoinSet::new() };
    probes.begin(None);
    while !probes.waiting.is_empty()
        && let Ok(place) = spare.clone().try_acquire_owned()
        && probes.begin(Some(place))
    {}
    let (mut failed, mut untold, mut without, mut expires_s) = (None, None, None, seen_late);
    while let Some(joined) = probes.under_way.join_next().await {
        let (result, place) = joined.unwrap_or_else(|error| (ended_early(error), None));
        expires_s = earlier(expires_s, result.certificate_expires_s);
        match &result.outcome {
            Ok(()) => {
                let mut result = result;
                while let Some(Ok((also, _))) = probes.under_way.try_join_next() {
                    result.connect = if also.is_success() { result.connect.min(also.connect) } else { result.connect };
                    expires_s = earlier(expires_s, also.certificate_expires_s);
                }
                probes.end_in_background(place);
                let (total, lookup_trouble) = (begun.elapsed(), found.trouble);
                return ProbeResult { total, lookup_trouble, certificate_expires_s: expires_s, ..result };
            }
            Err(ProbeError::NoAddress(_)) => _ = without.get_or_insert(result),
            Err(error) if error.is_inconclusive() => _ = untold.get_or_insert(result),
            Err(_) => _ = failed.get_or_insert(result),
        }
        probes.begin(place);
    }
    let total = begun.elapsed();
    let left = probes.waiting.len();
    let result = match (untold, failed) {
        (Some(untold), _) => untold,
        (None, Some(failed)) if left == 0 => failed,
        (None, None) if left == 0 && without.is_some() => without.unwrap_or_default(),
        (None, _) => ProbeResult::failed(ProbeError::Local(crowded(left)), total),
    };
    ProbeResult { total, lookup_trouble: found.trouble, certificate_expires_s: expires_s, ..result }
}

fn crowded(left: usize) -> String {
    format!(
        "{left} of the name's addresses had no turn in time; raise the limit of open files (LimitNOFILE, ulimit -n)"
    )
}

fn unresolved(error: NameError, check: &Check) -> ProbeError {
    match error {
        NameError::Pending => ProbeError::Timeout { phase: Phase::Resolve, after: check.timeout },
        NameError::Queued => ProbeError::Local(error.to_string()),
        NameError::NoSuchName(words) | NameError::Unanswered(words) => ProbeError::Resolve(words.to_string()),
    }
}

/// What a probe came to that did not end by itself.
fn ended_early(error: JoinError) -> ProbeResult {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic), // the schedule logs, counts and restarts
        Err(_) => ProbeResult::failed(ProbeError::Panicked, Duration::ZERO), // the runtime is going down
    }
}

/// The earlier of those that are known.
fn earlier(one: Option<i64>, other: Option<i64>) -> Option<i64> {
    one.into_iter().chain(other).min()
}
