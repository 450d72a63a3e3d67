//! A lane: one thread that takes the records of some partitions and turns them into batches.
//!
//! ```text
//! take from librdkafka → copy once → decode → validate → encode into the open batch → hand over flushes
//! ```
//! A lane stops taking while `memory` is used up or as many flushes are in flight as the sink wants: that is the
//! back-pressure. It never waits in the middle of anything, so commands of the source thread are always answered.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

use bumpalo::Bump;
use tokio::sync::mpsc::Sender;
use txconnect_connector_api::Value;
use txconnect_connector_api::{BadRecord, Encoded, Encoder, Record, RowSource, Sink, SinkError, SinkLimits};
use txconnect_kafka::{LaneQueue, MessageBatch, MessageErrorKind};

use super::flush::Flush;
use super::memory::Charge;
use super::open::{Closed, DeadLetter, Open, Stage, Taken, TopicIndex};
use super::records::{Origin, RecordView, Records};
use super::shared::{Failure, Shared};
use super::topic::Topic;
use super::wake::Wake;

use crate::config::Reaction;
use crate::delivery::{Assignment, Slot};
use crate::stages::decode::decode;

/// Messages taken from librdkafka at once. 200 to 500 are enough: more makes no record cheaper.
const TAKE: usize = 500;

/// Insurance against a wake-up that never comes; none was ever missing in tests.
const TICK: Duration = Duration::from_secs(1);

/// How often a lane looks again while the memory is used up.
const FULL_TICK: Duration = Duration::from_millis(10);

/// An arena that has grown beyond this is given back, so that one giant record does not stay for ever.
const ARENA_KEPT: usize = 1 << 20;

/// What the source thread asks of a lane.
pub(super) enum Command {
    /// A partition is about to be read; answer when that is known here. A record that came before would be taken for one
    /// of nobody, and the next span would cover it.
    Assign {
        slot: Slot,
        assignment: Assignment,
        position: i64,
        partition: i32,
        topic: Arc<Topic>,
        done: SyncSender<()>,
    },
    /// Hand over everything taken of these partitions and forget them; answer when it is on its way.
    Release { slots: Vec<Slot>, done: SyncSender<()> },
    /// Forget these partitions with everything taken of them.
    Drop { slots: Vec<Slot> },
    /// Hand over everything taken of these partitions without waiting for full batches; answer then.
    HandOver { slots: Vec<Slot>, done: SyncSender<()> },
    /// End the thread.
    End,
}

/// What a lane reports to the source thread beside flushes.
#[derive(Debug)]
pub(super) enum LaneReport {
    /// The position of a partition is outside its log.
    PositionLost { slot: Slot },
}

/// When batches are closed.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchRules {
    pub(super) rows: usize,
    pub(super) bytes: usize,
    pub(super) linger: Duration,
}

/// Everything a lane needs from outside.
pub(super) struct LaneSetup {
    pub(super) shared: Arc<Shared>,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) limits: SinkLimits,
    pub(super) rules: BatchRules,
    pub(super) queue: LaneQueue,
    pub(super) wake: Arc<Wake>,
    pub(super) commands: Receiver<Command>,
    pub(super) reports: SyncSender<LaneReport>,
    /// As long as the sink's `in_flight`: a lane sends only while fewer flushes are on their way.
    pub(super) flushes: Sender<Flush>,
    pub(super) in_flight: Arc<AtomicUsize>,
}

pub(super) struct Lane {
    shared: Arc<Shared>,
    sink: Arc<dyn Sink>,
    limits: SinkLimits,
    rules: BatchRules,
    queue: LaneQueue,
    wake: Arc<Wake>,
    commands: Receiver<Command>,
    reports: SyncSender<LaneReport>,
    flushes: Sender<Flush>,
    in_flight: Arc<AtomicUsize>,
    taken: MessageBatch,
    arena: Bump,
    topics: Vec<LaneTopic>,
    partitions: Vec<Origin>,
    open: Open,
    open_charge: Charge,
    ready: VecDeque<Flush>,
    current: Option<Current>,
    next_number: u32,
    /// Answers owed once everything before them has been handed over.
    answers: Vec<SyncSender<()>>,
    /// Partitions to hand over as soon as the current records are through.
    hasten: Vec<(Vec<Slot>, SyncSender<()>)>,
    /// A bad record under `on_error: stop`, or another failure: nothing more is taken.
    halted: bool,
}

