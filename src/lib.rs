//! txconnect moves Kafka topics into BigQuery, Postgres or stdout: one YAML file per pipeline, nothing compiled.
//!
//! The rooms follow a record's way, in one direction: [`stages`] decode → validate → encode.

#![forbid(unsafe_code)]

pub mod commands;
pub mod config;
pub mod embedded;
pub mod publish;
pub mod stages;
pub mod terminal;
