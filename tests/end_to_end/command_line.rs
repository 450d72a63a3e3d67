//! What is refused before anything connects, and what several pipelines mean to each other.

use std::path::{Path, PathBuf};

use crate::support::{
    BigQuery, Ended, Kafka, Pipeline, Running, events, numbers, start_all, txconnect, unique,
};

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path
}

fn run(arguments: &[&Path]) -> Ended {
    let mut command = txconnect();
    Running::start(command.arg("run").args(arguments).arg("--until-end")).wait()
}

/// Nobody listens there: whatever connects would not end with exit code 2.
const NOWHERE: &str = "brokers: \"127.0.0.1:1\"";

/// Runs one file with a mistake; both `run` and `check` must refuse it in the same words.
fn refused(yaml: &str, place: &str, words: &str) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "schemas/broken.json", "{\"type\": 7}");
    write(folder.path(), "schemas/cut.json", "{\"type\": ");
    write(folder.path(), "schemas/event.json", crate::support::events::SCHEMA);
    let file = write(folder.path(), "p.yaml", yaml);
    let ran = run(&[&file]).with_code(2).says(place).says(words);
    assert!(ran.stdout.is_empty(), "{}", ran.told());
    let mut check = txconnect();
    Running::start(check.arg("check").arg(&file)).wait().with_code(2).says(place).says(words);
}

#[test]
fn mistakes_in_a_pipeline_file_are_told_with_their_place_before_anything_connects() {
    let source = format!("source: {{ kafka: {{ {NOWHERE}, topics: [t] }} }}\n");
    let bigquery = "sink: { bigquery: { project: p, dataset: d } }\n";
    for (yaml, place, words) in [
        (format!("{source}sink: {{ stdout: {{}} }}\nbatsh: {{}}\n"), "p.yaml:3:", "batsh"),
        (format!("{source}sink: {{ stdout: {{ envelop: true }} }}\n"), "p.yaml:2:", "envelop"),
        (format!("{source}sink: {{ kinesis: {{}} }}\n"), "p.yaml:2:", "kinesis"),
        (source.clone(), "p.yaml:", "sink"),
        (format!("{source}{bigquery}"), "p.yaml:", "schema"),
        (format!("{source}{bigquery}validate: {{ schema: schemas/none.json }}\n"), "p.yaml:3:", "none.json"),
        (format!("{source}{bigquery}validate: {{ schema: schemas/broken.json }}\n"), "broken.json", "type"),
        (format!("{source}{bigquery}validate: {{ schema: schemas/cut.json }}\n"), "cut.json", "JSON"),
        (format!("{source}sink: {{ stdout: {{}} }}\non_error: dead_letter\n"), "p.yaml:3:", "dead_letters"),
        (format!("{source}sink: {{ stdout: {{}} }}\nname: Not A Name\n"), "p.yaml:3:", "name"),
        (
            "source: { kafka: { brokers: \"${NO_SUCH_VARIABLE}\", topics: [t] } }\nsink: { stdout: {} }\n"
                .to_owned(),
            "p.yaml:1:",
            "NO_SUCH_VARIABLE",
        ),
        ("source: [\n".to_owned(), "p.yaml:", "p.yaml"),
    ] {
        refused(&yaml, place, words);
    }
}

#[test]
fn pipelines_must_not_share_a_name_or_a_group_and_topic() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = |file: &str, name: &str, group: &str| {
        let text = format!(
            "name: {name}\nsource: {{ kafka: {{ {NOWHERE}, topics: [t], group: {group} }} }}\nsink: {{ stdout: {{}} }}\n"
        );
        write(folder.path(), file, &text)
    };
    let one = pipeline("one.yaml", "same", "g1");
    let two = pipeline("two.yaml", "same", "g2");
    run(&[&one, &two]).with_code(2).says("two.yaml:1:").says("same");
    let three = pipeline("three.yaml", "other", "g1");
    run(&[&one, &three]).with_code(2).says("three.yaml:2:").says("same group");
    // The folder holds all of them.
    run(&[folder.path()]).with_code(2);
}

