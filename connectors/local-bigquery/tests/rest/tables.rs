//! Datasets, tables and queries over HTTP.

use crate::support::{DATASET, PROJECT, Server, rows};
use serde_json::json;
use txconnect_local_bigquery::{LocalBigQuery, Options, TableSummary};

#[tokio::test]
async fn a_dataset_is_made_found_listed_and_deleted() {
    let server = Server::start(Options::default()).await;
    let again = json!({"datasetReference": {"projectId": PROJECT, "datasetId": DATASET}});
    let (status, answer) = server.post("projects/proj-1/datasets", &again).await;
    assert_eq!((status, &answer["error"]["errors"][0]["reason"]), (409, &json!("duplicate")));
    assert_eq!(answer["error"]["message"], "Already Exists: Dataset proj-1:d");
    assert_eq!(server.get("projects/proj-1/datasets/d").await.1["id"], "proj-1:d");
    assert_eq!(server.get("projects/proj-1/datasets").await.1["datasets"].as_array().unwrap().len(), 1);

    server.create_table("t", json!([])).await;
    let delete = |query: &str| {
        server.send(server.http.delete(server.url(&format!("projects/proj-1/datasets/d{query}"))))
    };
    // deleteContents: without it, a dataset that holds tables is not deleted.
    assert_eq!(delete("").await.1["error"]["errors"][0]["reason"], "resourceInUse");
    assert_eq!(delete("?deleteContents=true").await.0, 204);
    assert_eq!(server.get("projects/proj-1/datasets/d").await.0, 404);
}

#[tokio::test]
async fn a_table_keeps_what_it_was_made_with() {
    let server = Server::start(Options::default()).await;
    let resource = json!({
        "tableReference": {"projectId": PROJECT, "datasetId": DATASET, "tableId": "t"},
        "schema": {"fields": [
            {"name": "id", "type": "INTEGER", "mode": "REQUIRED", "description": "key"},
            {"name": "at", "type": "TIMESTAMP"},
            {"name": "who", "type": "RECORD", "mode": "REPEATED", "fields": [{"name": "n", "type": "STRING"}]}]},
        "timePartitioning": {"type": "DAY", "field": "at"},
        "clustering": {"fields": ["id"]},
        "labels": {"team": "a"},
        "description": "things",
        "tableConstraints": {"primaryKey": {"columns": ["id"]}},
        "maxStaleness": "0-0 0 0:10:0"
    });
    let (status, made) = server.post("projects/proj-1/datasets/d/tables", &resource).await;
    assert_eq!(status, 200);
    let (_, found) = server.get(&Server::table_path()).await;
    assert_eq!(made, found);
    for (key, value) in resource.as_object().unwrap() {
        assert_eq!(&found[key], value, "{key}");
    }
    assert_eq!(
        (&found["kind"], &found["id"], &found["numRows"]),
        (&json!("bigquery#table"), &json!("proj-1:d.t"), &json!("0"))
    );
    assert_eq!(server.post("projects/proj-1/datasets/d/tables", &resource).await.0, 409);
    let (_, list) = server.get("projects/proj-1/datasets/d/tables").await;
    assert_eq!((&list["totalItems"], &list["tables"][0]["id"]), (&json!(1), &json!("proj-1:d.t")));
}

