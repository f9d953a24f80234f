//! The little of roff that manual pages need, and what of Markdown our own documentation uses. Knows nothing of what the pages say.

use std::fmt::Write;

/// A manual page in the making.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

impl Page {
    /// `name(section)` at its head, the program's version at its foot.
    pub fn titled(name: &str, section: u8) -> Page {
        let version = env!("CARGO_PKG_VERSION");
        let mut page = Page::default();
        page.line(&format!(".TH {} {section} \"\" \"isochrone {version}\" \"Isochrone manual\"", escape(name)));
        page
    }

    /// The section that `whatis` and `apropos` read.
    pub fn name(&mut self, name: &str, about: &str) {
        self.section("Name");
        self.line(&format!("{} \\- {}", escape(name), escape(about)));
    }

    /// What another hand has written in roff.
    pub fn roff(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// A section, in capitals as is the custom, unless its title names something.
    pub fn section(&mut self, title: &str) {
        let title = if title.contains('`') { title.to_string() } else { title.to_uppercase() };
        self.line(&format!(".SH \"{}\"", quoted(&title)));
    }

    /// A section of a section.
    pub fn subsection(&mut self, title: &str) {
        self.line(&format!(".SS \"{}\"", quoted(title)));
    }

    /// A paragraph of Markdown.
    pub fn paragraph(&mut self, markdown: &str) {
        self.space();
        self.prose(markdown);
    }

    /// A paragraph of Markdown behind a bullet.
    pub fn bullet(&mut self, markdown: &str) {
        self.line(".IP \\(bu 2");
        self.prose(markdown);
    }

    /// What something is called, and, indented below it, what it means. Both are Markdown.
    pub fn item(&mut self, name: &str, markdown: &str) {
        self.line(".TP");
        self.prose(name);
        self.prose(markdown);
    }

    /// Lines that stay as they are.
    pub fn verbatim<'l>(&mut self, lines: impl IntoIterator<Item = &'l str>) {
        self.space();
        self.line(".RS 4\n.EX");
        for line in lines {
            self.line(&guarded(&escape(line)));
        }
        self.line(".EE\n.RE");
    }

    /// The finished page, in ASCII.
    pub fn finish(self) -> String {
        let mut text = String::with_capacity(self.text.len());
        for c in self.text.chars() {
            match c {
                c if c.is_ascii() => text.push(c),
                c => write!(text, "\\[u{:04X}]", u32::from(c)).expect("a string takes everything"),
            }
        }
        text
    }

    /// Begins a paragraph; behind a heading one has begun.
    fn space(&mut self) {
        let last = self.text.lines().next_back().unwrap_or_default();
        if !last.starts_with(".SH") && !last.starts_with(".SS") {
            self.line(".PP");
        }
    }

    fn prose(&mut self, markdown: &str) {
        self.line(&guarded(&inline(markdown)));
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }
}

/// Text that roff takes for nothing else. Hyphens are those that can be copied into a shell.
fn escape(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

/// The same between the quotes of a request.
fn quoted(text: &str) -> String {
    escape(&plain(text)).replace('"', "\\(dq")
}

/// A line that begins with a dot or a quote is no request.
fn guarded(line: &str) -> String {
    match line.starts_with(['.', '\'']) {
        true => format!("\\&{line}"),
        false => line.to_string(),
    }
}

/// Markdown without its marks.
fn plain(markdown: &str) -> String {
    spans(markdown).into_iter().map(|(_, text)| text).collect()
}

/// Markdown within a paragraph: what stands in backticks or between double stars is bold; of a link its words stay.
fn inline(markdown: &str) -> String {
    let show = |(is_bold, text): (bool, &str)| match is_bold {
        true => format!("\\fB{}\\fR", escape(text)),
        false => escape(text),
    };
    spans(markdown).into_iter().map(show).collect()
}

/// The pieces of a paragraph; `true` for those to be printed bold.
fn spans(markdown: &str) -> Vec<(bool, &str)> {
    let (mut spans, mut rest) = (Vec::new(), markdown);
    let mut is_strong = false;
    while let Some(at) = rest.find(['`', '*', '[']) {
        let (before, from) = rest.split_at(at);
        spans.push((is_strong, before));
        let code = from.strip_prefix('`').and_then(|from| from.split_once('`'));
        let link = from.strip_prefix('[').and_then(|from| from.split_once("](")).and_then(|(words, from)| {
            let (_, after) = from.split_once(')')?;
            let mut outside_code = words.split('`').step_by(2);
            (!outside_code.any(|text| text.contains('['))).then_some((words, after))
        });
        if let Some((code, after)) = code {
            spans.push((true, code));
            rest = after;
        } else if let Some(after) = from.strip_prefix("**") {
            is_strong = !is_strong;
            rest = after;
        } else if let Some((words, after)) = link {
            spans.extend(self::spans(words).into_iter().map(|(is_bold, text)| (is_bold || is_strong, text)));
            rest = after;
        } else {
            let (mark, after) = from.split_at(1);
            spans.push((is_strong, mark));
            rest = after;
        }
    }
    spans.push((is_strong, rest));
    spans.retain(|(_, text)| !text.is_empty());
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_become_bold_type_and_links_their_words() {
        for (markdown, roff) in [
            ("a `--flag` b", "a \\fB\\-\\-flag\\fR b"),
            ("**Rules steer.** Then", "\\fBRules steer.\\fR Then"),
            (
                "see [health.md](health.md#probes), or [`[latency]`](#latency-latency).",
                "see health.md, or \\fB[latency]\\fR.",
            ),
            ("2 * 3, `*.app`, [0] and `[[x.rules]]`", "2 * 3, \\fB*.app\\fR, [0] and \\fB[[x.rules]]\\fR"),
            ("`TYPE65280 \\# 4`", "\\fBTYPE65280 \\e# 4\\fR"),
            ("an open ` and **bold to the end", "an open ` and \\fBbold to the end\\fR"),
            ("", ""),
        ] {
            assert_eq!(inline(markdown), roff, "{markdown}");
        }
    }

    #[test]
    fn no_text_becomes_a_request_and_every_page_is_ascii() {
        let mut page = Page::titled("a.b", 5);
        page.name("a.b", "says → little");
        page.section("Zones: `[zones.\"NAME\"]`");
        page.paragraph(".de is no request");
        page.item("`key`", "'tis text");
        page.verbatim([".x", "", "y - …"]);
        let text = page.finish();
        assert!(text.contains(".SH \"NAME\"\na.b \\- says \\[u2192] little\n"), "{text}");
        assert!(text.contains(".SH \"Zones: [zones.\\(dqNAME\\(dq]\"\n\\&.de is no request\n"), "{text}");
        assert!(text.contains(".TP\n\\fBkey\\fR\n\\&'tis text\n"), "{text}");
        assert!(text.ends_with(".EX\n\\&.x\n\ny \\- \\[u2026]\n.EE\n.RE\n"), "{text}");
    }
}