#[test]
fn the_pipeline_files_of_the_repository_are_without_mistake() {
    let mut check = txconnect();
    check.args(["check", "pipelines/"]).env("GCP_PROJECT", "some-project");
    Running::start(check.env("PG_URL", "postgresql://localhost/some-database")).wait().succeeded();
    // A wrong project would take the data silently, so it has no default.
    let mut check = txconnect();
    Running::start(check.args(["check", "pipelines/"]))
        .wait()
        .with_code(2)
        .says("GCP_PROJECT")
        .says("PG_URL");
}

#[test]
fn a_file_or_folder_without_a_pipeline_is_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    run(&[&folder.path().join("none.yaml")]).with_code(2).says("none.yaml");
    run(&[folder.path()]).with_code(2);
    run(&[]).with_code(2);
}

#[test]
fn a_pipeline_that_fails_leaves_the_others_alone() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("neighbour", 2);
    topic.send(&events(0..200, 2));
    let healthy = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]);
    let unknown = format!("topics: [{}]", unique("nowhere"));
    let failing = Pipeline::into_bigquery(&kafka, &bigquery, &[]).topics(&unknown);
    start_all(&[&failing, &healthy], &["--until-end"])
        .wait()
        .failed()
        .says(failing.name())
        .says(healthy.name());
    assert_eq!(bigquery.ids(&topic.name), numbers(0..200));
    assert_eq!(topic.committed(&healthy.group()), topic.ends().unwrap());
}

#[test]
fn settings_on_the_command_line_win_over_the_file() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("set", 1);
    topic.send(&events(0..10, 1));
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]);
    let set = ["--set", "sink.bigquery.table=renamed", "--set", "batch.rows=3", "--until-end"];
    pipeline.start(&set).wait().succeeded();
    assert_eq!(bigquery.ids("renamed"), numbers(0..10));
    pipeline.start(&["--set", "batch.rows=none"]).wait().with_code(2);
}

#[test]
fn logs_can_be_json_and_every_line_is() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("logs", 1);
    topic.send(&events(0..10, 1));
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]).with_dead_letters();
    let ended = pipeline.start(&["--until-end", "--log-format", "json"]).wait().succeeded();
    let logs: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with('{')).collect();
    assert!(!logs.is_empty(), "{}", ended.told());
    for line in logs {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    assert!(!ended.stderr.contains("event 1"), "a row's value is in the log");
}

#[test]
fn the_embedded_broker_refuses_a_folder_that_it_cannot_hold() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    write(folder.path(), "data/t.ndjson", &format!("\"{}\"\n", "x".repeat(1_000)).repeat(17_000));
    let text = format!("source: {{ kafka: {{ {NOWHERE}, topics: [t] }} }}\nsink: {{ stdout: {{}} }}\n");
    let file = write(folder.path(), "p.yaml", &text);
    let mut command = txconnect();
    command.arg("run").arg(&file).arg("--embedded").arg(&data).arg("--until-end");
    let ended = Running::start(&mut command).wait().says("too large for the embedded broker");
    assert!(matches!(ended.code, Some(1 | 2)), "{}", ended.told());
    assert!(ended.stdout.is_empty(), "{}", ended.told());
}

#[test]
fn the_embedded_services_serve_any_folder() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "data/orders.ndjson", "{\"id\":1}\n{\"id\":2}\n");
    let text =
        "source: { kafka: { brokers: \"${KAFKA_BROKERS}\", topics: [orders] } }\nsink: { stdout: {} }\n";
    let file = write(folder.path(), "p.yaml", text);
    let mut command = txconnect();
    command.arg("run").arg(&file).arg("--embedded").arg(folder.path().join("data")).arg("--until-end");
    let ended = Running::start(&mut command).wait().succeeded();
    let lines: Vec<&str> = ended.stdout.lines().filter(|line| line.starts_with('{')).collect();
    assert_eq!(lines, ["{\"id\":1}", "{\"id\":2}"], "{}", ended.told());
}
