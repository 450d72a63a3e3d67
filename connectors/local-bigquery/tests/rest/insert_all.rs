//! `tabledata.insertAll` over HTTP.

use std::io::Write;
use std::time::Duration;

use crate::support::{Server, reasons, rows};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value as Json, json};
use txconnect_local_bigquery::{Clock, Options};

fn id_and_name() -> Json {
    json!([{"name": "id", "type": "INTEGER", "mode": "REQUIRED"}, {"name": "name", "type": "STRING"}])
}

async fn server() -> Server {
    Server::with_table(Options::default(), id_and_name()).await
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("a vector takes all");
    encoder.finish().expect("a vector takes all")
}

fn owned(reasons: &[(u64, &str)]) -> Vec<(u64, String)> {
    reasons.iter().map(|(index, reason)| (*index, (*reason).to_owned())).collect()
}

// skipInvalidRows: the default is false, which makes the entire request fail if any row is invalid. The rows that would have been good are listed with the reason "stopped".
#[tokio::test]
async fn one_invalid_row_keeps_all_rows_out_and_the_others_are_stopped() {
    let server = server().await;
    let sent =
        rows([json!({"id": 1}), json!({"id": 2, "nme": "x"}), json!({"name": "no id"}), json!({"id": "x"})]);
    let (status, answer) = server.insert(&json!({"rows": sent})).await;
    assert_eq!(status, 200);
    assert_eq!(
        reasons(&answer),
        owned(&[(0, "stopped"), (1, "invalid"), (2, "invalid"), (3, "invalid")]),
        "{answer}"
    );
    let error = |index: usize| &answer["insertErrors"][index]["errors"][0];
    assert_eq!((&error(1)["location"], &error(1)["message"]), (&json!("nme"), &json!("no such field: nme.")));
    assert_eq!(error(2)["message"], "Missing required field: id.");
    assert_eq!(error(3)["message"], "Cannot convert value to integer (bad value): x");
    assert!(server.rows().is_empty());
}

// skipInvalidRows: the valid rows of a request are inserted even if others are invalid.
#[tokio::test]
async fn with_skip_invalid_rows_the_good_rows_go_in() {
    let server = server().await;
    let body = json!({"skipInvalidRows": true, "rows": rows([json!({"id": 1}), json!({"id": true}), json!({"id": 3})])});
    let (_, answer) = server.insert(&body).await;
    assert_eq!(reasons(&answer), owned(&[(1, "invalid")]));
    assert_eq!(server.rows(), vec![json!({"id": 1, "name": null}), json!({"id": 3, "name": null})]);
}

// ignoreUnknownValues: values that no column takes are ignored instead of making the row invalid.
#[tokio::test]
async fn unknown_fields_are_dropped_where_the_request_says_so() {
    let server = server().await;
    let body = json!({"ignoreUnknownValues": true, "rows": rows([json!({"id": 1, "more": {"x": [1]}})])});
    let (_, answer) = server.insert(&body).await;
    assert_eq!(answer, json!({"kind": "bigquery#tableDataInsertAllResponse"}));
    assert_eq!(server.rows(), vec![json!({"id": 1, "name": null})]);
}

// insertId: remembered for up to one minute, on a best effort basis.
#[tokio::test]
async fn an_insert_id_keeps_a_repeated_row_out_for_a_minute_and_not_longer() {
    let clock = Clock::system();
    let options = Options { clock: clock.clone(), ..Options::default() };
    let server = Server::with_table(options, id_and_name()).await;
    let body = json!({"rows": [{"insertId": "a", "json": {"id": 1}}, {"insertId": "a", "json": {"id": 1}}]});
    for expected in [1, 1] {
        assert_eq!(server.insert(&body).await.0, 200);
        assert_eq!(server.rows().len(), expected);
    }
    clock.advance(Duration::from_secs(61));
    server.insert(&body).await;
    assert_eq!(server.rows().len(), 2);
}

#[tokio::test]
async fn a_row_that_was_stopped_may_come_again_under_its_insert_id() {
    let server = server().await;
    let good = json!({"insertId": "a", "json": {"id": 1}});
    let bad = json!({"insertId": "b", "json": {"id": "x"}});
    server.insert(&json!({"rows": [good, bad]})).await;
    server.insert(&json!({"rows": [good]})).await;
    assert_eq!(server.rows().len(), 1);
}

