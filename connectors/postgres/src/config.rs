//! The `postgres` block of a pipeline file.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use txconnect_connector_api::{ConfigProblem, HumanDuration, KafkaColumn, Secret};

use crate::plan::{MAX_NAME_BYTES, TableName, name_problem};

/// The variable that a table name may hold.
const TOPIC_VARIABLE: &str = "{topic}";

/// The words of `newest_by` that name no column of the schema.
const OFFSET: &str = "offset";
const TIMESTAMP: &str = "timestamp";

/// The table of positions, in [`PostgresConfig::offsets_schema`].
pub const OFFSETS_TABLE: &str = "txconnect_offsets";

/// PostgreSQL's limit for the columns of an index (`INDEX_MAX_KEYS`).
const MAX_KEY_COLUMNS: usize = 32;

/// Writes records into PostgreSQL tables, one table per topic by default.
///
/// Every record needs `decode: json` and a schema: the schema gives the columns. A record without a value
/// (a tombstone) makes no row and is counted as filtered, unless `delete_on_tombstone` says otherwise.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// How to connect: `postgresql://user:password@host:5432/database?sslmode=verify-full`, or the same as
    /// `host=… dbname=…`. Several hosts are tried in turn.
    pub url: Secret,
    /// The schema that holds the tables. Made with them if it is missing.
    #[serde(default = "default_schema")]
    pub schema: String,
    /// The table's name, exactly as written: capitals stay capitals. `{topic}` stands for the topic.
    #[serde(default = "default_table")]
    pub table: String,
    /// What a record does to the table.
    #[serde(default)]
    pub write: WriteMode,
    /// The columns that make a row the same row, for `insert_ignore` and `upsert`: the primary key of a table that is
    /// made here, a unique index of one that is there.
    #[serde(default)]
    pub key: Vec<String>,
    /// Which of two rows with one key is the newer one, for `upsert`: `offset` (the default), the record that comes later;
    /// `timestamp`, the later of the times that Kafka keeps with the records, for which `kafka_columns` needs
    /// `timestamp`; or the name of a column, whose larger value wins. Where they are equal it is the record that comes
    /// later; no time and NULL are older than everything else.
    #[serde(default)]
    pub newest_by: Option<String>,
    /// Columns that say where a row came from, behind those of the schema: `topic`, `partition`, `offset` and `timestamp`
    /// become `_kafka_topic`, `_kafka_partition`, `_kafka_offset` and `_kafka_timestamp`. Default: none.
    #[serde(default)]
    pub kafka_columns: Vec<KafkaColumn>,
    /// Whether a record without a value deletes the row whose key the record's key gives, for `upsert`.
    #[serde(default)]
    pub delete_on_tombstone: bool,
    /// How a record's key gives the key columns, for `delete_on_tombstone`. Default: `json`.
    #[serde(default)]
    pub key_decode: Option<KeyDecode>,
    /// What a crash may do.
    #[serde(default)]
    pub delivery: Delivery,
    /// What is done about a table that is missing.
    #[serde(default)]
    pub table_changes: TableChanges,
    /// The schema that holds the table `txconnect_offsets`. Default: as `schema`.
    #[serde(default)]
    pub offsets_schema: Option<String>,
    /// How long the server may take for one step, and how long it may leave rows that are on their way untouched; at
    /// least `1s`.
    #[serde(default = "default_timeout")]
    pub timeout: HumanDuration,
}

/// What a record does to the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WriteMode {
    /// Every record is a new row.
    #[default]
    Append,
    /// A row whose key is there already changes nothing.
    InsertIgnore,
    /// A row whose key is there already takes its place.
    Upsert,
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

/// What a crash may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Rows and Kafka offsets are committed in one transaction: no record is lost and none is written twice.
    #[default]
    ExactlyOnce,
    /// No record is lost; rows may be written a second time.
    AtLeastOnce,
}

/// What is done about a table that is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TableChanges {
    /// Nothing: the pipeline fails and prints the statements that create the table.
    None,
    /// The table, and the schema around it, are created from the record's schema.
    #[default]
    Create,
}

/// Which of two rows with one key is the newer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewestBy<'a> {
    /// The record that comes later.
    Offset,
    /// The record with which Kafka keeps the later time; where they are equal, the record that comes later.
    Timestamp,
    /// The row with the larger value in this column; where they are equal, the record that comes later.
    Column(&'a str),
}

fn default_schema() -> String {
    "public".to_owned()
}

