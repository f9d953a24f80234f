//! How much longer than usual it takes to connect: a region whose access is congested shows it in the connect times of probes before
//! anything fails. Levels of one target, what is usual for it, what targets, regions and servers have in common, and what of all that
//! holds for long enough to be acted on. Pure: connect times and times go in. Knows nothing of what is done about a rise.
//!
//! ```text
//! connect times ─▶ levels ─▶ rise over what is usual ─▶ median of the region's targets ─▶ less what all regions share ─▶ what holds
//!                  (median of a pace)    (each target)                                     (the prober's own access)     (Steady)
//! ```
#![deny(clippy::disallowed_methods)]

use std::{collections::VecDeque, time::Duration};

mod watch;

pub use watch::Watch;

/// A level is the median of at least so many connect times: half of them must be slow to move it.
const PROBES_PER_LEVEL_MIN: usize = 5;
/// And of at most about so many, however often is probed.
const PROBES_PER_LEVEL_MAX: u32 = 32;
/// So many levels are a block, an hour at a pace of a minute; of a block are kept its lower quartile and its noise.
const LEVELS_PER_BLOCK: usize = 60;
/// So many blocks tell what is usual: a day at a pace of a minute.
const BLOCKS_MAX: usize = 24;
/// From so many levels on something is usual at all.
const LEVELS_MIN: usize = 10;
/// A level is of now for so many paces.
const LEVEL_LASTS: u32 = 3;
/// A rise that counts is above so many times the noise: levels that follow each other differ by less in 99 of 100 cases.
const NOISE_MARGIN: u32 = 4;
/// And above this share of what is usual.
const USUAL_SHARE: u32 = 10;
/// A rise must have held at so many looks, each at new levels, and so must its end.
const LOOKS: usize = 3;
/// What is acted on changes by no less than this share of itself.
const CHANGE_SHARE: f32 = 0.25;
/// And by no less than this, in milliseconds.
const CHANGE_MS_MIN: f32 = 1.0;

/// By how much connecting takes longer than usual.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rise {
    /// Milliseconds above what is usual; below zero when it is faster.
    pub ms: f32,
    /// A rise no greater than this is noise.
    pub margin_ms: f32,
    /// What is usual.
    pub usual_ms: f32,
    /// When its level was complete, after some fixed moment; of several targets, when the newest of the older half were.
    pub at: Duration,
    /// When the newest of their levels was complete.
    pub newest: Duration,
}

/// What a block of levels came to, in microseconds.
#[derive(Debug, Clone, Copy)]
struct Block {
    usual_us: u32,
    noise_us: u32,
}

/// The connect times of one target.
#[derive(Debug, Clone, Default)]
pub struct Levels {
    /// Microseconds since the last level, and when the newest of them came.
    gathered: Vec<u32>,
    newest: Duration,
    /// When the last level was complete.
    begun: Option<Duration>,
    /// The last level in microseconds, and how long it took to gather.
    level: Option<(u32, Duration)>,
    /// Levels of the block that is not full yet, in their order.
    open: Vec<u32>,
    blocks: VecDeque<Block>,
}

impl Levels {
    /// Takes in a connect time measured `now` after some fixed moment. `pace`: a level takes so long, or as long as five probes do.
    pub fn record(&mut self, now: Duration, connect: Duration, pace: Duration) {
        let begun = *self.begun.get_or_insert(now);
        let is_crowded = now.saturating_sub(self.newest) < pace / PROBES_PER_LEVEL_MAX;
        if !self.gathered.is_empty() && is_crowded {
            return;
        }
        self.newest = now;
        self.gathered.push(u32::try_from(connect.as_micros()).unwrap_or(u32::MAX));
        let span = now.saturating_sub(begun);
        if span < pace || self.gathered.len() < PROBES_PER_LEVEL_MIN {
            return;
        }
        let middle = self.gathered.len() / 2;
        let level_us = *self.gathered.select_nth_unstable(middle).1;
        self.gathered.clear();
        self.begun = Some(now);
        self.level = Some((level_us, span));
        self.open.push(level_us);
        if self.open.len() == LEVELS_PER_BLOCK {
            if self.blocks.len() == BLOCKS_MAX {
                self.blocks.pop_front();
            }
            self.blocks.push_back(block(&self.open));
            self.open.clear();
        }
    }

    /// The rise of the newest level; `None` while nothing is usual yet, or where no level is of now.
    pub fn rise(&self, now: Duration) -> Option<Rise> {
        let (level_us, span) = self.level?;
        let at = self.begun?;
        if now.saturating_sub(at) > span * LEVEL_LASTS {
            return None;
        }
        let open = (self.open.len() >= LEVELS_MIN).then(|| block(&self.open));
        let blocks: Vec<Block> = self.blocks.iter().copied().chain(open).collect();
        let usual_us = quantile(blocks.iter().map(|block| block.usual_us), 4)?;
        let noise_us = quantile(blocks.iter().map(|block| block.noise_us), 2)?;
        let ms = |us: u32| us as f32 / 1e3;
        Some(Rise {
            ms: ms(level_us) - ms(usual_us),
            margin_ms: ms((noise_us.saturating_mul(NOISE_MARGIN)).max(usual_us / USUAL_SHARE)),
            usual_ms: ms(usual_us),
            at,
            newest: at,
        })
    }
}

