//! The contract between the runtime and its connectors.
//!
//! A record travels in one direction: the runtime decodes and validates it, an [`Encoder`] turns it
//! into a row of a [`Batch`] in the wire format of the sink, and a [`Writer`] brings closed batches to
//! the server. This crate holds the types that cross that border and no behaviour of either side: it
//! knows neither Kafka nor YAML nor a server.
//!
//! | module | what it holds |
//! |---|---|
//! | [`document`] | a borrowed JSON document that keeps number literals |
//! | [`schema`] | the columns that a JSON Schema describes |
//! | [`record`] | one Kafka record as encoders see it |
//! | [`batch`] | rows of one table in wire format, and where each came from |
//! | [`offsets`] | positions that a sink keeps beside the rows |
//! | [`streams`] | streams of rows that stay invisible until they are published |
//! | [`kafka_columns`] | columns that say where a row came from |
//! | [`sink`] | [`Sink`], [`Encoder`], [`Writer`], [`SinkError`] |
//! | [`units`] | sizes, durations and secrets as users write them |

#![forbid(unsafe_code)]

pub mod batch;
pub mod document;
pub mod kafka_columns;
pub mod offsets;
pub mod record;
pub mod schema;
pub mod sink;
pub mod streams;
pub mod units;

pub use batch::{Batch, RowSource};
pub use document::{Document, Member, Number, Object};
pub use kafka_columns::KafkaColumn;
pub use offsets::{Advance, Claim, Claimed, Epoch, NewPosition, OffsetStore, StoredPosition};
pub use record::{Header, Record, TopicPartition, Value};
pub use schema::{Column, Columns, Kind, Mode, TableSchema, TimeUnit, TimestampSource};
pub use sink::{
    BadRecord, ConfigProblem, Encoded, Encoder, Protocol, RejectedRow, Sink, SinkError, SinkLimits,
    TableCount, Writer,
};
pub use streams::{Appended, Published, StreamName, StreamPosition, WriteStreams};
pub use units::{ByteSize, HumanDuration, Secret};
