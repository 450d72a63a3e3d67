//! Columns that say where a row came from, and rows of which Kafka's time tells the newer one, on a real PostgreSQL.

#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, but not in what they call")]

mod flushes;
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value as Json, json};
use txconnect_connector_api::batch::Row;
use txconnect_connector_api::{
    Batch, Document, Encoded, Encoder, Member, Number, Object, Record, RowSource, Sink, Value,
};

use flushes::{Bench, fatal, rejected, schema};

const TOPIC: &str = "orders";

fn properties() -> Json {
    json!({ "id": { "type": "integer" }, "note": { "type": ["string", "null"] } })
}

/// A record as Kafka hands it over: no note is no value.
#[derive(Clone, Copy, Debug)]
struct Given {
    id: i64,
    note: Option<&'static str>,
    partition: i32,
    offset: i64,
    row: u32,
    timestamp: Option<i64>,
}

fn given(id: i64, note: Option<&'static str>, offset: i64, timestamp: Option<i64>) -> Given {
    Given { id, note, partition: 2, offset, row: 0, timestamp }
}

fn encode(encoder: &mut dyn Encoder, given: Given, out: &mut Vec<u8>) {
    let id = given.id.to_string();
    let members = given.note.map(|note| {
        [
            Member { name: "id", value: Document::Number(Number::from_literal(&id)) },
            Member { name: "note", value: Document::String(note) },
        ]
    });
    let document = members.as_ref().map(|members| Document::Object(Object::new(members)));
    let value = document.as_ref().map_or(Value::Tombstone, |document| Value::Json { text: "", document });
    let record = Record {
        topic: TOPIC,
        partition: given.partition,
        offset: given.offset,
        row: given.row,
        timestamp: given.timestamp,
        key: Some(id.as_bytes()),
        headers: &[],
        value,
    };
    assert_eq!(encoder.encode(&record, out), Ok(Encoded::Row));
}

/// The batch of these records, as the runtime makes it.
fn batch_of(bench: &Bench, table: &Arc<str>, all: &[Given]) -> Batch {
    let mut encoder = bench.sink.encoder(TOPIC, Some(&schema(&properties()))).unwrap();
    let mut batch = Batch::new(Arc::clone(table));
    for given in all {
        encode(encoder.as_mut(), *given, &mut batch.bytes);
        let source = RowSource { slot: 0, offset: given.offset, record: 0 };
        batch.rows.push(Row { end: batch.bytes.len(), source });
    }
    batch
}

async fn write(bench: &Bench, table: &Arc<str>, all: &[Given]) {
    bench.writer.write(&mut [batch_of(bench, table, all)], &[]).await.unwrap();
}

fn all_columns(extra: &Json) -> Json {
    let mut all = json!({ "kafka_columns": ["topic", "partition", "offset", "timestamp"] });
    all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    all
}

fn newest_by_time() -> Json {
    all_columns(
        &json!({ "write": "upsert", "key": ["id"], "newest_by": "timestamp", "delete_on_tombstone": true }),
    )
}

const ROWS: &str = "SELECT string_agg(concat_ws(' ', id, note, _kafka_topic, _kafka_partition, _kafka_offset, \
    extract(epoch FROM _kafka_timestamp)::numeric(20,3)), ', ' ORDER BY id, _kafka_offset) FROM $s.orders";

#[tokio::test]
async fn every_way_to_write_says_where_a_row_came_from() {
    for mode in [json!({}), json!({ "write": "insert_ignore", "key": ["id"] }), newest_by_time()] {
        let bench = Bench::rows_only(all_columns(&mode)).await;
        let table = bench.topic(TOPIC, &properties()).await;
        let rows = [
            given(1, Some("a"), 7, Some(1_700_000_000_123)),
            given(2, Some("b"), i64::MAX, None),
            Given { partition: i32::MAX, ..given(3, Some("c"), 0, Some(0)) },
        ];
        write(&bench, &table, &rows).await;
        let expected = format!(
            "1 a orders 2 7 1700000000.123, 2 b orders 2 {}, 3 c orders {} 0 0.000",
            i64::MAX,
            i32::MAX
        );
        assert_eq!(bench.one(ROWS).await, expected);
        let columns = "SELECT string_agg(concat_ws(' ', column_name, data_type, is_nullable), ', ' \
            ORDER BY ordinal_position) FROM information_schema.columns \
            WHERE quote_ident(table_schema) = '$s' AND ordinal_position > 2";
        assert_eq!(
            bench.one(columns).await,
            "_kafka_topic text NO, _kafka_partition integer NO, _kafka_offset bigint NO, \
             _kafka_timestamp timestamp with time zone YES"
        );
        bench.drop().await;
    }
}

