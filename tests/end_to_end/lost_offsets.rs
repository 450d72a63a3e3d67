//! Positions that the log does not hold any more.

use crate::support::{BigQuery, Kafka, Pipeline, Topic, events, numbers};

/// A group at 10 in a log that begins at 15 and ends at 20.
fn lose_records(kafka: &Kafka, bigquery: &BigQuery, topic: &Topic<'_>) -> String {
    topic.send(&events(0..10, 1));
    let pipeline = Pipeline::into_bigquery(kafka, bigquery, &[topic]);
    pipeline.until_end().succeeded();
    topic.send(&events(10..20, 1));
    topic.delete_below(15);
    pipeline.group()
}

#[test]
fn a_position_outside_the_log_stops_the_pipeline_and_stays() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("lost", 1);
    let group = lose_records(&kafka, &bigquery, &topic);
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]).source(&format!("group: {group}"));
    pipeline.until_end().failed().says(&topic.name).says("on_lost_offsets");
    assert_eq!(topic.committed(&group)[&0], 10);
    assert_eq!(bigquery.ids(&topic.name), numbers(0..10));
}

#[test]
fn a_position_beyond_the_end_of_the_log_stops_the_pipeline() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("beyond", 1);
    topic.send(&events(0..10, 1));
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]);
    topic.commit(&pipeline.group(), 100);
    pipeline.until_end().failed().says(&topic.name).says("on_lost_offsets");
    assert_eq!(topic.committed(&pipeline.group())[&0], 100);
    pipeline.source("on_lost_offsets: earliest").until_end().succeeded();
    assert_eq!(bigquery.ids(&topic.name), numbers(0..10));
}

#[test]
fn a_topic_made_anew_is_read_from_its_beginning() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("anew", 1);
    topic.send(&events(0..10, 1));
    // BigQuery would take the same topic, partition and offset within a minute for the same row.
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]).sink("insert_ids: false");
    pipeline.until_end().succeeded();
    // Kafka forgets the positions of all groups along with the topic.
    topic.make_anew();
    topic.send(&events(10..15, 1));
    pipeline.until_end().succeeded();
    assert_eq!(bigquery.ids(&topic.name), numbers(0..15));
}

#[test]
fn records_that_vanish_while_the_pipeline_waits_for_its_sink_are_not_skipped_silently() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("vanish", 1);
    topic.send(&events(0..10, 1));
    let first = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]);
    first.until_end().succeeded();
    topic.send(&events(10..20, 1));
    topic.delete_below(20);
    // Nothing is left to read, but the records between 10 and 20 were never seen.
    first.until_end().failed().says("on_lost_offsets");
    assert_eq!(topic.committed(&first.group())[&0], 10);
}

#[test]
fn the_user_may_have_it_go_on_at_the_earliest_record() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("lost-earliest", 1);
    let group = lose_records(&kafka, &bigquery, &topic);
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic])
        .source(&format!("group: {group}"))
        .source("on_lost_offsets: earliest");
    pipeline.until_end().succeeded();
    assert_eq!(topic.committed(&group)[&0], 20);
    assert_eq!(bigquery.ids(&topic.name), numbers((0..10).chain(15..20)));
}

#[test]
fn the_user_may_have_it_go_on_with_what_comes_from_now_on() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("lost-latest", 1);
    let group = lose_records(&kafka, &bigquery, &topic);
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic])
        .source(&format!("group: {group}"))
        .source("on_lost_offsets: latest");
    pipeline.until_end().succeeded();
    assert_eq!(bigquery.ids(&topic.name), numbers(0..10));
}
