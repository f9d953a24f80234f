//! This server among the others: tells them what it sees, hears what they see, and gives the board what follows. Knows nothing of what
//! carries messages.

mod answers;
mod hearing;
mod measured;

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep_until},
};

use self::hearing::Compared;
use super::{
    Cluster, Decisions,
    exchange::{Event, Exchange, random},
    latencies::Teller,
    message::{Ask, Beat, Delta, Message, OBSERVATIONS_AT_ONCE, Observation, Seen},
    now,
    peers::FRESH_FOR,
    subject::Topic,
};
use crate::{
    config::model,
    health::{
        Board, TargetId, TargetStatus,
        consensus::{Consensus, View, merge},
        identity::{Identity, identities},
    },
};

/// From one beat to the next.
const BEAT_EVERY: Duration = Duration::from_secs(2);
/// How often it is looked whether views have ceased to count.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Shortest time from one telling of changes to the next: one that stands alone is told at once.
const TELL_PAUSE: Duration = Duration::from_millis(20);
/// Shortest time from one judgement to the next: what many servers say at one time is judged once.
const JUDGE_PAUSE: Duration = Duration::from_millis(10);
/// After a start and after each connection what answers go by stays for so long, until the others have answered: those who do first are
/// not all.
const SETTLES_IN: Duration = Duration::from_secs(1);
/// Who asks is answered again after so long at the soonest.
const ANSWER_AGAIN: Duration = Duration::from_millis(300);
/// From one telling of measured round trips to the next.
const TELL_MEASURED_EVERY: Duration = Duration::from_secs(2);
/// Runs of our own that may still come back to us.
const RUNS_MAX: usize = 8;

/// What the others were told of a target.
#[derive(Debug, Clone)]
struct Told {
    said: Observation,
    since: SystemTime,
}

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum What {
    Views,
    Decisions,
    Cells,
}

/// This server among the others.
pub(super) struct Member<'c> {
    config: &'c model::Cluster,
    cluster: &'c Cluster,
    board: &'c Board,
    decisions: &'c dyn Decisions,
    exchange: Exchange,
    epoch: u64,
    generation: u64,
    ids: HashMap<Identity, TargetId>,
    /// By [`TargetId`].
    told: Vec<Told>,
    doubts: bool,
    /// Our runs, the present one last.
    runs: VecDeque<u64>,
    seq: u64,
    beats: u64,
    /// When the newest beat was said, and when one of ours was heard (or could have been).
    beat_at: Instant,
    echo_at: Instant,
    settled_at: Instant,
    /// When whom was told what.
    answered: HashMap<(String, What), Instant>,
    /// Digests that differed when a server was asked: its own, and ours.
    compared: HashMap<String, Compared>,
    /// The highest counter of our own decisions that was told.
    decided: u64,
    /// What is seen otherwise and was not judged since.
    touched: Vec<TargetId>,
    /// What the others were told of measured round trips.
    teller: Teller,
}

