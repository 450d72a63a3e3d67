//! Rows that the server refuses: all of them are named, none besides, and the rest is written.

#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, but not in what they call")]

mod flushes;
mod support;

use serde_json::{Value, json};
use txconnect_connector_api::{Sink, SinkError};

use flushes::{Bench, Field, MARKER, batch, classes, delete, fatal, int8, new, put, rejected, text};
use support::{PIPELINE, advance, claim, taken};

fn id_and_note() -> Value {
    json!({ "id": { "type": ["integer", "null"] }, "note": { "type": ["string", "null"] } })
}

fn row(id: i64, note: &str) -> Vec<u8> {
    new(&[int8(id), text(note)])
}

#[tokio::test]
async fn every_kind_of_bad_row_is_named_with_its_class_and_column_and_the_rest_is_written() {
    let bench = Bench::rows_only(json!({})).await;
    bench
        .run(
            "CREATE TABLE $s.parents (id bigint PRIMARY KEY); INSERT INTO $s.parents SELECT generate_series(0, 99); \
             CREATE TABLE $s.t (id bigint NOT NULL UNIQUE REFERENCES $s.parents CHECK (id <> 7), note varchar(12)); \
             INSERT INTO $s.t VALUES (0, 'here')",
        )
        .await;
    let table = bench.topic("t", &id_and_note()).await;
    let rows = [
        row(1, "fine"),
        new(&[None, text(MARKER)]),
        row(2, "fine"),
        row(7, MARKER),
        row(3, "s3cr3t is too long"),
        row(2, "s3cr3t again"),
        row(4, "fine"),
        new(&[int8(5), Some(b"s3cr3t \xff".to_vec())]),
        row(0, MARKER),
        row(1000, MARKER),
        row(6, "fine"),
        new(&[int8(8), Some(b"s3cr3t\0".to_vec())]),
    ];
    let refused = bench.refused(&table, &rows).await;
    assert_eq!(
        classes(&refused),
        [
            (1, "postgres.not_null_violation"),
            (3, "postgres.check_violation"),
            (4, "postgres.string_data_right_truncation"),
            (5, "postgres.unique_violation"),
            (7, "postgres.character_not_in_repertoire"),
            (8, "postgres.unique_violation"),
            (9, "postgres.foreign_key_violation"),
            (11, "postgres.character_not_in_repertoire"),
        ]
    );
    let paths: Vec<&str> = refused.iter().map(|row| row.why.path.as_str()).collect();
    assert_eq!(paths, ["/id", "", "/note", "", "/note", "", "", "/note"]);
    assert!(refused[3].why.message.contains("t_id_key"), "{}", refused[3].why.message);
    assert_eq!(bench.one("SELECT count(*) FROM $s.t").await, "1", "nothing is written meanwhile");
    let (bad, calls) = bench.write_the_good(&table, &rows).await;
    assert_eq!((bad, calls), (vec![1, 3, 4, 5, 7, 8, 9, 11], 2));
    assert_eq!(bench.one("SELECT string_agg(id::text, ',' ORDER BY id) FROM $s.t").await, "0,1,2,4,6");
    bench.drop().await;
}

