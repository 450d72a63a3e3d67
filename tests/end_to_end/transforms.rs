//! Transforms in the path of records: a guest that does with each what its id says, also the worst.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::support::{
    BigQuery, Ended, Event, Kafka, Pipeline, Running, Tables, Topic, event, numbers, txconnect,
};

/// A folder with the guest, and the block of a pipeline file that takes records through it. It looks at the first digit
/// of the id: 2 two rows, 3 none, 4 an error, 5 a trap, 6 the table `other`, 7 an endless loop; any other is left alone.
struct Guest(TempDir);

impl Guest {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("guest.wasm"), at_first_digit()).unwrap();
        Self(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("guest.wasm")
    }

    fn block(&self, limits: &str) -> String {
        format!("transform:\n  - wasm: {}\n    limits: {{ {limits} }}", self.path().display())
    }

    fn routing(&self) -> String {
        format!("{}\noutput: {{ topics: [other] }}", self.block("time_per_batch: 300ms"))
    }
}

/// The guest of the tests, which looks at the byte behind `{"id":` instead of the first.
fn at_first_digit() -> Vec<u8> {
    let text = include_str!("../guests/by_number.wat")
        .replace("(i32.load8_u (local.get $value))", "(i32.load8_u offset=6 (local.get $value))")
        .replace("\"SCHEMA\"", "\"\"")
        .replace("LENGTH", "\\00\\00\\00\\00");
    wat::parse_str(text).unwrap()
}

/// Letters by the id of their record, with the classes they have.
fn classes(topic: &Topic<'_>) -> BTreeMap<String, String> {
    let letters = topic.dead_letters().map(|letters| letters.read()).unwrap_or_default();
    let class = |letter: &Event| {
        let value = String::from_utf8(letter.value.clone().unwrap()).unwrap();
        let id: String = value.chars().filter(char::is_ascii_digit).take(2).collect();
        (id, letter.header_text("__connect.errors.exception.class.name"))
    };
    letters.iter().map(class).collect()
}

fn dead_letters(pipeline: &Pipeline, arguments: &[&str]) -> Ended {
    let mut command = txconnect();
    command.envs(pipeline.variables());
    let (verb, rest) = arguments.split_first().unwrap();
    Running::start(command.args(["dead-letters", verb]).arg(pipeline.write()).args(rest)).wait()
}

fn all_kinds() -> Vec<Event> {
    let mut sent: Vec<Event> = [10, 20, 30, 40, 11, 50, 21, 60, 12, 70, 31, 61, 13].map(event).into();
    sent.insert(5, Event::of("{bad 99"));
    sent
}

#[test]
fn every_record_becomes_what_the_guest_says_and_a_dying_guest_costs_only_the_guilty_ones() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let (tables, guest) = (Tables::new(), Guest::new());
    let topic = kafka.topic("transformed", 1);
    topic.send(&all_kinds());
    let pipeline =
        Pipeline::into_postgres(&kafka, &tables, &[&topic]).with(&guest.routing()).with_dead_letters();
    let ended = pipeline.until_end().succeeded();
    let books = ended.books();
    assert_eq!((books.read, books.written, books.dead_lettered, books.filtered), (14, 8, 4, 2));
    let twice = BTreeMap::from([(20, 2), (21, 2)]);
    let once = BTreeMap::from([(10, 1), (11, 1), (12, 1), (13, 1)]);
    assert_eq!(tables.ids(&topic.name), twice.into_iter().chain(once).collect());
    assert_eq!(tables.ids("other"), numbers(60..62));
    assert_eq!(tables.positions(&pipeline, &topic.name), topic.ends().unwrap());
    let classes = classes(&topic);
    let classes: Vec<(&str, &str)> = classes.iter().map(|(id, class)| (&**id, &**class)).collect();
    assert_eq!(
        classes,
        [
            ("40", "transform.four"),
            ("50", "transform.trap"),
            ("70", "transform.too_slow"),
            ("99", "decode.json")
        ]
    );
    let letters = topic.dead_letters().unwrap().read();
    let trap = letters.iter().find(|letter| **letter.value.as_ref().unwrap() == *event(50).value.unwrap());
    let trap = trap.unwrap();
    assert_eq!(trap.header_text("__connect.errors.stage"), "transform");
    assert!(
        trap.header_text("__connect.errors.exception.message").contains("the transform by-number failed")
    );
    assert!(!trap.header_text("__connect.errors.exception.stacktrace").is_empty());

    // Through the pipeline again, transforms included: the guest has not changed, so nor has what it does.
    let replay = ["replay", "--all", "--to", "pipeline", "--yes"];
    let ended = dead_letters(&pipeline, &replay).failed();
    ended.says("transform: transform.four").says("transform: transform.trap").says("4 letters stay");
    assert_eq!(tables.count(&topic.name) + tables.count("other"), 10);
    assert_eq!(pipeline.until_end().succeeded().books().read, 0);
}

