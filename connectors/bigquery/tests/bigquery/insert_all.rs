//! `api: insert_all` against the local BigQuery over HTTP, with faults.

use std::time::Duration;

use crate::local::{self, ids, no_environment, server};
use crate::support::{self, batch, offsets, record_json, records, schema, schema_of, sink, write_patiently};
use serde_json::json;
use txconnect_bigquery::BigQuerySink;
use txconnect_connector_api::{Sink as _, SinkError};
use txconnect_local_bigquery::{Fault, LocalBigQuery, Method, Options, QuotaReason, What};

fn sink_of(server: &LocalBigQuery, extra: &serde_json::Value) -> BigQuerySink {
    let mut settings = json!({ "api": "insert_all" });
    settings.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    local::sink_of(server, &settings)
}

fn insert_fault(what: What) -> Fault {
    Fault::new(Method::InsertAll, what)
}

fn row_errors(rows: &[usize], reason: &str) -> What {
    What::RowErrors { rows: rows.to_vec(), reason: reason.to_owned() }
}

#[tokio::test]
async fn the_shared_cases_hold() {
    let server = server().await;
    let place = local::place(&server, &json!({ "api": "insert_all" }));
    support::rows_of_every_type_arrive_in_a_table_that_is_created(&place).await;
    support::a_missing_table_is_fatal_where_none_may_be_created(&place).await;
    support::a_table_that_does_not_fit_is_fatal(&place).await;
    support::rows_of_several_tables_arrive_in_their_own(&place).await;
}

#[tokio::test]
async fn values_arrive_as_they_were_and_ids_make_a_second_write_harmless() {
    let server = server().await;
    for compression in ["fast", "none"] {
        let sink = sink_of(&server, &json!({ "compression": compression }));
        let mut batches =
            [batch(&sink, "t", &schema(), &[record_json(7), record_json(9_007_199_254_740_993)])];
        sink.writer("test").write(&mut batches, &[]).await.unwrap();
        assert_eq!(offsets(&batches[0]), [0, 1]);
        assert_eq!(batches[0].requests, 1);
    }
    assert_eq!(ids(&server, "t"), [7, 9_007_199_254_740_993]);
    let row = &server.rows("p", "d", "t").unwrap()[0];
    assert_eq!(row["note"], json!("note \"7\"\n"));
    assert_eq!(row["raw"], json!("QUJD"));
    assert_eq!(row["tags"], json!(["x", "y"]));
    assert_eq!(row["lines"][0]["n"], json!(1));
}

#[tokio::test]
async fn an_emulator_is_found_by_its_variable_without_credentials() {
    let server = server().await;
    let address = server.address().to_string();
    let environment = move |name: &str| (name == "BIGQUERY_EMULATOR_HOST").then(|| address.clone());
    let sink = sink(&json!({ "api": "insert_all" }), &environment);
    sink.writer("test").write(&mut [batch(&sink, "t", &schema(), &records(0..3))], &[]).await.unwrap();
    assert_eq!(ids(&server, "t"), [0, 1, 2]);
}

#[tokio::test]
async fn a_row_the_server_refuses_is_named_and_the_others_go_in_without_it() {
    let server = server().await;
    let sink = sink_of(&server, &json!({}));
    server.script(insert_fault(What::RejectValue { field: "note".to_owned(), value: json!("hunter2") }));
    let mut rows = records(0..4);
    rows[2]["note"] = json!("hunter2");
    let mut batches = [batch(&sink, "t", &schema(), &rows)];
    let writer = sink.writer("test");
    let Err(SinkError::Rejected { rows: refused }) = writer.write(&mut batches, &[]).await else {
        panic!("the row should be refused")
    };
    assert_eq!(refused.iter().map(|row| (row.batch, row.row)).collect::<Vec<_>>(), [(0, 2)]);
    assert!(!refused[0].why.to_string().contains("hunter2"));
    assert_eq!(offsets(&batches[0]), [0, 1, 2, 3]);
    assert_eq!(ids(&server, "t"), [0; 0]);
    batches[0].retain_rows(|row, _| row != 2);
    writer.write(&mut batches, &[]).await.unwrap();
    assert_eq!(ids(&server, "t"), [0, 1, 3]);
}

#[tokio::test]
async fn rows_that_are_in_are_cut_out_and_only_the_others_sent_again() {
    let server = server().await;
    // Without ids nothing but the writer's own account keeps rows from being doubled.
    let sink = sink_of(&server, &json!({ "insert_ids": false }));
    server.script(insert_fault(row_errors(&[0, 3], "backendError")).times(1));
    let mut batches = [batch(&sink, "t", &schema(), &records(0..5))];
    let writer = sink.writer("test");
    assert!(matches!(writer.write(&mut batches, &[]).await, Err(SinkError::Transient { .. })));
    assert_eq!(offsets(&batches[0]), [0, 3]);
    writer.write(&mut batches, &[]).await.unwrap();
    assert_eq!(ids(&server, "t"), [0, 1, 2, 3, 4]);
    assert_eq!(batches[0].requests, 2);
}

