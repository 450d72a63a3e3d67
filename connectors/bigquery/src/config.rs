//! The `bigquery` block of a pipeline file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use schemars::JsonSchema;
use serde::Deserialize;
use txconnect_connector_api::{ConfigProblem, HumanDuration};

/// The variable that a table name may hold.
const TOPIC_VARIABLE: &str = "{topic}";

/// BigQuery's limit (<https://cloud.google.com/bigquery/docs/clustered-tables>).
const MAX_CLUSTER_COLUMNS: usize = 4;

/// Writes records into BigQuery tables, one table per topic by default.
///
/// Every record needs `decode: json` and a schema: the schema gives the columns. A record without a value
/// (a tombstone) makes no row and is counted as filtered.
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
    /// What a crash between the write and the commit of the Kafka offset may do.
    #[serde(default)]
    pub delivery: Delivery,
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
    /// Who we are. Default: `none` where `BIGQUERY_EMULATOR_HOST` gives the address or `endpoint` is an
    /// `http` address of this machine, else `application_default`.
    #[serde(default)]
    pub credentials: Option<Credentials>,
    /// Whether rows carry an id (`topic-partition-offset`) by which BigQuery recognises, on a best effort
    /// basis and for about a minute, a row that is sent again. Without ids BigQuery takes more rows a second.
    #[serde(default = "default_true")]
    pub insert_ids: bool,
    /// How many batches of one lane may be on their way at once, 1 to 64.
    #[serde(default = "default_in_flight")]
    #[schemars(range(min = 1, max = 64))]
    pub in_flight: u16,
    /// How request bodies are packed.
    #[serde(default)]
    pub compression: Compression,
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
    /// The streaming call `tabledata.insertAll`. BigQuery recommends batches of 500 rows.
    #[default]
    InsertAll,
}

/// What a record does to the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WriteMode {
    /// Every record is a new row.
    #[default]
    Append,
}

/// What a crash between the write and the commit of the Kafka offset may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// No record is lost; rows may be written a second time.
    #[default]
    AtLeastOnce,
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

fn default_true() -> bool {
    true
}

fn default_in_flight() -> u16 {
    4
}

fn default_timeout() -> HumanDuration {
    HumanDuration(Duration::from_mins(1))
}

