//! Schema → columns of a table, and what a record does to it.

use std::fmt;

use txconnect_connector_api::{Column, ConfigProblem, KafkaColumn, Kind, Mode, TableSchema};

use crate::config::{NewestBy, PostgresConfig, WriteMode};
use crate::coordinates;

/// PostgreSQL cuts longer names without a word (`NAMEDATALEN` − 1).
pub const MAX_NAME_BYTES: usize = 63;

/// PostgreSQL's limit for the columns of a table (`MaxHeapAttributeNumber`).
const MAX_COLUMNS: usize = 1600;

/// Every table has these columns already.
const SYSTEM_COLUMNS: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];

/// Digits behind the second that PostgreSQL keeps.
const MICROSECOND_DIGITS: u8 = 6;

/// A table, by schema and name, as Postgres stores them: neither quoted nor folded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TableName {
    /// The schema.
    pub schema: String,
    /// The table.
    pub table: String,
}

impl fmt::Display for TableName {
    /// Quoted where that is needed or not: fit for a statement.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", quoted(&self.schema), quoted(&self.table))
    }
}

/// An identifier as it stands in a statement.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What keeps `name` from being an identifier.
pub fn name_problem(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("it is empty")
    } else if name.contains('\0') {
        Some("it holds a NUL character")
    } else if name.len() > MAX_NAME_BYTES {
        Some("it is longer than 63 bytes, and PostgreSQL would cut it")
    } else {
        None
    }
}

/// What rows of one topic become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePlan {
    /// The table.
    pub table: TableName,
    /// The columns that rows bring, in the order of their fields: first those of the schema, then those of Kafka.
    /// Columns of the table that no row brings take their default.
    pub columns: Vec<PlannedColumn>,
    /// What a record does to the table.
    pub mode: PlannedWrite,
    /// Becomes the comment of a table that is made here.
    pub description: Option<String>,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedColumn {
    /// The name, as Postgres stores it.
    pub name: String,
    /// Where its values come from.
    pub filled_by: FilledBy,
    /// The type of its values on the wire and in the table.
    pub column_type: ColumnType,
    /// Whether NULL is allowed.
    pub nullable: bool,
    /// How many digits behind the second a time column keeps, 0 to 6; 6 for all others.
    pub second_digits: u8,
    /// Becomes the comment of a column that is made here.
    pub description: Option<String>,
}

/// Where the values of a column come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilledBy {
    /// A property of the record.
    Property,
    /// What Kafka knows about the record.
    Kafka(KafkaColumn),
}

/// What a record does to the table. Numbers are indices of [`TablePlan::columns`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlannedWrite {
    /// Every record is a new row.
    Append,
    /// A row whose key is there already changes nothing.
    InsertIgnore {
        /// The key, in the order of its index.
        key: Vec<usize>,
    },
    /// A row whose key is there already takes its place.
    Upsert {
        /// The key, in the order of its index.
        key: Vec<usize>,
        /// The column whose larger value is the newer row. `None`: the later record is the newer one.
        newest_by: Option<usize>,
    },
}

impl PlannedWrite {
    /// The columns of the key; none where every record is a new row.
    pub fn key(&self) -> &[usize] {
        match self {
            Self::Append => &[],
            Self::InsertIgnore { key } | Self::Upsert { key, .. } => key,
        }
    }

    /// Whether rows have a key, and so an operation in front ([`crate::row`]).
    pub fn is_keyed(&self) -> bool {
        *self != Self::Append
    }
}