#[tokio::test]
async fn bad_rows_with_a_key_are_named_and_the_older_row_of_the_key_takes_the_place_of_a_bad_one() {
    for write in ["upsert", "insert_ignore"] {
        let bench = Bench::rows_only(json!({ "write": write, "key": ["id"] })).await;
        bench
            .run(
                "CREATE TABLE $s.parents (name text PRIMARY KEY); INSERT INTO $s.parents VALUES ('a'), ('b'); \
                 CREATE TABLE $s.t (id bigint PRIMARY KEY, note varchar(9) NOT NULL REFERENCES $s.parents CHECK (note <> 'b')) \
                 PARTITION BY RANGE (id); CREATE TABLE $s.p PARTITION OF $s.t FOR VALUES FROM (0) TO (100)",
            )
            .await;
        let table = bench.topic("t", &id_and_note()).await;
        let keyed = |id, note: Field| put(&[int8(id), note]);
        let rows = [
            keyed(9, text("a")),
            keyed(1, text("a")),
            keyed(2, text("b")),
            keyed(3, None),
            keyed(4, text(MARKER)),
            keyed(5, text("s3cr3t, s3cr3t")),
            keyed(200, text("a")),
            keyed(6, text("a")),
        ];
        let refused = bench.refused(&table, &rows).await;
        assert_eq!(
            classes(&refused),
            [
                (2, "postgres.check_violation"),
                (3, "postgres.not_null_violation"),
                (4, "postgres.foreign_key_violation"),
                (5, "postgres.string_data_right_truncation"),
                (6, "postgres.check_violation"),
            ],
            "{write}"
        );
        assert!(refused[4].why.message.contains("partition"), "{}", refused[4].why.message);
        let (bad, calls) = bench.write_the_good(&table, &rows).await;
        assert_eq!((bad, calls), (vec![2, 3, 4, 5, 6], 2));
        let competing = if write == "upsert" {
            [keyed(50, text("a")), keyed(50, text("b"))]
        } else {
            [keyed(50, text("b")), keyed(50, text("a"))]
        };
        bench.write_the_good(&table, &competing).await;
        assert_eq!(
            bench.one("SELECT string_agg(id || note, ',' ORDER BY id) FROM $s.t").await,
            "1a,6a,9a,50a"
        );
        bench.drop().await;
    }
}

#[tokio::test]
async fn a_delete_that_others_point_to_is_a_bad_row() {
    let bench =
        Bench::rows_only(json!({ "write": "upsert", "key": ["id"], "delete_on_tombstone": true })).await;
    bench
        .run(
            "CREATE TABLE $s.t (id bigint PRIMARY KEY, note text); INSERT INTO $s.t VALUES (1, 'a'), (2, 'b'); \
             CREATE TABLE $s.children (parent bigint REFERENCES $s.t); INSERT INTO $s.children VALUES (2)",
        )
        .await;
    let table = bench
        .topic("t", &json!({ "id": { "type": "integer" }, "note": { "type": ["string", "null"] } }))
        .await;
    let gone = |id| delete(&[int8(id), None]);
    let rows = [gone(1), gone(2), put(&[int8(3), text("c")])];
    assert_eq!(classes(&bench.refused(&table, &rows).await), [(1, "postgres.foreign_key_violation")]);
    bench.write_the_good(&table, &rows).await;
    assert_eq!(bench.one("SELECT string_agg(id::text, ',' ORDER BY id) FROM $s.t").await, "2,3");
    bench.drop().await;
}

#[tokio::test]
async fn a_row_that_a_trigger_refuses_is_a_bad_row_before_and_after_it_is_there() {
    for (time, at) in [("BEFORE", "FOR EACH ROW"), ("AFTER", "FOR EACH ROW")] {
        let bench = Bench::rows_only(json!({})).await;
        bench
            .run(&format!(
                "CREATE TABLE $s.t (id bigint, note text); CREATE FUNCTION $s.refuse() RETURNS trigger LANGUAGE plpgsql AS \
                 $$BEGIN IF NEW.id = 3 THEN RAISE EXCEPTION 'no % here', NEW.note USING DETAIL = NEW.note, HINT = NEW.note; END IF; \
                 RETURN NEW; END$$; \
                 CREATE TRIGGER refuse {time} INSERT ON $s.t {at} EXECUTE FUNCTION $s.refuse()"
            ))
            .await;
        let table = bench.topic("t", &id_and_note()).await;
        let rows: Vec<Vec<u8>> = (0..50).map(|id| row(id, MARKER)).collect();
        assert_eq!(classes(&bench.refused(&table, &rows).await), [(3, "postgres.raise_exception")], "{time}");
        bench.drop().await;
    }
}

