//! Values as people write them: durations, choices, quoted words, and the nearest spelling of a wrong one. Knows nothing of
//! sections and files.

/// What is wrong with a value, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// One line.
    pub message: String,
    /// The remedy.
    pub help: Option<String>,
}

impl Fault {
    pub(crate) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Fault { message: message.into(), help: Some(help.into()) }
    }
}

/// Units of a duration, longest first.
const UNITS_MS: [(&str, i64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads `"10s"`, `"500ms"`, `"2m"`, `"1h"`, with a sign where it is negative; in milliseconds.
pub(crate) fn duration_ms(text: &str) -> Result<i64, Fault> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let unit_at = digits.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(digits.len());
    let (number, unit) = digits.split_at(unit_at);
    let usual = "write a number and a unit: \"500ms\", \"10s\", \"2m\" or \"1h\"";
    let bad = || Fault::new(format!("{} is not a duration", quote(text)), usual);
    let sign = if text.starts_with('-') { -1 } else { 1 };
    if unit.is_empty() && number.parse::<u32>().is_ok() {
        let minus = if sign < 0 { "-" } else { "" };
        return Err(Fault::new(format!("{} has no unit", quote(text)), format!("write \"{minus}{number}s\"")));
    }
    let &(_, unit_ms) = UNITS_MS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
    if let Ok(whole) = number.parse::<u32>() {
        return i64::from(whole).checked_mul(unit_ms * sign).ok_or_else(bad);
    }
    match number.parse::<f64>() {
        Ok(part) if number.starts_with(|c: char| c.is_ascii_digit()) && part < 1e6 => {
            let ms = (part * unit_ms as f64).round() as i64 * sign;
            Err(Fault::new(format!("{} is not in whole units", quote(text)), format!("write \"{}\"", show_ms(ms))))
        }
        _ => Err(bad()),
    }
}

/// The shortest form that [`duration_ms`] reads back.
pub(crate) fn show_ms(ms: i64) -> String {
    let (unit, size) = UNITS_MS.iter().find(|(_, size)| ms != 0 && ms % size == 0).unwrap_or(&("ms", 1));
    format!("{}{unit}", ms / size)
}

/// A word of the user's between backticks, cut short where it is long; control characters as escapes.
pub(crate) fn quote(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let mut out = String::from("`");
    for c in text.chars().take(CHARS_MAX) {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out.push_str(if text.chars().nth(CHARS_MAX).is_some() { "…`" } else { "`" });
    out
}

/// The candidate that `word` was most likely meant to be; the first one of equals; `None` when nothing is near.
pub(crate) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    const CHARS_MAX: usize = 64; // the distance takes time in the product of the lengths
    if word.len() > CHARS_MAX {
        return None;
    }
    let word = word.to_lowercase();
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        if candidate.len() > CHARS_MAX {
            continue;
        }
        let distance = strsim::damerau_levenshtein(&word, &candidate.to_lowercase());
        let allowed = (word.len().min(candidate.len()) / 3).max(1);
        if distance <= allowed && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// "`a`, `b` or `c`".
pub(crate) fn one_of<S: AsRef<str>>(words: &[S]) -> String {
    listed(words, "or")
}

/// "`a`, `b` and `c`", or with another last word.
pub(crate) fn listed<S: AsRef<str>>(words: &[S], last: &str) -> String {
    let quoted: Vec<String> = words.iter().map(|w| quote(w.as_ref())).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [head @ .., tail] => format!("{} {last} {tail}", head.join(", ")),
    }
}

/// "did you mean `web`?", or else what there is to choose from.
pub(crate) fn suggest<S: AsRef<str>>(word: &str, candidates: &[S], none: &str) -> String {
    const SHOWN_MAX: usize = 8;
    match nearest(word, candidates.iter().map(AsRef::as_ref)) {
        Some(near) => format!("did you mean {}?", quote(near)),
        None if candidates.is_empty() => none.to_string(),
        None if candidates.len() > SHOWN_MAX => format!("write one of {}, …", listed(&candidates[..SHOWN_MAX], "or")),
        None if candidates.len() == 1 => format!("write {}", one_of(candidates)),
        None => format!("write one of {}", one_of(candidates)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_shown() {
        for (text, ms, shown) in [
            ("10s", 10_000, "10s"),
            ("500ms", 500, "500ms"),
            ("2m", 120_000, "2m"),
            ("120s", 120_000, "2m"),
            ("1h", 3_600_000, "1h"),
            ("0ms", 0, "0ms"),
            ("0s", 0, "0ms"),
            ("-5ms", -5, "-5ms"),
            ("+5ms", 5, "5ms"),
        ] {
            assert_eq!(duration_ms(text), Ok(ms), "{text}");
            assert_eq!(show_ms(ms), shown);
        }
    }

    #[test]
    fn a_bad_duration_is_told_the_right_form() {
        for (text, help) in [
            ("10", "write \"10s\""),
            ("-5", "write \"-5s\""),
            ("1.5s", "write \"1500ms\""),
            ("0.5m", "write \"30s\""),
            ("10 s", "write a number and a unit: \"500ms\", \"10s\", \"2m\" or \"1h\""),
            ("ten", "write a number and a unit: \"500ms\", \"10s\", \"2m\" or \"1h\""),
            ("1d", "write a number and a unit: \"500ms\", \"10s\", \"2m\" or \"1h\""),
            ("", "write a number and a unit: \"500ms\", \"10s\", \"2m\" or \"1h\""),
            ("99999999999999999999s", "write a number and a unit: \"500ms\", \"10s\", \"2m\" or \"1h\""),
            ("--5s", "write a number and a unit: \"500ms\", \"10s\", \"2m\" or \"1h\""),
        ] {
            assert_eq!(duration_ms(text).unwrap_err().help.as_deref(), Some(help), "{text}");
        }
    }

    #[test]
    fn the_nearest_spelling_is_near() {
        let keys = ["listen", "threads", "identity", "min-healthy"];
        for (word, near) in [
            ("lisen", Some("listen")),
            ("Threads", Some("threads")),
            ("min_healthy", Some("min-healthy")),
            ("thraeds", Some("threads")),
            ("port", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, keys), near, "{word}");
        }
    }

    #[test]
    fn long_words_are_cut() {
        assert_eq!(quote("a\nb"), "`a\\nb`");
        assert_eq!(quote(&"x".repeat(100)).chars().count(), 63);
    }
}
