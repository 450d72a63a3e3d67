//! Counts of what was asked for, for tests that drive the server from outside.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value as Json, json};

use crate::faults::Method;
use crate::store::TableName;

/// The most pairs of method and table that are counted one by one.
const MOST_COUNTERS: usize = 10_000;
/// The most streams whose appends are counted one by one.
const MOST_STREAMS: usize = 10_000;

/// Requests since the start.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    counters: BTreeMap<(Method, Option<TableName>), u64>,
    running_insert_alls: u64,
    most_insert_alls: u64,
    appends: BTreeMap<String, Appends>,
    connections: Connections,
}

/// What was appended to a stream, whether or not it was taken.
#[derive(Debug, Default)]
struct Appends {
    requests: u64,
    rows: u64,
    bytes: u64,
}

/// `AppendRows` connections.
#[derive(Debug, Default)]
struct Connections {
    opened: u64,
    open: u64,
    most: u64,
}

/// Counts something that lasts, until it is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    traffic: Arc<Mutex<Traffic>>,
    what: Lasting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lasting {
    InsertAll,
    Connection,
    Nothing,
}

fn locked(traffic: &Mutex<Traffic>) -> std::sync::MutexGuard<'_, Traffic> {
    traffic.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Traffic {
    /// Counts a request.
    pub(crate) fn enter(traffic: &Arc<Mutex<Traffic>>, method: Method, table: Option<&TableName>) -> Running {
        let mut counts = locked(traffic);
        counts.count(method, table);
        let is_insert_all = method == Method::InsertAll;
        if is_insert_all {
            counts.running_insert_alls += 1;
            counts.most_insert_alls = counts.most_insert_alls.max(counts.running_insert_alls);
        }
        let what = if is_insert_all { Lasting::InsertAll } else { Lasting::Nothing };
        Running { traffic: Arc::clone(traffic), what }
    }

    /// Counts an `AppendRows` connection.
    pub(crate) fn connect(traffic: &Arc<Mutex<Traffic>>) -> Running {
        let connections = &mut locked(traffic).connections;
        connections.opened += 1;
        connections.open += 1;
        connections.most = connections.most.max(connections.open);
        Running { traffic: Arc::clone(traffic), what: Lasting::Connection }
    }

    fn count(&mut self, method: Method, table: Option<&TableName>) {
        let key = (method, table.cloned());
        // Beyond the bound only the method is counted.
        let key = if self.counters.len() < MOST_COUNTERS || self.counters.contains_key(&key) {
            key
        } else {
            (method, None)
        };
        *self.counters.entry(key).or_default() += 1;
    }

    /// Counts a request of an `AppendRows` connection.
    pub(crate) fn append(&mut self, stream: &str, table: Option<&TableName>, rows: u64, bytes: u64) {
        self.count(Method::AppendRows, table);
        let known = self.appends.len() < MOST_STREAMS || self.appends.contains_key(stream);
        // Beyond the bound all others are counted together.
        let appends = self.appends.entry(if known { stream.to_owned() } else { String::new() }).or_default();
        appends.requests += 1;
        appends.rows = appends.rows.saturating_add(rows);
        appends.bytes = appends.bytes.saturating_add(bytes);
    }

    pub(crate) fn document(&self) -> Json {
        let requests: Vec<Json> = self
            .counters
            .iter()
            .map(|((method, table), count)| {
                json!({ "method": method, "table": table.as_ref().map(ToString::to_string), "count": count })
            })
            .collect();
        let appends: Vec<Json> = self
            .appends
            .iter()
            .map(|(stream, Appends { requests, rows, bytes })| {
                json!({ "stream": stream, "requests": requests, "rows": rows, "bytes": bytes })
            })
            .collect();
        let Connections { opened, open, most } = self.connections;
        json!({
            "requests": requests,
            "largest_concurrent_insert_all": self.most_insert_alls,
            "appends": appends,
            "append_connections": { "opened": opened, "open": open, "most_open": most },
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut counts = locked(&self.traffic);
        match self.what {
            Lasting::InsertAll => {
                counts.running_insert_alls = counts.running_insert_alls.saturating_sub(1);
            }
            Lasting::Connection => {
                counts.connections.open = counts.connections.open.saturating_sub(1);
            }
            Lasting::Nothing => {}
        }
    }
}
