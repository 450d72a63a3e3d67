//! Group membership, assignments, offsets and commits.
//!
//! One thread owns the [`Consumer`] and polls it. Rebalances are events: librdkafka waits until the thread
//! has answered [`ConsumerEvent::Assign`] with [`Consumer::assign`] (an empty list will do, more partitions
//! may follow later) and [`ConsumerEvent::Revoke`] with [`Consumer::unassign`]. While it waits, all partitions
//! of the member pause: answer soon. Records never come here, they go to the lanes' queues.

#![forbid(unsafe_code)]

mod commit;
mod group;
mod offsets;
mod outside;
mod topics;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rdkafka::topic_partition_list::Offset;
use rdkafka::{ClientConfig, TopicPartitionList};
use txconnect_connector_api::TopicPartition;

pub use commit::{CommitAnswer, CommitError, CommitErrorKind, CommitPosition, Committed, CommittedMetadata};
pub use group::{Assignment, StartAt};
pub use outside::{GroupMember, GroupState, MoveGroupError};

use crate::config::KafkaSourceConfig;
use crate::connection::Connection;
use crate::error::{KafkaError, one_line};
use crate::lane_queue::{LaneQueue, Wake};
use crate::native::{Entry, Event, Failure, Handle, Queue};
use crate::trouble::{Repetitions, Trouble, TroubleKind};

/// What the pipeline's memory limit means for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// How many bytes of values may wait in the queue of one lane. librdkafka holds about two and a half
    /// times as much memory, and overshoots by one fetch (2 MiB).
    pub queue_bytes_per_lane: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { queue_bytes_per_lane: 4 << 20 }
    }
}

/// What [`Consumer::poll`] reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsumerEvent {
    /// The group gives these partitions to this member. Answer with [`Consumer::assign`].
    Assign(Vec<TopicPartition>),
    /// The group takes these partitions away. Answer with [`Consumer::unassign`].
    Revoke {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// Whether another member may own them already: commit nothing. The reverse is not certain: a commit
        /// may be refused although this is false.
        lost: bool,
    },
    /// Something is wrong. The same trouble is reported once in ten seconds at most.
    Trouble(Trouble),
    /// The group is left and nothing more will come.
    Closed,
}

/// The group could not be left, or the client not be destroyed, in time. The rest goes on in the background;
/// the broker gives the partitions away when the session times out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the Kafka client did not close in time{}", if *left_group { ": lane queues or message batches are still held" } else { " and has not left its group" })]
pub struct CloseTimedOut {
    /// Whether the group was left.
    pub left_group: bool,
}

/// A member of a consumer group. Belongs to one thread at a time.
pub struct Consumer {
    handle: Arc<Handle>,
    destroyed: Receiver<()>,
    brokers: String,
    /// Empty where the client belongs to none.
    group: String,
    events: Queue,
    replies: Queue,
    /// What is assigned, where it started and which lane it is forwarded to.
    assigned: RefCell<BTreeMap<TopicPartition, group::Held>>,
    /// Events that arrived while another call looked for the cause of its failure.
    pending: RefCell<VecDeque<ConsumerEvent>>,
    /// Commits that were sent and not answered yet.
    unanswered: RefCell<BTreeMap<u64, Vec<TopicPartition>>>,
    repetitions: RefCell<Repetitions>,
    names: RefCell<BTreeSet<Arc<str>>>,
}

impl Consumer {
    /// Makes the client. It connects in the background; that a broker cannot be reached shows in
    /// [`Consumer::poll`] and in the calls that ask it something.
    pub fn connect(config: &KafkaSourceConfig, group: &str, tuning: Tuning) -> Result<Self, KafkaError> {
        let connection = Connection::from(config);
        Self::open(&connection, &connection.consumer(group, tuning), group)
    }

    /// A client that only asks questions.
    pub(crate) fn without_group(connection: &Connection) -> Result<Self, KafkaError> {
        Self::open(connection, &connection.client("inquiry"), "")
    }

