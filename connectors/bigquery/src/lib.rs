//! The BigQuery sink: batches of rows through the Storage Write API or as `tabledata.insertAll` requests.
//!
//! | module | what it does |
//! |---|---|
//! | [`config`] | the `bigquery` block of a pipeline file |
//! | `sink` | what the runtime holds |
//! | `plan`, `fit` | schema → table; comparison with a table that is there |
//! | `record`, `read` | which column a field of a record goes to; values, checked and read |
//! | `decimal`, `time_text` | values that are checked digit by digit |
//! | `encode`, `values` | record → row of an insertAll request |
//! | `writer`, `answers` | sends insertAll requests, says which rows are in |
//! | `storage` | the Storage Write API: rows in protobuf, streams, connections |
//! | `outcome` | what became of a flush |
//! | `table` | sees to it that a table is there before its first row |
//! | `rest`, `credentials` | the connection, and who we are |
//! | `error` | what went wrong, and whether waiting helps |

#![forbid(unsafe_code)]

mod answers;
pub mod config;
mod credentials;
mod decimal;
mod encode;
mod error;
mod fit;
mod outcome;
mod plan;
mod read;
mod record;
mod rest;
#[cfg(test)]
mod samples;
mod sink;
mod storage;
mod table;
mod time_text;
mod values;
mod writer;

pub use config::BigQueryConfig;
pub use sink::BigQuerySink;
