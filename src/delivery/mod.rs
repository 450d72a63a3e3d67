//! When a position may move: ledger and commit protocols as pure state machines.
//!
//! Events in, actions out; no async, no clock, no I/O and no Kafka types, so that a simulation can drive the
//! very code that runs in production. The runtime performs the actions and reports back what came of them.
//!
//! | module | what it holds |
//! |---|---|
//! | [`ledger`] | spans of offsets in flight in one assignment of one partition, and its finished prefix |
//! | [`at_least_once`] | rows first, Kafka commit afterwards |
//! | [`offsets_in_sink`] | rows and positions in one transaction of the sink |
//! | [`two_phase`] | rows in invisible streams, published after the Kafka commit that counts them |
//! | [`note`] | what stands beside a position in a Kafka commit |
//! | [`protocol`] | a sink's protocol as one machine: [`Delivery`] |

pub mod at_least_once;
pub mod ledger;
pub mod note;
pub mod offsets_in_sink;
pub mod protocol;
pub mod two_phase;

pub use at_least_once::{Action, AtLeastOnce, CommitOutcome, Event};
pub use ledger::{Ledger, LedgerError};
pub use note::{CommittedStream, Note, NoteError, StreamsNote};
pub use offsets_in_sink::{Move, OffsetsInSink, Plan, Settled};
pub use protocol::Delivery;
pub use two_phase::{Answer, Inherited, Placement, Rows, Step, TwoPhase, Verdict, inherit};

/// The runtime's number of a partition; stable as long as the pipeline runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// Counts the assignments of a pipeline. What belongs to an older assignment of a partition is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Assignment(pub u64);

/// Names one commit request, so that its answer is not taken for another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitToken(pub u64);

/// The offsets `first..next` of one partition that a flush covers completely. Offsets without a record
/// (compaction, transaction markers) are covered like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The partition.
    pub slot: Slot,
    /// The assignment under which the records were taken.
    pub assignment: Assignment,
    /// The first offset covered.
    pub first: i64,
    /// The offset after the last one covered.
    pub next: i64,
}
