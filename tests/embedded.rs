//! The services of `--embedded`, as clients see them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message};
use txconnect::embedded::{EmbeddedError, EmbeddedServices, LoadedTopic};

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}

fn variable(services: &EmbeddedServices, name: &str) -> String {
    let variables = services.variables(&|_| None);
    variables.into_iter().find(|(known, _)| *known == name).unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_loaded_whole_and_bigquery_answers() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "orders.json", "[{\"id\":1},\n {\"id\": 2}]");
    let large = (0..20_000)
        .map(|number| format!("{{\"number\":{number},\"fill\":\"{}\"}}\n", "x".repeat(80)))
        .collect::<Vec<_>>()
        .concat();
    write(folder.path(), "events.ndjson", &large);
    let services = EmbeddedServices::start(folder.path()).await.unwrap();
    assert_eq!(
        services.topics(),
        [
            LoadedTopic { topic: "events".into(), partitions: 3, records: 20_000 },
            LoadedTopic { topic: "orders".into(), partitions: 1, records: 2 },
        ]
    );

    let brokers = variable(&services, "KAFKA_BROKERS");
    let counts =
        tokio::task::spawn_blocking(move || read_all(&brokers, &["orders", "events"], 20_002)).await.unwrap();
    assert_eq!(counts, BTreeMap::from([("events".to_owned(), 20_000), ("orders".to_owned(), 2)]));

    let host = variable(&services, "BIGQUERY_EMULATOR_HOST");
    let url = format!("http://{host}/bigquery/v2/projects/local-project/datasets");
    assert!(reqwest::get(url).await.unwrap().status().is_success());

    services.create_topic("orders.dead-letters").unwrap();
    services.create_topic("orders").unwrap();
    services.stop().await;
}

/// Reads as a member of a group until `expected` records have come; answers how many each topic gave.
fn read_all(brokers: &str, topics: &[&str], expected: usize) -> BTreeMap<String, usize> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "g")
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "10")
        .create()
        .unwrap();
    consumer.subscribe(topics).unwrap();
    let (started, mut counts, mut read) = (Instant::now(), BTreeMap::new(), 0);
    while read < expected {
        assert!(started.elapsed() < Duration::from_mins(1), "only {read} of {expected} records came");
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            *counts.entry(message.topic().to_owned()).or_insert(0) += 1;
            read += 1;
        }
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_does_not_fit_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "large.json", &" ".repeat((16 << 20) + 1));
    let error = EmbeddedServices::start(folder.path()).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::Load(_)));
    assert!(error.to_string().contains("large.json is too large for the embedded broker"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_project_of_the_environment_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.json", "[]");
    let services = EmbeddedServices::start(folder.path()).await.unwrap();
    assert_eq!(variable(&services, "GCP_PROJECT"), "local-project");
    let mine = services.variables(&|name| (name == "GCP_PROJECT").then(|| "mine".to_owned()));
    assert!(mine.contains(&("GCP_PROJECT", "mine".to_owned())));
}
