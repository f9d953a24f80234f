//! What operators decided: a list of overrides, the newest of which counts for each region and endpoint. Outlives the process in
//! the state directory. Knows nothing of how an operator asks, and of routing only the [`Forces`] that it makes.
//!
//! In a cluster each server has its own copy of all decisions. They are in one order everywhere, by (counter, server), where a
//! counter is one more than the highest that its server knew, so that no clock has a say; what is in force follows from the decisions
//! alone, in whatever order a server came to know them. What has ended is remembered, so that no server that was away brings it back.

mod ledger;
mod target;

use serde::{Deserialize, Serialize};

pub use self::{
    ledger::{CONFLICTS_MAX, KNOWS_MAX},
    target::Target,
};
use super::state::Stored;
use crate::routing::{
    Plan,
    force::{Force, Forces},
};

/// The state file.
pub const FILE: &str = "overrides.json";

/// Most overrides at a time. Each is compared with every endpoint when one changes.
pub const OVERRIDES_MAX: usize = 1000;

/// One decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// What it is about.
    pub target: Target,
    /// What it says.
    pub state: Decision,
    /// Why, in the operator's words; may be empty.
    #[serde(default)]
    pub reason: String,
    /// When it was made, Unix time in seconds.
    pub since: u64,
    /// When it ends by itself, Unix time in seconds.
    #[serde(default)]
    pub until: Option<u64>,
    /// Who made it.
    #[serde(default)]
    pub by: String,
    /// One more than the highest that was known where it was made; 0: not numbered yet.
    #[serde(default)]
    pub counter: u64,
    /// The server of a cluster on which it was made.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// What was known where it was made: of each other server the highest counter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub knows: Vec<Stamp>,
    /// Decisions on other servers that it overrode though nobody had told its server of them, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<String>,
    /// Its time has come to an end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub over: bool,
}

/// The place of a decision among all: counter, then server.
pub type Stamp = (u64, String);

/// What an override says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// As if every check passed.
    Up,
    /// Answers only when nothing else can.
    Drain,
    /// Never answers.
    Down,
    /// The checks decide. Kept only as an exception to an older, wider override.
    Auto,
}

impl Override {
    /// Decided here at `since`, Unix time in seconds; without an end, and without a number until it is taken in.
    pub fn new(target: Target, state: Decision, since: u64) -> Override {
        Override {
            target,
            state,
            reason: String::new(),
            since,
            until: None,
            by: String::new(),
            counter: 0,
            node: String::new(),
            knows: Vec::new(),
            conflicts: Vec::new(),
            over: false,
        }
    }
}

impl Decision {
    /// The one that operators write like this.
    pub fn parse(text: &str) -> Option<Decision> {
        let all = [Decision::Up, Decision::Drain, Decision::Down, Decision::Auto];
        all.into_iter().find(|decision| decision.as_str() == text)
    }

    /// As operators write it.
    pub fn as_str(self) -> &'static str {
        self.force().map_or("auto", Force::as_str)
    }

    /// What routing makes of it; `None`: the checks decide.
    pub fn force(self) -> Option<Force> {
        match self {
            Decision::Up => Some(Force::Up),
            Decision::Drain => Some(Force::Drain),
            Decision::Down => Some(Force::Down),
            Decision::Auto => None,
        }
    }
}

/// All decisions, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overrides {
    list: Vec<Override>,
    /// Those that are no longer in force and are remembered for the other servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ended: Vec<Override>,
}

impl Stored for Overrides {
    const SCHEMA: u32 = 1;
}

/// There are as many overrides as there may be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{OVERRIDES_MAX} overrides are in force, and there may be no more; end some with `auto`, or take a wider target"
)]
pub struct TooMany;

impl Overrides {
    /// All of them, oldest first.
    pub fn list(&self) -> &[Override] {
        &self.list
    }

    /// The one that counts for a region.
    pub fn of_region(&self, name: &str) -> Option<&Override> {
        let newest = self.list.iter().rev().find(|o| o.target.is_region(name));
        newest.filter(|o| o.state != Decision::Auto)
    }

    /// The one that counts for an endpoint itself, whatever counts for its region.
    pub fn of_endpoint(&self, region: &str, endpoint: &str) -> Option<&Override> {
        let newest = self.list.iter().rev().find(|o| o.target.is_endpoint(region, endpoint));
        newest.filter(|o| o.state != Decision::Auto)
    }

    /// What they mean for a plan.
    pub fn forces(&self, plan: &Plan) -> Forces {
        if self.list.is_empty() {
            return Forces::default();
        }
        Forces::new(
            plan,
            |region| self.of_region(region)?.state.force(),
            |region, endpoint| self.of_endpoint(region, endpoint)?.state.force(),
        )
    }
}

