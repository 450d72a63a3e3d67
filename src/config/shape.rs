//! The tree against the JSON Schema that the types give.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use jsonschema::error::ValidationErrorKind as Kind;
use jsonschema::{ValidationError, Validator};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::diagnose::{Mistake, closest, one_of};
use super::draft::block_at;
use super::locate::{Content, Node, Origin};
use super::located::{Located, segments};
use super::model::PipelineFile;
use super::wording::explain;

/// The JSON Schema of a pipeline file, with the documentation of every key: for editors and documentation.
pub fn pipeline_schema() -> Value {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<PipelineFile>().to_value()
}

/// What checking the shape of a file has found.
#[derive(Default)]
pub(super) struct ShapeFindings {
    /// The mistakes.
    pub(super) mistakes: Vec<Mistake>,
    /// Blocks that cannot be read further, as [`block_at`] names them.
    pub(super) flawed: BTreeSet<String>,
}

/// Checks a file, after two allowances. Where text is wanted, a number or word that a variable has brought is
/// made text: what a password looks like must not decide its type. And a mapping that needs no key may be
/// left empty, as in `stdout:`.
pub(super) fn check(located: &mut Located) -> ShapeFindings {
    let shape = &*SHAPE;
    loop {
        let tree = located.root.to_json();
        let errors: Vec<ValidationError<'_>> = shape.validator.iter_errors(&tree).collect();
        let allowances: Vec<(String, Allowance)> = errors
            .iter()
            .filter_map(|error| Some((error.instance_path().as_str().to_owned(), shape.allowance(error)?)))
            .collect();
        let mut changed = false;
        for (pointer, allowance) in allowances {
            changed |= located.node_mut(&pointer).is_some_and(|node| allowance.make(node));
        }
        if !changed {
            return shape.findings(&errors, located);
        }
    }
}

/// What a value may be taken for.
enum Allowance {
    Text,
    EmptyMapping,
}

impl Allowance {
    /// Makes it so, where it has not been so before.
    fn make(&self, node: &mut Node) -> bool {
        let Content::Scalar(scalar) = &mut node.content else { return false };
        match self {
            Allowance::Text if scalar.plain && scalar.origin == Origin::Outside => scalar.plain = false,
            Allowance::EmptyMapping if scalar.plain && scalar.origin == Origin::File => {
                node.content = Content::Mapping(Vec::new());
            }
            Allowance::Text | Allowance::EmptyMapping => return false,
        }
        true
    }
}

/// The keys that `key.path` of a `--set` names, from the top. A key of a mapping with free keys, such as
/// librdkafka's properties, may hold dots itself.
pub(super) fn override_path(key: &str) -> Result<Vec<String>, (String, Option<String>)> {
    let shape = &*SHAPE;
    let mut schema = shape.resolve(&shape.schema);
    let mut path = Vec::new();
    let mut rest = key;
    loop {
        let branch = shape.mapping_branch(schema).unwrap_or(schema);
        let Some(properties) = branch.get("properties").and_then(Value::as_object) else {
            if is_open(branch) {
                path.push(rest.to_owned());
                return Ok(path);
            }
            let parent = path.join(".");
            return Err((
                format!("`{parent}` has no keys below it"),
                Some(format!("write --set {parent}=…")),
            ));
        };
        let (head, tail) = rest.split_once('.').map_or((rest, None), |(head, tail)| (head, Some(tail)));
        let Some(next) = properties.get(head) else {
            if is_open(branch) {
                path.push(rest.to_owned());
                return Ok(path);
            }
            return Err((
                format!("there is no key `{head}`{}", below(&path)),
                Some(known_keys(head, properties)),
            ));
        };
        path.push(head.to_owned());
        schema = shape.resolve(next);
        match tail {
            Some(tail) => rest = tail,
            None => return Ok(path),
        }
    }
}

fn below(path: &[String]) -> String {
    if path.is_empty() { " in a pipeline file".into() } else { format!(" in `{}`", path.join(".")) }
}

fn is_open(schema: &Value) -> bool {
    schema.get("type").and_then(Value::as_str) == Some("object")
        && schema.get("additionalProperties") != Some(&Value::Bool(false))
}

