//! Rows that are visible as soon as they are confirmed, against the local BigQuery, with faults.

use std::time::Duration;

use crate::local::{ids, place, script, server, sink_of, status};
use crate::support::{
    self, batch, batch_of_rows, keyed_batch, offsets, record_json, records, schema, schema_of,
    write_patiently,
};
use futures::future::join_all;
use serde_json::{Value as Json, json};
use txconnect_bigquery::BigQuerySink;
use txconnect_connector_api::{Protocol, Sink as _, SinkError};
use txconnect_local_bigquery::{Closing, LocalBigQuery, Method, Options, QuotaReason, StatusCode, What};

fn at_least_once(server: &LocalBigQuery) -> BigQuerySink {
    sink_of(server, &json!({ "delivery": "at_least_once" }))
}

/// Ids without those that were written again.
fn distinct_ids(server: &LocalBigQuery, table: &str) -> Vec<i64> {
    let mut all = ids(server, table);
    all.dedup();
    all
}

const PAUSE: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn the_shared_cases_hold() {
    let server = server().await;
    let place = place(&server, &json!({ "delivery": "at_least_once" }));
    support::rows_of_every_type_arrive_in_a_table_that_is_created(&place).await;
    support::a_missing_table_is_fatal_where_none_may_be_created(&place).await;
    support::a_missing_table_is_fatal_before_anything_is_read(&place).await;
    support::a_table_that_does_not_fit_is_fatal(&place).await;
    support::a_table_that_does_not_fit_is_fatal_before_anything_is_read(&place).await;
    support::rows_of_several_tables_arrive_in_their_own(&place).await;
    support::of_rows_with_one_key_the_newest_stays(&place).await;
}

#[tokio::test]
async fn values_arrive_as_they_were() {
    let server = server().await;
    let sink = at_least_once(&server);
    assert_eq!(sink.protocol(), Protocol::AtLeastOnce);
    let mut batches = [batch(&sink, "t", &schema(), &[record_json(7), record_json(9_007_199_254_740_993)])];
    sink.writer("test").write(&mut batches, &[]).await.unwrap();
    assert_eq!(offsets(&batches[0]), [0, 1]);
    assert_eq!(batches[0].requests, 1);
    assert_eq!(ids(&server, "t"), [7, 9_007_199_254_740_993]);
    let row = &server.rows("p", "d", "t").unwrap()[0];
    assert_eq!(row["note"], json!("note \"7\"\n"));
    assert_eq!(row["raw"], json!("QUJD"));
    assert_eq!(row["tags"], json!(["x", "y"]));
    assert_eq!(row["lines"][0]["n"], json!(1));
}

