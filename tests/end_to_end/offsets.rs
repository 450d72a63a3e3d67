//! Positions seen and moved by hand.

use std::time::Duration;

use serde_json::Value as Json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::support::{
    BigQuery, Ended, Kafka, Pipeline, Running, Tables, events, eventually, numbers, txconnect,
};

/// `txconnect offsets VERB FILE …`.
fn offsets(pipeline: &Pipeline, verb: &str, arguments: &[&str]) -> Ended {
    let mut command = txconnect();
    // Nothing listens there, and nobody may ask.
    command.env("BIGQUERY_EMULATOR_HOST", "127.0.0.1:1");
    command.envs(pipeline.variables().filter(|(name, _)| *name == "PG_URL"));
    Running::start(command.args(["offsets", verb]).arg(pipeline.write()).args(arguments)).wait()
}

fn reset(pipeline: &Pipeline, to: &str) -> Ended {
    offsets(pipeline, "reset", &["--to", to, "--yes"])
}

fn document(pipeline: &Pipeline) -> Json {
    serde_json::from_str(&offsets(pipeline, "show", &["--json"]).succeeded().stdout).unwrap()
}

/// How many rows a run to the ends writes.
fn rows(pipeline: &Pipeline) -> usize {
    pipeline.until_end().succeeded().stdout.lines().count()
}

#[test]
fn positions_and_lag_are_shown_before_and_after_a_run() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let topic = kafka.topic("shown", 2);
    topic.send(&events(0..30, 2));
    let pipeline = Pipeline::into_stdout(&kafka, &[&topic]);
    offsets(&pipeline, "show", &[]).succeeded().says("unknown to Kafka").says(&topic.name);
    let before = document(&pipeline);
    assert_eq!(before["group"], pipeline.group());
    assert_eq!(before["group_state"], "absent");
    assert_eq!(before["positions_in"], "group");
    assert_eq!(before["lag"], Json::Null);

    assert_eq!(rows(&pipeline), 30);
    topic.send(&events(30..34, 2));
    let after = document(&pipeline);
    assert_eq!(after["group_state"], "empty");
    assert_eq!(after["lag"], 4);
    assert_eq!(after["remarks"], Json::Array(Vec::new()));
    for (number, partition) in after["partitions"].as_array().unwrap().iter().enumerate() {
        assert_eq!(partition["topic"], *topic.name);
        assert_eq!(partition["partition"], number);
        assert_eq!((&partition["begin"], &partition["end"]), (&0.into(), &17.into()));
        assert_eq!((&partition["position"], &partition["lag"]), (&15.into(), &2.into()));
        assert_eq!(partition["topic_id"].as_str().unwrap().len(), 22);
        assert_eq!(partition["sink"], Json::Null);
    }
    offsets(&pipeline, "show", &[]).succeeded().says("without members").says("15");
}

#[test]
fn a_reset_pipeline_reads_again_what_lies_behind_its_new_position() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let topic = kafka.topic("reset", 2);
    topic.send(&events(0..20, 2));
    let pipeline = Pipeline::into_stdout(&kafka, &[&topic]);
    assert_eq!(rows(&pipeline), 20);
    assert_eq!(rows(&pipeline), 0);

    reset(&pipeline, "earliest").succeeded().says("reads 10 again").says("2 positions are moved");
    assert_eq!(rows(&pipeline), 20);
    reset(&pipeline, "7").succeeded();
    assert_eq!(rows(&pipeline), 6);
    let one = ["--to", "5", "--partition", "1", "--yes"];
    offsets(&pipeline, "reset", &one).succeeded().says("1 position is moved");
    assert_eq!(topic.committed(&pipeline.group()), [(0, 10), (1, 5)].into());

    std::thread::sleep(Duration::from_millis(20));
    let between = OffsetDateTime::now_utc().format(&Rfc3339).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    topic.send(&events(20..26, 2));
    reset(&pipeline, "latest").succeeded().says("skips");
    assert_eq!(rows(&pipeline), 0);
    reset(&pipeline, &between).succeeded();
    assert_eq!(topic.committed(&pipeline.group()), [(0, 10), (1, 10)].into());
    assert_eq!(rows(&pipeline), 6);
}

#[test]
fn a_group_can_be_given_positions_before_its_first_run() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("first", 1);
    topic.send(&events(0..10, 1));
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]);
    reset(&pipeline, "4").succeeded().says("first position");
    pipeline.until_end().succeeded();
    assert_eq!(bigquery.ids(&topic.name), numbers(4..10));
}

#[test]
fn nothing_is_changed_while_the_pipeline_runs() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let topic = kafka.topic("active", 1);
    topic.send(&events(0..10, 1));
    let pipeline = Pipeline::into_stdout(&kafka, &[&topic]);
    let running = pipeline.start(&[]);
    let group = pipeline.group();
    eventually("the position is committed", || (topic.committed(&group).get(&0) == Some(&10)).then_some(()));
    assert_eq!(document(&pipeline)["members"][0]["client_id"], format!("txconnect-{group}"));
    let refused = reset(&pipeline, "earliest").failed();
    let refused = refused.says(pipeline.name()).says("is active").says(&format!("txconnect-{group} at "));
    assert!(!refused.stdout.contains("moved"), "{}", refused.told());
    // Looking is allowed.
    offsets(&pipeline, "reset", &["--to", "earliest", "--dry-run"]).succeeded().says("is active");
    assert_eq!(topic.committed(&group)[&0], 10);
    running.terminate().succeeded();
    reset(&pipeline, "earliest").succeeded();
    assert_eq!(topic.committed(&group)[&0], 0);
}

