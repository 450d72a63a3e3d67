//! A planned table as BigQuery's REST interface and SQL write it.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};
use txconnect_connector_api::Mode;

use super::{Field, TablePlan, Type};
use crate::config::{BigQueryConfig, PartitionType};

/// BigQuery's limit (<https://cloud.google.com/bigquery/docs/schemas#column_descriptions>).
const MAX_DESCRIPTION_CHARACTERS: usize = 1024;

impl TablePlan {
    /// The body of `tables.insert`.
    pub(crate) fn resource(&self, config: &BigQueryConfig, table: &str) -> Value {
        let mut resource = json!({
            "tableReference": {
                "projectId": config.project, "datasetId": config.dataset, "tableId": table
            },
            "schema": { "fields": resources(&self.fields) },
        });
        if let Some(description) = &self.description {
            resource["description"] = shortened(description).into();
        }
        if !config.labels.is_empty() {
            resource["labels"] = json!(config.labels);
        }
        if let Some(partition) = &config.partition_by {
            let mut partitioning = json!({ "type": partition.granularity.name() });
            if let Some(column) = &partition.column {
                partitioning["field"] = column.as_str().into();
            }
            if let Some(expiration) = partition.expiration {
                partitioning["expirationMs"] = expiration.0.as_millis().to_string().into();
            }
            resource["timePartitioning"] = partitioning;
        }
        if !config.cluster_by.is_empty() {
            resource["clustering"] = json!({ "fields": config.cluster_by });
        }
        if !self.key.is_empty() {
            resource["tableConstraints"] = json!({ "primaryKey": { "columns": self.key_names() } });
            let staleness = config.max_staleness().as_secs();
            if staleness > 0 {
                // The text form of an INTERVAL: years-months days hours:minutes:seconds.
                let (hours, minutes, seconds) = (staleness / 3600, staleness / 60 % 60, staleness % 60);
                resource["maxStaleness"] = format!("0-0 0 {hours}:{minutes}:{seconds}").into();
            }
        }
        resource
    }

    /// The statement that creates the table, for people.
    pub(crate) fn ddl(&self, config: &BigQueryConfig, table: &str) -> String {
        let mut sql = format!("CREATE TABLE `{}.{}.{table}` (\n", config.project, config.dataset);
        for (index, field) in self.fields.iter().enumerate() {
            let last = index + 1 == self.fields.len() && self.key.is_empty();
            let end = if last { "\n" } else { ",\n" };
            let _ = write!(sql, "  `{}` {}{end}", field.name, sql_type(field, true));
        }
        if !self.key.is_empty() {
            let _ = writeln!(sql, "  {}", self.primary_key());
        }
        sql.push(')');
        if let Some(partition) = &config.partition_by {
            let granularity = partition.granularity;
            let by = match &partition.column {
                None if granularity == PartitionType::Day => "_PARTITIONDATE".to_owned(),
                None => format!("TIMESTAMP_TRUNC(_PARTITIONTIME, {})", granularity.name()),
                Some(column) => match self.top_level(column).map(|field| &field.kind) {
                    Some(Type::Date) if granularity == PartitionType::Day => format!("`{column}`"),
                    Some(Type::Date) => format!("DATE_TRUNC(`{column}`, {})", granularity.name()),
                    _ => format!("TIMESTAMP_TRUNC(`{column}`, {})", granularity.name()),
                },
            };
            let _ = write!(sql, "\nPARTITION BY {by}");
        }
        if !config.cluster_by.is_empty() {
            let columns: Vec<String> = config.cluster_by.iter().map(|column| format!("`{column}`")).collect();
            let _ = write!(sql, "\nCLUSTER BY {}", columns.join(", "));
        }
        if !self.key.is_empty() && !config.max_staleness().is_zero() {
            let _ = write!(sql, "\nOPTIONS (max_staleness = {})", interval(config.max_staleness()));
        }
        sql.push(';');
        sql
    }

    /// The names of the primary key's columns.
    pub(crate) fn key_names(&self) -> Vec<&str> {
        self.key.iter().map(|&index| self.fields[index].name.as_str()).collect()
    }

    /// The clause that names the primary key, in SQL.
    pub(crate) fn primary_key(&self) -> String {
        let columns: Vec<String> = self.key_names().iter().map(|column| format!("`{column}`")).collect();
        format!("PRIMARY KEY ({}) NOT ENFORCED", columns.join(", "))
    }
}

/// The statement that changes a table by `change`.
pub(crate) fn alter_table(config: &BigQueryConfig, table: &str, change: &str) -> String {
    format!("ALTER TABLE `{}.{}.{table}` {change};", config.project, config.dataset)
}

/// Whole seconds as SQL writes an interval of one unit.
pub(crate) fn interval(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (unit, length) = [("DAY", 86_400), ("HOUR", 3_600), ("MINUTE", 60)]
        .into_iter()
        .find(|(_, length)| seconds > 0 && seconds.is_multiple_of(*length))
        .unwrap_or(("SECOND", 1));
    format!("INTERVAL {} {unit}", seconds / length)
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Required => "REQUIRED",
        Mode::Nullable => "NULLABLE",
        Mode::Repeated => "REPEATED",
    }
}

fn shortened(description: &str) -> String {
    description.chars().take(MAX_DESCRIPTION_CHARACTERS).collect()
}

fn resources(fields: &[Field]) -> Vec<Value> {
    fields
        .iter()
        .map(|field| {
            let mut resource = Map::new();
            resource.insert("name".to_owned(), field.name.as_str().into());
            resource.insert("type".to_owned(), field.kind.name().into());
            resource.insert("mode".to_owned(), mode_name(field.mode).into());
            if let Some(description) = &field.description {
                resource.insert("description".to_owned(), shortened(description).into());
            }
            match &field.kind {
                Type::Numeric { precision, scale } | Type::BigNumeric { precision, scale } => {
                    resource.insert("precision".to_owned(), precision.to_string().into());
                    if *scale > 0 {
                        resource.insert("scale".to_owned(), scale.to_string().into());
                    }
                }
                Type::Record(fields) => {
                    resource.insert("fields".to_owned(), resources(fields).into());
                }
                _ => {}
            }
            Value::Object(resource)
        })
        .collect()
}

pub(crate) fn sql_type(field: &Field, with_not_null: bool) -> String {
    let decimal = |name: &str, precision: u32, scale: u32| {
        if scale == 0 { format!("{name}({precision})") } else { format!("{name}({precision}, {scale})") }
    };
    let bare = match &field.kind {
        Type::Boolean => "BOOL".to_owned(),
        Type::Integer => "INT64".to_owned(),
        Type::Float => "FLOAT64".to_owned(),
        Type::Numeric { precision, scale } => decimal("NUMERIC", *precision, *scale),
        Type::BigNumeric { precision, scale } => decimal("BIGNUMERIC", *precision, *scale),
        Type::Record(fields) => {
            let inner: Vec<String> = fields
                .iter()
                .map(|inner| format!("`{}` {}", inner.name, sql_type(inner, with_not_null)))
                .collect();
            format!("STRUCT<{}>", inner.join(", "))
        }
        other => other.name().to_owned(),
    };
    match field.mode {
        Mode::Required if with_not_null => format!("{bare} NOT NULL"),
        Mode::Required | Mode::Nullable => bare,
        Mode::Repeated => format!("ARRAY<{bare}>"),
    }
}
