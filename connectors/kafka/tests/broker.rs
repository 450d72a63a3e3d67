//! The crate against a real Kafka at `KAFKA_BROKERS`, with topics and groups of its own.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its functions too")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use txconnect_connector_api::TopicPartition;
use txconnect_kafka::{
    Admin, Assignment, BulkProducer, CommitErrorKind, CommitPosition, Connection, Consumer, ConsumerEvent,
    DeliveryError, EnsuredTopic, GroupState, KafkaError, KafkaSourceConfig, LaneQueue, MessageBatch,
    MoveGroupError, OutgoingRecord, Producer, ProducerSettings, StartAt, Tuning,
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

fn delete_topic(brokers: &str, topic: &str) {
    let client: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    for result in runtime().block_on(client.delete_topics(&[topic], &options)).unwrap() {
        result.unwrap();
    }
}

fn config(brokers: &str, topic: &str) -> KafkaSourceConfig {
    serde_json::from_value(serde_json::json!({ "brokers": brokers, "topics": [topic] })).unwrap()
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
        Self::join_with(&config(brokers, topic), topic, group)
    }

    fn join_with(config: &KafkaSourceConfig, topic: &str, group: &str) -> Self {
        let consumer = Consumer::connect(config, group, Tuning::default()).unwrap();
        consumer.subscribe(&[topic.to_owned()]).unwrap();
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

#[test]
fn a_topic_made_anew_has_another_id_and_a_missing_one_is_said() {
    let Some(brokers) = brokers() else { return };
    let (one, other) = (make_topic(&brokers, "id", 2, &[]), make_topic(&brokers, "id-other", 1, &[]));
    let consumer = Consumer::connect(&config(&brokers, &one), &unique("group"), Tuning::default()).unwrap();
    let ids = consumer.topic_ids(&[&one, &other, &one], PATIENCE).unwrap();
    let id_of = |ids: &BTreeMap<String, Option<String>>, topic: &str| ids[topic].clone().unwrap();
    assert_eq!(ids.len(), 2);
    assert_eq!(id_of(&ids, &one).len(), 22);
    assert_ne!(id_of(&ids, &one), id_of(&ids, &other));
    assert_eq!(consumer.topic_ids(&[&one], PATIENCE).unwrap()[&one], ids[&one]);

    let missing = unique("missing");
    let error = consumer.topic_ids(&[&one, &missing], PATIENCE).unwrap_err();
    assert_eq!(error, KafkaError::UnknownTopic { topic: missing.clone() });
    assert_eq!(consumer.topic_ids(&[], Duration::ZERO).unwrap(), BTreeMap::new());

    delete_topic(&brokers, &one);
    until("the topic is gone", || consumer.topic_ids(&[&one], PATIENCE).is_err());
    runtime().block_on(async {
        let admin = Admin::connect(&Connection::plain(&brokers)).unwrap();
        admin.ensure_topic(&one, 1, None, &[], PATIENCE).await.unwrap();
    });
    let anew = consumer.topic_ids(&[&one], PATIENCE).unwrap();
    assert_ne!(anew[&one], ids[&one]);
    assert!(anew[&one].is_some());
}

#[test]
fn metadata_beside_a_committed_position_is_read_back() {
    let Some(brokers) = brokers() else { return };
    let topic = make_topic(&brokers, "metadata", 2, &[]);
    let group = unique("group");
    let mut member = Member::join(&brokers, &topic, &group);
    until("both partitions are here", || {
        member.turn();
        member.consumer.assignment().len() == 2
    });
    let partitions = [TopicPartition::new(&*topic, 0), TopicPartition::new(&*topic, 1)];
    let notes = [Some("txconnect:offsets-in-sink".to_owned()), None];
    let positions: Vec<CommitPosition> = partitions
        .iter()
        .zip(notes.clone())
        .map(|(partition, metadata)| CommitPosition {
            partition: partition.clone(),
            next_offset: 0,
            metadata,
        })
        .collect();
    member.consumer.commit(1, &positions).unwrap();
    let answer = member.consumer.commit_answer(PATIENCE).unwrap();
    assert!(answer.results.iter().all(|(_, result)| result.is_ok()), "{answer:?}");
    // Another client, which is no member, sees them too.
    let observer = Consumer::connect(&config(&brokers, &topic), &group, Tuning::default()).unwrap();
    for consumer in [&member.consumer, &observer] {
        let committed = consumer.committed(&partitions, PATIENCE).unwrap();
        let seen: Vec<Option<String>> =
            committed.iter().map(|one| one.metadata.text().map(str::to_owned)).collect();
        assert_eq!(seen, notes);
    }
}

#[test]
fn a_group_without_members_can_be_moved_from_outside_and_one_with_members_cannot() {
    let Some(brokers) = brokers() else { return };
    for protocol in ["classic", "consumer"] {
        let topic = make_topic(&brokers, "move", 2, &[]);
        let group = unique("group");
        let config: KafkaSourceConfig = serde_json::from_value(serde_json::json!({
            "brokers": brokers, "topics": [topic], "properties": { "group.protocol": protocol },
        }))
        .unwrap();
        let connect = || Consumer::connect(&config, &group, Tuning::default()).unwrap();
        let outside = connect();
        assert_eq!(outside.group_state(PATIENCE).unwrap(), GroupState::Absent, "{protocol}");

        let partitions = [TopicPartition::new(&*topic, 0), TopicPartition::new(&*topic, 1)];
        let position = |partition: &TopicPartition, next_offset| CommitPosition {
            partition: partition.clone(),
            next_offset,
            metadata: Some("a note".to_owned()),
        };
        // Nobody has ever been a member.
        outside.move_group(&[position(&partitions[0], 7)], PATIENCE).unwrap();
        assert_eq!(outside.group_state(PATIENCE).unwrap(), GroupState::Empty, "{protocol}");
        let committed = |consumer: &Consumer| -> Vec<(Option<i64>, Option<String>)> {
            let committed = consumer.committed(&partitions, PATIENCE).unwrap();
            committed.iter().map(|one| (one.offset, one.metadata.text().map(str::to_owned))).collect()
        };
        let note = || Some("a note".to_owned());
        assert_eq!(committed(&outside), [(Some(7), note()), (None, None)], "{protocol}");

        let mut member = Member::join_with(&config, &topic, &group);
        until("the member has its partitions", || {
            member.turn();
            member.owned.len() == 2
        });
        let GroupState::Active { members } = outside.group_state(PATIENCE).unwrap() else {
            panic!("{protocol}: the group has a member")
        };
        assert_eq!(members.len(), 1, "{protocol}: {members:?}");
        assert_eq!(members[0].client_id, format!("txconnect-{group}"));
        assert!(!members[0].host.is_empty());
        let refused = outside.move_group(&[position(&partitions[0], 9)], PATIENCE).unwrap_err();
        assert_eq!(refused, MoveGroupError::Active { group: group.clone() }, "{protocol}");
        assert_eq!(committed(&outside)[0], (Some(7), note()), "{protocol}");

        let Member { consumer, queue, .. } = member;
        drop(queue);
        consumer.close(PATIENCE).unwrap();
        until("the member is gone", || outside.group_state(PATIENCE).unwrap() == GroupState::Empty);
        let both = [position(&partitions[0], 3), position(&partitions[1], 0)];
        outside.move_group(&both, PATIENCE).unwrap();
        assert_eq!(committed(&outside), [(Some(3), note()), (Some(0), note())], "{protocol}");
    }
}

#[test]
fn a_position_for_a_partition_that_is_not_there_is_refused_by_name() {
    let Some(brokers) = brokers() else { return };
    let topic = make_topic(&brokers, "refused", 1, &[]);
    let consumer = Consumer::connect(&config(&brokers, &topic), &unique("group"), Tuning::default()).unwrap();
    let position = |partition| CommitPosition {
        partition: TopicPartition::new(&*topic, partition),
        next_offset: 0,
        metadata: None,
    };
    let error = consumer.move_group(&[position(0), position(5)], PATIENCE).unwrap_err();
    let MoveGroupError::Refused { refused } = error else { panic!("{error}") };
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0].0, TopicPartition::new(&*topic, 5));
    let stored = consumer.committed(&[TopicPartition::new(&*topic, 0)], PATIENCE).unwrap();
    assert_eq!(stored[0].offset, Some(0));
}

