//! `--set key.path=value`: values from the command line, put into the tree of a file.

use std::path::Path;
use std::sync::Arc;

use super::diagnose::{Mistake, Place};
use super::locate::{Content, Entry, Mark, Node, Origin, Scalar, Text, locate};
use super::shape::override_path;

/// One `--set`.
pub(super) struct Override {
    /// The key as it was written.
    pub(super) key: String,
    path: Vec<String>,
    value: Node,
}

/// Reads all overrides; the value is YAML, so `[a, b]` is a list and `"5"` is text.
/// What cannot be read becomes a mistake; the others are still applied, to find more.
pub(super) fn parse(overrides: &[String], found: &mut Vec<Mistake>) -> Vec<Override> {
    let mut parsed = Vec::new();
    for text in overrides {
        match parse_one(text, parsed.len()) {
            Ok(one) => parsed.push(one),
            Err(mistake) => found.push(mistake),
        }
    }
    parsed
}

fn parse_one(text: &str, index: usize) -> Result<Override, Mistake> {
    let place = |key: &str| Place::Override { file: None, key: key.to_owned() };
    let Some((key, value)) = text.split_once('=') else {
        // What has no `=` may be a value that slipped: it is not repeated.
        return Err(Mistake::error(place("…"), "", "`=` is missing").with_help("write --set key.path=value"));
    };
    let key = key.trim();
    let path = override_path(key).map_err(|(message, help)| {
        let mistake = Mistake::error(place(key), "", message);
        match help {
            Some(help) => mistake.with_help(help),
            None => mistake,
        }
    })?;
    let mut value = if value.trim().is_empty() {
        let scalar = Scalar { text: String::new(), plain: false, source: 0..0, origin: Origin::File };
        Node { mark: Mark::Override(index), content: Content::Scalar(scalar) }
    } else {
        let Text { root, mistakes } = locate(value);
        match (root, mistakes.into_iter().next()) {
            (Some(root), None) => root,
            (_, first) => {
                let message = first.map_or_else(|| "this is not YAML".to_owned(), |first| first.message);
                return Err(Mistake::error(place(key), "", message)
                    .with_help("put the value in quotes to make it text"));
            }
        }
    };
    mark_all(&mut value, Mark::Override(index));
    Ok(Override { key: key.to_owned(), path, value })
}

fn mark_all(node: &mut Node, mark: Mark) {
    node.mark = mark;
    match &mut node.content {
        Content::Scalar(_) => {}
        Content::Sequence(elements) => elements.iter_mut().for_each(|element| mark_all(element, mark)),
        Content::Mapping(entries) => {
            for entry in entries {
                entry.key_mark = mark;
                mark_all(&mut entry.value, mark);
            }
        }
    }
}

/// Puts `one` into the tree of `file`; mappings on its way are made where they are missing.
pub(super) fn apply(one: &Override, root: &mut Node, file: &Arc<Path>) -> Result<(), Mistake> {
    let mut node = root;
    for (depth, key) in one.path.iter().enumerate() {
        let is_empty =
            matches!(&node.content, Content::Scalar(scalar) if scalar.plain && scalar.text.is_empty());
        if is_empty {
            node.content = Content::Mapping(Vec::new());
        }
        let Content::Mapping(entries) = &mut node.content else {
            let place = Place::Override { file: Some(Arc::clone(file)), key: one.key.clone() };
            let parent = one.path[..depth].join(".");
            let message = match depth {
                0 => "the file holds no mapping".to_owned(),
                _ => format!("`{parent}` is not a mapping in this file"),
            };
            return Err(Mistake::error(place, "", message)
                .with_help("set the whole of it, or make it a mapping in the file"));
        };
        let position = entries.iter().position(|entry| entry.key == *key).unwrap_or_else(|| {
            let empty = Content::Scalar(Scalar {
                text: String::new(),
                plain: true,
                source: 0..0,
                origin: Origin::File,
            });
            let value = Node { mark: one.value.mark, content: empty };
            entries.push(Entry { key: key.clone(), key_mark: one.value.mark, value });
            entries.len() - 1
        });
        node = &mut entries[position].value;
    }
    *node = one.value.clone();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(yaml: &str, overrides: &[&str]) -> Result<serde_json::Value, String> {
        let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
        let mut mistakes = Vec::new();
        let all = parse(&overrides, &mut mistakes);
        if let Some(first) = mistakes.first() {
            return Err(first.to_string());
        }
        let mut root = locate(yaml).root.unwrap();
        for one in &all {
            apply(one, &mut root, &Path::new("p.yaml").into()).map_err(|mistake| mistake.to_string())?;
        }
        Ok(root.to_json())
    }

    #[test]
    fn values_are_yaml_and_missing_mappings_are_made() {
        let tree = set(
            "name: a\nbatch:\n",
            &["name=b", "batch.rows=7", "source.kafka.topics=[a, b]", "memory=\"1\"", "dead_letters.topic="],
        );
        assert_eq!(
            tree.unwrap(),
            json!({"name": "b", "batch": {"rows": 7}, "source": {"kafka": {"topics": ["a", "b"]}},
                   "memory": "1", "dead_letters": {"topic": ""}})
        );
    }

    #[test]
    fn keys_of_free_mappings_may_hold_dots() {
        let tree = set("{}", &["source.kafka.properties.fetch.wait.max.ms=10"]).unwrap();
        assert_eq!(tree["source"]["kafka"]["properties"], json!({"fetch.wait.max.ms": 10}));
    }

    #[test]
    fn mistakes_name_the_key_and_never_the_value() {
        let cases = [
            (
                "sink.bigquery.datset=geheim",
                "--set sink.bigquery.datset: error: there is no key `datset` in `sink.bigquery`\n  help: did you mean `dataset`?",
            ),
            ("geheim", "--set …: error: `=` is missing\n  help: write --set key.path=value"),
            (
                "name.first=geheim",
                "--set name.first: error: `name` has no keys below it\n  help: write --set name=…",
            ),
            ("name=[geheim", "--set name: error: this is not YAML: "),
        ];
        for (text, expected) in cases {
            let message = set("{}", &[text]).unwrap_err();
            assert!(message.starts_with(expected), "{message}");
            assert!(!message.contains("geheim"), "{message}");
        }
        assert_eq!(
            set("on_error: stop\n", &["on_error.sink=skip"]).unwrap_err(),
            "--set on_error.sink (p.yaml): error: `on_error` is not a mapping in this file\n  \
             help: set the whole of it, or make it a mapping in the file"
        );
    }
}
