//! A faithful local BigQuery for the embedded mode and for tests.
//!
//! One port answers the part of BigQuery's REST interface that a streaming writer uses (datasets, tables,
//! `tabledata.insertAll` and `.list`, and queries of the form `SELECT *` and `SELECT COUNT(*)`) and the gRPC service
//! `BigQueryWrite` of the Storage Write API (HTTP/2 without TLS). Everything is in memory.
//! What it takes care to get right is what clients get wrong: all-or-nothing inserts with `invalid` and `stopped` rows,
//! the one-minute memory of `insertId`, offsets and ends of write streams, when their rows become visible, changes by
//! primary key, request limits, schema changes, types column by column. Anything that can go wrong on the way can be
//! scripted with [`Fault`]s.
//!
//! Beside BigQuery's own paths there are:
//! - `GET`, `POST` and `DELETE /__faults`: a [`Fault`] or a list of them as JSON;
//! - `GET /__tables`: a list of [`TableSummary`];
//! - `GET /__rows/{project}/{dataset}/{table}`: the rows as NDJSON;
//! - `GET /__streams`: a list of [`StreamSummary`];
//! - `POST /__streams/expire` with `{"table": "dataset.table"}`, `{"stream": "projects/…"}` or `{}` (all): lets streams
//!   expire and answers `{"expired": n}`;
//! - `POST /__tables/{project}/{dataset}/{table}/recreate`: drops a table and makes it again, empty;
//! - `GET /__requests`: counts per method and table, appends per stream, `AppendRows` connections, and the largest number
//!   of concurrent insertAll calls.
//!
//! Known differences of the Storage Write API: rows in Arrow are refused; `google.protobuf` wrappers, enums, decimals in
//! bytes and the `column_name` option of fields are not known; a row with a field number that its schema does not have
//! is an error, and so is a request without rows; several connections may append to one stream; a row that deletes
//! needs its key only; changes are merged at once, whatever `maxStaleness` says; default values of columns are not
//! applied. Not documented, and chosen here so that it is hard on a client: a flush of a finalized stream is refused as
//! such even where its rows are visible, and a request that has arrived is carried out although its connection breaks.
//!
//! Known differences of the tables: GEOGRAPHY, INTERVAL and RANGE columns, views and template tables are refused; zone names in
//! timestamps other than UTC are refused; partition decorators (`table$20260102`) name no table; column defaults are kept
//! but not applied; partitioning and clustering are checked and kept, and have no other effect.
#![forbid(unsafe_code)]

mod clock;
mod error;
mod faults;
mod rest;
mod server;
mod sql;
mod state;
mod storage_write;
mod store;
mod traffic;
mod types;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use clock::Clock;
pub use error::StartError;
pub use faults::{Closing, Fault, Method, QuotaReason, ScriptError, StatusCode, What};

use state::State;
use store::streams::StreamType;
use store::{Store, TableName};

/// How the server is to run. The default listens on a free port of 127.0.0.1, without faults and credentials.
#[derive(Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Faults to begin with.
    pub faults: Vec<Fault>,
    /// Makes a missing dataset when a table is created in it. BigQuery itself answers 404.
    pub auto_create_datasets: bool,
    /// The bearer token every call must carry; others get status 401.
    pub required_token: Option<String>,
    /// Behaves as goccy/bigquery-emulator does where that differs from BigQuery: insertAll ignores `insertId` and
    /// `skipInvalidRows`, a wrong type is status 500 with plain text, tables cannot be patched.
    pub foreign_emulator: bool,
    /// Counts the rows of insertAll and `AppendRows` and their bytes instead of reading and keeping them, so that a
    /// benchmark measures the client. Offsets, visibility and numbers of rows stay exact. What is left out: rows and the
    /// writer's schema are not looked into, so that no row is refused; there are no rows to list or to select; `insertId`s
    /// and changes by key are not heeded, every row counts.
    pub count_only: bool,
    /// How long an `AppendRows` connection may be idle before the server closes it. BigQuery names 600 seconds.
    pub append_idle: Duration,
    /// The time the server goes by.
    pub clock: Clock,
}

// By hand, so that the token is never shown.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("listen", &self.listen)
            .field("faults", &self.faults)
            .field("auto_create_datasets", &self.auto_create_datasets)
            .field("required_token", &self.required_token.is_some())
            .field("foreign_emulator", &self.foreign_emulator)
            .field("count_only", &self.count_only)
            .field("append_idle", &self.append_idle)
            .field("clock", &self.clock)
            .finish()
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            faults: Vec::new(),
            auto_create_datasets: false,
            required_token: None,
            foreign_emulator: false,
            count_only: false,
            append_idle: faults::USUAL_IDLE,
            clock: Clock::system(),
        }
    }
}

/// A table and how many rows can be seen in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSummary {
    /// The project's id.
    pub project: String,
    /// The dataset's id.
    pub dataset: String,
    /// The table's id.
    pub table: String,
    /// Visible rows.
    pub rows: u64,
}

/// A write stream that was made and has not expired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamSummary {
    /// `projects/{project}/datasets/{dataset}/tables/{table}/streams/{stream}`
    pub name: String,
    /// The table, as `project:dataset.table`.
    pub table: String,
    /// `COMMITTED`, `PENDING` or `BUFFERED`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The rows that were appended.
    pub rows: i64,
    /// How many of them are visible: flushed, committed, or of a COMMITTED stream all.
    pub flushed: i64,
    /// Whether it was finalized.
    pub finalized: bool,
    /// Whether it was committed; COMMITTED streams are from the beginning.
    pub committed: bool,
}

/// A running server. Dropping it stops it without waiting; [`LocalBigQuery::stop`] waits for open requests.
pub struct LocalBigQuery {
    address: SocketAddr,
    state: Arc<State>,
    stop: DropGuard,
    server: JoinHandle<()>,
}

