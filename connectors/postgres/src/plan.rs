//! Schema → columns of a table, and what a record does to it.

use std::fmt;

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

/// What rows of one topic become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePlan {
    /// The table.
    pub table: TableName,
    /// The columns that rows bring, in the order of their fields. Columns of the table that no row brings take their
    /// default.
    pub columns: Vec<PlannedColumn>,
    /// What a record does to the table.
    pub mode: PlannedWrite,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedColumn {
    /// The name, as Postgres stores it.
    pub name: String,
    /// The type of its values on the wire and in the table.
    pub column_type: ColumnType,
    /// Whether NULL is allowed.
    pub nullable: bool,
    /// Becomes the comment of a column that is made here.
    pub description: Option<String>,
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
    /// `numeric`, or `numeric(precision, scale)`
    Numeric(Option<(u16, u16)>),
    /// `text`
    Text,
    /// `character varying(n)` or `character(n)`, in characters; without a limit it is [`Self::Text`] on the wire.
    Varchar(u32),
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
