//! `--embedded`: a Kafka broker filled from a folder and a BigQuery, both in this process.

mod load;

use std::path::Path;
use std::time::Duration;

use txconnect_kafka::mock::{MockBroker, MockError};
use txconnect_local_bigquery::{LocalBigQuery, Options};

use crate::publish::input::{FolderError, topic_files};
use crate::publish::kafka::Cluster;
use crate::publish::producer::SendError;
pub use load::LoadError;

/// How long a new group waits for further members: nobody else comes to this broker in a hurry.
const FIRST_REBALANCE: Duration = Duration::from_millis(50);

/// Why the services did not start.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The folder gives no topics.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The broker does not run.
    #[error(transparent)]
    Broker(#[from] MockError),
    /// A topic was not loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The BigQuery does not run.
    #[error("the embedded BigQuery does not start: {0}")]
    BigQuery(String),
}

/// The running services. They end when this is dropped or stopped.
#[derive(Debug)]
pub struct EmbeddedServices {
    broker: MockBroker,
    brokers: String,
    bigquery: LocalBigQuery,
    topics: Vec<LoadedTopic>,
}

/// A topic of the embedded broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedTopic {
    /// The topic.
    pub topic: String,
    /// Its partitions.
    pub partitions: i32,
    /// Its records.
    pub records: u64,
}

impl EmbeddedServices {
    /// Starts both services and loads every `<topic>.json` and `<topic>.ndjson` of `folder`.
    pub async fn start(folder: &Path) -> Result<Self, EmbeddedError> {
        let files = topic_files(folder)?;
        let broker = MockBroker::start(FIRST_REBALANCE)?;
        let brokers = broker.bootstrap_servers()?;
        let mut topics = load::plan(files)?;
        for topic in &topics {
            broker.create_topic(&topic.name, topic.partitions)?;
        }
        let cluster = Cluster::new(&brokers, &[])
            .map_err(|error| LoadError::Send(SendError::new(error.to_string())))?;
        // Loading reads files and waits for the broker: not for a thread that others need.
        let loaded = tokio::task::spawn_blocking(move || {
            let mut producer = cluster.producer().map_err(LoadError::Send)?;
            topics
                .iter_mut()
                .map(|topic| {
                    let records = load::load(topic, &mut producer)?;
                    Ok(LoadedTopic { topic: topic.name.clone(), partitions: topic.partitions, records })
                })
                .collect::<Result<Vec<_>, LoadError>>()
        })
        .await
        .map_err(|_| LoadError::Interrupted)??;
        let options = Options { auto_create_datasets: true, ..Options::default() };
        let bigquery = LocalBigQuery::start(options)
            .await
            .map_err(|error| EmbeddedError::BigQuery(error.to_string()))?;
        Ok(Self { broker, brokers, bigquery, topics: loaded })
    }

    /// The topics with what was loaded into them.
    pub fn topics(&self) -> &[LoadedTopic] {
        &self.topics
    }

    /// The variables by which pipelines and other commands find the services.
    ///
    /// `GCP_PROJECT` keeps the value it has in `environment`, the others are always those of the services.
    pub fn variables(&self, environment: &dyn Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
        let project = environment("GCP_PROJECT").filter(|project| !project.is_empty());
        vec![
            ("KAFKA_BROKERS", self.brokers.clone()),
            ("BIGQUERY_EMULATOR_HOST", self.bigquery.address().to_string()),
            ("GCP_PROJECT", project.unwrap_or_else(|| "local-project".to_owned())),
        ]
    }

    /// Settings for pipelines that read from the embedded broker, as `--set` takes them. Its fetch waits the
    /// whole time it is allowed to, even where records have come in the meantime.
    pub fn overrides() -> Vec<String> {
        vec!["source.kafka.properties.fetch.wait.max.ms=10".to_owned()]
    }

    /// Creates a topic unless the folder had it: the broker does not know the requests by which a pipeline
    /// creates its dead letter topics.
    pub fn create_topic(&self, name: &str) -> Result<(), EmbeddedError> {
        if self.topics.iter().any(|topic| topic.topic == name) {
            return Ok(());
        }
        Ok(self.broker.create_topic(name, 1)?)
    }

    /// Ends the services.
    pub async fn stop(self) {
        self.bigquery.stop().await;
    }
}
