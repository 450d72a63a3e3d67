//! JSON Schema validation of a [`Document`], by the `jsonschema` crate through its traits for foreign
//! documents: the validator and the encoder read the same parsed record.
//!
//! Schemas are 2020-12 unless `$schema` names an older draft. `format` is asserted, patterns run in linear time
//! and nothing is fetched from a network.

use std::borrow::Cow;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::json::{Array, Json, JsonNumber, Node, NodeIdentity, Object};
use jsonschema::{JsonType, PatternOptions, ValidationError};
use txconnect_connector_api::document::{self, Document};
use txconnect_connector_api::{BadRecord, Member, Number};

/// How many problems of one record are put into words; the rest are counted.
const MAX_PROBLEMS: usize = 3;

/// A compiled schema. Immutable: lanes share it.
pub struct Validator(jsonschema::Validator<DocumentJson>);

/// A place where a schema itself is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaMistake {
    /// Where in the schema, as a JSON pointer.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
}

impl Validator {
    /// Compiles a schema.
    ///
    /// # Errors
    /// Every place that its meta-schema refuses; or the one reason why it cannot be compiled, such as a
    /// reference that leads nowhere or a pattern that the linear-time engine does not take.
    pub fn compile(schema: &serde_json::Value) -> Result<Self, Vec<SchemaMistake>> {
        let wrong = |error: &ValidationError<'_>| SchemaMistake {
            pointer: error.instance_path().to_string(),
            message: error.to_string(),
        };
        if let Ok(meta) = jsonschema::meta::validator_for(schema) {
            let mistakes: Vec<SchemaMistake> = meta.iter_errors(schema).map(|error| wrong(&error)).collect();
            if !mistakes.is_empty() {
                return Err(mistakes);
            }
        }
        jsonschema::options_for::<DocumentJson>()
            .should_validate_formats(true)
            .with_pattern_options(PatternOptions::regex())
            .offline()
            .build(schema)
            .map(Self)
            .map_err(|error| vec![wrong(&error)])
    }

    /// Checks a document.
    ///
    /// # Errors
    /// The first problems in one message, with the path of the first. No value of the record is told.
    pub fn validate(&self, document: &Document<'_>) -> Result<(), BadRecord> {
        if self.0.is_valid(DocumentNode(document)) { Ok(()) } else { Err(self.explain(document)) }
    }

    #[cold]
    fn explain(&self, document: &Document<'_>) -> BadRecord {
        let mut problems = self.0.iter_errors(DocumentNode(document));
        let Some(first) = problems.next() else {
            return BadRecord::new("validate.schema", "", "the record does not match its schema");
        };
        let class = format!("validate.{}", first.kind().keyword());
        let path = first.instance_path().to_string();
        let mut message = in_words(&first);
        for problem in problems.by_ref().take(MAX_PROBLEMS - 1) {
            message = format!("{message}; {}", in_words(&problem));
        }
        let more = problems.count();
        if more > 0 {
            message = format!("{message}; and {more} more");
        }
        BadRecord { class: Cow::Owned(class), path, message, trace: None }
    }
}

/// Says what is wrong without the value.
fn in_words(error: &ValidationError<'_>) -> String {
    let path = error.instance_path().to_string();
    let place = if path.is_empty() { "the record" } else { path.as_str() };
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            format!("{place} lacks the required property {property}")
        }
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            // Names of properties come from the record too, but without them nobody finds the place.
            format!("{place} has properties that the schema does not allow: {}", unexpected.join(", "))
        }
        ValidationErrorKind::Type { kind: TypeKind::Single(wanted) } => {
            format!("{place} is not of type {wanted}")
        }
        ValidationErrorKind::Type { kind: TypeKind::Multiple(wanted) } => {
            let names: Vec<String> = wanted.iter().map(|kind| kind.to_string()).collect();
            format!("{place} is not of type {}", names.join(" or "))
        }
        ValidationErrorKind::Format { format } => format!("{place} is not a valid {format}"),
        ValidationErrorKind::Pattern { pattern } => format!("{place} does not match the pattern {pattern}"),
        ValidationErrorKind::Enum { .. } => format!("{place} is none of the values that the schema lists"),
        ValidationErrorKind::Constant { .. } => format!("{place} is not the value that the schema fixes"),
        ValidationErrorKind::Minimum { limit } => format!("{place} is below the minimum {limit}"),
        ValidationErrorKind::Maximum { limit } => format!("{place} is above the maximum {limit}"),
        ValidationErrorKind::ExclusiveMinimum { limit } => format!("{place} is not above {limit}"),
        ValidationErrorKind::ExclusiveMaximum { limit } => format!("{place} is not below {limit}"),
        ValidationErrorKind::MinLength { limit } => format!("{place} is shorter than {limit} characters"),
        ValidationErrorKind::MaxLength { limit } => format!("{place} is longer than {limit} characters"),
        other => format!("{place} fails the schema's `{}`", other.keyword()),
    }
}

