//! The source against librdkafka's own mock cluster, in this process.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its functions too")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use txconnect_connector_api::{Header, TopicPartition};
use txconnect_kafka::{
    Assignment, BulkProducer, CommitErrorKind, CommitPosition, CommittedMetadata, Connection, Consumer,
    ConsumerEvent, KafkaError, KafkaSourceConfig, LaneQueue, MessageBatch, OutgoingRecord, Producer,
    ProducerSettings, StartAt, TroubleKind, Tuning,
};

/// Against hanging only.
const PATIENCE: Duration = Duration::from_secs(30);

struct Cluster {
    mock: MockCluster<'static, DefaultProducerContext>,
}

impl Cluster {
    fn with_topic(topic: &str, partitions: i32) -> Self {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic(topic, partitions, 1).unwrap();
        Self { mock }
    }

    fn consumer(&self, topic: &str, group: &str) -> Consumer {
        let config: KafkaSourceConfig = serde_json::from_value(serde_json::json!({
            "brokers": self.mock.bootstrap_servers(),
            "topics": [topic],
            "properties": { "fetch.wait.max.ms": 10 },
        }))
        .unwrap();
        Consumer::connect(&config, group, Tuning::default()).unwrap()
    }

    /// Publishes `count` records `0`, `1`, … to each partition.
    fn fill(&self, topic: &str, partitions: i32, count: u64) {
        let producer = BulkProducer::connect(
            &Connection::plain(self.mock.bootstrap_servers()),
            ProducerSettings::default(),
        )
        .unwrap();
        for number in 0..count {
            for partition in 0..partitions {
                let value = number.to_string();
                let record = OutgoingRecord { partition: Some(partition), ..record(topic, value.as_bytes()) };
                producer.send(&record, PATIENCE).unwrap();
            }
        }
        assert_eq!(producer.flush(PATIENCE).unwrap(), count * u64::try_from(partitions).unwrap());
    }
}

fn record<'a>(topic: &'a str, value: &'a [u8]) -> OutgoingRecord<'a> {
    OutgoingRecord { topic, partition: None, key: None, value: Some(value), headers: &[], timestamp: None }
}

fn lane(consumer: &Consumer) -> (LaneQueue, Receiver<()>) {
    let (sender, receiver) = sync_channel(1);
    let wake = move || {
        let _ = sender.try_send(());
    };
    (consumer.lane_queue(Arc::new(wake)).unwrap(), receiver)
}

/// Takes messages until there are `count`, sleeping only on the wake-up.
fn read(
    consumer: &Consumer,
    lane: &mut LaneQueue,
    woken: &Receiver<()>,
    count: usize,
) -> BTreeMap<i32, Vec<(i64, String)>> {
    let mut records: BTreeMap<i32, Vec<(i64, String)>> = BTreeMap::new();
    let mut batch = MessageBatch::new();
    let (mut read, deadline) = (0, Instant::now() + PATIENCE);
    while read < count {
        assert!(Instant::now() < deadline, "only {read} of {count} records came");
        let _ = consumer.poll(Duration::ZERO);
        if lane.take(&mut batch, 100) == 0 {
            let _ = woken.recv_timeout(Duration::from_millis(200));
            continue;
        }
        for message in batch.iter() {
            assert_eq!(message.error(), None);
            let value = String::from_utf8(message.payload().unwrap().to_vec()).unwrap();
            records.entry(message.partition()).or_default().push((message.offset(), value));
            read += 1;
        }
    }
    records
}

fn assign_all(consumer: &Consumer, topic: &str, partitions: i32, lane: &LaneQueue) -> Vec<TopicPartition> {
    let partitions: Vec<_> = (0..partitions).map(|number| TopicPartition::new(topic, number)).collect();
    let queue = lane.handle();
    let assignments: Vec<_> = partitions
        .iter()
        .map(|partition| Assignment { partition, start: StartAt::Beginning, queue: &queue })
        .collect();
    consumer.assign(&assignments).unwrap();
    partitions
}

