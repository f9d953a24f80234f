//! Health as queries see it: for each pool, which members answer now and how long that surely holds. A change of health makes a
//! new view; the map and everything else stay as they are.
//!
//! [`HealthView::new`] says what a view is; [`Followed`] keeps one up to date at the cost of the pools that a change concerns.
//! Whatever comes to decide on a pool goes into [`PoolState`]; where it changes, into the pools that [`Followed::update`] works out
//! anew.

use std::sync::Arc;

use super::{
    force::Forces,
    plan::{Plan, PoolId},
    standing::PoolState,
};
use crate::config::model::RegionId;

/// What is known of a probe target, in the order of [`Plan::targets`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TargetHealth {
    /// It counts as up.
    pub up: bool,
    /// It changed too often: it answers only where nothing else can.
    pub held: bool,
    /// While its state is in doubt: seconds in which it may change.
    pub doubt_s: Option<u32>,
    /// Lowest connect time of the last hour in milliseconds.
    pub baseline_ms: Option<f32>,
}

impl TargetHealth {
    /// What counts before the first result: up.
    pub const UNKNOWN: TargetHealth = TargetHealth { up: true, held: false, doubt_s: None, baseline_ms: None };
}

/// The state of all pools at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthView {
    pools: Vec<PoolState>,
    fallback_order: Vec<RegionId>,
}

impl HealthView {
    /// Works the view out where no operator decided anything; `targets` are in the order of [`Plan::targets`].
    pub fn new(plan: &Plan, targets: &[TargetHealth]) -> HealthView {
        HealthView::forced(plan, targets, &Forces::default())
    }

