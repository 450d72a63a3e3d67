//! Positions and locks behind `PgBouncer` in transaction mode, where every transaction may get another connection.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::env;
use std::time::Duration;

use support::{PIPELINE, Schema, advance, claim, connector, one, run, session, taken};
use txconnect_connector_api::OffsetStore;
use txconnect_postgres::blockers::Watchdog;
use txconnect_postgres::connect::application_name;
use txconnect_postgres::offsets::{CommitError, OffsetsTable, PostgresOffsets, advance_and_commit};

fn pool() -> String {
    env::var("PGBOUNCER_URL").expect(
        "PGBOUNCER_URL is not set: these tests need a PgBouncer in transaction mode before the server of PG_URL. Run ./dev test, or ./dev services start and eval \"$(./dev services env)\"",
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_share_connections_take_over_and_commit() {
    let schema = Schema::unmade();
    let offsets = PostgresOffsets::new(connector(&pool()), &schema.name, PIPELINE);
    let claims = [claim("t", 0, Some(0)), claim("t", 1, Some(0))];
    assert_eq!(taken(&offsets.take_over(&claims).await.unwrap()[1]), (1, 0));
    let table = OffsetsTable::in_schema(&schema.name);
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(connector(&pool()).connect(&application_name(PIPELINE)).await.unwrap());
    }
    for round in 0..25 {
        for session in &sessions {
            session.begin("").await.unwrap();
        }
        let commit = |index: usize| {
            let partition = i32::try_from(index).unwrap();
            let advances = [advance("t", partition, 1, round, round + 1)];
            let (session, table) = (&sessions[index], &table);
            async move { advance_and_commit(session, table, PIPELINE, &advances).await }
        };
        let outcomes = futures::join!(commit(0), commit(1), commit(2), commit(3));
        outcomes.0.unwrap();
        outcomes.1.unwrap();
        assert!(matches!(outcomes.2, Err(CommitError::Fenced(found)) if found == [0]));
        assert!(outcomes.3.is_err());
    }
    assert!(offsets.positions().await.unwrap().iter().all(|stored| stored.next_offset == 25));
    schema.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_session_behind_the_pool_is_found_and_ended() {
    let schema = Schema::new().await;
    let keys = format!("{}.keys", schema.quoted());
    run(&session().await, &format!("CREATE TABLE {keys} (id integer PRIMARY KEY)")).await;
    let name = application_name(PIPELINE);
    let stopped = connector(&pool()).connect(&name).await.unwrap();
    stopped.begin("").await.unwrap();
    run(&stopped, &format!("INSERT INTO {keys} VALUES (1)")).await;

    let waiter = connector(&pool()).connect(&name).await.unwrap();
    let begun = waiter.begin("SET LOCAL lock_timeout = '30s';").await.unwrap();
    let statement = format!("INSERT INTO {keys} VALUES (1)");
    let call = waiter.within("inserting", waiter.client().batch_execute(&statement));
    let watchdog = Watchdog::new(connector(&pool())).with_patience(Duration::from_millis(200));
    watchdog.watch(begun.pid, &name, call).await.outcome.unwrap();
    run(&waiter, "COMMIT").await;
    assert_eq!(one(&session().await, &format!("SELECT count(*) FROM {keys}")).await, "1");
    schema.drop().await;
}
