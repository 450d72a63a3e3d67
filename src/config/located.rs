//! One file's tree and the means to name a place in it.
//!
//! Places inside the tree are JSON pointers, because that is what the schema validator, the connectors and
//! the typed reading speak.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use super::diagnose::{Mistake, Place};
use super::interpolate::{Hidden, redact};
use super::locate::{Content, Entry, Mark, Node, Origin};

/// Which part of an entry a mistake is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spot {
    /// Its key.
    Key,
    /// Its value.
    Value,
}

/// A file whose text could be read as a tree.
pub(super) struct Located {
    /// The file, as it was named.
    pub(super) file: Arc<Path>,
    /// The tree, variables replaced.
    pub(super) root: Node,
    /// What must not be printed.
    pub(super) hidden: Vec<Hidden>,
    /// The keys of the overrides, in order.
    pub(super) override_keys: Arc<[String]>,
}

/// The way to a value.
struct Step<'n> {
    entry: Option<&'n Entry>,
    node: &'n Node,
}

impl Located {
    /// A mistake at `pointer`, or at what is left of it where it leads nowhere. Values from outside are taken
    /// out of the words.
    pub(super) fn error(&self, pointer: &str, spot: Spot, message: &str, help: Option<&str>) -> Mistake {
        let (steps, path) = self.walk(pointer);
        let mark = match (spot, steps.last()) {
            (_, None) => Mark::At { line: 1, column: 1 },
            (Spot::Key, Some(step)) => step.entry.map_or(step.node.mark, |entry| entry.key_mark),
            (Spot::Value, Some(step)) => step.node.mark,
        };
        let mistake = Mistake::error(self.place(mark), path, redact(message, &self.hidden));
        match help {
            Some(help) => mistake.with_help(redact(help, &self.hidden)),
            None => mistake,
        }
    }

    /// The place that a mark means.
    pub(super) fn place(&self, mark: Mark) -> Place {
        let file = Arc::clone(&self.file);
        match mark {
            Mark::At { line, column } => Place::Position { file, line, column },
            Mark::Override(index) => {
                let key = self.override_keys.get(index).cloned().unwrap_or_default();
                Place::Override { file: Some(file), key }
            }
        }
    }

    /// The value at `pointer`.
    pub(super) fn node(&self, pointer: &str) -> Option<&Node> {
        let segments = segments(pointer).count();
        let (steps, _) = self.walk(pointer);
        if segments == 0 {
            return Some(&self.root);
        }
        (steps.len() == segments).then(|| steps.last().map(|step| step.node)).flatten()
    }

    /// The same, to change it.
    pub(super) fn node_mut(&mut self, pointer: &str) -> Option<&mut Node> {
        let mut node = &mut self.root;
        for segment in segments(pointer) {
            node = match &mut node.content {
                Content::Mapping(entries) => {
                    &mut entries.iter_mut().find(|entry| entry.key == segment)?.value
                }
                Content::Sequence(elements) => elements.get_mut(segment.parse::<usize>().ok()?)?,
                Content::Scalar(_) => return None,
            };
        }
        Some(node)
    }

    /// Whether `pointer` leads to a scalar whose variable could not be replaced: a mistake of its own.
    pub(super) fn is_unresolved(&self, pointer: &str) -> bool {
        self.node(pointer).and_then(Node::scalar).is_some_and(|scalar| scalar.origin == Origin::Unresolved)
    }

    fn walk(&self, pointer: &str) -> (Vec<Step<'_>>, String) {
        let mut steps: Vec<Step<'_>> = Vec::new();
        let mut path = String::new();
        let mut node = &self.root;
        for segment in segments(pointer) {
            match &node.content {
                Content::Mapping(entries) => {
                    let Some(entry) = entries.iter().find(|entry| entry.key == segment) else { break };
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(&segment);
                    node = &entry.value;
                    steps.push(Step { entry: Some(entry), node });
                }
                Content::Sequence(elements) => {
                    let element = segment.parse::<usize>().ok().and_then(|index| elements.get(index));
                    let Some(element) = element else { break };
                    // Writing to a String cannot fail.
                    let _ = write!(path, "[{segment}]");
                    node = element;
                    steps.push(Step { entry: None, node });
                }
                Content::Scalar(_) => break,
            }
        }
        (steps, path)
    }
}

/// The parts of a JSON pointer, unescaped (<https://www.rfc-editor.org/rfc/rfc6901>).
pub(super) fn segments(pointer: &str) -> impl Iterator<Item = String> + '_ {
    pointer.split('/').skip(1).map(|segment| segment.replace("~1", "/").replace("~0", "~"))
}

/// `pointer` one step further.
pub(super) fn child(pointer: &str, segment: &str) -> String {
    format!("{pointer}/{}", segment.replace('~', "~0").replace('/', "~1"))
}

/// Line and column of a byte in a text, both from 1; the column counts characters. A byte order mark at the
/// start of the text takes no column.
pub(super) fn line_and_column(text: &str, byte: usize) -> (usize, usize) {
    let (text, byte) = match text.strip_prefix('\u{feff}') {
        Some(rest) => (rest, byte.saturating_sub('\u{feff}'.len_utf8())),
        None => (text, byte),
    };
    let before = text.get(..byte).unwrap_or(text);
    let mut line = 1;
    let mut line_start = 0;
    for (index, c) in before.char_indices() {
        let is_break = c == '\n' || (c == '\r' && !before[index..].starts_with("\r\n"));
        if is_break {
            line += 1;
            line_start = index + 1;
        }
    }
    (line, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::super::locate::locate;
    use super::*;

    fn located(yaml: &str) -> Located {
        let root = locate(yaml).root.unwrap();
        Located {
            file: Path::new("p.yaml").into(),
            root,
            hidden: Vec::new(),
            override_keys: Arc::from(Vec::new()),
        }
    }

    #[test]
    fn a_pointer_becomes_a_place_and_a_readable_path() {
        let file = located("a:\n  - x\n  - 'b/c': 1\n");
        let mistake = file.error("/a/1/b~1c", Spot::Key, "odd", None);
        assert_eq!(mistake.to_string(), "p.yaml:3:5: error: a[1].b/c: odd");
        let mistake = file.error("/a/1/b~1c", Spot::Value, "odd", Some("even"));
        assert_eq!(mistake.to_string(), "p.yaml:3:12: error: a[1].b/c: odd\n  help: even");
    }

    #[test]
    fn a_pointer_that_leads_nowhere_names_what_is_left_of_it() {
        let file = located("a:\n  b: 1\n");
        assert_eq!(file.error("/a/x/y", Spot::Key, "odd", None).to_string(), "p.yaml:1:1: error: a: odd");
        assert!(file.node("/a/x").is_none() && file.node("/a/b").is_some() && file.node("").is_some());
    }

    #[test]
    fn columns_count_characters_and_lines_end_in_three_ways() {
        let text = "\u{feff}é\r\nüx\ry\nz";
        assert_eq!(line_and_column(text, text.find('x').unwrap()), (2, 2));
        assert_eq!(line_and_column(text, text.find('y').unwrap()), (3, 1));
        assert_eq!(line_and_column(text, text.find('z').unwrap()), (4, 1));
        assert_eq!(line_and_column(text, 3), (1, 1));
    }
}
