//! One writer task per lane: write → retry → cut bad rows out → acknowledge.
//!
//! A flush leaves here in one of two ways: everything in it is durable, confirmed as a dead letter or filtered,
//! and its spans are finished; or the pipeline has failed, and its spans stay open, so that no position passes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc::Receiver;
use txconnect_connector_api::{Batch, RejectedRow, Sink, SinkError, Writer};

use super::backoff::Backoff;
use super::books::Tally;
use super::dead_letters::{DeadLetterQueue, Letter, LetterError};
use super::memory::{Charge, Memory};
use super::open::{DeadLetter, Stage};
use super::records::{RecordView, Records};
use super::shared::{Failure, FailureKind, Health, Shared};
use super::topic::Topic;
use super::wake::Wake;
use crate::config::Reaction;
use crate::delivery::{Slot, Span};

/// How often a lasting outage is told again.
const REMIND: Duration = Duration::from_secs(30);

/// Dead letters of one flush that wait for their confirmation at once.
const LETTERS_IN_FLIGHT: usize = 64;

/// What a lane hands over: batches, bad records, and the spans of offsets that they cover completely.
pub(super) struct Flush {
    topics: Vec<Arc<Topic>>,
    /// As many as `topics`, in the same order.
    batches: Vec<Batch>,
    spans: Vec<(Span, Tally)>,
    dead_letters: Vec<DeadLetter>,
    sources: Vec<Arc<Records>>,
    /// The batches; the sources carry charges of their own.
    _charge: Charge,
}

impl Flush {
    pub(super) fn new(
        batches: Vec<(Arc<Topic>, Batch)>,
        spans: Vec<(Span, Tally)>,
        dead_letters: Vec<DeadLetter>,
        sources: Vec<Arc<Records>>,
        memory: &Arc<Memory>,
    ) -> Self {
        let bytes = batches
            .iter()
            .map(|(_, batch)| batch.bytes.capacity() + batch.sealed.as_ref().map_or(0, Vec::capacity))
            .sum();
        let (topics, batches) = batches.into_iter().unzip();
        Self { topics, batches, spans, dead_letters, sources, _charge: memory.charge(bytes) }
    }

    /// Cuts out what belongs to partitions that are not ours any more.
    pub(super) fn drop_partitions(&mut self, slots: &[Slot]) {
        for batch in &mut self.batches {
            batch.retain_rows(|_, row| !slots.contains(&Slot(row.source.slot)));
        }
        self.spans.retain(|(span, _)| !slots.contains(&span.slot));
        self.dead_letters.retain(|letter| !slots.contains(&letter.slot));
    }

    fn record(&self, number: u32) -> Option<RecordView<'_>> {
        self.sources.iter().find_map(|records| records.find(number))
    }

    fn tally(&mut self, slot: Slot) -> Option<&mut Tally> {
        self.spans.iter_mut().find(|(span, _)| span.slot == slot).map(|(_, tally)| tally)
    }
}

/// Everything a writer task needs.
pub(super) struct WriterSetup {
    pub(super) shared: Arc<Shared>,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) dead_letters: Option<Arc<DeadLetterQueue>>,
    pub(super) flushes: Receiver<Flush>,
    pub(super) in_flight: Arc<AtomicUsize>,
    pub(super) lane: Arc<Wake>,
}

