//! The Kafka source, the dead letter producer and topic administration.
//!
//! | module | what it does |
//! |---|---|
//! | [`config`] | the `kafka:` block of a pipeline file and what can be wrong with it |
//! | [`connection`] | brokers, TLS, SASL and librdkafka properties, shared by every client |
//! | [`consumer`] | group membership, assignments, offsets and commits; groups seen from outside, topic ids |
//! | [`lane_queue`] | records of several partitions in one queue, taken in batches |
//! | [`trouble`] | what goes wrong on its own, between calls |
//! | [`producer`] | dead letters one by one, bulk publishing |
//! | [`admin`] | describe and create topics |
//! | [`mock`] | a broker inside this process |
//! | [`library`] | which librdkafka this is |
//! | [`error`] | why a call failed, in words for the user |
//!
//! `unsafe` around librdkafka lives in `native`, [`lane_queue`] and [`mock`] only; every other module forbids it.

#![deny(unsafe_op_in_unsafe_fn)]
#![deny(clippy::undocumented_unsafe_blocks)]

pub mod admin;
pub mod config;
pub mod connection;
pub mod consumer;
pub mod error;
pub mod lane_queue;
pub mod library;
mod log;
pub mod mock;
mod native;
pub mod producer;
pub mod trouble;

pub use admin::{Admin, EnsuredTopic, TopicDescription};
pub use config::{KafkaSourceConfig, OnLostOffsets, Start};
pub use connection::Connection;
pub use consumer::{
    Assignment, CloseTimedOut, CommitAnswer, CommitError, CommitErrorKind, CommitPosition, Committed,
    CommittedMetadata, Consumer, ConsumerEvent, GroupMember, GroupState, MoveGroupError, StartAt, Tuning,
};
pub use error::KafkaError;
pub use lane_queue::{LaneHandle, LaneQueue, Message, MessageBatch, MessageError, MessageErrorKind, Wake};
pub use producer::{
    BulkProducer, Compression, Confirmation, Delivery, DeliveryError, OutgoingRecord, Producer,
    ProducerSettings,
};
pub use trouble::{Trouble, TroubleKind};
