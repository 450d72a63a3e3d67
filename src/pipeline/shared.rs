//! What the source thread, the lanes and the writers of one pipeline share.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use txconnect_connector_api::{Epoch, Protocol, Published, StreamName};

use super::books::{Books, Tally};
use super::memory::Memory;
use super::torn::TornRecords;
use crate::delivery::{
    Action, Answer, Assignment, AtLeastOnce, CommitOutcome, CommitToken, Delivery, Event, Placement, Plan,
    Rows, Settled, Slot, Span, Step, StreamsNote, Verdict,
};
use crate::stages::Stage;

/// Why a pipeline ended before its time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// What happened, in one line, with the place.
    pub message: String,
    /// What the user can do about it.
    pub hint: Option<String>,
}

/// What kind of failure ended a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// A bad record under `on_error: stop`, or a position outside the log under `on_lost_offsets: stop`: the
    /// user wants to look first.
    Stopped,
    /// Nothing gets better by waiting, but a change outside may help: it is worth another start later.
    Fatal,
    /// Whoever read our output has gone away, as `head` does.
    OutputClosed,
}

impl Failure {
    /// A failure that a later start may get over.
    pub fn fatal(message: impl Into<String>, hint: Option<String>) -> Self {
        Self { kind: FailureKind::Fatal, message: message.into(), hint }
    }

    /// A stop that the user has asked for by a setting.
    pub fn stopped(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind: FailureKind::Stopped, message: message.into(), hint: Some(hint.into()) }
    }
}

/// How a pipeline is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// No partition was ever assigned.
    Starting,
    /// Records flow, or there are none.
    Running,
    /// The sink or the dead letter topic is away; the pipeline waits and tries again.
    Retrying {
        /// The last error.
        cause: String,
        /// Since when.
        since: Instant,
    },
    /// The same, for longer than `stalled_after`.
    Stalled {
        /// The last error.
        cause: String,
        /// Since when.
        since: Instant,
    },
}

/// What is behind [`Health`].
enum Standing {
    Starting,
    Running,
    Retrying {
        cause: String,
        since: Instant,
        /// Whether it was said that this takes long.
        told: bool,
    },
}

/// The common ground of one running pipeline.
pub(crate) struct Shared {
    /// The pipeline's name.
    pub(crate) name: Arc<str>,
    pub(crate) books: Books,
    pub(crate) memory: Arc<Memory>,
    /// Records that are bad when they come again.
    pub(super) torn: TornRecords,
    delivery: Mutex<Delivery>,
    /// Notified whenever a flush is finished or given up.
    moved: Condvar,
    /// The same, for tasks: notified whenever something may have changed for rows that wait for their place in a stream,
    /// or for what is to be done at the sink.
    stirred: Notify,
    failure: Mutex<Option<Failure>>,
    health: Mutex<Standing>,
    stalled_after: Duration,
    stopping: AtomicBool,
    left: AtomicBool,
    /// Grows with every turn of the source thread.
    beats: AtomicU64,
    /// Grows with every flush that finishes.
    flushes: AtomicU64,
    /// Flushes that had to wait and are not through.
    waiting: AtomicUsize,
}

/// A flush that has to wait, counted until this is dropped.
pub(crate) struct Waiting<'a>(&'a Shared);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Shared {
    pub(crate) fn new(name: &str, memory: usize, protocol: Protocol, stalled_after: Duration) -> Arc<Self> {
        let delivery = match protocol {
            Protocol::AtLeastOnce => Delivery::at_least_once(),
            Protocol::OffsetsInSink => Delivery::offsets_in_sink(),
            Protocol::TwoPhase => Delivery::two_phase(),
        };
        Arc::new(Self {
            name: name.into(),
            books: Books::default(),
            memory: Memory::with_limit(memory),
            torn: TornRecords::default(),
            delivery: Mutex::new(delivery),
            moved: Condvar::new(),
            stirred: Notify::new(),
            failure: Mutex::new(None),
            health: Mutex::new(Standing::Starting),
            stalled_after,
            stopping: AtomicBool::new(false),
            left: AtomicBool::new(false),
            beats: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
        })
    }