/// What helps against an unknown key.
pub(super) fn known_keys(word: &str, properties: &Map<String, Value>) -> String {
    let names = || properties.keys().map(String::as_str);
    match closest(word, names()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("the keys here are {}", one_of(names())),
    }
}

static SHAPE: LazyLock<Shape> = LazyLock::new(|| {
    let mut schema = pipeline_schema();
    simplify(&mut schema);
    let validator = jsonschema::options()
        .offline()
        .should_validate_formats(true)
        .build(&schema)
        .expect("the schema is generated from the types of this crate, and a test compiles it");
    Shape { schema, validator }
});

/// A key without a value is a mistake, so `null` is allowed nowhere; unions of words become one list of words.
fn simplify(schema: &mut Value) {
    match schema {
        Value::Array(elements) => elements.iter_mut().for_each(simplify),
        Value::Object(members) => {
            for union in ["anyOf", "oneOf"] {
                let Some(Value::Array(branches)) = members.get_mut(union) else { continue };
                branches.retain(|branch| branch.get("type").and_then(Value::as_str) != Some("null"));
                let words: Option<Vec<Value>> =
                    branches.iter().map(words_of).collect::<Option<Vec<_>>>().map(|lists| lists.concat());
                if let Some(words) = words {
                    members.shift_remove(union);
                    members.insert("type".into(), "string".into());
                    members.insert("enum".into(), Value::Array(words));
                } else if let [Value::Object(only)] = branches.as_slice() {
                    let only = only.clone();
                    members.shift_remove(union);
                    for (keyword, value) in only {
                        members.entry(keyword).or_insert(value);
                    }
                }
            }
            if let Some(Value::Array(types)) = members.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    members.insert("type".into(), only);
                }
            }
            if let Some(Value::Array(words)) = members.get_mut("enum") {
                words.retain(|word| !word.is_null());
            }
            // What stands under these keywords is data, not a schema.
            members
                .iter_mut()
                .filter(|(keyword, _)| !matches!(keyword.as_str(), "default" | "enum" | "const" | "examples"))
                .for_each(|(_, value)| simplify(value));
        }
        _ => {}
    }
}

/// The words that a schema allows, where it allows nothing else.
fn words_of(schema: &Value) -> Option<Vec<Value>> {
    if let Some(word) = schema.get("const").filter(|word| word.is_string()) {
        return Some(vec![word.clone()]);
    }
    let words = schema.get("enum")?.as_array()?;
    words.iter().all(Value::is_string).then(|| words.clone())
}

/// The schema to check against.
pub(super) struct Shape {
    schema: Value,
    validator: Validator,
}

impl Shape {
    fn findings(&self, errors: &[ValidationError<'_>], located: &Located) -> ShapeFindings {
        let complaints = explain(self, located, errors);
        // A misspelt key is missing under its right name: one mistake, not two.
        let misspelt: Vec<(String, String)> =
            complaints.iter().filter_map(|complaint| complaint.meant.clone()).collect();
        let mut findings = ShapeFindings::default();
        for complaint in complaints {
            if complaint.missing.as_ref().is_some_and(|missing| misspelt.contains(missing)) {
                continue;
            }
            // A missing or unknown key at the top says nothing about the other blocks.
            findings.flawed.extend(block_at(&complaint.about));
            findings.mistakes.push(complaint.mistake);
        }
        findings
    }

    fn allowance(&self, error: &ValidationError<'_>) -> Option<Allowance> {
        if !matches!(error.kind(), Kind::Type { .. }) {
            return None;
        }
        let schema = self.parent_schema(error);
        if self.allows(schema, "string") {
            return Some(Allowance::Text);
        }
        let needs_no_key = || schema.get("required").and_then(Value::as_array).is_none_or(Vec::is_empty);
        (error.instance().is_null() && self.allows(schema, "object") && needs_no_key())
            .then_some(Allowance::EmptyMapping)
    }

    /// The schema that holds the keyword which failed.
    pub(super) fn parent_schema(&self, error: &ValidationError<'_>) -> &Value {
        let path = error.schema_path().as_str();
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let mut schema = &self.schema;
        for segment in segments(parent) {
            schema = match schema {
                Value::Object(members) if segment == "$ref" && members.contains_key("$ref") => {
                    self.resolve(schema)
                }
                Value::Object(members) => match members.get(&segment) {
                    Some(next) => next,
                    None => return schema,
                },
                Value::Array(elements) => {
                    match segment.parse::<usize>().ok().and_then(|index| elements.get(index)) {
                        Some(next) => next,
                        None => return schema,
                    }
                }
                _ => return schema,
            };
        }
        schema
    }

    /// The schema itself, behind its references.
    fn resolve<'s>(&'s self, schema: &'s Value) -> &'s Value {
        let mut schema = schema;
        // Generated definitions do not refer to themselves; the bound keeps that from being a promise.
        for _ in 0..16 {
            let Some(reference) = schema.get("$ref").and_then(Value::as_str) else { break };
            let Some(target) = reference.strip_prefix('#').and_then(|pointer| self.schema.pointer(pointer))
            else {
                break;
            };
            schema = target;
        }
        schema
    }

    /// The branches of a union.
    pub(super) fn branches<'s>(&'s self, schema: &'s Value) -> Option<&'s Vec<Value>> {
        let schema = self.resolve(schema);
        schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array)
    }

