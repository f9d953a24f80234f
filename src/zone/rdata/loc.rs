//! LOC records: latitude, longitude, altitude and their precision (RFC 1876).

use super::words::{Fault, Words};

/// 2^31: the equator and the prime meridian, in thousandths of an arc second.
const MERIDIAN: u32 = 1 << 31;
/// Altitudes count from 100,000 m below the reference spheroid, in centimetres.
const ALTITUDE_BASE_CM: i64 = 10_000_000;
/// Size 1 m, horizontal precision 10,000 m, vertical precision 10 m.
const PRECISION_DEFAULT: [u8; 3] = [0x12, 0x16, 0x13];

/// Reads the whole data.
pub fn read(words: &mut Words<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let latitude = angle(words, "latitude", 90, [("N", 1), ("S", -1)])?;
    let longitude = angle(words, "longitude", 180, [("E", 1), ("W", -1)])?;
    let (word, span) = words.word("altitude")?;
    let altitude = centimetres(word).and_then(|cm| u32::try_from(cm + ALTITUDE_BASE_CM).ok()).ok_or_else(|| {
        Fault::new(span, format!("altitude: `{word}` is not a number of metres above -100000"))
            .help("write `-24m` or `12.50m`")
    })?;
    let mut precision = PRECISION_DEFAULT;
    for (byte, what) in precision.iter_mut().zip(["size", "horizontal precision", "vertical precision"]) {
        if words.is_done() {
            break;
        }
        let (word, span) = words.word(what)?;
        *byte = centimetres(word).and_then(mantissa_and_exponent).ok_or_else(|| {
            Fault::new(span, format!("{what}: `{word}` is not a number of metres up to 90000000")).help("write `30m`")
        })?;
    }
    out.push(0);
    out.extend(precision);
    for number in [latitude, longitude, altitude] {
        out.extend(number.to_be_bytes());
    }
    Ok(())
}

/// `d [m [s]] N|S`.
fn angle(words: &mut Words<'_>, what: &str, degrees_max: u32, sides: [(&str, i64); 2]) -> Result<u32, Fault> {
    let [(positive, _), (negative, _)] = sides;
    let example = format!("write degrees, minutes and seconds, then {positive} or {negative}: `52 14 5.5 {positive}`");
    let mut parts = [0i64; 3];
    let mut count = 0;
    let start = words.next_span().start;
    loop {
        let (word, span) = words.word(what)?;
        let wrong = || Fault::new(span.clone(), format!("`{word}` is not part of a {what}")).help(example.clone());
        if let Some((_, sign)) = sides.iter().find(|(side, _)| side.eq_ignore_ascii_case(word)) {
            let total = (parts[0] * 60 + parts[1]) * 60_000 + parts[2];
            if count == 0 || total > i64::from(degrees_max) * 3_600_000 {
                let message = format!("{what}: not within {degrees_max} degrees");
                return Err(Fault::new(start..span.end, message).help(example));
            }
            return u32::try_from(i64::from(MERIDIAN) + sign * total).map_err(|_| wrong());
        }
        let (scale, max) =
            [(1, i64::from(degrees_max)), (1, 59), (1000, 59_999)].get(count).copied().ok_or_else(wrong)?;
        parts[count] = decimal(word, scale).filter(|n| *n <= max).ok_or_else(wrong)?;
        count += 1;
    }
}

/// A decimal number of digits without sign, times `scale` (a power of ten); no digit may be lost.
fn decimal(text: &str, scale: i64) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let places = scale.ilog10() as usize;
    let is_number = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || whole.len() > 10 || fraction.len() > places || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    format!("{whole}{fraction:0<places$}").parse().ok()
}

/// `-12.34m` in centimetres; the `m` may be left out.
fn centimetres(word: &str) -> Option<i64> {
    let number = word.strip_suffix(['m', 'M']).unwrap_or(word);
    match number.strip_prefix('-') {
        Some(number) => decimal(number, 100).map(|n| -n),
        None => decimal(number, 100),
    }
}

/// Centimetres as a digit and a power of ten in one byte, rounded down.
fn mantissa_and_exponent(cm: i64) -> Option<u8> {
    let cm = u64::try_from(cm).ok()?;
    let exponent = cm.max(1).ilog10();
    (exponent <= 9).then(|| ((cm / 10u64.pow(exponent)) as u8) << 4 | exponent as u8)
}

/// Checks the 16 bytes of a LOC record.
pub fn check(data: &[u8]) -> Result<(), String> {
    let number = |at: usize| u32::from_be_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]);
    if data[0] != 0 {
        return Err(format!("version {} is not known", data[0]));
    }
    if data[1..4].iter().any(|b| b >> 4 > 9 || b & 15 > 9) {
        return Err("a precision is not a digit and a power of ten".into());
    }
    for (at, what, degrees_max) in [(4, "latitude", 90), (8, "longitude", 180)] {
        if number(at).abs_diff(MERIDIAN) > degrees_max * 3_600_000 {
            return Err(format!("the {what} is not within {degrees_max} degrees"));
        }
    }
    Ok(())
}
