//! YAML text → a tree whose values and keys know where they were written.
//!
//! Anchors, aliases and merge keys (`<<`) are resolved here. The size of the text, the depth of the tree and
//! the number of nodes that aliases make of it are bounded.

use std::collections::HashMap;
use std::ops::Range;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::{Map, Value};

use super::core_schema::typed;
use super::located::line_and_column;

/// The largest text that is read.
pub(super) const MAX_BYTES: u64 = 1 << 20;
/// The deepest nesting that is read.
const MAX_DEPTH: usize = 64;
/// The most nodes a text may have once its aliases are resolved.
const MAX_NODES: usize = 100_000;

/// Where something was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// In the file; both count from 1, columns count characters.
    At {
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// In the `--set` with this index.
    Override(usize),
}

/// One value.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Where it starts.
    pub(super) mark: Mark,
    /// What it is.
    pub(super) content: Content,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// A scalar.
    Scalar(Scalar),
    /// The elements of a sequence.
    Sequence(Vec<Node>),
    /// The entries of a mapping in order; no two share a key.
    Mapping(Vec<Entry>),
}

/// A scalar.
#[derive(Clone, Debug)]
pub(super) struct Scalar {
    /// Its text without quotes, escapes resolved.
    pub(super) text: String,
    /// Whether it was written without quotes, so that its text decides its type.
    pub(super) plain: bool,
    /// The bytes of the source it was read from.
    pub(super) source: Range<usize>,
    /// What has become of `${…}` in it.
    pub(super) origin: Origin,
}

/// Where the text of a scalar comes from; the later ones win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// The file alone.
    File,
    /// In part from the environment or another file: it must never be printed.
    Outside,
    /// A variable could not be resolved; the mistake has been reported.
    Unresolved,
}

/// One entry of a mapping.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The key.
    pub(super) key: String,
    /// Where the key starts.
    pub(super) key_mark: Mark,
    /// The value.
    pub(super) value: Node,
}

/// A mistake of the text itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TextMistake {
    /// The line, from 1.
    pub(super) line: usize,
    /// The column in characters, from 1.
    pub(super) column: usize,
    /// What is wrong.
    pub(super) message: String,
    /// How to mend it.
    pub(super) help: Option<&'static str>,
}

impl TextMistake {
    fn at(span: Span, message: impl Into<String>) -> Self {
        let (line, column) = (span.start.line(), span.start.col() + 1);
        Self { line, column, message: message.into(), help: None }
    }

    fn with_help(self, help: &'static str) -> Self {
        Self { help: Some(help), ..self }
    }
}

impl Node {
    /// The value at `key`, where this is a mapping that has it.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.content {
            Content::Mapping(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The scalar, where this is one.
    pub(super) fn scalar(&self) -> Option<&Scalar> {
        match &self.content {
            Content::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// The value as JSON; plain scalars are typed by YAML's core schema.
    pub(super) fn to_json(&self) -> Value {
        match &self.content {
            Content::Scalar(scalar) => scalar.to_json(),
            Content::Sequence(elements) => elements.iter().map(Node::to_json).collect(),
            Content::Mapping(entries) => Value::Object(
                entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect::<Map<_, _>>(),
            ),
        }
    }
}

impl Scalar {
    fn to_json(&self) -> Value {
        if self.plain { typed(&self.text) } else { Value::String(self.text.clone()) }
    }
}

/// What could be read of a text.
pub(super) struct Text {
    /// The tree, unless the text cannot be read to its end.
    pub(super) root: Option<Node>,
    /// What is wrong with the text.
    pub(super) mistakes: Vec<TextMistake>,
}

/// Reads one YAML document; reading goes on behind a mistake where that is possible.
pub(super) fn locate(text: &str) -> Text {
    if let Some(mistake) = forbidden_character(text) {
        return Text { root: None, mistakes: vec![mistake] };
    }
    // A byte order mark at the start is legal and takes no column.
    let (text, skipped) = match text.strip_prefix('\u{feff}') {
        Some(rest) => (rest, '\u{feff}'.len_utf8()),
        None => (text, 0),
    };
    let mut builder = Builder {
        anchors: HashMap::new(),
        mistakes: Vec::new(),
        nodes: 0,
        bytes: ByteOffsets { text, at_char: 0, at_byte: 0 },
        skipped,
    };
    let document = builder.document(&mut Parser::new_from_str(text));
    let mut mistakes = builder.mistakes;
    let root = match document {
        Ok(root) => Some(root),
        Err(last) => {
            mistakes.push(pointing_at_the_tab(last, text));
            None
        }
    };
    Text { root, mistakes }
}

/// The scanner stops somewhere behind a tab; the tab itself is what must go.
fn pointing_at_the_tab(mistake: TextMistake, text: &str) -> TextMistake {
    if mistake.help != Some(NO_TABS) {
        return mistake;
    }
    let line = text.lines().nth(mistake.line - 1).unwrap_or_default();
    match line.chars().position(|c| c == '\t') {
        Some(index) => TextMistake { column: index + 1, ..mistake },
        None => mistake,
    }
}

/// The scanner takes NUL for the end of the text, so that everything behind it would be lost silently.
fn forbidden_character(text: &str) -> Option<TextMistake> {
    let forbidden = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}');
    let index = text.find(forbidden)?;
    let (line, column) = line_and_column(text, index);
    Some(TextMistake {
        line,
        column,
        message: "this control character has no place in a YAML file".into(),
        help: Some("remove it, or write it as an escape such as \"\\0\" in double quotes"),
    })
}

/// From the scanner's index in characters to an index in bytes. Walks forward; a step back starts again.
struct ByteOffsets<'t> {
    text: &'t str,
    at_char: usize,
    at_byte: usize,
}

impl ByteOffsets<'_> {
    fn of(&mut self, char_index: usize) -> usize {
        if char_index < self.at_char {
            (self.at_char, self.at_byte) = (0, 0);
        }
        let step = char_index - self.at_char;
        let rest = &self.text[self.at_byte..];
        let bytes = rest.char_indices().nth(step).map_or(rest.len(), |(byte, _)| byte);
        (self.at_char, self.at_byte) = (char_index, self.at_byte + bytes);
        self.at_byte
    }
}

