//! The source thread: group membership, rebalances, commits, errors.
//!
//! It alone talks to the consumer, so a commit can never meet a partition that a rebalance has just taken away:
//! partitions are drained, committed and only then given back. It never takes a record itself.
//!
//! | module | what it does |
//! |---|---|
//! | `topics` | which topics there are and which are ours |
//! | `starting` | partitions that come |
//! | `leaving` | partitions that go |
//! | `commits` | sends what the delivery machine wants committed |
//! | `rejoining` | leaves the group and joins it anew, so that nothing sent before counts any more |
//! | `ending` | `--until-end`, the lag, `--timeout` |
//! | `trouble` | what goes wrong between us and Kafka |

mod commits;
mod ending;
mod leaving;
mod rejoining;
mod starting;
mod topics;
mod trouble;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use txconnect_connector_api::{OffsetStore, TopicPartition, WriteStreams};
use txconnect_kafka::{Consumer, ConsumerEvent, KafkaError, Tuning};

use self::commits::Lookup;
use self::rejoining::Rejoin;
use self::starting::Starts;
use self::topics::NextLook;
use super::RunOptions;
use super::ends::Ends;
use super::lane::LaneReport;
use super::lanes::Lanes;
use super::publisher::Publisher;
use super::shared::{Failure, Shared};
use super::topic::{Destinations, Topic};
use crate::config::Pipeline;
use crate::delivery::{Assignment, CommitToken, Slot};

/// How long one turn waits for events: also how late a commit answer or the end is noticed.
const TURN: Duration = Duration::from_millis(50);
/// Events served in one turn. More than a few come only when brokers go away.
const EVENTS_A_TURN: usize = 100;
/// How long the cluster may take to answer a question, at most.
const QUESTION: Duration = Duration::from_secs(5);
/// How long the publisher may take for what is left to be done at the sink.
const LAST_STEPS: Duration = Duration::from_secs(5);
/// How long leaving the group may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);

/// The source thread of one pipeline.
pub(super) struct Source {
    pipeline: Arc<Pipeline>,
    options: RunOptions,
    shared: Arc<Shared>,
    consumer: Consumer,
    /// Whether a topic is one of ours.
    wanted: Box<dyn Fn(&str) -> bool + Send>,
    lanes: Lanes,
    reports: Receiver<LaneReport>,
    slots: Vec<SlotState>,
    by_partition: HashMap<TopicPartition, Slot>,
    topics: BTreeMap<String, Arc<Topic>>,
    destinations: Destinations,
    subscribed: Vec<String>,
    /// The positions that count, where the sink keeps them.
    offsets: Option<Arc<dyn OffsetStore>>,
    /// The streams that rows go to, where they are committed in two phases.
    streams: Option<Arc<dyn WriteStreams>>,
    publisher: Option<Publisher>,
    runtime: tokio::runtime::Handle,
    /// Partitions the group gave us that could not be started yet.
    starts: Starts,
    assignments: u64,
    ends: Option<Ends>,
    next_look: NextLook,
    timers: Timers,
    /// A commit whose outcome the group has to be asked for.
    lookup: Option<Lookup>,
    /// While the group is being left to be joined anew.
    rejoin: Option<Rejoin>,
    progress: Progress,
    troubled: Option<Instant>,
}

struct SlotState {
    partition: TopicPartition,
    lane: usize,
    assignment: Assignment,
    held: bool,
}

struct Timers {
    commit: Instant,
    ends: Instant,
    commit_sent: Option<SentCommit>,
}

/// A commit that was not answered yet.
struct SentCommit {
    token: CommitToken,
    sent: Instant,
    slots: Vec<Slot>,
}

/// What `--timeout` looks at.
struct Progress {
    flushes: u64,
    since: Instant,
}