/// The type of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// `boolean`
    Boolean,
    /// `smallint`
    SmallInt,
    /// `integer`
    Integer,
    /// `bigint`
    BigInt,
    /// `real`
    Real,
    /// `double precision`
    Double,
    /// `numeric`, or `numeric(precision, scale)`; the scale may be below zero or above the precision.
    Numeric(Option<(u16, i16)>),
    /// `text`
    Text,
    /// `character varying(n)`, in characters; without a limit it is [`Self::Text`] on the wire.
    Varchar(u32),
    /// `character(n)`, in characters. Values travel without the blanks at their end, which mean nothing there.
    Char(u32),
    /// A type whose values travel as their text: an enum, or citext. By its name as it stands in a statement.
    Labelled(String),
    /// `uuid`
    Uuid,
    /// `bytea`
    Bytea,
    /// `timestamp with time zone`
    TimestampTz,
    /// `timestamp without time zone`, holding UTC
    Timestamp,
    /// `date`
    Date,
    /// `time without time zone`
    Time,
    /// `json`
    Json,
    /// `jsonb`
    Jsonb,
}

impl fmt::Display for ColumnType {
    /// As it stands in a statement.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boolean => "boolean",
            Self::SmallInt => "smallint",
            Self::Integer => "integer",
            Self::BigInt => "bigint",
            Self::Real => "real",
            Self::Double => "double precision",
            Self::Numeric(None) => "numeric",
            Self::Numeric(Some((precision, scale))) => return write!(f, "numeric({precision},{scale})"),
            Self::Text => "text",
            Self::Varchar(length) => return write!(f, "character varying({length})"),
            Self::Char(length) => return write!(f, "character({length})"),
            Self::Labelled(name) => name,
            Self::Uuid => "uuid",
            Self::Bytea => "bytea",
            Self::TimestampTz => "timestamp with time zone",
            Self::Timestamp => "timestamp without time zone",
            Self::Date => "date",
            Self::Time => "time without time zone",
            Self::Json => "json",
            Self::Jsonb => "jsonb",
        })
    }
}

impl ColumnType {
    /// The column that a schema's column asks for.
    fn wanted(column: &Column) -> Self {
        if column.mode == Mode::Repeated {
            return Self::Jsonb;
        }
        match &column.kind {
            Kind::Boolean => Self::Boolean,
            Kind::Integer => Self::BigInt,
            Kind::Float => Self::Double,
            Kind::Numeric { precision, scale } => {
                // The schema allows 76 digits at most.
                Self::Numeric(u16::try_from(*precision).ok().zip(i16::try_from(*scale).ok()))
            }
            Kind::String => Self::Text,
            Kind::Bytes => Self::Bytea,
            Kind::Date => Self::Date,
            Kind::Time => Self::Time,
            Kind::Timestamp(_) => Self::TimestampTz,
            Kind::Uuid => Self::Uuid,
            Kind::Json | Kind::Record(_) => Self::Jsonb,
        }
    }

    /// The column that is made for something that Kafka knows about a record.
    fn of_kafka(column: KafkaColumn) -> Self {
        match column {
            KafkaColumn::Topic => Self::Text,
            KafkaColumn::Partition => Self::Integer,
            KafkaColumn::Offset => Self::BigInt,
            KafkaColumn::Timestamp => Self::TimestampTz,
        }
    }

    /// Why a column of this type cannot be part of a key: rows are recognised by the bytes of their keys.
    pub(crate) fn key_problem(&self) -> Option<&'static str> {
        match self {
            Self::Real | Self::Double => Some("holds floating-point numbers, which are no identity"),
            Self::Json | Self::Jsonb => Some("holds JSON, which is no identity"),
            _ => None,
        }
    }

    /// Whether [`crate::order::compare`] and the server order values of this type alike.
    pub(crate) fn is_ordered(&self) -> bool {
        match self {
            Self::SmallInt
            | Self::Integer
            | Self::BigInt
            | Self::Real
            | Self::Double
            | Self::Numeric(_)
            | Self::Uuid
            | Self::TimestampTz
            | Self::Timestamp
            | Self::Date
            | Self::Time => true,
            Self::Boolean
            | Self::Text
            | Self::Varchar(_)
            | Self::Char(_)
            | Self::Labelled(_)
            | Self::Bytea
            | Self::Json
            | Self::Jsonb => false,
        }
    }
}

