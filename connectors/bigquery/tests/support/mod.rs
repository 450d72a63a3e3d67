//! Records, batches and the cases that run against the local server and against a real project.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use txconnect_bigquery::{BigQueryConfig, BigQuerySink};
use txconnect_connector_api::batch::Row;
use txconnect_connector_api::schema::UnknownFields;
use txconnect_connector_api::{
    Batch, Document, Encoded, Member, Number, Object, Record, RowSource, Sink, SinkError, TableSchema, Value,
    Writer,
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
    let mut encoder = sink.encoder(topic, Some(schema)).unwrap();
    let mut batch = Batch::new(sink.table(topic));
    for (index, value) in records.iter().enumerate() {
        let offset = i64::try_from(index).unwrap();
        let document = document(value);
        let record = Record {
            topic,
            partition: 0,
            offset,
            timestamp: None,
            key: None,
            headers: &[],
            value: Value::Json { text: "", document: &document },
        };
        assert_eq!(encoder.encode(&record, &mut batch.bytes), Ok(Encoded::Row));
        let source = RowSource { slot: 0, offset, record: 0 };
        batch.rows.push(Row { end: batch.bytes.len(), source });
    }
    encoder.seal(&mut batch);
    batch
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
}

/// A table is created on first use and takes rows of every type; all are seen by a query.
pub(crate) async fn rows_of_every_type_arrive_in_a_table_that_is_created(place: &Place<'_>) {
    let topic = format!("{}_created", place.unique);
    let sink = place.sink(&json!({ "partition_by": { "column": "at" }, "cluster_by": ["id"] }));
    assert_eq!(place.count(&sink, &sink.table(&topic)).await, None);
    let mut batches = [batch(&sink, &topic, &schema(), &records(0..50))];
    write_patiently(&*sink.writer("test"), &mut batches, place.pause, place.patience).await.unwrap();
    assert_eq!(offsets(&batches[0]).len(), 50);
    let seen = async {
        while place.count(&sink, &sink.table(&topic)).await != Some(50) {
            tokio::time::sleep(place.pause).await;
        }
    };
    tokio::time::timeout(place.patience, seen).await.expect("the rows are never seen");
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