type Events<'t> = Parser<'t, saphyr_parser::StrInput<'t>>;

struct Builder<'t> {
    anchors: HashMap<usize, (Node, usize)>,
    mistakes: Vec<TextMistake>,
    nodes: usize,
    bytes: ByteOffsets<'t>,
    skipped: usize,
}

impl<'t> Builder<'t> {
    fn document(&mut self, events: &mut Events<'t>) -> Result<Node, TextMistake> {
        let mut root = None;
        loop {
            let (event, span) = next(events)?;
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart(_) if root.is_some() => {
                    return Err(TextMistake::at(span, "a second YAML document starts here")
                        .with_help("one file is one pipeline: move it to a file of its own"));
                }
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                other => root = Some(self.node(events, other, span, 0)?),
            }
        }
        root.ok_or_else(|| TextMistake {
            line: 1,
            column: 1,
            message: "the file is empty".into(),
            help: Some("a pipeline needs at least `source` and `sink`"),
        })
    }

    fn node(
        &mut self,
        events: &mut Events<'t>,
        event: Event<'t>,
        span: Span,
        depth: usize,
    ) -> Result<Node, TextMistake> {
        if depth > MAX_DEPTH {
            return Err(TextMistake::at(span, format!("more than {MAX_DEPTH} levels of nesting")));
        }
        let before = self.nodes;
        self.count(1, span)?;
        let (content, anchor) = match event {
            Event::Alias(anchor) => {
                let Some((node, size)) = self.anchors.get(&anchor).cloned() else {
                    return Err(TextMistake::at(span, "this alias stands inside its own anchor"));
                };
                self.count(size, span)?;
                if depth + height(&node) > MAX_DEPTH {
                    return Err(TextMistake::at(span, format!("more than {MAX_DEPTH} levels of nesting")));
                }
                return Ok(node);
            }
            Event::Scalar(text, style, anchor, tag) => {
                let is_text =
                    tag.as_ref().is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
                if tag.is_some() && !is_text {
                    self.tag_mistake(span);
                }
                let plain = style == ScalarStyle::Plain && !is_text;
                let source = self.bytes.of(span.start.index()) + self.skipped
                    ..self.bytes.of(span.end.index()) + self.skipped;
                let text = text.into_owned();
                (Content::Scalar(Scalar { text, plain, source, origin: Origin::File }), anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                if tag.is_some() {
                    self.tag_mistake(span);
                }
                let mut elements = Vec::new();
                loop {
                    let (event, span) = next(events)?;
                    if event == Event::SequenceEnd {
                        break;
                    }
                    elements.push(self.node(events, event, span, depth + 1)?);
                }
                (Content::Sequence(elements), anchor)
            }
            Event::MappingStart(anchor, tag) => {
                if tag.is_some() {
                    self.tag_mistake(span);
                }
                (Content::Mapping(self.entries(events, depth)?), anchor)
            }
            _ => return Err(TextMistake::at(span, "a value is missing here")),
        };
        let mark = Mark::At { line: span.start.line(), column: span.start.col() + 1 };
        let node = Node { mark, content };
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - before));
        }
        Ok(node)
    }

    fn entries(&mut self, events: &mut Events<'t>, depth: usize) -> Result<Vec<Entry>, TextMistake> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut merged = Vec::new();
        loop {
            let (event, key_span) = next(events)?;
            if event == Event::MappingEnd {
                break;
            }
            let is_merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, _) if text == "<<");
            let key = self.node(events, event, key_span, depth + 1)?;
            let (event, value_span) = next(events)?;
            let value = self.node(events, event, value_span, depth + 1)?;
            if is_merge {
                self.merge(value, value_span, &mut merged);
                continue;
            }
            // The place of an alias used as a key is where it stands, not where its anchor is.
            let key_mark = Mark::At { line: key_span.start.line(), column: key_span.start.col() + 1 };
            match key.content {
                Content::Scalar(scalar) if !(scalar.plain && scalar.text.is_empty()) => {
                    if let Some(first) = seen.insert(scalar.text.clone(), key_span.start.line()) {
                        let key = &scalar.text;
                        self.mistakes.push(
                            TextMistake::at(
                                key_span,
                                format!("the key `{key}` is given twice, first in line {first}"),
                            )
                            .with_help("keep one of the two"),
                        );
                    } else {
                        entries.push(Entry { key: scalar.text, key_mark, value });
                    }
                }
                Content::Scalar(_) => self.mistakes.push(TextMistake::at(key_span, "the key is empty")),
                Content::Sequence(_) | Content::Mapping(_) => {
                    self.mistakes.push(
                        TextMistake::at(key_span, "a key must be a word, not a list or a mapping").with_help(
                            "a value that starts with `{` or `[` needs quotes, for example \"{topic}\"",
                        ),
                    );
                }
            }
        }
        // Keys of the mapping itself win over merged ones, earlier merged ones over later ones.
        for entry in merged {
            if !entries.iter().any(|present| present.key == entry.key) {
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    fn merge(&mut self, value: Node, span: Span, merged: &mut Vec<Entry>) {
        let sources = match value.content {
            Content::Sequence(elements) => elements,
            _ => vec![value],
        };
        for source in sources {
            match source.content {
                Content::Mapping(entries) => merged.extend(entries),
                _ => self.mistakes.push(
                    TextMistake::at(span, "`<<` merges mappings only")
                        .with_help("write `<<: *anchor`, where the anchor stands at a mapping"),
                ),
            }
        }
    }

    fn tag_mistake(&mut self, span: Span) {
        self.mistakes.push(
            TextMistake::at(span, "YAML tags have no meaning here")
                .with_help("write the value without the `!…` before it"),
        );
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), TextMistake> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            return Err(TextMistake::at(
                span,
                format!("aliases make more than {MAX_NODES} values of this file"),
            )
            .with_help("write fewer aliases inside anchors"));
        }
        Ok(())
    }
}

