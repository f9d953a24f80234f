//! What to probe: every (endpoint, check) once, however often the configuration names it. Knows nothing of results.

use std::{collections::HashMap, sync::Arc};

use super::{
    check::{Calculation, Check, CheckKind, Endpoint},
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
    sources: Arc<[Source]>,
    pairs: Arc<[Vec<usize>]>,
    regions: Arc<HashMap<Endpoint, u16>>,
    home: Option<u16>,
    /// Targets that report by themselves, by their check's name and their endpoint.
    reporting: Arc<HashMap<(String, Endpoint), TargetId>>,
}

/// Where the verdict on an endpoint under a check comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A target's own.
    Target(TargetId),
    /// Calculated from those of parts.
    Calculated(Arc<Calculated>),
}

/// An endpoint under a calculated check.
#[derive(Debug, PartialEq, Eq)]
pub struct Calculated {
    /// The endpoint and the check itself. Not on the list: nothing probes it.
    pub target: Arc<Target>,
    /// How many of `parts` must be up.
    pub needed: usize,
    /// What it follows from, and the names of those checks; never empty.
    pub parts: Vec<(String, Source)>,
}

impl Source {
    /// The targets that it comes from; one may come more than once.
    pub fn each_target(&self, each: &mut dyn FnMut(TargetId)) {
        match self {
            Source::Target(id) => each(*id),
            Source::Calculated(of) => of.parts.iter().for_each(|(_, part)| part.each_target(each)),
        }
    }
}

impl Targets {
    /// Folds identical pairs into one target, and takes calculated checks apart. [`Targets::sources`] then tells where the
    /// verdict on each pair comes from.
    pub fn new(pairs: Vec<(Endpoint, Arc<Check>)>) -> Self {
        let mut gathering = Gathering::default();
        let sources: Arc<[Source]> =
            pairs.into_iter().map(|(endpoint, check)| gathering.follow(endpoint, &check)).collect();
        let Gathering { list, reporting, .. } = gathering;
        let mut pairs = vec![Vec::new(); list.len()];
        for (pair, source) in sources.iter().enumerate() {
            source.each_target(&mut |id| {
                if pairs[id.index()].last() != Some(&pair) {
                    pairs[id.index()].push(pair);
                }
            });
        }
        Targets {
            list: list.into_iter().map(Arc::new).collect(),
            sources,
            pairs: pairs.into(),
            reporting: Arc::new(reporting),
            regions: Arc::default(),
            home: None,
        }
    }

    /// The same, with the number of the region that each endpoint stands in: what stands in different regions fails
    /// independently, unless it is the prober that fails.
    #[must_use]
    pub fn placed(self, regions: HashMap<Endpoint, u16>) -> Self {
        Targets { regions: Arc::new(regions), ..self }
    }

    /// The same, probed from inside this region: what answers there proves nothing of the way to all others.
    #[must_use]
    pub fn seen_from(self, home: Option<u16>) -> Self {
        Targets { home, ..self }
    }

    /// The region that the prober stands in, if one was given.
    pub fn home(&self) -> Option<u16> {
        self.home
    }

    /// The region of an endpoint; 0 where none was given.
    pub fn region(&self, endpoint: &Endpoint) -> u16 {
        self.regions.get(endpoint).copied().unwrap_or(0)
    }

    /// The targets, indexed by [`TargetId`]: all that is probed, and all that report by themselves.
    pub fn list(&self) -> &[Arc<Target>] {
        &self.list
    }

    /// For each pair given to [`Targets::new`], in its order, where its verdict comes from.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// The other way round: the pairs given to [`Targets::new`] whose verdict this target has a part in, in their order.
    pub fn pairs(&self, id: TargetId) -> &[usize] {
        &self.pairs[id.index()]
    }

    /// The target that reports by itself under a check of type `push`.
    pub fn reporting(&self, check: &str, endpoint: &Endpoint) -> Option<&Arc<Target>> {
        self.reporting.get(&(check.to_owned(), endpoint.clone())).map(|id| &self.list[id.index()])
    }

    /// True when a check of type `push` has this name and some endpoint.
    pub fn reports(&self, check: &str) -> bool {
        self.reporting.keys().any(|(name, _)| name == check)
    }
}

