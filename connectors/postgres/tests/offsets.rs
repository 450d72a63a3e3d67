//! Positions in a real PostgreSQL: epochs, commits in doubt, processes at the same time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;

use support::proxy::{Commits, Proxy};
use support::{PIPELINE, Schema, advance, claim, connector, one, run, server, session, taken, until};
use txconnect_connector_api::{Claimed, NewPosition, OffsetStore, SinkError, TopicPartition};
use txconnect_postgres::connect::Session;
use txconnect_postgres::offsets::{CommitError, OffsetsTable, PostgresOffsets, advance_and_commit};

fn offsets_in(schema: &Schema) -> PostgresOffsets {
    PostgresOffsets::new(connector(&server()), &schema.name, PIPELINE)
}

fn table_in(schema: &Schema) -> OffsetsTable {
    OffsetsTable::in_schema(&schema.name)
}

/// A table for rows, and a transaction that has put a row into it.
async fn begin_with_row(session: &Session, schema: &Schema) {
    session.begin("").await.unwrap();
    run(session, &format!("INSERT INTO {}.rows VALUES (1)", schema.quoted())).await;
}

async fn schema_with_rows() -> Schema {
    let schema = Schema::new().await;
    run(&session().await, &format!("CREATE TABLE {}.rows (id integer)", schema.quoted())).await;
    schema
}

async fn count_rows(schema: &Schema) -> String {
    one(&session().await, &format!("SELECT count(*) FROM {}.rows", schema.quoted())).await
}

