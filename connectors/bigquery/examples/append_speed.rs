//! How fast rows travel through the Storage Write API, and what that costs the client.
//!
//! ```sh
//! cargo run --release -p txconnect-bigquery --example append_speed -- [rows per batch] [batches in flight] [delay in ms]
//! ```
//! The server is the local BigQuery in another process, counting rows only. Rows are encoded once and sent again and
//! again, so that the figures are those of the way from a full batch to its confirmation.

#![expect(clippy::print_stdout, reason = "figures are what this is for")]
#![expect(clippy::unwrap_used, reason = "a measurement fails by panicking")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;
use txconnect_bigquery::{BigQueryConfig, BigQuerySink};
use txconnect_connector_api::batch::Row;
use txconnect_connector_api::schema::UnknownFields;
use txconnect_connector_api::{
    Appended, Batch, Document, Member, Number, Object, Record, RowSource, Sink as _, StreamPosition,
    TableSchema, Value,
};
use txconnect_local_bigquery::{Fault, LocalBigQuery, Method, Options, What};

/// How long one way is measured.
const MEASURED: Duration = Duration::from_secs(4);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if arguments.first().is_some_and(|argument| argument == "--serve") {
        runtime.block_on(serve(arguments[1].parse().unwrap()));
        return;
    }
    let number =
        |index: usize, usual: usize| arguments.get(index).map_or(usual, |text| text.parse().unwrap());
    let (rows, in_flight, delay) = (number(0, 500), number(1, 16), number(2, 0));
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args(["--serve", &delay.to_string()])
        .stdout(Stdio::piped())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut address = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut address).unwrap();
    println!("{rows} rows a batch, {in_flight} batches in flight, {delay} ms for each answer");
    runtime.block_on(measure(address.trim(), rows, in_flight));
    // The server ends with its input.
    drop(server.stdin.take());
    server.wait().unwrap();
}

async fn serve(delay: u64) {
    let server = LocalBigQuery::start(Options { count_only: true, ..Options::default() }).await.unwrap();
    if delay > 0 {
        server.script(Fault::new(Method::AppendRows, What::LateReply { ms: delay }));
    }
    println!("{}", server.base_url());
    tokio::task::spawn_blocking(|| std::io::stdin().lock().lines().count()).await.unwrap();
}

fn schema() -> TableSchema {
    let schema = json!({
        "required": ["transaction_id", "account_id", "amount", "created_at"],
        "properties": {
            "transaction_id": { "type": "string" },
            "account_id": { "type": "string" },
            "amount": { "x-column": { "type": "numeric", "precision": 18, "scale": 2 } },
            "created_at": { "type": "string", "format": "date-time" },
            "status": { "type": "string" }
        }
    });
    TableSchema::from_json_schema(&schema, UnknownFields::DeadLetter).unwrap()
}

fn batch(sink: &BigQuerySink, topic: &str, rows: usize) -> Batch {
    let members = [
        Member { name: "transaction_id", value: Document::String("5f2b1b6e-8f6e-4c39-9d3b-2f5a0a4f7e10") },
        Member { name: "account_id", value: Document::String("c0a8012a-1f4e-4a52-9a41-6e6d0a1b2c3d") },
        Member { name: "amount", value: Document::Number(Number::from_literal("1234.56")) },
        Member { name: "created_at", value: Document::String("2026-11-23T21:00:00.123456Z") },
        Member { name: "status", value: Document::String("processed") },
    ];
    let document = Document::Object(Object::new(&members));
    let mut encoder = sink.encoder(topic, Some(&schema())).unwrap();
    let mut batch = Batch::new(sink.table(topic));
    for offset in 0..i64::try_from(rows).unwrap() {
        let value = Value::Json { text: "", document: &document };
        let record =
            Record { topic, partition: 0, offset, row: 0, timestamp: None, key: None, headers: &[], value };
        encoder.encode(&record, &mut batch.bytes).unwrap();
        let source = RowSource { slot: 0, offset, record: 0 };
        batch.rows.push(Row { end: batch.bytes.len(), source });
    }
    batch
}