/// The representation of [`Document`] for `jsonschema`.
struct DocumentJson;

#[derive(Clone, Copy)]
struct DocumentNode<'a>(&'a Document<'a>);

#[derive(Clone, Copy)]
struct DocumentObject<'a>(document::Object<'a>);

#[derive(Clone, Copy)]
struct DocumentArray<'a>(&'a [Document<'a>]);

struct DocumentNumber<'a>(Number<'a>);

impl Json for DocumentJson {
    type Node<'a> = DocumentNode<'a>;
    type PreparedKey = String;
    type StringBuffer = ();

    // Members are scanned, so one pass over them is as good as two look-ups.
    const KEYS_PER_LOOKUP: usize = 2;
    const ACYCLIC: bool = true;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>((): &mut (), string: &str, f: impl FnOnce(DocumentNode<'_>) -> T) -> T {
        f(DocumentNode(&Document::String(string)))
    }
}

impl<'a> Node<'a, DocumentJson> for DocumentNode<'a> {
    type Object = DocumentObject<'a>;
    type Array = DocumentArray<'a>;
    type Number = DocumentNumber<'a>;

    fn as_object(&self) -> Option<DocumentObject<'a>> {
        self.0.as_object().map(DocumentObject)
    }

    fn as_array(&self) -> Option<DocumentArray<'a>> {
        match self.0 {
            Document::Array(elements) => Some(DocumentArray(elements)),
            _ => None,
        }
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        match self.0 {
            Document::String(text) => Some(Cow::Borrowed(text)),
            _ => None,
        }
    }

    fn as_number(&self) -> Option<DocumentNumber<'a>> {
        match self.0 {
            Document::Number(number) => Some(DocumentNumber(*number)),
            _ => None,
        }
    }

    fn as_boolean(&self) -> Option<bool> {
        match self.0 {
            Document::Bool(value) => Some(*value),
            _ => None,
        }
    }

    fn is_null(&self) -> bool {
        matches!(self.0, Document::Null)
    }

    fn is_number(&self) -> bool {
        matches!(self.0, Document::Number(_))
    }

    fn json_type(&self) -> JsonType {
        match self.0 {
            Document::Null => JsonType::Null,
            Document::Bool(_) => JsonType::Boolean,
            Document::Number(_) => JsonType::Number,
            Document::String(_) => JsonType::String,
            Document::Array(_) => JsonType::Array,
            Document::Object(_) => JsonType::Object,
        }
    }

    fn string_length_within(&self, min: u64, max: u64) -> Option<bool> {
        let Document::String(text) = self.0 else { return None };
        // A character takes one to four bytes, so most lengths are decided without counting.
        let (fewest, most) = (text.len().div_ceil(4) as u64, text.len() as u64);
        if most < min || fewest > max {
            return Some(false);
        }
        if fewest >= min && most <= max {
            return Some(true);
        }
        let count = text.chars().count() as u64;
        Some((min..=max).contains(&count))
    }

    fn to_value(&self) -> Cow<'a, serde_json::Value> {
        Cow::Owned(self.0.to_value())
    }

    fn identity(&self) -> Option<NodeIdentity> {
        Some(NodeIdentity::new(std::ptr::from_ref(self.0).addr()))
    }
}

impl<'a> Object<'a, DocumentJson> for DocumentObject<'a> {
    type Node = DocumentNode<'a>;
    type MemberName = &'a str;
    type MembersIter = MembersIter<'a>;

    fn len(&self) -> usize {
        self.0.members().len()
    }

    fn get(&self, key: &String) -> Option<DocumentNode<'a>> {
        self.0.get(key).map(DocumentNode)
    }

    fn members(&self) -> MembersIter<'a> {
        MembersIter(self.0.members().iter())
    }
}

struct MembersIter<'a>(std::slice::Iter<'a, Member<'a>>);

impl<'a> Iterator for MembersIter<'a> {
    type Item = (&'a str, DocumentNode<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|member| (member.name, DocumentNode(&member.value)))
    }
}

impl<'a> Array<'a, DocumentJson> for DocumentArray<'a> {
    type Node = DocumentNode<'a>;
    type ElementsIter = ElementsIter<'a>;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn elements(&self) -> ElementsIter<'a> {
        ElementsIter(self.0.iter())
    }
}

struct ElementsIter<'a>(std::slice::Iter<'a, Document<'a>>);

impl<'a> Iterator for ElementsIter<'a> {
    type Item = DocumentNode<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(DocumentNode)
    }
}

