//! The local BigQuery of one test.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};
use txconnect_local_bigquery::{Fault, LocalBigQuery, Options, StreamSummary};

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

    /// Forgets all faults.
    pub(crate) fn heal(&self) {
        let faults = format!("http://{}/__faults", self.address());
        let answer = runtime().block_on(reqwest::Client::new().delete(faults).send()).unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// Every write stream there has been, expired ones left out.
    pub(crate) fn streams(&self) -> Vec<StreamSummary> {
        self.server.streams()
    }

    /// Ends all write streams, as time does.
    pub(crate) fn expire_streams(&self) -> usize {
        self.server.expire_streams(None)
    }

    /// Deletes a table of the tests' own dataset.
    pub(crate) fn drop_table(&self, table: &str) {
        assert!(self.server.drop_table(PROJECT, DATASET, table), "{table}: no such table");
    }

    /// Deletes it and makes it anew, empty.
    pub(crate) fn recreate_table(&self, table: &str) {
        assert!(self.server.recreate_table(PROJECT, DATASET, table), "{table}: no such table");
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
