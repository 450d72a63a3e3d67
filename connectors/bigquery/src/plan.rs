//! From a schema to a BigQuery table: its columns, and how it is created.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use txconnect_connector_api::{Column, Columns, ConfigProblem, Kind, Mode, TableSchema};

use crate::config::{BigQueryConfig, PartitionBy, PartitionType};

/// BigQuery's limit (<https://cloud.google.com/bigquery/docs/schemas#column_names>).
const MAX_NAME_CHARACTERS: usize = 300;

/// BigQuery's limit (<https://cloud.google.com/bigquery/docs/schemas#column_descriptions>).
const MAX_DESCRIPTION_CHARACTERS: usize = 1024;

/// Names with these beginnings belong to BigQuery, in any case.
const RESERVED_PREFIXES: [&str; 7] =
    ["_TABLE_", "_FILE_", "_PARTITION", "_ROW_TIMESTAMP", "__ROOT__", "_COLIDENTIFIER", "_CHANGE_"];

/// A BigQuery column type that a schema can ask for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Type {
    Boolean,
    Integer,
    Float,
    Numeric { precision: u32, scale: u32 },
    BigNumeric { precision: u32, scale: u32 },
    String,
    Bytes,
    Date,
    Time,
    Timestamp,
    Json,
    Record(Vec<Field>),
}

/// One column of a table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) kind: Type,
    pub(crate) mode: Mode,
    description: Option<String>,
}

/// A table as it should be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TablePlan {
    pub(crate) fields: Vec<Field>,
    description: Option<String>,
}

impl TablePlan {
    /// The table that `schema` describes, or why BigQuery would refuse it.
    pub(crate) fn new(schema: &TableSchema) -> Result<Self, Vec<ConfigProblem>> {
        let mut problems = Vec::new();
        let fields = fields(&schema.columns, "", &mut problems);
        if problems.is_empty() {
            Ok(Self { fields, description: schema.description.clone() })
        } else {
            Err(problems)
        }
    }

    /// Mistakes in what the configuration says about the columns.
    pub(crate) fn layout_problems(&self, config: &BigQueryConfig) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        if let Some(PartitionBy { column: Some(column), granularity, .. }) = &config.partition_by {
            let why = match self.top_level(column) {
                None => Some("is no column of the schema"),
                Some(Field { mode: Mode::Repeated, .. }) => Some("holds many values a row"),
                Some(Field { kind: Type::Date, .. }) if *granularity == PartitionType::Hour => {
                    Some("is a date, which has no hours")
                }
                Some(Field { kind: Type::Date | Type::Timestamp, .. }) => None,
                Some(_) => Some("is neither a date nor a timestamp"),
            };
            if let Some(why) = why {
                problems.push(ConfigProblem {
                    path: "/partition_by/column".to_owned(),
                    message: format!("`{column}` {why}"),
                    help: Some(
                        "name a date or timestamp column, or leave `column` out to partition by the time of arrival"
                            .to_owned(),
                    ),
                });
            }
        }
        for (index, column) in config.cluster_by.iter().enumerate() {
            let why = match self.top_level(column) {
                None => Some("is no column of the schema"),
                Some(Field { mode: Mode::Repeated, .. }) => Some("holds many values a row"),
                Some(field) => match field.kind {
                    Type::Float | Type::Bytes | Type::Time | Type::Json | Type::Record(_) => {
                        Some("has a type that BigQuery does not cluster by")
                    }
                    _ => None,
                },
            };
            if let Some(why) = why {
                problems.push(ConfigProblem {
                    path: format!("/cluster_by/{index}"),
                    message: format!("`{column}` {why}"),
                    help: Some(
                        "name boolean, integer, numeric, string, date or timestamp columns".to_owned(),
                    ),
                });
            }
        }
        problems
    }

    /// Whether rows made for one plan fit a table made for the other.
    pub(crate) fn same_columns(&self, other: &Self) -> bool {
        same_fields(&self.fields, &other.fields)
    }

    fn top_level(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name))
    }

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
        resource
    }

    /// The statement that creates the table, for people.
    pub(crate) fn ddl(&self, config: &BigQueryConfig, table: &str) -> String {
        let mut sql = format!("CREATE TABLE `{}.{}.{table}` (\n", config.project, config.dataset);
        for (index, field) in self.fields.iter().enumerate() {
            let end = if index + 1 == self.fields.len() { "\n" } else { ",\n" };
            let _ = write!(sql, "  `{}` {}{end}", field.name, sql_type(field, true));
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
        sql.push(';');
        sql
    }
}

