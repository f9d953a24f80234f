//! TOML text → a tree with spans, and every syntax error of the text. Knows nothing of what the keys mean.
//!
//! The TOML reader recovers from an error only where it can guess what was meant; elsewhere it gives up on the rest of the file.
//! So a statement with an error is blanked out, byte for byte, and the text read again, until it is clean: every statement is
//! judged, no error is told twice, and all spans stay those of the original.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::value::quote;

/// Most syntax errors that are told; a file with more is not a configuration.
const ERRORS_MAX: usize = 100;

/// What is said of a string that the line ends in.
const UNQUOTED: &str = "a string without its closing quote";

/// One syntax error.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    /// Where.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

/// What a text holds once its broken statements are blanked out.
#[derive(Debug)]
pub(crate) struct Cleaned {
    /// As long as the original, and free of syntax errors unless `gave_up`.
    pub text: String,
    /// What was wrong with the blanked statements, in file order of discovery.
    pub errors: Vec<SyntaxError>,
    /// Blanked statements: what they would have said is not known.
    pub lost: Vec<Range<usize>>,
    /// A broken section header was among them: whole sections are missing.
    pub lost_header: bool,
    /// Too many errors: the text is not worth reading further.
    pub gave_up: bool,
}

/// Finds every syntax error of `text`.
pub(crate) fn clean(text: &str) -> Cleaned {
    let mut cleaned =
        Cleaned { text: text.to_string(), errors: Vec::new(), lost: Vec::new(), lost_header: false, gave_up: false };
    loop {
        let (tree, errors) = DeTable::parse_recoverable(&cleaned.text);
        let first = errors
            .iter()
            .map(|e| (e.span().unwrap_or(0..0), e.message().to_string()))
            .min_by_key(|(span, _)| (span.start, span.end));
        let Some((span, message)) = first else { return cleaned };
        let value = enclosing_value(&cleaned.text, tree.get_ref(), &span);
        drop(tree);
        let (error, lost) = judge(&cleaned.text, span, &message, value);
        let is_header = is_header(&cleaned.text[lost.clone()]);
        cleaned.errors.push(error);
        if cleaned.errors.len() >= ERRORS_MAX || cleaned.text[lost.clone()].trim().is_empty() {
            cleaned.gave_up = true;
            return cleaned;
        }
        blank(&mut cleaned.text, &lost);
        cleaned.lost_header |= is_header;
        cleaned.lost.push(lost);
    }
}

/// The error as it is told, and the statement that it spoils.
fn judge(
    text: &str,
    mut span: Range<usize>,
    message: &str,
    value: Option<Range<usize>>,
) -> (SyntaxError, Range<usize>) {
    span.start = span.start.min(text.len());
    span.end = span.end.clamp(span.start, text.len());
    let line = line_start(text, span.start);
    if begins_statement(&text[line..]) && is_header(&text[line..]) && value.is_none() {
        return (told(text, span, message), line..section_end(text, next_statement(text, line)));
    }
    let Some(value) = value else { return (told(text, span, message), line..next_line(text, line)) };
    let from = line_start(text, value.start);
    let runs_on = span.start >= text.len() || begins_statement(&text[line..]);
    if from < line && runs_on {
        return (unclosed(text, value.start), from..next_statement(text, from));
    }
    let end = next_line(text, value.end.clamp(span.start, text.len()));
    (told(text, span, message), from..end.min(next_statement(text, from)))
}

/// The error of a list, table or string that runs into the next statement.
fn unclosed(text: &str, start: usize) -> SyntaxError {
    let rest = &text[start..];
    let (what, mark) = match rest {
        _ if rest.starts_with("\"\"\"") => ("string", "\"\"\""),
        _ if rest.starts_with("'''") => ("string", "'''"),
        _ if rest.starts_with('{') => ("table", "}"),
        _ => ("list", "]"),
    };
    SyntaxError {
        span: start..start + rest.find('\n').unwrap_or(rest.len()),
        message: format!("the {what} that begins here has no end"),
        help: Some(format!("close it with {}", quote(mark))),
    }
}

