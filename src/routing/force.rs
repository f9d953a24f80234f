//! What an operator decided, laid over a plan: which regions and endpoints are taken out or held in, whatever their checks say.
//! Knows nothing of who decided it, why and until when.

use std::collections::HashMap;

use super::plan::{Plan, Pool, PoolId};

/// A decision on a region or an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Force {
    /// As if every check passed.
    Up,
    /// Answers only when nothing else can, before answers are given blindly.
    Drain,
    /// Never answers.
    Down,
}

impl Force {
    /// All of them, in the order of their numbers.
    pub const ALL: [Force; 3] = [Force::Up, Force::Drain, Force::Down];

    /// As operators, metrics and logs name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Force::Up => "up",
            Force::Drain => "drain",
            Force::Down => "down",
        }
    }
}

/// The decisions on all regions and endpoints of a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forces {
    /// By region; empty: none.
    regions: Vec<Option<Force>>,
    /// By member, of the pools that have one with a decision of its own.
    members: HashMap<PoolId, Box<[Option<Force>]>>,
}

/// The decisions on one pool.
#[derive(Debug, Clone, Copy)]
pub struct PoolForces<'f> {
    /// On its region.
    pub region: Option<Force>,
    members: Option<&'f [Option<Force>]>,
}

impl Forces {
    /// Lays decisions over a plan: on a region by its name, and on an endpoint by its region's name and its own.
    pub fn new(
        plan: &Plan,
        region: impl Fn(&str) -> Option<Force>,
        endpoint: impl Fn(&str, &str) -> Option<Force>,
    ) -> Forces {
        let regions = plan.region_names.iter().map(|name| region(name)).collect();
        let of_pool = |(id, pool): (usize, &Pool)| {
            let name = &plan.region_names[pool.region.index()];
            let list: Box<[_]> = pool.members.iter().map(|m| endpoint(name, &m.endpoint.to_string())).collect();
            list.iter().any(Option::is_some).then_some((PoolId(id as u32), list))
        };
        Forces { regions, members: plan.pools.iter().enumerate().filter_map(of_pool).collect() }
    }

    /// Those on a pool; `id` is its own.
    pub fn of_pool(&self, id: PoolId, pool: &Pool) -> PoolForces<'_> {
        PoolForces {
            region: self.regions.get(pool.region.index()).copied().flatten(),
            members: self.members.get(&id).map(|list| &**list),
        }
    }
}

impl PoolForces<'_> {
    /// What holds for a member: a decision on the endpoint itself outranks one on its region.
    pub fn member(&self, index: usize) -> Option<Force> {
        self.members.and_then(|list| list[index])
    }
}