fn default_table() -> String {
    TOPIC_VARIABLE.to_owned()
}

fn default_timeout() -> HumanDuration {
    HumanDuration(Duration::from_secs(30))
}

impl PostgresConfig {
    /// Mistakes that the types alone cannot show, all at once. Names that depend on the topic are looked at by
    /// [`crate::plan::TablePlan::new`].
    pub fn problems(&self) -> Vec<ConfigProblem> {
        let mut problems = Problems(Vec::new());
        if self.url.expose().trim().is_empty() {
            problems.add(
                "/url",
                "the address is empty".to_owned(),
                "write `${PG_URL}` and set PG_URL to `postgresql://user:password@host:5432/database`",
            );
        }
        problems.check_name("/schema", &self.schema, true);
        if let Some(schema) = &self.offsets_schema {
            problems.check_name("/offsets_schema", schema, true);
            if self.delivery == Delivery::AtLeastOnce {
                problems.add(
                    "/offsets_schema",
                    "with `delivery: at_least_once` no offsets are kept in the database".to_owned(),
                    "remove it, or write `delivery: exactly_once`",
                );
            }
        }
        let fixed = self.table.replace(TOPIC_VARIABLE, "");
        if fixed.contains(['{', '}']) {
            problems.add(
                "/table",
                format!("`{}` holds a variable that is not known", self.table),
                "the only variable is `{topic}`",
            );
        } else if self.table == fixed || fixed.len() > MAX_NAME_BYTES || fixed.contains('\0') {
            problems.check_name("/table", &self.table, false);
        }
        self.check_key(&mut problems);
        self.check_kafka_columns(&mut problems);
        if self.timeout.0 < Duration::from_secs(1) {
            problems.add("/timeout", format!("{} is too short for a server", self.timeout), "30s suits most");
        }
        problems.0
    }

    fn check_key(&self, problems: &mut Problems) {
        let keyed = self.write != WriteMode::Append;
        if keyed && self.key.is_empty() {
            problems.add(
                "/write",
                "rows with the same key cannot be recognised without `key`".to_owned(),
                "name the columns: `key: [id]`",
            );
        }
        if !keyed && !self.key.is_empty() {
            problems.add(
                "/key",
                "`write: append` makes a new row of every record and has no key".to_owned(),
                "remove `key`, or write `write: upsert` or `write: insert_ignore`",
            );
        }
        if self.key.len() > MAX_KEY_COLUMNS {
            problems.add(
                "/key",
                format!("{} columns are too many", self.key.len()),
                "PostgreSQL has indexes of at most 32 columns",
            );
        }
        for (index, column) in self.key.iter().enumerate() {
            let path = format!("/key/{index}");
            problems.check_name(&path, column, false);
            if self.key[..index].contains(column) {
                problems.add(&path, format!("`{column}` is named twice"), "name every column once");
            }
        }
        self.check_newest_by(problems);
        let upsert = self.write == WriteMode::Upsert;
        if self.delete_on_tombstone && !upsert {
            problems.add(
                "/delete_on_tombstone",
                "only `write: upsert` deletes rows".to_owned(),
                "remove it, or write `write: upsert`",
            );
        }
        if self.delete_on_tombstone && self.key.iter().any(|key| self.kafka_column(key).is_some()) {
            problems.add(
                "/delete_on_tombstone",
                "no record has the coordinates of another one, so it deletes nothing with this key"
                    .to_owned(),
                "remove it, or take columns of the schema for `key`",
            );
        }
        match self.key_decode {
            Some(_) if !self.delete_on_tombstone => problems.add(
                "/key_decode",
                "the record's key is read only where it deletes rows".to_owned(),
                "remove it, or write `delete_on_tombstone: true`",
            ),
            Some(KeyDecode::String) if self.key.len() > 1 => problems.add(
                "/key_decode",
                format!("one text does not give {} columns", self.key.len()),
                "write `key_decode: json` for keys such as {\"a\": 1, \"b\": 2}",
            ),
            _ => {}
        }
    }

