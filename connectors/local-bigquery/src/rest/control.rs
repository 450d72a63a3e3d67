//! What BigQuery does not have: `/__faults`, `/__tables`, `/__rows/…`, `/__streams` and `/__requests`, for tests from
//! outside.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State as Shared};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use axum::routing::{get, post};
use futures::stream;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::exchange::{refusal, respond};
use super::{body, tables};
use crate::error::ApiError;
use crate::faults::Fault;
use crate::state::State;
use crate::store::TableName;
use crate::types::render::object;

/// The rows written out at a time.
const ROWS_PER_PIECE: usize = 1_000;

pub(super) fn router() -> Router<Arc<State>> {
    Router::new()
        .route("/__faults", get(faults).post(add_faults).delete(clear_faults))
        .route("/__tables", get(all_tables))
        .route("/__rows/{project}/{dataset}/{table}", get(rows))
        .route("/__tables/{project}/{dataset}/{table}/recreate", post(recreate))
        .route("/__streams", get(streams))
        .route("/__streams/expire", post(expire))
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

async fn recreate(Shared(state): Shared<Arc<State>>, path: tables::TablePath) -> Response {
    let now_ms = state.clock.now_ms();
    match state.store().recreate_table(&tables::table_name(path), now_ms) {
        Ok(()) => respond(204, "application/json", String::new()),
        Err(refused) => refusal(&refused),
    }
}

async fn streams(Shared(state): Shared<Arc<State>>) -> Response {
    document(&serde_json::to_value(crate::stream_summaries(&state)).unwrap_or(Json::Null))
}

/// Which streams are to expire.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expiry {
    table: Option<String>,
    stream: Option<String>,
}

async fn expire(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    let (head, sent) = request.into_parts();
    let body = match body::read(&head.headers, sent).await {
        Ok(body) => body,
        Err(refused) => return refusal(&refused),
    };
    let expiry: Expiry = match serde_json::from_slice(if body.is_empty() { b"{}" } else { &body }) {
        Ok(expiry) => expiry,
        Err(wrong) => return refusal(&ApiError::invalid(format!("not {{table}} or {{stream}}: {wrong}"))),
    };
    let expired = state.store().expire_streams(|name| {
        expiry.table.as_ref().is_none_or(|table| name.table.is_called(table))
            && expiry.stream.as_ref().is_none_or(|stream| name.to_string() == *stream)
    });
    document(&json!({ "expired": expired }))
}

async fn rows(Shared(state): Shared<Arc<State>>, path: tables::TablePath) -> Response {
    let name = tables::table_name(path);
    let identity = match state.store().table(&name) {
        Ok(table) => table.identity(),
        Err(refused) => return refusal(&refused),
    };
    // In pieces, so that neither the store is locked for long nor a whole table written out at once.
    let pieces = stream::unfold(0_usize, move |start| {
        let piece = lines(&state, &name, identity, start);
        ready(piece.map(|(lines, next)| (Ok::<_, Infallible>(lines), next)))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

/// The next rows as lines, and where the ones after them start. `None`: there are no more, or the table is gone.
fn lines(state: &State, name: &TableName, identity: u64, start: usize) -> Option<(String, usize)> {
    let store = state.store();
    let table = store.table(name).ok().filter(|table| table.identity() == identity)?;
    let rest = table.rows().get(start..).filter(|rest| !rest.is_empty())?;
    let piece = &rest[..rest.len().min(ROWS_PER_PIECE)];
    let mut lines = String::new();
    for row in piece {
        lines.push_str(&Json::Object(object(row, table.columns())).to_string());
        lines.push('\n');
    }
    Some((lines, start + piece.len()))
}

async fn requests(Shared(state): Shared<Arc<State>>) -> Response {
    document(&state.traffic().document())
}

fn document(document: &Json) -> Response {
    respond(200, "application/json", document.to_string())
}
