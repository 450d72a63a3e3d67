//! `${…}` in scalars.
//!
//! | written | becomes |
//! |---|---|
//! | `${NAME}`, `${env:NAME}` | the environment variable; it must be set |
//! | `${NAME:-text}` | the variable, or `text` where it is not set or empty |
//! | `${file:path}` | the file's text without its last line break |
//! | `$${` | `${` |
//!
//! The replacement happens after YAML has been read, so that a value never becomes syntax, and before values
//! are typed, so that `rows: ${ROWS}` is a number. Replaced text is not searched again.

use std::io::Read;
use std::ops::Range;
use std::path::Path;

use super::locate::{Content, Mark, Node, Origin, Scalar};

/// The largest secret file.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Where values come from.
pub(super) struct Outside<'a> {
    /// Looks up an environment variable.
    pub(super) environment: &'a dyn Fn(&str) -> Option<String>,
    /// What relative paths start from.
    pub(super) base_dir: &'a Path,
}

/// A `${…}` that could not be replaced.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unresolved {
    /// Where its scalar starts.
    pub(super) scalar: Mark,
    /// How many bytes behind the start of the source text its `$` stands, where that is known.
    pub(super) source_byte: Option<usize>,
    /// The path of the scalar, as in messages.
    pub(super) path: String,
    /// What is wrong.
    pub(super) message: String,
    /// How to mend it.
    pub(super) help: String,
}

/// A value from outside and what to print instead of it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Hidden {
    /// The value.
    pub(super) value: String,
    /// What was written, for example `${PG_URL}`.
    pub(super) written: String,
}

/// What replacing has found.
#[derive(Default)]
pub(super) struct Findings {
    /// What could not be replaced.
    pub(super) unresolved: Vec<Unresolved>,
    /// What must not be printed.
    pub(super) hidden: Vec<Hidden>,
}

/// Replaces `${…}` in all scalars of `root`. `source` is the text that the scalars' byte ranges mean.
pub(super) fn interpolate(root: &mut Node, source: &str, outside: &Outside<'_>) -> Findings {
    let mut findings = Findings::default();
    visit(root, "", source, outside, &mut findings);
    findings
}

fn visit(node: &mut Node, path: &str, source: &str, outside: &Outside<'_>, findings: &mut Findings) {
    match &mut node.content {
        Content::Scalar(scalar) => replace_in(scalar, node.mark, path, source, outside, findings),
        Content::Sequence(elements) => {
            for (index, element) in elements.iter_mut().enumerate() {
                visit(element, &format!("{path}[{index}]"), source, outside, findings);
            }
        }
        Content::Mapping(entries) => {
            for entry in entries {
                let path = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
                visit(&mut entry.value, &path, source, outside, findings);
            }
        }
    }
}

fn replace_in(
    scalar: &mut Scalar,
    mark: Mark,
    path: &str,
    source: &str,
    outside: &Outside<'_>,
    findings: &mut Findings,
) {
    if !scalar.text.contains("${") {
        return;
    }
    let mut replaced = String::with_capacity(scalar.text.len());
    for piece in pieces(&scalar.text) {
        match piece {
            Piece::Text(text) => replaced.push_str(text),
            Piece::Reference { start, written, inner } => match resolve(inner, outside) {
                Ok(Resolved::FromFile(text)) => replaced.push_str(text),
                Ok(Resolved::FromOutside(value)) => {
                    replaced.push_str(&value);
                    scalar.origin = scalar.origin.max(Origin::Outside);
                    // Words that quote a value may have escaped it.
                    let escaped = value.escape_debug().to_string();
                    if escaped != value {
                        findings.hidden.push(Hidden { value: escaped, written: written.to_owned() });
                    }
                    findings.hidden.push(Hidden { value, written: written.to_owned() });
                }
                Err(Refusal { message, help }) => {
                    scalar.origin = Origin::Unresolved;
                    let source_byte = place_in_source(scalar, start, source, mark);
                    let path = path.to_owned();
                    findings.unresolved.push(Unresolved { scalar: mark, source_byte, path, message, help });
                }
            },
        }
    }
    if scalar.origin != Origin::Unresolved {
        scalar.text = replaced;
    }
}

enum Piece<'t> {
    Text(&'t str),
    Reference {
        /// Where the `$` stands in the scalar's text.
        start: usize,
        /// All of it.
        written: &'t str,
        /// What stands between the braces, or `None` where the closing one is missing.
        inner: Option<&'t str>,
    },
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find("${") {
        let start = at + found;
        if text[at..start].ends_with('$') {
            pieces.push(Piece::Text(&text[at..start - 1]));
            pieces.push(Piece::Text("${"));
            at = start + 2;
            continue;
        }
        pieces.push(Piece::Text(&text[at..start]));
        let (written, inner) = match text[start..].find('}') {
            Some(end) => (&text[start..=start + end], Some(&text[start + 2..start + end])),
            None => (&text[start..], None),
        };
        pieces.push(Piece::Reference { start, written, inner });
        at = start + written.len();
    }
    pieces.push(Piece::Text(&text[at..]));
    pieces
}

