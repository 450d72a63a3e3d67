//! Flushes of good rows against a real PostgreSQL: what is durable afterwards, and what a flush waits for.

#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, but not in what they call")]

mod flushes;
mod support;

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;
use txconnect_connector_api::{Batch, Protocol, Sink, SinkError, Writer};
use txconnect_postgres::connect::application_name;

use flushes::{Bench, Field, batch, delete, int8, new, put, text, transient};
use support::{PIPELINE, Schema, TIMEOUT, advance, claim, run, server, session_of, taken, until, with};

fn id_and_note() -> Value {
    json!({ "id": { "type": "integer" }, "note": { "type": ["string", "null"] } })
}

async fn take_over(bench: &Bench, topic: &str, partition: i32) -> i64 {
    let store = bench.sink.offsets(PIPELINE).expect("positions are in the sink");
    let claimed = store.take_over(&[claim(topic, partition, Some(0))]).await.expect("the partition");
    taken(&claimed[0]).0
}

async fn position(bench: &Bench, topic: &str) -> String {
    bench.one(&format!("SELECT next_offset FROM $s.txconnect_offsets WHERE topic = '{topic}'")).await
}

#[tokio::test]
async fn rows_of_several_tables_and_their_positions_become_durable_together() {
    let bench = Bench::new(json!({})).await;
    assert_eq!(bench.sink.protocol(), Protocol::OffsetsInSink);
    let (b, a) = (bench.topic("b", &id_and_note()).await, bench.topic("a", &id_and_note()).await);
    let (epoch_b, epoch_a) = (take_over(&bench, "b", 3).await, take_over(&bench, "a", 0).await);
    let rows: Vec<Vec<u8>> = (0..100).map(|id| new(&[int8(id), text("x")])).collect();
    for round in 0..3 {
        let mut batches = [batch(&b, &rows), Batch::new(b.clone()), batch(&a, &rows[..7])];
        let advances = [
            advance("b", 3, epoch_b, round * 100, (round + 1) * 100),
            advance("a", 0, epoch_a, round * 7, (round + 1) * 7),
        ];
        bench.writer.write(&mut batches, &advances).await.unwrap();
        assert_eq!([batches[0].requests, batches[1].requests, batches[2].requests], [1, 0, 1]);
    }
    assert_eq!(bench.one("SELECT count(*) || ' ' || sum(id) FROM $s.b").await, "300 14850");
    assert_eq!(bench.one("SELECT count(*) FROM $s.a").await, "21");
    assert_eq!((position(&bench, "b").await, position(&bench, "a").await), ("300".into(), "21".into()));
    let counts = bench.sink.count_rows(&[b, a, "missing".into()]).await.unwrap();
    assert_eq!(counts.iter().map(|count| count.rows).collect::<Vec<_>>(), [Some(300), Some(21), None]);
    bench.drop().await;
}

#[tokio::test]
async fn positions_move_without_rows() {
    let bench = Bench::new(json!({ "offsets_schema": "public" })).await;
    let topic = format!("lonely {}", bench.schema.name);
    let epoch = take_over(&bench, &topic, 0).await;
    bench.writer.write(&mut [], &[advance(&topic, 0, epoch, 0, 9)]).await.unwrap();
    let stored = format!("SELECT next_offset FROM public.txconnect_offsets WHERE topic = '{topic}'");
    assert_eq!(bench.one(&stored).await, "9");
    run(&bench.session, &format!("DELETE FROM public.txconnect_offsets WHERE topic = '{topic}'")).await;
    bench.drop().await;
}

#[tokio::test]
async fn a_former_owner_writes_nothing_and_goes_on_with_what_it_still_holds() {
    let bench = Bench::new(json!({})).await;
    let table = bench.topic("t", &id_and_note()).await;
    let old = take_over(&bench, "t", 0).await;
    let held = take_over(&bench, "t", 1).await;
    take_over(&bench, "t", 0).await;
    let rows = [new(&[int8(1), None])];
    let mut batches = [batch(&table, &rows)];
    let advances = [advance("t", 1, held, 0, 1), advance("t", 0, old, 0, 1)];
    let outcome = bench.writer.write(&mut batches, &advances).await;
    assert!(matches!(&outcome, Err(SinkError::Fenced { partitions }) if *partitions == [1]), "{outcome:?}");
    assert_eq!(batches[0].bytes, batch(&table, &rows).bytes, "the rows are handed back");
    assert_eq!(bench.one("SELECT count(*) FROM $s.t").await, "0");
    bench.writer.write(&mut batches, &advances[..1]).await.unwrap();
    assert_eq!(bench.one("SELECT count(*) FROM $s.t").await, "1");
    bench.drop().await;
}

