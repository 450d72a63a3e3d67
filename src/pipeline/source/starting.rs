//! Partitions that come: where they start, and the sink's part in it.
//!
//! The group waits for an answer, so nothing is assigned at first; partitions are added once it is known where they
//! start. Where the sink keeps the positions, it is asked on the runtime while this thread goes on serving the group: a
//! sink that is down costs no membership, and partitions that are read already flow on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;
use txconnect_connector_api::{Claim, Claimed, Epoch, Published, SinkError, TopicPartition};
use txconnect_kafka::{
    Assignment as KafkaAssignment, Committed, CommittedMetadata, KafkaError, OnLostOffsets, Start, StartAt,
};

use super::leaving::lost_offsets;
use super::{Source, TURN, kafka_failure};
use crate::delivery::{Assignment, Event, Inherited, Note, NoteError, StreamsNote, inherit};
use crate::pipeline::backoff::Backoff;
use crate::pipeline::lane::Command;
use crate::pipeline::shared::Failure;
use crate::pipeline::topic::{Destination, Topic};

/// How long this thread waits for the sink before it goes on serving the group.
const MOMENT: Duration = Duration::from_millis(200);
/// How long the lanes may take to note partitions: they are never busy with anything for so long.
const LANES_KNOW: Duration = Duration::from_secs(30);
/// How long a partition that somebody else has taken over rests: longer than the group takes to tell a member that it
/// was dropped (a heartbeat, 3 s).
const REST: Duration = Duration::from_secs(5);
/// How soon a partition is looked at again whose position has moved while it was looked at.
const MOVED_REST: Duration = Duration::from_millis(100);
/// How long a partition rests before it goes on with a new stream.
const STREAM_REST: Duration = Duration::from_secs(1);
/// How often a partition may be taken over by others while the group says that it is ours.
const MOST_FENCES: u32 = 3;
/// After so long without another one, fences are forgotten.
const FORGET_FENCES: Duration = Duration::from_mins(1);

/// What the source thread knows of partitions that are not being read yet.
pub(super) struct Starts {
    /// Partitions the group gave us, in no hurry before `due`.
    waiting: Vec<TopicPartition>,
    due: Instant,
    backoff: Backoff,
    /// Partitions that somebody else has taken over, and when to look again.
    resting: Vec<(TopicPartition, Instant)>,
    fences: HashMap<TopicPartition, Fences>,
    asked: Option<Asked>,
    /// Topics, after routing, whose tables are ready.
    prepared: BTreeSet<Arc<str>>,
}

#[derive(Default)]
struct Fences {
    count: u32,
    last: Option<Instant>,
    previous_owner: Option<String>,
}

/// A question to the sink that is not answered yet.
struct Asked {
    starting: Vec<Starting>,
    tables: Vec<Arc<Destination>>,
    answer: Receiver<Result<SinkAnswer, SinkError>>,
    task: AbortHandle,
    /// Partitions that were taken back meanwhile.
    gone: BTreeSet<TopicPartition>,
}

/// What the sink says of partitions that are to be read, in their order.
#[derive(Default)]
struct SinkAnswer {
    /// Where it keeps the positions.
    claimed: Vec<Claimed>,
    /// What has become of the streams that the group's position counts on, where there are streams.
    published: Vec<Vec<Published>>,
}

/// What Kafka knows of a partition.
struct Starting {
    partition: TopicPartition,
    group: Committed,
    beginning: i64,
    end: i64,
    /// Where `start` says, for a partition without a position.
    fresh: i64,
    topic_id: Option<String>,
    /// The streams that the group's position counts on.
    inherited: StreamsNote,
}

/// Where a partition starts.
struct Placed {
    starting: Starting,
    position: i64,
    in_sink: Option<(Epoch, i64)>,
}

/// Why a partition cannot be started from what the group has stored: what it is, and the way out.
struct Unstartable {
    why: String,
    way_out: String,
}

