//! Bad records: where they go, what is told about them, and that nothing else suffers.

use txconnect_local_bigquery::{Fault, Method, What};

use crate::support::{
    BigQuery, Event, Kafka, Pipeline, Topic, bad_events, event, events, numbers, start_all,
};

/// Sends every kind of bad record, each between two good events; answers how many good ones there are.
fn send_good_and_bad(topic: &Topic<'_>) -> u32 {
    let mut sent = Vec::new();
    let mut good = 0_u32;
    for bad in bad_events() {
        sent.push(event(good.into()));
        good += 1;
        let key = [bad.name.as_bytes(), b"\xff"].concat();
        sent.push(bad.event.key(key).header("trace", Some(b"a\xffb")).header("none", None));
    }
    sent.push(event(good.into()));
    topic.send(&sent);
    good + 1
}

#[test]
fn every_kind_of_bad_record_is_a_dead_letter_and_the_good_ones_are_rows() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("bad", 1);
    let good = send_good_and_bad(&topic);
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]).with_dead_letters();
    let books = pipeline.until_end().succeeded().books();

    let bad = bad_events();
    assert_eq!((books.written, books.dead_lettered), (good.into(), bad.len() as u64));
    assert_eq!(bigquery.ids(&topic.name), numbers(0..good.into()));
    assert_eq!(topic.committed(&pipeline.group()), topic.ends().unwrap());

    let sent = topic.read();
    let letters = topic.dead_letters().unwrap().read();
    assert_eq!(letters.len(), bad.len());
    for (index, bad) in bad.iter().enumerate() {
        let offset = 2 * index + 1;
        let source = &sent[offset];
        let offset = offset.to_string();
        let letter = letters
            .iter()
            .find(|letter| letter.header_text("__connect.errors.offset") == offset)
            .unwrap_or_else(|| panic!("no dead letter of {}", bad.name));
        assert!(letter.key == source.key && letter.value == source.value, "{}: other bytes", bad.name);
        assert!(letter.headers.starts_with(&source.headers), "{}: other headers", bad.name);
        assert_eq!(letter.header_text("__connect.errors.topic"), topic.name);
        assert_eq!(letter.header_text("__connect.errors.partition"), "0");
        assert_eq!(letter.header_text("__connect.errors.connector.name"), pipeline.name());
        assert_eq!(letter.header_text("__connect.errors.stage"), bad.stage, "{}", bad.name);
        let class = letter.header_text("__connect.errors.exception.class.name");
        assert!(class.starts_with(bad.class) && !class.is_empty(), "{}: {class}", bad.name);
        assert!(!letter.header_text("__connect.errors.exception.message").is_empty(), "{}", bad.name);
        letter.header_text("txconnect.error.path");
    }
}

#[test]
fn bad_records_are_left_out_where_the_user_says_skip() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("skipped", 1);
    let good = send_good_and_bad(&topic);
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]).with("on_error: skip");
    let books = pipeline.until_end().succeeded().books();
    assert_eq!((books.written, books.dead_lettered), (good.into(), 0));
    assert_eq!(bigquery.ids(&topic.name), numbers(0..good.into()));
    assert_eq!(topic.committed(&pipeline.group()), topic.ends().unwrap());
    assert!(topic.dead_letters().is_none());
}

#[test]
fn a_pipeline_stops_exactly_before_a_bad_record_and_its_neighbours_go_on() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let bad = bad_events();
    let topics: Vec<Topic<'_>> = bad.iter().map(|bad| kafka.topic(bad.name, 1)).collect();
    for (bad, topic) in bad.iter().zip(&topics) {
        topic.send(&[event(0), event(1), event(2), bad.event.clone(), event(3)]);
    }
    let healthy = kafka.topic("healthy", 1);
    healthy.send(&events(0..100, 1));
    let stopping: Vec<Pipeline> = topics
        .iter()
        .map(|topic| Pipeline::into_bigquery(&kafka, &bigquery, &[topic]).with("on_error: stop"))
        .collect();
    let neighbour = Pipeline::into_bigquery(&kafka, &bigquery, &[&healthy]);
    let all: Vec<&Pipeline> = stopping.iter().chain([&neighbour]).collect();
    let mut ended = start_all(&all, &["--until-end"]).wait().failed();
    for ((bad, topic), pipeline) in bad.iter().zip(&topics).zip(&stopping) {
        assert_eq!(bigquery.ids(&topic.name), numbers(0..3), "{}", bad.name);
        assert_eq!(topic.committed(&pipeline.group())[&0], 3, "{}", bad.name);
        ended = ended.says(&format!("{}[0]@3", topic.name));
    }
    assert_eq!(bigquery.ids(&healthy.name), numbers(0..100));
}

#[test]
fn a_stopped_pipeline_goes_on_with_the_record_it_stopped_at_once_it_may() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("stopped", 1);
    topic.send(&[event(0), Event::of("{"), event(1)]);
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]).sink("insert_ids: false");
    pipeline.until_end().failed().says("on_error");
    let books = pipeline.with("on_error: skip").until_end().succeeded().books();
    assert_eq!((books.read, books.written), (2, 1));
    assert_eq!(bigquery.ids(&topic.name), numbers(0..2));
}

#[test]
fn stages_can_treat_bad_records_differently() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("by-stage", 1);
    topic.send(&[event(0), Event::of("{"), Event::of("{\"id\":\"x\"}"), event(1)]);
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic])
        .with_dead_letters()
        .with("on_error: { decode: skip, validate: dead_letter }");
    pipeline.until_end().succeeded();
    assert_eq!(bigquery.ids(&topic.name), numbers(0..2));
    let letters = topic.dead_letters().unwrap().read();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].header_text("__connect.errors.stage"), "validate");
}

