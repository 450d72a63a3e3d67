//! The PostgreSQL of the tests, behind a proxy.

use std::collections::BTreeMap;

use super::{Arrived, Row};
use crate::kafka::{Partition, Positions};
use crate::plan::{IntoPostgres, Road};
use crate::postgres::{Database, Rows, Schema};
use crate::proxy::Proxy;
use crate::records::{self, Kind, REFUSED};

pub(crate) struct Postgres {
    /// Between the members and the server.
    pub(crate) proxy: Proxy,
    database: Database,
    url: String,
    schema: Schema,
    pipeline: String,
    topics: Vec<String>,
    setting: IntoPostgres,
}

impl Postgres {
    pub(crate) fn start(setting: IntoPostgres, pipeline: &str, topics: &[String]) -> Self {
        let database = Database::of_the_tests();
        let entrance = match setting.road {
            Road::Straight => database.clone(),
            Road::PgBouncer => Database::behind_pgbouncer(),
        };
        let proxy = Proxy::start(entrance.address());
        let url = entrance.at(proxy.address()).url().to_owned();
        let schema = Schema::of(&database, pipeline);
        if setting.tables_are_there {
            let key = if setting.has_unique_ids() { " PRIMARY KEY" } else { "" };
            let table = |topic| {
                let name = schema.named(topic);
                format!(
                    "CREATE TABLE {name} (id bigint NOT NULL{key}, account bigint NOT NULL, \
                     note text NOT NULL CHECK (note <> '{REFUSED}'));"
                )
            };
            let tables: String = topics.iter().map(|topic| table(topic)).collect();
            let statements = format!("CREATE SCHEMA \"{}\"; {tables}", schema.name);
            database.run(&statements);
        }
        Self { proxy, database, url, schema, pipeline: pipeline.to_owned(), topics: topics.to_vec(), setting }
    }

    /// The address for the members.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Whether the tables refuse some rows that are valid.
    pub(crate) fn checks_rows(&self) -> bool {
        self.setting.tables_are_there
    }

    /// Ends all sessions of the members; answers how many.
    pub(crate) fn terminate_sessions(&self) -> i64 {
        self.database.terminate_sessions(&self.pipeline)
    }

    /// Where the rows are, for whoever looks into it.
    pub(crate) fn keep(self) -> String {
        self.schema.keep()
    }

    /// Nothing where the table was never made.
    fn query(&self, table: &str, columns: &str) -> Rows {
        let there = format!("SELECT to_regclass('{}') IS NOT NULL", self.schema.named(table));
        if self.database.value(&there).as_deref() != Some("t") {
            return Rows::new();
        }
        self.database.run(&format!("SELECT {columns} FROM {}", self.schema.named(table)))
    }

    pub(super) fn arrived(&self) -> Arrived {
        let mut arrived = Arrived::default();
        for topic in &self.topics {
            let mut rows = Vec::new();
            for row in self.query(topic, "id, account, note") {
                let [id, account, note] = row.as_slice() else {
                    unreachable!("three columns were asked for")
                };
                let Some(id) = id.as_deref().and_then(|id| id.parse().ok()) else {
                    arrived.strange.push(format!("table {topic}: id {id:?}"));
                    continue;
                };
                let good = Kind::of(id) == Kind::Good || Kind::of(id) == Kind::Refused && !self.checks_rows();
                let intact = good
                    && account.as_deref() == Some(records::account(id).to_string().as_str())
                    && note.as_deref() == Some(records::note(id).as_str());
                rows.push(Row { id, place: None, intact });
            }
            arrived.streams.push(rows);
        }
        arrived.positions = self.setting.exactly_once.then(|| self.positions());
        arrived
    }

    fn positions(&self) -> Positions {
        let numbers: BTreeMap<&str, usize> =
            self.topics.iter().enumerate().map(|(number, topic)| (topic.as_str(), number)).collect();
        let rows = self.query("txconnect_offsets", "pipeline, topic, partition, next_offset");
        rows.iter()
            .filter_map(|row| {
                let [Some(pipeline), Some(topic), Some(number), Some(offset)] = row.as_slice() else {
                    return None;
                };
                let topic = *numbers.get(topic.as_str()).filter(|_| *pipeline == self.pipeline)?;
                Some((Partition { topic, number: number.parse().ok()? }, offset.parse().ok()?))
            })
            .collect()
    }
}
