//! The tree against the JSON Schema that the types give; complaints in plain words.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use jsonschema::error::ValidationErrorKind as Kind;
use jsonschema::{ValidationError, Validator};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::diagnose::{Mistake, closest, one_of};
use super::locate::{Content, Node, Origin};
use super::located::{Located, Spot, child, segments};
use super::model::PipelineFile;

/// The JSON Schema of a pipeline file, with the documentation of every key: for editors and documentation.
pub fn pipeline_schema() -> Value {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<PipelineFile>().to_value()
}

/// What checking the shape of a file has found.
#[derive(Default)]
pub(super) struct ShapeFindings {
    /// The mistakes.
    pub(super) mistakes: Vec<Mistake>,
    /// Top-level keys whose blocks cannot be read further.
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

fn known_keys(word: &str, properties: &Map<String, Value>) -> String {
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

struct Shape {
    schema: Value,
    validator: Validator,
}

impl Shape {
    fn findings(&self, errors: &[ValidationError<'_>], located: &Located) -> ShapeFindings {
        let mut words = Words { shape: self, located, complaints: Vec::new() };
        for error in errors {
            words.explain(error);
        }
        // A misspelt key is missing under its right name: one mistake, not two.
        let misspelt: Vec<(String, String)> =
            words.complaints.iter().filter_map(|complaint| complaint.meant.clone()).collect();
        let mut findings = ShapeFindings::default();
        for complaint in words.complaints {
            if complaint.missing.as_ref().is_some_and(|missing| misspelt.contains(missing)) {
                continue;
            }
            // A missing or unknown key at the top says nothing about the other blocks.
            if let Some(top) = segments(&complaint.about).next() {
                findings.flawed.insert(top);
            }
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
    fn parent_schema(&self, error: &ValidationError<'_>) -> &Value {
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

    fn branches<'s>(&'s self, schema: &'s Value) -> Option<&'s Vec<Value>> {
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

    fn allows(&self, schema: &Value, type_name: &str) -> bool {
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
    fn words<'s>(&'s self, schema: &'s Value, words: &mut Vec<&'s str>) {
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
    fn expectation(&self, schema: &Value) -> String {
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

struct Complaint {
    mistake: Mistake,
    /// The value it is about.
    about: String,
    /// For an unknown key: its mapping and the key that was probably meant.
    meant: Option<(String, String)>,
    /// For a missing key: its mapping and its name.
    missing: Option<(String, String)>,
}

struct Words<'s> {
    shape: &'s Shape,
    located: &'s Located,
    complaints: Vec<Complaint>,
}

impl Words<'_> {
    fn complain(&mut self, pointer: &str, spot: Spot, message: &str, help: Option<&str>) {
        let mistake = self.located.error(pointer, spot, message, help);
        let about = pointer.to_owned();
        self.complaints.push(Complaint { mistake, about, meant: None, missing: None });
    }

    fn explain(&mut self, error: &ValidationError<'_>) {
        let pointer = error.instance_path().as_str();
        if self.located.is_unresolved(pointer) {
            return;
        }
        let schema = self.shape.parent_schema(error);
        match error.kind() {
            Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
                let none = Map::new();
                let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
                for key in unexpected {
                    let help = known_keys(key, properties);
                    let place = child(pointer, key);
                    let mistake =
                        self.located.error(&place, Spot::Key, &format!("unknown key `{key}`"), Some(&help));
                    let meant = closest(key, properties.keys().map(String::as_str))
                        .map(|meant| (pointer.to_owned(), meant.to_owned()));
                    let about = if pointer.is_empty() { String::new() } else { place };
                    self.complaints.push(Complaint { mistake, about, meant, missing: None });
                }
            }
            Kind::Required { property } => {
                let key = property.as_str().unwrap_or_default();
                let about = schema
                    .get("properties")
                    .and_then(|properties| properties.get(key))
                    .and_then(|property| property.get("description"))
                    .and_then(Value::as_str)
                    .map(first_sentence);
                let message = format!("`{key}` is missing");
                let mistake = self.located.error(pointer, Spot::Key, &message, about.as_deref());
                let missing = Some((pointer.to_owned(), key.to_owned()));
                self.complaints.push(Complaint { mistake, about: pointer.to_owned(), meant: None, missing });
            }
            Kind::MinProperties { .. } => {
                let expected = self.shape.expectation(schema);
                self.complain(pointer, Spot::Key, &format!("is empty; it must be {expected}"), None);
            }
            Kind::MaxProperties { limit } => self.too_many_keys(pointer, *limit, schema),
            Kind::AnyOf { context } | Kind::OneOfNotValid { context } => {
                self.explain_union(error, context, schema);
            }
            Kind::Minimum { limit } => self.bound(pointer, "at least", limit),
            Kind::ExclusiveMinimum { limit } => self.bound(pointer, "above", limit),
            Kind::Maximum { limit } => self.bound(pointer, "at most", limit),
            Kind::ExclusiveMaximum { limit } => self.bound(pointer, "below", limit),
            Kind::MinItems { limit } => {
                self.complain(pointer, Spot::Value, &format!("needs at least {limit} in its list"), None);
            }
            Kind::MaxItems { limit } => {
                self.complain(pointer, Spot::Value, &format!("takes at most {limit} in its list"), None);
            }
            Kind::UniqueItems => {
                self.complain(
                    pointer,
                    Spot::Value,
                    "holds the same value twice",
                    Some("name every value once"),
                );
            }
            Kind::MinLength { limit } => {
                self.complain(pointer, Spot::Value, &format!("must have at least {limit} characters"), None);
            }
            Kind::MaxLength { limit } => {
                self.complain(pointer, Spot::Value, &format!("must have at most {limit} characters"), None);
            }
            _ => self.explain_value(error, schema),
        }
    }

    fn bound(&mut self, pointer: &str, relation: &str, limit: &Value) {
        self.complain(pointer, Spot::Value, &format!("must be {relation} {limit}"), None);
    }

    fn too_many_keys(&mut self, pointer: &str, limit: u64, schema: &Value) {
        let first_too_many = usize::try_from(limit).ok().and_then(|limit| {
            let Content::Mapping(entries) = &self.located.node(pointer)?.content else { return None };
            entries.get(limit).map(|entry| child(pointer, &entry.key))
        });
        let names = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
        let mut message = format!("only {limit} key may stand here");
        if !names.is_empty() {
            message.push_str(": ");
            message.push_str(&one_of(names.keys().map(String::as_str)));
        }
        let place = first_too_many.unwrap_or_else(|| pointer.to_owned());
        self.complain(&place, Spot::Key, &message, Some("keep one; another sink is another pipeline file"));
    }

    /// A mapping is held against the one branch that is a mapping; anything else is told all that is possible.
    fn explain_union(
        &mut self,
        error: &ValidationError<'_>,
        context: &[Vec<ValidationError<'static>>],
        schema: &Value,
    ) {
        if error.instance().is_object() {
            let branches = self.shape.branches(schema).map_or(&[][..], Vec::as_slice);
            let mut mappings =
                branches.iter().zip(context).filter(|(branch, _)| self.shape.allows(branch, "object"));
            if let (Some((_, errors)), None) = (mappings.next(), mappings.next())
                && !errors.is_empty()
            {
                for error in errors {
                    self.explain(error);
                }
                return;
            }
        }
        self.explain_value(error, schema);
    }

    fn explain_value(&mut self, error: &ValidationError<'_>, schema: &Value) {
        let pointer = error.instance_path().as_str();
        let expected = self.shape.expectation(schema);
        let origin = self.located.node(pointer).and_then(|node| node.scalar()).map(|scalar| scalar.origin);
        let from_file = origin != Some(Origin::Outside);
        let mut words = Vec::new();
        self.shape.words(schema, &mut words);
        let (message, help) = match error.instance().as_ref() {
            Value::Null if from_file => (
                format!("has no value; it must be {expected}"),
                Some("give it a value or remove the key".into()),
            ),
            Value::String(word) if from_file => {
                let meant = closest(word, words).map(|meant| format!("did you mean `{meant}`?"));
                let help = meant.or_else(|| {
                    (self.shape.allows(schema, "array") && !self.shape.allows(schema, "string"))
                        .then(|| "put it in brackets: `[…]`".to_owned())
                });
                (format!("must be {expected}"), help)
            }
            Value::Number(_) | Value::Bool(_)
                if from_file && words.is_empty() && self.shape.allows(schema, "string") =>
            {
                let help = schema.get("pattern").is_none().then(|| "put it in quotes".to_owned());
                (format!("must be {expected}"), help)
            }
            _ if from_file => (format!("must be {expected}"), None),
            _ => (format!("what its variable holds must be {expected}"), None),
        };
        self.complain(pointer, Spot::Value, &message, help.as_deref());
    }
}

fn first_sentence(text: &str) -> String {
    let text = text.replace('\n', " ");
    text.split_once(". ").map_or(text.as_str(), |(first, _)| first).trim_end_matches('.').to_owned()
}
