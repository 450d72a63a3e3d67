//! The main job: the four topics of `data/` through the pipeline files of the repository, unedited.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Map, Value as Json, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::support::bigquery::PROJECT;
use crate::support::process::repository;
use crate::support::{BigQuery, Kafka, Pipeline, Running, Topic, events, numbers, txconnect, unique};

const TOPICS: [&str; 4] = ["cash_ins", "cash_outs_created", "cash_outs_processed", "cash_outs_refunded"];

/// Sends `data/` to Kafka once for all tests here. An earlier run may have left records of its own.
fn publish_data(kafka: &Kafka) {
    static PUBLISHED: OnceLock<()> = OnceLock::new();
    PUBLISHED.get_or_init(|| {
        let mut publish = txconnect();
        publish
            .args(["publish", "--dir", "data/", "--partitions", "3"])
            .env("KAFKA_BROKERS", kafka.brokers());
        let ended = Running::start(&mut publish).wait().succeeded();
        for topic in TOPICS {
            assert!(ended.stdout.contains(&format!("{topic}: ")), "{}", ended.told());
        }
    });
}

fn run(kafka: &Kafka, file: &str) -> Command {
    let mut run = txconnect();
    run.args(["run", file, "--until-end"]).env("KAFKA_BROKERS", kafka.brokers());
    // The file as it is, but with no position of an earlier run.
    run.args(["--set", &format!("source.kafka.group={}", unique("main-job"))]);
    run
}

/// The records of a topic, sorted as text.
fn records(topic: &Topic<'_>) -> Vec<String> {
    let mut records: Vec<String> = topic
        .read()
        .into_iter()
        .map(|event| serde_json::from_slice::<Json>(&event.value.unwrap()).unwrap().to_string())
        .collect();
    records.sort();
    records
}

/// A row as the record it came from: a TIMESTAMP as epoch milliseconds.
fn record(mut row: Map<String, Json>) -> String {
    let moment = OffsetDateTime::parse(row["inserted_at"].as_str().unwrap(), &Rfc3339).unwrap();
    let milliseconds = i64::try_from(moment.unix_timestamp_nanos() / 1_000_000).unwrap();
    row.insert("inserted_at".to_owned(), json!(milliseconds));
    row.retain(|column, _| !column.starts_with("_kafka_"));
    Json::Object(row).to_string()
}

/// Runs a pipeline file of the repository; compares its tables with the topics.
fn fill_tables(kafka: &Kafka, bigquery: &BigQuery, file: &str, suffix: &str, upserts: bool) -> Vec<String> {
    let mut run = run(kafka, file);
    run.env("GCP_PROJECT", PROJECT).env("BIGQUERY_EMULATOR_HOST", bigquery.address());
    let books = Running::start(&mut run).wait().succeeded().books();
    let mut all = 0;
    let mut tables = Vec::new();
    for topic in TOPICS {
        let table = bigquery.rows_in("transactions", &format!("{topic}{suffix}"));
        let mut rows: Vec<String> = table.into_iter().map(record).collect();
        rows.sort();
        let mut records = records(&kafka.existing(topic).unwrap());
        assert!(!records.is_empty());
        all += records.len() as u64;
        if upserts {
            // A transaction is one row, however often it was published.
            records.dedup();
        }
        assert!(
            rows == records,
            "{file}: {topic}: {} rows of {} records, or others",
            rows.len(),
            records.len()
        );
        tables.extend(rows);
    }
    assert_eq!((books.read, books.written, books.dead_lettered, books.filtered), (all, all, 0, 0));
    tables
}

#[test]
fn every_record_of_the_four_topics_is_one_row_of_its_table() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    publish_data(&kafka);
    for (file, suffix) in [
        ("pipelines/transactions-exactly-once.yaml", "_log"),
        ("pipelines/transactions-insert-all.yaml", "_streamed"),
    ] {
        let bigquery = BigQuery::start();
        fill_tables(&kafka, &bigquery, file, suffix, false);
    }
}

#[test]
fn running_the_main_job_again_from_the_first_record_changes_no_row() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    publish_data(&kafka);
    let bigquery = BigQuery::start();
    let first = fill_tables(&kafka, &bigquery, "pipelines/transactions.yaml", "", true);
    // Another group knows nothing of the first, as after its deletion.
    assert!(fill_tables(&kafka, &bigquery, "pipelines/transactions.yaml", "", true) == first);
}

#[test]
fn every_record_of_the_four_topics_is_one_line_on_stdout() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    publish_data(&kafka);
    let ended = Running::start(&mut run(&kafka, "pipelines/transactions-stdout.yaml")).wait().succeeded();
    let mut lines: Vec<&str> = ended.stdout.lines().collect();
    lines.sort_unstable();
    let mut expected: Vec<String> =
        TOPICS.iter().flat_map(|topic| records(&kafka.existing(topic).unwrap())).collect();
    expected.sort();
    assert!(lines == expected, "{} lines of {} records, or others", lines.len(), expected.len());
}

#[test]
fn the_embedded_demo_ends_with_a_table_of_what_is_where() {
    let mut demo = txconnect();
    demo.args(["run", "pipelines/transactions.yaml", "--embedded", "--until-end"]);
    let ended = Running::start(&mut demo).wait().succeeded();
    let mut all = 0;
    for topic in TOPICS {
        let text = std::fs::read_to_string(repository().join(format!("data/{topic}.json"))).unwrap();
        let count = serde_json::from_str::<Vec<Json>>(&text).unwrap().len();
        all += count as u64;
        let table = format!("transactions.{topic}");
        let row = ended.stdout.lines().find(|line| line.trim_start().starts_with(&table));
        let cells: Vec<&str> = row.unwrap_or_else(|| panic!("{}", ended.told())).split_whitespace().collect();
        assert_eq!(cells[1].replace(',', "").parse::<usize>().ok(), Some(count), "{}", ended.told());
    }
    let books = ended.books();
    assert_eq!((books.read, books.written), (all, all));
}

/// Many enough that batches, commits and lanes all take many turns.
const EVENTS: i64 = 300_000;

#[test]
fn three_hundred_thousand_events_run_through_and_the_books_balance() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.ndjson");
    let mut writer = BufWriter::new(File::create(&file).unwrap());
    for event in events(0..EVENTS, 1) {
        writer.write_all(&event.value.unwrap()).unwrap();
        writer.write_all(b"\n").unwrap();
    }
    writer.flush().unwrap();
    let topic = unique("many");
    let mut publish = txconnect();
    publish.args(["publish", &topic]).arg(&file).args(["--partitions", "4", "--brokers", kafka.brokers()]);
    Running::start(&mut publish).wait().succeeded().says("300,000 records");

    let bigquery = BigQuery::start();
    let topic = kafka.existing(&topic).unwrap();
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]);
    let books = pipeline.until_end().succeeded().books();
    assert_eq!((books.read, books.written), (300_000, 300_000));
    assert!(bigquery.ids(&topic.name) == numbers(0..EVENTS), "rows are lost or doubled");
    assert_eq!(topic.committed(&pipeline.group()), topic.ends().unwrap());
}
