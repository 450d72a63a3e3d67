//! Rows against what was expected.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::super::super::{CommandError, print_result};
use super::exact::Exact;
use super::lines::{Line, as_text, is_json};
use super::read;
use crate::terminal::numbers::counted;
use crate::terminal::style::{Colours, Style};

/// The most lines of differences that are shown.
const MOST_SHOWN: usize = 40;
/// The most characters of a line that are shown.
const MOST_CHARACTERS: usize = 500;
/// The most pairs of lines that are compared to find which of them belong together.
const MOST_PAIRS: usize = 4_000_000;

/// What should come out.
pub(super) struct Expectation {
    file: PathBuf,
    lines: Vec<(usize, String, Exact)>,
}

/// A line that stands on one side only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Difference {
    /// Expected, and not there.
    Missing(usize),
    /// There, and not expected.
    Surplus(usize),
}

impl Expectation {
    /// Reads a file of one JSON value in a line; empty lines are none.
    pub(super) fn read(path: &Path) -> Result<Self, CommandError> {
        let text = read(path)?;
        let mut lines = Vec::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let wrong = |why: &str| CommandError::Usage(format!("{}:{}: {why}", path.display(), index + 1));
            is_json(line).map_err(|why| wrong(&why))?;
            let exact = Exact::read(line).ok_or_else(|| wrong("this JSON cannot be compared"))?;
            lines.push((index + 1, line.trim().to_owned(), exact.with_short_code()));
        }
        Ok(Self { file: path.to_owned(), lines })
    }

    /// Compares as JSON values, line by line, and shows what differs.
    pub(super) fn compare(&self, rows: &[Line]) -> Result<(), CommandError> {
        let expected: Vec<&Exact> = self.lines.iter().map(|(_, _, exact)| exact).collect();
        let actual: Vec<Option<Exact>> = rows.iter().map(|row| Exact::read(&row.text)).collect();
        let differences = differences(expected.len(), actual.len(), |one, other| {
            Some(expected[one]) == actual[other].as_ref()
        });
        let lines = counted(rows.len() as u64, "line", "lines");
        if differences.is_empty() {
            return print_result(&format!("{lines} as {} expects\n", self.file.display()));
        }
        print_result(&self.shown(&differences, rows))?;
        Err(CommandError::Failed(format!(
            "what came out is not what {} expects: {} (`-` expected, `+` came out)\n  help: --update writes it as it came \
             out",
            self.file.display(),
            counted(differences.len() as u64, "difference", "differences"),
        )))
    }

    fn shown(&self, differences: &[Difference], rows: &[Line]) -> String {
        let colours = Colours::for_stdout();
        let mut text = String::new();
        for difference in differences.iter().take(MOST_SHOWN) {
            // Writing to a String cannot fail.
            let _ = match *difference {
                Difference::Missing(index) => {
                    let (line, expected, _) = &self.lines[index];
                    let shown = format!("- {}:{line}: {}", self.file.display(), cut(expected));
                    writeln!(text, "{}", colours.paint(Style::Red, shown))
                }
                Difference::Surplus(index) => {
                    let Line { from, text: row, .. } = &rows[index];
                    let shown = format!("+ line {}, of line {from} of the input: {}", index + 1, cut(row));
                    writeln!(text, "{}", colours.paint(Style::Green, shown))
                }
            };
        }
        if differences.len() > MOST_SHOWN {
            let _ = writeln!(text, "… and {} more", differences.len() - MOST_SHOWN);
        }
        text
    }
}

/// Writes what came out as what is expected.
pub(super) fn write(path: &Path, rows: &[Line]) -> Result<(), CommandError> {
    let text = as_text(rows.iter());
    fs::write(path, text)
        .map_err(|error| CommandError::Failed(format!("cannot write {}: {error}", path.display())))?;
    let lines = counted(rows.len() as u64, "line", "lines");
    print_result(&format!("wrote {lines} to {}\n", path.display()))
}

fn cut(text: &str) -> &str {
    text.char_indices().nth(MOST_CHARACTERS).map_or(text, |(end, _)| &text[..end])
}

/// The fewest lines that must go from one list and come from the other, in order.
fn differences(expected: usize, actual: usize, same: impl Fn(usize, usize) -> bool) -> Vec<Difference> {
    let shorter = expected.min(actual);
    let start = (0..shorter).take_while(|&index| same(index, index)).count();
    let end = (0..shorter - start).take_while(|&back| same(expected - 1 - back, actual - 1 - back)).count();
    let (rows, columns) = (expected - start - end, actual - start - end);
    let mut found = Vec::new();
    if rows.saturating_mul(columns) > MOST_PAIRS {
        // Too many to look for what belongs together.
        for index in start..start + rows.max(columns) {
            let (left, right) = (index < start + rows, index < start + columns);
            if left && right && same(index, index) {
                continue;
            }
            found.extend(left.then_some(Difference::Missing(index)));
            found.extend(right.then_some(Difference::Surplus(index)));
        }
        return found;
    }
    // The longest common part of what follows each pair.
    let width = columns + 1;
    let mut common = vec![0_u32; (rows + 1) * width];
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            common[row * width + column] = if same(start + row, start + column) {
                common[(row + 1) * width + column + 1] + 1
            } else {
                common[(row + 1) * width + column].max(common[row * width + column + 1])
            };
        }
    }
    let (mut row, mut column) = (0, 0);
    while row < rows || column < columns {
        if row < rows && column < columns && same(start + row, start + column) {
            row += 1;
            column += 1;
        } else if column == columns
            || (row < rows && common[(row + 1) * width + column] >= common[row * width + column + 1])
        {
            found.push(Difference::Missing(start + row));
            row += 1;
        } else {
            found.push(Difference::Surplus(start + column));
            column += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn between(expected: &[u8], actual: &[u8]) -> Vec<Difference> {
        differences(expected.len(), actual.len(), |one, other| expected[one] == actual[other])
    }

    #[test]
    fn a_line_that_is_missing_does_not_make_all_others_differ() {
        use Difference::{Missing, Surplus};
        assert_eq!(between(b"abcdef", b"abdef"), [Missing(2)]);
        assert_eq!(between(b"abc", b"axbc"), [Surplus(1)]);
        assert_eq!(between(b"abc", b"axc"), [Missing(1), Surplus(1)]);
        assert_eq!(between(b"", b"a"), [Surplus(0)]);
        assert_eq!(between(b"same", b"same"), []);
    }

    proptest! {
        #[test]
        fn what_is_left_without_the_differences_is_the_same(
            expected in prop::collection::vec(0_u8..4, 0..20),
            actual in prop::collection::vec(0_u8..4, 0..20),
        ) {
            let found = between(&expected, &actual);
            let keep = |list: &[u8], gone: &dyn Fn(usize) -> Difference| -> Vec<u8> {
                (0..list.len()).filter(|&index| !found.contains(&gone(index))).map(|index| list[index]).collect()
            };
            prop_assert_eq!(keep(&expected, &Difference::Missing), keep(&actual, &Difference::Surplus));
            prop_assert_eq!(found.is_empty(), expected == actual);
        }
    }
}
