//! The REST interface: routes, and the way every call takes.

mod body;
mod control;
mod datasets;
mod exchange;
mod foreign;
mod insert_all;
mod pages;
mod queries;
mod tabledata;
mod tables;

use std::sync::Arc;

use axum::Router;
use axum::response::Response;
use axum::routing::{get, post};

pub(crate) use exchange::ConnectionCut;

use crate::error::ApiError;
use crate::state::State;

/// Every route. BigQuery's are under `/bigquery/v2` and, for clients whose base URL is the bare address, at the root.
pub(crate) fn router(state: Arc<State>) -> Router {
    let bigquery = bigquery();
    Router::new()
        .nest("/bigquery/v2", bigquery.clone())
        .merge(bigquery)
        .merge(control::router())
        .fallback(unknown_route)
        .with_state(state)
}

fn bigquery() -> Router<Arc<State>> {
    Router::new()
        .route("/projects/{project}/datasets", get(datasets::list).post(datasets::insert))
        .route("/projects/{project}/datasets/{dataset}", get(datasets::get).delete(datasets::delete))
        .route("/projects/{project}/datasets/{dataset}/tables", get(tables::list).post(tables::insert))
        .route(
            "/projects/{project}/datasets/{dataset}/tables/{table}",
            get(tables::get).patch(tables::patch).put(tables::update).delete(tables::delete),
        )
        .route(
            "/projects/{project}/datasets/{dataset}/tables/{table}/insertAll",
            post(insert_all::insert_all),
        )
        .route("/projects/{project}/datasets/{dataset}/tables/{table}/data", get(tabledata::list))
        .route("/projects/{project}/queries", post(queries::query))
        .route("/projects/{project}/queries/{job}", get(queries::results))
        .route("/projects/{project}/jobs", post(queries::insert_job))
        .method_not_allowed_fallback(unknown_route)
}

async fn unknown_route() -> Response {
    let message =
        "The local BigQuery has no such method: it answers datasets, tables, tabledata and queries.";
    exchange::refusal(&ApiError::new(404, "notFound", message))
}
