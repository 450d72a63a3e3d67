//! The local BigQuery as a place for tests.

use std::time::Duration;

use serde_json::{Value as Json, json};
use txconnect_bigquery::BigQuerySink;
use txconnect_local_bigquery::{Fault, LocalBigQuery, Method, Options, StatusCode, What};

use crate::support::{Place, sink};

pub(crate) fn no_environment(_: &str) -> Option<String> {
    None
}

pub(crate) async fn server() -> LocalBigQuery {
    LocalBigQuery::start(Options::default()).await.unwrap()
}

/// A sink into the dataset `d` of the project `p`.
pub(crate) fn sink_of(server: &LocalBigQuery, extra: &Json) -> BigQuerySink {
    let mut settings = json!({ "endpoint": server.base_url(), "timeout": "5s" });
    settings.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    sink(&settings, &no_environment)
}

pub(crate) fn place(server: &LocalBigQuery, extra: &Json) -> Place<'static> {
    let mut settings = json!({ "endpoint": server.base_url() });
    settings.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    Place {
        settings,
        environment: &no_environment,
        unique: "case".to_owned(),
        pause: Duration::from_millis(5),
        patience: Duration::from_mins(1),
    }
}

/// The ids of all visible rows, in order.
pub(crate) fn ids(server: &LocalBigQuery, table: &str) -> Vec<i64> {
    let rows = server.rows("p", "d", table).unwrap_or_default();
    let mut ids: Vec<i64> = rows.iter().map(|row| row["id"].as_i64().unwrap()).collect();
    ids.sort_unstable();
    ids
}

/// Lets the next calls of a method fail, or all of them.
pub(crate) fn script(server: &LocalBigQuery, method: Method, what: What, times: Option<u32>) {
    server.script(Fault { times, ..Fault::new(method, what) });
}

/// A call that ends with a status.
pub(crate) fn status(code: StatusCode, message: &str) -> What {
    What::Status { code, message: message.to_owned(), in_band: false }
}
