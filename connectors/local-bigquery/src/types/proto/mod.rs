//! Rows in protobuf: a writer's schema held against a table's columns, and rows decoded by it.

mod change;
mod civil;
mod decode;
mod schema;
pub(crate) mod wire;

pub(crate) use change::{ChangeType, Sequence};
pub(crate) use decode::{DecodedRow, decode_row};
pub(crate) use schema::{SchemaProblem, WriterSchema};
