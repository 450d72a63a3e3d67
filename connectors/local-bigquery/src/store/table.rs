//! One table: its resource, its columns and its rows.
//!
//! Rows may be counted only: then they are neither kept nor read, and every count is as it would be.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::insert_ids::InsertIds;
use super::keys::Keys;
use super::{TableName, resource};
use crate::error::ApiError;
use crate::types::column::parse_fields;
use crate::types::proto::{ChangeType, DecodedRow};
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
    /// The rows by primary key, where the table has one.
    keys: Option<Keys>,
    /// Rows that were counted and not kept.
    counted: u64,
    bytes: u64,
    insert_ids: InsertIds,
}

/// What is appended to a table or a stream.
#[derive(Debug)]
pub(crate) enum NewContent {
    /// Rows, and the columns they were read with.
    Rows(Columns, Vec<DecodedRow>),
    /// A number of rows with this many bytes.
    Counted { rows: u64, bytes: u64 },
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
        let keys = resource::primary_key(&resource, &columns).map(|key| Keys::of(&[], key, &columns));
        Ok(Table {
            resource,
            columns: Arc::new(columns),
            before: None,
            identity: serial,
            serial,
            created_ms: now_ms,
            modified_ms: now_ms,
            rows: Vec::new(),
            keys,
            counted: 0,
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
        let key = resource::primary_key(&resource, &columns);
        let same_key = resource::same_key(&self.resource, &resource);
        if columns != *self.columns {
            let columns = Arc::new(columns);
            let rows = std::mem::take(&mut self.rows).into_iter();
            self.rows = rows.map(|row| evolve::carry_over(row, &self.columns, &columns)).collect();
            self.before = Some((std::mem::replace(&mut self.columns, columns), now_ms));
        }
        self.keys = match (self.keys.take(), key) {
            // What is known of its changes stays known, wherever its columns have moved to.
            (Some(keys), Some(key)) if same_key => Some(keys.moved_to(key)),
            (_, key) => key.map(|key| Keys::of(&self.rows, key, &self.columns)),
        };
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

    /// How many rows can be seen.
    pub(crate) fn row_count(&self) -> u64 {
        u64::try_from(self.rows.len()).unwrap_or(u64::MAX).saturating_add(self.counted)
    }

    /// Whether the table has a primary key, so that it takes changes.
    pub(crate) fn has_key(&self) -> bool {
        self.keys.is_some()
    }

    /// The resource it could be made from again.
    pub(crate) fn resource(&self) -> &Map<String, Json> {
        &self.resource
    }

    /// Appends rows of insertAll that were read with `columns`. A row whose `insertId` is still remembered is dropped.
    pub(crate) fn append(&mut self, rows: Vec<NewRow>, columns: &Columns, now_ms: u64) {
        self.rows.reserve(rows.len());
        for NewRow { insert_id, row } in rows {
            if insert_id.is_some_and(|id| !self.insert_ids.remember(&id, now_ms)) {
                continue;
            }
            self.insert(row, columns);
        }
    }

    /// Adds content that becomes visible; rows with a change are merged by key.
    pub(crate) fn add(&mut self, content: NewContent, now_ms: u64) {
        match content {
            NewContent::Counted { rows, bytes } => {
                self.counted = self.counted.saturating_add(rows);
                self.bytes = self.bytes.saturating_add(bytes);
            }
            NewContent::Rows(columns, rows) => {
                for DecodedRow { row, change, sequence } in rows {
                    let Some((change, keys)) = change.zip(self.keys.as_mut()) else {
                        self.insert(row, &columns);
                        continue;
                    };
                    let row = fitted(row, &columns, &self.columns);
                    self.bytes = self.bytes.saturating_add(weight(&row));
                    let delete = change == ChangeType::Delete;
                    keys.apply(&mut self.rows, &self.columns, row, sequence, delete, now_ms);
                }
            }
        }
    }

    fn insert(&mut self, row: Row, columns: &Columns) {
        let row = fitted(row, columns, &self.columns);
        self.bytes = self.bytes.saturating_add(weight(&row));
        if let Some(keys) = &mut self.keys {
            keys.inserted(&row, &self.columns, self.rows.len());
        }
        self.rows.push(row);
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
                "numRows": self.row_count().to_string(),
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

/// A row that was read with some columns, for a table that may have others by now.
fn fitted(row: Row, read_with: &Columns, columns: &Columns) -> Row {
    if Arc::ptr_eq(read_with, columns) { row } else { evolve::carry_over(row, read_with, columns) }
}

fn weight(row: &Row) -> u64 {
    let weight: usize = row.iter().map(render::weight).sum();
    u64::try_from(weight).unwrap_or(u64::MAX)
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
