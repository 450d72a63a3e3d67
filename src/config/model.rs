//! The pipeline file as types: what a user may write, and what is left of it once everything is checked.
//!
//! [`PipelineFile`] is the one truth about the file's shape. The JSON Schema that a file is checked against
//! is generated from it, and the comments on its fields are the user's documentation.

use std::collections::BTreeMap;
use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use txconnect_connector_api::schema::UnknownFields;
use txconnect_connector_api::{ByteSize, HumanDuration, Sink};
use txconnect_kafka::KafkaSourceConfig;
use txconnect_transform_host::{Limits, Module, TransformConfig};

use super::diagnose::Mistake;
use super::registry::{SinkBlock, TableDemands};
use super::schema_file::{SchemaError, TopicSchema, read_schema};
use super::template::TopicTemplate;

/// One pipeline: records of Kafka topics on their way into one sink.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PipelineFile {
    /// The pipeline's name in logs, metrics and the default consumer group. Default: the file's name without
    /// its ending.
    pub name: Option<PipelineName>,
    /// Where the records come from.
    pub source: Source,
    /// What a record's value is: `json`, `string` (UTF-8 text) or `bytes`. Default: `json`.
    #[schemars(default)]
    pub decode: Decode,
    /// The JSON Schema that records must follow. Without it, records are not validated.
    pub validate: Option<Validate>,
    /// What records pass through on their way, in this order.
    #[schemars(default)]
    pub transform: Vec<TransformConfig>,
    /// What leaves the last transform, where transforms change the records' shape or topic.
    pub output: Option<Output>,
    /// What becomes of a record that cannot be decoded, is not valid, cannot be transformed, or is refused by the sink.
    /// One word for all stages, or a mapping with `decode`, `validate`, `transform` and `sink`. Default: `dead_letter`
    /// where `dead_letters` is set, else `stop`.
    #[schemars(default)]
    pub on_error: OnErrorSetting,
    /// When a batch of rows is closed and sent: on rows, bytes or linger, whichever comes first.
    #[schemars(default)]
    pub batch: BatchLimits,
    /// Where bad records go. Without it, no dead letters are written.
    pub dead_letters: Option<DeadLetters>,
    /// How much memory records may take: prefetched, in open batches and on their way. At least four times
    /// `batch.bytes`. Default: `48MiB`.
    #[schemars(default = "default_memory")]
    pub memory: ByteSize,
    /// How many threads take records. Default: the least of 4, the number of cores and the number of
    /// partitions.
    pub lanes: Option<NonZeroU16>,
    /// How long the sink or the dead letter topic may be away before the pipeline counts as stalled: it says so once as
    /// an error, and goes on trying. Default: `60s`.
    #[schemars(default = "default_stalled_after")]
    pub stalled_after: HumanDuration,
    /// Where the rows go.
    pub sink: SinkBlock,
}

fn default_stalled_after() -> HumanDuration {
    PipelineFile::DEFAULT_STALLED_AFTER
}

fn default_memory() -> ByteSize {
    PipelineFile::DEFAULT_MEMORY
}

impl PipelineFile {
    /// The default of `memory`.
    pub(super) const DEFAULT_MEMORY: ByteSize = ByteSize(48 << 20);

    /// The default of `stalled_after`.
    pub(super) const DEFAULT_STALLED_AFTER: HumanDuration = HumanDuration(Duration::from_mins(1));
}

/// A name of small letters, digits, `.`, `_` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(transparent)]
pub struct PipelineName(pub String);

impl PipelineName {
    /// Whether `text` may be the name of a pipeline.
    pub fn is_name(text: &str) -> bool {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
        !text.is_empty() && text.len() <= 100 && text.chars().all(fits)
    }
}

impl JsonSchema for PipelineName {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PipelineName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A name of at most 100 small letters, digits, `.`, `_` and `-`",
            "pattern": "^[a-z0-9._-]{1,100}$",
        })
    }
}

/// Where the records come from.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Topics of a Kafka cluster.
    pub kafka: KafkaSourceConfig,
}

/// What a record's value is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Decode {
    /// One JSON document.
    #[default]
    Json,
    /// UTF-8 text.
    String,
    /// Any bytes.
    Bytes,
}

/// The JSON Schema that records must follow.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Validate {
    /// The schema's file; `{topic}` stands for the record's topic. Relative to the folder of the pipeline
    /// file, or to its parent where that folder is named `pipelines`.
    pub schema: TopicTemplate,
    /// What becomes of a record with a field that the schema allows but no column takes: `dead_letter`
    /// makes it a bad record, `ignore` leaves the field out and counts it. Default: `dead_letter`.
    #[serde(default)]
    pub unknown_fields: UnknownFieldsSetting,
}

