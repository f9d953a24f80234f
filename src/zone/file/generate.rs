//! `$GENERATE`: one line that stands for many, in the notation of BIND, which invented it: a range of numbers, and a record in
//! which `$` stands for each of them. Knows nothing of records.

use std::fmt::Write;

/// Most records that one `$GENERATE` may stand for.
pub const COUNT_MAX: u32 = 65_536;
/// Widest number, as BIND has it.
const WIDTH_MAX: u32 = 255;

/// Why a `$GENERATE` cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenerateError {
    /// Not `start-stop` or `start-stop/step`.
    #[error("`{0}` is not a range of numbers")]
    Range(String),
    /// `start` above `stop`.
    #[error("the range `{0}` runs backwards")]
    Backwards(String),
    /// More than [`COUNT_MAX`] numbers.
    #[error("the range `{0}` stands for more than {COUNT_MAX} records")]
    TooMany(String),
    /// What follows `${` makes no sense.
    #[error("`{0}` is no way to write a number")]
    Modifier(String),
    /// The offset takes a number out of range.
    #[error("`{0}` makes a number below 0 or above {max}", max = i32::MAX)]
    Offset(String),
}

impl GenerateError {
    /// What to write instead.
    pub fn help(&self) -> &'static str {
        match self {
            GenerateError::Range(_) => {
                "write `1-254`, or `0-254/2` for every second number; numbers go from 0 to 2147483647"
            }
            GenerateError::Backwards(_) => "write the smaller number first",
            GenerateError::TooMany(_) => "split it over several lines, or use a wildcard",
            GenerateError::Modifier(_) => {
                "write `$`, or `${offset}`, `${offset,width}` or `${offset,width,base}` with base d, o, x, X, n or N; a plain `$` \
                 is `\\$`"
            }
            GenerateError::Offset(_) => "change the offset or the range",
        }
    }
}

/// The numbers of a range: `start-stop`, both included, with an optional `/step`.
pub fn range(text: &str) -> Result<impl Iterator<Item = u32> + use<>, GenerateError> {
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse::<u32>().ok().filter(|n| plain && *n <= i32::MAX as u32)
    };
    let (bounds, step) = text.split_once('/').unwrap_or((text, "1"));
    let read = bounds.split_once('-').and_then(|(start, stop)| Some((number(start)?, number(stop)?)));
    let (Some((start, stop)), Some(step @ 1..)) = (read, number(step)) else {
        return Err(GenerateError::Range(text.into()));
    };
    if start > stop {
        return Err(GenerateError::Backwards(text.into()));
    }
    if (stop - start) / step >= COUNT_MAX {
        return Err(GenerateError::TooMany(text.into()));
    }
    Ok((start..=stop).step_by(step as usize))
}

/// Appends `template` to `out` with `number` in all its places: `$`, or `${offset,width,base}`. `$$` is a plain `$`, and so is
/// `\$`, whose backslash stays for whoever reads the text.
pub fn substitute(template: &str, number: u32, out: &mut String) -> Result<(), GenerateError> {
    let mut rest = template;
    while let Some(at) = rest.find(['$', '\\']) {
        let (before, found) = rest.split_at(at);
        out.push_str(before);
        if found.starts_with('\\') {
            let escaped = found.chars().nth(1).map_or(0, char::len_utf8);
            out.push_str(&found[..1 + escaped]);
            rest = &found[1 + escaped..];
        } else if let Some(after) = found.strip_prefix("$$") {
            out.push('$');
            rest = after;
        } else if let Some(inside) = found.strip_prefix("${") {
            let bad = || GenerateError::Modifier(found.chars().take(20).collect());
            let (modifier, after) = inside.split_once('}').ok_or_else(bad)?;
            let (offset, width, base) = read_modifier(modifier).ok_or_else(bad)?;
            let value = u32::try_from(i64::from(number) + i64::from(offset)).ok().filter(|v| *v <= i32::MAX as u32);
            let value = value.ok_or_else(|| GenerateError::Offset(format!("${{{modifier}}}")))?;
            write_number(value, width as usize, base, out);
            rest = after;
        } else {
            write_number(number, 0, 'd', out);
            rest = &found[1..];
        }
    }
    out.push_str(rest);
    Ok(())
}

/// `offset[,width[,base]]`.
fn read_modifier(text: &str) -> Option<(i32, u32, char)> {
    let mut parts = text.split(',');
    let offset = parts.next()?.parse().ok()?;
    let width = parts.next().map_or(Some(0), |width| width.parse().ok().filter(|w| *w <= WIDTH_MAX))?;
    let base = match parts.next() {
        None => 'd',
        Some(base) => base.chars().next().filter(|b| base.len() == 1 && "doxXnN".contains(*b))?,
    };
    parts.next().is_none().then_some((offset, width, base))
}

