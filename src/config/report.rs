//! What is wrong with a file: every problem with its place, its line and its remedy. Any room that reads text written by
//! people reports with these types; this module knows nothing of what the text means.

use std::{borrow::Cow, fmt, ops::Range, sync::Arc};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// A text that problems point into.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// Path as the user wrote it.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// A place in a source: a range of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// The file.
    pub source: Arc<Source>,
    /// Bytes within its text.
    pub span: Range<usize>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where; `None` when it is not about a place in a file that could be read.
    pub spot: Option<Spot>,
    /// What is wrong, one line.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

/// Everything that is wrong, in file order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The problems.
    pub problems: Vec<Problem>,
}

impl Spot {
    /// Line and column of the first byte, both counted from 1, the column in characters.
    pub fn line_column(&self) -> (usize, usize) {
        let text = &self.source.text;
        let (start, line) = line_at(text, floor_boundary(text, self.span.start));
        let before = &text[start..floor_boundary(text, self.span.start)];
        (line, before.chars().count() + 1)
    }
}

impl Problem {
    /// A problem that belongs to no place in a text.
    pub fn new(message: impl Into<String>) -> Self {
        Problem { spot: None, message: message.into(), help: None }
    }

    /// A problem at a place.
    pub fn at(spot: Spot, message: impl Into<String>) -> Self {
        Problem { spot: Some(spot), message: message.into(), help: None }
    }

    /// Adds what to write instead.
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// On one line: `file:line:column: message (remedy)`.
    pub fn brief(&self) -> String {
        let place = self.spot.as_ref().map_or_else(String::new, |spot| {
            let (line, column) = spot.line_column();
            format!("{}:{line}:{column}: ", spot.source.name)
        });
        let remedy = self.help.as_ref().map_or_else(String::new, |help| format!(" ({help})"));
        printable(&format!("{place}{}{remedy}", self.message)).into_owned()
    }

    /// Drawn as the compilers of this age do: message, `file:line:column`, the line, a caret, the remedy. Control characters of
    /// the text are made visible, so that a file cannot speak to the terminal.
    fn render(&self, renderer: &Renderer) -> String {
        let message = printable(&self.message);
        let mut group = Group::with_title(Level::ERROR.primary_title(message));
        if let Some(spot) = &self.spot {
            let (line, number, span) = first_line(spot);
            let snippet = Snippet::source(line).line_start(number).path(spot.source.name.as_str());
            group = group.element(snippet.annotation(AnnotationKind::Primary.span(span)));
        }
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(printable(help)));
        }
        renderer.render(&[group])
    }
}

impl Report {
    /// Puts the problems in order: those without a place first, then by file (in order of first mention) and position. What is
    /// said twice is told once.
    pub fn new(mut problems: Vec<Problem>) -> Self {
        let mut sources: Vec<String> = Vec::new();
        for spot in problems.iter().filter_map(|p| p.spot.as_ref()) {
            if !sources.contains(&spot.source.name) {
                sources.push(spot.source.name.clone());
            }
        }
        let place = |problem: &Problem| {
            problem.spot.as_ref().map(|spot| {
                let file = sources.iter().position(|name| *name == spot.source.name);
                (file, spot.span.start, spot.span.end)
            })
        };
        problems.sort_by(|a, b| (place(a), &a.message).cmp(&(place(b), &b.message)));
        problems.dedup();
        Report { problems }
    }

    /// With more problems.
    pub fn and(mut self, problems: impl IntoIterator<Item = Problem>) -> Self {
        self.problems.extend(problems);
        Report::new(self.problems)
    }

    /// True when nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// The whole report, ending in a line that sums it up; with colours (ANSI escapes) or without.
    pub fn render(&self, colours: bool) -> String {
        let renderer = if colours { Renderer::styled() } else { Renderer::plain() };
        let mut out = String::new();
        for problem in &self.problems {
            out.push_str(problem.render(&renderer).trim_end());
            out.push_str("\n\n");
        }
        out.push_str(&self.summary());
        out
    }