#[tokio::test]
async fn with_the_coordinates_as_key_a_record_that_comes_again_changes_nothing() {
    let key =
        json!({ "write": "insert_ignore", "key": ["_kafka_topic", "_kafka_partition", "_kafka_offset"] });
    let bench = Bench::rows_only(all_columns(&key)).await;
    let table = bench.topic(TOPIC, &properties()).await;
    let rows: Vec<Given> = (0..50).map(|offset| given(1, Some("a"), offset, Some(offset))).collect();
    write(&bench, &table, &rows[..30]).await;
    write(&bench, &table, &rows).await;
    write(&bench, &table, &rows.iter().map(|row| Given { partition: 1, ..*row }).collect::<Vec<_>>()).await;
    let counts = "SELECT count(*) || ' ' || count(DISTINCT (_kafka_partition, _kafka_offset)) FROM $s.orders";
    assert_eq!(bench.one(counts).await, "100 100");
    bench.drop().await;
}

#[tokio::test]
async fn rows_of_one_record_say_the_same_of_where_they_came_from() {
    let of = |offset, rows: &[(i64, &'static str)]| -> Vec<Given> {
        (0..)
            .zip(rows)
            .map(|(row, (id, note))| Given { row, ..given(*id, Some(note), offset, Some(1_000)) })
            .collect()
    };
    let coordinates = json!({ "write": "insert_ignore", "key": ["_kafka_topic", "_kafka_partition", "_kafka_offset", "id"] });
    for (mode, expected) in [
        (json!({}), "1a 7, 1b 7, 1d 7, 2c 7"),
        // The last row of the record stays, in one batch and over several.
        (json!({ "write": "upsert", "key": ["id"] }), "1d 7, 2c 7"),
        (json!({ "write": "upsert", "key": ["id"], "newest_by": "timestamp" }), "1d 7, 2c 7"),
        (json!({ "write": "insert_ignore", "key": ["id"] }), "1a 7, 2c 7"),
        (coordinates, "1a 7, 2c 7"),
    ] {
        let bench = Bench::rows_only(all_columns(&mode)).await;
        let table = bench.topic(TOPIC, &properties()).await;
        let rows = of(7, &[(1, "a"), (1, "b"), (2, "c"), (1, "d")]);
        write(&bench, &table, &rows[..3]).await;
        write(&bench, &table, &rows[3..]).await;
        let found =
            "SELECT string_agg(id || note || ' ' || _kafka_offset, ', ' ORDER BY id, note) FROM $s.orders";
        assert_eq!(bench.one(found).await, expected, "{mode}");
        bench.drop().await;
    }
}

#[tokio::test]
async fn a_table_that_lacks_them_takes_rows_after_the_statements_that_are_told() {
    let bench = Bench::rows_only(newest_by_time()).await;
    bench
        .run("CREATE TABLE $s.orders (id bigint PRIMARY KEY, note text); INSERT INTO $s.orders VALUES (1, 'old'), (2, 'old')")
        .await;
    let told = fatal(bench.prepare(TOPIC, &properties()).await);
    let (_, ways_out) = told.split_once(" | ").unwrap();
    assert_eq!(ways_out.matches("ADD COLUMN").count(), 4, "{told}");
    bench.run(ways_out).await;
    let table = bench.topic(TOPIC, &properties()).await;
    // A row of which no time is known is older than every other one.
    write(&bench, &table, &[given(1, Some("new"), 0, Some(-5)), given(2, None, 1, None)]).await;
    assert_eq!(bench.one("SELECT string_agg(id || note, ',') FROM $s.orders").await, "1new");
    bench.drop().await;
}

#[tokio::test]
async fn a_table_with_columns_of_other_types_takes_what_they_hold() {
    let bench = Bench::rows_only(newest_by_time()).await;
    bench
        .run(
            "CREATE TABLE $s.orders (_kafka_timestamp timestamp(3) NOT NULL, _kafka_topic varchar(249), \
             _kafka_partition bigint, id bigint PRIMARY KEY, _kafka_offset bigint, note text)",
        )
        .await;
    let table = bench.topic(TOPIC, &properties()).await;
    write(&bench, &table, &[given(1, Some("a"), 0, Some(1_001)), given(2, Some("a"), 1, Some(1_001))]).await;
    let more = [given(1, Some("b"), 2, Some(1_000)), given(2, None, 3, Some(1_001)), given(1, None, 4, None)];
    write(&bench, &table, &more).await;
    assert_eq!(bench.one(ROWS).await, "1 a orders 2 0 1.001");
    bench.drop().await;
}

#[tokio::test]
async fn a_refused_row_gives_way_to_the_next_newest() {
    let bench = Bench::rows_only(newest_by_time()).await;
    let table = bench.topic(TOPIC, &properties()).await;
    bench.run("ALTER TABLE $s.orders ADD CHECK (note <> 'bad')").await;
    write(&bench, &table, &[given(3, Some("there"), 0, Some(8))]).await;
    let rows = [
        given(1, Some("good"), 1, Some(3)),
        given(1, Some("bad"), 2, Some(9)),
        given(1, Some("older"), 3, Some(2)),
        given(2, Some("x"), 4, Some(1)),
        given(3, None, 5, Some(7)),
    ];
    let mut batches = [batch_of(&bench, &table, &rows)];
    let refused = rejected(bench.writer.write(&mut batches, &[]).await);
    assert_eq!(refused.iter().map(|row| row.row).collect::<Vec<_>>(), [1]);
    batches[0].retain_rows(|index, _| index != 1);
    bench.writer.write(&mut batches, &[]).await.unwrap();
    let left = "SELECT string_agg(id || note, ',' ORDER BY id) FROM $s.orders";
    assert_eq!(bench.one(left).await, "1good,2x,3there");
    bench.drop().await;
}

/// By key the time and the offset of the record that is left.
type Model = BTreeMap<i64, (Option<i64>, i64)>;

/// The rule, record by record: a row that is newer stays; no time is the oldest.
fn apply(model: &mut Model, given: Given) {
    if model.get(&given.id).is_some_and(|(there, _)| *there > given.timestamp) {
        return;
    }
    if given.note.is_some() {
        model.insert(given.id, (given.timestamp, given.offset));
    } else {
        model.remove(&given.id);
    }
}

#[tokio::test]
async fn whatever_the_batches_the_newest_by_kafkas_time_is_left() {
    let records = prop::collection::vec(
        prop::collection::vec(
            (0_i64..6, prop::bool::weighted(0.7), prop::option::weighted(0.8, 0_i64..9)),
            1..9,
        ),
        1..9,
    );
    let bench = Bench::rows_only(newest_by_time()).await;
    let table = bench.topic(TOPIC, &properties()).await;
    let mut runner = TestRunner::default();
    for _ in 0..40 {
        let batches = records.new_tree(&mut runner).unwrap().current();
        let mut model = Model::new();
        let mut offset = 0;
        for batch in &batches {
            let all: Vec<Given> = batch
                .iter()
                .map(|&(id, puts, timestamp)| {
                    offset += 1;
                    given(id, puts.then_some("x"), offset, timestamp)
                })
                .collect();
            for record in &all {
                apply(&mut model, *record);
            }
            write(&bench, &table, &all).await;
        }
        let expected: Vec<String> = model
            .iter()
            .map(|(id, (time, offset))| {
                let time = time.map(|time| format!(" 0.{time:03}")).unwrap_or_default();
                format!("{id} x orders 2 {offset}{time}")
            })
            .collect();
        assert_eq!(bench.one(ROWS).await, expected.join(", "), "{batches:?}");
        bench.run("TRUNCATE $s.orders").await;
    }
    bench.drop().await;
}
