//! `tabledata.list`.

use std::sync::Arc;

use axum::extract::{Request, State as Shared};
use axum::response::Response;
use serde_json::json;

use super::exchange::{Reply, Target};
use super::pages::{Page, add_token, timestamp_form};
use super::tables::{TablePath, table_name};
use crate::faults::Method;
use crate::state::State;

pub(super) async fn list(Shared(state): Shared<Arc<State>>, path: TablePath, request: Request) -> Response {
    let name = table_name(path);
    state
        .serve(Method::TabledataList, Target::Table(name.clone()), request, |call| {
            let page = Page::of(call)?;
            let store = call.state.store();
            let table = store.table(&name)?;
            let (rows, next) = page.rows(table.rows(), table.columns(), timestamp_form(call));
            let mut document = json!({
                "kind": "bigquery#tableDataList",
                "etag": table.etag(),
                "totalRows": table.row_count().to_string(),
                "rows": rows,
            });
            add_token(&mut document, "pageToken", next);
            Ok(Reply::Document(document))
        })
        .await
}
