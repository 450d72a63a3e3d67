//! The Postgres sink: COPY and upserts, with the Kafka offsets in the same transaction.
//!
//! | module | what it does |
//! |---|---|
//! | [`config`] | the `postgres` block of a pipeline file |
//! | [`plan`] | schema → columns of a table |
//! | [`ddl`] | the statements that make a table |
//! | [`fit`] | a plan for the table that is there |
//! | [`encode`], `values`, `key`, `coordinates` | record → row of a batch, value by value |
//! | `numeric`, `times` | decimals, dates and times in PostgreSQL's binary form |
//! | [`row`], [`order`] | rows of a batch, read back and compared |
//! | [`connect`] | connections: hosts, TLS, time-outs |
//! | [`blockers`] | who holds a lock that is waited for |
//! | [`error`] | what an error of the server means |
//! | [`offsets`] | positions in a table beside the rows |
//! | [`sink`], `writer` | what the runtime holds, and what brings flushes to the server |
//! | `table`, `catalog` | the table made and looked at |
//! | `transaction`, `isolate` | a flush as one transaction; the search for rows that the server refuses |
//! | `rows`, `statements`, `copy`, `arrays`, `merge` | how rows travel, with and without a key |

#![forbid(unsafe_code)]

mod address;
mod advance;
mod arrays;
pub mod blockers;
mod catalog;
pub mod config;
pub mod connect;
mod coordinates;
mod copy;
pub mod ddl;
pub mod encode;
pub mod error;
pub mod fit;
mod isolate;
mod key;
mod merge;
mod numeric;
pub mod offsets;
pub mod order;
mod parameters;
pub mod plan;
pub mod row;
mod rows;
mod session;
mod settings;
pub mod sink;
mod statements;
mod table;
mod times;
mod tls;
mod transaction;
mod values;
mod writer;

pub use config::PostgresConfig;
pub use encode::RowEncoder;
pub use plan::TablePlan;
pub use sink::PostgresSink;
