//! The connectors that a pipeline file can name. Nothing else in the runtime knows them.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::json;
use serde_yaml::Value;
use txconnect_bigquery::{BigQueryConfig, BigQuerySink};
use txconnect_connector_api::{ConfigProblem, Sink, SinkError, TableSchema};
use txconnect_postgres::{PostgresConfig, PostgresSink};
use txconnect_stdout::{StdoutConfig, StdoutSink};

use super::typed::{self, WrongValue};

/// The sinks: one line each.
static SINKS: [SinkConnector; 3] = [
    SinkConnector::of::<BigQueryConfig>("bigquery"),
    SinkConnector::of::<PostgresConfig>("postgres"),
    SinkConnector::of::<StdoutConfig>("stdout"),
];

/// What surrounds a connector's block.
pub(super) struct Surroundings<'a> {
    /// What relative paths start from.
    pub(super) base_dir: &'a Path,
    /// Looks up an environment variable.
    pub(super) environment: &'a dyn Fn(&str) -> Option<String>,
}

/// What the configuration asks of a sink connector's block.
trait SinkConfig: DeserializeOwned + JsonSchema {
    /// Mistakes that the types alone cannot show.
    fn problems(&self) -> Vec<ConfigProblem>;

    /// The sink, without connecting to anything.
    fn open(self, surroundings: &Surroundings<'_>) -> Result<OpenSink, SinkError>;
}

/// A sink and what it asks of schemas.
pub(super) struct OpenSink {
    /// The sink.
    pub(super) sink: Arc<dyn Sink>,
    /// What it asks of a topic's schema.
    pub(super) demands: TableDemands,
}

/// What a sink asks of a topic's schema.
#[derive(Clone)]
pub(super) struct TableDemands {
    /// Whether records need columns.
    pub(super) columns_needed: bool,
    problems: Arc<PlanProblems>,
}

type PlanProblems = dyn Fn(&str, Option<&TableSchema>) -> Vec<ConfigProblem> + Send + Sync;

impl TableDemands {
    /// Those of a sink that takes anything.
    pub(super) fn none() -> Self {
        Self { columns_needed: false, problems: Arc::new(|_, _| Vec::new()) }
    }

    /// What keeps the sink from taking records of `topic` with these columns. Paths are JSON pointers inside
    /// the sink's block.
    pub(super) fn problems(&self, topic: &str, table: Option<&TableSchema>) -> Vec<ConfigProblem> {
        (self.problems)(topic, table)
    }
}

impl SinkConfig for BigQueryConfig {
    fn problems(&self) -> Vec<ConfigProblem> {
        self.problems()
    }

    fn open(self, surroundings: &Surroundings<'_>) -> Result<OpenSink, SinkError> {
        let sink = Arc::new(BigQuerySink::new(self, surroundings.base_dir, surroundings.environment)?);
        let planner = Arc::clone(&sink);
        let problems =
            Arc::new(move |topic: &str, table: Option<&TableSchema>| planner.plan_problems(topic, table));
        Ok(OpenSink { sink, demands: TableDemands { columns_needed: true, problems } })
    }
}

impl SinkConfig for PostgresConfig {
    fn problems(&self) -> Vec<ConfigProblem> {
        self.problems()
    }

    fn open(self, surroundings: &Surroundings<'_>) -> Result<OpenSink, SinkError> {
        let sink = Arc::new(PostgresSink::new(self, surroundings.base_dir)?);
        let planner = Arc::clone(&sink);
        let problems =
            Arc::new(move |topic: &str, table: Option<&TableSchema>| planner.plan_problems(topic, table));
        Ok(OpenSink { sink, demands: TableDemands { columns_needed: true, problems } })
    }
}

impl SinkConfig for StdoutConfig {
    fn problems(&self) -> Vec<ConfigProblem> {
        Vec::new()
    }

    fn open(self, _: &Surroundings<'_>) -> Result<OpenSink, SinkError> {
        Ok(OpenSink { sink: Arc::new(StdoutSink::new(self)?), demands: TableDemands::none() })
    }
}

/// Why a sink's block gives no sink.
pub(super) enum SinkMistake {
    /// A value is not of its type.
    Value(WrongValue),
    /// The connector's own checks.
    Problems(Vec<ConfigProblem>),
    /// The connector cannot be set up.
    Setup {
        /// What happened.
        cause: String,
        /// What the user can do.
        hint: Option<String>,
    },
}

/// A kind of sink.
pub(super) struct SinkConnector {
    name: &'static str,
    schema: fn(&mut SchemaGenerator) -> Schema,
    open: fn(Value, &Surroundings<'_>) -> Result<OpenSink, SinkMistake>,
}

impl SinkConnector {
    const fn of<C: SinkConfig>(name: &'static str) -> Self {
        Self { name, schema: |generator| generator.subschema_for::<C>(), open: open::<C> }
    }
}

fn open<C: SinkConfig>(settings: Value, surroundings: &Surroundings<'_>) -> Result<OpenSink, SinkMistake> {
    let config: C = typed::read(settings).map_err(SinkMistake::Value)?;
    let problems = config.problems();
    if !problems.is_empty() {
        return Err(SinkMistake::Problems(problems));
    }
    config.open(surroundings).map_err(|error| match error {
        SinkError::Fatal { cause, hint } => SinkMistake::Setup { cause, hint },
        other => SinkMistake::Setup { cause: other.to_string(), hint: None },
    })
}

/// The `sink` block: one connector and its settings.
pub struct SinkBlock {
    connector: &'static SinkConnector,
    settings: Value,
}

impl SinkBlock {
    /// The connector's key.
    pub(super) fn connector_name(&self) -> &'static str {
        self.connector.name
    }

    /// The sink that the block describes, without connecting to anything.
    pub(super) fn open(self, surroundings: &Surroundings<'_>) -> Result<OpenSink, SinkMistake> {
        (self.connector.open)(self.settings, surroundings)
    }
}

impl fmt::Debug for SinkBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinkBlock").field("connector", &self.connector.name).finish_non_exhaustive()
    }
}

impl<'de> Deserialize<'de> for SinkBlock {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneConnector;

        impl<'de> Visitor<'de> for OneConnector {
            type Value = SinkBlock;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping with one connector")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SinkBlock, A::Error> {
                let Some((name, settings)) = map.next_entry::<String, Value>()? else {
                    return Err(de::Error::custom("names no connector"));
                };
                let connector = SINKS
                    .iter()
                    .find(|connector| connector.name == name)
                    .ok_or_else(|| de::Error::custom("names a connector that is not known"))?;
                if map.next_key::<String>()?.is_some() {
                    return Err(de::Error::custom("names more than one connector"));
                }
                Ok(SinkBlock { connector, settings })
            }
        }

        deserializer.deserialize_map(OneConnector)
    }
}

impl JsonSchema for SinkBlock {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Sink".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let properties: serde_json::Map<String, serde_json::Value> = SINKS
            .iter()
            .map(|connector| (connector.name.to_owned(), (connector.schema)(generator).to_value()))
            .collect();
        let mut schema = Schema::default();
        schema.insert("type".into(), json!("object"));
        schema.insert("description".into(), json!("Exactly one connector and its settings"));
        schema.insert("properties".into(), properties.into());
        schema.insert("additionalProperties".into(), json!(false));
        schema.insert("minProperties".into(), json!(1));
        schema.insert("maxProperties".into(), json!(1));
        schema
    }
}
