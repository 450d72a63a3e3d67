//! Records through a transform, batch by batch. Where a batch fails, the guilty records are found as in a pipeline: each
//! half is tried by itself, with its share of the time.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use txconnect_transform_host::{Batch, CallError, InputRecord, Output, Transform};

use super::super::super::CommandError;
use super::lines::TestRecord;

/// The least time that a part of a batch gets, where the batch has as much.
const LEAST_TIME: Duration = Duration::from_millis(50);

/// What became of a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// So many rows; none: it was filtered out.
    Rows(Vec<OutputRow>),
    /// It would go the way of bad records.
    Failed(Failure),
}

/// The key or the value of a row.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// As in the record.
    Kept,
    /// What the transform has given; `None` is nothing.
    Given(Option<Vec<u8>>),
}

impl Part {
    /// This, or what the record has.
    pub(super) fn or<'p>(&'p self, record: Option<&'p [u8]>) -> Option<&'p [u8]> {
        match self {
            Self::Kept => record,
            Self::Given(given) => given.as_deref(),
        }
    }
}

/// A row. Topic and headers that are `None` are as in the record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OutputRow {
    pub(super) topic: Option<String>,
    pub(super) key: Part,
    pub(super) value: Part,
    pub(super) headers: Option<Vec<(String, Option<Vec<u8>>)>>,
}

/// Why a record failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// The class, without `transform.` before it.
    pub(super) code: String,
    pub(super) message: String,
    pub(super) trace: Option<String>,
}

/// A transform that records are sent through again and again.
pub(super) struct Passes {
    transform: Transform,
    batch: Batch,
    batch_records: NonZeroU32,
    time: Duration,
    took: Duration,
    memory: usize,
}

impl Passes {
    pub(super) fn new(transform: Transform, batch_records: NonZeroU32, time: Duration) -> Self {
        let batch = Batch::default();
        Self { transform, batch, batch_records, time, took: Duration::ZERO, memory: 0 }
    }

    /// Sends all records through. One outcome for each comes back.
    pub(super) fn pass(&mut self, records: &[TestRecord]) -> Result<Vec<Outcome>, CommandError> {
        self.took = Duration::ZERO;
        let mut outcomes = Vec::with_capacity(records.len());
        for batch in records.chunks(self.batch_records.get() as usize) {
            self.part(batch, self.time, &mut outcomes)?;
        }
        Ok(outcomes)
    }

    /// How long the transform took for the last pass.
    pub(super) fn last_took(&self) -> Duration {
        self.took
    }

    /// The most memory that an instance was seen with.
    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    /// The depth of the recursion is the number of halvings of a batch, at most 32.
    fn part(
        &mut self,
        records: &[TestRecord],
        time: Duration,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), CommandError> {
        self.fill(records);
        let started = Instant::now();
        let result = self.transform.call(&self.batch, time);
        self.took += started.elapsed();
        self.memory = self.memory.max(self.transform.memory());
        match result {
            Ok(output) => {
                collect(&output, records.len(), outcomes);
                Ok(())
            }
            Err(CallError::Init(error)) => Err(CommandError::failed(error)),
            Err(error) if records.len() > 1 => {
                let (first, second) = records.split_at(records.len() / 2);
                drop(error);
                let share = (time / 2).max(LEAST_TIME.min(self.time));
                self.part(first, share, outcomes)?;
                self.part(second, share, outcomes)
            }
            Err(error) => {
                outcomes.push(Outcome::Failed(guilty(error)));
                Ok(())
            }
        }
    }

    fn fill(&mut self, records: &[TestRecord]) {
        self.batch.clear(self.transform.module().description().needs);
        for record in records {
            let input = InputRecord {
                topic: &record.topic,
                partition: record.partition,
                offset: record.offset,
                timestamp: record.timestamp,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
            };
            let headers = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
            self.batch.push(&input, headers);
        }
    }
}

/// What is left of a failed call for a single record.
fn guilty(error: CallError) -> Failure {
    let code = match &error {
        CallError::Init(_) => "init",
        CallError::Trap { .. } => "trap",
        CallError::TooSlow { .. } => "too_slow",
        CallError::TooMuchMemory { .. } => "too_much_memory",
        CallError::Malformed { .. } => "malformed",
        CallError::Refused { .. } => "refused",
    };
    let message = error.to_string();
    let trace = match error {
        CallError::Trap { backtrace, .. } => backtrace,
        _ => None,
    };
    Failure { code: code.to_owned(), message, trace }
}

fn collect(output: &Output, records: usize, outcomes: &mut Vec<Outcome>) {
    let first = outcomes.len();
    outcomes.extend((0..records).map(|_| Outcome::Rows(Vec::new())));
    let outcomes = &mut outcomes[first..];
    let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    let part = |given: Option<Option<&[u8]>>| given.map_or(Part::Kept, |bytes| Part::Given(owned(bytes)));
    for row in (0..output.len()).map(|index| output.row(index)) {
        if let Some(Outcome::Rows(rows)) = outcomes.get_mut(row.source() as usize) {
            rows.push(OutputRow {
                topic: row.topic().map(str::to_owned),
                key: part(row.key()),
                value: part(row.value()),
                headers: row
                    .headers()
                    .map(|headers| headers.map(|(name, value)| (name.to_owned(), owned(value))).collect()),
            });
        }
    }
    for failure in output.failures() {
        if let Some(outcome) = outcomes.get_mut(failure.record as usize) {
            let code = failure.code.strip_prefix("transform.").unwrap_or(&failure.code).to_owned();
            *outcome = Outcome::Failed(Failure { code, message: failure.message.clone(), trace: None });
        }
    }
}
