//! A table's columns as the `TableSchema` of the Storage Write API.

use gcp_bigquery_client::google::cloud::bigquery::storage::v1::table_field_schema::{Mode as ApiMode, Type};
use gcp_bigquery_client::google::cloud::bigquery::storage::v1::{TableFieldSchema, TableSchema};

use crate::types::{Column, Kind, Mode};

/// The columns, nested ones included. Limits of length and precision are left out.
pub(crate) fn table_schema(columns: &[Column]) -> TableSchema {
    TableSchema { fields: columns.iter().map(field).collect() }
}

fn field(column: &Column) -> TableFieldSchema {
    let kind = match &column.kind {
        Kind::Integer => Type::Int64,
        Kind::Float => Type::Double,
        Kind::Numeric(_) => Type::Numeric,
        Kind::BigNumeric(_) => Type::Bignumeric,
        Kind::Boolean => Type::Bool,
        Kind::String(_) => Type::String,
        Kind::Bytes(_) => Type::Bytes,
        Kind::Date => Type::Date,
        Kind::Time => Type::Time,
        Kind::DateTime => Type::Datetime,
        Kind::Timestamp => Type::Timestamp,
        Kind::Json => Type::Json,
        Kind::Record(_) => Type::Struct,
    };
    let fields = match &column.kind {
        Kind::Record(columns) => columns.iter().map(field).collect(),
        _ => Vec::new(),
    };
    let mode = match column.mode {
        Mode::Nullable => ApiMode::Nullable,
        Mode::Required => ApiMode::Required,
        Mode::Repeated => ApiMode::Repeated,
    };
    TableFieldSchema {
        name: column.name.clone(),
        r#type: kind.into(),
        mode: mode.into(),
        fields,
        ..TableFieldSchema::default()
    }
}
