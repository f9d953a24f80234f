//! Writing to a terminal or a pipe: colours where they help, silence where nobody reads any more. Knows nothing of what is said.

use std::{
    borrow::Cow,
    env,
    io::{self, IsTerminal, Write},
};

/// What a word should look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    /// As it is.
    #[default]
    Plain,
    /// All is well.
    Good,
    /// Something is wrong.
    Bad,
    /// Worth a second look.
    Warn,
    /// Of less weight.
    Dim,
    /// A heading.
    Strong,
}

/// Colours, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Palette {
    on: bool,
}

impl Palette {
    /// For stdout: colours on a terminal unless `NO_COLOR` is set to anything (no-color.org).
    pub fn of_stdout() -> Self {
        Palette { on: io::stdout().is_terminal() && may_colour() }
    }

    /// As [`Palette::of_stdout`], for stderr.
    pub fn of_stderr() -> Self {
        Palette { on: io::stderr().is_terminal() && may_colour() }
    }

    /// No colours.
    #[cfg(test)]
    pub fn none() -> Self {
        Palette { on: false }
    }

    /// All colours.
    #[cfg(test)]
    pub fn all() -> Self {
        Palette { on: true }
    }

    /// True where there are colours.
    pub fn is_on(self) -> bool {
        self.on
    }

    /// The text in its tone.
    pub fn paint(self, tone: Tone, text: &str) -> Cow<'_, str> {
        let code = match tone {
            Tone::Plain => return Cow::Borrowed(text),
            _ if !self.on || text.is_empty() => return Cow::Borrowed(text),
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Warn => "33",
            Tone::Dim => "2",
            Tone::Strong => "1",
        };
        Cow::Owned(format!("\x1b[{code}m{text}\x1b[0m"))
    }
}

fn may_colour() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Writes to stdout. A reader that has seen enough (`| head`) is no error.
///
/// # Errors
/// What the system says, for example of a full disk.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Text from elsewhere with its control characters made visible, so that it cannot speak to the terminal.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect())
}

/// Lines of a label and what there is to say, in two columns.
#[derive(Debug)]
pub struct Lines {
    /// What has been added, each line ending in a line feed.
    pub text: String,
    palette: Palette,
}

impl Lines {
    /// No lines yet.
    pub fn new(palette: Palette) -> Self {
        Lines { text: String::new(), palette }
    }

    /// Adds a line; control characters in `said` are made visible.
    pub fn add(&mut self, label: &str, said: &str) {
        let label = format!("{label:<10}");
        let line = format!("{}{}", self.palette.paint(Tone::Strong, &label), printable(said));
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }
}

/// A time span in its largest unit: `45 s`, `3 min`, `5 h`, `12 d`.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_only_where_they_are_wanted() {
        assert_eq!(Palette::none().paint(Tone::Bad, "down"), "down");
        assert_eq!(Palette::all().paint(Tone::Bad, "down"), "\x1b[31mdown\x1b[0m");
        assert_eq!(Palette::all().paint(Tone::Plain, "down"), "down");
        assert_eq!(Palette::all().paint(Tone::Bad, ""), "");
    }

    #[test]
    fn foreign_text_cannot_speak_to_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(printable("Zürich"), "Zürich");
    }

    #[test]
    fn spans_are_told_in_their_largest_unit() {
        for (seconds, told) in [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7_199, "119 min"),
            (7_200, "2 h"),
            (172_799, "47 h"),
            (172_800, "2 d"),
        ] {
            assert_eq!(span(seconds), told);
        }
    }
}
