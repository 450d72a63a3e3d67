//! What a sink is made of.
//!
//! A pipeline has one [`Sink`]. Every lane has one [`Encoder`] per table, which works on the lane's thread
//! and touches no network, and one [`Writer`], which runs on the asynchronous runtime.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::batch::Batch;
use crate::offsets::{Advance, OffsetStore};
use crate::record::Record;
use crate::schema::TableSchema;
use crate::streams::WriteStreams;

/// How rows and offsets are committed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Rows are confirmed first, the Kafka offset follows. A crash between the two writes rows again.
    AtLeastOnce,
    /// Rows and offsets are committed by the sink in one transaction: exactly once. The Kafka offset follows, for tools
    /// that show the lag.
    OffsetsInSink,
    /// Rows are appended to streams and stay invisible; the Kafka commit names the streams and how far they count; then
    /// the rows are published: exactly once.
    TwoPhase,
}

/// Limits of the server and wishes of the sink.
#[derive(Clone, Copy, Debug)]
pub struct SinkLimits {
    /// The largest request body in bytes, [`Encoder::envelope_bytes`] included.
    pub request_bytes: usize,
    /// The largest number of rows in one batch.
    pub request_rows: usize,
    /// How many flushes of one lane may be on their way at once; at least 1.
    pub in_flight: usize,
    /// Whether one batch may hold rows of several partitions.
    pub batches_mix_partitions: bool,
    /// The rows of a batch where the pipeline file does not say.
    pub usual_rows: u32,
}

/// One destination, shared by all lanes of a pipeline.
pub trait Sink: Send + Sync + 'static {
    /// The connector's name as in the YAML file, for messages.
    fn name(&self) -> &'static str;

    /// How rows and offsets are committed together.
    fn protocol(&self) -> Protocol;

    /// What the runtime must respect when it builds batches.
    fn limits(&self) -> SinkLimits;

    /// The full name of the table that takes the records of `topic`, for example `transactions.cash_ins`.
    fn table(&self, topic: &str) -> Arc<str>;

    /// Makes the table of `topic` ready, or finds it so: called before the first [`Self::encoder`] of a topic and again
    /// after every restart, so that encoders follow the table that is really there. Ends by a deadline of its own; the
    /// runtime repeats it while the error is transient and reads nothing of the topic meanwhile.
    fn prepare<'a>(
        &'a self,
        topic: &'a str,
        schema: Option<&'a TableSchema>,
    ) -> BoxFuture<'a, Result<(), SinkError>> {
        let _ = (topic, schema);
        Box::pin(async { Ok(()) })
    }

    /// An encoder for the records of `topic`. Without a schema a sink that needs columns answers
    /// [`SinkError::Fatal`].
    fn encoder(&self, topic: &str, schema: Option<&TableSchema>) -> Result<Box<dyn Encoder>, SinkError>;

    /// A writer for one lane of `pipeline`.
    fn writer(&self, pipeline: &str) -> Box<dyn Writer>;

    /// The positions that `pipeline` keeps in the sink; there where the protocol is [`Protocol::OffsetsInSink`].
    fn offsets(&self, pipeline: &str) -> Option<Arc<dyn OffsetStore>> {
        let _ = pipeline;
        None
    }

    /// The streams that rows are appended to; there where the protocol is [`Protocol::TwoPhase`], whose rows do not pass
    /// through a [`Writer`].
    fn streams(&self) -> Option<Arc<dyn WriteStreams>> {
        None
    }

    /// How many rows each table holds now, asked from the server. Empty where a sink has no tables.
    fn count_rows<'a>(&'a self, tables: &'a [Arc<str>]) -> BoxFuture<'a, Result<Vec<TableCount>, SinkError>> {
        let _ = tables;
        Box::pin(async { Ok(Vec::new()) })
    }
}

/// The number of rows in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableCount {
    /// The table, as [`Sink::table`] named it.
    pub table: Arc<str>,
    /// The rows that a query sees, or `None` where the table does not exist.
    pub rows: Option<u64>,
}