struct LaneTopic {
    topic: Arc<Topic>,
    encoder: Box<dyn Encoder>,
    /// Fields that no column took, as far as they are in the books.
    ignored_fields: u64,
}

/// Records being turned into rows.
struct Current {
    records: Arc<Records>,
    next: usize,
}

impl Lane {
    pub(super) fn new(setup: LaneSetup) -> Self {
        let open_charge = setup.shared.memory.charge(0);
        Self {
            limits: setup.limits,
            shared: setup.shared,
            sink: setup.sink,
            rules: setup.rules,
            queue: setup.queue,
            wake: setup.wake,
            commands: setup.commands,
            reports: setup.reports,
            flushes: setup.flushes,
            in_flight: setup.in_flight,
            taken: MessageBatch::new(),
            arena: Bump::new(),
            topics: Vec::new(),
            partitions: Vec::new(),
            open: Open::default(),
            open_charge,
            ready: VecDeque::new(),
            current: None,
            next_number: 0,
            answers: Vec::new(),
            hasten: Vec::new(),
            halted: false,
        }
    }

    /// Runs until told to end.
    pub(super) fn run(mut self) {
        loop {
            loop {
                match self.commands.try_recv() {
                    Ok(Command::End) | Err(TryRecvError::Disconnected) => return,
                    Ok(command) => self.obey(command),
                    Err(TryRecvError::Empty) => break,
                }
            }
            if !self.turn() {
                let now = Instant::now();
                let due = self
                    .open
                    .next_deadline(self.rules.linger)
                    .filter(|_| !self.halted && self.ready.is_empty());
                // Memory is freed by the writers of other lanes too, which do not know this one.
                let tick = if self.shared.memory.is_full() { FULL_TICK } else { TICK };
                self.wake.wait_until(due.map_or(now + tick, |due| due.min(now + tick)));
            }
        }
    }

