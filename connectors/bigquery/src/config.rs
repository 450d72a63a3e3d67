//! The `bigquery` block of a pipeline file.

mod endpoint;
mod problems;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use txconnect_connector_api::{HumanDuration, KafkaColumn};

pub use endpoint::StorageEndpoint;
pub(crate) use endpoint::{EMULATOR_VARIABLE, Endpoint};

/// The variable that a table name may hold.
const TOPIC_VARIABLE: &str = "{topic}";

/// The word of `newest_by` that means the position in Kafka.
const OFFSET: &str = "offset";

/// The word of `newest_by` that means Kafka's time of the record.
const TIMESTAMP: &str = "timestamp";

/// How far behind a table may be where the block does not say. BigQuery's advice is the larger of what its readers bear
/// and twice the time of a background apply plus seven minutes
/// (<https://cloud.google.com/bigquery/docs/change-data-capture#recommended-max-staleness>): this leaves four minutes
/// for an apply.
const USUAL_STALENESS: Duration = Duration::from_mins(15);

/// Writes records into BigQuery tables, one table per topic by default.
///
/// Every record needs `decode: json` and a schema: the schema gives the columns. A record without a value
/// (a tombstone) makes no row and is counted as filtered, unless `delete_on_tombstone` says otherwise.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BigQueryConfig {
    /// The Google Cloud project that owns the dataset.
    pub project: String,
    /// The dataset that holds the tables.
    pub dataset: String,
    /// The table's name. `{topic}` stands for the topic; characters of the topic that a table name does not
    /// take (all but letters, digits, `_` and `-`) become `_`, so `shop.orders` goes to `shop_orders`.
    #[serde(default = "default_table")]
    pub table: String,
    /// How rows reach BigQuery.
    #[serde(default)]
    pub api: Api,
    /// What a record does to the table.
    #[serde(default)]
    pub write: WriteMode,
    /// What a crash between the write and the commit of the Kafka offset may do. Default: `exactly_once` for
    /// `api: storage_write` with `write: append`, else `at_least_once`, which loses nothing for `write: upsert` either:
    /// a row that is written again takes its own place.
    #[serde(default)]
    pub delivery: Option<Delivery>,
    /// The columns that make a row the same row, for `write: upsert`: at most 16, the primary key of the table. They
    /// hold no null.
    #[serde(default)]
    pub key: Vec<String>,
    /// Which of two rows with one key is the newer one, for `write: upsert`: `offset`, the record that comes later in
    /// its partition; `timestamp`, the record with the later time in Kafka; or the name of a column, whose larger value
    /// wins, null being the smallest. Where they are equal, the record that comes later. Records with one key belong
    /// in one partition; where several topics share the table, use `timestamp` or a column.
    #[serde(default = "default_newest_by")]
    pub newest_by: String,
    /// Whether a record without a value deletes the row whose key the record's key gives, for `write: upsert`. BigQuery
    /// remembers a deletion for two days: an older row that is written again after that is there until its tombstone
    /// is read again too.
    #[serde(default)]
    pub delete_on_tombstone: bool,
    /// How a record's key gives the key columns, for `delete_on_tombstone`. Default: `json`.
    #[serde(default)]
    pub key_decode: Option<KeyDecode>,
    /// How far behind a query may see a table that is created here, for `write: upsert`, in whole seconds. `0s`: every
    /// query applies the latest rows itself, which costs more. Default: `15m`.
    #[serde(default)]
    pub max_staleness: Option<HumanDuration>,
    /// Columns that say where a row came from: `topic`, `partition`, `offset`, `timestamp` give `_kafka_topic`,
    /// `_kafka_partition`, `_kafka_offset` and `_kafka_timestamp`. Default: none.
    #[serde(default)]
    pub kafka_columns: Vec<KafkaColumn>,
    /// What is done about a table that is missing.
    #[serde(default)]
    pub table_changes: TableChanges,
    /// How a table that is created here is partitioned. Default: not at all.
    #[serde(default)]
    pub partition_by: Option<PartitionBy>,
    /// Columns that a table created here is clustered by, at most four, the most selective first.
    #[serde(default)]
    pub cluster_by: Vec<String>,
    /// Where a dataset that is created here lives and where queries run, for example `EU` or `us-east1`.
    /// Default: BigQuery's own choice.
    #[serde(default)]
    pub location: Option<String>,
    /// Labels of a table that is created here.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Base address of the server, for example `http://localhost:9050`. Default: the variable
    /// `BIGQUERY_EMULATOR_HOST` (`host:port` or an address) where it is set, else Google's.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Address of the server for `api: storage_write`, for example `http://localhost:9050`. Default: host and port of
    /// `endpoint` or `BIGQUERY_EMULATOR_HOST` where that is an `http` address, else Google's.
    #[serde(default)]
    pub storage_endpoint: Option<String>,
    /// Who we are. Default: `none` where `BIGQUERY_EMULATOR_HOST` gives the address or `endpoint` is an
    /// `http` address of this machine, else `application_default`.
    #[serde(default)]
    pub credentials: Option<Credentials>,
    /// Whether rows carry an id (`topic-partition-offset`) by which BigQuery recognises, on a best effort
    /// basis and for about a minute, a row that is sent again. Without ids BigQuery takes more rows a second. Only for
    /// `api: insert_all`. Default: `true`.
    #[serde(default)]
    pub insert_ids: Option<bool>,
    /// How many batches of one lane may be on their way at once, 1 to 64. Default: 4 for `api: insert_all`, 16 for
    /// `api: storage_write`.
    #[serde(default)]
    #[schemars(range(min = 1, max = 64))]
    pub in_flight: Option<u16>,
    /// How request bodies are packed. Only for `api: insert_all`. Default: `fast`.
    #[serde(default)]
    pub compression: Option<Compression>,
    /// What becomes of a time that is finer than a microsecond, which is all that BigQuery keeps.
    #[serde(default)]
    pub finer_times: FinerTimes,
    /// How long one request may take, at least `1s`.
    #[serde(default = "default_timeout")]
    pub timeout: HumanDuration,
}

