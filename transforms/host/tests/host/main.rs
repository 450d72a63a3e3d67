//! The host with guests of every kind: friendly ones, hostile ones, and files that are none.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod containment;
mod from_rust;
mod loading;
mod reporting;
mod rust_guest;
mod wat_guest;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value as Json;
use tempfile::TempDir;
use txconnect_connector_api::{ByteSize, HumanDuration};
use txconnect_transform_host::{
    Batch, Grant, Host, InputRecord, Interrupt, Limits, LogLevel, Module, ModuleError, Reports, Transform,
};
use wat_guest::WatGuest;

/// Ample time: no test waits for it unless a guest never ends.
const AMPLE: Duration = Duration::from_mins(1);

/// What a guest has told.
#[derive(Default)]
struct Heard {
    lines: Mutex<Vec<(LogLevel, String)>>,
    counts: Mutex<Vec<(String, u64)>>,
}

impl Reports for Heard {
    fn log(&self, level: LogLevel, message: &str) {
        self.lines.lock().unwrap().push((level, message.to_owned()));
    }

    fn count(&self, counter: &str, delta: u64) {
        self.counts.lock().unwrap().push((counter.to_owned(), delta));
    }
}

fn limits() -> Limits {
    Limits { memory: ByteSize(16 << 20), time_per_batch: HumanDuration(AMPLE), ..Limits::default() }
}

fn load_with(guest: &WatGuest, limits: Limits, allow: &[Grant]) -> Result<Arc<Module>, ModuleError> {
    let folder = TempDir::new().unwrap();
    load_file(&guest.write(folder.path()), limits, allow)
}

fn load_file(path: &Path, limits: Limits, allow: &[Grant]) -> Result<Arc<Module>, ModuleError> {
    Host::new(None).unwrap().load(path, limits, allow)
}

fn start(guest: &WatGuest) -> Transform {
    start_within(guest, limits())
}

fn start_within(guest: &WatGuest, limits: Limits) -> Transform {
    load_with(guest, limits, &[]).unwrap().start(None, Arc::new(Heard::default())).unwrap()
}

/// A batch of these values, of one topic, for a guest with no needs.
fn batch(values: &[&str]) -> Batch {
    let mut batch = Batch::default();
    for (offset, value) in (0..).zip(values) {
        let record = InputRecord {
            topic: "cash_ins",
            partition: 0,
            offset,
            timestamp: None,
            key: None,
            value: Some(value.as_bytes()),
        };
        batch.push(&record, []);
    }
    batch
}

fn interrupts() -> [Interrupt; 2] {
    [Interrupt::Epoch, Interrupt::Fuel]
}
