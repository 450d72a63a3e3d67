//! What a pipeline does with the records of one topic, and where rows go.

use std::collections::BTreeMap;
use std::sync::Arc;

use txconnect_connector_api::TableSchema;

use crate::config::{Decode, OnError, Pipeline, Reaction, SchemaError, TopicSchema};
use crate::stages::Stage;
use crate::stages::decode::Format;
use crate::stages::validate::Validator;

/// Everything a lane must know of the records of one topic; shared by all lanes.
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    pub(super) format: Format,
    /// What records must follow as they come.
    pub(super) schema: Option<Arc<TopicSchema>>,
    /// Where the rows of records go that keep their topic.
    pub(super) destination: Arc<Destination>,
    /// Where transforms may send rows beside.
    pub(super) routes: Vec<Arc<Destination>>,
}

/// Everything a lane must know of a table to make rows for it; shared by all lanes.
pub(super) struct Destination {
    /// The topic after routing.
    pub(super) topic: Arc<str>,
    pub(super) table: Arc<str>,
    schema: Option<Arc<TopicSchema>>,
    /// Whether the schema is one of its own, that was not looked at before the transforms.
    validates: bool,
}

/// The destinations of a pipeline that are known so far, each once.
#[derive(Default)]
pub(super) struct Destinations(BTreeMap<String, Arc<Destination>>);

impl Topic {
    /// Looks up the schemas and the tables of `topic` and of all routes.
    ///
    /// # Errors
    /// For topics that a pattern found: no schema file, or a wrong one.
    pub(super) fn of(
        pipeline: &Pipeline,
        topic: &str,
        destinations: &mut Destinations,
    ) -> Result<Self, SchemaError> {
        Ok(Self {
            name: topic.into(),
            format: match pipeline.decode {
                Decode::Json => Format::Json,
                Decode::String => Format::Text,
                Decode::Bytes => Format::Bytes,
            },
            schema: pipeline.schema_for(topic)?,
            destination: destinations.of(pipeline, topic)?,
            routes: pipeline
                .routes
                .iter()
                .map(|route| destinations.of(pipeline, route))
                .collect::<Result<_, _>>()?,
        })
    }

    /// What checks the records as they come.
    pub(super) fn validator(&self) -> Option<&Validator> {
        self.schema.as_ref().map(|schema| &schema.validator)
    }

    /// Everywhere its rows may go.
    pub(super) fn destinations(&self) -> impl Iterator<Item = &Arc<Destination>> {
        std::iter::once(&self.destination).chain(&self.routes)
    }
}

impl Destination {
    #[cfg(test)]
    pub(super) fn named(topic: &str, table: &str) -> Arc<Self> {
        Arc::new(Self { topic: topic.into(), table: table.into(), schema: None, validates: false })
    }

    /// The columns of the table, where the pipeline has a schema.
    pub(super) fn columns(&self) -> Option<&TableSchema> {
        self.schema.as_ref().and_then(|schema| schema.table.as_ref())
    }

    /// What checks the rows, where that was not done before the transforms.
    pub(super) fn validator(&self) -> Option<&Validator> {
        self.schema.as_ref().filter(|_| self.validates).map(|schema| &schema.validator)
    }
}

impl Destinations {
    fn of(&mut self, pipeline: &Pipeline, topic: &str) -> Result<Arc<Destination>, SchemaError> {
        if let Some(known) = self.0.get(topic) {
            return Ok(Arc::clone(known));
        }
        let destination = Arc::new(Destination {
            topic: topic.into(),
            table: pipeline.sink.table(topic),
            schema: pipeline.output_schema_for(topic)?,
            validates: pipeline.output.is_some(),
        });
        self.0.insert(topic.to_owned(), Arc::clone(&destination));
        Ok(destination)
    }
}

/// What becomes of a record that `stage` finds bad.
pub(super) fn reaction(on_error: OnError, stage: Stage) -> Reaction {
    match stage {
        Stage::Decode => on_error.decode,
        Stage::Validate => on_error.validate,
        Stage::Transform => on_error.transform,
        Stage::Encode | Stage::Write => on_error.sink,
    }
}
