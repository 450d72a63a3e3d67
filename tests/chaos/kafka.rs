//! The cluster: topics, what is in them, what a group has committed, and what may befall its broker.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::records;

/// For calls to the broker, which may be on its way up.
const DEADLINE: Duration = Duration::from_mins(1);

/// A place in a round's topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Partition {
    /// Which of the round's topics.
    pub(crate) topic: usize,
    pub(crate) number: i32,
}

/// Next offsets.
pub(crate) type Positions = BTreeMap<Partition, i64>;

/// A record that was read back.
pub(crate) struct Stored {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// Milliseconds since 1970.
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

impl Stored {
    /// The number in the record's key.
    pub(crate) fn id(&self) -> Option<u64> {
        records::id_of(self.key.as_deref()?)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().rev().find(|(known, _)| known == name)?;
        std::str::from_utf8(value).ok()
    }
}

/// The cluster that the tests use.
pub(crate) struct Cluster {
    pub(crate) brokers: String,
}

impl Cluster {
    /// The cluster named by `KAFKA_BROKERS`. Without one there is no test, except in CI, where that is a failure.
    pub(crate) fn of_the_tests() -> Option<Self> {
        match std::env::var("KAFKA_BROKERS") {
            Ok(brokers) if !brokers.is_empty() => Some(Self { brokers }),
            _ => {
                assert!(std::env::var_os("CI").is_none(), "KAFKA_BROKERS is not set: run `./dev test`");
                eprintln!("skipped: KAFKA_BROKERS is not set; `./dev test` starts a Kafka");
                None
            }
        }
    }

    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config.set("reconnect.backoff.max.ms", "1000");
        config
    }

    pub(crate) async fn make(&self, topics: &[String], partitions: i32) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let new: Vec<NewTopic<'_>> =
            topics.iter().map(|name| NewTopic::new(name, partitions, TopicReplication::Fixed(1))).collect();
        let options = AdminOptions::new().request_timeout(Some(DEADLINE)).operation_timeout(Some(DEADLINE));
        for made in admin.create_topics(&new, &options).await.unwrap() {
            made.unwrap();
        }
        let end = Instant::now() + DEADLINE;
        let reader = self.reader("readers");
        while topics.iter().any(|topic| reader.fetch_watermarks(topic, 0, DEADLINE).is_err()) {
            assert!(Instant::now() < end, "new topics have no leaders");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Everything that is in a topic, nothing where there is no such topic.
    pub(crate) fn read(&self, topic: &str) -> Vec<Stored> {
        let consumer = self.reader("readers");
        let metadata = consumer.fetch_metadata(Some(topic), DEADLINE).unwrap();
        let partitions = metadata.topics().first().map_or(0, |found| found.partitions().len());
        let mut list = TopicPartitionList::new();
        for partition in 0..i32::try_from(partitions).unwrap() {
            list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&list).unwrap();
        let mut left = partitions;
        let mut stored = Vec::new();
        while left > 0 {
            match consumer.poll(DEADLINE).expect("a topic is read to its end within the deadline") {
                Ok(message) => stored.push(Stored {
                    partition: message.partition(),
                    offset: message.offset(),
                    timestamp: message.timestamp().to_millis().unwrap_or_default(),
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    headers: message.headers().map_or_else(Vec::new, |headers| {
                        headers
                            .iter()
                            .map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()))
                            .collect()
                    }),
                }),
                Err(KafkaError::PartitionEOF(_)) => left -= 1,
                // The client tries again by itself.
                Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure,
                )) => {}
                Err(error) => panic!("{topic}: {error}"),
            }
        }
        stored
    }

    fn reader(&self, group: &str) -> BaseConsumer {
        let mut config = self.client();
        config.set("group.id", group).set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        config.create().unwrap()
    }

    pub(crate) fn inspector(&self, group: &str, topics: &[String], partitions: i32) -> Inspector {
        Inspector { reader: self.reader(group), topics: topics.to_vec(), partitions }
    }
}

/// Looks at a group from outside.
pub(crate) struct Inspector {
    reader: BaseConsumer,
    topics: Vec<String>,
    partitions: i32,
}

impl Inspector {
    /// What the group has committed; `None` when the broker does not say in time.
    pub(crate) fn committed(&self, patience: Duration) -> Option<Positions> {
        let mut list = TopicPartitionList::new();
        for topic in &self.topics {
            list.add_partition_range(topic, 0, self.partitions - 1);
        }
        let found = self.reader.committed_offsets(list, patience).ok()?;
        let positions = found.elements().into_iter().filter_map(|element| {
            let topic = self.topics.iter().position(|topic| topic == element.topic())?;
            match element.offset() {
                Offset::Offset(offset) => Some((Partition { topic, number: element.partition() }, offset)),
                _ => None,
            }
        });
        Some(positions.collect())
    }
}
