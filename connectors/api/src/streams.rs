//! Streams of rows that stay invisible until they are published.
//!
//! A sink whose [`crate::Protocol`] is `TwoPhase` has [`WriteStreams`]. Every assignment of a partition has streams of
//! its own, one per table. Rows are appended at positions that the runtime counts, so that an append that is sent
//! twice is stored once; they are published up to a position after the Kafka commit that names the stream and that
//! position. Whatever was appended behind it is never seen.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::batch::Batch;
use crate::sink::{BadRecord, SinkError};

/// A stream's name, as short as the sink can make it: names stand in the metadata of Kafka commits, which holds 4,096
/// bytes for a partition. Only the sink reads it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName(pub Arc<str>);

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where in a stream rows go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamPosition {
    /// The stream.
    pub stream: StreamName,
    /// How many rows the stream holds before them.
    pub offset: i64,
}

/// What became of an append.
#[derive(Clone, Debug)]
pub enum Appended {
    /// All rows are stored at the position that was named.
    Stored,
    /// The stream holds rows at this position already. Whether they are these, only the runtime can know.
    AlreadyStored,
    /// The server refuses these rows, by index in the batch, and has stored none of the batch.
    Rejected(Vec<(usize, BadRecord)>),
    /// The server has answered, and nothing is stored.
    NotStored(SinkError),
    /// No answer came: the rows may be stored, or may still be.
    Unknown {
        /// What happened, without values of rows.
        cause: String,
    },
    /// The stream ends before this position: an earlier append is missing.
    OutOfRange,
    /// The stream takes no more rows: it was finalized, it has expired, or its table is another one now.
    Gone {
        /// What the server said, without values of rows.
        cause: String,
    },
}

/// What became of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// The rows can be seen, now or since an earlier call.
    Visible,
    /// The stream was finalized before: nothing of it becomes visible any more.
    Finalized,
    /// There is no such stream: it has expired, or its table is gone.
    Missing,
}

/// The streams of one sink. Every call ends by a deadline of its own.
pub trait WriteStreams: Send + Sync {
    /// Opens a stream into `table`, as [`crate::Sink::table`] names it. Makes the table where that is allowed.
    fn open<'a>(&'a self, table: &'a str) -> BoxFuture<'a, Result<StreamName, SinkError>>;

    /// Appends the rows of a batch. Requests are sent in the order in which the futures are polled for the first time,
    /// many may be on their way.
    fn append<'a>(&'a self, to: &'a StreamPosition, batch: &'a mut Batch) -> BoxFuture<'a, Appended>;

    /// Makes the first `end` rows of a stream visible; `end` is at least 1. Calling it again changes nothing.
    fn publish<'a>(&'a self, stream: &'a StreamName, end: i64)
    -> BoxFuture<'a, Result<Published, SinkError>>;

    /// Ends a stream: it takes no more rows, and nothing more of it can be published. Calling it again changes nothing,
    /// and a stream that does not exist is as good as ended.
    fn finalize<'a>(&'a self, stream: &'a StreamName) -> BoxFuture<'a, Result<(), SinkError>>;
}
