//! The sample data, in memory and in the tables of a schema of its own, as the pipeline makes them.

use std::collections::HashMap;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::manifest::in_repository;

pub(crate) const TOPICS: [&str; 4] =
    ["cash_ins", "cash_outs_created", "cash_outs_processed", "cash_outs_refunded"];

/// A cash-in or the request of a cash-out. Amounts are cents, times are milliseconds since 1970.
pub(crate) struct Transfer {
    pub(crate) id: String,
    pub(crate) account: String,
    pub(crate) amount: i64,
    pub(crate) at: i64,
}

/// The content of `data/`.
pub(crate) struct Payments {
    pub(crate) cash_ins: Vec<Transfer>,
    pub(crate) cash_outs: Vec<Transfer>,
    /// When a cash-out was processed, by its id.
    pub(crate) processed: HashMap<String, i64>,
    /// When a cash-out was refunded, by its id.
    pub(crate) refunded: HashMap<String, i64>,
}

impl Payments {
    pub(crate) fn read() -> Self {
        let transfers = |topic| {
            records(topic)
                .iter()
                .map(|record| Transfer {
                    id: text(record, "transaction_id"),
                    account: text(record, "account_id"),
                    amount: record["amount"].as_i64().unwrap(),
                    at: record["inserted_at"].as_i64().unwrap(),
                })
                .collect()
        };
        let times = |topic| {
            records(topic)
                .iter()
                .map(|record| (text(record, "transaction_id"), record["inserted_at"].as_i64().unwrap()))
                .collect()
        };
        Self {
            cash_ins: transfers("cash_ins"),
            cash_outs: transfers("cash_outs_created"),
            processed: times("cash_outs_processed"),
            refunded: times("cash_outs_refunded"),
        }
    }

    /// Where a cash-out stands.
    pub(crate) fn state(&self, id: &str) -> &'static str {
        if self.refunded.contains_key(id) {
            "refunded"
        } else if self.processed.contains_key(id) {
            "processed"
        } else {
            "pending"
        }
    }
}

fn records(topic: &str) -> Vec<Value> {
    let text = fs::read_to_string(in_repository(format!("data/{topic}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn text(record: &Value, field: &str) -> String {
    record[field].as_str().unwrap().to_owned()
}

/// A schema of its own with the four tables, gone when the test has ended well.
pub(crate) struct Database {
    client: Client,
    schema: String,
}

impl Database {
    /// Empty tables with the columns that `schemas/*.json` stand for.
    pub(crate) async fn with_tables(purpose: &str) -> Self {
        let url =
            std::env::var("PG_URL").expect("PG_URL is not set: run ./dev test, or ./dev services start");
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let schema = format!("dashboards_{purpose}_{now}");
        // A time zone far from UTC: the days must not depend on it.
        let prepare =
            format!("CREATE SCHEMA {schema}; SET search_path = {schema}; SET timezone = 'Asia/Tokyo'");
        client.batch_execute(&prepare).await.unwrap();
        for topic in TOPICS {
            let columns: Vec<String> =
                columns(topic).iter().map(|(name, (kind, _))| format!("{name} {kind} NOT NULL")).collect();
            let statement =
                format!("CREATE TABLE {topic} ({}, PRIMARY KEY (transaction_id))", columns.join(", "));
            client.batch_execute(&statement).await.unwrap();
        }
        Self { client, schema }
    }

    /// The same with everything in `data/`.
    pub(crate) async fn with_sample_data(purpose: &str) -> Self {
        let database = Self::with_tables(purpose).await;
        for topic in TOPICS {
            let values: Vec<String> =
                columns(topic).into_iter().map(|(_, (_, expression))| expression).collect();
            let statement = format!(
                "INSERT INTO {topic} SELECT {} FROM json_array_elements($1::text::json) AS record",
                values.join(", ")
            );
            let data = fs::read_to_string(in_repository(format!("data/{topic}.json"))).unwrap();
            let inserted = database.client.execute(&statement, &[&data]).await.unwrap();
            assert_eq!(usize::try_from(inserted).unwrap(), records(topic).len());
        }
        database
    }

    /// The column names and the rows of a query, as text.
    pub(crate) async fn ask(&self, sql: &str) -> (Vec<String>, Vec<Vec<String>>) {
        let (mut names, mut rows) = (Vec::new(), Vec::new());
        for message in self.client.simple_query(sql).await.unwrap() {
            match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    names = columns.iter().map(|column| column.name().to_owned()).collect();
                }
                SimpleQueryMessage::Row(row) => {
                    rows.push((0..row.len()).map(|i| row.get(i).unwrap_or("null").to_owned()).collect());
                }
                _ => {}
            }
        }
        (names, rows)
    }

    pub(crate) async fn drop_schema(self) {
        self.client.batch_execute(&format!("DROP SCHEMA {} CASCADE", self.schema)).await.unwrap();
    }
}

/// The columns of a topic's table: name, type, and how the value is taken from a JSON `record`.
fn columns(topic: &str) -> Vec<(String, (&'static str, String))> {
    let text = fs::read_to_string(in_repository(format!("schemas/{topic}.json"))).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    let properties = schema["properties"].as_object().unwrap();
    let column = |(name, property): (&String, &Value)| {
        let value = format!("record->>'{name}'");
        let column = match (property["type"].as_str().unwrap(), property["x-column"]["type"].as_str()) {
            ("integer", Some("timestamp")) => {
                assert_eq!(property["x-column"]["unit"], "ms");
                ("timestamptz", format!("'epoch'::timestamptz + ({value})::bigint * interval '1 ms'"))
            }
            ("integer", None) => ("bigint", format!("({value})::bigint")),
            ("string", None) if property["format"] == "uuid" => ("uuid", format!("({value})::uuid")),
            ("string", None) => ("text", value),
            other => panic!("{topic}.{name}: this test knows no column for {other:?}"),
        };
        (name.clone(), column)
    };
    properties.iter().map(column).collect()
}
