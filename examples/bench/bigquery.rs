//! The BigQuery that contenders write to: `txconnect local-bigquery`, which counts rows and keeps none, in a process of
//! its own for each run of a contender.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::Trouble;
use super::broker::TOPIC;
use super::contender::{Contender, Kind, Ours, Place, Way};
use super::processes::Family;

/// The project of all contenders.
pub(crate) const PROJECT: &str = "bench";
/// Their dataset.
pub(crate) const DATASET: &str = "bench";

/// How long the server may take for an answer.
const DEADLINE: Duration = Duration::from_secs(20);
/// What the server says first.
const ADDRESS: &str = "BIGQUERY_EMULATOR_HOST=";
/// Every call that a contender makes.
const CALLS: [&str; 10] = [
    "datasets.get",
    "datasets.insert",
    "tables.get",
    "tables.insert",
    "tables.patch",
    "tabledata.insertAll",
    "CreateWriteStream",
    "AppendRows",
    "FlushRows",
    "FinalizeWriteStream",
];

/// A server that runs. Dropping it ends it.
pub(crate) struct BigQuery {
    process: Child,
    address: String,
    client: reqwest::Client,
}

/// What a contender has left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// Rows that can be seen.
    pub(crate) rows: u64,
    /// `AppendRows` requests, or calls of insertAll.
    pub(crate) requests: u64,
    /// Streams that were not finalized.
    open_streams: u64,
    /// Rows in streams, seen or not.
    appended: u64,
    /// Rows in streams that can be seen.
    flushed: u64,
}

impl BigQuery {
    /// Starts an empty server whose calls take as long as the contender wants.
    pub(crate) async fn start(contender: &Contender, place: &Place) -> Result<Self, Trouble> {
        let mut command = place.dying_with_us(&place.txconnect);
        command.args(["local-bigquery", "--count-only", "--listen", "127.0.0.1:0"]);
        let latency = contender.latency();
        if latency > 0 {
            let faults: Vec<Value> = CALLS
                .iter()
                .map(|method| json!({ "method": method, "what": { "slow": { "ms": latency } } }))
                .collect();
            let script = place.folder.join("latency.json");
            fs::write(&script, Value::from(faults).to_string())?;
            command.arg("--faults").arg(script);
        }
        let log = fs::File::create(place.folder.join("local-bigquery.log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut process = command.spawn()?;
        let stdout = process.stdout.take().ok_or("the local BigQuery has no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().strip_prefix(ADDRESS).unwrap_or_default().to_owned();
        let client = reqwest::Client::builder().timeout(DEADLINE).build()?;
        let server = Self { process, address, client };
        if server.address.is_empty() {
            return Err("the local BigQuery does not say where it listens; see local-bigquery.log".into());
        }
        if contender.kind == Kind::OldWay {
            server.make_table().await?;
        }
        Ok(server)
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn family(&self) -> Family {
        Family::of(self.process.id())
    }

    /// The old way expects its table.
    async fn make_table(&self) -> Result<(), Trouble> {
        let base = format!("http://{}/bigquery/v2/projects/{PROJECT}/datasets", self.address);
        let dataset = json!({ "projectId": PROJECT, "datasetId": DATASET });
        let columns = [
            ("transaction_id", "STRING"),
            ("account_id", "STRING"),
            ("counterparty_account_id", "STRING"),
            ("amount", "INTEGER"),
            ("inserted_at", "INTEGER"),
        ];
        let fields = columns.map(|(name, kind)| json!({ "name": name, "type": kind }));
        let table = json!({ "projectId": PROJECT, "datasetId": DATASET, "tableId": TOPIC });
        let wanted = [
            (base.clone(), json!({ "datasetReference": dataset })),
            (
                format!("{base}/{DATASET}/tables"),
                json!({ "tableReference": table, "schema": { "fields": fields } }),
            ),
        ];
        for (address, body) in wanted {
            self.client.post(address).json(&body).send().await?.error_for_status()?;
        }
        Ok(())
    }

    async fn get(&self, path: &str) -> Result<Value, Trouble> {
        let answer = self.client.get(format!("http://{}{path}", self.address)).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    /// How many rows can be seen.
    pub(crate) async fn rows(&self) -> Result<u64, Trouble> {
        Ok(sum(&self.get("/__tables").await?, "rows"))
    }

    pub(crate) async fn received(&self) -> Result<Received, Trouble> {
        let streams = self.get("/__streams").await?;
        let calls = self.get("/__requests").await?;
        let writes =
            |call: &&Value| matches!(call["method"].as_str(), Some("AppendRows" | "tabledata.insertAll"));
        Ok(Received {
            rows: self.rows().await?,
            requests: elements(&calls["requests"])
                .iter()
                .filter(writes)
                .filter_map(|call| call["count"].as_u64())
                .sum(),
            open_streams: elements(&streams).iter().filter(|stream| stream["finalized"] != true).count()
                as u64,
            appended: sum(&streams, "rows"),
            flushed: sum(&streams, "flushed"),
        })
    }
}

impl Drop for BigQuery {
    fn drop(&mut self) {
        // It holds nothing that anybody wants.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Received {
    /// What is wrong with it, in words; empty when every row was counted once.
    pub(crate) fn faults(&self, kind: &Kind, expected: u64) -> Vec<String> {
        let mut faults = Vec::new();
        if self.rows < expected {
            faults.push(format!("{} lost", expected - self.rows));
        }
        if self.rows > expected {
            faults.push(format!("{} doubled", self.rows - expected));
        }
        if *kind == Kind::Ours(Ours::BigQuery(Way::ExactlyOnce)) {
            if self.appended != expected || self.flushed != expected {
                faults.push(format!("{} rows in streams, {} of them published", self.appended, self.flushed));
            }
            if self.open_streams > 0 {
                faults.push(format!("{} streams not finalized", self.open_streams));
            }
        } else if self.appended > 0 {
            faults.push(format!("{} rows in streams of its own", self.appended));
        }
        faults
    }
}

fn elements(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

fn sum(list: &Value, field: &str) -> u64 {
    elements(list).iter().filter_map(|element| element[field].as_u64()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXACTLY_ONCE: Kind = Kind::Ours(Ours::BigQuery(Way::ExactlyOnce));
    const UPSERT: Kind = Kind::Ours(Ours::BigQuery(Way::Upsert));

    #[test]
    fn losses_and_doubles_are_faults() {
        let seen = |rows| Received { rows, ..Received::default() }.faults(&UPSERT, 10);
        assert!(seen(10).is_empty());
        assert_eq!(seen(9), ["1 lost"]);
        assert_eq!(seen(12), ["2 doubled"]);
    }

    #[test]
    fn exactly_once_publishes_all_that_it_appends_and_finalizes_its_streams() {
        let right = Received { rows: 10, requests: 1, open_streams: 0, appended: 10, flushed: 10 };
        assert!(right.faults(&EXACTLY_ONCE, 10).is_empty());
        let behind = Received { appended: 12, open_streams: 1, ..right };
        assert_eq!(
            behind.faults(&EXACTLY_ONCE, 10),
            ["12 rows in streams, 10 of them published", "1 streams not finalized"]
        );
    }
}
