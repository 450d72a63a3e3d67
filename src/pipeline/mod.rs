//! One running pipeline.
//!
//! ```text
//!  librdkafka ─▶ source thread: membership, rebalances, commits         source, ends
//!      │ one forwarded queue per lane
//!      ▼
//!  lane thread: copy → decode → validate → transform → encode          lanes, lane, reports, records, open
//!               → open batches
//!      │ flushes, as many as the sink wants in flight
//!      ▼
//!  writer task: dead letters → write → retry → cut bad rows out         writer, positions, appends, backoff, dead_letters
//!      │ finished spans
//!      ▼
//!  delivery (pure): what may be committed ─▶ back to the source thread   shared
//!      │ rows that a commit counts, where the sink has streams
//!      ▼
//!  publisher task: publish, finalize                                    publisher
//! ```
//! [`BooksSnapshot`] says what became of every record, `memory` bounds what is held.

mod appends;
mod backoff;
mod books;
mod dead_letters;
mod ends;
mod flush;
mod lane;
mod lanes;
mod memory;
mod open;
mod positions;
mod publisher;
mod records;
mod reports;
mod shared;
mod source;
mod topic;
mod torn;
mod wake;
mod writer;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::config::Pipeline;
pub use books::{BooksSnapshot, PartitionBooks, Tally};
use shared::Shared;
pub use shared::{Failure, FailureKind, Health};
use source::Source;

/// How a pipeline is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// Stop when every partition has been read up to the end it had at the start.
    pub until_end: bool,
    /// Give up when nothing was written for this long.
    pub timeout: Option<Duration>,
}

/// A pipeline at work. Dropping it does not stop it: see [`RunningPipeline::stop`].
pub struct RunningPipeline {
    shared: Arc<Shared>,
    source: JoinHandle<()>,
}

impl RunningPipeline {
    /// Starts the pipeline's source thread; lanes follow when the group has given partitions. Writers run on the
    /// current Tokio runtime.
    ///
    /// # Errors
    /// The Kafka client refuses its settings.
    pub fn start(pipeline: Arc<Pipeline>, options: RunOptions) -> Result<Self, Failure> {
        // The other third is for what librdkafka has prefetched: see `Source::connect`.
        let shared = Shared::new(
            &pipeline.name,
            pipeline.memory.as_usize() / 3 * 2,
            pipeline.sink.protocol(),
            pipeline.stalled_after.0,
        );
        let runtime = tokio::runtime::Handle::current();
        let name = pipeline.name.clone();
        let source = Source::connect(pipeline, options, Arc::clone(&shared), runtime)?;
        let source =
            std::thread::Builder::new().name(format!("{name}/source")).spawn(move || source.run()).map_err(
                |error| Failure::fatal(format!("the source thread does not start: {error}"), None),
            )?;
        Ok(Self { shared, source })
    }

    /// Asks the pipeline to stop taking, drain, commit and leave its group. Returns at once.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Whether the pipeline has ended.
    pub fn is_finished(&self) -> bool {
        self.source.is_finished()
    }

    /// Grows as long as the source thread is alive.
    pub fn beats(&self) -> u64 {
        self.shared.beats()
    }

    /// The books so far.
    pub fn books(&self) -> BooksSnapshot {
        self.shared.books.snapshot()
    }

    /// How it is doing.
    pub fn health(&self) -> Health {
        self.shared.health()
    }

    /// Why it has failed, if it has.
    pub fn failure(&self) -> Option<Failure> {
        if self.source.is_finished() && !self.shared.has_left() {
            return Some(Failure::fatal(
                "the source thread has panicked: this is a defect of txconnect",
                None,
            ));
        }
        self.shared.failure()
    }
}