/// Runs until the lane has ended and everything it handed over is settled.
pub(super) async fn run(setup: WriterSetup) {
    let WriterSetup { shared, sink, dead_letters, mut flushes, in_flight, lane } = setup;
    let writer = sink.writer(&shared.name);
    let most = sink.limits().in_flight;
    let task = WriterTask { shared: &shared, writer: &*writer, dead_letters: dead_letters.as_deref() };
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

struct WriterTask<'a> {
    shared: &'a Shared,
    writer: &'a dyn Writer,
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
    async fn deliver(&self, flush: &mut Flush) -> Result<(), Failure> {
        let mut letters = std::mem::take(&mut flush.dead_letters);
        let mut backoff = Backoff::new();
        let mut reminded = Instant::now();
        let mut waiting = None;
        for batch in &flush.batches {
            for row in &batch.rows {
                if let Some((_, tally)) =
                    flush.spans.iter_mut().find(|(span, _)| span.slot.0 == row.source.slot)
                {
                    tally.written += 1;
                    tally.rows += 1;
                }
            }
        }
        loop {
            if flush.batches.iter().all(Batch::is_empty) {
                break;
            }
            match self.writer.write(&mut flush.batches, &[]).await {
                Ok(()) => break,
                Err(SinkError::Transient { cause, retry_after }) => {
                    waiting.get_or_insert_with(|| self.shared.wait());
                    let pause = backoff.next(retry_after);
                    if self.shared.retrying(&cause) || reminded.elapsed() >= REMIND {
                        reminded = Instant::now();
                        let seconds = pause.as_secs_f32();
                        tracing::warn!(
                            pipeline = %self.shared.name,
                            "the sink is away, trying again in {seconds:.1} s: {cause}"
                        );
                    }
                    self.pause(pause).await?;
                    self.drop_what_is_gone(flush, &mut letters);
                }
                Err(SinkError::Rejected { rows }) => self.reject(flush, &rows, &mut letters)?,
                Err(SinkError::Fatal { cause, hint }) => return Err(fatal(flush, &cause, hint)),
                Err(error @ (SinkError::Fenced { .. } | SinkError::InDoubt { .. })) => {
                    return Err(fatal(flush, &error.to_string(), None));
                }
                Err(SinkError::Closed) => {
                    let message = SinkError::Closed.to_string();
                    return Err(Failure { kind: FailureKind::OutputClosed, message, hint: None });
                }
            }
        }
        self.send_dead_letters(flush, letters).await?;
        drop(waiting);
        self.recovered();
        Ok(())
    }

    /// Cuts out what belongs to partitions that others hold now: their owner reads the records again, so a row written
    /// here would only be there twice.
    fn drop_what_is_gone(&self, flush: &mut Flush, letters: &mut Vec<DeadLetter>) {
        let gone: Vec<Slot> = self.shared.ask(|machine| {
            let spans = flush.spans.iter().map(|(span, _)| span);
            spans
                .filter(|span| !machine.is_current(span.slot, span.assignment))
                .map(|span| span.slot)
                .collect()
        });
        if !gone.is_empty() {
            flush.drop_partitions(&gone);
            letters.retain(|letter| !gone.contains(&letter.slot));
        }
    }

    /// Takes the rows out that the server refuses, and decides what becomes of each.
    fn reject(
        &self,
        flush: &mut Flush,
        rows: &[RejectedRow],
        letters: &mut Vec<DeadLetter>,
    ) -> Result<(), Failure> {
        let mut cut = 0;
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
                    letters.push(DeadLetter { record: source.record, slot, stage: Stage::Write, why });
                    0
                }
                Reaction::Skip => {
                    tracing::warn!(pipeline = %self.shared.name, "{place}: record skipped: {}", rejected.why);
                    1
                }
                Reaction::Stop => {
                    return Err(Failure::stopped(
                        format!("{place}: the sink refuses the row: {}", rejected.why),
                        "mend the record's producer or the table, or set `on_error: dead_letter` or `skip`",
                    ));
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
        for (index, batch) in flush.batches.iter_mut().enumerate() {
            batch.retain_rows(|row, _| {
                !rows.iter().any(|rejected| rejected.batch == index && rejected.row == row)
            });
        }
        Ok(())
    }

    async fn send_dead_letters(&self, flush: &mut Flush, letters: Vec<DeadLetter>) -> Result<(), Failure> {
        if letters.is_empty() {
            return Ok(());
        }
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

    /// A flush is through: the outage is over unless others still wait.
    fn recovered(&self) {
        if self.shared.is_waiting() {
            return;
        }
        if let Health::Retrying { since, .. } = self.shared.health() {
            let seconds = since.elapsed().as_secs();
            tracing::info!(pipeline = %self.shared.name, "the sink answers again after {seconds} s");
        }
        self.shared.running();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OnError;
    use crate::delivery::Assignment;
    use crate::stages::decode::Format;
    use txconnect_connector_api::batch::Row;
    use txconnect_connector_api::{BadRecord, RowSource};

    #[test]
    fn a_partition_that_is_gone_takes_rows_letters_and_span_out_of_the_flush() {
        let reaction = Reaction::DeadLetter;
        let topic = Topic {
            name: "t".into(),
            table: "d.t".into(),
            format: Format::Json,
            schema: None,
            on_error: OnError { decode: reaction, validate: reaction, sink: reaction },
        };
        let mut batch = Batch::new("d.t".into());
        for (slot, text) in [(0, "a"), (1, "bb"), (0, "c")] {
            batch.bytes.extend_from_slice(text.as_bytes());
            let source = RowSource { slot, offset: 0, record: 0 };
            batch.rows.push(Row { end: batch.bytes.len(), source });
        }
        let span = |slot| {
            let span = Span { slot: Slot(slot), assignment: Assignment(1), first: 0, next: 3 };
            (span, Tally::default())
        };
        let letter = |slot| DeadLetter {
            record: 0,
            slot: Slot(slot),
            stage: Stage::Decode,
            why: BadRecord::new("decode.json", "", "broken"),
        };
        let memory = Memory::with_limit(1 << 20);
        let batches = vec![(Arc::new(topic), batch)];
        let mut flush =
            Flush::new(batches, vec![span(0), span(1)], vec![letter(0), letter(1)], Vec::new(), &memory);
        flush.drop_partitions(&[Slot(0)]);
        assert_eq!(flush.batches[0].bytes, b"bb");
        assert_eq!(flush.spans.iter().map(|(span, _)| span.slot).collect::<Vec<_>>(), [Slot(1)]);
        assert_eq!(flush.dead_letters.iter().map(|letter| letter.slot).collect::<Vec<_>>(), [Slot(1)]);
    }
}
