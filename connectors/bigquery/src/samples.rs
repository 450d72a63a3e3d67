//! Records and schemas for the tests of both encoders.

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use txconnect_connector_api::schema::UnknownFields;
use txconnect_connector_api::{Document, Member, Number, Object, Record, TableSchema, Value};

use crate::config::BigQueryConfig;

/// Keeps the parts of a document alive for the length of a test.
pub(crate) fn document(value: &Json) -> Document<'static> {
    match value {
        Json::Null => Document::Null,
        Json::Bool(value) => Document::Bool(*value),
        Json::Number(number) => {
            Document::Number(Number::from_literal(Box::leak(number.to_string().into_boxed_str())))
        }
        Json::String(text) => Document::String(Box::leak(text.clone().into_boxed_str())),
        Json::Array(elements) => {
            Document::Array(Box::leak(elements.iter().map(document).collect::<Vec<_>>().into_boxed_slice()))
        }
        Json::Object(members) => {
            let members: Vec<Member<'static>> = members
                .iter()
                .map(|(name, value)| Member {
                    name: Box::leak(name.clone().into_boxed_str()),
                    value: document(value),
                })
                .collect();
            Document::Object(Object::new(Box::leak(members.into_boxed_slice())))
        }
    }
}

/// An object of one number.
pub(crate) fn member(name: &'static str, literal: &'static str) -> Document<'static> {
    let value = Document::Number(Number::from_literal(literal));
    Document::Object(Object::new(Box::leak(Box::new([Member { name, value }]))))
}

/// A record of partition 3.
pub(crate) fn record<'a>(topic: &'a str, offset: i64, document: &'a Document<'a>) -> Record<'a> {
    Record {
        topic,
        partition: 3,
        offset,
        row: 0,
        timestamp: None,
        key: None,
        headers: &[],
        value: Value::Json { text: "", document },
    }
}

/// A block with `extra` keys.
pub(crate) fn config(extra: &Json) -> BigQueryConfig {
    let mut config = json!({ "project": "p", "dataset": "d" });
    config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    serde_json::from_value(config).unwrap()
}

/// A schema whose properties are required where their name begins with `must`.
pub(crate) fn schema(properties: &Json, unknown: UnknownFields) -> TableSchema {
    let names = properties.as_object().unwrap().keys();
    let required: Vec<&str> = names.filter(|name| name.starts_with("must")).map(String::as_str).collect();
    TableSchema::from_json_schema(&json!({ "properties": properties, "required": required }), unknown)
        .unwrap()
}

/// Properties of every kind.
pub(crate) fn everything() -> Json {
    json!({
        "must_id": { "type": "string", "format": "uuid" },
        "flag": { "type": "boolean" },
        "count": { "type": "integer" },
        "ratio": { "type": "number" },
        "amount": { "x-column": { "type": "numeric", "precision": 18, "scale": 2 } },
        "raw": { "type": "string", "contentEncoding": "base64" },
        "day": { "type": "string", "format": "date" },
        "clock": { "type": "string", "format": "time" },
        "at": { "type": "string", "format": "date-time" },
        "since": { "type": "integer", "x-column": { "type": "timestamp", "unit": "ms", "name": "since_at" } },
        "extra": { "type": "object" },
        "tags": { "type": "array", "items": { "type": "string" } },
        "who": { "type": "object", "required": ["name"], "properties": {
            "name": { "type": "string" }, "age": { "type": "integer" } } },
        "secret": { "x-column": { "ignore": true } }
    })
}

/// Fields of [`everything`] with values that they do not take, and what is said about them. No value may be shown: they
/// hold the word `hunter2`.
pub(crate) fn bad_values() -> Vec<(&'static str, Json, &'static str, &'static str)> {
    vec![
        ("flag", json!("hunter2"), "/flag", "encode.type"),
        ("count", json!("hunter2"), "/count", "encode.type"),
        ("count", json!(0.5), "/count", "encode.type"),
        ("count", json!(1e300), "/count", "encode.out_of_range"),
        ("ratio", json!("hunter2"), "/ratio", "encode.type"),
        ("amount", json!("hunter2"), "/amount", "encode.format"),
        ("amount", json!("0.001"), "/amount", "encode.inexact"),
        ("amount", json!("1e16"), "/amount", "encode.out_of_range"),
        ("raw", json!("hunter2!"), "/raw", "encode.format"),
        ("day", json!("hunter2"), "/day", "encode.format"),
        ("clock", json!("hunter2"), "/clock", "encode.format"),
        ("at", json!("hunter2"), "/at", "encode.format"),
        ("at", json!("2026-02-30T00:00:00Z"), "/at", "encode.out_of_range"),
        ("at", json!("2026-02-03T00:00:00.1234567Z"), "/at", "encode.inexact"),
        ("since", json!("hunter2"), "/since", "encode.type"),
        ("since", json!(i64::MAX), "/since", "encode.out_of_range"),
        ("extra", json!({ "hunter2/": [1, 1e300, u64::MAX], "x": null }), "", ""),
        ("tags", json!("hunter2"), "/tags", "encode.type"),
        ("tags", json!(["a", null]), "/tags/1", "encode.type"),
        ("who", json!({ "name": 1 }), "/who/name", "encode.type"),
        ("who", json!({ "age": 1 }), "/who/name", "encode.required"),
        ("who", json!({ "name": "x", "hunter2/": 1 }), "/who/hunter2~1", "encode.unknown_field"),
        ("must_id", json!(null), "/must_id", "encode.required"),
        ("hunter2", json!(1), "/hunter2", "encode.unknown_field"),
    ]
    .into_iter()
    .filter(|(.., class)| !class.is_empty())
    .collect()
}

/// Any value of a record, likely to be one that some column takes.
pub(crate) fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        "-?[0-9]{1,12}(\\.[0-9]{1,4})?".prop_map(Json::from),
        "[0-9]{4}-[01][0-9]-[0-3][0-9]".prop_map(Json::from),
        "[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,7})?(Z|[+]01:00)?".prop_map(Json::from),
        "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,7})?(Z|[+]01:00)"
            .prop_map(Json::from),
        "[A-Za-z0-9+/=]{0,8}".prop_map(Json::from),
        "[\\x00-\\x7fäß€😀]{0,12}".prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::vec(("name|age|[a-z]{1,3}", inner), 0..4)
                .prop_map(|members| members.into_iter().collect::<Json>()),
        ]
    })
}
