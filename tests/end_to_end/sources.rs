//! What Kafka holds, in every shape: codecs, transactions, topics that come later, brokers that are not there.

use crate::support::{BigQuery, Codec, Kafka, Pipeline, Topic, event, events, eventually, numbers, unique};

#[test]
fn every_compression_codec_is_read() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topics: Vec<Topic<'_>> = Codec::ALL.iter().map(|codec| kafka.topic(codec.name(), 2)).collect();
    for (codec, topic) in Codec::ALL.into_iter().zip(&topics) {
        topic.send_packed(&events(0..500, 2), codec);
    }
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &topics.iter().collect::<Vec<_>>());
    let books = pipeline.until_end().succeeded().books();
    assert_eq!(books.written, 2_500);
    for topic in &topics {
        assert_eq!(bigquery.ids(&topic.name), numbers(0..500), "{}", topic.name);
    }
}

#[test]
fn transaction_markers_and_aborted_records_at_the_tail_are_passed() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("transactions", 2);
    topic.send(&events(0..10, 2));
    topic.send_in_transaction(&events(10..20, 2), true);
    topic.send_in_transaction(&events(20..40, 2), false);
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]);
    let books = pipeline.until_end().succeeded().books();
    assert_eq!((books.read, books.written), (20, 20));
    assert_eq!(bigquery.ids(&topic.name), numbers(0..20));

    // With nothing but an aborted transaction since then there is still an end to reach.
    topic.send_in_transaction(&events(40..50, 2), false);
    let books = pipeline.until_end().succeeded().books();
    assert_eq!((books.read, books.written), (0, 0));
    topic.send(&events(50..60, 2));
    pipeline.until_end().succeeded();
    assert_eq!(bigquery.ids(&topic.name), numbers((0..20).chain(50..60)));
}

#[test]
fn empty_topics_and_empty_partitions_are_at_their_end() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let empty = kafka.topic("empty", 3);
    let sparse = kafka.topic("sparse", 3);
    sparse.send(&[event(5).partition(1)]);
    let books =
        Pipeline::into_bigquery(&kafka, &bigquery, &[&empty, &sparse]).until_end().succeeded().books();
    assert_eq!((books.read, books.written), (1, 1));
    assert_eq!(bigquery.ids(&sparse.name), numbers([5]));
}

#[test]
fn a_second_run_to_the_end_finds_nothing_new() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("again", 2);
    topic.send(&events(0..100, 2));
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]).sink("insert_ids: false");
    assert_eq!(pipeline.until_end().succeeded().books().written, 100);
    assert_eq!(pipeline.until_end().succeeded().books().read, 0);
    assert_eq!(bigquery.ids(&topic.name), numbers(0..100));
}

#[test]
fn a_group_without_a_position_starts_where_the_file_says() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("latest", 1);
    topic.send(&events(0..10, 1));
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]).source("start: latest");
    let running = pipeline.start(&[]);
    // Where the start is becomes visible as a position; records sent before would be skipped rightly.
    eventually("the start is stored or read from", || {
        topic.send(&[event(100)]);
        bigquery.ids(&topic.name).contains_key(&100).then_some(())
    });
    running.terminate().succeeded();
    assert!(bigquery.ids(&topic.name).keys().all(|id| *id == 100));
}

#[test]
fn a_new_topic_that_matches_the_pattern_is_read_and_dead_letter_topics_never_are() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let family = unique("family");
    let first = kafka.make(format!("{family}-one"), 2);
    first.send(&events(0..10, 2));
    first.send(&[crate::support::Event::of("{")]);
    let other = kafka.make(unique("other-family"), 1);
    other.send(&events(0..10, 1));
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[])
        .topics(&format!("pattern: \"{family}-.*\""))
        .with_dead_letters();
    let running = pipeline.start(&[]);
    eventually("rows of the first topic", || (bigquery.ids(&first.name) == numbers(0..10)).then_some(()));
    let second = kafka.make(format!("{family}-two"), 2);
    second.send(&events(0..20, 2));
    eventually("rows of the new topic", || (bigquery.ids(&second.name) == numbers(0..20)).then_some(()));
    running.terminate().succeeded();
    assert_eq!(first.dead_letters().unwrap().read().len(), 1, "a dead letter was read as a record");
    assert!(bigquery.rows(&other.name).is_empty());
}

