//! End to end: the built binary against a real Kafka and a local BigQuery, as users run it.
//!
//! One program for all themes, so that they run beside each other. `./dev test` starts the Kafka; every test has topics,
//! a group and a BigQuery of its own.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "clippy.toml allows it in tests, but not in what they call"
)]

mod bad_records;
mod command_line;
mod groups;
mod lost_offsets;
mod main_job;
mod offsets;
mod restarts;
mod sink_outages;
mod sources;
mod stdout;
mod support;