impl BigQueryConfig {
    /// Mistakes that the types alone cannot show, all at once.
    pub fn problems(&self) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        let mut problem = |path: &str, message: String, help: &str| {
            problems.push(ConfigProblem { path: path.to_owned(), message, help: Some(help.to_owned()) });
        };
        if !self.project.starts_with(|c: char| c.is_ascii_alphanumeric())
            || !self.project.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | ':' | '.' | '_'))
        {
            problem(
                "/project",
                format!("`{}` is not a project id", self.project),
                "write the id of the project, such as `my-project-1`, not its display name",
            );
        }
        if self.dataset.is_empty()
            || self.dataset.len() > 1024
            || !self.dataset.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        {
            problem(
                "/dataset",
                format!("`{}` is not a dataset name", self.dataset),
                "a dataset name holds letters, digits and `_`, without the project",
            );
        }
        let fixed = self.table.replace(TOPIC_VARIABLE, "");
        if self.table.is_empty() {
            problem("/table", "the table has no name".to_owned(), "write a name or `{topic}`");
        } else if fixed.contains(['{', '}']) {
            problem(
                "/table",
                format!("`{}` holds a variable that is not known", self.table),
                "the only variable is `{topic}`",
            );
        } else if !fixed.chars().all(is_table_character) {
            problem(
                "/table",
                format!("`{}` is not a table name", self.table),
                "a table name holds letters, digits, `_` and `-`; the dataset has its own key",
            );
        }
        if self.cluster_by.len() > MAX_CLUSTER_COLUMNS {
            problem(
                "/cluster_by",
                format!("{} columns are too many", self.cluster_by.len()),
                "BigQuery clusters by at most four columns",
            );
        }
        for (index, column) in self.cluster_by.iter().enumerate() {
            if self.cluster_by[..index].iter().any(|earlier| earlier.eq_ignore_ascii_case(column)) {
                problem(
                    &format!("/cluster_by/{index}"),
                    format!("`{column}` is named twice"),
                    "name every column once",
                );
            }
        }
        if let Some(expiration) = self.partition_by.as_ref().and_then(|partition| partition.expiration)
            && expiration.0.is_zero()
        {
            problem(
                "/partition_by/expiration",
                "partitions would be deleted at once".to_owned(),
                "write a time such as `90d`, or leave it out to keep rows for ever",
            );
        }
        if !(1..=64).contains(&self.in_flight) {
            problem("/in_flight", format!("{} is not between 1 and 64", self.in_flight), "4 suits most");
        }
        if self.timeout.0 < Duration::from_secs(1) {
            problem("/timeout", format!("{} is too short for a request", self.timeout), "60s suits most");
        }
        for (key, value) in &self.labels {
            if !is_label(key) || key.is_empty() || !is_label(value) {
                problem(
                    &format!("/labels/{}", key.replace('~', "~0").replace('/', "~1")),
                    format!("`{key}: {value}` is not a label"),
                    "keys and values hold at most 63 lower-case letters, digits, `_` and `-`",
                );
            }
        }
        if let Some(endpoint) = &self.endpoint {
            match Endpoint::parse(endpoint) {
                Err(why) => {
                    problem("/endpoint", format!("`{endpoint}` {why}"), "write it as `http://host:port`");
                }
                Ok(endpoint) if endpoint.sends_tokens_in_clear(self.credentials.as_ref()) => problem(
                    "/endpoint",
                    "an access token would travel without encryption".to_owned(),
                    "use an `https` address, or `credentials: none` where the server is an emulator",
                ),
                Ok(_) => {}
            }
        }
        problems
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

fn is_label(text: &str) -> bool {
    text.chars().count() <= 63
        && text.chars().all(|c| c.is_alphanumeric() && !c.is_uppercase() || matches!(c, '_' | '-'))
}

/// Where the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The address up to and including `/bigquery/v2`, without a slash at the end.
    pub(crate) base: String,
    /// Whether the address is one of this machine.
    pub(crate) loopback: bool,
    encrypted: bool,
}