impl<'c> Member<'c> {
    pub fn new(
        config: &'c model::Cluster,
        cluster: &'c Cluster,
        board: &'c Board,
        decisions: &'c dyn Decisions,
        exchange: Exchange,
    ) -> Member<'c> {
        let (begun, _) = now();
        cluster.begin_anew();
        Member {
            config,
            cluster,
            board,
            decisions,
            exchange,
            epoch: 0,
            generation: 0,
            ids: HashMap::new(),
            told: Vec::new(),
            doubts: false,
            runs: VecDeque::new(),
            seq: 0,
            beats: 0,
            beat_at: begun,
            echo_at: begun,
            settled_at: begun + SETTLES_IN,
            answered: HashMap::new(),
            compared: HashMap::new(),
            decided: 0,
            touched: Vec::new(),
            teller: Teller::default(),
        }
    }

    /// Until nothing carries messages any more.
    pub async fn take_part(mut self) {
        let mut changes = self.board.changes();
        let mut decided = self.decisions.changed();
        let every = |period| {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let (mut beat, mut look) = (every(BEAT_EVERY), every(LOOK_EVERY));
        let mut tell_measured = every(TELL_MEASURED_EVERY);
        let mut told = tokio::time::Instant::now();
        let mut judged = told;
        changes.mark_changed();
        decided.mark_changed();
        loop {
            tokio::select! {
                event = self.exchange.next() => match event {
                    Some(Event::Connected) => self.greet(),
                    Some(Event::Said { from, topic, bytes }) => self.hear(&from, &topic, &bytes),
                    None => return,
                },
                () = changed(&mut changes, told + TELL_PAUSE) => {
                    self.follow_board();
                    told = tokio::time::Instant::now();
                }
                () = changed(&mut decided, told) => self.tell_decisions(),
                () = sleep_until(judged + JUDGE_PAUSE), if !self.touched.is_empty() => {
                    self.judge();
                    judged = tokio::time::Instant::now();
                }
                _ = beat.tick() => self.beat(),
                _ = look.tick() => self.look(),
                _ = tell_measured.tick() => self.tell_measured(),
            }
        }
    }

    fn run(&self) -> u64 {
        self.runs.back().copied().unwrap_or_default()
    }

    fn say(&self, topic: Topic, message: &Message) {
        if self.cluster.link.is_connected() && !self.exchange.publish(topic, message) {
            self.cluster.link.count_dropped(1);
        }
    }

    /// The others may have said anything since we last heard them.
    fn greet(&mut self) {
        (self.echo_at, _) = now();
        self.settled_at = self.echo_at + SETTLES_IN;
        self.beat();
        self.say(Topic::Ask, &asking(Ask { of: None, views: true, decisions: true, cells: true }));
    }

    fn beat(&mut self) {
        let (at, _) = now();
        self.beats += 1;
        self.beat_at = at;
        let (hears, rises) = {
            let shared = self.cluster.shared();
            (1 + shared.peers.fresh_count(at) as u32, shared.rises.clone())
        };
        let beat = Beat {
            run: self.run(),
            seq: self.seq,
            beat: self.beats,
            targets: self.told.iter().filter(|told| told.said.seen != Seen::Nothing).count() as u64,
            decisions: self.decisions.digest(),
            version: env!("CARGO_PKG_VERSION").into(),
            doubts: self.doubts,
            hears,
            rises,
        };
        self.say(Topic::Health, &Message { beat: Some(beat), ..Message::default() });
    }

    /// Takes in what changed on the board, and tells the others.
    fn follow_board(&mut self) {
        let mut changes = self.board.changes_since(self.generation);
        let is_other_list = changes.epoch != self.epoch;
        if is_other_list {
            changes = self.board.changes_since(0);
            self.epoch = changes.epoch;
            self.begin(changes.statuses.iter().map(|(_, status)| status));
        }
        (self.generation, self.doubts) = (changes.generation, changes.is_doubting);
        let (_, wall) = now();
        let mut news = Vec::new();
        for (id, status) in &changes.statuses {
            let told = &mut self.told[id.index()];
            let seen = observe(told.said.target, status, self.doubts, wall);
            if is_news(told, &seen, status.since) {
                news.push(seen.clone());
                *told = Told { said: seen, since: status.since };
                self.touched.push(*id);
            }
        }
        for views in news.chunks(OBSERVATIONS_AT_ONCE) {
            self.seq += 1;
            let delta = Delta { run: self.run(), seq: self.seq, views: views.to_vec() };
            self.say(Topic::Health, &Message { delta: Some(delta), ..Message::default() });
        }
        if is_other_list {
            self.touched = (0..self.told.len() as u32).map(TargetId).collect();
            self.beat();
        }
    }

    /// Another list of targets: another run, which begins without views.
    fn begin<'s>(&mut self, statuses: impl Iterator<Item = &'s TargetStatus>) {
        let targets: Vec<_> = statuses.map(|status| status.target.clone()).collect();
        let identities = identities(&targets);
        self.ids = (0..).map(TargetId).zip(&identities).map(|(id, identity)| (*identity, id)).collect();
        let nothing =
            |identity: &Identity| Told { said: Observation::nothing(*identity), since: SystemTime::UNIX_EPOCH };
        self.told = identities.iter().map(nothing).collect();
        self.runs.push_back(random().max(1));
        if self.runs.len() > RUNS_MAX {
            self.runs.pop_front();
        }
        self.seq = 0;
        let mut shared = self.cluster.shared();
        (shared.epoch, shared.identities) = (self.epoch, identities);
    }

    /// Works out anew what the servers see together of the targets that some see otherwise.
    fn judge(&mut self) {
        let mut targets = std::mem::take(&mut self.touched);
        targets.sort_unstable();
        targets.dedup();
        let (at, _) = now();
        let shared = self.cluster.shared();
        let is_settled = at >= self.settled_at;
        let verdict = |id: &TargetId| {
            let own = &self.told[id.index()].said;
            let mut views: Vec<View> = shared.peers.views(own.target, at).collect();
            if views.is_empty() {
                return (*id, None); // alone, or nobody else knows this target
            }
            views.extend(own.view());
            (*id, merge(&views, self.config.quorum))
        };
        // Before that, what the others see is better than nothing alone.
        let is_due = |id: &&TargetId| is_settled || self.told[id.index()].said.seen == Seen::Nothing;
        let verdicts: Vec<(TargetId, Option<Consensus>)> = targets.iter().filter(is_due).map(verdict).collect();
        drop(shared);
        let (_, wall) = now();
        self.board.judge(self.epoch, &verdicts, wall);
    }

    fn touch(&mut self, targets: &[Identity]) {
        self.touched.extend(targets.iter().filter_map(|target| self.ids.get(target).copied()));
    }

    /// Looks whether somebody has fallen silent.
    fn look(&mut self) {
        let (at, _) = now();
        let mut shared = self.cluster.shared();
        let (silent, targets) = shared.peers.expire(at);
        let is_mute = self.cluster.link.is_connected() && at.saturating_duration_since(self.echo_at) >= FRESH_FOR;
        let has_fallen_mute = is_mute && !shared.is_mute;
        shared.is_mute = is_mute;
        drop(shared);
        if has_fallen_mute {
            tracing::warn!("what this server says to the others does not come back from NATS");
        }
        for node in silent {
            tracing::warn!(node, "server of the cluster is silent; its view no longer counts");
        }
        self.touch(&targets);
        if at >= self.settled_at && at < self.settled_at + 2 * LOOK_EVERY {
            let all: Vec<TargetId> = (0..self.told.len() as u32).map(TargetId).collect();
            self.touched = all;
        }
        self.answered.retain(|_, answered| at.saturating_duration_since(*answered) < ANSWER_AGAIN);
    }
}

