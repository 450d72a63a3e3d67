//! Exactly once into BigQuery: whatever happens on the way, every record is one row.

use std::time::Duration;

use txconnect_local_bigquery::{Closing, Fault, Method, QuotaReason, StatusCode, What};

use crate::support::{BigQuery, Kafka, Pipeline, SHORT_SESSION, Signal, Topic, events, eventually, numbers};

const EVENTS: i64 = 2_000;

/// Small batches, many of them on their way, and a commit ten times a second.
fn pipeline(kafka: &Kafka, bigquery: &BigQuery, topic: &Topic<'_>, in_flight: u8) -> Pipeline {
    Pipeline::into_streams(kafka, bigquery, &[topic])
        .sink(&format!("in_flight: {in_flight}"))
        .source("commit_interval: 100ms")
        .source(SHORT_SESSION)
        .batch("{ rows: 25, linger: 50ms }")
        .with_dead_letters()
}

fn slow(method: Method, ms: u64) -> Fault {
    Fault::new(method, What::Slow { ms })
}

fn status(method: Method, code: StatusCode) -> Fault {
    Fault::new(method, What::Status { code, message: "try later".to_owned(), in_band: false })
}

fn wait_for_rows(bigquery: &BigQuery, topic: &Topic<'_>, rows: usize) {
    eventually("rows become visible", || (bigquery.rows(&topic.name).len() >= rows).then_some(()));
}

/// Every event is one row, the group stands at the ends, and nothing depends on a stream any more.
fn is_complete(bigquery: &BigQuery, topic: &Topic<'_>, pipeline: &Pipeline) {
    assert_eq!(bigquery.ids(&topic.name), numbers(0..EVENTS));
    assert_eq!(topic.committed(&pipeline.group()), topic.ends().unwrap());
    assert!(topic.dead_letters().is_none_or(|letters| letters.read().is_empty()));
    let last: Vec<_> = bigquery
        .streams()
        .into_iter()
        .filter(|stream| stream.flushed == stream.rows && !stream.finalized)
        .collect();
    assert!(last.iter().all(|stream| stream.rows == 0), "not finalized: {last:?}");
}

/// Runs a pipeline whose BigQuery fails as scripted.
fn survives(name: &str, faults: Vec<Fault>) {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::failing(faults);
    let topic = kafka.topic(name, 2);
    topic.send(&events(0..EVENTS, 2));
    let pipeline = pipeline(&kafka, &bigquery, &topic, 8);
    let books = pipeline.until_end().succeeded().books();
    assert_eq!((books.read, books.written, books.dead_lettered), (2_000, 2_000, 0));
    is_complete(&bigquery, &topic, &pipeline);
}

#[test]
fn every_event_is_one_row() {
    survives("streams", Vec::new());
}

#[test]
fn appends_whose_reply_was_lost_are_not_doubled() {
    survives("append-reply-lost", vec![Fault::new(Method::AppendRows, What::ReplyLost).times(12).after(3)]);
}

#[test]
fn appends_on_a_connection_that_is_cut_are_sent_again() {
    survives("append-cut", vec![Fault::new(Method::AppendRows, What::Cut).chance(0.2, 7).times(10)]);
}

#[test]
fn a_server_that_closes_connections_is_no_trouble() {
    let closed = |because| Fault::new(Method::AppendRows, What::StreamClosed { because }).times(3);
    survives("append-closed", vec![closed(Closing::Restart), closed(Closing::Inactivity).after(5)]);
}

#[test]
fn an_overloaded_server_is_waited_for() {
    let overloaded = |code| status(Method::AppendRows, code).times(3).after(2);
    survives("append-unavailable", [StatusCode::Unavailable, StatusCode::Internal].map(overloaded).to_vec());
}

#[test]
fn a_quota_is_waited_out() {
    let reason = QuotaReason::RateLimitExceeded;
    survives("append-quota", vec![Fault::new(Method::AppendRows, What::Quota { reason }).times(3)]);
}

#[test]
fn answers_that_come_late_are_waited_for() {
    survives("append-late", vec![Fault::new(Method::AppendRows, What::LateReply { ms: 60 })]);
}

#[test]
fn a_new_table_and_its_streams_are_waited_for() {
    survives(
        "append-new",
        vec![
            Fault::new(Method::CreateWriteStream, What::NotFoundAfterCreate { ms: 700 }),
            Fault::new(Method::AppendRows, What::NotFoundAfterCreate { ms: 400 }),
        ],
    );
}

#[test]
fn rows_that_could_not_be_published_at_once_are_published_later() {
    survives(
        "flush-fails",
        vec![
            status(Method::FlushRows, StatusCode::Unavailable).times(2),
            Fault::new(Method::FlushRows, What::ReplyLost).times(2),
            Fault::new(Method::FlushRows, What::Cut).times(1),
            Fault::new(Method::FinalizeWriteStream, What::ReplyLost).times(1),
            Fault::new(Method::CreateWriteStream, What::ReplyLost).times(1),
        ],
    );
}