#[tokio::test]
async fn without_positions_no_table_for_them_is_made() {
    let bench = Bench::rows_only(json!({})).await;
    assert_eq!(bench.sink.protocol(), Protocol::AtLeastOnce);
    assert!(bench.sink.offsets(PIPELINE).is_none());
    let table = bench.topic("t", &id_and_note()).await;
    bench.write(&table, &[new(&[int8(1), None]), new(&[int8(1), text("again")])]).await.unwrap();
    assert_eq!(bench.one("SELECT string_agg(relname, ',') FROM pg_class WHERE relnamespace = '$s'::regnamespace AND relkind = 'r'").await, "t");
    assert_eq!(bench.one("SELECT count(*) FROM $s.t").await, "2");
    bench.drop().await;
}

#[tokio::test]
async fn an_upsert_leaves_what_its_records_would_leave_one_after_the_other() {
    let bench =
        Bench::rows_only(json!({ "write": "upsert", "key": ["id"], "delete_on_tombstone": true })).await;
    let table = bench.topic("t", &id_and_note()).await;
    let row = |id, note| put(&[int8(id), text(note)]);
    bench.write(&table, &[row(1, "one"), row(2, "two"), row(3, "three"), row(1, "uno")]).await.unwrap();
    let gone = |id| delete(&[int8(id), None]);
    bench
        .write(&table, &[gone(1), row(2, "dos"), gone(3), row(3, "tres"), gone(9), row(4, "four"), gone(4)])
        .await
        .unwrap();
    assert_eq!(bench.one("SELECT string_agg(id || note, ',' ORDER BY id) FROM $s.t").await, "2dos,3tres");
    bench.drop().await;
}

#[tokio::test]
async fn the_larger_value_wins_in_the_batch_and_against_the_table() {
    let bench = Bench::rows_only(json!({ "write": "upsert", "key": ["id"], "newest_by": "age" })).await;
    let columns =
        json!({ "id": { "type": "integer" }, "age": { "type": "integer" }, "note": { "type": "string" } });
    let table = bench.topic("t", &columns).await;
    let row = |id, age, note| put(&[int8(id), int8(age), text(note)]);
    bench.write(&table, &[row(1, 5, "a"), row(1, 9, "b"), row(1, -3, "c"), row(2, 5, "a")]).await.unwrap();
    bench.write(&table, &[row(1, 8, "old"), row(2, 5, "tie"), row(3, 1, "new")]).await.unwrap();
    assert_eq!(bench.one("SELECT string_agg(id || note, ',' ORDER BY id) FROM $s.t").await, "1b,2tie,3new");
    bench.drop().await;
}

#[tokio::test]
async fn a_row_that_is_there_stays_where_rows_are_only_inserted() {
    let bench = Bench::rows_only(json!({ "write": "insert_ignore", "key": ["note", "id"] })).await;
    let columns =
        json!({ "id": { "type": "integer" }, "note": { "type": "string" }, "n": { "type": "integer" } });
    let table = bench.topic("t", &columns).await;
    let row = |id, note, n| put(&[int8(id), text(note), int8(n)]);
    bench.write(&table, &[row(1, "a", 1), row(1, "a", 2), row(1, "b", 3)]).await.unwrap();
    bench.write(&table, &[row(1, "b", 4), row(2, "b", 5)]).await.unwrap();
    assert_eq!(bench.one("SELECT string_agg(n::text, ',' ORDER BY n) FROM $s.t").await, "1,3,5");
    bench.drop().await;
}

