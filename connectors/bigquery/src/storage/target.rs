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
    patience: Mutex<Patience>,
}

/// Since when the server has not known what is there.
#[derive(Debug, Default)]
struct Patience {
    since: Option<Instant>,
}

impl Patience {
    /// The server does not know it at `now`; answers whether that has lasted too long.
    fn is_over(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let over = now.saturating_duration_since(since) >= KNOWN_EVERYWHERE;
        if over {
            self.since = None;
        }
        over
    }
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
            patience: Mutex::default(),
        }
    }

    /// The server does not know the table, or not as it is: worth waiting for, up to the time that BigQuery needs to
    /// tell all of its servers.
    pub(super) fn not_known_yet(&self, cause: String, hint: &str) -> SinkError {
        self.table.forget();
        if !self.patience.lock().unwrap_or_else(PoisonError::into_inner).is_over(Instant::now()) {
            return SinkError::transient(cause);
        }
        let minutes = KNOWN_EVERYWHERE.as_secs() / 60;
        SinkError::fatal(format!("{cause}, for {minutes} minutes now"), hint)
    }

    /// The server has taken rows.
    pub(super) fn is_known(&self) {
        self.patience.lock().unwrap_or_else(PoisonError::into_inner).since = None;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_waited_for_up_to_the_limit_and_then_anew() {
        let mut patience = Patience::default();
        let start = Instant::now();
        let almost = start + KNOWN_EVERYWHERE.mul_f32(0.9);
        assert!(!patience.is_over(start));
        assert!(!patience.is_over(almost));
        assert!(patience.is_over(start + KNOWN_EVERYWHERE));
        assert!(!patience.is_over(start + KNOWN_EVERYWHERE));
        patience.since = None;
        assert!(!patience.is_over(almost + KNOWN_EVERYWHERE));
    }
}