fn fenced(result: Result<(), CommitError>) -> Vec<usize> {
    match result {
        Err(CommitError::Fenced(partitions)) => partitions,
        other => panic!("not fenced: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_stored_or_made_by_looking() {
    let schema = Schema::unmade();
    let offsets = offsets_in(&schema);
    assert_eq!(offsets.positions().await.unwrap(), []);
    let made = format!("SELECT count(*) FROM pg_namespace WHERE nspname = '{}'", schema.name);
    assert_eq!(one(&session().await, &made).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn schema_and_table_are_made_for_the_first_claim_and_positions_come_back() {
    let schema = Schema::unmade();
    let offsets = offsets_in(&schema);
    let claims = [claim("b", 1, Some(7)), claim("a", 10, Some(0)), claim("a", 2, None)];
    let claimed = offsets.take_over(&claims).await.unwrap();
    assert_eq!(taken(&claimed[0]), (1, 7));
    assert_eq!(taken(&claimed[1]), (1, 0));
    assert_eq!(claimed[2], Claimed::Missing);
    let stored = offsets.positions().await.unwrap();
    let partitions: Vec<String> = stored.iter().map(|position| position.partition.to_string()).collect();
    assert_eq!(partitions, ["a[10]", "b[1]"]);
    assert_eq!(stored[1].next_offset, 7);
    assert_eq!(stored[1].topic_id.as_deref(), Some("id of b"));
    assert!(stored[1].owner.as_ref().unwrap().ends_with(&format!("/{}", std::process::id())));
    assert!(
        stored[1].updated_at.ends_with('Z') && stored[1].updated_at.contains('T'),
        "{}",
        stored[1].updated_at
    );
    assert_eq!(offsets.place(), format!("table {}.txconnect_offsets", schema.name));
    schema.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelines_do_not_see_each_other() {
    let schema = Schema::new().await;
    offsets_in(&schema).take_over(&[claim("t", 0, Some(5))]).await.unwrap();
    let other = PostgresOffsets::new(connector(&server()), &schema.name, "other");
    assert_eq!(other.positions().await.unwrap(), []);
    assert_eq!(taken(&other.take_over(&[claim("t", 0, Some(9))]).await.unwrap()[0]), (1, 9));
    schema.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_and_positions_of_several_partitions_are_committed_together() {
    let schema = schema_with_rows().await;
    let offsets = offsets_in(&schema);
    offsets.take_over(&[claim("t", 0, Some(0)), claim("t", 1, Some(3))]).await.unwrap();
    let session = session().await;
    begin_with_row(&session, &schema).await;
    let advances = [advance("t", 1, 1, 3, 4), advance("t", 0, 1, 0, 10)];
    advance_and_commit(&session, &table_in(&schema), PIPELINE, &advances).await.unwrap();
    assert_eq!(count_rows(&schema).await, "1");
    let stored: Vec<i64> =
        offsets.positions().await.unwrap().iter().map(|stored| stored.next_offset).collect();
    assert_eq!(stored, [10, 4]);
    // A pool that gives another connection to every transaction would lose statements with names.
    assert_eq!(one(&session, "SELECT count(*) FROM pg_prepared_statements").await, "0");
    schema.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_taken_over_commits_neither_rows_nor_positions() {
    let schema = schema_with_rows().await;
    let offsets = offsets_in(&schema);
    let claims = [claim("t", 0, Some(0)), claim("t", 1, Some(0))];
    offsets.take_over(&claims).await.unwrap();
    let zombie = session().await;
    begin_with_row(&zombie, &schema).await;
    let again = offsets.take_over(&claims[1..]).await.unwrap();
    assert_eq!(taken(&again[0]), (2, 0));
    assert!(matches!(&again[0], Claimed::Taken { previous_owner: Some(owner), .. } if owner.contains('/')));

    let advances = [advance("t", 0, 1, 0, 5), advance("t", 1, 1, 0, 5)];
    let table = table_in(&schema);
    assert_eq!(fenced(advance_and_commit(&zombie, &table, PIPELINE, &advances).await), [1]);
    assert_eq!(count_rows(&schema).await, "0");
    assert!(offsets.positions().await.unwrap().iter().all(|stored| stored.next_offset == 0));

    // The session is as good as before.
    begin_with_row(&zombie, &schema).await;
    advance_and_commit(&zombie, &table, PIPELINE, &advances[..1]).await.unwrap();
    assert_eq!(count_rows(&schema).await, "1");
    schema.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_is_not_where_it_was_and_a_partition_nobody_claimed_are_fenced() {
    let schema = schema_with_rows().await;
    let offsets = offsets_in(&schema);
    offsets.take_over(&[claim("t", 0, Some(4)), claim("t", 1, Some(0))]).await.unwrap();
    let session = session().await;
    begin_with_row(&session, &schema).await;
    let advances = [advance("t", 1, 1, 0, 1), advance("t", 0, 1, 3, 5), advance("u", 0, 1, 0, 1)];
    assert_eq!(fenced(advance_and_commit(&session, &table_in(&schema), PIPELINE, &advances).await), [1, 2]);
    assert_eq!(count_rows(&schema).await, "0");
    schema.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_the_server_refuses_is_a_failure_and_no_doubt() {
    let schema = schema_with_rows().await;
    let offsets = offsets_in(&schema);
    offsets.take_over(&[claim("t", 0, Some(0))]).await.unwrap();
    let session = session().await;
    let quoted = schema.quoted();
    run(
        &session,
        &format!(
            "CREATE TABLE {quoted}.parents (id integer PRIMARY KEY); \
             CREATE TABLE {quoted}.children (id integer REFERENCES {quoted}.parents DEFERRABLE INITIALLY DEFERRED)"
        ),
    )
    .await;
    session.begin("").await.unwrap();
    run(&session, &format!("INSERT INTO {quoted}.children VALUES (1)")).await;
    let result =
        advance_and_commit(&session, &table_in(&schema), PIPELINE, &[advance("t", 0, 1, 0, 1)]).await;
    assert!(matches!(&result, Err(CommitError::Failed(failure)) if failure.is_certain()), "{result:?}");
    assert_eq!(offsets.positions().await.unwrap()[0].next_offset, 0);

    run(&session, &format!("DROP TABLE {}", table_in(&schema))).await;
    session.begin("").await.unwrap();
    let result =
        advance_and_commit(&session, &table_in(&schema), PIPELINE, &[advance("t", 0, 1, 0, 1)]).await;
    assert!(matches!(result, Err(CommitError::Failed(_))), "{result:?}");
    schema.drop().await;
}

/// A session through a proxy.
async fn session_by_proxy() -> (Proxy, Session) {
    let url = server();
    let (start, rest) = url.split_once('@').expect("a user in PG_URL");
    let (host, database) = rest.split_once('/').expect("a database in PG_URL");
    let proxy = Proxy::to(host.to_owned()).await;
    let url = format!("{start}@{}/{database}", proxy.address);
    let session = connector(&url).connect("txconnect").await.unwrap();
    (proxy, session)
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_and_the_commit_are_sent_in_one_flight() {
    let schema = Schema::new().await;
    let offsets = offsets_in(&schema);
    offsets.take_over(&[claim("t", 0, Some(0))]).await.unwrap();
    let (proxy, session) = session_by_proxy().await;
    session.begin("").await.unwrap();
    // Whoever waited for the answer to the UPDATE would wait for ever.
    proxy.set(Commits::AreAwaited);
    advance_and_commit(&session, &table_in(&schema), PIPELINE, &[advance("t", 0, 1, 0, 5)]).await.unwrap();
    assert_eq!(offsets.positions().await.unwrap()[0].next_offset, 5);
    schema.drop().await;
}

/// Commits through a way that is cut; returns what is found afterwards: position and rows.
async fn commit_in_doubt(fate: Commits) -> (i64, String) {
    let schema = schema_with_rows().await;
    let offsets = offsets_in(&schema);
    offsets.take_over(&[claim("t", 0, Some(0))]).await.unwrap();
    let (proxy, session) = session_by_proxy().await;
    begin_with_row(&session, &schema).await;
    proxy.set(fate);
    let result =
        advance_and_commit(&session, &table_in(&schema), PIPELINE, &[advance("t", 0, 1, 0, 5)]).await;
    assert!(
        matches!(&result, Err(CommitError::InDoubt(cause)) if cause.contains("nobody knows")),
        "{result:?}"
    );
    let claimed = offsets.take_over(&[claim("t", 0, Some(0))]).await.unwrap();
    let found = (taken(&claimed[0]).1, count_rows(&schema).await);
    schema.drop().await;
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_in_doubt_and_found_done() {
    assert_eq!(commit_in_doubt(Commits::LoseTheirAnswer).await, (5, "1".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_lost_is_in_doubt_and_found_undone() {
    assert_eq!(commit_in_doubt(Commits::AreLost).await, (0, "0".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_waits_for_a_commit_under_way() {
    let schema = Schema::new().await;
    let offsets = Arc::new(offsets_in(&schema));
    offsets.take_over(&[claim("t", 0, Some(0))]).await.unwrap();
    let owner = session().await;
    let begun = owner.begin("").await.unwrap();
    run(&owner, &format!("UPDATE {} SET next_offset = 5", table_in(&schema))).await;
    let waiting = Arc::clone(&offsets);
    let takeover = tokio::spawn(async move { waiting.take_over(&[claim("t", 0, Some(0))]).await });
    let watcher = session().await;
    let blocked =
        format!("SELECT count(*) FROM pg_stat_activity WHERE {} = ANY (pg_blocking_pids(pid))", begun.pid);
    until(&watcher, &blocked, "1").await;
    run(&owner, "COMMIT").await;
    assert_eq!(taken(&takeover.await.unwrap().unwrap()[0]), (2, 5));
    schema.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_start_together_make_one_table_and_get_an_epoch_each() {
    let schema = Schema::unmade();
    let takeovers: Vec<_> = (0..8)
        .map(|index| {
            let offsets = offsets_in(&schema);
            // Every one has its own order, and a partition of its own.
            let mut claims: Vec<_> = (0..20).map(|partition| claim("t", partition, Some(0))).collect();
            claims.push(claim("own", index, Some(1)));
            claims.rotate_left(usize::try_from(index).unwrap() * 2);
            tokio::spawn(async move {
                let claimed = offsets.take_over(&claims).await?;
                let first =
                    claims.iter().position(|claim| claim.partition == TopicPartition::new("t", 0)).unwrap();
                Ok::<_, SinkError>(taken(&claimed[first]).0)
            })
        })
        .collect();
    let mut epochs = Vec::new();
    for takeover in takeovers {
        epochs.push(takeover.await.unwrap().unwrap());
    }
    epochs.sort_unstable();
    assert_eq!(epochs, [1, 2, 3, 4, 5, 6, 7, 8]);
    schema.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_the_same_partitions_in_any_order_do_not_wait_for_each_other_in_a_circle() {
    const PARTITIONS: i32 = 30;
    const ROUNDS: i64 = 60;
    let schema = Schema::new().await;
    let offsets = offsets_in(&schema);
    let claims: Vec<_> = (0..PARTITIONS).map(|partition| claim("t", partition, Some(0))).collect();
    offsets.take_over(&claims).await.unwrap();
    let table = table_in(&schema);
    let sessions = [session().await, session().await];
    for round in 0..ROUNDS {
        let mut forwards: Vec<_> =
            (0..PARTITIONS).map(|partition| advance("t", partition, 1, round, round + 1)).collect();
        let backwards: Vec<_> = forwards.iter().rev().cloned().collect();
        forwards.rotate_left(usize::try_from(round % 7).unwrap());
        for session in &sessions {
            session.begin("").await.unwrap();
        }
        let (one, other) = futures::join!(
            advance_and_commit(&sessions[0], &table, PIPELINE, &forwards),
            advance_and_commit(&sessions[1], &table, PIPELINE, &backwards)
        );
        // A deadlock would be a failure here.
        let outcomes = [one, other];
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
        let loser = outcomes.into_iter().find(Result::is_err).unwrap();
        assert_eq!(fenced(loser).len(), usize::try_from(PARTITIONS).unwrap());
    }
    schema.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_moves_positions_and_fences_whoever_had_them() {
    let schema = Schema::new().await;
    let offsets = offsets_in(&schema);
    offsets.take_over(&[claim("t", 0, Some(8))]).await.unwrap();
    let position = |partition, next_offset| NewPosition {
        partition: TopicPartition::new("t", partition),
        next_offset,
        topic_id: Some("new".to_owned()),
    };
    offsets.reset(&[position(1, 3), position(0, 2)]).await.unwrap();
    let stored = offsets.positions().await.unwrap();
    let found: Vec<_> = stored
        .iter()
        .map(|stored| (stored.next_offset, stored.epoch.0, stored.topic_id.clone().unwrap_or_default()))
        .collect();
    assert_eq!(found, [(2, 2, "new".to_owned()), (3, 1, "new".to_owned())]);
    let owner = session().await;
    owner.begin("").await.unwrap();
    let result = advance_and_commit(&owner, &table_in(&schema), PIPELINE, &[advance("t", 0, 1, 8, 9)]).await;
    assert_eq!(fenced(result), [0]);
    // What the topic was when it was first stored stays, until a reset says otherwise.
    let claimed = offsets.take_over(&[claim("t", 0, None)]).await.unwrap();
    assert!(matches!(&claimed[0], Claimed::Taken { topic_id: Some(id), .. } if id == "new"));
    schema.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_rights_is_told_the_statements_to_run() {
    let schema = Schema::new().await;
    let admin = session().await;
    let role = format!("no rights {}", schema.name);
    run(&admin, &format!("CREATE ROLE \"{role}\" LOGIN PASSWORD 'p'")).await;
    let (_, host) =
        server().split_once('@').map(|(start, rest)| (start.to_owned(), rest.to_owned())).unwrap();
    let url = format!("postgresql://{}:p@{host}", role.replace(' ', "%20"));
    let offsets = PostgresOffsets::new(connector(&url), &schema.name, PIPELINE);
    let usage = format!("GRANT USAGE ON SCHEMA {} TO \"{role}\"", schema.quoted());
    for grant in ["SELECT", &usage] {
        run(&admin, grant).await;
        let error = offsets.take_over(&[claim("t", 0, Some(0))]).await.unwrap_err();
        assert!(
            matches!(&error, SinkError::Fatal { cause, hint: Some(hint) }
                if cause.contains("permission denied") && hint.contains("CREATE TABLE") && hint.contains(&schema.quoted())),
            "{error:?}"
        );
    }
    // Where an owner has made it, we need no right to make anything.
    let owner = offsets_in(&schema);
    owner.take_over(&[claim("t", 0, Some(3))]).await.unwrap();
    run(&admin, &format!("GRANT SELECT, INSERT, UPDATE ON {} TO \"{role}\"", owner.table())).await;
    assert_eq!(taken(&offsets.take_over(&[claim("t", 0, None)]).await.unwrap()[0]), (2, 3));
    run(&admin, &format!("DROP OWNED BY \"{role}\"")).await;
    run(&admin, &format!("DROP ROLE \"{role}\"")).await;
    schema.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_table_of_that_name_is_left_alone() {
    let schema = Schema::new().await;
    run(&session().await, &format!("CREATE TABLE {} (note text)", table_in(&schema))).await;
    let offsets = offsets_in(&schema);
    for error in [
        offsets.positions().await.unwrap_err(),
        offsets.take_over(&[claim("t", 0, Some(0))]).await.unwrap_err(),
    ] {
        assert!(
            matches!(&error, SinkError::Fatal { cause, hint: Some(hint) }
                if cause.contains("not as it is made") && hint.contains("offsets_schema")),
            "{error:?}"
        );
    }
    schema.drop().await;
}
