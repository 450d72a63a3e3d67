//! End to end: the built binary against a real Kafka, a real PostgreSQL and a local BigQuery, as users run it.
//!
//! One program for all themes, so that they run beside each other. `./dev test` starts Kafka and PostgreSQL; every test
//! has topics, a group, and a schema or a BigQuery of its own.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "clippy.toml allows it in tests, but not in what they call"
)]

mod bad_records;
mod bigquery_streams;
mod bigquery_surprises;
mod bigquery_upserts;
mod command_line;
mod dead_letters_command;
mod groups;
mod lost_offsets;
mod main_job;
mod offsets;
#[path = "../../connectors/postgres/tests/support/own_server.rs"]
#[allow(dead_code, reason = "the connector's tests use the rest")]
mod own_server;
#[path = "../postgres/mod.rs"]
mod postgres;
mod postgres_bad_rows;
mod postgres_groups;
mod postgres_modes;
mod postgres_outages;
mod postgres_restarts;
mod postgres_surprises;
#[path = "../proxy/mod.rs"]
mod proxy;
mod proxy_itself;
mod restarts;
mod sink_outages;
mod sources;
mod stdout;
mod support;
mod transforms;
mod transforms_exactly_once;
