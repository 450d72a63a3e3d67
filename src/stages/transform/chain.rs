//! The order in which guests are called, and what happens when a call fails.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use txconnect_connector_api::BadRecord;
use txconnect_transform_host::{Batch, CallError, InitError, InputRecord, Needs, Output, RecordFailure};

use super::rows::{Failed, Origins, Part, Row};

/// The least time that a part of a batch gets, unless the whole gets less.
const LEAST_TIME: Duration = Duration::from_millis(50);

/// A batch with so many bytes is given to a guest as it is; what comes behind makes another. A single record may be
/// larger.
const BATCH_BYTES: usize = 8 << 20;

/// The longest message of a bad record, in bytes: guests may say anything.
const LONGEST_MESSAGE: usize = 1000;

/// Something that transforms batches.
pub trait Guest {
    /// What it can be replaced by.
    type Replacement;

    /// Its name, for messages.
    fn name(&self) -> &str;

    /// What it wants to see beside topic and value.
    fn needs(&self) -> Needs;

    /// How long a whole batch may take.
    fn time_per_batch(&self) -> Duration;

    /// How many records in a row may make it fail.
    fn max_failures(&self) -> u32;

    /// Transforms a batch, which was filled for what this guest needs, within `time`.
    ///
    /// # Errors
    /// Nothing came back. The next call may fare better.
    fn call(&mut self, batch: &Batch, time: Duration) -> Result<Output, CallError>;

    /// Goes on as something else. Where that does not start, this stays as it was.
    ///
    /// # Errors
    /// The other one does not start.
    fn replace(&mut self, by: &Self::Replacement) -> Result<(), InitError>;
}

/// The records that a chain is to transform.
pub trait Input {
    /// Record `index`, which is below the number that [`Chain::begin`] was told.
    fn record(&self, index: usize) -> InputRecord<'_>;

    /// The headers of record `index`.
    fn headers(&self, index: usize) -> impl Iterator<Item = (&str, Option<&[u8]>)>;
}

/// What a step has brought.
#[derive(Debug)]
pub enum Step {
    /// Something was done, and there is more to do.
    Again,
    /// Records have come to the end; there is more to do.
    Part(Part),
    /// All records have come to the end.
    Done,
}

/// Why a chain goes no further: trying on would make every record bad.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainFailure {
    /// A new instance does not start.
    #[error(transparent)]
    Init(#[from] InitError),
    /// Too many records in a row made a guest fail.
    #[error("the transform {name} has failed at {records} records in a row, at the last: {why}")]
    TooManyFailures {
        /// The guest's name.
        name: String,
        /// How many.
        records: u32,
        /// What happened at the last of them.
        why: String,
    },
}

/// Transforms, one after the other.
pub struct Chain<G> {
    links: Vec<Link<G>>,
    /// What is still to be done; the last comes first. Records on it are in order, the first ones last.
    stack: Vec<Task>,
    batch: Batch,
}

struct Link<G> {
    guest: G,
    /// Records in a row that made it fail.
    guilty: u32,
}

/// Records before one of the links.
struct Task {
    link: usize,
    records: Range<u32>,
    /// In the order of their records.
    rows: Vec<Origins>,
    /// Records that earlier links could not transform, in order.
    failed: Vec<Failed>,
    /// What earlier links have answered, by their places in the chain.
    outputs: Vec<Arc<Output>>,
    time: Duration,
}

impl<G: Guest> Chain<G> {
    /// A chain of these guests, in this order.
    pub fn new(guests: Vec<G>) -> Self {
        let links = guests.into_iter().map(|guest| Link { guest, guilty: 0 }).collect();
        Self { links, stack: Vec::new(), batch: Batch::default() }
    }

    /// Begins with `records` records. What was still to be done is forgotten.
    pub fn begin(&mut self, records: usize) {
        self.stack.clear();
        let records = u32::try_from(records).unwrap_or(u32::MAX);
        if records > 0 {
            let rows = (0..records).map(Origins::of).collect();
            let task = self.before(0, 0..records, rows, Vec::new(), Vec::new());
            self.stack.push(task);
        }
    }