/// A value of every type in PostgreSQL's binary form, with the column that takes it.
fn every_type() -> Vec<(&'static str, Value, Field)> {
    let string = json!({ "type": "string" });
    vec![
        ("boolean", json!({ "type": "boolean" }), Some(vec![1])),
        ("smallint", json!({ "type": "integer" }), Some(7_i16.to_be_bytes().to_vec())),
        ("integer", json!({ "type": "integer" }), Some(7_i32.to_be_bytes().to_vec())),
        ("bigint", json!({ "type": "integer" }), int8(-7)),
        ("real", json!({ "type": "number" }), Some(1.5_f32.to_be_bytes().to_vec())),
        ("double precision", json!({ "type": "number" }), Some(2.5_f64.to_be_bytes().to_vec())),
        (
            "numeric(18,2)",
            json!({ "x-column": { "type": "numeric", "precision": 18, "scale": 2 }, "type": "number" }),
            // 12.34
            Some([0, 2, 0, 0, 0, 0, 0, 2, 0, 12, 0x0d, 0x48].to_vec()),
        ),
        ("text", string.clone(), text("ä")),
        ("varchar(5)", string.clone(), text("abc ")),
        ("char(5)", string.clone(), text("abc")),
        ("$s.mood", string.clone(), text("glad")),
        ("$s.short_name", string.clone(), text("Bo")),
        ("uuid", json!({ "type": "string", "format": "uuid" }), Some(vec![9; 16])),
        ("bytea", json!({ "type": "string", "contentEncoding": "base64" }), Some(vec![0, 255])),
        ("timestamptz", json!({ "type": "string", "format": "date-time" }), int8(1)),
        ("timestamp", json!({ "type": "string", "format": "date-time" }), int8(2)),
        ("date", json!({ "type": "string", "format": "date" }), Some(3_i32.to_be_bytes().to_vec())),
        ("time", json!({ "type": "string", "format": "time" }), int8(4)),
        ("json", json!({ "type": "object" }), text("{\"a\": [1, null]}")),
        ("jsonb", json!({ "type": "object" }), Some(b"\x01{\"a\": [1, null]}".to_vec())),
    ]
}

#[tokio::test]
async fn every_type_and_null_arrive_by_copy_and_by_upsert_alike() {
    let types = every_type();
    let copied = Bench::rows_only(json!({})).await;
    let made = "CREATE TYPE $s.mood AS ENUM ('glad', 'sad'); CREATE DOMAIN $s.name AS varchar(9); \
        CREATE DOMAIN $s.short_name AS $s.name CHECK (length(value) < 4);";
    copied.run(made).await;
    let upserted = Bench::at(
        &server(),
        Schema { name: copied.schema.name.clone() },
        json!({ "table": "{topic}_merged", "write": "upsert", "key": ["id"], "delivery": "at_least_once" }),
    )
    .await;
    let mut columns = json!({ "id": { "type": "integer" } });
    let mut declared = "id bigint PRIMARY KEY".to_owned();
    for (index, (declaration, property, _)) in types.iter().enumerate() {
        let mut property = property.clone();
        property["type"] = json!([property["type"], "null"]);
        columns[format!("c{index}")] = property;
        write!(declared, ", c{index} {declaration}").unwrap();
    }
    copied.run(&format!("CREATE TABLE $s.t ({declared}); CREATE TABLE $s.t_merged ({declared})")).await;
    let values: Vec<Field> = types.iter().map(|(_, _, value)| value.clone()).collect();
    let rows: Vec<Vec<Field>> = [
        [vec![int8(1)], values.clone()].concat(),
        [vec![int8(2)], vec![None; types.len()]].concat(),
        [vec![int8(3)], values].concat(),
    ]
    .into();
    let plain = copied.topic("t", &columns).await;
    let merged = upserted.topic("t", &columns).await;
    copied.write(&plain, &rows.iter().map(|row| new(row)).collect::<Vec<_>>()).await.unwrap();
    for _ in 0..2 {
        upserted.write(&merged, &rows.iter().map(|row| put(row)).collect::<Vec<_>>()).await.unwrap();
    }
    assert_eq!(copied.one("SELECT count(*) FROM $s.t").await, "3");
    let of = |table| format!("SELECT to_jsonb(x)::text FROM $s.{table} AS x");
    let differences = format!(
        "SELECT count(*) FROM (({0} EXCEPT {1}) UNION ALL ({1} EXCEPT {0})) AS d",
        of("t"),
        of("t_merged")
    );
    assert_eq!(copied.one(&differences).await, "0");
    assert_eq!(
        copied.one("SELECT c6 || ' ' || c19 FROM $s.t WHERE id = 3").await,
        "12.34 {\"a\": [1, null]}"
    );
    copied.drop().await;
}

