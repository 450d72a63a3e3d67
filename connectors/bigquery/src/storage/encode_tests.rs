use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use prost::encoding::{DecodeContext, WireType as Wire, decode_key, decode_varint, skip_field};
use prost_types::DescriptorProto;
use prost_types::field_descriptor_proto::{Label, Type};
use serde_json::{Map, Value as Json, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime, UtcOffset};
use txconnect_connector_api::schema::UnknownFields;
use txconnect_connector_api::{Document, Value};

use super::*;
use crate::encode::RowEncoder;
use crate::samples::{any_json, bad_values, config, document, everything, member, record, schema};

/// An encoder and what a reader of its rows knows.
struct Table {
    encoder: StorageEncoder,
    descriptor: DescriptorProto,
}

impl Table {
    fn new(extra: &Json, properties: &Json) -> Self {
        Self::with(extra, properties, UnknownFields::DeadLetter)
    }

    fn with(extra: &Json, properties: &Json, unknown: UnknownFields) -> Self {
        let config = config(extra);
        assert_eq!(config.problems(), []);
        let schema = schema(properties, unknown);
        let plan = TablePlan::new(&config, &schema).unwrap();
        let descriptor = row_descriptor(&plan, &config);
        Self { encoder: StorageEncoder::new(&config, "t", &schema), descriptor }
    }

    fn row(&mut self, record: &Record<'_>) -> Result<Json, BadRecord> {
        let mut out = b"before".to_vec();
        assert_eq!(self.encoder.encode(record, &mut out)?, Encoded::Row);
        let rows = rows_of(&out[6..]);
        let [row] = &rows[..] else { panic!("one row") };
        Ok(Json::Object(decode(&self.descriptor, &self.descriptor, row)))
    }

    fn row_of(&mut self, document: &Document<'_>) -> Result<Json, BadRecord> {
        self.row(&record("t", 7, document))
    }
}

/// The elements of a `ProtoRows` message.
fn rows_of(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut rows = Vec::new();
    while !bytes.is_empty() {
        assert_eq!(decode_key(&mut bytes).unwrap(), (1, Wire::LengthDelimited));
        rows.push(take(&mut bytes));
    }
    rows
}

fn take<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let length = usize::try_from(decode_varint(bytes).unwrap()).unwrap();
    let (taken, rest) = bytes.split_at(length);
    *bytes = rest;
    taken
}

/// Reads a message as its descriptor says: bytes become base64.
fn decode(root: &DescriptorProto, message: &DescriptorProto, mut bytes: &[u8]) -> Map<String, Json> {
    let mut fields = Map::new();
    while !bytes.is_empty() {
        let (number, wire) = decode_key(&mut bytes).unwrap();
        let field = message.field.iter().find(|field| field.number() == number.cast_signed()).unwrap();
        let expected = match field.r#type() {
            Type::Bool | Type::Int32 | Type::Int64 => Wire::Varint,
            Type::Double => Wire::SixtyFourBit,
            _ => Wire::LengthDelimited,
        };
        assert_eq!(wire, expected, "{}", field.name());
        let mut probe = bytes;
        skip_field(wire, number, &mut probe, DecodeContext::default()).unwrap();
        let value = match field.r#type() {
            Type::Bool => json!(decode_varint(&mut bytes).unwrap() != 0),
            Type::Int32 => {
                json!(i32::try_from(decode_varint(&mut bytes).unwrap().cast_signed()).unwrap())
            }
            Type::Int64 => json!(decode_varint(&mut bytes).unwrap().cast_signed()),
            Type::Double => {
                let (number, rest) = bytes.split_first_chunk::<8>().unwrap();
                bytes = rest;
                json!(f64::from_le_bytes(*number))
            }
            Type::Bytes => json!(STANDARD.encode(take(&mut bytes))),
            Type::String => json!(std::str::from_utf8(take(&mut bytes)).unwrap()),
            Type::Message => {
                let nested = root.nested_type.iter().find(|nested| nested.name() == field.type_name());
                Json::Object(decode(root, nested.unwrap(), take(&mut bytes)))
            }
            other => panic!("no column is {other:?}"),
        };
        assert_eq!(bytes, probe, "a value ends where protobuf says that it ends");
        if field.label() == Label::Repeated {
            let all = fields.entry(field.name()).or_insert_with(|| json!([]));
            all.as_array_mut().unwrap().push(value);
        } else {
            assert_eq!(fields.insert(field.name().to_owned(), value), None, "a field occurs once");
        }
    }
    fields
}