enum Resolved<'t> {
    FromFile(&'t str),
    FromOutside(String),
}

struct Refusal {
    message: String,
    help: String,
}

fn resolve<'t>(inner: Option<&'t str>, outside: &Outside<'_>) -> Result<Resolved<'t>, Refusal> {
    const FORMS: &str =
        "write ${NAME}, ${NAME:-default}, ${env:NAME} or ${file:path}; a literal `${` is `$${`";
    let Some(inner) = inner else {
        return Err(Refusal { message: "`${` without a closing `}`".into(), help: FORMS.into() });
    };
    if let Some(path) = inner.strip_prefix("file:") {
        return read_secret(path, outside.base_dir).map(Resolved::FromOutside);
    }
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let name = name.strip_prefix("env:").unwrap_or(name);
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_name {
        return Err(Refusal { message: "this `${…}` names no variable".into(), help: FORMS.into() });
    }
    match ((outside.environment)(name), default) {
        (Some(value), Some(default)) if value.is_empty() => Ok(Resolved::FromFile(default)),
        (Some(value), _) => Ok(Resolved::FromOutside(value)),
        (None, Some(default)) => Ok(Resolved::FromFile(default)),
        (None, None) => Err(Refusal {
            message: format!("the environment variable `{name}` is not set"),
            help: format!("set {name}, or give a default: ${{{name}:-…}}"),
        }),
    }
}

fn read_secret(path: &str, base_dir: &Path) -> Result<String, Refusal> {
    let refuse = |why: String, help: &str| Refusal { message: why, help: help.to_owned() };
    let full = base_dir.join(path);
    let cannot = |error: &std::io::Error| {
        refuse(
            format!("the file `{path}` cannot be read: {}", error.kind()),
            "paths start at the folder of the pipeline file, or at its parent where that folder is `pipelines`",
        )
    };
    // A pipe or a device could keep us waiting for ever.
    let metadata = std::fs::metadata(&full).map_err(|error| cannot(&error))?;
    if !metadata.is_file() {
        return Err(refuse(format!("`{path}` is not a regular file"), "name a file that holds the value"));
    }
    let mut text = String::new();
    let read = std::fs::File::open(&full).and_then(|file| {
        // One byte more than allowed shows that the file is too large.
        file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)
    });
    match read {
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err(refuse(format!("the file `{path}` is not UTF-8 text"), "store the value as UTF-8 text"))
        }
        Err(error) => Err(cannot(&error)),
        Ok(length) if length as u64 > MAX_FILE_BYTES => {
            Err(refuse(format!("the file `{path}` is larger than 1MiB"), "name a file that holds one value"))
        }
        Ok(_) => {
            let kept = text
                .strip_suffix('\n')
                .map_or(text.len(), |rest| rest.strip_suffix('\r').unwrap_or(rest).len());
            text.truncate(kept);
            Ok(text)
        }
    }
}

/// Where the `${` at byte `start` of the scalar's text stands in the source: the n-th `${` of one is the n-th
/// of the other, unless escapes in double quotes hide some.
fn place_in_source(scalar: &Scalar, start: usize, source: &str, mark: Mark) -> Option<usize> {
    if matches!(mark, Mark::Override(_)) {
        return None;
    }
    let Range { start: from, end } = scalar.source.clone();
    let written = source.get(from..end)?;
    if written.matches("${").count() != scalar.text.matches("${").count() {
        return None;
    }
    let nth = scalar.text[..start].matches("${").count();
    written.match_indices("${").nth(nth).map(|(index, _)| from + index)
}

/// Replaces values from outside in a message by what was written. Short values only where they stand alone.
pub(super) fn redact(message: &str, hidden: &[Hidden]) -> String {
    const CERTAIN: usize = 4;
    let mut longest_first: Vec<&Hidden> = hidden.iter().filter(|hidden| !hidden.value.is_empty()).collect();
    longest_first.sort_by_key(|hidden| std::cmp::Reverse(hidden.value.len()));
    let mut redacted = String::with_capacity(message.len());
    let mut rest = message;
    'scan: while let Some(first) = rest.chars().next() {
        for hidden in &longest_first {
            let Some(behind) = rest.strip_prefix(hidden.value.as_str()) else { continue };
            let word = |c: char| c.is_alphanumeric() || c == '_';
            let alone = !redacted.ends_with(word) && !behind.starts_with(word);
            if hidden.value.len() >= CERTAIN || alone {
                redacted.push_str(&hidden.written);
                rest = behind;
                continue 'scan;
            }
        }
        redacted.push(first);
        rest = &rest[first.len_utf8()..];
    }
    redacted
}