#[tokio::test]
async fn names_of_any_kind_and_columns_that_the_server_fills_are_served() {
    for (write, key) in [("append", json!([])), ("upsert", json!(["the \"key\""]))] {
        let bench =
            Bench::rows_only(json!({ "write": write, "key": key, "table": "Order's \"{topic}\"" })).await;
        bench
            .run(
                "CREATE TABLE $s.\"Order's \"\"select\"\"\" (number bigint GENERATED ALWAYS AS IDENTITY, \
                 \"the \"\"key\"\"\" bigint PRIMARY KEY, double bigint GENERATED ALWAYS AS (\"the \"\"key\"\"\" * 2) STORED, \
                 \"WHERE\" text, made_at timestamptz NOT NULL DEFAULT now())",
            )
            .await;
        let columns = json!({ "WHERE": { "type": "string" }, "the \"key\"": { "type": "integer" } });
        let table = bench.topic("select", &columns).await;
        let row = if write == "append" { new } else { put };
        bench.write(&table, &[row(&[text("here"), int8(21)])]).await.unwrap();
        assert_eq!(
            bench
                .one("SELECT number || ' ' || double || ' ' || \"WHERE\" FROM $s.\"Order's \"\"select\"\"\"")
                .await,
            "1 42 here"
        );
        bench.drop().await;
    }
}

#[tokio::test]
async fn a_flush_of_many_pieces_is_written_whole() {
    let bench = Bench::rows_only(json!({})).await;
    let table = bench.topic("t", &id_and_note()).await;
    let note = "n".repeat(200);
    let rows: Vec<Vec<u8>> = (0..40_000).map(|id| new(&[int8(id), text(&note)])).collect();
    bench.write(&table, &rows).await.unwrap();
    assert_eq!(
        bench.one("SELECT count(*) || ' ' || sum(id) || ' ' || min(length(note)) FROM $s.t").await,
        "40000 799980000 200"
    );
    bench.drop().await;
}

#[tokio::test]
async fn no_statement_outlives_its_transaction() {
    let bench = Bench::rows_only(json!({})).await;
    bench
        .run(
            "CREATE TABLE $s.t (id bigint, note text); CREATE TABLE $s.seen (statements bigint); \
             CREATE FUNCTION $s.look() RETURNS trigger LANGUAGE plpgsql AS \
             $$BEGIN INSERT INTO $s.seen SELECT count(*) FROM pg_prepared_statements; RETURN NEW; END$$; \
             CREATE TRIGGER look BEFORE INSERT ON $s.t FOR EACH ROW EXECUTE FUNCTION $s.look()",
        )
        .await;
    let table = bench.topic("t", &id_and_note()).await;
    for _ in 0..3 {
        bench.write(&table, &[new(&[int8(1), None])]).await.unwrap();
    }
    // The one that is running.
    assert_eq!(bench.one("SELECT count(*) || ' ' || max(statements) FROM $s.seen").await, "3 1");
    bench.drop().await;
}

#[tokio::test]
async fn a_stopped_session_of_the_same_pipeline_does_not_hold_keys_for_ever() {
    let bench = Bench::rows_only(json!({})).await;
    bench.run("CREATE TABLE $s.t (id bigint PRIMARY KEY, note text)").await;
    let table = bench.topic("t", &id_and_note()).await;
    let stopped = session_of(&application_name(PIPELINE)).await;
    run(&stopped, &format!("BEGIN; INSERT INTO {}.t VALUES (1, 'held')", bench.schema.quoted())).await;
    timeout(TIMEOUT, bench.write(&table, &[new(&[int8(1), text("mine")])])).await.unwrap().unwrap();
    assert_eq!(bench.one("SELECT note FROM $s.t").await, "mine");
    bench.drop().await;
}