    /// Works the view out; `targets` are in the order of [`Plan::targets`], `forces` were laid over the plan.
    pub fn forced(plan: &Plan, targets: &[TargetHealth], forces: &Forces) -> HealthView {
        let mut baselines_ms = vec![f32::INFINITY; plan.region_names.len()];
        lower_baselines(plan, targets, |_| true, &mut baselines_ms);
        let pools = (0..plan.pools.len()).map(|id| pool_state(plan, PoolId(id as u32), targets, forces)).collect();
        HealthView { pools, fallback_order: fallback_order(&baselines_ms) }
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

/// A view with what it was made from, kept up to date change by change.
#[derive(Debug, Clone)]
pub struct Followed {
    targets: Vec<TargetHealth>,
    forces: Forces,
    /// By region: the lowest of its targets' baselines, bias included.
    baselines_ms: Vec<f32>,
    view: Arc<HealthView>,
}

impl Followed {
    /// Before anything is known of the targets: everything is up that is not forced down.
    pub fn new(plan: &Plan, forces: Forces) -> Followed {
        let targets = vec![TargetHealth::UNKNOWN; plan.targets.len()];
        let view = Arc::new(HealthView::forced(plan, &targets, &forces));
        Followed { targets, forces, baselines_ms: vec![f32::INFINITY; plan.region_names.len()], view }
    }

    /// The view as it stands; the same `Arc` as before unless an update said that it has changed.
    pub fn view(&self) -> &Arc<HealthView> {
        &self.view
    }

    /// Takes in how some targets (by their position in [`Plan::targets`]) stand now. True when that changes the view, which
    /// then is what [`HealthView::new`] makes of all targets. `plan` is that of [`Followed::new`].
    pub fn update(&mut self, plan: &Plan, changes: impl IntoIterator<Item = (usize, TargetHealth)>) -> bool {
        let mut pools = Vec::new();
        let mut moved = Vec::new();
        for (index, now) in changes {
            let before = std::mem::replace(&mut self.targets[index], now);
            let of_target = &plan.pools_of_target[index];
            if (before.up, before.held, before.doubt_s) != (now.up, now.held, now.doubt_s) {
                pools.extend_from_slice(of_target);
            }
            if before.baseline_ms != now.baseline_ms {
                moved.extend(of_target.iter().map(|id| plan.pools[id.0 as usize].region));
            }
        }
        pools.sort_unstable();
        pools.dedup();
        let order = self.reorder(plan, &moved);
        self.work_out(plan, pools, order)
    }

    /// Takes in what operators decided. True when that changes the view, which then is what [`HealthView::forced`] makes of it.
    pub fn force(&mut self, plan: &Plan, forces: Forces) -> bool {
        if forces == self.forces {
            return false;
        }
        self.forces = forces;
        self.work_out(plan, (0..plan.pools.len()).map(|id| PoolId(id as u32)), None)
    }

    fn work_out(&mut self, plan: &Plan, pools: impl IntoIterator<Item = PoolId>, order: Option<Vec<RegionId>>) -> bool {
        let mut changed: Vec<(PoolId, PoolState)> = Vec::new();
        for id in pools {
            let (before, mut now) = (self.view.pool(id), pool_state(plan, id, &self.targets, &self.forces));
            if *before != now {
                if before.up == now.up {
                    now.up = before.up.clone();
                }
                changed.push((id, now));
            }
        }
        if changed.is_empty() && order.is_none() {
            return false;
        }
        let view = Arc::make_mut(&mut self.view);
        if let Some(order) = order {
            view.fallback_order = order;
        }
        for (id, state) in changed {
            view.pools[id.0 as usize] = state;
        }
        true
    }

    /// Takes in that baselines in these regions have moved; the new order, if that makes another.
    fn reorder(&mut self, plan: &Plan, moved: &[RegionId]) -> Option<Vec<RegionId>> {
        if moved.is_empty() {
            return None;
        }
        let mut is_moved = vec![false; self.baselines_ms.len()];
        for region in moved {
            is_moved[region.index()] = true;
            self.baselines_ms[region.index()] = f32::INFINITY;
        }
        lower_baselines(plan, &self.targets, |region| is_moved[region.index()], &mut self.baselines_ms);
        let order = fallback_order(&self.baselines_ms);
        (order != self.view.fallback_order).then_some(order)
    }
}

fn pool_state(plan: &Plan, id: PoolId, targets: &[TargetHealth], forces: &Forces) -> PoolState {
    let pool = &plan.pools[id.0 as usize];
    PoolState::of(pool, targets, forces.of_pool(id, pool))
}

/// Lowers each region's figure to the lowest baseline of its targets, bias included, in the regions of `only`.
fn lower_baselines(plan: &Plan, targets: &[TargetHealth], only: impl Fn(RegionId) -> bool, lowest_ms: &mut [f32]) {
    for pool in plan.pools.iter().filter(|pool| only(pool.region)) {
        let lowest = &mut lowest_ms[pool.region.index()];
        for ms in pool.members.iter().filter_map(|m| targets[m.target?].baseline_ms) {
            *lowest = lowest.min(ms + plan.region_bias_ms[pool.region.index()]);
        }
    }
}

/// Lowest baseline first, ties in file order.
fn fallback_order(baselines_ms: &[f32]) -> Vec<RegionId> {
    let mut order: Vec<RegionId> = (0..baselines_ms.len()).map(|n| RegionId(n as u8)).collect();
    order.sort_by(|a, b| baselines_ms[a.index()].total_cmp(&baselines_ms[b.index()]));
    order
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::LazyLock};

    use proptest::{collection::vec, option, prelude::*, sample::Index};

    use super::*;
    use crate::{
        config::{self, Source},
        routing::{force::Force, plan::Draft},
        zone::content,
    };

    /// Pools that share targets, of both families, of a name, with and without a check, and with more than one needed.
    const CONFIG: &str = r#"
        [checks.web]
        type = "tcp"
        port = 80
        [checks.slow]
        type = "tcp"
        port = 81
        [regions.us]
        location = "aws:us-east-1"
        endpoints = ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
        check = "web"
        [regions.eu]
        location = "aws:eu-west-1"
        endpoints = ["198.51.100.1", "198.51.100.2", "2001:db8:1::1"]
        check = "web"
        min-healthy = 2
        bias = "2ms"
        [regions.ap]
        location = "aws:ap-northeast-1"
        endpoints = ["203.0.113.1"]
        [zones."example.com"]
        nameservers = ["ns1.example.net."]
        [zones."example.com".routes.one]
        [zones."example.com".routes.two]
        check = "slow"
        endpoints = { us = ["192.0.2.1", "192.0.2.3"], eu = ["2001:db8:1::1"], ap = ["203.0.113.1", "2001:db8:2::1"] }
        [zones."example.com".routes.name]
        regions = ["us", "eu"]
        check = "web"
        endpoints = { us = ["us.example.net"], eu = ["eu.example.net"] }
    "#;

    static PLAN: LazyLock<Plan> = LazyLock::new(|| {
        let source = Arc::new(Source { name: "test.toml".into(), text: CONFIG.into() });
        let config = config::parse(source, Path::new("")).unwrap_or_else(|report| panic!("{report}"));
        let contents = content::gather(&config).unwrap_or_else(|report| panic!("{report}"));
        Draft::new(&config, &contents).plan
    });

    fn state() -> impl Strategy<Value = TargetHealth> {
        let baseline_ms = option::of((1..5u8).prop_map(f32::from));
        let any = (any::<bool>(), any::<bool>(), option::of(1..4u32), baseline_ms);
        any.prop_map(|(up, held, doubt_s, baseline_ms)| TargetHealth { up, held, doubt_s, baseline_ms })
    }

    /// Decisions on some regions, and on all endpoints that end in some digit.
    fn forces() -> impl Strategy<Value = Forces> {
        let force = || option::of(prop_oneof![Just(Force::Up), Just(Force::Drain), Just(Force::Down)]);
        (vec(force(), 3), vec(force(), 4)).prop_map(|(regions, endpoints)| {
            let region = |name: &str| regions[PLAN.region_names.iter().position(|n| n == name)?];
            let endpoint = |_: &str, name: &str| endpoints[name.bytes().last()?.checked_sub(b'0')? as usize % 4];
            Forces::new(&PLAN, region, endpoint)
        })
    }

    proptest! {
        #[test]
        fn a_view_kept_up_to_date_is_the_view_made_afresh(
            rounds in vec((vec((any::<Index>(), state()), 0..5), option::weighted(0.2, forces())), 1..20),
        ) {
            let plan = &*PLAN;
            let mut targets = vec![TargetHealth::UNKNOWN; plan.targets.len()];
            let mut forces = Forces::default();
            let mut followed = Followed::new(plan, forces.clone());
            for (round, decided) in rounds {
                let before = followed.view().clone();
                let changes: Vec<_> = round.iter().map(|(index, state)| (index.index(targets.len()), *state)).collect();
                for (index, state) in &changes {
                    targets[*index] = *state;
                }
                let is_changed = match decided {
                    None => followed.update(plan, changes),
                    Some(decided) => {
                        forces = decided;
                        targets.clone_from(&followed.targets); // only one of both in a round
                        followed.force(plan, forces.clone())
                    }
                };
                let (afresh, after) = (HealthView::forced(plan, &targets, &forces), followed.view());
                prop_assert_eq!(&**after, &afresh);
                prop_assert_eq!(is_changed, *before != afresh);
                prop_assert_eq!(is_changed, !Arc::ptr_eq(&before, after), "what is published is never touched");
                for (before, after) in before.pools.iter().zip(&after.pools) {
                    prop_assert_eq!(before.up == after.up, Arc::ptr_eq(&before.up, &after.up), "shared while equal");
                }
            }
        }
    }
}