#[test]
fn a_row_has_the_columns_of_the_table() {
    let mut table = Table::new(&json!({}), &everything());
    let document = document(&json!({
        "must_id": "0b54", "flag": true, "count": -1, "ratio": 0.5, "amount": "12.50", "raw": "QUJD",
        "day": "2026-11-23", "clock": "12:30:00Z", "at": "2026-11-23T12:30:00+01:00",
        "since": 1_763_900_000_123_i64, "extra": { "a": [1, null, "\"x\""] }, "tags": ["a", "b"],
        "who": { "name": "Zoë", "age": null }, "secret": 1
    }));
    assert_eq!(
        table.row_of(&document),
        Ok(json!({
            "must_id": "0b54", "flag": true, "count": -1, "ratio": 0.5, "amount": "12.50", "raw": "QUJD",
            "day": 20_780, "clock": "12:30:00", "at": 1_795_433_400_000_000_i64,
            "since_at": 1_763_900_000_123_000_i64, "extra": r#"{"a":[1,null,"\"x\""]}"#, "tags": ["a", "b"],
            "who": { "name": "Zoë" }
        }))
    );
}

#[test]
fn a_row_is_an_element_of_the_message_of_rows() {
    let mut table = Table::new(&json!({}), &json!({ "s": { "type": "string" } }));
    let mut out = Vec::new();
    for text in ["a".to_owned(), String::new(), "x".repeat(200), "b".to_owned()] {
        let document = document(&json!({ "s": text }));
        table.encoder.encode(&record("t", 7, &document), &mut out).unwrap();
    }
    assert_eq!(out[..5], [0x0a, 3, 0x0a, 1, b'a']);
    let lengths: Vec<usize> = rows_of(&out).iter().map(|row| row.len()).collect();
    assert_eq!(lengths, [3, 2, 203, 3]);
    let empty = document(&json!({}));
    assert_eq!(table.row_of(&empty), Ok(json!({})));
}

#[test]
fn every_bad_value_is_named_by_place_and_class_and_never_shown() {
    let mut table = Table::new(&json!({}), &everything());
    for (field, value, path, class) in bad_values() {
        let mut all = json!({ "must_id": "x" });
        all[field] = value;
        let bad = table.row_of(&document(&all)).unwrap_err();
        assert_eq!((bad.path.as_str(), bad.class.as_ref()), (path, class), "{all}");
        assert!(!bad.message.contains("hunter2"), "{}", bad.message);
    }
    assert_eq!(table.row_of(&document(&json!({}))).unwrap_err().path, "/must_id");
    assert_eq!(table.row_of(&document(&json!([]))).unwrap_err().class, "encode.type");
}

#[test]
fn null_and_missing_optional_fields_are_left_out() {
    let mut table = Table::new(&json!({}), &everything());
    let sparse = document(&json!({ "must_id": "x", "tags": null, "who": null, "extra": null, "flag": null }));
    assert_eq!(table.row_of(&sparse), Ok(json!({ "must_id": "x" })));
    let empty = document(&json!({ "must_id": "x", "tags": [], "who": { "name": "" } }));
    assert_eq!(table.row_of(&empty), Ok(json!({ "must_id": "x", "who": { "name": "" } })));
}

#[test]
fn unknown_fields_are_counted_where_the_schema_says_so() {
    let mut table = Table::with(&json!({}), &everything(), UnknownFields::Ignore);
    let odd = document(&json!({ "odd": 1, "must_id": "x", "who": { "name": "n", "odd": 2 } }));
    assert_eq!(table.row_of(&odd), Ok(json!({ "must_id": "x", "who": { "name": "n" } })));
    assert_eq!(table.encoder.ignored_fields(), 2);
}

