//! The sink against the local BigQuery, and against a real one where there is one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod buffered_streams;
mod default_stream;
mod insert_all;
mod local;
mod real_project;
mod support;