#[tokio::test]
async fn a_session_of_somebody_else_is_named_and_left_alone() {
    let bench = Bench::rows_only(json!({ "timeout": "6s" })).await;
    bench.run("CREATE TABLE $s.t (id bigint PRIMARY KEY, note text)").await;
    let table = bench.topic("t", &id_and_note()).await;
    let other = session_of("the report").await;
    run(&other, &format!("BEGIN; INSERT INTO {}.t VALUES (1, 'held')", bench.schema.quoted())).await;
    let rows = [new(&[int8(1), text(flushes::MARKER)])];
    let cause = transient(timeout(TIMEOUT, bench.write(&table, &rows)).await.unwrap());
    assert!(cause.contains("`the report`") && cause.contains("55P03"), "{cause}");
    run(&other, "ROLLBACK").await;
    bench.write(&table, &rows).await.unwrap();
    bench.drop().await;
}

#[tokio::test]
async fn a_broken_deadlock_is_worth_another_try() {
    let schema = Schema::new().await;
    // So long that it is certainly ours that is noticed.
    let url = with(&server(), "options=-c%20deadlock_timeout%3D3s");
    let extra = json!({ "write": "upsert", "key": ["id"], "delivery": "at_least_once" });
    let bench = Bench::at(&url, schema, extra).await;
    let table = bench.topic("t", &id_and_note()).await;
    let row = |id| put(&[int8(id), text(flushes::MARKER)]);
    bench.write(&table, &[row(1), row(2)]).await.unwrap();
    let other = session_of("the report").await;
    run(&other, "SET deadlock_timeout = '1h'; BEGIN").await;
    let name = format!("{}.t", bench.schema.quoted());
    run(&other, &format!("UPDATE {name} SET note = 'x' WHERE id = 2")).await;
    let rows = [row(1), row(2)];
    let blocked = async {
        let waits = format!(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid IN (SELECT pid FROM pg_locks WHERE relation = '{name}'::regclass)"
        );
        until(&bench.session, &waits, "1").await;
        run(&other, &format!("UPDATE {name} SET note = 'x' WHERE id = 1; COMMIT")).await;
    };
    let (outcome, ()) =
        timeout(TIMEOUT, async { tokio::join!(bench.write(&table, &rows), blocked) }).await.unwrap();
    let cause = transient(outcome);
    assert!(cause.contains("40P01"), "{cause}");
    bench.write(&table, &rows).await.unwrap();
    bench.drop().await;
}

#[tokio::test]
async fn a_write_that_is_dropped_half_way_gives_its_rows_back_and_leaves_nothing_behind() {
    let bench = Bench::rows_only(json!({})).await;
    bench.run("CREATE TABLE $s.t (id bigint PRIMARY KEY, note text)").await;
    let table = bench.topic("t", &id_and_note()).await;
    let other = session_of("the report").await;
    run(&other, &format!("BEGIN; INSERT INTO {}.t VALUES (5, 'held')", bench.schema.quoted())).await;
    let rows: Vec<Vec<u8>> = (0..10).map(|id| new(&[int8(id), None])).collect();
    let mut batches = [batch(&table, &rows)];
    let writer: &dyn Writer = &*bench.writer;
    assert!(timeout(Duration::from_millis(500), writer.write(&mut batches, &[])).await.is_err());
    assert_eq!(batches[0].bytes, batch(&table, &rows).bytes);
    run(&other, "ROLLBACK").await;
    writer.write(&mut batches, &[]).await.unwrap();
    assert_eq!(bench.one("SELECT count(*) FROM $s.t").await, "10");
    bench.drop().await;
}

#[tokio::test]
async fn a_session_that_broke_while_idle_costs_no_flush() {
    let bench = Bench::rows_only(json!({})).await;
    let table = bench.topic("t", &id_and_note()).await;
    bench.write(&table, &[new(&[int8(1), None])]).await.unwrap();
    bench
        .run(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%{}%' AND pid <> pg_backend_pid()",
            bench.schema.name
        ))
        .await;
    // Either the end has been noticed, and a new session is opened at once, or the second call does it.
    let first = bench.write(&table, &[new(&[int8(2), None])]).await;
    if first.is_err() {
        transient(first);
        bench.write(&table, &[new(&[int8(2), None])]).await.unwrap();
    }
    assert_eq!(bench.one("SELECT count(*) FROM $s.t").await, "2");
    bench.drop().await;
}
