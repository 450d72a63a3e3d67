//! From a schema to a BigQuery table: its columns, its key, and how it is created.

mod resource;

use txconnect_connector_api::{Column, Columns, ConfigProblem, KafkaColumn, Kind, Mode, TableSchema};

use crate::config::{BigQueryConfig, NewestBy, PartitionBy, PartitionType, WriteMode};

pub(crate) use resource::{alter_table, interval, sql_type};

/// BigQuery's limit (<https://cloud.google.com/bigquery/docs/schemas#column_names>).
const MAX_NAME_CHARACTERS: usize = 300;

/// BigQuery's limit for tables whose rows are replaced
/// (<https://cloud.google.com/bigquery/docs/change-data-capture#limitations>).
const MAX_UPSERT_COLUMNS: usize = 2_000;

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
    /// The columns of the schema, then those that Kafka fills.
    pub(crate) fields: Vec<Field>,
    /// Indices of the primary key's columns, for `write: upsert`.
    pub(crate) key: Vec<usize>,
    description: Option<String>,
}

impl TablePlan {
    /// The table that `schema` describes, or why BigQuery would refuse it. Paths are JSON pointers inside the `bigquery`
    /// block; an empty one is the whole block.
    pub(crate) fn new(config: &BigQueryConfig, schema: &TableSchema) -> Result<Self, Vec<ConfigProblem>> {
        let mut problems = Vec::new();
        let mut fields = fields(&schema.columns, "", &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        let key = check_key(config, schema, &mut fields, &mut problems);
        if config.write == WriteMode::Upsert && fields.len() + config.kafka_columns.len() > MAX_UPSERT_COLUMNS
        {
            problems.push(problem(
                "/write",
                format!("a table whose rows are replaced has at most {MAX_UPSERT_COLUMNS} columns"),
                "gather properties in objects, or mark some `x-column: {ignore: true}`",
            ));
        }
        for (index, &column) in config.kafka_columns.iter().enumerate() {
            if fields.iter().any(|field| field.name.eq_ignore_ascii_case(column.name())) {
                problems.push(problem(
                    &format!("/kafka_columns/{index}"),
                    format!("the schema has a column `{}` of its own", column.name()),
                    "give that one another name in the schema: `x-column: {name: …}`",
                ));
            }
            fields.push(kafka_field(column));
        }
        if problems.is_empty() {
            Ok(Self { fields, key, description: schema.description.clone() })
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
}

/// The index of the column that `name` means: a column's name, or the property that fills it.
pub(crate) fn position(schema: &TableSchema, name: &str) -> Option<usize> {
    let columns = schema.columns.as_slice();
    columns
        .iter()
        .position(|column| column.name.eq_ignore_ascii_case(name))
        .or_else(|| columns.iter().position(|column| column.property == name))
}

/// Finds the columns of the key and makes them required; checks the column that tells newer from older.
fn check_key(
    config: &BigQueryConfig,
    schema: &TableSchema,
    fields: &mut [Field],
    problems: &mut Vec<ConfigProblem>,
) -> Vec<usize> {
    if config.write != WriteMode::Upsert {
        return Vec::new();
    }
    let mut key = Vec::new();
    for (place, name) in config.key.iter().enumerate() {
        let path = format!("/key/{place}");
        let Some(index) = position(schema, name) else {
            problems.push(no_column(&path, name));
            continue;
        };
        if let Some(why) = fields[index].key_problem() {
            problems.push(problem(
                &path,
                format!("`{name}` {why}, which BigQuery does not take in a primary key"),
                "name columns of text, integers, decimals, booleans, bytes, dates or timestamps",
            ));
        }
        if key.contains(&index) {
            problems.push(problem(
                &path,
                format!(
                    "the column `{}` is named twice, by its own name and by its property's",
                    fields[index].name
                ),
                "name every column once",
            ));
        }
        key.push(index);
    }
    if let NewestBy::Column(name) = config.newest_by() {
        match position(schema, name) {
            None => problems.push(no_column("/newest_by", name)),
            Some(index) if key.contains(&index) => problems.push(problem(
                "/newest_by",
                format!("`{name}` is part of the key, so it is the same in both rows"),
                "name another column, or write `offset` or `timestamp`",
            )),
            Some(index) if !fields[index].is_ordered() => problems.push(problem(
                "/newest_by",
                format!("`{name}` ({}) has no order that tells newer from older", sql_type(&fields[index], false)),
                "name a column of numbers (decimals of at most 38 digits), dates or times, or write `offset` or `timestamp`",
            )),
            Some(_) => {}
        }
    }
    for (index, field) in fields.iter_mut().enumerate() {
        if key.contains(&index) {
            field.mode = Mode::Required;
        } else if config.delete_on_tombstone && field.mode == Mode::Required {
            // A deletion has the key's columns only.
            field.mode = Mode::Nullable;
        }
    }
    key
}

fn no_column(path: &str, name: &str) -> ConfigProblem {
    problem(
        path,
        format!("`{name}` is no column of the schema"),
        "name a column that every record of the topic has",
    )
}

fn problem(path: &str, message: String, help: &str) -> ConfigProblem {
    ConfigProblem { path: path.to_owned(), message, help: Some(help.to_owned()) }
}

fn kafka_field(column: KafkaColumn) -> Field {
    let (kind, description) = match column {
        KafkaColumn::Topic => (Type::String, "The Kafka topic of the record that the row was made from."),
        KafkaColumn::Partition => (Type::Integer, "The partition of that topic."),
        KafkaColumn::Offset => (Type::Integer, "The record's offset in the partition."),
        KafkaColumn::Timestamp => (Type::Timestamp, "The time that Kafka keeps with the record."),
    };
    Field {
        name: column.name().to_owned(),
        kind,
        mode: if column.is_required() { Mode::Required } else { Mode::Nullable },
        description: Some(description.to_owned()),
    }
}

impl Field {
    /// Why the column cannot be part of a primary key
    /// (<https://cloud.google.com/bigquery/docs/primary-foreign-keys#limitations>).
    fn key_problem(&self) -> Option<&'static str> {
        if self.mode == Mode::Repeated {
            return Some("holds many values a row");
        }
        match self.kind {
            Type::Float => Some("holds floating-point numbers"),
            Type::Time => Some("holds times of day"),
            Type::Json => Some("holds JSON"),
            Type::Record(_) => Some("holds a record"),
            Type::Boolean
            | Type::Integer
            | Type::Numeric { .. }
            | Type::BigNumeric { .. }
            | Type::String
            | Type::Bytes
            | Type::Date
            | Type::Timestamp => None,
        }
    }

    /// Whether [`crate::storage::sequence`] keeps the order of the column's values.
    fn is_ordered(&self) -> bool {
        self.mode != Mode::Repeated
            && match self.kind {
                Type::Integer | Type::Float | Type::Date | Type::Time | Type::Timestamp => true,
                Type::Numeric { precision, .. } | Type::BigNumeric { precision, .. } => {
                    precision <= crate::storage::sequence::MAX_DECIMAL_DIGITS
                }
                Type::Boolean | Type::String | Type::Bytes | Type::Json | Type::Record(_) => false,
            }
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

#[cfg(test)]
mod tests;
