//! What one file's types cannot show: keys that must fit each other, schema files, modules, the connectors' own checks.

mod schemas;
mod transforms;

use std::ffi::OsStr;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use txconnect_connector_api::{ByteSize, ConfigProblem, SinkLimits};
use txconnect_kafka::KafkaSourceConfig;

pub(super) use self::schemas::{SchemaUse, Schemas};
pub(super) use self::transforms::CheckedOutput;
use super::diagnose::{Mistake, Place, Severity};
use super::located::{Located, Spot, child};
use super::model::{BatchLimits, DeadLetters, Decode, OnError, OnErrorSetting, PipelineName, Reaction};
use super::registry::{OpenSink, SinkBlock, SinkMistake, Surroundings};

/// Kafka's limit for the length of a topic's name.
const MAX_TOPIC_NAME: usize = 249;
/// Below this a batch holds hardly a record.
const MIN_BATCH: ByteSize = ByteSize(1 << 10);
/// `memory` holds the batch that is filled, one that is written, and as much prefetched.
const BATCHES_IN_MEMORY: u64 = 4;

/// Checks parts of one file and collects what is wrong.
pub(super) struct Checks<'c> {
    /// The file.
    pub(super) located: &'c Located,
    /// What relative paths start from.
    pub(super) base_dir: &'c Path,
    /// What has been found so far.
    pub(super) found: Vec<Mistake>,
}

