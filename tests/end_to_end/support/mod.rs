//! What the tests stand on: topics of a real Kafka, tables in a real PostgreSQL, a local BigQuery, and the built binary
//! as a process.

pub(crate) mod bigquery;
pub(crate) mod events;
pub(crate) mod kafka;
pub(crate) mod pipeline;
pub(crate) mod process;
pub(crate) mod tables;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) use bigquery::BigQuery;
pub(crate) use events::{Event, bad_events, event, events, ids, numbers};
pub(crate) use kafka::{Codec, Kafka, Topic};
pub(crate) use pipeline::{Pipeline, SHORT_SESSION, start_all};
pub(crate) use process::{Ended, Running, Signal, txconnect};
pub(crate) use tables::Tables;

/// Nothing that a test waits for takes this long: who waits longer has found a hanging program.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// Waits until `look` finds what it looks for.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited {} s in vain: {what}", LIMIT.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A name that nobody else has, in this run or another, and that topics, groups, pipelines and tables can all have.
pub(crate) fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let moment = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    format!("{name}-{moment:x}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Where the in-process servers and clients of all tests run.
fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    })
}