    /// Calls one guest once, at most. `input` holds the records that [`Self::begin`] was told of.
    ///
    /// # Errors
    /// Trying on would make every record bad.
    pub fn step(&mut self, input: &impl Input) -> Result<Step, ChainFailure> {
        let Some(mut task) = self.stack.pop() else { return Ok(Step::Done) };
        let Some(link) = self.links.get_mut(task.link).filter(|_| !task.rows.is_empty()) else {
            return Ok(Step::Part(task.into_part()));
        };
        let filled = task.fill(&mut self.batch, link.guest.needs(), input);
        if filled < task.rows.len() {
            let rest = task.split_off(filled);
            self.stack.push(rest);
        }
        match link.guest.call(&self.batch, task.time) {
            Ok(output) => {
                link.guilty = 0;
                let Task { link: place, records, rows, failed, mut outputs, .. } = task;
                let (rows, failed) = advance(place, &rows, failed, &output, link.guest.name());
                outputs.push(Arc::new(output));
                Ok(self.go_on(place + 1, records, rows, failed, outputs))
            }
            Err(CallError::Init(error)) => Err(error.into()),
            Err(error) => {
                if let Some(middle) = task.middle() {
                    let least = link.guest.time_per_batch().min(LEAST_TIME);
                    let (time, total) = (task.time, task.rows.len());
                    let mut right = task.split_off(middle);
                    for part in [&mut right, &mut task] {
                        part.time = share(time, part.rows.len(), total).max(least);
                    }
                    self.stack.push(right);
                    self.stack.push(task);
                    return Ok(Step::Again);
                }
                let record = task.rows[0].record;
                let why = link.failed_at(&error)?;
                let Task { link: place, records, mut failed, outputs, .. } = task;
                failed.insert(failed.partition_point(|other| other.record < record), Failed { record, why });
                Ok(self.go_on(place, records, Vec::new(), failed, outputs))
            }
        }
    }

    /// Goes on with another guest at place `link` of the chain, from the next call on. Where that one does not start,
    /// everything stays as it was.
    ///
    /// # Errors
    /// The other guest does not start.
    ///
    /// # Panics
    /// There is no such place.
    pub fn swap(&mut self, link: usize, by: &G::Replacement) -> Result<(), InitError> {
        let link = &mut self.links[link];
        link.guest.replace(by)?;
        link.guilty = 0;
        Ok(())
    }

    /// The guest at place `link`.
    #[cfg(test)]
    pub(super) fn guest(&self, link: usize) -> &G {
        &self.links[link].guest
    }

    /// How many transforms there are.
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// Whether there is no transform.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    fn before(
        &self,
        link: usize,
        records: Range<u32>,
        rows: Vec<Origins>,
        failed: Vec<Failed>,
        outputs: Vec<Arc<Output>>,
    ) -> Task {
        let time = self.links.get(link).map_or(Duration::ZERO, |link| link.guest.time_per_batch());
        Task { link, records, rows, failed, outputs, time }
    }

    fn go_on(
        &mut self,
        link: usize,
        records: Range<u32>,
        rows: Vec<Origins>,
        failed: Vec<Failed>,
        outputs: Vec<Arc<Output>>,
    ) -> Step {
        if rows.is_empty() || link == self.links.len() {
            return Step::Part(Part::new(records, rows, failed, outputs));
        }
        let task = self.before(link, records, rows, failed, outputs);
        self.stack.push(task);
        Step::Again
    }
}

impl<G: Guest> Link<G> {
    /// What is wrong with the record that alone makes the guest fail.
    fn failed_at(&mut self, error: &CallError) -> Result<BadRecord, ChainFailure> {
        let name = self.guest.name();
        self.guilty = self.guilty.saturating_add(1);
        if self.guilty > self.guest.max_failures() {
            let (name, records) = (name.to_owned(), self.guilty);
            return Err(ChainFailure::TooManyFailures {
                name,
                records,
                why: in_one_line(&error.to_string()),
            });
        }
        let class = match error {
            CallError::Init(_) => "transform.init",
            CallError::Trap { .. } => "transform.trap",
            CallError::TooSlow { .. } => "transform.too_slow",
            CallError::TooMuchMemory { .. } => "transform.too_much_memory",
            CallError::Malformed { .. } => "transform.malformed",
            CallError::Refused { .. } => "transform.refused",
        };
        let mut why =
            BadRecord::new(class, "", in_one_line(&format!("the transform {name} failed: {error}")));
        if let CallError::Trap { backtrace: Some(backtrace), .. } = error {
            why.trace = Some(backtrace.as_str().into());
        }
        Ok(why)
    }
}