/// In base `d`, `o`, `x` or `X`, with zeros up to `width`; in base `n` or `N` as hexadecimal digits in reverse, each a label, as
/// in `ip6.arpa`, `width` characters with the dots.
fn write_number(value: u32, width: usize, base: char, out: &mut String) {
    let written = match base {
        'o' => write!(out, "{value:0width$o}"),
        'x' => write!(out, "{value:0width$x}"),
        'X' => write!(out, "{value:0width$X}"),
        'n' | 'N' => {
            write_nibbles(value, width, base == 'N', out);
            Ok(())
        }
        _ => write!(out, "{value:0width$}"),
    };
    written.expect("a string takes all that is written to it");
}

fn write_nibbles(mut value: u32, width: usize, upper: bool, out: &mut String) {
    let mut left = width;
    loop {
        let digit = char::from_digit(value & 0xf, 16).expect("four bits");
        out.push(if upper { digit.to_ascii_uppercase() } else { digit });
        value >>= 4;
        left = left.saturating_sub(1);
        if left == 0 && value == 0 {
            return;
        }
        out.push('.');
        left = left.saturating_sub(1);
        if left == 0 && value == 0 {
            return; // an even width ends in a dot, as BIND has it
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_a_start_a_stop_and_a_step() {
        let numbers = |text: &str| range(text).map(|numbers| numbers.collect::<Vec<_>>());
        assert_eq!(numbers("1-3"), Ok(vec![1, 2, 3]));
        assert_eq!(numbers("0-9/4"), Ok(vec![0, 4, 8]));
        assert_eq!(numbers("7-7/100"), Ok(vec![7]));
        assert_eq!(numbers("2147483647-2147483647"), Ok(vec![2_147_483_647]));
        assert_eq!(numbers("1-65536").map(|n| n.len()), Ok(65_536));
        assert_eq!(numbers("0-65536"), Err(GenerateError::TooMany("0-65536".into())));
        assert_eq!(numbers("0-2147483647/32768").map(|n| n.len()), Ok(65_536));
        assert_eq!(numbers("3-1"), Err(GenerateError::Backwards("3-1".into())));
        for text in ["", "1", "1-", "-1", "1-2/", "1-2/0", "+1-2", "1-2147483648", "a-b", "1-2-3", "1-2/3/4", "0x1-2"] {
            assert_eq!(numbers(text), Err(GenerateError::Range(text.into())), "{text}");
        }
    }

    #[test]
    fn numbers_are_written_in_every_base_and_width() {
        for (template, number, expected) in [
            ("", 5, "5"),
            ("$", 5, "5"),
            ("a$b$", 5, "a5b5"),
            ("$$", 5, "$"),
            ("\\$", 5, "\\$"),
            ("\\\\$", 5, "\\\\5"),
            ("é\\é$", 5, "é\\é5"),
            ("${0}", 5, "5"),
            ("${-5}x", 5, "0x"),
            ("${+3}", 5, "8"),
            ("${10,4}", 5, "0015"),
            ("${0,4,d}", 5, "0005"),
            ("${0,2,o}", 8, "10"),
            ("${0,3,x}", 171, "0ab"),
            ("${0,0,X}", 171, "AB"),
            ("${0,1,n}", 171, "b.a"),
            ("${0,0,N}", 171, "B.A"),
            ("${0,7,n}", 171, "b.a.0.0"),
            ("${0,8,n}", 171, "b.a.0.0."),
            ("${0,0,n}", 0, "0"),
        ] {
            let mut out = String::new();
            substitute(if template.is_empty() { "$" } else { template }, number, &mut out).unwrap();
            assert_eq!(out, expected, "{template}");
        }
    }

    #[test]
    fn senseless_modifiers_are_refused() {
        for template in
            ["${", "${}", "${a}", "${0,a}", "${0,1,q}", "${0,1,dd}", "${0,1,d,1}", "${0,256}", "${,1}", "${0,1,}"]
        {
            let error = substitute(template, 1, &mut String::new()).unwrap_err();
            assert_eq!(error, GenerateError::Modifier(template.into()));
        }
        for (template, number) in [("${-2}", 1), ("${1}", 2_147_483_647)] {
            let error = substitute(template, number, &mut String::new()).unwrap_err();
            assert_eq!(error, GenerateError::Offset(template.into()));
        }
    }
}
