use std::io::Read as _;

use flate2::read::GzDecoder;
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use txconnect_connector_api::schema::UnknownFields;
use txconnect_connector_api::{Document, Member, Object, RowSource, Value, batch::Row};

use super::*;
use crate::samples::{bad_values, config, document, everything, member, record, schema};

fn encoder_for(extra: &Json, topic: &str, properties: &Json) -> RowEncoder {
    let mut all = json!({ "api": "insert_all" });
    all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let unknown =
        if extra.get("table").is_some() { UnknownFields::Ignore } else { UnknownFields::DeadLetter };
    RowEncoder::new(&config(&all), topic, &schema(properties, unknown))
}

fn row_of(encoder: &mut RowEncoder, document: &Document<'_>) -> Result<Json, BadRecord> {
    let mut out = Vec::new();
    encoder.encode(&record("t", 7, document), &mut out)?;
    assert_eq!(out.pop(), Some(b','));
    Ok(serde_json::from_slice::<Json>(&out).unwrap()["json"].clone())
}

#[test]
fn a_row_has_an_id_and_the_columns_of_the_table() {
    let mut encoder = encoder_for(&json!({}), "t", &everything());
    let document = document(&json!({
        "must_id": "0b54", "flag": true, "count": 1, "ratio": 0.5, "amount": "12.50", "raw": "QUJD",
        "day": "2026-11-23", "clock": "12:30:00Z", "at": "2026-11-23T12:30:00+01:00",
        "since": 1_763_900_000_123_i64, "extra": { "a": [1, null, "\"x\""] }, "tags": ["a", "b"],
        "who": { "name": "Zoë", "age": null }, "secret": 1
    }));
    let mut out = Vec::new();
    assert_eq!(encoder.encode(&record("t", 42, &document), &mut out), Ok(Encoded::Row));
    assert_eq!(
        String::from_utf8(out).unwrap(),
        concat!(
            r#"{"insertId":"t-3-42","json":{"must_id":"0b54","flag":true,"count":1,"ratio":0.5,"#,
            r#""amount":"12.50","raw":"QUJD","day":"2026-11-23","clock":"12:30:00","at":"2026-11-23T11:30:00Z","#,
            r#""since_at":"2025-11-23T12:13:20.123000Z","extra":"{\"a\":[1,null,\"\\\"x\\\"\"]}","#,
            r#""tags":["a","b"],"who":{"name":"Zoë"}}},"#
        )
    );
}

#[test]
fn integers_survive_a_reader_that_keeps_numbers_as_doubles() {
    let mut encoder = encoder_for(&json!({}), "t", &json!({ "n": { "type": "integer" } }));
    for (literal, expected) in [
        ("1.0", json!(1)),
        ("-0", json!(0)),
        ("1e3", json!(1000)),
        ("9007199254740992", json!(9_007_199_254_740_992_i64)),
        ("9007199254740993", json!("9007199254740993")),
        ("-9223372036854775808", json!("-9223372036854775808")),
    ] {
        assert_eq!(row_of(&mut encoder, &member("n", literal)), Ok(json!({ "n": expected })), "{literal}");
    }
    let class = |literal| {
        row_of(
            &mut encoder_for(&json!({}), "t", &json!({ "n": { "type": "integer" } })),
            &member("n", literal),
        )
        .unwrap_err()
        .class
    };
    assert_eq!(class("9223372036854775808"), "encode.out_of_range");
    assert_eq!(class("0.5"), "encode.type");
}

#[test]
fn money_keeps_its_digits() {
    let properties = json!({ "n": { "x-column": { "type": "numeric", "precision": 18, "scale": 2 } } });
    let mut encoder = encoder_for(&json!({}), "t", &properties);
    for (literal, expected) in
        [("0.10", "0.10"), ("9007199254740993.01", "9007199254740993.01"), ("1e2", "100")]
    {
        assert_eq!(row_of(&mut encoder, &member("n", literal)), Ok(json!({ "n": expected })));
    }
    assert_eq!(row_of(&mut encoder, &member("n", "0.101")).unwrap_err().class, "encode.inexact");
    assert_eq!(row_of(&mut encoder, &member("n", "1e16")).unwrap_err().class, "encode.out_of_range");
}

#[test]
fn every_bad_value_is_named_by_place_and_class_and_never_shown() {
    let mut encoder = encoder_for(&json!({}), "t", &everything());
    for (field, value, path, class) in bad_values() {
        let mut all = json!({ "must_id": "x" });
        all[field] = value;
        let bad = row_of(&mut encoder, &document(&all)).unwrap_err();
        assert_eq!((bad.path.as_str(), bad.class.as_ref()), (path, class), "{all}");
        assert!(!bad.message.contains("hunter2"), "{}", bad.message);
    }
    assert_eq!(row_of(&mut encoder, &document(&json!({}))).unwrap_err().path, "/must_id");
    assert_eq!(row_of(&mut encoder, &document(&json!([]))).unwrap_err().class, "encode.type");
}

