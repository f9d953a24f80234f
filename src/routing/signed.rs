//! Signatures of everything that routes can answer with now: for each route of a signed zone, region and family, those of the
//! members that are up and those of all members (for when nothing is usable), for each window, HTTPS records included; where something
//! is held down or an operator decided otherwise, also those of the members that then answer. Made on the control plane before the
//! health that they belong to is published; what did not change is taken over.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use super::{
    hash::{WINDOWS, window},
    health::HealthView,
    plan::{Family, Plan, Pool, PoolId, Ring, Route},
    policy::{self, Reason},
    standing::{OtherMembers, PoolState},
};
use crate::{
    config::model::RegionId,
    wire::rtype,
    zone::{Fragment, Https, ZoneTable, sign::Signer},
};

/// The signatures of all routes.
#[derive(Default)]
pub struct SignedAnswers {
    routes: Vec<Option<RouteRrsigs>>, // in the order of `Plan::routes`; `None`: the zone is not signed
}

#[derive(Clone)]
struct RouteRrsigs {
    signer: Arc<Signer>,
    regions: Arc<[Arc<RegionRrsigs>]>, // in the order of `Route::regions`
}

/// The signatures of a region's answers on a route.
struct RegionRrsigs {
    up: Arc<[bool]>,
    of_up: Families,
    of_all: Arc<Families>,
    of_others: Option<OtherRrsigs>,
}

/// The signatures where something is held down, or an operator decided who answers.
struct OtherRrsigs {
    members: Arc<OtherMembers>,
    of_drained: Families,
    of_last_resort: Families,
    of_failed: Families,
}

/// By family; of names, the first alone.
type Families = [Windows; 3];

/// The signatures of the RRsets that the windows of a ring make.
#[derive(Default)]
struct Windows {
    rrsets: Vec<Signed>,
    by_window: Option<Box<[u8; WINDOWS as usize]>>, // `None`: one RRset for all
}

#[derive(Clone)]
struct Signed {
    rdatas: Rdatas,
    rrsigs: Arc<Fragment>,
}

/// The data of an RRset in canonical order.
type Rdatas = Vec<Vec<u8>>;

/// Signatures by the type and data that they cover, to be taken over.
type Known = BTreeMap<(u16, Rdatas), Arc<Fragment>>;

/// Calls its second argument with each number below its first, once, in any order and on any threads, and returns when all of it
/// is done.
pub type ForEach<'f> = &'f dyn Fn(usize, &(dyn Fn(usize) + Sync));

impl SignedAnswers {
    /// For a plan and its health. `before` is that of the same plan, or empty; signatures of the same signer are taken over.
    pub fn new(plan: &Plan, health: &HealthView, zones: &ZoneTable, before: &SignedAnswers) -> SignedAnswers {
        SignedAnswers::with(plan, health, zones, before, &|n, work| (0..n).for_each(work))
    }

    /// As [`SignedAnswers::new`]; `for_each` has the signing done, region by region of each route, where anything changed.
    pub fn with(
        plan: &Plan,
        health: &HealthView,
        zones: &ZoneTable,
        before: &SignedAnswers,
        for_each: ForEach,
    ) -> SignedAnswers {
        let mut to_sign = Vec::new();
        let mut routes: Vec<Option<RouteRrsigs>> = Vec::with_capacity(plan.routes.len());
        for (index, route) in plan.routes.iter().enumerate() {
            let signer = zones.zones()[route.zone].signed.as_ref().map(|signed| &signed.signer);
            let before = before.routes.get(index).and_then(Option::as_ref);
            let before = before.filter(|before| signer.is_some_and(|signer| Arc::ptr_eq(&before.signer, signer)));
            if let Some(signer) = signer {
                let jobs = (0..route.regions.len()).map(|position| Job {
                    index,
                    route,
                    position,
                    signer,
                    before: before.map(|before| &before.regions[position]),
                });
                to_sign.extend(jobs.filter(|job| job.unchanged(health).is_none()));
            }
            routes.push(before.cloned());
        }
        let signed: Vec<OnceLock<Arc<RegionRrsigs>>> = to_sign.iter().map(|_| OnceLock::new()).collect();
        for_each(to_sign.len(), &|n| {
            let _ = signed[n].set(Arc::new(to_sign[n].sign(plan, health))); // each number comes once
        });
        let mut signed = to_sign.iter().zip(signed).peekable();
        while let Some((first, _)) = signed.peek() {
            let Job { index, route, signer, .. } = **first;
            let mut regions: Vec<Option<Arc<RegionRrsigs>>> = match &routes[index] {
                Some(before) => before.regions.iter().cloned().map(Some).collect(),
                None => vec![None; route.regions.len()],
            };
            while let Some((job, made)) = signed.next_if(|(job, _)| job.index == index) {
                regions[job.position] = made.into_inner();
            }
            let regions = regions.into_iter().map(|made| made.expect("`for_each` has done every job")).collect();
            routes[index] = Some(RouteRrsigs { signer: signer.clone(), regions });
        }
        SignedAnswers { routes }
    }

    /// The signatures of what a route (number `index`) answers.
    pub fn rrsigs(
        &self,
        index: usize,
        route: &Route,
        region: RegionId,
        family: Family,
        reason: Reason,
        network_hash: u64,
    ) -> Option<&Fragment> {
        let signed = self.routes.get(index)?.as_ref()?;
        let region = &signed.regions[route.regions.iter().position(|r| *r == region)?];
        let families = match (reason, &region.of_others) {
            (Reason::Best | Reason::Failover, _) | (Reason::Drained | Reason::LastResort, None) => &region.of_up,
            (Reason::Drained, Some(others)) => &others.of_drained,
            (Reason::LastResort, Some(others)) => &others.of_last_resort,
            (Reason::AllDown, Some(others)) => &others.of_failed,
            (Reason::AllDown, None) => &*region.of_all,
        };
        let windows = &families[family as usize];
        let n = windows.by_window.as_ref().map_or(0, |by| by[window(network_hash) as usize]);
        windows.rrsets.get(usize::from(n)).map(|signed| &*signed.rrsigs)
    }
}

