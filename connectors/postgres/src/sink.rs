//! The Postgres sink itself: what the runtime holds.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use tokio_postgres::error::SqlState;
use txconnect_connector_api::{
    ConfigProblem, Encoder, OffsetStore, Protocol, Sink, SinkError, SinkLimits, TableCount, TableSchema,
    Writer,
};

use crate::blockers::Watchdog;
use crate::config::{Delivery, PostgresConfig, TableChanges};
use crate::connect::{ConnectionSettings, Connector, Session};
use crate::encode::{MAX_ROW_BYTES, RowEncoder};
use crate::offsets::{OffsetsTable, PostgresOffsets};
use crate::plan::{TableName, TablePlan};
use crate::statements::Table;
use crate::table::{misfit_error, ready};
use crate::writer::PostgresWriter;

/// The largest flush: what a single row may have. PostgreSQL takes messages of up to 1 GiB and keeps one in memory as a
/// whole.
const MAX_REQUEST_BYTES: usize = MAX_ROW_BYTES;

/// The most rows of a flush; a bad one is found with about two statements for every doubling.
const MAX_REQUEST_ROWS: usize = 200_000;

/// Per row the server needs 1.0 µs of its processor in transactions of 2,000 rows, 0.54 in such of 10,000, 0.48 of
/// 20,000 and 0.46 of 50,000 (docs/postgres.md). From here on more rows make the whole no faster and take more memory: 72
/// MiB with 10,000, 109 MiB with 20,000 (docs/benchmarks.md, docs/operations.md).
const USUAL_ROWS: u32 = 10_000;

/// Sessions that belong to no pipeline are listed under this name.
const APPLICATION_NAME: &str = "txconnect";

/// Writes rows into PostgreSQL tables.
pub struct PostgresSink {
    shared: Arc<Shared>,
}

/// What all lanes share.
pub(crate) struct Shared {
    config: PostgresConfig,
    pub(crate) connector: Connector,
    pub(crate) watchdog: Watchdog,
    tables: Mutex<HashMap<Arc<str>, Registered>>,
}

/// A table, and the topic for which it was registered last.
struct Registered {
    topic: String,
    table: Arc<Table>,
}

impl Shared {
    /// The table called `name`, as [`Sink::table`] writes it, if it was registered.
    pub(crate) fn table(&self, name: &str) -> Option<Arc<Table>> {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.get(name).map(|registered| Arc::clone(&registered.table))
    }

    /// Keeps the table for writers and encoders. Topics that share it must bring the same rows.
    fn register(&self, name: Arc<str>, topic: &str, table: Table) -> Result<Arc<Table>, SinkError> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = tables.get(&name)
            && there.topic != topic
            && !there.table.plan.same_rows(&table.plan)
        {
            return Err(SinkError::fatal(
                format!(
                    "the topics `{}` and `{topic}` have different columns and go to the same table `{name}`",
                    there.topic
                ),
                "give each its own table (`table: \"{topic}\"`) or one schema",
            ));
        }
        let table = Arc::new(table);
        tables.insert(name, Registered { topic: topic.to_owned(), table: Arc::clone(&table) });
        Ok(table)
    }
}

fn no_schema(problems: Vec<ConfigProblem>) -> SinkError {
    match problems.into_iter().next() {
        Some(problem) => SinkError::Fatal { cause: problem.message, hint: problem.help },
        None => SinkError::fatal("the schema gives no table", "check the schema of the topic"),
    }
}

impl PostgresSink {
    /// Prepares a sink; reads certificate files and touches no network. Their paths are as the process sees them;
    /// nothing in the block is relative to `_base_dir`.
    ///
    /// # Errors
    /// [`SinkError::Fatal`] where `url` is not one. Call [`PostgresConfig::problems`] first: it finds more, with places.
    pub fn new(config: PostgresConfig, _base_dir: &Path) -> Result<Self, SinkError> {
        let settings = ConnectionSettings::parse(&config.url, config.timeout.0).map_err(|problem| {
            SinkError::Fatal { cause: format!("`url`: {}", problem.message), hint: problem.help }
        })?;
        let connector = Connector::new(settings);
        let watchdog = Watchdog::new(connector.clone());
        Ok(Self { shared: Arc::new(Shared { config, connector, watchdog, tables: Mutex::default() }) })
    }

    /// Mistakes that show only with the schema of a topic: names and keys that PostgreSQL refuses, no schema at all. An
    /// empty `path` is the whole block.
    pub fn plan_problems(&self, topic: &str, schema: Option<&TableSchema>) -> Vec<ConfigProblem> {
        TablePlan::problems(&self.shared.config, topic, schema)
    }