/// Polls until `pick` takes an event.
fn wait_for<T>(consumer: &Consumer, mut pick: impl FnMut(ConsumerEvent) -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(found) = consumer.poll(Duration::from_millis(50)).and_then(&mut pick) {
            return found;
        }
    }
    panic!("the event did not come")
}

fn assigned(event: ConsumerEvent) -> Option<Vec<TopicPartition>> {
    match event {
        ConsumerEvent::Assign(partitions) => Some(partitions),
        _ => None,
    }
}

#[test]
fn one_lane_gets_all_records_of_its_partitions_in_order() {
    let cluster = Cluster::with_topic("t", 4);
    cluster.fill("t", 4, 500);
    let consumer = cluster.consumer("t", "g");
    let (mut queue, woken) = lane(&consumer);
    let partitions = assign_all(&consumer, "t", 4, &queue);
    let records = read(&consumer, &mut queue, &woken, 2000);
    for partition in 0..4 {
        let expected: Vec<_> = (0..500).map(|number| (number, number.to_string())).collect();
        assert_eq!(records[&partition], expected);
    }
    assert_eq!(consumer.positions(&partitions).unwrap(), vec![Some(500); 4]);
    drop(queue);
    consumer.close(PATIENCE).unwrap();
}

#[test]
fn an_empty_queue_is_woken_by_the_next_record() {
    let cluster = Cluster::with_topic("t", 1);
    let consumer = cluster.consumer("t", "g");
    let (mut queue, woken) = lane(&consumer);
    assign_all(&consumer, "t", 1, &queue);
    let mut batch = MessageBatch::new();
    assert_eq!(queue.take(&mut batch, 10), 0);
    cluster.fill("t", 1, 1);
    // What librdkafka says to itself wakes a lane too; only the record ends this.
    while queue.take(&mut batch, 10) == 0 {
        woken.recv_timeout(PATIENCE).unwrap();
    }
    assert_eq!(batch.len(), 1);
}

#[test]
fn partitions_added_late_under_the_eager_protocol_leave_the_others_running() {
    let cluster = Cluster::with_topic("t", 2);
    cluster.fill("t", 2, 100);
    let consumer = cluster.consumer("t", "g");
    let (mut queue, woken) = lane(&consumer);
    let name = queue.handle();
    let (first, second) = (TopicPartition::new("t", 0), TopicPartition::new("t", 1));
    let assignment = |partition| Assignment { partition, start: StartAt::Offset(40), queue: &name };
    consumer.assign(&[]).unwrap();
    consumer.assign(&[assignment(&first)]).unwrap();
    let before = read(&consumer, &mut queue, &woken, 60);
    assert_eq!(before[&0].first().unwrap().0, 40);
    consumer.assign(&[assignment(&second)]).unwrap();
    assert_eq!(consumer.assignment().len(), 2);
    let after = read(&consumer, &mut queue, &woken, 60);
    assert_eq!(after[&1].iter().map(|record| record.0).collect::<Vec<_>>(), (40..100).collect::<Vec<_>>());
    // The first partition goes on where its lane had arrived.
    cluster.fill("t", 1, 10);
    let rest = read(&consumer, &mut queue, &woken, 10);
    assert_eq!(rest[&0].iter().map(|record| record.0).collect::<Vec<_>>(), (100..110).collect::<Vec<_>>());
    consumer.unassign(&[first]).unwrap();
    assert_eq!(consumer.assignment(), [second]);
}