/// A region of a route to be signed.
struct Job<'a> {
    index: usize,
    route: &'a Route,
    position: usize,
    signer: &'a Arc<Signer>,
    before: Option<&'a Arc<RegionRrsigs>>,
}

impl Job<'_> {
    fn pool(&self) -> PoolId {
        self.route.pool(self.route.regions[self.position]).expect("a route has a pool for each of its regions")
    }

    /// The signatures before, when they are those of the same members.
    fn unchanged(&self, health: &HealthView) -> Option<&Arc<RegionRrsigs>> {
        let PoolState { up, others, .. } = health.pool(self.pool());
        let is_same = |before: &RegionRrsigs| match (&before.of_others, others) {
            (None, None) => true,
            (Some(before), Some(now)) => Arc::ptr_eq(&before.members, now) || before.members == *now,
            _ => false,
        };
        self.before.filter(|before| (Arc::ptr_eq(&before.up, up) || before.up == *up) && is_same(before))
    }

    fn sign(&self, plan: &Plan, health: &HealthView) -> RegionRrsigs {
        let pool = &plan.pools[self.pool().0 as usize];
        let PoolState { up, others, .. } = health.pool(self.pool());
        let mut known = self.before.map(|before| before.known()).unwrap_or_default();
        let mut families = |up: Option<&[bool]>| {
            Family::ALL.map(|family| windows(self.route, pool, family, up, self.signer, &mut known))
        };
        let of_all = match self.before {
            Some(before) => before.of_all.clone(),
            None => Arc::new(families(None)),
        };
        let of_others = others.as_ref().map(|members| OtherRrsigs {
            members: members.clone(),
            of_drained: families(Some(&members.drained)),
            of_last_resort: families(Some(&members.last_resort)),
            of_failed: families(Some(&members.failed)),
        });
        RegionRrsigs { up: up.clone(), of_up: families(Some(up)), of_all, of_others }
    }
}

impl RegionRrsigs {
    fn known(&self) -> Known {
        let mut known = Known::new();
        let of_others = self.of_others.iter();
        let of_others = of_others.flat_map(|others| [&others.of_drained, &others.of_last_resort, &others.of_failed]);
        for families in [&self.of_up, &*self.of_all].into_iter().chain(of_others) {
            for (windows, rtype) in families.iter().zip([rtype::A, rtype::AAAA, rtype::HTTPS]) {
                known.extend(windows.rrsets.iter().map(|s| ((rtype, s.rdatas.clone()), s.rrsigs.clone())));
            }
        }
        known
    }
}

fn windows(
    route: &Route,
    pool: &Pool,
    family: Family,
    up: Option<&[bool]>,
    signer: &Signer,
    known: &mut Known,
) -> Windows {
    let mut made = Windows::default();
    let mut numbers: BTreeMap<Rdatas, u8> = BTreeMap::new();
    let is_windowed = pool.name.is_none() && pool.size(family) > route.max_answers;
    let mut by_window = Box::new([0; WINDOWS as usize]);
    for n in 0..if is_windowed { WINDOWS } else { 1 } {
        let Some((rtype, rdatas)) = answer(route, pool, family, up, n) else { break };
        let number = *numbers.entry(rdatas.clone()).or_insert_with(|| {
            let key = (rtype, rdatas.clone());
            let rrsigs = known
                .entry(key)
                .or_insert_with(|| Arc::new(signer.fragment(&route.owner, rtype, route.ttl_s, &rdatas)))
                .clone();
            made.rrsets.push(Signed { rdatas, rrsigs });
            (made.rrsets.len() - 1) as u8
        });
        by_window[n as usize] = number;
    }
    made.by_window = is_windowed.then_some(by_window);
    made
}

/// Type and data of the answer in window `n`; `None` when there is none.
fn answer(route: &Route, pool: &Pool, family: Family, up: Option<&[bool]>, n: u32) -> Option<(u16, Rdatas)> {
    let (rtype, mut rdatas): (u16, Rdatas) = match (&pool.name, family) {
        (Some(name), Family::V4) => (rtype::CNAME, vec![name.as_wire().to_vec()]),
        (Some(_), _) => return None,
        (None, Family::V4) => (rtype::A, addresses(&pool.v4, up, route, n)),
        (None, Family::V6) => (rtype::AAAA, addresses(&pool.v6, up, route, n)),
        (None, Family::Either) => (rtype::HTTPS, vec![https(route.https.as_ref()?, pool, up, route, n)]),
    };
    rdatas.sort();
    (!rdatas.is_empty()).then_some((rtype, rdatas))
}

fn https(https: &Https, pool: &Pool, up: Option<&[bool]>, route: &Route, n: u32) -> Vec<u8> {
    let v4 = policy::answers_of_window(&pool.v4, up, route.max_answers, n);
    let v6 = policy::answers_of_window(&pool.v6, up, route.max_answers, n);
    https.pieces(v4, v6).flat_map(|piece| piece.as_bytes().to_vec()).collect()
}

fn addresses<A: AsRef<[u8]>>(ring: &Ring<A>, up: Option<&[bool]>, route: &Route, n: u32) -> Rdatas {
    policy::answers_of_window(ring, up, route.max_answers, n).map(|address| address.as_ref().to_vec()).collect()
}
