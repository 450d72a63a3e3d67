//! Records, batches and the cases that run against the local server and against a real project.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use txconnect_bigquery::{BigQueryConfig, BigQuerySink};
use txconnect_connector_api::batch::Row;
use txconnect_connector_api::schema::UnknownFields;
use txconnect_connector_api::{
    Appended, Batch, Document, Encoded, Member, Number, Object, Published, Record, RowSource, Sink,
    SinkError, StreamName, StreamPosition, TableSchema, Value, WriteStreams, Writer,
};

/// Turns JSON into a document that lives as long as the test process.
fn document(value: &Json) -> Document<'static> {
    match value {
        Json::Null => Document::Null,
        Json::Bool(value) => Document::Bool(*value),
        Json::Number(number) => {
            Document::Number(Number::from_literal(Box::leak(number.to_string().into_boxed_str())))
        }
        Json::String(text) => Document::String(Box::leak(text.clone().into_boxed_str())),
        Json::Array(all) => {
            Document::Array(Box::leak(all.iter().map(document).collect::<Vec<_>>().into_boxed_slice()))
        }
        Json::Object(all) => {
            let members: Vec<Member<'static>> = all
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

pub(crate) fn schema() -> TableSchema {
    schema_of(&json!({
        "required": ["id"],
        "properties": {
            "id": { "type": "integer" },
            "note": { "type": "string" },
            "amount": { "x-column": { "type": "numeric", "precision": 18, "scale": 2 } },
            "at": { "type": "integer", "x-column": { "type": "timestamp", "unit": "ms" } },
            "day": { "type": "string", "format": "date" },
            "clock": { "type": "string", "format": "time" },
            "raw": { "type": "string", "contentEncoding": "base64" },
            "extra": { "type": "object" },
            "tags": { "type": "array", "items": { "type": "string" } },
            "lines": { "type": "array", "items": { "type": "object", "required": ["n"], "properties": {
                "n": { "type": "integer" }, "ratio": { "type": "number" } } } }
        }
    }))
}

pub(crate) fn schema_of(schema: &Json) -> TableSchema {
    TableSchema::from_json_schema(schema, UnknownFields::DeadLetter).unwrap()
}

pub(crate) fn record_json(id: i64) -> Json {
    json!({
        "id": id, "note": format!("note \"{id}\"\n"), "amount": "12.50", "at": 1_763_900_000_123_i64,
        "day": "2026-11-23", "clock": "12:30:00", "raw": "QUJD", "extra": { "a": [1, null] },
        "tags": ["x", "y"], "lines": [{ "n": 1, "ratio": 0.5 }, { "n": 2 }]
    })
}

pub(crate) fn sink(extra: &Json, environment: &dyn Fn(&str) -> Option<String>) -> BigQuerySink {
    let mut config = json!({ "project": "p", "dataset": "d" });
    config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let config: BigQueryConfig = serde_json::from_value(config).unwrap();
    assert_eq!(config.problems(), []);
    BigQuerySink::new(config, Path::new("."), environment).unwrap()
}

/// A sealed batch of `records` of `topic`, with offsets from 0.
pub(crate) fn batch(sink: &BigQuerySink, topic: &str, schema: &TableSchema, records: &[Json]) -> Batch {
    let rows: Vec<(i64, Json, Option<Json>)> =
        (0..).zip(records).map(|(offset, value)| (offset, Json::Null, Some(value.clone()))).collect();
    keyed_batch(sink, topic, schema, &rows)
}

/// A sealed batch of records with offset, key and value; one without a value is a tombstone.
pub(crate) fn keyed_batch(
    sink: &BigQuerySink,
    topic: &str,
    schema: &TableSchema,
    records: &[(i64, Json, Option<Json>)],
) -> Batch {
    let rows: Vec<_> = records.iter().map(|(offset, key, value)| (*offset, 0, key, value.as_ref())).collect();
    batch_of_rows(sink, topic, schema, &rows)
}

/// A sealed batch of rows with the offset of their record, their place among its rows, key and value.
pub(crate) fn batch_of_rows(
    sink: &BigQuerySink,
    topic: &str,
    schema: &TableSchema,
    rows: &[(i64, u32, &Json, Option<&Json>)],
) -> Batch {
    let mut encoder = sink.encoder(topic, Some(schema)).unwrap();
    let mut batch = Batch::new(sink.table(topic));
    for (offset, row, key, value) in rows {
        let key = key.to_string();
        let document = value.map(document);
        let record = Record {
            topic,
            partition: 0,
            offset: *offset,
            row: *row,
            timestamp: None,
            key: Some(key.as_bytes()),
            headers: &[],
            value: match &document {
                Some(document) => Value::Json { text: "", document },
                None => Value::Tombstone,
            },
        };
        assert_eq!(encoder.encode(&record, &mut batch.bytes), Ok(Encoded::Row));
        let source = RowSource { slot: 0, offset: *offset, record: 0 };
        batch.rows.push(Row { end: batch.bytes.len(), source });
    }
    encoder.seal(&mut batch);
    batch
}

pub(crate) fn streams_of(sink: &BigQuerySink) -> Arc<dyn WriteStreams> {
    sink.streams().expect("the sink has streams")
}

pub(crate) async fn append(
    streams: &dyn WriteStreams,
    stream: &StreamName,
    offset: i64,
    batch: &mut Batch,
) -> Appended {
    streams.append(&StreamPosition { stream: stream.clone(), offset }, batch).await
}

pub(crate) fn records(ids: std::ops::Range<i64>) -> Vec<Json> {
    ids.map(record_json).collect()
}

pub(crate) fn offsets(batch: &Batch) -> Vec<i64> {
    batch.rows.iter().map(|row| row.source.offset).collect()
}

/// Writes as the runtime does: again after every transient error, until `patience` is over.
pub(crate) async fn write_patiently(
    writer: &dyn Writer,
    batches: &mut [Batch],
    pause: Duration,
    patience: Duration,
) -> Result<(), SinkError> {
    let attempts = async {
        loop {
            match writer.write(batches, &[]).await {
                Err(SinkError::Transient { .. }) => tokio::time::sleep(pause).await,
                other => return other,
            }
        }
    };
    tokio::time::timeout(patience, attempts).await.expect("the server never took the rows")
}

/// Where the cases run.
pub(crate) struct Place<'a> {
    pub(crate) settings: Json,
    pub(crate) environment: &'a dyn Fn(&str) -> Option<String>,
    /// A name for tables that nobody else uses.
    pub(crate) unique: String,
    pub(crate) pause: Duration,
    pub(crate) patience: Duration,
}

impl Place<'_> {
    fn sink(&self, extra: &Json) -> BigQuerySink {
        let mut all = self.settings.clone();
        all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        sink(&all, self.environment)
    }

    async fn count(&self, sink: &BigQuerySink, table: &Arc<str>) -> Option<u64> {
        sink.count_rows(std::slice::from_ref(table)).await.unwrap()[0].rows
    }

    /// Waits until a query sees so many rows.
    async fn sees(&self, sink: &BigQuerySink, topic: &str, rows: u64) {
        let table = sink.table(topic);
        let seen = async {
            while self.count(sink, &table).await != Some(rows) {
                tokio::time::sleep(self.pause).await;
            }
        };
        tokio::time::timeout(self.patience, seen).await.expect("the rows are never seen");
    }

    /// Does it again while the error is transient.
    async fn patiently<T>(&self, mut call: impl AsyncFnMut() -> Result<T, SinkError>) -> T {
        let attempts = async {
            loop {
                match call().await {
                    Ok(done) => return done,
                    Err(SinkError::Transient { .. }) => tokio::time::sleep(self.pause).await,
                    Err(other) => panic!("{other:?}"),
                }
            }
        };
        tokio::time::timeout(self.patience, attempts).await.expect("the server never did it")
    }

    /// Appends as the runtime does: again after every transient error and every lost answer.
    async fn append(&self, streams: &dyn WriteStreams, stream: &StreamName, offset: i64, batch: &mut Batch) {
        let attempts = async {
            loop {
                match append(streams, stream, offset, batch).await {
                    Appended::Stored | Appended::AlreadyStored => return,
                    Appended::Unknown { .. } | Appended::NotStored(SinkError::Transient { .. }) => {
                        tokio::time::sleep(self.pause).await;
                    }
                    other => panic!("{other:?}"),
                }
            }
        };
        tokio::time::timeout(self.patience, attempts).await.expect("the server never took the rows");
    }
}

