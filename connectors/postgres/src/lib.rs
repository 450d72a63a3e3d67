//! The Postgres sink: COPY and upserts, with the Kafka offsets in the same transaction.
//!
//! | module | what it does |
//! |---|---|
//! | [`plan`] | schema → columns of a table |
//! | [`blockers`] | who holds a lock that is waited for |
//! | [`connect`] | connections: hosts, TLS, time-outs |
//! | [`error`] | what an error of the server means |
//! | [`offsets`] | positions in a table beside the rows |

#![forbid(unsafe_code)]

mod address;
mod advance;
pub mod blockers;
pub mod connect;
pub mod error;
pub mod offsets;
mod parameters;
pub mod plan;
mod session;
mod settings;
mod tls;
