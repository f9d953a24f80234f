//! The endpoints of a region as people are shown them: one row for each endpoint under each check, parts of calculated checks
//! among them.

use std::collections::BTreeMap;

use super::world::World;
use crate::{
    config::model::RegionId,
    health::{Endpoint, Source},
};

/// An endpoint under a check.
#[derive(Debug, Clone)]
pub struct Row {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The check's name; `None`: without one.
    pub check: Option<String>,
    /// Where the verdict comes from; `None` without a check.
    pub source: Option<Source>,
}

/// The endpoints of a region on all routes, ordered by endpoint and check, each once.
pub fn rows(world: &World, region: RegionId) -> Vec<Row> {
    let mut rows = BTreeMap::new();
    for pool in world.plan.pools.iter().filter(|pool| pool.region == region) {
        for member in &pool.members {
            let check = pool.check.as_ref().map(|check| check.name.as_str());
            let source = member.target.map(|target| &world.targets().sources()[target]);
            add(&mut rows, &member.endpoint, check, source);
        }
    }
    rows.into_values().collect()
}

fn add(
    rows: &mut BTreeMap<(Endpoint, Option<String>), Row>,
    endpoint: &Endpoint,
    check: Option<&str>,
    source: Option<&Source>,
) {
    let key = (endpoint.clone(), check.map(str::to_string));
    if rows.contains_key(&key) {
        return;
    }
    let row = Row { endpoint: endpoint.clone(), check: key.1.clone(), source: source.cloned() };
    rows.insert(key, row);
    if let Some(Source::Calculated(of)) = source {
        of.parts.iter().for_each(|(name, part)| add(rows, endpoint, Some(name), Some(part)));
    }
}