#[tokio::test]
async fn a_gzip_body_is_taken_under_any_content_type() {
    let server = server().await;
    let body = json!({"rows": rows([json!({"id": 1})])}).to_string();
    let url = server.url(&format!("{}/insertAll", Server::table_path()));
    let request = |body: Vec<u8>| {
        let request = server.http.post(&url).header("content-encoding", "gzip");
        server.send(request.header("content-type", "application/octet-stream").body(body))
    };
    assert_eq!(request(gzip(body.as_bytes())).await.0, 200);
    assert_eq!(server.rows().len(), 1);
    assert_eq!(request(b"not gzip".to_vec()).await.0, 400);
}

// Quotas for streaming inserts: 50,000 rows per request, 10 MB per HTTP request.
#[tokio::test]
async fn requests_beyond_the_documented_limits_are_refused_whole() {
    let server = server().await;
    let most = vec![json!({"json": {"id": 1}}); 50_000];
    assert_eq!(server.insert(&json!({"rows": most})).await.0, 200);
    let many = vec![json!({"json": {"id": 1}}); 50_001];
    let (status, answer) = server.insert(&json!({"rows": many})).await;
    assert_eq!(status, 400);
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("too many rows present in the request"), "{message}");

    let long = "x".repeat(10 * 1024 * 1024);
    let body = json!({"rows": rows([json!({"id": 1, "name": long})])}).to_string();
    let url = server.url(&format!("{}/insertAll", Server::table_path()));
    let packed = server.http.post(&url).header("content-encoding", "gzip").body(gzip(body.as_bytes()));
    for request in [server.http.post(&url).body(body), packed] {
        let (status, answer) = server.send(request).await;
        assert_eq!(status, 413);
        assert_eq!(answer["error"]["message"], "Request payload size exceeds the limit: 10485760 bytes.");
    }
    assert_eq!(server.rows().len(), 50_000);
}

#[tokio::test]
async fn a_request_that_is_no_insert_is_refused_with_the_reason() {
    let server = server().await;
    let id = "x".repeat(129);
    for (body, reason) in [
        (json!({}), "invalid"),
        (json!({"rows": []}), "invalid"),
        (json!({"rows": [{"insertId": id, "json": {"id": 1}}]}), "invalid"),
        (json!({"rows": [{"json": [1]}]}), "invalid"),
        (json!({"rows": [{"jsn": {"id": 1}}]}), "invalid"),
        (json!({"rows": [{"json": {"id": 1}}], "templateSuffix": "_x"}), "invalid"),
    ] {
        let (status, answer) = server.insert(&body).await;
        assert_eq!((status, &answer["error"]["errors"][0]["reason"]), (400, &json!(reason)), "{body}");
    }
    let url = server.url(&format!("{}/insertAll", Server::table_path()));
    for noise in [&b"{"[..], b"\xff\xfe", b"", b"[[[[", b"{\"rows\": [{\"json\": {\"id\": 1e999}}]}"] {
        let (status, answer) = server.send(server.http.post(&url).body(noise)).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!(400)), "{noise:?}");
    }
    assert!(server.rows().is_empty());
}

