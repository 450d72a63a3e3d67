//! The tables of one test, in a schema of its own.

use std::collections::BTreeMap;

use super::{Pipeline, eventually, unique};
use crate::postgres::{Database, Rows, Schema};
use crate::proxy::Proxy;

/// A schema that is not there yet, and the way to it that the pipelines take.
pub(crate) struct Tables {
    database: Database,
    url: String,
    schema: Schema,
}

impl Tables {
    pub(crate) fn new() -> Self {
        Self::on(Database::of_the_tests())
    }

    pub(crate) fn on(database: Database) -> Self {
        let url = database.url().to_owned();
        let schema = Schema::of(&database, &unique("test"));
        Self { database, url, schema }
    }

    /// Pipelines reach them through the proxy that is answered.
    pub(crate) fn behind_proxy() -> (Self, Proxy) {
        let tables = Self::new();
        let proxy = Proxy::start(tables.database.address());
        let url = tables.database.at(proxy.address()).url().to_owned();
        (Self { url, ..tables }, proxy)
    }

    /// Pipelines reach them through `PgBouncer` in transaction mode.
    pub(crate) fn behind_pgbouncer() -> Self {
        Self { url: Database::behind_pgbouncer().url().to_owned(), ..Self::new() }
    }

    /// The server as the tests themselves see it, through a proxy.
    pub(crate) fn by_the_proxy(&self, proxy: &Proxy) -> Database {
        self.database.at(proxy.address())
    }

    /// For pipelines.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn schema(&self) -> &str {
        &self.schema.name
    }

    /// A table or anything else in the schema, quoted.
    pub(crate) fn named(&self, name: &str) -> String {
        self.schema.named(name)
    }

    /// Runs statements in which `{schema}` stands for the schema, quoted.
    pub(crate) fn run(&self, statements: &str) -> Rows {
        self.database.run(&statements.replace("{schema}", &format!("\"{}\"", self.schema.name)))
    }

    /// As [`Self::run`], for one number.
    pub(crate) fn number(&self, statement: &str) -> i64 {
        self.run(statement)[0][0].as_deref().expect("a number").parse().unwrap()
    }

    pub(crate) fn there(&self, table: &str) -> bool {
        let question = format!("SELECT to_regclass('{}') IS NOT NULL", self.named(table));
        self.run(&question)[0][0].as_deref() == Some("t")
    }

    /// How many rows a table has; none where it is not there.
    pub(crate) fn count(&self, table: &str) -> i64 {
        if !self.there(table) {
            return 0;
        }
        self.number(&format!("SELECT count(*) FROM {}", self.named(table)))
    }

    pub(crate) fn wait_for_rows(&self, table: &str, rows: i64) {
        eventually(&format!("{rows} rows are in {table}"), || (self.count(table) >= rows).then_some(()));
    }

    /// How often each id is in a table of the tests' events.
    pub(crate) fn ids(&self, table: &str) -> BTreeMap<i64, usize> {
        if !self.there(table) {
            return BTreeMap::new();
        }
        let mut ids = BTreeMap::new();
        for row in self.run(&format!("SELECT id, note FROM {}", self.named(table))) {
            let id = row[0].as_deref().expect("an id").parse().unwrap();
            if let Some(note) = &row[1] {
                assert_eq!(*note, format!("event {id}"), "columns of different records are in one row");
            }
            *ids.entry(id).or_default() += 1;
        }
        ids
    }

    /// The stored positions of a pipeline in a topic, by partition.
    pub(crate) fn positions(&self, pipeline: &Pipeline, topic: &str) -> BTreeMap<i32, i64> {
        if !self.there("txconnect_offsets") {
            return BTreeMap::new();
        }
        let statement = format!(
            "SELECT partition, next_offset FROM {{schema}}.txconnect_offsets WHERE pipeline = '{}' AND topic = '{topic}'",
            pipeline.name()
        );
        let number = |text: &Option<String>| text.as_deref().expect("no NULL").parse().unwrap();
        self.run(&statement)
            .iter()
            .map(|row| (i32::try_from(number(&row[0])).unwrap(), number(&row[1])))
            .collect::<BTreeMap<i32, i64>>()
    }

    /// Ends all sessions of a pipeline; answers how many.
    pub(crate) fn terminate_sessions(&self, pipeline: &Pipeline) -> i64 {
        self.database.terminate_sessions(pipeline.name())
    }
}