/// What leaves the last transform.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// The schema of what leaves the last transform: it is validated, and these are the table's columns. `{topic}`
    /// stands for the topic after routing. Default: the columns of `validate`, and nothing is validated again.
    pub schema: Option<TopicTemplate>,
    /// As in `validate`.
    #[serde(default)]
    pub unknown_fields: UnknownFieldsSetting,
    /// Topics that a transform may route records to, beside the records' own. They name tables and schemas; nothing is
    /// written to Kafka.
    #[serde(default)]
    pub topics: Vec<String>,
}

/// What becomes of a field that no column takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnknownFieldsSetting {
    /// The record is a bad record.
    #[default]
    DeadLetter,
    /// The field is left out and counted.
    Ignore,
}

impl From<UnknownFieldsSetting> for UnknownFields {
    fn from(setting: UnknownFieldsSetting) -> Self {
        match setting {
            UnknownFieldsSetting::DeadLetter => UnknownFields::DeadLetter,
            UnknownFieldsSetting::Ignore => UnknownFields::Ignore,
        }
    }
}

/// What becomes of a bad record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reaction {
    /// It goes to the dead letter topic, unchanged and with the reason in its headers.
    DeadLetter,
    /// It is left out and counted.
    Skip,
    /// The pipeline stops before it.
    Stop,
}

/// What becomes of a bad record, stage by stage. A stage that is not named follows the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnErrorSetting {
    /// The value cannot be decoded.
    pub decode: Option<Reaction>,
    /// The value does not follow the schema, before the transforms or after them.
    pub validate: Option<Reaction>,
    /// A transform refuses the record or fails at it.
    pub transform: Option<Reaction>,
    /// The record cannot become a row, or the server refuses the row.
    pub sink: Option<Reaction>,
}

/// The mapping form of `on_error`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ByStage {
    /// The value cannot be decoded.
    decode: Option<Reaction>,
    /// The value does not follow the schema, before the transforms or after them.
    validate: Option<Reaction>,
    /// A transform refuses the record or fails at it.
    transform: Option<Reaction>,
    /// The record cannot become a row, or the server refuses the row.
    sink: Option<Reaction>,
}

impl<'de> Deserialize<'de> for OnErrorSetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrMapping;

        impl<'de> Visitor<'de> for WordOrMapping {
            type Value = OnErrorSetting;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("dead_letter, skip, stop or a mapping by stage")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<OnErrorSetting, E> {
                let reaction = Some(Reaction::deserialize(de::value::StrDeserializer::new(word))?);
                Ok(OnErrorSetting {
                    decode: reaction,
                    validate: reaction,
                    transform: reaction,
                    sink: reaction,
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OnErrorSetting, A::Error> {
                let ByStage { decode, validate, transform, sink } =
                    ByStage::deserialize(MapAccessDeserializer::new(map))?;
                Ok(OnErrorSetting { decode, validate, transform, sink })
            }
        }

        deserializer.deserialize_any(WordOrMapping)
    }
}

impl JsonSchema for OnErrorSetting {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "OnError".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let word = generator.subschema_for::<Reaction>();
        let by_stage = generator.subschema_for::<ByStage>();
        json_schema!({ "anyOf": [word, by_stage] })
    }
}

/// When a batch is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchLimits {
    /// The most rows in one batch. Default: `500`, in the Postgres sink more: what it says.
    pub rows: NonZeroU32,
    /// The most bytes in one batch, in the sink's wire format before compression. Default: `8MiB`, or the
    /// sink's limit where that is lower.
    pub bytes: ByteSize,
    /// How long the first row of a batch may wait. Default: `1s`.
    pub linger: HumanDuration,
}

impl Default for BatchLimits {
    fn default() -> Self {
        const ROWS: NonZeroU32 = match NonZeroU32::new(500) {
            Some(rows) => rows,
            None => NonZeroU32::MIN,
        };
        Self { rows: ROWS, bytes: ByteSize(8 << 20), linger: HumanDuration(Duration::from_secs(1)) }
    }
}

/// Where bad records go.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeadLetters {
    /// The topic; `{topic}` stands for the record's own topic. It is made if it is missing.
    pub topic: TopicTemplate,
    /// How many partitions a topic made here gets. Default: as many as the record's own topic.
    pub partitions: Option<NonZeroU16>,
    /// How many replicas a topic made here gets. Default: the broker's.
    pub replication: Option<NonZeroU16>,
}