/// The lower quartile of levels, and the median step from one to the next: a rise within the block is one step, and no noise.
fn block(levels: &[u32]) -> Block {
    let steps = levels.windows(2).map(|pair| pair[0].abs_diff(pair[1]));
    Block { usual_us: quantile(levels.iter().copied(), 4).unwrap_or(0), noise_us: quantile(steps, 2).unwrap_or(0) }
}

/// The value that at least one in `share` is no greater than: the lower median for 2, the lower quartile for 4.
fn quantile(values: impl Iterator<Item = u32>, share: usize) -> Option<u32> {
    let mut values: Vec<u32> = values.collect();
    let at = values.len().checked_sub(1)? / share;
    Some(*values.select_nth_unstable(at).1)
}

/// What holds for the targets of one region: the lower median, so that a host that is slow by itself is no region's rise. Of when, too: what
/// is above the newest level of before is of levels of which more than half are new.
pub fn of_region(mut targets: Vec<Rise>) -> Option<Rise> {
    let middle = targets.len().checked_sub(1)? / 2;
    targets.sort_by_key(|rise| rise.at);
    let at = targets[middle].at;
    let newest = targets.iter().map(|rise| rise.newest).max()?;
    targets.sort_by(|a, b| a.ms.total_cmp(&b.ms));
    Some(Rise { at, newest, ..targets[middle] })
}

/// Takes off what the regions have in common, which is the prober's own access: the lower median. `own` is the region that the prober
/// stands in, of which it sees nothing; where fewer than two others are known, it cannot tell its own end of the way from the other.
pub fn without_common(regions: &mut [Option<Rise>], own: Option<usize>) {
    if let Some(own) = own.and_then(|own| regions.get_mut(own)) {
        *own = None;
    }
    let known: Vec<Rise> = regions.iter().flatten().copied().collect();
    let common_ms = if known.len() < 2 { None } else { of_region(known).map(|rise| rise.ms.max(0.0)) };
    for rise in regions.iter_mut() {
        *rise = rise.zip(common_ms).map(|(rise, common_ms)| Rise { ms: rise.ms - common_ms, ..rise });
    }
}

/// What more than half of the servers see at least, of those that see anything: the lower median in milliseconds.
pub fn agreed(seen_ms: impl Iterator<Item = u32>) -> u32 {
    quantile(seen_ms, 2).unwrap_or(0)
}

/// The rise of a region that is acted on: it begins, changes and ends only when several looks in a row agree that it should. What was
/// looked at before is no other look.
#[derive(Debug, Clone, Default)]
pub struct Steady {
    looks: VecDeque<f32>,
    /// The newest level of the last look; `None`: nothing was known.
    newest: Option<Duration>,
    ms: f32,
}

impl Steady {
    /// One more look; `None`: nothing is known. No change is smaller than `least_ms`, and the rise counts as `most_ms` at most.
    pub fn look(&mut self, rise: Option<Rise>, least_ms: f32, most_ms: f32) {
        self.ms = self.ms.min(most_ms);
        if rise.zip(self.newest).is_some_and(|(rise, newest)| rise.at <= newest) {
            return;
        }
        self.newest = rise.map(|rise| rise.newest);
        if self.looks.len() == LOOKS {
            self.looks.pop_front();
        }
        self.looks.push_back(rise.map_or(0.0, |rise| rise.ms.clamp(0.0, most_ms)));
        let margin_ms = rise.map_or(0.0, |rise| rise.margin_ms).max(least_ms);
        let lowest_ms = self.looks.iter().copied().fold(f32::INFINITY, f32::min);
        let highest_ms = self.looks.iter().copied().fold(0.0, f32::max);
        let step_ms = least_ms.max(CHANGE_MS_MIN).max(CHANGE_SHARE * self.ms);
        if self.ms > 0.0 && highest_ms <= margin_ms / 2.0 {
            self.ms = 0.0;
        } else if self.ms > 0.0 && highest_ms < self.ms - step_ms {
            self.ms = highest_ms;
        } else if self.looks.len() == LOOKS && lowest_ms > margin_ms && lowest_ms > self.ms + step_ms {
            self.ms = lowest_ms;
        }
    }

    /// Milliseconds; 0: there is none.
    pub fn ms(&self) -> f32 {
        self.ms
    }
}

/// What the servers agree on, as it is acted on: it moves only as far as several looks in a row say, since who can tell comes and goes.
#[derive(Debug, Clone, Default)]
pub struct Held {
    looks: VecDeque<u32>,
    ms: u32,
}

impl Held {
    /// One more look, in milliseconds.
    pub fn look(&mut self, ms: u32) {
        if self.looks.len() == LOOKS {
            self.looks.pop_front();
        }
        self.looks.push_back(ms);
        if let (LOOKS, Some(lowest), Some(highest)) =
            (self.looks.len(), self.looks.iter().min(), self.looks.iter().max())
        {
            self.ms = self.ms.clamp(*lowest, *highest);
        }
    }

    /// There is nobody to agree with: it is so at once.
    pub fn set(&mut self, ms: u32) {
        *self = Held { looks: VecDeque::new(), ms };
    }

    /// Milliseconds; 0: there is none.
    pub fn ms(&self) -> u32 {
        self.ms
    }
}

#[cfg(test)]
mod tests;
