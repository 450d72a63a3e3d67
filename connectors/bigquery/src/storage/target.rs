//! A table as the destination of rows: what a connection must be told about it, and how long it may be strange.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gcp_bigquery_client::google::cloud::bigquery::storage::v1::ProtoSchema;
use prost::Message as _;
use txconnect_connector_api::SinkError;

use super::descriptor::row_descriptor;
use crate::config::BigQueryConfig;
use crate::plan::{Field, Type};
use crate::table::Table;

/// How long a new table or column may take until it is known everywhere
/// (<https://cloud.google.com/bigquery/docs/error-messages>: "minutes").
const KNOWN_EVERYWHERE: Duration = Duration::from_mins(10);

/// A table that rows are appended to, shared by all connections.
pub(super) struct Target {
    pub(super) table: Arc<Table>,
    /// `projects/…/datasets/…/tables/…`
    pub(super) path: String,
    /// The stream that every table has.
    pub(super) default_stream: Arc<str>,
    /// The encoded `ProtoSchema` of our rows.
    pub(super) schema: Bytes,
    /// The columns of our rows by their paths, for messages.
    pub(super) columns: Vec<String>,
    strange_since: Mutex<Option<Instant>>,
}

impl Target {
    pub(super) fn new(table: Arc<Table>, config: &BigQueryConfig) -> Self {
        let path = format!("projects/{}/datasets/{}/tables/{}", config.project, config.dataset, table.id);
        let schema = ProtoSchema { proto_descriptor: Some(row_descriptor(&table.plan, config)) };
        let mut columns = Vec::new();
        collect_columns(&table.plan.fields, "", &mut columns);
        Self {
            default_stream: format!("{path}/streams/_default").into(),
            path,
            schema: schema.encode_to_vec().into(),
            columns,
            table,
            strange_since: Mutex::new(None),
        }
    }

    /// The server does not know the table, or not as it is: worth waiting for, up to the time that BigQuery needs to
    /// tell all of its servers.
    pub(super) fn not_known_yet(&self, cause: String, hint: &str) -> SinkError {
        self.table.forget();
        let mut since = self.strange_since.lock().unwrap_or_else(PoisonError::into_inner);
        if since.get_or_insert_with(Instant::now).elapsed() < KNOWN_EVERYWHERE {
            return SinkError::transient(cause);
        }
        *since = None;
        let minutes = KNOWN_EVERYWHERE.as_secs() / 60;
        SinkError::fatal(format!("{cause}, for {minutes} minutes now"), hint)
    }

    /// The server has taken rows.
    pub(super) fn is_known(&self) {
        *self.strange_since.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn collect_columns(fields: &[Field], parent: &str, columns: &mut Vec<String>) {
    for field in fields {
        let path = format!("{parent}{}", field.name);
        if let Type::Record(fields) = &field.kind {
            collect_columns(fields, &format!("{path}."), columns);
        }
        columns.push(path);
    }
}