impl Starts {
    pub(super) fn new() -> Self {
        Self {
            waiting: Vec::new(),
            due: Instant::now(),
            backoff: Backoff::new(),
            resting: Vec::new(),
            fences: HashMap::new(),
            asked: None,
            prepared: BTreeSet::new(),
        }
    }

    /// Partitions to be started.
    pub(super) fn add(&mut self, partitions: impl IntoIterator<Item = TopicPartition>) {
        self.waiting.extend(partitions);
        self.due = Instant::now();
    }

    /// The group has taken partitions back.
    pub(super) fn remove(&mut self, partitions: &[TopicPartition]) {
        self.waiting.retain(|waiting| !partitions.contains(waiting));
        self.resting.retain(|(resting, _)| !partitions.contains(resting));
        self.fences.retain(|fenced, _| !partitions.contains(fenced));
        if let Some(asked) = &mut self.asked {
            asked.gone.extend(partitions.iter().cloned());
            if asked.starting.iter().all(|starting| asked.gone.contains(&starting.partition)) {
                asked.task.abort();
                self.asked = None;
            }
        }
    }

    /// The group is joined anew: what it gave before counts no more.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
        self.resting.clear();
        if let Some(asked) = self.asked.take() {
            asked.task.abort();
        }
    }

    /// Whether every partition given to us is being read.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.resting.is_empty() && self.asked.is_none()
    }

    fn later(&mut self, partitions: impl IntoIterator<Item = TopicPartition>, pause: Duration) {
        self.waiting.extend(partitions);
        self.due = Instant::now() + pause;
    }

    fn wake_resting(&mut self) {
        let now = Instant::now();
        let (due, resting) = std::mem::take(&mut self.resting).into_iter().partition(|(_, due)| *due <= now);
        self.resting = resting;
        let due: Vec<(TopicPartition, Instant)> = due;
        if !due.is_empty() {
            self.add(due.into_iter().map(|(partition, _)| partition));
        }
    }
}

impl Drop for Starts {
    fn drop(&mut self) {
        if let Some(asked) = &self.asked {
            asked.task.abort();
        }
    }
}

impl Source {
    /// Starts partitions that the group has given us: finds out where, and forwards them to their lanes.
    pub(super) fn start_partitions(&mut self) -> Result<(), Failure> {
        self.look_at_fences()?;
        if self.rejoin.is_some() {
            // Nothing begins under a membership that is about to end.
            return Ok(());
        }
        self.starts.wake_resting();
        if self.starts.asked.is_some() {
            return self.sink_answer(Duration::ZERO);
        }
        if self.starts.waiting.is_empty() || Instant::now() < self.starts.due {
            return Ok(());
        }
        let partitions = std::mem::take(&mut self.starts.waiting);
        match self.known_to_kafka(&partitions) {
            Ok(starting) => {
                self.ask_sink(starting)?;
                self.sink_answer(MOMENT)
            }
            Err(error) => {
                self.starts.later(partitions, Duration::from_secs(1));
                self.ask_again_later(&error)
            }
        }
    }

