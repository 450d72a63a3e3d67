//! The BigQuery sink itself: what the runtime holds.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use gcp_bigquery_client::model::query_request::QueryRequest;
use gcp_bigquery_client::model::query_response::QueryResponse;
use serde_json::Value;
use txconnect_connector_api::{
    Advance, Batch, ConfigProblem, Encoder, Protocol, Sink, SinkError, SinkLimits, TableCount, TableSchema,
    WriteStreams, Writer,
};

use crate::config::{Api, BigQueryConfig, Credentials, Delivery, EMULATOR_VARIABLE, Endpoint};
use crate::credentials::TokenSource;
use crate::encode::{MAX_REQUEST_BYTES, MAX_REQUEST_ROWS, RowEncoder};
use crate::error::CallError;
use crate::plan::TablePlan;
use crate::rest::Server;
use crate::storage::encode::StorageEncoder;
use crate::storage::{self, DefaultStreamWriter, Storage, TableStreams};
use crate::table::Table;
use crate::writer::BigQueryWriter;

/// Looking at a table and creating it with its dataset takes up to four calls.
const CALLS_TO_ENSURE: u32 = 5;

/// Writes rows into BigQuery tables.
pub struct BigQuerySink {
    shared: Arc<Shared>,
    route: Route,
}

/// How rows reach BigQuery.
enum Route {
    InsertAll,
    /// Rows are visible once they are confirmed.
    DefaultStream(Arc<Storage>),
    /// Rows are visible once they are published.
    BufferedStreams(Arc<TableStreams>),
}

/// What all lanes share.
pub(crate) struct Shared {
    pub(crate) config: BigQueryConfig,
    pub(crate) server: Arc<Server>,
    tables: Mutex<HashMap<Arc<str>, Arc<Table>>>,
}

impl Shared {
    /// The table called `name` (`dataset.table`), if an encoder was made for it.
    pub(crate) fn table(&self, name: &str) -> Option<Arc<Table>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Makes sure that the table exists and fits, within a deadline.
    pub(crate) async fn ensure(&self, table: &Table) -> Result<(), SinkError> {
        let deadline = self.config.timeout.0 * CALLS_TO_ENSURE;
        let ensured = tokio::time::timeout(deadline, table.ensure(&self.server, &self.config));
        ensured.await.unwrap_or_else(|_| {
            let name = &table.name;
            Err(SinkError::transient(format!(
                "looking at the table `{name}`: no answer within the time limit"
            )))
        })
    }
}

