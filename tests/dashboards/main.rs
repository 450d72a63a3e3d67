//! The dashboards of `dashboards/`: every query runs on PostgreSQL over the sample data and gives what this test
//! computes from the same data by itself; the script that puts them into Metabase does what it says.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, but not in what they call")]

mod fake_metabase;
mod manifest;
mod payments;
mod provisioning;
mod queries;
