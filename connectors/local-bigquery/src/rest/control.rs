//! What BigQuery does not have: `/__faults`, `/__tables`, `/__rows/…` and `/__requests`, for tests from outside.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State as Shared};
use axum::response::Response;
use axum::routing::get;
use serde_json::Value as Json;

use super::exchange::{State, refusal, respond};
use super::{body, tables};
use crate::error::ApiError;
use crate::faults::Fault;
use crate::types::render::object;

pub(super) fn router() -> Router<Arc<State>> {
    Router::new()
        .route("/__faults", get(faults).post(add_faults).delete(clear_faults))
        .route("/__tables", get(all_tables))
        .route("/__rows/{project}/{dataset}/{table}", get(rows))
        .route("/__requests", get(requests))
}

async fn faults(Shared(state): Shared<Arc<State>>) -> Response {
    document(&serde_json::to_value(state.script().left()).unwrap_or(Json::Null))
}

async fn add_faults(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    let (head, sent) = request.into_parts();
    let body = match body::read(&head.headers, sent).await {
        Ok(body) => body,
        Err(refused) => return refusal(&refused),
    };
    let added = match Fault::parse_script(&body) {
        Ok(added) => added,
        Err(wrong) => return refusal(&ApiError::invalid(wrong.to_string())),
    };
    let mut script = state.script();
    for fault in added {
        script.add(fault);
    }
    respond(204, "application/json", String::new())
}

async fn clear_faults(Shared(state): Shared<Arc<State>>) -> Response {
    state.script().clear();
    respond(204, "application/json", String::new())
}

async fn all_tables(Shared(state): Shared<Arc<State>>) -> Response {
    document(&serde_json::to_value(crate::summaries(&state.store())).unwrap_or(Json::Null))
}

async fn rows(Shared(state): Shared<Arc<State>>, path: tables::TablePath) -> Response {
    let name = tables::table_name(path);
    let store = state.store();
    let table = match store.table(&name) {
        Ok(table) => table,
        Err(refused) => return refusal(&refused),
    };
    let mut lines = String::new();
    for row in table.rows() {
        lines.push_str(&Json::Object(object(row, table.columns())).to_string());
        lines.push('\n');
    }
    respond(200, "application/x-ndjson", lines)
}

async fn requests(Shared(state): Shared<Arc<State>>) -> Response {
    document(&state.traffic().document())
}

fn document(document: &Json) -> Response {
    respond(200, "application/json", document.to_string())
}
