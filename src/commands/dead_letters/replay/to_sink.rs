//! Letters on their way through the pipeline: decoded, validated, transformed, encoded and written again, as records of
//! the topic, partition and offset that they came from.
//!
//! Written at least once, whatever the pipeline's own `delivery` is: its positions are about other records.

mod tables;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bumpalo::Bump;
use tokio::runtime::Runtime;
use txconnect_connector_api::{BadRecord, Encoded, Protocol};
use txconnect_transform_host::{InputRecord, LogLevel, Reports};

use super::super::letter::Place;
use super::super::wording::shown;
use super::super::{CommandError, Opened, PipelineArguments, load};
use super::send::{Destination, Going};
use crate::commands::say;
use crate::config::{Decode, Pipeline, TransformSettings};
use crate::stages::decode::Format;
use crate::stages::transform::guest::WasmGuest;
use crate::stages::transform::{Chain, Input, Outcome, Part, Row, Step, unlisted_topic};
use crate::stages::{Stage, read};
use crate::terminal::numbers::counted;

use self::tables::{LetterRows, Placed, Tables};

/// The most kinds of mistakes that are told apart.
const MOST_KINDS: usize = 50;

/// The stages and the sink of the pipeline.
pub(super) struct Stages<'a> {
    pipeline: Pipeline,
    /// What letters pass through; `None` where they become rows as they are.
    chain: Option<Chain<WasmGuest>>,
    tables: Tables<'a>,
    rows: LetterRows,
    arena: Bump,
    failures: Failures,
}

/// A mistake, and the stage that has found it.
type Mistake = (Stage, BadRecord);

/// What is wrong with letters that failed again, how often, and where first.
#[derive(Default)]
pub(super) struct Failures(BTreeMap<String, (u64, Place)>);

impl Failures {
    pub(super) fn add(&mut self, letter: &Going<'_>, (stage, why): &Mistake) {
        let kind = format!("{}: {}: {}", stage.name(), why.class, shown(&why.message));
        let kind = if self.0.len() < MOST_KINDS || self.0.contains_key(&kind) {
            kind
        } else {
            "further mistakes".to_owned()
        };
        self.0.entry(kind).or_insert_with(|| (0, letter.letter.place())).0 += 1;
    }

    fn told(&self) -> Vec<String> {
        let told = |(kind, (count, place)): (&String, &(u64, Place))| {
            format!("{} failed again, the first at {place}: {kind}", counted(*count, "letter", "letters"))
        };
        self.0.iter().map(told).collect()
    }
}

/// What transforms say of letters; what they count belongs to the books of a running pipeline.
struct Said(String);

impl Reports for Said {
    fn log(&self, level: LogLevel, message: &str) {
        if level >= LogLevel::Warn {
            say(&format!("{}: {}", shown(&self.0), shown(message)));
        }
    }

    fn count(&self, _: &str, _: u64) {}
}

/// The letters that the transforms see.
struct Good<'a> {
    letters: &'a [Going<'a>],
    indices: &'a [usize],
}

impl Input for Good<'_> {
    fn record(&self, index: usize) -> InputRecord<'_> {
        original(&self.letters[self.indices[index]])
    }

    fn headers(&self, index: usize) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.letters[self.indices[index]].letter.own_headers()
    }
}