#[test]
fn headers_keys_and_tombstones_arrive_as_they_were_sent() {
    let cluster = Cluster::with_topic("t", 1);
    let producer =
        Producer::connect(&Connection::plain(cluster.mock.bootstrap_servers()), ProducerSettings::default())
            .unwrap();
    let headers = [
        Header { name: "a", value: Some(b"1") },
        Header { name: "a", value: None },
        Header { name: "empty", value: Some(b"") },
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let sent =
        OutgoingRecord { key: Some(b"key"), headers: &headers, timestamp: Some(1_234), ..record("t", b"v") };
    let delivery = runtime.block_on(producer.deliver(&sent, PATIENCE)).unwrap();
    assert_eq!((delivery.partition, delivery.offset), (0, 0));
    let tombstone = OutgoingRecord { value: None, key: Some(b""), ..record("t", b"") };
    runtime.block_on(producer.deliver(&tombstone, PATIENCE)).unwrap();

    let consumer = cluster.consumer("t", "g");
    let (mut queue, woken) = lane(&consumer);
    assign_all(&consumer, "t", 1, &queue);
    let (mut batch, mut seen) = (MessageBatch::new(), Vec::new());
    while seen.len() < 2 {
        if queue.take(&mut batch, 10) == 0 {
            woken.recv_timeout(PATIENCE).unwrap();
        }
        for message in batch.iter() {
            assert_eq!(message.topic(), "t");
            let headers: Vec<_> = message
                .headers()
                .map(|(name, value)| (name.into_owned(), value.map(<[u8]>::to_vec)))
                .collect();
            seen.push((
                message.key().map(<[u8]>::to_vec),
                message.payload().map(<[u8]>::to_vec),
                message.timestamp(),
                headers,
            ));
        }
    }
    let expected_headers = vec![
        ("a".to_owned(), Some(b"1".to_vec())),
        ("a".to_owned(), None),
        ("empty".to_owned(), Some(Vec::new())),
    ];
    assert_eq!(seen[0], (Some(b"key".to_vec()), Some(b"v".to_vec()), Some(1_234), expected_headers));
    assert_eq!(seen[1].0, Some(Vec::new()));
    assert_eq!(seen[1].1, None);
    assert_eq!(seen[1].3, []);
}

#[test]
fn messages_outlive_their_queue_and_the_consumer() {
    let cluster = Cluster::with_topic("t", 1);
    cluster.fill("t", 1, 3);
    let consumer = cluster.consumer("t", "g");
    let (mut queue, woken) = lane(&consumer);
    assign_all(&consumer, "t", 1, &queue);
    let mut batch = MessageBatch::new();
    while queue.take(&mut batch, 10) == 0 {
        woken.recv_timeout(PATIENCE).unwrap();
    }
    drop(queue);
    drop(consumer);
    assert_eq!(batch.iter().next().unwrap().payload(), Some(&b"0"[..]));
    let messages: Vec<_> = batch.iter().collect();
    assert!(messages.iter().all(|message| message.same_partition_as(&messages[0])));
}

#[test]
fn a_consumer_whose_messages_are_still_held_says_so_when_it_closes() {
    let cluster = Cluster::with_topic("t", 1);
    cluster.fill("t", 1, 1);
    let consumer = cluster.consumer("t", "g");
    let (mut queue, woken) = lane(&consumer);
    assign_all(&consumer, "t", 1, &queue);
    let mut batch = MessageBatch::new();
    while queue.take(&mut batch, 10) == 0 {
        woken.recv_timeout(PATIENCE).unwrap();
    }
    let error = consumer.close(Duration::from_secs(2)).unwrap_err();
    assert!(error.left_group);
}

#[test]
fn a_position_outside_the_log_is_an_error_message() {
    let cluster = Cluster::with_topic("t", 1);
    cluster.fill("t", 1, 3);
    let consumer = cluster.consumer("t", "g");
    let (mut queue, woken) = lane(&consumer);
    let partition = TopicPartition::new("t", 0);
    let name = queue.handle();
    let start = StartAt::Offset(1_000);
    consumer.assign(&[Assignment { partition: &partition, start, queue: &name }]).unwrap();
    let mut batch = MessageBatch::new();
    while queue.take(&mut batch, 10) == 0 {
        woken.recv_timeout(PATIENCE).unwrap();
    }
    let message = batch.iter().next().unwrap();
    assert_eq!(message.error().unwrap().kind, txconnect_kafka::MessageErrorKind::OffsetOutOfRange);
    assert_eq!(message.payload(), None);
    assert_eq!((message.topic(), message.partition()), ("t", 0));
    // Moved to an offset that exists, it goes on.
    consumer.seek(&partition, StartAt::Offset(2), PATIENCE).unwrap();
    let records = read(&consumer, &mut queue, &woken, 1);
    assert_eq!(records[&0], [(2, "2".to_owned())]);
}

#[test]
fn the_edges_of_partitions_are_found() {
    let cluster = Cluster::with_topic("t", 2);
    cluster.fill("t", 1, 7);
    let consumer = cluster.consumer("t", "g");
    let partitions = [TopicPartition::new("t", 0), TopicPartition::new("t", 1)];
    let offsets =
        |edges: Vec<(TopicPartition, i64)>| edges.into_iter().map(|edge| edge.1).collect::<Vec<_>>();
    assert_eq!(offsets(consumer.end_offsets(&partitions, PATIENCE).unwrap()), [7, 0]);
    assert_eq!(offsets(consumer.beginning_offsets(&partitions, PATIENCE).unwrap()), [0, 0]);
    assert_eq!(consumer.topics(PATIENCE).unwrap(), [("t".to_owned(), vec![0, 1])]);
    assert_eq!(consumer.partitions_of("t", PATIENCE).unwrap(), [0, 1]);
}

#[test]
fn an_assignment_may_be_answered_with_nothing_and_started_later() {
    let cluster = Cluster::with_topic("t", 2);
    cluster.fill("t", 2, 10);
    let consumer = cluster.consumer("t", "g");
    consumer.subscribe(&["t".to_owned()]).unwrap();
    let mut partitions = wait_for(&consumer, assigned);
    partitions.sort();
    assert_eq!(partitions, [TopicPartition::new("t", 0), TopicPartition::new("t", 1)]);
    // Answered at once with nothing, started later.
    consumer.assign(&[]).unwrap();
    let (mut queue, woken) = lane(&consumer);
    assign_all(&consumer, "t", 2, &queue);
    read(&consumer, &mut queue, &woken, 20);

    drop(queue);
    consumer.close(PATIENCE).unwrap();
}

#[test]
fn commits_are_answered_and_their_metadata_comes_back() {
    let cluster = Cluster::with_topic("t", 2);
    let consumer = cluster.consumer("t", "g");
    consumer.subscribe(&["t".to_owned()]).unwrap();
    wait_for(&consumer, assigned);
    consumer.assign(&[]).unwrap();
    let position = |number: i32, next_offset, metadata: Option<String>| CommitPosition {
        partition: TopicPartition::new("t", number),
        next_offset,
        metadata,
    };
    let metadata = r#"{"v":1,"s":["é"]}"#.to_owned();
    consumer.commit(7, &[position(0, 3, Some(metadata.clone())), position(1, 5, None)]).unwrap();
    assert!(consumer.commit(7, &[position(0, 4, None)]).is_err(), "the number is in use");
    let answer = consumer.commit_answer(PATIENCE).unwrap();
    assert_eq!(answer.token, 7);
    assert!(answer.results.iter().all(|(_, result)| result.is_ok()), "{answer:?}");
    assert_eq!(answer.results.len(), 2);

    let partitions: Vec<_> = (0..2).map(|number| TopicPartition::new("t", number)).collect::<Vec<_>>();
    let committed = consumer.committed(&partitions, PATIENCE).unwrap();
    assert_eq!(committed[0].offset, Some(3));
    assert_eq!(committed[0].metadata.text(), Some(metadata.as_str()));
    assert_eq!(committed[1].offset, Some(5));
    assert_eq!(committed[1].metadata, CommittedMetadata::None);

    let too_long = consumer.commit(8, &[position(0, 4, Some("x".repeat(4097)))]).unwrap_err();
    assert!(too_long.to_string().contains("4097"), "{too_long}");
    assert!(consumer.commit(9, &[]).is_err());
    assert!(consumer.commit(10, &[position(0, -1, None)]).is_err());
    assert_eq!(consumer.commit_answer(Duration::ZERO), None);
}

#[test]
fn a_refused_commit_says_what_to_do() {
    let cluster = Cluster::with_topic("t", 1);
    let consumer = cluster.consumer("t", "g");
    consumer.subscribe(&["t".to_owned()]).unwrap();
    wait_for(&consumer, assigned);
    consumer.assign(&[]).unwrap();
    let unknown = rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID;
    cluster.mock.request_errors(rdkafka::types::RDKafkaApiKey::OffsetCommit, &[unknown]);
    let partition = TopicPartition::new("t", 0);
    consumer
        .commit(1, &[CommitPosition { partition: partition.clone(), next_offset: 1, metadata: None }])
        .unwrap();
    let answer = consumer.commit_answer(PATIENCE).unwrap();
    assert_eq!(answer.results[0].1.as_ref().unwrap_err().kind, CommitErrorKind::MembershipLost);
    assert_eq!(consumer.committed(&[partition], PATIENCE).unwrap()[0].offset, None);
}

#[test]
fn a_broker_that_goes_away_is_reported_once() {
    let cluster = Cluster::with_topic("t", 1);
    let consumer = cluster.consumer("t", "g");
    consumer.subscribe(&["t".to_owned()]).unwrap();
    wait_for(&consumer, assigned);
    consumer.assign(&[]).unwrap();
    cluster.mock.broker_down(1).unwrap();
    let first = wait_for(&consumer, |event| match event {
        ConsumerEvent::Trouble(trouble) if trouble.kind == TroubleKind::Unreachable => Some(trouble),
        _ => None,
    });
    let mut messages = vec![first];
    while let Some(event) = consumer.poll(Duration::from_secs(1)) {
        if let ConsumerEvent::Trouble(trouble) = event {
            assert!(!messages.contains(&trouble), "twice: {trouble:?}");
            messages.push(trouble);
        }
    }
    assert_eq!(consumer.fatal_error(), None);
}

#[test]
fn a_closed_port_is_unreachable_and_the_error_names_it() {
    let config: KafkaSourceConfig =
        serde_json::from_value(serde_json::json!({ "brokers": "127.0.0.1:1", "topics": ["t"] })).unwrap();
    let consumer = Consumer::connect(&config, "g", Tuning::default()).unwrap();
    let error = consumer.topics(Duration::from_secs(1)).unwrap_err().to_string();
    assert!(error.contains("127.0.0.1:1") && error.contains("refused"), "{error}");
    consumer.close(PATIENCE).unwrap();
}

#[test]
fn asking_for_topic_ids_works_on_a_cluster_in_this_process() {
    let cluster = Cluster::with_topic("t", 1);
    let consumer = cluster.consumer("t", "g");
    let ids = consumer.topic_ids(&["t"], PATIENCE).unwrap();
    assert_eq!(ids.keys().collect::<Vec<_>>(), ["t"]);
    assert!(ids["t"].as_ref().is_none_or(|id| id.len() == 22), "{ids:?}");
}

#[test]
fn asking_for_topic_ids_ends_at_its_deadline_where_no_broker_answers() {
    let config: KafkaSourceConfig =
        serde_json::from_value(serde_json::json!({ "brokers": "127.0.0.1:1", "topics": ["t"] })).unwrap();
    let consumer = Consumer::connect(&config, "g", Tuning::default()).unwrap();
    let error = consumer.topic_ids(&["t"], Duration::from_millis(500)).unwrap_err();
    assert!(matches!(error, KafkaError::Unreachable { .. } | KafkaError::Timeout { .. }), "{error}");
}