/// A table is created on first use and takes rows of every type; all are seen by a query.
pub(crate) async fn rows_of_every_type_arrive_in_a_table_that_is_created(place: &Place<'_>) {
    let topic = format!("{}_created", place.unique);
    let sink = place.sink(&json!({ "partition_by": { "column": "at" }, "cluster_by": ["id"] }));
    assert_eq!(place.count(&sink, &sink.table(&topic)).await, None);
    let mut batches = [batch(&sink, &topic, &schema(), &records(0..50))];
    write_patiently(&*sink.writer("test"), &mut batches, place.pause, place.patience).await.unwrap();
    assert_eq!(offsets(&batches[0]).len(), 50);
    place.sees(&sink, &topic, 50).await;
}

/// With `table_changes: none` a missing table is fatal and the statement that creates it is in the hint.
pub(crate) async fn a_missing_table_is_fatal_where_none_may_be_created(place: &Place<'_>) {
    let topic = format!("{}_missing", place.unique);
    let sink = place.sink(&json!({ "table_changes": "none" }));
    let mut batches = [batch(&sink, &topic, &schema(), &records(0..1))];
    match sink.writer("test").write(&mut batches, &[]).await {
        Err(SinkError::Fatal { hint: Some(hint), .. }) => {
            assert!(hint.contains("CREATE TABLE") && hint.contains("`amount` NUMERIC(18, 2)"), "{hint}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(offsets(&batches[0]), [0]);
}

/// A table with other columns is fatal and the columns are named.
pub(crate) async fn a_table_that_does_not_fit_is_fatal(place: &Place<'_>) {
    let topic = format!("{}_misfit", place.unique);
    let other =
        schema_of(&json!({ "properties": { "id": { "type": "string" }, "note": { "type": "string" } } }));
    let first = place.sink(&json!({}));
    let mut batches = [batch(&first, &topic, &other, &[json!({ "id": "a" })])];
    write_patiently(&*first.writer("test"), &mut batches, place.pause, place.patience).await.unwrap();
    let second = place.sink(&json!({}));
    let mut batches = [batch(&second, &topic, &schema(), &records(0..1))];
    match second.writer("test").write(&mut batches, &[]).await {
        Err(SinkError::Fatal { cause, .. }) => {
            assert!(cause.contains("`id` is STRING"), "{cause}");
            assert!(cause.contains("`amount`"), "{cause}");
        }
        other => panic!("{other:?}"),
    }
}

/// With `table_changes: none` a missing table stops a topic before its first record is read.
pub(crate) async fn a_missing_table_is_fatal_before_anything_is_read(place: &Place<'_>) {
    let topic = format!("{}_unread", place.unique);
    let sink = place.sink(&json!({ "table_changes": "none" }));
    let error = sink.prepare(&topic, Some(&schema())).await.unwrap_err();
    assert!(
        matches!(&error, SinkError::Fatal { hint: Some(hint), .. } if hint.contains("CREATE TABLE")),
        "{error:?}"
    );
}

/// A table with other columns stops a topic before its first record is read.
pub(crate) async fn a_table_that_does_not_fit_is_fatal_before_anything_is_read(place: &Place<'_>) {
    let topic = format!("{}_unfit", place.unique);
    let other = schema_of(&json!({ "properties": { "id": { "type": "string" } } }));
    let first = place.sink(&json!({}));
    place.patiently(async || first.prepare(&topic, Some(&other)).await).await;
    let second = place.sink(&json!({}));
    let error = second.prepare(&topic, Some(&schema())).await.unwrap_err();
    assert!(
        matches!(&error, SinkError::Fatal { cause, .. } if cause.contains("`id` is STRING")),
        "{error:?}"
    );
}

/// One flush may hold rows of several tables.
pub(crate) async fn rows_of_several_tables_arrive_in_their_own(place: &Place<'_>) {
    let sink = place.sink(&json!({}));
    let topics = ["a", "b", "c"].map(|name| format!("{}_several_{name}", place.unique));
    let writer = sink.writer("test");
    for start in [0, 10] {
        // Offsets of their own: insertAll knows a row by its offset.
        let rows: Vec<(i64, Json, Option<Json>)> =
            (start..start + 10).map(|id| (id, Json::Null, Some(record_json(id)))).collect();
        let mut batches = topics.each_ref().map(|topic| keyed_batch(&sink, topic, &schema(), &rows));
        write_patiently(&*writer, &mut batches, place.pause, place.patience).await.unwrap();
    }
    for topic in &topics {
        place.sees(&sink, topic, 20).await;
    }
}

/// Of rows with one key the newest stays, in whatever order they come.
pub(crate) async fn of_rows_with_one_key_the_newest_stays(place: &Place<'_>) {
    let topic = format!("{}_upsert", place.unique);
    let sink = place.sink(&json!({ "write": "upsert", "key": ["id"], "max_staleness": "0s" }));
    let writer = sink.writer("test");
    for _ in 0..2 {
        for start in [5, 0, 10] {
            let mut batches = [batch(&sink, &topic, &schema(), &records(start..start + 10))];
            write_patiently(&*writer, &mut batches, place.pause, place.patience).await.unwrap();
        }
    }
    place.sees(&sink, &topic, 20).await;
}

/// Rows of a stream are seen up to where they are published, and an append that is sent twice is stored once.
pub(crate) async fn rows_of_a_stream_are_seen_once_they_are_published(place: &Place<'_>) {
    let topic = format!("{}_stream", place.unique);
    let sink = place.sink(&json!({}));
    let streams = streams_of(&sink);
    place.patiently(async || sink.prepare(&topic, Some(&schema())).await).await;
    let table = sink.table(&topic);
    let stream = place.patiently(async || streams.open(&table).await).await;
    for start in [0, 10, 20] {
        let mut rows = batch(&sink, &topic, &schema(), &records(start..start + 10));
        place.append(&*streams, &stream, start, &mut rows).await;
    }
    let mut again = batch(&sink, &topic, &schema(), &records(10..20));
    let appended = append(&*streams, &stream, 10, &mut again).await;
    assert!(matches!(appended, Appended::AlreadyStored), "{appended:?}");
    let appended = append(&*streams, &stream, 50, &mut again).await;
    assert!(matches!(appended, Appended::OutOfRange), "{appended:?}");
    assert_eq!(place.count(&sink, &table).await, Some(0));
    for end in [15, 15, 30, 15] {
        let published = place.patiently(async || streams.publish(&stream, end).await).await;
        assert_eq!(published, Published::Visible);
    }
    place.sees(&sink, &topic, 30).await;
    place.patiently(async || streams.finalize(&stream).await).await;
}

/// A stream that was finalized takes no rows, and what was not published of it never is.
pub(crate) async fn a_stream_that_is_ended_takes_and_shows_nothing_more(place: &Place<'_>) {
    let topic = format!("{}_ended", place.unique);
    let sink = place.sink(&json!({}));
    let streams = streams_of(&sink);
    place.patiently(async || sink.prepare(&topic, Some(&schema())).await).await;
    let table = sink.table(&topic);
    let stream = place.patiently(async || streams.open(&table).await).await;
    let mut rows = batch(&sink, &topic, &schema(), &records(0..10));
    place.append(&*streams, &stream, 0, &mut rows).await;
    for _ in 0..2 {
        place.patiently(async || streams.finalize(&stream).await).await;
    }
    let appended = append(&*streams, &stream, 10, &mut rows).await;
    assert!(matches!(appended, Appended::Gone { .. }), "{appended:?}");
    let published = place.patiently(async || streams.publish(&stream, 10).await).await;
    assert_eq!(published, Published::Finalized);
    assert_eq!(place.count(&sink, &table).await, Some(0));
}