#[test]
fn rows_that_bigquery_refuses_are_dead_letters_and_the_rest_of_the_batch_is_written() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let reject = |note: &str| What::RejectValue { field: "note".to_owned(), value: note.into() };
    let bigquery = BigQuery::failing(vec![
        Fault::new(Method::InsertAll, reject("event 3")),
        Fault::new(Method::InsertAll, reject("event 77")),
    ]);
    let topic = kafka.topic("refused", 1);
    topic.send(&events(0..100, 1));
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]).with_dead_letters();
    let books = pipeline.until_end().succeeded().books();
    assert_eq!((books.read, books.written, books.dead_lettered), (100, 98, 2));
    assert_eq!(bigquery.ids(&topic.name), numbers((0..100).filter(|id| ![3, 77].contains(id))));
    let letters = topic.dead_letters().unwrap().read();
    let mut values: Vec<_> = letters.iter().map(|letter| letter.value.clone()).collect();
    values.sort();
    assert_eq!(values, [event(3).value, event(77).value]);
    assert!(letters.iter().all(|letter| letter.header_text("__connect.errors.stage") == "write"));
}

#[test]
fn a_row_that_bigquery_refuses_stops_the_pipeline_before_it_where_the_user_says_stop() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let what = What::RejectValue { field: "note".to_owned(), value: "event 12".into() };
    let bigquery = BigQuery::failing(vec![Fault::new(Method::InsertAll, what)]);
    let topic = kafka.topic("refused-stop", 1);
    topic.send(&events(0..30, 1));
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]).batch("{ rows: 10, linger: 50ms }");
    pipeline.until_end().failed().says(&format!("{}[0]@12", topic.name));
    let position = topic.committed(&pipeline.group()).get(&0).copied().unwrap_or(0);
    assert!(position <= 12, "the position {position} is behind the refused record");
    let rows = bigquery.ids(&topic.name);
    assert!((0..position).all(|id| rows.contains_key(&id)), "{rows:?} and position {position}");
}

#[test]
fn bad_records_of_many_partitions_go_to_the_partition_of_the_same_number() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let topic = kafka.topic("partitioned", 3);
    let bad: Vec<Event> = (0..30).map(|number| Event::of("{").partition(number % 3)).collect();
    topic.send(&bad);
    let pipeline = Pipeline::into_stdout(&kafka, &[&topic]).with_dead_letters();
    let ended = pipeline.until_end().succeeded();
    assert_eq!((ended.books().read, ended.books().dead_lettered), (30, 30));
    let letters = topic.dead_letters().unwrap();
    assert_eq!(letters.partitions, 3);
    for letter in letters.read() {
        assert_eq!(letter.header_text("__connect.errors.partition"), letter.partition.unwrap().to_string());
    }
}

#[test]
fn a_dead_letter_that_kafka_refuses_stops_the_pipeline_with_the_setting_to_change() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("too-narrow", 1);
    kafka.make_narrow(format!("{}.dead-letters", topic.name), 5_000);
    topic.send(&[event(0), Event::of(vec![b'x'; 20_000]), event(1)]);
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]).with_dead_letters();
    pipeline.until_end().failed().says("max.message.bytes").says(&format!("{}[0]@1", topic.name));
    let position = topic.committed(&pipeline.group()).get(&0).copied().unwrap_or(0);
    assert!(position <= 1, "the position {position} has passed a record that is nowhere");
}

#[test]
fn a_topic_of_nothing_but_bad_records_is_read_to_its_end() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("all-bad", 2);
    let bad: Vec<Event> =
        (0..2_000).map(|number| Event::of(format!("{{{number}")).partition(number % 2)).collect();
    topic.send(&bad);
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]).with_dead_letters();
    let books = pipeline.until_end().succeeded().books();
    assert_eq!((books.read, books.dead_lettered, books.written), (2_000, 2_000, 0));
    let values = |events: Vec<Event>| {
        let mut values: Vec<_> = events.into_iter().map(|event| event.value).collect();
        values.sort();
        values
    };
    assert_eq!(values(topic.dead_letters().unwrap().read()), values(bad));
    assert_eq!(topic.committed(&pipeline.group()), topic.ends().unwrap());
}

#[test]
fn a_record_without_a_schema_may_be_anything_on_stdout() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let topic = kafka.topic("large-line", 1);
    let large = crate::support::events::large_event(9 << 20);
    topic.send(&[event(0), Event::of(large.clone()), event(1)]);
    let ended = Pipeline::into_stdout(&kafka, &[&topic]).until_end().succeeded();
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[1].as_bytes() == large, "a large record is changed on its way");
}

#[test]
fn a_tombstone_makes_no_row_in_bigquery_and_is_null_on_stdout() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("tombstones", 1);
    topic.send(&[event(0), Event::tombstone("a"), event(1), Event::tombstone("b")]);

    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]).with_dead_letters();
    let books = pipeline.until_end().succeeded().books();
    assert_eq!((books.written, books.filtered, books.dead_lettered), (2, 2, 0));
    assert_eq!(bigquery.ids(&topic.name), numbers(0..2));
    assert_eq!(topic.committed(&pipeline.group())[&0], 4);

    let ended = Pipeline::into_stdout(&kafka, &[&topic]).until_end().succeeded();
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines[1], "null", "{}", ended.told());
    assert_eq!(lines[3], "null", "{}", ended.told());
}
