//! The levels of the targets that are followed: some of each region.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{Levels, Rise, of_region};
use crate::health::target::{Target, TargetKey, Targets};

/// So many targets of a region tell of its access; more of them tell no more. Each costs half a kilobyte.
const PER_REGION_MAX: usize = 16;
/// How long a level takes where nobody says otherwise.
const PACE: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub struct Watch {
    pace_ms: AtomicU64,
    /// With the number of the region.
    followed: Mutex<HashMap<TargetKey, (u16, Levels)>>,
}

impl Default for Watch {
    fn default() -> Self {
        Watch { pace_ms: AtomicU64::new(PACE.as_millis() as u64), followed: Mutex::default() }
    }
}

impl Watch {
    /// A level takes as long as `pace` from now on, and no longer than a minute.
    pub fn set_pace(&self, pace: Duration) {
        self.pace_ms.store(pace.min(PACE).as_millis() as u64, Relaxed);
    }

    /// How long a level takes.
    pub fn pace(&self) -> Duration {
        Duration::from_millis(self.pace_ms.load(Relaxed))
    }

    /// Takes in the connect time of a probe, `now` after some fixed moment.
    pub(in crate::health) fn take(&self, target: &Target, now: Duration, connect: Duration) {
        if let Some((_, levels)) = self.followed().get_mut(&target.key) {
            levels.record(now, connect, self.pace());
        }
    }

    /// Follows the first targets of each region from now on. What is known of those that stay, stays.
    pub(in crate::health) fn keep(&self, targets: &Targets) {
        let mut followed = self.followed();
        let mut before = std::mem::take(&mut *followed);
        let mut counts: HashMap<u16, usize> = HashMap::new();
        for target in targets.list().iter().filter(|target| target.check().kind.is_probed()) {
            let region = targets.region(target.endpoint());
            let count = counts.entry(region).or_default();
            if *count < PER_REGION_MAX {
                *count += 1;
                let levels = before.remove(&target.key).map(|(_, levels)| levels).unwrap_or_default();
                followed.insert(target.key.clone(), (region, levels));
            }
        }
    }

    /// By how much it takes longer than usual to connect to each region, by its number below `regions`.
    pub(in crate::health) fn rises(&self, regions: usize, now: Duration) -> Vec<Option<Rise>> {
        let mut by_region: Vec<Vec<Rise>> = vec![Vec::new(); regions];
        for (region, levels) in self.followed().values() {
            if let Some(list) = by_region.get_mut(usize::from(*region)) {
                list.extend(levels.rise(now));
            }
        }
        by_region.into_iter().map(of_region).collect()
    }

    /// A panic while the lock was held leaves whole levels behind.
    fn followed(&self) -> MutexGuard<'_, HashMap<TargetKey, (u16, Levels)>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap as Map, sync::Arc};

    use super::*;
    use crate::health::testing::{address, tcp_check};

    fn targets(endpoints: usize) -> Targets {
        let check = Arc::new(tcp_check(80));
        let name = |n: usize| address(&format!("192.0.2.{n}"));
        let regions: Map<_, _> = (0..endpoints).map(|n| (name(n), (n % 2) as u16)).collect();
        Targets::new((0..endpoints).map(|n| (name(n), check.clone())).collect()).placed(regions)
    }

    #[test]
    fn some_targets_of_each_region_are_followed_and_keep_what_is_known_over_a_reload() {
        let (watch, ms) = (Watch::default(), Duration::from_millis);
        watch.set_pace(ms(1000));
        let all = targets(100);
        watch.keep(&all);
        for n in 0..200u64 {
            for target in all.list() {
                let slow = n > 180 && watch.followed().get(&target.key).is_some_and(|(region, _)| *region == 1);
                watch.take(target, ms(200 * n), ms(if slow { 60 } else { 10 }));
            }
        }
        assert_eq!(watch.followed().len(), 2 * PER_REGION_MAX);
        watch.keep(&targets(50));
        let told: Vec<_> = watch.rises(3, ms(200 * 200)).iter().map(|rise| rise.map(|rise| rise.ms)).collect();
        assert_eq!(told, [Some(0.0), Some(50.0), None]);
        watch.keep(&Targets::default());
        assert_eq!(watch.rises(1, ms(200 * 200)), [None]);
    }
}
