//! What the encoder writes, as PostgreSQL itself reads it: tuples go in by COPY, and come back as text.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, but not in what they call")]

use std::pin::pin;

use bytes::Bytes;
use futures::SinkExt as _;
use serde_json::{Value as Json, json};
use tokio_postgres::{Client, NoTls};
use txconnect_connector_api::schema::UnknownFields;
use txconnect_connector_api::{Document, Encoder, Member, Number, Object, Record, TableSchema, Value};
use txconnect_postgres::plan::{ColumnType, quoted};
use txconnect_postgres::{PostgresConfig, RowEncoder, TablePlan};

/// A session on the server of the tests, which is alone with a schema of the given name.
async fn connect(schema: &str) -> Client {
    let url = std::env::var("PG_URL")
        .expect("PG_URL is not set: run `./dev services start` and `eval \"$(./dev services env)\"`");
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let schema = quoted(schema);
    let fresh = format!(
        "SET client_min_messages = warning; DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}; \
         SET search_path = {schema}; SET timezone = 'Asia/Tokyo'"
    );
    client.batch_execute(&fresh).await.unwrap();
    client
}

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
            let members = members.iter().map(|(name, value)| (name.as_str(), document(value)));
            object(members.collect())
        }
    }
}

fn object(members: Vec<(&str, Document<'static>)>) -> Document<'static> {
    let members: Vec<Member<'static>> = members
        .into_iter()
        .map(|(name, value)| Member { name: Box::leak(name.to_owned().into_boxed_str()), value })
        .collect();
    Document::Object(Object::new(Box::leak(members.into_boxed_slice())))
}

fn number(literal: &str) -> Document<'static> {
    Document::Number(Number::from_literal(Box::leak(literal.to_owned().into_boxed_str())))
}

fn encode(encoder: &mut RowEncoder, document: &Document<'_>) -> Vec<u8> {
    let record = Record {
        topic: "t",
        partition: 0,
        offset: 0,
        row: 0,
        timestamp: None,
        key: None,
        headers: &[],
        value: Value::Json { text: "", document },
    };
    let mut tuple = Vec::new();
    encoder.encode(&record, &mut tuple).unwrap();
    tuple
}

/// Brings tuples into a table by COPY.
async fn copy(client: &Client, plan: &TablePlan, tuples: &[u8]) -> Result<u64, tokio_postgres::Error> {
    let columns: Vec<String> = plan.columns.iter().map(|column| quoted(&column.name)).collect();
    let statement = format!("COPY {} ({}) FROM STDIN BINARY", plan.table, columns.join(", "));
    let sink = client.copy_in::<_, Bytes>(&statement).await?;
    let mut sink = pin!(sink);
    let whole = [&b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0"[..], tuples, b"\xff\xff"].concat();
    sink.send(Bytes::from(whole)).await?;
    sink.finish().await
}

fn schema(properties: &Json) -> TableSchema {
    let all = json!({ "description": "It's \\ a \"table\"", "properties": properties });
    TableSchema::from_json_schema(&all, UnknownFields::DeadLetter).unwrap()
}

fn config(schema: &str) -> PostgresConfig {
    serde_json::from_value(
        json!({ "url": "postgresql://nowhere", "schema": schema, "table": "odd \"name\"; --" }),
    )
    .unwrap()
}

#[tokio::test]
async fn every_kind_of_value_arrives_in_the_table_that_the_plan_makes() {
    const SCHEMA: &str = "Encoding \"made\"";
    let client = connect(SCHEMA).await;
    let properties = json!({
        "id": { "type": "string", "format": "uuid", "description": "that's \\ the id" },
        "flag \"?\"": { "type": "boolean" },
        "count": { "type": "integer" },
        "ratio": { "type": "number" },
        "amount": { "x-column": { "type": "numeric", "precision": 18, "scale": 2 } },
        "note": { "type": "string" },
        "raw": { "type": "string", "contentEncoding": "base64" },
        "day": { "type": "string", "format": "date" },
        "clock": { "type": "string", "format": "time" },
        "at": { "type": "string", "format": "date-time" },
        "since": { "x-column": { "type": "timestamp", "unit": "us" } },
        "tags": { "type": "array", "items": { "type": "string" } },
        "free": {}
    });
    let (config, schema) = (config(SCHEMA), schema(&properties));
    let plan = TablePlan::new(&config, "t", &schema).unwrap();
    client.batch_execute(&plan.ddl()).await.unwrap();
    let mut encoder = RowEncoder::new(&config, &schema, &plan).unwrap();
    let mut tuples = encode(
        &mut encoder,
        &document(&json!({
            "id": "0B54AA00-1111-2222-3333-4444555566ff", "flag \"?\"": true, "count": i64::MIN, "ratio": 0.1,
            "amount": "-1234567890123456.7", "note": "Zoë\n😀", "raw": "AP9B", "day": "1969-07-20",
            "clock": "23:59:59.000001", "at": "0001-01-01T00:00:00Z", "since": -1,
            "tags": ["a", "\"\\\u{1}"], "free": { "b": [1.50, null], "a": "é" }
        })),
    );
    tuples.extend(encode(&mut encoder, &document(&json!({ "free": "x", "day": "9999-12-31" }))));
    assert_eq!(copy(&client, &plan, &tuples).await.unwrap(), 2);
    let rows = client
        .query(&format!("SELECT to_jsonb(t) #>> '{{}}' FROM {} AS t ORDER BY id NULLS LAST", plan.table), &[])
        .await
        .unwrap();
    let rows: Vec<Json> =
        rows.iter().map(|row| serde_json::from_str(row.get::<_, &str>(0)).unwrap()).collect();
    assert_eq!(
        rows[0],
        json!({
            "id": "0b54aa00-1111-2222-3333-4444555566ff", "flag \"?\"": true, "count": i64::MIN, "ratio": 0.1,
            "amount": -1_234_567_890_123_456.7, "note": "Zoë\n😀", "raw": "\\x00ff41", "day": "1969-07-20",
            "clock": "23:59:59.000001", "at": "0001-01-01T09:18:59+09:18:59",
            "since": "1970-01-01T08:59:59.999999+09:00",
            "tags": ["a", "\"\\\u{1}"], "free": { "a": "é", "b": [1.50, null] }
        })
    );
    let some: Vec<&String> = rows[1]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, _)| name)
        .collect();
    assert_eq!(some, ["day", "free"]);
    let comments = client
        .query_one(
            &format!(
                "SELECT obj_description('{0}'::regclass), col_description('{0}'::regclass, 1)",
                plan.table.to_string().replace('\'', "''")
            ),
            &[],
        )
        .await
        .unwrap();
    assert_eq!((comments.get(0), comments.get(1)), ("It's \\ a \"table\"", "that's \\ the id"));
    client.batch_execute(&format!("DROP SCHEMA {} CASCADE", quoted(SCHEMA))).await.unwrap();
}

