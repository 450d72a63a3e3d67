//! Exactly once with a transform in the path that answers otherwise each time it is asked: what is there of a record in
//! the end was made in one attempt, and is all that this attempt has made.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use tempfile::TempDir;
use txconnect_local_bigquery::{Fault, Method, What};

use crate::support::{
    BigQuery, Kafka, Pipeline, SHORT_SESSION, Signal, Tables, Topic, events, eventually, numbers, start_all,
    unique,
};

const EVENTS: i64 = 6_000;

/// What the transform makes of the tests' events.
const MADE: &str = r#"{
    "type": "object",
    "properties": {
        "id": { "type": "integer" }, "note": { "type": "string" },
        "attempt": { "type": "integer" }, "number": { "type": "integer" }, "of": { "type": "integer" }
    },
    "required": ["id", "note", "attempt", "number", "of"],
    "additionalProperties": false
}"#;

/// A transform that draws what it does, and the second table that it routes to.
struct Whimsical {
    folder: TempDir,
    routed: String,
}

/// A row as it is found in a table.
#[derive(Clone, Copy, Debug)]
struct Made {
    id: i64,
    attempt: i64,
    number: i64,
    of: i64,
}

impl Whimsical {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let module = wat::parse_str(include_str!("../guests/whimsical.wat")).unwrap();
        std::fs::write(folder.path().join("whimsical.wasm"), module).unwrap();
        std::fs::write(folder.path().join("made.json"), MADE).unwrap();
        Self { folder, routed: unique("routed") }
    }

    /// The blocks of a pipeline file.
    fn blocks(&self) -> String {
        let Self { folder, routed } = self;
        let folder = folder.path().display();
        format!(
            "transform:\n  - {{ wasm: {folder}/whimsical.wasm, config: {routed}, allow: [random] }}\n\
             output: {{ schema: {folder}/made.json, topics: [{routed}] }}"
        )
    }
}

/// The rows of each record that is there: all rows of one attempt.
fn by_record(rows: &[Made]) -> BTreeMap<i64, Vec<Made>> {
    let mut records: BTreeMap<i64, Vec<Made>> = BTreeMap::new();
    for row in rows {
        records.entry(row.id).or_default().push(*row);
    }
    for (id, rows) in &records {
        let first = rows[0];
        let numbers: BTreeSet<i64> = rows.iter().map(|row| row.number).collect();
        let is_one_attempt = rows.iter().all(|row| (row.attempt, row.of) == (first.attempt, first.of));
        let is_complete = rows.len() == numbers.len() && numbers.into_iter().eq(0..first.of);
        assert!(is_one_attempt && is_complete, "record {id} is not one whole attempt: {rows:?}");
    }
    records
}

/// Every record is there with all rows of one attempt or not at all; and there are records of every kind. Answers how many
/// records are there.
fn is_whole(rows: &[Made]) -> u64 {
    let records = by_record(rows);
    assert!(records.keys().all(|id| (0..EVENTS).contains(id)));
    for of in 1..=3 {
        assert!(records.values().any(|rows| rows[0].of == of), "no record has become {of} rows");
    }
    // A quarter is filtered or fails, give or take far more than chance would.
    let there = i64::try_from(records.len()).unwrap();
    assert!((EVENTS * 65 / 100..EVENTS * 85 / 100).contains(&there), "{there} of {EVENTS} records are there");
    records.len() as u64
}

fn in_postgres(tables: &Tables, names: [&str; 2]) -> Vec<Made> {
    let mut rows = Vec::new();
    for name in names {
        assert!(tables.there(name), "{name}");
        let select = format!("SELECT id, attempt, number, \"of\" FROM {}", tables.named(name));
        for row in tables.run(&select) {
            let number = |column: usize| row[column].as_deref().unwrap().parse().unwrap();
            rows.push(Made { id: number(0), attempt: number(1), number: number(2), of: number(3) });
        }
    }
    rows
}

fn in_bigquery(bigquery: &BigQuery, names: [&str; 2]) -> Vec<Made> {
    let rows = names.into_iter().flat_map(|name| {
        let rows = bigquery.rows(name);
        assert!(!rows.is_empty(), "{name}");
        rows
    });
    rows.map(|row| {
        let number = |name: &str| row[name].as_i64().unwrap();
        Made { id: number("id"), attempt: number("attempt"), number: number("number"), of: number("of") }
    })
    .collect()
}

/// Starts and kills the pipeline again and again, whenever more rows have come.
fn kill_repeatedly(pipeline: &Pipeline, times: usize, count: impl Fn() -> i64) {
    for run in 1..=times {
        let before = count();
        let running = pipeline.start(&[]);
        eventually("rows arrive", || (count() >= before + 300).then_some(()));
        running.signal(Signal::Kill);
        assert_eq!(running.wait().code, None, "run {run}");
    }
    assert!(count() < EVENTS, "everything was there before the last kill");
}