/// The TOML reader's words made plain, with what to write instead.
fn told(text: &str, span: Range<usize>, message: &str) -> SyntaxError {
    let word = &text[span.clone()];
    let line = &text[line_start(text, span.start)..];
    let line = line.split('\n').next().unwrap_or("").trim();
    let bare = word.trim_matches(['“', '”', '„', '‘', '’', '"', '\'']);
    let in_quotes =
        "a name with dots or a star stands in quotes, for example [zones.\"geo.example.com\".routes.\"*.app\"]";
    let known: [(&str, String, String); 11] = [
        (
            "string values must be quoted",
            format!("a string stands in {}quotes", if bare == word { "" } else { "straight " }),
            format!("write \"{bare}\""),
        ),
        ("duplicate key", format!("{} is set twice", quote(word)), "keep one of the two".into()),
        (
            "cannot extend value",
            format!("{} is set to a value already", quote(word)),
            "keep either the value or the section".into(),
        ),
        ("unclosed table", "a section header ends in a bracket".into(), "close it with `]`".into()),
        ("key with no value", "a key without a value".into(), "write `key = value`".into()),
        (
            "invalid boolean",
            format!("{} is no value", quote(word)),
            "write true or false, or put a string in quotes".into(),
        ),
        ("invalid basic string", UNQUOTED.into(), format!("close it with `{}`", quote_mark(line))),
        ("invalid literal string", UNQUOTED.into(), format!("close it with `{}`", quote_mark(line))),
        (
            "missing escaped value",
            "a backslash that begins no escape".into(),
            "write `\\\\`, or put the string in single quotes".into(),
        ),
        (
            "missing comma between array elements",
            "a comma is missing before this element".into(),
            "write `,` after the element before it".into(),
        ),
        (
            "invalid unquoted key",
            format!("{} cannot stand in a bare key", quote(word)),
            if is_header(line) { in_quotes.into() } else { "write `key = value`".into() },
        ),
    ];
    let found = known.into_iter().find(|(words, ..)| message.starts_with(words));
    let (message, help) = found.map_or_else(
        || (message.to_string(), "write TOML: `key = value`, strings in quotes, sections in brackets".into()),
        |(_, message, help)| (message, help),
    );
    SyntaxError { span, message, help: Some(help) }
}

/// The quote that opens the string of a line.
fn quote_mark(line: &str) -> char {
    line.chars().find(|c| matches!(c, '"' | '\'')).unwrap_or('"')
}

/// The outermost list, inline table or string of `table` that holds `span`.
fn enclosing_value(text: &str, table: &DeTable<'_>, span: &Range<usize>) -> Option<Range<usize>> {
    table.iter().find_map(|(_, value)| {
        let place = value.span();
        let begins_with = |mark| text.get(place.clone()).is_some_and(|t| t.starts_with(mark));
        match value.get_ref() {
            DeValue::Table(inner) if !begins_with('{') => enclosing_value(text, inner, span),
            // Sections in double brackets: the span of the list is that of its first header.
            DeValue::Array(items) if items.iter().next().is_some_and(|first| first.span() == place) => {
                items.iter().find_map(|item| enclosing_value(text, item.get_ref().as_table()?, span))
            }
            _ => holds(&place, span).then_some(place),
        }
    })
}

fn holds(place: &Range<usize>, span: &Range<usize>) -> bool {
    place.start < span.start && span.start <= place.end
}

/// Where the line of byte `at` begins.
fn line_start(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().rposition(|&b| b == b'\n').map_or(0, |n| n + 1)
}

/// Where the line after that of byte `at` begins.
fn next_line(text: &str, at: usize) -> usize {
    text.as_bytes()[at..].iter().position(|&b| b == b'\n').map_or(text.len(), |n| at + n + 1)
}

