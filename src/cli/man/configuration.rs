//! `isochrone.toml(5)`: `docs/configuration.md`, which a test holds to the catalogue of keys, as a manual page.

use super::roff::Page;

const DOCUMENT: &str = include_str!("../../../docs/configuration.md");

/// Where something stands in the document.
enum Block<'d> {
    /// `#` signs, title.
    Heading(usize, &'d str),
    Paragraph(String),
    Bullet(String),
    /// Cells of one row of a table.
    Row(Vec<&'d str>),
    Code(Vec<&'d str>),
}

/// The page.
pub fn page() -> String {
    let mut page = Page::titled("isochrone.toml", 5);
    page.name("isochrone.toml", "configuration of the DNS server isochrone");
    page.section("Description");
    for block in blocks(DOCUMENT) {
        match block {
            Block::Heading(1, _) => {} // the page has a name of its own
            Block::Heading(2, title) => page.section(title),
            Block::Heading(_, title) => page.subsection(title),
            Block::Paragraph(text) => page.paragraph(&text),
            Block::Bullet(text) => page.bullet(&text),
            Block::Code(lines) => page.verbatim(lines),
            Block::Row(cells) => row(&mut page, &cells),
        }
    }
    page.section("Files");
    page.item(
        "`/etc/isochrone/isochrone.toml`",
        "What is read where no file is named and there is no `config/isochrone.toml`.",
    );
    page.section("See also");
    page.paragraph("`isochrone`(1), `isochrone-serve`(1), `isochrone-check`(1)");
    page.finish()
}

/// A key: its name, and below it what is allowed, what holds without it and what it does.
fn row(page: &mut Page, cells: &[&str]) {
    let [name, kind, default, range, what] = cells else {
        return page.item(cells.first().copied().unwrap_or_default(), &cells[1.min(cells.len())..].join(" "));
    };
    let range = if range.is_empty() { String::new() } else { format!(" ({range})") };
    let default = if default.starts_with("required") { default.to_string() } else { format!("default: {default}") };
    page.item(name, &format!("{kind}{range}; {default}. {what}"));
}

/// The document in pieces. What is wrapped is joined again.
fn blocks(document: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut lines = document.lines().peekable();
    while let Some(line) = lines.next() {
        let text = line.trim_start();
        if text.is_empty() || text.starts_with("|---") {
            continue;
        }
        let level = line.bytes().take_while(|byte| *byte == b'#').count();
        if level > 0 && line[level..].starts_with(' ') {
            blocks.push(Block::Heading(level, line[level..].trim()));
        } else if text.starts_with("```") {
            // A fence may stand inside a list.
            let indent = line.len() - text.len();
            let inside = lines.by_ref().take_while(|line| !line.trim_start().starts_with("```"));
            blocks.push(Block::Code(inside.map(|line| line.get(indent..).unwrap_or_default()).collect()));
        } else if let Some(first) = line.strip_prefix("    ") {
            let mut code = vec![first];
            while let Some(next) = lines.next_if(|line| line.starts_with("    ")) {
                code.push(&next[4..]);
            }
            blocks.push(Block::Code(code));
        } else if line.starts_with('|') {
            let is_head = lines.peek().is_some_and(|next| next.starts_with("|---"));
            if !is_head {
                blocks.push(Block::Row(line.trim_matches('|').split(" | ").map(str::trim).collect()));
            }
        } else {
            let (is_bullet, first) = line.strip_prefix("* ").map_or((false, line), |rest| (true, rest));
            let mut joined = first.trim().to_string();
            let goes_on = |line: &&str| {
                let text = line.trim_start();
                !text.is_empty() && !line.starts_with("* ") && !line.starts_with(['|', '#']) && !text.starts_with("```")
            };
            while let Some(next) = lines.next_if(goes_on) {
                joined.push(' ');
                joined.push_str(next.trim());
            }
            blocks.push(if is_bullet { Block::Bullet(joined) } else { Block::Paragraph(joined) });
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::SECTIONS;

    #[test]
    fn every_key_has_its_entry_with_type_default_and_range() {
        let page = page();
        for schema in SECTIONS {
            for key in schema.keys.iter().filter(|key| key.supported) {
                let name = key.name.replace('-', "\\-");
                assert!(page.contains(&format!("\n.TP\n\\fB{name}\\fR\n{}", key.form.type_name())), "{name}");
            }
        }
        assert!(
            page.contains("\n\\fBrise\\fR\nwhole number (1 to 100); default: \\fB2\\fR. Successes in a row"),
            "{page}"
        );
        assert!(page.contains("\n\\fBtype\\fR\nstring (\\fBhttp\\fR"), "{page}");
        assert!(!page.contains("|---") && !page.contains("](") && !page.contains("```"), "Markdown is left");
    }
}