    fn plan<'s>(
        &self,
        topic: &str,
        schema: Option<&'s TableSchema>,
    ) -> Result<(TablePlan, &'s TableSchema), SinkError> {
        let config = &self.shared.config;
        let schema = schema.ok_or_else(|| no_schema(TablePlan::problems(config, topic, None)))?;
        Ok((TablePlan::new(config, topic, schema).map_err(no_schema)?, schema))
    }

    /// Tables as users name them: `schema.table`.
    fn written(table: &TableName) -> Arc<str> {
        format!("{}.{}", table.schema, table.table).into()
    }

    async fn make_ready(&self, topic: &str, schema: Option<&TableSchema>) -> Result<(), SinkError> {
        let (plan, _) = self.plan(topic, schema)?;
        let session = self.shared.connector.connect(APPLICATION_NAME).await?;
        let create = self.shared.config.table_changes == TableChanges::Create;
        let table = ready(&session, &plan, create).await?;
        self.shared.register(self.table(topic), topic, table).map(|_| ())
    }

    async fn count(&self, session: &Session, table: &Arc<str>) -> Result<TableCount, SinkError> {
        let schema = &self.shared.config.schema;
        let name = table.strip_prefix(schema.as_str()).and_then(|rest| rest.strip_prefix('.'));
        let name = TableName { schema: schema.clone(), table: name.unwrap_or(table).to_owned() };
        let doing = format!("counting the rows of `{table}`");
        let statement = format!("SELECT pg_catalog.count(*) FROM {name}");
        let rows = match session.within(&doing, session.client().query_typed_one(&statement, &[])).await {
            Ok(row) => {
                let count: i64 = row.try_get(0).map_err(|error| session.failure(&doing, error))?;
                Some(u64::try_from(count).unwrap_or_default())
            }
            Err(failure) if failure.is(&SqlState::UNDEFINED_TABLE) => None,
            Err(failure) => return Err(failure.into()),
        };
        Ok(TableCount { table: Arc::clone(table), rows })
    }
}

impl Sink for PostgresSink {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn protocol(&self) -> Protocol {
        match self.shared.config.delivery {
            Delivery::ExactlyOnce => Protocol::OffsetsInSink,
            Delivery::AtLeastOnce => Protocol::AtLeastOnce,
        }
    }

    fn limits(&self) -> SinkLimits {
        SinkLimits {
            request_bytes: MAX_REQUEST_BYTES,
            request_rows: MAX_REQUEST_ROWS,
            // Flushes of one lane move the same positions: the next one could not begin before the last has committed.
            in_flight: 1,
            batches_mix_partitions: true,
            usual_rows: USUAL_ROWS,
        }
    }

    fn table(&self, topic: &str) -> Arc<str> {
        Self::written(&self.shared.config.table_name(topic))
    }

    fn prepare<'a>(
        &'a self,
        topic: &'a str,
        schema: Option<&'a TableSchema>,
    ) -> BoxFuture<'a, Result<(), SinkError>> {
        Box::pin(self.make_ready(topic, schema))
    }

    fn encoder(&self, topic: &str, schema: Option<&TableSchema>) -> Result<Box<dyn Encoder>, SinkError> {
        let (plan, schema) = self.plan(topic, schema)?;
        let name = self.table(topic);
        let table = match self.shared.table(&name) {
            Some(prepared) => prepared,
            None => self.shared.register(name, topic, Table::new(plan, None))?,
        };
        match RowEncoder::new(&self.shared.config, schema, &table.plan) {
            Ok(encoder) => Ok(Box::new(encoder)),
            Err(misfits) => Err(misfit_error(&table.plan, &misfits)),
        }
    }

    fn writer(&self, pipeline: &str) -> Box<dyn Writer> {
        let offsets = match self.protocol() {
            Protocol::OffsetsInSink => {
                Some(OffsetsTable::in_schema(&self.shared.config.offsets_table().schema))
            }
            Protocol::AtLeastOnce | Protocol::TwoPhase => None,
        };
        Box::new(PostgresWriter::new(Arc::clone(&self.shared), pipeline, offsets))
    }

    fn offsets(&self, pipeline: &str) -> Option<Arc<dyn OffsetStore>> {
        match self.protocol() {
            Protocol::OffsetsInSink => {
                let schema = self.shared.config.offsets_table().schema;
                Some(Arc::new(PostgresOffsets::new(self.shared.connector.clone(), &schema, pipeline)))
            }
            Protocol::AtLeastOnce | Protocol::TwoPhase => None,
        }
    }

    fn count_rows<'a>(&'a self, tables: &'a [Arc<str>]) -> BoxFuture<'a, Result<Vec<TableCount>, SinkError>> {
        Box::pin(async move {
            let session = self.shared.connector.connect(APPLICATION_NAME).await?;
            let mut counts = Vec::with_capacity(tables.len());
            for table in tables {
                counts.push(self.count(&session, table).await?);
            }
            Ok(counts)
        })
    }
}