#[tokio::test]
async fn every_type_of_an_existing_column_takes_what_the_encoder_writes() {
    const SCHEMA: &str = "encoding_existing";
    let client = connect(SCHEMA).await;
    client
        .batch_execute(
            "CREATE TYPE mood AS ENUM ('sad', 'gl''ad'); CREATE DOMAIN small AS int CHECK (VALUE < 10)",
        )
        .await
        .unwrap();
    let integer = json!({ "type": "integer" });
    let float = json!({ "type": "number" });
    let text = json!({ "type": "string" });
    let uuid = json!({ "type": "string", "format": "uuid" });
    let at = json!({ "type": "string", "format": "date-time" });
    let seconds = json!({ "x-column": { "type": "timestamp", "unit": "s" } });
    let decimal = json!({ "x-column": { "type": "numeric", "precision": 60, "scale": 30 } });
    let free = json!({});
    let labelled = |name: &str| ColumnType::Labelled(name.to_owned());
    for (property, declared, column_type, value, expected) in [
        (&integer, "int2", ColumnType::SmallInt, number("-32768"), "-32768"),
        (&integer, "int4", ColumnType::Integer, number("2147483647"), "2147483647"),
        (&integer, "small", ColumnType::Integer, number("7"), "7"),
        (&integer, "float4", ColumnType::Real, number("16777216"), "1.6777216e+07"),
        (&integer, "float8", ColumnType::Double, number("-9007199254740992"), "-9.007199254740992e+15"),
        (&integer, "numeric(6,2)", ColumnType::Numeric(Some((6, 2))), number("9999"), "9999.00"),
        (&float, "float4", ColumnType::Real, number("0.1"), "0.1"),
        (&float, "float8", ColumnType::Double, number("1.7976931348623157e308"), "1.7976931348623157e+308"),
        (&float, "numeric", ColumnType::Numeric(None), number("-0.10"), "-0.10"),
        (&float, "numeric(4,-2)", ColumnType::Numeric(Some((4, -2))), number("123400"), "123400"),
        (&float, "numeric(2,4)", ColumnType::Numeric(Some((2, 4))), number("0.0012"), "0.0012"),
        (&decimal, "numeric", ColumnType::Numeric(None), number("1e20"), "100000000000000000000"),
        (
            &decimal,
            "numeric",
            ColumnType::Numeric(None),
            Document::String("12345678901234567890.123450"),
            "12345678901234567890.123450",
        ),
        (&decimal, "numeric", ColumnType::Numeric(None), number("1e-25"), "0.0000000000000000000000001"),
        (&text, "varchar(3)", ColumnType::Varchar(3), Document::String("äö "), "äö "),
        (&text, "char(5)", ColumnType::Char(5), Document::String("ab      "), "ab   "),
        (&text, "mood", labelled("mood"), Document::String("gl'ad"), "gl'ad"),
        (
            &text,
            "uuid",
            ColumnType::Uuid,
            Document::String("0b54aa00-1111-2222-3333-4444555566FF"),
            "0b54aa00-1111-2222-3333-4444555566ff",
        ),
        (&text, "date", ColumnType::Date, Document::String("0001-01-01"), "0001-01-01"),
        (&text, "time(0)", ColumnType::Time, Document::String("12:30:01Z"), "12:30:01"),
        (&uuid, "text", ColumnType::Text, Document::String("ABC"), "ABC"),
        (
            &at,
            "timestamp",
            ColumnType::Timestamp,
            Document::String("2026-11-23T12:30:00.25+02:00"),
            "2026-11-23 10:30:00.25",
        ),
        (
            &at,
            "timestamptz(3)",
            ColumnType::TimestampTz,
            Document::String("2026-11-23T12:30:00.25+02:00"),
            "2026-11-23 19:30:00.25+09",
        ),
        (&seconds, "timestamp", ColumnType::Timestamp, number("-210866803200"), "4714-11-24 00:00:00 BC"),
        (&seconds, "timestamp", ColumnType::Timestamp, number("9224318015999"), "294276-12-31 23:59:59"),
        (&free, "json", ColumnType::Json, document(&json!({ "b": 1, "a": [] })), r#"{"b":1,"a":[]}"#),
        (&free, "jsonb", ColumnType::Jsonb, number("1e-16383"), &format!("0.{}1", "0".repeat(16_382))),
        (&free, "varchar(9)", ColumnType::Varchar(9), document(&json!(["ä", 1])), r#"["ä",1]"#),
    ] {
        let (config, schema) = (config(SCHEMA), schema(&json!({ "v": property })));
        let mut plan = TablePlan::new(&config, "t", &schema).unwrap();
        plan.columns[0].column_type = column_type;
        let make = format!("DROP TABLE IF EXISTS {0}; CREATE TABLE {0} (v {declared})", plan.table);
        client.batch_execute(&make).await.unwrap();
        let mut encoder = RowEncoder::new(&config, &schema, &plan).unwrap();
        let tuple = encode(&mut encoder, &object(vec![("v", value)]));
        assert_eq!(copy(&client, &plan, &tuple).await.unwrap(), 1, "{declared}");
        // A cast of character(n) to text would drop the blanks at its end.
        let row =
            client.query_one(&format!("SELECT format('%s', v) FROM {}", plan.table), &[]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), expected, "{declared}");
    }
    client.batch_execute(&format!("DROP SCHEMA {SCHEMA} CASCADE")).await.unwrap();
}

#[tokio::test]
async fn what_the_encoder_refuses_of_json_postgres_refuses_too() {
    const SCHEMA: &str = "encoding_limits";
    let client = connect(SCHEMA).await;
    let (config, schema) = (config(SCHEMA), schema(&json!({ "v": {} })));
    let plan = TablePlan::new(&config, "t", &schema).unwrap();
    let mut encoder = RowEncoder::new(&config, &schema, &plan).unwrap();
    for literal in ["1e-16384", "0e-20000", "1.0e-16383", "1e300", "0e300", "-0.0", "1e-16383", "12E+5"] {
        let document = object(vec![("v", number(literal))]);
        let record = Record {
            topic: "t",
            partition: 0,
            offset: 0,
            row: 0,
            timestamp: None,
            key: None,
            headers: &[],
            value: Value::Json { text: "", document: &document },
        };
        let ours = encoder.encode(&record, &mut Vec::new()).is_ok();
        let theirs = client.query_one("SELECT $1::text::jsonb IS NULL", &[&literal]).await.is_ok();
        assert_eq!(ours, theirs, "{literal}");
    }
    client.batch_execute(&format!("DROP SCHEMA {SCHEMA} CASCADE")).await.unwrap();
}
