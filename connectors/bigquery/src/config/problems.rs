//! Mistakes in the `bigquery` block that its types alone cannot show.

use std::time::Duration;

use txconnect_connector_api::ConfigProblem;

use super::{
    Api, BigQueryConfig, Delivery, Endpoint, KeyDecode, NewestBy, TOPIC_VARIABLE, WriteMode,
    is_table_character,
};

/// BigQuery's limit (<https://cloud.google.com/bigquery/docs/clustered-tables>).
const MAX_CLUSTER_COLUMNS: usize = 4;

/// BigQuery's limit (<https://cloud.google.com/bigquery/docs/primary-foreign-keys#limitations>).
const MAX_KEY_COLUMNS: usize = 16;

/// Mistakes found so far.
struct Problems(Vec<ConfigProblem>);

impl Problems {
    fn add(&mut self, path: &str, message: impl Into<String>, help: &str) {
        self.0.push(ConfigProblem {
            path: path.to_owned(),
            message: message.into(),
            help: Some(help.to_owned()),
        });
    }
}

impl BigQueryConfig {
    /// Mistakes that the types alone cannot show, all at once. Columns are looked at with the schema of a topic.
    pub fn problems(&self) -> Vec<ConfigProblem> {
        let mut problems = Problems(Vec::new());
        self.check_names(&mut problems);
        self.check_modes(&mut problems);
        self.check_key(&mut problems);
        self.check_layout(&mut problems);
        self.check_numbers(&mut problems);
        self.check_addresses(&mut problems);
        problems.0
    }

