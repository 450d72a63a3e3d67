//! Upserts into BigQuery: whatever is read again, the table is the same.

use serde_json::{Map, Value as Json, json};
use txconnect_local_bigquery::{Fault, Method, StatusCode, What};

use crate::support::{
    BigQuery, Event, Kafka, Pipeline, SHORT_SESSION, Signal, events, eventually, numbers, unique,
};

fn sorted(mut rows: Vec<Map<String, Json>>) -> Vec<Map<String, Json>> {
    rows.sort_by_key(|row| row["id"].as_i64());
    rows
}

fn version(id: i64, note: &str) -> Event {
    Event::of(json!({ "id": id, "note": note }).to_string()).key(json!({ "id": id }).to_string()).partition(0)
}

#[test]
fn reading_everything_again_with_another_group_changes_nothing() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("upsert", 2);
    topic.send(&events(0..1_000, 2));
    let pipeline = || Pipeline::into_upserts(&kafka, &bigquery, &[&topic]).sink("newest_by: timestamp");
    pipeline().until_end().succeeded();
    assert_eq!(bigquery.ids(&topic.name), numbers(0..1_000));
    let table = sorted(bigquery.rows(&topic.name));
    // The same records are sent again, and all of it is read by a group that knows nothing.
    topic.send(&events(0..1_000, 2));
    let books = pipeline().source(&format!("group: {}", unique("again"))).until_end().succeeded().books();
    assert_eq!((books.read, books.written), (2_000, 2_000));
    assert_eq!(sorted(bigquery.rows(&topic.name)), table);
}

#[test]
fn the_newest_version_stays_and_a_tombstone_deletes() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("versions", 1);
    topic.send(&[version(1, "old"), version(2, "old"), version(3, "old"), version(1, "new")]);
    topic.send(&[Event::tombstone(r#"{"id":2}"#).partition(0), version(3, "older"), version(3, "new")]);
    let pipeline = Pipeline::into_upserts(&kafka, &bigquery, &[&topic]).sink("delete_on_tombstone: true");
    pipeline.until_end().succeeded();
    let notes = || -> Vec<(Json, Json)> {
        sorted(bigquery.rows(&topic.name))
            .into_iter()
            .map(|row| (row["id"].clone(), row["note"].clone()))
            .collect()
    };
    let expected = [(json!(1), json!("new")), (json!(3), json!("new"))];
    assert_eq!(notes(), expected);
    let again = Pipeline::into_upserts(&kafka, &bigquery, &[&topic]).sink("delete_on_tombstone: true");
    again.until_end().succeeded();
    assert_eq!(notes(), expected, "read again from the first record");
}

#[test]
fn kills_and_lost_replies_leave_one_row_for_each_key() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::failing(vec![
        Fault::new(Method::AppendRows, What::ReplyLost).chance(0.1, 3).times(20),
        Fault::new(Method::AppendRows, What::Slow { ms: 20 }),
    ]);
    let topic = kafka.topic("upsert-kills", 2);
    topic.send(&events(0..2_000, 2));
    let pipeline = Pipeline::into_upserts(&kafka, &bigquery, &[&topic])
        .source("commit_interval: 100ms")
        .source(SHORT_SESSION)
        .sink("in_flight: 2")
        .batch("{ rows: 50, linger: 50ms }");
    for _ in 0..3 {
        let running = pipeline.start(&[]);
        let before = bigquery.rows(&topic.name).len();
        eventually("rows", || (bigquery.rows(&topic.name).len() >= (before + 100).min(2_000)).then_some(()));
        running.signal(Signal::Kill);
        running.wait();
    }
    bigquery.heal();
    pipeline.until_end().succeeded();
    assert_eq!(bigquery.ids(&topic.name), numbers(0..2_000));
}

#[test]
fn a_table_without_the_key_stops_the_pipeline_with_the_statement_that_gives_it_one() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("no-key", 1);
    topic.send(&events(0..10, 1));
    Pipeline::into_streams(&kafka, &bigquery, &[&topic]).until_end().succeeded();
    let pipeline = Pipeline::into_upserts(&kafka, &bigquery, &[&topic]);
    pipeline.until_end().failed().says("ALTER TABLE").says("ADD PRIMARY KEY (`id`) NOT ENFORCED");
    assert!(topic.committed(&pipeline.group()).is_empty(), "nothing was read");
}

#[test]
fn appends_that_are_at_least_once_lose_nothing() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let status = |code| What::Status { code, message: "later".to_owned(), in_band: false };
    let bigquery = BigQuery::failing(vec![
        Fault::new(Method::AppendRows, What::ReplyLost).times(2).after(2),
        Fault::new(Method::AppendRows, status(StatusCode::Unavailable)).times(2).after(5),
        Fault::new(Method::AppendRows, What::Cut).times(2),
    ]);
    let topics = [kafka.topic("default-a", 1), kafka.topic("default-b", 1)];
    for topic in &topics {
        topic.send(&events(0..1_000, 1));
    }
    let pipeline = Pipeline::into_default_streams(&kafka, &bigquery, &[&topics[0], &topics[1]])
        .with("lanes: 1")
        .batch("{ rows: 100, linger: 50ms }");
    pipeline.until_end().succeeded();
    for topic in &topics {
        let ids = bigquery.ids(&topic.name);
        assert!((0..1_000).all(|id| ids.contains_key(&id)), "rows are lost");
    }
}

#[test]
fn rows_say_where_they_came_from_where_that_is_wanted() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    for mode in ["api: insert_all", "delivery: exactly_once", "delivery: at_least_once"] {
        let topic = kafka.topic("coordinates", 2);
        topic.send(&events(0..10, 2));
        let pipeline = match mode {
            "api: insert_all" => Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]),
            "delivery: exactly_once" => Pipeline::into_streams(&kafka, &bigquery, &[&topic]),
            _ => Pipeline::into_default_streams(&kafka, &bigquery, &[&topic]),
        };
        pipeline.sink("kafka_columns: [topic, partition, offset, timestamp]").until_end().succeeded();
        let rows = bigquery.rows(&topic.name);
        assert_eq!(rows.len(), 10, "{mode}");
        for row in rows {
            let id = row["id"].as_i64().unwrap();
            assert_eq!(row["_kafka_topic"], json!(topic.name), "{mode}");
            assert_eq!((&row["_kafka_partition"], &row["_kafka_offset"]), (&json!(id % 2), &json!(id / 2)));
            assert!(row["_kafka_timestamp"].as_str().unwrap().starts_with("20"), "{mode}");
        }
    }
}
