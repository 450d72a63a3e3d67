//! Letters on their way through the pipeline: decoded, validated, encoded and written again, as records of the topic,
//! partition and offset that they came from.
//!
//! Written at least once, whatever the pipeline's own `delivery` is: its positions are about other records.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bumpalo::Bump;
use tokio::runtime::Runtime;
use txconnect_connector_api::batch::Row;
use txconnect_connector_api::{
    BadRecord, Batch, Encoded, Encoder, Header, Protocol, Record, RowSource, SinkError, Value, Writer,
};

use super::super::letter::Place;
use super::super::wording::shown;
use super::super::{CommandError, Opened, PipelineArguments, load};
use super::send::{Destination, Going};
use crate::commands::say;
use crate::config::{Decode, Pipeline, TopicSchema};
use crate::stages::decode::{Format, decode};
use crate::terminal::numbers::counted;

/// How long the sink may be away.
const PATIENCE: Duration = Duration::from_mins(5);
/// The pauses between attempts: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// The most kinds of mistakes that are told apart.
const MOST_KINDS: usize = 50;

/// The stages and the sink of the pipeline.
pub(super) struct Stages<'a> {
    pipeline: Pipeline,
    runtime: &'a Runtime,
    ended: &'a AtomicBool,
    writer: Box<dyn Writer>,
    topics: HashMap<String, Topic>,
    arena: Bump,
    /// What is wrong with letters that failed again, how often, and where first.
    failed: BTreeMap<String, (u64, Place)>,
}

/// What turns the records of one topic into rows.
struct Topic {
    schema: Option<std::sync::Arc<TopicSchema>>,
    encoder: Box<dyn Encoder>,
    batch: Batch,
}

