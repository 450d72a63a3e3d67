//! The crate against a real Kafka at `KAFKA_BROKERS`, with topics and groups of its own.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its functions too")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use txconnect_connector_api::TopicPartition;
use txconnect_kafka::{
    Admin, Assignment, BulkProducer, CommitErrorKind, CommitPosition, Connection, Consumer, ConsumerEvent,
    DeliveryError, EnsuredTopic, KafkaError, KafkaSourceConfig, LaneQueue, MessageBatch, OutgoingRecord,
    Producer, ProducerSettings, StartAt, Tuning,
};

/// Against hanging only.
const PATIENCE: Duration = Duration::from_mins(1);

fn brokers() -> Option<String> {
    let brokers = std::env::var("KAFKA_BROKERS").ok();
    if brokers.is_none() {
        println!("skipped: KAFKA_BROKERS is not set; `./dev test` starts a Kafka and sets it");
    }
    brokers
}

/// A name that no other run uses.
fn unique(name: &str) -> String {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    format!("txconnect-kafka-{name}-{nanos}")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn make_topic(brokers: &str, name: &str, partitions: i32, settings: &[(&str, &str)]) -> String {
    let topic = unique(name);
    let runtime = runtime();
    runtime.block_on(async {
        let admin = Admin::connect(&Connection::plain(brokers)).unwrap();
        let made = admin.ensure_topic(&topic, partitions, None, settings, PATIENCE).await.unwrap();
        assert_eq!(made, EnsuredTopic::Created);
    });
    topic
}

fn config(brokers: &str, topic: &str) -> KafkaSourceConfig {
    serde_json::from_value(serde_json::json!({ "brokers": brokers, "topics": [topic] })).unwrap()
}

fn member(brokers: &str, topic: &str, group: &str) -> Consumer {
    let config = config(brokers, topic);
    let consumer = Consumer::connect(&config, group, Tuning::default()).unwrap();
    consumer.subscribe(&[topic.to_owned()]).unwrap();
    consumer
}

fn record<'a>(topic: &'a str, value: &'a [u8]) -> OutgoingRecord<'a> {
    OutgoingRecord { topic, partition: Some(0), key: None, value: Some(value), headers: &[], timestamp: None }
}

/// A member that answers an assignment with nothing, starts it a turn later, and gives up what is taken away.
struct Member {
    consumer: Consumer,
    queue: LaneQueue,
    owned: BTreeSet<TopicPartition>,
    offsets: Vec<(i32, i64)>,
}

impl Member {
    fn join(brokers: &str, topic: &str, group: &str) -> Self {
        let consumer = member(brokers, topic, group);
        let queue = consumer.lane_queue(Arc::new(|| {})).unwrap();
        Self { consumer, queue, owned: BTreeSet::new(), offsets: Vec::new() }
    }

    /// Starts what was assigned in the turn before, as a pipeline does whose sink is slow to answer.
    fn start_late(&mut self) {
        let started = self.consumer.assignment();
        let handle = self.queue.handle();
        let assignments: Vec<_> = self
            .owned
            .iter()
            .filter(|partition| !started.contains(partition))
            .map(|partition| Assignment { partition, start: StartAt::Beginning, queue: &handle })
            .collect();
        if !assignments.is_empty() {
            self.consumer.assign(&assignments).unwrap();
        }
    }

    fn turn(&mut self) {
        self.start_late();
        match self.consumer.poll(Duration::from_millis(20)) {
            Some(ConsumerEvent::Assign(partitions)) => {
                self.consumer.assign(&[]).unwrap();
                self.owned.extend(partitions);
            }
            Some(ConsumerEvent::Revoke { partitions, .. }) => {
                self.consumer.unassign(&partitions).unwrap();
                self.owned.retain(|owned| !partitions.contains(owned));
            }
            _ => {}
        }
        let mut batch = MessageBatch::new();
        while self.queue.take(&mut batch, 100) > 0 {
            for message in batch.iter() {
                assert_eq!(message.error(), None);
                self.offsets.push((message.partition(), message.offset()));
            }
        }
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "never happened: {what}");
    }
}

#[test]
fn two_members_share_the_partitions_and_the_first_keeps_reading() {
    let Some(brokers) = brokers() else { return };
    let topic = make_topic(&brokers, "share", 4, &[]);
    let producer = BulkProducer::connect(&Connection::plain(&*brokers), ProducerSettings::default()).unwrap();
    for number in 0..400 {
        let record = OutgoingRecord { partition: Some(number % 4), ..record(&topic, b"{}") };
        producer.send(&record, PATIENCE).unwrap();
    }
    assert_eq!(producer.flush(PATIENCE).unwrap(), 400);
    let mut first = Member::join(&brokers, &topic, &topic);
    until("the first reads everything", || {
        first.turn();
        first.offsets.len() == 400
    });
    let mut second = Member::join(&brokers, &topic, &topic);
    until("both own half", || {
        first.turn();
        second.turn();
        first.owned.len() == 2 && second.owned.len() == 2
    });
    assert!(first.owned.is_disjoint(&second.owned));
    until("the second reads its half", || {
        second.turn();
        second.offsets.len() == 200
    });
    // What stayed is neither read again nor stuck.
    assert_eq!(first.offsets.len(), 400);
    for number in 0..4 {
        producer
            .send(&OutgoingRecord { partition: Some(number), ..record(&topic, b"{}") }, PATIENCE)
            .unwrap();
    }
    producer.flush(PATIENCE).unwrap();
    until("both read on", || {
        first.turn();
        second.turn();
        first.offsets.len() == 402 && second.offsets.len() == 202
    });
    let Member { consumer, queue, .. } = second;
    drop(queue);
    consumer.close(PATIENCE).unwrap();
    until("the first takes over", || {
        first.turn();
        first.owned.len() == 4
    });
}