    /// Tells the machine one event. What is to be done waits for the source thread in [`Self::actions`].
    pub(crate) fn tell(&self, event: Event) {
        self.delivery().handle(event);
        self.stirred.notify_waiters();
    }

    /// Notes that a flush is on its way. Spans of an assignment that is over count for nothing.
    pub(crate) fn handed_over(&self, span: Span, tally: Tally) {
        let mut delivery = self.delivery();
        if delivery.commits().is_current(span.slot, span.assignment) {
            self.books.add(span.slot, Tally { read: tally.read, ..Tally::default() });
            delivery.handle(Event::HandedOver(span));
        }
    }

    /// Notes that everything of a flush is durable.
    pub(crate) fn finished(&self, spans: &[(Span, Tally)]) {
        let mut delivery = self.delivery();
        for (span, tally) in spans {
            if delivery.commits().is_current(span.slot, span.assignment) {
                self.books.add(span.slot, Tally { read: 0, ..*tally });
                if let Some(in_sink) = delivery.in_sink_mut() {
                    in_sink.written(&[*span]);
                    self.books.committed(span.slot, span.next);
                }
                delivery.handle(Event::Finished(*span));
                self.torn.passed(span.slot, span.next);
            }
        }
        drop(delivery);
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.moved.notify_all();
    }

    /// Notes that the sink has taken spans that end before what was handed over. The pipeline stops there.
    pub(crate) fn written_in_part(&self, spans: &[(Span, Tally)]) {
        let mut delivery = self.delivery();
        for (span, tally) in spans {
            if let Some(in_sink) = delivery.in_sink_mut() {
                in_sink.written(&[*span]);
                self.books.add(span.slot, *tally);
                self.books.committed(span.slot, span.next);
            }
        }
    }

    /// Whether the sink keeps the positions that count.
    pub(crate) fn keeps_offsets_in_sink(&self) -> bool {
        self.delivery().in_sink().is_some()
    }

    /// The sink has given us a partition: it has stored `stored`, and reading begins at `position`. To be told after
    /// [`Event::Assigned`].
    pub(crate) fn taken_over(
        &self,
        slot: Slot,
        assignment: Assignment,
        epoch: Epoch,
        stored: i64,
        position: i64,
    ) {
        if let Some(in_sink) = self.delivery().in_sink_mut() {
            in_sink.started(slot, assignment, epoch, stored, position);
        }
    }

    /// How a flush is to be written; `None` where the sink keeps no positions.
    pub(crate) fn plan(&self, spans: &[Span]) -> Option<Plan> {
        self.delivery().in_sink().map(|in_sink| in_sink.plan(spans))
    }

    /// A transaction may or may not be durable.
    pub(crate) fn in_doubt(&self, spans: &[Span]) {
        if let Some(in_sink) = self.delivery().in_sink_mut() {
            in_sink.in_doubt(spans);
        }
    }

    /// The partition of a span in doubt was taken over again; answers what has become of the span.
    pub(crate) fn taken_over_again(&self, span: &Span, epoch: Epoch, stored: i64) -> Settled {
        self.delivery().taken_over_again(span, epoch, stored)
    }

    /// Somebody else has taken over the partitions of these spans, or their streams are not what they should be.
    pub(crate) fn fenced(&self, spans: &[Span]) {
        self.delivery().fenced(spans);
        self.stirred.notify_waiters();
    }

    /// Partitions that are to be started anew, each once.
    pub(crate) fn take_fenced(&self) -> Vec<(Slot, Assignment)> {
        self.delivery().take_fenced()
    }

    /// Those of these partitions that somebody else has taken over; they are not told again.
    pub(crate) fn take_fenced_of(&self, slots: &[Slot]) -> Vec<Slot> {
        self.delivery().take_fenced_of(slots)
    }

