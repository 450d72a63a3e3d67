//! The stdout sink in a shell: pipes that close, disks that are full, envelopes.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value as Json;

use crate::support::{Event, Kafka, Pipeline, Running, Signal, events, txconnect};

#[test]
fn values_come_out_as_they_went_in_and_in_their_order() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let topic = kafka.topic("lines", 1);
    let values = [r#"{ "b":1.50, "a" : "\u00e4" }"#, "[]", "null", "12345678901234567890.10", "\"x\""];
    topic.send(&values.map(Event::of));
    let ended = Pipeline::into_stdout(&kafka, &[&topic]).until_end().succeeded();
    assert_eq!(ended.stdout.lines().collect::<Vec<_>>(), values);
}

#[test]
fn the_envelope_tells_where_each_record_came_from() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let topic = kafka.topic("envelope", 2);
    topic.send(&[
        Event::of("1").key("k").header("h", Some(b"v")).partition(1),
        Event::tombstone("gone").partition(1),
    ]);
    let ended = Pipeline::into_stdout(&kafka, &[&topic]).sink("envelope: true").until_end().succeeded();
    let lines: Vec<Json> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    for (offset, line) in lines.iter().enumerate() {
        assert_eq!(line["topic"], topic.name.as_str());
        assert_eq!((line["partition"].as_u64(), line["offset"].as_u64()), (Some(1), Some(offset as u64)));
        assert!(line["timestamp"].as_i64().unwrap() > 1_600_000_000_000);
    }
    assert_eq!((&lines[0]["key"], &lines[0]["value"]), (&Json::from("k"), &Json::from(1)));
    assert_eq!(lines[0]["headers"][0]["value"], "v");
    assert_eq!((&lines[1]["key"], &lines[1]["value"]), (&Json::from("gone"), &Json::Null));
}

#[test]
fn text_and_bytes_are_lines_of_json_too() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let topic = kafka.topic("decode", 1);
    topic.send(&[Event::of("a\n\"b\"")]);
    let run =
        |decode: &str| Pipeline::into_stdout(&kafka, &[&topic]).with(decode).until_end().succeeded().stdout;
    assert_eq!(run("decode: string"), "\"a\\n\\\"b\\\"\"\n");
    assert_eq!(run("decode: bytes"), "\"YQoiYiI=\"\n");
}

#[test]
fn a_reader_that_goes_away_ends_the_run_quietly() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let topic = kafka.topic("head", 2);
    // More than a pipe holds, so that the reader is missed.
    topic.send(&events(0..20_000, 2));
    let pipeline = Pipeline::into_stdout(&kafka, &[&topic]);
    let file = pipeline.write();
    let mut command = txconnect();
    let (mut reader, writer) = std::io::pipe().unwrap();
    command.arg("run").arg(&file).stdout(Stdio::from(writer));
    let running = Running::start_with_stdout(&mut command);
    // The command holds the other end of the pipe.
    drop(command);
    let mut line = String::new();
    BufReader::with_capacity(64, &mut reader).read_line(&mut line).unwrap();
    assert!(line.starts_with("{\"id\":"), "{line}");
    drop(reader);
    let ended = running.wait().succeeded();
    assert!(!ended.stderr.contains("ERROR") && !ended.stderr.contains("error:"), "{}", ended.told());
    let ends = topic.ends().unwrap();
    let committed = topic.committed(&pipeline.group());
    assert!(committed.iter().all(|(partition, position)| position <= &ends[partition]));
    assert!(committed.values().sum::<i64>() < 20_000, "lines that nobody could read count as written");
}

#[test]
fn a_reader_that_takes_nothing_does_not_keep_the_program_from_ending() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let topic = kafka.topic("pager", 1);
    topic.send(&events(0..20_000, 1));
    let pipeline = Pipeline::into_stdout(&kafka, &[&topic]).source("rebalance: { drain_timeout: 1s }");
    let file = pipeline.write();
    let mut command = txconnect();
    let (mut reader, writer) = std::io::pipe().unwrap();
    command.arg("run").arg(&file).stdout(Stdio::from(writer));
    let running = Running::start_with_stdout(&mut command);
    drop(command);
    let mut line = String::new();
    BufReader::with_capacity(64, &mut reader).read_line(&mut line).unwrap();
    running.signal(Signal::Terminate);
    let ended = running.wait();
    assert!(!ended.stderr.contains("panicked"), "{}", ended.told());
    let committed = topic.committed(&pipeline.group()).get(&0).copied().unwrap_or(0);
    assert!(committed < 20_000, "lines that nobody has taken count as written");
}

#[test]
fn a_full_disk_is_a_clean_stop_with_the_position_unmoved() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let topic = kafka.topic("full", 1);
    topic.send(&events(0..100, 1));
    let pipeline = Pipeline::into_stdout(&kafka, &[&topic]);
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = txconnect();
    command.arg("run").arg(pipeline.write()).arg("--until-end").stdout(Stdio::from(full));
    let ended = Running::start_with_stdout(&mut command).wait().failed();
    assert!(ended.stderr.contains("No space left on device"), "{}", ended.told());
    assert_eq!(topic.committed(&pipeline.group()).get(&0).copied().unwrap_or(0), 0);
}