    /// `3 errors in isochrone.toml`.
    pub fn summary(&self) -> String {
        let mut files: Vec<&str> = Vec::new();
        for spot in self.problems.iter().filter_map(|p| p.spot.as_ref()) {
            if !files.contains(&spot.source.name.as_str()) {
                files.push(&spot.source.name);
            }
        }
        let count = self.problems.len();
        let noun = if count == 1 { "error" } else { "errors" };
        match files.as_slice() {
            [] => format!("{count} {noun}"),
            _ => format!("{count} {noun} in {}", files.join(" and ")),
        }
    }
}

impl From<Problem> for Report {
    fn from(problem: Problem) -> Self {
        Report { problems: vec![problem] }
    }
}

impl fmt::Display for Report {
    /// Without colours.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}

/// The first line that a spot touches, its number from 1, and the part of it that is meant. One line is enough: a longer span
/// begins where the trouble does, and a file of a million lines is not walked again for every problem.
fn first_line(spot: &Spot) -> (&str, usize, Range<usize>) {
    let text = spot.source.text.as_str();
    let from = floor_boundary(text, spot.span.start);
    let (start, number) = line_at(text, from);
    let line = text[start..].split('\n').next().unwrap_or("").trim_end_matches('\r');
    let to = floor_boundary(text, spot.span.end.max(from)).min(start + line.len());
    let from = from.min(start + line.len());
    (line, number, from - start..to.max(from) - start)
}

/// Where the line of byte `at` begins, and its number from 1.
fn line_at(text: &str, at: usize) -> (usize, usize) {
    let start = text[..at].rfind('\n').map_or(0, |n| n + 1);
    (start, text[..start].bytes().filter(|&b| b == b'\n').count() + 1)
}

/// The nearest character boundary at or below `at`.
fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Control characters as escapes.
fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Arc<Source> {
        Arc::new(Source { name: "a.toml".into(), text: text.into() })
    }

    fn problem(source: &Arc<Source>, span: Range<usize>, message: &str) -> Problem {
        Problem::at(Spot { source: source.clone(), span }, message)
    }

    #[test]
    fn a_problem_shows_its_place_its_line_and_its_remedy() {
        let text = source("[server]\nthreads = \"a\"\n");
        let report = Report::from(problem(&text, 19..22, "not a number").with_help("write a number"));
        let expected = "\
error: not a number
 --> a.toml:2:11
  |
2 | threads = \"a\"
  |           ^^^
  |
  = help: write a number

1 error in a.toml";
        assert_eq!(report.to_string(), expected);
    }

    #[test]
    fn a_problem_fits_on_one_line() {
        let told = problem(&source("a\nb c\n"), 4..5, "not\na number").with_help("write a number").brief();
        assert_eq!(told, "a.toml:2:3: not\\na number (write a number)");
        assert_eq!(Problem::new("nowhere").brief(), "nowhere");
    }

    #[test]
    fn problems_are_told_in_file_order_and_once() {
        let text = source("a\nb\n");
        let report = Report::new(vec![
            problem(&text, 2..3, "second"),
            problem(&text, 0..1, "first"),
            problem(&text, 2..3, "second"),
            Problem::new("nowhere"),
        ]);
        let order: Vec<_> = report.problems.iter().map(|p| p.message.as_str()).collect();
        assert_eq!(order, ["nowhere", "first", "second"]);
        assert_eq!(report.summary(), "3 errors in a.toml");
    }

    #[test]
    fn every_span_can_be_drawn() {
        for text in ["", "\n", "é\r\nü", "a\u{1b}[31mb\nc", "\t\tx = 1", &"x".repeat(5000)] {
            let source = source(text);
            for from in 0..(text.len() + 2).min(40) {
                for to in from..(text.len() + 2).min(40) {
                    let shown = Report::from(problem(&source, from..to, "bad\nthing\u{1b}")).to_string();
                    assert!(!shown.contains('\u{1b}'), "{shown:?}");
                }
            }
        }
    }

    #[test]
    fn colours_come_only_when_asked_for() {
        let report = Report::from(problem(&source("a"), 0..1, "x"));
        assert!(report.render(true).contains('\u{1b}'));
        assert!(!report.render(false).contains('\u{1b}'));
    }

    #[test]
    fn columns_count_characters() {
        let spot = Spot { source: source("a\nüü = 1"), span: 6..7 };
        assert_eq!(spot.line_column(), (2, 3));
    }
}