/// The regions of a plan that a target is about, or the endpoints as `region/endpoint`; each once, in the plan's order.
pub fn matched(target: &Target, plan: &Plan) -> Vec<String> {
    if !target.is_of_endpoints() {
        return plan.region_names.iter().filter(|name| target.is_region(name)).cloned().collect();
    }
    let mut found = Vec::new();
    for pool in &plan.pools {
        let region = &plan.region_names[pool.region.index()];
        for endpoint in pool.members.iter().map(|member| member.endpoint.to_string()) {
            if target.is_endpoint(region, &endpoint) {
                found.push((pool.region, format!("{region}/{endpoint}")));
            }
        }
    }
    found.sort_by_key(|(region, _)| *region);
    let mut seen = std::collections::HashSet::new();
    found.into_iter().map(|(_, name)| name).filter(|name| seen.insert(name.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(target: &str, state: Decision) -> Override {
        Override::new(Target::from(target.to_string()), state, 1)
    }

    fn of(list: &[(&str, Decision)]) -> Overrides {
        let mut overrides = Overrides::default();
        for (target, state) in list {
            overrides.set(decided(target, *state)).unwrap();
        }
        overrides
    }

    fn targets(overrides: &Overrides) -> Vec<String> {
        overrides.list().iter().map(|o| format!("{} {}", o.target, o.state.as_str())).collect()
    }

    use Decision::{Auto, Down, Drain, Up};

    #[test]
    fn the_newest_override_counts_and_replaces_what_it_covers() {
        for (list, left, of_eu_west) in [
            (vec![("eu-west", Drain)], vec!["eu-west drain"], Some(Drain)),
            (vec![("eu-west", Drain), ("eu-west", Down)], vec!["eu-west down"], Some(Down)),
            (vec![("eu-west", Drain), ("eu-west", Auto)], vec![], None),
            (vec![("eu-west", Drain), ("eu-*", Up)], vec!["eu-* up"], Some(Up)),
            (vec![("eu-*", Drain), ("eu-west", Up)], vec!["eu-* drain", "eu-west up"], Some(Up)),
            (vec![("eu-*", Drain), ("eu-west", Auto)], vec!["eu-* drain", "eu-west auto"], None),
            (vec![("eu-*", Drain), ("eu-west", Auto), ("*", Auto)], vec![], None),
            (vec![("eu-*", Drain), ("eu-west", Auto), ("eu-*", Down)], vec!["eu-* down"], Some(Down)),
            (vec![("eu-west", Auto)], vec![], None),
            (vec![("us", Down), ("eu-west/*", Down)], vec!["us down", "eu-west/* down"], None),
            (vec![("us", Down), ("eu-west/*", Auto)], vec!["us down"], None),
        ] {
            let overrides = of(&list);
            assert_eq!(targets(&overrides), left, "{list:?}");
            assert_eq!(overrides.of_region("eu-west").map(|o| o.state), of_eu_west, "{list:?}");
        }
    }

    #[test]
    fn what_a_new_override_replaces_is_told() {
        let mut overrides = of(&[("eu-west", Drain), ("eu-west/192.0.2.1", Down), ("us", Down)]);
        let replaced = overrides.set(decided("*", Auto)).unwrap();
        assert_eq!(replaced.iter().map(|o| o.target.to_string()).collect::<Vec<_>>(), ["eu-west", "us"]);
        assert_eq!(targets(&overrides), ["eu-west/192.0.2.1 down"]);
    }

    #[test]
    fn an_override_ends_when_its_time_has_come_and_its_exceptions_with_it() {
        let mut overrides = of(&[("us", Down)]);
        overrides.set(Override { until: Some(100), ..decided("eu-*", Drain) }).unwrap();
        overrides.set(decided("eu-west", Up)).unwrap();
        assert_eq!(overrides.expire(99), []);
        assert_eq!(overrides.of_region("eu-north").unwrap().state, Drain);
        assert_eq!(overrides.expire(100).len(), 1);
        assert_eq!(targets(&overrides), ["us down", "eu-west up"]);

        let mut overrides = Overrides::default();
        overrides.set(Override { until: Some(100), ..decided("eu-*", Drain) }).unwrap();
        overrides.set(decided("eu-west", Auto)).unwrap();
        overrides.expire(1_000);
        assert_eq!(overrides, Overrides::default());
    }

    #[test]
    fn there_is_an_end_to_how_many_there_may_be() {
        let mut overrides = Overrides::default();
        for n in 0..OVERRIDES_MAX {
            overrides.set(decided(&format!("r{n}"), Down)).unwrap();
        }
        let before = overrides.clone();
        assert_eq!(overrides.set(decided("one-more", Down)), Err(TooMany));
        assert_eq!(overrides, before);
        overrides.set(decided("r7", Up)).unwrap();
        overrides.set(decided("r8", Auto)).unwrap();
        overrides.set(decided("*", Drain)).unwrap();
        assert_eq!(targets(&overrides), ["* drain"]);
    }

    #[test]
    fn the_state_file_reads_as_people_write_targets() {
        let mut overrides = Overrides::default();
        let new = Override {
            reason: "kernel".into(),
            until: Some(7),
            by: "127.0.0.1".into(),
            ..decided("eu/2001:DB8::1", Drain)
        };
        overrides.set(new).unwrap();
        let text = serde_json::to_string(&overrides).unwrap();
        let expected = r#"{"list":[{"target":"eu/2001:db8::1","state":"drain","reason":"kernel","since":1,"until":7,"by":"127.0.0.1","counter":1}]}"#;
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Overrides>(&text).unwrap(), overrides);
    }
}
