//! `datasets.get`, `.list`, `.insert` and `.delete`.

use std::sync::Arc;

use axum::extract::{Path, Request, State as Shared};
use axum::response::Response;
use serde_json::{Map, Value as Json, json};

use super::exchange::{Reply, Target};
use super::pages::{Page, add_token};
use crate::error::ApiError;
use crate::faults::Method;
use crate::state::State;
use crate::store::DatasetName;

pub(super) async fn get(
    Shared(state): Shared<Arc<State>>,
    Path((project, dataset)): Path<(String, String)>,
    request: Request,
) -> Response {
    let name = DatasetName { project, dataset };
    state
        .serve(Method::DatasetsGet, Target::NoTable, request, |call| {
            call.state.store().dataset(&name).map(Reply::Document)
        })
        .await
}

pub(super) async fn list(
    Shared(state): Shared<Arc<State>>,
    Path(project): Path<String>,
    request: Request,
) -> Response {
    state
        .serve(Method::DatasetsList, Target::NoTable, request, |call| {
            let (datasets, next) = Page::of(call)?.cut(call.state.store().datasets(&project));
            let mut document =
                json!({ "kind": "bigquery#datasetList", "etag": "\"0\"", "datasets": datasets });
            add_token(&mut document, "nextPageToken", next);
            Ok(Reply::Document(document))
        })
        .await
}

pub(super) async fn insert(
    Shared(state): Shared<Arc<State>>,
    Path(project): Path<String>,
    request: Request,
) -> Response {
    state
        .serve(Method::DatasetsInsert, Target::NoTable, request, |call| {
            let resource = call.resource()?;
            let dataset = reference(&resource, "datasetReference", "datasetId")?;
            let name = DatasetName { project, dataset };
            call.state.store().create_dataset(&name, resource, call.now_ms).map(Reply::Document)
        })
        .await
}

pub(super) async fn delete(
    Shared(state): Shared<Arc<State>>,
    Path((project, dataset)): Path<(String, String)>,
    request: Request,
) -> Response {
    let name = DatasetName { project, dataset };
    state
        .serve(Method::DatasetsDelete, Target::NoTable, request, |call| {
            let contents = call.flag("deleteContents");
            call.state.store().delete_dataset(&name, contents)?;
            Ok(Reply::Nothing)
        })
        .await
}

/// An id out of a resource's reference.
pub(super) fn reference(resource: &Map<String, Json>, reference: &str, id: &str) -> Result<String, ApiError> {
    let found = resource.get(reference).and_then(|reference| reference.get(id)).and_then(Json::as_str);
    found.map(str::to_owned).ok_or_else(|| {
        ApiError::new(400, "required", format!("Required parameter is missing: {reference}.{id}"))
    })
}