    fn known_to_kafka(&self, partitions: &[TopicPartition]) -> Result<Vec<Starting>, KafkaError> {
        let committed = self.consumer.committed(partitions, self.question())?;
        let beginnings: HashMap<_, _> =
            self.consumer.beginning_offsets(partitions, self.question())?.into_iter().collect();
        let ends: HashMap<_, _> =
            self.consumer.end_offsets(partitions, self.question())?.into_iter().collect();
        let fresh: Vec<TopicPartition> = committed
            .iter()
            .filter(|committed| committed.offset.is_none())
            .map(|committed| committed.partition.clone())
            .collect();
        let by_time: HashMap<_, _> = match self.pipeline.source.start {
            Start::Timestamp(millis) if !fresh.is_empty() => {
                self.consumer.offsets_for_time(&fresh, millis, self.question())?.into_iter().collect()
            }
            _ => HashMap::new(),
        };
        let topic_ids = self.topic_ids(partitions)?;
        let mut starting = Vec::with_capacity(committed.len());
        for group in committed {
            let partition = group.partition.clone();
            let beginning = beginnings.get(&partition).copied().unwrap_or(0);
            let end = ends.get(&partition).copied().unwrap_or(beginning);
            let fresh = match self.pipeline.source.start {
                Start::Earliest => beginning,
                Start::Latest => end,
                Start::Timestamp(_) => by_time.get(&partition).copied().flatten().unwrap_or(end),
            };
            let topic_id = topic_ids.get(&*partition.topic).cloned().flatten();
            let inherited = StreamsNote::default();
            starting.push(Starting { partition, group, beginning, end, fresh, topic_id, inherited });
        }
        Ok(starting)
    }