// By hand, so that neither rows nor the token are ever shown.
impl fmt::Debug for LocalBigQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalBigQuery").field("address", &self.address).finish_non_exhaustive()
    }
}

impl LocalBigQuery {
    /// Starts a server on the current tokio runtime.
    ///
    /// # Errors
    /// [`StartError::Listen`] when the address cannot be listened on.
    pub async fn start(options: Options) -> Result<LocalBigQuery, StartError> {
        let refused = |cause| StartError::Listen { address: options.listen, cause };
        let listener = TcpListener::bind(options.listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let state = Arc::new(State::new(options));
        let stop = CancellationToken::new();
        let server = tokio::spawn(server::run(listener, Arc::clone(&state), stop.clone()));
        Ok(LocalBigQuery { address, state, stop: stop.drop_guard(), server })
    }

    /// The address it listens on, with the port that was taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL for REST clients, `http://127.0.0.1:PORT/bigquery/v2`.
    ///
    /// A server that listens on every address is named by the loopback address.
    pub fn base_url(&self) -> String {
        let host = match self.address.ip() {
            ip if ip.is_unspecified() && ip.is_ipv4() => {
                SocketAddr::from((Ipv4Addr::LOCALHOST, self.address.port()))
            }
            ip if ip.is_unspecified() => {
                SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, self.address.port()))
            }
            _ => self.address,
        };
        format!("http://{host}/bigquery/v2")
    }

    /// Every table, in the order of their names.
    pub fn tables(&self) -> Vec<TableSummary> {
        summaries(&self.state.store())
    }

    /// The visible rows of a table, oldest first, every column named: integers and floats as numbers, moments as ISO 8601
    /// text in UTC, NUMERIC, BYTES (base64) and JSON as text. `None`: there is no such table.
    pub fn rows(&self, project: &str, dataset: &str, table: &str) -> Option<Vec<Map<String, Json>>> {
        let store = self.state.store();
        let table = store.table(&TableName::new(project, dataset, table)).ok()?;
        Some(table.rows().iter().map(|row| types::render::object(row, table.columns())).collect())
    }

    /// Every write stream that was made and is still known, in the order of their names.
    pub fn streams(&self) -> Vec<StreamSummary> {
        stream_summaries(&self.state)
    }

    /// Lets the streams of a table expire, or with `None` those of all tables, and says how many there were. A table is
    /// named as `table` or `dataset.table`.
    pub fn expire_streams(&self, table: Option<&str>) -> usize {
        self.state.store().expire_streams(|name| table.is_none_or(|table| name.table.is_called(table)))
    }

    /// Deletes a table. `false`: there is no such table.
    pub fn drop_table(&self, project: &str, dataset: &str, table: &str) -> bool {
        self.state.store().delete_table(&TableName::new(project, dataset, table)).is_ok()
    }

    /// Deletes a table and makes it again with the same resource and no rows. `false`: there is no such table.
    pub fn recreate_table(&self, project: &str, dataset: &str, table: &str) -> bool {
        let now_ms = self.state.clock.now_ms();
        self.state.store().recreate_table(&TableName::new(project, dataset, table), now_ms).is_ok()
    }

    /// Adds a fault at the end of the script.
    pub fn script(&self, fault: Fault) {
        self.state.script().add(fault);
    }

    /// Stops accepting, lets requests in flight finish for a few seconds, and returns once the port is free.
    pub async fn stop(self) {
        drop(self.stop);
        if let Err(failed) = self.server.await {
            tracing::error!(cause = %failed, "the local BigQuery ended abnormally");
        }
    }
}

/// Every REST route of an empty server as a service, for callers that have requests and no connection.
///
/// [`Options::listen`] is not looked at. A fault that cuts the connection gives an empty answer here, because there is
/// no connection to cut.
pub fn router(options: Options) -> axum::Router {
    rest::router(Arc::new(State::new(options)))
}

fn stream_summaries(state: &State) -> Vec<StreamSummary> {
    let store = state.store();
    let streams = store.all_streams(state.clock.now_ms());
    streams
        .map(|(name, stream)| StreamSummary {
            name: name.to_string(),
            table: name.table.to_string(),
            kind: match stream.kind {
                StreamType::Committed => "COMMITTED",
                StreamType::Pending => "PENDING",
                StreamType::Buffered => "BUFFERED",
            }
            .to_owned(),
            rows: stream.rows,
            flushed: stream.visible,
            finalized: stream.finalized,
            committed: stream.committed_ms.is_some(),
        })
        .collect()
}

fn summaries(store: &Store) -> Vec<TableSummary> {
    store
        .all_tables()
        .map(|(dataset, id, table)| TableSummary {
            project: dataset.project.clone(),
            dataset: dataset.dataset.clone(),
            table: id.clone(),
            rows: table.row_count(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;

    #[tokio::test]
    async fn a_router_answers_without_a_connection_and_shares_nothing_with_another() {
        let call = async |router: axum::Router, what: Request<Body>| {
            let answer = TowerToHyperService::new(router).call(what).await.unwrap();
            answer.status().as_u16()
        };
        let first = router(Options::default());
        let dataset = r#"{"datasetReference": {"projectId": "p", "datasetId": "d"}}"#;
        let create = Request::post("/projects/p/datasets").body(Body::from(dataset)).unwrap();
        assert_eq!(call(first.clone(), create).await, 200);
        let look = || Request::get("/projects/p/datasets/d/tables").body(Body::empty()).unwrap();
        assert_eq!(call(first, look()).await, 200);
        assert_eq!(call(router(Options::default()), look()).await, 404);
    }
}
