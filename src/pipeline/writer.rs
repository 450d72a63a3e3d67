//! One writer task per lane: write → retry → cut bad rows out → acknowledge.
//!
//! A flush leaves here in one of two ways: everything in it is durable, confirmed as a dead letter or filtered,
//! and its spans are finished; or the pipeline has failed, and its spans stay open, so that no position passes it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc::Receiver;
use txconnect_connector_api::{Advance, Batch, RejectedRow, Sink, SinkError, WriteStreams, Writer};

use super::appends::{self, AppendError};
use super::backoff::Backoff;
use super::dead_letters::{DeadLetterQueue, Letter, LetterError};
use super::flush::Flush;
use super::open::{DeadLetter, Stage};
use super::positions::{Positions, Prepared};
use super::shared::{Failure, FailureKind, Shared, Waiting};
use super::topic::Topic;
use super::wake::Wake;
use crate::config::Reaction;
use crate::delivery::Slot;

/// How often a lasting outage is told again.
const REMIND: Duration = Duration::from_secs(30);

/// Dead letters of one flush that wait for their confirmation at once.
const LETTERS_IN_FLIGHT: usize = 64;

/// Everything a writer task needs.
pub(super) struct WriterSetup {
    pub(super) shared: Arc<Shared>,
    pub(super) sink: Arc<dyn Sink>,
    /// Flushes on their way at once.
    pub(super) most: usize,
    pub(super) dead_letters: Option<Arc<DeadLetterQueue>>,
    pub(super) flushes: Receiver<Flush>,
    pub(super) in_flight: Arc<AtomicUsize>,
    pub(super) lane: Arc<Wake>,
}

/// Runs until the lane has ended and everything it handed over is settled.
pub(super) async fn run(setup: WriterSetup) {
    let WriterSetup { shared, sink, most, dead_letters, mut flushes, in_flight, lane } = setup;
    let writer = sink.writer(&shared.name);
    let positions = Positions::of(&*sink, &shared);
    let streams = sink.streams();
    let task = WriterTask {
        shared: &shared,
        writer: &*writer,
        streams: streams.as_deref(),
        positions,
        dead_letters: dead_letters.as_deref(),
    };
    let mut running = FuturesUnordered::new();
    let mut open = true;
    while open || !running.is_empty() {
        tokio::select! {
            flush = flushes.recv(), if open && running.len() < most => match flush {
                Some(flush) => running.push(task.settle(flush)),
                None => open = false,
            },
            Some(()) = running.next(), if !running.is_empty() => {
                in_flight.fetch_sub(1, Ordering::AcqRel);
                lane.notify();
            }
        }
    }
}

/// What a flush that has to wait remembers.
struct Retry<'a> {
    backoff: Backoff,
    reminded: Instant,
    waiting: Option<Waiting<'a>>,
    /// An append was not answered, and was sent again at once.
    unanswered: bool,
}

/// Rows at which the pipeline is to stop, where a flush can be written up to them.
#[derive(Default)]
struct Stops {
    failure: Option<Failure>,
    slots: Vec<Slot>,
}

struct WriterTask<'a> {
    shared: &'a Shared,
    writer: &'a dyn Writer,
    /// Where rows are committed in two phases.
    streams: Option<&'a dyn WriteStreams>,
    positions: Positions,
    dead_letters: Option<&'a DeadLetterQueue>,
}