    /// A partition is read from `position` on, with streams of its own. To be told after [`Event::Assigned`].
    pub(crate) fn streams_started(
        &self,
        slot: Slot,
        assignment: Assignment,
        position: i64,
        inherited: StreamsNote,
    ) {
        self.delivery().streams_started(slot, assignment, position, inherited);
        self.stirred.notify_waiters();
    }

    /// Where the rows of a span go now.
    pub(crate) fn place_rows(&self, span: &Span, rows: &[Rows]) -> Placement {
        let mut delivery = self.delivery();
        let placement = delivery.streams_mut().map_or(Placement::Gone, |streams| streams.place(span, rows));
        drop(delivery);
        if matches!(placement, Placement::Append(_)) {
            // Those behind it may follow.
            self.stirred.notify_waiters();
        }
        placement
    }

    /// A stream was opened for a table, or could not be.
    pub(crate) fn opened(&self, span: &Span, table: &Arc<str>, stream: Option<StreamName>) {
        if let Some(streams) = self.delivery().streams_mut() {
            match stream {
                Some(stream) => drop(streams.opened(span.slot, span.assignment, table, stream)),
                None => streams.not_opened(span.slot, span.assignment, table),
            }
        }
        self.stirred.notify_waiters();
    }

    /// An append was answered. Where the stream is not what it should be, the partition is started anew.
    pub(crate) fn append_answered(&self, span: &Span, table: &str, answer: Answer) -> Verdict {
        let mut delivery = self.delivery();
        let verdict =
            delivery.streams_mut().map_or(Verdict::GoOn, |streams| streams.answered(span, table, answer));
        if verdict == Verdict::Restart {
            delivery.fenced(&[*span]);
        }
        drop(delivery);
        self.stirred.notify_waiters();
        verdict
    }

    /// What is to be done at the sink, each step once.
    pub(crate) fn steps(&self) -> Vec<Step> {
        self.delivery().steps()
    }

    /// Rows that are committed were published, or cannot be.
    pub(crate) fn published(
        &self,
        slot: Slot,
        assignment: Assignment,
        stream: &StreamName,
        end: i64,
        outcome: Published,
    ) {
        self.delivery().published(slot, assignment, stream, end, outcome);
        self.stirred.notify_waiters();
        self.moved.notify_all();
    }

    /// A stream of an earlier assignment is finalized.
    pub(crate) fn finalized(&self, slot: Slot, assignment: Assignment, stream: &StreamName) {
        self.delivery().finalized(slot, assignment, stream);
        self.stirred.notify_waiters();
        self.moved.notify_all();
    }

    /// What a commit says beside the position; `None`: nothing may be committed for this partition now.
    pub(crate) fn note(&self, token: CommitToken, slot: Slot, position: i64) -> Option<String> {
        self.delivery().note(token, slot, position)
    }

    /// Whether an unanswered commit has to be looked up.
    pub(crate) fn looks_up_commits(&self) -> bool {
        self.delivery().looks_up_commits()
    }

    /// What the group has stored after a commit that was never answered; answers what has become of it.
    pub(crate) fn looked_up(
        &self,
        token: CommitToken,
        slot: Slot,
        found: Option<(i64, &str)>,
    ) -> CommitOutcome {
        let outcome = self.delivery().looked_up(token, slot, found);
        self.stirred.notify_waiters();
        outcome
    }

    /// Whether the group has to be left and joined anew, told once.
    pub(crate) fn take_rejoin(&self) -> bool {
        self.delivery().take_rejoin()
    }