    /// Of a union, the one branch that is a mapping.
    fn mapping_branch<'s>(&'s self, schema: &'s Value) -> Option<&'s Value> {
        let mut mappings = self
            .branches(schema)?
            .iter()
            .map(|branch| self.resolve(branch))
            .filter(|branch| self.allows(branch, "object"));
        mappings.next().filter(|_| mappings.next().is_none())
    }

    /// Whether a value of a JSON type may stand there.
    pub(super) fn allows(&self, schema: &Value, type_name: &str) -> bool {
        let schema = self.resolve(schema);
        match schema.get("type") {
            Some(Value::String(name)) => name == type_name,
            Some(Value::Array(names)) => names.iter().any(|name| name == type_name),
            _ => self
                .branches(schema)
                .is_some_and(|branches| branches.iter().any(|branch| self.allows(branch, type_name))),
        }
    }

    /// The words that may stand for a value, among other things.
    pub(super) fn words<'s>(&'s self, schema: &'s Value, words: &mut Vec<&'s str>) {
        let schema = self.resolve(schema);
        if let Some(word) = schema.get("const").and_then(Value::as_str) {
            words.push(word);
        }
        if let Some(listed) = schema.get("enum").and_then(Value::as_array) {
            words.extend(listed.iter().filter_map(Value::as_str));
        }
        for branch in self.branches(schema).into_iter().flatten() {
            self.words(branch, words);
        }
    }

    /// What a schema wants, to be read behind "must be".
    pub(super) fn expectation(&self, schema: &Value) -> String {
        let schema = self.resolve(schema);
        if let Some(branches) = self.branches(schema) {
            let mut parts: Vec<String> = branches.iter().map(|branch| self.expectation(branch)).collect();
            parts.dedup();
            return parts.join(", or ");
        }
        let mut words = Vec::new();
        self.words(schema, &mut words);
        if !words.is_empty() {
            return one_of(words);
        }
        if schema.get("pattern").is_some()
            && let Some(description) = schema.get("description").and_then(Value::as_str)
        {
            return lower_first(description);
        }
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            return format!("a mapping with {}", one_of(properties.keys().map(String::as_str)));
        }
        if schema.get("format").and_then(Value::as_str) == Some("date-time") {
            return "a time such as 2026-01-31T00:00:00Z".into();
        }
        let names: Vec<&str> = match schema.get("type") {
            Some(Value::String(name)) => vec![name],
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let names: Vec<&str> = names.into_iter().map(plain_type).collect();
        if names.is_empty() { "another value".into() } else { names.join(" or ") }
    }
}

fn plain_type(name: &str) -> &str {
    match name {
        "string" => "text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "`true` or `false`",
        "array" => "a list",
        "object" => "a mapping",
        other => other,
    }
}

fn lower_first(text: &str) -> String {
    let mut rest = text.chars();
    match rest.next() {
        Some(first) => first.to_lowercase().chain(rest).collect::<String>().trim_end_matches('.').to_owned(),
        None => String::new(),
    }
}
