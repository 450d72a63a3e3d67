//! The documentation against the program: every key of a pipeline file is described, with its words and its
//! default, and none that does not exist; every example is right; every link leads somewhere.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, but not in what they call")]

mod guests;
mod markdown;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use markdown::{blocks, copy_folder, in_repository};
use serde_json::Value;

/// What the types say of a key.
#[derive(Debug, Default)]
struct Key {
    required: bool,
    default: Option<String>,
    /// The words that may stand there.
    words: Vec<String>,
}

/// What stands behind the path of a list for its elements.
const ELEMENT: &str = "[]";

/// Every key of a pipeline file by its path.
fn keys() -> BTreeMap<String, Key> {
    let schema = txconnect::config::pipeline_schema();
    let mut keys = BTreeMap::new();
    collect(&schema, &schema, "", false, &mut keys);
    keys.remove("");
    // An element as a whole is described with its list.
    keys.retain(|key, _| !key.ends_with(ELEMENT));
    keys
}

fn collect(root: &Value, node: &Value, path: &str, required: bool, keys: &mut BTreeMap<String, Key>) {
    let key = keys.entry(path.to_owned()).or_default();
    key.required |= required;
    match node.get("default") {
        // Without a value of its own the key is simply not there.
        None | Some(Value::Null | Value::Array(_) | Value::Object(_)) => {}
        Some(Value::String(text)) => key.default = Some(text.clone()),
        Some(other) => key.default = Some(other.to_string()),
    }
    let words = node.get("enum").and_then(Value::as_array).into_iter().flatten().chain(node.get("const"));
    key.words.extend(words.filter_map(Value::as_str).map(str::to_owned));
    if let Some(name) = node.get("$ref").and_then(Value::as_str) {
        collect(root, root.pointer(name.trim_start_matches('#')).unwrap(), path, required, keys);
    }
    for branch in ["anyOf", "oneOf"].iter().filter_map(|name| node.get(name)?.as_array()).flatten() {
        collect(root, branch, path, required, keys);
    }
    if let Some(element) = node.get("items") {
        let resolved = element
            .get("$ref")
            .and_then(Value::as_str)
            .map_or(element, |name| root.pointer(name.trim_start_matches('#')).unwrap());
        // What a list of words takes is said where the list is described.
        let is_block = resolved.get("properties").is_some();
        let below = if is_block { format!("{path}{ELEMENT}") } else { path.to_owned() };
        collect(root, resolved, &below, required, keys);
    }
    let needed: Vec<&str> = node
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (name, property) in node.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        // A branch such as `{service_account_file: …}` is one of several.
        let required = needed.contains(&name.as_str()) && node.get("additionalProperties").is_some();
        collect(root, property, &below, required && !below.contains("credentials."), keys);
    }
}

/// The rows `key | default | meaning` of the tables of docs/configuration.md.
fn described() -> BTreeMap<String, (String, String)> {
    let text = fs::read_to_string(in_repository("docs/configuration.md")).unwrap();
    let mut rows = BTreeMap::new();
    for line in text.lines() {
        let Some((key, rest)) = line.strip_prefix("| `").and_then(|rest| rest.split_once("` | ")) else {
            continue;
        };
        if !key.chars().all(|c| c.is_ascii_lowercase() || matches!(c, '_' | '.' | '[' | ']')) {
            continue;
        }
        let (default, meaning) = rest.split_once("| ").unwrap_or_else(|| panic!("{line}"));
        let row = (default.trim().to_owned(), meaning.to_owned());
        assert!(rows.insert(key.to_owned(), row).is_none(), "`{key}` is described twice");
    }
    rows
}

#[test]
fn every_key_is_described_and_no_other() {
    let (keys, described) = (keys(), described());
    let missing: Vec<&String> = keys.keys().filter(|key| !described.contains_key(*key)).collect();
    let unknown: Vec<&String> = described.keys().filter(|key| !keys.contains_key(*key)).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "missing: {missing:?}; unknown: {unknown:?}");
    assert!(keys.len() > 60, "only {} keys were found", keys.len());
}

#[test]
fn defaults_and_words_are_those_of_the_types() {
    let described = described();
    for (path, key) in keys() {
        let (default, meaning) = &described[&path];
        assert_eq!(default == "required", key.required, "whether `{path}` is required");
        if let Some(value) = &key.default {
            assert_eq!(default, &format!("`{value}`"), "the default of `{path}`");
        }
        for word in &key.words {
            assert!(meaning.contains(&format!("`{word}`")), "`{path}` does not name `{word}`");
        }
    }
}

/// Puts a transform that takes any config wherever an example names one.
fn write_transforms(example: &str, folder: &Path) {
    for line in example.lines() {
        let Some(path) = line.trim_start_matches([' ', '-', '{']).strip_prefix("wasm: ") else { continue };
        let path = folder.join(path.trim_end_matches(['}', ' ']));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, guests::by_number("{}")).unwrap();
    }
}

fn documents() -> Vec<String> {
    let paths = fs::read_dir(in_repository("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut documents: Vec<String> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| format!("docs/{}", path.file_name().unwrap().to_str().unwrap()))
        .collect();
    documents.push("README.md".to_owned());
    documents
}

#[test]
fn every_example_of_a_pipeline_is_right() {
    let environment = |name: &str| match name {
        "GCP_PROJECT" => Some("my-project".to_owned()),
        "KAFKA_PASSWORD" => Some("secret".to_owned()),
        "PG_URL" => Some("postgresql://localhost/database".to_owned()),
        _ => None,
    };
    let mut examples = 0;
    for block in documents().iter().flat_map(|document| blocks(document)) {
        let comment = block.comment.as_deref().unwrap_or_default();
        if block.language != "yaml" {
            continue;
        }
        let place = &block.place;
        assert!(comment == "pipeline" || comment.starts_with("file: "), "{place}: an example nobody checks");
        if comment.starts_with("file: ") {
            // The test of the README writes these and checks them there.
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        copy_folder("schemas", folder.path());
        write_transforms(&block.text, folder.path());
        let file = folder.path().join("example.yaml");
        fs::write(&file, &block.text).unwrap();
        match txconnect::config::load(&[file], &[], &environment) {
            Ok(pipelines) => assert_eq!(pipelines[0].warnings, [], "{place}"),
            Err(mistakes) => panic!("{place}:\n{mistakes}"),
        }
        examples += 1;
    }
    assert!(examples >= 4, "only {examples} examples were found");
}

#[test]
fn every_link_to_a_file_leads_there() {
    for document in documents() {
        let text = fs::read_to_string(in_repository(&document)).unwrap();
        let folder = in_repository(&document).parent().unwrap().to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            let file = link.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            assert!(folder.join(file).exists(), "{document}: {link} leads nowhere");
        }
    }
}
