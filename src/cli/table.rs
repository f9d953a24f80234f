//! Tables for people: columns as wide as their widest cell, numbers to the right. Knows nothing of what is in them.

use std::borrow::Cow;

use super::terminal::{Palette, Tone, printable};

/// A table under way.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<Cell>>,
}

/// On which side a column's cells stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// What stands in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell in a tone; control characters are made visible.
    pub fn new(text: &str, tone: Tone) -> Self {
        Cell { text: printable(text).into_owned(), tone }
    }

    /// The value, or a dash where there is none.
    pub fn optional(text: Option<impl AsRef<str>>) -> Self {
        text.map_or_else(|| Cell::new("-", Tone::Dim), |text| Cell::from(text.as_ref()))
    }

    /// Milliseconds with one decimal, or a dash.
    pub fn ms(value: Option<f64>) -> Self {
        Cell::optional(value.map(|ms| format!("{ms:.1}")))
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::new(text, Tone::Plain)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Cell::from(text.as_str())
    }
}

/// Between two columns.
const GAP: &str = "  ";

impl Table {
    /// A table with these columns and no rows yet.
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row: a cell for each column.
    pub fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        debug_assert_eq!(N, self.columns.len());
        self.rows.push(cells.into());
    }

    /// The lines of the table, each ending in a line feed and none in spaces.
    pub fn render(&self, palette: Palette) -> String {
        let header: Vec<Cell> = self.columns.iter().map(|(title, _)| Cell::new(title, Tone::Strong)).collect();
        let lines: Vec<&Vec<Cell>> = std::iter::once(&header).chain(&self.rows).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].text.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        lines.iter().map(|line| self.line(line, &widths, palette)).collect()
    }

    fn line(&self, cells: &[Cell], widths: &[usize], palette: Palette) -> String {
        let mut line = String::new();
        let mut owed = 0; // spaces are only written once something follows them
        for (n, ((cell, (_, align)), width)) in cells.iter().zip(&self.columns).zip(widths).enumerate() {
            let padding = width - cell.text.chars().count();
            let (before, after) = if *align == Align::Right { (padding, 0) } else { (0, padding) };
            owed += before + if n > 0 { GAP.len() } else { 0 };
            if !cell.text.is_empty() {
                line.extend(std::iter::repeat_n(' ', owed));
                let painted: Cow<'_, str> = palette.paint(cell.tone, &cell.text);
                line.push_str(&painted);
                owed = 0;
            }
            owed += after;
        }
        line.push('\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_in_no_space() {
        let mut table = Table::new(&[("NAME", Align::Left), ("MS", Align::Right), ("WHY", Align::Left)]);
        table.row(["eu".into(), Cell::ms(Some(1.25)), "nearest".into()]);
        table.row(["Zürich-west".into(), Cell::ms(Some(120.0)), "".into()]);
        table.row(["".into(), Cell::ms(None), "a\tb".into()]);
        let expected = "\
NAME            MS  WHY
eu             1.2  nearest
Zürich-west  120.0
                 -  a\\tb
";
        assert_eq!(table.render(Palette::none()), expected);
    }

    #[test]
    fn colours_do_not_move_the_columns() {
        let mut table = Table::new(&[("A", Align::Left), ("B", Align::Left)]);
        table.row([Cell::new("up", Tone::Good), "x".into()]);
        table.row([Cell::new("down", Tone::Bad), "y".into()]);
        let plain = table.render(Palette::none());
        let coloured = table.render(Palette::all());
        assert_ne!(coloured, plain);
        let stripped =
            ["32", "31", "1", "0"].iter().fold(coloured, |text, code| text.replace(&format!("\x1b[{code}m"), ""));
        assert_eq!(stripped, plain);
    }
}
