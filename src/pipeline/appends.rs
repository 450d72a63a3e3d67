//! Brings the rows of a flush into streams, in the order of their offsets, many appends on their way at once.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use txconnect_connector_api::{Appended, Batch, RejectedRow, SinkError, StreamPosition, WriteStreams};

use super::flush::Flush;
use super::shared::Shared;
use crate::delivery::{Answer, Placement, Rows, Slot, Span, Verdict};

/// Insurance against a wake-up that never comes.
const TICK: Duration = Duration::from_millis(250);

/// Why the rows of a flush are not in their streams yet.
pub(super) enum AppendError {
    /// The flush has changed, or its turn comes later: look again.
    Changed,
    /// The connection ended before the answer came, as servers end connections in normal operation.
    Unanswered(SinkError),
    /// The sink.
    Sink(SinkError),
}

/// What became of the rows of one partition.
enum Outcome {
    Appended,
    /// Not ours any more, or to be started anew.
    Gone,
    /// Rows before them have to be sent again first.
    Later,
    Rejected(Vec<RejectedRow>),
    Unanswered(SinkError),
    Failed(SinkError),
}

impl Outcome {
    /// What becomes of a partition whose rows for several tables fared differently.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Rejected(mut rows), Self::Rejected(more)) => {
                rows.extend(more);
                Self::Rejected(rows)
            }
            (one, other) if one.gravity() >= other.gravity() => one,
            (_, other) => other,
        }
    }

    fn gravity(&self) -> u8 {
        match self {
            Self::Appended => 0,
            Self::Later => 1,
            Self::Unanswered(_) => 2,
            Self::Failed(SinkError::Fatal { .. }) => 5,
            Self::Failed(_) => 3,
            Self::Rejected(_) => 4,
            Self::Gone => 6,
        }
    }
}

/// Appends what is left of a flush. `Ok` means that every row is in its stream.
pub(super) async fn append(
    streams: &dyn WriteStreams,
    shared: &Shared,
    flush: &mut Flush,
) -> Result<(), AppendError> {
    let mut partitions: Vec<(Span, Vec<(usize, &mut Batch)>)> =
        flush.spans.iter().map(|(span, _)| (*span, Vec::new())).collect();
    for (index, batch) in flush.batches.iter_mut().enumerate().filter(|(_, batch)| !batch.is_empty()) {
        // A batch of this sink holds rows of one partition.
        let slot = Slot(batch.rows[0].source.slot);
        if let Some((_, batches)) = partitions.iter_mut().find(|(span, _)| span.slot == slot) {
            batches.push((index, batch));
        }
    }
    let mut running: FuturesUnordered<_> =
        partitions
            .into_iter()
            .map(|(span, batches)| async move {
                (span.slot, append_partition(streams, shared, span, batches).await)
            })
            .collect();
    let mut gone = Vec::new();
    let mut rejected = Vec::new();
    let mut failure = None;
    let mut unanswered = None;
    let mut later = false;
    while let Some((slot, outcome)) = running.next().await {
        match outcome {
            Outcome::Appended => {}
            Outcome::Gone => gone.push(slot),
            Outcome::Later => later = true,
            Outcome::Rejected(rows) => rejected.extend(rows),
            Outcome::Unanswered(error) => unanswered = Some(error),
            Outcome::Failed(fatal @ SinkError::Fatal { .. }) => failure = Some(fatal),
            Outcome::Failed(error) => drop(failure.get_or_insert(error)),
        }
    }
    drop(running);
    let changed = later || !gone.is_empty();
    if !gone.is_empty() {
        flush.drop_partitions(&gone);
    }
    match failure {
        Some(fatal @ SinkError::Fatal { .. }) => Err(AppendError::Sink(fatal)),
        // Indices of rows stay what they were: whole batches have been emptied, none has gone.
        _ if !rejected.is_empty() => Err(AppendError::Sink(SinkError::Rejected { rows: rejected })),
        Some(error) => Err(AppendError::Sink(error)),
        None => match unanswered {
            Some(error) => Err(AppendError::Unanswered(error)),
            None if changed => Err(AppendError::Changed),
            None => Ok(()),
        },
    }
}

