//! What nobody hopes for, and what a pipeline with write streams does then: it loses nothing and says what to do.

use serde_json::json;
use txconnect_local_bigquery::{Fault, Method, StatusCode, What};

use crate::support::{
    BigQuery, Ended, Event, Kafka, Pipeline, Running, SHORT_SESSION, Signal, Topic, events, eventually,
    numbers, txconnect,
};

const EVENTS: i64 = 400;

fn pipeline(kafka: &Kafka, bigquery: &BigQuery, topic: &Topic<'_>) -> Pipeline {
    Pipeline::into_streams(kafka, bigquery, &[topic])
        .source("commit_interval: 100ms")
        .source(SHORT_SESSION)
        .batch("{ rows: 25, linger: 50ms }")
}

fn fails(method: Method, code: StatusCode) -> Fault {
    Fault::new(method, What::Status { code, message: "not now".to_owned(), in_band: false })
}

fn offsets(pipeline: &Pipeline, verb: &str, arguments: &[&str]) -> Ended {
    let mut command = txconnect();
    command.envs(pipeline.variables());
    Running::start(command.args(["offsets", verb]).arg(pipeline.write()).args(arguments)).wait()
}

/// Commits everything and publishes nothing, then dies.
fn die_before_publication(kafka: &Kafka, bigquery: &BigQuery, topic: &Topic<'_>) -> Pipeline {
    topic.send(&events(0..EVENTS, 1));
    let pipeline = pipeline(kafka, bigquery, topic);
    let running = pipeline.start(&[]);
    eventually("everything is committed", || {
        (topic.committed(&pipeline.group()) == topic.ends().unwrap()).then_some(())
    });
    running.signal(Signal::Kill);
    running.wait();
    bigquery.heal();
    eventually("the group has noticed", || (kafka.members(&pipeline.group()) == 0).then_some(()));
    pipeline
}

#[test]
fn a_stream_that_expired_before_its_rows_were_published_stops_the_pipeline_and_names_both_ways_on() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::failing(vec![fails(Method::FlushRows, StatusCode::Unavailable)]);
    let topic = kafka.topic("expired", 1);
    let pipeline = die_before_publication(&kafka, &bigquery, &topic);
    assert_eq!(bigquery.expire_streams(), 1);
    offsets(&pipeline, "show", &[]).succeeded().says("400 rows before the position may not be visible yet");
    pipeline
        .until_end()
        .failed()
        .says(&format!("{}[0]: 400 rows before the position 400 were committed", topic.name))
        .says("offsets reset");
    // Nothing was visible before: all of it is read again.
    offsets(&pipeline, "reset", &["--to", "earliest", "--yes"])
        .succeeded()
        .says("may never have become visible");
    pipeline.until_end().succeeded();
    assert_eq!(bigquery.ids(&topic.name), numbers(0..EVENTS));
}

#[test]
fn a_reset_publishes_what_the_position_counts_before_it_moves() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::failing(vec![fails(Method::FlushRows, StatusCode::Unavailable)]);
    let topic = kafka.topic("reset-streams", 1);
    let pipeline = die_before_publication(&kafka, &bigquery, &topic);
    assert_eq!(bigquery.rows(&topic.name).len(), 0);
    topic.send(&events(EVENTS..EVENTS + 10, 1));
    offsets(&pipeline, "reset", &["--to", "405", "--yes"]).succeeded().says("skips 5");
    assert_eq!(bigquery.ids(&topic.name), numbers(0..EVENTS));
    pipeline.until_end().succeeded();
    assert_eq!(bigquery.ids(&topic.name), numbers((0..EVENTS).chain(405..410)));
}

#[test]
fn a_position_that_another_program_has_set_stops_the_pipeline_until_it_is_taken() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("foreign", 1);
    topic.send(&events(0..EVENTS, 1));
    let pipeline = pipeline(&kafka, &bigquery, &topic);
    topic.commit(&pipeline.group(), 100);
    pipeline.until_end().failed().says("the position 100 was not stored by this pipeline").says("--to 100");
    offsets(&pipeline, "show", &[]).succeeded().says("was not stored by this pipeline");
    assert_eq!(bigquery.rows(&topic.name).len(), 0);
    offsets(&pipeline, "reset", &["--to", "100", "--yes"]).succeeded();
    pipeline.until_end().succeeded();
    assert_eq!(bigquery.ids(&topic.name), numbers(100..EVENTS));
}

#[test]
fn a_pipeline_that_publishes_nothing_does_not_go_on_where_rows_wait_for_it() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::failing(vec![fails(Method::FlushRows, StatusCode::Unavailable)]);
    let topic = kafka.topic("other-mode", 1);
    let exact = die_before_publication(&kafka, &bigquery, &topic);
    let other = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]).named(exact.name());
    other
        .until_end()
        .failed()
        .says("may not be published yet")
        .says("run the pipeline that has written them");
    exact.until_end().succeeded();
    assert_eq!(bigquery.ids(&topic.name), numbers(0..EVENTS));
    // Now nothing waits any more: the modes follow each other, both ways.
    topic.send(&events(EVENTS..EVENTS + 50, 1));
    other.until_end().succeeded();
    topic.send(&events(EVENTS + 50..EVENTS + 90, 1));
    exact.until_end().succeeded();
    assert_eq!(bigquery.ids(&topic.name), numbers(0..EVENTS + 90));
}