/// The letter's record, where it stood.
fn original<'l>(going: &Going<'l>) -> InputRecord<'l> {
    InputRecord {
        topic: going.topic,
        partition: going.partition.unwrap_or(0),
        offset: going.letter.origin().and_then(|origin| origin.offset).unwrap_or(0),
        timestamp: going.letter.timestamp,
        key: going.letter.key,
        value: going.letter.value,
    }
}

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
        let chain = if pipeline.transforms.is_empty() && pipeline.output.is_none() {
            None
        } else {
            let reports = |name: &str| Arc::new(Said(name.to_owned())) as Arc<dyn Reports>;
            let chain = Chain::start(&patient(&pipeline.transforms), reports);
            Some(chain.map_err(CommandError::failed)?)
        };
        let tables = Tables::new(&pipeline, runtime, ended);
        let (rows, failures) = (LetterRows::default(), Failures::default());
        Ok(Self { pipeline, chain, tables, rows, arena: Bump::new(), failures })
    }

    /// What was wrong with the letters that failed again.
    pub(super) fn failed(&self) -> Vec<String> {
        self.failures.told()
    }

    fn format(&self) -> Format {
        match self.pipeline.decode {
            Decode::Json => Format::Json,
            Decode::String => Format::Text,
            Decode::Bytes => Format::Bytes,
        }
    }

    /// Decodes and validates the letters as they came, and brings the good ones through the transforms and on.
    fn transform(&mut self, letters: &[Going<'_>], arrived: &mut Vec<usize>) -> Result<(), CommandError> {
        let mut indices = Vec::with_capacity(letters.len());
        for (at, going) in letters.iter().enumerate() {
            self.arena.reset();
            let schema = self.pipeline.schema_for(going.topic).map_err(CommandError::failed)?;
            let validator = schema.as_ref().map(|schema| &schema.validator);
            match read(self.format(), validator, going.letter.value, &self.arena) {
                Ok(_) => indices.push(at),
                Err(mistake) => self.failures.add(going, &mistake),
            }
        }
        let Some(chain) = &mut self.chain else { return Ok(()) };
        chain.begin(indices.len());
        loop {
            let Some(chain) = &mut self.chain else { return Ok(()) };
            match chain.step(&Good { letters, indices: &indices }).map_err(CommandError::failed)? {
                Step::Done => return Ok(()),
                Step::Again => {}
                Step::Part(mut part) => {
                    let mut record = part.records().start;
                    while let Some(outcome) = part.take_next() {
                        let at = indices[record];
                        record += 1;
                        match outcome {
                            Outcome::Bad(why) => {
                                self.failures.add(&letters[at], &(Stage::Transform, why));
                            }
                            Outcome::Rows(rows) => self.take(letters, at, Some((&part, rows)), arrived)?,
                        }
                    }
                }
            }
        }
    }

    /// Encodes a letter, or what transforms have made of it, and puts the rows into their batches. Rows that leave no
    /// room for them are written before.
    fn take(
        &mut self,
        letters: &[Going<'_>],
        at: usize,
        made: Option<(&Part, Range<usize>)>,
        arrived: &mut Vec<usize>,
    ) -> Result<(), CommandError> {
        let going = &letters[at];
        let mut rows = std::mem::take(&mut self.rows);
        rows.clear();
        let encoded = match made {
            None => self.encode(going, None, &mut rows)?,
            Some((part, made)) => {
                let mut encoded = Ok(());
                for (row, number) in made.zip(0_u32..) {
                    encoded = self.encode(going, Some((part.row(row), number)), &mut rows)?;
                    if encoded.is_err() {
                        break;
                    }
                }
                encoded
            }
        };
        match encoded {
            Err(mistake) => self.failures.add(going, &mistake),
            Ok(()) if rows.is_empty() => arrived.push(at),
            Ok(()) => match self.tables.place(&rows, letters, at, arrived, &mut self.failures)? {
                Placed::InBatches => {}
                Placed::TooLarge(why) => self.failures.add(going, &(Stage::Transform, why)),
            },
        }
        self.rows = rows;
        Ok(())
    }

    /// Encodes one row. The outer error ends the replay, the inner one is a mistake of the letter.
    fn encode(
        &mut self,
        going: &Going<'_>,
        row: Option<(Row<'_>, u32)>,
        rows: &mut LetterRows,
    ) -> Result<Result<(), Mistake>, CommandError> {
        let name = row.and_then(|(row, _)| row.topic()).unwrap_or(going.topic);
        if name != going.topic && !self.pipeline.routes.iter().any(|route| route == name) {
            return Ok(Err((Stage::Transform, unlisted_topic(name))));
        }
        let format = self.format();
        let table = self.tables.prepare(&self.pipeline, name, row.is_some())?;
        self.arena.reset();
        let start = rows.bytes().len();
        let making = self.tables.making(table, format);
        let headers = going.letter.own_headers();
        match making.encode(&original(going), headers, row, &self.arena, rows.bytes()) {
            Ok(Encoded::Row) => rows.end_row(table, start),
            Ok(Encoded::Filtered) => rows.bytes().truncate(start),
            Err(mistake) => return Ok(Err(mistake)),
        }
        Ok(Ok(()))
    }
}

/// Letters are the records at which a transform has failed: however many of them follow one another, each is told.
fn patient(transforms: &[TransformSettings]) -> Vec<TransformSettings> {
    let mut transforms = transforms.to_vec();
    for settings in &mut transforms {
        settings.limits.max_failures = u32::MAX;
    }
    transforms
}

impl Destination for Stages<'_> {
    fn deliver(&mut self, letters: &[Going<'_>], arrived: &mut Vec<usize>) -> Result<(), CommandError> {
        if self.chain.is_some() {
            self.transform(letters, arrived)?;
        } else {
            for at in 0..letters.len() {
                self.take(letters, at, None, arrived)?;
            }
        }
        self.tables.write(letters, arrived, &mut self.failures)
    }
}