/// Turns records into rows. Lives on one lane's thread, for one topic.
pub trait Encoder: Send {
    /// Appends the record as one row to `out`, or says that it makes no row. After an error the runtime cuts
    /// `out` back to where it was.
    fn encode(&mut self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<Encoded, BadRecord>;

    /// Bytes that a request needs beside its rows. Rows and envelope together stay within
    /// [`SinkLimits::request_bytes`].
    fn envelope_bytes(&self) -> usize {
        0
    }

    /// Called once when a batch is closed, on the lane's thread: the place for compression.
    fn seal(&mut self, batch: &mut Batch) {
        let _ = batch;
    }

    /// Fields of valid records that no column took, since the encoder was made.
    fn ignored_fields(&self) -> u64 {
        0
    }
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoded {
    /// One row was appended.
    Row,
    /// The record makes no row in this sink; it is counted as filtered.
    Filtered,
}

/// Brings batches to the server. One per lane; lives on the asynchronous runtime.
pub trait Writer: Send + Sync {
    /// Writes all batches of one flush.
    ///
    /// The call enqueues in the order of the calls; the future resolves when the server has confirmed. Up to
    /// [`SinkLimits::in_flight`] calls run at once. `Ok` means that every row is durable. On an error the
    /// writer has cut out of `batches` the rows that are durable; whatever is left has not been confirmed and
    /// the runtime calls again with it. Every call ends by a deadline of its own.
    ///
    /// With [`Protocol::OffsetsInSink`] the rows and all of `advances`, at most one per partition, are one transaction:
    /// either all of it is durable or nothing, and an error leaves `batches` as they are. There may be advances without
    /// rows. With other protocols `advances` is empty.
    fn write<'a>(
        &'a self,
        batches: &'a mut [Batch],
        advances: &'a [Advance],
    ) -> BoxFuture<'a, Result<(), SinkError>>;
}

/// Why a flush is not written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SinkError {
    /// The server is away, busy or refuses for a time: the runtime waits and calls again, for ever by default.
    #[error("{cause}")]
    Transient {
        /// What happened, without values of rows.
        cause: String,
        /// How long the server asked to wait.
        retry_after: Option<Duration>,
    },
    /// The server refuses single rows. The runtime dead-letters them, cuts them out and calls again.
    #[error("the server refused {} rows", rows.len())]
    Rejected {
        /// The rows, by position in the batches that are left.
        rows: Vec<RejectedRow>,
    },
    /// Partitions were taken over by somebody else since we did, or their position is not where it was: nothing was
    /// written. Only with [`Protocol::OffsetsInSink`].
    #[error("the position of {partitions:?} was taken over by another process")]
    Fenced {
        /// Indices into the advances of the call.
        partitions: Vec<usize>,
    },
    /// The connection broke after the commit was asked for: nobody knows whether the transaction is durable before the
    /// partitions are taken over again. Only with [`Protocol::OffsetsInSink`].
    #[error("{cause}")]
    InDoubt {
        /// What happened, without values of rows.
        cause: String,
    },
    /// Whoever read the output has gone away, as `head` does: the pipeline ends, and nothing is wrong.
    #[error("the output was closed by its reader")]
    Closed,
    /// Nothing will get better by waiting: the pipeline fails.
    #[error("{cause}")]
    Fatal {
        /// What happened, without values of rows or secrets.
        cause: String,
        /// What the user can do about it.
        hint: Option<String>,
    },
}

impl SinkError {
    /// A [`SinkError::Transient`] without a wish of the server.
    pub fn transient(cause: impl Into<String>) -> Self {
        Self::Transient { cause: cause.into(), retry_after: None }
    }

    /// A [`SinkError::Fatal`] with the way out.
    pub fn fatal(cause: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Fatal { cause: cause.into(), hint: Some(hint.into()) }
    }
}

/// A row the server refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedRow {
    /// Index of the batch in the slice given to [`Writer::write`].
    pub batch: usize,
    /// Index of the row in that batch.
    pub row: usize,
    /// Why, without values of the row.
    pub why: BadRecord,
}

/// Why a record cannot become a row. Never holds a value of the record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadRecord {
    /// A short stable class, for example `schema.type` or `encode.out_of_range`.
    pub class: Cow<'static, str>,
    /// Where in the record, as a JSON pointer; empty for the whole record.
    pub path: String,
    /// What is wrong, in one line.
    pub message: String,
    /// Where it happened inside the code that found it, in several lines; only transforms say it.
    pub trace: Option<Box<str>>,
}

impl BadRecord {
    /// A problem of the value at `path` (a JSON pointer).
    pub fn new(class: &'static str, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { class: Cow::Borrowed(class), path: path.into(), message: message.into(), trace: None }
    }
}

/// A mistake in a connector's block of the pipeline file that its types alone cannot show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Where, as a JSON pointer inside the connector's block, for example `/table`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
}
