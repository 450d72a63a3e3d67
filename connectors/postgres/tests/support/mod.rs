//! What the tests against a real PostgreSQL share. Every test has a schema of its own.

#![allow(dead_code, reason = "every test file uses its own part of it")]

pub(crate) mod own_server;
pub(crate) mod proxy;

use std::env;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::sleep;
use txconnect_connector_api::{Advance, Claim, Claimed, Epoch, Secret, SinkError, TopicPartition};
use txconnect_postgres::connect::{ConnectionSettings, Connector, Session, application_name};

/// A generous bound for calls that should take milliseconds.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) const PIPELINE: &str = "transactions";

/// The server of the tests.
pub(crate) fn server() -> String {
    env::var("PG_URL").expect(
        "PG_URL is not set: these tests need a PostgreSQL. Run ./dev test, or ./dev services start and eval \"$(./dev services env)\"",
    )
}

/// `url` with a parameter more.
pub(crate) fn with(url: &str, parameter: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}{parameter}")
}

pub(crate) fn settings(url: &str, timeout: Duration) -> ConnectionSettings {
    ConnectionSettings::parse(&Secret::new(url), timeout).expect("the url of the test")
}

pub(crate) fn connector(url: &str) -> Connector {
    Connector::new(settings(url, TIMEOUT))
}

/// A session of the pipeline that most tests are about.
pub(crate) async fn session() -> Session {
    session_of(&application_name(PIPELINE)).await
}

pub(crate) async fn session_of(application: &str) -> Session {
    connector(&server()).connect(application).await.expect("a session with the server of the tests")
}

/// What connecting said.
pub(crate) async fn refusal(url: &str) -> SinkError {
    match connector(url).connect("txconnect test").await {
        Ok(_) => panic!("the connection was made"),
        Err(error) => error,
    }
}

pub(crate) async fn run(session: &Session, statements: &str) {
    session.within("running", session.client().batch_execute(statements)).await.expect(statements);
}

/// The first value of the first row, as text.
pub(crate) async fn one(session: &Session, statement: &str) -> String {
    let wrapped = format!("SELECT value::text FROM ({statement}) AS answer (value)");
    let row =
        session.within("asking", session.client().query_typed_one(&wrapped, &[])).await.expect(statement);
    row.get::<_, Option<String>>(0).unwrap_or_default()
}

/// Asks until the answer is `expected`.
pub(crate) async fn until(session: &Session, statement: &str, expected: &str) {
    for _ in 0..600 {
        if one(session, statement).await == expected {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("{statement} did not become {expected}");
}

/// A schema that no other test uses. It stays behind where a test fails.
pub(crate) struct Schema {
    pub(crate) name: String,
}

impl Schema {
    /// Only a name: nothing is made.
    pub(crate) fn unmade() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        Self { name: format!("Test {} {}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed)) }
    }

    pub(crate) async fn new() -> Self {
        let schema = Self::unmade();
        run(&session().await, &format!("CREATE SCHEMA {}", schema.quoted())).await;
        schema
    }

    pub(crate) fn quoted(&self) -> String {
        format!("\"{}\"", self.name)
    }

    pub(crate) async fn drop(self) {
        run(&session().await, &format!("DROP SCHEMA IF EXISTS {} CASCADE", self.quoted())).await;
    }
}

pub(crate) fn claim(topic: &str, partition: i32, start: Option<i64>) -> Claim {
    Claim {
        partition: TopicPartition::new(topic, partition),
        topic_id: Some(format!("id of {topic}")),
        start,
    }
}

pub(crate) fn advance(topic: &str, partition: i32, epoch: i64, from: i64, to: i64) -> Advance {
    Advance { partition: TopicPartition::new(topic, partition), epoch: Epoch(epoch), from, to }
}

/// Epoch and position of a claim that was taken.
pub(crate) fn taken(claimed: &Claimed) -> (i64, i64) {
    match claimed {
        Claimed::Taken { epoch, next_offset, .. } => (epoch.0, *next_offset),
        Claimed::Missing => panic!("the claim was not taken"),
    }
}