#[test]
fn the_position_moves_over_transaction_markers() {
    let Some(brokers) = brokers() else { return };
    let topic = make_topic(&brokers, "transactions", 1, &[]);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &brokers)
        .set("transactional.id", &topic)
        .create()
        .unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    for commits in [true, false] {
        producer.begin_transaction().unwrap();
        for _ in 0..5 {
            producer.send(BaseRecord::<(), str>::to(&topic).payload("{}").partition(0)).unwrap();
        }
        if commits {
            producer.commit_transaction(PATIENCE).unwrap();
        } else {
            producer.flush(PATIENCE).unwrap();
            producer.abort_transaction(PATIENCE).unwrap();
        }
    }
    let mut member = Member::join(&brokers, &topic, &topic);
    let partition = [TopicPartition::new(&*topic, 0)];
    let end = member.consumer.end_offsets(&partition, PATIENCE).unwrap()[0].1;
    assert!(end > 10, "markers count: {end}");
    until("the position reaches the end", || {
        member.turn();
        member.consumer.positions(&partition).unwrap()[0] == Some(end)
    });
    assert_eq!(member.offsets, (0..5).map(|offset| (0, offset)).collect::<Vec<_>>());
    assert_eq!(member.consumer.beginning_offsets(&partition, PATIENCE).unwrap()[0].1, 0);
}

#[test]
fn times_are_turned_into_offsets() {
    let Some(brokers) = brokers() else { return };
    let topic = make_topic(&brokers, "times", 1, &[]);
    let producer = Producer::connect(&Connection::plain(&*brokers), ProducerSettings::default()).unwrap();
    let runtime = runtime();
    for timestamp in [1_000, 2_000, 3_000] {
        let sent = OutgoingRecord { timestamp: Some(timestamp), ..record(&topic, b"{}") };
        runtime.block_on(producer.deliver(&sent, PATIENCE)).unwrap();
    }
    let consumer = Consumer::connect(&config(&brokers, &topic), &topic, Tuning::default()).unwrap();
    let partition = [TopicPartition::new(&*topic, 0)];
    let at = |millis| consumer.offsets_for_time(&partition, millis, PATIENCE).unwrap()[0].1;
    assert_eq!(at(0), Some(0));
    assert_eq!(at(1_500), Some(1));
    assert_eq!(at(3_001), None);
}

#[test]
fn a_topic_is_made_once_and_its_limit_is_known() {
    let Some(brokers) = brokers() else { return };
    let topic = make_topic(&brokers, "limit", 3, &[("max.message.bytes", "5000")]);
    let connection = Connection::plain(&*brokers);
    runtime().block_on(async {
        let admin = Admin::connect(&connection).unwrap();
        let again = admin.ensure_topic(&topic, 1, None, &[], PATIENCE).await.unwrap();
        assert_eq!(again, EnsuredTopic::AlreadyThere);
        let description = admin.describe_topic(&topic, PATIENCE).await.unwrap();
        assert_eq!((description.partitions, description.replication), (3, 1));
        assert_eq!(admin.max_message_bytes(&topic, PATIENCE).await.unwrap(), 5000);
        let missing = unique("missing");
        for _ in 0..2 {
            // Asking does not make it.
            let error = admin.describe_topic(&missing, PATIENCE).await.unwrap_err();
            assert_eq!(error, KafkaError::UnknownTopic { topic: missing.clone() });
        }
        let error = admin.ensure_topic(&missing, 1, Some(9), &[], PATIENCE).await.unwrap_err();
        assert!(matches!(error, KafkaError::Other { .. }), "{error}");

        let producer = Producer::connect(&connection, ProducerSettings::default()).unwrap();
        let large = vec![b'x'; 6000];
        let error = producer.deliver(&record(&topic, &large), PATIENCE).await.unwrap_err();
        assert!(matches!(error, DeliveryError::TooLarge { bytes: 6000, .. }), "{error}");
        producer.deliver(&record(&topic, b"small"), PATIENCE).await.unwrap();
    });
}

#[test]
fn a_commit_from_outside_the_group_is_refused_while_it_has_members() {
    let Some(brokers) = brokers() else { return };
    let topic = make_topic(&brokers, "fencing", 1, &[]);
    let mut owner = Member::join(&brokers, &topic, &topic);
    until("it is assigned", || {
        owner.turn();
        owner.owned.len() == 1
    });
    let partition = TopicPartition::new(&*topic, 0);
    let position = |next_offset| CommitPosition {
        partition: partition.clone(),
        next_offset,
        metadata: Some("{\"v\":1}".to_owned()),
    };
    owner.consumer.commit(1, &[position(0)]).unwrap();
    assert_eq!(owner.consumer.commit_answer(PATIENCE).unwrap().results[0].1, Ok(()));
    let stranger = Consumer::connect(&config(&brokers, &topic), &topic, Tuning::default()).unwrap();
    stranger.commit(1, &[position(7)]).unwrap();
    let refused = stranger.commit_answer(PATIENCE).unwrap().results[0].1.clone().unwrap_err();
    assert_eq!(refused.kind, CommitErrorKind::MembershipLost);
    let committed = &stranger.committed(&[partition], PATIENCE).unwrap()[0];
    assert_eq!((committed.offset, committed.metadata.text()), (Some(0), Some("{\"v\":1}")));
}
