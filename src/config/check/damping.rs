//! When a target is held down.

use std::time::Duration;

use crate::{
    config::{
        section::{At, Problems},
        spec::DampingSpec,
        value::show_ms,
    },
    health::damping::Rules,
};

pub(super) fn build(spec: &DampingSpec, problems: &Problems) -> Rules {
    let (hold, most) = (&spec.hold_ms, &spec.hold_max_ms);
    if hold.is_sound() && most.is_given() && most.is_sound() && most.value < hold.value {
        let (hold, most_shown) = (show_ms(hold.value), show_ms(most.value));
        let message = format!("`hold-down-max` is {most_shown}, shorter than `hold-down` with {hold}");
        problems.add(&most.span, message, format!("write at least \"{hold}\", or a shorter `hold-down`"));
    }
    let duration = |at: &At<i64>| Duration::from_millis(at.value.unsigned_abs());
    Rules {
        changes_max: spec.changes_max,
        window: duration(&spec.window_ms),
        hold: duration(hold),
        hold_max: duration(most).max(duration(hold)),
    }
}
