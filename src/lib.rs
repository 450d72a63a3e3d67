//! txconnect moves Kafka topics into BigQuery, Postgres or stdout: one YAML file per pipeline, nothing compiled.
//!
//! The rooms follow a record's way, in one direction: [`stages`] decode → validate → encode.

pub mod config;
pub mod stages;