#[tokio::test]
async fn a_reply_that_is_lost_doubles_no_row() {
    let server = server().await;
    let sink = sink_of(&server, &json!({}));
    server.script(insert_fault(What::ReplyLost).times(1));
    let mut batches = [batch(&sink, "t", &schema(), &records(0..5))];
    let writer = sink.writer("test");
    assert!(matches!(writer.write(&mut batches, &[]).await, Err(SinkError::Transient { .. })));
    assert_eq!(offsets(&batches[0]), [0, 1, 2, 3, 4]);
    writer.write(&mut batches, &[]).await.unwrap();
    assert_eq!(ids(&server, "t"), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn answers_that_pass_are_transient_and_others_fatal() {
    let refused = |status: u16, reason: &str| What::Error {
        status,
        reason: reason.to_owned(),
        message: "as scripted".to_owned(),
        retry_after: None,
    };
    for (what, transient) in [
        (What::Cut, true),
        (What::Html { status: 502 }, true),
        (refused(503, "backendError"), true),
        (What::Quota { reason: QuotaReason::RateLimitExceeded }, true),
        (What::Quota { reason: QuotaReason::QuotaExceeded }, true),
        (refused(403, "accessDenied"), false),
        (refused(401, "authError"), false),
        (refused(400, "invalid"), false),
    ] {
        let server = server().await;
        let sink = sink_of(&server, &json!({}));
        server.script(insert_fault(what.clone()).times(1));
        let mut batches = [batch(&sink, "t", &schema(), &records(0..2))];
        let writer = sink.writer("test");
        let error = writer.write(&mut batches, &[]).await.unwrap_err();
        assert_eq!(matches!(error, SinkError::Transient { .. }), transient, "{what:?}: {error}");
        assert_eq!(offsets(&batches[0]), [0, 1]);
        writer.write(&mut batches, &[]).await.unwrap();
        assert_eq!(ids(&server, "t"), [0, 1]);
    }
}

#[tokio::test]
async fn a_new_table_that_is_not_known_everywhere_is_waited_for() {
    let server = server().await;
    let sink = sink_of(&server, &json!({}));
    server.script(insert_fault(What::NotFoundAfterCreate { ms: 100 }));
    let mut batches = [batch(&sink, "t", &schema(), &records(0..2))];
    let patience = Duration::from_mins(1);
    write_patiently(&*sink.writer("test"), &mut batches, Duration::from_millis(10), patience).await.unwrap();
    assert_eq!(ids(&server, "t"), [0, 1]);
    assert!(batches[0].requests > 1);
}

#[tokio::test]
async fn a_column_that_has_not_arrived_everywhere_is_waited_for_and_no_row_is_refused() {
    let server = server().await;
    let narrow = schema_of(&json!({ "properties": { "id": { "type": "integer" } } }));
    let wide = schema_of(&json!({ "properties": {
        "id": { "type": "integer" }, "note": { "type": "string" } } }));
    let before = sink_of(&server, &json!({}));
    let mut batches = [batch(&before, "t", &narrow, &[json!({ "id": 1 })])];
    before.writer("test").write(&mut batches, &[]).await.unwrap();

    // Both rows come from offset 0: with ids the second would count as the first, sent again.
    let after = sink_of(&server, &json!({ "insert_ids": false }));
    let mut batches = [batch(&after, "t", &wide, &[json!({ "id": 2, "note": "x" })])];
    let error = after.writer("test").write(&mut batches, &[]).await.unwrap_err();
    assert!(matches!(&error, SinkError::Fatal { cause, .. } if cause.contains("`note` (STRING) is missing")));

    server.script(insert_fault(What::SchemaLag { ms: 100 }));
    let columns = json!({ "schema": { "fields": [
        { "name": "id", "type": "INTEGER" }, { "name": "note", "type": "STRING" } ] } });
    let table = format!("{}/projects/p/datasets/d/tables/t", server.base_url());
    let patched = reqwest::Client::new().patch(table).json(&columns).send().await.unwrap();
    assert!(patched.status().is_success());
    let writer = after.writer("test");
    let error = writer.write(&mut batches, &[]).await.unwrap_err();
    assert!(matches!(error, SinkError::Transient { .. }), "{error:?}");
    let patience = Duration::from_mins(1);
    write_patiently(&*writer, &mut batches, Duration::from_millis(10), patience).await.unwrap();
    assert_eq!(ids(&server, "t"), [1, 2]);
}

#[tokio::test]
async fn a_token_is_not_sent_in_clear_to_an_emulator_elsewhere() {
    let environment = |name: &str| (name == "BIGQUERY_EMULATOR_HOST").then(|| "bigquery:9050".to_owned());
    let config = json!({ "project": "p", "dataset": "d", "credentials": "application_default" });
    let config = serde_json::from_value(config).unwrap();
    let error = BigQuerySink::new(config, std::path::Path::new("."), &environment).err();
    assert!(matches!(error, Some(SinkError::Fatal { .. })));
}

#[tokio::test]
async fn a_request_the_server_finds_too_large_goes_in_halves() {
    let server = server().await;
    let sink = sink_of(&server, &json!({ "insert_ids": false }));
    let too_large = What::Error {
        status: 413,
        reason: "uploadTooLarge".to_owned(),
        message: "Request payload size exceeds the limit".to_owned(),
        retry_after: None,
    };
    server.script(insert_fault(too_large.clone()).times(2));
    let mut batches = [batch(&sink, "t", &schema(), &records(0..5))];
    sink.writer("test").write(&mut batches, &[]).await.unwrap();
    assert_eq!(ids(&server, "t"), [0, 1, 2, 3, 4]);
    assert_eq!(batches[0].requests, 5);

    server.script(insert_fault(too_large).times(1));
    let mut batches = [batch(&sink, "t", &schema(), &records(9..10))];
    let Err(SinkError::Rejected { rows }) = sink.writer("test").write(&mut batches, &[]).await else {
        panic!("a single row cannot be halved")
    };
    assert_eq!(rows[0].why.class, "bigquery.too_large");
}

#[tokio::test]
async fn of_several_tables_each_keeps_its_own_account() {
    let server = server().await;
    let sink = sink_of(&server, &json!({}));
    server.script(insert_fault(row_errors(&[1], "timeout")).table("b").times(1));
    let mut batches = [
        batch(&sink, "a", &schema(), &records(0..3)),
        batch(&sink, "b", &schema(), &records(0..3)),
        batch(&sink, "c", &schema(), &records(0..3)),
    ];
    let writer = sink.writer("test");
    assert!(matches!(writer.write(&mut batches, &[]).await, Err(SinkError::Transient { .. })));
    assert_eq!(batches.each_ref().map(offsets), [vec![], vec![1], vec![]]);
    writer.write(&mut batches, &[]).await.unwrap();
    for table in ["a", "b", "c"] {
        assert_eq!(ids(&server, table), [0, 1, 2]);
    }
}

#[tokio::test]
async fn lanes_that_start_together_create_one_table() {
    let server = server().await;
    let sink = sink_of(&server, &json!({}));
    let mut first = [batch(&sink, "t", &schema(), &records(0..3))];
    let mut second = [batch(&sink, "t", &schema(), &records(0..3))];
    let (one, two) = (sink.writer("test"), sink.writer("test"));
    let (one, two) = futures::join!(one.write(&mut first, &[]), two.write(&mut second, &[]));
    one.unwrap();
    two.unwrap();
    assert_eq!(server.tables().len(), 1);
}

#[tokio::test]
async fn a_server_that_asks_for_a_token_gets_a_clear_error() {
    let options = Options { required_token: Some("right".to_owned()), ..Options::default() };
    let server = LocalBigQuery::start(options).await.unwrap();
    let sink = sink_of(&server, &json!({}));
    let error = sink
        .writer("test")
        .write(&mut [batch(&sink, "t", &schema(), &records(0..1))], &[])
        .await
        .unwrap_err();
    let SinkError::Fatal { cause, hint: Some(hint) } = error else { panic!("{error:?}") };
    assert!(cause.contains("401") && hint.contains("credentials"), "{cause} / {hint}");
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for() {
    let server = server().await;
    let sink = sink_of(&server, &json!({ "timeout": "1s" }));
    server.stop().await;
    let mut batches = [batch(&sink, "t", &schema(), &records(0..2))];
    let error = sink.writer("test").write(&mut batches, &[]).await.unwrap_err();
    assert!(matches!(error, SinkError::Transient { .. }), "{error:?}");
    assert_eq!(offsets(&batches[0]), [0, 1]);
}

#[tokio::test]
async fn a_foreign_emulator_takes_rows_too() {
    let options = Options { foreign_emulator: true, auto_create_datasets: true, ..Options::default() };
    let server = LocalBigQuery::start(options).await.unwrap();
    let sink = sink_of(&server, &json!({}));
    sink.writer("test").write(&mut [batch(&sink, "t", &schema(), &records(0..3))], &[]).await.unwrap();
    assert_eq!(ids(&server, "t"), [0, 1, 2]);
}

#[tokio::test]
async fn topics_with_different_columns_cannot_share_a_table() {
    let sink = sink(&json!({ "api": "insert_all", "table": "all" }), &no_environment);
    let other = schema_of(&json!({ "properties": { "x": { "type": "string" } } }));
    assert!(sink.encoder("a", Some(&schema())).is_ok());
    assert!(sink.encoder("b", Some(&schema())).is_ok());
    assert!(matches!(sink.encoder("c", Some(&other)), Err(SinkError::Fatal { .. })));
    assert!(matches!(sink.encoder("d", None), Err(SinkError::Fatal { .. })));
    assert_eq!(sink.plan_problems("d", None).len(), 1);
}
