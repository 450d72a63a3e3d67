//! Plain tables with aligned columns.

use std::fmt::Write;

/// On which side of its column a cell stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// For words.
    Left,
    /// For numbers.
    Right,
}

/// A table: a heading, rows, and an optional last line of totals.
#[derive(Clone, Debug)]
pub struct Table<const COLUMNS: usize> {
    heading: [&'static str; COLUMNS],
    alignment: [Align; COLUMNS],
    rows: Vec<[String; COLUMNS]>,
    totals: Option<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// An empty table.
    pub fn new(columns: [(&'static str, Align); COLUMNS]) -> Self {
        Self {
            heading: columns.map(|(heading, _)| heading),
            alignment: columns.map(|(_, align)| align),
            rows: Vec::new(),
            totals: None,
        }
    }

    /// Adds a row.
    pub fn push(&mut self, row: [String; COLUMNS]) {
        self.rows.push(row);
    }

    /// Sets the line of totals, which stands below a rule.
    pub fn total(&mut self, row: [String; COLUMNS]) {
        self.totals = Some(row);
    }

    /// The table as lines without colours, each indented by `indent` spaces and ended by a newline.
    pub fn render(&self, indent: usize) -> String {
        let heading = self.heading.map(str::to_owned);
        let mut widths = [0; COLUMNS];
        for row in std::iter::once(&heading).chain(&self.rows).chain(&self.totals) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        self.line(&mut text, indent, &widths, &heading);
        let rule: String = "─".repeat(widths.iter().sum::<usize>() + 2 * COLUMNS.saturating_sub(1));
        rule_line(&mut text, indent, &rule);
        for row in &self.rows {
            self.line(&mut text, indent, &widths, row);
        }
        if let Some(totals) = &self.totals {
            rule_line(&mut text, indent, &rule);
            self.line(&mut text, indent, &widths, totals);
        }
        text
    }

    fn line(&self, text: &mut String, indent: usize, widths: &[usize; COLUMNS], row: &[String; COLUMNS]) {
        let mut line = " ".repeat(indent);
        for (column, cell) in row.iter().enumerate() {
            if column > 0 {
                line.push_str("  ");
            }
            let width = widths[column];
            // Writing to a String cannot fail.
            let _ = match self.alignment[column] {
                Align::Left => write!(line, "{cell:<width$}"),
                Align::Right => write!(line, "{cell:>width$}"),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

fn rule_line(text: &mut String, indent: usize, rule: &str) {
    text.push_str(&" ".repeat(indent));
    text.push_str(rule);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_left_and_numbers_right() {
        let mut table = Table::new([("topic", Align::Left), ("read", Align::Right)]);
        table.push(["cash_ins".into(), "100".into()]);
        table.push(["é".into(), "2,400".into()]);
        table.total(["all".into(), "2,500".into()]);
        assert_eq!(
            table.render(1),
            " topic      read\n \
             ───────────────\n \
             cash_ins    100\n \
             é         2,400\n \
             ───────────────\n \
             all       2,500\n"
        );
    }
}