impl TablePlan {
    /// The table that takes the records of `topic`, as it would be made, or why PostgreSQL would refuse it.
    ///
    /// # Errors
    /// All mistakes at once. Paths are JSON pointers inside the `postgres` block.
    pub fn new(
        config: &PostgresConfig,
        topic: &str,
        schema: &TableSchema,
    ) -> Result<Self, Vec<ConfigProblem>> {
        let mut problems = Vec::new();
        let table = config.table_name(topic);
        check_table(config, &table, topic, &mut problems);
        let mut columns: Vec<PlannedColumn> = schema
            .columns
            .as_slice()
            .iter()
            .map(|column| PlannedColumn {
                name: column.name.clone(),
                filled_by: FilledBy::Property,
                column_type: ColumnType::wanted(column),
                nullable: column.mode != Mode::Required,
                second_digits: MICROSECOND_DIGITS,
                description: column.description.clone(),
            })
            .collect();
        check_names_of_kafka(config, topic, &columns, &mut problems);
        columns.extend(config.kafka_columns.iter().map(|&column| PlannedColumn {
            name: column.name().to_owned(),
            filled_by: FilledBy::Kafka(column),
            column_type: ColumnType::of_kafka(column),
            nullable: !column.is_required(),
            second_digits: MICROSECOND_DIGITS,
            description: None,
        }));
        check_columns(&columns, &mut problems);
        let mut find = |path: String, name: &str| {
            let found = columns
                .iter()
                .position(|column| column.name == name)
                .or_else(|| schema.columns.as_slice().iter().position(|column| column.property == name));
            if found.is_none() {
                let help = match coordinates::column_called(name) {
                    Some(_) => "add it to `kafka_columns`",
                    None => "name a column that every record of the topic has",
                };
                problems.push(problem(
                    &path,
                    format!("`{name}` is no column of the schema of `{topic}`"),
                    help,
                ));
            }
            found
        };
        let key: Vec<usize> = config
            .key
            .iter()
            .enumerate()
            .filter_map(|(index, name)| find(format!("/key/{index}"), name))
            .collect();
        let newest_by = match config.newest_by() {
            NewestBy::Offset => None,
            NewestBy::Timestamp => find("/newest_by".to_owned(), KafkaColumn::Timestamp.name()),
            NewestBy::Column(name) => find("/newest_by".to_owned(), name),
        };
        check_key(&columns, &key, newest_by, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        for &index in &key {
            columns[index].nullable = false;
        }
        let mode = match config.write {
            WriteMode::Append => PlannedWrite::Append,
            WriteMode::InsertIgnore => PlannedWrite::InsertIgnore { key },
            WriteMode::Upsert => PlannedWrite::Upsert { key, newest_by },
        };
        Ok(Self { table, columns, mode, description: schema.description.clone() })
    }

    /// Mistakes of what the configuration asks for the records of `topic`; also that they have no schema.
    pub fn problems(
        config: &PostgresConfig,
        topic: &str,
        schema: Option<&TableSchema>,
    ) -> Vec<ConfigProblem> {
        match schema {
            Some(schema) => Self::new(config, topic, schema).err().unwrap_or_default(),
            None => vec![problem(
                "",
                format!("the records of `{topic}` have no schema, and PostgreSQL tables need columns"),
                "add `validate: {schema: schemas/{topic}.json}` and keep `decode: json`",
            )],
        }
    }

    /// The column that says how old a deletion is, where it has an age: deletions come from records without a value,
    /// and of those only Kafka's time is known. Without it every deletion is newer than the row.
    pub fn age_of_deletes(&self) -> Option<usize> {
        match &self.mode {
            PlannedWrite::Upsert { newest_by, .. } => newest_by
                .filter(|&index| self.columns[index].filled_by == FilledBy::Kafka(KafkaColumn::Timestamp)),
            PlannedWrite::Append | PlannedWrite::InsertIgnore { .. } => None,
        }
    }

    /// Whether rows made for one plan fit the table of the other.
    pub fn same_rows(&self, other: &Self) -> bool {
        self.table == other.table
            && self.mode == other.mode
            && self.columns.len() == other.columns.len()
            && self.columns.iter().zip(&other.columns).all(|(left, right)| {
                (&left.name, left.filled_by, &left.column_type, left.nullable, left.second_digits)
                    == (&right.name, right.filled_by, &right.column_type, right.nullable, right.second_digits)
            })
    }
}

fn check_table(config: &PostgresConfig, table: &TableName, topic: &str, problems: &mut Vec<ConfigProblem>) {
    if let Some(why) = name_problem(&table.table) {
        problems.push(problem(
            "/table",
            format!("the topic `{topic}` gives no table name: {why}"),
            "give this topic a pipeline of its own with a shorter `table`",
        ));
    } else if *table == config.offsets_table() {
        problems.push(problem(
            "/table",
            format!("the table {table} keeps the offsets"),
            "give the records another table, or the offsets another `offsets_schema`",
        ));
    }
}

const RENAME: &str = "give it another name in the schema: `x-column: {name: …}`";

/// Names that mean something of Kafka's and are those of columns of the schema as well.
fn check_names_of_kafka(
    config: &PostgresConfig,
    topic: &str,
    columns: &[PlannedColumn],
    problems: &mut Vec<ConfigProblem>,
) {
    let taken = |name: &str| columns.iter().any(|column| column.name == name);
    for (index, column) in config.kafka_columns.iter().enumerate() {
        if taken(column.name()) {
            problems.push(problem(
                &format!("/kafka_columns/{index}"),
                format!("the schema of `{topic}` has a column `{}` of its own", column.name()),
                RENAME,
            ));
        }
    }
    if let Some(word) = config.kafka_word().filter(|word| taken(word)) {
        problems.push(problem(
            "/newest_by",
            format!("`{word}` means Kafka's, and the schema of `{topic}` has a column of that name"),
            RENAME,
        ));
    }
}

fn check_columns(columns: &[PlannedColumn], problems: &mut Vec<ConfigProblem>) {
    for column in columns {
        let name = column.name.escape_debug();
        if let Some(why) = name_problem(&column.name) {
            problems.push(problem("", format!("the column name `{name}` does not do: {why}"), RENAME));
        } else if SYSTEM_COLUMNS.contains(&column.name.as_str()) {
            let message = format!("every table of PostgreSQL has a column `{name}` of its own");
            problems.push(problem("", message, RENAME));
        }
    }
    if columns.len() > MAX_COLUMNS {
        problems.push(problem(
            "",
            format!("rows have {} columns, a table of PostgreSQL has at most 1600", columns.len()),
            "gather properties in objects, which become jsonb, or mark some `x-column: {ignore: true}`",
        ));
    }
}

fn check_key(
    columns: &[PlannedColumn],
    key: &[usize],
    newest_by: Option<usize>,
    problems: &mut Vec<ConfigProblem>,
) {
    for (place, &index) in key.iter().enumerate() {
        let column = &columns[index];
        if let Some(why) = column.column_type.key_problem() {
            problems.push(problem(
                &format!("/key/{place}"),
                format!("`{}` {why}", column.name),
                "name columns of integers, text, UUIDs, dates or times",
            ));
        }
        if key[..place].contains(&index) {
            problems.push(problem(
                &format!("/key/{place}"),
                format!("the column `{}` is named twice, by its own name and by its property's", column.name),
                "name every column once",
            ));
        }
    }
    let Some(index) = newest_by else { return };
    let column = &columns[index];
    if key.contains(&index) {
        problems.push(problem(
            "/newest_by",
            format!("`{}` is part of the key, so it is the same in both rows", column.name),
            "name another column, or `offset`",
        ));
    } else if !column.column_type.is_ordered() {
        problems.push(problem(
            "/newest_by",
            format!("`{}` ({}) has no order that tells newer from older", column.name, column.column_type),
            "name a column of numbers, dates or times",
        ));
    }
}

fn problem(path: &str, message: String, help: &str) -> ConfigProblem {
    ConfigProblem { path: path.to_owned(), message, help: Some(help.to_owned()) }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
