//! Many eyes on one target: what several servers see of it, merged into what answers go by. Pure: views go in, a verdict comes
//! out. Knows nothing of who the servers are or how they tell each other.
#![deny(clippy::disallowed_methods)]

use std::time::Duration;

/// What counts as the same share in spite of rounding.
const ROUNDING: f64 = 1e-9;

/// How a server sees a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sees {
    /// It answers.
    Up,
    /// It answers, but changed too often and is held down.
    Held,
    /// It failed.
    Down,
}

impl Sees {
    /// As status and messages name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Sees::Up => "up",
            Sees::Held => "held",
            Sees::Down => "down",
        }
    }
}

/// One server's view of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// What it sees.
    pub sees: Sees,
    /// False where the server abstains: it distrusts itself, or has no heartbeat of a target that reports to one server alone. What it
    /// sees counts only where nobody sees more.
    pub is_firm: bool,
    /// While it is in doubt: the time in which the view may change.
    pub may_turn: Option<Duration>,
}

/// What the servers see together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consensus {
    /// What answers go by.
    pub sees: Sees,
    /// Servers that see it up, among those whose view counts.
    pub up: u16,
    /// Servers that hold it down.
    pub held: u16,
    /// Servers that see it down.
    pub down: u16,
    /// Servers that abstain.
    pub abstaining: u16,
    /// The time in which so many servers may change their view that this changes.
    pub may_turn: Option<Duration>,
}

impl Consensus {
    /// `2 of 3 servers see it down`.
    pub fn summary(&self) -> String {
        let all = self.up + self.held + self.down;
        let (count, what) = match self.sees {
            Sees::Held => (self.held + self.down, "hold it down or see it down"),
            _ => (self.down, if self.down == 1 { "sees it down" } else { "see it down" }),
        };
        let servers = if all == 1 { "server" } else { "servers" };
        format!("{count} of {all} {servers} {what}")
    }
}

