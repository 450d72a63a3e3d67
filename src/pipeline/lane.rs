//! A lane: one thread that takes the records of some partitions and turns them into batches.
//!
//! ```text
//! take from librdkafka → copy once → decode → validate → encode into the open batch → hand over flushes
//!                                            └ transform → decode → validate ┘
//! ```
//! A lane stops taking while `memory` is used up or as many flushes are in flight as the sink wants: that is the
//! back-pressure. It never waits in the middle of anything, so commands of the source thread are always answered; with
//! transforms one guest is called in a turn.
//!
//! | module | what it does |
//! |---|---|
//! | `rows` | turns one record into rows of open batches |
//! | `transforming` | brings records through the transforms |

mod rows;
mod transforming;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

use bumpalo::Bump;
use tokio::sync::mpsc::Sender;
use txconnect_connector_api::{Encoder, Sink, SinkError, SinkLimits};
use txconnect_kafka::{LaneQueue, MessageBatch, MessageErrorKind};

use super::flush::Flush;
use super::memory::Charge;
use super::open::{DestinationIndex, Open};
use super::records::{Origin, Records};
use super::reports::TransformReports;
use super::shared::{Failure, Shared};
use super::topic::{Destination, Topic};
use super::wake::Wake;
use rows::Scratch;
use transforming::Transforming;

use crate::config::{OnError, Pipeline};
use crate::delivery::{Assignment, Slot};
use crate::stages::transform::Chain;
use crate::stages::transform::guest::WasmGuest;

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
    pub(super) pipeline: Arc<Pipeline>,
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
    on_error: OnError,
    queue: LaneQueue,
    wake: Arc<Wake>,
    commands: Receiver<Command>,
    reports: SyncSender<LaneReport>,
    flushes: Sender<Flush>,
    in_flight: Arc<AtomicUsize>,
    taken: MessageBatch,
    arena: Bump,
    topics: Vec<LaneTopic>,
    destinations: Vec<LaneDestination>,
    partitions: Vec<Origin>,
    /// What records pass through; `None` where they become rows as they are.
    chain: Option<Chain<WasmGuest>>,
    scratch: Scratch,
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
    /// Where the rows of records go that keep their topic.
    destination: DestinationIndex,
    /// Where transforms may send rows beside.
    routes: Vec<DestinationIndex>,
}

struct LaneDestination {
    destination: Arc<Destination>,
    encoder: Box<dyn Encoder>,
    /// Fields that no column took, as far as they are in the books.
    ignored_fields: u64,
}

/// Records being turned into rows.
enum Current {
    /// As they are, one after the other.
    Direct { records: Arc<Records>, next: usize },
    /// Through transforms.
    Transforming(Transforming),
}

impl Lane {
    /// A lane, with instances of all transforms. One that does not start fails the pipeline.
    pub(super) fn new(setup: LaneSetup) -> Self {
        let open_charge = setup.shared.memory.charge(0);
        let Pipeline { transforms, output, on_error, .. } = &*setup.pipeline;
        let reports = |name: &str| Arc::new(TransformReports::new(&setup.shared, name)) as Arc<_>;
        let mut halted = false;
        let chain = if transforms.is_empty() && output.is_none() {
            None
        } else {
            match Chain::start(transforms, reports) {
                Ok(chain) => Some(chain),
                Err(error) => {
                    let hint =
                        "mend the transform or its `config`; `txconnect transform test` tries it alone";
                    setup.shared.fail(Failure::fatal(error.to_string(), Some(hint.to_owned())));
                    halted = true;
                    None
                }
            }
        };
        Self {
            on_error: *on_error,
            chain,
            scratch: Scratch::default(),
            destinations: Vec::new(),
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
            halted,
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
                let index = match self.topic_index(topic) {
                    Ok(index) => index,
                    Err(failure) => return self.fail(failure),
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

    /// The place of a topic in this lane; a new one comes with the encoders of its destinations.
    fn topic_index(&mut self, topic: Arc<Topic>) -> Result<usize, Failure> {
        if let Some(index) = self.topics.iter().position(|known| Arc::ptr_eq(&known.topic, &topic)) {
            return Ok(index);
        }
        let destination = self.destination_index(&topic.destination)?;
        let routes =
            topic.routes.iter().map(|route| self.destination_index(route)).collect::<Result<_, _>>()?;
        self.topics.push(LaneTopic { topic, destination, routes });
        Ok(self.topics.len() - 1)
    }

    fn destination_index(&mut self, destination: &Arc<Destination>) -> Result<DestinationIndex, Failure> {
        let known = |known: &LaneDestination| Arc::ptr_eq(&known.destination, destination);
        if let Some(index) = self.destinations.iter().position(known) {
            return Ok(index);
        }
        let encoder = self
            .sink
            .encoder(&destination.topic, destination.columns())
            .map_err(|error| sink_failure(&destination.topic, &error))?;
        let destination = Arc::clone(destination);
        self.destinations.push(LaneDestination { destination, encoder, ignored_fields: 0 });
        Ok(self.destinations.len() - 1)
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
            let records = Arc::new(records);
            self.current = Some(match self.chain {
                None => Current::Direct { records, next: 0 },
                Some(_) => Current::Transforming(self.begin_transforming(records)),
            });
        }
        true
    }

    fn origin_of(&self, topic: &str, partition: i32) -> Option<Origin> {
        self.partitions
            .iter()
            .find(|known| known.partition == partition && *self.topics[known.topic].topic.name == *topic)
            .copied()
    }

    /// Turns current records into rows until they are through, a flush is ready, or a guest was called.
    fn process(&mut self) {
        match self.current.take() {
            None => {}
            Some(Current::Transforming(transforming)) => {
                self.current = self.go_on_transforming(transforming).map(Current::Transforming);
            }
            Some(Current::Direct { records, next }) => {
                let now = Instant::now();
                for index in next..records.len() {
                    if self.must_rest() {
                        self.current = Some(Current::Direct { records, next: index });
                        return;
                    }
                    self.record(&records, index, now);
                }
            }
        }
        self.open_charge.set(self.open.size());
    }

    /// Whether no further record may become rows now.
    fn must_rest(&self) -> bool {
        !self.ready.is_empty() || self.halted
    }

    /// Closes everything that goes together with `slots` and lays it ready for the writer.
    fn close(&mut self, slots: &[Slot]) {
        let Some(mut closed) = self.open.close(slots) else { return };
        for (span, tally) in &closed.spans {
            self.shared.handed_over(*span, *tally);
        }
        let batches = std::mem::take(&mut closed.batches)
            .into_iter()
            .filter(|(_, batch)| !batch.is_empty())
            .map(|(destination, mut batch)| {
                let LaneDestination { destination, encoder, ignored_fields } =
                    &mut self.destinations[destination];
                encoder.seal(&mut batch);
                let ignored = encoder.ignored_fields();
                self.shared
                    .books
                    .ignored_fields(&destination.topic, ignored - std::mem::replace(ignored_fields, ignored));
                (Arc::clone(destination), batch)
            })
            .collect();
        let flush = Flush::new(batches, closed, &self.shared.memory);
        self.ready.push_back(flush);
        self.open_charge.set(self.open.size());
    }

    fn fail(&mut self, failure: Failure) {
        self.halted = true;
        self.shared.fail(failure);
    }
}

/// A sink that cannot take a topic at all.
pub(super) fn sink_failure(topic: &str, error: &SinkError) -> Failure {
    let hint = match error {
        SinkError::Fatal { hint, .. } => hint.clone(),
        _ => None,
    };
    Failure::fatal(format!("{topic}: {error}"), hint)
}
