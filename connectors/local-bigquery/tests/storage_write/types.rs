//! Values of every type, as a writer sends them and as they are read back.

use crate::support::{Server, default_stream, descriptor, field, first, offset_of, optional};
use prost::Message;
use prost_types::DescriptorProto;
use prost_types::field_descriptor_proto::{Label, Type};
use serde_json::{Value as Json, json};
use txconnect_local_bigquery::Options;

#[derive(Clone, PartialEq, Message)]
struct Everything {
    #[prost(bool, optional, tag = "1")]
    ok: Option<bool>,
    #[prost(int64, optional, tag = "2")]
    count: Option<i64>,
    #[prost(double, optional, tag = "3")]
    ratio: Option<f64>,
    #[prost(string, optional, tag = "4")]
    sum: Option<String>,
    #[prost(string, optional, tag = "5")]
    big: Option<String>,
    #[prost(string, optional, tag = "6")]
    text: Option<String>,
    #[prost(string, optional, tag = "7")]
    document: Option<String>,
    #[prost(bytes = "vec", optional, tag = "8")]
    raw: Option<Vec<u8>>,
    #[prost(int32, optional, tag = "9")]
    day: Option<i32>,
    #[prost(string, optional, tag = "10")]
    clock: Option<String>,
    #[prost(int64, optional, tag = "11")]
    wall: Option<i64>,
    #[prost(int64, optional, tag = "12")]
    at: Option<i64>,
    #[prost(message, optional, tag = "13")]
    who: Option<Who>,
    #[prost(int64, repeated, packed = "false", tag = "14")]
    plain: Vec<i64>,
    #[prost(int64, repeated, tag = "15")]
    packed: Vec<i64>,
    #[prost(message, repeated, tag = "16")]
    lines: Vec<Who>,
}

#[derive(Clone, PartialEq, Message)]
struct Who {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(sint32, optional, tag = "2")]
    level: Option<i32>,
}

fn fields() -> Json {
    let who = json!([{"name": "name", "type": "STRING"}, {"name": "level", "type": "INTEGER"}]);
    json!([
        {"name": "ok", "type": "BOOL"}, {"name": "count", "type": "INT64"}, {"name": "ratio", "type": "FLOAT64"},
        {"name": "sum", "type": "NUMERIC"}, {"name": "big", "type": "BIGNUMERIC"}, {"name": "text", "type": "STRING"},
        {"name": "document", "type": "JSON"}, {"name": "raw", "type": "BYTES"}, {"name": "day", "type": "DATE"},
        {"name": "clock", "type": "TIME"}, {"name": "wall", "type": "DATETIME"}, {"name": "at", "type": "TIMESTAMP"},
        {"name": "who", "type": "RECORD", "fields": who},
        {"name": "plain", "type": "INT64", "mode": "REPEATED"},
        {"name": "packed", "type": "INT64", "mode": "REPEATED"},
        {"name": "lines", "type": "RECORD", "mode": "REPEATED", "fields": who}
    ])
}

fn schema() -> DescriptorProto {
    let who = DescriptorProto {
        name: Some("Who".to_owned()),
        field: vec![optional("name", 1, Type::String), optional("level", 2, Type::Sint32)],
        ..DescriptorProto::default()
    };
    let message = |name: &str, number: i32, label: Label| prost_types::FieldDescriptorProto {
        type_name: Some("Who".to_owned()),
        ..field(name, number, Type::Message, label)
    };
    let scalars = [
        ("ok", Type::Bool),
        ("count", Type::Int64),
        ("ratio", Type::Double),
        ("sum", Type::String),
        ("big", Type::String),
        ("text", Type::String),
        ("document", Type::String),
        ("raw", Type::Bytes),
        ("day", Type::Int32),
        ("clock", Type::String),
        ("wall", Type::Int64),
        ("at", Type::Int64),
    ];
    let mut fields: Vec<_> =
        (1..).zip(scalars).map(|(number, (name, kind))| optional(name, number, kind)).collect();
    fields.push(message("who", 13, Label::Optional));
    fields.push(field("plain", 14, Type::Int64, Label::Repeated));
    fields.push(field("packed", 15, Type::Int64, Label::Repeated));
    fields.push(message("lines", 16, Label::Repeated));
    DescriptorProto { nested_type: vec![who], ..descriptor(fields) }
}

/// A DATETIME in the layout of `CivilTimeEncoder`: each part above the next one's bits.
fn packed(parts: [i64; 7]) -> i64 {
    let bits = [14, 4, 5, 5, 6, 6, 20];
    parts.iter().zip(bits).fold(0, |above, (part, bits)| (above << bits) + part)
}

// "Supported protocol buffer and Arrow data types": DATE as days, TIMESTAMP as microseconds, DATETIME as a civil-encoded
// integer, TIME as text, decimals as text, RECORD as a nested message, REPEATED as an array.
#[tokio::test]
async fn a_value_of_every_type_arrives() {
    let server = Server::start(Options::default()).await;
    server.create_table("t", json!({"schema": {"fields": fields()}})).await;
    let row = Everything {
        ok: Some(false),
        count: Some(i64::MIN),
        ratio: Some(-0.5),
        sum: Some("12345678901234567890.123456789".into()),
        big: Some("-0.00000000000000000000000000000000000001".into()),
        text: Some("Ω\"\n".into()),
        document: Some("{\"a\": [1, 2]}".into()),
        raw: Some(vec![0, 255]),
        day: Some(-1),
        clock: Some("23:59:59.000001".into()),
        wall: Some(packed([2026, 11, 23, 21, 5, 9, 500_000])),
        at: Some(1_795_467_909_000_001),
        who: Some(Who { name: Some("a".into()), level: Some(-7) }),
        plain: vec![1, -2],
        packed: vec![3, -4],
        lines: vec![Who { name: None, level: Some(1) }, Who { name: Some("b".into()), level: None }],
    };
    let stream = default_stream("t");
    let mut connection = server.connect(&stream).await;
    let rows = vec![row.encode_to_vec(), Vec::new()];
    connection.send(first(&stream, schema(), None, rows)).await;
    offset_of(&connection.next().await.unwrap());
    let found = server.rows("t");
    let wanted = json!({
        "ok": false, "count": i64::MIN, "ratio": -0.5, "sum": "12345678901234567890.123456789",
        "big": "-0.00000000000000000000000000000000000001", "text": "Ω\"\n", "document": "{\"a\":[1,2]}",
        "raw": "AP8=", "day": "1969-12-31", "clock": "23:59:59.000001", "wall": "2026-11-23T21:05:09.500000",
        "at": "2026-11-23T21:05:09.000001Z", "who": {"name": "a", "level": -7}, "plain": [1, -2], "packed": [3, -4],
        "lines": [{"name": null, "level": 1}, {"name": "b", "level": null}]
    });
    assert_eq!(Json::Object(found[0].clone()), wanted);
    // What is missing is NULL, a list that is missing is empty.
    assert!(found[1].iter().all(|(_, value)| *value == Json::Null || *value == json!([])));
}
