//! Positions that the sink keeps: what a flush moves, and what to do when a commit is in doubt or fenced.

use std::sync::Arc;

use txconnect_connector_api::{Advance, Claim, Claimed, OffsetStore, Sink, SinkError};

use super::flush::Flush;
use super::shared::Shared;
use crate::delivery::{Plan, Settled, Slot, Span};

/// The positions of one pipeline, as its writers need them.
pub(super) struct Positions {
    store: Option<Arc<dyn OffsetStore>>,
}

/// What can be done about a flush now.
pub(super) enum Prepared {
    /// Write it and move these positions along.
    Write(Vec<Advance>),
    /// Partitions have left the flush: look again.
    Changed,
}

impl Positions {
    pub(super) fn of(sink: &dyn Sink, shared: &Shared) -> Self {
        Self { store: sink.offsets(&shared.name).filter(|_| shared.keeps_offsets_in_sink()) }
    }

    /// Says what moves along with the flush. Partitions in doubt are taken over again first; partitions that are not
    /// ours any more leave the flush.
    ///
    /// # Errors
    /// The sink is away, or its positions are gone.
    pub(super) async fn prepare(&self, shared: &Shared, flush: &mut Flush) -> Result<Prepared, SinkError> {
        match shared.plan(&flush.covered()) {
            None => Ok(Prepared::Write(Vec::new())),
            Some(Plan::Write(moves)) => {
                let mut advances = Vec::with_capacity(moves.len());
                for moved in moves {
                    let partition =
                        shared.books.partition_of(moved.slot).ok_or_else(|| SinkError::Fatal {
                            cause: "a flush came from a partition that nobody knows".to_owned(),
                            hint: None,
                        })?;
                    advances.push(Advance { partition, epoch: moved.epoch, from: moved.from, to: moved.to });
                }
                Ok(Prepared::Write(advances))
            }
            Some(Plan::Drop(gone)) => {
                flush.drop_partitions(&gone);
                Ok(Prepared::Changed)
            }
            Some(Plan::TakeOver(doubtful)) => {
                self.take_over_again(shared, flush, &doubtful).await?;
                Ok(Prepared::Changed)
            }
            Some(Plan::Broken { reason }) => Err(SinkError::Fatal { cause: reason, hint: None }),
        }
    }

    /// Somebody else has taken over some of the partitions of the last call: they leave the flush, and the source
    /// thread finds out whether they are still ours.
    pub(super) fn fenced(shared: &Shared, flush: &mut Flush, advances: &[usize]) {
        let mut spans: Vec<Span> =
            advances.iter().filter_map(|index| flush.spans.get(*index).map(|(span, _)| *span)).collect();
        if spans.is_empty() {
            // The sink does not say which: none of them goes on before it was taken over anew.
            spans = flush.covered();
        }
        shared.fenced(&spans);
        let slots: Vec<Slot> = spans.iter().map(|span| span.slot).collect();
        flush.drop_partitions(&slots);
    }

    async fn take_over_again(
        &self,
        shared: &Shared,
        flush: &mut Flush,
        doubtful: &[Slot],
    ) -> Result<(), SinkError> {
        let Some(store) = &self.store else { return Ok(()) };
        let spans: Vec<Span> =
            flush.covered().into_iter().filter(|span| doubtful.contains(&span.slot)).collect();
        let claims: Vec<Claim> = spans
            .iter()
            .filter_map(|span| shared.books.partition_of(span.slot))
            .map(|partition| Claim { partition, topic_id: None, start: None })
            .collect();
        let answers = store.take_over(&claims).await?;
        for (span, answer) in spans.iter().zip(answers) {
            let Claimed::Taken { epoch, next_offset, .. } = answer else {
                return Err(SinkError::fatal(
                    format!("the positions of this pipeline are gone from {}", store.place()),
                    "restore the table, or set the positions anew with `txconnect offsets reset FILE --to … --yes`",
                ));
            };
            match shared.taken_over_again(span, epoch, next_offset) {
                Settled::NotWritten => {}
                Settled::Written => {
                    let finished: Vec<_> =
                        flush.spans.iter().filter(|(other, _)| other == span).copied().collect();
                    shared.finished(&finished);
                    flush.drop_partitions(&[span.slot]);
                }
                Settled::Elsewhere => flush.drop_partitions(&[span.slot]),
            }
        }
        Ok(())
    }
}