#[tokio::test]
async fn a_row_may_point_to_one_that_comes_later_in_the_flush() {
    let bench = Bench::rows_only(json!({})).await;
    bench
        .run(
            "CREATE TABLE $s.t (id bigint PRIMARY KEY, parent bigint REFERENCES $s.t, note text CHECK (note <> 's3cr3t'))",
        )
        .await;
    let columns = json!({ "id": { "type": "integer" }, "parent": { "type": ["integer", "null"] }, "note": { "type": "string" } });
    let table = bench.topic("t", &columns).await;
    let node = |id, parent: Option<i64>, note| new(&[int8(id), parent.and_then(int8), text(note)]);
    let rows = [
        node(1, Some(4), "a"),
        node(2, Some(1), "a"),
        node(3, None, MARKER),
        node(4, Some(5), "a"),
        node(5, None, "a"),
        node(6, Some(99), "a"),
        node(7, Some(6), "a"),
    ];
    let (bad, _) = bench.write_the_good(&table, &rows).await;
    assert_eq!(bad, [2, 5, 6], "a row whose parent is bad is bad as well");
    assert_eq!(bench.one("SELECT string_agg(id::text, ',' ORDER BY id) FROM $s.t").await, "1,2,4,5");
    bench.drop().await;
}

#[tokio::test]
async fn deferred_constraints_name_their_rows_before_anything_is_committed() {
    let bench = Bench::new(json!({})).await;
    bench
        .run(
            "CREATE TABLE $s.zparents (id bigint, note text, CONSTRAINT once UNIQUE (id) DEFERRABLE INITIALLY DEFERRED, PRIMARY KEY (id)); \
             CREATE TABLE $s.children (id bigint REFERENCES $s.zparents DEFERRABLE INITIALLY DEFERRED, note text)",
        )
        .await;
    let children = bench.topic("children", &id_and_note()).await;
    let parents = bench
        .topic("zparents", &json!({ "id": { "type": "integer" }, "note": { "type": ["string", "null"] } }))
        .await;
    let store = bench.sink.offsets(PIPELINE).unwrap();
    let (epoch, _) = taken(&store.take_over(&[claim("t", 0, Some(0))]).await.unwrap()[0]);
    let mut batches = [
        batch(&children, &[row(1, "a"), row(5, MARKER), row(2, "b"), row(6, MARKER)]),
        batch(&parents, &[row(1, "a"), row(2, "b")]),
    ];
    let advances = [advance("t", 0, epoch, 0, 6)];
    let refused = rejected(bench.writer.write(&mut batches, &advances).await);
    assert_eq!(
        classes(&refused),
        [(1, "postgres.foreign_key_violation"), (3, "postgres.foreign_key_violation")]
    );
    assert!(refused.iter().all(|row| row.batch == 0));
    batches[0].retain_rows(|index, _| index % 2 == 0);
    bench.writer.write(&mut batches, &advances).await.unwrap();
    assert_eq!(bench.one("SELECT string_agg(id::text, ',' ORDER BY id) FROM $s.children").await, "1,2");
    assert_eq!(bench.one("SELECT next_offset FROM $s.txconnect_offsets").await, "6");
    bench.drop().await;
}

#[tokio::test]
async fn a_deferred_unique_constraint_blames_the_later_row() {
    let bench = Bench::rows_only(json!({})).await;
    bench.run("CREATE TABLE $s.t (id bigint UNIQUE DEFERRABLE INITIALLY DEFERRED, note text)").await;
    let table = bench.topic("t", &id_and_note()).await;
    let rows = [row(1, "a"), row(2, "a"), row(1, MARKER), row(3, "a"), row(3, MARKER)];
    let refused = bench.refused(&table, &rows).await;
    assert_eq!(classes(&refused), [(2, "postgres.unique_violation"), (4, "postgres.unique_violation")]);
    bench.drop().await;
}

#[tokio::test]
async fn a_large_flush_of_bad_rows_alone_comes_to_its_end() {
    let bench = Bench::rows_only(json!({})).await;
    bench.run("CREATE TABLE $s.t (id bigint CHECK (id < 0), note text)").await;
    let table = bench.topic("t", &id_and_note()).await;
    let rows: Vec<Vec<u8>> = (0..3000).map(|id| row(id, MARKER)).collect();
    let (bad, calls) = bench.write_the_good(&table, &rows).await;
    assert_eq!(bad.len(), 3000);
    assert!(calls < 20, "{calls} calls");
    bench.drop().await;
}