async fn append_partition(
    streams: &dyn WriteStreams,
    shared: &Shared,
    span: Span,
    mut batches: Vec<(usize, &mut Batch)>,
) -> Outcome {
    let rows: Vec<Rows> = batches
        .iter()
        .map(|(_, batch)| Rows { table: Arc::clone(&batch.table), rows: batch.rows.len() })
        .collect();
    let places = loop {
        let stirred = shared.watch();
        tokio::pin!(stirred);
        stirred.as_mut().enable();
        match shared.place_rows(&span, &rows) {
            Placement::Append(places) => break places,
            Placement::Open(table) => match streams.open(&table).await {
                Ok(stream) => shared.opened(&span, &table, Some(stream)),
                Err(error) => {
                    shared.opened(&span, &table, None);
                    return Outcome::Failed(error);
                }
            },
            Placement::Wait => {
                if shared.has_failed() {
                    // What has failed before it is not sent again, so its turn never comes.
                    return Outcome::Gone;
                }
                // Noticed or not, it looks again.
                let _ = tokio::time::timeout(TICK, stirred).await;
            }
            Placement::Gone => return Outcome::Gone,
            Placement::Restart => {
                tracing::warn!(
                    pipeline = %shared.name,
                    "{}: rows were refused while the fate of others was unknown; going on with a new stream",
                    place(shared, &span)
                );
                shared.fenced(&[span]);
                return Outcome::Gone;
            }
        }
    };
    let mut running: FuturesUnordered<_> = batches
        .iter_mut()
        .zip(places)
        .filter_map(|((index, batch), place)| {
            Some(append_batch(streams, shared, span, *index, batch, place?))
        })
        .collect();
    let mut worst = Outcome::Appended;
    while let Some(outcome) = running.next().await {
        worst = worst.and(outcome);
    }
    worst
}

async fn append_batch(
    streams: &dyn WriteStreams,
    shared: &Shared,
    span: Span,
    index: usize,
    batch: &mut Batch,
    to: StreamPosition,
) -> Outcome {
    let mut told = Told { shared, span, table: Arc::clone(&batch.table), answer: Some(Answer::Unanswered) };
    let appended = streams.append(&to, batch).await;
    let (answer, outcome) = match appended {
        Appended::Stored => (Answer::Stored, Outcome::Appended),
        Appended::AlreadyStored => (Answer::AlreadyStored, Outcome::Appended),
        Appended::Rejected(rows) => {
            let rows = rows.into_iter().map(|(row, why)| RejectedRow { batch: index, row, why });
            (Answer::Refused, Outcome::Rejected(rows.collect()))
        }
        Appended::NotStored(error) => (Answer::Refused, Outcome::Failed(error)),
        Appended::Unknown { cause } => (Answer::Unanswered, Outcome::Unanswered(SinkError::transient(cause))),
        Appended::OutOfRange => (Answer::OutOfRange, Outcome::Later),
        Appended::Gone { cause } => {
            tracing::warn!(
                pipeline = %shared.name,
                "{}: stream {} takes no more rows, going on with a new one: {cause}", place(shared, &span), to.stream
            );
            told.answer = None;
            shared.fenced(&[span]);
            return Outcome::Gone;
        }
    };
    told.answer = None;
    if shared.append_answered(&span, &told.table, answer) == Verdict::Restart {
        tracing::warn!(
            pipeline = %shared.name,
            "{}: stream {} does not hold what was sent to it, going on with a new one", place(shared, &span), to.stream
        );
        return Outcome::Gone;
    }
    outcome
}

/// An append whose future is dropped counts as unanswered.
struct Told<'a> {
    shared: &'a Shared,
    span: Span,
    table: Arc<str>,
    answer: Option<Answer>,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            self.shared.append_answered(&self.span, &self.table, answer);
        }
    }
}

fn place(shared: &Shared, span: &Span) -> String {
    shared
        .books
        .partition_of(span.slot)
        .map_or_else(|| "a partition".to_owned(), |partition| partition.to_string())
}