impl BigQuerySink {
    /// Prepares a sink; touches neither network nor files.
    ///
    /// A relative path of a key file is taken from `base_dir`. From the `environment` are read
    /// `BIGQUERY_EMULATOR_HOST`, `GOOGLE_APPLICATION_CREDENTIALS`, `HOME` and `GCE_METADATA_HOST`.
    ///
    /// # Errors
    /// [`SinkError::Fatal`] where the address of the server is not one, or TLS cannot be set up. Call
    /// [`BigQueryConfig::problems`] first: it finds more, with places.
    pub fn new(
        config: BigQueryConfig,
        base_dir: &Path,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, SinkError> {
        let emulator = environment(EMULATOR_VARIABLE).filter(|host| !host.is_empty());
        let (endpoint, is_emulator) = match (&config.endpoint, emulator) {
            (Some(address), _) => {
                let endpoint = Endpoint::parse(address).map_err(|why| {
                    SinkError::fatal(format!("`endpoint: {address}` {why}"), "write it as `http://host:port`")
                })?;
                let local = endpoint.is_local_plain();
                (endpoint, local)
            }
            (None, Some(host)) => {
                let address = if host.contains("://") { host.clone() } else { format!("http://{host}") };
                let endpoint = Endpoint::parse(&address).map_err(|why| {
                    SinkError::fatal(
                        format!("{EMULATOR_VARIABLE} (`{host}`) {why}"),
                        "set it to `host:port`, or unset it to use Google's BigQuery",
                    )
                })?;
                (endpoint, true)
            }
            (None, None) => (Endpoint::google(), false),
        };
        let credentials = match &config.credentials {
            Some(credentials) => credentials,
            None if is_emulator => &Credentials::None,
            None => &Credentials::ApplicationDefault,
        };
        if endpoint.sends_tokens_in_clear(Some(credentials)) {
            return Err(clear_tokens(&endpoint.base));
        }
        let source = TokenSource::new(credentials, base_dir, environment);
        let server = Server::new(endpoint, source, config.timeout.0).map_err(|error| {
            SinkError::fatal(
                format!("cannot set up the connection to BigQuery: {}", error.without_url()),
                "check the certificates of this machine",
            )
        })?;
        let server = Arc::new(server);
        let storage = match config.api {
            Api::InsertAll => None,
            Api::StorageWrite => {
                let address = config.storage_endpoint(environment)?;
                if address.sends_tokens_in_clear(credentials) {
                    return Err(clear_tokens(&address.uri));
                }
                Some(Arc::new(Storage::new(Arc::clone(&server), address, config.timeout.0)))
            }
        };
        let delivery = config.delivery();
        let shared = Arc::new(Shared { config, server, tables: Mutex::default() });
        let route = match (storage, delivery) {
            (None, _) => Route::InsertAll,
            (Some(storage), Delivery::AtLeastOnce) => Route::DefaultStream(storage),
            (Some(storage), Delivery::ExactlyOnce) => {
                Route::BufferedStreams(Arc::new(TableStreams::new(Arc::clone(&shared), storage)))
            }
        };
        Ok(Self { shared, route })
    }

    /// Mistakes that show only with the schema of a topic: column names that BigQuery refuses, partition and
    /// cluster columns that are missing or do not fit, no schema at all. An empty `path` is the whole block.
    pub fn plan_problems(&self, topic: &str, schema: Option<&TableSchema>) -> Vec<ConfigProblem> {
        let Some(schema) = schema else {
            return vec![ConfigProblem {
                path: String::new(),
                message: format!("the records of `{topic}` have no schema, and BigQuery tables need columns"),
                help: Some(
                    "add `validate: {schema: schemas/{topic}.json}` and keep `decode: json`".to_owned(),
                ),
            }];
        };
        match TablePlan::new(&self.shared.config, schema) {
            Ok(plan) => plan.layout_problems(&self.shared.config),
            Err(problems) => problems,
        }
    }

    /// The table for `topic`; the same for all topics that share it.
    fn register<'s>(
        &self,
        topic: &str,
        schema: Option<&'s TableSchema>,
    ) -> Result<(Arc<Table>, &'s TableSchema), SinkError> {
        if let Some(problem) = self.plan_problems(topic, schema).into_iter().next() {
            return Err(SinkError::Fatal { cause: problem.message, hint: problem.help });
        }
        let plan = schema.map(|schema| TablePlan::new(&self.shared.config, schema));
        let (Some(schema), Some(Ok(plan))) = (schema, plan) else {
            return Err(SinkError::fatal(
                format!("the records of `{topic}` give no table"),
                "check the schema of the topic",
            ));
        };
        let name = self.table(topic);
        let mut tables = self.shared.tables.lock().unwrap_or_else(PoisonError::into_inner);
        match tables.get(&name) {
            Some(table) if table.plan.same_columns(&plan) => Ok((Arc::clone(table), schema)),
            Some(table) => Err(SinkError::fatal(
                format!(
                    "the topics `{}` and `{topic}` have different columns and go to the same table `{name}`",
                    table.topic
                ),
                "give each its own table (`table: \"{topic}\"`) or one schema",
            )),
            None => {
                let id = self.shared.config.table_name(topic);
                let table = Arc::new(Table::new(id, Arc::clone(&name), plan, topic));
                tables.insert(name, Arc::clone(&table));
                Ok((table, schema))
            }
        }
    }

    async fn count(&self, table: &Arc<str>) -> Result<TableCount, SinkError> {
        let config = &self.shared.config;
        let doing = format!("counting the rows of `{table}`");
        let mut query = QueryRequest::new(format!("SELECT COUNT(*) FROM `{}.{table}`", config.project));
        query.location.clone_from(&config.location);
        query.timeout_ms = i32::try_from(config.timeout.0.as_millis()).ok();
        let answer = async {
            let session = self.shared.server.session().await?;
            Ok(session.client.job().query(&config.project, query).await?)
        };
        let rows = match answer.await {
            Ok(answer) => Some(
                single_count(&answer)
                    .ok_or_else(|| SinkError::transient(format!("{doing}: the query has not ended yet")))?,
            ),
            Err(CallError::Refused(refusal)) if refusal.status == 404 => None,
            Err(error) => return Err(error.into_sink_error(&doing)),
        };
        Ok(TableCount { table: Arc::clone(table), rows })
    }
}