    fn check_names(&self, problems: &mut Problems) {
        if !self.project.starts_with(|c: char| c.is_ascii_alphanumeric())
            || !self.project.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | ':' | '.' | '_'))
        {
            problems.add(
                "/project",
                format!("`{}` is not a project id", self.project),
                "write the id of the project, such as `my-project-1`, not its display name",
            );
        }
        if self.dataset.is_empty()
            || self.dataset.len() > 1024
            || !self.dataset.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        {
            problems.add(
                "/dataset",
                format!("`{}` is not a dataset name", self.dataset),
                "a dataset name holds letters, digits and `_`, without the project",
            );
        }
        let fixed = self.table.replace(TOPIC_VARIABLE, "");
        if self.table.is_empty() {
            problems.add("/table", "the table has no name", "write a name or `{topic}`");
        } else if fixed.contains(['{', '}']) {
            problems.add(
                "/table",
                format!("`{}` holds a variable that is not known", self.table),
                "the only variable is `{topic}`",
            );
        } else if !fixed.chars().all(is_table_character) {
            problems.add(
                "/table",
                format!("`{}` is not a table name", self.table),
                "a table name holds letters, digits, `_` and `-`; the dataset has its own key",
            );
        }
    }

    /// Ways of writing that BigQuery does not have.
    fn check_modes(&self, problems: &mut Problems) {
        match (self.api, self.write) {
            (Api::InsertAll, WriteMode::Upsert) => problems.add(
                "/write",
                "`api: insert_all` only appends rows",
                "write `api: storage_write`, or `write: append`",
            ),
            (Api::StorageWrite, WriteMode::Upsert) if self.delivery == Some(Delivery::ExactlyOnce) => {
                problems.add(
                    "/delivery",
                    "BigQuery replaces rows only at least once",
                    "remove it: a row that is written again takes its own place and changes nothing",
                );
            }
            _ => {}
        }
        match self.api {
            Api::InsertAll => {
                if self.delivery == Some(Delivery::ExactlyOnce) {
                    problems.add(
                        "/delivery",
                        "`api: insert_all` may write a row a second time",
                        "write `api: storage_write`, or `delivery: at_least_once`",
                    );
                }
                if self.storage_endpoint.is_some() {
                    problems.add(
                        "/storage_endpoint",
                        "`api: insert_all` does not use the Storage Write API",
                        "remove it: `endpoint` is the address of `insert_all`",
                    );
                }
            }
            Api::StorageWrite => {
                if self.insert_ids.is_some() {
                    problems.add(
                        "/insert_ids",
                        "rows of `api: storage_write` have no ids",
                        "remove it: `delivery: exactly_once` keeps rows from being written twice",
                    );
                }
                if self.compression.is_some() {
                    problems.add(
                        "/compression",
                        "`api: storage_write` sends rows as protobuf, unpacked",
                        "remove it, or write `api: insert_all`",
                    );
                }
            }
        }
    }

    /// The key and what only works with it.
    fn check_key(&self, problems: &mut Problems) {
        let upsert = self.write == WriteMode::Upsert;
        if upsert && self.key.is_empty() {
            problems.add(
                "/write",
                "rows with the same key cannot be recognised without `key`",
                "name the columns: `key: [id]`",
            );
        }
        if !upsert && !self.key.is_empty() {
            problems.add(
                "/key",
                "`write: append` makes a new row of every record and has no key",
                "remove `key`, or write `write: upsert`",
            );
        }
        if self.key.len() > MAX_KEY_COLUMNS {
            problems.add(
                "/key",
                format!("{} columns are too many", self.key.len()),
                "BigQuery has primary keys of at most 16 columns",
            );
        }
        for (index, column) in self.key.iter().enumerate() {
            if names(&self.key[..index], column) {
                let path = format!("/key/{index}");
                problems.add(&path, format!("`{column}` is named twice"), "name every column once");
            }
        }
        let only_upsert = [
            ("/newest_by", self.newest_by() != NewestBy::Offset, "replaces rows"),
            ("/delete_on_tombstone", self.delete_on_tombstone, "deletes rows"),
            ("/max_staleness", self.max_staleness.is_some(), "changes rows that are there already"),
        ];
        for (path, _, does) in only_upsert.into_iter().filter(|(_, is_set, _)| *is_set && !upsert) {
            let message = format!("only `write: upsert` {does}");
            problems.add(path, message, "remove it, or write `write: upsert`");
        }
        if let NewestBy::Column(column) = self.newest_by()
            && upsert
        {
            if names(&self.key, column) {
                problems.add(
                    "/newest_by",
                    format!("`{column}` is part of the key, so it is the same in both rows"),
                    "name another column, or write `offset` or `timestamp`",
                );
            } else if self.delete_on_tombstone {
                problems.add(
                    "/delete_on_tombstone",
                    format!("a record without a value has no `{column}`, so it would never be the newer one"),
                    "write `newest_by: offset` or `newest_by: timestamp`, which every record has",
                );
            }
        }
        match self.key_decode {
            Some(_) if !self.delete_on_tombstone => problems.add(
                "/key_decode",
                "the record's key is read only where it deletes rows",
                "remove it, or write `delete_on_tombstone: true`",
            ),
            Some(KeyDecode::String) if self.key.len() > 1 => problems.add(
                "/key_decode",
                format!("one text does not give {} columns", self.key.len()),
                "write `key_decode: json` for keys such as {\"a\": 1, \"b\": 2}",
            ),
            _ => {}
        }
        if let Some(staleness) = self.max_staleness
            && staleness.0.subsec_nanos() > 0
        {
            problems.add(
                "/max_staleness",
                format!("{staleness} is no whole number of seconds"),
                "15m suits most; `0s` applies every row at once",
            );
        }
    }

    fn check_layout(&self, problems: &mut Problems) {
        for (index, column) in self.kafka_columns.iter().enumerate() {
            if self.kafka_columns[..index].contains(column) {
                problems.add(
                    &format!("/kafka_columns/{index}"),
                    format!("`{}` is named twice", column.name()),
                    "name every column once",
                );
            }
        }
        if self.cluster_by.len() > MAX_CLUSTER_COLUMNS {
            problems.add(
                "/cluster_by",
                format!("{} columns are too many", self.cluster_by.len()),
                "BigQuery clusters by at most four columns",
            );
        }
        for (index, column) in self.cluster_by.iter().enumerate() {
            if names(&self.cluster_by[..index], column) {
                problems.add(
                    &format!("/cluster_by/{index}"),
                    format!("`{column}` is named twice"),
                    "name every column once",
                );
            }
        }
        if let Some(expiration) = self.partition_by.as_ref().and_then(|partition| partition.expiration)
            && expiration.0.is_zero()
        {
            problems.add(
                "/partition_by/expiration",
                "partitions would be deleted at once",
                "write a time such as `90d`, or leave it out to keep rows for ever",
            );
        }
        for (key, value) in &self.labels {
            if !is_label(key) || key.is_empty() || !is_label(value) {
                problems.add(
                    &format!("/labels/{}", key.replace('~', "~0").replace('/', "~1")),
                    format!("`{key}: {value}` is not a label"),
                    "keys and values hold at most 63 lower-case letters, digits, `_` and `-`",
                );
            }
        }
    }

    fn check_numbers(&self, problems: &mut Problems) {
        if let Some(in_flight) = self.in_flight.filter(|in_flight| !(1..=64).contains(in_flight)) {
            problems.add(
                "/in_flight",
                format!("{in_flight} is not between 1 and 64"),
                "leave it out: the usual number suits most",
            );
        }
        if self.timeout.0 < Duration::from_secs(1) {
            problems.add(
                "/timeout",
                format!("{} is too short for a request", self.timeout),
                "60s suits most",
            );
        }
    }

    fn check_addresses(&self, problems: &mut Problems) {
        let addresses = [
            ("/endpoint", &self.endpoint, Endpoint::parse as fn(&str) -> _),
            ("/storage_endpoint", &self.storage_endpoint, Endpoint::parse_without_path),
        ];
        for (path, address, parse) in addresses {
            let Some(address) = address else { continue };
            match parse(address) {
                Err(why) => {
                    problems.add(path, format!("`{address}` {why}"), "write it as `http://host:port`");
                }
                Ok(endpoint) if endpoint.sends_tokens_in_clear(self.credentials.as_ref()) => problems.add(
                    path,
                    "an access token would travel without encryption",
                    "use an `https` address, or `credentials: none` where the server is an emulator",
                ),
                Ok(_) => {}
            }
        }
    }
}

/// Whether `column` is among the columns, whose names BigQuery compares without regard to case.
fn names(columns: &[String], column: &str) -> bool {
    columns.iter().any(|other| other.eq_ignore_ascii_case(column))
}

fn is_label(text: &str) -> bool {
    text.chars().count() <= 63
        && text.chars().all(|c| c.is_alphanumeric() && !c.is_uppercase() || matches!(c, '_' | '-'))
}