/// Commits and answers what the broker said of each position.
fn commit(consumer: &Consumer, token: u64, positions: &[CommitPosition]) -> Vec<Result<(), CommitErrorKind>> {
    consumer.commit(token, positions).unwrap();
    let answer = consumer.commit_answer(PATIENCE).unwrap();
    assert_eq!(answer.token, token);
    answer.results.into_iter().map(|(_, result)| result.map_err(|error| error.kind)).collect()
}

fn noted(partition: &TopicPartition, next_offset: i64, note: Option<String>) -> CommitPosition {
    CommitPosition { partition: partition.clone(), next_offset, metadata: note }
}

fn join_by(protocol: &str, brokers: &str, topic: &str, group: &str, properties: &[(&str, &str)]) -> Member {
    let mut all = serde_json::json!({ "group.protocol": protocol });
    for (key, value) in properties {
        all[*key] = (*value).into();
    }
    let config: KafkaSourceConfig = serde_json::from_value(
        serde_json::json!({ "brokers": brokers, "topics": [topic], "properties": all }),
    )
    .unwrap();
    Member::join_with(&config, topic, group)
}

#[test]
fn a_note_of_4096_bytes_is_kept_a_longer_one_is_never_sent_and_none_wipes_the_one_before() {
    let Some(brokers) = brokers() else { return };
    let topic = make_topic(&brokers, "note-length", 2, &[]);
    let group = unique("group");
    let mut member = Member::join(&brokers, &topic, &group);
    until("both partitions are here", || {
        member.turn();
        member.consumer.assignment().len() == 2
    });
    let partitions = [TopicPartition::new(&*topic, 0), TopicPartition::new(&*topic, 1)];
    let longest = "n".repeat(4096);
    let results = commit(&member.consumer, 1, &[noted(&partitions[0], 0, Some(longest.clone()))]);
    assert_eq!(results, [Ok(())]);
    let too_long = noted(&partitions[0], 0, Some("n".repeat(4097)));
    assert!(member.consumer.commit(2, &[too_long, noted(&partitions[1], 0, None)]).is_err());
    let short = noted(&partitions[1], 0, Some("short".into()));
    assert_eq!(commit(&member.consumer, 2, &[short]), [Ok(())]);
    let stored = |consumer: &Consumer| -> Vec<Option<String>> {
        let committed = consumer.committed(&partitions, PATIENCE).unwrap();
        committed.iter().map(|one| one.metadata.text().map(str::to_owned)).collect()
    };
    assert_eq!(stored(&member.consumer), [Some(longest), Some("short".into())]);
    assert_eq!(commit(&member.consumer, 3, &[noted(&partitions[1], 0, None)]), [Ok(())]);
    assert_eq!(stored(&member.consumer)[1], None);
}

