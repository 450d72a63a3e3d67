//! Several processes in one group.

use std::collections::BTreeMap;

use txconnect_local_bigquery::{Fault, Method, What};

use crate::support::{
    BigQuery, Kafka, Pipeline, Running, SHORT_SESSION, Signal, events, eventually, numbers,
};

#[test]
fn two_processes_share_the_partitions_and_their_books_add_up() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("shared", 4);
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]).sink("insert_ids: false");
    let mut processes: Vec<Running> = vec![pipeline.start(&[]), pipeline.start(&[])];
    for process in &mut processes {
        process.wait_for_talk(&format!("assigned: {}[", topic.name));
    }
    // Whoever has which partition: all of it must arrive, in the middle of a rebalance too.
    let mut rows = 0;
    for round in 0..10 {
        topic.send(&events(round * 400..(round + 1) * 400, 4));
        rows += 400;
        eventually("rows arrive", || (bigquery.rows(&topic.name).len() >= rows).then_some(()));
    }
    let books: Vec<_> =
        processes.into_iter().map(|process| process.terminate().succeeded().books()).collect();
    assert_eq!(books.iter().map(|books| books.written).sum::<u64>(), 4_000);
    assert!(books.iter().all(|books| books.written > 0), "one process had nothing to do: {books:?}");
    assert_eq!(bigquery.ids(&topic.name), numbers(0..4_000));
    assert_eq!(topic.committed(&pipeline.group()), topic.ends().unwrap());
}

#[test]
fn a_member_that_joins_and_leaves_in_mid_run_loses_nothing_and_doubles_nothing() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::failing(vec![Fault::new(Method::InsertAll, What::Slow { ms: 40 })]);
    let topic = kafka.topic("joining", 4);
    topic.send(&events(0..6_000, 4));
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic])
        .sink("insert_ids: false")
        .batch("{ rows: 50, linger: 50ms }");
    let first = pipeline.start(&[]);
    eventually("rows arrive", || (bigquery.rows(&topic.name).len() >= 300).then_some(()));
    let second = pipeline.start(&[]);
    eventually("both are members", || (kafka.members(&pipeline.group()) == 2).then_some(()));
    let seen = bigquery.rows(&topic.name).len();
    eventually("rows go on", || (bigquery.rows(&topic.name).len() >= (seen + 300).min(6_000)).then_some(()));
    let left = second.terminate().succeeded().books();
    eventually("the rest arrives", || (bigquery.rows(&topic.name).len() >= 6_000).then_some(()));
    let stayed = first.terminate().succeeded().books();
    assert_eq!(left.written + stayed.written, 6_000);
    assert_eq!(bigquery.ids(&topic.name), numbers(0..6_000));
}

#[test]
fn until_end_leaves_partitions_to_the_member_that_has_them() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("left", 4);
    topic.send(&events(0..400, 4));
    let pipeline =
        Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]).sink("insert_ids: false").source(SHORT_SESSION);
    let staying = pipeline.start(&[]);
    eventually("rows arrive", || (bigquery.rows(&topic.name).len() >= 400).then_some(()));
    let passing = pipeline.start(&["--until-end"]);
    passing.wait().succeeded();
    topic.send(&events(400..800, 4));
    eventually("the other goes on", || (bigquery.rows(&topic.name).len() >= 800).then_some(()));
    staying.terminate().succeeded();
    assert_eq!(bigquery.ids(&topic.name), numbers(0..800));
}

#[test]
fn a_frozen_member_loses_its_partitions_and_moves_no_position_when_it_wakes_up() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::failing(vec![Fault::new(Method::InsertAll, What::Slow { ms: 60 })]);
    let topic = kafka.topic("frozen", 2);
    topic.send(&events(0..2_000, 2));
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic])
        .source(SHORT_SESSION)
        .batch("{ rows: 50, linger: 50ms }");
    let frozen = pipeline.start(&[]);
    eventually("rows arrive", || (bigquery.rows(&topic.name).len() >= 200).then_some(()));
    frozen.signal(Signal::Stop);
    pipeline.until_end().succeeded();
    let ends: BTreeMap<i32, i64> = topic.ends().unwrap();
    assert_eq!(topic.committed(&pipeline.group()), ends);
    frozen.signal(Signal::Continue);
    topic.send(&events(2_000..2_100, 2));
    eventually("the woken member goes on", || {
        let rows = bigquery.ids(&topic.name);
        (2_000..2_100).all(|id| rows.contains_key(&id)).then_some(())
    });
    frozen.terminate().succeeded();
    assert_eq!(topic.committed(&pipeline.group()), topic.ends().unwrap());
    let rows = bigquery.ids(&topic.name);
    assert!((0..2_100).all(|id| rows.contains_key(&id)), "rows are lost");
}
