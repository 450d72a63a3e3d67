//! What transforms cost: records through the stage of a lane, in batches of 500, each language and each way to interrupt.
//!
//! `./dev bench wasm` builds the transforms and runs this. Those that were not built are left out, and named.
#![forbid(unsafe_code)]
#![allow(clippy::print_stderr, reason = "it tells whoever has called it what is left out")]
#![allow(missing_docs, reason = "criterion's macros make public functions without any")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;
use txconnect::config::TransformSettings;
use txconnect::stages::transform::guest::WasmGuest;
use txconnect::stages::transform::{Chain, Input, Outcome, Step};
use txconnect_transform_host::{Host, InputRecord, Interrupt, Limits, LogLevel, Reports};

/// What a lane takes at once.
const RECORDS: usize = 500;

/// A payment event of 219 bytes, as the other benches have.
const VALUE: &str = r#"{"transaction_id":"e28cb031-4265-4e73-8fd9-a40cbca6e831","account_id":"4b051d57-d454-4ca1-b3b8-17b28156bc17","counterparty_account_id":"aad71e75-cde2-488e-a280-938ad5a104f2","amount":312221,"inserted_at":1788322741168}"#;

struct Records;

impl Input for Records {
    fn record(&self, index: usize) -> InputRecord<'_> {
        InputRecord {
            topic: "cash_ins",
            partition: 0,
            offset: i64::try_from(index).unwrap_or(i64::MAX),
            timestamp: Some(1_788_322_741_168),
            key: None,
            value: Some(VALUE.as_bytes()),
        }
    }

    fn headers(&self, _: usize) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        std::iter::empty()
    }
}

/// Nobody listens.
struct Deaf;

impl Reports for Deaf {
    fn log(&self, _: LogLevel, _: &str) {}
    fn count(&self, _: &str, _: u64) {}
}

/// Takes all records through a chain, looks at every row, and answers the rows' bytes.
fn run(chain: &mut Chain<WasmGuest>) -> usize {
    chain.begin(RECORDS);
    let mut bytes = 0;
    loop {
        match chain.step(&Records).expect("a transform has failed") {
            Step::Again => {}
            Step::Done => return bytes,
            Step::Part(mut part) => {
                while let Some(outcome) = part.take_next() {
                    let Outcome::Rows(rows) = outcome else { panic!("a record has failed: {outcome:?}") };
                    bytes += rows
                        .map(|row| {
                            part.row(row).value().map_or(VALUE.len(), |value| value.map_or(0, <[u8]>::len))
                        })
                        .sum::<usize>();
                }
            }
        }
    }
}

fn module(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("transforms/examples/{name}/{name}.wasm"));
    if path.exists() {
        return Some(path);
    }
    eprintln!("left out, because it was not built: {}", path.display());
    None
}

fn chain(host: &Host, names: &[&str], interrupt: Interrupt) -> Option<Chain<WasmGuest>> {
    let limits = Limits { interrupt, ..Limits::default() };
    let settings: Vec<TransformSettings> = names
        .iter()
        .map(|name| {
            let module = host.load(&module(name)?, limits, &[]).expect("the transform does not load");
            let config = match *name {
                "echo" => None,
                "cents_to_decimal" => Some(json!({"fields": ["amount"]})),
                _ => Some(json!({"fields": ["counterparty_account_id"]})),
            };
            Some(TransformSettings { module, config, limits })
        })
        .collect::<Option<_>>()?;
    Some(Chain::start(&settings, |_| Arc::new(Deaf)).expect("the transforms do not start"))
}

fn stage(criterion: &mut Criterion) {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("transforms");
    let host = Host::new(Some(&cache)).expect("there is no host");
    let mut group = criterion.benchmark_group("stage");
    group.throughput(Throughput::Elements(RECORDS as u64));
    let ways = [("epoch", Interrupt::Epoch), ("fuel", Interrupt::Fuel), ("none", Interrupt::None)];
    for name in ["echo", "mask_account"] {
        for (way, interrupt) in ways {
            if let Some(mut chain) = chain(&host, &[name], interrupt) {
                group.bench_function(BenchmarkId::new(name, way), |bencher| bencher.iter(|| run(&mut chain)));
            }
        }
    }
    for names in [&["mask_account", "cents_to_decimal"][..], &["mask_account_js"], &["mask_account_python"]] {
        if let Some(mut chain) = chain(&host, names, Interrupt::Epoch) {
            let id = BenchmarkId::new(names.join("+"), "epoch");
            group.bench_function(id, |bencher| bencher.iter(|| run(&mut chain)));
        }
    }
}

/// Loading what was compiled before, as every start of a pipeline does.
fn warm_start(criterion: &mut Criterion) {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("transforms");
    let mut group = criterion.benchmark_group("warm start");
    group.sample_size(20);
    for name in ["mask_account", "mask_account_js", "mask_account_python"] {
        let Some(path) = module(name) else { continue };
        let load = || {
            let host = Host::new(Some(&cache)).expect("there is no host");
            host.load(&path, Limits::default(), &[]).expect("the transform does not load")
        };
        drop(load());
        group.bench_function(name, |bencher| bencher.iter(load));
    }
}

criterion_group!(benches, stage, warm_start);
criterion_main!(benches);
