//! Positions that a sink keeps beside the rows, so that both move in one transaction.
//!
//! A sink whose [`crate::Protocol`] is `OffsetsInSink` has an [`OffsetStore`]. Taking a partition over raises the
//! partition's [`Epoch`]; whatever an earlier owner still has on its way is refused from then on. A
//! [`crate::Writer`] moves positions by [`Advance`]s, in the same transaction as the rows that they cover.

use std::fmt;

use futures::future::BoxFuture;

use crate::record::TopicPartition;
use crate::sink::SinkError;

/// Counts the owners of a partition in one pipeline. A transaction of an older epoch changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub i64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A partition that is to be taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The partition.
    pub partition: TopicPartition,
    /// Kafka's id of the topic, which another topic of the same name does not have; `None` where the broker has none.
    /// Stored where nothing is stored yet.
    pub topic_id: Option<String>,
    /// The position to begin with where the sink has none. `None`: then nothing is stored and the answer is
    /// [`Claimed::Missing`].
    pub start: Option<i64>,
}

/// What came of a [`Claim`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The partition is ours; transactions of earlier owners that have not committed never will.
    Taken {
        /// The new epoch.
        epoch: Epoch,
        /// The first offset that is not in the sink.
        next_offset: i64,
        /// The topic's id as it was stored at first.
        topic_id: Option<String>,
        /// Who had it before, for messages; `None` where nothing was stored.
        previous_owner: Option<String>,
    },
    /// The sink has no position, and the claim named none to begin with.
    Missing,
}

/// Moves one partition's position along with the rows of a flush.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advance {
    /// The partition.
    pub partition: TopicPartition,
    /// The epoch under which the partition was taken over.
    pub epoch: Epoch,
    /// The position that must be stored now.
    pub from: i64,
    /// The position that is stored afterwards; never below `from`, except after a position outside the log.
    pub to: i64,
}

/// A stored position, as `txconnect offsets show` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPosition {
    /// The partition.
    pub partition: TopicPartition,
    /// The first offset that is not in the sink.
    pub next_offset: i64,
    /// The epoch.
    pub epoch: Epoch,
    /// The topic's id.
    pub topic_id: Option<String>,
    /// Who wrote it last: host and process.
    pub owner: Option<String>,
    /// When it last moved, in RFC 3339.
    pub updated_at: String,
}

/// A position that is to be stored, as `txconnect offsets reset` does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPosition {
    /// The partition.
    pub partition: TopicPartition,
    /// The first offset to read.
    pub next_offset: i64,
    /// Replaces what is stored.
    pub topic_id: Option<String>,
}

/// The positions of one pipeline in a sink. Every call ends by a deadline of its own.
pub trait OffsetStore: Send + Sync {
    /// Where the positions are kept, for messages: `table public.txconnect_offsets`.
    fn place(&self) -> String;

    /// Takes partitions over, all of them or none; answers come in the order of the claims.
    ///
    /// The call waits for transactions that are about to commit, and ends those of an owner that does not go on.
    fn take_over<'a>(&'a self, claims: &'a [Claim]) -> BoxFuture<'a, Result<Vec<Claimed>, SinkError>>;

    /// All positions of the pipeline, by topic and partition. Empty where nothing was ever stored; makes no table.
    fn positions(&self) -> BoxFuture<'_, Result<Vec<StoredPosition>, SinkError>>;

    /// Stores positions and raises their epochs, all of them or none.
    fn reset<'a>(&'a self, positions: &'a [NewPosition]) -> BoxFuture<'a, Result<(), SinkError>>;
}