/// How rows reach BigQuery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// The Storage Write API: rows travel as protobuf, which costs half as much and, for small rows, far less.
    #[default]
    StorageWrite,
    /// The streaming call `tabledata.insertAll`. BigQuery recommends batches of 500 rows.
    InsertAll,
}

/// What a record does to the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WriteMode {
    /// Every record is a new row.
    #[default]
    Append,
    /// A row whose key is there already takes its place, if it is the newer one.
    Upsert,
}

/// What a crash between the write and the commit of the Kafka offset may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// No record is lost and none is written twice: rows become visible with the Kafka commit that counts them.
    ExactlyOnce,
    /// No record is lost; rows may be written a second time.
    AtLeastOnce,
}

/// How a record's key gives the key columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyDecode {
    /// A JSON object with the key's fields, or the value alone where the key is one column.
    #[default]
    Json,
    /// Text as it is, where the key is one column.
    String,
}

/// Which of two rows with one key is the newer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewestBy<'a> {
    /// The record that comes later.
    Offset,
    /// The record with the later time in Kafka; where they are equal, the record that comes later.
    Timestamp,
    /// The row with the larger value in this column; where they are equal, the record that comes later.
    Column(&'a str),
}

/// What is done about a table that is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TableChanges {
    /// Nothing: the pipeline fails and prints the statement that creates the table.
    None,
    /// The table, and the dataset around it, are created from the schema.
    #[default]
    Create,
}

