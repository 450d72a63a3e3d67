//! Rows that PostgreSQL refuses: each is a dead letter of its own, and costs no other row anything.

use std::collections::BTreeMap;

use crate::support::{Event, Kafka, Pipeline, Tables, Topic, bad_events, event, events, numbers};

/// A note that no message may repeat: values of records are not for logs and headers.
const SECRET: &str = "value-that-nobody-may-see";

/// A table that has every reason to refuse a row.
fn strict_table(tables: &Tables, topic: &Topic<'_>) {
    tables.run(&format!(
        "CREATE SCHEMA {{schema}};
         CREATE TABLE {{schema}}.parents (id bigint PRIMARY KEY);
         INSERT INTO {{schema}}.parents VALUES (1), (2), (3);
         CREATE TABLE {table} (
             id bigint UNIQUE,
             note text NOT NULL CHECK (length(note) < 100),
             parent bigint REFERENCES {{schema}}.parents,
             later bigint REFERENCES {{schema}}.parents DEFERRABLE INITIALLY DEFERRED,
             region text NOT NULL CHECK (region <> '')
         ) ",
        table = tables.named(&topic.name),
    ));
}

const STRICT: &str = r#"{
    "type": "object",
    "properties": {
        "id": { "type": "integer" },
        "note": { "type": ["string", "null"] },
        "parent": { "type": "integer" },
        "later": { "type": "integer" },
        "region": { "type": "string" }
    },
    "required": ["id"],
    "additionalProperties": false
}"#;

fn good(id: i64) -> Event {
    Event::of(format!("{{\"id\":{id},\"note\":\"event {id}\",\"parent\":1,\"later\":2,\"region\":\"eu\"}}"))
}

