//! The tables that letters go to: their encoders, their batches, and writing these.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use txconnect_connector_api::batch::Row;
use txconnect_connector_api::{BadRecord, Batch, Encoder, RowSource, Sink, SinkError, SinkLimits, Writer};

use super::super::super::CommandError;
use super::super::send::Going;
use super::Failures;
use crate::commands::say;
use crate::config::{Pipeline, TopicSchema};
use crate::stages::Stage;
use crate::stages::decode::Format;
use crate::stages::encode::Making;
use crate::stages::transform::too_large;

/// How long the sink may be away.
const PATIENCE: Duration = Duration::from_mins(5);
/// The pauses between attempts: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// The tables that letters have come to so far.
pub(super) struct Tables<'a> {
    sink: Arc<dyn Sink>,
    writer: Box<dyn Writer>,
    limits: SinkLimits,
    /// The most rows and bytes in one batch of several letters.
    most: (usize, usize),
    runtime: &'a Runtime,
    ended: &'a AtomicBool,
    known: Vec<Table>,
}

/// One table, and the rows that wait for it.
struct Table {
    topic: String,
    schema: Option<Arc<TopicSchema>>,
    /// Whether the schema was not looked at before the transforms.
    validates: bool,
    encoder: Box<dyn Encoder>,
    batch: Batch,
}

/// The rows of one letter.
#[derive(Default)]
pub(super) struct LetterRows {
    bytes: Vec<u8>,
    /// For each row its table and its bytes.
    rows: Vec<(usize, Range<usize>)>,
}

impl LetterRows {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.rows.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Where an encoder appends to.
    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// What lies behind `start` is a row of `table`.
    pub(super) fn end_row(&mut self, table: usize, start: usize) {
        self.rows.push((table, start..self.bytes.len()));
    }

    /// Rows and bytes for a table.
    fn demand(&self, table: usize) -> (usize, usize) {
        let rows = self.rows.iter().filter(|(other, _)| *other == table);
        rows.fold((0, 0), |(rows, bytes), (_, row)| (rows + 1, bytes + row.len()))
    }
}

/// What became of the rows of a letter.
pub(super) enum Placed {
    InBatches,
    /// No request takes them together.
    TooLarge(BadRecord),
}

impl<'a> Tables<'a> {
    pub(super) fn new(pipeline: &Pipeline, runtime: &'a Runtime, ended: &'a AtomicBool) -> Self {
        let sink = Arc::clone(&pipeline.sink);
        let limits = sink.limits();
        let rows = limits.request_rows.min(pipeline.batch.rows.get() as usize).max(1);
        let bytes = limits.request_bytes.min(pipeline.batch.bytes.as_usize());
        let writer = sink.writer(&pipeline.name);
        Self { sink, writer, limits, most: (rows, bytes), runtime, ended, known: Vec::new() }
    }

    /// Makes the table and the encoder of a topic ready. `after_transforms` says which of the pipeline's schemas counts.
    pub(super) fn prepare(
        &mut self,
        pipeline: &Pipeline,
        name: &str,
        after_transforms: bool,
    ) -> Result<usize, CommandError> {
        if let Some(known) = self.known.iter().position(|table| table.topic == name) {
            return Ok(known);
        }
        let schema = pipeline.output_schema_for(name).map_err(CommandError::failed)?;
        let columns = schema.as_ref().and_then(|schema| schema.table.as_ref());
        let mut waiting = Waiting::new(self.ended);
        while let Err(error) = self.runtime.block_on(self.sink.prepare(name, columns)) {
            waiting.after(error)?;
        }
        let encoder = self.sink.encoder(name, columns).map_err(|error| sink_failed(&error))?;
        let batch = Batch::new(self.sink.table(name));
        // Without transforms this is the first look at the value, and the only schema.
        let validates = !after_transforms || pipeline.output.is_some();
        self.known.push(Table { topic: name.to_owned(), schema, validates, encoder, batch });
        Ok(self.known.len() - 1)
    }