#[tokio::test]
async fn tables_of_different_columns_share_connections() {
    let server = server().await;
    let sink = at_least_once(&server);
    let other =
        schema_of(&json!({ "properties": { "note": { "type": "string" }, "id": { "type": "integer" } } }));
    let writer = sink.writer("test");
    let flushes = (0..30_i64).map(async |turn| {
        let own = |start: i64| records(start..start + 2);
        let small: Vec<Json> = (0..2).map(|row| json!({ "id": turn * 2 + row, "note": "n" })).collect();
        let mut batches = [
            batch(&sink, "a", &schema(), &own(turn * 2)),
            batch(&sink, "b", &other, &small),
            batch(&sink, "c", &schema(), &own(turn * 2)),
        ];
        writer.write(&mut batches, &[]).await.unwrap();
    });
    join_all(flushes).await;
    for table in ["a", "b", "c"] {
        assert_eq!(ids(&server, table), (0..60).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_refused_row_is_cut_out_and_the_others_are_in_at_once() {
    let server = server().await;
    let sink = at_least_once(&server);
    let reject = What::RejectValue { field: "note".to_owned(), value: json!("hunter2") };
    script(&server, Method::AppendRows, reject, None);
    let mut rows = records(0..6);
    for bad in [1, 2, 5] {
        rows[bad]["note"] = json!("hunter2");
    }
    let mut batches = [batch(&sink, "t", &schema(), &rows), batch(&sink, "u", &schema(), &records(0..2))];
    let writer = sink.writer("test");
    let Err(SinkError::Rejected { rows: refused }) = writer.write(&mut batches, &[]).await else {
        panic!("rows should be refused")
    };
    assert_eq!(refused.iter().map(|row| (row.batch, row.row)).collect::<Vec<_>>(), [(0, 0), (0, 1), (0, 2)]);
    assert!(refused[0].why.message.contains("`note`") && !refused[0].why.message.contains("hunter2"));
    // What is in has left the batches.
    assert_eq!(batches.each_ref().map(offsets), [vec![1, 2, 5], vec![]]);
    assert_eq!(ids(&server, "t"), [0, 3, 4]);
    assert_eq!(ids(&server, "u"), [0, 1]);
}

#[tokio::test]
async fn a_batch_of_refused_rows_alone_is_refused() {
    let server = server().await;
    let sink = at_least_once(&server);
    let refuse = What::RowErrors { rows: vec![0, 1, 2], reason: "Bad value hunter2".to_owned() };
    script(&server, Method::AppendRows, refuse, None);
    let mut batches = [batch(&sink, "t", &schema(), &records(0..3))];
    let Err(SinkError::Rejected { rows }) = sink.writer("test").write(&mut batches, &[]).await else {
        panic!("rows should be refused")
    };
    assert_eq!(rows.len(), 3);
    assert!(!rows[0].why.message.contains("hunter2"));
    assert_eq!(offsets(&batches[0]), [0, 1, 2]);
}

#[tokio::test]
async fn a_call_that_the_server_ends_is_made_again_without_an_error() {
    for what in [
        What::StreamClosed { because: Closing::Restart },
        What::StreamClosed { because: Closing::Inactivity },
        What::Cut,
        What::ReplyLost,
        status(StatusCode::Unavailable, ""),
        status(StatusCode::Unauthenticated, "the token has expired"),
    ] {
        let server = server().await;
        let sink = at_least_once(&server);
        let writer = sink.writer("test");
        for start in [0, 5, 10] {
            script(&server, Method::AppendRows, what.clone(), Some(1));
            let mut batches = [batch(&sink, "t", &schema(), &records(start..start + 5))];
            writer.write(&mut batches, &[]).await.unwrap();
            assert_eq!(batches[0].requests, 2, "{what:?}");
        }
        assert_eq!(distinct_ids(&server, "t"), (0..15).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn answers_that_pass_are_transient_and_others_fatal() {
    let in_answer =
        |code: StatusCode| What::Status { code, message: "as scripted".to_owned(), in_band: true };
    for (what, transient) in [
        (status(StatusCode::Unavailable, ""), true),
        (status(StatusCode::Internal, ""), true),
        (in_answer(StatusCode::Internal), true),
        (in_answer(StatusCode::Aborted), true),
        (What::Quota { reason: QuotaReason::RateLimitExceeded }, true),
        (What::Quota { reason: QuotaReason::QuotaExceeded }, true),
        (status(StatusCode::PermissionDenied, "denied"), false),
        (in_answer(StatusCode::PermissionDenied), false),
        (status(StatusCode::InvalidArgument, ""), false),
        (status(StatusCode::Unauthenticated, ""), false),
        (status(StatusCode::Unimplemented, ""), false),
    ] {
        let server = server().await;
        let sink = at_least_once(&server);
        script(&server, Method::AppendRows, what.clone(), Some(2));
        let mut batches = [batch(&sink, "t", &schema(), &records(0..2))];
        let error = sink.writer("test").write(&mut batches, &[]).await.unwrap_err();
        assert_eq!(matches!(error, SinkError::Transient { .. }), transient, "{what:?}: {error:?}");
        assert_eq!(offsets(&batches[0]), [0, 1]);
        if let SinkError::Fatal { cause, hint } = error {
            assert!(cause.contains("`d.t`") && hint.is_some(), "{cause}");
        }
    }
}

#[tokio::test]
async fn of_several_tables_each_keeps_its_own_account() {
    let server = server().await;
    let sink = at_least_once(&server);
    let away = What::Status { code: StatusCode::Internal, message: String::new(), in_band: true };
    server.script(txconnect_local_bigquery::Fault::new(Method::AppendRows, away).table("b").times(1));
    let mut batches = ["a", "b", "c"].map(|table| batch(&sink, table, &schema(), &records(0..3)));
    let writer = sink.writer("test");
    let error = writer.write(&mut batches, &[]).await.unwrap_err();
    assert!(matches!(error, SinkError::Transient { .. }), "{error:?}");
    assert_eq!(batches.each_ref().map(offsets), [vec![], vec![0, 1, 2], vec![]]);
    writer.write(&mut batches, &[]).await.unwrap();
    for table in ["a", "b", "c"] {
        assert_eq!(ids(&server, table), [0, 1, 2]);
    }
}

#[tokio::test]
async fn a_table_that_was_dropped_is_made_again() {
    let server = server().await;
    let sink = at_least_once(&server);
    let writer = sink.writer("test");
    writer.write(&mut [batch(&sink, "t", &schema(), &records(0..3))], &[]).await.unwrap();
    assert!(server.drop_table("p", "d", "t"));
    let mut batches = [batch(&sink, "t", &schema(), &records(3..6))];
    write_patiently(&*writer, &mut batches, PAUSE, PATIENCE).await.unwrap();
    assert_eq!(ids(&server, "t"), [3, 4, 5]);
}

#[tokio::test]
async fn a_new_table_that_is_not_known_everywhere_is_waited_for() {
    let server = server().await;
    let sink = at_least_once(&server);
    script(&server, Method::AppendRows, What::NotFoundAfterCreate { ms: 300 }, None);
    let mut batches = [batch(&sink, "t", &schema(), &records(0..2))];
    write_patiently(&*sink.writer("test"), &mut batches, PAUSE, PATIENCE).await.unwrap();
    assert_eq!(ids(&server, "t"), [0, 1]);
    assert!(batches[0].requests > 1);
}

#[tokio::test]
async fn a_column_that_has_not_arrived_everywhere_is_waited_for_and_no_row_is_refused() {
    let server = server().await;
    let narrow = schema_of(&json!({ "properties": { "id": { "type": "integer" } } }));
    let wide = schema_of(&json!({ "properties": {
        "id": { "type": "integer" }, "note": { "type": "string" } } }));
    let before = at_least_once(&server);
    let mut batches = [batch(&before, "t", &narrow, &[json!({ "id": 1 })])];
    before.writer("test").write(&mut batches, &[]).await.unwrap();

    script(&server, Method::AppendRows, What::SchemaLag { ms: 300 }, None);
    let columns = json!({ "schema": { "fields": [
        { "name": "id", "type": "INTEGER" }, { "name": "note", "type": "STRING" } ] } });
    let table = format!("{}/projects/p/datasets/d/tables/t", server.base_url());
    let patched = reqwest::Client::new().patch(table).json(&columns).send().await.unwrap();
    assert!(patched.status().is_success());
    let after = at_least_once(&server);
    let writer = after.writer("test");
    let mut batches = [batch(&after, "t", &wide, &[json!({ "id": 2, "note": "x" })])];
    let error = writer.write(&mut batches, &[]).await.unwrap_err();
    assert!(matches!(&error, SinkError::Transient { cause, .. } if cause.contains("columns")), "{error:?}");
    write_patiently(&*writer, &mut batches, PAUSE, PATIENCE).await.unwrap();
    assert_eq!(ids(&server, "t"), [1, 2]);
}

#[tokio::test]
async fn a_column_that_the_table_lost_is_found_missing() {
    let server = server().await;
    let sink = at_least_once(&server);
    let writer = sink.writer("test");
    writer.write(&mut [batch(&sink, "t", &schema(), &records(0..3))], &[]).await.unwrap();
    assert!(server.drop_table("p", "d", "t"));
    let other = schema_of(&json!({ "required": ["id"], "properties": { "id": { "type": "integer" } } }));
    sink_of(&server, &json!({})).prepare("t", Some(&other)).await.unwrap();
    let mut batches = [batch(&sink, "t", &schema(), &records(3..6))];
    let error = write_patiently(&*writer, &mut batches, PAUSE, PATIENCE).await.unwrap_err();
    assert!(matches!(&error, SinkError::Fatal { cause, .. } if cause.contains("`note`")), "{error:?}");
    assert_eq!(offsets(&batches[0]), [0, 1, 2]);
}

#[tokio::test]
async fn flushes_on_their_way_to_a_slow_server_all_arrive() {
    let server = server().await;
    script(&server, Method::AppendRows, What::Slow { ms: 50 }, None);
    let sink = at_least_once(&server);
    let writer = sink.writer("test");
    let flushes = (0..32_i64).map(async |turn| {
        let mut batches = [batch(&sink, "t", &schema(), &records(turn * 5..turn * 5 + 5))];
        writer.write(&mut batches, &[]).await.unwrap();
    });
    join_all(flushes).await;
    assert_eq!(ids(&server, "t"), (0..160).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for() {
    let server = server().await;
    let sink = sink_of(&server, &json!({ "delivery": "at_least_once", "timeout": "1s" }));
    let writer = sink.writer("test");
    writer.write(&mut [batch(&sink, "t", &schema(), &records(0..2))], &[]).await.unwrap();
    server.stop().await;
    let mut batches = [batch(&sink, "t", &schema(), &records(2..4))];
    let error = writer.write(&mut batches, &[]).await.unwrap_err();
    assert!(matches!(error, SinkError::Transient { .. }), "{error:?}");
    assert_eq!(offsets(&batches[0]), [0, 1]);
}

#[tokio::test]
async fn a_server_that_was_restarted_is_found_again() {
    let first = server().await;
    let address = first.address();
    let sink = at_least_once(&first);
    let writer = sink.writer("test");
    writer.write(&mut [batch(&sink, "t", &schema(), &records(0..2))], &[]).await.unwrap();
    first.stop().await;
    let options = Options { listen: address, ..Options::default() };
    let second = LocalBigQuery::start(options).await.unwrap();
    let mut batches = [batch(&sink, "t", &schema(), &records(2..4))];
    write_patiently(&*writer, &mut batches, PAUSE, PATIENCE).await.unwrap();
    assert_eq!(ids(&second, "t"), [2, 3]);
}

#[tokio::test]
async fn an_encrypted_server_that_is_away_is_an_error_and_nothing_worse() {
    let server = server().await;
    // Port 1 of this machine refuses connections.
    let settings = json!({ "delivery": "at_least_once", "storage_endpoint": "https://127.0.0.1:1" });
    let sink = sink_of(&server, &settings);
    let mut batches = [batch(&sink, "t", &schema(), &records(0..2))];
    match sink.writer("test").write(&mut batches, &[]).await {
        Err(SinkError::Transient { cause, .. }) => assert!(cause.contains("`d.t`"), "{cause}"),
        // A machine without certificates.
        Err(SinkError::Fatal { hint: Some(hint), .. }) => assert!(hint.contains("certificates"), "{hint}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(offsets(&batches[0]), [0, 1]);
}

#[tokio::test]
async fn upserts_need_the_tables_key_before_anything_is_read() {
    let server = server().await;
    at_least_once(&server).prepare("t", Some(&schema())).await.unwrap();
    let upsert = sink_of(&server, &json!({ "write": "upsert", "key": ["id"] }));
    let error = upsert.prepare("t", Some(&schema())).await.unwrap_err();
    let SinkError::Fatal { cause, hint: Some(hint) } = error else { panic!("{error:?}") };
    assert!(cause.contains("`d.t`"), "{cause}");
    assert!(hint.contains("ALTER TABLE") && hint.contains("PRIMARY KEY"), "{hint}");
}

#[tokio::test]
async fn an_older_row_that_arrives_later_changes_nothing_and_a_tombstone_deletes() {
    let server = server().await;
    let settings = json!({
        "write": "upsert", "key": ["id"], "newest_by": "offset", "delete_on_tombstone": true
    });
    let sink = sink_of(&server, &settings);
    let writer = sink.writer("test");
    let write = async |rows: &[(i64, Json, Option<Json>)]| {
        writer.write(&mut [keyed_batch(&sink, "t", &schema(), rows)], &[]).await.unwrap();
    };
    let row = |id: i64, note: &str| {
        let mut row = record_json(id);
        row["note"] = json!(note);
        (json!({ "id": id }), row)
    };
    let (key, new) = row(1, "new");
    write(&[(7, key.clone(), Some(new))]).await;
    let (_, old) = row(1, "old");
    write(&[(3, key.clone(), Some(old))]).await;
    let (other, gone) = row(2, "gone");
    write(&[(8, other.clone(), Some(gone.clone())), (9, other.clone(), None)]).await;
    write(&[(8, other, Some(gone))]).await;
    let rows = server.rows("p", "d", "t").unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0]["id"], &rows[0]["note"]), (&json!(1), &json!("new")));
}

#[tokio::test]
async fn of_the_rows_of_one_record_the_last_stays_in_whatever_order_they_come() {
    for newest_by in ["offset", "timestamp", "at", "amount"] {
        let server = server().await;
        let sink = sink_of(&server, &json!({ "write": "upsert", "key": ["id"], "newest_by": newest_by }));
        let writer = sink.writer("test");
        let write = async |offset: i64, rows: &[u32]| {
            let values: Vec<Json> = rows
                .iter()
                .map(|row| {
                    let mut value = record_json(1);
                    value["note"] = json!(format!("{offset}, row {row}"));
                    value
                })
                .collect();
            let rows: Vec<_> = rows
                .iter()
                .zip(&values)
                .map(|(&row, value)| (offset, row, &Json::Null, Some(value)))
                .collect();
            writer.write(&mut [batch_of_rows(&sink, "t", &schema(), &rows)], &[]).await.unwrap();
        };
        write(7, &[2]).await;
        write(7, &[0, 1]).await;
        write(6, &[0, 1, 2, 3, 4]).await;
        let note = || server.rows("p", "d", "t").unwrap()[0]["note"].clone();
        assert_eq!(note(), "7, row 2", "{newest_by}");
        write(7, &[0, 1, 2, 3]).await;
        assert_eq!(note(), "7, row 3", "{newest_by}");
        write(8, &[0]).await;
        assert_eq!(note(), "8, row 0", "{newest_by}");
    }
}