impl Endpoint {
    /// Reads an address. Where it has no path of its own, `/bigquery/v2` is added.
    pub(crate) fn parse(address: &str) -> Result<Self, &'static str> {
        let url = Url::parse(address).map_err(|_| "is not an address")?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("is neither an http nor an https address");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("holds a user name or password; credentials have their own key");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("holds more than a host, a port and a path");
        }
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let loopback = host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        let encrypted = url.scheme() == "https";
        let mut base = url.as_str().trim_end_matches('/').to_owned();
        if url.path() == "/" {
            base.push_str("/bigquery/v2");
        }
        Ok(Self { base, loopback, encrypted })
    }

    /// Google's own address.
    pub(crate) fn google() -> Self {
        let base = "https://bigquery.googleapis.com/bigquery/v2".to_owned();
        Self { base, loopback: false, encrypted: true }
    }

    /// Whether nobody has to say who they are, as long as the configuration does not say otherwise.
    pub(crate) fn is_local_plain(&self) -> bool {
        self.loopback && !self.encrypted
    }

    /// Whether an access token could be read on its way.
    pub(crate) fn sends_tokens_in_clear(&self, credentials: Option<&Credentials>) -> bool {
        !self.encrypted && !self.loopback && credentials != Some(&Credentials::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn config(extra: serde_json::Value) -> BigQueryConfig {
        let mut all = json!({ "project": "my-project", "dataset": "transactions" });
        let serde_json::Value::Object(extra) = extra else { panic!("an object") };
        all.as_object_mut().unwrap().extend(extra);
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn the_shortest_block_has_sensible_defaults() {
        let config = config(json!({}));
        assert_eq!(config.problems(), []);
        assert_eq!(config.table_name("cash_ins"), "cash_ins");
        assert_eq!(config.table_name("shop.orders-v1"), "shop_orders-v1");
        assert!(config.insert_ids);
        assert_eq!(config.in_flight, 4);
        assert_eq!(config.timeout.0, Duration::from_mins(1));
    }

    #[test]
    fn every_mistake_is_named_with_its_place() {
        let config = config(json!({
            "project": "My Project!", "dataset": "a.b", "table": "{tenant}_x",
            "cluster_by": ["a", "b", "c", "d", "A"], "in_flight": 0, "timeout": "10ms",
            "labels": { "Team": "x" }, "endpoint": "ftp://here",
            "partition_by": { "expiration": "0s" }
        }));
        let paths: Vec<String> = config.problems().into_iter().map(|problem| problem.path).collect();
        assert_eq!(
            paths,
            [
                "/project",
                "/dataset",
                "/table",
                "/cluster_by",
                "/cluster_by/4",
                "/partition_by/expiration",
                "/in_flight",
                "/timeout",
                "/labels/Team",
                "/endpoint"
            ]
        );
    }

    #[test]
    fn a_table_in_another_dataset_is_refused() {
        assert_eq!(config(json!({ "table": "other.t" })).problems()[0].path, "/table");
    }

    #[test]
    fn a_token_is_not_sent_in_clear_to_another_machine() {
        let open = json!({ "endpoint": "http://bigquery.internal:9050" });
        assert_eq!(config(open).problems()[0].path, "/endpoint");
        for fine in [
            json!({ "endpoint": "http://bigquery.internal:9050", "credentials": "none" }),
            json!({ "endpoint": "http://127.0.0.1:9050" }),
            json!({ "endpoint": "https://bigquery.internal" }),
        ] {
            assert_eq!(config(fine).problems(), []);
        }
    }

    #[test]
    fn an_address_without_a_path_gets_the_one_of_the_api() {
        for (address, base, loopback) in [
            ("http://localhost:9050", "http://localhost:9050/bigquery/v2", true),
            ("http://[::1]:9050/", "http://[::1]:9050/bigquery/v2", true),
            ("https://example.com/own/v2/", "https://example.com/own/v2", false),
        ] {
            let endpoint = Endpoint::parse(address).unwrap();
            assert_eq!((endpoint.base.as_str(), endpoint.loopback), (base, loopback));
        }
        assert!(Endpoint::parse("http://user:secret@host").is_err());
    }

    #[test]
    fn credentials_are_a_word_or_a_file() {
        assert_eq!(config(json!({ "credentials": "none" })).credentials, Some(Credentials::None));
        assert_eq!(
            config(json!({ "credentials": { "service_account_file": "key.json" } })).credentials,
            Some(Credentials::ServiceAccountFile("key.json".into()))
        );
    }

    #[test]
    fn unknown_keys_and_modes_that_do_not_work_are_refused() {
        for (key, value) in [("colour", "red"), ("api", "storage_write"), ("write", "upsert")] {
            let text = json!({ "project": "p", "dataset": "d", key: value });
            assert!(serde_json::from_value::<BigQueryConfig>(text).is_err(), "{key}");
        }
    }

    #[test]
    fn every_key_is_documented_for_users() {
        let schema = schemars::schema_for!(BigQueryConfig);
        let properties = schema.get("properties").and_then(serde_json::Value::as_object).unwrap();
        assert_eq!(properties.len(), 18);
        for (key, property) in properties {
            assert!(property.get("description").is_some(), "{key}");
        }
        assert_eq!(schema.get("required"), Some(&json!(["project", "dataset"])));
    }

    proptest! {
        #[test]
        fn table_names_hold_only_what_bigquery_takes(topic in "[a-zA-Z0-9._ä{}-]{1,40}") {
            let name = config(json!({})).table_name(&topic);
            prop_assert!(name.chars().all(is_table_character), "{}", name);
        }

        #[test]
        fn no_address_makes_the_reader_panic(address in any::<String>()) {
            let _ = Endpoint::parse(&address);
        }
    }
}