    fn check_newest_by(&self, problems: &mut Problems) {
        const PLACE: &str = "/newest_by";
        let newest_by = self.newest_by();
        if newest_by != NewestBy::Offset && self.write != WriteMode::Upsert {
            problems.add(
                PLACE,
                "only `write: upsert` replaces rows".to_owned(),
                "remove it, or write `write: upsert`",
            );
        }
        match newest_by {
            NewestBy::Offset => {}
            NewestBy::Timestamp => {
                if !self.kafka_columns.contains(&KafkaColumn::Timestamp) {
                    problems.add(
                        PLACE,
                        "`timestamp` is the time that Kafka keeps with a record, and the table does not have it"
                            .to_owned(),
                        "add `kafka_columns: [timestamp]`; a column of the schema that is called so needs another name \
                         in the schema, `x-column: {name: …}`, to be named here",
                    );
                }
            }
            NewestBy::Column(column) => {
                if self.write == WriteMode::Upsert && self.key.iter().any(|key| key == column) {
                    problems.add(
                        PLACE,
                        format!("`{column}` is part of the key, so it is the same in both rows"),
                        "name another column, or `offset`",
                    );
                } else if self.kafka_column(column).is_some() {
                    problems.add(
                        PLACE,
                        format!("`{column}` is no column of the schema"),
                        "write `timestamp` for the time that Kafka keeps, or `offset` for the record that comes later",
                    );
                }
                problems.check_name(PLACE, column, false);
            }
        }
    }

    fn check_kafka_columns(&self, problems: &mut Problems) {
        for (index, column) in self.kafka_columns.iter().enumerate() {
            if self.kafka_columns[..index].contains(column) {
                problems.add(
                    &format!("/kafka_columns/{index}"),
                    format!("`{}` is asked for twice", column.name()),
                    "name every column once",
                );
            }
        }
    }

    /// The one of `kafka_columns` that has this name in the table.
    fn kafka_column(&self, name: &str) -> Option<KafkaColumn> {
        self.kafka_columns.iter().copied().find(|column| column.name() == name)
    }

    /// The table that takes the records of `topic`.
    pub fn table_name(&self, topic: &str) -> TableName {
        TableName { schema: self.schema.clone(), table: self.table.replace(TOPIC_VARIABLE, topic) }
    }

    /// The table that keeps the positions.
    pub fn offsets_table(&self) -> TableName {
        let schema = self.offsets_schema.as_ref().unwrap_or(&self.schema).clone();
        TableName { schema, table: OFFSETS_TABLE.to_owned() }
    }

    /// Which of two rows with one key is the newer one.
    pub fn newest_by(&self) -> NewestBy<'_> {
        match self.newest_by.as_deref() {
            None | Some(OFFSET) => NewestBy::Offset,
            Some(TIMESTAMP) => NewestBy::Timestamp,
            Some(column) => NewestBy::Column(column),
        }
    }

    /// The word of `newest_by` where it is written and stands for something of Kafka's.
    pub(crate) fn kafka_word(&self) -> Option<&str> {
        self.newest_by.as_deref().filter(|word| [OFFSET, TIMESTAMP].contains(word))
    }
}

/// Mistakes found so far.
struct Problems(Vec<ConfigProblem>);

impl Problems {
    fn add(&mut self, path: &str, message: String, help: &str) {
        self.0.push(ConfigProblem { path: path.to_owned(), message, help: Some(help.to_owned()) });
    }

