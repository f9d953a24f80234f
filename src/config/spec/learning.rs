//! The keys of `[latency]` that say what is measured in passing.

use crate::config::section::{At, Section};

/// What is measured in passing.
#[derive(Debug)]
pub(crate) struct LearningSpec {
    pub learn: At<bool>,
    /// 0 to 1.
    pub prospect: At<f64>,
}

pub(super) fn read(section: &Section<'_>) -> LearningSpec {
    LearningSpec { learn: section.flag("learn"), prospect: section.number("prospect") }
}
