//! The words of one record's data, taken one by one: what is missing, left over, or badly escaped is found here.

use std::ops::Range;

use super::{shape, types};
use crate::{
    wire::Name,
    zone::lexer::{Shape, Token},
};

/// What is wrong with a record's data, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The bytes it is about.
    pub span: Range<usize>,
    /// What is wrong, one line.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl Fault {
    /// A fault without remedy yet.
    pub fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Fault { span, message: message.into(), help: None }
    }

    /// The same with its remedy.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// The words that follow a record's type.
#[derive(Debug)]
pub struct Words<'t> {
    text: &'t str,
    tokens: &'t [Token],
    at: usize,
    /// Completes relative names.
    pub origin: &'t Name,
    /// Whose data this is, for messages.
    pub rtype: u16,
    /// The type's own token: what to point at when nothing follows it.
    type_span: Range<usize>,
}

impl<'t> Words<'t> {
    /// The words `tokens` of `text`, after the type's own token.
    pub fn new(text: &'t str, type_token: Token, tokens: &'t [Token], rtype: u16, origin: &'t Name) -> Self {
        Words { text, tokens, at: 0, origin, rtype, type_span: type_token.span() }
    }

    /// True when no word is left.
    pub fn is_done(&self) -> bool {
        self.at == self.tokens.len()
    }

    /// The text of the next word, still to be taken.
    pub fn peek(&self) -> Option<&'t str> {
        self.tokens.get(self.at).map(|token| token.text(self.text))
    }

    /// Where the next word stands; the type's own place when none is left.
    pub fn next_span(&self) -> Range<usize> {
        self.tokens.get(self.at).map_or(self.type_span.clone(), Token::span)
    }

    /// From the first word to the last; the type's own when there is none.
    pub fn span(&self) -> Range<usize> {
        match (self.tokens.first(), self.tokens.last()) {
            (Some(first), Some(last)) => first.span().start..last.span().end,
            _ => self.type_span.clone(),
        }
    }

    /// How this type's data is written.
    pub fn usage(&self) -> String {
        match shape::usage(self.rtype) {
            Some(usage) => format!("{} takes: {usage}", types::Shown(self.rtype)),
            None => "write it as `\\# length hex`, like `\\# 4 0a000001`".into(),
        }
    }

    /// Takes the next word, quoted or not.
    pub fn token(&mut self, what: &str) -> Result<Token, Fault> {
        let Some(&token) = self.tokens.get(self.at) else {
            let span = self.tokens.last().map_or(self.type_span.clone(), Token::span);
            let message = format!("{} data ends early: `{what}` is missing", types::Shown(self.rtype));
            return Err(Fault::new(span, message).help(self.usage()));
        };
        self.at += 1;
        Ok(token)
    }

    /// Takes the next word, which must stand without quotes.
    pub fn word(&mut self, what: &str) -> Result<(&'t str, Range<usize>), Fault> {
        let token = self.token(what)?;
        if token.shape != Shape::Word {
            let message = format!("{what}: written in quotes, which cannot be");
            return Err(Fault::new(token.span(), message).help("remove the quotes"));
        }
        Ok((token.text(self.text), token.span()))
    }

    /// An error when words are left.
    pub fn end(&self) -> Result<(), Fault> {
        let Some(token) = self.tokens.get(self.at) else { return Ok(()) };
        let message = format!("`{}` is too much for {} data", token.text(self.text), types::Shown(self.rtype));
        Err(Fault::new(token.span(), message).help(self.usage()))
    }

    /// A whole number up to `max`.
    pub fn number(&mut self, what: &str, max: u32) -> Result<u32, Fault> {
        let (word, span) = self.word(what)?;
        digits(word)
            .filter(|n| *n <= u64::from(max))
            .map(|n| n as u32)
            .ok_or_else(|| Fault::new(span, format!("{what}: `{word}` is not a whole number from 0 to {max}")))
    }

    /// A number up to `max`, or one of `codes` by name.
    pub fn code(&mut self, what: &str, codes: shape::Codes, max: u16) -> Result<u16, Fault> {
        let (word, span) = self.word(what)?;
        if let Some((_, n)) = codes.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)) {
            return Ok(*n);
        }
        digits(word).filter(|n| *n <= u64::from(max)).map(|n| n as u16).ok_or_else(|| {
            let names: Vec<_> = codes.iter().map(|(name, _)| *name).collect();
            Fault::new(span, format!("{what}: `{word}` is neither a number from 0 to {max} nor a known name"))
                .help(format!("the names are {}", names.join(", ")))
        })
    }

    /// A record type by mnemonic or `TYPEnnn`.
    pub fn record_type(&mut self, what: &str) -> Result<u16, Fault> {
        let (word, span) = self.word(what)?;
        types::number(word).ok_or_else(|| Fault::new(span, format!("{what}: `{word}` is not a record type")))
    }

    /// A domain name, completed with the origin.
    pub fn name(&mut self, what: &str) -> Result<Name, Fault> {
        let (word, span) = self.word(what)?;
        read_name(word, span, self.origin)
            .map_err(|fault| Fault { message: format!("{what}: {}", fault.message), ..fault })
    }

    /// A character-string, quoted or not, without its escapes.
    pub fn string(&mut self, what: &str) -> Result<(Vec<u8>, Range<usize>), Fault> {
        let token = self.token(what)?;
        if token.shape == Shape::Mixed {
            let message = format!("{what}: a quote in the middle of a word");
            return Err(Fault::new(token.span(), message).help("put the whole text in quotes, or write `\\\"`"));
        }
        Ok((unescape(token.text(self.text), token.start)?, token.span()))
    }

    /// `key` or `key=value`, the value perhaps quoted; its escapes are resolved.
    pub fn pair(&mut self, what: &str) -> Result<Pair<'t>, Fault> {
        let token = self.token(what)?;
        let text = token.text(self.text);
        let bad_quotes = || {
            Fault::new(token.span(), format!("`{text}` has quotes where none can be"))
                .help("write `key=value` or `key=\"value\"`")
        };
        if token.shape == Shape::Quoted {
            return Err(bad_quotes());
        }
        let Some((key, value)) = text.split_once('=') else {
            return if token.shape == Shape::Word {
                Ok(Pair { key: text, value: None, span: token.span() })
            } else {
                Err(bad_quotes())
            };
        };
        let at = token.start + key.len() + 1;
        let (value, at) = match (token.shape, value.strip_prefix('"').and_then(|v| v.strip_suffix('"'))) {
            (Shape::Word, _) => (value, at),
            (_, Some(inner)) if !has_bare_quote(inner) => (inner, at + 1),
            _ => return Err(bad_quotes()),
        };
        if key.contains('"') {
            return Err(bad_quotes());
        }
        Ok(Pair { key, value: Some(unescape(value, at)?), span: token.span() })
    }
}

