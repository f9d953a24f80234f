//! What this server tells who asks, and what was decided here: whole lists, in parts that fit into a message each.

use std::{collections::hash_map::Entry, time::Instant};

use super::{
    super::{
        Decision,
        message::{
            Ask, DECISION_BYTES_AT_ONCE, DECISIONS_AT_ONCE, Message, OBSERVATIONS_AT_ONCE, Observation, Snapshot,
        },
        subject::Topic,
    },
    Member, What, now,
};

impl Member<'_> {
    /// Tells who asks what it asks for, if it was not told just now.
    pub(super) fn answer(&mut self, from: &str, ask: &Ask, at: Instant) {
        if ask.of.as_ref().is_some_and(|of| *of != self.config.node) {
            return;
        }
        let to = Topic::To(from.to_string());
        let mut is_due = |what| match self.answered.entry((from.to_string(), what)) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(at);
                true
            }
        };
        let (views, decisions) = (ask.views && is_due(What::Views), ask.decisions && is_due(What::Decisions));
        if ask.cells && is_due(What::Cells) {
            self.tell_all_measured(&to, at);
        }
        if views {
            let (_, wall) = now();
            let views: Vec<Observation> = self.told.iter().filter_map(|told| told.as_of(wall)).collect();
            let parts: Vec<&[Observation]> = match views.is_empty() {
                true => vec![&[]],
                false => views.chunks(OBSERVATIONS_AT_ONCE).collect(),
            };
            for (part, views) in (0..).zip(&parts) {
                let (run, seq, parts) = (self.run(), self.seq, parts.len() as u32);
                let snapshot = Snapshot { run, seq, part, parts, views: views.to_vec() };
                self.say(to.clone(), &Message { snapshot: Some(snapshot), ..Message::default() });
            }
        }
        if decisions {
            for decisions in in_messages(&self.decisions.all()) {
                self.say(to.clone(), &Message { decisions: decisions.to_vec(), ..Message::default() });
            }
        }
    }

    /// Tells the others what was decided here.
    pub(super) fn tell_decisions(&mut self) {
        let ours = |all: Vec<Decision>| all.into_iter().filter(|decision| decision.node == self.config.node);
        let new: Vec<_> = ours(self.decisions.all()).filter(|decision| decision.counter > self.decided).collect();
        let Some(highest) = new.iter().map(|decision| decision.counter).max() else { return };
        self.decided = highest;
        for decisions in in_messages(&new) {
            self.say(Topic::Decide, &Message { decisions: decisions.to_vec(), ..Message::default() });
        }
    }
}

/// Decisions in parts that fit into a message each.
fn in_messages(decisions: &[Decision]) -> Vec<&[Decision]> {
    let (mut parts, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (at, decision) in decisions.iter().enumerate() {
        let len = decision.text_len();
        if at > start && (at - start == DECISIONS_AT_ONCE || bytes + len > DECISION_BYTES_AT_ONCE) {
            parts.push(&decisions[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += len;
    }
    parts.extend((start < decisions.len()).then(|| &decisions[start..]));
    parts
}