/// The start of the first line after that of byte `from` that looks like the beginning of a statement.
fn next_statement(text: &str, from: usize) -> usize {
    let mut at = from;
    while let Some(n) = text.as_bytes()[at..].iter().position(|&b| b == b'\n') {
        at += n + 1;
        if begins_statement(&text[at..]) {
            return at;
        }
    }
    text.len()
}

/// The start of the next section header at or after `from`, which begins a line.
fn section_end(text: &str, from: usize) -> usize {
    let mut at = from;
    while at < text.len() && !is_header(&text[at..]) {
        at = next_statement(text, at);
    }
    at
}

/// True when the first line looks like `[section]` or `key = …`.
fn begins_statement(text: &str) -> bool {
    let line = text.split('\n').next().unwrap_or("").trim_start();
    if is_header(line) {
        return true;
    }
    let mut rest = line;
    loop {
        rest = match rest.chars().next() {
            Some(mark @ ('"' | '\'')) => match rest[1..].find(mark) {
                Some(end) => &rest[end + 2..],
                None => return false,
            },
            _ => rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '-' || c == '_'),
        };
        rest = rest.trim_start();
        match rest.strip_prefix('.') {
            Some(tail) => rest = tail.trim_start(),
            None => return rest.starts_with('=') && !line.starts_with('='),
        }
    }
}

/// True when the first line begins as a section header does: a bracket and a letter or quoted name, and no list follows.
fn is_header(text: &str) -> bool {
    let line = text.split('\n').next().unwrap_or("").trim_start();
    let name = line.trim_start_matches('[');
    let brackets = line.len() - name.len();
    (1..=2).contains(&brackets)
        && name.trim_start().starts_with(|c: char| c.is_alphabetic() || c == '_' || (c == '"' && name.contains('.')))
        && !name.contains(',')
}

/// Turns every byte but line ends into a space, so that all other bytes stay where they are.
fn blank(text: &mut String, span: &Range<usize>) {
    let blanks: String = text[span.clone()].bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }).collect();
    text.replace_range(span.clone(), &blanks);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(text: &str) -> Vec<(usize, String)> {
        clean(text).errors.into_iter().map(|e| (text[..e.span.start].matches('\n').count() + 1, e.message)).collect()
    }

    #[test]
    fn every_broken_statement_is_found_once() {
        let text = "a = 1\nb = x\nc \"y\"\n= 3\n[d\ne = 5\n[f]\ng = [1,\nh = \"\nh2 = 1\nh2 = 2\n[f]\nz = y\n";
        let found = messages(text);
        let lines: Vec<usize> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 3, 4, 5, 8, 9, 11, 12], "{found:#?}");
    }

    #[test]
    fn an_unclosed_value_ends_where_the_next_statement_begins() {
        for text in
            ["a = [1,\n  2\nb = 3\n", "a = \"\"\"x\ny\nb = 3\n", "a = '''\nb = 3\n", "a = { x = 1,\nb.c = 3\n[d]\n"]
        {
            let cleaned = clean(text);
            assert_eq!(cleaned.errors.len(), 1, "{text}: {:#?}", cleaned.errors);
            assert_eq!(cleaned.errors[0].span.start, 4);
            assert!(cleaned.text.contains("= 3"), "{text}");
        }
    }

    #[test]
    fn an_error_inside_a_long_list_spoils_that_list_alone() {
        let found = messages("a = [\n  \"x\"\n  \"y\"\n]\nb = z\n");
        assert_eq!(found.iter().map(|f| f.0).collect::<Vec<_>>(), [3, 5], "{found:#?}");
    }

    #[test]
    fn cleaning_ends_and_keeps_every_place() {
        for text in
            ["", "\0", "[[[[", "a = [[[", "é = ü\nx = 'é", "\"\"\"\"", "a.b = 1\na = 2", "[a]\n[a]\n[[a]]\n", "\r\r\r"]
        {
            let cleaned = clean(text);
            assert_eq!(cleaned.text.len(), text.len());
            assert!(cleaned.gave_up || toml::de::DeTable::parse(&cleaned.text).is_ok(), "{text:?}");
        }
    }
}