#[cfg(test)]
mod tests {
    use super::super::locate::locate;
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn environment(name: &str) -> Option<String> {
        match name {
            "NUMBER" => Some("42".into()),
            "EMPTY" => Some(String::new()),
            "SYNTAX" => Some("a: [b, \"c\", ${NUMBER}] # d".into()),
            _ => None,
        }
    }

    fn read(yaml: &str, base_dir: &Path) -> (Value, Findings) {
        let mut root = locate(yaml).root.unwrap();
        let outside = Outside { environment: &environment, base_dir };
        let findings = interpolate(&mut root, yaml, &outside);
        (root.to_json(), findings)
    }

    #[test]
    fn a_plain_scalar_is_typed_after_the_replacement_and_a_quoted_one_stays_text() {
        let (value, findings) = read(
            "a: ${NUMBER}\nb: \"${NUMBER}\"\nc: x${env:NUMBER}y\nd: ${NOT_SET:-true}\ne: ${EMPTY:-7}\n\
             f: '$${NUMBER}'\ng: ${SYNTAX}\nh: $5 and $$\ni: ${EMPTY}\n",
            Path::new("."),
        );
        assert!(findings.unresolved.is_empty());
        assert_eq!(
            value,
            json!({"a": 42, "b": "42", "c": "x42y", "d": true, "e": 7, "f": "${NUMBER}",
                   "g": "a: [b, \"c\", ${NUMBER}] # d", "h": "$5 and $$", "i": null})
        );
    }

    #[test]
    fn a_secret_file_loses_its_last_line_break_only() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("one"), "geheim\r\n").unwrap();
        std::fs::write(dir.path().join("two"), "a\n\n").unwrap();
        std::fs::write(dir.path().join("bad"), [0xff]).unwrap();
        let yaml = "a: ${file:one}\nb: ${file:two}\nc: ${file:three}\nd: ${file:.}\ne: ${file:bad}\n";
        let (value, findings) = read(yaml, dir.path());
        assert_eq!((&value["a"], &value["b"]), (&json!("geheim"), &json!("a\n")));
        let messages: Vec<&str> = findings.unresolved.iter().map(|u| u.message.as_str()).collect();
        assert_eq!(
            messages,
            [
                "the file `three` cannot be read: entity not found",
                "`.` is not a regular file",
                "the file `bad` is not UTF-8 text"
            ]
        );
    }

    #[test]
    fn what_cannot_be_replaced_is_found_at_its_own_column() {
        let yaml = "äö: [\"é ${NUMBER} ${NO}\"]\nblock: |\n  one\n  two ${\n";
        let (_, findings) = read(yaml, Path::new("."));
        let places: Vec<_> =
            findings.unresolved.iter().map(|u| (u.path.as_str(), &yaml[u.source_byte.unwrap()..])).collect();
        assert_eq!(places[0].0, "äö[0]");
        assert!(places[0].1.starts_with("${NO}"), "{places:?}");
        assert_eq!((places[1].0, places[1].1), ("block", "${\n"));
    }

    #[test]
    fn names_of_other_shapes_are_refused() {
        for wrong in ["${}", "${a b}", "${1A}", "${NUMBER:default}", "${x", "${env:}"] {
            let (_, findings) = read(&format!("a: '{wrong}'"), Path::new("."));
            assert_eq!(findings.unresolved.len(), 1, "{wrong}");
        }
    }

    #[test]
    fn redacting_leaves_no_value_behind() {
        let hidden = |value: &str, written: &str| Hidden { value: value.into(), written: written.into() };
        let all = [hidden("hunter2", "${PW}"), hidden("hunter", "${USER}"), hidden("a", "${A}")];
        assert_eq!(redact("bad `hunter2` of hunter at `a`", &all), "bad `${PW}` of ${USER} at `${A}`");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_replacement_panic(text in "[${}a:\\-é]{0,20}") {
            for piece in pieces(&text) {
                if let Piece::Reference { start, written, .. } = piece {
                    prop_assert!(text[start..].starts_with(written));
                }
            }
        }

        #[test]
        fn a_value_in_any_message_is_hidden(before in ".{0,9}", value in "[!-#%-z]{4,12}", after in ".{0,9}") {
            let hidden = [Hidden { value: value.clone(), written: "${X}".into() }];
            let message = format!("{before}{value}{after}");
            prop_assert!(!redact(&message, &hidden).contains(&value));
        }
    }
}
