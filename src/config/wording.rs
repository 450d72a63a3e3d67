//! What the schema validator finds, in plain words and without values.

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind as Kind;
use serde_json::{Map, Value};

use super::diagnose::{Mistake, closest, one_of};
use super::locate::{Content, Origin};
use super::located::{Located, Spot, child};
use super::shape::{Shape, known_keys};

/// A mistake and what it has to do with others.
pub(super) struct Complaint {
    /// The mistake.
    pub(super) mistake: Mistake,
    /// The value it is about.
    pub(super) about: String,
    /// For an unknown key: its mapping and the key that was probably meant.
    pub(super) meant: Option<(String, String)>,
    /// For a missing key: its mapping and its name.
    pub(super) missing: Option<(String, String)>,
}

/// Puts every error into words.
pub(super) fn explain(shape: &Shape, located: &Located, errors: &[ValidationError<'_>]) -> Vec<Complaint> {
    let mut words = Words { shape, located, complaints: Vec::new() };
    for error in errors {
        words.explain(error);
    }
    words.complaints
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
            Value::Object(_)
                if self.shape.allows(schema, "array") && !self.shape.allows(schema, "object") =>
            {
                (format!("must be {expected}"), Some("put `- ` before it: this is one of a list".to_owned()))
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
