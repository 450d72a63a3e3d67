//! Every scripted fault, seen from outside.

use std::time::Duration;

use crate::support::{Server, reasons, rows};
use serde_json::{Value as Json, json};
use txconnect_local_bigquery::{Clock, Fault, Method, Options, QuotaReason, What};

async fn server_with(faults: Vec<Fault>) -> Server {
    let options = Options { faults, ..Options::default() };
    Server::with_table(options, json!([{"name": "id", "type": "INTEGER"}])).await
}

fn one_row() -> Json {
    json!({"rows": rows([json!({"id": 1})])})
}

async fn insert_without_answer(server: &Server) {
    let url = server.url(&format!("{}/insertAll", Server::table_path()));
    let failed = server.http.post(url).json(&one_row()).send().await.expect_err("no answer may come");
    assert!(!failed.is_timeout() && failed.status().is_none(), "{failed:?}");
}

#[tokio::test]
async fn a_lost_reply_leaves_the_rows_stored() {
    let server = server_with(vec![Fault::new(Method::InsertAll, What::ReplyLost).times(1)]).await;
    insert_without_answer(&server).await;
    assert_eq!(server.rows().len(), 1);
    assert_eq!(server.insert(&one_row()).await.0, 200);
}

#[tokio::test]
async fn a_cut_connection_leaves_nothing_stored() {
    let server = server_with(vec![Fault::new(Method::InsertAll, What::Cut).times(1)]).await;
    insert_without_answer(&server).await;
    assert!(server.rows().is_empty());
}

// backendError comes with status 500, 502, 503 or 504 and means: try again.
#[tokio::test]
async fn an_error_answers_before_anything_is_stored() {
    let error = What::Error {
        status: 503,
        reason: "backendError".into(),
        message: "later".into(),
        retry_after: Some(7),
    };
    let server = server_with(vec![Fault::new(Method::InsertAll, error).times(1)]).await;
    let url = server.url(&format!("{}/insertAll", Server::table_path()));
    let response = server.http.post(url).json(&one_row()).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["retry-after"]),
        (503, &"7".parse().unwrap())
    );
    let answer: Json = response.json().await.unwrap();
    assert_eq!(
        answer["error"]["errors"][0],
        json!({"domain": "global", "reason": "backendError", "message": "later"})
    );
    assert_eq!(answer["error"]["status"], "UNAVAILABLE");
    assert!(server.rows().is_empty());
}

#[tokio::test]
async fn a_proxy_page_is_html() {
    let server = server_with(vec![Fault::new(Method::InsertAll, What::Html { status: 502 }).times(1)]).await;
    let url = server.url(&format!("{}/insertAll", Server::table_path()));
    let response = server.http.post(url).json(&one_row()).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 502);
    assert!(response.text().await.unwrap().starts_with("<!DOCTYPE html>"));
    assert!(server.rows().is_empty());
}

// quotaExceeded and rateLimitExceeded both come with status 403.
#[tokio::test]
async fn an_exhausted_quota_is_forbidden_with_its_reason() {
    for (reason, name) in
        [(QuotaReason::QuotaExceeded, "quotaExceeded"), (QuotaReason::RateLimitExceeded, "rateLimitExceeded")]
    {
        let server = server_with(vec![Fault::new(Method::InsertAll, What::Quota { reason })]).await;
        let (status, answer) = server.insert(&one_row()).await;
        assert_eq!((status, &answer["error"]["errors"][0]["reason"]), (403, &json!(name)));
    }
}

#[tokio::test]
async fn a_slow_call_is_carried_out_in_the_end() {
    let server = server_with(vec![Fault::new(Method::InsertAll, What::Slow { ms: 50 }).times(1)]).await;
    assert_eq!(server.insert(&one_row()).await.0, 200);
    assert_eq!(server.rows().len(), 1);
}

#[tokio::test]
async fn a_slow_call_holds_up_no_other() {
    let server =
        server_with(vec![Fault::new(Method::InsertAll, What::Slow { ms: 3_600_000 }).times(1)]).await;
    let body = one_row();
    let others = async {
        for _ in 0..20 {
            assert_eq!(server.get(&Server::table_path()).await.0, 200);
        }
    };
    tokio::select! {
        biased;
        answer = server.insert(&body) => panic!("answered before its pause: {answer:?}"),
        () = others => {}
    }
    assert!(server.rows().is_empty());
}

