//! txconnect moves Kafka topics into BigQuery, Postgres or stdout: one YAML file per pipeline, nothing compiled.
//!
//! A record travels in one direction: source → [`stages`] decode → validate → encode → [`pipeline`] batch → sink →
//! [`delivery`] offsets. [`commands`] start it, [`config`] reads the YAML, [`control`] keeps pipelines running.

#![forbid(unsafe_code)]

pub mod commands;
pub mod config;
pub mod control;
pub mod delivery;
pub mod embedded;
pub mod pipeline;
pub mod publish;
pub mod stages;
pub mod terminal;
