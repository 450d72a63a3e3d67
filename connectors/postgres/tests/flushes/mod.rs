//! A sink of its own for every test, and flushes made by hand, so that rows may hold what no encoder lets through.

#![allow(dead_code, reason = "every test file uses its own part of it")]

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use txconnect_connector_api::batch::Row;
use txconnect_connector_api::schema::UnknownFields;
use txconnect_connector_api::{Batch, RejectedRow, RowSource, Sink, SinkError, TableSchema, Writer};
use txconnect_postgres::connect::Session;
use txconnect_postgres::{PostgresConfig, PostgresSink};

use crate::support::{PIPELINE, Schema, one, run, server, session};

/// Stands in every row that is written by hand, and never in a message.
pub(crate) const MARKER: &str = "s3cr3t";

/// A sink for one schema of the database.
pub(crate) struct Bench {
    pub(crate) schema: Schema,
    pub(crate) sink: PostgresSink,
    pub(crate) writer: Box<dyn Writer>,
    /// For looking at what the writer did.
    pub(crate) session: Session,
}

impl Bench {
    /// A sink whose block has `extra`, in a new schema.
    pub(crate) async fn new(extra: Value) -> Self {
        Self::at(&server(), Schema::new().await, extra).await
    }

    /// A sink that connects by another address.
    pub(crate) async fn at(url: &str, schema: Schema, extra: Value) -> Self {
        let sink = sink(url, &schema, extra);
        let writer = sink.writer(PIPELINE);
        Self { schema, sink, writer, session: session().await }
    }

    /// A sink without positions, which is enough for tests about rows.
    pub(crate) async fn rows_only(extra: Value) -> Self {
        Self::new(merged(json!({ "delivery": "at_least_once" }), extra)).await
    }

    /// Runs statements in which `$s` stands for the schema.
    pub(crate) async fn run(&self, statements: &str) {
        run(&self.session, &statements.replace("$s", &self.schema.quoted())).await;
    }

    /// The first value of the first row; `$s` stands for the schema.
    pub(crate) async fn one(&self, statement: &str) -> String {
        one(&self.session, &statement.replace("$s", &self.schema.quoted())).await
    }

    /// Makes the table of `topic` ready.
    pub(crate) async fn prepare(&self, topic: &str, properties: &Value) -> Result<(), SinkError> {
        self.sink.prepare(topic, Some(&schema(properties))).await
    }

    /// Makes a topic ready whose table has these columns, and has to exist or may be made.
    pub(crate) async fn topic(&self, topic: &str, properties: &Value) -> Arc<str> {
        self.prepare(topic, properties).await.expect("the table is made ready");
        self.sink.table(topic)
    }

    /// Writes one batch without positions.
    pub(crate) async fn write(&self, table: &Arc<str>, rows: &[Vec<u8>]) -> Result<(), SinkError> {
        self.writer.write(&mut [batch(table, rows)], &[]).await
    }

    /// Writes one batch that the server refuses, and answers which rows it refuses.
    pub(crate) async fn refused(&self, table: &Arc<str>, rows: &[Vec<u8>]) -> Vec<RejectedRow> {
        let mut batches = [batch(table, rows)];
        let before = batches[0].bytes.clone();
        let rejected = rejected(self.writer.write(&mut batches, &[]).await);
        assert_eq!(batches[0].bytes, before, "the rows are handed back as they were");
        assert!(batches[0].requests > 0);
        rejected
    }

    /// Writes a batch as the runtime does: bad rows are cut out until the rest goes through. Answers the bad rows by
    /// offset, and how many calls there were.
    pub(crate) async fn write_the_good(&self, table: &Arc<str>, rows: &[Vec<u8>]) -> (Vec<i64>, usize) {
        let mut batches = [batch(table, rows)];
        let (mut bad, mut calls) = (Vec::new(), 0);
        loop {
            calls += 1;
            let outcome = self.writer.write(&mut batches, &[]).await;
            if outcome.is_ok() {
                bad.sort_unstable();
                return (bad, calls);
            }
            let refused: Vec<usize> = rejected(outcome).iter().map(|row| row.row).collect();
            assert!(!refused.is_empty(), "every call comes closer to the end");
            bad.extend(refused.iter().map(|&row| batches[0].rows[row].source.offset));
            let refused: std::collections::HashSet<usize> = refused.into_iter().collect();
            batches[0].retain_rows(|index, _| !refused.contains(&index));
        }
    }