/// The broker fences by membership, not by ownership: whoever is a member may commit for any partition. This is why
/// commits come from one thread that knows what it holds.
#[test]
fn a_member_may_commit_for_a_partition_that_another_owns() {
    let Some(brokers) = brokers() else { return };
    for protocol in ["classic", "consumer"] {
        let topic = make_topic(&brokers, "ownership", 2, &[]);
        let group = unique("group");
        let mut members = [
            join_by(protocol, &brokers, &topic, &group, &[]),
            join_by(protocol, &brokers, &topic, &group, &[]),
        ];
        until("each has one partition", || {
            members.iter_mut().for_each(Member::turn);
            members.iter().all(|member| member.owned.len() == 1)
        });
        let owned: Vec<TopicPartition> =
            members.iter().map(|member| member.owned.first().unwrap().clone()).collect();
        assert_ne!(owned[0], owned[1], "{protocol}");
        let foreign = noted(&owned[1], 0, Some("of another".into()));
        let mut token = 0;
        until("a commit outside a rebalance", || {
            members.iter_mut().for_each(Member::turn);
            token += 1;
            commit(&members[0].consumer, token, std::slice::from_ref(&foreign)) == [Ok(())]
        });
        let stored = members[1].consumer.committed(&owned[1..], PATIENCE).unwrap();
        assert_eq!(stored[0].metadata.text(), Some("of another"), "{protocol}");
    }
}

/// Nobody polls it for longer than `max.poll.interval.ms`: the group goes on without it, and takes nothing from it.
#[test]
fn a_member_that_was_dropped_commits_nothing() {
    let Some(brokers) = brokers() else { return };
    for protocol in ["classic", "consumer"] {
        let topic = make_topic(&brokers, "dropped", 1, &[]);
        let group = unique("group");
        let mut properties = vec![("max.poll.interval.ms", "6000")];
        if protocol == "classic" {
            properties.push(("session.timeout.ms", "6000"));
        }
        let mut zombie = join_by(protocol, &brokers, &topic, &group, &properties);
        until("it has the partition", || {
            zombie.turn();
            zombie.owned.len() == 1
        });
        let partition = TopicPartition::new(&*topic, 0);
        until("its commit is taken", || {
            zombie.turn();
            commit(&zombie.consumer, 1, &[noted(&partition, 0, Some("before".into()))]) == [Ok(())]
        });
        let mut heir = join_by(protocol, &brokers, &topic, &group, &[]);
        until("another has taken the partition over", || {
            heir.turn();
            heir.owned.len() == 1
        });
        let late = noted(&partition, 0, Some("too late".into()));
        assert_eq!(
            commit(&zombie.consumer, 2, &[late]),
            [Err(CommitErrorKind::MembershipLost)],
            "{protocol}"
        );
        let stored = heir.consumer.committed(std::slice::from_ref(&partition), PATIENCE).unwrap();
        assert_eq!(stored[0].metadata.text(), Some("before"), "{protocol}");
    }
}

/// Whatever the old membership has sent counts for nothing once there is a new one.
#[test]
fn a_member_that_leaves_gives_everything_back_and_gets_it_again_when_it_joins() {
    let Some(brokers) = brokers() else { return };
    for protocol in ["classic", "consumer"] {
        let topic = make_topic(&brokers, "rejoin", 2, &[]);
        let group = unique("group");
        let mut member = join_by(protocol, &brokers, &topic, &group, &[]);
        until("it has both partitions", || {
            member.turn();
            member.owned.len() == 2
        });
        member.consumer.unsubscribe().unwrap();
        until("everything is given back", || {
            member.turn();
            member.owned.is_empty()
        });
        member.consumer.subscribe(std::slice::from_ref(&topic)).unwrap();
        until("it has both partitions again", || {
            member.turn();
            member.owned.len() == 2
        });
        let partition = TopicPartition::new(&*topic, 0);
        until("it commits as a member", || {
            member.turn();
            commit(&member.consumer, 1, &[noted(&partition, 0, Some("again".into()))]) == [Ok(())]
        });
    }
}
