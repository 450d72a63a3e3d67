//! The Kafka that `./dev test` starts, seen as a producer, a reader and an administrator.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

use super::{Event, eventually, runtime, unique};

/// For calls to the broker.
const DEADLINE: Duration = Duration::from_secs(30);

/// The cluster that the tests use.
pub(crate) struct Kafka {
    brokers: String,
}

/// A topic of one test.
pub(crate) struct Topic<'k> {
    kafka: &'k Kafka,
    pub(crate) name: String,
    pub(crate) partitions: i32,
}

/// How batches of records are packed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    pub(crate) const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// Keeps the first record that was not delivered.
#[derive(Default)]
struct Deliveries {
    failure: Mutex<Option<KafkaError>>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.failure.lock().unwrap().get_or_insert(error.clone());
        }
    }
}

impl Kafka {
    /// The cluster named by `KAFKA_BROKERS`. Without one the test is skipped, except in CI, where that is a failure.
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

    pub(crate) fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Makes a topic with a name of its own.
    pub(crate) fn topic(&self, name: &str, partitions: i32) -> Topic<'_> {
        self.make(unique(name), partitions)
    }

    /// Makes a topic of this very name.
    pub(crate) fn make(&self, name: String, partitions: i32) -> Topic<'_> {
        // Some bad records are larger than a topic takes by default.
        self.make_with(name, partitions, 20_000_000)
    }

    /// Makes a topic that takes no larger records than `largest` bytes.
    pub(crate) fn make_narrow(&self, name: String, largest: usize) -> Topic<'_> {
        self.make_with(name, 1, largest)
    }

    fn make_with(&self, name: String, partitions: i32, largest: usize) -> Topic<'_> {
        let largest = largest.to_string();
        let topic =
            NewTopic::new(&name, partitions, TopicReplication::Fixed(1)).set("max.message.bytes", &largest);
        let results = runtime().block_on(self.admin().create_topics([&topic], &options())).unwrap();
        for result in results {
            result.unwrap();
        }
        let topic = Topic { kafka: self, name, partitions };
        eventually("a new topic has leaders", || topic.ends().map(|_| ()));
        topic
    }

    /// A topic that exists already.
    pub(crate) fn existing(&self, name: &str) -> Option<Topic<'_>> {
        let metadata = self.reader("observers").fetch_metadata(Some(name), DEADLINE).unwrap();
        let found = metadata.topics().iter().find(|topic| topic.name() == name)?;
        let partitions = i32::try_from(found.partitions().len()).unwrap();
        (found.error().is_none() && partitions > 0).then(|| Topic {
            kafka: self,
            name: name.to_owned(),
            partitions,
        })
    }

    /// How many members a group has now.
    pub(crate) fn members(&self, group: &str) -> usize {
        let groups = self.reader("observers").fetch_group_list(Some(group), DEADLINE).unwrap();
        groups.groups().iter().find(|known| known.name() == group).map_or(0, |known| known.members().len())
    }

    /// One for all tests: to make and to end one takes longer than what most of them ask of it.
    fn admin(&self) -> &'static AdminClient<DefaultClientContext> {
        static ADMIN: OnceLock<AdminClient<DefaultClientContext>> = OnceLock::new();
        ADMIN.get_or_init(|| self.client().create().unwrap())
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    fn reader(&self, group: &str) -> BaseConsumer {
        let mut config = self.client();
        config.set("group.id", group).set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        config.create().unwrap()
    }

    fn producer(&self, settings: &[(&str, &str)]) -> BaseProducer<Deliveries> {
        let mut config = self.client();
        // One request at a time keeps the order as idempotence would, without half a second until that is set up.
        config.set("message.max.bytes", "20000000").set("linger.ms", "5").set("max.in.flight", "1");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        config.create_with_context(Deliveries::default()).unwrap()
    }
}