#[test]
fn partitions_that_are_added_later_are_read_from_their_beginning() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let mut topic = kafka.topic("growing", 1);
    topic.send(&events(0..10, 1));
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic])
        .source("properties: { topic.metadata.refresh.interval.ms: 1000 }");
    let running = pipeline.start(&[]);
    eventually("rows arrive", || (bigquery.ids(&topic.name) == numbers(0..10)).then_some(()));
    topic.grow(3);
    topic.send(&events(10..40, 3));
    eventually("rows of the new partitions", || (bigquery.ids(&topic.name) == numbers(0..40)).then_some(()));
    running.terminate().succeeded();
    assert_eq!(topic.committed(&pipeline.group()), topic.ends().unwrap());
}

#[test]
fn any_number_of_lanes_reads_every_partition() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("lanes", 8);
    topic.send(&events(0..4_000, 8));
    for lanes in [1, 3, 8, 16] {
        let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic])
            .with(&format!("lanes: {lanes}"))
            .sink(&format!("table: \"lanes_{lanes}\""));
        let books = pipeline.until_end().succeeded().books();
        assert_eq!((books.read, books.written), (4_000, 4_000), "{lanes} lanes");
        assert_eq!(bigquery.ids(&format!("lanes_{lanes}")), numbers(0..4_000), "{lanes} lanes");
    }
}

#[test]
fn one_table_can_take_several_topics() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topics = [kafka.topic("many-a", 2), kafka.topic("many-b", 2)];
    topics[0].send(&events(0..300, 2));
    topics[1].send(&events(300..600, 2));
    let pipeline =
        Pipeline::into_bigquery(&kafka, &bigquery, &[&topics[0], &topics[1]]).sink("table: together");
    pipeline.until_end().succeeded();
    assert_eq!(bigquery.ids("together"), numbers(0..600));
}

#[test]
fn an_unknown_topic_fails_a_run_to_the_end() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = unique("unknown");
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[]).topics(&format!("topics: [{topic}]"));
    pipeline.until_end().failed().says(&topic);
}

#[test]
fn an_unknown_topic_is_waited_for_and_read_once_it_is_there() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let name = unique("later");
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[]).topics(&format!("topics: [{name}]"));
    let mut running = pipeline.start(&[]);
    running.wait_for_talk(&name);
    let topic = kafka.make(name, 1);
    topic.send(&events(0..10, 1));
    eventually("rows of the new topic", || (bigquery.ids(&topic.name) == numbers(0..10)).then_some(()));
    running.terminate().succeeded();
}

#[test]
fn an_unreachable_broker_is_told_in_clear_words_and_not_in_a_flood() {
    // Nobody listens on port 1.
    let pipeline = Pipeline::new("127.0.0.1:1", "topics: [t]", "stdout");
    let ended = pipeline.start(&["--until-end", "--timeout", "3s"]).wait().failed().says("127.0.0.1:1");
    let lines = ended.stderr.lines().filter(|line| line.contains("127.0.0.1:1")).count();
    assert!((1..=3).contains(&lines), "{}", ended.told());
}

#[test]
fn a_pipeline_that_waits_for_its_broker_can_be_stopped() {
    let pipeline = Pipeline::new("127.0.0.1:1", "topics: [t]", "stdout");
    let mut running = pipeline.start(&[]);
    running.wait_for_talk("127.0.0.1:1");
    let ended = running.terminate();
    assert!(ended.code.is_some() && !ended.stderr.contains("panicked"), "{}", ended.told());
}