impl Told {
    /// To be said again now; `None`: there is nothing to say.
    fn as_of(&self, wall: SystemTime) -> Option<Observation> {
        let age_s = wall.duration_since(self.since).map_or(0, |age| age.as_secs());
        (self.said.seen != Seen::Nothing).then(|| Observation { age_s, ..self.said.clone() })
    }
}

fn asking(ask: Ask) -> Message {
    Message { ask: Some(ask), ..Message::default() }
}

/// Waits for a change, and until `not_before`.
async fn changed(receiver: &mut watch::Receiver<u64>, not_before: tokio::time::Instant) {
    sleep_until(not_before).await;
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await; // nothing changes any more
    }
}

/// How this server sees a target, as the others are told.
fn observe(target: Identity, status: &TargetStatus, doubts: bool, wall: SystemTime) -> Observation {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    match status.decided {
        false => Observation::nothing(target),
        true => Observation {
            target,
            seen: status.own_view().into(),
            is_weak: doubts || status.lacks_heartbeat(),
            age_s: wall.duration_since(status.since).map_or(0, |age| age.as_secs()),
            connect_us: status.connect.map_or(0, |connect| u64::try_from(connect.as_micros()).unwrap_or(0).max(1)),
            doubt_ms: status.ttl_bound.map_or(0, |bound| millis(bound).max(1)),
        },
    }
}

/// True when it is worth to be told: what follows from it, or a connect time that is another by a tenth and a millisecond.
fn is_news(told: &Told, seen: &Observation, since: SystemTime) -> bool {
    let said = &told.said;
    let is_same = (said.seen, said.is_weak, said.doubt_ms) == (seen.seen, seen.is_weak, seen.doubt_ms);
    let moved_us = said.connect_us.abs_diff(seen.connect_us);
    let is_still = moved_us < 1000 || moved_us * 10 < said.connect_us;
    !(is_same && is_still && (told.since == since || seen.seen == Seen::Nothing))
}