impl Source {
    /// Makes the consumer. Nothing is connected yet when this returns.
    pub(super) fn connect(
        pipeline: Arc<Pipeline>,
        options: RunOptions,
        shared: Arc<Shared>,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self, Failure> {
        let budget = u64::try_from(pipeline.memory.as_usize()).unwrap_or(u64::MAX);
        let most_lanes = Lanes::at_most(pipeline.lanes);
        // librdkafka needs two and a half times the queued bytes: with an eighth of the budget per lane, prefetching
        // stays below a third of it (`kafka-core` measurements: 4 MiB queued are 26 to 34 MB resident).
        let per_lane = (budget / most_lanes as u64 / 8).clamp(64 << 10, 16 << 20);
        let tuning = Tuning { queue_bytes_per_lane: per_lane };
        let consumer = Consumer::connect(&pipeline.source, &pipeline.group, tuning)
            .map_err(|error| kafka_failure(&error))?;
        let (reports_to, reports) = sync_channel(1024);
        let offsets = pipeline.sink.offsets(&pipeline.name).filter(|_| shared.keeps_offsets_in_sink());
        let streams = pipeline.sink.streams();
        let publisher =
            streams.as_ref().map(|streams| Publisher::start(Arc::clone(streams), &shared, &runtime));
        let lanes =
            Lanes::new(Arc::clone(&pipeline), Arc::clone(&shared), runtime.clone(), reports_to, most_lanes);
        let wanted = Box::new(pipeline.topic_filter());
        let now = Instant::now();
        Ok(Self {
            pipeline,
            options,
            shared,
            consumer,
            wanted,
            lanes,
            reports,
            slots: Vec::new(),
            by_partition: HashMap::new(),
            topics: BTreeMap::new(),
            destinations: Destinations::default(),
            subscribed: Vec::new(),
            offsets,
            streams,
            publisher,
            runtime,
            starts: Starts::new(),
            assignments: 0,
            ends: None,
            next_look: NextLook::at_once(),
            timers: Timers { commit: now, ends: now, commit_sent: None },
            lookup: None,
            rejoin: None,
            progress: Progress { flushes: 0, since: now },
            troubled: None,
        })
    }

    /// Runs until asked to stop, until the end where that is wanted, or until a failure.
    pub(super) fn run(mut self) {
        if let Err(failure) = self.turns() {
            self.shared.fail(failure);
        }
        self.leave();
    }

    fn turns(&mut self) -> Result<(), Failure> {
        while !self.shared.is_stopping() && !self.shared.has_failed() {
            self.shared.beat();
            if let Some(stalled) = self.shared.newly_stalled() {
                tracing::error!(pipeline = %self.shared.name, "{stalled}");
            }
            self.look_for_topics()?;
            self.events()?;
            self.rejoin()?;
            self.start_partitions()?;
            self.lane_reports()?;
            self.commit_timer();
            self.perform_actions()?;
            self.commit_answers(Duration::ZERO);
            self.look_for_ends();
            if self.all_done()? {
                break;
            }
            self.check_progress()?;
        }
        Ok(())
    }

    /// How long an answer of the cluster is waited for: not longer than the user has patience.
    fn question(&self) -> Duration {
        self.options.timeout.map_or(QUESTION, |patience| patience.min(QUESTION))
    }

    /// Serves all events that wait. A revocation behind others must not be overtaken by a commit: by then this process
    /// may have joined again, and its commit for a partition that another member holds would be taken.
    fn events(&mut self) -> Result<(), Failure> {
        let mut wait = TURN;
        for _ in 0..EVENTS_A_TURN {
            let Some(event) = self.consumer.poll(wait) else { break };
            self.event(event)?;
            wait = Duration::ZERO;
        }
        Ok(())
    }

    fn event(&mut self, event: ConsumerEvent) -> Result<(), Failure> {
        match event {
            ConsumerEvent::Assign(partitions) => {
                self.troubled = None;
                if let Some(ends) = &mut self.ends {
                    ends.joined();
                }
                tracing::info!(pipeline = %self.shared.name, "assigned: {}", listed(&partitions));
                // The group waits for an answer; partitions whose start is not known yet are added later.
                self.consumer.assign(&[]).map_err(|error| kafka_failure(&error))?;
                self.starts.add(partitions);
            }
            ConsumerEvent::Revoke { partitions, lost } => {
                tracing::info!(
                    pipeline = %self.shared.name,
                    "{}: {}", if lost { "lost" } else { "revoked" }, listed(&partitions)
                );
                self.starts.remove(&partitions);
                self.give_back(&partitions, lost);
                if let Some(rejoin) = &mut self.rejoin {
                    rejoin.revoked();
                }
            }
            ConsumerEvent::Trouble(trouble) => self.trouble(&trouble)?,
            ConsumerEvent::Closed => {
                return Err(Failure::fatal("the Kafka client has closed by itself", None));
            }
        }
        Ok(())
    }

    fn held_partitions(&self) -> Vec<TopicPartition> {
        self.slots.iter().filter(|state| state.held).map(|state| state.partition.clone()).collect()
    }

    fn leave(mut self) {
        self.give_back(&self.held_partitions(), false);
        let Self { lanes, consumer, shared, publisher, .. } = self;
        shared.beat();
        lanes.end();
        if let Some(publisher) = publisher {
            publisher.end(LAST_STEPS);
        }
        if let Err(error) = consumer.close(CLOSE_DEADLINE) {
            tracing::warn!(pipeline = %shared.name, "{error}");
        }
        shared.left();
    }
}

fn kafka_failure(error: &KafkaError) -> Failure {
    Failure::fatal(error.to_string(), None)
}

fn listed(partitions: &[TopicPartition]) -> String {
    if partitions.is_empty() {
        return "no partitions".to_owned();
    }
    let mut topics: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for partition in partitions {
        topics.entry(&partition.topic).or_default().push(partition.partition.to_string());
    }
    let parts: Vec<String> =
        topics.iter().map(|(topic, numbers)| format!("{topic}[{}]", numbers.join(","))).collect();
    parts.join(" ")
}
