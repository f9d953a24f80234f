//! Zone-file text → entries of tokens (RFC 1035 §5.1): blanks, comments, quotes, parentheses, line ends. Escapes are stepped
//! over but not resolved; that is for whoever reads a token's text. Knows nothing of records and directives.

use std::ops::Range;

/// How a token is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Without quotes.
    Word,
    /// A whole quoted string; its span lies between the quotes.
    Quoted,
    /// A word with a quoted stretch in it, as in `alpn="h2"`; its span includes the quotes.
    Mixed,
}

/// One token: a range of bytes of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// First byte of its text.
    pub start: usize,
    /// Byte after its text.
    pub end: usize,
    /// How it is written.
    pub shape: Shape,
}

impl Token {
    /// The bytes to point at, quotes included.
    pub fn span(&self) -> Range<usize> {
        match self.shape {
            Shape::Quoted => self.start - 1..self.end + 1,
            Shape::Word | Shape::Mixed => self.start..self.end,
        }
    }

    /// Its text; escapes are still in it.
    pub fn text<'t>(&self, text: &'t str) -> &'t str {
        &text[self.start..self.end]
    }
}

/// What makes an entry unreadable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LexError {
    /// A quote without its partner on the same line.
    #[error("the quoted string is not closed on its line")]
    UnclosedQuote(usize),
    /// `)` without `(`.
    #[error("`)` without a `(` before it")]
    StrayClose(usize),
    /// `(` without `)`.
    #[error("`(` is never closed")]
    UnclosedParen(usize),
}

impl LexError {
    /// The byte it is about.
    pub fn span(&self) -> Range<usize> {
        let (LexError::UnclosedQuote(at) | LexError::StrayClose(at) | LexError::UnclosedParen(at)) = *self;
        at..at + 1
    }

    /// What to write instead.
    pub fn help(&self) -> &'static str {
        match self {
            LexError::UnclosedQuote(_) => "end it with `\"`; a `\"` inside is written `\\\"`, a line break `\\010`",
            LexError::StrayClose(_) => "remove it, or write it `\\)` where it belongs to the data",
            LexError::UnclosedParen(_) => "end the record with `)`, or write `\\(` where it belongs to the data",
        }
    }
}

/// Cuts a text into entries. An entry is a line, or several held together by parentheses.
#[derive(Debug)]
pub struct Lexer<'t> {
    text: &'t [u8],
    at: usize,
    end: usize,
    /// A `(` without end was met once: a second one ends the reading.
    reached_end_open: bool,
}

/// The state within one entry.
#[derive(Default)]
struct Entry {
    open: Vec<usize>,
    error: Option<LexError>,
    blank_start: bool,
}

impl<'t> Lexer<'t> {
    /// Reads `text[range]`; spans count from the start of `text`.
    pub fn new(text: &'t str, range: Range<usize>) -> Self {
        let bom = if text[range.clone()].starts_with('\u{feff}') { 3 } else { 0 };
        Lexer { text: text.as_bytes(), at: range.start + bom, end: range.end, reached_end_open: false }
    }

    /// Puts the next entry's tokens (at least one) into `tokens`; `Some(true)` when its line begins with a blank, `None` at
    /// the end of the text. After an error it stands at the next entry.
    pub fn next_entry(&mut self, tokens: &mut Vec<Token>) -> Result<Option<bool>, LexError> {
        tokens.clear();
        let mut entry = Entry { blank_start: self.at_blank(), ..Entry::default() };
        while self.at < self.end {
            match self.text[self.at] {
                b'\n' => {
                    self.at += 1;
                    if entry.open.is_empty() {
                        if let Some(error) = entry.error {
                            return Err(error);
                        }
                        if !tokens.is_empty() {
                            return Ok(Some(entry.blank_start));
                        }
                        entry.blank_start = self.at_blank();
                    }
                }
                b' ' | b'\t' | b'\r' => self.at += 1,
                b';' => self.skip_line(),
                b'(' => {
                    entry.open.push(self.at);
                    self.at += 1;
                }
                b')' => {
                    if entry.open.pop().is_none() {
                        entry.error.get_or_insert(LexError::StrayClose(self.at));
                    }
                    self.at += 1;
                }
                b'"' => self.quoted(tokens, &mut entry),
                _ => self.word(tokens, &mut entry),
            }
        }
        self.finish(tokens, entry)
    }

    /// The text has ended within or after `entry`.
    fn finish(&mut self, tokens: &[Token], entry: Entry) -> Result<Option<bool>, LexError> {
        if let Some(&open) = entry.open.first() {
            self.resume_after(open);
            return Err(entry.error.unwrap_or(LexError::UnclosedParen(open)));
        }
        match entry.error {
            Some(error) => Err(error),
            None => Ok((!tokens.is_empty()).then_some(entry.blank_start)),
        }
    }

    /// After an endless `(`: goes on at the next line that begins like an owner or a directive, since the lines of a broken
    /// record are nearly always indented. Once a text, so that hostile ones cannot make it read again and again.
    fn resume_after(&mut self, open: usize) {
        if std::mem::replace(&mut self.reached_end_open, true) {
            return;
        }
        let mut at = open;
        while let Some(n) = self.text[at..self.end].iter().position(|&b| b == b'\n') {
            at += n + 1;
            if self.text.get(at).is_some_and(|b| !b" \t\r\n();\"".contains(b)) && at < self.end {
                self.at = at;
                return;
            }
        }
    }