#[test]
fn what_was_not_said_clearly_changes_nothing() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let (topic, other) = (kafka.topic("unclear", 2), kafka.topic("unclear-too", 1));
    for topic in [&topic, &other] {
        topic.send(&events(0..10, topic.partitions));
    }
    let pipeline = Pipeline::into_stdout(&kafka, &[&topic, &other]);
    assert_eq!(rows(&pipeline), 20);
    for (arguments, code, words) in [
        (&["--to", "earliest"][..], 2, "say --yes"),
        (&["--to", "earliest", "--dry-run"], 0, "reads 5 again"),
        (&["--to", "6", "--yes"], 2, "outside the log"),
        (&["--to", "-1", "--yes"], 2, "write earliest"),
        (&["--to", "yesterday", "--yes"], 2, "write earliest"),
        (&["--to", "earliest", "--yes", "--dry-run"], 2, "cannot be used with"),
        (&["--to", "earliest", "--yes", "--partition", "0"], 2, "needs --topic"),
        (&["--to", "earliest", "--yes", "--topic", "nobody"], 2, "reads no topic nobody"),
        (&["--yes"], 2, "--to"),
    ] {
        offsets(&pipeline, "reset", arguments).with_code(code).says(words);
    }
    assert_eq!(topic.committed(&pipeline.group()), [(0, 5), (1, 5)].into());
    assert_eq!(other.committed(&pipeline.group()), [(0, 10)].into());
    // One topic may be named, and a missing one is no reason to leave the others.
    let named = ["--to", "0", "--topic", &other.name, "--yes"];
    offsets(&pipeline, "reset", &named).succeeded();
    assert_eq!(other.committed(&pipeline.group()), [(0, 0)].into());
    assert_eq!(topic.committed(&pipeline.group()), [(0, 5), (1, 5)].into());
    let line = format!("topics: [{}, missing-{}]", topic.name, topic.name);
    let pipeline = pipeline.topics(&line);
    reset(&pipeline, "earliest").succeeded().says("does not exist");
    assert_eq!(topic.committed(&pipeline.group()), [(0, 0), (1, 0)].into());
}

#[test]
fn a_kafka_that_is_away_is_said_in_time() {
    let pipeline = Pipeline::new("127.0.0.1:1", "topics: [t]", "stdout");
    for ended in [offsets(&pipeline, "show", &[]), reset(&pipeline, "earliest")] {
        ended.failed().says(&format!("{}: no Kafka broker of `127.0.0.1:1` answers", pipeline.name()));
    }
}

#[test]
fn positions_in_the_database_are_shown_and_moved_together_with_the_groups() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    let topic = kafka.topic("stored", 1);
    topic.send(&events(0..10, 1));
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic]);
    pipeline.until_end().succeeded();
    let shown = document(&pipeline);
    assert!(shown["positions_in"].as_str().unwrap().contains("txconnect_offsets"), "{shown}");
    let partition = &shown["partitions"][0];
    assert_eq!((&partition["position"], &partition["lag"]), (&10.into(), &0.into()), "{shown}");
    assert_eq!(shown["remarks"], Json::Array(Vec::new()));

    // Another tool moves the group: that is told, and changes nothing.
    topic.commit(&pipeline.group(), 3);
    offsets(&pipeline, "show", &[]).succeeded().says("another tool");
    pipeline.until_end().succeeded();
    assert_eq!(tables.count(&topic.name), 10);

    reset(&pipeline, "4").succeeded();
    assert_eq!(tables.positions(&pipeline, &topic.name), [(0, 4)].into());
    assert_eq!(topic.committed(&pipeline.group()), [(0, 4)].into());
    pipeline.until_end().succeeded();
    let mut expected = numbers(0..10);
    expected.extend((4..10).map(|id| (id, 2)));
    assert_eq!(tables.ids(&topic.name), expected);
}

#[test]
fn a_reset_begins_with_a_topic_that_was_made_anew_and_mends_positions_that_are_gone() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    let topic = kafka.topic("begun", 1);
    topic.send(&events(0..10, 1));
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic]);
    pipeline.until_end().succeeded();
    topic.make_anew();
    topic.send(&events(10..25, 1));
    pipeline.until_end().failed().says("made anew");
    offsets(&pipeline, "show", &[]).succeeded().says("made anew");
    reset(&pipeline, "earliest").succeeded();
    pipeline.until_end().succeeded();
    assert_eq!(tables.ids(&topic.name), numbers(0..25));

    tables.run("DELETE FROM {schema}.txconnect_offsets");
    pipeline.until_end().failed().says("there is none");
    reset(&pipeline, "latest").succeeded();
    topic.send(&events(25..30, 1));
    pipeline.until_end().succeeded();
    assert_eq!(tables.ids(&topic.name), numbers(0..30));
}