    fn open(connection: &Connection, settings: &ClientConfig, group: &str) -> Result<Self, KafkaError> {
        let (handle, destroyed) = Handle::open(settings).map_err(|error| connection.refused(&error))?;
        let no_queue = || KafkaError::Fatal { cause: "the client has no queue for events".to_owned() };
        Ok(Self {
            events: handle.event_queue().ok_or_else(no_queue)?,
            replies: handle.new_queue().ok_or_else(no_queue)?,
            handle,
            destroyed,
            brokers: connection.brokers().to_owned(),
            group: group.to_owned(),
            assigned: RefCell::default(),
            pending: RefCell::default(),
            unanswered: RefCell::default(),
            repetitions: RefCell::default(),
            names: RefCell::default(),
        })
    }

    /// Joins the group for these topics, or changes the list. A topic that does not exist is reported as
    /// trouble and noticed when it appears.
    pub fn subscribe(&self, topics: &[String]) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::with_capacity(topics.len());
        for topic in topics {
            refuse_nul(topic)?;
            list.add_topic_unassigned(topic);
        }
        self.handle.subscribe(&list).map_err(|failure| self.failed(&failure, "subscribing", None))
    }

    /// Leaves the group. A revocation of everything that is assigned comes first, as an event; after it
    /// [`Self::subscribe`] joins again, under a new membership.
    ///
    /// # Errors
    /// The client is closing.
    pub fn unsubscribe(&self) -> Result<(), KafkaError> {
        self.handle.unsubscribe().map_err(|failure| self.failed(&failure, "leaving the group", None))
    }

    /// Waits up to `timeout` for the next event. Call it at least every 100 ms: it also serves the log and
    /// keeps the membership.
    pub fn poll(&self, timeout: Duration) -> Option<ConsumerEvent> {
        self.forward_again();
        if let Some(event) = self.pending.borrow_mut().pop_front() {
            return Some(event);
        }
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(event) = self.events.poll(left) else {
                return self.handle.closed().then_some(ConsumerEvent::Closed);
            };
            if let Some(event) = self.translate(event) {
                return Some(event);
            }
            if left.is_zero() {
                return None;
            }
        }
    }

    /// A queue for one lane. `wake` is called when it was empty and gets a message.
    pub fn lane_queue(&self, wake: Wake) -> Result<LaneQueue, KafkaError> {
        let queue = self.handle.new_queue();
        let no_queue = || KafkaError::Fatal { cause: "the client has no queue for a lane".to_owned() };
        Ok(LaneQueue::new(queue.ok_or_else(no_queue)?, wake))
    }

    /// Whether the partitions may belong to another member already.
    pub fn assignment_lost(&self) -> bool {
        self.handle.assignment_lost()
    }

    /// Why the client is beyond use, if it is.
    pub fn fatal_error(&self) -> Option<String> {
        self.handle.client().fatal_error().map(|(_, text)| one_line(&text))
    }

    /// Leaves the group and destroys the client, within `deadline`. Drop lane queues and batches before.
    /// What is still assigned is given up without a commit.
    pub fn close(self, deadline: Duration) -> Result<(), CloseTimedOut> {
        let end = Instant::now() + deadline;
        let mut left_group = false;
        if self.handle.close_into(&self.events).is_err() {
            // Closed already, or a fatal error: there is nothing to leave.
            left_group = true;
        }
        while !left_group {
            let left = end.saturating_duration_since(Instant::now());
            match self.poll(left.min(Duration::from_millis(50))) {
                Some(ConsumerEvent::Closed) => left_group = true,
                Some(ConsumerEvent::Revoke { partitions, .. }) => {
                    if let Err(error) = self.unassign(&partitions) {
                        tracing::debug!(target: "kafka", "giving partitions up while closing: {error}");
                    }
                }
                Some(ConsumerEvent::Assign(_)) => {
                    if let Err(error) = self.assign(&[]) {
                        tracing::debug!(target: "kafka", "refusing partitions while closing: {error}");
                    }
                }
                Some(ConsumerEvent::Trouble(_)) | None => {}
            }
            if left.is_zero() {
                break;
            }
        }
        let destroyed = self.into_destroyed();
        let left = end.saturating_duration_since(Instant::now());
        match destroyed.recv_timeout(left) {
            // Disconnected: the client is gone.
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) if left_group => Ok(()),
            _ => Err(CloseTimedOut { left_group }),
        }
    }

    /// Lets go of the client and keeps what tells when it is destroyed.
    fn into_destroyed(self) -> Receiver<()> {
        self.destroyed
    }

    fn translate(&self, event: Event) -> Option<ConsumerEvent> {
        match event {
            Event::Assign(entries) => Some(ConsumerEvent::Assign(self.partitions(&entries))),
            Event::Revoke(entries) => Some(ConsumerEvent::Revoke {
                partitions: self.partitions(&entries),
                lost: self.handle.assignment_lost(),
            }),
            Event::Error { code, fatal, text } => self.report(Trouble::from_event(code, fatal, &text)),
            Event::StrayRecord => self.report(Trouble {
                kind: TroubleKind::Fatal,
                message: "a record arrived outside of the lanes; connect anew to read it again".to_owned(),
            }),
            Event::Committed { .. } | Event::Served => None,
        }
    }

    fn report(&self, trouble: Trouble) -> Option<ConsumerEvent> {
        let again = self.repetitions.borrow_mut().hold_back(&trouble, Instant::now());
        (!again).then_some(ConsumerEvent::Trouble(trouble))
    }

    fn partitions(&self, entries: &[Entry]) -> Vec<TopicPartition> {
        entries.iter().map(|entry| self.partition(entry)).collect()
    }

    /// The partition of an entry, with one shared name per topic.
    fn partition(&self, entry: &Entry) -> TopicPartition {
        let mut names = self.names.borrow_mut();
        let name = names.get(entry.topic.as_str()).cloned().unwrap_or_else(|| {
            let name: Arc<str> = entry.topic.as_str().into();
            names.insert(Arc::clone(&name));
            name
        });
        TopicPartition { topic: name, partition: entry.partition }
    }

    /// The error of a failed native call. Where no broker answered, the reason is in the events that have
    /// piled up meanwhile.
    fn failed(&self, failure: &Failure, what: &str, topic: Option<&str>) -> KafkaError {
        if failure.fatal {
            return KafkaError::Fatal { cause: one_line(&failure.text) };
        }
        self.explain(KafkaError::from_code(failure.code, what, topic, &self.brokers))
    }

    /// Replaces an error that only says that no answer came by what the client reports about it.
    fn explain(&self, error: KafkaError) -> KafkaError {
        if !matches!(error, KafkaError::Unreachable { .. } | KafkaError::Timeout { .. }) {
            return error;
        }
        let (mut login, mut network) = (None, None);
        while let Some(event) = self.events.poll(Duration::ZERO) {
            if let Event::Error { code, fatal, text } = &event {
                let trouble = Trouble::from_event(*code, *fatal, text);
                match trouble.kind {
                    TroubleKind::Authentication => login = Some(trouble.message),
                    TroubleKind::Unreachable if *code != rdkafka::types::RDKafkaErrorCode::AllBrokersDown => {
                        network = Some(trouble.message);
                    }
                    _ => {}
                }
            }
            if let Some(event) = self.translate(event) {
                self.pending.borrow_mut().push_back(event);
            }
        }
        match (login, network) {
            (Some(cause), _) => KafkaError::Authentication { cause },
            (None, Some(cause)) => KafkaError::Unreachable { brokers: self.brokers.clone(), cause },
            (None, None) => error,
        }
    }
}

/// Names with a NUL cannot be handed to the client.
fn refuse_nul(topic: &str) -> Result<(), KafkaError> {
    if topic.contains('\0') {
        return Err(KafkaError::UnknownTopic { topic: topic.replace('\0', "?") });
    }
    Ok(())
}

/// A list of partitions, each with an offset.
fn list_of<'a>(
    partitions: impl IntoIterator<Item = (&'a TopicPartition, Offset)>,
) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in partitions {
        refuse_nul(&partition.topic)?;
        list.add_partition(&partition.topic, partition.partition).set_offset(offset).map_err(|_| {
            KafkaError::Other {
                what: format!("setting an offset of {partition}"),
                cause: format!("{offset:?} is no offset"),
            }
        })?;
    }
    Ok(list)
}
