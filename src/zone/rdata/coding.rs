//! Fields that are written in another alphabet: hexadecimal, Base64, Base32, dates, lists of types, hardware addresses.

use std::ops::Range;

use super::words::{Fault, Words, digits};

fn hex_digit(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|d| d as u8)
}

/// Hexadecimal up to the end, blanks allowed anywhere; how many bytes were added.
pub fn hex(words: &mut Words<'_>, what: &str, out: &mut Vec<u8>) -> Result<usize, Fault> {
    let before = out.len();
    let mut half: Option<u8> = None;
    let mut whole: Option<Range<usize>> = None;
    while !words.is_done() {
        let (word, span) = words.word(what)?;
        for byte in word.bytes() {
            let digit = hex_digit(byte).ok_or_else(|| bad(word, &span, what, "hexadecimal", "0-9 and a-f"))?;
            match half.take() {
                Some(high) => out.push(high << 4 | digit),
                None => half = Some(digit),
            }
        }
        whole = Some(whole.map_or(span.clone(), |w| w.start..span.end));
    }
    match (half, whole) {
        (Some(_), Some(span)) => {
            Err(Fault::new(span, format!("{what}: an odd number of hexadecimal digits")).help("two digits make a byte"))
        }
        _ => Ok(out.len() - before),
    }
}

fn bad(word: &str, span: &Range<usize>, what: &str, alphabet: &str, allowed: &str) -> Fault {
    Fault::new(span.clone(), format!("{what}: `{}` is not {alphabet}", short(word)))
        .help(format!("only {allowed} may stand here"))
}

/// A word cut to what a message can show.
fn short(word: &str) -> String {
    match word.char_indices().nth(32) {
        Some((i, _)) => format!("{}…", &word[..i]),
        None => word.to_string(),
    }
}

/// Base64 (RFC 4648 §4) up to the end, blanks allowed anywhere; how many bytes were added.
pub fn base64(words: &mut Words<'_>, what: &str, out: &mut Vec<u8>) -> Result<usize, Fault> {
    let before = out.len();
    let mut decoder = Base64::default();
    let mut whole: Option<Range<usize>> = None;
    while !words.is_done() {
        let (word, span) = words.word(what)?;
        decoder
            .push(word, out)
            .ok_or_else(|| bad(word, &span, what, "Base64", "letters, digits, `+`, `/` and a final `=`"))?;
        whole = Some(whole.map_or(span.clone(), |w| w.start..span.end));
    }
    let Some(span) = whole else { return Ok(0) };
    decoder.finish(out).ok_or_else(|| {
        Fault::new(span, format!("{what}: not complete Base64"))
            .help("with its final `=` its length must be a multiple of four characters")
    })?;
    Ok(out.len() - before)
}

/// The bytes of one whole Base64 text; `None` when it is none.
pub fn base64_text(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let mut decoder = Base64::default();
    decoder.push(text, &mut out)?;
    decoder.finish(&mut out)?;
    Some(out)
}

#[derive(Default)]
struct Base64 {
    bits: u32,
    digits: usize,
    pads: usize,
}

impl Base64 {
    fn push(&mut self, text: &str, out: &mut Vec<u8>) -> Option<()> {
        for byte in text.bytes() {
            if byte == b'=' {
                self.pads += 1;
                continue;
            }
            let digit = base64_digit(byte).filter(|_| self.pads == 0)?;
            self.bits = self.bits << 6 | u32::from(digit);
            self.digits += 1;
            if self.digits.is_multiple_of(4) {
                out.extend_from_slice(&self.bits.to_be_bytes()[1..]);
                self.bits = 0;
            }
        }
        Some(())
    }

    fn finish(self, out: &mut Vec<u8>) -> Option<()> {
        match (self.digits % 4, self.pads) {
            (0, 0) => {}
            (2, 2) => out.push((self.bits >> 4) as u8),
            (3, 1) => out.extend_from_slice(&((self.bits >> 2) as u16).to_be_bytes()),
            _ => return None,
        }
        Some(())
    }
}