/// Targets while they are gathered.
#[derive(Default)]
struct Gathering {
    seen: HashMap<TargetKey, usize>,
    nameless: HashMap<Arc<Check>, Arc<Check>>,
    list: Vec<Target>,
    reporting: HashMap<(String, Endpoint), TargetId>,
}

impl Gathering {
    fn follow(&mut self, endpoint: Endpoint, check: &Arc<Check>) -> Source {
        let bare = self
            .nameless
            .entry(check.clone())
            .or_insert_with(|| Arc::new(Check { name: String::new(), ..Check::clone(check) }))
            .clone();
        if let CheckKind::Calculated(Calculation { needed, checks }) = &check.kind {
            let parts = checks.iter().map(|part| (part.name.clone(), self.follow(endpoint.clone(), part))).collect();
            let key = TargetKey { endpoint, check: bare };
            let target = Arc::new(Target { key, check_names: vec![check.name.clone()] });
            return Source::Calculated(Arc::new(Calculated { target, needed: *needed, parts }));
        }
        let key = TargetKey { endpoint: endpoint.clone(), check: bare };
        let at = *self.seen.entry(key.clone()).or_insert_with(|| {
            self.list.push(Target { key, check_names: Vec::new() });
            self.list.len() - 1
        });
        if !self.list[at].check_names.contains(&check.name) {
            self.list[at].check_names.push(check.name.clone());
        }
        let id = TargetId(u32::try_from(at).expect("a configuration holds far fewer than 2^32 targets"));
        if let CheckKind::Push { name } = &check.kind {
            self.reporting.insert((name.clone(), endpoint), id);
        }
        Source::Target(id)
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
        assert_eq!(targets.sources(), [0, 1, 0, 2, 0].map(|id| Source::Target(TargetId(id))));
        assert_eq!(targets.list().len(), 3);
        assert_eq!([0, 1, 2].map(|id| targets.pairs(TargetId(id))), [&[0, 2, 4][..], &[1], &[3]]);
        assert_eq!(targets.list()[0].check_names, ["web", "other"]);
    }
    #[test]
    fn a_calculated_check_is_taken_apart_and_its_parts_are_shared_with_who_names_them_directly() {
        let part = |name: &str, port| Arc::new(Check { name: name.into(), ..tcp_check(port) });
        let of = |name: &str, needed, checks| {
            let kind = CheckKind::Calculated(Calculation { needed, checks });
            Arc::new(Check { name: name.into(), kind, ..tcp_check(0) })
        };
        let inner = of("inner", 1, vec![part("a", 1), part("b", 2)]);
        let outer = of("outer", 2, vec![inner.clone(), part("c", 3)]);
        let here = || address("192.0.2.1");
        let targets = Targets::new(vec![(here(), part("b", 2)), (here(), outer), (here(), inner)]);
        let names: Vec<&str> = targets.list().iter().map(|target| target.check_names[0].as_str()).collect();
        assert_eq!(names, ["b", "a", "c"]);
        let [Source::Target(TargetId(0)), Source::Calculated(outer), Source::Calculated(inner)] = targets.sources()
        else {
            panic!("{:?}", targets.sources());
        };
        assert_eq!((outer.needed, outer.parts[0].0.as_str(), outer.parts[1].0.as_str()), (2, "inner", "c"));
        assert_eq!(outer.parts[0].1, Source::Calculated(inner.clone()));
        let parts = inner.parts.iter().map(|(_, part)| part.clone());
        assert_eq!(parts.collect::<Vec<_>>(), [1, 0].map(|id| Source::Target(TargetId(id))));
        assert_eq!([0, 1, 2].map(|id| targets.pairs(TargetId(id))), [&[0, 1, 2][..], &[1, 2], &[1]]);
    }

    #[test]
    fn heartbeats_of_two_checks_are_two_signals_however_alike_the_checks_are() {
        let push = |name: &str| {
            Arc::new(Check { name: name.into(), kind: CheckKind::Push { name: name.into() }, ..tcp_check(0) })
        };
        let here = || address("192.0.2.1");
        let targets = Targets::new(vec![(here(), push("app")), (here(), push("cron")), (here(), push("app"))]);
        assert_eq!(targets.list().len(), 2);
        assert_eq!(targets.reporting("cron", &here()), Some(&targets.list()[1]));
        assert_eq!(targets.reporting("cron", &address("192.0.2.2")), None);
    }
}
