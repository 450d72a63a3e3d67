//! A running server with one dataset, and short ways to talk to it.

use serde_json::{Value as Json, json};
use txconnect_local_bigquery::{LocalBigQuery, Options};

/// The project and dataset of every test.
pub(crate) const PROJECT: &str = "proj-1";
pub(crate) const DATASET: &str = "d";

/// A server, its dataset, and an HTTP client.
pub(crate) struct Server {
    pub(crate) bigquery: LocalBigQuery,
    pub(crate) http: reqwest::Client,
}

impl Server {
    /// Starts a server with a dataset.
    pub(crate) async fn start(options: Options) -> Server {
        let bigquery = LocalBigQuery::start(options).await.expect("a free port");
        let http = reqwest::Client::builder()
            .timeout(std::time::Duration::from_mins(1))
            .build()
            .expect("a client without special wishes");
        let server = Server { bigquery, http };
        let dataset = json!({"datasetReference": {"projectId": PROJECT, "datasetId": DATASET}});
        let (status, _) = server.post(&format!("projects/{PROJECT}/datasets"), &dataset).await;
        assert_eq!(status, 200);
        server
    }

    /// A server with a table `t` of these fields.
    pub(crate) async fn with_table(options: Options, fields: Json) -> Server {
        let server = Server::start(options).await;
        let (status, answer) = server.create_table("t", fields).await;
        assert_eq!(status, 200, "{answer}");
        server
    }

    pub(crate) async fn create_table(&self, table: &str, fields: Json) -> (u16, Json) {
        let resource = json!({
            "tableReference": {"projectId": PROJECT, "datasetId": DATASET, "tableId": table},
            "schema": {"fields": fields},
        });
        self.post(&format!("projects/{PROJECT}/datasets/{DATASET}/tables"), &resource).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.bigquery.base_url())
    }

    /// The path of table `t`.
    pub(crate) fn table_path() -> String {
        format!("projects/{PROJECT}/datasets/{DATASET}/tables/t")
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> (u16, Json) {
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        let body = response.bytes().await.expect("a whole answer");
        (status, serde_json::from_slice(&body).unwrap_or(Json::Null))
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Json) {
        self.send(self.http.get(self.url(path))).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Json) -> (u16, Json) {
        self.send(self.http.post(self.url(path)).json(body)).await
    }

    /// insertAll into table `t`.
    pub(crate) async fn insert(&self, body: &Json) -> (u16, Json) {
        self.post(&format!("{}/insertAll", Server::table_path()), body).await
    }

    /// The visible rows of table `t`.
    pub(crate) fn rows(&self) -> Vec<Json> {
        let rows = self.bigquery.rows(PROJECT, DATASET, "t").expect("the table is there");
        rows.into_iter().map(Json::Object).collect()
    }
}

/// `rows` of an insertAll request, one per object, without insertIds.
pub(crate) fn rows(objects: impl IntoIterator<Item = Json>) -> Json {
    objects.into_iter().map(|object| json!({"json": object})).collect()
}

/// The reasons of an insertAll answer as (index, reason).
pub(crate) fn reasons(answer: &Json) -> Vec<(u64, String)> {
    let errors = answer["insertErrors"].as_array().cloned().unwrap_or_default();
    let reason = |error: &Json| {
        let index = error["index"].as_u64().expect("an index");
        (index, error["errors"][0]["reason"].as_str().expect("a reason").to_owned())
    };
    errors.iter().map(reason).collect()
}