impl Task {
    fn into_part(self) -> Part {
        Part::new(self.records, self.rows, self.failed, self.outputs)
    }

    /// Puts rows into the batch, whole records only; answers how many.
    fn fill(&self, batch: &mut Batch, needs: Needs, input: &impl Input) -> usize {
        batch.clear(needs);
        for (index, origins) in self.rows.iter().enumerate() {
            let begins = index > 0 && self.rows[index - 1].record != origins.record;
            if begins && batch.size() >= BATCH_BYTES {
                return index;
            }
            let place = origins.record as usize;
            let row = Row::new(origins, &self.outputs);
            let mut record = input.record(place);
            if let Some(topic) = row.topic() {
                record.topic = topic;
            }
            if let Some(key) = row.key() {
                record.key = key;
            }
            if let Some(value) = row.value() {
                record.value = value;
            }
            match row.headers().filter(|_| needs.headers) {
                Some(headers) => batch.push(&record, headers),
                None => batch.push(&record, input.headers(place)),
            }
        }
        self.rows.len()
    }

    /// Where to halve it: the first row of a record, near the middle. `None` where there is one record alone.
    fn middle(&self) -> Option<usize> {
        let half = self.rows.len() / 2;
        let begins = |&index: &usize| self.rows[index].record != self.rows[index - 1].record;
        let before = (1..=half).rev().find(begins);
        let behind = (half + 1..self.rows.len()).find(begins);
        match (before, behind) {
            (Some(before), Some(behind)) if behind - half < half - before => Some(behind),
            (before, behind) => before.or(behind),
        }
    }

    /// Takes away the rows from `row` on, with all that belongs to their records.
    fn split_off(&mut self, row: usize) -> Self {
        let rows = self.rows.split_off(row);
        let record = rows.first().map_or(self.records.end, |row| row.record);
        let failed = self.failed.split_off(self.failed.partition_point(|failed| failed.record < record));
        let records = record..self.records.end;
        self.records.end = record;
        Self { link: self.link, records, rows, failed, outputs: self.outputs.clone(), time: self.time }
    }
}

/// The rows and bad records behind a link.
fn advance(
    link: usize,
    rows: &[Origins],
    failed: Vec<Failed>,
    output: &Output,
    name: &str,
) -> (Vec<Origins>, Vec<Failed>) {
    let link = u32::try_from(link).unwrap_or(u32::MAX);
    let sources = output.sources().iter().zip(0_u32..);
    let made =
        sources.filter_map(|(&source, row)| Some(rows.get(source as usize)?.through(link, row, output)));
    if output.failures().is_empty() {
        return (made.collect(), failed);
    }
    let mut all = failed;
    for RecordFailure { record, code, message } in output.failures() {
        let Some(row) = rows.get(*record as usize) else { continue };
        let place = all.partition_point(|other| other.record < row.record);
        // Of several rows of one record the first that failed says why.
        if all.get(place).is_none_or(|other| other.record != row.record) {
            let message = in_one_line(&format!("the transform {name}: {message}"));
            let why =
                BadRecord { class: Cow::Owned(code.clone()), path: String::new(), message, trace: None };
            all.insert(place, Failed { record: row.record, why });
        }
    }
    // All rows of a record stand or fall together.
    let stands = |row: &Origins| all.binary_search_by_key(&row.record, |failed| failed.record).is_err();
    (made.filter(stands).collect(), all)
}

/// `rows` rows' share of the time of `total` rows.
fn share(time: Duration, rows: usize, total: usize) -> Duration {
    time.mul_f64(rows as f64 / total.max(1) as f64)
}

/// Text without line breaks and other characters that steer, and not endless.
fn in_one_line(text: &str) -> String {
    let mut line = String::new();
    for character in text.chars() {
        if line.len() >= LONGEST_MESSAGE {
            line.push('…');
            break;
        }
        if character.is_control() { line.push(' ') } else { line.push(character) }
    }
    line
}
