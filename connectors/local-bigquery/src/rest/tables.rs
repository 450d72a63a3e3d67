//! `tables.get`, `.list`, `.insert`, `.patch`, `.update` and `.delete`.

use std::sync::Arc;

use axum::extract::{Path, Request, State as Shared};
use axum::http::header::IF_MATCH;
use axum::response::Response;
use serde_json::{Value as Json, json};

use super::datasets::reference;
use super::exchange::{Call, Reply, Target};
use super::foreign;
use super::pages::{Page, add_token};
use crate::error::ApiError;
use crate::faults::Method;
use crate::state::State;
use crate::store::{DatasetName, TableName};

/// Project, dataset and table of a path.
pub(super) type TablePath = Path<(String, String, String)>;

pub(super) fn table_name(Path((project, dataset, table)): TablePath) -> TableName {
    TableName { dataset: DatasetName { project, dataset }, table }
}

pub(super) async fn get(Shared(state): Shared<Arc<State>>, path: TablePath, request: Request) -> Response {
    let name = table_name(path);
    state
        .serve(Method::TablesGet, Target::Table(name.clone()), request, |call| {
            Ok(Reply::Document(call.state.store().table(&name)?.document(&name)))
        })
        .await
}

pub(super) async fn list(
    Shared(state): Shared<Arc<State>>,
    Path((project, dataset)): Path<(String, String)>,
    request: Request,
) -> Response {
    let dataset = DatasetName { project, dataset };
    state
        .serve(Method::TablesList, Target::NoTable, request, |call| {
            let page = Page::of(call)?;
            let store = call.state.store();
            let total = store.tables_of(&dataset)?.count();
            let documents = store.tables_of(&dataset)?.map(|(id, table)| {
                table.document(&TableName { dataset: dataset.clone(), table: id.clone() })
            });
            let (tables, next) = page.cut(documents);
            let tables: Vec<Json> = tables.iter().map(listed).collect();
            let mut document =
                json!({ "kind": "bigquery#tableList", "etag": "\"0\"", "tables": tables, "totalItems": total });
            add_token(&mut document, "nextPageToken", next);
            Ok(Reply::Document(document))
        })
        .await
}

/// The fields of a table that a list shows.
fn listed(table: &Json) -> Json {
    const SHOWN: [&str; 9] = [
        "id",
        "tableReference",
        "friendlyName",
        "type",
        "timePartitioning",
        "rangePartitioning",
        "clustering",
        "labels",
        "creationTime",
    ];
    let fields = SHOWN.iter().filter_map(|key| Some(((*key).to_owned(), table.get(key)?.clone())));
    let kind = ("kind".to_owned(), json!("bigquery#table"));
    Json::Object(std::iter::once(kind).chain(fields).collect())
}

pub(super) async fn insert(
    Shared(state): Shared<Arc<State>>,
    Path((project, dataset)): Path<(String, String)>,
    request: Request,
) -> Response {
    let dataset = DatasetName { project, dataset };
    state
        .serve(Method::TablesInsert, Target::InBody(dataset.clone()), request, |call| {
            let mut resource = call.resource()?;
            let table = reference(&resource, "tableReference", "tableId")?;
            let name = TableName { dataset, table };
            if call.state.foreign_emulator {
                foreign::keep_what_it_knows(&mut resource);
            }
            call.state.store().create_table(&name, resource, call.now_ms).map(Reply::Document)
        })
        .await
}

pub(super) async fn patch(Shared(state): Shared<Arc<State>>, path: TablePath, request: Request) -> Response {
    let name = table_name(path);
    state
        .serve(Method::TablesPatch, Target::Table(name.clone()), request, |call| change(call, &name, false))
        .await
}

pub(super) async fn update(Shared(state): Shared<Arc<State>>, path: TablePath, request: Request) -> Response {
    let name = table_name(path);
    state
        .serve(Method::TablesUpdate, Target::Table(name.clone()), request, |call| change(call, &name, true))
        .await
}

fn change(call: &Call<'_>, name: &TableName, replace: bool) -> Result<Reply, ApiError> {
    if call.state.foreign_emulator {
        return Ok(foreign::unsupported("patching a table"));
    }
    let if_match = call.headers.get(IF_MATCH).and_then(|etag| etag.to_str().ok());
    let resource = call.resource()?;
    let document = call.state.store().change_table(name, resource, replace, if_match, call.now_ms)?;
    Ok(Reply::Document(document))
}

pub(super) async fn delete(Shared(state): Shared<Arc<State>>, path: TablePath, request: Request) -> Response {
    let name = table_name(path);
    state
        .serve(Method::TablesDelete, Target::Table(name.clone()), request, |call| {
            call.state.store().delete_table(&name)?;
            Ok(Reply::Nothing)
        })
        .await
}