#[tokio::test]
async fn values_of_every_type_are_stored_in_their_normal_form() {
    let fields = json!([
        {"name": "i", "type": "INT64"},
        {"name": "f", "type": "FLOAT64"},
        {"name": "n", "type": "NUMERIC"},
        {"name": "big", "type": "BIGNUMERIC"},
        {"name": "b", "type": "BOOL"},
        {"name": "s", "type": "STRING"},
        {"name": "raw", "type": "BYTES"},
        {"name": "day", "type": "DATE"},
        {"name": "clock", "type": "TIME"},
        {"name": "wall", "type": "DATETIME"},
        {"name": "at", "type": "TIMESTAMP"},
        {"name": "doc", "type": "JSON"},
        {"name": "rec", "type": "RECORD", "mode": "REPEATED", "fields": [
            {"name": "tags", "type": "STRING", "mode": "REPEATED"},
            {"name": "x", "type": "INTEGER"}]}
    ]);
    let server = Server::with_table(Options::default(), fields).await;
    let row = json!({
        "i": "7", "f": "NaN", "n": "12.50", "big": "1e-38", "b": "true", "s": "ä", "raw": "aGk", "day": "2026-1-2",
        "clock": "3:04:05.5", "wall": "2026-01-02 03:04:05", "at": "2026-01-02 03:04:05.25 UTC", "doc": "{\"a\": 1}",
        "rec": [{"x": 1}, {"tags": ["a"]}]
    });
    let (_, answer) = server.insert(&json!({"rows": rows([row])})).await;
    assert_eq!(answer.get("insertErrors"), None, "{answer}");
    let stored = json!({
        "i": 7, "f": "NaN", "n": "12.5", "big": "0.00000000000000000000000000000000000001", "b": true, "s": "ä",
        "raw": "aGk=", "day": "2026-01-02", "clock": "03:04:05.500000", "wall": "2026-01-02T03:04:05",
        "at": "2026-01-02T03:04:05.250000Z", "doc": "{\"a\":1}",
        "rec": [{"tags": [], "x": 1}, {"tags": ["a"], "x": null}]
    });
    assert_eq!(server.rows(), vec![stored]);
    let (_, listed) =
        server.get(&format!("{}/data?formatOptions.useInt64Timestamp=true", Server::table_path())).await;
    let cells = &listed["rows"][0]["f"];
    assert_eq!(
        (&cells[0]["v"], &cells[4]["v"], &cells[10]["v"]),
        (&json!("7"), &json!("true"), &json!("1767323045250000"))
    );
    assert_eq!(cells[12]["v"][0]["v"], json!({"f": [{"v": []}, {"v": "1"}]}));
}

// Streaming to a table that is not there: 404 notFound.
#[tokio::test]
async fn an_insert_into_no_table_is_not_found() {
    let server = Server::start(Options::default()).await;
    let (status, answer) = server.insert(&json!({"rows": rows([json!({"id": 1})])})).await;
    assert_eq!(status, 404);
    assert_eq!(answer["error"]["message"], "Not found: Table proj-1:d.t");
    assert_eq!(answer["error"]["status"], "NOT_FOUND");
}

#[tokio::test]
async fn concurrent_inserts_all_arrive_and_their_largest_number_is_kept() {
    let server = server().await;
    let body = json!({"rows": rows((0..100).map(|id| json!({"id": id})))});
    let inserts = (0..16).map(|_| server.insert(&body));
    for (status, _) in futures::future::join_all(inserts).await {
        assert_eq!(status, 200);
    }
    assert_eq!(server.rows().len(), 1600);
    let url = format!("http://{}/__requests", server.bigquery.address());
    let (_, counts) = server.send(server.http.get(url)).await;
    assert!(counts["largest_concurrent_insert_all"].as_u64().unwrap() >= 1);
    let inserted = json!({"method": "tabledata.insertAll", "table": "proj-1:d.t", "count": 16});
    assert!(counts["requests"].as_array().unwrap().contains(&inserted), "{counts}");
}

// How goccy/bigquery-emulator behaves: no insertId, no skipInvalidRows, a wrong type is status 500.
#[tokio::test]
async fn the_foreign_emulator_differs_as_the_real_one_does() {
    let options = Options { foreign_emulator: true, ..Options::default() };
    let server = Server::with_table(options, id_and_name()).await;
    let twice = json!({"rows": [{"insertId": "a", "json": {"id": 1}}, {"insertId": "a", "json": {"id": 1}}]});
    server.insert(&twice).await;
    assert_eq!(server.rows().len(), 2);
    let (_, answer) =
        server.insert(&json!({"rows": rows([json!({"id": 3}), json!({"id": 4, "x": 1})])})).await;
    assert_eq!(reasons(&answer), owned(&[(1, "invalid")]));
    assert_eq!(server.rows().len(), 3);
    let (status, answer) = server.insert(&json!({"rows": rows([json!({"id": "x"})])})).await;
    assert_eq!((status, answer), (500, Json::Null));
    let patch = server.http.patch(server.url(&Server::table_path())).json(&json!({"description": "x"}));
    assert_eq!(server.send(patch).await.0, 500);
}
