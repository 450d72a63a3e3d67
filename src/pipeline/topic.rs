//! What a pipeline does with the records of one topic.

use std::sync::Arc;

use txconnect_connector_api::TableSchema;

use crate::config::{Decode, OnError, Pipeline, Reaction, SchemaError, TopicSchema};
use crate::stages::decode::Format;

use super::open::Stage;

/// Everything a lane must know to turn records of one topic into rows; shared by all lanes.
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    pub(super) table: Arc<str>,
    pub(super) format: Format,
    pub(super) schema: Option<Arc<TopicSchema>>,
    pub(super) on_error: OnError,
}

impl Topic {
    /// Looks up the schema and the table of `topic`.
    ///
    /// # Errors
    /// For topics that a pattern found: no schema file, or a wrong one.
    pub(super) fn of(pipeline: &Pipeline, topic: &str) -> Result<Self, SchemaError> {
        Ok(Self {
            name: topic.into(),
            table: pipeline.sink.table(topic),
            format: match pipeline.decode {
                Decode::Json => Format::Json,
                Decode::String => Format::Text,
                Decode::Bytes => Format::Bytes,
            },
            schema: pipeline.schema_for(topic)?,
            on_error: pipeline.on_error,
        })
    }

    /// What becomes of a record that `stage` finds bad.
    pub(super) fn reaction(&self, stage: Stage) -> Reaction {
        match stage {
            Stage::Decode => self.on_error.decode,
            Stage::Validate => self.on_error.validate,
            Stage::Encode | Stage::Write => self.on_error.sink,
        }
    }

    /// The columns of the table, where the pipeline has a schema.
    pub(super) fn columns(&self) -> Option<&TableSchema> {
        self.schema.as_ref().and_then(|schema| schema.table.as_ref())
    }
}
