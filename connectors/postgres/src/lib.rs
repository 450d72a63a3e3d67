//! The Postgres sink: COPY and upserts, with the Kafka offsets in the same transaction.
//!
//! | module | what it does |
//! |---|---|
//! | [`config`] | the `postgres` block of a pipeline file |
//! | [`plan`] | schema → columns of a table |
//! | [`ddl`] | the statements that make a table |
//! | [`fit`] | a plan for the table that is there |
//! | [`row`], [`order`] | rows of a batch, read back and compared |
//! | [`blockers`] | who holds a lock that is waited for |
//! | [`connect`] | connections: hosts, TLS, time-outs |
//! | [`error`] | what an error of the server means |
//! | [`offsets`] | positions in a table beside the rows |
//! | `numeric` | decimal literals in PostgreSQL's binary form |

#![forbid(unsafe_code)]

mod address;
mod advance;
pub mod blockers;
pub mod config;
pub mod connect;
pub mod ddl;
pub mod error;
pub mod fit;
mod numeric;
pub mod offsets;
pub mod order;
pub mod plan;
pub mod row;
mod session;
mod settings;
mod tls;

pub use config::PostgresConfig;
pub use plan::TablePlan;
