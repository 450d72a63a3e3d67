//! What fuzz targets need: a local BigQuery without sockets, the table that a schema describes, a reader of rows.

#![forbid(unsafe_code)]

pub mod row;
pub mod server;
pub mod table;
