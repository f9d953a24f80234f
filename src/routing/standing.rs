//! Where a pool stands: may its region answer, with which members, and after whom. Health and what operators decided come together
//! here, once for each change; queries only compare the result.

use std::{net::IpAddr, sync::Arc};

use super::{
    force::{Force, PoolForces},
    health::TargetHealth,
    plan::{Family, Member, Pool},
    policy::Reason,
};
use crate::health::Endpoint;

/// Where a pool stands in one family, best first: of an answer's allowed regions the first with the best standing answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Enough members are up, and one of the family.
    Usable,
    /// The same, but the region is drained, or only drained endpoints make it so.
    Drained,
    /// Usable but for what is held down: an automatic hold-down never takes the last region.
    LastResort,
    /// The same, but drained.
    DrainedLastResort,
    /// Not usable: answers only when none is.
    Failed,
    /// Neither usable nor wanted.
    DrainedFailed,
    /// Never answers: the region or all of its endpoints of the family are forced down, or it has none.
    Out,
}

/// The state of a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolState {
    /// By member: it answers while the pool is usable. The same allocation for as long as nothing in it changes.
    pub up: Arc<[bool]>,
    /// Other sets of members, where a hold-down or what operators decided makes a difference.
    pub others: Option<Arc<OtherMembers>>,
    /// Enough members are up for the region to count, drained ones included.
    pub is_healthy: bool,
    standing: [Standing; 3],
    doubt_s: [Option<u32>; 3],
    widest_doubt_s: [Option<u32>; 3],
}

/// By member: who answers when the pool is not simply usable.
#[derive(Debug, PartialEq, Eq)]
pub struct OtherMembers {
    /// While it is usable but drained.
    pub drained: Box<[bool]>,
    /// While only what is held down makes it usable.
    pub last_resort: Box<[bool]>,
    /// When nothing is usable and answers are given blindly.
    pub failed: Box<[bool]>,
}

impl PoolState {
    /// Where it stands in a family.
    pub fn standing(&self, family: Family) -> Standing {
        self.standing[family as usize]
    }

    /// The region can answer in a family, if only after those that are not drained.
    pub fn is_usable(&self, family: Family) -> bool {
        self.standing(family) <= Standing::Drained
    }

    /// While a member is in doubt that this family's answers depend on, drained and held ones left out: seconds in which
    /// they may change.
    pub fn doubt_s(&self, family: Family) -> Option<u32> {
        self.doubt_s[family as usize]
    }

    /// The same with drained and held ones: what counts where no other is usable.
    pub fn widest_doubt_s(&self, family: Family) -> Option<u32> {
        self.widest_doubt_s[family as usize]
    }

    /// Which members answer when the region was chosen for this reason; `None`: all of them.
    pub fn members(&self, reason: Reason) -> Option<&[bool]> {
        match (reason, &self.others) {
            (Reason::Best | Reason::Failover, _) | (Reason::Drained | Reason::LastResort, None) => Some(&self.up),
            (Reason::Drained, Some(others)) => Some(&others.drained),
            (Reason::LastResort, Some(others)) => Some(&others.last_resort),
            (Reason::AllDown, others) => others.as_ref().map(|others| &*others.failed),
        }
    }

    /// Works the state of a pool out; `targets` are in the order of [`super::Plan::targets`].
    pub(super) fn of(pool: &Pool, targets: &[TargetHealth], forces: PoolForces<'_>) -> PoolState {
        let all: Vec<Judged> = (0..pool.members.len()).map(|index| Judged::of(pool, index, targets, forces)).collect();
        let wanted = pool.min_healthy.of(all.len());
        let has_enough = |counts: fn(&Judged) -> bool| all.iter().filter(|member| counts(member)).count() >= wanted;
        let (enough_undrained, enough) = (has_enough(Judged::is_up_undrained), has_enough(Judged::is_up));
        let (enough_undrained_released, enough_released) =
            (has_enough(Judged::is_released_undrained), has_enough(Judged::is_released));
        let any = |family, counts: fn(&Judged) -> bool| any_of_family(pool, family, |index| counts(&all[index]));
        let is_drained = forces.region == Some(Force::Drain);
        let standing = |family| match forces.region {
            Some(Force::Down) => Standing::Out,
            _ if !is_drained && enough_undrained && any(family, Judged::is_up_undrained) => Standing::Usable,
            _ if enough && any(family, Judged::is_up) => Standing::Drained,
            _ if !is_drained && enough_undrained_released && any(family, Judged::is_released_undrained) => {
                Standing::LastResort
            }
            _ if enough_released && any(family, Judged::is_released) => Standing::DrainedLastResort,
            _ if !is_drained && any(family, Judged::is_in_undrained) => Standing::Failed,
            _ if any(family, Judged::is_in) => Standing::DrainedFailed,
            _ => Standing::Out,
        };
        let doubt_s = |family, widest: bool| {
            let members = pool.members.iter().zip(&all).filter(|(member, _)| is_counted(member, family, wanted));
            let members = members.filter(|(_, judged)| widest || !(is_drained || judged.is_drained || judged.is_held));
            members.filter_map(|(_, judged)| judged.doubt_s).min()
        };
        let differs = |member: &Judged| member.is_out || member.is_drained || (member.released && !member.up);
        let others = (is_drained || all.iter().any(differs)).then(|| {
            Arc::new(OtherMembers {
                drained: undrained_first(pool, &all, Judged::is_up, enough_undrained),
                last_resort: undrained_first(pool, &all, Judged::is_released, enough_undrained_released),
                failed: undrained_first(pool, &all, Judged::is_in, true),
            })
        });
        PoolState {
            up: all.iter().map(Judged::is_up_undrained).collect(),
            others,
            is_healthy: enough && forces.region != Some(Force::Down),
            standing: Family::ALL.map(standing),
            doubt_s: Family::ALL.map(|family| doubt_s(family, false)),
            widest_doubt_s: Family::ALL.map(|family| doubt_s(family, true)),
        }
    }
}

