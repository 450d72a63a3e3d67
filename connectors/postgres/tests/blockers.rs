//! Sessions that hold a lock: stopped ones of the same pipeline are ended, all others are left alone and named.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use futures::SinkExt;
use support::{PIPELINE, Schema, connector, one, run, server, session, session_of, until};
use tokio::time::sleep;
use tokio_postgres::error::SqlState;
use txconnect_postgres::blockers::{Watchdog, Watched};
use txconnect_postgres::connect::{Session, application_name};
use txconnect_postgres::error::CallFailure;

const PATIENCE: Duration = Duration::from_millis(200);

async fn schema_with_keys() -> Schema {
    let schema = Schema::new().await;
    run(&session().await, &format!("CREATE TABLE {}.keys (id integer PRIMARY KEY)", schema.quoted())).await;
    schema
}

/// Waits for whoever holds key 1, with the watchdog beside it.
async fn insert_key(schema: &Schema, lock_timeout: &str) -> Watched<Result<(), CallFailure>> {
    let waiter = session().await;
    let begun = waiter.begin(&format!("SET LOCAL lock_timeout = '{lock_timeout}';")).await.unwrap();
    let statement = format!("INSERT INTO {}.keys VALUES (1) ON CONFLICT DO NOTHING", schema.quoted());
    let watchdog = Watchdog::new(connector(&server())).with_patience(PATIENCE);
    let call = waiter.within("inserting", waiter.client().batch_execute(&statement));
    let watched = watchdog.watch(begun.pid, &application_name(PIPELINE), call).await;
    waiter.roll_back().await;
    watched
}

/// Begins a transaction that holds key 1.
async fn hold_key(session: &Session, schema: &Schema) -> i32 {
    let begun = session.begin("").await.unwrap();
    run(session, &format!("INSERT INTO {}.keys VALUES (1)", schema.quoted())).await;
    begun.pid
}

async fn lives(pid: i32) -> bool {
    one(&session().await, &format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}")).await == "1"
}

/// A session gives its locks back before it leaves the list.
async fn until_gone(pid: i32) {
    until(&session().await, &format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"), "0").await;
}

/// Lines with the numbers of `range`.
fn lines(range: std::ops::Range<i32>) -> Bytes {
    Bytes::from(range.map(|id| id.to_string() + "\n").collect::<String>())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_session_of_the_pipeline_that_idles_in_its_transaction_is_ended() {
    let schema = schema_with_keys().await;
    let stopped = session().await;
    let pid = hold_key(&stopped, &schema).await;
    insert_key(&schema, "30s").await.outcome.unwrap();
    until_gone(pid).await;
    schema.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_the_pipeline_that_stopped_in_mid_copy_is_ended() {
    let schema = schema_with_keys().await;
    let stopped = session().await;
    let begun = stopped.begin("").await.unwrap();
    let copy = format!("COPY {}.keys FROM STDIN", schema.quoted());
    let sink = stopped.client().copy_in::<_, Bytes>(&copy).await.unwrap();
    let mut sink = std::pin::pin!(sink);
    // The server stores rows by the thousand.
    sink.send(lines(1..5001)).await.unwrap();
    let progress = format!(
        "SELECT coalesce(max(tuples_processed), 0) >= 1000 FROM pg_stat_progress_copy WHERE pid = {}",
        begun.pid
    );
    until(&session().await, &progress, "true").await;
    insert_key(&schema, "30s").await.outcome.unwrap();
    until_gone(begun.pid).await;
    schema.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_copy_of_the_pipeline_that_goes_on_is_waited_for() {
    let schema = schema_with_keys().await;
    let neighbour = session().await;
    let begun = neighbour.begin("").await.unwrap();
    let copy = format!("COPY {}.keys FROM STDIN", schema.quoted());
    let mut sink = Box::pin(neighbour.client().copy_in::<_, Bytes>(&copy).await.unwrap());
    sink.send(lines(1..5001)).await.unwrap();
    let progress = format!(
        "SELECT coalesce(max(tuples_processed), 0) >= 1000 FROM pg_stat_progress_copy WHERE pid = {}",
        begun.pid
    );
    until(&session().await, &progress, "true").await;
    let goes_on = async {
        for step in 1..=20 {
            sleep(Duration::from_millis(200)).await;
            sink.send(lines(step * 5001..step * 5001 + 5000)).await.unwrap();
        }
        sink.as_mut().finish().await.unwrap();
        run(&neighbour, "COMMIT").await;
    };
    let (watched, ()) = futures::join!(insert_key(&schema, "30s"), goes_on);
    watched.outcome.unwrap();
    assert_eq!(
        one(&session().await, &format!("SELECT count(*) FROM {}.keys", schema.quoted())).await,
        "105000"
    );
    schema.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_session_of_the_pipeline_is_waited_for() {
    let schema = schema_with_keys().await;
    let neighbour = session().await;
    let pid = hold_key(&neighbour, &schema).await;
    let works = async {
        run(&neighbour, "SELECT pg_sleep(4)").await;
        assert!(lives(pid).await);
        run(&neighbour, "COMMIT").await;
    };
    let (watched, ()) = futures::join!(insert_key(&schema, "30s"), works);
    watched.outcome.unwrap();
    schema.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_sessions_of_others_are_named_and_left_alone() {
    let schema = schema_with_keys().await;
    for name in ["psql", "txconnect transactions2"] {
        let stranger = session_of(name).await;
        let pid = hold_key(&stranger, &schema).await;
        let watched = insert_key(&schema, "3s").await;
        assert!(watched.outcome.unwrap_err().is(&SqlState::LOCK_NOT_AVAILABLE));
        assert_eq!(watched.waited_for, Some(format!("session {pid} of `{name}`")));
        assert!(lives(pid).await);
        assert!(stranger.roll_back().await);
    }
    schema.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_the_same_name_and_another_role_is_left_alone() {
    let schema = schema_with_keys().await;
    let admin = session().await;
    let role = format!("other role {}", schema.name);
    run(
        &admin,
        &format!(
            "CREATE ROLE \"{role}\" LOGIN PASSWORD 'p'; GRANT USAGE ON SCHEMA {0} TO \"{role}\"; \
             GRANT ALL ON ALL TABLES IN SCHEMA {0} TO \"{role}\"",
            schema.quoted()
        ),
    )
    .await;
    let url = server();
    let (_, host) = url.split_once('@').unwrap();
    let url = format!("postgresql://{}:p@{host}", role.replace(' ', "%20"));
    let stranger = connector(&url).connect(&application_name(PIPELINE)).await.unwrap();
    let pid = hold_key(&stranger, &schema).await;
    assert!(insert_key(&schema, "3s").await.outcome.is_err());
    assert!(lives(pid).await);
    assert!(stranger.roll_back().await);
    drop(stranger);
    run(&admin, &format!("DROP OWNED BY \"{role}\"; DROP ROLE \"{role}\"")).await;
    schema.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_nobody_blocks_is_not_looked_after() {
    let watchdog = Watchdog::new(connector(&server()));
    let watched = watchdog.watch(1, "txconnect", async { 7 }).await;
    assert_eq!((watched.outcome, watched.waited_for), (7, None));
}