/// Each with the class that its dead letter names: what the columns show is found before the server is asked.
fn refused() -> Vec<(&'static str, Event, &'static str)> {
    let long = format!("{SECRET}{}", "-".repeat(100));
    let row = |rest: &str| Event::of(format!("{{\"id\":1000000,{rest}}}"));
    vec![
        ("a check", row(&format!(r#""note":"{long}","region":"eu""#)), "postgres.check_violation"),
        // The table says so before a row is on its way.
        ("not null", row(r#""region":"eu""#), "encode.required"),
        (
            "a foreign key",
            row(&format!(r#""note":"{SECRET}","parent":77,"region":"eu""#)),
            "postgres.foreign_key_violation",
        ),
        (
            "a foreign key that is looked at late",
            row(&format!(r#""note":"{SECRET}","later":77,"region":"eu""#)),
            "postgres.foreign_key_violation",
        ),
        (
            "a key that is there",
            Event::of(format!(r#"{{"id":0,"note":"{SECRET}","region":"eu"}}"#)),
            "postgres.unique_violation",
        ),
        ("a zero character", row(&format!(r#""note":"{SECRET}\u0000","region":"eu""#)), ""),
        ("an integer out of range", row(r#""note":"x","parent":9223372036854775808,"region":"eu""#), ""),
    ]
}

fn letters_by_offset(topic: &Topic<'_>) -> BTreeMap<usize, Event> {
    let letters = topic.dead_letters().expect("a topic of dead letters").read();
    let offset = |letter: &Event| letter.header_text("__connect.errors.offset").parse().unwrap();
    letters.into_iter().map(|letter| (offset(&letter), letter)).collect()
}

#[test]
fn every_row_that_is_refused_is_a_dead_letter_and_all_others_are_rows() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    let topic = kafka.topic("refused", 1);
    strict_table(&tables, &topic);
    let refused = refused();
    let mut sent = vec![good(0)];
    for (number, (_, event, _)) in (1..).zip(&refused) {
        sent.push(event.clone());
        sent.push(good(number));
    }
    topic.send(&sent);
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic])
        .event_schema(STRICT)
        .sink("table_changes: none")
        .with_dead_letters();
    let ended = pipeline.until_end().succeeded();
    let books = ended.books();
    let count = refused.len() as u64;
    assert_eq!((books.written, books.dead_lettered), (count + 1, count));
    assert_eq!(tables.ids(&topic.name), numbers(0..=i64::try_from(count).unwrap()));
    assert_eq!(tables.positions(&pipeline, &topic.name), topic.ends().unwrap());

    let letters = letters_by_offset(&topic);
    assert_eq!(letters.len(), refused.len());
    for (index, (name, event, class)) in refused.iter().enumerate() {
        let letter = &letters[&(2 * index + 1)];
        assert_eq!(letter.value, event.value, "{name}: other bytes");
        let found = letter.header_text("__connect.errors.exception.class.name");
        assert!(found.starts_with(class) && !found.is_empty(), "{name}: {found}");
        for (header, value) in &letter.headers {
            let value = String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned();
            assert!(!value.contains(SECRET), "{name}: {header} tells the value");
        }
    }
    assert!(!ended.stderr.contains(SECRET) && !ended.stdout.contains(SECRET), "{}", ended.told());
}

#[test]
fn every_kind_of_bad_record_is_a_dead_letter_here_too() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    let topic = kafka.topic("bad-records", 1);
    let mut sent = vec![event(0)];
    let mut good = 1;
    let mut dead = 0;
    for bad in bad_events() {
        // PostgreSQL takes rows of 10 MB.
        if bad.name == "ten-megabytes-row" {
            continue;
        }
        sent.push(bad.event);
        sent.push(event(good));
        good += 1;
        dead += 1;
    }
    topic.send(&sent);
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic]).with_dead_letters();
    let books = pipeline.until_end().succeeded().books();
    assert_eq!((books.written, books.dead_lettered), (good.unsigned_abs(), dead));
    assert_eq!(tables.ids(&topic.name), numbers(0..good));
    assert_eq!(topic.dead_letters().unwrap().read().len() as u64, dead);
}

#[test]
fn a_row_without_a_partition_to_lie_in_is_a_dead_letter() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    let topic = kafka.topic("partitioned", 1);
    tables.run(&format!(
        "CREATE SCHEMA {{schema}};
         CREATE TABLE {table} (id bigint NOT NULL, note text) PARTITION BY RANGE (id);
         CREATE TABLE {{schema}}.low PARTITION OF {table} FOR VALUES FROM (0) TO (500);
         CREATE TABLE {{schema}}.high PARTITION OF {table} FOR VALUES FROM (510) TO (1000);",
        table = tables.named(&topic.name),
    ));
    topic.send(&events(0..1_000, 1));
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic]).with_dead_letters();
    let books = pipeline.until_end().succeeded().books();
    assert_eq!((books.written, books.dead_lettered), (990, 10));
    assert_eq!(tables.ids(&topic.name), numbers((0..500).chain(510..1_000)));
}

#[test]
fn a_batch_of_nothing_but_bad_rows_comes_to_its_end() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    let topic = kafka.topic("all-bad", 1);
    tables.run(&format!(
        "CREATE SCHEMA {{schema}}; CREATE TABLE {} (id bigint CHECK (id % 1000 = 0), note text)",
        tables.named(&topic.name)
    ));
    topic.send(&events(1..1_001, 1));
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic]).with_dead_letters();
    let books = pipeline.until_end().succeeded().books();
    assert_eq!((books.written, books.dead_lettered), (1, 999));
    assert_eq!(tables.ids(&topic.name), numbers([1_000]));
}

#[test]
fn a_bad_row_stops_the_pipeline_exactly_before_it_where_nothing_else_is_said() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    let topic = kafka.topic("stopping", 1);
    tables.run(&format!(
        "CREATE SCHEMA {{schema}}; CREATE TABLE {} (id bigint CHECK (id <> 70), note text)",
        tables.named(&topic.name)
    ));
    topic.send(&events(0..100, 1));
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic]);
    pipeline.until_end().failed().says(&format!("{}[0]@70", topic.name));
    assert_eq!(tables.positions(&pipeline, &topic.name)[&0], 70);
    assert_eq!(tables.ids(&topic.name), numbers(0..70));
    let again =
        Pipeline::into_postgres(&kafka, &tables, &[&topic]).named(pipeline.name()).with("on_error: skip");
    again.until_end().succeeded();
    assert_eq!(tables.ids(&topic.name), numbers((0..70).chain(71..100)));
}