    /// Resolves when something changes for rows that wait or for what is to be done at the sink, if it is enabled before
    /// its owner looks.
    pub(crate) fn watch(&self) -> Notified<'_> {
        self.stirred.notified()
    }

    /// What the machine wants done, oldest first.
    pub(crate) fn actions(&self) -> Vec<Action> {
        self.delivery().take_actions()
    }

    /// Asks the machine something.
    pub(crate) fn ask<T>(&self, question: impl FnOnce(&AtLeastOnce) -> T) -> T {
        question(self.delivery().commits())
    }

    /// Waits until something moves, at most `longest`.
    pub(crate) fn wait_for_move(&self, longest: Duration) {
        let delivery = self.delivery();
        if !delivery.has_actions() {
            // Woken or not, the caller looks again.
            drop(self.moved.wait_timeout(delivery, longest));
        }
    }

    /// Ends the pipeline. The first failure counts.
    pub(crate) fn fail(&self, failure: Failure) {
        lock(&self.failure).get_or_insert(failure);
        self.moved.notify_all();
    }

    pub(crate) fn failure(&self) -> Option<Failure> {
        lock(&self.failure).clone()
    }

    /// Asks the pipeline to stop taking, drain, commit and leave.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.moved.notify_all();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Whether writers should give up waiting: the pipeline has failed.
    pub(crate) fn has_failed(&self) -> bool {
        lock(&self.failure).is_some()
    }

    pub(crate) fn health(&self) -> Health {
        match &*lock(&self.health) {
            Standing::Starting => Health::Starting,
            Standing::Running => Health::Running,
            Standing::Retrying { cause, since, .. } if since.elapsed() >= self.stalled_after => {
                Health::Stalled { cause: cause.clone(), since: *since }
            }
            Standing::Retrying { cause, since, .. } => {
                Health::Retrying { cause: cause.clone(), since: *since }
            }
        }
    }

    /// Counts a flush that has to wait for the sink or for the dead letter topic, until it is through or given up.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        Waiting(self)
    }

    /// Whether any flush waits: then the success of another one does not end the outage.
    fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// Partitions are being read, or a flush is through.
    pub(crate) fn running(&self) {
        *lock(&self.health) = Standing::Running;
    }

    /// Answers once in every outage, when it has lasted for `stalled_after`, what is waited for.
    pub(crate) fn newly_stalled(&self) -> Option<String> {
        match &mut *lock(&self.health) {
            Standing::Retrying { cause, since, told } if !*told && since.elapsed() >= self.stalled_after => {
                *told = true;
                Some(format!("stalled for {} s: {cause}", since.elapsed().as_secs()))
            }
            _ => None,
        }
    }

    /// Something is through: the outage is over unless others still wait.
    pub(crate) fn recovered(&self) {
        if self.is_waiting() {
            return;
        }
        if let Health::Retrying { since, .. } | Health::Stalled { since, .. } = self.health() {
            let seconds = since.elapsed().as_secs();
            tracing::info!(pipeline = %self.name, "the sink answers again after {seconds} s");
        }
        self.running();
    }

    /// What the pipeline is waiting for, for messages.
    pub(crate) fn waiting_for(&self) -> String {
        match self.health() {
            Health::Starting => "no partition was assigned; check the brokers and the topics".to_owned(),
            Health::Running => "records are missing that were there at the start".to_owned(),
            Health::Retrying { cause, .. } | Health::Stalled { cause, .. } => cause,
        }
    }

    /// The source thread has done everything it had to do.
    pub(crate) fn left(&self) {
        self.left.store(true, Ordering::Release);
    }

    pub(crate) fn has_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }

    /// Notes what is waited for: the brokers, the sink or the dead letter topic. Answers true at the first failure in a row.
    pub(crate) fn retrying(&self, cause: &str) -> bool {
        let mut health = lock(&self.health);
        if let Standing::Retrying { cause: known, .. } = &mut *health {
            cause.clone_into(known);
            false
        } else {
            *health = Standing::Retrying { cause: cause.to_owned(), since: Instant::now(), told: false };
            true
        }
    }

    pub(crate) fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    pub(crate) fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    /// Names a record for messages.
    pub(crate) fn place(stage: Stage, topic: &str, partition: i32, offset: i64) -> String {
        format!("{}: {topic}[{partition}]@{offset}", stage.name())
    }

    /// Partitions held by the machine.
    pub(crate) fn held(&self) -> Vec<Slot> {
        self.ask(|machine| machine.held().collect())
    }

    fn delivery(&self) -> MutexGuard<'_, Delivery> {
        lock(&self.delivery)
    }
}

/// The state behind these locks is changed by single assignments and by a machine that does not panic, so a
/// poisoned lock is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