#[tokio::test]
async fn tables_and_rows_are_listed_page_by_page() {
    let server = Server::start(Options::default()).await;
    for table in ["t", "u", "v"] {
        server.create_table(table, json!([{"name": "id", "type": "INTEGER"}])).await;
    }
    let (_, first) = server.get("projects/proj-1/datasets/d/tables?maxResults=2").await;
    let token = first["nextPageToken"].as_str().unwrap();
    let (_, rest) =
        server.get(&format!("projects/proj-1/datasets/d/tables?maxResults=2&pageToken={token}")).await;
    assert_eq!((first["tables"].as_array().unwrap().len(), rest["tables"].as_array().unwrap().len()), (2, 1));
    assert_eq!(rest.get("nextPageToken"), None);

    server.insert(&json!({"rows": rows((0..5).map(|id| json!({"id": id})))})).await;
    let path = format!("{}/data?maxResults=3", Server::table_path());
    let (_, first) = server.get(&path).await;
    assert_eq!((&first["totalRows"], first["rows"].as_array().unwrap().len()), (&json!("5"), 3));
    let token = first["pageToken"].as_str().unwrap();
    let (_, rest) = server.get(&format!("{path}&pageToken={token}")).await;
    assert_eq!(rest["rows"], json!([{"f": [{"v": "3"}]}, {"f": [{"v": "4"}]}]));
    assert_eq!(rest.get("pageToken"), None);
    assert_eq!(server.get(&format!("{path}&pageToken=nonsense")).await.0, 400);
}

// A schema may gain columns that are NULLABLE or REPEATED and relax REQUIRED to NULLABLE; nothing else.
#[tokio::test]
async fn a_patch_adds_columns_and_keeps_rows_and_refuses_to_narrow() {
    let server = Server::with_table(
        Options::default(),
        json!([{"name": "id", "type": "INTEGER", "mode": "REQUIRED"}]),
    )
    .await;
    server.insert(&json!({"rows": rows([json!({"id": 1})])})).await;
    let patch = |body: serde_json::Value| {
        server.send(server.http.patch(server.url(&Server::table_path())).json(&body))
    };
    let (_, before) = server.get(&Server::table_path()).await;
    let wider = json!({"schema": {"fields": [
        {"name": "id", "type": "INTEGER"}, {"name": "tags", "type": "STRING", "mode": "REPEATED"}]}});
    let (status, after) = patch(wider).await;
    assert_eq!(status, 200);
    assert_ne!(before["etag"], after["etag"]);
    server.insert(&json!({"rows": rows([json!({"tags": ["a"]})])})).await;
    assert_eq!(server.rows(), vec![json!({"id": 1, "tags": []}), json!({"id": null, "tags": ["a"]})]);

    let (status, answer) = patch(json!({"schema": {"fields": [{"name": "id", "type": "INTEGER"}]}})).await;
    assert_eq!(status, 400);
    let message = "Provided Schema does not match Table proj-1:d.t. Field tags is missing in new schema";
    assert_eq!(answer["error"]["message"], message);
}

#[tokio::test]
async fn an_update_with_an_old_etag_is_refused() {
    let server = Server::with_table(Options::default(), json!([{"name": "id", "type": "INTEGER"}])).await;
    let (_, found) = server.get(&Server::table_path()).await;
    let update = |description: &str| {
        let mut resource = found.clone();
        resource["description"] = json!(description);
        let etag = found["etag"].as_str().unwrap();
        let request = server.http.put(server.url(&Server::table_path())).header("if-match", etag);
        server.send(request.json(&resource))
    };
    assert_eq!(update("first").await.0, 200);
    let (status, answer) = update("second").await;
    assert_eq!((status, &answer["error"]["errors"][0]["reason"]), (412, &json!("conditionNotMet")));
    assert_eq!(server.get(&Server::table_path()).await.1["description"], "first");
}

