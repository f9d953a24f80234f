//! What the others measured, as it outlives the process. Moments are those of the clock on the wall here; no clock of another server is in it.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{Cell, Heard, Latencies, NETWORKS_MAX, PEERS_MAX, Told, is_region};
use crate::{config::nats::is_name, latency::learn::KEEP_S};

/// What one server measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The server.
    node: String,
    /// Where it stood, by name.
    region: String,
    /// A line for each network: the network, milliseconds, samples, when the newest of them came (Unix time in seconds), and `ecs` where
    /// its resolvers send client subnets.
    networks: Vec<String>,
}

impl Cell {
    fn line(&self, now_s: u64) -> String {
        let Cell { network, rtt_ms, samples, age_s, sends_subnets } = self;
        let ecs = if *sends_subnets { " ecs" } else { "" };
        format!("{network} {rtt_ms} {samples} {}{ecs}", now_s.saturating_sub(*age_s))
    }

    fn of_line(line: &str, now_s: u64) -> Option<Cell> {
        let mut words = line.split(' ');
        let mut next = || words.next();
        let (network, rtt_ms, samples) = (next()?.parse().ok()?, next()?.parse().ok()?, next()?.parse().ok()?);
        // A moment ahead is left from before the clock was set back.
        let age_s = now_s.saturating_sub(next()?.parse().ok()?);
        Cell { network, rtt_ms, samples, age_s, sends_subnets: next() == Some("ecs") }.sound()
    }
}

impl Latencies {
    /// What the others measured, to be written at `now_s` (Unix time), which is `now`.
    pub fn remember(&self, now: Instant, now_s: u64) -> Vec<Kept> {
        let kept = |(node, heard): (&String, &Heard)| {
            let mut known: Vec<Cell> = heard.networks.values().map(|told| told.as_of(now)).collect();
            known.sort_unstable_by_key(|cell| cell.network);
            let networks = known.iter().map(|cell| cell.line(now_s)).collect();
            Kept { node: node.clone(), region: heard.region.clone(), networks }
        };
        self.by_node.iter().map(kept).collect()
    }

    /// Takes in what was written before, as told by servers that are silent since. What is known already stays; what cannot be, is too old
    /// or finds no room is left out. Networks taken in, and left out.
    pub fn recall(&mut self, kept: Vec<Kept>, now: Instant, now_s: u64) -> (usize, usize) {
        let all: usize = kept.iter().map(|kept| kept.networks.len()).sum();
        let (mut room, mut taken) = (NETWORKS_MAX.saturating_sub(self.networks()), 0);
        for Kept { node, region, networks } in kept {
            let is_elsewhere = self.by_node.get(&node).is_some_and(|heard| heard.region != region);
            let is_new = !self.by_node.contains_key(&node);
            if !is_name(&node) || !is_region(&region) || is_elsewhere || is_new && self.by_node.len() >= PEERS_MAX {
                continue;
            }
            let heard = self.by_node.entry(node).or_insert_with(|| Heard { region, ..Heard::default() });
            let cells = networks.iter().filter_map(|line| Cell::of_line(line, now_s));
            for cell in cells.filter(|cell| cell.age_s < KEEP_S).take(room) {
                let told = Told { cell, at: now, counted_ms: cell.rtt_ms };
                taken += usize::from(!heard.networks.contains_key(&cell.network));
                heard.networks.entry(cell.network).or_insert(told);
            }
            room = NETWORKS_MAX.saturating_sub(self.networks());
        }
        self.by_node.retain(|_, heard| !heard.networks.is_empty());
        self.is_recalled = true;
        self.generation += u64::from(taken > 0);
        (taken, all - taken)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::tests::{MINUTE, cell, said},
        *,
    };

    const NOW_S: u64 = 1_800_000_000;

    #[test]
    fn what_was_heard_is_known_to_the_next_process_and_goes_on_growing_old() {
        let (begun, mut before) = (Instant::now(), Latencies::default());
        let ecs = Cell { sends_subnets: true, ..cell(2, 123.0) };
        before.take("a", &said(&[cell(1, 10.3), ecs]), begun);
        let kept = before.remember(begun + MINUTE, NOW_S);
        assert_eq!(kept[0].networks[0], format!("0.0.1.0/24 10.3 4 {}", NOW_S - 70));
        let text = serde_json::to_string(&kept).unwrap();
        let mut after = Latencies::default();
        assert_eq!(after.recall(serde_json::from_str(&text).unwrap(), begun, NOW_S + 3600), (2, 0));
        assert_eq!(after.generation(), 1);
        let mut heard = after.heard(begun).remove(0);
        heard.cells.sort_by_key(|cell| cell.network);
        assert_eq!(heard.cells, [Cell { age_s: 3670, ..cell(1, 10.3) }, Cell { age_s: 3670, ..ecs }]);
        assert!(!heard.is_current, "nobody has told it since");

        // The server tells again: what it tells no more is forgotten after an hour.
        after.take("a", &said(&[cell(1, 10.3)]), begun + MINUTE);
        assert_eq!((after.of("a"), after.heard(begun)[0].is_current), (Some(("eu", 2)), true));
        after.take("a", &said(&[cell(1, 10.3)]), begun + 60 * MINUTE);
        after.sweep(begun + 60 * MINUTE);
        assert_eq!(after.of("a"), Some(("eu", 2)), "it may come yet");
        after.take("a", &said(&[cell(1, 10.3)]), begun + 61 * MINUTE);
        after.sweep(begun + 61 * MINUTE);
        assert_eq!(after.of("a"), Some(("eu", 1)));
        assert!(after.is_recalled());
        after.forget();
        assert!(!after.is_recalled());
    }

    #[test]
    fn what_is_old_broken_or_known_better_is_left_out() {
        let (now, mut latencies) = (Instant::now(), Latencies::default());
        latencies.take("a", &said(&[cell(1, 10.0)]), now);
        let kept = |node: &str, region: &str, networks: &[String]| Kept {
            node: node.into(),
            region: region.into(),
            networks: networks.to_vec(),
        };
        let line = |n: u32, age_s: u64| cell(n, 99.0).line(NOW_S + 10 - age_s);
        let lines = [
            line(1, 0),
            line(2, KEEP_S - 1),
            line(3, KEEP_S),
            "0.0.4.0/24 99 4".into(),
            "0.0.5.0/25 99 4 1800000000".into(),
            "0.0.6.0/24 -1 4 1800000000".into(),
            String::new(),
        ];
        let all = vec![
            kept("a", "eu", &lines),
            kept("b", "us", &lines[..1]),
            kept("b.c", "us", &lines[..1]),
            kept("d", "", &lines[..1]),
            kept("a", "us", &lines[..1]),
        ];
        assert_eq!(latencies.recall(all, now, NOW_S), (2, 9));
        assert_eq!((latencies.of("a"), latencies.of("b")), (Some(("eu", 2)), Some(("us", 1))));
        let known = latencies.heard(now).remove(0).cells;
        assert!(known.iter().any(|known| known.rtt_ms == 10.0), "what is told counts: {known:?}");
        // A clock that was set back makes nothing older, and nothing newer than new.
        let ahead = vec![kept("e", "eu", &[cell(9, 9.0).line(NOW_S + 1_000_000)])];
        latencies.recall(ahead, now + Duration::from_secs(1), NOW_S);
        assert_eq!(latencies.heard(now).pop().unwrap().cells[0].age_s, 0);
    }
}
