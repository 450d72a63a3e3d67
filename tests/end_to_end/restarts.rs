//! Stops of every kind, and what the next run finds.

use txconnect_local_bigquery::{Fault, Method, What};

use crate::support::{BigQuery, Kafka, Pipeline, SHORT_SESSION, Signal, Topic, events, eventually, numbers};

const EVENTS: i64 = 2_000;
const ROWS: usize = 2_000;
const BATCH: usize = 50;

/// Ids are not sent: BigQuery would hide doubled rows by them.
fn slow_pipeline(kafka: &Kafka, bigquery: &BigQuery, topic: &Topic<'_>) -> Pipeline {
    Pipeline::into_bigquery(kafka, bigquery, &[topic])
        .sink("insert_ids: false")
        .source("commit_interval: 100ms")
        .source(SHORT_SESSION)
        .batch(&format!("{{ rows: {BATCH}, linger: 50ms }}"))
}

fn slow(ms: u64) -> Vec<Fault> {
    vec![Fault::new(Method::InsertAll, What::Slow { ms })]
}

fn wait_for_rows(bigquery: &BigQuery, topic: &Topic<'_>, rows: usize) {
    eventually("rows arrive", || (bigquery.rows(&topic.name).len() >= rows).then_some(()));
}

#[test]
fn a_clean_stop_in_the_middle_loses_nothing_and_doubles_nothing() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    for signal in [Signal::Terminate, Signal::Interrupt] {
        let bigquery = BigQuery::failing(slow(100));
        let topic = kafka.topic("stop", 3);
        topic.send(&events(0..EVENTS, 3));
        let pipeline = slow_pipeline(&kafka, &bigquery, &topic);
        let running = pipeline.start(&[]);
        wait_for_rows(&bigquery, &topic, 200);
        running.signal(signal);
        let first = running.wait().succeeded().books();
        let written = bigquery.rows(&topic.name).len();
        assert!(written < ROWS, "the run was over before it was stopped");
        assert_eq!(first.written, written as u64);
        let committed: i64 = topic.committed(&pipeline.group()).values().sum();
        assert_eq!(committed, i64::try_from(written).unwrap(), "committed is exactly what is written");

        let second = pipeline.until_end().succeeded().books();
        assert_eq!(first.written + second.written, ROWS as u64);
        assert_eq!(bigquery.ids(&topic.name), numbers(0..EVENTS));
    }
}

#[test]
fn after_sigkill_nothing_is_lost_and_only_rows_behind_the_last_commit_come_again() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::failing(slow(150));
    let topic = kafka.topic("kill", 1);
    topic.send(&events(0..EVENTS, 1));
    let pipeline = slow_pipeline(&kafka, &bigquery, &topic).sink("in_flight: 2");
    let running = pipeline.start(&[]);
    wait_for_rows(&bigquery, &topic, 400);
    running.signal(Signal::Kill);
    assert_eq!(running.wait().code, None);
    // Requests that had arrived may still be carried out.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let written = bigquery.rows(&topic.name).len();
    let committed = topic.committed(&pipeline.group()).get(&0).copied().unwrap_or(0);
    assert!(written < ROWS, "the run was over before it was killed");

    pipeline.until_end().succeeded();
    let rows = bigquery.ids(&topic.name);
    assert!((0..EVENTS).all(|id| rows.contains_key(&id)), "rows are lost");
    let doubled: Vec<i64> = rows.iter().filter(|(_, count)| **count > 1).map(|(id, _)| *id).collect();
    assert!(doubled.iter().all(|id| *id >= committed), "{doubled:?} below the position {committed}");
    assert!(rows.values().all(|count| *count <= 2));
    assert_eq!(
        doubled.len(),
        written - usize::try_from(committed).unwrap(),
        "exactly what was not committed"
    );
    // Two flushes in flight, and two that were done within one commit interval.
    assert!(doubled.len() <= 4 * BATCH, "{} rows came again", doubled.len());
}

#[test]
fn repeated_kills_lose_nothing() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::failing(slow(20));
    let topic = kafka.topic("kills", 2);
    topic.send(&events(0..EVENTS, 2));
    let pipeline = slow_pipeline(&kafka, &bigquery, &topic);
    for run in 1..=3 {
        let running = pipeline.start(&[]);
        let before = bigquery.rows(&topic.name).len();
        wait_for_rows(&bigquery, &topic, (before + 100).min(ROWS));
        running.signal(Signal::Kill);
        assert_eq!(running.wait().code, None, "run {run}");
    }
    pipeline.until_end().succeeded();
    let rows = bigquery.ids(&topic.name);
    assert!((0..EVENTS).all(|id| rows.contains_key(&id)), "rows are lost");
}

#[test]
fn a_stop_leaves_the_group_at_once() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("leave", 2);
    topic.send(&events(0..100, 2));
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]).sink("insert_ids: false");
    let running = pipeline.start(&[]);
    wait_for_rows(&bigquery, &topic, 100);
    assert_eq!(kafka.members(&pipeline.group()), 1);
    running.terminate().succeeded();
    assert_eq!(
        kafka.members(&pipeline.group()),
        0,
        "a member that has not left keeps its partitions for a while"
    );
    topic.send(&events(100..200, 2));
    pipeline.until_end().succeeded();
    assert_eq!(bigquery.ids(&topic.name), numbers(0..200));
}

#[test]
fn a_stop_while_the_sink_is_down_ends_with_nothing_committed_and_the_next_run_writes_everything() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let what = What::Error {
        status: 503,
        reason: "backendError".to_owned(),
        message: "down".to_owned(),
        retry_after: None,
    };
    let bigquery = BigQuery::failing(vec![Fault::new(Method::InsertAll, what)]);
    let topic = kafka.topic("down", 1);
    topic.send(&events(0..100, 1));
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic])
        .source("rebalance: { drain_timeout: 1s }")
        .with_dead_letters();
    let mut running = pipeline.start(&[]);
    running.wait_for_talk("trying again");
    let ended = running.terminate();
    assert!(!ended.stderr.contains("panicked"), "{}", ended.told());
    assert_eq!(topic.committed(&pipeline.group()).get(&0).copied().unwrap_or(0), 0);

    let healthy = BigQuery::start();
    let again =
        Pipeline::into_bigquery(&kafka, &healthy, &[&topic]).source(&format!("group: {}", pipeline.group()));
    again.until_end().succeeded();
    assert_eq!(healthy.ids(&topic.name), numbers(0..100));
}

#[test]
fn a_second_signal_stops_at_once() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::failing(slow(30_000));
    let topic = kafka.topic("twice", 1);
    topic.send(&events(0..100, 1));
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]);
    let mut running = pipeline.start(&[]);
    eventually("the pipeline is a member", || (kafka.members(&pipeline.group()) == 1).then_some(()));
    running.signal(Signal::Terminate);
    running.wait_for_talk("SIGTERM");
    running.signal(Signal::Terminate);
    let ended = running.wait();
    assert!(!ended.stderr.contains("panicked"), "{}", ended.told());
    assert_eq!(topic.committed(&pipeline.group()).get(&0).copied().unwrap_or(0), 0);
}
