//! The keys of `[checks.NAME]` that say when a target is held down.

use crate::config::section::{At, Origin, Section};

/// When a target that changes too often is held down.
#[derive(Debug)]
pub(crate) struct DampingSpec {
    pub changes_max: u32,
    pub window_ms: At<i64>,
    pub hold_ms: At<i64>,
    pub hold_max_ms: At<i64>,
}

pub(super) fn read(section: &Section<'_>) -> DampingSpec {
    let hold = section.duration_ms("hold-down");
    let most = section.duration_ms("hold-down-max");
    let most = match most.origin {
        Origin::Default => At { value: hold.value.max(30 * 60_000), ..most },
        _ => most,
    };
    DampingSpec {
        changes_max: section.integer("flap-changes").value as u32,
        window_ms: section.duration_ms("flap-window"),
        hold_ms: hold,
        hold_max_ms: most,
    }
}