// A table that was just made can be 404 notFound for streaming inserts for some minutes, while tables.get has it.
#[tokio::test]
async fn a_new_table_is_not_found_until_it_is_known_everywhere() {
    let clock = Clock::system();
    let hidden = Fault::new(Method::InsertAll, What::NotFoundAfterCreate { ms: 120_000 });
    let options = Options { clock: clock.clone(), faults: vec![hidden], ..Options::default() };
    let server = Server::with_table(options, json!([{"name": "id", "type": "INTEGER"}])).await;
    assert_eq!(server.insert(&one_row()).await.0, 404);
    assert_eq!(server.get(&Server::table_path()).await.0, 200);
    clock.advance(Duration::from_secs(121));
    assert_eq!(server.insert(&one_row()).await.0, 200);
}

// Streaming inserts may take some minutes to see a changed schema.
#[tokio::test]
async fn an_added_column_is_unknown_until_the_change_is_known_everywhere() {
    let clock = Clock::system();
    let lag = Fault::new(Method::InsertAll, What::SchemaLag { ms: 120_000 });
    let options = Options { clock: clock.clone(), faults: vec![lag], ..Options::default() };
    let server = Server::with_table(options, json!([{"name": "id", "type": "INTEGER"}])).await;
    let wider =
        json!({"schema": {"fields": [{"name": "new", "type": "DATE"}, {"name": "id", "type": "INTEGER"}]}});
    server.send(server.http.patch(server.url(&Server::table_path())).json(&wider)).await;
    let body = json!({"rows": rows([json!({"new": "2026-01-02"})])});
    let (_, answer) = server.insert(&body).await;
    assert_eq!(answer["insertErrors"][0]["errors"][0]["message"], "no such field: new.");
    assert_eq!(server.insert(&one_row()).await.1.get("insertErrors"), None);
    clock.advance(Duration::from_secs(121));
    assert_eq!(server.insert(&body).await.1.get("insertErrors"), None);
    assert_eq!(server.rows(), vec![json!({"new": null, "id": 1}), json!({"new": "2026-01-02", "id": null})]);
}

// Rows listed with a reason like backendError or timeout were not inserted, the rows that are not listed were.
#[tokio::test]
async fn rows_fail_one_by_one_while_the_others_go_in() {
    let what = What::RowErrors { rows: vec![0, 2], reason: "backendError".into() };
    let server = server_with(vec![Fault::new(Method::InsertAll, what).times(1)]).await;
    let body = json!({"rows": rows((0..4).map(|id| json!({"id": id})))});
    let (_, answer) = server.insert(&body).await;
    assert_eq!(reasons(&answer), vec![(0, "backendError".to_owned()), (2, "backendError".to_owned())]);
    assert_eq!(server.rows(), vec![json!({"id": 1}), json!({"id": 3})]);
}

#[tokio::test]
async fn a_rejected_value_makes_its_row_invalid_and_stops_the_others() {
    let what = What::RejectValue { field: "id".into(), value: json!(13) };
    let server = server_with(vec![Fault::new(Method::InsertAll, what)]).await;
    let body = json!({"rows": rows([json!({"id": 12}), json!({"id": 13})])});
    let (_, answer) = server.insert(&body).await;
    assert_eq!(reasons(&answer), vec![(0, "stopped".to_owned()), (1, "invalid".to_owned())]);
    assert!(server.rows().is_empty());
}

#[tokio::test]
async fn a_fault_can_strike_the_making_of_one_table() {
    let fault = Fault::new(Method::TablesInsert, What::Html { status: 500 }).table("d.other").times(1);
    let server = server_with(vec![fault]).await;
    assert_eq!(server.create_table("other", json!([])).await.0, 500);
    assert_eq!(server.create_table("other", json!([])).await.0, 200);
}

#[tokio::test]
async fn faults_are_added_listed_and_cleared_over_http_and_in_the_process() {
    let server = server_with(vec![]).await;
    let url = format!("http://{}/__faults", server.bigquery.address());
    let fault = json!({"method": "tabledata.insertAll", "what": {"html": {"status": 502}}, "times": 1});
    let (status, _) = server.send(server.http.post(&url).json(&json!([fault, fault]))).await;
    assert_eq!(status, 204);
    server.bigquery.script(Fault::new(Method::InsertAll, What::Cut));
    assert_eq!(server.insert(&one_row()).await.0, 502);
    let (_, left) = server.send(server.http.get(&url)).await;
    assert_eq!((left.as_array().unwrap().len(), &left[1]["what"]), (2, &json!("cut")));
    assert_eq!(server.send(server.http.delete(&url)).await.0, 204);
    assert_eq!(server.insert(&one_row()).await.0, 200);
    let (status, answer) = server.send(server.http.post(&url).json(&json!({"method": "tables.make"}))).await;
    assert_eq!(status, 400);
    assert!(answer["error"]["message"].as_str().unwrap().contains("tables.make"));
}