    /// Does one piece of work; answers false when there is none and the lane may sleep.
    fn turn(&mut self) -> bool {
        if let Some(flush) = self.ready.pop_front() {
            if self.in_flight.load(Ordering::Acquire) >= self.limits.in_flight {
                self.ready.push_front(flush);
                return false;
            }
            self.in_flight.fetch_add(1, Ordering::AcqRel);
            if self.flushes.try_send(flush).is_err() {
                self.fail(Failure::fatal("the writer of a lane has ended early", None));
            }
            return true;
        }
        for answer in self.answers.drain(..) {
            // Whoever asked may have given up waiting.
            let _ = answer.try_send(());
        }
        if self.halted || self.shared.has_failed() {
            return false;
        }
        if self.current.is_some() {
            self.process();
            return true;
        }
        if let Some((slots, done)) = self.hasten.pop() {
            self.close(&slots);
            self.answers.push(done);
            return true;
        }
        let overdue = self.open.overdue(Instant::now(), self.rules.linger);
        if !overdue.is_empty() {
            self.close(&overdue);
            return true;
        }
        if self.shared.memory.is_full() {
            let slots = self.open.slots();
            if slots.is_empty() || self.in_flight.load(Ordering::Acquire) > 0 {
                return false;
            }
            // Open batches alone use up the memory: waiting would last for ever.
            self.close(&slots);
            return true;
        }
        self.take()
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Assign { slot, assignment, position, partition, topic, done } => {
                let index = match self.topics.iter().position(|known| Arc::ptr_eq(&known.topic, &topic)) {
                    Some(index) => index,
                    None => match self.sink.encoder(&topic.name, topic.columns()) {
                        Ok(encoder) => {
                            self.topics.push(LaneTopic { topic, encoder, ignored_fields: 0 });
                            self.topics.len() - 1
                        }
                        Err(error) => return self.fail(sink_failure(&topic.name, &error)),
                    },
                };
                self.partitions.retain(|known| known.slot != slot);
                self.partitions.push(Origin { slot, assignment, topic: index, partition });
                self.open.assigned(slot, assignment, position);
                // The source thread gives up waiting only when it ends the pipeline.
                let _ = done.try_send(());
            }
            Command::Release { slots, done } => {
                self.close(&slots);
                self.forget(&slots);
                self.answers.push(done);
            }
            Command::Drop { slots } => {
                self.forget(&slots);
                for flush in &mut self.ready {
                    flush.drop_partitions(&slots);
                }
            }
            Command::HandOver { slots, done } => self.hasten.push((slots, done)),
            Command::End => {}
        }
    }

    fn forget(&mut self, slots: &[Slot]) {
        for slot in slots {
            self.open.drop_partition(*slot);
        }
        self.partitions.retain(|known| !slots.contains(&known.slot));
    }

    /// Takes messages and copies them; answers false when there are none.
    fn take(&mut self) -> bool {
        if self.queue.take(&mut self.taken, TAKE) == 0 {
            return false;
        }
        let bytes = self
            .taken
            .iter()
            .map(|message| message.payload().map_or(0, <[u8]>::len) + message.key().map_or(0, <[u8]>::len))
            .sum();
        let mut records = Records::starting_at(self.next_number, bytes, self.taken.len());
        let mut lost = Vec::new();
        let mut previous: Option<(txconnect_kafka::Message<'_>, Option<Origin>)> = None;
        let mut failure = None;
        for message in self.taken.iter() {
            let origin = match &previous {
                Some((before, origin)) if before.same_partition_as(&message) => *origin,
                _ => self.origin_of(message.topic(), message.partition()),
            };
            if let Some(origin) = origin {
                match message.error() {
                    None => records.push(origin, message),
                    Some(error) if error.kind == MessageErrorKind::OffsetOutOfRange => lost.push(origin.slot),
                    Some(error) => {
                        let place = format!("{}[{}]", message.topic(), message.partition());
                        failure = Some(Failure::fatal(format!("{place}: {}", error.message), None));
                    }
                }
            }
            previous = Some((message, origin));
        }
        self.taken.clear();
        for slot in lost {
            if self.reports.try_send(LaneReport::PositionLost { slot }).is_err() {
                failure = Some(Failure::fatal("the source thread does not take a lane's reports", None));
            }
        }
        if let Some(failure) = failure {
            self.fail(failure);
        }
        if records.len() > 0 {
            #[expect(clippy::cast_possible_truncation, reason = "at most TAKE records")]
            let taken = records.len() as u32;
            self.next_number = self.next_number.wrapping_add(taken);
            let charge = self.shared.memory.charge(records.size());
            records.charge_to(charge);
            self.current = Some(Current { records: Arc::new(records), next: 0 });
        }
        true
    }

    fn origin_of(&self, topic: &str, partition: i32) -> Option<Origin> {
        self.partitions
            .iter()
            .find(|known| known.partition == partition && *self.topics[known.topic].topic.name == *topic)
            .copied()
    }

    /// Turns current records into rows until they are through or a flush is ready.
    fn process(&mut self) {
        let Some(Current { records, next }) = self.current.take() else { return };
        let now = Instant::now();
        for index in next..records.len() {
            if !self.ready.is_empty() || self.halted {
                self.current = Some(Current { records, next: index });
                return;
            }
            self.record(&records, index, now);
        }
        self.open_charge.set(self.open.size());
    }

    fn record(&mut self, records: &Arc<Records>, index: usize, now: Instant) {
        let view = records.get(index);
        let Origin { slot, assignment, topic, .. } = view.origin();
        // Partitions may leave, and even come back, between taking and here; offsets below the expected one were seen
        // before.
        if self.open.expected(slot, assignment).is_none_or(|expected| view.offset() < expected) {
            return;
        }
        let mix = self.limits.batches_mix_partitions;
        let batch = self.open.batch_for(topic, slot, mix, &self.topics[topic].topic.table);
        let start = self.open.rows_end(batch);
        if self.arena.allocated_bytes() > ARENA_KEPT {
            self.arena = Bump::new();
        } else {
            self.arena.reset();
        }
        let outcome = stages(&mut self.topics[topic], view, &self.arena, self.open.bytes(batch));
        let number = records.number(index);
        let taken = match outcome {
            Ok(Encoded::Row) => {
                let source = RowSource { slot: slot.0, offset: view.offset(), record: number };
                let batch = self.make_room(batch, start, topic, slot);
                Taken::Row { batch, source }
            }
            Ok(Encoded::Filtered) => {
                self.open.bytes(batch).truncate(start);
                Taken::Filtered
            }
            Err((stage, why)) => {
                self.open.bytes(batch).truncate(start);
                match self.topics[topic].topic.reaction(stage) {
                    Reaction::DeadLetter => {
                        Taken::DeadLetter(DeadLetter { record: number, slot, stage, why })
                    }
                    Reaction::Skip => {
                        let place = self.place(view, stage);
                        tracing::warn!(pipeline = %self.shared.name, "{place}: record skipped: {why}");
                        Taken::Skipped
                    }
                    Reaction::Stop => return self.stop_before(view, stage, &why),
                }
            }
        };
        let is_row = matches!(taken, Taken::Row { .. });
        let batch = if let Taken::Row { batch, .. } = &taken { *batch } else { batch };
        self.open.take(slot, view.offset(), now, records, taken);
        let full = if is_row {
            self.open.rows(batch) >= self.rules.rows || self.open.rows_end(batch) >= self.rules.bytes
        } else {
            self.open.waiting_without_row(slot) >= self.rules.rows as u64
        };
        if full {
            self.close(&[slot]);
        }
    }

    /// Closes the batch without the row just encoded, where that row makes it larger than a batch may be. The row
    /// opens the next batch then; answers which batch it is in.
    fn make_room(&mut self, batch: usize, start: usize, topic: TopicIndex, slot: Slot) -> usize {
        let envelope = self.topics[topic].encoder.envelope_bytes();
        let limit = self.rules.bytes.min(self.limits.request_bytes).saturating_sub(envelope);
        if start == 0 || self.open.bytes(batch).len() <= limit {
            return batch;
        }
        let row = self.open.bytes(batch).split_off(start);
        let slots = self.open.slots_of(batch);
        self.close(&slots);
        let mix = self.limits.batches_mix_partitions;
        let batch = self.open.batch_for(topic, slot, mix, &self.topics[topic].topic.table);
        *self.open.bytes(batch) = row;
        batch
    }

    /// Closes everything that goes together with `slots` and lays it ready for the writer.
    fn close(&mut self, slots: &[Slot]) {
        let Some(closed) = self.open.close(slots) else { return };
        let Closed { batches, spans, dead_letters, sources } = closed;
        for (span, tally) in &spans {
            self.shared.handed_over(*span, *tally);
        }
        let batches = batches
            .into_iter()
            .filter(|(_, batch)| !batch.is_empty())
            .map(|(topic, mut batch)| {
                let LaneTopic { topic, encoder, ignored_fields } = &mut self.topics[topic];
                encoder.seal(&mut batch);
                let ignored = encoder.ignored_fields();
                self.shared
                    .books
                    .ignored_fields(&topic.name, ignored - std::mem::replace(ignored_fields, ignored));
                (Arc::clone(topic), batch)
            })
            .collect();
        let flush = Flush::new(batches, spans, dead_letters, sources, &self.shared.memory);
        self.ready.push_back(flush);
        self.open_charge.set(self.open.size());
    }

    fn stop_before(&mut self, view: RecordView<'_>, stage: Stage, why: &BadRecord) {
        let place = self.place(view, stage);
        // Everything before the bad record is still written and committed.
        let slots = self.open.slots();
        self.close(&slots);
        self.halted = true;
        self.shared.fail(Failure::stopped(
            format!("{place}: bad record: {why}"),
            "mend the producer, or set `on_error: dead_letter` (with `dead_letters:`) or `on_error: skip`",
        ));
    }

    fn place(&self, view: RecordView<'_>, stage: Stage) -> String {
        let Origin { topic, partition, .. } = view.origin();
        Shared::place(stage, &self.topics[topic].topic.name, partition, view.offset())
    }

    fn fail(&mut self, failure: Failure) {
        self.halted = true;
        self.shared.fail(failure);
    }
}

/// Runs one record through decode, validate and encode.
fn stages(
    topic: &mut LaneTopic,
    view: RecordView<'_>,
    arena: &Bump,
    out: &mut Vec<u8>,
) -> Result<Encoded, (Stage, BadRecord)> {
    let value = decode(topic.topic.format, view.value(), arena).map_err(|why| (Stage::Decode, why))?;
    if let (Some(schema), Value::Json { document, .. }) = (&topic.topic.schema, &value) {
        schema.validator.validate(document).map_err(|why| (Stage::Validate, why))?;
    }
    let record = Record {
        topic: &topic.topic.name,
        partition: view.origin().partition,
        offset: view.offset(),
        row: 0,
        timestamp: view.timestamp(),
        key: view.key(),
        headers: view.headers(arena),
        value,
    };
    topic.encoder.encode(&record, out).map_err(|why| (Stage::Encode, why))
}

/// A sink that cannot take a topic at all.
pub(super) fn sink_failure(topic: &str, error: &SinkError) -> Failure {
    let hint = match error {
        SinkError::Fatal { hint, .. } => hint.clone(),
        _ => None,
    };
    Failure::fatal(format!("{topic}: {error}"), hint)
}