fn height(node: &Node) -> usize {
    match &node.content {
        Content::Scalar(_) => 0,
        Content::Sequence(elements) => 1 + elements.iter().map(height).max().unwrap_or(0),
        Content::Mapping(entries) => 1 + entries.iter().map(|entry| height(&entry.value)).max().unwrap_or(0),
    }
}

fn next<'t>(events: &mut Events<'t>) -> Result<(Event<'t>, Span), TextMistake> {
    match events.next_event() {
        Some(Ok(event)) => Ok(event),
        Some(Err(error)) => Err(scan_mistake(&error)),
        None => {
            Err(TextMistake { line: 1, column: 1, message: "the file ends too early".into(), help: None })
        }
    }
}

const NO_TABS: &str = "indent with spaces";

/// The scanner's complaint; where its words are known to puzzle, ours.
fn scan_mistake(error: &saphyr_parser::ScanError) -> TextMistake {
    let info = error.info();
    let help = if info.contains("tab") {
        Some(NO_TABS)
    } else if info.contains("mapping values are not allowed") || info.contains("simple key") {
        Some("check the indentation, and put quotes around a value that contains `: `")
    } else if info.contains("anchor") {
        Some("an alias `*name` needs an anchor `&name` before it")
    } else {
        None
    };
    let marker = error.marker();
    TextMistake {
        line: marker.line().max(1),
        column: marker.col() + 1,
        message: format!("this is not YAML: {info}"),
        help,
    }
}
