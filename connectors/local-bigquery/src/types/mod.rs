//! Columns, values and their forms: what a table may hold and how it is read and shown.
//!
//! Nothing here knows about HTTP or about the store: a JSON value goes in, a typed [`Value`] or a
//! [`Mismatch`] comes out.

pub(crate) mod accept;
pub(crate) mod column;
pub(crate) mod decimal;
pub(crate) mod evolve;
pub(crate) mod proto;
pub(crate) mod render;
pub(crate) mod temporal;

pub(crate) use accept::{Mismatch, accept_row};
pub(crate) use column::{Column, Kind, Mode};

/// One stored value in its normal form. Values of one column are all of the column's kind, or null.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// NULL, or a column that was added after the row.
    Null,
    /// BOOLEAN.
    Bool(bool),
    /// INTEGER.
    Integer(i64),
    /// FLOAT, including NaN and the infinities.
    Float(f64),
    /// STRING; NUMERIC and BIGNUMERIC as plain decimals; BYTES as padded base64; JSON as compact text.
    Text(Box<str>),
    /// DATE: days since 1970-01-01.
    Date(i32),
    /// TIME: microseconds since midnight.
    Time(i64),
    /// DATETIME: microseconds since 1970-01-01T00:00:00 on the wall clock.
    DateTime(i64),
    /// TIMESTAMP: microseconds since 1970-01-01T00:00:00Z.
    Timestamp(i64),
    /// RECORD: one value per nested column.
    Record(Vec<Value>),
    /// REPEATED: the elements, none of them null.
    List(Vec<Value>),
}

/// One stored row: a value per column, in the order of the table's columns.
pub(crate) type Row = Vec<Value>;