/// The last run reads what was left; nothing is read after it.
fn runs_out(pipeline: &Pipeline, topic: &Topic<'_>) {
    let books = pipeline.until_end().succeeded().books();
    assert!(books.read > 0 && books.filtered > 0 && books.dead_lettered > 0, "{books:?}");
    assert_eq!(topic.committed(&pipeline.group()), topic.ends().unwrap());
    assert_eq!(pipeline.until_end().succeeded().books().read, 0);
}

fn into_postgres(kafka: &Kafka, tables: &Tables, topic: &Topic<'_>, guest: &Whimsical) -> Pipeline {
    Pipeline::into_postgres(kafka, tables, &[topic])
        .with(&guest.blocks())
        .source("commit_interval: 100ms")
        .source(SHORT_SESSION)
        .batch("{ rows: 40, linger: 20ms }")
        .with_dead_letters()
}

#[test]
fn kills_leave_of_each_record_one_whole_attempt_in_postgres() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let (tables, guest) = (Tables::new(), Whimsical::new());
    let topic = kafka.topic("whims", 3);
    topic.send(&events(0..EVENTS, 3));
    let pipeline = into_postgres(&kafka, &tables, &topic, &guest);
    kill_repeatedly(&pipeline, 5, || tables.count(&topic.name));
    runs_out(&pipeline, &topic);
    is_whole(&in_postgres(&tables, [&topic.name, &guest.routed]));
    assert_eq!(tables.positions(&pipeline, &topic.name), topic.ends().unwrap());
}

#[test]
fn kills_leave_of_each_record_one_whole_attempt_in_bigquery() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let slow = |method| Fault::new(method, What::Slow { ms: 30 });
    let bigquery = BigQuery::failing(vec![slow(Method::AppendRows), slow(Method::FlushRows)]);
    let guest = Whimsical::new();
    let topic = kafka.topic("stream-whims", 3);
    topic.send(&events(0..EVENTS, 3));
    let pipeline = Pipeline::into_streams(&kafka, &bigquery, &[&topic])
        .with(&guest.blocks())
        .sink("in_flight: 2")
        .source("commit_interval: 100ms")
        .source(SHORT_SESSION)
        .batch("{ rows: 40, linger: 50ms }")
        .with_dead_letters();
    kill_repeatedly(&pipeline, 5, || i64::try_from(bigquery.rows(&topic.name).len()).unwrap());
    bigquery.heal();
    runs_out(&pipeline, &topic);
    is_whole(&in_bigquery(&bigquery, [&topic.name, &guest.routed]));
}

#[test]
fn a_row_that_a_stream_refuses_leaves_no_other_row_of_its_record_behind() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let refusal = What::RejectValue { field: "number".to_owned(), value: json!(2) };
    let bigquery = BigQuery::failing(vec![Fault::new(Method::AppendRows, refusal)]);
    let guest = Whimsical::new();
    let topic = kafka.topic("stream-torn", 2);
    topic.send(&events(0..600, 2));
    let pipeline = Pipeline::into_streams(&kafka, &bigquery, &[&topic])
        .with(&guest.blocks())
        .sink("in_flight: 4")
        .batch("{ rows: 40, linger: 50ms }")
        .with_dead_letters();
    let books = pipeline.until_end().succeeded().books();
    let records = by_record(&in_bigquery(&bigquery, [&topic.name, &guest.routed]));
    assert!(records.values().all(|rows| rows[0].of < 3), "records of three rows are refused");
    // What had to be taken again the books have counted again.
    assert!(books.read >= 600 && books.written >= records.len() as u64, "{books:?}");
    let letters = topic.dead_letters().unwrap().read();
    let refused: BTreeSet<&[u8]> = letters
        .iter()
        .filter(|letter| letter.header_text("__connect.errors.stage") == "write")
        .filter_map(|letter| letter.value.as_deref())
        .collect();
    // A quarter of all, give or take far more than chance would.
    assert!(refused.len() >= 80, "{} records were refused", refused.len());
    assert_eq!(topic.committed(&pipeline.group()), topic.ends().unwrap());
}

