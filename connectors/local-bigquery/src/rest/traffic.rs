//! Counts of what was asked for, for tests that drive the server from outside.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value as Json, json};

use crate::faults::Method;
use crate::store::TableName;

/// The most pairs of method and table that are counted one by one.
const MOST_COUNTERS: usize = 10_000;

/// Requests since the start.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    counters: BTreeMap<(Method, Option<TableName>), u64>,
    running_insert_alls: u64,
    most_insert_alls: u64,
}

/// Counts a running insertAll until it is dropped.
#[derive(Debug)]
pub(super) struct Running {
    traffic: Option<Arc<Mutex<Traffic>>>,
}

impl Traffic {
    /// Counts a request.
    pub(super) fn enter(traffic: &Arc<Mutex<Traffic>>, method: Method, table: Option<&TableName>) -> Running {
        let mut counts = traffic.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (method, table.cloned());
        // Beyond the bound only the method is counted.
        let key = if counts.counters.len() < MOST_COUNTERS || counts.counters.contains_key(&key) {
            key
        } else {
            (method, None)
        };
        *counts.counters.entry(key).or_default() += 1;
        let is_insert_all = method == Method::InsertAll;
        if is_insert_all {
            counts.running_insert_alls += 1;
            counts.most_insert_alls = counts.most_insert_alls.max(counts.running_insert_alls);
        }
        Running { traffic: is_insert_all.then(|| Arc::clone(traffic)) }
    }

    pub(super) fn document(&self) -> Json {
        let requests: Vec<Json> = self
            .counters
            .iter()
            .map(|((method, table), count)| {
                json!({ "method": method, "table": table.as_ref().map(ToString::to_string), "count": count })
            })
            .collect();
        json!({ "requests": requests, "largest_concurrent_insert_all": self.most_insert_alls })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(traffic) = &self.traffic {
            let mut counts = traffic.lock().unwrap_or_else(PoisonError::into_inner);
            counts.running_insert_alls = counts.running_insert_alls.saturating_sub(1);
        }
    }
}
