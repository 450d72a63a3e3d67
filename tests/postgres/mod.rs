//! The PostgreSQL that `./dev test` starts, seen by a client that has nothing to do with the pipelines.
#![allow(dead_code, reason = "each of the test programs uses its part")]

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::OnceLock;
use std::time::Duration;

use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

/// For one connection with its statement. The server may be on its way up.
const DEADLINE: Duration = Duration::from_mins(1);

/// Rows as text, column by column; `None` is NULL.
pub(crate) type Rows = Vec<Vec<Option<String>>>;

/// The server, by way of an address that leads to it.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    url: String,
}

impl Database {
    /// The server named by `PG_URL`.
    pub(crate) fn of_the_tests() -> Self {
        Self::named_by("PG_URL")
    }

    /// The PgBouncer in front of the same server.
    pub(crate) fn behind_pgbouncer() -> Self {
        Self::named_by("PGBOUNCER_URL")
    }

    fn named_by(variable: &str) -> Self {
        let url = std::env::var(variable).unwrap_or_default();
        assert!(
            !url.is_empty(),
            "{variable} is not set: run `./dev test`, or `./dev services start` and `eval \"$(./dev services env)\"`"
        );
        Self { url }
    }

    /// A server of a test's own.
    pub(crate) fn by_url(url: &str) -> Self {
        Self { url: url.to_owned() }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The same server by another address, as a proxy has one.
    pub(crate) fn at(&self, address: SocketAddr) -> Self {
        let (before, after) = self.url.rsplit_once('@').expect("an address with a password");
        let path = after.split_once('/').map_or("", |(_, path)| path);
        Self { url: format!("{before}@{address}/{path}") }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        let (_, after) = self.url.rsplit_once('@').expect("an address with a password");
        let address = after.split(['/', '?']).next().unwrap();
        address.to_socket_addrs().unwrap().next().unwrap()
    }

    /// Runs statements and answers the rows of the last one that has some. Each call is a connection of its own, so that
    /// a server that was restarted in between does no harm.
    pub(crate) fn run(&self, statements: &str) -> Rows {
        self.try_run(statements).unwrap_or_else(|error| {
            let said = error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string);
            panic!("{statements}: {said}")
        })
    }

    pub(crate) fn try_run(&self, statements: &str) -> Result<Rows, tokio_postgres::Error> {
        runtime().block_on(async {
            let work = async {
                let config: Config = self.url.parse().unwrap();
                let (client, connection) = config.connect(NoTls).await?;
                let driver = tokio::spawn(connection);
                let messages = client.simple_query(statements).await;
                driver.abort();
                Ok(rows(&messages?))
            };
            tokio::time::timeout(DEADLINE, work).await.expect("PostgreSQL answers within the deadline")
        })
    }

    /// The only value of the only row.
    pub(crate) fn value(&self, statement: &str) -> Option<String> {
        self.run(statement).into_iter().next()?.into_iter().next()?
    }

    pub(crate) fn number(&self, statement: &str) -> i64 {
        self.value(statement).expect("a number").parse().unwrap()
    }

    /// Ends all sessions of a pipeline.
    pub(crate) fn terminate_sessions(&self, pipeline: &str) -> i64 {
        self.number(&format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = '{}'",
            session_name(pipeline)
        ))
    }
}

/// The name under which a pipeline's sessions show, as PostgreSQL cuts it.
pub(crate) fn session_name(pipeline: &str) -> String {
    let mut name = format!("txconnect {pipeline}");
    name.truncate(63);
    name
}

fn rows(messages: &[SimpleQueryMessage]) -> Rows {
    messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        })
        .collect()
}

/// A schema of one test; dropping it drops what is in it.
pub(crate) struct Schema {
    database: Database,
    pub(crate) name: String,
}

impl Schema {
    pub(crate) fn of(database: &Database, name: &str) -> Self {
        Self { database: database.clone(), name: name.to_owned() }
    }

    /// A table or anything else in it, quoted.
    pub(crate) fn named(&self, name: &str) -> String {
        format!("\"{}\".\"{name}\"", self.name)
    }

    /// Leaves it there for whoever looks into it.
    pub(crate) fn keep(mut self) -> String {
        std::mem::take(&mut self.name)
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        if self.name.is_empty() || std::thread::panicking() {
            return;
        }
        // A table that a dying session still locks is left behind: nobody waits for it.
        let statement = format!("SET lock_timeout = '5s'; DROP SCHEMA IF EXISTS \"{}\" CASCADE", self.name);
        let _ = self.database.try_run(&statement);
    }
}

fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    })
}
