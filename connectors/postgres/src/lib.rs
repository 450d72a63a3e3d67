//! The Postgres sink: COPY and upserts, with the Kafka offsets in the same transaction.
//!
//! | module | what it does |
//! |---|---|
//! | [`plan`] | schema → columns of a table |
//! | [`connect`] | connections: hosts, TLS, time-outs |

#![forbid(unsafe_code)]

pub mod connect;
pub mod plan;
