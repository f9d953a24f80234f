//! Logged queries, counted by where they would go: each distinct question is followed to its route in both worlds once, each client of
//! a pair of routes once more, whatever the length of the log.

use std::{
    collections::HashMap,
    io::{self, BufRead},
    net::IpAddr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::NetworkMoves;
use crate::{
    answer::{
        explain::parse_qtype,
        way::{family_asked, find_route},
    },
    routing::{
        Family,
        moves::{Side, Tally, weigh},
        plan::Route,
    },
    server::{query_log::read::read, world::World},
    wire::Name,
};

/// Questions whose ways are remembered; a log of random names must not fill the memory.
const QUESTIONS_MAX: usize = 1_000_000;

/// What was read of query logs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct LoggedQueries {
    /// Lines, broken ones included.
    pub lines: u64,
    /// Lines that could not be read; they are left out.
    pub broken: u64,
    /// The first of them and what is wrong with it.
    pub first_broken: Option<String>,
    /// Queries that no route answers, before or after.
    pub elsewhere: u64,
    /// What would become of all others.
    pub total: QueryMoves,
}

/// What would become of logged queries.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct QueryMoves {
    /// How many there are.
    pub queries: u64,
    /// Share of them that gets another region, 0 to 1.
    pub moved: f64,
    /// Share that gets a region before, and none after.
    pub lost: f64,
    /// Mean estimate before, of those that have one on both sides, in milliseconds.
    pub before_ms: Option<f64>,
    /// The same after.
    pub after_ms: Option<f64>,
    /// Shares of the regions.
    pub regions: Vec<super::RegionShare>,
    /// What moves, the largest share first.
    pub moves: Vec<QueryMove>,
}

/// Queries that go from one region to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueryMove {
    /// From here; `None`: they had no answer.
    pub from: Option<String>,
    /// To there; `None`: they would have no answer.
    pub to: Option<String>,
    /// How many.
    pub queries: u64,
    /// Share of the queries.
    pub share: f64,
    /// Mean estimate before in milliseconds.
    pub before_ms: Option<f64>,
    /// Mean estimate after in milliseconds.
    pub after_ms: Option<f64>,
}

/// The routes, by their numbers, that answer a question before and after, and the family that it asks each for.
type Ways = [Option<(usize, Family)>; 2];

/// Counts the queries of logs.
pub struct Counting<'w> {
    worlds: [&'w World; 2],
    read: LoggedQueries,
    /// By name and type as they stand in the log; `None`: no route answers.
    questions: HashMap<(String, String), Option<Ways>>,
    counts: HashMap<(Ways, IpNet), u64>,
}

/// The milliseconds from an address to a region of the side before (`false`) or after (`true`).
type Estimates<'e> = &'e dyn Fn(IpAddr, crate::config::model::RegionId, bool) -> Option<f32>;

impl<'w> Counting<'w> {
    /// Nothing yet of two worlds; they may be the same.
    pub fn new(before: &'w World, after: &'w World) -> Self {
        Counting {
            worlds: [before, after],
            read: LoggedQueries::default(),
            questions: HashMap::new(),
            counts: HashMap::new(),
        }
    }

    /// Takes in a whole log, called `name`.
    ///
    /// # Errors
    /// When it cannot be read to its end.
    pub fn take_log(&mut self, name: &str, mut log: impl BufRead) -> io::Result<()> {
        let (mut line, mut number) = (Vec::new(), 0);
        loop {
            line.clear();
            if log.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            number += 1;
            self.read.lines += 1;
            if let Err(why) = self.take(line.trim_ascii_end()) {
                self.read.broken += 1;
                self.read.first_broken.get_or_insert_with(|| format!("line {number} of {name} {why}"));
            }
        }
    }

    fn take(&mut self, line: &[u8]) -> Result<(), String> {
        let logged = read(line)?;
        let ways = match logged.question {
            None => None,
            Some((name, qtype)) => {
                let question = (name.into_owned(), qtype.into_owned());
                match self.questions.get(&question) {
                    Some(ways) => *ways,
                    None => {
                        let name: Name = question.0.parse().map_err(|error| format!("has no name: {error}"))?;
                        let ways = self.ways(&name, parse_qtype(&question.1)?);
                        if self.questions.len() >= QUESTIONS_MAX {
                            self.questions.clear();
                        }
                        self.questions.insert(question, ways);
                        ways
                    }
                }
            }
        };
        match ways {
            Some(ways) => *self.counts.entry((ways, logged.client)).or_default() += 1,
            None => self.read.elsewhere += 1,
        }
        Ok(())
    }

    fn ways(&self, name: &Name, qtype: u16) -> Option<Ways> {
        let ways = self.worlds.map(|world| {
            let (number, route) = find_route(&world.zones, &world.plan, name, qtype)?;
            Some((number, family_asked(route, qtype)))
        });
        ways.iter().any(Option::is_some).then_some(ways)
    }

    /// What became of the queries, by route: that of the world after, or else that before.
    pub(super) fn weigh(
        &self,
        sides: [Side; 2],
        estimates: Estimates<'_>,
        name_of: &dyn Fn(&World, &Route) -> (String, String),
    ) -> HashMap<(String, String), Tally> {
        let mut tallies: HashMap<(String, String), Tally> = HashMap::new();
        for ((ways, client), queries) in &self.counts {
            let asked = [0, 1].map(|n| ways[n].map(|(number, family)| (&self.worlds[n].plan.routes[number], family)));
            let named = [1, 0].into_iter().find_map(|n| asked[n].map(|(route, _)| name_of(self.worlds[n], route)));
            let Some(named) = named else { continue }; // never: one of the two is there
            let address = client.network();
            let estimate = |region, is_after| estimates(address, region, is_after);
            weigh(sides, asked, address, *queries as f64, tallies.entry(named).or_default(), &estimate);
        }
        tallies
    }

    /// What was read, with what became of it all.
    pub(super) fn told(self, total: QueryMoves) -> LoggedQueries {
        LoggedQueries { total, ..self.read }
    }
}

impl From<NetworkMoves> for QueryMoves {
    fn from(moves: NetworkMoves) -> QueryMoves {
        QueryMoves {
            queries: moves.networks.round() as u64,
            moved: moves.moved,
            lost: moves.lost,
            before_ms: moves.before_ms,
            after_ms: moves.after_ms,
            regions: moves.regions,
            moves: moves
                .moves
                .into_iter()
                .map(|one| QueryMove {
                    from: one.from,
                    to: one.to,
                    queries: one.networks.round() as u64,
                    share: one.share,
                    before_ms: one.before_ms,
                    after_ms: one.after_ms,
                })
                .collect(),
        }
    }
}
