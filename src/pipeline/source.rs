//! The source thread: group membership, rebalances, commits, errors.
//!
//! It alone talks to the consumer, so a commit can never meet a partition that a rebalance has just taken away:
//! partitions are drained, committed and only then given back. It never takes a record itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use txconnect_connector_api::TopicPartition;
use txconnect_kafka::{
    Assignment as KafkaAssignment, CommitErrorKind, CommitPosition, Consumer, ConsumerEvent, KafkaError,
    OnLostOffsets, Start, StartAt, Trouble, TroubleKind, Tuning,
};

use super::RunOptions;
use super::ends::Ends;
use super::lane::{Command, LaneReport};
use super::lanes::Lanes;
use super::shared::{Failure, Shared};
use super::topic::Topic;
use crate::config::Pipeline;
use crate::delivery::{Action, Assignment, CommitOutcome, CommitToken, Event, Slot};

/// How long one turn waits for events: also how late a commit answer or the end is noticed.
const TURN: Duration = Duration::from_millis(50);
/// Events served in one turn. More than a few come only when brokers go away.
const EVENTS_A_TURN: usize = 100;
/// How long the group may take to answer a question.
const QUESTION: Duration = Duration::from_secs(10);
/// How often the cluster is asked for topics that a pattern matches, and for listed topics that are missing.
const LOOK_FOR_TOPICS: Duration = Duration::from_secs(5);
/// How often the ends of partitions are asked for, to tell the lag.
const LOOK_FOR_ENDS: Duration = Duration::from_secs(5);
/// How long an answer to a commit is waited for before it is taken for unknown.
const COMMIT_DEADLINE: Duration = Duration::from_secs(30);
/// How long the last commit of a drain is waited for.
const LAST_COMMIT_DEADLINE: Duration = Duration::from_secs(5);
/// How long a drain waits before it repeats a commit that the group has refused.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);
/// How long leaving the group may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);
/// How often a lasting outage of the brokers is told again.
const REMIND: Duration = Duration::from_secs(30);

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
    subscribed: Vec<String>,
    /// Partitions the group gave us that could not be started yet.
    waiting: Vec<TopicPartition>,
    assignments: u64,
    ends: Option<Ends>,
    timers: Timers,
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
    topics: Instant,
    ends: Instant,
    retry_start: Instant,
    commit_sent: Option<(CommitToken, Instant)>,
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
        let lanes = Lanes::new(Arc::clone(&pipeline), Arc::clone(&shared), runtime, reports_to, most_lanes);
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
            subscribed: Vec::new(),
            waiting: Vec::new(),
            assignments: 0,
            ends: None,
            timers: Timers { commit: now, topics: now, ends: now, retry_start: now, commit_sent: None },
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
            self.look_for_topics()?;
            self.events()?;
            self.start_waiting()?;
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
                self.consumer.assign(&[]).map_err(|error| Self::failed(&error))?;
                self.waiting.extend(partitions);
                self.timers.retry_start = Instant::now();
            }
            ConsumerEvent::Revoke { partitions, lost } => {
                tracing::info!(
                    pipeline = %self.shared.name,
                    "{}: {}", if lost { "lost" } else { "revoked" }, listed(&partitions)
                );
                self.waiting.retain(|waiting| !partitions.contains(waiting));
                self.give_back(&partitions, lost);
            }
            ConsumerEvent::Trouble(trouble) => self.trouble(&trouble)?,
            ConsumerEvent::Closed => {
                return Err(Failure::fatal("the Kafka client has closed by itself", None));
            }
        }
        Ok(())
    }

    fn trouble(&mut self, trouble: &Trouble) -> Result<(), Failure> {
        let message = &trouble.message;
        match &trouble.kind {
            TroubleKind::Unreachable => {
                if self.troubled.is_none_or(|since| since.elapsed() >= REMIND) {
                    self.troubled = Some(Instant::now());
                    let brokers = &self.pipeline.source.brokers;
                    tracing::warn!(pipeline = %self.shared.name, "no Kafka broker answers at {brokers}, trying again: {message}");
                }
            }
            TroubleKind::Authentication => {
                return Err(Failure::fatal(
                    format!("Kafka refuses the login: {message}"),
                    Some("check `sasl:` and `tls:` in the pipeline file".to_owned()),
                ));
            }
            TroubleKind::Authorization => {
                return Err(Failure::fatal(
                    format!("Kafka refuses access: {message}"),
                    Some(format!(
                        "give the user READ and DESCRIBE on the topics and READ on the group `{}`",
                        self.pipeline.group
                    )),
                ));
            }
            TroubleKind::Fatal => {
                return Err(Failure::fatal(format!("the Kafka client has failed: {message}"), None));
            }
            // Told by `look_for_topics`, in our words.
            TroubleKind::UnknownTopic { .. } => {}
            TroubleKind::MembershipLost => {
                tracing::warn!(pipeline = %self.shared.name, "the group has dropped this member, joining again: {message}");
            }
            _ => tracing::warn!(pipeline = %self.shared.name, "{message}"),
        }
        Ok(())
    }

    // ---- topics ----

    /// Looks at the cluster's topics: at the start, for a pattern, and while a listed topic is missing.
    fn look_for_topics(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        let complete =
            self.pipeline.source.topics.as_ref().is_some_and(|topics| topics.len() == self.topics.len());
        if complete || now < self.timers.topics {
            return Ok(());
        }
        self.timers.topics = now + LOOK_FOR_TOPICS;
        let found = match self.consumer.topics(QUESTION) {
            Ok(found) => found,
            Err(error) => return self.ask_again_later(&error),
        };
        let wanted: Vec<(String, Vec<i32>)> = found
            .into_iter()
            .filter(|(name, partitions)| !partitions.is_empty() && (self.wanted)(name))
            .collect();
        let first = self.subscribed.is_empty() && self.topics.is_empty();
        for (name, _) in &wanted {
            if !self.topics.contains_key(name) {
                let topic = Topic::of(&self.pipeline, name).map_err(|error| {
                    Failure::fatal(
                        format!("{name}: {error}"),
                        Some("write the schema, or change the pattern".to_owned()),
                    )
                })?;
                self.topics.insert(name.clone(), Arc::new(topic));
                if !first {
                    tracing::info!(pipeline = %self.shared.name, "new topic: {name}");
                }
            }
        }
        self.name_missing_topics(first)?;
        if self.options.until_end && self.ends.is_none() {
            self.take_ends(&wanted)?;
        }
        // Listed topics are subscribed to even while they are missing: the group notices them when they appear.
        let names: Vec<String> = match &self.pipeline.source.topics {
            Some(listed) => listed.clone(),
            None => self.topics.keys().cloned().collect(),
        };
        if names != self.subscribed && !names.is_empty() {
            self.consumer.subscribe(&names).map_err(|error| Self::failed(&error))?;
            self.subscribed = names;
        }
        Ok(())
    }

    fn name_missing_topics(&self, first: bool) -> Result<(), Failure> {
        let missing: Vec<&str> = match &self.pipeline.source.topics {
            Some(listed) => {
                listed.iter().filter(|name| !self.topics.contains_key(*name)).map(String::as_str).collect()
            }
            None if self.topics.is_empty() => {
                let pattern = self.pipeline.source.pattern.as_deref().unwrap_or_default();
                if self.options.until_end {
                    return Err(Failure::fatal(format!("no topic matches the pattern {pattern}"), None));
                }
                if first {
                    tracing::warn!(pipeline = %self.shared.name, "no topic matches the pattern {pattern} yet, waiting for one");
                }
                Vec::new()
            }
            None => Vec::new(),
        };
        if missing.is_empty() {
            return Ok(());
        }
        let names = missing.join(", ");
        if self.options.until_end {
            let hint = "create the topic, for example with `txconnect publish`, or mend its name in the pipeline file";
            return Err(Failure::fatal(format!("unknown topic: {names}"), Some(hint.to_owned())));
        }
        if first {
            tracing::warn!(pipeline = %self.shared.name, "unknown topic: {names}; waiting for it to appear");
        }
        Ok(())
    }

    fn take_ends(&mut self, wanted: &[(String, Vec<i32>)]) -> Result<(), Failure> {
        let partitions: Vec<TopicPartition> = wanted
            .iter()
            .flat_map(|(name, numbers)| {
                let topic: Arc<str> = name.as_str().into();
                numbers.iter().map(move |number| TopicPartition::new(Arc::clone(&topic), *number))
            })
            .collect();
        match self.consumer.end_offsets(&partitions, QUESTION) {
            Ok(ends) => {
                self.ends = Some(Ends::new(ends));
                Ok(())
            }
            Err(error) => {
                // Subscribing without the ends would start reading without knowing where to stop.
                self.topics.clear();
                self.ask_again_later(&error)
            }
        }
    }

    // ---- assignment ----

    /// Starts partitions that the group has given us: finds out where, and forwards them to their lanes.
    fn start_waiting(&mut self) -> Result<(), Failure> {
        if self.waiting.is_empty() || Instant::now() < self.timers.retry_start {
            return Ok(());
        }
        let partitions = std::mem::take(&mut self.waiting);
        match self.starts_of(&partitions) {
            Ok(starts) => self.start(starts),
            Err(StartError::Later(error)) => {
                self.waiting = partitions;
                self.timers.retry_start = Instant::now() + Duration::from_secs(1);
                self.ask_again_later(&error)
            }
            Err(StartError::Never(failure)) => Err(failure),
        }
    }

    /// Where each partition starts: at the group's position, else where `start` says.
    fn starts_of(&self, partitions: &[TopicPartition]) -> Result<Vec<Starting>, StartError> {
        let committed = self.consumer.committed(partitions, QUESTION)?;
        let beginnings: HashMap<_, _> =
            self.consumer.beginning_offsets(partitions, QUESTION)?.into_iter().collect();
        let ends: HashMap<_, _> = self.consumer.end_offsets(partitions, QUESTION)?.into_iter().collect();
        let fresh: Vec<TopicPartition> = committed
            .iter()
            .filter(|committed| committed.offset.is_none())
            .map(|committed| committed.partition.clone())
            .collect();
        let by_time: HashMap<_, _> = match self.pipeline.source.start {
            Start::Timestamp(millis) if !fresh.is_empty() => {
                self.consumer.offsets_for_time(&fresh, millis, QUESTION)?.into_iter().collect()
            }
            _ => HashMap::new(),
        };
        let mut starts = Vec::with_capacity(committed.len());
        for known in committed {
            let partition = known.partition;
            let beginning = beginnings.get(&partition).copied().unwrap_or(0);
            let end = ends.get(&partition).copied().unwrap_or(beginning);
            let position = match known.offset {
                Some(offset) if offset >= beginning && offset <= end => offset,
                Some(offset) => self.lost_position(&partition, offset, beginning, end)?,
                None => match self.pipeline.source.start {
                    Start::Earliest => beginning,
                    Start::Latest => end,
                    Start::Timestamp(_) => by_time.get(&partition).copied().flatten().unwrap_or(end),
                },
            };
            starts.push(Starting { partition, position, committed: known.offset, end });
        }
        Ok(starts)
    }

    /// The position lies outside the log: records were deleted before they were read, or the topic was made anew.
    fn lost_position(
        &self,
        partition: &TopicPartition,
        offset: i64,
        beginning: i64,
        end: i64,
    ) -> Result<i64, StartError> {
        let place = format!(
            "{partition}: the position {offset} is outside the log, which holds {beginning} to {end}"
        );
        let position = match self.pipeline.source.on_lost_offsets {
            OnLostOffsets::Stop => return Err(StartError::Never(lost_offsets(&place))),
            OnLostOffsets::Earliest => beginning,
            OnLostOffsets::Latest => end,
        };
        tracing::warn!(pipeline = %self.shared.name, "{place}; going on at {position} as `on_lost_offsets` says");
        Ok(position)
    }

    fn start(&mut self, starts: Vec<Starting>) -> Result<(), Failure> {
        let mut starting = Vec::with_capacity(starts.len());
        for Starting { partition, position, committed, end } in starts {
            let Some(topic) = self.topics.get(&*partition.topic).cloned() else {
                // The group was faster than we: a topic that has just appeared.
                let topic = Topic::of(&self.pipeline, &partition.topic)
                    .map_err(|error| Failure::fatal(format!("{}: {error}", partition.topic), None))?;
                self.topics.insert(partition.topic.to_string(), Arc::new(topic));
                self.waiting.push(partition);
                continue;
            };
            let slot = self.slot_of(&partition)?;
            self.assignments += 1;
            let assignment = Assignment(self.assignments);
            let state = &mut self.slots[slot.0 as usize];
            state.assignment = assignment;
            state.held = true;
            let lane = state.lane;
            self.shared.books.assigned(slot, &partition, committed, Some(end));
            let stored = committed == Some(position);
            self.shared.tell(Event::Assigned { slot, assignment, position, committed: stored });
            self.lanes.send(
                lane,
                Command::Assign { slot, assignment, position, partition: partition.clone(), topic },
            );
            if let Some(ends) = &mut self.ends {
                ends.started(&partition, position);
            }
            starting.push((partition, position, lane));
        }
        let assignments: Vec<KafkaAssignment<'_>> = starting
            .iter()
            .map(|(partition, position, lane)| KafkaAssignment {
                partition,
                start: StartAt::Offset(*position),
                queue: self.lanes.queue(*lane),
            })
            .collect();
        if !assignments.is_empty() {
            self.consumer.assign(&assignments).map_err(|error| Self::failed(&error))?;
            self.shared.assigned();
        }
        Ok(())
    }

    fn slot_of(&mut self, partition: &TopicPartition) -> Result<Slot, Failure> {
        if let Some(slot) = self.by_partition.get(partition) {
            return Ok(*slot);
        }
        let held: Vec<usize> = self.slots.iter().filter(|state| state.held).map(|state| state.lane).collect();
        let lane = self.lanes.least_loaded(&held, &self.consumer)?;
        let slot = Slot(u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
        self.slots.push(SlotState {
            partition: partition.clone(),
            lane,
            assignment: Assignment(0),
            held: false,
        });
        self.by_partition.insert(partition.clone(), slot);
        Ok(slot)
    }

    /// Drains, commits and gives partitions back; or drops them where they are lost.
    fn give_back(&mut self, partitions: &[TopicPartition], lost: bool) {
        let slots: Vec<Slot> = partitions
            .iter()
            .filter_map(|partition| self.by_partition.get(partition).copied())
            .filter(|slot| self.slots[slot.0 as usize].held)
            .collect();
        if lost {
            self.shared.tell(Event::Lost { slots: slots.clone() });
            self.lanes.drop_partitions(&self.lanes_of(&slots));
        } else {
            self.drain(&slots);
        }
        for slot in &slots {
            self.slots[slot.0 as usize].held = false;
            self.shared.books.released(*slot);
        }
        if let Some(ends) = &mut self.ends {
            ends.left(partitions);
        }
        if let Err(error) = self.consumer.unassign(partitions) {
            tracing::warn!(pipeline = %self.shared.name, "giving partitions back: {error}");
        }
    }

    /// Finishes what is on its way for these partitions, within `rebalance.drain_timeout`, and commits it.
    fn drain(&mut self, slots: &[Slot]) {
        if slots.is_empty() {
            return;
        }
        let by_lane = self.lanes_of(slots);
        let deadline = Instant::now() + self.pipeline.source.rebalance.drain_timeout.0;
        let (done, answers) = sync_channel(by_lane.len());
        for (lane, slots) in &by_lane {
            self.lanes.send(*lane, Command::Release { slots: slots.clone(), done: done.clone() });
        }
        drop(done);
        let mut answered = 0;
        while answered < by_lane.len() {
            self.shared.beat();
            match answers.recv_timeout(deadline.saturating_duration_since(Instant::now()).min(TURN)) {
                Ok(()) => answered += 1,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        self.shared.tell(Event::Revoked { slots: slots.to_vec() });
        let mut gave_up = false;
        let last = deadline + LAST_COMMIT_DEADLINE;
        let mut next_try = Instant::now() + REFUSED_PAUSE;
        loop {
            self.shared.beat();
            if Instant::now() >= next_try {
                next_try = Instant::now() + REFUSED_PAUSE;
                self.shared.tell(Event::CommitDue);
            }
            if let Err(failure) = self.perform_actions() {
                self.shared.fail(failure);
            }
            let held = self.shared.held();
            if slots.iter().all(|slot| !held.contains(slot)) {
                break;
            }
            let now = Instant::now();
            // After a failure nothing more will finish once the writers hold nothing: lanes that have answered have
            // nothing left to hand over either.
            let failed = self.shared.has_failed() && answered == by_lane.len() && !self.lanes.any_in_flight();
            if !gave_up && (now >= deadline || failed) {
                gave_up = true;
                if !failed {
                    tracing::warn!(
                        pipeline = %self.shared.name,
                        "giving up what is on its way; whoever reads the partitions next repeats it"
                    );
                }
                self.lanes.drop_partitions(&by_lane);
                self.shared.tell(Event::DrainDeadline);
            }
            if now >= last {
                tracing::warn!(pipeline = %self.shared.name, "the last commit was not confirmed in time");
                self.shared.tell(Event::Lost { slots: slots.to_vec() });
                break;
            }
            self.commit_answers(Duration::from_millis(5));
            self.shared.wait_for_move(Duration::from_millis(5));
        }
    }

    fn lanes_of(&self, slots: &[Slot]) -> Vec<(usize, Vec<Slot>)> {
        let mut by_lane: BTreeMap<usize, Vec<Slot>> = BTreeMap::new();
        for slot in slots {
            by_lane.entry(self.slots[slot.0 as usize].lane).or_default().push(*slot);
        }
        by_lane.into_iter().collect()
    }

    fn lane_reports(&mut self) -> Result<(), Failure> {
        while let Ok(report) = self.reports.try_recv() {
            match report {
                LaneReport::PositionLost { slot } => self.position_lost(slot)?,
            }
        }
        Ok(())
    }

    /// Retention has overtaken a partition while it was read.
    fn position_lost(&mut self, slot: Slot) -> Result<(), Failure> {
        let state = &self.slots[slot.0 as usize];
        if !state.held {
            return Ok(());
        }
        let partition = state.partition.clone();
        if self.pipeline.source.on_lost_offsets == OnLostOffsets::Stop {
            let place =
                format!("{partition}: the position is outside the log, which has lost records not read yet");
            return Err(lost_offsets(&place));
        }
        // What is on its way is committed; then the partition starts anew, and the start looks at the log.
        self.give_back(std::slice::from_ref(&partition), false);
        self.waiting.push(partition);
        Ok(())
    }

    // ---- commits ----

    fn commit_timer(&mut self) {
        let now = Instant::now();
        if let Some((token, sent)) = self.timers.commit_sent
            && now.duration_since(sent) > COMMIT_DEADLINE
        {
            self.timers.commit_sent = None;
            self.shared.tell(Event::CommitTimedOut { token });
        }
        if now >= self.timers.commit {
            self.timers.commit = now + self.pipeline.source.commit_interval.0;
            self.shared.tell(Event::CommitDue);
        }
    }

    fn perform_actions(&mut self) -> Result<(), Failure> {
        for action in self.shared.actions() {
            match action {
                Action::Commit { token, positions } => self.commit(token, &positions),
                // `drain` sees it by asking the machine.
                Action::Release { .. } => {}
                Action::Fail { reason } => return Err(Failure::fatal(reason, None)),
            }
        }
        Ok(())
    }

    fn commit(&mut self, token: CommitToken, positions: &[(Slot, i64)]) {
        if self.consumer.assignment_lost() {
            // The revocation is on its way. A commit may come after this process has joined again, and be taken.
            let outcomes = positions.iter().map(|(slot, _)| (*slot, CommitOutcome::MembershipLost)).collect();
            return self.shared.tell(Event::CommitAnswered { token, outcomes });
        }
        let wanted: Vec<CommitPosition> = positions
            .iter()
            .map(|(slot, next_offset)| CommitPosition {
                partition: self.slots[slot.0 as usize].partition.clone(),
                next_offset: *next_offset,
                metadata: None,
            })
            .collect();
        match self.consumer.commit(token.0, &wanted) {
            Ok(()) => self.timers.commit_sent = Some((token, Instant::now())),
            Err(error) => {
                tracing::warn!(pipeline = %self.shared.name, "committing: {error}");
                let outcomes = positions.iter().map(|(slot, _)| (*slot, CommitOutcome::Refused)).collect();
                self.shared.tell(Event::CommitAnswered { token, outcomes });
            }
        }
    }

    fn commit_answers(&mut self, wait: Duration) {
        if self.timers.commit_sent.is_none() {
            return;
        }
        let Some(answer) = self.consumer.commit_answer(wait) else { return };
        self.timers.commit_sent = None;
        let outcomes = answer
            .results
            .into_iter()
            .filter_map(|(partition, result)| {
                let slot = *self.by_partition.get(&partition)?;
                let outcome = match result {
                    Ok(()) => CommitOutcome::Stored,
                    Err(error) => {
                        tracing::debug!(pipeline = %self.shared.name, "{partition}: {error}");
                        match error.kind {
                            CommitErrorKind::Retry => CommitOutcome::Refused,
                            CommitErrorKind::MembershipLost => CommitOutcome::MembershipLost,
                            CommitErrorKind::Unknown => CommitOutcome::Unknown,
                            CommitErrorKind::Permanent | CommitErrorKind::Fatal => {
                                CommitOutcome::Impossible(format!("{partition}: {error}"))
                            }
                        }
                    }
                };
                Some((slot, outcome))
            })
            .collect();
        self.shared.tell(Event::CommitAnswered { token: CommitToken(answer.token), outcomes });
        for slot in self.shared.held() {
            if let Some(position) = self.shared.ask(|machine| machine.committed(slot)) {
                self.shared.books.committed(slot, position);
            }
        }
    }

    // ---- the end, the lag, the patience ----

    fn look_for_ends(&mut self) {
        let now = Instant::now();
        if now < self.timers.ends {
            return;
        }
        self.timers.ends = now + LOOK_FOR_ENDS;
        let held: Vec<TopicPartition> =
            self.slots.iter().filter(|state| state.held).map(|state| state.partition.clone()).collect();
        if held.is_empty() {
            return;
        }
        // The lag is only told: when the broker is away there is no news of it.
        if let Ok(ends) = self.consumer.end_offsets(&held, Duration::from_secs(1)) {
            for (partition, end) in ends {
                if let Some(slot) = self.by_partition.get(&partition) {
                    self.shared.books.end(*slot, end);
                }
            }
        }
    }

    /// With `--until-end`: whether every partition that is ours has been read and written up to its end.
    fn all_done(&mut self) -> Result<bool, Failure> {
        let Some(ends) = &mut self.ends else { return Ok(false) };
        let reading = ends.reading();
        if !reading.is_empty() {
            let positions = self.consumer.positions(&reading).map_err(|error| kafka_failure(&error))?;
            for (partition, position) in reading.iter().zip(positions) {
                ends.position(partition, position);
            }
        }
        for partition in ends.to_hand_over() {
            // The lane closes its batches early and tells when they are on their way.
            if let Some(slot) = self.by_partition.get(&partition) {
                let (done, answer) = sync_channel(1);
                let lane = self.slots[slot.0 as usize].lane;
                self.lanes.send(lane, Command::HandOver { slots: vec![*slot], done });
                ends.handing_over(&partition, answer);
            }
        }
        ends.collect_answers();
        for partition in ends.handed_over() {
            if let Some(slot) = self.by_partition.get(&partition)
                && self.shared.ask(|machine| machine.is_idle(*slot))
            {
                ends.done(&partition);
            }
        }
        Ok(self.waiting.is_empty() && ends.all_done(Instant::now()))
    }

    /// With `--timeout`: gives up when nothing was written for that long and something is being waited for.
    fn check_progress(&mut self) -> Result<(), Failure> {
        let Some(patience) = self.options.timeout else { return Ok(()) };
        let flushes = self.shared.flushes();
        if flushes != self.progress.flushes {
            self.progress = Progress { flushes, since: Instant::now() };
        }
        if self.progress.since.elapsed() < patience {
            return Ok(());
        }
        let waited = patience.as_secs_f32();
        Err(Failure::fatal(format!("nothing has moved for {waited} s: {}", self.shared.waiting_for()), None))
    }

    // ---- leaving ----

    fn leave(mut self) {
        let held: Vec<TopicPartition> =
            self.slots.iter().filter(|state| state.held).map(|state| state.partition.clone()).collect();
        self.give_back(&held, false);
        let Self { lanes, consumer, shared, .. } = self;
        shared.beat();
        lanes.end();
        if let Err(error) = consumer.close(CLOSE_DEADLINE) {
            tracing::warn!(pipeline = %shared.name, "{error}");
        }
        shared.left();
    }

    fn failed(error: &KafkaError) -> Failure {
        kafka_failure(error)
    }

    /// An error that heals by itself is told and waited out; another one ends the pipeline.
    fn ask_again_later(&mut self, error: &KafkaError) -> Result<(), Failure> {
        match error {
            KafkaError::Unreachable { .. } | KafkaError::Timeout { .. } | KafkaError::Other { .. } => {
                if self.troubled.is_none_or(|since| since.elapsed() >= REMIND) {
                    self.troubled = Some(Instant::now());
                    tracing::warn!(pipeline = %self.shared.name, "{error}; trying again");
                }
                self.shared.waiting_because(&error.to_string());
                Ok(())
            }
            KafkaError::UnknownTopic { .. } if !self.options.until_end => Ok(()),
            _ => Err(Self::failed(error)),
        }
    }
}

/// A partition about to be read.
struct Starting {
    partition: TopicPartition,
    position: i64,
    committed: Option<i64>,
    end: i64,
}

enum StartError {
    Later(KafkaError),
    Never(Failure),
}

impl From<KafkaError> for StartError {
    fn from(error: KafkaError) -> Self {
        Self::Later(error)
    }
}

fn lost_offsets(place: &str) -> Failure {
    Failure::stopped(
        place,
        "records are lost or the topic was made anew: set `on_lost_offsets: earliest` or `latest` to go on",
    )
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
