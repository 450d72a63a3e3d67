//! Pipeline files of the tests, in folders of their own.

use std::path::PathBuf;

use tempfile::TempDir;

use super::bigquery::{DATASET, PROJECT};
use super::events::SCHEMA;
use super::{BigQuery, Ended, Kafka, Running, Tables, Topic, txconnect, unique};

/// For members that die: a group misses them only when their session is over.
pub(crate) const SHORT_SESSION: &str = "properties: { session.timeout.ms: 2000, heartbeat.interval.ms: 300 }";

/// One pipeline file with the environment it runs in. Its batches do not wait long, unless a test says so.
pub(crate) struct Pipeline {
    folder: TempDir,
    name: String,
    brokers: String,
    topics: String,
    source: Vec<String>,
    sink: &'static str,
    sink_settings: Vec<String>,
    batch: String,
    blocks: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

impl Pipeline {
    /// Reads `topics` into tables of the same names, by insertAll.
    pub(crate) fn into_bigquery(kafka: &Kafka, bigquery: &BigQuery, topics: &[&Topic<'_>]) -> Self {
        Self::into_tables(kafka, bigquery, topics).sink("api: insert_all")
    }

    /// Reads `topics` into tables of the same names, exactly once by write streams.
    pub(crate) fn into_streams(kafka: &Kafka, bigquery: &BigQuery, topics: &[&Topic<'_>]) -> Self {
        Self::into_tables(kafka, bigquery, topics).sink("api: storage_write").sink("delivery: exactly_once")
    }

    /// Reads `topics` into tables of the same names, at least once by default streams.
    pub(crate) fn into_default_streams(kafka: &Kafka, bigquery: &BigQuery, topics: &[&Topic<'_>]) -> Self {
        Self::into_tables(kafka, bigquery, topics).sink("api: storage_write").sink("delivery: at_least_once")
    }

    /// Reads `topics` into tables of the same names, one row for each `id`.
    pub(crate) fn into_upserts(kafka: &Kafka, bigquery: &BigQuery, topics: &[&Topic<'_>]) -> Self {
        Self::into_tables(kafka, bigquery, topics).sink("write: upsert").sink("key: [id]")
    }

    fn into_tables(kafka: &Kafka, bigquery: &BigQuery, topics: &[&Topic<'_>]) -> Self {
        let mut pipeline = Self::new(kafka.brokers(), &names(topics), "bigquery");
        pipeline.environment.push(("BIGQUERY_EMULATOR_HOST", bigquery.address()));
        pipeline.sink_settings = vec![format!("project: {PROJECT}"), format!("dataset: {DATASET}")];
        pipeline.with("validate: { schema: schemas/event.json }")
    }

    /// Reads `topics` into tables of the same names, exactly once.
    pub(crate) fn into_postgres(kafka: &Kafka, tables: &Tables, topics: &[&Topic<'_>]) -> Self {
        let mut pipeline = Self::new(kafka.brokers(), &names(topics), "postgres");
        pipeline.environment.push(("PG_URL", tables.url().to_owned()));
        pipeline.sink_settings =
            vec!["url: \"${PG_URL}\"".to_owned(), format!("schema: {}", tables.schema())];
        pipeline.with("validate: { schema: schemas/event.json }")
    }

    /// Reads `topics` onto stdout.
    pub(crate) fn into_stdout(kafka: &Kafka, topics: &[&Topic<'_>]) -> Self {
        Self::new(kafka.brokers(), &names(topics), "stdout")
    }

    /// `topics` is the line of the source that chooses them.
    pub(crate) fn new(brokers: &str, topics: &str, sink: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("schemas")).unwrap();
        std::fs::write(folder.path().join("schemas/event.json"), SCHEMA).unwrap();
        Self {
            folder,
            name: unique("pipeline"),
            brokers: brokers.to_owned(),
            topics: topics.to_owned(),
            source: Vec::new(),
            sink,
            sink_settings: Vec::new(),
            batch: "{ rows: 500, linger: 50ms }".to_owned(),
            blocks: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// Chooses the topics by the name or pattern in `line`.
    pub(crate) fn topics(self, line: &str) -> Self {
        Self { topics: line.to_owned(), ..self }
    }

    /// Adds a line to the `kafka` block.
    pub(crate) fn source(mut self, line: &str) -> Self {
        self.source.push(line.to_owned());
        self
    }

    /// Adds a line to the sink's block.
    pub(crate) fn sink(mut self, line: &str) -> Self {
        self.sink_settings.push(line.to_owned());
        self
    }

    pub(crate) fn batch(self, batch: &str) -> Self {
        Self { batch: batch.to_owned(), ..self }
    }

    /// Adds a line at the top level.
    pub(crate) fn with(mut self, line: &str) -> Self {
        self.blocks.push(line.to_owned());
        self
    }

    /// Bad records go to `<topic>.dead-letters`.
    pub(crate) fn with_dead_letters(self) -> Self {
        self.with("dead_letters: { topic: \"{topic}.dead-letters\" }")
    }

    /// Sets a variable of its process, in place of the one it had.
    pub(crate) fn environment(mut self, name: &'static str, value: &str) -> Self {
        self.environment.retain(|(known, _)| *known != name);
        self.environment.push((name, value.to_owned()));
        self
    }

    /// The same name as another one's: its positions and its group.
    pub(crate) fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// Replaces the schema of the events.
    pub(crate) fn event_schema(self, schema: &str) -> Self {
        std::fs::write(self.folder.path().join("schemas/event.json"), schema).unwrap();
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The consumer group.
    pub(crate) fn group(&self) -> String {
        format!("connect-{}", self.name)
    }

    /// The variables that the file's run gets.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.environment.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// Runs to the ends of the topics.
    pub(crate) fn until_end(&self) -> Ended {
        self.start(&["--until-end"]).wait()
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        start_all(&[self], arguments)
    }

    /// Writes the file down; a run does so itself.
    pub(crate) fn write(&self) -> PathBuf {
        let indented =
            |lines: &[String]| lines.iter().flat_map(|line| ["    ", line, "\n"]).collect::<String>();
        let text = format!(
            "name: {}\nsource:\n  kafka:\n    brokers: {}\n    {}\n{}{}\nbatch: {}\nsink:\n  {}:{}\n{}",
            self.name,
            self.brokers,
            self.topics,
            indented(&self.source),
            self.blocks.join("\n"),
            self.batch,
            self.sink,
            if self.sink_settings.is_empty() { " {}" } else { "" },
            indented(&self.sink_settings),
        );
        let path = self.folder.path().join("pipeline.yaml");
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// Runs several pipelines in one process.
pub(crate) fn start_all(pipelines: &[&Pipeline], arguments: &[&str]) -> Running {
    let mut command = txconnect();
    command.arg("run");
    for pipeline in pipelines {
        command.arg(pipeline.write());
        command.envs(pipeline.variables());
    }
    Running::start(command.args(arguments))
}

fn names(topics: &[&Topic<'_>]) -> String {
    let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
    format!("topics: [{}]", names.join(", "))
}