    fn check_name(&mut self, path: &str, name: &str, schema: bool) {
        if let Some(why) = name_problem(name) {
            self.add(
                path,
                format!("`{}` is not a name: {why}", name.escape_debug()),
                "write the name as PostgreSQL stores it, without quotes",
            );
        } else if schema && (name.starts_with("pg_") || name == "information_schema") {
            self.add(path, format!("the schema `{name}` is PostgreSQL's own"), "name another schema");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(extra: serde_json::Value) -> PostgresConfig {
        let mut all = json!({ "url": "postgresql://localhost/db" });
        let serde_json::Value::Object(extra) = extra else { panic!("an object") };
        all.as_object_mut().unwrap().extend(extra);
        serde_json::from_value(all).unwrap()
    }

    fn paths(extra: serde_json::Value) -> Vec<String> {
        config(extra).problems().into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn the_shortest_block_has_sensible_defaults() {
        let config = config(json!({}));
        assert_eq!(config.problems(), []);
        assert_eq!(config.write, WriteMode::Append);
        assert_eq!(config.delivery, Delivery::ExactlyOnce);
        assert_eq!(config.newest_by(), NewestBy::Offset);
        assert_eq!(config.timeout.0, Duration::from_secs(30));
        assert_eq!(config.table_name("Shop.Orders").to_string(), r#""public"."Shop.Orders""#);
        assert_eq!(config.offsets_table().to_string(), r#""public"."txconnect_offsets""#);
    }

    #[test]
    fn every_mistake_is_named_with_its_place() {
        assert_eq!(
            paths(json!({
                "url": " ", "schema": "pg_catalog", "table": "{tenant}", "offsets_schema": "",
                "delivery": "at_least_once", "key": ["a", "a", ""], "newest_by": "at",
                "delete_on_tombstone": true, "timeout": "10ms"
            })),
            [
                "/url",
                "/schema",
                "/offsets_schema",
                "/offsets_schema",
                "/table",
                "/key",
                "/key/1",
                "/key/2",
                "/newest_by",
                "/delete_on_tombstone",
                "/timeout"
            ]
        );
        let long = "ä".repeat(32);
        assert_eq!(paths(json!({ "schema": long, "table": long })), ["/schema", "/table"]);
        assert_eq!(paths(json!({ "table": "{topic}\u{0}" })), ["/table"]);
    }

    #[test]
    fn modes_with_a_key_need_one_and_its_companions_make_sense() {
        for (extra, path) in [
            (json!({ "write": "upsert" }), "/write"),
            (json!({ "write": "insert_ignore" }), "/write"),
            (json!({ "write": "upsert", "key": ["id"], "newest_by": "id" }), "/newest_by"),
            (json!({ "write": "insert_ignore", "key": ["id"], "newest_by": "at" }), "/newest_by"),
            (
                json!({ "write": "insert_ignore", "key": ["id"], "delete_on_tombstone": true }),
                "/delete_on_tombstone",
            ),
            (json!({ "write": "upsert", "key": ["id"], "key_decode": "json" }), "/key_decode"),
            (
                json!({ "write": "upsert", "key": ["a", "b"], "delete_on_tombstone": true, "key_decode": "string" }),
                "/key_decode",
            ),
        ] {
            assert_eq!(paths(extra.clone()), [path], "{extra}");
        }
        for (extra, path) in [
            (json!({ "write": "upsert", "key": ["id"], "newest_by": "timestamp" }), "/newest_by"),
            (json!({ "kafka_columns": ["timestamp"], "newest_by": "timestamp" }), "/newest_by"),
            (json!({ "kafka_columns": ["offset", "topic", "offset"] }), "/kafka_columns/2"),
            (
                json!({ "write": "upsert", "key": ["id"], "kafka_columns": ["offset"], "newest_by": "_kafka_offset" }),
                "/newest_by",
            ),
            (
                json!({ "write": "upsert", "key": ["_kafka_offset"], "kafka_columns": ["offset"],
                    "delete_on_tombstone": true }),
                "/delete_on_tombstone",
            ),
        ] {
            assert_eq!(paths(extra.clone()), [path], "{extra}");
        }
        let of_kafka = config(json!({ "write": "upsert", "key": ["id"], "newest_by": "timestamp",
            "kafka_columns": ["topic", "partition", "offset", "timestamp"] }));
        assert_eq!((of_kafka.problems(), of_kafka.newest_by()), (vec![], NewestBy::Timestamp));
        let whole = json!({ "write": "upsert", "key": ["id"], "newest_by": "at", "delete_on_tombstone": true,
            "key_decode": "string", "offsets_schema": "connect" });
        assert_eq!(paths(whole.clone()), Vec::<String>::new());
        assert_eq!(config(whole).newest_by(), NewestBy::Column("at"));
    }

    #[test]
    fn the_address_does_not_show_itself() {
        let config = config(json!({ "url": "postgresql://u:hunter2@h/db", "timeout": "1ms" }));
        assert!(!format!("{config:?} {:?}", config.problems()).contains("hunter2"));
    }

    #[test]
    fn unknown_keys_and_words_are_refused() {
        for (key, value) in
            [("colour", "red"), ("write", "merge"), ("table_changes", "evolve"), ("kafka_columns", "offset")]
        {
            let text = json!({ "url": "postgresql://h/db", key: value });
            assert!(serde_json::from_value::<PostgresConfig>(text).is_err(), "{key}");
        }
    }

    #[test]
    fn every_key_is_documented_for_users() {
        let schema = schemars::schema_for!(PostgresConfig);
        let properties = schema.get("properties").and_then(serde_json::Value::as_object).unwrap();
        assert_eq!(properties.len(), 13);
        for (key, property) in properties {
            assert!(property.get("description").is_some(), "{key}");
        }
        assert_eq!(schema.get("required"), Some(&json!(["url"])));
    }
}
