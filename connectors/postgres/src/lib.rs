//! The Postgres sink: COPY and upserts, with the Kafka offsets in the same transaction.
//!
//! | module | what it does |
//! |---|---|
//! | [`plan`] | schema → columns of a table |
//! | [`connect`] | connections: hosts, TLS, time-outs |
//! | [`error`] | what an error of the server means |

#![forbid(unsafe_code)]

mod address;
pub mod connect;
pub mod error;
pub mod plan;
mod session;
mod settings;
mod tls;
