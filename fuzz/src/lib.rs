//! What several fuzz targets need: a local BigQuery without sockets, and the table that a schema describes.

#![forbid(unsafe_code)]

pub mod server;
pub mod table;
