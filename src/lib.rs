//! Moves Kafka topics into BigQuery, Postgres or stdout, from one YAML file per pipeline.

#![forbid(unsafe_code)]

pub mod publish;