/// A mistake, and the stage that has found it.
type Mistake = (&'static str, BadRecord);

impl<'a> Stages<'a> {
    pub(super) fn open(
        opened: &Opened,
        arguments: &PipelineArguments,
        runtime: &'a Runtime,
        ended: &'a AtomicBool,
    ) -> Result<Self, CommandError> {
        let _entered = runtime.enter();
        let overrides = match opened.pipeline.sink.protocol() {
            Protocol::AtLeastOnce => Vec::new(),
            Protocol::OffsetsInSink | Protocol::TwoPhase => {
                vec![format!("sink.{}.delivery=at_least_once", opened.pipeline.sink.name())]
            }
        };
        let pipeline = load(arguments, &overrides)?;
        let writer = pipeline.sink.writer(&pipeline.name);
        let (topics, failed) = (HashMap::new(), BTreeMap::new());
        Ok(Self { pipeline, runtime, ended, writer, topics, arena: Bump::new(), failed })
    }

    /// What was wrong with the letters that failed again.
    pub(super) fn failed(&self) -> Vec<String> {
        let told = |(kind, (count, place)): (&String, &(u64, Place))| {
            format!("{} failed again, the first at {place}: {kind}", counted(*count, "letter", "letters"))
        };
        self.failed.iter().map(told).collect()
    }

    fn fails(&mut self, letter: &Going<'_>, (stage, why): Mistake) {
        let kind = format!("{stage}: {}: {}", why.class, shown(&why.message));
        let kind = if self.failed.len() < MOST_KINDS || self.failed.contains_key(&kind) {
            kind
        } else {
            "further mistakes".to_owned()
        };
        self.failed.entry(kind).or_insert_with(|| (0, letter.letter.place())).0 += 1;
    }

    /// Makes the table and the encoder of a topic ready.
    fn prepare(&mut self, name: &str) -> Result<(), CommandError> {
        if self.topics.contains_key(name) {
            return Ok(());
        }
        let schema = self.pipeline.schema_for(name).map_err(CommandError::failed)?;
        let columns = schema.as_ref().and_then(|schema| schema.table.as_ref());
        let sink = &self.pipeline.sink;
        let mut waiting = Waiting::new(self.ended);
        while let Err(error) = self.runtime.block_on(sink.prepare(name, columns)) {
            waiting.after(error)?;
        }
        let encoder = sink.encoder(name, columns).map_err(|error| sink_failed(&error))?;
        let batch = Batch::new(sink.table(name));
        self.topics.insert(name.to_owned(), Topic { schema, encoder, batch });
        Ok(())
    }

    /// Encodes the letter as a row of its topic's batch. Rows that leave no room for it are written before.
    fn take(
        &mut self,
        letters: &[Going<'_>],
        at: usize,
        arrived: &mut Vec<usize>,
    ) -> Result<(), CommandError> {
        let going = &letters[at];
        self.prepare(going.topic)?;
        self.arena.reset();
        let format = match self.pipeline.decode {
            Decode::Json => Format::Json,
            Decode::String => Format::Text,
            Decode::Bytes => Format::Bytes,
        };
        let limits = self.pipeline.sink.limits();
        let Some(topic) = self.topics.get_mut(going.topic) else { return Ok(()) };
        let start = topic.batch.bytes.len();
        match stages(topic, going, format, &self.arena) {
            Ok(Encoded::Filtered) => {
                topic.batch.bytes.truncate(start);
                arrived.push(at);
                Ok(())
            }
            Err(mistake) => {
                topic.batch.bytes.truncate(start);
                self.fails(going, mistake);
                Ok(())
            }
            Ok(Encoded::Row) => {
                let most = limits.request_bytes.min(self.pipeline.batch.bytes.as_usize());
                let most = most.saturating_sub(topic.encoder.envelope_bytes());
                let rows = limits.request_rows.min(self.pipeline.batch.rows.get() as usize).max(1);
                let apart = !limits.batches_mix_partitions
                    && topic.batch.rows.last().is_some_and(|row| {
                        letters
                            .get(row.source.record as usize)
                            .is_some_and(|last| last.partition != going.partition)
                    });
                if start > 0 && (topic.batch.bytes.len() > most || topic.batch.rows.len() >= rows || apart) {
                    let row = topic.batch.bytes.split_off(start);
                    self.write(going.topic, letters, arrived)?;
                    let Some(topic) = self.topics.get_mut(going.topic) else { return Ok(()) };
                    topic.batch.bytes = row;
                }
                let Some(topic) = self.topics.get_mut(going.topic) else { return Ok(()) };
                let end = topic.batch.bytes.len();
                let offset = going.letter.origin().and_then(|origin| origin.offset).unwrap_or(-1);
                let slot = going.partition.and_then(|number| number.try_into().ok()).unwrap_or(0);
                let record = u32::try_from(at).unwrap_or(u32::MAX);
                topic.batch.rows.push(Row { end, source: RowSource { slot, offset, record } });
                Ok(())
            }
        }
    }

    /// Writes the rows of a topic and waits until they are durable.
    fn write(
        &mut self,
        name: &str,
        letters: &[Going<'_>],
        arrived: &mut Vec<usize>,
    ) -> Result<(), CommandError> {
        let Some(topic) = self.topics.get_mut(name) else { return Ok(()) };
        let mut batch = std::mem::replace(&mut topic.batch, Batch::new(self.pipeline.sink.table(name)));
        if batch.is_empty() {
            return Ok(());
        }
        topic.encoder.seal(&mut batch);
        let mut batches = [batch];
        let mut waiting = Waiting::new(self.ended);
        loop {
            let before: Vec<usize> = records(&batches[0]);
            let result = self.runtime.block_on(self.writer.write(&mut batches, &[]));
            match result {
                Ok(()) => {
                    arrived.extend(before);
                    return Ok(());
                }
                Err(error) => {
                    // What the writer has cut out is durable.
                    let left = records(&batches[0]);
                    arrived.extend(before.into_iter().filter(|at| !left.contains(at)));
                    match error {
                        SinkError::Rejected { rows } => {
                            let refused: Vec<(usize, BadRecord)> = rows
                                .into_iter()
                                .filter(|rejected| rejected.batch == 0)
                                .filter_map(|rejected| Some((*left.get(rejected.row)?, rejected.why)))
                                .collect();
                            if refused.is_empty() {
                                return Err(CommandError::Failed(
                                    "the sink refused rows without naming any".to_owned(),
                                ));
                            }
                            batches[0].retain_rows(|row, _| {
                                left.get(row).is_none_or(|at| !refused.iter().any(|(bad, _)| bad == at))
                            });
                            for (at, why) in refused {
                                self.fails(&letters[at], ("write", why));
                            }
                            if batches[0].is_empty() {
                                return Ok(());
                            }
                        }
                        error => waiting.after(error)?,
                    }
                }
            }
        }
    }
}

/// The letters that the rows of a batch were made from.
fn records(batch: &Batch) -> Vec<usize> {
    batch.rows.iter().map(|row| row.source.record as usize).collect()
}

/// Runs one letter through decode, validate and encode.
fn stages(topic: &mut Topic, going: &Going<'_>, format: Format, arena: &Bump) -> Result<Encoded, Mistake> {
    let letter = going.letter;
    let value = decode(format, letter.value, arena).map_err(|why| ("decode", why))?;
    if let (Some(schema), Value::Json { document, .. }) = (&topic.schema, &value) {
        schema.validator.validate(document).map_err(|why| ("validate", why))?;
    }
    let headers: Vec<Header<'_>> = letter.own_headers().map(|(name, value)| Header { name, value }).collect();
    let record = Record {
        topic: going.topic,
        partition: going.partition.unwrap_or(0),
        offset: letter.origin().and_then(|origin| origin.offset).unwrap_or(0),
        row: 0,
        timestamp: letter.timestamp,
        key: letter.key,
        headers: &headers,
        value,
    };
    topic.encoder.encode(&record, &mut topic.batch.bytes).map_err(|why| ("encode", why))
}

impl Destination for Stages<'_> {
    fn deliver(&mut self, letters: &[Going<'_>], arrived: &mut Vec<usize>) -> Result<(), CommandError> {
        for at in 0..letters.len() {
            self.take(letters, at, arrived)?;
        }
        let mut names: Vec<&str> = letters.iter().map(|going| going.topic).collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().try_for_each(|name| self.write(name, letters, arrived))
    }
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