#[test]
fn the_books_of_a_run_say_what_the_tables_and_the_letters_hold() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let (tables, guest) = (Tables::new(), Whimsical::new());
    let topic = kafka.topic("whims-books", 2);
    topic.send(&events(0..EVENTS, 2));
    let books = into_postgres(&kafka, &tables, &topic, &guest).until_end().succeeded().books();
    let there = is_whole(&in_postgres(&tables, [&topic.name, &guest.routed]));
    let letters = topic.dead_letters().unwrap().read();
    assert_eq!((books.read, books.written), (EVENTS.unsigned_abs(), there));
    assert_eq!(books.dead_lettered, letters.len() as u64);
    for letter in letters {
        let class = letter.header_text("__connect.errors.exception.class.name");
        assert!(["transform.drawn", "transform.trap"].contains(&class.as_str()), "{class}");
    }
}

#[test]
fn partitions_that_move_leave_of_each_record_one_whole_attempt() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let (tables, guest) = (Tables::new(), Whimsical::new());
    let topic = kafka.topic("whims-moved", 4);
    topic.send(&events(0..EVENTS, 4));
    let pipeline = into_postgres(&kafka, &tables, &topic, &guest);
    let count = || tables.count(&topic.name);
    let arrive = |more: i64| {
        let wanted = (count() + more).min(EVENTS / 2);
        eventually("rows arrive", || (count() >= wanted).then_some(()));
    };
    let zombie = pipeline.start(&[]);
    arrive(100);
    let second = pipeline.start(&[]);
    arrive(100);
    zombie.signal(Signal::Stop);
    let third = pipeline.start(&[]);
    arrive(300);
    second.signal(Signal::Kill);
    second.wait();
    zombie.signal(Signal::Continue);
    arrive(100);
    third.terminate().succeeded();
    zombie.terminate().succeeded();
    // The one that was killed is a member until its session ends: until then a run gets only the others' partitions.
    eventually("all partitions are read", || {
        pipeline.until_end().succeeded();
        (tables.positions(&pipeline, &topic.name) == topic.ends().unwrap()).then_some(())
    });
    is_whole(&in_postgres(&tables, [&topic.name, &guest.routed]));
}

/// A guest that does the worst there is to every record.
fn hostile(folder: &TempDir, body: &str) -> String {
    let text = include_str!("../guests/by_number.wat")
        .replace("(local $first i32)\n", &format!("(local $first i32)\n {body}\n"))
        .replace("\"SCHEMA\"", "\"\"")
        .replace("LENGTH", "\\00\\00\\00\\00");
    let path = folder.path().join("hostile.wasm");
    std::fs::write(&path, wat::parse_str(text).unwrap()).unwrap();
    format!(
        "transform:\n  - wasm: {}\n    limits: {{ memory: 4MiB, time_per_batch: 200ms, max_failures: 3 }}",
        path.display()
    )
}

#[test]
fn a_pipeline_beside_a_hostile_guest_loses_doubles_and_waits_for_nothing() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let worst = [
        ("loops", "(loop $ever (br $ever))"),
        ("traps", "(unreachable)"),
        ("eats", "(loop $ever (drop (memory.grow (i32.const 1))) (br $ever))"),
        (
            "floods",
            "(i32.store (i32.const 1088) (i32.const 0)) (i32.store (i32.const 1092) (i32.const 0))
             (i32.store (i32.const 1096) (i32.const 100000000)) (return (i32.const 1088))",
        ),
    ];
    for (name, body) in worst {
        let (tables, folder) = (Tables::new(), tempfile::tempdir().unwrap());
        let (bad, good) = (kafka.topic(name, 2), kafka.topic("healthy", 2));
        bad.send(&events(0..200, 2));
        good.send(&events(0..EVENTS / 2, 2));
        let attacked = Pipeline::into_postgres(&kafka, &tables, &[&bad])
            .with(&hostile(&folder, body))
            .with_dead_letters();
        let healthy = Pipeline::into_postgres(&kafka, &tables, &[&good]).with_dead_letters();
        let mut running = start_all(&[&attacked, &healthy], &[]);
        running.wait_for_talk("by-number");
        good.send(&events(EVENTS / 2..EVENTS, 2));
        tables.wait_for_rows(&good.name, EVENTS);
        let ended = running.terminate();
        assert!(!ended.stderr.contains("panicked"), "{}", ended.told());
        assert_eq!(tables.ids(&good.name), numbers(0..EVENTS), "{name}");
        assert_eq!(tables.positions(&healthy, &good.name), good.ends().unwrap(), "{}", ended.told());
        assert_eq!(tables.count(&bad.name), 0);
        // No position passes a record that is not a dead letter.
        let letters = bad.dead_letters().map_or(0, |letters| letters.read().len());
        let passed: i64 = tables.positions(&attacked, &bad.name).values().sum();
        assert!(passed <= i64::try_from(letters).unwrap(), "{name}: {passed} passed, {letters} letters");
    }
}
