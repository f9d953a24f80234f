//! Subjects: who says what to whom. The sender stands in the subject, so that NATS can hold each server to its own name
//! (`publish: "PREFIX.NAME.>"`), and what a message says of its sender needs no belief.

use crate::config::nats::is_name;

/// What a message is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topic {
    /// `PREFIX.NODE.health`: beats, and views that changed.
    Health,
    /// `PREFIX.NODE.latency`: measured round trips.
    Latency,
    /// `PREFIX.NODE.ask`: questions.
    Ask,
    /// `PREFIX.NODE.decide`: a new decision of an operator.
    Decide,
    /// `PREFIX.NODE.to.PEER`: the answer to a question of PEER's.
    To(String),
}

/// The subject under which `node` speaks.
pub fn subject(prefix: &str, node: &str, topic: &Topic) -> String {
    match topic {
        Topic::Health => format!("{prefix}.{node}.health"),
        Topic::Latency => format!("{prefix}.{node}.latency"),
        Topic::Ask => format!("{prefix}.{node}.ask"),
        Topic::Decide => format!("{prefix}.{node}.decide"),
        Topic::To(peer) => format!("{prefix}.{node}.to.{peer}"),
    }
}

/// What `node` listens to.
pub fn subscriptions(prefix: &str, node: &str) -> [String; 5] {
    [
        format!("{prefix}.*.health"),
        format!("{prefix}.*.latency"),
        format!("{prefix}.*.ask"),
        format!("{prefix}.*.decide"),
        format!("{prefix}.*.to.{node}"),
    ]
}

/// Who speaks, and of what; `None` for a subject that is none of ours.
pub fn parse(prefix: &str, subject: &str) -> Option<(String, Topic)> {
    let rest = subject.strip_prefix(prefix)?.strip_prefix('.')?;
    let (node, topic) = rest.split_once('.')?;
    let topic = match topic {
        "health" => Topic::Health,
        "latency" => Topic::Latency,
        "ask" => Topic::Ask,
        "decide" => Topic::Decide,
        _ => Topic::To(topic.strip_prefix("to.").filter(|peer| is_name(peer))?.to_string()),
    };
    is_name(node).then(|| (node.to_string(), topic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_read_as_it_was_written() {
        for topic in [Topic::Health, Topic::Latency, Topic::Ask, Topic::Decide, Topic::To("eu-1".into())] {
            let text = subject("dns.prod", "us_1", &topic);
            assert_eq!(parse("dns.prod", &text), Some(("us_1".into(), topic)), "{text}");
        }
    }

    #[test]
    fn other_subjects_are_nobodys() {
        for text in
            ["", "isochrone", "isochrone.", "isochrone.a", "isochrone.a.sing", "isochrone.a.to.", "isochrone.a.to.b.c"]
        {
            assert_eq!(parse("isochrone", text), None, "{text}");
        }
        for text in
            ["isochroneX.a.health", "other.a.health", "isochrone..health", "isochrone.a b.health", "isochrone.ü.ask"]
        {
            assert_eq!(parse("isochrone", text), None, "{text}");
        }
    }
}