fn sink(address: &str, delivery: &str) -> BigQuerySink {
    let config = json!({ "project": "p", "dataset": "d", "endpoint": address, "delivery": delivery });
    let config: BigQueryConfig = serde_json::from_value(config).unwrap();
    BigQuerySink::new(config, Path::new("."), &|_| None).unwrap()
}

/// CPU time of this process so far, in seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

struct Measurement {
    begun: Instant,
    cpu: f64,
    rows: AtomicU64,
    bytes: usize,
}

impl Measurement {
    fn begin(bytes: usize) -> Self {
        Self { begun: Instant::now(), cpu: cpu_seconds(), rows: AtomicU64::new(0), bytes }
    }

    fn goes_on(&self) -> bool {
        self.begun.elapsed() < MEASURED
    }

    fn tell(&self, what: &str) {
        let (seconds, cpu) = (self.begun.elapsed().as_secs_f64(), cpu_seconds() - self.cpu);
        let rows = self.rows.load(Ordering::Relaxed) as f64;
        println!(
            "{what:24} {:8.0} rows/s  {:6.1} MB/s  {:6.3} µs CPU a row  ({} bytes a row)",
            rows / seconds,
            rows * self.bytes as f64 / seconds / 1e6,
            cpu / rows * 1e6,
            self.bytes
        );
    }
}

async fn measure(address: &str, rows: usize, in_flight: usize) {
    default_stream(address, rows, in_flight, 1).await;
    default_stream(address, rows, in_flight, 4).await;
    buffered_streams(address, rows, in_flight, 1).await;
    buffered_streams(address, rows, in_flight, 4).await;
}

async fn default_stream(address: &str, rows: usize, in_flight: usize, tables: usize) {
    let sink = sink(address, "at_least_once");
    let topics: Vec<String> = (0..tables).map(|table| format!("default_{table}")).collect();
    for topic in &topics {
        sink.prepare(topic, Some(&schema())).await.unwrap();
    }
    let mut batches: Vec<Batch> =
        (0..in_flight).map(|index| batch(&sink, &topics[index % tables], rows)).collect();
    let bytes = batches[0].bytes.len() / rows;
    let writer = sink.writer("speed");
    let measurement = Measurement::begin(bytes);
    join_all(batches.iter_mut().map(async |batch| {
        while measurement.goes_on() {
            writer.write(std::slice::from_mut(batch), &[]).await.unwrap();
            measurement.rows.fetch_add(rows as u64, Ordering::Relaxed);
        }
    }))
    .await;
    measurement.tell(&format!("default, {tables} tables"));
}

async fn buffered_streams(address: &str, rows: usize, in_flight: usize, streams: usize) {
    let sink = sink(address, "exactly_once");
    let topic = format!("buffered_{streams}");
    sink.prepare(&topic, Some(&schema())).await.unwrap();
    let all = sink.streams().unwrap();
    let bytes = batch(&sink, &topic, rows).bytes.len() / rows;
    let measurement = Measurement::begin(bytes);
    let write = async |_| {
        let stream = all.open(&sink.table(&topic)).await.unwrap();
        let next = Arc::new(AtomicU64::new(0));
        let mut batches: Vec<Batch> =
            (0..(in_flight / streams).max(1)).map(|_| batch(&sink, &topic, rows)).collect();
        join_all(batches.iter_mut().map(async |batch| {
            while measurement.goes_on() {
                let offset = next.fetch_add(rows as u64, Ordering::Relaxed).cast_signed();
                let to = StreamPosition { stream: stream.clone(), offset };
                let appended = all.append(&to, batch).await;
                assert!(matches!(appended, Appended::Stored), "{appended:?}");
                measurement.rows.fetch_add(rows as u64, Ordering::Relaxed);
            }
        }))
        .await;
        let end = next.load(Ordering::Relaxed).cast_signed();
        all.publish(&stream, end).await.unwrap();
    };
    join_all((0..streams).map(write)).await;
    measurement.tell(&format!("buffered, {streams} streams"));
}