#[test]
fn columns_that_kafka_fills_have_the_coordinates_of_the_record() {
    let mut table = Table::new(
        &json!({ "kafka_columns": ["timestamp", "offset", "topic", "partition"] }),
        &json!({ "s": { "type": "string" } }),
    );
    let value = document(&json!({ "s": "x" }));
    let at = Record { timestamp: Some(1_763_900_000_123), ..record("source", 42, &value) };
    assert_eq!(
        table.row(&at),
        Ok(json!({
            "s": "x", "_kafka_timestamp": 1_763_900_000_123_000_i64, "_kafka_offset": 42,
            "_kafka_topic": "source", "_kafka_partition": 3
        }))
    );
    let untimed = table.row(&Record { timestamp: None, ..at }).unwrap();
    assert_eq!(untimed.get("_kafka_timestamp"), None);
    let bad = table.row(&Record { timestamp: Some(i64::MAX), ..at }).unwrap_err();
    assert_eq!((bad.path.as_str(), bad.class.as_ref()), ("", "encode.out_of_range"));
}

fn upsert(extra: &Json) -> Json {
    let mut all = json!({ "write": "upsert", "key": ["must_id"] });
    all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    all
}

#[test]
fn a_row_that_is_put_says_so_and_has_its_place_in_the_order() {
    let properties =
        json!({ "must_id": { "type": "string" }, "at": { "type": "string", "format": "date-time" } });
    for (newest_by, number) in [("offset", "3/7"), ("timestamp", "65/3/7"), ("at", "DCBFFEFF2BC001/3/7")] {
        let mut table = Table::new(&upsert(&json!({ "newest_by": newest_by })), &properties);
        let value = document(&json!({ "must_id": "x", "at": "1970-01-01T00:00:00Z" }));
        let record = Record { timestamp: Some(100), ..record("t", 7, &value) };
        assert_eq!(
            table.row(&record),
            Ok(json!({
                "must_id": "x", "at": 0, "_CHANGE_TYPE": "UPSERT", "_CHANGE_SEQUENCE_NUMBER": number
            }))
        );
        let further = table.row(&Record { row: 11, ..record }).unwrap();
        assert_eq!(further["_CHANGE_SEQUENCE_NUMBER"], format!("{number}/B"));
    }
    let mut table = Table::new(&upsert(&json!({ "newest_by": "at" })), &properties);
    let null = table.row_of(&document(&json!({ "at": null, "must_id": "x" }))).unwrap();
    assert_eq!(null["_CHANGE_SEQUENCE_NUMBER"], "0/3/7");
}

#[test]
fn a_key_is_never_missing() {
    let properties = json!({ "id": { "type": "string" }, "n": { "type": "integer" } });
    let mut table = Table::new(&json!({ "write": "upsert", "key": ["id"] }), &properties);
    for value in [json!({ "n": 1 }), json!({ "n": 1, "id": null })] {
        let bad = table.row_of(&document(&value)).unwrap_err();
        assert_eq!((bad.path.as_str(), bad.class.as_ref()), ("/id", "encode.required"));
    }
}