#[tokio::test]
async fn queries_count_and_read_a_table() {
    let server = Server::with_table(Options::default(), json!([{"name": "id", "type": "INTEGER"}])).await;
    server.insert(&json!({"rows": rows((0..3).map(|id| json!({"id": id})))})).await;
    let query = |body: serde_json::Value| {
        let server = &server;
        async move { server.post("projects/proj-1/queries", &body).await }
    };
    let (_, count) = query(json!({"query": "SELECT COUNT(*) AS n FROM `proj-1.d.t`"})).await;
    assert_eq!(
        (&count["rows"], &count["schema"]["fields"][0]["name"]),
        (&json!([{"f": [{"v": "3"}]}]), &json!("n"))
    );
    let body = json!({"query": "SELECT * FROM t", "defaultDataset": {"datasetId": "d"}, "maxResults": 2});
    let (_, page) = query(body).await;
    assert_eq!((&page["totalRows"], &page["jobComplete"]), (&json!("3"), &json!(true)));
    let (job, token) = (page["jobReference"]["jobId"].as_str().unwrap(), page["pageToken"].as_str().unwrap());
    let (_, rest) = server.get(&format!("projects/proj-1/queries/{job}?pageToken={token}")).await;
    assert_eq!(rest["rows"], json!([{"f": [{"v": "2"}]}]));

    let (status, answer) = query(json!({"query": "DROP TABLE d.t"})).await;
    assert_eq!((status, &answer["error"]["errors"][0]["reason"]), (400, &json!("invalidQuery")));
    assert_eq!(query(json!({"query": "SELECT * FROM d.missing"})).await.0, 404);
}

#[tokio::test]
async fn paths_are_answered_with_and_without_the_prefix_and_rows_are_shown_to_people() {
    let server = Server::with_table(Options::default(), json!([{"name": "id", "type": "INTEGER"}])).await;
    server.insert(&json!({"rows": rows([json!({"id": 1}), json!({"id": 2})])})).await;
    let root = format!("http://{}", server.bigquery.address());
    let (status, _) = server.send(server.http.get(format!("{root}/{}", Server::table_path()))).await;
    assert_eq!(status, 200);
    let shown =
        server.http.get(format!("{root}/__rows/proj-1/d/t")).send().await.unwrap().text().await.unwrap();
    assert_eq!(shown, "{\"id\":1}\n{\"id\":2}\n");
    let tables: Vec<TableSummary> =
        server.http.get(format!("{root}/__tables")).send().await.unwrap().json().await.unwrap();
    assert_eq!(tables, server.bigquery.tables());
    assert_eq!((tables[0].table.as_str(), tables[0].rows), ("t", 2));
    assert_eq!(server.send(server.http.get(format!("{root}/nothing"))).await.0, 404);
}

#[tokio::test]
async fn a_missing_dataset_is_made_only_where_the_options_say_so() {
    for (auto_create_datasets, expected) in [(false, 404), (true, 200)] {
        let options = Options { auto_create_datasets, ..Options::default() };
        let bigquery = LocalBigQuery::start(options).await.unwrap();
        let resource = json!({"tableReference": {"projectId": "p", "datasetId": "new", "tableId": "t"}});
        let url = format!("{}/projects/p/datasets/new/tables", bigquery.base_url());
        let response = reqwest::Client::new().post(url).json(&resource).send().await.unwrap();
        assert_eq!(response.status().as_u16(), expected);
        bigquery.stop().await;
    }
}

// Credentials that are missing or not valid are status 401.
#[tokio::test]
async fn a_required_token_is_required() {
    let options = Options { required_token: Some("right".into()), ..Options::default() };
    let bigquery = LocalBigQuery::start(options).await.unwrap();
    let get = |token: Option<&'static str>| {
        let request = reqwest::Client::new().get(format!("{}/projects/p/datasets", bigquery.base_url()));
        async move {
            let request = match token {
                Some(token) => request.bearer_auth(token),
                None => request,
            };
            request.send().await.unwrap().status().as_u16()
        }
    };
    assert_eq!((get(Some("right")).await, get(Some("wrong")).await, get(None).await), (200, 401, 401));
}

#[tokio::test]
async fn a_stopped_server_leaves_its_port_free() {
    let first = LocalBigQuery::start(Options::default()).await.unwrap();
    let listen = first.address();
    let taken = LocalBigQuery::start(Options { listen, ..Options::default() }).await;
    assert!(taken.expect_err("the port is taken").to_string().contains("cannot listen on"));
    first.stop().await;
    LocalBigQuery::start(Options { listen, ..Options::default() })
        .await
        .expect("the port is free again")
        .stop()
        .await;
}