/// A pipeline whose file holds no mistake.
pub struct Pipeline {
    /// The pipeline's name, unique among the files loaded together.
    pub name: String,
    /// The file it was read from.
    pub file: PathBuf,
    /// What relative paths in the file start from.
    pub base_dir: PathBuf,
    /// Where the records come from.
    pub source: KafkaSourceConfig,
    /// The consumer group.
    pub group: String,
    /// What a record's value is.
    pub decode: Decode,
    /// How records are validated, if they are.
    pub validate: Option<ValidateSettings>,
    /// What records pass through, in this order.
    pub transforms: Vec<TransformSettings>,
    /// The schema of what leaves the last transform, where it has one of its own.
    pub output: Option<ValidateSettings>,
    /// Topics that transforms may route records to, beside the records' own.
    pub routes: Vec<String>,
    /// What becomes of a bad record.
    pub on_error: OnError,
    /// When a batch is closed.
    pub batch: BatchLimits,
    /// Where bad records go. Always set where a reaction in `on_error` is [`Reaction::DeadLetter`].
    pub dead_letters: Option<DeadLetters>,
    /// The memory that records may take.
    pub memory: ByteSize,
    /// The number of lanes, where the user has named one.
    pub lanes: Option<NonZeroU16>,
    /// How long the sink may be away before the pipeline counts as stalled.
    pub stalled_after: HumanDuration,
    /// Where the rows go.
    pub sink: Arc<dyn Sink>,
    /// What looks wrong but may be meant.
    pub warnings: Vec<Mistake>,
    /// Schemas of the listed topics and, where [`Self::output`] has none, of the routes: read once so that all lanes
    /// agree.
    pub(super) schemas: BTreeMap<String, Arc<TopicSchema>>,
    /// The same for what leaves the last transform; empty without [`Self::output`].
    pub(super) output_schemas: BTreeMap<String, Arc<TopicSchema>>,
    /// What the sink asks of a topic's schema.
    pub(super) demands: TableDemands,
}

/// How records are validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidateSettings {
    /// The schema's file with the variable `{topic}`; relative to [`Pipeline::base_dir`].
    pub schema: TopicTemplate,
    /// What becomes of fields that no column takes.
    pub unknown_fields: UnknownFields,
}

/// One transform of a pipeline.
#[derive(Clone)]
pub struct TransformSettings {
    /// The guest, compiled.
    pub module: Arc<Module>,
    /// What it is given.
    pub config: Option<serde_json::Value>,
    /// What it may use up.
    pub limits: Limits,
}

/// What becomes of a bad record, by the stage that finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnError {
    /// The value cannot be decoded.
    pub decode: Reaction,
    /// The value does not follow the schema, before the transforms or after them.
    pub validate: Reaction,
    /// A transform refuses the record or fails at it.
    pub transform: Reaction,
    /// The record cannot become a row, or the server refuses the row.
    pub sink: Reaction,
}

impl Pipeline {
    /// The validator and the columns for records of `topic`, or `None` where the pipeline does not validate.
    ///
    /// Schemas of listed topics were read and checked when the pipeline was loaded; those of topics that a
    /// pattern found are read now, which touches the disk.
    ///
    /// # Errors
    /// The schema's file is missing, is not a JSON Schema, or gives no table that the sink accepts.
    pub fn schema_for(&self, topic: &str) -> Result<Option<Arc<TopicSchema>>, SchemaError> {
        let Some(validate) = &self.validate else { return Ok(None) };
        if let Some(schema) = self.schemas.get(topic) {
            return Ok(Some(Arc::clone(schema)));
        }
        // What a transform changes before it reaches the sink need not suit the sink as it comes.
        let none = TableDemands::none();
        let demands = if self.output.is_some() { &none } else { &self.demands };
        read_schema(topic, validate, &self.base_dir, demands).map(|schema| Some(Arc::new(schema)))
    }

    /// The validator and the columns for rows of `topic`: those of [`Self::output`], else those that records of the
    /// topic have before the transforms.
    ///
    /// # Errors
    /// As [`Self::schema_for`].
    pub fn output_schema_for(&self, topic: &str) -> Result<Option<Arc<TopicSchema>>, SchemaError> {
        let Some(output) = &self.output else { return self.schema_for(topic) };
        if let Some(schema) = self.output_schemas.get(topic) {
            return Ok(Some(Arc::clone(schema)));
        }
        read_schema(topic, output, &self.base_dir, &self.demands).map(|schema| Some(Arc::new(schema)))
    }
}

impl Pipeline {
    /// Whether a topic is read by this pipeline: listed, or matched by the pattern and no dead letter topic
    /// of a topic that the pattern matches.
    pub fn topic_filter(&self) -> impl Fn(&str) -> bool + Send + Sync + 'static {
        let filter = self.source.topic_filter();
        let by_pattern = self.source.pattern.is_some();
        let dead_letters = self.dead_letters.as_ref().map(|block| block.topic.clone()).filter(|_| by_pattern);
        move |topic| {
            let is_dead_letters = dead_letters
                .as_ref()
                .is_some_and(|template| template.is_made_of(topic, |source| filter.matches(source)));
            filter.matches(topic) && !is_dead_letters
        }
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline")
            .field("name", &self.name)
            .field("file", &self.file)
            .field("group", &self.group)
            .field("sink", &self.sink.name())
            .finish_non_exhaustive()
    }
}
