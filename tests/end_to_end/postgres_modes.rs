//! What each way to write into PostgreSQL does with rows and positions.

use crate::support::{Event, Kafka, Pipeline, SHORT_SESSION, Tables, events, numbers};

#[test]
fn rows_and_positions_arrive_together() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    let topic = kafka.topic("append", 3);
    topic.send(&events(0..5_000, 3));
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic]);
    let books = pipeline.until_end().succeeded().books();
    assert_eq!((books.read, books.written), (5_000, 5_000));
    assert_eq!(tables.ids(&topic.name), numbers(0..5_000));
    assert_eq!(tables.positions(&pipeline, &topic.name), topic.ends().unwrap());
    // For tools that show the lag.
    assert_eq!(topic.committed(&pipeline.group()), topic.ends().unwrap());

    topic.send(&events(5_000..5_100, 3));
    let books = pipeline.until_end().succeeded().books();
    assert_eq!((books.read, books.written), (100, 100));
    assert_eq!(tables.ids(&topic.name), numbers(0..5_100));
}

#[test]
fn the_positions_in_the_database_count_and_not_those_of_the_group() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    let topic = kafka.topic("moved-group", 2);
    topic.send(&events(0..1_000, 2));
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic]);
    pipeline.until_end().succeeded();
    topic.send(&events(1_000..1_100, 2));
    // A group that was never there, as after a disaster.
    let again = Pipeline::into_postgres(&kafka, &tables, &[&topic])
        .named(pipeline.name())
        .source(&format!("group: {}-other", pipeline.group()));
    let books = again.until_end().succeeded().books();
    assert_eq!(books.written, 100);
    assert_eq!(tables.ids(&topic.name), numbers(0..1_100));
    assert_eq!(tables.positions(&pipeline, &topic.name), topic.ends().unwrap());
}

#[test]
fn several_topics_go_into_tables_and_positions_of_their_own() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    let topics = ["one", "two", "three"].map(|name| kafka.topic(name, 2));
    for (topic, first) in topics.iter().zip([0, 1_000, 2_000]) {
        topic.send(&events(first..first + 500, 2));
    }
    let pipeline =
        Pipeline::into_postgres(&kafka, &tables, &topics.each_ref()).batch("{ rows: 70, linger: 20ms }");
    assert_eq!(pipeline.until_end().succeeded().books().written, 1_500);
    for (topic, first) in topics.iter().zip([0, 1_000, 2_000]) {
        assert_eq!(tables.ids(&topic.name), numbers(first..first + 500));
        assert_eq!(tables.positions(&pipeline, &topic.name), topic.ends().unwrap());
    }
}

#[test]
fn one_table_takes_several_topics() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    let topics = ["left", "right"].map(|name| kafka.topic(name, 2));
    topics[0].send(&events(0..500, 2));
    topics[1].send(&events(500..1_000, 2));
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &topics.each_ref())
        .sink("table: both")
        .sink("write: append");
    assert_eq!(pipeline.until_end().succeeded().books().written, 1_000);
    assert_eq!(tables.ids("both"), numbers(0..1_000));
}

/// Everything that a table holds, in one order.
fn contents(tables: &Tables, table: &str) -> Vec<Vec<Option<String>>> {
    tables.run(&format!("SELECT id, note FROM {} ORDER BY id", tables.named(table)))
}