fn clear_tokens(address: &str) -> SinkError {
    SinkError::fatal(
        format!("an access token would travel without encryption to {address}"),
        "use an `https` address, or `credentials: none` where the server is an emulator",
    )
}

fn single_count(answer: &QueryResponse) -> Option<u64> {
    let row = answer.rows.as_ref()?.first()?;
    match row.columns.as_ref()?.first()?.value.as_ref()? {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    }
}

impl Sink for BigQuerySink {
    fn name(&self) -> &'static str {
        "bigquery"
    }

    fn protocol(&self) -> Protocol {
        match self.route {
            Route::InsertAll | Route::DefaultStream(_) => Protocol::AtLeastOnce,
            Route::BufferedStreams(_) => Protocol::TwoPhase,
        }
    }

    fn limits(&self) -> SinkLimits {
        let (request_bytes, request_rows) = match self.route {
            Route::InsertAll => (MAX_REQUEST_BYTES, MAX_REQUEST_ROWS),
            // BigQuery counts bytes, not rows.
            Route::DefaultStream(_) | Route::BufferedStreams(_) => {
                (storage::encode::MAX_REQUEST_BYTES, usize::MAX)
            }
        };
        SinkLimits {
            request_bytes,
            request_rows,
            in_flight: self.shared.config.in_flight(),
            batches_mix_partitions: !matches!(self.route, Route::BufferedStreams(_)),
            usual_rows: self.shared.config.usual_rows(),
        }
    }

    fn table(&self, topic: &str) -> Arc<str> {
        format!("{}.{}", self.shared.config.dataset, self.shared.config.table_name(topic)).into()
    }

    /// Only for the Storage Write API: where a table does not fit, nothing is read. With insertAll the first rows show.
    fn prepare<'a>(
        &'a self,
        topic: &'a str,
        schema: Option<&'a TableSchema>,
    ) -> BoxFuture<'a, Result<(), SinkError>> {
        Box::pin(async move {
            if matches!(self.route, Route::InsertAll) {
                return Ok(());
            }
            let (table, _) = self.register(topic, schema)?;
            self.shared.ensure(&table).await
        })
    }

    fn encoder(&self, topic: &str, schema: Option<&TableSchema>) -> Result<Box<dyn Encoder>, SinkError> {
        let (_, schema) = self.register(topic, schema)?;
        let config = &self.shared.config;
        Ok(match self.route {
            Route::InsertAll => Box::new(RowEncoder::new(config, topic, schema)),
            Route::DefaultStream(_) | Route::BufferedStreams(_) => {
                Box::new(StorageEncoder::new(config, topic, schema))
            }
        })
    }

    fn writer(&self, pipeline: &str) -> Box<dyn Writer> {
        let shared = Arc::clone(&self.shared);
        match &self.route {
            Route::InsertAll => Box::new(BigQueryWriter::new(shared)),
            Route::DefaultStream(storage) => {
                Box::new(DefaultStreamWriter::new(shared, Arc::clone(storage), pipeline))
            }
            Route::BufferedStreams(_) => Box::new(NoWriter),
        }
    }

    fn streams(&self) -> Option<Arc<dyn WriteStreams>> {
        match &self.route {
            Route::BufferedStreams(streams) => Some(Arc::clone(streams) as Arc<dyn WriteStreams>),
            Route::InsertAll | Route::DefaultStream(_) => None,
        }
    }

    fn count_rows<'a>(&'a self, tables: &'a [Arc<str>]) -> BoxFuture<'a, Result<Vec<TableCount>, SinkError>> {
        Box::pin(async move {
            let mut counts = Vec::with_capacity(tables.len());
            for table in tables {
                counts.push(self.count(table).await?);
            }
            Ok(counts)
        })
    }
}

/// The writer of a sink whose rows go into streams.
struct NoWriter;

impl Writer for NoWriter {
    fn write<'a>(
        &'a self,
        _batches: &'a mut [Batch],
        _advances: &'a [Advance],
    ) -> BoxFuture<'a, Result<(), SinkError>> {
        Box::pin(async {
            Err(SinkError::Fatal { cause: "the rows of this sink go into streams".to_owned(), hint: None })
        })
    }
}
