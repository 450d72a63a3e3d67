//! Where the rows go: a local BigQuery in a process of its own, or the standard outputs of the members.
//!
//! What arrived is a list of streams, one per table or per process, each in the order of arrival.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::kafka::Partition;
use crate::process::{Process, Signal};
use crate::records::{self, Kind, REFUSED};

pub(crate) const PROJECT: &str = "chaos-project";
pub(crate) const DATASET: &str = "chaos";

/// For calls to the local BigQuery.
const DEADLINE: Duration = Duration::from_secs(30);

/// One row as it arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) id: u64,
    /// Where the row says that it came from; only standard output says so.
    pub(crate) place: Option<(Partition, i64)>,
    /// Whether it holds exactly what the record held.
    pub(crate) intact: bool,
}

/// How far each stream had come at some moment.
pub(crate) type Mark = Vec<usize>;

/// What arrived.
pub(crate) struct Arrived {
    pub(crate) streams: Vec<Vec<Row>>,
    /// What should not be there at all.
    pub(crate) strange: Vec<String>,
}

/// The local BigQuery.
pub(crate) struct BigQuery {
    process: Process,
    address: String,
    tables: Vec<String>,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl BigQuery {
    pub(crate) fn start(folder: &Path, tables: &[String]) -> Self {
        let arguments = ["local-bigquery", "--listen", "127.0.0.1:0"];
        let mut process = Process::start(&arguments, &[], folder.join("bigquery.log"), Stdio::piped());
        let mut lines = BufReader::new(process.take_stdout()).lines();
        let line = lines.next().expect("the local BigQuery says where it listens").unwrap();
        let address = line.strip_prefix("BIGQUERY_EMULATOR_HOST=").expect("an address").to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = reqwest::Client::new();
        let server = Self { process, address, tables: tables.to_vec(), client, runtime };
        let what = json!({ "reject_value": { "field": "note", "value": REFUSED } });
        server.script(&json!({ "method": "tabledata.insertAll", "what": what }));
        server
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Adds a fault, or a list of them, to what it still has to do.
    pub(crate) fn script(&self, fault: &Json) {
        let url = format!("http://{}/__faults", self.address);
        let request = self.client.post(url).timeout(DEADLINE).body(fault.to_string());
        let answer = self.runtime.block_on(async { request.send().await.unwrap() });
        assert!(answer.status().is_success(), "{fault}: {}", answer.status());
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    fn get(&self, path: &str) -> Option<String> {
        let request = self.client.get(format!("http://{}{path}", self.address)).timeout(DEADLINE);
        self.runtime.block_on(async {
            let answer = request.send().await.unwrap();
            if !answer.status().is_success() {
                return None;
            }
            Some(answer.text().await.unwrap())
        })
    }

    fn mark(&self) -> Mark {
        let tables: Json = serde_json::from_str(&self.get("/__tables").unwrap()).unwrap();
        let rows = |name: &String| {
            let found = tables.as_array().unwrap().iter().find(|table| table["table"] == name.as_str());
            found.map_or(0, |table| usize::try_from(table["rows"].as_u64().unwrap()).unwrap())
        };
        self.tables.iter().map(rows).collect()
    }

    fn arrived(&self) -> Arrived {
        let mut arrived = Arrived { streams: Vec::new(), strange: Vec::new() };
        for table in &self.tables {
            let text = self.get(&format!("/__rows/{PROJECT}/{DATASET}/{table}")).unwrap_or_default();
            let mut rows = Vec::new();
            for line in text.lines() {
                let row: Json = serde_json::from_str(line).unwrap();
                match row["id"].as_u64() {
                    Some(id) => {
                        let intact = Kind::of(id) == Kind::Good && row["note"] == records::note(id).as_str();
                        rows.push(Row { id, place: None, intact });
                    }
                    None => arrived.strange.push(format!("table {table}: {line}")),
                }
            }
            arrived.streams.push(rows);
        }
        arrived
    }
}

/// Reads the standard outputs of all members, and can be told to read nothing for a while.
#[derive(Default)]
pub(crate) struct Pipes {
    shared: Arc<PipesShared>,
    readers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct PipesShared {
    paused: AtomicBool,
    streams: Mutex<Vec<Vec<Row>>>,
    strange: Mutex<Vec<String>>,
}

impl Pipes {
    /// Takes over the output of a process.
    pub(crate) fn add(&mut self, pipe: ChildStdout, topics: &[String]) {
        let shared = Arc::clone(&self.shared);
        let stream = {
            let mut streams = shared.streams.lock().unwrap();
            streams.push(Vec::new());
            streams.len() - 1
        };
        let topics = topics.to_vec();
        self.readers.push(std::thread::spawn(move || read(pipe, &topics, stream, &shared)));
    }

    pub(crate) fn pause(&self, paused: bool) {
        self.shared.paused.store(paused, Ordering::Relaxed);
    }
}

fn read(pipe: ChildStdout, topics: &[String], stream: usize, shared: &PipesShared) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        while shared.paused.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
        line.clear();
        reader.by_ref().read_until(b'\n', &mut line).unwrap();
        // What follows the last line break was cut off when the process was killed.
        if line.pop() != Some(b'\n') {
            return;
        }
        match row(&line, topics) {
            Some(row) => shared.streams.lock().unwrap()[stream].push(row),
            None => shared.strange.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned()),
        }
    }
}

/// A line of standard output with its envelope.
fn row(line: &[u8], topics: &[String]) -> Option<Row> {
    let line: Json = serde_json::from_slice(line).ok()?;
    let id = line["key"].as_str()?.parse().ok()?;
    let topic = topics.iter().position(|topic| line["topic"] == topic.as_str())?;
    let number = i32::try_from(line["partition"].as_i64()?).ok()?;
    let intact = match Kind::of(id) {
        Kind::Good | Kind::Refused => {
            line["value"]["id"] == id && line["value"]["note"] == records::note(id).as_str()
        }
        Kind::Tombstone => line["value"].is_null(),
        Kind::Broken | Kind::WrongType => false,
    };
    Some(Row { id, place: Some((Partition { topic, number }, line["offset"].as_i64()?)), intact })
}

/// Either of the two.
pub(crate) enum Sink {
    BigQuery(BigQuery),
    Pipes(Pipes),
}

impl Sink {
    /// Whether a record of this kind becomes a row.
    pub(crate) fn takes(&self, kind: Kind) -> bool {
        match self {
            Self::BigQuery(_) => kind == Kind::Good,
            Self::Pipes(_) => matches!(kind, Kind::Good | Kind::Refused | Kind::Tombstone),
        }
    }

    /// Whether a record of this kind becomes a dead letter.
    pub(crate) fn refuses(&self, kind: Kind) -> bool {
        match kind {
            Kind::Broken | Kind::WrongType => true,
            Kind::Refused => matches!(self, Self::BigQuery(_)),
            Kind::Good | Kind::Tombstone => false,
        }
    }

    pub(crate) fn mark(&self) -> Mark {
        match self {
            Self::BigQuery(server) => server.mark(),
            Self::Pipes(pipes) => pipes.shared.streams.lock().unwrap().iter().map(Vec::len).collect(),
        }
    }

    /// Everything that arrived; the members have ended.
    pub(crate) fn arrived(&mut self) -> Arrived {
        match self {
            Self::BigQuery(server) => server.arrived(),
            Self::Pipes(pipes) => {
                let end = Instant::now() + DEADLINE;
                for reader in pipes.readers.drain(..) {
                    while !reader.is_finished() {
                        assert!(Instant::now() < end, "a pipe of a process that has ended is still open");
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    reader.join().unwrap();
                }
                Arrived {
                    streams: pipes.shared.streams.lock().unwrap().clone(),
                    strange: pipes.shared.strange.lock().unwrap().clone(),
                }
            }
        }
    }
}