#[test]
fn columns_that_kafka_fills_stand_behind_the_others() {
    let columns = json!({ "kafka_columns": ["topic", "partition", "offset", "timestamp"] });
    let mut encoder = encoder_for(&columns, "t", &json!({ "s": { "type": "string" } }));
    let mut row = |value: Json, timestamp| {
        let value = document(&value);
        let mut out = Vec::new();
        let record = Record { timestamp, ..record("a\"b", 1 << 60, &value) };
        encoder.encode(&record, &mut out).map(|_| String::from_utf8(out).unwrap())
    };
    let fields = r#""_kafka_topic":"a\"b","_kafka_partition":3,"_kafka_offset":"1152921504606846976""#;
    let timed = row(json!({ "s": "x" }), Some(1_763_900_000_123)).unwrap();
    let expected =
        format!(r#""json":{{"s":"x",{fields},"_kafka_timestamp":"2025-11-23T12:13:20.123000Z"}}}},"#);
    assert!(timed.ends_with(&expected), "{timed}");
    let bare = row(json!({}), None).unwrap();
    assert!(bare.ends_with(&format!(r#""json":{{{fields}}}}},"#)), "{bare}");
    assert_eq!(row(json!({}), Some(i64::MAX)).unwrap_err().class, "encode.out_of_range");
}

#[test]
fn a_json_column_refuses_integers_that_bigquery_would_round() {
    let mut encoder = encoder_for(&json!({}), "t", &json!({ "j": { "type": "object" } }));
    let inner = member("big", "18446744073709551616");
    let outer = Document::Object(Object::new(Box::leak(Box::new([Member { name: "j", value: inner }]))));
    let bad = row_of(&mut encoder, &outer).unwrap_err();
    assert_eq!((bad.path.as_str(), bad.class.as_ref()), ("/j/big", "encode.out_of_range"));
}

#[test]
fn null_and_missing_optional_fields_are_left_out() {
    let mut encoder = encoder_for(&json!({}), "t", &everything());
    let sparse = document(&json!({ "must_id": "x", "tags": null, "who": null, "extra": null, "flag": null }));
    assert_eq!(row_of(&mut encoder, &sparse), Ok(json!({ "must_id": "x" })));
}

#[test]
fn unknown_fields_are_counted_where_the_schema_says_so() {
    let mut encoder = encoder_for(&json!({ "table": "t" }), "t", &everything());
    let odd = document(&json!({ "odd": 1, "must_id": "x", "who": { "name": "n", "odd": 2 } }));
    assert_eq!(row_of(&mut encoder, &odd), Ok(json!({ "must_id": "x", "who": { "name": "n" } })));
    assert_eq!(encoder.ignored_fields(), 2);
}

#[test]
fn a_tombstone_makes_no_row_and_text_is_a_bad_record() {
    let mut encoder = encoder_for(&json!({}), "t", &everything());
    let nothing = Document::Null;
    let mut out = Vec::new();
    let tombstone = Record { value: Value::Tombstone, ..record("t", 1, &nothing) };
    assert_eq!(encoder.encode(&tombstone, &mut out), Ok(Encoded::Filtered));
    assert_eq!(out, b"");
    let text = Record { value: Value::Text("x"), ..record("t", 1, &nothing) };
    assert_eq!(encoder.encode(&text, &mut out).unwrap_err().class, "encode.not_json");
}

#[test]
fn a_row_beyond_the_request_limit_is_a_bad_record() {
    let mut encoder = encoder_for(&json!({}), "t", &json!({ "s": { "type": "string" } }));
    let overhead = r#"{"insertId":"t-3-7","json":{"s":""}},"#.len() + ENVELOPE_BYTES;
    let fits = document(&json!({ "s": "x".repeat(MAX_REQUEST_BYTES - overhead) }));
    assert!(row_of(&mut encoder, &fits).is_ok());
    let bad = row_of(&mut encoder, &document(&json!({ "s": "x".repeat(MAX_REQUEST_BYTES - overhead + 1) })));
    assert_eq!(bad.unwrap_err().class, "encode.too_large");
}

fn id_of(encoder: &mut RowEncoder, topic: &str, offset: i64, row: u32) -> String {
    let empty = document(&json!({}));
    let mut out = Vec::new();
    encoder.encode(&Record { row, ..record(topic, offset, &empty) }, &mut out).unwrap();
    out.pop();
    serde_json::from_slice::<Json>(&out).unwrap()["insertId"].as_str().unwrap().to_owned()
}

#[test]
fn ids_name_the_record_and_differ_for_every_row() {
    let properties = json!({ "s": { "type": "string" } });
    let mut encoder = encoder_for(&json!({}), "t", &properties);
    assert_eq!(id_of(&mut encoder, "t", 1, 0), "t-3-1");
    assert_eq!(id_of(&mut encoder, "t", 1, 1), "t-3-1:1");
    assert_eq!(id_of(&mut encoder, "t", 1, 2), "t-3-1:2");
    assert_eq!(id_of(&mut encoder, "t", 2, 0), "t-3-2");
    assert_eq!(id_of(&mut encoder, "other", 2, 0), "other/t-3-2");
    assert_eq!(id_of(&mut encoder, "other", 2, 7), "other/t-3-2:7");
    let long = "x".repeat(249);
    let id = id_of(&mut encoder, &long, i64::MAX, u32::MAX);
    assert!(id.starts_with("sha256:") && id.len() <= MAX_ID_CHARACTERS, "{id}");
    assert_ne!(id, id_of(&mut encoder, &"y".repeat(249), i64::MAX, u32::MAX));
    assert_ne!(id, id_of(&mut encoder, &long, i64::MAX, u32::MAX - 1));
    let mut out = Vec::new();
    let empty = document(&json!({}));
    encoder_for(&json!({ "insert_ids": false }), "t", &properties)
        .encode(&record("t", 1, &empty), &mut out)
        .unwrap();
    assert_eq!(out, br#"{"json":{}},"#);
}

#[test]
fn a_row_has_the_same_id_whatever_was_encoded_before_it() {
    let properties = json!({ "s": { "type": "string" } });
    let mut encoder = encoder_for(&json!({}), "t", &properties);
    assert_eq!(id_of(&mut encoder, "t", 1, 2), "t-3-1:2");
    assert_eq!(id_of(&mut encoder, "t", 1, 0), "t-3-1");
    assert_eq!(id_of(&mut encoder, "t", 1, 0), "t-3-1");
}

fn unpacked(body: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    GzDecoder::new(body).read_to_end(&mut text).unwrap();
    text
}

fn any_value() -> impl Strategy<Value = (Json, Json)> {
    let text = "[\\x00-\\x7fäß€😀]{0,12}";
    let leaf = prop_oneof![
        any::<bool>().prop_map(|value| (json!({ "type": "boolean" }), json!(value))),
        (-(1_i64 << 53)..1 << 53).prop_map(|value| (json!({ "type": "integer" }), json!(value))),
        text.prop_map(|value| (json!({ "type": "string" }), json!(value))),
        prop::collection::vec(text, 0..3)
            .prop_map(|value| (json!({ "type": "array", "items": { "type": "string" } }), json!(value))),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop::collection::btree_map("[a-z\"\\\\é]{1,5}", inner, 1..4).prop_map(|members| {
            let types: Json = members.iter().map(|(name, (kind, _))| (name.clone(), kind.clone())).collect();
            let values: Json = members.into_iter().map(|(name, (_, value))| (name, value)).collect();
            (json!({ "type": "object", "properties": types }), values)
        })
    })
}

proptest! {
    #[test]
    fn what_is_encoded_reads_back_the_same_and_has_the_announced_size(
        rows in prop::collection::vec(any_value(), 1..6), fast in any::<bool>()
    ) {
        let compression = if fast { "fast" } else { "none" };
        let mut batch = Batch::new("d.t".into());
        let mut last = None;
        for (index, (kind, value)) in rows.iter().enumerate() {
            let mut encoder =
                encoder_for(&json!({ "compression": compression }), "t", &json!({ "v": kind }));
            let offset = i64::try_from(index).unwrap();
            let document = document(&json!({ "v": value }));
            encoder.encode(&record("t", offset, &document), &mut batch.bytes).unwrap();
            let source = RowSource { slot: 0, offset, record: 0 };
            batch.rows.push(Row { end: batch.bytes.len(), source });
            last = Some(encoder);
        }
        let mut encoder = last.unwrap();
        encoder.seal(&mut batch);
        let text = unpacked(batch.sealed.as_ref().unwrap());
        prop_assert_eq!(text.len(), batch.bytes.len() + encoder.envelope_bytes());
        let request: Json = serde_json::from_slice(&text).unwrap();
        prop_assert_eq!(request["rows"].as_array().unwrap().len(), rows.len());
        for (index, (_, value)) in rows.iter().enumerate() {
            prop_assert_eq!(&request["rows"][index]["json"]["v"], value);
            prop_assert_eq!(&request["rows"][index]["insertId"], &json!(format!("t-3-{index}")));
        }
    }
}