    /// How rows of a table are made.
    pub(super) fn making(&mut self, table: usize, format: Format) -> Making<'_> {
        let Table { schema, validates, encoder, .. } = &mut self.known[table];
        let validator = schema.as_ref().filter(|_| *validates).map(|schema| &schema.validator);
        Making { format, validator, encoder: &mut **encoder }
    }

    /// Puts the rows of a letter into their batches, together. What leaves no room for them is written before.
    pub(super) fn place(
        &mut self,
        rows: &LetterRows,
        letters: &[Going<'_>],
        at: usize,
        arrived: &mut Vec<usize>,
        failures: &mut Failures,
    ) -> Result<Placed, CommandError> {
        let mut full = self.must_stand_apart(letters, at);
        for (index, table) in self.known.iter().enumerate() {
            let (more, bytes) = rows.demand(index);
            if more == 0 {
                continue;
            }
            let envelope = table.encoder.envelope_bytes();
            let most = self.limits.request_bytes.saturating_sub(envelope);
            // A single row the encoder has looked at.
            if more > 1 && (bytes > most || more > self.limits.request_rows) {
                let request = (self.limits.request_rows, most);
                return Ok(Placed::TooLarge(too_large(&table.batch.table, (more, bytes), request)));
            }
            full |= !table.batch.is_empty()
                && (table.batch.rows.len() + more > self.most.0
                    || table.batch.bytes.len() + bytes > self.most.1.saturating_sub(envelope));
        }
        if full {
            self.write(letters, arrived, failures)?;
        }
        let going = &letters[at];
        let offset = going.letter.origin().and_then(|origin| origin.offset).unwrap_or(-1);
        let slot = going.partition.and_then(|number| number.try_into().ok()).unwrap_or(0);
        let source = RowSource { slot, offset, record: u32::try_from(at).unwrap_or(u32::MAX) };
        for (table, bytes) in &rows.rows {
            let batch = &mut self.known[*table].batch;
            batch.bytes.extend_from_slice(&rows.bytes[bytes.clone()]);
            batch.rows.push(Row { end: batch.bytes.len(), source });
        }
        Ok(Placed::InBatches)
    }

    /// Whether the rows that wait are of another partition, where batches must not mix them.
    fn must_stand_apart(&self, letters: &[Going<'_>], at: usize) -> bool {
        let place = |at: usize| letters.get(at).map(|going| (going.topic, going.partition));
        let of_others = |table: &Table| {
            let last = table.batch.rows.last();
            last.is_some_and(|row| place(row.source.record as usize) != place(at))
        };
        !self.limits.batches_mix_partitions && self.known.iter().any(of_others)
    }

    /// Writes all rows that wait, and waits until they are durable. A letter has arrived with the last of its rows.
    pub(super) fn write(
        &mut self,
        letters: &[Going<'_>],
        arrived: &mut Vec<usize>,
        failures: &mut Failures,
    ) -> Result<(), CommandError> {
        let mut batches = Vec::new();
        for Table { encoder, batch, .. } in self.known.iter_mut().filter(|table| !table.batch.is_empty()) {
            let empty = Batch::new(Arc::clone(&batch.table));
            let mut full = std::mem::replace(batch, empty);
            encoder.seal(&mut full);
            batches.push(full);
        }
        let sent = letters_in(&batches);
        let mut refused = BTreeSet::new();
        let mut waiting = Waiting::new(self.ended);
        let outcome = loop {
            if batches.iter().all(Batch::is_empty) {
                break Ok(());
            }
            match self.runtime.block_on(self.writer.write(&mut batches, &[])) {
                Ok(()) => {
                    batches.clear();
                    break Ok(());
                }
                Err(SinkError::Rejected { rows }) => {
                    let before = refused.len();
                    for rejected in &rows {
                        let row = batches.get(rejected.batch).and_then(|batch| batch.rows.get(rejected.row));
                        let Some(at) = row.map(|row| row.source.record as usize) else { continue };
                        if refused.insert(at) {
                            failures.add(&letters[at], &(Stage::Write, rejected.why.clone()));
                        }
                    }
                    if refused.len() == before {
                        break Err(CommandError::Failed(
                            "the sink refused rows without naming any".to_owned(),
                        ));
                    }
                    for batch in &mut batches {
                        batch.retain_rows(|_, row| !refused.contains(&(row.source.record as usize)));
                    }
                }
                Err(error) => {
                    if let Err(error) = waiting.after(error) {
                        break Err(error);
                    }
                }
            }
        };
        // What the writer has cut out is durable.
        let left = letters_in(&batches);
        arrived.extend(sent.into_iter().filter(|at| !left.contains(at) && !refused.contains(at)));
        outcome
    }
}

/// The letters that rows of the batches were made from.
fn letters_in(batches: &[Batch]) -> BTreeSet<usize> {
    batches.iter().flat_map(|batch| &batch.rows).map(|row| row.source.record as usize).collect()
}

/// A sink that is away, waited for.
struct Waiting<'a> {
    ended: &'a AtomicBool,
    since: Option<Instant>,
    pause: Duration,
}

impl<'a> Waiting<'a> {
    fn new(ended: &'a AtomicBool) -> Self {
        Self { ended, since: None, pause: PAUSES.0 }
    }

    /// Waits where waiting helps; otherwise fails.
    fn after(&mut self, error: SinkError) -> Result<(), CommandError> {
        let SinkError::Transient { cause, retry_after } = error else { return Err(sink_failed(&error)) };
        if self.since.is_none() {
            say(&format!("the sink is away, trying again: {cause}"));
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() >= PATIENCE || self.ended.load(Ordering::Relaxed) {
            return Err(CommandError::Failed(format!(
                "the sink has been away for {} s: {cause}; run the command again once it is back",
                since.elapsed().as_secs()
            )));
        }
        std::thread::sleep(retry_after.unwrap_or(self.pause).min(PAUSES.1));
        self.pause = (self.pause * 2).min(PAUSES.1);
        Ok(())
    }
}

/// A sink's failure in one sentence with the way out.
fn sink_failed(error: &SinkError) -> CommandError {
    CommandError::Failed(match error {
        SinkError::Fatal { cause, hint: Some(hint) } => format!("{cause}; {hint}"),
        other => other.to_string(),
    })
}
