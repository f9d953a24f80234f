//! A scenario as steps: something is done, and the answers are to change or to stay. And the judgement of what clients saw.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    asker::EVERY,
    report::Seen,
    site::{Site, Times, region_name},
};

/// What a step is to do to the answers.
#[derive(Debug, Clone, Copy)]
pub enum Expect {
    /// They go to another region, once, within so long.
    Moves { to: usize, within: Duration },
    /// They stay where they are for so long.
    Stays(Duration),
    /// They may go anywhere, and stand with this region after so long.
    Settles { on: usize, within: Duration },
    /// They may go anywhere, at any time, for so long.
    Anything(Duration),
}

/// One thing that is done.
pub struct Step {
    /// In words, for the picture.
    pub what: &'static str,
    pub act: fn(&mut Site),
    pub expect: Expect,
}

/// What a machine that is busy with other work may add to the times of the contract. Where it stood still, twice that time comes on
/// top: both the probes and the answers may have waited for it.
pub const ALLOWANCE: Duration = Duration::from_secs(1);
/// Answers follow a verdict within this.
const FOLLOW_MAX: Duration = Duration::from_millis(100);
/// And with a machine that is busy.
const FOLLOW_ALLOWANCE: Duration = Duration::from_millis(300);
/// After a change the answers must stay for so long, to show that they do.
const HOLD: Duration = Duration::from_millis(1500);
/// What other servers get for a change before the next step.
const RIVAL_PATIENCE: Duration = Duration::from_secs(240);

/// What came of a scenario, for one server.
pub struct Outcome {
    pub scenario: String,
    pub times: &'static str,
    pub seen: Seen,
    /// When each step was taken, on the client's clock, and what it was.
    pub steps: Vec<(Duration, &'static str)>,
    /// How long the answers took to change, for each step at which they were to.
    pub moves: Vec<Option<Duration>>,
    /// Answers that pointed to a failed region until they changed, for each step at which one failed.
    pub to_failed: Vec<usize>,
    /// How long after the verdict in the program's log they followed.
    pub followed: Vec<Duration>,
    /// Answers that pointed to a failed region after the time that the contract gives, or away from a healthy one.
    pub wrong: usize,
    /// Of what flaps: whether it was held down, and how long answers did without it while it was well.
    pub held: Option<bool>,
    pub away: Option<Duration>,
    /// What is against the contract.
    pub complaints: Vec<String>,
}

/// Plays the steps on a site whose servers and clients run, and judges.
pub fn play(scenario: &str, times: &Times, site: &mut Site, steps: &[Step]) -> Vec<Outcome> {
    let mut taken: Vec<(Instant, &Step)> = Vec::new();
    thread::sleep(HOLD);
    for step in steps {
        taken.push((Instant::now(), step));
        (step.act)(site);
        match step.expect {
            Expect::Moves { to, .. } => {
                site.wait_for_answer(0, to);
                let patience = Instant::now();
                for rival in 1..site.contestants.len() {
                    while !site.is_answered_with(rival, to) && patience.elapsed() < RIVAL_PATIENCE {
                        thread::sleep(Duration::from_millis(50));
                    }
                }
                thread::sleep(HOLD);
            }
            Expect::Stays(time) | Expect::Anything(time) => thread::sleep(time),
            Expect::Settles { .. } if site.contestants.len() > 1 => thread::sleep(RIVAL_PATIENCE),
            Expect::Settles { within, .. } => thread::sleep(within + ALLOWANCE + HOLD),
        }
    }
    let log = site.program.as_ref().map_or(String::new(), |program| program.stderr());
    let seen = site.seen();
    let judged = seen.into_iter().enumerate().map(|(index, seen)| {
        let steps: Vec<(Duration, &Step)> = taken.iter().map(|(at, step)| (seen.at(*at), *step)).collect();
        judge(scenario, times, seen, &steps, (index == 0).then_some(log.as_str()))
    });
    judged.collect()
}

/// Compares what a client saw with what the steps were to do. Only isochrone has a `log`, and only to it the contract applies.
fn judge(scenario: &str, times: &Times, seen: Seen, steps: &[(Duration, &Step)], log: Option<&str>) -> Outcome {
    let (mut moves, mut followed, mut to_failed, mut wrong) = (vec![], vec![], vec![], 0);
    let mut complaints = seen.complaints_of_waiting();
    let mut now = 0;
    let first = steps.first().map_or(Duration::MAX, |(at, _)| *at);
    wrong += seen.answered_otherwise(Duration::ZERO, first, now);
    for (index, &(from, step)) in steps.iter().enumerate() {
        let to = steps.get(index + 1).map_or(Duration::MAX, |(at, _)| *at);
        let allowed = |within: Duration, until: Duration| within + ALLOWANCE + 2 * seen.stalled(from, until);
        match step.expect {
            Expect::Moves { to: region, within } => {
                // Nothing moves at once: those that are there already have not left at the step before.
                let moved = seen.until(from, region).filter(|moved| !moved.is_zero() && from + *moved < to);
                let (before, after) = (now, region);
                let changed = moved.map_or(to, |moved| from + moved);
                wrong += seen.answered_otherwise(from, changed, before) + seen.answered_otherwise(changed, to, after);
                if after > before {
                    to_failed.push(seen.answered_with(from, changed, before));
                }
                if moved.is_none_or(|moved| moved > allowed(within, changed)) {
                    complaints.push(format!("{}: answers moved after {moved:?}, not within {within:?}", step.what));
                }
                // A machine that stands still writes the line late, perhaps after the answers that follow it.
                let latest = changed + FOLLOW_ALLOWANCE + seen.stalled(from, to);
                match log.and_then(|log| newest_verdict(log, &seen, latest)).filter(|at| *at >= from) {
                    Some(verdict) => {
                        let late = changed.saturating_sub(verdict);
                        if late > FOLLOW_MAX + EVERY + FOLLOW_ALLOWANCE + 2 * seen.stalled(verdict, changed) {
                            complaints.push(format!("{}: answers followed the verdict after {late:?}", step.what));
                        }
                        followed.push(late);
                    }
                    None => complaints.push(format!("{}: the log tells of no verdict", step.what)),
                }
                moves.push(moved);
                now = region;
            }
            Expect::Stays(_) => wrong += seen.answered_otherwise(from, to, now),
            Expect::Settles { on, within } => {
                let settled = from + allowed(within, from + within);
                wrong += seen.answered_otherwise(settled, to, on);
                now = on;
            }
            Expect::Anything(_) => {}
        }
    }
    if wrong > 0 {
        complaints.push(format!("{wrong} wrong answers: {}", seen.course()));
    }
    if log.is_none() {
        complaints.clear();
    }
    let steps = steps.iter().map(|(at, step)| (*at, step.what)).collect();
    let outcome = Outcome::new(scenario.into(), times.label, seen);
    Outcome { steps, moves, to_failed, followed, wrong, complaints, ..outcome }
}

/// The newest verdict in the log up to this moment, on the client's clock.
fn newest_verdict(log: &str, seen: &Seen, latest: Duration) -> Option<Duration> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let verdicts = lines.filter(|line| {
        let message = line["message"].as_str().unwrap_or_default();
        message == "endpoint is down" || message == "endpoint is up again"
    });
    let times = verdicts.filter_map(|line| seen.at_wall(line["timestamp"].as_str()?));
    times.take_while(|at| *at <= latest).last()
}

