//! A local BigQuery in a process of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::{Arrived, DEADLINE, Mark, Row};
use crate::kafka::Partition;
use crate::process::{Process, Signal};
use crate::records::{self, Kind, REFUSED};

pub(crate) const PROJECT: &str = "chaos-project";
pub(crate) const DATASET: &str = "chaos";

/// What the local BigQuery says of a write stream.
#[derive(Debug, Deserialize)]
pub(crate) struct WriteStream {
    pub(crate) rows: i64,
    /// How many of them are visible.
    pub(crate) flushed: i64,
    pub(crate) finalized: bool,
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
        // The server closes connections on which nothing comes for a while, and rounds are long.
        let client = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        let server = Self { process, address, tables: tables.to_vec(), client, runtime };
        let what = json!({ "reject_value": { "field": "note", "value": REFUSED } });
        for method in ["tabledata.insertAll", "AppendRows"] {
            server.script(&json!({ "method": method, "what": what }));
        }
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

    pub(super) fn mark(&self) -> Mark {
        let tables: Json = serde_json::from_str(&self.get("/__tables").unwrap()).unwrap();
        let rows = |name: &String| {
            let found = tables.as_array().unwrap().iter().find(|table| table["table"] == name.as_str());
            found.map_or(0, |table| usize::try_from(table["rows"].as_u64().unwrap()).unwrap())
        };
        self.tables.iter().map(rows).collect()
    }

    pub(super) fn arrived(&self) -> Arrived {
        let mut arrived = Arrived::default();
        for (topic, table) in self.tables.iter().enumerate() {
            let text = self.get(&format!("/__rows/{PROJECT}/{DATASET}/{table}")).unwrap_or_default();
            let mut rows = Vec::new();
            for line in text.lines() {
                let row: Json = serde_json::from_str(line).unwrap();
                match row["id"].as_u64() {
                    Some(id) => {
                        let intact = Kind::of(id) == Kind::Good
                            && row["account"] == records::account(id)
                            && row["note"] == records::note(id).as_str();
                        rows.push(Row { id, place: place(&row, topic), intact });
                    }
                    None => arrived.strange.push(format!("table {table}: {line}")),
                }
            }
            arrived.streams.push(rows);
        }
        arrived.write_streams = serde_json::from_str(&self.get("/__streams").unwrap()).unwrap();
        arrived
    }
}

/// Where a row says that it came from, if it does.
fn place(row: &Json, topic: usize) -> Option<(Partition, i64)> {
    let number = i32::try_from(row["_kafka_partition"].as_i64()?).ok()?;
    Some((Partition { topic, number }, row["_kafka_offset"].as_i64()?))
}
