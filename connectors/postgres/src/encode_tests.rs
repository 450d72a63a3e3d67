use proptest::prelude::*;
use serde_json::{Value as Json, json};
use txconnect_connector_api::{Number, Object};

use super::*;
use crate::plan::ColumnType;
use crate::row::{self, Fields};

/// Keeps the parts of a document alive for the length of a test.
fn document(value: &Json) -> Document<'static> {
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

fn number(literal: &'static str) -> Document<'static> {
    let value = Document::Number(Number::from_literal(literal));
    Document::Object(Object::new(Box::leak(Box::new([Member { name: "v", value }]))))
}

fn record<'a>(document: &'a Document<'a>) -> Record<'a> {
    Record {
        topic: "t",
        partition: 3,
        offset: 7,
        row: 0,
        timestamp: None,
        key: None,
        headers: &[],
        value: Value::Json { text: "", document },
    }
}

fn config(extra: &Json) -> PostgresConfig {
    let mut all = json!({ "url": "postgresql://localhost/db" });
    all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let config: PostgresConfig = serde_json::from_value(all).unwrap();
    assert_eq!(config.problems(), []);
    config
}

fn schema(properties: &Json, unknown: UnknownFields) -> TableSchema {
    let required: Vec<&str> = properties
        .as_object()
        .unwrap()
        .keys()
        .filter(|name| name.starts_with("must"))
        .map(String::as_str)
        .collect();
    let all = json!({ "properties": properties, "required": required });
    TableSchema::from_json_schema(&all, unknown).unwrap()
}

fn encoder_of(extra: &Json, properties: &Json, unknown: UnknownFields) -> RowEncoder {
    let (config, schema) = (config(extra), schema(properties, unknown));
    RowEncoder::new(&config, &schema, &TablePlan::new(&config, "t", &schema).unwrap()).unwrap()
}

fn encoder(properties: &Json) -> RowEncoder {
    encoder_of(&json!({}), properties, UnknownFields::DeadLetter)
}

/// An encoder for the one column `v` where the table has another type than the schema asks for.
fn encoder_into(property: &Json, column_type: ColumnType, second_digits: u8) -> RowEncoder {
    let (config, schema) = (config(&json!({})), schema(&json!({ "v": property }), UnknownFields::DeadLetter));
    let mut plan = TablePlan::new(&config, "t", &schema).unwrap();
    plan.columns[0].column_type = column_type;
    plan.columns[0].second_digits = second_digits;
    RowEncoder::new(&config, &schema, &plan).unwrap()
}

fn fields_of(tuple: &[u8]) -> Vec<Option<Vec<u8>>> {
    Fields::of(tuple).unwrap().map(|field| field.unwrap().map(<[u8]>::to_vec)).collect()
}

fn row_of(encoder: &mut RowEncoder, document: &Document<'_>) -> Result<Vec<Option<Vec<u8>>>, BadRecord> {
    let mut out = b"before".to_vec();
    assert_eq!(encoder.encode(&record(document), &mut out)?, Encoded::Row);
    Ok(fields_of(&out[6..]))
}

fn value_of(encoder: &mut RowEncoder, document: &Document<'_>) -> Result<Vec<u8>, BadRecord> {
    Ok(row_of(encoder, document)?.remove(0).unwrap())
}

fn everything() -> Json {
    json!({
        "must_id": { "type": "string", "format": "uuid" },
        "flag": { "type": "boolean" },
        "count": { "type": "integer" },
        "ratio": { "type": "number" },
        "amount": { "x-column": { "type": "numeric", "precision": 18, "scale": 2 } },
        "note": { "type": "string" },
        "raw": { "type": "string", "contentEncoding": "base64" },
        "day": { "type": "string", "format": "date" },
        "clock": { "type": "string", "format": "time" },
        "at": { "type": "string", "format": "date-time" },
        "since": { "type": "integer", "x-column": { "type": "timestamp", "unit": "ms", "name": "since_at" } },
        "extra": { "type": "object" },
        "tags": { "type": "array", "items": { "type": "string" } },
        "who": { "type": "object", "required": ["name"], "properties": {
            "name": { "type": "string" }, "age": { "type": "integer" },
            "secret": { "x-column": { "ignore": true } } } },
        "all": { "type": "array", "items": { "type": "object", "properties": {
            "n": { "type": "integer" }, "secret": { "x-column": { "ignore": true } } } } },
        "secret": { "x-column": { "ignore": true } }
    })
}

const ID: &str = "0B54aa00-1111-2222-3333-4444555566ff";

fn whole() -> Json {
    json!({
        "must_id": ID, "flag": true, "count": -2, "ratio": 0.5, "amount": "12.50", "note": "Zoë",
        "raw": "QUJD", "day": "2000-01-02", "clock": "00:00:01Z", "at": "2000-01-01T01:00:00+01:00",
        "since": 946_684_800_001_i64, "extra": { "a": [1, null, "\"x\""], "secret": 1 }, "tags": ["a", "b"],
        "who": { "name": "Zoë", "secret": "s", "odd": { "secret": 2 } },
        "all": [{ "n": 1, "secret": "s" }, { "secret": "s", "n": 2 }], "secret": 1
    })
}

#[test]
fn every_kind_of_value_has_its_binary_form() {
    let row = row_of(&mut encoder(&everything()), &document(&whole())).unwrap();
    let jsonb = |text: &str| [&[1], text.as_bytes()].concat();
    let expected = [
        vec![0x0b, 0x54, 0xaa, 0, 0x11, 0x11, 0x22, 0x22, 0x33, 0x33, 0x44, 0x44, 0x55, 0x55, 0x66, 0xff],
        vec![1],
        (-2_i64).to_be_bytes().to_vec(),
        0.5_f64.to_be_bytes().to_vec(),
        vec![0, 2, 0, 0, 0, 0, 0, 2, 0, 12, 0x13, 0x88],
        "Zoë".as_bytes().to_vec(),
        b"ABC".to_vec(),
        1_i32.to_be_bytes().to_vec(),
        1_000_000_i64.to_be_bytes().to_vec(),
        0_i64.to_be_bytes().to_vec(),
        1_000_i64.to_be_bytes().to_vec(),
        jsonb(r#"{"a":[1,null,"\"x\""],"secret":1}"#),
        jsonb(r#"["a","b"]"#),
        jsonb(r#"{"name":"Zoë","odd":{"secret":2}}"#),
        jsonb(r#"[{"n":1},{"n":2}]"#),
    ];
    assert_eq!(row, expected.map(Some));
}

#[test]
fn an_existing_column_gets_what_it_takes() {
    let integer = json!({ "type": "integer" });
    let text = json!({ "type": "string" });
    let uuid = json!({ "type": "string", "format": "uuid" });
    let at = json!({ "type": "string", "format": "date-time" });
    let decimal = json!({ "x-column": { "type": "numeric", "precision": 9, "scale": 0 } });
    let array = json!({ "type": "array", "items": { "type": "string" } });
    for (property, column_type, value, expected) in [
        (&integer, ColumnType::SmallInt, json!(-1), (-1_i16).to_be_bytes().to_vec()),
        (&integer, ColumnType::Integer, json!(7.0), 7_i32.to_be_bytes().to_vec()),
        (&integer, ColumnType::Double, json!(1_i64 << 53), 9_007_199_254_740_992_f64.to_be_bytes().to_vec()),
        (&integer, ColumnType::Real, json!(-3), (-3_f32).to_be_bytes().to_vec()),
        (&integer, ColumnType::Numeric(Some((5, 2))), json!(3), vec![0, 1, 0, 0, 0, 0, 0, 2, 0, 3]),
        (&decimal, ColumnType::Integer, json!("-12"), (-12_i32).to_be_bytes().to_vec()),
        (&text, ColumnType::Varchar(3), json!("äöü"), "äöü".as_bytes().to_vec()),
        (&text, ColumnType::Char(3), json!("ab     "), b"ab".to_vec()),
        (&text, ColumnType::Labelled("mood".to_owned()), json!("sad"), b"sad".to_vec()),
        (&text, ColumnType::Numeric(None), json!("1.0"), vec![0, 1, 0, 0, 0, 0, 0, 1, 0, 1]),
        (&text, ColumnType::Timestamp, json!("2000-01-01T00:00:00Z"), vec![0; 8]),
        (&text, ColumnType::Date, json!("2000-01-01"), vec![0; 4]),
        (&uuid, ColumnType::Text, json!(ID), ID.as_bytes().to_vec()),
        (&at, ColumnType::Timestamp, json!("2000-01-01T02:00:00+02:00"), vec![0; 8]),
        (&array, ColumnType::Json, json!(["a"]), br#"["a"]"#.to_vec()),
        (&array, ColumnType::Varchar(5), json!(["ä"]), r#"["ä"]"#.as_bytes().to_vec()),
    ] {
        let mut encoder = encoder_into(property, column_type.clone(), 6);
        let found = value_of(&mut encoder, &document(&json!({ "v": value })));
        assert_eq!(found.unwrap(), expected, "{column_type}");
    }
}

#[test]
fn nothing_is_rounded_or_cut_to_fit() {
    let integer = json!({ "type": "integer" });
    let float = json!({ "type": "number" });
    let text = json!({ "type": "string" });
    let money = json!({ "x-column": { "type": "numeric", "precision": 18, "scale": 2 } });
    let millis = json!({ "x-column": { "type": "timestamp", "unit": "ms" } });
    let class = |property: &Json, column_type: ColumnType, digits, document: &Document<'_>| {
        let bad = value_of(&mut encoder_into(property, column_type, digits), document).unwrap_err();
        assert_eq!(bad.path, "/v");
        bad.class
    };
    for (property, column_type, literal, expected) in [
        (&integer, ColumnType::SmallInt, "32768", "encode.out_of_range"),
        (&integer, ColumnType::Integer, "-2147483649", "encode.out_of_range"),
        (&integer, ColumnType::BigInt, "9223372036854775808", "encode.out_of_range"),
        (&integer, ColumnType::BigInt, "0.5", "encode.type"),
        (&integer, ColumnType::Double, "9007199254740993", "encode.inexact"),
        (&integer, ColumnType::Real, "16777217", "encode.inexact"),
        (&integer, ColumnType::Numeric(Some((5, 2))), "1000", "encode.out_of_range"),
        (&float, ColumnType::Real, "1e39", "encode.out_of_range"),
        (&float, ColumnType::Real, "1e-60", "encode.out_of_range"),
        (&float, ColumnType::Double, "1e-400", "encode.out_of_range"),
        (&money, ColumnType::Numeric(Some((10, 1))), "0.25", "encode.inexact"),
    ] {
        assert_eq!(class(property, column_type, 6, &number(literal)), expected, "{literal}");
    }
    let late = number("1763900000123");
    assert_eq!(class(&millis, ColumnType::TimestampTz, 0, &late), "encode.inexact");
    assert!(value_of(&mut encoder_into(&millis, ColumnType::TimestampTz, 3), &late).is_ok());
    for (column_type, value) in [(ColumnType::Varchar(3), "äöüß"), (ColumnType::Char(3), "abc d")] {
        assert_eq!(
            class(&text, column_type, 6, &document(&json!({ "v": value }))),
            "encode.too_long",
            "{value}"
        );
    }
    let free = json!({});
    assert_eq!(class(&free, ColumnType::Varchar(4), 6, &document(&json!({ "v": ["ä"] }))), "encode.too_long");
}

#[test]
fn the_order_of_members_does_not_matter() {
    let mut encoder = encoder(&everything());
    let expected = row_of(&mut encoder, &document(&whole())).unwrap();
    let Json::Object(members) = whole() else { panic!("an object") };
    let mut members: Vec<(String, Json)> = members.into_iter().collect();
    for _ in 0..members.len() {
        members.rotate_left(1);
        let rotated = Json::Object(members.iter().cloned().collect());
        assert_eq!(row_of(&mut encoder, &document(&rotated)).as_ref(), Ok(&expected));
    }
    members.reverse();
    let reversed = Json::Object(members.into_iter().collect());
    assert_eq!(row_of(&mut encoder, &document(&reversed)), Ok(expected));
}

#[test]
fn null_and_missing_fields_are_null_where_the_column_takes_it() {
    let mut encoder = encoder(&everything());
    for sparse in [
        json!({ "must_id": ID, "tags": null, "who": null, "extra": null, "flag": null }),
        json!({ "must_id": ID }),
    ] {
        let row = row_of(&mut encoder, &document(&sparse)).unwrap();
        assert!(row[0].is_some() && row[1..].iter().all(Option::is_none), "{row:?}");
        assert_eq!(row.len(), 15);
    }
    let late = row_of(&mut encoder, &document(&json!({ "must_id": ID, "who": {} }))).unwrap();
    assert_eq!(late.iter().filter(|field| field.is_some()).count(), 2);
    for (wrong, why) in
        [(json!({ "must_id": null }), "null"), (json!({}), "missing"), (json!({ "flag": true }), "missing")]
    {
        let bad = row_of(&mut encoder, &document(&wrong)).unwrap_err();
        assert_eq!((bad.path.as_str(), bad.class.as_ref()), ("/must_id", "encode.required"));
        assert!(bad.message.contains(why), "{}", bad.message);
    }
}

#[test]
fn every_bad_value_is_named_by_place_and_class_and_never_shown() {
    let mut encoder = encoder(&everything());
    for (field, value, path, class) in [
        ("must_id", json!("hunter2"), "/must_id", "encode.format"),
        ("must_id", json!("0b54aa00x1111-2222-3333-444455556666"), "/must_id", "encode.format"),
        ("must_id", json!("0b54aa00-1111-2222-3333-44445555666g"), "/must_id", "encode.format"),
        ("flag", json!("hunter2"), "/flag", "encode.type"),
        ("count", json!("hunter2"), "/count", "encode.type"),
        ("ratio", json!("hunter2"), "/ratio", "encode.type"),
        ("amount", json!("hunter2"), "/amount", "encode.format"),
        ("amount", json!("1e17"), "/amount", "encode.out_of_range"),
        ("amount", json!(0.125), "/amount", "encode.inexact"),
        ("note", json!(1), "/note", "encode.type"),
        ("note", json!("hunter2\u{0}"), "/note", "encode.nul"),
        ("raw", json!("hunter2!"), "/raw", "encode.format"),
        ("day", json!("hunter2"), "/day", "encode.format"),
        ("clock", json!("hunter2"), "/clock", "encode.format"),
        ("at", json!("hunter2"), "/at", "encode.format"),
        ("at", json!("2026-02-30T00:00:00Z"), "/at", "encode.out_of_range"),
        ("at", json!("2026-02-03T00:00:00.1234567Z"), "/at", "encode.inexact"),
        ("since", json!("hunter2"), "/since", "encode.type"),
        ("since", json!(i64::MAX), "/since", "encode.out_of_range"),
        ("extra", json!({ "a/b": ["x", { "c": "hunter2\u{0}" }] }), "/extra/a~1b/1/c", "encode.nul"),
        ("extra", json!({ "hunter2\u{0}": 1 }), "/extra", "encode.nul"),
        ("tags", json!(["a", "\u{0}"]), "/tags/1", "encode.nul"),
        ("hunter2/", json!(1), "/hunter2~1", "encode.unknown_field"),
    ] {
        let mut all = json!({ "must_id": ID });
        all[field] = value;
        let bad = row_of(&mut encoder, &document(&all)).unwrap_err();
        assert_eq!((bad.path.as_str(), bad.class.as_ref()), (path, class), "{all}");
        assert!(!bad.message.contains("hunter2"), "{}", bad.message);
    }
    assert_eq!(row_of(&mut encoder, &document(&json!([]))).unwrap_err().class, "encode.type");
    assert_eq!(row_of(&mut encoder, &Document::Null).unwrap_err().class, "encode.type");
}

#[test]
fn jsonb_keeps_the_numbers_that_numeric_keeps() {
    let mut encoder = encoder(&json!({ "v": {} }));
    for literal in ["1e300", "0.10", "-0", "1e-16383", "123456789012345678901234567890"] {
        let expected = [&[1], literal.as_bytes()].concat();
        assert_eq!(value_of(&mut encoder, &number(literal)), Ok(expected), "{literal}");
    }
    for literal in ["1e-16384", "0e-20000", "1.0e-16383"] {
        let bad = value_of(&mut encoder, &number(literal)).unwrap_err();
        assert_eq!((bad.path.as_str(), bad.class.as_ref()), ("/v", "encode.out_of_range"), "{literal}");
    }
}

#[test]
fn unknown_fields_are_counted_once_where_the_schema_says_so() {
    let mut encoder = encoder_of(&json!({}), &everything(), UnknownFields::Ignore);
    let expected = row_of(&mut encoder, &document(&json!({ "must_id": ID, "flag": true })));
    for odd in [
        json!({ "odd": 1, "must_id": ID, "odder": 2, "flag": true }),
        json!({ "odd": 1, "flag": true, "must_id": ID, "odder": 2 }),
    ] {
        let before = encoder.ignored_fields();
        assert_eq!(row_of(&mut encoder, &document(&odd)), expected);
        assert_eq!(encoder.ignored_fields() - before, 2);
    }
}

fn keyed() -> Json {
    json!({
        "name": { "type": "string" },
        "n": { "type": "integer", "x-column": { "name": "number" } },
        "v": { "type": "number" }
    })
}

#[test]
fn rows_with_a_key_begin_with_what_they_do() {
    let upsert = json!({ "write": "upsert", "key": ["n", "name"], "delete_on_tombstone": true });
    let mut encoder = encoder_of(&upsert, &keyed(), UnknownFields::DeadLetter);
    let mut out = Vec::new();
    let put = document(&json!({ "name": "a", "n": 5, "v": null }));
    assert_eq!(encoder.encode(&record(&put), &mut out), Ok(Encoded::Row));
    let (operation, tuple) = row::operation(&out).unwrap();
    let (a, five) = (Some(b"a".to_vec()), Some(5_i64.to_be_bytes().to_vec()));
    assert_eq!((operation, fields_of(tuple)), (Operation::Put, vec![a.clone(), five.clone(), None]));

    let delete =
        Record { value: Value::Tombstone, key: Some(br#"{"n": 5.0, "name": "a", "v": 1}"#), ..record(&put) };
    out.clear();
    assert_eq!(encoder.encode(&delete, &mut out), Ok(Encoded::Row));
    let (operation, tuple) = row::operation(&out).unwrap();
    assert_eq!((operation, fields_of(tuple)), (Operation::Delete, vec![a, five, None]));

    for key in [None, Some(&b"5"[..]), Some(br#"{"n": 5}"#), Some(br#"{"n": "hunter2", "name": "a"}"#)] {
        let bad = encoder.encode(&Record { key, ..delete }, &mut out).unwrap_err();
        assert_eq!(bad.class, "encode.key");
        assert!(!bad.message.contains("hunter2"), "{}", bad.message);
    }
    let missing = document(&json!({ "name": "a", "v": 1 }));
    assert_eq!(encoder.encode(&record(&missing), &mut out).unwrap_err().path, "/n");
}

#[test]
fn a_plain_key_is_read_as_the_type_of_its_column() {
    let nothing = Document::Null;
    for (column, property, key, expected) in [
        ("n", json!({ "type": "integer" }), &b"-7"[..], Some((-7_i64).to_be_bytes().to_vec())),
        ("n", json!({ "type": "string" }), b"-7", Some(b"-7".to_vec())),
        ("n", json!({ "type": "boolean" }), b"true", Some(vec![1])),
        (
            "n",
            json!({ "x-column": { "type": "timestamp", "unit": "ms" } }),
            b"946684800000",
            Some(vec![0; 8]),
        ),
        (
            "n",
            json!({ "x-column": { "type": "numeric", "precision": 9, "scale": 2 } }),
            b"0.00",
            Some(vec![0, 0, 0, 0, 0, 0, 0, 2]),
        ),
        ("n", json!({ "type": "string", "format": "date" }), b"2000-01-01", Some(vec![0; 4])),
        ("n", json!({ "type": "integer" }), b"x", None),
        ("n", json!({ "type": "integer" }), b"\xff", None),
        ("n", json!({ "type": "boolean" }), b"yes", None),
    ] {
        let upsert = json!({ "write": "upsert", "key": [column], "delete_on_tombstone": true, "key_decode": "string" });
        let properties = json!({ column: property, "v": { "type": "number" } });
        let mut encoder = encoder_of(&upsert, &properties, UnknownFields::DeadLetter);
        let mut out = Vec::new();
        let delete = Record { value: Value::Tombstone, key: Some(key), ..record(&nothing) };
        match (encoder.encode(&delete, &mut out), expected) {
            (Ok(_), Some(expected)) => assert_eq!(fields_of(&out[1..]), [Some(expected), None]),
            (Err(bad), None) => assert_eq!(bad.class, "encode.key"),
            (found, expected) => panic!("{found:?}, not {expected:?} for {property}"),
        }
    }
}

#[test]
fn a_tombstone_makes_no_row_elsewhere_and_text_is_a_bad_record() {
    let nothing = Document::Null;
    let mut out = Vec::new();
    for extra in [json!({}), json!({ "write": "upsert", "key": ["n"] })] {
        let mut encoder = encoder_of(&extra, &keyed(), UnknownFields::DeadLetter);
        let tombstone = Record { value: Value::Tombstone, key: Some(b"5"), ..record(&nothing) };
        assert_eq!(encoder.encode(&tombstone, &mut out), Ok(Encoded::Filtered));
        assert_eq!(out, b"");
        let text = Record { value: Value::Text("x"), ..record(&nothing) };
        assert_eq!(encoder.encode(&text, &mut out).unwrap_err().class, "encode.not_json");
    }
}

#[test]
fn equal_decimals_of_a_key_have_equal_bytes() {
    let upsert = json!({ "write": "upsert", "key": ["v"] });
    let (config, schema) = (
        config(&upsert),
        schema(
            &json!({ "v": { "x-column": { "type": "numeric", "precision": 9, "scale": 2 } } }),
            UnknownFields::DeadLetter,
        ),
    );
    for limits in [Some((9, 2)), None] {
        let mut plan = TablePlan::new(&config, "t", &schema).unwrap();
        plan.columns[0].column_type = ColumnType::Numeric(limits);
        let mut encoder = RowEncoder::new(&config, &schema, &plan).unwrap();
        let mut rows = ["1.5", "1.50", "15e-1", "0.15e1"].map(|literal| {
            let mut out = Vec::new();
            encoder.encode(&record(&number(literal)), &mut out).unwrap();
            out
        });
        rows.rotate_left(1);
        assert!(rows.iter().all(|row| *row == rows[0]), "{limits:?}");
    }
}

#[test]
fn a_plan_of_another_schema_is_refused() {
    let (config, schema) = (config(&json!({})), schema(&keyed(), UnknownFields::DeadLetter));
    let mut plan = TablePlan::new(&config, "t", &schema).unwrap();
    plan.columns[0].column_type = ColumnType::Boolean;
    plan.columns.pop();
    assert_eq!(RowEncoder::new(&config, &schema, &plan).map(|_| ()).unwrap_err().len(), 2);

    let with = self::config(&json!({ "kafka_columns": ["offset"] }));
    let mut plan = TablePlan::new(&with, "t", &schema).unwrap();
    plan.columns.swap_remove(0);
    assert_eq!(RowEncoder::new(&config, &schema, &plan).map(|_| ()).unwrap_err().len(), 2);
    let mut plan = TablePlan::new(&with, "t", &schema).unwrap();
    plan.columns[3].column_type = ColumnType::Integer;
    assert_eq!(RowEncoder::new(&config, &schema, &plan).map(|_| ()).unwrap_err().len(), 1);
}

#[test]
fn coordinates_stand_behind_the_fields_however_the_members_come() {
    let all = json!({ "kafka_columns": ["offset", "topic", "timestamp", "partition"] });
    let properties = json!({ "must_a": { "type": "integer" }, "must_b": { "type": "boolean" } });
    let mut encoder = encoder_of(&all, &properties, UnknownFields::DeadLetter);
    let eight = |value: i64| Some(value.to_be_bytes().to_vec());
    let behind = [eight(7), Some(b"t".to_vec()), None, Some(3_i32.to_be_bytes().to_vec())];
    let expected = [vec![eight(5), Some(vec![1])], behind.to_vec()].concat();
    for members in [json!({ "must_a": 5, "must_b": true }), json!({ "must_b": true, "must_a": 5 })] {
        assert_eq!(row_of(&mut encoder, &document(&members)).unwrap(), expected);
    }
}

#[test]
fn a_deletion_has_its_time_where_that_tells_the_newer_row() {
    let nothing = Document::Null;
    let key = Some(&b"5"[..]);
    let delete =
        Record { value: Value::Tombstone, key, timestamp: Some(946_684_800_000), ..record(&nothing) };
    for (newest_by, age) in [("timestamp", Some(vec![0; 8])), ("offset", None), ("v", None)] {
        let upsert = json!({ "write": "upsert", "key": ["n"], "delete_on_tombstone": true,
            "newest_by": newest_by, "kafka_columns": ["topic", "timestamp"] });
        let properties = json!({ "v": { "type": "integer" }, "n": { "type": "integer" } });
        let mut encoder = encoder_of(&upsert, &properties, UnknownFields::DeadLetter);
        let mut out = Vec::new();
        assert_eq!(encoder.encode(&delete, &mut out), Ok(Encoded::Row));
        let (operation, tuple) = row::operation(&out).unwrap();
        let five = Some(5_i64.to_be_bytes().to_vec());
        assert_eq!((operation, fields_of(tuple)), (Operation::Delete, vec![None, five, None, age]));
    }
}

/// A value of any kind, with the property that asks for it.
fn any_value() -> impl Strategy<Value = (Json, Json)> {
    let text = "[\\x00-\\x7fäß€😀]{0,12}";
    let leaf = prop_oneof![
        any::<bool>().prop_map(|value| (json!({ "type": "boolean" }), json!(value))),
        any::<i64>().prop_map(|value| (json!({ "type": "integer" }), json!(value))),
        // serde_json reads only some doubles back exactly; these are among them.
        any::<i32>().prop_map(|value| (json!({ "type": "number" }), json!(f64::from(value) / 8.0))),
        text.prop_map(|value| (json!({ "type": "string" }), json!(value))),
        text.prop_map(|value| (json!({ "type": "string", "format": "uuid" }), json!(value))),
        text.prop_map(|value| (json!({ "type": "string", "contentEncoding": "base64" }), json!(value))),
        prop::collection::vec(text, 0..3)
            .prop_map(|value| (json!({ "type": "array", "items": { "type": "string" } }), json!(value))),
        Just((json!({ "type": "string", "format": "date" }), json!(null))),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop::collection::btree_map("[a-z\"\\\\é]{1,5}", inner, 1..4).prop_map(|members| {
            let types: Json = members.iter().map(|(name, (kind, _))| (name.clone(), kind.clone())).collect();
            let values: Json = members.into_iter().map(|(name, (_, value))| (name, value)).collect();
            (json!({ "type": "object", "properties": types }), values)
        })
    })
}

/// A record of any form, most of whose fields are what the columns of [`everything`] take.
fn any_record() -> impl Strategy<Value = Json> {
    let names: Vec<String> =
        everything().as_object().unwrap().keys().cloned().chain(["other".to_owned()]).collect();
    let fields = prop::collection::vec((0..12, any_value()), names.len());
    let object = (fields, any::<bool>()).prop_map(move |(fields, wrong)| {
        let whole = whole();
        let fields = names.iter().zip(fields).filter_map(|(name, (choice, (_, any)))| match choice {
            0 => None,
            1 => Some((name.clone(), Json::Null)),
            2 if wrong => Some((name.clone(), any)),
            _ => Some((name.clone(), whole[name].clone())),
        });
        fields.collect::<Json>()
    });
    prop_oneof![9 => object, 1 => any_value().prop_map(|(_, value)| value)]
}

/// A value of the wire form as JSON again, for the kinds whose JSON form is one.
fn back(property: &Json, bytes: &[u8]) -> Json {
    match (property["type"].as_str().unwrap(), property.get("format"), property.get("contentEncoding")) {
        ("boolean", ..) => json!(bytes == [1]),
        ("integer", ..) => json!(i64::from_be_bytes(bytes.try_into().unwrap())),
        ("number", ..) => json!(f64::from_be_bytes(bytes.try_into().unwrap())),
        ("string", None, None) => json!(std::str::from_utf8(bytes).unwrap()),
        ("array" | "object", ..) => {
            assert_eq!(bytes[0], 1);
            serde_json::from_slice(&bytes[1..]).unwrap()
        }
        other => panic!("{other:?} is not compared"),
    }
}

fn holds_nul(value: &Json) -> bool {
    match value {
        Json::String(text) => text.contains('\0'),
        Json::Array(elements) => elements.iter().any(holds_nul),
        Json::Object(members) => members.values().any(holds_nul),
        _ => false,
    }
}

proptest! {
    #[test]
    fn what_is_encoded_reads_back_the_same(values in prop::collection::vec(any_value(), 1..6), turn in 0_usize..6) {
        let name = |index: usize| format!("c{index}");
        let properties: Json =
            values.iter().enumerate().map(|(index, (property, _))| (name(index), property.clone())).collect();
        let mut members: Vec<(String, Json)> =
            values.iter().enumerate().map(|(index, (_, value))| (name(index), value.clone())).collect();
        members.rotate_left(turn % values.len());
        let record = Json::Object(members.into_iter().collect());
        let row = match row_of(&mut encoder(&properties), &document(&record)) {
            Ok(row) => row,
            Err(bad) => {
                prop_assert!(bad.class.starts_with("encode."));
                let bad_text = values.iter().any(|(property, value)| {
                    holds_nul(value) || property.get("format").is_some() || property.get("contentEncoding").is_some()
                });
                prop_assert!(bad_text, "{} {}", bad, record);
                return Ok(());
            }
        };
        prop_assert_eq!(row.len(), values.len());
        for ((property, value), field) in values.iter().zip(row) {
            match field {
                None => prop_assert!(value.is_null()),
                Some(_) if property.get("format").is_some() || property.get("contentEncoding").is_some() => {}
                Some(bytes) => prop_assert_eq!(&back(property, &bytes), value),
            }
        }
    }

    #[test]
    fn a_record_that_nothing_has_validated_is_a_row_or_a_bad_record(
        value in any_record(), text in any::<String>(), kind in 0..4, row in any::<u32>()
    ) {
        let document = document(&value);
        let value_of_record = match kind {
            0 => Value::Text(&text),
            1 => Value::Bytes(text.as_bytes()),
            _ => Value::Json { text: "", document: &document },
        };
        for extra in [json!({}), json!({ "write": "upsert", "key": ["must_id"] })] {
            let mut encoder = encoder_of(&extra, &everything(), UnknownFields::Ignore);
            let mut out = Vec::new();
            match encoder.encode(&Record { row, value: value_of_record, ..record(&document) }, &mut out) {
                Ok(encoded) => {
                    prop_assert_eq!(encoded, Encoded::Row);
                    prop_assert!(value["must_id"].is_string(), "what is required is there");
                    let operation = usize::from(extra != json!({}));
                    prop_assert_eq!(fields_of(&out[operation..]).len(), everything().as_object().unwrap().len() - 1);
                }
                Err(bad) => prop_assert!(bad.class.starts_with("encode."), "{bad:?}"),
            }
        }
    }

    #[test]
    fn nothing_that_follows_json_makes_the_encoder_panic(values in prop::collection::vec(any_value(), 15), turn in 0_usize..15) {
        let properties = everything();
        let mut names: Vec<&String> = properties.as_object().unwrap().keys().collect();
        names.rotate_left(turn);
        let record: Json = names.into_iter().cloned().zip(values.into_iter().map(|(_, value)| value)).collect();
        if let Err(bad) = row_of(&mut encoder(&properties), &document(&record)) {
            prop_assert!(bad.class.starts_with("encode."));
        }
    }
}