impl WriterTask<'_> {
    async fn settle(&self, mut flush: Flush) {
        let outcome = self.deliver(&mut flush).await;
        let Flush { topics, batches, spans, .. } = &flush;
        for (topic, batch) in topics.iter().zip(batches) {
            self.shared.books.requests(&topic.name, batch.requests);
        }
        match outcome {
            Ok(()) => self.shared.finished(spans),
            Err(failure) => self.shared.fail(failure),
        }
    }

    /// Brings everything in the flush to where it belongs, and counts it.
    ///
    /// Dead letters go first: a sink that keeps the positions moves them with the rows, and no position may pass a dead
    /// letter that is not confirmed.
    async fn deliver(&self, flush: &mut Flush) -> Result<(), Failure> {
        let mut retry =
            Retry { backoff: Backoff::new(), reminded: Instant::now(), waiting: None, unanswered: false };
        let mut stops = Stops::default();
        flush.count_rows();
        loop {
            self.send_dead_letters(flush).await?;
            let advances = match self.positions.prepare(self.shared, flush).await {
                Ok(Prepared::Write(advances)) => advances,
                Ok(Prepared::Changed) => continue,
                Err(error) => {
                    self.wait_after(error, flush, &mut retry).await?;
                    continue;
                }
            };
            let written = match self.streams {
                Some(streams) => match appends::append(streams, self.shared, flush).await {
                    Ok(()) => Ok(()),
                    Err(AppendError::Changed) => continue,
                    // Once in a row it is nothing to speak of.
                    Err(AppendError::Unanswered(_)) if !std::mem::replace(&mut retry.unanswered, true) => {
                        continue;
                    }
                    Err(AppendError::Unanswered(error) | AppendError::Sink(error)) => Err(error),
                },
                None => self.write(flush, &advances).await,
            };
            match written {
                Ok(()) => break,
                Err(SinkError::Rejected { rows }) => self.reject(flush, &rows, &mut stops)?,
                Err(SinkError::Fenced { partitions }) => Positions::fenced(self.shared, flush, &partitions),
                Err(error) => {
                    if let SinkError::InDoubt { .. } = &error {
                        self.shared.in_doubt(&flush.covered());
                    }
                    self.wait_after(error, flush, &mut retry).await?;
                }
            }
        }
        drop(retry);
        self.shared.recovered();
        let Some(failure) = stops.failure else { return Ok(()) };
        let (ended, whole): (Vec<_>, Vec<_>) =
            flush.spans.iter().copied().partition(|(span, _)| stops.slots.contains(&span.slot));
        self.shared.finished(&whole);
        self.shared.written_in_part(&ended);
        Err(failure)
    }

    async fn write(&self, flush: &mut Flush, advances: &[Advance]) -> Result<(), SinkError> {
        if advances.is_empty() && flush.batches.iter().all(Batch::is_empty) {
            return Ok(());
        }
        self.writer.write(&mut flush.batches, advances).await
    }

    /// Waits where waiting helps; otherwise the pipeline fails.
    async fn wait_after<'a>(
        &'a self,
        error: SinkError,
        flush: &mut Flush,
        retry: &mut Retry<'a>,
    ) -> Result<(), Failure> {
        let (cause, asked) = match error {
            SinkError::Transient { cause, retry_after } => (cause, retry_after),
            SinkError::InDoubt { cause } => (cause, None),
            SinkError::Closed => {
                let message = SinkError::Closed.to_string();
                return Err(Failure { kind: FailureKind::OutputClosed, message, hint: None });
            }
            SinkError::Fatal { cause, hint } => return Err(fatal(flush, &cause, hint)),
            other @ (SinkError::Rejected { .. } | SinkError::Fenced { .. }) => {
                return Err(fatal(flush, &other.to_string(), None));
            }
        };
        retry.waiting.get_or_insert_with(|| self.shared.wait());
        let pause = retry.backoff.next(asked);
        if self.shared.retrying(&cause) || retry.reminded.elapsed() >= REMIND {
            retry.reminded = Instant::now();
            let seconds = pause.as_secs_f32();
            tracing::warn!(
                pipeline = %self.shared.name,
                "the sink is away, trying again in {seconds:.1} s: {cause}"
            );
        }
        self.pause(pause).await?;
        self.drop_what_is_gone(flush);
        Ok(())
    }

    /// Cuts out what belongs to partitions that others hold now: their owner reads the records again, so a row written
    /// here would only be there twice.
    fn drop_what_is_gone(&self, flush: &mut Flush) {
        let gone: Vec<Slot> = self.shared.ask(|machine| {
            let spans = flush.spans.iter().map(|(span, _)| span);
            spans
                .filter(|span| !machine.is_current(span.slot, span.assignment))
                .map(|span| span.slot)
                .collect()
        });
        if !gone.is_empty() {
            flush.drop_partitions(&gone);
        }
    }

    /// Takes the rows out that the server refuses, and decides what becomes of each.
    fn reject(&self, flush: &mut Flush, rows: &[RejectedRow], stops: &mut Stops) -> Result<(), Failure> {
        let mut cut = 0;
        let mut ends: BTreeMap<Slot, i64> = BTreeMap::new();
        for rejected in rows {
            let Some(row) = flush.batches.get(rejected.batch).and_then(|batch| batch.rows.get(rejected.row))
            else {
                continue;
            };
            let source = row.source;
            let slot = Slot(source.slot);
            let topic = Arc::clone(&flush.topics[rejected.batch]);
            let place = self.place(&topic, slot, source.offset);
            let skipped = match topic.reaction(Stage::Write) {
                Reaction::DeadLetter => {
                    let why = rejected.why.clone();
                    flush.dead_letters.push(DeadLetter {
                        record: source.record,
                        slot,
                        stage: Stage::Write,
                        why,
                    });
                    0
                }
                Reaction::Skip => {
                    tracing::warn!(pipeline = %self.shared.name, "{place}: record skipped: {}", rejected.why);
                    1
                }
                Reaction::Stop => {
                    let failure = Failure::stopped(
                        format!("{place}: the sink refuses the row: {}", rejected.why),
                        "mend the record's producer or the table, or set `on_error: dead_letter` or `skip`",
                    );
                    if !self.shared.keeps_offsets_in_sink() {
                        return Err(failure);
                    }
                    // Everything before the row is still written, with the positions just before it.
                    stops.failure.get_or_insert(failure);
                    stops.slots.push(slot);
                    let end = ends.entry(slot).or_insert(source.offset);
                    *end = source.offset.min(*end);
                    0
                }
            };
            if let Some(tally) = flush.tally(slot) {
                tally.written -= 1;
                tally.rows -= 1;
                tally.skipped += skipped;
            }
            cut += 1;
        }
        if cut == 0 {
            return Err(Failure::fatal("the sink refused rows without naming any", None));
        }
        let bad: HashSet<(usize, usize)> =
            rows.iter().map(|rejected| (rejected.batch, rejected.row)).collect();
        for (index, batch) in flush.batches.iter_mut().enumerate() {
            batch.retain_rows(|row, _| !bad.contains(&(index, row)));
        }
        for (slot, offset) in ends {
            flush.end_at(slot, offset);
        }
        Ok(())
    }

    async fn send_dead_letters(&self, flush: &mut Flush) -> Result<(), Failure> {
        if flush.dead_letters.is_empty() {
            return Ok(());
        }
        let letters = std::mem::take(&mut flush.dead_letters);
        let Some(queue) = self.dead_letters else {
            return Err(Failure::fatal(
                "a dead letter has nowhere to go",
                Some("set `dead_letters:`".to_owned()),
            ));
        };
        let mut waiting = letters.iter();
        let mut sent = FuturesUnordered::new();
        loop {
            while sent.len() < LETTERS_IN_FLIGHT
                && let Some(letter) = waiting.next()
            {
                sent.push(self.send_dead_letter(queue, flush, letter));
            }
            match sent.next().await {
                Some(confirmed) => confirmed?,
                None => break,
            }
        }
        drop(sent);
        for letter in letters {
            if let Some(tally) = flush.tally(letter.slot) {
                tally.dead_lettered += 1;
            }
        }
        Ok(())
    }

    async fn send_dead_letter(
        &self,
        queue: &DeadLetterQueue,
        flush: &Flush,
        letter: &DeadLetter,
    ) -> Result<(), Failure> {
        let Some(view) = flush.record(letter.record) else {
            return Err(Failure::fatal("the bytes of a dead letter are gone", None));
        };
        let letter = Letter { view, stage: letter.stage, why: &letter.why };
        let mut backoff = Backoff::new();
        let mut waiting = None;
        loop {
            match queue.deliver(&letter).await {
                Ok(()) => return Ok(()),
                Err(LetterError::Never(failure)) => return Err(failure),
                Err(LetterError::Again(cause)) => {
                    waiting.get_or_insert_with(|| self.shared.wait());
                    if self.shared.retrying(&cause) {
                        tracing::warn!(pipeline = %self.shared.name, "a dead letter is not confirmed, trying again: {cause}");
                    }
                    self.pause(backoff.next(None)).await?;
                }
            }
        }
    }

    /// Waits, but not longer than the pipeline lives.
    async fn pause(&self, pause: Duration) -> Result<(), Failure> {
        let end = Instant::now() + pause;
        loop {
            if let Some(failure) = self.shared.failure() {
                return Err(failure);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return Ok(());
            }
            tokio::time::sleep(left.min(Duration::from_millis(100))).await;
        }
    }

    fn place(&self, topic: &Topic, slot: Slot, offset: i64) -> String {
        let partition = self.shared.books.partition_of(slot).map_or(-1, |partition| partition.partition);
        Shared::place(Stage::Write, &topic.name, partition, offset)
    }
}

fn fatal(flush: &Flush, cause: &str, hint: Option<String>) -> Failure {
    let tables: Vec<&str> =
        flush.batches.iter().filter(|batch| !batch.is_empty()).map(|batch| &*batch.table).collect();
    let message =
        if tables.is_empty() { cause.to_owned() } else { format!("{}: {cause}", tables.join(", ")) };
    Failure::fatal(message, hint)
}