/// Merges views: down when more than the share `quorum` (0 up to below 1) of them see it down; held when more than that see it
/// held or down. Views of those who abstain count where there are no others. `None` without any view.
pub fn merge(views: &[View], quorum: f64) -> Option<Consensus> {
    let abstaining = views.iter().filter(|view| !view.is_firm).count();
    let all_abstain = abstaining == views.len();
    let votes: Vec<&View> = views.iter().filter(|view| view.is_firm || all_abstain).collect();
    if votes.is_empty() {
        return None;
    }
    let count = |sees: Sees| votes.iter().filter(|view| view.sees == sees).count();
    let (up, held, down) = (count(Sees::Up), count(Sees::Held), count(Sees::Down));
    let is_enough = |seeing: usize| seeing as f64 > quorum * votes.len() as f64 + ROUNDING;
    let sees = match () {
        () if is_enough(down) => Sees::Down,
        () if is_enough(down + held) => Sees::Held,
        () => Sees::Up,
    };
    // So many must turn, and the soonest of those that can.
    let enough = (0..=votes.len()).find(|&seeing| is_enough(seeing)).unwrap_or(votes.len());
    let is_down = sees == Sees::Down;
    let turning = if is_down { down + 1 - enough } else { enough - down };
    let turnable = votes.iter().filter(|view| (view.sees == Sees::Down) == is_down);
    let mut soonest: Vec<Duration> = turnable.filter_map(|view| view.may_turn).collect();
    soonest.sort_unstable();
    let short = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
    Some(Consensus {
        sees,
        up: short(up),
        held: short(held),
        down: short(down),
        abstaining: short(abstaining),
        may_turn: soonest.get(turning.saturating_sub(1)).copied(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*, sample::select};

    use super::*;

    const UP: View = View { sees: Sees::Up, is_firm: true, may_turn: None };
    const DOWN: View = View { sees: Sees::Down, ..UP };
    const HELD: View = View { sees: Sees::Held, ..UP };

    fn weak(view: View) -> View {
        View { is_firm: false, ..view }
    }

    fn within(view: View, s: u64) -> View {
        View { may_turn: Some(Duration::from_secs(s)), ..view }
    }

    #[test]
    fn more_than_the_quorum_must_see_it_down() {
        for (what, views, quorum, expected) in [
            ("nobody knows anything", vec![], 0.5, None),
            ("alone", vec![DOWN], 0.5, Some(Sees::Down)),
            ("two that differ", vec![UP, DOWN], 0.5, Some(Sees::Up)),
            ("two that agree", vec![DOWN, DOWN], 0.5, Some(Sees::Down)),
            ("one of three", vec![UP, DOWN, UP], 0.5, Some(Sees::Up)),
            ("two of three", vec![UP, DOWN, DOWN], 0.5, Some(Sees::Down)),
            ("two of four", vec![UP, UP, DOWN, DOWN], 0.5, Some(Sees::Up)),
            ("one is enough", vec![UP, UP, DOWN], 0.0, Some(Sees::Down)),
            ("none", vec![UP, UP], 0.0, Some(Sees::Up)),
            ("all but one", vec![UP, DOWN, DOWN, DOWN], 0.9, Some(Sees::Up)),
            ("one that abstains", vec![UP, weak(DOWN), weak(DOWN)], 0.5, Some(Sees::Up)),
            ("one that knows", vec![DOWN, weak(UP), weak(UP)], 0.5, Some(Sees::Down)),
            ("all abstain", vec![weak(DOWN), weak(UP), weak(DOWN)], 0.5, Some(Sees::Down)),
            ("held by one of three", vec![UP, HELD, UP], 0.5, Some(Sees::Up)),
            ("held by two of three", vec![UP, HELD, HELD], 0.5, Some(Sees::Held)),
            ("held and down together", vec![UP, HELD, DOWN], 0.5, Some(Sees::Held)),
            ("held and down, down enough", vec![DOWN, HELD, DOWN], 0.5, Some(Sees::Down)),
        ] {
            assert_eq!(merge(&views, quorum).map(|merged| merged.sees), expected, "{what}");
        }
    }

    #[test]
    fn a_share_that_is_reached_exactly_is_not_more() {
        let votes = |down: usize, all: usize| (0..all).map(|n| if n < down { DOWN } else { UP }).collect::<Vec<_>>();
        for (down, all, quorum) in [(9, 50, 0.18), (3, 10, 0.3), (7, 10, 0.7), (1, 10, 0.1), (29, 50, 0.58)] {
            assert_eq!(merge(&votes(down, all), quorum).unwrap().sees, Sees::Up, "{down} of {all}");
            assert_eq!(merge(&votes(down + 1, all), quorum).unwrap().sees, Sees::Down, "{down} of {all} and one");
        }
    }

    #[test]
    fn it_may_turn_when_so_many_views_may_turn_as_it_takes() {
        for (what, views, expected) in [
            ("nobody doubts", vec![UP, UP, DOWN], None),
            ("one more is enough", vec![DOWN, within(UP, 3), UP], Some(3)),
            ("two must fall, and one may", vec![UP, within(UP, 3), UP], None),
            ("two must fall, and may", vec![within(UP, 9), within(UP, 3), UP], Some(9)),
            ("one of two must come back", vec![within(DOWN, 2), within(DOWN, 5), UP], Some(2)),
            ("two must come back", vec![within(DOWN, 2), within(DOWN, 5), DOWN], Some(5)),
            ("a doubt that changes nothing", vec![UP, UP, within(DOWN, 1)], None),
        ] {
            let merged = merge(&views, 0.5).unwrap();
            assert_eq!(merged.may_turn, expected.map(Duration::from_secs), "{what}");
        }
    }

    #[test]
    fn it_is_told_in_a_sentence() {
        let told = |views: &[View]| merge(views, 0.5).unwrap().summary();
        assert_eq!(told(&[DOWN, DOWN, UP]), "2 of 3 servers see it down");
        assert_eq!(told(&[UP, DOWN]), "1 of 2 servers sees it down");
        assert_eq!(told(&[DOWN, weak(UP)]), "1 of 1 server sees it down");
        assert_eq!(told(&[HELD, HELD, UP]), "2 of 3 servers hold it down or see it down");
    }

    fn view() -> impl Strategy<Value = View> {
        let sees = select(vec![Sees::Up, Sees::Held, Sees::Down]);
        (sees, prop::bool::weighted(0.8), option::of(1u64..6)).prop_map(|(sees, is_firm, s)| View {
            sees,
            is_firm,
            may_turn: s.map(Duration::from_secs),
        })
    }

    proptest! {
        /// Whoever has the same views comes to the same end, in whatever order they came.
        #[test]
        fn the_order_of_the_views_does_not_matter(views in vec(view(), 0..8), quorum in 0.0..0.99) {
            let mut turned = views.clone();
            turned.reverse();
            prop_assert_eq!(merge(&views, quorum), merge(&turned, quorum));
        }

        /// What may turn is what turns when all do that may within that time, and nothing turns sooner.
        #[test]
        fn it_turns_down_or_up_no_sooner_than_it_says(views in vec(view(), 1..8), quorum in 0.0..0.99) {
            let merged = merge(&views, quorum).unwrap();
            let is_down = merged.sees == Sees::Down;
            let counts = |view: &View| view.is_firm || views.iter().all(|view| !view.is_firm);
            let turned_by = |s: u64| {
                let by = Duration::from_secs(s);
                let turn = |view: &View| match view.may_turn.is_some_and(|may| may <= by) && counts(view) {
                    true if (view.sees == Sees::Down) == is_down => {
                        View { sees: if is_down { Sees::Up } else { Sees::Down }, ..*view }
                    }
                    _ => *view,
                };
                let after: Vec<View> = views.iter().map(turn).collect();
                (merge(&after, quorum).unwrap().sees == Sees::Down) != is_down
            };
            let soonest = (1..6).find(|s| turned_by(*s)).map(Duration::from_secs);
            prop_assert_eq!(merged.may_turn, soonest);
        }
    }
}
