//! The schema files of a pipeline against its sink.

use std::collections::BTreeMap;
use std::sync::Arc;

use txconnect_kafka::KafkaSourceConfig;

use super::super::diagnose::{Mistake, Place};
use super::super::located::{Spot, child};
use super::super::model::ValidateSettings;
use super::super::registry::{OpenSink, TableDemands};
use super::super::schema_file::{SchemaError, TopicSchema, read_schema};
use super::Checks;

/// The key of the schema that records must follow as they come.
const INPUT: &str = "/validate/schema";
/// The key of the schema of what leaves the transforms.
const OUTPUT: &str = "/output/schema";

/// Schemas by topic.
pub(in super::super) type Schemas = BTreeMap<String, Arc<TopicSchema>>;

/// Which schemas there are, and for which topics.
pub(in super::super) struct SchemaUse<'s> {
    /// The schema of records as they come.
    pub(in super::super) input: Option<&'s ValidateSettings>,
    /// That of what leaves the transforms.
    pub(in super::super) output: Option<&'s ValidateSettings>,
    /// Topics beside those of the source that rows may have.
    pub(in super::super) routes: &'s [String],
    /// Where the records come from, where that is known.
    pub(in super::super) source: Option<&'s KafkaSourceConfig>,
}

/// What a schema is read for.
struct Reading<'r> {
    settings: &'r ValidateSettings,
    key: &'static str,
    demands: &'r TableDemands,
    /// The sink's block.
    block: &'r str,
}

impl Checks<'_> {
    /// Reads the schemas of all topics that are known by name: those of records as they come, and those of what leaves
    /// the transforms, empty where that has none of its own. The sink makes its demands of what reaches it.
    pub(in super::super) fn schemas(
        &mut self,
        schemas: &SchemaUse<'_>,
        sink: Option<&OpenSink>,
    ) -> (Schemas, Schemas) {
        let none = TableDemands::none();
        let demands = sink.map_or(&none, |sink| &sink.demands);
        let block = sink.map(|sink| child("/sink", sink.sink.name())).unwrap_or_default();
        let listed: &[String] =
            schemas.source.and_then(|source| source.topics.as_deref()).unwrap_or_default();
        let (mut input, mut output) = (Schemas::new(), Schemas::new());
        match (schemas.input, schemas.output) {
            (None, None) => {
                let pattern = schemas.source.and_then(|source| source.pattern.as_deref());
                let topic = listed.first().map_or(pattern.unwrap_or("*"), String::as_str);
                self.problems(&block, "", &demands.problems(topic, None));
            }
            (Some(settings), None) => {
                let reading = Reading { settings, key: INPUT, demands, block: &block };
                input = self.read_schemas(&reading, listed, schemas.routes);
            }
            (before, Some(settings)) => {
                if let Some(settings) = before {
                    let reading = Reading { settings, key: INPUT, demands: &none, block: &block };
                    input = self.read_schemas(&reading, listed, &[]);
                }
                let reading = Reading { settings, key: OUTPUT, demands, block: &block };
                output = self.read_schemas(&reading, listed, schemas.routes);
            }
        }
        (input, output)
    }

    fn read_schemas(&mut self, reading: &Reading<'_>, listed: &[String], routes: &[String]) -> Schemas {
        let mut schemas = Schemas::new();
        let Reading { settings, key, demands, .. } = *reading;
        if listed.is_empty() && !settings.schema.depends_on_topic() {
            // The topics come later, but their one schema is known.
            if let Err(error) = read_schema("*", settings, self.base_dir, demands) {
                self.schema_error(error, key, "the schema", reading.block);
            }
        }
        for topic in listed {
            match read_schema(topic, settings, self.base_dir, demands) {
                Ok(schema) => {
                    schemas.insert(topic.clone(), Arc::new(schema));
                }
                Err(error) => self.schema_error(error, key, "the schema", reading.block),
            }
        }
        for (index, topic) in routes.iter().enumerate().filter(|(_, topic)| !listed.contains(topic)) {
            match read_schema(topic, settings, self.base_dir, demands) {
                Ok(schema) => {
                    schemas.insert(topic.clone(), Arc::new(schema));
                }
                Err(error) => {
                    let place = format!("/output/topics/{index}");
                    self.schema_error(error, &place, "its schema", reading.block);
                }
            }
        }
        schemas
    }

    fn schema_error(&mut self, error: SchemaError, place: &str, noun: &str, block: &str) {
        match error {
            SchemaError::Unreadable { file, why, .. } => self.error(
                place,
                Spot::Value,
                &format!("{noun} `{}` {why}", file.display()),
                "write the schema, or mend its path: paths start at the folder of the pipeline file, or at its \
                 parent where that folder is named `pipelines`",
            ),
            SchemaError::Faulty { file, faults, .. } => {
                for fault in faults {
                    let (line, column) = (fault.line, fault.column);
                    let place = Place::Position { file: file.clone().into(), line, column };
                    self.found.push(Mistake::error(place, fault.pointer, fault.message));
                }
            }
            SchemaError::Refused { topic, problems } => {
                self.problems(block, &format!("topic `{topic}`: "), &problems);
            }
        }
    }
}
