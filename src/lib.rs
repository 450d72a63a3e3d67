//! txconnect moves Kafka topics into BigQuery, Postgres or stdout: one YAML file per pipeline, nothing compiled.
//!
//! A record travels in one direction: source → [`stages`] decode → validate → encode → [`pipeline`] batch → sink →
//! [`delivery`] offsets.

pub mod config;
pub mod delivery;
pub mod pipeline;
pub mod stages;
