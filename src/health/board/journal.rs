//! Which change concerned which target, so that who follows the board looks at those alone that changed. Knows nothing of what
//! a change is.

use std::collections::VecDeque;

/// What a change concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touched {
    /// Nothing that answers depend on.
    Nothing,
    /// The target at this place.
    One(usize),
    /// Perhaps every target: another list of them, or a state of the board as a whole.
    All,
}

/// Numbers changes, and remembers the newest of them.
#[derive(Debug, Default)]
pub struct Journal {
    /// The number of the newest change.
    generation: u64,
    /// The places that the newest changes concerned, newest last, back to one that concerned all or was let go.
    ones: VecDeque<usize>,
}

impl Journal {
    /// The number of the newest change; 0 before the first.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Takes in a change; true unless it concerned nothing. At most `room` changes (from 1 up) are remembered one by one: more
    /// than there are targets would be of no use.
    pub fn note(&mut self, touched: Touched, room: usize) -> bool {
        match touched {
            Touched::Nothing => return false,
            Touched::One(at) => {
                if self.ones.len() >= room {
                    self.ones.pop_front();
                }
                self.ones.push_back(at);
            }
            Touched::All => self.ones.clear(),
        }
        self.generation += 1;
        true
    }

    /// The places that changed after the change numbered `seen`, each once, in order; `None`: perhaps all.
    pub fn since(&self, seen: u64) -> Option<Vec<usize>> {
        let changes = usize::try_from(self.generation.checked_sub(seen)?).ok()?;
        let first = self.ones.len().checked_sub(changes)?;
        let mut places: Vec<usize> = self.ones.range(first..).copied().collect();
        places.sort_unstable();
        places.dedup();
        Some(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_since_a_number_is_told_once_each_and_all_when_it_is_not_known() {
        let mut journal = Journal::default();
        assert_eq!(journal.since(0), Some(vec![]));
        assert!(journal.note(Touched::All, 3));
        assert_eq!((journal.generation(), journal.since(0), journal.since(1)), (1, None, Some(vec![])));
        assert!(!journal.note(Touched::Nothing, 3));
        for at in [2, 0, 2] {
            assert!(journal.note(Touched::One(at), 3));
        }
        assert_eq!(
            (journal.since(1), journal.since(2), journal.since(3)),
            (Some(vec![0, 2]), Some(vec![0, 2]), Some(vec![2]))
        );
        assert_eq!((journal.since(4), journal.since(5)), (Some(vec![]), None), "a number from elsewhere");
        journal.note(Touched::One(1), 3);
        assert_eq!((journal.since(1), journal.since(2)), (None, Some(vec![0, 1, 2])), "three are remembered");
        journal.note(Touched::All, 3);
        assert_eq!((journal.since(5), journal.since(6)), (None, Some(vec![])));
    }
}