#[test]
fn letters_of_a_mended_transform_become_all_their_rows() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let (tables, guest) = (Tables::new(), Guest::new());
    let topic = kafka.topic("mended", 1);
    topic.send(&[20, 60, 30, 10].map(event));
    let strict = r#"{ "type": "object", "properties": {
        "id": { "type": "integer", "maximum": 9 }, "note": { "type": "string" } }, "required": ["id"] }"#;
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic])
        .with(&guest.routing())
        .event_schema(strict)
        .with_dead_letters();
    assert_eq!(pipeline.until_end().succeeded().books().dead_lettered, 4);
    let pipeline = pipeline.event_schema(crate::support::events::SCHEMA);
    let ended = dead_letters(&pipeline, &["replay", "--all", "--to", "pipeline", "--yes"]).succeeded();
    ended.says("4 dead letters through the pipeline");
    assert_eq!(tables.ids(&topic.name), BTreeMap::from([(10, 1), (20, 2)]));
    assert_eq!(tables.ids("other"), numbers(60..61));
}

#[test]
fn a_row_that_the_sink_refuses_takes_the_other_rows_of_its_record_along() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let (tables, guest) = (Tables::new(), Guest::new());
    let topic = kafka.topic("halves", 1);
    tables.run(&format!(
        "CREATE SCHEMA {{schema}}; CREATE TABLE {} (id bigint UNIQUE, note text)",
        tables.named(&topic.name)
    ));
    topic.send(&[10, 20, 11, 21, 12].map(event));
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic])
        .with(&guest.block(""))
        .sink("table_changes: none")
        .with_dead_letters();
    let books = pipeline.until_end().succeeded().books();
    assert_eq!((books.written, books.dead_lettered), (3, 2));
    assert_eq!(tables.ids(&topic.name), numbers(10..13));
    let classes: Vec<String> = classes(&topic).into_values().collect();
    assert_eq!(classes, ["postgres.unique_violation", "postgres.unique_violation"]);
}

#[test]
fn a_topic_that_the_file_does_not_list_makes_a_bad_record() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let guest = Guest::new();
    let topic = kafka.topic("unlisted", 1);
    topic.send(&[10, 60, 11].map(event));
    let pipeline = Pipeline::into_stdout(&kafka, &[&topic]).with(&guest.block("")).with_dead_letters();
    let ended = pipeline.until_end().succeeded();
    assert_eq!(ended.stdout.lines().count(), 2);
    assert_eq!(classes(&topic), BTreeMap::from([("60".to_owned(), "transform.topic".to_owned())]));
}

#[test]
fn a_guest_that_fails_again_and_again_fails_its_pipeline_by_name() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let guest = Guest::new();
    let topic = kafka.topic("failing", 1);
    topic.send(&[10, 50, 51, 11, 52, 53, 54, 12].map(event));
    let pipeline =
        Pipeline::into_stdout(&kafka, &[&topic]).with(&guest.block("max_failures: 2")).with_dead_letters();
    let ended = pipeline.until_end().failed();
    ended.says("the transform by-number has failed at 3 records in a row");
    assert!(topic.committed(&pipeline.group()).values().all(|position| *position <= 6));
}

#[test]
fn the_pipeline_stops_before_a_record_that_kills_the_guest_where_that_is_wished() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let guest = Guest::new();
    let topic = kafka.topic("stopped", 1);
    topic.send(&[10, 11, 50, 12].map(event));
    let pipeline =
        Pipeline::into_stdout(&kafka, &[&topic]).with(&guest.block("")).with("on_error: { transform: stop }");
    let ended = pipeline.until_end().failed();
    assert_eq!(ended.stdout.lines().count(), 2, "{}", ended.told());
    ended.says(&format!("transform: {}[0]@2: bad record", topic.name));
    assert_eq!(topic.committed(&pipeline.group()), BTreeMap::from([(0, 2)]));
}

#[test]
fn write_streams_take_the_rows_of_a_record_for_several_tables() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let (bigquery, guest) = (BigQuery::start(), Guest::new());
    let topic = kafka.topic("streamed", 2);
    let sent = [10, 20, 30, 60, 11, 21, 50, 61].map(event);
    let spread = sent.into_iter().zip([0, 1].into_iter().cycle());
    topic.send(&spread.map(|(event, partition)| event.partition(partition)).collect::<Vec<_>>());
    let pipeline =
        Pipeline::into_streams(&kafka, &bigquery, &[&topic]).with(&guest.routing()).with_dead_letters();
    let books = pipeline.until_end().succeeded().books();
    assert_eq!((books.read, books.written, books.dead_lettered, books.filtered), (8, 6, 1, 1));
    assert_eq!(bigquery.ids(&topic.name), BTreeMap::from([(10, 1), (11, 1), (20, 2), (21, 2)]));
    assert_eq!(bigquery.ids("other"), numbers(60..62));
    assert_eq!(pipeline.until_end().succeeded().books().read, 0);
}