#[test]
fn an_upsert_of_everything_by_a_new_pipeline_changes_nothing() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    let topic = kafka.topic("upsert", 2);
    // Every key is written several times, in one batch and in several; the last one counts. A key stays in one partition.
    let versions = (0..3_000_i64).map(|number| {
        let id = number % 400;
        let value = format!("{{\"id\":{id},\"note\":\"version {number}\"}}");
        Event::of(value).partition(i32::try_from(id % 2).unwrap())
    });
    topic.send(&versions.collect::<Vec<Event>>());
    let upsert = || {
        Pipeline::into_postgres(&kafka, &tables, &[&topic])
            .sink("write: upsert")
            .sink("key: [id]")
            .batch("{ rows: 300, linger: 20ms }")
    };
    assert_eq!(upsert().until_end().succeeded().books().written, 3_000);
    let first = contents(&tables, &topic.name);
    let newest: Vec<Vec<Option<String>>> = (0..400)
        .map(|id| {
            let last = if id < 200 { id + 2_800 } else { id + 2_400 };
            vec![Some(id.to_string()), Some(format!("version {last}"))]
        })
        .collect();
    assert_eq!(first, newest);
    assert_eq!(upsert().until_end().succeeded().books().written, 3_000);
    assert_eq!(contents(&tables, &topic.name), first);
}

#[test]
fn insert_ignore_keeps_the_row_that_was_there_first() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    let topic = kafka.topic("ignore", 1);
    let version =
        |id: i64, version: i64| Event::of(format!("{{\"id\":{id},\"note\":\"version {version}\"}}"));
    topic.send(&(0..900).map(|number| version(number % 300, number / 300)).collect::<Vec<_>>());
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic])
        .sink("write: insert_ignore")
        .sink("key: [id]")
        .batch("{ rows: 200, linger: 20ms }");
    assert_eq!(pipeline.until_end().succeeded().books().written, 900);
    let firsts: Vec<Vec<Option<String>>> =
        (0..300).map(|id| vec![Some(id.to_string()), Some("version 0".to_owned())]).collect();
    assert_eq!(contents(&tables, &topic.name), firsts);
}

#[test]
fn a_tombstone_deletes_the_row_of_its_key() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    let topic = kafka.topic("tombstones", 1);
    let row = |id: i64| Event::of(format!("{{\"id\":{id},\"note\":\"event {id}\"}}")).key(id.to_string());
    let mut sent: Vec<Event> = (0..100).map(row).collect();
    sent.extend((0..50).map(|id: i64| Event::tombstone(&id.to_string())));
    // What comes after its tombstone is there again.
    sent.push(row(7));
    topic.send(&sent);
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic])
        .sink("write: upsert")
        .sink("key: [id]")
        .sink("delete_on_tombstone: true")
        .batch("{ rows: 30, linger: 20ms }");
    let books = pipeline.until_end().succeeded().books();
    assert_eq!(books.read, 151);
    assert_eq!(tables.ids(&topic.name), numbers((50..100).chain([7])));
}

#[test]
fn at_least_once_keeps_no_positions_in_the_database() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    let topic = kafka.topic("at-least-once", 2);
    topic.send(&events(0..2_000, 2));
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic]).sink("delivery: at_least_once");
    assert_eq!(pipeline.until_end().succeeded().books().written, 2_000);
    assert_eq!(tables.ids(&topic.name), numbers(0..2_000));
    assert!(!tables.there("txconnect_offsets"));
    assert_eq!(topic.committed(&pipeline.group()), topic.ends().unwrap());
}

#[test]
fn the_table_of_positions_may_lie_in_a_schema_of_its_own() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let (tables, others) = (Tables::new(), Tables::new());
    let topic = kafka.topic("elsewhere", 1);
    topic.send(&events(0..100, 1));
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic])
        .sink(&format!("offsets_schema: {}", others.schema()));
    pipeline.until_end().succeeded();
    assert!(!tables.there("txconnect_offsets"));
    assert_eq!(others.positions(&pipeline, &topic.name), topic.ends().unwrap());
}

