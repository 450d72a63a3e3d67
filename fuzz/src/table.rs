//! The BigQuery table of a schema, written down apart from the sink's own plan, so that each checks the other.

use serde_json::{Map, Value, json};
use txconnect_connector_api::{Columns, Kind, Mode};

/// The `schema.fields` of the table for `columns`.
#[must_use]
pub fn fields(columns: &Columns) -> Value {
    columns
        .as_slice()
        .iter()
        .map(|column| {
            let mut field = Map::new();
            field.insert("name".to_owned(), json!(column.name));
            field.insert(
                "mode".to_owned(),
                json!(match column.mode {
                    Mode::Required => "REQUIRED",
                    Mode::Nullable => "NULLABLE",
                    Mode::Repeated => "REPEATED",
                }),
            );
            let kind = match &column.kind {
                Kind::Boolean => "BOOLEAN",
                Kind::Integer => "INTEGER",
                Kind::Float => "FLOAT",
                Kind::Numeric { precision, scale } => {
                    field.insert("precision".to_owned(), json!(precision.to_string()));
                    field.insert("scale".to_owned(), json!(scale.to_string()));
                    if *scale <= 9 && precision - scale <= 29 { "NUMERIC" } else { "BIGNUMERIC" }
                }
                Kind::String | Kind::Uuid => "STRING",
                Kind::Bytes => "BYTES",
                Kind::Date => "DATE",
                Kind::Time => "TIME",
                Kind::Timestamp(_) => "TIMESTAMP",
                Kind::Json => "JSON",
                Kind::Record(inner) => {
                    field.insert("fields".to_owned(), fields(inner));
                    "RECORD"
                }
            };
            field.insert("type".to_owned(), json!(kind));
            Value::Object(field)
        })
        .collect()
}