impl JsonNumber for DocumentNumber<'_> {
    fn as_u64(&self) -> Option<u64> {
        self.0.literal().parse().ok()
    }

    fn as_i64(&self) -> Option<i64> {
        self.0.literal().parse().ok()
    }

    fn as_f64(&self) -> Option<f64> {
        Some(self.0.as_f64())
    }

    fn as_str(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.0.literal())
    }

    fn to_number(&self) -> Cow<'_, serde_json::Number> {
        Cow::Owned(self.0.to_serde())
    }

    fn is_integer(&self) -> bool {
        self.0.is_integer()
    }

    fn is_written_as_integer(&self) -> bool {
        !self.0.literal().bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::decode::parse;
    use bumpalo::Bump;
    use proptest::prelude::*;
    use serde_json::json;

    fn check(schema: &serde_json::Value, text: &str) -> Result<(), BadRecord> {
        let arena = Bump::new();
        Validator::compile(schema).unwrap().validate(&parse(text, &arena).unwrap())
    }

    fn cash_in() -> serde_json::Value {
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "additionalProperties": false,
            "required": ["transaction_id", "amount"],
            "properties": {
                "transaction_id": { "type": "string", "format": "uuid" },
                "amount": { "type": "integer", "exclusiveMinimum": 0 },
                "kind": { "enum": ["a", "b", 3] },
                "note": { "type": ["string", "null"], "maxLength": 3, "pattern": "^[a-zé]*$" }
            }
        })
    }

    #[test]
    fn a_valid_record_passes() {
        let text = r#"{"transaction_id":"1c7a1a2e-6f0b-4a41-8d38-0c2c0a6f4b1d","amount":5.0,"kind":3.0,"note":"éé"}"#;
        assert_eq!(check(&cash_in(), text), Ok(()));
    }

    #[test]
    fn problems_are_named_with_path_and_without_values() {
        let text = r#"{"transaction_id":"hunter2","amount":-77,"kind":"secret","note":"long secret"}"#;
        let bad = check(&cash_in(), text).unwrap_err();
        assert_eq!(bad.class, "validate.format");
        assert_eq!(bad.path, "/transaction_id");
        assert_eq!(
            bad.message,
            "/transaction_id is not a valid uuid; /amount is not above 0; /kind is none of the values that the schema \
             lists; and 2 more"
        );
        let bad = check(&cash_in(), r#"{"amount":1.5,"x":1}"#).unwrap_err();
        assert!(bad.message.contains("lacks the required property \"transaction_id\""), "{}", bad.message);
        assert!(bad.message.contains("does not allow: x"), "{}", bad.message);
        assert!(bad.message.contains("/amount is not of type integer"), "{}", bad.message);
    }

    #[test]
    fn a_wrong_schema_is_refused_with_every_place() {
        let schema = json!({ "type": "objekt", "properties": { "a": { "minimum": "x" } } });
        let Err(mistakes) = Validator::compile(&schema) else { panic!("the schema is wrong") };
        let places: Vec<&str> = mistakes.iter().map(|mistake| mistake.pointer.as_str()).collect();
        assert!(places.contains(&"/type") && places.contains(&"/properties/a/minimum"), "{places:?}");
        assert!(Validator::compile(&json!({ "$ref": "https://example.com/other.json" })).is_err());
        assert!(Validator::compile(&json!({ "$ref": "#/$defs/none" })).is_err());
        assert!(Validator::compile(&json!({ "pattern": "(" })).is_err());
    }

    fn small_schema() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(json!({ "type": "integer" })),
            Just(json!({ "type": ["string", "null"] })),
            Just(json!({ "enum": [1, "a", null, [1.0]] })),
            Just(json!({ "const": { "a": 1 } })),
            Just(json!({ "minimum": 2.5, "multipleOf": 0.5 })),
            Just(json!({ "maxLength": 2 })),
            Just(json!(false)),
            Just(json!({})),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                (inner.clone(), inner.clone()).prop_map(|(a, b)| json!({
                    "properties": { "a": a, "b": b }, "required": ["a"], "additionalProperties": false
                })),
                inner.clone().prop_map(|items| json!({ "items": items, "uniqueItems": true })),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| json!({ "anyOf": [a, b] })),
                inner.prop_map(|inner| json!({ "not": inner })),
            ]
        })
    }

    fn small_value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            Just(json!(true)),
            (-4_i64..6).prop_map(|value| json!(value)),
            (-4_i64..6).prop_map(|value| json!(f64::from(i32::try_from(value).unwrap()) / 2.0)),
            prop::sample::select(vec!["", "a", "éé", "abc"]).prop_map(|text| json!(text)),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::vec((prop::sample::select(vec!["a", "b", "c"]), inner), 0..3).prop_map(
                    |members| {
                        members
                            .into_iter()
                            .map(|(k, v)| (k.to_owned(), v))
                            .collect::<serde_json::Map<_, _>>()
                            .into()
                    }
                ),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_crate_on_its_own_values(schema in small_schema(), value in small_value()) {
            let theirs = jsonschema::options().should_validate_formats(true).build(&schema).unwrap().is_valid(&value);
            prop_assert_eq!(check(&schema, &value.to_string()).is_ok(), theirs);
        }
    }
}
