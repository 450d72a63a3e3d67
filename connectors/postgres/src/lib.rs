//! The Postgres sink: COPY and upserts, with the Kafka offsets in the same transaction.
//!
//! | module | what it does |
//! |---|---|
//! | [`config`] | the `postgres` block of a pipeline file |
//! | [`plan`] | schema → columns of a table |
//! | [`ddl`] | the statements that make a table |
//! | [`fit`] | a plan for the table that is there |
//! | [`encode`], `values`, `key` | record → row of a batch, value by value |
//! | `numeric`, `times` | decimals, dates and times in PostgreSQL's binary form |
//! | [`row`], [`order`] | rows of a batch, read back and compared |
//! | [`connect`] | connections: hosts, TLS, time-outs |
//! | [`blockers`] | who holds a lock that is waited for |
//! | [`error`] | what an error of the server means |
//! | [`offsets`] | positions in a table beside the rows |

#![forbid(unsafe_code)]

mod address;
mod advance;
pub mod blockers;
pub mod config;
pub mod connect;
pub mod ddl;
pub mod encode;
pub mod error;
pub mod fit;
mod key;
mod numeric;
pub mod offsets;
pub mod order;
mod parameters;
pub mod plan;
pub mod row;
mod session;
mod settings;
mod times;
mod tls;
mod values;

pub use config::PostgresConfig;
pub use encode::RowEncoder;
pub use plan::TablePlan;