    /// Kafka's ids of the partitions' topics, by name; only stored positions need them.
    fn topic_ids(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<String, Option<String>>, KafkaError> {
        if self.offsets.is_none() {
            return Ok(BTreeMap::new());
        }
        let topics: BTreeSet<&str> = partitions.iter().map(|partition| &*partition.topic).collect();
        let topics: Vec<&str> = topics.into_iter().collect();
        self.consumer.topic_ids(&topics, self.question())
    }

    /// Has the sink make the tables ready and, where it keeps the positions, take the partitions over.
    fn ask_sink(&mut self, mut starting: Vec<Starting>) -> Result<(), Failure> {
        for starting in &mut starting {
            starting.inherited = self.inherited(starting)?;
        }
        let mut tables: Vec<Arc<Destination>> = Vec::new();
        let topics: BTreeSet<&Arc<str>> = starting.iter().map(|starting| &starting.partition.topic).collect();
        for name in topics {
            for destination in self.topic_of(name)?.destinations() {
                let known = |topic: &Arc<str>| tables.iter().any(|table| table.topic == *topic);
                if !self.starts.prepared.contains(&destination.topic) && !known(&destination.topic) {
                    tables.push(Arc::clone(destination));
                }
            }
        }
        let claims: Vec<Claim> = starting.iter().map(Starting::claim).collect();
        let sink = Arc::clone(&self.pipeline.sink);
        let store = self.offsets.clone();
        let streams = self.streams.clone();
        let inherited: Vec<StreamsNote> =
            starting.iter().map(|starting| starting.inherited.clone()).collect();
        let to_prepare = tables.clone();
        let (answer_to, answer) = sync_channel(1);
        let task = self.runtime.spawn(async move {
            let asked = async {
                for table in &to_prepare {
                    sink.prepare(&table.topic, table.columns()).await?;
                }
                let mut answer = SinkAnswer::default();
                if let Some(store) = store {
                    answer.claimed = store.take_over(&claims).await?;
                }
                if let Some(streams) = streams {
                    for note in &inherited {
                        let mut published = Vec::with_capacity(note.streams.len());
                        for committed in &note.streams {
                            published.push(streams.publish(&committed.stream, committed.end).await?);
                        }
                        answer.published.push(published);
                    }
                }
                Ok(answer)
            };
            // Nobody listens any more when the partitions were taken back.
            drop(answer_to.send(asked.await));
        });
        let task = task.abort_handle();
        self.starts.asked = Some(Asked { starting, tables, answer, task, gone: BTreeSet::new() });
        Ok(())
    }

    /// Looks for the sink's answer, for at most `wait`.
    fn sink_answer(&mut self, wait: Duration) -> Result<(), Failure> {
        let Some(asked) = &self.starts.asked else { return Ok(()) };
        let answer = match asked.answer.recv_timeout(wait) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => return Ok(()),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::fatal("the task that prepares the sink has ended early", None));
            }
        };
        let Some(Asked { starting, tables, gone, .. }) = self.starts.asked.take() else { return Ok(()) };
        let is_ours = |starting: &Starting| !gone.contains(&starting.partition);
        let SinkAnswer { claimed, published } = match answer {
            Ok(answer) => answer,
            Err(SinkError::Transient { cause, retry_after }) => {
                let pause = self.starts.backoff.next(retry_after);
                let partitions = starting.into_iter().filter(is_ours).map(|starting| starting.partition);
                self.starts.later(partitions.collect::<Vec<_>>(), pause);
                if self.shared.retrying(&cause) {
                    tracing::warn!(
                        pipeline = %self.shared.name,
                        "the sink is away, partitions wait for it; trying again in {:.1} s: {cause}",
                        pause.as_secs_f32()
                    );
                }
                return Ok(());
            }
            Err(SinkError::Fatal { cause, hint }) => return Err(Failure::fatal(cause, hint)),
            Err(other) => return Err(Failure::fatal(other.to_string(), None)),
        };
        self.starts.backoff = Backoff::new();
        self.starts.prepared.extend(tables.iter().map(|table| Arc::clone(&table.topic)));
        let mut starts = Vec::with_capacity(starting.len());
        if self.offsets.is_some() {
            for (starting, claimed) in starting.into_iter().zip(claimed) {
                if is_ours(&starting) {
                    starts.push(self.start_in_sink(starting, claimed)?);
                }
            }
        } else if self.streams.is_some() {
            for (starting, published) in starting.into_iter().zip(published) {
                if is_ours(&starting) {
                    if let Err(stop) = self.look_at_inheritance(&starting, &published) {
                        if !self.has_moved(&starting) {
                            return Err(stop);
                        }
                        self.starts.later([starting.partition], MOVED_REST);
                        continue;
                    }
                    let position = starting.group.offset.unwrap_or(starting.fresh);
                    let position = self.in_log(&starting, position)?;
                    starts.push(Placed { starting, position, in_sink: None });
                }
            }
        } else {
            for starting in starting.into_iter().filter(is_ours) {
                let position = starting.group.offset.unwrap_or(starting.fresh);
                let position = self.in_log(&starting, position)?;
                starts.push(Placed { starting, position, in_sink: None });
            }
        }
        self.start(starts)
    }

    /// The streams that the group's position counts on. A position that was not stored by this program is not taken as
    /// it is: whoever stored it may have wiped out what was still to be published.
    fn inherited(&self, starting: &Starting) -> Result<StreamsNote, Failure> {
        let Starting { partition, group, .. } = starting;
        let Some(offset) = group.offset else { return Ok(StreamsNote::default()) };
        let file = self.pipeline.file.display();
        let note = match &group.metadata {
            CommittedMetadata::Text(text) => Note::read(text),
            CommittedMetadata::None | CommittedMetadata::NotUtf8 => Err(NoteError::Foreign),
        };
        let unstartable = match (note, self.streams.is_some()) {
            (Ok(Note::Streams(note)), true) => return Ok(note),
            (Ok(Note::Streams(note)), false)
                if note.streams.iter().any(|committed| committed.published < committed.end) =>
            {
                Unstartable {
                    why: format!(
                        "the position {offset} counts on rows in write streams that may not be published yet, and this \
                         pipeline does not publish them"
                    ),
                    way_out: format!(
                        "run the pipeline that has written them once more (`delivery: exactly_once` into BigQuery) and stop \
                         it in order; or `txconnect offsets reset {file} --to {offset} --topic {} --partition {} --yes`",
                        partition.topic, partition.partition
                    ),
                }
            }
            (Ok(Note::AtLeastOnce), true) | (_, false) => return Ok(StreamsNote::default()),
            (Err(NoteError::Newer), true) => Unstartable {
                why: format!(
                    "what stands beside the position {offset} was written by a newer version of txconnect"
                ),
                way_out: "run the newer version".to_owned(),
            },
            (Ok(Note::OffsetsInSink) | Err(NoteError::Foreign), true) => Unstartable {
                why: format!(
                    "the position {offset} was not stored by this pipeline, so it does not say which rows are visible"
                ),
                way_out: format!(
                    "`txconnect offsets reset {file} --to {offset} --topic {} --partition {} --yes` takes it as it is",
                    partition.topic, partition.partition
                ),
            },
        };
        let Unstartable { why, way_out } = unstartable;
        Err(Failure::stopped(format!("{partition}: {why}"), way_out))
    }

    /// Whether the group has stored something else since it was asked: others may have had the partition while this
    /// process stood still.
    fn has_moved(&self, starting: &Starting) -> bool {
        let asked = self.consumer.committed(std::slice::from_ref(&starting.partition), self.question());
        match asked.as_deref() {
            Ok([now]) => *now != starting.group,
            // Without an answer it is asked again, and nothing is decided.
            _ => true,
        }
    }

    /// Whether everything that the group's position counts can be seen.
    fn look_at_inheritance(&self, starting: &Starting, published: &[Published]) -> Result<(), Failure> {
        let Starting { partition, group, inherited, .. } = starting;
        let offset = group.offset.unwrap_or_default();
        let reset = format!(
            "txconnect offsets reset {} --topic {} --partition {} --yes --to",
            self.pipeline.file.display(),
            partition.topic,
            partition.partition
        );
        match inherit(inherited, published) {
            Inherited::Settled => Ok(()),
            Inherited::Stale { stream } => Err(Failure::stopped(
                format!(
                    "{partition}: the position {offset} counts on the write stream {stream}, which is finalized: an old \
                     commit has arrived late and has replaced a newer one"
                ),
                format!(
                    "look in the table for the last record that arrived (`kafka_columns` shows it), and go on behind it: \
                     `{reset} OFFSET`"
                ),
            )),
            Inherited::Lost { stream, rows, visible_before } => {
                let from = visible_before.map_or_else(String::new, |before| format!(", not before {before}"));
                Err(Failure::stopped(
                    format!(
                        "{partition}: {rows} rows before the position {offset} were committed and may never have become \
                         visible: their write stream {stream} is gone (it has expired, or its table was deleted)"
                    ),
                    format!(
                        "look in the table for the last record of the partition that is there (`kafka_columns` shows it), \
                         and go on behind it{from}: `{reset} OFFSET`; where all of them are there, that is {offset}"
                    ),
                ))
            }
        }
    }

    /// Where a partition starts whose position the sink keeps.
    fn start_in_sink(&mut self, starting: Starting, claimed: Claimed) -> Result<Placed, Failure> {
        let partition = &starting.partition;
        let place = self.offsets.as_ref().map(|store| store.place()).unwrap_or_default();
        let file = self.pipeline.file.display();
        let Claimed::Taken { epoch, next_offset, topic_id, previous_owner } = claimed else {
            return Err(Failure::stopped(
                format!(
                    "{partition}: the group says that its position is kept in {place}, but there is none"
                ),
                format!(
                    "restore the table; or decide where to go on: `txconnect offsets reset {file} --to … --yes` sets \
                     all positions anew"
                ),
            ));
        };
        if let (Some(stored), Some(current)) = (&topic_id, &starting.topic_id)
            && stored != current
        {
            return Err(Failure::stopped(
                format!(
                    "{partition}: the topic was deleted and made anew: its id is {current}, and the position \
                     {next_offset} in {place} belongs to {stored}"
                ),
                format!(
                    "`txconnect offsets reset {file} --topic {} --to earliest --yes` begins with the new topic; rows \
                     of the old one stay",
                    partition.topic
                ),
            ));
        }
        self.tell_other_positions(&starting, next_offset, previous_owner.is_some(), &place);
        let fences = self.starts.fences.entry(partition.clone()).or_default();
        fences.previous_owner = previous_owner;
        let position = self.in_log(&starting, next_offset)?;
        Ok(Placed { starting, position, in_sink: Some((epoch, next_offset)) })
    }

    /// The group's position only serves tools; one that does not fit is worth a word.
    fn tell_other_positions(&self, starting: &Starting, stored: i64, was_stored: bool, place: &str) {
        let Starting { partition, group, .. } = starting;
        let Some(in_group) = group.offset.filter(|in_group| was_stored && *in_group != stored) else {
            return;
        };
        if !starting.is_noted() {
            tracing::warn!(
                pipeline = %self.shared.name,
                "{partition}: another tool has set the group's position to {in_group}; what counts is {stored} in \
                 {place}, and `txconnect offsets reset` moves both"
            );
        } else if in_group > stored {
            tracing::warn!(
                pipeline = %self.shared.name,
                "{partition}: {place} says {stored}, which is below the group's {in_group}, as after a restored backup; \
                 what counts is {stored}"
            );
        }
    }

    /// The position, or where `on_lost_offsets` says if it lies outside the log: records were deleted before they were
    /// read, or the topic was made anew.
    fn in_log(&self, starting: &Starting, position: i64) -> Result<i64, Failure> {
        let Starting { partition, beginning, end, .. } = starting;
        if (*beginning..=*end).contains(&position) {
            return Ok(position);
        }
        let place = format!(
            "{partition}: the position {position} is outside the log, which holds {beginning} to {end}"
        );
        let position = match self.pipeline.source.on_lost_offsets {
            OnLostOffsets::Stop => return Err(lost_offsets(&place)),
            OnLostOffsets::Earliest => *beginning,
            OnLostOffsets::Latest => *end,
        };
        tracing::warn!(pipeline = %self.shared.name, "{place}; going on at {position} as `on_lost_offsets` says");
        Ok(position)
    }

    fn start(&mut self, starts: Vec<Placed>) -> Result<(), Failure> {
        let mut forwarded = Vec::with_capacity(starts.len());
        let (done, answers) = sync_channel(starts.len());
        for Placed { starting, position, in_sink } in starts {
            let Starting { partition, group, end, inherited, .. } = starting;
            let topic = self.topic_of(&partition.topic)?;
            let slot = self.slot_of(&partition)?;
            self.assignments += 1;
            let assignment = Assignment(self.assignments);
            let state = &mut self.slots[slot.0 as usize];
            state.assignment = assignment;
            state.held = true;
            let lane = state.lane;
            let committed = in_sink.map_or(group.offset, |(_, stored)| Some(stored));
            self.shared.books.assigned(slot, &partition, committed, Some(end));
            let stored = group.offset == Some(position);
            self.shared.tell(Event::Assigned { slot, assignment, position, committed: stored });
            if let Some((epoch, stored)) = in_sink {
                self.shared.taken_over(slot, assignment, epoch, stored, position);
            }
            if self.streams.is_some() {
                self.shared.streams_started(slot, assignment, position, inherited);
            }
            let (partition_number, done) = (partition.partition, done.clone());
            self.lanes.send(
                lane,
                Command::Assign { slot, assignment, position, partition: partition_number, topic, done },
            );
            if let Some(ends) = &mut self.ends {
                ends.started(&partition, position);
            }
            forwarded.push((partition, position, lane));
        }
        let assignments: Vec<KafkaAssignment<'_>> = forwarded
            .iter()
            .map(|(partition, position, lane)| KafkaAssignment {
                partition,
                start: StartAt::Offset(*position),
                queue: self.lanes.queue(*lane),
            })
            .collect();
        drop(done);
        self.await_lanes(&answers, assignments.len())?;
        if !assignments.is_empty() {
            self.consumer.assign(&assignments).map_err(|error| kafka_failure(&error))?;
            self.shared.running();
        }
        Ok(())
    }

    /// Waits until the lanes know all partitions that are about to be read.
    fn await_lanes(&self, answers: &Receiver<()>, wanted: usize) -> Result<(), Failure> {
        let deadline = Instant::now() + LANES_KNOW;
        for _ in 0..wanted {
            loop {
                self.shared.beat();
                match answers.recv_timeout(TURN) {
                    Ok(()) => break,
                    // The lane has failed, or has ended.
                    Err(RecvTimeoutError::Disconnected) => {
                        let failure = self.shared.failure();
                        return Err(failure.unwrap_or_else(|| Failure::fatal("a lane has ended early", None)));
                    }
                    Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => {
                        return Err(Failure::fatal("a lane does not answer", None));
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                }
            }
        }
        Ok(())
    }

    /// The topic's settings; the group may have been faster than our look for topics.
    fn topic_of(&mut self, name: &Arc<str>) -> Result<Arc<Topic>, Failure> {
        if let Some(topic) = self.topics.get(&**name) {
            return Ok(Arc::clone(topic));
        }
        let topic = Topic::of(&self.pipeline, name, &mut self.destinations)
            .map_err(|error| Failure::fatal(format!("{name}: {error}"), None))?;
        let topic = Arc::new(topic);
        self.topics.insert(name.to_string(), Arc::clone(&topic));
        Ok(topic)
    }

    /// Stops reading partitions that somebody else has taken over in the sink, and starts them anew after a rest if the
    /// group still says that they are ours: a member that was dropped learns it meanwhile.
    fn look_at_fences(&mut self) -> Result<(), Failure> {
        for (slot, assignment) in self.shared.take_fenced() {
            let state = &self.slots[slot.0 as usize];
            if !state.held || state.assignment != assignment {
                continue;
            }
            let partition = state.partition.clone();
            if self.streams.is_some() {
                // The group knows whose the partition is, and its commits which rows count: there is nothing to dispute.
                self.give_back(std::slice::from_ref(&partition), true);
                // Whichever of its tables it was, it may be another one now.
                if let Some(topic) = self.topics.get(&*partition.topic) {
                    for destination in topic.destinations() {
                        self.starts.prepared.remove(&destination.topic);
                    }
                }
                self.starts.resting.push((partition, Instant::now() + STREAM_REST));
                continue;
            }
            let fences = self.starts.fences.entry(partition.clone()).or_default();
            if fences.last.is_none_or(|last| last.elapsed() > FORGET_FENCES) {
                fences.count = 0;
            }
            fences.last = Some(Instant::now());
            fences.count += 1;
            let (count, owner) = (fences.count, fences.previous_owner.clone());
            if count > MOST_FENCES {
                let owner = owner.map_or_else(String::new, |owner| format!(", last {owner}"));
                return Err(Failure::stopped(
                    format!(
                        "{partition}: another process takes this partition over again and again under the name \
                         `{}`{owner}",
                        self.shared.name
                    ),
                    "pipelines that write to one database need different names, and copies of one pipeline the same \
                     consumer group",
                ));
            }
            tracing::warn!(
                pipeline = %self.shared.name,
                "{partition}: another process has taken this partition over in the sink; looking again in {} s",
                REST.as_secs()
            );
            self.give_back(std::slice::from_ref(&partition), true);
            self.starts.resting.push((partition, Instant::now() + REST));
        }
        Ok(())
    }
}

impl Starting {
    /// Whether the group's position was committed by this program for a sink that keeps the positions.
    fn is_noted(&self) -> bool {
        matches!(&self.group.metadata, CommittedMetadata::Text(text) if Note::read(text) == Ok(Note::OffsetsInSink))
    }

    /// How the sink is asked for the partition.
    fn claim(&self) -> Claim {
        // A noted position says that the sink has one: if it is gone, going on at the group's could double rows.
        let start = (!self.is_noted()).then(|| self.group.offset.unwrap_or(self.fresh));
        Claim { partition: self.partition.clone(), topic_id: self.topic_id.clone(), start }
    }
}