impl Checks<'_> {
    fn error(&mut self, pointer: &str, spot: Spot, message: &str, help: &str) {
        self.found.push(self.located.error(pointer, spot, message, Some(help)));
    }

    fn warning(&mut self, pointer: &str, spot: Spot, message: &str, help: &str) {
        let mut mistake = self.located.error(pointer, spot, message, Some(help));
        mistake.severity = Severity::Warning;
        self.found.push(mistake);
    }

    fn problems(&mut self, block: &str, context: &str, problems: &[ConfigProblem]) {
        for problem in problems {
            let pointer = format!("{block}{}", problem.path);
            let missing = self.located.node(&pointer).is_none();
            let spot = if missing || problem.path.is_empty() { Spot::Key } else { Spot::Value };
            let message = format!("{context}{}", problem.message);
            self.found.push(self.located.error(&pointer, spot, &message, problem.help.as_deref()));
        }
    }

    /// The name that the file's name gives.
    pub(super) fn default_name(&mut self) -> Option<String> {
        let stem = self.located.file.file_stem().and_then(OsStr::to_str).unwrap_or_default();
        if PipelineName::is_name(stem) {
            return Some(stem.to_owned());
        }
        let place = Place::WholeFile(Arc::clone(&self.located.file));
        self.found.push(
            Mistake::error(place, "name", "the file's name is no name for a pipeline")
                .with_help("add `name: …`: small letters, digits, `.`, `_` and `-`"),
        );
        None
    }

    /// The source's own checks.
    pub(super) fn source(&mut self, source: &KafkaSourceConfig) {
        self.problems("/source/kafka", "", &source.problems());
    }

    /// Opens the sink, which connects to nothing.
    pub(super) fn sink(
        &mut self,
        sink: SinkBlock,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Option<OpenSink> {
        let block = child("/sink", sink.connector_name());
        let surroundings = Surroundings { base_dir: self.base_dir, environment };
        match sink.open(&surroundings) {
            Ok(open) => return Some(open),
            Err(SinkMistake::Problems(problems)) => self.problems(&block, "", &problems),
            Err(SinkMistake::Value(wrong)) => {
                let pointer = format!("{block}{}", wrong.pointer);
                self.found.push(self.located.error(&pointer, Spot::Value, &wrong.message, None));
            }
            Err(SinkMistake::Setup { cause, hint }) => {
                self.found.push(self.located.error(&block, Spot::Key, &cause, hint.as_deref()));
            }
        }
        None
    }

    /// Schemas need documents.
    pub(super) fn decode(&mut self, decode: Decode, validates: bool, has_output_schema: bool) {
        let needing = match (validates, has_output_schema) {
            _ if decode == Decode::Json => return,
            (false, false) => return,
            (true, _) => "validate",
            (false, true) => "output.schema",
        };
        self.error(
            "/decode",
            Spot::Value,
            &format!("`{needing}` needs JSON documents"),
            &format!("write `decode: json`, or remove `{needing}`"),
        );
    }

    /// What becomes of bad records. `dead_letters` says whether that block is there, where that is known.
    pub(super) fn on_error(&mut self, setting: OnErrorSetting, dead_letters: Option<bool>) -> OnError {
        let default = match dead_letters {
            Some(false) => Reaction::Stop,
            Some(true) | None => Reaction::DeadLetter,
        };
        let on_error = OnError {
            decode: setting.decode.unwrap_or(default),
            validate: setting.validate.unwrap_or(default),
            transform: setting.transform.unwrap_or(default),
            sink: setting.sink.unwrap_or(default),
        };
        let stages = [
            ("decode", on_error.decode),
            ("validate", on_error.validate),
            ("transform", on_error.transform),
            ("sink", on_error.sink),
        ];
        let needed = stages.iter().filter(|(_, reaction)| *reaction == Reaction::DeadLetter);
        if dead_letters == Some(false) {
            let mut places: Vec<String> = needed
                .map(|(stage, _)| child("/on_error", stage))
                .map(|place| if self.located.node(&place).is_some() { place } else { "/on_error".into() })
                .collect();
            places.dedup();
            for place in places {
                self.error(
                    &place,
                    Spot::Value,
                    "dead letters need a topic",
                    "add `dead_letters: { topic: \"{topic}.dead-letters\" }`, or write `skip` or `stop`",
                );
            }
        } else if dead_letters == Some(true) && needed.count() == 0 {
            self.warning(
                "/dead_letters",
                Spot::Key,
                "no record ever goes there: `on_error` names no `dead_letter`",
                "remove one of the two",
            );
        }
        on_error
    }

    /// The topics of dead letters must be possible and must not be read again.
    pub(super) fn dead_letters(&mut self, dead_letters: &DeadLetters, source: Option<&KafkaSourceConfig>) {
        const PLACE: &str = "/dead_letters/topic";
        let template = &dead_letters.topic;
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let fixed = template.for_topic("");
        if !fixed.chars().all(legal) || matches!(template.as_written(), "." | "..") {
            self.error(
                PLACE,
                Spot::Value,
                "this is not the name of a topic",
                "a topic's name holds letters, digits, `.`, `_` and `-`, and perhaps `{topic}`",
            );
            return;
        }
        let Some(source) = source else { return };
        let topics = source.topics.as_deref().unwrap_or_default();
        for topic in topics {
            let name = template.for_topic(topic);
            if name.len() > MAX_TOPIC_NAME {
                let message = format!("the name is longer than {MAX_TOPIC_NAME} characters for `{topic}`");
                self.error(PLACE, Spot::Value, &message, "choose a shorter one");
            }
            if topics.contains(&name) {
                let message = format!("dead letters of `{topic}` would go to `{name}`, which is read here");
                self.error(PLACE, Spot::Value, &message, "choose a topic that this pipeline does not read");
            }
        }
        if source.pattern.is_some() && !template.depends_on_topic() && source.topic_matches(&fixed) {
            self.error(
                PLACE,
                Spot::Value,
                "the pattern of the source matches this topic",
                "choose a topic that this pipeline does not read",
            );
        }
    }

    /// The limits of a batch, lowered to what sink and memory allow where the user has not chosen them.
    pub(super) fn batch(
        &mut self,
        batch: BatchLimits,
        memory: Option<ByteSize>,
        limits: Option<SinkLimits>,
    ) -> BatchLimits {
        let mut batch = batch;
        let given = |key: &str| self.located.node(key).is_some();
        let (rows_given, bytes_given) = (given("/batch/rows"), given("/batch/bytes"));
        if let Some(limits) = limits {
            if let Some(usual) = NonZeroU32::new(limits.usual_rows).filter(|_| !rows_given) {
                batch.rows = usual;
            }
            let most_rows = u32::try_from(limits.request_rows).unwrap_or(u32::MAX);
            if batch.rows.get() > most_rows {
                if rows_given {
                    let message = format!("the sink takes at most {most_rows} rows at once");
                    self.error("/batch/rows", Spot::Value, &message, "write a smaller number");
                } else if let Ok(rows) = most_rows.try_into() {
                    batch.rows = rows;
                }
            }
            let most_bytes = ByteSize(limits.request_bytes as u64);
            if batch.bytes > most_bytes {
                if bytes_given {
                    let message = format!("the sink takes at most {most_bytes} at once");
                    self.error("/batch/bytes", Spot::Value, &message, "write a smaller size");
                } else {
                    batch.bytes = most_bytes;
                }
            }
        }
        if bytes_given && batch.bytes < MIN_BATCH {
            let message = format!("a batch needs at least {MIN_BATCH}");
            self.error("/batch/bytes", Spot::Value, &message, "8MiB suits most");
        }
        if let Some(memory) = memory {
            self.memory(&mut batch, memory, bytes_given);
        }
        batch
    }

    fn memory(&mut self, batch: &mut BatchLimits, memory: ByteSize, bytes_given: bool) {
        let affordable = ByteSize(memory.0 / BATCHES_IN_MEMORY);
        if affordable < MIN_BATCH {
            let least = ByteSize(MIN_BATCH.0 * BATCHES_IN_MEMORY);
            let message = format!("{memory} is too little: the least is {least}");
            self.error("/memory", Spot::Value, &message, "48MiB suits most");
        } else if batch.bytes > affordable && bytes_given {
            let needed = ByteSize(batch.bytes.0.saturating_mul(BATCHES_IN_MEMORY));
            let place = if self.located.node("/memory").is_some() { "/memory" } else { "/batch/bytes" };
            let message = format!(
                "batches of {} need {needed} of memory, four times as much; `memory` is {memory}",
                batch.bytes
            );
            let help =
                format!("write `memory: {needed}` or more, or make `batch.bytes` {affordable} or less");
            self.error(place, Spot::Value, &message, &help);
        } else {
            batch.bytes = batch.bytes.min(affordable);
        }
    }
}
