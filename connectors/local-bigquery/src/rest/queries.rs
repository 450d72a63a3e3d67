//! `jobs.query`, `jobs.insert` with a query, and `jobs.getQueryResults`.

use std::sync::Arc;

use axum::extract::{Path, Request, State as Shared};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::exchange::{Reply, Target};
use super::pages::{Page, add_token, timestamp_form};
use crate::error::ApiError;
use crate::faults::Method;
use crate::sql::{Selection, parse};
use crate::state::State;
use crate::store::jobs::{Answer, Job};
use crate::store::{DatasetName, Store};
use crate::types::render::TimestampForm;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Question {
    query: String,
    default_dataset: Option<DatasetReference>,
    max_results: Option<usize>,
    dry_run: Option<bool>,
    format_options: Option<FormatOptions>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DatasetReference {
    project_id: Option<String>,
    dataset_id: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FormatOptions {
    use_int64_timestamp: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewJob {
    configuration: Configuration,
    job_reference: Option<JobReference>,
}

#[derive(Debug, Deserialize)]
struct Configuration {
    query: Option<Question>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct JobReference {
    job_id: Option<String>,
}

pub(super) async fn query(
    Shared(state): Shared<Arc<State>>,
    Path(project): Path<String>,
    request: Request,
) -> Response {
    state
        .serve(Method::JobsQuery, Target::NoTable, request, |call| {
            let question: Question = call.json()?;
            let mut store = call.state.store();
            let job = answer(&store, &question, &project)?;
            let dry = question.dry_run == Some(true);
            let micros =
                question.format_options.and_then(|options| options.use_int64_timestamp) == Some(true);
            let form = if micros { TimestampForm::Micros } else { TimestampForm::Seconds };
            let page = Page::first(if dry { Some(0) } else { question.max_results });
            let mut document = result(&store, &job, &page, form)?;
            if dry {
                set(&mut document, "rows", json!([]));
                remove(&mut document, "pageToken");
            } else if let Some(id) = store.jobs.keep(None, job) {
                set(&mut document, "jobReference", reference(&project, &id));
            }
            set(&mut document, "kind", json!("bigquery#queryResponse"));
            Ok(Reply::Document(document))
        })
        .await
}

pub(super) async fn insert_job(
    Shared(state): Shared<Arc<State>>,
    Path(project): Path<String>,
    request: Request,
) -> Response {
    state
        .serve(Method::JobsInsert, Target::NoTable, request, |call| {
            let job: NewJob = call.json()?;
            let question = job.configuration.query.ok_or_else(|| {
                ApiError::invalid("The local BigQuery runs query jobs only: set configuration.query.")
            })?;
            let mut store = call.state.store();
            let answered = answer(&store, &question, &project)?;
            let wanted = job.job_reference.and_then(|reference| reference.job_id);
            let id = store.jobs.keep(wanted.as_deref(), answered).ok_or_else(|| {
                ApiError::duplicate("Job", format!("{project}:US.{}", wanted.as_deref().unwrap_or_default()))
            })?;
            Ok(Reply::Document(json!({
                "kind": "bigquery#job",
                "etag": "\"0\"",
                "id": format!("{project}:US.{id}"),
                "jobReference": reference(&project, &id),
                "configuration": { "query": { "query": question.query } },
                "status": { "state": "DONE" },
            })))
        })
        .await
}

pub(super) async fn results(
    Shared(state): Shared<Arc<State>>,
    Path((project, id)): Path<(String, String)>,
    request: Request,
) -> Response {
    state
        .serve(Method::JobsGetQueryResults, Target::NoTable, request, |call| {
            let page = Page::of(call)?;
            let store = call.state.store();
            let job = store
                .jobs
                .get(&id)
                .ok_or_else(|| ApiError::not_found("Job", format!("{project}:US.{id}")))?;
            let mut document = result(&store, job, &page, timestamp_form(call))?;
            set(&mut document, "kind", json!("bigquery#getQueryResultsResponse"));
            set(&mut document, "etag", json!("\"0\""));
            set(&mut document, "jobReference", reference(&project, &id));
            Ok(Reply::Document(document))
        })
        .await
}

fn reference(project: &str, id: &str) -> Json {
    json!({ "projectId": project, "jobId": id, "location": "US" })
}

fn answer(store: &Store, question: &Question, project: &str) -> Result<Job, ApiError> {
    let default = question.default_dataset.as_ref().map(|reference| DatasetName {
        project: reference.project_id.clone().unwrap_or_else(|| project.to_owned()),
        dataset: reference.dataset_id.clone(),
    });
    let select = parse(&question.query, project, default.as_ref())
        .map_err(|message| ApiError::new(400, "invalidQuery", message))?;
    let table = store.table(&select.table)?;
    let result = match select.what {
        Selection::Everything => Answer::Rows(table.rows().len().min(select.limit.unwrap_or(usize::MAX))),
        Selection::Count { name } => Answer::Count { name, rows: table.row_count() },
    };
    Ok(Job { table: select.table, result })
}

fn result(store: &Store, job: &Job, page: &Page, form: TimestampForm) -> Result<Json, ApiError> {
    let table = store.table(&job.table)?;
    let (schema, total, rows, next) = match &job.result {
        Answer::Rows(total) => {
            let visible = table.rows().get(..*total).unwrap_or(table.rows());
            let (rows, next) = page.rows(visible, table.columns(), form);
            (table.schema(), visible.len(), rows, next)
        }
        Answer::Count { name, rows } => {
            let schema = json!({ "fields": [{ "name": name, "type": "INTEGER", "mode": "NULLABLE" }] });
            let row = json!({ "f": [{ "v": rows.to_string() }] });
            let (rows, next) = page.cut(std::iter::once(row));
            (schema, 1, rows, next)
        }
    };
    let mut document = json!({
        "schema": schema,
        "jobComplete": true,
        "totalRows": total.to_string(),
        "rows": rows,
        "totalBytesProcessed": "0",
        "cacheHit": false,
    });
    add_token(&mut document, "pageToken", next);
    Ok(document)
}

fn set(document: &mut Json, key: &str, value: Json) {
    if let Json::Object(document) = document {
        document.insert(key.to_owned(), value);
    }
}

fn remove(document: &mut Json, key: &str) {
    if let Json::Object(document) = document {
        document.remove(key);
    }
}
