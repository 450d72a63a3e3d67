//! What a transform costs: the border alone, real work beside the same in native code, and a start.
//!
//! `cargo bench -p txconnect-transform-host` prints the time of a call and, as throughput, records in a second.

#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "criterion's macros make public functions without any")]

#[path = "../tests/host/rust_guest.rs"]
mod rust_guest;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rust_guest::rust_guest;
use serde_json::{Map, Value};
use tempfile::TempDir;
use txconnect_transform_host::{
    Batch, Column, Host, InputRecord, Interrupt, Limits, LogLevel, Needs, Reports, Transform,
};

const TIME: Duration = Duration::from_mins(1);
const MODES: [Interrupt; 3] = [Interrupt::None, Interrupt::Epoch, Interrupt::Fuel];

struct Deaf;

impl Reports for Deaf {
    fn log(&self, _: LogLevel, _: &str) {}
    fn count(&self, _: &str, _: u64) {}
}

/// A value of about 200 bytes.
fn value(number: u32) -> String {
    format!(
        r#"{{"id":"0b8a0c5e-7c1d-4f0e-9d55-{number:012}","account_id":"acc-{number:08}","counterparty_account_id":"acc-{:08}","amount_cents":{},"currency":"EUR","created_at":1700000{number:06},"test":false}}"#,
        number + 17,
        number * 31 + 100
    )
}

fn batch(records: u32, needs: Needs) -> Batch {
    let mut batch = Batch::default();
    batch.clear(needs);
    for number in 0..records {
        let value = value(number);
        let record = InputRecord {
            topic: "cash_ins",
            partition: 0,
            offset: i64::from(number),
            timestamp: Some(1_700_000_000_000),
            key: Some(b"acc-000001"),
            value: Some(value.as_bytes()),
        };
        batch.push(&record, []);
    }
    batch
}

fn started(package: &str, interrupt: Interrupt) -> Transform {
    let host = Host::new(None).expect("a host");
    let limits = Limits { interrupt, ..Limits::default() };
    let module = host.load(&rust_guest(package), limits, &[]).expect("a module");
    module.start(None, Arc::new(Deaf)).expect("a guest")
}

fn calls(criterion: &mut Criterion, package: &str) {
    let mut group = criterion.benchmark_group(package);
    for records in [1, 500] {
        group.throughput(Throughput::Elements(u64::from(records)));
        for interrupt in MODES {
            let mut transform = started(package, interrupt);
            let batch = batch(records, transform.module().description().needs);
            group.bench_function(
                BenchmarkId::new(format!("{interrupt:?}").to_lowercase(), records),
                |bencher| {
                    bencher.iter(|| transform.call(black_box(&batch), TIME).expect("an output"));
                },
            );
        }
    }
    group.finish();
}

/// What the guest `json_edit` does.
fn edited(batch: &Batch) -> Column {
    let mut edited = Column::default();
    for index in 0..batch.len() {
        let bytes = batch.values().get(index).unwrap_or_default();
        let mut object: Map<String, Value> = serde_json::from_slice(bytes).expect("an object");
        if object.get("test") == Some(&Value::Bool(true)) {
            continue;
        }
        object.remove("counterparty_account_id");
        object.insert("edited".to_owned(), Value::Bool(true));
        edited.push(Some(&serde_json::to_vec(&object).expect("JSON")));
    }
    edited
}

fn border(criterion: &mut Criterion) {
    calls(criterion, "echo_batches");
    calls(criterion, "echo_records");
}

fn work(criterion: &mut Criterion) {
    calls(criterion, "json_edit");
    let mut group = criterion.benchmark_group("json_edit");
    group.throughput(Throughput::Elements(500));
    let batch = batch(500, Needs::default());
    group.bench_function(BenchmarkId::new("native", 500), |bencher| {
        bencher.iter(|| edited(black_box(&batch)));
    });
    group.finish();
}

fn start(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("start");
    group.sample_size(10);
    let path = std::env::var_os("GUEST").map_or_else(|| rust_guest("json_edit"), Into::into);
    let limits = Limits::default();
    let cache = TempDir::new().expect("a folder");
    let kept = cache.path().join("kept");
    group.bench_function("cold", |bencher| {
        bencher.iter(|| Host::new(None).expect("a host").load(&path, limits, &[]).expect("a module"));
    });
    Host::new(Some(&kept)).expect("a host").load(&path, limits, &[]).expect("a module");
    group.bench_function("warm", |bencher| {
        bencher.iter(|| {
            let host = Host::new(Some(&kept)).expect("a host");
            let module = host.load(&path, limits, &[]).expect("a module");
            module.start(None, Arc::new(Deaf)).map_err(|error| error.to_string())
        });
    });
    let host = Host::new(None).expect("a host");
    let module = host.load(&path, limits, &[]).expect("a module");
    group.bench_function("instance", |bencher| {
        bencher.iter(|| module.start(None, Arc::new(Deaf)).map_err(|error| error.to_string()));
    });
    group.finish();
}

criterion_group!(benches, border, work, start);
criterion_main!(benches);