impl Topic<'_> {
    /// Sends records and waits until they are stored.
    pub(crate) fn send(&self, events: &[Event]) {
        self.send_packed(events, Codec::None);
    }

    pub(crate) fn send_packed(&self, events: &[Event], codec: Codec) {
        let producer = self.kafka.producer(&[("compression.type", codec.name())]);
        self.hand_over(&producer, events);
        finish(&producer);
    }

    /// Sends records in one transaction and commits or aborts it. Either way the log ends with a marker.
    pub(crate) fn send_in_transaction(&self, events: &[Event], commit: bool) {
        let producer = self.kafka.producer(&[("transactional.id", &unique("transaction"))]);
        producer.init_transactions(DEADLINE).unwrap();
        producer.begin_transaction().unwrap();
        self.hand_over(&producer, events);
        finish(&producer);
        if commit {
            producer.commit_transaction(DEADLINE).unwrap();
        } else {
            producer.abort_transaction(DEADLINE).unwrap();
        }
    }

    fn hand_over(&self, producer: &BaseProducer<Deliveries>, events: &[Event]) {
        for event in events {
            let mut headers = OwnedHeaders::new_with_capacity(event.headers.len());
            for (key, value) in &event.headers {
                headers = headers.insert(rdkafka::message::Header { key, value: value.as_ref() });
            }
            let mut record = BaseRecord::<Vec<u8>, Vec<u8>>::to(&self.name).headers(headers);
            if let Some(key) = &event.key {
                record = record.key(key);
            }
            if let Some(value) = &event.value {
                record = record.payload(value);
            }
            if let Some(partition) = event.partition {
                record = record.partition(partition);
            }
            while let Err((error, unsent)) = producer.send(record) {
                assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
                producer.poll(Duration::from_millis(10));
                record = unsent;
            }
        }
    }

    /// Everything that is in the topic now and that no aborted transaction has withdrawn, partition by partition.
    pub(crate) fn read(&self) -> Vec<Event> {
        let consumer = self.kafka.reader("readers");
        consumer.assign(&self.list(Offset::Beginning)).unwrap();
        let mut left = usize::try_from(self.partitions).unwrap();
        let mut read = Vec::new();
        while left > 0 {
            match consumer.poll(DEADLINE).expect("a topic is read to its end within the deadline") {
                Ok(message) => read.push(Event {
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    headers: message.headers().map_or_else(Vec::new, |headers| {
                        headers
                            .iter()
                            .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
                            .collect()
                    }),
                    partition: Some(message.partition()),
                }),
                Err(KafkaError::PartitionEOF(_)) => left -= 1,
                Err(error) => panic!("{}: {error}", self.name),
            }
        }
        read.sort_by_key(|event| event.partition);
        read
    }

    /// The group's stored position in each partition that has one.
    pub(crate) fn committed(&self, group: &str) -> BTreeMap<i32, i64> {
        let reader = self.kafka.reader(group);
        let committed = reader.committed_offsets(self.list(Offset::Invalid), DEADLINE).unwrap();
        let positions = committed.elements();
        let known = positions.iter().filter_map(|element| match element.offset() {
            Offset::Offset(offset) => Some((element.partition(), offset)),
            _ => None,
        });
        known.collect()
    }

    /// Stores a position for every partition, as an operator does who moves a group.
    pub(crate) fn commit(&self, group: &str, offset: i64) {
        let reader = self.kafka.reader(group);
        reader.commit(&self.list(Offset::Offset(offset)), CommitMode::Sync).unwrap();
    }

    /// Stores a position with words beside it for every partition.
    pub(crate) fn commit_with(&self, group: &str, offset: i64, metadata: &str) {
        let reader = self.kafka.reader(group);
        let list = self.list(Offset::Offset(offset));
        for partition in 0..self.partitions {
            list.find_partition(&self.name, partition).unwrap().set_metadata(metadata);
        }
        reader.commit(&list, CommitMode::Sync).unwrap();
    }

    /// The end of each partition, markers counted; `None` while the topic has no leaders yet.
    pub(crate) fn ends(&self) -> Option<BTreeMap<i32, i64>> {
        // A client that has once missed a topic goes on missing it for a while.
        let observer = self.kafka.reader("observers");
        let ends = (0..self.partitions).map(|partition| {
            let (_, end) = observer.fetch_watermarks(&self.name, partition, DEADLINE).ok()?;
            Some((partition, end))
        });
        ends.collect()
    }

    /// Deletes the records below `offset` of every partition, as retention would.
    pub(crate) fn delete_below(&self, offset: i64) {
        let list = self.list(Offset::Offset(offset));
        let deleted = runtime().block_on(self.kafka.admin().delete_records(&list, &options())).unwrap();
        for element in deleted.elements() {
            element.error().unwrap();
        }
    }

    /// Adds empty partitions.
    pub(crate) fn grow(&mut self, partitions: i32) {
        let wanted = NewPartitions::new(&self.name, usize::try_from(partitions).unwrap());
        let grown = runtime().block_on(self.kafka.admin().create_partitions([&wanted], &options())).unwrap();
        for result in grown {
            result.unwrap();
        }
        self.partitions = partitions;
        eventually("new partitions have leaders", || self.ends().map(|_| ()));
    }

    /// Deletes the topic and makes it anew, empty.
    pub(crate) fn make_anew(&self) {
        let deleted =
            runtime().block_on(self.kafka.admin().delete_topics(&[&self.name], &options())).unwrap();
        for result in deleted {
            result.unwrap();
        }
        eventually("the topic is gone", || self.kafka.existing(&self.name).is_none().then_some(()));
        self.kafka.make(self.name.clone(), self.partitions);
    }

    /// The topic of its dead letters, as the tests' pipelines name it; `None` where there is none.
    pub(crate) fn dead_letters(&self) -> Option<Topic<'_>> {
        self.kafka.existing(&format!("{}.dead-letters", self.name))
    }

    fn list(&self, offset: Offset) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in 0..self.partitions {
            list.add_partition_offset(&self.name, partition, offset).unwrap();
        }
        list
    }
}

fn finish(producer: &BaseProducer<Deliveries>) {
    producer.flush(DEADLINE).unwrap();
    if let Some(error) = producer.context().failure.lock().unwrap().take() {
        panic!("a record was not delivered: {error}");
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(DEADLINE)).operation_timeout(Some(DEADLINE))
}
