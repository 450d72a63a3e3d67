//! The local BigQuery of one test.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};
use txconnect_local_bigquery::{Fault, LocalBigQuery, Options};

use super::{ids, runtime};

pub(crate) const PROJECT: &str = "test-project";
pub(crate) const DATASET: &str = "events";

pub(crate) struct BigQuery {
    server: LocalBigQuery,
}

impl BigQuery {
    pub(crate) fn start() -> Self {
        Self::with(Options::default())
    }

    pub(crate) fn failing(faults: Vec<Fault>) -> Self {
        Self::with(Options { faults, ..Options::default() })
    }

    pub(crate) fn with(options: Options) -> Self {
        Self { server: runtime().block_on(LocalBigQuery::start(options)).unwrap() }
    }

    /// Ends the server; its port is free then.
    pub(crate) fn stop(self) {
        runtime().block_on(self.server.stop());
    }

    pub(crate) fn script(&self, fault: Fault) {
        self.server.script(fault);
    }

    /// `host:port`, as `BIGQUERY_EMULATOR_HOST` has it.
    pub(crate) fn address(&self) -> String {
        self.server.address().to_string()
    }

    /// The rows of a table of the tests' own dataset; none where there is no such table.
    pub(crate) fn rows(&self, table: &str) -> Vec<Map<String, Json>> {
        self.rows_in(DATASET, table)
    }

    pub(crate) fn rows_in(&self, dataset: &str, table: &str) -> Vec<Map<String, Json>> {
        self.server.rows(PROJECT, dataset, table).unwrap_or_default()
    }

    /// How often each id is in a table.
    pub(crate) fn ids(&self, table: &str) -> BTreeMap<i64, usize> {
        ids(&self.rows(table))
    }
}