#[test]
fn a_tombstone_deletes_by_the_records_key_where_it_is_asked_to() {
    let properties = json!({ "must_id": { "type": "integer" }, "must_n": { "type": "integer" } });
    let deletes = upsert(&json!({ "delete_on_tombstone": true, "kafka_columns": ["offset"] }));
    let mut table = Table::new(&deletes, &properties);
    let nothing = Document::Null;
    let tombstone = |key| Record { value: Value::Tombstone, key, ..record("t", 7, &nothing) };
    let expected = json!({
        "must_id": 17, "_kafka_offset": 7, "_CHANGE_TYPE": "DELETE", "_CHANGE_SEQUENCE_NUMBER": "3/7"
    });
    assert_eq!(table.row(&tombstone(Some(br#"{"must_id": 17, "other": 1}"#))), Ok(expected.clone()));
    assert_eq!(table.row(&tombstone(Some(b"17"))).unwrap()["must_id"], 17);
    for key in [None, Some(&b"{}"[..]), Some(b"\"hunter2\""), Some(b"0.5"), Some(b"\xff")] {
        let bad = table.row(&tombstone(key)).unwrap_err();
        assert_eq!((bad.path.as_str(), bad.class.as_ref()), ("", "encode.key"));
        assert!(!bad.message.contains("hunter2"), "{}", bad.message);
    }
    let text = upsert(&json!({ "delete_on_tombstone": true, "key_decode": "string" }));
    let mut table = Table::new(&text, &properties);
    assert_eq!(table.row(&tombstone(Some(b"17"))).unwrap()["must_id"], 17);
    // A record with a value still needs all that the schema requires.
    let bad = table.row_of(&member("must_id", "1")).unwrap_err();
    assert_eq!((bad.path.as_str(), bad.class.as_ref()), ("/must_n", "encode.required"));
}

#[test]
fn a_tombstone_is_filtered_otherwise_and_text_is_a_bad_record() {
    let nothing = Document::Null;
    for extra in [json!({}), upsert(&json!({}))] {
        let mut table = Table::new(&extra, &everything());
        let mut out = b"before".to_vec();
        let tombstone = Record { value: Value::Tombstone, key: Some(b"1"), ..record("t", 1, &nothing) };
        assert_eq!(table.encoder.encode(&tombstone, &mut out), Ok(Encoded::Filtered));
        assert_eq!(out, b"before");
        let text = Record { value: Value::Text("x"), ..record("t", 1, &nothing) };
        assert_eq!(table.encoder.encode(&text, &mut out).unwrap_err().class, "encode.not_json");
    }
}

#[test]
fn a_row_beyond_the_request_limit_is_a_bad_record() {
    let mut table = Table::new(&json!({}), &json!({ "s": { "type": "string" } }));
    let most = MAX_REQUEST_BYTES - table.encoder.envelope_bytes();
    // Two tags and two lengths of four bytes.
    let mut encode = |length: usize| {
        let text = "x".repeat(length);
        let mut out = Vec::new();
        let members = [txconnect_connector_api::Member { name: "s", value: Document::String(&text) }];
        let document = Document::Object(Object::new(&members));
        table.encoder.encode(&record("t", 7, &document), &mut out).map(|_| out.len())
    };
    assert_eq!(encode(most - 10), Ok(most));
    assert_eq!(encode(most - 9).unwrap_err().class, "encode.too_large");
}

#[test]
fn the_envelope_has_room_for_the_schema_and_the_names() {
    let many = (0..300).map(|number| (format!("column_{number}"), json!({ "type": "integer" })));
    let table = Table::new(&json!({}), &Json::Object(many.collect()));
    let names = "projects/p/datasets/d/tables/t/streams/".len() + 300;
    assert!(table.encoder.envelope_bytes() >= table.descriptor.encoded_len() + names);
}

/// A property, a value that its column takes, and the value that BigQuery is sent.
fn any_value() -> impl Strategy<Value = (Json, Json, Json)> {
    let leaf = any_leaf();
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            // An array of one kind of value: the same value many times.
            (any_leaf().prop_filter("a kind of its own", is_kind_of_items), 1..4_usize).prop_map(
                |((kind, value, sent), count)| {
                    (
                        json!({ "type": "array", "items": kind }),
                        json!(vec![value; count]),
                        json!(vec![sent; count]),
                    )
                }
            ),
            prop::collection::btree_map("[a-z_]{1,4}", inner, 1..5).prop_map(|members| {
                let part = |pick: fn(&(Json, Json, Json)) -> &Json| -> Json {
                    members.iter().map(|(name, member)| (name.clone(), pick(member).clone())).collect()
                };
                (
                    json!({ "type": "object", "properties": part(|member| &member.0) }),
                    part(|member| &member.1),
                    part(|member| &member.2),
                )
            }),
        ]
    })
}

/// Annotations count for properties only, and arrays of anything are JSON.
fn is_kind_of_items((kind, ..): &(Json, Json, Json)) -> bool {
    kind.get("type").is_some() && kind.get("x-column").is_none()
}

fn any_leaf() -> impl Strategy<Value = (Json, Json, Json)> {
    let same = |kind: Json| move |value: Json| (kind.clone(), value.clone(), value);
    let instant = -62_135_596_800_000_000..253_402_300_800_000_000_i64;
    prop_oneof![
        any::<bool>().prop_map(Json::from).prop_map(same(json!({ "type": "boolean" }))),
        any::<i64>().prop_map(Json::from).prop_map(same(json!({ "type": "integer" }))),
        (proptest::num::f64::NORMAL | proptest::num::f64::ZERO)
            .prop_map(Json::from)
            .prop_map(same(json!({ "type": "number" }))),
        "[\\x00-\\x7fäß€😀]{0,200}".prop_map(Json::from).prop_map(same(json!({ "type": "string" }))),
        "-?(0|[1-9][0-9]{0,15})(\\.[0-9]{1,2})?"
            .prop_map(Json::from)
            .prop_map(same(json!({ "x-column": { "type": "numeric", "precision": 18, "scale": 2 } }))),
        prop::collection::vec(any::<u8>(), 0..200)
            .prop_map(|bytes| Json::from(STANDARD.encode(bytes)))
            .prop_map(same(json!({ "type": "string", "contentEncoding": "base64" }))),
        (-719_162..=2_932_896_i64).prop_map(|days| {
            let date = (OffsetDateTime::UNIX_EPOCH + Duration::days(days)).date();
            (json!({ "type": "string", "format": "date" }), json!(date.to_string()), json!(days))
        }),
        (0..86_400_000_000_i64).prop_map(|micros| {
            let second = micros / 1_000_000;
            let clock = format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
            let text = format!("{clock}.{:06}", micros % 1_000_000);
            let sent = if micros % 1_000_000 == 0 { clock } else { text.clone() };
            (json!({ "type": "string", "format": "time" }), json!(text), json!(sent))
        }),
        (instant.clone(), -12..13_i8).prop_filter_map("a year of four digits", |(micros, hours)| {
            let zone = UtcOffset::from_hms(hours, 0, 0).unwrap();
            let time = OffsetDateTime::UNIX_EPOCH + Duration::microseconds(micros);
            let text = time.checked_to_offset(zone)?.format(&Rfc3339).ok()?;
            (!text.starts_with("0000"))
                .then(|| (json!({ "type": "string", "format": "date-time" }), json!(text), json!(micros)))
        }),
        instant.prop_map(|micros| {
            let kind = json!({ "type": "integer", "x-column": { "type": "timestamp", "unit": "ms" } });
            let milliseconds = micros.div_euclid(1_000);
            (kind, json!(milliseconds), json!(milliseconds * 1_000))
        }),
        any_kept_json().prop_map(|value| {
            let mut text = Vec::new();
            document(&value).write_json(&mut text);
            (json!({}), value, json!(String::from_utf8(text).unwrap()))
        }),
    ]
}

/// What a JSON column takes; null has a meaning of its own.
fn any_kept_json() -> impl Strategy<Value = Json> {
    any_json().prop_filter("null is no value", |value| !value.is_null())
}

proptest! {
    #[test]
    fn what_is_encoded_reads_back_the_same(
        values in prop::collection::btree_map("[a-z_]{1,4}", any_value(), 1..8), kafka in any::<bool>()
    ) {
        let part = |pick: fn(&(Json, Json, Json)) -> &Json| -> Json {
            values.iter().map(|(name, value)| (name.clone(), pick(value).clone())).collect()
        };
        let mut extra = json!({});
        let mut sent = part(|value| &value.2);
        if kafka {
            extra["kafka_columns"] = json!(["offset"]);
            sent["_kafka_offset"] = json!(7);
        }
        let mut table = Table::new(&extra, &part(|value| &value.0));
        let value = document(&part(|value| &value.1));
        prop_assert_eq!(table.row_of(&value), Ok(sent.clone()));
        // The lengths of the rows before have no influence.
        prop_assert_eq!(table.row_of(&value), Ok(sent));
    }

    #[test]
    fn both_encoders_refuse_the_same_records_for_the_same_reasons(
        values in prop::collection::vec(
            ("must_id|flag|count|ratio|amount|raw|day|clock|at|since|extra|tags|who|secret|odd", any_json()), 0..6
        ),
        ignore in any::<bool>(), truncate in any::<bool>(),
    ) {
        let unknown = if ignore { UnknownFields::Ignore } else { UnknownFields::DeadLetter };
        let finer = if truncate { "truncate" } else { "bad_record" };
        let value: Json = values.into_iter().chain([("must_id".to_owned(), json!("x"))]).collect();
        let value = document(&value);
        let mut table = Table::with(&json!({ "finer_times": finer }), &everything(), unknown);
        let insert_all = config(&json!({ "api": "insert_all", "finer_times": finer }));
        let mut rows = RowEncoder::new(&insert_all, "t", &schema(&everything(), unknown));
        let refused = rows.encode(&record("t", 7, &value), &mut Vec::new()).err();
        prop_assert_eq!(table.row_of(&value).err(), refused);
        prop_assert_eq!(table.encoder.ignored_fields(), rows.ignored_fields());
    }

    #[test]
    fn no_record_makes_the_encoder_panic(
        value in any_json(), key in prop::collection::vec(any::<u8>(), 0..20), timestamp in any::<Option<i64>>(),
        partition in any::<i32>(), offset in any::<i64>(), row in any::<u32>(), tombstone in any::<bool>(),
    ) {
        let value = document(&value);
        for newest_by in ["offset", "timestamp", "amount", "since"] {
            let deletes = !matches!(newest_by, "amount" | "since");
            let extra = upsert(&json!({ "newest_by": newest_by, "delete_on_tombstone": deletes }));
            let mut table = Table::new(&extra, &everything());
            let value = if tombstone { Value::Tombstone } else { Value::Json { text: "", document: &value } };
            let record =
                Record { topic: "t", partition, offset, row, timestamp, key: Some(&key), headers: &[], value };
            let _ = table.encoder.encode(&record, &mut Vec::new());
        }
    }
}

/// `cargo test --release -p txconnect-bigquery --lib -- --ignored --nocapture the_time_of_a_transaction`
#[test]
#[ignore = "a measurement"]
fn the_time_of_a_transaction() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas/cash_ins.json");
    let text = std::fs::read_to_string(file).unwrap();
    let schema =
        TableSchema::from_json_schema(&serde_json::from_str(&text).unwrap(), UnknownFields::DeadLetter)
            .unwrap();
    let documents: Vec<Document<'_>> = (0..5_000_u64)
        .map(|number| {
            document(&json!({
                "transaction_id": format!("0b54a1c2-0000-4000-8000-{number:012}"),
                "account_id": format!("7c11a1c2-0000-4000-8000-{number:012}"),
                "counterparty_account_id": format!("91ffa1c2-0000-4000-8000-{number:012}"),
                "amount": number * 37 % 1_000_000 + 1, "inserted_at": 1_763_900_000_000 + number
            }))
        })
        .collect();
    let modes = [
        ("insert_all", json!({ "api": "insert_all" })),
        ("append", json!({})),
        ("append, _kafka_*", json!({ "kafka_columns": ["topic", "partition", "offset", "timestamp"] })),
        ("upsert by offset", json!({ "write": "upsert", "key": ["transaction_id"] })),
        (
            "upsert by timestamp",
            json!({ "write": "upsert", "key": ["transaction_id"], "newest_by": "timestamp" }),
        ),
        (
            "upsert by a column",
            json!({ "write": "upsert", "key": ["transaction_id"], "newest_by": "inserted_at" }),
        ),
    ];
    for (name, extra) in modes {
        let config = config(&extra);
        let mut encoder: Box<dyn Encoder> = if name == "insert_all" {
            Box::new(RowEncoder::new(&config, "cash_ins", &schema))
        } else {
            Box::new(StorageEncoder::new(&config, "cash_ins", &schema))
        };
        let mut out = Vec::new();
        let mut best = f64::INFINITY;
        for _ in 0..60 {
            out.clear();
            let begin = std::time::Instant::now();
            for (number, document) in documents.iter().enumerate() {
                let offset = i64::try_from(number).unwrap();
                let record =
                    Record { timestamp: Some(1_763_900_000_000), ..record("cash_ins", offset, document) };
                encoder.encode(&record, &mut out).unwrap();
            }
            best = best.min(begin.elapsed().as_secs_f64());
        }
        let count = documents.len() as f64;
        println!("{name}: {:.0} ns, {:.0} bytes a row", best * 1e9 / count, out.len() as f64 / count);
    }
}