fn base64_digit(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

/// `-` or hexadecimal, with a length byte.
pub fn salt(words: &mut Words<'_>, what: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
    let (word, span) = words.word(what)?;
    if word == "-" {
        out.push(0);
        return Ok(());
    }
    let wrong = || {
        Fault::new(span.clone(), format!("{what}: `{}` is not hexadecimal of 1 to 255 bytes", short(word)))
            .help("write `-` for none")
    };
    let bytes = hex_text(word).ok_or_else(wrong)?;
    out.push(u8::try_from(bytes.len()).map_err(|_| wrong())?);
    out.extend(bytes);
    Ok(())
}

/// The bytes of one whole hexadecimal text; `None` when it is none.
pub fn hex_text(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().map(hex_digit).collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Base32 with the extended hex alphabet (RFC 4648 §7), unpadded, with a length byte.
pub fn hash(words: &mut Words<'_>, what: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
    let (word, span) = words.word(what)?;
    let wrong = || {
        Fault::new(span.clone(), format!("{what}: `{}` is not unpadded Base32hex", short(word)))
            .help("only 0-9 and a-v may stand here; a SHA-1 hash has 32 characters")
    };
    let mut bytes = Vec::with_capacity(20);
    let (mut bits, mut count) = (0u32, 0u32);
    for byte in word.bytes() {
        let digit = (byte as char).to_digit(32).ok_or_else(wrong)?;
        bits = (bits << 5 | digit) & 0x1fff;
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    let len = u8::try_from(bytes.len()).ok().filter(|n| *n > 0 && count < 5).ok_or_else(wrong)?;
    out.push(len);
    out.extend(bytes);
    Ok(())
}

/// `YYYYMMDDHHMMSS` in UTC or seconds since 1970, modulo 2^32 (RFC 4034 §3.2).
pub fn time(words: &mut Words<'_>, what: &str) -> Result<u32, Fault> {
    let (word, span) = words.word(what)?;
    let read = if word.len() == 14 { date(word) } else { digits(word).and_then(|n| u32::try_from(n).ok()) };
    read.ok_or_else(|| {
        Fault::new(span, format!("{what}: `{word}` is not a time"))
            .help("write `YYYYMMDDHHMMSS` in UTC, or seconds since 1970")
    })
}

fn date(word: &str) -> Option<u32> {
    if !word.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part = |from: usize, to: usize| word[from..to].parse::<i64>().ok();
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let (hour, minute, second) = (part(8, 10)?, part(10, 12)?, part(12, 14)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before: i64 = days_in_month.get(..usize::try_from(month - 1).ok()?)?.iter().sum();
    let valid = (1..=*days_in_month.get(month as usize - 1)?).contains(&day) && hour < 24 && minute < 60 && second < 60;
    let leap_days = |y: i64| y / 4 - y / 100 + y / 400;
    let days = 365 * (year - 1970) + leap_days(year - 1) - leap_days(1969) + before + day - 1;
    (valid && year >= 1970).then_some((((days * 24 + hour) * 60 + minute) * 60 + second) as u32)
}

/// Record types up to the end as windows of bits (RFC 4034 §4.1.2).
pub fn bitmap(words: &mut Words<'_>, what: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut types = Vec::new();
    while !words.is_done() {
        types.push(words.record_type(what)?);
    }
    types.sort_unstable();
    types.dedup();
    for window in types.chunk_by(|a, b| a >> 8 == b >> 8) {
        let mut bits = [0u8; 32];
        for rtype in window {
            bits[usize::from(rtype & 0xff) / 8] |= 0x80 >> (rtype & 7);
        }
        let len = usize::from(window[window.len() - 1] & 0xff) / 8 + 1;
        out.extend([(window[0] >> 8) as u8, len as u8]);
        out.extend_from_slice(&bits[..len]);
    }
    Ok(())
}

/// `len` bytes as pairs of hexadecimal digits with dashes between them (RFC 7043).
pub fn eui(words: &mut Words<'_>, what: &str, len: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
    let (word, span) = words.word(what)?;
    let groups: Option<Vec<u8>> = word.split('-').map(|pair| hex_group(pair, 2).map(|n| n as u8)).collect();
    let groups = groups.filter(|g| g.len() == len).ok_or_else(|| {
        Fault::new(span, format!("{what}: `{}` is not {len} pairs of hexadecimal digits", short(word)))
            .help(format!("write `{}`", ["00-00-5e-00-53-2a", "00-00-5e-ef-10-00-00-2a"][usize::from(len == 8)]))
    })?;
    out.extend(groups);
    Ok(())
}

/// Eight bytes as four groups of up to four hexadecimal digits (RFC 6742 §2.1.2).
pub fn groups(words: &mut Words<'_>, what: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
    let (word, span) = words.word(what)?;
    let groups: Option<Vec<u16>> =
        word.split(':').map(|g| (1..=4).contains(&g.len()).then(|| hex_group(g, g.len()))?).collect();
    let groups = groups.filter(|g| g.len() == 4).ok_or_else(|| {
        Fault::new(span, format!("{what}: `{}` is not four groups of hexadecimal digits", short(word)))
            .help("write `2001:0db8:1140:1000`")
    })?;
    out.extend(groups.into_iter().flat_map(u16::to_be_bytes));
    Ok(())
}

/// Exactly `len` hexadecimal digits, at most 4.
fn hex_group(text: &str, len: usize) -> Option<u16> {
    (text.len() == len).then_some(())?;
    text.bytes().try_fold(0u16, |n, b| Some(n << 4 | u16::from(hex_digit(b)?)))
}
