//! `tabledata.insertAll`: all rows or none, or the good ones with `skipInvalidRows`.

use std::sync::Arc;

use axum::extract::{Request, State as Shared};
use axum::response::Response;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value as Json, json};

use super::exchange::{Call, Reply, Target};
use super::foreign;
use super::tables::{TablePath, table_name};
use crate::error::ApiError;
use crate::faults::{Conditions, Method};
use crate::state::State;
use crate::store::TableName;
use crate::store::table::{Columns, NewContent, NewRow};
use crate::types::{Mismatch, accept_row};

/// The most rows of a request (documented).
const MOST_ROWS: usize = 50_000;
/// The longest `insertId`, in characters (documented).
const LONGEST_INSERT_ID: usize = 128;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body {
    #[serde(rename = "kind")]
    _kind: Option<Json>,
    #[serde(rename = "traceId")]
    _trace_id: Option<Json>,
    rows: Option<Vec<SentRow>>,
    skip_invalid_rows: Option<bool>,
    ignore_unknown_values: Option<bool>,
    template_suffix: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SentRow {
    pub(super) insert_id: Option<String>,
    pub(super) json: Option<Map<String, Json>>,
}

/// What became of the rows of a request, by index.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Rows that fit.
    pub(super) good: Vec<(usize, NewRow)>,
    /// Rows that do not, each with everything that is wrong with it.
    pub(super) bad: Vec<(usize, Vec<Mismatch>)>,
}

pub(super) async fn insert_all(
    Shared(state): Shared<Arc<State>>,
    path: TablePath,
    request: Request,
) -> Response {
    let name = table_name(path);
    state.serve(Method::InsertAll, Target::Table(name.clone()), request, |call| insert(call, &name)).await
}

/// A request whose rows are only counted.
#[derive(Debug, Deserialize)]
struct CountedBody {
    #[serde(default)]
    rows: Vec<IgnoredAny>,
}

/// Counts the rows of a request without looking into them.
fn count(call: &Call<'_>, name: &TableName) -> Result<Reply, ApiError> {
    let CountedBody { rows } = call.json()?;
    let rows = u64::try_from(rows.len()).unwrap_or(u64::MAX);
    let bytes = u64::try_from(call.body.len()).unwrap_or(u64::MAX);
    let mut store = call.state.store();
    store.table_mut(name)?.add(NewContent::Counted { rows, bytes }, call.now_ms);
    Ok(Reply::Document(json!({ "kind": "bigquery#tableDataInsertAllResponse" })))
}

fn insert(call: &Call<'_>, name: &TableName) -> Result<Reply, ApiError> {
    if call.state.count_only {
        return count(call, name);
    }
    let body: Body = call.json()?;
    let rows = body.rows.unwrap_or_default();
    check(&rows, body.template_suffix.as_deref())?;
    // The rows are read while the store is unlocked, so that requests do not wait for each other's parsing.
    let (columns, identity) = {
        let store = call.state.store();
        let table = store.table(name)?;
        (Arc::clone(table.columns_seen_late(call.conditions.schema_lag_ms, call.now_ms)), table.identity())
    };
    if columns.is_empty() {
        return Err(ApiError::invalid("The destination table has no schema."));
    }
    let ignore_unknown = body.ignore_unknown_values.unwrap_or(false);
    let outcome = read_rows(rows, &columns, ignore_unknown, &call.conditions);
    let (accepted, errors) = if call.state.foreign_emulator {
        match foreign::split(outcome) {
            Ok(split) => split,
            Err(failure) => return Ok(failure),
        }
    } else {
        split(outcome, body.skip_invalid_rows.unwrap_or(false), &call.conditions)
    };
    append(call, name, accepted, &columns, identity)?;
    let mut document = json!({ "kind": "bigquery#tableDataInsertAllResponse" });
    if let (false, Json::Object(document)) = (errors.is_empty(), &mut document) {
        document.insert("insertErrors".to_owned(), Json::Array(errors));
    }
    Ok(Reply::Document(document))
}