fn same_fields(left: &[Field], right: &[Field]) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).all(|(left, right)| {
            left.name == right.name
                && left.mode == right.mode
                && match (&left.kind, &right.kind) {
                    (Type::Record(left), Type::Record(right)) => same_fields(left, right),
                    (left, right) => left == right,
                }
        })
}

fn fields(columns: &Columns, parent: &str, problems: &mut Vec<ConfigProblem>) -> Vec<Field> {
    columns
        .as_slice()
        .iter()
        .filter_map(|column| {
            let path = format!("{parent}{}", column.name);
            if let Some(why) = name_problem(&column.name) {
                problems.push(ConfigProblem {
                    path: String::new(),
                    message: format!("BigQuery does not take the column name `{path}`: {why}"),
                    help: Some("give it another name in the schema: `x-column: {name: …}`".to_owned()),
                });
            }
            let kind = field_type(column, &path, problems)?;
            Some(Field {
                name: column.name.clone(),
                kind,
                mode: column.mode,
                description: column.description.clone(),
            })
        })
        .collect()
}

fn field_type(column: &Column, path: &str, problems: &mut Vec<ConfigProblem>) -> Option<Type> {
    Some(match &column.kind {
        Kind::Boolean => Type::Boolean,
        Kind::Integer => Type::Integer,
        Kind::Float => Type::Float,
        // https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types#decimal_types
        &Kind::Numeric { precision, scale } => match (precision.saturating_sub(scale), scale) {
            (0..=29, 0..=9) => Type::Numeric { precision, scale },
            (0..=38, 0..=38) => Type::BigNumeric { precision, scale },
            _ => {
                problems.push(ConfigProblem {
                    path: String::new(),
                    message: format!("BigQuery has no decimal with {precision} digits, {scale} of them behind the point, for the column `{path}`"),
                    help: Some("at most 38 digits before and 38 behind the point".to_owned()),
                });
                return None;
            }
        },
        Kind::String | Kind::Uuid => Type::String,
        Kind::Bytes => Type::Bytes,
        Kind::Date => Type::Date,
        Kind::Time => Type::Time,
        Kind::Timestamp(_) => Type::Timestamp,
        Kind::Json => Type::Json,
        Kind::Record(columns) if columns.as_slice().is_empty() => {
            problems.push(ConfigProblem {
                path: String::new(),
                message: format!("the record `{path}` has no column"),
                help: Some("mark it with `x-column: {ignore: true}` or `x-column: {type: json}`".to_owned()),
            });
            return None;
        }
        Kind::Record(columns) => Type::Record(fields(columns, &format!("{path}."), problems)),
    })
}

fn name_problem(name: &str) -> Option<&'static str> {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts_well || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Some("it takes letters, digits and `_`, and no digit in front");
    }
    if name.len() > MAX_NAME_CHARACTERS {
        return Some("it is longer than 300 characters");
    }
    let upper = name.to_ascii_uppercase();
    RESERVED_PREFIXES
        .iter()
        .any(|prefix| upper.starts_with(prefix))
        .then_some("names that begin like this are BigQuery's own")
}

impl Type {
    /// The type's name in BigQuery's REST interface.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Boolean => "BOOLEAN",
            Self::Integer => "INTEGER",
            Self::Float => "FLOAT",
            Self::Numeric { .. } => "NUMERIC",
            Self::BigNumeric { .. } => "BIGNUMERIC",
            Self::String => "STRING",
            Self::Bytes => "BYTES",
            Self::Date => "DATE",
            Self::Time => "TIME",
            Self::Timestamp => "TIMESTAMP",
            Self::Json => "JSON",
            Self::Record(_) => "RECORD",
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use txconnect_connector_api::schema::UnknownFields;

    fn plan(schema: &Value) -> Result<TablePlan, Vec<ConfigProblem>> {
        TablePlan::new(&TableSchema::from_json_schema(schema, UnknownFields::DeadLetter).unwrap())
    }