/// How a table is partitioned.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PartitionBy {
    /// A date or timestamp column. Default: the time at which BigQuery takes the row.
    #[serde(default)]
    pub column: Option<String>,
    /// How long a partition is.
    #[serde(default, rename = "type")]
    pub granularity: PartitionType,
    /// Partitions older than this are deleted, with their rows. Default: never.
    #[serde(default)]
    pub expiration: Option<HumanDuration>,
}

/// How long a partition is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PartitionType {
    /// A day.
    #[default]
    Day,
    /// An hour; timestamp columns only.
    Hour,
    /// A month.
    Month,
    /// A year.
    Year,
}

impl PartitionType {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Day => "DAY",
            Self::Hour => "HOUR",
            Self::Month => "MONTH",
            Self::Year => "YEAR",
        }
    }
}

/// Who we are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Credentials {
    /// Google's order of places: the file that `GOOGLE_APPLICATION_CREDENTIALS` names, the file that
    /// `gcloud auth application-default login` wrote, the metadata server of the machine.
    ApplicationDefault,
    /// Nobody: for emulators.
    None,
    /// The key file of a service account, relative to the pipeline file.
    ServiceAccountFile(PathBuf),
}

/// How request bodies are packed. BigQuery counts its limits before packing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// gzip at its fastest level: about a fifth of the bytes.
    #[default]
    Fast,
    /// Rows travel as they are, in a gzip frame: for a server on the same machine.
    None,
}

/// What becomes of a time that is finer than a microsecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FinerTimes {
    /// The record is bad.
    #[default]
    BadRecord,
    /// The digits behind the microsecond are dropped.
    Truncate,
}

fn default_table() -> String {
    TOPIC_VARIABLE.to_owned()
}

fn default_newest_by() -> String {
    OFFSET.to_owned()
}

fn default_timeout() -> HumanDuration {
    HumanDuration(Duration::from_mins(1))
}

impl BigQueryConfig {
    /// What a crash between the write and the commit of the Kafka offset may do.
    pub fn delivery(&self) -> Delivery {
        self.delivery.unwrap_or(match (self.api, self.write) {
            (Api::StorageWrite, WriteMode::Append) => Delivery::ExactlyOnce,
            (Api::StorageWrite, WriteMode::Upsert) | (Api::InsertAll, _) => Delivery::AtLeastOnce,
        })
    }

    /// Which of two rows with one key is the newer one.
    pub fn newest_by(&self) -> NewestBy<'_> {
        match self.newest_by.as_str() {
            OFFSET => NewestBy::Offset,
            TIMESTAMP => NewestBy::Timestamp,
            column => NewestBy::Column(column),
        }
    }

    /// How far behind a query may see a table that is created here, for `write: upsert`.
    pub fn max_staleness(&self) -> Duration {
        self.max_staleness.map_or(USUAL_STALENESS, |staleness| staleness.0)
    }

    /// How many batches of one lane may be on their way at once, at least 1.
    pub fn in_flight(&self) -> usize {
        let usual = match self.api {
            Api::StorageWrite => 16,
            Api::InsertAll => 4,
        };
        usize::from(self.in_flight.unwrap_or(usual).max(1))
    }

    /// The rows of a batch where the pipeline file does not say.
    pub fn usual_rows(&self) -> u32 {
        match self.api {
            Api::StorageWrite => 5_000,
            Api::InsertAll => 500,
        }
    }

    /// Whether rows carry an id, for `api: insert_all`.
    pub fn insert_ids(&self) -> bool {
        self.insert_ids.unwrap_or(true)
    }

    /// How request bodies are packed, for `api: insert_all`.
    pub fn compression(&self) -> Compression {
        self.compression.unwrap_or_default()
    }

    /// The table's name for `topic`, without the dataset.
    pub(crate) fn table_name(&self, topic: &str) -> String {
        let topic: String = topic.chars().map(|c| if is_table_character(c) { c } else { '_' }).collect();
        self.table.replace(TOPIC_VARIABLE, &topic)
    }
}

fn is_table_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

#[cfg(test)]
mod tests;