fn check(rows: &[SentRow], template_suffix: Option<&str>) -> Result<(), ApiError> {
    if template_suffix.is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::invalid(
            "The local BigQuery has no template tables: leave templateSuffix out.",
        ));
    }
    if rows.is_empty() {
        return Err(ApiError::invalid("No rows present in the request."));
    }
    if rows.len() > MOST_ROWS {
        let message =
            format!("too many rows present in the request, limit: {MOST_ROWS} row count: {}.", rows.len());
        return Err(ApiError::invalid(message));
    }
    let too_long =
        |row: &SentRow| row.insert_id.as_ref().is_some_and(|id| id.chars().count() > LONGEST_INSERT_ID);
    if rows.iter().any(too_long) {
        return Err(ApiError::invalid(format!("Maximum insertId length is {LONGEST_INSERT_ID} characters.")));
    }
    Ok(())
}

fn read_rows(
    rows: Vec<SentRow>,
    columns: &Columns,
    ignore_unknown: bool,
    conditions: &Conditions,
) -> Outcome {
    let mut outcome = Outcome::default();
    for (index, SentRow { insert_id, json }) in rows.into_iter().enumerate() {
        let fields = json.unwrap_or_default();
        let rejected =
            conditions.rejected_values.iter().find(|(field, value)| fields.get(field) == Some(value));
        let read = match rejected {
            Some((field, _)) => Err(vec![Mismatch {
                location: field.clone(),
                message: "Value rejected by the fault script.".to_owned(),
                of_type: true,
            }]),
            None => accept_row(columns, &fields, ignore_unknown),
        };
        match read {
            // An empty insertId is none.
            Ok(row) => {
                let insert_id = insert_id.filter(|id| !id.is_empty());
                outcome.good.push((index, NewRow { insert_id, row }));
            }
            Err(mismatches) => outcome.bad.push((index, mismatches)),
        }
    }
    outcome
}

/// The rows that go in, and the insert errors in the order of the request.
fn split(outcome: Outcome, skip_invalid: bool, conditions: &Conditions) -> (Vec<NewRow>, Vec<Json>) {
    let all_or_nothing = !skip_invalid && !outcome.bad.is_empty();
    let mut errors: Vec<(usize, Json)> =
        outcome.bad.iter().map(|(index, mismatches)| (*index, invalid(*index, mismatches))).collect();
    let mut accepted = Vec::with_capacity(outcome.good.len());
    for (index, row) in outcome.good {
        let failed = conditions.row_errors.iter().find(|(row, _)| *row == index);
        if all_or_nothing {
            errors.push((index, row_error(index, "stopped", "")));
        } else if let Some((_, reason)) = failed {
            errors.push((index, row_error(index, reason, "The row was not inserted; try again.")));
        } else {
            accepted.push(row);
        }
    }
    errors.sort_by_key(|(index, _)| *index);
    (accepted, errors.into_iter().map(|(_, error)| error).collect())
}

/// The insert error of a row that does not fit.
pub(super) fn invalid(index: usize, mismatches: &[Mismatch]) -> Json {
    let errors: Vec<Json> = mismatches
        .iter()
        .map(|mismatch| {
            json!({
                "reason": "invalid",
                "location": mismatch.location,
                "debugInfo": "",
                "message": mismatch.message,
            })
        })
        .collect();
    json!({ "index": index, "errors": errors })
}

fn row_error(index: usize, reason: &str, message: &str) -> Json {
    json!({
        "index": index,
        "errors": [{ "reason": reason, "location": "", "debugInfo": "", "message": message }],
    })
}

fn append(
    call: &Call<'_>,
    name: &TableName,
    rows: Vec<NewRow>,
    columns: &Columns,
    identity: u64,
) -> Result<(), ApiError> {
    let mut store = call.state.store();
    let table = store.table_mut(name)?;
    if table.identity() != identity {
        // The table was deleted and made again while the rows were read: they were meant for the old one.
        return Err(ApiError::not_found("Table", name));
    }
    table.append(rows, columns, call.now_ms);
    Ok(())
}
