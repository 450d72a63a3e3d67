//! librdkafka's mock broker: a Kafka inside this process, for the embedded mode and for tests.
//!
//! It keeps everything in memory, knows topics, consumer groups and idempotent producers, but neither the
//! topic administration requests nor more than [`PARTITION_BYTES`] in a partition: beyond that it drops the
//! oldest batches without a word (`rdkafka_mock.c`, `max_size` and `max_cnt`).

#![deny(unsafe_op_in_unsafe_fn)]

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer};

/// What a partition holds, in bytes of record batches, before the oldest are dropped.
pub const PARTITION_BYTES: u64 = 5 << 20;

/// The mock broker did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the embedded Kafka broker failed: {what}: {cause}")]
pub struct MockError {
    /// What was asked.
    what: &'static str,
    /// What librdkafka said.
    cause: String,
}

/// A running mock broker on a free port of the loopback interface. Stops when it is dropped.
pub struct MockBroker {
    /// The client that the broker belongs to; it makes it, and takes it along when it goes.
    owner: BaseProducer,
}

impl std::fmt::Debug for MockBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MockBroker").finish_non_exhaustive()
    }
}

impl MockBroker {
    /// Starts a broker whose new groups wait `first_rebalance` for further members (librdkafka's own
    /// value is three seconds).
    pub fn start(first_rebalance: Duration) -> Result<Self, MockError> {
        let failed = |cause: String| MockError { what: "starting", cause };
        let owner: BaseProducer = ClientConfig::new()
            .set("client.id", "txconnect-embedded-broker")
            .set("test.mock.num.brokers", "1")
            .create()
            .map_err(|error| failed(error.to_string()))?;
        let delay = i32::try_from(first_rebalance.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the handle is alive, because `owner` is; the call only reads its mock cluster's address.
        let cluster = unsafe { rdkafka_sys::rd_kafka_handle_mock_cluster(owner.client().native_ptr()) };
        if cluster.is_null() {
            return Err(failed("librdkafka made no mock cluster".to_owned()));
        }
        // SAFETY: `cluster` is not null and lives as long as `owner`; the call locks the cluster itself.
        unsafe { rdkafka_sys::rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, delay) };
        Ok(Self { owner })
    }

    /// The broker's address, as `bootstrap.servers` takes it.
    pub fn bootstrap_servers(&self) -> Result<String, MockError> {
        match self.owner.client().mock_cluster() {
            Some(cluster) => Ok(cluster.bootstrap_servers()),
            None => Err(MockError { what: "asking its address", cause: "it is gone".to_owned() }),
        }
    }

    /// Creates a topic.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<(), MockError> {
        let failed = |cause: String| MockError { what: "creating a topic", cause };
        match self.owner.client().mock_cluster() {
            Some(cluster) => {
                cluster.create_topic(name, partitions, 1).map_err(|error| failed(error.to_string()))
            }
            None => Err(failed("it is gone".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::consumer::{BaseConsumer, Consumer};

    #[test]
    fn topics_are_seen_by_other_clients() {
        let broker = MockBroker::start(Duration::ZERO).unwrap();
        broker.create_topic("cash_ins", 3).unwrap();
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", broker.bootstrap_servers().unwrap())
            .create()
            .unwrap();
        let metadata = consumer.fetch_metadata(Some("cash_ins"), Duration::from_secs(30)).unwrap();
        assert_eq!(metadata.topics()[0].partitions().len(), 3);
        assert!(broker.create_topic("cash_ins", 3).is_err());
    }

    #[test]
    fn a_first_member_gets_its_partitions_without_the_usual_delay() {
        let broker = MockBroker::start(Duration::from_millis(1)).unwrap();
        broker.create_topic("t", 1).unwrap();
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", broker.bootstrap_servers().unwrap())
            .set("group.id", "g")
            .create()
            .unwrap();
        consumer.subscribe(&["t"]).unwrap();
        let started = std::time::Instant::now();
        while consumer.assignment().unwrap().count() == 0 {
            assert!(started.elapsed() < Duration::from_mins(1), "no assignment");
            let _ = consumer.poll(Duration::from_millis(10));
        }
        println!("assigned after {:?}", started.elapsed());
    }
}
