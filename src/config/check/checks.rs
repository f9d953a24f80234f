//! Checks: their times, and which others the calculated ones follow from.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::damping;
use crate::{
    config::{
        section::{At, Problems},
        spec::{CheckSpec, KindSpec, Needed},
        value::{quote, show_ms, suggest},
    },
    health::{Calculation, Check, CheckKind},
};

/// Most calculated checks that may stand inside each other.
const LEVELS_MAX: usize = 8;
/// Most checks that one calculated check may come to, all levels together: each of them is a target for each endpoint.
const PARTS_MAX: usize = 1000;

/// Builds all checks, in their order.
pub(super) fn build(specs: &[CheckSpec], problems: &Problems) -> Vec<Arc<Check>> {
    let mut building = Building {
        specs,
        problems,
        names: specs.iter().map(|spec| spec.name.value.as_str()).collect(),
        indexes: specs.iter().enumerate().map(|(index, spec)| (spec.name.value.as_str(), index)).collect(),
        built: specs.iter().map(|_| None).collect(),
        under_way: Vec::new(),
    };
    (0..specs.len())
        .map(|index| building.check(index).map_or_else(|| stand_in(&specs[index], problems), |b| b.check))
        .collect()
}

/// Checks under construction: a calculated one is built after those that it follows from.
struct Building<'s> {
    specs: &'s [CheckSpec],
    problems: &'s Problems,
    names: Vec<&'s str>,
    indexes: HashMap<&'s str, usize>,
    /// The outer `None`: not yet; the inner: its parts are wrong, which is noted.
    built: Vec<Option<Option<Built>>>,
    /// The calculated checks that are being built, each for the one before it.
    under_way: Vec<usize>,
}

#[derive(Clone)]
struct Built {
    check: Arc<Check>,
    /// Calculated checks inside each other, this one included.
    levels: usize,
    /// Checks that it comes to, itself included.
    parts: usize,
}

impl<'s> Building<'s> {
    fn check(&mut self, index: usize) -> Option<Built> {
        if let Some(built) = &self.built[index] {
            return built.clone();
        }
        let spec = &self.specs[index];
        let built = match &spec.kind {
            None => Some(Built { check: stand_in(spec, self.problems), levels: 0, parts: 1 }),
            Some(KindSpec::Alone(kind)) => {
                note_times(spec, self.problems);
                Some(Built { check: Arc::new(alone(spec, kind.clone(), self.problems)), levels: 0, parts: 1 })
            }
            Some(KindSpec::Calculated { needed, checks }) => {
                self.under_way.push(index);
                let built = self.calculated(spec, needed, checks);
                self.under_way.pop();
                built
            }
        };
        self.built[index] = Some(built.clone());
        built
    }

    fn calculated(&mut self, spec: &'s CheckSpec, needed: &Needed, names: &'s At<Vec<At<String>>>) -> Option<Built> {
        let mut parts: Vec<Built> = Vec::new();
        let mut is_whole = names.is_sound() && !names.value.is_empty();
        for (n, name) in names.value.iter().enumerate() {
            if names.value[..n].iter().any(|other| other.value == name.value) {
                let message = format!("the check {} stands here twice", quote(&name.value));
                self.problems.add(&name.span, message, "remove one of the two");
                continue;
            }
            match self.part(name) {
                Some(part) => parts.push(part),
                None => is_whole = false,
            }
        }
        if let Needed::AtLeast(count) = needed
            && count.is_given()
            && names.is_given()
            && count.value as usize > names.value.len()
        {
            let message = format!("`count` is {}, but `checks` names {}", count.value, names.value.len());
            self.problems.add(&count.span, message, "write at most as many, or name more checks");
        }
        let levels = 1 + parts.iter().map(|part| part.levels).max().unwrap_or(0);
        let size = 1 + parts.iter().map(|part| part.parts).sum::<usize>();
        if is_whole && levels > LEVELS_MAX {
            self.note_levels(names);
            return None;
        }
        if is_whole && size > PARTS_MAX {
            let message = format!("{} comes to {size} checks, all levels together", quote(&spec.name.value));
            self.problems.add(&names.span, message, format!("name fewer: at most {PARTS_MAX}"));
            return None;
        }
        if !is_whole {
            return None;
        }
        let needed = match needed {
            Needed::All => parts.len(),
            Needed::Any => 1,
            Needed::AtLeast(count) => (count.value as usize).clamp(1, parts.len()),
        };
        let longest = |of: fn(&Check) -> Duration| parts.iter().map(|part| of(&part.check)).max().unwrap_or_default();
        let check = Check {
            name: spec.name.value.clone(),
            interval: longest(|check| check.interval),
            fast_interval: longest(|check| check.fast_interval),
            timeout: longest(|check| check.timeout),
            fall: 1,
            rise: 1,
            damping: parts.iter().map(|part| part.check.damping).max_by_key(|rules| rules.window)?,
            kind: CheckKind::Calculated(Calculation {
                needed,
                checks: parts.into_iter().map(|part| part.check).collect(),
            }),
        };
        Some(Built { check: Arc::new(check), levels, parts: size })
    }

    /// One of the checks that a calculated one follows from.
    fn part(&mut self, name: &At<String>) -> Option<Built> {
        let Some(&index) = self.indexes.get(name.value.as_str()) else {
            let help = suggest(&name.value, &self.names, "add a section such as [checks.web]");
            self.problems.absent(&name.span, format!("unknown check {}", quote(&name.value)), help);
            return None;
        };
        if let Some(from) = self.under_way.iter().position(|at| *at == index) {
            let circle: Vec<String> = self.under_way[from..].iter().map(|at| quote(self.names[*at])).collect();
            let message = match circle.as_slice() {
                [one] => format!("the check {one} follows from itself"),
                more => format!("the checks {} follow from each other in a circle", more.join(", ")),
            };
            self.problems.add(&name.span, message, "remove this one from `checks`");
            return None;
        }
        if self.under_way.len() > LEVELS_MAX {
            self.note_levels(name);
            return None;
        }
        self.check(index)
    }

    fn note_levels<T>(&self, at: &At<T>) {
        let message = format!("more than {LEVELS_MAX} calculated checks inside each other");
        self.problems.add(&at.span, message, "name their parts directly");
    }
}

/// A check whose probes are its own.
fn alone(spec: &CheckSpec, kind: CheckKind, problems: &Problems) -> Check {
    let duration = |at: &At<i64>| Duration::from_millis(at.value.unsigned_abs());
    Check {
        name: spec.name.value.clone(),
        kind,
        interval: duration(&spec.interval_ms),
        fast_interval: duration(&spec.fast_interval_ms),
        timeout: duration(&spec.timeout_ms),
        fall: spec.fall,
        rise: spec.rise,
        damping: damping::build(&spec.damping, problems),
    }
}

/// In the place of a check that is wrong: nobody sees it.
fn stand_in(spec: &CheckSpec, problems: &Problems) -> Arc<Check> {
    Arc::new(alone(spec, CheckKind::Tcp { port: 0 }, problems))
}

fn note_times(spec: &CheckSpec, problems: &Problems) {
    for (name, value) in [("timeout", &spec.timeout_ms), ("fast-interval", &spec.fast_interval_ms)] {
        if value.is_given() && spec.interval_ms.is_sound() && value.value > spec.interval_ms.value {
            let (value_ms, interval) = (show_ms(value.value), show_ms(spec.interval_ms.value));
            let message = format!("`{name}` is {value_ms}, longer than the interval of {interval}");
            problems.add(&value.span, message, format!("write at most \"{interval}\", or a longer `interval`"));
        }
    }
}
