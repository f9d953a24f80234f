//! What to probe: every (endpoint, check) once, however often the configuration names it. Knows nothing of results.

use std::{collections::HashMap, sync::Arc};

use super::{
    check::{Check, Endpoint},
    verdict::Rules,
};

/// A target's place in one [`Targets`] and in the board's snapshots of the same epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetId(pub u32);

impl TargetId {
    /// As an index into [`Targets::list`] and [`super::board::Snapshot::statuses`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What makes two targets the same: the endpoint, and everything of the check but its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TargetKey {
    /// Where probes go.
    pub endpoint: Endpoint,
    /// How to probe; its `name` is empty here.
    pub check: Arc<Check>,
}

/// One thing to probe.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// Endpoint and check.
    pub key: TargetKey,
    /// Under which names the configuration knows the check, in order of first mention.
    pub check_names: Vec<String>,
}

impl Target {
    /// Where probes go.
    pub fn endpoint(&self) -> &Endpoint {
        &self.key.endpoint
    }

    /// How to probe.
    pub fn check(&self) -> &Check {
        &self.key.check
    }

    /// What moves this target's verdict.
    pub fn rules(&self) -> Rules {
        Rules { fall: self.key.check.fall, rise: self.key.check.rise }
    }
}

/// All targets of one configuration, each once.
#[derive(Debug, Clone, Default)]
pub struct Targets {
    list: Arc<[Arc<Target>]>,
    ids: Arc<[TargetId]>,
    pairs: Arc<[Vec<usize>]>,
    regions: Arc<HashMap<Endpoint, u16>>,
}

impl Targets {
    /// Folds identical pairs into one target. [`Targets::ids`] then tells which target each pair became.
    pub fn new(pairs: Vec<(Endpoint, Arc<Check>)>) -> Self {
        let mut seen: HashMap<TargetKey, usize> = HashMap::with_capacity(pairs.len());
        let mut nameless: HashMap<Arc<Check>, Arc<Check>> = HashMap::new();
        let mut list: Vec<Target> = Vec::new();
        let mut ids = Vec::with_capacity(pairs.len());
        for (endpoint, check) in pairs {
            let bare = nameless
                .entry(check.clone())
                .or_insert_with(|| Arc::new(Check { name: String::new(), ..Check::clone(&check) }))
                .clone();
            let key = TargetKey { endpoint, check: bare };
            let at = *seen.entry(key.clone()).or_insert_with(|| {
                list.push(Target { key, check_names: Vec::new() });
                list.len() - 1
            });
            if !list[at].check_names.contains(&check.name) {
                list[at].check_names.push(check.name.clone());
            }
            ids.push(TargetId(u32::try_from(at).expect("a configuration holds far fewer than 2^32 targets")));
        }
        let mut pairs = vec![Vec::new(); list.len()];
        for (pair, id) in ids.iter().enumerate() {
            pairs[id.index()].push(pair);
        }
        let list = list.into_iter().map(Arc::new).collect();
        Targets { list, ids: ids.into(), pairs: pairs.into(), regions: Arc::default() }
    }

    /// The same, with the number of the region that each endpoint stands in: what stands in different regions fails
    /// independently, unless it is the prober that fails.
    #[must_use]
    pub fn placed(self, regions: HashMap<Endpoint, u16>) -> Self {
        Targets { regions: Arc::new(regions), ..self }
    }

    /// The region of an endpoint; 0 where none was given.
    pub fn region(&self, endpoint: &Endpoint) -> u16 {
        self.regions.get(endpoint).copied().unwrap_or(0)
    }

    /// The targets, indexed by [`TargetId`].
    pub fn list(&self) -> &[Arc<Target>] {
        &self.list
    }

    /// For each pair given to [`Targets::new`], in its order, the target it became.
    pub fn ids(&self) -> &[TargetId] {
        &self.ids
    }

    /// The other way round: which of the pairs given to [`Targets::new`] became this target.
    pub fn pairs(&self, id: TargetId) -> &[usize] {
        &self.pairs[id.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::testing::{address, tcp_check};

    #[test]
    fn the_same_endpoint_and_check_is_one_target_whatever_the_check_is_called() {
        let web = Arc::new(tcp_check(80));
        let same = Arc::new(Check { name: "other".into(), ..tcp_check(80) });
        let slower = Arc::new(Check { fall: 9, ..tcp_check(80) });
        let targets = Targets::new(vec![
            (address("192.0.2.1"), web.clone()),
            (address("192.0.2.2"), web.clone()),
            (address("192.0.2.1"), same),
            (address("192.0.2.1"), slower),
            (address("192.0.2.1"), web),
        ]);
        assert_eq!(targets.ids(), [0, 1, 0, 2, 0].map(TargetId));
        assert_eq!(targets.list().len(), 3);
        assert_eq!([0, 1, 2].map(|id| targets.pairs(TargetId(id))), [&[0, 2, 4][..], &[1], &[3]]);
        assert_eq!(targets.list()[0].check_names, ["web", "other"]);
    }
}