/// Statements that a session prepares are gone with the next transaction there, and two members share the sessions.
#[test]
fn pgbouncer_in_transaction_mode_is_as_good_as_the_server() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let modes: [&[&str]; 3] =
        [&["write: append"], &["write: upsert", "key: [id]"], &["write: insert_ignore", "key: [id]"]];
    for mode in modes {
        let tables = Tables::behind_pgbouncer();
        let topic = kafka.topic("bounced", 4);
        topic.send(&events(0..4_000, 4));
        let mut pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic])
            .source(SHORT_SESSION)
            .batch("{ rows: 100, linger: 20ms }");
        for line in mode {
            pipeline = pipeline.sink(line);
        }
        let members = [pipeline.start(&[]), pipeline.start(&[])];
        tables.wait_for_rows(&topic.name, 4_000);
        let written: u64 =
            members.into_iter().map(|member| member.terminate().succeeded().books().written).sum();
        assert_eq!(written, 4_000, "{mode:?}");
        assert_eq!(tables.ids(&topic.name), numbers(0..4_000), "{mode:?}");
        assert_eq!(tables.positions(&pipeline, &topic.name), topic.ends().unwrap(), "{mode:?}");
    }
}

const ALL_COLUMNS: &str = "kafka_columns: [topic, partition, offset, timestamp]";

#[test]
fn rows_say_where_they_came_from() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    let topic = kafka.topic("coordinates", 3);
    topic.send(&events(0..900, 3));
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic]).sink(ALL_COLUMNS);
    assert_eq!(pipeline.until_end().succeeded().books().written, 900);
    let table = tables.named(&topic.name);
    // An event's number is its place in the partition it was sent to.
    let strays = tables.run(&format!(
        "SELECT count(*) FROM {table} WHERE _kafka_topic <> '{}' OR _kafka_partition <> id % 3 \
         OR _kafka_offset <> id / 3 OR _kafka_timestamp IS NULL \
         OR _kafka_timestamp NOT BETWEEN now() - interval '1 hour' AND now() + interval '1 hour'",
        topic.name
    ));
    assert_eq!(strays, [[Some("0".to_owned())]]);

    // Each new pipeline reads everything: the key alone keeps the rows from being doubled.
    for _ in 0..2 {
        let again = Pipeline::into_postgres(&kafka, &tables, &[&topic])
            .sink(ALL_COLUMNS)
            .sink("table: once")
            .sink("write: insert_ignore")
            .sink("key: [_kafka_partition, _kafka_offset]");
        assert_eq!(again.until_end().succeeded().books().read, 900);
        assert_eq!(tables.ids("once"), numbers(0..900));
    }
}

#[test]
fn the_record_with_kafkas_later_time_is_left_whenever_it_is_read() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    let topics = ["earlier", "later"].map(|name| kafka.topic(name, 1));
    let version =
        |id: i64, note: &str| Event::of(format!("{{\"id\":{id},\"note\":\"{note}\"}}")).key(id.to_string());
    topics[0].send(&[version(1, "old"), version(2, "only"), Event::tombstone("3")]);
    // Kafka counts milliseconds.
    std::thread::sleep(std::time::Duration::from_millis(20));
    topics[1].send(&[version(1, "new"), version(3, "new"), version(4, "new"), Event::tombstone("4")]);
    let expected: Vec<Vec<Option<String>>> = [("1", "new"), ("2", "only"), ("3", "new")]
        .iter()
        .map(|(id, note)| vec![Some((*id).to_owned()), Some((*note).to_owned())])
        .collect();
    // What was sent later is read first, and everything once more.
    for topic in [&topics[1], &topics[0], &topics[1]] {
        let pipeline = Pipeline::into_postgres(&kafka, &tables, &[topic])
            .sink("table: both")
            .sink("write: upsert")
            .sink("key: [id]")
            .sink("newest_by: timestamp")
            .sink("delete_on_tombstone: true")
            .sink("kafka_columns: [topic, timestamp]");
        pipeline.until_end().succeeded();
    }
    assert_eq!(contents(&tables, "both"), expected);
    let from = tables.run(&format!("SELECT _kafka_topic FROM {} WHERE id = 1", tables.named("both")));
    assert_eq!(from, [[Some(topics[1].name.clone())]]);
}