    fn config(extra: &Value) -> BigQueryConfig {
        let mut all = json!({ "project": "p", "dataset": "d" });
        all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    fn orders() -> Value {
        json!({
            "description": "Orders",
            "required": ["id", "amount"],
            "properties": {
                "id": { "type": "string", "format": "uuid", "description": "The order" },
                "amount": { "x-column": { "type": "numeric", "precision": 18, "scale": 2 }, "type": "number" },
                "wide": { "x-column": { "type": "numeric", "precision": 60, "scale": 30 }, "type": "string" },
                "day": { "type": "string", "format": "date" },
                "at": { "type": "string", "format": "date-time" },
                "extra": { "type": "object" },
                "lines": { "type": "array", "items": {
                    "type": "object", "required": ["n"], "properties": { "n": { "type": "integer" } } } }
            }
        })
    }

    #[test]
    fn a_schema_becomes_the_table_that_the_rest_interface_creates() {
        let config = config(&json!({
            "partition_by": { "column": "at", "type": "hour", "expiration": "90d" },
            "cluster_by": ["id"], "labels": { "team": "pay" }
        }));
        let plan = plan(&orders()).unwrap();
        assert_eq!(plan.layout_problems(&config), []);
        assert_eq!(
            plan.resource(&config, "orders"),
            json!({
                "tableReference": { "projectId": "p", "datasetId": "d", "tableId": "orders" },
                "schema": { "fields": [
                    { "name": "id", "type": "STRING", "mode": "REQUIRED", "description": "The order" },
                    { "name": "amount", "type": "NUMERIC", "mode": "REQUIRED", "precision": "18", "scale": "2" },
                    { "name": "wide", "type": "BIGNUMERIC", "mode": "NULLABLE", "precision": "60", "scale": "30" },
                    { "name": "day", "type": "DATE", "mode": "NULLABLE" },
                    { "name": "at", "type": "TIMESTAMP", "mode": "NULLABLE" },
                    { "name": "extra", "type": "JSON", "mode": "NULLABLE" },
                    { "name": "lines", "type": "RECORD", "mode": "REPEATED", "fields": [
                        { "name": "n", "type": "INTEGER", "mode": "REQUIRED" } ] }
                ] },
                "description": "Orders",
                "labels": { "team": "pay" },
                "timePartitioning": { "type": "HOUR", "field": "at", "expirationMs": "7776000000" },
                "clustering": { "fields": ["id"] }
            })
        );
        assert_eq!(
            plan.ddl(&config, "orders"),
            "CREATE TABLE `p.d.orders` (\n  `id` STRING NOT NULL,\n  `amount` NUMERIC(18, 2) NOT NULL,\n  \
             `wide` BIGNUMERIC(60, 30),\n  `day` DATE,\n  `at` TIMESTAMP,\n  `extra` JSON,\n  \
             `lines` ARRAY<STRUCT<`n` INT64 NOT NULL>>\n)\nPARTITION BY TIMESTAMP_TRUNC(`at`, HOUR)\n\
             CLUSTER BY `id`;"
        );
    }

    #[test]
    fn partition_and_cluster_columns_must_be_there_and_fit() {
        let plan = plan(&orders()).unwrap();
        for (extra, path) in [
            (json!({ "partition_by": { "column": "nowhere" } }), "/partition_by/column"),
            (json!({ "partition_by": { "column": "id" } }), "/partition_by/column"),
            (json!({ "partition_by": { "column": "day", "type": "hour" } }), "/partition_by/column"),
            (json!({ "cluster_by": ["lines"] }), "/cluster_by/0"),
            (json!({ "cluster_by": ["id", "extra"] }), "/cluster_by/1"),
        ] {
            let problems = plan.layout_problems(&config(&extra));
            assert_eq!(problems.len(), 1, "{extra}");
            assert_eq!(problems[0].path, path);
        }
        for extra in [json!({ "partition_by": {} }), json!({ "partition_by": { "column": "day" } })] {
            assert_eq!(plan.layout_problems(&config(&extra)), []);
        }
    }

    #[test]
    fn names_and_decimals_that_bigquery_refuses_are_found_at_every_depth() {
        let problems = plan(&json!({ "properties": {
            "a-b": { "type": "string" },
            "_table_x": { "type": "string" },
            "r": { "type": "object", "properties": { "1st": { "type": "string" } } },
            "empty": { "type": "object", "properties": { "x": { "x-column": { "ignore": true } } } },
            "huge": { "x-column": { "type": "numeric", "precision": 76, "scale": 0 } }
        } }))
        .unwrap_err();
        for (problem, name) in problems.iter().zip(["`a-b`", "`_table_x`", "`r.1st`", "`empty`", "`huge`"]) {
            assert!(problem.message.contains(name), "{}", problem.message);
        }
        assert_eq!(problems.len(), 5);
    }
}