impl Outcome {
    /// Not judged yet.
    pub fn new(scenario: String, times: &'static str, seen: Seen) -> Outcome {
        let (steps, moves, to_failed, followed, complaints) = (vec![], vec![], vec![], vec![], vec![]);
        let (held, away, wrong) = (None, None, 0);
        Outcome { scenario, times, seen, steps, moves, to_failed, followed, wrong, held, away, complaints }
    }

    pub fn json(&self) -> Value {
        let seconds = |time: &Duration| (time.as_secs_f64() * 1e3).round() / 1e3;
        let mut json = self.seen.json();
        let more = json!({
            "scenario": self.scenario,
            "times": self.times,
            "steps": self.steps.iter().map(|(at, what)| json!([seconds(at), what])).collect::<Vec<_>>(),
            "moves": self.moves.iter().map(|moved| moved.as_ref().map(seconds)).collect::<Vec<_>>(),
            "to_failed": self.to_failed,
            "held": self.held,
            "away_while_well_s": self.away.as_ref().map(seconds),
            "followed": self.followed.iter().map(seconds).collect::<Vec<_>>(),
            "wrong": self.wrong,
        });
        json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json
    }

    /// One line of the table.
    pub fn line(&self) -> String {
        let times = |times: Vec<String>| if times.is_empty() { "-".into() } else { times.join(" ") };
        let moves = self.moves.iter().map(|moved| moved.map_or("never".into(), |m| format!("{:.1}s", m.as_secs_f64())));
        let to_failed = self.to_failed.iter().map(usize::to_string);
        let followed = self.followed.iter().map(|late| format!("{}ms", late.as_millis()));
        format!(
            "{:44} {:13} {:16} {:24} {:12} {:14} {:>5} {:>4} {:>7} {:>7.0} {}",
            self.scenario,
            self.times,
            self.seen.server,
            times(moves.collect()),
            times(to_failed.collect()),
            times(followed.collect()),
            self.wrong,
            self.seen.lost,
            self.seen.asked,
            self.seen.slowest.as_secs_f64() * 1e3,
            self.seen.course(),
        )
    }

    pub fn head() -> String {
        format!(
            "{:44} {:13} {:16} {:24} {:12} {:14} {:>5} {:>4} {:>7} {:>7} {}",
            "scenario",
            "check",
            "server",
            "answers moved after",
            "to the dead",
            "after verdict",
            "wrong",
            "lost",
            "asked",
            "max ms",
            "answers"
        )
    }
}

impl Seen {
    /// The regions in the order in which they were answered: `a b a`.
    pub fn course(&self) -> String {
        let names = self.segments.iter().take(12).map(|segment| segment.region.map_or('?', region_name).to_string());
        let more = if self.segments.len() > 12 { " …" } else { "" };
        names.collect::<Vec<_>>().join(" ") + more
    }
}