#[test]
fn repeated_kills_lose_nothing_and_double_nothing() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::failing(vec![slow(Method::AppendRows, 40), slow(Method::FlushRows, 40)]);
    let topic = kafka.topic("stream-kills", 2);
    topic.send(&events(0..EVENTS, 2));
    let pipeline = pipeline(&kafka, &bigquery, &topic, 2);
    for run in 1..=4 {
        let running = pipeline.start(&[]);
        let before = bigquery.rows(&topic.name).len();
        wait_for_rows(&bigquery, &topic, (before + 100).min(2_000));
        running.signal(Signal::Kill);
        assert_eq!(running.wait().code, None, "run {run}");
    }
    bigquery.heal();
    pipeline.until_end().succeeded();
    is_complete(&bigquery, &topic, &pipeline);
}

#[test]
fn a_process_that_is_killed_between_commit_and_publication_leaves_its_rows_to_the_next() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::failing(vec![status(Method::FlushRows, StatusCode::Unavailable)]);
    let topic = kafka.topic("between", 2);
    topic.send(&events(0..EVENTS, 2));
    let pipeline = pipeline(&kafka, &bigquery, &topic, 8);
    let running = pipeline.start(&[]);
    eventually("everything is committed", || {
        (topic.committed(&pipeline.group()) == topic.ends().unwrap()).then_some(())
    });
    running.signal(Signal::Kill);
    running.wait();
    assert_eq!(bigquery.rows(&topic.name).len(), 0, "nothing was published");
    bigquery.heal();
    let books = pipeline.until_end().succeeded().books();
    assert_eq!(books.read, 0, "nothing is read again");
    is_complete(&bigquery, &topic, &pipeline);
}

#[test]
fn a_stop_in_order_publishes_everything_and_depends_on_no_stream() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::failing(vec![slow(Method::AppendRows, 30)]);
    let topic = kafka.topic("stream-stop", 3);
    topic.send(&events(0..EVENTS, 3));
    let pipeline = pipeline(&kafka, &bigquery, &topic, 2);
    let running = pipeline.start(&[]);
    wait_for_rows(&bigquery, &topic, 200);
    let first = running.terminate().succeeded().books();
    let written = bigquery.rows(&topic.name).len();
    assert_eq!(first.written, written as u64, "everything that was written can be seen");
    let committed: i64 = topic.committed(&pipeline.group()).values().sum();
    assert_eq!(committed, i64::try_from(written).unwrap());
    assert!(bigquery.streams().iter().all(|stream| stream.finalized), "{:?}", bigquery.streams());
    // A long pause.
    bigquery.expire_streams();
    pipeline.until_end().succeeded();
    is_complete(&bigquery, &topic, &pipeline);
}

#[test]
fn partitions_that_move_between_members_take_no_row_along_twice() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    for strategy in ["cooperative-sticky", "range"] {
        let bigquery = BigQuery::failing(vec![slow(Method::AppendRows, 20)]);
        let topic = kafka.topic("stream-members", 4);
        topic.send(&events(0..EVENTS, 4));
        let pipeline = Pipeline::into_streams(&kafka, &bigquery, &[&topic])
            .sink("in_flight: 2")
            .source("commit_interval: 100ms")
            .source(&format!(
                "properties: {{ session.timeout.ms: 2000, heartbeat.interval.ms: 300, \
                 partition.assignment.strategy: {strategy} }}"
            ))
            .batch("{ rows: 25, linger: 50ms }");
        let first = pipeline.start(&[]);
        wait_for_rows(&bigquery, &topic, 100);
        let second = pipeline.start(&[]);
        eventually("two members", || (kafka.members(&pipeline.group()) == 2).then_some(()));
        let before = bigquery.rows(&topic.name).len();
        wait_for_rows(&bigquery, &topic, (before + 100).min(2_000));
        first.signal(Signal::Kill);
        first.wait();
        let third = pipeline.start(&[]);
        std::thread::sleep(Duration::from_millis(300));
        second.terminate().succeeded();
        third.terminate().succeeded();
        bigquery.heal();
        pipeline.until_end().succeeded();
        is_complete(&bigquery, &topic, &pipeline);
    }
}

#[test]
fn a_frozen_process_that_wakes_up_late_doubles_nothing() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::failing(vec![slow(Method::AppendRows, 40)]);
    let topic = kafka.topic("stream-zombie", 1);
    topic.send(&events(0..EVENTS, 1));
    let pipeline = pipeline(&kafka, &bigquery, &topic, 2);
    let zombie = pipeline.start(&[]);
    wait_for_rows(&bigquery, &topic, 100);
    zombie.signal(Signal::Stop);
    let heir = pipeline.start(&[]);
    let before = bigquery.rows(&topic.name).len();
    wait_for_rows(&bigquery, &topic, before + 200);
    zombie.signal(Signal::Continue);
    wait_for_rows(&bigquery, &topic, before + 400);
    bigquery.heal();
    wait_for_rows(&bigquery, &topic, 2_000);
    heir.terminate().succeeded();
    zombie.terminate().succeeded();
    is_complete(&bigquery, &topic, &pipeline);
}