#[test]
fn rows_that_the_server_refuses_become_dead_letters_and_all_others_rows() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let reject =
        |id: i64| Fault::new(Method::AppendRows, What::RejectValue { field: "id".into(), value: json!(id) });
    let bad = [3, 30, 31, 77, 199, 200, 399];
    let bigquery = BigQuery::failing(bad.map(reject).to_vec());
    let topic = kafka.topic("refused-rows", 1);
    topic.send(&events(0..EVENTS, 1));
    let pipeline = pipeline(&kafka, &bigquery, &topic).sink("in_flight: 8").with_dead_letters();
    let books = pipeline.until_end().succeeded().books();
    assert_eq!((books.written, books.dead_lettered), (393, 7));
    assert_eq!(bigquery.ids(&topic.name), numbers((0..EVENTS).filter(|id| !bad.contains(id))));
    let letters = topic.dead_letters().unwrap().read();
    let mut offsets: Vec<i64> =
        letters.iter().map(|letter| letter.header_text("__connect.errors.offset").parse().unwrap()).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, bad);
    assert!(letters.iter().all(|letter| letter.header_text("__connect.errors.stage") == "write"));
    assert_eq!(topic.committed(&pipeline.group()), topic.ends().unwrap());
}

#[test]
fn rows_refused_while_answers_are_lost_are_still_rows_once() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let mut faults: Vec<Fault> = [60, 61, 180, 300]
        .map(|id: i64| {
            Fault::new(Method::AppendRows, What::RejectValue { field: "id".into(), value: json!(id) })
        })
        .to_vec();
    faults.push(Fault::new(Method::AppendRows, What::ReplyLost).chance(0.3, 11).times(10));
    let bigquery = BigQuery::failing(faults);
    let topic = kafka.topic("refused-and-lost", 1);
    topic.send(&events(0..EVENTS, 1));
    let pipeline = pipeline(&kafka, &bigquery, &topic).sink("in_flight: 8").with_dead_letters();
    pipeline.until_end().succeeded();
    let good = (0..EVENTS).filter(|id| ![60, 61, 180, 300].contains(id));
    assert_eq!(bigquery.ids(&topic.name), numbers(good));
}

#[test]
fn a_table_that_is_made_anew_in_mid_run_gets_everything_that_was_not_committed() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("anew", 1);
    topic.send(&events(0..100, 1));
    let pipeline = pipeline(&kafka, &bigquery, &topic);
    let running = pipeline.start(&[]);
    eventually("rows", || (bigquery.rows(&topic.name).len() == 100).then_some(()));
    // The next commit says that all of it is visible.
    std::thread::sleep(std::time::Duration::from_millis(500));
    bigquery.recreate_table(&topic.name);
    topic.send(&events(100..EVENTS, 1));
    eventually("the rest", || (bigquery.rows(&topic.name).len() == 300).then_some(()));
    running.terminate().succeeded().says("going on with a new");
    assert_eq!(bigquery.ids(&topic.name), numbers(100..EVENTS));
}

#[test]
fn a_table_that_is_dropped_in_mid_run_is_made_again() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("dropped", 1);
    topic.send(&events(0..100, 1));
    let pipeline = pipeline(&kafka, &bigquery, &topic);
    let running = pipeline.start(&[]);
    eventually("rows", || (bigquery.rows(&topic.name).len() == 100).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(500));
    bigquery.drop_table(&topic.name);
    topic.send(&events(100..EVENTS, 1));
    eventually("the rest", || (bigquery.rows(&topic.name).len() == 300).then_some(()));
    running.terminate().succeeded();
    assert_eq!(bigquery.ids(&topic.name), numbers(100..EVENTS));
}

#[test]
fn a_permission_that_is_taken_away_stops_the_pipeline_and_the_next_run_completes_it() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::failing(vec![fails(Method::AppendRows, StatusCode::PermissionDenied).after(5)]);
    let topic = kafka.topic("permission", 1);
    topic.send(&events(0..EVENTS, 1));
    let pipeline = pipeline(&kafka, &bigquery, &topic).with_dead_letters();
    pipeline.start(&["--until-end"]).wait().failed().says(&topic.name).says("BigQuery Data Editor");
    assert!(bigquery.rows(&topic.name).len() < 400);
    bigquery.heal();
    pipeline.until_end().succeeded();
    assert_eq!(bigquery.ids(&topic.name), numbers(0..EVENTS));
    assert!(topic.dead_letters().is_none_or(|letters| letters.read().is_empty()));
}

#[test]
fn a_row_above_the_limit_is_a_dead_letter_and_its_neighbours_are_rows() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("large-row", 1);
    topic.send(&events(0..10, 1));
    topic.send(&[Event::of(crate::support::events::large_event(19 << 20)).partition(0)]);
    topic.send(&events(10..20, 1));
    let pipeline = Pipeline::into_streams(&kafka, &bigquery, &[&topic])
        .source("properties: { fetch.message.max.bytes: 33554432 }")
        .with("memory: 160MiB")
        .with_dead_letters();
    let books = pipeline.until_end().succeeded().books();
    assert_eq!((books.written, books.dead_lettered), (20, 1));
    assert_eq!(bigquery.ids(&topic.name), numbers(0..20));
}
