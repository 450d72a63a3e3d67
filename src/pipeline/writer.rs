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
use txconnect_connector_api::{
    Advance, BadRecord, Batch, RejectedRow, RowSource, Sink, SinkError, WriteStreams, Writer,
};

use super::appends::{self, AppendError};
use super::backoff::Backoff;
use super::dead_letters::{DeadLetterQueue, Letter, LetterError};
use super::flush::Flush;
use super::open::DeadLetter;
use super::positions::{Positions, Prepared};
use super::shared::{Failure, FailureKind, Shared, Waiting};
use super::topic::reaction;
use super::wake::Wake;
use crate::config::{OnError, Reaction};
use crate::delivery::Slot;
use crate::stages::Stage;

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
    pub(super) on_error: OnError,
    pub(super) dead_letters: Option<Arc<DeadLetterQueue>>,
    pub(super) flushes: Receiver<Flush>,
    pub(super) in_flight: Arc<AtomicUsize>,
    pub(super) lane: Arc<Wake>,
}

/// Runs until the lane has ended and everything it handed over is settled.
pub(super) async fn run(setup: WriterSetup) {
    let WriterSetup { shared, sink, most, on_error, dead_letters, mut flushes, in_flight, lane } = setup;
    let writer = sink.writer(&shared.name);
    let positions = Positions::of(&*sink, &shared);
    let streams = sink.streams();
    let task = WriterTask {
        shared: &shared,
        writer: &*writer,
        streams: streams.as_deref(),
        positions,
        on_error,
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
    on_error: OnError,
    dead_letters: Option<&'a DeadLetterQueue>,
}

impl WriterTask<'_> {
    async fn settle(&self, mut flush: Flush) {
        let outcome = self.deliver(&mut flush).await;
        let Flush { destinations, batches, spans, .. } = &flush;
        for (destination, batch) in destinations.iter().zip(batches) {
            self.shared.books.requests(&destination.topic, batch.requests);
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

    /// Takes the rows out that the server refuses, each with all rows of its record, and decides what becomes of the
    /// records.
    fn reject(&self, flush: &mut Flush, rows: &[RejectedRow], stops: &mut Stops) -> Result<(), Failure> {
        // By the records' numbers; of several rows of one record the first says why.
        let mut refused: Vec<(RowSource, &BadRecord)> = Vec::new();
        let mut known = HashSet::new();
        for rejected in rows {
            let row = flush.batches.get(rejected.batch).and_then(|batch| batch.rows.get(rejected.row));
            if let Some(row) = row.filter(|row| known.insert(row.source.record)) {
                refused.push((row.source, &rejected.why));
            }
        }
        if refused.is_empty() {
            return Err(Failure::fatal("the sink refused rows without naming any", None));
        }
        let reaction = reaction(self.on_error, Stage::Write);
        if reaction == Reaction::Stop && !self.shared.keeps_offsets_in_sink() {
            return Err(self.refused(refused[0].0, refused[0].1));
        }
        let records: Vec<u32> = refused.iter().map(|(source, _)| source.record).collect();
        let cut = flush.cut_records(&records);
        let mut ends: BTreeMap<Slot, i64> = BTreeMap::new();
        for ((source, why), cut) in refused.into_iter().zip(cut) {
            let slot = Slot(source.slot);
            if self.streams.is_some() && flush.rows_of(source.record) > 1 {
                self.shared.torn.remember(slot, source.offset, why.clone());
            }
            let mut skipped = 0;
            match reaction {
                Reaction::DeadLetter => {
                    let mut why = why.clone();
                    let left = flush.rows_of(source.record).saturating_sub(cut);
                    if left > 0 {
                        why.message =
                            format!("{}; {left} other rows of the record are written already", why.message);
                    }
                    let (record, stage) = (source.record, Stage::Write);
                    flush.dead_letters.push(DeadLetter { record, slot, stage, why });
                }
                Reaction::Skip => {
                    let place = self.place(slot, source.offset);
                    tracing::warn!(pipeline = %self.shared.name, "{place}: record skipped: {why}");
                    skipped = 1;
                }
                Reaction::Stop => {
                    // Everything before the row is still written, with the positions just before it.
                    let failure = self.refused(source, why);
                    stops.failure.get_or_insert(failure);
                    stops.slots.push(slot);
                    let end = ends.entry(slot).or_insert(source.offset);
                    *end = source.offset.min(*end);
                }
            }
            if let Some(tally) = flush.tally(slot) {
                tally.written = tally.written.saturating_sub(1);
                tally.rows = tally.rows.saturating_sub(cut);
                tally.skipped += skipped;
            }
        }
        for (slot, offset) in ends {
            flush.end_at(slot, offset);
        }
        Ok(())
    }

    fn refused(&self, source: RowSource, why: &BadRecord) -> Failure {
        Failure::stopped(
            format!("{}: the sink refuses the row: {why}", self.place(Slot(source.slot), source.offset)),
            "mend the record's producer or the table, or set `on_error: dead_letter` or `skip`",
        )
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

    /// Names the record that a row was made from.
    fn place(&self, slot: Slot, offset: i64) -> String {
        let (topic, partition) = match self.shared.books.partition_of(slot) {
            Some(partition) => (partition.topic, partition.partition),
            None => ("an unknown topic".into(), -1),
        };
        Shared::place(Stage::Write, &topic, partition, offset)
    }
}

fn fatal(flush: &Flush, cause: &str, hint: Option<String>) -> Failure {
    let tables: Vec<&str> =
        flush.batches.iter().filter(|batch| !batch.is_empty()).map(|batch| &*batch.table).collect();
    let message =
        if tables.is_empty() { cause.to_owned() } else { format!("{}: {cause}", tables.join(", ")) };
    Failure::fatal(message, hint)
}
