//! A local BigQuery that is called without a connection, one call at a time.

use axum::body::{Body, to_bytes};
use axum::http::Request;
use axum::{Router, http};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tower_service::Service;
use txconnect_local_bigquery::{Options, router};

/// Where every table of a target lives.
pub const DATASET: &str = "/projects/p/datasets/d";

/// No answer of a target is near this size.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// An empty server with the dataset `d` of the project `p`.
pub struct Server {
    runtime: Runtime,
    router: Router,
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Server {
    /// Starts a server whose waits pass at once.
    #[must_use]
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without sockets needs nothing from the system");
        let mut server = Self { runtime, router: router(Options::default()) };
        server.create_dataset();
        server
    }

    /// Drops every dataset with its tables and rows, and every fault.
    pub fn forget(&mut self) {
        self.delete("/__faults");
        let (_, listed) = self.get("/projects/p/datasets?maxResults=1000");
        for dataset in listed["datasets"].as_array().into_iter().flatten() {
            let id = dataset["datasetReference"]["datasetId"].as_str().unwrap_or_default();
            self.delete(&format!("/projects/p/datasets/{id}?deleteContents=true"));
        }
        self.create_dataset();
    }

    fn create_dataset(&mut self) {
        let dataset = json!({ "datasetReference": { "projectId": "p", "datasetId": "d" } });
        let (status, answer) = self.post("/projects/p/datasets", &dataset.to_string().into_bytes());
        assert_eq!(status, 200, "{answer}");
    }

    fn delete(&mut self, path: &str) {
        let request = Request::delete(path).body(Body::empty()).expect("the path is a URI");
        let (status, _) = self.call(request);
        assert_eq!(status, 204, "{path}");
    }

    /// Sends a request; answers the status and the body.
    pub fn call(&mut self, request: Request<Body>) -> (u16, Vec<u8>) {
        let Self { runtime, router } = self;
        runtime.block_on(async {
            let Ok(answer) = Service::<Request<Body>>::call(router, request).await;
            let status = answer.status().as_u16();
            let body = to_bytes(answer.into_body(), MAX_ANSWER_BYTES).await.expect("the answer is whole");
            (status, body.to_vec())
        })
    }

    /// Posts a body; answers the status and the document.
    pub fn post(&mut self, path: &str, body: &[u8]) -> (u16, Value) {
        let request = Request::post(path).body(Body::from(body.to_vec())).expect("the path is a URI");
        let (status, answer) = self.call(request);
        (status, serde_json::from_slice(&answer).unwrap_or(Value::Null))
    }

    /// Reads a document; answers the status and the document.
    pub fn get(&mut self, path: &str) -> (u16, Value) {
        let request = Request::get(path).body(Body::empty()).expect("the path is a URI");
        let (status, answer) = self.call(request);
        (status, serde_json::from_slice(&answer).unwrap_or(Value::Null))
    }

    /// Creates the table `name` of the dataset.
    pub fn create_table(&mut self, name: &str, fields: &Value) -> (u16, Value) {
        let table = json!({
            "tableReference": { "projectId": "p", "datasetId": "d", "tableId": name },
            "schema": { "fields": fields },
        });
        self.post(&format!("{DATASET}/tables"), table.to_string().as_bytes())
    }
}

/// Whether bytes taken from an input can stand in a request line.
#[must_use]
pub fn as_uri(bytes: &[u8]) -> Option<http::Uri> {
    http::Uri::try_from(bytes).ok().filter(|uri| uri.path().starts_with('/'))
}
