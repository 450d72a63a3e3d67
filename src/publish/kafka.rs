//! The producer and the topics of a real cluster.

use std::time::Duration;

use txconnect_kafka::{
    Admin, BulkProducer, Compression, Connection, EnsuredTopic, KafkaError, ProducerSettings,
};

use super::producer::{OutgoingRecord, RecordProducer, SendError};
use super::split::MAX_RECORD_BYTES;

/// How long finding or making a topic may take.
const TOPIC_DEADLINE: Duration = Duration::from_secs(15);
/// How long a record is tried to be delivered. A full queue is waited for as long, and so is the last flush.
const DELIVERY_DEADLINE: Duration = Duration::from_mins(2);
/// A little longer than the delivery: the client itself then says why a record failed.
const FLUSH_DEADLINE: Duration = Duration::from_secs(150);
/// The partitions that leave the number to the broker (KIP-464).
const PARTITIONS_OF_THE_BROKER: i32 = -1;

/// What a topic gets that has to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewTopic {
    /// Its partitions; without a number the broker decides.
    pub partitions: Option<i32>,
    /// The copies of each partition; without a number the broker decides.
    pub replication: Option<i32>,
}

/// A cluster to publish to.
#[derive(Clone, Debug)]
pub struct Cluster {
    connection: Connection,
}

impl Cluster {
    /// The cluster at `brokers`, reached with librdkafka's `properties`. Connects to nothing yet.
    ///
    /// # Errors
    /// A property that does not concern the connection.
    pub fn new(brokers: &str, properties: &[(String, String)]) -> Result<Self, KafkaError> {
        Ok(Self { connection: Connection::with_properties(brokers, properties)? })
    }

    /// Makes `topic` if it is missing; answers whether it was.
    pub async fn ensure_topic(&self, topic: &str, shape: NewTopic) -> Result<bool, KafkaError> {
        let admin = Admin::connect(&self.connection)?;
        let partitions = shape.partitions.unwrap_or(PARTITIONS_OF_THE_BROKER);
        let ensured = admin.ensure_topic(topic, partitions, shape.replication, &[], TOPIC_DEADLINE).await?;
        Ok(matches!(ensured, EnsuredTopic::Created))
    }

    /// An idempotent producer that waits for all in-sync replicas.
    pub fn producer(&self) -> Result<KafkaProducer, SendError> {
        // Room for the largest record twice, and nothing that grows with the file.
        let queue_bytes = 2 * MAX_RECORD_BYTES as u64;
        let settings = ProducerSettings {
            message_max_bytes: u32::try_from(MAX_RECORD_BYTES + MAX_RECORD_BYTES / 8).unwrap_or(u32::MAX),
            delivery_timeout: DELIVERY_DEADLINE,
            compression: Compression::Lz4,
            queue_bytes,
            ..ProducerSettings::default()
        };
        match BulkProducer::connect(&self.connection, settings) {
            Ok(inner) => Ok(KafkaProducer { inner }),
            Err(error) => Err(SendError::new(error.to_string())),
        }
    }
}

/// Sends to a cluster, counting what it confirms.
pub struct KafkaProducer {
    inner: BulkProducer,
}

impl RecordProducer for KafkaProducer {
    fn send(&mut self, record: &OutgoingRecord<'_>) -> Result<(), SendError> {
        let record = txconnect_kafka::OutgoingRecord {
            topic: record.topic,
            partition: record.partition,
            key: record.key,
            value: Some(record.value),
            headers: &[],
            timestamp: None,
        };
        self.inner.send(&record, FLUSH_DEADLINE).map_err(|error| SendError::new(error.to_string()))
    }

    fn flush(&mut self) -> Result<(), SendError> {
        self.inner.flush(FLUSH_DEADLINE).map(|_| ()).map_err(|error| SendError::new(error.to_string()))
    }

    fn confirmed(&self) -> u64 {
        self.inner.delivered()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_would_have_no_effect_are_refused() {
        let setting = |name: &str| Cluster::new("b:1", &[(name.to_owned(), "x".to_owned())]);
        assert!(setting("security.protocol").is_ok());
        let error = setting("linger.ms").unwrap_err().to_string();
        assert!(error.contains("linger.ms") && error.contains("does not concern the connection"), "{error}");
    }
}
