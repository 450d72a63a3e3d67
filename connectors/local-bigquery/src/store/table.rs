//! One table: its resource, its columns and its rows.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::insert_ids::InsertIds;
use super::{TableName, resource};
use crate::error::ApiError;
use crate::types::column::parse_fields;
use crate::types::{Column, Row, evolve, render};

/// A table's columns, shared with requests that read them while the store is unlocked.
pub(crate) type Columns = Arc<Vec<Column>>;

/// A table.
#[derive(Debug)]
pub(crate) struct Table {
    resource: Map<String, Json>,
    columns: Columns,
    /// The columns before the last change of the schema, and when it was changed.
    before: Option<(Columns, u64)>,
    /// Tells this table from another of the same name, before or after it.
    identity: u64,
    serial: u64,
    created_ms: u64,
    modified_ms: u64,
    rows: Vec<Row>,
    bytes: u64,
    insert_ids: InsertIds,
}

/// A row on its way into a table.
#[derive(Debug)]
pub(crate) struct NewRow {
    /// The row's `insertId`, where it has one.
    pub(crate) insert_id: Option<String>,
    /// The values, in the order of the columns they were read with.
    pub(crate) row: Row,
}

impl Table {
    /// A new table from its resource.
    pub(crate) fn new(mut resource: Map<String, Json>, serial: u64, now_ms: u64) -> Result<Table, ApiError> {
        resource::drop_output_only(&mut resource);
        let columns = read_columns(&resource)?;
        resource::check_table(&resource, &columns)?;
        Ok(Table {
            resource,
            columns: Arc::new(columns),
            before: None,
            identity: serial,
            serial,
            created_ms: now_ms,
            modified_ms: now_ms,
            rows: Vec::new(),
            bytes: 0,
            insert_ids: InsertIds::default(),
        })
    }

    /// Changes the resource and carries the rows over into the new schema.
    pub(crate) fn change(
        &mut self,
        name: &TableName,
        mut change: Map<String, Json>,
        replace: bool,
        serial: u64,
        now_ms: u64,
    ) -> Result<(), ApiError> {
        resource::drop_output_only(&mut change);
        let resource = if replace {
            change
        } else {
            let mut merged = self.resource.clone();
            resource::merge(&mut merged, change);
            merged
        };
        let columns = read_columns(&resource)?;
        evolve::check(&self.columns, &columns).map_err(|why| {
            ApiError::invalid(format!("Provided Schema does not match Table {name}. {why}"))
        })?;
        resource::check_table(&resource, &columns)?;
        if columns != *self.columns {
            let columns = Arc::new(columns);
            let rows = std::mem::take(&mut self.rows).into_iter();
            self.rows = rows.map(|row| evolve::carry_over(row, &self.columns, &columns)).collect();
            self.before = Some((std::mem::replace(&mut self.columns, columns), now_ms));
        }
        self.resource = resource;
        self.serial = serial;
        self.modified_ms = now_ms;
        Ok(())
    }

    pub(crate) fn etag(&self) -> String {
        resource::etag(self.serial)
    }

    pub(crate) fn identity(&self) -> u64 {
        self.identity
    }

    pub(crate) fn created_ms(&self) -> u64 {
        self.created_ms
    }

    /// The columns in force.
    pub(crate) fn columns(&self) -> &Columns {
        &self.columns
    }

    /// The columns that a writer sees which learns of a schema change `lag_ms` late.
    pub(crate) fn columns_seen_late(&self, lag_ms: u64, now_ms: u64) -> &Columns {
        match &self.before {
            Some((before, changed_ms)) if now_ms.saturating_sub(*changed_ms) < lag_ms => before,
            _ => &self.columns,
        }
    }

    /// The visible rows, oldest first.
    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Appends rows that were read with `columns`. A row whose `insertId` is still remembered is dropped.
    pub(crate) fn append(&mut self, rows: Vec<NewRow>, columns: &Columns, now_ms: u64) {
        self.rows.reserve(rows.len());
        for NewRow { insert_id, row } in rows {
            if insert_id.is_some_and(|id| !self.insert_ids.remember(&id, now_ms)) {
                continue;
            }
            let row = if Arc::ptr_eq(columns, &self.columns) {
                row
            } else {
                evolve::carry_over(row, columns, &self.columns)
            };
            let weight: usize = row.iter().map(render::weight).sum();
            self.bytes = self.bytes.saturating_add(u64::try_from(weight).unwrap_or(u64::MAX));
            self.rows.push(row);
        }
    }

    /// The table's resource, with what only the server knows.
    pub(crate) fn document(&self, name: &TableName) -> Json {
        let mut document = self.resource.clone();
        let (project, dataset) = (&name.dataset.project, &name.dataset.dataset);
        resource::set_all(
            &mut document,
            json!({
                "kind": "bigquery#table",
                "etag": self.etag(),
                "id": name.to_string(),
                "selfLink": format!("/bigquery/v2/projects/{project}/datasets/{dataset}/tables/{}", name.table),
                "tableReference": { "projectId": project, "datasetId": dataset, "tableId": name.table },
                "creationTime": self.created_ms.to_string(),
                "lastModifiedTime": self.modified_ms.to_string(),
                "numRows": self.rows.len().to_string(),
                "numBytes": self.bytes.to_string(),
                "type": "TABLE",
            }),
        );
        document.entry("location").or_insert_with(|| "US".into());
        Json::Object(document)
    }

    /// The schema as it was given, for query results.
    pub(crate) fn schema(&self) -> Json {
        self.resource.get("schema").cloned().unwrap_or_else(|| json!({ "fields": [] }))
    }
}

fn read_columns(resource: &Map<String, Json>) -> Result<Vec<Column>, ApiError> {
    if resource.get("view").is_some_and(|view| !view.is_null()) {
        return Err(ApiError::invalid("The local BigQuery has no views: create a table with a schema."));
    }
    match resource.get("schema").and_then(|schema| schema.get("fields")) {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(fields) => parse_fields(fields).map_err(ApiError::invalid),
    }
}
