//! How long the machine stood still, by a thread that does nothing but look at the clock: what a server is not to blame for. A server
//! that freezes by itself is found out by it.

use std::{
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use crate::report::Seen;

/// How often it looks.
const EVERY: Duration = Duration::from_millis(5);
/// It is never so late when nothing is in its way.
const STALL_MIN: Duration = Duration::from_millis(40);
/// An answer that comes later is lost, stalls aside: whoever asks has gone elsewhere.
pub const LOST_AFTER: Duration = Duration::from_secs(5);
/// No answer takes longer, stalls aside.
const SLOW_MAX: Duration = Duration::from_secs(1);

static STALLS: Mutex<Vec<(Instant, Instant)>> = Mutex::new(Vec::new());

/// Begins to look, for as long as the tests run.
pub fn start() {
    thread::spawn(|| {
        loop {
            let before = Instant::now();
            thread::sleep(EVERY);
            let now = Instant::now();
            if now - before > EVERY + STALL_MIN {
                STALLS.lock().unwrap().push((before, now));
            }
        }
    });
}

impl Seen {
    /// Goes by the stalls of the machine, not by the gaps between the server's own answers, and takes for lost what came too late.
    pub fn by_the_clock(mut self) -> Seen {
        let stalls = STALLS.lock().unwrap();
        let here = stalls.iter().map(|&(from, to)| (self.at(from), self.at(to)));
        self.stalls = here.filter(|(from, to)| from < to).collect();
        drop(stalls);
        self.lost += self.waits().filter(|wait| *wait > LOST_AFTER).count();
        self
    }

    /// How long each answer took, stalls aside.
    fn waits(&self) -> impl Iterator<Item = Duration> {
        let answered = self.record.asked.iter().filter_map(|asked| Some((asked.sent, asked.answered?)));
        answered.map(|(sent, at)| match at - sent > SLOW_MAX {
            true => (at - sent).saturating_sub(self.stalled(sent, at)),
            false => at - sent,
        })
    }

    /// What is against the contract in the answers' times, whatever they say.
    pub fn complaints_of_waiting(&self) -> Vec<String> {
        let mut complaints = vec![];
        if self.lost > 0 {
            complaints.push(format!("{} of {} questions got no answer within {LOST_AFTER:?}", self.lost, self.asked));
        }
        let slow = self.waits().filter(|wait| *wait > SLOW_MAX).count();
        if slow > 0 {
            complaints.push(format!("{slow} answers took longer than {SLOW_MAX:?}, the slowest {:?}", self.slowest));
        }
        complaints
    }
}
