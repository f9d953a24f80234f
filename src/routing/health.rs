//! Health as queries see it: for each pool, which members answer now and how long that surely holds. A change of health makes a
//! new view; the map and everything else stay as they are.

use std::net::IpAddr;

use super::plan::{Family, Member, Plan, Pool, PoolId};
use crate::{config::model::RegionId, health::Endpoint};

/// What is known of a probe target, in the order of [`Plan::targets`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TargetHealth {
    /// It counts as up.
    pub up: bool,
    /// While its state is in doubt: seconds in which it may change.
    pub doubt_s: Option<u32>,
    /// Lowest connect time of the last hour in milliseconds.
    pub baseline_ms: Option<f32>,
}

impl TargetHealth {
    /// What counts before the first result: up.
    pub const UNKNOWN: TargetHealth = TargetHealth { up: true, doubt_s: None, baseline_ms: None };
}

/// The state of all pools at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthView {
    pools: Vec<PoolState>,
    fallback_order: Vec<RegionId>,
}

/// The state of a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolState {
    /// By member: it answers.
    pub up: Box<[bool]>,
    /// Enough members are up for the region to count.
    pub is_healthy: bool,
    usable: [bool; 3],
    doubt_s: [Option<u32>; 3],
}

impl PoolState {
    /// The region counts, and a member of the family is up.
    pub fn is_usable(&self, family: Family) -> bool {
        self.usable[family as usize]
    }

    /// While a member is in doubt that this family's answers depend on: seconds in which they may change.
    pub fn doubt_s(&self, family: Family) -> Option<u32> {
        self.doubt_s[family as usize]
    }

    fn of(pool: &Pool, targets: &[TargetHealth]) -> PoolState {
        let health = |target: Option<usize>| target.map_or(TargetHealth::UNKNOWN, |index| targets[index]);
        let up: Box<[bool]> = pool.members.iter().map(|member| health(member.target).up).collect();
        let up_count = up.iter().filter(|up| **up).count();
        let is_healthy = up_count >= pool.min_healthy.of(up.len());
        let is_usable = |family| {
            is_healthy
                && match (family, &pool.name) {
                    (_, Some(_)) => true,
                    (Family::V4, None) => pool.v4.slots.iter().any(|slot| up[slot.member]),
                    (Family::V6, None) => pool.v6.slots.iter().any(|slot| up[slot.member]),
                    (Family::Either, None) => up_count > 0,
                }
        };
        // While one endpoint is enough, the other family's endpoints cannot change this family's answers.
        let all_count = pool.min_healthy.of(up.len()) > 1;
        let counts = |member: &&Member, family| match (&member.endpoint, family) {
            (Endpoint::Address(IpAddr::V4(_)), Family::V6) | (Endpoint::Address(IpAddr::V6(_)), Family::V4) => {
                all_count
            }
            _ => true,
        };
        let doubt_s = |family| {
            let members = pool.members.iter().filter(|member| counts(member, family));
            members.filter_map(|member| health(member.target).doubt_s).min()
        };
        PoolState { usable: Family::ALL.map(is_usable), doubt_s: Family::ALL.map(doubt_s), is_healthy, up }
    }
}

impl HealthView {
    /// Works the view out; `targets` are in the order of [`Plan::targets`].
    pub fn new(plan: &Plan, targets: &[TargetHealth]) -> HealthView {
        let mut baselines_ms = vec![f32::INFINITY; plan.region_names.len()];
        for pool in &plan.pools {
            for ms in pool.members.iter().filter_map(|m| targets[m.target?].baseline_ms) {
                let lowest = &mut baselines_ms[pool.region.index()];
                *lowest = lowest.min(ms + plan.region_bias_ms[pool.region.index()]);
            }
        }
        let mut fallback_order: Vec<RegionId> = (0..plan.region_names.len()).map(|n| RegionId(n as u8)).collect();
        fallback_order.sort_by(|a, b| baselines_ms[a.index()].total_cmp(&baselines_ms[b.index()]));
        HealthView { pools: plan.pools.iter().map(|pool| PoolState::of(pool, targets)).collect(), fallback_order }
    }

    /// The state of a pool.
    pub fn pool(&self, pool: PoolId) -> &PoolState {
        &self.pools[pool.0 as usize]
    }

    /// The regions in the order for clients of whom nothing is known: by this server's own connect times (and bias), else file order.
    pub fn fallback_order(&self) -> &[RegionId] {
        &self.fallback_order
    }
}