/// What is thought of a member.
struct Judged {
    up: bool,
    /// Up if nothing were held down.
    released: bool,
    is_held: bool,
    is_drained: bool,
    /// Forced down.
    is_out: bool,
    /// While its checks are in doubt and count.
    doubt_s: Option<u32>,
}

impl Judged {
    /// A decision on the endpoint itself outranks one on its region, but for a region that is down, which nothing brings back.
    fn of(pool: &Pool, index: usize, targets: &[TargetHealth], forces: PoolForces<'_>) -> Judged {
        let health = pool.members[index].target.map_or(TargetHealth::UNKNOWN, |target| targets[target]);
        let own = forces.member(index);
        let is_out = own == Some(Force::Down) || forces.region == Some(Force::Down);
        let is_drained = own == Some(Force::Drain);
        let is_forced_up = own == Some(Force::Up) || forces.region == Some(Force::Up);
        let is_forced = is_out || is_forced_up;
        Judged {
            up: !is_out && (is_forced_up || (health.up && !health.held)),
            released: !is_out && (is_forced_up || health.up),
            is_held: health.held && !is_forced,
            is_drained,
            is_out,
            doubt_s: health.doubt_s.filter(|_| !is_forced),
        }
    }

    fn is_up(&self) -> bool {
        self.up
    }

    fn is_up_undrained(&self) -> bool {
        self.up && !self.is_drained
    }

    fn is_released(&self) -> bool {
        self.released
    }

    fn is_released_undrained(&self) -> bool {
        self.released && !self.is_drained
    }

    fn is_in(&self) -> bool {
        !self.is_out
    }

    fn is_in_undrained(&self) -> bool {
        !self.is_out && !self.is_drained
    }
}

/// While one endpoint is enough, the other family's endpoints cannot change this family's answers.
fn is_counted(member: &Member, family: Family, wanted: usize) -> bool {
    match (&member.endpoint, family) {
        (Endpoint::Address(IpAddr::V4(_)), Family::V6) | (Endpoint::Address(IpAddr::V6(_)), Family::V4) => wanted > 1,
        _ => true,
    }
}

fn any_of_family(pool: &Pool, family: Family, counts: impl Fn(usize) -> bool) -> bool {
    match (family, &pool.name) {
        (Family::Either, _) | (_, Some(_)) => (0..pool.members.len()).any(counts),
        (Family::V4, None) => pool.v4.slots.iter().any(|slot| counts(slot.member)),
        (Family::V6, None) => pool.v6.slots.iter().any(|slot| counts(slot.member)),
    }
}

/// By member, of those that count: the undrained ones where their family has any and they are enough, else the drained ones, too.
fn undrained_first(
    pool: &Pool,
    all: &[Judged],
    counts: fn(&Judged) -> bool,
    undrained_are_enough: bool,
) -> Box<[bool]> {
    let is_undrained = |index: usize| counts(&all[index]) && !all[index].is_drained;
    let has_undrained = |family| undrained_are_enough && any_of_family(pool, family, is_undrained);
    let (v4, v6) = (has_undrained(Family::V4), has_undrained(Family::V6));
    let leaves_drained_out = |member: &Member| match &member.endpoint {
        Endpoint::Address(IpAddr::V6(_)) => v6,
        _ => v4,
    };
    let set = pool.members.iter().zip(all);
    set.map(|(member, judged)| counts(judged) && !(judged.is_drained && leaves_drained_out(member))).collect()
}