    pub(crate) async fn drop(self) {
        self.schema.drop().await;
    }
}

fn merged(mut all: Value, extra: Value) -> Value {
    if let (Value::Object(all), Value::Object(extra)) = (&mut all, extra) {
        all.extend(extra);
    }
    all
}

pub(crate) fn sink(url: &str, schema: &Schema, extra: Value) -> PostgresSink {
    let all = merged(json!({ "url": url, "schema": schema.name }), extra);
    let config: PostgresConfig = serde_json::from_value(all).expect("the block of the test");
    assert_eq!(config.problems(), []);
    PostgresSink::new(config, Path::new(".")).expect("the sink of the test")
}

/// Properties of a JSON Schema; those without a `null` type are required.
pub(crate) fn schema(properties: &Value) -> TableSchema {
    let required: Vec<&String> = properties
        .as_object()
        .expect("an object")
        .iter()
        .filter(|(_, property)| property.get("type").is_some_and(Value::is_string))
        .map(|(name, _)| name)
        .collect();
    let schema = json!({ "type": "object", "properties": properties, "required": required });
    TableSchema::from_json_schema(&schema, UnknownFields::DeadLetter).expect("the schema of the test")
}

/// Rows that the server refuses. Their messages hold nothing of them.
pub(crate) fn rejected(outcome: Result<(), SinkError>) -> Vec<RejectedRow> {
    match outcome {
        Err(SinkError::Rejected { rows }) => {
            assert!(!format!("{rows:?}").contains(MARKER), "a value in {rows:?}");
            rows
        }
        other => panic!("rows are refused, and not {other:?}"),
    }
}

/// Row numbers and classes.
pub(crate) fn classes(rows: &[RejectedRow]) -> Vec<(usize, &str)> {
    rows.iter().map(|row| (row.row, &*row.why.class)).collect()
}

/// What happened and the way out, where waiting does not help. Neither holds a value.
pub(crate) fn fatal(outcome: Result<(), SinkError>) -> String {
    match outcome {
        Err(SinkError::Fatal { cause, hint }) => {
            let told = format!("{cause} | {}", hint.expect("a way out"));
            assert!(!told.contains(MARKER), "{told}");
            told
        }
        other => panic!("the pipeline ends, and not {other:?}"),
    }
}

/// What happened, where waiting helps. It holds no value.
pub(crate) fn transient(outcome: Result<(), SinkError>) -> String {
    match outcome {
        Err(SinkError::Transient { cause, .. }) => {
            assert!(!cause.contains(MARKER), "{cause}");
            cause
        }
        other => panic!("waiting helps, and not {other:?}"),
    }
}

pub(crate) fn batch(table: &Arc<str>, rows: &[Vec<u8>]) -> Batch {
    let mut batch = Batch::new(Arc::clone(table));
    for (offset, row) in rows.iter().enumerate() {
        batch.bytes.extend_from_slice(row);
        let source = RowSource { slot: 0, offset: i64::try_from(offset).expect("few rows"), record: 0 };
        batch.rows.push(Row { end: batch.bytes.len(), source });
    }
    batch
}

/// A field: `None` is NULL.
pub(crate) type Field = Option<Vec<u8>>;

#[allow(clippy::unnecessary_wraps, reason = "a field, which may be NULL")]
pub(crate) fn int8(value: i64) -> Field {
    Some(value.to_be_bytes().to_vec())
}

#[allow(clippy::unnecessary_wraps, reason = "a field, which may be NULL")]
pub(crate) fn text(value: &str) -> Field {
    Some(value.as_bytes().to_vec())
}

/// A row that is new.
pub(crate) fn new(fields: &[Field]) -> Vec<u8> {
    let mut row = u16::try_from(fields.len()).expect("few fields").to_be_bytes().to_vec();
    for field in fields {
        match field {
            None => row.extend((-1_i32).to_be_bytes()),
            Some(bytes) => {
                row.extend(i32::try_from(bytes.len()).expect("a short field").to_be_bytes());
                row.extend(bytes);
            }
        }
    }
    row
}

/// A row with a key.
pub(crate) fn put(fields: &[Field]) -> Vec<u8> {
    [&b"U"[..], &new(fields)].concat()
}

/// The end of a row with a key.
pub(crate) fn delete(fields: &[Field]) -> Vec<u8> {
    [&b"D"[..], &new(fields)].concat()
}