    fn at_blank(&self) -> bool {
        self.at < self.end && matches!(self.text[self.at], b' ' | b'\t')
    }

    fn skip_line(&mut self) {
        let rest = &self.text[self.at..self.end];
        self.at += rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
    }

    /// Steps over a backslash and what it escapes; a line end is never escaped.
    fn skip_escape(&mut self) {
        self.at += 1;
        if self.at < self.end && !matches!(self.text[self.at], b'\n' | b'\r') {
            self.at += 1;
        }
    }

    /// Steps from one quote over the next; false when the line ends first.
    fn skip_quotes(&mut self) -> bool {
        self.at += 1;
        while self.at < self.end {
            match self.text[self.at] {
                b'"' => {
                    self.at += 1;
                    return true;
                }
                b'\n' => return false,
                b'\\' => self.skip_escape(),
                _ => self.at += 1,
            }
        }
        false
    }

    fn quoted(&mut self, tokens: &mut Vec<Token>, entry: &mut Entry) {
        let open = self.at;
        if self.skip_quotes() {
            tokens.push(Token { start: open + 1, end: self.at - 1, shape: Shape::Quoted });
        } else {
            entry.error.get_or_insert(LexError::UnclosedQuote(open));
        }
    }

    fn word(&mut self, tokens: &mut Vec<Token>, entry: &mut Entry) {
        let start = self.at;
        let mut shape = Shape::Word;
        while self.at < self.end {
            match self.text[self.at] {
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'(' | b')' => break,
                b'\\' => self.skip_escape(),
                b'"' => {
                    let open = self.at;
                    shape = Shape::Mixed;
                    if !self.skip_quotes() {
                        entry.error.get_or_insert(LexError::UnclosedQuote(open));
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
        // An escape may have stepped into the middle of a character: its other bytes follow.
        tokens.push(Token { start, end: self.at, shape });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Vec<Result<String, LexError>> {
        let mut lexer = Lexer::new(text, 0..text.len());
        let mut tokens = Vec::new();
        let mut all = Vec::new();
        loop {
            match lexer.next_entry(&mut tokens) {
                Ok(None) => return all,
                Ok(Some(blank)) => {
                    let words: Vec<_> = tokens
                        .iter()
                        .map(|t| match t.shape {
                            Shape::Word => t.text(text).to_string(),
                            Shape::Quoted => format!("<{}>", t.text(text)),
                            Shape::Mixed => format!("~{}", t.text(text)),
                        })
                        .collect();
                    all.push(Ok(format!("{}{}", if blank { "_ " } else { "" }, words.join(" "))));
                }
                Err(error) => all.push(Err(error)),
            }
        }
    }

    #[test]
    fn entries_are_cut_at_line_ends_outside_parentheses() {
        for (text, expected) in [
            ("", &[][..]),
            ("a b\nc", &["a b", "c"]),
            ("a\tb ; comment \" ( \r\n\r\n  c\n", &["a b", "_ c"]),
            ("a ( b ; x )\n c\n)\nd", &["a b c", "d"]),
            ("( a\nb\n)\n", &["a b"]),
            ("a((b)\n)c\n", &["a b c"]),
            ("t \"x y;()\" \"\"\"z\"", &["t <x y;()> <> <z>"]),
            ("a\\ b\\;c\\(\\\"d e", &["a\\ b\\;c\\(\\\"d e"]),
            ("t \"a\\\"b\\\\\" c", &["t <a\\\"b\\\\> c"]),
            ("k=\"a b\"c d", &["~k=\"a b\"c d"]),
            ("a\\\nb", &["a\\", "b"]),
            ("\u{feff}a", &["a"]),
            ("é\\é é", &["é\\é é"]),
            (" ; only a comment\n\n   \n", &[]),
        ] {
            let read: Vec<_> = entries(text).into_iter().map(|e| e.unwrap()).collect();
            assert_eq!(read, expected, "{text:?}");
        }
    }

    #[test]
    fn after_an_error_reading_goes_on_at_the_next_entry() {
        for (text, expected) in [
            ("a \"b\nc\n", vec![Err(LexError::UnclosedQuote(2)), Ok("c")]),
            ("a ( \"b\nx )\nc\n", vec![Err(LexError::UnclosedQuote(4)), Ok("c")]),
            ("a k=\"b\nc", vec![Err(LexError::UnclosedQuote(4)), Ok("c")]),
            ("a )\nc", vec![Err(LexError::StrayClose(2)), Ok("c")]),
            ("a (\n b\nc d\n", vec![Err(LexError::UnclosedParen(2)), Ok("c d")]),
            ("a (\nb (\nc\n", vec![Err(LexError::UnclosedParen(2)), Err(LexError::UnclosedParen(6))]),
            ("a \"b\\", vec![Err(LexError::UnclosedQuote(2))]),
        ] {
            let expected: Vec<_> = expected.into_iter().map(|e| e.map(String::from)).collect();
            assert_eq!(entries(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_stretch_of_a_larger_text_keeps_its_offsets() {
        let text = "x = '''a (b)\n''' c";
        let mut lexer = Lexer::new(text, 7..13);
        let mut tokens = Vec::new();
        assert_eq!(lexer.next_entry(&mut tokens), Ok(Some(false)));
        assert_eq!(tokens.iter().map(|t| t.span()).collect::<Vec<_>>(), [7..8, 10..11]);
        assert_eq!(lexer.next_entry(&mut tokens), Ok(None));
    }
}