/// One service parameter as written.
#[derive(Debug)]
pub struct Pair<'t> {
    /// Before the `=`.
    pub key: &'t str,
    /// After it, without quotes and escapes; `None` without `=`.
    pub value: Option<Vec<u8>>,
    /// The whole word.
    pub span: Range<usize>,
}

fn has_bare_quote(text: &str) -> bool {
    let mut escaped = false;
    text.bytes().any(|b| {
        let bare = b == b'"' && !escaped;
        escaped = b == b'\\' && !escaped;
        bare
    })
}

/// The value of a run of decimal digits; `None` when it is anything else or above 2^40.
pub fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || text.len() > 12 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Seconds as a number or with units, `1w2d3h4m5s`, at most 2^32-1.
pub fn seconds(text: &str) -> Option<u32> {
    if let Some(n) = digits(text) {
        return u32::try_from(n).ok();
    }
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let n = rest.bytes().position(|b| !b.is_ascii_digit())?;
        let unit = match rest.as_bytes()[n].to_ascii_lowercase() {
            b's' => 1,
            b'm' => 60,
            b'h' => 3_600,
            b'd' => 86_400,
            b'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(digits(&rest[..n])?.checked_mul(unit)?)?;
        rest = &rest[n + 1..];
    }
    u32::try_from(total).ok()
}

/// A name at `span`, completed with `origin`.
pub fn read_name(text: &str, span: Range<usize>, origin: &Name) -> Result<Name, Fault> {
    if !text.is_ascii() {
        return Err(Fault::new(span, format!("`{text}` has characters outside ASCII"))
            .help("write the name in its `xn--` form, or single bytes as `\\DDD`"));
    }
    Name::parse(text, origin).map_err(|error| {
        Fault::new(span, error.to_string())
            .help("a name has labels of 1 to 63 bytes with single dots between them, 255 bytes in all: `www`, `www.example.com.`")
    })
}

/// Resolves `\DDD` and `\X` (RFC 1035 §5.1); `start` is where `text` stands.
pub fn unescape(text: &str, start: usize) -> Result<Vec<u8>, Fault> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'\\' {
            out.push(bytes[at]);
            at += 1;
            continue;
        }
        match &bytes[at + 1..] {
            [a, b, c, ..] if [a, b, c].iter().all(|d| d.is_ascii_digit()) => {
                let value = (a - b'0') as u16 * 100 + (b - b'0') as u16 * 10 + (c - b'0') as u16;
                out.push(u8::try_from(value).map_err(|_| bad_escape(text, start, at))?);
                at += 4;
            }
            [a, ..] if !a.is_ascii_digit() => {
                out.push(*a);
                at += 2;
            }
            _ => return Err(bad_escape(text, start, at)),
        }
    }
    Ok(out)
}

fn bad_escape(text: &str, start: usize, at: usize) -> Fault {
    let end = text[at..].char_indices().map(|(i, _)| at + i).nth(4).unwrap_or(text.len());
    Fault::new(start + at..start + end, format!("bad escape `{}`", &text[at..end]))
        .help("write `\\` and three digits up to 255, or `\\` and one other character")
}