#[tokio::test]
async fn single_bad_rows_of_a_large_flush_cost_few_statements() {
    for (made, kept) in [
        ("CREATE TABLE $s.t (id bigint CHECK (id NOT IN (0, 7777, 19999)), note text)", false),
        (
            "CREATE TABLE $s.t (id bigint PRIMARY KEY, note text); INSERT INTO $s.t VALUES (0), (7777), (19999)",
            true,
        ),
    ] {
        let bench = Bench::rows_only(json!({})).await;
        bench.run(made).await;
        let table =
            bench.topic("t", &json!({ "id": { "type": "integer" }, "note": { "type": "string" } })).await;
        let rows: Vec<Vec<u8>> = (0..20_000).map(|id| row(id, "x")).collect();
        let mut batches = [batch(&table, &rows)];
        let refused = rejected(bench.writer.write(&mut batches, &[]).await);
        assert_eq!(refused.iter().map(|row| row.row).collect::<Vec<_>>(), [0, 7777, 19_999]);
        // Two halves for every doubling, for each of three rows, would be 90.
        assert!(
            batches[0].requests < 90,
            "{} statements, in a table with a key: {kept}",
            batches[0].requests
        );
        bench.drop().await;
    }
}

#[tokio::test]
async fn rows_that_the_server_takes_for_one_key_are_written_in_their_order() {
    let bench = Bench::rows_only(json!({ "write": "upsert", "key": ["id"] })).await;
    bench
        .run(
            "CREATE COLLATION $s.any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false); \
             CREATE TABLE $s.t (id text COLLATE $s.any_case PRIMARY KEY, note text)",
        )
        .await;
    let columns = json!({ "id": { "type": "string" }, "note": { "type": "string" } });
    let table = bench.topic("t", &columns).await;
    let keyed = |id, note| put(&[text(id), text(note)]);
    let rows = [
        keyed("B", "1"),
        keyed("a", "2"),
        keyed("b", "3"),
        keyed("A", "4"),
        keyed("c", "5"),
        keyed("B", "6"),
    ];
    bench.write(&table, &rows).await.unwrap();
    assert_eq!(
        bench.one("SELECT string_agg(lower(id) || note, ',' ORDER BY id) FROM $s.t").await,
        "a4,b6,c5"
    );
    bench.drop().await;
}

#[tokio::test]
async fn a_violation_that_is_nobodys_ends_the_pipeline_with_the_reason() {
    let bench = Bench::rows_only(json!({})).await;
    // Refuses what the transaction has done as a whole, when it commits, and no row by itself.
    bench
        .run(
            "CREATE TABLE $s.t (id bigint, note text); \
             CREATE FUNCTION $s.few() RETURNS trigger LANGUAGE plpgsql AS \
             $$BEGIN IF (SELECT count(*) FROM $s.t) > 2 AND NEW.id = 0 THEN RAISE EXCEPTION 'too many: %', NEW.note; END IF; RETURN NULL; END$$; \
             CREATE CONSTRAINT TRIGGER few AFTER INSERT ON $s.t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW \
             EXECUTE FUNCTION $s.few()",
        )
        .await;
    let table = bench.topic("t", &id_and_note()).await;
    let rows = [row(0, MARKER), row(1, MARKER), row(2, MARKER)];
    let told = fatal(bench.write(&table, &rows).await);
    assert!(told.contains("together") && told.contains("P0001"), "{told}");
    assert_eq!(bench.one("SELECT count(*) FROM $s.t").await, "0");
    bench.drop().await;
}

#[tokio::test]
async fn a_damaged_row_ends_the_pipeline_and_leaves_the_flush_as_it_is() {
    let bench = Bench::rows_only(json!({ "write": "upsert", "key": ["id"] })).await;
    let table = bench.topic("t", &json!({ "id": { "type": "integer" } })).await;
    for damaged in [&b"X\0\x01"[..], b"U", &put(&[int8(1), int8(2)])] {
        let told = fatal(bench.write(&table, &[damaged.to_vec()]).await);
        assert!(told.contains("damaged"), "{told}");
    }
    let plain = Bench::rows_only(json!({})).await;
    let table = plain.topic("t", &id_and_note()).await;
    let outcome = plain.write(&table, &[new(&[int8(1)])]).await;
    assert!(matches!(outcome, Err(SinkError::Fatal { .. })), "{outcome:?}");
    bench.drop().await;
    plain.drop().await;
}
