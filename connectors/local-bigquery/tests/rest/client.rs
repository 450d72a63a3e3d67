//! The production client against the server: only the address differs from BigQuery.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use gcp_bigquery_client::auth::Authenticator;
use gcp_bigquery_client::error::BQError;
use gcp_bigquery_client::model::dataset::Dataset;
use gcp_bigquery_client::model::field_type::FieldType;
use gcp_bigquery_client::model::job_configuration_query::JobConfigurationQuery;
use gcp_bigquery_client::model::query_request::QueryRequest;
use gcp_bigquery_client::model::query_response::ResultSet;
use gcp_bigquery_client::model::table::Table;
use gcp_bigquery_client::model::table_data_insert_all_request::TableDataInsertAllRequest;
use gcp_bigquery_client::model::table_field_schema::TableFieldSchema;
use gcp_bigquery_client::model::table_schema::TableSchema;
use gcp_bigquery_client::tabledata::ListQueryParameters;
use gcp_bigquery_client::{Client, client_builder::ClientBuilder};
use serde_json::json;
use txconnect_local_bigquery::{LocalBigQuery, Options};

/// Credentials that anyone has.
#[derive(Clone)]
struct Anonymous;

#[async_trait]
impl Authenticator for Anonymous {
    async fn access_token(&self) -> Result<String, BQError> {
        Ok("anonymous".to_owned())
    }
}

async fn connect(bigquery: &LocalBigQuery) -> Client {
    ClientBuilder::new()
        .with_v2_base_url(bigquery.base_url())
        .build_from_authenticator(Arc::new(Anonymous))
        .await
        .expect("the client connects when it is used")
}

fn schema() -> TableSchema {
    TableSchema::new(vec![
        TableFieldSchema::new("id", FieldType::Int64),
        TableFieldSchema::new("at", FieldType::Timestamp),
        TableFieldSchema::new("name", FieldType::String),
    ])
}

#[tokio::test]
async fn the_client_creates_inserts_lists_and_queries() {
    let options = Options { required_token: Some("anonymous".into()), ..Options::default() };
    let bigquery = LocalBigQuery::start(options).await.unwrap();
    let client = connect(&bigquery).await;
    let dataset = client.dataset().create(Dataset::new("p", "d")).await.unwrap();
    let created = client.table().create(Table::from_dataset(&dataset, "t", schema())).await.unwrap();
    let found = client.table().get("p", "d", "t", None).await.unwrap();
    assert_eq!(created.etag, found.etag);

    let mut request = TableDataInsertAllRequest::new();
    for id in 0..3 {
        let row = json!({"id": id, "at": "2026-01-02T03:04:05Z", "name": "x"});
        request.add_row(Some(format!("row-{id}")), row).unwrap();
    }
    let answer = client.tabledata().insert_all("p", "d", "t", request).await.unwrap();
    assert!(answer.insert_errors.is_none());

    let parameters = ListQueryParameters {
        start_index: None,
        max_results: Some(2),
        page_token: None,
        selected_fields: None,
        format_options: None,
    };
    let listed = client.tabledata().list("p", "d", "t", parameters).await.unwrap();
    assert_eq!((listed.total_rows.as_deref(), listed.rows.unwrap().len()), (Some("3"), 2));

    let query = QueryRequest::new("SELECT COUNT(*) AS n FROM `p.d.t`");
    let mut counted = ResultSet::new_from_query_response(client.job().query("p", query).await.unwrap());
    assert!(counted.next_row());
    assert_eq!(counted.get_i64_by_name("n").unwrap(), Some(3));

    let query =
        JobConfigurationQuery { query: "SELECT * FROM p.d.t".into(), ..JobConfigurationQuery::default() };
    let pages: Vec<_> = Box::pin(client.job().query_all("p", query, Some(2)).collect()).await;
    let sizes: Vec<usize> = pages.into_iter().map(|page| page.unwrap().len()).collect();
    assert_eq!(sizes, vec![2, 1]);

    let tables =
        client.table().list("p", "d", gcp_bigquery_client::table::ListOptions::default()).await.unwrap();
    assert_eq!(tables.tables.unwrap().len(), 1);
    bigquery.stop().await;
}

#[tokio::test]
async fn the_client_sees_insert_errors_and_error_documents() {
    let bigquery = LocalBigQuery::start(Options::default()).await.unwrap();
    let client = connect(&bigquery).await;
    let missing = client.table().get("p", "d", "t", None).await.unwrap_err();
    let BQError::ResponseError { error } = missing else { panic!("not an error document: {missing}") };
    assert_eq!((error.error.code, error.error.errors[0]["reason"].as_str()), (404, "notFound"));

    let dataset = client.dataset().create(Dataset::new("p", "d")).await.unwrap();
    client.table().create(Table::from_dataset(&dataset, "t", schema())).await.unwrap();
    let twice = client.table().create(Table::from_dataset(&dataset, "t", schema())).await.unwrap_err();
    let BQError::ResponseError { error } = twice else { panic!("not an error document: {twice}") };
    assert_eq!((error.error.code, error.error.status.as_str()), (409, "ALREADY_EXISTS"));

    let mut request = TableDataInsertAllRequest::new();
    request.add_row(None, json!({"id": 1})).unwrap();
    request.add_row(None, json!({"id": "one"})).unwrap();
    let answer = client.tabledata().insert_all("p", "d", "t", request).await.unwrap();
    let errors = answer.insert_errors.expect("a row is invalid");
    let reason = |at: usize| errors[at].errors.as_ref().unwrap()[0].reason.as_deref();
    assert_eq!((errors[0].index, reason(0)), (Some(0), Some("stopped")));
    assert_eq!((errors[1].index, reason(1)), (Some(1), Some("invalid")));
}
